//! A record as the events that a reader of `/gateway/events` is told: one JSON object each.
//!
//! Fields stand in a fixed order that only grows at its end: the product page's fields first, then
//! the envelope (`type`, `gateway_id`, `schema`), then the rest. `tests/golden/events.ndjson` holds
//! one line of every type. Readers ignore fields they do not know.
//!
//! Numbers that may pass 2^53, which is as far as JavaScript counts, are decimal strings (`work`,
//! `channel_key`); hashes are in RPC order; times are RFC 3339 in UTC.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ulid::Ulid;
use work::{BlockHash, Target, TemplateId, UnixTime, Work};

use crate::record::{Outcome, Record, Settled, Settlement};
use crate::share::{Refusal, Share};
use crate::walk::Located;

/// Version of the events' fields; a new one only if a field had to change its meaning.
pub const SCHEMA: u32 = 1;

/// `type` of every judged share.
pub const SHARE_ACCEPTED: &str = "share_accepted";
/// `type` of the one result of every accepted share.
pub const SHARE_FORWARD_RESULT: &str = "share_forward_result";
/// `type` of shares that the backend will not take and that wait for an operator.
pub const SHARES_DEAD_LETTERED: &str = "shares_dead_lettered";
/// `type` of an operator's order to post dead letters again.
pub const DEAD_LETTER_REPLAYED: &str = "dead_letter_replayed";
/// `type` of refused shares that were only counted.
pub const REFUSALS_UNRECORDED: &str = "refusals_unrecorded";

/// One event as text, with what a reader may filter by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLine {
    /// Its number; events of one gateway have no gap between them.
    pub event_id: u64,
    /// Its `type`.
    pub kind: Cow<'static, str>,
    /// Whose share it is about. Results do not say; see [`EventLine::share_event`].
    pub miner_id: Option<Arc<str>>,
    /// For a result: the event of the share's acceptance.
    pub share_event: Option<u64>,
    /// One JSON object, without a line feed in it or behind it.
    pub json: String,
}

/// Appends the events of `located` to `out`, in the order of their numbers; none for a record that
/// takes no event number.
///
/// A record of results has up to [`crate::record::SETTLEMENTS_MAX`] events; a reader that goes on
/// from an event in the middle of them skips those it had.
pub fn events(located: &Located, gateway_id: &str, out: &mut Vec<EventLine>) {
    let envelope = Envelope { event_id: located.event_id, at: located.at, gateway_id };
    match &located.record {
        Record::Accepted(share) => out.push(accepted(envelope, share)),
        Record::Refused(refusal) => out.push(refused(envelope, refusal)),
        Record::Settled(settled) => results(envelope, settled, out),
        Record::DeadLettered { batch_id, status, error_detail, shares } => {
            let body = DeadLettered {
                batch_id,
                upstream_http_status: *status,
                error_detail,
                count: shares.len(),
                share_event_ids: shares,
            };
            out.push(other(envelope, Cow::Borrowed(SHARES_DEAD_LETTERED), &body));
        }
        Record::Replayed { shares } => {
            let body = Replayed { count: shares.len(), share_event_ids: shares };
            out.push(other(envelope, Cow::Borrowed(DEAD_LETTER_REPLAYED), &body));
        }
        Record::Unrecorded { counts } => {
            let body = Unrecorded {
                count: counts.iter().map(|(_, count)| count).sum(),
                counts: Counts(counts),
            };
            out.push(other(envelope, Cow::Borrowed(REFUSALS_UNRECORDED), &body));
        }
        Record::Told { kind, body } => out.push(told(envelope, kind, body)),
        Record::Acknowledged { .. } | Record::Attempted(_) | Record::Checkpoint { .. } => {}
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub(crate) struct Moment(pub UnixTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        match Timestamp::from_millisecond(millis) {
            Ok(at) => write!(f, "{at:.3}"),
            // Past the year 9999: only bytes that no clock wrote.
            Err(_) => write!(f, "{:.3}", Timestamp::MAX),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A ULID as its 26 letters.
pub(crate) struct ShareId(pub u128);

impl fmt::Display for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ulid(self.0).fmt(f)
    }
}

impl Serialize for ShareId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The difficulty that a hash meets, for display only: difficulty 1's target divided by it.
pub(crate) fn achieved(hash: &BlockHash) -> f64 {
    let number = |bytes: [u8; 32]| bytes.iter().rev().fold(0.0, |n, b| n * 256.0 + f64::from(*b));
    number(Target::DIFFICULTY_1.to_le_bytes()) / number(hash.0).max(1.0)
}

/// A difficulty as JSON: an integer where it is one.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum DifficultyNumber {
    Whole(u64),
    Fraction(f64),
}

impl From<work::Difficulty> for DifficultyNumber {
    fn from(difficulty: work::Difficulty) -> Self {
        match difficulty.work().split_whole() {
            (whole, Work::ZERO) => DifficultyNumber::Whole(whole),
            _ => DifficultyNumber::Fraction(difficulty.as_f64()),
        }
    }
}

/// What every event has.
#[derive(Clone, Copy)]
struct Envelope<'a> {
    event_id: u64,
    at: UnixTime,
    gateway_id: &'a str,
}

