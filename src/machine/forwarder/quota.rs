//! How much of the journal may tell of what strangers can cause at will (D31): buckets of bytes of
//! their own, so that no flood of bad shares or connections takes the room of good shares.

use std::sync::Arc;

use journal::Refusal;
use work::Mono;

use crate::limits::{REFUSAL_REASONS_MAX, UNRECORDED_MILLIS};

/// Bytes of a record beside its texts, about.
const RECORD_BYTES: u64 = 120;

/// Bytes that the record of a refusal takes, about.
pub fn bytes_of(refusal: &Refusal) -> u64 {
    RECORD_BYTES + (refusal.miner_id.len() + refusal.reason_code.len()) as u64
}

/// The bucket.
#[derive(Debug)]
pub struct Quota {
    size: u64,
    /// Bytes by which it refills in a second.
    refill: u64,
    bytes: u64,
    at: Mono,
    /// Refused shares that found it empty, by reason code.
    unrecorded: Vec<(Arc<str>, u64)>,
    /// When they are told.
    due: Option<Mono>,
}

impl Quota {
    /// A full one of this size, which refills by so many bytes in a second.
    pub fn new(now: Mono, size: u64, refill: u64) -> Quota {
        Quota { size, refill, bytes: size, at: now, unrecorded: Vec::new(), due: None }
    }

    /// Take room for a record of `bytes`, or not.
    pub fn take(&mut self, now: Mono, bytes: u64) -> bool {
        let micros = now.micros_since(self.at);
        let refill = micros.saturating_mul(self.refill) / 1_000_000;
        if refill > 0 {
            self.bytes = self.bytes.saturating_add(refill).min(self.size);
            self.at = now;
        }
        let has_room = self.bytes >= bytes;
        if has_room {
            self.bytes -= bytes;
        }
        has_room
    }

    /// Count refused shares that found no room.
    pub fn leave_out(&mut self, now: Mono, reason_code: &str, count: u64) {
        let known = self.unrecorded.iter().position(|(code, _)| &**code == reason_code);
        if let Some(at) = known {
            self.unrecorded[at].1 += count;
        } else if self.unrecorded.len() < REFUSAL_REASONS_MAX {
            self.unrecorded.push((Arc::from(reason_code), count));
        }
        self.due.get_or_insert(now.plus_millis(UNRECORDED_MILLIS));
    }

    /// What is to be told of them now.
    pub fn take_unrecorded(&mut self, now: Mono) -> Option<Vec<(Arc<str>, u64)>> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.take_all()
    }

    /// The same, whether or not it is time.
    pub fn take_all(&mut self) -> Option<Vec<(Arc<str>, u64)>> {
        self.due.take()?;
        Some(std::mem::take(&mut self.unrecorded))
    }

    /// When there is something to tell.
    pub fn deadline(&self) -> Option<Mono> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 10_000;
    const REFILL: u64 = 4_096;

    #[test]
    fn a_flood_takes_its_quota_and_no_more() {
        let mut quota = Quota::new(Mono(0), SIZE, REFILL);
        let mut taken = 0;
        while quota.take(Mono(0), 100) {
            taken += 100;
        }
        assert!(taken <= SIZE && taken > SIZE - 100);
        quota.leave_out(Mono(0), "duplicate_nonce", 3);
        quota.leave_out(Mono(5), "duplicate_nonce", 4);
        assert_eq!(quota.take_unrecorded(Mono(5)), None);
        let due = quota.deadline().unwrap();
        assert_eq!(quota.take_unrecorded(due), Some(vec![(Arc::from("duplicate_nonce"), 7)]));
        assert!(quota.take_unrecorded(due).is_none() && quota.deadline().is_none());
        quota.leave_out(due, "duplicate_nonce", 1);
        assert_eq!(quota.take_unrecorded(due), None);
        assert_eq!(quota.take_all(), Some(vec![(Arc::from("duplicate_nonce"), 1)]));
        assert!(quota.take_all().is_none() && quota.deadline().is_none());
        let later = Mono(1_000_000);
        assert!(quota.take(later, REFILL / 2));
        assert!(!quota.take(later, REFILL));
    }
}
