//! Where templates come from, end to end: the loss of a node is seen at the gateway, another node
//! takes over, and miners follow the chain to another branch and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod stack;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use source::rpc::RpcClient;
use stack::client::Client;
use stack::node::Node;
use stack::{PATIENCE, Settings, Stack, wait_until};
use work::BlockHash;
use work::contract::feed::NodeAccess;

/// A loss is seen within a second; a busy machine gets more, and the time is printed.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// Shares need 2^(32 - 24) hashes: every share is a block on regtest.
const EXPONENT: u32 = 24;

fn follow(miner: &mut Client, channel_id: u32, tip: BlockHash) {
    miner.wait_until("work on the new tip", |miner| {
        miner.channels[&channel_id].tip.is_some_and(|at| at.prev_hash == tip)
    });
}

fn is_lacking(stack: &Stack, component: &str) -> bool {
    let name = format!("\"{component}\"");
    stack.gateway.readiness().is_some_and(|(status, body)| status == 503 && body.contains(&name))
}

fn is_ready(stack: &Stack) -> bool {
    stack.gateway.readiness().is_some_and(|(status, _)| status == 200)
}

/// Wait until the gateway says that it has no templates; print and judge how long that took.
fn see_the_loss(stack: &Stack, what: &str, since: Instant) {
    wait_until("the loss of templates", PATIENCE, || is_lacking(stack, "templates"));
    let took = since.elapsed();
    eprintln!("{what}: the gateway knows after {took:?}");
    assert!(took < SEEN_WITHIN, "{what}: {took:?}");
    stack.gateway.wait_for_metric("ready{component=\"templates\"}", 0.0);
}

/// Goal: kill -9 of the only node, and a template-manager that is killed or hangs, are each seen at
/// the gateway at once, named by both probes, and over when they are back.
#[test]
fn the_loss_of_the_source_is_seen() {
    let Some(mut node) = Node::start("regtest") else { return };
    node.generate(5);
    let mut stack = Stack::start(&Settings::node(&node));
    wait_until("readiness", PATIENCE, || is_ready(&stack));

    let since = Instant::now();
    node.kill();
    see_the_loss(&stack, "kill -9 of the node", since);
    let (status, body) = stack.template_manager.readiness().unwrap();
    assert!(status == 503 && body.contains("\"lacking\":[\"node\"]"), "{status} {body}");
    stack.template_manager.wait_for_metric("ready{component=\"node\"}", 0.0);
    node.restart();
    wait_until("readiness after the node's restart", PATIENCE, || is_ready(&stack));

    let since = Instant::now();
    stack.template_manager.process().signal(Signal::STOP);
    see_the_loss(&stack, "template-manager hangs", since);
    stack.template_manager.process().signal(Signal::CONT);
    wait_until("readiness after the pause", PATIENCE, || is_ready(&stack));

    let since = Instant::now();
    stack.template_manager.kill();
    see_the_loss(&stack, "kill -9 of template-manager", since);
    stack.template_manager.start();
    wait_until("readiness after template-manager's restart", PATIENCE, || is_ready(&stack));
}

