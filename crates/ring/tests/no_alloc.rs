//! The data path allocates nothing once it is warm. Alone in its file: it counts every
//! allocation of its thread.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]
#![allow(unsafe_code)] // A global allocator that counts has to be declared unsafe.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::time::Duration;

use common::{connect, limits, listening};
use rg_ring::Event;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: passed on from the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: passed on from the caller.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Goal: receiving, sending, pausing, resuming and moving the deadline allocate nothing.
#[test]
fn a_warm_echo_allocates_nothing() {
    let (mut ring, addr, _bell) = listening(limits());
    let (mut client, _token) = connect(&mut ring, addr);
    let mut back = [0u8; 100];
    let mut before = 0;
    for round in 0..1_000 {
        if round == 100 {
            before = ALLOCATIONS.get();
        }
        client.write_all(&[7; 100]).unwrap();
        let mut sent = 0;
        while sent < 1 {
            ring.set_deadline(Duration::from_secs(60));
            ring.wait(Some(Duration::from_secs(5))).unwrap();
            while let Some(event) = ring.next_event() {
                match event {
                    Event::Received { token, bytes } => {
                        let mut out = ring.take_buffer();
                        out.extend_from_slice(&bytes);
                        ring.send(token, out).unwrap();
                        ring.pause(token);
                        ring.resume(token);
                    }
                    Event::Sent { .. } => sent += 1,
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        client.read_exact(&mut back).unwrap();
    }
    assert!(before > 0, "the counter counts");
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
