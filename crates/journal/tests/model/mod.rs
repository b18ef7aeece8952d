//! What the tests of the journal share: random numbers, records, and a disk in memory that loses
//! what was not synced.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use journal::record::Record;
use journal::segment::Header;
use journal::share::Share;
use journal::source::{Found, SegmentReader, Segments, header};
use journal::walk::{Damage, Located, Walker};
use journal::writer::{DiskAction, DiskDone, DiskFault};
use work::{BlockHash, Difficulty, TemplateId, UnixTime};

/// Bytes that a disk writes whole.
const SECTOR: usize = 512;

/// SplitMix64: a stream of numbers from a seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// An accepted share, number `sequence` of its shard.
pub fn share(sequence: u64, name_bytes: usize) -> Share {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&sequence.to_le_bytes());
    Share {
        share_id: (u128::from(1_700_000_000_000 + sequence) << 80) | u128::from(sequence),
        share_hash: BlockHash(hash),
        epoch: 1,
        shard: 2,
        sequence,
        connection_id: 3,
        channel_key: 4,
        channel_id: 5,
        opened_event: 0,
        verdict_event: 0,
        accepted_at: UnixTime(1_700_000_000_000 + sequence),
        latency_micros: 60,
        sequence_number: 7,
        job_id: 8,
        template_id: TemplateId(9),
        height: 850_000,
        prev_hash: BlockHash([7; 32]),
        nbits: 0x1703_4219,
        version: 0x2000_0000,
        ntime: 1_700_000_000,
        nonce: 10,
        extranonce: [1; 16].into_iter().collect(),
        coinbase_value: 312_500_000,
        fees: 11,
        difficulty: Difficulty::ONE,
        block_found: false,
        coinbase_txid: None,
        hold: false,
        miner_id: "m".repeat(name_bytes).into(),
        worker_id: None,
    }
}

/// What a disk was told, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A new file, or an old one without its content, so many bytes long.
    Make {
        segment: u64,
        bytes: u64,
    },
    Write {
        segment: u64,
        offset: u64,
        bytes: Arc<Vec<u8>>,
    },
    Cut {
        segment: u64,
        length: u64,
    },
    Remove {
        segment: u64,
    },
    /// Everything before is on disk now.
    Sync {
        segment: u64,
    },
}

/// A file: bytes up to the last that is not zero, and how long it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub length: u64,
}

impl Content {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (offset, end) = (offset as usize, offset as usize + bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.length = self.length.max(end as u64);
    }

    fn cut(&mut self, length: u64) {
        self.bytes.truncate(length as usize);
        self.length = length;
    }
}

/// Files in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<u64, Content>);

impl Segments for Files {
    fn numbers(&self) -> Result<Vec<u64>, String> {
        Ok(self.0.keys().copied().collect())
    }

    fn length(&self, number: u64) -> Result<u64, String> {
        Ok(self.0.get(&number).map_or(0, |content| content.length))
    }

    fn read(&self, number: u64, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let content = self.0.get(&number).ok_or("no such file")?;
        let end = content.length.min(offset + length as u64).max(offset);
        let mut bytes = content.bytes.get(offset as usize..).unwrap_or_default().to_vec();
        bytes.resize((end - offset) as usize, 0);
        Ok(bytes)
    }
}

impl Files {
    /// One operation that reached the disk.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Make { segment, bytes } => {
                self.0.insert(*segment, Content { bytes: Vec::new(), length: *bytes });
            }
            Op::Write { segment, offset, bytes } => {
                if let Some(content) = self.0.get_mut(segment) {
                    content.write(*offset, bytes);
                }
            }
            Op::Cut { segment, length } => {
                if let Some(content) = self.0.get_mut(segment) {
                    content.cut(*length);
                }
            }
            Op::Remove { segment } => {
                self.0.remove(segment);
            }
            Op::Sync { .. } => (),
        }
    }

    /// Every record of the log, and what was damaged.
    pub fn read_all(&self) -> (Vec<Located>, Vec<Damage>) {
        let (mut records, mut damages) = (Vec::new(), Vec::new());
        let numbers = self.numbers().unwrap();
        let headers: Vec<Option<Header>> =
            numbers.iter().map(|number| header(self, *number).unwrap()).collect();
        for (at, number) in numbers.iter().enumerate() {
            let next = headers.get(at + 1).cloned().flatten();
            let limit = next.filter(|next| next.previous.segment == *number);
            let limit = limit.map(|next| next.previous.offset);
            let mut reader = SegmentReader::new(self, Walker::new(*number, limit));
            loop {
                match reader.advance().unwrap() {
                    Found::Record(located) => records.push(located),
                    Found::Damage(damage) => damages.push(damage),
                    Found::End(_) => break,
                }
            }
        }
        (records, damages)
    }
}

/// How often, one in so many, a disk fails; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub create: u64,
    pub short: u64,
    pub write: u64,
    pub space: u64,
    pub sync: u64,
    pub seal: u64,
}

