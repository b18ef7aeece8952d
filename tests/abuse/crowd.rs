//! Fifty honest miners beside whom others misbehave, and what they may expect: nobody is cut off,
//! nothing is refused, every job arrives, and the gateway's memory is back soon after.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::footprint::Footprint;
use super::stack::process::Process;
use super::stack::{PATIENCE, Stack, program, wait_for, wait_until};

/// Honest miners.
pub const MINERS: u64 = 50;

/// Shares that each of them finds a minute, about.
const SHARES_PER_MINUTE: u64 = 60;

/// Time between two blocks while somebody misbehaves.
const BLOCK_INTERVAL: Duration = Duration::from_millis(1_500);

/// The gateway gives this much memory back, or has it for good.
const MEMORY_KEPT_MAX: u64 = 16 << 20;

/// What misbehaviour may cost while it lasts.
const MEMORY_PEAK_MAX: u64 = 96 << 20;

/// Time for the memory to come back.
const MEMORY_PATIENCE: Duration = Duration::from_secs(10);

/// The miners; they are ended when this is dropped.
pub struct Crowd {
    load: Process,
    report: PathBuf,
    gateway: Footprint,
    /// What there was when they had got to work.
    start: Start,
}

/// A moment without a new job: what all miners had got so far, and the gateway had published.
#[derive(Clone, Copy, Default)]
struct Start {
    jobs: u64,
    left_out: u64,
    targets: u64,
    published: u64,
}

/// Sets a flag at the end of a scope, however it ends.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key}: {report}"))
}

