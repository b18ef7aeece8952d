//! Channel difficulties and exact sums of work (D26).
//!
//! A channel's difficulty is an integer of at least 1 or a power 2^-k, so that the sum that SV2
//! reports (`new_shares_sum`, whole difficulties) and the sum that is paid are exact.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use ethnum::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::target::Target;

/// Smallest difficulty: 2^-32, about one hash a share.
pub const DIFFICULTY_EXPONENT_MAX: u32 = 32;

/// Work of difficulty 1 in the unit of [`Work`].
const UNITS_PER_DIFFICULTY: u128 = 1 << 32;

/// A channel's difficulty: an integer of at least 1, or 2^-k with k up to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difficulty(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole(u64),
    Fraction { exponent: u32 },
}

impl Difficulty {
    /// One.
    pub const ONE: Difficulty = Difficulty(Kind::Whole(1));
    /// The easiest: 2^-32.
    pub const EASIEST: Difficulty =
        Difficulty(Kind::Fraction { exponent: DIFFICULTY_EXPONENT_MAX });

    /// The hardest difficulty of the allowed forms that is at most `value`; at least 2^-32.
    ///
    /// Values that are not numbers or not positive give the easiest.
    pub fn at_most(value: f64) -> Difficulty {
        if value.is_nan() || value <= 0.0 {
            return Difficulty::EASIEST;
        }
        if value >= 1.0 {
            // The cast saturates: 2^64 - 1 is far above any network.
            return Difficulty(Kind::Whole(value as u64));
        }
        let exponent = (1..=DIFFICULTY_EXPONENT_MAX)
            .find(|k| 0.5f64.powi(*k as i32) <= value)
            .unwrap_or(DIFFICULTY_EXPONENT_MAX);
        Difficulty(Kind::Fraction { exponent })
    }

    /// The easiest difficulty of the allowed forms whose target is at most `max_target`.
    ///
    /// `None` if even 2^64 - 1 is too easy, or `max_target` is zero.
    pub fn at_least_for(max_target: Target) -> Option<Difficulty> {
        if max_target.0 == U256::ZERO {
            return None;
        }
        if max_target >= Target::DIFFICULTY_1 {
            let exponent = (1..=DIFFICULTY_EXPONENT_MAX)
                .rev()
                .find(|k| (Target::DIFFICULTY_1.0 << *k) <= max_target.0);
            return Some(match exponent {
                Some(exponent) => Difficulty(Kind::Fraction { exponent }),
                None => Difficulty::ONE,
            });
        }
        let (one, max) = (Target::DIFFICULTY_1.0, max_target.0);
        let whole = one / max + U256::from((one % max != 0) as u8);
        u64::try_from(whole).ok().map(|whole| Difficulty(Kind::Whole(whole)))
    }

    /// The target of this difficulty: difficulty 1's target divided by it, rounded down.
    pub fn target(&self) -> Target {
        match self.0 {
            Kind::Whole(whole) => Target(Target::DIFFICULTY_1.0 / U256::from(whole.max(1))),
            Kind::Fraction { exponent } => Target(Target::DIFFICULTY_1.0 << exponent),
        }
    }

    /// The work one share of this difficulty is credited with.
    pub fn work(&self) -> Work {
        match self.0 {
            Kind::Whole(whole) => Work(u128::from(whole) * UNITS_PER_DIFFICULTY),
            Kind::Fraction { exponent } => Work(UNITS_PER_DIFFICULTY >> exponent),
        }
    }

    /// The difficulty whose share is credited with `work`: the inverse of [`Difficulty::work`].
    ///
    /// `None` if no difficulty is.
    pub fn from_work(work: Work) -> Option<Difficulty> {
        if work.0.is_multiple_of(UNITS_PER_DIFFICULTY) {
            let whole = u64::try_from(work.0 / UNITS_PER_DIFFICULTY).ok()?;
            return (whole > 0).then_some(Difficulty(Kind::Whole(whole)));
        }
        let is_fraction = work.0.is_power_of_two() && work.0 < UNITS_PER_DIFFICULTY;
        let exponent = UNITS_PER_DIFFICULTY.ilog2().saturating_sub(work.0.ilog2());
        is_fraction.then_some(Difficulty(Kind::Fraction { exponent }))
    }

