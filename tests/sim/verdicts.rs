//! The reference judgement: what must become of each share, derived from what its miner was
//! given and what its shard had been told, and compared with what the shard did.

use gateway::machine::{Entry, ShareRecord, Solution};
use gateway::reason::Reason;
use work::Now;
use work::seen::SEEN_ROOM_MIN;

use crate::checkers::{Checker, Rule, Wire, WireView};
use crate::given::{ChannelSide, GivenJob};
use crate::reference::{Header, is_at_most, root, target_of, whole_root};

/// Tips whose jobs are remembered, so that a block on any of them counts (D17).
const TIPS_KEPT: u64 = 3;
/// Bits of the version that may be rolled (BIP323).
const ROLLING_BITS: u32 = 0x1fff_ffe0;
/// Seconds that `ntime` may run ahead of the elapsed time (D32).
const NTIME_AHEAD: u32 = 600;
/// Seconds that `ntime` may be ahead of the clock (D32).
const NTIME_FUTURE: u32 = 6_900;

/// What a share cannot be taken for, whatever its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// It is an extended share for a standard channel, or the other way round.
    OtherKind,
    /// Its extranonce has not the length that was agreed on.
    ExtranonceLength,
}

/// A share on its way to the shard.
#[derive(Debug, Clone)]
pub struct Submitted {
    pub sequence_number: u32,
    pub channel_id: u32,
    pub job_id: u32,
    /// Hash of its header under the job as given; `None` without such a job, or where the miner
    /// alone knows its header.
    pub hash: Option<[u8; 32]>,
    /// Its time and version, where they may be out of range.
    pub ntime: Option<u32>,
    pub version: Option<u32>,
    pub flaw: Flaw,
    /// Whether its miner had the channel open when it sent this.
    pub is_open: bool,
    /// Whether the channel was closed so lately that a block still counts.
    pub is_remembered: bool,
    /// The worker that it names.
    pub worker: Option<String>,
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
    /// Job frames and SetTargets that were sealed.
    pub jobs: u64,
    pub targets: u64,
}

/// An accepted share as its shard told it: with the worker's name if it is the first of one.
type Told<'a> = (&'a ShareRecord, Option<&'a str>);

/// What may become of a share.
enum Expected {
    Accept,
    /// One of these refusals, or acceptance too if the flag says so.
    Refuse(Vec<Reason>, bool),
}

impl Checker {
    /// A shard made a step for a connection.
    pub fn on_step(&mut self, step: &Step<'_>) {
        self.on_sealed(step.now, step.wire, step.jobs, step.targets);
        self.hold(step.entries.len() <= step.credit, Rule::C7Ring, || {
            format!("{} entries were written under a credit of {}", step.entries.len(), step.credit)
        });
        let mut records: Vec<Told<'_>> = Vec::new();
        for entry in step.entries {
            match entry {
                Entry::Opened { channel, channel_id, miner_id, extranonce_prefix, .. } => {
                    self.on_opened(step.wire, *channel, *channel_id, extranonce_prefix);
                    self.check_name(step.wire, miner_id);
                }
                Entry::Closed(closed) => self.on_closed(closed.channel),
                Entry::Acknowledged { .. } => (),
                Entry::Share(record) => records.push((record, None)),
                Entry::ShareOfNewWorker { record, worker_id } => {
                    records.push((record, Some(&**worker_id)));
                }
            }
        }
        for (record, _) in &records {
            self.check_record(step, record);
        }
        for solution in step.solutions {
            self.check_solution(solution);
        }
        if self.wires.get(&step.wire).is_some_and(|view| view.is_tracked) {
            self.judge_step(step, &records);
        }
    }

    /// A channel is credited to its miner, without the secret.
    fn check_name(&mut self, wire: Wire, miner_id: &str) {
        let view = &self.wires[&wire];
        let is_its = !view.is_tracked || (view.may_mine && view.name == miner_id);
        self.hold(is_its, Rule::C16Admission, || {
            format!("wire {wire}: a channel is opened for {miner_id}")
        });
    }

