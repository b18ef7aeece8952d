//! Shares for tests, each made from its number alone.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::sync::Arc;

use journal::record::Settled;
use journal::{Outcome, Record, Refusal, Settlement, Share};
use work::{BlockHash, Difficulty, TemplateId, UnixTime};

pub mod disk;

/// Milliseconds of the share with number 0: 2026-01-02 03:04:05.678 UTC.
pub const BEGIN: u64 = 1_767_323_045_678;

/// A hash that differs from that of every other number.
pub fn hash(number: u64) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&(!number).to_le_bytes());
    bytes[26] = 0x40;
    BlockHash(bytes)
}

/// ULID of share `number`.
pub fn share_id(number: u64) -> u128 {
    (u128::from(BEGIN + number) << 80) | u128::from(number)
}

/// Accepted share `number` of `miner_id`, one each millisecond.
pub fn share(number: u64, miner_id: &str) -> Share {
    Share {
        share_id: share_id(number),
        share_hash: hash(number),
        epoch: 1,
        shard: 0,
        sequence: number,
        connection_id: (1 << 32) | 3,
        channel_key: u64::MAX - 1,
        channel_id: 7,
        opened_event: 1,
        verdict_event: 2,
        accepted_at: UnixTime(BEGIN + number),
        latency_micros: 11,
        sequence_number: number as u32,
        job_id: 12,
        template_id: TemplateId(1_767_323_000_000),
        height: 900_000,
        prev_hash: hash(0),
        nbits: 0x1702_9b4a,
        version: 0x2000_0000,
        ntime: 1_767_323_040,
        nonce: number as u32,
        extranonce: [0, 1, 0, 1, 0, 0, 0, 1].into_iter().collect(),
        coinbase_value: 312_512_345,
        fees: 12_345,
        difficulty: Difficulty::at_most(1_024.0),
        block_found: false,
        coinbase_txid: None,
        hold: false,
        miner_id: Arc::from(miner_id),
        worker_id: Some(Arc::from("rig-1")),
    }
}

/// Refused share `number` of `miner_id`.
pub fn refusal(number: u64, miner_id: &str) -> Refusal {
    Refusal {
        share_id: share_id(number),
        share_hash: None,
        count: 1,
        at: UnixTime(BEGIN + number),
        connection_id: (1 << 32) | 3,
        channel_id: 7,
        sequence_number: number as u32,
        job_id: 12,
        reason_code: "stale_prevhash".into(),
        miner_id: Arc::from(miner_id),
    }
}

/// Names that strangers give themselves, by number.
pub const MINERS: [&str; 8] =
    ["acme", "=SUM(A1:A9)", "+1", "-1", "@here", "\tx", "\rx", "a \"quoted\", name\r\n=2"];

/// The miner of share `number`.
pub fn miner(number: u64) -> &'static str {
    MINERS[(number % 8) as usize]
}

/// A result of share `number`.
pub fn result(number: u64, share_event: u64, outcome: Outcome) -> Settlement {
    let error_detail = match outcome {
        Outcome::Delivered => String::new(),
        // Some of these differ from share to share, and are more than an export keeps.
        _ => format!("-{} because of {}", outcome.name(), number % 4_096),
    };
    Settlement {
        share_event,
        share_id: share_id(number),
        accepted_at: UnixTime(BEGIN + number),
        outcome,
        error_detail: error_detail.into(),
    }
}

/// What becomes of share `number`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It has its result with its batch.
    AtOnce(Outcome),
    /// A dead letter for ever.
    Dead,
    /// A dead letter that has its result at the very end.
    Late(Outcome),
    /// A dead letter that was to be posted again, and was not.
    Replayed,
    /// Not posted.
    Open,
}

/// The course of share `number` of `shares`.
pub fn course(number: u64, shares: u64) -> Course {
    match number % 1_000 {
        _ if number + shares / 50 > shares => Course::Open,
        7 => Course::Dead,
        107 | 207 => Course::Late(Outcome::Delivered),
        307 => Course::Late(Outcome::DeadLettered),
        407 => Course::Replayed,
        507 => Course::Open,
        rest if rest % 100 == 50 => Course::AtOnce(Outcome::Duplicate),
        rest if rest % 100 == 60 => Course::AtOnce(Outcome::RejectedByUpstream),
        _ => Course::AtOnce(Outcome::Delivered),
    }
}

/// Results with one status in one record.
pub fn settled(results: Vec<Settlement>) -> Record {
    Record::Settled(Settled {
        batch_id: "bat_1".into(),
        status: 200,
        attempts: 2,
        rtt_micros: 900,
        results,
    })
}

/// Writes the journal of `shares` accepted shares, numbered from 1, and of a refused one after
/// every 50th. Batches of `batch` are settled when `lag` of them are accepted, the newest of
/// them first in every other case.
pub fn journal(disk: &mut disk::Disk, shares: u64, batch: u64, lag: usize) {
    let mut waiting: VecDeque<Vec<(u64, u64)>> = VecDeque::new();
    let mut late = Vec::new();
    for number in 1..=shares {
        let at = UnixTime(BEGIN + number);
        let event = disk.append(at, &Record::Accepted(share(number, miner(number))));
        if number % 50 == 0 {
            disk.append(at, &Record::Refused(refusal(shares + number, miner(number))));
        }
        match waiting.back_mut() {
            Some(last) if (last.len() as u64) < batch => last.push((number, event)),
            _ => waiting.push_back(vec![(number, event)]),
        }
        while waiting.len() > lag {
            let is_newest = waiting.len().is_multiple_of(2) && lag > 1;
            let taken = if is_newest { waiting.remove(lag - 1) } else { waiting.pop_front() };
            settle(disk, at, taken.unwrap(), shares, &mut late);
        }
    }
    let at = UnixTime(BEGIN + shares + 1);
    for taken in waiting {
        settle(disk, at, taken, shares, &mut late);
    }
    for part in late.chunks(100) {
        disk.append(at, &Record::Replayed { shares: part.iter().map(|(_, e)| *e).collect() });
        let results = part.iter().filter_map(|(number, event)| match course(*number, shares) {
            Course::Late(outcome) => Some(result(*number, *event, outcome)),
            _ => None,
        });
        let record = settled(results.collect());
        if record.events() > 0 {
            disk.append(at, &record);
        }
    }
    disk.sync();
}

fn settle(
    disk: &mut disk::Disk,
    at: UnixTime,
    batch: Vec<(u64, u64)>,
    shares: u64,
    late: &mut Vec<(u64, u64)>,
) {
    let (mut results, mut dead) = (Vec::new(), Vec::new());
    for (number, event) in batch {
        match course(number, shares) {
            Course::AtOnce(outcome) => results.push(result(number, event, outcome)),
            Course::Open => {}
            Course::Dead => dead.push(event),
            Course::Late(_) | Course::Replayed => {
                dead.push(event);
                late.push((number, event));
            }
        }
    }
    if !results.is_empty() {
        disk.append(at, &settled(results));
    }
    if !dead.is_empty() {
        disk.append(
            at,
            &Record::DeadLettered {
                batch_id: "bat_2".into(),
                status: 422,
                error_detail: "=no such pool".into(),
                shares: dead,
            },
        );
    }
}
