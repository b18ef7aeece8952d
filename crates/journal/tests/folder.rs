//! Readers of a folder: wherever they begin, whenever they read, they see every record once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod made;

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::event::{EventLine, events};
use journal::folder::{Cursor, Folder, FolderError, Miners, Pruned};
use journal::segment::{GroupHeader, file_name, index_name};
use journal::walk::Located;
use journal::{Outcome, Record};
use made::disk::Disk;
use tempfile::TempDir;
use work::UnixTime;

const SEGMENT_BYTES: u64 = 8 << 10;

/// A journal of `shares` in several segments.
fn journal(shares: u64) -> (TempDir, Disk, Folder) {
    let temporary = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(temporary.path(), SEGMENT_BYTES);
    for number in 1..=shares {
        append(&mut disk, number);
        // Now and then a group of its own.
        if number % 7 == 0 {
            disk.sync();
        }
    }
    disk.sync();
    let folder = Folder::open(temporary.path()).unwrap();
    (temporary, disk, folder)
}

/// A share, and with some numbers a refused one or results of the shares before.
fn append(disk: &mut Disk, number: u64) {
    let at = UnixTime(made::BEGIN + number);
    let event = disk.append(at, &Record::Accepted(made::share(number, made::miner(number))));
    if number.is_multiple_of(5) {
        disk.append(at, &Record::Refused(made::refusal(500 + number, "acme")));
        disk.append(at, &Record::Checkpoint { settled_below: 1, oldest_dead: u64::MAX, epoch: 1 });
        let results = (0..3).map(|n| made::result(number + n, event + n, Outcome::Delivered));
        disk.append(at, &made::settled(results.collect()));
    }
}

fn read(cursor: &mut Cursor, below: u64) -> Vec<Located> {
    std::iter::from_fn(|| cursor.next(below).unwrap()).collect()
}

fn lines(records: &[Located]) -> Vec<EventLine> {
    let mut out = Vec::new();
    records.iter().for_each(|located| events(located, "gw-1", &mut out));
    out
}

fn assert_no_gap(records: &[Located], first: u64, end: u64) {
    let ids: Vec<u64> = lines(records).iter().map(|line| line.event_id).collect();
    assert_eq!(ids, (first..end).collect::<Vec<u64>>());
}

#[test]
fn a_reader_that_is_killed_anywhere_goes_on_without_a_gap_or_a_repetition() {
    let (_temporary, disk, folder) = journal(200);
    assert!(folder.segments().unwrap().len() > 5);
    let head = disk.durable();
    let all = lines(&read(&mut Cursor::at_start(&folder).unwrap(), head));
    assert_eq!(all.len() as u64, head - 1);
    for last in 0..head {
        let mut cursor = Cursor::at_event(&folder, last + 1).unwrap();
        let mut rest = lines(&read(&mut cursor, head));
        rest.retain(|line| line.event_id > last);
        assert_eq!(rest, all[last as usize..], "behind event {last}");
    }
    // Of a record of results, readers may have had a part: no earlier record is given again.
    let first = Cursor::at_event(&folder, 9).unwrap().next(head).unwrap().unwrap();
    assert!(first.event_id <= 9 && first.event_id + first.record.events() > 9);
}

#[test]
fn lookups_are_the_same_with_and_without_an_index() {
    let (_temporary, disk, folder) = journal(150);
    let head = disk.durable();
    let all = read(&mut Cursor::at_start(&folder).unwrap(), head);
    let check = || {
        for located in &all {
            if let Record::Accepted(share) = &located.record {
                let found = folder.find_share(share.share_id, head).unwrap();
                assert_eq!(found.as_ref(), Some(located));
                assert_eq!(folder.find_share(share.share_id, located.event_id).unwrap(), None);
            }
            if let Record::Refused(refusal) = &located.record {
                let found = folder.find_share(refusal.share_id, head).unwrap();
                assert_eq!(found.as_ref(), Some(located));
            }
            for event in located.event_id..located.event_id + located.record.events() {
                assert_eq!(folder.find_event(event, head).unwrap().as_ref(), Some(located));
            }
            let first = Cursor::at_time(&folder, located.at).unwrap().next(head).unwrap();
            let expected = all.iter().find(|other| other.at >= located.at);
            // A segment begins with a checkpoint that repeats the time of what follows.
            assert_eq!(first.unwrap().at, expected.unwrap().at);
        }
        assert_eq!(folder.find_share(made::share_id(999), head).unwrap(), None);
        assert_eq!(folder.find_event(head, head).unwrap(), None);
        assert_eq!(folder.gateway_id().unwrap().as_deref(), Some("gw-1"));
    };
    check();
    for number in folder.segments().unwrap() {
        let path = folder.path().join(index_name(number));
        match number % 2 {
            0 => drop(fs::remove_file(path)),
            _ if path.exists() => fs::write(path, "no index").unwrap(),
            _ => {}
        }
    }
    check();
}

