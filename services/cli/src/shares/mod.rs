//! `shares` and `dead-letters`: what the journal says, without a gateway.
//!
//! Everything but `dead-letters replay` and `discard` only reads files; the gateway may run
//! meanwhile and notices nothing. Exit statuses: 0 if it went well, 1 if the journal does not add
//! up, 2 for wrong usage and for files or services that cannot be reached.

pub mod dead_letters;
pub mod explain;
pub mod export;
pub mod options;
pub mod verify;

use std::path::Path;
use std::process::ExitCode;

use journal::folder::Folder;

use crate::complain;
use options::{DeadLettersCommand, SharesCommand};

/// The journal does not add up.
const UNBALANCED: u8 = 1;

/// Wrong usage, or something cannot be reached.
const FAILED: u8 = 2;

/// Folder of the journal inside a gateway's `data_dir`.
const JOURNAL: &str = "journal";

/// Runs a command about shares.
pub fn run(command: &SharesCommand) -> ExitCode {
    done(match command {
        SharesCommand::Export(options) => export::run(options),
        SharesCommand::Verify(options) => verify::run(options),
        SharesCommand::Explain(options) => explain::run(options),
    })
}

/// Runs a command about dead letters.
pub fn run_dead_letters(command: &DeadLettersCommand) -> ExitCode {
    done(dead_letters::run(command))
}

fn done(result: Result<ExitCode, String>) -> ExitCode {
    result.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::from(FAILED)
    })
}

/// The journal in a `data_dir`, or in a folder of segments.
fn open(path: &Path) -> Result<Folder, String> {
    let inside = path.join(JOURNAL);
    let folder = if inside.is_dir() { inside } else { path.to_path_buf() };
    let folder = Folder::open(folder).map_err(|error| error.to_string())?;
    match folder.segments().map_err(|error| error.to_string())?.as_slice() {
        [] => Err(format!(
            "{}: no journal; give the gateway's data_dir, or the folder with its .journal files",
            path.display()
        )),
        _ => Ok(folder),
    }
}
