//! For every check a template that passes and one planted fault that gives exactly its code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxOut};
use fixture::*;
use policy::Severity;
use work::payout::Network;
use work::{BlockHash, Decision, MerkleNode, Wtxid};

/// `fixture` is rejected for `code` alone.
fn denied(fixture: &Fixture, code: &str) {
    let ruling = fixture.judge();
    assert_eq!(ruling.reason_codes, [code], "{:?}", ruling.details);
    assert_eq!(ruling.decision, Decision::Reject);
    assert_eq!(ruling.details[0].severity, Severity::Deny);
}

/// `fixture` is accepted with `code` as its only warning.
fn warned(fixture: &Fixture, code: &str) {
    let ruling = fixture.judge();
    assert_eq!(ruling.reason_codes, [code], "{:?}", ruling.details);
    assert_eq!(ruling.decision, Decision::Accept);
    assert_eq!(ruling.details[0].severity, Severity::Warn);
}

fn clean(fixture: &Fixture) {
    let ruling = fixture.judge();
    assert_eq!(ruling.decision, Decision::Accept);
    assert!(ruling.details.is_empty() && ruling.not_evaluated.is_empty(), "{ruling:?}");
}

/// The fixture after `spoil`.
fn spoiled(spoil: impl FnOnce(&mut Fixture)) -> Fixture {
    let mut fixture = Fixture::new();
    spoil(&mut fixture);
    fixture
}

/// The fixture with a spoiled coinbase.
fn coinbase(spoil: impl FnOnce(&mut bitcoin::Transaction)) -> Fixture {
    spoiled(|fixture| fixture.edit_coinbase(spoil))
}

#[test]
fn good_templates_pass_every_check() {
    clean(&Fixture::new());
    for count in [1, 2, 3, 7, 64, 300] {
        clean(&Fixture::of((0..count).map(|number| proposed(&transaction(number))).collect()));
    }
    let mut empty = Fixture::of(Vec::new());
    empty.context.tip_age_ms = 3_000;
    clean(&empty);
}

#[test]
fn s01_prev_hash() {
    denied(&spoiled(|f| f.template.prev_hash = BlockHash::default()), "prevhash_malformed");
    denied(&spoiled(|f| f.template.prev_hash = tip_hash(2)), "prevhash_unknown");
    let old = spoiled(|f| f.template.prev_hash = tip_hash(9));
    denied(&old, "prevhash_not_tip");
    // What rests on the tip says nothing about a child of another block.
    assert_eq!(old.judge().not_evaluated, ["S02", "S03", "S05"]);
}

#[test]
fn s02_height() {
    // Both heights lie between the same two halvings, so the subsidy is no second fault.
    let transactions = Fixture::new().transactions;
    denied(&Fixture::at(transactions, HEIGHT + 2, |_| {}), "height_mismatch");
    let other = Fixture::at(Fixture::new().transactions, HEIGHT, |_| {}).template.coinbase;
    denied(&spoiled(|f| f.template.coinbase = other), "bip34_height_mismatch");
    // A height that only the miner's extranonce would complete is none.
    let short = spoiled(|f| {
        let coinbase = &mut f.template.coinbase;
        let moved = coinbase.prefix.0.split_off(42 + 2);
        coinbase.extranonce_len += moved.len();
    });
    denied(&short, "bip34_height_mismatch");
}

#[test]
fn s03_nbits() {
    denied(&spoiled(|f| f.template.nbits = NBITS + 1), "nbits_mismatch");
}

#[test]
fn s04_version() {
    for version in [0, 1, 4, 0x1fff_ffff, 0x4000_0000, 0xffff_ffff] {
        denied(&spoiled(|f| f.template.version = version), "version_invalid");
    }
    clean(&spoiled(|f| f.template.version = 0x3fff_e000));
}

