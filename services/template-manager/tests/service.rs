//! The real binary on the simulated chain, from outside: stream, blocks, probes, signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

#[path = "../../../crates/source/tests/support/mod.rs"]
mod support;

mod program;

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use program::{Service, command, full_template, next, template};
use serde_json::{Value, json};
use source::feed::FeedEvent;
use source::rpc::RpcClient;
use source::submit::{SubmitAnswer, submit_block};
use support::{PATIENCE, hash_of, mine, wait_for};
use work::contract::bytes;
use work::contract::chain::Chain;
use work::contract::feed::NodeAccess;
use work::hash::BlockHash;
use work::payout::Network;

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

/// Goal: branches on demand: a rival displaces nothing, more work does, and the tip can go back to
/// the very block it was; `/chain` and the stream agree at each step.
#[test]
fn branches_on_demand() {
    let service = Service::demo();
    let (client, told) = service.feed();
    service.request("POST", "/demo/block", "");
    let first = service.chain();
    let fork = |body: Value| -> (Vec<BlockHash>, bool) {
        let (status, body) = service.request("POST", "/demo/fork", &body.to_string());
        assert_eq!(status, 200, "{body}");
        let made: Value = serde_json::from_str(&body).unwrap();
        let chain: Chain = serde_json::from_value(made["chain"].clone()).unwrap();
        assert_eq!(service.chain(), chain);
        let blocks = serde_json::from_value(made["blocks"].clone()).unwrap();
        (blocks, made["is_active"].as_bool().unwrap())
    };
    let wait_for_tip = |tip: BlockHash| {
        next(&told, |event| match event {
            FeedEvent::Template(template) => (template.prev_hash() == tip).then_some(()),
            FeedEvent::Disconnected { reason } => panic!("{reason}"),
            _ => None,
        });
    };
    wait_for_tip(first.tip_hash);
    let (rival, is_active) = fork(json!({ "depth": 1, "length": 1 }));
    assert!(!is_active);
    assert_eq!(service.chain(), first);
    let (more, is_active) = fork(json!({ "onto": rival[0], "length": 1 }));
    assert!(is_active);
    wait_for_tip(more[0]);
    assert_eq!(service.chain().height, first.height + 1);
    assert_eq!(service.chain().recent_tips[0], first.tip_hash);

    let access = NodeAccess { url: format!("{}/rpc", service.url()), auth: None };
    let mut rpc = RpcClient::new(&access, PATIENCE).unwrap();
    assert_eq!(rpc.call::<Value>("invalidateblock", json!([rival[0]])), Ok(Value::Null));
    wait_for_tip(first.tip_hash);
    assert_eq!(service.chain().tip_hash, first.tip_hash);
    let error = rpc.call::<Value>("invalidateblock", json!(["ab"])).unwrap_err().to_string();
    assert!(error.contains("64 hexadecimal"), "{error}");

    let (longer, is_active) = fork(json!({ "depth": 2, "length": 5 }));
    assert!(is_active);
    wait_for_tip(longer[4]);
    for wrong in [
        json!({ "depth": 17, "length": 20 }),
        json!({ "depth": 1, "length": 0 }),
        json!({ "length": 2 }),
        json!({ "depth": 1, "onto": rival[0], "length": 2 }),
        json!({ "onto": rival[0], "length": 2 }),
        json!({ "depth": 1, "length": 2, "x": 1 }),
    ] {
        assert_eq!(service.request("POST", "/demo/fork", &wrong.to_string()).0, 400, "{wrong}");
    }
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
    assert!(took < Duration::from_secs(10), "{took:?}");
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
        assert!(took < Duration::from_secs(10), "{took:?}");
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
