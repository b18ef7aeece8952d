//! The machine that appends to the journal: groups, syncs, segments, and what to do when a disk
//! fails. It does no IO: it says what is to be done next, one [`DiskAction`] at a time, and is told
//! what came of it.
//!
//! What is appended while one group is on its way makes the next: the slower the disk, the larger
//! the groups. A group stays in memory until its sync succeeded.
//!
//! | what failed | what follows |
//! |---|---|
//! | create | again after a pause; with less reserved if there is no space |
//! | write, or a part of it | the same bytes again after a pause; at the 4th, a new segment |
//! | sync | never again on that file: its group goes into a new segment |
//! | seal | again after a pause, then left: the segment only keeps its reserved space |
//!
//! The segment after says where the log ended in the one before ([`Header::previous`]), so nothing
//! that stands behind is ever read.

use std::collections::VecDeque;
use std::sync::Arc;

use work::{Mono, UnixTime};

use crate::index::{self, IndexEntry};
use crate::record::Record;
use crate::segment::{Header, Position};

mod action;
mod group;
mod open;
pub use action::{
    DiskAction, DiskDone, DiskFault, SealedSegment, Start, WriterCounts, WriterSettings,
};
use group::{Checkpoint, Group};
use open::{Flight, Open, Sealing};

/// Bytes of one group at most, but for a group of one larger record.
pub const GROUP_BYTES_MAX: usize = 256 << 10;

/// Bytes that wait for their sync at most before [`Writer::has_room`] says no.
pub const UNSYNCED_BYTES_MAX: usize = 8 << 20;

/// Pause before something that failed is tried again, milliseconds.
pub const RETRY_MILLIS: u64 = 250;

/// Errors of writes at one place before a new segment is begun.
const WRITES_MAX: u32 = 4;

/// Attempts to seal or to remove a segment.
const ATTEMPTS_MAX: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Create,
    Write,
    Sync,
    Seal,
    Remove,
    Read,
}

/// The machine.
#[derive(Debug)]
pub struct Writer {
    settings: WriterSettings,
    next_segment: u64,
    previous: Position,
    checkpoint: Checkpoint,
    next_event_id: u64,
    durable_event_id: u64,
    building: Option<Group>,
    /// Complete groups; the oldest is the next to be written.
    queue: VecDeque<Group>,
    unsynced_bytes: usize,
    spare: Vec<u8>,
    open: Option<Open>,
    flight: Option<Flight>,
    sealing: Option<Sealing>,
    sealed: VecDeque<SealedSegment>,
    removals: VecDeque<(u64, u32)>,
    read: Option<(Position, usize)>,
    read_done: Option<(Position, Result<Vec<u8>, DiskFault>)>,
    was_read: bool,
    reserve: u64,
    is_closing: bool,
    doing: Option<Doing>,
    retry_at: Option<Mono>,
    fault: Option<DiskFault>,
    counts: WriterCounts,
}

impl Writer {
    /// A writer that goes on at `start`, in a new segment.
    pub fn new(settings: WriterSettings, start: Start) -> Writer {
        let checkpoint = Checkpoint {
            settled_below: start.settled_below,
            oldest_dead: start.oldest_dead,
            epoch: start.epoch,
        };
        Writer {
            reserve: settings.segment_bytes,
            settings,
            next_segment: start.next_segment,
            previous: start.previous,
            checkpoint,
            next_event_id: start.next_event_id,
            durable_event_id: start.next_event_id,
            building: None,
            queue: VecDeque::new(),
            unsynced_bytes: 0,
            spare: Vec::new(),
            open: None,
            flight: None,
            sealing: None,
            sealed: start.sealed.into(),
            removals: VecDeque::new(),
            read: None,
            read_done: None,
            was_read: false,
            is_closing: false,
            doing: None,
            retry_at: None,
            fault: None,
            counts: WriterCounts::default(),
        }
    }

