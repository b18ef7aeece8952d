//! What a start finds: the end of the log, and every share that is still open.
//!
//! Every segment begins with a [`Record::Checkpoint`], which was on disk before anything else in
//! it. The newest that can be read says from which event on there is something to be learnt; from
//! there all records are read once.
//!
//! The tail of the last segment that never was on disk is cut: whoever starts a writer first cuts
//! the file to [`Recovered::end`] and syncs it and its folder, even if nothing was torn, for a
//! process that was killed leaves bytes that can be read and are not on disk. It also writes the
//! last [`UNSURE_BYTES_MAX`] anew, for a sync that failed leaves pages that no later one writes.
//! What was on disk and can no longer be read is [`Damage`]: it is reported, kept, and stepped
//! over.

use std::collections::BTreeMap;

use work::UnixTime;

use crate::ranges::Ranges;
use crate::record::{RECORD_BYTES_MAX, Record};
use crate::segment::{Header, HeaderFault, Position};
use crate::source::{Found, ReadError, SegmentReader, Segments, header};
use crate::walk::{Damage, Located, Walker, Why};
use crate::writer::{GROUP_BYTES_MAX, SealedSegment, Start};

/// Bytes before the end of the log that may not be on disk although they can be read, even if the
/// file is synced again: those of the last group, whose sync may have failed. A start writes so
/// many anew.
pub const UNSURE_BYTES_MAX: u64 = (GROUP_BYTES_MAX + RECORD_BYTES_MAX + Header::BYTES) as u64;

/// Dead letters that a start lists; of more only the number is told.
pub const DEAD_LETTERS_MAX: usize = 65_536;

/// Damages that a start lists.
pub const DAMAGES_MAX: usize = 100;

/// What a start finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    /// Whose journal it is; `None` if it is empty.
    pub gateway_id: Option<String>,
    /// The next event number to be given; the first is 1.
    pub next_event_id: u64,
    /// The number of the next segment. If there is a file of that number, nothing in it was on
    /// disk, and it is made anew.
    pub next_segment: u64,
    /// `epoch` of the last start that wrote; `None` if none did.
    pub last_epoch: Option<u16>,
    /// Where the last segment is to be cut and synced; `None` if there is no segment.
    pub end: Option<Position>,
    /// Bytes that are cut off there.
    pub torn_bytes: u64,
    /// `settled_below` for a checkpoint now: every share before this event is settled or dead.
    pub settled_below: u64,
    /// The oldest share that is neither settled nor dead, and its record.
    pub first_open: Option<(u64, Position)>,
    /// How many such shares there are.
    pub open: u64,
    /// Events from `settled_below` on that are no such share: settled, dead, or no share at all.
    pub closed: Ranges,
    /// Shares that wait for an operator, oldest first.
    pub dead: Vec<DeadLetter>,
    /// How many there are.
    pub dead_total: u64,
    /// The first damages that were found.
    pub damages: Vec<Damage>,
    /// How many there are.
    pub damages_total: u64,
    /// The segments that there are, oldest first; the last as it will be when it is cut.
    pub sealed: Vec<SealedSegment>,
}

/// A share that the backend would not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter {
    /// `event_id` of its acceptance.
    pub share_event: u64,
    /// Its record; `None` if that can no longer be read.
    pub position: Option<Position>,
}

/// Why a gateway cannot go on with a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoverError {
    /// It cannot be read.
    Read(ReadError),
    /// It ends with a record of a newer program, which can have taken any event numbers.
    Newer(Position),
}

impl std::fmt::Display for RecoverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecoverError::Read(error) => error.fmt(f),
            RecoverError::Newer(position) => write!(
                f,
                "the journal ends at {position} with a record that this program does not know: \
                 start the newer program that wrote it"
            ),
        }
    }
}

impl std::error::Error for RecoverError {}

impl From<ReadError> for RecoverError {
    fn from(error: ReadError) -> RecoverError {
        RecoverError::Read(error)
    }
}

