//! The HTTP side: which path answers what.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use source::clock;

use crate::{Service, demo, stream};

/// Largest request: a block of 4 MB in hexadecimal digits, with the JSON around it.
const REQUEST_BYTES_MAX: usize = 9 * 1024 * 1024;

/// All routes.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/template/stream", get(stream::stream))
        .route("/chain", get(chain))
        .route("/rpc", post(demo::rpc))
        .route("/demo/block", post(demo::make_blocks))
        .route("/demo/fork", post(demo::make_fork))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(service)
}

/// `/chain`: [`work::contract::chain::Chain`], 503 while it is not known.
async fn chain(State(service): State<Arc<Service>>) -> Response {
    match service.board.now().chain {
        Some(chain) => Json(chain.as_ref()).into_response(),
        None => {
            let why = serde_json::json!({ "error": "the node has not answered yet" });
            (StatusCode::SERVICE_UNAVAILABLE, Json(why)).into_response()
        }
    }
}

async fn readyz(State(service): State<Arc<Service>>) -> Response {
    match service.board.now().trouble(clock::mono()) {
        None => Json(serde_json::json!({ "ready": true })).into_response(),
        Some(why) => {
            let body = serde_json::json!({ "ready": false, "lacking": ["node"], "why": why });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    match service.metrics.text(&service.board.now()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response()
        }
    }
}
