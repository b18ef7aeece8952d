//! One pinned core with its miners (D16): one task walks bells, deadlines and completions, feeds
//! the machine, and does what it says.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rg_ring::{Bell, Event, Receiver, Sender, Sequence, Token, Uring, UringLimits};
use tracing::{debug, error, info, warn};

use super::clock::Clock;
use super::wait;
use crate::limits::{
    BOARD_RING, CATCH_UPS_PER_TURN, COMPLETIONS_PER_TURN, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS,
    SOLUTIONS_WAITING_MAX,
};
use crate::machine::board::BoardUpdate;
use crate::machine::output::ConnectionId;
use crate::machine::refusals::on_lost;
use crate::machine::shard::Shard;
use crate::machine::{Entry, Flow, Output, Report, Solution};
use crate::metrics::{Block, shard as counter};
use crate::reason::{Close, CloseCause};

/// Completions after which the clock is read again within a turn.
const EVENTS_PER_CLOCK: usize = 16;

/// What connects a shard to the rest.
pub struct ShardPorts {
    /// From control.
    pub board: Receiver<BoardUpdate>,
    /// To control.
    pub solutions: Sender<Solution>,
    /// To the forwarder.
    pub entries: Sender<Entry>,
    /// To the forwarder: what may be lost. Without it nothing of that is told.
    pub reports: Option<Sender<Report>>,
    /// From the forwarder: the last share that is safe.
    pub durable: Sequence,
    /// Wakes this core.
    pub bell: Bell,
    /// What others see.
    pub block: Arc<Block<{ counter::CELLS }>>,
    /// The process is to end.
    pub stop: Arc<AtomicBool>,
}

struct Driver {
    shard: Shard,
    uring: Uring,
    ports: ShardPorts,
    clock: Clock,
    out: Output,
    /// By slot of the ring's table: who is there.
    tenants: Vec<Option<(ConnectionId, Token)>>,
    tenancy: u64,
    /// Connections that the ring's table had no room for, as far as they are counted.
    refused: u64,
    durable: u64,
    /// Entries or reports were written since the forwarder was woken.
    entries_sent: bool,
    /// Blocks for which the solution ring had no room. Never dropped.
    solutions_waiting: Vec<Solution>,
    draining: bool,
}

/// Run a shard on this thread's executor until it is told to stop and its miners are gone.
///
/// # Errors
/// The kernel refuses the ring, or the listener.
pub async fn run(
    shard: Shard,
    listener: Option<TcpListener>,
    ports: ShardPorts,
    clock: Clock,
    connections_max: usize,
) -> std::io::Result<()> {
    let limits = UringLimits {
        connections_max,
        receive_buffers: RECEIVE_BUFFERS,
        receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        ..UringLimits::default()
    };
    let mut uring = Uring::new(limits, &ports.bell)?;
    if let Some(listener) = listener {
        uring.listen(listener)?;
    }
    let mut driver = Driver {
        shard,
        uring,
        ports,
        clock,
        out: Output::default(),
        tenants: Vec::new(),
        tenancy: 0,
        refused: 0,
        durable: 0,
        entries_sent: false,
        solutions_waiting: Vec::new(),
        draining: false,
    };
    loop {
        driver.ports.bell.awake();
        if driver.turn()? || driver.shard.on_idle() {
            continue;
        }
        if driver.is_done() {
            return Ok(());
        }
        driver.ports.bell.prepare_sleep();
        // The last look: what came since the turn, and what the kernel shows only when asked.
        if driver.turn()? || driver.has_event() {
            continue;
        }
        let span = wait::span(driver.clock.now(), driver.shard.deadline());
        driver.uring.wait(Some(span))?;
    }
}

impl Driver {
    /// One turn: bells, deadlines, catching up, completions. Returns whether anything was done.
    fn turn(&mut self) -> std::io::Result<bool> {
        let now = self.clock.now();
        self.shard.on_turn();
        let mut did = self.take_bells();
        did |= self.expire();
        did |= self.catch_up();
        did |= self.take_events();
        did |= self.hand_over();
        self.uring.submit()?;
        if did || self.uring.counters().refused_table_full != self.refused {
            self.observe(now);
        }
        Ok(did)
    }

