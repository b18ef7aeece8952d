//! The work: templates, jobs and shares, in Bitcoin's own terms.
//!
//! This crate knows nothing of Stratum V2 and does no IO. It is shared by the gateway, the
//! verifier, template-manager and the load generator, so that a target, a merkle path or a
//! coinbase is computed by one piece of code wherever it is needed.
//!
//! Reading order: [`hash`] and [`target`] (the numbers), [`template`] and [`tip`] (what the node
//! offers), [`coinbase`] and [`job`] (what a miner is given), [`share`] (what comes back),
//! [`block`] (what goes to the node). [`contract`] holds what the services say to each other.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod block;
pub mod coinbase;
pub mod contract;
pub mod difficulty;
pub mod extranonce;
pub mod hash;
pub mod job;
pub mod merkle;
pub mod now;
pub mod payout;
pub mod reserve;
pub mod seen;
pub mod share;
pub mod target;
pub mod template;
pub mod tip;
pub mod verdict;

pub use coinbase::Coinbase;
pub use difficulty::{Difficulty, Work};
pub use hash::{BlockHash, MerkleNode, Txid, Wtxid};
pub use job::Job;
pub use now::{Mono, Now, UnixTime};
pub use target::Target;
pub use template::{Template, TemplateId, Transaction};
pub use tip::Tip;
pub use verdict::{Decision, Verdict};
