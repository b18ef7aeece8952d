//! What the services say to each other. Only serde types live here; each service turns them
//! into its own at its edge.
//!
//! Hashes are text in RPC order (see [`crate::hash`]); other bytes are hexadecimal in wire order.

pub mod bytes;
pub mod chain;
pub mod feed;
pub mod shares;
pub mod verifier;
