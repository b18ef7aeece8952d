//! What the roads between cores cost: a hop through a ring, the fan-out of a new tip, and the
//! proposal of a full template to the verifier. `cargo bench --bench cores`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/in_memory/mod.rs"]
mod in_memory;
mod measure;

use std::sync::Arc;

use gateway::limits::{CATCH_UPS_PER_TURN, SHARES_PER_TURN};
use gateway::machine::Entry;
use gateway::machine::output::{ChannelKey, ShareRecord};
use gateway::machine::verifier_link::{Caller, VerifierLink};
use in_memory::{Desk, EXTRANONCE_BYTES, NBITS, UNIX_SECONDS, job};
use measure::{head, ignore, row, watch};
use rg_ring::{Bell, ring};
use work::contract::verifier::ProposeReason;
use work::payout::{Network, Payout};
use work::template::merkle_path;
use work::{
    BlockHash, Difficulty, Job, Mono, Now, Template, TemplateId, Tip, Transaction, Txid, UnixTime,
    Wtxid,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOPS: u64 = 100_000;
const RING_ITEMS: usize = 1_024;
const CONNECTIONS: u32 = 2_000;

/// Transactions of a full template, each of 1 600 weight units, half of it witness.
const TRANSACTIONS: u64 = 2_495;
const TRANSACTION_BYTES: usize = 640;

fn main() {
    head("cores");
    ring_on_one_thread();
    ring_between_threads();
    fan_out();
    proposals();
}

fn record() -> Entry {
    Entry::Share(ShareRecord {
        sequence: 1,
        channel: ChannelKey(1),
        share_id: 1,
        share_hash: BlockHash([1; 32]),
        accepted_at: UnixTime(1),
        latency_micros: 0,
        sequence_number: 1,
        job_id: 1,
        template_id: TemplateId(1),
        height: 840_000,
        prev_hash: BlockHash([2; 32]),
        nbits: NBITS,
        version: 0x2000_0000,
        ntime: UNIX_SECONDS,
        nonce: 1,
        rolled: gateway::machine::output::Rolled::default(),
        worker: 0,
        coinbase_value: 312_500_000,
        fees: 0,
        difficulty: Difficulty::ONE,
        block_found: false,
        coinbase_txid: None,
        hold: false,
    })
}

fn ring_on_one_thread() {
    let (mut sender, mut receiver) = ring(RING_ITEMS, Bell::new().unwrap());
    let entry = record();
    measure::each("ring: a share in and out, one thread", HOPS, |_| {
        assert!(sender.try_send(entry.clone()).is_ok());
        receiver.pop()
    });
}

/// Both ends busy, so that nobody sleeps: the cost of the hop, not of a wake-up.
fn ring_between_threads() {
    row("ring: a share from thread to thread, both busy", HOPS, || {
        let (mut sender, mut receiver) = ring(RING_ITEMS, Bell::new().unwrap());
        let reader = std::thread::spawn(move || {
            let mut taken = 0;
            while taken < HOPS {
                match receiver.pop() {
                    Some(entry) => {
                        std::hint::black_box(entry);
                        taken += 1;
                    }
                    None => std::hint::spin_loop(),
                }
            }
        });
        let entry = record();
        watch(true);
        let mut sent = 0;
        while sent < HOPS {
            for _ in 0..sender.credit().min((HOPS - sent) as usize) {
                assert!(sender.try_send(entry.clone()).is_ok());
                sent += 1;
            }
            std::hint::spin_loop();
        }
        reader.join().unwrap();
        watch(false);
    });
}

/// A new tip for every connection: the board, the coinbase and path of each channel, two sealed
/// messages, the completed send. No kernel.
fn fan_out() {
    let mut desk = Desk::new(ignore);
    let seats: Vec<_> = (0..CONNECTIONS).map(|number| desk.seat(number)).collect();
    let mut wires: Vec<Vec<u8>> = seats.iter().map(|_| Vec::with_capacity(256)).collect();
    let mut tip = 1u8;
    let count = u64::from(CONNECTIONS);
    row("switch: one connection's job and prev hash", count, || {
        tip = tip.wrapping_add(1);
        let job = job(u64::from(tip), tip);
        let now = desk.now;
        let mut sends = Vec::with_capacity(CATCH_UPS_PER_TURN);
        let mut written = 0;
        watch(true);
        desk.publish(job);
        while let Some(id) = desk.shard.next_ready(now, SHARES_PER_TURN) {
            desk.out.begin(SHARES_PER_TURN, wires.pop().unwrap_or_default());
            desk.shard.step(id, now, &mut desk.out);
            sends.push((id, std::mem::take(&mut desk.out.wire)));
            written += 1;
            // As a turn does: completed sends are looked at after so many catch-ups.
            if sends.len() == CATCH_UPS_PER_TURN {
                complete(&mut desk, &mut sends, &mut wires);
            }
        }
        complete(&mut desk, &mut sends, &mut wires);
        watch(false);
        assert_eq!(written, count);
    });
}

type Send = (gateway::machine::output::ConnectionId, Vec<u8>);

fn complete(desk: &mut Desk, sends: &mut Vec<Send>, wires: &mut Vec<Vec<u8>>) {
    for (id, wire) in sends.drain(..) {
        assert!(!wire.is_empty());
        desk.out.begin(SHARES_PER_TURN, wire);
        desk.shard.on_sent(id, desk.now, &mut desk.out);
        wires.push(std::mem::take(&mut desk.out.wire));
    }
}

/// Writing a proposal as lines of JSON, which is why the verifier's link is not on the control
/// core (docs/decisions.md).
fn proposals() {
    let transactions: Arc<[Arc<Transaction>]> = (0..TRANSACTIONS).map(transaction).collect();
    let (full, next) = (full_job(1, &transactions), full_job(2, &transactions));
    let weight = full.template.total_weight();
    assert!((3_990_000..4_000_000).contains(&weight), "{weight}");
    let now = Now { mono: Mono(1), unix: UnixTime(1) };
    let mut bytes = Vec::with_capacity(16 << 20);
    let mut sizes = [0; 2];
    let mut link = VerifierLink::new(caller());
    row("proposal of 4 MWU as JSON, all transactions new", 1, || {
        link.on_connected(now);
        sizes[0] = written(&mut link, &full, &mut bytes);
    });
    row("proposal of 4 MWU as JSON, all transactions known", 1, || {
        sizes[1] = written(&mut link, &next, &mut bytes);
    });
    println!("bytes of the two: {} and {}", sizes[0], sizes[1]);
}

fn written(link: &mut VerifierLink, job: &Arc<Job>, bytes: &mut Vec<u8>) -> usize {
    bytes.clear();
    watch(true);
    link.propose(Arc::clone(job), ProposeReason::NewTip);
    while let Some(line) = link.next_line() {
        serde_json::to_writer(&mut *bytes, &line).unwrap();
        bytes.push(b'\n');
    }
    watch(false);
    bytes.len()
}

fn caller() -> Caller {
    Caller {
        gateway_id: "gw-1".into(),
        network: Network::Regtest,
        instance_id: 1,
        epoch: 1,
        deadline_ms: 50,
    }
}

/// Contents do not matter to who writes them, their length does.
fn transaction(number: u64) -> Arc<Transaction> {
    let mut name = [0x5a; 32];
    name[..8].copy_from_slice(&number.to_le_bytes());
    Arc::new(Transaction {
        txid: Txid(name),
        wtxid: Wtxid(name),
        data: vec![number as u8; TRANSACTION_BYTES].into(),
        fee: 1_000 + number,
        weight: 1_600,
        sigops: 4,
    })
}

fn full_job(id: u64, transactions: &Arc<[Arc<Transaction>]>) -> Arc<Job> {
    let template = Template {
        id: TemplateId(id),
        tip: Tip { prev_hash: BlockHash([1; 32]), nbits: NBITS, min_ntime: UNIX_SECONDS },
        height: 840_000,
        version: 0x2000_0000,
        cur_time: UNIX_SECONDS,
        coinbase_value: 312_500_000,
        witness_commitment: [0x6a; 38],
        transactions: Arc::clone(transactions),
        merkle_path: merkle_path(transactions),
        rules: None,
        max_ntime: None,
    };
    let payouts = [Payout { script_pubkey: vec![0x51; 22], share: 1 }];
    Arc::new(Job::new(Arc::new(template), &payouts, b"", EXTRANONCE_BYTES).unwrap())
}
