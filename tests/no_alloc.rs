//! A share costs no allocation once its channel is open (I13).
//!
//! The production shard and a real miner, joined by a buffer; every allocation of the thread is
//! counted while the gateway's code runs, and only then. Alone in its file: the allocator that
//! counts is the whole program's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(unsafe_code)] // A global allocator that counts has to be declared unsafe.

mod in_memory;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use in_memory::{Desk, Seat, job};

/// Shares of the test.
const SHARES: u64 = 10_000;

/// Shares that arrive together: what one receive buffer of 2 kB holds.
const SHARES_PER_READ: u32 = 28;

struct Counting;

thread_local! {
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_COUNTING.try_with(Cell::get).unwrap_or(false) {
            let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        }
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

fn watch(gateway_runs: bool) {
    IS_COUNTING.set(gateway_runs);
}

/// Allocations of the gateway while `run` runs.
fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

/// `shares` more shares of this miner: read together, judged, made durable, acknowledged.
fn round(desk: &mut Desk, seat: &mut Seat, shares: u32) {
    let before = desk.shares;
    seat.submit(desk.now, shares);
    desk.deliver(seat);
    assert_eq!(desk.shares - before, u64::from(shares), "every share is accepted");
    desk.acknowledge(seat);
}

/// Goal: the counter sees the gateway's allocations, and none of the miner's.
/// Method: a handshake allocates, and so does a growing board; a miner alone does not count.
#[test]
fn the_counter_counts() {
    let mut desk = Desk::new(watch);
    let opening = allocations(|| {
        desk.seat(1);
    });
    assert!(opening > 0, "opening a channel allocates");
    let planted = allocations(|| {
        watch(true);
        drop(std::hint::black_box(vec![0u8; 100]));
        watch(false);
        drop(std::hint::black_box(vec![0u8; 100]));
    });
    assert_eq!(planted, 1);
}

/// Goal: decrypt, judge, record, and the sealed acknowledgement allocate nothing.
/// Method: 10 000 shares of one channel in reads of 28, each read acknowledged in one message;
/// the second of two reads is the first that counts.
#[test]
fn a_share_allocates_nothing() {
    let mut desk = Desk::new(watch);
    let mut seat = desk.seat(1);
    round(&mut desk, &mut seat, SHARES_PER_READ);
    let before = desk.shares;
    let counted = allocations(|| {
        while desk.shares - before < SHARES {
            round(&mut desk, &mut seat, SHARES_PER_READ);
        }
    });
    assert_eq!(counted, 0, "over {} shares", desk.shares - before);
    let report = seat.miner.report();
    assert_eq!(report.accepted, desk.shares, "the miner was told of every share");
    assert_eq!(report.outstanding, 0);
}

/// Goal: many miners and a new job between their shares change nothing.
/// Method: 50 miners take turns; the rounds after a new job on a new tip are counted, too.
#[test]
fn many_channels_and_a_new_tip() {
    let mut desk = Desk::new(watch);
    let mut seats: Vec<Seat> = (0..50).map(|number| desk.seat(number)).collect();
    for tip in 1..4 {
        desk.publish(job(u64::from(tip) + 1, tip + 1));
        // Jobs are handed out in the order of the table, one send each.
        for seat in &mut seats {
            let id = desk.shard.next_ready(desk.now, 1).unwrap();
            assert_eq!(id, seat.id);
            let now = desk.now;
            desk.gateway(seat, |shard, out| shard.step(id, now, out));
            round_of_one(&mut desk, seat);
        }
        let counted = allocations(|| {
            for seat in &mut seats {
                for _ in 0..4 {
                    round_of_one(&mut desk, seat);
                }
            }
        });
        assert_eq!(counted, 0, "on tip {tip}");
    }
}

/// A share of one miner while others may still wait for their job: no acknowledgement.
fn round_of_one(desk: &mut Desk, seat: &mut Seat) {
    let before = desk.shares;
    seat.submit(desk.now, 1);
    desk.deliver(seat);
    assert_eq!(desk.shares - before, 1);
}

/// Goal: a frame that is cut by the edge of a read costs at most the one buffer it waits in.
/// Method: each read ends in the middle of a share.
#[test]
fn a_cut_frame_costs_one_buffer() {
    let mut desk = Desk::new(watch);
    let mut seat = desk.seat(1);
    round(&mut desk, &mut seat, SHARES_PER_READ);
    let reads = 500;
    let counted = allocations(|| {
        for _ in 0..reads {
            seat.submit(desk.now, 2);
            let rest = seat.to_gateway.split_off(100);
            desk.deliver(&mut seat);
            seat.to_gateway.extend_from_slice(&rest);
            desk.deliver(&mut seat);
            desk.acknowledge(&mut seat);
        }
    });
    assert!(counted <= 2 * reads, "{counted} allocations for {reads} cut frames");
    assert!(counted > 0, "a cut frame is kept somewhere");
}
