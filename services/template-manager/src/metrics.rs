//! The counters at `/metrics`; every name begins with `reservegrid_`.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use source::submit::SubmitAnswer;
use source::{SourceEvent, SourceKind, TipChannel, clock};

use crate::board::Snapshot;

/// Seconds; a full template takes a node 2 to 120 ms.
const FETCH_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0];
/// The one node behind this service.
const NODE_INDEX: &str = "0";

const TEMPLATES: &str = "Templates of the source, coinbase-only ones included.";
const TIP_NOTICES: &str = "New tips by how they were learned first.";
const SUBMITS: &str = "Blocks submitted to the simulated chain by its answer.";
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
            _ => {}
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
        if let Some(chain) = &snapshot.chain {
            let height = i64::from(chain.height);
            self.node_tip_height.with_label_values(&[NODE_INDEX]).set(height);
        }
        if let Some(at) = snapshot.tip_at {
            self.node_tip_age.with_label_values(&[NODE_INDEX]).set(age(at));
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
