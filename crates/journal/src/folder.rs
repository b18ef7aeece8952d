//! The journal in a folder: which segments there are, and where in them to begin to read.
//!
//! This and [`crate::cursor`] are the only parts that touch files, and they only read. They may
//! do so while the gateway writes, from any process: what is read never waits for anybody, and
//! nobody waits for a reader.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use work::UnixTime;

pub use crate::cursor::Cursor;
use crate::index::{self, IndexEntry};
pub use crate::miners::Miners;
use crate::record::Record;
use crate::segment::{
    GROUP_HEADER_BYTES, GroupHeader, Header, HeaderFault, Position, SECTOR_BYTES, file_name,
    file_number, index_name,
};
use crate::walk::Located;

/// How much later than its acceptance a share may have been written, milliseconds.
const WRITTEN_LATE_MILLIS: u64 = 3_600_000;

/// By how much the clock may have been set back between records, milliseconds.
const CLOCK_BACK_MILLIS: u64 = 1_000;

/// Bytes that are read at once when headers of groups are looked through.
const GROUPS_READ_BYTES: usize = 256 << 10;

/// Bytes of an index file at most.
const INDEX_FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the journal cannot be read.
#[derive(Debug)]
pub enum FolderError {
    /// The system says so.
    Io {
        /// File or folder.
        path: PathBuf,
        /// Its words.
        error: io::Error,
    },
    /// A segment of another layout.
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        fault: HeaderFault,
    },
    /// What was asked for is no longer kept.
    Pruned(Pruned),
    /// Rows could not be written into memory.
    Unwritten {
        /// What was said.
        why: String,
    },
}

/// The event that was asked for is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// The oldest event that is.
    pub oldest: u64,
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FolderError::Io { path, error } => {
                write!(f, "{}: {error}; the journal cannot be read there", path.display())
            }
            FolderError::Layout { path, fault } => write!(f, "{}: {fault}", path.display()),
            FolderError::Pruned(pruned) => pruned.fmt(f),
            FolderError::Unwritten { why } => write!(f, "a row could not be written: {why}"),
        }
    }
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let oldest = self.oldest;
        write!(
            f,
            "events before {oldest} are no longer kept (share_retention_days); read from there"
        )
    }
}

impl std::error::Error for FolderError {}

impl std::error::Error for Pruned {}

/// A folder with a journal.
#[derive(Debug, Clone)]
pub struct Folder {
    path: Arc<Path>,
}

