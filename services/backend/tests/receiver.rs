//! The real program on loopback: who is believed, what is credited, what a restart keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

const SECRET: &str = "plain-secret-of-this-test";

struct Backend {
    child: Child,
    url: String,
    _log: BufReader<ChildStderr>,
}

/// A JSON answer with its status.
type Answer = (u16, Value);

impl Backend {
    /// Starts on a free port and waits for the log line that says it listens.
    fn start(folder: &Path) -> Backend {
        let (mut child, mut log) = spawn(folder);
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            let read = log.read_line(&mut line).unwrap();
            assert!(read > 0, "ended before it listened: {:?}", child.wait());
        }
        let addresses = fs::read(folder.join("data/addresses.json")).unwrap();
        let addresses: Value = serde_json::from_slice(&addresses).unwrap();
        let url = format!("http://{}", addresses["http_listen_addr"].as_str().unwrap());
        Backend { child, url, _log: log }
    }

    fn address(&self) -> &str {
        &self.url["http://".len()..]
    }

    fn post(&self, id: &str, timestamp: &str, signature: &str, body: &[u8]) -> Answer {
        let response = agent()
            .post(format!("{}/shares", self.url))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .send(body)
            .unwrap();
        answer(response)
    }

    /// Signs and posts as a gateway does.
    fn send(&self, batch: &Value) -> Answer {
        let body = serde_json::to_vec(batch).unwrap();
        let (id, now) = (batch["batch_id"].as_str().unwrap(), unix_seconds().to_string());
        self.post(id, &now, &sign(SECRET, id, &now, &body), &body)
    }

    fn get(&self, path: &str) -> Answer {
        answer(agent().get(format!("{}{path}", self.url)).call().unwrap())
    }

    fn text(&self, path: &str) -> String {
        let mut response = agent().get(format!("{}{path}", self.url)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path) -> (Child, BufReader<ChildStderr>) {
    let secret_file = folder.join("secret");
    if !secret_file.exists() {
        fs::write(&secret_file, SECRET).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_reference-backend"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.join("data"))
        .arg("--secret-file")
        .arg(secret_file)
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    (child, log)
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into()
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sign(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn share(id: &str, hash: u8, miner: &str, work: u64, block_found: bool) -> Value {
    json!({
        "share_id": id, "share_hash": format!("{hash:064x}"), "miner_id": miner,
        "worker_id": null, "connection_id": 1, "channel_id": 2, "sequence_number": 3,
        "job_id": 4, "template_id": 5, "height": 6, "prev_hash": "0".repeat(64),
        "nbits": 0x1e03_77ae_u32, "subsidy": 7, "fees": 8, "version": 0x2000_0000,
        "ntime": 9, "nonce": 10, "extranonce": "00ff", "target": "f".repeat(64),
        "work": work.to_string(), "accepted_at": "2026-01-01T00:00:00Z",
        "block_found": block_found, "hold": false,
    })
}

fn batch(id: &str, gateway: &str, shares: &[Value]) -> Value {
    let works = shares.iter().map(|share| share["work"].as_str().unwrap().parse::<u64>().unwrap());
    json!({
        "batch_id": id, "gateway_id": gateway, "sent_at": "2026-01-01T00:00:00Z",
        "count": shares.len(), "work": works.sum::<u64>().to_string(),
        "first_sequence": 1, "last_sequence": shares.len(), "shares": shares,
    })
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn credits_once_by_hash_and_sums_by_miner() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let first = batch(
        "bat_1",
        "gw-1",
        &[share("A", 1, "alice", 100, false), share("B", 2, "bob", 4000, true)],
    );
    let expected = json!({"batch_id": "bat_1", "results": [
        {"share_id": "A", "accepted": true}, {"share_id": "B", "accepted": true}]});
    assert_eq!(backend.send(&first), (200, expected));

    // In one batch: a known hash under a new id, a known id again, and a hash twice.
    let second = batch(
        "bat_2",
        "gw-1",
        &[
            share("C", 1, "alice", 100, false),
            share("A", 1, "alice", 100, false),
            share("D", 3, "carol", 7, false),
            share("E", 3, "carol", 7, false),
        ],
    );
    let (status, answer) = backend.send(&second);
    let results: Vec<(&str, bool, Option<&str>)> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let id = one["share_id"].as_str().unwrap();
            (id, one["accepted"].as_bool().unwrap(), one["reason"].as_str())
        })
        .collect();
    let duplicate = Some("duplicate");
    let expected =
        [("C", false, duplicate), ("A", true, None), ("D", true, None), ("E", false, duplicate)];
    assert_eq!((status, results.as_slice()), (200, expected.as_slice()));

    let (_, totals) = backend.get("/status");
    let sums = ["shares", "duplicates", "conflicts", "batches", "repeated", "blocks"];
    let sums = sums.map(|name| totals[name].as_u64().unwrap());
    assert_eq!(sums, [3, 2, 0, 2, 0, 1]);
    assert_eq!(totals["work"], "4107");
    let miners: Vec<_> =
        totals["miners"].as_array().unwrap().iter().map(|m| (&m["miner_id"], &m["work"])).collect();
    let expected = [json!("bob"), json!("4000"), json!("alice"), json!("100"), json!("carol")];
    let found = [miners[0].0, miners[0].1, miners[1].0, miners[1].1, miners[2].0];
    assert_eq!(found.map(Clone::clone), expected);
}

#[test]
fn another_gateways_hash_is_an_alarm() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    backend.send(&batch("bat_1", "gw-1", &[share("A", 1, "alice", 1, false)]));
    let (_, answer) = backend.send(&batch("bat_2", "gw-2", &[share("B", 1, "alice", 1, false)]));
    assert_eq!(answer["results"][0]["reason"], "duplicate");
    assert_eq!(backend.get("/status").1["conflicts"], 1);
    assert!(backend.text("/metrics").contains("\nreservegrid_backend_conflicts 1\n"));
}

#[test]
fn repetition_gets_the_same_answer_also_after_a_restart() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let shares = [share("A", 1, "alice", 5, false), share("B", 1, "alice", 5, false)];
    let first = backend.send(&batch("bat_1", "gw-1", &shares));
    assert_eq!(backend.send(&batch("bat_1", "gw-1", &shares)), first);
    assert_eq!(backend.terminate().code(), Some(0));

    let backend = Backend::start(folder.path());
    assert_eq!(backend.send(&batch("bat_1", "gw-1", &shares)), first);
    let again = backend.send(&batch("bat_2", "gw-1", &shares));
    assert_eq!(again.1["results"], first.1["results"], "ids decide when the batch id is new");
    let late = backend.send(&batch("bat_3", "gw-1", &[share("C", 1, "alice", 5, false)]));
    assert_eq!(late.1["results"][0]["accepted"], false, "the hash is known from before");
    let (_, totals) = backend.get("/status");
    assert_eq!((&totals["shares"], &totals["work"]), (&json!(1), &json!("5")));
    assert_eq!((&totals["batches"], &totals["repeated"]), (&json!(3), &json!(2)));
}

