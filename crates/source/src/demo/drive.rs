//! The thread that runs the simulated chain: it gives the machine the time and passes on what it
//! says.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use work::contract::chain::Chain;
use work::hash::BlockHash;

use super::{DemoChain, DemoConfig, Fork, ForkBase, SubmitError};
use crate::clock;
use crate::event::{Deliver, SourceEvent};

/// Requests that may wait for the thread.
const REQUESTS_MAX: usize = 64;
/// The thread looks at the clock this often.
const TICK: Duration = Duration::from_millis(50);

/// The chain's thread has ended, or too many requests wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoStopped;

impl fmt::Display for DemoStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated chain has stopped or is overloaded")
    }
}

impl std::error::Error for DemoStopped {}

type SubmitAnswer = Result<Option<String>, SubmitError>;

enum Request {
    Submit { bytes: Vec<u8>, answer: oneshot::Sender<SubmitAnswer> },
    MakeBlocks { count: u32, answer: oneshot::Sender<Chain> },
    Fork { base: ForkBase, length: u32, answer: oneshot::Sender<Result<(Fork, Chain), String>> },
    Invalidate { hash: BlockHash, answer: oneshot::Sender<Result<(), String>> },
    Chain { answer: oneshot::Sender<Chain> },
    Stop,
}

/// Asks the chain's thread; clones ask the same one.
#[derive(Clone)]
pub struct DemoHandle {
    requests: SyncSender<Request>,
}

impl DemoHandle {
    /// Start the thread. Its first events are delivered before this returns.
    ///
    /// # Errors
    /// A sentence if `config` is impossible or no thread can be started.
    pub(crate) fn start(
        config: DemoConfig,
        deliver: Deliver,
    ) -> Result<(DemoHandle, JoinHandle<()>), String> {
        let (chain, events) = DemoChain::new(config, clock::unix())?;
        events.into_iter().for_each(|event| deliver(event));
        let (requests, inbox) = sync_channel(REQUESTS_MAX);
        let thread = std::thread::Builder::new()
            .name("demo-chain".to_owned())
            .spawn(move || run(chain, &inbox, &deliver))
            .map_err(|error| format!("cannot start the thread of demo://: {error}"))?;
        Ok((DemoHandle { requests }, thread))
    }

    /// `submitblock`: `Ok(None)` is accepted, `Ok(Some(_))` the node's word against it.
    ///
    /// # Errors
    /// The inner error is of bytes that are no block, the outer one of a chain that is gone.
    pub async fn submit_block(&self, bytes: Vec<u8>) -> Result<SubmitAnswer, DemoStopped> {
        self.ask(|answer| Request::Submit { bytes, answer }).await
    }

    /// Make `count` blocks at once; the chain after them is returned.
    ///
    /// # Errors
    /// [`DemoStopped`].
    pub async fn make_blocks(&self, count: u32) -> Result<Chain, DemoStopped> {
        self.ask(|answer| Request::MakeBlocks { count, answer }).await
    }

    /// Make a branch; it and the chain after it are returned, or why it cannot be.
    ///
    /// # Errors
    /// The inner error is of an impossible branch, the outer one of a chain that is gone.
    pub async fn fork(
        &self,
        base: ForkBase,
        length: u32,
    ) -> Result<Result<(Fork, Chain), String>, DemoStopped> {
        self.ask(|answer| Request::Fork { base, length, answer }).await
    }

    /// `invalidateblock`: the chain goes on without this block and all on it.
    ///
    /// # Errors
    /// The inner error is of a block that is not known or too deep, the outer one of a chain that
    /// is gone.
    pub async fn invalidate(&self, hash: BlockHash) -> Result<Result<(), String>, DemoStopped> {
        self.ask(|answer| Request::Invalidate { hash, answer }).await
    }

    /// The chain now.
    ///
    /// # Errors
    /// [`DemoStopped`].
    pub async fn chain(&self) -> Result<Chain, DemoStopped> {
        self.ask(|answer| Request::Chain { answer }).await
    }

    pub(crate) fn stop(&self) {
        // The thread drains its inbox, so this waits shortly; if it has ended, so much the better.
        let _ = self.requests.send(Request::Stop);
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, DemoStopped> {
        let (answer, reply) = oneshot::channel();
        self.requests.try_send(request(answer)).map_err(|_| DemoStopped)?;
        reply.await.map_err(|_| DemoStopped)
    }
}

fn run(mut chain: DemoChain, inbox: &Receiver<Request>, deliver: &Deliver) {
    let tell = |events: Vec<SourceEvent>| events.into_iter().for_each(|event| deliver(event));
    loop {
        let request = inbox.recv_timeout(TICK);
        tell(chain.advance(clock::unix()));
        // Who asked may have gone: then nobody needs the answer. Events go out before it, so
        // that whoever has the answer finds the templates that follow from it.
        match request {
            Ok(Request::Submit { bytes, answer }) => {
                let _ =
                    answer.send(chain.submit_block(&bytes, clock::unix()).map(|(word, events)| {
                        tell(events);
                        word
                    }));
            }
            Ok(Request::MakeBlocks { count, answer }) => {
                (0..count).for_each(|_| tell(chain.make_block(clock::unix())));
                let _ = answer.send(chain.chain());
            }
            Ok(Request::Fork { base, length, answer }) => {
                let made = chain.fork(base, length, clock::unix());
                let _ = answer.send(made.map(|(fork, events)| {
                    tell(events);
                    (fork, chain.chain())
                }));
            }
            Ok(Request::Invalidate { hash, answer }) => {
                let _ = answer.send(chain.invalidate(&hash, clock::unix()).map(tell));
            }
            Ok(Request::Chain { answer }) => {
                let _ = answer.send(chain.chain());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
