//! One submitted share, from its job to its record: the share path.
//!
//! The order is: job, root, hash, block, verdict, seen, record. The hash comes before any verdict
//! (D17): a header that meets its own tip's target is a block, whatever else is wrong with the
//! share.

use std::sync::Arc;

use arrayvec::ArrayVec;
use sv2::TransportError;
use sv2::message::extension::user_identity;
use sv2::message::mining::{SubmitSharesError, SubmitSharesExtended, SubmitSharesStandard};
use work::seen::Insert;
use work::share::{Claim, Terms, judge, ntime_max};
use work::{BlockHash, Difficulty, MerkleNode, Mono, Now, Target};

use super::board::{Board, Posted};
use super::channel::{Channel, Kind};
use super::flood::{Aim, Excess};
use super::numbers::JobNumbers;
use super::output::{ConnectionId, Entry, Output, Rolled, ShareRecord, Solution, share_id};
use super::refusals::{Refusal, Sent};
use super::session::{GROUP_CHANNEL_ID, OpenConnection, Session};
use super::shard::{PendingAck, ShardState};
use super::workers::{self, Worker};
use crate::metrics::shard as counter;
use crate::reason::Reason;

/// A submitted share of either kind.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The channel it names.
    pub channel_id: u32,
    /// The miner's own number.
    pub sequence_number: u32,
    /// The job it names.
    pub job_id: u32,
    /// Header field.
    pub nonce: u32,
    /// Header field.
    pub ntime: u32,
    /// Header field.
    pub version: u32,
    /// What the miner rolled, in an extended share.
    pub extranonce: Option<&'a [u8]>,
    /// Whose share it is, by extension 0x0002.
    pub worker: Option<&'a str>,
}

impl<'a> Submission<'a> {
    /// A standard share.
    pub fn standard(submit: &SubmitSharesStandard) -> Submission<'static> {
        Submission {
            channel_id: submit.channel_id,
            sequence_number: submit.sequence_number,
            job_id: submit.job_id,
            nonce: submit.nonce,
            ntime: submit.ntime,
            version: submit.version,
            extranonce: None,
            worker: None,
        }
    }

    /// An extended share; `has_workers` if extension 0x0002 was negotiated.
    pub fn extended(submit: &SubmitSharesExtended<'a>, has_workers: bool) -> Submission<'a> {
        let tlv = if has_workers { submit.tlv } else { &[] };
        Submission {
            channel_id: submit.channel_id,
            sequence_number: submit.sequence_number,
            job_id: submit.job_id,
            nonce: submit.nonce,
            ntime: submit.ntime,
            version: submit.version,
            extranonce: Some(submit.extranonce),
            worker: user_identity(tlv).and_then(workers::name),
        }
    }

    fn claim(&self, merkle_root: MerkleNode) -> Claim {
        Claim { version: self.version, merkle_root, ntime: self.ntime, nonce: self.nonce }
    }
}

/// Whose share it is, and when it came.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// The connection.
    pub connection: ConnectionId,
    /// The time.
    pub now: Now,
    /// When the share came.
    pub received_at: Mono,
}

/// What became of a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Judged {
    /// It is credited, and acknowledged once it is safe.
    Accepted,
    /// It is not, and the hash of its header if one could be built.
    Refused(Reason, Option<BlockHash>),
    /// It is not, because there are too many; and what else is to be done about that.
    Flooding(Excess, Option<BlockHash>),
}

/// A share whose header is known.
struct Found<'a> {
    posted: &'a Posted,
    claim: Claim,
    hash: BlockHash,
    /// Not every share that is a block is one that its channel may send.
    is_of_kind: bool,
}