#[test]
fn a_kill_loses_nothing_that_was_answered() {
    let folder = folder();
    let mut backend = Backend::start(folder.path());
    for number in 0..20u8 {
        let id = format!("S{number}");
        let one = batch(&format!("bat_{number}"), "gw-1", &[share(&id, number, "a", 1, false)]);
        assert_eq!(backend.send(&one).0, 200);
    }
    backend.child.kill().unwrap();
    backend.child.wait().unwrap();
    let backend = Backend::start(folder.path());
    assert_eq!(backend.get("/status").1["shares"], 20);
}

#[test]
fn strangers_are_refused() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let body = serde_json::to_vec(&batch("bat_1", "gw-1", &[])).unwrap();
    let (now, old) = (unix_seconds(), (unix_seconds() - 400).to_string());
    let ahead = (now + 400).to_string();
    let now = now.to_string();
    let good = sign(SECRET, "bat_1", &now, &body);
    let cases = [
        (now.as_str(), sign("another secret entirely", "bat_1", &now, &body), "signature_wrong"),
        (&now, sign(SECRET, "bat_2", &now, &body), "signature_wrong"),
        (&now, sign(SECRET, "bat_1", &now, b"{}"), "signature_wrong"),
        (&now, String::new(), "signature_wrong"),
        (&old, sign(SECRET, "bat_1", &old, &body), "timestamp_too_old"),
        (&ahead, sign(SECRET, "bat_1", &ahead, &body), "timestamp_too_new"),
        ("soon", good.clone(), "timestamp_malformed"),
    ];
    for (timestamp, signature, code) in cases {
        let (status, answer) = backend.post("bat_1", timestamp, &signature, &body);
        assert_eq!((status, &answer["error"]), (401, &json!(code)));
    }
    let bare = agent().post(format!("{}/shares", backend.url)).send(&body[..]).unwrap();
    let (status, refusal) = answer(bare);
    assert_eq!((status, &refusal["error"]), (401, &json!("header_missing")));

    let rotated = format!("v1,AAAA {good}");
    assert_eq!(backend.post("bat_1", &now, &rotated, &body).0, 200);
    assert_eq!(backend.post("bat_1", &now, &rotated, &body).0, 200, "a replay changes nothing");
    let (_, totals) = backend.get("/status");
    assert_eq!(totals["rejected_signatures"], 8);
    assert_eq!((&totals["batches"], &totals["repeated"]), (&json!(1), &json!(1)));
}

