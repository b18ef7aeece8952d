//! The journal's files: does to them what the forwarder machine says, one thing at a time.
//!
//! Plain system calls on the forwarder core, which has nothing else to do until a group is on disk:
//! what arrives meanwhile is in the next one. An await of glommio's files in its place was seen to
//! sleep for good (docs/decisions.md).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use journal::folder::read_at;
use journal::segment::{file_name, index_name};
use journal::writer::{DiskAction, DiskDone, DiskFault};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use tracing::{info, warn};

use super::clock::Clock;

/// Files may hold names of miners: they are ours alone.
const MODE: u32 = 0o600;

/// The folder of the journal.
pub struct Disk {
    folder: PathBuf,
    clock: Clock,
    /// The segment that is written to.
    written: Option<(u64, File)>,
    /// The segment that was read last.
    read: Option<(u64, File)>,
    /// How long the last sync took.
    sync: Option<Duration>,
}

impl Disk {
    /// Segments of this folder, which exists.
    pub fn new(folder: PathBuf, clock: Clock) -> Disk {
        Disk { folder, clock, written: None, read: None, sync: None }
    }

    /// How long the last sync took, if there was one since the last question.
    pub fn take_sync(&mut self) -> Option<Duration> {
        self.sync.take()
    }

    /// Bytes that are free here, as far as this process may use them.
    pub fn free_bytes(&self) -> Option<u64> {
        let space = statvfs(&self.folder).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Do it, and say what came of it.
    pub fn perform(&mut self, action: DiskAction) -> DiskDone {
        let done = match &action {
            DiskAction::Create { segment, header, bytes } => self.create(*segment, header, *bytes),
            DiskAction::Write { segment, offset, bytes } => self.write(*segment, *offset, bytes),
            DiskAction::Sync { segment } => self.sync(*segment),
            DiskAction::Seal { segment, length, index } => self.seal(*segment, *length, index),
            DiskAction::Remove { segment } => self.remove(*segment),
            DiskAction::Read { segment, offset, length } => self.read(*segment, *offset, *length),
        };
        done.unwrap_or_else(|error| {
            let what = match action {
                DiskAction::Create { .. } => "create",
                DiskAction::Write { .. } => "write",
                DiskAction::Sync { .. } => "sync",
                DiskAction::Seal { .. } => "seal",
                DiskAction::Remove { .. } => "remove",
                DiskAction::Read { .. } => "read",
            };
            warn!(what, %error, "the journal's disk");
            DiskDone::Failed(fault(&error))
        })
    }

    fn segment_path(&self, segment: u64) -> PathBuf {
        self.folder.join(file_name(segment))
    }

    /// The segment exists, with its header and its room, when this returns.
    fn create(&mut self, segment: u64, header: &[u8], bytes: u64) -> io::Result<DiskDone> {
        let file = open(&self.segment_path(segment), true)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // Not every file system can; then a sync has some more to write.
            Ok(()) | Err(Errno::OPNOTSUPP) => (),
            Err(error) => return Err(error.into()),
        }
        file.write_all_at(header, 0)?;
        file.sync_data()?;
        self.sync_folder()?;
        self.written = Some((segment, file));
        info!(segment, "a new segment of the journal");
        Ok(DiskDone::Done)
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<DiskDone> {
        let written = self.written(segment)?.write_at(bytes, offset)?;
        Ok(if written == bytes.len() { DiskDone::Done } else { DiskDone::Short(written as u64) })
    }

    fn sync(&mut self, segment: u64) -> io::Result<DiskDone> {
        let began = self.clock.now().mono;
        self.written(segment)?.sync_data()?;
        self.sync = Some(self.clock.now().mono - began);
        Ok(DiskDone::Done)
    }

    /// Cut off the room that was not used, and write the index beside it. A lost index is made
    /// again by whoever reads.
    fn seal(&mut self, segment: u64, length: u64, index: &[u8]) -> io::Result<DiskDone> {
        let file = open(&self.segment_path(segment), false)?;
        file.set_len(length)?;
        file.sync_data()?;
        let path = self.folder.join(index_name(segment));
        if let Err(error) = open(&path, true).and_then(|file| file.write_all_at(index, 0)) {
            warn!(segment, %error, "the index of a segment was not written");
        }
        Ok(DiskDone::Done)
    }

    fn remove(&mut self, segment: u64) -> io::Result<DiskDone> {
        for name in [file_name(segment), index_name(segment)] {
            match fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => (),
            }
        }
        self.sync_folder()?;
        info!(segment, "a segment of the journal was older than its retention");
        Ok(DiskDone::Done)
    }

    fn read(&mut self, segment: u64, offset: u64, length: usize) -> io::Result<DiskDone> {
        if self.read.as_ref().is_none_or(|(open, _)| *open != segment) {
            self.read = Some((segment, File::open(self.segment_path(segment))?));
        }
        let Some((_, file)) = &self.read else { return Ok(DiskDone::Read(Vec::new())) };
        let mut bytes = vec![0; length];
        // Fewer bytes than asked for mean the end of the file only if there are none behind them.
        let count = read_at(file, &mut bytes, offset)?;
        bytes.truncate(count);
        Ok(DiskDone::Read(bytes))
    }

    fn written(&mut self, segment: u64) -> io::Result<&File> {
        if self.written.as_ref().is_none_or(|(open, _)| *open != segment) {
            self.written = Some((segment, open(&self.segment_path(segment), false)?));
        }
        match &self.written {
            Some((_, file)) => Ok(file),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

fn open(path: &Path, is_new: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(is_new).truncate(is_new).mode(MODE).open(path)
}

fn fault(error: &io::Error) -> DiskFault {
    let code = error.raw_os_error().unwrap_or(0);
    let no_space = [Errno::NOSPC, Errno::DQUOT];
    match no_space.iter().any(|errno| errno.raw_os_error() == code) {
        true => DiskFault::NoSpace,
        false => DiskFault::Io(code),
    }
}
