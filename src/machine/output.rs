//! What a shard's machine wants done: sealed bytes, entries for the forwarder, blocks.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use work::{BlockHash, Difficulty, Job, TemplateId, Txid, UnixTime, Work};

use crate::limits::{ENTRIES_PER_STEP, ROLLED_BYTES_MAX, SHARES_PER_TURN};
use crate::reason::{Close, Reason};

/// Names one connection of one shard.
///
/// The low 32 bits are its place in the table, the others say which of its tenants it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// Place in the table.
    pub fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }
}

/// Names one channel in this process: `shard U8 | number U56`. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey(pub u64);

/// What the driver does next with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Wait for its next bytes.
    Continue,
    /// Bytes are left that cannot be handled now: stop reading its socket until a later step
    /// says [`Flow::Continue`].
    Wait,
    /// Send what was written, then close.
    Close(Close),
}

/// What goes to the forwarder, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Shares of this channel will follow.
    Opened {
        /// The channel.
        channel: ChannelKey,
        /// Its connection, for records.
        connection: ConnectionId,
        /// Its number on the connection.
        channel_id: u32,
        /// Who is credited, without a secret.
        miner_id: Arc<str>,
        /// What of its extranonce the miner does not roll.
        extranonce_prefix: ArrayVec<u8, 32>,
        /// Where the miner connects from.
        peer: IpAddr,
        /// Standard or extended.
        kind: ChannelKind,
        /// What the miner says of itself, hashes a second.
        nominal_hash_rate: f32,
        /// Difficulty of its first job.
        difficulty: Difficulty,
        /// What the miner runs on, as its connection's setup says.
        device: Arc<Device>,
        /// When it was opened.
        opened_at: UnixTime,
    },
    /// No more shares of this channel will follow.
    Closed(ClosedChannel),
    /// Its miner was told, in one SubmitShares.Success, that these shares of a channel are
    /// accepted. Shares of it that were accepted and are in no such entry were never acknowledged.
    Acknowledged {
        /// The channel.
        channel: ChannelKey,
        /// [`ShareRecord::sequence`] of the last of them.
        through: u64,
        /// How many.
        count: u32,
        /// Their work, exactly: the message itself carries fractions over to the next one.
        work: Work,
    },
    /// An accepted share.
    Share(ShareRecord),
    /// The first accepted share of a worker, with the worker's name.
    ShareOfNewWorker {
        /// The share; its `worker` is the number that the name has from now on.
        record: ShareRecord,
        /// The name, by extension 0x0002.
        worker_id: Arc<str>,
    },
}

/// Who rolls the extranonce of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// Nobody.
    Standard,
    /// The miner.
    Extended,
}

impl ChannelKind {
    /// The name in events.
    pub fn name(self) -> &'static str {
        match self {
            ChannelKind::Standard => "standard",
            ChannelKind::Extended => "extended",
        }
    }
}

/// A channel that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedChannel {
    /// The channel.
    pub channel: ChannelKey,
    /// Why: [`CLOSED_BY_MINER`], or the code of what ended its connection ([`Close::code`]).
    pub reason_code: &'static str,
    /// When.
    pub at: UnixTime,
}

/// Code for a channel that ended by the miner's own CloseChannel.
pub const CLOSED_BY_MINER: &str = "closed_by_miner";

/// What a miner runs on, by its SetupConnection. Whatever bytes it sent: printable now, and at
/// most [`crate::limits::DEVICE_TEXT_BYTES_MAX`] bytes each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// `vendor`.
    pub vendor: Box<str>,
    /// `hardware_version`.
    pub hardware_version: Box<str>,
    /// `firmware`.
    pub firmware: Box<str>,
    /// `device_id`.
    pub device_id: Box<str>,
}

/// What is told beside the entries, without an order between the two. May be lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A share was refused, or more than may be told one by one.
    Refused(Refused),
    /// A miner is behind its handshake and its setup.
    ConnectionOpened {
        /// The connection.
        connection: ConnectionId,
        /// Where it comes from.
        peer: IpAddr,
        /// What it runs on.
        device: Arc<Device>,
        /// Setup flags it asked for.
        flags: u32,
        /// When.
        at: UnixTime,
    },
    /// A connection that was told as opened has ended.
    ConnectionClosed {
        /// The connection.
        connection: ConnectionId,
        /// Where it came from.
        peer: IpAddr,
        /// [`Close::code`].
        reason_code: &'static str,
        /// When.
        at: UnixTime,
    },
    /// A request for a channel had the wrong name or secret.
    AuthFailed {
        /// The connection.
        connection: ConnectionId,
        /// Where it comes from.
        peer: IpAddr,
        /// Why.
        reason: Reason,
        /// Who it says it is, without the secret; `None` if that may not be shown.
        miner_id: Option<Arc<str>>,
        /// When.
        at: UnixTime,
    },
}

