//! What each program of a demo is told: its configuration file or its flags. Pure: keys, folders
//! and addresses are passed in.

use std::ffi::OsString;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sv2::AuthorityKey;

use super::folder::Addresses;

/// Every address: loopback, a port that the kernel picks.
const ANY_PORT: &str = "127.0.0.1:0";

/// The chain whose addresses and rules the simulated chain takes.
const NETWORK: &str = "regtest";

/// Bits of the simulated chain: one block in about 4.8 million hashes (D52).
const NBITS: &str = "1e0377ae";

/// Hashes a second of all miners together: a block in about 20 s, a tenth of a core.
const HASHRATE_SUM: u64 = 250_000;

/// Who is paid by the demo's blocks. They are worth nothing; the address is BIP173's example.
const PAYOUT_ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// Connections that loadgen opens in a second.
const RAMP_PER_SECOND: u32 = 500;

/// Connections beyond the miners' own, for whoever wants to try a miner on the demo.
const SPARE_CONNECTIONS: u32 = 1_000;

/// What is drawn at random for one demo.
#[derive(Debug)]
pub struct Keys {
    /// The gateway's authority key.
    pub authority: AuthorityKey,
    /// Signs share batches.
    pub share_secret: [u8; 32],
    /// Opens the gateway's HTTP API.
    pub api_key: [u8; 32],
}

impl Keys {
    /// The text of [`Keys::share_secret`] that gateway and backend are given.
    pub fn share_secret_text(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.share_secret))
    }
}

/// Configuration of template-manager.
///
/// # Errors
/// A sentence when a path is not text.
pub fn template_manager(data_dir: &Path, block_interval_ms: u64) -> Result<String, String> {
    render(&json!({
        "listen_addr": ANY_PORT,
        "network": NETWORK,
        "data_dir": text(data_dir)?,
        "source": "demo://",
        "demo": { "block_interval_ms": block_interval_ms, "nbits": NBITS },
    }))
}

/// Configuration of pool-verifier. Its policy file lies beside it.
///
/// # Errors
/// A sentence when a path is not text.
pub fn verifier(data_dir: &Path, template_manager: &Addresses) -> Result<String, String> {
    render(&json!({
        "listen_addr": ANY_PORT,
        "http_listen_addr": ANY_PORT,
        "network": NETWORK,
        "data_dir": text(data_dir)?,
        "verifier_id": "demo-verifier",
        "policy": "policy.toml",
        "chain_url": format!("http://{}/chain", template_manager.http_listen_addr),
    }))
}

/// The verifier's policy: its defaults, and the one payout that the gateway is told, too.
///
/// # Errors
/// Never in practice: a sentence when the text cannot be made.
pub fn policy() -> Result<String, String> {
    render(&json!({ "version": "demo", "payout": { "outputs": payouts() } }))
}

/// `coinbase_outputs` of the gateway and `payout.outputs` of the policy have one form.
fn payouts() -> Value {
    json!([{ "address": PAYOUT_ADDRESS, "share": 1 }])
}

/// Configuration of the gateway.
///
/// # Errors
/// A sentence when a path is not text or an address is missing.
pub fn gateway(
    data_dir: &Path,
    keys: &Keys,
    miners: u32,
    backend: &Addresses,
    template_manager: &Addresses,
    verifier: &Addresses,
) -> Result<String, String> {
    let verifier = verifier.listen_addr.as_ref().ok_or("pool-verifier wrote no listen_addr")?;
    let public = keys.authority.public().to_text();
    let connections = miners.saturating_add(SPARE_CONNECTIONS);
    render(&json!({
        "gateway": {
            "mode": "inline",
            "listen_addr": ANY_PORT,
            "http_listen_addr": ANY_PORT,
            "verifier_addr": verifier,
            "upstream_url": format!("http://{}", template_manager.http_listen_addr),
            "upstream_failure_policy": "fail_closed",
            "http_api_key": STANDARD.encode(keys.api_key),
            "network": NETWORK,
            "data_dir": text(data_dir)?,
            "max_connections": connections,
            "max_connections_per_ip": connections,
        },
        "noise": {
            "privkey": keys.authority.to_text().as_str(),
            "pubkey": public,
            "authorized_keys": [public],
        },
        "timing": {
            "prevhash_verdict_timeout_ms": 50,
            "prevhash_stale_hold_ms": 5_000,
            "shutdown_drain_ms": 1_000,
        },
        "share": {
            "share_upstream_url": format!("http://{}/shares", backend.http_listen_addr),
            "share_upstream_secret": keys.share_secret_text(),
            "share_forward_queue_size": 10_000,
            "share_forward_max_in_flight": 100,
            "share_batch_interval_ms": 100,
            "share_forward_timeout_ms": 5_000,
        },
        "auth": { "mode": "open" },
        "mining": {
            "coinbase_outputs": payouts(),
            "coinbase_tag": "/ReserveGrid demo/",
            "instance_id": 1,
            "target_shares_per_minute": 20.0,
            "min_difficulty": 0.0,
        },
        "cores": { "pin": false },
    }))
}

