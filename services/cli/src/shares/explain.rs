//! `shares explain`: the whole way of one share.

use std::process::ExitCode;

use ulid::Ulid;

use super::options::ExplainOptions;
use crate::say;

/// Prints the way of the share.
///
/// # Errors
/// The name is no ULID, there is no such share, or the journal cannot be read.
pub fn run(options: &ExplainOptions) -> Result<ExitCode, String> {
    let name = &options.share_id;
    let share_id = Ulid::from_string(name)
        .map_err(|error| format!("{name:?} is no share_id: {error}; expected a ULID"))?;
    let folder = super::open(&options.place.data_dir)?;
    let story = journal::explain::explain(&folder, share_id.0, u64::MAX)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("no share {name} in this journal, or it is no longer kept"))?;
    match options.json {
        true => say(&serde_json::to_string(&story).map_err(|error| error.to_string())?),
        false => say(story.to_string().trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
