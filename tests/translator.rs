//! SRI's translator, which is not ours, mines at the gateway for SV1 miners, all of them over one
//! connection: on one channel for all, and on a channel for each.
//!
//! `TRANSLATOR_SECONDS` makes both runs last that long; without it they end when all is seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use stack::sv1_miner::{Session, Sv1Miner, Tally, target_for};
use stack::translator::{Translator, installed};
use stack::{Chain, Settings, Stack, wait_until};
use work::{BlockHash, Target};

/// Longest wait for all that a run has to show. The translator looks at its miners' speed once
/// a minute, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often a run is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Shares a minute that the gateway's channels and the translator's miners aim at.
const SHARES_PER_MINUTE: f64 = 300.0;

/// Blocks that the simulated chain makes beside those of the miners.
const BLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// Shares that a run has to deliver.
const SHARES_MIN: u64 = 200;

/// Changes of tip that every miner has to see.
const TIPS_MIN: u64 = 3;

/// Shares of every miner at a difficulty that it was not given first.
const SHARES_AT_NEXT_DIFFICULTY_MIN: u64 = 20;

/// SV1's answer to a share for a job that the server has forgotten.
const JOB_NOT_FOUND: &str = "21 Job not found";

/// The share of stale ones that a tip now and then explains, at most.
const STALE_SHARE_MAX: f64 = 0.05;

/// Names of the SV1 miners.
const USERS: [&str; 2] = ["sri.one", "sri.two"];

fn settings() -> Settings<'static> {
    let demo = json!({
        "block_interval_ms": BLOCK_INTERVAL.as_millis() as u64,
        "mempool_transactions": 300,
        // A block every million hashes: the miners find some.
        "nbits": "1e0fffff",
    });
    let mining = json!({ "target_shares_per_minute": SHARES_PER_MINUTE, "min_difficulty": 0.0 });
    Settings { chain: Chain::Demo(demo), policy: json!({}), gateway: json!({ "mining": mining }) }
}

fn least_duration() -> Duration {
    let named = std::env::var("TRANSLATOR_SECONDS").ok().filter(|text| !text.is_empty());
    let seconds = named.map(|text| text.parse().expect("TRANSLATOR_SECONDS is a whole number"));
    Duration::from_secs(seconds.unwrap_or(0))
}

/// Answers of this kind to blocks that the gateway handed in.
fn blocks(stack: &Stack, result: &str) -> f64 {
    stack.gateway.metric(&format!("block_submits_total{{result=\"{result}\"}}"))
}

/// No share was refused but stale ones; judged shares by reason.
fn assert_only_stale_refused(stack: &Stack) -> BTreeMap<String, u64> {
    let reasons = stack.share_reasons();
    let is_fine = |code: &str| ["ok", "stale_share", "stale_prevhash"].contains(&code);
    assert!(reasons.keys().all(|code| is_fine(code)), "{reasons:?}");
    reasons
}

fn assert_few(stale: u64, accepted: u64) {
    assert!(stale as f64 <= accepted as f64 * STALE_SHARE_MAX, "{stale} stale, {accepted} not");
}

fn assert_only_job_not_found(tally: &Tally) {
    assert!(tally.rejected.keys().all(|reason| reason == JOB_NOT_FOUND), "{tally:?}");
}

/// Everything is seen that a run has to show, and nothing that it must not.
fn has_shown_all(stack: &Stack, translator: &mut Translator, miners: &[Sv1Miner]) -> bool {
    let said = translator.said();
    let mut is_shown = said.channel_updates >= 1 && said.targets >= 1;
    assert!(said.shares_refused.keys().all(|code| code == "stale-share"), "{said:?}");
    for miner in miners {
        let tally = miner.tally();
        assert_only_job_not_found(&tally);
        is_shown &= tally.tips > TIPS_MIN
            && tally.difficulties.len() > 1
            && tally.accepted_since >= SHARES_AT_NEXT_DIFFICULTY_MIN;
    }
    assert_only_stale_refused(stack);
    is_shown && stack.accepted() >= SHARES_MIN && blocks(stack, "accepted") >= 1.0
}

