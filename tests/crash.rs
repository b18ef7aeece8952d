//! Kill -9 of the gateway at random instants under full load, and nothing that a miner was told is
//! accepted is lost or credited twice.
//!
//! Miners that remember what they were told ([`stack::witness`]), the load generator beside them,
//! a backend whose book a test can believe ([`stack::truth`]), and the journal itself are compared.
//! `KILLS` says how often the gateway is killed, if not fifty times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use journal::Record;
use journal::folder::Folder;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde_json::json;
use stack::client::{Client, Share};
use stack::faulty_backend::FaultyBackend;
use stack::load::Load;
use stack::witness::Witnesses;
use stack::{PATIENCE, Settings, Stack, proof, surgery, wait_until};

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares a minute that a channel aims at: the load generator's eighty make 1280 a second together.
const SHARES_PER_MINUTE: f64 = 960.0;

/// Witnesses ask for shares of 2^14 hashes at 60 a minute, which are 2^10 at 960.
const EXPONENT: u32 = 18;

/// Miners that remember.
const WITNESSES: usize = 3;

/// Kills unless `KILLS` says otherwise.
const KILLS: usize = 50;

/// Shares that witnesses are told of before the next kill is due.
const SHARES_BETWEEN: usize = 60;

/// The kill comes up to this long after that, milliseconds.
const WAIT_MAX_MILLIS: u32 = 400;

/// How long every other kill waits for records that are not synced.
const AIM_MAX: Duration = Duration::from_millis(200);

/// Every so many kills half a record is left at the journal's end.
const TORN_EVERY: usize = 4;

/// Captured shares that are submitted again.
const REPLAYED_MAX: usize = 200;

/// What recovery says of a torn record.
const TORN: &str = "the end of a write that never was on disk is cut off";

/// How often the gateway is killed.
fn kills() -> usize {
    std::env::var("KILLS").map_or(KILLS, |text| text.parse().expect("KILLS is a number"))
}

/// What the kills hit.
#[derive(Debug, Default)]
struct Hits {
    /// Records that were not synced.
    unsynced: usize,
    /// The largest number of bytes of them.
    bytes_max: f64,
    /// A record that was half written, by the test's hand or by itself.
    torn: usize,
}

struct World {
    stack: Stack,
    backend: FaultyBackend,
    witnesses: Witnesses,
    load: Load,
    random: ChaCha20Rng,
    hits: Hits,
}

impl World {
    fn start() -> World {
        let backend = FaultyBackend::start();
        let gateway = json!({
            "mining": { "target_shares_per_minute": SHARES_PER_MINUTE },
            "share": { "share_upstream_url": backend.url(), "share_batch_interval_ms": 20 },
        });
        let stack = Stack::start(&Settings { gateway, ..Settings::demo(NBITS) });
        let load = ["--connections", "80", "--hashrate", "10000", "--reconnect", "50"];
        let load = Load::start(&stack, &load);
        let witnesses = Witnesses::start(&stack, WITNESSES, EXPONENT);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let random = ChaCha20Rng::from_seed(seed);
        World { stack, backend, witnesses, load, random, hits: Hits::default() }
    }

    fn data_dir(&self) -> PathBuf {
        self.stack.folder().join("sv2-gateway")
    }

    /// Bytes that are not synced now. Every other kill waits a moment for some.
    fn unsynced(&self, number: usize) -> f64 {
        let until = Instant::now() + AIM_MAX;
        loop {
            let bytes = self.stack.gateway.metric("outbox_bytes");
            if bytes > 0.0 || number.is_multiple_of(2) || Instant::now() >= until {
                return bytes;
            }
        }
    }

    /// Wait until everybody is at work, and some random time more; kill the gateway, and start it
    /// again.
    fn kill(&mut self, number: usize) {
        let told = self.witnesses.told();
        wait_until("shares of witnesses", PATIENCE, || {
            self.witnesses.told() >= told + SHARES_BETWEEN
        });
        wait_until("shares of the load", PATIENCE, || self.stack.accepted() >= 400);
        let wait = u64::from(self.random.next_u32() % WAIT_MAX_MILLIS);
        let until = Instant::now() + Duration::from_millis(wait);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        let unsynced = self.unsynced(number);
        self.stack.gateway.kill();
        if unsynced > 0.0 {
            self.hits.unsynced += 1;
            self.hits.bytes_max = self.hits.bytes_max.max(unsynced);
        }
        if number.is_multiple_of(TORN_EVERY) {
            surgery::tear(&self.data_dir());
        }
        let torn_before = self.stack.gateway.log().matches(TORN).count();
        self.stack.gateway.start();
        let torn = self.stack.gateway.log().matches(TORN).count() > torn_before;
        assert!(torn || !number.is_multiple_of(TORN_EVERY), "the torn record was not seen");
        self.hits.torn += usize::from(torn);
        println!("kill {number}: {unsynced} bytes were not synced, torn: {torn}");
    }
}

