//! One standard mining channel: what it was given, and the share path.
//!
//! The share path is [`Channel::on_submit`], in order: job, root, hash, block, verdict, seen,
//! record. The hash comes before any verdict (D17): a header that meets its own tip's target is a
//! block, whatever else is wrong with the share.

use std::sync::Arc;

use arrayvec::ArrayVec;
use sv2::Transport;
use sv2::message::mining::{
    NewMiningJob, SetNewPrevHash, SetTarget, SubmitSharesStandard, SubmitSharesSuccess,
};
use work::extranonce::ExtranoncePrefix;
use work::seen::{Insert, Seen};
use work::share::{Claim, Terms, judge, ntime_max};
use work::{BlockHash, Difficulty, MerkleNode, Now, Target, Work};

use super::board::Posted;
use super::output::{ChannelKey, ConnectionId, Entry, Output, ShareRecord, Solution, share_id};
use super::shard::{PendingAck, ShardState};
use crate::limits::TARGETS_PER_CHANNEL;
use crate::metrics::shard as counter;
use crate::reason::Reason;

/// Accepted shares that were not acknowledged to the miner so far, and are safe.
#[derive(Debug, Default)]
struct Tally {
    count: u32,
    work: Work,
    last_sequence_number: u32,
}

/// A standard channel.
#[derive(Debug)]
pub struct Channel {
    /// Its number on the connection.
    pub channel_id: u32,
    /// Its name in this process.
    pub key: ChannelKey,
    /// Its part of the space of coinbases.
    pub prefix: ExtranoncePrefix,
    /// The whole of its extranonce: the prefix and zeros up to the common length.
    pub extranonce: ArrayVec<u8, 32>,
    /// From which job on which difficulty holds; the last is the current one. Never empty.
    difficulties: ArrayVec<(u32, Difficulty, Target), TARGETS_PER_CHANNEL>,
    /// Newest job it was given; 0 before the first.
    given_job: u32,
    /// Oldest job it was given.
    first_job: u32,
    /// Tip of the newest job it was given.
    given_tip: u64,
    /// Roots of the two newest jobs it was given, so that an ordinary share costs one header.
    roots: [(u32, MerkleNode); 2],
    seen: Seen,
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
    /// Its prefix.
    pub prefix: ExtranoncePrefix,
    /// Bytes of the whole extranonce.
    pub extranonce_bytes: usize,
    /// Its first difficulty.
    pub difficulty: Difficulty,
}

impl Channel {
    /// A channel without work.
    pub fn new(new: NewChannel) -> Channel {
        let mut extranonce = ArrayVec::new();
        extranonce.extend(new.prefix);
        extranonce.extend(std::iter::repeat_n(0, new.extranonce_bytes - new.prefix.len()));
        let mut difficulties = ArrayVec::new();
        difficulties.push((0, new.difficulty, new.difficulty.target()));
        Channel {
            channel_id: new.channel_id,
            key: new.key,
            prefix: new.prefix,
            extranonce,
            difficulties,
            given_job: 0,
            first_job: 0,
            given_tip: 0,
            roots: [(0, MerkleNode::default()); 2],
            seen: Seen::default(),
            tally: Tally::default(),
            rest: Work::ZERO,
        }
    }

    /// Whether it lacks the newest job.
    pub fn is_behind(&self, state: &ShardState) -> bool {
        state.board.current().is_some_and(|posted| posted.job_id != self.given_job)
    }

    /// Whether shares wait to be acknowledged.
    pub fn has_tally(&self) -> bool {
        self.tally.count > 0
    }

