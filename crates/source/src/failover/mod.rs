//! Which of several nodes gives the templates (D20): a machine.
//!
//! ```text
//!            every node before it has been looked at
//! Nobody ───────────────────────────────────────────▶ Using node n ──lost──▶ Nobody
//!    ▲ └─ a node at the tip in force, or with more work, or the one that was used ─▲
//!    └ with nothing better for SETTLE_MILLIS: the node with the most work
//!
//! Using n ── another has more work, and n has not followed for FOLLOW_MILLIS ──▶ Using that one
//! Using n ── no template on its tip for TEMPLATE_MILLIS: n is lost ──▶ Nobody
//! ```
//!
//! One node is in use and only what it says goes out. Its tip is the tip, whatever it is; another
//! node's tip is a hint that there is something new, so the node in use is asked at once. A rival
//! with equal work never displaces the tip. A node that comes back is not gone back to: the one
//! in use stays in use until it is lost or stays behind.

mod standing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use work::contract::chain::Chain;
use work::hash::BlockHash;
use work::now::Mono;
use work::template::Template;

use crate::event::{SourceEvent, TipChannel};

pub use standing::{ChainWork, NodeStanding, NodeState};

/// Nodes that one source may have; the gateway submits blocks to as many.
pub const NODES_MAX: usize = 8;
/// How long the node in use may take to follow a node with more work. Nodes of one owner pass a
/// block on in less; miners lose this much work on the old tip when it does not follow.
pub const FOLLOW_MILLIS: u64 = 100;
/// How long the node in use may take to give a template on its tip; usual is a tenth of a second.
pub const TEMPLATE_MILLIS: u64 = 5_000;
/// How long work on the tip of a lost node is kept up while the others have only less, or a rival
/// of equal work: they may get its block from the network, or it may come back.
pub const SETTLE_MILLIS: u64 = 3_000;

/// The end of a node's active chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTip {
    /// The block.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// The work of the chain that ends with it.
    pub work: ChainWork,
}

/// What one node says, or what is seen of it.
#[derive(Debug, Clone)]
pub enum NodeFact {
    /// It answers, and this is its tip: for the first time, again, or because it is a new one.
    Tip {
        /// The tip.
        tip: NodeTip,
        /// How it was learned.
        channel: TipChannel,
    },
    /// Its chain; only from the node in use, after [`NodeFact::Tip`].
    Chain(Arc<Chain>),
    /// A template on its tip; only from the node in use.
    Template(Arc<Template>),
    /// It answered a request for a full template after this many microseconds.
    Fetched {
        /// From the request to the parsed template.
        micros: u64,
    },
    /// It does not answer, or gives no templates. Repeated while that lasts.
    Lost {
        /// Milliseconds since it last did.
        since_millis: u64,
        /// What went wrong, in words.
        why: String,
    },
    /// It answers, but must not be used.
    Refused {
        /// Why, in words.
        why: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone)]
pub enum FailoverAction {
    /// Ask this node for its tip now: another has more work.
    Ask {
        /// Place in the list.
        node: usize,
    },
    /// Take templates from this node from now on.
    Use {
        /// Place in the list.
        node: usize,
        /// If its tip is a new one: the block version of the template before, so that it can give
        /// a coinbase-only template before it has made a full one.
        version: Option<u32>,
    },
    /// Take no more templates from this node; it only tells its tip.
    Rest {
        /// Place in the list.
        node: usize,
    },
    /// Tell this to whoever listens to the source.
    Publish(SourceEvent),
}

#[derive(Debug, Clone)]
struct Node {
    url: String,
    state: NodeState,
    tip: Option<NodeTip>,
}

/// The machine. Nodes are named by their place in the configuration.
#[derive(Debug, Clone)]
pub struct Failover {
    nodes: Vec<Node>,
    in_use: Option<usize>,
    last_in_use: Option<usize>,
    /// The tip that templates are out for.
    in_force: Option<NodeTip>,
    /// Block version of the newest template.
    version: Option<u32>,
    /// When the node in use must have followed the others.
    follow_by: Option<Mono>,
    /// When the node in use must have given a template on its tip.
    template_by: Option<Mono>,
    /// When a node with less work will do.
    settle_at: Option<Mono>,
    /// Since when there has been no node to use.
    lost_since: Option<Mono>,
    /// What is out says that there is no node.
    is_lost_told: bool,
    told: Arc<[NodeStanding]>,
    actions: VecDeque<FailoverAction>,
}

