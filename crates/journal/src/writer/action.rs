//! What a writer says and is told: its disk, its settings, where it begins.

use std::sync::Arc;

use work::UnixTime;

use super::{GROUP_BYTES_MAX, UNSYNCED_BYTES_MAX};
use crate::segment::{Position, SEGMENT_BYTES_MAX};

/// What the writer's disk is to do. Everything but a write is on disk when it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskAction {
    /// Make the file of a segment, empty if there is one, with `header` as its first bytes and
    /// `bytes` reserved; sync the file and its folder.
    Create {
        /// Segment.
        segment: u64,
        /// First bytes.
        header: Vec<u8>,
        /// Bytes to reserve, so that neither a write nor a sync needs more space.
        bytes: u64,
    },
    /// Write all of `bytes` at `offset`.
    Write {
        /// Segment.
        segment: u64,
        /// From the file's beginning.
        offset: u64,
        /// To be dropped before [`Writer::on_done`], which takes the buffer back.
        bytes: Arc<Vec<u8>>,
    },
    /// Make everything that was written durable.
    Sync {
        /// Segment.
        segment: u64,
    },
    /// Cut the file to `length`, sync it, close it, and write the file with its index beside it.
    Seal {
        /// Segment.
        segment: u64,
        /// Bytes that stay.
        length: u64,
        /// Content of the index.
        index: Vec<u8>,
    },
    /// Remove a sealed segment and its index.
    Remove {
        /// Segment.
        segment: u64,
    },
    /// Read.
    Read {
        /// Segment.
        segment: u64,
        /// From the file's beginning.
        offset: u64,
        /// Bytes; fewer at the end of the file.
        length: usize,
    },
}

/// What came of a [`DiskAction`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskDone {
    /// All of it.
    Done,
    /// What was read.
    Read(Vec<u8>),
    /// Only so many bytes were written.
    Short(u64),
    /// An error.
    Failed(DiskFault),
}

/// Why a disk does not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// No space left on the device (ENOSPC, EDQUOT).
    NoSpace,
    /// Any other error of the operating system, by its number; 0 for a write that was cut short.
    Io(i32),
}

impl std::fmt::Display for DiskFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiskFault::NoSpace => f.write_str("no space left on the disk of data_dir"),
            DiskFault::Io(0) => f.write_str("the disk of data_dir took only a part of a write"),
            DiskFault::Io(number) => write!(f, "the disk of data_dir failed: OS error {number}"),
        }
    }
}

/// How a journal is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterSettings {
    /// Whose journal it is; at most 64 bytes.
    pub gateway_id: String,
    /// Bytes of a segment; see [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// See [`GROUP_BYTES_MAX`].
    pub group_bytes_max: usize,
    /// See [`UNSYNCED_BYTES_MAX`].
    pub unsynced_bytes_max: usize,
}

impl WriterSettings {
    /// The usual sizes.
    pub fn new(gateway_id: &str) -> WriterSettings {
        WriterSettings {
            gateway_id: gateway_id.to_owned(),
            segment_bytes: SEGMENT_BYTES_MAX,
            group_bytes_max: GROUP_BYTES_MAX,
            unsynced_bytes_max: UNSYNCED_BYTES_MAX,
        }
    }
}

/// Where a writer goes on; [`crate::recover::Recovered::start`] makes it. Everything before must
/// be on disk: the last segment cut to `previous`, and synced, and its folder too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Number of the first segment to be written.
    pub next_segment: u64,
    /// First event number to be given.
    pub next_event_id: u64,
    /// Of this start of the gateway.
    pub epoch: u16,
    /// The end of the log; both 0 if there is none.
    pub previous: Position,
    /// As in [`Record::Checkpoint`].
    pub settled_below: u64,
    /// As in [`Record::Checkpoint`].
    pub oldest_dead: u64,
    /// The segments that there are.
    pub sealed: Vec<SealedSegment>,
}

/// A segment that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Number.
    pub segment: u64,
    /// First event number in it.
    pub first_event_id: u64,
    /// Event number behind the last in it.
    pub next_event_id: u64,
    /// When its last record was appended, or a moment later.
    pub last_at: UnixTime,
    /// Size of its file, bytes.
    pub bytes: u64,
}

/// What a writer did, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterCounts {
    /// Groups that are on disk.
    pub groups: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments begun.
    pub segments: u64,
    /// Actions that failed.
    pub faults: u64,
    /// Syncs that failed, each the end of a segment.
    pub failed_syncs: u64,
}
