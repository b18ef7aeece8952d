//! The net: byte pipes between miners and shards that cut bytes anywhere, stall, break and lie.

use std::collections::VecDeque;

use gateway::limits::WRITE_STALL_MILLIS;
use gateway::machine::output::ConnectionId;
use work::Mono;

use crate::checkers::{Rule, Wire};
use crate::process::{NetEvent, ShardCore};
use crate::world::{Core, Event, World};

/// Bytes of one receive buffer of a shard.
const RECEIVE_BYTES: u64 = 2_048;

/// Who is at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A loadgen miner.
    Miner(usize),
    /// One that speaks the protocol as it likes.
    Wild(usize),
    /// Noise.
    Garbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    /// The shard has closed; what is in flight still arrives.
    Draining,
    Gone,
}

/// One TCP connection.
pub struct Pipe {
    pub who: Who,
    pub shard: usize,
    pub id: Option<ConnectionId>,
    pub state: State,
    up: VecDeque<u8>,
    is_up_moving: bool,
    /// Bytes that the far end wrote so far.
    pub written: u64,
    /// The send in flight and how much of it has arrived.
    sending: Option<(Vec<u8>, usize)>,
    sending_since: Mono,
    /// Whether all of it has arrived, and the shard has not looked.
    pub is_sent: bool,
    is_down_moving: bool,
    pub is_paused: bool,
    pub is_silent: bool,
    pub is_stalled: bool,
    /// The next bytes up are damaged.
    pub damages: bool,
    /// Bytes were damaged, or are not those of a good miner.
    pub is_faulty: bool,
}

impl Pipe {
    pub fn new(who: Who, shard: usize) -> Pipe {
        Pipe {
            who,
            shard,
            id: None,
            state: State::Open,
            up: VecDeque::new(),
            is_up_moving: false,
            written: 0,
            sending: None,
            sending_since: Mono(0),
            is_sent: false,
            is_down_moving: false,
            is_paused: false,
            is_silent: false,
            is_stalled: false,
            damages: false,
            is_faulty: !matches!(who, Who::Miner(_)),
        }
    }

    /// Whether its far end has not taken what it is sent for so long that it may be closed, as far
    /// as its shard knows.
    pub fn is_stuck(&self, now: Mono) -> bool {
        (self.sending.is_some() || self.is_sent)
            && now >= self.sending_since.plus_millis(WRITE_STALL_MILLIS)
    }

    /// Bytes on their way up.
    pub fn backlog(&self) -> usize {
        self.up.len()
    }
}

impl World {
    /// A far end connects to some shard; `None` while nobody listens.
    pub fn dial(&mut self, who: Who) -> Option<Wire> {
        let process = self.process.as_ref().filter(|_| !self.is_draining)?;
        let shards = process.shards.len() as u64;
        let shard = self.chance.below(shards) as usize;
        self.pipes.push(Pipe::new(who, shard));
        let wire = self.pipes.len() - 1;
        self.tell_shard(shard, NetEvent::Accepted(wire));
        Some(wire)
    }

    /// The far end writes.
    pub fn write_up(&mut self, wire: Wire, bytes: &[u8]) {
        let now = self.now();
        let pipe = &mut self.pipes[wire];
        if pipe.state != State::Open || bytes.is_empty() {
            return;
        }
        let start = pipe.up.len();
        pipe.up.extend(bytes);
        if std::mem::take(&mut pipe.damages) {
            let at = self.chance.below(bytes.len() as u64) as usize;
            pipe.up[start + at] ^= 1 << self.chance.below(8);
            pipe.is_faulty = true;
            let broken_at = pipe.written + at as u64;
            if let Some(view) = self.checker.wires.get_mut(&wire) {
                view.broken_at.get_or_insert(broken_at);
            }
            self.trace.note(now.mono, format_args!("wire {wire} breaks at {broken_at}"));
        }
        self.pipes[wire].written += bytes.len() as u64;
        self.move_up(wire);
    }

    /// Bytes go on their way to the shard, if any can.
    pub fn move_up(&mut self, wire: Wire) {
        let pipe = &mut self.pipes[wire];
        let can = pipe.state == State::Open
            && !pipe.is_silent
            && !pipe.is_paused
            && !pipe.up.is_empty()
            && pipe.id.is_some();
        if can && !std::mem::replace(&mut pipe.is_up_moving, true) {
            let after = self.hop();
            self.after(after, Event::Up(wire));
        }
    }

    /// A piece arrives at the shard.
    pub fn on_up(&mut self, wire: Wire) {
        let most = self.faults.chunk_up.min(RECEIVE_BYTES);
        let most = if self.chance.one_in(4) { self.chance.between(1, most) } else { most };
        let pipe = &mut self.pipes[wire];
        pipe.is_up_moving = false;
        if pipe.state != State::Open || pipe.is_silent || pipe.is_paused {
            return;
        }
        let count = (most as usize).min(pipe.up.len());
        let bytes: Vec<u8> = pipe.up.drain(..count).collect();
        let shard = pipe.shard;
        self.tell_shard(shard, NetEvent::Received(wire, bytes));
        self.move_up(wire);
    }

