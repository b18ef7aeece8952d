//! What the disk's free space allows: everything, a trickle, or nothing.
//!
//! Below the first floor entries are taken from the rings at intervals only. The rings fill, shards
//! stop reading, and miners are slowed. Below the second nothing is taken, and after a second
//! without credit shards answer `upstream-unavailable` (D19). What is left then is for the results
//! of shares that are delivered, and for blocks.

use work::Mono;

use crate::limits::{FREE_BYTES_FULL, FREE_BYTES_SLOW, SLOW_TAKE_MILLIS};

/// How much may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Whatever comes.
    #[default]
    Free,
    /// A turn's worth at intervals.
    Slow,
    /// Nothing.
    Full,
}

/// The space.
#[derive(Debug, Default)]
pub struct Space {
    level: Level,
    free: u64,
    /// When entries may be taken again at [`Level::Slow`].
    next: Mono,
}

impl Space {
    /// So many bytes are free.
    pub fn on_free(&mut self, free: u64) {
        self.free = free;
        self.level = match free {
            0..FREE_BYTES_FULL => Level::Full,
            FREE_BYTES_FULL..FREE_BYTES_SLOW => Level::Slow,
            _ => Level::Free,
        };
    }

    /// Bytes that were free at the last look.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// How much may be taken.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether entries may be taken in this turn.
    pub fn lets_take(&mut self, now: Mono) -> bool {
        match self.level {
            Level::Free => true,
            Level::Full => false,
            Level::Slow => {
                let is_time = now >= self.next;
                if is_time {
                    self.next = now.plus_millis(SLOW_TAKE_MILLIS);
                }
                is_time
            }
        }
    }

    /// When entries may be taken again.
    pub fn deadline(&self) -> Option<Mono> {
        (self.level == Level::Slow).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_floors() {
        let mut space = Space::default();
        assert!(space.lets_take(Mono(0)));
        space.on_free(FREE_BYTES_SLOW - 1);
        assert_eq!(space.level(), Level::Slow);
        assert!(space.lets_take(Mono(1)) && !space.lets_take(Mono(2)));
        assert!(space.lets_take(space.deadline().unwrap()));
        space.on_free(FREE_BYTES_FULL - 1);
        assert!(!space.lets_take(Mono(u64::MAX)) && space.deadline().is_none());
        space.on_free(FREE_BYTES_SLOW);
        assert_eq!(space.level(), Level::Free);
    }
}
