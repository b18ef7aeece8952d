//! The disk of the journal, in memory: what programs read, what is truly on the platter, and which
//! sectors are only on their way. What may happen to those is what `fsync` allows (D56).

use std::collections::{BTreeMap, BTreeSet};

use gateway::limits::FREE_BYTES_SLOW;
use journal::recover::UNSURE_BYTES_MAX;
use journal::segment::{Position, SECTOR_BYTES};
use journal::source::Segments;
use journal::writer::{DiskAction, DiskDone, DiskFault};

use crate::chance::Chance;
use crate::faults::{Faults, MILLI, SECOND};

/// Errors of the operating system: EIO.
const EIO: i32 = 5;
/// Bytes that are free while nothing is wrong.
const FREE_BYTES: u64 = 64 * FREE_BYTES_SLOW;

/// How an action will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    Good,
    /// Only so many bytes are written.
    Short(u64),
    Failed(DiskFault),
}

/// One file.
#[derive(Default)]
struct File {
    /// What programs see.
    cache: Vec<u8>,
    /// What a power cut leaves; as long as the cache.
    platter: Vec<u8>,
    /// Sectors of the cache that nobody has synced.
    dirty: BTreeSet<usize>,
    /// Behind the last byte that was written.
    end: usize,
    /// Whether its name is on the platter.
    is_named: bool,
}

impl File {
    fn new(first: &[u8], bytes: usize) -> File {
        let length = bytes.max(first.len());
        let mut file = File {
            cache: vec![0; length],
            platter: vec![0; length],
            dirty: BTreeSet::new(),
            end: 0,
            is_named: false,
        };
        file.write(0, first);
        file
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
            self.platter.resize(end, 0);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        self.end = self.end.max(end);
        let sector = SECTOR_BYTES as usize;
        self.dirty.extend(offset / sector..end.div_ceil(sector));
    }

    fn truncate(&mut self, length: usize) {
        self.cache.resize(length, 0);
        self.platter.resize(length, 0);
        self.end = self.end.min(length);
        self.dirty.retain(|at| at * (SECTOR_BYTES as usize) < length);
    }

    fn flush(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            self.put_down(at, SECTOR_BYTES as usize);
        }
    }

    /// The first bytes of a sector reach the platter.
    fn put_down(&mut self, at: usize, bytes: usize) {
        let start = (at * SECTOR_BYTES as usize).min(self.cache.len());
        let end = (start + bytes).min(self.cache.len());
        self.platter[start..end].copy_from_slice(&self.cache[start..end]);
    }
}

/// The disk.
pub struct Disk {
    files: BTreeMap<u64, File>,
    /// Bytes that are free.
    pub free: u64,
    /// Whether new files find no space.
    pub is_full: bool,
    /// What is begun takes so much longer, microseconds.
    pub delay: u64,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk { files: BTreeMap::new(), free: FREE_BYTES, is_full: false, delay: 0 }
    }
}

impl Segments for Disk {
    fn numbers(&self) -> Result<Vec<u64>, String> {
        Ok(self.files.keys().copied().collect())
    }

    fn length(&self, number: u64) -> Result<u64, String> {
        Ok(self.files.get(&number).map_or(0, |file| file.cache.len() as u64))
    }

    fn read(&self, number: u64, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        Ok(self.bytes(number, offset, length))
    }
}

impl Disk {
    fn bytes(&self, number: u64, offset: u64, length: usize) -> Vec<u8> {
        let Some(file) = self.files.get(&number) else { return Vec::new() };
        let start = (offset as usize).min(file.cache.len());
        file.cache[start..(start + length).min(file.cache.len())].to_vec()
    }

    /// A segment up to the last byte that was ever written to it.
    pub fn written(&self, number: u64) -> &[u8] {
        self.files.get(&number).map_or(&[], |file| &file.cache[..file.end])
    }

    /// Space is there again.
    pub fn free_space(&mut self) {
        (self.free, self.is_full) = (FREE_BYTES, false);
    }

    /// Whether the newest file has bytes that a power cut can take.
    pub fn is_dirty(&self) -> bool {
        self.files.values().any(|file| !file.dirty.is_empty())
    }

    /// An action begins: how long it takes, microseconds, and how it will end.
    pub fn begin(
        &mut self,
        action: &DiskAction,
        faults: &Faults,
        dice: &mut Chance,
    ) -> (u64, Luck) {
        let (least, most) = faults.sync_micros;
        let sync = dice.between(least, most);
        let micros = match action {
            DiskAction::Write { .. } | DiskAction::Read { .. } => dice.between(20, 200),
            DiskAction::Sync { .. } => sync,
            _ => 2 * sync,
        };
        let hang = faults.disk_hangs && dice.one_in(150);
        let hang = if hang { dice.pick(&[300, 2_000, 9_000]) * MILLI } else { 0 };
        (micros + hang + std::mem::take(&mut self.delay), self.luck(action, faults, dice))
    }

