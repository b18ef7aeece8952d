//! `GET /template/stream`: one task for each reader.
//!
//! A task keeps nothing for its reader but what the reader already has. It encodes a template
//! when the connection has taken the one before, and then the newest there is, so a slow reader
//! costs one line of memory and sees fewer templates.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use work::contract::feed::{FeedLine, FeedWriter, HEARTBEAT_MILLIS, NodeAccess};
use work::template::Template;

use crate::Service;
use crate::board::Snapshot;

/// Readers at a time; each costs a task and at most one line.
pub const READERS_MAX: usize = 64;
/// A reader that takes nothing for this long is dropped.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Half the promised time, so that a late wake-up breaks no promise.
const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MILLIS / 2);
/// Version of the stream's format.
const PROTO: u32 = 1;
/// Longest `Host` that is believed to be one.
const HOST_BYTES_MAX: usize = 255;

/// The route's handler.
pub async fn stream(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let Ok(place) = Arc::clone(&service.readers).try_acquire_owned() else {
        let why = format!("{READERS_MAX} readers are connected, which is the most\n");
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    let (lines, body) = mpsc::channel(1);
    let reader = Reader {
        writer: FeedWriter::default(),
        snapshots: service.board.watch(),
        ending: service.ending.clone(),
        lines,
        sent: None,
        beat_at: Instant::now() + HEARTBEAT,
        is_loss_told: false,
    };
    let source = FeedLine::Source {
        proto: PROTO,
        network: service.source.network(),
        demo: service.source.demo().is_some(),
    };
    let nodes = FeedLine::Nodes { nodes: nodes(&service, &headers) };
    let metrics = Arc::clone(&service.metrics);
    tokio::spawn(async move {
        metrics.readers.inc();
        // Nothing is to be told when a reader leaves: it is gone, or the service ends.
        let _ = reader.run(&[source, nodes]).await;
        metrics.readers.dec();
        drop(place);
    });
    let body = ReceiverStream::new(body).map(Ok::<Bytes, std::convert::Infallible>);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

/// The nodes that take blocks. The simulated chain's is this service, at whatever address the
/// reader reached it.
fn nodes(service: &Service, headers: &HeaderMap) -> Vec<NodeAccess> {
    if service.source.demo().is_none() {
        return service.source.nodes();
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| !host.is_empty() && host.len() <= HOST_BYTES_MAX)
        .map_or_else(|| service.listen_addr.to_string(), str::to_owned);
    vec![NodeAccess { url: format!("http://{host}/rpc"), auth: None }]
}

/// The reader is gone, or the service ends.
struct Gone;

struct Reader {
    writer: FeedWriter,
    snapshots: watch::Receiver<Snapshot>,
    ending: watch::Receiver<bool>,
    lines: mpsc::Sender<Bytes>,
    /// The newest template sent.
    sent: Option<u64>,
    /// When a beat is due, whatever else was sent.
    beat_at: Instant,
    /// The reader knows that there is no node.
    is_loss_told: bool,
}

impl Reader {
    async fn run(mut self, introduction: &[FeedLine]) -> Result<(), Gone> {
        for line in introduction {
            self.send(encode(line)).await?;
        }
        loop {
            let snapshot = self.snapshots.borrow_and_update().clone();
            for template in snapshot.templates() {
                if self.sent.is_some_and(|sent| template.id.0 <= sent) {
                    continue;
                }
                self.send_template(Arc::clone(template)).await?;
                // While that went out, something newer may have come.
                if self.snapshots.has_changed().unwrap_or(false) {
                    break;
                }
            }
            if self.snapshots.has_changed().unwrap_or(false) {
                continue;
            }
            // A loss is told at once, and again with every beat.
            let is_lost = snapshot.lost.is_some();
            if is_lost != self.is_loss_told || self.beat_at <= Instant::now() {
                self.send(encode(&beat(&snapshot))).await?;
                (self.is_loss_told, self.beat_at) = (is_lost, Instant::now() + HEARTBEAT);
            }
            tokio::select! {
                changed = self.snapshots.changed() => changed.map_err(|_| Gone)?,
                () = tokio::time::sleep_until(self.beat_at) => {}
                () = ended(&mut self.ending) => return Err(Gone),
                () = self.lines.closed() => return Err(Gone),
            }
        }
    }

    async fn send_template(&mut self, template: Arc<Template>) -> Result<(), Gone> {
        self.sent = Some(template.id.0);
        let mut writer = std::mem::take(&mut self.writer);
        // A full template takes milliseconds to encode; other readers need not wait for that.
        let work = move || {
            let line = encode(&writer.line(&template));
            (writer, line)
        };
        let (writer, line) = tokio::task::spawn_blocking(work).await.map_err(|_| Gone)?;
        self.writer = writer;
        self.send(line).await
    }

    async fn send(&mut self, line: Bytes) -> Result<(), Gone> {
        tokio::select! {
            sent = tokio::time::timeout(STALL_MAX, self.lines.send(line)) => {
                sent.map_err(|_| Gone)?.map_err(|_| Gone)
            }
            () = ended(&mut self.ending) => Err(Gone),
        }
    }
}

async fn ended(ending: &mut watch::Receiver<bool>) {
    // Without a sender the service is past its end.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// What is said when there is nothing new.
fn beat(snapshot: &Snapshot) -> FeedLine {
    match &snapshot.lost {
        Some((since, _)) => {
            let since_millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            FeedLine::NodeLost { since_millis }
        }
        None => FeedLine::Heartbeat,
    }
}

/// One line, its newline included.
fn encode(line: &FeedLine) -> Bytes {
    let mut bytes = serde_json::to_vec(line).unwrap_or_else(|error| {
        // Every field is a number, a string or a list of those.
        tracing::error!(%error, "a line of the stream cannot be encoded");
        br#"{"type":"Heartbeat"}"#.to_vec()
    });
    bytes.push(b'\n');
    bytes.into()
}
