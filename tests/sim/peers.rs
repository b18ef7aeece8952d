//! The other services: a verifier, a template source with its nodes; and the disk that blocks are
//! kept on.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway::machine::solution::{Block, NodeAnswer};
use gateway::machine::verifier_link::LinkFact;
use work::contract::bytes::HexBytes;
use work::contract::feed::NodeAccess;
use work::contract::verifier::{FromVerifier, PROTO, TemplatePropose, TemplateVerdict, ToVerifier};
use work::{BlockHash, Decision, Template, Tip, Wtxid};

use crate::faults::{MILLI, SECOND};
use crate::process::Fact;
use crate::world::{Core, Event, World};

/// Microseconds of the way to the verifier and back to control, and between two link attempts.
const LINE_MICROS: u64 = 300;
const FACT_MICROS: u64 = 100;
const LINK_TICK: u64 = 200 * MILLI;
const LINK_PAUSE: u64 = 500 * MILLI;

/// The verifier.
#[derive(Default)]
pub struct Verifier {
    known: BTreeSet<Wtxid>,
    /// While it hears and says nothing.
    pub mute_until: u64,
}

/// The nodes that blocks are submitted to: the chain's own, and another one.
pub fn nodes() -> Vec<NodeAccess> {
    let node = |port| NodeAccess { url: format!("http://127.0.0.1:{port}/"), auth: None };
    vec![node(8332), node(8342)]
}

impl World {
    /// A fact for control.
    pub fn tell_control(&mut self, after: u64, fact: Fact) {
        self.after(after, Event::Fact(self.generation, fact));
    }

    /// A fact arrives at control.
    pub fn on_fact_due(&mut self, fact: Fact) {
        if let Some(process) = &mut self.process {
            process.control.facts.push_back(fact);
            self.wake(Core::Control, 5);
        }
    }

    /// The link thread tries to connect.
    pub fn on_link_connect(&mut self) {
        let now = self.now();
        let is_up = self.verifier.mute_until <= now.mono.0;
        let Some(process) = &mut self.process else { return };
        process.link.proposals.clear();
        if !is_up {
            self.tell_control(FACT_MICROS, Fact::Verifier(false));
            return self.after(LINK_PAUSE, Event::LinkConnect(self.generation));
        }
        self.verifier.known.clear();
        process.link.is_connected = true;
        process.link.connection += 1;
        process.link.link.on_connected(now);
        self.after(LINK_TICK, Event::LinkTick(self.generation));
        self.on_link_serve();
    }

    /// The link's connection is gone.
    pub fn lose_link(&mut self, why: &str) {
        let now = self.now();
        let Some(process) = &mut self.process else { return };
        if std::mem::replace(&mut process.link.is_connected, false) {
            self.trace.note(now.mono, format_args!("verifier link lost: {why}"));
            self.tell_control(FACT_MICROS, Fact::Verifier(false));
            self.after(LINK_PAUSE, Event::LinkConnect(self.generation));
        }
    }

    /// The link thread takes proposals and writes lines.
    pub fn on_link_serve(&mut self) {
        let Some(process) = &mut self.process else { return };
        let link = &mut process.link;
        if !link.is_connected {
            return;
        }
        let mut lines = Vec::new();
        loop {
            if let Some(line) = link.link.next_line() {
                lines.push(line);
            }
            match link.proposals.pop_front() {
                Some((job, reason)) => link.link.propose(job, reason),
                None => match link.link.next_line() {
                    Some(line) => lines.push(line),
                    None => break,
                },
            }
        }
        let connection = link.connection;
        for line in lines {
            if let ToVerifier::TemplatePropose(propose) = &line {
                self.checker.on_proposal(propose);
            }
            let event = Event::ToVerifier(self.generation, connection, Box::new(line));
            self.after(LINE_MICROS, event);
        }
    }

    /// A tick of the link thread.
    pub fn on_link_tick(&mut self) {
        let now = self.now();
        let Some(process) = &mut self.process else { return };
        if !process.link.is_connected {
            return;
        }
        if let Err(why) = process.link.link.on_tick(now) {
            return self.lose_link(&why);
        }
        self.on_link_serve();
        self.after(LINK_TICK, Event::LinkTick(self.generation));
    }

    fn is_of_link(&self, connection: u64) -> bool {
        let link = self.process.as_ref().map(|process| &process.link);
        link.is_some_and(|link| link.is_connected && link.connection == connection)
    }

