//! One mining channel, standard or extended: what it was given, and what it is told.
//!
//! What it sends is judged in `submission.rs`.

use std::sync::Arc;

use arrayvec::ArrayVec;
use sv2::message::mining::{
    NewExtendedMiningJob, NewMiningJob, SetNewPrevHash, SetTarget, SubmitSharesSuccess,
};
use sv2::{Transport, TransportError};
use work::extranonce::ExtranoncePrefix;
use work::seen::Seen;
use work::{Difficulty, MerkleNode, Mono, Now, Work};

use super::board::Posted;
use super::flood::Flood;
use super::output::{ChannelKey, ChannelKind, ConnectionId, Entry, Output};
use super::refusals::{RefusalMeter, Sent};
use super::shard::{PendingAck, ShardState};
use super::targets::Targets;
use super::vardiff::Vardiff;
use super::workers::Workers;
use crate::metrics::shard as counter;

/// Accepted shares that were not acknowledged to the miner so far, and are safe.
#[derive(Debug, Default)]
struct Tally {
    count: u32,
    work: Work,
    last_sequence_number: u32,
    /// The shard's own number of the last one.
    through: u64,
}

/// Who rolls the extranonce.
#[derive(Debug)]
pub enum Kind {
    /// Nobody: the prefix is all of it, and the miner hashes headers.
    Standard {
        /// Roots of the two newest jobs it was given, so that an ordinary share costs one header.
        roots: [(u32, MerkleNode); 2],
    },
    /// The miner rolls the last bytes.
    Extended {
        /// How many.
        extranonce_size: usize,
        /// Who the shares are of, by extension 0x0002.
        workers: Workers,
    },
}

impl Kind {
    /// A standard channel.
    pub fn standard() -> Kind {
        Kind::Standard { roots: [(0, MerkleNode::default()); 2] }
    }

    /// An extended channel.
    pub fn extended(extranonce_size: usize) -> Kind {
        Kind::Extended { extranonce_size, workers: Workers::default() }
    }
}

/// A mining channel.
#[derive(Debug)]
pub struct Channel {
    /// Its number on the connection.
    pub channel_id: u32,
    /// Its name in this process.
    pub key: ChannelKey,
    /// Who is credited.
    pub miner_id: Arc<str>,
    /// Its part of the space of coinbases.
    pub prefix: ExtranoncePrefix,
    /// What of its extranonce the miner does not roll: the prefix and zeros.
    pub extranonce_prefix: ArrayVec<u8, 32>,
    /// Who rolls the rest.
    pub kind: Kind,
    /// The easiest difficulty its miner takes.
    pub easiest: Difficulty,
    /// What is known of its miner's hash rate.
    pub vardiff: Vardiff,
    /// How many shares it may still send.
    pub(super) flood: Flood,
    /// What is told of its refused shares.
    pub(super) refusals: RefusalMeter,
    /// What its shares are judged by.
    pub(super) targets: Targets,
    /// Generation of the newest job it was given; 0 before the first.
    given: u32,
    /// Number of that job.
    pub(super) given_job: u32,
    /// Number of the oldest job it was given; 0 before the first.
    pub(super) first_job: u32,
    /// Tip of the newest job it was given.
    given_tip: u64,
    /// Whether a SetTarget went out that no job has followed.
    wants_fresh_job: bool,
    pub(super) seen: Seen,
    tally: Tally,
    /// Work below one whole difficulty, carried to the next acknowledgement.
    rest: Work,
}

/// What opening a channel needs.
pub struct NewChannel {
    /// Its number on the connection.
    pub channel_id: u32,
    /// Its name in this process.
    pub key: ChannelKey,
    /// Who is credited.
    pub miner_id: Arc<str>,
    /// Its prefix.
    pub prefix: ExtranoncePrefix,
    /// The prefix, padded.
    pub extranonce_prefix: ArrayVec<u8, 32>,
    /// Who rolls the rest.
    pub kind: Kind,
    /// Its first difficulty.
    pub difficulty: Difficulty,
    /// The easiest its miner takes.
    pub easiest: Difficulty,
    /// What its miner says of itself, hashes a second.
    pub nominal_hash_rate: f32,
    /// When it opens.
    pub now: Mono,
}

