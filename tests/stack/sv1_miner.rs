//! A Stratum V1 miner: it speaks JSON lines over TCP, builds headers from the parts of a coinbase
//! and hashes them, at a rate of its own choice.
//!
//! [`Session`] is the protocol without the wire; [`Sv1Miner`] is a thread that runs one.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitcoin::hex::{DisplayHex as _, FromHex as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use work::hash::{finish_double, sha256d};
use work::{BlockHash, Target};

use super::{PATIENCE, wait_until};

/// Bits of a header's version that the miner asks to roll (BIP320).
const VERSION_MASK: u32 = 0x1fff_e000;

/// Nonces that are tried before extranonce and version are rolled.
const NONCES_PER_ROLL: u32 = 1_024;

/// How long the miner hashes and listens in turn.
const TURN: Duration = Duration::from_millis(20);

/// Longest time without a turn that is hashed for afterwards.
const OWED_MAX: Duration = Duration::from_millis(500);

/// Longest line that a server may send.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What a miner has seen so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Shares that the server accepted.
    pub accepted: u64,
    /// Shares that it refused, by the answer's code and words.
    pub rejected: BTreeMap<String, u64>,
    /// Shares that it has not answered.
    pub unanswered: u64,
    /// Shares that were blocks.
    pub blocks: u64,
    /// Jobs.
    pub jobs: u64,
    /// Tips that jobs built on, one after the other.
    pub tips: u64,
    /// Difficulties that the server has set.
    pub difficulties: Vec<f64>,
    /// Shares that were accepted since the last of them.
    pub accepted_since: u64,
    /// Why the connection ended, if it has.
    pub ended: Option<String>,
}

/// A job, with the extranonce and difficulty that were in force when it came.
struct Job {
    job_id: String,
    /// As in the header.
    prev_hash: [u8; 32],
    coinbase_start: Vec<u8>,
    coinbase_end: Vec<u8>,
    merkle_branch: Vec<[u8; 32]>,
    version: u32,
    nbits: u32,
    ntime: u32,
    extranonce: Extranonce,
    target: Target,
    /// The roll that is being hashed, and the next nonce of it.
    roll: Option<(Roll, u32)>,
}

/// What the server gives of the coinbase, and what it leaves to the miner.
#[derive(Clone)]
struct Extranonce {
    prefix: Vec<u8>,
    own_bytes: usize,
}

/// One choice of all that is not the nonce.
struct Roll {
    extranonce2: Vec<u8>,
    version: u32,
    header: [u8; 80],
    /// Of the header's first 64 bytes.
    midstate: Sha256,
}

/// What a request was, to know what its answer means.
enum Asked {
    Configure,
    Subscribe,
    Authorize,
    SubscribeExtranonce,
    Submit,
}

/// A miner's side of one connection, without the connection.
pub struct Session {
    user: String,
    asked: BTreeMap<u64, Asked>,
    next_id: u64,
    /// Version bits that the server lets this miner roll.
    mask: u32,
    /// For the next job.
    extranonce: Option<Extranonce>,
    /// For the next job.
    target: Target,
    job: Option<Job>,
    rolls: u64,
    /// What happened so far.
    pub tally: Tally,
}

/// The target of an SV1 difficulty, which may be a fraction of 1.
pub fn target_for(difficulty: f64) -> Target {
    assert!(difficulty.is_finite() && difficulty > 0.0, "difficulty {difficulty}");
    // 0xffff × 2^208 is difficulty 1. The quotient is a whole number of 53 bits and a shift.
    let quotient = f64::from(0xffff) / difficulty;
    let exponent = (quotient.to_bits() >> 52) as i32 - 1_075;
    let mantissa = u128::from(quotient.to_bits() & ((1 << 52) - 1) | 1 << 52);
    let shift = usize::try_from(208 + exponent).expect("a difficulty that exists");
    let (byte, bits) = (shift / 8, shift % 8);
    let mut bytes = [0; 48];
    if byte >= 32 {
        return Target::MAX;
    }
    bytes[byte..byte + 16].copy_from_slice(&(mantissa << bits).to_le_bytes());
    if bytes[32..].iter().any(|byte| *byte != 0) {
        return Target::MAX;
    }
    Target::from_le_bytes(bytes[..32].try_into().unwrap())
}

