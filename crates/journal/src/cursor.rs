//! A reader's place in the journal: record after record, across segments, while the gateway
//! writes or long after.
//!
//! A cursor owns its file and a bounded buffer. It looks for no record before it is told that the
//! record is on disk (`below`), so it never takes bytes that are being written for the end or for
//! damage. What a failed sync left behind it passes over, because the next segment says where the
//! log ends in the one before ([`Header::previous`]).

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use work::UnixTime;

use crate::folder::{Begin, Folder, FolderError, Pruned, read_at};
use crate::segment::{Header, HeaderFault, Position};
use crate::walk::{Damage, Located, Step, Walker, Why};

/// Bytes that are read at once in the middle of the log.
const READ_BYTES_MAX: usize = 256 << 10;

/// Bytes that are read at once at its end, where most of them are not written yet.
const READ_BYTES_MIN: usize = 16 << 10;

/// Segments that may have been begun in vain between two that hold records.
const ABANDONED_MAX: u64 = 16;

/// Damages that are kept to be told.
const DAMAGES_MAX: usize = 64;

/// A reader's place.
#[derive(Debug)]
pub struct Cursor {
    folder: Folder,
    /// `None` as long as there is no segment.
    place: Option<Place>,
    wanted: Wanted,
    buffer: Buffer,
    below: u64,
    /// Where damage was seen, once.
    suspect: Option<Position>,
    damages: Vec<Damage>,
}

/// A place in an open segment.
#[derive(Debug)]
struct Place {
    file: File,
    walker: Walker,
    /// The next segment, once there is one.
    next: Option<Next>,
}

#[derive(Debug, Clone, Copy)]
struct Next {
    segment: u64,
    first_event_id: u64,
    previous: Position,
}

/// Which record is the first to be given.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Any,
    /// One with this event or a later one.
    Event(u64),
    /// One that was appended then or later.
    Time(UnixTime),
}

/// Bytes of the file from `offset` on.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    offset: u64,
    at_once: usize,
    /// The file has no more.
    is_all: bool,
}

impl Cursor {
    fn new(folder: &Folder) -> Cursor {
        Cursor {
            folder: folder.clone(),
            place: None,
            wanted: Wanted::Any,
            buffer: Buffer::default(),
            below: u64::MAX,
            suspect: None,
            damages: Vec::new(),
        }
    }