impl Folder {
    /// The journal in `path`; it may be empty.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn open(path: impl Into<PathBuf>) -> Result<Folder, FolderError> {
        let path: PathBuf = path.into();
        match fs::read_dir(&path) {
            Ok(_) => Ok(Folder { path: path.into() }),
            Err(error) => Err(FolderError::Io { path, error }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Numbers of its segments, rising.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    pub fn segments(&self) -> Result<Vec<u64>, FolderError> {
        let failed = |error| FolderError::Io { path: self.path.to_path_buf(), error };
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(name.to_str().and_then(file_number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Name of the gateway whose journal it is; `None` if it is empty.
    ///
    /// # Errors
    /// If a segment cannot be read.
    pub fn gateway_id(&self) -> Result<Option<String>, FolderError> {
        for number in self.segments()?.into_iter().rev() {
            if let Some(header) = self.header(number)? {
                return Ok(Some(header.gateway_id));
            }
        }
        Ok(None)
    }

    /// The oldest event that is kept; `None` if the journal is empty.
    ///
    /// # Errors
    /// If a segment cannot be read.
    pub fn oldest_event(&self) -> Result<Option<u64>, FolderError> {
        for number in self.segments()? {
            if let Some(header) = self.header(number)? {
                return Ok(Some(header.first_event_id));
            }
        }
        Ok(None)
    }

    /// The record with event `event_id`, if it is kept and before `below`.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn find_event(&self, event_id: u64, below: u64) -> Result<Option<Located>, FolderError> {
        let mut cursor = match Cursor::at_event(self, event_id) {
            Err(FolderError::Pruned(_)) => return Ok(None),
            cursor => cursor?,
        };
        let has_it = |located: &Located| {
            let after = located.event_id.saturating_add(located.record.events());
            (located.event_id..after).contains(&event_id)
        };
        Ok(cursor.next(below)?.filter(has_it))
    }

    /// The record of the share with this ULID, accepted or refused, if it is kept and before event
    /// `below`. An accepted one is found by the index; for a refused one the minute around its time
    /// is read.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn find_share(&self, share_id: u128, below: u64) -> Result<Option<Located>, FolderError> {
        let millis = u64::try_from(share_id >> 80).unwrap_or(u64::MAX);
        let numbers = self.segments()?;
        let first = self.segment_at_time(&numbers, UnixTime(millis))?;
        for number in numbers.iter().copied().skip_while(|number| Some(*number) < first) {
            let header = self.header(number)?;
            let latest = millis.saturating_add(WRITTEN_LATE_MILLIS);
            if header.is_some_and(|header| header.created_at.0 > latest) {
                break;
            }
            if let Some(found) = self.find_accepted(number, share_id, millis, below)? {
                return Ok(Some(found));
            }
        }
        self.find_refused(share_id, millis, below)
    }

    fn find_accepted(
        &self,
        number: u64,
        share_id: u128,
        millis: u64,
        below: u64,
    ) -> Result<Option<Located>, FolderError> {
        let is_it = |located: &Located| match &located.record {
            Record::Accepted(share) => share.share_id == share_id,
            _ => false,
        };
        // Without an index, the whole segment is one part.
        let entries = self.index(number)?.unwrap_or_else(|| vec![whole()]);
        for (at, entry) in entries.iter().enumerate() {
            if !(entry.min_share_ms..=entry.max_share_ms).contains(&millis) {
                continue;
            }
            let end = entries.get(at + 1).map_or(u64::MAX, |next| next.offset);
            let position = Position { segment: number, offset: entry.offset };
            let mut cursor = Cursor::at_position(self, position)?;
            while let Some(located) = cursor.next(below)?
                && located.position < (Position { segment: number, offset: end })
            {
                if is_it(&located) {
                    return Ok(Some(located));
                }
            }
        }
        Ok(None)
    }

    fn find_refused(
        &self,
        share_id: u128,
        millis: u64,
        below: u64,
    ) -> Result<Option<Located>, FolderError> {
        let is_it = |located: &Located| match &located.record {
            Record::Refused(refusal) => refusal.share_id == share_id,
            _ => false,
        };
        let begin = UnixTime(millis.saturating_sub(CLOCK_BACK_MILLIS));
        let mut cursor = Cursor::at_time(self, begin)?;
        while let Some(located) = cursor.next(below)?
            && located.at.0 <= millis.saturating_add(REFUSED_LATE_MILLIS)
        {
            if is_it(&located) {
                return Ok(Some(located));
            }
        }
        Ok(None)
    }

    /// The index of a segment; `None` if it has none, which is so of the newest, or a broken one.
    fn index(&self, number: u64) -> Result<Option<Vec<IndexEntry>>, FolderError> {
        let path = self.path.join(index_name(number));
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= INDEX_FILE_BYTES_MAX => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FolderError::Io { path, error }),
        }
        match fs::read(&path) {
            Ok(bytes) => Ok(index::decode(&bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FolderError::Io { path, error }),
        }
    }

    /// Where in segment `number` to begin to read for the first record for which `is_before` is
    /// false: the last place where it is known to be true, or the segment's beginning.
    pub(crate) fn begin(
        &self,
        number: u64,
        is_before: impl Fn(Group) -> bool,
    ) -> Result<Begin, FolderError> {
        let group = |entry: &IndexEntry| Group {
            offset: entry.offset,
            event_id: entry.event_id,
            at: UnixTime(entry.at),
        };
        let last = match self.index(number)? {
            Some(entries) => entries.iter().map(group).take_while(|group| is_before(*group)).last(),
            None => self.last_group(number, is_before)?,
        };
        if let Some(Group { offset, event_id, .. }) = last {
            let position = Position { segment: number, offset };
            return Ok(Begin { position, event_id: Some(event_id) });
        }
        let position = Position { segment: number, offset: 0 };
        let event_id = self.header(number)?.map(|header| header.first_event_id);
        Ok(Begin { position, event_id })
    }

    /// The last of the groups at a segment's beginning for which `is_before` is true, from header
    /// to header, without a look at their records.
    fn last_group(
        &self,
        number: u64,
        is_before: impl Fn(Group) -> bool,
    ) -> Result<Option<Group>, FolderError> {
        let Some(file) = self.file(number)? else { return Ok(None) };
        let mut bytes = vec![0; GROUPS_READ_BYTES];
        let (mut begin, mut length) = (0, 0);
        let (mut offset, mut last) = (SECTOR_BYTES, None);
        loop {
            if offset + GROUP_HEADER_BYTES as u64 > begin + length as u64 {
                begin = offset;
                length = read_at(&file, &mut bytes, begin)
                    .map_err(|error| FolderError::Io { path: self.segment_path(number), error })?;
            }
            let place = usize::try_from(offset - begin).unwrap_or(usize::MAX);
            let header = bytes[..length].get(place..).map(GroupHeader::decode);
            let Some(Ok(header)) = header else { return Ok(last) };
            let group = Group { offset, event_id: header.first_event_id, at: header.at };
            if !is_before(group) {
                return Ok(last);
            }
            last = Some(group);
            offset += header.whole_bytes();
        }
    }

    /// The segment in which event `event_id` is, if it is anywhere.
    pub(crate) fn segment_of_event(
        &self,
        numbers: &[u64],
        event_id: u64,
    ) -> Result<Option<u64>, FolderError> {
        self.last_segment(numbers, |header| header.first_event_id <= event_id)
    }

    /// The last segment that was begun before `at`; the first if none was.
    pub(crate) fn segment_at_time(
        &self,
        numbers: &[u64],
        at: UnixTime,
    ) -> Result<Option<u64>, FolderError> {
        let before = at.0.saturating_sub(CLOCK_BACK_MILLIS);
        let found = self.last_segment(numbers, |header| header.created_at.0 < before)?;
        Ok(found.or(numbers.first().copied()))
    }

    /// The last segment whose header `is_before`, by halves; one without a readable header counts
    /// as the one before it.
    fn last_segment(
        &self,
        numbers: &[u64],
        is_before: impl Fn(&Header) -> bool,
    ) -> Result<Option<u64>, FolderError> {
        let (mut low, mut high) = (0, numbers.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let mut readable = middle;
            let header = loop {
                match self.header(numbers[readable])? {
                    Some(header) => break Some(header),
                    None if readable > low => readable -= 1,
                    None => break None,
                }
            };
            match header {
                Some(header) if !is_before(&header) => high = readable,
                _ => low = middle + 1,
            }
        }
        Ok(low.checked_sub(1).map(|last| numbers[last]))
    }

    /// The header of a segment; `None` if the segment is gone, not yet begun, or its header is
    /// broken.
    pub(crate) fn header(&self, number: u64) -> Result<Option<Header>, FolderError> {
        let Some(file) = self.file(number)? else { return Ok(None) };
        let mut bytes = [0; Header::BYTES];
        let path = || self.segment_path(number);
        let length = read_at(&file, &mut bytes, 0)
            .map_err(|error| FolderError::Io { path: path(), error })?;
        match Header::decode(&bytes[..length]) {
            Ok(header) => Ok(Some(header)),
            Err(fault @ HeaderFault::Version(_)) => {
                Err(FolderError::Layout { path: path(), fault })
            }
            Err(_) => Ok(None),
        }
    }

    /// The file of a segment; `None` if it is gone.
    pub(crate) fn file(&self, number: u64) -> Result<Option<File>, FolderError> {
        let path = self.segment_path(number);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FolderError::Io { path, error }),
        }
    }

    pub(crate) fn segment_path(&self, number: u64) -> PathBuf {
        self.path.join(file_name(number))
    }
}

/// How long a refused share may have waited to be written, milliseconds.
const REFUSED_LATE_MILLIS: u64 = 60_000;

/// What is known of a group without a look at its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    /// Where it begins.
    pub offset: u64,
    /// `event_id` of its first record.
    pub event_id: u64,
    /// When that was appended.
    pub at: UnixTime,
}

/// A place to begin to read at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin {
    /// A group, or offset 0 for the beginning of a segment.
    pub position: Position,
    /// Number of the record there, if it is known.
    pub event_id: Option<u64>,
}

/// A part that may hold every share.
fn whole() -> IndexEntry {
    let offset = SECTOR_BYTES;
    IndexEntry { offset, event_id: 0, at: 0, min_share_ms: 0, max_share_ms: u64::MAX }
}

/// Reads until `bytes` are full or the file ends; how many.
///
/// # Errors
/// The disk's.
pub fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
