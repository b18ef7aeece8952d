//! A record as bytes, framed: `length u32 | crc32c u32 | type u8 | event_id u64 | at u64 | body`.
//!
//! The length counts what follows the checksum, and the checksum covers that. All numbers are
//! little endian. Texts are `length u16 | UTF-8` (a body of JSON has a u32), lists `count u16 or
//! u32 | items`. Types are contracts: they only grow.
//!
//! Reading is total: any bytes are a record or a [`Malformed`], and nothing is allocated that is
//! larger than the bytes can hold.

use std::sync::Arc;

use arrayvec::ArrayVec;
use work::{BlockHash, Difficulty, TemplateId, Txid, UnixTime, Work};

use crate::record::{Attempt, Outcome, RECORD_BYTES_MAX, Record, Settled, Settlement};
use crate::segment::{RECORD_ALIGNMENT, u32_at, u64_at};
use crate::share::{EXTRANONCE_BYTES_MAX, Refusal, Share};

/// Bytes of one text at most, but for the body of [`Record::Told`]; more is cut off.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Length and checksum.
const FRAME_HEAD_BYTES: usize = 8;
/// Type, event_id and at: what `length` is at least.
const RECORD_HEAD_BYTES: usize = 17;

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;
const ACKNOWLEDGED: u8 = 3;
const ATTEMPTED: u8 = 4;
const SETTLED: u8 = 5;
const DEAD_LETTERED: u8 = 6;
const REPLAYED: u8 = 7;
const TOLD: u8 = 8;
const UNRECORDED: u8 = 9;
const CHECKPOINT: u8 = 10;

/// Bits of an accepted share.
const BLOCK_FOUND: u8 = 1;
const HOLD: u8 = 2;
const HAS_WORKER: u8 = 4;
const HAS_COINBASE: u8 = 8;

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They end before the record does.
    Short,
    /// Their length is none that a record can have.
    Length(u32),
    /// Their checksum does not fit.
    Checksum,
    /// A type that this program does not know.
    Type(u8),
    /// A field of a record of this type has a value that it cannot have.
    Field(u8),
    /// There is more than the record of this type has.
    Trailing(u8),
}

impl Malformed {
    /// Whether the bytes are what was written, but by a program that knows other records: a record
    /// that can be stepped over.
    pub fn is_foreign(self) -> bool {
        matches!(self, Malformed::Type(_) | Malformed::Field(_) | Malformed::Trailing(_))
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Malformed::Short => f.write_str("the bytes end within a record"),
            Malformed::Length(length) => write!(
                f,
                "a record of {length} bytes was announced, {RECORD_HEAD_BYTES} to \
                 {RECORD_BYTES_MAX} are possible"
            ),
            Malformed::Checksum => f.write_str("the checksum of a record does not fit"),
            Malformed::Type(kind) => {
                write!(f, "a record of type {kind}, unknown to this program: read it with a newer")
            }
            Malformed::Field(kind) => write!(f, "a record of type {kind} with an impossible field"),
            Malformed::Trailing(kind) => {
                write!(f, "a record of type {kind} with more than its fields: read it with a newer")
            }
        }
    }
}

impl std::error::Error for Malformed {}

/// A record as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Framed {
    /// First event number that it takes; the next to be given if it takes none.
    pub event_id: u64,
    /// When it was appended.
    pub at: UnixTime,
    /// The record.
    pub record: Record,
}