fn published(stack: &Stack) -> u64 {
    stack.gateway.metric("jobs_published_total") as u64
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Crowd {
    /// Connect all of them, and let them get to work, each with `hash_rate` hashes a second.
    pub fn start(stack: &mut Stack, hash_rate: u32) -> Crowd {
        let report = stack.folder().join("honest.json");
        let _ = std::fs::remove_file(&report);
        let mut command = Command::new(program("loadgen"));
        command
            .args(["--target", &stack.gateway.address("listen_addr")])
            .args(["--authority", &stack.gateway.address("authority_pubkey")])
            .args(["--connections", &MINERS.to_string(), "--user-prefix", "honest"])
            .args(["--hashrate", &hash_rate.to_string(), "--reconnect", "0"])
            .args(["--screen", "none", "--json"])
            .arg(&report);
        let log = stack.folder().join("honest.log");
        let load = Process::start("loadgen", &mut command, &log);
        let gateway = Footprint::of(stack.gateway.process().id());
        let mut crowd = Crowd { load, report, gateway, start: Start::default() };
        wait_until("all honest miners", PATIENCE, || {
            crowd.latest().is_some_and(|report| number(&report, "open") == MINERS)
        });
        crowd.start = wait_for("a moment without a new job", PATIENCE, || {
            let published_before = published(stack);
            let report = crowd.next_report();
            let jobs = number(&report, "jobs");
            let (left_out, targets) =
                (number(&report, "jobs_left_out"), number(&report, "targets"));
            let is_still = published_before == published(stack)
                && number(&crowd.next_report(), "jobs") == jobs;
            is_still.then_some(Start { jobs, left_out, targets, published: published_before })
        });
        crowd
    }

    /// The gateway that they work at.
    pub fn gateway(&self) -> &Footprint {
        &self.gateway
    }

    fn latest(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(&self.report).ok()?).ok()
    }

    /// The first report that is written from now on.
    pub fn next_report(&self) -> Value {
        let seconds = |report: &Value| report["duration_seconds"].as_f64();
        let before = self.latest().and_then(|report| seconds(&report));
        wait_for("the next report of the honest miners", PATIENCE, || {
            self.latest().filter(|report| seconds(report) > before)
        })
    }

    /// Let somebody misbehave while the chain grows; afterwards the honest miners have noticed
    /// nothing, and the gateway has its memory back.
    pub fn beside<T>(&self, stack: &Stack, name: &str, abuse: impl FnOnce() -> T) -> T {
        let before = self.latest().unwrap();
        let memory = self.gateway.memory();
        self.gateway.forget_peak();
        let (began, processor) = (Instant::now(), self.gateway.processor_seconds());
        let stop = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            let ending = Ending(&stop);
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    stack.demo_block();
                    let next = Instant::now() + BLOCK_INTERVAL;
                    while Instant::now() < next && !stop.load(Ordering::Relaxed) {
                        std::thread::park_timeout(Duration::from_millis(50));
                    }
                }
            });
            let done = abuse();
            drop(ending);
            done
        });
        let took = began.elapsed();
        let processor = self.gateway.processor_seconds() - processor;
        let peak = self.gateway.memory_peak();
        wait_until(&format!("the memory that {name} took"), MEMORY_PATIENCE, || {
            self.gateway.memory() <= memory + MEMORY_KEPT_MAX
        });
        self.assert_undisturbed(stack, name, &before);
        println!(
            "{name}: {:.1} s, gateway {processor:.2} s of processor, {:.1} MiB before, {:.1} at \
             most, {:.1} after",
            took.as_secs_f64(),
            mebibytes(memory),
            mebibytes(peak),
            mebibytes(self.gateway.memory()),
        );
        assert!(peak <= memory + MEMORY_PEAK_MAX, "{name} made the gateway grow");
        done
    }

    /// All are there, none was refused anything but a true stale, all jobs have arrived, and
    /// shares are taken as before.
    fn assert_undisturbed(&self, stack: &Stack, name: &str, before: &Value) {
        let accepted = number(before, "shares_accepted") + MINERS * SHARES_PER_MINUTE / 120;
        let mut last = Value::Null;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.next_report();
            self.assert_no_harm(name, &report);
            let due = self.start.jobs + MINERS * (published(stack) - self.start.published);
            // A job that a newer one has overtaken in the gateway is not sent. Miners that lack the
            // processor time for their hash rate get an easier target, and the job again behind it.
            let left_out = number(&report, "jobs_left_out") - self.start.left_out;
            let again = number(&report, "targets") - self.start.targets;
            let has_all = (due..=due + again).contains(&(number(&report, "jobs") + left_out));
            if has_all && number(&report, "shares_accepted") >= accepted {
                return;
            }
            last["due"] = json!(due);
            (last["again"], last["left_out"]) = (json!(again), json!(left_out));
            last["jobs"] = report["jobs"].clone();
            last["accepted"] = report["shares_accepted"].clone();
            assert!(Instant::now() < deadline, "{name}: jobs or shares are missing: {last}");
        }
    }

    /// All are there, and whatever the gateway has given to them has arrived, when nobody else
    /// is there; how many shares of theirs were accepted so far.
    pub fn assert_received_all(&self, stack: &Stack, name: &str) -> u64 {
        let given = |metric: &str| stack.gateway.metric(metric) as u64;
        wait_for(&format!("all that was given, {name}"), PATIENCE, || {
            let report = self.next_report();
            self.assert_no_harm(name, &report);
            let has_all = number(&report, "jobs") == given("jobs_sent_total")
                && number(&report, "prev_hashes") == given("prevhash_sent_total");
            has_all.then(|| number(&report, "shares_accepted"))
        })
    }

    fn assert_no_harm(&self, name: &str, report: &Value) {
        assert_eq!(report["errors"], json!({}), "{name}: {}", report["error_samples"]);
        assert_eq!(number(report, "open"), MINERS, "{name}");
        assert_eq!(number(report, "connects"), MINERS, "{name}");
        assert_eq!(number(report, "disconnects"), 0, "{name}");
        assert_eq!(number(report, "switches_missed"), 0, "{name}");
        let rejects = report["rejects"].as_object().unwrap();
        assert!(rejects.keys().all(|code| code == "stale-share"), "{name}: {rejects:?}");
    }

    /// They leave; their last report.
    pub fn leave(mut self) -> Value {
        let status = self.load.terminate(PATIENCE);
        assert_eq!(status.code(), Some(0), "{}", self.load.text());
        let report = self.latest().unwrap();
        assert_eq!(report["is_final"], json!(true));
        assert_eq!(report["failed"], json!(false), "{report}");
        self.assert_no_harm("the end", &report);
        report
    }
}
