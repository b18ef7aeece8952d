//! Variable difficulty against miners whose shares come as a Poisson process, seeded: who
//! converges, how fast, how calmly, and what a flood on the way costs (conformance statement 66).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gateway::machine::flood::{Aim, Excess, Flood, ShareLimits};
use gateway::machine::vardiff::{Goal, Vardiff};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use work::{Difficulty, Mono};

/// Hashes that one share of difficulty 1 takes.
const HASHES: f64 = 4_294_967_296.0;

/// Seconds from a new target to the first share that was found under it.
const LATENCY: f64 = 0.3;

/// Shares a second that the line takes: a miner with far too easy a target sends no more.
const LINE: f64 = 2_000.0;

/// Seeds that each claim is tried with.
const SEEDS: u64 = 40;

/// A miner, its channel, and the time.
struct Miner {
    random: ChaCha20Rng,
    seconds: f64,
    hash_rate: f64,
    shares_per_minute: f64,
    goal: Goal,
    vardiff: Vardiff,
    flood: Flood,
    current: Difficulty,
    /// What it mines on, until the time at which it hears of `current`.
    older: (Difficulty, f64),
    /// When each change was announced.
    changes: Vec<f64>,
    shares: u64,
    /// Of them, above the rate.
    refused: u64,
}

impl Miner {
    fn new(seed: u64, nominal: f32, hash_rate: f64, shares_per_minute: f64) -> Miner {
        let goal = Goal::new(shares_per_minute, Difficulty::ONE);
        let current =
            Difficulty::for_hashrate(f64::from(nominal), shares_per_minute).harder(goal.floor());
        Miner {
            random: ChaCha20Rng::seed_from_u64(seed),
            seconds: 0.0,
            hash_rate,
            shares_per_minute,
            goal,
            vardiff: Vardiff::new(Mono(0), nominal),
            flood: Flood::new(Mono(0)),
            current,
            older: (current, 0.0),
            changes: Vec::new(),
            shares: 0,
            refused: 0,
        }
    }

    fn now(&self) -> Mono {
        Mono((self.seconds * 1e6) as u64)
    }

    fn mining_on(&self) -> Difficulty {
        if self.seconds < self.older.1 { self.older.0 } else { self.current }
    }

    /// Shares a second for each that is wanted, if the line took all.
    fn ratio(&self) -> f64 {
        let shares = self.hash_rate / (self.current.as_f64() * HASHES);
        shares * 60.0 / self.shares_per_minute
    }

    fn look(&mut self) {
        let now = self.now();
        let next = self.vardiff.look(now, self.current, Difficulty::ONE, &self.goal);
        if let Some(next) = next {
            assert_ne!(next, self.current);
            self.flood.on_set_target(now);
            self.announce(next);
        }
    }

    fn announce(&mut self, next: Difficulty) {
        self.older = (self.mining_on(), self.seconds + LATENCY);
        self.current = next;
        self.changes.push(self.seconds);
    }

