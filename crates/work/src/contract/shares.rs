//! Gateway to the pool's backend: signed batches of accepted shares, and the answer.
//!
//! Headers of the POST (the Standard Webhooks form): `webhook-id` = batch id,
//! `webhook-timestamp` = Unix seconds, `webhook-signature` =
//! `v1,base64(HMAC-SHA256(secret, id "." timestamp "." body))`. Timestamp and signature are new at
//! each attempt, the id is not.

use serde::{Deserialize, Serialize};

use crate::difficulty::Work;
use crate::hash::{BlockHash, Txid};
use crate::target::Target;
use crate::template::TemplateId;

/// Shares of one batch.
pub const BATCH_SHARES_MAX: usize = 512;

/// Seconds a receiver lets `webhook-timestamp` be off.
pub const TIMESTAMP_TOLERANCE_SECONDS: u64 = 300;

/// One POST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareBatch {
    /// Names the batch; the same at every attempt.
    pub batch_id: String,
    /// Who sends.
    pub gateway_id: String,
    /// When, RFC 3339 in UTC.
    pub sent_at: String,
    /// Number of shares in it.
    pub count: usize,
    /// Sum of their work.
    pub work: Work,
    /// First sequence number in it, per gateway start and shard.
    pub first_sequence: u64,
    /// Last sequence number in it.
    pub last_sequence: u64,
    /// The shares.
    pub shares: Vec<SharePayload>,
}

/// An accepted share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharePayload {
    /// ULID; makes delivery idempotent.
    pub share_id: String,
    /// Header hash; decides credit: unique at the backend (D25).
    pub share_hash: BlockHash,
    /// Who mined it, without its secret.
    pub miner_id: String,
    /// The worker behind the miner, if told apart.
    pub worker_id: Option<String>,
    /// Connection of this gateway.
    pub connection_id: u64,
    /// Channel of the connection.
    pub channel_id: u32,
    /// The miner's own number.
    pub sequence_number: u32,
    /// Job as the miner named it.
    pub job_id: u32,
    /// Template behind the job.
    pub template_id: TemplateId,
    /// Height of the block it would have been.
    pub height: u32,
    /// Parent block.
    pub prev_hash: BlockHash,
    /// Compact network target.
    pub nbits: u32,
    /// Newly made coins of that block, satoshi.
    pub subsidy: u64,
    /// Fees of that block, satoshi.
    pub fees: u64,
    /// Header field.
    pub version: u32,
    /// Header field.
    pub ntime: u32,
    /// Header field.
    pub nonce: u32,
    /// The whole extranonce, hexadecimal.
    pub extranonce: String,
    /// Easiest target it was accepted under (D26).
    pub target: Target,
    /// Credit, in units of 2^-32 difficulty.
    pub work: Work,
    /// When, RFC 3339 in UTC.
    pub accepted_at: String,
    /// Whether it is a block.
    pub block_found: bool,
    /// The block's coinbase, if it is one (D30). It pays `subsidy` and `fees`.
    #[serde(default)]
    pub coinbase_txid: Option<Txid>,
    /// Whether it came while miners were held on an old tip.
    pub hold: bool,
}

/// A 2xx answer. Only with this body is a batch settled (D29).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareAnswer {
    /// The batch's own id.
    pub batch_id: String,
    /// One per share.
    pub results: Vec<ShareResult>,
}

/// What the backend did with one share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareResult {
    /// Which.
    pub share_id: String,
    /// Whether it is credited, now or earlier.
    pub accepted: bool,
    /// Why not, or `duplicate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
