//! The forwarder core: takes entries from the shards' rings, has them written, publishes the
//! durable numbers, hands batches to the sender threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::Sender as Queue;
use crossbeam::queue::ArrayQueue;
use rg_ring::{Bell, Receiver, Sequence};
use work::{Mono, Now};

use super::clock::Clock;
use super::disk::Disk;
use super::wait;
use crate::limits::{ENTRIES_PER_TURN, FREE_SPACE_MILLIS};
use crate::machine::command::Command;
use crate::machine::forwarder::{Batch, Forwarder, Posted};
use crate::machine::told::Told;
use crate::machine::{Entry, Report};
use crate::metrics::{Block, forwarder as counter};

/// What became of a batch: its number and the answer.
pub type Answer = (u64, Posted);

/// One shard as the forwarder sees it.
pub struct ShardEnd {
    /// Its entries.
    pub entries: Receiver<Entry>,
    /// What it tells beside them.
    pub reports: Receiver<Report>,
    /// Its durable number.
    pub durable: Sequence,
    /// Wakes it.
    pub bell: Bell,
}

/// What connects the forwarder to the rest.
pub struct ForwarderPorts {
    /// The shards.
    pub shards: Vec<ShardEnd>,
    /// Events of control.
    pub told: Receiver<Told>,
    /// Decisions of operators.
    pub commands: Arc<ArrayQueue<Command>>,
    /// To the sender threads.
    pub batches: Queue<Arc<Batch>>,
    /// From the sender threads.
    pub answers: Arc<ArrayQueue<Answer>>,
    /// Wakes this core.
    pub bell: Bell,
    /// Events below this one may be shown.
    pub head: Sequence,
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
    disk: Disk,
    clock: Clock,
    stop_at: Option<Mono>,
    /// Shard that is looked at first this turn.
    first: usize,
    /// When the free space is looked at again.
    look_at: Mono,
}

/// Run the forwarder on this thread's executor until it is told to stop and has delivered.
pub async fn run(forwarder: Forwarder, ports: ForwarderPorts, disk: Disk, clock: Clock) {
    let mut driver =
        Driver { forwarder, ports, disk, clock, stop_at: None, first: 0, look_at: Mono::default() };
    loop {
        driver.ports.bell.awake();
        if driver.turn() {
            continue;
        }
        if driver.is_done() {
            return driver.close();
        }
        driver.ports.bell.prepare_sleep();
        if driver.turn() {
            continue;
        }
        let look_at = Some(driver.look_at);
        let deadlines = [driver.forwarder.deadline(), driver.stop_at, look_at];
        let deadline = deadlines.into_iter().flatten().min();
        wait::sleep(&driver.ports.bell, driver.clock.now(), deadline);
    }
}

impl Driver {
    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        self.look_at_space(now);
        let mut did = self.take_answers(now);
        did |= self.take_entries(now);
        self.forwarder.end_of_intake(now);
        did |= self.post(now);
        if self.stop_at.is_none() && self.ports.stop.load(Ordering::Relaxed) {
            self.stop_at = Some(now.mono.plus_millis(self.ports.drain_millis));
        }
        did |= self.write(now);
        self.forwarder.observe(self.clock.now());
        self.ports.block.publish(&self.forwarder.counters);
        did
    }

    fn look_at_space(&mut self, now: Now) {
        if now.mono < self.look_at {
            return;
        }
        self.look_at = now.mono.plus_millis(FREE_SPACE_MILLIS);
        if let Some(bytes) = self.disk.free_bytes() {
            self.forwarder.on_free_space(bytes);
        }
    }

    fn take_answers(&mut self, now: Now) -> bool {
        let mut did = false;
        while let Some((number, posted)) = self.ports.answers.pop() {
            self.forwarder.on_posted(now, number, &posted);
            did = true;
        }
        while self.forwarder.takes_commands() {
            let Some(command) = self.ports.commands.pop() else { break };
            self.forwarder.on_command(now, &command);
            did = true;
        }
        did
    }

    fn take_entries(&mut self, now: Now) -> bool {
        if !self.forwarder.lets_take(now) {
            return false;
        }
        let mut did = false;
        // What shards say of a channel may name an event of control, which came earlier.
        for _ in 0..ENTRIES_PER_TURN {
            if !self.forwarder.has_room() {
                break;
            }
            let Some(told) = self.ports.told.pop() else { break };
            self.forwarder.on_told(told);
            did = true;
        }
        // Another shard is first each turn: none takes all the room of a slow disk.
        let count = self.ports.shards.len();
        self.first = (self.first + 1) % count.max(1);
        for step in 0..count {
            let number = (self.first + step) % count;
            did |= self.take_from(now, number);
        }
        did
    }

    fn take_from(&mut self, now: Now, number: usize) -> bool {
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
            // The shard has room again.
            shard.bell.ring();
        }
        for _ in 0..ENTRIES_PER_TURN {
            if !self.forwarder.has_room() {
                break;
            }
            let Some(report) = shard.reports.pop() else { break };
            self.forwarder.on_report(now, report);
            taken = true;
        }
        taken
    }

    fn post(&mut self, now: Now) -> bool {
        let mut did = false;
        while let Some(batch) = self.forwarder.next_post(now) {
            // The machine keeps fewer in flight than the queue holds.
            let sent = self.ports.batches.try_send(batch);
            assert!(sent.is_ok(), "the queue of batches had no room within max_in_flight");
            did = true;
        }
        did
    }

    /// One thing for the disk, and what follows from it for those who wait.
    fn write(&mut self, now: Now) -> bool {
        let Some(action) = self.forwarder.next_disk(now) else { return false };
        // Others see that it hangs, while this core waits for it.
        self.forwarder.counters.set(counter::DISK_BUSY_SINCE, now.unix.0);
        self.ports.block.publish(&self.forwarder.counters);
        let done = self.disk.perform(action);
        self.forwarder.counters.set(counter::DISK_BUSY_SINCE, 0);
        if let Some(sync) = self.disk.take_sync() {
            let micros = u64::try_from(sync.as_micros()).unwrap_or(u64::MAX);
            self.forwarder.counters.record(counter::SYNC, micros);
        }
        self.forwarder.on_disk(self.clock.now(), done);
        self.ports.head.publish(self.forwarder.head());
        for (number, shard) in self.ports.shards.iter().enumerate() {
            let durable = self.forwarder.durable(number);
            if durable != shard.durable.read() {
                shard.durable.publish(durable);
                // It has something to acknowledge.
                shard.bell.ring();
            }
        }
        true
    }

    /// Complete the last segment, unless the disk does not do it.
    fn close(&mut self) {
        self.forwarder.end_of_all_intake(self.clock.now());
        self.forwarder.close();
        while self.forwarder.disk_fault().is_none() && self.write(self.clock.now()) {}
        self.ports.block.publish(&self.forwarder.counters);
    }

    fn is_done(&self) -> bool {
        let Some(stop_at) = self.stop_at else { return false };
        let is_empty = self.ports.shards.iter().all(|shard| shard.entries.is_empty());
        let is_delivered = is_empty && self.forwarder.unsettled() == 0;
        (is_delivered && self.forwarder.is_synced()) || self.clock.now().mono >= stop_at
    }
}
