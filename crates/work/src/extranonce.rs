//! Extranonce prefixes: no two live channels, on any core of any gateway, before or after a
//! restart, can hash the same coinbase (D23).
//!
//! Layout, 8 bytes, big-endian: `instance U16 | epoch U16 | shard U8 | counter U24`. The epoch is
//! kept on disk and raised before listening, so a restart repeats nothing; shards never ask each
//! other.

use std::collections::VecDeque;

/// Bytes of a prefix.
pub const EXTRANONCE_PREFIX_BYTES: usize = 8;

/// Values of the counter.
pub const PREFIXES_PER_SHARD: u32 = 1 << 24;

/// Tips that must pass before a freed prefix is given again: as long as any share under it
/// could still count (D24 keeps eight).
pub const PREFIX_REST_TIPS: u64 = 8;

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
}

impl PrefixAllocator {
    /// All prefixes of `shard` in this `epoch` of this `instance`.
    pub fn new(instance: u16, epoch: u16, shard: u8) -> PrefixAllocator {
        PrefixAllocator { instance, epoch, shard, next: 0, live: 0, resting: VecDeque::new() }
    }

    /// A prefix that no live channel holds, or `None` if all are held or resting. `tip_number`
    /// counts the tips this shard has seen.
    pub fn allocate(&mut self, tip_number: u64) -> Option<ExtranoncePrefix> {
        let counter = match self.resting.front() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

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
