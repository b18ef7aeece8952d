//! Templates put together from their parts, with path and commitment computed here.

use std::sync::Arc;

use work::hash::{Txid, Wtxid, sha256d};
use work::merkle;
use work::template::{Template, TemplateId, Transaction, merkle_path};
use work::tip::Tip;

/// How the script of the commitment output begins: OP_RETURN, a push of 36, BIP141's magic.
pub const COMMITMENT_HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// All of a template but its transactions and what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The template's name.
    pub id: TemplateId,
    /// What it builds on.
    pub tip: Tip,
    /// Height of the block.
    pub height: u32,
    /// Version of the block.
    pub version: u32,
    /// The node's time, seconds.
    pub cur_time: u32,
    /// Newly made coins, satoshi.
    pub subsidy: u64,
    /// [`Template::max_ntime`].
    pub max_ntime: Option<u32>,
}

impl Default for Frame {
    /// A frame of zeros: a start for those who fill in the rest.
    fn default() -> Self {
        let tip = Tip { prev_hash: Default::default(), nbits: 0, min_ntime: 0 };
        let id = TemplateId::default();
        Frame { id, tip, height: 0, version: 0, cur_time: 0, subsidy: 0, max_ntime: None }
    }
}

/// The commitment output's script (BIP141) for a block whose transactions after the coinbase
/// are these: `6a24aa21a9ed | SHA256d(witness root | 32*00)`.
pub fn witness_commitment(wtxids: impl Iterator<Item = Wtxid>) -> [u8; 38] {
    let leaves: Vec<[u8; 32]> = wtxids.map(|wtxid| wtxid.0).collect();
    // The coinbase's own wtxid counts as zero.
    let root = merkle::root(Txid([0; 32]), &merkle::path_of_first(&leaves));
    let mut committed = [0u8; 64];
    committed[..32].copy_from_slice(&root.0);
    let mut script = [0u8; 38];
    script[..6].copy_from_slice(&COMMITMENT_HEADER);
    script[6..].copy_from_slice(&sha256d(&committed));
    script
}

/// The template of `frame` with `transactions` in block order.
pub fn template(frame: Frame, transactions: Arc<[Arc<Transaction>]>) -> Template {
    let fees: u64 = transactions.iter().map(|transaction| transaction.fee).sum();
    Template {
        id: frame.id,
        tip: frame.tip,
        height: frame.height,
        version: frame.version,
        cur_time: frame.cur_time,
        coinbase_value: frame.subsidy + fees,
        witness_commitment: witness_commitment(transactions.iter().map(|t| t.wtxid)),
        merkle_path: merkle_path(&transactions),
        transactions,
        rules: None,
        max_ntime: frame.max_ntime,
    }
}

/// The template of `frame` that holds nothing but its coinbase.
pub fn coinbase_only(frame: Frame) -> Template {
    template(frame, Vec::new().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commitment_of_an_empty_block_is_the_known_one() {
        // What every node puts into the template of an empty block.
        let known = "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9";
        let made = witness_commitment(std::iter::empty());
        assert_eq!(work::contract::bytes::encode(&made), known);
    }
}