impl Recovered {
    /// Where a writer goes on, in a process whose epoch is `epoch`.
    pub fn start(&self, epoch: u16) -> Start {
        Start {
            next_segment: self.next_segment,
            next_event_id: self.next_event_id,
            epoch,
            previous: self.end.unwrap_or_default(),
            settled_below: self.settled_below,
            oldest_dead: self.dead.first().map_or(u64::MAX, |dead| dead.share_event),
            sealed: self.sealed.clone(),
        }
    }
}

/// One segment, as its header and its neighbour's tell.
#[derive(Debug, Clone)]
struct Part {
    number: u64,
    /// `None` if it cannot be read.
    header: Option<Header>,
    /// Where it ends, from the header of the next.
    limit: Option<u64>,
}

/// Reads a journal to its end.
///
/// # Errors
/// See [`RecoverError`].
pub fn recover(source: &impl Segments) -> Result<Recovered, RecoverError> {
    let (parts, next_segment) = parts(source)?;
    let mut state = State::default();
    state.missing(&parts);
    let checkpoint = newest_checkpoint(source, &parts)?;
    if let Some((settled_below, oldest_dead, epoch)) = checkpoint {
        state.from = settled_below.min(oldest_dead);
        state.closed.insert_range(0..settled_below);
        state.last_epoch = Some(epoch);
    }
    // Event numbers begin at 1.
    state.closed.insert(0);
    let first = first_part(&parts, state.from);
    for part in &parts[first..] {
        state.walk(source, part)?;
    }
    state.finish(source, &parts, next_segment)
}

/// The segments in order, and the number of the next.
fn parts(source: &impl Segments) -> Result<(Vec<Part>, u64), RecoverError> {
    let numbers = source.numbers();
    let mut numbers = numbers.map_err(|error| ReadError { segment: None, error })?;
    numbers.sort_unstable();
    let mut next_segment = numbers.last().map_or(1, |last| last.saturating_add(1));
    let mut parts = Vec::with_capacity(numbers.len());
    for number in numbers {
        parts.push(Part { number, header: header(source, number)?, limit: None });
    }
    // A file whose making was cut short holds nothing.
    while let Some(last) = parts.pop_if(|part| part.header.is_none()) {
        if has_later_groups(source, last.number)? {
            parts.push(last);
            break;
        }
        next_segment = last.number;
    }
    for at in 1..parts.len() {
        let previous = parts[at].header.as_ref().map(|header| header.previous);
        let before = &mut parts[at - 1];
        before.limit = previous
            .filter(|previous| previous.segment == before.number)
            .map(|previous| previous.offset);
    }
    Ok((parts, next_segment))
}

