//! SRI's translator: SV1 miners in front, the gateway behind, one connection to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use super::node::{cache, missing};
use super::process::Process;
use super::sv1_miner::Sv1Miner;
use super::{PATIENCE, Stack, wait_until};

/// Hashes a second of each miner behind it.
pub const MINER_HASHES_PER_SECOND: u32 = 50_000;

/// What it is told of that: so little that its first look at the miners, after a minute, makes it
/// raise their difficulty and tell the gateway.
const TOLD_SHARE: f64 = 0.3;

/// Seconds without a job after which it gives its miners the last one again, with a later time.
const KEEPALIVE_SECONDS: u16 = 3;

/// Worker-specific hash rate tracking: every share names its worker.
const WORKER_EXTENSION: u16 = 0x0002;

/// First of the ports that miners reach it at.
const FIRST_PORT: u16 = 20_000;

/// How many there are.
const PORTS: u16 = 8_000;

/// Prefix of environment variables that change its configuration.
const VARIABLE_PREFIX: &str = "TPROXY";

/// What it has logged so far.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Lines of errors.
    pub errors: Vec<String>,
    /// Shares that the gateway accepted.
    pub shares_accepted: u64,
    /// Shares that the gateway refused, by error code.
    pub shares_refused: BTreeMap<String, u64>,
    /// Channels that it opened at the gateway.
    pub channels: u64,
    /// Changes of hash rate that it told the gateway.
    pub channel_updates: u64,
    /// Changes of target that the gateway told it.
    pub targets: u64,
}

/// The running translator; killed when dropped.
pub struct Translator {
    process: Process,
    address: String,
    log: PathBuf,
    /// Bytes of the log that `said` counts.
    read_bytes: u64,
    said: Said,
}

/// Where it is installed; `None`, said aloud, if it is not.
pub fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("TRANSLATOR_EXE").map(PathBuf::from);
    let cached = || Some(cache()?.join("translator_sv2/bin/translator_sv2"));
    let found = named.or_else(cached).filter(|path| path.is_file());
    if found.is_none() {
        missing("SRI's translator", "scripts/translator.sh");
    }
    found
}

/// How it is configured: loopback only, no monitoring server, no networks to search for miners.
pub fn config(stack: &Stack, is_aggregated: bool, shares_per_minute: f64, port: u16) -> Value {
    let gateway = stack.gateway.address("listen_addr");
    let (host, gateway_port) = gateway.rsplit_once(':').unwrap();
    // Miners that share a channel are told apart by their shares.
    let extensions: &[u16] = if is_aggregated { &[WORKER_EXTENSION] } else { &[] };
    json!({
        "downstream_address": "127.0.0.1",
        "downstream_port": port,
        "max_supported_version": 2,
        "min_supported_version": 2,
        "downstream_extranonce2_size": 4,
        "verify_payout": false,
        "aggregate_channels": is_aggregated,
        "supported_extensions": extensions,
        "required_extensions": extensions,
        "downstream_difficulty_config": {
            "min_individual_miner_hashrate": f64::from(MINER_HASHES_PER_SECOND) * TOLD_SHARE,
            "shares_per_minute": shares_per_minute,
            "enable_vardiff": true,
            "job_keepalive_interval_secs": KEEPALIVE_SECONDS,
        },
        "upstreams": [{
            "address": host,
            "port": gateway_port.parse::<u16>().unwrap(),
            "authority_pubkey": stack.gateway.address("authority_pubkey"),
            "user_identity": "sri",
        }],
    })
}

/// Fails unless the configuration keeps the translator on this machine: it listens and connects
/// on loopback, serves no monitoring and searches no network.
pub fn assert_is_local(config: &Value) {
    let tables = ["miner_telemetry", "monitoring_address", "monitoring_cache_refresh_secs"];
    assert!(tables.iter().all(|key| config.get(key).is_none()), "{config}");
    assert!(!config.to_string().contains("cidrs"), "{config}");
    assert_eq!(config["downstream_address"], json!("127.0.0.1"));
    let upstreams = config["upstreams"].as_array().unwrap();
    assert!(upstreams.iter().all(|upstream| upstream["address"] == json!("127.0.0.1")));
}

/// A port that nobody listens on. The translator takes it only when it is connected to the
/// gateway, so it is none of those that the kernel may give to a connection in the meantime.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % u32::from(PORTS)).unwrap();
    loop {
        let next = TAKEN.fetch_add(1, Ordering::SeqCst);
        assert!(next < PORTS, "no port is free");
        let port = FIRST_PORT + (first + next) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Translator {
    /// Connect it to the gateway of `stack`, whose authority key it insists on, and wait until
    /// miners can connect.
    pub fn start(
        program: &Path,
        stack: &Stack,
        is_aggregated: bool,
        shares_per_minute: f64,
    ) -> Translator {
        let port = free_port();
        let config = config(stack, is_aggregated, shares_per_minute, port);
        assert_is_local(&config);
        let path = stack.folder().join("translator.toml");
        std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(&path);
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(|key| key.starts_with(VARIABLE_PREFIX)) {
                command.env_remove(key);
            }
        }
        let log = stack.folder().join("translator.log");
        let mut process = Process::start("translator_sv2", &mut command, &log);
        // Only its word is taken: a connection to try the port would be a miner that goes away,
        // which it calls an error.
        wait_until("the translator's port", PATIENCE, || {
            assert!(process.ended().is_none(), "the translator has ended by itself");
            process.text().contains("Translator Proxy: listening on")
        });
        let address = format!("127.0.0.1:{port}");
        Translator { process, address, log, read_bytes: 0, said: Said::default() }
    }

    /// An SV1 miner behind it.
    pub fn miner(&self, user: &str) -> Sv1Miner {
        Sv1Miner::start(&self.address, user, MINER_HASHES_PER_SECOND)
    }

    /// What it has logged so far; fails if it has ended, or logged an error.
    pub fn said(&mut self) -> &Said {
        let status = self.process.ended();
        assert!(status.is_none(), "the translator has ended by itself: {status:?}");
        let mut log = File::open(&self.log).unwrap();
        log.seek(SeekFrom::Start(self.read_bytes)).unwrap();
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).unwrap();
        // The last line may be half written.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read_bytes += whole as u64;
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            self.said.take(line);
        }
        let errors = &self.said.errors;
        assert!(errors.is_empty(), "the translator logged errors:\n{}", errors.join("\n"));
        &self.said
    }
}

impl Said {
    fn take(&mut self, line: &str) {
        if line.contains(" ERROR ") {
            self.errors.push(line.to_owned());
        }
        if line.contains("Received: SubmitSharesSuccess(") {
            let count = value(line, "new_submits_accepted_count=");
            self.shares_accepted += count.parse::<u64>().unwrap();
        }
        if line.contains("Received: SubmitSharesError(") {
            let code = value(line, "error_code=").to_owned();
            *self.shares_refused.entry(code).or_default() += 1;
        }
        self.channels += u64::from(line.contains("Received: OpenExtendedMiningChannelSuccess"));
        self.channel_updates += u64::from(line.contains("Sending UpdateChannel message"));
        self.targets += u64::from(line.contains("Received: SetTarget("));
    }
}

/// What stands behind `key` in a line.
fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) = line.split_once(key).unwrap_or_else(|| panic!("no {key} in: {line}"));
    rest.split([',', ')']).next().unwrap()
}
