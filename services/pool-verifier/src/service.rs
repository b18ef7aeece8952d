//! Start and stop: listeners, threads, addresses.
#![allow(clippy::disallowed_methods, reason = "driver: binds sockets and writes files")]

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::chain::ChainWatch;
use crate::config::Config;
use crate::connection;
use crate::http;
use crate::judging::Verifier;
use crate::limits::{LOG_BYTES_MAX, LOG_FILES_MAX};
use crate::metrics::Metrics;
use crate::record::Records;

/// Pause after a connection that could not be accepted, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running service.
#[derive(Debug)]
pub struct Running {
    /// Where gateways connect.
    pub listen_addr: SocketAddr,
    /// Where operators look.
    pub http_listen_addr: SocketAddr,
    verifier: Arc<Verifier>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Start the service: listeners are bound and `addresses.json` is written when this returns.
///
/// # Errors
/// One sentence that names what failed.
pub async fn start(config: Config) -> Result<Running, String> {
    let data_dir = config.data_dir.clone();
    let in_data_dir = |error: io::Error| format!("data_dir {}: {error}", config.data_dir.display());
    std::fs::create_dir_all(&data_dir).map_err(in_data_dir)?;
    let (listener, listen_addr) = bind("listen_addr", config.listen_addr).await?;
    let (ops, http_listen_addr) = bind("http_listen_addr", config.http_listen_addr).await?;
    if !listen_addr.ip().is_loopback() {
        tracing::warn!(%listen_addr, "gateways are not authenticated: keep this port private");
    }
    let (records, log_thread) =
        Records::open(&data_dir, LOG_BYTES_MAX, LOG_FILES_MAX).map_err(in_data_dir)?;
    let metrics = Metrics::new().map_err(|error| format!("metrics: {error}"))?;
    let (chain, chain_thread) = ChainWatch::start(&config.chain, config.network)
        .map_err(|error| format!("chain thread: {error}"))?;
    write_addresses(&data_dir, listen_addr, http_listen_addr).map_err(in_data_dir)?;
    let verifier = Arc::new(Verifier::new(config, chain, records, metrics));
    let stopping = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(Arc::clone(&verifier), listener, stopping.subscribe()));
    let router = http::router(Arc::clone(&verifier));
    let mut until = stopping.subscribe();
    tasks.spawn(async move {
        let stop = async move { drop(until.wait_for(|stopping| *stopping).await) };
        if let Err(error) = axum::serve(ops, router).with_graceful_shutdown(stop).await {
            tracing::error!(%error, "http");
        }
    });
    let policy = verifier.policy();
    tracing::info!(%listen_addr, %http_listen_addr, policy = policy.hash(), "listening");
    let threads = vec![log_thread, chain_thread];
    Ok(Running { listen_addr, http_listen_addr, verifier, stopping, tasks, threads })
}

impl Running {
    /// Read policy.toml again; see [`Verifier::reload_policy`].
    ///
    /// # Errors
    /// One sentence that names file, place and remedy. The rules in force stay.
    pub fn reload_policy(&self) -> Result<(), String> {
        self.verifier.reload_policy().map_err(|error| error.to_string())
    }

    /// Close all connections, write what is still queued for the log, end all threads.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        self.verifier.chain.stop();
        let drain = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(2), drain).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.verifier.records.close();
        let threads = self.threads;
        let ended = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        let _ = ended.await;
    }
}

async fn bind(key: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let fault = |error: io::Error| format!("{key} {address}: {error}");
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let real = listener.local_addr().map_err(fault)?;
    Ok((listener, real))
}

/// Write the real addresses so that a reader sees all of them or none.
fn write_addresses(data_dir: &Path, listen: SocketAddr, http: SocketAddr) -> io::Result<()> {
    let text = json!({ "listen_addr": listen, "http_listen_addr": http }).to_string();
    let unfinished = data_dir.join("addresses.json.new");
    std::fs::write(&unfinished, text)?;
    std::fs::rename(unfinished, data_dir.join("addresses.json"))
}

async fn accept(
    verifier: Arc<Verifier>,
    listener: TcpListener,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&verifier.connections).try_acquire_owned() else {
            tracing::warn!(%peer, "refused: too many connections");
            continue;
        };
        let verifier = Arc::clone(&verifier);
        connections.spawn(async move {
            connection::serve(verifier, stream, peer).await;
            drop(place);
        });
    }
    connections.shutdown().await;
}