/// Mine through one translator until all is seen, and for at least `least`; then compare books.
fn mine_through_it(program: &Path, is_aggregated: bool, least: Duration) {
    let stack = Stack::start(&settings());
    let mut translator = Translator::start(program, &stack, is_aggregated, SHARES_PER_MINUTE);
    let start = Instant::now();
    let first = translator.miner(USERS[0]);
    // The second joins while work is under way.
    wait_until("the first miner's shares", stack::PATIENCE, || first.tally().accepted > 0);
    let miners = [first, translator.miner(USERS[1])];
    while !has_shown_all(&stack, &mut translator, &miners) || start.elapsed() < least {
        let tallies = miners.each_ref().map(Sv1Miner::tally);
        let late = format!("{:?}\n{tallies:#?}\n{:?}", translator.said(), stack.share_reasons());
        assert!(start.elapsed() < least + PATIENCE, "not all was seen: {late}");
        std::thread::park_timeout(LOOK_INTERVAL);
    }
    let tallies = miners.each_ref().map(Sv1Miner::rest);
    assert_books_balance(&stack, &mut translator, &tallies);
    // The translator names its channels itself; workers are what the miners call themselves.
    let expected = if is_aggregated {
        [("sri.translator-proxy", Some("one")), ("sri.translator-proxy", Some("two"))]
    } else {
        [("sri.miner1", None), ("sri.miner2", None)]
    };
    assert_eq!(translator.said().channels, if is_aggregated { 1 } else { 2 });
    let booked = booked(&stack);
    let names = booked.keys().map(|(miner, worker)| (miner.as_str(), worker.as_deref()));
    assert_eq!(names.collect::<Vec<_>>(), expected);
    assert_eq!(booked.values().sum::<u64>(), stack.accepted());
    // One connection over the whole run, and it is still there.
    stack.gateway.wait_for_metric("connections_opened_total", 1.0);
    stack.gateway.wait_for_metric("connections{state=\"open\"}", 1.0);
    println!("{:?}: {:?}, miners: {tallies:?}", start.elapsed(), translator.said());
}

/// Shares in the backend's book by miner and worker.
fn booked(stack: &Stack) -> BTreeMap<(String, Option<String>), u64> {
    let path = stack.folder().join("reference-backend/ledger.sqlite");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let ledger = Connection::open_with_flags(path, flags).unwrap();
    let sums = "SELECT miner_id, worker_id, COUNT(*) FROM shares GROUP BY miner_id, worker_id";
    let mut sums = ledger.prepare(sums).unwrap();
    let rows = sums.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, i64>(2)?)));
    rows.unwrap().map(|row| row.map(|(names, count)| (names, count as u64)).unwrap()).collect()
}

/// Gateway, translator and backend agree on every share.
fn assert_books_balance(stack: &Stack, translator: &mut Translator, tallies: &[Tally]) {
    wait_until("the backend's book", stack::PATIENCE, || {
        stack.backend_shares() == stack.accepted()
    });
    wait_until("the translator's answers", stack::PATIENCE, || {
        translator.said().shares_accepted == stack.accepted()
    });
    let reasons = assert_only_stale_refused(stack);
    let (accepted, judged) = (stack.accepted(), reasons.values().sum::<u64>());
    let refused = translator.said().shares_refused.clone();
    assert_eq!(refused.values().sum::<u64>(), judged - accepted, "{refused:?} {reasons:?}");
    assert!(refused.keys().all(|code| code == "stale-share"), "{refused:?}");
    assert_few(judged - accepted, accepted);
    for tally in tallies {
        assert_only_job_not_found(tally);
        assert_few(tally.rejected.values().sum(), tally.accepted);
    }
    assert_eq!(stack.backend_status()["duplicates"], json!(0));
    assert_eq!(blocks(stack, "rejected"), 0.0);
    assert_eq!(stack.gateway.metric("verdict_mismatches_total"), 0.0);
    println!("shares by reason: {reasons:?}, blocks: {}", blocks(stack, "accepted"));
}

/// Goal: SV1 miners share one channel of one connection.
#[test]
fn sv1_miners_mine_through_one_channel() {
    let Some(program) = installed() else { return };
    mine_through_it(&program, true, least_duration());
}

/// Goal: SV1 miners have a channel each on one connection.
#[test]
fn sv1_miners_mine_through_a_channel_each() {
    let Some(program) = installed() else { return };
    mine_through_it(&program, false, least_duration());
}

