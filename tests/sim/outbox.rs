//! The forwarder core and its disk, in the order of `src/drive`: space, answers, commands, entries,
//! posts, and one thing for the disk, which the core waits for. And the journal at a start.

use gateway::limits::{ENTRIES_PER_TURN, FREE_SPACE_MILLIS};
use gateway::machine::Report;
use gateway::machine::forwarder::{Found, OpenShare};
use journal::Record;
use journal::recover::{Recovered, recover};
use journal::source::{Found as Next, SegmentReader};
use journal::walk::Walker;
use journal::writer::{DiskAction, DiskFault, RETRY_MILLIS, Writer, WriterSettings};

use crate::checkers::Rule;
use crate::disk::{Disk, Luck};
use crate::faults::{MILLI, Plant, SECOND};
use crate::process::{ForwarderCore, Process};
use crate::world::{Core, End, Event, World};

/// Microseconds of a sync that is to be seen through by a miner.
const SLOW_SYNC_MICROS: u64 = 300 * MILLI;
/// From when on plants about ends of the process strike.
const PLANT_MICROS: u64 = 15 * SECOND;

impl World {
    pub fn forwarder_turn(&mut self, process: &mut Process) -> bool {
        let now = self.now();
        if process.forwarder.doing.is_some() {
            return false;
        }
        if process.forwarder.is_closing {
            if process.forwarder.forwarder.disk_fault().is_some() || !self.write(process) {
                self.after(0, Event::Stopped(self.generation));
            }
            return false;
        }
        let core = &mut process.forwarder;
        if now.mono >= core.look_at {
            core.look_at = now.mono.plus_millis(FREE_SPACE_MILLIS);
            core.forwarder.on_free_space(self.segments.free);
        }
        let mut did = false;
        while let Some((number, posted)) = core.answers.pop_front() {
            core.forwarder.on_posted(now, number, &posted);
            did = true;
        }
        while core.forwarder.takes_commands() {
            let Some(command) = core.commands.pop_front() else { break };
            core.forwarder.on_command(now, &command);
            did = true;
        }
        did |= self.take_entries(process);
        process.forwarder.forwarder.end_of_intake(now);
        while let Some(batch) = process.forwarder.forwarder.next_post(now) {
            did = true;
            let after = self.chance.between(200, 2_000);
            self.after(after, Event::Post(self.generation, batch));
        }
        did |= self.write(process);
        process.forwarder.forwarder.observe(now);
        did
    }

    fn take_entries(&mut self, process: &mut Process) -> bool {
        let now = self.now();
        let core = &mut process.forwarder;
        if !core.forwarder.lets_take(now) {
            return false;
        }
        let mut did = false;
        for _ in 0..ENTRIES_PER_TURN {
            let Some(told) = core.told.pop() else { break };
            core.forwarder.on_told(told);
            did = true;
        }
        let count = process.shards.len();
        core.first = (core.first + 1) % count;
        for step in 0..count {
            let number = (core.first + step) % count;
            let shard = &mut process.shards[number];
            let mut taken = false;
            for _ in 0..ENTRIES_PER_TURN {
                if !core.forwarder.has_room() {
                    break;
                }
                let Some(entry) = shard.entries.pop() else { break };
                self.checker.on_taken(number, &entry);
                core.forwarder.on_entry(now, number, entry);
                taken = true;
            }
            if taken {
                self.wake(Core::Shard(number), 5);
            }
            for _ in 0..ENTRIES_PER_TURN {
                let Some(report) = shard.reports.pop() else { break };
                taken = true;
                let is_refusal = matches!(report, Report::Refused(_));
                if is_refusal && self.may_plant(Plant::ReportLost) {
                    self.has_planted = true;
                    continue;
                }
                core.forwarder.on_report(now, report);
            }
            did |= taken;
        }
        did
    }

