//! A writer with a folder behind it, driven step by step.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use journal::Record;
use journal::segment::Position;
use journal::writer::{DiskAction, DiskDone, DiskFault, Start, Writer, WriterSettings};
use work::{Mono, UnixTime};

/// A journal under construction.
pub struct Disk {
    folder: PathBuf,
    writer: Writer,
    now: Mono,
    /// Every so many actions fail; 0 for none.
    pub faulty: u64,
    actions: u64,
}

impl Disk {
    /// An empty journal in `folder`, with segments of `segment_bytes`.
    pub fn new(folder: &Path, segment_bytes: u64) -> Disk {
        let start = Start {
            next_segment: 1,
            next_event_id: 1,
            epoch: 1,
            previous: Position::default(),
            settled_below: 1,
            oldest_dead: u64::MAX,
            sealed: Vec::new(),
        };
        let settings = WriterSettings { segment_bytes, ..WriterSettings::new("gw-1") };
        let writer = Writer::new(settings, start);
        Disk { folder: folder.to_owned(), writer, now: Mono(0), faulty: 0, actions: 0 }
    }

    /// Appends; writes and syncs when there is no room.
    pub fn append(&mut self, at: UnixTime, record: &Record) -> u64 {
        if !self.writer.has_room() {
            self.sync();
        }
        self.writer.append(at, record)
    }

    /// Everything that was appended is on disk.
    pub fn sync(&mut self) {
        while self.step() {}
        assert_eq!(self.writer.durable_event_id(), self.writer.next_event_id());
    }

    /// One action of the writer; `false` if it has none.
    pub fn step(&mut self) -> bool {
        self.now = self.now.plus_millis(1_000);
        let Some(action) = self.writer.next_action(self.now) else { return false };
        self.actions += 1;
        let fails = self.faulty > 0 && self.actions.is_multiple_of(self.faulty);
        let done = match action {
            DiskAction::Write { segment, offset, bytes } if fails => {
                let half = bytes.len() / 2;
                self.file(segment).write_all_at(&bytes[..half], offset).unwrap();
                DiskDone::Short(half as u64)
            }
            DiskAction::Sync { .. } if fails => DiskDone::Failed(DiskFault::Io(5)),
            action => self.act(action),
        };
        self.writer.on_done(self.now, done);
        true
    }

    /// Every event below it is on disk.
    pub fn durable(&self) -> u64 {
        self.writer.durable_event_id()
    }

    /// Syncs that failed.
    pub fn failed_syncs(&self) -> u64 {
        self.writer.counts().failed_syncs
    }

    /// Removes the oldest sealed segment; its number.
    pub fn remove_oldest(&mut self) -> u64 {
        let oldest = self.writer.sealed().next().unwrap().segment;
        self.writer.remove(oldest);
        oldest
    }

    /// The event that the next record gets.
    pub fn next_event(&self) -> u64 {
        self.writer.next_event_id()
    }

    fn path(&self, segment: u64, extension: &str) -> PathBuf {
        self.folder.join(format!("{segment:010}.{extension}"))
    }

    fn file(&self, segment: u64) -> File {
        OpenOptions::new().write(true).open(self.path(segment, "journal")).unwrap()
    }

    fn act(&self, action: DiskAction) -> DiskDone {
        match action {
            DiskAction::Create { segment, header, bytes } => {
                let file = File::create(self.path(segment, "journal")).unwrap();
                file.write_all_at(&header, 0).unwrap();
                file.set_len(bytes).unwrap();
            }
            DiskAction::Write { segment, offset, bytes } => {
                self.file(segment).write_all_at(&bytes, offset).unwrap();
            }
            DiskAction::Seal { segment, length, index } => {
                self.file(segment).set_len(length).unwrap();
                fs::write(self.path(segment, "index"), index).unwrap();
            }
            DiskAction::Remove { segment } => {
                fs::remove_file(self.path(segment, "journal")).unwrap();
                fs::remove_file(self.path(segment, "index")).unwrap();
            }
            // The page cache is all that a reader in the same system sees.
            DiskAction::Sync { .. } => {}
            DiskAction::Read { .. } => unreachable!("nobody asks this writer to read"),
        }
        DiskDone::Done
    }
}
