//! A journal in a folder, whole and with something done to it by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod log;

use std::fs;
use std::path::{Path, PathBuf};

use journal::audit::{Audit, audit};
use journal::books::FaultKind;
use journal::codec;
use journal::folder::{Cursor, Folder};
use journal::record::{Outcome, Record};
use journal::segment::Position;
use journal::walk::Located;
use log::Log;

/// Segments of some groups each.
const SEGMENT_BYTES: u64 = 8 * 1024;

fn audited(folder: &Path) -> Audit {
    audit(&Folder::open(folder).unwrap()).unwrap()
}

/// Some minutes of a gateway's life, one turn a group, over several segments.
fn life(folder: &Path) -> Log {
    let mut log = Log::new();
    let mut disk = disk(folder);
    for round in 0..20 {
        let begin = log.records.len();
        log.told("channel_opened", "{\"channel_id\":7}");
        let alice: Vec<u64> = (0..6).map(|_| log.accept(0, 7, "alice")).collect();
        let bob = log.accept(1, 8, "bob");
        log.acknowledge(0, 7, (round + 1) * 6, 6);
        log.acknowledge(1, 8, round + 1, 1);
        log.refuse("stale_share", 1);
        log.append_from(begin, &mut disk);
        let begin = log.records.len();
        log.attempt("bat_1", 200, &alice);
        log.settle("bat_1", Outcome::Delivered, &alice);
        log.attempt("bat_2", 422, &[bob]);
        log.dead_letter("bat_2", &[bob]);
        log.checkpoint();
        log.append_from(begin, &mut disk);
    }
    log
}

fn disk(folder: &Path) -> log::disk::Disk {
    log::disk::Disk::new(folder, SEGMENT_BYTES)
}

fn located(folder: &Path) -> Vec<Located> {
    let folder = Folder::open(folder).unwrap();
    let mut cursor = Cursor::at_start(&folder).unwrap();
    std::iter::from_fn(|| cursor.next(u64::MAX).unwrap()).collect()
}

fn file(folder: &Path, position: Position) -> PathBuf {
    folder.join(journal::segment::file_name(position.segment))
}

/// Copies the journal, does something to one file of the copy, and audits that.
fn tampered(from: &Path, position: Position, change: impl FnOnce(&mut Vec<u8>)) -> Audit {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = file(copy.path(), position);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    audited(copy.path())
}

#[test]
fn a_whole_journal_balances() {
    let folder = tempfile::tempdir().unwrap();
    let log = life(folder.path());
    let audit = audited(folder.path());
    assert!(audit.verdict.holds(), "{:?}", audit.verdict.faults);
    let segments = audit.segments.unwrap();
    assert!(segments.0 == 1 && segments.1 > 3, "{segments:?}");
    assert_eq!((audit.torn_bytes, audit.gateway_id.as_str()), (0, "gw-1"));
    assert_eq!(audit.verdict.next_event, log.next_event);
    let total = audit.verdict.total;
    assert_eq!((total.accepted.count, total.acknowledged.count), (140, 140));
    assert_eq!((total.delivered.count, total.dead.count), (120, 20));
    assert_eq!(audit.verdict.lines.len(), 2);
    // A cursor reads the same.
    assert_eq!(audit.verdict.records, located(folder.path()).len() as u64);
}

#[test]
fn an_empty_folder_balances() {
    let folder = tempfile::tempdir().unwrap();
    let audit = audited(folder.path());
    assert!(audit.verdict.holds() && audit.segments.is_none());
}

/// Goal: a record removed by hand is found, whichever it is and however neatly it was done. Only in
/// the very last group it cannot be told from what a power cut leaves.
#[test]
fn every_record_that_was_taken_out_is_found() {
    let folder = tempfile::tempdir().unwrap();
    life(folder.path());
    let records = located(folder.path());
    let last_group = (0..records.len())
        .rev()
        .find(|at| behind_group(&records, *at) != behind_group(&records, records.len() - 1))
        .unwrap();
    for (at, gone) in records[..=last_group].iter().enumerate() {
        // Each kind at each of some places is enough.
        if at > 60 && at % 13 != 0 {
            continue;
        }
        let begin = usize::try_from(gone.position.offset).unwrap();
        let length = record_bytes(gone);
        let zeroed = tampered(folder.path(), gone.position, |bytes| {
            bytes[begin..begin + length].fill(0);
        });
        assert!(!zeroed.verdict.holds(), "zeros instead of {gone:?}");
        let is_its_place = |fault: &journal::books::Fault| fault.position == gone.position;
        assert!(zeroed.verdict.faults.iter().any(is_its_place), "{:?}", zeroed.verdict.faults);
        // Those behind it in the group move up.
        let moved = tampered(folder.path(), gone.position, |bytes| {
            let end = behind_group(&records, at);
            bytes.copy_within(begin + length..end, begin);
            bytes[end - length..end].fill(0);
        });
        assert!(!moved.verdict.holds(), "without {gone:?}");
    }
}

