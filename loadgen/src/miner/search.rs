//! The search for nonces: real double SHA-256 over real headers, at a pace the driver sets.
//!
//! The first 64 of a header's 80 bytes stay the same over many nonces, so their compression is
//! kept. Within one search no header is ever tried twice: nonces only grow, and when they have
//! run out the version is rolled, or else the search rests until `ntime` moves.

use sha2::{Digest, Sha256};
use work::hash::finish_double;
use work::share::{Claim, VERSION_ROLLING_MASK};
use work::{BlockHash, Target, Tip};

use super::jobs::MiningJob;

/// Lowest version bit that may be rolled (BIP323: bits 5 to 28).
const VERSION_ROLLING_SHIFT: u32 = VERSION_ROLLING_MASK.trailing_zeros();

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
    pub job: MiningJob,
    pub tip: Tip,
    block_target: Target,
    claim: Claim,
    rolls: u32,
    may_roll: bool,
    /// All nonces under this `ntime` and version are used and the version may not be rolled.
    is_spent: bool,
    /// SHA-256 over the first 64 bytes of the header.
    midstate: Sha256,
}

impl Search {
    pub fn new(job: MiningJob, tip: Tip, may_roll: bool) -> Search {
        let claim = Claim {
            version: job.version,
            merkle_root: job.merkle_root,
            ntime: job.min_ntime.unwrap_or(tip.min_ntime),
            nonce: 0,
        };
        // `Jobs::switch` refused bits without a target; zero finds no block, and no share is lost.
        let block_target = Target::from_nbits(tip.nbits).unwrap_or(Target::ZERO);
        let midstate = midstate(&claim, &tip);
        Search { job, tip, block_target, claim, rolls: 0, may_roll, is_spent: false, midstate }
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
            self.advance();
            if self.job.target.is_met_by(&hash) {
                let is_block = self.block_target.is_met_by(&hash);
                return (tried + 1, Some(Found { claim, hash, is_block }));
            }
        }
        (hashes, None)
    }

    /// The present header, without regard to any target; for fakes.
    pub fn claim(&self) -> Claim {
        self.claim
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
            None if self.may_roll => self.roll(),
            None => {
                self.claim.nonce = 0;
                self.is_spent = true;
            }
        }
    }

    fn roll(&mut self) {
        self.rolls = self.rolls.wrapping_add(1);
        self.claim.nonce = 0;
        let rolled = self.rolls << VERSION_ROLLING_SHIFT & VERSION_ROLLING_MASK;
        self.claim.version = self.job.version ^ rolled;
        self.midstate = midstate(&self.claim, &self.tip);
    }

    /// Rolls the version now, so that versions other than the job's are seen long before 2^32
    /// nonces are used. Nonces start again under the new version.
    pub fn roll_if_allowed(&mut self) {
        if self.may_roll {
            self.roll();
        }
    }
}

fn midstate(claim: &Claim, tip: &Tip) -> Sha256 {
    let header = claim.header(tip);
    Sha256::new_with_prefix(header.first_chunk::<64>().unwrap_or(&[0; 64]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use work::{MerkleNode, Mono};

    fn search(target: Target, may_roll: bool) -> Search {
        let tip = Tip { prev_hash: BlockHash([3; 32]), nbits: 0x207f_ffff, min_ntime: 1_000 };
        let job = MiningJob {
            job_id: 1,
            version: 0x2000_0000,
            merkle_root: MerkleNode([9; 32]),
            min_ntime: None,
            target,
            since: Mono(0),
        };
        Search::new(job, tip, may_roll)
    }

    /// Goal: the kept midstate gives the same hash as the whole header.
    #[test]
    fn what_is_found_is_what_the_header_hashes_to() {
        let target = Target(Target::MAX.0 >> 6);
        let mut search = search(target, true);
        let mut seen = HashSet::new();
        for _ in 0..50 {
            let (_, found) = search.run(100_000);
            let found = found.unwrap();
            assert_eq!(found.claim.hash(&search.tip), found.hash);
            assert!(target.is_met_by(&found.hash));
            let block = Target::from_nbits(0x207f_ffff).unwrap();
            assert_eq!(found.is_block, block.is_met_by(&found.hash));
            assert!(seen.insert(found.hash.0), "a header was tried twice");
            search.roll_if_allowed();
        }
    }

    #[test]
    fn the_last_nonce_rolls_the_version_or_waits_for_time() {
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

    #[test]
    fn rolled_bits_stay_in_the_mask() {
        let mut search = search(Target::ZERO, true);
        search.rolls = (1 << 24) - 2;
        for _ in 0..4 {
            search.roll();
            assert_eq!((search.claim.version ^ 0x2000_0000) & !VERSION_ROLLING_MASK, 0);
        }
    }
}
