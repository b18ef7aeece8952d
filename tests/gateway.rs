//! The gateway as its operator meets it: hostile bytes, wrong configurations, orderly and brutal
//! ends, a backend and a verifier that come and go, and the pages that tell about all this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use stack::client::Work;
use stack::process::Process;
use stack::{PATIENCE, Settings, Stack, merge, program, wait_until};

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares need this many hashes, 2^(32 - 20).
const EASY: u32 = 20;

fn closes(stack: &Stack, code: &str) -> f64 {
    stack.gateway.metric(&format!("connections_closed_total{{reason_code=\"{code}\"}}"))
}

/// Read until the peer closes; `None` if it has not done so in time.
fn read_to_end(stream: &mut TcpStream) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => Some(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(bytes),
        Err(_) => None,
    }
}

/// Shares of a channel that its target is met by, from nonce 0 on.
fn shares_of(work: &Work, target: work::Target, count: usize) -> Vec<stack::client::Share> {
    let mut nonce = 0;
    let mut shares = Vec::new();
    while shares.len() < count {
        let share = work.grind(nonce, |hash| target.is_met_by(hash));
        nonce = share.claim.nonce + 1;
        shares.push(share);
    }
    shares
}

/// Goal: whatever is not Noise is closed, in time and without an answer, and miners beside it
/// notice nothing.
#[test]
fn nonsense_on_the_port() {
    let mut settings = Settings::demo(NBITS);
    settings.gateway = json!({
        "noise": { "handshake_timeout_ms": 500 },
        "timing": { "setup_timeout_ms": 2_000 },
    });
    let stack = Stack::start(&settings);
    let address = stack.gateway.address("listen_addr");
    let mut miner = stack.client();
    let channel_id = miner.open("steady", EASY);

    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: a-browser-with-a-long-name/1.0\r\n\r\n"
    );
    let sv1 = "{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"miner/1.0\"]}\n\
               {\"id\":2,\"method\":\"mining.authorize\",\"params\":[\"a\",\"b\"]}\n";
    let mut random = [0u8; 4_096];
    getrandom::fill(&mut random).unwrap();
    let refused: [(&str, &[u8]); 3] =
        [("HTTP", request.as_bytes()), ("SV1", sv1.as_bytes()), ("random bytes", &random)];
    for (name, bytes) in refused {
        assert!(bytes.len() > sv2::ACT1_BYTES, "{name} is more than act 1");
        let before = closes(&stack, "handshake_failed");
        let mut stream = TcpStream::connect(&address).unwrap();
        // The gateway may close before all is written.
        let _ = stream.write_all(bytes);
        assert_eq!(read_to_end(&mut stream).as_deref(), Some(&b""[..]), "{name}");
        wait_until(name, PATIENCE, || closes(&stack, "handshake_failed") == before + 1.0);
    }

    // Half an act 1, or nothing at all, and then silence.
    for bytes in [&random[..30], &[]] {
        let before = closes(&stack, "handshake_timeout");
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(bytes).unwrap();
        assert_eq!(read_to_end(&mut stream).as_deref(), Some(&b""[..]));
        wait_until("a timeout", PATIENCE, || closes(&stack, "handshake_timeout") == before + 1.0);
    }

    // Any 64 bytes are an act 1. What follows the answer must be sealed, or it ends there, too.
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(&random[..sv2::ACT1_BYTES]).unwrap();
    let mut act2 = [0; sv2::ACT2_BYTES];
    stream.read_exact(&mut act2).unwrap();
    stream.write_all(&random[64..]).unwrap();
    assert_eq!(read_to_end(&mut stream).as_deref(), Some(&b""[..]));
    let mut silent = TcpStream::connect(&address).unwrap();
    silent.write_all(&random[..sv2::ACT1_BYTES]).unwrap();
    assert_eq!(read_to_end(&mut silent).map(|bytes| bytes.len()), Some(sv2::ACT2_BYTES));

    let work = miner.work(channel_id);
    let target = miner.channels[&channel_id].target;
    for share in shares_of(&work, target, 3) {
        assert_eq!(miner.answer(&share), Ok(()));
    }
    stack.gateway.wait_for_metric("connections{state=\"open\"}", 1.0);
}

