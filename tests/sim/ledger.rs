//! The books: every accepted share from the shard that accepted it to the backend that credits it.

use std::collections::{BTreeMap, BTreeSet};

use gateway::machine::ShareRecord;
use gateway::machine::output::Entry;
use journal::Share;

use crate::checkers::{Checker, Rule, Wire};

/// Names a record for ever: start, shard, sequence.
type Key = (u64, usize, u64);

/// Where a record is.
struct Account {
    share_id: u128,
    wire: Wire,
    channel_id: u32,
    sequence_number: u32,
    work: u128,
    /// The name of its worker, where it is followed: nobody's in particular is a name, too.
    worker: Option<Option<String>>,
    is_taken: bool,
    is_acknowledged: bool,
    /// Whether its record is on disk.
    is_safe: bool,
    /// What the backend said of it first: whether it is credited.
    answer: Option<bool>,
    /// Whether the process died before its record was on disk.
    is_excused: bool,
}

/// All accepted shares of a world.
#[derive(Default)]
pub struct Ledger {
    accounts: BTreeMap<Key, Account>,
    by_share_id: BTreeMap<u128, Key>,
    /// Of each connection and channel: a share by the miner's own number.
    by_number: BTreeMap<(Wire, u32, u32), Key>,
    /// Credited header hashes, with the share ids under which they were credited.
    hashes: BTreeMap<[u8; 32], u128>,
    taken: BTreeMap<(u64, usize), u64>,
    /// Work acknowledged on each connection and channel.
    acknowledged: BTreeMap<(Wire, u32), u128>,
    /// Blocks that were found, those that reached a node, and those a crash may have swallowed.
    pub blocks: BTreeSet<[u8; 32]>,
    pub submitted: BTreeSet<[u8; 32]>,
    pub excused: BTreeSet<[u8; 32]>,
    /// Blocks that are on disk.
    pub stored: BTreeSet<[u8; 32]>,
}

impl Ledger {
    pub fn on_block(&mut self, hash: [u8; 32]) {
        self.blocks.insert(hash);
    }

    /// What is not on disk may be lost; what was not submitted may be, too.
    pub fn on_crash(&mut self, generation: u64) {
        for (key, account) in &mut self.accounts {
            account.is_excused |= key.0 == generation && !account.is_safe;
        }
        let lost = self.blocks.difference(&self.submitted);
        self.excused.extend(lost.filter(|hash| !self.stored.contains(*hash)));
    }

    /// The last share of a shard that the forwarder took.
    pub fn last_taken(&self, generation: u64, shard: usize) -> u64 {
        self.taken.get(&(generation, shard)).copied().unwrap_or(0)
    }

    /// Blocks that no node has, no crash excuses, and that are not kept on disk for the next
    /// start, as those are of which there were more at once than the gateway remembers.
    pub fn blocks_missing(&self) -> usize {
        let missing = self.blocks.difference(&self.submitted);
        let lost = missing.filter(|hash| !self.excused.contains(*hash));
        lost.filter(|hash| !self.stored.contains(*hash)).count()
    }
}

impl Checker {
    /// A shard accepted a share.
    pub fn on_record(&mut self, shard: usize, wire: Wire, channel_id: u32, record: &ShareRecord) {
        let key = (self.generation, shard, record.sequence);
        let hash = record.share_hash.0;
        let before = self.ledger.hashes.insert(hash, record.share_id);
        self.hold(before.is_none(), Rule::C5Credit, || {
            format!("share {} of wire {wire} was accepted before", record.share_hash)
        });
        if record.block_found {
            self.ledger.on_block(hash);
        }
        let account = Account {
            share_id: record.share_id,
            wire,
            channel_id,
            sequence_number: record.sequence_number,
            work: record.work().0,
            worker: None,
            is_taken: false,
            is_acknowledged: false,
            is_safe: false,
            answer: None,
            is_excused: false,
        };
        self.ledger.accounts.insert(key, account);
        self.ledger.by_share_id.insert(record.share_id, key);
        self.ledger.by_number.insert((wire, channel_id, record.sequence_number), key);
    }

    /// Whose share a record is, as its miner said.
    pub fn on_worker(&mut self, shard: usize, record: &ShareRecord, worker: Option<String>) {
        let key = (self.generation, shard, record.sequence);
        if let Some(account) = self.ledger.accounts.get_mut(&key) {
            account.worker = Some(worker);
        }
    }

    /// The forwarder took an entry from a shard's ring.
    pub fn on_taken(&mut self, shard: usize, entry: &Entry) {
        let (Entry::Share(record) | Entry::ShareOfNewWorker { record, .. }) = entry else {
            return;
        };
        let last = self.ledger.taken.entry((self.generation, shard)).or_insert(0);
        let is_next = record.sequence == *last + 1;
        *last = record.sequence;
        let account = self.ledger.accounts.get_mut(&(self.generation, shard, record.sequence));
        let is_known = account.is_some_and(|account| {
            account.is_taken = true;
            account.share_id == record.share_id
        });
        self.hold(is_next && is_known, Rule::C6Settle, || {
            format!("share {} of shard {shard} is not the next accepted one", record.sequence)
        });
    }

