//! SRI's `mining_device`, a miner that is not ours, finds blocks through the whole product: on the
//! simulated chain, on regtest with transactions, and on a signet whose blocks take real work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;
use stack::device::{Device, installed};
use stack::node::Node;
use stack::{Settings, Stack, wait_until};

/// Shares a minute that these channels aim at: enough for many, few enough for two cores.
const SHARES_PER_MINUTE: f64 = 600.0;

/// Codes of shares on a job of the tip before, which no miner can avoid to send.
const STALE: [&str; 2] = ["stale_prevhash", "stale_share"];

/// One device at a time: each takes a core.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings(shares_per_minute: f64, settings: Settings) -> Settings {
    let mining = json!({ "target_shares_per_minute": shares_per_minute, "min_difficulty": 0.0 });
    Settings { gateway: json!({ "mining": mining }), ..settings }
}

fn submits(stack: &Stack, result: &str) -> f64 {
    stack.gateway.metric(&format!("block_submits_total{{result=\"{result}\"}}"))
}

/// No share was refused but stale ones; judged shares by reason.
fn assert_only_stale_refused(stack: &Stack) -> BTreeMap<String, u64> {
    let reasons = stack.share_reasons();
    let refused = reasons.keys().find(|code| *code != "ok" && !STALE.contains(&code.as_str()));
    assert_eq!(refused, None, "{reasons:?}");
    reasons
}

/// No share was refused but stale ones, both sides agree on that, and the backend has all others.
fn assert_books_balance(stack: &Stack, device: &Device) {
    wait_until("the backend's book", stack::PATIENCE, || {
        stack.backend_shares() == stack.accepted()
    });
    let reasons = assert_only_stale_refused(stack);
    assert!(device.errors().iter().all(|code| code == "stale-share"), "{:?}", device.errors());
    assert_eq!(stack.backend_status()["duplicates"], json!(0));
    assert_eq!(submits(stack, "rejected"), 0.0);
    assert_eq!(stack.gateway.metric("verdict_mismatches_total"), 0.0);
    let miners = &stack.backend_status()["miners"];
    assert_eq!(miners[0]["miner_id"], json!("sri"), "{miners}");
    println!("shares by reason: {reasons:?}");
}

/// Goal: a foreign miner opens a channel, mines, and finds a block on the simulated chain.
#[test]
fn it_finds_a_block_on_the_demo_chain() {
    let (_alone, Some(program)) = (alone(), installed()) else { return };
    let stack = Stack::start(&settings(SHARES_PER_MINUTE, Settings::demo("1e0377ae")));
    let height = stack.demo_height();
    let mut device = Device::start(&program, &stack, "sri");
    device.mine(
        "a block and shares",
        || stack.demo_height(),
        || {
            let is_done = submits(&stack, "accepted") >= 1.0 && stack.accepted() >= 20;
            is_done.then_some(())
        },
    );
    assert!(device.said("Received SubmitSharesSuccess"));
    assert!(stack.demo_height() > height);
    assert_books_balance(&stack, &device);
    assert!(stack.backend_status()["blocks"].as_u64().unwrap() >= 1);
}

/// Transactions that each round puts into the mempool.
const ROUNDS: [usize; 5] = [0, 1, 2, 3, 5];

/// Goal: real blocks with no, one, two and odd numbers of segwit transactions are accepted by a
/// real node, and hold exactly the transactions of their template.
#[test]
fn its_blocks_on_regtest_hold_the_transactions() {
    let (_alone, Some(program)) = (alone(), installed()) else { return };
    let Some(node) = Node::start("regtest") else { return };
    assert!(stack::node::payout_is_anyones());
    node.generate(115);
    // Every share is a block here, one every second or half of it.
    let stack = Stack::start(&settings(60.0, Settings::node(&node)));
    let mut device = Device::start(&program, &stack, "sri");
    let mut spent = 0;
    let start = node.height();
    device.mine("the first block", || node.height(), || (node.height() > start).then_some(()));
    for count in ROUNDS {
        // The device stands still while its next work is made.
        let made: Vec<String> = (0..count)
            .map(|_| {
                spent += 1;
                node.spend(spent, 10_000)
            })
            .collect();
        // A new tip makes the node look at its mempool again.
        node.generate_empty();
        let height = node.height();
        wait_until("the template", stack::PATIENCE, || {
            let metrics = stack.gateway.metrics();
            metrics["reservegrid_template_height"] == (height + 1) as f64
                && metrics["reservegrid_template_transactions{slot=\"current\"}"] == count as f64
        });
        let block = device.mine(
            "a block with them",
            || node.height(),
            || {
                let above = height + 1..=node.height();
                above.map(|height| node.block_at(height)).find(|block| {
                    let ids = block["tx"].as_array().unwrap();
                    made.first().is_none_or(|first| ids.contains(&json!(first)))
                })
            },
        );
        let ids: Vec<&str> =
            block["tx"].as_array().unwrap()[1..].iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(ids.len(), count, "{block}");
        assert!(made.iter().all(|id| ids.contains(&id.as_str())), "{ids:?}");
    }
    let found = node.height() - start - ROUNDS.len() as u64;
    wait_until("the node's answers", stack::PATIENCE, || {
        submits(&stack, "accepted") >= found as f64
    });
    assert!(found > ROUNDS.len() as u64, "one in each round and the first");
    assert_books_balance(&stack, &device);
    println!("{found} blocks accepted by the node");
}

/// Goal: two hundred shares over three tips and more on a chain where a share is not a block, and
/// not one is refused but stale ones (D52).
#[test]
fn two_hundred_shares_on_signet() {
    let (_alone, Some(program)) = (alone(), installed()) else { return };
    let Some(node) = Node::start("signet") else { return };
    // Right after the first block the median of times is that block's own, and the device's
    // next header may not be above it (see `PAUSE_AFTER_BLOCK`).
    node.generate(2);
    let stack = Stack::start(&settings(SHARES_PER_MINUTE, Settings::node(&node)));
    let start = node.height();
    let mut device = Device::start(&program, &stack, "sri");
    device.mine(
        "shares and tips",
        || node.height(),
        || {
            // At once, so that the reason is told and not a test that takes too long.
            assert_only_stale_refused(&stack);
            (stack.accepted() >= 200 && node.height() >= start + 3).then_some(())
        },
    );
    let tips = node.height() - start;
    wait_until("the node's answers", stack::PATIENCE, || {
        submits(&stack, "accepted") >= tips as f64
    });
    assert_books_balance(&stack, &device);
    // The mempool is empty, so the full template of a tip is the coinbase-only one: giving it out
    // again would make the miner find the same shares twice.
    let published = || stack.gateway.metric("jobs_published_total");
    wait_until("a job for every tip", stack::PATIENCE, || {
        published() == stack.gateway.metric("tips_total")
    });
    println!("{} shares over {tips} tips", stack.accepted());
}
