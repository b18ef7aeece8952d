//! Dead letters: shares that the backend would not take, and what an operator does about them.
//!
//! `GET /api/v1/dead-letters` lists them by event of acceptance (`after`, `limit`); `…/{id}` shows
//! those of a batch, or one by its share_id. `POST …/{id}/replay` and `POST …/replay-all` have them
//! posted again, `POST …/{id}/discard` with `{"reason":"…"}` gives them up, which is their result.
//! Orders are answered with `202`: what came of them is in the events. Giving one twice does
//! nothing more, for a share that is posted again or given up is no dead letter.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use journal::dead::DeadLetters;
use journal::folder::{Folder, FolderError};
use journal::request;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Ops;
use super::problem::Problem;
use super::reading::{JournalView, blocking};
use crate::limits::{COMMAND_SHARES_MAX, ERROR_DETAIL_BYTES_MAX};
use crate::machine::command::Command;

/// Letters on one page, and of those at most.
const PAGE: u64 = 100;
const PAGE_MAX: u64 = 1_000;

/// What may be asked of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    after: Option<String>,
    limit: Option<String>,
}

/// Why letters are given up.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discard {
    reason: String,
}

/// The list.
pub async fn list(
    State(ops): State<Arc<Ops>>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let view = ops.journal()?.clone();
    let Query(parameters) = query?;
    let after = request::number("after", parameters.after.as_deref())?.unwrap_or(0);
    let limit = request::number("limit", parameters.limit.as_deref())?.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::nonsense(format!("limit: {limit}; expected 1 to {PAGE_MAX}")));
    }
    let _seat = ops.seats.lookup()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    blocking(move || page(&view, after, limit)).await.map(Json)
}

fn page(view: &JournalView, after: u64, limit: usize) -> Result<Value, FolderError> {
    let (folder, letters) = read(view)?;
    let events: Vec<u64> = letters.events().filter(|event| *event > after).collect();
    let (events, rest) = events.split_at(events.len().min(limit));
    let next = events.last().filter(|_| !rest.is_empty());
    Ok(json!({
        "dead_letters": letters.tell(&folder, events)?,
        "total": letters.len(),
        "unlisted": letters.unlisted(),
        "next": next,
    }))
}

fn read(view: &JournalView) -> Result<(Folder, DeadLetters), FolderError> {
    let folder = view.open()?;
    let letters = DeadLetters::read(&folder, view.head.read())?;
    Ok((folder, letters))
}

/// Those of a batch, or one.
pub async fn show(
    State(ops): State<Arc<Ops>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let view = ops.journal()?.clone();
    let _seat = ops.seats.lookup()?;
    let told = blocking(move || {
        let (folder, letters) = read(&view)?;
        let events = letters.find(&folder, &id)?;
        let told = letters.tell(&folder, &events)?;
        if told.is_empty() { Err(no_letter(&id)) } else { Ok(told) }
    })
    .await?;
    Ok(Json(json!({ "dead_letters": told })))
}

fn no_letter(id: &str) -> Problem {
    Problem::unknown(format!(
        "{id:?} is no dead letter; expected the batch_id or share_id of one from \
         /api/v1/dead-letters"
    ))
}

/// Has the letters of a batch, or one, posted again.
pub async fn replay(
    State(ops): State<Arc<Ops>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    order(&ops, id, Command::Replay).await
}

/// Gives up the letters of a batch, or one.
pub async fn discard(
    State(ops): State<Arc<Ops>>,
    Path(id): Path<String>,
    body: Result<Json<Discard>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Discard { reason }) = body.map_err(|rejection| {
        Problem::nonsense(format!(
            "{}; expected {{\"reason\":\"why these shares are given up\"}}",
            rejection.body_text()
        ))
    })?;
    let reason = reason.trim().to_owned();
    if reason.is_empty() || reason.len() > ERROR_DETAIL_BYTES_MAX {
        let length = reason.len();
        return Err(Problem::nonsense(format!(
            "reason: {length} bytes; expected 1 to {ERROR_DETAIL_BYTES_MAX}, for the event log"
        )));
    }
    order(&ops, id, move |shares| Command::Discard(shares, reason)).await
}

/// Has all of them posted again.
pub async fn replay_all(State(ops): State<Arc<Ops>>) -> Result<Response, Problem> {
    ops.journal()?.order(Command::ReplayAll)?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "ordered": "all" }))).into_response())
}

async fn order(
    ops: &Ops,
    id: String,
    command: impl FnOnce(Vec<u64>) -> Command,
) -> Result<Response, Problem> {
    let view = ops.journal()?.clone();
    let _seat = ops.seats.lookup()?;
    let reading = view.clone();
    let shares = blocking(move || {
        let (folder, letters) = read(&reading)?;
        let mut shares = letters.find(&folder, &id)?;
        shares.truncate(COMMAND_SHARES_MAX);
        if shares.is_empty() { Err(no_letter(&id)) } else { Ok(shares) }
    })
    .await?;
    let count = shares.len();
    view.order(command(shares))?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "ordered": count }))).into_response())
}
