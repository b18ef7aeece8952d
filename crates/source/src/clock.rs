//! The clock of the threads of this crate. The machines beside them are told the time.
#![allow(clippy::disallowed_methods, reason = "this is where drivers read the clock")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use work::now::{Mono, UnixTime};
use work::template::TemplateId;

/// Milliseconds since 1970; zero if the system's clock stands before that.
pub fn unix() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A reading for deadlines and latencies.
pub fn mono() -> Instant {
    Instant::now()
}

/// Gives readings that machines take, from the moment it is made.
#[derive(Debug, Clone, Copy)]
pub struct MonoClock(Instant);

impl MonoClock {
    /// A clock whose zero is a second ago, so that what happened shortly before has a place on it.
    pub fn start() -> MonoClock {
        MonoClock(Instant::now())
    }

    /// The reading now.
    pub fn now(&self) -> Mono {
        let micros = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        Mono(micros).plus_millis(1_000)
    }

    /// Time until `moment`; none if it has passed.
    pub fn until(&self, moment: Mono) -> Duration {
        moment - self.now()
    }
}

/// Names for templates: they follow the clock's milliseconds and never repeat or fall, so they
/// rise across restarts, too.
#[derive(Debug, Default)]
pub struct TemplateIds {
    last: u64,
}

impl TemplateIds {
    /// The next name at `now`.
    pub fn next(&mut self, now: UnixTime) -> TemplateId {
        self.last = self.last.saturating_add(1).max(now.0);
        TemplateId(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_falls() {
        let mut ids = TemplateIds::default();
        let made = [50, 50, 10, 60].map(|millis| ids.next(UnixTime(millis)).0);
        assert_eq!(made, [50, 51, 52, 60]);
    }
}
