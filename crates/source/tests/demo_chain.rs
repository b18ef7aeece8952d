//! The simulated chain judges blocks as a node does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod support;

use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use source::SourceEvent;
use source::demo::{BLOCK_WEIGHT_MAX, DemoChain, DemoConfig, START_HEIGHT};
use support::{grind, hash_of, header, job, mine};
use work::now::UnixTime;
use work::template::Template;

const EASY: u32 = 0x207f_ffff;
const START: UnixTime = UnixTime(1_790_000_000_000);

fn after(millis: u64) -> UnixTime {
    UnixTime(START.0 + millis)
}

fn chain(mempool_transactions: usize) -> DemoChain {
    let config = DemoConfig { mempool_transactions, nbits: EASY, block_interval_ms: 0, seed: 11 };
    DemoChain::new(config, START).unwrap().0
}

fn templates(events: &[SourceEvent]) -> Vec<Arc<Template>> {
    let template = |event: &SourceEvent| match event {
        SourceEvent::Template(template) => Some(Arc::clone(template)),
        _ => None,
    };
    events.iter().filter_map(template).collect()
}

/// Submit and give the node's word.
fn word(chain: &mut DemoChain, block: &[u8]) -> Option<String> {
    chain.submit_block(block, START).unwrap().0
}

/// Change a valid block on the current template, grind it again, and submit it.
fn check_fault(expected: &str, change: impl FnOnce(&mut bitcoin::Block)) {
    let mut chain = chain(30);
    let mut block: bitcoin::Block =
        bitcoin::consensus::deserialize(&mine(chain.template())).unwrap();
    change(&mut block);
    let mut bytes = bitcoin::consensus::serialize(&block);
    let mut head: [u8; 80] = bytes[..80].try_into().unwrap();
    grind(&mut head, true);
    bytes[..80].copy_from_slice(&head);
    assert_eq!(word(&mut chain, &bytes).as_deref(), Some(expected));
    // The fault is the only one: the chain still takes the good block.
    let good = mine(chain.template());
    assert_eq!(word(&mut chain, &good), None);
}

fn fix_root(block: &mut bitcoin::Block) {
    block.header.merkle_root = block.compute_merkle_root().unwrap();
}

#[test]
fn a_block_of_the_full_template_becomes_the_tip() {
    let mut chain = chain(3_000);
    let template = Arc::clone(chain.template());
    assert!(template.transactions.len() > 2_500, "{}", template.transactions.len());
    assert!(template.total_weight() <= BLOCK_WEIGHT_MAX - 8_000);
    assert_eq!(template.coinbase_value, 5_000_000_000 + template.total_fees());
    assert_eq!(template.height, START_HEIGHT + 1);

    let bytes = mine(&template);
    // The judge of last resort is not ours.
    let block: bitcoin::Block = bitcoin::consensus::deserialize(&bytes).unwrap();
    assert!(block.check_merkle_root());
    assert!(block.check_witness_commitment());
    assert_eq!(block.bip34_block_height().unwrap(), u64::from(template.height));
    assert!(block.weight().to_wu() <= BLOCK_WEIGHT_MAX);

    let (word, events) = chain.submit_block(&bytes, after(5)).unwrap();
    assert_eq!(word, None);
    assert_eq!(chain.chain().tip_hash, hash_of(&bytes));
    assert_eq!(chain.chain().height, template.height);
    assert_eq!(chain.chain().recent_tips[0], template.prev_hash());

    // First the notice, then a coinbase-only template, then a full one.
    assert!(matches!(events[0], SourceEvent::TipNotice { .. }));
    let told = templates(&events);
    assert_eq!(told.len(), 2);
    assert!(told[0].is_coinbase_only() && told[0].id < told[1].id && template.id < told[0].id);
    for template in &told {
        assert_eq!(template.prev_hash(), hash_of(&bytes));
        assert_eq!(template.height, START_HEIGHT + 2);
    }
    // What the block confirmed is not offered again.
    assert!(told[1].transactions.len() < 500);

    assert_eq!(chain.submit_block(&bytes, after(6)).unwrap().0.as_deref(), Some("duplicate"));
    let empty = mine(&told[0]);
    assert_eq!(chain.submit_block(&empty, after(7)).unwrap().0, None);
}

#[test]
fn each_fault_has_the_nodes_word() {
    check_fault("bad-txnmrklroot", |block| {
        block.txdata.pop();
    });
    check_fault("bad-cb-amount", |block| {
        block.txdata[0].output[0].value += bitcoin::Amount::from_sat(1);
        fix_root(block);
    });
    check_fault("bad-cb-height", |block| {
        let input = &mut block.txdata[0].input[0];
        input.script_sig = bitcoin::script::Builder::new().push_int(500).into_script();
        fix_root(block);
    });
    check_fault("bad-cb-length", |block| {
        block.txdata[0].input[0].script_sig = bitcoin::ScriptBuf::from_bytes(vec![1]);
        fix_root(block);
    });
    check_fault("bad-witness-merkle-match", |block| {
        // Another witness: the txid stays, the commitment does not.
        let input = &mut block.txdata[1].input[0];
        input.witness.push([1]);
    });
    check_fault("bad-txns-inputs-missingorspent", |block| {
        block.txdata[1].output[0].value += bitcoin::Amount::from_sat(1);
        commit(block);
    });
    check_fault("time-too-old", |block| block.header.time -= 3_600);
    check_fault("time-too-new", |block| block.header.time += 7_300);
    check_fault("bad-diffbits", |block| {
        block.header.bits = bitcoin::CompactTarget::from_consensus(0x207f_fffe);
    });
    check_fault("bad-version(0x00000001)", |block| {
        block.header.version = bitcoin::block::Version::from_consensus(1);
    });
    check_fault("prev-blk-not-found", |block| {
        block.header.prev_blockhash = bitcoin::BlockHash::from_byte_array([9; 32]);
    });
}

