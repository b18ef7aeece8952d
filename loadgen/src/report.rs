//! What a run has seen: counters and exact percentiles, as a table and as JSON.
//!
//! Every thread keeps a [`Tally`] of its own; the run adds them up into a [`Report`]. Latencies
//! are microseconds of one monotonic clock, taken when the driver took the bytes from its ring,
//! so a slice of hashing that was under way (at most a fraction of a millisecond) is in them.

mod latencies;
mod table;
mod tips;

pub use latencies::{LATENCY_MICROS_MAX, Latencies, Percentiles};
pub use tips::{SWITCH_WINDOW_MS, TIPS_KEPT, TipBoard, TipRecord, TipSpread};

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use hdrhistogram::CreationError;
use serde::Serialize;

use crate::miner::{Miner, MinerEvent};

/// Different names in one [`Counts`]; more of them count as `other`.
pub const COUNTS_MAX: usize = 64;

/// Full texts of errors kept for the reader.
pub const ERROR_SAMPLES_MAX: usize = 8;

/// The one refusal that is no failure: a share that crossed a new tip on the wire.
pub const STALE_SHARE: &str = "stale-share";

/// Occurrences by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Counts `name` once more.
    pub fn count(&mut self, name: &str) {
        self.add(name, 1);
    }

    /// Counts `name` `times` more.
    pub fn add(&mut self, name: &str, times: u64) {
        if let Some(count) = self.0.get_mut(name) {
            *count += times;
        } else {
            let name = if self.0.len() < COUNTS_MAX { name } else { "other" };
            *self.0.entry(name.to_owned()).or_default() += times;
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Counts) {
        other.0.iter().for_each(|(name, times)| self.add(name, *times));
    }

    /// Everything counted.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Occurrences of `name`.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Each name with its count, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }
}

/// The steps from a connect to the first work, each from the end of the one before.
#[derive(Debug, Clone)]
pub struct Legs {
    /// TCP connect.
    pub tcp: Latencies,
    /// Connected → act 2 verified.
    pub act2: Latencies,
    /// Act 2 → `SetupConnection.Success`.
    pub setup: Latencies,
    /// Setup → the first open channel, the negotiation of extensions included.
    pub open: Latencies,
    /// Open → first `SetNewPrevHash` with its job.
    pub first_job: Latencies,
    /// Begin of the connect → first work.
    pub total: Latencies,
}

/// What one thread has seen.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Connects that succeeded.
    pub connects: u64,
    /// Connections that ended before the run did.
    pub disconnects: u64,
    /// Miners with an open channel now.
    pub open: u64,
    /// Open channels of all of them.
    pub channels_open: u64,
    /// Headers hashed.
    pub hashes: u64,
    /// Headers that were due and not hashed for want of processor time.
    pub hashes_behind: u64,
    /// Shares sent.
    pub submitted: u64,
    /// Shares accepted.
    pub accepted: u64,
    /// Sum of difficulties that the server acknowledged.
    pub accepted_sum: u64,
    /// Shares without an answer when the run, or their connection, ended.
    pub unanswered: u64,
    /// Refused shares by code.
    pub rejects: Counts,
    /// Shares that met the bits of their tip.
    pub blocks_found: u64,
    /// Jobs received.
    pub jobs_received: u64,
    /// Numbers left out between two jobs of a channel: where the server numbers jobs in a row, jobs
    /// that a newer one overtook before they were sent.
    pub jobs_left_out: u64,
    /// `SetNewPrevHash` messages received.
    pub prev_hashes_received: u64,
    /// `SetTarget` received, one of a group once for each of its channels.
    pub targets_received: u64,
    /// Everything that ended a connection before the run did, and what a profile's device survived,
    /// by code.
    pub errors: Counts,
    /// The first few errors in full.
    pub error_samples: Vec<String>,
    /// Connect legs.
    pub legs: Legs,
    /// Share sent → its answer.
    pub ack: Latencies,
    /// First miner's new tip in this process → each other miner's.
    pub switch: Latencies,
    /// Miners that had not seen a tip [`SWITCH_WINDOW_MS`] after the first did.
    pub switches_missed: u64,
}

impl Tally {
    /// All zero.
    ///
    /// # Errors
    /// None in practice: the bounds of the histograms are constants that they accept.
    pub fn new() -> Result<Tally, CreationError> {
        Ok(Tally {
            connects: 0,
            disconnects: 0,
            open: 0,
            channels_open: 0,
            hashes: 0,
            hashes_behind: 0,
            submitted: 0,
            accepted: 0,
            accepted_sum: 0,
            unanswered: 0,
            rejects: Counts::default(),
            blocks_found: 0,
            jobs_received: 0,
            jobs_left_out: 0,
            prev_hashes_received: 0,
            targets_received: 0,
            errors: Counts::default(),
            error_samples: Vec::new(),
            legs: Legs {
                tcp: Latencies::new()?,
                act2: Latencies::new()?,
                setup: Latencies::new()?,
                open: Latencies::new()?,
                first_job: Latencies::new()?,
                total: Latencies::new()?,
            },
            ack: Latencies::new()?,
            switch: Latencies::new()?,
            switches_missed: 0,
        })
    }

