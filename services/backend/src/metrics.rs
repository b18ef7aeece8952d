//! Counters of the backend, in the form Prometheus reads.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder, core::Collector,
};

use crate::ledger::Totals;
use crate::signature::Refusal;

/// Upper ends of the commit time's buckets, seconds. A sync takes 0.3 to 8 ms.
const COMMIT_BUCKETS: [f64; 11] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// All families. The counters of this run; sums over everything come from the ledger's totals.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests by `code`, the HTTP status.
    pub requests: IntCounterVec,
    /// Requests that were not believed, by `reason`.
    pub refused_signatures: IntCounterVec,
    /// Time from taking a batch off the queue to its durable answer.
    pub commit_seconds: Histogram,
    shares: IntGauge,
    duplicates: IntGauge,
    conflicts: IntGauge,
    batches: IntGauge,
    repeated: IntGauge,
    blocks: IntGauge,
    work: prometheus::Gauge,
}

impl Metrics {
    /// Registers every family.
    ///
    /// # Errors
    /// Two families have one name.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new();
        let gauge = |name: &str, page: &str| register(&registry, IntGauge::new(name, page)?);
        let info = Opts::new("reservegrid_build_info", "1; what runs here")
            .const_label("service", "reference-backend")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        register(&registry, IntGauge::with_opts(info)?)?.set(1);
        let requests = IntCounterVec::new(
            Opts::new("reservegrid_backend_requests_total", "POST /shares by HTTP status"),
            &["code"],
        )?;
        let refused_signatures = IntCounterVec::new(
            Opts::new("reservegrid_backend_refused_signatures_total", "Requests not believed"),
            &["reason"],
        )?;
        for refusal in Refusal::ALL {
            refused_signatures.with_label_values(&[refusal.code()]);
        }
        let commit = HistogramOpts::new(
            "reservegrid_backend_commit_duration_seconds",
            "Booking one batch, its sync included",
        )
        .buckets(COMMIT_BUCKETS.to_vec());
        Ok(Metrics {
            requests: register(&registry, requests)?,
            refused_signatures: register(&registry, refused_signatures)?,
            commit_seconds: register(&registry, Histogram::with_opts(commit)?)?,
            shares: gauge("reservegrid_backend_shares", "Credited shares in the ledger")?,
            duplicates: gauge("reservegrid_backend_duplicates", "Shares refused as duplicates")?,
            conflicts: gauge(
                "reservegrid_backend_conflicts",
                "Duplicates whose hash came from another gateway: an alarm",
            )?,
            batches: gauge("reservegrid_backend_batches", "Batches in the ledger")?,
            repeated: gauge("reservegrid_backend_repeated_batches", "Batches that came again")?,
            blocks: gauge("reservegrid_backend_blocks", "Blocks among the credited shares")?,
            work: register(
                &registry,
                prometheus::Gauge::new(
                    "reservegrid_backend_work",
                    "Credited work in units of 2^-32 difficulty, about one hash; rounded",
                )?,
            )?,
            registry,
        })
    }

    /// The text of `/metrics`, with the ledger's `totals`.
    ///
    /// # Errors
    /// The encoder refuses a family.
    pub fn text(&self, totals: &Totals) -> prometheus::Result<Vec<u8>> {
        let pairs = [
            (&self.shares, totals.shares),
            (&self.duplicates, totals.duplicates),
            (&self.conflicts, totals.conflicts),
            (&self.batches, totals.batches),
            (&self.repeated, totals.repeated),
            (&self.blocks, totals.blocks),
        ];
        for (gauge, value) in pairs {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.work.set(totals.work.0 as f64);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Requests that were not believed since the start.
    pub fn refused_signatures_sum(&self) -> u64 {
        let counter = |refusal: Refusal| -> IntCounter {
            self.refused_signatures.with_label_values(&[refusal.code()])
        };
        Refusal::ALL.into_iter().map(|refusal| counter(refusal).get()).sum()
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
