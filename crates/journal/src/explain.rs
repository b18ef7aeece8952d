//! The whole way of one share, from the log alone.
//!
//! Whoever asks what became of a share is told: the connection and channel it came on, who sent
//! it, job and template and the verdict on that, what was validated, where it stands in the log,
//! when its miner was told, every POST it was in, and its result. Each fact comes with the place
//! it was read from, so that it can be checked.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use work::{BlockHash, Target, Work};

use crate::event::{self, Moment, ShareId, achieved};
use crate::folder::{Cursor, Folder, FolderError};
use crate::record::Record;
use crate::segment::file_name;
use crate::share::Share;
use crate::walk::Located;

/// POSTs that are told one by one; of more, these first ones and the last.
pub const ATTEMPTS_TOLD: usize = 200;

/// Dead letters and replays that are told one by one.
pub const DECISIONS_TOLD: usize = 100;

/// Where and when something was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The record's event number, or the next to be given if it has none.
    pub event_id: u64,
    /// File of the journal, without its ending.
    pub segment: u64,
    /// Byte where the record begins.
    pub offset: u64,
    /// When it was recorded, RFC 3339.
    pub recorded_at: String,
}

impl Place {
    fn of(located: &Located) -> Place {
        Place {
            event_id: located.event_id,
            segment: located.position.segment,
            offset: located.position.offset,
            recorded_at: Moment(located.at).to_string(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { event_id, segment, offset, recorded_at } = self;
        write!(f, "{recorded_at}, event {event_id} at {}:{offset}", file_name(*segment))
    }
}

/// Facts about a share that can be computed again from what is recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validation {
    /// Hash of its header, RPC order.
    pub share_hash: BlockHash,
    /// Easiest target it was accepted under.
    pub target: Target,
    /// Whether the hash meets the target.
    pub meets_target: bool,
    /// Difficulty of that target.
    pub difficulty: f64,
    /// Difficulty that the hash meets.
    pub share_difficulty: f64,
    /// Credit, in units of 2^-32 difficulty.
    pub work: Work,
    /// Whether it is a block.
    pub block_found: bool,
    /// Whether it came while a newer tip was known and not yet given out.
    pub hold: bool,
    /// Microseconds from its bytes to the judgement.
    pub latency_us: u32,
}

impl Validation {
    fn of(share: &Share) -> Validation {
        let target = share.difficulty.target();
        Validation {
            share_hash: share.share_hash,
            target,
            meets_target: target.is_met_by(&share.share_hash),
            difficulty: share.difficulty.as_f64(),
            share_difficulty: achieved(&share.share_hash),
            work: share.work(),
            block_found: share.block_found,
            hold: share.hold,
            latency_us: share.latency_micros,
        }
    }
}

/// The message that told the miner.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// Its record.
    pub place: Place,
    /// Last sequence of the shard that it covers.
    pub through: u64,
    /// Shares that it covers.
    pub count: u32,
    /// Their work.
    pub work: Work,
}

/// One POST.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Post {
    /// Its record.
    pub place: Place,
    /// The batch.
    pub batch_id: String,
    /// Which attempt of the batch, from 1.
    pub attempt: u32,
    /// Answer; `null` without one.
    pub upstream_http_status: Option<u16>,
    /// Milliseconds until the answer.
    pub rtt_ms: f64,
    /// What went wrong, or empty.
    pub error_detail: String,
    /// Shares of the batch.
    pub shares: usize,
}

/// A dead letter, or the order to post it again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// Its record.
    pub place: Place,
    /// `dead_lettered` or `replayed`.
    pub what: &'static str,
    /// What the backend said, if it did.
    pub error_detail: String,
}

/// The way of a share. Events are objects as `/gateway/events` has them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// Its ULID.
    pub share_id: String,
    /// Where it stands.
    pub status: &'static str,
    /// Where it was recorded.
    pub place: Place,
    /// Its `share_accepted` event.
    pub share: Value,
    /// The event that opened its channel; `null` if none was recorded or it is no longer kept.
    pub opened: Value,
    /// The event with the verdict on its template; likewise.
    pub verdict: Value,
    /// `null` for a refused share.
    pub validation: Option<Validation>,
    /// `null` if the miner was not told.
    pub acknowledged: Option<Told>,
    /// POSTs it was in: the first [`ATTEMPTS_TOLD`] and the last.
    pub posts: Vec<Post>,
    /// How many POSTs there were.
    pub posts_total: u64,
    /// Dead letters and replays, in their order.
    pub decisions: Vec<Decision>,
    /// Its `share_forward_result` event; `null` if there is none.
    pub result: Value,
}

