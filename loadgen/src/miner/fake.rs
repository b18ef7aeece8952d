//! Shares that are wrong on purpose, for tests of the server.

use sv2::message::mining::SubmitSharesStandard;
use work::share::Claim;
use work::{BlockHash, Now};

use super::search::Search;
use super::{Miner, MinerError};

/// Seconds by which a fake share's time is out of any allowed range.
const NTIME_FAR_SECONDS: u32 = 100_000;

/// A version bit outside of what may be rolled.
const FIXED_VERSION_BIT: u32 = 1;

/// Which wrong share to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fake {
    /// The last honest share again, under a new sequence number: a duplicate.
    Replay,
    /// A job that was never given.
    UnknownJob {
        /// Its number.
        job_id: u32,
    },
    /// The last job of the tip before.
    Stale,
    /// A header of the current job that does not meet its target.
    AboveTarget,
    /// A time before the job's earliest.
    NtimeTooOld,
    /// A time beyond any limit.
    NtimeTooNew,
    /// A version with a bit changed that may not be rolled.
    FixedVersionBit,
    /// A channel this connection does not have.
    UnknownChannel {
        /// Its number.
        channel_id: u32,
    },
    /// Exactly this message, its sequence number excepted.
    Raw(SubmitSharesStandard),
}

impl Miner {
    /// Sends a wrong share. Returns its sequence number, or `None` if there is nothing to make it
    /// of yet (no job, no share before, no tip before), or too much is unanswered.
    ///
    /// # Errors
    /// [`MinerError::Transport`] when it cannot be sealed.
    pub fn submit_fake(
        &mut self,
        now: Now,
        fake: Fake,
        wire: &mut Vec<u8>,
    ) -> Result<Option<u32>, MinerError> {
        if !self.is_open() || self.outstanding.is_full() {
            return Ok(None);
        }
        self.refresh_ntime(now);
        let Some(mut message) = self.fake_message(fake) else { return Ok(None) };
        message.sequence_number = self.next_sequence_number;
        self.submit(now, message, BlockHash::default(), true, wire)?;
        Ok(Some(message.sequence_number))
    }

    fn fake_message(&self, fake: Fake) -> Option<SubmitSharesStandard> {
        let current = self.search.as_ref().map(|search| {
            let claim = search.claim();
            (self.share_message(search.job.job_id, &claim), search)
        });
        let of_current = current.map(|(message, _)| message);
        Some(match fake {
            Fake::Raw(message) => message,
            Fake::Replay => self.last_share?,
            Fake::UnknownJob { job_id } => SubmitSharesStandard { job_id, ..of_current? },
            Fake::UnknownChannel { channel_id } => {
                SubmitSharesStandard { channel_id, ..of_current? }
            }
            Fake::Stale => {
                let (job, tip) = self.jobs.stale()?;
                let claim = Search::new(job, tip, false).claim();
                self.share_message(job.job_id, &claim)
            }
            Fake::AboveTarget => {
                let search = current?.1;
                self.share_message(search.job.job_id, &above_target(search)?)
            }
            Fake::NtimeTooOld => {
                let message = of_current?;
                let ntime = message.ntime.saturating_sub(NTIME_FAR_SECONDS);
                SubmitSharesStandard { ntime, ..message }
            }
            Fake::NtimeTooNew => {
                let message = of_current?;
                let ntime = message.ntime.saturating_add(NTIME_FAR_SECONDS);
                SubmitSharesStandard { ntime, ..message }
            }
            Fake::FixedVersionBit => {
                let message = of_current?;
                SubmitSharesStandard { version: message.version ^ FIXED_VERSION_BIT, ..message }
            }
        })
    }
}

/// A header near the present one whose hash misses the target; `None` if the target is so easy
/// that none of many nonces misses it.
fn above_target(search: &Search) -> Option<Claim> {
    const NONCES: u32 = 10_000;
    let base = search.claim();
    (0..NONCES)
        .map(|step| Claim { nonce: base.nonce.wrapping_sub(step + 1), ..base })
        .find(|claim| !search.job.target.is_met_by(&claim.hash(&search.tip)))
}
