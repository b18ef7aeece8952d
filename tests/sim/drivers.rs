//! The drivers: they feed the machines and do what these say, in the order of `src/drive`: bell,
//! deadline, bytes; blocks, entries, wire, flow. They decide nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gateway::drive::notes::{Origin, of_note};
use gateway::limits::{BOARD_RING, CATCH_UPS_PER_TURN, COMPLETIONS_PER_TURN, SOLUTION_RING};
use gateway::machine::board::BoardUpdate;
use gateway::machine::control::{Action, Note};
use gateway::machine::output::{ChannelKey, ConnectionId};
use gateway::machine::refusals::on_lost;
use gateway::machine::shard::Shard;
use gateway::machine::solution::{Block, SubmitAction};
use gateway::machine::{Entry, Flow, Output};
use gateway::metrics::shard as counter;
use gateway::reason::{Close, CloseCause, Reason};
use work::payout::Network;
use work::{Difficulty, Now};

use crate::checkers::{Rule, Wire, WireView};
use crate::faults::{MILLI, Plant};
use crate::net::{Pipe, Who};
use crate::process::{Fact, LinkThread, NetEvent, Process, ShardCore, TEMPLATE_AGE_MILLIS};
use crate::verdicts::Step;
use crate::world::{Core, Event, World};

/// Microseconds that a turn takes.
const TURN_MICROS: u64 = 20;
/// Turns in a row after which a core that always wants another is said not to rest.
const RESTLESS_TURNS: u64 = 3_000;

/// The counters of a shard that tell what a step did.
struct Before {
    accepted: u64,
    refused: Vec<u64>,
    jobs: u64,
    targets: u64,
    closed: usize,
    credit: usize,
}

impl World {
    /// One turn of a core, and when it runs next.
    pub fn turn(&mut self, core: Core) {
        let Some(mut process) = self.process.take() else { return };
        let did = match core {
            Core::Shard(number) => self.shard_turn(&mut process.shards[number], number),
            Core::Control => self.control_turn(&mut process),
            Core::Forwarder => self.forwarder_turn(&mut process),
        };
        let now = self.now();
        let did = did || self.is_restless(core);
        let deadline = match core {
            Core::Shard(number) => process.shards[number].shard.deadline(),
            Core::Control => {
                let control = &process.control;
                let deadlines = [control.control.deadline(), control.submissions.deadline()];
                deadlines.into_iter().flatten().min()
            }
            Core::Forwarder => {
                let core = &process.forwarder;
                core.forwarder.deadline().into_iter().chain([core.look_at]).min()
            }
        };
        let is_waiting = core == Core::Forwarder && process.forwarder.doing.is_some();
        self.process = Some(process);
        if is_waiting {
            // The core waits for its disk.
            self.wake_of(core).restless = 0;
            return;
        }
        let is_overdue = deadline.is_some_and(|at| at <= now.mono);
        let wake = self.wake_of(core);
        wake.restless = if did || is_overdue { wake.restless + 1 } else { 0 };
        let is_restless = wake.restless > RESTLESS_TURNS;
        self.checker.hold(!is_restless, Rule::C15Rest, || {
            format!("{core:?} ran {RESTLESS_TURNS} turns without a rest")
        });
        if did || is_overdue {
            self.wake(core, TURN_MICROS);
        } else if let Some(at) = deadline {
            self.wake(core, at.micros_since(now.mono));
        }
    }

    fn is_restless(&mut self, core: Core) -> bool {
        core == Core::Control && self.may_plant(Plant::RestlessCore)
    }

