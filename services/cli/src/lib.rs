//! `reservegrid`, the operator's command.
//!
//! `demo` runs the whole product on this machine: the real programs on loopback, a simulated chain,
//! and miners that really hash. `keys generate` makes the key pair that miners are told to trust.
//! `config check` and `config show` read a gateway's configuration as the gateway does; `doctor`
//! looks whether this machine can run one. `shares` proves, exports and explains what a gateway's
//! journal says; `dead-letters` lists what the backend would not take, and decides about it.
//!
//! Reading order: [`arguments`] (what can be asked), [`demo`] (how a demo runs), inside it `plan`
//! (what the programs are told), `model` (what the screen shows) and `outcome` (whether it went
//! well), which decide, and `services`, `collect` and `draw`, which do.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod arguments;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod keys;
pub mod launch;
pub mod shares;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, ConfigCommand, KeysCommand};

/// Runs what the command line asks for and gives the process's exit status: 0 when it went well,
/// 1 when it did not, 2 when the command line is wrong (and as [`shares`] says).
pub fn run() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Keys { command: KeysCommand::Generate } => {
            keys::generate().map(|text| say(text.trim_end()))
        }
        Command::Config { command: ConfigCommand::Check { file } } => return config::check(&file),
        Command::Config { command: ConfigCommand::Show(options) } => return config::show(&options),
        Command::Doctor(options) => return doctor::run(options.config.as_deref()),
        Command::Shares { command } => return shares::run(&command),
        Command::DeadLetters { command } => return shares::run_dead_letters(&command),
        Command::Launch(launch) => Err(launch::run(&launch)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// One line to standard output. A reader that has gone away is not an error of ours.
pub fn say(line: &str) {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}

/// One line to standard error.
pub fn complain(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "reservegrid: {line}");
}
