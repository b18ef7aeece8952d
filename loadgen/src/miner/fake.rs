//! Shares that are wrong on purpose, for tests of the server.

use sv2::message::mining::SubmitSharesStandard;
use work::share::Claim;
use work::{BlockHash, Now};

use super::search::Search;
use super::submit::Share;
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
    /// An extranonce of another length than was agreed; extended channels only.
    ExtranonceLength,
    /// A standard share on an extended channel, or an extended one on a standard channel.
    OtherKind,
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
        let rolling = self.config.ntime;
        // A fake is made of the channel that an honest share would come from next.
        let next = self.cursor % self.channels.len().max(1);
        let named = match &fake {
            Fake::Raw(message) => Some(message.channel_id),
            Fake::Replay => self.last_share.as_ref().map(|share| share.fields.channel_id),
            _ => None,
        };
        let named = self.channels.iter().position(|channel| Some(channel.id) == named);
        let index = named.unwrap_or(next);
        if let Some(channel) = self.channels.get_mut(index) {
            channel.refresh_ntime(now, rolling);
        }
        let Some(share) = self.fake_share(index, fake) else { return Ok(None) };
        self.submit(now, index, share, BlockHash::default(), true, wire)
    }

    fn fake_share(&self, index: usize, fake: Fake) -> Option<Share> {
        let channel = self.channels.get(index)?;
        let search = channel.search.as_ref();
        let current = search.map(|search| Share::of(search, None, channel.id));
        let change = |change: &dyn Fn(&mut SubmitSharesStandard)| {
            let mut share = current.clone()?;
            change(&mut share.fields);
            Some(share)
        };
        match fake {
            Fake::Raw(fields) => Some(Share { fields, extranonce: None }),
            Fake::Replay => self.last_share.clone(),
            Fake::UnknownJob { job_id } => change(&|share| share.job_id = job_id),
            Fake::UnknownChannel { channel_id } => change(&|share| share.channel_id = channel_id),
            Fake::Stale => {
                let (job, tip) = channel.jobs.stale()?;
                Some(Share::of(&Search::new(job.clone(), *tip), None, channel.id))
            }
            Fake::AboveTarget => {
                let claim = above_target(search?)?;
                change(&|share| share.nonce = claim.nonce)
            }
            Fake::NtimeTooOld => {
                change(&|share| share.ntime = share.ntime.saturating_sub(NTIME_FAR_SECONDS))
            }
            Fake::NtimeTooNew => {
                change(&|share| share.ntime = share.ntime.saturating_add(NTIME_FAR_SECONDS))
            }
            Fake::FixedVersionBit => change(&|share| share.version ^= FIXED_VERSION_BIT),
            Fake::ExtranonceLength => {
                let mut share = current?;
                let extranonce = share.extranonce.as_mut()?;
                // One byte less, or one more where there is none to leave out.
                if extranonce.pop().is_none() {
                    extranonce.push(0);
                }
                Some(share)
            }
            Fake::OtherKind => {
                let mut share = current?;
                share.extranonce = match share.extranonce {
                    Some(_) => None,
                    None => Some(Default::default()),
                };
                Some(share)
            }
        }
    }
}

/// A header near the present one whose hash misses the target; `None` if the target is so easy
/// that none of many nonces misses it.
fn above_target(search: &Search) -> Option<Claim> {
    const NONCES: u32 = 10_000;
    let base = search.claim();
    (0..NONCES)
        .map(|step| Claim { nonce: base.nonce.wrapping_sub(step + 1), ..base })
        .find(|claim| !search.job.facts.target.is_met_by(&claim.hash(&search.tip)))
}
