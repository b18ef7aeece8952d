//! What readers of the event log who never read cost those who mine: the time from a share to its
//! acknowledgement, without such readers and with them in turn: A B A B. `make bench-readers`, or
//! `cargo build --release --workspace` and then `cargo bench --bench stuck_readers`.
//!
//! `SECONDS` says how long each turn takes. It prints, and judges nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/stack/mod.rs"]
mod stack;

use std::time::{Duration, Instant};

use gateway::limits::EVENT_READERS_MAX;
use serde_json::json;
use stack::events::Stuck;
use stack::load::Load;
use stack::witness::Witnesses;
use stack::{PATIENCE, Settings, Stack, wait_until};

/// Shares a minute that a channel aims at.
const SHARES_PER_MINUTE: f64 = 960.0;

/// Witnesses ask for shares of 2^14 hashes at 60 a minute, which are 2^10 at 960.
const EXPONENT: u32 = 18;

/// Seconds of one turn unless `SECONDS` says otherwise.
const SECONDS: u64 = 60;

fn main() {
    let seconds = std::env::var("SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let gateway = json!({ "mining": { "target_shares_per_minute": SHARES_PER_MINUTE } });
    let stack = Stack::start(&Settings { gateway, ..Settings::demo("1d00ffff") });
    let load = Load::start(&stack, &["--connections", "40", "--hashrate", "10000"]);
    let witnesses = Witnesses::start(&stack, 1, EXPONENT);
    wait_until("shares", PATIENCE, || witnesses.told() >= 100 && stack.accepted() >= 1_000);
    println!("{seconds} s each; microseconds from a share to its acknowledgement");
    println!("{:<16}{:>10}{:>10}{:>10}{:>10}", "stuck readers", "shares", "median", "p99", "most");
    for count in [0, EVENT_READERS_MAX].repeat(2) {
        let stuck: Vec<Stuck> = (0..count).map(|_| Stuck::start(&stack)).collect();
        witnesses.memory().forget_latencies();
        let until = Instant::now() + Duration::from_secs(seconds);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        let memory = witnesses.memory();
        let at = |quantile| memory.latencies.value_at_quantile(quantile);
        let (shares, most) = (memory.latencies.len(), memory.latencies.max());
        println!("{count:<16}{shares:>10}{:>10}{:>10}{most:>10}", at(0.5), at(0.99));
        drop(memory);
        drop(stuck);
    }
    drop(load);
}
