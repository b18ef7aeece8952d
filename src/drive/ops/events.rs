//! `GET /gateway/events`: the log as NDJSON or as server-sent events.
//!
//! Parameters: `after` (number of the last event one has; without it the oldest that is kept comes
//! first), `follow=true` (go on as events come), `types=a,b`, `miner=NAME`. With `Accept:
//! text/event-stream` events come in that form, `id:` is the event's number, `Last-Event-ID` wins
//! over `after`, and `follow` is the default. Every 15 s a follower gets
//! `{"type":"heartbeat","head":N,"after":M}`: N is the newest event on disk, and every wanted event
//! up to M was sent, so that one may resume with `after=M`.
//!
//! `410` with `oldest` if the event after `after` is no longer kept; should that happen to a reader
//! under way, its last line is `{"type":"pruned","oldest":N}`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use journal::event::{self, EventLine};
use journal::folder::{Cursor, Folder, FolderError};
use journal::record::Record;
use journal::request;
use journal::walk::Located;
use rg_ring::Sequence;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::Ops;
use super::problem::Problem;
use super::reading::{JournalView, Piece, Seat, body};
use crate::limits::{EVENT_TYPES_MAX, MINER_SHARES_KEPT, PIECE_BYTES, RECORDS_PER_PIECE};

/// How often a follower hears that the gateway lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How often a follower that has everything looks for more.
const FOLLOW_POLL: Duration = Duration::from_millis(100);

/// What may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    after: Option<String>,
    follow: Option<String>,
    types: Option<String>,
    miner: Option<String>,
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
struct Wanted {
    after: Option<u64>,
    follow: bool,
    types: BTreeSet<String>,
    miner: Option<String>,
    is_sse: bool,
}

impl Wanted {
    fn read(parameters: &Parameters, headers: &HeaderMap) -> Result<Wanted, Problem> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let accepted = header(header::ACCEPT).unwrap_or_default();
        let is_sse = accepted.split(',').any(|kind| kind.trim().starts_with("text/event-stream"));
        let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
        let after = match last.filter(|_| is_sse) {
            Some(last) => request::number("Last-Event-ID", Some(last))?,
            None => request::number("after", parameters.after.as_deref())?,
        };
        let follow = match parameters.follow.as_deref() {
            None => is_sse,
            Some("true") => true,
            Some("false") => false,
            Some(other) => {
                return Err(Problem::nonsense(format!(
                    "follow: {other:?} says nothing; expected true or false"
                )));
            }
        };
        let types = types(parameters.types.as_deref())?;
        let miner = request::miner(parameters.miner.clone())?;
        Ok(Wanted { after, follow, types, miner, is_sse })
    }
}

fn types(names: Option<&str>) -> Result<BTreeSet<String>, Problem> {
    let Some(names) = names else {
        return Ok(BTreeSet::new());
    };
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let names: BTreeSet<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().find(|name| !is_name(name)) {
        Some(wrong) => Err(Problem::nonsense(format!(
            "types: {wrong:?} is no type; expected names as share_accepted, separated by commas"
        ))),
        None if names.len() > EVENT_TYPES_MAX => {
            let count = names.len();
            Err(Problem::nonsense(format!("types: {count} names; at most {EVENT_TYPES_MAX}")))
        }
        None => Ok(names),
    }
}

/// The page.
pub async fn events(
    State(ops): State<Arc<Ops>>,
    query: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = ops.journal()?;
    let wanted = Wanted::read(&query?.0, &headers)?;
    let seat = ops.seats.event_reader()?;
    let head = view.head.read();
    if let Some(after) = wanted.after.filter(|after| *after >= head.max(1)) {
        return Err(Problem::nonsense(format!(
            "after: {after} is not yet an event, the newest is {}; was it counted by another \
             gateway?",
            head.saturating_sub(1)
        )));
    }
    let is_sse = wanted.is_sse;
    let follow = wanted.follow;
    let clone = view.clone();
    let reader = super::reading::blocking(move || Reader::open(&clone, wanted)).await?;
    let stream = Stream {
        reader,
        head: view.head.clone(),
        until: (!follow).then_some(head),
        passed: 0,
        is_over: false,
        beat: Instant::now(),
        _seat: seat,
    };
    let kind = if is_sse { "text/event-stream" } else { "application/x-ndjson" };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that collect before they pass on are told not to.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body(stream, Stream::next)).into_response())
}

/// One reader's place in the log. It goes to a blocking thread and comes back.
struct Reader {
    folder: Folder,
    cursor: Cursor,
    gateway_id: Arc<str>,
    wanted: Wanted,
    /// Number of the last event that was passed.
    after: u64,
    /// Where reading began: shares from here on were seen.
    begin: u64,
    /// Accepted shares of the wanted miner, by event, as long as no result has passed.
    shares: BTreeSet<u64>,
    /// Whether some found no room there.
    is_shares_cut: bool,
    lines: Vec<EventLine>,
}

/// What one piece of reading came to.
struct Read {
    bytes: Vec<u8>,
    /// The end was reached.
    is_all: bool,
    /// What came next was removed; the log begins here now.
    pruned: Option<u64>,
}

impl Reader {
    fn open(view: &JournalView, wanted: Wanted) -> Result<Reader, FolderError> {
        let folder = view.open()?;
        let cursor = match wanted.after {
            None => Cursor::at_start(&folder)?,
            Some(after) => Cursor::at_event(&folder, after.saturating_add(1))?,
        };
        let after = wanted.after.unwrap_or(0);
        let begin = after.saturating_add(1);
        Ok(Reader {
            folder,
            cursor,
            gateway_id: Arc::from(view.gateway_id.as_str()),
            wanted,
            after,
            begin,
            shares: BTreeSet::new(),
            is_shares_cut: false,
            lines: Vec::new(),
        })
    }

