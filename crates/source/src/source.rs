//! One way to start any source.

use std::fmt;
use std::thread::JoinHandle;

use work::contract::feed::NodeAccess;
use work::payout::Network;

use crate::bitcoind::BitcoindConfig;
use crate::bitcoind::group::GroupHandle;
use crate::demo::{DemoConfig, DemoHandle};
use crate::event::Deliver;
use crate::failover::NODES_MAX;
use crate::rpc;

/// The address of the simulated chain.
const DEMO_URL: &str = "demo://";
/// Bounds of `poll_interval_ms`.
const POLL_INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

/// Which kind a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// The simulated chain.
    Demo,
    /// Bitcoin nodes by JSON-RPC.
    Bitcoind,
}

impl SourceKind {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            SourceKind::Demo => "demo",
            SourceKind::Bitcoind => "bitcoind",
        }
    }
}

/// Where templates shall come from.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// `demo://` alone, or nodes in the order of preference: the JSON-RPC address of each,
    /// `http://127.0.0.1:8332`, and `cookie:/path`, `user:password`, or nothing. One is in use.
    pub nodes: Vec<NodeAccess>,
    /// The chain; regtest for `demo://`.
    pub network: Network,
    /// Milliseconds between two templates of one tip.
    pub poll_interval_ms: u64,
    /// What the simulated chain is like.
    pub demo: DemoConfig,
}

/// Why a source cannot start: one sentence that says how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError(
    /// The sentence.
    pub String,
);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}

impl From<String> for SourceError {
    fn from(why: String) -> Self {
        SourceError(why)
    }
}

impl SourceConfig {
    /// Which kind of source this is.
    ///
    /// # Errors
    /// [`SourceError`] if any part of the configuration is impossible.
    pub fn check(&self) -> Result<SourceKind, SourceError> {
        if !POLL_INTERVAL_MS.contains(&self.poll_interval_ms) {
            return Err(SourceError(format!(
                "poll_interval_ms is {}; expected {} to {}",
                self.poll_interval_ms,
                POLL_INTERVAL_MS.start(),
                POLL_INTERVAL_MS.end()
            )));
        }
        if let [NodeAccess { url, .. }] = self.nodes.as_slice()
            && url == DEMO_URL
        {
            if self.network != Network::Regtest {
                return Err(SourceError(format!(
                    "the simulated chain follows regtest's rules; expected network = \"regtest\", \
                     found \"{}\"",
                    self.network
                )));
            }
            return Ok(SourceKind::Demo);
        }
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return Err(SourceError(format!(
                "{} nodes are configured; expected 1 to {NODES_MAX}",
                self.nodes.len()
            )));
        }
        for (number, node) in self.nodes.iter().enumerate() {
            check_node(node)?;
            if self.nodes.iter().take(number).any(|other| other.url == node.url) {
                return Err(SourceError(format!(
                    "the node \"{}\" is configured twice; name each once",
                    node.url
                )));
            }
        }
        Ok(SourceKind::Bitcoind)
    }

    fn accesses(&self) -> impl Iterator<Item = NodeAccess> {
        self.nodes.iter().map(|node| NodeAccess {
            url: node.url.clone(),
            auth: node.auth.clone().filter(|auth| !auth.is_empty()),
        })
    }
}

fn check_node(node: &NodeAccess) -> Result<(), SourceError> {
    let url = &node.url;
    match url.strip_prefix("http://").or(url.strip_prefix("https://")) {
        Some(authority) if authority.contains('@') => Err(SourceError(
            "the address of a node holds credentials; write them to its auth (source_auth) \
             instead"
                .into(),
        )),
        Some(authority) if !authority.is_empty() => {
            rpc::check_auth(node.auth.as_deref()).map_err(SourceError)
        }
        _ => Err(SourceError(format!(
            "unknown source \"{url}\"; expected demo:// (alone) or http://host:port of a node"
        ))),
    }
}

enum Running {
    Demo { handle: DemoHandle, thread: Option<JoinHandle<()>> },
    Bitcoind { handle: GroupHandle },
}

/// A running source. Dropping it stops its threads.
pub struct Source {
    config: SourceConfig,
    running: Running,
}

impl Source {
    /// Start the threads; events go to `deliver`, the first of them possibly before this
    /// returns. A node that is down is waited for.
    ///
    /// # Errors
    /// [`SourceError`]: an impossible configuration, or a node on another chain.
    pub fn start(config: SourceConfig, deliver: Deliver) -> Result<Source, SourceError> {
        let running = match config.check()? {
            SourceKind::Demo => {
                let (handle, thread) = DemoHandle::start(config.demo.clone(), deliver)?;
                Running::Demo { handle, thread: Some(thread) }
            }
            SourceKind::Bitcoind => {
                let node = |node| BitcoindConfig {
                    node,
                    network: config.network,
                    poll_interval_ms: config.poll_interval_ms,
                };
                let nodes = config.accesses().map(node).collect();
                Running::Bitcoind { handle: GroupHandle::start(nodes, &deliver)? }
            }
        };
        Ok(Source { config, running })
    }

    /// Which kind it is.
    pub fn kind(&self) -> SourceKind {
        match self.running {
            Running::Demo { .. } => SourceKind::Demo,
            Running::Bitcoind { .. } => SourceKind::Bitcoind,
        }
    }

    /// Its chain.
    pub fn network(&self) -> Network {
        self.config.network
    }

    /// The nodes behind it that take blocks; none for the simulated chain, whose blocks go to
    /// [`DemoHandle::submit_block`].
    pub fn nodes(&self) -> Vec<NodeAccess> {
        match self.running {
            Running::Demo { .. } => Vec::new(),
            Running::Bitcoind { .. } => self.config.accesses().collect(),
        }
    }

    /// The simulated chain, if it is that.
    pub fn demo(&self) -> Option<&DemoHandle> {
        match &self.running {
            Running::Demo { handle, .. } => Some(handle),
            Running::Bitcoind { .. } => None,
        }
    }

    /// Stop the threads and wait for them; calls to the node are broken off.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        match &mut self.running {
            Running::Demo { handle, thread } => {
                handle.stop();
                if let Some(thread) = thread.take() {
                    let _ = thread.join();
                }
            }
            Running::Bitcoind { handle } => handle.stop(),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.end();
    }
}
