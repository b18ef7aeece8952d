//! The index of a sealed segment: where to begin to read, by event, by time, by share.
//!
//! One entry for about every [`INDEX_STEP_BYTES`] of a segment. An entry stands at the header of a
//! group, so that a walk can begin there. The bytes are
//! `magic 8 | crc32c u32 | count u32 | entries of 40 bytes`, all little endian; the checksum covers
//! everything behind itself.

use crate::segment::{u32_at, u64_at};

/// Bytes of a segment from one entry to the next, about.
pub const INDEX_STEP_BYTES: u64 = 256 << 10;

/// Entries of one index at most: those of a segment of 1 GiB.
pub const INDEX_ENTRIES_MAX: usize = 4_096;

const MAGIC: [u8; 8] = *b"RGINDEX1";
const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 40;

/// One part of a segment: from the group at `offset` up to the next entry's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where its first group begins, bytes from the segment's beginning.
    pub offset: u64,
    /// `event_id` of its first record.
    pub event_id: u64,
    /// When its first record was appended, unix milliseconds.
    pub at: u64,
    /// Earliest time in the ULID of an accepted share in it; `u64::MAX` if it has none.
    pub min_share_ms: u64,
    /// Latest time in the ULID of an accepted share in it; 0 if it has none.
    pub max_share_ms: u64,
}

/// An index as bytes.
pub fn encode(entries: &[IndexEntry]) -> Vec<u8> {
    let entries = &entries[..entries.len().min(INDEX_ENTRIES_MAX)];
    let mut bytes = Vec::with_capacity(HEAD_BYTES + ENTRY_BYTES * entries.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for entry in entries {
        let IndexEntry { offset, event_id, at, min_share_ms, max_share_ms } = *entry;
        for number in [offset, event_id, at, min_share_ms, max_share_ms] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The entries of an index; `None` if the bytes are not one: then the segment has to be walked.
pub fn decode(bytes: &[u8]) -> Option<Vec<IndexEntry>> {
    let (head, entries) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let count = u32_at(head, 12) as usize;
    let fits = head[..8] == MAGIC
        && count <= INDEX_ENTRIES_MAX
        && entries.len() == count * ENTRY_BYTES
        && u32_at(head, 8) == crc32c::crc32c(&bytes[12..]);
    fits.then(|| entries.chunks_exact(ENTRY_BYTES).map(entry).collect())
}

fn entry(bytes: &[u8]) -> IndexEntry {
    IndexEntry {
        offset: u64_at(bytes, 0),
        event_id: u64_at(bytes, 8),
        at: u64_at(bytes, 16),
        min_share_ms: u64_at(bytes, 24),
        max_share_ms: u64_at(bytes, 32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_or_is_none() {
        let entry = |n: u64| IndexEntry {
            offset: 512 * n,
            event_id: n,
            at: 3,
            min_share_ms: u64::MAX,
            max_share_ms: n,
        };
        let entries: Vec<IndexEntry> = (1..4).map(entry).collect();
        let bytes = encode(&entries);
        assert_eq!(decode(&bytes), Some(entries));
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "{at} bytes");
        }
    }
}