/// A refused share, or several of one channel in one second (D31).
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The channel; `None` if it is not open.
    pub channel: Option<ChannelKey>,
    /// The connection.
    pub connection: ConnectionId,
    /// Channel as the miner named it. Of several: of the last one.
    pub channel_id: u32,
    /// The miner's own number. Of several: of the last one.
    pub sequence_number: u32,
    /// Job as the miner named it. Of several: of the last one.
    pub job_id: u32,
    /// Why. Of several: of the last one.
    pub reason: Reason,
    /// Hash of the header, if one could be built; never of several.
    pub share_hash: Option<BlockHash>,
    /// When it came. Of several: the last one.
    pub at: UnixTime,
    /// How many shares this stands for, at least 1.
    pub count: u32,
    /// Who sent it, without a secret; `None` if the channel is not open.
    pub miner_id: Option<Arc<str>>,
}

/// The bytes of an extranonce that a miner rolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rolled {
    bytes: [u8; ROLLED_BYTES_MAX],
    length: u8,
}

impl Rolled {
    /// These bytes; at most [`ROLLED_BYTES_MAX`], which is all that any channel may roll.
    pub fn new(rolled: &[u8]) -> Rolled {
        let length = rolled.len().min(ROLLED_BYTES_MAX);
        let mut bytes = [0; ROLLED_BYTES_MAX];
        bytes[..length].copy_from_slice(&rolled[..length]);
        Rolled { bytes, length: length as u8 }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// An accepted share, complete: whoever reads it needs no job and no template.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShareRecord {
    /// Counts this shard's accepted shares from 1; what the durable number counts.
    pub sequence: u64,
    /// The channel.
    pub channel: ChannelKey,
    /// ULID: time of acceptance and 80 bits of the share's hash (D25).
    pub share_id: u128,
    /// Hash of the header: decides credit.
    pub share_hash: BlockHash,
    /// When it was accepted.
    pub accepted_at: UnixTime,
    /// Microseconds that it waited in the gateway before it was judged: for its turn, for credit,
    /// for the peer to drain. 0 if it was judged as soon as its last byte was read.
    pub latency_micros: u32,
    /// The miner's own number.
    pub sequence_number: u32,
    /// Job as the miner named it.
    pub job_id: u32,
    /// Template behind it.
    pub template_id: TemplateId,
    /// Height of the block it would have been.
    pub height: u32,
    /// Parent block.
    pub prev_hash: BlockHash,
    /// Header field.
    pub nbits: u32,
    /// Header field.
    pub version: u32,
    /// Header field.
    pub ntime: u32,
    /// Header field.
    pub nonce: u32,
    /// What the miner rolled of the extranonce; nothing on a standard channel.
    pub rolled: Rolled,
    /// The worker's number on its channel, from 1; 0 if it is not told apart.
    pub worker: u32,
    /// All that the coinbase pays, satoshi.
    pub coinbase_value: u64,
    /// Of it, fees.
    pub fees: u64,
    /// Easiest difficulty it was accepted under (D26).
    pub difficulty: Difficulty,
    /// Whether it is a block.
    pub block_found: bool,
    /// Its coinbase, if it is a block (D30).
    pub coinbase_txid: Option<Txid>,
    /// Whether it came while a newer tip was known and not yet given out.
    pub hold: bool,
}

impl ShareRecord {
    /// What it is credited with.
    pub fn work(&self) -> Work {
        self.difficulty.work()
    }
}

/// The ULID of a share: 48 bits of milliseconds, 80 bits of its hash.
pub fn share_id(at: UnixTime, hash: &BlockHash) -> u128 {
    let mut random = [0u8; 16];
    random[6..].copy_from_slice(&hash.0[..10]);
    (u128::from(at.0 & 0xffff_ffff_ffff) << 80) | u128::from_be_bytes(random)
}

/// A share that is a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    /// Hash of its header.
    pub hash: BlockHash,
    /// The header.
    pub header: [u8; 80],
    /// The work it solves, with all its transactions.
    pub job: Arc<Job>,
    /// The whole extranonce.
    pub extranonce: ArrayVec<u8, 32>,
}

/// What one step wants done. One per shard, used again and again.
#[derive(Debug, Default)]
pub struct Output {
    /// Sealed bytes for the connection of this step. Empty if a send is in flight.
    pub wire: Vec<u8>,
    /// For the forwarder; never more than the credit.
    pub entries: ArrayVec<Entry, ENTRIES_PER_STEP>,
    /// For control, ahead of everything.
    pub solutions: ArrayVec<Solution, SHARES_PER_TURN>,
    credit: usize,
}

impl Output {
    /// Begin a step that may write `credit` entries, with `wire` as an empty buffer to fill.
    pub fn begin(&mut self, credit: usize, wire: Vec<u8>) {
        self.wire = wire;
        self.wire.clear();
        self.entries.clear();
        self.solutions.clear();
        self.credit = credit.min(ENTRIES_PER_STEP);
    }

    /// Whether an entry may be written.
    pub fn has_credit(&self) -> bool {
        self.credit > self.entries.len()
    }

    /// Write an entry. I3: never beyond the credit; an entry too many is a defect of ours, and
    /// the process stops rather than lose a share it will have acknowledged.
    pub fn push(&mut self, entry: Entry) {
        assert!(self.has_credit(), "I3: an entry was written without credit");
        self.entries.push(entry);
    }
}