    /// Reads on, below event `below`, until there is enough for one piece.
    fn read(&mut self, below: u64) -> Result<Read, FolderError> {
        let mut bytes = Vec::new();
        for _ in 0..RECORDS_PER_PIECE {
            if bytes.len() >= PIECE_BYTES {
                break;
            }
            match self.cursor.next(below) {
                Ok(Some(located)) => self.take(&located, below, &mut bytes)?,
                Ok(None) => return Ok(Read { bytes, is_all: true, pruned: None }),
                Err(FolderError::Pruned(pruned)) => {
                    // More may be gone than the segment that came next.
                    let oldest = self.folder.oldest_event()?.unwrap_or(pruned.oldest);
                    return Ok(Read { bytes, is_all: true, pruned: Some(oldest) });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Read { bytes, is_all: false, pruned: None })
    }

    fn take(
        &mut self,
        located: &Located,
        below: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), FolderError> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        event::events(located, &self.gateway_id, &mut lines);
        // The cursor may stand before the event to go on behind, and within a record of many.
        let begin = self.begin;
        for line in lines.iter().filter(|line| line.event_id >= begin) {
            let is_kind = self.wanted.types.is_empty() || self.wanted.types.contains(&*line.kind);
            if self.is_of_miner(located, line, below)? && is_kind {
                self.write(line.event_id, &line.json, out);
            }
            self.after = line.event_id;
        }
        self.lines = lines;
        Ok(())
    }

    /// Whether the event is about the wanted miner. Results do not name theirs: the share does.
    fn is_of_miner(
        &mut self,
        located: &Located,
        line: &EventLine,
        below: u64,
    ) -> Result<bool, FolderError> {
        let Some(miner) = &self.wanted.miner else {
            return Ok(true);
        };
        if let Some(share) = line.share_event {
            if self.shares.remove(&share) {
                return Ok(true);
            }
            if share >= self.begin && !self.is_shares_cut {
                return Ok(false);
            }
            return is_share_of(&self.folder, share, miner, below);
        }
        let is_of_miner = line.miner_id.as_deref() == Some(miner);
        if is_of_miner && matches!(located.record, Record::Accepted(_)) {
            self.shares.insert(line.event_id);
            if self.shares.len() > MINER_SHARES_KEPT {
                self.shares.pop_first();
                self.is_shares_cut = true;
            }
        }
        Ok(is_of_miner)
    }

    fn write(&self, id: u64, json: &str, out: &mut Vec<u8>) {
        if self.wanted.is_sse {
            out.extend_from_slice(format!("id: {id}\ndata: {json}\n\n").as_bytes());
        } else {
            out.extend_from_slice(json.as_bytes());
            out.push(b'\n');
        }
    }
}

/// Whether the share that this event accepted is the miner's; not if it is no longer kept.
fn is_share_of(folder: &Folder, share: u64, miner: &str, below: u64) -> Result<bool, FolderError> {
    let found = folder.find_event(share, below)?;
    Ok(found.is_some_and(|located| match &located.record {
        Record::Accepted(accepted) => &*accepted.miner_id == miner,
        _ => false,
    }))
}

/// A reader and when its heart last beat.
struct Stream {
    reader: Reader,
    head: Sequence,
    /// Where to end; `None` to follow.
    until: Option<u64>,
    /// Everything below this number was read.
    passed: u64,
    is_over: bool,
    beat: Instant,
    _seat: Seat,
}

impl Stream {
    async fn next(mut self) -> Piece<Stream> {
        while !self.is_over {
            if self.until.is_none() && self.beat.elapsed() >= HEARTBEAT {
                self.beat = Instant::now();
                return Ok(Some((Bytes::from(self.heartbeat()), self)));
            }
            let below = self.until.unwrap_or_else(|| self.head.read());
            if below > self.passed {
                let (bytes, stream) = self.read(below).await?;
                self = stream;
                if !bytes.is_empty() {
                    return Ok(Some((Bytes::from(bytes), self)));
                }
            } else if self.until.is_some() {
                break;
            } else {
                tokio::time::sleep(FOLLOW_POLL).await;
            }
        }
        Ok(None)
    }

    /// One piece, read on a blocking thread.
    async fn read(mut self, below: u64) -> Result<(Vec<u8>, Stream), FolderError> {
        let reading = tokio::task::spawn_blocking(move || {
            let read = self.reader.read(below);
            (read, self)
        });
        let (read, mut stream) =
            reading.await.map_err(|error| FolderError::Unwritten { why: error.to_string() })?;
        let mut read = read?;
        if let Some(oldest) = read.pruned {
            let line = json!({ "type": "pruned", "oldest": oldest }).to_string();
            stream.reader.write(stream.reader.after, &line, &mut read.bytes);
            stream.is_over = true;
        }
        if read.is_all {
            stream.passed = below;
        }
        Ok((read.bytes, stream))
    }

    fn heartbeat(&self) -> Vec<u8> {
        let head = self.head.read().saturating_sub(1);
        let after = self.reader.after;
        let line = format!("{{\"type\":\"heartbeat\",\"head\":{head},\"after\":{after}}}");
        let mut bytes = Vec::new();
        self.reader.write(after, &line, &mut bytes);
        bytes
    }
}
