//! The search for nonces: real double SHA-256 over real headers, at a pace the driver sets.
//!
//! The first 64 of a header's 80 bytes stay the same over many nonces, so their compression is
//! kept. Within one search no header is ever tried twice: nonces only grow, and when they have
//! run out the extranonce and the version are rolled, as far as each may be, or else the search
//! rests until `ntime` moves. A job that is the one before under another number goes on where that
//! one was.

use sha2::{Digest, Sha256};
use work::hash::finish_double;
use work::share::Claim;
use work::{BlockHash, Target, Tip};

use super::coinbase::{Extranonce, advance};
use super::jobs::Job;

/// A header that meets the target it was searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub claim: Claim,
    pub hash: BlockHash,
    /// Whether it also meets the bits of the tip.
    pub is_block: bool,
}

#[derive(Debug)]
pub(crate) struct Search {
    pub job: Job,
    pub tip: Tip,
    block_target: Target,
    claim: Claim,
    /// The rolled part of the extranonce; empty where the root is fixed.
    extranonce: Extranonce,
    rolls: u64,
    /// Rolls after which extranonce and version are those of the begin again; 1 if neither rolls.
    period: u64,
    /// All nonces under this `ntime` and everything that rolls are used.
    is_spent: bool,
    /// SHA-256 over the first 64 bytes of the header.
    midstate: Sha256,
}

impl Search {
    pub fn new(job: Job, tip: Tip) -> Search {
        let claim = Claim {
            version: job.facts.version,
            merkle_root: job.facts.merkle_root,
            ntime: job.facts.min_ntime.unwrap_or(tip.min_ntime),
            nonce: 0,
        };
        let extranonce =
            job.extended.as_ref().map(|work| work.first_extranonce()).unwrap_or_default();
        let extranonce_bits = u32::try_from(8 * extranonce.len()).unwrap_or(u32::MAX);
        let period = 1 << job.version_mask.count_ones().max(extranonce_bits).min(63);
        // `Jobs::switch` refused bits without a target; zero finds no block, and no share is lost.
        let block_target = Target::from_nbits(tip.nbits).unwrap_or(Target::ZERO);
        let midstate = midstate(&claim, &tip);
        Search {
            job,
            tip,
            block_target,
            claim,
            extranonce,
            rolls: 0,
            period,
            is_spent: false,
            midstate,
        }
    }

    /// Goes on behind `before` if this is the same work under another number: a refreshed job, or
    /// the one that follows a new target.
    pub fn resume(&mut self, before: &Search) {
        let (ours, theirs) = (&self.job, &before.job);
        let is_same = ours.facts.merkle_root == theirs.facts.merkle_root
            && ours.facts.version == theirs.facts.version
            && ours.version_mask == theirs.version_mask
            && self.extranonce.len() == before.extranonce.len()
            && self.tip.prev_hash == before.tip.prev_hash
            && self.tip.nbits == before.tip.nbits;
        if is_same {
            self.rolls = before.rolls;
            self.extranonce = before.extranonce.clone();
            let Claim { version, merkle_root, nonce, .. } = before.claim;
            self.claim = Claim { version, merkle_root, nonce, ..self.claim };
            self.is_spent = before.is_spent && self.claim.ntime <= before.claim.ntime;
            self.midstate = midstate(&self.claim, &self.tip);
        }
    }

    /// Time moves on; it never moves back within a search.
    pub fn set_ntime(&mut self, ntime: u32) {
        if ntime > self.claim.ntime {
            self.claim.ntime = ntime;
            self.is_spent = false;
        }
    }

    /// Tries up to `hashes` headers. Returns how many were tried, and the first that meets the
    /// job's target.
    pub fn run(&mut self, hashes: u32) -> (u32, Option<Found>) {
        for tried in 0..hashes {
            if self.is_spent {
                return (tried, None);
            }
            let claim = self.claim;
            let hash = self.hash();
            if self.job.facts.target.is_met_by(&hash) {
                let is_block = self.block_target.is_met_by(&hash);
                return (tried + 1, Some(Found { claim, hash, is_block }));
            }
            self.advance();
        }
        (hashes, None)
    }