    /// A line arrives at the verifier.
    pub fn on_to_verifier(&mut self, connection: u64, line: ToVerifier) {
        if !self.is_of_link(connection) || self.verifier.mute_until > self.now().mono.0 {
            return;
        }
        match line {
            ToVerifier::Hello { .. } => {
                let line = FromVerifier::HelloAck {
                    proto: PROTO,
                    verifier_id: "sim".into(),
                    policy_version: "1".into(),
                    policy_hash: "sha256:0".into(),
                };
                self.answer(connection, LINE_MICROS, line);
            }
            ToVerifier::TxPut { txs } => {
                self.verifier.known.extend(txs.iter().map(|put| put.wtxid));
            }
            ToVerifier::TemplatePropose(propose) => self.judge(connection, &propose),
            ToVerifier::Cancel { .. } => (),
            ToVerifier::Ping { t } => {
                self.answer(connection, LINE_MICROS, FromVerifier::Pong { t });
            }
        }
    }

    fn answer(&mut self, connection: u64, after: u64, line: FromVerifier) {
        let event = Event::FromVerifier(self.generation, connection, Box::new(line));
        self.after(after, event);
    }

    fn judge(&mut self, connection: u64, propose: &TemplatePropose) {
        if self.faults.needs_transactions && self.chance.one_in(5) {
            self.verifier.known.clear();
        }
        let known = &self.verifier.known;
        let missing: Vec<Wtxid> =
            propose.wtxids.iter().filter(|wtxid| !known.contains(*wtxid)).copied().collect();
        if !missing.is_empty() {
            let propose_id = propose.propose_id;
            let line = FromVerifier::NeedTx { propose_id, wtxids: missing };
            return self.answer(connection, LINE_MICROS, line);
        }
        if self.faults.lost_verdicts && self.chance.one_in(8) {
            return;
        }
        let is_rejected = self.faults.rejects && propose.template_id.0 % 4 == 1;
        let decision = if is_rejected { Decision::Reject } else { Decision::Accept };
        let mut verdict = verdict(propose, decision);
        if self.faults.mismatched_verdicts && self.chance.one_in(6) {
            verdict.body_hash.0[0] ^= 1;
        }
        let mut after = self.chance.between(500, 10_000);
        if self.faults.slow_verdicts && self.chance.one_in(4) {
            after = self.chance.pick(&[49, 50, 51, 400, 3_000, 5_049, 5_051, 9_000]) * MILLI;
        }
        if self.faults.repeated_verdicts && self.chance.one_in(4) {
            let mut again = verdict.clone();
            if self.chance.one_in(2) {
                again.verdict = match decision {
                    Decision::Accept => Decision::Reject,
                    Decision::Reject => Decision::Accept,
                };
            }
            let later = after + self.chance.below(20_000);
            self.answer(connection, later, FromVerifier::TemplateVerdict(Box::new(again)));
        }
        self.answer(connection, after, FromVerifier::TemplateVerdict(Box::new(verdict)));
    }

    /// A line arrives from the verifier.
    pub fn on_from_verifier(&mut self, connection: u64, line: FromVerifier) {
        if !self.is_of_link(connection) {
            return;
        }
        let Some(process) = &mut self.process else { return };
        let fact = match process.link.link.on_line(line) {
            LinkFact::Up { .. } => Fact::Verifier(true),
            LinkFact::Verdict(verdict) => Fact::Verdict(verdict),
            LinkFact::PolicyChanged { .. } => Fact::PolicyChanged,
            LinkFact::Refused(_) | LinkFact::Nothing => return self.on_link_serve(),
            LinkFact::Broken(why) => return self.lose_link(&why),
        };
        self.tell_control(FACT_MICROS, fact);
        self.on_link_serve();
    }

    /// The verifier takes another policy.
    pub fn change_policy(&mut self) {
        let Some(process) = &self.process else { return };
        let connection = process.link.connection;
        let (policy_version, policy_hash) = ("2".into(), "sha256:1".into());
        let line = FromVerifier::PolicyChanged { policy_version, policy_hash };
        self.answer(connection, LINE_MICROS, line);
    }

    /// The source is connected: its nodes, and the newest template.
    pub fn on_source_back(&mut self) {
        self.is_source_up = true;
        self.tell_control(FACT_MICROS, Fact::SourceConnected(nodes()));
        let now = self.now();
        let newest = self.node.newest();
        let template = newest.unwrap_or_else(|| self.node.template(now, true, &mut self.chance));
        self.tell_control(FACT_MICROS + 1, Fact::Template(template));
    }

