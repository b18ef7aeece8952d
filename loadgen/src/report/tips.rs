//! Block switches: from the first miner of this process that is given a tip to every other one.
//!
//! The board is shared by the threads of a run. A thread asks it once a tip, for the moment of the
//! first miner, and gives back its own part when the window has passed.

use std::collections::VecDeque;

use serde::Serialize;
use work::{BlockHash, Mono};

use super::latencies::Latencies;

/// Milliseconds within which every miner has to follow the first one.
pub const SWITCH_WINDOW_MS: u64 = 5_000;

/// Tips of which the spread is kept, newest last.
pub const TIPS_KEPT: usize = 64;

/// One tip as the miners of this process switched to it.
#[derive(Debug, Clone)]
pub struct TipRecord {
    /// Number of the tip in this run, from 1.
    pub number: u64,
    /// The parent that is mined on.
    pub prev_hash: BlockHash,
    /// When the first miner switched.
    pub first: Mono,
    /// From there to each miner's switch; `None` until a thread has given its part.
    pub spread: Option<Latencies>,
    /// Miners that did not follow within the window.
    pub missed: u64,
}

/// A tip of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TipSpread {
    /// The parent, as `bitcoin-cli` prints it.
    pub prev_hash: BlockHash,
    /// Microseconds from the start of the run to the first miner's switch.
    pub at_micros: u64,
    /// Miners that switched.
    pub miners: u64,
    /// Miners that did not within the window.
    pub missed: u64,
    /// Half of the miners had switched by then, microseconds after the first.
    pub p50_micros: u64,
    /// 95 %.
    pub p95_micros: u64,
    /// 99 %.
    pub p99_micros: u64,
    /// All of them.
    pub max_micros: u64,
}

/// The tips of a run.
#[derive(Debug, Default)]
pub struct TipBoard {
    tips: VecDeque<TipRecord>,
    total: u64,
}

impl TipBoard {
    /// A thread's first miner has switched to `prev_hash`. Returns the tip's number and when the
    /// first miner of all did. The same parent after the window is another switch (A → B → A).
    pub fn first_seen(&mut self, prev_hash: BlockHash, at: Mono) -> (u64, Mono) {
        let is_same = |tip: &&mut TipRecord| {
            let is_open = at.micros_since(tip.first) <= SWITCH_WINDOW_MS * 1_000;
            tip.prev_hash == prev_hash && is_open
        };
        if let Some(tip) = self.tips.iter_mut().rev().find(is_same) {
            // Threads may come to the lock in another order than their miners switched; the
            // earliest counts from here on, and the error of the others is that short race.
            tip.first = tip.first.min(at);
            return (tip.number, tip.first);
        }
        if self.tips.len() == TIPS_KEPT {
            self.tips.pop_front();
        }
        self.total += 1;
        let number = self.total;
        self.tips.push_back(TipRecord { number, prev_hash, first: at, spread: None, missed: 0 });
        (number, at)
    }

    /// A thread's part of a tip whose window has passed.
    pub fn close(&mut self, number: u64, spread: &Latencies, missed: u64) {
        let Some(tip) = self.tips.iter_mut().find(|tip| tip.number == number) else { return };
        tip.missed += missed;
        match &mut tip.spread {
            Some(known) => known.merge(spread),
            None => tip.spread = Some(spread.clone()),
        }
    }

    /// Tips so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The kept tips of which at least one thread has given its part, oldest first.
    pub fn spreads(&self) -> Vec<TipSpread> {
        let spread_of = |tip: &TipRecord| {
            let percentiles = tip.spread.as_ref()?.percentiles();
            Some(TipSpread {
                prev_hash: tip.prev_hash,
                at_micros: tip.first.0,
                miners: percentiles.count,
                missed: tip.missed,
                p50_micros: percentiles.p50,
                p95_micros: percentiles.p95,
                p99_micros: percentiles.p99,
                max_micros: percentiles.max,
            })
        };
        self.tips.iter().filter_map(spread_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BlockHash = BlockHash([1; 32]);
    const B: BlockHash = BlockHash([2; 32]);

    #[test]
    fn threads_share_a_tip_and_its_first_moment() {
        let mut board = TipBoard::default();
        assert_eq!(board.first_seen(A, Mono(100)), (1, Mono(100)));
        assert_eq!(board.first_seen(A, Mono(90)), (1, Mono(90)));
        assert_eq!(board.first_seen(B, Mono(200)), (2, Mono(200)));
        assert_eq!(board.first_seen(A, Mono(300)), (1, Mono(90)));
        let later = Mono(100 + SWITCH_WINDOW_MS * 1_000);
        assert_eq!(board.first_seen(A, later), (3, later));

        let mut spread = Latencies::with_max(SWITCH_WINDOW_MS * 1_000).unwrap();
        spread.record(7);
        board.close(1, &spread, 2);
        spread.record(9);
        board.close(1, &spread, 1);
        let spreads = board.spreads();
        assert_eq!(spreads.len(), 1);
        assert_eq!((spreads[0].miners, spreads[0].missed, spreads[0].max_micros), (3, 3, 9));
    }

    #[test]
    fn old_tips_go() {
        let mut board = TipBoard::default();
        for number in 0..(TIPS_KEPT as u64 + 3) {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            board.first_seen(BlockHash(hash), Mono(number));
        }
        let spread = Latencies::with_max(10).unwrap();
        board.close(1, &spread, 0);
        assert_eq!((board.spreads().len(), board.total()), (0, TIPS_KEPT as u64 + 3));
    }
}
