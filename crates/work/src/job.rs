//! A template with its coinbase: what is judged, and what miners are given.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::coinbase::{Coinbase, CoinbaseError};
use crate::hash::{MerkleNode, Txid};
use crate::merkle;
use crate::payout::Payout;
use crate::template::Template;

/// A template as this gateway would mine it. Channels differ only in their extranonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The candidate block.
    pub template: Arc<Template>,
    /// Its coinbase, with a hole for the extranonce.
    pub coinbase: Coinbase,
}

impl Job {
    /// Build the coinbase of `template`.
    ///
    /// # Errors
    /// See [`CoinbaseError`].
    pub fn new(
        template: Arc<Template>,
        payouts: &[Payout],
        tag: &[u8],
        extranonce_bytes: usize,
    ) -> Result<Job, CoinbaseError> {
        let coinbase = Coinbase::build(&template, payouts, tag, extranonce_bytes)?;
        Ok(Job { template, coinbase })
    }

    /// The merkle root with an extranonce given in two parts.
    pub fn merkle_root(&self, extranonce_prefix: &[u8], extranonce: &[u8]) -> MerkleNode {
        let txid: Txid = self.coinbase.txid(extranonce_prefix, extranonce);
        merkle::root(txid, &self.template.merkle_path)
    }

    /// What a verdict binds of the body (D37).
    pub fn body_hash(&self) -> [u8; 32] {
        body_hash(
            &self.coinbase.prefix,
            &self.coinbase.suffix,
            &self.template.merkle_path,
            self.template.version,
            self.template.height,
            self.coinbase.extranonce_bytes,
        )
    }

    /// What a verdict binds of the tip (D37).
    pub fn tip_hash(&self) -> [u8; 32] {
        tip_hash(&self.template.tip)
    }
}

/// SHA-256 over the length-prefixed parts of a body, all integers little-endian:
/// `len U32 | coinbase prefix | len U32 | coinbase suffix | nodes U32 | 32 * nodes |
/// version U32 | height U32 | extranonce bytes U32`.
pub fn body_hash(
    coinbase_prefix: &[u8],
    coinbase_suffix: &[u8],
    merkle_path: &[MerkleNode],
    version: u32,
    height: u32,
    extranonce_bytes: usize,
) -> [u8; 32] {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut hash = Sha256::new_with_prefix(count(coinbase_prefix.len()))
        .chain_update(coinbase_prefix)
        .chain_update(count(coinbase_suffix.len()))
        .chain_update(coinbase_suffix)
        .chain_update(count(merkle_path.len()));
    for node in merkle_path {
        hash.update(node.0);
    }
    hash.chain_update(version.to_le_bytes())
        .chain_update(height.to_le_bytes())
        .chain_update(count(extranonce_bytes))
        .finalize()
        .into()
}

/// SHA-256 over `prev_hash 32 | nbits U32 | min_ntime U32`, little-endian.
pub fn tip_hash(tip: &crate::tip::Tip) -> [u8; 32] {
    Sha256::new_with_prefix(tip.prev_hash.0)
        .chain_update(tip.nbits.to_le_bytes())
        .chain_update(tip.min_ntime.to_le_bytes())
        .finalize()
        .into()
}
