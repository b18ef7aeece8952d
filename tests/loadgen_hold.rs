//! A thousand miners held for a minute through blocks: nobody is lost, nobody misses a switch. And
//! clients of every kind beside each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
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

/// Flags of loadgen for one kind of client, with the channels of each connection.
const CLIENTS: [(&str, u64, &[&str]); 13] = [
    ("standard", 1, &[]),
    ("standard-in-a-group", 1, &["--flags", "0"]),
    ("standard-group-of-5", 5, &["--channels", "5"]),
    ("standard-ungrouped-5", 5, &["--channels", "5", "--flags", "1"]),
    ("extended", 1, &["--kind", "extended", "--update-every", "3"]),
    ("extended-with-workers", 3, &["--kind", "extended", "--channels", "3", "--workers", "4"]),
    ("mixed", 6, &["--kind", "mixed", "--channels", "6", "--update-every", "1"]),
    (UNDERRATED, 4, &["--kind", "mixed", "--channels", "4"]),
    ("bitaxe", 1, &["--profile", "bitaxe"]),
    ("bitaxe-standard", 1, &["--profile", "bitaxe", "--kind", "standard", "--flags", "1"]),
    ("mining-device", 1, &["--profile", "mining-device"]),
    (
        "translator-aggregated",
        1,
        &["--profile", "translator", "--workers", "6", "--min-extranonce-size", "6"],
    ),
    ("translator", 6, &["--profile", "translator", "--channels", "6"]),
];

/// The kind that says far less than it hashes, so that its channels are retargeted.
const UNDERRATED: &str = "underrated";

/// Connections of each kind of client.
const CONNECTIONS_OF_A_KIND: u64 = 5;

/// New tips that every client has to switch to.
const TIPS_OF_A_KIND: u64 = 3;

/// Accepted shares of every kind, at least.
const SHARES_OF_A_KIND: u64 = 200;

/// Goal: clients of every kind mine beside each other through tips, each strict by its own rules,
/// without one error, missed switch, or refusal that is no true stale.
#[test]
fn every_kind_of_client_beside_each_other() {
    let mut settings = Settings::demo("1d00ffff");
    settings.gateway = json!({ "mining": { "target_shares_per_minute": 240.0 } });
    let stack = Stack::start(&settings);
    let report = |name: &str| -> Option<Value> {
        let path = stack.folder().join(format!("{name}.json"));
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    };
    let mut loads = Vec::new();
    for (name, _, flags) in CLIENTS {
        // Whatever the device says in the field, here its share rate is to fit what it hashes.
        let nominal = if name == UNDERRATED { "2" } else { "200" };
        let mut command = Command::new(program("loadgen"));
        command
            .args(["--target", &stack.gateway.address("listen_addr")])
            .args(["--authority", &stack.gateway.address("authority_pubkey")])
            .args(["--connections", &CONNECTIONS_OF_A_KIND.to_string(), "--hashrate", "200"])
            .args(["--nominal-hashrate", nominal])
            .args(["--user-prefix", name, "--reconnect", "0", "--screen", "none", "--json"])
            .arg(stack.folder().join(format!("{name}.json")))
            .args(flags);
        let log = stack.folder().join(format!("{name}.log"));
        loads.push((name, Process::start(name, &mut command, &log)));
    }
    let wait_all = |what: &str, holds: &dyn Fn(&Value, u64) -> bool| {
        for (name, channels, _) in CLIENTS {
            wait_until(&format!("{what}: {name}"), PATIENCE, || {
                let Some(report) = report(name) else { return false };
                assert_eq!(report["errors"], json!({}), "{name}: {}", report["error_samples"]);
                holds(&report, channels)
            });
        }
    };
    wait_all("all channels", &|report, channels| {
        report["channels_open"] == json!(CONNECTIONS_OF_A_KIND * channels)
    });
    for tip in 1..=TIPS_OF_A_KIND {
        stack.demo_block();
        let switched = json!(CONNECTIONS_OF_A_KIND * tip);
        wait_all("a switch", &|report, _| report["switch_micros"]["count"] == switched);
    }
    wait_all("shares", &|report, _| {
        report["shares_accepted"].as_u64().unwrap() >= SHARES_OF_A_KIND
    });
    wait_until("a new target", PATIENCE, || {
        report(UNDERRATED).is_some_and(|report| report["targets"].as_u64() > Some(0))
    });
    for (name, mut load) in loads {
        load.signal(Signal::INT);
        let status = load.wait(PATIENCE);
        let report = report(name).unwrap();
        assert_eq!(report["failed"], json!(false), "{name}: {report}");
        assert_eq!(status.code(), Some(0), "{name}: {}", load.text());
        assert_eq!(report["is_final"], json!(true));
        assert_eq!((&report["disconnects"], &report["switches_missed"]), (&json!(0), &json!(0)));
        let (accepted, rejects) = (&report["shares_accepted"], &report["rejects"]);
        println!("{name}: {accepted} accepted, {rejects}, {} targets", report["targets"]);
    }
}
