//! A backend that fails as it is told, in front of a book that a test can believe ([`Truth`]).
//!
//! It listens on one port all its life. [`Fault::Refused`] closes the listener; everything else
//! happens behind it. It judges no share: what is wrong with a request is noted and the test
//! looks at that.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Interval;
use work::contract::shares::ShareBatch;

use super::SHARE_SECRET;
use super::truth::{Arrived, Truth};

/// Where batches are posted.
const PATH: &str = "/shares";

/// Where redirects point to.
const ELSEWHERE: &str = "/elsewhere";

/// Longest body; a full batch has half of it.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Time between two bytes of [`Fault::Drip`].
const DRIP_INTERVAL: Duration = Duration::from_secs(1);

/// What is wrong with the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It does as docs/backend.md says.
    Nothing,
    /// Nobody listens, and open connections are cut.
    Refused,
    /// Requests are read and never answered.
    Hang,
    /// Books, and answers a byte a second.
    Drip,
    /// Books, and closes the connection in the middle of the answer.
    TornAnswer,
    /// Books, and closes the connection instead of answering.
    LostAnswer,
    /// The same; a batch that comes again is answered 409.
    KnownBatch,
    /// Books nothing and answers with this status.
    Status(u16),
    /// Books nothing, answers with this status and `Retry-After`.
    RetryAfter(u16, String),
    /// Books nothing, answers with this status and another address.
    Redirect(u16),
    /// Answers 413 to batches of more shares.
    AtMost(usize),
    /// Books nothing and answers 200 without a body.
    Empty,
    /// Books nothing and answers 200 and something that is not JSON.
    NoJson,
    /// Books nothing and answers 200 with results, for another batch id.
    AnotherBatch,
    /// Books all shares but the last and answers 200 with the results of those.
    OneMissing,
    /// Refuses any batch with a poisoned share by this status. The second and the second last
    /// share of the first large batch are poisoned.
    Poisoned(u16),
}

/// The connection is to be closed instead of an answer.
#[derive(Debug)]
struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer is lost")
    }
}

impl std::error::Error for Gone {}

/// What the server's thread and its owner share.
#[derive(Default)]
struct Shared {
    truth: Mutex<Truth>,
    /// Share ids that [`Fault::Poisoned`] refuses.
    poisoned: Mutex<BTreeSet<String>>,
}

/// A change of fault, and who waits for it to be in force.
type Order = (Fault, std::sync::mpsc::SyncSender<()>);

/// The running backend; it ends when dropped.
pub struct FaultyBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultyBackend {
    /// Start it on a free port, without a fault.
    pub fn start() -> FaultyBackend {
        let shared = Arc::new(Shared::default());
        let (orders, ordered) = mpsc::unbounded_channel();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("faulty-backend".to_owned());
        let thread = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                // Bound and never listening, it keeps the port while nobody listens on it.
                let keeper = socket();
                keeper.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
                let address = keeper.local_addr().unwrap();
                let listener = listen(address);
                tell.send(address).unwrap();
                serve(listener, ordered, of_thread).await;
            });
        });
        let address = told.recv().unwrap();
        FaultyBackend { address, shared, orders: Some(orders), thread: Some(thread.unwrap()) }
    }

    /// Where batches are to be posted.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Put this fault in the place of the one before; it is in force on return. Requests that
    /// hang get the new one's fate.
    pub fn set(&self, fault: Fault) {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.orders.as_ref().unwrap().send((fault, tell)).unwrap();
        told.recv().unwrap();
    }

    /// The book.
    pub fn truth(&self) -> MutexGuard<'_, Truth> {
        self.shared.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Share ids that [`Fault::Poisoned`] refuses.
    pub fn poisoned(&self) -> BTreeSet<String> {
        self.shared.poisoned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for FaultyBackend {
    fn drop(&mut self) {
        self.orders = None;
        // A thread that failed has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = socket();
    socket.bind(address).unwrap();
    socket.listen(BACKLOG).unwrap()
}

/// Accept and answer until the owner is gone.
async fn serve(
    listener: TcpListener,
    mut ordered: mpsc::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let (switch, fault) = watch::channel(Fault::Nothing);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = ordered.recv() => {
                let Some((fault, tell)) = order else { return };
                if fault == Fault::Refused {
                    listener = None;
                    connections.shutdown().await;
                } else if listener.is_none() {
                    listener = Some(listen(address));
                }
                switch.send_replace(fault);
                let _ = tell.send(());
            }
            stream = accept(listener.as_ref()) => {
                connections.spawn(converse(stream, fault.clone(), Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => std::future::pending().await,
    }
}

/// One connection, until either side ends it.
async fn converse(stream: TcpStream, fault: watch::Receiver<Fault>, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, fault.clone(), Arc::clone(&shared)));
    // How a connection ends is the test's business, not an error of this side.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Answer = Response<Either<Full<Bytes>, Drip>>;

async fn answer(
    request: Request<Incoming>,
    fault: watch::Receiver<Fault>,
    shared: Arc<Shared>,
) -> Result<Answer, Gone> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::HEAD && parts.uri.path() == PATH {
        lock(&shared.truth).heads += 1;
        let status = match *fault.borrow() {
            Fault::Status(status) | Fault::Redirect(status) => status,
            Fault::RetryAfter(status, _) => status,
            _ => 200,
        };
        return Ok(whole(status, &Value::Null));
    }
    if parts.method != Method::POST || parts.uri.path() != PATH {
        lock(&shared.truth).strays.push(format!("{} {}", parts.method, parts.uri));
        return Ok(whole(404, &Value::Null));
    }
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| Gone)?.to_bytes();
    let arrived = lock(&shared.truth).take(&parts.headers, &body, SHARE_SECRET);
    let Some(Arrived { number, batch }) = arrived else {
        return Ok(whole(400, &Value::Null));
    };
    let under_way = UnderWay { number, shared: &shared };
    let answer = judge(&batch, fault, &shared).await;
    if let Ok(answer) = &answer {
        lock(&under_way.shared.truth).posts[number].status = answer.status().as_u16();
    }
    answer
}

/// A POST that is being answered; it is over when this is dropped, for whatever reason.
struct UnderWay<'a> {
    number: usize,
    shared: &'a Shared,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.shared.truth).posts[self.number].over = Some(Instant::now());
    }
}