/// Goal: two gateways never share extranonces by sharing a folder, and the second one says why.
#[test]
fn a_second_gateway_in_the_same_folder_is_refused() {
    let stack = Stack::start(&Settings::demo(NBITS));
    let mut config = stack.gateway_config().clone();
    config["gateway"]["listen_addr"] = json!("127.0.0.1:0");
    config["gateway"]["http_listen_addr"] = json!("127.0.0.1:0");
    let said = refusal(stack.folder(), &config);
    assert!(said.contains("another gateway works in this folder"), "{said}");

    // A folder of its own, but the port of the first.
    config["gateway"]["data_dir"] = json!(stack.folder().join("other"));
    config["gateway"]["listen_addr"] = json!(stack.gateway.address("listen_addr"));
    let said = refusal(stack.folder(), &config);
    assert!(said.contains("gateway.listen_addr") && said.contains("is taken"), "{said}");
    stack.client().open("of the first", EASY);
}

/// Run a gateway that is to end at once with a failure; the one thing that it says.
fn refusal(folder: &Path, config: &Value) -> String {
    refusal_of_text(folder, &toml::to_string(config).unwrap())
}

fn refusal_of_text(folder: &Path, config: &str) -> String {
    let folder = tempfile::tempdir_in(folder).unwrap();
    let (path, log) = (folder.path().join("gateway.toml"), folder.path().join("log"));
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(program("sv2-gateway"));
    command.arg("--config").arg(&path);
    let mut process = Process::start("sv2-gateway", &mut command, &log);
    let status = process.wait(PATIENCE);
    let said = process.text();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.matches("ERROR").count(), 1, "one clear message:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// Goal: each mistake in gateway.toml gives one message that names the key.
#[test]
fn wrong_configurations_are_told_by_their_key() {
    let stack = Stack::start(&Settings::demo(NBITS));
    let check = |over: Value, expected: &[&str]| {
        let mut config = stack.gateway_config().clone();
        config["gateway"]["data_dir"] = json!(stack.folder().join("unused"));
        config["gateway"]["listen_addr"] = json!("127.0.0.1:0");
        config["gateway"]["http_listen_addr"] = json!("127.0.0.1:0");
        merge(&mut config, &over);
        let said = refusal(stack.folder(), &config);
        for word in expected {
            assert!(said.contains(word), "{over} does not say {word:?}:\n{said}");
        }
    };
    let main_address = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let example = "EXAMPLE";
    check(json!({ "gateway": { "mode": "inlne" } }), &["mode", "inline"]);
    check(json!({ "gateway": { "lisen_addr": "x" } }), &["lisen_addr", "listen_addr"]);
    check(json!({ "gateway": { "http_api_key": "short" } }), &["http_api_key", "16"]);
    check(json!({ "gateway": { "network": "mainnet" } }), &["network", "main"]);
    check(json!({ "gateway": { "listen_addr": "3333" } }), &["listen_addr"]);
    check(json!({ "gateway": { "upstream_url": "ftp://x" } }), &["upstream_url", "http://"]);
    check(json!({ "noise": { "privkey": example } }), &["noise.privkey"]);
    check(json!({ "noise": { "pubkey": example } }), &["noise.pubkey"]);
    check(json!({ "timing": { "prevhash_stale_hold_ms": 1 } }), &["prevhash_stale_hold_ms"]);
    check(json!({ "share": { "share_upstream_url": "backend:9090" } }), &["share_upstream_url"]);
    check(json!({ "share": { "share_forward_queue_size": 1 } }), &["share_forward_queue_size"]);
    check(json!({ "mining": { "coinbase_outputs": [] } }), &["coinbase_outputs"]);
    let output = json!([{ "address": main_address, "share": 1 }]);
    check(json!({ "mining": { "coinbase_outputs": output } }), &["coinbase_outputs", "regtest"]);
    check(json!({ "mining": { "extranonce_size": 17 } }), &["extranonce_size", "4 to 16"]);
    check(json!({ "mining": { "target_shares_per_minute": 0.0 } }), &["target_shares_per_minute"]);
    check(json!({ "cores": { "shards": [] } }), &["cores.shards"]);

    let said = refusal_of_text(stack.folder(), "this is = not [toml");
    assert!(said.contains("gateway.toml"), "{said}");
    let said = refusal_of_text(stack.folder(), "");
    assert!(said.contains("gateway"), "{said}");
}

/// Goal: SIGTERM under load ends the gateway in order and soon, and no share that a miner was
/// told is accepted is missing at the backend.
#[test]
fn sigterm_under_load() {
    let mut stack = Stack::start(&Settings::demo(NBITS));
    let report = stack.folder().join("report.json");
    let mut command = Command::new(program("loadgen"));
    command
        .args(["--target", &stack.gateway.address("listen_addr")])
        .args(["--authority", &stack.gateway.address("authority_pubkey")])
        .args(["--connections", "100", "--hashrate", "2000", "--duration", "0"])
        .args(["--reconnect", "0", "--screen", "none", "--json"])
        .arg(&report);
    let log = stack.folder().join("loadgen.log");
    let mut load = Process::start("loadgen", &mut command, &log);
    wait_until("shares of the load", PATIENCE, || stack.accepted() >= 200);
    let status = stack.gateway.stop(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0), "{}", stack.gateway.log());

    load.terminate(PATIENCE);
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let told = report["shares_accepted"].as_u64().unwrap();
    assert!(told >= 200, "{told}");
    let booked = stack.backend_shares();
    assert!(booked >= told, "miners were told of {told}, the backend has {booked}");
}