    /// Give it the newest job; on a new tip as a future job that the tip then names (I6).
    /// Returns whether a tip was given.
    ///
    /// # Errors
    /// The transport's, which end the connection.
    pub fn give_job(
        &mut self,
        state: &mut ShardState,
        now: Now,
        transport: &mut Transport,
        wire: &mut Vec<u8>,
    ) -> Result<bool, sv2::TransportError> {
        let Some(posted) = state.board.current() else { return Ok(false) };
        let root = posted.job.merkle_root(&self.extranonce, &[]);
        let is_new_tip = self.given_tip != posted.tip_number;
        transport.seal(
            &NewMiningJob {
                channel_id: self.channel_id,
                job_id: posted.job_id,
                min_ntime: (!is_new_tip).then_some(posted.ntime),
                version: posted.job.template.version,
                merkle_root: root.0,
            },
            wire,
        )?;
        if is_new_tip {
            transport.seal(
                &SetNewPrevHash {
                    channel_id: self.channel_id,
                    job_id: posted.job_id,
                    prev_hash: posted.job.template.tip.prev_hash.0,
                    min_ntime: posted.ntime,
                    nbits: posted.job.template.tip.nbits,
                },
                wire,
            )?;
        }
        if self.first_job == 0 {
            self.first_job = posted.job_id;
        }
        self.given_job = posted.job_id;
        self.given_tip = posted.tip_number;
        self.roots = [(posted.job_id, root), self.roots[0]];
        self.seen.make_room(state.settings.seen_room, &state.tips, now.mono);
        state.counters.add(counter::JOBS_SENT, 1);
        state.counters.add(counter::TIPS_SENT, u64::from(is_new_tip));
        Ok(is_new_tip)
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
    ) -> Result<(), sv2::TransportError> {
        let from_job = self.given_job + 1;
        self.difficulties.retain(|(from, ..)| *from < from_job);
        if self.difficulties.is_full() {
            self.difficulties.remove(0);
        }
        let target = difficulty.target();
        self.difficulties.push((from_job, difficulty, target));
        let maximum_target = target.to_le_bytes();
        transport.seal(&SetTarget { channel_id: self.channel_id, maximum_target }, wire)
    }

    /// The difficulty a share on `job_id` is judged by: the job's own, or the easier one while a
    /// SetTarget is on its way.
    fn difficulty_for(&self, job_id: u32) -> (Difficulty, Target) {
        let own = self.difficulties.iter().rposition(|(from, ..)| *from <= job_id).unwrap_or(0);
        let (_, mut easiest, mut target) = self.difficulties[own];
        // A newer one that starts behind the newest job has been announced, not yet reached.
        if job_id == self.given_job {
            for (_, difficulty, announced) in &self.difficulties[own..] {
                if difficulty.work() < easiest.work() {
                    (easiest, target) = (*difficulty, *announced);
                }
            }
        }
        (easiest, target)
    }

    /// A late share of an ended channel: nothing but the block in it counts (D17).
    pub fn look_for_block(
        &self,
        state: &mut ShardState,
        submit: &SubmitSharesStandard,
        out: &mut Output,
    ) {
        let Some(posted) = state.board.find(submit.job_id) else { return };
        let claim = self.claim(posted, submit);
        let hash = claim.hash(&posted.job.template.tip);
        if posted.network_target.is_met_by(&hash) {
            self.solve(posted, &claim, hash, out);
            state.counters.add(counter::BLOCKS, 1);
        }
    }

    /// Judge one share. An accepted one is written to `out` and waits for its durable number.
    ///
    /// # Errors
    /// Why it is not accepted; a block in it is in `out.solutions` all the same.
    pub fn on_submit(
        &mut self,
        state: &mut ShardState,
        connection: ConnectionId,
        now: Now,
        submit: &SubmitSharesStandard,
        out: &mut Output,
    ) -> Result<(), Reason> {
        let Some(posted) = state.board.find(submit.job_id) else {
            let was_given = self.first_job <= submit.job_id && submit.job_id <= self.given_job;
            return Err(if was_given && self.first_job > 0 {
                Reason::UnknownJob
            } else {
                Reason::InvalidJobId
            });
        };
        let claim = self.claim(posted, submit);
        let tip = &posted.job.template.tip;
        let hash = claim.hash(tip);
        if posted.network_target.is_met_by(&hash) {
            self.solve(posted, &claim, hash, out);
            state.counters.add(counter::BLOCKS, 1);
        }
        if submit.job_id < self.first_job || submit.job_id > self.given_job {
            return Err(Reason::InvalidJobId);
        }
        if posted.tip_number != state.board.tip_number() {
            return Err(Reason::StalePrevhash);
        }
        let (difficulty, target) = self.difficulty_for(submit.job_id);
        judge(&claim, &hash, &self.terms(posted, now, target, state))?;
        if !out.has_credit() || state.acks_free() == 0 {
            // A repetition is told so even now; anything else may be sent again later.
            let seen = self.seen.contains(&hash);
            return Err(if seen { Reason::DuplicateNonce } else { Reason::UpstreamUnavailable });
        }
        match self.seen.insert(&hash, &state.tips) {
            Insert::New => (),
            Insert::Duplicate => return Err(Reason::DuplicateNonce),
            Insert::Full => return Err(Reason::DedupCapacityExceeded),
        }
        let mut record = self.record(posted, now, submit, hash, difficulty);
        record.hold = state.board.hold;
        record.sequence = state.next_sequence();
        state.pend(PendingAck {
            sequence: record.sequence,
            connection,
            channel_id: self.channel_id,
            sequence_number: submit.sequence_number,
            work: record.work(),
            received_at: now.mono,
        });
        // I2: pending until the forwarder's durable number passes its sequence.
        out.push(Entry::Share(record));
        Ok(())
    }

