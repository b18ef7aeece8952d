//! Gateway and pool-verifier on TCP port 5001: one JSON object a line, both ways.
//!
//! Proposals are pipelined and answered in any order, each exactly once. Transactions go ahead
//! by `TxPut` and are named by wtxid afterwards; a verifier that lacks one says `NeedTx`.

use serde::{Deserialize, Serialize};

use super::bytes::HexBytes;
use crate::hash::{BlockHash, MerkleNode, Txid, Wtxid};
use crate::payout::Network;
use crate::template::TemplateId;
use crate::verdict::Decision;

/// Version of this protocol.
pub const PROTO: u32 = 1;

/// Longest line either side takes.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Milliseconds between two `Ping`s; three unanswered ones mean that the other side is gone.
pub const PING_MILLIS: u64 = 1_000;

/// Proposals a gateway may have unanswered.
pub const PROPOSALS_OPEN_MAX: usize = 16;

/// Transactions of one `TxPut` line.
pub const TX_PUT_MAX: usize = 1_024;

/// Transactions that one [`VerdictDetail`] names.
pub const DETAIL_TXIDS_MAX: usize = 64;

/// Gateway to verifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ToVerifier {
    /// First line of a connection.
    Hello {
        /// [`PROTO`].
        proto: u32,
        /// Who is calling.
        gateway_id: String,
        /// The gateway's chain; a verifier on another one refuses.
        network: Network,
        /// Distinguishes gateways in the extranonce prefix (D23).
        instance_id: u16,
        /// Start of that gateway; a second live one with the same pair is refused (D23).
        epoch: u16,
    },
    /// Transactions ahead of the proposals that name them. Not answered.
    TxPut {
        /// At most [`TX_PUT_MAX`].
        txs: Vec<ProposedTransaction>,
    },
    /// Judge this.
    TemplatePropose(Box<TemplatePropose>),
    /// The proposal is of no use any more; it may stay unanswered.
    Cancel {
        /// Which.
        propose_id: u64,
    },
    /// Are you there?
    Ping {
        /// Comes back as it is.
        t: u64,
    },
}

/// A transaction whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedTransaction {
    /// Its name, which the verifier computes again.
    pub wtxid: Wtxid,
    /// As in a block.
    pub data: HexBytes,
    /// Satoshi, as the node says.
    pub fee: u64,
    /// Signature operation cost, as the node says.
    pub sigops: u32,
}

/// Why a template is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposeReason {
    /// The chain has a new tip.
    NewTip,
    /// Better fees on the same tip.
    Fees,
    /// First template after a start or a reconnection.
    Start,
}

/// One template with the coinbase this gateway would mine it with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplatePropose {
    /// Names the proposal on this connection; rising.
    pub propose_id: u64,
    /// Time left for a verdict in milliseconds; information only.
    pub deadline_ms: u64,
    /// Why now.
    pub reason: ProposeReason,
    /// The template.
    pub template_id: TemplateId,
    /// Parent block.
    pub prev_hash: BlockHash,
    /// Height of this block.
    pub height: u32,
    /// Block version.
    pub version: u32,
    /// Compact target.
    pub nbits: u32,
    /// Time of making, seconds.
    pub curtime: u32,
    /// Earliest time, seconds.
    pub min_time: u32,
    /// The coinbase.
    pub coinbase: ProposedCoinbase,
    /// Path of the coinbase.
    pub merkle_path: Vec<MerkleNode>,
    /// Rules of the block by the node's names, `!` in front of those that a builder of blocks must
    /// know; absent where the source has no such list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<String>>,
    /// Transactions in block order.
    pub wtxids: Vec<Wtxid>,
    /// What the proposer adds them up to.
    pub totals: Totals,
}

/// A coinbase with a hole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedCoinbase {
    /// Up to the extranonce.
    pub prefix: HexBytes,
    /// From behind the extranonce.
    pub suffix: HexBytes,
    /// Bytes of the hole.
    pub extranonce_len: usize,
    /// All that it may pay, satoshi.
    pub value: u64,
}

/// Sums over the transactions, without the coinbase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Satoshi.
    pub fees: u64,
    /// Weight units.
    pub weight: u64,
    /// Signature operation cost.
    pub sigops: u64,
    /// Number of transactions.
    pub tx_count: usize,
}

/// Verifier to gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum FromVerifier {
    /// Answer to `Hello`.
    HelloAck {
        /// [`PROTO`].
        proto: u32,
        /// Who answers.
        verifier_id: String,
        /// The policy's own version text.
        policy_version: String,
        /// `sha256:` and 64 digits over the policy's canonical form.
        policy_hash: String,
    },
    /// These transactions of a proposal are not known here; put them and propose again.
    NeedTx {
        /// Which proposal.
        propose_id: u64,
        /// What is missing.
        wtxids: Vec<Wtxid>,
    },
    /// The ruling.
    TemplateVerdict(Box<TemplateVerdict>),
    /// Another policy is in force; propose the current template again.
    PolicyChanged {
        /// Version text.
        policy_version: String,
        /// Hash.
        policy_hash: String,
    },
    /// Answer to `Ping`.
    Pong {
        /// As it came.
        t: u64,
    },
    /// A line that made no sense, or a refusal; the verifier may close afterwards.
    Error {
        /// `line_too_long`, `bad_json`, `unknown_type`, `overloaded`, `wrong_network`,
        /// `wrong_proto`, `hello_expected`, `instance_in_use`, `propose_id_reused`, `timeout`.
        code: String,
        /// The proposal it is about.
        propose_id: Option<u64>,
        /// One sentence.
        detail: String,
    },
}

/// A ruling on one proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateVerdict {
    /// The proposal.
    pub propose_id: u64,
    /// Its template.
    pub template_id: TemplateId,
    /// The ruling.
    pub verdict: Decision,
    /// Codes of the checks that spoke, warnings included.
    pub reason_codes: Vec<String>,
    /// The checks that spoke.
    pub details: Vec<VerdictDetail>,
    /// Checks that lacked an input.
    pub not_evaluated: Vec<String>,
    /// Policy in force.
    pub policy_version: String,
    /// Its hash.
    pub policy_hash: String,
    /// SHA-256 over the judged body, hexadecimal (D37).
    pub body_hash: HexBytes,
    /// SHA-256 over the judged tip, hexadecimal (D37).
    pub tip_hash: HexBytes,
    /// Microseconds spent on it.
    pub elapsed_us: u64,
}

/// One check that spoke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictDetail {
    /// Check, as in the policy catalogue (`S09`).
    pub check: String,
    /// Reason code.
    pub code: String,
    /// `deny` or `warn`.
    pub severity: String,
    /// What was found.
    pub got: String,
    /// What was expected.
    pub want: String,
    /// The transactions it objects to, in block order, at most [`DETAIL_TXIDS_MAX`]; empty if it
    /// objects to something else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub txids: Vec<Txid>,
}
