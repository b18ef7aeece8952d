//! Against a real node on regtest: what it offers is accepted, its tips are followed through a
//! halving, a reorganisation and a restart, and what it would refuse is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

#[path = "../../../crates/source/tests/support/mod.rs"]
mod support;
mod world;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};
use serde_json::json;
use source::demo::DemoConfig;
use source::{Source, SourceConfig, SourceEvent};
use support::{Node, PATIENCE};
use work::contract::bytes::{HexBytes, encode};
use work::contract::verifier::{FromVerifier, ProposedTransaction, TemplateVerdict, ToVerifier};
use work::payout::Network;
use work::{BlockHash, Decision, Job, Template};
use world::fixture;
use world::{Gateway, World};

/// A node, its templates, a verifier that follows the node, and a gateway.
struct Stage {
    node: Node,
    _source: Source,
    told: Receiver<SourceEvent>,
    world: World,
    gateway: Gateway,
    next_propose_id: u64,
}

impl Stage {
    async fn new(mut node: Node, blocks: u32) -> Stage {
        node.generate(blocks);
        let access = node.access();
        let (tell, told) = channel();
        let config = SourceConfig {
            nodes: vec![access.clone()],
            network: Network::Regtest,
            poll_interval_ms: 200,
            demo: DemoConfig::default(),
        };
        // The receiver may be gone when the last events come.
        let deliver = Arc::new(move |event| drop(tell.send(event)));
        let source = Source::start(config, deliver).unwrap();
        let lines = format!(
            "prevhash_hold_ms = 1_000\nchain_rpc_url = {:?}\nchain_rpc_auth = {:?}\n",
            access.url,
            access.auth.unwrap()
        );
        let world = World::on(Arc::default(), &lines).await;
        let gateway = world.gateway(1).await;
        Stage { node, _source: source, told, world, gateway, next_propose_id: 1 }
    }

    /// The next template that `wanted` holds for.
    fn template(&self, wanted: impl Fn(&Template) -> bool) -> Arc<Template> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left).expect("a template came in time") {
                SourceEvent::Template(template) if wanted(&template) => return template,
                _ => {}
            }
        }
    }

    fn template_on(&self, tip: BlockHash) -> Arc<Template> {
        self.template(|template| template.prev_hash() == tip)
    }

    fn tip(&mut self) -> BlockHash {
        self.node.call("getbestblockhash", json!([])).as_str().unwrap().parse().unwrap()
    }

    async fn answer(&mut self, template: &Arc<Template>) -> FromVerifier {
        let transactions: Vec<ProposedTransaction> = template
            .transactions
            .iter()
            .map(|transaction| ProposedTransaction {
                wtxid: transaction.wtxid,
                data: HexBytes(transaction.data.to_vec()),
                fee: transaction.fee,
                sigops: transaction.sigops,
            })
            .collect();
        let job = Job::new(Arc::clone(template), &fixture::payouts(), b"/real/", 16).unwrap();
        let propose = fixture::propose(&job, &transactions, self.next_propose_id);
        self.next_propose_id += 1;
        self.gateway.send(&ToVerifier::TxPut { txs: transactions }).await;
        self.gateway.send(&ToVerifier::TemplatePropose(Box::new(propose))).await;
        self.gateway.receive().await
    }

    async fn verdict(&mut self, template: &Arc<Template>) -> TemplateVerdict {
        match self.answer(template).await {
            FromVerifier::TemplateVerdict(verdict) => *verdict,
            other => panic!("{other:?}"),
        }
    }

    async fn accepted(&mut self, template: &Arc<Template>) {
        let verdict = self.verdict(template).await;
        let empty = ["empty_block"];
        let codes: Vec<&str> = verdict.reason_codes.iter().map(String::as_str).collect();
        assert!(codes.is_empty() || codes == empty, "{verdict:?}");
        assert_eq!(verdict.verdict, Decision::Accept, "{verdict:?}");
    }
}

/// OP_TRUE, paid to by the node's blocks in its P2WSH form.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

/// Spend `coin` of `value` satoshi for a fee of 10 000.
fn spend(coin: OutPoint, value: u64, sequence: Sequence) -> bitcoin::Transaction {
    bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: coin,
            script_sig: ScriptBuf::new(),
            sequence,
            witness: Witness::from_slice(&[anyone().as_bytes()]),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(value - 10_000),
            script_pubkey: ScriptBuf::new_p2wsh(&anyone().wscript_hash()),
        }],
    }
}