    fn unit(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn submit(&mut self, on: Difficulty) {
        self.shares += 1;
        let (now, limits) = (self.now(), ShareLimits::new(self.shares_per_minute));
        if self.flood.take(now, &limits) {
            self.vardiff.on_accepted(on.work());
            return;
        }
        self.refused += 1;
        // Shares under an older target meet the newest now and then.
        let is_newest = self.unit() * self.current.as_f64() < on.as_f64();
        let aim = if is_newest { Aim::Newest } else { Aim::Older };
        match self.flood.on_excess(now, aim, &limits) {
            Excess::Refuse => (),
            Excess::Retarget { times } => {
                let next = self.vardiff.on_flood(now, self.current, times);
                self.announce(next);
            }
            Excess::Close => panic!("closed at {} s", self.seconds),
        }
    }

    fn run(&mut self, seconds: f64) {
        let end = self.seconds + seconds;
        while self.seconds < end {
            let on = self.mining_on();
            let rate = (self.hash_rate / (on.as_f64() * HASHES)).min(LINE);
            let share = self.seconds - (1.0 - self.unit()).ln() / rate.max(1e-12);
            let look = self.vardiff.next_look().0 as f64 / 1e6 + 1e-6;
            // The process has no memory: it may begin again at each event.
            let heard = if self.seconds < self.older.1 { self.older.1 } else { f64::INFINITY };
            self.seconds = share.min(look).min(heard).min(end);
            if self.seconds == share {
                self.submit(on);
            }
            if self.vardiff.is_due(self.now(), &self.goal) {
                self.look();
            }
        }
    }

    fn changes_since(&self, seconds: f64) -> usize {
        self.changes.iter().filter(|at| **at >= seconds).count()
    }
}

/// After `seconds`, all seeds are within `bounds` of the goal.
fn converges(nominal: f32, hash_rate: f64, spm: f64, seconds: f64, bounds: (f64, f64)) {
    for seed in 0..SEEDS {
        let mut miner = Miner::new(seed, nominal, hash_rate, spm);
        miner.run(seconds);
        let ratio = miner.ratio();
        assert!(
            (bounds.0..bounds.1).contains(&ratio),
            "{nominal:e} declared, {hash_rate:e} true, {spm}/min, seed {seed}: {ratio} of the goal"
        );
    }
}

#[test]
fn a_rate_declared_too_low_is_found_within_seconds() {
    for spm in [6.0, 600.0] {
        for (nominal, hash_rate) in [(0.0, 1e18), (1e12, 1e18), (0.0, 1e13), (1e12, 1e13)] {
            converges(nominal, hash_rate, spm, 120.0, (0.2, 3.0));
        }
    }
}

#[test]
fn a_rate_declared_too_high_is_found_within_minutes() {
    for spm in [6.0, 600.0] {
        for (nominal, hash_rate) in [(1e18, 1e15), (1e18, 1e12), (1e15, 1e12), (1e13, 1e12)] {
            converges(nominal, hash_rate, spm, 420.0, (0.2, 3.0));
        }
    }
}

#[test]
fn every_rate_is_held_within_bounds_and_calmly() {
    let mut changes = 0;
    for spm in [6.0, 600.0] {
        for (place, hash_rate) in [1e11, 1e12, 1e14, 1e16, 1e18].into_iter().enumerate() {
            for nominal in [0.0, 1e12, 1e18f32] {
                let mut miner = Miner::new(place as u64, nominal, hash_rate, spm);
                miner.run(1_800.0);
                // Difficulty 1 is the floor: a slow miner cannot be given an easier one.
                let at_floor = miner.current == Difficulty::ONE;
                let ratio = miner.ratio();
                let case = format!("{nominal:e} declared, {hash_rate:e} true, {spm}/min: {ratio}");
                assert!(ratio < 1.6 && (at_floor || ratio > 0.6), "{case}");
                let (before, shares) = (miner.seconds, miner.shares);
                miner.run(7_200.0);
                let per_minute = (miner.shares - shares) as f64 / 120.0;
                let held = per_minute / spm;
                assert!(held < 1.4 && (at_floor || held > 0.7), "{case}, then {held}");
                assert!(miner.changes_since(before) <= 4, "{case}: {:?}", miner.changes);
                changes += miner.changes_since(before);
            }
        }
    }
    // Thirty miners, two hours each.
    assert!(changes <= 20, "{changes} changes");
}

#[test]
fn a_steady_miner_with_a_true_rate_is_left_alone() {
    let mut changes = 0;
    for seed in 0..SEEDS {
        let mut miner = Miner::new(seed, 1e14, 1e14, 6.0);
        miner.run(4.0 * 3_600.0);
        changes += miner.changes.len();
    }
    // 160 hours.
    assert!(changes <= 16, "{changes} changes");
}

/// Seconds after a step of the hash rate until the channel is within `bounds`, for each seed.
fn after_step(factor: f64, spm: f64, bounds: (f64, f64)) -> Vec<f64> {
    let measure = |seed| {
        let mut miner = Miner::new(seed, 1e15, 1e15, spm);
        // Steps at every phase of the looks.
        miner.run(1_200.0 + seed as f64);
        miner.hash_rate *= factor;
        let at = miner.seconds;
        while !(bounds.0..bounds.1).contains(&miner.ratio()) {
            assert!(miner.seconds - at < 3_600.0, "x{factor}, {spm}/min, seed {seed}: never");
            miner.run(1.0);
        }
        miner.seconds - at
    };
    let mut times: Vec<f64> = (0..SEEDS).map(measure).collect();
    times.sort_by(f64::total_cmp);
    times
}

#[test]
fn steps_of_the_hash_rate_are_followed() {
    let check = |factor, spm, median: f64, slowest: f64| {
        let times = after_step(factor, spm, (0.33, 3.0));
        let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
        let case = format!("x{factor} at {spm}/min: median {middle} s, slowest {last} s");
        assert!(middle <= median && last <= slowest, "{case}");
    };
    check(10.0, 6.0, 40.0, 120.0);
    check(1e3, 6.0, 20.0, 120.0);
    check(0.1, 6.0, 180.0, 420.0);
    check(1e-3, 6.0, 240.0, 600.0);
    check(10.0, 600.0, 20.0, 60.0);
    check(1e3, 600.0, 20.0, 60.0);
    check(0.1, 600.0, 60.0, 120.0);
    check(1e-3, 600.0, 120.0, 240.0);
}

#[test]
fn an_outage_is_recovered_from() {
    for (seed, minutes) in [1.0, 5.0, 30.0, 120.0].into_iter().enumerate() {
        let mut miner = Miner::new(seed as u64, 1e18, 1e18, 6.0);
        miner.run(1_200.0);
        miner.hash_rate = 0.0;
        miner.run(minutes * 60.0);
        assert!(miner.changes.len() <= 12, "{minutes} min: {:?}", miner.changes);
        miner.hash_rate = 1e18;
        miner.run(180.0);
        let ratio = miner.ratio();
        assert!((0.2..3.0).contains(&ratio), "{minutes} min: {ratio} of the goal");
    }
}

#[test]
fn queued_shares_after_a_stall_are_no_rise() {
    for spm in [6.0, 60.0, 600.0] {
        let goal = Goal::new(spm, Difficulty::ONE);
        let current = Difficulty::at_most(1e6);
        let mut vardiff = Vardiff::new(Mono(0), 0.0);
        let shares = (spm / 60.0 * 5.0) as usize + 1;
        // A window that began just before the queue arrives is the worst moment.
        for _ in 0..shares {
            vardiff.on_accepted(current.work());
        }
        assert_eq!(vardiff.look(Mono(1_000), current, Difficulty::ONE, &goal), None, "{spm}");
    }
}

#[test]
fn a_flood_on_the_way_is_short() {
    for (spm, refused) in [(6.0, 5_000), (600.0, 5_000)] {
        for nominal in [0.0, 1e12] {
            for seed in 0..SEEDS {
                let mut miner = Miner::new(seed, nominal, 1e18, spm);
                miner.run(30.0);
                assert!(miner.ratio() < 10.0, "{nominal:e} at {spm}/min, seed {seed}");
                assert!(miner.refused < refused, "{spm}/min: {} refused", miner.refused);
                miner.run(3_600.0);
                let before = miner.refused;
                miner.run(3_600.0);
                assert_eq!(miner.refused, before, "{spm}/min: a miner on its target is refused");
            }
        }
    }
}

#[test]
fn a_flood_is_answered_with_a_harder_target() {
    let mut vardiff = Vardiff::new(Mono(0), 0.0);
    let mut harder = |times| vardiff.on_flood(Mono(1), Difficulty::ONE, times).as_f64();
    assert_eq!((harder(640.0), harder(0.0), harder(f64::NAN)), (640.0, 2.0, 2.0));
}

#[test]
fn shares_in_flight_say_what_they_were_credited_with() {
    let goal = Goal::new(6.0, Difficulty::ONE);
    let (easy, hard) = (Difficulty::at_most(1e3), Difficulty::at_most(1e6));
    let mut vardiff = Vardiff::new(Mono(0), 0.0);
    for _ in 0..1_000 {
        vardiff.on_accepted(easy.work());
    }
    assert!(vardiff.is_due(Mono(1), &goal), "many came at once");
    assert_eq!(vardiff.look(Mono(1_000_000), hard, Difficulty::ONE, &goal), None);
    // The other way round each share is one piece of evidence, although it is worth a thousand.
    vardiff.on_changed(Mono(1_000_000));
    vardiff.on_accepted(hard.work());
    assert_eq!(vardiff.look(Mono(2_000_000), easy, Difficulty::ONE, &goal), None);
}

#[test]
fn never_easier_than_the_floors() {
    let floor = Difficulty::at_most(1e4);
    let goal = Goal::new(6.0, floor);
    let mut vardiff = Vardiff::new(Mono(0), 1e18);
    let mut current = Difficulty::for_hashrate(1e18, 6.0);
    for minute in 1..240 {
        let now = Mono(minute * 60_000_000);
        let easiest = Difficulty::at_most(1e5);
        if let Some(next) = vardiff.look(now, current, easiest, &goal) {
            assert!(next.as_f64() >= 1e5);
            current = next;
        }
    }
    assert_eq!(current.as_f64(), 1e5, "the max_target is harder than the goal's floor");
    let goal = Goal::new(6.0, Difficulty::at_most(1e6));
    assert_eq!(vardiff.on_update(Mono(0), 0.0, current, floor, &goal).as_f64(), 1e6);
}

#[test]
fn an_update_is_believed_as_far_as_it_says_something() {
    let goal = Goal::new(6.0, Difficulty::ONE);
    let of = |rate| Difficulty::for_hashrate(rate, 6.0);
    let update = |vardiff: &mut Vardiff, nominal| {
        vardiff.on_update(Mono(1), nominal, of(1e15), Difficulty::ONE, &goal).as_f64()
    };
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.01, "{a} for {b}");
    // Nothing is known but what it says.
    let mut fresh = Vardiff::new(Mono(0), 1e15);
    near(update(&mut fresh, 1e12), of(1e12).as_f64());
    let proven = |nominal| {
        let mut vardiff = Vardiff::new(Mono(0), nominal);
        vardiff.on_accepted(of(1e15).work());
        vardiff
    };
    // It grows by ten, whatever it said before.
    near(update(&mut proven(1e15), 1e16), of(1e16).as_f64());
    near(update(&mut proven(2e15), 2e16), of(1e16).as_f64());
    // It says what its shares have said already, or nothing.
    near(update(&mut proven(1e12), 1e15), of(1e15).as_f64());
    near(update(&mut proven(1e12), 0.0), of(1e15).as_f64());
    near(update(&mut proven(0.0), 1e18), of(1e15).as_f64());
}

