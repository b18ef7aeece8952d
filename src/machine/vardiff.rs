//! Variable difficulty: a channel's difficulty from the work that it has shown.
//!
//! A channel is to send [`Goal::shares_per_minute`]. What it sends is a Poisson process, so a
//! difficulty is changed only when its shares say with confidence that it is wrong. Three readers
//! look at the same shares, each as a pair of `seen` and `expected` shares:
//!
//! ```text
//! rise   a cumulative sum (CUSUM) for "three times too many"; met within a dozen shares
//! fall   the same for "a third of them", and for silence; needs time, since nothing comes
//! held   all since the last change; slow and exact, for what lies between
//! ```
//!
//! Shares are counted by the work they were credited with, in units of the current difficulty.
//! Shares that were found under an older target therefore say no more than they prove. Rejected
//! shares say nothing. Floating point chooses the next difficulty here; it never judges a share.

use work::{Difficulty, Mono, Work};

/// Milliseconds between two looks at a channel.
const LOOK_MILLIS: u64 = 10_000;

/// Accepted shares since the last look that make another one due at once, at least.
const QUICK_SHARES: f64 = 16.0;

/// Multiple of the shares expected between two looks that makes another one due at once.
const QUICK_FACTOR: f64 = 3.0;

/// The cumulative sums ask whether the rate is this many times the goal, or one such part of it.
const STEP: f32 = 3.0;

/// Natural logarithm of [`STEP`].
const STEP_LN: f32 = 1.098_612_3;

/// Evidence, as a logarithm of odds, from which a rise is believed.
const RISE_EVIDENCE: f32 = 10.0;

/// Seconds of queued shares that may come at once after a stall without being taken for a rise.
const STALL_SECONDS: f32 = 5.0;

/// Fewest shares that a rise is measured by.
const RISE_SHARES: f32 = 12.0;

/// Evidence, as a logarithm of odds, from which a fall is believed.
const FALL_EVIDENCE: f32 = 8.0;

/// Seconds below which too few shares are taken for a stall.
const FALL_SECONDS: f32 = 30.0;

/// Shares that are expected in vain after a change before the difficulty is taken for far too
/// hard: by chance one right difficulty in four hundred is.
const SILENT_SHARES: f32 = 6.0;

/// The part that difficulty falls to in silence.
const SILENT_PART: f32 = 1.0 / 64.0;

/// The part it falls to if it falls again and no share has ever shown what the miner can do.
const SILENT_PART_UNPROVEN: f32 = 1.0 / 256.0;

/// Doublings of the patience with a silent channel that has sent shares before.
const PATIENCE_DOUBLINGS: u8 = 6;

/// Seconds and expected shares that an exact measurement takes at least.
const HELD_SECONDS: f32 = 60.0;
const HELD_SHARES: f32 = 10.0;

/// Expected shares, and seconds, after which half of what was held is forgotten.
const HELD_SHARES_MAX: f32 = 300.0;
const HELD_SECONDS_MAX: f32 = 600.0;

/// Standard deviations by which the exact measurement must leave the band.
const HELD_DEVIATIONS: f32 = 2.5;

/// The band around the goal in which a difficulty is right.
const BAND: (f32, f32) = (0.87, 1.15);

/// Part of a change, as logarithms, that must have been measured to make it: whole numbers and
/// powers of two are coarse where they are small, and must not swing.
const HYSTERESIS: f64 = 0.65;

/// What the difficulty of a channel is chosen for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Shares that a channel should send a minute; positive.
    shares_per_minute: f64,
    /// The easiest difficulty of any channel.
    floor: Difficulty,
    /// Accepted shares since the last look that make another one due.
    quick: u16,
}

impl Goal {
    /// A goal of `shares_per_minute` (positive and finite), never easier than `floor`.
    pub fn new(shares_per_minute: f64, floor: Difficulty) -> Goal {
        let expected = shares_per_minute * LOOK_MILLIS as f64 / 60_000.0;
        // The cast saturates; a channel that hits that bound is looked at a little more often.
        let quick = (QUICK_FACTOR * expected).max(QUICK_SHARES) as u16;
        Goal { shares_per_minute, floor, quick }
    }

    /// The easiest difficulty of any channel.
    pub fn floor(&self) -> Difficulty {
        self.floor
    }

    fn shares_per_second(&self) -> f32 {
        (self.shares_per_minute / 60.0) as f32
    }
}