/// Make the commitment and the root right again after a change.
fn commit(block: &mut bitcoin::Block) {
    let root = block.witness_root().unwrap();
    let commitment = bitcoin::Block::compute_witness_commitment(&root, &[0; 32]);
    let script = [&source::assemble::COMMITMENT_HEADER[..], commitment.as_byte_array()].concat();
    let output = block.txdata[0].output.last_mut().unwrap();
    output.script_pubkey = bitcoin::ScriptBuf::from_bytes(script);
    fix_root(block);
}

#[test]
fn a_transaction_without_its_parent_is_refused() {
    let mut chain = chain(400);
    let template = Arc::clone(chain.template());
    let bytes = mine(&template);
    let mut block: bitcoin::Block = bitcoin::consensus::deserialize(&bytes).unwrap();
    let ids: Vec<_> = block.txdata.iter().map(bitcoin::Transaction::compute_txid).collect();
    let spends = |child: &bitcoin::Transaction| {
        ids.iter().position(|id| child.input.iter().any(|i| i.previous_output.txid == *id))
    };
    let parent = block.txdata.iter().find_map(spends).expect("some transactions are chained");
    block.txdata.remove(parent);
    commit(&mut block);
    let mut bytes = bitcoin::consensus::serialize(&block);
    let mut head: [u8; 80] = bytes[..80].try_into().unwrap();
    grind(&mut head, true);
    bytes[..80].copy_from_slice(&head);
    assert_eq!(word(&mut chain, &bytes).as_deref(), Some("bad-txns-inputs-missingorspent"));
}

#[test]
fn work_and_place() {
    let mut chain = chain(5);
    let template = Arc::clone(chain.template());
    let job = job(&template);
    let mut head = header(&job, &[1; 16], template.cur_time, 0);
    grind(&mut head, false);
    let block = work::block::assemble(&head, &job, &[1; 16]).unwrap();
    assert_eq!(word(&mut chain, &block).as_deref(), Some("high-hash"));

    // A sibling of the tip is valid, but not the best.
    chain.make_block(after(1));
    let sibling = mine(&template);
    assert_eq!(word(&mut chain, &sibling).as_deref(), Some("inconclusive"));
    assert_eq!(word(&mut chain, &sibling).as_deref(), Some("duplicate-inconclusive"));

    for junk in [&b""[..], &[0; 80], &sibling[..sibling.len() - 1], &[&sibling[..], &[0]].concat()]
    {
        assert_eq!(chain.submit_block(junk, START).unwrap_err().0, "Block decode failed");
    }
}

#[test]
fn a_block_without_the_coinbase_witness_is_completed() {
    let mut chain = chain(3);
    let mut block: bitcoin::Block =
        bitcoin::consensus::deserialize(&mine(chain.template())).unwrap();
    block.txdata[0].input[0].witness = bitcoin::Witness::new();
    assert_eq!(word(&mut chain, &bitcoin::consensus::serialize(&block)), None);
}

#[test]
fn transactions_arrive_and_blocks_come_on_the_timer() {
    let config = DemoConfig {
        block_interval_ms: 10_000,
        mempool_transactions: 500,
        ..DemoConfig::default()
    };
    let (mut chain, first) = DemoChain::new(config.clone(), START).unwrap();
    let mut told = templates(&first);
    let mut notices = 0;
    for step in 1..=600u64 {
        let events = chain.advance(after(step * 50));
        notices += events.iter().filter(|e| matches!(e, SourceEvent::TipNotice { .. })).count();
        told.extend(templates(&events));
    }
    assert_eq!(notices, 3, "30 s at a block each 10 s");
    assert_eq!(chain.chain().height, START_HEIGHT + 3);
    assert!(told.is_sorted_by(|a, b| a.id < b.id));
    // The mempool fills again between blocks.
    let fullest =
        told.iter().filter(|t| t.height == START_HEIGHT + 3).map(|t| t.transactions.len());
    assert!(fullest.max().unwrap() > 400);
    for template in &told {
        assert!(template.cur_time >= template.tip.min_ntime);
        let leaves: Vec<_> = template.transactions.iter().map(|t| t.txid.0).collect();
        assert_eq!(template.merkle_path, work::merkle::path_of_first(&leaves));
    }

    // The same seed and the same times make the same chain.
    let (mut again, _) = DemoChain::new(config, START).unwrap();
    (1..=600u64).for_each(|step| drop(again.advance(after(step * 50))));
    assert_eq!(again.chain(), chain.chain());
    assert_eq!(again.template(), chain.template());
}

#[test]
fn impossible_chains_are_refused() {
    let check = |config: DemoConfig, part: &str| {
        let error = DemoChain::new(config, START).err().unwrap();
        assert!(error.contains(part), "{error}");
    };
    check(DemoConfig { nbits: 0, ..DemoConfig::default() }, "demo.nbits");
    let many = DemoConfig { mempool_transactions: 1_000_000, ..DemoConfig::default() };
    check(many, "demo.mempool_transactions");
}
