//! The pulse: `getblockchaininfo` five times a second, on a connection of its own.
//!
//! It notices within a second that the node is gone or back, however long other calls take and
//! however silent ZMQ is, and is the net under ZMQ and longpoll: a tip that they miss is a fifth
//! of a second late. A refused connection is a loss at once; silence is one after
//! [`TIMEOUT`]. A node in its first synchronisation answers, but has no use: on the chains
//! where nodes refuse templates then, it counts as lost.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use serde::Deserialize;
use work::hash::BlockHash;
use work::payout::Network;

use super::{NodeDeliver, Wake};
use crate::clock;
use crate::event::TipChannel;
use crate::failover::NodeFact;
use crate::rpc::{RpcClient, RpcError};

/// Between two questions.
const PERIOD: Duration = Duration::from_millis(200);
/// Time for one answer; with [`PERIOD`] before it, a node that hangs is lost after 0.8 s.
pub(super) const TIMEOUT: Duration = Duration::from_millis(600);
/// Silence after which errors of any other kind make a lost node.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// Between two reminders that it is.
const REMINDER: Duration = Duration::from_secs(1);

/// `getblockchaininfo`, as far as it is used.
#[derive(Debug, Deserialize)]
struct ChainInfo {
    blocks: u32,
    headers: u32,
    bestblockhash: BlockHash,
    #[serde(default)]
    initialblockdownload: bool,
}

impl ChainInfo {
    /// Why the node can give no templates, though it answers. Nodes of test chains give them
    /// during the first synchronisation, too, because a fresh chain never leaves it.
    fn useless(&self, network: Network) -> Option<String> {
        (self.initialblockdownload && network == Network::Main).then(|| {
            format!(
                "the node is in its initial block download, at block {} of {}; wait until it has \
                 caught up",
                self.blocks, self.headers
            )
        })
    }
}

pub(super) struct Pulse {
    pub(super) client: RpcClient,
    pub(super) network: Network,
    pub(super) wake: SyncSender<Wake>,
    pub(super) deliver: NodeDeliver,
}

/// The source has stopped.
struct Stopped;

/// What is known of the node between two questions.
struct Known {
    answered: Instant,
    reminded: Option<Instant>,
    is_up: bool,
    tip: Option<BlockHash>,
}

impl Pulse {
    /// Ask until `stopped` closes.
    pub(super) fn run(mut self, stopped: &Receiver<()>) {
        let mut known = Known { answered: clock::mono(), reminded: None, is_up: false, tip: None };
        loop {
            if self.beat(&mut known).is_err()
                || stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout)
            {
                return;
            }
        }
    }

    fn beat(&mut self, known: &mut Known) -> Result<(), Stopped> {
        let answer = self.client.call::<ChainInfo>("getblockchaininfo", serde_json::json!([]));
        match answer {
            Ok(info) => match info.useless(self.network) {
                Some(why) => self.lose(known, why),
                None => return self.on_answer(known, info.bestblockhash),
            },
            Err(error) => {
                let is_gone = matches!(error, RpcError::NoListener(_));
                if is_gone || known.answered.elapsed() >= LOST_AFTER {
                    self.lose(known, error.to_string());
                }
            }
        }
        Ok(())
    }

    fn on_answer(&self, known: &mut Known, tip: BlockHash) -> Result<(), Stopped> {
        known.answered = clock::mono();
        known.reminded = None;
        if !std::mem::replace(&mut known.is_up, true) {
            self.wake.send(Wake::Back).map_err(|_| Stopped)?;
        }
        if known.tip.replace(tip) != Some(tip) {
            let channel = TipChannel::Poll;
            self.wake.send(Wake::Tip { hash: tip, channel }).map_err(|_| Stopped)?;
        }
        Ok(())
    }

    fn lose(&self, known: &mut Known, why: String) {
        known.is_up = false;
        if known.reminded.is_some_and(|at| at.elapsed() < REMINDER) {
            return;
        }
        known.reminded = Some(clock::mono());
        let since_millis = u64::try_from(known.answered.elapsed().as_millis()).unwrap_or(u64::MAX);
        (self.deliver)(NodeFact::Lost { since_millis, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_in_its_first_synchronisation_is_of_no_use_on_the_main_chain() {
        let text = format!(
            "{{\"blocks\":5,\"headers\":900,\"bestblockhash\":\"{}\",\
             \"initialblockdownload\":true}}",
            "00".repeat(32)
        );
        let info: ChainInfo = serde_json::from_str(&text).unwrap();
        let why = info.useless(Network::Main).unwrap();
        assert!(why.contains("block 5 of 900"), "{why}");
        assert_eq!(info.useless(Network::Regtest), None);
        let done: ChainInfo = serde_json::from_str(&text.replace("true", "false")).unwrap();
        assert_eq!(done.useless(Network::Main), None);
    }
}
