//! S06 to S10: sums over the block against consensus and the coinbase.

use crate::coinbase;
use crate::facts::money;
use crate::judge::{Case, Finding, Outcome};

/// Bytes of a block header.
const HEADER_BYTES: u64 = 80;

/// Cost of a signature operation outside a witness (BIP141).
const WITNESS_SCALE: u64 = 4;

/// S06: the whole block, with header, count and coinbase.
pub(crate) fn weight(case: &Case<'_>) -> Outcome {
    let transactions = case.proposal.transactions;
    let count = bitcoin::VarInt::from(transactions.len() + 1).size() as u64;
    let frame = (HEADER_BYTES + count) * WITNESS_SCALE;
    let weight = transactions
        .iter()
        .fold(frame, |sum, transaction| sum.saturating_add(transaction.facts.weight()))
        .saturating_add(coinbase::weight(&case.proposal.template.coinbase));
    let most = case.policy.weight_max;
    if weight <= most {
        return Outcome::Pass;
    }
    Outcome::fail("weight_exceeded", weight.to_string(), format!("at most {most}"))
}

/// S08: what is declared adds up to no more than allowed, and no transaction declares less than
/// its own scripts show.
pub(crate) fn sigops(case: &Case<'_>) -> Outcome {
    let transactions = case.proposal.transactions;
    let mut findings = Vec::new();
    let own = case
        .coinbase
        .as_ref()
        .map_or(0, |coinbase| coinbase.transaction.total_sigop_cost(|_| None) as u64);
    let sum: u64 = transactions
        .iter()
        .fold(own, |sum, transaction| sum.saturating_add(u64::from(transaction.sigops)));
    let most = case.policy.sigops_max;
    if sum > most {
        findings.push(Finding {
            code: "sigops_exceeded",
            got: sum.to_string(),
            want: format!("at most {most}"),
        });
    }
    let short = transactions.iter().find_map(|transaction| {
        let least = transaction.facts.decoded.as_ref().ok()?.sigops_legacy_cost;
        (u64::from(transaction.sigops) < least).then_some((transaction, least))
    });
    if let Some((transaction, least)) = short {
        findings.push(Finding {
            code: "sigops_declared_mismatch",
            got: format!("{} for wtxid {}", transaction.sigops, transaction.wtxid),
            want: format!("at least {least}"),
        });
    }
    Outcome::of(findings)
}

/// All that the coinbase may take: subsidy of the declared height and declared fees.
fn allowed(case: &Case<'_>) -> u128 {
    u128::from(case.context.network.subsidy(case.proposal.template.height)) + case.fees()
}

/// S09: neither the value nor the outputs exceed what there is.
pub(crate) fn value_too_high(case: &Case<'_>) -> Outcome {
    let value = case.proposal.template.coinbase.value;
    let most = allowed(case);
    if u128::from(value) > most {
        let want = format!("at most {most}: subsidy and fees");
        return Outcome::fail("coinbase_value_too_high", value.to_string(), want);
    }
    let Ok(coinbase) = &case.coinbase else { return Outcome::NotEvaluated };
    let paid = money(&coinbase.transaction);
    if paid.is_some_and(|paid| paid <= value) {
        return Outcome::Pass;
    }
    let got = paid.map_or("more than there is".to_owned(), |paid| paid.to_string());
    let want = format!("outputs of at most {value}: the coinbase value");
    Outcome::fail("coinbase_value_too_high", got, want)
}

/// S10: money that the outputs leave behind is lost for ever.
pub(crate) fn value_too_low(case: &Case<'_>) -> Outcome {
    let Ok(coinbase) = &case.coinbase else { return Outcome::NotEvaluated };
    let tolerance = u128::from(case.policy.coinbase_value_tolerance_sat);
    let least = allowed(case).saturating_sub(tolerance);
    match money(&coinbase.transaction) {
        Some(paid) if u128::from(paid) < least => {
            let want = format!("at least {least}: subsidy and fees");
            Outcome::fail("coinbase_value_too_low", paid.to_string(), want)
        }
        _ => Outcome::Pass,
    }
}
