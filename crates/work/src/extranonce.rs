//! Extranonce prefixes: no two live channels, on any core of any gateway, before or after a
//! restart, can hash the same coinbase (D23).
//!
//! Layout, 8 bytes, big-endian: `instance U16 | epoch U16 | shard U8 | counter U24`. The epoch is
//! kept on disk and raised before listening, so a restart repeats nothing; shards never ask each
//! other.
//!
//! Every coinbase of one gateway has a hole of one length (D37): the prefix and what extended
//! channels may roll. A [`Grant`] cuts the hole between the two sides.

use std::collections::VecDeque;

use arrayvec::ArrayVec;

/// Bytes of a prefix.
pub const EXTRANONCE_PREFIX_BYTES: usize = 8;

/// Values of the counter.
pub const PREFIXES_PER_SHARD: u32 = 1 << 24;

/// Tips that must pass before a freed prefix is given again: as long as any share under it
/// could still count (D24 keeps eight).
pub const PREFIX_REST_TIPS: u64 = 8;

/// Bytes of the whole extranonce at the most: the wire gives a prefix no more (B0_32).
pub const EXTRANONCE_BYTES_MAX: usize = 32;

/// Rollable bytes granted to whoever asks for no more: SV1 firmware behind proxies cannot take
/// a longer extranonce2.
pub const GRANT_BYTES_USUAL: u16 = 8;

/// A prefix in its eight bytes.
pub type ExtranoncePrefix = [u8; EXTRANONCE_PREFIX_BYTES];

/// Gives out the prefixes of one shard.
#[derive(Debug)]
pub struct PrefixAllocator {
    instance: u16,
    epoch: u16,
    shard: u8,
    next: u32,
    live: u32,
    /// Freed counters with the tip number at which they were freed, oldest first.
    resting: VecDeque<(u64, u32)>,
    /// Freed counters that need no rest.
    unused: Vec<u32>,
}

impl PrefixAllocator {
    /// All prefixes of `shard` in this `epoch` of this `instance`.
    pub fn new(instance: u16, epoch: u16, shard: u8) -> PrefixAllocator {
        PrefixAllocator {
            instance,
            epoch,
            shard,
            next: 0,
            live: 0,
            resting: VecDeque::new(),
            unused: Vec::new(),
        }
    }

    /// A prefix that no live channel holds, or `None` if all are held or resting. `tip_number`
    /// counts the tips this shard has seen.
    pub fn allocate(&mut self, tip_number: u64) -> Option<ExtranoncePrefix> {
        let counter = match self.resting.front() {
            _ if !self.unused.is_empty() => self.unused.pop()?,
            Some((freed_at, counter)) if freed_at + PREFIX_REST_TIPS <= tip_number => {
                let counter = *counter;
                self.resting.pop_front();
                counter
            }
            _ if self.next < PREFIXES_PER_SHARD => {
                self.next += 1;
                self.next - 1
            }
            _ => return None,
        };
        self.live += 1;
        Some(self.layout(counter))
    }

    /// Take back a prefix that a channel held.
    pub fn free(&mut self, prefix: ExtranoncePrefix, tip_number: u64) {
        let counter = u32::from_be_bytes([0, prefix[5], prefix[6], prefix[7]]);
        self.live = self.live.saturating_sub(1);
        self.resting.push_back((tip_number, counter));
    }

    /// Take back a prefix under which nothing was credited: it need not rest.
    pub fn give_back(&mut self, prefix: ExtranoncePrefix) {
        let counter = u32::from_be_bytes([0, prefix[5], prefix[6], prefix[7]]);
        self.live = self.live.saturating_sub(1);
        self.unused.push(counter);
    }

    /// Prefixes held by channels now.
    pub fn live(&self) -> u32 {
        self.live
    }

    fn layout(&self, counter: u32) -> ExtranoncePrefix {
        let [i0, i1] = self.instance.to_be_bytes();
        let [e0, e1] = self.epoch.to_be_bytes();
        let [_, c0, c1, c2] = counter.to_be_bytes();
        [i0, i1, e0, e1, self.shard, c0, c1, c2]
    }
}

/// How the whole extranonce of a channel is cut: what the gateway fixes, then what the miner
/// rolls. The two make the whole length whatever the miner asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The channel's own eight bytes, then zeros as padding.
    pub extranonce_prefix: ArrayVec<u8, EXTRANONCE_BYTES_MAX>,
    /// Bytes the miner rolls behind the prefix.
    pub extranonce_size: u16,
}

impl Grant {
    /// The cut for an extended channel that holds `prefix` and asked for at least
    /// `min_extranonce_size` rollable bytes, where the whole extranonce has `full_bytes` bytes.
    ///
    /// Granted is what was asked for and at least [`GRANT_BYTES_USUAL`], never more than there
    /// is; the rest is padding on the prefix side. `None` if more was asked for than there is,
    /// or `full_bytes` is not between the prefix's 8 and [`EXTRANONCE_BYTES_MAX`].
    pub fn for_extended(
        prefix: ExtranoncePrefix,
        full_bytes: usize,
        min_extranonce_size: u16,
    ) -> Option<Grant> {
        let rollable = full_bytes.checked_sub(EXTRANONCE_PREFIX_BYTES)?;
        let rollable = u16::try_from(rollable).ok()?;
        if min_extranonce_size > rollable {
            return None;
        }
        let extranonce_size = min_extranonce_size.max(GRANT_BYTES_USUAL).min(rollable);
        Grant::cut(prefix, full_bytes, extranonce_size)
    }

    /// The cut for a standard channel that holds `prefix`: all is fixed, nothing rolls. `None`
    /// if `full_bytes` is not between the prefix's 8 and [`EXTRANONCE_BYTES_MAX`].
    pub fn for_standard(prefix: ExtranoncePrefix, full_bytes: usize) -> Option<Grant> {
        Grant::cut(prefix, full_bytes, 0)
    }

