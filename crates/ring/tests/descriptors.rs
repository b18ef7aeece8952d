//! Out of descriptors. Alone in its file, and so in its process: it lowers the process's limit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use std::fs::File;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{connect, drive, limits, listening};
use rg_ring::Event;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Goal: without a free descriptor the listener retries at a human pace, says so, and accepts
/// the miners that waited once there is one.
#[test]
fn no_hot_loop_without_descriptors() {
    // Before anything listens: the kernel notes the limit when an accept is armed.
    let before = getrlimit(Resource::Nofile);
    let low = Rlimit { current: Some(64), maximum: before.maximum };
    setrlimit(Resource::Nofile, low).unwrap();
    let (mut ring, addr, _bell) = listening(limits());
    let (_first, token) = connect(&mut ring, addr);
    let mut hoard: Vec<File> = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    hoard.pop();
    let waiting = TcpStream::connect(addr).unwrap(); // Takes the last descriptor.
    let start = Instant::now();
    let (mut failures, mut turns) = (0, 0);
    while start.elapsed() < Duration::from_secs(1) {
        ring.wait(Some(Duration::from_millis(50))).unwrap();
        turns += 1;
        while let Some(event) = ring.next_event() {
            let Event::AcceptFailed { error, retry_after } = event else { panic!("{event:?}") };
            assert_eq!(error, libc::EMFILE);
            assert!(retry_after >= Duration::from_millis(50));
            failures += 1;
        }
    }
    assert!((2..=15).contains(&failures), "{failures} failed accepts in a second");
    assert!(turns < 200, "{turns} turns in a second");
    assert_eq!(ring.counters().accept_failures, failures);
    hoard.clear();
    drive(&mut ring, |_, event| match event {
        Event::Accepted { peer, .. } => peer == waiting.local_addr().unwrap(),
        Event::AcceptFailed { .. } => false,
        other => panic!("unexpected {other:?}"),
    });
    assert!(ring.is_open(token), "the connection before lives on");
    setrlimit(Resource::Nofile, before).unwrap();
}
