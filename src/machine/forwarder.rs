//! The forwarder: takes accepted shares from the rings, batches, posts, retries, settles.
//!
//! The number of the last share that is safe is published per shard; only then may its miner be
//! told (D3). A share is safe here once it has left the ring for the forwarder's queue.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrayvec::ArrayVec;
use work::contract::shares::BATCH_SHARES_MAX;
use work::{Mono, Now};

use super::output::{ChannelKey, ConnectionId, Entry, ShareRecord};
use crate::limits::{BATCHES_WAITING_MAX, RETRY_FIRST_MILLIS, RETRY_MAX_MILLIS};
use crate::metrics::{Counters, forwarder as counter};

/// What the forwarder is told once.
#[derive(Debug, Clone)]
pub struct ForwarderSettings {
    /// Number of shards.
    pub shards: usize,
    /// Shares that may wait for delivery, in batches or not.
    pub queue_size: usize,
    /// Batches in flight at once.
    pub max_in_flight: usize,
    /// How long a share waits for company.
    pub batch_interval_ms: u64,
    /// Start of every batch's name; unique to this start of this gateway.
    pub batch_prefix: String,
}

/// Whose shares a channel's are.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelName {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its number there.
    pub channel_id: u32,
    /// Who is credited.
    pub miner_id: Arc<str>,
    /// What of its extranonce the miner does not roll.
    pub extranonce_prefix: ArrayVec<u8, 32>,
}

/// A share with its owner.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedShare {
    /// The share.
    pub record: ShareRecord,
    /// Its channel.
    pub channel: Arc<ChannelName>,
    /// The worker behind the miner, if told apart.
    pub worker_id: Option<Arc<str>>,
}

/// What is known of a channel by its key.
#[derive(Debug)]
struct Named {
    channel: Arc<ChannelName>,
    /// Names of its workers; the first has number 1.
    workers: Vec<Arc<str>>,
}

/// Shares that are posted together.
#[derive(Debug, PartialEq)]
pub struct Batch {
    /// Counts batches of this start.
    pub number: u64,
    /// Its name; the same at every attempt.
    pub id: String,
    /// The shares, in the order they came.
    pub shares: Vec<NamedShare>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// A 2xx answer with a result for each share.
    Settled {
        /// Shares that are credited by this batch.
        accepted: u64,
        /// Shares that were credited before.
        duplicate: u64,
        /// Shares that are refused.
        refused: u64,
    },
    /// An answer that settles nothing: its status.
    Status(u16),
    /// No answer.
    Unreachable,
}

#[derive(Debug)]
struct InFlight {
    batch: Arc<Batch>,
    attempts: u32,
    /// When it is posted again; `None` while a sender has it.
    due: Option<Mono>,
}

/// The forwarder machine.
#[derive(Debug)]
pub struct Forwarder {
    settings: ForwarderSettings,
    names: HashMap<ChannelKey, Named>,
    /// Shares in no batch, with the time they came.
    queue: VecDeque<(Mono, NamedShare)>,
    /// How many of them are blocks.
    blocks_queued: usize,
    in_flight: Vec<InFlight>,
    shares_in_flight: usize,
    durable: Vec<u64>,
    next_batch: u64,
    /// The counters.
    pub counters: Counters<{ counter::CELLS }>,
}

impl Forwarder {
    /// A forwarder with nothing to do.
    pub fn new(settings: ForwarderSettings) -> Forwarder {
        Forwarder {
            names: HashMap::new(),
            queue: VecDeque::with_capacity(settings.queue_size),
            blocks_queued: 0,
            in_flight: Vec::new(),
            shares_in_flight: 0,
            durable: vec![0; settings.shards],
            next_batch: 1,
            counters: Counters::default(),
            settings,
        }
    }

    /// Whether another entry may be taken from a ring.
    pub fn has_room(&self) -> bool {
        self.queue.len() + self.shares_in_flight < self.settings.queue_size
    }

    /// An entry of a shard, in order. A share of a channel that was never named is a defect of
    /// ours: names go ahead on the same ring.
    pub fn on_entry(&mut self, now: Now, shard: usize, entry: Entry) {
        match entry {
            Entry::Opened { channel, connection, channel_id, miner_id, extranonce_prefix } => {
                let name = ChannelName { connection, channel_id, miner_id, extranonce_prefix };
                let named = Named { channel: Arc::new(name), workers: Vec::new() };
                self.names.insert(channel, named);
            }
            Entry::Closed { channel } => {
                self.names.remove(&channel);
            }
            Entry::Share(record) => self.on_share(now, shard, record),
            Entry::ShareOfNewWorker { record, worker_id } => {
                if let Some(named) = self.names.get_mut(&record.channel) {
                    named.workers.push(worker_id);
                }
                self.on_share(now, shard, record);
            }
        }
        self.counters.set(counter::NAMES, self.names.len() as u64);
    }

    fn on_share(&mut self, now: Now, shard: usize, record: ShareRecord) {
        let Some(named) = self.names.get(&record.channel) else { panic_unnamed(&record) };
        let worker = (record.worker as usize).checked_sub(1);
        let share = NamedShare {
            record,
            channel: Arc::clone(&named.channel),
            worker_id: worker.and_then(|at| named.workers.get(at)).cloned(),
        };
        self.durable[shard] = record.sequence;
        self.counters.add(counter::SHARES, 1);
        self.blocks_queued += usize::from(record.block_found);
        self.queue.push_back((now.mono, share));
    }

