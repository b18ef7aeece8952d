//! S11 and S20 to S22: what the transactions spend, and when they may.

use std::collections::HashSet;

use crate::facts::Decoded;
use crate::judge::Case;
use crate::links::{Inside, Links};
use crate::outcome::{Offenders, Outcome};

/// nLockTime below this is a height, from here on a time.
const LOCK_TIME_THRESHOLD: u32 = 500_000_000;

/// nSequence that asks for no lock of any kind.
const SEQUENCE_FINAL: u32 = u32::MAX;

/// Bit of nSequence that turns the relative lock off (BIP68).
const SEQUENCE_UNLOCKED: u32 = 1 << 31;

/// Bits of nSequence that count blocks or steps of 512 s (BIP68).
const SEQUENCE_LOCK_MASK: u32 = 0xffff;

/// Version from which nSequence is a relative lock (BIP68).
const RELATIVE_LOCK_VERSION: u32 = 2;

/// S11: exact where all spent outputs are in the template; where some are, the known ones alone
/// already leave a least fee. Outputs of earlier blocks are known to a node only.
pub(crate) fn declared_fee(case: &Case<'_>) -> Outcome {
    let Some(links) = &case.links else { return Outcome::NotEvaluated };
    let mut wrong = Offenders::default();
    let mut seen = 0;
    for family in links.inside.chunk_by(|one, other| one.child == other.child) {
        let Some(position) = family.first().map(|link| link.child) else { continue };
        let transaction = case.proposal.transactions.get(position);
        let (Some(child), Some(transaction)) = (links.at(position), transaction) else { continue };
        let spent: Option<u128> =
            family.iter().map(|link| Some(u128::from(links.spent(link)?.value))).sum();
        // An output that the parent does not have is for S21 to name.
        let Some(spent) = spent else { continue };
        let created: u128 = child.outputs.iter().map(|output| u128::from(output.value)).sum();
        let is_whole = family.len() == child.spends.len();
        seen += usize::from(is_whole);
        let declared = u128::from(transaction.fee);
        let least = spent.saturating_sub(created);
        let is_right =
            if is_whole { created + declared == spent } else { created + declared >= spent };
        if !is_right {
            wrong.add(Some(child.txid), || {
                let got = format!("fee {declared} for txid {}", child.txid);
                let least = if is_whole { format!("{least}") } else { format!("at least {least}") };
                (got, format!("{least}: it spends {spent} and creates {created}"))
            });
        }
    }
    wrong.outcome("fee_declared_mismatch").or_not_evaluated(seen == links.decoded.len())
}

/// S20: a transaction that comes twice is left to S19.
pub(crate) fn double_spends(case: &Case<'_>) -> Outcome {
    let Some(links) = &case.links else { return Outcome::NotEvaluated };
    let inputs = links.decoded.iter().map(|decoded| decoded.spends.len()).sum();
    let mut spent = HashSet::with_capacity(inputs);
    let mut wrong = Offenders::default();
    for (position, decoded) in links.decoded.iter().enumerate() {
        if links.is_repeated(position) {
            continue;
        }
        let mut again = None;
        for spend in &decoded.spends {
            if !spent.insert((spend.txid, spend.vout)) {
                again = again.or(Some(spend));
            }
        }
        if let Some(spend) = again {
            wrong.add(Some(decoded.txid), || {
                let output = format!("{}:{}", spend.txid, spend.vout);
                let got = format!("{output} is spent again by txid {}", decoded.txid);
                (got, "each output spent once".to_owned())
            });
        }
    }
    wrong.outcome("double_spend_in_template")
}

/// S21: a parent comes before its child and has the output that the child spends.
pub(crate) fn order(case: &Case<'_>) -> Outcome {
    let Some(links) = &case.links else { return Outcome::NotEvaluated };
    let mut wrong = Offenders::default();
    for family in links.inside.chunk_by(|one, other| one.child == other.child) {
        let late = family.iter().find(|link| link.parent > link.child);
        let missing = family.iter().find(|link| links.spent(link).is_none());
        let Some(link) = late.or(missing) else { continue };
        let Some((child, spend)) = links.spend(link) else { continue };
        wrong.add(Some(child.txid), || match late {
            Some(link) => {
                let (at, parent) = (link.child, link.parent);
                let got = format!("txid {} at {at}, its parent at {parent}", child.txid);
                (got, "parents first".to_owned())
            }
            None => {
                let output = format!("{}:{}", spend.txid, spend.vout);
                let got = format!("txid {} spends {output}, which is not there", child.txid);
                (got, "an output of the parent".to_owned())
            }
        });
    }
    wrong.outcome("tx_order_invalid")
}

/// S22: absolute locks against height and median time past (BIP113), relative ones where the
/// parent is in the template: its age is zero, so any lock at all is not over (BIP68). The age of
/// other parents is known to a node only.
pub(crate) fn finality(case: &Case<'_>) -> Outcome {
    let Some(links) = &case.links else { return Outcome::NotEvaluated };
    let waiting: Vec<usize> = links
        .inside
        .iter()
        .filter(|link| is_relatively_locked(links, link))
        .map(|link| link.child)
        .collect();
    let mut wrong = Offenders::default();
    let mut saw_all = true;
    for (position, decoded) in links.decoded.iter().enumerate() {
        let lock = absolute_lock(case, decoded);
        saw_all &= lock != Lock::Unknown;
        // The links are in block order.
        if waiting.binary_search(&position).is_ok() {
            wrong.add(Some(decoded.txid), || {
                let got = format!("txid {} waits for a parent of this block", decoded.txid);
                (got, "no relative lock on a parent of the same block (BIP68)".to_owned())
            });
        } else if let Lock::On { want } = lock {
            wrong.add(Some(decoded.txid), || {
                (format!("txid {} with lock time {}", decoded.txid, decoded.lock_time), want)
            });
        }
    }
    wrong.outcome("tx_not_final").or_not_evaluated(saw_all)
}

fn is_relatively_locked(links: &Links<'_>, link: &Inside) -> bool {
    links.spend(link).is_some_and(|(child, spend)| {
        child.version >= RELATIVE_LOCK_VERSION
            && spend.sequence & SEQUENCE_UNLOCKED == 0
            && spend.sequence & SEQUENCE_LOCK_MASK != 0
    })
}

/// The state of a transaction's nLockTime.
#[derive(PartialEq)]
enum Lock {
    /// There is none, or it is over.
    Off,
    /// It is on; what it should be.
    On { want: String },
    /// It names a time, and the median time past is not known.
    Unknown,
}

fn absolute_lock(case: &Case<'_>, decoded: &Decoded) -> Lock {
    let lock_time = decoded.lock_time;
    let is_unlocked = || decoded.spends.iter().all(|spend| spend.sequence == SEQUENCE_FINAL);
    if lock_time == 0 || is_unlocked() {
        return Lock::Off;
    }
    let (end, what) = if lock_time < LOCK_TIME_THRESHOLD {
        (case.proposal.template.height, "height")
    } else if case.is_on_tip() {
        (case.context.chain.median_time_past, "median time past")
    } else {
        return Lock::Unknown;
    };
    if lock_time < end { Lock::Off } else { Lock::On { want: format!("below the {what} {end}") } }
}
