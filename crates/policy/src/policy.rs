//! policy.toml: read, checked once, and named by a hash over its canonical form.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Spanned;
use work::contract::bytes::encode;
use work::payout::{Network, PAYOUTS_MAX, Payout};

use crate::catalogue::{CHECKS, CHECKS_COUNT, Severity, position};
use crate::facts::MONEY_MAX;
use crate::toml_error::TomlError;

/// Block weight that consensus allows.
const WEIGHT_MAX: u64 = 4_000_000;

/// Signature operation cost that consensus allows.
const SIGOPS_MAX: u64 = 80_000;

/// Bytes that a block can have at most: each weighs one unit or four.
const SIZE_MAX: u64 = WEIGHT_MAX;

/// Bytes without witnesses that a block can have at most.
const STRIPPED_SIZE_MAX: u64 = WEIGHT_MAX / 4;

/// Weight of a transaction beyond which nodes do not relay it.
const TX_WEIGHT_STANDARD: u64 = 400_000;

/// Characters of `version`.
const VERSION_CHARS_MAX: usize = 128;

/// The id of the check that needs `[payout]`.
const PAYOUT_CHECK: &str = "S12";

/// What a check that denies does when it lacks an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissingContext {
    /// The template is rejected.
    Deny,
    /// The verdict names the check and is not changed by it.
    Warn,
}

/// The operator's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The operator's own name for this text.
    pub version: String,
    /// What a missing input does.
    pub on_missing_context: OnMissingContext,
    /// Who may be paid, in the order and with the shares of the gateway's `coinbase_outputs`.
    pub payouts: Vec<Payout>,
    /// Weight units of the whole block.
    pub weight_max: u64,
    /// Bytes of the whole block.
    pub size_max: u64,
    /// Bytes of the whole block without witnesses.
    pub stripped_size_max: u64,
    /// Signature operation cost of the whole block.
    pub sigops_max: u64,
    /// Weight units of one transaction.
    pub tx_weight_max: u64,
    /// Satoshi that the coinbase may leave behind without a warning.
    pub coinbase_value_tolerance_sat: u64,
    /// Milliseconds after a tip in which an empty block is nothing to warn of.
    pub empty_block_allow_for_ms_after_tip: u64,
    severities: [Severity; CHECKS_COUNT],
    canonical: String,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: Spanned<String>,
    #[serde(default = "deny")]
    on_missing_context: OnMissingContext,
    payout: Option<RawPayout>,
    #[serde(default)]
    structure: RawStructure,
    #[serde(default)]
    empty_block: RawEmptyBlock,
    #[serde(default)]
    severity: BTreeMap<Spanned<String>, Severity>,
}

