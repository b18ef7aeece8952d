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
    assert!(ruling.details.is_empty(), "{ruling:?}");
    // The outputs of earlier blocks are known to nodes only.
    let fees_are_known = fixture.transactions.is_empty();
    assert_eq!(ruling.not_evaluated, if fees_are_known { &[][..] } else { &["S11"] });
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
    assert_eq!(old.judge().not_evaluated, ["S02", "S03", "S05", "S11"]);
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
    let mut warped = on_testnet4();
    warped.context.chain.next_min_time = TIP_TIME - 600;
    denied(&warped, "timewarp");
    let mut elsewhere = Fixture::on(Network::Signet, family().iter().map(proposed).collect());
    elsewhere.context.network = Network::Signet;
    elsewhere.context.chain.network = Network::Signet;
    elsewhere.context.chain.next_min_time = TIP_TIME - 600;
    clean(&elsewhere);
}

/// Goal: on testnet4 target and times of a template belong together, whichever side of the twenty
/// minutes they are on and whenever the verifier looked at its chain.
#[test]
fn s03_and_s05_after_twenty_minutes_of_testnet4() {
    const LEAST: u32 = 0x1d00_ffff;
    let at = |seconds: u32, min_time: u32, nbits: u32| {
        let mut fixture = on_testnet4();
        fixture.context.now_seconds = u64::from(TIP_TIME + seconds);
        let template = &mut fixture.template;
        (template.curtime, template.min_time) = (TIP_TIME + seconds, min_time);
        template.nbits = nbits;
        fixture
    };
    clean(&at(1_200, MEDIAN_TIME + 1, NBITS));
    denied(&at(1_200, MEDIAN_TIME + 1, LEAST), "nbits_mismatch");
    clean(&at(1_201, TIP_TIME + 1_201, LEAST));
    denied(&at(1_201, TIP_TIME + 1_201, NBITS), "nbits_mismatch");
    denied(&at(1_201, TIP_TIME + 1_200, LEAST), "ntime_too_old");
    // A retarget has no such exception.
    let retarget = |nbits| {
        let mut fixture = at(1_201, TIP_TIME + 1_201, nbits);
        fixture.context.chain.height = 2 * 2_016 - 1;
        let mut ruling = fixture.judge();
        ruling.reason_codes.retain(|code| *code != "height_mismatch");
        ruling.reason_codes
    };
    assert!(retarget(NBITS).is_empty());
    assert_eq!(retarget(LEAST), ["nbits_mismatch"]);
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
fn s07_size() {
    let all: Vec<_> = family();
    let template = Fixture::new().template;
    let coinbase = template.coinbase.prefix.0.len()
        + template.coinbase.suffix.0.len()
        + template.coinbase.extranonce_len;
    let frame = 80 + 1 + coinbase;
    let stripped = frame + all.iter().map(bitcoin::Transaction::base_size).sum::<usize>();
    let whole = frame + 36 + all.iter().map(bitcoin::Transaction::total_size).sum::<usize>();
    let limits = |stripped: usize, whole: usize| {
        let lines = format!("[structure]\nstripped_size_max = {stripped}\nsize_max = {whole}\n");
        Fixture::new().with_policy(&lines)
    };
    clean(&limits(stripped, whole));
    warned(&limits(stripped - 1, whole), "size_exceeded");
    warned(&limits(stripped, whole - 1), "size_exceeded");
}

#[test]
fn s08_sigops() {
    let with = |sigops: u32| spoiled(|f| f.transactions[2].sigops = sigops);
    clean(&with(80_000));
    denied(&with(80_001), "sigops_exceeded");
    let busy = |operations: usize, declared: u32| {
        let mut busy = transaction(1);
        busy.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xac; operations]);
        let mut transaction = proposed(&busy);
        transaction.sigops = declared;
        Fixture::of(vec![transaction])
    };
    clean(&busy(2, 8));
    denied(&busy(2, 7), "sigops_declared_mismatch");
    // A declaration cannot hide that the block costs too much.
    clean(&busy(20_000, 80_000));
    let hidden = busy(20_001, 0).judge();
    assert_eq!(hidden.reason_codes, ["sigops_exceeded", "sigops_declared_mismatch"]);
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
fn s11_declared_fees() {
    let fee = |fee: u64| {
        let mut transactions = Fixture::new().transactions;
        transactions[4].fee = fee;
        Fixture::of(transactions)
    };
    clean(&fee(FEE));
    for wrong in [0, FEE - 1, FEE + 1] {
        warned(&fee(wrong), "fee_declared_mismatch");
    }
    // It creates more than it spends: no fee is right.
    let mut greedy = child(&transaction(0));
    greedy.output[0].value = Amount::from_sat(10_001);
    let all = [transaction(0), greedy];
    warned(&Fixture::of(all.iter().map(proposed).collect()), "fee_declared_mismatch");
    // With one input of an earlier block, the known one still leaves a least fee.
    let mixed = |fee: u64| {
        let mut mixed = child(&transaction(0));
        mixed.input.push(transaction(1).input[0].clone());
        let mut mixed = proposed(&mixed);
        mixed.fee = fee;
        Fixture::of(vec![proposed(&transaction(0)), mixed])
    };
    clean(&mixed(FEE));
    clean(&mixed(FEE + 5_000));
    warned(&mixed(FEE - 1), "fee_declared_mismatch");
    // An input that nobody here knows denies nothing.
    let strict = Fixture::new().with_policy("[severity]\nS11 = \"deny\"\n");
    clean(&strict);
    denied(&fee(1).with_policy("[severity]\nS11 = \"deny\"\n"), "fee_declared_mismatch");
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
    assert_eq!(cut.judge().not_evaluated, ["S02", "S09", "S10", "S11", "S12", "S13", "S15"]);
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
    let codes = ["weight_exceeded", "size_exceeded", "coinbase_malformed"];
    assert_eq!(endless.judge().reason_codes, codes);
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
    assert_eq!(fixture.judge().not_evaluated, ["S11", "S16", "S20", "S21", "S22"]);
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
    // The parent is there, the output is not.
    let mut astray = child(&transaction(3));
    astray.input[0].previous_output.vout = 1;
    let all = [transaction(3), astray];
    denied(&Fixture::of(all.iter().map(proposed).collect()), "tx_order_invalid");
}