    /// Count a share that is safe now towards the next acknowledgement.
    pub fn acknowledge(&mut self, ack: &PendingAck) {
        self.tally.count += 1;
        self.tally.work += ack.work;
        self.tally.last_sequence_number = ack.sequence_number;
    }

    /// Tell the miner about all shares that are safe, in one message with exact sums.
    ///
    /// # Errors
    /// The transport's, which end the connection.
    pub fn flush(
        &mut self,
        transport: &mut Transport,
        wire: &mut Vec<u8>,
    ) -> Result<(), sv2::TransportError> {
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
            wire,
        )
    }

    fn claim(&self, posted: &Posted, submit: &SubmitSharesStandard) -> Claim {
        Claim {
            version: submit.version,
            merkle_root: self.root(posted),
            ntime: submit.ntime,
            nonce: submit.nonce,
        }
    }

    fn root(&self, posted: &Posted) -> MerkleNode {
        match self.roots.iter().find(|(job_id, _)| *job_id == posted.job_id) {
            Some((_, root)) => *root,
            None => posted.job.merkle_root(&self.extranonce, &[]),
        }
    }

    fn solve(&self, posted: &Posted, claim: &Claim, hash: BlockHash, out: &mut Output) {
        let solution = Solution {
            hash,
            header: claim.header(&posted.job.template.tip),
            job: Arc::clone(&posted.job),
            extranonce: self.extranonce.clone(),
        };
        assert!(
            out.solutions.try_push(solution).is_ok(),
            "a step handles no more frames than it has room for blocks"
        );
    }

    fn terms(&self, posted: &Posted, now: Now, target: Target, state: &ShardState) -> Terms {
        let elapsed = now.mono.micros_since(posted.posted_at.mono) / 1_000_000;
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
        Terms {
            version: posted.job.template.version,
            version_rolling: state.settings.version_rolling,
            ntime_min: posted.ntime,
            ntime_max: ntime_max(posted.ntime, elapsed, now.unix.seconds()),
            target,
        }
    }

    /// Everything about a share but its sequence number, which only an accepted one gets.
    fn record(
        &self,
        posted: &Posted,
        now: Now,
        submit: &SubmitSharesStandard,
        share_hash: BlockHash,
        difficulty: Difficulty,
    ) -> ShareRecord {
        let template = &posted.job.template;
        ShareRecord {
            sequence: 0,
            channel: self.key,
            share_id: share_id(now.unix, &share_hash),
            share_hash,
            accepted_at: now.unix,
            sequence_number: submit.sequence_number,
            job_id: submit.job_id,
            template_id: template.id,
            height: template.height,
            prev_hash: template.tip.prev_hash,
            nbits: template.tip.nbits,
            version: submit.version,
            ntime: submit.ntime,
            nonce: submit.nonce,
            coinbase_value: template.coinbase_value,
            fees: posted.fees,
            difficulty,
            block_found: posted.network_target.is_met_by(&share_hash),
            hold: false,
        }
    }
}
