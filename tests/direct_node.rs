//! A gateway on a Bitcoin node straight, without template-manager (D7): templates, verdicts of a
//! verifier with the same node, blocks, the node's loss and its return.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod stack;

use std::time::{Duration, Instant};

use serde_json::json;
use stack::client::Client;
use stack::node::Node;
use stack::{PATIENCE, Settings, Stack, wait_until};
use work::BlockHash;

/// Shares need 2^(32 - 24) hashes: every share is a block on regtest.
const EXPONENT: u32 = 24;

fn follow(miner: &mut Client, channel_id: u32, tip: BlockHash) {
    miner.wait_until("work on the new tip", |miner| {
        miner.channels[&channel_id].tip.is_some_and(|at| at.prev_hash == tip)
    });
}

fn mine(miner: &mut Client, channel_id: u32) -> BlockHash {
    let (work, target) = (miner.work(channel_id), miner.channels[&channel_id].target);
    let network = work.network_target();
    let share = work.grind(0, |hash| network.is_met_by(hash) && target.is_met_by(hash));
    assert_eq!(miner.answer(&share), Ok(()));
    share.hash
}

#[test]
fn a_gateway_needs_no_template_manager() {
    let Some(mut node) = Node::start("regtest") else { return };
    node.generate(110);
    node.spend(1, 10_000);
    let gateway = json!({ "gateway": {
        "upstream_url": node.url(), "upstream_auth": node.auth(),
    } });
    let settings = Settings { gateway, ..Settings::node(&node) };
    let mut stack = Stack::without_gateway(&settings);
    stack.template_manager.kill();
    let verifier = stack.verifier.address("listen_addr");
    stack.start_gateway(&verifier);

    let mut miner = stack.client();
    let channel_id = miner.open("miner", EXPONENT);
    for _ in 0..3 {
        let tip = node.generate_empty();
        follow(&mut miner, channel_id, tip);
        // The full template follows the coinbase-only one.
        wait_until("the transaction", PATIENCE, || {
            stack.gateway.metric("template_transactions{slot=\"current\"}") == 1.0
        });
    }
    miner.catch_up();
    let found = mine(&mut miner, channel_id);
    stack::wait_for("the block at the node", PATIENCE, || node.status_of(&found));
    assert_eq!(node.tip(), found);
    follow(&mut miner, channel_id, found);
    wait_until("the node's answer", PATIENCE, || {
        stack.gateway.metric("block_submits_total{result=\"accepted\"}") == 1.0
    });

    node.kill();
    let killed = Instant::now();
    let ready = "ready{component=\"templates\"}";
    wait_until("the node's loss", PATIENCE, || stack.gateway.metric(ready) == 0.0);
    eprintln!("kill -9 of the node: the gateway knows after {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    assert!(stack.gateway.readiness().unwrap().1.contains("\"templates\""));

    node.restart();
    wait_until("the node's return", PATIENCE, || stack.gateway.metric(ready) == 1.0);
    let tip = node.generate_empty();
    follow(&mut miner, channel_id, tip);
    let found = mine(&mut miner, channel_id);
    stack::wait_for("the second block at the node", PATIENCE, || node.status_of(&found));
    assert_eq!(stack.gateway.metric("verdicts_total{verdict=\"reject\"}"), 0.0);
}