impl Channel {
    /// Judge one share. An accepted one is written to `out` and waits for its durable number; a
    /// block is in `out.solutions` whatever becomes of its share.
    pub fn on_submit(
        &mut self,
        state: &mut ShardState,
        numbers: &JobNumbers,
        from: Sender,
        submit: &Submission<'_>,
        out: &mut Output,
    ) -> Judged {
        let found = self.find(&state.board, numbers, submit);
        if let Ok(found) = &found
            && found.posted.network_target.is_met_by(&found.hash)
        {
            self.solve(found, submit, out);
            state.counters.add(counter::BLOCKS, 1);
        }
        let hash = found.as_ref().ok().map(|found| found.hash);
        let now = from.now.mono;
        if !self.flood.take(now, &state.share_limits) {
            let aim = found.map_or(Aim::Missed, |found| self.aim(&found, submit.job_id));
            return Judged::Flooding(self.flood.on_excess(now, aim, &state.share_limits), hash);
        }
        let record = found.and_then(|found| self.judge(state, &found, from.now, submit, out));
        match record {
            Ok(record) => {
                self.accept(state, record, from, submit, out);
                Judged::Accepted
            }
            Err(reason) => Judged::Refused(reason, hash),
        }
    }

    /// Everything but the block: the record of a share that is accepted, or why it is not.
    fn judge(
        &mut self,
        state: &ShardState,
        found: &Found<'_>,
        now: Now,
        submit: &Submission<'_>,
        out: &Output,
    ) -> Result<ShareRecord, Reason> {
        if !found.is_of_kind {
            return Err(Reason::SubscriberRoleViolation);
        }
        if submit.job_id < self.first_job || submit.job_id > self.given_job {
            return Err(Reason::InvalidJobId);
        }
        let Found { posted, claim, hash, .. } = found;
        if posted.tip_number != state.board.tip_number() {
            return Err(Reason::StalePrevhash);
        }
        let (difficulty, target) = self.targets.of_share(submit.job_id, posted.work, submit.ntime);
        let earliest = self.targets.earliest(submit.job_id, posted.work);
        judge(claim, hash, &terms(posted, now, earliest, target, state))?;
        if !out.has_credit() || state.acks_free() == 0 {
            // A repetition is told so even now; anything else may be sent again later.
            if self.seen.contains(hash) {
                return Err(Reason::DuplicateNonce);
            }
            self.vardiff.on_accepted(difficulty.work());
            return Err(Reason::UpstreamUnavailable);
        }
        match self.seen.insert(hash, &state.tips) {
            Insert::New => (),
            Insert::Duplicate => return Err(Reason::DuplicateNonce),
            Insert::Full => {
                self.vardiff.on_accepted(difficulty.work());
                return Err(Reason::DedupCapacityExceeded);
            }
        }
        let record = self.record(posted, now, submit, *hash, difficulty);
        Ok(ShareRecord { hold: state.board.hold, ..record })
    }

    fn accept(
        &mut self,
        state: &mut ShardState,
        mut record: ShareRecord,
        from: Sender,
        submit: &Submission<'_>,
        out: &mut Output,
    ) {
        record.sequence = state.next_sequence();
        let waited = from.now.mono.micros_since(from.received_at);
        record.latency_micros = u32::try_from(waited).unwrap_or(u32::MAX);
        self.vardiff.on_accepted(record.work());
        state.pend(PendingAck {
            sequence: record.sequence,
            connection: from.connection,
            channel_id: self.channel_id,
            sequence_number: submit.sequence_number,
            work: record.work(),
            received_at: from.received_at,
        });
        // I2: pending until the forwarder's durable number passes its sequence.
        out.push(self.entry(record, submit.worker, state.settings.max_workers_per_channel));
    }

    /// What a share above the rate was made for.
    fn aim(&self, found: &Found<'_>, job_id: u32) -> Aim {
        if !found.is_of_kind || self.seen.contains(&found.hash) {
            return Aim::Missed;
        }
        let (_, own) = self.targets.of_share(job_id, found.posted.work, found.claim.ntime);
        Aim::of(&found.hash, &own, &self.targets.newest().1)
    }

    /// A late share of an ended channel: nothing but the block in it counts (D17).
    pub fn look_for_block(
        &self,
        state: &mut ShardState,
        numbers: &JobNumbers,
        submit: &Submission<'_>,
        out: &mut Output,
    ) {
        let Ok(found) = self.find(&state.board, numbers, submit) else { return };
        if found.posted.network_target.is_met_by(&found.hash) {
            self.solve(&found, submit, out);
            state.counters.add(counter::BLOCKS, 1);
        }
    }

