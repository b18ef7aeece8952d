//! The driver: threads, sockets, clocks and hashing for thousands of [`Miner`]s.
//!
//! Each thread owns an io_uring, its share of the miners and a [`Tally`]; nothing is shared but
//! the board of tips and, once a second, a copy of the tally. A turn serves the network first:
//! every event that is there, then new connects, and only when nothing came a short slice of
//! hashing, so that what is measured is the server and not the queue in here.

mod dial;
mod pace;
mod seat;
mod switches;
mod worker;

pub use pace::Pace;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::CreationError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::clock::Clock;
use crate::miner::{Miner, MinerConfig};
use crate::report::{Circumstances, Report, Tally, TipBoard};
use worker::Worker;

/// Most miners of one run: what one address has ports for, and more than most machines have
/// descriptors for.
pub const CONNECTIONS_MAX: usize = 60_000;

/// Most threads of one run.
pub const THREADS_MAX: usize = 64;

/// Descriptors that the process needs beside its miners' sockets.
const DESCRIPTORS_SPARE: u64 = 64;

/// How often the observer is called.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to connect.
    pub target: SocketAddr,
    /// The same as it was given, for the report.
    pub target_text: String,
    /// Miners.
    pub connections: usize,
    /// Threads; each has its own ring.
    pub threads: usize,
    /// How each miner behaves; its `user_identity` becomes `PREFIX.NUMBER`.
    pub miner: MinerConfig,
    /// What `user_identity` begins with.
    pub user_prefix: String,
    /// Seed of the miners' randomness; number N gets seed + N.
    pub seed: u64,
    /// How fast each miner hashes.
    pub pace: Pace,
    /// Addresses that are dialled from, 127.0.0.1 and on, if the target is a loopback address of
    /// IPv4; one address has some 28 000 ports. 0 and 1 leave it to the kernel.
    pub source_addresses: u8,
    /// Connects a second over all threads; 0 for as many as are answered.
    pub ramp_per_second: f64,
    /// Milliseconds until a lost connection is made again; `None` for never.
    pub reconnect_ms: Option<u64>,
    /// Length of the run; `None` until stopped.
    pub duration: Option<Duration>,
}

/// Why there was no run, or it ended early.
#[derive(Debug)]
pub enum DriveError {
    /// More miners or threads than the bounds allow, or none.
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// The value.
        value: usize,
        /// The most it may be; the least is 1.
        max: usize,
    },
    /// The descriptor limit is too low.
    Descriptors {
        /// Needed.
        needed: u64,
        /// Allowed at most.
        limit: u64,
    },
    /// A thread could not be started or its ring failed.
    Thread(io::Error),
    /// A histogram's bounds were refused.
    Histogram(CreationError),
}

impl fmt::Display for DriveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriveError::OutOfRange { what, value, max } => {
                write!(f, "{what} is {value}, expected 1 to {max}")
            }
            DriveError::Descriptors { needed, limit } => write!(
                f,
                "{needed} descriptors are needed and the limit is {limit}: raise it (ulimit -Hn) \
                 or ask for fewer connections"
            ),
            DriveError::Thread(error) => write!(f, "a load thread failed: {error}"),
            DriveError::Histogram(error) => write!(f, "histogram bounds refused: {error}"),
        }
    }
}

impl std::error::Error for DriveError {}

/// What the threads of a run share.
pub(crate) struct Shared {
    pub plan: Plan,
    pub clock: Clock,
    pub board: Mutex<TipBoard>,
    /// Set from outside to end the run.
    pub stop: Arc<AtomicBool>,
}

