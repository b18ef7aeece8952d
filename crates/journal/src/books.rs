//! Whether everything adds up: the books of a journal (D27).
//!
//! [`Books`] are fed every record of a journal, in order, and end in a [`Verdict`]. They prove, per
//! miner and UTC hour of acceptance, that
//!
//! ```text
//! acknowledged + never acknowledged = accepted
//!                                   = delivered + duplicate + rejected + discarded + dead + open
//! ```
//!
//! in shares and in work, and around it: event numbers and each shard's sequences have no gap, no
//! share has two results or one before it was accepted, no hash counts twice, every
//! acknowledgement is for exactly the shares it says, no checkpoint hides a share. The first
//! counterexample of each is kept with its place in the files.
//!
//! A journal whose oldest segments are gone is balanced from its first record on: what its records
//! say of shares before that is believed once.
//!
//! Memory is what is open (some 100 bytes a share), 16 bytes of each hash, a bit an event, and the
//! sums.

mod account;
mod channels;
mod fault;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use work::UnixTime;

use crate::record::{Attempt, Outcome, Record, Settled, Settlement};
use crate::segment::Position;
use crate::share::Share;
use crate::walk::Located;

pub use account::{Account, Sum};
use channels::{Channels, Waiting};
pub use fault::{Fault, FaultKind};

/// Faults that are kept; the rest is counted.
pub const FAULTS_KEPT: usize = 100;

/// Milliseconds of an hour.
const HOUR_MILLIS: u64 = 3_600_000;

/// Bits of one word of [`EventSet`].
const WORD_BITS: u64 = 64;

/// An accepted share without a result.
#[derive(Debug, Clone, Copy)]
struct Unsettled {
    share_id: u128,
    accepted_at: UnixTime,
    work: u128,
    account: usize,
}

/// Numbers of events, a bit each. Wild numbers cost a word each, not the room up to them.
#[derive(Debug, Default)]
struct EventSet(HashMap<u64, u64>);

impl EventSet {
    fn insert(&mut self, event: u64) {
        *self.0.entry(event / WORD_BITS).or_default() |= 1 << (event % WORD_BITS);
    }

    fn contains(&self, event: u64) -> bool {
        self.0.get(&(event / WORD_BITS)).is_some_and(|word| word >> (event % WORD_BITS) & 1 == 1)
    }
}

/// One line of the balance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Who is credited.
    pub miner_id: Arc<str>,
    /// Begin of the UTC hour in which the shares were accepted.
    pub hour: UnixTime,
    /// The sums.
    pub account: Account,
}

/// What the books say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The first [`FAULTS_KEPT`] counterexamples, in the order they were met.
    pub faults: Vec<Fault>,
    /// How many there are.
    pub faults_total: u64,
    /// By miner, then by hour.
    pub lines: Vec<Line>,
    /// The sum of all lines.
    pub total: Account,
    /// Refused shares by reason, the unrecorded ones among them.
    pub refused: BTreeMap<Arc<str>, u64>,
    /// Records read.
    pub records: u64,
    /// The first event number; 0 if there is no record.
    pub first_event: u64,
    /// The number of the event after the last; 0 if there is no record.
    pub next_event: u64,
    /// Whether the oldest segments are gone.
    pub is_pruned: bool,
    /// Results of shares that are gone with them.
    pub settled_of_pruned: u64,
}

impl Verdict {
    /// Whether everything adds up.
    pub fn holds(&self) -> bool {
        self.faults_total == 0
    }
}

/// The place of the record that is being read.
#[derive(Debug, Clone, Copy)]
struct Here {
    event_id: u64,
    position: Position,
}

/// The books while they are read.
#[derive(Debug, Default)]
pub struct Books {
    faults: Vec<Fault>,
    faults_total: u64,
    records: u64,
    first_event: u64,
    next_event: u64,
    is_pruned: bool,
    epoch: Option<u16>,
    channels: Channels,
    accounts: Vec<Account>,
    account_of: BTreeMap<(Arc<str>, u64), usize>,
    hashes: HashSet<[u8; 16]>,
    accepted: EventSet,
    open: BTreeMap<u64, Unsettled>,
    dead: BTreeMap<u64, Unsettled>,
    pruned_settled: HashSet<u64>,
    /// What the last checkpoint says is settled below, dead letters considered.
    floor: Option<(u64, Here)>,
    refused: BTreeMap<Arc<str>, u64>,
}

