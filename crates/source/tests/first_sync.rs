//! A node of the main chain, played here, that falls back into its first synchronisation: real
//! ones cannot be brought to it at will.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use source::demo::DemoConfig;
use source::{Source, SourceConfig, SourceEvent, assemble};
use work::contract::bytes;
use work::contract::feed::NodeAccess;
use work::payout::Network;

const PATIENCE: Duration = Duration::from_secs(30);
const TIME: u32 = 1_790_000_000;

fn hash() -> String {
    "07".repeat(32)
}

/// What the node says to one call.
fn answer(method: &str, syncing: bool) -> Result<Value, (i32, &'static str)> {
    Ok(match method {
        "getblockchaininfo" => json!({
            "chain": "main", "blocks": 900, "headers": 1_000, "bestblockhash": hash(),
            "initialblockdownload": syncing,
        }),
        "getbestblockhash" => json!(hash()),
        "getblockheader" => json!({
            "hash": hash(), "height": 900, "time": TIME, "mediantime": TIME - 3_600,
            "bits": "1d00ffff", "chainwork": "0".repeat(60) + "abcd",
        }),
        "getmininginfo" => json!({ "next": { "height": 901, "bits": "1d00ffff" } }),
        "getblocktemplate" if syncing => return Err((-10, "is in initial sync")),
        "getblocktemplate" => json!({
            "version": 0x2000_0000, "rules": ["csv", "!segwit"], "previousblockhash": hash(),
            "transactions": [], "coinbasevalue": 5_000_000_000u64, "mintime": TIME,
            "curtime": TIME + 60, "bits": "1d00ffff", "height": 901,
            "default_witness_commitment":
                bytes::encode(&assemble::witness_commitment(std::iter::empty())),
        }),
        "getzmqnotifications" => json!([]),
        _ => return Err((-32_601, "Method not found")),
    })
}

/// Answer all requests of one connection.
fn serve(stream: TcpStream, syncing: &AtomicBool) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let one = |call: &Value| {
            let said = answer(call["method"].as_str().unwrap(), syncing.load(Ordering::Relaxed));
            match said {
                Ok(result) => json!({ "result": result, "error": null, "id": call["id"] }),
                Err((code, message)) => json!({
                    "result": null, "error": { "code": code, "message": message }, "id": call["id"],
                }),
            }
        };
        let said = match serde_json::from_slice(&body).unwrap() {
            Value::Array(calls) => calls.iter().map(one).collect(),
            call => one(&call),
        };
        let text = said.to_string();
        let length = text.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        writer.write_all(format!("{head}{text}").as_bytes()).ok()?;
    }
}

fn start_node(syncing: Arc<AtomicBool>) -> NodeAccess {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let syncing = Arc::clone(&syncing);
            std::thread::spawn(move || serve(stream.unwrap(), &syncing));
        }
    });
    NodeAccess { url, auth: None }
}

fn next<T>(told: &Receiver<SourceEvent>, pick: impl Fn(&SourceEvent) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = told.recv_timeout(left).expect("the event came in time");
        if let Some(picked) = pick(&event) {
            return picked;
        }
    }
}

/// Goal: a node in its first synchronisation answers everything but is of no use: that is noticed
/// as fast as a dead one, and its end, too.
#[test]
fn a_node_that_synchronises_is_lost() {
    let syncing = Arc::new(AtomicBool::new(false));
    let config = SourceConfig {
        nodes: vec![start_node(Arc::clone(&syncing))],
        network: Network::Main,
        // Templates are not asked for while the test lasts, so that only the pulse can notice.
        poll_interval_ms: 60_000,
        demo: DemoConfig::default(),
    };
    let (tell, told) = channel();
    let source = Source::start(config, Arc::new(move |event| drop(tell.send(event)))).unwrap();
    let template = |event: &SourceEvent| match event {
        SourceEvent::Template(template) => Some(Arc::clone(template)),
        _ => None,
    };
    let first = next(&told, template);
    assert_eq!((first.height, first.prev_hash().to_string()), (901, hash()));
    let rules = first.rules.as_deref().unwrap();
    assert_eq!(rules, ["csv", "!segwit"], "as the node names them");

    syncing.store(true, Ordering::Relaxed);
    let since = Instant::now();
    let why = next(&told, |event| match event {
        SourceEvent::NodeLost { why, .. } => Some(why.clone()),
        _ => None,
    });
    eprintln!("first synchronisation: noticed after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert!(why.contains("initial block download, at block 900 of 1000"), "{why}");

    syncing.store(false, Ordering::Relaxed);
    next(&told, |event| matches!(event, SourceEvent::NodeBack).then_some(()));
    assert_eq!(next(&told, template).height, 901);
    source.stop();
}