#[test]
fn s05_times() {
    denied(&spoiled(|f| f.template.min_time = MEDIAN_TIME), "ntime_too_old");
    denied(&spoiled(|f| f.template.curtime = MEDIAN_TIME), "ntime_too_old");
    let ahead = |seconds| spoiled(|f| f.template.curtime = TIP_TIME + 6 + seconds);
    clean(&ahead(7_200));
    denied(&ahead(7_201), "ntime_too_new");
}

#[test]
fn s05_timewarp_on_testnet4() {
    let warped = |network| {
        let mut fixture = Fixture::new();
        fixture.context.network = network;
        fixture.context.chain.network = network;
        fixture.context.chain.next_min_time = TIP_TIME - 600;
        // The subsidy of this height differs from regtest's.
        fixture.with_policy("[severity]\nS10 = \"off\"\n")
    };
    denied(&warped(Network::Testnet4), "timewarp");
    clean(&warped(Network::Signet));
}

#[test]
fn s06_weight() {
    let fixture = Fixture::new();
    let transactions: u64 =
        (0..5).map(|_| transaction(0).weight().to_wu()).sum::<u64>() + 4 * (80 + 1);
    let stripped = fixture.template.coinbase.prefix.0.len()
        + fixture.template.coinbase.suffix.0.len()
        + fixture.template.coinbase.extranonce_len;
    let whole = transactions + 4 * stripped as u64 + 36;
    let limit = |most: u64| format!("[structure]\nweight_max = {most}\n");
    clean(&fixture.clone().with_policy(&limit(whole)));
    denied(&fixture.with_policy(&limit(whole - 1)), "weight_exceeded");
}

#[test]
fn s08_sigops() {
    let with = |sigops: u32| spoiled(|f| f.transactions[2].sigops = sigops);
    clean(&with(80_000));
    denied(&with(80_001), "sigops_exceeded");
    let mut busy = transaction(1);
    busy.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac, 0xac]);
    let declared = |sigops| {
        let mut transaction = proposed(&busy);
        transaction.sigops = sigops;
        Fixture::of(vec![transaction])
    };
    clean(&declared(8));
    denied(&declared(7), "sigops_declared_mismatch");
}

#[test]
fn s09_value_too_high() {
    let greedy = Fixture::at(Fixture::new().transactions, HEIGHT + 1, |t| t.coinbase_value += 1);
    denied(&greedy, "coinbase_value_too_high");
    // The outputs alone, while the value is right.
    let unpinned = "[severity]\nS12 = \"off\"\n";
    let more = coinbase(|c| c.output[0].value += Amount::from_sat(1));
    denied(&more.with_policy(unpinned), "coinbase_value_too_high");
}

#[test]
fn s10_value_too_low() {
    let modest = || {
        Fixture::at(Fixture::new().transactions, HEIGHT + 1, |template| {
            template.coinbase_value -= 10
        })
    };
    warned(&modest(), "coinbase_value_too_low");
    let tolerance = |sat| format!("[structure]\ncoinbase_value_tolerance_sat = {sat}\n");
    clean(&modest().with_policy(&tolerance(10)));
    warned(&modest().with_policy(&tolerance(9)), "coinbase_value_too_low");
}

#[test]
fn s12_outputs() {
    let foreign = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x53]) };
    denied(&coinbase(|c| c.output.insert(0, foreign.clone())), "coinbase_output_unexpected");
    denied(&coinbase(|c| c.output.push(foreign.clone())), "coinbase_output_unexpected");
    let second = coinbase(|c| c.output.insert(0, c.output[2].clone()));
    denied(&second, "coinbase_output_unexpected");
    let burning = coinbase(|c| c.output[2].value = Amount::from_sat(1));
    assert!(burning.judge().reason_codes.contains(&"coinbase_output_unexpected"));
    let without = coinbase(|c| {
        let _ = c.output.remove(0);
    })
    .with_policy("[severity]\nS10 = \"off\"\n");
    denied(&without, "coinbase_output_missing");
    // Hijacked: the same sum to another script is both.
    let hijacked = coinbase(|c| c.output[1].script_pubkey = ScriptBuf::from_bytes(vec![0x53]));
    let codes = ["coinbase_output_unexpected", "coinbase_output_missing"];
    assert_eq!(hijacked.judge().reason_codes, codes);
    // So is one satoshi moved from one payout to the other.
    let moved = coinbase(|c| {
        c.output[0].value += Amount::from_sat(1);
        c.output[1].value -= Amount::from_sat(1);
    });
    assert_eq!(moved.judge().reason_codes, codes);
}

