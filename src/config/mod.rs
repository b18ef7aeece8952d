//! Configuration: a TOML file and the environment over it, read once, checked once, and then
//! passed in parts.
//!
//! Keys that change money or safety have no default. Nothing is ignored: a key, section or
//! `VELDRA_` variable that nobody reads is a mistake, and so is a key that asks for what this
//! version does not have. All mistakes are told at once, each with its place, what stands there,
//! what was expected and how to mend it.
//!
//! ```text
//! schema       the 51 keys                    document     the file, sorted into keys
//! broken       lines that are not TOML
//! environment  overrides, secret files        reader       typed values, one key at a time
//! hatch        rules that may be suspended    lacking      what only the operator can say
//! gateway, noise, timing, share, credentials, mining      the sections and their rules
//! problem      what is told                   setting      what is shown
//! ```

mod address;
pub mod auth;
mod broken;
mod credentials;
mod document;
mod environment;
mod gateway;
pub mod hatch;
mod lacking;
mod mining;
mod noise;
pub mod problem;
mod reader;
pub mod schema;
pub mod secret;
mod secret_file;
pub mod setting;
mod share;
pub mod surroundings;
mod timing;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sv2::AuthorityKey;
use work::extranonce::EXTRANONCE_PREFIX_BYTES;
use work::payout::{Network, Payout};
use zeroize::Zeroizing;

use auth::Auth;
use credentials::Credentials;
use document::Document;
use environment::Environment;
use gateway::Gateway;
use hatch::{Hatch, Hatches};
use mining::Mining;
use noise::Noise;
use problem::{ERRORS_TOLD_MAX, Place, Problem, Refusal};
use reader::Reader;
use schema::KEYS;
use secret::Secret;
use setting::Setting;
use share::Share;
use surroundings::Surroundings;
use timing::{Cores, Timing};

pub use document::Origin;

use crate::limits::DESCRIPTORS_RESERVED;
use crate::mode::{FailurePolicy, Mode};

/// Shards of one process: the extranonce prefix has one byte for them.
pub const SHARDS_MAX: usize = 255;

/// Bytes of a file that are read.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

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
    /// Base address of template-manager, or of a node's JSON-RPC if there is an `upstream_auth`.
    pub upstream_url: String,
    /// `cookie:/path` or `user:password` of the node that `upstream_url` names; without it that is
    /// a template-manager.
    pub upstream_auth: Option<Secret>,
    /// Keys of the HTTP API, any of which opens it. None at all, so that it asks for none, only
    /// with [`Hatch::InsecureHttp`].
    pub http_api_keys: Vec<Secret>,
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
    /// Whether [`Config::authority`] was made for this run ([`Hatch::EphemeralNoiseKey`]).
    pub authority_is_ephemeral: bool,
    /// Time for both acts.
    pub handshake_timeout_ms: u64,
    /// Soft deadline of a verdict.
    pub prevhash_verdict_timeout_ms: u64,
    /// Hold beyond it.
    pub prevhash_stale_hold_ms: u64,
    /// Longest time between two looks at a source that says nothing by itself.
    pub upstream_poll_interval_ms: u64,
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
    /// Who may open channels.
    pub auth: Auth,
    /// Name of [`Config::auth`].
    pub auth_mode: &'static str,
    /// Longest name of a miner, bytes; at most what a `user_identity` holds (T3).
    pub max_worker_id_bytes: usize,
    /// Distinct workers on one extended channel.
    pub max_workers_per_channel: usize,
    /// Where shares go. Empty only in shadow mode, where there are none.
    pub share_upstream_url: String,
    /// Signs them: `whsec_` and base64, or the bytes themselves.
    pub share_upstream_secret: Secret,
    /// That one and, behind it, those that the receiver accepts while one is exchanged.
    pub share_upstream_secrets: Vec<Secret>,
    /// Shares that may wait.
    pub share_forward_queue_size: usize,
    /// Batches in flight.
    pub share_forward_max_in_flight: usize,
    /// How long a share waits for company.
    pub share_batch_interval_ms: u64,
    /// Time for one attempt.
    pub share_forward_timeout_ms: u64,
    /// Attempts until a share becomes a dead letter; 0: never.
    pub share_forward_max_attempts: u64,
    /// Longest wait between two attempts.
    pub share_forward_backoff_max_ms: u64,
    /// Days that settled shares are kept; 0: for ever.
    pub share_retention_days: u64,
    /// Whom the coinbase pays. At least one.
    pub payouts: Vec<Payout>,
    /// Tag in the coinbase.
    pub coinbase_tag: String,
    /// Bytes that extended channels roll.
    pub extranonce_size: usize,
    /// The gateway's number.
    pub instance_id: u16,
    /// Whether version bits may be rolled.
    pub version_rolling: bool,
    /// Which (T15): BIP323's, BIP320's or none.
    pub version_rolling_mask: u32,
    /// Goal of vardiff.
    pub target_shares_per_minute: f64,
    /// Easiest difficulty.
    pub min_difficulty: f64,
    /// Channels of one connection.
    pub max_channels_per_connection: usize,
    /// CPU of each shard.
    pub shards: Vec<usize>,
    /// CPU of control.
    pub control: usize,
    /// CPU of the forwarder.
    pub forwarder: usize,
    /// Whether cores are pinned.
    pub pin: bool,
    /// Rules that are suspended.
    pub hatches: Hatches,
}

