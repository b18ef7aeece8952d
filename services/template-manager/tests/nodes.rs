//! The real binary over two real nodes that do not know each other: the test carries the blocks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

#[path = "../../../crates/source/tests/support/mod.rs"]
mod support;

mod program;

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use program::{Service, next};
use serde_json::{Value, json};
use source::feed::FeedEvent;
use support::{Node, wait_for};
use work::hash::BlockHash;

/// A loss is noticed within a second; a busy machine gets more, and the time is printed.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

fn over(nodes: &[&Node]) -> Service {
    let mut text = "poll_interval_ms = 500\n".to_owned();
    for access in nodes.iter().map(|node| node.access()) {
        let auth = access.auth.unwrap();
        text.push_str(&format!("[[node]]\nurl = \"{}\"\nauth = \"{auth}\"\n", access.url));
    }
    Service::start(&text)
}

/// Two nodes on one chain, mined by the first.
fn pair() -> Option<(Node, Node)> {
    let (mut first, mut second) = (Node::start(true)?, Node::start(true)?);
    first.generate(3);
    for height in 1..=3 {
        let hash = first.call("getblockhash", json!([height]));
        carry(&mut first, &mut second, &hash);
    }
    Some((first, second))
}

/// Give a block of one node to the other.
fn carry(from: &mut Node, to: &mut Node, hash: &Value) {
    let block = from.call("getblock", json!([hash, 0]));
    let answer = to.call("submitblock", json!([block]));
    assert!(answer.is_null() || answer == "inconclusive", "{answer}");
}

fn tip(node: &mut Node) -> BlockHash {
    node.call("getbestblockhash", json!([])).as_str().unwrap().parse().unwrap()
}

fn wait_for_template(told: &Receiver<FeedEvent>, tip: BlockHash) {
    next(told, |event| match event {
        FeedEvent::Template(template) => (template.prev_hash() == tip).then_some(()),
        FeedEvent::Disconnected { reason } => panic!("{reason}"),
        _ => None,
    });
}

/// No template on another block than `tip` comes within a second.
fn stays_on(told: &Receiver<FeedEvent>, tip: BlockHash) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Ok(event) = told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let FeedEvent::Template(template) = event {
            assert_eq!(template.prev_hash(), tip);
        }
    }
}

fn metric(service: &Service, line: &str) -> bool {
    service.request("GET", "/metrics", "").1.contains(&format!("reservegrid_{line}\n"))
}

fn is_in_use(service: &Service, node: usize) -> bool {
    metric(service, &format!("node_in_use{{node_index=\"{node}\"}} 1"))
}

/// Goal: the first node is killed: templates go on from the second, on the same chain; the first
/// comes back and is used again only when the second is lost.
#[test]
fn the_second_node_takes_over() {
    let Some((mut first, mut second)) = pair() else { return };
    let service = over(&[&first, &second]);
    let (client, told) = service.feed();
    let nodes = next(&told, |event| match event {
        FeedEvent::Nodes(nodes) => Some(nodes),
        _ => None,
    });
    assert_eq!(nodes, [first.access(), second.access()], "blocks go to every node");
    let start = tip(&mut first);
    wait_for_template(&told, start);
    wait_for("the first node in use", || is_in_use(&service, 0).then_some(()));

    first.kill();
    let killed = Instant::now();
    wait_for("the second node in use", || is_in_use(&service, 1).then_some(()));
    eprintln!("kill -9: another node in use after {:?}", killed.elapsed());
    assert!(killed.elapsed() < NOTICED_WITHIN, "{:?}", killed.elapsed());
    assert!(metric(&service, "node_up{node_index=\"0\"} 0"));
    assert!(metric(&service, "ready{component=\"node\"} 1"), "nobody needs to know");

    // The chain goes on where it was.
    second.generate(2);
    let later = tip(&mut second);
    wait_for_template(&told, later);
    assert_eq!(service.chain().height, 5);

    // It comes back, behind and then on a rival: neither is a reason to go back.
    first.launch();
    wait_for("the first node up", || metric(&service, "node_up{node_index=\"0\"} 1").then_some(()));
    stays_on(&told, later);
    while first.height() < 5 {
        first.generate_empty();
    }
    assert_ne!(tip(&mut first), later, "a rival of equal work");
    stays_on(&told, later);
    assert!(is_in_use(&service, 1));

    // More work there: it is hinted at, the second does not follow, and so the first is used.
    let best = first.generate_empty();
    wait_for_template(&told, best);
    wait_for("the first node in use", || is_in_use(&service, 0).then_some(()));
    let chain = service.chain();
    assert_eq!((chain.tip_hash, chain.height), (best, 6));
    client.stop();
}

/// Goal: a node that hangs, with its sockets open, is lost as quickly as one that is killed.
#[test]
fn a_hung_node_is_lost() {
    let Some((mut first, mut second)) = pair() else { return };
    let service = over(&[&first, &second]);
    let (client, told) = service.feed();
    wait_for_template(&told, tip(&mut first));
    wait_for("the first node in use", || is_in_use(&service, 0).then_some(()));
    first.signal("STOP");
    let stopped = Instant::now();
    wait_for("the second node in use", || is_in_use(&service, 1).then_some(()));
    eprintln!("hung: another node in use after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < NOTICED_WITHIN, "{:?}", stopped.elapsed());
    let next_tip = second.generate_empty();
    wait_for_template(&told, next_tip);

    // What it had to say when it hung is old news when it goes on.
    first.signal("CONT");
    wait_for("the first node up", || metric(&service, "node_up{node_index=\"0\"} 1").then_some(()));
    stays_on(&told, next_tip);
    client.stop();
}

/// Goal: with all nodes gone, the readers of the stream and the probe know within a second.
#[test]
fn the_loss_of_all_is_told() {
    let Some((mut first, mut second)) = pair() else { return };
    let service = over(&[&first, &second]);
    let (client, told) = service.feed();
    wait_for_template(&told, tip(&mut first));
    second.kill();
    wait_for("the second lost", || metric(&service, "node_up{node_index=\"1\"} 0").then_some(()));
    assert_eq!(service.request("GET", "/readyz", "").0, 200);
    // Whatever is on its way comes first.
    while told.recv_timeout(Duration::from_millis(300)).is_ok() {}
    first.kill();
    let killed = Instant::now();
    next(&told, |event| matches!(event, FeedEvent::NodeLost { .. }).then_some(()));
    eprintln!("kill -9 of the last node: the stream says so after {:?}", killed.elapsed());
    assert!(killed.elapsed() < NOTICED_WITHIN, "{:?}", killed.elapsed());
    let (status, body) = service.request("GET", "/readyz", "");
    assert!(status == 503 && body.contains("\"lacking\":[\"node\"]"), "{status} {body}");
    for node in [&first, &second] {
        assert!(body.contains(&node.access().url), "{body}");
    }
    assert!(!metric(&service, "nodes_lost_total 0"));

    second.launch();
    let up = tip(&mut second);
    wait_for_template(&told, up);
    wait_for("readiness", || (service.request("GET", "/readyz", "").0 == 200).then_some(()));
    client.stop();
}
