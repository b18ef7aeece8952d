//! What can be asked on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::shares::options::{DeadLettersCommand, SharesCommand};

/// Most miners of a demo: two descriptors each must fit an ordinary limit (D54).
pub const MINERS_MAX: u32 = 18_000;

/// The operator's command of ReserveGrid OS.
#[derive(Debug, Parser)]
#[command(name = "reservegrid", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole product here: real programs on loopback, a simulated chain, hashing miners.
    Demo(DemoOptions),
    /// Make keys.
    Keys {
        /// Which.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Check or show the configuration of a gateway.
    Config {
        /// What about it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Look whether this machine can run a gateway, and say what to change if not.
    Doctor(DoctorOptions),
    /// Export, verify or explain what a gateway's journal says of shares.
    Shares {
        /// What about them.
        #[command(subcommand)]
        command: SharesCommand,
    },
    /// Shares that the backend would not take.
    DeadLetters {
        /// What about them.
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Start a program that is killed when its parent dies. The demo starts its programs by this.
    #[command(hide = true)]
    Launch(LaunchOptions),
}

/// Key commands.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a new authority key pair as the `noise` section of gateway.toml.
    Generate,
}

/// Configuration commands.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell every mistake and every warning in a file and in the environment; exit with 1 if there
    /// is a mistake.
    Check {
        /// The gateway's file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the values that were given and where each comes from; secrets are left out.
    Show(ShowOptions),
}

/// Options of `config show`.
#[derive(Debug, Clone, Args)]
pub struct ShowOptions {
    /// All 51 keys, those by default, too.
    #[arg(long)]
    pub effective: bool,
    /// The gateway's file.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// As JSON: a list of objects with key, value, origin and variable.
    #[arg(long)]
    pub json: bool,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorOptions {
    /// The gateway's file; with it cores, connections, ports and the disk are looked at, too.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How the demo shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Screen {
    /// A live screen on a terminal, else as `plain`.
    Auto,
    /// One line a second.
    Plain,
    /// Only the start and the summary.
    None,
}

/// Options of `demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// Number of miners, each on a connection of its own.
    #[arg(long, default_value_t = 24, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MINERS_MAX)))]
    pub miners: u32,
    /// Folder for all files; must be empty or new, and is kept. Without it a fresh folder under
    /// the system's temporary one is used, and removed after a run that went well.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Milliseconds between two blocks that the simulated chain finds by itself.
    #[arg(long, default_value_t = 25_000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    pub block_interval_ms: u64,
    /// How to show what happens.
    #[arg(long, value_enum, default_value_t = Screen::Auto)]
    pub screen: Screen,
    /// Stop after this many seconds and exit with 1 if the run was not healthy: no accepted share,
    /// a share rejected for another reason than being stale, or too few blocks.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub duration: Option<u64>,
    /// Folder of the programs; without it, the one this program is in.
    #[arg(long, value_name = "DIR", hide = true)]
    pub programs: Option<PathBuf>,
}

/// Options of `launch`.
#[derive(Debug, Clone, Args)]
pub struct LaunchOptions {
    /// Process that starts this one.
    #[arg(long)]
    pub parent: u32,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        for wrong in [
            &["demo", "--miners", "0"][..],
            &["demo", "--miners", "18001"],
            &["demo", "--duration", "0"],
            &["demo", "--screen", "big"],
            &["keys"],
            &["config"],
            &["config", "check"],
            &["config", "show", "--effective"],
            &["doctor", "--config"],
            &["launch", "--parent", "1"],
            &["shares", "verify"],
            &["shares", "explain", "--data-dir", "d"],
            &["dead-letters", "replay"],
            &["dead-letters", "replay", "bat_1", "--all"],
            &["dead-letters", "discard", "bat_1"],
        ] {
            let line = [&["reservegrid"], wrong].concat();
            assert!(Arguments::try_parse_from(&line).is_err(), "{line:?}");
        }
    }
}
