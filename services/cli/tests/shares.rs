//! `shares` and `dead-letters` as their user meets them, over journals made for the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../crates/journal/tests/log/mod.rs"]
mod log;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use flate2::read::GzDecoder;
use journal::record::Outcome;
use log::Log;
use serde_json::{Value, json};
use ulid::Ulid;

const SEGMENT_BYTES: u64 = 16 * 1024;

/// A data_dir with a journal in it.
struct DataDir {
    folder: tempfile::TempDir,
    log: Log,
    shares: Vec<u64>,
}

impl DataDir {
    fn new() -> DataDir {
        let mut log = Log::new();
        let shares: Vec<u64> = (0..60).map(|_| log.accept(0, 7, "alice")).collect();
        log.acknowledge(0, 7, 60, 60);
        log.attempt("bat_1", 200, &shares[..50]);
        log.settle("bat_1", Outcome::Delivered, &shares[..50]);
        log.attempt("bat_2", 422, &shares[50..53]);
        log.dead_letter("bat_2", &shares[50..53]);
        log.refuse("stale_share", 1);
        log.checkpoint();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("journal")).unwrap();
        log.write(&folder.path().join("journal"), SEGMENT_BYTES);
        DataDir { folder, log, shares }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn name(&self, share: usize) -> String {
        Ulid(self.log.name(self.shares[share])).to_string()
    }

    /// Runs a command on this data_dir.
    fn run(&self, words: &[&str]) -> Output {
        let path = self.path().to_str().unwrap();
        run(&[words, &["--data-dir", path]].concat())
    }

