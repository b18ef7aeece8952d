//! Bytes that a disk lost or changed: the end of the log is cut, the middle is reported and stepped
//! over, and no record is ever read that was not written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;

use journal::record::Record;
use journal::recover::{RecoverError, recover};
use journal::segment::{GroupHeader, Header};
use journal::source::Segments;
use journal::walk::{Located, Step, Walker, Why};
use journal::writer::{Writer, WriterSettings};
use model::{Disk, Faults, Files, Random, share, told};
use work::{Mono, UnixTime};

/// A journal of `groups` groups of three records each, all on disk.
fn journal(groups: u64, segment_bytes: u64) -> Files {
    let mut disk = Disk::new(0, Faults::default());
    let settings = WriterSettings { segment_bytes, ..WriterSettings::new("rack-1") };
    let mut writer = Writer::new(settings, recover(&Files::default()).unwrap().start(1));
    for group in 0..groups {
        writer.append(UnixTime(group), &Record::Accepted(share(2 * group, 20)));
        writer.append(UnixTime(group), &told(&format!("{{\"group\":{group}}}")));
        writer.append(UnixTime(group), &Record::Replayed { shares: vec![] });
        while let Some(action) = writer.next_action(Mono(0)) {
            let done = disk.perform(action);
            writer.on_done(Mono(0), done);
        }
    }
    disk.files
}

fn is_part_of(records: &[Located], all: &[Located]) -> bool {
    let mut all = all.iter();
    records.iter().all(|record| all.any(|other| other == record))
}

#[test]
fn every_truncation_ends_the_log_before_it() {
    let files = journal(6, 64 << 10);
    let (all, _) = files.read_all();
    let written = files.0[&1].bytes.len();
    for length in 0..=written {
        let mut short = files.clone();
        short.apply(&model::Op::Cut { segment: 1, length: length as u64 });
        let (records, damages) = short.read_all();
        assert!(damages.is_empty() && records == all[..records.len()], "{length} bytes");
        let fitting = all.iter().filter(|located| located.next <= length as u64).count();
        assert!((fitting..=fitting + 1).contains(&records.len()), "{length} bytes");
        let recovered = recover(&short).unwrap();
        if length >= Header::BYTES {
            let end = recovered.end.unwrap().offset;
            assert!(end <= length as u64, "{end} of {length}");
            assert_eq!(recovered.next_segment, 2);
        } else {
            assert_eq!((recovered.end, recovered.next_segment), (None, 1));
        }
    }
}

#[test]
fn a_flipped_byte_is_damage_in_the_middle_and_an_end_at_the_end() {
    let files = journal(6, 64 << 10);
    let (all, _) = files.read_all();
    let written = files.0[&1].bytes.len();
    let last_group = (0..written)
        .step_by(512)
        .rfind(|at| GroupHeader::decode(&files.0[&1].bytes[*at..]).is_ok())
        .unwrap();
    let mut random = Random(5);
    for at in Header::BYTES..written {
        let mut flipped = files.clone();
        flipped.0.get_mut(&1).unwrap().bytes[at] ^= 1 << random.below(8);
        let recovered = recover(&flipped).unwrap();
        let (records, damages) = flipped.read_all();
        assert!(is_part_of(&records, &all), "byte {at}");
        assert_eq!(damages.len() as u64, recovered.damages_total);
        let lost = all.len() - records.len();
        if at >= last_group {
            assert_eq!(damages, [], "byte {at}");
        } else {
            // A byte that only fills up means nothing.
            assert_eq!(damages.len(), usize::from(lost > 0), "byte {at}");
            assert_eq!(records.last(), all.last());
            assert_eq!(recovered.next_event_id, 19);
            assert_eq!(recovered.torn_bytes, 0);
        }
        let open = records.iter().filter(|located| matches!(located.record, Record::Accepted(_)));
        assert_eq!(recovered.open, open.count() as u64, "byte {at}");
    }
}

