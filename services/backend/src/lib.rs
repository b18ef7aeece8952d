//! The reference backend: the pool's side of share forwarding, small enough to be read in one go.
//!
//! A gateway POSTs batches of accepted shares here. The backend checks the signature of the raw
//! body, credits every share hash once, makes that durable, and answers with one result a share.
//! A pool that writes its own receiver can run this one beside it and compare the answers.
//!
//! ```text
//!  POST /shares ─► signature ─► queue ─► ledger thread (SQLite, one transaction a batch) ─► answer
//!                                            └─► snapshot ─► /status, /metrics
//! ```
//!
//! Reading order: [`signature`] (who may speak), [`ledger`] (what is credited), [`writer`] (the
//! thread that owns the ledger), [`http`] (the routes), [`service`] (start and stop).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod http;
pub mod ledger;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod service;
pub mod signature;
pub mod writer;
