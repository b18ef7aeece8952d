//! What a start does to a journal's files: reads them for recovery, and cuts off what never was on
//! disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::folder::{Folder, read_at};
use crate::recover::UNSURE_BYTES_MAX;
use crate::segment::{Position, file_name};
use crate::source::Segments;

impl Segments for Folder {
    fn numbers(&self) -> Result<Vec<u64>, String> {
        self.segments().map_err(|error| error.to_string())
    }

    fn length(&self, number: u64) -> Result<u64, String> {
        match fs::metadata(self.path().join(file_name(number))) {
            Ok(file) => Ok(file.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.to_string()),
        }
    }

    fn read(&self, number: u64, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let read = || -> io::Result<Vec<u8>> {
            let file = File::open(self.path().join(file_name(number)))?;
            let mut bytes = vec![0; length];
            let count = read_at(&file, &mut bytes, offset)?;
            bytes.truncate(count);
            Ok(bytes)
        };
        read().map_err(|error| error.to_string())
    }
}

impl Folder {
    /// Cut the last segment to where the log ends, and have it and the folder on disk. A process
    /// that was killed leaves bytes that can be read and are not on disk, so this is done even if
    /// there is nothing to cut.
    ///
    /// The last bytes are written again: after a sync that failed, pages that never reached the
    /// disk count as clean, can be read, and no later sync writes them.
    ///
    /// # Errors
    /// The disk's.
    pub fn cut(&self, end: Position) -> io::Result<()> {
        let path = self.path().join(file_name(end.segment));
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        file.set_len(end.offset)?;
        let from = end.offset.saturating_sub(UNSURE_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(end.offset - from).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, from)?;
        file.write_all_at(&bytes, from)?;
        file.sync_all()?;
        File::open(self.path())?.sync_all()
    }
}
