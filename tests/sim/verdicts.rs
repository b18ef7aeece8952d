//! The reference judgement: what must become of each share, derived from what its miner was
//! given and what its shard had been told, and compared with what the shard did.

use gateway::machine::{Entry, ShareRecord, Solution};
use gateway::reason::Reason;
use work::Now;
use work::seen::SEEN_ROOM_MIN;

use crate::checkers::{Checker, Rule, Wire, WireView};
use crate::reference::{Header, is_at_most, root, target_of, whole_root};

/// Tips whose jobs are remembered, so that a block on any of them counts (D17).
const TIPS_KEPT: u64 = 3;
/// Bits of the version that may be rolled (BIP323).
const ROLLING_BITS: u32 = 0x1fff_ffe0;
/// Seconds that `ntime` may run ahead of the elapsed time (D32).
const NTIME_AHEAD: u32 = 600;
/// Seconds that `ntime` may be ahead of the clock (D32).
const NTIME_FUTURE: u32 = 6_900;

/// A job as one connection was given it.
#[derive(Debug, Clone)]
pub struct GivenJob {
    pub publication: usize,
    pub tip_number: u64,
    pub sealed_at: Now,
    pub ntime_min: u32,
    pub root: [u8; 32],
    pub version: u32,
    pub nbits: u32,
    pub prev_hash: [u8; 32],
}

/// A share on its way to the shard.
#[derive(Debug, Clone)]
pub struct Submitted {
    pub sequence_number: u32,
    pub channel_id: u32,
    pub job_id: u32,
    /// Hash of its header under the job as given; `None` without such a job.
    pub hash: Option<[u8; 32]>,
    /// Its time and version, where they may be out of range.
    pub ntime: Option<u32>,
    pub version: Option<u32>,
    /// Where it ends in the stream of its miner.
    pub stream_end: u64,
}

/// What a step of a shard did for one connection.
pub struct Step<'a> {
    pub now: Now,
    pub wire: Wire,
    /// Slots of the share ring at its beginning.
    pub credit: usize,
    pub entries: &'a [Entry],
    pub solutions: &'a [Solution],
    /// Shares that were counted as accepted, and as refused by reason.
    pub accepted: u64,
    pub refused: Vec<(Reason, u64)>,
    pub jobs: u64,
}

/// What may become of a share.
enum Expected {
    Accept,
    /// One of these refusals, or acceptance too if the flag says so.
    Refuse(Vec<Reason>, bool),
}

impl Checker {
    /// A shard made a step for a connection.
    pub fn on_step(&mut self, step: &Step<'_>) {
        self.on_sealed_jobs(step.now, step.wire, step.jobs);
        self.hold(step.entries.len() <= step.credit, Rule::C7Ring, || {
            format!("{} entries were written under a credit of {}", step.entries.len(), step.credit)
        });
        let mut records: Vec<&ShareRecord> = Vec::new();
        for entry in step.entries {
            match entry {
                Entry::Opened { channel, extranonce_prefix, .. } => {
                    self.on_opened(step.wire, *channel, extranonce_prefix);
                }
                Entry::Closed { channel } => self.on_closed(*channel),
                Entry::Share(record) | Entry::ShareOfNewWorker { record, .. } => {
                    records.push(record);
                }
            }
        }
        for record in &records {
            self.check_record(step, record);
        }
        for solution in step.solutions {
            self.check_solution(solution);
        }
        if self.wires.get(&step.wire).is_some_and(|view| view.is_tracked) {
            self.judge_step(step, &records);
        }
    }

