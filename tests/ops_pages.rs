//! Events, export, the way of a share and dead letters over HTTP, from a journal in a folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

#[path = "../crates/journal/tests/log/mod.rs"]
mod log;
#[path = "ops_pages/mod.rs"]
mod pages;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use gateway::limits::EVENT_READERS_MAX;
use gateway::machine::command::Command;
use journal::event;
use journal::export::{Columns, Exporter, Filter, Format};
use journal::folder::{Cursor, Folder};
use journal::record::Outcome;
use log::Log;
use pages::{KEY, ORDERS, PATIENCE, Pages};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};
use ulid::Ulid;

const SEGMENT_BYTES: u64 = 64 * 1024;

/// A journal with pages over it.
struct World {
    log: Log,
    folder: tempfile::TempDir,
    disk: log::disk::Disk,
    pages: Pages,
}

impl World {
    fn new(log: Log) -> World {
        let folder = tempfile::tempdir().unwrap();
        let disk = log.write(folder.path(), SEGMENT_BYTES);
        let pages = Pages::new(Some(folder.path()), disk.durable());
        World { log, folder, disk, pages }
    }

    fn folder(&self) -> Folder {
        Folder::open(self.folder.path()).unwrap()
    }

    /// Every event of the journal, as the journal itself tells it.
    fn events(&self) -> Vec<Value> {
        let mut cursor = Cursor::at_start(&self.folder()).unwrap();
        let mut lines = Vec::new();
        while let Some(located) = cursor.next(u64::MAX).unwrap() {
            event::events(&located, "gw-1", &mut lines);
        }
        lines.iter().map(|line| serde_json::from_str(&line.json).unwrap()).collect()
    }

    /// Does something to the log, writes that, and publishes it.
    fn go_on(&mut self, change: impl FnOnce(&mut Log)) {
        let begin = self.log.records.len();
        change(&mut self.log);
        self.log.append_from(begin, &mut self.disk);
        self.pages.publish(&self.disk);
    }
}

/// Some batches of two miners, all settled but the last.
fn batches(count: usize) -> Log {
    let mut log = Log::new();
    for batch in 0..count {
        go_on(&mut log, batch);
    }
    log.accept(0, 7, "alice");
    log
}

fn go_on(log: &mut Log, batch: usize) {
    let mut shares: Vec<u64> = (0..8).map(|_| log.accept(0, 7, "alice")).collect();
    shares.extend((0..4).map(|_| log.accept(1, 8, "bob")));
    log.refuse("stale_share", 1);
    let name = format!("bat_{batch}");
    log.attempt(&name, 200, &shares);
    log.settle(&name, Outcome::Delivered, &shares);
    log.checkpoint();
}

fn ids(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["event_id"].as_u64().unwrap()).collect()
}

#[test]
fn all_events_come_in_order_and_then_the_end() {
    let world = World::new(batches(40));
    let answer = world.pages.get("/gateway/events");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let expected = world.events();
    assert_eq!(answer.lines(), expected);
    assert_eq!(ids(&expected), (1..world.log.next_event).collect::<Vec<_>>());
    // From each event on, also from within a record of many.
    for after in [0, 1, 12, 13, 14, 20, world.log.next_event - 2] {
        let answer = world.pages.get(&format!("/gateway/events?after={after}"));
        assert_eq!(answer.lines(), expected[after as usize..], "after {after}");
    }
    let last = world.log.next_event - 1;
    assert_eq!(world.pages.get(&format!("/gateway/events?after={last}")).text(), "");
    // What is not known to be on disk is not told.
    world.pages.head.publish(10);
    assert_eq!(ids(&world.pages.get("/gateway/events").lines()), (1..10).collect::<Vec<_>>());
}

#[test]
fn an_empty_journal_has_no_events_until_it_has() {
    let mut world = World::new(Log::new());
    assert_eq!(world.pages.get("/gateway/events").text(), "");
    let mut follower = world.pages.follow("/gateway/events?follow=true", "");
    assert_eq!(follower.status(), 200);
    world.go_on(|log| _ = log.accept(0, 7, "alice"));
    assert_eq!(follower.event()["event_id"], 1);
}

