//! The routes.
//!
//! | route | answer |
//! | --- | --- |
//! | `POST /shares` | 200 and a [`ShareAnswer`], or see below |
//! | `HEAD /shares` | 200 when ready, 503 when not |
//! | `GET /status` | totals and the first miners, JSON |
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200, or 503 and JSON that says why |
//!
//! A batch is refused with 400 (not JSON), 401 (not believed), 408 (the body was too slow),
//! 413 (too large), 422 (it contradicts itself), or 503 and `Retry-After` (full, or the disk
//! fails).
//! A refusal's body is `{"error": code, "detail": sentence}`.
//!
//! [`ShareAnswer`]: work::contract::shares::ShareAnswer

#![allow(clippy::disallowed_methods, reason = "driver: asks the clock for the signature's age")]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use work::contract::shares::ShareBatch;

use crate::ledger::{LedgerError, Snapshot};
use crate::limits::{
    BODY_BYTES_MAX, BODY_READ_TIMEOUT, REQUESTS_IN_FLIGHT_MAX, RETRY_AFTER_SECONDS,
};
use crate::metrics::Metrics;
use crate::signature::{Refusal, Secrets, SignedHeaders};
use crate::writer::{LedgerQueue, QueueError};

/// What every request sees.
#[derive(Debug, Clone)]
pub struct Shared {
    secrets: Arc<Secrets>,
    queue: LedgerQueue,
    metrics: Arc<Metrics>,
    in_flight: Arc<Semaphore>,
}

/// The routes over a ledger.
pub fn router(secrets: Secrets, queue: LedgerQueue, metrics: Arc<Metrics>) -> Router {
    let shared = Shared {
        secrets: Arc::new(secrets),
        queue,
        metrics,
        in_flight: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)),
    };
    Router::new()
        .route("/shares", post(shares).head(readyz))
        .route("/status", get(status))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(shared)
}

/// A refusal, ready to be sent.
struct Refused {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Refused {
        Refused { status, code, detail: detail.into() }
    }

    fn busy(code: &'static str, detail: impl Into<String>) -> Refused {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.code, "detail": self.detail }));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let retry = [(header::RETRY_AFTER, RETRY_AFTER_SECONDS.to_string())];
            (self.status, retry, body).into_response()
        } else {
            (self.status, body).into_response()
        }
    }
}

async fn shares(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let response = match take(&shared, request).await {
        Ok(response) => response,
        Err(refused) => {
            tracing::warn!(status = refused.status.as_u16(), refused.code, refused.detail);
            refused.into_response()
        }
    };
    shared.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    response
}

async fn take(shared: &Shared, request: Request<Body>) -> Result<Response, Refused> {
    let Ok(_place) = shared.in_flight.try_acquire() else {
        return Err(Refused::busy(
            "too_many_requests",
            format!("{REQUESTS_IN_FLIGHT_MAX} batches are under way"),
        ));
    };
    let (parts, body) = request.into_parts();
    let believed = |refusal: Refusal| {
        shared.metrics.refused_signatures.with_label_values(&[refusal.code()]).inc();
        Refused::new(StatusCode::UNAUTHORIZED, refusal.code(), refusal.advice())
    };
    // The headers are judged first, so that a stranger's body is not read at all.
    let headers = signed_headers(&parts.headers).map_err(believed)?;
    headers.check_time(unix_seconds()).map_err(believed)?;
    let body = read(body).await?;
    headers.check_body(&body, &shared.secrets).map_err(believed)?;
    let batch: ShareBatch = serde_json::from_slice(&body).map_err(|error| {
        Refused::new(StatusCode::BAD_REQUEST, "bad_json", format!("not a share batch: {error}"))
    })?;
    drop(body);
    if batch.batch_id != headers.id {
        return Err(Refused::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "batch_id_mismatch",
            "batch_id in the body differs from the header webhook-id; they are one value",
        ));
    }
    match shared.queue.credit(batch).await {
        Ok(answer) => Ok(Json(answer).into_response()),
        Err(QueueError::Full) => Err(Refused::busy("queue_full", "the ledger is behind")),
        Err(QueueError::Closed) => Err(Refused::busy("stopping", "the ledger has been closed")),
        Err(QueueError::Ledger(error)) => Err(ledger_refusal(&error)),
    }
}

fn ledger_refusal(error: &LedgerError) -> Refused {
    match error {
        LedgerError::Unusable(why) => {
            Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable_batch", why.as_str())
        }
        LedgerError::TooManyShares(_) => {
            Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_shares", error.to_string())
        }
        LedgerError::Storage(_) => Refused::busy("storage", error.to_string()),
    }
}

fn signed_headers(headers: &HeaderMap) -> Result<SignedHeaders<'_>, Refusal> {
    let text = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Refusal::HeaderMissing)
    };
    Ok(SignedHeaders {
        id: text("webhook-id")?,
        timestamp: text("webhook-timestamp")?,
        signature: text("webhook-signature")?,
    })
}

async fn read(body: Body) -> Result<Bytes, Refused> {
    let reading = axum::body::to_bytes(body, BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_READ_TIMEOUT, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_large(&error) => Err(Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("a body has at most {BODY_BYTES_MAX} bytes; split the batch"),
        )),
        Ok(Err(error)) => {
            Err(Refused::new(StatusCode::BAD_REQUEST, "body_broken", error.to_string()))
        }
        Err(_) => Err(Refused::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            format!("the body did not arrive within {} s", BODY_READ_TIMEOUT.as_secs()),
        )),
    }
}

/// Whether reading stopped at the limit. The limit's own error is the innermost of the chain.
fn is_too_large(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `/status`.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    /// Requests that were not believed since the start.
    rejected_signatures: u64,
}

async fn status(State(shared): State<Shared>) -> Response {
    let published = shared.queue.published();
    let rejected_signatures = shared.metrics.refused_signatures_sum();
    Json(Status { snapshot: &published.snapshot, rejected_signatures }).into_response()
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    match shared.metrics.text(&shared.queue.published().snapshot.totals) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    match &shared.queue.published().storage_error {
        None => Json(json!({ "ready": true })).into_response(),
        Some(error) => {
            let body = Json(json!({ "ready": false, "why": { "storage": error } }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}
