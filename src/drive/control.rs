//! The control core: takes facts from its links and blocks from the shards, and does what the
//! control machine and the submissions machine say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::Sender as Queue;
use crossbeam::queue::ArrayQueue;
use rg_ring::{Bell, Receiver, Sender};
use source::feed::FeedEvent;
use tracing::{error, info, warn};
use work::contract::feed::NodeAccess;
use work::{BlockHash, Mono, Verdict};

use super::clock::Clock;
use super::nodes::Nodes;
use super::notes::{self, Origin};
use super::verifier::Proposal;
use super::wait;
use crate::limits::{CONTROL_FACTS_MAX, SOLUTION_RING, SUBMIT_DRAIN_MILLIS};
use crate::machine::Solution;
use crate::machine::board::BoardUpdate;
use crate::machine::control::{Action, Control, Note};
use crate::machine::solution::{Block as FoundBlock, NodeAnswer, Submissions, SubmitAction};
use crate::machine::told::Told;
use crate::metrics::{Block, control as counter};

/// What the control core hears from ordinary threads.
#[derive(Debug)]
pub enum Fact {
    /// From the template source.
    Feed(FeedEvent),
    /// The verifier's link is up or down.
    Verifier {
        /// Which.
        up: bool,
    },
    /// A ruling.
    Verdict(Verdict),
    /// The verifier has another policy.
    PolicyChanged,
    /// A node has answered to a block.
    NodeAnswer {
        /// Which node.
        node: NodeAccess,
        /// Which block.
        hash: BlockHash,
        /// What it said.
        answer: NodeAnswer,
    },
}

/// The way to the control core for ordinary threads.
#[derive(Clone)]
pub struct Facts {
    queue: Arc<ArrayQueue<Fact>>,
    bell: Bell,
}

impl Facts {
    /// A queue that rings `bell`.
    pub fn new(bell: Bell) -> Facts {
        Facts { queue: Arc::new(ArrayQueue::new(CONTROL_FACTS_MAX)), bell }
    }

    /// Put a fact. Waits if the queue is full: the control core is then far behind.
    pub fn put(&self, fact: Fact) {
        let mut fact = fact;
        while let Err(full) = self.queue.push(fact) {
            fact = full;
            self.bell.ring();
            std::thread::yield_now();
        }
        self.bell.ring();
    }
}

/// What connects control to the rest.
pub struct ControlPorts {
    /// From ordinary threads.
    pub facts: Facts,
    /// To each shard, and its bell.
    pub boards: Vec<Sender<BoardUpdate>>,
    /// From each shard.
    pub solutions: Vec<Receiver<Solution>>,
    /// To the verifier's link.
    pub proposals: Queue<Proposal>,
    /// Threads for blocks.
    pub nodes: Nodes,
    /// Events, to the forwarder; they may be lost. Without it none are told.
    pub notes: Option<Sender<Told>>,
    /// Wakes this core.
    pub bell: Bell,
    /// What others see.
    pub block: Arc<Block<{ counter::CELLS }>>,
    /// The process is to end.
    pub stop: Arc<AtomicBool>,
}

/// What the last start left on disk.
pub struct Stored {
    /// Nodes that take blocks.
    pub nodes: Vec<NodeAccess>,
    /// Blocks that were not settled.
    pub blocks: Vec<FoundBlock>,
}

struct Driver {
    control: Control,
    submissions: Submissions,
    ports: ControlPorts,
    clock: Clock,
    /// Blocks that were found and are to be told when they are on their way.
    found: Vec<Arc<Solution>>,
    /// Where templates come from.
    origin: Option<Origin>,
    /// When the end comes even if a node has not answered.
    stop_at: Option<Mono>,
}

/// Run control on this thread's executor until it is told to stop.
pub async fn run(control: Control, stored: Stored, ports: ControlPorts, clock: Clock) {
    let submissions = Submissions::default();
    let (found, origin, stop_at) = (Vec::new(), None, None);
    let mut driver = Driver { control, submissions, ports, clock, found, origin, stop_at };
    driver.submissions.on_nodes(clock.now(), stored.nodes);
    for block in stored.blocks {
        info!(hash = %block.hash(), "a block of the last start is submitted again");
        driver.submissions.on_block(clock.now(), block);
    }
    loop {
        driver.ports.bell.awake();
        if driver.turn() {
            continue;
        }
        if driver.is_done() {
            driver.ports.nodes.finish();
            return;
        }
        driver.ports.bell.prepare_sleep();
        if driver.turn() {
            continue;
        }
        let deadlines = [driver.control.deadline(), driver.submissions.deadline(), driver.stop_at];
        let deadline = deadlines.into_iter().flatten().min();
        wait::sleep(&driver.ports.bell, driver.clock.now(), deadline);
    }
}

impl Driver {
    fn turn(&mut self) -> bool {
        let mut did = self.take_solutions();
        for _ in 0..CONTROL_FACTS_MAX {
            let Some(fact) = self.ports.facts.queue.pop() else { break };
            self.on_fact(fact);
            did = true;
            self.act();
        }
        let now = self.clock.now();
        self.control.on_deadline(now);
        self.submissions.on_deadline(now);
        did |= self.act();
        for solution in std::mem::take(&mut self.found) {
            self.tell(notes::of_block(now.unix, &solution));
        }
        self.ports.block.publish(&self.control.counters);
        did
    }

    /// Whether the end has come: asked to stop, the shards' last blocks taken, and no node's
    /// answer awaited.
    fn is_done(&mut self) -> bool {
        if !self.ports.stop.load(Ordering::Relaxed) {
            return false;
        }
        let now = self.clock.now().mono;
        let stop_at = *self.stop_at.get_or_insert(now.plus_millis(SUBMIT_DRAIN_MILLIS));
        let is_empty = self.ports.solutions.iter().all(|ring| ring.is_empty());
        (is_empty && !self.submissions.is_busy()) || now >= stop_at
    }

