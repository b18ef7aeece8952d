//! Rings, bells and the socket ring: everything a core needs to talk to the outside.
//!
//! A core sleeps on one eventfd and is woken by three kinds of things, all through it: another
//! thread that rang its [`Bell`], a completion of its own io_uring, and a timeout of that
//! io_uring. Data between cores travels in single-writer, single-reader [`spsc`] rings; a number
//! that only grows travels in a [`Sequence`]. The miners' sockets of a core live in one
//! [`Uring`].
//!
//! This is the only crate of the product with unsafe code: the kernel writes into memory we lend
//! it, and no safe type can say so. Each module that needs it says why at its top, and each
//! block says what makes it sound. The crate knows nothing of mining and of no executor.
//!
//! Reading order: [`bell`], [`spsc`], [`uring`], then [`mod@probe`] and [`bind`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bell;
pub mod bind;
pub mod probe;
pub mod spsc;
pub mod uring;

pub use bell::{Bell, adopt};
pub use bind::{LISTEN_BACKLOG, bind_exclusive, bind_shards, bind_shared};
pub use probe::{Features, ProbeError, probe};
pub use spsc::{Receiver, Sender, Sequence, ring};
pub use uring::{
    Event, Received, SendRefused, SendRefusedWhy, TableFull, Token, Uring, UringCounters,
    UringLimits,
};
