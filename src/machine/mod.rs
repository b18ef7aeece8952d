//! The machines: every decision of the gateway, without IO.
//!
//! A machine is handed bytes or facts and the time, and writes what it wants done into an
//! [`Output`] (shards) or a list of actions (control, forwarder). It takes borrowed input, is
//! total (no bytes make it panic), deterministic (same state and input, same output), bounded,
//! and neither logs nor reads a clock: it counts, and it returns reasons.
//!
//! A driver does what it is told, in one order: solutions, entries, wire, then [`Flow`]. It holds
//! no borrow of a machine across an `await` and looks at bells, deadlines and bytes in that order.
//!
//! ```text
//! shard.rs       connections of one core: accept, route, fan out, expire
//! state.rs       what its connections have in common
//! connection.rs  one miner: Handshake, Setup, Open
//! session.rs     an open connection's channels and the answers about them
//! opening.rs     who may open a channel, and how it begins
//! channel.rs     one mining channel: jobs given, targets, batched answers
//! submission.rs  the share path
//! refusals.rs    how much is told of refused shares
//! targets.rs     which difficulty a share is judged by
//! numbers.rs     job numbers of a connection
//! workers.rs     workers behind an extended channel
//! board.rs       what control has decided, as one shard sees it
//! control.rs     which template may be mined; the prevhash switch
//! solution.rs    blocks on their way to the nodes
//! told.rs        what control tells the log
//! command.rs     what an operator orders the forwarder
//! forwarder.rs   batch, post, retry, settle
//! verifier_link.rs  what a verifier's connection has been told
//! ```

pub mod admission;
pub mod board;
pub mod channel;
pub mod command;
pub mod connection;
pub mod control;
pub mod flood;
pub mod forwarder;
pub mod identity;
pub mod numbers;
pub mod opening;
pub mod output;
pub mod refusals;
pub mod session;
pub mod shard;
pub mod solution;
pub mod state;
pub mod submission;
pub mod targets;
pub mod throttle;
pub mod told;
pub mod vardiff;
pub mod verifier_link;
pub mod workers;

pub use output::{Entry, Flow, Output, Report, ShareRecord, Solution};
