//! A block reaches the node, whatever else is wrong with its share or with the services around the
//! gateway (D14, D17, D18); and a restart repeats nothing.
//!
//! On regtest every second header is a block, so that each of these blocks is found at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use stack::client::{Client, Share, Work};
use stack::node::Node;
use stack::{PATIENCE, Settings, Stack, wait_until};
use work::{BlockHash, Target};

/// Shares need this many hashes, 2^(32 - 24): every share is a block, few blocks are shares.
const EXPONENT: u32 = 24;

/// Blocks before a test begins; coinbases of the first can be spent.
const BLOCKS: u32 = 20;

fn start() -> Option<(Node, Stack)> {
    let node = Node::start("regtest")?;
    node.generate(BLOCKS);
    let stack = Stack::start(&Settings::node(&node));
    Some((node, stack))
}

/// A header that is a block and meets the channel's target.
fn good_block(work: &Work, target: Target) -> Share {
    let network = work.network_target();
    work.grind(0, |hash| network.is_met_by(hash) && target.is_met_by(hash))
}

/// Wait until the node says that it has `hash`; its word for it.
fn arrival(node: &Node, hash: &BlockHash) -> String {
    stack::wait_for(&format!("block {hash} at the node"), PATIENCE, || node.status_of(hash))
}

fn submits(stack: &Stack, result: &str) -> f64 {
    stack.gateway.metric(&format!("block_submits_total{{result=\"{result}\"}}"))
}

/// Listen until the channel works on `tip`.
fn follow(miner: &mut Client, channel_id: u32, tip: BlockHash) {
    miner.wait_until("work on the new tip", |miner| {
        miner.channels[&channel_id].tip.is_some_and(|at| at.prev_hash == tip)
    });
}

/// Goal: a share on the tip before is answered stale-share, and as a block it goes to the node,
/// where it is a sibling. The same again is not submitted again.
#[test]
fn a_stale_share_that_is_a_block() {
    let Some((node, stack)) = start() else { return };
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EXPONENT);
    let old = miner.work(channel_id);
    let tip = node.generate_empty();
    follow(&mut miner, channel_id, tip);

    let share = old.grind_block(0);
    assert_eq!(miner.answer(&share), Err("stale-share".into()));
    assert_eq!(arrival(&node, &share.hash), "valid-headers");
    assert_eq!(node.tip(), tip, "the first seen stays");
    wait_until("the node's answer", PATIENCE, || submits(&stack, "accepted") == 1.0);
    assert!(stack.gateway.log().contains(&format!("hash={}", share.hash)));

    assert_eq!(miner.answer(&share), Err("stale-share".into()));
    // Another one is submitted behind it, so the repetition had its chance by then.
    let other = old.grind_block(share.claim.nonce + 1);
    assert_eq!(miner.answer(&other), Err("stale-share".into()));
    arrival(&node, &other.hash);
    wait_until("the second answer", PATIENCE, || submits(&stack, "accepted") == 2.0);
    stack.gateway.wait_for_metric("blocks_found_total", 2.0);
    stack.gateway.wait_for_metric("solutions_total", 3.0);
    assert_eq!(submits(&stack, "rejected"), 0.0);
    assert_eq!(stack.accepted(), 0);
}

/// Goal: a header above its channel's target is no share, and as a block it becomes the tip.
#[test]
fn a_block_above_its_channel_target() {
    let Some((node, stack)) = start() else { return };
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EXPONENT);
    let (work, target) = (miner.work(channel_id), miner.channels[&channel_id].target);
    let network = work.network_target();
    assert!(target < network);
    let height = node.height();
    let share = work.grind(0, |hash| network.is_met_by(hash) && !target.is_met_by(hash));
    assert_eq!(miner.answer(&share), Err("difficulty-too-low".into()));
    assert_eq!(arrival(&node, &share.hash), "active");
    assert_eq!((node.height(), node.tip()), (height + 1, share.hash));

    // The same header with a time, and then with a version, that no share may have.
    follow(&mut miner, channel_id, share.hash);
    let work = miner.work(channel_id);
    let early = Work { min_ntime: work.min_ntime - 1, ..work.clone() };
    let is_valid = work.tip.unwrap().min_ntime < work.min_ntime;
    let share = early.grind(0, |hash| network.is_met_by(hash) && target.is_met_by(hash));
    assert_eq!(miner.answer(&share), Err("invalid-share".into()));
    if is_valid {
        assert_eq!(arrival(&node, &share.hash), "active");
        follow(&mut miner, channel_id, share.hash);
    }
    let height = node.height();
    let work = miner.work(channel_id);
    let strange = Work { version: work.version ^ 1, ..work };
    let share = strange.grind(0, |hash| network.is_met_by(hash) && target.is_met_by(hash));
    assert_eq!(miner.answer(&share), Err("invalid-non-rollable-version-bit".into()));
    assert_eq!(arrival(&node, &share.hash), "active");
    assert_eq!(node.height(), height + 1);
    assert_eq!(stack.accepted(), 0);
}