    fn say(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reservegrid"));
    command.args(words).env_clear().output().unwrap()
}

fn complaint(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_journal_that_adds_up_is_said_to() {
    let data_dir = DataDir::new();
    let said = data_dir.say(&["shares", "verify"]);
    assert!(said.starts_with("journal of gw-1, segments 1 to "), "{said}");
    assert!(said.contains("the books balance: 1 lines of miner and hour"), "{said}");
    let said = data_dir.say(&["shares", "verify", "--hours"]);
    assert!(said.contains("alice in the hour from 2026-01-01T00:00:00Z"), "{said}");
    let said = data_dir.say(&["shares", "verify", "--json", "--hours"]);
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(verdict["holds"], true);
    assert_eq!(verdict["sums"]["delivered"]["count"], 50);
    assert_eq!(verdict["sums"]["dead"]["count"], 3);
    assert_eq!(verdict["sums"]["open"]["count"], 7);
    assert_eq!(verdict["refused"]["stale_share"], 1);
    assert_eq!(verdict["lines"][0]["miner_id"], "alice");
    // The folder of the segments will do, too.
    let inside = data_dir.path().join("journal");
    let output = run(&["shares", "verify", "--data-dir", inside.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_journal_that_does_not_add_up_ends_with_1_and_the_counterexample() {
    let data_dir = DataDir::new();
    let path = data_dir.path().join("journal").join("0000000001.journal");
    let mut bytes = fs::read(&path).unwrap();
    let folder = journal::folder::Folder::open(data_dir.path().join("journal")).unwrap();
    let found = folder.find_event(data_dir.shares[20], u64::MAX).unwrap().unwrap();
    let begin = usize::try_from(found.position.offset).unwrap();
    bytes[begin..usize::try_from(found.next).unwrap()].fill(0);
    fs::write(&path, bytes).unwrap();

    let output = data_dir.run(&["shares", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let place = format!("0000000001.journal:{begin}: ");
    assert!(said.contains(&place), "{said}");
    assert!(said.contains("event_gap: event "), "{said}");
    assert!(said.contains("the journal does not add up"), "{said}");
    let output = data_dir.run(&["shares", "verify", "--json"]);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdict["holds"], false);
    assert_eq!(verdict["faults"][0]["offset"], begin);
}

#[test]
fn what_cannot_be_read_ends_with_2() {
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    for words in [
        &["shares", "verify"][..],
        &["shares", "export"],
        &["dead-letters", "list"],
        &["shares", "explain", "01KDX6RWG1ABCDEFGHJKMNPQRS"],
    ] {
        let output = run(&[words, &["--data-dir", path]].concat());
        let said = complaint(&output, 2);
        assert!(said.contains("no journal; give the gateway's data_dir"), "{said}");
    }
    let output = run(&["shares", "verify", "--data-dir", "/nowhere/at/all"]);
    assert!(complaint(&output, 2).contains("/nowhere/at/all"));
    complaint(&run(&["shares", "verify"]), 2);
    complaint(&run(&["shares", "repair"]), 2);
}

#[test]
fn shares_are_exported_as_they_stand() {
    let data_dir = DataDir::new();
    let rows = data_dir.say(&["shares", "export", "--columns", "event_id,status,miner_id"]);
    let mut lines = rows.lines();
    assert_eq!(lines.next(), Some("event_id,status,miner_id"));
    let first = format!("{},delivered,alice", data_dir.shares[0]);
    assert_eq!(lines.next(), Some(&*first));
    assert_eq!(rows.lines().count(), 1 + 61);
    assert!(rows.ends_with("refused,mallory\r\n"), "{rows}");

    let output = data_dir.run(&["shares", "export", "--gzip"]);
    let mut unpacked = String::new();
    GzDecoder::new(&*output.stdout).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, data_dir.say(&["shares", "export"]));
    let said = complaint(&output, 0);
    assert!(said.contains("61 rows; go on behind them with --after 112"), "{said}");

    let ndjson =
        data_dir.say(&["shares", "export", "--format", "ndjson", "--status", "dead_letter"]);
    let names: Vec<String> = ndjson
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["share_id"].as_str().unwrap().into()
        })
        .collect();
    assert_eq!(names, [data_dir.name(50), data_dir.name(51), data_dir.name(52)]);
    let after = data_dir.shares[57].to_string();
    let words = ["shares", "export", "--columns", "event_id", "--after", &after, "--limit", "2"];
    let expected = format!("event_id\r\n{}\r\n{}\r\n", data_dir.shares[58], data_dir.shares[59]);
    assert_eq!(data_dir.say(&words), expected);
    for none in [&["--from", "2027-01-01"][..], &["--to", "2025-01-01"], &["--miner", "bob"]] {
        let words = [&["shares", "export", "--columns", "event_id"], none].concat();
        assert_eq!(data_dir.say(&words), "event_id\r\n", "{none:?}");
    }
    let file = data_dir.path().join("shares.csv");
    data_dir.say(&["shares", "export", "--output", file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(file).unwrap(), unpacked);
}

#[test]
fn nonsense_is_named() {
    let data_dir = DataDir::new();
    for (name, value) in [
        ("--from", "soon"),
        ("--status", "lost"),
        ("--columns", "colour"),
        ("--format", "parquet"),
        ("--after", "x"),
        ("--limit", "many"),
        ("--miner", ""),
    ] {
        let output = data_dir.run(&["shares", "export", name, value]);
        let said = complaint(&output, 2);
        assert!(said.contains(&format!("{name}: ")), "{said}");
    }
}

#[test]
fn a_share_is_explained() {
    let data_dir = DataDir::new();
    let name = data_dir.name(3);
    let said = data_dir.say(&["shares", "explain", &name]);
    assert!(said.starts_with(&format!("share         {name}: delivered\n")), "{said}");
    assert!(said.contains("bat_1, attempt 1, 50 shares: HTTP 200"), "{said}");
    let story: Value =
        serde_json::from_str(&data_dir.say(&["shares", "explain", "--json", &name])).unwrap();
    assert_eq!(story["result"]["share_id"], name);
    let unknown = data_dir.run(&["shares", "explain", &Ulid(5).to_string()]);
    assert!(complaint(&unknown, 2).contains("no share 0000"));
    let wrong = data_dir.run(&["shares", "explain", "share-3"]);
    assert!(complaint(&wrong, 2).contains("expected a ULID"));
}

#[test]
fn dead_letters_are_listed_and_shown() {
    let data_dir = DataDir::new();
    let said = data_dir.say(&["dead-letters", "list"]);
    assert!(said.ends_with("3 dead letters\n"), "{said}");
    assert!(said.starts_with(&data_dir.name(50)), "{said}");
    let said = data_dir.say(&["dead-letters", "list", "--json"]);
    let letter: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((&letter["batch_id"], &letter["miner_id"]), (&json!("bat_2"), &json!("alice")));
    let said = data_dir.say(&["dead-letters", "show", "bat_2"]);
    assert_eq!(said.matches("unknown field").count(), 3, "{said}");
    let said = data_dir.say(&["dead-letters", "show", &data_dir.name(51)]);
    assert_eq!(said.matches("unknown field").count(), 1, "{said}");
    let none = data_dir.run(&["dead-letters", "show", "bat_1"]);
    assert!(complaint(&none, 2).contains("\"bat_1\" is no dead letter"));
}

/// What a gateway was sent: path, key, body.
type Sent = Arc<Mutex<Vec<(String, String, String)>>>;

/// A gateway that takes orders with the right key.
fn gateway() -> (String, Sent) {
    let sent = Sent::default();
    let seen = Arc::clone(&sent);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    let answer = move |request: Request| async move {
        let path = request.uri().path().to_owned();
        let key = request.headers().get("x-api-key").map(|key| key.to_str().unwrap().to_owned());
        let body = axum::body::to_bytes(request.into_body(), 1_000).await.unwrap();
        let is_known = key.as_deref() == Some("the-key-of-the-tests");
        let body = String::from_utf8(body.to_vec()).unwrap();
        seen.lock().unwrap().push((path, key.unwrap_or_default(), body));
        match is_known {
            true => (StatusCode::ACCEPTED, json!({ "ordered": 3 }).to_string()),
            false => (StatusCode::UNAUTHORIZED, json!({ "detail": "give a key" }).to_string()),
        }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
        });
    });
    (url, sent)
}

#[test]
fn orders_go_to_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "the-key-of-the-tests\n").unwrap();
    let (url, sent) = gateway();
    let to = ["--url", &url, "--api-key-file", file.to_str().unwrap()];
    for (words, path, body) in [
        (&["replay", "bat_2"][..], "bat_2/replay", "{}"),
        (&["replay", "--all"], "replay-all", "{}"),
        (&["discard", "bat_2", "--reason", "too old"], "bat_2/discard", "{\"reason\":\"too old\"}"),
    ] {
        let output = run(&[&["dead-letters"], words, &to].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("ordered: 3 shares"), "{said}");
        let (sent_path, key, sent_body) = sent.lock().unwrap().pop().unwrap();
        assert_eq!(sent_path, format!("/api/v1/dead-letters/{path}"));
        assert_eq!(key, "the-key-of-the-tests");
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(json(&sent_body), json(body));
    }
    let refused = run(&["dead-letters", "replay", "bat_2", "--url", &url]);
    let said = complaint(&refused, 2);
    assert!(said.contains("HTTP 401: give a key"), "{said}");
    let strange = run(&["dead-letters", "replay", "../status", "--url", &url]);
    assert!(complaint(&strange, 2).contains("neither a batch_id nor a share_id"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = run(&["dead-letters", "replay", "--all", "--url", &format!("http://{closed}")]);
    assert!(complaint(&nobody, 2).contains(&closed.to_string()));
}