/// Shares seen and shares expected over the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tally {
    /// In units of the current difficulty.
    seen: f32,
    /// What the goal says for that time.
    expected: f32,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.seen += other.seen;
        self.expected += other.expected;
    }

    /// Logarithm of the odds that the rate is [`STEP`] times the goal, not the goal.
    fn odds_of_rise(&self) -> f32 {
        self.seen * STEP_LN - self.expected * (STEP - 1.0)
    }

    /// Logarithm of the odds that the rate is one part in [`STEP`] of the goal, not the goal.
    fn odds_of_fall(&self) -> f32 {
        self.expected * (1.0 - 1.0 / STEP) - self.seen * STEP_LN
    }
}

/// What is known of the hash rate of one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Vardiff {
    /// Up to when the tallies count.
    looked_at: Mono,
    /// Credited work since then, in the unit of [`Work`].
    work: f64,
    /// Since the evidence was last against a rise.
    rise: Tally,
    /// Since the evidence was last against a fall.
    fall: Tally,
    /// Since the last change.
    held: Tally,
    /// What the miner says of itself, hashes a second.
    nominal_hash_rate: f32,
    /// Accepted shares since `looked_at`; saturates.
    count: u16,
    /// Falls in a row with no share between.
    silent_falls: u8,
    /// Whether a share was ever accepted.
    is_proven: bool,
}

const _: () = assert!(size_of::<Vardiff>() <= 48);

impl Vardiff {
    /// A channel that opens now, with what its miner says of its hash rate (hashes a second).
    pub fn new(now: Mono, nominal_hash_rate: f32) -> Vardiff {
        Vardiff {
            looked_at: now,
            work: 0.0,
            rise: Tally::default(),
            fall: Tally::default(),
            held: Tally::default(),
            nominal_hash_rate,
            count: 0,
            silent_falls: 0,
            is_proven: false,
        }
    }

    /// A share was accepted and is credited with `work`.
    pub fn on_accepted(&mut self, work: Work) {
        self.work += work.0 as f64;
        self.count = self.count.saturating_add(1);
        self.is_proven = true;
    }

    /// When it is to be looked at next even if no share comes.
    pub fn next_look(&self) -> Mono {
        self.looked_at.plus_millis(LOOK_MILLIS)
    }

    /// Whether it is to be looked at now; cheap, for each accepted share.
    pub fn is_due(&self, now: Mono, goal: &Goal) -> bool {
        self.count >= goal.quick || now >= self.next_look()
    }

    /// Another difficulty has been announced: what was measured under the old one is forgotten.
    pub fn on_changed(&mut self, now: Mono) {
        self.looked_at = now;
        (self.work, self.count) = (0.0, 0);
        (self.rise, self.fall, self.held) = Default::default();
    }

    /// The difficulty that should be announced instead of `current`, if any; never easier than
    /// the goal's floor and `max_target_floor`, the easiest that the miner's `max_target` allows.
    ///
    /// What it returns counts as announced. May be called at any time; early looks do no harm.
    pub fn look(
        &mut self,
        now: Mono,
        current: Difficulty,
        max_target_floor: Difficulty,
        goal: &Goal,
    ) -> Option<Difficulty> {
        self.tick(now, current, goal);
        let ratio = f64::from(self.measured(goal)?);
        // Whether or not the difficulty can change, this evidence is used up.
        (self.rise, self.fall) = Default::default();
        let nearest = nearest(current.as_f64() * ratio);
        let next = nearest.harder(goal.floor).harder(max_target_floor);
        let step = next.as_f64() / current.as_f64();
        if next == current || ratio.ln().abs() < HYSTERESIS * step.ln().abs() {
            return None;
        }
        self.on_changed(now);
        Some(next)
    }

    /// The miner says that its hash rate is another, or that it needs another `max_target`: the
    /// difficulty from now on, which may be the current one.
    ///
    /// A channel without a share is believed. Otherwise a rate that comes nearer to what was
    /// measured is no news; one that leads away from it scales the difficulty, so that a proxy
    /// that says it has grown gets its target before its shares flood. Zero says nothing.
    pub fn on_update(
        &mut self,
        now: Mono,
        nominal_hash_rate: f32,
        current: Difficulty,
        max_target_floor: Difficulty,
        goal: &Goal,
    ) -> Difficulty {
        let (old, new) = (f64::from(self.nominal_hash_rate), f64::from(nominal_hash_rate));
        self.nominal_hash_rate = nominal_hash_rate;
        let wanted = if !self.is_proven {
            Difficulty::for_hashrate(new, goal.shares_per_minute)
        } else if old > 0.0 && new > 0.0 {
            let hashes_per_share = current.work().0 as f64;
            let measured = hashes_per_share * goal.shares_per_minute / 60.0;
            let is_nearer = (new / measured).ln().abs() <= (old / measured).ln().abs();
            if is_nearer { current } else { nearest(current.as_f64() * new / old) }
        } else {
            current
        };
        let next = wanted.harder(goal.floor).harder(max_target_floor);
        if next != current {
            self.on_changed(now);
        }
        next
    }