#[test]
fn a_reader_follows_a_writer_through_failing_writes_and_syncs() {
    for faulty in [0, 3, 5, 7] {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        let mut disk = Disk::new(temporary.path(), SEGMENT_BYTES);
        disk.faulty = faulty;
        let mut cursor = Cursor::at_start(&folder).unwrap();
        let mut offline = Vec::new();
        let mut seen = Vec::new();
        for number in 1..=300 {
            append(&mut disk, number);
            for _ in 0..number % 4 {
                disk.step();
                seen.extend(read(&mut cursor, disk.durable()));
            }
            if number % 97 == 0 {
                offline = read(&mut Cursor::at_start(&folder).unwrap(), disk.durable());
                assert_eq!(offline.len(), seen.len());
            }
        }
        assert_eq!(faulty > 0, disk.failed_syncs() > 2);
        disk.faulty = 0;
        disk.sync();
        seen.extend(read(&mut cursor, disk.durable()));
        assert_no_gap(&seen, 1, disk.next_event());
        assert!(cursor.damages().is_empty(), "{:?}", cursor.damages());
        assert_eq!(offline, seen[..offline.len()]);
        let mut whole = Cursor::at_start(&folder).unwrap();
        assert_eq!(lines(&read(&mut whole, u64::MAX)), lines(&seen));
        assert!(whole.damages().is_empty(), "{:?}", whole.damages());
    }
}

#[test]
fn readers_in_other_threads_see_each_event_once() {
    const SHARES: u64 = 6_000;
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::open(temporary.path()).unwrap();
    let head = AtomicU64::new(1);
    let end = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        let follow = || {
            let mut cursor = Cursor::at_start(&folder).unwrap();
            let mut next = 1;
            while next < end.load(Ordering::Acquire) {
                let below = head.load(Ordering::Acquire);
                while let Some(located) = cursor.next(below).unwrap() {
                    assert!(located.record.events() == 0 || located.event_id == next);
                    next = located.event_id + located.record.events();
                }
                // One that is killed and begins again behind its last event.
                if next % 11 == 0 {
                    cursor = Cursor::at_event(&folder, next).unwrap();
                }
                std::thread::yield_now();
            }
            assert!(cursor.damages().is_empty(), "{:?}", cursor.damages());
            next
        };
        let readers = [scope.spawn(follow), scope.spawn(follow)];
        let mut disk = Disk::new(temporary.path(), SEGMENT_BYTES);
        for number in 1..=SHARES {
            append(&mut disk, number);
            disk.step();
            head.store(disk.durable(), Ordering::Release);
        }
        disk.sync();
        head.store(disk.durable(), Ordering::Release);
        end.store(disk.next_event(), Ordering::Release);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), disk.next_event());
        }
    });
}