    /// A shard sends: one buffer at a time.
    pub fn send_down(&mut self, wire: Wire, mut bytes: Vec<u8>) {
        self.checker.on_ciphertext(wire, &bytes);
        if self.may_plant(crate::faults::Plant::CiphertextAgain) && bytes.len() > 60 {
            self.has_planted = true;
            self.checker.on_ciphertext(wire, &bytes);
            let again = bytes.clone();
            bytes.extend(again);
        }
        let now = self.now().mono;
        let pipe = &mut self.pipes[wire];
        let is_alone = pipe.sending.is_none();
        self.checker.hold(is_alone, Rule::C7Ring, || format!("wire {wire}: two sends in flight"));
        if pipe.state == State::Open {
            pipe.sending = Some((bytes, 0));
            pipe.sending_since = now;
            self.move_down(wire);
        }
    }

    /// Bytes go on their way to the far end, if any can.
    pub fn move_down(&mut self, wire: Wire) {
        let pipe = &mut self.pipes[wire];
        let can = pipe.state != State::Gone
            && !pipe.is_silent
            && !pipe.is_stalled
            && pipe.sending.is_some();
        if can && !std::mem::replace(&mut pipe.is_down_moving, true) {
            let after = self.hop();
            self.after(after, Event::Down(wire));
        }
    }

    /// A piece arrives at the far end.
    pub fn on_down(&mut self, wire: Wire) {
        let most = self.faults.chunk_down;
        let most = if self.chance.one_in(4) { self.chance.between(1, most) } else { most };
        let pipe = &mut self.pipes[wire];
        pipe.is_down_moving = false;
        if pipe.state == State::Gone || pipe.is_silent || pipe.is_stalled {
            return;
        }
        let Some((bytes, done)) = &mut pipe.sending else { return };
        let end = (*done + most as usize).min(bytes.len());
        let piece = bytes[*done..end].to_vec();
        *done = end;
        let is_done = end == bytes.len();
        if is_done {
            pipe.sending = None;
        }
        let (shard, state) = (pipe.shard, pipe.state);
        self.far_end_reads(wire, piece);
        if is_done && state == State::Draining {
            self.hang_up(wire);
        } else if is_done && self.pipes[wire].state == State::Open {
            self.pipes[wire].is_sent = true;
            self.tell_shard(shard, NetEvent::Sent(wire));
        }
        self.move_down(wire);
    }

    /// The far end is told that the connection is over.
    pub fn hang_up(&mut self, wire: Wire) {
        if self.pipes[wire].state != State::Gone {
            self.pipes[wire].state = State::Gone;
            self.pipes[wire].up.clear();
            self.far_end_loses(wire);
        }
    }

    /// The far end, or the net, ends the connection.
    pub fn reset(&mut self, wire: Wire) {
        if self.pipes[wire].state == State::Gone {
            return;
        }
        let shard = self.pipes[wire].shard;
        self.hang_up(wire);
        self.tell_shard(shard, NetEvent::Closed(wire));
    }

    /// A shard reads a connection no more, or again.
    pub fn set_paused(&mut self, wire: Wire, is_paused: bool) {
        self.pipes[wire].is_paused = is_paused;
        self.move_up(wire);
    }

    /// A shard closes a connection.
    pub fn close_down(&mut self, wire: Wire, gracefully: bool) {
        let pipe = &mut self.pipes[wire];
        if gracefully && pipe.state == State::Open && pipe.sending.is_some() {
            pipe.state = State::Draining;
        } else {
            self.hang_up(wire);
        }
    }

    /// A connection is in the shard's table.
    pub fn on_admitted(&mut self, wire: Wire, id: ConnectionId) {
        self.pipes[wire].id = Some(id);
        self.move_up(wire);
    }

    /// An event for a shard's driver, and its wake-up.
    pub fn tell_shard(&mut self, shard: usize, event: NetEvent) {
        if let Some(process) = &mut self.process {
            process.shards[shard].events.push_back(event);
            self.wake(Core::Shard(shard), 5);
        }
    }

    /// Microseconds of one hop.
    fn hop(&mut self) -> u64 {
        let (least, most) = self.faults.latency;
        self.chance.between(least, most)
    }

    /// Who is at `wire`, as the shard knows it.
    pub fn tenant(&self, core: &ShardCore, wire: Wire) -> Option<ConnectionId> {
        let id = self.pipes[wire].id?;
        let tenant = core.tenants.get(id.slot()).copied().flatten()?;
        (tenant == (id, wire)).then_some(id)
    }

    /// The net ends a connection whose far end is gone without a word.
    pub fn end_of_silence(&mut self) {
        for wire in 0..self.pipes.len() {
            let pipe = &mut self.pipes[wire];
            pipe.damages = false;
            pipe.is_stalled = false;
            if pipe.state != State::Gone && (pipe.is_silent || pipe.who == Who::Garbage) {
                self.reset(wire);
            }
            self.move_down(wire);
        }
    }
}