/// Goal: while the verifier is gone miners stay on their job, and a block on it is one, before the
/// tip changes and after.
#[test]
fn a_block_on_a_held_job() {
    let Some((node, mut stack)) = start() else { return };
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EXPONENT);
    let (work, target) = (miner.work(channel_id), miner.channels[&channel_id].target);
    stack.verifier.kill();
    wait_until("the loss of the verifier", PATIENCE, || {
        stack.gateway.metric("verifier_connected") == 0.0
    });

    let tip = node.generate_empty();
    wait_until("the hold", PATIENCE, || stack.gateway.metric("prevhash_hold_active") == 1.0);
    let share = good_block(&work, target);
    assert_eq!(miner.answer(&share), Ok(()), "a share on the job that miners are held on");
    assert_eq!(arrival(&node, &share.hash), "valid-headers");
    assert_eq!(node.tip(), tip);
    assert_eq!(miner.work(channel_id).job_id, work.job_id, "nothing unverified was given out");
    wait_until("the node's answer", PATIENCE, || submits(&stack, "accepted") == 1.0);

    stack.verifier.start();
    follow(&mut miner, channel_id, tip);
    stack.gateway.wait_for_metric("prevhash_hold_active", 0.0);
    let share = good_block(&miner.work(channel_id), target);
    assert_eq!(miner.answer(&share), Ok(()));
    assert_eq!(arrival(&node, &share.hash), "active");
}

/// Goal: a block arrives though template-manager, verifier and backend are all gone.
#[test]
fn a_block_while_everything_else_is_down() {
    let Some((node, mut stack)) = start() else { return };
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EXPONENT);
    let (work, target) = (miner.work(channel_id), miner.channels[&channel_id].target);
    let height = node.height();
    stack.template_manager.kill();
    wait_until("the loss of template-manager", PATIENCE, || {
        stack.gateway.metric("ready{component=\"templates\"}") == 0.0
    });
    let first = good_block(&work, target);
    assert_eq!(miner.answer(&first), Ok(()));
    assert_eq!(arrival(&node, &first.hash), "active");

    stack.verifier.kill();
    stack.backend.kill();
    let second = work.grind(first.claim.nonce + 1, |hash| {
        work.network_target().is_met_by(hash) && target.is_met_by(hash)
    });
    miner.submit(&second);
    assert_eq!(arrival(&node, &second.hash), "valid-headers");
    assert_eq!((node.height(), node.tip()), (height + 1, first.hash));

    stack.template_manager.start();
    stack.verifier.start();
    stack.backend.start();
    follow(&mut miner, channel_id, first.hash);
    let third = good_block(&miner.work(channel_id), target);
    miner.submit(&third);
    assert_eq!(arrival(&node, &third.hash), "active");
    miner.wait_until("all acknowledgements", |miner| miner.accepted == 3);
    wait_until("the backend's book", PATIENCE, || stack.backend_shares() == 3);
    assert_eq!(stack.backend_status()["blocks"], json!(3));
}