    /// The present header, without regard to any target; for fakes.
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// The rolled part of the present header's extranonce; `None` where the root is fixed.
    pub fn extranonce(&self) -> Option<Extranonce> {
        self.job.extended.as_ref().map(|_| self.extranonce.clone())
    }

    fn hash(&self) -> BlockHash {
        let root_tail = self.claim.merkle_root.0.last_chunk::<4>().copied().unwrap_or_default();
        let mut tail = [0; 16];
        tail[..4].copy_from_slice(&root_tail);
        tail[4..8].copy_from_slice(&self.claim.ntime.to_le_bytes());
        tail[8..12].copy_from_slice(&self.tip.nbits.to_le_bytes());
        tail[12..].copy_from_slice(&self.claim.nonce.to_le_bytes());
        BlockHash(finish_double(self.midstate.clone().chain_update(tail)))
    }

    fn advance(&mut self) {
        match self.claim.nonce.checked_add(1) {
            Some(nonce) => self.claim.nonce = nonce,
            None => self.roll(),
        }
    }

    fn roll(&mut self) {
        self.rolls = self.rolls.wrapping_add(1);
        self.is_spent = self.rolls.is_multiple_of(self.period);
        self.claim.nonce = 0;
        let mask = self.job.version_mask;
        // Only the bits that fit the mask count; the cast drops what is above all of them.
        let rolled = (self.rolls << mask.trailing_zeros().min(31)) as u32 & mask;
        self.claim.version = self.job.facts.version ^ rolled;
        if let Some(work) = &self.job.extended {
            advance(&mut self.extranonce);
            self.claim.merkle_root = work.root(&self.extranonce);
        }
        self.midstate = midstate(&self.claim, &self.tip);
    }

    /// Moves on from a header that was found. Everything that may be rolled is rolled now, so that
    /// other versions and extranonces are seen long before 2^32 nonces are used; nonces start
    /// again under them.
    pub fn after_found(&mut self) {
        if self.period > 1 {
            self.roll();
        } else {
            self.advance();
        }
    }
}

fn midstate(claim: &Claim, tip: &Tip) -> Sha256 {
    let header = claim.header(tip);
    Sha256::new_with_prefix(header.first_chunk::<64>().unwrap_or(&[0; 64]))
}

#[cfg(test)]
mod tests {
    use super::super::coinbase::{ExtendedWork, Parts};
    use super::super::jobs::MiningJob;
    use super::*;
    use std::collections::HashSet;
    use std::sync::Arc;
    use sv2::message::mining::NewExtendedMiningJob;
    use work::share::VERSION_ROLLING_MASK;
    use work::{MerkleNode, Mono};

    const TIP: Tip = Tip { prev_hash: BlockHash([3; 32]), nbits: 0x207f_ffff, min_ntime: 1_000 };

    fn job(target: Target, version_mask: u32) -> Job {
        let facts = MiningJob {
            job_id: 1,
            version: 0x2000_0000,
            merkle_root: MerkleNode([9; 32]),
            min_ntime: None,
            target,
            since: Mono(0),
        };
        Job { facts, version_mask, extended: None }
    }

    fn search(target: Target, may_roll: bool) -> Search {
        Search::new(job(target, if may_roll { VERSION_ROLLING_MASK } else { 0 }), TIP)
    }

    fn extended(target: Target, version_mask: u32, extranonce_size: usize) -> Search {
        let parts = Arc::new(Parts::new(&NewExtendedMiningJob {
            channel_id: 1,
            job_id: 1,
            min_ntime: None,
            version: 0,
            version_rolling_allowed: true,
            merkle_path: &[[7; 32], [8; 32]],
            coinbase_tx_prefix: b"front",
            coinbase_tx_suffix: b"back",
        }));
        let work = ExtendedWork { parts, prefix: [5; 4].into_iter().collect(), extranonce_size };
        let mut job = job(target, version_mask);
        job.facts.merkle_root = work.root(&work.first_extranonce());
        Search::new(Job { extended: Some(work), ..job }, TIP)
    }

