//! Miners that remember exactly which of their shares they were told are accepted, over any number
//! of lost connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use work::BlockHash;

use super::client::{Channel, Client, Heard, Share};
use super::{PATIENCE, Stack};

/// Shares of one channel: a channel that goes on so fast would be given a higher difficulty.
const SHARES_PER_CHANNEL: u32 = 200;

/// Channels of one connection.
const CHANNELS_PER_CONNECTION: u32 = 8;

/// Shares that are submitted at once.
const BURST: usize = 8;

/// Shares that may be without an answer before a miner becomes slower.
const PENDING_MAX: usize = 64;

/// Time between two bursts of one miner.
const PAUSE: Duration = Duration::from_millis(10);

/// The same while too many shares are without an answer.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// Time between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// What all of them remember.
#[derive(Debug)]
pub struct Memory {
    /// Shares that they were told are accepted.
    pub accepted: BTreeMap<BlockHash, Share>,
    /// Shares whose connection ended before anything was said to them.
    pub unanswered: Vec<Share>,
    /// Shares that were refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Microseconds from a share to its acknowledgement.
    pub latencies: Histogram<u64>,
    /// Nobody wants to know any more.
    is_abandoned: bool,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            accepted: BTreeMap::new(),
            unanswered: Vec::new(),
            refused: BTreeMap::new(),
            latencies: Histogram::new(3).unwrap(),
            is_abandoned: false,
        }
    }
}

impl Memory {
    /// The longest time from a share to its acknowledgement since the last
    /// [`Memory::forget_latencies`].
    pub fn slowest(&self) -> Duration {
        Duration::from_micros(self.latencies.max())
    }

    /// Measure anew.
    pub fn forget_latencies(&mut self) {
        self.latencies.reset();
    }
}

/// Some miners, each on a thread; they end when this is dropped.
pub struct Witnesses {
    memory: Arc<Mutex<Memory>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Where they mine.
#[derive(Clone)]
struct Place {
    address: String,
    authority: String,
    exponent: u32,
}

impl Witnesses {
    /// `count` miners whose channels ask for shares of 2^(32 - `exponent`) hashes, if the stack's
    /// channels aim at [`super::SHARES_PER_MINUTE`].
    pub fn start(stack: &Stack, count: usize, exponent: u32) -> Witnesses {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let place = Place {
            address: stack.gateway.address("listen_addr"),
            authority: stack.gateway.address("authority_pubkey"),
            exponent,
        };
        let start = |number| {
            let (memory, is_over) = (Arc::clone(&memory), Arc::clone(&is_over));
            let place = place.clone();
            let name = format!("witness-{number}");
            std::thread::spawn(move || mine(&place, &name, &memory, &is_over))
        };
        let threads = (0..count).map(start).collect();
        Witnesses { memory, is_over, threads }
    }

    /// What they remember.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Shares that they were told are accepted.
    pub fn told(&self) -> usize {
        self.memory().accepted.len()
    }

