//! Power cuts (every write and sync of a run is recorded, and the run is cut behind each): what was
//! durable is found, byte for byte, and nothing that never was appended; and what a start learns
//! from it is what a reader of the whole log would say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;

use std::collections::BTreeSet;

use journal::record::{Outcome, Record, Settled, Settlement};
use journal::recover::{Recovered, recover};
use journal::source::{Found, SegmentReader, Segments};
use journal::walk::Walker;
use journal::writer::{DiskAction, Writer, WriterSettings};
use model::{Disk, Faults, Files, Op, Random, share, told};
use work::{Mono, UnixTime};

/// Shares that are open and that are dead, as the forwarder knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Books {
    open: BTreeSet<u64>,
    dead: BTreeSet<u64>,
}

impl Books {
    fn take(&mut self, event_id: u64, record: &Record) {
        match record {
            Record::Accepted(_) => {
                self.open.insert(event_id);
            }
            Record::Settled(settled) => {
                for result in &settled.results {
                    self.open.remove(&result.share_event);
                    self.dead.remove(&result.share_event);
                }
            }
            Record::DeadLettered { shares, .. } => {
                for share in shares {
                    self.open.remove(share);
                    self.dead.insert(*share);
                }
            }
            Record::Replayed { shares } => {
                for share in shares {
                    self.dead.remove(share);
                    self.open.insert(*share);
                }
            }
            _ => (),
        }
    }

    fn checkpoint(&self, next_event_id: u64, epoch: u16) -> Record {
        Record::Checkpoint {
            settled_below: self.open.first().copied().unwrap_or(next_event_id),
            oldest_dead: self.dead.first().copied().unwrap_or(u64::MAX),
            epoch,
        }
    }

    /// Something that can happen to these shares.
    fn next(&self, next_event_id: u64, epoch: u16, random: &mut Random) -> Record {
        let some = |set: &BTreeSet<u64>, random: &mut Random| -> Vec<u64> {
            let count = 1 + random.below(6) as usize;
            let skip = random.below(3) as usize;
            set.iter().copied().skip(skip).take(count).collect()
        };
        match random.below(12) {
            0 | 1 if !self.open.is_empty() => settled(&some(&self.open, random)),
            2 if !self.open.is_empty() => Record::DeadLettered {
                batch_id: "b".into(),
                status: 422,
                error_detail: "no".into(),
                shares: some(&self.open, random),
            },
            3 if !self.dead.is_empty() => Record::Replayed { shares: some(&self.dead, random) },
            4 if !self.dead.is_empty() => settled(&some(&self.dead, random)),
            5 => told("{\"a\":1}"),
            6 => self.checkpoint(next_event_id, epoch),
            _ => Record::Accepted(share(next_event_id, random.below(200) as usize)),
        }
    }
}

fn settled(shares: &[u64]) -> Record {
    let result = |share_event: &u64| Settlement {
        share_event: *share_event,
        share_id: 1,
        accepted_at: UnixTime(2),
        outcome: Outcome::Delivered,
        error_detail: "".into(),
    };
    let results = shares.iter().map(result).collect();
    Record::Settled(Settled {
        batch_id: "b".into(),
        status: 200,
        attempts: 1,
        rtt_micros: 1,
        results,
    })
}

/// A gateway's log over several starts, and what is known to be durable behind every operation.
struct Run {
    disk: Disk,
    /// Everything but checkpoints.
    appended: Vec<(u64, Record)>,
    /// Per operation of the disk: every event below is durable.
    durable: Vec<u64>,
    books: Books,
    now: Mono,
}

impl Run {
    fn new(seed: u64, faults: Faults) -> Run {
        Run {
            disk: Disk::new(seed, faults),
            appended: Vec::new(),
            durable: vec![1],
            books: Books::default(),
            now: Mono(0),
        }
    }

