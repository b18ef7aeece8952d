//! Documents that a program can check: invariants and their guards, reasons, metrics, the
//! sample configuration, and the statements about the mining protocol with their tests.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway::config::Config;
use gateway::config::schema::KEYS;
use gateway::drive::exposition::Exposition;
use gateway::drive::ops::Blocks;
use gateway::reason::{Close, CloseCause, Reason};
use prometheus::core::Collector as _;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sv2::AuthorityKey;

use super::rust::{code, has_word};
use super::tree::{File, files, read, rust_files};

/// Numbers of invariants in a text: `I` and one or two digits, alone.
fn invariants(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    let is_number = |word: &&str| {
        let digits = word.strip_prefix('I').unwrap_or_default();
        (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    words.filter(is_number).map(str::to_owned).collect()
}

/// What stands between backticks.
fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Cells of the rows of all tables in a document, heads excepted.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = document.lines().collect();
    let is_rule = |line: &str| line.starts_with("| ---") || line.starts_with("|---");
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let is_head = lines.get(at + 1).is_some_and(|next| is_rule(next));
        if line.starts_with('|') && !is_rule(line) && !is_head {
            rows.push(line.trim_matches('|').split('|').map(str::trim).collect());
        }
    }
    rows
}

/// Invariants of the table, each with its guard.
fn guards(architecture: &str) -> Vec<(String, String)> {
    let rows = rows(architecture).into_iter().filter(|row| row.len() == 3);
    rows.filter(|row| !invariants(row[0]).is_empty())
        .map(|row| (row[0].to_owned(), row[2].to_owned()))
        .collect()
}

/// Complaints about one guard: it names a file that is not there, or a test that is not there.
fn guard(number: &str, guard: &str, all: &[File]) -> Vec<String> {
    let spans = spans(guard);
    let is_file = |span: &str| span.contains('/') || span.ends_with(".toml");
    let is_missing = |span: &&str| match is_file(span) {
        true => !all.iter().any(|file| file.path == *span || file.is_in(span)),
        false => !all.iter().any(|file| has_function(&file.text, span)),
    };
    let mut complaints: Vec<String> = spans
        .iter()
        .filter(|span| is_missing(span))
        .map(|span| format!("{number}: its guard `{span}` is neither a file nor a test"))
        .collect();
    if guard.is_empty() {
        complaints.push(format!("{number} has no guard"));
    }
    complaints
}

fn has_function(text: &str, name: &str) -> bool {
    let function = format!("fn {name}");
    text.contains(&function) && code(text).lines().any(|line| has_word(line, &function))
}

