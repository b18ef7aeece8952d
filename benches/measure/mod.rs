//! A stopwatch and a table for the benches: they report, and judge nothing.
//!
//! A number is the best and the median of [`ROUNDS`] rounds. The best is what the code costs when
//! nothing disturbs it, the median shows how much something did.

#![allow(dead_code)] // Each bench uses a part.

use std::cell::Cell;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Rounds of each measurement, after one that only warms up.
pub const ROUNDS: usize = 15;

thread_local! {
    static STARTED: Cell<Option<Instant>> = const { Cell::new(None) };
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Starts (`true`) or stops (`false`) this thread's stopwatch, which adds up.
pub fn watch(runs: bool) {
    if runs {
        STARTED.set(Some(Instant::now()));
    } else if let Some(started) = STARTED.take() {
        ELAPSED.set(ELAPSED.get() + started.elapsed());
    }
}

/// Sets this thread's stopwatch to zero.
pub fn reset() {
    ELAPSED.set(Duration::ZERO);
}

/// Does nothing: for what is not measured.
pub fn ignore(_runs: bool) {}

/// Prints what the numbers below depend on, and the head of the table.
pub fn head(title: &str) {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpus.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(':').nth(1)).map_or("unknown", str::trim).to_owned()
    };
    let has = |flag: &str| match field("flags").split(' ').any(|one| one == flag) {
        true => "yes",
        false => "no",
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    println!("\n{title}");
    println!(
        "{}, {count} cpus, sha_ni {}, avx2 {}, kernel {}",
        field("model name"),
        has("sha_ni"),
        has("avx2"),
        kernel.trim()
    );
    println!("\n{:<52}{:>12}{:>12}{:>14}", "", "best ns", "median ns", "best per s");
}

/// Measures `round`, which does `count` things and runs the stopwatch around them; prints a row.
pub fn row(name: &str, count: u64, mut round: impl FnMut()) {
    let mut nanos = Histogram::<u64>::new(3).expect("three digits are allowed");
    let mut best = f64::INFINITY;
    for number in 0..=ROUNDS {
        reset();
        round();
        let each = ELAPSED.get().as_nanos() as f64 / count as f64;
        if number > 0 {
            best = best.min(each);
            // Tenths, so that a few nanoseconds keep their digits.
            nanos.record((each * 10.0) as u64).expect("the histogram grows");
        }
    }
    let median = nanos.value_at_quantile(0.5) as f64 / 10.0;
    println!("{name:<52}{best:>12.1}{median:>12.1}{:>14.0}", 1e9 / best);
}

/// Measures `once` called `count` times in a round.
pub fn each<T>(name: &str, count: u64, mut once: impl FnMut(u64) -> T) {
    row(name, count, || {
        watch(true);
        for number in 0..count {
            std::hint::black_box(once(number));
        }
        watch(false);
    });
}
