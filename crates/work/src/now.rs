//! Time as an argument: machines are told what time it is and never ask.

use std::ops::{Add, Sub};

/// A reading of both clocks, taken once at the start of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and latencies: never goes back.
    pub mono: Mono,
    /// For what others see: certificates, `ntime`, records.
    pub unix: UnixTime,
}

/// Microseconds on a clock that never goes back; its zero has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(
    /// Microseconds.
    pub u64,
);

impl Mono {
    /// The moment `millis` milliseconds later.
    pub fn plus_millis(self, millis: u64) -> Mono {
        Mono(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// Microseconds since `earlier`; zero if that lies ahead.
    pub fn micros_since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<std::time::Duration> for Mono {
    type Output = Mono;
    fn add(self, duration: std::time::Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Mono {
    type Output = std::time::Duration;
    fn sub(self, earlier: Mono) -> std::time::Duration {
        std::time::Duration::from_micros(self.micros_since(earlier))
    }
}

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(
    /// Milliseconds.
    pub u64,
);

impl UnixTime {
    /// Whole seconds as Bitcoin's `ntime` and Noise certificates carry them; saturates in 2106.
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0 / 1_000).unwrap_or(u32::MAX)
    }
}
