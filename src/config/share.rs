//! `[share]`: where accepted shares go, and how.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::address::Url;
use super::gateway::{ROTATION_MAX, plain_http, shown_url};
use super::problem::Problem;
use super::reader::{Found, Reader};
use super::schema::{
    Key, SHARE_BATCH_INTERVAL_MS, SHARE_FORWARD_BACKOFF_MAX_MS, SHARE_FORWARD_MAX_ATTEMPTS,
    SHARE_FORWARD_MAX_IN_FLIGHT, SHARE_FORWARD_QUEUE_SIZE, SHARE_FORWARD_TIMEOUT_MS,
    SHARE_RETENTION_DAYS, SHARE_UPSTREAM_SECRET, SHARE_UPSTREAM_URL,
};
use super::secret::Secret;
use crate::limits::SENDER_THREADS_MAX;

/// Begins a secret that is written in base64, as the Standard Webhooks specification has it.
const BASE64_PREFIX: &str = "whsec_";

/// Bytes below which a secret is warned of: as many as the signature has.
const SECRET_BYTES_GOOD: usize = 32;

/// Longest queue: each entry is some hundred bytes in every shard's ring.
const QUEUE_MAX: u64 = 4_194_304;

/// Longest retention: a hundred years.
const RETENTION_DAYS_MAX: u64 = 36_525;

/// The values; `None` where one is wrong or lacking.
pub(super) struct Share {
    pub upstream_url: Option<String>,
    pub upstream_secrets: Option<Vec<Secret>>,
    pub forward_queue_size: Option<usize>,
    pub forward_max_in_flight: Option<usize>,
    pub batch_interval_ms: Option<u64>,
    pub forward_timeout_ms: Option<u64>,
    pub forward_max_attempts: Option<u64>,
    pub forward_backoff_max_ms: Option<u64>,
    pub retention_days: Option<u64>,
}

/// Read the section. Without miners nothing of it is required.
pub(super) fn read(reader: &mut Reader, has_miners: bool) -> Share {
    let may_lack = |reader: &mut Reader, key: Key| {
        let is_lacking = !has_miners && !reader.is_given(key);
        if is_lacking {
            reader.left_out(key);
        }
        is_lacking
    };
    let upstream_url = match may_lack(reader, SHARE_UPSTREAM_URL) {
        true => Some(String::new()),
        false => upstream_url(reader),
    };
    let upstream_secrets = match may_lack(reader, SHARE_UPSTREAM_SECRET) {
        true => Some(vec![Secret::new("")]),
        false => secrets(reader),
    };
    let (forward_queue_size, forward_max_in_flight) = queue(reader, has_miners);
    let (batch_interval_ms, forward_timeout_ms) = times(reader);
    Share {
        upstream_url,
        upstream_secrets,
        forward_queue_size,
        forward_max_in_flight,
        batch_interval_ms,
        forward_timeout_ms,
        forward_max_attempts: reader.number(SHARE_FORWARD_MAX_ATTEMPTS, 0..=u64::from(u32::MAX)),
        forward_backoff_max_ms: reader.number(SHARE_FORWARD_BACKOFF_MAX_MS, 100..=3_600_000),
        retention_days: reader.number(SHARE_RETENTION_DAYS, 0..=RETENTION_DAYS_MAX),
    }
}

fn upstream_url(reader: &mut Reader) -> Option<String> {
    let (text, found) = reader.text(SHARE_UPSTREAM_URL)?;
    let got = shown_url(&text);
    let mend = found.assignment("\"https://pool.example/shares\"");
    if text.starts_with("nats://") {
        let expected = "http:// or https://; NATS is not in this version yet";
        reader.refuse_as(&found, &got, expected, &mend);
        return None;
    }
    let Some(url) = Url::parse(&text) else {
        reader.refuse_as(&found, &got, "an http:// or https:// address", &mend);
        return None;
    };
    if url.has_credentials {
        let expected = "an address without user and password: batches are signed";
        reader.refuse_as(&found, &got, expected, "remove what stands before the @");
        return None;
    }
    plain_http(reader, &found, &url);
    Some(text)
}

