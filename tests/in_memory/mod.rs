//! A shard with miners, in memory: the production machine and the load generator's miners, with a
//! byte buffer where the sockets would be. For the test of allocations and for the benches.
//!
//! What a driver does is done here in its order: a step, its entries, its bytes, the completed
//! send. Each call of the gateway's goes through [`Desk::gateway`], so that a counter of
//! allocations or a stopwatch sees the gateway and not the miner.

#![allow(dead_code)] // The test and the benches each use a part.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gateway::limits::{CERTIFICATE_SECONDS, SHARES_PER_TURN};
use gateway::machine::admission::{Admission, AuthInput};
use gateway::machine::board::BoardUpdate;
use gateway::machine::output::ConnectionId;
use gateway::machine::shard::{Shard, ShardSettings};
use gateway::machine::{Entry, Flow, Output};
use loadgen::{Miner, MinerConfig};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sv2::{AuthorityKey, Identity, StaticKey};
use work::payout::Payout;
use work::{BlockHash, Job, MerkleNode, Mono, Now, Template, TemplateId, Tip, UnixTime};

/// Unix time of every desk, seconds.
pub const UNIX_SECONDS: u32 = 1_800_000_000;

/// Target of a block in 2^52 hashes or more: no share of a test is one.
pub const NBITS: u32 = 0x1a00_ffff;

/// Bytes of a whole extranonce.
pub const EXTRANONCE_BYTES: usize = 16;

/// Nodes of a merkle path as deep as that of a full block.
pub const PATH_NODES: usize = 12;

/// Called before (`true`) and after (`false`) every call of the gateway's code.
pub type Watch = fn(bool);

/// A shard, and its miners.
pub struct Desk {
    /// The machine.
    pub shard: Shard,
    /// What a step says.
    pub out: Output,
    /// The time, which stands still unless a test moves it.
    pub now: Now,
    /// Entries the steps have written.
    pub shares: u64,
    /// The newest share's number.
    pub sequence: u64,
    watch: Watch,
    wire: Vec<u8>,
}

/// A miner at a desk: its name there, and the bytes it wrote and the shard has not read.
pub struct Seat {
    /// Its connection.
    pub id: ConnectionId,
    /// The miner.
    pub miner: Miner,
    /// From the miner.
    pub to_gateway: Vec<u8>,
}

/// Settings under which shares are as frequent as hashes, with room for them all (D50).
pub fn settings() -> ShardSettings {
    ShardSettings {
        shard: 0,
        instance_id: 1,
        epoch: 1,
        extranonce_bytes: EXTRANONCE_BYTES,
        target_shares_per_minute: 1e9,
        min_difficulty: 0.0,
        version_mask: work::share::VERSION_ROLLING_MASK,
        handshake_timeout_ms: 5_000,
        setup_timeout_ms: 10_000,
        channel_idle_timeout_ms: 0,
        nonce_expire_secs: 60,
        seen_room: 65_536,
        max_connections: 65_536,
        max_connections_per_ip: 0,
        max_workers_per_channel: 1_000,
        max_channels_per_connection: 16,
    }
}

/// Everybody may open channels.
pub fn admission() -> Admission {
    Admission::new(AuthInput::Open, 255, [1; 32])
}

/// A job on the tip `tip`, with a path as deep as a full block's and a coinbase of 260 bytes.
pub fn job(id: u64, tip: u8) -> Arc<Job> {
    let template = Template {
        id: TemplateId(id),
        tip: Tip { prev_hash: BlockHash([tip; 32]), nbits: NBITS, min_ntime: UNIX_SECONDS - 600 },
        height: 840_000,
        version: 0x2000_0000,
        cur_time: UNIX_SECONDS,
        coinbase_value: 312_500_000,
        witness_commitment: [0x6a; 38],
        transactions: Vec::new().into(),
        merkle_path: (0..PATH_NODES).map(|node| MerkleNode([node as u8; 32])).collect(),
        rules: None,
        max_ntime: None,
    };
    let payouts = [22, 34, 44].map(|bytes| Payout { script_pubkey: vec![0x51; bytes], share: 1 });
    Arc::new(Job::new(Arc::new(template), &payouts, b"/ReserveGrid/", EXTRANONCE_BYTES).unwrap())
}

impl Desk {
    /// A shard with work on the board. `watch` is told when the gateway's code runs.
    pub fn new(watch: Watch) -> Desk {
        let mut entropy = ChaCha20Rng::seed_from_u64(1);
        let authority = AuthorityKey::generate(&mut entropy).unwrap();
        let static_key = StaticKey::generate(&mut entropy);
        let identity =
            Identity::issue(&authority, static_key, UNIX_SECONDS, CERTIFICATE_SECONDS).unwrap();
        let now = Now { mono: Mono(1_000_000), unix: UnixTime(u64::from(UNIX_SECONDS) * 1_000) };
        let mut desk = Desk {
            shard: Shard::new(settings(), Arc::new(admission()), authority, identity, entropy),
            out: Output::default(),
            now,
            shares: 0,
            sequence: 0,
            watch,
            wire: Vec::with_capacity(64 * 1024),
        };
        desk.publish(job(1, 1));
        desk
    }