impl Session {
    /// A session, and the line that starts it.
    pub fn start(user: &str) -> (Session, String) {
        let mut session = Session {
            user: user.to_owned(),
            asked: BTreeMap::new(),
            next_id: 1,
            mask: 0,
            extranonce: None,
            target: target_for(1.0),
            job: None,
            rolls: 0,
            tally: Tally::default(),
        };
        let wishes = json!({
            "version-rolling.mask": format!("{VERSION_MASK:08x}"),
            "version-rolling.min-bit-count": 2,
        });
        let params = json!([["version-rolling"], wishes]);
        let line = session.ask(Asked::Configure, "mining.configure", &params);
        (session, line)
    }

    fn ask(&mut self, asked: Asked, method: &str, params: &Value) -> String {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, asked);
        format!("{}\n", json!({ "id": id, "method": method, "params": params }))
    }

    /// Take in a line of the server; what to say to it.
    pub fn hear(&mut self, line: &str) -> Option<String> {
        let message: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        match message["method"].as_str() {
            Some(method) => self.take_notice(method, &message),
            None => self.take_answer(&message),
        }
    }

    fn take_notice(&mut self, method: &str, message: &Value) -> Option<String> {
        let params = &message["params"];
        match method {
            "mining.set_difficulty" => {
                let difficulty = params[0].as_f64().expect("a difficulty");
                self.target = target_for(difficulty);
                self.tally.difficulties.push(difficulty);
                self.tally.accepted_since = 0;
            }
            "mining.set_extranonce" => self.extranonce = Some(extranonce(&params[0], &params[1])),
            "mining.notify" => self.take_job(params),
            _ if message["id"].is_null() => {}
            "mining.ping" => {
                return Some(format!("{}\n", json!({ "id": message["id"], "result": "pong" })));
            }
            _ => {
                let error = json!([-3, "Method not found", null]);
                let answer = json!({ "id": message["id"], "result": null, "error": error });
                return Some(format!("{answer}\n"));
            }
        }
        None
    }

    fn take_job(&mut self, params: &Value) {
        let merkle_branch = params[4].as_array().unwrap().iter().map(|node| hash(text(node)));
        let mut prev_hash = hash(text(&params[1]));
        // SV1 turns every four bytes of this field around.
        prev_hash.chunks_mut(4).for_each(<[u8]>::reverse);
        self.tally.jobs += 1;
        let before = self.job.as_ref().map(|job| job.prev_hash);
        self.tally.tips += u64::from(before != Some(prev_hash));
        self.job = Some(Job {
            job_id: text(&params[0]).to_owned(),
            prev_hash,
            coinbase_start: Vec::from_hex(text(&params[2])).unwrap(),
            coinbase_end: Vec::from_hex(text(&params[3])).unwrap(),
            merkle_branch: merkle_branch.collect(),
            version: number(&params[5]),
            nbits: number(&params[6]),
            ntime: number(&params[7]),
            extranonce: self.extranonce.clone().expect("a subscription before the first job"),
            target: self.target,
            roll: None,
        });
    }

    fn take_answer(&mut self, message: &Value) -> Option<String> {
        let id = message["id"].as_u64().unwrap_or_else(|| panic!("no number: {message}"));
        let asked = self.asked.remove(&id).unwrap_or_else(|| panic!("not asked: {message}"));
        let (result, error) = (&message["result"], &message["error"]);
        match asked {
            Asked::Configure => {
                assert_eq!(result["version-rolling"], json!(true), "{message}");
                self.mask = number(&result["version-rolling.mask"]) & VERSION_MASK;
                let params = json!(["reservegrid-tests/1"]);
                Some(self.ask(Asked::Subscribe, "mining.subscribe", &params))
            }
            Asked::Subscribe => {
                assert!(error.is_null(), "{message}");
                self.extranonce = Some(extranonce(&result[1], &result[2]));
                let params = json!([self.user, "x"]);
                Some(self.ask(Asked::Authorize, "mining.authorize", &params))
            }
            Asked::Authorize => {
                assert_eq!(*result, json!(true), "{message}");
                let (asked, method) = (Asked::SubscribeExtranonce, "mining.extranonce.subscribe");
                Some(self.ask(asked, method, &json!([])))
            }
            // A server without it changes no extranonce.
            Asked::SubscribeExtranonce => None,
            Asked::Submit => {
                self.tally.unanswered -= 1;
                if *result == json!(true) {
                    self.tally.accepted += 1;
                    self.tally.accepted_since += 1;
                } else {
                    *self.tally.rejected.entry(reason(error)).or_default() += 1;
                }
                None
            }
        }
    }

    /// Hash that many headers; the lines that submit the shares among them.
    pub fn grind(&mut self, hashes: u32) -> Vec<String> {
        let Some(mut job) = self.job.take() else { return Vec::new() };
        let mut lines = Vec::new();
        for _ in 0..hashes {
            let (roll, nonce) = match job.roll.take() {
                Some((roll, nonce)) if nonce < NONCES_PER_ROLL => (roll, nonce),
                _ => {
                    self.rolls += 1;
                    (job.roll(self.rolls, self.mask), 0)
                }
            };
            let hash = roll.hash(nonce);
            if job.target.is_met_by(&hash) {
                self.tally.blocks += u64::from(job.network_target().is_met_by(&hash));
                self.tally.unanswered += 1;
                let params = json!([
                    self.user,
                    job.job_id,
                    roll.extranonce2.to_lower_hex_string(),
                    format!("{:08x}", job.ntime),
                    format!("{nonce:08x}"),
                    format!("{:08x}", roll.version & self.mask),
                ]);
                lines.push(self.ask(Asked::Submit, "mining.submit", &params));
            }
            job.roll = Some((roll, nonce + 1));
        }
        self.job = Some(job);
        lines
    }

    /// Hash of the job's header with these choices.
    pub fn hash_with(&self, extranonce2: &[u8], version: u32, nonce: u32) -> BlockHash {
        self.job.as_ref().expect("a job").choose(extranonce2, version).hash(nonce)
    }
}

