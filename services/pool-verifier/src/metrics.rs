//! What `/metrics` shows.

use policy::CHECKS;
use policy::catalogue::NOT_EVALUATED;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use work::Decision;

/// Edges of the latency buckets in seconds; the service levels 50, 150 and 300 ms are edges.
const BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 1.0, 5.0];

/// All families of this service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Verdicts given, by verdict.
    pub verdicts: IntCounterVec,
    /// Reasons given, warnings included, by code.
    pub reasons: IntCounterVec,
    /// From the proposal's line to its verdict, without time spent parked.
    pub verdict_duration: HistogramVec,
    /// Time that proposals waited for their parent to become known.
    pub parked_duration: Histogram,
    /// Proposals received.
    pub proposals: IntCounter,
    /// Proposals answered by `NeedTx`.
    pub need_tx: IntCounter,
    /// Proposals whose parent did not become known in time.
    pub timeouts: IntCounter,
    /// Proposals withdrawn before their verdict.
    pub cancelled: IntCounter,
    /// Errors sent to gateways, by code.
    pub errors: IntCounterVec,
    /// Times policy.toml was read again, by result.
    pub policy_loads: IntCounterVec,
    /// Gateways connected.
    pub gateways: IntGauge,
    /// Proposals waiting for a tip, set when scraped.
    pub parked: IntGauge,
    /// Height of the tip, set when scraped.
    pub chain_height: IntGauge,
    /// Whether what a component gives is usable, set when scraped.
    pub ready: IntGaugeVec,
    /// Verdicts that did not fit the log's queue.
    pub log_dropped: IntCounter,
}

/// Codes of `Error` lines.
pub const ERROR_CODES: [&str; 10] = [
    "bad_json",
    "hello_expected",
    "instance_in_use",
    "line_too_long",
    "overloaded",
    "propose_id_reused",
    "timeout",
    "unknown_type",
    "wrong_network",
    "wrong_proto",
];

impl Metrics {
    /// All families, with the series whose labels are known at zero.
    ///
    /// # Errors
    /// If two families have one name: a defect of this file.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("reservegrid_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("reservegrid_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let opts = Opts::new(format!("reservegrid_{name}"), help);
            let counters = IntCounterVec::new(opts, &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let seconds = |name: &str, help: &str| {
            HistogramOpts::new(format!("reservegrid_{name}"), help).buckets(BUCKETS.to_vec())
        };
        let verdict_duration = HistogramVec::new(
            seconds("verdict_duration_seconds", "From a proposal to its verdict, parking excluded"),
            &["path"],
        )?;
        registry.register(Box::new(verdict_duration.clone()))?;
        let parked_duration = Histogram::with_opts(seconds(
            "verifier_parked_duration_seconds",
            "Time proposals waited for their parent to become known",
        ))?;
        registry.register(Box::new(parked_duration.clone()))?;
        let ready = IntGaugeVec::new(
            Opts::new("reservegrid_ready", "Whether a component is usable"),
            &["component"],
        )?;
        registry.register(Box::new(ready.clone()))?;
        let build = IntGaugeVec::new(
            Opts::new("reservegrid_build_info", "Which build this is"),
            &["service", "version"],
        )?;
        build.with_label_values(&["pool-verifier", env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
        let metrics = Metrics {
            verdicts: counters("verdicts_total", "Verdicts given", "verdict")?,
            reasons: counters("verdict_reasons_total", "Reasons given", "reason_code")?,
            verdict_duration,
            parked_duration,
            proposals: counter("verifier_proposals_total", "Proposals received")?,
            need_tx: counter("verifier_need_tx_total", "Proposals that lacked transactions")?,
            timeouts: counter("verifier_timeouts_total", "Proposals on a tip not known in time")?,
            cancelled: counter("verifier_cancelled_total", "Proposals withdrawn")?,
            errors: counters("verifier_errors_total", "Error lines sent", "code")?,
            policy_loads: counters("verifier_policy_loads_total", "Policies read again", "result")?,
            gateways: gauge("verifier_gateways", "Gateways connected")?,
            parked: gauge("verifier_parked", "Proposals waiting for a tip")?,
            chain_height: gauge("verifier_chain_height", "Height of the tip")?,
            ready,
            log_dropped: counter("verifier_log_dropped_total", "Verdicts not in the log")?,
            registry,
        };
        metrics.start_at_zero();
        Ok(metrics)
    }

    fn start_at_zero(&self) {
        for verdict in [Decision::Accept, Decision::Reject] {
            self.verdicts.with_label_values(&[verdict_name(verdict)]);
        }
        let codes = CHECKS.iter().flat_map(|check| check.codes.iter().copied());
        for code in codes.chain([NOT_EVALUATED]) {
            self.reasons.with_label_values(&[code]);
        }
        for code in ERROR_CODES {
            self.errors.with_label_values(&[code]);
        }
        for result in ["ok", "error"] {
            self.policy_loads.with_label_values(&[result]);
        }
        for path in ["coinbase_only", "full"] {
            self.verdict_duration.with_label_values(&[path]);
        }
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// Those of the prometheus crate.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// As a label and in the log.
pub fn verdict_name(decision: Decision) -> &'static str {
    match decision {
        Decision::Accept => "accept",
        Decision::Reject => "reject",
    }
}
