//! Counters: plain numbers in the machines, one block of single-writer atomics per core beside
//! them, and one table of names that is both the code of the exposition and its documentation.
//!
//! A machine counts in a [`Counters`]; its driver copies it into the core's [`Block`] once a turn;
//! the ops thread adds the blocks up when it is scraped. Nothing on a hot path knows Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reason::{Close, Reason};

/// Upper edges of latency buckets in microseconds; they contain the edges of the objective
/// (50, 150, 300 ms) exactly. The last bucket is everything above.
pub const LATENCY_EDGES_MICROS: [u64; 16] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000,
    300_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
];

/// Cells of one latency: a count per bucket, one above all edges, and the sum in microseconds.
pub const LATENCY_CELLS: usize = LATENCY_EDGES_MICROS.len() + 2;

/// Reasons of the catalogue.
pub const REASONS: usize = Reason::ALL.len();

/// Reasons a share can have: `ok` first, then the catalogue.
pub const SHARE_REASONS: usize = Reason::ALL.len() + 1;

/// What a shard counts. Each is the first cell of its row in the block.
pub mod shard {
    use super::{Close, LATENCY_CELLS, REASONS, SHARE_REASONS};

    /// Connections in the handshake (gauge).
    pub const IN_HANDSHAKE: usize = 0;
    /// Connections before their first channel (gauge).
    pub const IN_SETUP: usize = 1;
    /// Connections with a channel (gauge).
    pub const OPEN: usize = 2;
    /// Connections accepted.
    pub const ACCEPTED: usize = 3;
    /// Connections refused because a table was full.
    pub const REFUSED: usize = 4;
    /// Handshakes completed.
    pub const HANDSHAKES: usize = 5;
    /// Channels open (gauge).
    pub const CHANNELS: usize = 6;
    /// Channels opened.
    pub const CHANNEL_OPENS: usize = 7;
    /// Requests for a channel refused.
    pub const CHANNEL_REFUSALS: usize = 8;
    /// Frames received.
    pub const FRAMES_RECEIVED: usize = 9;
    /// Sealed bytes received.
    pub const BYTES_RECEIVED: usize = 10;
    /// Sealed bytes handed to the kernel.
    pub const BYTES_SENT: usize = 11;
    /// Jobs given.
    pub const JOBS_SENT: usize = 12;
    /// SetNewPrevHash given.
    pub const TIPS_SENT: usize = 13;
    /// Credited work in whole difficulty-1 units.
    pub const WORK: usize = 14;
    /// Shares that were blocks.
    pub const BLOCKS: usize = 15;
    /// Frames of unknown types or extensions, skipped.
    pub const UNKNOWN_FRAMES: usize = 16;
    /// Times reading had to wait for a free ring slot.
    pub const CREDIT_STALLS: usize = 17;
    /// Longest turn so far, microseconds (gauge).
    pub const LONGEST_TURN: usize = 18;
    /// Hashes remembered against repetition (gauge).
    pub const SEEN_ENTRIES: usize = 19;
    /// Sum of difficulty-1 work as 2^-32 units below one (carried, internal).
    pub const WORK_REST: usize = 20;
    /// Generation of the board (gauge).
    pub const GENERATION: usize = 21;
    /// Shares by reason, `ok` first.
    pub const SHARES: usize = 22;
    /// Connections closed, by [`Close::index`].
    pub const CLOSES: usize = SHARES + SHARE_REASONS;
    /// Tip heard to SetNewPrevHash written.
    pub const SWITCH: usize = CLOSES + Close::COUNT;
    /// Share received to acknowledgement sealed.
    pub const ACK: usize = SWITCH + LATENCY_CELLS;
    /// What was refused without a share or a connection being at stake, by reason.
    pub const REFUSALS: usize = ACK + LATENCY_CELLS;
    /// Extended channels among those open (gauge).
    pub const CHANNELS_EXTENDED: usize = REFUSALS + REASONS;
    /// SetTarget given.
    pub const SET_TARGETS: usize = CHANNELS_EXTENDED + 1;
    /// Refused shares of which no event tells: there was no room for their report.
    pub const REFUSALS_UNRECORDED: usize = SET_TARGETS + 1;
    /// Anything else of which no event tells, for the same reason.
    pub const EVENTS_UNRECORDED: usize = REFUSALS_UNRECORDED + 1;
    /// Cells in all.
    pub const CELLS: usize = EVENTS_UNRECORDED + 1;
}

/// What control counts.
pub mod control {
    use super::LATENCY_CELLS;

    /// Templates received.
    pub const TEMPLATES: usize = 0;
    /// Verdicts: accepted.
    pub const ACCEPTS: usize = 1;
    /// Verdicts: rejected.
    pub const REJECTS: usize = 2;
    /// Verdicts that were bound to other bytes than ours: an alarm.
    pub const MISMATCHES: usize = 3;
    /// Verdicts on templates that are not considered any more.
    pub const LATE_VERDICTS: usize = 4;
    /// Tips heard.
    pub const TIPS: usize = 5;
    /// Switches within the verdict timeout.
    pub const SWITCHES_OK: usize = 6;
    /// Switches within the hold.
    pub const SWITCHES_LATE: usize = 7;
    /// Holds that ran out.
    pub const SWITCHES_TIMEOUT: usize = 8;
    /// Whether miners are held on an old tip (gauge).
    pub const HOLD: usize = 9;
    /// Whether the verifier's link is up (gauge).
    pub const VERIFIER_UP: usize = 10;
    /// Whether the template source is up (gauge).
    pub const SOURCE_UP: usize = 11;
    /// Jobs published.
    pub const PUBLISHED: usize = 12;
    /// Blocks found.
    pub const BLOCKS: usize = 13;
    /// Submissions answered: accepted or already known.
    pub const SUBMITS_ACCEPTED: usize = 14;
    /// Submissions answered: refused.
    pub const SUBMITS_REJECTED: usize = 15;
    /// Submissions that did not reach the node and are tried again.
    pub const SUBMITS_RETRIED: usize = 16;
    /// Height of the current template (gauge).
    pub const HEIGHT: usize = 17;
    /// Transactions of the current template (gauge).
    pub const TRANSACTIONS: usize = 18;
    /// Weight of the current template (gauge).
    pub const WEIGHT: usize = 19;
    /// Fees of the current template, satoshi (gauge).
    pub const FEES: usize = 20;
    /// Whether verified work is out for the current tip (gauge).
    pub const READY: usize = 21;
    /// Times the verifier's link was made.
    pub const VERIFIER_CONNECTS: usize = 22;
    /// Templates from which no coinbase could be built.
    pub const UNBUILDABLE: usize = 23;
    /// Template received to verdict.
    pub const VERDICT: usize = 24;
    /// Events that found no room on their way to the log.
    pub const EVENTS_UNRECORDED: usize = VERDICT + LATENCY_CELLS;
    /// Cells in all.
    pub const CELLS: usize = EVENTS_UNRECORDED + 1;
}

