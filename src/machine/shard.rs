//! A shard: one core's connections, its board, and what they have in common.
//!
//! The driver feeds it accepts, bytes, completed sends, board updates and durable numbers, and
//! asks [`Shard::next_ready`] who has something to do. Nothing here waits: a connection with a
//! send in flight is visited when the send is done, one without credit when there is credit.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use sv2::{AuthorityKey, Ephemeral, Identity};
use work::extranonce::EXTRANONCE_PREFIX_BYTES;
use work::{Mono, Now};

use super::admission::Admission;
use super::board::BoardUpdate;
use super::connection::Connection;
use super::output::{ConnectionId, Flow, Output};
pub use super::state::{PendingAck, ShardSettings, ShardState};
use crate::limits::{
    CERTIFICATE_SECONDS, EPHEMERALS_READY, HANDSHAKES_PER_TURN, STARVED_MILLIS_MAX, SWEEP_MILLIS,
    SWEEP_PER_TURN,
};
use crate::metrics::shard as counter;
use crate::reason::{Close, CloseCause, Reason};

/// The machine of one shard.
pub struct Shard {
    /// What its connections share.
    pub state: ShardState,
    connections: Vec<Option<Box<Connection>>>,
    live: usize,
    per_ip: HashMap<IpAddr, usize>,
    /// Connections with something to do.
    ready: VecDeque<ConnectionId>,
    /// Connections that wait for credit.
    starved: VecDeque<ConnectionId>,
    /// Connections whose channels cannot be opened, or shares acknowledged, without credit.
    uncredited: VecDeque<ConnectionId>,
    /// Next place in the table that is to hear of the newest board.
    fan_out: usize,
    /// Connections whose act 1 waits for the next turn.
    handshaking: VecDeque<ConnectionId>,
    /// Next place in the table whose deadline is looked at.
    sweep: usize,
    /// Places that this turn may still look at.
    sweep_left: usize,
    /// When the next look at all deadlines begins.
    sweep_at: Mono,
    /// Whether new connections are refused.
    draining: bool,
}

impl Shard {
    /// A shard without connections. `admission` says who may open channels, `identity` is what
    /// miners are shown, `authority` renews it, `entropy` is seeded by the driver.
    pub fn new(
        settings: ShardSettings,
        admission: Arc<Admission>,
        authority: AuthorityKey,
        identity: Identity,
        entropy: ChaCha20Rng,
    ) -> Shard {
        assert!(settings.extranonce_bytes >= EXTRANONCE_PREFIX_BYTES);
        Shard {
            state: ShardState::new(settings, admission, authority, identity, entropy),
            connections: Vec::new(),
            live: 0,
            per_ip: HashMap::new(),
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            uncredited: VecDeque::new(),
            fan_out: 0,
            handshaking: VecDeque::new(),
            sweep: usize::MAX,
            sweep_left: 0,
            sweep_at: Mono(0),
            draining: false,
        }
    }

    /// A miner connected. `id` is the driver's; its slot is free.
    ///
    /// # Errors
    /// Why it is not admitted.
    pub fn on_accept(&mut self, now: Now, id: ConnectionId, peer: IpAddr) -> Result<(), Close> {
        let settings = &self.state.settings;
        let of_peer = self.per_ip.get(&peer).copied().unwrap_or(0);
        let limit = settings.max_connections_per_ip;
        if self.draining {
            return Err(CloseCause::Drain.into());
        }
        let is_stranger = !peer.is_loopback() && !self.state.strangers.may_try(now.mono, peer);
        if self.live >= settings.max_connections || (limit > 0 && of_peer >= limit) || is_stranger {
            self.state.counters.add(counter::REFUSED, 1);
            return Err(CloseCause::Limit.into());
        }
        let slot = id.slot();
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connections[slot] = Some(Box::new(Connection::new(id, peer, now)));
        self.live += 1;
        *self.per_ip.entry(peer).or_insert(0) += 1;
        self.state.counters.add(counter::ACCEPTED, 1);
        self.state.counters.add(counter::IN_HANDSHAKE, 1);
        Ok(())
    }

    /// Bytes came from a miner. They are decrypted in place.
    pub fn on_bytes(
        &mut self,
        id: ConnectionId,
        now: Now,
        bytes: &mut [u8],
        out: &mut Output,
    ) -> Flow {
        self.visit(id, now, out, |connection, state, out| {
            connection.on_bytes(state, now, bytes, out)
        })
    }

    /// The send in flight of a connection is done.
    pub fn on_sent(&mut self, id: ConnectionId, now: Now, out: &mut Output) -> Flow {
        self.visit(id, now, out, |connection, state, out| {
            if let Some(micros) = connection.on_sent(now, out) {
                state.counters.record(counter::SWITCH, micros);
            }
            if out.wire.is_empty() { connection.step(state, now, out) } else { Flow::Continue }
        })
    }

