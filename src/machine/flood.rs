//! Floods of shares: how many a channel may submit, and what happens above that (D39, D50).
//!
//! Each channel has a bucket of shares that refills at a multiple of its goal. Every submitted
//! share takes one, accepted or not. A share that finds the bucket empty is an *excess*; it is
//! refused, and what happens besides depends on what it aimed at:
//!
//! ```text
//! the newest target    the miner obeys and is faster than thought: retarget at once
//! an older target      its queue drains: refused, and nothing more, for a minute
//! none it was given    refused; many of them, or any after the grace, and the target is ignored
//! ```
//!
//! An ignored target is followed by a harder one, and a channel that ignores three closes its
//! connection. A miner that obeys is never closed: it is measured by its own excess and has a
//! target that fits within a few round trips, whatever hash rate it declared.

use work::{BlockHash, Mono, Target};

use crate::limits::{
    FLOOD_GRACE_MILLIS, FLOOD_JUNK_BURSTS, FLOOD_LATE_MILLIS, FLOOD_MEASURED_SHARES,
    SET_TARGETS_IGNORED_MAX, SHARE_BURST_MAX, SHARE_BURST_MIN, SHARE_BURST_MINUTES,
    SHARE_RATE_FACTOR,
};

/// Nanoseconds of a minute.
const MINUTE_NANOS: f64 = 60e9;

/// What the goal of `shares_per_minute` allows; the same for all channels of a shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShareLimits {
    /// Nanoseconds in which one share flows back into the bucket.
    nanos_per_share: u64,
    /// Nanoseconds in which an empty bucket is full.
    burst_nanos: u64,
    /// Shares of a full bucket.
    burst: u32,
    /// The goal.
    shares_per_second: f64,
}

impl ShareLimits {
    /// For a goal (positive and finite).
    pub fn new(shares_per_minute: f64) -> ShareLimits {
        let nanos = MINUTE_NANOS / (shares_per_minute * f64::from(SHARE_RATE_FACTOR));
        // The casts saturate: a goal of next to nothing still has its burst.
        let nanos_per_share = (nanos as u64).clamp(1, u64::MAX / u64::from(SHARE_BURST_MAX) / 2);
        let burst = (shares_per_minute * SHARE_BURST_MINUTES) as u32;
        let burst = burst.clamp(SHARE_BURST_MIN, SHARE_BURST_MAX);
        ShareLimits {
            nanos_per_share,
            burst_nanos: nanos_per_share * u64::from(burst),
            burst,
            shares_per_second: shares_per_minute / 60.0,
        }
    }

    /// Shares of a full bucket.
    pub fn burst(&self) -> u32 {
        self.burst
    }
}

/// The hardest target of its channel that a share meets, of those that its miner was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The one announced last.
    Newest,
    /// That of its job, which was given under an older one. Stale shares count like others.
    Older,
    /// None: too easy, a repetition, for no job of the channel.
    Missed,
}

impl Aim {
    /// What a hash aimed at, if the target of its job is `own` and the last announced `newest`.
    pub fn of(hash: &BlockHash, own: &Target, newest: &Target) -> Aim {
        if newest.is_met_by(hash) {
            Aim::Newest
        } else if own.is_met_by(hash) {
            Aim::Older
        } else {
            Aim::Missed
        }
    }
}

/// What becomes of a share above the rate. It is refused in each case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Excess {
    /// Nothing more.
    Refuse,
    /// Announce a difficulty that is this many times the current one (at least 2) at once.
    Retarget {
        /// The factor; for choosing a difficulty, not for judging a share.
        times: f64,
    },
    /// Close the connection: the channel ignored its targets.
    Close,
}

/// The bucket of one channel, and how it took its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    /// Nanoseconds on the clock of [`Mono`] at which the bucket is full again.
    full_at: u64,
    /// When the newest target was announced.
    announced_at: Mono,
    /// When the first excess since then came; before it, nothing.
    excess_since: Option<Mono>,
    /// Excess shares since the announcement that met it.
    met: u32,
    /// Excess shares since the announcement that did not, and should have.
    missed: u32,
    /// Targets in a row that were ignored.
    ignored: u32,
}

const _: () = assert!(size_of::<Flood>() <= 48);

impl Flood {
    /// A full bucket for a channel that opens now; its first target is announced now.
    pub fn new(now: Mono) -> Flood {
        Flood { full_at: 0, announced_at: now, excess_since: None, met: 0, missed: 0, ignored: 0 }
    }

    /// A share was submitted: whether it is within the rate. If not, [`Flood::on_excess`] follows.
    pub fn take(&mut self, now: Mono, limits: &ShareLimits) -> bool {
        let now_nanos = now.0.saturating_mul(1_000);
        if self.full_at <= now_nanos {
            // A whole bucket flowed back: whatever it was is over.
            self.forget(self.announced_at);
            self.ignored = 0;
            self.full_at = now_nanos;
        }
        let full_at = self.full_at.saturating_add(limits.nanos_per_share);
        let is_within = full_at - now_nanos <= limits.burst_nanos;
        if is_within {
            self.full_at = full_at;
        }
        is_within
    }

