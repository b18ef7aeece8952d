//! The house rules as a test, over every file of the project.
//!
//! A rule is a function from a file to complaints; each has a small test of its own that shows
//! that it can complain. A complaint names the file, the line and what to do.
//!
//! ```text
//! tree.rs       the files
//! rust.rs       a file's code, without its comments, texts and tests
//! shape.rs      columns, lines, functions, pages, leftovers
//! floors.rs     who may know whom: clocks, locks, executors, crates
//! words.rs      nothing of the machine it was written on
//! documents.rs  invariants and their guards, reasons, metrics, the sample configuration
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/rust.rs"]
mod rust;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/words.rs"]
mod words;