    /// Do what is due for a connection that [`Shard::next_ready`] named.
    pub fn step(&mut self, id: ConnectionId, now: Now, out: &mut Output) -> Flow {
        self.visit(id, now, out, |connection, state, out| connection.step(state, now, out))
    }

    /// A connection is about to end: judge what it sent and nobody looked at. Only blocks and
    /// shares come of it; nothing is sent any more. Called again while it says that frames are
    /// left; each call takes some off the stash, which is bounded.
    pub fn on_last_look(&mut self, id: ConnectionId, now: Now, out: &mut Output) -> bool {
        let slot = self.connections.get_mut(id.slot()).and_then(Option::as_mut);
        let Some(connection) = slot.filter(|connection| connection.id == id) else { return false };
        let has_more = connection.on_last_look(&mut self.state, now, out);
        out.wire.clear();
        has_more
    }

    /// A peer sends no more. Why its connection ends.
    pub fn on_end_of_stream(&self, id: ConnectionId) -> Close {
        let slot = self.connections.get(id.slot()).and_then(Option::as_ref);
        let connection = slot.filter(|connection| connection.id == id);
        connection.map_or(CloseCause::PeerGone.into(), |connection| connection.close_at_end())
    }

    /// A turn begins.
    pub fn on_turn(&mut self) {
        self.state.handshakes_left = HANDSHAKES_PER_TURN;
        self.sweep_left = SWEEP_PER_TURN;
    }