#[test]
fn every_invariant_has_a_place_and_a_guard() {
    let guards = guards(&read("docs/architecture.md"));
    let documented: BTreeSet<String> = guards.iter().map(|(number, _)| number.clone()).collect();
    assert_eq!(documented.len(), guards.len(), "each has one row");
    assert!(documented.len() >= 15, "{documented:?}");
    let all = files();
    let mut complaints: Vec<String> =
        guards.iter().flat_map(|(number, text)| guard(number, text, &all)).collect();
    for file in rust_files().iter().filter(|file| !file.is_in("tests/tidy")) {
        let unknown = invariants(&file.text).difference(&documented).cloned().collect::<Vec<_>>();
        let path = &file.path;
        complaints.extend(unknown.iter().map(|n| format!("{path}: {n} is not documented")));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn a_guard_that_is_not_there_is_seen() {
    let found = invariants("I1: a (I9, D37) I14. PI3 I123 `I2`");
    assert_eq!(found.iter().collect::<Vec<_>>(), ["I1", "I14", "I2", "I9"]);
    let table = "| | invariant | guard |\n| --- | --- | --- |\n| I1 | a | `src/a.rs`, `a_test` |";
    assert_eq!(guards(table), [("I1".to_owned(), "`src/a.rs`, `a_test`".to_owned())]);
    let all = [File::planted("src/a.rs", "fn a_test() {}\n// fn no_test")];
    assert!(guard("I1", "`src/a.rs`, `a_test`, `src/`", &all).is_empty());
    assert_eq!(guard("I1", "`src/b.rs` and `no_test`", &all).len(), 2);
    assert_eq!(guard("I1", "", &all).len(), 1);
}

/// Rows of `docs/reasons.md`: the code and the text on the wire.
fn reason_rows(document: &str) -> Vec<(String, String)> {
    let rows = rows(document).into_iter().filter(|row| row[0].starts_with('`') && row.len() >= 3);
    let first = |cell: &str| spans(cell).first().copied().unwrap_or_default().to_owned();
    rows.map(|row| (first(row[0]), first(row[1]))).collect()
}

#[test]
fn the_page_of_reasons_is_the_catalogue() {
    let reasons =
        Reason::ALL.iter().map(|reason| (reason.code().to_owned(), reason.error_code().to_owned()));
    let causes = CloseCause::ALL.iter().map(|cause| (cause.code().to_owned(), String::new()));
    let expected: Vec<_> = reasons.chain(causes).collect();
    assert_eq!(expected.len(), Close::COUNT);
    assert_eq!(reason_rows(&read("docs/reasons.md")), expected);
    let table = "| code | wire | m |\n|---|---|---|\n| `a_b` | `a-b` | c |\n| `d` | – | e |";
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(reason_rows(table), [pair("a_b", "a-b"), pair("d", "")]);
}

/// Codes are for ever: what was in the catalogue once stays in it.
#[test]
fn no_reason_has_gone() {
    let missing = |golden: &str| -> Vec<String> {
        let codes = golden.lines().filter_map(|line| line.split(' ').nth(1));
        let is_known = |code: &&str| Reason::ALL.iter().any(|reason| reason.code() == *code);
        codes.filter(|code| !is_known(code)).map(str::to_owned).collect()
    };
    assert!(missing(&read("tests/golden/reasons.txt")).is_empty());
    assert_eq!(
        missing("Share stale_share stale-share\nShare a_share_of_nobody"),
        ["a_share_of_nobody"]
    );
}

/// A family of metrics: name, kind, labels.
type Family = (String, String, String);

fn exposed() -> BTreeSet<Family> {
    let blocks =
        Blocks { shards: vec![Arc::default()], control: Arc::default(), forwarder: Arc::default() };
    let exposition = Exposition::new(Arc::new(blocks), "inline", Default::default());
    let families = exposition.collect();
    let family = |family: prometheus::proto::MetricFamily| {
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let labels = family.get_metric().iter().flat_map(|metric| metric.get_label());
        let labels: BTreeSet<String> = labels.map(|pair| pair.name().to_owned()).collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        (family.name().to_owned(), kind, labels)
    };
    families.into_iter().map(family).collect()
}

fn metric_rows(document: &str) -> Vec<Family> {
    let rows = rows(document).into_iter().filter(|row| row[0].starts_with("`reservegrid_"));
    rows.map(|row| (row[0].replace('`', ""), row[1].to_owned(), row[2].replace('`', ""))).collect()
}

#[test]
fn the_page_of_metrics_is_what_is_exposed() {
    let listed = metric_rows(&read("docs/metrics.md"));
    let documented: BTreeSet<Family> = listed.iter().cloned().collect();
    assert_eq!(documented.len(), listed.len(), "each has one row");
    let exposed = exposed();
    let missing: Vec<_> = exposed.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&exposed).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing {missing:?}, not {invented:?}");
    let table =
        "| name | kind | labels | m |\n|---|---|---|---|\n| `reservegrid_a` | gauge | `b` | |";
    assert_eq!(metric_rows(table), [("reservegrid_a".into(), "gauge".into(), "b".into())]);
}

/// Every `section.key` of the file.
fn keys(table: &toml::Table) -> BTreeSet<String> {
    let sections = table.iter().filter_map(|(name, value)| Some((name, value.as_table()?)));
    sections.flat_map(|(name, keys)| keys.keys().map(move |key| format!("{name}.{key}"))).collect()
}

/// Every `section.key` that the sample shows without giving it: `#key = value`.
fn left_out(text: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        }
        let name = line.strip_prefix('#').and_then(|line| Some(line.split_once(" = ")?.0));
        if let Some(name) = name.filter(|name| !name.contains(' ')) {
            keys.insert(format!("{section}.{name}"));
        }
    }
    keys
}