impl Job {
    /// Roll number `roll`: every one has another extranonce, most have another version.
    fn roll(&self, roll: u64, mask: u32) -> Roll {
        let mut extranonce2 = vec![0; self.extranonce.own_bytes];
        for (byte, of_roll) in extranonce2.iter_mut().rev().zip(roll.to_le_bytes()) {
            *byte = of_roll;
        }
        let bits = (roll as u32) << mask.trailing_zeros().min(31) & mask;
        self.choose(&extranonce2, self.version & !mask | bits)
    }

    fn choose(&self, extranonce2: &[u8], version: u32) -> Roll {
        let parts = [&self.coinbase_start, &self.extranonce.prefix, extranonce2];
        let coinbase = [parts.concat(), self.coinbase_end.clone()].concat();
        let leaf = sha256d(&coinbase);
        let branch = self.merkle_branch.iter();
        let merkle_root = branch.fold(leaf, |left, right| sha256d(&[left, *right].concat()));
        let mut header = [0; 80];
        header[..4].copy_from_slice(&version.to_le_bytes());
        header[4..36].copy_from_slice(&self.prev_hash);
        header[36..68].copy_from_slice(&merkle_root);
        header[68..72].copy_from_slice(&self.ntime.to_le_bytes());
        header[72..76].copy_from_slice(&self.nbits.to_le_bytes());
        let midstate = Sha256::new_with_prefix(&header[..64]);
        Roll { extranonce2: extranonce2.to_vec(), version, header, midstate }
    }

    fn network_target(&self) -> Target {
        Target::from_nbits(self.nbits).unwrap()
    }
}

