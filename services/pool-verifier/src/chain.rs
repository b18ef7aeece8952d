//! The chain, watched by one ordinary thread, and the wait for a tip that is not known yet.
//!
//! A gateway often hears of a block before we do. Its proposal is then parked, and looks at the
//! chain follow each other quickly until the parent shows up or the proposal's time is over.
#![allow(clippy::disallowed_methods, reason = "driver: reads the clock and talks HTTP")]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use work::BlockHash;
use work::contract::chain::{CHAIN_TIPS_MAX, Chain};
use work::payout::Network;

use crate::config::ChainAccess;
use crate::limits::{
    CHAIN_AGE_MAX, CHAIN_ANSWER_BYTES_MAX, CHAIN_POLL, CHAIN_POLL_GAP, CHAIN_POLL_PARKED,
    CHAIN_TIMEOUT,
};
use crate::node::Node;

/// The chain at one look.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What the source said.
    pub chain: Chain,
    /// When its tip was first seen here.
    pub tip_since: Instant,
}

/// What the watching thread has to say.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// The last good look.
    pub seen: Option<Seen>,
    /// Number of that look.
    pub look: u64,
    /// When it was.
    pub at: Option<Instant>,
    /// Why the looks since then failed.
    pub fault: Option<String>,
}

#[derive(Debug, Default)]
struct Bell {
    asked: bool,
    stopped: bool,
}

/// The chain as the rest of the service sees it.
#[derive(Debug)]
pub struct ChainWatch {
    watched: watch::Sender<Watched>,
    looks_begun: AtomicU64,
    parked: AtomicUsize,
    bell: Mutex<Bell>,
    rung: Condvar,
}

