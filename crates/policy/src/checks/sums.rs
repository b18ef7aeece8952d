//! S06 to S10: sums over the block against consensus, the policy and the coinbase.

use crate::coinbase;
use crate::facts::money;
use crate::judge::Case;
use crate::outcome::{Finding, Offenders, Outcome};

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

/// S07: the whole block in bytes, without witnesses and with them.
pub(crate) fn size(case: &Case<'_>) -> Outcome {
    let transactions = case.proposal.transactions;
    let frame = HEADER_BYTES + bitcoin::VarInt::from(transactions.len() + 1).size() as u64;
    let coinbase = coinbase::stripped_bytes(&case.proposal.template.coinbase);
    let stripped = transactions.iter().fold(frame.saturating_add(coinbase), |sum, transaction| {
        sum.saturating_add(transaction.facts.stripped_bytes())
    });
    let whole = transactions
        .iter()
        .fold(frame.saturating_add(coinbase), |sum, transaction| {
            sum.saturating_add(transaction.facts.data_bytes as u64)
        })
        .saturating_add(coinbase::WITNESS_BYTES);
    let (stripped_most, most) = (case.policy.stripped_size_max, case.policy.size_max);
    if stripped > stripped_most {
        let got = format!("{stripped} bytes without witnesses");
        return Outcome::fail("size_exceeded", got, format!("at most {stripped_most}"));
    }
    if whole > most {
        return Outcome::fail("size_exceeded", format!("{whole} bytes"), format!("at most {most}"));
    }
    Outcome::Pass
}

/// S08: no transaction declares less than its own scripts show, and all together cost no more
/// than allowed. Where too little is declared, what the scripts show counts.
pub(crate) fn sigops(case: &Case<'_>) -> Outcome {
    let own = case
        .coinbase
        .as_ref()
        .map_or(0, |coinbase| coinbase.transaction.total_sigop_cost(|_| None) as u64);
    let mut sum: u64 = own;
    let mut short = Offenders::default();
    for transaction in case.proposal.transactions {
        let declared = u64::from(transaction.sigops);
        let decoded = transaction.facts.decoded.as_ref().ok();
        let least = decoded.map_or(0, |decoded| decoded.sigops_legacy_cost);
        sum = sum.saturating_add(declared.max(least));
        if declared < least {
            short.add(decoded.map(|decoded| decoded.txid), || {
                let got = format!("{declared} for wtxid {}", transaction.wtxid);
                (got, format!("at least {least}"))
            });
        }
    }
    let most = case.policy.sigops_max;
    let exceeded = (sum > most)
        .then(|| Finding::new("sigops_exceeded", sum.to_string(), format!("at most {most}")));
    let findings = exceeded.into_iter().chain(short.finding("sigops_declared_mismatch"));
    Outcome::of(findings.collect())
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