/// Goal: a reader that is cut off anywhere and goes on behind its last event has every event once,
/// while the gateway writes and segments come.
#[test]
fn readers_that_are_cut_off_miss_nothing() {
    let mut world = World::new(batches(10));
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut seen: Vec<Value> = Vec::new();
    for round in 0..60 {
        let after = seen.last().map_or(0, |event| event["event_id"].as_u64().unwrap());
        let path = format!("/gateway/events?follow=true&after={after}");
        let mut follower = world.pages.follow(&path, "");
        assert_eq!(follower.status(), 200);
        world.go_on(|log| go_on(log, round));
        let lines = random.next_u32() % 60;
        let there = world.log.next_event - 1 - after;
        seen.extend((0..u64::from(lines).min(there)).map(|_| follower.event()));
    }
    let after = seen.last().unwrap()["event_id"].as_u64().unwrap();
    seen.extend(world.pages.get(&format!("/gateway/events?after={after}")).lines());
    assert!(world.folder().segments().unwrap().len() > 3);
    assert!(seen == world.events(), "{:?}", ids(&seen));
}

#[test]
fn server_sent_events_resume_by_their_id() {
    let mut world = World::new(batches(3));
    let sse = "accept: text/event-stream\r\n";
    let mut follower = world.pages.follow("/gateway/events", sse);
    assert_eq!(follower.status(), 200);
    let expected = world.events();
    let take = |follower: &mut pages::Follower, event: &Value| {
        assert_eq!(follower.line(), format!("id: {}", event["event_id"]));
        let data = follower.line();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&data, follower.line().as_str()), (event, ""));
    };
    for event in &expected[..20] {
        take(&mut follower, event);
    }
    drop(follower);
    // The browser asks for the same page again, and says how far it came.
    let headers = format!("{sse}last-event-id: 20\r\n");
    let mut follower = world.pages.follow("/gateway/events?after=3", &headers);
    assert_eq!(follower.status(), 200);
    world.go_on(|log| go_on(log, 9));
    for event in &world.events()[20..] {
        take(&mut follower, event);
    }
}

#[test]
fn events_are_chosen_by_type_and_miner() {
    let mut log = batches(20);
    let open = log.accept(1, 8, "bob");
    log.told("mode_changed", "{\"to\":\"observe\"}");
    log.settle("bat_x", Outcome::Duplicate, &[open]);
    let world = World::new(log);
    let all = world.events();
    let choose = |path: &str| world.pages.get(&format!("/gateway/events?{path}")).lines();
    let of_type = |name: &str| -> Vec<Value> {
        all.iter().filter(|event| event["type"] == name).cloned().collect()
    };
    assert_eq!(choose("types=mode_changed"), of_type("mode_changed"));
    let both = choose("types=mode_changed,share_forward_result");
    assert_eq!(both.len(), 1 + of_type("share_forward_result").len());
    assert_eq!(choose("types=block_found"), [Value::Null; 0]);
    // A result is about the miner whose share it is.
    let bobs: BTreeSet<&str> = all
        .iter()
        .filter(|event| event["miner_id"] == "bob")
        .filter_map(|event| event["share_id"].as_str())
        .collect();
    let is_bobs = |event: &&Value| event["share_id"].as_str().is_some_and(|id| bobs.contains(id));
    let of_bob: Vec<Value> = all.iter().filter(is_bobs).cloned().collect();
    assert_eq!(of_bob.len(), 2 * bobs.len());
    assert_eq!(choose("miner=bob"), of_bob);
    // Also if the share came before the reader did.
    for after in [5, 13, 20, open] {
        let behind: Vec<Value> = of_bob
            .iter()
            .filter(|event| event["event_id"].as_u64().unwrap() > after)
            .cloned()
            .collect();
        assert_eq!(choose(&format!("miner=bob&after={after}")), behind, "after {after}");
    }
    let results = choose("miner=bob&types=share_forward_result");
    assert_eq!(results.len(), bobs.len());
}