/// A proposal that waits; counted while it lives.
struct Parked<'a>(&'a AtomicUsize);

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ChainWatch {
    /// Watch the chain at `access` on a thread of its own, which ends after
    /// [`ChainWatch::stop`].
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn start(
        access: &ChainAccess,
        network: Network,
    ) -> std::io::Result<(Arc<ChainWatch>, std::thread::JoinHandle<()>)> {
        let watch = Arc::new(ChainWatch {
            watched: watch::Sender::new(Watched::default()),
            looks_begun: AtomicU64::new(0),
            parked: AtomicUsize::new(0),
            bell: Mutex::new(Bell::default()),
            rung: Condvar::new(),
        });
        let mut source = Source::new(access);
        let watching = Arc::clone(&watch);
        let thread = std::thread::Builder::new()
            .name("chain".to_owned())
            .spawn(move || while watching.look(&mut source, network) {})?;
        Ok((watch, thread))
    }

    /// End the watching thread after the look it is at.
    pub fn stop(&self) {
        self.bell().stopped = true;
        self.rung.notify_all();
    }

    /// What is known now.
    pub fn now(&self) -> Watched {
        self.watched.borrow().clone()
    }

    /// Proposals that wait for a tip.
    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    /// Why there is nothing to judge by, if so: no chain yet, or none confirmed for a while.
    pub fn fault(&self) -> Option<String> {
        let watched = self.watched.borrow();
        let fault = || watched.fault.clone().unwrap_or_else(|| "the source is slow".to_owned());
        match watched.at {
            None => Some(format!("chain not known yet: {}", fault())),
            Some(at) if at.elapsed() > CHAIN_AGE_MAX => {
                Some(format!("chain last seen {} s ago: {}", at.elapsed().as_secs(), fault()))
            }
            Some(_) => None,
        }
    }

    /// Wait until `prev_hash` is known and return the chain to judge by, or nothing if that
    /// takes longer than `hold`.
    ///
    /// A parent that was a tip a while ago is judged only by a look that began after now, because
    /// a chain that flips back must not be taken for a late gateway.
    pub async fn known(&self, prev_hash: BlockHash, hold: Duration) -> Option<Seen> {
        let mut watched = self.watched.subscribe();
        let looks_before = self.looks_begun.load(Ordering::Acquire);
        let judgeable = |watched: &Watched| {
            let seen = watched.seen.as_ref()?;
            let is_tip = seen.chain.tip_hash == prev_hash;
            let is_malformed = prev_hash == BlockHash::default();
            let was_tip =
                watched.look > looks_before && seen.chain.recent_tips.contains(&prev_hash);
            (is_tip || is_malformed || was_tip).then(|| seen.clone())
        };
        if let Some(seen) = judgeable(&watched.borrow_and_update()) {
            return Some(seen);
        }
        self.parked.fetch_add(1, Ordering::Relaxed);
        let _parked = Parked(&self.parked);
        self.ask();
        let known = async {
            loop {
                watched.changed().await.ok()?;
                if let Some(seen) = judgeable(&watched.borrow_and_update()) {
                    return Some(seen);
                }
            }
        };
        tokio::time::timeout(hold, known).await.ok().flatten()
    }

    /// Ask for a look at once.
    fn ask(&self) {
        self.bell().asked = true;
        self.rung.notify_all();
    }

    fn bell(&self) -> MutexGuard<'_, Bell> {
        // Two flags that are always whole: a poisoned lock hides nothing.
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look and the wait after it. False when it is over.
    fn look(&self, source: &mut Source, network: Network) -> bool {
        let look = self.looks_begun.fetch_add(1, Ordering::AcqRel) + 1;
        self.bell().asked = false;
        match source.chain().and_then(|chain| of_network(chain, network)) {
            Ok(chain) => self.publish(look, chain),
            Err(fault) => self.watched.send_modify(|watched| {
                if watched.fault.as_ref() != Some(&fault) {
                    tracing::warn!(%fault, "chain source");
                }
                watched.fault = Some(fault);
            }),
        }
        let wait = |bell, time, until: fn(&Bell) -> bool| {
            self.rung
                .wait_timeout_while(bell, time, |bell| !until(bell))
                .unwrap_or_else(PoisonError::into_inner)
                .0
        };
        let bell = wait(self.bell(), CHAIN_POLL_GAP, |bell| bell.stopped);
        let time = if self.parked() > 0 { CHAIN_POLL_PARKED } else { CHAIN_POLL };
        let bell = wait(bell, time - CHAIN_POLL_GAP, |bell| bell.stopped || bell.asked);
        !bell.stopped
    }

    fn publish(&self, look: u64, chain: Chain) {
        self.watched.send_modify(|watched| {
            let now = Instant::now();
            let tip_since = match &watched.seen {
                Some(seen) if seen.chain.tip_hash == chain.tip_hash => seen.tip_since,
                _ => {
                    tracing::info!(tip = %chain.tip_hash, height = chain.height, "tip");
                    now
                }
            };
            if watched.fault.is_some() {
                tracing::info!("chain source answers again");
            }
            *watched =
                Watched { seen: Some(Seen { chain, tip_since }), look, at: Some(now), fault: None };
        });
    }
}

fn of_network(mut chain: Chain, network: Network) -> Result<Chain, String> {
    if chain.network != network {
        return Err(format!(
            "the source is on {}, expected {network}: check network and the source's address",
            chain.network
        ));
    }
    chain.recent_tips.truncate(CHAIN_TIPS_MAX);
    Ok(chain)
}

enum Source {
    Http { agent: ureq::Agent, url: String },
    Rpc(Node),
}

impl Source {
    fn new(access: &ChainAccess) -> Source {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(CHAIN_TIMEOUT))
            .max_redirects(0)
            .proxy(None)
            .build();
        let agent = ureq::Agent::new_with_config(config);
        match access {
            ChainAccess::Http { url } => Source::Http { agent, url: url.clone() },
            ChainAccess::Rpc { url, auth } => {
                Source::Rpc(Node::new(agent, url.clone(), auth.clone()))
            }
        }
    }

    fn chain(&mut self) -> Result<Chain, String> {
        match self {
            Source::Rpc(node) => node.chain(),
            Source::Http { agent, url } => {
                let fault = |error: ureq::Error| format!("{url}: {error}");
                let mut answer = agent.get(&*url).call().map_err(fault)?;
                let body = answer.body_mut().with_config().limit(CHAIN_ANSWER_BYTES_MAX);
                body.read_json().map_err(fault)
            }
        }
    }
}