/// Goal: with two nodes the loss of the first is nothing to miners: work goes on, on the same
/// chain, and a block that is found reaches the node that is left, and later the other.
#[test]
fn the_next_node_takes_over() {
    let Some(mut first) = Node::start("regtest") else { return };
    let Some(second) = Node::start("regtest") else { return };
    first.generate(5);
    carry(&first, &second);
    // The verifier follows the second node, which stays.
    let mut stack = Stack::without_gateway(&Settings::node(&second));
    let http_addr = stack.template_manager.http_addr();
    stack.template_manager.kill();
    let nodes = [&first, &second].map(|node| json!({ "url": node.url(), "auth": node.auth() }));
    stack.template_manager.configure(&json!({
        "listen_addr": http_addr,
        "network": "regtest",
        "data_dir": stack.folder().join("template-manager"),
        "poll_interval_ms": 500,
        "node": nodes,
    }));
    stack.template_manager.start();
    let verifier = stack.verifier.address("listen_addr");
    stack.start_gateway(&verifier);
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EXPONENT);
    follow(&mut miner, channel_id, first.tip());

    first.kill();
    let in_use = "node_in_use{node_index=\"1\"}";
    wait_until("the second node", PATIENCE, || stack.template_manager.metric(in_use) == 1.0);
    assert!(stack.template_manager.metric("node_failovers_total") >= 1.0);
    let tip = second.generate_empty();
    follow(&mut miner, channel_id, tip);
    let (work, target) = (miner.work(channel_id), miner.channels[&channel_id].target);
    let network = work.network_target();
    let share = work.grind(0, |hash| network.is_met_by(hash) && target.is_met_by(hash));
    assert_eq!(miner.answer(&share), Ok(()));
    stack::wait_for("the block at the second node", PATIENCE, || second.status_of(&share.hash));
    assert_eq!(second.tip(), share.hash);
    follow(&mut miner, channel_id, share.hash);

    // Back, and behind by two blocks: the second stays in use, and the first gets the block.
    first.restart();
    carry(&first, &second);
    carry(&second, &first);
    wait_until("the same tip", PATIENCE, || first.tip() == share.hash);
    stack.template_manager.wait_for_metric(in_use, 1.0);
    assert!(is_ready(&stack));
    assert_eq!(miner.work(channel_id).tip.unwrap().prev_hash, share.hash);
}

/// Give all blocks of one node that the other lacks to the other.
fn carry(from: &Node, to: &Node) {
    for height in 1..=from.height() {
        let hash = from.call("getblockhash", json!([height]));
        if to.try_call("getblockheader", json!([hash])).is_err() {
            let block = from.call("getblock", json!([hash, 0]));
            to.call("submitblock", json!([block]));
        }
    }
}

/// Goal: miners follow the chain to a branch with more work, and back to the very tip they left,
/// each time with templates that the verifier accepts; a rival of equal height moves nobody.
#[test]
fn miners_follow_the_chain_to_another_branch_and_back() {
    let stack = Stack::start(&Settings::demo("1d00ffff"));
    let base = format!("http://{}", stack.template_manager.http_addr());
    let fork = |body: Value| -> Vec<BlockHash> {
        let (status, body) = stack::post(&format!("{base}/demo/fork"), &body).unwrap();
        assert_eq!(status, 200, "{body}");
        let made: Value = serde_json::from_str(&body).unwrap();
        serde_json::from_value(made["blocks"].clone()).unwrap()
    };
    let mut node =
        RpcClient::new(&NodeAccess { url: format!("{base}/rpc"), auth: None }, PATIENCE).unwrap();
    let tip =
        |node: &mut RpcClient| -> BlockHash { node.call("getbestblockhash", json!([])).unwrap() };
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EXPONENT);
    stack.demo_block();
    let a = tip(&mut node);
    follow(&mut miner, channel_id, a);

    for _ in 0..3 {
        let rival = fork(json!({ "depth": 1, "length": 1 }));
        assert_eq!(tip(&mut node), a);
        let b = fork(json!({ "onto": rival[0], "length": 1 }));
        follow(&mut miner, channel_id, b[0]);
        node.call::<Value>("invalidateblock", json!([rival[0]])).unwrap();
        assert_eq!(tip(&mut node), a);
        follow(&mut miner, channel_id, a);
    }
    let longer = fork(json!({ "depth": 3, "length": 6 }));
    follow(&mut miner, channel_id, longer[5]);
    assert_eq!(stack.gateway.metric("verdicts_total{verdict=\"reject\"}"), 0.0);
    assert_eq!(stack.gateway.metric("prevhash_switches_total{outcome=\"timeout\"}"), 0.0);
    assert_eq!(stack.gateway.metric("verdict_mismatches_total"), 0.0);
}