/// Whether a segment without a header has a group that was written after its making was on disk.
fn has_later_groups(source: &impl Segments, segment: u64) -> Result<bool, ReadError> {
    let mut reader = SegmentReader::new(source, Walker::new(segment, None));
    while !matches!(reader.advance()?, Found::End(_)) {
        if reader.walker.group().is_some_and(|group| group > 1) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The checkpoint that the newest segment begins with, or the one before it.
fn newest_checkpoint(
    source: &impl Segments,
    parts: &[Part],
) -> Result<Option<(u64, u64, u16)>, ReadError> {
    for part in parts.iter().rev() {
        let mut reader = SegmentReader::new(source, Walker::new(part.number, part.limit));
        if let Found::Record(Located {
            record: Record::Checkpoint { settled_below, oldest_dead, epoch },
            ..
        }) = reader.advance()?
        {
            return Ok(Some((settled_below, oldest_dead, epoch)));
        }
    }
    Ok(None)
}

/// The last segment that begins at or before `event_id`.
fn first_part(parts: &[Part], event_id: u64) -> usize {
    let begins = |part: &Part| part.header.as_ref().map(|header| header.first_event_id);
    let is_before = |part: &Part| begins(part).is_some_and(|first| first <= event_id);
    parts.iter().rposition(is_before).unwrap_or(0)
}

/// What has been read.
#[derive(Debug, Default)]
struct State {
    /// The first event of which anything is to be learnt.
    from: u64,
    closed: Ranges,
    dead: Ranges,
    last_epoch: Option<u16>,
    /// `None` if what was read last does not tell.
    next_event_id: Option<u64>,
    /// Behind the events of the last record.
    seen_below: u64,
    /// The last record is of a newer program.
    newer: Option<Position>,
    end: Option<Position>,
    torn_bytes: u64,
    last_at: UnixTime,
    damages: Vec<Damage>,
    damages_total: u64,
}

impl State {
    /// Reports segments that have no header, or whose neighbour is not there.
    fn missing(&mut self, parts: &[Part]) {
        for (at, part) in parts.iter().enumerate() {
            let why = match &part.header {
                None => Some(Why::Segment(HeaderFault::Checksum)),
                Some(header) if at > 0 && header.previous.segment != parts[at - 1].number => {
                    Some(Why::Missing)
                }
                Some(_) => None,
            };
            if let Some(why) = why {
                let position = Position { segment: part.number, offset: 0 };
                let until = Header::BYTES as u64;
                self.damage(Damage { position, until, why, expected: None, found: None });
            }
        }
    }

    fn damage(&mut self, damage: Damage) {
        self.damages_total += 1;
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(damage);
        }
    }

    /// Events that no record was read of do not stay open: nobody can post what cannot be read.
    fn lose_until(&mut self, event_id: u64) {
        self.closed.insert_range(self.seen_below..event_id);
    }

    fn walk(&mut self, source: &impl Segments, part: &Part) -> Result<(), ReadError> {
        let mut walker = Walker::new(part.number, part.limit);
        let begins = part.header.as_ref().map(|header| header.first_event_id);
        if let (None, Some(damage)) = (self.next_event_id, self.damages.last_mut())
            && damage.expected.is_some()
            && damage.position.segment != part.number
        {
            // Up to where it reached, the segment behind it says.
            damage.found = damage.found.or(begins);
        }
        if let Some(event_id) = self.next_event_id.or(begins) {
            walker.expect(event_id);
        }
        let mut reader = SegmentReader::new(source, walker);
        loop {
            match reader.advance()? {
                Found::Record(located) => self.record(&located),
                Found::Damage(damage) => {
                    let is_foreign = matches!(damage.why, Why::Record(why) if why.is_foreign());
                    self.newer = is_foreign.then_some(damage.position);
                    self.damage(damage);
                }
                Found::End(end) => {
                    self.end = Some(end.position);
                    self.torn_bytes = end.torn_bytes;
                    break;
                }
            }
        }
        self.next_event_id = reader.walker.next_event_id();
        Ok(())
    }

    fn record(&mut self, located: &Located) {
        let Located { event_id, record, at, .. } = located;
        self.newer = None;
        self.last_at = *at;
        let events = record.events();
        self.lose_until(*event_id);
        self.seen_below = event_id.saturating_add(events);
        if !matches!(record, Record::Accepted(_)) {
            self.closed.insert_range(*event_id..event_id.saturating_add(events));
        }
        match record {
            Record::Settled(settled) => {
                for result in &settled.results {
                    self.closed.insert(result.share_event);
                    self.dead.remove(result.share_event);
                }
            }
            Record::DeadLettered { shares, .. } => {
                for share in shares {
                    self.closed.insert(*share);
                    self.dead.insert(*share);
                }
            }
            Record::Replayed { shares } => {
                for share in shares {
                    if self.dead.remove(*share) {
                        self.closed.remove(*share);
                    }
                }
            }
            Record::Checkpoint { epoch, .. } => self.last_epoch = Some(*epoch),
            _ => (),
        }
    }

    fn finish(
        mut self,
        source: &impl Segments,
        parts: &[Part],
        next_segment: u64,
    ) -> Result<Recovered, RecoverError> {
        if let (None, Some(position)) = (self.next_event_id, self.newer) {
            return Err(RecoverError::Newer(position));
        }
        let next_event_id = self.next_event_id.unwrap_or(1);
        self.lose_until(next_event_id);
        let settled_below = self.closed.first_gap(0).min(next_event_id);
        self.closed.forget_below(settled_below);
        let open = (next_event_id - settled_below).saturating_sub(self.closed.count());
        let dead_total = self.dead.count();
        let dead = self.dead.iter().flatten().take(DEAD_LETTERS_MAX);
        let mut wanted: BTreeMap<u64, Option<Position>> = dead.map(|share| (share, None)).collect();
        let dead: Vec<u64> = wanted.keys().copied().collect();
        if open > 0 {
            wanted.insert(settled_below, None);
        }
        locate(source, parts, &mut wanted)?;
        let position = |share_event: u64| wanted.get(&share_event).copied().flatten();
        let dead = dead.into_iter().map(|share_event| {
            let position = position(share_event);
            DeadLetter { share_event, position }
        });
        let first_open = position(settled_below).filter(|_| open > 0);
        Ok(Recovered {
            gateway_id: parts
                .iter()
                .rev()
                .find_map(|part| part.header.as_ref().map(|header| header.gateway_id.clone())),
            next_event_id,
            next_segment,
            last_epoch: self.last_epoch,
            end: self.end,
            torn_bytes: self.torn_bytes,
            settled_below,
            first_open: first_open.map(|position| (settled_below, position)),
            open,
            closed: self.closed,
            dead: dead.collect(),
            dead_total,
            damages: self.damages,
            damages_total: self.damages_total,
            sealed: sealed(source, parts, self.end, next_event_id, self.last_at)?,
        })
    }
}

/// Finds the records of the shares whose events are wanted.
fn locate(
    source: &impl Segments,
    parts: &[Part],
    wanted: &mut BTreeMap<u64, Option<Position>>,
) -> Result<(), ReadError> {
    let Some(&last) = wanted.keys().next_back() else { return Ok(()) };
    for (at, part) in parts.iter().enumerate() {
        let begins = |part: &Part| part.header.as_ref().map(|header| header.first_event_id);
        let from = begins(part).unwrap_or(0);
        let below = parts.get(at + 1).and_then(begins).unwrap_or(u64::MAX);
        if from > last {
            break;
        }
        if from >= below || wanted.range(from..below).next().is_none() {
            continue;
        }
        let mut reader = SegmentReader::new(source, Walker::new(part.number, part.limit));
        loop {
            match reader.advance()? {
                Found::Record(located) => {
                    if let Record::Accepted(_) = located.record
                        && let Some(position) = wanted.get_mut(&located.event_id)
                    {
                        *position = Some(located.position);
                    }
                    if located.event_id > last {
                        break;
                    }
                }
                Found::Damage(_) => (),
                Found::End(_) => break,
            }
        }
    }
    Ok(())
}

/// The segments as retention sees them.
fn sealed(
    source: &impl Segments,
    parts: &[Part],
    end: Option<Position>,
    next_event_id: u64,
    last_at: UnixTime,
) -> Result<Vec<SealedSegment>, ReadError> {
    let mut sealed = Vec::with_capacity(parts.len());
    // From behind: what a segment does not tell, the next one does.
    let mut below = next_event_id;
    let mut until = last_at;
    for part in parts.iter().rev() {
        let first_event_id = part.header.as_ref().map_or(below, |header| header.first_event_id);
        let is_last = sealed.is_empty();
        let cut = end.filter(|_| is_last).map(|end| end.offset).or(part.limit);
        let bytes = match cut {
            Some(bytes) => bytes,
            None => {
                let segment = Some(part.number);
                source.length(part.number).map_err(|error| ReadError { segment, error })?
            }
        };
        sealed.push(SealedSegment {
            segment: part.number,
            first_event_id,
            next_event_id: below,
            last_at: until,
            bytes,
        });
        below = first_event_id;
        until = part.header.as_ref().map_or(until, |header| header.created_at);
    }
    sealed.reverse();
    Ok(sealed)
}
