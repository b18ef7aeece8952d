//! From answers to results: each share gets exactly one, at delivery or by an operator (D28).

use std::sync::Arc;

use journal::record::{Attempt, Settled, Settlement};
use journal::{Outcome, Record};
use work::contract::shares::BATCH_SHARES_MAX;
use work::{Mono, Now};

use super::Forwarder;
use super::answer::{Fate, Given, Posted};
use super::flights::{Batch, Flight, OpenShare, backoff_millis};
use crate::limits::COMMAND_SHARES_MAX;
use crate::machine::command::Command;
use crate::metrics::forwarder as counter;

impl Forwarder {
    /// An attempt is over.
    pub fn on_posted(&mut self, now: Now, number: u64, posted: &Posted) {
        let Some(flight) = self.flights.take(number) else { return };
        self.count(posted);
        self.journal.append(now.unix, &attempt(&flight, posted));
        let seed = number;
        // Somebody may answer 409 to a batch of which it has only a part. To a batch that was never
        // posted before it cannot mean that a lost answer has settled it (D28).
        let is_known = flight.attempts > 1 || flight.batch.shares.len() == 1;
        let fate = match posted.fate() {
            Fate::Duplicate if !is_known => Fate::Split,
            fate => fate,
        };
        match fate {
            Fate::Settle | Fate::Duplicate => {
                if self.gate.on_answer() {
                    self.flights.hurry(now.mono);
                }
                self.settle(now, &flight, posted);
            }
            Fate::Split if flight.batch.shares.len() > 1 => {
                self.gate.on_answer();
                self.flights.split(&flight.batch);
            }
            Fate::Split if self.dead.has_room(1) => {
                self.gate.on_answer();
                self.give_up(now, &flight.batch, posted);
            }
            Fate::Retry if self.is_last(&flight) => {
                self.give_up(now, &flight.batch, posted);
            }
            Fate::Retry => {
                let (most, wait) = (self.settings.backoff_max_ms, posted.retry_after_ms);
                let millis = backoff_millis(seed, flight.attempts, most).max(wait.unwrap_or(0));
                self.counters.add(counter::RETRIES, 1);
                self.flights.put_back(flight, now.mono.plus_millis(millis));
                self.gate.on_failure(now.mono, seed, wait.unwrap_or(0), most);
            }
            // No room for a further dead letter is something an operator has to see, too.
            Fate::Pause | Fate::Split => {
                self.counters.add(counter::RETRIES, 1);
                self.flights.put_back(flight, Mono::default());
                let most = self.settings.backoff_max_ms;
                self.gate.on_wrong_answer(now.mono, posted.status, seed, most);
            }
        }
    }

    /// Whether a batch has had all its attempts, and its shares may become dead letters.
    fn is_last(&self, flight: &Flight) -> bool {
        let most = self.settings.attempts_max;
        most > 0
            && u64::from(flight.attempts) >= most
            && self.dead.has_room(flight.batch.shares.len())
    }

    fn count(&mut self, posted: &Posted) {
        let cell = match posted.status {
            0 => counter::POSTS_IO,
            200..300 => counter::POSTS_2XX,
            300..400 => counter::POSTS_3XX,
            400..500 => counter::POSTS_4XX,
            _ => counter::POSTS_5XX,
        };
        self.counters.add(cell, 1);
    }

    fn settle(&mut self, now: Now, flight: &Flight, posted: &Posted) {
        let duplicate = Given { outcome: Outcome::Duplicate, detail: Arc::from("") };
        let shares = flight.batch.shares.iter();
        let results: Vec<Settlement> = match &posted.results {
            Some(results) => shares.zip(results).map(|(open, given)| result(open, given)).collect(),
            None => shares.map(|open| result(open, &duplicate)).collect(),
        };
        for settlement in &results {
            let cell = match settlement.outcome {
                Outcome::Delivered => counter::DELIVERED,
                Outcome::Duplicate => counter::DUPLICATE,
                Outcome::RejectedByUpstream => counter::REFUSED,
                Outcome::DeadLettered => counter::DISCARDED,
            };
            self.counters.add(cell, 1);
        }
        let settled = Settled {
            batch_id: Arc::clone(&flight.batch.id),
            status: posted.status,
            attempts: flight.attempts,
            rtt_micros: posted.rtt_micros,
            results,
        };
        self.journal.append(now.unix, &Record::Settled(settled));
    }

    fn give_up(&mut self, now: Now, batch: &Batch, posted: &Posted) {
        let record = Record::DeadLettered {
            batch_id: Arc::clone(&batch.id),
            status: posted.status,
            error_detail: Arc::clone(&posted.detail),
            shares: batch.events(),
        };
        self.journal.append(now.unix, &record);
        self.dead.add(&batch.shares);
    }

    /// Whether a command may be taken now.
    pub fn takes_commands(&self) -> bool {
        self.journal.has_room()
    }

    /// An operator's decision about dead letters. Shares that are none are left alone.
    pub fn on_command(&mut self, now: Now, command: &Command) {
        match command {
            Command::Replay(events) => self.replay(now, events),
            Command::ReplayAll => {
                let events = self.dead.oldest_events(COMMAND_SHARES_MAX);
                self.replay(now, &events);
            }
            Command::Discard(events, why) => self.discard(now, events, why),
        }
    }

    fn replay(&mut self, now: Now, events: &[u64]) {
        let shares = self.dead.take(events);
        for group in shares.chunks(BATCH_SHARES_MAX) {
            let shares = group.iter().map(|open| open.event).collect();
            self.journal.append(now.unix, &Record::Replayed { shares });
            self.flights.put_half(group.to_vec());
        }
    }

    fn discard(&mut self, now: Now, events: &[u64], why: &str) {
        let shares = self.dead.take(events);
        let given = Given { outcome: Outcome::DeadLettered, detail: Arc::from(why) };
        for group in shares.chunks(BATCH_SHARES_MAX) {
            self.counters.add(counter::DISCARDED, group.len() as u64);
            let settled = Settled {
                batch_id: Arc::from(""),
                status: 0,
                attempts: 0,
                rtt_micros: 0,
                results: group.iter().map(|open| result(open, &given)).collect(),
            };
            self.journal.append(now.unix, &Record::Settled(settled));
        }
    }
}

fn result(open: &OpenShare, given: &Given) -> Settlement {
    Settlement {
        share_event: open.event,
        share_id: open.share.share_id,
        accepted_at: open.share.accepted_at,
        outcome: given.outcome,
        error_detail: Arc::clone(&given.detail),
    }
}

fn attempt(flight: &Flight, posted: &Posted) -> Record {
    Record::Attempted(Attempt {
        batch_id: Arc::clone(&flight.batch.id),
        attempt: flight.attempts,
        status: posted.status,
        rtt_micros: posted.rtt_micros,
        error_detail: Arc::clone(&posted.detail),
        shares: flight.batch.events(),
    })
}