/// Goal: a block that no node could take survives kill -9 and is submitted after the restart.
#[test]
fn a_block_while_the_node_and_then_the_gateway_are_down() {
    let Some((mut node, mut stack)) = start() else { return };
    let mut miner = stack.client();
    let channel_id = miner.open("miner", EXPONENT);
    let (work, target) = (miner.work(channel_id), miner.channels[&channel_id].target);
    let height = node.height();
    node.stop();
    let share = good_block(&work, target);
    miner.submit(&share);
    wait_until("attempts", PATIENCE, || submits(&stack, "unreachable") >= 2.0);
    let stored = stack.folder().join(format!("sv2-gateway/blocks/{}.block", share.hash));
    wait_until("the copy on disk", PATIENCE, || stored.is_file());
    stack.gateway.kill();

    node.restart();
    assert_eq!((node.height(), node.status_of(&share.hash)), (height, None));
    stack.gateway.start();
    assert_eq!(arrival(&node, &share.hash), "active");
    assert_eq!(node.height(), height + 1);
    wait_until("the copy's removal", PATIENCE, || !stored.exists());
}

/// 2^(32 - 15) hashes a share: one that was mined for another extranonce has no chance.
const REPLAY_EXPONENT: u32 = 15;

/// Channels on each of several connections, which stay open.
fn crowd(stack: &Stack) -> Vec<Client> {
    let connect = |connection: usize| {
        let mut miner = stack.client();
        for channel in 0..8 {
            miner.open(&format!("miner.{connection}.{channel}"), REPLAY_EXPONENT);
        }
        miner
    };
    (0..4).map(connect).collect()
}

/// Submit `old` shares as they are, and under the channel and job of now; none may be accepted.
fn replay(miner: &mut Client, channel_id: u32, old: &[Share]) {
    let job_id = miner.work(channel_id).job_id;
    let refused = miner.rejected.len();
    for share in old {
        miner.submit(share);
        miner.submit(&Share { channel_id, job_id, ..share.clone() });
    }
    miner.wait_until("answers", |miner| miner.rejected.len() == refused + 2 * old.len());
    let codes: BTreeSet<&str> = miner.rejected[refused..].iter().map(String::as_str).collect();
    let known = ["difficulty-too-low", "invalid-job-id", "invalid-share", "stale-share"];
    assert!(codes.iter().all(|code| known.contains(code)), "{codes:?}");
    assert_eq!(miner.accepted, 0);
}

/// Goal: no start of the gateway gives out an extranonce that another one has given out, and no
/// share of an earlier start, or of a channel that has ended, is ever accepted again.
#[test]
fn restarts_repeat_nothing() {
    const SHARES: usize = 8;
    let mut stack = Stack::start(&Settings::demo("1d00ffff"));
    let mut seen = BTreeSet::new();
    let mut old: Vec<Share> = Vec::new();
    for start in 0..5u64 {
        let mut given: Vec<Vec<u8>> = Vec::new();
        let crowd = crowd(&stack);
        let channels = crowd.iter().flat_map(|miner| miner.channels.values());
        given.extend(channels.map(|channel| channel.extranonce.clone()));
        let mut miner = stack.client();
        let channel_id = miner.open("miner", REPLAY_EXPONENT);
        replay(&mut miner, channel_id, &old);
        assert_eq!(stack.accepted(), 0, "start {start}");

        let (work, target) = (miner.work(channel_id), miner.channels[&channel_id].target);
        given.push(work.extranonce.clone());
        let mut nonce = 0;
        for _ in 0..SHARES {
            let share = work.grind(nonce, |hash| target.is_met_by(hash));
            nonce = share.claim.nonce + 1;
            assert_eq!(miner.answer(&share), Ok(()));
            assert_eq!(miner.answer(&share), Err("duplicate-share".into()));
            old.push(share);
        }
        drop(miner);
        let mut again = stack.client();
        let channel_id = again.open("miner", REPLAY_EXPONENT);
        given.push(again.channels[&channel_id].extranonce.clone());
        replay(&mut again, channel_id, &old);
        assert_eq!(stack.accepted(), SHARES as u64);
        for extranonce in given {
            assert!(seen.insert(extranonce.clone()), "start {start} repeats {extranonce:02x?}");
        }

        let booked = SHARES as u64 * (start + 1);
        wait_until("delivery", PATIENCE, || stack.backend_shares() == booked);
        if start % 2 == 0 {
            stack.gateway.kill();
        } else {
            let status = stack.gateway.stop(Duration::from_secs(5));
            assert_eq!(status.code(), Some(0));
        }
        drop(crowd);
        stack.gateway.start();
    }
    assert_eq!(stack.backend_status()["duplicates"], json!(0));
    assert_eq!(seen.len(), 5 * 34);
}