impl Channel {
    /// A channel without work.
    pub fn new(new: NewChannel) -> Channel {
        Channel {
            channel_id: new.channel_id,
            key: new.key,
            miner_id: new.miner_id,
            prefix: new.prefix,
            extranonce_prefix: new.extranonce_prefix,
            kind: new.kind,
            easiest: new.easiest,
            vardiff: Vardiff::new(new.now, new.nominal_hash_rate),
            flood: Flood::new(new.now),
            refusals: RefusalMeter::default(),
            targets: Targets::new(new.difficulty),
            given: 0,
            given_job: 0,
            first_job: 0,
            given_tip: 0,
            wants_fresh_job: false,
            seen: Seen::default(),
            tally: Tally::default(),
            rest: Work::ZERO,
        }
    }

    /// It has ended: what it remembers of shares is of no more use.
    pub fn forget_shares(&mut self) {
        self.seen = Seen::default();
        if let Kind::Extended { workers, .. } = &mut self.kind {
            *workers = Workers::default();
        }
    }

    /// Whether it is an extended channel.
    pub fn is_extended(&self) -> bool {
        matches!(self.kind, Kind::Extended { .. })
    }

    /// Standard or extended, for records.
    pub fn kind_name(&self) -> ChannelKind {
        if self.is_extended() { ChannelKind::Extended } else { ChannelKind::Standard }
    }

    /// Whose its shares are, for reports.
    pub fn sent(&self, connection: ConnectionId) -> Sent {
        Sent { connection, channel: Some((self.key, Arc::clone(&self.miner_id))) }
    }

    /// Whether it lacks the newest job.
    pub fn is_behind(&self, posted: &Posted) -> bool {
        posted.generation != self.given
    }

    /// Whether it was given a job on this tip.
    pub fn is_on_tip(&self, posted: &Posted) -> bool {
        posted.tip_number == self.given_tip
    }

    /// Whether a SetTarget went out that no job has followed.
    pub fn wants_fresh_job(&self) -> bool {
        self.wants_fresh_job
    }

    /// Whether shares wait to be acknowledged.
    pub fn has_tally(&self) -> bool {
        self.tally.count > 0
    }

    /// The difficulty of its next job.
    pub fn difficulty(&self) -> Difficulty {
        self.targets.newest().0
    }

    /// Give it the newest job under the number `job_id`; on a new tip as a future job that the
    /// tip then names (I6). Returns whether a tip was given.
    ///
    /// # Errors
    /// The transport's, which end the connection.
    pub fn give_job(
        &mut self,
        state: &mut ShardState,
        now: Now,
        job_id: u32,
        transport: &mut Transport,
        wire: &mut Vec<u8>,
    ) -> Result<bool, TransportError> {
        let Some(posted) = state.board.current() else { return Ok(false) };
        let is_new_tip = !self.is_on_tip(posted);
        let ntime = self.begins_at(posted, now);
        let min_ntime = (!is_new_tip).then_some(ntime);
        if self.is_extended() {
            let is_rolled = state.settings.version_mask != 0;
            let job = extended_job(posted, self.channel_id, job_id, min_ntime, is_rolled);
            transport.seal(&job, wire)?;
        } else {
            let job = NewMiningJob {
                channel_id: self.channel_id,
                job_id,
                min_ntime,
                version: posted.job.template.version,
                merkle_root: self.root(posted).0,
            };
            transport.seal(&job, wire)?;
        }
        if is_new_tip {
            transport.seal(&new_tip(posted, self.channel_id, job_id, ntime), wire)?;
        }
        state.counters.add(counter::JOBS_SENT, 1);
        state.counters.add(counter::TIPS_SENT, u64::from(is_new_tip));
        self.on_given(state, now, job_id, ntime);
        Ok(is_new_tip)
    }

    /// The time at which its miner begins with the newest job. Given once more, the job begins a
    /// second later than its headers so far: else the same headers would be mined again.
    pub fn begins_at(&self, posted: &Posted, now: Now) -> u32 {
        let first = posted.ntime.max(self.targets.earliest(u32::MAX, posted.work));
        if self.is_behind(posted) {
            return first;
        }
        let elapsed = now.mono.micros_since(posted.posted_at.mono) / 1_000_000;
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
        let later = posted.ntime.saturating_add(elapsed).max(first).saturating_add(1);
        first.max(later.min(posted.job.template.max_ntime.unwrap_or(u32::MAX)))
    }