/// A configuration that was accepted, and what there is to tell about it.
#[derive(Debug)]
pub struct Checked {
    /// Name of the file.
    pub file: String,
    /// What is in force.
    pub config: Config,
    /// What should be known, open hatches among it, sorted by place.
    pub warnings: Vec<Problem>,
    /// Where what is in force differs from what stands in the file.
    pub notes: Vec<String>,
    /// All 51 keys, in the order of the schema.
    pub settings: Vec<Setting>,
}

impl Config {
    /// Read and check the file at `path`, with the environment of this process.
    ///
    /// # Errors
    /// Every mistake, as [`Refusal`] shows them.
    pub fn load(path: &Path) -> Result<Config, String> {
        let checked = read(path, &Surroundings::of_this_process());
        checked.map(|checked| checked.config).map_err(|refusal| refusal.to_string())
    }

    /// Check the text of a file, with an empty environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str) -> Result<Config, String> {
        let checked = read_text("gateway.toml", text, Path::new(""), &Surroundings::none());
        checked.map(|checked| checked.config).map_err(|refusal| refusal.to_string())
    }

    /// Bytes of the whole extranonce.
    pub fn extranonce_bytes(&self) -> usize {
        EXTRANONCE_PREFIX_BYTES + self.extranonce_size
    }

    /// Room for share hashes that each channel has between two jobs (D50): twenty minutes' worth
    /// at the goal.
    pub fn seen_room(&self) -> usize {
        (self.target_shares_per_minute * 20.0).clamp(128.0, 65_536.0) as usize
    }
}

/// Read and check the file at `path`.
///
/// # Errors
/// Every mistake in the file and in the environment.
pub fn read(path: &Path, surroundings: &Surroundings) -> Result<Checked, Refusal> {
    let file = path.display().to_string();
    let (text, mode) = contents(path).map_err(|error| Refusal {
        file: file.clone(),
        errors: vec![Problem {
            place: Place::File,
            key: "the configuration".into(),
            got: error,
            expected: "a text file that the gateway may read".into(),
            mend: "name the right file, or begin with config/gateway.toml".into(),
        }],
        untold: 0,
        warnings: Vec::new(),
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut checked = read_text(&file, &text, folder, surroundings)?;
    let holds_secrets = |setting: &Setting| {
        setting.key.is_secret && setting.origin == Origin::File && setting.value.is_some()
    };
    if mode & 0o077 != 0 && checked.settings.iter().any(holds_secrets) {
        checked.warnings.push(Problem {
            place: Place::File,
            key: "the configuration".into(),
            got: format!("secrets in a file of mode {mode:04o}, which others can read"),
            expected: "mode 0600".into(),
            mend: format!("chmod 600 {file}"),
        });
    }
    Ok(checked)
}

/// Text and mode of a file.
fn contents(path: &Path) -> Result<(Zeroizing<String>, u32), String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mode = file.metadata().map_err(|error| error.to_string())?.permissions().mode() & 0o777;
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    match text.len() as u64 {
        FILE_BYTES_MAX => Err(format!("{FILE_BYTES_MAX} bytes or more")),
        _ => Ok((text, mode)),
    }
}

/// Check the text of `file`; relative paths in it begin at `folder`.
///
/// # Errors
/// As [`read`].
pub fn read_text(
    file: &str,
    text: &str,
    folder: &Path,
    surroundings: &Surroundings,
) -> Result<Checked, Refusal> {
    let mut environment = Environment::read(&surroundings.environment);
    let reserved = DESCRIPTORS_RESERVED;
    let connections =
        gateway::connections_default(surroundings.descriptors_max, reserved).to_string();
    let (text, broken) = broken::take_out(text);
    let mut document = Document::read(&text, broken);
    for over in &environment.overrides {
        document.given.insert(over.key.path, over.given());
    }
    let hatches = environment.hatches.clone();
    let mut reader = Reader::new(document, hatches, environment.files.clone());
    reader.errors.append(&mut environment.problems);
    reader.warnings.append(&mut environment.warnings);
    let config = sections(&mut reader, &connections, surroundings.random, folder);
    warn_of_hatches(&mut reader);
    let (mut errors, mut warnings) = (errors(&mut reader), std::mem::take(&mut reader.warnings));
    warnings.sort();
    let file = file.to_owned();
    match config {
        Some(config) if errors.is_empty() => {
            let Reader { notes, mut settings, .. } = reader;
            settings.sort_by_key(|setting| KEYS.iter().position(|key| *key == setting.key));
            Ok(Checked { file, config, warnings, notes, settings })
        }
        _ => {
            let untold = reader.document.untold + errors.len().saturating_sub(ERRORS_TOLD_MAX);
            errors.truncate(ERRORS_TOLD_MAX);
            Err(Refusal { file, errors, untold, warnings })
        }
    }
}

/// All mistakes, sorted by place. What stands on a line that is not TOML, or is lacking perhaps
/// because of such a line, is told when the line is mended.
fn errors(reader: &mut Reader) -> Vec<Problem> {
    let broken = &reader.document.broken_lines;
    let mut errors = std::mem::take(&mut reader.errors);
    if broken.is_empty() {
        errors.extend(lacking::problem(&reader.lacking, &reader.document));
    } else {
        errors.retain(|error| match error.place {
            Place::Line { line, .. } => error.key == document::NOT_TOML || !broken.contains(&line),
            _ => true,
        });
    }
    errors.sort();
    errors
}

fn warn_of_hatches(reader: &mut Reader) {
    let warnings = reader.hatches.iter().map(|hatch: Hatch| Problem {
        place: Place::Environment(hatch.name().into()),
        key: "escape hatch".into(),
        got: format!("1: {}", hatch.meaning()),
        expected: "no open hatch in production".into(),
        mend: "unset it".into(),
    });
    reader.warnings.extend(warnings);
}

/// Read all sections, then put them together if none of their values is missing.
fn sections<'t>(
    reader: &mut Reader<'t>,
    connections: &'t str,
    random: Option<[u8; 32]>,
    folder: &Path,
) -> Option<Config> {
    let gateway = gateway::read(reader, connections);
    let has_miners = gateway.mode != Some(Mode::Shadow);
    let noise = noise::read(reader, random, folder);
    let timing = timing::read(reader);
    let share = share::read(reader, has_miners);
    let is_local = gateway.listen_addr.is_some_and(|address| address.ip().is_loopback());
    let credentials = credentials::read(reader, gateway.mode, !is_local);
    let mining = mining::read(reader, gateway.network, has_miners);
    let cores = timing::read_cores(reader);
    assemble(reader, gateway, noise, timing, share, credentials, mining, cores)
}

