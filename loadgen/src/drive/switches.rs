//! Block switches as one thread sees them.

use std::sync::Mutex;

use hdrhistogram::CreationError;
use work::{BlockHash, Mono};

use super::lock;
use super::seat::Seat;
use crate::report::{Latencies, SWITCH_WINDOW_MS, Tally, TipBoard};

/// Tips whose window is open at once; a chain that is faster closes the oldest early.
const OPEN_TIPS_MAX: usize = 8;

struct OpenTip {
    number: u64,
    prev_hash: BlockHash,
    first: Mono,
    spread: Latencies,
}

/// Tips whose window has not passed.
pub struct Switches {
    open: Vec<OpenTip>,
    /// An empty histogram to start each tip with.
    empty: Latencies,
}

impl Switches {
    pub fn new() -> Result<Switches, CreationError> {
        let empty = Latencies::with_max(SWITCH_WINDOW_MS * 1_000)?;
        Ok(Switches { open: Vec::new(), empty })
    }

    /// A miner that was mining already has been given `prev_hash`.
    pub fn on_switch(
        &mut self,
        seat: &mut Seat,
        prev_hash: BlockHash,
        at: Mono,
        board: &Mutex<TipBoard>,
        tally: &mut Tally,
    ) {
        if seat.prev_hash == prev_hash {
            return; // The same parent again, with another job: nothing was switched.
        }
        seat.prev_hash = prev_hash;
        let is_open = |tip: &OpenTip| {
            let is_within = at.micros_since(tip.first) <= SWITCH_WINDOW_MS * 1_000;
            tip.prev_hash == prev_hash && is_within
        };
        if !self.open.iter().any(is_open) {
            let (number, first) = lock(board).first_seen(prev_hash, at);
            let spread = self.empty.clone();
            self.open.push(OpenTip { number, prev_hash, first, spread });
        }
        if let Some(tip) = self.open.iter_mut().rev().find(|tip| tip.prev_hash == prev_hash) {
            let micros = at.micros_since(tip.first);
            tip.spread.record(micros);
            tally.switch.record(micros);
            seat.tip_number = tip.number;
        }
    }

    /// Gives up the tips whose window has passed, and counts the miners that missed them.
    /// With `all`, the others too, without counting.
    pub fn close(
        &mut self,
        seats: &[Seat],
        now: Mono,
        board: &Mutex<TipBoard>,
        tally: &mut Tally,
        all: bool,
    ) {
        let window = SWITCH_WINDOW_MS * 1_000;
        let is_crowded = self.open.len() > OPEN_TIPS_MAX;
        let has_passed = |tip: &OpenTip| now.micros_since(tip.first) > window;
        let mut index = 0;
        for tip in self.open.extract_if(.., |tip| {
            index += 1;
            has_passed(tip) || all || (is_crowded && index == 1)
        }) {
            let missed = if has_passed(&tip) { missed(seats, &tip) } else { 0 };
            tally.switches_missed += missed;
            lock(board).close(tip.number, &tip.spread, missed);
        }
    }
}

/// Miners that had work before the first miner switched, are still connected, and have been given
/// neither this tip nor a later one.
fn missed(seats: &[Seat], tip: &OpenTip) -> u64 {
    let has_missed = |seat: &&Seat| {
        let was_working = seat.working_since.is_some_and(|since| since < tip.first);
        was_working && seat.tip_number < tip.number && seat.prev_hash != tip.prev_hash
    };
    seats.iter().filter(has_missed).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miner::{Miner, MinerConfig};

    const A: BlockHash = BlockHash([1; 32]);
    const B: BlockHash = BlockHash([2; 32]);

    fn seats() -> Vec<Seat> {
        let mut seats: Vec<Seat> =
            (0..4).map(|seed| Seat::new(Miner::new(MinerConfig::default(), seed))).collect();
        for seat in &mut seats {
            seat.working_since = Some(Mono(1));
            seat.prev_hash = A;
        }
        seats
    }

    /// Goal: the spread counts from the first, and only a connected miner that had work and was
    /// given no tip has missed one.
    #[test]
    fn spread_and_missed() {
        let (mut switches, mut tally) = (Switches::new().unwrap(), Tally::new().unwrap());
        let board = Mutex::new(TipBoard::default());
        let mut seats = seats();
        switches.on_switch(&mut seats[0], B, Mono(1_000), &board, &mut tally);
        switches.on_switch(&mut seats[1], B, Mono(1_400), &board, &mut tally);
        switches.on_switch(&mut seats[1], B, Mono(9_000), &board, &mut tally);
        seats[2].working_since = Some(Mono(1_200));
        let window = SWITCH_WINDOW_MS * 1_000;
        switches.close(&seats, Mono(window), &board, &mut tally, false);
        assert!(lock(&board).spreads().is_empty());
        switches.close(&seats, Mono(window + 1_001), &board, &mut tally, false);
        let spreads = lock(&board).spreads();
        assert_eq!((spreads[0].miners, spreads[0].missed), (2, 1));
        assert_eq!(spreads[0].max_micros, 400);
        assert_eq!((tally.switches_missed, tally.switch.count()), (1, 2));
    }

    #[test]
    fn at_the_end_an_open_window_counts_nobody() {
        let (mut switches, mut tally) = (Switches::new().unwrap(), Tally::new().unwrap());
        let board = Mutex::new(TipBoard::default());
        let mut seats = seats();
        switches.on_switch(&mut seats[0], B, Mono(1_000), &board, &mut tally);
        switches.close(&seats, Mono(2_000), &board, &mut tally, true);
        let spreads = lock(&board).spreads();
        assert_eq!((spreads[0].miners, spreads[0].missed, tally.switches_missed), (1, 0, 0));
    }
}
