//! The catalogue as a contract, policy.toml and its errors, and judging as a pure function of
//! any bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::*;
use policy::{CHECKS, JudgedTransaction, Policy, Proposal, TransactionFacts};
use proptest::prelude::*;
use work::contract::bytes::HexBytes;
use work::payout::Network;
use work::verdict::VERDICT_REASONS_MAX;
use work::{Decision, MerkleNode, Wtxid};

/// Goal: ids, codes and default severities are for ever; new ones may come (D11).
/// Method: every line of the golden file is a line of the catalogue, and the reverse, so a new
/// check also has to be written down.
#[test]
fn codes_only_grow() {
    let golden = include_str!("golden/codes.txt");
    let lines = CHECKS
        .each_ref()
        .map(|check| format!("{} {} {}", check.id, check.codes.join(","), check.severity.name()));
    for line in golden.lines() {
        assert!(lines.iter().any(|ours| ours == line), "gone from the catalogue: {line}");
    }
    for line in &lines {
        assert!(golden.lines().any(|old| old == line), "add to golden/codes.txt: {line}");
    }
}

#[test]
fn codes_are_unique_and_fit_a_verdict() {
    let mut codes: Vec<&str> = CHECKS.iter().flat_map(|check| check.codes).copied().collect();
    assert!(codes.len() < VERDICT_REASONS_MAX);
    let count = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), count);
}

fn error_of(text: &str) -> policy::TomlError {
    Policy::parse(text, Network::Regtest).unwrap_err()
}

