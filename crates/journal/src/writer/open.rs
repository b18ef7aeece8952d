//! The segment that is written to, and what is on its way into it.

use std::sync::Arc;

use work::UnixTime;

use super::SealedSegment;
use super::group::Group;
use crate::index::{INDEX_ENTRIES_MAX, INDEX_STEP_BYTES, IndexEntry};

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Open {
    pub segment: u64,
    pub first_event_id: u64,
    pub next_event_id: u64,
    pub last_at: UnixTime,
    /// Behind the last group that is on disk.
    pub offset: u64,
    /// Bytes reserved.
    pub room: u64,
    pub groups: u64,
    pub entries: Vec<IndexEntry>,
}

/// The group that is on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub group: Group,
    pub bytes: Arc<Vec<u8>>,
    pub length: usize,
    pub is_written: bool,
    pub failed_writes: u32,
}

/// A segment that is to be sealed.
#[derive(Debug)]
pub(super) struct Sealing {
    pub segment: SealedSegment,
    pub index: Vec<u8>,
    pub attempts: u32,
}

impl Open {
    /// `group` is on disk, `bytes` long.
    pub fn land(&mut self, group: &Group, bytes: u64) {
        let is_due = self.entries.last().is_none_or(|entry| {
            self.offset - entry.offset >= INDEX_STEP_BYTES && self.entries.len() < INDEX_ENTRIES_MAX
        });
        if is_due {
            self.entries.push(IndexEntry {
                offset: self.offset,
                event_id: group.first_event_id,
                at: group.at.0,
                min_share_ms: u64::MAX,
                max_share_ms: 0,
            });
        }
        if let Some(entry) = self.entries.last_mut() {
            entry.min_share_ms = entry.min_share_ms.min(group.min_share_ms);
            entry.max_share_ms = entry.max_share_ms.max(group.max_share_ms);
        }
        self.offset += bytes;
        self.groups += 1;
        self.next_event_id = group.next_event_id;
        self.last_at = group.last_at;
    }
}
