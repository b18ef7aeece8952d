//! The jobs of a channel: which are pending, which may be mined, and the tip they stand on.

use arrayvec::ArrayVec;
use work::{MerkleNode, Mono, Target, Tip};

use super::error::MinerError;

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
    /// Root under the channel's extranonce.
    pub merkle_root: MerkleNode,
    /// Earliest time of a job for the current tip, seconds; `None` while it is a future job.
    pub min_ntime: Option<u32>,
    /// What a share on it has to meet: the channel's target when the job became active.
    pub target: Target,
    /// When it became active, or came if it is a future job.
    pub since: Mono,
}

/// Pending and active jobs of one channel.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    futures: ArrayVec<MiningJob, FUTURE_JOBS_MAX>,
    /// Newest last; that one is mined.
    actives: ArrayVec<MiningJob, ACTIVE_JOBS_MAX>,
    tip: Option<Tip>,
    /// The last job of the tip before, for shares that are stale on purpose.
    stale: Option<(MiningJob, Tip)>,
}

impl Jobs {
    pub fn clear(&mut self) {
        *self = Jobs::default();
    }

    pub fn tip(&self) -> Option<Tip> {
        self.tip
    }

    /// The job to mine.
    pub fn current(&self) -> Option<&MiningJob> {
        self.actives.last()
    }

    /// A job that the latest `SetNewPrevHash` made stale, with its tip.
    pub fn stale(&self) -> Option<(MiningJob, Tip)> {
        self.stale
    }

    /// A job came. Future ones wait; others replace the current one at once.
    pub fn receive(&mut self, job: MiningJob) -> Result<(), MinerError> {
        let job_id = job.job_id;
        if self.futures.iter().chain(&self.actives).any(|known| known.job_id == job_id) {
            return Err(MinerError::JobIdReused { job_id });
        }
        match job.min_ntime {
            None => {
                self.futures.try_push(job).map_err(|_| MinerError::TooManyFutureJobs { job_id })
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
        let named = self.futures.iter().find(|job| job.job_id == job_id).copied();
        let mut job = named.ok_or(MinerError::PrevHashWithoutJob { job_id })?;
        if let (Some(old), Some(old_tip)) = (self.actives.last(), self.tip)
            && old_tip.prev_hash != tip.prev_hash
        {
            self.stale = Some((*old, old_tip));
        }
        job.min_ntime = Some(tip.min_ntime);
        job.target = target;
        job.since = at;
        self.futures.clear();
        self.actives.clear();
        self.tip = Some(tip);
        self.activate(job);
        Ok(())
    }

    fn activate(&mut self, job: MiningJob) {
        if self.actives.is_full() {
            self.actives.remove(0);
        }
        self.actives.push(job);
    }
}
