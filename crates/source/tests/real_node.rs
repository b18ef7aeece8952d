//! Against a real node on regtest: templates become blocks, tips are heard, losses are told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

mod support;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use source::demo::DemoConfig;
use source::submit::{SubmitAnswer, submit_block};
use source::{Source, SourceConfig, SourceEvent, TipChannel};
use support::{Node, PATIENCE, hash_of, mine};
use work::contract::bytes;
use work::contract::feed::NodeAccess;
use work::hash::BlockHash;
use work::payout::Network;
use work::template::Template;

fn config(node: &Node) -> SourceConfig {
    SourceConfig {
        nodes: vec![node.access()],
        network: Network::Regtest,
        poll_interval_ms: 500,
        demo: DemoConfig::default(),
    }
}

fn start(node: &Node) -> (Source, Receiver<SourceEvent>) {
    let (tell, told) = channel();
    // The receiver may be gone when the last events come.
    let deliver = Arc::new(move |event| drop(tell.send(event)));
    (Source::start(config(node), deliver).unwrap(), told)
}

/// The first event that `pick` takes.
fn next<T>(told: &Receiver<SourceEvent>, mut pick: impl FnMut(SourceEvent) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = told.recv_timeout(left).expect("the event came in time");
        if let Some(picked) = pick(event) {
            return picked;
        }
    }
}

fn template_on(told: &Receiver<SourceEvent>, tip: BlockHash) -> Arc<Template> {
    next(told, |event| match event {
        SourceEvent::Template(template) if template.prev_hash() == tip => Some(template),
        _ => None,
    })
}

fn template_on_new_block(node: &mut Node, told: &Receiver<SourceEvent>) -> Arc<Template> {
    let made = node.generate_empty();
    assert_eq!(notice(told).0, made);
    template_on(told, made)
}

fn notice(told: &Receiver<SourceEvent>) -> (BlockHash, TipChannel) {
    next(told, |event| match event {
        SourceEvent::TipNotice { prev_hash, channel } => Some((prev_hash, channel)),
        _ => None,
    })
}

fn submit(node: &Node, block: &[u8]) -> SubmitAnswer {
    submit_block(&node.access(), &bytes::encode(block))
}

/// Goal: what the source offers is what the node takes, across a retarget (144) and a halving
/// (150), with no, one, two and odd numbers of transactions.
#[test]
fn templates_become_blocks() {
    let Some(mut node) = Node::start(true) else { return };
    node.generate(140);
    let (source, told) = start(&node);
    let mut spent = 0;
    for count in [0, 1, 2, 3, 5, 0, 7, 1, 4, 9] {
        for _ in 0..count {
            spent += 1;
            node.spend(spent, 1, 10_000);
        }
        // A new tip makes the node look at its mempool again.
        let tip = node.generate_empty();
        let coinbase_only = template_on(&told, tip);
        let full = template_on(&told, tip);
        let height = node.height();
        assert!(coinbase_only.is_coinbase_only());
        assert_eq!(coinbase_only.tip, full.tip, "height {}", height + 1);
        // Regtest's version bits begin to signal with a period of 144 blocks.
        if !full.height.is_multiple_of(144) {
            assert_eq!(coinbase_only.version, full.version);
        }
        assert_eq!((coinbase_only.height, full.height), (height + 1, height + 1));
        assert_eq!(coinbase_only.coinbase_value + full.total_fees(), full.coinbase_value);
        assert_eq!(full.transactions.len(), count);
        assert_eq!(full.total_fees(), 10_000 * count as u64);

        let block = mine(&full);
        assert_eq!(submit(&node, &block), SubmitAnswer::Accepted, "{count} transactions");
        assert_eq!(node.height(), height + 1);
        let hash = hash_of(&block);
        let taken = node.call("getblock", serde_json::json!([hash, 1]));
        assert_eq!(taken["nTx"], count + 1);
        assert_eq!(submit(&node, &block), SubmitAnswer::Duplicate);
        // The other template of the same tip is now a sibling.
        let sibling = mine(&coinbase_only);
        let answer = submit(&node, &sibling);
        let same = sibling == block;
        assert!(same || answer == SubmitAnswer::Inconclusive, "{answer}");
    }
    assert!(node.height() > 150);

    // A coinbase-only template is a block of its own.
    let tip = node.generate_empty();
    let coinbase_only = template_on(&told, tip);
    assert_eq!(submit(&node, &mine(&coinbase_only)), SubmitAnswer::Accepted);
    let early = Template { height: 5, ..(*coinbase_only).clone() };
    assert!(matches!(submit(&node, &mine(&Arc::new(early))), SubmitAnswer::Rejected(_)));
    assert!(matches!(submit(&node, &[0; 90]), SubmitAnswer::Rejected(_)));
    source.stop();
}

#[test]
fn tips_are_heard_by_zmq() {
    let Some(mut node) = Node::start(true) else { return };
    node.generate(3);
    let (source, told) = start(&node);
    template_on(&told, notice(&told).0);
    let mut by_zmq = 0;
    for _ in 0..5 {
        let made = node.generate_empty();
        let (hash, channel) = notice(&told);
        assert_eq!(hash, made);
        by_zmq += usize::from(channel == TipChannel::Zmq);
        assert!(template_on(&told, made).is_coinbase_only());
        template_on(&told, made);
    }
    // The pulse asks four times a second and may be first by chance.
    assert!(by_zmq >= 4, "{by_zmq} of 5");
    source.stop();
}

