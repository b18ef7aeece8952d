//! Threads that post batches to the pool's backend, signed, one attempt at a time.
//!
//! The number of threads is the number of requests in flight. What an answer means is the
//! forwarder machine's to say; here it is only read.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossbeam::channel::Receiver;
use crossbeam::queue::ArrayQueue;
use hmac::{Hmac, KeyInit, Mac};
use rg_ring::Bell;
use sha2::Sha256;
use tracing::{debug, warn};
use ulid::Ulid;
use work::Work;
use work::contract::bytes;
use work::contract::shares::{ShareAnswer, ShareBatch, SharePayload};

use super::clock::Clock;
use super::forwarder::Answer;
use crate::limits::ANSWER_BYTES_MAX;
use crate::machine::forwarder::{Batch, NamedShare, Posted};

/// What a sender needs to know.
#[derive(Clone)]
pub struct SenderSettings {
    /// Where to post.
    pub url: String,
    /// Signs; `whsec_` and base64, or the bytes themselves.
    pub secret: String,
    /// Name of the gateway.
    pub gateway_id: String,
    /// Time for one attempt.
    pub timeout: Duration,
}

/// Where answers go.
#[derive(Clone)]
pub struct Answers {
    /// The queue; as large as the batches that can be in flight.
    pub queue: Arc<ArrayQueue<Answer>>,
    /// Wakes the forwarder.
    pub bell: Bell,
}

/// Start `count` threads that take from `batches` until that is closed.
///
/// # Errors
/// The secret is not one, or a thread cannot be started.
pub fn spawn(
    count: usize,
    settings: &SenderSettings,
    batches: &Receiver<Arc<Batch>>,
    answers: &Answers,
    clock: Clock,
) -> Result<Vec<JoinHandle<()>>, String> {
    let key = key(&settings.secret)?;
    (0..count)
        .map(|number| {
            let (settings, batches) = (settings.clone(), batches.clone());
            let (answers, key) = (answers.clone(), key.clone());
            std::thread::Builder::new()
                .name(format!("sender-{number}"))
                .spawn(move || run(&settings, &key, &batches, &answers, clock))
                .map_err(|error| format!("a sender thread cannot be started: {error}"))
        })
        .collect()
}

fn key(secret: &str) -> Result<Vec<u8>, String> {
    match secret.strip_prefix("whsec_") {
        Some(text) => STANDARD
            .decode(text)
            .map_err(|error| format!("share.share_upstream_secret: not base64: {error}")),
        None => Ok(secret.as_bytes().to_vec()),
    }
}

fn run(
    settings: &SenderSettings,
    key: &[u8],
    batches: &Receiver<Arc<Batch>>,
    answers: &Answers,
    clock: Clock,
) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build()
        .into();
    while let Ok(batch) = batches.recv() {
        let posted = post(&agent, settings, key, &batch, clock);
        let sent = answers.queue.push((batch.number, posted));
        assert!(sent.is_ok(), "the queue of answers is as large as what can be in flight");
        answers.bell.ring();
    }
}

fn post(
    agent: &ureq::Agent,
    settings: &SenderSettings,
    key: &[u8],
    batch: &Batch,
    clock: Clock,
) -> Posted {
    let now = clock.now();
    let body = match serde_json::to_vec(&payload(settings, batch, now.unix)) {
        Ok(body) => body,
        Err(error) => {
            warn!(%error, "a batch could not be written as JSON");
            return Posted::Unreachable;
        }
    };
    let timestamp = (now.unix.0 / 1_000).to_string();
    let answer = agent
        .post(&settings.url)
        .header("content-type", "application/json")
        .header("webhook-id", &batch.id)
        .header("idempotency-key", &batch.id)
        .header("webhook-timestamp", &timestamp)
        .header("webhook-signature", &signature(key, &batch.id, &timestamp, &body))
        .header("x-reservegrid-gateway", &settings.gateway_id)
        .header("x-reservegrid-schema", "1")
        .send(&body[..]);
    match answer {
        Ok(mut answer) if answer.status().is_success() => {
            let read = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
            settled(batch, read.as_deref().unwrap_or_default())
                .unwrap_or(Posted::Status(answer.status().as_u16()))
        }
        Ok(answer) => {
            warn!(batch = batch.id, status = answer.status().as_u16(), "batch not taken");
            Posted::Status(answer.status().as_u16())
        }
        Err(error) => {
            debug!(batch = batch.id, %error, "backend not reached");
            Posted::Unreachable
        }
    }
}

/// `v1,` and the base64 of HMAC-SHA256 over `id "." timestamp "." body` (Standard Webhooks).
fn signature(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// A batch is settled only by its own id and a result for each of its shares (D29).
fn settled(batch: &Batch, body: &[u8]) -> Option<Posted> {
    let answer: ShareAnswer = serde_json::from_slice(body).ok()?;
    if answer.batch_id != batch.id || answer.results.len() != batch.shares.len() {
        return None;
    }
    let (mut accepted, mut duplicate, mut refused) = (0, 0, 0);
    for (share, result) in batch.shares.iter().zip(&answer.results) {
        if result.share_id != Ulid(share.record.share_id).to_string() {
            return None;
        }
        match (result.accepted, result.reason.as_deref()) {
            (true, _) => accepted += 1,
            (false, Some("duplicate")) => duplicate += 1,
            (false, _) => refused += 1,
        }
    }
    Some(Posted::Settled { accepted, duplicate, refused })
}

fn payload(settings: &SenderSettings, batch: &Batch, now: work::UnixTime) -> ShareBatch {
    let sequence = |share: Option<&NamedShare>| share.map_or(0, |share| share.record.sequence);
    ShareBatch {
        batch_id: batch.id.clone(),
        gateway_id: settings.gateway_id.clone(),
        sent_at: rfc3339(now),
        count: batch.shares.len(),
        work: batch.shares.iter().map(|share| share.record.work()).sum::<Work>(),
        first_sequence: sequence(batch.shares.first()),
        last_sequence: sequence(batch.shares.last()),
        shares: batch.shares.iter().map(share_payload).collect(),
    }
}

fn share_payload(share: &NamedShare) -> SharePayload {
    let (record, channel) = (&share.record, &share.channel);
    SharePayload {
        share_id: Ulid(record.share_id).to_string(),
        share_hash: record.share_hash,
        miner_id: channel.miner_id.to_string(),
        worker_id: share.worker_id.as_deref().map(str::to_owned),
        connection_id: channel.connection.0,
        channel_id: channel.channel_id,
        sequence_number: record.sequence_number,
        job_id: record.job_id,
        template_id: record.template_id,
        height: record.height,
        prev_hash: record.prev_hash,
        nbits: record.nbits,
        subsidy: record.coinbase_value.saturating_sub(record.fees),
        fees: record.fees,
        version: record.version,
        ntime: record.ntime,
        nonce: record.nonce,
        extranonce: bytes::encode(&[&channel.extranonce_prefix, record.rolled.as_slice()].concat()),
        target: record.difficulty.target(),
        work: record.work(),
        accepted_at: rfc3339(record.accepted_at),
        block_found: record.block_found,
        hold: record.hold,
    }
}

fn rfc3339(at: work::UnixTime) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the Standard Webhooks project publishes.
    #[test]
    fn the_published_signature() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let made = signature(
            &key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(super::key("whsec_*").is_err());
    }
}
