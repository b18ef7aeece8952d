//! Where segments are read from, and a reader of one of them.

use crate::segment::Header;
use crate::walk::{Damage, End, Located, Step, Walker};

/// Bytes read at once.
pub const READ_BYTES: usize = 256 << 10;

/// The segments of a journal: files, or memory in tests.
pub trait Segments {
    /// Their numbers, in any order.
    ///
    /// # Errors
    /// What the operating system said.
    fn numbers(&self) -> Result<Vec<u64>, String>;

    /// Bytes of one of them; 0 if there is none of that number.
    ///
    /// # Errors
    /// What the operating system said.
    fn length(&self, number: u64) -> Result<u64, String>;

    /// Up to `length` bytes of it from `offset` on; fewer only at its end.
    ///
    /// # Errors
    /// What the operating system said.
    fn read(&self, number: u64, offset: u64, length: usize) -> Result<Vec<u8>, String>;
}

/// A journal, or a part of it, that the disk did not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// Segment; `None` for the folder.
    pub segment: Option<u64>,
    /// What the operating system said.
    pub error: String,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.segment.map_or("the folder".into(), crate::segment::file_name);
        write!(f, "{name} cannot be read: {}; check the disk of data_dir", self.error)
    }
}

impl std::error::Error for ReadError {}

/// What a segment holds next.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are records, and none is kept")]
pub enum Found {
    /// A record.
    Record(Located),
    /// Unreadable bytes, which are stepped over.
    Damage(Damage),
    /// Nothing more.
    End(End),
}

/// Reads one segment from a [`Walker`]'s offset on. Holds a bounded part of it.
pub struct SegmentReader<'a, S> {
    source: &'a S,
    /// What has been read and what comes next in it.
    pub walker: Walker,
    /// Bytes of the segment; `None` before the first that were read.
    length: Option<u64>,
    buffer: Vec<u8>,
    /// Offset of the buffer's first byte.
    start: u64,
}

impl<'a, S: Segments> SegmentReader<'a, S> {
    /// A reader that begins where `walker` stands.
    pub fn new(source: &'a S, walker: Walker) -> SegmentReader<'a, S> {
        let start = walker.offset();
        SegmentReader { source, walker, length: None, buffer: Vec::new(), start }
    }

    /// The next of it.
    ///
    /// # Errors
    /// [`ReadError`] if the source cannot be read.
    pub fn advance(&mut self) -> Result<Found, ReadError> {
        loop {
            let passed = usize::try_from(self.walker.offset() - self.start).unwrap_or(usize::MAX);
            let rest = self.buffer.get(passed..).unwrap_or_default();
            let end = self.walker.offset() + rest.len() as u64;
            let is_all = self.length.is_some_and(|length| end >= length);
            match self.walker.step(rest, is_all) {
                Step::Record(located) => return Ok(Found::Record(located)),
                Step::Damage(damage) => return Ok(Found::Damage(damage)),
                Step::End(end) => return Ok(Found::End(end)),
                Step::More(bytes) => self.fill(bytes)?,
            }
        }
    }

    /// Makes at least `bytes` from the walker's offset on available, or all that there are.
    fn fill(&mut self, bytes: usize) -> Result<(), ReadError> {
        let passed = usize::try_from(self.walker.offset() - self.start).unwrap_or(usize::MAX);
        self.buffer.drain(..passed.min(self.buffer.len()));
        self.start = self.walker.offset();
        let segment = self.walker.segment();
        let failed = |error| ReadError { segment: Some(segment), error };
        let length = match self.length {
            Some(length) => length,
            None => self.source.length(segment).map_err(failed)?,
        };
        let at = self.start + self.buffer.len() as u64;
        let room = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = bytes.max(READ_BYTES).saturating_sub(self.buffer.len()).min(room);
        let read = self.source.read(segment, at, wanted).map_err(failed)?;
        // If it has become shorter since, what is missing is missing.
        let is_short = read.len() < wanted;
        self.length = Some(if is_short { at + read.len() as u64 } else { length });
        self.buffer.extend_from_slice(&read);
        Ok(())
    }
}

/// The header of a segment; `None` if it has none that can be read.
///
/// # Errors
/// [`ReadError`] if the source cannot be read.
pub fn header(source: &impl Segments, segment: u64) -> Result<Option<Header>, ReadError> {
    let bytes = source.read(segment, 0, Header::BYTES);
    let bytes = bytes.map_err(|error| ReadError { segment: Some(segment), error })?;
    Ok(crate::walk::segment_header(segment, &bytes).ok())
}