fn deny() -> OnMissingContext {
    OnMissingContext::Deny
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPayout {
    outputs: Spanned<Vec<RawOutput>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    address: Spanned<String>,
    share: u32,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawStructure {
    weight_max: Option<Spanned<u64>>,
    size_max: Option<Spanned<u64>>,
    stripped_size_max: Option<Spanned<u64>>,
    sigops_max: Option<Spanned<u64>>,
    tx_weight_max: Option<Spanned<u64>>,
    coinbase_value_tolerance_sat: Option<Spanned<u64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawEmptyBlock {
    allow_for_ms_after_tip: Option<Spanned<u64>>,
}

/// Milliseconds in a day: no key that counts them makes sense beyond.
const DAY_MS: u64 = 86_400_000;

const EMPTY_BLOCK_ALLOW_MS: u64 = 3_000;

impl Policy {
    /// The policy that `text` (a policy.toml) states, for addresses of `network`.
    ///
    /// # Errors
    /// [`TomlError`] with place, key, what was found and what is expected.
    pub fn parse(text: &str, network: Network) -> Result<Policy, TomlError> {
        let raw: Raw =
            toml::from_str(text).map_err(|error| TomlError::from_reader(text, &error))?;
        let version = version(text, &raw.version)?;
        let severities = severities(text, &raw.severity)?;
        let pinned = position(PAYOUT_CHECK).is_none_or(|at| severities[at] != Severity::Off);
        let payouts = payouts(text, raw.payout, network, pinned)?;
        let structure = &raw.structure;
        let numbers = Numbers { text, table: "structure" };
        let number = |key, value: &_, default, most| numbers.read(key, value, default, most);
        let mut policy = Policy {
            version,
            on_missing_context: raw.on_missing_context,
            payouts,
            weight_max: number("weight_max", &structure.weight_max, WEIGHT_MAX, WEIGHT_MAX)?,
            size_max: number("size_max", &structure.size_max, SIZE_MAX, SIZE_MAX)?,
            stripped_size_max: number(
                "stripped_size_max",
                &structure.stripped_size_max,
                STRIPPED_SIZE_MAX,
                STRIPPED_SIZE_MAX,
            )?,
            sigops_max: number("sigops_max", &structure.sigops_max, SIGOPS_MAX, SIGOPS_MAX)?,
            tx_weight_max: number(
                "tx_weight_max",
                &structure.tx_weight_max,
                TX_WEIGHT_STANDARD,
                WEIGHT_MAX,
            )?,
            coinbase_value_tolerance_sat: number(
                "coinbase_value_tolerance_sat",
                &structure.coinbase_value_tolerance_sat,
                0,
                MONEY_MAX,
            )?,
            empty_block_allow_for_ms_after_tip: Numbers { text, table: "empty_block" }.read(
                "allow_for_ms_after_tip",
                &raw.empty_block.allow_for_ms_after_tip,
                EMPTY_BLOCK_ALLOW_MS,
                DAY_MS,
            )?,
            severities,
            canonical: String::new(),
            hash: String::new(),
        };
        policy.canonical = policy.canonical_form();
        policy.hash = format!("sha256:{}", encode(&Sha256::digest(&policy.canonical)));
        Ok(policy)
    }

    /// Severity of the check at `position` of [`CHECKS`].
    pub fn severity(&self, position: usize) -> Severity {
        self.severities.get(position).copied().unwrap_or(Severity::Deny)
    }

    /// `sha256:` and 64 digits over [`Policy::canonical`]: two texts that rule alike under one
    /// version have one hash, however they are written.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Every setting that is in force, defaults included, one a line.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    fn canonical_form(&self) -> String {
        let on_missing = match self.on_missing_context {
            OnMissingContext::Deny => "deny",
            OnMissingContext::Warn => "warn",
        };
        let mut lines = format!(
            "reservegrid policy 1\nversion={:?}\non_missing_context={on_missing}\n",
            self.version
        );
        // Writing to a String cannot fail.
        for (key, number) in [
            ("structure.weight_max", self.weight_max),
            ("structure.size_max", self.size_max),
            ("structure.stripped_size_max", self.stripped_size_max),
            ("structure.sigops_max", self.sigops_max),
            ("structure.tx_weight_max", self.tx_weight_max),
            ("structure.coinbase_value_tolerance_sat", self.coinbase_value_tolerance_sat),
            ("empty_block.allow_for_ms_after_tip", self.empty_block_allow_for_ms_after_tip),
        ] {
            let _ = writeln!(lines, "{key}={number}");
        }
        for payout in &self.payouts {
            let script = encode(&payout.script_pubkey);
            let _ = writeln!(lines, "payout={script} {}", payout.share);
        }
        for (check, severity) in CHECKS.iter().zip(self.severities) {
            let _ = writeln!(lines, "severity.{}={}", check.id, severity.name());
        }
        lines
    }
}

/// Reads the numbers of one table.
struct Numbers<'a> {
    text: &'a str,
    table: &'static str,
}

impl Numbers<'_> {
    /// The number that `key` has, from 0 to `most`, or `default`.
    fn read(
        &self,
        key: &str,
        value: &Option<Spanned<u64>>,
        default: u64,
        most: u64,
    ) -> Result<u64, TomlError> {
        let Some(value) = value else { return Ok(default) };
        if *value.get_ref() <= most {
            return Ok(*value.get_ref());
        }
        let (key, got) = (format!("{}.{key}", self.table), value.get_ref().to_string());
        let expected = format!("a whole number from 0 to {most}");
        Err(TomlError::at(self.text, value.span(), &key, &got, &expected))
    }
}

fn version(text: &str, version: &Spanned<String>) -> Result<String, TomlError> {
    let chars = version.get_ref().chars().count();
    if !(1..=VERSION_CHARS_MAX).contains(&chars) {
        let got = format!("{chars} characters");
        return Err(TomlError::at(text, version.span(), "version", &got, "1 to 128 characters"));
    }
    Ok(version.get_ref().clone())
}

fn severities(
    text: &str,
    overrides: &BTreeMap<Spanned<String>, Severity>,
) -> Result<[Severity; CHECKS_COUNT], TomlError> {
    let mut severities = CHECKS.each_ref().map(|check| check.severity);
    for (id, severity) in overrides {
        let Some(at) = position(id.get_ref()) else {
            let ids: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
            let (key, got) = (format!("severity.{}", id.get_ref()), "an unknown check");
            let expected = format!("one of {}", ids.join(", "));
            return Err(TomlError::at(text, id.span(), &key, got, &expected));
        };
        severities[at] = *severity;
    }
    Ok(severities)
}

fn payouts(
    text: &str,
    raw: Option<RawPayout>,
    network: Network,
    pinned: bool,
) -> Result<Vec<Payout>, TomlError> {
    const KEY: &str = "payout.outputs";
    let line = "the gateway's mining.coinbase_outputs, as in \
                outputs = [{ address = \"bc1…\", share = 1 }] (or severity.S12 = \"off\")";
    let Some(raw) = raw else {
        if pinned {
            return Err(TomlError::at(text, 0..0, KEY, "nothing", line));
        }
        return Ok(Vec::new());
    };
    let span = raw.outputs.span();
    let outputs = raw.outputs.into_inner();
    if outputs.len() > PAYOUTS_MAX || (pinned && outputs.is_empty()) {
        let got = format!("{} outputs", outputs.len());
        return Err(TomlError::at(text, span, KEY, &got, line));
    }
    outputs
        .into_iter()
        .map(|output| {
            Payout::parse(output.address.get_ref(), output.share, network).map_err(|fault| {
                let expected = format!("an address of {network} or raw: and hexadecimal digits");
                TomlError::at(text, output.address.span(), KEY, &fault, &expected)
            })
        })
        .collect()
}