/// A disk that remembers everything it was told.
#[derive(Debug, Clone)]
pub struct Disk {
    /// As everybody sees it who reads through the page cache.
    pub files: Files,
    pub ops: Vec<Op>,
    pub faults: Faults,
    pub random: Random,
    /// The content of every index that was written.
    pub indexes: BTreeMap<u64, Vec<u8>>,
}

impl Disk {
    pub fn new(seed: u64, faults: Faults) -> Disk {
        Disk {
            files: Files::default(),
            ops: Vec::new(),
            faults,
            random: Random(seed),
            indexes: BTreeMap::new(),
        }
    }

    fn tell(&mut self, op: Op) {
        self.files.apply(&op);
        self.ops.push(op);
    }

    fn fails(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.one_in(one_in)
    }

    pub fn perform(&mut self, action: DiskAction) -> DiskDone {
        match action {
            DiskAction::Create { segment, header, bytes } => self.create(segment, header, bytes),
            DiskAction::Write { segment, offset, bytes } => self.write(segment, offset, bytes),
            DiskAction::Sync { segment } => {
                if self.fails(self.faults.sync) {
                    return DiskDone::Failed(DiskFault::Io(5));
                }
                self.tell(Op::Sync { segment });
                DiskDone::Done
            }
            DiskAction::Seal { segment, length, index } => {
                self.tell(Op::Cut { segment, length });
                if self.fails(self.faults.seal) {
                    return DiskDone::Failed(DiskFault::Io(5));
                }
                self.tell(Op::Sync { segment });
                self.indexes.insert(segment, index);
                DiskDone::Done
            }
            DiskAction::Remove { segment } => {
                self.tell(Op::Remove { segment });
                self.indexes.remove(&segment);
                DiskDone::Done
            }
            DiskAction::Read { segment, offset, length } => {
                match self.files.read(segment, offset, length) {
                    Ok(bytes) => DiskDone::Read(bytes),
                    Err(_) => DiskDone::Failed(DiskFault::Io(2)),
                }
            }
        }
    }

    fn create(&mut self, segment: u64, header: Vec<u8>, bytes: u64) -> DiskDone {
        self.tell(Op::Make { segment, bytes: 0 });
        if self.fails(self.faults.space) {
            return DiskDone::Failed(DiskFault::NoSpace);
        }
        self.tell(Op::Make { segment, bytes });
        self.tell(Op::Write { segment, offset: 0, bytes: Arc::new(header) });
        if self.fails(self.faults.create) {
            return DiskDone::Failed(DiskFault::Io(5));
        }
        self.tell(Op::Sync { segment });
        DiskDone::Done
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: Arc<Vec<u8>>) -> DiskDone {
        if self.fails(self.faults.write) {
            return DiskDone::Failed(DiskFault::Io(5));
        }
        if self.fails(self.faults.short) {
            let part = self.random.below(bytes.len() as u64) as usize;
            self.tell(Op::Write { segment, offset, bytes: Arc::new(bytes[..part].to_vec()) });
            return DiskDone::Short(part as u64);
        }
        self.tell(Op::Write { segment, offset, bytes });
        DiskDone::Done
    }

    /// What a cut of the power after the first `count` operations leaves: what was synced, and of
    /// what was not, whatever the disk had got round to.
    pub fn power_cut(&self, count: usize, random: &mut Random) -> Files {
        let mut left = Files::default();
        for (at, op) in self.ops[..count].iter().enumerate() {
            let is_synced = self.ops[at..count]
                .iter()
                .any(|later| matches!(later, Op::Sync { segment } if *segment == op.segment()));
            match op {
                _ if is_synced => left.apply(op),
                Op::Write { segment, offset, bytes } => {
                    left.write_some(*segment, *offset, bytes, random);
                }
                _ if random.one_in(2) => left.apply(op),
                _ => (),
            }
        }
        left
    }
}

impl Op {
    fn segment(&self) -> u64 {
        match self {
            Op::Make { segment, .. }
            | Op::Write { segment, .. }
            | Op::Cut { segment, .. }
            | Op::Remove { segment }
            | Op::Sync { segment } => *segment,
        }
    }
}

impl Files {
    /// Of a write, sector by sector: all of it, nothing, or only its beginning.
    fn write_some(&mut self, segment: u64, offset: u64, bytes: &[u8], random: &mut Random) {
        let Some(content) = self.0.get_mut(&segment) else { return };
        let most = random.below(4);
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let offset = offset + (number * SECTOR) as u64;
            let kept = match random.below(4) {
                0 => 0,
                1 => random.below(sector.len() as u64 + 1) as usize,
                kind if kind <= most => sector.len(),
                _ => 0,
            };
            if kept > 0 {
                content.write(offset, &sector[..kept]);
            }
        }
    }
}

/// A record of few bytes that takes one event.
pub fn told(body: &str) -> Record {
    Record::Told { kind: "test".into(), body: body.into() }
}
