//! The board: what control has decided, as one shard sees it.
//!
//! Control never talks to a miner. It publishes here, and each connection, when it next can,
//! catches up. A connection that was busy through three updates gives its miner one job, the
//! newest; that is why no connection has a queue of jobs to bound or to drain.
//!
//! A job's number on the wire follows from the board's generation (`numbers.rs`, D44). Jobs of the
//! last three tips are kept with their transactions, so that a block found on any of them is still
//! submitted (D17).

use std::collections::VecDeque;
use std::sync::Arc;

use work::{BlockHash, Job, Mono, Now, Target};

use crate::limits::{JOB_REFRESH_MILLIS, JOBS_KEPT_MAX, TIPS_KEPT};

/// What control says to every shard.
#[derive(Debug, Clone, PartialEq)]
pub enum BoardUpdate {
    /// Give this out. It may be on a new tip.
    Publish {
        /// The work, with an accepting verdict (I5) unless the mode says otherwise.
        job: Arc<Job>,
        /// When its tip was first heard of.
        tip_seen: Mono,
    },
    /// A newer tip is known whose work is not verified yet: shares are marked.
    Hold,
    /// The chain is back on the tip whose work is out: go on with it.
    Resume,
    /// The hold is over without verified work: end all channels.
    Expire,
}

/// A job as it was given out.
#[derive(Debug)]
pub struct Posted {
    /// Its generation of the board, from which connections make its number.
    pub generation: u32,
    /// The work.
    pub job: Arc<Job>,
    /// Which of this shard's tips it builds on.
    pub tip_number: u64,
    /// Earliest `ntime` that miners were told.
    pub ntime: u32,
    /// When it was posted here.
    pub posted_at: Now,
    /// Target of a block on it.
    pub network_target: Target,
    /// Fees of its template, satoshi, added up once.
    pub fees: u64,
    /// The generation in which its headers were first given out on this tip: jobs of one work
    /// differ in nothing that a miner hashes but their time.
    pub work: u32,
    /// What a miner hashes of it beside tip, time and version.
    body: [u8; 32],
    /// Its merkle path as extended jobs carry it.
    pub merkle_path: Arc<[[u8; 32]]>,
}

/// The state of one shard's board.
#[derive(Debug, Default)]
pub struct Board {
    posted: VecDeque<Posted>,
    generation: u32,
    tip_number: u64,
    /// When the current tip was first heard of.
    tip_seen: Mono,
    /// Whether the newest posted job may be given out.
    in_force: bool,
    /// A newer tip is known.
    pub hold: bool,
}

impl Board {
    /// Post a job; returns whether it began a new tip. A job whose target cannot be read is not
    /// posted: control has checked it before, so this does not happen.
    pub fn publish(&mut self, now: Now, job: Arc<Job>, tip_seen: Mono) -> bool {
        let Ok(network_target) = Target::from_nbits(job.template.tip.nbits) else { return false };
        // NewMiningJob carries no nbits: a change of them (testnet4) takes a SetNewPrevHash.
        let tip = (job.template.tip.prev_hash, job.template.tip.nbits);
        let is_new_tip = self.tip() != Some(tip);
        if is_new_tip {
            self.tip_number += 1;
            self.tip_seen = tip_seen;
        }
        self.hold = false;
        self.in_force = true;
        let mut ntime = job.template.tip.min_ntime.max(job.template.cur_time);
        if let Some(last) = self.posted.back().filter(|_| !is_new_tip) {
            // Sources have clocks of their own; a miner's time on one tip never goes back.
            let most = job.template.max_ntime.unwrap_or(u32::MAX);
            ntime = ntime.max(last.ntime.min(most));
        }
        self.post(now, job, ntime, network_target);
        is_new_tip
    }

    /// Post the current job again with a newer time, if it is due.
    pub fn refresh(&mut self, now: Now) -> bool {
        let Some(last) = self.current() else { return false };
        if now.mono < last.posted_at.mono.plus_millis(JOB_REFRESH_MILLIS) {
            return false;
        }
        let (job, target) = (Arc::clone(&last.job), last.network_target);
        // Follows the clock, but never jumps ahead of what the elapsed time allows a miner.
        let elapsed = now.mono.micros_since(last.posted_at.mono) / 1_000_000;
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
        let most = last.job.template.max_ntime.unwrap_or(u32::MAX);
        let ntime = last.ntime.saturating_add(elapsed).min(now.unix.seconds());
        let ntime = ntime.min(most).max(last.ntime);
        self.post(now, job, ntime, target);
        true
    }

    /// Nothing may be given out any more.
    pub fn expire(&mut self) {
        self.in_force = false;
    }

    /// The job to give out now. Nothing is given out while a newer tip is known (T5).
    pub fn current(&self) -> Option<&Posted> {
        self.posted.back().filter(|_| self.in_force && !self.hold)
    }

    /// The job of this generation, if it is remembered.
    pub fn find(&self, generation: u32) -> Option<&Posted> {
        self.posted.get(generation.checked_sub(self.oldest()?)? as usize)
    }

    /// The oldest generation that is remembered.
    pub fn oldest(&self) -> Option<u32> {
        self.posted.front().map(|posted| posted.generation)
    }

    /// Generation of the newest job; 0 before the first.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Tips this shard has seen.
    pub fn tip_number(&self) -> u64 {
        self.tip_number
    }

    /// When the current tip was first heard of.
    pub fn tip_seen(&self) -> Mono {
        self.tip_seen
    }

    /// When the current job is to be given again.
    pub fn refresh_at(&self) -> Option<Mono> {
        self.current().map(|posted| posted.posted_at.mono.plus_millis(JOB_REFRESH_MILLIS))
    }

    fn tip(&self) -> Option<(BlockHash, u32)> {
        let tip = &self.posted.back()?.job.template.tip;
        Some((tip.prev_hash, tip.nbits))
    }

    fn post(&mut self, now: Now, job: Arc<Job>, ntime: u32, network_target: Target) {
        self.generation += 1;
        let body = body(&job);
        let of_tip = self.posted.iter().filter(|posted| posted.tip_number == self.tip_number);
        let same = of_tip.map(|posted| (posted.body, posted.work)).find(|(of, _)| *of == body);
        self.posted.push_back(Posted {
            generation: self.generation,
            work: same.map_or(self.generation, |(_, work)| work),
            body,
            fees: job.template.total_fees(),
            merkle_path: job.template.merkle_path.iter().map(|node| node.0).collect(),
            job,
            tip_number: self.tip_number,
            ntime,
            posted_at: now,
            network_target,
        });
        let oldest_tip = (self.tip_number + 1).saturating_sub(TIPS_KEPT);
        while self.posted.len() > JOBS_KEPT_MAX
            || self.posted.front().is_some_and(|posted| posted.tip_number < oldest_tip)
        {
            self.posted.pop_front();
        }
    }
}

/// What a miner hashes of a job beside tip, time and version, which it may roll.
fn body(job: &Job) -> [u8; 32] {
    let (coinbase, path) = (&job.coinbase, &job.template.merkle_path);
    let extranonce_bytes = coinbase.extranonce_bytes;
    work::job::body_hash(&coinbase.prefix, &coinbase.suffix, path, 0, 0, extranonce_bytes)
}
