//! HTTP for operators: `/metrics`, `/healthz`, `/readyz`, `/api/v1/status`.
//!
//! axum on one ordinary thread. It reads the cores' blocks and never waits for a core.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Encoder as _, Registry, TextEncoder};
use serde_json::json;
use tracing::{error, warn};

use super::exposition::Exposition;
use crate::config::hatch::Hatches;
use crate::config::secret::Secret;
use crate::metrics::{Block, control as c, forwarder as f, shard as s};
use crate::mode::Mode;

/// How often an operator is reminded of rules that are suspended.
const REMINDER: Duration = Duration::from_secs(3_600);

/// How long the thread looks away from the stop flag.
const STOP_POLL: Duration = Duration::from_millis(50);

/// What all cores show.
pub struct Blocks {
    /// One per shard.
    pub shards: Vec<Arc<Block<{ s::CELLS }>>>,
    /// Control's.
    pub control: Arc<Block<{ c::CELLS }>>,
    /// The forwarder's.
    pub forwarder: Arc<Block<{ f::CELLS }>>,
}

/// What the pages need.
struct Ops {
    registry: Registry,
    blocks: Arc<Blocks>,
    mode: Mode,
    api_keys: Vec<Secret>,
    authority_pubkey: String,
    listen_addr: Option<SocketAddr>,
}

/// What the thread is told.
pub struct OpsSettings {
    /// The mode.
    pub mode: Mode,
    /// Keys of everything but health and metrics, any of which will do; none: nobody is asked.
    pub api_keys: Vec<Secret>,
    /// Rules that are suspended.
    pub hatches: Hatches,
    /// For the status page.
    pub authority_pubkey: String,
    /// For the status page.
    pub listen_addr: Option<SocketAddr>,
}

/// Serve on `listener` until `stop`.
///
/// # Errors
/// The thread, its runtime or the registry cannot be made.
pub fn spawn(
    listener: std::net::TcpListener,
    blocks: Arc<Blocks>,
    settings: OpsSettings,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<()>, String> {
    let registry = Registry::new();
    let exposition =
        Exposition::new(Arc::clone(&blocks), settings.mode.name(), settings.hatches.clone());
    registry.register(Box::new(exposition)).map_err(|error| error.to_string())?;
    let ops = Arc::new(Ops {
        registry,
        blocks,
        mode: settings.mode,
        api_keys: settings.api_keys,
        authority_pubkey: settings.authority_pubkey,
        listen_addr: settings.listen_addr,
    });
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    std::thread::Builder::new()
        .name("ops".into())
        .spawn(move || {
            runtime.spawn(remind(settings.hatches));
            runtime.block_on(serve(listener, ops, stop));
        })
        .map_err(|error| format!("the ops thread cannot be started: {error}"))
}

/// Say every hour which rules are suspended; the start has said it first.
async fn remind(hatches: Hatches) {
    loop {
        tokio::time::sleep(REMINDER).await;
        for hatch in hatches.iter() {
            warn!(name = hatch.name(), "{} (escape hatch)", hatch.meaning());
        }
    }
}

async fn serve(listener: std::net::TcpListener, ops: Arc<Ops>, stop: Arc<AtomicBool>) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .with_state(ops);
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            error!(%error, "the HTTP listener");
            return;
        }
    };
    let serving = axum::serve(listener, router);
    tokio::select! {
        served = serving => if let Err(error) = served { error!(%error, "HTTP") },
        () = stopped(&stop) => (),
    }
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(STOP_POLL).await;
    }
}

async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&ops.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Ops {
    fn components(&self) -> [(&'static str, bool); 3] {
        let control = &self.blocks.control;
        let verifier_needed = self.mode == Mode::Inline;
        [
            ("templates", control.read(c::SOURCE_UP) == 1),
            ("verifier", !verifier_needed || control.read(c::VERIFIER_UP) == 1),
            ("work", self.mode == Mode::Shadow || control.read(c::READY) == 1),
        ]
    }

    /// A key by `Authorization: Bearer` or `X-Api-Key`.
    fn is_allowed(&self, headers: &HeaderMap) -> bool {
        if self.api_keys.is_empty() {
            return true;
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let given = bearer.or(text("x-api-key"));
        given.is_some_and(|key| self.api_keys.iter().any(|own| own.matches(key.as_bytes())))
    }
}

async fn readyz(State(ops): State<Arc<Ops>>) -> Response {
    let components = ops.components();
    let ready = components.iter().all(|(_, ready)| *ready);
    let lacking: Vec<_> =
        components.iter().filter(|(_, ready)| !ready).map(|(name, _)| *name).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "lacking": lacking }))).into_response()
}

async fn status(State(ops): State<Arc<Ops>>, headers: HeaderMap) -> Response {
    if !ops.is_allowed(&headers) {
        let text = "give gateway.http_api_key as Authorization: Bearer or X-Api-Key\n";
        return (StatusCode::UNAUTHORIZED, text).into_response();
    }
    let shards = |cell| ops.blocks.shards.iter().map(|block| block.read(cell)).sum::<u64>();
    let control = |cell| ops.blocks.control.read(cell);
    let forwarder = |cell| ops.blocks.forwarder.read(cell);
    Json(json!({
        "mode": ops.mode.name(),
        "listen_addr": ops.listen_addr,
        "authority_pubkey": ops.authority_pubkey,
        "components": ops.components().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "connections": shards(s::OPEN) + shards(s::IN_SETUP) + shards(s::IN_HANDSHAKE),
        "channels": shards(s::CHANNELS),
        "shares_accepted": shards(s::SHARES),
        "work": shards(s::WORK).to_string(),
        "blocks_found": control(c::BLOCKS),
        "height": control(c::HEIGHT),
        "hold": control(c::HOLD) == 1,
        "shares_unsettled": forwarder(f::QUEUE),
        "shares_delivered": forwarder(f::DELIVERED),
    }))
    .into_response()
}