    /// Compare a step's refusals and acceptances with what each share deserves.
    fn judge_step(&mut self, step: &Step<'_>, records: &[Told<'_>]) {
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
            let is_excess = !self.take(step, &share);
            let expected = match is_excess {
                true => Expected::Refuse(vec![Reason::ShareRateExceeded], false),
                false => self.expected(step, &share, credit),
            };
            let told = next.filter(|(record, _)| self.is_of(record, &share));
            let is_accepted = told.is_some();
            if let Some(told) = told {
                next = accepted.next();
                credit = credit.saturating_sub(1);
                self.on_accepted(step, &share, *told);
            }
            self.hold(!is_broken, Rule::C11Cipher, || {
                format!("wire {}: share {share:?} stood behind broken bytes", step.wire)
            });
            self.check_block(step, &share, is_excess);
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
                        self.job_of(step.wire, &share),
                    ),
                ),
            }
        }
    }

    fn job_of(&self, wire: Wire, share: &Submitted) -> Option<&GivenJob> {
        self.wires[&wire].channels.get(&share.channel_id)?.jobs.get(&share.job_id)
    }

    fn is_of(&self, record: &ShareRecord, share: &Submitted) -> bool {
        let channel = self.channels.get(&(self.generation, record.channel));
        record.sequence_number == share.sequence_number
            && channel.is_some_and(|channel| channel.channel_id == share.channel_id)
    }

    /// Whether a share is within the rate of its channel, or of those for none.
    fn take(&mut self, step: &Step<'_>, share: &Submitted) -> bool {
        let pace = self.bounds.pace;
        let Some(view) = self.wires.get_mut(&step.wire) else { return true };
        let side = view.channels.get_mut(&share.channel_id).filter(|_| share.is_open);
        let bucket = side.map_or(&mut view.bucket, |side| &mut side.bucket);
        bucket.take(step.now.mono.0, pace)
    }

    /// A followed share was accepted: its credit is that of the easiest target that counts for it
    /// (D26), and it is its worker's.
    fn on_accepted(&mut self, step: &Step<'_>, share: &Submitted, (record, told): Told<'_>) {
        let workers_max = self.bounds.workers_max;
        let Some(view) = self.wires.get_mut(&step.wire) else { return };
        let (shard, unheard, are_jobs) =
            (view.shard, view.targets_unheard(), !view.sealed.is_empty());
        let Some(side) = view.channels.get_mut(&share.channel_id) else { return };
        side.credited.extend(share.hash);
        side.credited_at.push(step.now.mono);
        let target = record.difficulty.target().to_le_bytes();
        let is_fair = side.jobs.get(&share.job_id).is_none_or(|job| {
            let readings = side.readings(job, record.ntime, unheard, are_jobs);
            readings.is_none_or(|readings| readings.contains(&target))
        });
        let is_as_sent = share.ntime.is_none_or(|ntime| ntime == record.ntime);
        let known = side.workers.get(share.worker.as_deref().unwrap_or_default()).copied();
        let expected = match (&share.worker, known) {
            (Some(_), Some(number)) => (number, None),
            (Some(name), None) if side.workers.len() < workers_max => {
                let number = side.workers.len() as u32 + 1;
                side.workers.insert(name.clone(), number);
                (number, Some(name.as_str()))
            }
            _ => (0, None),
        };
        let worker = share.worker.clone().filter(|_| expected.0 > 0);
        self.on_worker(shard, record, worker);
        self.hold(is_fair && is_as_sent, Rule::C14Reference, || {
            format!("wire {}: {share:?} is credited with {:?}", step.wire, record.difficulty)
        });
        self.hold((record.worker, told) == expected, Rule::C14Reference, || {
            let found = (record.worker, told);
            format!("wire {}: {share:?} is the share of {found:?}, not {expected:?}", step.wire)
        });
    }

    fn expected(&self, step: &Step<'_>, share: &Submitted, credit: usize) -> Expected {
        let refuse = |reason: Reason| Expected::Refuse(vec![reason], false);
        let view = &self.wires[&step.wire];
        let Some(side) = view.channels.get(&share.channel_id) else {
            return refuse(Reason::UnknownChannelId);
        };
        if !share.is_open {
            return refuse(Reason::ChannelNotOpen);
        }
        let Some(job) = side.jobs.get(&share.job_id) else { return refuse(Reason::InvalidJobId) };
        let distance = self.boards[view.shard].tip_number - job.tip_number;
        match share.flaw {
            _ if distance >= TIPS_KEPT => return refuse(Reason::UnknownJob),
            Flaw::OtherKind => return refuse(Reason::SubscriberRoleViolation),
            Flaw::ExtranonceLength => return refuse(Reason::InvalidExtranonceSize),
            Flaw::None if distance > 0 => return refuse(Reason::StalePrevhash),
            Flaw::None => (),
        }
        let mut may_be_late = false;
        if let Some(ntime) = share.ntime {
            let (least, most) = self.latest_ntime(view, job, step.now);
            let first = job.ntime_first.max(side.begins_at(job, view.targets_unheard()));
            if ntime < first || ntime > most {
                return refuse(Reason::NtimeOutOfRange);
            }
            // Times of the same work under its other numbers may be good for this one, too.
            may_be_late = ntime > least || ntime < job.ntime_min;
        }
        let (unheard, are_jobs) = (view.targets_unheard(), !view.sealed.is_empty());
        let ntime = share.ntime.unwrap_or(job.ntime_min);
        let readings = side.readings(job, ntime, unheard, are_jobs);
        match (self.expected_in_time(side, readings, job, share, credit), may_be_late) {
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
        side: &ChannelSide,
        readings: Option<[[u8; 32]; 2]>,
        job: &GivenJob,
        share: &Submitted,
        credit: usize,
    ) -> Expected {
        let refuse = |reason: Reason| Expected::Refuse(vec![reason], false);
        if share.version.is_some_and(|version| (version ^ job.version) & !ROLLING_BITS != 0) {
            return refuse(Reason::InvalidVersionBits);
        }
        let hash = share.hash.unwrap();
        let met = readings.map(|targets| targets.map(|target| is_at_most(&hash, &target)));
        if met == Some([false, false]) {
            return refuse(Reason::DifficultyBelowTarget);
        }
        let is_sure = met == Some([true, true]);
        let expected = if side.credited.contains(&hash) {
            refuse(Reason::DuplicateNonce)
        } else if credit == 0 {
            refuse(Reason::UpstreamUnavailable)
        } else if side.credited_at.len() >= self.bounds.seen_room.max(SEEN_ROOM_MIN) {
            Expected::Refuse(vec![Reason::DedupCapacityExceeded], true)
        } else {
            Expected::Accept
        };
        match (expected, is_sure) {
            (expected, true) => expected,
            (Expected::Accept, false) => {
                Expected::Refuse(vec![Reason::DifficultyBelowTarget], true)
            }
            (Expected::Refuse(mut why, may_accept), false) => {
                why.push(Reason::DifficultyBelowTarget);
                Expected::Refuse(why, may_accept)
            }
        }
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
        let least = match job.is_time_sure {
            true => limit(seconds(job.sealed_at)),
            false => limit(0) - (job.ntime_min - job.ntime_first),
        };
        (least, limit(seconds(posted.unwrap_or(job.sealed_at))))
    }

    /// Whether a share is a block on one of the last tips, as far as its miner knows.
    fn is_block(&self, view: &WireView, share: &Submitted) -> bool {
        let side = view.channels.get(&share.channel_id);
        let job = side.and_then(|side| side.jobs.get(&share.job_id));
        let Some((job, hash)) = job.zip(share.hash) else { return false };
        self.boards[view.shard].tip_number - job.tip_number < TIPS_KEPT
            && is_at_most(&hash, &target_of(job.nbits))
    }

    /// C8: a share that is a block went out as one in the very step that opened it, on a channel
    /// that closed lately, too, unless there were too many such shares.
    fn check_block(&mut self, step: &Step<'_>, share: &Submitted, is_excess: bool) {
        let counts = share.is_open || (share.is_remembered && !is_excess);
        let Some(hash) = share.hash else { return };
        if !counts || !self.is_block(&self.wires[&step.wire], share) {
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
        let unread = view.submitted.iter().find(|share| {
            share.is_open && share.stream_end <= is_read_to && self.is_block(view, share)
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
        let extranonce = [&channel.extranonce, record.rolled.as_slice()].concat();
        let (wire, channel_id) = (channel.wire, channel.channel_id);
        let header = Header {
            version: record.version,
            prev_hash: propose.prev_hash.0,
            root: root(propose, &extranonce),
            ntime: record.ntime,
            nbits: propose.nbits,
            nonce: record.nonce,
        };
        let target = record.difficulty.target().to_le_bytes();
        let is_good = header.hash() == record.share_hash.0
            && wire == step.wire
            && extranonce.len() == self.bounds.extranonce_bytes
            && is_at_most(&header.hash(), &target)
            && record.block_found == header.is_block()
            && record.block_found == record.coinbase_txid.is_some()
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
        self.on_record(shard, step.wire, channel_id, record);
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
