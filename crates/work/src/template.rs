//! A candidate block as the node offers it, immutable once made.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hash::{BlockHash, MerkleNode, Txid, Wtxid};
use crate::merkle;
use crate::tip::Tip;

/// Transactions in one template: 4 MWU hold fewer of the smallest valid kind.
pub const TEMPLATE_TRANSACTIONS_MAX: usize = 65_535;

/// Rules that one template may name.
pub const TEMPLATE_RULES_MAX: usize = 64;

/// Bytes of one such name.
pub const TEMPLATE_RULE_BYTES_MAX: usize = 64;

/// Names one template of one source; strictly rising for as long as the source lives, and
/// across its restarts (it starts from the clock in milliseconds).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct TemplateId(
    /// The number.
    pub u64,
);

/// One transaction of a template, interned by wtxid so that templates share it (D44).
#[derive(Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Hash without the witness: the leaf of the block's merkle tree.
    pub txid: Txid,
    /// Hash with the witness: the leaf of the witness commitment.
    pub wtxid: Wtxid,
    /// The transaction as the block carries it, witness included.
    pub data: Box<[u8]>,
    /// Fee in satoshi.
    pub fee: u64,
    /// Weight units (BIP141).
    pub weight: u32,
    /// Signature operation cost, as the node counts it.
    pub sigops: u32,
}

/// A candidate block without its coinbase transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its name.
    pub id: TemplateId,
    /// What it builds on.
    pub tip: Tip,
    /// Height of this block.
    pub height: u32,
    /// Block version.
    pub version: u32,
    /// The node's time when it made this, seconds: where miners start.
    pub cur_time: u32,
    /// Subsidy and fees, satoshi: all that the coinbase may pay.
    pub coinbase_value: u64,
    /// The commitment output's script (BIP141): `6a24aa21a9ed` and 32 bytes.
    pub witness_commitment: [u8; 38],
    /// Transactions after the coinbase, in block order.
    pub transactions: Arc<[Arc<Transaction>]>,
    /// Path from the coinbase to the merkle root.
    pub merkle_path: Vec<MerkleNode>,
    /// Rules of the block as the node names them (BIP9, BIP145): `!` in front of those that whoever
    /// builds the block must know. Nothing where the source has no such list.
    pub rules: Option<Arc<[String]>>,
    /// Latest time that the bits of the tip are right for, seconds: on testnet4 twenty minutes
    /// after the parent (D32). Nothing where time changes nothing.
    pub max_ntime: Option<u32>,
}

impl Template {
    /// Fees of all transactions, satoshi. What no honest node says, more than 64 bits hold, comes
    /// out as the most they hold.
    pub fn total_fees(&self) -> u64 {
        self.transactions.iter().fold(0, |sum, transaction| sum.saturating_add(transaction.fee))
    }

    /// Weight of all transactions; header and coinbase are not in it.
    pub fn total_weight(&self) -> u64 {
        self.transactions.iter().map(|transaction| u64::from(transaction.weight)).sum()
    }

    /// Signature operation cost of all transactions.
    pub fn total_sigops(&self) -> u64 {
        self.transactions.iter().map(|transaction| u64::from(transaction.sigops)).sum()
    }

    /// Whether the block would hold nothing but its coinbase.
    pub fn is_coinbase_only(&self) -> bool {
        self.transactions.is_empty()
    }

    /// The parent block.
    pub fn prev_hash(&self) -> BlockHash {
        self.tip.prev_hash
    }
}

/// The merkle path that `transactions` (after the coinbase) give.
pub fn merkle_path(transactions: &[Arc<Transaction>]) -> Vec<MerkleNode> {
    let txids: Vec<[u8; 32]> = transactions.iter().map(|transaction| transaction.txid.0).collect();
    merkle::path_of_first(&txids)
}
