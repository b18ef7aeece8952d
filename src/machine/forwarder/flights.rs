//! Batches on their way: posted, waiting to be posted again, or cut in halves.

use std::collections::VecDeque;
use std::sync::Arc;

use journal::Share;
use work::Mono;

use crate::limits::{BATCHES_WAITING_MAX, RETRY_FIRST_MILLIS};

/// A share that is not settled.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenShare {
    /// Event of its acceptance.
    pub event: u64,
    /// The share.
    pub share: Share,
}

/// Shares that are posted together.
#[derive(Debug, PartialEq)]
pub struct Batch {
    /// Counts batches of this start.
    pub number: u64,
    /// Its name; the same at every attempt.
    pub id: Arc<str>,
    /// The shares, in the order they came.
    pub shares: Vec<OpenShare>,
}

/// One batch on its way.
#[derive(Debug)]
pub struct Flight {
    /// The batch.
    pub batch: Arc<Batch>,
    /// Attempts that are over.
    pub attempts: u32,
    /// When it is posted again; `None` while a sender has it.
    due: Option<Mono>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Flights {
    flights: Vec<Flight>,
    /// Halves of batches that were refused as a whole, the next to be posted first.
    halves: VecDeque<Vec<OpenShare>>,
    /// Shares in both.
    shares: usize,
}

impl Flights {
    /// Batches that a sender has.
    pub fn sending(&self) -> usize {
        self.flights.iter().filter(|flight| flight.due.is_none()).count()
    }

    /// Batches on their way.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Shares in them, and in halves.
    pub fn shares(&self) -> usize {
        self.shares
    }

    /// Whether a new batch may be made.
    pub fn has_room(&self, max_in_flight: usize) -> bool {
        self.flights.len() < max_in_flight.min(BATCHES_WAITING_MAX)
    }

    /// A batch that is due to be posted again; a block's first.
    pub fn take_due(&mut self, now: Mono) -> Option<Arc<Batch>> {
        let is_due = |flight: &&mut Flight| flight.due.is_some_and(|at| at <= now);
        let is_later = |flight: &&mut Flight| !flight.batch.has_block();
        let flight = self.flights.iter_mut().filter(is_due).min_by_key(is_later)?;
        flight.due = None;
        Some(Arc::clone(&flight.batch))
    }

    /// The backend is there again: none waits any longer.
    pub fn hurry(&mut self, now: Mono) {
        self.flights.iter_mut().filter_map(|flight| flight.due.as_mut()).for_each(|due| {
            *due = now.min(*due);
        });
    }

    /// When the next one is due again.
    pub fn deadline(&self) -> Option<Mono> {
        self.flights.iter().filter_map(|flight| flight.due).min()
    }

    /// Halves that wait.
    pub fn take_half(&mut self) -> Option<Vec<OpenShare>> {
        let half = self.halves.pop_front()?;
        self.shares -= half.len();
        Some(half)
    }

    /// These go next, together.
    pub fn put_half(&mut self, shares: Vec<OpenShare>) {
        if !shares.is_empty() {
            self.shares += shares.len();
            self.halves.push_front(shares);
        }
    }

    /// A sender gets this batch now.
    pub fn start(&mut self, batch: Arc<Batch>) {
        self.shares += batch.shares.len();
        self.flights.push(Flight { batch, attempts: 0, due: None });
    }

    /// An attempt of this batch is over; its flight, taken out.
    pub fn take(&mut self, number: u64) -> Option<Flight> {
        let at = self.flights.iter().position(|flight| flight.batch.number == number)?;
        let mut flight = self.flights.swap_remove(at);
        self.shares -= flight.batch.shares.len();
        flight.attempts += 1;
        Some(flight)
    }

    /// Post it again at `due`.
    pub fn put_back(&mut self, mut flight: Flight, due: Mono) {
        self.shares += flight.batch.shares.len();
        flight.due = Some(due);
        self.flights.push(flight);
    }

    /// Post its halves next, the first one first.
    pub fn split(&mut self, batch: &Batch) {
        let (first, second) = batch.shares.split_at(batch.shares.len() / 2);
        self.put_half(second.to_vec());
        self.put_half(first.to_vec());
    }

