//! One real process: started with its output in a file, ended by its own number and never by name.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// Lines of a log that are shown when a test fails.
const TAIL_LINES_MAX: usize = 40;

/// A process that is killed when this is dropped; its log is shown if a test fails.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Start `command` with both outputs appended to the file `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Process {
        let output = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let errors = output.try_clone().unwrap();
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(|key| key.starts_with("VELDRA_")) {
                command.env_remove(key);
            }
        }
        // The miners of these tests come without passwords.
        command.env("VELDRA_ALLOW_OPEN_AUTH_INLINE", "1");
        // Logs are searched for words, so they carry no colours.
        command.env("NO_COLOR", "1").env("RUST_LOG", "info");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The status of a process that has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Send `signal`.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.ended().is_none(), "{} has ended by itself\n{}", self.name, self.tail());
        // It has not been waited for, so its number cannot be another's.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, and wait for the end.
    pub fn terminate(&mut self, patience: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let what = format!("the orderly end of {}", self.name);
        wait_for(&what, patience, || self.ended())
    }

    /// Wait for an end of its own accord.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_for(&what, patience, || self.ended())
    }

    /// SIGKILL, and wait for the end.
    pub fn kill(&mut self) {
        // A process that has ended already cannot be killed, which is as good.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// All that it has said.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines that it has said.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..];
        format!("--- end of {} ---\n{}\n", self.name, last.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}
