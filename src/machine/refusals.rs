//! What is told of refused shares and of connections: how much of it, and where it waits.
//!
//! Every refused share is told, the first [`REFUSALS_PER_SECOND`] of a channel's second one by one
//! and the rest of that second as one report with their number (D31). So a flood costs a channel
//! eleven reports a second, whatever it sends. That one report goes out with the next refusal in a
//! later second, with the periodic look at all connections, or when the channel ends.
//!
//! Reports may be lost, and are counted then; they take nothing that accepted shares need.

use std::collections::VecDeque;
use std::sync::Arc;

use work::{BlockHash, Mono, Now, UnixTime};

use super::output::{ChannelKey, ConnectionId, Refused, Report};
use crate::limits::{CONNECTION_REPORTS_PER_SECOND, REFUSALS_PER_SECOND, REPORTS_WAITING_MAX};
use crate::metrics::{Counters, shard as counter};
use crate::reason::Reason;

/// A refused share without its sender, or several of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Channel as the miner named it.
    pub channel_id: u32,
    /// The miner's own number.
    pub sequence_number: u32,
    /// Job as the miner named it.
    pub job_id: u32,
    /// Why.
    pub reason: Reason,
    /// Hash of the header, if one could be built; `None` of several.
    pub share_hash: Option<BlockHash>,
    /// When it came.
    pub at: UnixTime,
    /// How many shares this stands for; the other fields are the last one's.
    pub count: u32,
}

/// Who sent refused shares.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The connection.
    pub connection: ConnectionId,
    /// The channel and who is credited for it, if it is open.
    pub channel: Option<(ChannelKey, Arc<str>)>,
}

impl Sent {
    /// What is told of a refusal.
    fn refused(self, refusal: &Refusal) -> Report {
        let (channel, miner_id) = self.channel.unzip();
        Report::Refused(Refused {
            channel,
            connection: self.connection,
            channel_id: refusal.channel_id,
            sequence_number: refusal.sequence_number,
            job_id: refusal.job_id,
            reason: refusal.reason,
            share_hash: refusal.share_hash,
            at: refusal.at,
            count: refusal.count,
            miner_id,
        })
    }
}

/// The refused shares of one channel in the current second.
#[derive(Debug, Default)]
pub struct RefusalMeter {
    /// Which second, by the monotonic clock.
    second: u64,
    /// Told one by one in it.
    told: u32,
    /// Not told so far.
    held: Option<Held>,
}

/// Several refused shares. Smaller than a [`Refusal`]: every channel has room for one.
#[derive(Debug, Clone, Copy)]
struct Held {
    at: UnixTime,
    channel_id: u32,
    sequence_number: u32,
    job_id: u32,
    count: u32,
    reason: Reason,
}

impl Held {
    fn refusal(&self) -> Refusal {
        Refusal {
            channel_id: self.channel_id,
            sequence_number: self.sequence_number,
            job_id: self.job_id,
            reason: self.reason,
            share_hash: None,
            at: self.at,
            count: self.count,
        }
    }
}

impl RefusalMeter {
    /// One share was refused. What is to be told now: shares of an earlier second, and this one.
    pub fn on_refused(&mut self, now: Mono, refusal: Refusal) -> [Option<Refusal>; 2] {
        let earlier = self.on_sweep(now);
        let second = second_of(now);
        if second != self.second {
            (self.second, self.told) = (second, 0);
        }
        if self.told < REFUSALS_PER_SECOND {
            self.told += 1;
            return [earlier, Some(refusal)];
        }
        let count = self.held.map_or(0, |held| held.count).saturating_add(refusal.count);
        self.held = Some(Held {
            at: refusal.at,
            channel_id: refusal.channel_id,
            sequence_number: refusal.sequence_number,
            job_id: refusal.job_id,
            count,
            reason: refusal.reason,
        });
        [earlier, None]
    }

    /// Time has passed: what is to be told of a second that is over.
    pub fn on_sweep(&mut self, now: Mono) -> Option<Refusal> {
        if second_of(now) == self.second {
            return None;
        }
        self.finish()
    }

    /// No share follows: what is still to be told.
    pub fn finish(&mut self) -> Option<Refusal> {
        self.held.take().map(|held| held.refusal())
    }

    /// Whether something is held back.
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }
}

fn second_of(now: Mono) -> u64 {
    now.0 / 1_000_000
}

/// Reports of one shard between a step and its driver.
#[derive(Debug)]
pub struct Reports {
    waiting: VecDeque<Report>,
    /// Which second, by the monotonic clock, and reports about connections in it.
    connections: (u64, u32),
}

impl Default for Reports {
    fn default() -> Self {
        Reports { waiting: VecDeque::with_capacity(REPORTS_WAITING_MAX), connections: (0, 0) }
    }
}

impl Reports {
    /// Tell a report, if there is room.
    pub fn push(&mut self, report: Report, counters: &mut Counters<{ counter::CELLS }>) {
        if self.waiting.len() == REPORTS_WAITING_MAX {
            return on_lost(&report, counters);
        }
        self.waiting.push_back(report);
    }

    /// Tell what is due of refused shares.
    pub fn push_refusals(
        &mut self,
        due: impl IntoIterator<Item = Refusal>,
        sent: impl Fn() -> Sent,
        counters: &mut Counters<{ counter::CELLS }>,
    ) {
        for refusal in due {
            self.push(sent().refused(&refusal), counters);
        }
    }

