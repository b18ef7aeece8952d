//! What operators see: health, metrics, verdicts and the policy in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use policy::CHECKS;
use serde::Deserialize;
use serde_json::json;

use crate::judging::Verifier;
use crate::limits::{VERDICTS_RECENT_MAX, VERDICTS_SHOWN};

/// All routes.
pub fn router(verifier: Arc<Verifier>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "alive": true })) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/verdicts", get(verdicts))
        .route("/policy", get(policy))
        .with_state(verifier)
}

async fn ready(State(verifier): State<Arc<Verifier>>) -> Response {
    let policy = verifier.policy();
    let fault = verifier.chain.fault();
    let status = if fault.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let height = verifier.chain.now().seen.map(|seen| seen.chain.height);
    let body = json!({
        "ready": fault.is_none(),
        "why": fault,
        "chain_height": height,
        "policy_version": policy.version,
        "policy_hash": policy.hash(),
    });
    (status, Json(body)).into_response()
}

async fn metrics(State(verifier): State<Arc<Verifier>>) -> Response {
    let metrics = &verifier.metrics;
    metrics.parked.set(i64::try_from(verifier.chain.parked()).unwrap_or(i64::MAX));
    if let Some(seen) = verifier.chain.now().seen {
        metrics.chain_height.set(i64::from(seen.chain.height));
    }
    let is_ready = i64::from(verifier.chain.fault().is_none());
    metrics.ready.with_label_values(&["node"]).set(is_ready);
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn verdicts(State(verifier): State<Arc<Verifier>>, Query(query): Query<Limit>) -> Response {
    let limit = query.limit.unwrap_or(VERDICTS_SHOWN).min(VERDICTS_RECENT_MAX);
    Json(verifier.records.recent(limit)).into_response()
}

async fn policy(State(verifier): State<Arc<Verifier>>) -> Response {
    let policy = verifier.policy();
    let checks: Vec<_> = CHECKS
        .iter()
        .enumerate()
        .map(|(position, check)| {
            json!({
                "id": check.id,
                "title": check.title,
                "reason_codes": check.codes,
                "severity": policy.severity(position).name(),
                "default_severity": check.severity.name(),
            })
        })
        .collect();
    let settings: BTreeMap<&str, &str> = policy
        .canonical()
        .lines()
        .filter(|line| !line.starts_with("severity.") && !line.starts_with("payout="))
        .filter_map(|line| line.split_once('='))
        .collect();
    let payouts: Vec<_> = policy
        .payouts
        .iter()
        .map(|payout| {
            let script = work::contract::bytes::encode(&payout.script_pubkey);
            json!({ "script": script, "share": payout.share })
        })
        .collect();
    Json(json!({
        "policy_version": policy.version,
        "policy_hash": policy.hash(),
        "canonical": policy.canonical(),
        "settings": settings,
        "payouts": payouts,
        "checks": checks,
    }))
    .into_response()
}
