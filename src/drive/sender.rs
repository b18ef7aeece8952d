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
use journal::{Outcome, Share};
use rg_ring::Bell;
use sha2::Sha256;
use tracing::{debug, warn};
use ulid::Ulid;
use ureq::http::Response;
use work::contract::bytes;
use work::contract::shares::{ShareAnswer, ShareBatch, SharePayload};
use work::{UnixTime, Work};

use super::clock::Clock;
use super::forwarder::Answer;
use crate::limits::{ANSWER_BYTES_MAX, ERROR_DETAIL_BYTES_MAX, RETRY_AFTER_MAX_MILLIS};
use crate::machine::forwarder::{Batch, Given, OpenShare, Posted};

/// What a sender needs to know.
#[derive(Clone)]
pub struct SenderSettings {
    /// Where to post.
    pub url: String,
    /// Each signs, so that a receiver may know any of them; `whsec_` and base64, or the bytes
    /// themselves.
    pub secrets: Vec<String>,
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
    let keys = settings.secrets.iter().map(|secret| key(secret)).collect::<Result<Vec<_>, _>>()?;
    (0..count)
        .map(|number| {
            let (settings, batches) = (settings.clone(), batches.clone());
            let (answers, keys) = (answers.clone(), keys.clone());
            std::thread::Builder::new()
                .name(format!("sender-{number}"))
                .spawn(move || run(&settings, &keys, &batches, &answers, clock))
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
    keys: &[Vec<u8>],
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
        let began = clock.now();
        let mut posted = post(&agent, settings, keys, &batch, began.unix);
        let micros = clock.now().mono.micros_since(began.mono);
        posted.rtt_micros = u32::try_from(micros).unwrap_or(u32::MAX);
        let sent = answers.queue.push((batch.number, posted));
        assert!(sent.is_ok(), "the queue of answers is as large as what can be in flight");
        answers.bell.ring();
    }
}

/// One attempt. What it means is not judged here.
fn post(
    agent: &ureq::Agent,
    settings: &SenderSettings,
    keys: &[Vec<u8>],
    batch: &Batch,
    now: UnixTime,
) -> Posted {
    let body = match serde_json::to_vec(&payload(settings, batch, now)) {
        Ok(body) => body,
        Err(error) => return Posted::unreachable(shorten(&error.to_string()), 0),
    };
    let timestamp = (now.0 / 1_000).to_string();
    let answer = agent
        .post(&settings.url)
        .header("content-type", "application/json")
        .header("webhook-id", &*batch.id)
        .header("idempotency-key", &*batch.id)
        .header("webhook-timestamp", &timestamp)
        .header("webhook-signature", &signatures(keys, &batch.id, &timestamp, &body))
        .header("x-reservegrid-gateway", &settings.gateway_id)
        .header("x-reservegrid-schema", "1")
        .send(&body[..]);
    match answer {
        Ok(answer) => read(batch, answer, now),
        Err(error) => {
            debug!(batch = &*batch.id, %error, "backend not reached");
            Posted::unreachable(shorten(&error.to_string()), 0)
        }
    }
}

/// The answer as it came, its body read up to a limit.
fn read(batch: &Batch, mut answer: Response<ureq::Body>, now: UnixTime) -> Posted {
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let retry_after_ms = retry_after.and_then(|text| retry_after_millis(text, now));
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let body = match body {
        Ok(body) => body,
        // The rest of the answer never came, or it is longer than any answer of a backend.
        Err(error) if (200..300).contains(&status) => {
            return Posted::unreachable(shorten(&format!("HTTP {status}, body: {error}")), 0);
        }
        Err(_) => Vec::new(),
    };
    let (results, detail) = match (200..300).contains(&status) {
        true => match results(batch, &body) {
            Ok(results) => (Some(results), Arc::from("")),
            Err(why) => (None, shorten(&why)),
        },
        false => (None, shorten(&String::from_utf8_lossy(&body))),
    };
    if results.is_none() {
        warn!(batch = &*batch.id, status, detail = &*detail, "batch not settled");
    }
    Posted { status, results, retry_after_ms, detail, rtt_micros: 0 }
}

/// What a log line or a record keeps of a text from outside: no control characters, bounded.
fn shorten(text: &str) -> Arc<str> {
    let mut short = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if short.len() + c.len_utf8() > ERROR_DETAIL_BYTES_MAX {
            break;
        }
        short.push(c);
    }
    Arc::from(short.trim())
}

