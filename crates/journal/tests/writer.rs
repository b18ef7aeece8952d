//! The writer on a disk that fails in every way: nothing is lost, nothing is there twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;

use journal::index;
use journal::record::Record;
use journal::recover::recover;
use journal::writer::{
    DiskAction, DiskDone, DiskFault, RETRY_MILLIS, Start, Writer, WriterSettings,
};
use model::{Disk, Faults, Files, Random, share, told};
use work::{Mono, UnixTime};

fn settings() -> WriterSettings {
    WriterSettings {
        segment_bytes: 16 << 10,
        group_bytes_max: 2 << 10,
        unsynced_bytes_max: 8 << 10,
        ..WriterSettings::new("rack-1")
    }
}

fn start() -> Start {
    recover(&Files::default()).unwrap().start(1)
}

/// Runs until nothing is left to be done; the clock goes on where the writer waits.
fn settle(writer: &mut Writer, disk: &mut Disk, now: &mut Mono) {
    for _ in 0..10_000 {
        match writer.next_action(*now) {
            Some(action) => {
                let done = disk.perform(action);
                writer.on_done(*now, done);
            }
            None => match writer.deadline() {
                Some(at) => *now = at,
                None => return,
            },
        }
    }
    panic!("it never comes to rest: {writer:?}");
}

fn is_own(record: &Record) -> bool {
    !matches!(record, Record::Checkpoint { .. })
}

#[test]
fn what_is_appended_is_read_in_the_same_order_with_whatever_fails() {
    let often = Faults { create: 3, short: 5, write: 7, space: 3, sync: 5, seal: 2 };
    let mut wholes = 0;
    for seed in 0..60 {
        let faults = if seed == 0 { Faults::default() } else { often };
        let mut disk = Disk::new(seed, faults);
        let mut writer = Writer::new(settings(), start());
        let (mut random, mut now, mut appended) = (Random(!seed), Mono(0), Vec::new());
        for sequence in 0..200u64 {
            let record = match random.below(4) {
                0 => told("{}"),
                1 => Record::Replayed { shares: vec![sequence; random.below(80) as usize] },
                2 => Record::Checkpoint { settled_below: 0, oldest_dead: 0, epoch: 1 },
                _ => Record::Accepted(share(sequence, random.below(255) as usize)),
            };
            let event_id = writer.append(UnixTime(sequence), &record);
            if is_own(&record) {
                appended.push((event_id, record));
            }
            if random.one_in(4) {
                settle(&mut writer, &mut disk, &mut now);
                assert_eq!(writer.durable_event_id(), writer.next_event_id());
            }
        }
        writer.close();
        settle(&mut writer, &mut disk, &mut now);
        assert!(writer.is_idle() && writer.fault().is_none() && writer.unsynced_bytes() == 0);
        let (records, damages) = disk.files.read_all();
        assert_eq!(damages, [], "seed {seed}");
        let read: Vec<(u64, Record)> = records
            .into_iter()
            .filter(|located| is_own(&located.record))
            .map(|located| (located.event_id, located.record))
            .collect();
        assert!(read == appended, "seed {seed}: {} of {}", read.len(), appended.len());
        let sealed: Vec<u64> = writer.sealed().map(|sealed| sealed.segment).collect();
        assert_eq!(sealed, disk.files.0.keys().copied().collect::<Vec<_>>());
        for sealed in writer.sealed() {
            wholes += u64::from(disk.files.0[&sealed.segment].length == sealed.bytes);
        }
    }
    assert!(wholes > 100, "{wholes} segments were cut to their length");
}

