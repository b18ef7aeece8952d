//! As many miners as one machine has descriptors for, through tips: nobody is lost, nobody misses
//! a switch, and what each of them costs is said.
//!
//! There are 18 000, or as many as the descriptor limit allows; `RG_CONNECTIONS` asks for fewer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Signal, getrlimit};
use serde_json::{Value, json};
use stack::process::Process;
use stack::{Chain, Service, Settings, Stack, program, wait_for, wait_until};

/// Most connections: what a descriptor limit of 20 000 a process leaves room for (D54).
const CONNECTIONS_MAX: u64 = 18_000;

/// Descriptors of a process that are not for miners.
const DESCRIPTORS_SPARE: u64 = 1_000;

/// New tips that all of them have to switch to.
const TIPS: u64 = 3;

/// Connects a second.
const RAMP: u64 = 500;

/// Headers that each miner hashes a second: a low share rate.
const HASHRATE: u64 = 20;

/// Shares a minute that each channel aims at.
const SHARES_PER_MINUTE: f64 = 1.0;

/// Longest wait for one step of all of them.
const PATIENCE: Duration = Duration::from_secs(300);

/// Milliseconds of processor time per clock tick of `/proc` (USER_HZ is 100 on Linux).
const TICK_MILLIS: u64 = 10;

/// What a process has used.
#[derive(Debug, Clone, Copy)]
struct Usage {
    resident_bytes: u64,
    processor_millis: u64,
}

impl Usage {
    /// Of the one process that has all of `words` in its command line.
    fn of(words: &[&str]) -> Usage {
        let folder = wait_for("a process", stack::PATIENCE, || {
            let mut folders =
                std::fs::read_dir("/proc").unwrap().filter_map(|folder| Some(folder.ok()?.path()));
            folders.find(|folder| is_process(folder, words))
        });
        let status = std::fs::read_to_string(folder.join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let stat = std::fs::read_to_string(folder.join("stat")).unwrap();
        // Behind the name in brackets: state is the 3rd field, utime the 14th, stime the 15th.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |field: usize| fields[field - 3].parse::<u64>().unwrap();
        let processor_millis = (ticks(14) + ticks(15)) * TICK_MILLIS;
        Usage { resident_bytes: kilobytes * 1_024, processor_millis }
    }
}

fn is_process(folder: &Path, words: &[&str]) -> bool {
    let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    words.iter().all(|word| line.contains(word))
}

fn connections() -> u64 {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let max = CONNECTIONS_MAX.min(limit.saturating_sub(DESCRIPTORS_SPARE));
    let Ok(text) = std::env::var("RG_CONNECTIONS") else { return max };
    let connections = text.parse().unwrap_or_else(|_| panic!("RG_CONNECTIONS is {text:?}"));
    assert!((1..=max).contains(&connections), "RG_CONNECTIONS is {connections}, not 1 to {max}");
    connections
}

fn start() -> Stack {
    let demo =
        json!({ "block_interval_ms": 0, "mempool_transactions": 3_000, "nbits": "1d00ffff" });
    let mut settings = Settings::demo("1d00ffff");
    settings.chain = Chain::Demo(demo);
    let max = CONNECTIONS_MAX;
    settings.gateway = json!({
        "gateway": { "max_connections": max, "max_connections_per_ip": max },
        "mining": { "target_shares_per_minute": SHARES_PER_MINUTE },
    });
    Stack::start(&settings)
}

fn load(gateway: &Service, folder: &Path, connections: u64) -> Process {
    let mut command = Command::new(program("loadgen"));
    command
        .args(["--target", &gateway.address("listen_addr")])
        .args(["--authority", &gateway.address("authority_pubkey")])
        .args(["--connections", &connections.to_string(), "--ramp", &RAMP.to_string()])
        .args(["--hashrate", &HASHRATE.to_string(), "--reconnect", "0", "--screen", "none"])
        .args(["--source-addresses", "4", "--json"])
        .arg(folder.join("report.json"));
    Process::start("loadgen", &mut command, &folder.join("loadgen.log"))
}

/// The report of this second; `None` before the first.
fn report(folder: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(folder.join("report.json")).ok()?).ok()
}

