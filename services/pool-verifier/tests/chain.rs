//! The verifier's own chain (D36) from a node that says what a test wants.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use work::payout::Network;
use world::fixture::{self, Fixture, HEIGHT, MEDIAN_TIME, NBITS, TIP_TIME, tip_hash};
use world::*;

const LEAST_DIFFICULTY_NBITS: u32 = 0x1d00_ffff;

/// What the node says.
#[derive(Clone)]
struct Facts {
    network: Network,
    tip: u8,
    height: u32,
    /// `next` of getmininginfo; a node before version 29 has none.
    next: Option<Value>,
    /// Bits of the first block of the period, and questions for it so far.
    period_bits: u32,
    period_questions: usize,
}

impl Facts {
    fn of(network: Network, next_bits: u32) -> Facts {
        Facts {
            network,
            tip: 1,
            height: HEIGHT,
            next: Some(json!({ "height": HEIGHT + 1, "bits": format!("{next_bits:08x}") })),
            period_bits: NBITS,
            period_questions: 0,
        }
    }
}

type Node = Arc<Mutex<Facts>>;

async fn answer(State(node): State<Node>, body: String) -> Response {
    let questions: Vec<Value> = serde_json::from_str(&body).unwrap();
    let mut facts = node.lock().unwrap();
    let mut answers = Vec::new();
    for question in questions {
        let result = match question["method"].as_str().unwrap() {
            "getblockchaininfo" => json!({
                "chain": facts.network, "blocks": facts.height, "time": TIP_TIME,
                "bestblockhash": tip_hash(facts.tip), "mediantime": MEDIAN_TIME,
            }),
            "getmininginfo" => match &facts.next {
                Some(next) => json!({ "blocks": facts.height, "next": next }),
                None => json!({ "blocks": facts.height }),
            },
            "getblockhash" => {
                facts.period_questions += 1;
                assert_eq!(question["params"], json!([0]));
                json!(tip_hash(50))
            }
            "getblockheader" => {
                assert_eq!(question["params"], json!([tip_hash(50)]));
                json!({ "bits": format!("{:08x}", facts.period_bits) })
            }
            other => panic!("{other}"),
        };
        answers.push(json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }));
    }
    axum::Json(answers).into_response()
}

async fn world_on(facts: Facts) -> (World, Node) {
    let network = facts.network;
    let node = Arc::new(Mutex::new(facts));
    let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&node));
    let url = serve(router).await;
    let lines = format!("chain_rpc_url = \"{url}\"\nchain_rpc_auth = \"a:b\"\n");
    (World::of(network, Arc::default(), &lines).await, node)
}

/// Goal: twenty minutes after the tip of testnet4 the node tells the least target; templates of
/// before are still judged by the period's, and those of after by the least.
#[tokio::test(flavor = "multi_thread")]
async fn both_targets_of_testnet4_are_known() {
    let facts = Facts::of(Network::Testnet4, LEAST_DIFFICULTY_NBITS);
    let (world, node) = world_on(facts).await;
    let mut gateway = world.gateway_on(Network::Testnet4, 1).await;
    let ordinary = fixture::on_testnet4();
    gateway.accepted(&ordinary, 1).await;
    let mut eased = ordinary.clone();
    eased.template.nbits = LEAST_DIFFICULTY_NBITS;
    gateway.send(&propose(&eased, 2)).await;
    assert_eq!(gateway.verdict().await.reason_codes, ["nbits_mismatch"]);
    eased.template.min_time = TIP_TIME + 1_201;
    eased.template.curtime = TIP_TIME + 1_201;
    gateway.accepted(&eased, 3).await;
    assert_eq!(node.lock().unwrap().period_questions, 1);
    // A look before the twenty minutes are over tells the period's bits itself.
    *node.lock().unwrap() = Facts { tip: 2, ..Facts::of(Network::Testnet4, NBITS) };
    let mut next = ordinary.clone();
    next.template.prev_hash = tip_hash(2);
    gateway.accepted(&next, 4).await;
    assert_eq!(node.lock().unwrap().period_questions, 0);
}

/// Goal: no verdict rests on answers that do not belong together, and the reason is told.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_chain_is_none() {
    let mut facts = Facts::of(Network::Regtest, NBITS);
    let whole = facts.next.replace(json!({ "height": HEIGHT + 2, "bits": "1e0377ae" }));
    let (world, node) = world_on(facts).await;
    let unready = async |words: &str| {
        world.page_when("/readyz", |status, body| status == 503 && body.contains(words)).await;
    };
    unready("between two answers").await;
    node.lock().unwrap().next = Some(json!({ "height": HEIGHT + 1, "bits": "difficult" }));
    unready("next.bits").await;
    node.lock().unwrap().next = None;
    unready("version 29").await;
    node.lock().unwrap().next = whole;
    world.page_when("/readyz", |status, _| status == 200).await;
    let mut gateway = world.gateway(1).await;
    gateway.accepted(&Fixture::new(), 1).await;
}