/// Goal: after kill -9 the gateway is started again, on the same port and folder, and serves.
#[test]
fn kill_and_restart() {
    let mut stack = Stack::start(&Settings::demo(NBITS));
    for round in 0..3 {
        let mut miner = stack.client();
        let channel_id = miner.open("miner", EASY);
        let work = miner.work(channel_id);
        let target = miner.channels[&channel_id].target;
        for share in shares_of(&work, target, 5) {
            assert_eq!(miner.answer(&share), Ok(()), "round {round}");
        }
        wait_until("delivery", PATIENCE, || stack.backend_shares() == 5 * (round + 1));
        let address = stack.gateway.address("listen_addr");
        stack.gateway.kill();
        miner.wait_closed();
        stack.gateway.start();
        assert_eq!(stack.gateway.address("listen_addr"), address);
    }
    stack.client().open("another", EASY);
    assert_eq!(stack.backend_status()["duplicates"], json!(0));
}

/// Goal: a backend that is gone for a while costs nothing: each accepted share is booked once.
#[test]
fn the_backend_goes_and_comes_back() {
    const PHASE: usize = 40;
    let mut stack = Stack::start(&Settings::demo(NBITS));
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EASY);
    let target = miner.channels[&channel_id].target;
    let shares = shares_of(&miner.work(channel_id), target, 3 * PHASE);
    let mut sent = 0;
    for (phase, shares) in shares.chunks(PHASE).enumerate() {
        match phase {
            1 => stack.backend.kill(),
            2 => stack.backend.start(),
            _ => {}
        }
        for share in shares {
            miner.submit(share);
        }
        sent += PHASE as u64;
        wait_until("the shares' judgement", PATIENCE, || stack.accepted() == sent);
    }
    miner.wait_until("all acknowledgements", |miner| miner.accepted == 3 * PHASE as u64);
    wait_until("the backend's book", PATIENCE, || stack.backend_shares() == sent);
    wait_until("an empty queue", PATIENCE, || {
        stack.gateway.metric("share_forward_queue_depth") == 0.0
    });
    assert_eq!(miner.rejected, Vec::<String>::new());
    assert_eq!(stack.backend_status()["duplicates"], json!(0));
    let settled = |outcome: &str| {
        stack.gateway.metric(&format!("share_forward_results_total{{outcome=\"{outcome}\"}}"))
    };
    assert_eq!(settled("delivered") + settled("duplicate"), sent as f64);
    assert_eq!(settled("rejected_by_upstream"), 0.0);
}

