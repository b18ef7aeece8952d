//! The demo: starts the real programs in order, shows what they do, stops them in order.
//!
//! Everything is written into one folder: `NAME.toml` (what a program is told), `NAME.log` (what it
//! says), `NAME/` (its data, with `addresses.json`).

pub mod collect;
pub mod draw;
pub mod folder;
pub mod model;
pub mod outcome;
pub mod plan;
pub mod program;
pub mod reading;
pub mod run;
pub mod services;
pub mod stop;

pub use run::run;
