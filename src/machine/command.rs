//! What an operator orders the forwarder to do.
//!
//! Orders name shares by the event of their acceptance. One that is no dead letter any more is
//! passed over, so that an order given twice does no harm.

/// An order about dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Post these shares again; at most [`crate::limits::COMMAND_SHARES_MAX`].
    Replay(Vec<u64>),
    /// Post all dead letters again.
    ReplayAll,
    /// Give these shares up, for this reason, which is their result; at most
    /// [`crate::limits::COMMAND_SHARES_MAX`].
    Discard(Vec<u64>, String),
}