    /// A share was submitted above the rate, and is refused.
    pub fn on_excess(&mut self, now: Mono, aim: Aim, limits: &ShareLimits) -> Excess {
        let since = *self.excess_since.get_or_insert(now);
        let waited = now.micros_since(self.announced_at) / 1_000;
        match aim {
            Aim::Newest => {
                self.met = self.met.saturating_add(1);
                if self.met < FLOOD_MEASURED_SHARES {
                    return Excess::Refuse;
                }
                // A second at least: a stall may have pressed the shares of seconds together.
                let seconds = (now.micros_since(since) as f64 / 1e6).max(1.0);
                let excess = f64::from(self.met) / seconds / limits.shares_per_second;
                self.ignored = 0;
                self.forget(now);
                Excess::Retarget { times: f64::from(SHARE_RATE_FACTOR) + excess }
            }
            Aim::Older if waited < FLOOD_LATE_MILLIS => Excess::Refuse,
            Aim::Older | Aim::Missed => {
                self.missed = self.missed.saturating_add(1);
                let is_late = waited >= FLOOD_GRACE_MILLIS
                    && self.missed >= self.met.max(FLOOD_MEASURED_SHARES);
                // It need not have heard of the newest target to meet any of the others.
                let is_junk = self.missed >= limits.burst.saturating_mul(FLOOD_JUNK_BURSTS);
                if is_late || is_junk { self.on_ignored(now) } else { Excess::Refuse }
            }
        }
    }

    /// Another target was announced for a reason of its own: vardiff, or the miner's wish.
    pub fn on_set_target(&mut self, now: Mono) {
        self.forget(now);
    }

    /// The miner itself asked for another target. It has time for it; what it ignored before is
    /// not forgotten.
    pub fn on_update(&mut self, now: Mono) {
        self.announced_at = now;
    }

    fn on_ignored(&mut self, now: Mono) -> Excess {
        // The target that the channel opened with is the first to be ignored, and no SetTarget.
        if self.ignored >= SET_TARGETS_IGNORED_MAX {
            return Excess::Close;
        }
        self.ignored += 1;
        self.forget(now);
        Excess::Retarget { times: f64::from(SHARE_RATE_FACTOR) }
    }

