//! S16 to S19 and S23: the transactions by themselves.

use std::collections::HashSet;

use work::merkle;

use crate::judge::Case;
use crate::outcome::{Offenders, Outcome};

/// S16.
pub(crate) fn merkle_path(case: &Case<'_>) -> Outcome {
    let Some(links) = &case.links else { return Outcome::NotEvaluated };
    let txids: Vec<[u8; 32]> = links.decoded.iter().map(|decoded| decoded.txid.0).collect();
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
    let mut wrong = Offenders::default();
    for transaction in case.proposal.transactions {
        let Ok(decoded) = &transaction.facts.decoded else { continue };
        if decoded.wtxid != transaction.wtxid {
            wrong.add(Some(decoded.txid), || {
                let got = format!("declared wtxid {}", transaction.wtxid);
                (got, format!("{}, the hash of its bytes", decoded.wtxid))
            });
        }
    }
    wrong.outcome("txid_mismatch")
}

/// S18.
pub(crate) fn decode(case: &Case<'_>) -> Outcome {
    let mut wrong = Offenders::default();
    for (position, transaction) in case.proposal.transactions.iter().enumerate() {
        if let Err(fault) = &transaction.facts.decoded {
            wrong.add(None, || {
                let got = format!("transaction {position}, wtxid {}: {fault}", transaction.wtxid);
                (got, "a transaction in its canonical form".to_owned())
            });
        }
    }
    wrong.outcome("tx_malformed")
}

/// S19: by either name, so that neither a lie about a wtxid nor another witness hides a twin.
pub(crate) fn duplicates(case: &Case<'_>) -> Outcome {
    let transactions = case.proposal.transactions;
    let mut names = HashSet::with_capacity(transactions.len());
    let mut txids = HashSet::with_capacity(transactions.len());
    let mut twice = Offenders::default();
    for transaction in transactions {
        let txid = transaction.facts.decoded.as_ref().ok().map(|decoded| decoded.txid);
        let is_new_name = names.insert(transaction.wtxid);
        let is_new_txid = txid.is_none_or(|txid| txids.insert(txid));
        if !(is_new_name && is_new_txid) {
            twice.add(txid, || {
                let got = format!("wtxid {} comes twice", transaction.wtxid);
                (got, "each transaction once".to_owned())
            });
        }
    }
    twice.outcome("tx_duplicate")
}

/// S23: nodes relay no heavier ones, so whoever put one in did it by another way.
pub(crate) fn too_large(case: &Case<'_>) -> Outcome {
    let most = case.policy.tx_weight_max;
    let mut large = Offenders::default();
    for transaction in case.proposal.transactions {
        let weight = transaction.facts.weight();
        if weight > most {
            let txid = transaction.facts.decoded.as_ref().ok().map(|decoded| decoded.txid);
            large.add(txid, || {
                (format!("wtxid {} weighs {weight}", transaction.wtxid), format!("at most {most}"))
            });
        }
    }
    large.outcome("tx_too_large")
}
