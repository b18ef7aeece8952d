//! The 51 keys of gateway.toml: names, defaults, and what to write where there is none.
//!
//! A default is written here once, as TOML; it is read like a value of the file. A key without one
//! decides about money or safety (or is computed, or may be left out) and says which line to paste.

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// `section.name`.
    pub path: &'static str,
    /// As TOML; `None`: it has to be given, is computed, or may be left out.
    pub default: Option<&'static str>,
    /// Whether it is, or holds, something that must not be shown. Such a key can also be given by
    /// a file that is named in the environment.
    pub is_secret: bool,
    /// What stands behind `name = ` in the line to paste.
    pub sample: &'static str,
}

impl Key {
    /// The section it is in.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// Its name in the section.
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The variable that overrides it.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "__").to_uppercase())
    }

    const fn secret(mut self) -> Key {
        self.is_secret = true;
        self
    }
}

/// What all our variables begin with.
pub const PREFIX: &str = "VELDRA_";

/// Ends the name of a variable that names a file with a secret.
pub const FILE_SUFFIX: &str = "_FILE";

/// The sections, in the order of the sample.
pub const SECTIONS: [&str; 7] = ["gateway", "noise", "timing", "share", "auth", "mining", "cores"];

const fn required(path: &'static str, sample: &'static str) -> Key {
    Key { path, default: None, is_secret: false, sample }
}

const fn tunable(path: &'static str, default: &'static str) -> Key {
    Key { path, default: Some(default), is_secret: false, sample: default }
}

macro_rules! keys {
    ($($name:ident = $key:expr;)*) => {
        $(pub(super) const $name: Key = $key;)*
        /// Every key, in the order of the sample.
        pub const KEYS: &[Key] = &[$($name),*];
    };
}

keys! {
    MODE = required("gateway.mode", "\"inline\"  # or shadow, observe");
    LISTEN_ADDR = required("gateway.listen_addr", "\"0.0.0.0:3333\"");
    VERIFIER_ADDR = required("gateway.verifier_addr", "\"127.0.0.1:5001\"");
    UPSTREAM_URL = required("gateway.upstream_url", "\"http://127.0.0.1:8082\"");
    UPSTREAM_FAILURE_POLICY =
        required("gateway.upstream_failure_policy", "\"fail_closed\"  # or permit_all");
    HTTP_API_KEY =
        required("gateway.http_api_key", "\"\"  # 16 bytes or more: `openssl rand -hex 24`")
            .secret();
    HTTP_LISTEN_ADDR = tunable("gateway.http_listen_addr", "\"127.0.0.1:8080\"");
    NETWORK = required("gateway.network", "\"main\"  # or testnet4, signet, regtest");
    UPSTREAM_AUTH =
        required("gateway.upstream_auth", "\"cookie:/path/to/.cookie\"  # or user:password")
            .secret();
    DATA_DIR = tunable("gateway.data_dir", "\"/var/lib/reservegrid\"");
    MAX_CONNECTIONS = required("gateway.max_connections", "18000");
    MAX_CONNECTIONS_PER_IP = tunable("gateway.max_connections_per_ip", "256");

    PRIVKEY =
        required("noise.privkey", "\"\"  # both lines: `reservegrid keys generate`").secret();
    PUBKEY = required("noise.pubkey", "\"\"");
    AUTHORIZED_KEYS = tunable("noise.authorized_keys", "[]");
    HANDSHAKE_TIMEOUT_MS = tunable("noise.handshake_timeout_ms", "5000");

    PREVHASH_VERDICT_TIMEOUT_MS = required("timing.prevhash_verdict_timeout_ms", "50");
    PREVHASH_STALE_HOLD_MS = required("timing.prevhash_stale_hold_ms", "5000");
    UPSTREAM_POLL_INTERVAL_MS = tunable("timing.upstream_poll_interval_ms", "1000");
    JOB_BROADCAST_INTERVAL_MS = tunable("timing.job_broadcast_interval_ms", "100");
    CHANNEL_IDLE_TIMEOUT_MS = tunable("timing.channel_idle_timeout_ms", "3600000");
    NONCE_EXPIRE_SECS = tunable("timing.nonce_expire_secs", "60");
    SETUP_TIMEOUT_MS = tunable("timing.setup_timeout_ms", "10000");
    TEMPLATE_MAX_AGE_MS = tunable("timing.template_max_age_ms", "90000");
    SHUTDOWN_DRAIN_MS = tunable("timing.shutdown_drain_ms", "30000");

    SHARE_UPSTREAM_URL = required("share.share_upstream_url", "\"https://pool.example/shares\"");
    SHARE_UPSTREAM_SECRET =
        required("share.share_upstream_secret", "\"\"  # 32 bytes or more, as the backend has it")
            .secret();
    SHARE_FORWARD_QUEUE_SIZE = required("share.share_forward_queue_size", "10000");
    SHARE_FORWARD_MAX_IN_FLIGHT = required("share.share_forward_max_in_flight", "100");
    SHARE_BATCH_INTERVAL_MS = tunable("share.share_batch_interval_ms", "100");
    SHARE_FORWARD_TIMEOUT_MS = tunable("share.share_forward_timeout_ms", "5000");
    SHARE_FORWARD_MAX_ATTEMPTS = tunable("share.share_forward_max_attempts", "0");
    SHARE_FORWARD_BACKOFF_MAX_MS = tunable("share.share_forward_backoff_max_ms", "30000");
    SHARE_RETENTION_DAYS = tunable("share.share_retention_days", "30");

    AUTH_MODE = required("auth.mode", "\"allowlist\"  # or prefix_map, open");
    ALLOWLIST =
        required("auth.allowlist", "[{ username = \"\", password = \"\" }]").secret();
    PREFIX_MAP = required("auth.prefix_map", "[{ prefix = \"\", secret = \"\" }]").secret();
    MAX_WORKER_ID_BYTES = tunable("auth.max_worker_id_bytes", "512");
    MAX_WORKERS_PER_CHANNEL = tunable("auth.max_workers_per_channel", "1000");

    COINBASE_OUTPUTS =
        required("mining.coinbase_outputs", "[{ address = \"\", share = 1 }]  # whom blocks pay");
    COINBASE_TAG = tunable("mining.coinbase_tag", "\"\"");
    EXTRANONCE_SIZE = tunable("mining.extranonce_size", "8");
    INSTANCE_ID = required("mining.instance_id", "1  # another number for each gateway of a pool");
    VERSION_ROLLING = tunable("mining.version_rolling", "\"bip323\"");
    TARGET_SHARES_PER_MINUTE = tunable("mining.target_shares_per_minute", "6.0");
    MIN_DIFFICULTY = tunable("mining.min_difficulty", "1.0");
    MAX_CHANNELS_PER_CONNECTION = tunable("mining.max_channels_per_connection", "1024");

    SHARDS = tunable("cores.shards", "[0]");
    CONTROL = tunable("cores.control", "0");
    FORWARDER = tunable("cores.forwarder", "0");
    PIN = tunable("cores.pin", "false");
}