    /// Tell a report about a connection; whether it is not one too many in this second.
    pub fn push_connection(
        &mut self,
        now: Now,
        report: Report,
        counters: &mut Counters<{ counter::CELLS }>,
    ) -> bool {
        let second = second_of(now.mono);
        if self.connections.0 != second {
            self.connections = (second, 0);
        }
        if self.connections.1 == CONNECTION_REPORTS_PER_SECOND {
            on_lost(&report, counters);
            return false;
        }
        self.connections.1 += 1;
        self.push(report, counters);
        true
    }

    /// The oldest report, for the driver.
    pub fn pop(&mut self) -> Option<Report> {
        self.waiting.pop_front()
    }
}

/// A report found no room.
pub fn on_lost(report: &Report, counters: &mut Counters<{ counter::CELLS }>) {
    match report {
        Report::Refused(refused) => {
            counters.add(counter::REFUSALS_UNRECORDED, u64::from(refused.count));
        }
        _ => counters.add(counter::EVENTS_UNRECORDED, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(sequence_number: u32, reason: Reason) -> Refusal {
        Refusal {
            channel_id: 2,
            sequence_number,
            job_id: 7,
            reason,
            share_hash: Some(BlockHash([9; 32])),
            at: UnixTime(u64::from(sequence_number)),
            count: 1,
        }
    }

    fn connection() -> Sent {
        Sent { connection: ConnectionId(5), channel: None }
    }

    #[test]
    fn ten_of_a_second_are_told_one_by_one_and_the_rest_as_one() {
        let mut meter = RefusalMeter::default();
        let mut told = Vec::new();
        for number in 0..100 {
            let now = Mono(3_000_000 + u64::from(number) * 1_000);
            let due = meter.on_refused(now, refusal(number, Reason::DuplicateNonce));
            told.extend(due.into_iter().flatten());
        }
        assert_eq!(told.len(), REFUSALS_PER_SECOND as usize);
        assert!(told.iter().all(|one| one.count == 1 && one.share_hash.is_some()));
        assert!(meter.is_holding());
        assert_eq!(meter.on_sweep(Mono(3_999_999)), None, "its second is not over");
        let last = Refusal { share_hash: None, count: 90, ..refusal(99, Reason::DuplicateNonce) };
        assert_eq!(meter.on_sweep(Mono(4_000_000)), Some(last));
        assert_eq!(meter.on_sweep(Mono(5_000_000)), None, "told once");
        assert_eq!(meter.finish(), None);
    }

    #[test]
    fn a_later_second_tells_what_is_held_first_and_begins_anew() {
        let mut meter = RefusalMeter::default();
        for number in 0..12 {
            meter.on_refused(Mono(1), refusal(number, Reason::DuplicateNonce));
        }
        let [earlier, own] = meter.on_refused(Mono(1_000_000), refusal(12, Reason::InvalidJobId));
        let held = Refusal { share_hash: None, count: 2, ..refusal(11, Reason::DuplicateNonce) };
        assert_eq!(earlier, Some(held));
        assert_eq!(own, Some(refusal(12, Reason::InvalidJobId)));
        let mut told = 1;
        for number in 13..40 {
            let due = meter.on_refused(Mono(1_999_999), refusal(number, Reason::InvalidJobId));
            told += due.into_iter().flatten().count();
        }
        assert_eq!(told, REFUSALS_PER_SECOND as usize);
        assert_eq!(meter.finish().map(|held| held.count), Some(18), "at the end of the channel");
        assert!(!meter.is_holding());
    }

    #[test]
    fn no_share_is_told_twice_or_not_at_all() {
        let mut meter = RefusalMeter::default();
        let mut told = 0;
        let mut now = Mono(0);
        for number in 0..5_000u32 {
            now = Mono(now.0 + u64::from(number.wrapping_mul(2_654_435_761) % 70_000));
            let due = meter.on_refused(now, refusal(number, Reason::StaleShare));
            told += due.into_iter().flatten().map(|one| u64::from(one.count)).sum::<u64>();
        }
        told += meter.finish().map_or(0, |held| u64::from(held.count));
        assert_eq!(told, 5_000);
    }

    #[test]
    fn a_full_queue_counts_shares_and_events() {
        let mut counters = Counters::default();
        let mut reports = Reports::default();
        let due = (0..REPORTS_WAITING_MAX as u32).map(|n| refusal(n, Reason::StaleShare));
        reports.push_refusals(due, connection, &mut counters);
        assert_eq!(counters.read(counter::REFUSALS_UNRECORDED), 0);
        let many = Refusal { count: 7, ..refusal(0, Reason::StaleShare) };
        reports.push_refusals([many], connection, &mut counters);
        assert_eq!(counters.read(counter::REFUSALS_UNRECORDED), 7);
        let mut left = 0;
        while reports.pop().is_some() {
            left += 1;
        }
        assert_eq!(left, REPORTS_WAITING_MAX);
    }

    #[test]
    fn connections_have_a_bound_of_a_second() {
        let mut counters = Counters::default();
        let mut reports = Reports::default();
        let closed = Report::ConnectionClosed {
            connection: ConnectionId(5),
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            reason_code: "drain",
            at: UnixTime(1),
        };
        let mut tell = |micros| {
            let now = Now { mono: Mono(micros), unix: UnixTime(1) };
            reports.push_connection(now, closed.clone(), &mut counters)
        };
        let told = (0..1_000).filter(|_| tell(1)).count();
        assert_eq!(told, CONNECTION_REPORTS_PER_SECOND as usize);
        assert!(tell(1_000_000), "a new second");
        let lost = 1_000 - u64::from(CONNECTION_REPORTS_PER_SECOND);
        assert_eq!(counters.read(counter::EVENTS_UNRECORDED), lost);
    }
}
