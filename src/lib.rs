//! The gateway: miners on one side, verified work and a pool's backend on the other.
//!
//! ```text
//!                bitcoind                       pool-verifier                    pool backend
//!                   │                                 ▲ │                              ▲
//!            template-manager ──────────────┐         │ │ verdicts                     │ POST
//!                                 templates ▼         │ ▼                              │
//!                                        ┌────────────────┐               ┌──────────────────────┐
//!   operator ◀── /metrics, /status ──────│    CONTROL     │               │      FORWARDER       │
//!                                        └────────────────┘               └──────────────────────┘
//!                                          │ board ring ▲                       ▲ share ring
//!                                          ▼  solution ring                     │
//!                    ┌───────────────────┐   ┌───────────────────┐   ┌───────────────────┐
//!                    │      SHARD 0      │   │      SHARD 1      │ … │      SHARD n      │
//!                    └───────────────────┘   └───────────────────┘   └───────────────────┘
//!                        ▲  one core each, each with its own miners, Noise inside TCP
//!                      miners
//! ```
//!
//! Every decision is taken in a machine ([`machine`]), which knows no sockets, files, clocks,
//! threads or entropy; a driver ([`drive`]) does what it is told. Cores talk only through rings.
//!
//! Reading order: this page, [`machine`], `machine/connection.rs`, `machine/channel.rs`,
//! `drive/shard.rs`, then `tests/sim/world.rs`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
pub mod drive;
pub mod limits;
pub mod machine;
pub mod metrics;
pub mod mode;
pub mod reason;
