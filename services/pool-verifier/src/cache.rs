//! Facts of transactions that a gateway has put, the least recently put or named leave first.

use std::collections::{BTreeMap, HashMap};

use policy::JudgedTransaction;
use work::Wtxid;

struct Entry {
    transaction: JudgedTransaction,
    used: u64,
}

/// One connection's transactions.
pub struct TransactionCache {
    entries: HashMap<Wtxid, Entry>,
    /// When each was last put or named; times are unique.
    by_use: BTreeMap<u64, Wtxid>,
    clock: u64,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl TransactionCache {
    /// An empty cache of at most `count_max` transactions and `bytes_max` bytes of facts.
    pub fn new(count_max: usize, bytes_max: usize) -> TransactionCache {
        TransactionCache {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            bytes: 0,
            count_max,
            bytes_max,
        }
    }

    /// Keep `transaction`, in place of what had its name.
    pub fn put(&mut self, transaction: JudgedTransaction) {
        self.remove(transaction.wtxid);
        self.clock += 1;
        self.bytes += transaction.facts.memory_bytes();
        self.by_use.insert(self.clock, transaction.wtxid);
        self.entries.insert(transaction.wtxid, Entry { transaction, used: self.clock });
        while self.entries.len() > self.count_max || self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            self.remove(*oldest);
        }
    }

    /// The transactions `wtxids`, in order.
    ///
    /// # Errors
    /// Those that are not here, each once; what is here counts as named all the same.
    pub fn named(&mut self, wtxids: &[Wtxid]) -> Result<Vec<JudgedTransaction>, Vec<Wtxid>> {
        let mut found = Vec::with_capacity(wtxids.len());
        let mut missing = Vec::new();
        for wtxid in wtxids {
            let Some(entry) = self.entries.get_mut(wtxid) else {
                missing.push(*wtxid);
                continue;
            };
            self.clock += 1;
            self.by_use.remove(&entry.used);
            self.by_use.insert(self.clock, *wtxid);
            entry.used = self.clock;
            found.push(entry.transaction.clone());
        }
        if missing.is_empty() {
            return Ok(found);
        }
        missing.sort_unstable();
        missing.dedup();
        Err(missing)
    }

    /// Transactions kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remove(&mut self, wtxid: Wtxid) {
        if let Some(entry) = self.entries.remove(&wtxid) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.transaction.facts.memory_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::TransactionFacts;
    use std::sync::Arc;

    fn transaction(number: u8) -> JudgedTransaction {
        let facts = Arc::new(TransactionFacts::from_bytes(&[]));
        JudgedTransaction { wtxid: Wtxid([number; 32]), fee: 0, sigops: 0, facts }
    }

    #[test]
    fn the_longest_unused_leave_first() {
        let mut cache = TransactionCache::new(3, usize::MAX);
        (1..=3).for_each(|number| cache.put(transaction(number)));
        assert_eq!(cache.named(&[Wtxid([1; 32])]).unwrap().len(), 1);
        cache.put(transaction(4));
        let all: Vec<Wtxid> = [2, 1, 3, 4, 2].map(|number| Wtxid([number; 32])).to_vec();
        assert_eq!(cache.named(&all).unwrap_err(), [Wtxid([2; 32])]);
        assert_eq!((cache.len(), cache.by_use.len()), (3, 3));
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let one = transaction(1).facts.memory_bytes();
        let mut cache = TransactionCache::new(100, 2 * one);
        for number in 0..50 {
            cache.put(transaction(number));
            cache.put(transaction(number));
        }
        assert_eq!((cache.len(), cache.bytes), (2, 2 * one));
        let mut none = TransactionCache::new(100, one - 1);
        none.put(transaction(1));
        assert!(none.is_empty() && none.bytes == 0);
    }
}
