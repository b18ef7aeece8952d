//! A disk that is full, and one that hangs, under the whole of a gateway's `data_dir`: nothing that
//! was acknowledged is lost, miners are told the reason, blocks go out, and it heals by itself.
//!
//! File systems of the tests' own, which takes the rights of root ([`stack::volume`]).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::time::{Duration, Instant};

use serde_json::json;
use stack::faulty_backend::FaultyBackend;
use stack::load::Load;
use stack::node::Node;
use stack::volume::Volume;
use stack::witness::Witnesses;
use stack::{PATIENCE, Settings, Stack, proof, wait_for, wait_until};
use work::BlockHash;

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares a minute that a channel aims at.
const SHARES_PER_MINUTE: f64 = 960.0;

/// Shares that find a place while none is taken out.
const QUEUE_SIZE: u64 = 2_048;

/// Witnesses ask for shares of 2^14 hashes at 60 a minute, which are 2^10 at 960.
const EXPONENT: u32 = 18;

/// Shares at work of 2^(32 - 24) hashes: on regtest every share is a block.
const BLOCK_EXPONENT: u32 = 24;

/// How a miner is told that there is no place to put a share.
const REFUSED: &str = "upstream-unavailable";

/// The file system that fills up, mebibytes: two segments of the journal and the floors fit.
const VOLUME_MEBIBYTES: u64 = 512;

/// Free space at which miners are slowed, and at which they are refused: between the floors of
/// 256 and 128 MiB, and below both.
const SLOW_MEBIBYTES: u64 = 200;
const FULL_MEBIBYTES: u64 = 100;

/// The longest that a share waits for its acknowledgement while miners are slowed, at least.
const SLOWED: Duration = Duration::from_millis(300);

/// Blocks that are found while the disk hangs.
const BLOCKS_MEANWHILE: u64 = 3;

/// Blocks before a test begins; coinbases of the first can be spent.
const BLOCKS_BEFORE: u32 = 20;

/// The programs, with the gateway's `data_dir` on a volume, and miners.
struct World {
    witnesses: Witnesses,
    load: Load,
    stack: Stack,
    backend: FaultyBackend,
    volume: Volume,
}

impl World {
    fn start(volume: Volume) -> World {
        let backend = FaultyBackend::start();
        let gateway = json!({
            "mining": { "target_shares_per_minute": SHARES_PER_MINUTE },
            "share": {
                "share_upstream_url": backend.url(),
                "share_forward_queue_size": QUEUE_SIZE,
            },
        });
        let stack = start_on(&volume, &Settings { gateway, ..Settings::demo(NBITS) });
        let load = ["--connections", "60", "--hashrate", "10000", "--reconnect", "50"];
        let load = Load::start(&stack, &load);
        let witnesses = Witnesses::start(&stack, 2, EXPONENT);
        let world = World { witnesses, load, stack, backend, volume };
        world.wait_told("at first", 100);
        world
    }

    /// Wait until witnesses were told of that many more shares.
    fn wait_told(&self, when: &str, more: usize) {
        let before = self.witnesses.told();
        let what = format!("acknowledged shares {when}");
        wait_until(&what, PATIENCE, || self.witnesses.told() >= before + more);
    }

    /// Shares of the load that were refused with the reason. Its miners stay on their channels;
    /// witnesses may be waiting for one, which is not given out now.
    fn refusals(&self) -> u64 {
        let report = self.load.latest().unwrap_or_default();
        report["rejects"][REFUSED].as_u64().unwrap_or(0)
    }

    fn wait_level(&self, level: f64) {
        let now = || self.stack.gateway.metric("storage_level");
        wait_until(&format!("level {level} of storage"), PATIENCE, || now() == level);
    }

    /// Whether `/readyz` lacks no storage.
    fn is_storage_ready(&self) -> bool {
        let (status, lacking) = self.stack.gateway.readiness().unwrap();
        assert!(status == 200 || lacking.contains("storage"), "{lacking}");
        status == 200
    }

    fn wait_settled(&self) {
        let depth = || self.stack.gateway.metric("share_forward_queue_depth");
        wait_until("an empty queue", PATIENCE, || depth() == 0.0);
    }

    /// Everybody leaves, all is settled, and everything adds up.
    fn end(self) {
        let World { witnesses, load, mut stack, backend, volume } = self;
        load.leave();
        let memory = witnesses.leave();
        let depth = || stack.gateway.metric("share_forward_queue_depth");
        wait_until("an empty queue", PATIENCE, || depth() == 0.0);
        assert!(stack.gateway.stop(PATIENCE).success());
        let data_dir = stack.folder().join("sv2-gateway");
        proof::assert_whole(&data_dir, &memory, &backend);
        drop(stack);
        drop(volume);
    }
}

/// A stack whose gateway has its `data_dir` on this volume.
fn start_on(volume: &Volume, settings: &Settings) -> Stack {
    let mut stack = Stack::without_gateway(settings);
    volume.hold(&stack.folder().join("sv2-gateway"));
    let verifier = stack.verifier.address("listen_addr");
    stack.start_gateway(&verifier);
    stack
}

