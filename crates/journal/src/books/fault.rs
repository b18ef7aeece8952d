//! What can be wrong with a journal, each kind with the place that shows it.

use std::fmt;

use ulid::Ulid;

use crate::segment::{Position, file_name};

/// Kinds of faults. The names are what scripts look for; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// Bytes that are no record, with records behind them.
    Damaged,
    /// Event numbers do not follow each other.
    EventGap,
    /// A start of the gateway with a lower number came later.
    EpochBack,
    /// A shard's accepted shares do not follow each other.
    SequenceGap,
    /// A share's name is not made of its time and its hash (D25).
    ShareIdWrong,
    /// Two accepted shares have one hash.
    HashTwice,
    /// An acknowledgement that says something else than the shares it is for.
    AcknowledgedWrong,
    /// A share has two results.
    SettledTwice,
    /// A result of what is no accepted share, or came before it.
    SettledUnknown,
    /// A result that names another share than the one it is for.
    SettlementWrong,
    /// A dead letter, a replay or a discard of a share that was in no state for it.
    DeadLetterWrong,
    /// A batch with what is no accepted share.
    AttemptUnknown,
    /// A checkpoint that would make a start overlook a share.
    CheckpointWrong,
    /// Segments are gone that held shares without a result.
    PrunedUnsettled,
    /// A miner's sums of an hour differ.
    Unbalanced,
}

impl FaultKind {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Damaged => "damaged",
            FaultKind::EventGap => "event_gap",
            FaultKind::EpochBack => "epoch_back",
            FaultKind::SequenceGap => "sequence_gap",
            FaultKind::ShareIdWrong => "share_id_wrong",
            FaultKind::HashTwice => "hash_twice",
            FaultKind::AcknowledgedWrong => "acknowledged_wrong",
            FaultKind::SettledTwice => "settled_twice",
            FaultKind::SettledUnknown => "settled_unknown",
            FaultKind::SettlementWrong => "settlement_wrong",
            FaultKind::DeadLetterWrong => "dead_letter_wrong",
            FaultKind::AttemptUnknown => "attempt_unknown",
            FaultKind::CheckpointWrong => "checkpoint_wrong",
            FaultKind::PrunedUnsettled => "pruned_unsettled",
            FaultKind::Unbalanced => "unbalanced",
        }
    }
}

/// A counterexample to the books: where, which share, what was found, what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault.
    pub kind: FaultKind,
    /// Event number of the record that shows it.
    pub event_id: u64,
    /// Where that record begins.
    pub position: Position,
    /// The share, if it is about one.
    pub share_id: Option<u128>,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { segment, offset } = self.position;
        write!(f, "{}: event {}", self.kind.name(), self.event_id)?;
        write!(f, " at {}:{offset}", file_name(segment))?;
        if let Some(share_id) = self.share_id {
            write!(f, ", share {}", Ulid(share_id))?;
        }
        write!(f, ": {}; expected {}", self.found, self.expected)
    }
}
