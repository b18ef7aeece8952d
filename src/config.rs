//! Configuration: a TOML file, read once, checked once, and then passed in parts.
//!
//! Unknown keys are errors. Keys that change money or safety have no default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sv2::{AuthorityKey, AuthorityPublicKey};
use work::extranonce::EXTRANONCE_PREFIX_BYTES;
use work::payout::{Network, PAYOUTS_MAX, Payout};

use crate::limits::CHANNELS_PER_CONNECTION_MAX;
use crate::mode::{FailurePolicy, Mode};

/// Shortest `http_api_key`, bytes.
const API_KEY_BYTES_MIN: usize = 16;

/// Shards of one process: the extranonce prefix has one byte for them.
pub const SHARDS_MAX: usize = 255;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    gateway: RawGateway,
    noise: RawNoise,
    timing: RawTiming,
    share: RawShare,
    auth: RawAuth,
    mining: RawMining,
    #[serde(default)]
    cores: RawCores,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGateway {
    mode: RawMode,
    listen_addr: SocketAddr,
    verifier_addr: String,
    upstream_url: String,
    upstream_failure_policy: RawFailurePolicy,
    http_api_key: String,
    #[serde(default = "default_http_listen_addr")]
    http_listen_addr: SocketAddr,
    network: Network,
    #[serde(default = "default_data_dir")]
    data_dir: PathBuf,
    #[serde(default = "default_max_connections")]
    max_connections: usize,
    #[serde(default = "default_max_connections_per_ip")]
    max_connections_per_ip: usize,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawMode {
    Shadow,
    Observe,
    Inline,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawFailurePolicy {
    FailClosed,
    PermitAll,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNoise {
    privkey: String,
    pubkey: String,
    #[serde(default)]
    authorized_keys: Vec<String>,
    #[serde(default = "default_handshake_timeout_ms")]
    handshake_timeout_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTiming {
    prevhash_verdict_timeout_ms: u64,
    prevhash_stale_hold_ms: u64,
    #[serde(default = "default_job_broadcast_interval_ms")]
    job_broadcast_interval_ms: u64,
    #[serde(default = "default_channel_idle_timeout_ms")]
    channel_idle_timeout_ms: u64,
    #[serde(default = "default_nonce_expire_secs")]
    nonce_expire_secs: u64,
    #[serde(default = "default_setup_timeout_ms")]
    setup_timeout_ms: u64,
    #[serde(default = "default_template_max_age_ms")]
    template_max_age_ms: u64,
    #[serde(default = "default_shutdown_drain_ms")]
    shutdown_drain_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShare {
    share_upstream_url: String,
    share_upstream_secret: String,
    share_forward_queue_size: usize,
    share_forward_max_in_flight: usize,
    #[serde(default = "default_share_batch_interval_ms")]
    share_batch_interval_ms: u64,
    #[serde(default = "default_share_forward_timeout_ms")]
    share_forward_timeout_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuth {
    mode: RawAuthMode,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawAuthMode {
    Open,
}

impl RawAuthMode {
    fn name(self) -> &'static str {
        match self {
            RawAuthMode::Open => "open",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMining {
    coinbase_outputs: Vec<RawOutput>,
    #[serde(default)]
    coinbase_tag: String,
    #[serde(default = "default_extranonce_size")]
    extranonce_size: usize,
    instance_id: u16,
    #[serde(default)]
    version_rolling: RawVersionRolling,
    #[serde(default = "default_target_shares_per_minute")]
    target_shares_per_minute: f64,
    #[serde(default = "default_min_difficulty")]
    min_difficulty: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    address: String,
    share: u32,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawVersionRolling {
    #[default]
    Bip323,
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCores {
    shards: Vec<usize>,
    control: usize,
    forwarder: usize,
    pin: bool,
}

impl Default for RawCores {
    fn default() -> RawCores {
        RawCores { shards: vec![0], control: 0, forwarder: 0, pin: false }
    }
}

fn default_http_listen_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}
fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/reservegrid")
}
fn default_max_connections() -> usize {
    16_384
}
fn default_max_connections_per_ip() -> usize {
    256
}
fn default_handshake_timeout_ms() -> u64 {
    5_000
}
fn default_job_broadcast_interval_ms() -> u64 {
    100
}
fn default_channel_idle_timeout_ms() -> u64 {
    3_600_000
}
fn default_nonce_expire_secs() -> u64 {
    60
}
fn default_setup_timeout_ms() -> u64 {
    10_000
}
fn default_template_max_age_ms() -> u64 {
    90_000
}
fn default_shutdown_drain_ms() -> u64 {
    30_000
}
fn default_share_batch_interval_ms() -> u64 {
    100
}
fn default_share_forward_timeout_ms() -> u64 {
    5_000
}
fn default_extranonce_size() -> usize {
    8
}
fn default_target_shares_per_minute() -> f64 {
    6.0
}
fn default_min_difficulty() -> f64 {
    1.0
}

/// Everything the gateway was told, checked.
#[derive(Debug)]
pub struct Config {
    /// What to do with verdicts.
    pub mode: Mode,
    /// What to do without.
    pub failure_policy: FailurePolicy,
    /// Where miners connect.
    pub listen_addr: SocketAddr,
    /// `host:port` of the verifier.
    pub verifier_addr: String,
    /// Base address of template-manager.
    pub upstream_url: String,
    /// Key of the HTTP API.
    pub http_api_key: String,
    /// Where operators connect.
    pub http_listen_addr: SocketAddr,
    /// The chain.
    pub network: Network,
    /// Everything the gateway writes.
    pub data_dir: PathBuf,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one address; 0 for any number.
    pub max_connections_per_ip: usize,
    /// Signs certificates.
    pub authority: AuthorityKey,
    /// Time for both acts.
    pub handshake_timeout_ms: u64,
    /// Soft deadline of a verdict.
    pub prevhash_verdict_timeout_ms: u64,
    /// Hold beyond it.
    pub prevhash_stale_hold_ms: u64,
    /// Least time between jobs on one tip.
    pub job_broadcast_interval_ms: u64,
    /// Silence that ends a connection.
    pub channel_idle_timeout_ms: u64,
    /// Floor on how long hashes are remembered.
    pub nonce_expire_secs: u64,
    /// Time until SetupConnection and until the first channel.
    pub setup_timeout_ms: u64,
    /// How long work is served without a source.
    pub template_max_age_ms: u64,
    /// Time for an orderly end.
    pub shutdown_drain_ms: u64,
    /// Who may open channels: `open`, everybody.
    pub auth_mode: &'static str,
    /// Where shares go.
    pub share_upstream_url: String,
    /// Signs them.
    pub share_upstream_secret: String,
    /// Shares that may wait.
    pub share_forward_queue_size: usize,
    /// Batches in flight.
    pub share_forward_max_in_flight: usize,
    /// How long a share waits for company.
    pub share_batch_interval_ms: u64,
    /// Time for one attempt.
    pub share_forward_timeout_ms: u64,
    /// Whom the coinbase pays.
    pub payouts: Vec<Payout>,
    /// Tag in the coinbase.
    pub coinbase_tag: String,
    /// Bytes that extended channels roll.
    pub extranonce_size: usize,
    /// The gateway's number.
    pub instance_id: u16,
    /// Whether version bits may be rolled.
    pub version_rolling: bool,
    /// Goal of vardiff.
    pub target_shares_per_minute: f64,
    /// Easiest difficulty.
    pub min_difficulty: f64,
    /// CPU of each shard.
    pub shards: Vec<usize>,
    /// CPU of control.
    pub control: usize,
    /// CPU of the forwarder.
    pub forwarder: usize,
    /// Whether cores are pinned.
    pub pin: bool,
}

impl Config {
    /// Read and check the file at `path`.
    ///
    /// # Errors
    /// What is wrong, where, what was expected, and how to mend it.
    pub fn load(path: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
        Config::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Check the text of a file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str) -> Result<Config, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| error.to_string())?;
        let authority = authority(&raw.noise)?;
        let payouts = payouts(&raw)?;
        check(&raw)?;
        Ok(Config::from_parts(raw, authority, payouts))
    }

    /// Bytes of the whole extranonce.
    pub fn extranonce_bytes(&self) -> usize {
        EXTRANONCE_PREFIX_BYTES + self.extranonce_size
    }

    fn from_parts(raw: Raw, authority: AuthorityKey, payouts: Vec<Payout>) -> Config {
        Config {
            mode: match raw.gateway.mode {
                RawMode::Shadow => Mode::Shadow,
                RawMode::Observe => Mode::Observe,
                RawMode::Inline => Mode::Inline,
            },
            failure_policy: match raw.gateway.upstream_failure_policy {
                RawFailurePolicy::FailClosed => FailurePolicy::FailClosed,
                RawFailurePolicy::PermitAll => FailurePolicy::PermitAll,
            },
            listen_addr: raw.gateway.listen_addr,
            verifier_addr: raw.gateway.verifier_addr,
            upstream_url: raw.gateway.upstream_url.trim_end_matches('/').to_owned(),
            http_api_key: raw.gateway.http_api_key,
            http_listen_addr: raw.gateway.http_listen_addr,
            network: raw.gateway.network,
            data_dir: raw.gateway.data_dir,
            max_connections: raw.gateway.max_connections,
            max_connections_per_ip: raw.gateway.max_connections_per_ip,
            authority,
            handshake_timeout_ms: raw.noise.handshake_timeout_ms,
            prevhash_verdict_timeout_ms: raw.timing.prevhash_verdict_timeout_ms,
            prevhash_stale_hold_ms: raw.timing.prevhash_stale_hold_ms,
            job_broadcast_interval_ms: raw.timing.job_broadcast_interval_ms,
            channel_idle_timeout_ms: raw.timing.channel_idle_timeout_ms,
            nonce_expire_secs: raw.timing.nonce_expire_secs,
            setup_timeout_ms: raw.timing.setup_timeout_ms,
            template_max_age_ms: raw.timing.template_max_age_ms,
            shutdown_drain_ms: raw.timing.shutdown_drain_ms,
            auth_mode: raw.auth.mode.name(),
            share_upstream_url: raw.share.share_upstream_url,
            share_upstream_secret: raw.share.share_upstream_secret,
            share_forward_queue_size: raw.share.share_forward_queue_size,
            share_forward_max_in_flight: raw.share.share_forward_max_in_flight,
            share_batch_interval_ms: raw.share.share_batch_interval_ms,
            share_forward_timeout_ms: raw.share.share_forward_timeout_ms,
            payouts,
            coinbase_tag: raw.mining.coinbase_tag,
            extranonce_size: raw.mining.extranonce_size,
            instance_id: raw.mining.instance_id,
            version_rolling: matches!(raw.mining.version_rolling, RawVersionRolling::Bip323),
            target_shares_per_minute: raw.mining.target_shares_per_minute,
            min_difficulty: raw.mining.min_difficulty,
            shards: raw.cores.shards,
            control: raw.cores.control,
            forwarder: raw.cores.forwarder,
            pin: raw.cores.pin,
        }
    }

    /// Room for share hashes that each channel has between two jobs (D50): twenty minutes' worth
    /// at the goal.
    pub fn seen_room(&self) -> usize {
        (self.target_shares_per_minute * 20.0).clamp(128.0, 65_536.0) as usize
    }

    /// Channels of one connection.
    pub fn max_channels_per_connection(&self) -> usize {
        CHANNELS_PER_CONNECTION_MAX
    }
}

fn authority(noise: &RawNoise) -> Result<AuthorityKey, String> {
    let key: AuthorityKey =
        noise.privkey.parse().map_err(|error| format!("noise.privkey: {error}"))?;
    let public: AuthorityPublicKey =
        noise.pubkey.parse().map_err(|error| format!("noise.pubkey: {error}"))?;
    if key.public() != public {
        return Err(format!(
            "noise.pubkey: it is not the key of noise.privkey; expected \"{}\"",
            key.public().to_text()
        ));
    }
    if key.is_example() {
        return Err("noise.privkey: this is the example key that everybody has; make one with \
                    `reservegrid keys generate`"
            .into());
    }
    if !noise.authorized_keys.is_empty() && !noise.authorized_keys.contains(&noise.pubkey) {
        return Err("noise.authorized_keys: noise.pubkey is not among them; add it".into());
    }
    Ok(key)
}

fn payouts(raw: &Raw) -> Result<Vec<Payout>, String> {
    let outputs = &raw.mining.coinbase_outputs;
    if outputs.is_empty() || outputs.len() > PAYOUTS_MAX {
        return Err(format!(
            "mining.coinbase_outputs: {} entries; expected 1 to {PAYOUTS_MAX}, for example \
             {{ address = \"bc1…\", share = 1 }}",
            outputs.len()
        ));
    }
    outputs
        .iter()
        .map(|output| Payout::parse(&output.address, output.share, raw.gateway.network))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("mining.coinbase_outputs: {error}"))
}

fn check(raw: &Raw) -> Result<(), String> {
    let rules = [
        (
            raw.gateway.http_api_key.len() >= API_KEY_BYTES_MIN
                && raw.gateway.http_api_key != "your-secret-here",
            "gateway.http_api_key: expected at least 16 bytes that are not the sample's",
        ),
        (
            raw.timing.prevhash_stale_hold_ms >= raw.timing.prevhash_verdict_timeout_ms,
            "timing.prevhash_stale_hold_ms: expected at least prevhash_verdict_timeout_ms",
        ),
        (
            raw.share.share_forward_queue_size >= raw.share.share_forward_max_in_flight,
            "share.share_forward_queue_size: expected at least share_forward_max_in_flight",
        ),
        (
            raw.share.share_forward_max_in_flight > 0,
            "share.share_forward_max_in_flight: expected at least 1",
        ),
        (
            (4..=16).contains(&raw.mining.extranonce_size),
            "mining.extranonce_size: expected 4 to 16 bytes",
        ),
        (
            raw.mining.coinbase_tag.len() <= work::coinbase::COINBASE_TAG_BYTES_MAX,
            "mining.coinbase_tag: expected at most 40 bytes",
        ),
        (
            raw.mining.target_shares_per_minute > 0.0
                && raw.mining.target_shares_per_minute.is_finite(),
            "mining.target_shares_per_minute: expected a number above 0",
        ),
        (
            raw.mining.min_difficulty >= 0.0 && raw.mining.min_difficulty.is_finite(),
            "mining.min_difficulty: expected a number of at least 0",
        ),
        (
            (1..=SHARDS_MAX).contains(&raw.cores.shards.len()),
            "cores.shards: expected 1 to 255 cpu numbers",
        ),
        (
            raw.share.share_upstream_url.starts_with("http://")
                || raw.share.share_upstream_url.starts_with("https://"),
            "share.share_upstream_url: expected http:// or https://",
        ),
        (
            raw.gateway.upstream_url.starts_with("http://"),
            "gateway.upstream_url: expected the http:// address of template-manager",
        ),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, text)) => Err((*text).to_owned()),
        None => Ok(()),
    }
}