impl Books {
    /// Empty books.
    pub fn new() -> Books {
        Books::default()
    }

    /// The next record of the journal.
    pub fn take(&mut self, located: &Located) {
        let here = Here { event_id: located.event_id, position: located.position };
        self.count_event(here, located.record.events());
        match &located.record {
            Record::Accepted(share) => self.accept(here, share),
            Record::Refused(refusal) => {
                self.refuse(&refusal.reason_code, u64::from(refusal.count));
            }
            Record::Unrecorded { counts } => {
                counts.iter().for_each(|(reason, count)| self.refuse(reason, *count));
            }
            Record::Acknowledged { epoch, shard, channel_key, through, count, work } => {
                self.enter(here, *epoch);
                let told = Sum { count: u64::from(*count), work: work.0 };
                self.acknowledge(here, (*shard, *channel_key), *through, told);
            }
            Record::Attempted(attempt) => self.attempt(here, attempt),
            Record::Settled(settled) => self.settle_all(here, settled),
            Record::DeadLettered { shares, .. } => self.dead_letter(here, shares),
            Record::Replayed { shares } => self.replay(here, shares),
            Record::Told { .. } => (),
            Record::Checkpoint { settled_below, oldest_dead, epoch } => {
                self.enter(here, *epoch);
                self.check_point(here, *settled_below, *oldest_dead);
            }
        }
    }

    /// Bytes were met that are no record, though records lie behind them.
    pub fn take_damage(&mut self, position: Position, why: &str) {
        let here = Here { event_id: self.next_event, position };
        self.fault(FaultKind::Damaged, here, None, why.to_owned(), "a record".to_owned());
    }

    /// The end of the journal: closes every account.
    pub fn finish(mut self) -> Verdict {
        self.check_pruned();
        let channels = std::mem::take(&mut self.channels);
        channels.close(&mut self.accounts);
        for unsettled in self.open.values() {
            self.accounts[unsettled.account].open += Sum::one(unsettled.work);
        }
        for unsettled in self.dead.values() {
            self.accounts[unsettled.account].dead += Sum::one(unsettled.work);
        }
        let mut total = Account::default();
        let mut lines = Vec::with_capacity(self.account_of.len());
        for ((miner_id, hour), index) in std::mem::take(&mut self.account_of) {
            let account = self.accounts[index];
            total += account;
            lines.push(Line { miner_id, hour: UnixTime(hour * HOUR_MILLIS), account });
        }
        lines.sort_by(|a, b| (&a.miner_id, a.hour).cmp(&(&b.miner_id, b.hour)));
        for line in lines.iter().filter(|line| !line.account.is_balanced()) {
            self.unbalanced(line);
        }
        Verdict {
            faults: self.faults,
            faults_total: self.faults_total,
            lines,
            total,
            refused: self.refused,
            records: self.records,
            first_event: self.first_event,
            next_event: self.next_event,
            is_pruned: self.is_pruned,
            settled_of_pruned: self.pruned_settled.len() as u64,
        }
    }

    fn fault(
        &mut self,
        kind: FaultKind,
        here: Here,
        share_id: Option<u128>,
        found: String,
        expected: String,
    ) {
        self.faults_total += 1;
        if self.faults.len() < FAULTS_KEPT {
            let Here { event_id, position } = here;
            self.faults.push(Fault { kind, event_id, position, share_id, found, expected });
        }
    }

    /// The record's events follow those before it. Goes on from the record's own number.
    fn count_event(&mut self, here: Here, events: u64) {
        if self.records == 0 {
            self.first_event = here.event_id;
            self.is_pruned = here.position.segment > 1 && here.event_id > 1;
            self.channels = Channels::new(self.is_pruned);
            self.next_event = if self.is_pruned { here.event_id } else { 1 };
        }
        self.records += 1;
        if here.event_id != self.next_event {
            let (found, expected) = (here.event_id, self.next_event);
            let missing = match found.checked_sub(expected) {
                Some(missing) => format!("{missing} events are missing before it"),
                None => "its number was given before".to_owned(),
            };
            let (found, expected) = (format!("event {found}, {missing}"), expected.to_string());
            self.fault(FaultKind::EventGap, here, None, found, expected);
        }
        self.next_event = here.event_id.saturating_add(events);
    }