    /// Counts what an event says, latencies of connecting and switching excepted.
    pub fn count_event(&mut self, event: &MinerEvent, at: work::Mono) {
        match event {
            MinerEvent::JobReceived { left_out, .. } => {
                self.jobs_received += 1;
                self.jobs_left_out += u64::from(*left_out);
            }
            MinerEvent::TipSwitched { .. } => self.prev_hashes_received += 1,
            MinerEvent::TargetSet { .. } => self.targets_received += 1,
            MinerEvent::ShareSubmitted { .. } => self.submitted += 1,
            MinerEvent::BlockFound { .. } => self.blocks_found += 1,
            MinerEvent::ShareAccepted { submitted_at, .. } => {
                self.accepted += 1;
                self.ack.record(at.micros_since(*submitted_at));
            }
            MinerEvent::ShareRejected { code, submitted_at, .. } => {
                self.rejects.count(code.as_str());
                self.ack.record(at.micros_since(*submitted_at));
            }
            _ => {}
        }
    }

    /// Counts an error; `text` says all of it.
    pub fn error(&mut self, code: &str, text: impl FnOnce() -> String) {
        self.errors.count(code);
        if self.error_samples.len() < ERROR_SAMPLES_MAX {
            self.sample(text());
        }
    }

    /// Keeps a text that is not kept yet, as long as there is room.
    fn sample(&mut self, text: String) {
        let has_room = self.error_samples.len() < ERROR_SAMPLES_MAX;
        if has_room && !self.error_samples.contains(&text) {
            self.error_samples.push(text);
        }
    }

    /// A miner's connection ended: shares it has not been answered never will be.
    pub fn count_unanswered(&mut self, miner: &Miner) {
        self.unanswered += miner.report().outstanding as u64;
    }

    /// Shares that may still be answered.
    pub fn pending(&self) -> u64 {
        let answered = self.accepted + self.rejects.total() + self.unanswered;
        self.submitted.saturating_sub(answered)
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Tally) {
        self.connects += other.connects;
        self.disconnects += other.disconnects;
        self.open += other.open;
        self.channels_open += other.channels_open;
        self.hashes += other.hashes;
        self.hashes_behind += other.hashes_behind;
        self.submitted += other.submitted;
        self.accepted += other.accepted;
        self.accepted_sum = self.accepted_sum.saturating_add(other.accepted_sum);
        self.unanswered += other.unanswered;
        self.rejects.merge(&other.rejects);
        self.blocks_found += other.blocks_found;
        self.jobs_received += other.jobs_received;
        self.jobs_left_out += other.jobs_left_out;
        self.prev_hashes_received += other.prev_hashes_received;
        self.targets_received += other.targets_received;
        self.errors.merge(&other.errors);
        other.error_samples.iter().for_each(|text| self.sample(text.clone()));
        self.legs.tcp.merge(&other.legs.tcp);
        self.legs.act2.merge(&other.legs.act2);
        self.legs.setup.merge(&other.legs.setup);
        self.legs.open.merge(&other.legs.open);
        self.legs.first_job.merge(&other.legs.first_job);
        self.legs.total.merge(&other.legs.total);
        self.ack.merge(&other.ack);
        self.switch.merge(&other.switch);
        self.switches_missed += other.switches_missed;
    }
}

/// Percentiles of the connect legs, microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct LegPercentiles {
    /// TCP connect.
    pub tcp: Percentiles,
    /// Connected → act 2 verified.
    pub act2: Percentiles,
    /// Act 2 → `SetupConnection.Success`.
    pub setup: Percentiles,
    /// Setup → open channel.
    pub open: Percentiles,
    /// Open → first work.
    pub first_job: Percentiles,
    /// Begin of the connect → first work.
    pub total: Percentiles,
}