    fn shard_turn(&mut self, core: &mut ShardCore, number: usize) -> bool {
        core.shard.on_turn();
        core.shard.on_turn();
        let mut did = self.take_bells(core, number);
        let now = self.now();
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some((id, close)) = core.shard.next_overdue(now) else { break };
            self.end(core, id, close, true);
            did = true;
        }
        core.shard.on_tick(now);
        for _ in 0..CATCH_UPS_PER_TURN {
            let Some(id) = core.shard.next_ready(now, core.entries.credit()) else { break };
            self.visit(core, id, |shard, out| shard.step(id, now, out));
            did = true;
        }
        did |= self.take_events(core);
        did |= self.hand_over(core);
        did
    }

    fn take_events(&mut self, core: &mut ShardCore) -> bool {
        let mut did = false;
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some(event) = core.events.pop_front() else { break };
            self.on_net_event(core, event);
            did = true;
        }
        did
    }

    fn take_bells(&mut self, core: &mut ShardCore, number: usize) -> bool {
        let now = self.now();
        let mut did = false;
        if self.may_plant(Plant::DeafShard) && self.is_calm {
            return false;
        }
        if self.may_plant(Plant::BoardReordered) {
            // It takes nothing until there are two to swap.
            let is_work =
                |(update, _): &(BoardUpdate, _)| matches!(update, BoardUpdate::Publish { .. });
            self.has_planted = core.board.swap_newest(is_work);
            return false;
        }
        for _ in 0..BOARD_RING {
            let Some((update, publication)) = core.board.pop() else { break };
            if update == BoardUpdate::Expire {
                // What miners sent before the end is looked at first: it may be a block.
                self.take_events(core);
            }
            self.checker.on_board(now, number, &update, publication);
            core.shard.on_board(now, update);
            did = true;
        }
        if core.durable != core.durable_read {
            core.durable_read = core.durable;
            core.shard.on_durable(now, core.durable);
            did = true;
        }
        if self.is_draining && !std::mem::replace(&mut core.is_draining, true) {
            self.take_events(core);
            core.shard.on_drain();
            did = true;
        }
        did
    }

    fn on_net_event(&mut self, core: &mut ShardCore, event: NetEvent) {
        let now = self.now();
        match event {
            NetEvent::Accepted(wire) => self.on_accepted(core, wire),
            NetEvent::Received(wire, mut bytes) => {
                let Some(id) = self.tenant(core, wire) else { return };
                if let Some(view) = self.checker.wires.get_mut(&wire) {
                    view.delivered += bytes.len() as u64;
                }
                self.visit(core, id, |shard, out| shard.on_bytes(id, now, &mut bytes, out));
            }
            NetEvent::Closed(wire) => {
                let Some(id) = self.tenant(core, wire) else { return };
                self.end(core, id, CloseCause::PeerGone.into(), false);
            }
            NetEvent::Sent(wire) => {
                self.pipes[wire].is_sent = false;
                let Some(id) = self.tenant(core, wire) else { return };
                self.visit(core, id, |shard, out| shard.on_sent(id, now, out));
            }
        }
    }

    fn on_accepted(&mut self, core: &mut ShardCore, wire: Wire) {
        if self.pipes[wire].state == crate::net::State::Gone {
            return;
        }
        let free = core.tenants.iter().position(Option::is_none);
        let slot = free.unwrap_or(core.tenants.len());
        core.tenancy += 1;
        let id = ConnectionId((core.tenancy << 32) | slot as u64);
        let peer = self.address_of(wire);
        if core.shard.on_accept(self.now(), id, peer).is_err() {
            return self.close_down(wire, false);
        }
        if core.tenants.len() == slot {
            core.tenants.push(None);
        }
        core.tenants[slot] = Some((id, wire));
        let view = self.new_view(wire);
        self.checker.on_admitted(wire, view);
        self.on_admitted(wire, id);
    }

    /// What addresses fail at is held against them: each has its own.
    fn address_of(&self, wire: Wire) -> IpAddr {
        let (network, host) = match self.pipes[wire].who {
            Who::Miner(number) => (0, number),
            Who::Wild(number) => (1, number),
            Who::Garbage => (2, wire % 200),
        };
        IpAddr::V4(Ipv4Addr::new(10, 0, network, host as u8))
    }

    fn new_view(&self, wire: Wire) -> WireView {
        let Pipe { shard, who, .. } = self.pipes[wire];
        let Who::Miner(number) = who else { return WireView { shard, ..WireView::default() } };
        let peer = &self.peers[number];
        WireView {
            shard,
            is_tracked: true,
            name: peer.name.clone(),
            may_mine: peer.may_mine,
            first_sequence: peer.miner.config().first_sequence_number,
            ..WireView::default()
        }
    }

    /// Run a step of a shard's machine, show it to the checkers, and do what it says.
    fn visit(
        &mut self,
        core: &mut ShardCore,
        id: ConnectionId,
        step: impl FnOnce(&mut Shard, &mut Output) -> Flow,
    ) {
        let Some((tenant, wire)) = core.tenants.get(id.slot()).copied().flatten() else { return };
        if tenant != id {
            return;
        }
        let before = self.begin(core);
        let flow = step(&mut core.shard, &mut core.out);
        self.alter(&mut core.out);
        self.show(core, wire, &before);
        let held = core.shard.connection_bytes(id) + self.hoarded();
        self.checker.on_memory(wire, held);
        self.apply(core, id, wire, flow);
    }

    /// Plants in what a step says.
    fn alter(&self, out: &mut Output) {
        for entry in &mut out.entries {
            match entry {
                Entry::Share(record) if self.may_plant(Plant::RecordAltered) => record.nonce ^= 1,
                Entry::Share(record) if self.may_plant(Plant::ShareTooDear) => {
                    record.difficulty = Difficulty::at_most(record.difficulty.as_f64() / 2.0);
                }
                Entry::ShareOfNewWorker { record, .. } if self.may_plant(Plant::WorkerLost) => {
                    *entry = Entry::Share(*record);
                }
                _ => (),
            }
        }
    }

    fn hoarded(&mut self) -> usize {
        if self.may_plant(Plant::Hoard) { 1 << 20 } else { 0 }
    }

    fn begin(&mut self, core: &mut ShardCore) -> Before {
        let lie = if self.may_plant(Plant::CreditTooHigh) { 4 } else { 0 };
        let credit = core.entries.credit();
        core.out.begin(credit + lie, Vec::new());
        let counters = &core.shard.state.counters;
        Before {
            accepted: counters.read(counter::SHARES),
            refused: Reason::ALL
                .iter()
                .map(|reason| counters.read(counter::SHARES + 1 + *reason as usize))
                .collect(),
            jobs: counters.read(counter::JOBS_SENT),
            targets: counters.read(counter::SET_TARGETS),
            closed: core.shard.state.closed.len(),
            credit,
        }
    }

    fn show(&mut self, core: &mut ShardCore, wire: Wire, before: &Before) {
        let now = self.now();
        let counters = &core.shard.state.counters;
        let refused = Reason::ALL.iter().zip(&before.refused).map(|(reason, before)| {
            (*reason, counters.read(counter::SHARES + 1 + *reason as usize) - before)
        });
        let step = Step {
            now,
            wire,
            credit: before.credit,
            entries: &core.out.entries,
            solutions: &core.out.solutions,
            accepted: counters.read(counter::SHARES) - before.accepted,
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            jobs: counters.read(counter::JOBS_SENT) - before.jobs,
            targets: counters.read(counter::SET_TARGETS) - before.targets,
        };
        self.stats.targets += step.targets;
        for entry in step.entries {
            self.stats.channels += u64::from(matches!(entry, Entry::Opened { .. }));
            if let Entry::Share(record) | Entry::ShareOfNewWorker { record, .. } = entry {
                self.stats.shares += 1;
                let (sequence, hash) = (record.sequence, record.share_hash);
                self.trace
                    .note(now.mono, format_args!("wire {wire} share {sequence} accepted {hash}"));
            }
        }
        for (reason, count) in &step.refused {
            self.stats.refused += count;
            self.trace.note(now.mono, format_args!("wire {wire} {count} shares: {reason}"));
        }
        // Ended channels before and after: a step may end one, open one, and end that, too.
        let closed: Vec<ChannelKey> =
            core.shard.state.closed.iter().skip(before.closed).map(|c| c.channel).collect();
        closed.iter().for_each(|key| self.checker.on_closed(*key));
        self.checker.on_step(&step);
        closed.iter().for_each(|key| self.checker.on_closed(*key));
    }

    /// Blocks, entries, wire, flow.
    fn apply(&mut self, core: &mut ShardCore, id: ConnectionId, wire: Wire, flow: Flow) {
        let now = self.now();
        for solution in core.out.solutions.drain(..) {
            self.stats.blocks += 1;
            self.trace.note(now.mono, format_args!("wire {wire} block {}", solution.hash));
            core.solutions_waiting.push(solution);
        }
        for entry in std::mem::take(&mut core.out.entries) {
            let sent = core.entries.send(entry);
            self.checker.hold(sent, Rule::C7Ring, || {
                format!("wire {wire}: the share ring had no room for an entry")
            });
        }
        self.tell(core);
        let bytes = std::mem::take(&mut core.out.wire);
        if !bytes.is_empty() {
            self.send_down(wire, bytes);
        }
        match flow {
            Flow::Close(close) => self.end(core, id, close, true),
            Flow::Wait if !self.pipes[wire].is_paused => self.set_paused(wire, true),
            Flow::Continue if self.pipes[wire].is_paused => self.set_paused(wire, false),
            _ => (),
        }
        if self.may_plant(Plant::AckEarly) && !core.entries.is_empty() {
            let sequence = core.durable_read + 1;
            core.shard.on_durable(now, sequence);
            self.wake_of(Core::Forwarder).slow_until = now.mono.plus_millis(500);
        }
    }

    /// End a connection on the shard's side.
    fn end(&mut self, core: &mut ShardCore, id: ConnectionId, close: Close, gracefully: bool) {
        let Some((tenant, wire)) = core.tenants.get(id.slot()).copied().flatten() else { return };
        if tenant != id {
            return;
        }
        let now = self.now();
        // Bytes that waited for their turn or for credit may hold a block.
        loop {
            let before = self.begin(core);
            let has_more = core.shard.on_last_look(id, now, &mut core.out);
            self.show(core, wire, &before);
            self.apply(core, id, wire, Flow::Continue);
            if !has_more {
                break;
            }
        }
        core.tenants[id.slot()] = None;
        let closed = core.shard.state.closed.len();
        if self.may_plant(Plant::SilentEnd) {
            self.has_planted = true;
        } else {
            core.shard.on_gone(now, id, close);
        }
        core.ends += 1;
        for ended in core.shard.state.closed.iter().skip(closed) {
            self.checker.on_closed(ended.channel);
        }
        let counted: u64 = (0..Close::COUNT)
            .map(|index| core.shard.state.counters.read(counter::CLOSES + index))
            .sum();
        self.checker.hold(counted == core.ends, Rule::C9Close, || {
            format!("{} connections ended and {counted} reasons were counted", core.ends)
        });
        self.trace.note(now.mono, format_args!("wire {wire} closed: {}", close.code()));
        let is_faulty = self.pipes[wire].is_faulty || self.pipes[wire].is_stuck(now.mono);
        self.checker.on_end(wire, close, is_faulty);
        self.close_down(wire, gracefully && !self.is_draining);
    }

    fn hand_over(&mut self, core: &mut ShardCore) -> bool {
        let mut did = false;
        while !core.solutions_waiting.is_empty() && core.solutions.credit() > 0 {
            let solution = core.solutions_waiting.remove(0);
            did = true;
            if self.may_plant(Plant::SolutionDropped) {
                self.has_planted = true;
                continue;
            }
            let sent = core.solutions.send(solution);
            self.checker.hold(sent, Rule::C7Ring, || "the solution ring overflows".into());
        }
        if did {
            self.wake(Core::Control, 5);
        }
        while core.entries.credit() > 0 {
            let Some(channel) = core.shard.state.closed.pop_front() else { break };
            let sent = core.entries.send(Entry::Closed(channel));
            self.checker.hold(sent, Rule::C7Ring, || "the share ring overflows".into());
        }
        self.tell(core);
        if !core.entries.is_empty() || !core.reports.is_empty() {
            self.wake(Core::Forwarder, 5);
        }
        did
    }

    /// What may be lost, to the forwarder.
    fn tell(&mut self, core: &mut ShardCore) {
        let state = &mut core.shard.state;
        while let Some(report) = state.reports.pop() {
            if core.reports.credit() == 0 {
                on_lost(&report, &mut state.counters);
            } else {
                let _ = core.reports.send(report);
            }
        }
    }

    fn control_turn(&mut self, process: &mut Process) -> bool {
        let mut did = false;
        for shard in &mut process.shards {
            for _ in 0..SOLUTION_RING {
                let Some(solution) = shard.solutions.pop() else { break };
                let block = Block::Found(Arc::new(solution));
                if process.control.submissions.on_block(self.now(), block) {
                    process.control.control.on_block_found();
                }
                did = true;
            }
        }
        while let Some(fact) = process.control.facts.pop_front() {
            self.on_fact(process, fact);
            did = true;
            self.act(process);
        }
        let now = self.now();
        process.control.control.on_deadline(now);
        process.control.submissions.on_deadline(now);
        did |= self.act(process);
        did
    }

    fn on_fact(&mut self, process: &mut Process, fact: Fact) {
        let now = self.now();
        let (control, submissions) =
            (&mut process.control.control, &mut process.control.submissions);
        match fact {
            Fact::Template(template) => {
                self.source_lost_at = None;
                control.on_template(now, template);
            }
            Fact::SourceConnected(nodes) => {
                self.disk_nodes.clone_from(&nodes);
                self.checker.forget_refusals();
                control.on_source_connected();
                control.on_source_network(Network::Regtest);
                submissions.on_nodes(now, nodes);
            }
            Fact::SourceLost => {
                self.source_lost_at.get_or_insert(now.mono);
                control.on_source(now, false);
            }
            Fact::Verifier(up) => control.on_verifier(now, up),
            Fact::Verdict(verdict) => {
                self.checker.on_verdict(&verdict);
                control.on_verdict(now, verdict);
            }
            Fact::PolicyChanged => {
                self.checker.forget_refusals();
                control.on_policy_changed(now);
            }
            Fact::NodeAnswer(node, hash, answer) => {
                submissions.on_answer(now, &node, hash, &answer);
            }
        }
    }

    fn act(&mut self, process: &mut Process) -> bool {
        let now = self.now();
        let mut did = false;
        while let Some(action) = process.control.submissions.next_action() {
            did = true;
            match action {
                SubmitAction::Submit { node, block } => self.submit(node, block),
                SubmitAction::Store(block) => self.store(&block),
                SubmitAction::Settled { hash, .. } => self.unstore(hash),
            }
        }
        while let Some(action) = process.control.control.next_action() {
            did = true;
            match action {
                Action::Propose { job, reason } => {
                    self.last_proposed = Some(Arc::clone(&job));
                    if process.link.proposals.len() < LinkThread::PROPOSALS_MAX {
                        process.link.proposals.push_back((job, reason));
                        self.after(5, Event::LinkServe(self.generation));
                    }
                }
                Action::Board(update) => self.publish(process, now, &update),
                Action::Note(note) => {
                    self.note(now, &note);
                    if let Some(told) = of_note(now, Some(Origin::Node), &note) {
                        let _ = process.forwarder.told.send(told);
                        self.wake(Core::Forwarder, 5);
                    }
                }
            }
        }
        did
    }

    fn publish(&mut self, process: &mut Process, now: Now, update: &BoardUpdate) {
        let publication = match update {
            BoardUpdate::Publish { job, .. } => {
                let is_permitted = self.faults.permits && !process.control.control.is_verifier_up();
                Some(self.checker.on_publish(job, is_permitted))
            }
            BoardUpdate::Resume => {
                self.checker.on_resume(self.noted_tip);
                None
            }
            BoardUpdate::Hold | BoardUpdate::Expire => None,
        };
        if matches!(update, BoardUpdate::Publish { .. }) {
            self.stats.publications += 1;
            let age = self.source_lost_at.map_or(0, |lost| now.mono.micros_since(lost));
            self.checker.hold(age < TEMPLATE_AGE_MILLIS * MILLI, Rule::C1Verdict, || {
                format!("work is published {age} us after its source was lost")
            });
        }
        for (number, shard) in process.shards.iter_mut().enumerate() {
            let sent = shard.board.send((update.clone(), publication));
            self.checker.hold(sent, Rule::C7Ring, || "a board ring overflows".into());
            self.wake(Core::Shard(number), 5);
        }
        if self.may_plant(Plant::UnverifiedJob)
            && let Some(job) = self.last_proposed.clone()
        {
            let tip_seen = now.mono;
            let unverified = BoardUpdate::Publish { job, tip_seen };
            let _ = process.shards[0].board.send((unverified, None));
        }
    }

    fn note(&mut self, now: Now, note: &Note) {
        match note {
            Note::TipSeen { prev_hash, .. } => {
                self.stats.tips += 1;
                self.noted_tip = Some(*prev_hash);
                self.trace.note(now.mono, format_args!("tip {prev_hash}"));
            }
            Note::Judged { verdict, .. } => {
                let (id, decision) = (verdict.template_id.0, verdict.decision);
                self.trace.note(now.mono, format_args!("template {id}: {decision:?}"));
            }
            other => self.trace.note(now.mono, format_args!("{other:?}")),
        }
    }
}
