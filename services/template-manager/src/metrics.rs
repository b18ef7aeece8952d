//! The counters at `/metrics`; every name begins with `reservegrid_`.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use source::failover::{NodeStanding, NodeState};
use source::submit::SubmitAnswer;
use source::{SourceEvent, SourceKind, TipChannel, clock};

use crate::board::Snapshot;

/// Seconds; a full template takes a node 2 to 120 ms.
const FETCH_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0];
/// The simulated chain's place in the list of nodes.
const NODE_INDEX: &str = "0";
/// No node has been in use yet.
const NOBODY: usize = usize::MAX;

const TEMPLATES: &str = "Templates of the source, coinbase-only ones included.";
const TIP_NOTICES: &str = "New tips by how they were learned first.";
const SUBMITS: &str = "Blocks submitted to the simulated chain by its answer.";
const NODE_UP: &str = "Whether the node answers and can be used.";
const NODE_IN_USE: &str = "Whether the node's templates are the ones that go out.";
const FAILOVERS: &str = "Times that another node's templates came into use.";
const LOSSES: &str = "Times that there was no node to use any more.";
const TIP_HEIGHT: &str = "Height of the node's tip.";
const TEMPLATE_WEIGHT: &str = "Weight of the transactions without the coinbase.";
const TRANSACTIONS: &str = "Transactions without the coinbase.";

/// All of them.
pub struct Metrics {
    registry: Registry,
    templates: IntCounterVec,
    fetch: HistogramVec,
    tip_notices: IntCounterVec,
    submits: IntCounterVec,
    ready: IntGaugeVec,
    node_up: IntGaugeVec,
    node_in_use: IntGaugeVec,
    failovers: IntCounter,
    losses: IntCounter,
    /// The node that was in use last.
    last_in_use: AtomicUsize,
    node_tip_height: IntGaugeVec,
    node_tip_age: GaugeVec,
    template_age: Gauge,
    template_fees: IntGaugeVec,
    template_weight: IntGaugeVec,
    template_transactions: IntGaugeVec,
    /// Readers of the stream.
    pub readers: IntGauge,
}

