//! The trace: one line per thing that happened, hashed; printed when one seed is replayed.

use std::fmt;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use work::Mono;

/// Everything that happened, as a hash and, if wanted, as text.
pub struct Trace {
    hash: Sha256,
    line: String,
    is_printed: bool,
    /// Lines so far.
    pub count: u64,
}

impl Trace {
    pub fn new(is_printed: bool) -> Trace {
        Trace { hash: Sha256::new(), line: String::new(), is_printed, count: 0 }
    }

    /// One thing happened.
    pub fn note(&mut self, at: Mono, what: fmt::Arguments<'_>) {
        self.line.clear();
        let _ = write!(self.line, "{:>12.6} {what}", at.0 as f64 / 1e6);
        if self.is_printed {
            println!("{}", self.line);
        }
        self.hash.update(self.line.as_bytes());
        self.hash.update(b"\n");
        self.count += 1;
    }

    /// Hash over all lines so far.
    pub fn hash(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}