    /// A miner was told that its share is accepted.
    pub fn on_acknowledged(&mut self, wire: Wire, channel_id: u32, sequence_number: u32) {
        let key = self.ledger.by_number.get(&(wire, channel_id, sequence_number)).copied();
        let Some(account) = key.and_then(|key| self.ledger.accounts.get_mut(&key)) else {
            let what = format!("wire {wire}: share {sequence_number} was never accepted");
            return self.fail(Rule::C4Ack, what);
        };
        let is_good = account.is_safe && !account.is_acknowledged;
        account.is_acknowledged = true;
        *self.ledger.acknowledged.entry((wire, channel_id)).or_insert(0) += account.work;
        self.hold(is_good, Rule::C4Ack, || {
            format!("wire {wire}: share {sequence_number} is acknowledged twice, or not yet safe")
        });
    }

    /// A miner's sum of acknowledged difficulties on this connection: on each channel the whole
    /// ones.
    pub fn on_sum(&mut self, wire: Wire, sum: u64) {
        let channels = self.ledger.acknowledged.range((wire, 0)..=(wire, u32::MAX));
        let expected: u128 = channels.map(|(_, work)| work >> 32).sum();
        self.hold(u128::from(sum) == expected, Rule::C4Ack, || {
            format!("wire {wire}: the sum says {sum} difficulties, the records {expected}")
        });
    }

    /// A share's record is on disk, and says what its shard said.
    pub fn on_safe(&mut self, share: &Share) {
        let key = self.ledger.by_share_id.get(&share.share_id).copied();
        let Some(account) = key.and_then(|key| self.ledger.accounts.get_mut(&key)) else {
            let what = format!("share {:032x} is on disk and was never accepted", share.share_id);
            return self.fail(Rule::C17Journal, what);
        };
        let is_first = !std::mem::replace(&mut account.is_safe, true);
        account.is_excused = false;
        let is_its = account.work == share.work().0
            && account.channel_id == share.channel_id
            && account.sequence_number == share.sequence_number;
        self.hold(is_first && is_its, Rule::C17Journal, || {
            format!("share {:032x} is on disk twice, or altered", share.share_id)
        });
    }

    /// What the backend says of a share.
    pub fn answer_of(&self, share_id: u128) -> Option<bool> {
        let key = self.ledger.by_share_id.get(&share_id)?;
        self.ledger.accounts.get(key)?.answer
    }

    /// The backend is given a share, which it would credit or refuse. Whether it credits it: what
    /// it said first it says for ever.
    pub fn on_delivered(&mut self, share_id: u128, share: &Share, would_credit: bool) -> bool {
        let hash = share.share_hash.0;
        let key = self.ledger.by_share_id.get(&share_id).copied();
        let is_same = self.ledger.hashes.get(&hash) == Some(&share_id);
        self.hold(is_same, Rule::C5Credit, || {
            format!("hash {hash:02x?} comes to the backend under two share ids")
        });
        let Some(account) = key.and_then(|key| self.ledger.accounts.get_mut(&key)) else {
            let what = format!("share {share_id:032x} was delivered and never accepted");
            self.fail(Rule::C5Credit, what);
            return false;
        };
        let is_credited = *account.answer.get_or_insert(would_credit);
        let (is_safe, expected) = (account.is_safe, account.worker.clone());
        self.hold(is_safe, Rule::C4Ack, || {
            format!("share {share_id:032x} is posted before its record is on disk")
        });
        let is_its =
            expected.as_ref().is_none_or(|name| name.as_deref() == share.worker_id.as_deref());
        self.hold(is_its, Rule::C14Reference, || {
            format!(
                "share {share_id:032x} is delivered as {:?}'s, not {expected:?}'s",
                share.worker_id
            )
        });
        is_credited
    }

    /// At the end: everything was written, and all blocks are where they belong.
    pub fn check_settled(&mut self) {
        let open: Vec<String> = self
            .ledger
            .accounts
            .iter()
            .filter(|(_, account)| !account.is_safe && !account.is_excused)
            .map(|(key, account)| {
                let Account { sequence_number, wire, channel_id, .. } = account;
                format!("{key:?} share {sequence_number} of wire {wire}, channel {channel_id}")
            })
            .take(3)
            .collect();
        self.hold(open.is_empty(), Rule::C6Settle, || format!("never written: {open:?}"));
        let missing = self.ledger.blocks_missing();
        self.hold(missing == 0, Rule::C8Block, || format!("{missing} blocks reached no node"));
    }
}