/// A session after the server's first answers, with the extranonce of block 170's coinbase.
fn subscribed() -> Session {
    let (mut session, line) = Session::start("a.b");
    assert!(line.ends_with('\n') && line.contains("mining.configure"), "{line}");
    let mask = json!({ "version-rolling": true, "version-rolling.mask": "1fffe000" });
    let line = session.hear(&json!({ "id": 1, "result": mask }).to_string()).unwrap();
    assert!(line.contains("mining.subscribe"), "{line}");
    let result = json!([[["mining.notify", "1"]], "04ffff", 4]);
    let line = session.hear(&json!({ "id": 2, "result": result }).to_string()).unwrap();
    assert!(line.contains("mining.authorize") && line.contains("[\"a.b\""), "{line}");
    session.hear(&json!({ "id": 3, "result": true, "error": null }).to_string()).unwrap();
    session
}

/// Block 170 of the main chain, the first with a payment, as an SV1 server would give it out.
fn block_170() -> String {
    let start = format!("0100000001{}ffffffff07", "00".repeat(32));
    let end = "ffffffff0100f2052a01000000434104d46c4968bde02899d2aa0963367c7a6ce34eec332b32e42e\
               5f3407e052d64ac625da6f0718e7b302140434bd725706957c092db53805b821a85b23a7ac61725bac\
               00000000";
    let prev_hash = "0a84bd55d08a7978683f85da183d4f97dbd12b3e1f2c846a2a22cfee00000000";
    let payment = "169e1e83e930853391bc6f35f605c6754cfead57cf8387639d3b4096c54f18f4";
    let params =
        json!(["job", prev_hash, start, end, [payment], "00000001", "1d00ffff", "496ab951", true]);
    json!({ "id": null, "method": "mining.notify", "params": params }).to_string()
}

/// Goal: coinbase, merkle branch and header are put together as Bitcoin does it.
#[test]
fn the_miner_makes_the_headers_of_bitcoin() {
    let mut session = subscribed();
    session.hear(&block_170());
    let hash = session.hash_with(&[0x00, 0x1d, 0x01, 0x02], 1, 1_889_418_792);
    let known = "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee";
    assert_eq!(hash, known.parse::<BlockHash>().unwrap());
}

/// Goal: a share that is found names exactly the header that was hashed, and its answer counts.
#[test]
fn the_miner_submits_what_it_hashed() {
    let mut session = subscribed();
    let set = json!({ "id": null, "method": "mining.set_difficulty", "params": [1e-7] });
    session.hear(&set.to_string());
    session.hear(&block_170());
    let lines = session.grind(20_000);
    assert!(lines.len() > 10, "one of 430 hashes is a share: {}", lines.len());
    let mut extranonces = Vec::new();
    for line in &lines {
        let submit: serde_json::Value = serde_json::from_str(line).unwrap();
        let param = |index: usize| submit["params"][index].as_str().unwrap();
        assert_eq!((param(0), param(1), param(3)), ("a.b", "job", "496ab951"), "{line}");
        let number = |index| u32::from_str_radix(param(index), 16).unwrap();
        assert_eq!(number(5) & !0x1fff_e000, 0, "{line}");
        let hash = session.hash_with(&number(2).to_be_bytes(), 1 | number(5), number(4));
        assert!(target_for(1e-7).is_met_by(&hash), "{line}");
        extranonces.push((number(2), number(5), number(4)));
    }
    let found = extranonces.len();
    extranonces.sort_unstable();
    extranonces.dedup();
    assert_eq!(extranonces.len(), found, "no share is found twice");
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone();
    session.hear(&json!({ "id": id(&lines[0]), "result": true }).to_string());
    let error = json!([21, "Job not found", null]);
    session.hear(&json!({ "id": id(&lines[1]), "result": null, "error": error }).to_string());
    let error = json!({ "code": 21, "message": "Job not found" });
    session.hear(&json!({ "id": id(&lines[2]), "result": null, "error": error }).to_string());
    assert_eq!((session.tally.accepted, session.tally.rejected[JOB_NOT_FOUND]), (1, 2));
    assert_eq!(session.tally.unanswered, found as u64 - 3);
}

/// Goal: difficulties that SV1 writes as fractions give their targets.
#[test]
fn fractions_of_difficulty_have_targets() {
    let one = Target::DIFFICULTY_1.0;
    assert_eq!(target_for(1.0), Target::DIFFICULTY_1);
    assert_eq!(target_for(1.0 / 65_536.0), Target(one << 16));
    assert_eq!(target_for(0.5), Target(one << 1));
    assert_eq!(target_for(4_096.0), Target(one >> 12));
    assert_eq!(target_for(1e-20), Target::MAX);
}
