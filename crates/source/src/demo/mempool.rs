//! The simulated chain's transactions that wait for a block, and which of them fit into one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use work::hash::{Txid, Wtxid};
use work::template::Transaction;

use super::synthetic::Made;

/// Weight that a template leaves for header and coinbase, as Bitcoin Core does by default.
pub const RESERVED_WEIGHT: u64 = 8_000;
/// Weight of a block (consensus).
pub const BLOCK_WEIGHT_MAX: u64 = 4_000_000;
/// Signature operation cost that a template leaves for the coinbase's outputs.
pub const RESERVED_SIGOPS: u64 = 400;
/// Signature operation cost of a block (consensus).
pub const BLOCK_SIGOPS_MAX: u64 = 80_000;

pub(super) struct Waiting {
    pub(super) transaction: Arc<Transaction>,
    pub(super) parents: Vec<Txid>,
}

/// A transaction that a block has, with its place among those that wait.
pub(super) struct Taken {
    arrival: u64,
    waiting: Waiting,
}

/// Waiting transactions in the order they came; parents come before children.
#[derive(Default)]
pub(super) struct Mempool {
    waiting: BTreeMap<u64, Waiting>,
    by_wtxid: HashMap<Wtxid, u64>,
    by_txid: HashMap<Txid, u64>,
    arrived: u64,
}

impl Mempool {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn insert(&mut self, made: Made) {
        let Made { transaction, parents } = made;
        self.arrived += 1;
        self.by_wtxid.insert(transaction.wtxid, self.arrived);
        self.by_txid.insert(transaction.txid, self.arrived);
        self.waiting.insert(self.arrived, Waiting { transaction, parents });
    }

    pub(super) fn find(&self, wtxid: &Wtxid) -> Option<&Waiting> {
        self.waiting.get(self.by_wtxid.get(wtxid)?)
    }

    pub(super) fn holds(&self, txid: &Txid) -> bool {
        self.by_txid.contains_key(txid)
    }

    /// Take a transaction out: a block has it now.
    pub(super) fn take(&mut self, wtxid: &Wtxid) -> Option<Taken> {
        let arrival = self.by_wtxid.remove(wtxid)?;
        let waiting = self.waiting.remove(&arrival)?;
        self.by_txid.remove(&waiting.transaction.txid);
        Some(Taken { arrival, waiting })
    }

    /// Put a transaction back at its place: its block has left the chain.
    pub(super) fn put_back(&mut self, taken: Taken) {
        let Taken { arrival, waiting } = taken;
        self.by_wtxid.insert(waiting.transaction.wtxid, arrival);
        self.by_txid.insert(waiting.transaction.txid, arrival);
        self.waiting.insert(arrival, waiting);
    }

    /// The transactions of the next block: best fee rate first, parents before children, within
    /// the limits of weight and signature operations.
    pub(super) fn select(&self) -> Arc<[Arc<Transaction>]> {
        let mut rates: HashMap<Txid, u64> = HashMap::with_capacity(self.waiting.len());
        let mut order = Vec::with_capacity(self.waiting.len());
        for (arrival, Waiting { transaction, parents }) in &self.waiting {
            // A child counts for no more than its parents, so that it sorts behind them.
            let own = transaction.fee * 1_000_000 / u64::from(transaction.weight.max(1));
            let rate =
                parents.iter().filter_map(|txid| rates.get(txid).copied()).fold(own, u64::min);
            rates.insert(transaction.txid, rate);
            order.push((Reverse(rate), *arrival));
        }
        order.sort_unstable();
        let mut weight = BLOCK_WEIGHT_MAX - RESERVED_WEIGHT;
        let mut sigops = BLOCK_SIGOPS_MAX - RESERVED_SIGOPS;
        let mut chosen: Vec<Arc<Transaction>> = Vec::with_capacity(order.len());
        let mut inside: HashSet<Txid> = HashSet::with_capacity(order.len());
        for (_, arrival) in order {
            let Some(Waiting { transaction, parents }) = self.waiting.get(&arrival) else {
                continue;
            };
            let missing = |txid: &Txid| self.holds(txid) && !inside.contains(txid);
            let (needs, cost) = (u64::from(transaction.weight), u64::from(transaction.sigops));
            if needs > weight || cost > sigops || parents.iter().any(missing) {
                continue;
            }
            weight -= needs;
            sigops -= cost;
            inside.insert(transaction.txid);
            chosen.push(Arc::clone(transaction));
        }
        chosen.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::Synthetic;
    use super::*;

    #[test]
    fn a_deep_mempool_fills_a_block_and_no_more() {
        let mut synthetic = Synthetic::new(3);
        let mut mempool = Mempool::default();
        for _ in 0..8_000 {
            mempool.insert(synthetic.make());
        }
        let chosen = mempool.select();
        let weight: u64 = chosen.iter().map(|t| u64::from(t.weight)).sum();
        assert!(weight <= BLOCK_WEIGHT_MAX - RESERVED_WEIGHT, "{weight}");
        assert!(weight > 3_980_000, "{weight}");
        let mut seen = HashSet::new();
        for transaction in chosen.iter() {
            for parent in &mempool.find(&transaction.wtxid).unwrap().parents {
                assert!(seen.contains(parent), "a child before its parent");
            }
            assert!(seen.insert(transaction.txid));
        }
    }
}