    fn luck(&self, action: &DiskAction, faults: &Faults, dice: &mut Chance) -> Luck {
        let error = Luck::Failed(DiskFault::Io(EIO));
        match action {
            DiskAction::Create { .. } if self.is_full => Luck::Failed(DiskFault::NoSpace),
            DiskAction::Write { bytes, .. } if faults.disk_errors && dice.one_in(12) => {
                let part = Luck::Short(dice.below(bytes.len() as u64));
                dice.pick(&[part, part, error, Luck::Failed(DiskFault::NoSpace)])
            }
            DiskAction::Sync { .. } if faults.failed_syncs && dice.one_in(25) => error,
            DiskAction::Sync { .. } | DiskAction::Write { .. } => Luck::Good,
            _ if faults.disk_errors && dice.one_in(6) => error,
            _ => Luck::Good,
        }
    }

    /// An action ends.
    pub fn finish(&mut self, action: &DiskAction, luck: Luck, dice: &mut Chance) -> DiskDone {
        let is_good = luck == Luck::Good;
        match action {
            DiskAction::Create { segment, header, bytes } => {
                self.create(*segment, header, *bytes, is_good, dice);
            }
            DiskAction::Write { segment, offset, bytes } => {
                let count = match luck {
                    Luck::Good => bytes.len() as u64,
                    Luck::Short(count) => count,
                    Luck::Failed(_) => dice.below(bytes.len() as u64),
                };
                if let Some(file) = self.files.get_mut(segment) {
                    file.write(*offset as usize, &bytes[..count as usize]);
                }
            }
            DiskAction::Sync { segment } => self.sync(*segment, is_good, dice),
            DiskAction::Seal { segment, length, .. } => {
                let file = self.files.get_mut(segment).filter(|_| is_good || dice.one_in(2));
                if let Some(file) = file {
                    file.truncate(*length as usize);
                    file.flush();
                }
            }
            DiskAction::Remove { segment } => {
                if is_good || dice.one_in(2) {
                    self.files.remove(segment);
                }
            }
            DiskAction::Read { segment, offset, length } if is_good => {
                return DiskDone::Read(self.bytes(*segment, *offset, *length));
            }
            DiskAction::Read { .. } => (),
        }
        match luck {
            Luck::Good => DiskDone::Done,
            Luck::Short(count) => DiskDone::Short(count),
            Luck::Failed(fault) => DiskDone::Failed(fault),
        }
    }

    fn create(
        &mut self,
        segment: u64,
        header: &[u8],
        bytes: u64,
        is_good: bool,
        dice: &mut Chance,
    ) {
        if is_good {
            let mut file = File::new(header, bytes as usize);
            file.flush();
            file.is_named = true;
            self.files.insert(segment, file);
        } else if dice.one_in(2) {
            let part = dice.below(header.len() as u64 + 1) as usize;
            let file = File::new(&header[..part], dice.pick(&[0, bytes as usize]));
            self.files.insert(segment, file);
        }
    }

    /// After a sync that failed, the kernel takes the pages for clean, whatever reached the disk.
    fn sync(&mut self, segment: u64, is_good: bool, dice: &mut Chance) {
        let Some(file) = self.files.get_mut(&segment) else { return };
        if is_good {
            return file.flush();
        }
        for at in std::mem::take(&mut file.dirty) {
            if dice.one_in(2) {
                file.put_down(at, SECTOR_BYTES as usize);
            }
        }
    }

    /// The process dies while this is being done: what was written so far stays.
    pub fn interrupt(&mut self, action: &DiskAction, dice: &mut Chance) {
        if !matches!(action, DiskAction::Sync { .. }) {
            self.finish(action, Luck::Failed(DiskFault::Io(0)), dice);
        }
    }

    /// The power fails: of each sector that was not synced comes all, a part, or nothing.
    pub fn cut_power(&mut self, keeps_nothing: bool, dice: &mut Chance) {
        self.files.retain(|_, file| file.is_named || (!keeps_nothing && dice.one_in(2)));
        for file in self.files.values_mut() {
            for at in std::mem::take(&mut file.dirty) {
                let kept = match dice.below(3) {
                    _ if keeps_nothing => 0,
                    0 => 0,
                    1 => SECTOR_BYTES,
                    _ => dice.below(SECTOR_BYTES),
                };
                file.put_down(at, kept as usize);
            }
            file.is_named = true;
            file.cache.clone_from(&file.platter);
            file.end = file.cache.len();
        }
    }

    /// What a start does to the last segment, as `journal::folder::Folder::cut` does it.
    pub fn cut(&mut self, end: Position, writes_again: bool) {
        let Some(file) = self.files.get_mut(&end.segment) else { return };
        file.truncate(end.offset as usize);
        file.end = file.cache.len();
        if writes_again {
            let from = file.end.saturating_sub(UNSURE_BYTES_MAX as usize);
            let last = file.cache[from..].to_vec();
            file.write(from, &last);
        }
        file.flush();
        self.files.values_mut().for_each(|file| file.is_named = true);
    }
}

/// Longest time for which the disk takes no new files, microseconds.
pub const FULL_MICROS: [u64; 3] = [SECOND / 5, 2 * SECOND, 8 * SECOND];
