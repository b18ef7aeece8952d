//! From the bytes of one segment to its records, one after the other.
//!
//! A [`Walker`] is given the bytes at its offset and says what stands there. It never stops in the
//! middle of a segment because of bytes that are no record: it looks for the next group. If there
//! is one, what lies between is [`Damage`], for groups are written one after the other and each was
//! on disk before the next was written. If there is none, the log ends there, and the bytes behind
//! are the torn tail of a write that never was on disk.

use work::UnixTime;

use crate::codec::{self, Malformed};
use crate::record::Record;
use crate::segment::{
    GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, Header, HeaderFault, Position, SECTOR_BYTES,
    round_up, u32_at,
};

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// Its frame.
    pub position: Position,
    /// Offset behind it, where the next can begin.
    pub next: u64,
    /// First event number that it takes; the next to be given if it takes none.
    pub event_id: u64,
    /// When it was appended.
    pub at: UnixTime,
    /// The record.
    pub record: Record,
}

/// Why bytes in the middle of the log are not what stood there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No record can be read.
    Record(Malformed),
    /// No header of a group can be read.
    Group(HeaderFault),
    /// Whole groups are missing.
    Order,
    /// The file ends too early, or there is nothing where something was written.
    Missing,
    /// Event numbers do not follow each other.
    Events,
    /// The header of the segment cannot be read, or is another segment's.
    Segment(HeaderFault),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Record(malformed) => malformed.fmt(f),
            Why::Group(fault) => fault.fmt(f),
            Why::Order => f.write_str("groups of records are missing"),
            Why::Missing => f.write_str("there is nothing where records were written"),
            Why::Events => f.write_str("event numbers do not follow each other"),
            Why::Segment(fault) => write!(f, "the segment's own header: {fault}"),
        }
    }
}

/// A part of the log that was on disk and can no longer be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub position: Position,
    /// Offset at which reading goes on.
    pub until: u64,
    /// What was found.
    pub why: Why,
    /// Event number that was expected there, if it is known.
    pub expected: Option<u64>,
    /// Event number with which reading goes on, if it is known: those between are lost.
    pub found: Option<u64>,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; reading goes on at offset {}", self.position, self.why, self.until)?;
        match (self.expected, self.found) {
            (Some(expected), Some(found)) if expected < found => {
                write!(f, "; events {expected} to {} are lost", found - 1)
            }
            (Some(expected), None) => write!(f, "; events from {expected} on can be lost"),
            _ => Ok(()),
        }
    }
}

/// What stands at a walker's offset.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are records, and none is kept")]
pub enum Step {
    /// A record.
    Record(Located),
    /// Unreadable bytes, which are stepped over.
    Damage(Damage),
    /// It takes at least this many bytes from [`Walker::offset`] on to tell.
    More(usize),
    /// Nothing more.
    End(End),
}

/// The end of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Behind the last record.
    pub position: Position,
    /// Bytes behind it, up to the last that is not zero, that were never known to be on disk.
    pub torn_bytes: u64,
}

/// Walks over one segment.
#[derive(Debug, Clone)]
pub struct Walker {
    segment: u64,
    offset: u64,
    /// Where the segment is known to end: everything before was on disk.
    limit: Option<u64>,
    next_event_id: Option<u64>,
    /// Number of the last group whose header was read.
    group: Option<u64>,
    /// Where its records end.
    group_end: Option<u64>,
    /// Behind the last record.
    end: u64,
    seeking: Option<Seeking>,
    ended: Option<End>,
}

/// In search of the next group.
#[derive(Debug, Clone, Copy)]
struct Seeking {
    position: u64,
    why: Why,
    /// A group with a number above proves that what is missing was on disk.
    above: u64,
    /// Behind the last byte that is not zero.
    last_byte: u64,
}

impl Walker {
    /// From the first record of a segment. `limit` is where the segment ends if that is known,
    /// which it is from the header of the next one ([`Header::previous`]); bytes from there on are
    /// not looked at.
    pub fn new(segment: u64, limit: Option<u64>) -> Walker {
        let offset = Header::BYTES as u64;
        Walker { group: Some(0), ..Walker::at(Position { segment, offset }, limit) }
    }

