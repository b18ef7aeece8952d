//! Branches of the simulated chain: more work wins, a rival of equal height does not, and what
//! leaves the chain goes back to the mempool.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use source::SourceEvent;
use source::assemble;
use source::demo::{
    DemoChain, DemoConfig, FORK_DEPTH_MAX, FORK_LENGTH_MAX, Fork, ForkBase, START_HEIGHT,
};
use support::{hash_of, mine};
use work::hash::{BlockHash, Wtxid};
use work::now::UnixTime;
use work::template::Template;

const START: UnixTime = UnixTime(1_790_000_000_000);

fn chain() -> DemoChain {
    let config =
        DemoConfig { mempool_transactions: 200, nbits: 0x207f_ffff, block_interval_ms: 0, seed: 5 };
    DemoChain::new(config, START).unwrap().0
}

fn templates(events: &[SourceEvent]) -> Vec<Arc<Template>> {
    let template = |event: &SourceEvent| match event {
        SourceEvent::Template(template) => Some(Arc::clone(template)),
        _ => None,
    };
    events.iter().filter_map(template).collect()
}

fn word(chain: &mut DemoChain, block: &[u8]) -> Option<String> {
    chain.submit_block(block, START).unwrap().0
}

fn fork(chain: &mut DemoChain, base: ForkBase, length: u32) -> (Fork, Vec<SourceEvent>) {
    chain.fork(base, length, START).unwrap()
}

fn wtxids(template: &Template) -> HashSet<Wtxid> {
    template.transactions.iter().map(|transaction| transaction.wtxid).collect()
}

/// A template with these transactions of `like` on any block.
fn on(parent: BlockHash, height: u32, like: &Template, count: usize) -> Arc<Template> {
    let mut frame = assemble::Frame {
        id: like.id,
        tip: like.tip,
        height,
        version: like.version,
        cur_time: like.cur_time + 1_000,
        subsidy: work::payout::Network::Regtest.subsidy(height),
        max_ntime: None,
    };
    frame.tip.prev_hash = parent;
    Arc::new(assemble::template(frame, like.transactions[..count].to_vec().into()))
}