#[test]
fn what_is_no_longer_kept_is_said_with_the_oldest_event() {
    let (_temporary, mut disk, folder) = journal(200);
    let head = disk.durable();
    let mut behind = Cursor::at_start(&folder).unwrap();
    behind.next(head).unwrap().unwrap();
    let mut far_behind = behind.fork().unwrap();
    let all = read(&mut Cursor::at_start(&folder).unwrap(), head);
    assert_eq!(disk.remove_oldest(), 1);
    disk.sync();
    // A file that is open can be read to its end, and the next one is there.
    assert_eq!(read(&mut behind, head), all[1..]);
    disk.remove_oldest();
    disk.sync();
    let oldest = folder.oldest_event().unwrap().unwrap();
    assert!(oldest > 2);
    for event in [1, oldest - 1] {
        match Cursor::at_event(&folder, event) {
            Err(FolderError::Pruned(pruned)) => assert_eq!(pruned, Pruned { oldest }),
            other => panic!("{other:?}"),
        }
        assert_eq!(folder.find_event(event, head).unwrap(), None);
    }
    let mut kept = Cursor::at_event(&folder, oldest).unwrap();
    assert_no_gap(&read(&mut kept, head), oldest, head);
    let lost = loop {
        match far_behind.next(head) {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(lost, Err(FolderError::Pruned(_))), "{lost:?}");
    let text = FolderError::Pruned(Pruned { oldest: 7 }).to_string();
    assert!(text.contains("before 7") && text.contains("share_retention_days"));
}

#[test]
fn an_empty_journal_can_be_read_before_it_begins() {
    let temporary = tempfile::tempdir().unwrap();
    assert!(Folder::open(temporary.path().join("missing")).is_err());
    let folder = Folder::open(temporary.path()).unwrap();
    let at = UnixTime(made::BEGIN);
    let mut cursors = [
        Cursor::at_start(&folder).unwrap(),
        Cursor::at_event(&folder, 1).unwrap(),
        Cursor::at_time(&folder, at).unwrap(),
    ];
    assert!(cursors.iter_mut().all(|cursor| cursor.next(u64::MAX).unwrap().is_none()));
    assert_eq!(folder.oldest_event().unwrap(), None);
    assert_eq!(folder.find_share(made::share_id(1), u64::MAX).unwrap(), None);
    let mut disk = Disk::new(temporary.path(), SEGMENT_BYTES);
    (1..=20).for_each(|number| append(&mut disk, number));
    disk.sync();
    for cursor in &mut cursors {
        assert_no_gap(&read(cursor, disk.durable()), 1, disk.next_event());
    }
}

#[test]
fn a_reader_waits_at_the_end_for_an_event_that_is_to_come() {
    let (_temporary, mut disk, folder) = journal(20);
    let ahead = disk.next_event() + 2;
    let mut cursor = Cursor::at_event(&folder, ahead).unwrap();
    assert!(read(&mut cursor, disk.durable()).is_empty());
    (21..=120).for_each(|number| append(&mut disk, number));
    disk.sync();
    assert_no_gap(&read(&mut cursor, disk.durable()), ahead, disk.next_event());
}

#[test]
fn damage_is_passed_over_and_told() {
    let (_temporary, disk, folder) = journal(60);
    let head = disk.durable();
    let all = read(&mut Cursor::at_start(&folder).unwrap(), head);
    let last_segment = *folder.segments().unwrap().last().unwrap();
    for at in [0, 5, all.len() / 2, all.len() - 12] {
        let bad = all[at].position;
        let path = folder.path().join(file_name(bad.segment));
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, bad.offset + 12).unwrap();
        file.write_all_at(&[byte[0] ^ 1], bad.offset + 12).unwrap();
        for below in [head, u64::MAX] {
            let mut cursor = Cursor::at_start(&folder).unwrap();
            let rest = read(&mut cursor, below);
            assert!(rest.len() < all.len() && !rest.contains(&all[at]), "record {at}");
            assert!(rest.iter().all(|located| all.contains(located)));
            assert_eq!(cursor.damages()[0].position.segment, bad.segment);
            assert_eq!(rest.last(), all.last());
        }
        file.write_all_at(&byte, bad.offset + 12).unwrap();
    }
    // Behind the last group that is whole, nothing is on disk, so nothing is damaged.
    let end = all.last().unwrap().next;
    let path = folder.path().join(file_name(last_segment));
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let torn = GroupHeader { length: 900, number: 900, first_event_id: 1, at: UnixTime(1) };
    file.write_all_at(&torn.encode()[..30], end.next_multiple_of(512)).unwrap();
    let mut cursor = Cursor::at_start(&folder).unwrap();
    assert_eq!(read(&mut cursor, u64::MAX), all);
    assert!(cursor.damages().is_empty());
}

#[test]
fn results_are_traced_to_their_miners() {
    let (_temporary, disk, folder) = journal(200);
    let head = disk.durable();
    let all = read(&mut Cursor::at_start(&folder).unwrap(), head);
    let shares: Vec<(u64, &str)> = all
        .iter()
        .filter_map(|located| match &located.record {
            Record::Accepted(share) => Some((located.event_id, &*share.miner_id)),
            _ => None,
        })
        .collect();
    let mut miners = Miners::new(&folder);
    let scattered = (0..shares.len()).map(|n| &shares[n * 77 % shares.len()]);
    for (event, miner) in shares.iter().chain(shares.iter().rev()).chain(scattered) {
        assert_eq!(miners.miner_of(*event, head).unwrap().as_deref(), Some(*miner));
    }
    let results = all.iter().find(|located| matches!(located.record, Record::Settled(_))).unwrap();
    assert_eq!(miners.miner_of(results.event_id, head).unwrap(), None);
    assert_eq!(miners.miner_of(head + 5, head).unwrap(), None);
}
