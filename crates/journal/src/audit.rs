//! The books of a whole folder: reads every byte of every segment, and says whether it adds up.
//!
//! It reads segments as a start of the gateway does, so it finds what a cursor may pass over:
//! groups and records that were taken out, whether or not they carried events. A journal that is
//! just being written may be audited, too: what is found at its end is read again before it is
//! called damaged.

use std::fs::File;

use crate::books::{Books, Verdict};
use crate::folder::{Folder, FolderError, read_at};
use crate::segment::{Header, Position, SECTOR_BYTES};
use crate::walk::{Step, Walker};

/// Bytes that are read at once; more only for a record that needs them.
const WINDOW_BYTES: usize = 1 << 20;

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// What the books say.
    pub verdict: Verdict,
    /// Whose journal it is; empty if there is none.
    pub gateway_id: String,
    /// First and last segment; `None` in an empty journal.
    pub segments: Option<(u64, u64)>,
    /// Where the log ends.
    pub end: Position,
    /// Bytes behind that of a write that was never known to be on disk: no fault.
    pub torn_bytes: u64,
}

/// Reads the journal in `folder` from its first byte to its last.
///
/// # Errors
/// If it cannot be read, or segments are removed meanwhile.
pub fn audit(folder: &Folder) -> Result<Audit, FolderError> {
    let numbers = folder.segments()?;
    let mut headers = Vec::with_capacity(numbers.len());
    for number in &numbers {
        headers.push((*number, folder.header(*number)?));
    }
    let mut auditor = Auditor { books: Books::new(), end: Position::default(), torn_bytes: 0 };
    for (at, (number, header)) in headers.iter().enumerate() {
        let limit = match limit(*number, &headers[at + 1..]) {
            Limit::Abandoned => continue,
            Limit::Newest => None,
            Limit::At(offset) => Some(offset),
            Limit::Unknown => {
                let position = Position { segment: number + 1, offset: 0 };
                auditor.books.take_damage(position, "the segment is missing");
                None
            }
        };
        if header.is_none() && at + 1 < headers.len() {
            let position = Position { segment: *number, offset: 0 };
            auditor.books.take_damage(position, "the header of the segment cannot be read");
        }
        // It may be removed since the list was made; its events are then missed.
        if let Some(file) = folder.file(*number)? {
            auditor.walk(folder, *number, &file, limit, at + 1 == headers.len())?;
        }
    }
    let first = headers.first().map(|(number, _)| *number);
    let gateway_id = headers.iter().rev().find_map(|(_, header)| header.as_ref());
    Ok(Audit {
        verdict: auditor.books.finish(),
        gateway_id: gateway_id.map(|header| header.gateway_id.clone()).unwrap_or_default(),
        segments: first.zip(headers.last().map(|(number, _)| *number)),
        end: auditor.end,
        torn_bytes: auditor.torn_bytes,
    })
}

/// Where a segment ends, as the segments behind it say.
enum Limit {
    /// Here.
    At(u64),
    /// Nobody says: it is the last.
    Newest,
    /// The log went on elsewhere: it was begun in vain.
    Abandoned,
    /// The segment that would say is missing.
    Unknown,
}

fn limit(number: u64, behind: &[(u64, Option<Header>)]) -> Limit {
    let Some((next, header)) =
        behind.iter().find_map(|(next, header)| Some((*next, header.as_ref()?)))
    else {
        return Limit::Newest;
    };
    let previous = header.previous;
    if previous.segment == number {
        Limit::At(previous.offset)
    } else if previous.segment < number {
        Limit::Abandoned
    } else if behind.iter().any(|(n, _)| *n == previous.segment && *n < next) {
        // The one between is there, its header cannot be read.
        Limit::At(u64::MAX)
    } else {
        Limit::Unknown
    }
}

struct Auditor {
    books: Books,
    end: Position,
    torn_bytes: u64,
}

impl Auditor {
    fn walk(
        &mut self,
        folder: &Folder,
        segment: u64,
        file: &File,
        limit: Option<u64>,
        is_newest: bool,
    ) -> Result<(), FolderError> {
        let length = |file: &File| file.metadata().map(|metadata| metadata.len());
        let failed = |error| FolderError::Io { path: folder.segment_path(segment), error };
        let end = length(file).map_err(failed)?;
        let limit = limit.map(|limit| if limit == u64::MAX { end } else { limit });
        let mut walker = Walker::new(segment, limit);
        let (mut window, mut begin, mut wanted) = (Vec::new(), SECTOR_BYTES, WINDOW_BYTES);
        // Where the walk stood behind the last thing that was understood.
        let (mut anchor, mut is_second_look) = (walker.clone(), false);
        loop {
            let from = walker.offset();
            if !(begin..begin + window.len() as u64).contains(&from) {
                window.resize(wanted, 0);
                let read = read_at(file, &mut window, from).map_err(failed)?;
                window.truncate(read);
                begin = from;
            }
            let skip = usize::try_from(from - begin).unwrap_or(usize::MAX);
            let step = walker.step(window.get(skip..).unwrap_or_default(), window.len() < wanted);
            match step {
                Step::More(count) => {
                    wanted = wanted.max(count);
                    window.clear();
                    continue;
                }
                Step::Damage(_) if is_newest && !is_second_look => {
                    // It may have been read while it was being written.
                    (walker, is_second_look) = (anchor.clone(), true);
                    window.clear();
                    continue;
                }
                Step::Record(located) => self.books.take(&located),
                Step::Damage(damage) => {
                    self.books.take_damage(damage.position, &damage.to_string());
                }
                Step::End(end) => {
                    (self.end, self.torn_bytes) = (end.position, end.torn_bytes);
                    return Ok(());
                }
            }
            (anchor, is_second_look) = (walker.clone(), false);
        }
    }
}