    /// A template goes to control: late, twice or out of order if that is a fault of this world.
    pub fn offer(&mut self, template: Arc<Template>) {
        if !self.is_source_up {
            return;
        }
        let mut after = 1_000;
        if self.faults.disordered_templates && self.chance.one_in(3) {
            after += self.chance.below(SECOND);
            let again = after + self.chance.below(SECOND);
            let event = Event::Offer(self.source_losses, Arc::clone(&template));
            self.after(again, event);
        }
        self.after(after, Event::Offer(self.source_losses, template));
    }

    /// A template arrives at control, unless it was sent on a connection that is gone.
    pub fn on_offer(&mut self, source_losses: u64, template: Arc<Template>) {
        if source_losses == self.source_losses {
            self.tell_control(0, Fact::Template(template));
        }
    }

    /// The chain has another tip: a coinbase-only template at once, a full one a little later.
    pub fn announce_tip(&mut self) {
        let now = self.now();
        let template = self.node.template(now, false, &mut self.chance);
        let tip = template.tip;
        self.offer(template);
        self.after(40 * MILLI, Event::FullTemplate(tip));
    }

    pub fn on_full_template(&mut self, tip: Option<Tip>) {
        if tip.is_none_or(|tip| tip == self.node.tip()) {
            let template = self.node.template(self.now(), true, &mut self.chance);
            self.offer(template);
        }
    }

    /// A block goes to a node.
    pub fn submit(&mut self, node: NodeAccess, block: Block) {
        let after = self.chance.between(300, 3_000);
        self.after(after, Event::Submit(self.generation, node, block));
    }

    /// A block is kept on disk until it is settled.
    pub fn store(&mut self, block: &Block) {
        let bytes = block_bytes(block);
        self.checker.ledger.stored.insert(block.hash().0);
        self.disk.insert(block.hash(), bytes.into());
    }

    pub fn unstore(&mut self, hash: BlockHash) {
        self.checker.ledger.stored.remove(&hash.0);
        self.disk.remove(&hash);
    }

    /// A block arrives at a node.
    pub fn on_submit(&mut self, node: NodeAccess, block: &Block) {
        let now = self.now();
        let hash = block.hash();
        let is_first = node == nodes()[0];
        let bytes = block_bytes(block);
        let answer = if self.faults.deaf_nodes && self.chance.one_in(2) {
            NodeAnswer::Unreachable("refused".into())
        } else if !is_first {
            NodeAnswer::Inconclusive
        } else {
            let is_orphaned = self.faults.orphaned_blocks && self.chance.one_in(3);
            let (is_tip, answer) = self.node.submit(now, &bytes, is_orphaned);
            if self.node.blocks.last() == Some(&hash) {
                self.checker.ledger.submitted.insert(hash.0);
            }
            if is_tip {
                self.announce_tip();
            }
            answer
        };
        self.trace.note(now.mono, format_args!("block {hash} at {}: {answer:?}", node.url));
        self.tell_control(FACT_MICROS, Fact::NodeAnswer(node, hash, answer));
    }
}

fn block_bytes(block: &Block) -> Vec<u8> {
    match block {
        Block::Found(solution) => {
            work::block::assemble(&solution.header, &solution.job, &solution.extranonce).unwrap()
        }
        Block::Stored { bytes, .. } => bytes.to_vec(),
    }
}

fn verdict(propose: &TemplatePropose, decision: Decision) -> TemplateVerdict {
    let coinbase = &propose.coinbase;
    let body_hash = work::job::body_hash(
        &coinbase.prefix.0,
        &coinbase.suffix.0,
        &propose.merkle_path,
        propose.version,
        propose.height,
        coinbase.extranonce_len,
    );
    let tip =
        Tip { prev_hash: propose.prev_hash, nbits: propose.nbits, min_ntime: propose.min_time };
    TemplateVerdict {
        propose_id: propose.propose_id,
        template_id: propose.template_id,
        verdict: decision,
        reason_codes: Vec::new(),
        details: Vec::new(),
        not_evaluated: Vec::new(),
        policy_version: "1".into(),
        policy_hash: "sha256:0".into(),
        body_hash: HexBytes(body_hash.to_vec()),
        tip_hash: HexBytes(work::job::tip_hash(&tip).to_vec()),
        elapsed_us: 1,
    }
}
