//! Targets, difficulties and hash rates against the reference's conversions.

use bitcoin::hashes::Hash as _;
use channels_sv2::merkle_root::merkle_root_from_path_;
use channels_sv2::target::{hash_rate_from_target, hash_rate_to_target};
use proptest::prelude::*;
use work::{Difficulty, MerkleNode, Target, Txid};

/// Shares a minute at which a share is one second's work.
const EVERY_SECOND: f64 = 60.0;

/// Exact below 2^53, then as near as a float comes.
fn as_f64(target: Target) -> f64 {
    let (high, low) = target.0.into_words();
    high as f64 * 2f64.powi(128) + low as f64
}

proptest! {
    /// The difficulty that is paid and the one the reference would pay are the same number.
    #[test]
    fn difficulty_of_a_target(value in prop_oneof![
        (0u32..=32).prop_map(|k| 0.5f64.powi(k.cast_signed())),
        (1u64..1 << 50).prop_map(|whole| whole as f64),
    ]) {
        let ours = Difficulty::at_most(value);
        let theirs = bitcoin::Target::from_le_bytes(ours.target().to_le_bytes()).difficulty_float();
        prop_assert_eq!(ours.as_f64(), value, "the value is of an allowed form");
        // A target is a whole number: difficulty 2^50 has 174 bits of it, far beyond a float's.
        prop_assert!((theirs / value - 1.0).abs() < 1e-12, "{} against {}", theirs, value);
    }

    /// Our first target for a hash rate is the reference's, rounded to a difficulty that can be
    /// summed exactly (D26): never harder than wanted, and less than half as hard never.
    #[test]
    fn target_of_a_hash_rate(rate in 1e1f64..1e21, shares_per_minute in 0.5f64..600.0) {
        let hashes = rate * 60.0 / shares_per_minute;
        prop_assume!((2.0..1e25).contains(&hashes));
        let ours = as_f64(Difficulty::for_hashrate(rate, shares_per_minute).target());
        let theirs = hash_rate_to_target(rate, shares_per_minute).unwrap();
        let theirs = as_f64(Target::from_le_bytes(theirs.to_le_bytes()));
        // Difficulty 1 is 0xffff of 0x10000 of 2^32 hashes; and hashes + 1 is not hashes.
        let least = theirs * (1.0 - 1.0 / 65_535.0);
        prop_assert!(least * (1.0 - 1e-9) <= ours, "{} against {}", ours, theirs);
        prop_assert!(ours <= 2.0 * theirs * (1.0 + 2.0 / hashes), "{} against {}", ours, theirs);
    }

    /// Hashes that are expected for a share, for targets between those whose hashes overflow the
    /// reference's 128 bits and those that overflow when it multiplies by a hundred.
    #[test]
    fn hashes_of_a_target(limbs in any::<[u8; 32]>(), bits in 140u32..=249) {
        let target = Target(Target::from_le_bytes(limbs).0 >> (256 - bits));
        prop_assume!((target.0 >> 130) != 0u128 && target != Target::MAX);
        let theirs = hash_rate_from_target(target.to_le_bytes().into(), EVERY_SECOND).unwrap();
        let ours = target.expected_hashes().as_u128() as f64;
        // Theirs draws without replacement, (2^256 - t) / (t + 1): one hash less than 2^256 / t.
        prop_assert!((ours - theirs).abs() <= 1.0 + ours * 1e-12, "{} against {}", ours, theirs);
    }

    /// Roots along any path.
    #[test]
    fn root_along_a_path(
        leaf in any::<[u8; 32]>(),
        path in prop::collection::vec(any::<[u8; 32]>(), 0..18),
    ) {
        let nodes: Vec<MerkleNode> = path.iter().copied().map(MerkleNode).collect();
        let theirs = merkle_root_from_path_(leaf, &path);
        prop_assert_eq!(work::merkle::root(Txid(leaf), &nodes).0, theirs);
    }

    /// Whether a hash meets a target, to the last bit and at equality.
    #[test]
    fn what_meets_a_target(nbits in any::<u32>(), hash in any::<[u8; 32]>(), step in -1i8..=1) {
        let Ok(target) = Target::from_nbits(nbits) else { return Ok(()) };
        let theirs = bitcoin::Target::from_le_bytes(target.to_le_bytes());
        let near = match step {
            -1 => target.0.saturating_sub(1u8.into()),
            0 => target.0,
            _ => target.0.saturating_add(1u8.into()),
        };
        for bytes in [hash, near.to_le_bytes()] {
            let theirs = theirs.is_met_by(bitcoin::BlockHash::from_byte_array(bytes));
            prop_assert_eq!(target.is_met_by(&work::BlockHash(bytes)), theirs);
        }
    }
}
