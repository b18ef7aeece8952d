//! The connection table: slots, tokens, and when a slot may be used again.
//!
//! A token dies when its connection is closed, but the slot stays taken until the kernel has
//! finished every operation on the socket. So memory and descriptor outlive the operations, and
//! a completion of an old connection can never be taken for one of its successor; the
//! generation in every operation's number is the second lock on the same door.

use std::collections::VecDeque;
use std::net::TcpStream;

/// Connections one ring can hold: slot numbers have 24 bits and slots are twice the limit.
pub const CONNECTIONS_MAX: usize = 1 << 22;

/// Names a connection of one [`Uring`](crate::Uring). After the connection is closed the token
/// is dead for ever: operations on it do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Token {
    /// The token as one number: generation in the high 32 bits, slot in the low 32.
    #[must_use]
    pub fn key(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The place in the table, below twice `connections_max`: an index for the caller's own
    /// table beside this one. A slot is used again only under another generation.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// The connection table has no free place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

impl std::fmt::Display for TableFull {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection table is full: raise connections_max")
    }
}

impl std::error::Error for TableFull {}

/// Where the multishot receive of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiving {
    /// No receive is with the kernel.
    Off,
    /// One is, and delivers.
    Armed,
    /// One is, and was asked to stop.
    Cancelling,
    /// It ended for want of buffers and waits to be armed again.
    Starved,
}

/// The life of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Free,
    Open,
    /// Closing gracefully: the send in flight finishes, received bytes are discarded.
    Lingering,
    /// The token is dead; operations on the socket are not all finished.
    Dying,
}

#[derive(Debug)]
pub struct Connection {
    pub phase: Phase,
    pub receiving: Receiving,
    /// Whether the owner wants to be given bytes: false while paused.
    pub is_reading: bool,
    /// The peer has closed its side, or receiving failed for good.
    pub is_ended: bool,
    pub generation: u32,
    pub socket: Option<TcpStream>,
    /// The buffer of the send in flight. The kernel reads it: it is not touched until the final
    /// completion.
    pub sending: Option<Vec<u8>>,
    /// Bytes of `sending` that are with the kernel's socket already.
    pub written: usize,
}

impl Connection {
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Lingering)
    }

    pub fn is_idle(&self) -> bool {
        self.sending.is_none() && matches!(self.receiving, Receiving::Off | Receiving::Starved)
    }

    fn vacant() -> Connection {
        Connection {
            phase: Phase::Free,
            receiving: Receiving::Off,
            is_reading: false,
            is_ended: false,
            generation: 0,
            socket: None,
            sending: None,
            written: 0,
        }
    }
}

/// All slots. Grows as connections come, to twice the limit: dying connections hold a slot, and
/// a burst of closes must not refuse the burst of connects behind it.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Connection>,
    free: VecDeque<u32>,
    live: usize,
    live_max: usize,
}

impl Table {
    pub fn new(live_max: usize) -> Table {
        Table { slots: Vec::new(), free: VecDeque::new(), live: 0, live_max }
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn has_room(&self) -> bool {
        self.live < self.live_max
            && (!self.free.is_empty() || self.slots.len() < self.live_max.saturating_mul(2))
    }

    pub fn insert(&mut self, socket: TcpStream) -> Result<Token, TableFull> {
        if !self.has_room() {
            return Err(TableFull);
        }
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None => {
                self.slots.push(Connection::vacant());
                u32::try_from(self.slots.len() - 1).map_err(|_| TableFull)?
            }
        };
        let Some(connection) = self.slots.get_mut(slot as usize) else {
            return Err(TableFull);
        };
        connection.phase = Phase::Open;
        connection.receiving = Receiving::Off;
        connection.is_reading = true;
        connection.is_ended = false;
        connection.written = 0;
        connection.socket = Some(socket);
        self.live += 1;
        Ok(Token { slot, generation: connection.generation })
    }

    /// The connection of a token or of an operation's number, in any phase but free.
    pub fn get(&mut self, token: Token) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(token.slot as usize)?;
        let is_this = connection.generation == token.generation && connection.phase != Phase::Free;
        is_this.then_some(connection)
    }

    /// The connection of a token that has not been closed in any way.
    pub fn open(&mut self, token: Token) -> Option<&mut Connection> {
        self.get(token).filter(|connection| connection.phase == Phase::Open)
    }

    pub fn peek(&self, token: Token) -> Option<&Connection> {
        let connection = self.slots.get(token.slot as usize)?;
        let is_this = connection.generation == token.generation && connection.is_live();
        is_this.then_some(connection)
    }

    /// A live connection's token dies; its slot stays.
    pub fn mark_dying(&mut self, token: Token) {
        if let Some(connection) = self.get(token)
            && connection.is_live()
        {
            connection.phase = Phase::Dying;
            self.live -= 1;
        }
    }

    /// Frees the slot of a dying connection that has nothing left in flight and closes its
    /// socket; does nothing otherwise. Returns whether it did.
    pub fn release(&mut self, token: Token) -> bool {
        let Some(connection) = self.get(token) else { return false };
        if connection.phase != Phase::Dying || !connection.is_idle() {
            return false;
        }
        connection.socket = None;
        connection.phase = Phase::Free;
        connection.generation = connection.generation.wrapping_add(1);
        self.free.push_back(token.slot);
        true
    }

    /// Tokens of every slot that is not free.
    pub fn tokens(&self) -> Vec<Token> {
        let taken = self.slots.iter().enumerate().filter(|(_, slot)| slot.phase != Phase::Free);
        let token = |(index, slot): (usize, &Connection)| Token {
            slot: index as u32,
            generation: slot.generation,
        };
        taken.map(token).collect()
    }

    /// Gives up the send buffers the kernel may still read, without freeing them.
    pub fn leak_sends(&mut self) {
        for connection in &mut self.slots {
            std::mem::forget(connection.sending.take());
        }
    }
}
