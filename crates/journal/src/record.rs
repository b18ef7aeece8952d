//! What the journal holds: one enum. Codes of records and outcomes are contracts; they only grow.

use std::sync::Arc;

use work::{UnixTime, Work};

use crate::share::{Refusal, Share};

/// Bytes of one record at most, its frame included.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Results in one [`Record::Settled`] at most: as many as a batch has shares.
pub const SETTLEMENTS_MAX: usize = 512;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A share that counts, whether or not its miner has been told. One event, `share_accepted`.
    Accepted(Share),
    /// A share that does not. One event, `share_accepted` with `sv2_response` = `error`.
    Refused(Refusal),
    /// A channel was told that its accepted shares up to `through` are. No event.
    Acknowledged {
        /// Start of the gateway.
        epoch: u16,
        /// Shard.
        shard: u8,
        /// The channel's name in its process.
        channel_key: u64,
        /// Sequence (see [`Share::sequence`]) of the last of them.
        through: u64,
        /// How many since the last acknowledgement of this channel.
        count: u32,
        /// Their work.
        work: Work,
    },
    /// A batch was posted, and this came of it. No event.
    Attempted(Attempt),
    /// Results of shares: the one `share_forward_result` of each. As many events as results.
    Settled(Settled),
    /// The backend will not take these shares; they wait for an operator. One event,
    /// `shares_dead_lettered`. It settles nothing (D28).
    DeadLettered {
        /// The batch that was refused.
        batch_id: Arc<str>,
        /// HTTP status.
        status: u16,
        /// What the backend said, shortened.
        error_detail: Arc<str>,
        /// `event_id`s of the shares' acceptance.
        shares: Vec<u64>,
    },
    /// An operator had dead letters posted again. One event, `dead_letter_replayed`.
    Replayed {
        /// `event_id`s of the shares' acceptance.
        shares: Vec<u64>,
    },
    /// Anything else that happened, as JSON. One event.
    Told {
        /// The event's `type`.
        kind: Arc<str>,
        /// Its fields behind the envelope, as one JSON object.
        body: Arc<str>,
    },
    /// Refused shares that found no room in their quota. One event, `refusals_unrecorded`.
    Unrecorded {
        /// How many, by reason code.
        counts: Vec<(Arc<str>, u64)>,
    },
    /// Where a start may begin to read. No event.
    Checkpoint {
        /// Every share whose event is before this one is settled or a dead letter.
        settled_below: u64,
        /// Event of the oldest share that is a dead letter; `u64::MAX` if there is none.
        oldest_dead: u64,
        /// A new process began here: sequences and channel keys start anew.
        epoch: u16,
    },
}

/// One POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The batch.
    pub batch_id: Arc<str>,
    /// From 1.
    pub attempt: u32,
    /// HTTP status; 0 without an answer.
    pub status: u16,
    /// Microseconds until the answer.
    pub rtt_micros: u32,
    /// What went wrong, or empty.
    pub error_detail: Arc<str>,
    /// `event_id`s of the shares' acceptance, in the order of the batch.
    pub shares: Vec<u64>,
}

/// Results of one answer, or of an operator's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The batch; empty if an operator discarded.
    pub batch_id: Arc<str>,
    /// HTTP status; 0 without an answer.
    pub status: u16,
    /// Attempts that it took.
    pub attempts: u32,
    /// Microseconds of the last attempt.
    pub rtt_micros: u32,
    /// Per share.
    pub results: Vec<Settlement>,
}

/// Result of one share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// `event_id` of its acceptance.
    pub share_event: u64,
    /// Its ULID.
    pub share_id: u128,
    /// When it was accepted.
    pub accepted_at: UnixTime,
    /// What became of it.
    pub outcome: Outcome,
    /// The backend's reason, shortened, or an operator's; empty if there is none.
    pub error_detail: Arc<str>,
}

/// What became of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// The backend credits it.
    Delivered = 1,
    /// The backend has it already (409, or its hash was credited under another id).
    Duplicate = 2,
    /// The backend refuses it.
    RejectedByUpstream = 3,
    /// An operator gave it up.
    DeadLettered = 4,
}

impl Outcome {
    /// The name in events and exports.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::Duplicate => "duplicate",
            Outcome::RejectedByUpstream => "rejected_by_upstream",
            Outcome::DeadLettered => "dead_lettered",
        }
    }

    /// `upstream_accepted` of the event: unknown after a 409 (D28).
    pub fn upstream_accepted(self) -> Option<bool> {
        match self {
            Outcome::Delivered => Some(true),
            Outcome::Duplicate => None,
            Outcome::RejectedByUpstream | Outcome::DeadLettered => Some(false),
        }
    }
}

impl Record {
    /// How many event numbers it takes.
    pub fn events(&self) -> u64 {
        match self {
            Record::Acknowledged { .. } | Record::Attempted(_) | Record::Checkpoint { .. } => 0,
            Record::Settled(settled) => settled.results.len() as u64,
            _ => 1,
        }
    }
}
