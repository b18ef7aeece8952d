//! The real binary on the simulated chain, from outside: stream, blocks, probes, signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

#[path = "../../../crates/source/tests/support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use source::feed::{FeedClient, FeedEvent};
use source::rpc::RpcClient;
use source::submit::{SubmitAnswer, submit_block};
use support::{PATIENCE, hash_of, mine, wait_for};
use work::contract::bytes;
use work::contract::chain::Chain;
use work::contract::feed::NodeAccess;
use work::payout::Network;
use work::template::Template;

/// A running service, killed when dropped.
struct Service {
    _folder: tempfile::TempDir,
    child: Child,
    address: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, text: &str) -> Command {
    let file = folder.join("template-manager.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_template-manager"));
    command.arg("--config").arg(file).env("RUST_LOG", "warn").stdin(Stdio::null());
    command
}

impl Service {
    fn start(rest: &str) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let text = format!(
            "listen_addr = \"127.0.0.1:0\"\nnetwork = \"regtest\"\ndata_dir = \"{}\"\n{rest}",
            data_dir.display()
        );
        let child = command(folder.path(), &text).spawn().unwrap();
        let address = wait_for("addresses.json", || {
            let text = std::fs::read_to_string(data_dir.join("addresses.json")).ok()?;
            let value: Value = serde_json::from_str(&text).unwrap();
            Some(value["http_listen_addr"].as_str().unwrap().to_owned())
        });
        Service { _folder: folder, child, address }
    }

    fn demo() -> Service {
        Service::start(
            "source = \"demo://\"\n[demo]\nblock_interval_ms = 0\nmempool_transactions = 800\n\
             nbits = \"207fffff\"\n",
        )
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Status and body of one request.
    fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn chain(&self) -> Chain {
        let (status, body) = self.request("GET", "/chain", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn feed(&self) -> (FeedClient, Receiver<FeedEvent>) {
        let (tell, told) = channel();
        let client = FeedClient::spawn(&self.url(), move |event| drop(tell.send(event))).unwrap();
        (client, told)
    }

    /// Send the signal; how the process ended, and after how long.
    fn signal(&mut self, name: &str) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
        let status = wait_for("the end of the process", || self.child.try_wait().unwrap());
        (status.code(), asked.elapsed())
    }
}

fn next<T>(told: &Receiver<FeedEvent>, mut pick: impl FnMut(FeedEvent) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = told.recv_timeout(left).expect("the event came in time");
        if let Some(picked) = pick(event) {
            return picked;
        }
    }
}

fn template(told: &Receiver<FeedEvent>) -> Arc<Template> {
    next(told, |event| match event {
        FeedEvent::Template(template) => Some(template),
        FeedEvent::Disconnected { reason } => panic!("{reason}"),
        _ => None,
    })
}

fn full_template(told: &Receiver<FeedEvent>) -> Arc<Template> {
    loop {
        let template = template(told);
        if !template.is_coinbase_only() {
            return template;
        }
    }
}

#[test]
fn from_the_stream_to_a_block_and_the_next_tip() {
    let service = Service::demo();
    let (client, told) = service.feed();
    let event = || told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(event(), FeedEvent::Connected);
    assert_eq!(event(), FeedEvent::Source { network: Network::Regtest, demo: true });
    let FeedEvent::Nodes(nodes) = event() else { panic!("the nodes come second") };
    assert_eq!(nodes, [NodeAccess { url: format!("{}/rpc", service.url()), auth: None }]);
    let FeedEvent::Template(first) = event() else { panic!("then the templates") };
    assert!(first.is_coinbase_only());
    let full = full_template(&told);
    assert_eq!(full.transactions.len(), 800);
    assert_eq!(service.chain().tip_hash, full.prev_hash());

    let block = mine(&full);
    assert_eq!(submit_block(&nodes[0], &bytes::encode(&block)), SubmitAnswer::Accepted);
    let next_empty = template(&told);
    assert!(next_empty.is_coinbase_only());
    assert_eq!(next_empty.prev_hash(), hash_of(&block));
    let chain = service.chain();
    assert_eq!((chain.tip_hash, chain.height), (hash_of(&block), full.height));
    assert_eq!(chain.next_min_time, next_empty.tip.min_ntime);
    assert_eq!(submit_block(&nodes[0], &bytes::encode(&block)), SubmitAnswer::Duplicate);
    let sibling = mine(&first);
    assert_eq!(submit_block(&nodes[0], &bytes::encode(&sibling)), SubmitAnswer::Inconclusive);

    // The chain's own block is a tip like any other.
    let (status, body) = service.request("POST", "/demo/block", "{\"count\":2}");
    assert_eq!(status, 200, "{body}");
    let made: Chain = serde_json::from_str(&body).unwrap();
    assert_eq!(made.height, chain.height + 2);
    next(&told, |event| match event {
        FeedEvent::Template(template) => (template.prev_hash() == made.tip_hash).then_some(()),
        _ => None,
    });
    client.stop();
}

#[test]
fn a_late_reader_gets_what_is_in_force() {
    let service = Service::demo();
    service.request("POST", "/demo/block", "");
    let tip = service.chain().tip_hash;
    let (client, told) = service.feed();
    let first = template(&told);
    assert!(first.is_coinbase_only());
    assert_eq!(first.prev_hash(), tip);
    client.stop();
}