impl Failover {
    /// Nothing is known yet of the nodes with these addresses, in the order of preference.
    pub fn new(urls: impl IntoIterator<Item = String>) -> Failover {
        let node = |url| Node { url, state: NodeState::Unknown, tip: None };
        Failover {
            nodes: urls.into_iter().take(NODES_MAX).map(node).collect(),
            in_use: None,
            last_in_use: None,
            in_force: None,
            version: None,
            follow_by: None,
            template_by: None,
            settle_at: None,
            lost_since: None,
            // The first node that is found is told as one that came back.
            is_lost_told: true,
            told: Arc::default(),
            actions: VecDeque::new(),
        }
    }

    /// The node whose templates are used.
    pub fn in_use(&self) -> Option<usize> {
        self.in_use
    }

    /// `node` said `fact`. Facts of nodes that are not in the list are ignored.
    pub fn on_fact(&mut self, now: Mono, node: usize, fact: NodeFact) {
        let is_in_use = self.in_use == Some(node);
        let Some(known) = self.nodes.get_mut(node) else { return };
        match fact {
            NodeFact::Tip { tip, channel } => {
                (known.state, known.tip) = (NodeState::Up, Some(tip));
                match is_in_use {
                    true => self.put_in_force(now, tip, channel),
                    false if self.in_use.is_none() => self.choose(now),
                    false => {}
                }
                self.follow(now);
            }
            NodeFact::Lost { since_millis, why } => {
                known.state = NodeState::Lost { why };
                self.on_gone(now, node, since_millis);
            }
            NodeFact::Refused { why } => {
                known.state = NodeState::Refused { why };
                self.on_gone(now, node, 0);
            }
            // What a node says after it was put to rest is late.
            _ if !is_in_use => {}
            NodeFact::Chain(chain) => self.publish(SourceEvent::Chain(chain)),
            NodeFact::Template(template) => {
                if self.in_force.is_some_and(|tip| tip.hash == template.prev_hash()) {
                    self.template_by = None;
                }
                self.version = Some(template.version);
                self.publish(SourceEvent::Template(template));
            }
            NodeFact::Fetched { micros } => self.publish(SourceEvent::Fetched { micros }),
        }
        self.tell_standings();
    }

    /// Time has passed.
    pub fn on_deadline(&mut self, now: Mono) {
        if self.follow_by.is_some_and(|by| now >= by) {
            self.follow_by = None;
            if let (Some(old), Some(ahead)) = (self.in_use, self.ahead()) {
                self.actions.push_back(FailoverAction::Rest { node: old });
                self.put_in_use(now, ahead);
                self.follow(now);
            }
        }
        if let Some(node) = self.in_use.filter(|_| self.template_by.is_some_and(|by| now >= by)) {
            let why = format!("it answers, but has given no template for {TEMPLATE_MILLIS} ms");
            if let Some(known) = self.nodes.get_mut(node) {
                known.state = NodeState::Lost { why };
            }
            self.on_gone(now, node, TEMPLATE_MILLIS);
        }
        if self.settle_at.is_some_and(|at| now >= at) {
            self.choose(now);
            self.follow(now);
        }
        self.tell_standings();
    }

