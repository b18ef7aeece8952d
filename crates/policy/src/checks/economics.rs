//! E06: is work being given away?

use crate::judge::Case;
use crate::outcome::Outcome;

/// E06: a coinbase-only template is right just after a tip, until the full one is there.
pub(crate) fn empty_block(case: &Case<'_>) -> Outcome {
    if !case.proposal.transactions.is_empty() {
        return Outcome::Pass;
    }
    let (age, allowed) = (case.context.tip_age_ms, case.policy.empty_block_allow_for_ms_after_tip);
    if age <= allowed {
        return Outcome::Pass;
    }
    Outcome::fail(
        "empty_block",
        format!("no transactions {age} ms after the tip"),
        format!("transactions after {allowed} ms"),
    )
}