/// A miner submits again what others had submitted, before kills and after, as it was and under a
/// channel and job of its own; all of it is refused, and the backend's book stays as it is.
fn replay(stack: &Stack, backend: &FaultyBackend, captured: &[&Share]) {
    let before = backend.truth().credited();
    let mut miner: Client = stack.client();
    miner.ask_to_open("thief", EXPONENT - 8);
    miner.wait_until("work", |miner| miner.channels.values().any(|one| one.active.is_some()));
    let channel_id = *miner.channels.keys().next().unwrap();
    let job_id = miner.work(channel_id).job_id;
    for share in captured {
        miner.submit(share);
        miner.submit(&Share { channel_id, job_id, ..(*share).clone() });
    }
    miner.wait_until("refusals", |miner| miner.rejected.len() == 2 * captured.len());
    assert_eq!(miner.accepted, 0);
    assert_eq!(backend.truth().credited(), before);
}

/// A record that is taken out by hand, with every checksum mended, is found, and named.
fn assert_removal_is_found(data_dir: &Path, name: &str, is_wanted: impl Fn(&Record) -> bool) {
    let copy = data_dir.with_file_name(format!("without-{name}"));
    surgery::copy(data_dir, &copy);
    assert_eq!(proof::verify(&copy, &[]).0, Some(0), "the copy is whole");
    let cut = surgery::cut_out(&copy, is_wanted);
    let (status, text) = proof::verify(&copy, &[]);
    assert_eq!(status, Some(1), "without {cut:?}:\n{text}");
    assert!(text.contains("the journal does not add up"), "{text}");
    let (_, json) = proof::verify(&copy, &["--json"]);
    let said: serde_json::Value = serde_json::from_str(&json).unwrap();
    let faults = said["faults"].as_array().unwrap();
    assert!(!faults.is_empty(), "{said}");
    println!("without a record of kind {name}: {}", faults[0]);
    std::fs::remove_dir_all(&copy).unwrap();
}

/// Records that a removal must be found of.
fn assert_removals_are_found(data_dir: &Path) {
    let is_accepted = |record: &Record| matches!(record, Record::Accepted(_));
    assert_removal_is_found(data_dir, "accepted", is_accepted);
    let is_settled = |record: &Record| matches!(record, Record::Settled(_));
    assert_removal_is_found(data_dir, "settled", is_settled);
    // The last acknowledgement of a channel may be missing: then it was never told.
    let mut last: BTreeMap<(u16, u8, u64), u64> = BTreeMap::new();
    for located in proof::records(data_dir) {
        if let Record::Acknowledged { epoch, shard, channel_key, through, .. } = located.record {
            last.insert((epoch, shard, channel_key), through);
        }
    }
    assert_removal_is_found(data_dir, "acknowledged", |record| match record {
        Record::Acknowledged { epoch, shard, channel_key, through, .. } => {
            *through < last[&(*epoch, *shard, *channel_key)]
        }
        _ => false,
    });
}

/// Segments of the journal.
fn segments(data_dir: &Path) -> usize {
    let folder = Folder::open(proof::folder_of(data_dir)).unwrap();
    folder.segments().unwrap().len()
}

/// Goal: what miners were told is accepted is settled, each share with one result and credited
/// once, whenever the gateway is killed; the books say so, and say where a record is missing.
#[test]
fn killed_at_random_instants() {
    let (kills, mut world) = (kills(), World::start());
    for number in 0..kills {
        world.kill(number);
    }
    wait_until("shares after the last kill", PATIENCE, || world.stack.accepted() >= 400);
    let report = world.load.leave();
    println!("load: {} shares accepted", report["shares_accepted"]);
    let World { mut stack, backend, witnesses, hits, .. } = world;
    let memory = witnesses.leave();
    let depth = || stack.gateway.metric("share_forward_queue_depth");
    wait_until("an empty queue", PATIENCE, || depth() == 0.0);
    let unanswered = memory.unanswered.iter().take(REPLAYED_MAX / 2);
    let captured: Vec<&Share> =
        unanswered.chain(memory.accepted.values().take(REPLAYED_MAX / 2)).collect();
    replay(&stack, &backend, &captured);
    assert!(stack.gateway.stop(PATIENCE).success());
    let data_dir = stack.folder().join("sv2-gateway");
    assert!(segments(&data_dir) > kills, "each start begins a segment");
    proof::assert_whole(&data_dir, &memory, &backend);
    println!("{kills} kills: {hits:?}");
    assert!(hits.unsynced >= kills / 5, "{hits:?}");
    assert!(hits.torn >= 1, "{hits:?}");
    assert_removals_are_found(&data_dir);
}
