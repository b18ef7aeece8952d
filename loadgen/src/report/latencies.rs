//! Latencies in an exact histogram, in microseconds.

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;

/// Longest latency told apart, in microseconds: a minute. Longer ones count as this.
pub const LATENCY_MICROS_MAX: u64 = 60_000_000;

/// Three digits of every value are kept.
const DIGITS: u8 = 3;

/// A histogram of microseconds.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u32>);

/// The points of a histogram that are told, microseconds; all zero if nothing was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Values recorded.
    pub count: u64,
    /// Half of all are at most this.
    pub p50: u64,
    /// 95 % of all are at most this.
    pub p95: u64,
    /// 99 % of all are at most this.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Latencies {
    /// Empty.
    ///
    /// # Errors
    /// None in practice: the bounds are constants that the histogram accepts.
    pub fn new() -> Result<Latencies, CreationError> {
        Latencies::with_max(LATENCY_MICROS_MAX)
    }

    /// Empty, for values up to `micros_max`; a smaller bound takes less memory.
    ///
    /// # Errors
    /// `micros_max` is below 2.
    pub fn with_max(micros_max: u64) -> Result<Latencies, CreationError> {
        Histogram::new_with_bounds(1, micros_max, DIGITS).map(Latencies)
    }

    /// Records one value.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// Adds all of `other`, which has the same bounds.
    pub fn merge(&mut self, other: &Latencies) {
        // Fails only if `other` holds values beyond our bound, which equal bounds exclude.
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok());
    }

    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The points that are told.
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Percentiles {
            count: self.0.len(),
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            max: self.0.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_is_as_if_recorded_together() {
        let (mut low, mut high) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        (1..=50).for_each(|micros| low.record(micros));
        (51..=100).for_each(|micros| high.record(micros));
        low.merge(&high);
        let expected = Percentiles { count: 100, p50: 50, p95: 95, p99: 99, max: 100 };
        assert_eq!(low.percentiles(), expected);
        assert_eq!(Latencies::new().unwrap().percentiles(), Percentiles::default());
    }

    #[test]
    fn too_long_counts_as_the_longest() {
        let mut latencies = Latencies::with_max(5_000_000).unwrap();
        latencies.record(u64::MAX);
        let max = latencies.percentiles().max;
        assert!((5_000_000..5_010_000).contains(&max), "{max}");
    }
}
