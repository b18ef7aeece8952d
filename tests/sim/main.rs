//! The simulator: whole worlds on one thread, the production machines in them, fakes for the
//! rest, and checkers that watch every step.
//!
//! ```text
//! world.rs     time, agenda, phases, the end          drivers.rs   what src/drive does
//! lives.rs     starts and ends of the process         outbox.rs    the forwarder core, its start
//! process.rs   one start of the gateway               net.rs       byte pipes
//! disk.rs      the journal's disk                     backend.rs   the pool's backend, an operator
//! miners.rs    loadgen's miners                       forgers.rs   what they send wrongly
//! wild.rs      miners without manners                 given.rs     what miners were given
//! node.rs      the chain                              peers.rs     verifier, source, disk
//! faults.rs    what may go wrong, plants              mischief.rs  when it does
//! checkers.rs  work, tips, ends  ·  ledger.rs  shares and blocks  ·  verdicts.rs  each verdict
//! books.rs     the journal as its disk has it
//! reference.rs what a share is, slowly                trace.rs stats.rs chance.rs
//! ```
//!
//! `make sim` runs 200 seeds, each twice with the same trace. `make sim SEED=42` replays one with
//! a readable trace. A seed that ever failed is a line in `tests/seeds.txt` and runs first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod backend;
mod books;
mod chance;
mod checkers;
mod disk;
mod drivers;
mod faults;
mod forgers;
mod given;
mod ledger;
mod lives;
mod miners;
mod mischief;
mod net;
mod node;
mod outbox;
mod peers;
mod process;
mod reference;
mod stats;
mod trace;
mod verdicts;
mod wild;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use checkers::Rule;
use faults::Plant;
use stats::Stats;
use world::{Outcome, World};

/// Seeds of an ordinary run.
const SEEDS: u64 = 200;
/// Worlds that run at once.
const THREADS: usize = 2;

/// Run a seed; a panic of a machine is a failure like any other.
fn run(seed: u64, is_printed: bool) -> Result<Outcome, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(seed, None, is_printed).run()));
    ran.map_err(|why| {
        let text = why.downcast_ref::<String>().cloned();
        let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("seed {seed}: a machine panicked: {}", text.unwrap_or_default())
    })
}

/// Run a seed twice: no violation, the same trace.
fn check(seed: u64) -> Result<Outcome, String> {
    let (first, second) = (run(seed, false)?, run(seed, false)?);
    let faults = &first.faults;
    if let Some((rule, what)) = first.violations.first() {
        return Err(format!("seed {seed}: {rule:?}: {what}\n  faults: {faults}"));
    }
    if first.trace_hash != second.trace_hash {
        return Err(format!("seed {seed}: C12: two runs, two traces\n  faults: {faults}"));
    }
    Ok(first)
}