    /// A connection is gone, or was closed as a step asked.
    pub fn on_gone(&mut self, now: Now, id: ConnectionId, close: Close) {
        let Some(mut connection) = self.take(id) else { return };
        if close == Reason::HandshakeFailed.into() {
            self.state.strangers.on_failed(now.mono, connection.peer);
        }
        self.state.counters.take(connection.gauge());
        connection.end(&mut self.state, now, close);
        self.state.counters.add(counter::CLOSES + close.index(), 1);
        self.live -= 1;
        if let Some(of_peer) = self.per_ip.get_mut(&connection.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                self.per_ip.remove(&connection.peer);
            }
        }
    }

    /// Control decided something.
    pub fn on_board(&mut self, now: Now, update: BoardUpdate) {
        match update {
            BoardUpdate::Publish { job, tip_seen } => {
                if self.state.board.publish(now, job, tip_seen) {
                    self.state.tips.advance(now.mono);
                }
                self.fan_out = 0;
            }
            BoardUpdate::Hold => self.state.board.hold = true,
            BoardUpdate::Resume => {
                self.state.board.hold = false;
                self.fan_out = 0;
            }
            BoardUpdate::Expire => {
                self.state.board.expire();
                self.end_all(Reason::PrevhashSwitchTimeout.into());
            }
        }
        self.state.counters.set(counter::GENERATION, u64::from(self.state.board.generation()));
    }

    /// All shares up to `sequence` are safe: their miners may be told.
    pub fn on_durable(&mut self, now: Now, sequence: u64) {
        while let Some(ack) = self.state.acks.front().copied() {
            if ack.sequence > sequence {
                return;
            }
            self.state.acks.pop_front();
            let micros = now.mono.micros_since(ack.received_at);
            self.state.counters.record(counter::ACK, micros);
            let Some(connection) = self.connection(ack.connection) else { continue };
            connection.acknowledge(&ack);
            if !std::mem::replace(&mut connection.listed, true) {
                self.ready.push_back(ack.connection);
            }
        }
    }

    /// No new connections; the others end.
    pub fn on_drain(&mut self) {
        self.draining = true;
        self.end_all(CloseCause::Drain.into());
    }

    /// Time has passed: connections whose deadline is over, one at a time, with the reason. All
    /// are looked at every [`SWEEP_MILLIS`], a part of them each turn.
    pub fn next_overdue(&mut self, now: Now) -> Option<(ConnectionId, Close)> {
        if self.sweep >= self.connections.len() {
            if now.mono < self.sweep_at {
                return None;
            }
            self.sweep = 0;
            self.sweep_at = now.mono.plus_millis(SWEEP_MILLIS);
        }
        while self.sweep_left > 0 && self.sweep < self.connections.len() {
            self.sweep_left -= 1;
            self.sweep += 1;
            let Some(connection) = &mut self.connections[self.sweep - 1] else { continue };
            let (deadline, close) = connection.deadline(&self.state);
            if deadline <= now.mono {
                return Some((connection.id, close));
            }
            if connection.on_sweep(&mut self.state, now)
                && !std::mem::replace(&mut connection.listed, true)
            {
                self.ready.push_back(connection.id);
            }
        }
        None
    }

    /// Time has passed: renew the certificate, give the job again.
    pub fn on_tick(&mut self, now: Now) {
        let seconds = now.unix.seconds();
        if self.state.identity.needs_renewal(seconds) {
            let renewed =
                self.state.identity.renew(&self.state.authority, seconds, CERTIFICATE_SECONDS);
            // A key that has signed before signs again; if not, the old one serves on.
            if let Ok(identity) = renewed {
                self.state.identity = identity;
            }
        }
        if self.state.board.refresh(now) {
            self.fan_out = 0;
        }
    }

    /// The next connection that has something to do. `credit` is what the ring has.
    pub fn next_ready(&mut self, now: Now, credit: usize) -> Option<ConnectionId> {
        if credit > 0 && self.state.acks_free() > 0 {
            self.state.starved_since = None;
        }
        while self.state.handshakes_left > 0
            && let Some(id) = self.handshaking.pop_front()
        {
            if self.unlist(id) {
                return Some(id);
            }
        }
        if let Some(id) = self.next_behind() {
            return Some(id);
        }
        while let Some(id) = self.ready.pop_front() {
            if self.unlist(id) {
                return Some(id);
            }
        }
        while credit > 0
            && let Some(id) = self.uncredited.pop_front()
        {
            if self.unlist(id) {
                return Some(id);
            }
        }
        let waited = self
            .state
            .starved_since
            .is_none_or(|since| now.mono >= since.plus_millis(STARVED_MILLIS_MAX));
        while waited && let Some(id) = self.starved.pop_front() {
            if self.unlist(id) {
                return Some(id);
            }
        }
        None
    }

    /// When [`Shard::next_overdue`], [`Shard::on_tick`] or [`Shard::next_ready`] are due.
    pub fn deadline(&self) -> Option<Mono> {
        let is_sweeping = self.sweep < self.connections.len();
        let next = if is_sweeping { Mono(0) } else { self.sweep_at };
        let sweep = (self.live > 0).then_some(next);
        let starved = (!self.starved.is_empty())
            .then(|| self.state.starved_since.map(|s| s.plus_millis(STARVED_MILLIS_MAX)))
            .flatten();
        [sweep, starved, self.state.board.refresh_at()].into_iter().flatten().min()
    }

    /// Make one key ahead of the handshakes that will need it; `false` if there are enough.
    pub fn on_idle(&mut self) -> bool {
        if self.state.ephemerals.len() >= EPHEMERALS_READY {
            return false;
        }
        let ephemeral = Ephemeral::generate(&mut self.state.entropy);
        self.state.ephemerals.push(ephemeral);
        true
    }

    /// Connections in the table.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Bytes that a connection holds on the heap beside its channels; 0 if it is not there.
    pub fn connection_bytes(&self, id: ConnectionId) -> usize {
        let slot = self.connections.get(id.slot()).and_then(Option::as_ref);
        slot.filter(|connection| connection.id == id).map_or(0, |c| c.heap_bytes())
    }

    /// Every connection that is here now is to end.
    fn end_all(&mut self, close: Close) {
        for connection in self.connections.iter_mut().flatten() {
            connection.ending = Some(close);
        }
        self.fan_out = 0;
    }

    /// Walk the table once after each board update.
    fn next_behind(&mut self) -> Option<ConnectionId> {
        while let Some(slot) = self.connections.get(self.fan_out) {
            self.fan_out += 1;
            if let Some(connection) = slot
                && connection.has_work(&self.state)
            {
                return Some(connection.id);
            }
        }
        None
    }

    /// Take a connection off its list; whether it still has something to do.
    fn unlist(&mut self, id: ConnectionId) -> bool {
        let slot = self.connections.get_mut(id.slot()).and_then(Option::as_mut);
        let Some(connection) = slot.filter(|connection| connection.id == id) else { return false };
        connection.listed = false;
        connection.has_work(&self.state)
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id.slot())?.as_deref_mut()?;
        (connection.id == id).then_some(connection)
    }

    fn take(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        self.connection(id)?;
        self.connections.get_mut(id.slot())?.take()
    }

    /// Run `step` on a connection and close the books of the step.
    fn visit(
        &mut self,
        id: ConnectionId,
        now: Now,
        out: &mut Output,
        step: impl FnOnce(&mut Connection, &mut ShardState, &mut Output) -> Flow,
    ) -> Flow {
        let slot = self.connections.get_mut(id.slot()).and_then(Option::as_mut);
        let Some(connection) = slot.filter(|connection| connection.id == id) else {
            return Flow::Continue;
        };
        let flow = step(connection, &mut self.state, out);
        let flow = connection.finish(now, out, flow);
        let has_work = connection.has_work(&self.state);
        let is_closing = matches!(flow, Flow::Close(_));
        if has_work && !is_closing && !std::mem::replace(&mut connection.listed, true) {
            if connection.is_before_act1() {
                self.handshaking.push_back(id);
            } else if flow == Flow::Wait && self.state.starved_since.is_some() {
                self.starved.push_back(id);
            } else if !out.has_credit() && connection.waits_for_credit(&self.state) {
                // Visited again before there is credit it would do nothing, without end.
                self.uncredited.push_back(id);
            } else {
                self.ready.push_back(id);
            }
        }
        flow
    }
}
