//! What the tests of the socket ring share: a ring with a loopback listener, a bounded loop, and
//! a recognisable stream of bytes.

#![allow(dead_code)] // Each test file uses its own part.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rg_ring::{Bell, Event, Token, Uring, UringLimits, bind_exclusive};

/// No test waits longer than this for anything.
pub const LIMIT: Duration = Duration::from_secs(30);

pub fn limits() -> UringLimits {
    UringLimits {
        connections_max: 512,
        receive_buffers: 256,
        receive_buffer_bytes: 2048,
        send_buffers_kept: 256,
    }
}

/// A ring with one loopback listener.
pub fn listening(limits: UringLimits) -> (Uring, SocketAddr, Bell) {
    let bell = Bell::new().unwrap();
    let mut ring = Uring::new(limits, &bell).unwrap();
    let addr = listen(&mut ring);
    (ring, addr, bell)
}

pub fn listen(ring: &mut Uring) -> SocketAddr {
    let listener = bind_exclusive("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    ring.listen(listener).unwrap();
    addr
}

/// Feeds events to `step` until it returns true; fails after [`LIMIT`].
pub fn drive(ring: &mut Uring, mut step: impl FnMut(&mut Uring, Event) -> bool) {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        ring.wait(Some(Duration::from_millis(20))).unwrap();
        while let Some(event) = ring.next_event() {
            if step(ring, event) {
                return;
            }
        }
    }
    panic!("not done after {LIMIT:?}: {:?}", ring.counters());
}

/// Turns until `done` says so; events go to `step`.
pub fn drive_until(
    ring: &mut Uring,
    mut step: impl FnMut(&mut Uring, Event),
    mut done: impl FnMut(&mut Uring) -> bool,
) {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if done(ring) {
            return;
        }
        ring.wait(Some(Duration::from_millis(5))).unwrap();
        while let Some(event) = ring.next_event() {
            step(ring, event);
        }
    }
    panic!("not done after {LIMIT:?}: {:?}", ring.counters());
}

/// Connects and waits for the ring to announce it.
pub fn connect(ring: &mut Uring, addr: SocketAddr) -> (TcpStream, Token) {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.set_write_timeout(Some(LIMIT)).unwrap();
    client.set_nodelay(true).unwrap();
    let local = client.local_addr().unwrap();
    let mut found = None;
    drive(ring, |_, event| match event {
        Event::Accepted { token, peer } => {
            assert_eq!(peer, local);
            found = Some(token);
            true
        }
        other => panic!("unexpected {other:?}"),
    });
    (client, found.unwrap())
}

/// Byte `index` of the stream number `stream`: any loss, repetition or mix-up shows.
pub fn pattern(stream: u64, index: usize) -> u8 {
    let mixed = (index as u64 ^ stream << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

pub fn pattern_bytes(stream: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| pattern(stream, index)).collect()
}

/// An echo server's state beside the ring: what each connection is still to be sent.
#[derive(Default)]
pub struct Echo {
    pub pending: HashMap<Token, Vec<u8>>,
    pub closed: usize,
    pub bytes: usize,
}

impl Echo {
    pub fn on_event(&mut self, ring: &mut Uring, event: Event) {
        match event {
            Event::Accepted { token, .. } => {
                assert!(self.pending.insert(token, Vec::new()).is_none());
            }
            Event::Received { token, bytes } => {
                self.bytes += bytes.len();
                self.pending.get_mut(&token).unwrap().extend_from_slice(&bytes);
                self.flush(ring, token);
            }
            Event::Sent { token, result } => {
                result.unwrap();
                self.flush(ring, token);
            }
            Event::ReceiveClosed { token, error } => {
                assert_eq!(error, None);
                self.pending.remove(&token).unwrap();
                ring.close(token);
                self.closed += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn flush(&mut self, ring: &mut Uring, token: Token) {
        let pending = self.pending.get_mut(&token).unwrap();
        if !pending.is_empty() && !ring.is_sending(token) {
            let mut bytes = ring.take_buffer();
            assert!(bytes.is_empty());
            bytes.append(pending);
            ring.send(token, bytes).unwrap();
        }
    }
}