    /// Goal: the kept midstate gives the same hash as the whole header, and no header comes twice.
    #[test]
    fn what_is_found_is_what_the_header_hashes_to() {
        let target = Target(Target::MAX.0 >> 6);
        for mut search in [
            search(target, true),
            search(target, false),
            extended(target, 0, 3),
            extended(target, VERSION_ROLLING_MASK, 1),
        ] {
            let mut seen = HashSet::new();
            for _ in 0..50 {
                let (_, found) = search.run(100_000);
                let found = found.unwrap();
                assert_eq!(found.claim.hash(&search.tip), found.hash);
                assert!(target.is_met_by(&found.hash));
                let block = Target::from_nbits(0x207f_ffff).unwrap();
                assert_eq!(found.is_block, block.is_met_by(&found.hash));
                assert!(seen.insert(found.hash.0), "a header was tried twice");
                search.after_found();
            }
        }
    }

    #[test]
    fn the_last_nonce_rolls_or_waits_for_time() {
        let mut rolling = search(Target::ZERO, true);
        rolling.claim.nonce = u32::MAX;
        assert_eq!(rolling.run(2), (2, None));
        assert_eq!((rolling.claim.nonce, rolling.claim.version), (1, 0x2000_0020));

        let mut fixed = search(Target::ZERO, false);
        fixed.claim.nonce = u32::MAX;
        assert_eq!(fixed.run(5), (1, None));
        fixed.set_ntime(1_000);
        assert_eq!(fixed.run(5), (0, None));
        fixed.set_ntime(1_001);
        assert_eq!(fixed.run(5), (5, None));
    }

    /// Goal: the root of a rolled extranonce is that of its bytes, and all of them are used.
    #[test]
    fn an_extranonce_is_a_big_endian_counter() {
        let mut search = extended(Target::ZERO, 0, 2);
        let mut roots = HashSet::from([search.claim.merkle_root.0]);
        for count in 1..=0xffff_u16 {
            search.after_found();
            assert_eq!(search.extranonce().unwrap()[..], count.to_be_bytes());
            roots.insert(search.claim.merkle_root.0);
        }
        assert_eq!((roots.len(), search.is_spent), (1 << 16, false));
        let work = search.job.extended.clone().unwrap();
        assert_eq!(search.claim.merkle_root, work.parts.root(&[5; 4], &[0xff, 0xff]));
        assert_eq!(search.claim.version, 0x2000_0000);
        search.after_found();
        assert_eq!(search.run(5), (0, None));
    }

    #[test]
    fn rolled_bits_stay_in_the_mask() {
        for mask in [VERSION_ROLLING_MASK, 0x1fff_e000] {
            let mut search = Search::new(job(Target::ZERO, mask), TIP);
            search.rolls = search.period - 2;
            let mut versions = HashSet::new();
            for _ in 0..4 {
                search.roll();
                assert_eq!((search.claim.version ^ 0x2000_0000) & !mask, 0);
                versions.insert(search.claim.version);
            }
            assert_eq!(versions.len(), 4);
        }
    }

    /// Goal: the same work under a new number does not begin again.
    #[test]
    fn the_same_work_goes_on() {
        let mut before = search(Target(Target::MAX.0 >> 6), true);
        before.run(100_000);
        before.after_found();
        before.run(7);
        let mut after = search(Target::ZERO, true);
        after.resume(&before);
        assert_eq!(after.claim, before.claim);
        let (claim, tip) = (after.claim(), after.tip);
        assert_eq!(BlockHash(claim.hash(&tip).0), after.hash());
        let mut other = Search::new(Job { version_mask: 0, ..job(Target::ZERO, 0) }, TIP);
        other.resume(&before);
        assert_eq!(other.claim.nonce, 0);
    }
}
