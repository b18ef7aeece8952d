//! The checks themselves, by what they look at. Each is a pure function of the case.

pub(crate) mod chain;
pub(crate) mod coinbase;
pub(crate) mod economics;
pub(crate) mod spends;
pub(crate) mod sums;
pub(crate) mod transactions;