/// With what fills it up to the next.
fn record_bytes(located: &Located) -> usize {
    usize::try_from(located.next - located.position.offset).unwrap()
}

/// The end of the last record of the group that record `at` is in.
fn behind_group(records: &[Located], at: usize) -> usize {
    let mut end = 0;
    for located in &records[at..] {
        let begin = usize::try_from(located.position.offset).unwrap();
        if located.position.segment != records[at].position.segment || (end != 0 && begin != end) {
            break;
        }
        end = begin + record_bytes(located);
    }
    end
}

#[test]
fn a_record_that_was_put_in_place_of_another_is_found() {
    let folder = tempfile::tempdir().unwrap();
    life(folder.path());
    let records = located(folder.path());
    let is_share = |located: &&Located| matches!(located.record, Record::Accepted(_));
    let target = records.iter().filter(is_share).nth(9).unwrap();
    let Record::Accepted(mut share) = target.record.clone() else { unreachable!() };
    share.miner_id = "mallo".into();
    share.difficulty = work::Difficulty::at_most(999.0);
    let mut forged = Vec::new();
    codec::encode(&Record::Accepted(share), target.event_id, target.at, &mut forged);
    assert!(forged.len().abs_diff(record_bytes(target)) < 4, "the forgery must fit");
    let begin = usize::try_from(target.position.offset).unwrap();
    let audit = tampered(folder.path(), target.position, |bytes| {
        bytes[begin..begin + forged.len()].copy_from_slice(&forged);
    });
    let kinds: Vec<FaultKind> = audit.verdict.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::AcknowledgedWrong]);
}

#[test]
fn every_flipped_byte_of_a_record_is_found() {
    let folder = tempfile::tempdir().unwrap();
    life(folder.path());
    let records = located(folder.path());
    let target = &records[5];
    let begin = usize::try_from(target.position.offset).unwrap();
    let path = file(folder.path(), target.position);
    let length = fs::read(path).unwrap()[begin..begin + 4].try_into().map(u32::from_le_bytes);
    // Behind its length and its checksum, up to what fills it up.
    let end = begin + 8 + length.unwrap() as usize;
    for at in (begin..end).step_by(3) {
        let audit = tampered(folder.path(), target.position, |bytes| bytes[at] ^= 0x10);
        assert!(!audit.verdict.holds(), "byte {at}");
    }
}

#[test]
fn a_segment_that_was_taken_out_is_found() {
    let folder = tempfile::tempdir().unwrap();
    life(folder.path());
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    fs::remove_file(copy.path().join("0000000003.journal")).unwrap();
    let audit = audited(copy.path());
    assert_eq!(audit.verdict.faults[0].kind, FaultKind::Damaged, "{:?}", audit.verdict.faults);
    assert!(audit.verdict.faults.iter().any(|fault| fault.kind == FaultKind::EventGap));
}

/// The first segments may go once their shares have results: dead letters have none.
#[test]
fn segments_with_dead_letters_may_not_go() {
    let folder = tempfile::tempdir().unwrap();
    life(folder.path());
    fs::remove_file(folder.path().join("0000000001.journal")).unwrap();
    let verdict = audited(folder.path()).verdict;
    let kinds: Vec<FaultKind> = verdict.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::PrunedUnsettled]);
}

/// What a crash leaves at the end is no fault, and neither are zeros that were reserved.
#[test]
fn a_torn_tail_is_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    life(folder.path());
    let last = located(folder.path()).pop().unwrap();
    let begin = usize::try_from(last.position.offset).unwrap();
    let audit = tampered(folder.path(), last.position, |bytes| {
        let middle = begin + record_bytes(&last) / 2;
        bytes[middle..].fill(0);
        bytes.resize(bytes.len() + 100_000, 0);
    });
    assert!(audit.verdict.holds(), "{:?}", audit.verdict.faults);
    assert!(audit.torn_bytes > 0);
    assert_eq!(audit.end, last.position);
}