/// The first signs; the others are for the receiver while a secret is exchanged.
fn secrets(reader: &mut Reader) -> Option<Vec<Secret>> {
    let found = reader.take(SHARE_UPSTREAM_SECRET)?;
    let texts = reader.texts(&found, ROTATION_MAX)?;
    let mut secrets = Vec::new();
    for (text, place) in &texts {
        let bytes = match text.strip_prefix(BASE64_PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).ok().map(|bytes| bytes.len()),
            None => Some(text.len()),
        };
        let problem = |got: String, expected: &str| Problem {
            place: place.clone(),
            key: SHARE_UPSTREAM_SECRET.path.into(),
            got,
            expected: expected.into(),
            mend: format!("{BASE64_PREFIX} and the output of `openssl rand -base64 32`"),
        };
        match bytes {
            None => reader.errors.push(problem(
                format!("{BASE64_PREFIX} and something that is not base64"),
                "whsec_ and base64, or the secret's own bytes",
            )),
            Some(0) => reader.errors.push(problem("an empty secret".into(), "a secret")),
            Some(bytes) => {
                if bytes < SECRET_BYTES_GOOD {
                    reader.warnings.push(problem(
                        format!("a secret of {bytes} bytes"),
                        "32 bytes or more: who guesses it can book shares",
                    ));
                }
                secrets.push(Secret::new(text.as_str()));
            }
        }
    }
    if texts.is_empty() {
        let mend = format!("{BASE64_PREFIX} and the output of `openssl rand -base64 32`");
        reader.refuse(&found, "at least one secret", &mend);
    }
    (!secrets.is_empty() && secrets.len() == texts.len()).then_some(secrets)
}

/// A key that is required if there are miners; if not, its sample will do.
fn take<'t>(reader: &mut Reader<'t>, key: Key, has_miners: bool) -> Option<Found<'t>> {
    if has_miners { reader.take(key) } else { reader.take_or(key, key.sample) }
}

fn queue(reader: &mut Reader, has_miners: bool) -> (Option<usize>, Option<usize>) {
    let size = take(reader, SHARE_FORWARD_QUEUE_SIZE, has_miners);
    let size = reader.number_of(size, 1..=QUEUE_MAX);
    let in_flight = take(reader, SHARE_FORWARD_MAX_IN_FLIGHT, has_miners);
    let in_flight = reader.number_of(in_flight, 1..=QUEUE_MAX);
    if let (Some((size, found)), Some((in_flight, _))) = (&size, &in_flight)
        && size < in_flight
    {
        let expected = format!("at least share_forward_max_in_flight, {in_flight}");
        reader.refuse(found, &expected, &found.assignment(&in_flight.max(&10_000).to_string()));
    }
    let in_flight = in_flight.map(|(number, _)| number);
    if let Some(number) = in_flight.filter(|number| *number > SENDER_THREADS_MAX as u64) {
        reader.notes.push(format!(
            "share.share_forward_max_in_flight = {number}: {SENDER_THREADS_MAX} requests at once, \
             one a sender thread"
        ));
    }
    let size = size.and_then(|(size, _)| size.try_into().ok());
    (size, in_flight.and_then(|number| number.try_into().ok()))
}

fn times(reader: &mut Reader) -> (Option<u64>, Option<u64>) {
    let batch = reader.take(SHARE_BATCH_INTERVAL_MS);
    let batch = reader.number_of(batch, 0..=60_000);
    let timeout = reader.number(SHARE_FORWARD_TIMEOUT_MS, 100..=600_000);
    if let (Some((batch, found)), Some(timeout)) = (&batch, timeout)
        && *batch >= timeout
    {
        let expected = format!("less than share_forward_timeout_ms, {timeout}");
        reader.refuse(found, &expected, &found.assignment("100"));
    }
    (batch.map(|(batch, _)| batch), timeout)
}
