//! The counters in Prometheus form: one table from cells to names.
//!
//! The collector reads the cores' blocks when it is scraped; nothing of it runs on a core.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::ops::Blocks;
use crate::config::hatch::{Hatch, Hatches};
use crate::metrics::{
    LATENCY_CELLS, LATENCY_EDGES_MICROS, control as c, forwarder as f, shard as s,
};
use crate::reason::{Close, CloseCause, Reason};

/// Prefix of every name.
const PREFIX: &str = "reservegrid_";

type Labels = &'static [(&'static str, &'static str)];

/// Which core a row reads.
#[derive(Clone, Copy)]
enum From {
    Shards(usize),
    Control(usize),
    Forwarder(usize),
}

/// One row of the table: name, kind, page, labels, source.
type Row = (&'static str, MetricType, &'static str, Labels, From);

const COUNTER: MetricType = MetricType::COUNTER;
const GAUGE: MetricType = MetricType::GAUGE;

/// Everything that is one number. Rows of one name stand together.
const ROWS: &[Row] = &[
    (
        "connections",
        GAUGE,
        "Connections of miners",
        &[("state", "handshake")],
        From::Shards(s::IN_HANDSHAKE),
    ),
    ("connections", GAUGE, "", &[("state", "setup")], From::Shards(s::IN_SETUP)),
    ("connections", GAUGE, "", &[("state", "open")], From::Shards(s::OPEN)),
    ("connections_opened_total", COUNTER, "Connections accepted", &[], From::Shards(s::ACCEPTED)),
    (
        "connections_refused_total",
        COUNTER,
        "Connections refused at a limit",
        &[("cause", "limit")],
        From::Shards(s::REFUSED),
    ),
    (
        "noise_handshakes_total",
        COUNTER,
        "Handshakes completed",
        &[("result", "ok")],
        From::Shards(s::HANDSHAKES),
    ),
    (
        "channel_opens_total",
        COUNTER,
        "Requests for a channel",
        &[("result", "ok")],
        From::Shards(s::CHANNEL_OPENS),
    ),
    (
        "channel_opens_total",
        COUNTER,
        "",
        &[("result", "refused")],
        From::Shards(s::CHANNEL_REFUSALS),
    ),
    ("frames_received_total", COUNTER, "Frames opened", &[], From::Shards(s::FRAMES_RECEIVED)),
    (
        "bytes_received_total",
        COUNTER,
        "Sealed bytes received",
        &[],
        From::Shards(s::BYTES_RECEIVED),
    ),
    ("bytes_sent_total", COUNTER, "Sealed bytes sent", &[], From::Shards(s::BYTES_SENT)),
    ("jobs_sent_total", COUNTER, "Jobs given to channels", &[], From::Shards(s::JOBS_SENT)),
    (
        "prevhash_sent_total",
        COUNTER,
        "SetNewPrevHash given to channels",
        &[],
        From::Shards(s::TIPS_SENT),
    ),
    ("set_target_total", COUNTER, "SetTarget given", &[], From::Shards(s::SET_TARGETS)),
    (
        "share_work_total",
        COUNTER,
        "Credited work in difficulty-1 units",
        &[],
        From::Shards(s::WORK),
    ),
    (
        "solutions_total",
        COUNTER,
        "Shares that were blocks, repetitions included",
        &[],
        From::Shards(s::BLOCKS),
    ),
    (
        "unknown_frames_total",
        COUNTER,
        "Frames of unknown types, skipped",
        &[],
        From::Shards(s::UNKNOWN_FRAMES),
    ),
    (
        "credit_stalls_total",
        COUNTER,
        "Times reading waited for a free ring slot",
        &[],
        From::Shards(s::CREDIT_STALLS),
    ),
    (
        "templates_received_total",
        COUNTER,
        "Templates taken into consideration",
        &[],
        From::Control(c::TEMPLATES),
    ),
    (
        "verdicts_total",
        COUNTER,
        "Rulings of the verifier",
        &[("verdict", "accept")],
        From::Control(c::ACCEPTS),
    ),
    ("verdicts_total", COUNTER, "", &[("verdict", "reject")], From::Control(c::REJECTS)),
    (
        "verdict_mismatches_total",
        COUNTER,
        "Rulings bound to other bytes than ours",
        &[],
        From::Control(c::MISMATCHES),
    ),
    ("tips_total", COUNTER, "Tips heard", &[], From::Control(c::TIPS)),
    (
        "prevhash_switches_total",
        COUNTER,
        "Prevhash switches",
        &[("outcome", "ok")],
        From::Control(c::SWITCHES_OK),
    ),
    (
        "prevhash_switches_total",
        COUNTER,
        "",
        &[("outcome", "late")],
        From::Control(c::SWITCHES_LATE),
    ),
    (
        "prevhash_switches_total",
        COUNTER,
        "",
        &[("outcome", "timeout")],
        From::Control(c::SWITCHES_TIMEOUT),
    ),
    (
        "prevhash_hold_active",
        GAUGE,
        "Whether miners are held on an old tip",
        &[],
        From::Control(c::HOLD),
    ),
    (
        "verifier_connected",
        GAUGE,
        "Whether the verifier can be reached",
        &[],
        From::Control(c::VERIFIER_UP),
    ),
    (
        "verifier_connects_total",
        COUNTER,
        "Times the verifier's link was made",
        &[],
        From::Control(c::VERIFIER_CONNECTS),
    ),
    (
        "ready",
        GAUGE,
        "Whether a component is ready",
        &[("component", "templates")],
        From::Control(c::SOURCE_UP),
    ),
    ("ready", GAUGE, "", &[("component", "verifier")], From::Control(c::VERIFIER_UP)),
    ("ready", GAUGE, "", &[("component", "work")], From::Control(c::READY)),
    (
        "jobs_published_total",
        COUNTER,
        "Jobs published to the shards",
        &[],
        From::Control(c::PUBLISHED),
    ),
    ("blocks_found_total", COUNTER, "Blocks found by miners", &[], From::Control(c::BLOCKS)),
    (
        "block_submits_total",
        COUNTER,
        "Answers of nodes to blocks",
        &[("result", "accepted")],
        From::Control(c::SUBMITS_ACCEPTED),
    ),
    (
        "block_submits_total",
        COUNTER,
        "",
        &[("result", "rejected")],
        From::Control(c::SUBMITS_REJECTED),
    ),
    (
        "block_submits_total",
        COUNTER,
        "",
        &[("result", "unreachable")],
        From::Control(c::SUBMITS_RETRIED),
    ),
    ("template_height", GAUGE, "Height of the current template", &[], From::Control(c::HEIGHT)),
    (
        "template_transactions",
        GAUGE,
        "Transactions of the current template",
        &[("slot", "current")],
        From::Control(c::TRANSACTIONS),
    ),
    (
        "template_weight_units",
        GAUGE,
        "Weight of the current template",
        &[("slot", "current")],
        From::Control(c::WEIGHT),
    ),
    (
        "template_fees_sats",
        GAUGE,
        "Fees of the current template",
        &[("slot", "current")],
        From::Control(c::FEES),
    ),
    (
        "shares_taken_total",
        COUNTER,
        "Accepted shares taken over by the forwarder",
        &[],
        From::Forwarder(f::SHARES),
    ),
    (
        "share_forward_queue_depth",
        GAUGE,
        "Shares that are not settled",
        &[],
        From::Forwarder(f::QUEUE),
    ),
    ("share_forward_in_flight", GAUGE, "Batches in flight", &[], From::Forwarder(f::IN_FLIGHT)),
    (
        "share_forward_results_total",
        COUNTER,
        "Settled shares",
        &[("outcome", "delivered")],
        From::Forwarder(f::DELIVERED),
    ),
    (
        "share_forward_results_total",
        COUNTER,
        "",
        &[("outcome", "duplicate")],
        From::Forwarder(f::DUPLICATE),
    ),
    (
        "share_forward_results_total",
        COUNTER,
        "",
        &[("outcome", "rejected_by_upstream")],
        From::Forwarder(f::REFUSED),
    ),
    (
        "share_forward_requests_total",
        COUNTER,
        "Attempts to post a batch",
        &[("code", "2xx")],
        From::Forwarder(f::POSTS_2XX),
    ),
    (
        "share_forward_requests_total",
        COUNTER,
        "",
        &[("code", "4xx")],
        From::Forwarder(f::POSTS_4XX),
    ),
    (
        "share_forward_requests_total",
        COUNTER,
        "",
        &[("code", "5xx")],
        From::Forwarder(f::POSTS_5XX),
    ),
    ("share_forward_requests_total", COUNTER, "", &[("code", "io")], From::Forwarder(f::POSTS_IO)),
    (
        "share_forward_retries_total",
        COUNTER,
        "Attempts that are repeated",
        &[],
        From::Forwarder(f::RETRIES),
    ),
];

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
        for (name, kind, help, labels, from) in ROWS {
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
            "verdict_duration_seconds",
            "Template received to verdict",
            From::Control,
            c::VERDICT,
        ));
        families
    }
}