#[test]
fn a_lost_sector_in_a_sealed_segment_is_damage_wherever_it_lies() {
    let files = journal(60, 8 << 10);
    let (all, _) = files.read_all();
    assert!(files.numbers().unwrap().len() > 3);
    for segment in files.numbers().unwrap().into_iter().rev().skip(1) {
        for sector in 0..files.0[&segment].bytes.len() / 512 {
            let mut damaged = files.clone();
            let bytes = &mut damaged.0.get_mut(&segment).unwrap().bytes;
            bytes[sector * 512..][..512].fill(0);
            let recovered = recover(&damaged).unwrap();
            let (records, damages) = damaged.read_all();
            assert!(is_part_of(&records, &all));
            assert_eq!(recovered.next_event_id, 181);
            assert_eq!(recovered.damages_total, 1, "segment {segment} sector {sector}");
            let damage = recovered.damages[0];
            assert_eq!(damage.position.segment, segment);
            if sector == 0 {
                assert!(matches!(damage.why, Why::Segment(_)));
                assert_eq!(records.len(), all.len());
            } else {
                assert!(records.len() < all.len());
                assert_eq!(damages.len(), 1);
                assert!(damage.to_string().contains("reading goes on"), "{damage}");
            }
        }
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let mut files = journal(40, 8 << 10);
    files.0.remove(&2);
    let recovered = recover(&files).unwrap();
    assert!(recovered.damages.iter().any(|damage| damage.position.segment == 3));
    assert_eq!(recovered.next_event_id, 121);
    assert!(recovered.first_open.is_some());
    // Without the first there is nothing missing: it was removed in its time.
    files.0.remove(&1);
    assert_eq!(recover(&files).unwrap().damages, []);
}

#[test]
fn records_of_a_newer_program_are_stepped_over_but_not_appended_to() {
    let mut bytes = journal(1, 64 << 10).0[&1].bytes.clone();
    let group = GroupHeader::decode(&bytes[1_024..]).unwrap();
    // The text of the second record, told a type that does not exist.
    let first = u32::from_le_bytes(bytes[1_064..1_068].try_into().unwrap()) as usize;
    let at = 1_064 + (first + 8).next_multiple_of(4);
    let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    bytes[at + 8] = 200;
    let checksum = crc32c::crc32c(&bytes[at + 8..at + 8 + length]);
    bytes[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
    let mut files = journal(1, 64 << 10);
    files.0.get_mut(&1).unwrap().bytes = bytes.clone();
    let (records, damages) = files.read_all();
    assert_eq!((records.len(), damages.len(), group.first_event_id), (3, 1, 1));
    assert_eq!(recover(&files).unwrap().next_event_id, 4);
    // As the last record it could have taken any number of events.
    files.apply(&model::Op::Cut { segment: 1, length: (at + 8 + length) as u64 });
    assert!(matches!(recover(&files), Err(RecoverError::Newer(_))));
}

#[test]
fn any_bytes_are_walked_to_an_end() {
    let files = journal(6, 64 << 10);
    let mut random = Random(77);
    for _ in 0..3_000 {
        let mut bytes = files.0[&1].bytes.clone();
        for _ in 0..1 + random.below(40) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes.truncate(at.max(600)),
                _ => {
                    let from = random.below(bytes.len() as u64) as usize / 512 * 512;
                    let to = at / 512 * 512;
                    let count = 512.min(bytes.len() - from.max(to));
                    bytes.copy_within(from..from + count, to);
                }
            }
        }
        let limit = random.one_in(2).then(|| random.below(bytes.len() as u64 + 600));
        let mut walker = Walker::new(1, limit);
        let mut last = 0;
        for steps in 0.. {
            let at = (walker.offset() as usize).min(bytes.len());
            match walker.step(&bytes[at..], true) {
                Step::Record(located) => {
                    assert!(located.event_id >= last, "events go on");
                    last = located.event_id;
                }
                Step::Damage(damage) => assert!(damage.until >= damage.position.offset),
                Step::End(_) => break,
                Step::More(count) => panic!("{count} more of all"),
            }
            assert!(steps < 1_000);
        }
    }
}

#[test]
fn small_pieces_are_read_like_the_whole() {
    let files = journal(6, 64 << 10);
    let (all, _) = files.read_all();
    let bytes = &files.0[&1].bytes;
    for most in [1, 7, 64, 700] {
        let mut walker = Walker::new(1, None);
        let (mut wanted, mut before) = (0, 0);
        let mut records = Vec::new();
        loop {
            let at = (walker.offset() as usize).min(bytes.len());
            // What was asked for is for the place it was asked at.
            wanted = if at == before { wanted } else { 0 };
            before = at;
            let end = (at + wanted).min(bytes.len());
            match walker.step(&bytes[at..end], end == bytes.len()) {
                Step::Record(located) => records.push(located),
                Step::More(count) => {
                    let is_more = at + count > end || walker.offset() > at as u64;
                    assert!(is_more, "{count} after {wanted}");
                    wanted = count.max(most);
                }
                Step::Damage(damage) => panic!("{damage}"),
                Step::End(_) => break,
            }
        }
        assert_eq!(records, all);
    }
}