    /// One thing for the disk begins; the core waits for it.
    fn write(&mut self, process: &mut Process) -> bool {
        let now = self.now();
        let Some(action) = process.forwarder.forwarder.next_disk(now) else { return false };
        let (mut after, mut luck) = self.segments.begin(&action, &self.faults, &mut self.chance);
        if let DiskAction::Remove { segment } = action {
            self.checker.on_remove(&self.segments, segment);
        }
        if let DiskAction::Sync { .. } = action {
            self.stats.syncs += 1;
            if self.may_plant(Plant::DurableEarly) {
                // Every shard is told that all of its shares are safe; the sync takes its time.
                after = SLOW_SYNC_MICROS;
                for (number, shard) in process.shards.iter_mut().enumerate() {
                    shard.durable = self.checker.ledger.last_taken(self.generation, number);
                    self.wake(Core::Shard(number), 5);
                }
            }
            if self.may_plant(Plant::CutSkipped) && now.mono.0 > PLANT_MICROS {
                // Killed before the sync: what was written can be read, and is not on the platter.
                self.has_planted = true;
                after = SLOW_SYNC_MICROS;
                self.after(after / 2, Event::Crash(End::Kill));
            }
            if self.may_plant(Plant::TailBelieved) && now.mono.0 > PLANT_MICROS {
                self.has_planted = true;
                luck = Luck::Failed(DiskFault::Io(0));
                self.after(after + MILLI, Event::Crash(End::Kill));
            }
        }
        let is_worth_it = matches!(action, DiskAction::Sync { .. }) || self.chance.one_in(4);
        if let Some(end) = self.end_at_disk.take_if(|_| is_worth_it) {
            let at = self.chance.below(after + 300);
            self.after(at, Event::Crash(end));
        }
        process.forwarder.doing = Some((action, luck));
        self.after(after, Event::DiskDone(self.generation));
        true
    }

    /// The disk has done it, or not, and what follows from it for those who wait.
    pub fn on_disk_done(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let now = self.now();
        if let Some((action, luck)) = process.forwarder.doing.take() {
            let is_skipped = matches!(action, DiskAction::Sync { .. })
                && self.plant == Some(Plant::SyncSkipped)
                && now.mono.0 > PLANT_MICROS;
            let done = self.segments.finish(&action, luck, &mut self.chance);
            self.stats.disk_faults += u64::from(luck != Luck::Good);
            if luck == Luck::Good && !is_skipped {
                self.show_disk(&action);
            }
            self.note_disk(&action, luck);
            if matches!(action, DiskAction::Sync { .. }) && luck != Luck::Good {
                self.end_after_failed_sync();
            }
            drop(action);
            process.forwarder.forwarder.on_disk(now, done);
            if !is_skipped {
                self.checker.on_head(process.forwarder.forwarder.head());
            }
            self.publish_durable(&mut process);
        }
        self.process = Some(process);
        self.wake(Core::Forwarder, 5);
    }

    /// What a failed sync leaves can be read and may never reach the platter, whatever is synced
    /// later: a kill before it is written again, and a power cut after that, show who believes it.
    fn end_after_failed_sync(&mut self) {
        if self.faults.ends == 0 || !self.chance.one_in(3) {
            return;
        }
        self.faults.ends -= 1;
        let pause = self.chance.below(RETRY_MILLIS * MILLI);
        self.after(pause, Event::Crash(End::Kill));
        if self.faults.power_cuts {
            let later = self.chance.between(6, 12) * SECOND;
            self.after(later, Event::Crash(End::Power));
        }
    }

    fn show_disk(&mut self, action: &DiskAction) {
        match action {
            DiskAction::Create { segment, .. } => {
                self.stats.segments += 1;
                self.checker.on_created(&self.segments, *segment);
            }
            DiskAction::Sync { segment } => {
                if self.may_plant(Plant::ResultUnread) && self.now().mono.0 > PLANT_MICROS {
                    self.has_planted = true;
                    self.checker.journal.skips_result = true;
                }
                self.checker.on_synced(&self.segments, *segment);
            }
            DiskAction::Remove { .. } => self.stats.removals += 1,
            _ => (),
        }
        if self.may_plant(Plant::OpenRemoved) && self.now().mono.0 > PLANT_MICROS {
            let oldest = self.checker.journal.oldest_open();
            if let Some(segment) = oldest {
                self.checker.on_remove(&self.segments, segment);
            }
        }
    }

