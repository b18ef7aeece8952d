//! The client of the stream against a template-manager that is played here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use source::demo::{DemoChain, DemoConfig};
use source::feed::{FeedClient, FeedEvent};
use work::contract::feed::{FeedLine, FeedWriter, NodeAccess};
use work::now::UnixTime;
use work::payout::Network;

const PATIENCE: Duration = Duration::from_secs(10);

fn start() -> (TcpListener, FeedClient, Receiver<FeedEvent>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (tell, told) = channel();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = FeedClient::spawn(&url, move |event| drop(tell.send(event))).unwrap();
    (listener, client, told)
}

/// Take the next connection and answer its request; lines may be written behind that.
fn accept(listener: &TcpListener, status: &str) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut first = None;
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap();
        if line.is_empty() {
            break;
        }
        first.get_or_insert(line);
    }
    assert_eq!(first.unwrap(), "GET /template/stream HTTP/1.1");
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn say(stream: &mut TcpStream, line: &FeedLine) {
    let mut text = serde_json::to_vec(line).unwrap();
    text.push(b'\n');
    stream.write_all(&text).unwrap();
}

fn next(told: &Receiver<FeedEvent>) -> FeedEvent {
    told.recv_timeout(PATIENCE).unwrap()
}

fn introduce(stream: &mut TcpStream, told: &Receiver<FeedEvent>) {
    say(stream, &FeedLine::Source { proto: 1, network: Network::Regtest, demo: true });
    assert_eq!(next(told), FeedEvent::Connected);
    assert_eq!(next(told), FeedEvent::Source { network: Network::Regtest, demo: true });
}

fn disconnected(told: &Receiver<FeedEvent>) -> String {
    match next(told) {
        FeedEvent::Disconnected { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn templates_come_as_they_were_sent() {
    let (listener, client, told) = start();
    let mut stream = accept(&listener, "200 OK");
    introduce(&mut stream, &told);
    let nodes = vec![NodeAccess { url: "http://127.0.0.1:1/".into(), auth: None }];
    say(&mut stream, &FeedLine::Nodes { nodes: nodes.clone() });
    assert_eq!(next(&told), FeedEvent::Nodes(nodes));

    let config = DemoConfig { mempool_transactions: 300, ..DemoConfig::default() };
    let (mut chain, _) = DemoChain::new(config, UnixTime(1_790_000_000_000)).unwrap();
    let mut writer = FeedWriter::default();
    let mut before: Option<Arc<work::Template>> = None;
    for step in 0..4 {
        let expected = Arc::clone(chain.template());
        say(&mut stream, &writer.line(&expected));
        say(&mut stream, &FeedLine::Heartbeat);
        let FeedEvent::Template(template) = next(&told) else { panic!("no template") };
        assert_eq!(template, expected);
        if let Some(before) = before {
            let shared = |t: &Arc<_>| before.transactions.iter().any(|b| Arc::ptr_eq(b, t));
            let count = template.transactions.iter().filter(|t| shared(t)).count();
            assert!(count > 200, "{count} shared");
        }
        before = Some(template);
        chain.advance(UnixTime(1_790_000_000_000 + (step + 1) * 5_000));
    }
    say(&mut stream, &FeedLine::NodeLost { since_millis: 700 });
    assert_eq!(next(&told), FeedEvent::NodeLost { since_millis: 700 });
    client.stop();
}

#[test]
fn silence_is_loss_and_the_link_is_made_again() {
    let (listener, client, told) = start();
    let mut stream = accept(&listener, "200 OK");
    introduce(&mut stream, &told);
    let silent = Instant::now();
    let reason = disconnected(&told);
    assert!(reason.contains("750 ms"), "{reason}");
    assert!(silent.elapsed() < Duration::from_secs(10), "{:?}", silent.elapsed());
    let mut stream = accept(&listener, "200 OK");
    introduce(&mut stream, &told);
    client.stop();
}

#[test]
fn nonsense_ends_the_connection() {
    let check = |lines: &[u8], part: &str| {
        let (listener, client, told) = start();
        let mut stream = accept(&listener, "200 OK");
        stream.write_all(lines).unwrap();
        assert_eq!(next(&told), FeedEvent::Connected);
        let reason = loop {
            match next(&told) {
                FeedEvent::Disconnected { reason } => break reason,
                FeedEvent::Source { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(reason.contains(part), "{reason}");
        client.stop();
    };
    let source = r#"{"type":"Source","proto":1,"network":"regtest","demo":true}"#;
    check(b"hello\n", "makes no sense");
    check(b"{\"type\":\"Heartbeat\"}\n", "does not begin with");
    check(
        br#"{"type":"Source","proto":2,"network":"regtest","demo":true}
"#,
        "version 2",
    );
    check(format!("{source}\n{{\"type\":\"Unknown\"}}\n").as_bytes(), "makes no sense");
    let unknown = r#"{"type":"Template","template_id":1,"prev_hash":"HASH","nbits":1,"min_time":1,
        "cur_time":1,"height":1,"version":1,"coinbase_value":1,"witness_commitment":"COMMITMENT",
        "merkle_path":[],"transactions":[{"wtxid":"HASH"}]}"#
        .replace("HASH", &"0".repeat(64))
        .replace("COMMITMENT", &"0".repeat(76))
        .replace('\n', "");
    check(format!("{source}\n{unknown}\n").as_bytes(), "without its data");
}

#[test]
fn an_error_of_the_service_is_told() {
    let (listener, client, told) = start();
    drop(accept(&listener, "503 Service Unavailable"));
    let reason = disconnected(&told);
    assert!(reason.contains("503"), "{reason}");
    client.stop();
    assert!(FeedClient::spawn("ftp://x", |_| {}).is_err());
}

#[test]
fn stopping_does_not_wait_for_the_other_end() {
    let (listener, client, told) = start();
    let mut stream = accept(&listener, "200 OK");
    introduce(&mut stream, &told);
    let asked = Instant::now();
    client.stop();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    // Nothing is told after that, and nobody holds the channel any more.
    assert!(told.recv_timeout(PATIENCE).is_err());
}
