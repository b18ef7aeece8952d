//! A shard: one core's connections, its board, and what they have in common.
//!
//! The driver feeds it accepts, bytes, completed sends, board updates and durable numbers, and
//! asks [`Shard::next_ready`] who has something to do. Nothing here waits: a connection with a
//! send in flight is visited when the send is done, one without credit when there is credit.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use rand_chacha::ChaCha20Rng;
use sv2::{AuthorityKey, Ephemeral, Identity, NoiseError, Transport};
use work::extranonce::{EXTRANONCE_PREFIX_BYTES, PrefixAllocator};
use work::seen::TipClock;
use work::{Difficulty, Mono, Now, Work};

use super::board::{Board, BoardUpdate};
use super::channel::{Channel, NewChannel};
use super::connection::Connection;
use super::output::{ChannelKey, ConnectionId, Flow, Output};
use crate::limits::{
    ACKS_PENDING_MAX, CERTIFICATE_SECONDS, CHANNELS_PER_SHARD_MAX, EPHEMERALS_READY,
    HANDSHAKES_PER_TURN, STARVED_MILLIS_MAX, SWEEP_MILLIS, SWEEP_PER_TURN,
};
use crate::metrics::{Counters, shard as counter};
use crate::reason::{Close, CloseCause, Reason};

/// What a shard is told once.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// Its number.
    pub shard: u8,
    /// The gateway's number (D23).
    pub instance_id: u16,
    /// The start's number (D23).
    pub epoch: u16,
    /// Bytes of the whole extranonce: the prefix and what extended channels roll.
    pub extranonce_bytes: usize,
    /// Goal of a channel's difficulty.
    pub target_shares_per_minute: f64,
    /// Easiest difficulty of a channel.
    pub min_difficulty: f64,
    /// Whether miners may roll version bits.
    pub version_rolling: bool,
    /// Time for both acts.
    pub handshake_timeout_ms: u64,
    /// Time until SetupConnection, and until the first channel.
    pub setup_timeout_ms: u64,
    /// Silence after which a connection is closed; 0 for never.
    pub channel_idle_timeout_ms: u64,
    /// Floor on how long share hashes are remembered (D43).
    pub nonce_expire_secs: u64,
    /// Hashes of shares for which a channel has room between two jobs.
    pub seen_room: usize,
    /// Connections of this shard.
    pub max_connections: usize,
    /// Connections of one address on this shard; 0 for any number.
    pub max_connections_per_ip: usize,
    /// Channels of one connection.
    pub max_channels_per_connection: usize,
}

/// An accepted share that waits for its durable number.
#[derive(Debug, Clone, Copy)]
pub struct PendingAck {
    /// The shard's own number.
    pub sequence: u64,
    /// Whose.
    pub connection: ConnectionId,
    /// Which channel of it.
    pub channel_id: u32,
    /// The miner's number.
    pub sequence_number: u32,
    /// Its credit.
    pub work: Work,
    /// When it came.
    pub received_at: Mono,
}

/// What the connections of a shard have in common.
pub struct ShardState {
    /// The settings.
    pub settings: ShardSettings,
    /// What may be mined.
    pub board: Board,
    /// The numbers of its tips.
    pub tips: TipClock,
    /// The counters.
    pub counters: Counters<{ counter::CELLS }>,
    /// Channels that ended and of which the forwarder does not know it.
    pub closed: VecDeque<ChannelKey>,
    prefixes: PrefixAllocator,
    sequence: u64,
    next_channel: u64,
    /// In the order of their sequence numbers.
    acks: VecDeque<PendingAck>,
    /// Since when there has been no credit.
    starved_since: Option<Mono>,
    authority: AuthorityKey,
    identity: Identity,
    entropy: ChaCha20Rng,
    ephemerals: Vec<Ephemeral>,
    /// Handshakes that this turn may still answer.
    handshakes_left: usize,
}

impl ShardState {
    /// The number of the next accepted share.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Places for accepted shares that wait to be acknowledged.
    pub fn acks_free(&self) -> usize {
        ACKS_PENDING_MAX - self.acks.len()
    }

    /// Remember an accepted share until it is durable.
    pub fn pend(&mut self, ack: PendingAck) {
        self.counters.add(counter::SHARES, 1);
        let rest = Work(u128::from(self.counters.read(counter::WORK_REST)));
        let (whole, rest) = (ack.work + rest).split_whole();
        self.counters.add(counter::WORK, whole);
        self.counters.set(counter::WORK_REST, u64::try_from(rest.0).unwrap_or(0));
        self.acks.push_back(ack);
    }

