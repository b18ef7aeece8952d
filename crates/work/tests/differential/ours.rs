//! Our side: one channel put together from the parts of this crate that decide about shares, in
//! the order in which the gateway asks them.

use std::sync::Arc;

use work::extranonce::{Grant, PrefixAllocator};
use work::now::Mono;
use work::seen::{Insert, Seen, TipClock};
use work::share::{Claim, Fault, Terms, judge, ntime_max};
use work::{Difficulty, Job, Target};

use crate::corpus::Setup;
use crate::{Block, Outcome, Share};

/// Tips for whose jobs blocks are still recognised, as the gateway keeps them (D17).
const TIPS_KEPT: u32 = 3;

/// Hashes there is room for before each job, more than one world has shares.
const ROOM: usize = 256;

/// A job as it was given.
struct Given {
    job_id: u32,
    job: Arc<Job>,
    tip_number: u32,
    ntime: u32,
    given_at: u32,
    network_target: Target,
}

/// A channel.
pub struct Ours {
    /// How its extranonce is cut.
    pub grant: Grant,
    version_mask: u32,
    jobs: Vec<Given>,
    difficulties: Vec<(u32, Difficulty)>,
    seen: Seen,
    tips: TipClock,
    room: usize,
}

impl Ours {
    /// A channel without work.
    pub fn new(setup: &Setup) -> Ours {
        let prefix = PrefixAllocator::new(0x0a0b, 0x0c0d, 7).allocate(0).unwrap();
        let full = prefix.len() + setup.rollable;
        let grant = if setup.is_standard {
            Grant::for_standard(prefix, full)
        } else {
            Grant::for_extended(prefix, full, setup.min_extranonce_size)
        };
        Ours {
            grant: grant.unwrap(),
            version_mask: setup.version_mask,
            jobs: Vec::new(),
            difficulties: vec![(0, Difficulty::at_most(setup.difficulty))],
            seen: Seen::default(),
            tips: TipClock::new(60),
            room: ROOM,
        }
    }

    /// Room for so many hashes only.
    pub fn with_room(self, room: usize) -> Ours {
        Ours { room, ..self }
    }

    /// The difficulty that holds from the next job on.
    pub fn difficulty(&self) -> Difficulty {
        self.difficulties[self.difficulties.len() - 1].1
    }

    /// SetTarget; one that no job came after is forgotten.
    pub fn set_difficulty(&mut self, difficulty: Difficulty) {
        let from_job = self.jobs.last().map_or(0, |given| given.job_id) + 1;
        self.difficulties.retain(|(from, _)| *from < from_job);
        self.difficulties.push((from_job, difficulty));
    }

    /// A job; `ntime` is what the miner is told.
    pub fn give(&mut self, job_id: u32, job: &Arc<Job>, ntime: u32, now: u32, is_new_tip: bool) {
        let at = Mono(u64::from(now) * 1_000_000);
        if is_new_tip {
            self.tips.advance(at);
        }
        self.jobs.push(Given {
            job_id,
            job: Arc::clone(job),
            tip_number: self.tips.number(),
            ntime,
            given_at: now,
            network_target: Target::from_nbits(job.template.tip.nbits).unwrap(),
        });
        let tip_number = self.tips.number();
        self.jobs.retain(|given| given.tip_number + TIPS_KEPT > tip_number);
        self.seen.make_room(self.room, &self.tips, at);
    }

    /// The difficulty a share on `job_id` is held against: the job's own, or the easier one that
    /// was announced behind it, which some miners take at once (D26).
    fn difficulty_for(&self, job_id: u32) -> Difficulty {
        let own = self.difficulties.iter().rposition(|(from, _)| *from <= job_id).unwrap_or(0);
        let (_, difficulty) = self.difficulties[own];
        match self.difficulties.get(own + 1) {
            Some((from, announced))
                if *from == job_id + 1 && announced.work() < difficulty.work() =>
            {
                *announced
            }
            _ => difficulty,
        }
    }

    /// Judge a share: the block first, the verdict second (D17).
    pub fn on_share(&mut self, share: &Share, now: u32) -> Outcome {
        let Some(given) = self.jobs.iter().find(|given| given.job_id == share.job_id) else {
            return Outcome::refused("invalid-job-id");
        };
        let is_stale = given.tip_number != self.tips.number();
        if share.extranonce.len() != usize::from(self.grant.extranonce_size) {
            return Outcome::refused("bad-extranonce-size");
        }
        let claim = Claim {
            version: share.version,
            merkle_root: given.job.merkle_root(&self.grant.extranonce_prefix, &share.extranonce),
            ntime: share.ntime,
            nonce: share.nonce,
        };
        let hash = claim.hash(&given.job.template.tip);
        let mut outcome = Outcome::default();
        if given.network_target.is_met_by(&hash) {
            let extranonce = [&self.grant.extranonce_prefix[..], &share.extranonce].concat();
            outcome.block = Some(Block(given.job.coinbase.with_witness(&extranonce).unwrap()));
        }
        let difficulty = self.difficulty_for(share.job_id);
        let terms = Terms {
            version: given.job.template.version,
            version_mask: self.version_mask,
            ntime_min: given.ntime,
            ntime_max: ntime_max(given.ntime, now - given.given_at, now),
            target: difficulty.target(),
        };
        outcome.code = if is_stale {
            Some("stale-share")
        } else if let Err(fault) = judge(&claim, &hash, &terms) {
            Some(wire_text(fault))
        } else {
            match self.seen.insert(&hash, &self.tips) {
                Insert::New => None,
                Insert::Duplicate => Some("duplicate-share"),
                Insert::Full => Some("invalid-share"),
            }
        };
        if outcome.code.is_none() {
            outcome.credit = difficulty.as_f64();
        }
        outcome
    }
}

/// What the miner is told (the catalogue of reasons).
fn wire_text(fault: Fault) -> &'static str {
    match fault {
        Fault::NtimeTooOld | Fault::NtimeTooNew => "invalid-share",
        Fault::InvalidVersionBits => "invalid-non-rollable-version-bit",
        Fault::VersionRollingNotAllowed => "version-rolling-not-allowed",
        Fault::DifficultyBelowTarget => "difficulty-too-low",
    }
}
