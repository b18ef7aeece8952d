//! One start of the gateway: the production machines with their rings, as `src/drive` wires them.

use std::collections::VecDeque;
use std::sync::Arc;

use gateway::limits::{BOARD_RING, CANDIDATES_MAX, CERTIFICATE_SECONDS, TOLD_RING};
use gateway::machine::admission::{Admission, AuthInput};
use gateway::machine::board::BoardUpdate;
use gateway::machine::command::Command;
use gateway::machine::control::{Control, ControlSettings};
use gateway::machine::forwarder::{Forwarder, ForwarderSettings, Found, Posted};
use gateway::machine::output::ConnectionId;
use gateway::machine::shard::{Shard, ShardSettings};
use gateway::machine::solution::{Block, NodeAnswer, Submissions};
use gateway::machine::told::Told;
use gateway::machine::verifier_link::{Caller, VerifierLink};
use gateway::machine::{Entry, Output, Report, Solution};
use gateway::mode::{FailurePolicy, Mode};
use journal::writer::{DiskAction, Writer};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sv2::{AuthorityKey, Identity, StaticKey};
use work::contract::feed::NodeAccess;
use work::contract::verifier::ProposeReason;
use work::payout::{Network, Payout};
use work::{BlockHash, Job, Mono, Now, Template, Verdict};

use crate::chance::Chance;
use crate::checkers::Wire;
use crate::disk::Luck;
use crate::faults::{Auth, Faults};

/// Milliseconds of the gateway's timers, short enough to matter in a world of minutes.
const HANDSHAKE_MILLIS: u64 = 8_000;
const SETUP_MILLIS: u64 = 20_000;
const IDLE_MILLIS: u64 = 180_000;
const VERDICT_MILLIS: u64 = 50;
const HOLD_MILLIS: u64 = 5_000;
const BROADCAST_MILLIS: u64 = 1_000;
pub const TEMPLATE_AGE_MILLIS: u64 = 30_000;
const NONCE_EXPIRE_SECONDS: u64 = 600;
/// Hashes for which a channel has room between two jobs.
pub const SEEN_ROOM: usize = 200;
const CONNECTIONS_MAX: usize = 64;
/// The secret of all miners, and that of a prefix of their names.
pub const RIGHT_SECRET: &str = "swordfish";
pub const SHORTER_SECRET: &str = "plaice";

/// A bounded queue with credit, as between two cores.
pub struct Ring<T> {
    queue: VecDeque<T>,
    capacity: usize,
}

impl<T> Ring<T> {
    pub fn new(capacity: usize) -> Ring<T> {
        Ring { queue: VecDeque::new(), capacity }
    }

    pub fn credit(&self) -> usize {
        self.capacity - self.queue.len()
    }

    /// Whether there was room.
    #[must_use]
    pub fn send(&mut self, item: T) -> bool {
        let has_room = self.queue.len() < self.capacity;
        if has_room {
            self.queue.push_back(item);
        }
        has_room
    }

