//! Starting a program that does not outlive its parent.
//!
//! The kernel is asked to kill this process when the parent dies (`PR_SET_PDEATHSIG`), which
//! survives the `exec` that follows. Doing it here, in a process of its own, needs no code between
//! fork and exec and no program from outside. The parent may be killed with SIGKILL: nothing of it
//! has to run.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::arguments::LaunchOptions;

/// Becomes the program. Returns only the sentence that says why it could not.
pub fn run(options: &LaunchOptions) -> String {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("cannot tie this process to its parent: {error}");
    }
    // A parent that died before the request above would never be noticed by the kernel.
    let parent = i32::try_from(options.parent).ok().and_then(Pid::from_raw);
    if parent.is_none() || getppid() != parent {
        return format!("process {} has ended or is not the parent of this one", options.parent);
    }
    let Some((program, arguments)) = options.command.split_first() else {
        return "no program named".to_owned();
    };
    let error = Command::new(program).args(arguments).exec();
    format!("cannot start {}: {error}", program.display())
}
