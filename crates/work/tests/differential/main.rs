//! Conformance 77: every decision about a share equals that of `channels_sv2`, the reference
//! implementation, on a random corpus, except the deviations listed in `deviations.rs`. Beside
//! the decisions, what they rest on is compared: coinbases, roots, targets, difficulties.
//!
//! The corpus is the same in every run. Targets are so easy that ordinary hashes meet or miss
//! them, and the nonce is searched for among a few thousand: every share is a real one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;
mod conversions;
mod corpus;
mod deviations;
mod ours;
mod theirs;
mod world;

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::strategy::Strategy as _;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use deviations::DEVIATIONS;
use world::World;

/// Worlds of the corpus; each has some 60 shares.
const WORLDS: u32 = 1_000;

/// A share as it is sent.
#[derive(Debug, Clone)]
pub struct Share {
    /// The job it names.
    pub job_id: u32,
    /// Header field.
    pub nonce: u32,
    /// Header field.
    pub ntime: u32,
    /// Header field.
    pub version: u32,
    /// What the miner rolled; empty on a standard channel.
    pub extranonce: Vec<u8>,
}

/// The coinbase of a found block, as the node gets it.
#[derive(Clone, PartialEq, Eq)]
pub struct Block(pub Vec<u8>);

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block(coinbase of {} bytes)", self.0.len())
    }
}

/// What was decided.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Why it is not accepted, as the miner is told; `None` if it is.
    pub code: Option<&'static str>,
    /// The block that goes to the node.
    pub block: Option<Block>,
    /// Difficulty it is credited with.
    pub credit: f64,
}

impl Outcome {
    /// Refused, and no block.
    pub fn refused(code: &'static str) -> Outcome {
        Outcome { code: Some(code), ..Outcome::default() }
    }

    /// Make it a refusal; a block stays a block.
    pub fn refuse(&mut self, code: &'static str) {
        self.code = Some(code);
        self.credit = 0.0;
    }

    /// Make it accepted; a block stays a block.
    pub fn accept(&mut self, credit: f64) {
        self.code = None;
        self.credit = credit;
    }

    /// The same decision. Credits of the reference are sums of floating point.
    pub fn is_like(&self, other: &Outcome) -> bool {
        let off = (self.credit - other.credit).abs();
        let is_near = off <= 1e-6 * self.credit.abs().max(other.credit.abs()).max(1e-9);
        self.code == other.code && self.block == other.block && is_near
    }
}

/// Goal: over the whole corpus nothing differs but what is listed; every verdict and every
/// listed deviation comes up in it.
/// Method: both sides judge the same shares; a failing world is shrunk to its shortest.
#[test]
fn every_decision_is_the_references_or_listed() {
    let met: RefCell<HashMap<&'static str, u64>> = RefCell::default();
    let config = Config { cases: WORLDS, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let worlds = (corpus::setup(), corpus::steps());
    let result = TestRunner::new_with_rng(config, rng).run(&worlds.boxed(), |(setup, steps)| {
        let mut world = World::new(&setup);
        for step in &steps {
            world.step(step).map_err(TestCaseError::fail)?;
        }
        for (name, count) in &world.met {
            *met.borrow_mut().entry(name).or_default() += count;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let met = met.borrow();
    let verdicts = [
        "accepted",
        "stale-share",
        "invalid-job-id",
        "bad-extranonce-size",
        "invalid-share",
        "invalid-non-rollable-version-bit",
        "version-rolling-not-allowed",
        "difficulty-too-low",
        "duplicate-share",
    ];
    for name in DEVIATIONS.iter().map(|deviation| deviation.name).chain(verdicts) {
        let count = met.get(name).copied().unwrap_or(0);
        println!("{count:>8}  {name}");
        assert!(count >= 10, "the corpus hardly shows \"{name}\": {count} times");
    }
    assert!(met["accepted"] >= 5_000, "most of the corpus is refused: {}", met["accepted"]);
}
