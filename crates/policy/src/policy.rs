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
    /// Signature operation cost of the whole block.
    pub sigops_max: u64,
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
    sigops_max: Option<Spanned<u64>>,
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
        let number = |key: &str, value: &Option<Spanned<u64>>, default: u64, most: u64| match value
        {
            Some(value) if *value.get_ref() > most => Err(TomlError::at(
                text,
                value.span(),
                key,
                &value.get_ref().to_string(),
                &format!("a whole number from 0 to {most}"),
            )),
            Some(value) => Ok(*value.get_ref()),
            None => Ok(default),
        };
        let raw_structure = &raw.structure;
        let mut policy = Policy {
            version,
            on_missing_context: raw.on_missing_context,
            payouts,
            weight_max: number(
                "structure.weight_max",
                &raw_structure.weight_max,
                WEIGHT_MAX,
                WEIGHT_MAX,
            )?,
            sigops_max: number(
                "structure.sigops_max",
                &raw_structure.sigops_max,
                SIGOPS_MAX,
                SIGOPS_MAX,
            )?,
            coinbase_value_tolerance_sat: number(
                "structure.coinbase_value_tolerance_sat",
                &raw_structure.coinbase_value_tolerance_sat,
                0,
                MONEY_MAX,
            )?,
            empty_block_allow_for_ms_after_tip: number(
                "empty_block.allow_for_ms_after_tip",
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
            "reservegrid policy 1\nversion={:?}\non_missing_context={on_missing}\n\
             structure.weight_max={}\nstructure.sigops_max={}\n\
             structure.coinbase_value_tolerance_sat={}\nempty_block.allow_for_ms_after_tip={}\n",
            self.version,
            self.weight_max,
            self.sigops_max,
            self.coinbase_value_tolerance_sat,
            self.empty_block_allow_for_ms_after_tip,
        );
        // Writing to a String cannot fail.
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