/// Tells the way of a share, from records below event `below` (offline `u64::MAX`); `None` if the
/// log has no such share.
///
/// It reads on from the share until its result and acknowledgement are found: for an open share to
/// the end of the log.
///
/// # Errors
/// If the log cannot be read.
pub fn explain(folder: &Folder, share_id: u128, below: u64) -> Result<Option<Story>, FolderError> {
    let Some(found) = folder.find_share(share_id, below)? else {
        return Ok(None);
    };
    let gateway_id = folder.gateway_id()?.unwrap_or_default();
    let mut story = begin(&found, share_id, &gateway_id);
    let Record::Accepted(share) = &found.record else {
        return Ok(Some(story));
    };
    story.opened = event_at(folder, share.opened_event, below, &gateway_id)?;
    story.verdict = event_at(folder, share.verdict_event, below, &gateway_id)?;
    let mut cursor = Cursor::at_position(folder, found.position)?;
    let mut is_epoch_over = false;
    while let Some(located) = cursor.next(below)? {
        is_epoch_over |= epoch(&located.record).is_some_and(|epoch| epoch != share.epoch);
        story.add(&located, share, found.event_id, &gateway_id);
        if !story.result.is_null() && (story.acknowledged.is_some() || is_epoch_over) {
            break;
        }
    }
    Ok(Some(story))
}

fn begin(found: &Located, share_id: u128, gateway_id: &str) -> Story {
    let validation = match &found.record {
        Record::Accepted(share) => Some(Validation::of(share)),
        _ => None,
    };
    Story {
        share_id: ShareId(share_id).to_string(),
        status: if validation.is_some() { "open" } else { "refused" },
        place: Place::of(found),
        share: event_of(found, found.event_id, gateway_id),
        opened: Value::Null,
        verdict: Value::Null,
        validation,
        acknowledged: None,
        posts: Vec::new(),
        posts_total: 0,
        decisions: Vec::new(),
        result: Value::Null,
    }
}

fn epoch(record: &Record) -> Option<u16> {
    match record {
        Record::Accepted(share) => Some(share.epoch),
        Record::Acknowledged { epoch, .. } | Record::Checkpoint { epoch, .. } => Some(*epoch),
        _ => None,
    }
}

/// The event with this number of a record, as an object.
fn event_of(located: &Located, event_id: u64, gateway_id: &str) -> Value {
    let mut lines = Vec::new();
    event::events(located, gateway_id, &mut lines);
    let line = lines.into_iter().find(|line| line.event_id == event_id);
    line.and_then(|line| serde_json::from_str(&line.json).ok()).unwrap_or(Value::Null)
}

/// The event with this number; `null` if there is none, or none any more.
fn event_at(
    folder: &Folder,
    event_id: u64,
    below: u64,
    gateway_id: &str,
) -> Result<Value, FolderError> {
    if event_id == 0 {
        return Ok(Value::Null);
    }
    let found = folder.find_event(event_id, below)?;
    Ok(found.map_or(Value::Null, |located| event_of(&located, event_id, gateway_id)))
}

impl Story {
    /// What a later record says of the share that event `own` accepted.
    fn add(&mut self, located: &Located, share: &Share, own: u64, gateway_id: &str) {
        match &located.record {
            Record::Acknowledged { epoch, shard, channel_key, through, count, work } => {
                let channel = (*epoch, *shard, *channel_key);
                let is_its_own = channel == (share.epoch, share.shard, share.channel_key);
                if is_its_own && *through >= share.sequence && self.acknowledged.is_none() {
                    let (place, through, count) = (Place::of(located), *through, *count);
                    self.acknowledged = Some(Told { place, through, count, work: *work });
                }
            }
            Record::Attempted(attempt) if attempt.shares.contains(&own) => {
                self.posts_total += 1;
                self.posts.truncate(ATTEMPTS_TOLD);
                self.posts.push(Post {
                    place: Place::of(located),
                    batch_id: attempt.batch_id.to_string(),
                    attempt: attempt.attempt,
                    upstream_http_status: (attempt.status != 0).then_some(attempt.status),
                    rtt_ms: f64::from(attempt.rtt_micros) / 1_000.0,
                    error_detail: attempt.error_detail.to_string(),
                    shares: attempt.shares.len(),
                });
            }
            Record::DeadLettered { error_detail, shares, .. } if shares.contains(&own) => {
                self.status = "dead_letter";
                self.decide(located, "dead_lettered", error_detail);
            }
            Record::Replayed { shares } if shares.contains(&own) => {
                self.status = "open";
                self.decide(located, "replayed", "");
            }
            Record::Settled(settled) => {
                let results = settled.results.iter().zip(located.event_id..);
                if let Some((result, event_id)) =
                    results.into_iter().find(|(result, _)| result.share_event == own)
                {
                    self.status = result.outcome.name();
                    self.result = event_of(located, event_id, gateway_id);
                }
            }
            _ => (),
        }
    }

