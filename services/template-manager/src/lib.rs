//! template-manager: publishes one source's templates to gateways, the moment they exist.
//!
//! The source (see the `source` crate) runs on threads of its own and writes what it learns to
//! the [`board`]; each reader of `GET /template/stream` looks at the board when it has room and
//! gets the newest, so a slow reader misses templates and delays nobody ([`stream`]). For the
//! simulated chain this program is the node, too ([`demo`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod board;
pub mod config;
pub mod demo;
pub mod http;
pub mod metrics;
pub mod stream;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use source::{Source, SourceEvent};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use board::Board;
use config::Config;
use metrics::Metrics;

/// Time that open requests get after a signal; the process ends within two seconds of it.
const DRAIN: Duration = Duration::from_millis(1_000);

/// Why the service ended other than by a signal: one sentence.
#[derive(Debug)]
pub struct Failure(
    /// The sentence.
    pub String,
);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// All that requests look at.
pub struct Service {
    /// The source; ends with the service.
    pub source: Source,
    /// What the source has said.
    pub board: Arc<Board>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Places for readers of the stream.
    pub readers: Arc<Semaphore>,
    /// True once the service is to end.
    pub ending: watch::Receiver<bool>,
    /// Address that requests come to, for readers that do not say which they used.
    pub listen_addr: std::net::SocketAddr,
}

/// Run until SIGTERM or SIGINT.
///
/// # Errors
/// [`Failure`] if the service cannot start or its listener breaks.
pub async fn run(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(failure("cannot hear SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failure("cannot hear SIGINT"))?;
    let listener = TcpListener::bind(&config.listen_addr).await.map_err(|error| {
        Failure(format!("cannot listen on listen_addr = \"{}\": {error}", config.listen_addr))
    })?;
    let listen_addr = listener.local_addr().map_err(failure("the listener has no address"))?;
    let metrics = Arc::new(Metrics::new().map_err(failure("metrics"))?);
    let board = Arc::new(Board::default());
    let source = start_source(&config, &board, &metrics).await?;
    if !listen_addr.ip().is_loopback() && source.nodes().iter().any(|node| node.auth.is_some()) {
        tracing::warn!(
            %listen_addr,
            "the stream tells the node's credentials to every reader; keep this address private"
        );
    }
    let (end, ending) = watch::channel(false);
    let readers = Arc::new(Semaphore::new(stream::READERS_MAX));
    let service =
        Arc::new(Service { source, board, metrics, readers, ending: ending.clone(), listen_addr });
    write_addresses(&config.data_dir, listen_addr)?;
    let (source, nodes) = (service.source.kind().name(), service.source.nodes().len());
    tracing::info!(%listen_addr, source, nodes, "template-manager listens");

    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    });
    let mut drained = ending;
    let router = http::router(Arc::clone(&service));
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        // The sender lives as long as this function.
        let _ = drained.wait_for(|ending| *ending).await;
    });
    let mut serving = std::pin::pin!(serving.into_future());
    tokio::select! {
        ended = &mut serving => return ended.map_err(failure("the listener broke")),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    end.send_replace(true);
    if tokio::time::timeout(DRAIN, serving).await.is_err() {
        tracing::warn!("some readers did not take their last bytes in time");
    }
    Ok(())
}

async fn start_source(
    config: &Config,
    board: &Arc<Board>,
    metrics: &Arc<Metrics>,
) -> Result<Source, Failure> {
    let source_config = config.source_config();
    let kind = source_config.check().map_err(|error| Failure(error.0))?;
    let (board, metrics) = (Arc::clone(board), Arc::clone(metrics));
    let deliver = Arc::new(move |event: SourceEvent| {
        metrics.on_event(kind, &event);
        board.on_event(event);
    });
    // The first look at a node may take a while.
    tokio::task::spawn_blocking(move || Source::start(source_config, deliver))
        .await
        .map_err(failure("the source broke at its start"))?
        .map_err(|error| Failure(error.0))
}

/// Tell where the service listens: `addresses.json`, written beside and moved into place.
fn write_addresses(data_dir: &Path, listen_addr: std::net::SocketAddr) -> Result<(), Failure> {
    let cannot = |error| {
        Failure(format!("cannot write addresses.json to data_dir {}: {error}", data_dir.display()))
    };
    let text = serde_json::json!({ "http_listen_addr": listen_addr.to_string() }).to_string();
    let temporary = data_dir.join("addresses.json.new");
    std::fs::create_dir_all(data_dir).map_err(cannot)?;
    std::fs::write(&temporary, text).map_err(cannot)?;
    std::fs::rename(&temporary, data_dir.join("addresses.json")).map_err(cannot)
}

fn failure<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}