#[test]
fn s13_script_length() {
    let padded = |bytes: usize| {
        coinbase(|c| {
            let script = c.input[0].script_sig.as_bytes();
            let (height, rest) = script.split_at(3);
            let script = [height, &vec![0x51; bytes - script.len()], rest].concat();
            c.input[0].script_sig = ScriptBuf::from_bytes(script);
        })
    };
    clean(&padded(100));
    denied(&padded(101), "coinbase_script_length");
    denied(&padded(300), "coinbase_script_length");
}

#[test]
fn s14_structure() {
    let spending = |outpoint| coinbase(move |c| c.input[0].previous_output = outpoint);
    denied(
        &spending(OutPoint::new(bitcoin::Txid::from_byte_array([1; 32]), 0)),
        "coinbase_malformed",
    );
    let locked =
        |height| coinbase(|c| c.lock_time = bitcoin::absolute::LockTime::from_consensus(height));
    clean(&locked(HEIGHT));
    denied(&locked(HEIGHT + 1), "coinbase_malformed");
    let mut final_anyway = locked(HEIGHT + 1);
    final_anyway.edit_coinbase(|c| c.input[0].sequence = Sequence::MAX);
    clean(&final_anyway);
    let cut = spoiled(|f| {
        let _ = f.template.coinbase.suffix.0.pop();
    });
    denied(&cut, "coinbase_malformed");
    assert_eq!(cut.judge().not_evaluated, ["S02", "S09", "S10", "S12", "S13", "S15"]);
    let two = spoiled(|f| f.template.coinbase.prefix.0[4] = 2);
    denied(&two, "coinbase_malformed");
    let outside = spoiled(|f| {
        let moved = f.template.coinbase.prefix.0.split_off(10);
        f.template.coinbase.suffix.0.splice(0..0, [&moved[..], &[0; 16]].concat());
        f.template.coinbase.extranonce_len = 0;
    });
    denied(&outside, "coinbase_malformed");
    denied(&spoiled(|f| f.template.coinbase.extranonce_len = 256), "coinbase_malformed");
    let endless = spoiled(|f| f.template.coinbase.extranonce_len = usize::MAX);
    assert_eq!(endless.judge().reason_codes, ["weight_exceeded", "coinbase_malformed"]);
}

#[test]
fn s14_the_witness_form_is_refused() {
    let full = spoiled(|f| {
        let coinbase = &mut f.template.coinbase;
        coinbase.prefix.0.splice(4..4, [0, 1]);
        let lock_time = coinbase.suffix.0.split_off(coinbase.suffix.0.len() - 4);
        coinbase.suffix.0.extend([&[1, 32][..], &[0; 32], &lock_time].concat());
    });
    denied(&full, "coinbase_malformed");
}

#[test]
fn s15_witness_commitment() {
    let fault = "witness_commitment_mismatch";
    let transactions = Fixture::new().transactions;
    denied(&Fixture::at(transactions, HEIGHT + 1, |t| t.witness_commitment[37] ^= 1), fault);
    denied(
        &coinbase(|c| {
            let _ = c.output.pop();
        }),
        fault,
    );
}

#[test]
fn s16_merkle_path() {
    denied(&spoiled(|f| f.template.merkle_path[1].0[0] ^= 1), "merkle_mismatch");
    denied(&spoiled(|f| f.template.merkle_path.push(MerkleNode::default())), "merkle_mismatch");
    denied(
        &spoiled(|f| {
            let _ = f.template.merkle_path.pop();
        }),
        "merkle_mismatch",
    );
}

