//! A flood of refused shares, on hundreds of channels at once: what the journal tells of them fills
//! its quota and no more (D31), and the shares of others are accepted as before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gateway::limits::{REFUSALS_BYTES_MAX, REFUSALS_BYTES_PER_SECOND, REFUSALS_PER_SECOND};
use journal::audit::audit;
use journal::folder::Folder;
use serde_json::json;
use stack::client::{Client, Share};
use stack::faulty_backend::FaultyBackend;
use stack::proof;
use stack::witness::Witnesses;
use stack::{PATIENCE, Settings, Stack, wait_until};
use work::BlockHash;

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares a minute that a channel aims at: what the flood sends is within its channels' rates.
const SHARES_PER_MINUTE: f64 = 1_920.0;

/// Witnesses ask for shares of 2^14 hashes at 60 a minute, which are 2^9 at 1 920.
const EXPONENT: u32 = 18;

/// Connections that flood.
const FLOODERS: usize = 4;

/// Channels of each.
const CHANNELS: usize = 100;

/// Shares of each channel a second: more than are told one by one.
const PER_SECOND: u32 = REFUSALS_PER_SECOND + 2;

/// How long it lasts; the quota is full well before.
const FLOOD: Duration = Duration::from_secs(12);

/// A job that nobody was given.
const NO_JOB: u32 = u32::MAX;

/// What everything else in the journal takes for one accepted share, bytes: its record, its share
/// of acknowledgements, attempts and results, and of the room that rounding takes.
const BYTES_PER_SHARE: u64 = 2_048;

/// Send refused shares on many channels until told to stop; how many.
fn flood(mut client: Client, name: &str, ready: &AtomicUsize, is_over: &AtomicBool) -> usize {
    for number in 0..CHANNELS {
        client.ask_to_open(&format!("{name}.{number}"), EXPONENT);
    }
    client.wait_until("channels", |client| {
        client.channels.len() == CHANNELS && client.channels.values().all(|c| c.active.is_some())
    });
    let channels: Vec<u32> = client.channels.keys().copied().collect();
    let claim = client.work(channels[0]).grind(0, |_| true).claim;
    ready.fetch_add(1, Ordering::SeqCst);
    let (began, mut rounds, mut sent) = (Instant::now(), 0, 0);
    while !is_over.load(Ordering::SeqCst) {
        for channel_id in &channels {
            let hash = BlockHash([0; 32]);
            client.submit(&Share { channel_id: *channel_id, job_id: NO_JOB, claim, hash });
            sent += 1;
        }
        rounds += 1;
        let next = Duration::from_secs(1) * rounds / PER_SECOND;
        while began.elapsed() < next {
            client.next(Duration::from_millis(5));
        }
    }
    client.wait_until("answers", |client| client.rejected.len() == sent);
    assert_eq!(client.accepted, 0);
    sent
}

/// Bytes of the journal that are in use.
fn journal_bytes(data_dir: &Path) -> u64 {
    let folder = Folder::open(proof::folder_of(data_dir)).unwrap();
    let audit = audit(&folder).unwrap();
    assert_eq!(audit.segments, Some((1, 1)), "one segment holds all of it");
    audit.end.offset
}

/// Goal: refused shares take their quota of the journal and no more, however many there are; what
/// is accepted meanwhile is acknowledged and settled, all of it.
#[test]
fn a_flood_fills_its_quota_only() {
    let backend = FaultyBackend::start();
    let gateway = json!({
        "mining": {
            "target_shares_per_minute": SHARES_PER_MINUTE,
            "max_channels_per_connection": CHANNELS,
        },
        "share": { "share_upstream_url": backend.url() },
    });
    let mut stack = Stack::start(&Settings { gateway, ..Settings::demo(NBITS) });
    let witnesses = Witnesses::start(&stack, 2, EXPONENT);
    wait_until("accepted shares", PATIENCE, || witnesses.told() >= 100);
    let (ready, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let sent: usize = std::thread::scope(|scope| {
        let (ready, is_over, stack) = (&ready, &is_over, &stack);
        let start = |number| {
            let client = stack.client();
            scope.spawn(move || flood(client, &format!("flood-{number}"), ready, is_over))
        };
        let flooders: Vec<_> = (0..FLOODERS).map(start).collect();
        wait_until("all flooders", PATIENCE, || ready.load(Ordering::SeqCst) == FLOODERS);
        let flooding = Instant::now();
        while flooding.elapsed() < FLOOD {
            let told = witnesses.told();
            wait_until("accepted shares beside the flood", PATIENCE, || {
                witnesses.told() >= told + 50
            });
        }
        is_over.store(true, Ordering::SeqCst);
        flooders.into_iter().map(|flooder| flooder.join().unwrap()).sum()
    });
    let memory = witnesses.leave();
    let depth = || stack.gateway.metric("share_forward_queue_depth");
    wait_until("an empty queue", PATIENCE, || depth() == 0.0);
    let seconds = began.elapsed().as_secs() + 1;
    let reasons = stack.share_reasons();
    let lost = stack.gateway.metric("refusals_unrecorded_total") as u64;
    assert!(stack.gateway.stop(PATIENCE).success());

    let data_dir = stack.folder().join("sv2-gateway");
    proof::assert_whole(&data_dir, &memory, &backend);
    assert_eq!(memory.refused, BTreeMap::new());
    let shares = proof::shares(&data_dir);
    let quota = REFUSALS_BYTES_MAX + seconds * REFUSALS_BYTES_PER_SECOND;
    let (taken, whole) = (shares.refused_bytes, journal_bytes(&data_dir));
    let accepted = shares.accepted.len() as u64;
    println!("{sent} refused in {seconds} s took {taken} bytes of {quota}; {reasons:?}");
    let (single, summed) = (shares.refused, shares.unrecorded);
    println!("{single} are in records of their own, {summed} in a sum, {lost} in none");
    println!("{accepted} accepted, {whole} bytes in all");
    assert!(taken <= quota, "beyond the quota");
    assert!(taken >= REFUSALS_BYTES_MAX / 2 && summed > 0, "the quota was not filled");
    assert_eq!(single + summed + lost, sent as u64, "each is told or counted");
    assert!(whole - taken <= accepted * BYTES_PER_SHARE, "more beside it");
}
