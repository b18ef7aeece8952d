//! The chain as a verifier needs it: `GET /chain` of template-manager for `demo://`, or the same
//! facts from the verifier's own node by RPC (D36).

use serde::{Deserialize, Serialize};

use crate::hash::BlockHash;
use crate::payout::Network;

/// Tips that a [`Chain`] lists: the active one and recent others, so that a reorganisation in
/// progress is not taken for an attack.
pub const CHAIN_TIPS_MAX: usize = 8;

/// The state of a chain at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Which chain.
    pub network: Network,
    /// Whether this is the built-in simulated chain.
    pub demo: bool,
    /// Block at the end of the active chain.
    pub tip_hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// Its time, seconds.
    pub tip_time: u32,
    /// Median of the last eleven block times, seconds.
    pub median_time_past: u32,
    /// Compact target the next block must meet; on testnet4 the one for a block that comes at most
    /// twenty minutes after the tip.
    pub next_nbits: u32,
    /// Earliest time the next block may carry, seconds.
    pub next_min_time: u32,
    /// Blocks that were the tip a short while ago, newest first.
    pub recent_tips: Vec<BlockHash>,
}
