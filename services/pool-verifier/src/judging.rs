//! One proposal from its transactions to its verdict: park it until its parent is known, judge it
//! on a thread where it delays nobody, record the verdict.
#![allow(clippy::disallowed_methods, reason = "driver: reads the clock")]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use policy::{Context, JudgedTransaction, Policy, Proposal};
use tokio::sync::{Semaphore, watch};
use work::contract::verifier::{TemplatePropose, TemplateVerdict};

use crate::chain::{ChainWatch, Seen};
use crate::config::{Config, ConfigError, read_policy};
use crate::gateways::Gateways;
use crate::limits::{CONNECTIONS_MAX, FULL_JUDGED_AT_ONCE};
use crate::metrics::{Metrics, verdict_name};
use crate::record::{Proposed, Record, Records};

/// All that connections share.
#[derive(Debug)]
pub struct Verifier {
    /// What the service was told at its start.
    pub config: Config,
    /// The rules in force. Whoever subscribes hears of a change.
    pub policy: watch::Sender<Arc<Policy>>,
    /// The chain.
    pub chain: Arc<ChainWatch>,
    /// Live gateways.
    pub gateways: Arc<Gateways>,
    /// Past verdicts.
    pub records: Records,
    /// Counters.
    pub metrics: Metrics,
    /// Places for connections.
    pub connections: Arc<Semaphore>,
    full: Semaphore,
}

/// A proposal with everything it names, and who made it.
#[derive(Debug)]
pub struct Asked {
    /// The proposal.
    pub template: Box<TemplatePropose>,
    /// Its transactions.
    pub transactions: Vec<JudgedTransaction>,
    /// The gateway.
    pub gateway_id: Arc<str>,
    /// When its line was complete.
    pub since: Instant,
}

/// What a proposal comes to.
#[derive(Debug)]
pub enum Answer {
    /// A verdict.
    Verdict(Box<TemplateVerdict>),
    /// Its parent did not become known in time; never a reject (D36).
    Timeout,
    /// Judging did not come to an end, which is a defect of ours.
    Failed,
}

impl Verifier {
    /// A verifier with nothing connected.
    pub fn new(
        config: Config,
        chain: Arc<ChainWatch>,
        records: Records,
        metrics: Metrics,
    ) -> Verifier {
        Verifier {
            policy: watch::Sender::new(Arc::new(config.policy.clone())),
            config,
            chain,
            gateways: Arc::new(Gateways::default()),
            records,
            metrics,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            full: Semaphore::new(FULL_JUDGED_AT_ONCE),
        }
    }

    /// Read policy.toml again. The rules in force stay if it cannot be used; gateways are told if
    /// it rules otherwise than before.
    ///
    /// # Errors
    /// [`ConfigError`] with file, place, key, what was found and what is expected.
    pub fn reload_policy(&self) -> Result<(), ConfigError> {
        let read = read_policy(&self.config.policy_path, self.config.network);
        let result = if read.is_ok() { "ok" } else { "error" };
        self.metrics.policy_loads.with_label_values(&[result]).inc();
        let policy = read?;
        let (version, hash) = (policy.version.clone(), policy.hash().to_owned());
        let is_another = self.policy.send_if_modified(|in_force| {
            let is_another = **in_force != policy;
            if is_another {
                *in_force = Arc::new(policy);
            }
            is_another
        });
        tracing::info!(version, hash, is_another, "policy read");
        Ok(())
    }

    /// The rules in force.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Judge `asked` as soon as its parent is known. Dropping the future withdraws it.
    pub async fn judge(self: Arc<Verifier>, asked: Asked) -> Answer {
        let parked_at = Instant::now();
        let hold = Duration::from_millis(self.config.prevhash_hold_ms);
        let Some(seen) = self.chain.known(asked.template.prev_hash, hold).await else {
            self.metrics.timeouts.inc();
            return Answer::Timeout;
        };
        let parked = parked_at.elapsed();
        self.metrics.parked_duration.observe(parked.as_secs_f64());
        // A coinbase-only proposal is judged in microseconds and stands between miners and a new
        // tip, so it waits for no full one.
        let is_full = !asked.transactions.is_empty();
        let permit = if is_full { self.full.acquire().await.ok() } else { None };
        let verifier = Arc::clone(&self);
        let ruled = tokio::task::spawn_blocking(move || verifier.rule(&asked, &seen, parked)).await;
        drop(permit);
        match ruled {
            Ok(verdict) => Answer::Verdict(Box::new(verdict)),
            Err(_) => Answer::Failed,
        }
    }

    fn rule(&self, asked: &Asked, seen: &Seen, parked: Duration) -> TemplateVerdict {
        let began = Instant::now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let context = Context {
            chain: seen.chain.clone(),
            now_seconds: unix.as_secs(),
            network: self.config.network,
            tip_age_ms: millis(seen.tip_since.elapsed()),
        };
        let template = &*asked.template;
        let policy = &*self.policy();
        let proposal = Proposal { template, transactions: &asked.transactions };
        let ruling = policy::judge(&proposal, &context, policy);
        let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let verdict = ruling.verdict(template, policy, elapsed_us);
        self.count(asked, &verdict, parked);
        let record = Record {
            unix_ms: millis(unix),
            verifier_id: &self.config.verifier_id,
            gateway_id: &asked.gateway_id,
            propose: Proposed {
                reason: template.reason,
                prev_hash: template.prev_hash,
                height: template.height,
                coinbase_value: template.coinbase.value,
                tx_count: asked.transactions.len(),
                totals: template.totals,
            },
            verdict: &verdict,
            context: &context,
        };
        if !self.records.add(&record) {
            self.metrics.log_dropped.inc();
        }
        verdict
    }

    fn count(&self, asked: &Asked, verdict: &TemplateVerdict, parked: Duration) {
        let metrics = &self.metrics;
        metrics.verdicts.with_label_values(&[verdict_name(verdict.verdict)]).inc();
        for code in &verdict.reason_codes {
            metrics.reasons.with_label_values(&[code]).inc();
        }
        let path = if asked.transactions.is_empty() { "coinbase_only" } else { "full" };
        let elapsed = asked.since.elapsed().saturating_sub(parked);
        metrics.verdict_duration.with_label_values(&[path]).observe(elapsed.as_secs_f64());
        tracing::info!(
            gateway = &*asked.gateway_id,
            propose_id = verdict.propose_id,
            template_id = verdict.template_id.0,
            height = asked.template.height,
            transactions = asked.transactions.len(),
            verdict = verdict_name(verdict.verdict),
            reasons = verdict.reason_codes.join(","),
            elapsed_us = verdict.elapsed_us,
            "verdict"
        );
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