    /// The difficulty as a number, for display only.
    pub fn as_f64(&self) -> f64 {
        self.work().0 as f64 / UNITS_PER_DIFFICULTY as f64
    }

    /// The difficulty at which `hashrate` (hashes a second) gives `shares_per_minute`.
    pub fn for_hashrate(hashrate: f64, shares_per_minute: f64) -> Difficulty {
        let hashes_per_share = hashrate * 60.0 / shares_per_minute;
        Difficulty::at_most(hashes_per_share / UNITS_PER_DIFFICULTY as f64)
    }

    /// The harder of the two.
    pub fn harder(self, other: Difficulty) -> Difficulty {
        if other.work() > self.work() { other } else { self }
    }
}

/// Credited work, exact: one unit is 2^-32 of difficulty 1, about one hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Work(
    /// Units of 2^-32 difficulty.
    pub u128,
);

impl Work {
    /// No work.
    pub const ZERO: Work = Work(0);

    /// Whole difficulties in it, and the rest that carries over to the next sum.
    pub fn split_whole(self) -> (u64, Work) {
        let whole = u64::try_from(self.0 / UNITS_PER_DIFFICULTY).unwrap_or(u64::MAX);
        (whole, Work(self.0 - u128::from(whole) * UNITS_PER_DIFFICULTY))
    }
}

impl Add for Work {
    type Output = Work;
    fn add(self, other: Work) -> Work {
        Work(self.0 + other.0)
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.0 += other.0;
    }
}

impl Sub for Work {
    type Output = Work;
    fn sub(self, other: Work) -> Work {
        Work(self.0 - other.0)
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Work>>(works: I) -> Work {
        works.fold(Work::ZERO, Add::add)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// As a decimal string: 128 bits do not fit a JSON number.
impl Serialize for Work {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Work {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Work).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_and_targets() {
        assert_eq!(Difficulty::at_most(1.0).target(), Target::DIFFICULTY_1);
        assert_eq!(Difficulty::at_most(1000.9).as_f64(), 1000.0);
        assert_eq!(Difficulty::at_most(0.7).as_f64(), 0.5);
        assert_eq!(Difficulty::at_most(0.5).as_f64(), 0.5);
        assert_eq!(Difficulty::at_most(0.0), Difficulty::EASIEST);
        assert_eq!(Difficulty::at_most(f64::NAN), Difficulty::EASIEST);
        assert_eq!(Difficulty::at_most(f64::INFINITY).as_f64(), u64::MAX as f64);
        assert_eq!(Difficulty::at_least_for(Target::ZERO), None);
        assert_eq!(Difficulty::at_least_for(Target::MAX), Some(Difficulty::EASIEST));
        assert_eq!(Difficulty::at_least_for(Target::DIFFICULTY_1), Some(Difficulty::ONE));
    }

    #[test]
    fn work_tells_its_difficulty() {
        for value in [0.0, 0.001, 0.5, 1.0, 3.0, 1e15, 1e18, f64::INFINITY] {
            let difficulty = Difficulty::at_most(value);
            assert_eq!(Difficulty::from_work(difficulty.work()), Some(difficulty));
        }
        for units in [0, 3, (1 << 32) + 1, 3 << 31, 1 << 96, u128::MAX] {
            assert_eq!(Difficulty::from_work(Work(units)), None, "{units}");
        }
    }

    #[test]
    fn sums_carry_their_rest() {
        let half = Difficulty::at_most(0.5).work();
        let sum: Work = [half, half, half].into_iter().sum();
        let (whole, rest) = sum.split_whole();
        assert_eq!((whole, rest), (1, half));
        assert_eq!((rest + half).split_whole(), (1, Work::ZERO));
    }

    #[test]
    fn hashrates_do_not_overflow() {
        for rate in [0.0, 1e-30, 1.0, 1e12, 1e20, f64::from(f32::MAX)] {
            let target = Difficulty::for_hashrate(rate, 6.0).target();
            assert!(target.0 > U256::ZERO, "{rate}");
        }
    }

    proptest! {
        #[test]
        fn never_easier_than_asked(limbs in any::<[u8; 32]>()) {
            let max = Target::from_le_bytes(limbs);
            if let Some(difficulty) = Difficulty::at_least_for(max) {
                prop_assert!(difficulty.target() <= max);
            }
        }
    }
}
