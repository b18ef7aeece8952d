//! What the disk under the journal costs: the same load on a gateway whose `data_dir` is on the
//! disk and on one whose `data_dir` is in memory, where the journal is written and a sync is free,
//! in turn: A B A B. `make bench-journal`, or `cargo build --release --workspace` and then
//! `cargo bench --bench journal_cost`.
//!
//! Prints accepted shares a second by the clock, the processor time of each, what syncs took, and
//! how long this disk takes for a sync of its own. Nobody listens where shares are forwarded to: it
//! is the journal that is measured. `SECONDS` says how long each turn takes, `MINERS` how many
//! miners there are, `DISK` names a folder on the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/abuse/footprint.rs"]
mod footprint;
#[path = "../tests/stack/mod.rs"]
mod stack;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use footprint::Footprint;
use hdrhistogram::Histogram;
use serde_json::json;
use stack::load::Load;
use stack::{PATIENCE, Settings, Stack, wait_until};

/// Shares a minute that a channel aims at.
const SHARES_PER_MINUTE: f64 = 6_000.0;

/// Miners, each of which finds a hundred shares a second, unless `MINERS` says otherwise.
const MINERS: &str = "2000";

/// Hashes a second of each.
const HASH_RATE: &str = "2000";

/// Seconds of one turn unless `SECONDS` says otherwise.
const SECONDS: u64 = 20;

/// Syncs by which the disk is measured, of a sector each.
const SYNCS: u64 = 500;

/// A folder that is in memory on every Linux.
const MEMORY: &str = "/dev/shm";

/// What one turn came to.
struct Turn {
    shares: f64,
    seconds: f64,
    processor_seconds: f64,
    syncs: f64,
    sync_seconds: f64,
}

fn main() {
    let seconds = std::env::var("SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let disk = std::env::var_os("DISK").map_or_else(std::env::temp_dir, PathBuf::from);
    print_disk(&disk);
    println!(
        "{:<10}{:>12}{:>16}{:>12}{:>14}",
        "", "shares/s", "us of cpu each", "syncs/s", "mean sync us"
    );
    for _ in 0..2 {
        for (name, base) in [("disk", disk.as_path()), ("memory", Path::new(MEMORY))] {
            print(name, &turn(base, Duration::from_secs(seconds)));
        }
    }
}

fn print(name: &str, turn: &Turn) {
    println!(
        "{name:<10}{:>12.0}{:>16.2}{:>12.0}{:>14.1}",
        turn.shares / turn.seconds,
        turn.processor_seconds / turn.shares * 1e6,
        turn.syncs / turn.seconds,
        turn.sync_seconds / turn.syncs * 1e6,
    );
}

/// How long the disk takes to have a sector, in a file that has its room already.
fn print_disk(disk: &Path) {
    let folder = tempfile::tempdir_in(disk).unwrap();
    let file = File::create(folder.path().join("synced")).unwrap();
    let sector = [1; 512];
    (0..SYNCS).for_each(|at| file.write_all_at(&sector, at * 512).unwrap());
    file.sync_all().unwrap();
    let mut micros = Histogram::<u64>::new(3).unwrap();
    for at in 0..SYNCS {
        file.write_all_at(&sector, at * 512).unwrap();
        let began = Instant::now();
        file.sync_data().unwrap();
        micros.record(u64::try_from(began.elapsed().as_micros()).unwrap()).unwrap();
    }
    let at = |quantile| micros.value_at_quantile(quantile);
    println!("fdatasync of a sector: median {} us, p99 {} us", at(0.5), at(0.99));
}

/// A gateway with its `data_dir` in `base` under load for so long.
fn turn(base: &Path, time: Duration) -> Turn {
    let data = tempfile::tempdir_in(base).unwrap();
    let gateway = json!({
        "mining": { "target_shares_per_minute": SHARES_PER_MINUTE },
        "share": { "share_upstream_url": "http://127.0.0.1:9/shares" },
    });
    let mut stack = Stack::without_gateway(&Settings { gateway, ..Settings::demo("1d00ffff") });
    std::os::unix::fs::symlink(data.path(), stack.folder().join("sv2-gateway")).unwrap();
    let verifier = stack.verifier.address("listen_addr");
    stack.start_gateway(&verifier);
    let miners = std::env::var("MINERS").unwrap_or_else(|_| MINERS.to_owned());
    let load = Load::start(&stack, &["--connections", &miners, "--hashrate", HASH_RATE]);
    wait_until("all miners", PATIENCE, || load.number("open").to_string() == miners);
    let footprint = Footprint::of(stack.gateway.process().id());
    let look = |stack: &Stack| {
        let metrics = stack.gateway.metrics();
        let syncs =
            |part: &str| metrics[&format!("reservegrid_outbox_fsync_duration_seconds_{part}")];
        let processor_seconds = footprint.processor_seconds();
        let (shares, now) = (stack.accepted() as f64, Instant::now());
        (now, shares, processor_seconds, syncs("count"), syncs("sum"))
    };
    let before = look(&stack);
    let until = before.0 + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    let after = look(&stack);
    drop(load);
    Turn {
        shares: after.1 - before.1,
        seconds: (after.0 - before.0).as_secs_f64(),
        processor_seconds: after.2 - before.2,
        syncs: after.3 - before.3,
        sync_seconds: after.4 - before.4,
    }
}
