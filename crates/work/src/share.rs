//! The one place where a share is judged.
//!
//! The hash comes first and the verdict second (D17): a header that meets its own tip's target
//! is a block whatever else is wrong with the share, so [`Claim::hash`] needs nothing but the
//! header, and [`judge`] is asked afterwards.

use crate::hash::{BlockHash, MerkleNode, sha256d};
use crate::target::Target;
use crate::tip::Tip;

/// Version bits that a miner may roll: bits 5 to 28 (BIP323).
pub const VERSION_ROLLING_MASK: u32 = 0x1fff_ffe0;

/// Version bits that a miner may roll by the older rule: bits 13 to 28 (BIP320).
pub const VERSION_MASK_BIP320: u32 = 0x1fff_e000;

/// Seconds beyond the elapsed time that a share's `ntime` may run ahead (D32).
pub const NTIME_ROLL_AHEAD_SECONDS: u32 = 600;

/// Seconds ahead of the clock at which `ntime` is refused: consensus allows 7 200 (D32).
pub const NTIME_FUTURE_SECONDS: u32 = 6_900;

/// A miner's claim of work: the header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Version as mined, rolled bits included.
    pub version: u32,
    /// Root under the miner's own coinbase.
    pub merkle_root: MerkleNode,
    /// Time as mined.
    pub ntime: u32,
    /// The nonce found.
    pub nonce: u32,
}

impl Claim {
    /// The 80 bytes of the header:
    /// `version 4 | prev_hash 32 | merkle_root 32 | ntime 4 | nbits 4 | nonce 4`.
    pub fn header(&self, tip: &Tip) -> [u8; 80] {
        let mut header = [0u8; 80];
        header[0..4].copy_from_slice(&self.version.to_le_bytes());
        header[4..36].copy_from_slice(&tip.prev_hash.0);
        header[36..68].copy_from_slice(&self.merkle_root.0);
        header[68..72].copy_from_slice(&self.ntime.to_le_bytes());
        header[72..76].copy_from_slice(&tip.nbits.to_le_bytes());
        header[76..80].copy_from_slice(&self.nonce.to_le_bytes());
        header
    }

    /// The header's hash under `tip`.
    pub fn hash(&self, tip: &Tip) -> BlockHash {
        BlockHash(sha256d(&self.header(tip)))
    }
}

/// What a share is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Version of the job.
    pub version: u32,
    /// Version bits that may differ from the job's, all within [`VERSION_ROLLING_MASK`]; 0 if the
    /// version is fixed.
    pub version_mask: u32,
    /// Earliest `ntime`: the tip's or the job's, whichever is later.
    pub ntime_min: u32,
    /// Latest `ntime`.
    pub ntime_max: u32,
    /// The target the share must meet.
    pub target: Target,
}

/// Why a share is not accepted, as far as its header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `ntime` is below the job's or the tip's earliest.
    NtimeTooOld,
    /// `ntime` is beyond what the clock and the elapsed time allow.
    NtimeTooNew,
    /// Version bits outside the mask differ from the job's.
    InvalidVersionBits,
    /// The version differs although the job says it is fixed.
    VersionRollingNotAllowed,
    /// The hash is above the target.
    DifficultyBelowTarget,
}

/// Latest `ntime` that is accepted: rolling with the clock since the job was given, plus
/// [`NTIME_ROLL_AHEAD_SECONDS`], but never near the consensus limit (D32).
pub fn ntime_max(ntime_min: u32, elapsed_seconds: u32, now_seconds: u32) -> u32 {
    let rolled = ntime_min.saturating_add(elapsed_seconds).saturating_add(NTIME_ROLL_AHEAD_SECONDS);
    rolled.min(now_seconds.saturating_add(NTIME_FUTURE_SECONDS))
}

/// Judge a share whose hash is already known, in the order of `channels_sv2`: time, version,
/// target. Whether it was seen before is the caller's to say.
///
/// # Errors
/// The first [`Fault`] found.
pub fn judge(claim: &Claim, hash: &BlockHash, terms: &Terms) -> Result<(), Fault> {
    if claim.ntime < terms.ntime_min {
        return Err(Fault::NtimeTooOld);
    }
    if claim.ntime > terms.ntime_max {
        return Err(Fault::NtimeTooNew);
    }
    let rolled = claim.version ^ terms.version;
    if rolled & !terms.version_mask != 0 {
        let is_fixed = terms.version_mask == 0;
        let fault =
            if is_fixed { Fault::VersionRollingNotAllowed } else { Fault::InvalidVersionBits };
        return Err(fault);
    }
    if !terms.target.is_met_by(hash) {
        return Err(Fault::DifficultyBelowTarget);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            version: 0x2000_0000,
            version_mask: VERSION_ROLLING_MASK,
            ntime_min: 1_000,
            ntime_max: 2_000,
            target: Target::MAX,
        }
    }

    fn claim() -> Claim {
        Claim { version: 0x2000_0000, merkle_root: MerkleNode([7; 32]), ntime: 1_500, nonce: 9 }
    }

    fn check(change: impl FnOnce(&mut Claim, &mut Terms), expected: Result<(), Fault>) {
        let (mut claim, mut terms) = (claim(), terms());
        change(&mut claim, &mut terms);
        assert_eq!(judge(&claim, &BlockHash([1; 32]), &terms), expected);
    }

    #[test]
    fn each_rule_and_its_edge() {
        check(|_, _| (), Ok(()));
        check(|c, _| c.ntime = 1_000, Ok(()));
        check(|c, _| c.ntime = 999, Err(Fault::NtimeTooOld));
        check(|c, _| c.ntime = 2_000, Ok(()));
        check(|c, _| c.ntime = 2_001, Err(Fault::NtimeTooNew));
        check(|c, _| c.version ^= 0x1fff_ffe0, Ok(()));
        check(|c, _| c.version ^= 0x0000_0010, Err(Fault::InvalidVersionBits));
        check(|c, _| c.version ^= 0x2000_0000, Err(Fault::InvalidVersionBits));
        let fixed = |c: &mut Claim, t: &mut Terms| {
            c.version ^= 0x20;
            t.version_mask = 0;
        };
        check(fixed, Err(Fault::VersionRollingNotAllowed));
        check(|_, t| t.version_mask = 0, Ok(()));
        let bip320 = |version: u32| {
            move |c: &mut Claim, t: &mut Terms| {
                c.version ^= version;
                t.version_mask = VERSION_MASK_BIP320;
            }
        };
        check(bip320(0x1fff_e000), Ok(()));
        check(bip320(0x0000_1000), Err(Fault::InvalidVersionBits));
        check(|_, t| t.target = Target::ZERO, Err(Fault::DifficultyBelowTarget));
        check(|_, t| t.target = Target::from_le_bytes([1; 32]), Ok(()));
    }

    #[test]
    fn the_latest_ntime() {
        assert_eq!(ntime_max(1_000, 5, 1_000), 1_605);
        assert_eq!(ntime_max(50_000, 0, 1_000), 7_900);
        assert_eq!(ntime_max(u32::MAX, u32::MAX, u32::MAX), u32::MAX);
    }

    #[test]
    fn genesis_is_rebuilt() {
        let root = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b";
        let claim = Claim {
            version: 1,
            merkle_root: root.parse().unwrap(),
            ntime: 1_231_006_505,
            nonce: 2_083_236_893,
        };
        let tip = Tip { prev_hash: BlockHash([0; 32]), nbits: 0x1d00_ffff, min_ntime: 0 };
        let known = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
        assert_eq!(claim.hash(&tip).to_string(), known);
    }
}
