//! Does a core that sleeps on its bell always wake? Three ways to sleep, side by side: awaiting the
//! eventfd through glommio, with a preempt timer of a millisecond and with none to speak of, and
//! poll(2) on the eventfd as the gateway's cores do.
//!
//! A foreign thread rings every few microseconds. A round is lost when the sleeper still sleeps
//! half a second after the last bell. It reports, and never fails.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "bench")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use glommio::io::BufferedFile;
use glommio::{LocalExecutorBuilder, Placement};
use rg_ring::{Bell, adopt};

/// Bells of one round.
const BELLS: u64 = 200_000;
/// Preempt timers of the executor.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(24 * 3_600);
/// Rounds of each way.
const ROUNDS: usize = 3;
/// Silence after which a round counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// One round of one way: how often the sleeper slept, and whether it woke for the last bell.
struct Round {
    sleeps: u64,
    is_lost: bool,
}

fn round(is_awaited: bool, preempt: Duration) -> Round {
    let bell = Bell::new().unwrap();
    let (rung, seen, sleeps) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let sleeper = {
        let (bell, rung) = (bell.clone(), Arc::clone(&rung));
        let (seen, sleeps) = (Arc::clone(&seen), Arc::clone(&sleeps));
        let executor = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(preempt);
        executor.spawn(move || sleep_and_count(bell, rung, seen, sleeps, is_awaited)).unwrap()
    };
    for number in 1..=BELLS {
        rung.store(number, Ordering::SeqCst);
        bell.ring();
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_micros(5 + number % 20) {
            std::hint::spin_loop();
        }
    }
    let waited = Instant::now();
    while seen.load(Ordering::SeqCst) < BELLS && waited.elapsed() < LOST_AFTER {
        std::thread::yield_now();
    }
    let is_lost = seen.load(Ordering::SeqCst) < BELLS;
    if is_lost {
        // The sleeper cannot be woken any more; it ends with the process.
        std::mem::forget(sleeper);
    } else {
        drop(sleeper.join());
    }
    Round { sleeps: sleeps.load(Ordering::SeqCst), is_lost }
}

async fn sleep_and_count(
    bell: Bell,
    rung: Arc<AtomicU64>,
    seen: Arc<AtomicU64>,
    sleeps: Arc<AtomicU64>,
    is_awaited: bool,
) {
    let file: BufferedFile = adopt(bell.duplicate_fd().unwrap());
    while seen.load(Ordering::SeqCst) < BELLS {
        bell.awake();
        let now = rung.load(Ordering::SeqCst);
        if seen.swap(now, Ordering::SeqCst) != now {
            continue;
        }
        bell.prepare_sleep();
        if rung.load(Ordering::SeqCst) != now {
            continue;
        }
        sleeps.fetch_add(1, Ordering::SeqCst);
        if is_awaited {
            file.read_at(0, 8).await.unwrap();
        } else {
            bell.wait_blocking(None);
        }
    }
}

fn main() {
    println!("{BELLS} bells a round, {ROUNDS} rounds each, A B C A B C");
    for number in 1..=ROUNDS {
        let ways = [
            ("read_at, 1 ms", true, SHORT),
            ("read_at, a day", true, LONG),
            ("poll(2), a day", false, LONG),
        ];
        for (name, is_awaited, preempt) in ways {
            let Round { sleeps, is_lost } = round(is_awaited, preempt);
            let end = if is_lost { "LOST: sleeps for ever" } else { "woke for the last bell" };
            println!("round {number}  {name:<16} slept {sleeps:>7} times, {end}");
        }
    }
    std::process::exit(0);
}
