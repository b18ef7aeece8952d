//! The environment: overrides, files with secrets, hatches, and where each value comes from.

use gateway::config::Checked;
use gateway::config::hatch::Hatch;

use super::case::Case;

fn accepted(input: &str) -> Checked {
    Case::of(input).read().unwrap_or_else(|refusal| panic!("{input}\n{refusal}"))
}

/// Value and origin of a key as `config show` has them.
fn setting(checked: &Checked, path: &str) -> (String, &'static str) {
    let setting = checked.settings.iter().find(|setting| setting.key.path == path).unwrap();
    let value = setting.value.as_ref().map_or("none".to_owned(), |value| value.to_string());
    (value, setting.origin.name())
}

#[test]
fn values_come_from_the_environment_before_the_file_before_the_default() {
    let checked = accepted(
        "env VELDRA_GATEWAY__MODE=observe\n\
         env VELDRA_TIMING__NONCE_EXPIRE_SECS=90\n\
         env VELDRA_CORES__SHARDS=[0, 1]\n\
         env VELDRA_NOISE__AUTHORIZED_KEYS=[]\n\
         env VELDRA_AUTH__ALLOWLIST=[{ username = \"bob\", password = \"x\" }]\n\
         env PATH=elsewhere",
    );
    let config = &checked.config;
    assert_eq!(config.mode.name(), "observe");
    assert_eq!(config.nonce_expire_secs, 90);
    assert_eq!(config.shards, [0, 1]);
    assert_eq!(format!("{:?}", config.auth).matches("bob").count(), 1);
    assert_eq!(setting(&checked, "gateway.mode"), ("\"observe\"".into(), "env"));
    assert_eq!(setting(&checked, "timing.nonce_expire_secs"), ("90".into(), "env"));
    assert_eq!(setting(&checked, "gateway.network"), ("\"regtest\"".into(), "file"));
    assert_eq!(setting(&checked, "timing.setup_timeout_ms"), ("10000".into(), "default"));
    assert_eq!(setting(&checked, "gateway.upstream_auth"), ("none".into(), "default"));
    assert_eq!(setting(&checked, "gateway.http_api_key"), ("\"***\"".into(), "file"));
    assert_eq!(setting(&checked, "gateway.max_connections"), ("18000".into(), "default"));
    let (list, _) = setting(&checked, "auth.allowlist");
    assert!(list.contains("bob") && list.contains("***"), "{list}");
    assert_eq!(checked.settings.len(), 51);
}

#[test]
fn secrets_come_from_files() {
    let checked = accepted(
        "-http_api_key = \"an-api-key-for-tests\"\n\
         env VELDRA_GATEWAY__HTTP_API_KEY_FILE=FOLDER/key\n\
         env VELDRA_AUTH__ALLOWLIST_FILE=FOLDER/list\n\
         file key 0600 1234567890123456\n\
         file list 0400 [{ username = \"carol\", password = \"x\" }]",
    );
    assert_eq!(checked.config.http_api_keys[0].reveal(), "1234567890123456");
    assert!(format!("{:?}", checked.config.auth).contains("carol"));
    let list = checked.settings.iter().find(|setting| setting.key.path == "auth.allowlist");
    let origin = &list.unwrap().origin;
    assert!(format!("{origin:?}").contains("VELDRA_AUTH__ALLOWLIST_FILE"), "{origin:?}");

    let key = "29CsU7iymhV6PAAH1no2rwtdFfN72a58cXYzPwNsG93c6Dvm2z";
    let checked =
        accepted(&format!("-privkey = \"{key}\"\n+privkey = \"file:key\"\nfile key 0600 {key}"));
    let public = "9b9gWp2qwzQciqWjyCnugAL2wLBt5Mzt8A19nuy5NNWxrBCaFUb";
    assert_eq!(checked.config.authority.public().to_text(), public);
}

/// Goal: each hatch suspends its rule, is known to the gateway, and is warned of.
#[test]
fn hatches_suspend_their_rule_and_are_told() {
    let rules = [
        (Hatch::OpenAuthInline, "-mode = \"allowlist\"\n+mode = \"open\""),
        (
            Hatch::PermitAllInline,
            "-upstream_failure_policy = \"fail_closed\"\n+upstream_failure_policy = \"permit_all\"",
        ),
        (
            Hatch::EphemeralNoiseKey,
            "-privkey = \"29CsU7iymhV6PAAH1no2rwtdFfN72a58cXYzPwNsG93c6Dvm2z\"\n\
             -pubkey = \"9b9gWp2qwzQciqWjyCnugAL2wLBt5Mzt8A19nuy5NNWxrBCaFUb\"",
        ),
        (
            Hatch::InsecureHttp,
            "-share_upstream_url = \"https://pool.example/shares\"\n\
             +share_upstream_url = \"http://pool.example/shares\"",
        ),
        (Hatch::InsecureHttp, "-http_api_key = \"an-api-key-for-tests\""),
        (
            Hatch::InsecureHttp,
            "env VELDRA_GATEWAY__HTTP_API_KEY_FILE=FOLDER/key\nfile key 0644 1234567890123456",
        ),
    ];
    for (hatch, rule) in rules {
        let refusal = Case::of(rule).read().expect_err(rule);
        assert_eq!(refusal.errors.len(), 1, "{rule}: {refusal}");
        let checked = accepted(&format!("{rule}\nenv {}=1", hatch.name()));
        assert!(checked.config.hatches.iter().eq([hatch]), "{rule}");
        let told = checked.warnings.iter().filter(|warning| warning.key == "escape hatch");
        assert_eq!(told.count(), 1, "{rule}");
        for other in Hatch::ALL.into_iter().filter(|other| *other != hatch) {
            let case = Case::of(&format!("{rule}\nenv {}=1", other.name()));
            assert!(case.read().is_err(), "{rule} with {}", other.name());
        }
    }
    for hatch in [Hatch::NoShareUpstreamReadyInline, Hatch::UnsyncedNode] {
        assert!(accepted(&format!("env {}=1", hatch.name())).config.hatches.is_open(hatch));
    }
}

/// Goal: an ephemeral key is made of what the process was given, and its public half is told.
#[test]
fn an_ephemeral_key_is_made_and_told() {
    let checked = accepted(
        "-privkey = \"29CsU7iymhV6PAAH1no2rwtdFfN72a58cXYzPwNsG93c6Dvm2z\"\n\
         -pubkey = \"9b9gWp2qwzQciqWjyCnugAL2wLBt5Mzt8A19nuy5NNWxrBCaFUb\"\n\
         env VELDRA_ALLOW_EPHEMERAL_NOISE_KEY=1",
    );
    assert!(checked.config.authority_is_ephemeral);
    let public = checked.config.authority.public().to_text();
    let told = checked.warnings.iter().any(|warning| warning.got.contains(&public));
    assert!(told, "{:?}", checked.warnings);
    assert!(!accepted("").config.authority_is_ephemeral);
}