/// Appends `record` to `out`, framed. Nothing but `out` grows.
///
/// A [`Record::Told`] that would be larger than [`RECORD_BYTES_MAX`] is written with a body that
/// only says how large its own was; every other record that its writers build fits.
pub fn encode(record: &Record, event_id: u64, at: UnixTime, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    let mut into = Output(out);
    into.u8(kind(record));
    into.u64(event_id);
    into.u64(at.0);
    into.body(record);
    let length = out.len() - start;
    if let Record::Told { kind, body } = record
        && length > RECORD_BYTES_MAX
    {
        out.truncate(start);
        let body = format!("{{\"omitted_bytes\":{}}}", body.len()).into();
        return encode(&Record::Told { kind: kind.clone(), body }, event_id, at, out);
    }
    let checksum = crc32c::crc32c(&out[start + FRAME_HEAD_BYTES..]);
    let length = (length - FRAME_HEAD_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Bytes of the frame that begins with `length`, with what fills it up to where the next record
/// can begin.
///
/// # Errors
/// [`Malformed::Length`] if no record has that length.
pub fn frame_bytes(length: u32) -> Result<usize, Malformed> {
    let bytes = length as usize + FRAME_HEAD_BYTES;
    let is_possible = length as usize >= RECORD_HEAD_BYTES && bytes <= RECORD_BYTES_MAX;
    let padded = bytes.next_multiple_of(RECORD_ALIGNMENT as usize);
    is_possible.then_some(padded).ok_or(Malformed::Length(length))
}

/// The record whose frame begins `bytes`.
///
/// # Errors
/// See [`Malformed`].
pub fn decode(bytes: &[u8]) -> Result<Framed, Malformed> {
    let length = bytes.first_chunk().copied().ok_or(Malformed::Short)?;
    let length = u32::from_le_bytes(length);
    frame_bytes(length)?;
    let content = bytes.get(FRAME_HEAD_BYTES..).and_then(|rest| rest.get(..length as usize));
    let content = content.ok_or(Malformed::Short)?;
    if u32_at(bytes, 4) != crc32c::crc32c(content) {
        return Err(Malformed::Checksum);
    }
    let (event_id, at) = (u64_at(content, 1), UnixTime(u64_at(content, 9)));
    let record = decode_body(content[0], &content[RECORD_HEAD_BYTES..])?;
    Ok(Framed { event_id, at, record })
}

/// The record of type `kind` whose body is `body`.
///
/// # Errors
/// See [`Malformed`].
pub fn decode_body(kind: u8, body: &[u8]) -> Result<Record, Malformed> {
    let mut from = Input(body);
    if !(ACCEPTED..=CHECKPOINT).contains(&kind) {
        return Err(Malformed::Type(kind));
    }
    let record = from.record(kind).ok_or(Malformed::Field(kind))?;
    from.0.is_empty().then_some(record).ok_or(Malformed::Trailing(kind))
}

fn kind(record: &Record) -> u8 {
    match record {
        Record::Accepted(_) => ACCEPTED,
        Record::Refused(_) => REFUSED,
        Record::Acknowledged { .. } => ACKNOWLEDGED,
        Record::Attempted(_) => ATTEMPTED,
        Record::Settled(_) => SETTLED,
        Record::DeadLettered { .. } => DEAD_LETTERED,
        Record::Replayed { .. } => REPLAYED,
        Record::Told { .. } => TOLD,
        Record::Unrecorded { .. } => UNRECORDED,
        Record::Checkpoint { .. } => CHECKPOINT,
    }
}

/// Writes fields.
struct Output<'a>(&'a mut Vec<u8>);

impl Output<'_> {
    fn body(&mut self, record: &Record) {
        match record {
            Record::Accepted(share) => self.share(share),
            Record::Refused(refusal) => self.refusal(refusal),
            Record::Acknowledged { epoch, shard, channel_key, through, count, work } => {
                self.u16(*epoch);
                self.u8(*shard);
                self.u64(*channel_key);
                self.u64(*through);
                self.u32(*count);
                self.u128(work.0);
            }
            Record::Attempted(attempt) => self.attempt(attempt),
            Record::Settled(settled) => self.settled(settled),
            Record::DeadLettered { batch_id, status, error_detail, shares } => {
                self.text(batch_id);
                self.u16(*status);
                self.text(error_detail);
                self.numbers(shares);
            }
            Record::Replayed { shares } => self.numbers(shares),
            Record::Told { kind, body } => {
                self.text(kind);
                self.u32(body.len() as u32);
                self.0.extend_from_slice(body.as_bytes());
            }
            Record::Unrecorded { counts } => {
                self.u16(counts.len() as u16);
                for (reason, count) in counts.iter().take(usize::from(u16::MAX)) {
                    self.text(reason);
                    self.u64(*count);
                }
            }
            Record::Checkpoint { settled_below, oldest_dead, epoch } => {
                self.u64(*settled_below);
                self.u64(*oldest_dead);
                self.u16(*epoch);
            }
        }
    }

    fn share(&mut self, share: &Share) {
        self.u128(share.share_id);
        self.0.extend_from_slice(&share.share_hash.0);
        self.u16(share.epoch);
        self.u8(share.shard);
        for number in [
            share.sequence,
            share.connection_id,
            share.channel_key,
            share.opened_event,
            share.verdict_event,
            share.accepted_at.0,
            share.template_id.0,
            share.coinbase_value,
            share.fees,
        ] {
            self.u64(number);
        }
        for number in [
            share.channel_id,
            share.latency_micros,
            share.sequence_number,
            share.job_id,
            share.height,
            share.nbits,
            share.version,
            share.ntime,
            share.nonce,
        ] {
            self.u32(number);
        }
        self.0.extend_from_slice(&share.prev_hash.0);
        self.u128(share.difficulty.work().0);
        let block_found = if share.block_found { BLOCK_FOUND } else { 0 };
        let hold = if share.hold { HOLD } else { 0 };
        let has_worker = if share.worker_id.is_some() { HAS_WORKER } else { 0 };
        let has_coinbase = if share.coinbase_txid.is_some() { HAS_COINBASE } else { 0 };
        self.u8(block_found | hold | has_worker | has_coinbase);
        self.u8(share.extranonce.len() as u8);
        self.0.extend_from_slice(&share.extranonce);
        self.text(&share.miner_id);
        if let Some(worker) = &share.worker_id {
            self.text(worker);
        }
        if let Some(txid) = share.coinbase_txid {
            self.0.extend_from_slice(&txid.0);
        }
    }

    fn refusal(&mut self, refusal: &Refusal) {
        self.u128(refusal.share_id);
        self.u8(u8::from(refusal.share_hash.is_some()));
        if let Some(hash) = refusal.share_hash {
            self.0.extend_from_slice(&hash.0);
        }
        self.u32(refusal.count);
        self.u64(refusal.at.0);
        self.u64(refusal.connection_id);
        self.u32(refusal.channel_id);
        self.u32(refusal.sequence_number);
        self.u32(refusal.job_id);
        self.text(&refusal.reason_code);
        self.text(&refusal.miner_id);
    }

    fn attempt(&mut self, attempt: &Attempt) {
        self.text(&attempt.batch_id);
        self.u32(attempt.attempt);
        self.u16(attempt.status);
        self.u32(attempt.rtt_micros);
        self.text(&attempt.error_detail);
        self.numbers(&attempt.shares);
    }

    fn settled(&mut self, settled: &Settled) {
        self.text(&settled.batch_id);
        self.u16(settled.status);
        self.u32(settled.attempts);
        self.u32(settled.rtt_micros);
        self.u32(settled.results.len() as u32);
        for result in &settled.results {
            self.u64(result.share_event);
            self.u128(result.share_id);
            self.u64(result.accepted_at.0);
            self.u8(result.outcome as u8);
            self.text(&result.error_detail);
        }
    }

    fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    fn u16(&mut self, number: u16) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u128(&mut self, number: u128) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        self.u16(text.len() as u16);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn numbers(&mut self, numbers: &[u64]) {
        self.u32(numbers.len() as u32);
        for number in numbers {
            self.u64(*number);
        }
    }
}