/// What is set in the environment of the gateway. The demo's miners are ours and loopback is the
/// only way in, so nobody is asked for a password.
pub const GATEWAY_ENVIRONMENT: [(&str, &str); 1] = [("VELDRA_ALLOW_OPEN_AUTH_INLINE", "1")];

/// Flags of reference-backend.
pub fn backend(data_dir: &Path, secret_file: &Path) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec!["--listen".into(), ANY_PORT.into()];
    flags.extend(["--data-dir".into(), data_dir.into()]);
    flags.extend(["--secret-file".into(), secret_file.into()]);
    flags
}

/// Flags of loadgen.
///
/// # Errors
/// A sentence when the gateway wrote no address.
pub fn loadgen(
    gateway: &Addresses,
    keys: &Keys,
    miners: u32,
    report: &Path,
) -> Result<Vec<OsString>, String> {
    let target = gateway.listen_addr.as_ref().ok_or("sv2-gateway wrote no listen_addr")?;
    let authority = keys.authority.public().to_text();
    let hashrate = (HASHRATE_SUM / u64::from(miners)).max(1).to_string();
    let flags = [
        ("--target", target.into()),
        ("--authority", authority.into()),
        ("--connections", miners.to_string().into()),
        ("--duration", "0".into()),
        ("--hashrate", hashrate.into()),
        ("--ramp", RAMP_PER_SECOND.to_string().into()),
        ("--screen", "none".into()),
        ("--json", report.as_os_str().to_owned()),
    ];
    Ok(flags.into_iter().flat_map(|(flag, value): (&str, OsString)| [flag.into(), value]).collect())
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| {
        format!("{} is not UTF-8, and configuration files are; choose another", path.display())
    })
}

fn render(value: &Value) -> Result<String, String> {
    toml::to_string(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;
    use work::payout::{Network, Payout};

    fn addresses(port: u16) -> Addresses {
        Addresses {
            listen_addr: Some(format!("127.0.0.1:{}", port + 1)),
            http_listen_addr: format!("127.0.0.1:{port}"),
            authority_pubkey: None,
        }
    }

    fn random_keys() -> Keys {
        Keys {
            authority: keys::authority().unwrap(),
            share_secret: keys::random().unwrap(),
            api_key: keys::random().unwrap(),
        }
    }

    #[test]
    fn the_gateway_is_told_where_the_others_listen() {
        let keys = random_keys();
        let (a, b, c) = (addresses(10), addresses(20), addresses(30));
        let text = gateway(Path::new("/d"), &keys, 24, &a, &b, &c).unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["gateway"]["verifier_addr"].as_str(), Some("127.0.0.1:31"));
        assert_eq!(table["gateway"]["upstream_url"].as_str(), Some("http://127.0.0.1:20"));
        let shares = table["share"]["share_upstream_url"].as_str();
        assert_eq!(shares, Some("http://127.0.0.1:10/shares"));
        assert_eq!(table["mining"]["min_difficulty"].as_float(), Some(0.0));
        let silent = Addresses { listen_addr: None, ..c };
        assert!(gateway(Path::new("/d"), &keys, 24, &a, &b, &silent).is_err());
    }

    #[test]
    fn the_payout_address_is_of_the_network() {
        let network: Network = NETWORK.parse().unwrap();
        Payout::parse(PAYOUT_ADDRESS, 1, network).unwrap();
    }

    #[test]
    fn all_miners_share_the_hashrate() {
        let keys = random_keys();
        for (miners, expected) in [(24, "10416"), (18_000, "13"), (1, "250000")] {
            let flags = loadgen(&addresses(1), &keys, miners, Path::new("/r")).unwrap();
            let place = flags.iter().position(|flag| flag == "--hashrate").unwrap();
            assert_eq!(flags[place + 1], expected);
        }
    }

    #[test]
    fn every_text_is_toml() {
        let (a, path) = (addresses(1), Path::new("/d"));
        for text in [template_manager(path, 500), verifier(path, &a), policy()] {
            text.unwrap().parse::<toml::Table>().unwrap();
        }
    }
}
