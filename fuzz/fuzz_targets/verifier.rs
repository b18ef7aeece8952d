//! The lines between gateway and verifier, both ways, and the judging of what they propose: any
//! line decodes or is refused; what decodes, encodes to a line that decodes to the same; any
//! proposal is ruled on, and the ruling is bound to its bytes.
//!
//! Input: lines. The transactions that the lines put are kept, as the verifier does.

#![no_main]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use policy::Policy;
use policy::context::Context;
use policy::facts::TransactionFacts;
use policy::judge::{body_hash, judge};
use policy::proposal::{JudgedTransaction, Proposal};
use work::contract::chain::Chain;
use work::contract::verifier::{FromVerifier, TemplatePropose, ToVerifier};
use work::payout::Network;
use work::{BlockHash, Decision, Wtxid};

/// Transactions that are kept, and lines that are read.
const KEPT_MAX: usize = 64;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text = include_str!("../../config/policy.toml");
    Policy::parse(text, Network::Regtest).expect("the shipped policy is one")
});

fn context() -> Context {
    Context {
        chain: Chain {
            network: Network::Regtest,
            demo: true,
            tip_hash: BlockHash([1; 32]),
            height: 99,
            tip_time: 1_800_000_000,
            median_time_past: 1_799_999_000,
            next_nbits: 0x207f_ffff,
            next_min_time: 1_799_999_001,
            recent_tips: vec![BlockHash([1; 32]), BlockHash([2; 32])],
        },
        now_seconds: 1_800_000_060,
        network: Network::Regtest,
        tip_age_ms: 60_000,
    }
}

/// Rules on a proposal as the verifier does, with the transactions it knows.
fn rule(template: &TemplatePropose, known: &HashMap<Wtxid, JudgedTransaction>) {
    let transactions: Option<Vec<_>> =
        template.wtxids.iter().map(|wtxid| known.get(wtxid).cloned()).collect();
    let Some(transactions) = transactions else { return };
    let proposal = Proposal { template, transactions: &transactions };
    let ruling = judge(&proposal, &context(), &POLICY);
    assert!(ruling.decision == Decision::Accept || !ruling.reason_codes.is_empty());
    assert_eq!(ruling, judge(&proposal, &context(), &POLICY), "one proposal, one ruling");
    let verdict = ruling.verdict(template, &POLICY, 1);
    assert_eq!(verdict.body_hash.0, body_hash(template));
    let line = serde_json::to_vec(&FromVerifier::TemplateVerdict(Box::new(verdict)));
    let line = line.expect("a verdict is written");
    serde_json::from_slice::<FromVerifier>(&line).expect("our verdict is read");
}

fuzz_target!(|input: &[u8]| {
    let mut known = HashMap::new();
    for line in input.split(|byte| *byte == b'\n').take(KEPT_MAX) {
        if let Ok(message) = serde_json::from_slice::<FromVerifier>(line) {
            let again = serde_json::to_vec(&message).expect("what decodes, encodes");
            assert_eq!(serde_json::from_slice::<FromVerifier>(&again).ok(), Some(message));
        }
        let Ok(message) = serde_json::from_slice::<ToVerifier>(line) else { continue };
        let again = serde_json::to_vec(&message).expect("what decodes, encodes");
        assert_eq!(serde_json::from_slice::<ToVerifier>(&again).ok(), Some(message.clone()));
        match message {
            ToVerifier::TxPut { txs } => {
                let room = KEPT_MAX.saturating_sub(known.len());
                known.extend(txs.into_iter().take(room).map(|put| {
                    let facts = Arc::new(TransactionFacts::from_bytes(&put.data.0));
                    let (wtxid, fee, sigops) = (put.wtxid, put.fee, put.sigops);
                    (wtxid, JudgedTransaction { wtxid, fee, sigops, facts })
                }));
            }
            ToVerifier::TemplatePropose(template) => rule(&template, &known),
            _ => (),
        }
    }
});