/// Bytes of a name beyond which it was not meant to be one of ours. Comparing costs memory by its
/// length.
const NAME_BYTES_MAX: usize = 128;

/// Of `candidates`, the one that `text` was probably meant to be.
pub(super) fn nearest<T: AsRef<str>>(
    text: &str,
    candidates: impl IntoIterator<Item = T>,
) -> Option<T> {
    if text.len() > NAME_BYTES_MAX {
        return None;
    }
    let distance = |candidate: &T| strsim::damerau_levenshtein(text, candidate.as_ref());
    let close = |candidate: &T| distance(candidate) <= 1 + candidate.as_ref().len() / 4;
    candidates.into_iter().filter(close).min_by_key(distance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Goal: the contract's number of keys (D10), section by section.
    #[test]
    fn there_are_51_keys() {
        assert_eq!(KEYS.len(), 51);
        let mut sections = BTreeMap::new();
        for key in KEYS {
            *sections.entry(key.section()).or_insert(0) += 1;
        }
        let counts: Vec<i32> = SECTIONS.iter().map(|section| sections[section]).collect();
        assert_eq!(counts, [12, 4, 9, 9, 5, 8, 4]);
        assert_eq!(sections.len(), SECTIONS.len());
        let names: BTreeSet<String> = KEYS.iter().map(Key::variable).collect();
        assert_eq!(names.len(), KEYS.len());
        assert!(names.contains("VELDRA_TIMING__PREVHASH_STALE_HOLD_MS"));
    }

    #[test]
    fn the_nearest_name_is_one_that_was_meant() {
        let names = || KEYS.iter().map(Key::name);
        assert_eq!(nearest("lisen_addr", names()), Some("listen_addr"));
        assert_eq!(nearest("share_batch_interval", names()), Some("share_batch_interval_ms"));
        assert_eq!(nearest("inlne", ["shadow", "observe", "inline"]), Some("inline"));
        assert_eq!(nearest("colour", names()), None);
        assert_eq!(nearest(&"mode".repeat(100_000), names()), None);
    }

    #[test]
    fn every_default_is_toml() {
        for key in KEYS {
            if let Some(default) = key.default {
                assert!(toml::de::DeValue::parse(default).is_ok(), "{}", key.path);
            }
        }
    }
}