    /// The job and the header behind a share, whatever is wrong with it otherwise.
    fn find<'a>(
        &self,
        board: &'a Board,
        numbers: &JobNumbers,
        submit: &Submission<'_>,
    ) -> Result<Found<'a>, Reason> {
        let posted = numbers.generation(submit.job_id).and_then(|number| board.find(number));
        let Some(posted) = posted else {
            let was_given = self.first_job <= submit.job_id && submit.job_id <= self.given_job;
            let is_gone = was_given && self.first_job > 0;
            return Err(if is_gone { Reason::UnknownJob } else { Reason::InvalidJobId });
        };
        let root = match (&self.kind, submit.extranonce) {
            (Kind::Standard { roots }, _) => roots
                .iter()
                .find(|(generation, _)| *generation == posted.generation)
                .map(|(_, root)| *root)
                .unwrap_or_else(|| posted.job.merkle_root(&self.extranonce_prefix, &[])),
            (Kind::Extended { .. }, None) => return Err(Reason::SubscriberRoleViolation),
            (Kind::Extended { extranonce_size, .. }, Some(rolled)) => {
                if rolled.len() != *extranonce_size {
                    return Err(Reason::InvalidExtranonceSize);
                }
                posted.job.merkle_root(&self.extranonce_prefix, rolled)
            }
        };
        let claim = submit.claim(root);
        let hash = claim.hash(&posted.job.template.tip);
        let is_of_kind = self.is_extended() == submit.extranonce.is_some();
        Ok(Found { posted, claim, hash, is_of_kind })
    }

    fn solve(&self, found: &Found<'_>, submit: &Submission<'_>, out: &mut Output) {
        let mut extranonce: ArrayVec<u8, 32> = self.extranonce_prefix.clone();
        if self.is_extended() {
            extranonce.extend(submit.extranonce.unwrap_or_default().iter().copied());
        }
        let solution = Solution {
            hash: found.hash,
            header: found.claim.header(&found.posted.job.template.tip),
            job: Arc::clone(&found.posted.job),
            extranonce,
        };
        assert!(
            out.solutions.try_push(solution).is_ok(),
            "a step handles no more frames than it has room for blocks"
        );
    }

    /// Everything about a share but its sequence number, which only an accepted one gets.
    fn record(
        &self,
        posted: &Posted,
        now: Now,
        submit: &Submission<'_>,
        share_hash: BlockHash,
        difficulty: Difficulty,
    ) -> ShareRecord {
        let template = &posted.job.template;
        let rolled = submit.extranonce.unwrap_or_default();
        let block_found = posted.network_target.is_met_by(&share_hash);
        let coinbase = &posted.job.coinbase;
        ShareRecord {
            sequence: 0,
            channel: self.key,
            share_id: share_id(now.unix, &share_hash),
            share_hash,
            accepted_at: now.unix,
            latency_micros: 0,
            sequence_number: submit.sequence_number,
            job_id: submit.job_id,
            template_id: template.id,
            height: template.height,
            prev_hash: template.tip.prev_hash,
            nbits: template.tip.nbits,
            version: submit.version,
            ntime: submit.ntime,
            nonce: submit.nonce,
            rolled: Rolled::new(rolled),
            worker: 0,
            coinbase_value: template.coinbase_value,
            fees: posted.fees,
            difficulty,
            block_found,
            coinbase_txid: block_found.then(|| coinbase.txid(&self.extranonce_prefix, rolled)),
            hold: false,
        }
    }

    /// The entry for a share: a worker's first one carries the worker's name.
    fn entry(&mut self, mut record: ShareRecord, worker: Option<&str>, max: usize) -> Entry {
        let (Kind::Extended { workers, .. }, Some(name)) = (&mut self.kind, worker) else {
            return Entry::Share(record);
        };
        match workers.find(name, max) {
            Worker::Nobody => Entry::Share(record),
            Worker::Known(number) => {
                record.worker = number;
                Entry::Share(record)
            }
            Worker::New(number) => {
                record.worker = number;
                workers.insert(name, number);
                Entry::ShareOfNewWorker { record, worker_id: name.into() }
            }
        }
    }
}

