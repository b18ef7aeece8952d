//! The forwarder core: takes entries from the shards' rings, publishes the durable numbers, hands
//! batches to the sender threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::Sender as Queue;
use crossbeam::queue::ArrayQueue;
use rg_ring::{Bell, Receiver, Sequence};
use work::Mono;

use super::clock::Clock;
use super::wait;
use crate::limits::ENTRIES_PER_TURN;
use crate::machine::Entry;
use crate::machine::forwarder::{Batch, Forwarder, Posted};
use crate::metrics::{Block, forwarder as counter};

/// What became of a batch: its number and the answer.
pub type Answer = (u64, Posted);

/// One shard as the forwarder sees it.
pub struct ShardEnd {
    /// Its entries.
    pub entries: Receiver<Entry>,
    /// Its durable number.
    pub durable: Sequence,
    /// Wakes it.
    pub bell: Bell,
}

/// What connects the forwarder to the rest.
pub struct ForwarderPorts {
    /// The shards.
    pub shards: Vec<ShardEnd>,
    /// To the sender threads.
    pub batches: Queue<Arc<Batch>>,
    /// From the sender threads.
    pub answers: Arc<ArrayQueue<Answer>>,
    /// Wakes this core.
    pub bell: Bell,
    /// What others see.
    pub block: Arc<Block<{ counter::CELLS }>>,
    /// All shards have ended: deliver what is left, then end.
    pub stop: Arc<AtomicBool>,
    /// How long to deliver after that, milliseconds.
    pub drain_millis: u64,
}

struct Driver {
    forwarder: Forwarder,
    ports: ForwarderPorts,
    clock: Clock,
    stop_at: Option<Mono>,
    /// Shard that is looked at first this turn.
    first: usize,
}

/// Run the forwarder on this thread's executor until it is told to stop and has delivered.
pub async fn run(forwarder: Forwarder, ports: ForwarderPorts, clock: Clock) {
    let mut driver = Driver { forwarder, ports, clock, stop_at: None, first: 0 };
    loop {
        driver.ports.bell.awake();
        if driver.turn() {
            continue;
        }
        if driver.is_done() {
            return;
        }
        driver.ports.bell.prepare_sleep();
        if driver.turn() {
            continue;
        }
        let deadline = [driver.forwarder.deadline(), driver.stop_at].into_iter().flatten().min();
        wait::sleep(&driver.ports.bell, driver.clock.now(), deadline);
    }
}

impl Driver {
    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        let mut did = false;
        while let Some((number, posted)) = self.ports.answers.pop() {
            self.forwarder.on_posted(now, number, &posted);
            did = true;
        }
        // Another shard is first each turn: none takes all the room of a slow backend.
        let count = self.ports.shards.len();
        self.first = (self.first + 1) % count.max(1);
        for step in 0..count {
            let number = (self.first + step) % count;
            let shard = &mut self.ports.shards[number];
            let mut taken = false;
            for _ in 0..ENTRIES_PER_TURN {
                if !self.forwarder.has_room() {
                    break;
                }
                let Some(entry) = shard.entries.pop() else { break };
                self.forwarder.on_entry(now, number, entry);
                taken = true;
            }
            if taken {
                // The shard has something to acknowledge, or room again.
                shard.durable.publish(self.forwarder.durable(number));
                shard.bell.ring();
                did = true;
            }
        }
        while let Some(batch) = self.forwarder.next_post(now) {
            // The machine keeps fewer in flight than the queue holds.
            let sent = self.ports.batches.try_send(batch);
            assert!(sent.is_ok(), "the queue of batches had no room within max_in_flight");
            did = true;
        }
        if self.stop_at.is_none() && self.ports.stop.load(Ordering::Relaxed) {
            self.stop_at = Some(now.mono.plus_millis(self.ports.drain_millis));
        }
        self.forwarder.observe(now);
        self.ports.block.publish(&self.forwarder.counters);
        did
    }

    fn is_done(&self) -> bool {
        let Some(stop_at) = self.stop_at else { return false };
        let is_empty = self.ports.shards.iter().all(|shard| shard.entries.is_empty());
        (is_empty && self.forwarder.unsettled() == 0) || self.clock.now().mono >= stop_at
    }
}
