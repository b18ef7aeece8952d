//! The load generator: thousands of SV2 miners in one process, and what they saw.
//!
//! [`miner`] is one miner as a machine: bytes and the time go in, bytes and events come out. It
//! knows no socket, clock or thread, so the load generator and the simulator drive the same code.
//! It is strict: whatever a server does against the specification ends it with an error that says
//! what was wrong. [`drive`] runs many of them over an io_uring a thread, with real hashing, and
//! [`report`] turns their events into percentiles.
//!
//! Reading order: [`miner`], [`drive`], [`report`], then the flags in `main.rs`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod clock;
pub mod drive;
pub mod miner;
pub mod report;

pub use miner::{Miner, MinerConfig, MinerError, MinerEvent, MinerReport};
