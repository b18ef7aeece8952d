//! S16 to S21: the transactions by themselves and among each other.

use std::collections::{HashMap, HashSet};

use work::merkle;

use crate::facts::Decoded;
use crate::judge::{Case, Outcome};
use crate::proposal::JudgedTransaction;

/// Facts of all transactions, or nothing if one does not decode (then S18 speaks).
fn all_decoded<'a>(case: &Case<'a>) -> Option<Vec<&'a Decoded>> {
    case.proposal
        .transactions
        .iter()
        .map(|transaction| transaction.facts.decoded.as_ref().ok())
        .collect()
}

/// S16.
pub(crate) fn merkle_path(case: &Case<'_>) -> Outcome {
    let Some(transactions) = all_decoded(case) else { return Outcome::NotEvaluated };
    let txids: Vec<[u8; 32]> = transactions.iter().map(|decoded| decoded.txid.0).collect();
    let want = merkle::path_of_first(&txids);
    let got = &case.proposal.template.merkle_path;
    if *got == want {
        return Outcome::Pass;
    }
    if got.len() != want.len() {
        let (got, want) = (format!("{} nodes", got.len()), format!("{} nodes", want.len()));
        return Outcome::fail("merkle_mismatch", got, want);
    }
    let differs = got.iter().zip(&want).enumerate().find(|(_, (got, want))| got != want);
    let (got, want) = differs.map_or_else(Default::default, |(level, (got, want))| {
        (format!("node {level} is {got}"), want.to_string())
    });
    Outcome::fail("merkle_mismatch", got, want)
}

/// S17.
pub(crate) fn names(case: &Case<'_>) -> Outcome {
    let wrong = case.proposal.transactions.iter().find_map(|transaction| {
        let decoded = transaction.facts.decoded.as_ref().ok()?;
        (decoded.wtxid != transaction.wtxid).then_some((transaction.wtxid, decoded.wtxid))
    });
    match wrong {
        Some((got, want)) => Outcome::fail(
            "txid_mismatch",
            format!("declared wtxid {got}"),
            format!("{want}, the hash of its bytes"),
        ),
        None => Outcome::Pass,
    }
}

/// S18.
pub(crate) fn decode(case: &Case<'_>) -> Outcome {
    let wrong =
        case.proposal.transactions.iter().enumerate().find_map(|(position, transaction)| {
            Some((position, transaction, transaction.facts.decoded.as_ref().err()?))
        });
    match wrong {
        Some((position, transaction, fault)) => Outcome::fail(
            "tx_malformed",
            format!("transaction {position}, wtxid {}: {fault}", transaction.wtxid),
            "a transaction in its canonical form".to_owned(),
        ),
        None => Outcome::Pass,
    }
}

/// Positions in the block of each txid's first occurrence, and the first transaction that
/// comes twice by either name.
fn first_positions<'a>(
    case: &Case<'a>,
) -> (HashMap<[u8; 32], usize>, Option<&'a JudgedTransaction>) {
    let transactions = case.proposal.transactions;
    let mut names = HashSet::with_capacity(transactions.len());
    let mut positions = HashMap::with_capacity(transactions.len());
    let mut twice = None;
    for (position, transaction) in transactions.iter().enumerate() {
        let mut seen = !names.insert(transaction.wtxid);
        if let Ok(decoded) = &transaction.facts.decoded {
            seen |= positions.contains_key(&decoded.txid.0);
            positions.entry(decoded.txid.0).or_insert(position);
        }
        if seen {
            twice = twice.or(Some(transaction));
        }
    }
    (positions, twice)
}

/// S19.
pub(crate) fn duplicates(case: &Case<'_>) -> Outcome {
    match first_positions(case).1 {
        Some(transaction) => Outcome::fail(
            "tx_duplicate",
            format!("wtxid {} comes twice", transaction.wtxid),
            "each transaction once".to_owned(),
        ),
        None => Outcome::Pass,
    }
}

/// S20: a transaction that comes twice is left to S19.
pub(crate) fn double_spends(case: &Case<'_>) -> Outcome {
    let Some(transactions) = all_decoded(case) else { return Outcome::NotEvaluated };
    let (positions, _) = first_positions(case);
    let mut spent = HashSet::new();
    for (position, decoded) in transactions.iter().enumerate() {
        if positions.get(&decoded.txid.0) != Some(&position) {
            continue;
        }
        let again = decoded.spends.iter().find(|spend| !spent.insert((spend.txid, spend.vout)));
        if let Some(spend) = again {
            return Outcome::fail(
                "double_spend_in_template",
                format!("{}:{} is spent again by txid {}", spend.txid, spend.vout, decoded.txid),
                "each output spent once".to_owned(),
            );
        }
    }
    Outcome::Pass
}

/// S21.
pub(crate) fn order(case: &Case<'_>) -> Outcome {
    let Some(transactions) = all_decoded(case) else { return Outcome::NotEvaluated };
    let (positions, _) = first_positions(case);
    for (position, decoded) in transactions.iter().enumerate() {
        let late = decoded.spends.iter().find_map(|spend| {
            positions.get(&spend.txid.0).copied().filter(|parent| *parent > position)
        });
        if let Some(parent) = late {
            return Outcome::fail(
                "tx_order_invalid",
                format!("txid {} at {position}, its parent at {parent}", decoded.txid),
                "parents first".to_owned(),
            );
        }
    }
    Outcome::Pass
}