    /// Compare a step's refusals and acceptances with what each share deserves.
    fn judge_step(&mut self, step: &Step<'_>, records: &[&ShareRecord]) {
        let refused: u64 = step.refused.iter().map(|(_, count)| count).sum();
        let mut left = step.refused.clone();
        let mut unsure: Vec<(Submitted, Vec<Reason>)> = Vec::new();
        let opened = step.entries.len() - records.len();
        let mut credit = step.credit.saturating_sub(opened);
        let mut accepted = records.iter();
        let mut next = accepted.next();
        for _ in 0..step.accepted + refused {
            let view = self.wires.get_mut(&step.wire).unwrap();
            let Some(share) = view.submitted.pop_front() else {
                return self.fail(
                    Rule::C14Reference,
                    format!("wire {}: a share was judged that nobody sent", step.wire),
                );
            };
            let is_broken = view.broken_at.is_some_and(|at| share.stream_end > at);
            let expected = self.expected(step, &share, credit);
            let is_accepted = next.is_some_and(|r| r.sequence_number == share.sequence_number);
            if is_accepted {
                next = accepted.next();
                credit = credit.saturating_sub(1);
                let view = self.wires.get_mut(&step.wire).unwrap();
                view.credited.extend(share.hash);
                view.credited_since_job += 1;
            }
            self.hold(!is_broken, Rule::C11Cipher, || {
                format!("wire {}: share {share:?} stood behind broken bytes", step.wire)
            });
            self.check_block(step, &share);
            match (expected, is_accepted) {
                (Expected::Accept, true) | (Expected::Refuse(_, true), true) => (),
                (Expected::Accept, false) => self.fail(
                    Rule::C14Reference,
                    format!("{share:?} deserves to be accepted, got one of {:?}", step.refused),
                ),
                (Expected::Refuse(why, false), true) => self.fail(
                    Rule::C14Reference,
                    format!("{share:?} was accepted and deserves {why:?}"),
                ),
                (Expected::Refuse(why, _), false) => unsure.push((share, why)),
            }
        }
        // Those with one possible reason first.
        unsure.sort_by_key(|(_, why)| why.len());
        for (share, why) in unsure {
            let fits = |(reason, count): &&mut (Reason, u64)| why.contains(reason) && *count > 0;
            match left.iter_mut().find(fits) {
                Some((_, count)) => *count -= 1,
                None => self.fail(
                    Rule::C14Reference,
                    format!(
                        "wire {}: {share:?} deserves {why:?}, got one of {:?}; its job is {:?}",
                        step.wire,
                        step.refused,
                        self.wires[&step.wire].jobs.get(&share.job_id),
                    ),
                ),
            }
        }
    }

    fn expected(&self, step: &Step<'_>, share: &Submitted, credit: usize) -> Expected {
        let refuse = |reason: Reason| Expected::Refuse(vec![reason], false);
        let view = &self.wires[&step.wire];
        if share.channel_id != view.channel_id {
            return refuse(Reason::UnknownChannelId);
        }
        let Some(job) = view.jobs.get(&share.job_id) else { return refuse(Reason::InvalidJobId) };
        let distance = self.boards[view.shard].tip_number - job.tip_number;
        if distance >= TIPS_KEPT {
            return refuse(Reason::UnknownJob);
        }
        if distance > 0 {
            return refuse(Reason::StalePrevhash);
        }
        let mut may_be_late = false;
        if let Some(ntime) = share.ntime {
            let (least, most) = self.latest_ntime(view, job, step.now);
            if ntime < job.ntime_min || ntime > most {
                return refuse(Reason::NtimeOutOfRange);
            }
            may_be_late = ntime > least;
        }
        match (self.expected_in_time(view, job, share, credit), may_be_late) {
            (expected, false) => expected,
            (Expected::Accept, true) => Expected::Refuse(vec![Reason::NtimeOutOfRange], true),
            (Expected::Refuse(mut why, may_accept), true) => {
                why.push(Reason::NtimeOutOfRange);
                Expected::Refuse(why, may_accept)
            }
        }
    }

    /// What becomes of a share whose time is good.
    fn expected_in_time(
        &self,
        view: &WireView,
        job: &GivenJob,
        share: &Submitted,
        credit: usize,
    ) -> Expected {
        let refuse = |reason: Reason| Expected::Refuse(vec![reason], false);
        if share.version.is_some_and(|version| (version ^ job.version) & !ROLLING_BITS != 0) {
            return refuse(Reason::InvalidVersionBits);
        }
        let hash = share.hash.unwrap();
        if !is_at_most(&hash, &view.target) {
            return refuse(Reason::DifficultyBelowTarget);
        }
        if view.credited.contains(&hash) {
            return refuse(Reason::DuplicateNonce);
        }
        if credit == 0 {
            return refuse(Reason::UpstreamUnavailable);
        }
        if view.credited_since_job >= self.seen_room.max(SEEN_ROOM_MIN) {
            return Expected::Refuse(vec![Reason::DedupCapacityExceeded], true);
        }
        Expected::Accept
    }

    /// Latest times that are surely, and possibly, still accepted: the job was posted between the
    /// publication and its sealing, or posted again since.
    fn latest_ntime(&self, view: &WireView, job: &GivenJob, now: Now) -> (u32, u32) {
        let seconds = |since: Now| (now.mono.micros_since(since.mono) / 1_000_000) as u32;
        let taken = self.boards[view.shard].taken.iter().rev();
        let posted = taken.clone().find(|(p, ..)| *p == job.publication).map(|(.., at)| *at);
        let limit = |elapsed: u32| {
            (job.ntime_min + elapsed + NTIME_AHEAD).min(now.unix.seconds() + NTIME_FUTURE)
        };
        (limit(seconds(job.sealed_at)), limit(seconds(posted.unwrap_or(job.sealed_at))))
    }