/// Goal: docs/backend.md is true: its batch has exactly the fields that gateways send, its tables
/// name each of them, and its answer is what the batch gets, twice.
#[test]
fn the_page_shows_what_is_sent_and_answered() {
    let page = fs::read_to_string("../../docs/backend.md").unwrap();
    let examples: Vec<Value> = page
        .split("```json\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split_once("```").unwrap().0).unwrap())
        .collect();
    let [sent, answered] = examples.try_into().unwrap();
    let batch: work::contract::shares::ShareBatch = serde_json::from_value(sent.clone()).unwrap();
    assert_eq!(serde_json::to_value(&batch).unwrap(), sent);
    let fields = [&sent, &sent["shares"][0]].map(|object| object.as_object().unwrap().keys());
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for field in fields.into_iter().flatten() {
        let name = format!("`{field}`");
        let is_named = |row: &&str| row.split('|').nth(1).unwrap().contains(&name);
        assert!(rows.iter().any(is_named), "no row of docs/backend.md is about {name}");
    }
    let folder = folder();
    let backend = Backend::start(folder.path());
    assert_eq!(backend.send(&sent), (200, answered.clone()));
    assert_eq!(backend.send(&sent), (200, answered));
}

/// Goal: a secret is replaced without a batch that is not believed: the receiver knows both, the
/// sender changes over or signs with both, the receiver forgets the old one.
#[test]
fn a_secret_is_replaced_without_a_gap() {
    const NEW: &str = "whsec_bmV3LXNlY3JldC1vZi10aGlzLXRlc3QtMTIzNDU2";
    const NEW_BYTES: &str = "new-secret-of-this-test-123456";
    let folder = folder();
    let secret_file = folder.path().join("secret");
    let now = unix_seconds().to_string();
    let mut number = 0;
    let mut statuses = |backend: &Backend| {
        let mut send = |signatures: &[&str]| {
            number += 1;
            let id = format!("bat_{number}");
            let body = batch(&id, "gw-1", &[share(&id, number, "alice", 1, false)]).to_string();
            let signed = signatures.iter().map(|secret| sign(secret, &id, &now, body.as_bytes()));
            let signed: Vec<String> = signed.collect();
            backend.post(&id, &now, &signed.join(" "), body.as_bytes()).0
        };
        [send(&[SECRET]), send(&[NEW_BYTES]), send(&[NEW_BYTES, SECRET])]
    };
    let steps = [
        (SECRET.to_owned(), [200, 401, 200]),
        (format!("{NEW}\n{SECRET}\n"), [200, 200, 200]),
        (NEW.to_owned(), [401, 200, 200]),
    ];
    for (secrets, expected) in steps {
        fs::write(&secret_file, &secrets).unwrap();
        let backend = Backend::start(folder.path());
        assert_eq!(statuses(&backend), expected, "{secrets}");
    }
}

/// Goal: a request that was answered and comes again, byte for byte or newly signed, gets the
/// first answer; past the window it is not even looked at.
#[test]
fn a_replay_gets_the_first_answer_or_none() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let shares = [share("A", 1, "alice", 5, false), share("B", 1, "alice", 5, false)];
    let body = batch("bat_1", "gw-1", &shares).to_string();
    let post = |age: u64| {
        let at = (unix_seconds() - age).to_string();
        backend.post("bat_1", &at, &sign(SECRET, "bat_1", &at, body.as_bytes()), body.as_bytes())
    };
    let first = post(250);
    assert_eq!((first.0, &first.1["results"][1]["reason"]), (200, &json!("duplicate")));
    for age in [250, 0, 250] {
        assert_eq!(post(age), first);
    }
    let stale = post(310);
    assert_eq!((stale.0, &stale.1["error"]), (401, &json!("timestamp_too_old")));
    let (_, totals) = backend.get("/status");
    assert_eq!((&totals["shares"], &totals["duplicates"]), (&json!(1), &json!(1)));
    assert_eq!((&totals["batches"], &totals["repeated"]), (&json!(1), &json!(3)));
}

/// Goal: a ledger that cannot be written refuses batches for now and says so to whoever asks
/// beforehand, and both heal without a batch.
#[test]
fn a_ledger_that_fails_heals_by_itself() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let head = || agent().head(format!("{}/shares", backend.url)).call().unwrap().status();
    assert_eq!(head(), 200);
    let other = rusqlite::Connection::open(folder.path().join("data/ledger.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let one = batch("bat_1", "gw-1", &[share("A", 1, "alice", 5, false)]);
    let (status, refusal) = backend.send(&one);
    assert_eq!((status, &refusal["error"]), (503, &json!("storage")));
    assert_eq!((head().as_u16(), backend.get("/readyz").0), (503, 503));
    other.execute_batch("ROLLBACK").unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while head() != 200 {
        assert!(Instant::now() < deadline, "{:?}", backend.get("/readyz"));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(backend.get("/readyz").0, 200);
    assert_eq!(backend.get("/status").1["shares"], 0);
    assert_eq!(backend.send(&one).0, 200);
}

#[test]
fn what_cannot_be_booked_says_why() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let now = unix_seconds().to_string();
    for garbage in [&b""[..], b"{", b"null", b"[1,2]", b"\xff\xfe", b"{\"batch_id\":\"bat_1\"}"] {
        let (status, answer) =
            backend.post("bat_1", &now, &sign(SECRET, "bat_1", &now, garbage), garbage);
        assert_eq!((status, &answer["error"]), (400, &json!("bad_json")), "{garbage:?}");
    }
    let good = batch("bat_1", "gw-1", &[share("A", 1, "alice", 5, false)]);
    let wrong = |change: fn(&mut Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        backend.send(&changed)
    };
    let cases = [
        wrong(|batch| batch["count"] = json!(2)),
        wrong(|batch| batch["work"] = json!("6")),
        wrong(|batch| batch["gateway_id"] = json!("")),
        wrong(|batch| batch["shares"][0]["miner_id"] = json!("x".repeat(256))),
        wrong(|batch| {
            let most = u128::MAX.to_string();
            batch["shares"] = json!([batch["shares"][0], batch["shares"][0]]);
            batch["shares"][0]["work"] = json!(most);
            batch["count"] = json!(2);
        }),
    ];
    for (status, answer) in cases {
        assert_eq!((status, &answer["error"]), (422, &json!("unusable_batch")), "{answer}");
    }
    let body = serde_json::to_vec(&good).unwrap();
    let (status, _) = backend.post("bat_9", &now, &sign(SECRET, "bat_9", &now, &body), &body);
    assert_eq!(status, 422, "webhook-id and batch_id differ");
    assert_eq!(backend.send(&good).0, 200);
    let reused = batch("bat_1", "gw-1", &[share("B", 2, "alice", 5, false)]);
    assert_eq!(backend.send(&reused).0, 422, "the id of another batch");
    let swapped = batch("bat_2", "gw-1", &[share("A", 2, "alice", 5, false)]);
    assert_eq!(backend.send(&swapped).0, 422, "the id of another hash");
    assert_eq!(backend.get("/status").1["shares"], 1);
}

#[test]
fn too_much_is_refused() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let now = unix_seconds().to_string();
    let large = vec![b' '; 1024 * 1024 + 1];
    let (status, answer) =
        backend.post("bat_1", &now, &sign(SECRET, "bat_1", &now, &large), &large);
    assert_eq!((status, &answer["error"]), (413, &json!("body_too_large")));
    let shares: Vec<Value> =
        (0..513).map(|n| share(&format!("S{n}"), 1, "alice", 1, false)).collect();
    let (status, answer) = backend.send(&batch("bat_2", "gw-1", &shares));
    assert_eq!((status, &answer["error"]), (413, &json!("too_many_shares")));
    assert_eq!(backend.send(&batch("bat_3", "gw-1", &shares[..512])).0, 200);
}

/// Goal: requests that never finish cannot use the places up for good, and more than there are
/// places for are told to come back.
#[test]
fn a_full_house_answers_503() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let now = unix_seconds().to_string();
    let mut slow: Vec<TcpStream> = Vec::new();
    // 128 bodies may be under way; each of these promises one byte and never sends it.
    for _ in 0..128 {
        let mut stream = TcpStream::connect(backend.address()).unwrap();
        write!(
            stream,
            "POST /shares HTTP/1.1\r\nhost: x\r\nwebhook-id: b\r\nwebhook-timestamp: {now}\r\n\
             webhook-signature: v1,AAAA\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"
        )
        .unwrap();
        // The invitation to go on says that the place is taken.
        let mut invitation = [0; 25];
        stream.read_exact(&mut invitation).unwrap();
        assert!(invitation.starts_with(b"HTTP/1.1 100"));
        slow.push(stream);
    }
    let one = batch("bat_1", "gw-1", &[share("A", 1, "alice", 5, false)]);
    let body = serde_json::to_vec(&one).unwrap();
    let response = agent()
        .post(format!("{}/shares", backend.url))
        .header("webhook-id", "bat_1")
        .header("webhook-timestamp", &now)
        .header("webhook-signature", sign(SECRET, "bat_1", &now, &body))
        .send(&body[..])
        .unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(backend.get("/readyz").0, 200, "the other routes are not in that queue");
    // One of them finishes (and is not believed): its place is free again.
    slow[0].write_all(b"x").unwrap();
    let mut status = [0; 12];
    slow[0].read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
    assert_eq!(backend.send(&one).0, 200);
}

#[test]
fn one_folder_has_one_backend_and_signals_end_it() {
    let folder = folder();
    let backend = Backend::start(folder.path());
    let (mut second, mut log) = spawn(folder.path());
    let mut said = String::new();
    log.read_to_string(&mut said).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    assert!(said.contains("in use by another reference-backend"), "{said}");
    assert_eq!(backend.get("/healthz").0, 200);
    assert_eq!(backend.get("/readyz").1, json!({"ready": true}));
    let metrics = backend.text("/metrics");
    assert!(metrics.contains("reservegrid_build_info{service=\"reference-backend\""));
    // An idle keep-alive connection does not hold the exit up.
    let idle = TcpStream::connect(backend.address()).unwrap();
    assert_eq!(backend.terminate().code(), Some(0));
    drop(idle);
}

#[test]
fn a_missing_secret_file_is_named() {
    let folder = folder();
    let missing: PathBuf = folder.path().join("nothing");
    let output = Command::new(env!("CARGO_BIN_EXE_reference-backend"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .arg("--secret-file")
        .arg(&missing)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(missing.to_str().unwrap()), "{said}");
}
