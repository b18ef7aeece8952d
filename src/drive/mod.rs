//! The hands: sockets, files, clocks, threads, logs. The only folder that names glommio.
//!
//! A driver decides nothing: a branch here depends only on the result of an operation or on what
//! a machine said.
//!
//! ```text
//! launch.rs     threads, rings, wiring, the end
//! shard.rs      one pinned core with its miners
//! control.rs    the control core
//! verifier.rs   the link to the verifier, on a thread of its own
//! nodes.rs      a thread per node that takes blocks, and their copies on disk
//! forwarder.rs  the forwarder core
//! sender.rs     threads that post batches
//! ops/          HTTP: metrics, health, status, events, shares, dead letters
//! exposition.rs the counters in Prometheus form
//! disk.rs       the journal's files
//! outbox.rs     the forwarder with all that it needs
//! rows.rs       which number has which name
//! data_dir.rs   the one folder that is written to
//! clock.rs      the only clock
//! wait.rs       sleeping on a bell
//! ```

pub mod clock;
pub mod control;
pub mod data_dir;
pub mod disk;
pub mod exposition;
pub mod forwarder;
pub mod launch;
pub mod nodes;
pub mod notes;
pub mod ops;
pub mod outbox;
pub mod rows;
pub mod sender;
pub mod shard;
pub mod verifier;
pub mod wait;
