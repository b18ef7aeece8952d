//! How much each miner hashes, and when: a budget that grows with time.

use work::{Mono, Target};

use crate::miner::Miner;

/// Most headers hashed for one miner at a time. More would delay its shares and the others.
pub const HASHES_PER_VISIT: u32 = 512;

/// Time that may be owed to a miner, in microseconds. What is owed beyond it is given up: the
/// processor is too slow for the rate that was asked for.
const OWED_MICROS_MAX: u64 = 1_000_000;

/// Fastest a miner is driven by a share rate, hashes a second.
const PACED_HASHRATE_MAX: f64 = 10_000_000.0;

/// How fast a miner hashes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// This many headers a second, whatever the target.
    Hashrate(f64),
    /// As many headers a second as give this many shares a minute on each channel at its job's
    /// target, on average. A server whose own rate differs retargets, and the hashing follows, up
    /// to a bound.
    SharesPerMinute(f64),
}

impl Pace {
    /// Headers a second of a miner with all its channels.
    pub fn hashrate_of(&self, miner: &Miner) -> f64 {
        let targets = miner.channels().filter_map(|channel| channel.job.map(|job| job.target));
        match self {
            Pace::Hashrate(rate) => *rate,
            // The channels are searched in turn, each for the same part of the time.
            Pace::SharesPerMinute(_) => {
                let rates = targets.map(|target| self.hashrate(target));
                rates.sum::<f64>().min(PACED_HASHRATE_MAX)
            }
        }
    }

    /// Headers a second under `target`.
    pub fn hashrate(&self, target: Target) -> f64 {
        match self {
            Pace::Hashrate(rate) => *rate,
            // 2^256 hashes do not fit the type they are counted in.
            Pace::SharesPerMinute(_) if target == Target::ZERO => PACED_HASHRATE_MAX,
            Pace::SharesPerMinute(shares) => {
                let hashes = target.expected_hashes().as_f64();
                (hashes * shares / 60.0).min(PACED_HASHRATE_MAX)
            }
        }
    }
}

/// One miner's budget.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// Headers a second; 0 while there is no work.
    rate: f64,
    /// Everything due before this is hashed.
    paid_until: Mono,
}

impl Budget {
    /// No hashing until [`Budget::set_rate`].
    pub fn stop(&mut self) {
        self.rate = 0.0;
    }

    /// Hashes `rate` headers a second from now on. What was owed at another rate is kept as time.
    pub fn set_rate(&mut self, rate: f64, now: Mono) {
        if self.rate <= 0.0 {
            self.paid_until = now;
        }
        self.rate = rate;
    }

    /// Headers due now, whole ones; and how many were given up.
    pub fn due(&mut self, now: Mono) -> (u32, u64) {
        if self.rate <= 0.0 {
            return (0, 0);
        }
        let owed = now.micros_since(self.paid_until);
        let mut given_up = 0;
        // Slow miners owe time for their first header for longer than the bound.
        let micros_per_hash = 1_000_000.0 / self.rate;
        if owed > OWED_MICROS_MAX && micros_per_hash < OWED_MICROS_MAX as f64 {
            given_up = ((owed - OWED_MICROS_MAX) as f64 / micros_per_hash) as u64;
            self.paid_until = Mono(now.0 - OWED_MICROS_MAX);
        }
        let due = now.micros_since(self.paid_until) as f64 / micros_per_hash;
        // The cast saturates and drops the fraction, which stays owed.
        (due as u32, given_up)
    }

    /// `hashes` of what was due are hashed.
    pub fn pay(&mut self, hashes: u32, now: Mono) {
        if self.rate > 0.0 {
            // Rounded up, so that a fraction of a microsecond is not owed for ever.
            let micros = (f64::from(hashes) * 1_000_000.0 / self.rate).ceil() as u64;
            self.paid_until = Mono(self.paid_until.0.saturating_add(micros).min(now.0));
        }
    }

    /// Nothing could be hashed: nothing is owed up to now.
    pub fn forgive(&mut self, now: Mono) {
        self.paid_until = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, step_micros: u64, seconds: u64) -> (u64, u64) {
        let mut budget = Budget::default();
        budget.set_rate(rate, Mono(0));
        let (mut hashed, mut given_up) = (0, 0);
        for micros in (0..seconds * 1_000_000).step_by(step_micros as usize) {
            let (due, lost) = budget.due(Mono(micros));
            let hashes = due.min(HASHES_PER_VISIT);
            budget.pay(hashes, Mono(micros));
            hashed += u64::from(hashes);
            given_up += lost;
        }
        (hashed, given_up)
    }

    #[test]
    fn rates_are_kept_at_any_step() {
        for (rate, step) in [(0.5, 20_000), (1.0, 999), (1_000.0, 777), (20_000.0, 20_000)] {
            let (hashed, given_up) = run(rate, step, 20);
            let expected = rate * 20.0;
            assert!((hashed as f64 - expected).abs() <= expected * 0.02 + 1.0, "{rate}: {hashed}");
            assert_eq!(given_up, 0);
        }
    }

    #[test]
    fn what_cannot_be_hashed_is_given_up_and_counted() {
        let (hashed, given_up) = run(1_000_000.0, 10_000, 20);
        assert_eq!(hashed, 512 * 1_999);
        let total = hashed + given_up;
        assert!((18_500_000..20_000_000).contains(&total), "{total}");
    }

    #[test]
    fn a_share_rate_follows_the_target() {
        let target = Target(Target::MAX.0 >> 10);
        let rate = Pace::SharesPerMinute(60.0).hashrate(target);
        assert!((1_000.0..1_050.0).contains(&rate), "{rate}");
        assert_eq!(Pace::SharesPerMinute(1.0).hashrate(Target::ZERO), PACED_HASHRATE_MAX);
        assert_eq!(Pace::Hashrate(5.0).hashrate(Target::ZERO), 5.0);
    }
}
