//! HTTP for operators: metrics, health, status, events, shares, dead letters.
//!
//! axum on one ordinary thread. It reads the cores' blocks and the journal's files, and never waits
//! for a core or for a disk.
//!
//! ```text
//! guard.rs         who may ask
//! problem.rs       what is answered to nonsense
//! pages.rs         metrics, readiness, status
//! reading.rs       how the journal is read without anybody waiting
//! events.rs        the log as a stream
//! export.rs        shares as CSV
//! share.rs         the way of one share
//! dead_letters.rs  what the backend would not take
//! ```

mod dead_letters;
mod events;
mod export;
mod guard;
mod pages;
mod problem;
mod reading;
mod share;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use prometheus::Registry;
use tracing::{error, warn};

use self::problem::Problem;
pub use self::reading::JournalView;
use self::reading::Seats;
use super::exposition::Exposition;
use crate::config::hatch::Hatches;
use crate::config::secret::Secret;
use crate::limits::READING_THREADS;
use crate::metrics::{Block, control as c, forwarder as f, shard as s};
use crate::mode::Mode;

/// How often an operator is reminded of rules that are suspended.
const REMINDER: Duration = Duration::from_secs(3_600);

/// How long the end waits for a thread that reads a file.
const READERS_END: Duration = Duration::from_millis(500);

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
    journal: Option<JournalView>,
    seats: Seats,
}

impl Ops {
    /// # Errors
    /// There is none, as in shadow mode.
    fn journal(&self) -> Result<&JournalView, Problem> {
        self.journal.as_ref().ok_or_else(|| {
            Problem::busy(format!("a gateway in {} mode keeps no journal", self.mode.name()))
        })
    }
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
    /// The journal, if there is one.
    pub journal: Option<JournalView>,
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
        journal: settings.journal,
        seats: Seats::new(),
    });
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READING_THREADS)
        .build()
        .map_err(|error| error.to_string())?;
    std::thread::Builder::new()
        .name("ops".into())
        .spawn(move || {
            runtime.spawn(remind(settings.hatches));
            runtime.block_on(serve(listener, ops, stop));
            // A disk that hangs does not hold up the end.
            runtime.shutdown_timeout(READERS_END);
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
    let router = router(ops);
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

/// Every page.
fn router(ops: Arc<Ops>) -> Router {
    let guarded = Router::new()
        .route("/api/v1/status", get(pages::status))
        .route("/gateway/events", get(events::events))
        .route("/api/v1/shares/export.csv", get(export::export))
        .route("/api/v1/shares/{share_id}", get(share::share))
        .route("/api/v1/dead-letters", get(dead_letters::list))
        .route("/api/v1/dead-letters/replay-all", post(dead_letters::replay_all))
        .route("/api/v1/dead-letters/{id}", get(dead_letters::show))
        .route("/api/v1/dead-letters/{id}/replay", post(dead_letters::replay))
        .route("/api/v1/dead-letters/{id}/discard", post(dead_letters::discard))
        .route_layer(from_fn_with_state(Arc::clone(&ops), guard::guard));
    Router::new()
        .route("/metrics", get(pages::metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(pages::readyz))
        .merge(guarded)
        .with_state(ops)
}
