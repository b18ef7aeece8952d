//! The file on the product's own page (D41): one message names what it lacks, and with that it
//! passes.

use std::fs;
use std::path::Path;

use gateway::config::auth::Auth;
use gateway::config::problem::Refusal;
use gateway::config::{Checked, read_text};

use super::case::{Case, golden, surroundings};

fn page() -> String {
    fs::read_to_string(golden().join("product-page.toml")).unwrap()
}

fn read(text: &str) -> Result<Checked, Refusal> {
    read_text("gateway.toml", text, Path::new(""), &surroundings(&[]))
}

/// The page with what its message asks for.
fn completed() -> String {
    let mut text = page().replace(
        "http_api_key = \"your-secret-here\"",
        "http_api_key = \"c2VjcmV0IG9mIG15IG93bg\"\n\
         network = \"main\"\n\
         upstream_auth = \"cookie:/var/lib/bitcoind/.cookie\"",
    );
    text.push_str(
        "[noise]\n\
         privkey = \"29CsU7iymhV6PAAH1no2rwtdFfN72a58cXYzPwNsG93c6Dvm2z\"\n\
         pubkey = \"9b9gWp2qwzQciqWjyCnugAL2wLBt5Mzt8A19nuy5NNWxrBCaFUb\"\n\
         [mining]\n\
         coinbase_outputs = [{ address = \"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\", \
         share = 1 }]\n\
         instance_id = 1\n",
    );
    text
}

#[test]
fn one_message_lists_what_it_lacks() {
    let refusal = read(&page()).unwrap_err();
    assert_eq!(refusal.errors.len(), 1, "{refusal}");
    let said = refusal.to_string();
    for line in [
        "http_api_key = ",
        "network = ",
        "upstream_auth = ",
        "privkey = ",
        "pubkey = ",
        "coinbase_outputs = ",
        "instance_id = ",
    ] {
        let pasted = said.lines().filter(|said| said.trim_start().starts_with(line));
        assert_eq!(pasted.count(), 1, "{line}: {said}");
    }
    let case = Case::whole(&golden().join("product-page.txt"));
    assert_eq!(case.compare(&said), None);
}

#[test]
fn with_that_it_passes_and_plain_http_is_warned_of() {
    let checked = read(&completed()).unwrap_or_else(|refusal| panic!("{refusal}"));
    let config = &checked.config;
    assert_eq!(config.max_worker_id_bytes, 255, "512 is no mistake, and 255 is what counts");
    assert!(checked.notes.iter().any(|note| note.contains("max_worker_id_bytes = 512")));
    assert!(matches!(&config.auth, Auth::PrefixMap(map) if map.len() == 2), "{:?}", config.auth);
    assert_eq!(config.upstream_url, "http://bitcoind:8332");
    assert_eq!(config.upstream_auth.as_ref().unwrap().reveal(), "cookie:/var/lib/bitcoind/.cookie");
    let http: Vec<&str> = checked
        .warnings
        .iter()
        .filter(|warning| warning.got.starts_with("plain http"))
        .map(|warning| warning.key.as_str())
        .collect();
    assert_eq!(http, ["gateway.upstream_url", "share.share_upstream_url"]);
}

/// Goal: each line that the message asks for is needed.
#[test]
fn without_any_one_of_them_it_does_not_pass() {
    let completed = completed();
    for start in
        ["network", "upstream_auth", "privkey", "pubkey", "coinbase_outputs", "instance_id"]
    {
        let kept = completed.lines().filter(|line| !line.starts_with(start));
        let without: String = kept.map(|line| format!("{line}\n")).collect();
        let refusal = read(&without).expect_err(start);
        assert_eq!(refusal.errors.len(), 1, "{start}: {refusal}");
        assert!(refusal.to_string().contains(&format!("\n              {start} = ")), "{refusal}");
    }
}

/// Goal: public hosts by plain http need the hatch.
#[test]
fn public_hosts_by_plain_http_need_the_hatch() {
    let public = completed().replace("http://pool-backend:9090", "http://pool.example:9090");
    let refusal = read(&public).unwrap_err();
    assert!(refusal.to_string().contains("VELDRA_ALLOW_INSECURE_HTTP=1"), "{refusal}");
    let hatch = surroundings(&[("VELDRA_ALLOW_INSECURE_HTTP".into(), "1".into())]);
    assert!(read_text("gateway.toml", &public, Path::new(""), &hatch).is_ok());
}
