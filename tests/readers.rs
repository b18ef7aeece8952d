//! Readers of the event log who are cut off and come back, and readers who never read.
//!
//! What a reader was told is compared with the journal itself, event by event, to the byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

#[path = "abuse/footprint.rs"]
mod footprint;
mod stack;

use std::time::{Duration, Instant};

use footprint::Footprint;
use gateway::limits::EVENT_READERS_MAX;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde_json::json;
use stack::events::{Form, Reader, Stuck, Told, of_journal};
use stack::load::Load;
use stack::witness::Witnesses;
use stack::{PATIENCE, Settings, Stack, wait_for, wait_until};

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares a minute that a channel aims at.
const SHARES_PER_MINUTE: f64 = 960.0;

/// Witnesses ask for shares of 2^14 hashes at 60 a minute, which are 2^10 at 960.
const EXPONENT: u32 = 18;

/// How often each reader is cut off.
const CUTS: usize = 20;

/// Events that a reader takes before it is cut off, at most.
const EVENTS_MAX: u32 = 400;

/// Bytes of an event that a reader takes and does not understand any more, at most.
const PART_MAX: u32 = 120;

/// Readers that never read: with the one that does, as many as there may be.
const STUCK: usize = EVENT_READERS_MAX - 1;

/// How long they do not.
const STUCK_FOR: Duration = Duration::from_secs(5);

/// Events that they do not take, at least; each has some 700 bytes.
const STUCK_EVENTS: u64 = 20_000;

/// What the gateway may grow by meanwhile, miners who come and go included. What they are not told
/// is more than twice that.
const STUCK_MEMORY_MAX: u64 = 64 << 20;

fn start() -> (Stack, Load) {
    let gateway = json!({ "mining": { "target_shares_per_minute": SHARES_PER_MINUTE } });
    let stack = Stack::start(&Settings { gateway, ..Settings::demo(NBITS) });
    let load = ["--connections", "40", "--hashrate", "10000", "--reconnect", "50"];
    let load = Load::start(&stack, &load);
    wait_until("shares", PATIENCE, || stack.accepted() >= 200);
    (stack, load)
}

/// A reader that is cut off again and again, and what it has got together.
struct Resuming {
    form: Form,
    random: ChaCha20Rng,
    told: Vec<Told>,
}

impl Resuming {
    fn new(form: Form) -> Resuming {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        Resuming { form, random: ChaCha20Rng::from_seed(seed), told: Vec::new() }
    }

    fn open(&self, stack: &Stack, follow: bool) -> Reader {
        let after = self.told.last().map(|(event_id, _)| *event_id);
        wait_for("a connection to the events", PATIENCE, || {
            Reader::open(stack, self.form, after, follow)
        })
    }

    /// Connect, read some events and a part of the next, and be cut off.
    fn read_some(&mut self, stack: &Stack) {
        let mut reader = self.open(stack, true);
        for _ in 0..1 + self.random.next_u32() % EVENTS_MAX {
            let Some(told) = reader.next() else { return };
            self.told.push(told);
        }
        reader.cut_off((self.random.next_u32() % PART_MAX) as usize);
    }

    /// Connect and read all that there is.
    fn read_all(&mut self, stack: &Stack) {
        let mut reader = self.open(stack, false);
        while let Some(told) = reader.next() {
            self.told.push(told);
        }
    }
}

