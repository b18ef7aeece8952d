//! The counters in Prometheus form: one table from cells to names.
//!
//! The collector reads the cores' blocks when it is scraped; nothing of it runs on a core.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::ops::Blocks;
use super::rows::{COUNTER, From, GAUGE, ROWS};
use crate::config::hatch::{Hatch, Hatches};
use crate::metrics::{
    LATENCY_CELLS, LATENCY_EDGES_MICROS, control as c, forwarder as f, shard as s,
};
use crate::reason::{Close, CloseCause, Reason};

/// Prefix of every name.
const PREFIX: &str = "reservegrid_";

/// Reads all blocks at a scrape.
pub struct Exposition {
    blocks: Arc<Blocks>,
    mode: &'static str,
    hatches: Hatches,
}

impl Exposition {
    /// A collector over `blocks`, for a gateway in this mode with these hatches open.
    pub fn new(blocks: Arc<Blocks>, mode: &'static str, hatches: Hatches) -> Exposition {
        Exposition { blocks, mode, hatches }
    }

    fn number(&self, from: From) -> u64 {
        match from {
            From::Shards(cell) => self.blocks.shards.iter().map(|block| block.read(cell)).sum(),
            From::Control(cell) => self.blocks.control.read(cell),
            From::Forwarder(cell) => self.blocks.forwarder.read(cell),
        }
    }

    /// Longest turn of each shard, which must not be added up.
    fn turns(&self) -> MetricFamily {
        let turns = self.blocks.shards.iter().enumerate().map(|(number, block)| {
            let seconds = block.read(s::LONGEST_TURN) as f64 / 1e6;
            metric(GAUGE, seconds, vec![("core".into(), format!("shard{number}"))])
        });
        family("turn_longest_seconds", GAUGE, "Longest turn since the start", turns.collect())
    }

    fn shares(&self) -> MetricFamily {
        let code = |at: usize| at.checked_sub(1).map_or("ok", |at| Reason::ALL[at].code());
        let shares = (0..crate::metrics::SHARE_REASONS).map(|at| {
            let number = self.number(From::Shards(s::SHARES + at)) as f64;
            metric(COUNTER, number, vec![("reason_code".into(), code(at).into())])
        });
        family("shares_total", COUNTER, "Judged shares", shares.collect())
    }

    fn channels(&self) -> MetricFamily {
        let extended = self.number(From::Shards(s::CHANNELS_EXTENDED));
        let standard = self.number(From::Shards(s::CHANNELS)).saturating_sub(extended);
        let channels = [("standard", standard), ("extended", extended)]
            .map(|(kind, number)| metric(GAUGE, number as f64, vec![("kind".into(), kind.into())]));
        family("channels", GAUGE, "Open channels", channels.into())
    }

    fn refusals(&self) -> MetricFamily {
        let refusals = Reason::ALL.iter().map(|reason| {
            let number = self.number(From::Shards(s::REFUSALS + *reason as usize)) as f64;
            metric(COUNTER, number, vec![("reason_code".into(), reason.code().into())])
        });
        let help = "Requests and frames refused or skipped while the connection lived";
        family("refusals_total", COUNTER, help, refusals.collect())
    }

    fn hatches(&self) -> MetricFamily {
        let hatches = Hatch::ALL.iter().map(|hatch| {
            let is_open = f64::from(u8::from(self.hatches.is_open(*hatch)));
            metric(GAUGE, is_open, vec![("name".into(), hatch.name().into())])
        });
        let help = "1 while a rule is suspended by the environment";
        family("escape_hatch_active", GAUGE, help, hatches.collect())
    }

    fn closes(&self) -> MetricFamily {
        let reasons = Reason::ALL.iter().map(|reason| Close::Reason(*reason));
        let causes = CloseCause::ALL.iter().map(|cause| Close::Cause(*cause));
        let closes = reasons.chain(causes).map(|close| {
            let number = self.number(From::Shards(s::CLOSES + close.index())) as f64;
            metric(COUNTER, number, vec![("reason_code".into(), close.code().into())])
        });
        family("connections_closed_total", COUNTER, "Connections ended", closes.collect())
    }

    fn latency(
        &self,
        name: &str,
        help: &str,
        cell: fn(usize) -> From,
        first: usize,
    ) -> MetricFamily {
        let mut histogram = Histogram::default();
        let mut count = 0;
        let mut buckets = Vec::new();
        for (at, edge) in LATENCY_EDGES_MICROS.iter().enumerate() {
            count += self.number(cell(first + at));
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(count);
            bucket.set_upper_bound(*edge as f64 / 1e6);
            buckets.push(bucket);
        }
        count += self.number(cell(first + LATENCY_EDGES_MICROS.len()));
        histogram.set_sample_count(count);
        histogram.set_sample_sum(self.number(cell(first + LATENCY_CELLS - 1)) as f64 / 1e6);
        histogram.set_bucket(buckets);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        family(name, MetricType::HISTOGRAM, help, vec![metric])
    }
}

fn metric(kind: MetricType, number: f64, labels: Vec<(String, String)>) -> Metric {
    let pairs = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name);
        pair.set_value(value);
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    if kind == COUNTER {
        let mut counter = Counter::default();
        counter.set_value(number);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(number);
        metric.set_gauge(gauge);
    }
    metric
}

fn family(name: &str, kind: MetricType, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("{PREFIX}{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

impl Collector for Exposition {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families: Vec<MetricFamily> = Vec::new();
        for (name, kind, help, labels, from) in ROWS.iter().copied().flatten() {
            let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            let one = metric(*kind, self.number(*from) as f64, labels.collect());
            match families.last_mut().filter(|last| last.name() == format!("{PREFIX}{name}")) {
                Some(last) => last.mut_metric().push(one),
                None => families.push(family(name, *kind, help, vec![one])),
            }
        }
        let version = vec![
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service".to_owned(), "sv2-gateway".to_owned()),
        ];
        let mode = vec![("mode".to_owned(), self.mode.to_owned())];
        families.push(family(
            "build_info",
            GAUGE,
            "This program",
            vec![metric(GAUGE, 1.0, version)],
        ));
        families.push(family("mode_info", GAUGE, "The mode", vec![metric(GAUGE, 1.0, mode)]));
        families.push(self.hatches());
        families.push(self.turns());
        families.push(self.shares());
        families.push(self.closes());
        families.push(self.channels());
        families.push(self.refusals());
        families.push(self.latency(
            "prevhash_switch_duration_seconds",
            "Tip heard to SetNewPrevHash written, per connection",
            From::Shards,
            s::SWITCH,
        ));
        families.push(self.latency(
            "share_ack_duration_seconds",
            "Share received to acknowledgement due",
            From::Shards,
            s::ACK,
        ));
        families.push(self.latency(
            "outbox_fsync_duration_seconds",
            "A sync of the journal",
            From::Forwarder,
            f::SYNC,
        ));
        families.push(self.latency(
            "verdict_duration_seconds",
            "Template received to verdict",
            From::Control,
            c::VERDICT,
        ));
        families
    }
}