    /// The last share of `shard` that is safe; 0 before the first.
    pub fn durable(&self, shard: usize) -> u64 {
        self.durable.get(shard).copied().unwrap_or(0)
    }

    /// The next batch to post now, if one is due and may go.
    pub fn next_post(&mut self, now: Now) -> Option<Arc<Batch>> {
        let sending = self.in_flight.iter().filter(|flight| flight.due.is_none()).count();
        if sending >= self.settings.max_in_flight {
            return None;
        }
        let due = self.in_flight.iter_mut().find(|f| f.due.is_some_and(|at| at <= now.mono));
        if let Some(flight) = due {
            flight.due = None;
            return Some(Arc::clone(&flight.batch));
        }
        if self.in_flight.len() >= self.settings.max_in_flight.min(BATCHES_WAITING_MAX) {
            return None;
        }
        let shares = self.take_due(now)?;
        self.shares_in_flight += shares.len();
        let number = self.next_batch;
        self.next_batch += 1;
        let id = format!("{}{number:012x}", self.settings.batch_prefix);
        let batch = Arc::new(Batch { number, id, shares });
        self.in_flight.push(InFlight { batch: Arc::clone(&batch), attempts: 0, due: None });
        Some(batch)
    }

    /// An attempt is over.
    pub fn on_posted(&mut self, now: Now, number: u64, posted: &Posted) {
        let Some(at) = self.in_flight.iter().position(|f| f.batch.number == number) else { return };
        match posted {
            Posted::Settled { accepted, duplicate, refused } => {
                self.counters.add(counter::POSTS_2XX, 1);
                self.counters.add(counter::DELIVERED, *accepted);
                self.counters.add(counter::DUPLICATE, *duplicate);
                self.counters.add(counter::REFUSED, *refused);
                let flight = self.in_flight.swap_remove(at);
                self.shares_in_flight -= flight.batch.shares.len();
                return;
            }
            Posted::Status(status) => {
                let cell = match status {
                    200..300 => counter::POSTS_2XX,
                    500.. => counter::POSTS_5XX,
                    _ => counter::POSTS_4XX,
                };
                self.counters.add(cell, 1);
            }
            Posted::Unreachable => self.counters.add(counter::POSTS_IO, 1),
        }
        self.counters.add(counter::RETRIES, 1);
        let flight = &mut self.in_flight[at];
        flight.attempts += 1;
        flight.due = Some(now.mono.plus_millis(backoff_millis(number, flight.attempts)));
    }

    /// When [`Forwarder::next_post`] may have something.
    pub fn deadline(&self) -> Option<Mono> {
        let sending = self.in_flight.iter().filter(|flight| flight.due.is_none()).count();
        if sending >= self.settings.max_in_flight {
            return None;
        }
        let retry = self.in_flight.iter().filter_map(|flight| flight.due).min();
        let is_full = self.in_flight.len() >= self.settings.max_in_flight.min(BATCHES_WAITING_MAX);
        let queued = self.queue.front().filter(|_| !is_full);
        let queued = queued.map(|(at, _)| at.plus_millis(self.settings.batch_interval_ms));
        [retry, queued].into_iter().flatten().min()
    }

    /// Shares that are not settled.
    pub fn unsettled(&self) -> usize {
        self.queue.len() + self.shares_in_flight
    }

    /// Bring the gauges up to date.
    pub fn observe(&mut self, now: Now) {
        let oldest = self.queue.front().map_or(0, |(at, _)| now.mono.micros_since(*at) / 1_000);
        self.counters.set(counter::QUEUE, self.unsettled() as u64);
        self.counters.set(counter::IN_FLIGHT, self.in_flight.len() as u64);
        self.counters.set(counter::OLDEST_MILLIS, oldest);
    }

    /// A block goes alone and at once; other shares when the oldest has waited long enough, or
    /// there are enough of them.
    fn take_due(&mut self, now: Now) -> Option<Vec<NamedShare>> {
        let (first_at, _) = self.queue.front()?;
        let is_old = now.mono >= first_at.plus_millis(self.settings.batch_interval_ms);
        if self.blocks_queued > 0 {
            self.blocks_queued -= 1;
            let at = self.queue.iter().position(|(_, share)| share.record.block_found)?;
            return self.queue.remove(at).map(|(_, share)| vec![share]);
        }
        if !is_old && self.queue.len() < BATCH_SHARES_MAX {
            return None;
        }
        let count = self.queue.len().min(BATCH_SHARES_MAX);
        Some(self.queue.drain(..count).map(|(_, share)| share).collect())
    }
}

/// Names travel ahead of shares on the same ring, so this cannot happen; if it does, going on
/// would credit somebody else.
#[allow(clippy::panic)]
fn panic_unnamed(record: &ShareRecord) -> ! {
    panic!("share {} of channel {:?} came before its name", record.sequence, record.channel)
}

/// Full jitter, from the batch's own number: machines have no entropy.
fn backoff_millis(number: u64, attempts: u32) -> u64 {
    let ceiling = (RETRY_FIRST_MILLIS << attempts.min(20)).min(RETRY_MAX_MILLIS);
    let mixed = (number ^ u64::from(attempts).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RETRY_FIRST_MILLIS / 2 + mixed % ceiling
}