/// Run seeds on a few threads; everything that failed, and the sums.
fn check_all(seeds: &[u64]) -> (Vec<String>, Stats) {
    let next = AtomicU64::new(0);
    let results: Vec<Result<Outcome, String>> = std::thread::scope(|scope| {
        let work = || {
            let mut results = Vec::new();
            while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                results.push(check(*seed));
            }
            results
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let (mut failed, mut sums) = (Vec::new(), Stats::default());
    for result in results {
        match result {
            Ok(outcome) => sums.add(&outcome.stats),
            Err(why) => failed.push(why),
        }
    }
    failed.sort();
    (failed, sums)
}

fn number_of(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Goal: no seed breaks a rule, and every seed is one run.
/// `SEEDS` says how many, `SEED_BASE` where they begin; `SEED` runs one and prints its trace.
#[test]
fn seeds() {
    if let Some(seed) = number_of("SEED") {
        let outcome = run(seed, true).unwrap();
        assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
        println!("seed {seed}: {}", outcome.stats);
        return;
    }
    let base = number_of("SEED_BASE").unwrap_or(1);
    let count = number_of("SEEDS").unwrap_or(SEEDS);
    let seeds: Vec<u64> = (base..base + count).collect();
    let (failed, sums) = check_all(&seeds);
    println!("{count} seeds, each twice: {sums}");
    assert!(failed.is_empty(), "{} of {count} failed\n{}", failed.len(), failed.join("\n"));
    assert!(sums.shares > 0 && sums.blocks > 0, "nothing happened: {sums}");
}

/// Goal: what failed once never fails again.
#[test]
fn failed_seeds_run_first() {
    let lines = include_str!("../seeds.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seeds: Vec<u64> =
        lines.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    let (failed, _) = check_all(&seeds);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A planted lie must be found out, by the checker that it concerns. Any of some seeds will do: a
/// lie needs its opportunity.
fn finds(plant: Plant, rule: Rule) {
    for seed in 1..=8 {
        let outcome = World::new(seed, Some(plant), false).run();
        if let Some((found, what)) = outcome.violations.first() {
            assert_eq!(*found, rule, "{plant:?} was found as something else: {what}");
            return;
        }
    }
    panic!("nobody noticed {plant:?}");
}

/// Goal: worlds without faults and lies have nothing to find, so that what the plants' tests find
/// is the plants.
#[test]
fn nothing_planted_is_nothing_found() {
    for seed in 1..=8 {
        let outcome = World::new(seed, Some(Plant::None), false).run();
        assert!(outcome.violations.is_empty(), "seed {seed}: {:?}", outcome.violations);
    }
}

macro_rules! plants {
    ($($test:ident, $plant:ident, $rule:ident;)*) => {
        $(#[test] fn $test() { finds(Plant::$plant, Rule::$rule); })*
    };
}

plants! {
    c1_work_without_a_verdict, UnverifiedJob, C1Verdict;
    c2_an_epoch_used_twice, EpochReused, C2Prefix;
    c3_updates_out_of_order, BoardReordered, C3Order;
    c3_a_tip_without_its_job, JobUnheard, C3Order;
    c4_an_early_acknowledgement, AckEarly, C4Ack;
    c5_a_share_under_two_ids, DeliveredAgain, C5Credit;
    c6_a_batch_that_is_lost, BatchLost, C6Settle;
    c7_more_credit_than_slots, CreditTooHigh, C7Ring;
    c8_a_block_that_is_lost, SolutionDropped, C8Block;
    c9_an_end_without_a_reason, SilentEnd, C9Close;
    c10_too_much_memory, Hoard, C10Memory;
    c11_ciphertext_twice, CiphertextAgain, C11Cipher;
    c11_broken_bytes_taken, BrokenTaken, C11Cipher;
    c13_a_shard_that_hears_nothing, DeafShard, C13Liveness;
    c13_a_backend_that_never_answers, DeafForwarder, C13Liveness;
    c14_a_record_that_is_altered, RecordAltered, C14Reference;
    c15_a_core_without_rest, RestlessCore, C15Rest;
    c3_a_job_number_used_again, JobRepeated, C3Order;
    c3_a_target_without_its_job, TargetAlone, C3Order;
    c14_a_share_credited_with_less, ShareTooDear, C14Reference;
    c14_a_worker_without_its_name, WorkerLost, C14Reference;
    c16_a_secret_that_is_found, SecretFound, C16Admission;
    c4_a_durable_number_before_the_sync, DurableEarly, C4Ack;
    c4_a_sync_that_never_was, SyncSkipped, C4Ack;
    c17_a_last_segment_that_is_not_cut, CutSkipped, C17Journal;
    c17_a_failed_sync_that_is_believed, TailBelieved, C17Journal;
    c6_open_shares_that_a_start_forgets, OpenForgotten, C6Settle;
    c6_a_result_that_is_not_there, ResultUnread, C6Settle;
    c6_a_result_that_is_altered, ResultAltered, C6Settle;
    c18_a_segment_with_an_open_share, OpenRemoved, C18Retention;
    c19_a_refused_share_that_nobody_tells, ReportLost, C19Refused;
}

/// Goal: the comparison of two runs can fail.
#[test]
fn c12_another_die_is_another_trace() {
    let hash = |plant| World::new(1, Some(plant), false).run().trace_hash;
    assert_eq!(hash(Plant::ExtraDie), hash(Plant::ExtraDie));
    // A plant that never strikes: the world is the same but for the die.
    assert_ne!(hash(Plant::ExtraDie), hash(Plant::None));
}
