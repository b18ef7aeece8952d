//! The book of a backend that a test can believe: which shares came, how often each batch was
//! posted, and what of it broke the contract of docs/backend.md.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::HeaderMap;
use sha2::Sha256;
use work::contract::shares::{
    BATCH_SHARES_MAX, ShareAnswer, ShareBatch, ShareResult, TIMESTAMP_TOLERANCE_SECONDS,
};
use work::{BlockHash, Work};

/// A batch that was posted.
#[derive(Debug, Clone)]
pub struct Post {
    /// When its body had come.
    pub at: Instant,
    /// The same by the clock on the wall.
    pub at_time: SystemTime,
    /// When it was answered or given up; `None` while it is under way.
    pub over: Option<Instant>,
    /// Its batch.
    pub batch_id: String,
    /// The shares in it.
    pub share_ids: Vec<String>,
    /// Status of the answer; 0 if it got none.
    pub status: u16,
}

/// A share that was booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    /// Hash of its header.
    pub hash: BlockHash,
    /// Who mined it.
    pub miner_id: String,
    /// Whether it is credited: its hash was not, under another id.
    pub is_credited: bool,
}

/// The book.
#[derive(Debug, Default)]
pub struct Truth {
    /// Every share by its id.
    pub shares: BTreeMap<String, Booked>,
    /// Every hash that is credited, with the id that it is credited under.
    pub hashes: BTreeMap<BlockHash, String>,
    /// Every POST of a batch, in the order they came.
    pub posts: Vec<Post>,
    /// HEAD requests.
    pub heads: u64,
    /// Requests for anything else, such as where a redirect points to.
    pub strays: Vec<String>,
    /// What was wrong with requests.
    pub wrongs: Vec<String>,
    /// Shares of each batch id: one id, one batch.
    batches: BTreeMap<String, Vec<String>>,
}

impl Truth {
    /// A POST has come: its batch, if it is one, and its place in `posts`. Whatever breaks the
    /// contract is noted.
    pub fn take(&mut self, headers: &HeaderMap, body: &[u8], secret: &str) -> Option<Arrived> {
        let batch: ShareBatch = match serde_json::from_slice(body) {
            Ok(batch) => batch,
            Err(error) => {
                self.wrongs.push(format!("not a batch: {error}"));
                return None;
            }
        };
        self.wrongs.extend(wrong_headers(headers, body, &batch.batch_id, secret));
        self.wrongs.extend(wrong_sums(&batch));
        let share_ids: Vec<String> = batch.shares.iter().map(|s| s.share_id.clone()).collect();
        let first = self.batches.entry(batch.batch_id.clone()).or_insert_with(|| share_ids.clone());
        if *first != share_ids {
            self.wrongs.push(format!("{} had other shares before", batch.batch_id));
        }
        let number = self.posts.len();
        self.posts.push(Post {
            at: Instant::now(),
            at_time: SystemTime::now(),
            over: None,
            batch_id: batch.batch_id.clone(),
            share_ids,
            status: 0,
        });
        Some(Arrived { number, batch })
    }

    /// Book the first `count` shares of a batch; the answer that is due for them. A share that
    /// came before gets what it got then; a hash that is credited under another id is a
    /// duplicate.
    pub fn book(&mut self, batch: &ShareBatch, count: usize) -> ShareAnswer {
        let results = batch.shares.iter().take(count).map(|share| {
            let owner = self.hashes.entry(share.share_hash).or_insert(share.share_id.clone());
            let booked = self.shares.entry(share.share_id.clone()).or_insert_with(|| Booked {
                hash: share.share_hash,
                miner_id: share.miner_id.clone(),
                is_credited: *owner == share.share_id,
            });
            if booked.hash != share.share_hash {
                self.wrongs.push(format!("{} had another hash before", share.share_id));
            }
            ShareResult {
                share_id: share.share_id.clone(),
                accepted: booked.is_credited,
                reason: (!booked.is_credited).then(|| "duplicate".to_owned()),
            }
        });
        ShareAnswer { batch_id: batch.batch_id.clone(), results: results.collect() }
    }

    /// Hashes that are credited.
    pub fn credited(&self) -> BTreeSet<BlockHash> {
        self.hashes.keys().copied().collect()
    }

    /// Shares whose hash came before under another id.
    pub fn duplicates(&self) -> Vec<&String> {
        self.shares.iter().filter(|(_, booked)| !booked.is_credited).map(|(id, _)| id).collect()
    }

    /// POSTs from number `from` on, by batch.
    pub fn attempts(&self, from: usize) -> BTreeMap<&str, Vec<&Post>> {
        let mut attempts: BTreeMap<&str, Vec<&Post>> = BTreeMap::new();
        for post in &self.posts[from..] {
            attempts.entry(&post.batch_id).or_default().push(post);
        }
        attempts
    }

    /// Largest number of POSTs from number `from` on that were under way together.
    pub fn most_at_once(&self, from: usize) -> usize {
        let posts = &self.posts[from..];
        let is_open = |post: &Post, at| post.at <= at && post.over.is_none_or(|over| over > at);
        let others = |one: &Post| posts.iter().filter(|post| is_open(post, one.at)).count();
        posts.iter().map(others).max().unwrap_or(0)
    }
}

/// A batch that has just come.
pub struct Arrived {
    /// Its place in [`Truth::posts`].
    pub number: usize,
    /// The batch.
    pub batch: ShareBatch,
}

fn wrong_headers(headers: &HeaderMap, body: &[u8], batch_id: &str, secret: &str) -> Vec<String> {
    let mut wrongs = Vec::new();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    for name in ["webhook-id", "idempotency-key"] {
        if text(name) != batch_id {
            wrongs.push(format!("{name} is {:?} for batch {batch_id}", text(name)));
        }
    }
    for (name, expected) in [("content-type", "application/json"), ("x-reservegrid-schema", "1")] {
        if text(name) != expected {
            wrongs.push(format!("{name} is {:?}", text(name)));
        }
    }
    if text("x-reservegrid-gateway").is_empty() {
        wrongs.push("no x-reservegrid-gateway".to_owned());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let timestamp = text("webhook-timestamp");
    if !timestamp.parse().is_ok_and(|at: u64| at.abs_diff(now) <= TIMESTAMP_TOLERANCE_SECONDS) {
        wrongs.push(format!("webhook-timestamp is {timestamp:?}"));
    }
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{batch_id}.{timestamp}.").as_bytes());
    mac.update(body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    if !text("webhook-signature").split(' ').any(|entry| entry == expected) {
        wrongs.push(format!("webhook-signature of {batch_id} is wrong"));
    }
    wrongs
}

fn wrong_sums(batch: &ShareBatch) -> Vec<String> {
    let shares = &batch.shares;
    let mut wrongs = Vec::new();
    if shares.is_empty() || shares.len() > BATCH_SHARES_MAX {
        wrongs.push(format!("{} has {} shares", batch.batch_id, shares.len()));
    }
    if batch.count != shares.len() || batch.work != shares.iter().map(|s| s.work).sum::<Work>() {
        wrongs.push(format!("{}: its sums are wrong", batch.batch_id));
    }
    let ids: BTreeSet<&str> = shares.iter().map(|share| share.share_id.as_str()).collect();
    if ids.len() != shares.len() {
        wrongs.push(format!("{} has a share twice", batch.batch_id));
    }
    wrongs
}