    /// When [`Failover::on_deadline`] is due.
    pub fn deadline(&self) -> Option<Mono> {
        [self.follow_by, self.template_by, self.settle_at].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<FailoverAction> {
        self.actions.pop_front()
    }

    /// The tip of a node that can be used.
    fn tip_of(&self, node: usize) -> Option<NodeTip> {
        self.nodes.get(node).filter(|node| node.state == NodeState::Up)?.tip
    }

    /// The usable node with the most work that `fits`; the first in the list among equals.
    fn best(&self, fits: impl Fn(usize, &NodeTip) -> bool) -> Option<usize> {
        let usable = (0..self.nodes.len()).filter_map(|node| Some((node, self.tip_of(node)?)));
        let fitting = usable.filter(|(node, tip)| fits(*node, tip));
        // The last of equals is taken, so the list is walked from its end.
        fitting.rev().max_by_key(|(_, tip)| tip.work).map(|(node, _)| node)
    }

    /// The node with the most work, if that is more than the node in use has.
    fn ahead(&self) -> Option<usize> {
        let work = self.tip_of(self.in_use?)?.work;
        self.best(|_, tip| tip.work > work)
    }

    /// Another node has more work: that is a hint for the node in use, which gets some time.
    fn follow(&mut self, now: Mono) {
        match (self.in_use, self.ahead()) {
            (Some(node), Some(_)) if self.follow_by.is_none() => {
                self.follow_by = Some(now.plus_millis(FOLLOW_MILLIS));
                self.actions.push_back(FailoverAction::Ask { node });
            }
            (Some(_), Some(_)) => {}
            _ => self.follow_by = None,
        }
    }

    /// There is no node in use: find one.
    fn choose(&mut self, now: Mono) {
        let Some(in_force) = self.in_force else {
            // A node earlier in the list gets its chance to answer first: it does, or is called
            // lost, within a second.
            let first = self
                .nodes
                .iter()
                .position(|node| matches!(node.state, NodeState::Unknown | NodeState::Up));
            if let Some(node) = first.filter(|node| self.tip_of(*node).is_some()) {
                self.put_in_use(now, node);
            }
            return;
        };
        let last = self.last_in_use;
        let fitting = self.best(|node, tip| {
            Some(node) == last || tip.hash == in_force.hash || tip.work > in_force.work
        });
        let any = self.best(|_, _| true);
        match (fitting, any) {
            (Some(node), _) => self.put_in_use(now, node),
            (None, Some(node)) => {
                let at = *self.settle_at.get_or_insert(now.plus_millis(SETTLE_MILLIS));
                if now >= at {
                    self.put_in_use(now, node);
                }
            }
            (None, None) => self.settle_at = None,
        }
    }

    fn put_in_use(&mut self, now: Mono, node: usize) {
        let Some(tip) = self.tip_of(node) else { return };
        let is_new_tip = self.in_force.is_none_or(|in_force| in_force.hash != tip.hash);
        (self.in_use, self.last_in_use) = (Some(node), Some(node));
        (self.follow_by, self.settle_at, self.lost_since) = (None, None, None);
        let version = self.version.filter(|_| is_new_tip);
        self.actions.push_back(FailoverAction::Use { node, version });
        if std::mem::take(&mut self.is_lost_told) {
            self.publish(SourceEvent::NodeBack);
        }
        self.put_in_force(now, tip, TipChannel::Poll);
        self.template_by = Some(now.plus_millis(TEMPLATE_MILLIS));
    }

    fn put_in_force(&mut self, now: Mono, tip: NodeTip, channel: TipChannel) {
        let before = self.in_force.replace(tip);
        if before.is_none_or(|before| before.hash != tip.hash) {
            self.template_by = Some(now.plus_millis(TEMPLATE_MILLIS));
            self.publish(SourceEvent::TipNotice { prev_hash: tip.hash, channel });
        }
    }

    /// `node` cannot be used any more, or still cannot.
    fn on_gone(&mut self, now: Mono, node: usize, since_millis: u64) {
        if self.in_use == Some(node) {
            self.in_use = None;
            (self.follow_by, self.template_by) = (None, None);
            let since = now.0.saturating_sub(since_millis.saturating_mul(1_000));
            self.lost_since = Some(Mono(since));
            self.actions.push_back(FailoverAction::Rest { node });
        }
        if self.in_use.is_some() {
            // If it was the one ahead, nobody needs to be followed.
            self.follow(now);
            return;
        }
        self.choose(now);
        self.follow(now);
        // A node that has not been looked at yet may be the one to use.
        let is_undecided = self.nodes.iter().any(|node| node.state == NodeState::Unknown);
        if self.in_use.is_none() && !is_undecided {
            let since = *self.lost_since.get_or_insert(now);
            self.tell_loss(now.micros_since(since) / 1_000);
        }
    }

    /// No node gives templates: say so, each time that one is reported lost.
    fn tell_loss(&mut self, since_millis: u64) {
        self.is_lost_told = true;
        let is_refused = |node: &Node| matches!(node.state, NodeState::Refused { .. });
        let why = self.why();
        if self.nodes.iter().all(is_refused) {
            self.publish(SourceEvent::Refused { why });
        } else {
            self.publish(SourceEvent::NodeLost { since_millis, why });
        }
    }

    /// Why no node is used, in words.
    fn why(&self) -> String {
        let reason = |node: &Node| match &node.state {
            NodeState::Lost { why } | NodeState::Refused { why } => why.clone(),
            NodeState::Up => "its chain has less work than the one in force".to_owned(),
            NodeState::Unknown => "it has not answered yet".to_owned(),
        };
        match self.nodes.as_slice() {
            [only] => reason(only),
            nodes => {
                let all = nodes.iter().map(|node| format!("{}: {}", node.url, reason(node)));
                all.collect::<Vec<_>>().join("; ")
            }
        }
    }

    fn tell_standings(&mut self) {
        let standing = |(number, node): (usize, &Node)| NodeStanding {
            state: node.state.clone(),
            is_in_use: self.in_use == Some(number),
            height: node.tip.map(|tip| tip.height),
        };
        let now: Vec<NodeStanding> = self.nodes.iter().enumerate().map(standing).collect();
        if *now != *self.told {
            self.told = now.into();
            self.publish(SourceEvent::Standings(Arc::clone(&self.told)));
        }
    }

    fn publish(&mut self, event: SourceEvent) {
        self.actions.push_back(FailoverAction::Publish(event));
    }
}
