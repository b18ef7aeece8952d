//! Start and stop: the data folder and its lock, the listener, `addresses.json`, the signals.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::limits::{DRAIN_TIMEOUT, SECRET_FILE_BYTES_MAX};
use crate::listener::BoundedListener;
use crate::metrics::Metrics;
use crate::signature::Secrets;
use crate::{http, writer};

/// Where the backend listens and keeps things.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of the HTTP side; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Folder of the ledger; made if it does not exist.
    pub data_dir: PathBuf,
    /// File with the secrets, one a line (see [`crate::signature`]).
    pub secret_file: PathBuf,
}

/// Serves until SIGTERM or SIGINT, then answers what is under way and returns.
///
/// # Errors
/// A sentence that names the file or address that could not be used.
pub fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> io::Result<()> {
    // Asked for first: a signal that comes while the ledger is opened must not kill the process.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let secrets = read_secrets(&options.secret_file)?;
    fs::create_dir_all(&options.data_dir).map_err(about(&options.data_dir))?;
    let _lock = lock(&options.data_dir)?;
    let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
    let ledger = options.data_dir.join("ledger.sqlite");
    let (queue, thread) = writer::start(&ledger, Arc::clone(&metrics)).map_err(about(&ledger))?;
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {}: {error}", options.listen))
    })?;
    let address = listener.local_addr()?;
    write_addresses(&options.data_dir, address)?;
    tracing::info!(%address, data_dir = %options.data_dir.display(), "listening");

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let router = http::router(secrets, queue, metrics);
    let server = axum::serve(BoundedListener::new(listener), router)
        .with_graceful_shutdown(async { drop(stopped.await) })
        .into_future();
    let mut server = tokio::spawn(server);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut server => return ended.map_err(io::Error::other)?,
    }
    tracing::info!("stopping");
    drop(stop);
    if tokio::time::timeout(DRAIN_TIMEOUT, &mut server).await.is_err() {
        tracing::warn!("requests were still under way; their senders will repeat them");
        server.abort();
        let _ = server.await;
    }
    // The last clone of the queue may live in a connection that was not closed in time, so the
    // thread is not waited for: what it has booked is durable, the rest will be sent again.
    if thread.is_finished() {
        let _ = thread.join();
    }
    Ok(())
}

fn about(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn read_secrets(path: &Path) -> io::Result<Secrets> {
    let mut text = String::new();
    let file = File::open(path).map_err(about(path))?;
    file.take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text).map_err(about(path))?;
    Secrets::parse(&text).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
    })
}

/// Refuses a second backend on the same folder. The kernel gives the lock back at any exit.
fn lock(data_dir: &Path) -> io::Result<File> {
    let path = data_dir.join("lock");
    let file = File::create(&path).map_err(about(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{} is in use by another reference-backend", data_dir.display()),
        )),
        Err(TryLockError::Error(error)) => Err(about(&path)(error)),
    }
}

fn write_addresses(data_dir: &Path, address: SocketAddr) -> io::Result<()> {
    let text = serde_json::json!({ "http_listen_addr": address }).to_string();
    let (path, unfinished) = (data_dir.join("addresses.json"), data_dir.join("addresses.json.new"));
    let mut file = File::create(&unfinished).map_err(about(&unfinished))?;
    file.write_all(text.as_bytes()).map_err(about(&unfinished))?;
    fs::rename(&unfinished, &path).map_err(about(&path))
}