#[test]
fn a_failed_sync_is_never_tried_again_on_the_same_file() {
    let mut disk = Disk::new(0, Faults::default());
    let mut writer = Writer::new(settings(), start());
    let now = Mono(0);
    writer.append(UnixTime(1), &told("1"));
    settle(&mut writer, &mut disk, &mut Mono(0));
    writer.append(UnixTime(2), &told("2"));
    let write = writer.next_action(now).unwrap();
    assert!(matches!(write, DiskAction::Write { segment: 1, .. }));
    let done = disk.perform(write);
    writer.on_done(now, done);
    assert_eq!(writer.next_action(now), Some(DiskAction::Sync { segment: 1 }));
    writer.on_done(now, DiskDone::Failed(DiskFault::Io(5)));
    assert_eq!(writer.fault(), Some(DiskFault::Io(5)));
    assert_eq!(writer.next_action(now), None, "it pauses");
    let now = now.plus_millis(RETRY_MILLIS);
    assert_eq!(writer.deadline(), Some(now));
    let mut syncs = Vec::new();
    while let Some(action) = writer.next_action(now) {
        if let DiskAction::Sync { segment } = action {
            syncs.push(segment);
        }
        let done = disk.perform(action);
        writer.on_done(now, done);
    }
    assert_eq!(syncs, [2]);
    assert_eq!((writer.durable_event_id(), writer.fault()), (3, None));
    assert_eq!(writer.counts().failed_syncs, 1);
}

#[test]
fn a_full_disk_is_waited_for_and_reads_go_on() {
    let mut disk = Disk::new(0, Faults::default());
    let wide = WriterSettings { segment_bytes: 64 << 10, ..settings() };
    let mut writer = Writer::new(wide, start());
    let mut now = Mono(0);
    writer.append(UnixTime(1), &Record::Replayed { shares: vec![7; 7_000] });
    settle(&mut writer, &mut disk, &mut now);
    // The next does not fit into the rest of the segment.
    writer.append(UnixTime(2), &Record::Replayed { shares: vec![7; 2_000] });
    let mut reserved = Vec::new();
    for _ in 0..40 {
        match writer.next_action(now) {
            Some(DiskAction::Create { bytes, .. }) => {
                reserved.push(bytes);
                writer.on_done(now, DiskDone::Failed(DiskFault::NoSpace));
                assert!(writer.read(Default::default(), 1));
                let read = writer.next_action(now);
                assert!(matches!(read, Some(DiskAction::Read { .. })), "in the pause: {read:?}");
                writer.on_done(now, DiskDone::Read(vec![1]));
                assert_eq!(writer.take_read(), Some((Default::default(), Ok(vec![1]))));
            }
            Some(action) => {
                let done = disk.perform(action);
                writer.on_done(now, done);
            }
            None => now = writer.deadline().unwrap(),
        }
    }
    assert_eq!((writer.fault(), writer.durable_event_id()), (Some(DiskFault::NoSpace), 2));
    assert!(reserved.is_sorted_by(|a, b| a >= b) && reserved[0] >= 2 * reserved[5]);
    assert!(!writer.has_room() && writer.unsynced_bytes() > 16_000);
    settle(&mut writer, &mut disk, &mut now);
    assert_eq!((writer.fault(), writer.durable_event_id()), (None, 3));
    assert!(writer.has_room());
}

