//! One connection at a time: partial sends, pause and resume, resets, closing, slot reuse.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, connect, drive, drive_until, limits, listening, pattern, pattern_bytes};
use rg_ring::{Bell, Event, SendRefusedWhy, Token, Uring, UringLimits};

const MEBIBYTE: usize = 1 << 20;

fn send_to_a_slow_reader(piece: Option<usize>) -> u64 {
    let (mut ring, addr, _bell) = listening(limits());
    if let Some(bytes) = piece {
        ring.set_send_piece(bytes);
    }
    let (mut client, token) = connect(&mut ring, addr);
    let total = 6 * MEBIBYTE;
    ring.send(token, pattern_bytes(5, total)).unwrap();
    ring.submit().unwrap();
    assert!(ring.is_sending(token));
    let refused = ring.send(token, vec![9; 10]).unwrap_err();
    assert_eq!((refused.why, refused.bytes.len()), (SendRefusedWhy::InFlight, 10));
    let reader = thread::spawn(move || {
        let mut piece = [0u8; 3000];
        let mut next = 0;
        while next < total {
            let read = client.read(&mut piece).unwrap();
            assert!(read > 0, "closed after {next} bytes");
            for byte in &piece[..read] {
                assert_eq!(*byte, pattern(5, next), "byte {next}");
                next += 1;
            }
        }
        client
    });
    let mut sent = 0;
    drive(&mut ring, |ring, event| match event {
        Event::Sent { token: of, result } => {
            assert_eq!((of, result, ring.is_sending(token)), (token, Ok(()), false));
            sent += 1;
            true
        }
        other => panic!("unexpected {other:?}"),
    });
    assert_eq!(ring.buffers_kept(), 0, "a buffer of megabytes is not kept");
    let client = reader.join().unwrap();
    drop(client);
    drive(&mut ring, |_, event| match event {
        Event::ReceiveClosed { .. } => true,
        other => panic!("a second end of the send: {other:?} after {sent}"),
    });
    ring.counters().sends_continued
}

#[test]
fn a_large_send_arrives_whole_at_a_slow_reader() {
    send_to_a_slow_reader(None);
}

#[test]
fn a_send_in_pieces_is_continued_in_order_and_reported_once() {
    let continued = send_to_a_slow_reader(Some(10_007));
    assert!(continued >= (6 * MEBIBYTE / 10_007) as u64, "{continued}");
}

/// Goal: pausing and resuming at any moment neither loses nor repeats a byte.
#[test]
fn pause_and_resume_lose_no_byte() {
    let small = UringLimits { receive_buffers: 16, receive_buffer_bytes: 512, ..limits() };
    let (mut ring, addr, _bell) = listening(small);
    let (mut client, token) = connect(&mut ring, addr);
    let total = 3 * MEBIBYTE;
    let sender = thread::spawn(move || client.write_all(&pattern_bytes(7, total)).unwrap());
    let (mut next, mut events, mut turns) = (0, 0u32, 0u32);
    let start = Instant::now();
    while next < total {
        assert!(start.elapsed() < LIMIT, "{next} of {total} bytes");
        ring.wait(Some(Duration::from_millis(1))).unwrap();
        turns += 1;
        while let Some(event) = ring.next_event() {
            let Event::Received { bytes, .. } = event else { continue };
            for byte in bytes.iter() {
                assert_eq!(*byte, pattern(7, next), "byte {next}");
                next += 1;
            }
            events += 1;
            match events % 7 {
                0 => ring.pause(token),
                3 => ring.resume(token),
                5 => {
                    ring.pause(token);
                    ring.resume(token);
                }
                _ => {}
            }
        }
        if turns % 2 == 0 {
            ring.resume(token);
        }
    }
    sender.join().unwrap();
}

/// Goal: a paused connection stops delivering, and its miner is slowed by TCP.
#[test]
fn a_paused_connection_is_silent() {
    let (mut ring, addr, _bell) = listening(limits());
    let (mut client, token) = connect(&mut ring, addr);
    ring.pause(token);
    assert!(ring.is_paused(token));
    ring.wait(Some(Duration::from_millis(20))).unwrap();
    assert!(ring.next_event().is_none());
    client.write_all(&pattern_bytes(2, 100)).unwrap();
    for _ in 0..20 {
        ring.wait(Some(Duration::from_millis(2))).unwrap();
        assert!(ring.next_event().is_none(), "delivered while paused");
    }
    ring.resume(token);
    let mut bytes = Vec::new();
    drive(&mut ring, |_, event| {
        let Event::Received { bytes: some, .. } = event else { panic!("{event:?}") };
        bytes.extend_from_slice(&some);
        bytes.len() == 100
    });
    assert_eq!(bytes, pattern_bytes(2, 100));
}