/// Goal: readers in both forms who are cut off anywhere, also by the gateway's death, and ask for
/// what comes behind the last event they have, get the whole log without a gap and without a
/// duplicate.
#[test]
fn cut_off_and_resumed() {
    let (mut stack, load) = start();
    let mut readers = [Resuming::new(Form::Lines), Resuming::new(Form::Sse)];
    for number in 0..CUTS {
        if number == CUTS / 2 {
            stack.gateway.kill();
            stack.gateway.start();
            wait_until("shares after the kill", PATIENCE, || stack.accepted() >= 200);
        }
        std::thread::scope(|scope| {
            for reader in &mut readers {
                scope.spawn(|| reader.read_some(&stack));
            }
        });
    }
    load.leave();
    let metric = |name: &str| stack.gateway.metric(name);
    wait_until("results", PATIENCE, || metric("share_forward_queue_depth") == 0.0);
    // Miners have gone: what is told of that is the last.
    wait_until("the end of all connections", PATIENCE, || {
        metric("connections{state=\"open\"}") == 0.0 && metric("outbox_bytes") == 0.0
    });
    for reader in &mut readers {
        reader.read_all(&stack);
    }
    assert!(stack.gateway.stop(PATIENCE).success());
    let expected = of_journal(&stack.folder().join("sv2-gateway"), "gw-1");
    for Resuming { form, told, .. } in &readers {
        println!("{form:?}: {} events of {}", told.len(), expected.len());
        assert!(expected.len() - told.len() < 100, "only the end is missing");
        assert!(told.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "a gap or a duplicate");
        assert_eq!(told[0].0, 1);
        let differs = told.iter().zip(&expected).find(|(told, expected)| told != expected);
        assert_eq!(differs, None, "the log and the journal");
    }
}

/// A reader that goes on reading.
struct Follower {
    reader: Reader,
    last: u64,
}

impl Follower {
    fn open(stack: &Stack) -> Follower {
        Follower { reader: Reader::open(stack, Form::Lines, None, true).unwrap(), last: 0 }
    }

    /// The next event follows the one before.
    fn step(&mut self) {
        let (event_id, _) = self.reader.next().expect("an event");
        assert_eq!(event_id, self.last + 1);
        self.last = event_id;
    }

    fn follow(&mut self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.step();
        }
    }

    fn follow_to(&mut self, event_id: u64) {
        while self.last < event_id {
            self.step();
        }
    }
}

/// Goal: readers who never read cost nobody anything: shares are acknowledged, another reader gets
/// every event, memory stays; and if they read after all, everything is there for them.
#[test]
fn stuck_readers() {
    let (mut stack, load) = start();
    let witnesses = Witnesses::start(&stack, 2, EXPONENT);
    let gateway = Footprint::of(stack.gateway.process().id());
    let mut reader = Follower::open(&stack);
    // Whatever the gateway needs for all of them it has by then.
    reader.follow(STUCK_FOR / 2);
    let before = gateway.memory();
    let stuck: Vec<Stuck> = (0..STUCK).map(|_| Stuck::start(&stack)).collect();
    let told = witnesses.told();
    reader.follow(STUCK_FOR);
    reader.follow_to(STUCK_EVENTS);
    let head = stack.gateway.metric("events_head") as u64;
    reader.follow_to(head - 1);
    let acknowledged = witnesses.told() - told;
    println!("{acknowledged} shares acknowledged to witnesses, {head} events to a reader");
    assert!(acknowledged >= 500, "{acknowledged}");
    let memory = gateway.memory().saturating_sub(before);
    println!("{STUCK} stuck readers, and {memory} bytes more memory");
    assert!(memory <= STUCK_MEMORY_MAX, "{memory}");
    load.leave();
    let memory = witnesses.leave();
    assert_eq!(memory.refused.values().sum::<u64>(), 0, "{:?}", memory.refused);
    wait_until("results", PATIENCE, || stack.gateway.metric("share_forward_queue_depth") == 0.0);
    let whole: u64 = of_journal(&stack.folder().join("sv2-gateway"), "gw-1")
        .iter()
        .map(|(_, json)| json.len() as u64 + 1)
        .sum();
    assert!(whole * STUCK as u64 > 2 * STUCK_MEMORY_MAX, "{whole} bytes are too few");
    std::thread::scope(|scope| {
        for stuck in stuck {
            scope.spawn(move || {
                let bytes = stuck.wake(Duration::from_secs(1));
                assert!(bytes >= whole, "{bytes} of {whole} bytes");
            });
        }
    });
    assert!(stack.gateway.stop(PATIENCE).success());
}
