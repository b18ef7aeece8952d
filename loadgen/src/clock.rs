//! The only place of this package that reads clocks; everything else is told the time.
#![allow(clippy::disallowed_methods)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use work::{Mono, Now, UnixTime};

/// Reads both clocks against one origin, so that [`Mono`] values of all threads compare.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic zero is now.
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// Microseconds since [`Clock::start`].
    pub fn mono(&self) -> Mono {
        Mono(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        // A clock set before 1970 reads as 1970; certificates are then refused, with both times.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = UnixTime(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX));
        Now { mono: self.mono(), unix }
    }
}