    /// A start that appends `count` records and is not ended.
    fn live(&mut self, epoch: u16, count: u64, random: &mut Random) {
        let recovered = recover(&self.disk.files).unwrap();
        self.cut_tail(&recovered);
        let settings = WriterSettings {
            segment_bytes: 6 << 10,
            group_bytes_max: 1_500,
            ..WriterSettings::new("rack-1")
        };
        let mut writer = Writer::new(settings, recovered.start(epoch));
        for _ in 0..count {
            let record = self.books.next(writer.next_event_id(), epoch, random);
            let event_id = writer.append(UnixTime(event_time(&writer)), &record);
            self.books.take(event_id, &record);
            if !matches!(record, Record::Checkpoint { .. }) {
                self.appended.push((event_id, record));
            }
            for _ in 0..random.below(4) {
                self.turn(&mut writer);
            }
        }
    }

    /// What a start does first.
    fn cut_tail(&mut self, recovered: &Recovered) {
        let durable = *self.durable.last().unwrap();
        if let Some(end) = recovered.end {
            let ops = [
                Op::Cut { segment: end.segment, length: end.offset },
                Op::Sync { segment: end.segment },
            ];
            for op in ops {
                self.disk.files.apply(&op);
                self.disk.ops.push(op);
                self.durable.push(durable);
            }
        }
        *self.durable.last_mut().unwrap() = recovered.next_event_id;
    }

    fn turn(&mut self, writer: &mut Writer) {
        let before = writer.durable_event_id();
        match writer.next_action(self.now) {
            Some(action) => {
                let is_sync = matches!(action, DiskAction::Sync { .. });
                let done = self.disk.perform(action);
                writer.on_done(self.now, done);
                self.durable.resize(self.disk.ops.len() + 1, before);
                if is_sync {
                    *self.durable.last_mut().unwrap() = writer.durable_event_id();
                }
            }
            None => self.now = writer.deadline().unwrap_or(self.now),
        }
    }

    /// Checks what is left of the log after its first `count` operations, and says how much that
    /// is: the records and the bytes that were torn.
    fn check(&self, count: usize, left: &Files) -> (usize, u64) {
        let recovered = recover(left).unwrap();
        assert_eq!(recovered.damages, [], "nothing is damaged by a cut");
        let kept = cut(left, &recovered);
        let (records, damages) = kept.read_all();
        assert_eq!(damages, []);
        let read: Vec<(u64, Record)> = records
            .iter()
            .filter(|located| !matches!(located.record, Record::Checkpoint { .. }))
            .map(|located| (located.event_id, located.record.clone()))
            .collect();
        assert!(read.len() <= self.appended.len() && read == self.appended[..read.len()]);
        let durable = self.durable[count];
        let lost = self.appended[read.len()..].iter().find(|(event_id, record)| {
            *event_id < durable && event_id + record.events() <= durable
        });
        assert_eq!(lost, None, "below {durable}, {} were read", read.len());
        let next = read.last().map_or(1, |(event_id, record)| event_id + record.events());
        assert_eq!(recovered.next_event_id, next);
        self.check_books(&recovered, &read, &kept);
        (read.len(), recovered.torn_bytes)
    }

    fn check_books(&self, recovered: &Recovered, read: &[(u64, Record)], kept: &Files) {
        let mut books = Books::default();
        for (event_id, record) in read {
            books.take(*event_id, record);
        }
        assert_eq!(recovered.open, books.open.len() as u64);
        let first = books.open.first().copied();
        assert_eq!(recovered.first_open.map(|(event_id, _)| event_id), first);
        assert_eq!(recovered.settled_below, first.unwrap_or(recovered.next_event_id));
        for event_id in recovered.settled_below..recovered.next_event_id {
            let is_closed = recovered.closed.contains(event_id);
            assert_ne!(is_closed, books.open.contains(&event_id), "event {event_id}");
        }
        let dead: Vec<u64> = recovered.dead.iter().map(|dead| dead.share_event).collect();
        assert!(dead.iter().eq(&books.dead), "{dead:?} {:?}", books.dead);
        assert_eq!(recovered.dead_total, books.dead.len() as u64);
        let dead = recovered.dead.iter().map(|dead| (dead.share_event, dead.position.unwrap()));
        for (event_id, position) in dead.chain(recovered.first_open) {
            let mut reader = SegmentReader::new(kept, Walker::at(position, None));
            let Found::Record(located) = reader.advance().unwrap() else { panic!("no record") };
            assert_eq!((located.event_id, located.position), (event_id, position));
            assert!(matches!(located.record, Record::Accepted(_)));
        }
    }
}