/// What the chain says of itself and what it offers fit together, and a block of it is taken.
fn check_consistent(chain: &mut DemoChain, events: &[SourceEvent]) {
    let now = chain.chain();
    let told = templates(events);
    assert_eq!(told.len(), 2, "a coinbase-only one and a full one");
    for template in &told {
        assert_eq!(template.prev_hash(), now.tip_hash);
        assert_eq!(template.height, now.height + 1);
        assert_eq!(template.tip.min_ntime, now.next_min_time);
        assert_eq!(template.tip.nbits, now.next_nbits);
        let leaves: Vec<_> = template.transactions.iter().map(|t| t.txid.0).collect();
        assert_eq!(template.merkle_path, work::merkle::path_of_first(&leaves));
    }
    let SourceEvent::TipNotice { prev_hash, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!(*prev_hash, now.tip_hash);
    assert!(!now.recent_tips.contains(&now.tip_hash));
    let block = mine(&told[1]);
    assert_eq!(word(chain, &block), None);
    assert_eq!(chain.chain().tip_hash, hash_of(&block));
}

#[test]
fn a_longer_branch_becomes_the_chain() {
    for (depth, length) in [(1, 2), (2, 3), (3, 10), (0, 1), (16, 17)] {
        let mut chain = chain();
        let offered = wtxids(chain.template());
        assert_eq!(offered.len(), 200);
        for _ in 0..16 {
            chain.make_block(START);
        }
        assert!(wtxids(chain.template()).is_empty(), "all is confirmed");
        let before = chain.chain();
        let (made, events) = fork(&mut chain, ForkBase::Depth(depth), length);
        assert!(made.is_active);
        assert_eq!(made.blocks.len(), usize::try_from(length).unwrap());
        let now = chain.chain();
        assert_eq!(now.tip_hash, *made.blocks.last().unwrap());
        assert_eq!(now.height, before.height - depth + length);
        assert_eq!(now.recent_tips[0], before.tip_hash);
        // The first of the sixteen blocks took all transactions; they come back if it is left.
        let full = templates(&events).pop().unwrap();
        assert_eq!(wtxids(&full), if depth == 16 { offered } else { HashSet::new() });
        check_consistent(&mut chain, &events);
    }
}

#[test]
fn a_rival_of_equal_height_displaces_nothing() {
    let mut chain = chain();
    chain.make_block(START);
    chain.make_block(START);
    let before = (chain.chain(), Arc::clone(chain.template()));
    for (depth, length) in [(1, 1), (2, 2), (2, 1)] {
        let (made, events) = fork(&mut chain, ForkBase::Depth(depth), length);
        assert!(!made.is_active);
        assert!(events.is_empty());
        assert_eq!((chain.chain(), Arc::clone(chain.template())), before);
    }
    // A miner's rival is no better; one more block on it is.
    let (rival, _) = fork(&mut chain, ForkBase::Depth(2), 1);
    let second = mine(&on(rival.blocks[0], START_HEIGHT + 2, &before.1, 0));
    assert_eq!(word(&mut chain, &second).as_deref(), Some("inconclusive"));
    assert_eq!(word(&mut chain, &second).as_deref(), Some("duplicate-inconclusive"));
    assert_eq!(chain.chain(), before.0);
    let third = mine(&on(hash_of(&second), START_HEIGHT + 3, &before.1, 0));
    let (word, events) = chain.submit_block(&third, START).unwrap();
    assert_eq!(word, None);
    assert_eq!(chain.chain().tip_hash, hash_of(&third));
    check_consistent(&mut chain, &events);
}

/// Goal: the tip goes A, B, A: the very same block, and then A's branch by more work.
#[test]
fn the_chain_flips_there_and_back() {
    let mut chain = chain();
    let offered = wtxids(chain.template());
    chain.make_block(START);
    let a = chain.chain();
    let (b, _) = fork(&mut chain, ForkBase::Depth(1), 2);
    assert_eq!(chain.chain().tip_hash, b.blocks[1]);
    assert_eq!(wtxids(chain.template()), offered);

    // As a node's invalidateblock does it: back to the very same tip.
    let events = chain.invalidate(&b.blocks[0], START).unwrap();
    let again = chain.chain();
    assert_eq!((again.tip_hash, again.height), (a.tip_hash, a.height));
    assert_eq!(again.recent_tips[0], b.blocks[1]);
    assert!(wtxids(chain.template()).is_disjoint(&offered), "A has confirmed them");
    assert_eq!(templates(&events)[0].prev_hash(), a.tip_hash);
    // Nothing builds on what is invalid.
    let like = Arc::clone(chain.template());
    let child = mine(&on(b.blocks[1], START_HEIGHT + 3, &like, 0));
    assert_eq!(word(&mut chain, &child).as_deref(), Some("bad-prevblk"));
    let error = chain.fork(ForkBase::Block(b.blocks[0]), 5, START).unwrap_err();
    assert!(error.contains("declared invalid"), "{error}");

    // By work: C outgrows A, then A outgrows C, and back again.
    let (c, _) = fork(&mut chain, ForkBase::Depth(1), 2);
    assert_eq!(chain.chain().tip_hash, c.blocks[1]);
    let (on_a, _) = fork(&mut chain, ForkBase::Block(a.tip_hash), 2);
    assert!(on_a.is_active);
    let (on_c, events) = fork(&mut chain, ForkBase::Block(c.blocks[1]), 2);
    assert!(on_c.is_active);
    assert_eq!(chain.chain().height, a.height + 3);
    check_consistent(&mut chain, &events);
}

/// Goal: a branch whose transactions are wrong changes nothing, though it is longer.
#[test]
fn a_wrong_branch_is_left_alone() {
    let mut chain = chain();
    let template = Arc::clone(chain.template());
    let base = template.prev_hash();
    // The chain's own block takes everything; the branch takes ten of it, and then again.
    chain.make_block(START);
    let before = chain.chain();
    let first = mine(&on(base, START_HEIGHT + 1, &template, 10));
    assert_eq!(word(&mut chain, &first).as_deref(), Some("inconclusive"));
    let second = mine(&on(hash_of(&first), START_HEIGHT + 2, &template, 10));
    assert_eq!(word(&mut chain, &second).as_deref(), Some("bad-txns-inputs-missingorspent"));
    assert_eq!(word(&mut chain, &second).as_deref(), Some("duplicate-invalid"));
    assert_eq!(chain.chain(), before);
    assert!(mine_and_submit(&mut chain).is_none());

    // The same branch, done right.
    let third = mine(&on(hash_of(&first), START_HEIGHT + 2, &template, 0));
    assert_eq!(word(&mut chain, &third).as_deref(), Some("inconclusive"));
    let fourth = mine(&on(hash_of(&third), START_HEIGHT + 3, &template, 0));
    let (word, events) = chain.submit_block(&fourth, START).unwrap();
    assert_eq!(word, None);
    // What the first of its blocks took is not offered; the rest of the 200 is again.
    assert_eq!(templates(&events)[1].transactions.len(), 190);
    check_consistent(&mut chain, &events);
}

fn mine_and_submit(chain: &mut DemoChain) -> Option<String> {
    let block = mine(chain.template());
    word(chain, &block)
}

#[test]
fn impossible_branches_are_refused() {
    let mut chain = chain();
    for _ in 0..40 {
        chain.make_block(START);
    }
    let before = chain.chain();
    let deep = u32::try_from(FORK_DEPTH_MAX).unwrap();
    let tip = ForkBase::Depth(0);
    let unknown = ForkBase::Block(BlockHash([9; 32]));
    for (base, length, part) in [
        (ForkBase::Depth(deep + 1), 1, "at most 16"),
        (tip, 0, "1 to 32"),
        (tip, FORK_LENGTH_MAX + 1, "1 to 32"),
        (unknown, 1, "not found"),
    ] {
        let error = chain.fork(base, length, START).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    assert!(chain.invalidate(&BlockHash([9; 32]), START).unwrap_err().contains("not found"));
    assert_eq!(chain.chain(), before);

    // A branch that was left long ago is out of reach, whatever it is given.
    let (old, _) = fork(&mut chain, tip, 1);
    let (rival, _) = fork(&mut chain, ForkBase::Depth(1), 1);
    for _ in 0..deep {
        chain.make_block(START);
    }
    let error = chain.fork(ForkBase::Block(rival.blocks[0]), 32, START).unwrap_err();
    assert!(error.contains("more than 16 blocks"), "{error}");
    assert!(chain.invalidate(&old.blocks[0], START).unwrap_err().contains("deep"));
}

/// Goal: memory stays bounded, and the chain goes on, under any number of branches.
#[test]
fn many_branches_do_not_hurt() {
    let mut chain = chain();
    chain.make_block(START);
    for _ in 0..50 {
        let (made, _) = fork(&mut chain, ForkBase::Depth(1), 1);
        assert!(!made.is_active);
        fork(&mut chain, ForkBase::Depth(0), FORK_LENGTH_MAX);
    }
    assert_eq!(chain.chain().height, START_HEIGHT + 1 + 50 * FORK_LENGTH_MAX);
    assert!(mine_and_submit(&mut chain).is_none());
}
