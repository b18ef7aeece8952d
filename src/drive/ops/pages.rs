//! `/metrics`, `/readyz`, `/api/v1/status`: what the cores show.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder as _, TextEncoder};
use serde_json::json;

use super::super::clock::Clock;
use super::Ops;
use crate::metrics::{control as c, forwarder as f, shard as s};
use crate::mode::Mode;

/// A disk that takes longer than this for one thing hangs, milliseconds.
const DISK_HANGS_MILLIS: u64 = 2_000;

/// All counters as Prometheus text.
pub async fn metrics(State(ops): State<Arc<Ops>>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&ops.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Ops {
    fn components(&self) -> [(&'static str, bool); 4] {
        let control = &self.blocks.control;
        let verifier_needed = self.mode == Mode::Inline;
        [
            ("templates", control.read(c::SOURCE_UP) == 1),
            ("verifier", !verifier_needed || control.read(c::VERIFIER_UP) == 1),
            ("storage", self.is_storage_well()),
            ("work", self.mode == Mode::Shadow || control.read(c::READY) == 1),
        ]
    }

    /// Whether the journal's disk has room, does not fail, and does not hang.
    fn is_storage_well(&self) -> bool {
        let forwarder = |cell| self.blocks.forwarder.read(cell);
        let busy_since = forwarder(f::DISK_BUSY_SINCE);
        let now = Clock::start().now().unix.0;
        let hangs = busy_since != 0 && now.saturating_sub(busy_since) > DISK_HANGS_MILLIS;
        forwarder(f::SPACE_LEVEL) < 2 && forwarder(f::DISK_FAULT) == 0 && !hangs
    }
}

/// Whether miners can be served, and what is lacking.
pub async fn readyz(State(ops): State<Arc<Ops>>) -> Response {
    let components = ops.components();
    let ready = components.iter().all(|(_, ready)| *ready);
    let lacking: Vec<_> =
        components.iter().filter(|(_, ready)| !ready).map(|(name, _)| *name).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "lacking": lacking }))).into_response()
}

/// The gateway on one page.
pub async fn status(State(ops): State<Arc<Ops>>) -> Response {
    let shards = |cell| ops.blocks.shards.iter().map(|block| block.read(cell)).sum::<u64>();
    let control = |cell| ops.blocks.control.read(cell);
    let forwarder = |cell| ops.blocks.forwarder.read(cell);
    Json(json!({
        "mode": ops.mode.name(),
        "listen_addr": ops.listen_addr,
        "authority_pubkey": ops.authority_pubkey,
        "components": ops.components().into_iter().collect::<BTreeMap<_, _>>(),
        "connections": shards(s::OPEN) + shards(s::IN_SETUP) + shards(s::IN_HANDSHAKE),
        "channels": shards(s::CHANNELS),
        "shares_accepted": shards(s::SHARES),
        "work": shards(s::WORK).to_string(),
        "blocks_found": control(c::BLOCKS),
        "height": control(c::HEIGHT),
        "hold": control(c::HOLD) == 1,
        "shares_unsettled": forwarder(f::QUEUE),
        "shares_delivered": forwarder(f::DELIVERED),
        "events_head": ops.journal.as_ref().map(|view| view.head.read().saturating_sub(1)),
        "event_readers": ops.seats.event_readers(),
    }))
    .into_response()
}
