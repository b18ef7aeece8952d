//! Shares that the backend would not take and that wait for an operator.
//!
//! A share is a dead letter from the record that says so until it has a result or is posted again.
//! The list is read from the log, from the oldest share on that can be one by the checkpoint at the
//! newest segment's begin.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use ulid::Ulid;

use crate::event::{self, Moment, ShareId};
use crate::folder::{Cursor, Folder, FolderError};
use crate::record::Record;
use crate::segment::{Position, SECTOR_BYTES};
use crate::share::Share;
use crate::walk::Located;

/// Dead letters that are kept apart; of more, the oldest ones are, and the rest is counted.
pub const DEAD_MAX: usize = 65_536;

/// Records of a segment's begin among which its checkpoint is looked for.
const CHECKPOINT_WITHIN: usize = 64;

/// Why a share is a dead letter.
#[derive(Debug, Clone)]
struct Reason {
    event_id: u64,
    at: String,
    batch_id: Arc<str>,
    status: u16,
    error_detail: Arc<str>,
}

/// One dead letter, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetter {
    /// ULID of the share.
    pub share_id: String,
    /// Event of its acceptance.
    pub share_event_id: u64,
    /// Who is credited if it is delivered after all.
    pub miner_id: String,
    /// Credit, in units of 2^-32 difficulty, decimal.
    pub work: String,
    /// When it was accepted, RFC 3339.
    pub accepted_at: String,
    /// When it became a dead letter, RFC 3339.
    pub dead_lettered_at: String,
    /// Event that says so.
    pub event_id: u64,
    /// The batch that was refused.
    pub batch_id: String,
    /// The answer.
    pub upstream_http_status: u16,
    /// What the backend said.
    pub error_detail: String,
    /// Its `share_accepted` event as an object.
    pub share: Value,
}

/// All dead letters at one moment.
#[derive(Debug, Default)]
pub struct DeadLetters {
    /// By event of acceptance.
    letters: BTreeMap<u64, Arc<Reason>>,
    /// Event numbers from here on were not looked at.
    below: u64,
    /// Letters that found no room here.
    unlisted: u64,
}

impl DeadLetters {
    /// Reads them from records below event `below` (offline `u64::MAX`).
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn read(folder: &Folder, below: u64) -> Result<DeadLetters, FolderError> {
        let mut letters = DeadLetters { below, ..DeadLetters::default() };
        let mut cursor = begin(folder, below)?;
        while let Some(located) = cursor.next(below)? {
            letters.take(&located);
        }
        Ok(letters)
    }

    /// What a record says, in the order of the log.
    fn take(&mut self, located: &Located) {
        match &located.record {
            Record::DeadLettered { batch_id, status, error_detail, shares } => {
                let reason = Arc::new(Reason {
                    event_id: located.event_id,
                    at: Moment(located.at).to_string(),
                    batch_id: Arc::clone(batch_id),
                    status: *status,
                    error_detail: Arc::clone(error_detail),
                });
                for share in shares {
                    self.letters.insert(*share, Arc::clone(&reason));
                }
                while self.letters.len() > DEAD_MAX {
                    self.unlisted += u64::from(self.letters.pop_last().is_some());
                }
            }
            Record::Replayed { shares } => shares.iter().for_each(|share| self.forget(*share)),
            Record::Settled(settled) => {
                settled.results.iter().for_each(|result| self.forget(result.share_event));
            }
            _ => (),
        }
    }

    fn forget(&mut self, share: u64) {
        self.letters.remove(&share);
    }

    /// How many are kept apart.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Letters beyond [`DEAD_MAX`], some of which may have a result by now.
    pub fn unlisted(&self) -> u64 {
        self.unlisted
    }

    /// Events of acceptance, in order.
    pub fn events(&self) -> impl Iterator<Item = u64> {
        self.letters.keys().copied()
    }

    /// Events of acceptance of a batch's letters, or of the one with this `share_id`.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn find(&self, folder: &Folder, name: &str) -> Result<Vec<u64>, FolderError> {
        let of_batch = self.letters.iter().filter(|(_, reason)| &*reason.batch_id == name);
        let events: Vec<u64> = of_batch.map(|(event, _)| *event).collect();
        let Some(share_id) = Ulid::from_string(name).ok().filter(|_| events.is_empty()) else {
            return Ok(events);
        };
        let found = folder.find_share(share_id.0, self.below)?;
        let event = found.map(|located| located.event_id);
        Ok(event.into_iter().filter(|event| self.letters.contains_key(event)).collect())
    }

    /// The letters of these events, with their shares; at most as many as there are events.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn tell(&self, folder: &Folder, events: &[u64]) -> Result<Vec<DeadLetter>, FolderError> {
        let gateway_id = folder.gateway_id()?.unwrap_or_default();
        let mut told = Vec::with_capacity(events.len());
        for event in events {
            let Some(reason) = self.letters.get(event) else { continue };
            let Some(located) = folder.find_event(*event, self.below)? else { continue };
            if let Record::Accepted(share) = &located.record {
                told.push(letter(&located, share, reason, &gateway_id));
            }
        }
        Ok(told)
    }
}

fn letter(located: &Located, share: &Share, reason: &Reason, gateway_id: &str) -> DeadLetter {
    let mut lines = Vec::new();
    event::events(located, gateway_id, &mut lines);
    let object = lines.first().and_then(|line| serde_json::from_str(&line.json).ok());
    DeadLetter {
        share_id: ShareId(share.share_id).to_string(),
        share_event_id: located.event_id,
        miner_id: share.miner_id.to_string(),
        work: share.work().to_string(),
        accepted_at: Moment(share.accepted_at).to_string(),
        dead_lettered_at: reason.at.clone(),
        event_id: reason.event_id,
        batch_id: reason.batch_id.to_string(),
        upstream_http_status: reason.status,
        error_detail: reason.error_detail.to_string(),
        share: object.unwrap_or(Value::Null),
    }
}

/// Stands where the first record about a dead letter of today may be.
fn begin(folder: &Folder, below: u64) -> Result<Cursor, FolderError> {
    for segment in folder.segments()?.into_iter().rev() {
        let begin = Position { segment, offset: SECTOR_BYTES };
        let mut cursor = Cursor::at_position(folder, begin)?;
        for _ in 0..CHECKPOINT_WITHIN {
            let Some(located) = cursor.next(below)? else { break };
            if let Record::Checkpoint { settled_below, oldest_dead, .. } = located.record {
                // It may be older than its place: shares that became dead letters since were open.
                let first = oldest_dead.min(settled_below).min(located.event_id);
                return match Cursor::at_event(folder, first) {
                    Err(FolderError::Pruned(_)) => Cursor::at_start(folder),
                    cursor => cursor,
                };
            }
        }
    }
    Cursor::at_start(folder)
}