    /// The channel floods: a difficulty `times` the current one, at least twice, announced now.
    pub fn on_flood(&mut self, now: Mono, current: Difficulty, times: f64) -> Difficulty {
        self.on_changed(now);
        nearest(current.as_f64() * times.max(2.0))
    }

    /// Move what came since the last look into the tallies.
    fn tick(&mut self, now: Mono, current: Difficulty, goal: &Goal) {
        let seconds = now.micros_since(self.looked_at) as f32 / 1e6;
        let shares = (self.work / current.work().0 as f64) as f32;
        let tick = Tally {
            // A share found under a harder target is one share of evidence, whatever it is worth.
            seen: shares.min(f32::from(self.count)),
            expected: seconds * goal.shares_per_second(),
        };
        if self.count > 0 {
            self.silent_falls = 0;
        }
        self.looked_at = now;
        (self.work, self.count) = (0.0, 0);
        self.rise.add(tick);
        if self.rise.odds_of_rise() <= 0.0 {
            self.rise = Tally::default();
        }
        self.fall.add(tick);
        if self.fall.odds_of_fall() <= 0.0 {
            self.fall = Tally::default();
        }
        self.held.add(tick);
        if self.held.expected > HELD_SHARES_MAX.max(goal.shares_per_second() * HELD_SECONDS_MAX) {
            self.held.seen /= 2.0;
            self.held.expected /= 2.0;
        }
    }

    /// Shares seen for each that was expected, if that is surely not one.
    fn measured(&mut self, goal: &Goal) -> Option<f32> {
        let per_second = goal.shares_per_second();
        let (rise, fall, held) = (self.rise, self.fall, self.held);
        let stall = (STEP - 1.0) * per_second * STALL_SECONDS;
        if rise.seen >= RISE_SHARES && rise.odds_of_rise() >= RISE_EVIDENCE + stall {
            // Half a share was expected before the first came.
            return Some(rise.seen / (rise.expected + 0.5));
        }
        let waited = FALL_SECONDS * per_second;
        if held.seen < 0.5 {
            return self.silence(waited.max(SILENT_SHARES));
        }
        if fall.expected >= waited && fall.odds_of_fall() >= FALL_EVIDENCE {
            return Some(((fall.seen + 0.7) / fall.expected).max(SILENT_PART));
        }
        if held.expected < HELD_SHARES.max(HELD_SECONDS * per_second) {
            return None;
        }
        let deviation = HELD_DEVIATIONS * held.seen.sqrt();
        let is_above = held.seen - deviation > BAND.1 * held.expected;
        let is_below = held.seen + deviation + 1.0 < BAND.0 * held.expected;
        (is_above || is_below).then_some(held.seen / held.expected)
    }

    /// The part that the difficulty falls to if no share came since the last change although
    /// `patience` shares were expected.
    fn silence(&mut self, patience: f32) -> Option<f32> {
        let falls = self.silent_falls;
        // A miner that has shown what it can do is more likely to be off than to be slow.
        let doublings = if self.is_proven { falls.min(PATIENCE_DOUBLINGS) } else { 0 };
        if self.held.expected < patience * f32::from(1u8 << doublings) {
            return None;
        }
        self.silent_falls = falls.saturating_add(1);
        // Where the difficulty cannot fall any more, this is not asked again for a while.
        self.held = Tally::default();
        let is_lost = falls > 0 && !self.is_proven;
        Some(if is_lost { SILENT_PART_UNPROVEN } else { SILENT_PART })
    }
}

/// The allowed difficulty nearest to `value`, as logarithms.
fn nearest(value: f64) -> Difficulty {
    let below = Difficulty::at_most(value);
    let low = below.as_f64();
    let above = Difficulty::at_most(if low >= 1.0 { low + 1.0 } else { low * 2.0 });
    if value > (low * above.as_f64()).sqrt() { above } else { below }
}