#[test]
fn s22_absolute_locks() {
    let locked = |lock_time: u32, sequence: u32| {
        let mut locked = transaction(0);
        locked.lock_time = bitcoin::absolute::LockTime::from_consensus(lock_time);
        locked.input[0].sequence = Sequence(sequence);
        Fixture::of(vec![proposed(&locked)])
    };
    clean(&locked(HEIGHT, 0));
    denied(&locked(HEIGHT + 1, 0), "tx_not_final");
    denied(&locked(499_999_999, 0xffff_fffe), "tx_not_final");
    clean(&locked(499_999_999, 0xffff_ffff));
    clean(&locked(500_000_000, 0));
    clean(&locked(MEDIAN_TIME - 1, 0));
    denied(&locked(MEDIAN_TIME, 0), "tx_not_final");
    denied(&locked(u32::MAX, 0), "tx_not_final");
    // One final input of two does not unlock it.
    let mut two = transaction(0);
    two.lock_time = bitcoin::absolute::LockTime::from_consensus(HEIGHT + 1);
    two.input.push(transaction(1).input[0].clone());
    two.input[0].sequence = Sequence(0);
    denied(&Fixture::of(vec![proposed(&two)]), "tx_not_final");
    // The median time past of another block says nothing; heights need none.
    let elsewhere = |lock_time: u32| {
        let mut fixture = locked(lock_time, 0);
        fixture.template.prev_hash = tip_hash(9);
        fixture.judge()
    };
    assert!(elsewhere(MEDIAN_TIME).not_evaluated.contains(&"S22"));
    assert!(!elsewhere(HEIGHT).not_evaluated.contains(&"S22"));
}

#[test]
fn s22_relative_locks_on_parents_of_the_same_block() {
    let after = |sequence: u32, version: i32| {
        let mut waiting = child(&transaction(0));
        waiting.version = bitcoin::transaction::Version(version);
        waiting.input[0].sequence = Sequence(sequence);
        let all = [transaction(0), waiting];
        Fixture::of(all.iter().map(proposed).collect())
    };
    // Blocks, and steps of 512 s; the bits between are not read.
    for locked in [1, 0xffff, 0x0040_0001, 0x7fbf_0001] {
        denied(&after(locked, 2), "tx_not_final");
        denied(&after(locked, -1), "tx_not_final");
        clean(&after(locked, 1));
        clean(&after(locked | 0x8000_0000, 2));
    }
    for open in [0, 0x0040_0000, 0x0001_0000] {
        clean(&after(open, 2));
    }
    // The age of parents in earlier blocks is for a node to know.
    let mut old = transaction(0);
    old.input[0].sequence = Sequence(1);
    clean(&Fixture::of(vec![proposed(&old)]));
}

#[test]
fn s23_large_transactions() {
    let mut large = transaction(0);
    let padding = |bytes: usize| bitcoin::Witness::from_slice(&[vec![1; bytes]]);
    large.input[0].witness = padding(1_000);
    let rest = large.weight().to_wu() - 1_000;
    // A length of five bytes instead of three.
    let most = usize::try_from(400_000 - rest - 2).unwrap();
    large.input[0].witness = padding(most);
    assert_eq!(large.weight().to_wu(), 400_000);
    clean(&Fixture::of(vec![proposed(&large)]));
    large.input[0].witness = padding(most + 1);
    let larger = Fixture::of(vec![proposed(&large)]);
    warned(&larger, "tx_too_large");
    clean(&larger.with_policy("[structure]\ntx_weight_max = 400_001\n"));
}

#[test]
fn s24_rules() {
    let with = |rules: &[&str]| {
        let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
        spoiled(|f| f.template.rules = Some(rules))
    };
    clean(&with(&["segwit"]));
    clean(&with(&["csv", "!segwit", "taproot", "!signet", "something_new"]));
    denied(&with(&["csv", "!segwit", "!something_new"]), "rules_unsupported");
    denied(&with(&["!segwit", "!"]), "rules_unsupported");
    denied(&with(&["csv", "taproot"]), "rules_unsupported");
    denied(&with(&[]), "rules_unsupported");
    // A source without such a list is named, and denied nothing.
    let silent = spoiled(|f| f.template.rules = None).judge();
    assert_eq!((silent.decision, silent.not_evaluated), (Decision::Accept, vec!["S11", "S24"]));
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
