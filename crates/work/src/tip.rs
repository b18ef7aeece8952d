//! The block being built on.

use serde::{Deserialize, Serialize};

use crate::hash::BlockHash;

/// What a block must take from its place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tip {
    /// Hash of the parent.
    pub prev_hash: BlockHash,
    /// Compact target the block must meet.
    pub nbits: u32,
    /// Earliest time the block may carry, seconds: median time past + 1, or later where the
    /// timewarp rule of BIP94 says so (the node's `mintime`).
    pub min_ntime: u32,
}