    fn cut(prefix: ExtranoncePrefix, full_bytes: usize, extranonce_size: u16) -> Option<Grant> {
        let fixed = full_bytes.checked_sub(usize::from(extranonce_size))?;
        let padding = fixed.checked_sub(prefix.len())?;
        if full_bytes > EXTRANONCE_BYTES_MAX {
            return None;
        }
        let mut extranonce_prefix = ArrayVec::from_iter(prefix);
        extranonce_prefix.extend(std::iter::repeat_n(0, padding));
        Some(Grant { extranonce_prefix, extranonce_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const PREFIX: ExtranoncePrefix = [1, 2, 3, 4, 5, 6, 7, 8];

    /// Conformance 37, 39, 40: at least what was asked for, at most 8 for whoever asks for no
    /// more than 8, and one length for all.
    #[test]
    fn grants() {
        let check = |full: usize, asked: u16, granted: Option<u16>| {
            let grant = Grant::for_extended(PREFIX, full, asked);
            assert_eq!(
                grant.as_ref().map(|grant| grant.extranonce_size),
                granted,
                "{full} {asked}"
            );
            if let Some(grant) = grant {
                let bytes = grant.extranonce_prefix.len() + usize::from(grant.extranonce_size);
                assert_eq!(bytes, full);
                assert!(grant.extranonce_prefix.starts_with(&PREFIX));
                assert!(grant.extranonce_prefix[8..].iter().all(|byte| *byte == 0));
            }
        };
        for (full, asked, granted) in [
            (16, 0, 8),
            (16, 2, 8),
            (16, 8, 8),
            (12, 0, 4),
            (12, 4, 4),
            (24, 0, 8),
            (24, 8, 8),
            (24, 9, 9),
            (24, 16, 16),
            (32, 24, 24),
            (8, 0, 0),
        ] {
            check(full, asked, Some(granted));
        }
        for (full, asked) in
            [(16, 9), (12, 5), (24, 17), (24, u16::MAX), (8, 1), (7, 0), (0, 0), (33, 8), (33, 0)]
        {
            check(full, asked, None);
        }
        let standard = Grant::for_standard(PREFIX, 20).unwrap();
        assert_eq!((standard.extranonce_prefix.len(), standard.extranonce_size), (20, 0));
        assert!(standard.extranonce_prefix.starts_with(&PREFIX));
        assert_eq!(Grant::for_standard(PREFIX, 7), None);
        assert_eq!(Grant::for_standard(PREFIX, 33), None);
    }

    /// The grants under one prefix: an extended channel's for each asked size, a standard one's.
    fn grant(prefix: ExtranoncePrefix, full: usize, asked: Option<u16>) -> Option<Grant> {
        match asked {
            Some(asked) => Grant::for_extended(prefix, full, asked),
            None => Grant::for_standard(prefix, full),
        }
    }

    proptest! {
        /// Conformance 38, as far as bytes tell: under different prefixes no two miners, of any
        /// kind and whatever they roll, can reach the same whole extranonce.
        #[test]
        fn different_prefixes_never_meet(
            (one, other) in (any::<ExtranoncePrefix>(), any::<ExtranoncePrefix>(), 0usize..64)
                .prop_map(|(one, other, bit)| {
                    // Half of the cases differ by a single bit, where a mistake would show.
                    let mut near = one;
                    near[bit / 8] ^= 1 << (bit % 8);
                    (one, if bit % 2 == 0 { near } else { other })
                }),
            full in 8usize..=32,
            asked in prop::array::uniform2(prop::option::of(0u16..=24)),
            rolled in any::<[u8; 32]>(),
        ) {
            prop_assume!(one != other);
            let whole = |prefix, asked| {
                grant(prefix, full, asked).map(|grant| {
                    let rolled = &rolled[..usize::from(grant.extranonce_size)];
                    [grant.extranonce_prefix.as_slice(), rolled].concat()
                })
            };
            if let (Some(one), Some(other)) = (whole(one, asked[0]), whole(other, asked[1])) {
                prop_assert_eq!((one.len(), other.len()), (full, full));
                prop_assert_ne!(one, other);
            }
        }
    }

    #[test]
    fn the_layout() {
        let mut prefixes = PrefixAllocator::new(0x0102, 0x0304, 5);
        assert_eq!(prefixes.allocate(0), Some([1, 2, 3, 4, 5, 0, 0, 0]));
        assert_eq!(prefixes.allocate(0), Some([1, 2, 3, 4, 5, 0, 0, 1]));
    }

    proptest! {
        /// Whatever comes and goes, no two live prefixes are equal, and none comes back early.
        #[test]
        fn never_twice(steps in prop::collection::vec((any::<bool>(), 0u64..3), 1..400)) {
            let mut prefixes = PrefixAllocator::new(1, 1, 0);
            let (mut live, mut freed, mut tip) = (Vec::new(), Vec::new(), 0);
            for (open, tips) in steps {
                tip += tips;
                if open || live.is_empty() {
                    let prefix = prefixes.allocate(tip).unwrap();
                    prop_assert!(!live.contains(&prefix));
                    let rests = |at: u64| tip < at + PREFIX_REST_TIPS;
                    prop_assert!(!freed.iter().any(|(at, p)| *p == prefix && rests(*at)));
                    live.push(prefix);
                } else {
                    let prefix = live.remove(0);
                    prefixes.free(prefix, tip);
                    freed.push((tip, prefix));
                }
            }
            prop_assert_eq!(live.iter().collect::<HashSet<_>>().len(), live.len());
            prop_assert_eq!(prefixes.live() as usize, live.len());
        }
    }
}