    fn note_disk(&mut self, action: &DiskAction, luck: Luck) {
        let at = self.now().mono;
        match action {
            DiskAction::Write { segment, offset, bytes } => {
                let length = bytes.len();
                self.trace.note(at, format_args!("write {segment}:{offset} {length}: {luck:?}"));
            }
            DiskAction::Create { segment, .. } => {
                self.trace.note(at, format_args!("create {segment}: {luck:?}"));
            }
            DiskAction::Seal { segment, length, .. } => {
                self.trace.note(at, format_args!("seal {segment} at {length}: {luck:?}"));
            }
            other => self.trace.note(at, format_args!("{other:?}: {luck:?}")),
        }
    }

    fn publish_durable(&mut self, process: &mut Process) {
        for number in 0..process.shards.len() {
            let durable = process.forwarder.forwarder.durable(number);
            if durable != process.shards[number].durable {
                process.shards[number].durable = durable;
                self.wake(Core::Shard(number), 5);
            }
        }
    }

    /// The journal as the last process left it: read, cut, and what goes on there.
    pub fn open_journal(&mut self, epoch: u16) -> (Writer, Found) {
        let found = recover(&self.segments).unwrap();
        self.checker.on_recovered(&found);
        self.stats.torn_bytes += found.torn_bytes;
        self.stats.reopened += found.open;
        let at = self.now().mono;
        let (next, open, torn) = (found.next_event_id, found.open, found.torn_bytes);
        self.trace.note(at, format_args!("journal goes on at {next}, {open} open, {torn} torn"));
        let (skips, believes) = match self.plant.filter(|_| self.has_planted) {
            Some(Plant::CutSkipped) => (true, false),
            Some(Plant::TailBelieved) => (false, true),
            _ => (false, false),
        };
        if skips || believes {
            self.after(3 * SECOND, Event::Crash(End::Power));
        }
        if let Some(end) = found.end.filter(|_| !skips) {
            self.segments.cut(end, !believes);
        }
        self.checker.on_cut(&self.segments, &found);
        let dead = dead_letters(&self.segments, &found);
        self.checker.hold(dead.len() as u64 == found.dead_total, Rule::C6Settle, || {
            format!("{} of {} dead letters can be read", dead.len(), found.dead_total)
        });
        let settings = WriterSettings {
            segment_bytes: self.faults.segment_bytes,
            group_bytes_max: self.faults.group_bytes,
            unsynced_bytes_max: self.faults.unsynced_bytes,
            ..WriterSettings::new("gw-7")
        };
        let writer = Writer::new(settings, found.start(epoch));
        let is_forgotten = self.plant == Some(Plant::OpenForgotten);
        let has_open = found.open > 0 && !is_forgotten;
        let first_open = has_open.then_some(found.settled_below);
        (writer, Found { first_open, closed: found.closed, dead })
    }

    /// The process is gone, and what the disk had under way with it.
    pub fn leave_disk(&mut self, core: &ForwarderCore, end: End) {
        let is_dirty = self.segments.is_dirty();
        if let Some((action, _)) = &core.doing {
            self.segments.interrupt(action, &mut self.chance);
        }
        self.stats.unsynced_ends += u64::from(is_dirty && end != End::Stop);
        if end == End::Power {
            self.stats.power_cuts += 1;
            self.segments.cut_power(self.plant.is_some(), &mut self.chance);
        }
    }
}

/// The shares of dead letters, from where they were found.
fn dead_letters(disk: &Disk, found: &Recovered) -> Vec<OpenShare> {
    let read = |event: u64, position| {
        let mut reader = SegmentReader::new(disk, Walker::at(position, None));
        match reader.advance().unwrap() {
            Next::Record(located) => match located.record {
                Record::Accepted(share) => Some(OpenShare { event, share }),
                _ => None,
            },
            _ => None,
        }
    };
    let dead = found.dead.iter();
    dead.filter_map(|dead| read(dead.share_event, dead.position?)).collect()
}
