//! Where templates come from: the simulated chain, or a Bitcoin node (D7, D44).
//!
//! A [`Source`] runs on ordinary threads of its own and tells what it learns by [`SourceEvent`]s.
//! template-manager publishes them on its stream, and [`feed`] is the gateway's end of that
//! stream; with [`upstream`] it may also run a source itself. [`submit`] takes found blocks to
//! nodes.
//!
//! Reading order: [`event`] (what is told), [`demo`] (a chain that fits in one file),
//! [`bitcoind`] (a real one), [`failover`] (which of several), [`upstream`], [`feed`] and
//! [`submit`] (the gateway's clients).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod assemble;
pub mod bitcoind;
pub mod clock;
pub mod demo;
pub mod event;
pub mod failover;
pub mod feed;
pub mod rpc;
mod source;
pub mod submit;
pub mod upstream;

pub use event::{Deliver, SourceEvent, TipChannel};
pub use source::{Source, SourceConfig, SourceError, SourceKind};