/// What the forwarder counts.
pub mod forwarder {
    /// Accepted shares taken from the rings.
    pub const SHARES: usize = 0;
    /// Shares that wait for delivery (gauge).
    pub const QUEUE: usize = 1;
    /// Batches in flight (gauge).
    pub const IN_FLIGHT: usize = 2;
    /// Shares the backend credited.
    pub const DELIVERED: usize = 3;
    /// Shares the backend had already.
    pub const DUPLICATE: usize = 4;
    /// Shares the backend refused.
    pub const REFUSED: usize = 5;
    /// Attempts answered 2xx.
    pub const POSTS_2XX: usize = 6;
    /// Attempts answered 4xx.
    pub const POSTS_4XX: usize = 7;
    /// Attempts answered 5xx.
    pub const POSTS_5XX: usize = 8;
    /// Attempts without an answer.
    pub const POSTS_IO: usize = 9;
    /// Attempts that will be repeated.
    pub const RETRIES: usize = 10;
    /// Age of the oldest undelivered share, milliseconds (gauge).
    pub const OLDEST_MILLIS: usize = 11;
    /// Channels whose names are held (gauge).
    pub const NAMES: usize = 12;
    /// Attempts answered 3xx.
    pub const POSTS_3XX: usize = 13;
    /// Shares that an operator gave up.
    pub const DISCARDED: usize = 14;
    /// Shares that wait for an operator (gauge).
    pub const DEAD_LETTERS: usize = 15;
    /// Why only probes are posted (gauge): 0 they are not, 1 failures, 2 a wrong answer.
    pub const HELD: usize = 16;
    /// What the free space allows (gauge): 0 everything, 1 slowly, 2 nothing.
    pub const SPACE_LEVEL: usize = 17;
    /// Free bytes where the journal is (gauge).
    pub const FREE_BYTES: usize = 18;
    /// The event behind the last one on disk (gauge).
    pub const HEAD: usize = 19;
    /// Bytes that are not on disk (gauge).
    pub const UNSYNCED_BYTES: usize = 20;
    /// Whether the journal cannot be written now (gauge).
    pub const DISK_FAULT: usize = 21;
    /// Failed writes and syncs.
    pub const DISK_FAULTS: usize = 22;
    /// Places of the journal that could not be read back.
    pub const DAMAGES: usize = 23;
    /// Events that found no room.
    pub const EVENTS_LOST: usize = 24;
    /// Since when the disk has been at one thing, Unix milliseconds (gauge); 0: it is at none.
    pub const DISK_BUSY_SINCE: usize = 25;
    /// Time of a sync.
    pub const SYNC: usize = 26;
    /// Cells in all.
    pub const CELLS: usize = SYNC + super::LATENCY_CELLS;
}

/// Numbers of one machine.
#[derive(Debug, Clone)]
pub struct Counters<const N: usize>([u64; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Counters([0; N])
    }
}

impl<const N: usize> Counters<N> {
    /// Count `number` more in `cell`.
    pub fn add(&mut self, cell: usize, number: u64) {
        self.0[cell] = self.0[cell].wrapping_add(number);
    }

    /// Count one less in `cell`, a gauge.
    pub fn take(&mut self, cell: usize) {
        self.0[cell] = self.0[cell].saturating_sub(1);
    }

    /// Set `cell`, a gauge.
    pub fn set(&mut self, cell: usize, number: u64) {
        self.0[cell] = number;
    }

    /// The number in `cell`.
    pub fn read(&self, cell: usize) -> u64 {
        self.0[cell]
    }

    /// Record a latency whose cells begin at `cell`.
    pub fn record(&mut self, cell: usize, micros: u64) {
        let bucket = LATENCY_EDGES_MICROS
            .iter()
            .position(|edge| micros <= *edge)
            .unwrap_or(LATENCY_EDGES_MICROS.len());
        self.add(cell + bucket, 1);
        self.add(cell + LATENCY_CELLS - 1, micros);
    }
}

/// The numbers of one core as others may read them. One writer, many readers.
#[derive(Debug)]
#[repr(align(128))]
pub struct Block<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Block<N> {
    fn default() -> Self {
        Block(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Block<N> {
    /// Show what `counters` holds.
    pub fn publish(&self, counters: &Counters<N>) {
        for (cell, number) in self.0.iter().zip(&counters.0) {
            cell.store(*number, Ordering::Relaxed);
        }
    }

    /// The number in `cell`.
    pub fn read(&self, cell: usize) -> u64 {
        self.0[cell].load(Ordering::Relaxed)
    }
}