#[test]
fn what_is_no_longer_kept_is_gone() {
    let mut world = World::new(batches(200));
    let mut early = world.pages.follow("/gateway/events?after=0&follow=true", "");
    assert_eq!((early.status(), early.event()["event_id"].clone()), (200, json!(1)));
    world.disk.remove_oldest();
    world.disk.sync();
    let oldest = world.folder().oldest_event().unwrap().unwrap();
    assert!(oldest > 2);
    let answer = world.pages.get("/gateway/events?after=1");
    assert_eq!((answer.status, answer.header("content-type")), (410, "application/problem+json"));
    assert_eq!(answer.json()["oldest"], oldest);
    let next = world.pages.get(&format!("/gateway/events?after={}", oldest - 1));
    assert_eq!(next.lines()[0]["event_id"], oldest);
    // Without a place to go on, one begins with what there is.
    assert_eq!(world.pages.get("/gateway/events").lines()[0]["event_id"], oldest);
    assert_eq!(world.pages.get("/api/v1/shares/export.csv?after=1").status, 410);
}

/// A reader that is too slow is told what it lost, and then nothing more.
#[test]
fn a_reader_that_retention_overtakes_is_told() {
    let mut world = World::new(batches(2_000));
    let mut slow = world.pages.follow("/gateway/events?follow=true", "");
    assert_eq!((slow.status(), slow.event()["event_id"].clone()), (200, json!(1)));
    while world.folder().segments().unwrap().len() > 3 {
        world.disk.remove_oldest();
        world.disk.sync();
    }
    let oldest = world.folder().oldest_event().unwrap().unwrap();
    let mut last = 1;
    let told = loop {
        let event = slow.event();
        match event["event_id"].as_u64() {
            Some(id) => assert_eq!(id, last + 1),
            None => break event,
        }
        last += 1;
    };
    assert_eq!(told["type"], "pruned");
    // As it was when the reader met the gap, which may have been before the last segment went.
    let told = told["oldest"].as_u64().unwrap();
    assert!(last + 1 < told && told <= oldest, "{last} {told} {oldest}");
    assert_eq!(slow.line(), "", "the end");
}

/// Goal: a reader that stops reading costs nobody anything; there are as many as may be.
#[test]
fn readers_that_stop_reading_do_not_hold_up_others() {
    let world = World::new(batches(2_000));
    let stuck: Vec<pages::Follower> = (0..EVENT_READERS_MAX - 1)
        .map(|_| {
            let mut follower = world.pages.follow("/gateway/events?follow=true", "");
            assert_eq!(follower.status(), 200);
            follower
        })
        .collect();
    let mut exports: Vec<pages::Follower> =
        (0..2).map(|_| world.pages.follow("/api/v1/shares/export.csv", "")).collect();
    exports.iter_mut().for_each(|export| assert_eq!(export.status(), 200));
    let begin = Instant::now();
    let answer = world.pages.get("/gateway/events");
    assert_eq!(answer.lines().len() as u64, world.log.next_event - 1);
    assert!(answer.body.len() > 16 << 20, "more than sockets hold: {}", answer.body.len());
    let status = world.pages.get("/api/v1/status");
    assert_eq!(status.json()["event_readers"], stuck.len());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());

    // One more than may be is told so, until somebody leaves.
    let mut last = world.pages.follow("/gateway/events?follow=true", "");
    assert_eq!(last.status(), 200);
    let answer = world.pages.get("/gateway/events");
    assert_eq!(answer.status, 503);
    assert!(answer.json()["detail"].as_str().unwrap().contains("16 readers"), "{answer:?}");
    assert_eq!(world.pages.get("/api/v1/shares/export.csv").status, 503);
    drop(last);
    let deadline = Instant::now() + PATIENCE;
    while world.pages.get("/gateway/events?after=25999").status == 503 {
        assert!(Instant::now() < deadline, "the place is never free again");
    }
}

/// A follower hears that the gateway lives, and up to where it has everything.
#[test]
fn a_follower_hears_a_heartbeat() {
    let mut world = World::new(batches(2));
    let newest = world.log.next_event - 1;
    let path = "/gateway/events?follow=true&types=mode_changed";
    let mut follower = world.pages.follow(path, "");
    assert_eq!(follower.status(), 200);
    let begin = Instant::now();
    let expected = json!({ "type": "heartbeat", "head": newest, "after": newest });
    assert_eq!(follower.event(), expected);
    let waited = begin.elapsed().as_secs();
    assert!((13..=20).contains(&waited), "{waited} s");
    world.go_on(|log| _ = log.told("mode_changed", "{}"));
    assert_eq!(follower.event()["event_id"], newest + 1);
}

