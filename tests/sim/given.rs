//! What each connection was given: jobs, tips and targets as its miner heard them, channel by
//! channel, held against what its shard had sealed.

use std::collections::{BTreeMap, BTreeSet};

use gateway::limits::{FRESH_JOBS_REMEMBERED, TARGETS_PER_CHANNEL};
use loadgen::miner::MinerEvent;
use work::{Mono, Now};

use crate::checkers::{Checker, Rule, Wire};
use crate::reference::{self, Bucket, is_at_most};
use crate::world::FRESH_MICROS;

/// Work that a shard sealed for a connection: one job frame.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    pub publication: usize,
    pub tip_number: u64,
    pub at: Now,
}

/// A job as one channel was given it.
#[derive(Debug, Clone)]
pub struct GivenJob {
    pub publication: usize,
    pub tip_number: u64,
    pub sealed_at: Now,
    /// Whether it was sealed then, and not later: frames for closed channels go unheard.
    pub is_time_sure: bool,
    pub ntime_min: u32,
    pub root: [u8; 32],
    pub version: u32,
    pub nbits: u32,
    pub prev_hash: [u8; 32],
    /// What a miner hashes of it beside its time.
    work: Work,
    /// Its own target among those of its channel.
    own: usize,
    /// The earliest time of all jobs of its publication.
    pub ntime_first: u32,
}

/// Names work: jobs of one tip and root differ in nothing but their time.
type Work = (u64, [u8; 32]);

/// A target as a channel was told it.
#[derive(Debug, Clone, Copy)]
struct Announced {
    target: [u8; 32],
    /// The work that was out when it was announced.
    on: Option<Work>,
    /// Work and time of the first job under it.
    began: Option<(Work, u32)>,
}

/// A channel as its miner knows it.
#[derive(Default)]
pub struct ChannelSide {
    /// What of its extranonce its miner does not roll.
    pub prefix: Vec<u8>,
    pub is_extended: bool,
    /// Whether its miner has closed it.
    pub is_closed: bool,
    pub jobs: BTreeMap<u32, GivenJob>,
    futures: BTreeSet<u32>,
    /// The job that is mined, and the one that came last.
    pub newest_job: Option<u32>,
    last_job: Option<u32>,
    last_publication: Option<usize>,
    /// All targets it was told, in order.
    targets: Vec<Announced>,
    /// Since when a target waits for its job.
    retargeted_at: Option<Mono>,
    /// Hashes that were accepted from it, and when those since its last job were.
    pub credited: BTreeSet<[u8; 32]>,
    pub credited_at: Vec<Mono>,
    /// Shares that it may still send.
    pub bucket: Bucket,
    /// Shares without an answer; once it is closed, those that never get one.
    pub unanswered: u64,
    /// Number of its miner's next share, and of the worker that is named behind the next.
    pub next_sequence: u32,
    pub next_worker: usize,
    /// Workers that have a number.
    pub workers: BTreeMap<String, u32>,
}

impl ChannelSide {
    /// The target that is announced for the next job.
    pub fn target(&self) -> [u8; 32] {
        self.targets[self.targets.len() - 1].target
    }

    /// The target that counts for a header with this time: a new one counts from the time of the
    /// first job under it on, whatever job is named, and the easiest of those that were announced
    /// while this work was out counts, too (D26).
    pub fn target_for(&self, job: &GivenJob, ntime: u32) -> [u8; 32] {
        let has_begun = |next: &&Announced| {
            next.began.is_some_and(|(work, from)| work == job.work && ntime >= from)
        };
        let behind = self.targets[job.own + 1..].iter();
        let own = job.own + behind.take_while(has_begun).count();
        let in_flight = self.targets[own + 1..].iter().filter(|next| next.on == Some(job.work));
        let easier = |one: [u8; 32], next: &Announced| {
            if is_at_most(&one, &next.target) { next.target } else { one }
        };
        in_flight.fold(self.targets[own].target, easier)
    }

    /// No header of a job is earlier than the targets it was given under.
    pub fn begins_at(&self, job: &GivenJob, unheard: u64) -> u32 {
        let reached = self.targets[..=job.own].iter().enumerate();
        let kept = reached.filter(|(at, _)| self.is_kept(*at, unheard));
        let times = kept.filter_map(|(_, step)| step.began.filter(|(work, _)| *work == job.work));
        times.map(|(_, ntime)| ntime).max().unwrap_or(0)
    }