    /// Appends a record and returns the first event number that it takes (the next to be given if
    /// it takes none). Never refuses: whoever appends asks [`Writer::has_room`] at the start of a
    /// turn and bounds what a turn appends.
    ///
    /// The last [`Record::Checkpoint`] is repeated at the start of every segment from here on.
    pub fn append(&mut self, at: UnixTime, record: &Record) -> u64 {
        let event_id = self.next_event_id;
        let (mut group, counted) = match self.building.take() {
            Some(group) if group.len() < self.settings.group_bytes_max => {
                let counted = group.len();
                (group, counted)
            }
            full => {
                self.queue.extend(full);
                let spare = std::mem::take(&mut self.spare);
                (Group::new(spare, event_id, at, self.checkpoint), 0)
            }
        };
        group.append(at, record);
        self.unsynced_bytes += group.len() - counted;
        self.next_event_id = group.next_event_id;
        self.building = Some(group);
        if let Record::Checkpoint { settled_below, oldest_dead, epoch } = *record {
            self.checkpoint = Checkpoint { settled_below, oldest_dead, epoch };
        }
        event_id
    }

    /// Whether more may be appended in this turn.
    pub fn has_room(&self) -> bool {
        self.unsynced_bytes < self.settings.unsynced_bytes_max
    }

    /// Bytes that are not known to be on disk.
    pub fn unsynced_bytes(&self) -> usize {
        self.unsynced_bytes
    }

    /// Every event below this one is on disk.
    pub fn durable_event_id(&self) -> u64 {
        self.durable_event_id
    }

    /// The next event number to be given.
    pub fn next_event_id(&self) -> u64 {
        self.next_event_id
    }

    /// Whether nothing is under way and nothing is left to be done.
    pub fn is_idle(&self) -> bool {
        self.doing.is_none()
            && self.unsynced_bytes == 0
            && self.sealing.is_none()
            && self.removals.is_empty()
            && self.read.is_none()
            && !(self.is_closing && self.open.is_some())
    }

    /// Why nothing has been made durable since; `None` while the disk does what it should.
    pub fn fault(&self) -> Option<DiskFault> {
        self.fault
    }

    /// When to ask for an action again after something failed.
    pub fn deadline(&self) -> Option<Mono> {
        self.retry_at
    }

    /// What was done so far.
    pub fn counts(&self) -> WriterCounts {
        self.counts
    }

    /// Complete segments, oldest first.
    pub fn sealed(&self) -> impl Iterator<Item = &SealedSegment> {
        self.sealed.iter()
    }