    /// A record of this start of the gateway: with a new one, sequences and channels begin anew.
    fn enter(&mut self, here: Here, epoch: u16) {
        if self.epoch == Some(epoch) {
            return;
        }
        if let Some(before) = self.epoch {
            if epoch < before {
                let found = format!("start {epoch} after start {before}");
                self.fault(FaultKind::EpochBack, here, None, found, format!("above {before}"));
            }
            let channels = std::mem::take(&mut self.channels);
            channels.close(&mut self.accounts);
        }
        self.epoch = Some(epoch);
    }

    fn refuse(&mut self, reason: &Arc<str>, count: u64) {
        let refused = self.refused.entry(Arc::clone(reason)).or_default();
        *refused = refused.saturating_add(count);
    }

    fn accept(&mut self, here: Here, share: &Share) {
        self.enter(here, share.epoch);
        let id = Some(share.share_id);
        let expected = self.channels.expect(share.shard, share.sequence);
        if let Some(expected) = expected.filter(|expected| *expected != share.sequence) {
            let found = format!("sequence {} of shard {}", share.sequence, share.shard);
            self.fault(FaultKind::SequenceGap, here, id, found, expected.to_string());
        }
        if share.share_id != name_of(share) {
            let found = format!("hash {} at {} ms", share.share_hash, share.accepted_at.0);
            let expected = format!("share {}", ulid::Ulid(name_of(share)));
            self.fault(FaultKind::ShareIdWrong, here, id, found, expected);
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&share.share_hash.0[..16]);
        if !self.hashes.insert(hash) {
            let found = format!("hash {} again", share.share_hash);
            self.fault(FaultKind::HashTwice, here, id, found, "a hash of its own".to_owned());
        }
        let work = share.work().0;
        let account = self.account(share);
        self.accounts[account].accepted += Sum::one(work);
        let waiting = Waiting { sequence: share.sequence, work, account };
        let is_whole = share.opened_event >= self.first_event && share.opened_event != 0;
        self.channels.accept((share.shard, share.channel_key), is_whole, waiting);
        self.accepted.insert(here.event_id);
        let (share_id, accepted_at) = (share.share_id, share.accepted_at);
        self.open.insert(here.event_id, Unsettled { share_id, accepted_at, work, account });
    }

    /// The account of the share's miner and hour.
    fn account(&mut self, share: &Share) -> usize {
        let key = (Arc::clone(&share.miner_id), share.accepted_at.0 / HOUR_MILLIS);
        let accounts = &mut self.accounts;
        *self.account_of.entry(key).or_insert_with(|| {
            accounts.push(Account::default());
            accounts.len() - 1
        })
    }

    fn acknowledge(&mut self, here: Here, channel: (u8, u64), through: u64, told: Sum) {
        let result = self.channels.acknowledge(channel, through, told, &mut self.accounts);
        if let Err(expected) = result {
            let (shard, key) = channel;
            let found = format!(
                "{} shares with work {} acknowledged through sequence {through} of shard {shard}, \
                 channel {key}",
                told.count, told.work
            );
            self.fault(FaultKind::AcknowledgedWrong, here, None, found, expected);
        }
    }

    fn attempt(&mut self, here: Here, attempt: &Attempt) {
        for event in &attempt.shares {
            if !self.is_known(here, *event) {
                let found = format!("batch {} with event {event}", attempt.batch_id);
                self.fault(FaultKind::AttemptUnknown, here, None, found, ACCEPTED.to_owned());
            }
        }
    }

    /// Whether the event is an accepted share, or one that may be because it is gone.
    fn is_known(&self, here: Here, event: u64) -> bool {
        event < here.event_id && (self.accepted.contains(event) || self.is_gone(event))
    }

    fn is_gone(&self, event: u64) -> bool {
        self.is_pruned && event < self.first_event
    }

    fn settle_all(&mut self, here: Here, settled: &Settled) {
        for (result, event_id) in settled.results.iter().zip(here.event_id..) {
            self.settle(Here { event_id, ..here }, result);
        }
    }

