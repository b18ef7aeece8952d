//! What a share costs: the arithmetic alone, and the whole path through the shard's machine.
//! `cargo bench --bench share`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/in_memory/mod.rs"]
mod in_memory;
mod measure;

use in_memory::{Desk, EXTRANONCE_BYTES, NBITS, PATH_NODES, UNIX_SECONDS, job};
use measure::{each, head, ignore, row, watch};
use work::share::{Claim, Terms, judge};
use work::{BlockHash, MerkleNode, Target, Tip};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHARES: u64 = 14_000;

/// Sealed shares of 70 bytes in one receive buffer of 2 kB.
const SHARES_PER_READ: u32 = 28;

fn main() {
    head("share");
    standard_arithmetic();
    extended_arithmetic();
    whole_path("standard share, whole path, alone in its read", 1);
    whole_path("standard share, whole path, 28 in a read", SHARES_PER_READ);
}

fn claim(nonce: u64) -> Claim {
    Claim {
        version: 0x2000_0000,
        merkle_root: MerkleNode([7; 32]),
        ntime: UNIX_SECONDS,
        nonce: nonce as u32,
    }
}

fn tip() -> Tip {
    Tip { prev_hash: BlockHash([8; 32]), nbits: NBITS, min_ntime: UNIX_SECONDS - 600 }
}

fn terms() -> Terms {
    Terms {
        version: 0x2000_0000,
        version_mask: work::share::VERSION_ROLLING_MASK,
        ntime_min: UNIX_SECONDS,
        ntime_max: UNIX_SECONDS + 600,
        target: Target::MAX,
    }
}

fn standard_arithmetic() {
    let (tip, terms) = (tip(), terms());
    each("standard share, arithmetic: header hash and verdict", SHARES, |nonce| {
        let claim = std::hint::black_box(claim(nonce));
        let hash = claim.hash(&tip);
        judge(&claim, &hash, &terms)
    });
}

/// A share whose miner rolls its own extranonce costs its coinbase and its merkle path, too.
fn extended_arithmetic() {
    let (job, tip, terms) = (job(1, 1), tip(), terms());
    let coinbase = job.coinbase.prefix.len() + EXTRANONCE_BYTES + job.coinbase.suffix.len();
    assert_eq!((coinbase, job.template.merkle_path.len()), (260, PATH_NODES));
    let prefix = [1u8; EXTRANONCE_BYTES - 8];
    each("extended share, arithmetic: 260-byte coinbase, 12 nodes", SHARES, |number| {
        let extranonce = std::hint::black_box(number).to_le_bytes();
        let merkle_root = job.merkle_root(&prefix, &extranonce);
        let claim = Claim { merkle_root, ..claim(number) };
        let hash = claim.hash(&tip);
        judge(&claim, &hash, &terms)
    });
}

/// Open, decode, judge, remember, record; the number of the durable share; the sealed
/// acknowledgement of each read; the completed send. No kernel.
fn whole_path(name: &str, shares_per_read: u32) {
    row(name, SHARES, || {
        let mut desk = Desk::new(ignore);
        let mut seat = desk.seat(1);
        let mut round = |desk: &mut Desk| {
            seat.submit(desk.now, shares_per_read);
            desk.deliver(&mut seat);
            desk.acknowledge(&mut seat);
        };
        round(&mut desk);
        desk.set_watch(watch);
        let before = desk.shares;
        while desk.shares - before < SHARES {
            round(&mut desk);
        }
        assert_eq!(desk.shares - before, SHARES);
    });
}