    /// Event of the oldest share in any of them.
    pub fn oldest(&self) -> Option<u64> {
        let batches = self.flights.iter().map(|flight| &flight.batch.shares);
        batches.chain(&self.halves).flatten().map(|open| open.event).min()
    }
}

impl Batch {
    /// Whether a share of it is a block.
    pub fn has_block(&self) -> bool {
        self.shares.iter().any(|open| open.share.block_found)
    }

    /// Events of its shares, in order.
    pub fn events(&self) -> Vec<u64> {
        self.shares.iter().map(|open| open.event).collect()
    }
}

/// Full jitter, from the batch's own number: machines have no entropy.
pub fn backoff_millis(seed: u64, attempts: u32, most: u64) -> u64 {
    let ceiling = (RETRY_FIRST_MILLIS << attempts.min(20)).min(most.max(1));
    let mixed = (seed ^ u64::from(attempts).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RETRY_FIRST_MILLIS / 2 + (mixed >> 16) % ceiling
}

#[cfg(test)]
pub mod tests {
    use arrayvec::ArrayVec;
    use work::{BlockHash, Difficulty, TemplateId, UnixTime};

    use super::*;

    /// An open share, told apart by its event.
    pub fn open(event: u64, block_found: bool) -> OpenShare {
        let share = Share {
            share_id: u128::from(event),
            share_hash: BlockHash::default(),
            epoch: 1,
            shard: 0,
            sequence: event,
            connection_id: 1,
            channel_key: 1,
            channel_id: 1,
            opened_event: 0,
            verdict_event: 0,
            accepted_at: UnixTime(0),
            latency_micros: 0,
            sequence_number: 0,
            job_id: 1,
            template_id: TemplateId(1),
            height: 1,
            prev_hash: BlockHash::default(),
            nbits: 0x1d00_ffff,
            version: 0x2000_0000,
            ntime: 0,
            nonce: 0,
            extranonce: ArrayVec::new(),
            coinbase_value: 0,
            fees: 0,
            difficulty: Difficulty::ONE,
            block_found,
            coinbase_txid: None,
            hold: false,
            miner_id: Arc::from("miner"),
            worker_id: None,
        };
        OpenShare { event, share }
    }

    fn batch(number: u64, events: std::ops::Range<u64>) -> Arc<Batch> {
        let shares = events.map(|event| open(event, false)).collect();
        Arc::new(Batch { number, id: Arc::from("bat"), shares })
    }

    #[test]
    fn halves_go_in_order_and_are_counted() {
        let mut flights = Flights::default();
        flights.start(batch(1, 1..8));
        flights.start(batch(2, 8..9));
        assert_eq!((flights.sending(), flights.shares(), flights.oldest()), (2, 8, Some(1)));
        let flight = flights.take(1).unwrap();
        assert_eq!(flight.attempts, 1);
        flights.split(&flight.batch);
        assert_eq!((flights.len(), flights.shares()), (1, 8));
        let events = |half: Option<Vec<OpenShare>>| {
            half.unwrap().iter().map(|open| open.event).collect::<Vec<_>>()
        };
        assert_eq!(events(flights.take_half()), [1, 2, 3]);
        assert_eq!(flights.oldest(), Some(4));
        assert_eq!(events(flights.take_half()), [4, 5, 6, 7]);
        assert!(flights.take_half().is_none() && flights.take(1).is_none());
        assert_eq!((flights.shares(), flights.oldest()), (1, Some(8)));
    }

    #[test]
    fn a_batch_waits_until_it_is_due_or_the_backend_is_there() {
        let mut flights = Flights::default();
        flights.start(batch(1, 1..2));
        let flight = flights.take(1).unwrap();
        flights.put_back(flight, Mono(500));
        assert!(flights.take_due(Mono(499)).is_none());
        assert_eq!(flights.deadline(), Some(Mono(500)));
        flights.hurry(Mono(20));
        assert_eq!(flights.take_due(Mono(20)).unwrap().number, 1);
        assert_eq!((flights.sending(), flights.deadline()), (1, None));
    }

    #[test]
    fn the_wait_grows_and_is_bounded() {
        for attempts in 1..40 {
            for seed in 0..50 {
                let millis = backoff_millis(seed, attempts, 3_000);
                assert!((50..=3_050).contains(&millis), "{millis}");
            }
        }
        let first: Vec<u64> = (0..50).map(|seed| backoff_millis(seed, 1, 30_000)).collect();
        assert!(first.iter().all(|millis| *millis < 50 + 200));
        assert!(first.iter().any(|millis| *millis != first[0]), "jitter");
    }
}
