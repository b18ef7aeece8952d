//! The running programs: starting them, waiting until they are ready, noticing that one has ended,
//! stopping them.

#![allow(clippy::disallowed_methods, reason = "driver: waits for processes by the clock")]

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::collect::Asker;
use super::folder::{Addresses, Folder};
use super::model::Health;
use super::program::{PROGRAMS, Program};
use super::stop::{Demand, Stop};

/// Time a service gets to be ready.
const READY_PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at a process.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Prefix of the environment's names that would change what the programs are told.
const ENVIRONMENT_PREFIX: &str = "VELDRA_";

/// The programs of one demo. Those that still run when it is dropped are killed.
#[derive(Debug)]
pub struct Services<'a> {
    folder: &'a Folder,
    programs: PathBuf,
    launcher: PathBuf,
    children: [Option<Child>; PROGRAMS],
}

/// Why a program is not there, with the end of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The user asked to stop while the program started.
    Interrupted,
    /// A sentence, and the log's last lines.
    Failed(String),
}

impl<'a> Services<'a> {
    /// Programs from the folder `programs`, or from the one that this program is in.
    ///
    /// # Errors
    /// A sentence that names the programs that are missing.
    pub fn new(folder: &'a Folder, programs: Option<&Path>) -> Result<Services<'a>, String> {
        let launcher = std::env::current_exe()
            .map_err(|error| format!("cannot find this program's own file: {error}"))?;
        let beside = launcher.parent().unwrap_or(Path::new("."));
        let programs = std::path::absolute(programs.unwrap_or(beside))
            .map_err(|error| format!("--programs: {error}"))?;
        let missing: Vec<&str> = Program::ALL
            .into_iter()
            .map(Program::name)
            .filter(|name| !programs.join(name).is_file())
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "not found in {}: {}; build all programs first (`make build`)",
                programs.display(),
                missing.join(", ")
            ));
        }
        Ok(Services { folder, programs, launcher, children: Default::default() })
    }

    /// Starts `program` with its log in the folder. It is killed when this process dies, however
    /// that happens, and gets no Ctrl-C of the terminal: it is stopped in its turn.
    ///
    /// # Errors
    /// A sentence that says what could not be done.
    pub fn start(
        &mut self,
        program: Program,
        arguments: &[OsString],
        environment: &[(&str, &str)],
    ) -> Result<(), String> {
        let log = self.folder.log(program);
        let opened = OpenOptions::new().create(true).append(true).open(&log);
        let output = opened.map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new(&self.launcher);
        command
            .args(["launch", "--parent", &std::process::id().to_string(), "--"])
            .arg(self.programs.join(program.name()))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .current_dir(self.folder.path())
            // Logs go to files; colours would only be in the way there.
            .env("NO_COLOR", "1")
            .process_group(0);
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_override(name)) {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        let child =
            command.spawn().map_err(|error| format!("cannot start {}: {error}", program.name()))?;
        self.children[program.index()] = Some(child);
        Ok(())
    }

    /// Waits until `program` has written its addresses and says that it is ready.
    ///
    /// # Errors
    /// It ended, or was not ready in time, or `interrupted` said so.
    pub fn wait_ready(
        &mut self,
        program: Program,
        asker: &Asker,
        interrupted: impl Fn() -> bool,
    ) -> Result<Addresses, Failure> {
        let began = Instant::now();
        let mut state = "it has not written addresses.json".to_owned();
        while began.elapsed() < READY_PATIENCE {
            if interrupted() {
                return Err(Failure::Interrupted);
            }
            if let Some(ended) = self.ended() {
                return Err(Failure::Failed(ended));
            }
            if let Some(addresses) = self.folder.addresses(program) {
                match asker.health(&addresses.http_listen_addr) {
                    Health::Ready => return Ok(addresses),
                    Health::NotReady(why) => state = why,
                    Health::Silent | Health::Unknown => {
                        state = format!("{} does not answer", addresses.http_listen_addr);
                    }
                }
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Err(Failure::Failed(format!(
            "{} was not ready within {} s: {state}\n{}",
            program.name(),
            READY_PATIENCE.as_secs(),
            self.log_of(program)
        )))
    }

    /// A sentence and a log if a program that was started has ended.
    pub fn ended(&mut self) -> Option<String> {
        for program in Program::ALL {
            let child = self.children[program.index()].as_mut();
            if let Some(Ok(Some(status))) = child.map(Child::try_wait) {
                return Some(format!(
                    "{} ended by itself ({})\n{}",
                    program.name(),
                    describe(status),
                    self.log_of(program)
                ));
            }
        }
        None
    }

    /// Asks one program to end, without waiting for it.
    pub fn ask_to_end(&mut self, program: Program) {
        if self.runs(program)
            && let Some(child) = &self.children[program.index()]
        {
            terminate(child);
        }
    }

    /// Whether `program` was started and has not ended.
    pub fn runs(&mut self, program: Program) -> bool {
        self.running()[program.index()]
    }

    fn log_of(&self, program: Program) -> String {
        let log = self.folder.log(program);
        format!("--- end of {} ---\n{}", log.display(), self.folder.tail(program))
    }

    /// Stops everything in order; gives the programs that had to be killed.
    pub fn stop(mut self) -> Vec<Program> {
        let (began, mut stop) = (Instant::now(), Stop::default());
        loop {
            let running = self.running();
            if !running.contains(&true) {
                return stop.killed();
            }
            for (program, demand) in stop.on_tick(began.elapsed(), &running) {
                let Some(child) = self.children[program.index()].as_mut() else { continue };
                // A program that ends at this moment makes these fail; the next look notices.
                match demand {
                    Demand::Terminate => terminate(child),
                    Demand::Kill => drop(child.kill()),
                }
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Who runs. The exit status is collected, so a child that has ended is gone afterwards.
    fn running(&mut self) -> [bool; PROGRAMS] {
        self.children
            .each_mut()
            .map(|child| child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))))
    }
}

impl Drop for Services<'_> {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // After an orderly stop all have ended, and this does nothing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn terminate(child: &Child) {
    // A child that is known to have ended is not asked: its number may be another's by now. One
    // that ended unnoticed still holds its number.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn is_override(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(ENVIRONMENT_PREFIX))
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