#[test]
fn s17_names() {
    // The commitment covers the declared names, so this is the only fault.
    let mut transactions = Fixture::new().transactions;
    transactions[1].wtxid = Wtxid([5; 32]);
    denied(&Fixture::of(transactions), "txid_mismatch");
}

#[test]
fn s18_decode() {
    let mut transactions = Fixture::new().transactions;
    transactions[1] = proposed_bytes(vec![1, 2, 3]);
    let fixture = Fixture::of(transactions);
    denied(&fixture, "tx_malformed");
    assert_eq!(fixture.judge().not_evaluated, ["S16", "S20", "S21"]);
    let mut transactions = Fixture::new().transactions;
    let mut trailing = transactions[1].data.0.clone();
    trailing.push(0);
    transactions[1] = proposed_bytes(trailing);
    denied(&Fixture::of(transactions), "tx_malformed");
}

#[test]
fn s19_duplicates() {
    let mut transactions = Fixture::new().transactions;
    transactions.insert(2, transactions[0].clone());
    denied(&Fixture::of(transactions), "tx_duplicate");
    // The same txid under another witness.
    let mut transactions = Fixture::new().transactions;
    let mut twin = transaction(0);
    twin.input[0].witness = bitcoin::Witness::from_slice(&[[1]]);
    transactions.insert(2, proposed(&twin));
    denied(&Fixture::of(transactions), "tx_duplicate");
}

#[test]
fn s20_double_spends() {
    let mut rival = transaction(0);
    rival.output[0].value = Amount::from_sat(9_999);
    let mut transactions = Fixture::new().transactions;
    transactions.push(proposed(&rival));
    denied(&Fixture::of(transactions), "double_spend_in_template");
    let mut twice = transaction(10);
    twice.input.push(twice.input[0].clone());
    denied(&Fixture::of(vec![proposed(&twice)]), "double_spend_in_template");
}

#[test]
fn s21_order() {
    let mut transactions = Fixture::new().transactions;
    transactions.swap(3, 4);
    denied(&Fixture::of(transactions), "tx_order_invalid");
}

#[test]
fn e06_empty_block() {
    let mut empty = Fixture::of(Vec::new());
    empty.context.tip_age_ms = 3_001;
    warned(&empty, "empty_block");
    denied(&empty.clone().with_policy("[severity]\nE06 = \"deny\"\n"), "empty_block");
    clean(&empty.with_policy("[empty_block]\nallow_for_ms_after_tip = 3001\n"));
}

#[test]
fn all_reasons_are_reported_at_once() {
    let mut fixture = Fixture::new();
    fixture.template.nbits = 0;
    fixture.template.version = 0;
    fixture.template.merkle_path.clear();
    let codes = ["nbits_mismatch", "version_invalid", "merkle_mismatch"];
    assert_eq!(fixture.judge().reason_codes, codes);
}

#[test]
fn a_missing_input_denies_unless_the_policy_says_otherwise() {
    // A coinbase that does not decode, while the check that would say so is off.
    let cut = || {
        spoiled(|f| {
            let _ = f.template.coinbase.suffix.0.pop();
        })
    };
    denied_unseen(&cut().with_policy("[severity]\nS14 = \"off\"\n"));
    let mut lenient = cut();
    let text = format!("on_missing_context = \"warn\"\n{POLICY}[severity]\nS14 = \"off\"\n");
    lenient.policy = policy::Policy::parse(&text, Network::Regtest).unwrap();
    assert_eq!(lenient.judge().decision, Decision::Accept);
    // A chain of another network is no context.
    denied_unseen(&spoiled(|f| f.context.chain.network = Network::Main));
}

fn denied_unseen(fixture: &Fixture) {
    let ruling = fixture.judge();
    assert_eq!(ruling.decision, Decision::Reject);
    assert_eq!(ruling.reason_codes, [policy::catalogue::NOT_EVALUATED]);
    assert!(ruling.details.is_empty() && !ruling.not_evaluated.is_empty());
}