/// A panic elsewhere does not make numbers wrong, so a poisoned lock is taken as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `plan` until its duration is over or `stop` is set, and returns the final report.
/// `observe` is called about once a second with the report so far.
///
/// # Errors
/// See [`DriveError`]. A server that misbehaves is no error but part of the report.
pub fn run(
    plan: Plan,
    stop: Arc<AtomicBool>,
    mut observe: impl FnMut(&Report),
) -> Result<Report, DriveError> {
    check_range("connections", plan.connections, CONNECTIONS_MAX)?;
    check_range("threads", plan.threads, THREADS_MAX)?;
    raise_descriptor_limit(plan.connections as u64 + DESCRIPTORS_SPARE)?;
    let threads = plan.threads.min(plan.connections);
    let board = Mutex::new(TipBoard::default());
    let shared = Arc::new(Shared { plan, clock: Clock::start(), board, stop });
    let (ended, ends) = mpsc::channel();
    let mut slots = Vec::with_capacity(threads);
    let mut handles = Vec::with_capacity(threads);
    for index in 0..threads {
        let tally = Tally::new().map_err(DriveError::Histogram)?;
        let slot = Arc::new(Mutex::new(tally));
        slots.push(slot.clone());
        match spawn(&shared, index, threads, slot, ended.clone()) {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                shared.stop.store(true, Ordering::Relaxed);
                return Err(DriveError::Thread(error));
            }
        }
    }
    let report = |is_final| report(&shared, &slots, threads, is_final);
    let mut running = handles.len();
    while running > 0 {
        match ends.recv_timeout(OBSERVE_EVERY) {
            Ok(()) => running -= 1,
            Err(_) => observe(&report(false)?),
        }
    }
    for handle in handles {
        let ended = handle.join().map_err(|_| io::Error::other("it ended abnormally"));
        ended.and_then(|result| result).map_err(DriveError::Thread)?;
    }
    report(true)
}

fn spawn(
    shared: &Arc<Shared>,
    index: usize,
    threads: usize,
    slot: Arc<Mutex<Tally>>,
    ended: mpsc::Sender<()>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let shared = shared.clone();
    let body = move || {
        let miners = miners_of(&shared.plan, index, threads);
        let result =
            Worker::new(&shared, miners, threads, &slot).and_then(|mut worker| worker.run());
        if result.is_err() {
            // The others' numbers alone would be misleading.
            shared.stop.store(true, Ordering::Relaxed);
        }
        // The receiver lives until every thread has ended.
        let _ = ended.send(());
        result
    };
    std::thread::Builder::new().name(format!("load-{index}")).spawn(body)
}

fn report(
    shared: &Shared,
    slots: &[Arc<Mutex<Tally>>],
    threads: usize,
    is_final: bool,
) -> Result<Report, DriveError> {
    let mut sum = Tally::new().map_err(DriveError::Histogram)?;
    slots.iter().for_each(|slot| sum.merge(&lock(slot)));
    let circumstances = Circumstances {
        target: shared.plan.target_text.clone(),
        threads,
        connections: shared.plan.connections,
        duration_seconds: shared.clock.mono().0 as f64 / 1_000_000.0,
        is_final,
    };
    Ok(Report::new(circumstances, &sum, &lock(&shared.board)))
}

/// Every `threads`th miner, from number `index`.
fn miners_of(plan: &Plan, index: usize, threads: usize) -> Vec<Miner> {
    let make = |number: usize| {
        let config = MinerConfig {
            user_identity: format!("{}.{number}", plan.user_prefix),
            ..plan.miner.clone()
        };
        Miner::new(config, plan.seed.wrapping_add(number as u64))
    };
    (index..plan.connections).step_by(threads).map(make).collect()
}

fn check_range(what: &'static str, value: usize, max: usize) -> Result<(), DriveError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(DriveError::OutOfRange { what, value, max })
}

/// Raises the soft limit to what is needed, if the hard limit allows it.
fn raise_descriptor_limit(needed: u64) -> Result<(), DriveError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let refused = DriveError::Descriptors { needed, limit: maximum.unwrap_or(u64::MAX) };
    if maximum.is_some_and(|maximum| maximum < needed) {
        return Err(refused);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|_| refused)
}