/// `Retry-After` in either of its forms (RFC 9110, 10.2.3): seconds, or a date.
fn retry_after_millis(text: &str, now: UnixTime) -> Option<u64> {
    let millis = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1_000),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
            u64::try_from(at.as_millisecond()).ok()?.saturating_sub(now.0)
        }
    };
    Some(millis.min(RETRY_AFTER_MAX_MILLIS))
}

/// One signature with each key, so that a receiver may know any of them.
fn signatures(keys: &[Vec<u8>], id: &str, timestamp: &str, body: &[u8]) -> String {
    let all: Vec<String> = keys.iter().map(|key| signature(key, id, timestamp, body)).collect();
    all.join(" ")
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
///
/// # Errors
/// What the body lacks.
fn results(batch: &Batch, body: &[u8]) -> Result<Vec<Given>, String> {
    let answer: ShareAnswer = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is no JSON with batch_id and results: {error}"))?;
    if answer.batch_id != *batch.id {
        return Err(format!("the answer is to batch {:?}", answer.batch_id));
    }
    let (expected, got) = (batch.shares.len(), answer.results.len());
    if got != expected {
        return Err(format!("the answer has {got} results, expected {expected}"));
    }
    let pairs = batch.shares.iter().zip(answer.results);
    pairs
        .map(|(open, result)| {
            let share_id = Ulid(open.share.share_id).to_string();
            if result.share_id != share_id {
                return Err(format!("result of {:?}, expected {share_id}", result.share_id));
            }
            let reason = result.reason.unwrap_or_default();
            let outcome = match result.accepted {
                true => Outcome::Delivered,
                false if reason == "duplicate" => Outcome::Duplicate,
                false => Outcome::RejectedByUpstream,
            };
            Ok(Given { outcome, detail: shorten(&reason) })
        })
        .collect()
}

fn payload(settings: &SenderSettings, batch: &Batch, now: UnixTime) -> ShareBatch {
    let sequence = |open: Option<&OpenShare>| open.map_or(0, |open| open.share.sequence);
    ShareBatch {
        batch_id: batch.id.to_string(),
        gateway_id: settings.gateway_id.clone(),
        sent_at: rfc3339(now),
        count: batch.shares.len(),
        work: batch.shares.iter().map(|open| open.share.work()).sum::<Work>(),
        first_sequence: sequence(batch.shares.first()),
        last_sequence: sequence(batch.shares.last()),
        shares: batch.shares.iter().map(|open| share_payload(&open.share)).collect(),
    }
}

fn share_payload(share: &Share) -> SharePayload {
    SharePayload {
        share_id: Ulid(share.share_id).to_string(),
        share_hash: share.share_hash,
        miner_id: share.miner_id.to_string(),
        worker_id: share.worker_id.as_deref().map(str::to_owned),
        connection_id: share.connection_id,
        channel_id: share.channel_id,
        sequence_number: share.sequence_number,
        job_id: share.job_id,
        template_id: share.template_id,
        height: share.height,
        prev_hash: share.prev_hash,
        nbits: share.nbits,
        subsidy: share.coinbase_value.saturating_sub(share.fees),
        fees: share.fees,
        version: share.version,
        ntime: share.ntime,
        nonce: share.nonce,
        extranonce: bytes::encode(&share.extranonce),
        target: share.difficulty.target(),
        work: share.work(),
        accepted_at: rfc3339(share.accepted_at),
        block_found: share.block_found,
        coinbase_txid: share.coinbase_txid,
        hold: share.hold,
    }
}

fn rfc3339(at: UnixTime) -> String {
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
        let both = signatures(&[key, b"new".to_vec()], "a", "1", b"{}");
        assert_eq!(both.split(' ').filter(|one| one.starts_with("v1,")).count(), 2);
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = UnixTime(1_790_000_000_000);
        assert_eq!(retry_after_millis("7", now), Some(7_000));
        assert_eq!(retry_after_millis(" 0 ", now), Some(0));
        let date = "Mon, 21 Sep 2026 14:13:25 GMT";
        assert_eq!(retry_after_millis(date, now), Some(5_000));
        assert_eq!(retry_after_millis("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(0));
        assert_eq!(retry_after_millis("soon", now), None);
        assert_eq!(retry_after_millis("99999999999999999999", now), None);
        assert_eq!(retry_after_millis("9999999999999", now), Some(RETRY_AFTER_MAX_MILLIS));
    }

    #[test]
    fn texts_from_outside_are_cut() {
        assert_eq!(&*shorten("a\u{1b}b\n"), "a b");
        assert!(shorten(&"\u{fc}".repeat(1_000)).len() <= ERROR_DETAIL_BYTES_MAX);
    }
}
