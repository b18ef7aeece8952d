//! pool-verifier: judges every template before miners get it, and says why.
//!
//! ```text
//! gateways ══ TCP, NDJSON ══▶ connection ──▶ judging ──▶ policy::judge ──▶ verdict
//!                               │  cache        │ parks what builds on an unknown tip
//!                               │               ▼
//!                               │            chain ◀── template-manager's /chain, or own node
//!                               ▼
//!                      record: verdicts.ndjson, /verdicts, metrics
//! ```
//!
//! A connection's reader never judges, so pings are answered whatever is being judged, and a
//! coinbase-only proposal never waits behind a full one. The rules themselves are the `policy`
//! crate; this one only brings it proposals and context, and carries rulings back.
//!
//! Reading order: [`service`], [`connection`], [`judging`], [`chain`], [`limits`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod cache;
pub mod chain;
pub mod config;
pub mod connection;
pub mod gateways;
pub mod http;
pub mod judging;
pub mod limits;
pub mod lines;
pub mod metrics;
pub mod node;
pub mod record;
pub mod service;

pub use config::Config;
pub use service::{Running, start};
