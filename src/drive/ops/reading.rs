//! How the pages read the journal: in short pieces, on threads that may wait for a disk.
//!
//! A page owns its cursor. Each piece of reading takes the cursor to one of a few blocking threads
//! and brings it back with some bytes; the next piece begins when the connection has taken those.
//! A reader that stops reading therefore holds its cursor and one piece, and no thread. The ops
//! thread itself never waits for a file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use crossbeam::queue::ArrayQueue;
use futures_util::stream;
use journal::folder::{Folder, FolderError};
use rg_ring::{Bell, Sequence};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::problem::Problem;
use crate::limits::{EVENT_READERS_MAX, EXPORTS_MAX, LOOKUPS_MAX};
use crate::machine::command::Command;

/// What the pages know of the journal and of who writes it.
#[derive(Debug, Clone)]
pub struct JournalView {
    /// Folder of its segments.
    pub folder: PathBuf,
    /// Every event below this number is on disk.
    pub head: Sequence,
    /// Whose journal it is.
    pub gateway_id: String,
    /// Orders to the forwarder core.
    pub commands: Arc<ArrayQueue<Command>>,
    /// Wakes the forwarder core.
    pub bell: Bell,
}

impl JournalView {
    /// The folder, opened.
    ///
    /// # Errors
    /// It is not there or holds no journal.
    pub fn open(&self) -> Result<Folder, FolderError> {
        Folder::open(&self.folder)
    }

    /// Puts an order before the forwarder core.
    ///
    /// # Errors
    /// As many orders as may wait are waiting.
    pub fn order(&self, command: Command) -> Result<(), Problem> {
        let ordered = self.commands.push(command);
        self.bell.ring();
        ordered.map_err(|_| {
            let waiting = self.commands.capacity();
            Problem::busy(format!("{waiting} orders are waiting already; ask again in a second"))
        })
    }
}

/// A place among those who read at once, until it is dropped.
pub type Seat = OwnedSemaphorePermit;

/// Places for those who read at once.
#[derive(Debug)]
pub struct Seats {
    events: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

impl Seats {
    /// All free.
    pub fn new() -> Seats {
        let seats = |count| Arc::new(Semaphore::new(count));
        Seats {
            events: seats(EVENT_READERS_MAX),
            exports: seats(EXPORTS_MAX),
            lookups: seats(LOOKUPS_MAX),
        }
    }

    /// One of [`EVENT_READERS_MAX`].
    ///
    /// # Errors
    /// All are taken.
    pub fn event_reader(&self) -> Result<Seat, Problem> {
        take(&self.events, EVENT_READERS_MAX, "readers of events")
    }

    /// One of [`EXPORTS_MAX`].
    ///
    /// # Errors
    /// All are taken.
    pub fn export(&self) -> Result<Seat, Problem> {
        take(&self.exports, EXPORTS_MAX, "exports")
    }

    /// One of [`LOOKUPS_MAX`].
    ///
    /// # Errors
    /// All are taken.
    pub fn lookup(&self) -> Result<Seat, Problem> {
        take(&self.lookups, LOOKUPS_MAX, "lookups")
    }

    /// Readers of events at the moment.
    pub fn event_readers(&self) -> usize {
        EVENT_READERS_MAX - self.events.available_permits()
    }
}

fn take(seats: &Arc<Semaphore>, count: usize, who: &str) -> Result<Seat, Problem> {
    Arc::clone(seats).try_acquire_owned().map_err(|_| {
        Problem::busy(format!("{count} {who} at once is the limit; end one, or ask again later"))
    })
}

/// Does `work`, which reads files, on a blocking thread.
///
/// # Errors
/// What `work` says; or that it panicked.
pub async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Problem>
where
    T: Send + 'static,
    E: Into<Problem> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => {
            warn!(%error, "reading the journal");
            Err(Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
    }
}

/// What comes next of a body, and the page that goes on.
pub type Piece<S> = Result<Option<(Bytes, S)>, FolderError>;

/// A body made piece by piece. If the journal cannot be read on, the connection is broken off, so
/// that what came is not taken for all there is.
pub fn body<S, F>(state: S, next: impl FnMut(S) -> F + Send + 'static) -> Body
where
    S: Send + 'static,
    F: Future<Output = Piece<S>> + Send + 'static,
{
    let mut next = next;
    Body::from_stream(stream::try_unfold(state, move |state| {
        let piece = next(state);
        async move {
            piece.await.map_err(|error| {
                warn!(%error, "a reader of the journal is cut off");
                io::Error::other(error.to_string())
            })
        }
    }))
}
