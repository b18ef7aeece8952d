//! The wire protocol over real TCP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::collections::BTreeSet;

use work::Decision;
use work::contract::bytes::HexBytes;
use work::contract::verifier::{
    FromVerifier, LINE_BYTES_MAX, PROPOSALS_OPEN_MAX, PROTO, TX_PUT_MAX, ToVerifier,
};
use work::payout::Network;
use world::fixture::{self, Fixture};
use world::*;

/// Goal: framing does not depend on how bytes arrive.
/// Method: a whole conversation byte by byte, and then in one write.
#[tokio::test(flavor = "multi_thread")]
async fn lines_may_be_cut_anywhere() {
    let world = World::new().await;
    let fixture = Fixture::new();
    let bytes = [
        line(&hello(1, 1)),
        line(&ToVerifier::Ping { t: 5 }),
        line(&put(&fixture)),
        line(&propose(&fixture, 9)),
    ]
    .concat();
    let mut slow = world.connect().await;
    for byte in &bytes {
        slow.send_bytes(&[*byte]).await;
    }
    let mut answers = vec![slow.receive().await, slow.receive().await, slow.receive().await];
    drop(slow);
    let mut quick = reconnected(&world, &bytes).await;
    answers.extend([quick.receive().await, quick.receive().await]);
    assert!(matches!(answers[0], FromVerifier::HelloAck { proto: PROTO, .. }));
    for pair in [&answers[1..3], &answers[3..5]] {
        assert_eq!(pair[0], FromVerifier::Pong { t: 5 });
        let FromVerifier::TemplateVerdict(verdict) = &pair[1] else { panic!("{pair:?}") };
        assert_eq!((verdict.propose_id, verdict.verdict), (9, Decision::Accept));
    }
}

