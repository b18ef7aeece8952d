//! One miner's place in a thread: its machine, its socket, and when each step began.

use rg_ring::Token;
use work::{BlockHash, Mono};

use crate::miner::Miner;

/// Bytes waiting behind the send in flight beyond which a miner is not let to hash: its server
/// does not read.
pub const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// A miner and what the driver knows of it.
pub struct Seat {
    pub miner: Miner,
    /// The connection; `None` while there is none.
    pub token: Option<Token>,
    /// Bytes to send when the send in flight is over.
    pub unsent: Vec<u8>,
    /// When the connect began.
    pub dial_began: Mono,
    /// When the step before ended.
    pub leg_began: Mono,
    /// Whether it has an open channel, as the tally counts it.
    pub is_open: bool,
    /// Its open channels, as the tally counts them.
    pub channels_open: u64,
    /// When it was given its first work on this connection.
    pub working_since: Option<Mono>,
    /// The tip it mines on.
    pub prev_hash: BlockHash,
    /// The number of the latest tip it switched to; 0 before any switch.
    pub tip_number: u64,
}

impl Seat {
    pub fn new(miner: Miner) -> Seat {
        Seat {
            miner,
            token: None,
            unsent: Vec::new(),
            dial_began: Mono(0),
            leg_began: Mono(0),
            is_open: false,
            channels_open: 0,
            working_since: None,
            prev_hash: BlockHash::default(),
            tip_number: 0,
        }
    }

    /// Forgets the connection; the miner itself is told by the caller.
    pub fn vacate(&mut self) {
        self.token = None;
        self.unsent.clear();
        self.is_open = false;
        self.channels_open = 0;
        self.working_since = None;
        self.tip_number = 0;
        self.prev_hash = BlockHash::default();
    }

    /// Microseconds since the step before ended; the next one begins now.
    pub fn next_leg(&mut self, now: Mono) -> u64 {
        let micros = now.micros_since(self.leg_began);
        self.leg_began = now;
        micros
    }
}
