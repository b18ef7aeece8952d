//! The raw io_uring of one core: set-up with fall-backs, submission, completions.
//!
//! This is the thin layer over the `io-uring` crate that knows how our ring is configured:
//! single issuer, task work deferred to our own calls, a completion queue that holds a burst
//! from every connection. Entries that find the submission queue full while the kernel refuses
//! more wait in a backlog, so pushing never fails and never loses an operation.

#![allow(unsafe_code)] // Submission entries carry raw pointers; `enter` is a raw system call.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, squeue};

/// Submission queue entries: what a turn may start before it has to call the kernel.
pub const SUBMISSIONS: u32 = 4096;
/// Completion queue entries: a burst of every connection of a shard fits.
pub const COMPLETIONS: u32 = 32_768;
/// Calls one `submit` makes at most to run deferred work. The kernel runs about twenty items a
/// call, so a turn starts with a few hundred completions at most and stays short.
const ROUNDS_PER_SUBMIT: usize = 16;
/// Calls at most before a sleep, where only a burst of work that completes nothing keeps going:
/// enough for one item from every connection a process can have descriptors for.
const ROUNDS_BEFORE_SLEEP: usize = 65_536;

pub struct Kernel {
    ring: IoUring,
    /// Entries the submission queue had no room for, oldest first. At most a few operations a
    /// connection exist at a time, which bounds it.
    backlog: VecDeque<squeue::Entry>,
    /// Operations that will still post a final completion.
    in_flight: usize,
    is_deferred: bool,
    is_eventfd_on: bool,
}

impl Kernel {
    /// Sets up a ring, with deferred task work if the kernel has it, and without if not.
    pub fn new(submissions: u32, completions: u32) -> io::Result<Kernel> {
        let deferred = IoUring::builder()
            .setup_cqsize(completions)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(submissions);
        match deferred {
            Ok(ring) => Ok(Kernel::over(ring, true)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Kernel::plain(submissions, completions)
            }
            Err(error) => Err(error),
        }
    }

    /// Sets up a ring as kernels before 6.1 have it: work runs whenever we enter the kernel.
    pub fn plain(submissions: u32, completions: u32) -> io::Result<Kernel> {
        let ring = IoUring::builder().setup_cqsize(completions).build(submissions)?;
        Ok(Kernel::over(ring, false))
    }

    fn over(ring: IoUring, is_deferred: bool) -> Kernel {
        let backlog = VecDeque::new();
        Kernel { ring, backlog, in_flight: 0, is_deferred, is_eventfd_on: true }
    }

    /// Whether task work is deferred to our own calls (Linux 6.1 and later).
    pub fn is_deferred(&self) -> bool {
        self.is_deferred
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Makes completions write `descriptor`, unless switched off by `set_eventfd`.
    pub fn register_eventfd(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.submitter().register_eventfd(descriptor.as_raw_fd())
    }

    /// Lets completions write the eventfd, or not. Returns whether that was a change.
    pub fn set_eventfd(&mut self, on: bool) -> bool {
        if self.is_eventfd_on == on {
            return false;
        }
        self.is_eventfd_on = on;
        let completion = self.ring.completion();
        if on {
            completion.enable_eventfd();
            // Orders the flag before the look at pending work that follows: the kernel queues
            // work and then reads the flag, so one of the two sides sees the other.
            fence(Ordering::SeqCst);
        } else {
            completion.disable_eventfd();
        }
        true
    }

    pub fn is_eventfd_on(&self) -> bool {
        self.is_eventfd_on
    }

    /// Queues an operation that posts a final completion.
    ///
    /// # Safety
    ///
    /// Memory and descriptors the entry names must stay valid until its final completion has
    /// been taken from this ring.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) {
        self.in_flight += 1;
        // SAFETY: passed on from the caller.
        unsafe { self.enqueue(entry) };
    }

    /// Queues an operation that posts nothing when it succeeds: a cancellation. It names other
    /// operations by number and no memory, so it is safe.
    pub fn push_cancel(&mut self, user_data: u64, cancel_data: u64) {
        let entry = io_uring::opcode::AsyncCancel::new(user_data)
            .build()
            .user_data(cancel_data)
            .flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the entry refers to no memory and to no descriptor.
        unsafe { self.enqueue(&entry) };
    }

    /// Queues the removal of a timeout by its number; silent when it succeeds.
    pub fn push_timeout_remove(&mut self, user_data: u64, cancel_data: u64) {
        let entry = io_uring::opcode::TimeoutRemove::new(user_data)
            .build()
            .user_data(cancel_data)
            .flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the entry refers to no memory and to no descriptor.
        unsafe { self.enqueue(&entry) };
    }

    /// # Safety
    ///
    /// As for [`Kernel::push`].
    unsafe fn enqueue(&mut self, entry: &squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: passed on from the caller.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: hand over what is queued. If the kernel refuses, the entry waits below.
            let _ = self.enter(EnterFlags::empty());
        }
        self.backlog.push_back(entry.clone());
        self.move_backlog();
    }

    fn move_backlog(&mut self) {
        let mut submission = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever put the entry into the backlog promised that what it names is
            // valid until its completion, which cannot come before it is submitted.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Hands everything queued to the kernel and runs deferred work, so that completions appear.
    ///
    /// With `before_sleep` it goes on until a completion is there or no work is left: deferred
    /// work that stays behind does not write the eventfd a second time. Without it, a call that
    /// has nothing to do makes no system call.
    pub fn submit(&mut self, before_sleep: bool) -> io::Result<()> {
        for round in 0..ROUNDS_BEFORE_SLEEP {
            self.move_backlog();
            if self.has_nothing_to_hand_over() && (round > 0 || !before_sleep) {
                return Ok(());
            }
            if round >= ROUNDS_PER_SUBMIT && (!before_sleep || self.has_completions()) {
                return Ok(());
            }
            self.enter(EnterFlags::GETEVENTS)?;
        }
        Ok(())
    }

    fn has_nothing_to_hand_over(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.is_empty() && !submission.taskrun() && !submission.cq_overflow()
    }

    /// Submits and sleeps until a completion is there or `timeout` has passed.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.submit(false)?;
        if self.has_completions() {
            return Ok(());
        }
        let submitter = self.ring.submitter();
        let waited = match timeout {
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
            None => submitter.submit_and_wait(1),
        };
        match waited.map_err(|error| error.raw_os_error().unwrap_or(0)) {
            Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
            Err(code) => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Takes the oldest completion. Its `in_flight` count falls with the last one of an
    /// operation, which the caller says through [`Kernel::finished`].
    pub fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// An operation queued with [`Kernel::push`] has posted its last completion.
    pub fn finished(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub fn completions(&mut self) -> usize {
        self.ring.completion().len()
    }

    pub fn has_completions(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    fn enter(&mut self, flags: EnterFlags) -> io::Result<()> {
        let queued = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        // SAFETY: no argument structure is passed; the entries queued keep the promise of
        // `push`.
        let entered =
            unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, flags.bits(), None) };
        match entered.map_err(|error| error.raw_os_error().unwrap_or(0)) {
            // Interrupted, or completions have to be taken first: what is queued stays queued.
            Ok(_) | Err(libc::EINTR | libc::EBUSY) => Ok(()),
            Err(code) => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Takes ownership of the descriptor that an accept completion carries.
pub fn accepted_descriptor(result: i32) -> Option<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us and told nobody else; each accept
    // completion is taken from the ring once.
    (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) })
}
