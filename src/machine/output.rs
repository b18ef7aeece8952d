//! What a shard's machine wants done: sealed bytes, entries for the forwarder, blocks.

use std::sync::Arc;

use arrayvec::ArrayVec;
use work::{BlockHash, Difficulty, Job, TemplateId, UnixTime, Work};

use crate::limits::{ROLLED_BYTES_MAX, SHARES_PER_TURN};
use crate::reason::Close;

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
    },
    /// No more shares of this channel will follow.
    Closed {
        /// The channel.
        channel: ChannelKey,
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
    pub entries: ArrayVec<Entry, SHARES_PER_TURN>,
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
        self.credit = credit.min(SHARES_PER_TURN);
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