fn event_time(writer: &Writer) -> u64 {
    1_700_000_000_000 + writer.next_event_id()
}

/// What a start leaves of the files.
fn cut(left: &Files, recovered: &Recovered) -> Files {
    let mut kept = left.clone();
    kept.0.retain(|number, _| *number < recovered.next_segment);
    if let Some(end) = recovered.end {
        kept.apply(&Op::Cut { segment: end.segment, length: end.offset });
    }
    kept
}

const OFTEN: Faults = Faults { create: 4, short: 6, write: 9, space: 6, sync: 6, seal: 3 };

#[test]
fn a_cut_behind_every_operation_loses_nothing_that_was_durable() {
    let (mut cuts, mut torn, mut unsynced) = (0, 0, 0);
    for (seed, faults) in [(1, Faults::default()), (2, OFTEN), (3, OFTEN)] {
        let mut random = Random(seed);
        let mut run = Run::new(seed, faults);
        run.live(1, 250, &mut random);
        assert!(run.disk.files.numbers().unwrap().len() > 5);
        for count in 0..=run.disk.ops.len() {
            for _ in 0..3 {
                let left = run.disk.power_cut(count, &mut random);
                let (read, torn_bytes) = run.check(count, &left);
                cuts += 1;
                torn += u64::from(torn_bytes > 0);
                let durable = run.durable[count];
                unsynced += u64::from(read > 0 && run.appended[read - 1].0 >= durable);
            }
        }
    }
    assert!(cuts > 1_000 && torn > 100 && unsynced > 100, "{cuts} {torn} {unsynced}");
}

#[test]
fn starts_after_cuts_go_on_without_a_gap() {
    let mut kept = 0;
    for seed in 0..40 {
        let mut random = Random(seed ^ 0xc0de);
        let faults = if seed % 2 == 0 { OFTEN } else { Faults::default() };
        let mut run = Run::new(seed, faults);
        for epoch in 1..8 {
            let begun = run.disk.ops.len();
            run.live(epoch, 60, &mut random);
            // A kill leaves what was written, a power cut only what was synced.
            let all = run.disk.ops.len();
            let count = begun + random.below((all - begun) as u64 + 1) as usize;
            let left = if random.one_in(3) {
                let mut left = Files::default();
                run.disk.ops[..count].iter().for_each(|op| left.apply(op));
                left
            } else {
                run.disk.power_cut(count, &mut random)
            };
            let (read, _) = run.check(count, &left);
            // The world goes on from there.
            run.appended.truncate(read);
            run.books = Books::default();
            for (event_id, record) in &run.appended {
                run.books.take(*event_id, record);
            }
            run.settle_history(count, left);
            kept += read;
        }
    }
    assert!(kept > 20_000, "{kept}");
}

impl Run {
    /// What is left is all there is: the operations that made it are over.
    fn settle_history(&mut self, count: usize, left: Files) {
        let durable = self.durable[count];
        self.disk.ops.clear();
        for (segment, content) in &left.0 {
            let bytes = std::sync::Arc::new(content.bytes.clone());
            self.disk.ops.extend([
                Op::Make { segment: *segment, bytes: content.length },
                Op::Write { segment: *segment, offset: 0, bytes },
                Op::Sync { segment: *segment },
            ]);
        }
        self.durable = vec![durable; self.disk.ops.len() + 1];
        self.disk.files = left;
    }
}