#[test]
fn errors_say_where_what_and_what_instead() {
    let check = |added: &str, key: &str, line: usize, words: &str| {
        let error = error_of(&format!("{POLICY}{added}"));
        assert_eq!((error.key.as_str(), error.line), (key, line), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    check("[structure]\nweight_max = 4000001\n", "structure.weight_max", 6, "0 to 4000000");
    check("[structure]\ntx_weight_max = 4000001\n", "structure.tx_weight_max", 6, "4000000");
    check("[structure]\nweight_max = -1\n", "structure.weight_max", 6, "-1");
    check("[structure]\nsigops_max = \"a\"\n", "structure.sigops_max", 6, "u64");
    check("[structure]\nweigth_max = 1\n", "structure.weigth_max", 6, "weight_max");
    check("[severity]\nS99 = \"deny\"\n", "severity.S99", 6, "one of S01");
    check("[severity]\nS01 = \"maybe\"\n", "severity.S01", 6, "deny");
    check("[shape]\n", "shape", 5, "structure");
    let check = |text: &str, key: &str, place: (usize, usize), words: &str| {
        let error = error_of(text);
        assert_eq!((error.line, error.column), place, "{error}");
        assert_eq!(error.key, key, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    check("", "version", (1, 1), "missing field");
    check("version = \"1\"", "payout.outputs", (1, 1), "coinbase_outputs");
    check("version = \"\"\n", "version", (1, 11), "1 to 128");
    check("version = \"1\"\n[payout]\noutputs = []", "payout.outputs", (3, 11), "0 outputs");
    let wrong_chain = "version = \"1\"\n[payout]\noutputs = [{ address = \
                       \"bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq\", share = 1 }]";
    check(wrong_chain, "payout.outputs", (3, 24), "not an address of regtest");
    check("version = \"1\n", "version", (1, 13), "");
}

#[test]
fn the_hash_names_what_rules_not_how_it_is_written() {
    let hash = |text: &str| Policy::parse(text, Network::Regtest).unwrap().hash().to_owned();
    let plain = hash(POLICY);
    assert!(plain.starts_with("sha256:") && plain.len() == 7 + 64);
    let spelled_out = format!(
        "# the same\n{POLICY}\n[structure]\nweight_max = 4_000_000\n[severity]\nS01 = \"deny\"\n"
    );
    assert_eq!(hash(&spelled_out), plain);
    for other in [
        format!("{POLICY}[structure]\nweight_max = 3_999_999\n"),
        format!("{POLICY}[severity]\nS01 = \"warn\"\n"),
        format!("{POLICY}[structure]\nsize_max = 1\n"),
        format!("{POLICY}[structure]\nstripped_size_max = 1\n"),
        format!("{POLICY}[structure]\ntx_weight_max = 1\n"),
        format!("{POLICY}[empty_block]\nallow_for_ms_after_tip = 1\n"),
        format!("on_missing_context = \"warn\"\n{POLICY}"),
        POLICY.replace("share = 3", "share = 2"),
        POLICY.replace("fixture", "other"),
    ] {
        assert_ne!(hash(&other), plain, "{other}");
    }
}

/// Goal: the shipped preset accepts a full template of an unmodified node (D39).
#[test]
fn the_shipped_preset_leaves_consensus_limits_alone() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/policy.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let policy = Policy::parse(&text, Network::Regtest).unwrap();
    assert_eq!((policy.weight_max, policy.sigops_max), (4_000_000, 80_000));
    assert_eq!(policy.payouts.len(), 1);
    for (position, check) in CHECKS.iter().enumerate() {
        assert_eq!(policy.severity(position), check.severity, "{}", check.id);
    }
}

/// Goal: a block filled to the last transaction passes, one beyond it does not (D39).
#[test]
fn a_full_template_passes() {
    let one = transaction(0).weight().to_wu();
    let rest = 4 * (80 + 3) + policy::coinbase::weight(&Fixture::new().template.coinbase);
    let count = u32::try_from((4_000_000 - rest) / one).unwrap();
    let of = |count| Fixture::of((0..count).map(|number| proposed(&transaction(number))).collect());
    let full = of(count).judge();
    assert_eq!(full.decision, Decision::Accept);
    assert!(full.details.is_empty(), "{:?}", full.details);
    assert_eq!(of(count + 1).judge().reason_codes, ["weight_exceeded"]);
}

/// Goal: the same input gives the same verdict, byte for byte, and it binds what was judged.
#[test]
fn verdicts_repeat_and_bind_bytes() {
    let verdict = |fixture: &Fixture| {
        let verdict = fixture.judge().verdict(&fixture.template, &fixture.policy, 1);
        serde_json::to_vec(&verdict).unwrap()
    };
    let mut fixture = Fixture::new();
    assert_eq!(verdict(&fixture), verdict(&Fixture::new()));
    fixture.template.nbits = 1;
    fixture.transactions.reverse();
    assert_eq!(verdict(&fixture), verdict(&fixture.clone()));
    let job = work::job::body_hash(
        &fixture.template.coinbase.prefix.0,
        &fixture.template.coinbase.suffix.0,
        &fixture.template.merkle_path,
        fixture.template.version,
        fixture.template.height,
        16,
    );
    let verdict = fixture.judge().verdict(&fixture.template, &fixture.policy, 1);
    assert_eq!(verdict.body_hash, HexBytes(job.to_vec()));
    assert_eq!(verdict.verdict, Decision::Reject);
}

/// Transactions that are any bytes, or good ones with one byte changed.
fn any_transaction() -> impl Strategy<Value = Vec<u8>> {
    let good = bitcoin::consensus::encode::serialize(&transaction(1));
    let flipped = (0..good.len(), any::<u8>()).prop_map(move |(at, byte)| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..300), flipped]
}

proptest! {
    /// Goal: no bytes of a peer make judging panic, and a reject always says why.
    #[test]
    fn judging_is_total(
        data in prop::collection::vec((any_transaction(), any::<u64>(), any::<u32>()), 0..6),
        names in prop::collection::vec(any::<[u8; 32]>(), 6),
        cut in 0usize..200,
        prefix in prop::option::of(prop::collection::vec(any::<u8>(), 0..120)),
        suffix in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        extranonce_len in prop_oneof![0usize..300, Just(usize::MAX)],
        numbers in any::<[u32; 5]>(),
        value in any::<u64>(),
        path in prop::collection::vec(any::<[u8; 32]>(), 0..20),
        on_tip in any::<bool>(),
    ) {
        let mut fixture = Fixture::new();
        let template = &mut fixture.template;
        template.coinbase.suffix.0.truncate(cut);
        if let Some(prefix) = prefix { template.coinbase.prefix.0 = prefix; }
        if let Some(suffix) = suffix { template.coinbase.suffix.0 = suffix; }
        template.coinbase.extranonce_len = extranonce_len;
        template.coinbase.value = value;
        [template.height, template.version, template.nbits, template.curtime, template.min_time] =
            numbers;
        template.merkle_path = path.into_iter().map(MerkleNode).collect();
        if !on_tip { template.prev_hash = tip_hash(9); }
        let transactions: Vec<JudgedTransaction> = data
            .iter()
            .zip(&names)
            .map(|((data, fee, sigops), name)| JudgedTransaction {
                wtxid: Wtxid(*name),
                fee: *fee,
                sigops: *sigops,
                facts: Arc::new(TransactionFacts::from_bytes(data)),
            })
            .collect();
        let proposal = Proposal { template: &fixture.template, transactions: &transactions };
        let ruling = policy::judge(&proposal, &fixture.context, &fixture.policy);
        prop_assert_eq!(&ruling, &policy::judge(&proposal, &fixture.context, &fixture.policy));
        prop_assert_eq!(ruling.decision, Decision::Reject);
        prop_assert!(!ruling.reason_codes.is_empty());
    }

    /// Goal: no text makes the policy reader panic.
    #[test]
    fn reading_a_policy_is_total(start in 0usize..200, end in 0usize..200, any in ".{0,40}") {
        let text = format!("{POLICY}[severity]\nS01 = \"warn\"\n[structure]\nweight_max = 1\n");
        let (start, end) = (start.min(end).min(text.len()), start.max(end).min(text.len()));
        let mut cut = text.clone();
        cut.replace_range(start..end, &any);
        if let Err(error) = Policy::parse(&cut, Network::Regtest) {
            prop_assert!(error.line >= 1 && error.column >= 1);
        }
    }
}
