//! Conformance of the gateway's side of the Mining Protocol, statement by statement.
//!
//! The numbers are those of docs/protocol.md. Each test names the statements it shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../plain/mod.rs"]
mod plain;

mod acknowledgement;
mod bitcoin;
mod channels;
mod framing;
mod jobs;
mod noise;
mod robustness;
mod setup;
mod shares;
mod targets;
mod told;