#[test]
fn tips_are_heard_by_longpoll_where_there_is_no_zmq() {
    let Some(mut node) = Node::start(false) else { return };
    node.generate(3);
    let (source, told) = start(&node);
    template_on(&told, notice(&told).0);
    let mut by_longpoll = 0;
    for _ in 0..5 {
        let made = node.generate_empty();
        let (hash, channel) = notice(&told);
        assert_eq!(hash, made);
        by_longpoll += usize::from(channel == TipChannel::Longpoll);
        template_on(&told, made);
    }
    assert!(by_longpoll >= 2, "{by_longpoll} of 5");
    let asked = Instant::now();
    source.stop();
    assert!(asked.elapsed() < Duration::from_secs(10), "a longpoll is broken off");
}

/// Goal: a node that dies is told within a second, and one that comes back, with another
/// cookie, gives templates and tips again without help.
#[test]
fn a_restart_of_the_node() {
    let Some(mut node) = Node::start(true) else { return };
    node.generate(3);
    let (source, told) = start(&node);
    template_on(&told, notice(&told).0);

    node.kill();
    let dead = Instant::now();
    let why = next(&told, |event| match event {
        SourceEvent::NodeLost { why, .. } => Some(why),
        _ => None,
    });
    assert!(dead.elapsed() < Duration::from_secs(10), "{:?}", dead.elapsed());
    assert!(why.contains("does not answer"), "{why}");

    node.launch();
    // A killed node may have forgotten blocks that it had not written: then its tip went back.
    let tip = node.call("getbestblockhash", serde_json::json!([]));
    let tip: BlockHash = tip.as_str().unwrap().parse().unwrap();
    next(&told, |event| matches!(event, SourceEvent::NodeBack).then_some(()));
    template_on(&told, tip);
    let block = mine(&template_on_new_block(&mut node, &told));
    assert_eq!(submit(&node, &block), SubmitAnswer::Accepted);
    assert_eq!(notice(&told).0, hash_of(&block));
    // Until ZMQ is listened to again, tips are heard by other ways.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let made = node.generate_empty();
        let (hash, channel) = notice(&told);
        assert_eq!(hash, made);
        if channel == TipChannel::Zmq {
            break;
        }
        assert!(Instant::now() < deadline, "ZMQ is not listened to again");
        template_on(&told, made);
        std::thread::park_timeout(Duration::from_millis(200));
    }
    source.stop();
}

/// Goal: a template that is as full as the node makes it leaves room for header and coinbase.
#[test]
fn a_full_block_is_not_too_heavy() {
    let Some(mut node) = Node::start(true) else { return };
    node.generate(115);
    let (source, told) = start(&node);
    // 2200 outputs weigh about 379 000 units; eleven of these are more than a block.
    for height in 1..=11 {
        node.spend(height, 2_200, 1_000_000);
    }
    for height in 12..=14 {
        node.spend(height, 1, 200);
    }
    let tip = node.generate_empty();
    assert!(template_on(&told, tip).is_coinbase_only());
    let full = template_on(&told, tip);
    let weight = full.total_weight();
    assert!((3_700_000..=3_992_000).contains(&weight), "{weight}");
    let block = mine(&full);
    let read: bitcoin::Block = bitcoin::consensus::deserialize(&block).unwrap();
    assert!(read.weight().to_wu() <= 4_000_000);
    assert_eq!(submit(&node, &block), SubmitAnswer::Accepted);
    source.stop();
}

#[test]
fn another_chain_is_refused() {
    let Some(node) = Node::start(false) else { return };
    let config = SourceConfig { network: Network::Main, ..config(&node) };
    let error = Source::start(config, Arc::new(|_| {})).err().unwrap();
    assert!(error.0.contains("\"regtest\"") && error.0.contains("\"main\""), "{error}");
}

#[test]
fn wrong_credentials_are_told() {
    let Some(node) = Node::start(false) else { return };
    let access = NodeAccess { auth: Some("someone:else".into()), ..node.access() };
    let config = SourceConfig { nodes: vec![access], ..config(&node) };
    let (tell, told) = channel();
    let source = Source::start(config, Arc::new(move |event| drop(tell.send(event)))).unwrap();
    let why = next(&told, |event| match event {
        SourceEvent::NodeLost { why, .. } => Some(why),
        _ => None,
    });
    assert!(why.contains("user and password"), "{why}");
    source.stop();
}

/// Goal: on a signet without signatures a share is not a block, but a block still is one (D52).
#[test]
fn a_signet_of_ones_own() {
    let Some(mut node) = Node::start_on("signet", false) else { return };
    let config = SourceConfig { network: Network::Signet, ..config(&node) };
    let (tell, told) = channel();
    let source = Source::start(config, Arc::new(move |event| drop(tell.send(event)))).unwrap();
    let template = template_on(&told, notice(&told).0);
    assert_eq!((template.height, template.tip.nbits), (1, 0x1e03_77ae));
    // About five million hashes.
    let block = mine(&template);
    assert_eq!(submit(&node, &block), SubmitAnswer::Accepted);
    assert_eq!(node.height(), 1);
    assert_eq!(template_on(&told, hash_of(&block)).height, 2);
    source.stop();
}