    fn take_bells(&mut self) -> bool {
        let now = self.clock.now();
        let mut did = false;
        for _ in 0..BOARD_RING {
            let Some(update) = self.ports.board.pop() else { break };
            if update == BoardUpdate::Expire {
                // What miners sent before the end is looked at first: it may be a block.
                self.take_events();
            }
            self.shard.on_board(now, update);
            did = true;
        }
        let durable = self.ports.durable.read();
        if durable != self.durable {
            self.durable = durable;
            self.shard.on_durable(now, durable);
            did = true;
        }
        if !self.draining && self.ports.stop.load(Ordering::Relaxed) {
            self.take_events();
            self.draining = true;
            self.uring.stop_listening();
            self.shard.on_drain();
            did = true;
        }
        did
    }

    fn expire(&mut self) -> bool {
        let now = self.clock.now();
        let mut did = false;
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some((id, close)) = self.shard.next_overdue(now) else { break };
            self.close(id, close);
            did = true;
        }
        self.shard.on_tick(now);
        did
    }

    fn catch_up(&mut self) -> bool {
        let mut did = false;
        for _ in 0..CATCH_UPS_PER_TURN {
            let now = self.clock.now();
            let credit = self.ports.entries.credit();
            let Some(id) = self.shard.next_ready(now, credit) else { break };
            self.begin();
            let flow = self.shard.step(id, now, &mut self.out);
            self.apply(id, flow);
            did = true;
        }
        did
    }

    fn take_events(&mut self) -> bool {
        let mut did = false;
        let mut now = self.clock.now();
        for count in 0..COMPLETIONS_PER_TURN {
            let Some(event) = self.uring.next_event() else { break };
            if count % EVENTS_PER_CLOCK == EVENTS_PER_CLOCK - 1 {
                now = self.clock.now();
            }
            self.on_event(event, now);
            did = true;
        }
        did
    }

    /// Whether the kernel has an event that was not there a moment ago; it is handled.
    fn has_event(&mut self) -> bool {
        let Some(event) = self.uring.next_event() else { return false };
        let now = self.clock.now();
        self.on_event(event, now);
        true
    }

    fn on_event(&mut self, event: Event, now: work::Now) {
        match event {
            Event::Accepted { token, peer } => self.on_accepted(token, peer, now),
            Event::AcceptFailed { error, retry_after } => {
                warn!(error, ?retry_after, "a connection could not be accepted");
            }
            Event::Received { token, mut bytes } => {
                let Some(id) = self.tenant(token) else { return };
                self.begin();
                let flow = self.shard.on_bytes(id, now, &mut bytes, &mut self.out);
                drop(bytes);
                self.apply(id, flow);
            }
            Event::ReceiveClosed { token, error: None } => {
                if let Some(id) = self.tenant(token) {
                    self.end(id, self.shard.on_end_of_stream(id), false);
                }
            }
            Event::ReceiveClosed { token, .. } | Event::Sent { token, result: Err(_) } => {
                if let Some(id) = self.tenant(token) {
                    self.end(id, CloseCause::PeerGone.into(), false);
                }
            }
            Event::Sent { token, result: Ok(()) } => {
                let Some(id) = self.tenant(token) else { return };
                self.begin();
                let flow = self.shard.on_sent(id, now, &mut self.out);
                self.apply(id, flow);
            }
            Event::Deadline => (),
        }
    }

    fn on_accepted(&mut self, token: Token, peer: std::net::SocketAddr, now: work::Now) {
        self.tenancy += 1;
        let slot = token.slot();
        let id = ConnectionId((self.tenancy << 32) | slot as u64);
        if let Err(close) = self.shard.on_accept(now, id, peer.ip()) {
            debug!(%peer, why = close.code(), "connection refused");
            self.uring.close(token);
            return;
        }
        if self.tenants.len() <= slot {
            self.tenants.resize(slot + 1, None);
        }
        self.tenants[slot] = Some((id, token));
        debug!(%peer, connection = id.0, "connection opened");
    }

    fn begin(&mut self) {
        let wire = self.uring.take_buffer();
        self.out.begin(self.ports.entries.credit(), wire);
    }

    /// Do what a step said, in the fixed order: blocks, entries, wire, flow.
    fn apply(&mut self, id: ConnectionId, flow: Flow) {
        for solution in self.out.solutions.drain(..) {
            info!(hash = %solution.hash, "block found");
            self.solutions_waiting.push(solution);
        }
        for entry in self.out.entries.drain(..) {
            // I3: the machine wrote no more than there was credit for, and nobody else writes.
            let sent = self.ports.entries.try_send(entry);
            assert!(sent.is_ok(), "I3: the share ring had no room for an entry under credit");
            self.entries_sent = true;
        }
        self.tell();
        let wire = std::mem::take(&mut self.out.wire);
        let token = self.tenants.get(id.slot()).copied().flatten().map(|(_, token)| token);
        match token {
            Some(token) if !wire.is_empty() => {
                self.shard.state.counters.add(counter::BYTES_SENT, wire.len() as u64);
                if let Err(refused) = self.uring.send(token, wire) {
                    error!(connection = id.0, why = ?refused.why, "a send was refused");
                }
            }
            _ => self.uring.give_back_buffer(wire),
        }
        match (flow, token) {
            (Flow::Close(close), _) => self.close(id, close),
            (Flow::Wait, Some(token)) if !self.uring.is_paused(token) => self.uring.pause(token),
            (Flow::Continue, Some(token)) if self.uring.is_paused(token) => {
                self.uring.resume(token);
            }
            _ => (),
        }
    }

    fn tenant(&self, token: Token) -> Option<ConnectionId> {
        let (id, tenant) = self.tenants.get(token.slot()).copied().flatten()?;
        (tenant.key() == token.key()).then_some(id)
    }

    fn close(&mut self, id: ConnectionId, close: Close) {
        self.end(id, close, true);
    }

    /// End a connection; gracefully, so that what was just sent still arrives.
    fn end(&mut self, id: ConnectionId, close: Close, gracefully: bool) {
        let Some((tenant, token)) = self.tenants.get(id.slot()).copied().flatten() else { return };
        if tenant != id {
            return;
        }
        // Bytes that waited for their turn or for credit may hold a block.
        loop {
            self.begin();
            let has_more = self.shard.on_last_look(id, self.clock.now(), &mut self.out);
            self.apply(id, Flow::Continue);
            if !has_more {
                break;
            }
        }
        self.tenants[id.slot()] = None;
        debug!(connection = id.0, why = close.code(), "connection closed");
        self.shard.on_gone(self.clock.now(), id, close);
        if gracefully && !self.draining {
            self.uring.close_gracefully(token);
        } else {
            self.uring.close(token);
        }
    }

    /// What may be lost, to the forwarder: never waits, and takes nothing that shares need.
    fn tell(&mut self) {
        let state = &mut self.shard.state;
        while let Some(report) = state.reports.pop() {
            let Some(ring) = &mut self.ports.reports else { continue };
            match ring.try_send(report) {
                Ok(()) => self.entries_sent = true,
                Err(report) => on_lost(&report, &mut state.counters),
            }
        }
    }

    /// Blocks to control, ended channels to the forwarder, and wake whoever has got something.
    fn hand_over(&mut self) -> bool {
        let mut did = false;
        while !self.solutions_waiting.is_empty() && self.ports.solutions.credit() > 0 {
            let solution = self.solutions_waiting.remove(0);
            let sent = self.ports.solutions.try_send(solution);
            assert!(sent.is_ok(), "the solution ring had no room under credit");
            did = true;
        }
        if self.solutions_waiting.len() > SOLUTIONS_WAITING_MAX {
            error!("blocks are waiting for the control core; it has hung");
        }
        if did {
            self.ports.solutions.ring_bell();
        }
        while self.ports.entries.credit() > 0 {
            let Some(channel) = self.shard.state.closed.pop_front() else { break };
            let sent = self.ports.entries.try_send(Entry::Closed(channel));
            assert!(sent.is_ok(), "I3: the share ring had no room for an entry under credit");
            self.entries_sent = true;
        }
        self.tell();
        if std::mem::take(&mut self.entries_sent) {
            self.ports.entries.ring_bell();
        }
        did
    }

    fn observe(&mut self, began: work::Now) {
        let micros = self.clock.now().mono.micros_since(began.mono);
        let counters = &mut self.shard.state.counters;
        // Those that found the ring's own table full were never shown to the machine.
        let refused = self.uring.counters().refused_table_full;
        counters.add(counter::REFUSED, refused - std::mem::replace(&mut self.refused, refused));
        if micros > counters.read(counter::LONGEST_TURN) {
            counters.set(counter::LONGEST_TURN, micros);
        }
        self.ports.block.publish(counters);
    }

    /// Whether the end has come: asked to stop, no miners, nothing left to hand over.
    fn is_done(&self) -> bool {
        self.draining && self.shard.live() == 0 && self.solutions_waiting.is_empty()
    }
}