/// Reads fields; `None` is bytes that cannot be one.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn record(&mut self, kind: u8) -> Option<Record> {
        Some(match kind {
            ACCEPTED => Record::Accepted(self.share()?),
            REFUSED => Record::Refused(self.refusal()?),
            ACKNOWLEDGED => Record::Acknowledged {
                epoch: self.u16()?,
                shard: self.u8()?,
                channel_key: self.u64()?,
                through: self.u64()?,
                count: self.u32()?,
                work: Work(self.u128()?),
            },
            ATTEMPTED => Record::Attempted(self.attempt()?),
            SETTLED => Record::Settled(self.settled()?),
            DEAD_LETTERED => Record::DeadLettered {
                batch_id: self.text()?,
                status: self.u16()?,
                error_detail: self.text()?,
                shares: self.numbers()?,
            },
            REPLAYED => Record::Replayed { shares: self.numbers()? },
            TOLD => {
                let kind = self.text()?;
                let length = self.u32()? as usize;
                Record::Told { kind, body: self.utf8(length)? }
            }
            UNRECORDED => Record::Unrecorded { counts: self.counts()? },
            CHECKPOINT => Record::Checkpoint {
                settled_below: self.u64()?,
                oldest_dead: self.u64()?,
                epoch: self.u16()?,
            },
            _ => return None,
        })
    }

    fn share(&mut self) -> Option<Share> {
        let share_id = self.u128()?;
        let share_hash = self.hash()?;
        let (epoch, shard) = (self.u16()?, self.u8()?);
        let [sequence, connection_id, channel_key, opened_event, verdict_event] =
            [self.u64()?, self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        let [accepted_at, template_id, coinbase_value, fees] =
            [self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        let [channel_id, latency_micros, sequence_number, job_id, height] =
            [self.u32()?, self.u32()?, self.u32()?, self.u32()?, self.u32()?];
        let [nbits, version, ntime, nonce] = [self.u32()?, self.u32()?, self.u32()?, self.u32()?];
        let prev_hash = self.hash()?;
        let difficulty = Difficulty::from_work(Work(self.u128()?))?;
        let flags = self.u8()?;
        if flags & !(BLOCK_FOUND | HOLD | HAS_WORKER | HAS_COINBASE) != 0 {
            return None;
        }
        let length = usize::from(self.u8()?);
        let extranonce: ArrayVec<u8, EXTRANONCE_BYTES_MAX> = self.take(length)?.try_into().ok()?;
        let miner_id = self.text()?;
        let worker_id = if flags & HAS_WORKER != 0 { Some(self.text()?) } else { None };
        let has_coinbase = flags & HAS_COINBASE != 0;
        let coinbase_txid = if has_coinbase { Some(Txid(self.hash()?.0)) } else { None };
        Some(Share {
            share_id,
            share_hash,
            epoch,
            shard,
            sequence,
            connection_id,
            channel_key,
            channel_id,
            opened_event,
            verdict_event,
            accepted_at: UnixTime(accepted_at),
            latency_micros,
            sequence_number,
            job_id,
            template_id: TemplateId(template_id),
            height,
            prev_hash,
            nbits,
            version,
            ntime,
            nonce,
            extranonce,
            coinbase_value,
            fees,
            difficulty,
            block_found: flags & BLOCK_FOUND != 0,
            coinbase_txid,
            hold: flags & HOLD != 0,
            miner_id,
            worker_id,
        })
    }

    fn refusal(&mut self) -> Option<Refusal> {
        let share_id = self.u128()?;
        let share_hash = match self.u8()? {
            0 => None,
            1 => Some(self.hash()?),
            _ => return None,
        };
        Some(Refusal {
            share_id,
            share_hash,
            count: self.u32()?,
            at: UnixTime(self.u64()?),
            connection_id: self.u64()?,
            channel_id: self.u32()?,
            sequence_number: self.u32()?,
            job_id: self.u32()?,
            reason_code: self.text()?,
            miner_id: self.text()?,
        })
    }

    fn attempt(&mut self) -> Option<Attempt> {
        Some(Attempt {
            batch_id: self.text()?,
            attempt: self.u32()?,
            status: self.u16()?,
            rtt_micros: self.u32()?,
            error_detail: self.text()?,
            shares: self.numbers()?,
        })
    }

    fn settled(&mut self) -> Option<Settled> {
        Some(Settled {
            batch_id: self.text()?,
            status: self.u16()?,
            attempts: self.u32()?,
            rtt_micros: self.u32()?,
            results: self.settlements()?,
        })
    }

    fn settlements(&mut self) -> Option<Vec<Settlement>> {
        /// Bytes of one without its text.
        const BYTES_MIN: usize = 8 + 16 + 8 + 1 + 2;
        let count = self.u32()? as usize;
        let mut results = self.list(count, BYTES_MIN)?;
        for _ in 0..count {
            results.push(Settlement {
                share_event: self.u64()?,
                share_id: self.u128()?,
                accepted_at: UnixTime(self.u64()?),
                outcome: self.outcome()?,
                error_detail: self.text()?,
            });
        }
        Some(results)
    }

    fn counts(&mut self) -> Option<Vec<(Arc<str>, u64)>> {
        let count = usize::from(self.u16()?);
        let mut counts = self.list(count, 2 + 8)?;
        for _ in 0..count {
            counts.push((self.text()?, self.u64()?));
        }
        Some(counts)
    }

    fn numbers(&mut self) -> Option<Vec<u64>> {
        let count = self.u32()? as usize;
        let mut numbers = self.list(count, 8)?;
        for _ in 0..count {
            numbers.push(self.u64()?);
        }
        Some(numbers)
    }

    /// Room for `count` items, if the bytes that are left can hold them.
    fn list<T>(&self, count: usize, bytes_min: usize) -> Option<Vec<T>> {
        (count <= self.0.len() / bytes_min).then(|| Vec::with_capacity(count))
    }

    fn outcome(&mut self) -> Option<Outcome> {
        Some(match self.u8()? {
            1 => Outcome::Delivered,
            2 => Outcome::Duplicate,
            3 => Outcome::RejectedByUpstream,
            4 => Outcome::DeadLettered,
            _ => return None,
        })
    }

    fn hash(&mut self) -> Option<BlockHash> {
        self.array().map(BlockHash)
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let length = usize::from(self.u16()?);
        if length > TEXT_BYTES_MAX { None } else { self.utf8(length) }
    }

    fn utf8(&mut self, length: usize) -> Option<Arc<str>> {
        std::str::from_utf8(self.take(length)?).ok().map(Arc::from)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}