    /// Blocks first.
    fn take_solutions(&mut self) -> bool {
        let mut did = false;
        for ring in &mut self.ports.solutions {
            for _ in 0..SOLUTION_RING {
                let Some(solution) = ring.pop() else { break };
                let solution = Arc::new(solution);
                let block = FoundBlock::Found(Arc::clone(&solution));
                if self.submissions.on_block(self.clock.now(), block) {
                    self.control.on_block_found();
                    self.found.push(solution);
                }
                did = true;
            }
        }
        did
    }

    fn on_fact(&mut self, fact: Fact) {
        let now = self.clock.now();
        match fact {
            Fact::Feed(event) => self.on_feed(event),
            Fact::Verifier { up } => self.control.on_verifier(now, up),
            Fact::Verdict(verdict) => self.control.on_verdict(now, verdict),
            Fact::PolicyChanged => self.control.on_policy_changed(now),
            Fact::NodeAnswer { node, hash, answer } => {
                let cell = match answer {
                    NodeAnswer::Accepted | NodeAnswer::Duplicate | NodeAnswer::Inconclusive => {
                        counter::SUBMITS_ACCEPTED
                    }
                    NodeAnswer::Rejected(_) => counter::SUBMITS_REJECTED,
                    NodeAnswer::Unreachable(_) => counter::SUBMITS_RETRIED,
                };
                self.control.counters.add(cell, 1);
                self.submissions.on_answer(now, &node, hash, &answer);
                self.tell(notes::of_answer(now.unix, &node, hash, &answer));
            }
        }
    }

    fn on_feed(&mut self, event: FeedEvent) {
        let now = self.clock.now();
        match event {
            FeedEvent::Connected => self.control.on_source_connected(),
            FeedEvent::Source { network, demo } => {
                info!(%network, demo, "template source");
                self.origin = Some(if demo { Origin::Demo } else { Origin::Node });
                self.control.on_source_network(network);
            }
            FeedEvent::Nodes(_) if self.control.is_source_refused() => (),
            FeedEvent::Nodes(nodes) => {
                self.ports.nodes.remember(nodes.clone());
                self.submissions.on_nodes(now, nodes);
            }
            FeedEvent::Template(template) => self.control.on_template(now, template),
            FeedEvent::NodeLost { since_millis } => {
                // The source says so with every heartbeat.
                if self.control.is_source_up() {
                    warn!(since_millis, "the template source has lost its node");
                }
                self.control.on_source(now, false);
            }
            FeedEvent::Disconnected { reason } => {
                warn!(reason, "the template source is gone");
                self.control.on_source(now, false);
            }
        }
    }

    /// Do what the machines say; returns whether there was anything.
    fn act(&mut self) -> bool {
        let mut did = false;
        while let Some(action) = self.submissions.next_action() {
            did = true;
            match action {
                SubmitAction::Submit { node, block } => self.ports.nodes.submit(node, block),
                SubmitAction::Store(block) => self.ports.nodes.store(block),
                SubmitAction::Settled { hash, accepted } => {
                    self.ports.nodes.settle(hash, accepted);
                }
            }
        }
        while let Some(action) = self.control.next_action() {
            did = true;
            match action {
                Action::Propose { job, reason } => {
                    // A full queue means that the link is down or hangs; when it is up again,
                    // control proposes anew.
                    let _ = self.ports.proposals.try_send(Proposal { job, reason });
                }
                Action::Board(update) => self.publish(&update),
                Action::Note(note) => {
                    log(&note);
                    let told = notes::of_note(self.clock.now(), self.origin, &note);
                    told.into_iter().for_each(|told| self.tell(told));
                }
            }
        }
        did
    }

    /// An event to the log. Control waits for nobody: without room it is counted.
    fn tell(&mut self, told: Told) {
        let Some(ring) = &mut self.ports.notes else { return };
        match ring.try_send(told) {
            Ok(()) => ring.ring_bell(),
            Err(_) => self.control.counters.add(counter::EVENTS_UNRECORDED, 1),
        }
    }

    fn publish(&mut self, update: &BoardUpdate) {
        // At the end, shards are gone before control.
        for board in self.ports.boards.iter_mut().filter(|board| !board.is_reader_gone()) {
            let sent = board.try_send(update.clone());
            assert!(sent.is_ok(), "a shard has taken no board update for minutes: it has hung");
            board.ring_bell();
        }
    }
}

fn log(note: &Note) {
    match note {
        Note::TipSeen { prev_hash, height } => info!(%prev_hash, height, "new tip"),
        Note::Switched { job, micros, late, .. } => {
            info!(template = job.template.id.0, micros, late, "miners are switched");
        }
        Note::Judged { verdict, micros, enforced, .. } => info!(
            template = verdict.template_id.0,
            decision = ?verdict.decision,
            reasons = ?verdict.reason_codes,
            micros,
            enforced,
            "verdict"
        ),
        Note::Mismatch { template_id } => error!(
            template = template_id.0,
            "a verdict is bound to other bytes than ours and is not obeyed"
        ),
        Note::SwitchTimeout { prev_hash, .. } => error!(
            %prev_hash,
            "no verified work for this tip within the hold: all channels are ended \
             (prevhash_switch_timeout)"
        ),
        Note::SourceExpired => error!("no template source for too long: all channels are ended"),
        Note::WrongChain { network, expected } => error!(
            %network,
            %expected,
            "the template source is on another chain; its templates are not used"
        ),
        Note::Unbuildable { template_id, why } => {
            error!(template = template_id.0, why, "no coinbase can be built");
        }
    }
}
