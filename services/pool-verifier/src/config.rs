//! pool-verifier.toml: read and checked once.

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use policy::{Policy, TomlError};
use serde::Deserialize;
use toml::Spanned;
use work::payout::Network;

use crate::limits::FILE_BYTES_MAX;

/// Where the verifier learns of the chain (D36).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainAccess {
    /// `GET` of a [`work::contract::chain::Chain`] as JSON.
    Http {
        /// Whole URL.
        url: String,
    },
    /// A node's JSON-RPC.
    Rpc {
        /// URL without user information.
        url: String,
        /// How to be let in.
        auth: RpcAuth,
    },
}

/// How a node lets us in.
#[derive(Clone, PartialEq, Eq)]
pub enum RpcAuth {
    /// The cookie file, read again whenever the node refuses.
    Cookie(PathBuf),
    /// `user:password`.
    UserPassword(String),
}

impl fmt::Debug for RpcAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RpcAuth::Cookie(path) => write!(f, "Cookie({})", path.display()),
            RpcAuth::UserPassword(_) => f.write_str("UserPassword(…)"),
        }
    }
}

/// What this service is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Gateways connect here.
    pub listen_addr: SocketAddr,
    /// Operators look here.
    pub http_listen_addr: SocketAddr,
    /// The chain.
    pub network: Network,
    /// Verdict log and addresses go here.
    pub data_dir: PathBuf,
    /// Name of this verifier in `HelloAck` and in the log.
    pub verifier_id: String,
    /// Milliseconds that a proposal waits for its parent to become known.
    pub prevhash_hold_ms: u64,
    /// Where the chain is learned from.
    pub chain: ChainAccess,
    /// The rules as they were at the start.
    pub policy: Policy,
    /// Where the rules are read from, at the start and again when asked to.
    pub policy_path: PathBuf,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum ConfigError {
    /// A file that cannot be read.
    File(PathBuf, std::io::Error),
    /// A file that says something wrong.
    Text(PathBuf, TomlError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::File(path, error) => write!(f, "{}: {error}", path.display()),
            ConfigError::Text(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "listen_addr")]
    listen_addr: SocketAddr,
    #[serde(default = "http_listen_addr")]
    http_listen_addr: SocketAddr,
    network: Network,
    data_dir: PathBuf,
    #[serde(default = "verifier_id")]
    verifier_id: String,
    #[serde(default = "policy_path")]
    policy: PathBuf,
    #[serde(default = "prevhash_hold_ms")]
    prevhash_hold_ms: Spanned<u64>,
    chain_url: Option<Spanned<String>>,
    chain_rpc_url: Option<Spanned<String>>,
    chain_rpc_auth: Option<Spanned<String>>,
}

fn listen_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5001))
}

fn http_listen_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8081))
}

fn verifier_id() -> String {
    "verifier-1".to_owned()
}

fn policy_path() -> PathBuf {
    PathBuf::from("policy.toml")
}

fn prevhash_hold_ms() -> Spanned<u64> {
    Spanned::new(0..0, 5_000)
}

/// Longest `prevhash_hold_ms`: a minute.
const PREVHASH_HOLD_MS_MAX: u64 = 60_000;

impl Config {
    /// Read `path` and the policy that it names.
    ///
    /// # Errors
    /// [`ConfigError`] with file, place, key, what was found and what is expected.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = read(path)?;
        let wrong = |error| ConfigError::Text(path.to_owned(), error);
        let raw: Raw =
            toml::from_str(&text).map_err(|error| wrong(TomlError::from_reader(&text, &error)))?;
        let chain = chain_access(&text, &raw).map_err(wrong)?;
        let hold = *raw.prevhash_hold_ms.get_ref();
        if hold > PREVHASH_HOLD_MS_MAX {
            let expected = format!("a whole number from 0 to {PREVHASH_HOLD_MS_MAX}");
            let span = raw.prevhash_hold_ms.span();
            let key = "prevhash_hold_ms";
            return Err(wrong(TomlError::at(&text, span, key, &hold.to_string(), &expected)));
        }
        let policy_path = path.parent().unwrap_or(Path::new("")).join(&raw.policy);
        let policy = read_policy(&policy_path, raw.network)?;
        Ok(Config {
            listen_addr: raw.listen_addr,
            http_listen_addr: raw.http_listen_addr,
            network: raw.network,
            data_dir: raw.data_dir,
            verifier_id: raw.verifier_id,
            prevhash_hold_ms: hold,
            chain,
            policy,
            policy_path,
        })
    }
}

