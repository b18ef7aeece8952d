//! Starts and ends of the process: killed, without power, or in good order.

use std::sync::Arc;

use gateway::machine::solution::Block;
use work::Mono;

use crate::checkers::Rule;
use crate::faults::{MILLI, Plant, SECOND};
use crate::process::{Disks, Process};
use crate::world::{Core, DAY_MILLIS, End, Event, World};

/// Longest time in which all connections end when the gateway stops, and in which it delivers.
const DRAIN_MICROS: u64 = 3 * SECOND;
const DELIVER_MICROS: u64 = 5 * SECOND;

impl World {
    /// The process starts, with the next epoch, the journal, and the blocks that are on disk.
    pub fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        self.generation += 1;
        self.stats.starts += 1;
        if self.faults.days && self.generation > 1 && self.chance.one_in(2) {
            // It was down for days.
            self.unix_ahead += 2 * DAY_MILLIS;
            self.on_full_template(None);
        }
        let now = self.now();
        let epoch = if self.plant == Some(Plant::EpochReused) { 1 } else { self.generation } as u16;
        let stored = self
            .disk
            .iter()
            .map(|(hash, bytes)| Block::Stored { hash: *hash, bytes: Arc::clone(bytes) });
        let stored: Vec<Block> = stored.collect();
        self.trace.note(now.mono, format_args!("start {epoch}, {} blocks stored", stored.len()));
        let journal = self.open_journal(epoch);
        let disks = Disks { nodes: self.disk_nodes.clone(), stored, journal };
        let process =
            Process::start(now, epoch, &self.faults, &self.authority, disks, &mut self.chance);
        self.process = Some(process);
        self.wakes.clear();
        self.source_lost_at = None;
        self.checker.on_start(self.generation, self.faults.shards);
        self.after(MILLI, Event::LinkConnect(self.generation));
        self.after(2 * MILLI, Event::SourceBack);
        self.wake(Core::Control, 5);
        self.wake(Core::Forwarder, 5);
    }

    /// The process is asked to stop: shards end their connections, then shares are delivered.
    pub fn drain(&mut self) {
        let now = self.now();
        if self.process.is_none() || self.is_draining {
            return;
        }
        self.is_draining = true;
        self.trace.note(now.mono, format_args!("drain"));
        for shard in 0..self.faults.shards {
            self.wake(Core::Shard(shard), 5);
        }
        self.after(100 * MILLI, Event::Drained(self.generation, now.mono));
    }

    /// Whether the process has stopped, as it was asked to at `since`.
    pub fn on_drained(&mut self, since: Mono) {
        let now = self.now();
        let micros = now.mono.micros_since(since);
        let Some(process) = &mut self.process else { return };
        let live: usize = process.shards.iter().map(|shard| shard.shard.live()).sum();
        let is_handed_over = process.shards.iter().all(|shard| {
            shard.entries.is_empty() && shard.solutions.is_empty() && shard.board.is_empty()
        });
        let core = &mut process.forwarder;
        let is_delivered = core.forwarder.unsettled() == 0 && core.forwarder.is_synced();
        self.checker.hold(live == 0 || micros < DRAIN_MICROS, Rule::C9Close, || {
            format!("{live} connections live {micros} us after the gateway was told to stop")
        });
        if (live == 0 && is_handed_over && is_delivered) || micros >= DELIVER_MICROS {
            if core.doing.is_some() {
                return self.crash(End::Stop);
            }
            core.forwarder.end_of_all_intake(now);
            core.forwarder.close();
            core.is_closing = true;
            return self.wake(Core::Forwarder, 5);
        }
        self.after(100 * MILLI, Event::Drained(self.generation, since));
    }

    /// The process is to end: now, or in the middle of the disk's next piece of work.
    pub fn end_soon(&mut self, end: End) {
        match self.chance.one_in(3) {
            true => self.crash(end),
            false => self.end_at_disk = Some(end),
        }
    }

    /// The process ends.
    pub fn crash(&mut self, end: End) {
        let Some(process) = self.process.take() else { return };
        self.is_draining = false;
        let now = self.now();
        self.trace.note(now.mono, format_args!("the process ends: {end:?}"));
        self.leave_disk(&process.forwarder, end);
        self.checker.on_crash();
        for wire in 0..self.pipe_count() {
            self.hang_up(wire);
        }
        let after = self.chance.between(50, 5_000) * MILLI;
        self.after(after, Event::Start);
    }
}
