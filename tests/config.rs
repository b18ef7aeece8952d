//! The configuration as its operator meets it: what is refused and how that is told, what is
//! accepted and warned of, the environment, and the product page's own file.
//!
//! Each file in `tests/golden/config/refused` and `accepted` is one case: what differs from
//! `base.toml`, then what is said. With `UPDATE_GOLDEN=1` what is said now is written there.
//!
//! ```text
//! -old line      this line of base.toml goes; the + lines behind it take its place
//! +new line      without a - before them they come at the end
//! |line          the whole file, instead of base.toml
//! env NAME=VALUE
//! file NAME MODE TEXT     a file in the folder of the configuration, which reads FOLDER
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "config/black_box.rs"]
mod black_box;
#[path = "config/case.rs"]
mod case;
#[path = "config/environment.rs"]
mod environment;
#[path = "config/product_page.rs"]
mod product_page;
#[path = "config/values.rs"]
mod values;

use case::{Case, cases};
use gateway::config::problem::ERRORS_TOLD_MAX;

/// Mistakes that are kept as examples, at least.
const REFUSED_MIN: usize = 50;

#[test]
fn every_mistake_is_told_as_it_is_written_here() {
    let cases = cases("refused");
    assert!(cases.len() >= REFUSED_MIN, "{} cases", cases.len());
    let told = |case: &Case| match case.read() {
        Ok(_) => panic!("{} is accepted", case.name()),
        Err(refusal) => refusal.to_string(),
    };
    let differing: Vec<String> =
        cases.iter().filter_map(|case| case.compare(&told(case))).collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn what_is_accepted_is_warned_of_as_it_is_written_here() {
    let told = |case: &Case| match case.read() {
        Err(refusal) => format!("it was refused\n{refusal}"),
        Ok(checked) => {
            let warnings = checked.warnings.iter().map(|warning| warning.text(&checked.file));
            let notes = checked.notes.iter().map(|note| format!("note: {note}\n"));
            warnings.chain(notes).collect()
        }
    };
    let cases = cases("accepted");
    let differing: Vec<String> =
        cases.iter().filter_map(|case| case.compare(&told(case))).collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Goal: secrets are in no message, whatever is wrong with them.
#[test]
fn no_message_repeats_a_secret() {
    const OPEN: &str = "sesame-open-thyself";
    let places = [
        "-http_api_key = \"an-api-key-for-tests\"\n+http_api_key = [\"PASSWORD\", 5]",
        "-privkey = \"29CsU7iymhV6PAAH1no2rwtdFfN72a58cXYzPwNsG93c6Dvm2z\"\n\
         +privkey = \"PASSWORD\"",
        "-pubkey = \"9b9gWp2qwzQciqWjyCnugAL2wLBt5Mzt8A19nuy5NNWxrBCaFUb\"\n\
         +pubkey = \"file:PASSWORD\"\n-instance_id = 1\n+instance_id = 70000",
        "-network = \"regtest\"\n+network = \"regtest\"\n+upstream_auth = \"PASSWORD\"",
        "-upstream_url = \"http://127.0.0.1:8082\"\n+upstream_url = \"ftp://user:PASSWORD@host\"",
        "-upstream_url = \"http://127.0.0.1:8082\"\n+upstream_url = \"http://PASSWORD@host:1\"",
        "-share_upstream_url = \"https://pool.example/shares\"\n\
         +share_upstream_url = \"nats://u:PASSWORD@host\"",
        "-allowlist = [{ username = \"alice\", password = \"hunter2\" }]\n\
         +allowlist = [{ username = \"alice\", password = \"PASSWORD:\" }]",
        "-allowlist = [{ username = \"alice\", password = \"hunter2\" }]\n\
         +allowlist = [{ username = \"alice\", passwort = \"PASSWORD\" }]",
        "-allowlist = [{ username = \"alice\", password = \"hunter2\" }]\n\
         +allowlist = [\"alice:PASSWORD\"]",
        "env VELDRA_SHARE__SHARE_UPSTREAM_SECRET=whsec_PASSWORD",
        "-mode = \"allowlist\"\n+mode = \"allowlist\"\n+x = \"PASSWORD",
    ];
    for (number, place) in places.iter().enumerate() {
        let is_public = place.contains("pubkey = \"file");
        let case = Case::of(&place.replace("PASSWORD", OPEN));
        let refusal = case.read().expect_err(place);
        let lines = refusal.errors.iter().map(|error| error.line("f")).collect::<String>();
        let said = format!("{refusal}{lines}{refusal:?}");
        assert_eq!(said.contains(OPEN), is_public, "{number}: {said}");
    }
}

/// Goal: a file that is something else entirely does not make a message of its size.
#[test]
fn of_many_mistakes_the_first_are_told() {
    let lines: String = (0..5_000).map(|number| format!("+strange_{number} = 1\n")).collect();
    let refusal = Case::of(&lines).read().unwrap_err();
    assert_eq!((refusal.errors.len(), refusal.untold), (ERRORS_TOLD_MAX, 4_900));
    let said = refusal.to_string();
    assert!(said.starts_with("gateway.toml: 5000 mistakes") && said.ends_with("and 4900 more\n"));
    assert!(said.contains("gateway.toml:31:1: mining.strange_0\n"), "{said}");
}