#[test]
fn shares_are_exported_with_their_results() {
    let mut world = World::new(batches(300));
    let answer = world.pages.get("/api/v1/shares/export.csv");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/csv"));
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"shares.csv\"");
    let head = world.log.next_event - 1;
    assert_eq!(answer.header("etag"), format!("W/\"{head}\""));
    let mut expected = Vec::new();
    let mut exporter =
        Exporter::open(&world.folder(), Filter::default(), Columns::all(), Format::Csv, u64::MAX)
            .unwrap();
    while exporter.fill(&mut expected).unwrap() {}
    assert_eq!(answer.body, expected);
    assert_eq!(exporter.rows(), 300 * 13 + 1);

    let headers = [("x-api-key", KEY), ("accept-encoding", "gzip")];
    let packed = world.pages.ask("/api/v1/shares/export.csv", &headers);
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < expected.len() / 2);
    let mut unpacked = Vec::new();
    GzDecoder::new(&*packed.body).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, expected);
    let tag = answer.header("etag").to_owned();
    let known = [("x-api-key", KEY), ("if-none-match", tag.as_str())];
    assert_eq!(world.pages.ask("/api/v1/shares/export.csv", &known).status, 304);

    // The next export goes on where this one ended.
    let link = answer.header("link").to_owned();
    let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    world.go_on(|log| _ = log.accept(0, 7, "alice"));
    let rows = world.pages.get(next).text();
    assert_eq!(rows.lines().count(), 2, "{rows}");
    assert!(rows.contains(&format!(",{},open,", head + 1)), "{rows}");

    let path = "/api/v1/shares/export.csv?format=ndjson&miner=bob&status=delivered&limit=5\
                &columns=event_id,miner_id,status";
    let limited = world.pages.get(path);
    assert_eq!(limited.header("link"), "", "nobody knows yet where it ends");
    let rows = limited.lines();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["miner_id"] == "bob" && row["status"] == "delivered"));
}

#[test]
fn the_way_of_a_share_is_told() {
    let world = World::new(batches(3));
    let name = Ulid(world.log.name(1)).to_string();
    let story = world.pages.get(&format!("/api/v1/shares/{name}")).json();
    assert_eq!((&story["share_id"], &story["status"]), (&json!(name), &json!("delivered")));
    assert_eq!(story["posts"][0]["batch_id"], "bat_0");
    let unknown = world.pages.get(&format!("/api/v1/shares/{}", Ulid(7)));
    assert_eq!(unknown.status, 404);
    assert_eq!(world.pages.get("/api/v1/shares/none").status, 400);
}

