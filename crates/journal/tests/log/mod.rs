//! Journals made by hand: what a gateway would append, record by record.
#![allow(dead_code, reason = "each test uses what it needs")]

#[path = "../made/disk.rs"]
pub mod disk;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use journal::record::{Attempt, Outcome, Record, Settled, Settlement};
use journal::segment::Position;
use journal::walk::Located;
use journal::{Refusal, Share};
use work::{BlockHash, Difficulty, TemplateId, UnixTime, Work};

/// An hour's begin; shares come every millisecond from it.
pub const BEGIN: u64 = 1_767_225_600_000;

/// Records of one group.
const TURN_RECORDS: usize = 16;

/// Bytes that a record is pretended to have.
const RECORD_BYTES: u64 = 100;

/// The name of a share (D25).
pub fn share_id(at: UnixTime, hash: &BlockHash) -> u128 {
    let mut random = [0; 16];
    random[6..].copy_from_slice(&hash.0[..10]);
    (u128::from(at.0) << 80) | u128::from_be_bytes(random)
}

/// A journal that grows.
#[derive(Clone)]
pub struct Log {
    pub records: Vec<Located>,
    pub next_event: u64,
    pub epoch: u16,
    pub now: UnixTime,
    shares: BTreeMap<u64, Share>,
    sequences: HashMap<u8, u64>,
    told: HashMap<u64, u64>,
    settled: BTreeMap<u64, Outcome>,
    dead: BTreeMap<u64, ()>,
}

impl Log {
    pub fn new() -> Log {
        Log {
            records: Vec::new(),
            next_event: 1,
            epoch: 1,
            now: UnixTime(BEGIN),
            shares: BTreeMap::new(),
            sequences: HashMap::new(),
            told: HashMap::new(),
            settled: BTreeMap::new(),
            dead: BTreeMap::new(),
        }
    }

    /// Writes all records as a gateway does, into segments of `segment_bytes`.
    pub fn write(&self, folder: &Path, segment_bytes: u64) -> disk::Disk {
        let mut disk = disk::Disk::new(folder, segment_bytes);
        self.append_from(0, &mut disk);
        disk
    }

    /// Writes the records from `begin` on behind those that are there.
    pub fn append_from(&self, begin: usize, disk: &mut disk::Disk) {
        for turn in self.records[begin..].chunks(TURN_RECORDS) {
            for located in turn {
                assert_eq!(disk.append(located.at, &located.record), located.event_id);
            }
            disk.sync();
        }
    }

    pub fn push(&mut self, record: Record) -> u64 {
        let event_id = self.next_event;
        self.next_event += record.events();
        let offset = 512 + self.records.len() as u64 * RECORD_BYTES;
        let position = Position { segment: 1, offset };
        let next = offset + RECORD_BYTES;
        self.records.push(Located { position, next, event_id, at: self.now, record });
        event_id
    }

    pub fn accept(&mut self, shard: u8, channel_key: u64, miner_id: &str) -> u64 {
        self.now.0 += 1;
        let sequence = self.sequences.entry(shard).or_default();
        *sequence += 1;
        let share = share(self.now, self.epoch, shard, *sequence, channel_key, miner_id);
        let event = self.push(Record::Accepted(share.clone()));
        self.shares.insert(event, share);
        event
    }

    /// The name of the share that this event accepted.
    pub fn name(&self, event: u64) -> u128 {
        self.shares[&event].share_id
    }

    /// An accepted share with something about it changed.
    pub fn accept_with(&mut self, miner_id: &str, change: impl FnOnce(&mut Share)) -> u64 {
        let event = self.accept(0, 7, miner_id);
        let Some(Located { record: Record::Accepted(share), .. }) = self.records.last_mut() else {
            unreachable!("it was just accepted")
        };
        change(share);
        self.shares.insert(event, share.clone());
        event
    }

    pub fn refuse(&mut self, reason: &str, count: u32) -> u64 {
        self.now.0 += 1;
        let hash = hash_of(self.now.0, u64::from(u32::MAX));
        self.push(Record::Refused(Refusal {
            share_id: share_id(self.now, &hash),
            share_hash: Some(hash),
            count,
            at: self.now,
            connection_id: 4,
            channel_id: 3,
            sequence_number: 2,
            job_id: 1,
            reason_code: Arc::from(reason),
            miner_id: Arc::from("mallory"),
        }))
    }

    /// `count` shares with their true work, through the channel's share `through`.
    pub fn acknowledge(&mut self, shard: u8, channel_key: u64, through: u64, count: u32) {
        let last = self.told.insert(channel_key, through).unwrap_or(0);
        let is_meant = |share: &&Share| {
            (share.epoch, share.shard, share.channel_key) == (self.epoch, shard, channel_key)
                && share.sequence > last
                && share.sequence <= through
        };
        let work: Work = self.shares.values().filter(is_meant).map(Share::work).sum();
        let epoch = self.epoch;
        self.push(Record::Acknowledged { epoch, shard, channel_key, through, count, work });
    }

