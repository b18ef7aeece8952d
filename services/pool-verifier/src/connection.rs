//! One gateway's connection: lines in, lines out.
//!
//! The reader parses, answers pings and starts the judging of proposals; each proposal is a task
//! of its own, and one writer sends what they come to. A gateway that does not read stops its own
//! reader first and is closed after a while.
#![allow(clippy::disallowed_methods, reason = "driver: reads the clock")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use policy::{JudgedTransaction, Policy, TransactionFacts};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use work::contract::verifier::{
    FromVerifier, LINE_BYTES_MAX, PROPOSALS_OPEN_MAX, PROTO, ProposedTransaction, TX_PUT_MAX,
    TemplatePropose, ToVerifier,
};
use work::template::{TEMPLATE_RULE_BYTES_MAX, TEMPLATE_RULES_MAX, TEMPLATE_TRANSACTIONS_MAX};

use crate::cache::TransactionCache;
use crate::gateways::Place;
use crate::judging::{Answer, Asked, Verifier};
use crate::limits::{
    ANSWERED_MAX, BAD_LINES_MAX, BYTES_OUT_MAX, CACHE_BYTES_MAX, CACHE_TRANSACTIONS_MAX,
    GATEWAY_ID_CHARS_MAX, HELLO_TIMEOUT, INLINE_LINE_BYTES_MAX, LINES_OUT_MAX, SILENCE_MAX,
    WRITE_TIMEOUT,
};
use crate::lines::{Line, LineReader};

/// Why a connection ended, for the log.
type Ending = &'static str;

