//! The thread that owns the ledger. Requests reach it through a bounded queue; what it has booked
//! is published as a snapshot that anyone may read without waiting for it.

#![allow(clippy::disallowed_methods, reason = "driver: measures how long a commit takes")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{oneshot, watch};
use work::contract::shares::{ShareAnswer, ShareBatch};

use crate::ledger::{Ledger, LedgerError, Snapshot};
use crate::limits::{QUEUE_BATCHES_MAX, STORAGE_RETRY_INTERVAL};
use crate::metrics::Metrics;

/// What the thread is asked to book.
struct Request {
    batch: ShareBatch,
    answer: oneshot::Sender<Result<ShareAnswer, LedgerError>>,
}

/// What everyone may see of the ledger.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// As of the last batch.
    pub snapshot: Snapshot,
    /// Why the last batch could not be stored; `None` when it could.
    pub storage_error: Option<String>,
}

/// The way to the ledger thread. Clones share one queue.
#[derive(Debug, Clone)]
pub struct LedgerQueue {
    requests: SyncSender<Request>,
    published: watch::Receiver<Arc<Published>>,
}

/// Why no answer came.
#[derive(Debug)]
pub enum QueueError {
    /// The queue has no free place.
    Full,
    /// The thread has ended.
    Closed,
    /// The ledger refused.
    Ledger(LedgerError),
}

impl LedgerQueue {
    /// Books a batch and waits for its durable answer.
    ///
    /// # Errors
    /// The queue is full, the thread has ended, or the ledger refused.
    pub async fn credit(&self, batch: ShareBatch) -> Result<ShareAnswer, QueueError> {
        let (answer, answered) = oneshot::channel();
        match self.requests.try_send(Request { batch, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(QueueError::Full),
            Err(TrySendError::Disconnected(_)) => return Err(QueueError::Closed),
        }
        answered.await.map_err(|_| QueueError::Closed)?.map_err(QueueError::Ledger)
    }

    /// What the ledger held after its last batch.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }
}

/// Opens the ledger at `path` and starts its thread. The thread ends when every clone of the queue
/// is gone and what was queued is booked.
///
/// # Errors
/// The file cannot be opened, or no thread can be started.
pub fn start(path: &Path, metrics: Arc<Metrics>) -> io::Result<(LedgerQueue, JoinHandle<()>)> {
    let ledger = Ledger::open(path).map_err(io::Error::other)?;
    let snapshot = ledger.snapshot().map_err(io::Error::other)?;
    let (requests, received) = sync_channel(QUEUE_BATCHES_MAX);
    let first = Arc::new(Published { snapshot, storage_error: None });
    let (publish, published) = watch::channel(first);
    let thread = std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || run(ledger, &received, &publish, &metrics))?;
    Ok((LedgerQueue { requests, published }, thread))
}

/// The next batch; `None` when nobody can send one any more. While the file fails it is tried again
/// now and then, so that a sender who waits until this backend is ready does not wait for ever.
fn next(
    ledger: &mut Ledger,
    received: &Receiver<Request>,
    publish: &watch::Sender<Arc<Published>>,
) -> Option<Request> {
    while publish.borrow().storage_error.is_some() {
        match received.recv_timeout(STORAGE_RETRY_INTERVAL) {
            Ok(request) => return Some(request),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if ledger.try_write().is_ok() {
            tracing::info!("the ledger can be written again");
            let snapshot = publish.borrow().snapshot.clone();
            publish.send_replace(Arc::new(Published { snapshot, storage_error: None }));
        }
    }
    received.recv().ok()
}

fn run(
    mut ledger: Ledger,
    received: &Receiver<Request>,
    publish: &watch::Sender<Arc<Published>>,
    metrics: &Metrics,
) {
    while let Some(Request { batch, answer }) = next(&mut ledger, received, publish) {
        let started = Instant::now();
        let result = ledger.credit(&batch);
        metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        let storage_error = match &result {
            Err(error @ LedgerError::Storage(_)) => {
                tracing::error!(batch_id = batch.batch_id, %error, "batch not booked");
                Some(error.to_string())
            }
            _ => None,
        };
        if let Ok(booked) = &result {
            let refused = booked.results.iter().filter(|result| !result.accepted).count();
            tracing::info!(
                batch_id = batch.batch_id,
                gateway_id = batch.gateway_id,
                shares = booked.results.len(),
                refused,
                "batch booked"
            );
        }
        let before = publish.borrow().snapshot.clone();
        let snapshot = ledger.snapshot().unwrap_or(before.clone());
        if snapshot.totals.conflicts > before.totals.conflicts {
            tracing::error!(
                batch_id = batch.batch_id,
                gateway_id = batch.gateway_id,
                "a share hash came from two gateways; check that their instance_id differ"
            );
        }
        publish.send_replace(Arc::new(Published { snapshot, storage_error }));
        // The sender may have gone; the batch is booked, and its repetition gets the same answer.
        let _ = answer.send(result);
    }
}