/// Wait until `holds` of the report; fails at once when there is any error.
fn wait_report(what: &str, folder: &Path, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, PATIENCE, || {
        let report = report(folder)?;
        assert_eq!(report["errors"], json!({}), "{what}: {}", report["error_samples"]);
        holds(&report).then_some(report)
    })
}

fn print_usage(what: &str, connections: u64, before: Usage, after: Usage, elapsed: Duration) {
    let bytes = after.resident_bytes.saturating_sub(before.resident_bytes);
    let millis = after.processor_millis - before.processor_millis;
    println!(
        "{what}: {:.1} kB more memory a connection ({:.0} MB resident); {millis} ms of processor \
         time in {:.1} s, {:.3} ms a connection",
        bytes as f64 / connections as f64 / 1_000.0,
        after.resident_bytes as f64 / 1e6,
        elapsed.as_secs_f64(),
        millis as f64 / connections as f64,
    );
}

/// Goal: all connections open and mining, through tips, without one error or missed switch.
#[test]
fn everybody_is_held_through_tips() {
    let connections = connections();
    let stack = start();
    let folder = stack.folder();
    let text = folder.display().to_string();
    let gateway = || Usage::of(&["sv2-gateway", &text]);
    let miners = || Usage::of(&["loadgen", &text]);
    let (idle, began) = (gateway(), Instant::now());
    let mut load = load(&stack.gateway, folder, connections);
    let first = miners();
    wait_report("all connections", folder, |report| report["open"] == json!(connections));
    let (open, open_miners, opened) = (gateway(), miners(), began.elapsed());
    println!("{connections} connections open after {:.1} s", opened.as_secs_f64());
    print_usage("gateway, connecting", connections, idle, open, opened);
    print_usage("loadgen, connecting", connections, first, open_miners, opened);

    let held = Instant::now();
    for tip in 1..=TIPS {
        stack.demo_block();
        let switched = json!(connections * tip);
        wait_report("a switch of everybody", folder, |report| {
            report["switch_micros"]["count"] == switched
        });
    }
    wait_until("the windows of all tips", PATIENCE, || {
        report(folder).is_some_and(|report| report["tips"].as_array().unwrap().len() as u64 == TIPS)
    });
    print_usage("gateway, holding", connections, open, gateway(), held.elapsed());
    print_usage("loadgen, holding", connections, open_miners, miners(), held.elapsed());
    let of_gateway = stack.gateway.metric("connections{state=\"open\"}");
    assert_eq!(of_gateway, connections as f64);

    load.signal(Signal::INT);
    let status = load.wait(PATIENCE);
    let report = report(folder).unwrap();
    println!("{}", load.text());
    check(&report, connections);
    assert_eq!(status.code(), Some(0), "{}", load.text());
    let told = report["shares_accepted"].as_u64().unwrap();
    wait_until("the backend's book", stack::PATIENCE, || stack.backend_shares() >= told);
}

fn check(report: &Value, connections: u64) {
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key}: {report}"));
    assert_eq!(report["is_final"], json!(true));
    assert_eq!(report["errors"], json!({}), "{}", report["error_samples"]);
    assert_eq!(report["failed"], json!(false), "{report}");
    assert_eq!((number("connects"), number("disconnects")), (connections, 0));
    assert_eq!((number("open"), number("channels_open")), (connections, connections));
    assert_eq!((number("switches_missed"), number("tip_count")), (0, TIPS));
    for tip in report["tips"].as_array().unwrap() {
        assert_eq!((&tip["miners"], &tip["missed"]), (&json!(connections), &json!(0)));
    }
    assert!(number("shares_accepted") > 0, "everybody is idle");
}