    pub fn attempt(&mut self, batch: &str, status: u16, shares: &[u64]) {
        self.push(Record::Attempted(Attempt {
            batch_id: Arc::from(batch),
            attempt: 1,
            status,
            rtt_micros: 1_500,
            error_detail: Arc::from(if status == 200 { "" } else { "it did not work" }),
            shares: shares.to_vec(),
        }));
    }

    pub fn settle(&mut self, batch: &str, outcome: Outcome, shares: &[u64]) {
        let result = |event: &u64| {
            let share = self.shares.get(event);
            Settlement {
                share_event: *event,
                share_id: share.map_or(0, |share| share.share_id),
                accepted_at: share.map_or(UnixTime(0), |share| share.accepted_at),
                outcome,
                error_detail: Arc::from(""),
            }
        };
        let results = shares.iter().map(result).collect();
        for share in shares {
            self.settled.insert(*share, outcome);
            self.dead.remove(share);
        }
        let batch_id = Arc::from(batch);
        let settled = Settled { batch_id, status: 200, attempts: 1, rtt_micros: 1_500, results };
        self.push(Record::Settled(settled));
    }

    pub fn dead_letter(&mut self, batch: &str, shares: &[u64]) -> u64 {
        self.dead.extend(shares.iter().map(|share| (*share, ())));
        self.push(Record::DeadLettered {
            batch_id: Arc::from(batch),
            status: 400,
            error_detail: Arc::from("unknown field"),
            shares: shares.to_vec(),
        })
    }

    pub fn replay(&mut self, shares: &[u64]) -> u64 {
        shares.iter().for_each(|share| _ = self.dead.remove(share));
        self.push(Record::Replayed { shares: shares.to_vec() })
    }

    pub fn told(&mut self, kind: &str, body: &str) -> u64 {
        self.push(Record::Told { kind: Arc::from(kind), body: Arc::from(body) })
    }

    pub fn unrecorded(&mut self, reason: &str, count: u64) -> u64 {
        self.push(Record::Unrecorded { counts: vec![(Arc::from(reason), count)] })
    }

    pub fn open(&self) -> Vec<u64> {
        let is_open = |event: &&u64| !self.settled.contains_key(*event);
        self.shares.keys().filter(is_open).copied().collect()
    }

    pub fn settle_all_open(&mut self) {
        let open = self.open();
        let (dead, open): (Vec<u64>, Vec<u64>) =
            open.into_iter().partition(|event| self.dead.contains_key(event));
        if !dead.is_empty() {
            self.replay(&dead);
        }
        let all = [dead, open].concat();
        self.settle("bat_last", Outcome::Delivered, &all);
    }

    pub fn checkpoint(&mut self) {
        let is_waiting = |event: &&u64| !self.dead.contains_key(*event);
        let open = self.open();
        let settled_below = open.iter().find(is_waiting).copied().unwrap_or(self.next_event);
        let oldest_dead = self.dead.keys().next().copied().unwrap_or(u64::MAX);
        let epoch = self.epoch;
        self.push(Record::Checkpoint { settled_below, oldest_dead, epoch });
    }

    /// The gateway starts again.
    pub fn restart(&mut self) {
        self.epoch += 1;
        self.sequences.clear();
        self.told.clear();
    }
}

/// A hash that no other two numbers give.
fn hash_of(a: u64, b: u64) -> BlockHash {
    let mut bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
    bytes.reverse();
    BlockHash(work::hash::sha256d(&bytes))
}

pub fn share(
    now: UnixTime,
    epoch: u16,
    shard: u8,
    sequence: u64,
    channel_key: u64,
    miner_id: &str,
) -> Share {
    let share_hash = hash_of(now.0, (u64::from(shard) << 48) | (u64::from(epoch) << 32) | sequence);
    Share {
        share_id: share_id(now, &share_hash),
        share_hash,
        epoch,
        shard,
        sequence,
        connection_id: 11,
        channel_key,
        channel_id: 2,
        opened_event: 0,
        verdict_event: 0,
        accepted_at: now,
        latency_micros: 40,
        sequence_number: 5,
        job_id: 6,
        template_id: TemplateId(3),
        height: 900_000,
        prev_hash: BlockHash([9; 32]),
        nbits: 0x1d00_ffff,
        version: 0x2000_0000,
        ntime: now.seconds(),
        nonce: 77,
        extranonce: [1, 2, 3, 4].into_iter().collect(),
        coinbase_value: 312_500_000,
        fees: 12,
        difficulty: Difficulty::at_most(sequence as f64),
        block_found: false,
        coinbase_txid: None,
        hold: false,
        miner_id: Arc::from(miner_id),
        worker_id: None,
    }
}