#[allow(clippy::too_many_arguments, reason = "one for each section")]
fn assemble(
    reader: &Reader,
    gateway: Gateway,
    noise: Noise,
    timing: Timing,
    share: Share,
    credentials: Credentials,
    mining: Mining,
    cores: Cores,
) -> Option<Config> {
    let auth = credentials.auth?;
    let version_rolling_mask = mining.version_rolling_mask?;
    let share_upstream_secrets = share.upstream_secrets?;
    Some(Config {
        mode: gateway.mode?,
        failure_policy: gateway.failure_policy?,
        listen_addr: gateway.listen_addr?,
        verifier_addr: gateway.verifier_addr?,
        upstream_url: gateway.upstream_url?,
        upstream_auth: gateway.upstream_auth,
        http_api_keys: gateway.http_api_keys?,
        http_listen_addr: gateway.http_listen_addr?,
        network: gateway.network?,
        data_dir: gateway.data_dir?,
        max_connections: gateway.max_connections?,
        max_connections_per_ip: gateway.max_connections_per_ip?,
        authority: noise.authority?,
        authority_is_ephemeral: noise.is_ephemeral,
        handshake_timeout_ms: noise.handshake_timeout_ms?,
        prevhash_verdict_timeout_ms: timing.prevhash_verdict_timeout_ms?,
        prevhash_stale_hold_ms: timing.prevhash_stale_hold_ms?,
        upstream_poll_interval_ms: timing.upstream_poll_interval_ms?,
        job_broadcast_interval_ms: timing.job_broadcast_interval_ms?,
        channel_idle_timeout_ms: timing.channel_idle_timeout_ms?,
        nonce_expire_secs: timing.nonce_expire_secs?,
        setup_timeout_ms: timing.setup_timeout_ms?,
        template_max_age_ms: timing.template_max_age_ms?,
        shutdown_drain_ms: timing.shutdown_drain_ms?,
        auth_mode: auth.name(),
        auth,
        max_worker_id_bytes: credentials.max_worker_id_bytes?,
        max_workers_per_channel: credentials.max_workers_per_channel?,
        share_upstream_url: share.upstream_url?,
        share_upstream_secret: share_upstream_secrets.first()?.clone(),
        share_upstream_secrets,
        share_forward_queue_size: share.forward_queue_size?,
        share_forward_max_in_flight: share.forward_max_in_flight?,
        share_batch_interval_ms: share.batch_interval_ms?,
        share_forward_timeout_ms: share.forward_timeout_ms?,
        share_forward_max_attempts: share.forward_max_attempts?,
        share_forward_backoff_max_ms: share.forward_backoff_max_ms?,
        share_retention_days: share.retention_days?,
        payouts: mining.payouts?,
        coinbase_tag: mining.coinbase_tag?,
        extranonce_size: mining.extranonce_size?,
        instance_id: mining.instance_id?,
        version_rolling: version_rolling_mask != 0,
        version_rolling_mask,
        target_shares_per_minute: mining.target_shares_per_minute?,
        min_difficulty: mining.min_difficulty?,
        max_channels_per_connection: mining.max_channels_per_connection?,
        shards: cores.shards?,
        control: cores.control?,
        forwarder: cores.forwarder?,
        pin: cores.pin?,
        hatches: reader.hatches.clone(),
    })
}