    fn settle(&mut self, here: Here, result: &Settlement) {
        let (event, id) = (result.share_event, Some(result.share_id));
        let found = || format!("{} of event {event}", result.outcome.name());
        let is_dead = self.dead.contains_key(&event);
        let Some(share) = self.open.remove(&event).or_else(|| self.dead.remove(&event)) else {
            if self.is_gone(event) && self.pruned_settled.insert(event) {
                return;
            }
            let (kind, expected) = match self.is_known(here, event) {
                true => (FaultKind::SettledTwice, "one result; this share has one before"),
                false => (FaultKind::SettledUnknown, ACCEPTED),
            };
            return self.fault(kind, here, id, found(), expected.to_owned());
        };
        if share.share_id != result.share_id || share.accepted_at != result.accepted_at {
            let found = format!("{}, accepted at {} ms", found(), result.accepted_at.0);
            let name = ulid::Ulid(share.share_id);
            let expected = format!("share {name}, accepted at {} ms", share.accepted_at.0);
            self.fault(FaultKind::SettlementWrong, here, id, found, expected);
        }
        if result.outcome == Outcome::DeadLettered && !is_dead {
            let expected = "a dead letter: only those are given up".to_owned();
            self.fault(FaultKind::DeadLetterWrong, here, id, found(), expected);
        }
        *self.accounts[share.account].of(result.outcome) += Sum::one(share.work);
    }

    fn dead_letter(&mut self, here: Here, shares: &[u64]) {
        for event in shares {
            match self.open.remove(event) {
                Some(share) => drop(self.dead.insert(*event, share)),
                None if self.is_gone(*event) => (),
                None => {
                    let found = format!("event {event} became a dead letter");
                    let expected = "an accepted share that is open".to_owned();
                    self.fault(FaultKind::DeadLetterWrong, here, None, found, expected);
                }
            }
        }
    }

    fn replay(&mut self, here: Here, shares: &[u64]) {
        for event in shares {
            match self.dead.remove(event) {
                Some(share) => drop(self.open.insert(*event, share)),
                None if self.is_gone(*event) => (),
                None => {
                    let found = format!("event {event} was replayed");
                    let expected = "a dead letter".to_owned();
                    self.fault(FaultKind::DeadLetterWrong, here, None, found, expected);
                }
            }
        }
    }

    /// A start that begins to read where this says sees every share without a result. It may be
    /// repeated from before, so what was a dead letter then can be open now, and the other way.
    fn check_point(&mut self, here: Here, settled_below: u64, oldest_dead: u64) {
        let floor = settled_below.min(oldest_dead);
        self.floor = Some((floor, here));
        let first = |shares: &BTreeMap<u64, Unsettled>| {
            shares.first_key_value().map(|(event, share)| (*event, share.share_id))
        };
        for (event, share_id) in [first(&self.open), first(&self.dead)].into_iter().flatten() {
            if event < floor {
                let found = format!("nothing to be done before event {floor}");
                let expected = format!("at most {event}, which has no result");
                let share_id = Some(share_id);
                self.fault(FaultKind::CheckpointWrong, here, share_id, found, expected);
            }
        }
    }

    /// Segments go only when all their shares have a result.
    fn check_pruned(&mut self) {
        let Some((floor, here)) = self.floor.filter(|_| self.is_pruned) else {
            return;
        };
        if floor < self.first_event {
            let found = format!("the journal begins at event {}", self.first_event);
            let expected = format!("segments kept from event {floor} on, which may be open");
            self.fault(FaultKind::PrunedUnsettled, here, None, found, expected);
        }
    }

    fn unbalanced(&mut self, line: &Line) {
        let here = Here { event_id: self.next_event, position: Position { segment: 0, offset: 0 } };
        let (told, became) = (line.account.told(), line.account.became());
        let found = format!(
            "{} in the hour from {} ms: told or not {} (work {}), settled or not {} (work {})",
            line.miner_id, line.hour.0, told.count, told.work, became.count, became.work
        );
        let accepted = line.account.accepted;
        let expected = format!("{} (work {}), as accepted", accepted.count, accepted.work);
        self.fault(FaultKind::Unbalanced, here, None, found, expected);
    }
}

const ACCEPTED: &str = "a share that was accepted before";

/// The name that a share's time and hash give it (D25).
fn name_of(share: &Share) -> u128 {
    let mut random = [0; 16];
    random[6..].copy_from_slice(&share.share_hash.0[..10]);
    (u128::from(share.accepted_at.0 & 0xffff_ffff_ffff) << 80) | u128::from_be_bytes(random)
}
