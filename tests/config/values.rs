//! What accepted values become.

use gateway::config::auth::Auth;
use gateway::config::schema::{KEYS, SECTIONS};

use super::case::Case;
use gateway::config::Config;

fn config(input: &str) -> Config {
    let checked = Case::of(input).read();
    checked.unwrap_or_else(|refusal| panic!("{input}\n{refusal}")).config
}

/// Goal: the contract's 51 keys, by name: whoever changes one changes this list, too.
#[test]
fn the_keys_are_those_of_the_contract() {
    let mut text = String::new();
    for section in SECTIONS {
        let names = KEYS.iter().filter(|key| key.section() == section);
        let names: Vec<&str> = names.map(|key| key.name()).collect();
        text.push_str(&format!("[{section}] {}\n{}\n", names.len(), names.join("\n")));
    }
    let golden = std::fs::read_to_string(super::case::golden().join("keys.txt")).unwrap();
    assert_eq!(text, golden);
    assert_eq!(KEYS.len(), 51);
}

#[test]
fn version_bits_have_a_mask() {
    let check = |value: &str, mask: u32| {
        let config = config(&format!("+version_rolling = \"{value}\""));
        assert_eq!(config.version_rolling_mask, mask, "{value}");
        assert_eq!(config.version_rolling, mask != 0, "{value}");
    };
    check("bip323", 0x1fff_ffe0);
    check("bip320", 0x1fff_e000);
    check("off", 0);
    assert_eq!(config("").version_rolling_mask, 0x1fff_ffe0);
}

#[test]
fn names_are_as_long_as_the_protocol_carries() {
    let check = |value: u32, effective: usize| {
        let line =
            format!("-mode = \"allowlist\"\n+mode = \"allowlist\"\n+max_worker_id_bytes = {value}");
        assert_eq!(config(&line).max_worker_id_bytes, effective, "{value}");
    };
    check(1, 1);
    check(255, 255);
    check(256, 255);
    check(65_535, 255);
    assert_eq!(config("").max_worker_id_bytes, 255);
}

#[test]
fn the_easiest_difficulty_depends_on_the_chain() {
    assert_eq!(config("").min_difficulty, 0.0, "regtest");
    assert_eq!(config("+min_difficulty = 2").min_difficulty, 2.0);
    let main = "-network = \"regtest\"\n+network = \"main\"\n\
                -coinbase_outputs = [{ address = \"bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x\", \
                share = 1 }]\n\
                +coinbase_outputs = [{ address = \"raw:51\", share = 1 }]";
    assert_eq!(config(main).min_difficulty, 1.0);
}

#[test]
fn keys_and_secrets_can_be_lists() {
    let keys = config(
        "-http_api_key = \"an-api-key-for-tests\"\n\
         +http_api_key = [\"the-new-key-of-api\", \"the-old-key-of-api\"]\n\
         -share_upstream_secret = \"whsec_dGhlIHNlY3JldCBvZiB0aGUgZW5kLXRvLWVuZCB0ZXN0cw==\"\n\
         +share_upstream_secret = [\"new\", \"old\"]",
    );
    let revealed: Vec<&str> = keys.http_api_keys.iter().map(|key| key.reveal()).collect();
    assert_eq!(revealed, ["the-new-key-of-api", "the-old-key-of-api"]);
    assert_eq!(keys.share_upstream_secret.reveal(), "new", "the first signs");
    assert_eq!(keys.share_upstream_secrets.len(), 2);
    let shown = format!("{keys:?}");
    assert!(!shown.contains("key-of-api") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_lists_of_names_are_kept_apart() {
    let Auth::Allowlist(list) = config("").auth else { panic!("an allowlist") };
    assert_eq!((list[0].username.as_str(), list[0].password.reveal()), ("alice", "hunter2"));
    let map = "-mode = \"allowlist\"\n+mode = \"prefix_map\"\n\
               +prefix_map = [{ prefix = \"farm1_\", secret = \"a\" }]";
    let Auth::PrefixMap(map) = config(map).auth else { panic!("a prefix map") };
    assert_eq!((map[0].prefix.as_str(), map[0].secret.reveal()), ("farm1_", "a"));
}

/// Goal: shadow mode needs neither a port, nor a backend, nor payouts: there are no miners.
#[test]
fn shadow_mode_needs_nothing_of_miners() {
    let shadow = config(
        "|[gateway]\n|mode = \"shadow\"\n|verifier_addr = \"127.0.0.1:5001\"\n\
         |upstream_url = \"http://127.0.0.1:8082\"\n|upstream_failure_policy = \"permit_all\"\n\
         |http_api_key = \"an-api-key-for-tests\"\n|network = \"main\"\n\
         |[noise]\n|privkey = \"29CsU7iymhV6PAAH1no2rwtdFfN72a58cXYzPwNsG93c6Dvm2z\"\n\
         |pubkey = \"9b9gWp2qwzQciqWjyCnugAL2wLBt5Mzt8A19nuy5NNWxrBCaFUb\"\n\
         |[timing]\n|prevhash_verdict_timeout_ms = 50\n|prevhash_stale_hold_ms = 5000\n\
         |[auth]\n|mode = \"open\"",
    );
    assert_eq!(shadow.payouts.len(), 1);
    assert!(shadow.share_upstream_url.is_empty());
}
