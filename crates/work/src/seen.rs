//! Hashes of shares that were judged, so that none is credited twice (D24, D43).
//!
//! The key is the header hash alone, per channel and across its jobs. Entries are kept per tip:
//! one leaves only when its tip lies [`SEEN_TIPS`] tips back *and* `nonce_expire_secs` have
//! passed. Room is made ahead, when a job is given ([`Seen::make_room`]); inserting allocates
//! nothing.

use crate::hash::BlockHash;
use crate::now::Mono;

/// Tips for which hashes are kept: a chain that flips back finds its old shares (A, B, A).
pub const SEEN_TIPS: u32 = 8;

/// Entries for which there is room after [`Seen::make_room`], at the least.
pub const SEEN_ROOM_MIN: usize = 48;

/// Slots of one channel's table at the most: beyond it shares are refused, never forgotten.
pub const SEEN_SLOTS_MAX: usize = 1 << 20;

/// The low 64 bits of a hash: those above a target are all zero, these are as good as random.
/// Zero marks a free slot and is counted as one.
fn fingerprint(hash: &BlockHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
}

/// What became of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// It is new and now kept.
    New,
    /// It was here already.
    Duplicate,
    /// There is no room; it is not kept, and the share must not be credited.
    Full,
}

/// One channel's table of seen hashes: open addressing over two arrays.
#[derive(Debug, Default)]
pub struct Seen {
    slots: Box<[u64]>,
    /// Low byte of the tip number of each slot.
    tips: Box<[u8]>,
    used: usize,
}

/// The tips of a shard, as far as [`Seen`] needs them: when each number began.
#[derive(Debug, Clone)]
pub struct TipClock {
    number: u32,
    /// When the tip with number `n` ended, at `n % 256`.
    ended: Box<[Mono; 256]>,
    expire_micros: u64,
}

impl TipClock {
    /// Entries outlive their tips by at least `nonce_expire_secs`.
    pub fn new(nonce_expire_secs: u64) -> TipClock {
        TipClock {
            number: 0,
            ended: Box::new([Mono(0); 256]),
            expire_micros: nonce_expire_secs.saturating_mul(1_000_000),
        }
    }

    /// A new tip began.
    pub fn advance(&mut self, now: Mono) {
        self.ended[(self.number % 256) as usize] = now;
        self.number = self.number.wrapping_add(1);
    }

    /// Tips seen so far.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether entries of the tip whose number ends in `low` may go.
    fn is_expired(&self, low: u8, now: Mono) -> bool {
        let age = (self.number as u8).wrapping_sub(low);
        if u32::from(age) <= SEEN_TIPS {
            return false;
        }
        now.micros_since(self.ended[usize::from(low)]) > self.expire_micros
    }
}

impl Seen {
    /// Hashes kept.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.slots.len() * 9
    }

    /// Keep `hash` under the current tip of `clock`.
    pub fn insert(&mut self, hash: &BlockHash, clock: &TipClock) -> Insert {
        let key = fingerprint(hash);
        let Some(at) = self.find(key) else { return Insert::Full };
        if self.slots[at] == key {
            return Insert::Duplicate;
        }
        if self.free_room() == 0 {
            return Insert::Full;
        }
        self.slots[at] = key;
        self.tips[at] = clock.number as u8;
        self.used += 1;
        Insert::New
    }

    /// Whether `hash` is kept.
    pub fn contains(&self, hash: &BlockHash) -> bool {
        let key = fingerprint(hash);
        self.find(key).is_some_and(|at| self.slots[at] == key)
    }

    /// Make room for `room` more hashes, dropping what has expired; up to [`SEEN_SLOTS_MAX`]
    /// slots. Called when a job is given, never on the share path.
    pub fn make_room(&mut self, room: usize, clock: &TipClock, now: Mono) {
        let room = room.max(SEEN_ROOM_MIN);
        if self.free_room() >= room {
            return;
        }
        let keep: Vec<(u64, u8)> = self
            .slots
            .iter()
            .zip(self.tips.iter())
            .filter(|(key, low)| **key != 0 && !clock.is_expired(**low, now))
            .map(|(key, low)| (*key, *low))
            .collect();
        // Three quarters full at the most.
        let slots = ((keep.len() + room) * 4 / 3 + 1).next_power_of_two().min(SEEN_SLOTS_MAX);
        *self = Seen {
            slots: vec![0; slots].into_boxed_slice(),
            tips: vec![0; slots].into_boxed_slice(),
            used: keep.len(),
        };
        for (key, low) in keep {
            if let Some(at) = self.find(key) {
                self.slots[at] = key;
                self.tips[at] = low;
            }
        }
    }

    /// Inserts that will still succeed.
    pub fn free_room(&self) -> usize {
        (self.slots.len() * 3 / 4).saturating_sub(self.used)
    }

    /// The slot that holds `key`, or else the free one where it belongs; `None` without slots.
    fn find(&self, key: u64) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let start = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        (0..self.slots.len())
            .map(|step| (start + step) & mask)
            .find(|at| self.slots[*at] == key || self.slots[*at] == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn hash(number: u64) -> BlockHash {
        BlockHash(crate::hash::sha256d(&number.to_le_bytes()))
    }

    #[test]
    fn without_room_nothing_is_accepted() {
        let (mut seen, clock) = (Seen::default(), TipClock::new(60));
        assert_eq!(seen.insert(&hash(1), &clock), Insert::Full);
        seen.make_room(1, &clock, Mono(0));
        let room = seen.free_room();
        assert!(room >= SEEN_ROOM_MIN);
        for number in 0..room as u64 {
            assert_eq!(seen.insert(&hash(number), &clock), Insert::New);
        }
        assert_eq!(seen.insert(&hash(u64::MAX), &clock), Insert::Full);
        assert_eq!(seen.insert(&hash(0), &clock), Insert::Duplicate);
    }

    #[test]
    fn an_entry_outlives_eight_tips_and_the_expiry() {
        let (mut seen, mut clock) = (Seen::default(), TipClock::new(60));
        seen.make_room(1, &clock, Mono(0));
        seen.insert(&hash(1), &clock);
        for tip in 0..8 {
            clock.advance(Mono(tip));
        }
        seen.make_room(10_000, &clock, Mono(1 << 40));
        assert!(seen.contains(&hash(1)), "eight tips later it is still known");
        clock.advance(Mono(8));
        seen.make_room(20_000, &clock, Mono(59_000_000));
        assert!(seen.contains(&hash(1)), "before nonce_expire_secs it is still known");
        seen.make_room(40_000, &clock, Mono(61_000_000));
        assert!(!seen.contains(&hash(1)));
    }

    proptest! {
        /// Against a map that forgets nothing: no hash within its time is ever new twice.
        #[test]
        fn same_as_the_plain_map(
            steps in prop::collection::vec((0u64..200, any::<bool>(), 0u64..30_000_000), 1..600)
        ) {
            let (mut seen, mut clock, mut now) = (Seen::default(), TipClock::new(60), Mono(0));
            let mut model: HashMap<u64, u32> = HashMap::new();
            for (number, advance, passed) in steps {
                if advance {
                    now.0 += passed;
                    clock.advance(now);
                    seen.make_room(64, &clock, now);
                }
                let kept_at = model.get(&number).copied();
                match seen.insert(&hash(number), &clock) {
                    Insert::New => {
                        if let Some(at) = kept_at {
                            prop_assert!(clock.number() - at > SEEN_TIPS);
                        }
                        model.insert(number, clock.number());
                    }
                    Insert::Duplicate => prop_assert!(kept_at.is_some()),
                    Insert::Full => (),
                }
            }
        }
    }
}