async fn judge(
    batch: &ShareBatch,
    mut fault: watch::Receiver<Fault>,
    shared: &Shared,
) -> Result<Answer, Gone> {
    let (all, now) = (batch.shares.len(), fault.borrow_and_update().clone());
    let book = |count| {
        let answer = lock(&shared.truth).book(batch, count);
        serde_json::to_value(&answer).unwrap()
    };
    match now {
        Fault::Nothing => Ok(whole(200, &book(all))),
        // A request that came when the listener was already closed.
        Fault::Refused => Err(Gone),
        Fault::Hang => {
            // Either the peer gives up, which drops this, or the fault ends.
            let _ = fault.changed().await;
            Err(Gone)
        }
        Fault::Drip => Ok(part_by_part(&book(all), false)),
        Fault::TornAnswer => Ok(part_by_part(&book(all), true)),
        Fault::LostAnswer => {
            book(all);
            Err(Gone)
        }
        Fault::KnownBatch => {
            let earlier = lock(&shared.truth).attempts(0)[batch.batch_id.as_str()].len() - 1;
            book(all);
            if earlier == 0 { Err(Gone) } else { Ok(whole(409, &json!({ "error": "known" }))) }
        }
        Fault::Status(status) => Ok(whole(status, &json!({ "error": "told_to" }))),
        Fault::RetryAfter(status, after) => {
            let mut answer = whole(status, &json!({ "error": "told_to" }));
            answer.headers_mut().insert(header::RETRY_AFTER, after.parse().unwrap());
            Ok(answer)
        }
        Fault::Redirect(status) => {
            let mut answer = whole(status, &Value::Null);
            answer.headers_mut().insert(header::LOCATION, ELSEWHERE.parse().unwrap());
            Ok(answer)
        }
        Fault::AtMost(most) if all > most => Ok(whole(413, &json!({ "error": "too_many" }))),
        Fault::AtMost(_) => Ok(whole(200, &book(all))),
        Fault::Empty => Ok(Response::new(Either::Left(Full::default()))),
        Fault::NoJson => Ok(Response::new(Either::Left(Full::from("<html>welcome</html>")))),
        Fault::AnotherBatch => {
            let result = |id: &String| json!({ "share_id": id, "accepted": true });
            let results: Vec<_> = batch.shares.iter().map(|s| result(&s.share_id)).collect();
            Ok(whole(200, &json!({ "batch_id": "bat_of_another", "results": results })))
        }
        Fault::OneMissing => Ok(whole(200, &book(all - 1))),
        Fault::Poisoned(status) => {
            let mut poisoned = lock(&shared.poisoned);
            let ids: Vec<&String> = batch.shares.iter().map(|share| &share.share_id).collect();
            if poisoned.is_empty() && ids.len() >= 4 {
                poisoned.extend([ids[1].clone(), ids[ids.len() - 2].clone()]);
            }
            if ids.iter().any(|id| poisoned.contains(*id)) {
                return Ok(whole(status, &json!({ "error": "poisoned" })));
            }
            Ok(whole(200, &book(all)))
        }
    }
}

fn whole(status: u16, body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    Response::builder().status(status).body(Either::Left(Full::from(text))).unwrap()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn part_by_part(body: &Value, is_torn: bool) -> Answer {
    let left = Bytes::from(body.to_string());
    let length = left.len() as u64;
    let interval = tokio::time::interval(DRIP_INTERVAL);
    Response::new(Either::Right(Drip { left, length, is_torn, interval }))
}

/// A body of which one byte is sent at a time.
struct Drip {
    left: Bytes,
    length: u64,
    /// The first byte is the last, too.
    is_torn: bool,
    interval: Interval,
}

impl Body for Drip {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if self.is_torn && (self.left.len() as u64) < self.length {
            return Poll::Ready(Some(Err(io::Error::other("the answer is torn"))));
        }
        ready!(self.interval.poll_tick(context));
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(1)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