#[test]
fn absurd_input_gives_an_allowed_difficulty() {
    for spm in [1e-6, 1.0, 1e9] {
        for nominal in [0.0, f32::MIN_POSITIVE, f32::MAX] {
            let goal = Goal::new(spm, Difficulty::EASIEST);
            let mut vardiff = Vardiff::new(Mono(0), nominal);
            let mut current = Difficulty::at_most(u64::MAX as f64);
            for step in 0..2_000u64 {
                if step % 3 == 0 {
                    vardiff.on_accepted(Difficulty::at_most(u64::MAX as f64).work());
                }
                let now = Mono(step.pow(3) * 1_000);
                if let Some(next) = vardiff.look(now, current, Difficulty::EASIEST, &goal) {
                    current = next;
                }
                current = vardiff.on_update(now, nominal, current, Difficulty::EASIEST, &goal);
                assert!(current.as_f64() > 0.0 && current.as_f64().is_finite());
            }
        }
    }
}

#[test]
fn small_difficulties_do_not_swing() {
    // Between two powers of two, and between two small whole numbers.
    for difficulty in [0.35, 0.18, 1.41, 2.45] {
        let goal_rate = difficulty * HASHES / 10.0;
        let mut miner = Miner::new(7, 0.0, goal_rate, 6.0);
        miner.goal = Goal::new(6.0, Difficulty::EASIEST);
        miner.run(3_600.0);
        let before = miner.seconds;
        miner.run(4.0 * 3_600.0);
        assert!(miner.changes_since(before) <= 4, "{difficulty}: {:?}", miner.changes);
    }
}
