//! A thousand miners held for a minute through blocks: nobody is lost, nobody misses a switch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use stack::process::Process;
use stack::{Chain, Settings, Stack, program, wait_until};

const MINERS: u64 = 1_000;

/// Seconds that all of them are held.
const HOLD_SECONDS: u64 = 60;

/// The chain makes a block this often: at least six in the hold.
const BLOCK_INTERVAL_MILLIS: u64 = 8_000;

const TIPS_MIN: u64 = 6;

/// Longest time until the report is there: connecting, holding, the last answers.
const PATIENCE: Duration = Duration::from_secs(HOLD_SECONDS + 60);

/// Goal: 1 000 connections through six blocks and more, without one error or missed switch, and
/// every acknowledged share in the backend's book.
#[test]
fn a_thousand_miners_through_six_blocks() {
    let demo = json!({
        "block_interval_ms": BLOCK_INTERVAL_MILLIS,
        "mempool_transactions": 3_000,
        "nbits": "1d00ffff",
    });
    let mut settings = Settings::demo("1d00ffff");
    settings.chain = Chain::Demo(demo);
    settings.gateway = json!({ "mining": { "target_shares_per_minute": 6.0 } });
    let stack = Stack::start(&settings);
    let path = stack.folder().join("report.json");
    let mut command = Command::new(program("loadgen"));
    command
        .args(["--target", &stack.gateway.address("listen_addr")])
        .args(["--authority", &stack.gateway.address("authority_pubkey")])
        .args(["--connections", &MINERS.to_string(), "--ramp", "500", "--hashrate", "200"])
        .args(["--duration", &(HOLD_SECONDS + 5).to_string(), "--screen", "none", "--json"])
        .arg(&path);
    let log = stack.folder().join("loadgen.log");
    let mut load = Process::start("loadgen", &mut command, &log);
    wait_until("all miners", stack::PATIENCE, || {
        stack.gateway.metric("connections{state=\"open\"}") == MINERS as f64
    });
    let held = std::time::Instant::now();
    let status = load.wait(PATIENCE);
    assert!(held.elapsed() >= Duration::from_secs(HOLD_SECONDS), "{:?}", held.elapsed());
    println!("{}", load.text());

    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    println!("{}", serde_json::to_string_pretty(&report["switch_micros"]).unwrap());
    println!("{}", serde_json::to_string_pretty(&report["ack_micros"]).unwrap());
    println!("{}", serde_json::to_string_pretty(&report["connect_micros"]["total"]).unwrap());
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key}: {report}"));
    assert_eq!(report["is_final"], json!(true));
    assert_eq!(report["errors"], json!({}), "{}", report["error_samples"]);
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!(status.code(), Some(0), "{}", load.text());
    assert_eq!((number("connections"), number("open")), (MINERS, MINERS));
    assert_eq!((number("connects"), number("disconnects")), (MINERS, 0));
    assert_eq!(number("switches_missed"), 0);
    assert!(number("tip_count") >= TIPS_MIN, "{} tips", number("tip_count"));
    for leg in ["switch_micros", "ack_micros"] {
        assert!(report[leg]["count"].as_u64().unwrap() > 0, "{leg} has percentiles of something");
    }
    let told = number("shares_accepted");
    assert!(told > 0);
    wait_until("the backend's book", stack::PATIENCE, || stack.backend_shares() >= told);
    assert_eq!(stack.backend_shares(), stack.accepted());
    assert_eq!(stack.backend_status()["duplicates"], json!(0));
}