    /// Whether a target is surely remembered by itself by a shard that has announced `unheard`
    /// more.
    fn is_kept(&self, at: usize, unheard: u64) -> bool {
        let count = self.targets.len() + unheard as usize;
        count <= TARGETS_PER_CHANNEL || at > count - TARGETS_PER_CHANNEL
    }

    /// The targets that may count for a header: one, or another if `are_jobs` on their way, under
    /// which the newest target begins. `None` if targets are on their way or forgotten.
    pub fn readings(
        &self,
        job: &GivenJob,
        ntime: u32,
        unheard: u64,
        are_jobs: bool,
    ) -> Option<[[u8; 32]; 2]> {
        let known = self.target_for(job, ntime);
        let begins = are_jobs && self.targets.iter().any(|step| step.began.is_none());
        let is_sure = unheard == 0 && self.is_kept(job.own, 0);
        is_sure.then_some([known, if begins { self.target() } else { known }])
    }

    /// The newest job, or its tip, has come: targets that had no job begin with it.
    fn begin(&mut self, work: Work, ntime: u32) {
        for step in self.targets.iter_mut().filter(|step| step.began.is_none()) {
            step.began = Some((work, ntime));
        }
    }
}

impl Checker {
    /// What one frame was for a miner.
    pub fn on_frame(&mut self, wire: Wire, now: Now, events: &[MinerEvent]) {
        let job = events.iter().find_map(|event| match event {
            MinerEvent::JobReceived { channel_id, job_id, merkle_root, .. } => {
                Some((*channel_id, *job_id, merkle_root.0))
            }
            _ => None,
        });
        let sealed = job.and_then(|(channel_id, job_id, root)| {
            self.check_number(wire, channel_id, job_id);
            self.unseal(wire, channel_id, job_id, root)
        });
        for event in events {
            self.on_event(wire, now, event, sealed);
        }
    }

    fn on_event(&mut self, wire: Wire, now: Now, event: &MinerEvent, sealed: Option<Sealed>) {
        match event {
            MinerEvent::ExtensionsAgreed { names_workers } => {
                let Some(view) = self.wires.get_mut(&wire) else { return };
                view.names_workers = *names_workers;
            }
            MinerEvent::Opened { channel_id, extranonce_prefix, target } => {
                self.on_channel(wire, *channel_id, extranonce_prefix, target.to_le_bytes());
            }
            MinerEvent::TargetSet { channel_id, target } => {
                self.on_target(wire, now, *channel_id, target.to_le_bytes());
            }
            MinerEvent::JobReceived { .. } => {
                if let Some(sealed) = sealed {
                    self.on_job(wire, event, sealed);
                }
            }
            MinerEvent::TipSwitched { .. } => self.on_tip(wire, event),
            MinerEvent::ShareRejected { channel_id, .. } => self.on_answered(wire, *channel_id),
            MinerEvent::ShareAccepted { channel_id, sequence_number, .. } => {
                self.on_answered(wire, *channel_id);
                self.on_acknowledged(wire, *channel_id, *sequence_number);
            }
            MinerEvent::Violation(error) => self.on_miner_error(wire, error),
            _ => (),
        }
    }

    fn on_answered(&mut self, wire: Wire, channel_id: u32) {
        let view = self.wires.get_mut(&wire);
        if let Some(side) = view.and_then(|view| view.channels.get_mut(&channel_id)) {
            side.unanswered -= 1;
        }
    }

    fn on_channel(&mut self, wire: Wire, channel_id: u32, prefix: &[u8], target: [u8; 32]) {
        let full = self.bounds.extranonce_bytes;
        let Some(view) = self.wires.get_mut(&wire) else { return };
        let side = ChannelSide {
            prefix: prefix.to_vec(),
            is_extended: prefix.len() < full,
            next_sequence: view.first_sequence,
            ..ChannelSide::default()
        };
        let is_new = view.channels.insert(channel_id, side).is_none();
        let may_mine = view.may_mine;
        self.hold(may_mine, Rule::C16Admission, || {
            format!("wire {wire}: a miner with a wrong secret has channel {channel_id}")
        });
        self.hold(is_new, Rule::C3Order, || {
            format!("wire {wire}: channel {channel_id} is opened twice")
        });
        self.announce(wire, channel_id, target);
    }