    /// C8: a share that is a block went out as one in the very step that opened it.
    fn check_block(&mut self, step: &Step<'_>, share: &Submitted) {
        let view = &self.wires[&step.wire];
        if share.channel_id != view.channel_id {
            return;
        }
        let (Some(job), Some(hash)) = (view.jobs.get(&share.job_id), share.hash) else { return };
        let distance = self.boards[view.shard].tip_number - job.tip_number;
        if distance >= TIPS_KEPT || !is_at_most(&hash, &target_of(job.nbits)) {
            return;
        }
        self.ledger.on_block(hash);
        self.hold(step.solutions.iter().any(|s| s.hash.0 == hash), Rule::C8Block, || {
            format!("wire {}: a block in share {share:?} was not handed over", step.wire)
        });
    }

    /// C8 at the end of a connection: of what its shard had received, no block was left unread.
    pub fn check_unread(&mut self, wire: Wire) {
        let Some(view) = self.wires.get(&wire).filter(|view| view.is_tracked) else { return };
        let is_read_to = view.delivered.min(view.broken_at.unwrap_or(u64::MAX));
        let board = &self.boards[view.shard];
        let unread = view.submitted.iter().find(|share| {
            let job = view.jobs.get(&share.job_id).filter(|_| share.stream_end <= is_read_to);
            let Some((job, hash)) = job.zip(share.hash) else { return false };
            share.channel_id == view.channel_id
                && board.tip_number - job.tip_number < TIPS_KEPT
                && is_at_most(&hash, &target_of(job.nbits))
        });
        if let Some(share) = unread {
            let what = format!("wire {wire} ended with a block that nobody read: {share:?}");
            self.fail(Rule::C8Block, what);
        }
    }

    /// Derive an accepted record again from the publication and the channel's extranonce.
    fn check_record(&mut self, step: &Step<'_>, record: &ShareRecord) {
        let shard = self.wires.get(&step.wire).map_or(0, |view| view.shard);
        let channel = self.channels.get(&(self.generation, record.channel));
        let publication = self.publication(shard, record.template_id);
        let (Some(channel), Some((publication, tip_number))) = (channel, publication) else {
            return self.fail(Rule::C14Reference, format!("nobody knows the work of {record:?}"));
        };
        let board = &self.boards[shard];
        let propose = &self.publications[publication].propose;
        let header = Header {
            version: record.version,
            prev_hash: propose.prev_hash.0,
            root: root(propose, &channel.extranonce),
            ntime: record.ntime,
            nbits: propose.nbits,
            nonce: record.nonce,
        };
        let target = record.difficulty.target().to_le_bytes();
        let is_good = header.hash() == record.share_hash.0
            && is_at_most(&header.hash(), &target)
            && record.block_found == header.is_block()
            && record.prev_hash == propose.prev_hash
            && record.height == propose.height
            && record.coinbase_value == propose.coinbase.value
            && record.hold == board.is_held
            && tip_number == board.tip_number;
        let is_handed_over = !record.block_found
            || step.solutions.iter().any(|solution| solution.hash == record.share_hash);
        self.hold(is_good, Rule::C14Reference, || {
            format!("wire {}: {record:?} is not what its header says: {header:?}", step.wire)
        });
        self.hold(is_handed_over, Rule::C8Block, || {
            format!("wire {}: the block of {record:?} was not handed over", step.wire)
        });
        self.on_spent(record.channel);
        self.on_record(shard, step.wire, record);
    }

    /// A block's header commits to exactly its coinbase and its transactions.
    fn check_solution(&mut self, solution: &Solution) {
        self.ledger.on_block(solution.hash.0);
        let job = &solution.job;
        let coinbase = job.coinbase.stripped(&solution.extranonce);
        let mut leaves = vec![crate::reference::sha256d(&coinbase)];
        leaves.extend(job.template.transactions.iter().map(|transaction| transaction.txid.0));
        let is_good = solution.header[36..68] == whole_root(leaves)
            && solution.header[4..36] == job.template.tip.prev_hash.0
            && is_at_most(&solution.hash.0, &target_of(job.template.tip.nbits));
        self.hold(is_good, Rule::C8Block, || format!("block {} is no block", solution.hash));
    }
}
