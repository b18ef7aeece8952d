//! What a check says: nothing, its objections, or that it could not see.

use work::Txid;
use work::contract::verifier::DETAIL_TXIDS_MAX;

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to object to.
    Pass,
    /// At most one finding for each of the check's codes.
    Fail(Vec<Finding>),
    /// An input is missing.
    NotEvaluated,
}

impl Outcome {
    /// [`Outcome::Fail`] with `findings`, or [`Outcome::Pass`] if there are none.
    pub(crate) fn of(findings: Vec<Finding>) -> Outcome {
        if findings.is_empty() { Outcome::Pass } else { Outcome::Fail(findings) }
    }

    /// One finding.
    pub(crate) fn fail(code: &'static str, got: String, want: String) -> Outcome {
        Outcome::Fail(vec![Finding::new(code, got, want)])
    }

    /// What was seen of a template is right; `saw_all` tells whether that was everything.
    pub(crate) fn or_not_evaluated(self, saw_all: bool) -> Outcome {
        if self == Outcome::Pass && !saw_all { Outcome::NotEvaluated } else { self }
    }
}

/// One objection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) code: &'static str,
    pub(crate) got: String,
    pub(crate) want: String,
    pub(crate) txids: Vec<Txid>,
}

impl Finding {
    /// An objection to something that is no transaction.
    pub(crate) fn new(code: &'static str, got: String, want: String) -> Finding {
        Finding { code, got, want, txids: Vec::new() }
    }
}

/// Transactions that a check objects to: the first is described, the first
/// [`DETAIL_TXIDS_MAX`] are named, all are counted.
#[derive(Debug, Default)]
pub(crate) struct Offenders {
    count: usize,
    txids: Vec<Txid>,
    first: Option<(String, String)>,
}

impl Offenders {
    /// Add one; `describe` gives what was found and what was expected. Bytes that are no
    /// transaction have no `txid`.
    pub(crate) fn add(&mut self, txid: Option<Txid>, describe: impl FnOnce() -> (String, String)) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(describe());
        }
        if self.txids.len() < DETAIL_TXIDS_MAX {
            self.txids.extend(txid);
        }
    }

    /// The finding that names them, if there are any.
    pub(crate) fn finding(self, code: &'static str) -> Option<Finding> {
        let (mut got, want) = self.first?;
        if self.count > 1 {
            got.push_str(&format!("; and {} more", self.count - 1));
        }
        Some(Finding { code, got, want, txids: self.txids })
    }

    /// The outcome of a check with this one code.
    pub(crate) fn outcome(self, code: &'static str) -> Outcome {
        Outcome::of(self.finding(code).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_counted() {
        let mut offenders = Offenders::default();
        for number in 0..DETAIL_TXIDS_MAX as u8 + 10 {
            offenders.add(Some(Txid([number; 32])), || (format!("got {number}"), "want".into()));
        }
        let finding = offenders.finding("code").unwrap();
        assert_eq!(finding.txids.len(), DETAIL_TXIDS_MAX);
        assert_eq!(finding.txids[0], Txid([0; 32]));
        let more = DETAIL_TXIDS_MAX + 9;
        assert_eq!(finding.got, format!("got 0; and {more} more"));
        assert_eq!(Offenders::default().outcome("code"), Outcome::Pass);
    }
}