impl Roll {
    fn hash(&self, nonce: u32) -> BlockHash {
        let mut tail: [u8; 16] = self.header[64..].try_into().unwrap();
        tail[12..].copy_from_slice(&nonce.to_le_bytes());
        BlockHash(finish_double(self.midstate.clone().chain_update(tail)))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// A number of eight hexadecimal digits.
fn number(value: &Value) -> u32 {
    u32::from_str_radix(text(value), 16).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn hash(digits: &str) -> [u8; 32] {
    <[u8; 32]>::from_hex(digits).unwrap_or_else(|error| panic!("{digits}: {error}"))
}

fn extranonce(prefix: &Value, own_bytes: &Value) -> Extranonce {
    let own_bytes = usize::try_from(own_bytes.as_u64().expect("a size")).unwrap();
    assert!((4..=8).contains(&own_bytes), "{own_bytes} bytes of extranonce");
    Extranonce { prefix: Vec::from_hex(text(prefix)).unwrap(), own_bytes }
}

/// Code and words of an answer's error, in both forms that servers use.
fn reason(error: &Value) -> String {
    let part = |index: usize, key: &str| error.get(index).or_else(|| error.get(key)).cloned();
    let words = part(1, "message").unwrap_or_default();
    let code = part(0, "code").unwrap_or_default();
    format!("{code} {}", words.as_str().unwrap_or("without words"))
}

/// What a miner's thread and its owner share.
#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    is_paused: AtomicBool,
    /// The thread has seen the pause and will send no more shares.
    is_resting: AtomicBool,
    is_over: AtomicBool,
}

/// A running miner; it ends when dropped.
pub struct Sv1Miner {
    user: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Sv1Miner {
    /// Connect to an SV1 server as `user` and hash at most that often a second.
    pub fn start(address: &str, user: &str, hashes_per_second: u32) -> Sv1Miner {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let shared = Arc::new(Shared::default());
        let (of_thread, of_user) = (shared.clone(), user.to_owned());
        let thread = std::thread::Builder::new().name(format!("sv1-{user}"));
        let thread = thread.spawn(move || run(stream, &of_user, hashes_per_second, &of_thread));
        Sv1Miner { user: user.to_owned(), shared, thread: Some(thread.unwrap()) }
    }

    /// What it has seen; fails if its connection has ended.
    pub fn tally(&self) -> Tally {
        let tally = self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(tally.ended, None, "{}: {tally:?}", self.user);
        let thread = self.thread.as_ref().unwrap();
        assert!(!thread.is_finished(), "{} has failed: {tally:?}", self.user);
        tally
    }

    /// Stop hashing for good, and wait until every share is answered. It stays connected.
    pub fn rest(&self) -> Tally {
        self.shared.is_paused.store(true, Ordering::SeqCst);
        wait_until("the answers to the last shares", PATIENCE, || {
            self.shared.is_resting.load(Ordering::SeqCst) && self.tally().unanswered == 0
        });
        self.tally()
    }
}

impl Drop for Sv1Miner {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // A thread that failed has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(mut stream: TcpStream, user: &str, hashes_per_second: u32, shared: &Shared) {
    let (mut session, first) = Session::start(user);
    let mut say = first;
    let mut unread = Vec::new();
    let mut hashed_until = Instant::now();
    while !shared.is_over.load(Ordering::SeqCst) {
        let now = Instant::now();
        let turn_ends = now + TURN;
        // Turns that came late on a busy machine are made up for.
        let owed = now.duration_since(hashed_until).min(OWED_MAX).as_secs_f64();
        hashed_until = now;
        if shared.is_paused.load(Ordering::SeqCst) {
            shared.is_resting.store(true, Ordering::SeqCst);
        } else {
            let hashes = (f64::from(hashes_per_second) * owed) as u32;
            say.extend(session.grind(hashes));
        }
        // Told before it is sent, so that no share is on its way unknown.
        *shared.tally.lock().unwrap_or_else(PoisonError::into_inner) = session.tally.clone();
        let sent = stream.write_all(say.as_bytes());
        say.clear();
        let heard = sent.and_then(|()| listen(&mut stream, &mut unread, turn_ends));
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            say.extend(session.hear(str::from_utf8(&line).unwrap()));
        }
        if let Err(error) = heard {
            session.tally.ended = Some(error.to_string());
        }
        *shared.tally.lock().unwrap_or_else(PoisonError::into_inner) = session.tally.clone();
        if session.tally.ended.is_some() {
            return;
        }
    }
}

/// Read what comes until then.
fn listen(stream: &mut TcpStream, into: &mut Vec<u8>, until: Instant) -> std::io::Result<()> {
    let mut chunk = [0; 8_192];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(std::io::Error::from(ErrorKind::UnexpectedEof)),
            Ok(count) => into.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        assert!(into.len() <= LINE_BYTES_MAX, "a line of more than {LINE_BYTES_MAX} bytes");
    }
}
