//! Dead letters: shares that the backend refuses to take, until an operator decides.

use std::collections::BTreeMap;

use super::flights::OpenShare;
use crate::limits::DEAD_LETTERS_MAX;

/// All of them, by the event of their acceptance.
#[derive(Debug, Default)]
pub struct DeadLetters(BTreeMap<u64, OpenShare>);

impl DeadLetters {
    /// Those that an earlier start left.
    pub fn new(shares: Vec<OpenShare>) -> DeadLetters {
        DeadLetters(shares.into_iter().map(|open| (open.event, open)).collect())
    }

    /// Whether so many more fit.
    pub fn has_room(&self, count: usize) -> bool {
        self.0.len() + count <= DEAD_LETTERS_MAX
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Event of the oldest; `u64::MAX` without any.
    pub fn oldest(&self) -> u64 {
        self.0.keys().next().copied().unwrap_or(u64::MAX)
    }

    /// These are dead letters from now on.
    pub fn add(&mut self, shares: &[OpenShare]) {
        self.0.extend(shares.iter().map(|open| (open.event, open.clone())));
    }

    /// Take these out; those that are none are left out.
    pub fn take(&mut self, events: &[u64]) -> Vec<OpenShare> {
        events.iter().filter_map(|event| self.0.remove(event)).collect()
    }

    /// The oldest, at most so many.
    pub fn oldest_events(&self, most: usize) -> Vec<u64> {
        self.0.keys().take(most).copied().collect()
    }
}
