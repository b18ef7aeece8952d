//! One table of faults, one for each reason code of the catalogue: a good template with exactly
//! that fault planted gives exactly that code, and the policy's severity decides what it does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::BTreeSet;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxOut};
use fixture::*;
use policy::{CHECKS, Policy, Severity};
use work::contract::verifier::{ProposedTransaction, TemplatePropose};
use work::payout::Network;
use work::{BlockHash, Decision, Wtxid};

/// A check, one of its codes, and a template with exactly that fault.
struct Fault {
    check: &'static str,
    code: &'static str,
    plant: fn() -> Fixture,
    /// Keys of `[structure]` that bring the limit down to where the template passes it.
    structure: &'static str,
}

const fn fault(check: &'static str, code: &'static str, plant: fn() -> Fixture) -> Fault {
    Fault { check, code, plant, structure: "" }
}

impl Fault {
    const fn under(mut self, structure: &'static str) -> Fault {
        self.structure = structure;
        self
    }
}

const FAULTS: &[Fault] = &[
    fault("S01", "prevhash_malformed", || in_template(|t| t.prev_hash = BlockHash::default())),
    fault("S01", "prevhash_unknown", || in_template(|t| t.prev_hash = tip_hash(2))),
    fault("S01", "prevhash_not_tip", || in_template(|t| t.prev_hash = tip_hash(9))),
    fault("S02", "height_mismatch", || Fixture::at(transactions(), HEIGHT + 2, |_| {})),
    fault("S02", "bip34_height_mismatch", || {
        let other = Fixture::at(transactions(), HEIGHT, |_| {}).template.coinbase;
        in_template(|t| t.coinbase = other)
    }),
    fault("S03", "nbits_mismatch", || in_template(|t| t.nbits += 1)),
    fault("S04", "version_invalid", || in_template(|t| t.version = 4)),
    fault("S05", "ntime_too_old", || in_template(|t| t.min_time = MEDIAN_TIME)),
    fault("S05", "ntime_too_new", || in_template(|t| t.curtime += 7_202)),
    fault("S05", "timewarp", || {
        let mut warped = on_testnet4();
        warped.context.chain.next_min_time = TIP_TIME - 600;
        warped
    }),
    fault("S06", "weight_exceeded", Fixture::new).under("weight_max = 1000\n"),
    fault("S07", "size_exceeded", Fixture::new).under("size_max = 1000\n"),
    fault("S08", "sigops_exceeded", || in_transactions(|all| all[2].sigops = 80_001)),
    fault("S08", "sigops_declared_mismatch", || {
        let mut busy = transaction(0);
        busy.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac]);
        Fixture::of(vec![proposed(&busy)])
    }),
    fault("S09", "coinbase_value_too_high", || {
        Fixture::at(transactions(), HEIGHT + 1, |t| t.coinbase_value += 1)
    }),
    fault("S10", "coinbase_value_too_low", || {
        Fixture::at(transactions(), HEIGHT + 1, |t| t.coinbase_value -= 1)
    }),
    fault("S11", "fee_declared_mismatch", || in_transactions(|all| all[4].fee += 1)),
    fault("S12", "coinbase_output_unexpected", || {
        let foreign = ScriptBuf::from_bytes(vec![0x53]);
        in_coinbase(|c| c.output.push(TxOut { value: Amount::ZERO, script_pubkey: foreign }))
    }),
    fault("S12", "coinbase_output_missing", || in_coinbase(|c| drop(c.output.remove(0))))
        .under("coinbase_value_tolerance_sat = 5_000_000_000\n"),
    fault("S13", "coinbase_script_length", || {
        in_coinbase(|c| {
            let script = c.input[0].script_sig.as_bytes();
            let (height, rest) = script.split_at(3);
            let script = [height, &vec![0x51; 101 - script.len()], rest].concat();
            c.input[0].script_sig = ScriptBuf::from_bytes(script);
        })
    }),
    fault("S14", "coinbase_malformed", || {
        let coin = OutPoint::new(bitcoin::Txid::from_byte_array([1; 32]), 0);
        in_coinbase(|c| c.input[0].previous_output = coin)
    }),
    fault("S15", "witness_commitment_mismatch", || {
        Fixture::at(transactions(), HEIGHT + 1, |t| t.witness_commitment[37] ^= 1)
    }),
    fault("S16", "merkle_mismatch", || in_template(|t| t.merkle_path[1].0[0] ^= 1)),
    fault("S17", "txid_mismatch", || in_transactions(|all| all[1].wtxid = Wtxid([5; 32]))),
    fault("S18", "tx_malformed", || in_transactions(|all| all[1] = proposed_bytes(vec![1, 2, 3]))),
    fault("S19", "tx_duplicate", || in_transactions(|all| all.insert(2, all[0].clone()))),
    fault("S20", "double_spend_in_template", || {
        let mut rival = transaction(0);
        rival.output[0].value = Amount::from_sat(9_999);
        in_transactions(|all| all.push(proposed(&rival)))
    }),
    fault("S21", "tx_order_invalid", || in_transactions(|all| all.swap(3, 4))),
    fault("S22", "tx_not_final", || {
        let mut locked = transaction(0);
        locked.lock_time = LockTime::from_consensus(HEIGHT + 1);
        locked.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
        Fixture::of(vec![proposed(&locked)])
    }),
    fault("S23", "tx_too_large", Fixture::new).under("tx_weight_max = 200\n"),
    fault("S24", "rules_unsupported", || {
        in_template(|t| t.rules = Some(vec!["!segwit".to_owned(), "!quantum".to_owned()]))
    }),
    fault("E06", "empty_block", || Fixture::of(Vec::new())),
];