#[test]
fn the_rpc_speaks_like_a_node() {
    let service = Service::demo();
    let access = NodeAccess { url: format!("{}/rpc", service.url()), auth: None };
    let mut client = RpcClient::new(&access, PATIENCE).unwrap();
    let chain = service.chain();
    assert_eq!(client.call::<u32>("getblockcount", json!([])), Ok(chain.height));
    let best: work::BlockHash = client.call("getbestblockhash", json!([])).unwrap();
    assert_eq!(best, chain.tip_hash);
    let check = |block: &str, expected: &str| {
        let answer = submit_block(&access, block).to_string();
        assert!(answer.contains(expected), "{answer}");
    };
    check("00", "Block decode failed");
    check("0", "Block decode failed");
    let error = client.call::<Value>("getpeerinfo", json!([])).unwrap_err().to_string();
    assert!(error.contains("-32601"), "{error}");
    let (status, body) = service.request("POST", "/rpc", "nonsense");
    assert!(status == 500 && body.contains("-32700"), "{status} {body}");
    for wrong in ["{\"count\":0}", "{\"count\":101}", "{\"blocks\":1}", "x"] {
        assert_eq!(service.request("POST", "/demo/block", wrong).0, 400);
    }
}

#[test]
fn probes_and_metrics() {
    let service = Service::demo();
    assert_eq!(service.request("GET", "/healthz", "").0, 200);
    let (status, body) = service.request("GET", "/readyz", "");
    assert_eq!((status, body.as_str()), (200, "{\"ready\":true}"));
    service.request("POST", "/demo/block", "");
    let (client, told) = service.feed();
    template(&told);
    let (_, text) = service.request("GET", "/metrics", "");
    for line in [
        "reservegrid_templates_received_total{source=\"demo\"} ",
        "reservegrid_prevhash_tip_notice_total{channel=\"demo\"} 2",
        "reservegrid_prevhash_tip_notice_total{channel=\"zmq\"} 0",
        "reservegrid_node_tip_height{node_index=\"0\"} 102",
        "reservegrid_ready{component=\"node\"} 1",
        "reservegrid_template_readers 1",
        "reservegrid_build_info{",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    client.stop();
}

/// Goal: a reader that takes nothing delays neither the others nor the end of the process.
#[test]
fn a_stuck_reader_stalls_nobody() {
    // A line of about 12 MB is more than sockets buffer.
    let mut service = Service::start(
        "source = \"demo://\"\n[demo]\nblock_interval_ms = 0\nmempool_transactions = 5000\n",
    );
    let mut stuck = TcpStream::connect(&service.address).unwrap();
    write!(stuck, "GET /template/stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (client, told) = service.feed();
    full_template(&told);
    for _ in 0..20 {
        let (status, body) = service.request("POST", "/demo/block", "");
        assert_eq!(status, 200);
        let made: Chain = serde_json::from_str(&body).unwrap();
        let posted = Instant::now();
        next(&told, |event| match event {
            FeedEvent::Template(template) => (template.prev_hash() == made.tip_hash).then_some(()),
            FeedEvent::Disconnected { reason } => panic!("{reason}"),
            _ => None,
        });
        assert!(posted.elapsed() < Duration::from_secs(10), "{:?}", posted.elapsed());
    }
    let (code, took) = service.signal("TERM");
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop((stuck, client));
}

#[test]
fn signals_end_it_in_order() {
    for name in ["TERM", "INT"] {
        let mut service = Service::demo();
        let (client, told) = service.feed();
        full_template(&told);
        let (code, took) = service.signal(name);
        assert_eq!(code, Some(0), "{name}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        next(&told, |event| matches!(event, FeedEvent::Disconnected { .. }).then_some(()));
        client.stop();
    }
}

#[test]
fn a_wrong_configuration_is_one_clear_message() {
    let folder = tempfile::tempdir().unwrap();
    let text = "network = \"main\"\ndata_dir = \"x\"\nsource = \"demo://\"\n";
    let output = command(folder.path(), text).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("expected network = \"regtest\""), "{said}");
}

/// Goal: with a node behind it, the service hands out the node itself, and says when it is lost.
#[test]
fn a_real_node_behind_it() {
    let Some(mut node) = support::Node::start(true) else { return };
    node.generate(3);
    let access = node.access();
    let service = Service::start(&format!(
        "source = \"{}\"\nsource_auth = \"{}\"\npoll_interval_ms = 500\n",
        access.url,
        access.auth.as_deref().unwrap()
    ));
    let (client, told) = service.feed();
    let nodes = next(&told, |event| match event {
        FeedEvent::Nodes(nodes) => Some(nodes),
        _ => None,
    });
    assert_eq!(nodes, [access]);
    let block = mine(&template(&told));
    assert_eq!(submit_block(&nodes[0], &bytes::encode(&block)), SubmitAnswer::Accepted);
    next(&told, |event| match event {
        FeedEvent::Template(template) => (template.prev_hash() == hash_of(&block)).then_some(()),
        _ => None,
    });
    let chain = wait_for("the chain", || {
        Some(service.chain()).filter(|chain| chain.tip_hash == hash_of(&block))
    });
    assert_eq!((chain.height, chain.demo), (4, false));
    assert_eq!(service.request("POST", "/rpc", "{}").0, 404);

    node.kill();
    next(&told, |event| matches!(event, FeedEvent::NodeLost { .. }).then_some(()));
    let (status, body) = service.request("GET", "/readyz", "");
    assert!(status == 503 && body.contains("does not answer"), "{status} {body}");
    client.stop();
}
