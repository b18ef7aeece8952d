//! What of the journal must be kept, and where the next start may begin to read.
//!
//! A segment goes when it is older than `share_retention_days` and every share in it is settled by
//! results that are on disk.

use std::collections::VecDeque;

use journal::writer::SealedSegment;
use work::{Mono, UnixTime};

use crate::limits::CHECKPOINT_MILLIS;

/// Milliseconds of a day.
const DAY_MILLIS: u64 = 86_400_000;

/// What a checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Low {
    /// Every share below this event is settled or a dead letter.
    pub settled_below: u64,
    /// Event of the oldest dead letter.
    pub oldest_dead: u64,
}

impl Low {
    /// Nothing below this event is needed to settle a share.
    fn needed_from(self) -> u64 {
        self.settled_below.min(self.oldest_dead)
    }
}

/// Retention and checkpoints.
#[derive(Debug)]
pub struct Keep {
    /// 0: for ever.
    retention_days: u64,
    last: Option<Low>,
    look_at: Mono,
    /// Checkpoints that are not on disk, each with the event behind it.
    waiting: VecDeque<(u64, Low)>,
    /// What the newest checkpoint on disk says.
    durable: Option<Low>,
}

impl Keep {
    /// Keep for so many days; 0: for ever.
    pub fn new(retention_days: u64) -> Keep {
        Keep {
            retention_days,
            last: None,
            look_at: Mono::default(),
            waiting: VecDeque::new(),
            durable: None,
        }
    }

    /// Whether it is time to see if a checkpoint is due.
    pub fn is_time(&self, now: Mono) -> bool {
        now >= self.look_at
    }

    /// When it is time.
    pub fn deadline(&self) -> Mono {
        self.look_at
    }

    /// Whether a checkpoint is due: something has changed. `next_event` is the number that the
    /// next event will have.
    pub fn is_due(&mut self, now: Mono, next_event: u64, low: Low) -> bool {
        self.look_at = now.plus_millis(CHECKPOINT_MILLIS);
        let is_due = self.last != Some(low);
        if is_due {
            self.last = Some(low);
            self.waiting.push_back((next_event, low));
        }
        is_due
    }

    /// Everything below this event is on disk.
    pub fn on_durable(&mut self, event: u64) {
        while self.waiting.front().is_some_and(|(behind, _)| *behind < event) {
            self.durable = self.waiting.pop_front().map(|(_, low)| low);
        }
    }

    /// Whether a complete segment may go.
    pub fn may_go(&self, now: UnixTime, segment: &SealedSegment) -> bool {
        let age = self.retention_days.saturating_mul(DAY_MILLIS);
        let is_old = now.0 > segment.last_at.0.saturating_add(age);
        let needed = self.durable.map_or(0, Low::needed_from);
        self.retention_days > 0 && is_old && segment.next_event_id <= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SealedSegment = SealedSegment {
        segment: 3,
        first_event_id: 10,
        next_event_id: 100,
        last_at: UnixTime(0),
        bytes: 4_096,
    };

    fn days(days: u64) -> UnixTime {
        UnixTime(days * DAY_MILLIS + 1)
    }

    #[test]
    fn a_segment_goes_when_it_is_old_and_settled_on_disk() {
        let low = Low { settled_below: 100, oldest_dead: u64::MAX };
        let mut keep = Keep::new(30);
        assert!(keep.is_time(Mono(0)) && keep.is_due(Mono(0), 150, low));
        assert!(!keep.is_time(Mono(1)) && !keep.is_due(Mono(1), 151, low), "nothing changed");
        assert!(!keep.may_go(days(30), &SEGMENT), "the checkpoint is not on disk");
        keep.on_durable(150);
        assert!(!keep.may_go(days(30), &SEGMENT), "it may be in the next write");
        keep.on_durable(151);
        assert!(!keep.may_go(days(29), &SEGMENT), "too young");
        assert!(keep.may_go(days(30), &SEGMENT));
        assert!(!keep.may_go(days(30), &SealedSegment { next_event_id: 101, ..SEGMENT }));
        let mut keep = Keep::new(0);
        keep.is_due(Mono(0), 1, low);
        keep.on_durable(2);
        assert!(!keep.may_go(UnixTime(u64::MAX), &SEGMENT), "for ever");
    }

    #[test]
    fn dead_letters_and_open_shares_hold_their_segment() {
        for low in [
            Low { settled_below: 99, oldest_dead: u64::MAX },
            Low { settled_below: 500, oldest_dead: 12 },
        ] {
            let mut keep = Keep::new(1);
            keep.is_due(Mono(0), 150, low);
            keep.on_durable(1_000);
            assert!(!keep.may_go(UnixTime(u64::MAX), &SEGMENT));
        }
    }
}
