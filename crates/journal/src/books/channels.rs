//! What each channel was told, against what was accepted on it.

use std::collections::{BTreeMap, VecDeque};

use super::account::{Account, Sum};

/// An accepted share that its channel has not been told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub sequence: u64,
    pub work: u128,
    pub account: usize,
}

#[derive(Debug, Default)]
struct Channel {
    waiting: VecDeque<Waiting>,
    /// Shares of it may lie before the first record that is left.
    may_have_more: bool,
}

/// The channels of one start of the gateway.
#[derive(Debug, Default)]
pub(super) struct Channels {
    channels: BTreeMap<(u8, u64), Channel>,
    /// The next sequence of each shard.
    next: BTreeMap<u8, u64>,
    /// This start began before the first record that is left.
    is_cut: bool,
}

impl Channels {
    pub fn new(is_cut: bool) -> Channels {
        Channels { is_cut, ..Channels::default() }
    }

    /// The sequence that the shard's next share should have; `None` if any will do. The one after
    /// `sequence` is expected from now on.
    pub fn expect(&mut self, shard: u8, sequence: u64) -> Option<u64> {
        let first = if self.is_cut { None } else { Some(1) };
        self.next.insert(shard, sequence.saturating_add(1)).or(first)
    }

    /// A share was accepted; `is_whole`: its channel was opened after the first record left.
    pub fn accept(&mut self, key: (u8, u64), is_whole: bool, waiting: Waiting) {
        let may_have_more = self.is_cut && !is_whole;
        let new = || Channel { may_have_more, ..Channel::default() };
        self.channels.entry(key).or_insert_with(new).waiting.push_back(waiting);
    }

    /// Takes the shares that are told by this acknowledgement into their accounts.
    ///
    /// # Errors
    /// What was expected, if it is for other shares than it says.
    pub fn acknowledge(
        &mut self,
        key: (u8, u64),
        through: u64,
        told: Sum,
        accounts: &mut [Account],
    ) -> Result<(), String> {
        let may_have_more = self.is_cut;
        let new = || Channel { may_have_more, ..Channel::default() };
        let channel = self.channels.entry(key).or_insert_with(new);
        let (mut sum, mut last) = (Sum::default(), None);
        while let Some(waiting) = channel.waiting.front().copied() {
            if waiting.sequence > through {
                break;
            }
            channel.waiting.pop_front();
            sum += Sum::one(waiting.work);
            last = Some(waiting.sequence);
            if let Some(account) = accounts.get_mut(waiting.account) {
                account.acknowledged += Sum::one(waiting.work);
            }
        }
        let may_have_more = channel.may_have_more;
        // From the first share on that is left, nothing is missing.
        channel.may_have_more &= sum.count == 0;
        if channel.waiting.is_empty() && !self.is_cut {
            self.channels.remove(&key);
        }
        if may_have_more {
            // The first acknowledgements that are left may be for shares that are not.
            let is_enough = told.count >= sum.count && told.work >= sum.work;
            return is_enough.then_some(()).ok_or_else(|| expectation(sum, "at least "));
        }
        if last.is_some_and(|last| last != through) {
            return Err(format!("{} through {}", expectation(sum, ""), last.unwrap_or(0)));
        }
        (told == sum).then_some(()).ok_or_else(|| expectation(sum, ""))
    }

    /// Every share that is still waiting was never told.
    pub fn close(self, accounts: &mut [Account]) {
        for waiting in self.channels.into_values().flat_map(|channel| channel.waiting) {
            if let Some(account) = accounts.get_mut(waiting.account) {
                account.unacknowledged += Sum::one(waiting.work);
            }
        }
    }
}

fn expectation(sum: Sum, how: &str) -> String {
    format!("{how}{} shares with work {}, as accepted on this channel", sum.count, sum.work)
}
