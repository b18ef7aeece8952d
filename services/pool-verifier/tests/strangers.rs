//! What anybody may send to the gateways' port: the answer is a table, and no gateway notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::Duration;

use pool_verifier::limits::{BAD_LINES_MAX, CONNECTIONS_MAX};
use serde_json::{Value, json};
use work::contract::verifier::{
    FromVerifier, LINE_BYTES_MAX, PROPOSALS_OPEN_MAX, TX_PUT_MAX, ToVerifier,
};
use work::template::{TEMPLATE_RULE_BYTES_MAX, TEMPLATE_RULES_MAX, TEMPLATE_TRANSACTIONS_MAX};
use world::fixture::Fixture;
use world::*;

/// A good proposal with `value` in the place that `pointer` names.
fn proposal(pointer: &str, value: Value) -> Vec<u8> {
    edited(serde_json::to_value(propose(&Fixture::new(), 1)).unwrap(), pointer, value)
}

/// A good transaction ahead with `value` in the place that `pointer` names.
fn ahead(pointer: &str, value: Value) -> Vec<u8> {
    edited(serde_json::to_value(put(&Fixture::new())).unwrap(), pointer, value)
}

fn edited(mut line: Value, pointer: &str, value: Value) -> Vec<u8> {
    *line.pointer_mut(pointer).unwrap() = value;
    line.to_string().into_bytes()
}

fn text(line: &str) -> Vec<u8> {
    line.as_bytes().to_vec()
}

/// Lines that are no JSON object with a type.
fn no_messages() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", Vec::new()),
        ("no UTF-8", b"\xff\xfe".to_vec()),
        ("bytes of zero", vec![0; 100]),
        ("a frame of another protocol", b"\x00\x00\x00\x2a\x00\x00mining.subscribe".to_vec()),
        ("HTTP", text("GET / HTTP/1.1\r")),
        ("a list", text("[1,2]")),
        ("a number", text("7")),
        ("half an object", text("{\"type\":\"Ping\",\"t\":")),
        ("two objects", text("{\"type\":\"Ping\",\"t\":1}{\"type\":\"Ping\",\"t\":2}")),
        ("no type", text("{\"t\":1}")),
        ("a number as type", text("{\"type\":7}")),
        ("two types", text("{\"type\":\"Ping\",\"type\":\"Ping\",\"t\":1}")),
        ("a deep nest", format!("{{\"type\":{}", "[".repeat(100_000)).into_bytes()),
        ("a deep nest aside", format!("{{\"type\":\"Ping\",\"x\":{}", "[".repeat(100_000)).into()),
    ]
}

/// Messages whose fields hold what they must not.
fn bad_fields() -> Vec<(&'static str, Vec<u8>)> {
    let names = |count: usize| json!(vec!["00".repeat(32); count]);
    let transaction = serde_json::to_value(&Fixture::new().transactions[0]).unwrap();
    vec![
        ("a ping without t", text("{\"type\":\"Ping\"}")),
        ("a negative t", text("{\"type\":\"Ping\",\"t\":-1}")),
        ("a t of 65 bits", text("{\"type\":\"Ping\",\"t\":18446744073709551616}")),
        ("a t beyond all numbers", text("{\"type\":\"Ping\",\"t\":1e999}")),
        ("a cancel of nothing", text("{\"type\":\"Cancel\"}")),
        ("transactions that are none", ahead("/txs", json!({}))),
        ("a transaction without fields", ahead("/txs/0", json!({}))),
        ("hexadecimal of odd length", ahead("/txs/0/data", json!("abc"))),
        ("hexadecimal of other letters", ahead("/txs/0/data", json!("zz"))),
        ("a wtxid of 31 bytes", ahead("/txs/0/wtxid", json!("00".repeat(31)))),
        ("a wtxid of a megabyte", ahead("/txs/0/wtxid", json!("00".repeat(1 << 20)))),
        ("a negative fee", ahead("/txs/0/fee", json!(-1))),
        ("sigops of 33 bits", ahead("/txs/0/sigops", json!(1u64 << 32))),
        ("too many transactions", ahead("/txs", json!(vec![transaction; TX_PUT_MAX + 1]))),
        ("a proposal of nothing", text("{\"type\":\"TemplatePropose\"}")),
        ("an unknown reason", proposal("/reason", json!("weather"))),
        ("a height of 33 bits", proposal("/height", json!(1u64 << 32))),
        ("a prev_hash that is none", proposal("/prev_hash", json!("tip"))),
        ("a negative extranonce", proposal("/coinbase/extranonce_len", json!(-1))),
        ("an extranonce of 2^70 bytes", proposal("/coinbase/extranonce_len", json!(2f64.powi(70)))),
        ("no coinbase", proposal("/coinbase", Value::Null)),
        ("a node of the path that is none", proposal("/merkle_path/0", json!("00"))),
        ("too many names", proposal("/wtxids", names(TEMPLATE_TRANSACTIONS_MAX + 1))),
        ("too many rules", proposal("/rules", json!(vec!["csv"; TEMPLATE_RULES_MAX + 1]))),
        ("a long rule", proposal("/rules/0", json!("r".repeat(TEMPLATE_RULE_BYTES_MAX + 1)))),
    ]
}

