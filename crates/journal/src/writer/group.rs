//! Records on their way into a group.

use work::UnixTime;

use crate::codec;
use crate::record::Record;
use crate::segment::{GROUP_HEADER_BYTES, GroupHeader, RECORD_ALIGNMENT, SECTOR_BYTES, round_up};

/// What a start needs to know; of every moment of the log, the last one written before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub settled_below: u64,
    pub oldest_dead: u64,
    pub epoch: u16,
}

impl Checkpoint {
    fn record(self) -> Record {
        let Checkpoint { settled_below, oldest_dead, epoch } = self;
        Record::Checkpoint { settled_below, oldest_dead, epoch }
    }
}

/// Records that one write and one sync will carry.
#[derive(Debug)]
pub(super) struct Group {
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    /// What a segment that begins with this group says first.
    pub checkpoint: Checkpoint,
    pub first_event_id: u64,
    /// The event number behind its last record.
    pub next_event_id: u64,
    /// When its first record was appended, and its last.
    pub at: UnixTime,
    pub last_at: UnixTime,
    /// Times in the ULIDs of its accepted shares, unix milliseconds.
    pub min_share_ms: u64,
    pub max_share_ms: u64,
}

impl Group {
    /// An empty group in `bytes`, whose content is forgotten.
    pub fn new(mut bytes: Vec<u8>, event_id: u64, at: UnixTime, checkpoint: Checkpoint) -> Group {
        bytes.clear();
        bytes.resize(GROUP_HEADER_BYTES, 0);
        Group {
            bytes,
            checkpoint,
            first_event_id: event_id,
            next_event_id: event_id,
            at,
            last_at: at,
            min_share_ms: u64::MAX,
            max_share_ms: 0,
        }
    }

    /// The group that a segment begins with: the checkpoint of what goes on in it.
    pub fn opening(of: &Group) -> Vec<u8> {
        let mut group = Group::new(Vec::new(), of.first_event_id, of.at, of.checkpoint);
        group.append(of.at, &of.checkpoint.record());
        group.seal(1);
        group.bytes
    }

    /// Appends a record; its event numbers are the next.
    pub fn append(&mut self, at: UnixTime, record: &Record) {
        codec::encode(record, self.next_event_id, at, &mut self.bytes);
        // The header's 40 bytes are a multiple of the alignment, so this is one in the file too.
        let padded = round_up(self.bytes.len() as u64, RECORD_ALIGNMENT) as usize;
        self.bytes.resize(padded, 0);
        self.next_event_id += record.events();
        self.last_at = at;
        if let Record::Accepted(share) = record {
            let time = (share.share_id >> 80) as u64;
            self.min_share_ms = self.min_share_ms.min(time);
            self.max_share_ms = self.max_share_ms.max(time);
        }
    }

    /// Bytes of its records and its header, without what fills it up.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes it takes in a segment.
    pub fn whole_bytes(&self) -> u64 {
        round_up(self.bytes.len() as u64, SECTOR_BYTES)
    }

    /// Fills in the header and fills up the last sector: from now on it is only to be written.
    fn seal(&mut self, number: u64) {
        let header = GroupHeader {
            length: (self.bytes.len() - GROUP_HEADER_BYTES) as u32,
            number,
            first_event_id: self.first_event_id,
            at: self.at,
        };
        self.bytes[..GROUP_HEADER_BYTES].copy_from_slice(&header.encode());
        let whole = self.whole_bytes() as usize;
        self.bytes.resize(whole, 0);
    }

    /// Its bytes as group `number`, and how many of them are header and records.
    pub fn take_bytes(&mut self, number: u64) -> (Vec<u8>, usize) {
        let length = self.bytes.len();
        self.seal(number);
        (std::mem::take(&mut self.bytes), length)
    }

    /// The bytes of [`Group::take_bytes`] again, to be given another number.
    pub fn put_back(&mut self, mut bytes: Vec<u8>, length: usize) {
        bytes.truncate(length);
        self.bytes = bytes;
    }
}