/// Makes the kernel send RST when the socket is dropped.
fn reset(client: TcpStream) {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
}

/// Goal: a miner that resets while megabytes are on their way to it ends its send with an error
/// and costs nothing afterwards.
#[test]
fn a_reset_during_a_send_is_reported() {
    let (mut ring, addr, _bell) = listening(limits());
    for _ in 0..20 {
        let (client, token) = connect(&mut ring, addr);
        ring.send(token, vec![1; 8 * MEBIBYTE]).unwrap();
        ring.submit().unwrap();
        reset(client);
        let (mut sent, mut received) = (None, None);
        drive(&mut ring, |_, event| {
            match event {
                Event::Sent { result, .. } => sent = Some(result),
                Event::ReceiveClosed { error, .. } => received = Some(error),
                other => panic!("unexpected {other:?}"),
            }
            sent.is_some() && received.is_some()
        });
        assert!(sent.unwrap().is_err(), "the send cannot have succeeded");
        ring.close(token);
        assert!(!ring.is_open(token));
    }
    assert_eq!(ring.connections(), 0);
}

/// Goal: completions of a closed connection never reach its successor in the slot.
/// Method: bytes and a send are in flight when the connection is closed; the next one gets the
/// same slot, and says who it is in its bytes.
#[test]
fn a_reused_slot_gets_no_stale_completion() {
    let tight = UringLimits { connections_max: 1, ..limits() };
    let (mut ring, addr, _bell) = listening(tight);
    let mut slots = std::collections::HashSet::new();
    let mut dead: Vec<Token> = Vec::new();
    for number in 0..300u64 {
        let (mut client, token) = connect_and_swallow(&mut ring, addr, &dead);
        slots.insert(token.slot());
        assert!(!dead.contains(&token), "a token lives only once");
        client.write_all(&pattern_bytes(number, 100)).unwrap();
        let mut bytes = Vec::new();
        drive(&mut ring, |_, event| {
            let Event::Received { token: from, bytes: some } = event else { panic!("{event:?}") };
            assert_eq!(from, token, "an event for a dead token");
            bytes.extend_from_slice(&some);
            bytes.len() == 100
        });
        assert_eq!(bytes, pattern_bytes(number, 100), "bytes of another connection");
        // Leave completions behind: more bytes, and a send, both done before the close.
        client.write_all(&[0xee; 50]).unwrap();
        ring.send(token, vec![1; 10]).unwrap();
        ring.submit().unwrap();
        ring.close(token);
        for refused in [token, dead.first().copied().unwrap_or(token)] {
            let refused = ring.send(refused, vec![1]).unwrap_err();
            assert_eq!(refused.why, SendRefusedWhy::Closed);
        }
        dead.push(token);
    }
    assert!(slots.len() <= 2, "slots are reused: {}", slots.len());
}

fn connect_and_swallow(
    ring: &mut Uring,
    addr: std::net::SocketAddr,
    dead: &[Token],
) -> (TcpStream, Token) {
    let client = TcpStream::connect(addr).unwrap();
    let mut found = None;
    drive(ring, |_, event| match event {
        Event::Accepted { token, .. } => {
            found = Some(token);
            true
        }
        other => panic!("unexpected {other:?} with {} dead", dead.len()),
    });
    (client, found.unwrap())
}

/// Goal: the memory of a send outlives it, also when the connection is closed in its middle.
/// Method: the freed buffers would be overwritten at once; what the miner reads before the end
/// must still be the pattern.
#[test]
fn closing_during_a_send_keeps_its_memory_until_the_kernel_is_done() {
    let (mut ring, addr, _bell) = listening(limits());
    for number in 0..30 {
        let (mut client, token) = connect(&mut ring, addr);
        ring.send(token, pattern_bytes(number, 4 * MEBIBYTE)).unwrap();
        ring.submit().unwrap();
        ring.close(token);
        let overwriting: Vec<Vec<u8>> = (0..4).map(|_| vec![0xaa; 4 * MEBIBYTE]).collect();
        ring.submit().unwrap();
        let mut bytes = Vec::new();
        let ended = client.read_to_end(&mut bytes);
        assert!(ended.is_err() || bytes.len() < 4 * MEBIBYTE);
        let expected = pattern_bytes(number, bytes.len());
        assert!(bytes == expected, "bytes of freed memory were sent");
        drop(overwriting);
    }
    drive_until(&mut ring, |_, event| panic!("{event:?}"), |ring| ring.connections() == 0);
}

