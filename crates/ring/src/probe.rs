//! The start-up probe: can this kernel run the miners' data path, and if not, why in one line.
//!
//! It does what a shard does, once and small: sets a ring up, registers buffers and an eventfd,
//! and receives over a socket pair. So it also finds what a container's seccomp profile forbids,
//! which version numbers do not tell.

#![allow(unsafe_code)] // It queues a receive of its own.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::{cqueue, opcode, types};

use crate::bell::Bell;
use crate::uring::{BUFFER_GROUP, Kernel, ReceiveBuffers};

/// How long the probe waits for bytes that are there already.
const PROBE_WAIT: Duration = Duration::from_secs(2);
const PROBE_ENTRIES: u32 = 8;
const PROBE_BUFFER_BYTES: usize = 64;

/// What the kernel offers beyond what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Single issuer with deferred task work (Linux 6.1): without it the same code runs, with
    /// more interruptions under load.
    pub deferred_taskrun: bool,
}

/// What is missing or forbidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeError {
    /// One line: what does not work, why, and how to mend it.
    pub text: String,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for ProbeError {}

/// Tries everything the data path needs.
///
/// # Errors
///
/// One line that names the feature, and what to change.
pub fn probe() -> Result<Features, ProbeError> {
    try_all().map_err(|error| ProbeError { text: error.to_string() })
}

fn try_all() -> io::Result<Features> {
    let bell = Bell::new()?;
    let mut kernel = Kernel::new(PROBE_ENTRIES, PROBE_ENTRIES * 2)
        .map_err(|error| explain_setup("io_uring_setup", &error))?;
    let buffers = ReceiveBuffers::new(PROBE_ENTRIES as u16, PROBE_BUFFER_BYTES)?;
    buffers
        .register(&kernel.submitter())
        .map_err(|error| explain_setup("provided buffer rings", &error))?;
    kernel
        .register_eventfd(bell.as_fd())
        .map_err(|error| explain_setup("an eventfd on the ring", &error))?;
    let (mut near, far) = UnixStream::pair()?;
    near.write_all(b"probe")?;
    drop(near); // So that the receive ends, and with it every use of the buffers.
    let entry = opcode::RecvMulti::new(types::Fd(far.as_raw_fd()), BUFFER_GROUP).build();
    // SAFETY: `far` and `buffers` outlive the ring's use of them: the loop below ends with the
    // final completion, and on a timeout both are leaked.
    unsafe { kernel.push(&entry) };
    let received = receive(&mut kernel);
    let (is_over, deferred_taskrun) = (kernel.in_flight() == 0, kernel.is_deferred());
    drop(kernel); // Before the memory it was lent.
    if !is_over {
        std::mem::forget((far, buffers));
    }
    match received? {
        bytes if bytes == b"probe".len() => Ok(Features { deferred_taskrun }),
        bytes => Err(explain_multishot(&format!("received {bytes} of 5 bytes"))),
    }
}

/// Takes completions until the receive is over; returns the bytes received into buffers.
fn receive(kernel: &mut Kernel) -> io::Result<usize> {
    let mut bytes = 0;
    loop {
        let Some(completion) = kernel.next_completion() else {
            kernel.wait(Some(PROBE_WAIT))?;
            if !kernel.has_completions() {
                return Err(explain_multishot("no completion within two seconds"));
            }
            continue;
        };
        let is_last = !cqueue::more(completion.flags());
        if is_last {
            kernel.finished();
        }
        match completion.result() {
            result if result < 0 => {
                let error = io::Error::from_raw_os_error(-result);
                return Err(explain_multishot(&error.to_string()));
            }
            result if cqueue::buffer_select(completion.flags()).is_some() => {
                bytes += usize::try_from(result).unwrap_or(0);
            }
            _ => {}
        }
        if is_last {
            return Ok(bytes);
        }
    }
}

fn explain_multishot(what: &str) -> io::Error {
    let text = format!("io_uring multishot receive does not work ({what}): Linux 6.0 is needed");
    io::Error::other(text)
}

/// Says in one line why a set-up step failed and how to mend it.
pub(crate) fn explain_setup(step: &str, error: &io::Error) -> io::Error {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    io::Error::new(error.kind(), explanation(step, error, switch.as_deref().map(str::trim)))
}

fn explanation(step: &str, error: &io::Error, switch: Option<&str>) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => format!(
            "{step} is not in this kernel or is hidden by a sandbox: Linux 6.0 with io_uring is \
             needed"
        ),
        Some(libc::EPERM | libc::EACCES) => match switch {
            Some(value @ ("1" | "2")) => format!(
                "{step} is forbidden by kernel.io_uring_disabled = {value}: set it to 0 with \
                 sysctl"
            ),
            _ => format!(
                "{step} is forbidden by a seccomp profile or security module: allow \
                 io_uring_setup, io_uring_enter and io_uring_register for this process"
            ),
        },
        Some(libc::EINVAL) => {
            format!("{step} is refused as unknown by this kernel: Linux 6.0 is needed")
        }
        Some(libc::ENOMEM) => format!(
            "{step} finds no memory: raise the locked-memory limit (ulimit -l) or the memory of \
             the container"
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            format!("{step} finds no free descriptor: raise the limit of open files (ulimit -n)")
        }
        _ => format!("{step} failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_passes_or_says_why_in_one_line() {
        // The other tests of this crate need the ring, so here it has to pass.
        assert!(probe().is_ok(), "{:?}", probe());
    }

    #[test]
    fn each_refusal_names_the_step_and_the_remedy() {
        let cases = [
            (libc::ENOSYS, None, "Linux 6.0"),
            (libc::EPERM, Some("2"), "kernel.io_uring_disabled = 2"),
            (libc::EPERM, Some("0"), "seccomp"),
            (libc::EPERM, None, "seccomp"),
            (libc::EINVAL, None, "Linux 6.0"),
            (libc::ENOMEM, None, "ulimit -l"),
            (libc::EMFILE, None, "ulimit -n"),
            (libc::EIO, None, "failed"),
        ];
        for (code, switch, remedy) in cases {
            let error = io::Error::from_raw_os_error(code);
            let text = explanation("io_uring_setup", &error, switch);
            assert!(text.starts_with("io_uring_setup") && text.contains(remedy), "{text}");
            assert!(!text.contains('\n'));
        }
    }
}