    /// A target is announced, which is no easier than any may be.
    fn announce(&mut self, wire: Wire, channel_id: u32, target: [u8; 32]) {
        let view = self.wires.get_mut(&wire);
        let Some(side) = view.and_then(|view| view.channels.get_mut(&channel_id)) else { return };
        let newest = side.last_job.and_then(|job_id| side.jobs.get(&job_id));
        let on = newest.map(|job| job.work);
        side.targets.push(Announced { target, on, began: None });
        let easiest = reference::share_target(self.bounds.floor_bits);
        self.hold(is_at_most(&target, &easiest), Rule::C14Reference, || {
            format!("wire {wire}: channel {channel_id} is given the target {target:02x?}, too easy")
        });
    }

    fn on_target(&mut self, wire: Wire, now: Now, channel_id: u32, target: [u8; 32]) {
        self.announce(wire, channel_id, target);
        let Some(view) = self.wires.get_mut(&wire) else { return };
        view.targets_heard += 1;
        let Some(side) = view.channels.get_mut(&channel_id) else { return };
        if side.last_job.is_some() {
            side.retargeted_at.get_or_insert(now.mono);
        }
    }

    /// A connection's job numbers rise, and no channel gets one twice.
    fn check_number(&mut self, wire: Wire, channel_id: u32, job_id: u32) {
        let Some(view) = self.wires.get_mut(&wire) else { return };
        let side = view.channels.get(&channel_id);
        let is_new = side.is_some_and(|side| side.last_job.is_none_or(|last| last < job_id));
        let rises = view.job_numbers.last_key_value().is_none_or(|(last, _)| *last <= job_id);
        self.hold(is_new && rises, Rule::C3Order, || {
            format!("wire {wire}: the number of job {job_id} is used again on channel {channel_id}")
        });
    }

    /// What was sealed as the frame that brought this job.
    fn unseal(
        &mut self,
        wire: Wire,
        channel_id: u32,
        job_id: u32,
        root: [u8; 32],
    ) -> Option<Sealed> {
        let (publications, full) = (&self.publications, self.bounds.extranonce_bytes);
        let view = self.wires.get_mut(&wire)?;
        if !view.closed.is_empty() {
            // Frames for closed channels went unheard.
            let extranonce = padded(&view.channels.get(&channel_id)?.prefix, full);
            let is_it = |sealed: &Sealed| {
                reference::root(&publications[sealed.publication].propose, &extranonce) == root
            };
            if let Some(at) = view.sealed.iter().position(is_it) {
                view.sealed.drain(..at);
            }
        }
        let Some(sealed) = view.sealed.pop_front() else {
            self.fail(Rule::C1Verdict, format!("wire {wire} got job {job_id} of nobody"));
            return None;
        };
        let before = view.job_numbers.insert(job_id, sealed.publication);
        let is_same = before.is_none_or(|before| before == sealed.publication);
        self.hold(is_same, Rule::C3Order, || {
            format!("wire {wire}: {job_id} is the number of different jobs")
        });
        Some(sealed)
    }

