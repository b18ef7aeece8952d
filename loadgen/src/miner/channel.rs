//! One channel of a connection: its place in the extranonce, its target, its jobs, its search.

use work::{Mono, Now, Target, Tip};

use super::config::{ChannelKind, NtimeRolling};
use super::error::MinerError;
use super::event::Prefix;
use super::jobs::{Job, Jobs, MiningJob};
use super::search::Search;

/// A channel as the caller may see it.
#[derive(Debug, Clone, Copy)]
pub struct ChannelView<'a> {
    /// Number of the channel.
    pub channel_id: u32,
    /// Number of its group; means nothing to a miner that requires standard jobs.
    pub group_channel_id: u32,
    /// Who rolls the extranonce.
    pub kind: ChannelKind,
    /// The server's part of the extranonce, for the next job.
    pub extranonce_prefix: &'a Prefix,
    /// Bytes that the miner rolls; 0 on a standard channel.
    pub extranonce_size: usize,
    /// Target of the next job.
    pub target: Target,
    /// The easiest target that the miner takes on it.
    pub max_target: Target,
    /// The job that is mined.
    pub job: Option<&'a MiningJob>,
    /// The tip that is mined on.
    pub tip: Option<Tip>,
    /// Number of its next share.
    pub next_sequence_number: u32,
}

/// An open channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub id: u32,
    pub group_id: u32,
    pub kind: ChannelKind,
    pub prefix: Prefix,
    /// Bytes that the miner rolls; 0 on a standard channel.
    pub extranonce_size: usize,
    /// Of jobs that are not active yet.
    pub target: Target,
    pub max_target: Target,
    pub jobs: Jobs,
    pub search: Option<Search>,
    pub next_sequence_number: u32,
    /// Number of the worker that is named behind the next share.
    pub next_worker: usize,
    pub opened_at: Mono,
    /// When the target changed under an active job, until another job is active.
    pub retargeted_at: Option<Mono>,
    /// When `UpdateChannel` lowered the ceiling below the target, and the ceiling before it.
    pub lowering: Option<(Mono, Target)>,
}

impl Channel {
    pub fn view(&self) -> ChannelView<'_> {
        ChannelView {
            channel_id: self.id,
            group_channel_id: self.group_id,
            kind: self.kind,
            extranonce_prefix: &self.prefix,
            extranonce_size: self.extranonce_size,
            target: self.target,
            max_target: self.max_target,
            job: self.job(),
            tip: self.jobs.tip(),
            next_sequence_number: self.next_sequence_number,
        }
    }

    /// The job that is mined.
    pub fn job(&self) -> Option<&MiningJob> {
        self.jobs.current().map(|job| &job.facts)
    }

    /// Bytes of the whole extranonce.
    pub fn extranonce_bytes(&self) -> usize {
        self.prefix.len() + self.extranonce_size
    }

    /// Whether both can hash the same coinbase: one's prefix begins with the other's.
    pub fn overlaps(&self, prefix: &[u8], extranonce_size: usize) -> bool {
        let is_same_length = self.extranonce_bytes() == prefix.len() + extranonce_size;
        is_same_length && (self.prefix.starts_with(prefix) || prefix.starts_with(&self.prefix))
    }

    /// A job came.
    pub fn receive(&mut self, job: Job) -> Result<(), MinerError> {
        let is_future = job.facts.min_ntime.is_none();
        self.jobs.receive(job)?;
        if !is_future {
            self.search_current();
        }
        Ok(())
    }

    /// A tip came that names `job_id`.
    pub fn switch(&mut self, job_id: u32, tip: Tip, at: Mono) -> Result<(), MinerError> {
        self.jobs.switch(job_id, tip, self.target, at)?;
        self.search_current();
        Ok(())
    }

    /// Mines the current job from now on.
    fn search_current(&mut self) {
        self.retargeted_at = None;
        if let (Some(job), Some(tip)) = (self.jobs.current(), self.jobs.tip()) {
            let mut search = Search::new(job.clone(), tip);
            if let Some(before) = &self.search {
                search.resume(before);
            }
            self.search = Some(search);
        }
    }

    /// The target of jobs that are not active yet; the current job keeps its own (SV2 5.3.18),
    /// unless `at_once`.
    pub fn set_target(&mut self, target: Target, at_once: bool, now: Now) {
        self.target = target;
        if self.lowering.is_some() && target <= self.max_target {
            self.lowering = None;
        }
        match &mut self.search {
            Some(search) if at_once => search.job.facts.target = target,
            // One retarget is open at a time: the first one's time counts.
            Some(_) => self.retargeted_at = self.retargeted_at.or(Some(now.mono)),
            None => {}
        }
    }

    /// Whether the server may set `target` now.
    pub fn allows(&self, target: Target) -> bool {
        // While an UpdateChannel is on its way, targets of the time before it still come.
        let before = self.lowering.map_or(Target::ZERO, |(_, before)| before);
        target != Target::ZERO && target <= self.max_target.max(before)
    }

    pub fn refresh_ntime(&mut self, now: Now, rolling: NtimeRolling) {
        let Some(search) = &mut self.search else { return };
        let facts = &search.job.facts;
        // `Jobs` keeps a time on every active job.
        let earliest = facts.min_ntime.unwrap_or(search.tip.min_ntime);
        let ntime = match rolling {
            NtimeRolling::Fixed => earliest,
            NtimeRolling::Elapsed => {
                let seconds = now.mono.micros_since(facts.since) / 1_000_000;
                earliest.saturating_add(u32::try_from(seconds).unwrap_or(u32::MAX))
            }
            NtimeRolling::Clock { ahead_seconds } => {
                earliest.max(now.unix.seconds().saturating_add(ahead_seconds))
            }
        };
        search.set_ntime(ntime);
    }
}
