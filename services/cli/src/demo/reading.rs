//! One scrape of `/metrics`, and the few questions the demo asks of it. A family that is missing
//! gives `None`, never an error: the screen shows a dash.

use std::collections::BTreeMap;

use prometheus_parse::{Sample, Scrape, Value};

/// Bytes of a scrape; series stay below 2 000.
pub const SCRAPE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a service exported.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    samples: Vec<Sample>,
}

impl Reading {
    /// From the text of `/metrics`. Lines that are not understood are skipped.
    pub fn parse(text: &str) -> Reading {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        // Reading from memory cannot fail.
        let samples = Scrape::parse(lines).map(|scrape| scrape.samples).unwrap_or_default();
        Reading { samples }
    }

    fn family<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.metric == name)
    }

    /// Sum of all series of a family that carry every one of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let carries = |sample: &&Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value))
        };
        let values = self.family(name).filter(carries).filter_map(number);
        values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }

    /// As [`Reading::sum`], as a count.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        // The cast saturates; a negative or broken number counts as none.
        self.sum(name, labels).map(|value| value as u64)
    }

    /// A family's series added up by the value of one label.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for sample in self.family(name) {
            if let (Some(key), Some(value)) = (sample.labels.get(label), number(sample)) {
                *sums.entry(key.to_owned()).or_insert(0) += value as u64;
            }
        }
        sums
    }

    /// The `quantile` (0 to 1) of a histogram over all its series, in its own unit, found as
    /// Prometheus does: linear inside the bucket. `None` while it is empty.
    pub fn quantile(&self, name: &str, quantile: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.family(name) {
            let Value::Histogram(counts) = &sample.value else { continue };
            for bucket in counts {
                match buckets.iter_mut().find(|(edge, _)| *edge == bucket.less_than) {
                    Some((_, count)) => *count += bucket.count,
                    None => buckets.push((bucket.less_than, bucket.count)),
                }
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let rank = buckets.last()?.1 * quantile;
        let (mut lower, mut below) = (0.0, 0.0);
        for (edge, count) in buckets {
            if count >= rank && count > 0.0 {
                // Above the last finite edge nothing is known but that edge.
                let part = if count > below { (rank - below) / (count - below) } else { 1.0 };
                return Some(if edge.is_finite() { lower + (edge - lower) * part } else { lower });
            }
            (lower, below) = (edge, count);
        }
        None
    }
}

fn number(sample: &Sample) -> Option<f64> {
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => Some(value),
        Value::Histogram(_) | Value::Summary(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP reservegrid_shares_total Shares
# TYPE reservegrid_shares_total counter
reservegrid_shares_total{reason_code=\"ok\"} 90
reservegrid_shares_total{reason_code=\"stale_share\"} 7
reservegrid_shares_total{reason_code=\"stale_share\",shard=\"1\"} 3
# TYPE reservegrid_connections gauge
reservegrid_connections{state=\"open\"} 24
reservegrid_connections{state=\"setup\"} 1
untyped_one 5
broken{ 6
# TYPE d histogram
d_bucket{outcome=\"ok\",le=\"0.05\"} 5
d_bucket{outcome=\"ok\",le=\"0.1\"} 10
d_bucket{outcome=\"ok\",le=\"+Inf\"} 10
d_bucket{outcome=\"late\",le=\"0.05\"} 0
d_bucket{outcome=\"late\",le=\"0.1\"} 0
d_bucket{outcome=\"late\",le=\"+Inf\"} 10
d_sum{outcome=\"ok\"} 1
d_count{outcome=\"ok\"} 10
# TYPE empty histogram
empty_bucket{le=\"1\"} 0
empty_bucket{le=\"+Inf\"} 0
empty_sum 0
empty_count 0
";

    #[test]
    fn sums_and_labels() {
        let reading = Reading::parse(TEXT);
        assert_eq!(reading.sum("reservegrid_shares_total", &[]), Some(100.0));
        assert_eq!(reading.count("reservegrid_connections", &[("state", "open")]), Some(24));
        assert_eq!(reading.sum("untyped_one", &[]), Some(5.0));
        assert_eq!(reading.sum("absent", &[]), None);
        assert_eq!(reading.sum("reservegrid_connections", &[("state", "closed")]), None);
        let by_reason = reading.by_label("reservegrid_shares_total", "reason_code");
        let expected = [("ok".to_owned(), 90), ("stale_share".to_owned(), 10)];
        assert_eq!(by_reason.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn quantiles_over_all_series() {
        let reading = Reading::parse(TEXT);
        let near = |quantile, expected: f64| {
            let found = reading.quantile("d", quantile).unwrap();
            assert!((found - expected).abs() < 1e-9, "{quantile}: {found}");
        };
        // Twenty values: five up to 0.05, five up to 0.1, ten above all edges.
        near(0.25, 0.05);
        near(0.125, 0.025);
        near(0.5, 0.1);
        near(0.99, 0.1);
        assert_eq!(reading.quantile("empty", 0.5), None);
        assert_eq!(reading.quantile("absent", 0.5), None);
    }

    #[test]
    fn any_text_is_read() {
        for text in ["", "\n\n", "{}", "a{b=\"c} 1", "# TYPE x histogram\nx_bucket 1", "é 1"] {
            Reading::parse(text).sum("x", &[]);
        }
    }
}