#[derive(Serialize)]
struct ShareAccepted<'a> {
    share_id: ShareId,
    event_id: u64,
    timestamp: Moment,
    miner_id: &'a str,
    job_id: u32,
    reason_code: &'a str,
    sv2_response: &'static str,
    r#type: &'static str,
    gateway_id: &'a str,
    schema: u32,
    worker_id: Option<&'a str>,
    channel_id: u32,
    connection_id: u64,
    sequence_number: u32,
    share_hash: Option<BlockHash>,
    difficulty: Option<DifficultyNumber>,
    share_difficulty: Option<f64>,
    work: Work,
    prev_hash: Option<BlockHash>,
    template_id: Option<TemplateId>,
    hold: bool,
    block_found: bool,
    latency_us: Option<u32>,
    detail: Option<&'a str>,
    count: u32,
    target: Option<Target>,
    height: Option<u32>,
    nbits: Option<u32>,
    version: Option<u32>,
    ntime: Option<u32>,
    nonce: Option<u32>,
    extranonce: Option<String>,
    coinbase_value: Option<u64>,
    fees: Option<u64>,
    epoch: Option<u16>,
    shard: Option<u8>,
    sequence: Option<u64>,
    channel_key: Option<String>,
    opened_event: Option<u64>,
    verdict_event: Option<u64>,
}

/// An event number that is 0 where there is none.
fn event_number(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

fn accepted(envelope: Envelope<'_>, share: &Share) -> EventLine {
    let body = ShareAccepted {
        share_id: ShareId(share.share_id),
        event_id: envelope.event_id,
        timestamp: Moment(share.accepted_at),
        miner_id: &share.miner_id,
        job_id: share.job_id,
        reason_code: "ok",
        sv2_response: "success",
        r#type: SHARE_ACCEPTED,
        gateway_id: envelope.gateway_id,
        schema: SCHEMA,
        worker_id: share.worker_id.as_deref(),
        channel_id: share.channel_id,
        connection_id: share.connection_id,
        sequence_number: share.sequence_number,
        share_hash: Some(share.share_hash),
        difficulty: Some(share.difficulty.into()),
        share_difficulty: Some(achieved(&share.share_hash)),
        work: share.work(),
        prev_hash: Some(share.prev_hash),
        template_id: Some(share.template_id),
        hold: share.hold,
        block_found: share.block_found,
        latency_us: Some(share.latency_micros),
        detail: None,
        count: 1,
        target: Some(share.difficulty.target()),
        height: Some(share.height),
        nbits: Some(share.nbits),
        version: Some(share.version),
        ntime: Some(share.ntime),
        nonce: Some(share.nonce),
        extranonce: Some(work::contract::bytes::encode(&share.extranonce)),
        coinbase_value: Some(share.coinbase_value),
        fees: Some(share.fees),
        epoch: Some(share.epoch),
        shard: Some(share.shard),
        sequence: Some(share.sequence),
        channel_key: Some(share.channel_key.to_string()),
        opened_event: event_number(share.opened_event),
        verdict_event: event_number(share.verdict_event),
    };
    let miner_id = Some(Arc::clone(&share.miner_id));
    line(envelope.event_id, Cow::Borrowed(SHARE_ACCEPTED), miner_id, &body)
}

fn refused(envelope: Envelope<'_>, refusal: &Refusal) -> EventLine {
    let body = ShareAccepted {
        share_id: ShareId(refusal.share_id),
        event_id: envelope.event_id,
        timestamp: Moment(refusal.at),
        miner_id: &refusal.miner_id,
        job_id: refusal.job_id,
        reason_code: &refusal.reason_code,
        sv2_response: "error",
        r#type: SHARE_ACCEPTED,
        gateway_id: envelope.gateway_id,
        schema: SCHEMA,
        worker_id: None,
        channel_id: refusal.channel_id,
        connection_id: refusal.connection_id,
        sequence_number: refusal.sequence_number,
        share_hash: refusal.share_hash,
        difficulty: None,
        share_difficulty: refusal.share_hash.as_ref().map(achieved),
        work: Work::ZERO,
        prev_hash: None,
        template_id: None,
        hold: false,
        block_found: false,
        latency_us: None,
        detail: None,
        count: refusal.count,
        target: None,
        height: None,
        nbits: None,
        version: None,
        ntime: None,
        nonce: None,
        extranonce: None,
        coinbase_value: None,
        fees: None,
        epoch: None,
        shard: None,
        sequence: None,
        channel_key: None,
        opened_event: None,
        verdict_event: None,
    };
    let miner_id = Some(Arc::clone(&refusal.miner_id));
    line(envelope.event_id, Cow::Borrowed(SHARE_ACCEPTED), miner_id, &body)
}

#[derive(Serialize)]
struct ShareForwardResult<'a> {
    share_id: ShareId,
    event_id: u64,
    timestamp: Moment,
    forwarded: bool,
    upstream_accepted: Option<bool>,
    upstream_http_status: Option<u16>,
    error_detail: Option<&'a str>,
    r#type: &'static str,
    gateway_id: &'a str,
    schema: u32,
    batch_id: Option<&'a str>,
    attempts: u32,
    queue_ms: u64,
    rtt_ms: f64,
    outcome: &'static str,
    share_event_id: u64,
}

