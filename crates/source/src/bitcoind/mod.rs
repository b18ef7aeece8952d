//! Templates of a Bitcoin node, by JSON-RPC and ZMQ (D7, D8, D21).
//!
//! Three ordinary threads: the [`pulse`] watches that the node lives, the [`listen`]er hears of
//! new tips, and the worker, here, asks for templates when either wakes it and every
//! `poll_interval_ms` besides. At a new tip the worker first makes a coinbase-only template out
//! of three small answers (under a millisecond) and then fetches the full one (up to 0.1 s with
//! a deep mempool).

pub mod listen;
pub mod parent;
pub mod pulse;
pub mod template;
mod worker;

use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use work::contract::feed::NodeAccess;
use work::hash::BlockHash;
use work::payout::Network;

use crate::event::{Deliver, TipChannel};
use crate::rpc::{Answer, RpcClient, RpcError, Shutdown};

/// Wakes that may wait for the worker.
const WAKES_MAX: usize = 256;
/// Time for one answer with a template.
const TEMPLATE_TIMEOUT: Duration = Duration::from_secs(20);

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

/// The running threads of one node.
pub struct BitcoindHandle {
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
        deliver: &Deliver,
    ) -> Result<BitcoindHandle, String> {
        let mut client = RpcClient::new(&config.node, TEMPLATE_TIMEOUT)?;
        if let Ok(verdict) = check_chain(&mut client, config.network) {
            verdict?;
        }
        let pulse_client = RpcClient::new(&config.node, pulse::TIMEOUT)?;
        let shutdowns = vec![client.shutdown(), pulse_client.shutdown()];
        let (wake, inbox) = sync_channel(WAKES_MAX);
        let (pulse_stop, pulse_stopped) = channel();
        let worker = worker::Worker::new(config, client, deliver.clone(), wake.clone());
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(|error| format!("cannot start the thread {name}: {error}"))
        };
        let mut handle = BitcoindHandle {
            wake: wake.clone(),
            pulse_stop: Some(pulse_stop),
            shutdowns,
            threads: Vec::new(),
        };
        handle.threads.push(spawn("node-templates", Box::new(move || worker.run(&inbox)))?);
        let deliver = deliver.clone();
        let pulse = move || pulse::run(pulse_client, &wake, &deliver, &pulse_stopped);
        handle.threads.push(spawn("node-pulse", Box::new(pulse))?);
        Ok(handle)
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
