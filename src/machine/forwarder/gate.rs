//! Whether batches go out freely, or one at a time to see if the backend is there again.
//!
//! ```text
//! Free ──20 failures in a row──▶ Probing ──a batch is answered──▶ Free
//!   └──an answer that no backend of ours gives (D29)──▶ Probing
//! ```
//!
//! While it probes, one batch is out at a time, at growing intervals with full jitter. Nothing is
//! lost meanwhile: shares wait in the journal.

use work::Mono;

use super::flights::backoff_millis;
use crate::limits::FAILURES_BEFORE_PROBING;

/// Why nothing but probes goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Too many failures in a row.
    Failures,
    /// An answer that looks like a wrong configuration: its status.
    Answer(u16),
}

/// The gate.
#[derive(Debug, Default)]
pub struct Gate {
    /// Failures since the last batch that was answered.
    failures: u32,
    probing: Option<Probing>,
}

#[derive(Debug, Clone, Copy)]
struct Probing {
    cause: Cause,
    /// Probes that failed.
    attempts: u32,
    next: Mono,
}

impl Gate {
    /// Why it probes, if it does.
    pub fn cause(&self) -> Option<Cause> {
        self.probing.map(|probing| probing.cause)
    }

    /// Whether a batch may go out, with `sending` of them out already.
    pub fn lets_out(&self, now: Mono, sending: usize) -> bool {
        match self.probing {
            None => true,
            Some(probing) => sending == 0 && now >= probing.next,
        }
    }

    /// When it may let the next one out, if it holds them back.
    pub fn deadline(&self) -> Option<Mono> {
        self.probing.map(|probing| probing.next)
    }

    /// A batch was answered by a backend of ours, whatever the answer. Returns whether the gate was
    /// closed.
    pub fn on_answer(&mut self) -> bool {
        std::mem::take(self).probing.is_some()
    }

    /// A batch failed in a way that time may heal.
    pub fn on_failure(&mut self, now: Mono, seed: u64, wait_ms: u64, wait_max_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        if self.probing.is_some() || self.failures >= FAILURES_BEFORE_PROBING {
            self.probe(now, Cause::Failures, seed, wait_ms, wait_max_ms);
        }
    }

    /// An answer came that looks like a wrong configuration.
    pub fn on_wrong_answer(&mut self, now: Mono, status: u16, seed: u64, wait_max_ms: u64) {
        self.probe(now, Cause::Answer(status), seed, 0, wait_max_ms);
    }

    fn probe(&mut self, now: Mono, cause: Cause, seed: u64, wait_ms: u64, wait_max_ms: u64) {
        let attempts = self.probing.map_or(0, |probing| probing.attempts) + 1;
        let millis = backoff_millis(seed, attempts, wait_max_ms).max(wait_ms);
        self.probing = Some(Probing { cause, attempts, next: now.plus_millis(millis) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_probes_after_failures_and_opens_after_an_answer() {
        let mut gate = Gate::default();
        let now = Mono(1_000_000);
        for _ in 1..FAILURES_BEFORE_PROBING {
            gate.on_failure(now, 7, 0, 30_000);
            assert!(gate.lets_out(now, 50));
        }
        gate.on_failure(now, 7, 0, 30_000);
        assert_eq!(gate.cause(), Some(Cause::Failures));
        let next = gate.deadline().unwrap();
        assert!(next > now && !gate.lets_out(now, 0));
        assert!(gate.lets_out(next, 0) && !gate.lets_out(next, 1));
        gate.on_answer();
        assert!(gate.cause().is_none() && gate.lets_out(now, 50));
    }

    #[test]
    fn one_wrong_answer_is_enough() {
        let mut gate = Gate::default();
        gate.on_wrong_answer(Mono(5), 404, 1, 30_000);
        assert_eq!(gate.cause(), Some(Cause::Answer(404)));
        assert!(!gate.lets_out(Mono(5), 0));
    }
}
