//! `[timing]` and `[cores]`: deadlines, and which core does what.

use super::reader::Reader;
use super::schema::{
    CHANNEL_IDLE_TIMEOUT_MS, CONTROL, FORWARDER, JOB_BROADCAST_INTERVAL_MS, NONCE_EXPIRE_SECS, PIN,
    PREVHASH_STALE_HOLD_MS, PREVHASH_VERDICT_TIMEOUT_MS, SETUP_TIMEOUT_MS, SHARDS,
    SHUTDOWN_DRAIN_MS, TEMPLATE_MAX_AGE_MS, UPSTREAM_POLL_INTERVAL_MS,
};
use crate::config::SHARDS_MAX;

/// Longest hold, milliseconds: beyond it miners would work for nothing for too long.
const STALE_HOLD_MS_MAX: u64 = 60_000;

/// A day in milliseconds: no deadline is longer.
const DAY_MS: u64 = 86_400_000;

/// CPUs are counted from 0 to this.
const CPU_MAX: u64 = 1_023;

/// The values; `None` where one is wrong or lacking.
pub(super) struct Timing {
    pub prevhash_verdict_timeout_ms: Option<u64>,
    pub prevhash_stale_hold_ms: Option<u64>,
    pub upstream_poll_interval_ms: Option<u64>,
    pub job_broadcast_interval_ms: Option<u64>,
    pub channel_idle_timeout_ms: Option<u64>,
    pub nonce_expire_secs: Option<u64>,
    pub setup_timeout_ms: Option<u64>,
    pub template_max_age_ms: Option<u64>,
    pub shutdown_drain_ms: Option<u64>,
}

/// Read `[timing]`.
pub(super) fn read(reader: &mut Reader) -> Timing {
    let verdict = reader.number(PREVHASH_VERDICT_TIMEOUT_MS, 1..=STALE_HOLD_MS_MAX);
    let hold = reader.take(PREVHASH_STALE_HOLD_MS);
    let hold = reader.number_of(hold, 1..=STALE_HOLD_MS_MAX);
    if let (Some(verdict), Some((hold, found))) = (verdict, &hold)
        && *hold < verdict
    {
        let expected = format!("at least prevhash_verdict_timeout_ms, {verdict}");
        reader.refuse(found, &expected, &found.assignment(&verdict.max(5_000).to_string()));
    }
    Timing {
        prevhash_verdict_timeout_ms: verdict,
        prevhash_stale_hold_ms: hold.map(|(hold, _)| hold),
        upstream_poll_interval_ms: reader.number(UPSTREAM_POLL_INTERVAL_MS, 100..=60_000),
        job_broadcast_interval_ms: reader.number(JOB_BROADCAST_INTERVAL_MS, 0..=60_000),
        channel_idle_timeout_ms: reader.number(CHANNEL_IDLE_TIMEOUT_MS, 0..=DAY_MS),
        nonce_expire_secs: reader.number(NONCE_EXPIRE_SECS, 0..=86_400),
        setup_timeout_ms: reader.number(SETUP_TIMEOUT_MS, 1..=600_000),
        template_max_age_ms: reader.number(TEMPLATE_MAX_AGE_MS, 1..=DAY_MS),
        shutdown_drain_ms: reader.number(SHUTDOWN_DRAIN_MS, 0..=600_000),
    }
}

/// The values; `None` where one is wrong.
pub(super) struct Cores {
    pub shards: Option<Vec<usize>>,
    pub control: Option<usize>,
    pub forwarder: Option<usize>,
    pub pin: Option<bool>,
}

/// Read `[cores]`.
pub(super) fn read_cores(reader: &mut Reader) -> Cores {
    Cores {
        shards: shards(reader),
        control: reader.size(CONTROL, 0..=CPU_MAX),
        forwarder: reader.size(FORWARDER, 0..=CPU_MAX),
        pin: reader.truth(PIN),
    }
}

fn shards(reader: &mut Reader) -> Option<Vec<usize>> {
    use super::reader::whole;
    use toml::de::DeValue;
    let found = reader.take(SHARDS)?;
    let cpus: Option<Vec<usize>> = match found.value.get_ref() {
        DeValue::Array(list) => list
            .iter()
            .map(|entry| match entry.get_ref() {
                DeValue::Integer(number) => {
                    whole(number).filter(|cpu| *cpu <= CPU_MAX)?.try_into().ok()
                }
                _ => None,
            })
            .collect(),
        _ => None,
    };
    let cpus = cpus.filter(|cpus| (1..=SHARDS_MAX).contains(&cpus.len()));
    if cpus.is_none() {
        let expected =
            format!("a list of 1 to {SHARDS_MAX} CPU numbers from 0 to {CPU_MAX}, one a shard");
        reader.refuse(&found, &expected, &found.assignment("[0]"));
    }
    cpus
}
