//! A segment of the journal with anything in it: whatever stands there, a walk ends, in pieces like
//! in one; every record that is read stands there byte for byte; a start reads it to an end.
//!
//! Input: limit of the segment in units of 4 (U16, 0xffff for none), offset to begin at in units of
//! 4 (U16, 0 for the first record); then parts, each as kind U8, length U8, event U8, bytes:
//! 0 bytes as they are, 1 a group's header with a checksum that fits (its number is the length, its
//! bytes the length of its records), 2 on to the next sector, else a frame with a checksum that
//! fits around a body of type kind - 2.

#![no_main]

use journal::codec;
use journal::record::RECORD_BYTES_MAX;
use journal::recover::recover;
use journal::segment::{GroupHeader, Header, Position};
use journal::source::Segments;
use journal::walk::{Located, Step, Walker};
use libfuzzer_sys::fuzz_target;
use work::UnixTime;

/// Steps that one segment can take at most: its sectors, records and damages.
const STEPS_MAX: usize = 100_000;

/// One segment in memory.
struct Memory(Vec<u8>);

impl Segments for Memory {
    fn numbers(&self) -> Result<Vec<u64>, String> {
        Ok(vec![1])
    }

    fn length(&self, _number: u64) -> Result<u64, String> {
        Ok(self.0.len() as u64)
    }

    fn read(&self, _number: u64, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let start = usize::try_from(offset).map_err(|error| error.to_string())?;
        let rest = self.0.get(start..).unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    }
}

/// The segment that the parts describe.
fn segment(mut parts: &[u8]) -> Vec<u8> {
    let header = Header {
        segment: 1,
        first_event_id: 1,
        created_at: UnixTime(1),
        previous: Position::default(),
        gateway_id: "fuzz".to_owned(),
    };
    let mut bytes = header.encode().to_vec();
    while let Some(([kind, length, event], rest)) = parts.split_first_chunk() {
        let (part, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        parts = rest;
        match kind {
            0 => bytes.extend_from_slice(part),
            1 => bytes.extend_from_slice(
                &GroupHeader {
                    length: part.iter().map(|byte| u32::from(*byte)).sum(),
                    number: u64::from(*length),
                    first_event_id: u64::from(*event),
                    at: UnixTime(1),
                }
                .encode(),
            ),
            2 => bytes.resize(bytes.len().next_multiple_of(512), 0),
            kind => {
                let event_id = u64::from(*event).to_le_bytes();
                let content = [&[kind - 2][..], &event_id, &[0; 8], part].concat();
                bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
                bytes.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
                bytes.extend_from_slice(&content);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
    }
    bytes
}

/// Walks to the end, each time with as little as was asked for, or with everything.
fn walk(mut walker: Walker, bytes: &[u8], in_pieces: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut wanted = 0;
    for _ in 0..STEPS_MAX {
        let start = usize::try_from(walker.offset()).expect("small").min(bytes.len());
        let end = if in_pieces { (start + wanted).min(bytes.len()) } else { bytes.len() };
        match walker.step(&bytes[start..end], end == bytes.len()) {
            Step::More(count) => {
                assert!(in_pieces && count <= RECORD_BYTES_MAX + 3);
                wanted = count;
            }
            Step::End(end) => {
                steps.push(Step::End(end));
                return steps;
            }
            step => {
                steps.push(step);
                wanted = 0;
            }
        }
    }
    panic!("no end after {} steps", steps.len());
}

/// What was read is what stands there.
fn check(located: &Located, bytes: &[u8]) {
    let mut again = Vec::new();
    codec::encode(&located.record, located.event_id, located.at, &mut again);
    let start = usize::try_from(located.position.offset).expect("small");
    assert_eq!(bytes[start..start + again.len()], again);
}

fuzz_target!(|input: &[u8]| {
    let Some(([l0, l1, s0, s1], parts)) = input.split_first_chunk() else { return };
    let bytes = segment(parts);
    let limit = u16::from_le_bytes([*l0, *l1]);
    let limit = (limit != u16::MAX).then(|| u64::from(limit) * 4);
    let offset = u64::from(u16::from_le_bytes([*s0, *s1])) * 4;
    let walker = match offset {
        0 => Walker::new(1, limit),
        offset => Walker::at(Position { segment: 1, offset }, limit),
    };
    let steps = walk(walker.clone(), &bytes, false);
    assert_eq!(walk(walker, &bytes, true), steps);
    for step in &steps {
        match step {
            Step::Record(located) => check(located, &bytes),
            Step::Damage(damage) => assert!(damage.until >= damage.position.offset),
            Step::End(_) | Step::More(_) => (),
        }
    }
    let length = bytes.len() as u64;
    if let Ok(recovered) = recover(&Memory(bytes)) {
        assert!(recovered.end.is_some_and(|end| end.offset <= length));
        assert!(recovered.settled_below <= recovered.next_event_id);
        assert!(recovered.open <= recovered.next_event_id);
    }
});