    /// C1 and the order of jobs, seen at the miner.
    fn on_job(&mut self, wire: Wire, event: &MinerEvent, sealed: Sealed) {
        let MinerEvent::JobReceived { channel_id, job_id, version, merkle_root, min_ntime, .. } =
            *event
        else {
            return;
        };
        let full = self.bounds.extranonce_bytes;
        let Some(view) = self.wires.get_mut(&wire) else { return };
        let is_time_sure = view.closed.is_empty();
        let Some(side) = view.channels.get_mut(&channel_id) else { return };
        let work = &self.publications[sealed.publication].propose;
        let expected = reference::root(work, &padded(&side.prefix, full));
        let is_same = expected == merkle_root.0 && version == work.version;
        let is_ordered = side.last_publication.is_none_or(|last| last <= sealed.publication);
        let is_again = side.last_publication == Some(sealed.publication);
        view.fresh_jobs += usize::from(is_again && side.retargeted_at.is_some());
        side.retargeted_at = None;
        side.last_publication = Some(sealed.publication);
        match min_ntime {
            None => drop(side.futures.insert(job_id)),
            Some(_) => side.newest_job = Some(job_id),
        }
        let work_before = side.last_job.and_then(|before| side.jobs.get(&before));
        let first = work_before.filter(|_| is_again).map(|before| before.ntime_first);
        let ntime_min = min_ntime.unwrap_or(0);
        side.last_job = Some(job_id);
        side.credited_at.retain(|at| *at >= sealed.at.mono);
        let given = GivenJob {
            publication: sealed.publication,
            tip_number: sealed.tip_number,
            sealed_at: sealed.at,
            is_time_sure: is_time_sure && !is_again,
            ntime_min,
            root: merkle_root.0,
            version,
            nbits: work.nbits,
            prev_hash: work.prev_hash.0,
            work: (sealed.tip_number, merkle_root.0),
            own: side.targets.len() - 1,
            ntime_first: first.unwrap_or(ntime_min),
        };
        if let Some(ntime) = min_ntime {
            side.begin(given.work, ntime);
        }
        side.jobs.insert(job_id, given);
        self.hold(is_same, Rule::C1Verdict, || {
            format!("wire {wire} got job {job_id} with another root than the verified one")
        });
        self.hold(is_ordered, Rule::C3Order, || {
            let publication = sealed.publication;
            format!("wire {wire} got job {job_id} of publication {publication} after a newer one")
        });
    }

    fn on_tip(&mut self, wire: Wire, event: &MinerEvent) {
        let MinerEvent::TipSwitched { channel_id, prev_hash, job_id, nbits, min_ntime, .. } =
            *event
        else {
            return;
        };
        let view = self.wires.get_mut(&wire);
        let Some(side) = view.and_then(|view| view.channels.get_mut(&channel_id)) else { return };
        let is_held = side.futures.remove(&job_id);
        side.futures.clear();
        side.newest_job = Some(job_id);
        let job = side.jobs.get_mut(&job_id);
        let work = job.map(|job| {
            (job.ntime_min, job.ntime_first) = (min_ntime, min_ntime);
            (job.prev_hash == prev_hash.0 && job.nbits == nbits).then_some(job.work)
        });
        let is_its_tip = matches!(work, Some(Some(_)));
        if let Some(work) = work.flatten() {
            side.begin(work, min_ntime);
        }
        self.hold(is_held && is_its_tip, Rule::C3Order, || {
            format!("wire {wire}: SetNewPrevHash names job {job_id}, no held future job of it")
        });
    }

    /// A SetTarget is followed by a job, since `calm_at` soon, unless there were so many that
    /// their numbers are not remembered.
    pub fn check_fresh(&mut self, wire: Wire, now: Mono, calm_at: Mono) {
        let Some(view) = self.wires.get(&wire) else { return };
        if view.fresh_jobs >= FRESH_JOBS_REMEMBERED {
            return;
        }
        let waited = |since: Mono| now.micros_since(since.max(calm_at));
        let late = view.channels.iter().find(|(_, side)| {
            let is_late = |since: Mono| waited(since) > FRESH_MICROS;
            !side.is_closed && side.retargeted_at.is_some_and(is_late)
        });
        if let Some((channel_id, side)) = late {
            let since = side.retargeted_at;
            let what = format!("wire {wire}: channel {channel_id} has no job since {since:?}");
            self.fail(Rule::C3Order, format!("{what}, when its target changed"));
        }
    }

    /// A miner closes a channel, or with the group's number all of them.
    pub fn on_miner_closes(&mut self, wire: Wire, channel_ids: &[u32]) {
        let Some(view) = self.wires.get_mut(&wire) else { return };
        for channel_id in channel_ids {
            if let Some(side) = view.channels.get_mut(channel_id) {
                side.is_closed = true;
                view.closed.push(*channel_id);
            }
        }
    }
}

/// The extranonce with zeros where the miner rolls it.
fn padded(prefix: &[u8], full: usize) -> Vec<u8> {
    let mut extranonce = prefix.to_vec();
    extranonce.resize(full, 0);
    extranonce
}