    /// Before the oldest record that is kept; in an empty journal, before the first that will be.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn at_start(folder: &Folder) -> Result<Cursor, FolderError> {
        let mut cursor = Cursor::new(folder);
        cursor.enter_oldest()?;
        Ok(cursor)
    }

    /// Before the first record that has an event with this number or a later one; at the end of
    /// the log if there is none yet. That record may have earlier events, too.
    ///
    /// # Errors
    /// [`FolderError::Pruned`] if the event is older than all that is kept; otherwise if the log
    /// cannot be read.
    pub fn at_event(folder: &Folder, event_id: u64) -> Result<Cursor, FolderError> {
        let numbers = folder.segments()?;
        let begin = match folder.segment_of_event(&numbers, event_id)? {
            Some(number) => Some(folder.begin(number, |group| group.event_id <= event_id)?),
            None => match folder.oldest_event()? {
                Some(oldest) => return Err(FolderError::Pruned(Pruned { oldest })),
                None => None,
            },
        };
        Cursor::at(folder, begin, Wanted::Event(event_id))
    }

    /// Before the first record that was appended at this time or later, as far as the clock never
    /// went back; at the end of the log if there is none yet, at its start if that is later.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn at_time(folder: &Folder, at: UnixTime) -> Result<Cursor, FolderError> {
        let numbers = folder.segments()?;
        let begin = match folder.segment_at_time(&numbers, at)? {
            Some(number) => Some(folder.begin(number, |group| group.at < at)?),
            None => None,
        };
        Cursor::at(folder, begin, Wanted::Time(at))
    }

    /// Where a record or a group begins.
    ///
    /// # Errors
    /// [`FolderError::Pruned`] if that segment is gone; otherwise if the log cannot be read.
    pub fn at_position(folder: &Folder, position: Position) -> Result<Cursor, FolderError> {
        Cursor::at(folder, Some(Begin { position, event_id: None }), Wanted::Any)
    }

    fn at(folder: &Folder, begin: Option<Begin>, wanted: Wanted) -> Result<Cursor, FolderError> {
        let mut cursor = Cursor { wanted, ..Cursor::new(folder) };
        let Some(Begin { position, event_id }) = begin else { return Ok(cursor) };
        let mut walker = match position.offset {
            0 => Walker::new(position.segment, None),
            _ => Walker::at(position, None),
        };
        if let Some(event_id) = event_id {
            walker.expect(event_id);
        }
        if !cursor.open(walker)? {
            let oldest = folder.oldest_event()?.unwrap_or(u64::MAX);
            return Err(FolderError::Pruned(Pruned { oldest }));
        }
        Ok(cursor)
    }

    /// A second cursor at the same place.
    ///
    /// # Errors
    /// If the system gives no further descriptor.
    pub fn fork(&self) -> Result<Cursor, FolderError> {
        let mut fork = Cursor { wanted: self.wanted, ..Cursor::new(&self.folder) };
        if let Some(Place { file, walker, next }) = &self.place {
            let path = || self.folder.segment_path(walker.segment());
            let file = file.try_clone().map_err(|error| FolderError::Io { path: path(), error })?;
            fork.place = Some(Place { file, walker: walker.clone(), next: *next });
        }
        Ok(fork)
    }

    /// The next record, if it has a number before `below`: everything before that event must be on
    /// disk. `None` if there is none yet; ask again with a higher `below`. With `u64::MAX` it ends
    /// where the log does as it is found.
    ///
    /// # Errors
    /// [`FolderError::Pruned`] if segments were removed before they were read; otherwise if the log
    /// cannot be read. Parts that are damaged are passed over: [`Cursor::damages`].
    pub fn next(&mut self, below: u64) -> Result<Option<Located>, FolderError> {
        if below != self.below {
            // What was read ahead may have been read while it was being written.
            self.buffer.clear();
            self.below = below;
            self.look_ahead()?;
        }
        loop {
            let Some(place) = &self.place else {
                match self.enter_oldest()? {
                    true => continue,
                    false => return Ok(None),
                }
            };
            if place.walker.next_event_id().is_some_and(|next| next >= below) {
                return Ok(None);
            }
            let before = place.walker.clone();
            match self.step()? {
                Step::Record(located) if located.event_id >= below => {
                    self.back_to(before);
                    return Ok(None);
                }
                Step::Record(located) if self.wanted.is_met(&located) => {
                    self.wanted = Wanted::Any;
                    return Ok(Some(located));
                }
                Step::Record(_) | Step::More(_) => {}
                Step::Damage(damage) => self.doubt(before, damage),
                Step::End(_) if self.leave()? => {}
                Step::End(_) => {
                    self.back_to(before);
                    self.look_ahead()?;
                    let is_known = self.place.as_ref().is_some_and(|place| place.next.is_some());
                    if !is_known {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Parts that were passed over because they cannot be read, the first 64 of them.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Where it stands; `None` in an empty journal.
    pub fn position(&self) -> Option<Position> {
        let walker = &self.place.as_ref()?.walker;
        Some(Position { segment: walker.segment(), offset: walker.offset() })
    }

    /// Reads as much as it takes to tell what stands here.
    fn step(&mut self) -> Result<Step, FolderError> {
        let buffer = &mut self.buffer;
        let Some(Place { file, walker, .. }) = &mut self.place else { return Ok(Step::More(0)) };
        let failed = |error, walker: &Walker| {
            let path = self.folder.segment_path(walker.segment());
            FolderError::Io { path, error }
        };
        if !buffer.covers(walker.offset()) {
            buffer.fill(file, walker.offset(), 0).map_err(|error| failed(error, walker))?;
        }
        loop {
            match walker.step(buffer.from(walker.offset()), buffer.is_all) {
                Step::More(count) => buffer
                    .fill(file, walker.offset(), count)
                    .map_err(|error| failed(error, walker))?,
                step => return Ok(step),
            }
        }
    }

    fn back_to(&mut self, before: Walker) {
        self.buffer.clear();
        if let Some(place) = &mut self.place {
            place.walker = before;
        }
    }

    /// Damage in a segment that may still be written is believed when it is seen twice: bytes that
    /// were just being written the first time, before the group behind them was, are whole the
    /// second time.
    fn doubt(&mut self, before: Walker, damage: Damage) {
        let is_written = self.place.as_ref().is_some_and(|place| place.next.is_none());
        if is_written && self.suspect != Some(damage.position) {
            self.suspect = Some(damage.position);
            self.back_to(before);
        } else {
            self.note(damage);
        }
    }

    fn note(&mut self, damage: Damage) {
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(damage);
        }
    }

    /// Leaves a segment for the next one; `false` if none is known.
    fn leave(&mut self) -> Result<bool, FolderError> {
        let Some(Place { walker, next: Some(next), .. }) = &self.place else { return Ok(false) };
        let (from, expected) = (walker.segment(), walker.next_event_id());
        let next = *next;
        let before = next.previous.segment;
        let mut walker = Walker::new(next.segment, None);
        if before > from {
            // Segments are missing between the two, or the header of one cannot be read.
            let missing = before.min(next.segment.saturating_sub(1));
            walker = Walker::new(missing, None);
            self.note(Damage {
                position: Position { segment: missing, offset: 0 },
                until: Header::BYTES as u64,
                why: Why::Segment(HeaderFault::Checksum),
                expected,
                found: None,
            });
        }
        let first = (before <= from).then_some(next.first_event_id);
        match (expected, first) {
            (Some(expected), Some(first)) => walker.expect(expected.min(first)),
            (expected, first) => {
                if let Some(event_id) = first.or(expected) {
                    walker.expect(event_id);
                }
            }
        }
        if !self.open(walker)? {
            return Err(FolderError::Pruned(Pruned { oldest: next.first_event_id }));
        }
        Ok(true)
    }

    /// Opens the oldest segment; `false` if there is none.
    fn enter_oldest(&mut self) -> Result<bool, FolderError> {
        for number in self.folder.segments()? {
            if let Some(header) = self.folder.header(number)? {
                let mut walker = Walker::new(number, None);
                walker.expect(header.first_event_id);
                if self.open(walker)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Opens the walker's segment; `false` if it is gone.
    fn open(&mut self, walker: Walker) -> Result<bool, FolderError> {
        let Some(file) = self.folder.file(walker.segment())? else { return Ok(false) };
        self.place = Some(Place { file, walker, next: None });
        self.buffer.clear();
        self.look_ahead()?;
        Ok(true)
    }

    /// Looks for the next segment.
    fn look_ahead(&mut self) -> Result<(), FolderError> {
        let Some(place) = &mut self.place else { return Ok(()) };
        if place.next.is_some() {
            return Ok(());
        }
        let current = place.walker.segment();
        let mut candidates: Vec<u64> = (current + 1..=current + ABANDONED_MAX).collect();
        if place.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0) {
            // A segment that was removed has one after it, however far away.
            candidates = self.folder.segments()?;
            candidates.retain(|number| *number > current);
        }
        for segment in candidates {
            if let Some(header) = self.folder.header(segment)? {
                let Header { first_event_id, previous, .. } = header;
                place.next = Some(Next { segment, first_event_id, previous });
                match previous.segment {
                    // It goes on with an earlier segment: this one was begun in vain.
                    before if before < current && before > 0 => {
                        place.walker.set_limit(Header::BYTES as u64);
                    }
                    before if before == current => place.walker.set_limit(previous.offset),
                    // Of another journal, or one between them is missing.
                    _ => {}
                }
                self.buffer.clear();
                break;
            }
        }
        Ok(())
    }
}

impl Wanted {
    fn is_met(self, located: &Located) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Event(event_id) => {
                located.event_id.saturating_add(located.record.events()) > event_id
            }
            Wanted::Time(at) => located.at >= at,
        }
    }
}

impl Buffer {
    fn clear(&mut self) {
        self.bytes.clear();
        self.at_once = 0;
        self.is_all = false;
    }

    fn covers(&self, offset: u64) -> bool {
        !self.from(offset).is_empty()
    }

    /// What there is from `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        let skipped = offset.checked_sub(self.offset).and_then(|skip| usize::try_from(skip).ok());
        skipped.and_then(|skip| self.bytes.get(skip..)).unwrap_or_default()
    }

    /// Reads from `offset` on, at least `count` bytes if the file has so many.
    fn fill(&mut self, file: &File, offset: u64, count: usize) -> std::io::Result<()> {
        self.at_once = (self.at_once * 2).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        self.bytes.resize(self.at_once.max(count), 0);
        self.offset = offset;
        let length = read_at(file, &mut self.bytes, offset);
        let read = *length.as_ref().unwrap_or(&0);
        self.is_all = read < self.bytes.len();
        self.bytes.truncate(read);
        length.map(drop)
    }
}