    fn decide(&mut self, located: &Located, what: &'static str, error_detail: &str) {
        if self.decisions.len() < DECISIONS_TOLD {
            let (place, error_detail) = (Place::of(located), error_detail.to_owned());
            self.decisions.push(Decision { place, what, error_detail });
        }
    }

    /// A field of the share's event, as text.
    fn field(&self, name: &str) -> String {
        text(&self.share[name])
    }

    fn write_validation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(facts) = &self.validation else {
            return writeln!(f, "validation    refused: {}", self.field("reason_code"));
        };
        let meets = if facts.meets_target { "meets" } else { "DOES NOT MEET" };
        writeln!(f, "validation    hash {} {meets} target", facts.share_hash)?;
        writeln!(f, "              {}", text(&serde_json::json!(facts.target)))?;
        writeln!(
            f,
            "              difficulty {} asked, {} met; work {}; {} us; block: {}; hold: {}",
            facts.difficulty,
            facts.share_difficulty,
            facts.work,
            facts.latency_us,
            facts.block_found,
            facts.hold
        )
    }

    fn write_posts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "posts         {}", self.posts_total)?;
        for post in &self.posts {
            let status = match post.upstream_http_status {
                Some(status) => format!("HTTP {status}"),
                None => "no answer".to_owned(),
            };
            writeln!(
                f,
                "              {}, attempt {}, {} shares: {status} after {} ms{} ({})",
                post.batch_id,
                post.attempt,
                post.shares,
                post.rtt_ms,
                behind(": ", &post.error_detail),
                post.place
            )?;
        }
        for decision in &self.decisions {
            let detail = behind(": ", &decision.error_detail);
            writeln!(f, "              {}{detail} ({})", decision.what, decision.place)?;
        }
        Ok(())
    }
}

/// `text` behind `before`, or nothing.
fn behind(before: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{before}{text}") }
}

/// A JSON value without the quotes of a string.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// For people: a paragraph of lines, in the order in which things happened.
impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |value: &Value| match value {
            Value::Null => "not recorded, or no longer kept".to_owned(),
            value => value.to_string(),
        };
        writeln!(f, "share         {}: {}", self.share_id, self.status)?;
        let connection = [self.field("connection_id"), self.field("channel_id")];
        writeln!(f, "connection    {}, channel {}", connection[0], connection[1])?;
        writeln!(f, "opened        {}", or_none(&self.opened))?;
        let identity = [self.field("miner_id"), self.field("worker_id")];
        writeln!(f, "identity      miner {}, worker {}", identity[0], identity[1])?;
        let header = ["version", "ntime", "nonce", "extranonce"].map(|name| self.field(name));
        writeln!(
            f,
            "job           {} as the miner named it, share number {}",
            self.field("job_id"),
            self.field("sequence_number")
        )?;
        writeln!(
            f,
            "              version {}, ntime {}, nonce {}, extranonce {}",
            header[0], header[1], header[2], header[3]
        )?;
        writeln!(
            f,
            "template      {} for height {} on {}",
            self.field("template_id"),
            self.field("height"),
            self.field("prev_hash")
        )?;
        writeln!(f, "verdict       {}", or_none(&self.verdict))?;
        self.write_validation(f)?;
        writeln!(f, "journal       {}", self.place)?;
        match &self.acknowledged {
            Some(told) => writeln!(
                f,
                "acknowledged  with {} shares through {}, work {} ({})",
                told.count, told.through, told.work, told.place
            )?,
            None => writeln!(f, "acknowledged  no")?,
        }
        self.write_posts(f)?;
        match &self.result {
            Value::Null => writeln!(f, "result        none"),
            result => writeln!(f, "result        {result}"),
        }
    }
}