    /// Whether frames may wait for credit, or have waited long enough to be judged without (D19).
    pub fn may_wait_for_credit(&mut self, now: Now) -> bool {
        match self.starved_since {
            None => {
                self.counters.add(counter::CREDIT_STALLS, 1);
                self.starved_since = Some(now.mono);
                true
            }
            Some(since) => now.mono < since.plus_millis(STARVED_MILLIS_MAX),
        }
    }

    /// Whether another handshake may be answered this turn; if so it is counted.
    pub fn may_shake_hands(&mut self) -> bool {
        let may = self.handshakes_left > 0;
        self.handshakes_left -= usize::from(may);
        may
    }

    /// A channel with a prefix of its own, or `None` if there is no prefix left, or no room.
    pub fn allocate(&mut self, channel_id: u32, difficulty: Difficulty) -> Option<Channel> {
        if self.counters.read(counter::CHANNELS) >= CHANNELS_PER_SHARD_MAX {
            return None;
        }
        let prefix = self.prefixes.allocate(self.board.tip_number())?;
        let key = ChannelKey(u64::from(self.settings.shard) << 56 | self.next_channel);
        self.next_channel += 1;
        self.counters.add(counter::CHANNELS, 1);
        self.counters.add(counter::CHANNEL_OPENS, 1);
        Some(Channel::new(NewChannel {
            channel_id,
            key,
            prefix,
            extranonce_bytes: self.settings.extranonce_bytes,
            difficulty,
        }))
    }

    /// A channel ended: its prefix rests, its name is to be forgotten.
    pub fn release(&mut self, channel: &Channel) -> ChannelKey {
        self.prefixes.free(channel.prefix, self.board.tip_number());
        self.counters.take(counter::CHANNELS);
        channel.key
    }

    /// Act 2 for `act1`.
    ///
    /// # Errors
    /// The handshake's.
    pub fn respond(
        &mut self,
        act1: &[u8; sv2::ACT1_BYTES],
        act2: &mut [u8; sv2::ACT2_BYTES],
    ) -> Result<Transport, NoiseError> {
        let ephemeral = match self.ephemerals.pop() {
            Some(ephemeral) => ephemeral,
            None => Ephemeral::generate(&mut self.entropy),
        };
        sv2::respond(&self.identity, ephemeral, act1, act2)
    }
}

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
    /// Connections whose channels cannot be opened without credit.
    unopened: VecDeque<ConnectionId>,
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
    /// A shard without connections. `identity` is what miners are shown, `authority` renews it,
    /// `entropy` is seeded by the driver.
    pub fn new(
        settings: ShardSettings,
        authority: AuthorityKey,
        identity: Identity,
        entropy: ChaCha20Rng,
    ) -> Shard {
        assert!(settings.extranonce_bytes >= EXTRANONCE_PREFIX_BYTES);
        Shard {
            state: ShardState {
                board: Board::default(),
                tips: TipClock::new(settings.nonce_expire_secs),
                counters: Counters::default(),
                closed: VecDeque::new(),
                prefixes: PrefixAllocator::new(
                    settings.instance_id,
                    settings.epoch,
                    settings.shard,
                ),
                sequence: 0,
                next_channel: 0,
                acks: VecDeque::with_capacity(ACKS_PENDING_MAX),
                starved_since: None,
                authority,
                identity,
                entropy,
                ephemerals: Vec::with_capacity(EPHEMERALS_READY),
                handshakes_left: HANDSHAKES_PER_TURN,
                settings,
            },
            connections: Vec::new(),
            live: 0,
            per_ip: HashMap::new(),
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            unopened: VecDeque::new(),
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
        if self.live >= settings.max_connections || (limit > 0 && of_peer >= limit) {
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

    /// A turn begins.
    pub fn on_turn(&mut self) {
        self.state.handshakes_left = HANDSHAKES_PER_TURN;
        self.sweep_left = SWEEP_PER_TURN;
    }

    /// A connection is gone, or was closed as a step asked.
    pub fn on_gone(&mut self, id: ConnectionId, close: Close) {
        let Some(mut connection) = self.take(id) else { return };
        self.state.counters.take(connection.gauge());
        let names = connection.end(&mut self.state);
        self.state.closed.extend(names);
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
            let Some(connection) = &self.connections[self.sweep - 1] else { continue };
            let (deadline, close) = connection.deadline(&self.state);
            if deadline <= now.mono {
                return Some((connection.id, close));
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
            && let Some(id) = self.unopened.pop_front()
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
                self.unopened.push_back(id);
            } else {
                self.ready.push_back(id);
            }
        }
        flow
    }
}