    pub fn pop(&mut self) -> Option<T> {
        self.queue.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// For a plant: the two newest change places, if both are `wanted`.
    pub fn swap_newest(&mut self, wanted: impl Fn(&T) -> bool) -> bool {
        let len = self.queue.len();
        let can = len >= 2 && self.queue.range(len - 2..).all(wanted);
        if can {
            self.queue.swap(len - 1, len - 2);
        }
        can
    }
}

/// What a shard's ring of sockets tells it.
pub enum NetEvent {
    Accepted(Wire),
    Received(Wire, Vec<u8>),
    Closed(Wire),
    Sent(Wire),
}

/// One shard core.
pub struct ShardCore {
    pub shard: Shard,
    pub board: Ring<(BoardUpdate, Option<usize>)>,
    pub solutions: Ring<Solution>,
    pub entries: Ring<Entry>,
    pub reports: Ring<Report>,
    /// The number that the forwarder shows, and the one the shard has read.
    pub durable: u64,
    pub durable_read: u64,
    pub events: VecDeque<NetEvent>,
    pub out: Output,
    /// By slot: who is there.
    pub tenants: Vec<Option<(ConnectionId, Wire)>>,
    pub tenancy: u64,
    pub solutions_waiting: Vec<Solution>,
    /// Connections that it was told are gone, for the books.
    pub ends: u64,
    pub is_draining: bool,
}

/// What the control core hears.
pub enum Fact {
    Template(Arc<Template>),
    SourceConnected(Vec<NodeAccess>),
    SourceLost,
    Verifier(bool),
    Verdict(Verdict),
    PolicyChanged,
    NodeAnswer(NodeAccess, BlockHash, NodeAnswer),
}

/// The control core.
pub struct ControlCore {
    pub control: Control,
    pub submissions: Submissions,
    pub facts: VecDeque<Fact>,
}

/// The forwarder core.
pub struct ForwarderCore {
    pub forwarder: Forwarder,
    pub answers: VecDeque<(u64, Posted)>,
    pub told: Ring<Told>,
    pub commands: VecDeque<Command>,
    /// What the disk has under way, and how it will end.
    pub doing: Option<(DiskAction, Luck)>,
    /// When the free space is looked at again.
    pub look_at: Mono,
    /// Nothing more will come: the last segment is completed.
    pub is_closing: bool,
    /// Shard that is looked at first.
    pub first: usize,
}

/// The thread that talks to the verifier.
pub struct LinkThread {
    pub link: VerifierLink,
    pub proposals: VecDeque<(Arc<Job>, ProposeReason)>,
    pub is_connected: bool,
    /// Counts connections, so that lines of an old one are known.
    pub connection: u64,
}

impl LinkThread {
    /// Proposals that wait for the link at the most.
    pub const PROPOSALS_MAX: usize = 4 * CANDIDATES_MAX;
}

/// What a start finds on its disks.
pub struct Disks {
    pub nodes: Vec<NodeAccess>,
    pub stored: Vec<Block>,
    pub journal: (Writer, Found),
}

/// One start of the gateway.
pub struct Process {
    pub shards: Vec<ShardCore>,
    pub control: ControlCore,
    pub forwarder: ForwarderCore,
    pub link: LinkThread,
}

impl Process {
    /// Start with `epoch`.
    pub fn start(
        now: Now,
        epoch: u16,
        faults: &Faults,
        authority: &AuthorityKey,
        disks: Disks,
        chance: &mut Chance,
    ) -> Process {
        let mut submissions = Submissions::default();
        submissions.on_nodes(now, disks.nodes);
        for block in disks.stored {
            submissions.on_block(now, block);
        }
        let caller = Caller {
            gateway_id: "gw-7".into(),
            network: Network::Regtest,
            instance_id: 7,
            epoch,
            deadline_ms: VERDICT_MILLIS,
        };
        Process {
            shards: (0..faults.shards)
                .map(|number| shard_core(now, number, epoch, faults, authority, chance))
                .collect(),
            control: ControlCore {
                control: Control::new(control_settings(faults)),
                submissions,
                facts: VecDeque::new(),
            },
            forwarder: forwarder_core(now, epoch, faults, disks.journal),
            link: LinkThread {
                link: VerifierLink::new(caller),
                proposals: VecDeque::new(),
                is_connected: false,
                connection: 0,
            },
        }
    }
}

fn forwarder_core(
    now: Now,
    epoch: u16,
    faults: &Faults,
    (writer, found): (Writer, Found),
) -> ForwarderCore {
    let settings = ForwarderSettings {
        shards: faults.shards,
        epoch,
        queue_size: faults.queue,
        max_in_flight: faults.in_flight,
        batch_interval_ms: faults.batch_millis,
        attempts_max: faults.attempts_max,
        backoff_max_ms: faults.backoff_millis,
        retention_days: u64::from(faults.days),
        batch_prefix: format!("bat_0007{epoch:04x}"),
    };
    ForwarderCore {
        forwarder: Forwarder::new(settings, writer, found, now),
        answers: VecDeque::new(),
        told: Ring::new(TOLD_RING),
        commands: VecDeque::new(),
        doing: None,
        look_at: Mono(0),
        is_closing: false,
        first: 0,
    }
}

/// Who may open channels, with which secret; the longer prefix goes before the shorter.
fn auth_input(auth: Auth) -> AuthInput<'static> {
    match auth {
        Auth::Open => AuthInput::Open,
        Auth::Allowlist => AuthInput::Allowlist(&[("miner", RIGHT_SECRET), ("wild", "secret")]),
        Auth::PrefixMap => AuthInput::PrefixMap(&[
            ("mi", SHORTER_SECRET),
            ("miner.", RIGHT_SECRET),
            ("wild", "secret"),
        ]),
    }
}

