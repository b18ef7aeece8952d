//! The template policy: a pure function from a proposal, the chain and the operator's rules to a
//! ruling.
//!
//! ```text
//! raw transactions ──▶ TransactionFacts (once each, kept by the caller under the wtxid)
//! policy.toml ───────▶ Policy ──────────────┐
//! TemplatePropose + facts ──▶ Proposal ──▶ judge ──▶ Ruling ──▶ TemplateVerdict
//! chain, clock ──────▶ Context ─────────────┘
//! ```
//!
//! Nothing here reads a clock, a file or a socket, so the same three inputs give the same ruling
//! byte for byte, today in the verifier and next year in a replay. Every check recomputes its
//! fact from the bytes; none compares a proposal with itself.
//!
//! Reading order: [`catalogue`] (the table of checks), [`judge`], [`policy`], [`facts`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod catalogue;
mod checks;
pub mod coinbase;
pub mod context;
pub mod facts;
pub mod judge;
mod links;
mod outcome;
pub mod policy;
pub mod proposal;
pub mod toml_error;

pub use catalogue::{CHECKS, Check, IfMissing, Severity};
pub use context::Context;
pub use facts::TransactionFacts;
pub use judge::{Detail, Ruling, judge};
pub use policy::{OnMissingContext, Policy};
pub use proposal::{JudgedTransaction, Proposal};
pub use toml_error::TomlError;