impl Metrics {
    /// Registered and at zero.
    ///
    /// # Errors
    /// None unless two of the names are alike.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let build = gauges(&registry, "build_info", "What runs here.", &["service", "version"])?;
        build.with_label_values(&["template-manager", env!("CARGO_PKG_VERSION")]).set(1);
        let fetch = HistogramOpts::new(
            "reservegrid_template_fetch_duration_seconds",
            "From asking the node for a full template to having read it.",
        );
        let tip_age =
            Opts::new("reservegrid_node_tip_age_seconds", "Time since the node's tip was learned.");
        let template_age = Gauge::new(
            "reservegrid_template_age_seconds",
            "Time since the newest template was made.",
        )?;
        let readers = IntGauge::new("reservegrid_template_readers", "Readers of the stream.")?;
        let metrics = Metrics {
            templates: counters(&registry, "templates_received_total", TEMPLATES, &["source"])?,
            fetch: keep(
                &registry,
                HistogramVec::new(fetch.buckets(FETCH_BUCKETS.to_vec()), &["source"])?,
            )?,
            tip_notices: counters(
                &registry,
                "prevhash_tip_notice_total",
                TIP_NOTICES,
                &["channel"],
            )?,
            submits: counters(
                &registry,
                "block_submits_total",
                SUBMITS,
                &["node_index", "result"],
            )?,
            ready: gauges(&registry, "ready", "Whether this part works.", &["component"])?,
            node_up: gauges(&registry, "node_up", NODE_UP, &["node_index"])?,
            node_in_use: gauges(&registry, "node_in_use", NODE_IN_USE, &["node_index"])?,
            failovers: keep(
                &registry,
                IntCounter::new("reservegrid_node_failovers_total", FAILOVERS)?,
            )?,
            losses: keep(&registry, IntCounter::new("reservegrid_nodes_lost_total", LOSSES)?)?,
            last_in_use: AtomicUsize::new(NOBODY),
            node_tip_height: gauges(&registry, "node_tip_height", TIP_HEIGHT, &["node_index"])?,
            node_tip_age: keep(&registry, GaugeVec::new(tip_age, &["node_index"])?)?,
            template_age: keep(&registry, template_age)?,
            template_fees: gauges(&registry, "template_fees_sats", "Fees, satoshi.", &["slot"])?,
            template_weight: gauges(
                &registry,
                "template_weight_units",
                TEMPLATE_WEIGHT,
                &["slot"],
            )?,
            template_transactions: gauges(
                &registry,
                "template_transactions",
                TRANSACTIONS,
                &["slot"],
            )?,
            readers: keep(&registry, readers)?,
            registry,
        };
        // Known from the first scrape on, so that a rate over them has a start.
        for channel in TipChannel::ALL {
            metrics.tip_notices.with_label_values(&[channel.name()]);
        }
        Ok(metrics)
    }

    /// Count an event of the source.
    pub fn on_event(&self, kind: SourceKind, event: &SourceEvent) {
        match event {
            SourceEvent::Template(_) => self.templates.with_label_values(&[kind.name()]).inc(),
            SourceEvent::TipNotice { channel, .. } => {
                self.tip_notices.with_label_values(&[channel.name()]).inc();
            }
            SourceEvent::Fetched { micros } => {
                let histogram: Histogram = self.fetch.with_label_values(&[kind.name()]);
                // Exact up to 285 years.
                #[allow(clippy::cast_precision_loss)]
                histogram.observe(*micros as f64 / 1e6);
            }
            SourceEvent::Standings(nodes) => self.on_standings(nodes),
            _ => {}
        }
    }

    fn on_standings(&self, nodes: &[NodeStanding]) {
        for (index, node) in nodes.iter().enumerate() {
            let index = index.to_string();
            let set = |gauges: &IntGaugeVec, value| gauges.with_label_values(&[&index]).set(value);
            set(&self.node_up, (node.state == NodeState::Up).into());
            // Nobody in use after somebody was: a loss.
            if self.node_in_use.with_label_values(&[&index]).get() == 1
                && !nodes.iter().any(|node| node.is_in_use)
            {
                self.losses.inc();
            }
            set(&self.node_in_use, node.is_in_use.into());
            if let Some(height) = node.height {
                set(&self.node_tip_height, height.into());
            }
        }
        if let Some(in_use) = nodes.iter().position(|node| node.is_in_use) {
            // Events come from one thread at a time.
            let before = self.last_in_use.swap(in_use, Ordering::Relaxed);
            if before != NOBODY && before != in_use {
                self.failovers.inc();
            }
        }
    }

    /// Count the simulated chain's answer to a block.
    pub fn on_submit(&self, answer: &SubmitAnswer) {
        self.submits.with_label_values(&[NODE_INDEX, answer.name()]).inc();
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// None unless a metric is broken.
    pub fn text(&self, snapshot: &Snapshot) -> prometheus::Result<Vec<u8>> {
        let now = clock::mono();
        let age = |at: std::time::Instant| now.saturating_duration_since(at).as_secs_f64();
        let is_ready = snapshot.trouble(now).is_none();
        self.ready.with_label_values(&["node"]).set(is_ready.into());
        // Nodes tell of themselves; the simulated chain is all that there is.
        if let Some(chain) = snapshot.chain.as_ref().filter(|chain| chain.demo) {
            let height = i64::from(chain.height);
            self.node_tip_height.with_label_values(&[NODE_INDEX]).set(height);
        }
        if let Some(at) = snapshot.tip_at {
            let in_use = snapshot.nodes.iter().position(|node| node.is_in_use).unwrap_or(0);
            self.node_tip_age.reset();
            self.node_tip_age.with_label_values(&[&in_use.to_string()]).set(age(at));
        }
        if let Some(at) = snapshot.template_at {
            self.template_age.set(age(at));
        }
        if let Some(template) = snapshot.newest() {
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let count = i64::try_from(template.transactions.len()).unwrap_or(i64::MAX);
            self.template_fees.with_label_values(&["current"]).set(number(template.total_fees()));
            let weight = number(template.total_weight());
            self.template_weight.with_label_values(&["current"]).set(weight);
            self.template_transactions.with_label_values(&["current"]).set(count);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn keep<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(
    registry: &Registry,
    name: &str,
    page: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let options = Opts::new(format!("reservegrid_{name}"), page);
    keep(registry, IntCounterVec::new(options, labels)?)
}

fn gauges(
    registry: &Registry,
    name: &str,
    page: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    let options = Opts::new(format!("reservegrid_{name}"), page);
    keep(registry, IntGaugeVec::new(options, labels)?)
}
