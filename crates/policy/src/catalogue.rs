//! The table of checks: one row each, in the order in which reasons are reported.
//!
//! Ids and codes are a contract (D11): `tests/golden/codes.txt` lists them and may only grow.

use serde::{Deserialize, Serialize};

use crate::checks::{chain, coinbase, economics, spends, sums, transactions};
use crate::judge::Case;
use crate::outcome::Outcome;

/// Reason code of a reject that no check spoke for: a check that denies lacked an input, and the
/// policy says that this denies.
pub const NOT_EVALUATED: &str = "not_evaluated";

/// What a check that speaks does to the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The template is rejected.
    Deny,
    /// The verdict carries the reason and is not changed by it.
    Warn,
    /// The check does not run.
    Off,
}

impl Severity {
    /// As in policy.toml.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Deny => "deny",
            Severity::Warn => "warn",
            Severity::Off => "off",
        }
    }
}

/// What it means that a check lacks an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// `on_missing_context` of policy.toml says: something is wrong with proposal or verifier.
    AsPolicySays,
    /// The verdict names the check and is not changed: not every honest source has this input.
    Named,
}

/// One row of the table.
#[derive(Debug)]
pub struct Check {
    /// Name, as in `[severity]` of policy.toml.
    pub id: &'static str,
    /// What it asks, in a few words.
    pub title: &'static str,
    /// Reason codes it can give.
    pub codes: &'static [&'static str],
    /// Severity unless policy.toml says otherwise.
    pub severity: Severity,
    /// What lacking an input does, if the severity is deny.
    pub if_missing: IfMissing,
    pub(crate) run: fn(&Case<'_>) -> Outcome,
}

/// Number of checks.
pub const CHECKS_COUNT: usize = 25;

const fn check(
    id: &'static str,
    severity: Severity,
    codes: &'static [&'static str],
    title: &'static str,
    run: fn(&Case<'_>) -> Outcome,
) -> Check {
    Check { id, title, codes, severity, if_missing: IfMissing::AsPolicySays, run }
}

impl Check {
    const fn named_if_missing(mut self) -> Check {
        self.if_missing = IfMissing::Named;
        self
    }
}

/// Every check there is.
pub static CHECKS: [Check; CHECKS_COUNT] = {
    use Severity::{Deny, Warn};
    [
        check(
            "S01",
            Deny,
            &["prevhash_malformed", "prevhash_unknown", "prevhash_not_tip"],
            "builds on the tip",
            chain::prev_hash,
        ),
        check(
            "S02",
            Deny,
            &["height_mismatch", "bip34_height_mismatch"],
            "height is the tip's plus one, and in the coinbase (BIP34)",
            chain::height,
        ),
        check("S03", Deny, &["nbits_mismatch"], "target is the required one", chain::nbits),
        check("S04", Deny, &["version_invalid"], "version has BIP9's top bits", chain::version),
        check(
            "S05",
            Deny,
            &["ntime_too_old", "ntime_too_new", "timewarp"],
            "times lie between median time past and two hours from now",
            chain::times,
        ),
        check("S06", Deny, &["weight_exceeded"], "block weight", sums::weight),
        check(
            "S07",
            Warn,
            &["size_exceeded"],
            "block size in bytes, without and with witnesses",
            sums::size,
        ),
        check(
            "S08",
            Deny,
            &["sigops_exceeded", "sigops_declared_mismatch"],
            "signature operation cost",
            sums::sigops,
        ),
        check(
            "S09",
            Deny,
            &["coinbase_value_too_high"],
            "coinbase takes at most subsidy and fees",
            sums::value_too_high,
        ),
        check(
            "S10",
            Warn,
            &["coinbase_value_too_low"],
            "coinbase leaves no money behind",
            sums::value_too_low,
        ),
        check(
            "S11",
            Warn,
            &["fee_declared_mismatch"],
            "declared fees are inputs less outputs, where the inputs are known",
            spends::declared_fee,
        )
        .named_if_missing(),
        check(
            "S12",
            Deny,
            &["coinbase_output_unexpected", "coinbase_output_missing"],
            "coinbase pays the pinned outputs by their shares, and nobody else",
            coinbase::outputs,
        ),
        check(
            "S13",
            Deny,
            &["coinbase_script_length"],
            "scriptSig of the coinbase has 2 to 100 bytes",
            coinbase::script_length,
        ),
        check("S14", Deny, &["coinbase_malformed"], "coinbase is one", coinbase::structure),
        check(
            "S15",
            Deny,
            &["witness_commitment_mismatch"],
            "witness commitment is that of the transactions",
            coinbase::witness_commitment,
        ),
        check(
            "S16",
            Deny,
            &["merkle_mismatch"],
            "merkle path is that of the transactions",
            transactions::merkle_path,
        ),
        check("S17", Deny, &["txid_mismatch"], "names are those of the bytes", transactions::names),
        check("S18", Deny, &["tx_malformed"], "transactions decode", transactions::decode),
        check("S19", Deny, &["tx_duplicate"], "no transaction twice", transactions::duplicates),
        check(
            "S20",
            Deny,
            &["double_spend_in_template"],
            "no output spent twice",
            spends::double_spends,
        ),
        check(
            "S21",
            Deny,
            &["tx_order_invalid"],
            "parents stand before their children",
            spends::order,
        ),
        check(
            "S22",
            Deny,
            &["tx_not_final"],
            "transactions are final at this height and time",
            spends::finality,
        ),
        check(
            "S23",
            Warn,
            &["tx_too_large"],
            "no transaction heavier than nodes relay",
            transactions::too_large,
        ),
        check(
            "S24",
            Deny,
            &["rules_unsupported"],
            "rules of the block are known here",
            chain::rules,
        )
        .named_if_missing(),
        check(
            "E06",
            Warn,
            &["empty_block"],
            "no empty block except just after a tip",
            economics::empty_block,
        ),
    ]
};

/// Position of the check named `id`.
pub fn position(id: &str) -> Option<usize> {
    CHECKS.iter().position(|check| check.id == id)
}