#[test]
fn segments_begin_with_the_checkpoint_before_them_and_have_an_index() {
    let mut disk = Disk::new(0, Faults::default());
    let roomy = WriterSettings { segment_bytes: 2 << 20, ..WriterSettings::new("rack-1") };
    let mut writer = Writer::new(roomy, start());
    let mut now = Mono(0);
    for sequence in 1..=20_000 {
        writer.append(UnixTime(sequence), &Record::Accepted(share(sequence, 8)));
        if sequence % 100 == 0 {
            let settled_below = writer.next_event_id() - 50;
            let checkpoint = Record::Checkpoint { settled_below, oldest_dead: 9, epoch: 1 };
            writer.append(UnixTime(sequence), &checkpoint);
            settle(&mut writer, &mut disk, &mut now);
        }
    }
    writer.close();
    settle(&mut writer, &mut disk, &mut now);
    let (records, _) = disk.files.read_all();
    for sealed in writer.sealed() {
        let first = records.iter().find(|located| located.position.segment == sealed.segment);
        let first = first.unwrap();
        assert_eq!(first.position.offset, 512 + 40);
        let Record::Checkpoint { settled_below, .. } = first.record else {
            panic!("{first:?}");
        };
        assert!(settled_below <= sealed.first_event_id && first.event_id == sealed.first_event_id);
        let behind = sealed.first_event_id.saturating_sub(settled_below);
        assert!(sealed.segment == 1 || (50..=200).contains(&behind), "{behind} behind");
        let entries = index::decode(&disk.indexes[&sealed.segment]).unwrap();
        assert_eq!((entries[0].offset, entries[0].event_id), (512, sealed.first_event_id));
        assert!(entries.len() as u64 >= sealed.bytes / (512 << 10));
        for (at, entry) in entries.iter().enumerate() {
            let end = entries.get(at + 1).map_or(u64::MAX, |next| next.offset);
            let of_entry = records.iter().filter(|located| {
                located.position.segment == sealed.segment
                    && (entry.offset..end).contains(&located.position.offset)
            });
            let times = of_entry.clone().filter_map(|located| match &located.record {
                Record::Accepted(share) => Some(share.accepted_at.0),
                _ => None,
            });
            assert_eq!(times.clone().min(), Some(entry.min_share_ms));
            assert_eq!(times.max(), Some(entry.max_share_ms));
            assert_eq!(of_entry.clone().next().unwrap().event_id, entry.event_id);
        }
    }
    assert!(writer.sealed().count() >= 3);
}

#[test]
fn only_the_oldest_sealed_segments_are_removed() {
    let mut disk = Disk::new(0, Faults::default());
    let mut writer = Writer::new(settings(), start());
    let mut now = Mono(0);
    for sequence in 0..400 {
        writer.append(UnixTime(1), &Record::Accepted(share(sequence, 8)));
        settle(&mut writer, &mut disk, &mut now);
    }
    let before = writer.sealed().count();
    writer.remove(2);
    writer.remove(1);
    writer.remove(2);
    writer.remove(writer.open_segment().unwrap());
    settle(&mut writer, &mut disk, &mut now);
    assert_eq!(writer.sealed().count(), before - 2);
    assert_eq!(disk.files.0.keys().next(), Some(&3));
    let recovered = recover(&disk.files).unwrap();
    assert_eq!((recovered.damages.len(), recovered.next_event_id), (0, 401));
    let seen: Vec<_> = recovered.sealed.iter().map(|sealed| sealed.first_event_id).collect();
    let known: Vec<_> = writer.sealed().map(|sealed| sealed.first_event_id).collect();
    assert_eq!(seen[..known.len()], known);
}

/// What is read from a segment that is just being completed is not the end of the log.
#[test]
fn the_newest_segment_is_known_while_it_is_being_completed() {
    let mut writer = Writer::new(settings(), start());
    assert_eq!(writer.newest_segment(), 0);
    writer.append(UnixTime(1), &told("{}"));
    let mut now = Mono(0);
    let mut newest = Vec::new();
    let mut syncs = 0;
    while let Some(action) = writer.next_action(now) {
        let is_first_sync = matches!(action, DiskAction::Sync { .. }) && syncs == 0;
        syncs += u32::from(matches!(action, DiskAction::Sync { .. }));
        let done = if is_first_sync { DiskDone::Failed(DiskFault::Io(5)) } else { DiskDone::Done };
        let is_seal = matches!(action, DiskAction::Seal { .. });
        newest.push((is_seal, writer.newest_segment()));
        drop(action);
        writer.on_done(now, done);
        now = writer.deadline().unwrap_or(now);
    }
    // Create, write, sync; seal; create, write, sync.
    let expected = [(false, 0), (false, 1), (false, 1), (true, 1), (false, 1), (false, 2)];
    assert_eq!(newest[..6], expected);
    assert_eq!(writer.newest_segment(), 2);
}