impl OpenConnection<'_> {
    /// An extended share, with a worker's name behind it if that was negotiated.
    ///
    /// # Errors
    /// The transport's, here and below: they end the connection.
    pub fn on_submit_extended(
        &mut self,
        submit: &SubmitSharesExtended<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let has_workers = self.session.has_workers;
        if !has_workers && !submit.tlv.is_empty() {
            self.count_refusal(Reason::MessageLengthMismatch);
        }
        self.on_submit(&Submission::extended(submit, has_workers), out)
    }

    /// A share.
    ///
    /// # Errors
    /// As above.
    pub fn on_submit(
        &mut self,
        submit: &Submission<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let channel_id = submit.channel_id;
        let Session { channels, numbers, .. } = &mut *self.session;
        let at = channels.binary_search_by_key(&channel_id, |channel| channel.channel_id);
        let (reason, share_hash) = match at {
            Ok(at) => {
                let from =
                    Sender { connection: self.id, now: self.now, received_at: self.received_at };
                let channel = &mut channels[at];
                match channel.on_submit(self.state, numbers, from, submit, out) {
                    Judged::Accepted if channel.vardiff.is_due(self.now.mono, &self.state.goal) => {
                        return self.look(at, out);
                    }
                    Judged::Accepted => return Ok(()),
                    Judged::Refused(reason, hash) => (reason, hash),
                    Judged::Flooding(excess, hash) => {
                        self.on_excess(at, excess, out)?;
                        (Reason::ShareRateExceeded, hash)
                    }
                }
            }
            Err(_) => {
                if let Some(ended) = self.session.ended(channel_id) {
                    ended.look_for_block(self.state, &self.session.numbers, submit, out);
                }
                (self.no_channel(channel_id), None)
            }
        };
        self.tell_refused(at.ok(), submit, reason, share_hash);
        self.reject(channel_id, submit.sequence_number, reason, out)
    }

    /// Why a share for no open channel is refused.
    fn no_channel(&mut self, channel_id: u32) -> Reason {
        let limits = &self.state.share_limits;
        if !self.session.flood.take(self.now.mono, limits) {
            let excess = self.session.flood.on_excess(self.now.mono, Aim::Missed, limits);
            if excess == Excess::Close {
                self.session.ending = Some(Reason::ShareRateExceeded);
            }
            return Reason::ShareRateExceeded;
        }
        if channel_id == GROUP_CHANNEL_ID {
            Reason::SubscriberRoleViolation
        } else if self.session.was_given(channel_id) {
            Reason::ChannelNotOpen
        } else {
            Reason::UnknownChannelId
        }
    }

    /// Tell the log that a share was refused, or hold that back if there are too many.
    fn tell_refused(
        &mut self,
        at: Option<usize>,
        submit: &Submission<'_>,
        reason: Reason,
        share_hash: Option<BlockHash>,
    ) {
        let refusal = Refusal {
            channel_id: submit.channel_id,
            sequence_number: submit.sequence_number,
            job_id: submit.job_id,
            reason,
            share_hash,
            at: self.now.unix,
            count: 1,
        };
        let (connection, now) = (self.id, self.now.mono);
        let ShardState { reports, counters, .. } = &mut *self.state;
        if let Some(at) = at {
            let channel = &mut self.session.channels[at];
            let due = channel.refusals.on_refused(now, refusal).into_iter().flatten();
            reports.push_refusals(due, || channel.sent(connection), counters);
        } else {
            let due = self.session.refusals.on_refused(now, refusal).into_iter().flatten();
            reports.push_refusals(due, || Sent { connection, channel: None }, counters);
        }
    }

    fn reject(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        reason: Reason,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        self.state.counters.add(counter::SHARES + 1 + reason as usize, 1);
        let error_code = reason.error_code().as_bytes();
        let error = SubmitSharesError { channel_id, sequence_number, error_code };
        self.transport.seal(&error, &mut out.wire)
    }
}

fn terms(posted: &Posted, now: Now, earliest: u32, target: Target, state: &ShardState) -> Terms {
    let elapsed = now.mono.micros_since(posted.posted_at.mono) / 1_000_000;
    let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
    let template = &posted.job.template;
    let latest = ntime_max(posted.ntime, elapsed, now.unix.seconds());
    Terms {
        version: template.version,
        version_mask: state.settings.version_mask,
        ntime_min: posted.ntime.max(earliest),
        ntime_max: template.max_ntime.map_or(latest, |most| latest.min(most)),
        target,
    }
}
