//! The jobs of a channel: which are pending, which may be mined, and the tip they stand on.

use arrayvec::ArrayVec;
use work::{MerkleNode, Mono, Target, Tip};

use super::coinbase::ExtendedWork;
use super::error::MinerError;
use super::profile::BITAXE_FUTURE_SLOTS;

/// Future jobs that may be pending: the ring of the smallest firmware (ESP-Miner) has eight.
pub const FUTURE_JOBS_MAX: usize = 8;

/// Active jobs remembered on one tip, the current one included; the oldest is forgotten first.
pub const ACTIVE_JOBS_MAX: usize = 16;

/// A job as this channel was given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiningJob {
    /// Number of the job on its channel.
    pub job_id: u32,
    /// Version of the header.
    pub version: u32,
    /// Root under the channel's extranonce; where the miner rolls a part of it, with zeros there.
    pub merkle_root: MerkleNode,
    /// Earliest time of a job for the current tip, seconds; `None` while it is a future job.
    pub min_ntime: Option<u32>,
    /// What a share on it has to meet: the channel's target when the job became active.
    pub target: Target,
    /// When it became active, or came if it is a future job.
    pub since: Mono,
}

/// A job and what is needed to search it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub facts: MiningJob,
    /// Version bits that may be rolled.
    pub version_mask: u32,
    /// `None` where the root is fixed.
    pub extended: Option<ExtendedWork>,
}

/// Pending and active jobs of one channel.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// At most [`FUTURE_JOBS_MAX`].
    futures: Vec<Job>,
    /// The one that is mined.
    current: Option<Job>,
    /// Numbers of the jobs that are good for shares, the newest last.
    actives: ArrayVec<u32, ACTIVE_JOBS_MAX>,
    tip: Option<Tip>,
    /// The last job of the tip before, for shares that are stale on purpose.
    stale: Option<Box<(Job, Tip)>>,
    /// Number of the newest job that came.
    newest: Option<u32>,
}

impl Jobs {
    pub fn tip(&self) -> Option<Tip> {
        self.tip
    }

    /// The job to mine.
    pub fn current(&self) -> Option<&Job> {
        self.current.as_ref()
    }

    /// A job that the latest `SetNewPrevHash` made stale, with its tip.
    pub fn stale(&self) -> Option<&(Job, Tip)> {
        self.stale.as_deref()
    }

    /// Numbers between the newest job and this one: of jobs that the server made and never sent
    /// here, if it numbers all of them in a row.
    pub fn left_out_before(&self, job_id: u32) -> u32 {
        self.newest.map_or(0, |newest| job_id.saturating_sub(newest).saturating_sub(1))
    }

    /// Whether a job of this number is pending or good for shares.
    pub fn knows(&self, job_id: u32) -> bool {
        self.actives.contains(&job_id) || self.futures.iter().any(|job| job.facts.job_id == job_id)
    }

    /// Whether a future job is pending.
    pub fn has_future(&self) -> bool {
        !self.futures.is_empty()
    }

    /// Drops the future job that is in the ring's slot of `job_id`, and names it.
    pub fn evict_slot(&mut self, job_id: u32) -> Option<u32> {
        let slot = job_id % BITAXE_FUTURE_SLOTS;
        let at =
            self.futures.iter().position(|job| job.facts.job_id % BITAXE_FUTURE_SLOTS == slot)?;
        Some(self.futures.remove(at).facts.job_id)
    }

    /// A job came. Future ones wait; others replace the current one at once.
    pub fn receive(&mut self, job: Job) -> Result<(), MinerError> {
        let job_id = job.facts.job_id;
        if self.knows(job_id) {
            return Err(MinerError::JobIdReused { job_id });
        }
        self.newest = self.newest.max(Some(job_id));
        match job.facts.min_ntime {
            None if self.futures.len() >= FUTURE_JOBS_MAX => {
                Err(MinerError::TooManyFutureJobs { job_id })
            }
            None => {
                self.futures.push(job);
                Ok(())
            }
            Some(0) => Err(MinerError::ZeroMinNtime { job_id }),
            Some(_) if self.tip.is_none() => Err(MinerError::JobBeforePrevHash { job_id }),
            Some(_) => {
                self.activate(job);
                Ok(())
            }
        }
    }

    /// A tip came: `job_id` is mined on it and every other job is void (SV2 5.3.17).
    pub fn switch(
        &mut self,
        job_id: u32,
        tip: Tip,
        target: Target,
        at: Mono,
    ) -> Result<(), MinerError> {
        if Target::from_nbits(tip.nbits).is_err() {
            return Err(MinerError::InvalidNbits { nbits: tip.nbits });
        }
        let named = self.futures.iter().position(|job| job.facts.job_id == job_id);
        let named = named.ok_or(MinerError::PrevHashWithoutJob { job_id })?;
        let mut job = self.futures.swap_remove(named);
        if let (Some(old), Some(old_tip)) = (self.current.take(), self.tip)
            && old_tip.prev_hash != tip.prev_hash
        {
            self.stale = Some(Box::new((old, old_tip)));
        }
        job.facts.min_ntime = Some(tip.min_ntime);
        job.facts.target = target;
        job.facts.since = at;
        self.futures.clear();
        self.actives.clear();
        self.tip = Some(tip);
        self.activate(job);
        Ok(())
    }

    fn activate(&mut self, job: Job) {
        if self.actives.is_full() {
            self.actives.remove(0);
        }
        self.actives.push(job.facts.job_id);
        self.current = Some(job);
    }
}