/// Every bad line with the code of its answer.
fn bad_lines() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let mut table = Vec::new();
    table.extend(no_messages().into_iter().map(|(name, line)| (name, line, "bad_json")));
    table.extend(bad_fields().into_iter().map(|(name, line)| (name, line, "bad_json")));
    table.push(("an unknown type", text("{\"type\":\"Weather\"}"), "unknown_type"));
    table.push(("our own kind of line", text("{\"type\":\"Pong\",\"t\":1}"), "unknown_type"));
    table.push(("a long line", vec![b' '; LINE_BYTES_MAX + 1], "line_too_long"));
    table
}

/// Goal: each bad line is answered with its code, the connection goes on, and a gateway beside it
/// gets its verdicts.
#[tokio::test(flavor = "multi_thread")]
async fn every_bad_line_has_its_answer() {
    let world = World::new().await;
    let mut honest = world.gateway(1).await;
    let mut propose_id = 0;
    for lines in bad_lines().chunks(BAD_LINES_MAX as usize - 1) {
        let mut stranger = welcome(&world).await;
        for (name, line, code) in lines {
            stranger.send_bytes(line).await;
            stranger.send_bytes(b"\n").await;
            assert_eq!(stranger.error().await, ((*code).to_owned(), None), "{name}");
            stranger.quiet().await;
            honest.quiet().await;
        }
        propose_id += 1;
        honest.accepted(&Fixture::new(), propose_id).await;
    }
}

/// A second gateway that was let in, however long the verifier takes to see that the one before
/// is gone.
async fn welcome(world: &World) -> Gateway {
    soon(async {
        loop {
            let mut gateway = world.connect().await;
            let is_sent = gateway.try_send(&hello(2, 1)).await.is_ok();
            if is_sent && matches!(gateway.next().await, Some(FromVerifier::HelloAck { .. })) {
                return gateway;
            }
        }
    })
    .await
}

/// Goal: who does not begin with a Hello is told so and gets no further.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_before_a_hello() {
    let world = World::new().await;
    let mut honest = world.gateway(1).await;
    let mut lines = bad_lines();
    for (name, message) in [
        ("a ping", ToVerifier::Ping { t: 1 }),
        ("a cancel", ToVerifier::Cancel { propose_id: 1 }),
        ("a put", put(&Fixture::new())),
        ("a proposal", propose(&Fixture::new(), 1)),
    ] {
        lines.push((name, serde_json::to_vec(&message).unwrap(), "hello_expected"));
    }
    for (name, line, code) in lines {
        let mut stranger = world.connect().await;
        stranger.send_bytes(&line).await;
        stranger.send_bytes(b"\n").await;
        assert_eq!(stranger.error().await, (code.to_owned(), None), "{name}");
        assert_eq!(stranger.next().await, None, "{name}");
    }
    honest.accepted(&Fixture::new(), 1).await;
}