/// A run, as it is written to JSON. Field names are a contract: they may only grow.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The address that was dialled.
    pub target: String,
    /// Whether the run is over.
    pub is_final: bool,
    /// Whether anything went wrong: an error, a missed switch, or a share refused for another
    /// reason than being stale.
    pub failed: bool,
    /// Seconds since the start.
    pub duration_seconds: f64,
    /// Threads used.
    pub threads: usize,
    /// Miners asked for.
    pub connections: usize,
    /// Miners with an open channel now, or when the run ended.
    pub open: u64,
    /// Their open channels.
    pub channels_open: u64,
    /// Connects that succeeded, reconnects included.
    pub connects: u64,
    /// Connections that ended before the run did.
    pub disconnects: u64,
    /// Headers hashed.
    pub hashes: u64,
    /// Headers hashed each second, on average.
    pub hashes_per_second: f64,
    /// Headers due but not hashed for want of processor time.
    pub hashes_behind: u64,
    /// Shares sent.
    pub shares_submitted: u64,
    /// Shares accepted.
    pub shares_accepted: u64,
    /// Sum of acknowledged difficulties; final only.
    pub shares_accepted_sum: u64,
    /// Shares never answered; final only.
    pub shares_unanswered: u64,
    /// Shares refused.
    pub shares_rejected: u64,
    /// Refused shares by code.
    pub rejects: Counts,
    /// Shares that met the bits of their tip.
    pub blocks_found: u64,
    /// Jobs received.
    pub jobs: u64,
    /// Numbers left out between two jobs of a channel.
    pub jobs_left_out: u64,
    /// `SetNewPrevHash` messages received.
    pub prev_hashes: u64,
    /// `SetTarget` messages received.
    pub targets: u64,
    /// Errors by code.
    pub errors: Counts,
    /// The first few errors in full.
    pub error_samples: Vec<String>,
    /// Connect legs.
    pub connect_micros: LegPercentiles,
    /// Share sent → answer.
    pub ack_micros: Percentiles,
    /// First miner's new tip → each miner's, over all tips.
    pub switch_micros: Percentiles,
    /// Miners that had not seen a tip after five seconds, summed over all tips.
    pub switches_missed: u64,
    /// Tips that any miner switched to.
    pub tip_count: u64,
    /// The latest tips, oldest first.
    pub tips: Vec<TipSpread>,
}

/// What a report needs besides the tallies.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// The address that was dialled.
    pub target: String,
    /// Threads used.
    pub threads: usize,
    /// Miners asked for.
    pub connections: usize,
    /// Seconds since the start.
    pub duration_seconds: f64,
    /// Whether the run is over.
    pub is_final: bool,
}

impl Report {
    /// Adds everything up.
    pub fn new(circumstances: Circumstances, tally: &Tally, board: &TipBoard) -> Report {
        let legs = &tally.legs;
        let rejected = tally.rejects.total();
        let failed = tally.errors.total() > 0
            || tally.switches_missed > 0
            || rejected > tally.rejects.of(STALE_SHARE);
        let seconds = circumstances.duration_seconds;
        Report {
            target: circumstances.target,
            is_final: circumstances.is_final,
            failed,
            duration_seconds: seconds,
            threads: circumstances.threads,
            connections: circumstances.connections,
            open: tally.open,
            channels_open: tally.channels_open,
            connects: tally.connects,
            disconnects: tally.disconnects,
            hashes: tally.hashes,
            hashes_per_second: if seconds > 0.0 { tally.hashes as f64 / seconds } else { 0.0 },
            hashes_behind: tally.hashes_behind,
            shares_submitted: tally.submitted,
            shares_accepted: tally.accepted,
            shares_accepted_sum: tally.accepted_sum,
            shares_unanswered: tally.unanswered,
            shares_rejected: rejected,
            rejects: tally.rejects.clone(),
            blocks_found: tally.blocks_found,
            jobs: tally.jobs_received,
            jobs_left_out: tally.jobs_left_out,
            prev_hashes: tally.prev_hashes_received,
            targets: tally.targets_received,
            errors: tally.errors.clone(),
            error_samples: tally.error_samples.clone(),
            connect_micros: LegPercentiles {
                tcp: legs.tcp.percentiles(),
                act2: legs.act2.percentiles(),
                setup: legs.setup.percentiles(),
                open: legs.open.percentiles(),
                first_job: legs.first_job.percentiles(),
                total: legs.total.percentiles(),
            },
            ack_micros: tally.ack.percentiles(),
            switch_micros: tally.switch.percentiles(),
            switches_missed: tally.switches_missed,
            tip_count: board.total(),
            tips: board.spreads(),
        }
    }

    /// Writes the report as JSON, to a neighbour first, so that a reader never sees half of it.
    ///
    /// # Errors
    /// The file or its neighbour cannot be written; the text names it.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        let mut neighbour = path.as_os_str().to_owned();
        neighbour.push(".new");
        let neighbour = Path::new(&neighbour);
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let written = fs::write(neighbour, bytes).and_then(|()| fs::rename(neighbour, path));
        written.map_err(|error| {
            let text = format!("cannot write the report to {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        })
    }
}
