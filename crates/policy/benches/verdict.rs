//! What a verdict on a full template costs: the facts of its transactions, which a verifier makes
//! once each, and judging itself. `cargo bench -p policy`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::time::{Duration, Instant};

use bitcoin::{Amount, ScriptBuf, TxOut, Witness};
use fixture::*;
use policy::Proposal;

/// Rounds of each measurement.
const ROUNDS: usize = 9;

/// Transactions of the template: as many as a busy block of 4 MWU has.
const TRANSACTIONS: u32 = 4_790;

/// Of so many transactions one is a child of the one before it.
const FAMILY: u32 = 4;

/// Two inputs, two outputs and about 830 weight units, as an ordinary payment has.
fn payments() -> Vec<bitcoin::Transaction> {
    let mut made: Vec<bitcoin::Transaction> = Vec::new();
    for number in 0..TRANSACTIONS {
        let mut payment = match made.last() {
            Some(parent) if number % FAMILY == 1 => child(parent),
            _ => transaction(number),
        };
        let second = transaction(TRANSACTIONS + number).input[0].clone();
        payment.input.push(second);
        for input in &mut payment.input {
            input.witness = Witness::from_slice(&[vec![7; 72], vec![8; 33]]);
        }
        payment.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x53; 22]);
        let change = ScriptBuf::from_bytes(vec![0x54; 22]);
        payment.output.push(TxOut { value: Amount::from_sat(1), script_pubkey: change });
        made.push(payment);
    }
    made
}

/// The best and the median time of [`ROUNDS`] calls.
fn row(name: &str, mut once: impl FnMut()) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            once();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("{name:<40}{:>10.2?} best{:>10.2?} median", times[0], times[ROUNDS / 2]);
}

fn main() {
    let payments = payments();
    let weight: u64 = payments.iter().map(|payment| payment.weight().to_wu()).sum();
    let mut transactions: Vec<_> = payments.iter().map(proposed).collect();
    for transaction in &mut transactions {
        // Enough for any input of another template.
        transaction.fee = 20_000;
    }
    let fixture = Fixture::of(transactions);
    println!("\nverdict on {TRANSACTIONS} transactions, {weight} WU");
    row("facts of all transactions (cold)", || drop(fixture.judged()));
    let judged = fixture.judged();
    let proposal = Proposal { template: &fixture.template, transactions: &judged };
    let judge = || policy::judge(&proposal, &fixture.context, &fixture.policy);
    row("judging (what a warm verdict costs)", || drop(judge()));
    println!("{:?} {:?}", judge().decision, judge().reason_codes);
}