/// Goal: a conversation that breaks off at any byte leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn half_conversations_leave_nothing_behind() {
    let world = World::new().await;
    let mut honest = world.gateway(1).await;
    let fixture = Fixture::new();
    let lines = [line(&hello(2, 1)), line(&put(&fixture)), line(&propose(&fixture, 9))];
    let whole = lines.concat();
    let edges = [1, lines[0].len() - 1, lines[0].len(), whole.len() - 1, whole.len()];
    for end in (2..whole.len()).step_by(whole.len() / 40).chain(edges) {
        let mut stranger = world.connect().await;
        stranger.send_bytes(&whole[..end]).await;
        drop(stranger);
    }
    honest.accepted(&fixture, 1).await;
    let gone = "reservegrid_verifier_gateways 1\n";
    world.page_when("/metrics", |_, page| page.contains(gone)).await;
    welcome(&world).await.accepted(&fixture, 1).await;
}

/// Goal: a gateway that asks for much and reads nothing is closed, and delays nobody.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_closed() {
    let world = World::new().await;
    let mut honest = world.gateway(1).await;
    let mut hog = world.gateway(2).await;
    let mut greedy = Fixture::new();
    // Every name is unknown, so each proposal is answered with four megabytes of names.
    let name = |number: usize| {
        let mut name = [9; 32];
        name[..8].copy_from_slice(&number.to_le_bytes());
        work::Wtxid(name)
    };
    greedy.template.wtxids = (0..TEMPLATE_TRANSACTIONS_MAX).map(name).collect();
    for propose_id in 0..PROPOSALS_OPEN_MAX as u64 {
        // It may be closed before the last one is sent.
        if hog.try_send(&propose(&greedy, propose_id)).await.is_err() {
            break;
        }
        honest.accepted(&Fixture::new(), propose_id).await;
    }
    let gone = "reservegrid_verifier_gateways 1\n";
    world.page_when("/metrics", |_, page| page.contains(gone)).await;
    honest.accepted(&Fixture::new(), 100).await;
    drop(hog);
}

/// Goal: connections are bounded, silent ones do not keep their places, and who is in stays in.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let world = World::new().await;
    let mut honest = world.gateway(1).await;
    let mut silent = Vec::new();
    for _ in 1..CONNECTIONS_MAX {
        silent.push(world.connect().await);
    }
    // One more is closed at once.
    assert_eq!(world.connect().await.next().await, None);
    honest.accepted(&Fixture::new(), 1).await;
    drop(silent.pop());
    welcome(&world).await.accepted(&Fixture::new(), 1).await;
    for mut stranger in silent {
        // A gateway that says nothing would be closed, too.
        let end = soon(async {
            loop {
                match tokio::time::timeout(Duration::from_secs(1), stranger.next()).await {
                    Ok(end) => return end,
                    Err(_) => honest.quiet().await,
                }
            }
        });
        assert_eq!(end.await, None);
    }
    honest.accepted(&Fixture::new(), 2).await;
}

/// Goal: a proposal may claim any sizes and numbers; the verdict is a reject and costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn oversized_claims_are_rejected() {
    let world = World::new().await;
    let mut gateway = world.gateway(1).await;
    gateway.send(&put(&Fixture::new())).await;
    let claims = [
        ("/coinbase/extranonce_len", json!(usize::MAX), "coinbase_malformed"),
        ("/coinbase/value", json!(u64::MAX), "coinbase_value_too_high"),
        ("/height", json!(u32::MAX), "height_mismatch"),
        ("/curtime", json!(u32::MAX), "ntime_too_new"),
        ("/merkle_path", json!(vec!["00".repeat(32); 100_000]), "merkle_mismatch"),
        ("/coinbase/prefix", json!("00".repeat(4_000_000)), "coinbase_malformed"),
        ("/deadline_ms", json!(u64::MAX), ""),
        ("/totals/tx_count", json!(usize::MAX), ""),
        ("/template_id", json!(u64::MAX), ""),
    ];
    for (propose_id, (pointer, value, code)) in claims.into_iter().enumerate() {
        let fixture = Fixture::new();
        let line = serde_json::to_value(propose(&fixture, propose_id as u64)).unwrap();
        gateway.send_bytes(&edited(line, pointer, value)).await;
        gateway.send_bytes(b"\n").await;
        let verdict = gateway.verdict().await;
        if code.is_empty() {
            assert!(verdict.reason_codes.is_empty(), "{pointer}: {verdict:?}");
        } else {
            assert!(verdict.reason_codes.iter().any(|given| given == code), "{pointer}");
            assert_eq!(verdict.verdict, work::Decision::Reject, "{pointer}");
        }
    }
}