/// Goal: dropping the ring closes every socket, with sends, receives and timeouts in flight.
#[test]
fn dropping_the_ring_closes_everything_in_bounded_time() {
    let (mut ring, addr, _bell) = listening(limits());
    let connected: Vec<_> = (0..10).map(|_| connect(&mut ring, addr)).collect();
    let mut clients = Vec::new();
    for (mut client, token) in connected {
        ring.send(token, vec![3; 4 * MEBIBYTE]).unwrap();
        client.write_all(&[1; 100]).unwrap();
        clients.push(client);
    }
    ring.set_deadline(Duration::from_secs(3600));
    ring.submit().unwrap();
    let held = ring.next_event();
    let start = Instant::now();
    drop(ring);
    assert!(start.elapsed() < Duration::from_secs(20));
    drop(held); // A buffer that outlived its ring is still memory of ours.
    for mut client in clients {
        let mut bytes = Vec::new();
        let ended = client.read_to_end(&mut bytes);
        assert!(ended.is_err() || bytes.len() < 4 * MEBIBYTE);
    }
    assert!(TcpStream::connect(addr).is_err(), "the listener is closed");
}

/// Goal: the last message reaches a miner that had sent more than we read.
#[test]
fn a_graceful_close_delivers_the_last_message() {
    let (mut ring, addr, _bell) = listening(limits());
    for is_sending in [true, false] {
        let (mut client, token) = connect(&mut ring, addr);
        client.write_all(&[5; 20_000]).unwrap();
        if is_sending {
            ring.send(token, pattern_bytes(1, MEBIBYTE)).unwrap();
        }
        ring.close_gracefully(token);
        assert!(!ring.is_open(token) && ring.send(token, vec![1]).is_err());
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            client.write_all(&[5; 20_000]).unwrap();
            client.read_to_end(&mut bytes).unwrap();
            client.shutdown(Shutdown::Both).unwrap();
            bytes
        });
        drive_until(&mut ring, |_, event| panic!("{event:?}"), |ring| ring.connections() == 0);
        let expected = if is_sending { MEBIBYTE } else { 0 };
        assert!(reader.join().unwrap() == pattern_bytes(1, expected));
    }
    assert_eq!(ring.counters().lingers_cut, 0);
}

/// Goal: a miner that never closes its side does not keep a place for ever.
#[test]
fn a_graceful_close_is_cut_after_some_seconds() {
    let (mut ring, addr, _bell) = listening(limits());
    let (client, token) = connect(&mut ring, addr);
    ring.close_gracefully(token);
    let start = Instant::now();
    drive_until(&mut ring, |_, event| panic!("{event:?}"), |ring| ring.connections() == 0);
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(ring.counters().lingers_cut, 1);
    drop(client);
    let (_client, token) = connect(&mut ring, addr);
    ring.close_gracefully(token);
    ring.close(token);
    assert_eq!(ring.connections(), 0, "close cuts it at once");
}

/// Goal: an outbound connection between two rings works as an accepted one does.
#[test]
fn an_added_socket_talks_to_another_ring() {
    let (mut server, addr, _bell) = listening(limits());
    let bell = Bell::new().unwrap();
    let mut near = Uring::new(limits(), &bell).unwrap();
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_nonblocking(true).unwrap();
    let token = near.add(stream).unwrap();
    near.send(token, pattern_bytes(9, 1000)).unwrap();
    near.submit().unwrap();
    let mut echo = common::Echo::default();
    drive(&mut server, |ring, event| {
        let is_sent = matches!(event, Event::Sent { .. });
        echo.on_event(ring, event);
        is_sent && echo.bytes == 1000
    });
    let mut bytes = Vec::new();
    drive(&mut near, |_, event| {
        if let Event::Received { bytes: some, .. } = event {
            bytes.extend_from_slice(&some);
        }
        bytes.len() == 1000
    });
    assert_eq!(bytes, pattern_bytes(9, 1000));
}