/// A connection that sent `bytes` (a Hello first) and was let in, however long the verifier
/// takes to see that an earlier one is gone.
async fn reconnected(world: &World, bytes: &[u8]) -> Gateway {
    soon(async {
        loop {
            let mut gateway = world.connect().await;
            gateway.send_bytes(bytes).await;
            if let Some(FromVerifier::HelloAck { .. }) = gateway.next().await {
                return gateway;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_ignored_and_unknown_types_answered() {
    let world = World::new().await;
    let mut gateway = world.gateway(1).await;
    gateway.send_bytes(b"{\"new\":[1],\"type\":\"Ping\",\"t\":3}\r\n").await;
    assert_eq!(gateway.receive().await, FromVerifier::Pong { t: 3 });
    for _ in 0..20 {
        gateway.send_bytes(b"{\"type\":\"Weather\",\"is\":\"fine\"}\n").await;
        assert_eq!(gateway.error().await, ("unknown_type".to_owned(), None));
    }
    gateway.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_and_then_closed() {
    let world = World::new().await;
    let mut gateway = world.gateway(1).await;
    let lines: [&[u8]; 5] =
        [b"\xff\xfe\n", b"\n", b"[1,2]\n", b"{\"type\":7}\n", b"{\"type\":\"Ping\",\"t\":-1}\n"];
    for line in lines {
        gateway.send_bytes(line).await;
        assert_eq!(gateway.error().await, ("bad_json".to_owned(), None));
    }
    assert_eq!(gateway.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_lines_are_cut_off_while_reading() {
    let world = World::new().await;
    let mut gateway = world.gateway(1).await;
    // The answer comes before the line ends.
    gateway.send_bytes(&vec![b' '; LINE_BYTES_MAX + 1]).await;
    assert_eq!(gateway.error().await, ("line_too_long".to_owned(), None));
    gateway.send_bytes(b"still the same line\n").await;
    gateway.quiet().await;
    // One of exactly the longest size is read.
    let mut longest = vec![b' '; LINE_BYTES_MAX - 1];
    longest.splice(0..0, *b"1");
    longest.push(b'\n');
    gateway.send_bytes(&longest).await;
    assert_eq!(gateway.error().await.0, "bad_json");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_transactions_are_asked_for() {
    let world = World::new().await;
    let fixture = Fixture::new();
    let mut gateway = world.gateway(1).await;
    let some = fixture.transactions[..2].to_vec();
    gateway.send(&ToVerifier::TxPut { txs: some }).await;
    gateway.send(&propose(&fixture, 1)).await;
    let mut missing = fixture.template.wtxids[2..].to_vec();
    missing.sort();
    let want = FromVerifier::NeedTx { propose_id: 1, wtxids: missing };
    assert_eq!(gateway.receive().await, want);
    gateway.send(&put(&fixture)).await;
    gateway.send(&propose(&fixture, 1)).await;
    let verdict = gateway.verdict().await;
    assert_eq!((verdict.propose_id, verdict.verdict), (1, Decision::Accept));
    assert!(verdict.reason_codes.is_empty());
    assert_eq!(verdict.not_evaluated, ["S11"]);
    let body = policy::judge::body_hash(&fixture.template);
    assert_eq!(verdict.body_hash, HexBytes(body.to_vec()));
    let tip = policy::judge::tip_hash(&fixture.template);
    assert_eq!(verdict.tip_hash, HexBytes(tip.to_vec()));
    assert_eq!(verdict.policy_hash, fixture.policy.hash());
    gateway.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_templates_are_rejected_with_their_codes() {
    let world = World::new().await;
    let mut fixture = Fixture::new();
    fixture.template.nbits = 1;
    fixture.template.merkle_path.clear();
    let mut gateway = world.gateway(1).await;
    gateway.send(&put(&fixture)).await;
    gateway.send(&propose(&fixture, 1)).await;
    let verdict = gateway.verdict().await;
    assert_eq!(verdict.verdict, Decision::Reject);
    assert_eq!(verdict.reason_codes, ["nbits_mismatch", "merkle_mismatch"]);
    // A lie about the bytes: the name of one transaction over the data of another.
    let mut lying = Fixture::new();
    lying.transactions[0].data = lying.transactions[1].data.clone();
    gateway.send(&put(&lying)).await;
    gateway.send(&propose(&Fixture::new(), 2)).await;
    let verdict = gateway.verdict().await;
    assert!(verdict.reason_codes.contains(&"txid_mismatch".to_owned()), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_bounded() {
    let world = World::new().await;
    let mut gateway = world.gateway(1).await;
    let one = Fixture::new().transactions[0].clone();
    gateway.send(&ToVerifier::TxPut { txs: vec![one; TX_PUT_MAX + 1] }).await;
    assert_eq!(gateway.error().await.0, "bad_json");
    gateway.quiet().await;
}

/// Goal: exactly one answer for each of many pipelined proposals, full and coinbase-only.
#[tokio::test(flavor = "multi_thread")]
async fn each_proposal_gets_one_verdict() {
    let world = World::new().await;
    let (full, empty) = (Fixture::new(), Fixture::of(Vec::new()));
    let mut gateway = world.gateway(1).await;
    gateway.send(&put(&full)).await;
    let mut got = BTreeSet::new();
    for round in 0..20u64 {
        let ids = round * 100..round * 100 + PROPOSALS_OPEN_MAX as u64;
        for id in ids.clone() {
            let fixture = if id % 2 == 0 { &full } else { &empty };
            gateway.send(&propose(fixture, id)).await;
        }
        for _ in ids {
            let verdict = gateway.verdict().await;
            assert_eq!(verdict.verdict, Decision::Accept, "{verdict:?}");
            assert!(got.insert(verdict.propose_id));
        }
    }
    gateway.quiet().await;
    gateway.send(&propose(&full, 1900)).await;
    assert_eq!(gateway.error().await, ("propose_id_reused".to_owned(), Some(1900)));
}

fn on_unknown_tip() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.template.prev_hash = fixture::tip_hash(2);
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_ahead_of_the_chain_is_parked_until_the_tip_is_known() {
    let world = World::with(Some(fixture::chain()), "prevhash_hold_ms = 60_000\n").await;
    let fixture = on_unknown_tip();
    let mut gateway = world.gateway(1).await;
    gateway.send(&put(&fixture)).await;
    gateway.send(&propose(&fixture, 1)).await;
    gateway.quiet().await;
    world.page_when("/metrics", |_, text| text.contains("reservegrid_verifier_parked 1\n")).await;
    // What is on the tip is judged meanwhile.
    gateway.send(&propose(&Fixture::new(), 2)).await;
    assert_eq!(gateway.verdict().await.propose_id, 2);
    world.show(|chain| {
        chain.recent_tips.insert(0, fixture::tip_hash(2));
        chain.tip_hash = fixture::tip_hash(2);
    });
    let verdict = gateway.verdict().await;
    assert_eq!((verdict.propose_id, verdict.verdict), (1, Decision::Accept));
    world.page_when("/metrics", |_, text| text.contains("reservegrid_verifier_parked 0\n")).await;
    // The parent from before is known, and no tip any more.
    gateway.send(&propose(&Fixture::new(), 3)).await;
    assert_eq!(gateway.verdict().await.reason_codes, ["prevhash_not_tip"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tip_that_stays_unknown_is_a_timeout_and_no_reject() {
    let world = World::with(Some(fixture::chain()), "prevhash_hold_ms = 60\n").await;
    let fixture = on_unknown_tip();
    let mut gateway = world.gateway(1).await;
    gateway.send(&put(&fixture)).await;
    gateway.send(&propose(&fixture, 1)).await;
    assert_eq!(gateway.error().await, ("timeout".to_owned(), Some(1)));
    gateway.quiet().await;
    let metrics = world.page("/metrics").await.1;
    assert!(metrics.contains("reservegrid_verifier_timeouts_total 1\n"), "{metrics}");
    assert!(metrics.contains("reservegrid_verdicts_total{verdict=\"reject\"} 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_proposals_are_bounded_and_can_be_withdrawn() {
    let world = World::with(Some(fixture::chain()), "prevhash_hold_ms = 60_000\n").await;
    let fixture = on_unknown_tip();
    let mut gateway = world.gateway(1).await;
    gateway.send(&put(&fixture)).await;
    let open = PROPOSALS_OPEN_MAX as u64;
    for id in 0..open {
        gateway.send(&propose(&fixture, id)).await;
    }
    gateway.send(&propose(&fixture, open)).await;
    assert_eq!(gateway.error().await, ("overloaded".to_owned(), Some(open)));
    gateway.send(&propose(&fixture, 0)).await;
    assert_eq!(gateway.error().await, ("propose_id_reused".to_owned(), Some(0)));
    for propose_id in 1..open {
        gateway.send(&ToVerifier::Cancel { propose_id }).await;
    }
    world.show(|chain| chain.tip_hash = fixture::tip_hash(2));
    assert_eq!(gateway.verdict().await.propose_id, 0);
    gateway.quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_never_share_instance_and_epoch() {
    let world = World::new().await;
    let mut first = world.gateway(7).await;
    let mut second = world.connect().await;
    second.send(&hello(7, 1)).await;
    assert_eq!(second.error().await, ("instance_in_use".to_owned(), None));
    assert_eq!(second.next().await, None);
    first.quiet().await;
    let mut other_epoch = world.connect().await;
    other_epoch.send(&hello(7, 2)).await;
    assert!(matches!(other_epoch.receive().await, FromVerifier::HelloAck { .. }));
    // Killed, the first leaves its place to the next, which knows nothing of old transactions.
    let fixture = Fixture::new();
    first.send(&put(&fixture)).await;
    drop(first);
    let mut again = reconnected(&world, &line(&hello(7, 1))).await;
    again.send(&propose(&fixture, 1)).await;
    assert!(matches!(again.receive().await, FromVerifier::NeedTx { propose_id: 1, .. }));
    again.send(&put(&fixture)).await;
    again.send(&propose(&fixture, 1)).await;
    assert_eq!(again.verdict().await.verdict, Decision::Accept);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let world = World::new().await;
    let refused = async |message: &ToVerifier, code: &str| {
        let mut gateway = world.connect().await;
        gateway.send(message).await;
        assert_eq!(gateway.error().await, (code.to_owned(), None));
        assert_eq!(gateway.next().await, None);
    };
    let greeting = |proto, network, gateway_id: &str| ToVerifier::Hello {
        proto,
        gateway_id: gateway_id.to_owned(),
        network,
        instance_id: 1,
        epoch: 1,
    };
    refused(&greeting(PROTO, Network::Main, "g"), "wrong_network").await;
    refused(&greeting(PROTO + 1, Network::Regtest, "g"), "wrong_proto").await;
    refused(&greeting(PROTO, Network::Regtest, &"g".repeat(129)), "hello_expected").await;
    refused(&ToVerifier::Ping { t: 1 }, "hello_expected").await;
    let mut late = world.gateway(1).await;
    late.send(&hello(1, 1)).await;
    assert_eq!(late.error().await.0, "bad_json");
    assert_eq!(late.next().await, None);
}
