//! `dead-letters`: what the backend would not take, and orders about it to the gateway.
//!
//! Listing reads files. Orders go to the gateway over HTTP, because only it writes the journal.

use std::process::ExitCode;
use std::time::Duration;

use journal::dead::{DeadLetter, DeadLetters};
use serde_json::{Value, json};
use ureq::Agent;

use super::options::{DeadLettersCommand, Gateway, Place};
use crate::say;

/// How long the gateway may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Letters that are read and printed at once.
const PAGE: usize = 1_000;

/// Variable with the key.
const KEY_VARIABLE: &str = "RESERVEGRID_API_KEY";

/// Bytes of a batch's or share's name that are sent, at most.
const ID_BYTES_MAX: usize = 64;

/// Runs the command.
///
/// # Errors
/// The journal or the gateway cannot be reached, or it says no.
pub fn run(command: &DeadLettersCommand) -> Result<ExitCode, String> {
    match command {
        DeadLettersCommand::List(options) => list(&options.place, options.json)?,
        DeadLettersCommand::Show(options) => show(&options.place, &options.id)?,
        DeadLettersCommand::Replay(options) => {
            let path = match &options.id {
                Some(id) => format!("{}/replay", name(id)?),
                None => "replay-all".to_owned(),
            };
            say(&order(&options.gateway, &path, &json!({}))?);
        }
        DeadLettersCommand::Discard(options) => {
            let path = format!("{}/discard", name(&options.id)?);
            say(&order(&options.gateway, &path, &json!({ "reason": options.reason }))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(place: &Place, is_json: bool) -> Result<(), String> {
    let folder = super::open(&place.data_dir)?;
    let letters = DeadLetters::read(&folder, u64::MAX).map_err(|error| error.to_string())?;
    let events: Vec<u64> = letters.events().collect();
    for page in events.chunks(PAGE) {
        for letter in letters.tell(&folder, page).map_err(|error| error.to_string())? {
            match is_json {
                true => say(&serde_json::to_string(&letter).map_err(|error| error.to_string())?),
                false => say(&line(&letter)),
            }
        }
    }
    if !is_json {
        let unlisted = match letters.unlisted() {
            0 => String::new(),
            unlisted => format!(", and {unlisted} more that are not listed"),
        };
        say(&format!("{} dead letters{unlisted}", letters.len()));
    }
    Ok(())
}

fn line(letter: &DeadLetter) -> String {
    format!(
        "{}  {}  {}  batch {}  HTTP {}  {}",
        letter.share_id,
        letter.dead_lettered_at,
        letter.miner_id,
        letter.batch_id,
        letter.upstream_http_status,
        letter.error_detail
    )
}

fn show(place: &Place, id: &str) -> Result<(), String> {
    let folder = super::open(&place.data_dir)?;
    let letters = DeadLetters::read(&folder, u64::MAX).map_err(|error| error.to_string())?;
    let events = letters.find(&folder, id).map_err(|error| error.to_string())?;
    let told = letters.tell(&folder, &events).map_err(|error| error.to_string())?;
    if told.is_empty() {
        return Err(format!("{id:?} is no dead letter; see `reservegrid dead-letters list`"));
    }
    for letter in told {
        say(&serde_json::to_string_pretty(&letter).map_err(|error| error.to_string())?);
    }
    Ok(())
}

/// A name that fits into a path.
fn name(id: &str) -> Result<&str, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(is_plain) {
        return Err(format!("{id:?} is neither a batch_id nor a share_id"));
    }
    Ok(id)
}

/// Sends an order and says what the gateway answers.
fn order(gateway: &Gateway, path: &str, body: &Value) -> Result<String, String> {
    let url = format!("{}/api/v1/dead-letters/{path}", gateway.url.trim_end_matches('/'));
    let config = Agent::config_builder()
        .timeout_global(Some(ANSWER))
        .http_status_as_error(false)
        .max_redirects(0)
        .build();
    let mut request = Agent::new_with_config(config).post(&url);
    if let Some(key) = key(gateway)? {
        request = request.header("x-api-key", key);
    }
    let mut answer = request.send_json(body).map_err(|error| format!("{url}: {error}"))?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().map_err(|error| format!("{url}: {error}"))?;
    let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    match status {
        202 => Ok(format!(
            "ordered: {} shares; the events tell what comes of it",
            answer["ordered"].as_str().map_or(answer["ordered"].to_string(), str::to_owned)
        )),
        status => {
            let detail = answer["detail"].as_str().unwrap_or(text.trim());
            Err(format!("{url}: HTTP {status}: {detail}"))
        }
    }
}

/// The key, from its file or from the environment; `None` if neither is given.
fn key(gateway: &Gateway) -> Result<Option<String>, String> {
    match &gateway.api_key_file {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) => Err(format!("{}: {error}", path.display())),
        },
        None => Ok(std::env::var(KEY_VARIABLE).ok()),
    }
}