/// Whether the backend has the share: an operator who gives one up forwards nothing.
pub(crate) fn is_forwarded(outcome: Outcome) -> bool {
    outcome != Outcome::DeadLettered
}

/// `None` for an empty text: JSON says `null` where there is nothing to say.
fn said(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn results(envelope: Envelope<'_>, settled: &Settled, out: &mut Vec<EventLine>) {
    for (event_id, result) in (envelope.event_id..).zip(&settled.results) {
        out.push(result_line(Envelope { event_id, ..envelope }, settled, result));
    }
}

fn result_line(envelope: Envelope<'_>, settled: &Settled, result: &Settlement) -> EventLine {
    let body = ShareForwardResult {
        share_id: ShareId(result.share_id),
        event_id: envelope.event_id,
        timestamp: Moment(envelope.at),
        forwarded: is_forwarded(result.outcome),
        upstream_accepted: result.outcome.upstream_accepted(),
        upstream_http_status: (settled.status != 0).then_some(settled.status),
        error_detail: said(&result.error_detail),
        r#type: SHARE_FORWARD_RESULT,
        gateway_id: envelope.gateway_id,
        schema: SCHEMA,
        batch_id: said(&settled.batch_id),
        attempts: settled.attempts,
        queue_ms: envelope.at.0.saturating_sub(result.accepted_at.0),
        rtt_ms: f64::from(settled.rtt_micros) / 1_000.0,
        outcome: result.outcome.name(),
        share_event_id: result.share_event,
    };
    let mut line = line(envelope.event_id, Cow::Borrowed(SHARE_FORWARD_RESULT), None, &body);
    line.share_event = Some(result.share_event);
    line
}

#[derive(Serialize)]
struct DeadLettered<'a> {
    batch_id: &'a str,
    upstream_http_status: u16,
    error_detail: &'a str,
    count: usize,
    share_event_ids: &'a [u64],
}

#[derive(Serialize)]
struct Replayed<'a> {
    count: usize,
    share_event_ids: &'a [u64],
}

#[derive(Serialize)]
struct Unrecorded<'a> {
    count: u64,
    counts: Counts<'a>,
}

struct Counts<'a>(&'a [(Arc<str>, u64)]);

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(code, count)| (code, count)))
    }
}

/// An event whose body has no place before the envelope.
#[derive(Serialize)]
struct Other<'a, B> {
    event_id: u64,
    timestamp: Moment,
    r#type: &'a str,
    gateway_id: &'a str,
    schema: u32,
    #[serde(flatten)]
    body: &'a B,
}

fn other<B: Serialize>(envelope: Envelope<'_>, kind: Cow<'static, str>, body: &B) -> EventLine {
    let Envelope { event_id, at, gateway_id } = envelope;
    let whole =
        Other { event_id, timestamp: Moment(at), r#type: &kind, gateway_id, schema: SCHEMA, body };
    let json = json(&whole);
    EventLine { event_id, kind, miner_id: None, share_event: None, json }
}

fn line<B: Serialize>(
    event_id: u64,
    kind: Cow<'static, str>,
    miner_id: Option<Arc<str>>,
    body: &B,
) -> EventLine {
    EventLine { event_id, kind, miner_id, share_event: None, json: json(body) }
}

fn json<B: Serialize>(body: &B) -> String {
    // Serialising these types into memory has no way to fail: their keys are text.
    let mut json = serde_json::to_string(body).unwrap_or_default();
    // Text inside JSON never holds a raw line feed; one between the tokens of a told body is only
    // white space, and would cut the line in two.
    if json.contains(['\n', '\r']) {
        json = json.replace(['\n', '\r'], " ");
    }
    json
}

/// The fields of a told body that are also in the envelope: the envelope's hold.
const ENVELOPE: [&str; 5] = ["event_id", "timestamp", "type", "gateway_id", "schema"];

/// The fields of a JSON object in their order, their values untouched.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    if !ENVELOPE.contains(&name.as_ref()) {
                        fields.push((name, value));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A body that is no JSON object, as it was found.
#[derive(Serialize)]
struct Unreadable<'a> {
    body: &'a str,
}

#[derive(Deserialize)]
struct MinerOf<'a> {
    #[serde(borrow, default)]
    miner_id: Option<Cow<'a, str>>,
}

fn told(envelope: Envelope<'_>, kind: &Arc<str>, body: &str) -> EventLine {
    let kind = Cow::Owned(kind.to_string());
    let mut line = match serde_json::from_str::<Fields>(body) {
        Ok(fields) => other(envelope, kind, &fields),
        Err(_) => other(envelope, kind, &Unreadable { body }),
    };
    let miner = serde_json::from_str::<MinerOf>(body).ok().and_then(|found| found.miner_id);
    line.miner_id = miner.as_deref().map(Arc::from);
    line
}
