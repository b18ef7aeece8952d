//! What a miner sent, complete in itself: whoever reads it needs no job, no template, no channel.

use std::sync::Arc;

use arrayvec::ArrayVec;
use work::{BlockHash, Difficulty, TemplateId, Txid, UnixTime, Work};

/// Bytes of a whole extranonce.
pub const EXTRANONCE_BYTES_MAX: usize = 32;

/// An accepted share.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// ULID: time of acceptance and 80 bits of the share's hash (D25).
    pub share_id: u128,
    /// Hash of the header: decides credit.
    pub share_hash: BlockHash,
    /// Start of the gateway that accepted it.
    pub epoch: u16,
    /// Shard that accepted it.
    pub shard: u8,
    /// Counts this shard's accepted shares of this start from 1.
    pub sequence: u64,
    /// Connection of this gateway.
    pub connection_id: u64,
    /// The channel's name in its process; never used again there.
    pub channel_key: u64,
    /// Channel of the connection.
    pub channel_id: u32,
    /// Event that says that its channel was opened; 0 if none was recorded.
    pub opened_event: u64,
    /// Event with the verdict on its template; 0 if none was recorded.
    pub verdict_event: u64,
    /// When it was accepted.
    pub accepted_at: UnixTime,
    /// Microseconds from its bytes to the judgement.
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
    /// The whole extranonce.
    pub extranonce: ArrayVec<u8, EXTRANONCE_BYTES_MAX>,
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
    /// Who is credited, without a secret; at most 255 bytes.
    pub miner_id: Arc<str>,
    /// The worker behind the miner, if told apart; at most 255 bytes.
    pub worker_id: Option<Arc<str>>,
}

impl Share {
    /// What it is credited with.
    pub fn work(&self) -> Work {
        self.difficulty.work()
    }
}

/// A refused share, or many of one channel for one reason (D31).
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// ULID, as of an accepted share; its low bits are the event's number where no hash is known.
    pub share_id: u128,
    /// Hash of the header, if one could be built.
    pub share_hash: Option<BlockHash>,
    /// Shares that this stands for: 1, or those above the rate that is recorded one by one.
    pub count: u32,
    /// When the (last) share came.
    pub at: UnixTime,
    /// Connection of this gateway.
    pub connection_id: u64,
    /// Channel as the miner named it.
    pub channel_id: u32,
    /// The miner's own number.
    pub sequence_number: u32,
    /// Job as the miner named it.
    pub job_id: u32,
    /// Stable code: one of the gateway's 34 reasons.
    pub reason_code: Arc<str>,
    /// Who sent it, without a secret; empty if the channel is unknown.
    pub miner_id: Arc<str>,
}
