//! What a source tells.

use std::sync::Arc;

use work::contract::chain::Chain;
use work::hash::BlockHash;
use work::template::Template;

use crate::failover::NodeStanding;

/// How a new tip was learned first (the `channel` label of
/// `reservegrid_prevhash_tip_notice_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TipChannel {
    /// The node's ZMQ `hashblock`.
    Zmq,
    /// A getblocktemplate that the node held until there was something new.
    Longpoll,
    /// Asking again and again: the net below the others, and how the first tip is learned.
    Poll,
    /// The simulated chain made or took a block.
    Demo,
}

impl TipChannel {
    /// Every channel.
    pub const ALL: [TipChannel; 4] =
        [TipChannel::Zmq, TipChannel::Longpoll, TipChannel::Poll, TipChannel::Demo];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            TipChannel::Zmq => "zmq",
            TipChannel::Longpoll => "longpoll",
            TipChannel::Poll => "poll",
            TipChannel::Demo => "demo",
        }
    }
}

/// One thing a source learned.
#[derive(Debug, Clone)]
pub enum SourceEvent {
    /// The chain has a new tip; templates for it follow.
    TipNotice {
        /// The new tip.
        prev_hash: BlockHash,
        /// Who told first.
        channel: TipChannel,
    },
    /// The chain as of now; sent with every new tip.
    Chain(Arc<Chain>),
    /// A template, newer than all before it. At a new tip a coinbase-only one comes first.
    Template(Arc<Template>),
    /// The node answered a request for a full template after this many microseconds.
    Fetched {
        /// From the request to the parsed template.
        micros: u64,
    },
    /// No node gives templates. Repeated every second while that lasts.
    NodeLost {
        /// Milliseconds since the last answer of the one that was used.
        since_millis: u64,
        /// What went wrong, in words.
        why: String,
    },
    /// A node can be used, for the first time or again; a fresh template follows.
    NodeBack,
    /// What is known of each node, in the order of the configuration; sent when it changes.
    Standings(Arc<[NodeStanding]>),
    /// Nodes answer, but their templates must not be used: another chain, or rules unknown
    /// here. Nothing follows until that is mended.
    Refused {
        /// What is wrong and what was expected.
        why: String,
    },
}

/// Takes a source's events, on the source's threads. It must return quickly: hand over and go.
pub type Deliver = Arc<dyn Fn(SourceEvent) + Send + Sync>;