/// The sample with what an operator has to put in.
fn filled() -> toml::Table {
    let mut sample: toml::Table = read("config/gateway.toml").parse().unwrap();
    let key = AuthorityKey::generate(&mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    let inserts: [(&str, &str, toml::Value); 8] = [
        ("gateway", "http_api_key", "an api key of length".into()),
        ("gateway", "network", "signet".into()),
        ("noise", "privkey", key.to_text().as_str().into()),
        ("noise", "pubkey", key.public().to_text().into()),
        ("share", "share_upstream_secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()),
        ("mining", "instance_id", 1.into()),
        (
            "auth",
            "allowlist",
            toml::toml! { a = [{ username = "a", password = "b" }] }["a"].clone(),
        ),
        (
            "mining",
            "coinbase_outputs",
            toml::toml! { a = [{ address = "raw:51", share = 1 }] }["a"].clone(),
        ),
    ];
    for (section, key, value) in inserts {
        let place = sample[section].as_table_mut().unwrap().insert(key.into(), value);
        assert!(place.unwrap().to_string().contains("REQUIRED"), "{section}.{key} has a marker");
    }
    assert!(!sample.to_string().contains("REQUIRED"), "every marker is replaced");
    sample
}

#[test]
fn the_sample_configuration_is_complete_and_its_defaults_are_true() {
    let text = read("config/gateway.toml");
    let sample = filled();
    let shown: BTreeSet<String> = keys(&sample).union(&left_out(&text)).cloned().collect();
    assert_eq!(shown, KEYS.iter().map(|key| key.path.to_owned()).collect());
    assert!(left_out(&text).iter().all(|key| !comment_of(&text, key).is_empty()));
    let whole = format!("{:?}", Config::parse(&sample.to_string()).unwrap());
    assert!(Config::parse(&text).is_err(), "an unfilled sample does not start");
    for key in keys(&sample) {
        let (section, name) = key.split_once('.').unwrap();
        let mut without = sample.clone();
        without[section].as_table_mut().unwrap().remove(name);
        let is_required = comment_of(&text, &key).starts_with("REQUIRED.");
        match Config::parse(&without.to_string()) {
            Ok(config) => {
                assert!(!is_required, "{key} is marked as required and is not");
                assert_eq!(format!("{config:?}"), whole, "the value of {key} is its default");
            }
            Err(error) => assert!(is_required, "{key} is required and not marked: {error}"),
        }
    }
}

/// The comment above a key, whether the sample gives it or leaves it out.
fn comment_of(text: &str, key: &str) -> String {
    let (section, name) = key.split_once('.').unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|line| *line == format!("[{section}]")).unwrap();
    let is_it = |line: &&str| line.trim_start_matches('#').starts_with(&format!("{name} = "));
    let at = start + lines[start..].iter().position(is_it).unwrap();
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with('#'));
    let above: Vec<&str> = above.map(|line| line.trim_start_matches(['#', ' '])).collect();
    assert!(!above.is_empty(), "{key} has its reason above it");
    above.into_iter().rev().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_key_that_is_not_in_the_sample_is_seen() {
    let text = "[a]\n# One = two.\n#left_out = 1\n[b]\n# REQUIRED. Three\n# four.\nkey = 1";
    assert_eq!(left_out(text), BTreeSet::from(["a.left_out".to_owned()]));
    let table: toml::Table = "[a]\nkey = 1\nother = 2".parse().unwrap();
    assert_eq!(keys(&table).len(), 2);
    assert_eq!(comment_of(text, "b.key"), "REQUIRED. Three four.");
    assert_eq!(comment_of(text, "a.left_out"), "One = two.");
}

/// Rows of the table of statements: the number, and the tests that show it as `file::test`.
fn statement_rows(document: &str) -> Vec<(u32, Vec<String>)> {
    let rows = rows(document).into_iter().filter(|row| row.len() == 3);
    let rows = rows.filter_map(|row| Some((row[0].parse().ok()?, row[2])));
    rows.map(|(number, tests)| (number, spans(tests).into_iter().map(str::to_owned).collect()))
        .collect()
}

/// Complaints about the statements `required`: one has no row or no test, or two rows, or names a
/// test that is not there.
fn statements(document: &str, required: &BTreeSet<u32>, all: &[File]) -> Vec<String> {
    let rows = statement_rows(document);
    let with_tests: Vec<u32> =
        rows.iter().filter(|(_, tests)| !tests.is_empty()).map(|(number, _)| *number).collect();
    let mut complaints: Vec<String> = required
        .iter()
        .filter(|number| with_tests.iter().filter(|other| other == number).count() != 1)
        .map(|number| format!("statement {number} needs one row that names its tests"))
        .collect();
    for (number, test) in rows.iter().flat_map(|(n, tests)| tests.iter().map(move |t| (n, t))) {
        let there = test.split_once("::").is_some_and(|(path, name)| {
            all.iter().any(|file| file.path == path && has_function(&file.text, name))
        });
        if !there {
            complaints.push(format!("statement {number}: `{test}` is not a test that is there"));
        }
    }
    complaints
}

/// Every statement about the mining protocol that holds names the tests that show it.
#[test]
fn every_statement_names_its_tests() {
    let required: BTreeSet<u32> = (1..=87).chain([92]).chain(94..=98).collect();
    let document = read("docs/protocol.md");
    let complaints = statements(&document, &required, &files());
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    let told: BTreeSet<u32> = statement_rows(&document).iter().map(|(n, _)| *n).collect();
    assert_eq!(told, (1..=100).collect(), "what does not hold yet is told, too");
}

#[test]
fn a_statement_without_a_test_is_seen() {
    let all = [File::planted("tests/a.rs", "fn shown() {}\n// fn not_shown() {}")];
    let table = |tests: &str| format!("| n | what | shown by |\n| --- | --- | --- |\n{tests}");
    let required = BTreeSet::from([1]);
    let count = |rows: &str| statements(&table(rows), &required, &all).len();
    assert_eq!(count("| 1 | a | `tests/a.rs::shown` |"), 0);
    assert_eq!(count("| 1 | a | – |"), 1);
    assert_eq!(count("| 2 | a | `tests/a.rs::shown` |"), 1);
    assert_eq!(count("| 1 | a | `tests/a.rs::not_shown` |"), 1);
    assert_eq!(count("| 1 | a | `tests/b.rs::shown` |"), 1);
    assert_eq!(count("| 1 | a | `shown` |"), 1);
}
