//! Templates of a Bitcoin node, by JSON-RPC and ZMQ (D7, D8, D21).
//!
//! Three ordinary threads: the [`pulse`] watches that the node lives, the [`listen`]er hears of
//! new tips, and the worker asks for templates when either wakes it and every
//! `poll_interval_ms` besides. At a new tip the worker first makes a coinbase-only template out
//! of three small answers (under a millisecond) and then fetches the full one (up to 0.1 s with
//! a deep mempool). A node that is not in use is asked for its tip alone; which one is in use,
//! [`crate::failover`] decides and [`group`] carries out.

pub(crate) mod group;
pub mod listen;
pub mod parent;
pub mod pulse;
pub mod template;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use work::contract::feed::NodeAccess;
use work::hash::BlockHash;
use work::payout::Network;

use crate::event::TipChannel;
use crate::failover::NodeFact;
use crate::rpc::{Answer, RpcClient, RpcError, Shutdown};

/// Wakes that may wait for the worker.
const WAKES_MAX: usize = 256;
/// Time for one answer with a template.
const TEMPLATE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for the look at a node before it is started with.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes a node's facts, on the node's threads.
type NodeDeliver = Arc<dyn Fn(NodeFact) + Send + Sync>;

/// Which node, and how it is asked.
#[derive(Debug, Clone)]
pub struct BitcoindConfig {
    /// Its address and credentials.
    pub node: NodeAccess,
    /// The chain it must be on.
    pub network: Network,
    /// Milliseconds between two templates of one tip.
    pub poll_interval_ms: u64,
}

/// Why the worker wakes.
enum Wake {
    /// The node answers, for the first time or again.
    Back,
    /// The node's tip is said to be this.
    Tip { hash: BlockHash, channel: TipChannel },
    /// The node ended a longpoll with this template.
    Longpolled(Answer),
    /// There is no ZMQ to listen to.
    ZmqFailed(String),
    /// Give templates from now on. With a block version: the tip is a new one, so begin with a
    /// coinbase-only template.
    Use { version: Option<u32> },
    /// Give no more templates.
    Rest,
    /// Another node knows more: look at the tip now.
    Look,
    /// The source is stopping.
    Stop,
}

/// `getblockchaininfo`, as far as it is used.
#[derive(Deserialize)]
struct ChainInfo {
    chain: String,
}

/// Ask the node which chain it is on.
///
/// # Errors
/// The inner error is a sentence about a node on another chain; the outer one is of a node that
/// cannot be asked now.
fn check_chain(client: &mut RpcClient, network: Network) -> Result<Result<(), String>, RpcError> {
    let info: ChainInfo = client.call("getblockchaininfo", serde_json::json!([]))?;
    if info.chain == network.node_name() {
        return Ok(Ok(()));
    }
    Ok(Err(format!(
        "the node is on the chain \"{}\", the configuration says network = \"{network}\": set the \
         network to the node's, or point at another node",
        info.chain
    )))
}

/// The running threads of one node, which gives no templates until it is put to use.
pub(crate) struct BitcoindHandle {
    wake: SyncSender<Wake>,
    pulse_stop: Option<Sender<()>>,
    shutdowns: Vec<Shutdown>,
    threads: Vec<JoinHandle<()>>,
}

impl BitcoindHandle {
    /// Start the threads. A node that is down is waited for; one on another chain is refused.
    ///
    /// # Errors
    /// A sentence: credentials of no known form, a node on another chain, or no threads.
    pub(crate) fn start(
        config: BitcoindConfig,
        deliver: NodeDeliver,
    ) -> Result<BitcoindHandle, String> {
        let mut first = RpcClient::new(&config.node, START_TIMEOUT)?;
        if let Ok(verdict) = check_chain(&mut first, config.network) {
            verdict.map_err(|why| format!("{}: {why}", config.node.url))?;
        }
        let client = RpcClient::new(&config.node, TEMPLATE_TIMEOUT)?;
        let pulse_client = RpcClient::new(&config.node, pulse::TIMEOUT)?;
        let shutdowns = vec![client.shutdown(), pulse_client.shutdown()];
        let (wake, inbox) = sync_channel(WAKES_MAX);
        let (pulse_stop, pulse_stopped) = channel();
        let pulse = pulse::Pulse {
            client: pulse_client,
            network: config.network,
            wake: wake.clone(),
            deliver: Arc::clone(&deliver),
        };
        let worker = worker::Worker::new(config, client, deliver, wake.clone());
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(|error| format!("cannot start the thread {name}: {error}"))
        };
        let mut handle =
            BitcoindHandle { wake, pulse_stop: Some(pulse_stop), shutdowns, threads: Vec::new() };
        handle.threads.push(spawn("node-templates", Box::new(move || worker.run(&inbox)))?);
        let pulse = move || pulse.run(&pulse_stopped);
        handle.threads.push(spawn("node-pulse", Box::new(pulse))?);
        Ok(handle)
    }

    /// What wakes the worker.
    fn waker(&self) -> SyncSender<Wake> {
        self.wake.clone()
    }

    /// End the threads, calls in progress included, and wait for them.
    pub(crate) fn stop(&mut self) {
        self.pulse_stop = None;
        // With their connections shut no thread waits for the node, so the inbox drains.
        self.shutdowns.drain(..).for_each(Shutdown::end);
        let _ = self.wake.send(Wake::Stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for BitcoindHandle {
    fn drop(&mut self) {
        self.stop();
    }
}