    /// From now on this is told when the gateway's code runs.
    pub fn set_watch(&mut self, watch: Watch) {
        self.watch = watch;
    }

    /// Put a job on the board.
    pub fn publish(&mut self, job: Arc<Job>) {
        let update = BoardUpdate::Publish { job, tip_seen: self.now.mono };
        self.shard.on_board(self.now, update);
    }

    /// A miner connects, and opens a channel.
    pub fn seat(&mut self, number: u32) -> Seat {
        let id = ConnectionId((1 << 32) | u64::from(number));
        self.shard.on_turn();
        self.shard.on_accept(self.now, id, IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
        let config = MinerConfig { user_identity: format!("m.{number}"), ..Default::default() };
        let mut seat = Seat {
            id,
            miner: Miner::new(config, u64::from(number)),
            to_gateway: Vec::with_capacity(64 * 1024),
        };
        seat.miner.on_connected(self.now, &mut seat.to_gateway);
        while !seat.to_gateway.is_empty() {
            self.deliver(&mut seat);
        }
        assert!(seat.miner.current_job().is_some(), "an open channel has a job");
        seat
    }

    /// Let the shard read everything the miner wrote, at one go.
    pub fn deliver(&mut self, seat: &mut Seat) {
        let mut bytes = std::mem::take(&mut seat.to_gateway);
        let now = self.now;
        let id = seat.id;
        self.gateway(seat, |shard, out| shard.on_bytes(id, now, &mut bytes, out));
        bytes.clear();
        if seat.to_gateway.is_empty() {
            seat.to_gateway = bytes;
        }
    }

    /// All shares so far are on disk: their miner is told.
    pub fn acknowledge(&mut self, seat: &mut Seat) {
        (self.watch)(true);
        self.shard.on_durable(self.now, self.sequence);
        (self.watch)(false);
        self.catch_up(seat);
    }

    /// Visit the one connection that has something to do, until it has nothing more.
    pub fn catch_up(&mut self, seat: &mut Seat) {
        loop {
            (self.watch)(true);
            let ready = self.shard.next_ready(self.now, SHARES_PER_TURN);
            (self.watch)(false);
            let Some(id) = ready else { return };
            assert_eq!(id, seat.id, "only this miner has anything to be told");
            let now = self.now;
            self.gateway(seat, |shard, out| shard.step(id, now, out));
        }
    }

    /// One step as a driver does it: credit, step, entries, bytes, and the completed send.
    pub fn gateway(&mut self, seat: &mut Seat, step: impl FnOnce(&mut Shard, &mut Output) -> Flow) {
        let wire = std::mem::take(&mut self.wire);
        (self.watch)(true);
        self.out.begin(SHARES_PER_TURN, wire);
        let flow = step(&mut self.shard, &mut self.out);
        (self.watch)(false);
        assert_eq!(flow, Flow::Continue, "an honest miner is neither closed nor paused");
        for entry in self.out.entries.drain(..) {
            if let Entry::Share(record) = entry {
                self.shares += 1;
                self.sequence = record.sequence;
            }
        }
        assert!(self.out.solutions.is_empty(), "no share of a test is a block");
        let mut wire = std::mem::take(&mut self.out.wire);
        if wire.is_empty() {
            self.wire = wire;
            return;
        }
        seat.miner.on_bytes(self.now, &mut wire, &mut seat.to_gateway).unwrap();
        seat.miner.drain_events();
        (self.watch)(true);
        self.out.begin(SHARES_PER_TURN, wire);
        let flow = self.shard.on_sent(seat.id, self.now, &mut self.out);
        (self.watch)(false);
        assert_eq!(flow, Flow::Continue);
        assert!(self.out.wire.is_empty(), "nothing waited behind this send");
        self.wire = std::mem::take(&mut self.out.wire);
    }
}

impl Seat {
    /// The miner writes `count` shares for the gateway to read; each costs it one hash or so.
    pub fn submit(&mut self, now: Now, count: u32) {
        let mut shares = 0;
        while shares < count {
            let mined = self.miner.mine(now, 1, &mut self.to_gateway).unwrap();
            assert!(mined.hashes > 0, "a miner with a job and room for shares hashes");
            shares += mined.shares;
        }
        self.miner.drain_events();
    }
}