/// The rules that the file at `path` states, for addresses of `network`.
///
/// # Errors
/// [`ConfigError`] with file, place, key, what was found and what is expected.
pub fn read_policy(path: &Path, network: Network) -> Result<Policy, ConfigError> {
    let text = read(path)?;
    Policy::parse(&text, network).map_err(|error| ConfigError::Text(path.to_owned(), error))
}

/// The text of a file of bounded size.
fn read(path: &Path) -> Result<String, ConfigError> {
    let wrong = |error| ConfigError::File(path.to_owned(), error);
    let file = std::fs::File::open(path).map_err(wrong)?;
    let mut text = String::new();
    let bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    if bytes as u64 > FILE_BYTES_MAX {
        let fault = format!("more than {FILE_BYTES_MAX} bytes");
        return Err(wrong(std::io::Error::new(std::io::ErrorKind::InvalidData, fault)));
    }
    Ok(text)
}

fn chain_access(text: &str, raw: &Raw) -> Result<ChainAccess, TomlError> {
    const EXPECTED: &str = "exactly one of chain_url = \"http://127.0.0.1:8082/chain\" \
                            (template-manager) and chain_rpc_url = \"http://127.0.0.1:18443\" \
                            (a node, with chain_rpc_auth)";
    let url = |key: &str, url: &Spanned<String>| {
        let is_http = ["http://", "https://"].iter().any(|start| url.get_ref().starts_with(start));
        if is_http && !url.get_ref().contains('@') {
            return Ok(url.get_ref().clone());
        }
        let expected = "a URL that begins with http:// or https://, without user information";
        Err(TomlError::at(text, url.span(), key, "another text", expected))
    };
    match (&raw.chain_url, &raw.chain_rpc_url) {
        (Some(chain), None) => {
            if let Some(auth) = &raw.chain_rpc_auth {
                let (key, got) = ("chain_rpc_auth", "a key without chain_rpc_url");
                return Err(TomlError::at(text, auth.span(), key, got, EXPECTED));
            }
            Ok(ChainAccess::Http { url: url("chain_url", chain)? })
        }
        (None, Some(rpc)) => Ok(ChainAccess::Rpc {
            url: url("chain_rpc_url", rpc)?,
            auth: rpc_auth(text, raw.chain_rpc_auth.as_ref())?,
        }),
        (Some(_), Some(rpc)) => {
            Err(TomlError::at(text, rpc.span(), "chain_rpc_url", "two sources", EXPECTED))
        }
        (None, None) => Err(TomlError::at(text, 0..0, "chain_url", "nothing", EXPECTED)),
    }
}

fn rpc_auth(text: &str, auth: Option<&Spanned<String>>) -> Result<RpcAuth, TomlError> {
    const EXPECTED: &str = "\"cookie:/path/to/.cookie\" or \"user:password\"";
    const KEY: &str = "chain_rpc_auth";
    let Some(auth) = auth else {
        return Err(TomlError::at(text, 0..0, KEY, "nothing", EXPECTED));
    };
    match auth.get_ref().split_once(':') {
        Some(("cookie", path)) if !path.is_empty() => Ok(RpcAuth::Cookie(PathBuf::from(path))),
        Some((user, _)) if !user.is_empty() => Ok(RpcAuth::UserPassword(auth.get_ref().clone())),
        // The text may be a password, so it is not shown.
        _ => Err(TomlError::at(text, auth.span(), KEY, "another text", EXPECTED)),
    }
}