/// Goal: below the first floor miners are slowed and refused nothing; below the second they are
/// refused with the reason, what was acknowledged is settled, and so it stays over a kill; when
/// space returns, work goes on by itself.
#[test]
fn a_full_disk() {
    let Some(volume) = Volume::in_memory(VOLUME_MEBIBYTES) else { return };
    let mut world = World::start(volume);
    assert_eq!(world.stack.gateway.metric("storage_level"), 0.0);

    world.volume.fill(SLOW_MEBIBYTES);
    world.wait_level(1.0);
    world.witnesses.memory().forget_latencies();
    world.wait_told("from slowed miners", 200);
    let slowest = world.witnesses.memory().slowest();
    println!("slowed: an acknowledgement took {slowest:?}");
    assert!(slowest >= SLOWED, "{slowest:?}");
    assert_eq!(world.refusals(), 0, "slowed miners are refused nothing");

    world.volume.fill(FULL_MEBIBYTES);
    world.wait_level(2.0);
    wait_until("refusals with the reason", PATIENCE, || world.refusals() >= 20);
    world.wait_settled();
    assert!(!world.is_storage_ready());
    // Not a byte is left for whoever else wants some; the journal has its room already.
    world.volume.fill(0);
    let (told, refusals) = (world.witnesses.told(), world.refusals());
    wait_until("more refusals", PATIENCE, || world.refusals() >= refusals + 20);
    assert_eq!(world.witnesses.told(), told, "nothing is accepted");
    world.volume.empty();
    world.wait_told("when there is space again", 100);
    world.wait_level(0.0);

    world.volume.fill(FULL_MEBIBYTES);
    world.wait_level(2.0);
    world.stack.gateway.kill();
    // It is not ready, so that is not waited for.
    world.stack.gateway.spawn();
    world.stack.gateway.wait_listening();
    world.wait_level(2.0);
    world.volume.empty();
    world.wait_told("after a kill on a full disk", 100);
    world.stack.gateway.wait_ready();
    world.end();
}

/// Goal: while nothing can be written no share is acknowledged, and the gateway says what is wrong;
/// afterwards all of them are.
#[test]
fn a_hanging_disk() {
    let Some(volume) = Volume::in_file(2 * VOLUME_MEBIBYTES) else { return };
    let mut world = World::start(volume);
    for round in 0..2 {
        world.volume.freeze();
        let accepted = world.stack.accepted();
        let began = Instant::now();
        wait_until("shares that are judged meanwhile", PATIENCE, || {
            world.stack.accepted() >= accepted + 500
        });
        let told = world.witnesses.told();
        wait_until("more of them", PATIENCE, || world.stack.accepted() >= accepted + 1_500);
        assert_eq!(world.witnesses.told(), told, "acknowledged though nothing can be synced");
        println!("round {round}: hung for {:?}", began.elapsed());
        wait_until("a gateway that is not ready", PATIENCE, || !world.is_storage_ready());
        assert_eq!(world.witnesses.told(), told, "acknowledged though nothing can be synced");
        world.volume.thaw();
        world.wait_told("after the disk hung", 100);
        wait_until("a gateway that is ready", PATIENCE, || world.is_storage_ready());
    }
    world.end();
}

/// Goal: blocks that are found while the disk hangs are the node's at once; their shares are
/// acknowledged and settled when the disk goes on.
#[test]
fn blocks_while_the_disk_hangs() {
    let Some(node) = Node::start("regtest") else { return };
    let Some(mut volume) = Volume::in_file(2 * VOLUME_MEBIBYTES) else { return };
    node.generate(BLOCKS_BEFORE);
    let stack = start_on(&volume, &Settings::node(&node));
    let mut miner = stack.client();
    let channel_id = miner.open("miner", BLOCK_EXPONENT);
    let target = miner.channels[&channel_id].target;
    let height = node.height();
    volume.freeze();
    let mut found: Vec<BlockHash> = Vec::new();
    for number in 0..BLOCKS_MEANWHILE {
        let work = miner.work(channel_id);
        let network = work.network_target();
        let share = work.grind(0, |hash| network.is_met_by(hash) && target.is_met_by(hash));
        let began = Instant::now();
        miner.submit(&share);
        let what = format!("block {number} at the node");
        let status = wait_for(&what, PATIENCE, || node.status_of(&share.hash));
        println!("block {number}: the node has it after {:?}", began.elapsed());
        assert_eq!(status, "active");
        found.push(share.hash);
        miner.wait_until("work on the new block", |miner| {
            miner.channels[&channel_id].tip.is_some_and(|tip| tip.prev_hash == share.hash)
        });
    }
    assert_eq!((node.height(), node.tip()), (height + BLOCKS_MEANWHILE, found[2]));
    miner.catch_up();
    assert_eq!((miner.accepted, miner.rejected.len()), (0, 0), "nothing is on disk");
    volume.thaw();
    miner.wait_until("acknowledgements", |miner| miner.accepted == BLOCKS_MEANWHILE);
    wait_until("the backend's book", PATIENCE, || stack.backend_shares() == BLOCKS_MEANWHILE);
    assert_eq!(stack.backend_status()["blocks"], json!(BLOCKS_MEANWHILE));
    drop(stack);
}