/// A line as far as it is understood.
enum Message {
    Small(ToVerifier),
    Put(Vec<JudgedTransaction>),
    Propose(Box<TemplatePropose>),
    /// Not a line: other rules are in force.
    OtherPolicy,
    Bad {
        code: &'static str,
        detail: String,
    },
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct TxPut {
    txs: Vec<ProposedTransaction>,
}

/// Serve `stream` until it ends.
pub async fn serve(verifier: Arc<Verifier>, stream: TcpStream, peer: SocketAddr) {
    // Verdicts are single lines that must leave at once.
    let _ = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let (lines, queue) = mpsc::channel(LINES_OUT_MAX);
    let writer = tokio::spawn(write_lines(write, queue));
    let room = Arc::new(Semaphore::new(BYTES_OUT_MAX as usize));
    let link = Arc::new(Link { lines, room, open: Mutex::new(Open::default()) });
    let mut connection = Connection {
        policy: verifier.policy.subscribe(),
        verifier,
        link: Arc::clone(&link),
        reader: LineReader::new(read, LINE_BYTES_MAX),
        cache: TransactionCache::new(CACHE_TRANSACTIONS_MAX, CACHE_BYTES_MAX),
        judging: JoinSet::new(),
        bad_lines: 0,
    };
    let ending = match connection.hello().await {
        Err(ending) => ending,
        Ok((gateway_id, _place)) => {
            connection.verifier.metrics.gateways.inc();
            tracing::info!(%peer, gateway = &*gateway_id, "gateway connected");
            let ending = connection.run(&gateway_id).await;
            connection.verifier.metrics.gateways.dec();
            ending
        }
    };
    tracing::info!(%peer, ending, "connection closed");
    // Tasks of open proposals end with the connection; what is queued still goes out.
    drop(connection);
    drop(link);
    let _ = writer.await;
}

/// Write lines as they come until the queue is closed or the peer does not take them.
async fn write_lines(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<LineOut>) {
    while let Some(line) = queue.recv().await {
        match tokio::time::timeout(WRITE_TIMEOUT, write.write_all(&line.bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let _ = tokio::time::timeout(WRITE_TIMEOUT, write.shutdown()).await;
}

/// A line on its way out, with the room it takes.
struct LineOut {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// What the reader and the proposals of one connection share.
struct Link {
    lines: mpsc::Sender<LineOut>,
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
    open: Mutex<Open>,
}

/// Proposals by their state.
#[derive(Default)]
struct Open {
    judging: BTreeMap<u64, AbortHandle>,
    answered: VecDeque<u64>,
}

impl Link {
    /// Queue `message`. False if the connection is over.
    async fn send(&self, message: &FromVerifier) -> bool {
        let Ok(mut bytes) = serde_json::to_vec(message) else { return false };
        bytes.push(b'\n');
        let taken = u32::try_from(bytes.len()).unwrap_or(BYTES_OUT_MAX).min(BYTES_OUT_MAX);
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(taken).await else { return false };
        self.lines.send(LineOut { bytes, _room: room }).await.is_ok()
    }

    /// Take proposal `propose_id` off the open ones. False if it was withdrawn.
    fn close(&self, propose_id: u64) -> bool {
        let mut open = self.open();
        if open.judging.remove(&propose_id).is_none() {
            return false;
        }
        if open.answered.len() >= ANSWERED_MAX {
            open.answered.pop_front();
        }
        open.answered.push_back(propose_id);
        true
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Both collections are whole after every single operation.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Connection {
    verifier: Arc<Verifier>,
    /// Marked as seen is what the gateway was told last.
    policy: watch::Receiver<Arc<Policy>>,
    link: Arc<Link>,
    reader: LineReader<OwnedReadHalf>,
    cache: TransactionCache,
    judging: JoinSet<()>,
    bad_lines: u32,
}

impl Connection {
    /// The next line that was understood so far as to be a message, or another policy.
    async fn next(&mut self) -> Result<Message, Ending> {
        loop {
            let step = tokio::select! {
                () = self.link.lines.closed() => return Err("gateway does not read"),
                Ok(()) = self.policy.changed() => return Ok(Message::OtherPolicy),
                step = tokio::time::timeout(SILENCE_MAX, self.reader.step()) => step,
            };
            match step {
                Err(_) => return Err("silence"),
                Ok(Err(_)) => return Err("connection lost"),
                Ok(Ok(None)) => {}
                Ok(Ok(Some(Line::End))) => return Err("gateway closed"),
                Ok(Ok(Some(Line::TooLong))) => {
                    let detail = format!("a line has at most {LINE_BYTES_MAX} bytes");
                    return Ok(Message::Bad { code: "line_too_long", detail });
                }
                Ok(Ok(Some(Line::Whole(line)))) if line.len() <= INLINE_LINE_BYTES_MAX => {
                    return Ok(parse(&line));
                }
                Ok(Ok(Some(Line::Whole(line)))) => {
                    let parsed = tokio::task::spawn_blocking(move || parse(&line)).await;
                    return parsed.map_err(|_| "parsing failed");
                }
            }
        }
    }

    /// The first line: who is this, and may it come in? The place is given back when dropped.
    async fn hello(&mut self) -> Result<(Arc<str>, Place), Ending> {
        let refuse = |code, detail: String| (code, detail);
        let first = async {
            loop {
                match self.next().await {
                    // It will be told with the answer to its Hello.
                    Ok(Message::OtherPolicy) => {}
                    first => return first,
                }
            }
        };
        let first = tokio::time::timeout(HELLO_TIMEOUT, first).await;
        let (code, detail) = match first.map_err(|_| "no hello in time")?? {
            Message::Small(ToVerifier::Hello { proto, .. }) if proto != PROTO => {
                refuse("wrong_proto", format!("protocol {proto}, expected {PROTO}"))
            }
            Message::Small(ToVerifier::Hello { network, .. })
                if network != self.verifier.config.network =>
            {
                let ours = self.verifier.config.network;
                refuse("wrong_network", format!("network {network}, this verifier is on {ours}"))
            }
            Message::Small(ToVerifier::Hello { gateway_id, instance_id, epoch, .. })
                if gateway_id.chars().count() <= GATEWAY_ID_CHARS_MAX =>
            {
                match self.verifier.gateways.enter(instance_id, epoch, &gateway_id) {
                    Ok(place) => {
                        self.acknowledge().await;
                        return Ok((gateway_id.into(), place));
                    }
                    Err(other) => refuse(
                        "instance_in_use",
                        format!(
                            "instance_id {instance_id} with epoch {epoch} is in use by gateway \
                             {other:?}: give each gateway an instance_id of its own"
                        ),
                    ),
                }
            }
            Message::Bad { code, detail } => (code, detail),
            _ => refuse("hello_expected", "the first line is a Hello".to_owned()),
        };
        self.error(code, None, detail).await;
        Err(code)
    }

    async fn acknowledge(&mut self) {
        let policy = Arc::clone(&self.policy.borrow_and_update());
        let ack = FromVerifier::HelloAck {
            proto: PROTO,
            verifier_id: self.verifier.config.verifier_id.clone(),
            policy_version: policy.version.clone(),
            policy_hash: policy.hash().to_owned(),
        };
        self.link.send(&ack).await;
    }

    async fn tell_policy(&mut self) {
        let policy = Arc::clone(&self.policy.borrow_and_update());
        let changed = FromVerifier::PolicyChanged {
            policy_version: policy.version.clone(),
            policy_hash: policy.hash().to_owned(),
        };
        self.link.send(&changed).await;
    }

    async fn run(&mut self, gateway_id: &Arc<str>) -> Ending {
        loop {
            let message = match self.next().await {
                Ok(message) => message,
                Err(ending) => return ending,
            };
            while self.judging.try_join_next().is_some() {}
            match message {
                Message::Put(transactions) => {
                    transactions.into_iter().for_each(|put| self.cache.put(put));
                }
                Message::OtherPolicy => self.tell_policy().await,
                Message::Propose(template) => self.propose(template, gateway_id).await,
                Message::Small(ToVerifier::Ping { t }) => {
                    self.link.send(&FromVerifier::Pong { t }).await;
                }
                Message::Small(ToVerifier::Cancel { propose_id }) => self.cancel(propose_id),
                Message::Small(_) => {
                    let detail = "a second Hello".to_owned();
                    self.error("bad_json", None, detail).await;
                    return "second hello";
                }
                Message::Bad { code, detail } => {
                    self.error(code, None, detail).await;
                    // A newer gateway may say more than we know; that is no bad line.
                    self.bad_lines += u32::from(code != "unknown_type");
                    if self.bad_lines >= BAD_LINES_MAX {
                        return "too many bad lines";
                    }
                }
            }
        }
    }

    fn cancel(&mut self, propose_id: u64) {
        if let Some(task) = self.link.open().judging.remove(&propose_id) {
            task.abort();
            self.verifier.metrics.cancelled.inc();
        }
    }

    async fn propose(&mut self, template: Box<TemplatePropose>, gateway_id: &Arc<str>) {
        let since = Instant::now();
        let metrics = &self.verifier.metrics;
        metrics.proposals.inc();
        let propose_id = template.propose_id;
        let refused = {
            let open = self.link.open();
            if open.judging.contains_key(&propose_id) || open.answered.contains(&propose_id) {
                Some(("propose_id_reused", "this propose_id is open or was answered".to_owned()))
            } else if open.judging.len() >= PROPOSALS_OPEN_MAX {
                Some(("overloaded", format!("{PROPOSALS_OPEN_MAX} proposals are open")))
            } else {
                None
            }
        };
        if let Some((code, detail)) = refused {
            return self.error(code, Some(propose_id), detail).await;
        }
        match self.cache.named(&template.wtxids) {
            Err(wtxids) => {
                metrics.need_tx.inc();
                self.link.send(&FromVerifier::NeedTx { propose_id, wtxids }).await;
            }
            Ok(transactions) => {
                let gateway_id = Arc::clone(gateway_id);
                let asked = Asked { template, transactions, gateway_id, since };
                let answering = answer(Arc::clone(&self.verifier), Arc::clone(&self.link), asked);
                // Under the lock, so that the answer finds its own entry.
                let mut open = self.link.open();
                let task = self.judging.spawn(answering);
                open.judging.insert(propose_id, task);
            }
        }
    }

    async fn error(&self, code: &'static str, propose_id: Option<u64>, detail: String) {
        send_error(&self.verifier, &self.link, code, propose_id, detail).await;
    }
}

/// Judge `asked` and send what it comes to, unless it was withdrawn meanwhile.
async fn answer(verifier: Arc<Verifier>, link: Arc<Link>, asked: Asked) {
    let propose_id = asked.template.propose_id;
    let prev_hash = asked.template.prev_hash;
    let answer = Arc::clone(&verifier).judge(asked).await;
    if !link.close(propose_id) {
        return;
    }
    match answer {
        Answer::Verdict(verdict) => {
            link.send(&FromVerifier::TemplateVerdict(verdict)).await;
        }
        Answer::Timeout => {
            let hold = Duration::from_millis(verifier.config.prevhash_hold_ms);
            let detail = format!("prev_hash {prev_hash} did not become known within {hold:?}");
            send_error(&verifier, &link, "timeout", Some(propose_id), detail).await;
        }
        Answer::Failed => {
            let detail = "judging did not come to an end".to_owned();
            send_error(&verifier, &link, "overloaded", Some(propose_id), detail).await;
        }
    }
}

async fn send_error(
    verifier: &Verifier,
    link: &Link,
    code: &'static str,
    propose_id: Option<u64>,
    detail: String,
) {
    verifier.metrics.errors.with_label_values(&[code]).inc();
    tracing::warn!(code, propose_id, detail, "error sent to gateway");
    link.send(&FromVerifier::Error { code: code.to_owned(), propose_id, detail }).await;
}

/// Read one line. Unknown fields are ignored; the large messages are read straight into their
/// structs, without the copy that a tagged enum costs.
fn parse(line: &[u8]) -> Message {
    let bad = |detail: String| Message::Bad { code: "bad_json", detail };
    let kind = match serde_json::from_slice::<Kind>(line) {
        Ok(Kind { kind }) => kind,
        Err(error) => return bad(format!("a line is one JSON object with a type: {error}")),
    };
    match kind.as_str() {
        "TxPut" => match serde_json::from_slice::<TxPut>(line) {
            Ok(put) if put.txs.len() > TX_PUT_MAX => {
                bad(format!("{} transactions in one TxPut, at most {TX_PUT_MAX}", put.txs.len()))
            }
            Ok(put) => Message::Put(put.txs.iter().map(judged).collect()),
            Err(error) => bad(error.to_string()),
        },
        "TemplatePropose" => match serde_json::from_slice::<Box<TemplatePropose>>(line) {
            Ok(template) if template.wtxids.len() > TEMPLATE_TRANSACTIONS_MAX => bad(format!(
                "{} transactions, at most {TEMPLATE_TRANSACTIONS_MAX}",
                template.wtxids.len()
            )),
            Ok(template) if names_too_many_rules(&template) => bad(format!(
                "rules: at most {TEMPLATE_RULES_MAX} of {TEMPLATE_RULE_BYTES_MAX} bytes"
            )),
            Ok(template) => Message::Propose(template),
            Err(error) => bad(error.to_string()),
        },
        "Hello" | "Cancel" | "Ping" => match serde_json::from_slice::<ToVerifier>(line) {
            Ok(message) => Message::Small(message),
            Err(error) => bad(error.to_string()),
        },
        _ => Message::Bad {
            code: "unknown_type",
            detail: "expected Hello, TxPut, TemplatePropose, Cancel or Ping".to_owned(),
        },
    }
}

fn names_too_many_rules(template: &TemplatePropose) -> bool {
    let rules = template.rules.as_deref().unwrap_or_default();
    rules.len() > TEMPLATE_RULES_MAX
        || rules.iter().any(|rule| rule.len() > TEMPLATE_RULE_BYTES_MAX)
}

fn judged(transaction: &ProposedTransaction) -> JudgedTransaction {
    JudgedTransaction {
        wtxid: transaction.wtxid,
        fee: transaction.fee,
        sigops: transaction.sigops,
        facts: Arc::new(TransactionFacts::from_bytes(&transaction.data.0)),
    }
}