    /// From any record or group.
    pub fn at(position: Position, limit: Option<u64>) -> Walker {
        let offset = position.offset.max(Header::BYTES as u64);
        Walker {
            segment: position.segment,
            offset,
            limit,
            next_event_id: None,
            group: None,
            group_end: None,
            end: offset,
            seeking: None,
            ended: None,
        }
    }

    /// Where the bytes for the next step begin.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of the segment.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Event number of the next record, if it is known: behind a record it always is, behind damage
    /// up to the end of a segment it is not.
    pub fn next_event_id(&self) -> Option<u64> {
        self.next_event_id
    }

    /// Number of the last group whose header was read; 0 before the first of a segment.
    pub fn group(&self) -> Option<u64> {
        self.group
    }

    /// The first event number that the next record can have, from what was read elsewhere.
    pub fn expect(&mut self, event_id: u64) {
        self.next_event_id = Some(event_id);
    }

    /// The end of the segment has become known.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = Some(limit);
    }

    /// What stands at the offset. `bytes` begin there; `is_all` says that the file has no more
    /// than they are.
    pub fn step(&mut self, bytes: &[u8], is_all: bool) -> Step {
        let start = self.offset;
        let room = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(start));
        let usable = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let is_all = is_all || usable as u64 == room;
        let bytes = &bytes[..usable];
        loop {
            if let Some(end) = self.ended {
                return Step::End(end);
            }
            let passed = usize::try_from(self.offset - start).unwrap_or(usize::MAX);
            let rest = bytes.get(passed..).unwrap_or_default();
            let step = match self.seeking {
                Some(seeking) => self.seek(seeking, rest, is_all),
                None => self.read(rest, is_all),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// One thing; `None` if it was nothing that the caller must know.
    fn read(&mut self, rest: &[u8], is_all: bool) -> Option<Step> {
        if rest.len() < 4 {
            return match (is_all, rest.is_empty()) {
                (false, _) => Some(Step::More(4)),
                (true, true) if self.limit.is_none_or(|limit| self.offset >= limit) => {
                    self.finish(0);
                    None
                }
                (true, _) => self.lose(Why::Missing),
            };
        }
        let is_aligned = self.offset.is_multiple_of(SECTOR_BYTES);
        let in_group = self.group_end.is_some_and(|end| self.offset < end);
        match u32_at(rest, 0) {
            GROUP_MAGIC if is_aligned && !in_group => self.read_group(rest, is_all),
            0 if is_aligned || in_group => self.lose(Why::Missing),
            // Behind the records of a group nothing means anything up to the next sector.
            word if !is_aligned && !in_group && (word == 0 || self.group_end.is_some()) => {
                self.offset = round_up(self.offset, SECTOR_BYTES);
                None
            }
            _ if self.group_end.is_some() && !in_group => self.lose(Why::Group(HeaderFault::Magic)),
            length => self.read_record(length, rest, is_all),
        }
    }

    fn read_group(&mut self, rest: &[u8], is_all: bool) -> Option<Step> {
        if rest.len() < GROUP_HEADER_BYTES && !is_all {
            return Some(Step::More(GROUP_HEADER_BYTES));
        }
        let header = match GroupHeader::decode(rest) {
            Ok(header) => header,
            Err(fault) => return self.lose(Why::Group(fault)),
        };
        let (expected, found) = (self.next_event_id, header.first_event_id);
        let is_next = self.group.is_none_or(|group| Some(header.number) == group.checked_add(1));
        let is_behind = self.group.is_some_and(|group| header.number <= group)
            || expected.is_some_and(|expected| found < expected);
        if is_behind {
            return self.lose(Why::Order);
        }
        let position = self.position();
        let until = self.offset;
        self.enter(&header);
        let why = match expected {
            _ if !is_next => Why::Order,
            Some(expected) if expected != found => Why::Events,
            _ => return None,
        };
        Some(Step::Damage(Damage { position, until, why, expected, found: Some(found) }))
    }

    fn enter(&mut self, header: &GroupHeader) {
        self.offset += GROUP_HEADER_BYTES as u64;
        self.group = Some(header.number);
        self.group_end = Some(self.offset.saturating_add(u64::from(header.length)));
        self.next_event_id = Some(header.first_event_id);
    }

    fn read_record(&mut self, length: u32, rest: &[u8], is_all: bool) -> Option<Step> {
        let padded = match codec::frame_bytes(length) {
            Ok(bytes) => bytes,
            Err(malformed) => return self.lose(Why::Record(malformed)),
        };
        // What fills a record up need not be there at the end of a file.
        if rest.len() < padded && !is_all {
            return Some(Step::More(padded));
        }
        let expected = self.next_event_id;
        let position = self.position();
        let next = self.offset + padded as u64;
        match codec::decode(rest) {
            Ok(framed) if expected.is_some_and(|expected| expected != framed.event_id) => {
                self.lose(Why::Events)
            }
            Ok(framed) => {
                let events = framed.record.events();
                self.pass(next, rest.len());
                self.next_event_id = Some(framed.event_id.saturating_add(events));
                let codec::Framed { event_id, at, record } = framed;
                Some(Step::Record(Located { position, next, event_id, at, record }))
            }
            Err(malformed) if malformed.is_foreign() => {
                self.pass(next, rest.len());
                self.next_event_id = None;
                let why = Why::Record(malformed);
                Some(Step::Damage(Damage { position, until: next, why, expected, found: None }))
            }
            Err(malformed) => self.lose(Why::Record(malformed)),
        }
    }

    /// Goes on behind a record that ends at `next`; there are `available` bytes from it on.
    fn pass(&mut self, next: u64, available: usize) {
        self.end = next.min(self.offset + available as u64);
        self.offset = next;
    }

    /// What stands here is nothing: on to the next group.
    fn lose(&mut self, why: Why) -> Option<Step> {
        let group = self.group.unwrap_or(0);
        let in_group = self.group.is_none() || self.group_end.is_some_and(|end| self.offset < end);
        let above = if in_group { group } else { group.saturating_add(1) };
        let position = self.offset;
        self.seeking = Some(Seeking { position, why, above, last_byte: self.end });
        None
    }

    /// Looks for a group in `rest`, which begin at the offset.
    fn seek(&mut self, mut seeking: Seeking, rest: &[u8], is_all: bool) -> Option<Step> {
        if self.offset > seeking.position
            && let Ok(header) = GroupHeader::decode(rest)
            && header.number > seeking.above
            && self.next_event_id.is_none_or(|expected| header.first_event_id >= expected)
        {
            self.seeking = None;
            let damage = self.damage(seeking, Some(header.first_event_id));
            self.enter(&header);
            return Some(Step::Damage(damage));
        }
        let next = round_up(self.offset + 1, SECTOR_BYTES);
        let part = &rest[..rest.len().min((next - self.offset) as usize)];
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            seeking.last_byte = seeking.last_byte.max(self.offset + last as u64 + 1);
        }
        if rest.len() as u64 >= next - self.offset {
            self.offset = next;
            self.seeking = Some(seeking);
            return None;
        }
        if !is_all {
            return Some(Step::More((next - self.offset) as usize));
        }
        self.seeking = None;
        let Some(limit) = self.limit else {
            self.finish(seeking.last_byte.saturating_sub(self.end));
            return None;
        };
        self.offset = limit;
        let damage = self.damage(seeking, None);
        self.next_event_id = None;
        self.end = limit;
        self.finish(0);
        Some(Step::Damage(damage))
    }

    fn damage(&self, seeking: Seeking, found: Option<u64>) -> Damage {
        Damage {
            position: Position { segment: self.segment, offset: seeking.position },
            until: self.offset,
            why: seeking.why,
            expected: self.next_event_id,
            found,
        }
    }

    fn finish(&mut self, torn_bytes: u64) {
        let position = Position { segment: self.segment, offset: self.end };
        self.ended = Some(End { position, torn_bytes });
    }

    fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }
}

/// The header of segment `segment` at the start of its bytes.
///
/// # Errors
/// [`Why::Segment`] if there is none, or another segment's.
pub fn segment_header(segment: u64, bytes: &[u8]) -> Result<Header, Why> {
    let header = Header::decode(bytes).map_err(Why::Segment)?;
    if header.segment == segment { Ok(header) } else { Err(Why::Segment(HeaderFault::Value)) }
}
