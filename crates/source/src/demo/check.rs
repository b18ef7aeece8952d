//! The simulated chain's judgement of a block, in the words and the order of Bitcoin Core.

use std::collections::HashSet;
use std::fmt;

use bitcoin::hashes::Hash as _;
use work::hash::{BlockHash, Txid, Wtxid};
use work::now::UnixTime;
use work::payout::Network;
use work::target::Target;

use super::branches::Known;
use super::mempool::{BLOCK_SIGOPS_MAX, BLOCK_WEIGHT_MAX};
use super::{Block, DemoChain};
use crate::assemble::COMMITMENT_HEADER;

/// Error code of `submitblock` for bytes that are no block.
pub const DECODE_ERROR_CODE: i32 = -22;
/// Seconds that a block's time may lie ahead of the clock (consensus).
const TIME_AHEAD_MAX: u32 = 7_200;

/// The bytes are not a block; the node answers this with error -22.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitError(
    /// The node's words.
    pub String,
);

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SubmitError {}

/// A block out of bytes; `submitblock` fills in a missing coinbase witness, and so does this.
pub(super) fn decode(bytes: &[u8]) -> Result<bitcoin::Block, SubmitError> {
    let mut block: bitcoin::Block = bitcoin::consensus::deserialize(bytes)
        .map_err(|_| SubmitError("Block decode failed".to_owned()))?;
    let coinbase = block.txdata.first_mut().filter(|first| first.is_coinbase());
    let Some(coinbase) = coinbase else {
        return Err(SubmitError("Block does not start with a coinbase".to_owned()));
    };
    let commits =
        |output: &bitcoin::TxOut| output.script_pubkey.as_bytes().starts_with(&COMMITMENT_HEADER);
    let committed = coinbase.output.iter().any(commits);
    if let Some(input) = coinbase.input.first_mut()
        && committed
        && input.witness.is_empty()
    {
        input.witness = bitcoin::Witness::from_slice(&[[0u8; 32]]);
    }
    Ok(block)
}

pub(super) fn hash_of(block: &bitcoin::Block) -> BlockHash {
    BlockHash(block.block_hash().to_byte_array())
}

fn refuse<T>(answer: &str) -> Result<T, String> {
    Err(answer.to_owned())
}

impl DemoChain {
    /// What is known of `block` by all that can be said before its transactions are looked at, or
    /// the node's word against it.
    pub(super) fn check(&self, block: &bitcoin::Block, now: UnixTime) -> Result<Known, String> {
        let hash = hash_of(block);
        if self.blocks.iter().any(|known| known.hash == hash) {
            return refuse("duplicate");
        }
        match self.branches.find(&hash) {
            Some(known) if known.is_invalid => return refuse("duplicate-invalid"),
            Some(_) => return refuse("duplicate-inconclusive"),
            None => {}
        }
        check_alone(block, &hash)?;
        let prev_hash = BlockHash(block.header.prev_blockhash.to_byte_array());
        let Some(parent) = self.branches.find(&prev_hash) else {
            return refuse("prev-blk-not-found");
        };
        if parent.is_invalid {
            return refuse("bad-prevblk");
        }
        let height = parent.block.height + 1;
        self.check_in_place(block, &parent.block, now)?;
        Ok(Known::new(Block { hash, height, time: block.header.time }, prev_hash))
    }

    /// Rules that depend on the parent.
    fn check_in_place(
        &self,
        block: &bitcoin::Block,
        parent: &Block,
        now: UnixTime,
    ) -> Result<(), String> {
        let header = &block.header;
        let height = parent.height + 1;
        if header.bits.to_consensus() != self.config.nbits {
            return refuse("bad-diffbits");
        }
        if header.time <= self.branches.median_time(&parent.hash) {
            return refuse("time-too-old");
        }
        if header.time > now.seconds().saturating_add(TIME_AHEAD_MAX) {
            return refuse("time-too-new");
        }
        let version = header.version.to_consensus();
        if version < 4 {
            return Err(format!("bad-version(0x{version:08x})"));
        }
        let push = bitcoin::script::Builder::new().push_int(i64::from(height)).into_script();
        let script_sig = block.coinbase().and_then(|coinbase| coinbase.input.first());
        if !script_sig.is_some_and(|input| input.script_sig.as_bytes().starts_with(push.as_bytes()))
        {
            return refuse("bad-cb-height");
        }
        if !block.check_witness_commitment() {
            return refuse("bad-witness-merkle-match");
        }
        if block.weight().to_wu() > BLOCK_WEIGHT_MAX {
            return refuse("bad-blk-weight");
        }
        Ok(())
    }

    /// The transactions that `block`, on the tip, confirms, by the rules that depend on what it
    /// spends: here, on the mempool.
    pub(super) fn check_transactions(&self, block: &bitcoin::Block) -> Result<Vec<Wtxid>, String> {
        let Some((coinbase, others)) = block.txdata.split_first() else {
            return refuse("bad-cb-missing");
        };
        let coinbase_sigops = coinbase.total_sigop_cost(|_| None);
        let mut sigops = u64::try_from(coinbase_sigops).unwrap_or(u64::MAX);
        let mut fees = 0u64;
        let mut included = Vec::with_capacity(others.len());
        let mut inside: HashSet<Txid> = HashSet::with_capacity(others.len());
        for transaction in others {
            let wtxid = Wtxid(transaction.compute_wtxid().to_byte_array());
            let Some(known) = self.mempool.find(&wtxid) else {
                return refuse("bad-txns-inputs-missingorspent");
            };
            let missing = |txid: &Txid| self.mempool.holds(txid) && !inside.contains(txid);
            if inside.contains(&known.transaction.txid) || known.parents.iter().any(missing) {
                return refuse("bad-txns-inputs-missingorspent");
            }
            inside.insert(known.transaction.txid);
            fees += known.transaction.fee;
            sigops += u64::from(known.transaction.sigops);
            included.push(wtxid);
        }
        if sigops > BLOCK_SIGOPS_MAX {
            return refuse("bad-blk-sigops");
        }
        let paid = coinbase
            .output
            .iter()
            .try_fold(0u64, |sum, output| sum.checked_add(output.value.to_sat()));
        let most = Network::Regtest.subsidy(self.tip().height + 1) + fees;
        if paid.is_none_or(|paid| paid > most) {
            return refuse("bad-cb-amount");
        }
        Ok(included)
    }
}

/// Rules that need nothing but the block.
fn check_alone(block: &bitcoin::Block, hash: &BlockHash) -> Result<(), String> {
    let target = Target::from_nbits(block.header.bits.to_consensus());
    if !target.is_ok_and(|target| target.is_met_by(hash)) {
        return refuse("high-hash");
    }
    if !block.check_merkle_root() {
        return refuse("bad-txnmrklroot");
    }
    let Some((coinbase, others)) = block.txdata.split_first() else {
        return refuse("bad-cb-missing");
    };
    if others.iter().any(bitcoin::Transaction::is_coinbase) {
        return refuse("bad-cb-multiple");
    }
    let length = coinbase.input.first().map_or(0, |input| input.script_sig.len());
    if !(2..=100).contains(&length) {
        return refuse("bad-cb-length");
    }
    Ok(())
}
