//! Blocks on their way to the nodes (D14, D17, D18).
//!
//! A block goes to every node at once and is tried again at each until that node has said
//! something final. Nothing here depends on the verifier, the backend or template-manager.

use std::collections::VecDeque;
use std::sync::Arc;

use work::contract::feed::NodeAccess;
use work::{BlockHash, Mono, Now};

use super::output::Solution;
use crate::limits::{
    NODES_MAX, SOLUTIONS_REMEMBERED, SUBMIT_ATTEMPTS_MAX, SUBMIT_RETRY_MAX_MILLIS,
    SUBMIT_RETRY_MILLIS,
};

/// A block to be submitted: found now, or found before a restart and read from disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// Found by a miner of this process.
    Found(Arc<Solution>),
    /// As a node takes it.
    Stored {
        /// Its hash.
        hash: BlockHash,
        /// The whole block.
        bytes: Arc<[u8]>,
    },
}

impl Block {
    /// Its hash.
    pub fn hash(&self) -> BlockHash {
        match self {
            Block::Found(solution) => solution.hash,
            Block::Stored { hash, .. } => *hash,
        }
    }
}

/// What a node said to a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAnswer {
    /// It is in the node's chain now.
    Accepted,
    /// It was there before.
    Duplicate,
    /// It is valid and not the tip.
    Inconclusive,
    /// Anything else the node said.
    Rejected(String),
    /// The node said nothing.
    Unreachable(String),
}

/// What is to be done with a block.
#[derive(Debug, Clone, PartialEq)]
pub enum SubmitAction {
    /// Write it to disk, beside everything else.
    Store(Block),
    /// Send it to this node.
    Submit {
        /// Place in the list of nodes.
        node: NodeAccess,
        /// The block.
        block: Block,
    },
    /// It needs no further attempt: remove it from disk.
    Settled {
        /// Which.
        hash: BlockHash,
        /// Whether a node has it.
        accepted: bool,
    },
}

/// How far one node is with one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// To be sent at this moment.
    Due(Mono),
    /// Sent; the answer is awaited.
    Sent,
    /// The node has it.
    Accepted,
    /// The node refused it.
    Refused,
}

#[derive(Debug)]
struct Pending {
    block: Block,
    nodes: Vec<NodeProgress>,
}

#[derive(Debug)]
struct NodeProgress {
    node: NodeAccess,
    state: Progress,
    attempts: u32,
}

impl NodeProgress {
    fn new(node: &NodeAccess, now: Now) -> NodeProgress {
        NodeProgress { node: node.clone(), state: Progress::Due(now.mono), attempts: 0 }
    }
}

impl Pending {
    /// Whether each node has said something final, and then whether one has the block.
    fn settled(&self) -> Option<bool> {
        let is_final = |n: &NodeProgress| matches!(n.state, Progress::Accepted | Progress::Refused);
        if self.nodes.is_empty() || !self.nodes.iter().all(is_final) {
            return None;
        }
        Some(self.nodes.iter().any(|n| n.state == Progress::Accepted))
    }
}

/// The machine that submits blocks.
#[derive(Debug, Default)]
pub struct Submissions {
    nodes: Vec<NodeAccess>,
    pending: VecDeque<Pending>,
    remembered: VecDeque<BlockHash>,
    actions: VecDeque<SubmitAction>,
}

impl Submissions {
    /// The nodes that take blocks. Those that were listed before keep their state.
    pub fn on_nodes(&mut self, now: Now, mut nodes: Vec<NodeAccess>) {
        nodes.truncate(NODES_MAX);
        if nodes.is_empty() || nodes == self.nodes {
            return;
        }
        for pending in &mut self.pending {
            for node in &nodes {
                if !pending.nodes.iter().any(|known| known.node == *node) {
                    pending.nodes.push(NodeProgress::new(node, now));
                }
            }
            pending.nodes.retain(|known| nodes.contains(&known.node));
        }
        self.nodes = nodes;
        self.settle();
        self.on_deadline(now);
    }

    /// A block was found, or read from disk at the start. Returns whether it is a new one.
    pub fn on_block(&mut self, now: Now, block: Block) -> bool {
        let hash = block.hash();
        if self.remembered.contains(&hash) {
            return false;
        }
        if self.remembered.len() == SOLUTIONS_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(hash);
        let nodes = self.nodes.iter().map(|node| NodeProgress::new(node, now));
        let pending = Pending { block: block.clone(), nodes: nodes.collect() };
        if self.pending.len() == SOLUTIONS_REMEMBERED {
            self.pending.pop_front();
        }
        self.pending.push_back(pending);
        self.on_deadline(now);
        // Behind the submissions: the copy on disk is never waited for.
        if let Block::Found(_) = block {
            self.actions.push_back(SubmitAction::Store(block));
        }
        true
    }

    /// A node answered, or could not be reached.
    pub fn on_answer(&mut self, now: Now, node: &NodeAccess, hash: BlockHash, answer: &NodeAnswer) {
        let pending = self.pending.iter_mut().find(|pending| pending.block.hash() == hash);
        let known = pending.and_then(|p| p.nodes.iter_mut().find(|known| known.node == *node));
        let Some(known) = known else { return };
        let wait = (SUBMIT_RETRY_MILLIS << known.attempts.min(8)).min(SUBMIT_RETRY_MAX_MILLIS);
        let retry = Progress::Due(now.mono.plus_millis(wait));
        known.state = match answer {
            NodeAnswer::Accepted | NodeAnswer::Duplicate | NodeAnswer::Inconclusive => {
                Progress::Accepted
            }
            // The node may only not have the parent yet.
            NodeAnswer::Rejected(why) if why == "prev-blk-not-found" => retry,
            NodeAnswer::Rejected(_) => Progress::Refused,
            NodeAnswer::Unreachable(_) => retry,
        };
        self.settle();
    }

    /// Time has passed: send what is due.
    pub fn on_deadline(&mut self, now: Now) {
        for pending in &mut self.pending {
            for known in &mut pending.nodes {
                let Progress::Due(at) = known.state else { continue };
                if at > now.mono || known.attempts >= SUBMIT_ATTEMPTS_MAX {
                    continue;
                }
                known.state = Progress::Sent;
                known.attempts += 1;
                let (node, block) = (known.node.clone(), pending.block.clone());
                self.actions.push_back(SubmitAction::Submit { node, block });
            }
        }
    }

    /// When [`Submissions::on_deadline`] is due.
    pub fn deadline(&self) -> Option<Mono> {
        let known = self.pending.iter().flat_map(|pending| &pending.nodes);
        known
            .filter(|known| known.attempts < SUBMIT_ATTEMPTS_MAX)
            .filter_map(|known| match known.state {
                Progress::Due(at) => Some(at),
                _ => None,
            })
            .min()
    }

    /// Whether an answer of a node is awaited, or an action is to be done.
    pub fn is_busy(&self) -> bool {
        let mut known = self.pending.iter().flat_map(|pending| &pending.nodes);
        !self.actions.is_empty() || known.any(|known| known.state == Progress::Sent)
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<SubmitAction> {
        self.actions.pop_front()
    }

    /// Blocks that are not settled.
    pub fn open(&self) -> usize {
        self.pending.len()
    }

    /// Let go of blocks about which every node has said something final.
    fn settle(&mut self) {
        let actions = &mut self.actions;
        self.pending.retain(|pending| match pending.settled() {
            Some(accepted) => {
                let hash = pending.block.hash();
                actions.push_back(SubmitAction::Settled { hash, accepted });
                false
            }
            None => true,
        });
    }
}