    /// They stop, hear the answers to all that they have submitted, and leave; what they remember.
    pub fn leave(mut self) -> Memory {
        self.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        std::mem::take(&mut self.memory())
    }
}

impl Drop for Witnesses {
    fn drop(&mut self) {
        self.memory().is_abandoned = true;
        self.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A thread that failed has said so.
            let _ = thread.join();
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mine(place: &Place, name: &str, memory: &Mutex<Memory>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        match Client::try_connect(&place.address, &place.authority) {
            Ok(client) => {
                let mut miner = Miner { client, memory, pending: BTreeMap::new() };
                for number in 0..CHANNELS_PER_CONNECTION {
                    let is_done = miner.client.is_closed() || is_over.load(Ordering::SeqCst);
                    if is_done || miner.work(name, place.exponent, number, is_over).is_none() {
                        break;
                    }
                }
                miner.finish();
            }
            Err(_) => std::thread::park_timeout(CONNECT_PAUSE),
        }
    }
}

/// A connection.
struct Miner<'a> {
    client: Client,
    memory: &'a Mutex<Memory>,
    /// Submitted and not answered, by sequence number.
    pending: BTreeMap<u32, (Share, Instant)>,
}

impl Miner<'_> {
    /// Open a channel and submit its shares; `None` if the connection ended.
    fn work(&mut self, name: &str, exponent: u32, number: u32, is_over: &AtomicBool) -> Option<()> {
        self.client.ask_to_open(&format!("{name}.{number}"), exponent);
        let channel_id = self.hear_until(|heard, _| match heard {
            Heard::Opened(channel_id) => Some(*channel_id),
            _ => None,
        })?;
        if self.channel(channel_id).active.is_none() {
            self.hear_until(|_, client| client.channels[&channel_id].active.map(drop))?;
        }
        let (work, target) = (self.client.work(channel_id), self.channel(channel_id).target);
        let mut nonce = 0;
        let mut submitted = 0;
        while submitted < SHARES_PER_CHANNEL && !is_over.load(Ordering::SeqCst) {
            for _ in 0..BURST {
                let share = work.grind(nonce, |hash| target.is_met_by(hash));
                nonce = share.claim.nonce + 1;
                let sequence_number = self.client.submit(&share);
                self.pending.insert(sequence_number, (share, Instant::now()));
                submitted += 1;
            }
            let now = Instant::now();
            let is_soon = |pending: usize| pending <= PENDING_MAX && now.elapsed() >= PAUSE;
            while now.elapsed() < LONG_PAUSE && !is_soon(self.pending.len()) {
                self.hear(PAUSE);
                if self.client.is_closed() {
                    return None;
                }
            }
        }
        Some(())
    }

    fn channel(&self, channel_id: u32) -> &Channel {
        &self.client.channels[&channel_id]
    }

    fn hear_until<T>(&mut self, mut pick: impl FnMut(&Heard, &Client) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        while !self.client.is_closed() && Instant::now() < deadline {
            if let Some(heard) = self.hear(PAUSE)
                && let Some(picked) = pick(&heard, &self.client)
            {
                return Some(picked);
            }
        }
        None
    }

    /// Take in one message, if one comes.
    fn hear(&mut self, patience: Duration) -> Option<Heard> {
        let heard = self.client.next(patience)?;
        match &heard {
            Heard::Accepted { last_sequence_number, count } => {
                self.note_accepted(*last_sequence_number, *count);
            }
            Heard::Rejected { sequence_number, code } => {
                self.pending.remove(sequence_number).expect("an answer to no share");
                *lock(self.memory).refused.entry(code.clone()).or_default() += 1;
            }
            _ => {}
        }
        Some(heard)
    }

    /// All of this channel up to that number are accepted, and so many were pending.
    fn note_accepted(&mut self, last: u32, count: u32) {
        let (share, _) = self.pending.get(&last).expect("an acknowledgement of no share");
        let channel_id = share.channel_id;
        let up_to = self.pending.range(..=last);
        let told: Vec<u32> = up_to
            .filter(|(_, (share, _))| share.channel_id == channel_id)
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(told.len(), usize::try_from(count).unwrap(), "the count is not exact");
        let mut memory = lock(self.memory);
        for number in told {
            let (share, since) = self.pending.remove(&number).unwrap();
            memory.latencies.record(u64::try_from(since.elapsed().as_micros()).unwrap()).unwrap();
            assert!(memory.accepted.insert(share.hash, share).is_none(), "accepted twice");
        }
    }

    /// Hear the rest of the answers.
    fn finish(mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.pending.is_empty() && !self.client.is_closed() {
            if lock(self.memory).is_abandoned {
                return;
            }
            self.hear(PAUSE);
            assert!(Instant::now() < deadline, "{} shares without an answer", self.pending.len());
        }
        let unanswered = self.pending.into_values().map(|(share, _)| share);
        lock(self.memory).unanswered.extend(unanswered);
    }
}
