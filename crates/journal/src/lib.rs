//! The journal: the one log of everything that was accepted, refused, posted, settled and decided.
//!
//! It is the outbox of shares that the backend has not settled, the source of events, and the
//! source of exports (D4). The gateway's forwarder appends; everybody else only reads, with a
//! cursor of their own.
//!
//! ```text
//! record.rs    what is written: one enum, stable codes
//! share.rs     an accepted share and a refused one, each complete in itself
//! codec.rs     a record as bytes
//! segment.rs   segments, groups, positions: the layout of a file
//! writer.rs    the machine that appends: groups, syncs, segments, what to do when a disk fails
//! source.rs    where segments are read from
//! recover.rs   what a start finds: the end of the log, and every share that is still open
//! ranges.rs    sets of event numbers
//! walk.rs      from bytes to records, one after the other
//! folder.rs    segments in a folder; with cursor.rs the only part that reads files
//! cursor.rs    a reader's place: record after record, across segments, while they are written
//! files.rs     what a start does to them: recovery reads them, the torn tail is cut
//! miners.rs    who mined the share behind a result
//! index.rs     where to begin: by event, by time, by share
//! event.rs     a record as the events that a reader is told
//! export.rs    a share as a row of CSV, or a line of JSON
//! results.rs   what became of each share, in bounded memory
//! books.rs     whether everything adds up
//! audit.rs     the books of a whole folder
//! explain.rs   the whole way of one share
//! dead.rs      what the backend would not take
//! request.rs   what an export is asked for
//! unknown.rs   names in it that are none
//! ```
//!
//! Event numbers count events of one gateway without a gap, across segments and restarts.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod audit;
pub mod books;
pub mod codec;
mod cursor;
pub mod dead;
pub mod event;
pub mod explain;
pub mod export;
mod files;
pub mod folder;
pub mod index;
mod miners;
pub mod ranges;
pub mod record;
pub mod recover;
pub mod request;
mod results;
pub mod segment;
pub mod share;
pub mod source;
mod unknown;
pub mod walk;
pub mod writer;

pub use record::{Outcome, Record, Settlement};
pub use share::{Refusal, Share};
