//! What proves that no share is lost: what miners were told, the journal and a backend's book say
//! the same, and `reservegrid shares verify` agrees.
#![allow(clippy::print_stdout, reason = "what a proof was about")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use journal::codec;
use journal::folder::{Cursor, Folder};
use journal::segment::RECORD_ALIGNMENT;
use journal::walk::Located;
use journal::{Outcome, Record};
use serde_json::Value;
use work::BlockHash;

use super::faulty_backend::FaultyBackend;
use super::program;
use super::witness::Memory;

/// Folder of the journal in a gateway's `data_dir`.
pub fn folder_of(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// What a journal says of its shares.
#[derive(Debug, Default)]
pub struct Shares {
    /// Accepted ones, by event: hash and miner.
    pub accepted: BTreeMap<u64, (BlockHash, String)>,
    /// Results of each, by the event of its acceptance.
    pub results: BTreeMap<u64, Vec<Outcome>>,
    /// Refused ones in records of their own, or of a channel and a second.
    pub refused: u64,
    /// Refused ones that found no room and are told as a sum.
    pub unrecorded: u64,
    /// Bytes of the records about those.
    pub refused_bytes: u64,
}

/// Every record; there is no damage.
pub fn records(data_dir: &Path) -> Vec<Located> {
    let folder = Folder::open(folder_of(data_dir)).unwrap();
    let mut cursor = Cursor::at_start(&folder).unwrap();
    let mut records = Vec::new();
    while let Some(located) = cursor.next(u64::MAX).unwrap() {
        records.push(located);
    }
    assert_eq!(cursor.damages(), []);
    records
}

/// Read all of it.
pub fn shares(data_dir: &Path) -> Shares {
    let mut shares = Shares::default();
    for located in records(data_dir) {
        let bytes = frame_of(&located).len() as u64;
        match located.record {
            Record::Accepted(share) => {
                let of_it = (share.share_hash, share.miner_id.to_string());
                assert!(shares.accepted.insert(located.event_id, of_it).is_none());
            }
            Record::Settled(settled) => {
                for result in settled.results {
                    shares.results.entry(result.share_event).or_default().push(result.outcome);
                }
            }
            Record::Refused(refusal) => {
                shares.refused += u64::from(refusal.count);
                shares.refused_bytes += bytes;
            }
            Record::Unrecorded { counts } => {
                shares.unrecorded += counts.iter().map(|(_, count)| count).sum::<u64>();
                shares.refused_bytes += bytes;
            }
            _ => {}
        }
    }
    shares
}

impl Shares {
    /// Hashes of all accepted shares; each is there once.
    pub fn hashes(&self) -> BTreeSet<BlockHash> {
        let hashes: BTreeSet<BlockHash> = self.accepted.values().map(|(hash, _)| *hash).collect();
        assert_eq!(hashes.len(), self.accepted.len(), "a hash is accepted twice");
        hashes
    }

    /// Each accepted share has exactly one result, and nothing else has one.
    pub fn assert_settled_once(&self) {
        for (event, (hash, miner)) in &self.accepted {
            let results = self.results.get(event).map_or(0, Vec::len);
            assert_eq!(results, 1, "results of share {event} of {miner}, {hash}");
        }
        assert_eq!(self.results.len(), self.accepted.len(), "results of no share");
    }
}

/// `reservegrid shares verify`: the status that it exits with, and what it prints.
pub fn verify(data_dir: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program("reservegrid"));
    command.args(["shares", "verify", "--data-dir"]).arg(data_dir).args(flags);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
}

/// The books balance, by the program's word and by its sums of each miner and hour, and nothing is
/// open; settled shares by miner.
pub fn verified(data_dir: &Path) -> BTreeMap<String, u64> {
    let (status, text) = verify(data_dir, &["--hours", "--json"]);
    assert_eq!(status, Some(0), "{text}");
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&said["holds"], &said["faults_total"]), (&Value::Bool(true), &Value::from(0)));
    let mut settled = BTreeMap::new();
    for line in said["lines"].as_array().unwrap() {
        let sum = |name: &str| {
            let sum = &line["sums"][name];
            let work: u128 = sum["work"].as_str().unwrap().parse().unwrap();
            (sum["count"].as_u64().unwrap(), work)
        };
        let (accepted, open, dead) = (sum("accepted"), sum("open"), sum("dead"));
        assert_eq!((open, dead), ((0, 0), (0, 0)), "{line}");
        let results = ["delivered", "duplicate", "rejected", "discarded"].map(sum);
        let count: u64 = results.iter().map(|(count, _)| count).sum();
        let work: u128 = results.iter().map(|(_, work)| work).sum();
        assert_eq!((count, work), accepted, "{line}");
        let miner = line["miner_id"].as_str().unwrap().to_owned();
        *settled.entry(miner).or_default() += count;
    }
    settled
}

/// What miners were told, the journal and the backend's book say the same.
pub fn assert_whole(data_dir: &Path, memory: &Memory, backend: &FaultyBackend) {
    let shares = shares(data_dir);
    shares.assert_settled_once();
    let truth = backend.truth();
    assert_eq!(truth.wrongs, Vec::<String>::new());
    assert_eq!(truth.strays, Vec::<String>::new());
    assert_eq!(truth.duplicates(), Vec::<&String>::new(), "credited twice");
    let credited = truth.credited();
    assert_eq!(shares.hashes(), credited, "accepted and credited are the same");
    let lost = memory.accepted.keys().filter(|hash| !credited.contains(hash)).count();
    assert_eq!(lost, 0, "shares that miners were told are accepted");
    let mut by_miner: BTreeMap<String, u64> = BTreeMap::new();
    for share in truth.shares.values() {
        *by_miner.entry(share.miner_id.clone()).or_default() += 1;
    }
    assert_eq!(verified(data_dir), by_miner, "settled shares by miner");
    println!(
        "{} shares settled, {} of them told to witnesses, slowest after {:?}; {} unanswered",
        credited.len(),
        memory.accepted.len(),
        memory.slowest(),
        memory.unanswered.len()
    );
}

/// Bytes of a record, as they stand in its file, with the zeros behind it.
pub fn frame_of(located: &Located) -> Vec<u8> {
    let mut frame = Vec::new();
    codec::encode(&located.record, located.event_id, located.at, &mut frame);
    let padded = frame.len().next_multiple_of(usize::try_from(RECORD_ALIGNMENT).unwrap());
    frame.resize(padded, 0);
    frame
}