/// Names that dashboards and alerts rely on.
const NAMES: &[&str] = &[
    "block_submits_total",
    "blocks_found_total",
    "build_info",
    "bytes_received_total",
    "bytes_sent_total",
    "channel_opens_total",
    "channels",
    "connections",
    "connections_closed_total",
    "connections_opened_total",
    "connections_refused_total",
    "credit_stalls_total",
    "frames_received_total",
    "jobs_published_total",
    "jobs_sent_total",
    "mode_info",
    "noise_handshakes_total",
    "prevhash_hold_active",
    "prevhash_sent_total",
    "prevhash_switch_duration_seconds",
    "prevhash_switches_total",
    "ready",
    "share_ack_duration_seconds",
    "share_forward_in_flight",
    "share_forward_queue_depth",
    "share_forward_requests_total",
    "share_forward_results_total",
    "share_forward_retries_total",
    "share_work_total",
    "shares_taken_total",
    "shares_total",
    "solutions_total",
    "template_fees_sats",
    "template_height",
    "template_transactions",
    "template_weight_units",
    "templates_received_total",
    "tips_total",
    "turn_longest_seconds",
    "unknown_frames_total",
    "verdict_duration_seconds",
    "verdict_mismatches_total",
    "verdicts_total",
    "verifier_connected",
    "verifier_connects_total",
];

/// Read an exposition as strictly as Prometheus does; the families and their kinds.
fn families(text: &str) -> BTreeMap<String, String> {
    let mut families = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            family = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.split_once(' ').is_some_and(|(_, help)| !help.is_empty()), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            let name = sample.split('{').next().unwrap();
            let base = match families[&family].as_str() {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
                    .unwrap_or(name),
                _ => name,
            };
            assert_eq!(base, family, "a sample outside its family");
            assert!(seen.insert(sample.to_owned()), "{sample} twice");
        }
    }
    families
}

/// Goal: /metrics is what Prometheus reads, with the promised names; /readyz follows the verifier.
#[test]
fn metrics_and_readiness() {
    let mut stack = Stack::start(&Settings::demo(NBITS));
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EASY);
    let target = miner.channels[&channel_id].target;
    for share in shares_of(&miner.work(channel_id), target, 2) {
        assert_eq!(miner.answer(&share), Ok(()));
    }

    let url = format!("http://{}/metrics", stack.gateway.http_addr());
    let (status, text) = stack::get(&url).unwrap();
    assert_eq!(status, 200);
    let families = families(&text);
    for name in NAMES {
        assert!(families.contains_key(&format!("reservegrid_{name}")), "{name} is missing");
    }
    assert!(families.keys().all(|name| name.starts_with("reservegrid_")), "{families:?}");
    assert_eq!(stack.share_reasons(), BTreeMap::from([("ok".to_owned(), 2)]));
    stack.gateway.wait_for_metric("connections{state=\"open\"}", 1.0);
    stack.gateway.wait_for_metric("channels{kind=\"standard\"}", 1.0);

    stack.verifier.kill();
    wait_until("not ready", PATIENCE, || {
        let (status, body) = stack.gateway.readiness().unwrap();
        status == 503 && body.contains("verifier")
    });
    let (status, _) = stack::get(&format!("http://{}/healthz", stack.gateway.http_addr())).unwrap();
    assert_eq!(status, 200, "alive, if not ready");
    stack.verifier.start();
    stack.gateway.wait_ready();
    stack.gateway.wait_for_metric("verifier_connects_total", 2.0);
}
