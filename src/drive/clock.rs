//! The only clock of the gateway.
#![allow(clippy::disallowed_methods)] // This is the place the others are kept from.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use work::{Mono, Now, UnixTime};

/// Both clocks, from one start, so that cores can compare their times.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins now. One per process, copied to every core.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        // One microsecond is kept free below, so that "never" can be zero.
        Now { mono: Mono(mono + 1), unix: UnixTime(unix) }
    }
}
