//! `docs/receiver.py`, the receiver that an operator may start from, behind the real gateway: it
//! books every share that miners were told of once, and a POST that comes again changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use sha2::Sha256;
use stack::node::missing;
use stack::process::Process;
use stack::{PATIENCE, Settings, Stack, wait_for, wait_until};

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares need this many hashes, 2^(32 - 20).
const EASY: u32 = 20;

/// The script, running.
struct Receiver {
    process: Process,
    port: u16,
    book: PathBuf,
}

/// Status and body of an answer.
type Answer = (u16, Value);

impl Receiver {
    /// Start it; `None`, said aloud, if there is no Python.
    fn start(folder: &Path, secrets: &str) -> Option<Receiver> {
        if !Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success()) {
            missing("python3", "scripts/debian-packages.sh");
            return None;
        }
        let (book, secret_file) = (folder.join("book.sqlite"), folder.join("secrets"));
        std::fs::write(&secret_file, secrets).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/receiver.py");
        let mut command = Command::new("python3");
        command.arg(script).args(["127.0.0.1", "0"]).args([&book, &secret_file]);
        let log = folder.join("receiver.log");
        let _ = std::fs::remove_file(&log);
        let mut process = Process::start("receiver.py", &mut command, &log);
        let port = wait_for("the receiver's port", PATIENCE, || {
            assert!(process.ended().is_none(), "it has ended by itself\n{}", process.tail());
            let text = process.text();
            let (_, rest) = text.split_once("listening on port ")?;
            rest.split_once('\n')?.0.parse().ok()
        });
        Some(Receiver { process, port, book })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/shares", self.port)
    }

    /// Number of shares in its book, and of hashes among them.
    fn booked(&self) -> (u64, u64) {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let book = Connection::open_with_flags(&self.book, flags).unwrap();
        book.busy_timeout(PATIENCE).unwrap();
        let sums = "SELECT count(*), count(DISTINCT share_hash) FROM shares";
        book.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }

    fn post(&self, id: &str, timestamp: u64, signature: &str, body: &str) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let answer = agent
            .post(self.url())
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signature)
            .send(body);
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap())
    }

    /// Sign and post as a gateway does.
    fn send(&self, batch: &Value) -> Answer {
        let (id, body) = (batch["batch_id"].as_str().unwrap(), batch.to_string());
        let now = unix_seconds();
        self.post(id, now, &sign(SECRET, id, now, &body), &body)
    }
}

const SECRET: &str = "a-secret-of-this-test-alone";

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sign(secret: &str, id: &str, timestamp: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn share(id: &str, hash: &str) -> Value {
    json!({ "share_id": id, "share_hash": hash, "miner_id": "alice", "work": "4096", "more": [1] })
}

fn batch(id: &str, shares: &[Value]) -> Value {
    json!({ "batch_id": id, "gateway_id": "gw-1", "count": shares.len(), "shares": shares })
}

/// Goal: it believes whoever has one of its secrets and a clock, books a hash once, says the same
/// to the same share every time, also after kill -9, and refuses what it cannot read.
#[test]
fn it_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = format!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n{SECRET}\n");
    let Some(mut receiver) = Receiver::start(folder.path(), &secrets) else { return };
    let first = batch("bat_1", &[share("A", "01"), share("B", "01"), share("C", "02")]);
    let accepted = |id: &str| json!({ "share_id": id, "accepted": true });
    let duplicate = |id: &str| json!({ "share_id": id, "accepted": false, "reason": "duplicate" });
    let results = json!([accepted("A"), duplicate("B"), accepted("C")]);
    let expected = (200, json!({ "batch_id": "bat_1", "results": results }));
    assert_eq!(receiver.send(&first), expected);
    assert_eq!(receiver.send(&first), expected, "again");
    receiver.process.kill();
    let receiver = Receiver::start(folder.path(), &secrets).unwrap();
    assert_eq!(receiver.send(&first), expected, "after kill -9");
    let second = batch("bat_2", &[share("B", "01"), share("C", "02"), share("D", "02")]);
    let results = json!([duplicate("B"), accepted("C"), duplicate("D")]);
    assert_eq!(receiver.send(&second), (200, json!({ "batch_id": "bat_2", "results": results })));
    assert_eq!(receiver.booked(), (2, 2));

    let (now, body) = (unix_seconds(), batch("bat_3", &[share("E", "05")]).to_string());
    let strangers = [
        (now, sign("another-secret-entirely", "bat_3", now, &body)),
        (now, sign(SECRET, "bat_4", now, &body)),
        (now - 400, sign(SECRET, "bat_3", now - 400, &body)),
        (now + 400, sign(SECRET, "bat_3", now + 400, &body)),
        (now, "v1,".to_owned()),
        (now, "v1".to_owned()),
    ];
    for (timestamp, signature) in strangers {
        let answer = receiver.post("bat_3", timestamp, &signature, &body);
        assert_eq!(answer, (401, json!({ "error": "signature_wrong" })), "{signature}");
    }
    for body in ["", "{", "[1]", "null", r#"{"batch_id":"bat_3"}"#, r#"{"shares":[{}]}"#] {
        let answer = receiver.post("bat_3", now, &sign(SECRET, "bat_3", now, body), body);
        assert_eq!((answer.0, &answer.1["error"]), (422, &json!("unusable_batch")), "{body}");
    }
    let hollow = batch(
        "bat_3",
        &[
            share("E", "05"),
            json!({ "share_id": "F", "share_hash": null,
        "miner_id": "alice", "work": "1" }),
        ],
    );
    assert_eq!(receiver.send(&hollow).0, 422);
    assert_eq!(receiver.booked(), (2, 2), "a batch is booked as a whole or not at all");
    let rotated = format!("v1,AAAA {}", sign(SECRET, "bat_3", now, &body));
    assert_eq!(receiver.post("bat_3", now, &rotated, &body).0, 200);
    assert_eq!(receiver.booked(), (3, 3));
}

/// Goal: behind the real gateway it gets every share that miners were told of, once.
#[test]
fn it_books_what_miners_were_told() {
    const MINERS: usize = 3;
    const SHARES: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let Some(receiver) = Receiver::start(folder.path(), stack::SHARE_SECRET) else { return };
    let gateway = json!({ "share": { "share_upstream_url": receiver.url() } });
    let stack = Stack::start(&Settings { gateway, ..Settings::demo(NBITS) });
    for number in 0..MINERS {
        let mut miner = stack.client();
        let channel_id = miner.open(&format!("miner-{number}"), EASY);
        let target = miner.channels[&channel_id].target;
        let (work, mut nonce) = (miner.work(channel_id), 0);
        for _ in 0..SHARES {
            let share = work.grind(nonce, |hash| target.is_met_by(hash));
            nonce = share.claim.nonce + 1;
            miner.submit(&share);
        }
        miner.wait_until("all acknowledgements", |miner| miner.accepted == SHARES as u64);
    }
    let told = (MINERS * SHARES) as u64;
    wait_until("the book", PATIENCE, || receiver.booked() == (told, told));
    let results = "share_forward_results_total{outcome=\"delivered\"}";
    wait_until("the results", PATIENCE, || stack.gateway.metric(results) == told as f64);
    assert_eq!(stack.backend_shares(), 0, "the other backend got none");
}
