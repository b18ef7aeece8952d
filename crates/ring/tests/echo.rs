//! Many connections at once: echo, splitting, small queues, lack of buffers, and the executor's
//! way of sleeping on the eventfd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{Echo, LIMIT, connect, drive, drive_until, limits, listening, pattern, pattern_bytes};
use rg_ring::{Bell, Event, Uring, UringLimits};

/// Runs `connections` clients from four threads; each sends `rounds` messages of growing size
/// and reads each back.
fn clients(addr: SocketAddr, connections: usize, rounds: usize) -> Vec<thread::JoinHandle<()>> {
    let work = move |thread: usize| {
        let mine = (thread..connections).step_by(4);
        let mut streams: Vec<(u64, TcpStream)> =
            mine.map(|number| (number as u64, TcpStream::connect(addr).unwrap())).collect();
        for round in 1..=rounds {
            let length = 37 * round * round;
            for (number, stream) in &mut streams {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.write_all(&pattern_bytes(*number, length)).unwrap();
            }
            for (number, stream) in &mut streams {
                let mut back = vec![0; length];
                stream.read_exact(&mut back).unwrap();
                assert!(back == pattern_bytes(*number, length), "stream {number}");
            }
        }
    };
    (0..4).map(|thread| thread::spawn(move || work(thread))).collect()
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Goal: 200 connections talk at the same time and nobody gets another's bytes.
#[test]
fn echo_for_200_connections() {
    let (mut ring, addr, _bell) = listening(limits());
    let threads = clients(addr, 200, 12);
    let mut echo = Echo::default();
    drive(&mut ring, |ring, event| {
        echo.on_event(ring, event);
        echo.closed == 200
    });
    join(threads);
    assert_eq!(ring.counters().accepted, 200);
    drive_until(&mut ring, |_, event| panic!("{event:?}"), |ring| ring.connections() == 0);
    assert!(ring.buffers_kept() > 0 && ring.buffers_kept() <= 256);
}

/// Goal: queues far too small for the load delay and lose nothing.
/// Method: 4 submission and 8 completion entries; both overflow all the time.
#[test]
fn echo_with_overflowing_queues() {
    let bell = Bell::new().unwrap();
    let mut ring = Uring::with_queues(limits(), &bell, 4, 8).unwrap();
    let addr = common::listen(&mut ring);
    let threads = clients(addr, 60, 8);
    let mut echo = Echo::default();
    drive(&mut ring, |ring, event| {
        echo.on_event(ring, event);
        echo.closed == 60
    });
    join(threads);
}

/// Goal: with two buffers of 64 bytes for 20 flooding connections no byte is lost.
#[test]
fn lack_of_buffers_loses_no_byte() {
    let small = UringLimits { receive_buffers: 2, receive_buffer_bytes: 64, ..limits() };
    let (mut ring, addr, _bell) = listening(small);
    let threads = clients(addr, 20, 20);
    let mut echo = Echo::default();
    drive(&mut ring, |ring, event| {
        echo.on_event(ring, event);
        echo.closed == 20
    });
    join(threads);
    assert!(ring.counters().no_buffers > 0, "the test did not starve anybody");
}

/// Goal: buffers that the owner holds starve the others only while it holds them.
#[test]
fn held_buffers_starve_until_dropped() {
    let small = UringLimits { receive_buffers: 2, receive_buffer_bytes: 16, ..limits() };
    let (mut ring, addr, bell) = listening(small);
    let (mut client, _token) = connect(&mut ring, addr);
    client.write_all(&pattern_bytes(1, 64)).unwrap();
    let mut held = Vec::new();
    drive(&mut ring, |_, event| {
        held.push(event);
        held.len() == 2
    });
    for _ in 0..10 {
        ring.wait(Some(Duration::from_millis(1))).unwrap();
        assert!(ring.next_event().is_none(), "there are only two buffers");
    }
    let mut bytes: Vec<u8> = held.iter().flat_map(|event| received(event).to_vec()).collect();
    held.clear();
    // As an executor sleeps: the buffers came back after the last submit.
    bell.prepare_sleep();
    while bytes.len() < 64 {
        match ring.next_event() {
            Some(event) => bytes.extend_from_slice(received(&event)),
            None => assert!(bell.wait_blocking(Some(LIMIT)), "{} bytes", bytes.len()),
        }
    }
    assert_eq!(bytes, pattern_bytes(1, 64));
}

fn received(event: &Event) -> &[u8] {
    match event {
        Event::Received { bytes, .. } => bytes,
        other => panic!("unexpected {other:?}"),
    }
}

/// Goal: however the sender cuts and the buffers split, the bytes are the same, and the lent
/// buffer is the owner's to change.
#[test]
fn splitting_keeps_order() {
    let small = UringLimits { receive_buffers: 8, receive_buffer_bytes: 64, ..limits() };
    let (mut ring, addr, _bell) = listening(small);
    let (mut client, token) = connect(&mut ring, addr);
    let sender = thread::spawn(move || {
        let all = pattern_bytes(3, 40_000);
        let mut rest = all.as_slice();
        for length in [1usize, 2, 63, 64, 65, 1, 500].into_iter().cycle() {
            let (piece, left) = rest.split_at(length.min(rest.len()));
            client.write_all(piece).unwrap();
            rest = left;
            if rest.is_empty() {
                return;
            }
        }
    });
    let mut next = 0;
    drive(&mut ring, |ring, event| match event {
        Event::Received { token: from, mut bytes } => {
            assert!(from == token && !bytes.is_empty() && bytes.len() <= 64);
            for byte in bytes.iter_mut() {
                assert_eq!(*byte, pattern(3, next));
                *byte ^= 0xff; // In place; the next bytes in this buffer must not care.
                next += 1;
            }
            false
        }
        Event::ReceiveClosed { token, error } => {
            assert_eq!(error, None);
            ring.close(token);
            true
        }
        other => panic!("unexpected {other:?}"),
    });
    assert_eq!(next, 40_000);
    sender.join().unwrap();
}

/// Goal: an owner that sleeps on the eventfd alone, as an executor does, misses neither a
/// completion nor a bell.
/// Method: clients play ping-pong, so the server sleeps before nearly every message; another
/// thread rings for each number it publishes and waits until the server has seen it.
#[test]
fn sleeping_on_the_eventfd_misses_nothing() {
    let (mut ring, addr, bell) = listening(limits());
    let players = 4;
    let clients: Vec<_> = (0..players)
        .map(|number| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                for round in 0..3_000 {
                    let ball = pattern(number, round);
                    stream.write_all(&[ball]).unwrap();
                    let mut back = [0];
                    stream.read_exact(&mut back).unwrap();
                    assert_eq!(back[0], ball);
                }
            })
        })
        .collect();
    let (published, seen) = (rg_ring::Sequence::new(0), rg_ring::Sequence::new(0));
    let (to_server, from_server, foreign) = (published.clone(), seen.clone(), bell.clone());
    let ringer = thread::spawn(move || {
        for number in 1..=5_000 {
            to_server.publish(number);
            foreign.ring();
            let start = Instant::now();
            while from_server.read() < number {
                assert!(start.elapsed() < LIMIT, "bell {number} was lost");
                thread::yield_now();
            }
        }
    });
    let mut echo = Echo::default();
    let mut sleeps = 0;
    loop {
        bell.awake();
        seen.publish(published.read());
        ring.submit().unwrap();
        while let Some(event) = ring.next_event() {
            echo.on_event(&mut ring, event);
        }
        if echo.closed == players as usize && seen.read() == 5_000 {
            break;
        }
        bell.prepare_sleep();
        ring.submit().unwrap();
        if published.read() != seen.read() || ring.completions() > 0 {
            continue;
        }
        sleeps += 1;
        assert!(
            bell.wait_blocking(Some(LIMIT)),
            "a wake-up was lost: {} closed, {} bells",
            echo.closed,
            seen.read()
        );
    }
    assert!(sleeps > 1_000, "the owner slept only {sleeps} times");
    for thread in clients {
        thread.join().unwrap();
    }
    ringer.join().unwrap();
}