/// Send a transaction and its child to the node.
fn send_family(node: &mut Node, height: u32) {
    let hash = node.call("getblockhash", json!([height]));
    let block = node.call("getblock", json!([hash, 2]));
    let coinbase = &block["tx"][0];
    let txid = coinbase["txid"].as_str().unwrap().parse().unwrap();
    let value = (coinbase["vout"][0]["value"].as_f64().unwrap() * 1e8).round() as u64;
    let parent = spend(OutPoint::new(txid, 0), value, Sequence::MAX);
    let coin = OutPoint::new(parent.compute_txid(), 0);
    // A lock of no blocks, which a parent of the same block meets.
    let child = spend(coin, value - 10_000, Sequence(0));
    for transaction in [parent, child] {
        let hex = encode(&bitcoin::consensus::encode::serialize(&transaction));
        node.call("sendrawtransaction", json!([hex, 0]));
    }
}

/// Goal: every template of an unmodified node is accepted, across the halving at 150.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_offers_is_accepted() {
    let Some(node) = Node::start(true) else { return };
    let mut stage = Stage::new(node, 146).await;
    for round in 1..=3 {
        send_family(&mut stage.node, round);
        // On a new tip the node offers what is waiting at once, on an old one after seconds.
        let tip = stage.node.generate_empty();
        let full = |t: &Template| t.prev_hash() == tip && t.transactions.len() == 2;
        let template = stage.template(full);
        stage.accepted(&template).await;
        let verdict = stage.verdict(&template).await;
        // The parent spends an earlier block's coin, so its fee is not known here.
        assert_eq!(verdict.not_evaluated, ["S11"], "{verdict:?}");
        // A lie about the child's fee is seen: its parent is in the template.
        let mut lie = (*template).clone();
        let mut transactions: Vec<_> = lie.transactions.to_vec();
        let child = &transactions[1];
        transactions[1] = Arc::new(work::template::Transaction {
            txid: child.txid,
            wtxid: child.wtxid,
            data: child.data.clone(),
            fee: child.fee + 1,
            weight: child.weight,
            sigops: child.sigops,
        });
        lie.transactions = transactions.into();
        lie.coinbase_value += 1;
        let verdict = stage.verdict(&Arc::new(lie)).await;
        assert_eq!(verdict.reason_codes, ["fee_declared_mismatch"], "{verdict:?}");
        assert_eq!(verdict.details[0].txids, [template.transactions[1].txid]);
        stage.node.generate(1);
        let tip = stage.tip();
        let next = stage.template_on(tip);
        stage.accepted(&next).await;
    }
}

/// Goal: the verifier follows its node through a reorganisation, and never takes a block that was
/// the tip for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_is_followed() {
    let Some(node) = Node::start(true) else { return };
    let mut stage = Stage::new(node, 5).await;
    let base = stage.tip();
    let on_base = stage.template_on(base);
    stage.accepted(&on_base).await;
    let first = stage.node.generate_empty();
    let on_first = stage.template_on(first);
    stage.accepted(&on_first).await;
    let not_tip = stage.verdict(&on_base).await;
    assert_eq!(not_tip.reason_codes, ["prevhash_not_tip"], "{not_tip:?}");
    assert_eq!(not_tip.verdict, Decision::Reject);
    // The chain flips back, and what was right before is right again.
    stage.node.call("invalidateblock", json!([first.to_string()]));
    stage.accepted(&on_base).await;
    // Another branch grows past it, paid to another script so that its blocks are others.
    for _ in 0..2 {
        stage.node.call("generateblock", json!(["raw(53)", []]));
    }
    let tip = stage.tip();
    let on_rival = stage.template_on(tip);
    stage.accepted(&on_rival).await;
    assert_eq!(stage.verdict(&on_first).await.reason_codes, ["prevhash_not_tip"]);
}

/// Goal: without its node the verifier says so and rejects nothing that it cannot judge; when the
/// node is back, with another cookie, so is the verifier.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_comes_back() {
    let Some(node) = Node::start(true) else { return };
    let mut stage = Stage::new(node, 5).await;
    let tip = stage.tip();
    let template = stage.template_on(tip);
    stage.accepted(&template).await;
    stage.node.kill();
    stage.world.page_when("/readyz", |status, _| status == 503).await;
    let mut unknown = (*template).clone();
    unknown.tip.prev_hash = BlockHash([3; 32]);
    match stage.answer(&Arc::new(unknown)).await {
        FromVerifier::Error { code, .. } => assert_eq!(code, "timeout"),
        other => panic!("{other:?}"),
    }
    stage.node.launch();
    stage.world.page_when("/readyz", |status, _| status == 200).await;
    let next = stage.node.generate_empty();
    let template = stage.template_on(next);
    stage.accepted(&template).await;
}
