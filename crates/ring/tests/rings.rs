//! The rings between cores against a model and under two threads; the bell against a sleeper.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rg_ring::{Bell, Sequence, Uring, UringLimits, ring};

const LIMIT: Duration = Duration::from_secs(60);

proptest! {
    /// Goal: a ring behaves as a bounded queue, and credit is exact on one thread.
    #[test]
    fn a_ring_is_a_bounded_queue(
        capacity in 1usize..20,
        steps in proptest::collection::vec(any::<bool>(), 0..400),
    ) {
        let (mut sender, mut receiver) = ring(capacity, Bell::new().unwrap());
        let mut model = VecDeque::new();
        let mut high_water = 0;
        for (number, is_send) in steps.into_iter().enumerate() {
            if is_send {
                let is_room = model.len() < capacity;
                prop_assert_eq!(sender.try_send(number).is_ok(), is_room);
                if is_room {
                    model.push_back(number);
                }
            } else {
                prop_assert_eq!(receiver.pop(), model.pop_front());
            }
            high_water = high_water.max(model.len());
            prop_assert_eq!(sender.credit(), capacity - model.len());
            prop_assert_eq!(receiver.len(), model.len());
            prop_assert_eq!(receiver.is_empty(), model.is_empty());
            prop_assert_eq!(receiver.high_water(), high_water as u64);
        }
    }
}

/// Goal: with credit, sending never fails, and the reader sees every item once, in order.
/// Method: a million items through seven slots; the writer sends bursts of all its credit and
/// rings once a burst, the reader sleeps whenever the ring is empty.
#[test]
fn a_million_items_through_seven_slots() {
    const ITEMS: u64 = 1_000_000;
    let bell = Bell::new().unwrap();
    let (mut sender, mut receiver) = ring(7, bell.clone());
    let writer = thread::spawn(move || {
        let mut next = 0;
        while next < ITEMS {
            let credit = sender.credit();
            if credit == 0 {
                thread::yield_now();
                continue;
            }
            for _ in 0..credit {
                sender.try_send(next).expect("there was credit");
                next += 1;
            }
            sender.ring_bell();
        }
    });
    let mut expected = 0;
    while expected < ITEMS {
        if let Some(item) = receiver.pop() {
            assert_eq!(item, expected);
            expected += 1;
            continue;
        }
        bell.prepare_sleep();
        if receiver.is_empty() {
            assert!(bell.wait_blocking(Some(LIMIT)), "asleep before item {expected}");
        } else {
            bell.awake();
        }
    }
    writer.join().unwrap();
    assert!(receiver.high_water() <= 7);
}

/// Two threads each publish a number, ring, and wait until the owner has seen it, so the owner
/// falls asleep again and again. `sleep` looks at nothing but the bell.
fn wake_ups(each: u64, bell: &Bell, mut sleep: impl FnMut() -> bool) {
    let pairs: Vec<_> = (0..2).map(|_| (Sequence::new(0), Sequence::new(0))).collect();
    let threads: Vec<_> = pairs
        .iter()
        .cloned()
        .map(|(published, seen)| {
            let bell = bell.clone();
            thread::spawn(move || {
                for number in 1..=each {
                    published.publish(number);
                    bell.ring();
                    let start = Instant::now();
                    while seen.read() < number {
                        assert!(start.elapsed() < LIMIT, "wake-up {number} was lost");
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut sleeps = 0u64;
    while pairs.iter().any(|(_, seen)| seen.read() < each) {
        bell.prepare_sleep();
        let is_news = pairs.iter().any(|(published, seen)| published.read() > seen.read());
        if is_news {
            bell.awake();
        } else {
            sleeps += 1;
            assert!(sleep(), "slept through a bell");
        }
        for (published, seen) in &pairs {
            seen.publish(published.read());
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(sleeps > each / 20, "the owner slept only {sleeps} times");
}

#[test]
fn a_hundred_thousand_wake_ups_and_none_is_lost() {
    let bell = Bell::new().unwrap();
    wake_ups(50_000, &bell, || bell.wait_blocking(Some(LIMIT)));
}

/// Goal: a plain thread that sleeps in its ring is woken by bells as well.
#[test]
fn bells_wake_a_thread_that_waits_in_its_ring() {
    let bell = Bell::new().unwrap();
    let limits = UringLimits { receive_buffers: 8, ..UringLimits::default() };
    let mut ring = Uring::new(limits, &bell).unwrap();
    wake_ups(10_000, &bell, || {
        let start = Instant::now();
        ring.wait(Some(LIMIT)).unwrap();
        assert!(ring.next_event().is_none());
        start.elapsed() < LIMIT / 2
    });
}