    /// Number of the segment that is written to, if there is one.
    pub fn open_segment(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.segment)
    }

    /// Number of the last segment that was made, whether it is written to, is being completed, or
    /// is complete; 0 without any.
    pub fn newest_segment(&self) -> u64 {
        self.open_segment().unwrap_or(self.next_segment.saturating_sub(1))
    }

    /// Removes the oldest sealed segment, if it is `segment`: the log has no holes.
    pub fn remove(&mut self, segment: u64) {
        let oldest = self.sealed.get(self.removals.len());
        if oldest.is_some_and(|oldest| oldest.segment == segment) {
            self.removals.push_back((segment, 0));
        }
    }

    /// Reads up to `length` bytes from `position` on: false if another read is under way, or its
    /// result has not been taken.
    pub fn read(&mut self, position: Position, length: usize) -> bool {
        let is_free = self.read.is_none() && self.read_done.is_none();
        if is_free {
            self.read = Some((position, length));
        }
        is_free
    }

    /// What came of [`Writer::read`], once.
    pub fn take_read(&mut self) -> Option<(Position, Result<Vec<u8>, DiskFault>)> {
        self.read_done.take()
    }

    /// When everything is on disk, the open segment is sealed; the next record begins another.
    pub fn close(&mut self) {
        self.is_closing = true;
    }

    /// What the disk is to do now; nothing while it has something to do, or pauses.
    pub fn next_action(&mut self, now: Mono) -> Option<DiskAction> {
        if self.doing.is_some() {
            return None;
        }
        let is_paused = self.retry_at.is_some_and(|at| now < at);
        if !is_paused {
            self.retry_at = None;
        }
        if (is_paused || !self.was_read)
            && let Some(action) = self.start_read()
        {
            return Some(action);
        }
        if is_paused {
            return None;
        }
        self.was_read = false;
        let (doing, action) = self.plan().or_else(|| self.plan_read())?;
        self.doing = Some(doing);
        Some(action)
    }

    fn start_read(&mut self) -> Option<DiskAction> {
        let (doing, action) = self.plan_read()?;
        self.doing = Some(doing);
        self.was_read = true;
        Some(action)
    }

    fn plan_read(&self) -> Option<(Doing, DiskAction)> {
        let (Position { segment, offset }, length) = self.read?;
        Some((Doing::Read, DiskAction::Read { segment, offset, length }))
    }

    fn plan(&mut self) -> Option<(Doing, DiskAction)> {
        if let (Some(flight), Some(open)) = (&self.flight, &self.open) {
            let segment = open.segment;
            return Some(if flight.is_written {
                (Doing::Sync, DiskAction::Sync { segment })
            } else {
                let (offset, bytes) = (open.offset, flight.bytes.clone());
                (Doing::Write, DiskAction::Write { segment, offset, bytes })
            });
        }
        if let Some(sealing) = &self.sealing {
            let SealedSegment { segment, bytes: length, .. } = sealing.segment;
            let index = sealing.index.clone();
            return Some((Doing::Seal, DiskAction::Seal { segment, length, index }));
        }
        if let Some((segment, _)) = self.removals.front() {
            return Some((Doing::Remove, DiskAction::Remove { segment: *segment }));
        }
        if self.queue.is_empty() {
            self.queue.extend(self.building.take());
        }
        let Some(group) = self.queue.front() else {
            return if self.is_closing { self.plan_seal() } else { None };
        };
        let Some(open) = &self.open else { return Some(self.plan_create(group)) };
        if open.offset.saturating_add(group.whole_bytes()) > open.room {
            return self.plan_seal();
        }
        self.take_off();
        self.plan()
    }

    /// The oldest group goes on its way.
    fn take_off(&mut self) {
        let Some(open) = &self.open else { return };
        let Some(mut group) = self.queue.pop_front() else { return };
        let (bytes, length) = group.take_bytes(open.groups + 1);
        let bytes = Arc::new(bytes);
        self.flight = Some(Flight { group, bytes, length, is_written: false, failed_writes: 0 });
    }

    fn plan_create(&self, first: &Group) -> (Doing, DiskAction) {
        let header = self.first_bytes(first);
        let needed = header.len() as u64 + first.whole_bytes();
        let (segment, bytes) = (self.next_segment, self.reserve.max(needed));
        (Doing::Create, DiskAction::Create { segment, header, bytes })
    }

    /// The header of the next segment, which begins with `first`, and its checkpoint: the same
    /// bytes however often the segment is tried.
    fn first_bytes(&self, first: &Group) -> Vec<u8> {
        let header = Header {
            segment: self.next_segment,
            first_event_id: first.first_event_id,
            created_at: first.at,
            previous: self.previous,
            gateway_id: self.settings.gateway_id.clone(),
        };
        [&header.encode()[..], &Group::opening(first)].concat()
    }

    fn plan_seal(&mut self) -> Option<(Doing, DiskAction)> {
        self.leave_segment();
        self.sealing.is_some().then(|| self.plan()).flatten()
    }

    /// The open segment ends behind its last group that is on disk.
    fn leave_segment(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.previous = Position { segment: open.segment, offset: open.offset };
        self.next_segment = open.segment + 1;
        let segment = SealedSegment {
            segment: open.segment,
            first_event_id: open.first_event_id,
            next_event_id: open.next_event_id,
            last_at: open.last_at,
            bytes: open.offset,
        };
        let index = index::encode(&open.entries);
        self.sealing = Some(Sealing { segment, index, attempts: 0 });
    }

    /// The disk has done what [`Writer::next_action`] said.
    pub fn on_done(&mut self, now: Mono, done: DiskDone) {
        let Some(doing) = self.doing.take() else { return };
        let fault = match &done {
            DiskDone::Done | DiskDone::Read(_) => None,
            DiskDone::Short(_) => Some(DiskFault::Io(0)),
            DiskDone::Failed(fault) => Some(*fault),
        };
        if doing == Doing::Read {
            return self.on_read(done, fault);
        }
        match fault {
            None => self.on_success(doing),
            Some(fault) => {
                self.counts.faults += 1;
                self.retry_at = Some(now.plus_millis(RETRY_MILLIS));
                self.on_fault(doing, fault);
            }
        }
    }

    fn on_read(&mut self, done: DiskDone, fault: Option<DiskFault>) {
        let Some((position, _)) = self.read.take() else { return };
        let result = match (done, fault) {
            (DiskDone::Read(bytes), _) => Ok(bytes),
            (_, fault) => Err(fault.unwrap_or(DiskFault::Io(0))),
        };
        self.read_done = Some((position, result));
    }

    fn on_success(&mut self, doing: Doing) {
        match doing {
            Doing::Create => self.on_created(),
            Doing::Write => {
                if let Some(flight) = &mut self.flight {
                    flight.is_written = true;
                }
            }
            Doing::Sync => self.on_synced(),
            Doing::Seal => self.sealed.extend(self.sealing.take().map(|sealing| sealing.segment)),
            Doing::Remove => self.on_removed(),
            Doing::Read => (),
        }
    }

    fn on_created(&mut self) {
        let Some(first) = self.queue.front() else { return };
        let header = self.first_bytes(first).len() as u64;
        let room = self.reserve.max(header + first.whole_bytes());
        let entry = IndexEntry {
            offset: Header::BYTES as u64,
            event_id: first.first_event_id,
            at: first.at.0,
            min_share_ms: u64::MAX,
            max_share_ms: 0,
        };
        self.open = Some(Open {
            segment: self.next_segment,
            first_event_id: first.first_event_id,
            next_event_id: first.first_event_id,
            last_at: first.at,
            offset: header,
            room,
            groups: 1,
            entries: vec![entry],
        });
        self.reserve = self.settings.segment_bytes;
        self.counts.segments += 1;
    }

    fn on_synced(&mut self) {
        let (Some(flight), Some(open)) = (self.flight.take(), &mut self.open) else { return };
        let Flight { group, bytes, length, .. } = flight;
        open.land(&group, bytes.len() as u64);
        self.durable_event_id = group.next_event_id;
        self.unsynced_bytes -= length;
        self.fault = None;
        self.counts.groups += 1;
        self.counts.bytes += bytes.len() as u64;
        if let Ok(bytes) = Arc::try_unwrap(bytes)
            && bytes.capacity() <= 2 * self.settings.group_bytes_max
        {
            self.spare = bytes;
        }
    }

    fn on_removed(&mut self) {
        if let Some((segment, _)) = self.removals.pop_front() {
            self.sealed.retain(|sealed| sealed.segment != segment);
        }
    }

    fn on_fault(&mut self, doing: Doing, fault: DiskFault) {
        match doing {
            Doing::Create => {
                self.fault = Some(fault);
                if fault == DiskFault::NoSpace {
                    self.reserve /= 2;
                }
            }
            Doing::Write => {
                self.fault = Some(fault);
                let Some(flight) = &mut self.flight else { return };
                flight.failed_writes += u32::from(fault != DiskFault::NoSpace);
                if flight.failed_writes >= WRITES_MAX {
                    self.abandon_segment();
                }
            }
            Doing::Sync => {
                self.fault = Some(fault);
                self.counts.failed_syncs += 1;
                self.abandon_segment();
            }
            Doing::Seal => {
                if let Some(sealing) = &mut self.sealing {
                    sealing.attempts += 1;
                    if sealing.attempts >= ATTEMPTS_MAX {
                        self.on_success(Doing::Seal);
                    }
                }
            }
            Doing::Remove => {
                if let Some((_, attempts)) = self.removals.front_mut() {
                    *attempts += 1;
                    if *attempts >= ATTEMPTS_MAX {
                        self.removals.clear();
                    }
                }
            }
            Doing::Read => (),
        }
    }

    /// What is on its way goes into a new segment.
    fn abandon_segment(&mut self) {
        if let Some(flight) = self.flight.take() {
            let Flight { mut group, bytes, length, .. } = flight;
            group.put_back(Arc::unwrap_or_clone(bytes), length);
            self.queue.push_front(group);
        }
        self.leave_segment();
    }
}