    /// The root of a standard channel's coinbase. One that is cached costs nothing.
    pub(super) fn root(&mut self, posted: &Posted) -> MerkleNode {
        let whole = || posted.job.merkle_root(&self.extranonce_prefix, &[]);
        let Kind::Standard { roots } = &mut self.kind else { return whole() };
        let known = roots.iter().find(|(generation, _)| *generation == posted.generation);
        if let Some((_, root)) = known {
            return *root;
        }
        let root = whole();
        if posted.generation > roots[0].0 {
            *roots = [(posted.generation, root), roots[0]];
        }
        root
    }

    /// It was given the newest job under the number `job_id`, by itself or with its group; its
    /// miner begins at `ntime`.
    pub fn on_given(&mut self, state: &ShardState, now: Now, job_id: u32, ntime: u32) {
        let Some(posted) = state.board.current() else { return };
        if self.first_job == 0 {
            self.first_job = job_id;
        }
        self.given = posted.generation;
        self.given_job = job_id;
        self.given_tip = posted.tip_number;
        self.wants_fresh_job = false;
        self.targets.on_given(job_id, posted.work, ntime);
        if !self.is_extended() {
            self.root(posted);
        }
        self.seen.make_room(state.settings.seen_room, &state.tips, now.mono);
    }

    /// Change its difficulty from the next job on. Until then the easier one counts (D26).
    ///
    /// # Errors
    /// The transport's, which end the connection.
    pub fn set_difficulty(
        &mut self,
        difficulty: Difficulty,
        transport: &mut Transport,
        wire: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        self.targets.announce(self.given_job, difficulty);
        self.wants_fresh_job = self.given != 0;
        let maximum_target = difficulty.target().to_le_bytes();
        transport.seal(&SetTarget { channel_id: self.channel_id, maximum_target }, wire)
    }

    /// Count a share that is safe now towards the next acknowledgement.
    pub fn acknowledge(&mut self, ack: &PendingAck) {
        self.tally.count += 1;
        self.tally.work += ack.work;
        self.tally.last_sequence_number = ack.sequence_number;
        self.tally.through = ack.sequence;
    }

    /// Tell the miner about all shares that are safe, in one message with exact sums, and the
    /// forwarder that it was told. Takes credit for one entry.
    ///
    /// # Errors
    /// The transport's, which end the connection.
    pub fn flush(
        &mut self,
        transport: &mut Transport,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let tally = std::mem::take(&mut self.tally);
        let (whole, rest) = (tally.work + self.rest).split_whole();
        self.rest = rest;
        transport.seal(
            &SubmitSharesSuccess {
                channel_id: self.channel_id,
                last_sequence_number: tally.last_sequence_number,
                new_submits_accepted_count: tally.count,
                new_shares_sum: whole,
            },
            &mut out.wire,
        )?;
        out.push(Entry::Acknowledged {
            channel: self.key,
            through: tally.through,
            count: tally.count,
            work: tally.work,
        });
        Ok(())
    }
}

/// The newest job for an extended channel, or for a group; without a `min_ntime` if a tip will
/// name it.
pub fn extended_job(
    posted: &Posted,
    channel_id: u32,
    job_id: u32,
    min_ntime: Option<u32>,
    version_rolling_allowed: bool,
) -> NewExtendedMiningJob<'_> {
    NewExtendedMiningJob {
        channel_id,
        job_id,
        min_ntime,
        version: posted.job.template.version,
        version_rolling_allowed,
        merkle_path: &posted.merkle_path,
        coinbase_tx_prefix: &posted.job.coinbase.prefix,
        coinbase_tx_suffix: &posted.job.coinbase.suffix,
    }
}

/// The tip of the newest job, which names the job, for a miner that begins at `min_ntime`.
pub fn new_tip(posted: &Posted, channel_id: u32, job_id: u32, min_ntime: u32) -> SetNewPrevHash {
    SetNewPrevHash {
        channel_id,
        job_id,
        prev_hash: posted.job.template.tip.prev_hash.0,
        min_ntime,
        nbits: posted.job.template.tip.nbits,
    }
}