fn transactions() -> Vec<ProposedTransaction> {
    Fixture::new().transactions
}

fn in_template(plant: impl FnOnce(&mut TemplatePropose)) -> Fixture {
    let mut fixture = Fixture::new();
    plant(&mut fixture.template);
    fixture
}

fn in_coinbase(plant: impl FnOnce(&mut bitcoin::Transaction)) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.edit_coinbase(plant);
    fixture
}

fn in_transactions(plant: impl FnOnce(&mut Vec<ProposedTransaction>)) -> Fixture {
    let mut transactions = transactions();
    plant(&mut transactions);
    Fixture::of(transactions)
}

impl Fault {
    /// The ruling on the planted template while the check has `severity` and whatever lacks an
    /// input only warns.
    fn ruling(&self, severity: Severity) -> policy::Ruling {
        let mut fixture = (self.plant)();
        let text = format!(
            "on_missing_context = \"warn\"\n{}[structure]\n{}[severity]\n{} = \"{}\"\n",
            fixture.policy_text,
            self.structure,
            self.check,
            severity.name()
        );
        fixture.policy = Policy::parse(&text, Network::Regtest).unwrap();
        fixture.judge()
    }
}

#[test]
fn every_code_has_its_fault() {
    let planted: BTreeSet<_> = FAULTS.iter().map(|fault| (fault.check, fault.code)).collect();
    let codes = CHECKS.iter().flat_map(|check| check.codes.iter().map(|code| (check.id, *code)));
    assert_eq!(planted, codes.collect());
}

/// Goal: each fault is found by its check and by no other, and the severity is obeyed.
#[test]
fn every_fault_gives_its_code_and_obeys_the_severity() {
    for fault in FAULTS {
        let told = |severity| fault.ruling(severity);
        let (denied, warned, off) =
            (told(Severity::Deny), told(Severity::Warn), told(Severity::Off));
        let codes = [fault.code];
        assert_eq!(denied.reason_codes, codes, "{} {:?}", fault.check, denied.details);
        assert_eq!(denied.decision, Decision::Reject, "{}", fault.check);
        assert_eq!(warned.reason_codes, codes, "{}", fault.check);
        assert_eq!(warned.decision, Decision::Accept, "{}", fault.check);
        assert_eq!(warned.details[0].severity, Severity::Warn, "{}", fault.check);
        assert_eq!(warned.details[0].check, fault.check);
        assert!(off.reason_codes.is_empty(), "{} {:?}", fault.check, off.details);
        assert_eq!(off.decision, Decision::Accept, "{}", fault.check);
        assert!(!off.not_evaluated.contains(&fault.check), "{}", fault.check);
    }
}

/// Goal: an operator can drop exactly the transactions that were objected to (D34).
#[test]
fn offending_transactions_are_named() {
    let family = family();
    let txid = |number: usize| work::Txid(family[number].compute_txid().to_byte_array());
    let named = |fixture: &Fixture| {
        let ruling = fixture.judge();
        assert_eq!(ruling.details.len(), 1, "{:?}", ruling.details);
        let verdict = ruling.verdict(&fixture.template, &fixture.policy, 0);
        assert_eq!(verdict.details[0].txids, ruling.details[0].txids);
        ruling.details[0].txids.clone()
    };
    assert_eq!(named(&in_transactions(|all| all[4].fee += 1)), [txid(4)]);
    assert_eq!(named(&in_transactions(|all| all.swap(3, 4))), [txid(4)]);
    assert_eq!(named(&in_transactions(|all| all.insert(2, all[0].clone()))), [txid(0)]);
    let renamed = |all: &mut Vec<ProposedTransaction>| {
        (all[1].wtxid, all[3].wtxid) = (Wtxid([5; 32]), Wtxid([6; 32]));
    };
    assert_eq!(named(&in_transactions(renamed)), [txid(1), txid(3)]);
    let small = Fixture::new().with_policy("[structure]\ntx_weight_max = 200\n");
    assert_eq!(named(&small), [txid(0), txid(1), txid(2), txid(3), txid(4)]);
    // What is no transaction has no name, and what is wrong with the block names none.
    assert_eq!(named(&in_template(|t| t.version = 4)), []);
    assert_eq!(named(&in_transactions(|all| all[1] = proposed_bytes(vec![1]))), []);
}
