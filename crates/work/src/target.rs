//! Targets: 256-bit numbers that a hash must not exceed (D15: no floating point decides a share).

use std::fmt;

use ethnum::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::BlockHash;

/// The largest hash that counts, as a 256-bit number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(pub U256);

/// Compact bits that stand for no target: negative, zero or above 256 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNbits(
    /// The compact form as found.
    pub u32,
);

impl fmt::Display for InvalidNbits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nbits {:08x} stand for no target (negative, zero or too large)", self.0)
    }
}

impl std::error::Error for InvalidNbits {}

impl Target {
    /// Any hash meets it.
    pub const MAX: Target = Target(U256::MAX);
    /// Only the hash zero meets it.
    pub const ZERO: Target = Target(U256::ZERO);
    /// Target of difficulty 1: `0xffff << 208`.
    pub const DIFFICULTY_1: Target = Target(U256::from_words(0xffff_u128 << 80, 0));

    /// From 32 bytes, least significant first: the form of SV2's U256.
    pub fn from_le_bytes(bytes: [u8; 32]) -> Target {
        Target(U256::from_le_bytes(bytes))
    }

    /// To 32 bytes, least significant first.
    pub fn to_le_bytes(self) -> [u8; 32] {
        self.0.to_le_bytes()
    }

    /// The target that compact `nbits` stand for.
    ///
    /// # Errors
    /// [`InvalidNbits`] for a negative, zero or overflowing form, which consensus refuses.
    pub fn from_nbits(nbits: u32) -> Result<Target, InvalidNbits> {
        let exponent = nbits >> 24;
        let mantissa = U256::from(nbits & 0x007f_ffff);
        let negative = nbits & 0x0080_0000 != 0;
        let value = if exponent <= 3 {
            mantissa >> (8 * (3 - exponent))
        } else {
            let shift = 8 * (exponent - 3);
            if shift >= 256 || (mantissa << shift) >> shift != mantissa {
                return Err(InvalidNbits(nbits));
            }
            mantissa << shift
        };
        if negative || value == U256::ZERO {
            return Err(InvalidNbits(nbits));
        }
        Ok(Target(value))
    }

    /// Whether `hash`, read as a little-endian number, is at most this target.
    pub fn is_met_by(&self, hash: &BlockHash) -> bool {
        U256::from_le_bytes(hash.0) <= self.0
    }

    /// Hashes that are expected until one meets the target: `2^256 / (target + 1)`.
    pub fn expected_hashes(&self) -> U256 {
        match self.0.checked_add(U256::ONE) {
            // 2^256 / n without a 257th bit: (!target / n) + 1, as in Bitcoin's chain work.
            // A target of zero would need one hash more than 256 bits can count.
            Some(next) => ((!self.0) / next).saturating_add(U256::ONE),
            None => U256::ONE,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:064x}", self.0)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.len() != 64 {
            return Err(serde::de::Error::custom("a target is 64 hexadecimal digits"));
        }
        U256::from_str_radix(&text, 16).map(Target).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bits() {
        let check = |nbits: u32, target: &str| {
            assert_eq!(Target::from_nbits(nbits).unwrap().to_string(), target);
        };
        check(0x1d00_ffff, "00000000ffff0000000000000000000000000000000000000000000000000000");
        check(0x1e03_77ae, "00000377ae000000000000000000000000000000000000000000000000000000");
        check(0x207f_ffff, "7fffff0000000000000000000000000000000000000000000000000000000000");
        assert_eq!(Target::from_nbits(0x1d00_ffff).unwrap(), Target::DIFFICULTY_1);
    }

    #[test]
    fn impossible_bits_are_refused() {
        for nbits in [0, 0x0100_0000, 0x1d80_ffff, 0x2300_ffff, 0xff12_3456, 0x0080_0001] {
            assert_eq!(Target::from_nbits(nbits), Err(InvalidNbits(nbits)), "{nbits:08x}");
        }
    }

    #[test]
    fn equality_meets() {
        let target = Target::from_nbits(0x1e03_77ae).unwrap();
        assert!(target.is_met_by(&BlockHash(target.to_le_bytes())));
        let above = Target(target.0 + U256::ONE);
        assert!(!target.is_met_by(&BlockHash(above.to_le_bytes())));
    }

    proptest! {
        /// The node's own library reads every compact form alike.
        #[test]
        fn same_as_the_bitcoin_crate(nbits in any::<u32>()) {
            let compact = bitcoin::CompactTarget::from_consensus(nbits);
            let theirs = bitcoin::Target::from_compact(compact);
            if let Ok(ours) = Target::from_nbits(nbits) {
                prop_assert_eq!(ours.to_le_bytes(), theirs.to_le_bytes());
                prop_assert_eq!(
                    ours.expected_hashes().to_le_bytes(),
                    theirs.to_work().to_le_bytes()
                );
            }
        }
    }
}