    /// Begin to watch the target that was announced at `announced_at`.
    fn forget(&mut self, announced_at: Mono) {
        self.announced_at = announced_at;
        self.excess_since = None;
        (self.met, self.missed) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Submit one share.
    fn submit(flood: &mut Flood, at: u64, aim: Aim, limits: &ShareLimits) -> Option<Excess> {
        let now = Mono(at);
        if flood.take(now, limits) { None } else { Some(flood.on_excess(now, aim, limits)) }
    }

    #[test]
    fn limits_scale_with_the_goal() {
        let burst = |spm| ShareLimits::new(spm).burst();
        assert_eq!((burst(1e-9), burst(6.0), burst(600.0)), (SHARE_BURST_MIN, 64, 6_000));
        assert_eq!(burst(1e9), SHARE_BURST_MAX);
        for spm in [1e-12, 6.0, 600.0, 1e9, 1e300] {
            let limits = ShareLimits::new(spm);
            let mut flood = Flood::new(Mono(0));
            // The whole burst at once, then not one more at the same moment.
            for share in 0..limits.burst() {
                assert!(flood.take(Mono(SECOND), &limits), "share {share} at {spm}/min");
            }
            assert!(!flood.take(Mono(SECOND), &limits), "{spm}/min");
        }
    }

    #[test]
    fn honest_rates_and_bursts_are_within() {
        for spm in [6.0, 60.0, 600.0] {
            let limits = ShareLimits::new(spm);
            let mut flood = Flood::new(Mono(0));
            let gap = (60.0 / spm * 1e6) as u64;
            for share in 0..10_000u64 {
                // Nine times the goal for as long as it likes, and each minute ten seconds of
                // shares at once: a stalled line, or a miner that came back.
                let at = share * gap / 9;
                assert!(flood.take(Mono(at), &limits), "{spm}/min, share {share}");
            }
            let mut at = 10_000 * gap;
            for _ in 0..100 {
                at += 60 * SECOND;
                for share in 0..(spm / 6.0) as u64 + 5 {
                    assert!(flood.take(Mono(at), &limits), "{spm}/min, queued share {share}");
                }
            }
        }
    }

    /// Submits junk at `per_second` until the channel is closed: how many shares, and how many
    /// SetTargets it had.
    fn junk(aim: Aim, per_second: u64, spm: f64) -> (u64, u32) {
        let limits = ShareLimits::new(spm);
        let mut flood = Flood::new(Mono(0));
        let mut retargets = 0;
        for share in 0..10_000_000u64 {
            match submit(&mut flood, share * SECOND / per_second, aim, &limits) {
                Some(Excess::Close) => return (share, retargets),
                Some(Excess::Retarget { times }) => {
                    assert!(times >= 2.0);
                    retargets += 1;
                }
                Some(Excess::Refuse) | None => (),
            }
        }
        panic!("{aim:?} at {per_second}/s and {spm}/min is never closed");
    }

    #[test]
    fn floods_of_junk_are_closed_after_three_ignored_targets() {
        for spm in [6.0, 600.0] {
            let limits = ShareLimits::new(spm);
            for per_second in [200, 10_000, 1_000_000] {
                let (shares, retargets) = junk(Aim::Missed, per_second, spm);
                assert_eq!(retargets, SET_TARGETS_IGNORED_MAX, "{per_second}/s");
                // The burst, four times the junk, and what flowed back meanwhile.
                let bound = u64::from(limits.burst() * (2 + 4 * FLOOD_JUNK_BURSTS));
                assert!(shares <= bound, "{per_second}/s at {spm}/min: {shares} > {bound}");
            }
        }
        // Slow junk is given the grace each time.
        let (shares, _) = junk(Aim::Missed, 5, 6.0);
        assert!((5 * 30..5 * 240).contains(&shares), "{shares}");
    }

    #[test]
    fn whoever_keeps_to_an_old_target_has_a_minute_each_time() {
        let (shares, retargets) = junk(Aim::Older, 100, 6.0);
        assert_eq!(retargets, SET_TARGETS_IGNORED_MAX);
        assert!((100 * 230..100 * 260).contains(&shares), "{shares}");
    }

    #[test]
    fn an_obedient_miner_is_measured_and_never_closed() {
        let limits = ShareLimits::new(6.0);
        let mut flood = Flood::new(Mono(0));
        // A hundred million times too fast; the line takes 20 000 a second, an answer 0.2 s.
        let mut too_fast = 1e8;
        let mut retargets = 0;
        let (mut at, mut deaf_until) = (0u64, 0u64);
        while at < 600 * SECOND {
            let is_deaf = at < deaf_until;
            let rate = if is_deaf { 20_000.0 } else { f64::min(too_fast * 0.1, 20_000.0) };
            at += (1e6 / rate) as u64;
            // What was queued under the old target is old until it is sent.
            let aim = if is_deaf { Aim::Older } else { Aim::Newest };
            match submit(&mut flood, at, aim, &limits) {
                Some(Excess::Close) => panic!("closed at {at}"),
                Some(Excess::Retarget { times }) => {
                    too_fast /= times;
                    retargets += 1;
                    deaf_until = at + SECOND / 5;
                }
                Some(Excess::Refuse) | None => (),
            }
        }
        assert!(too_fast < 11.0, "still {too_fast} times too fast");
        assert!((3..=10).contains(&retargets), "{retargets} changes");
    }

    #[test]
    fn obedience_and_calm_are_forgiven() {
        let limits = ShareLimits::new(6.0);
        let mut flood = Flood::new(Mono(0));
        let ignore_one = |flood: &mut Flood, mut at: u64| {
            loop {
                match submit(flood, at, Aim::Missed, &limits) {
                    Some(Excess::Retarget { .. }) => return at,
                    Some(Excess::Close) => panic!("closed at {at}"),
                    _ => at += SECOND / 100,
                }
            }
        };
        let mut at = 0;
        for _ in 0..SET_TARGETS_IGNORED_MAX {
            at = ignore_one(&mut flood, at);
        }
        // Sixteen excess shares that meet the newest target show that it hears.
        while !matches!(submit(&mut flood, at, Aim::Newest, &limits), Some(Excess::Retarget { .. }))
        {
        }
        for _ in 0..SET_TARGETS_IGNORED_MAX {
            at = ignore_one(&mut flood, at);
        }
        // Two minutes of calm fill the bucket.
        at += 120 * SECOND;
        for _ in 0..SET_TARGETS_IGNORED_MAX {
            at = ignore_one(&mut flood, at);
        }
    }

    #[test]
    fn a_few_misses_among_many_hits_are_not_disobedience() {
        let limits = ShareLimits::new(6.0);
        let mut flood = Flood::new(Mono(0));
        for share in 0..100_000u64 {
            let aim = if share % 4 == 0 { Aim::Missed } else { Aim::Newest };
            let excess = submit(&mut flood, share * SECOND / 100, aim, &limits);
            assert_ne!(excess, Some(Excess::Close), "share {share}");
        }
    }

    #[test]
    fn aims() {
        let (easy, hard) = (Target::DIFFICULTY_1, Target(Target::DIFFICULTY_1.0 >> 8u32));
        let check = |hash: Target, aim| {
            assert_eq!(Aim::of(&BlockHash(hash.to_le_bytes()), &easy, &hard), aim);
        };
        check(hard, Aim::Newest);
        check(easy, Aim::Older);
        check(Target::MAX, Aim::Missed);
    }
}