fn shard_core(
    now: Now,
    number: usize,
    epoch: u16,
    faults: &Faults,
    authority: &AuthorityKey,
    chance: &mut Chance,
) -> ShardCore {
    let mut entropy = ChaCha20Rng::from_seed(chance.bytes32());
    let static_key = StaticKey::generate(&mut entropy);
    let seconds = now.unix.seconds();
    let identity = Identity::issue(authority, static_key, seconds, CERTIFICATE_SECONDS).unwrap();
    let copy = authority.to_text().parse().unwrap();
    ShardCore {
        shard: Shard::new(
            shard_settings(number, epoch, faults),
            Arc::new(Admission::new(auth_input(faults.auth), 255, [1; 32])),
            copy,
            identity,
            entropy,
        ),
        board: Ring::new(BOARD_RING),
        solutions: Ring::new(faults.solution_ring),
        entries: Ring::new(faults.share_ring),
        reports: Ring::new(faults.report_ring),
        durable: 0,
        durable_read: 0,
        events: VecDeque::new(),
        out: Output::default(),
        tenants: Vec::new(),
        tenancy: 0,
        solutions_waiting: Vec::new(),
        ends: 0,
        is_draining: false,
    }
}

fn shard_settings(number: usize, epoch: u16, faults: &Faults) -> ShardSettings {
    ShardSettings {
        shard: number as u8,
        instance_id: 7,
        epoch,
        extranonce_bytes: faults.extranonce_bytes,
        target_shares_per_minute: faults.pace as f64,
        min_difficulty: 0.5f64.powi(faults.floor_bits as i32),
        version_mask: work::share::VERSION_ROLLING_MASK,
        handshake_timeout_ms: HANDSHAKE_MILLIS,
        setup_timeout_ms: SETUP_MILLIS,
        channel_idle_timeout_ms: IDLE_MILLIS,
        nonce_expire_secs: NONCE_EXPIRE_SECONDS,
        seen_room: SEEN_ROOM,
        max_connections: CONNECTIONS_MAX,
        max_connections_per_ip: 0,
        max_workers_per_channel: faults.workers_max,
        max_channels_per_connection: 6,
    }
}

fn control_settings(faults: &Faults) -> ControlSettings {
    let permits = faults.permits;
    let failure_policy = if permits { FailurePolicy::PermitAll } else { FailurePolicy::FailClosed };
    ControlSettings {
        network: Network::Regtest,
        mode: Mode::Inline,
        failure_policy,
        payouts: vec![Payout { script_pubkey: vec![0x51], share: 1 }],
        coinbase_tag: b"sim".to_vec(),
        extranonce_bytes: faults.extranonce_bytes,
        verdict_timeout_ms: VERDICT_MILLIS,
        stale_hold_ms: HOLD_MILLIS,
        job_broadcast_interval_ms: BROADCAST_MILLIS,
        template_max_age_ms: TEMPLATE_AGE_MILLIS,
    }
}
