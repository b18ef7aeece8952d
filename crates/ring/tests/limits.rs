//! Bounds and timers: the full table, deadlines, listeners, wrong limits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{LIMIT, connect, drive, drive_until, limits, listening};
use rg_ring::{Bell, Event, Uring, UringLimits};

#[test]
fn a_full_table_closes_the_newcomer_and_counts_it() {
    let tight = UringLimits { connections_max: 2, ..limits() };
    let (mut ring, addr, _bell) = listening(tight);
    let (_first, token) = connect(&mut ring, addr);
    let (_second, _) = connect(&mut ring, addr);
    let mut refused = TcpStream::connect(addr).unwrap();
    refused.set_read_timeout(Some(LIMIT)).unwrap();
    drive_until(
        &mut ring,
        |_, event| panic!("{event:?}"),
        |ring| ring.counters().refused_table_full == 1,
    );
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0);
    let stream = TcpStream::connect(addr).unwrap();
    assert!(ring.add(stream).is_err());
    drive_until(
        &mut ring,
        |_, event| panic!("{event:?}"),
        |ring| ring.counters().refused_table_full == 2,
    );
    // A close makes room at once, also before the kernel has let go of the old socket.
    ring.close(token);
    let (_third, _) = connect(&mut ring, addr);
    assert_eq!(ring.connections(), 2);
}

#[test]
fn a_deadline_fires_once_and_not_early() {
    let bell = Bell::new().unwrap();
    let mut ring = Uring::new(limits(), &bell).unwrap();
    let start = Instant::now();
    ring.set_deadline(Duration::from_millis(30));
    assert!(ring.has_deadline());
    drive(&mut ring, |_, event| matches!(event, Event::Deadline));
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert!(!ring.has_deadline());
    ring.wait(Some(Duration::from_millis(50))).unwrap();
    assert!(ring.next_event().is_none());
}

#[test]
fn a_new_deadline_replaces_the_old_one() {
    let bell = Bell::new().unwrap();
    let mut ring = Uring::new(limits(), &bell).unwrap();
    // Later to sooner: the far one must not keep the near one away.
    ring.set_deadline(Duration::from_secs(3600));
    ring.submit().unwrap();
    let start = Instant::now();
    ring.set_deadline(Duration::from_millis(10));
    drive(&mut ring, |_, event| matches!(event, Event::Deadline));
    assert!(start.elapsed() < Duration::from_secs(20));
    // Sooner to later: the near one must not fire, also if it has expired unseen.
    ring.set_deadline(Duration::from_micros(1));
    ring.submit().unwrap();
    let spin = Instant::now();
    while spin.elapsed() < Duration::from_millis(2) {
        std::hint::spin_loop();
    }
    let start = Instant::now();
    ring.set_deadline(Duration::from_millis(60));
    drive(&mut ring, |_, event| matches!(event, Event::Deadline));
    assert!(start.elapsed() >= Duration::from_millis(60), "{:?}", start.elapsed());
    // Taken back.
    ring.set_deadline(Duration::from_millis(5));
    ring.submit().unwrap();
    ring.clear_deadline();
    ring.wait(Some(Duration::from_millis(30))).unwrap();
    assert!(ring.next_event().is_none() && !ring.has_deadline());
}

/// Goal: re-arming on every turn, as a shard does, keeps exactly one timeout.
#[test]
fn a_deadline_moved_ten_thousand_times_fires_once() {
    let bell = Bell::new().unwrap();
    let mut ring = Uring::new(limits(), &bell).unwrap();
    for _ in 0..10_000 {
        ring.set_deadline(Duration::from_secs(60));
        ring.submit().unwrap();
        assert!(ring.next_event().is_none());
    }
    ring.set_deadline(Duration::from_millis(1));
    drive(&mut ring, |_, event| matches!(event, Event::Deadline));
    assert!(ring.next_event().is_none());
}

/// Goal: a sleeper on the eventfd is woken by the ring's own timeout.
#[test]
fn a_deadline_rings_the_eventfd() {
    let bell = Bell::new().unwrap();
    let mut ring = Uring::new(limits(), &bell).unwrap();
    ring.set_deadline(Duration::from_millis(20));
    bell.prepare_sleep();
    ring.submit().unwrap();
    assert!(ring.next_event().is_none());
    assert!(bell.wait_blocking(Some(LIMIT)));
    ring.submit().unwrap();
    assert!(matches!(ring.next_event(), Some(Event::Deadline)));
}

#[test]
fn two_listeners_work_and_stopping_closes_both() {
    let (mut ring, first, _bell) = listening(limits());
    let second = common::listen(&mut ring);
    let (_one, token) = connect(&mut ring, first);
    let (_two, _) = connect(&mut ring, second);
    assert!(ring.is_listening());
    ring.stop_listening();
    assert!(!ring.is_listening());
    drive_until(
        &mut ring,
        |_, event| panic!("{event:?}"),
        |_| TcpStream::connect(first).is_err() && TcpStream::connect(second).is_err(),
    );
    assert!(ring.is_open(token), "connections live on");
}

#[test]
fn sockets_of_the_table_have_nodelay() {
    let (mut near, addr, _bell) = listening(limits());
    let (client, _token) = connect(&mut near, addr);
    // Accepted sockets enter the table through `add` too; of an added one we keep a duplicate
    // that can be asked.
    let stream = TcpStream::connect(addr).unwrap();
    let observer = stream.try_clone().unwrap();
    observer.set_nodelay(false).unwrap();
    near.add(stream).unwrap();
    assert!(observer.nodelay().unwrap());
    drop(client);
}

#[test]
fn limits_out_of_range_are_named() {
    let bell = Bell::new().unwrap();
    let cases = [
        (UringLimits { connections_max: 0, ..limits() }, "connections_max"),
        (UringLimits { connections_max: 1 << 23, ..limits() }, "connections_max"),
        (UringLimits { receive_buffers: 100, ..limits() }, "receive_buffers"),
        (UringLimits { receive_buffer_bytes: 0, ..limits() }, "receive_buffer_bytes"),
    ];
    for (wrong, name) in cases {
        let error = Uring::new(wrong, &bell).err().unwrap();
        assert!(error.to_string().contains(name), "{error}");
    }
}