#[test]
fn dead_letters_are_listed_and_orders_passed_on() {
    let mut log = batches(3);
    let shares: Vec<u64> = (0..5).map(|_| log.accept(0, 7, "alice")).collect();
    log.dead_letter("bat_8", &shares[..3]);
    log.dead_letter("bat_9", &shares[3..]);
    let world = World::new(log);
    let pages = &world.pages;
    let list = pages.get("/api/v1/dead-letters").json();
    assert_eq!((&list["total"], &list["next"]), (&json!(5), &Value::Null));
    assert_eq!(list["dead_letters"][0]["batch_id"], "bat_8");
    let page = pages.get("/api/v1/dead-letters?limit=2").json();
    assert_eq!(page["next"], shares[1]);
    let page = pages.get(&format!("/api/v1/dead-letters?after={}", shares[3])).json();
    assert_eq!(page["dead_letters"].as_array().unwrap().len(), 1);
    let name = Ulid(world.log.name(shares[4])).to_string();
    let one = pages.get(&format!("/api/v1/dead-letters/{name}")).json();
    assert_eq!(one["dead_letters"][0]["share_id"], name);
    assert_eq!(pages.get("/api/v1/dead-letters/bat_0").status, 404);

    let order = |path: &str, body: &str| {
        let answer = pages.post(&format!("/api/v1/dead-letters/{path}"), body);
        (answer.status, answer.json()["ordered"].clone(), pages.commands.pop())
    };
    let replayed = order("bat_8/replay", "");
    assert_eq!(replayed, (202, json!(3), Some(Command::Replay(shares[..3].to_vec()))));
    let discarded = order(&format!("{name}/discard"), "{\"reason\":\" a test \"}");
    let command = Command::Discard(shares[4..].to_vec(), "a test".to_owned());
    assert_eq!(discarded, (202, json!(1), Some(command)));
    assert_eq!(order("replay-all", ""), (202, json!("all"), Some(Command::ReplayAll)));
    assert_eq!(order("bat_0/replay", ""), (404, Value::Null, None));
    let long = json!({ "reason": "x".repeat(10_000) }).to_string();
    for body in ["", "{}", "{\"reason\":\"\"}", "{\"reason\":1}", &long] {
        assert_eq!(order("bat_8/discard", body).0, 400, "{body}");
    }
    for _ in 0..ORDERS {
        assert_eq!(pages.post("/api/v1/dead-letters/replay-all", "").status, 202);
    }
    let full = pages.post("/api/v1/dead-letters/bat_8/replay", "");
    assert_eq!(full.status, 503);
    assert!(full.text().contains("4 orders are waiting"), "{}", full.text());
}

#[test]
fn nonsense_is_answered_with_what_was_expected() {
    let world = World::new(batches(1));
    for (path, expected) in [
        ("/gateway/events?after=x", "after: \"x\" is no whole number"),
        ("/gateway/events?after=-1", "after: \"-1\" is no whole number"),
        ("/gateway/events?after=99999", "after: 99999 is not yet an event"),
        ("/gateway/events?after=18446744073709551615", "is not yet an event"),
        ("/gateway/events?follow=yes", "expected true or false"),
        ("/gateway/events?types=Share", "types: \"Share\" is no type"),
        ("/gateway/events?types=", "types: \"\" is no type"),
        ("/gateway/events?miner=", "names have 1 to 255"),
        ("/gateway/events?afer=1", "unknown field `afer`"),
        ("/gateway/events?after=1&after=2", "duplicate field"),
        ("/api/v1/shares/export.csv?from=soon", "from: \"soon\" is no time"),
        ("/api/v1/shares/export.csv?columns=colour", "columns: \"colour\" is no column"),
        ("/api/v1/shares/export.csv?status=lost", "status: \"lost\" is no status"),
        ("/api/v1/shares/export.csv?after=99999", "is not yet an event"),
        ("/api/v1/shares/nothing", "expected a ULID"),
        ("/api/v1/dead-letters?limit=0", "limit: 0; expected 1 to 1000"),
    ] {
        let answer = world.pages.get(path);
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(expected), "{path}: {detail}");
    }
}

#[test]
fn a_key_is_asked_for_everything_but_health_and_metrics() {
    let world = World::new(batches(1));
    for path in [
        "/api/v1/status",
        "/gateway/events",
        "/api/v1/shares/export.csv",
        "/api/v1/shares/x",
        "/api/v1/dead-letters",
        "/api/v1/dead-letters/x",
    ] {
        for headers in [&[][..], &[("x-api-key", "wrong")], &[("authorization", "Bearer wrong")]] {
            let answer = world.pages.ask(path, headers);
            assert_eq!(answer.status, 401, "{path}");
            assert!(answer.text().contains("gateway.http_api_key"));
        }
    }
    for path in ["/healthz", "/metrics"] {
        assert_eq!(world.pages.ask(path, &[]).status, 200, "{path}");
    }
    let bearer = format!("Bearer {KEY}");
    let answer = world.pages.ask("/gateway/events", &[("authorization", &bearer)]);
    assert_eq!(answer.status, 200);
}

#[test]
fn a_gateway_without_a_journal_says_so() {
    let pages = Pages::new(None, 1);
    for path in ["/gateway/events", "/api/v1/shares/export.csv", "/api/v1/dead-letters"] {
        let answer = pages.get(path);
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("keeps no journal"), "{}", answer.text());
    }
}
