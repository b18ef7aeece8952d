//! A whole connection against the real machine of a shard: a real miner's transport seals whatever
//! the input says, so that it passes the cipher, and the bytes arrive cut anywhere, with noise
//! between them, while work comes, time passes, sends complete late and credit runs out.
//!
//! What must hold whatever a miner does: nothing panics; every byte the gateway writes opens and
//! decodes; no send is begun behind one in flight; what a connection holds and writes is bounded;
//! no entry is written without credit; no share is acknowledged before it is durable, and none
//! twice; a solution meets its target and makes a block.
//!
//! Input: steps, each a selector (U8, modulo 16) and what [`World::step`] reads for it. A step
//! that is cut short is filled with zeros.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use gateway::limits::{
    CERTIFICATE_SECONDS, SHARES_PER_TURN, STASH_BYTES_MAX, WIRE_BYTES_PER_TURN, WIRE_WAITING_MAX,
};
use gateway::machine::admission::{Admission, AuthInput};
use gateway::machine::board::BoardUpdate;
use gateway::machine::output::ConnectionId;
use gateway::machine::shard::{Shard, ShardSettings};
use gateway::machine::{Entry, Flow, Output};
use gateway::reason::CloseCause;
use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sv2::message::common::SetupConnection;
use sv2::message::extension::RequestExtensions;
use sv2::message::mining::{
    CloseChannel, OpenExtendedMiningChannel, OpenStandardMiningChannel, SubmitSharesExtended,
    SubmitSharesStandard, UpdateChannel,
};
use sv2::{
    ACT2_BYTES, AuthorityKey, Ephemeral, FrameHeader, Identity, Initiator, Message, Opened,
    StaticKey, ToMiner, Transport,
};
use work::payout::Payout;
use work::{BlockHash, Job, Mono, Now, Target, Template, TemplateId, Tip, UnixTime};

/// Steps of one input.
const STEPS_MAX: usize = 512;
/// Visits of the connection behind one step.
const VISITS_MAX: usize = 64;
/// Looks at what a connection leaves behind: each takes a frame at least off a full stash.
const LAST_LOOKS_MAX: usize = STASH_BYTES_MAX / 22 + 1;
/// Unix time at which every input begins, seconds.
const START: u32 = 1_800_000_000;
/// What a connection may hold beside its stash and what waits to be sent.
const OTHER_BYTES: usize = 256 * 1024;

const ID: ConnectionId = ConnectionId(1 << 32);

fn settings() -> ShardSettings {
    ShardSettings {
        shard: 0,
        instance_id: 1,
        epoch: 1,
        extranonce_bytes: 24,
        target_shares_per_minute: 60.0,
        min_difficulty: 0.0,
        version_mask: work::share::VERSION_ROLLING_MASK,
        handshake_timeout_ms: 5_000,
        setup_timeout_ms: 10_000,
        channel_idle_timeout_ms: 60_000,
        nonce_expire_secs: 60,
        seen_room: 64,
        max_connections: 4,
        max_connections_per_ip: 0,
        max_channels_per_connection: 8,
        max_workers_per_channel: 4,
    }
}

fn random() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

static AUTHORITY: LazyLock<[u8; 32]> = LazyLock::new(|| [0x31; 32]);

/// Jobs on three tips: of every second hash a block, of none, of every 256th.
static JOBS: LazyLock<Vec<Arc<Job>>> = LazyLock::new(|| {
    [0x207f_ffff, 0x1d00_ffff, 0x2000_ffff]
        .iter()
        .enumerate()
        .map(|(n, bits)| job(n, *bits))
        .collect()
});

fn job(number: usize, nbits: u32) -> Arc<Job> {
    let prev_hash = BlockHash([u8::try_from(number).expect("a few jobs") + 1; 32]);
    let template = Template {
        id: TemplateId(number as u64 + 1),
        tip: Tip { prev_hash, nbits, min_ntime: START - 600 },
        height: 840_000,
        version: 0x2000_0000,
        cur_time: START,
        coinbase_value: 312_500_000,
        witness_commitment: [0x6a; 38],
        transactions: Vec::new().into(),
        merkle_path: vec![Default::default(); 12],
        rules: None,
        max_ntime: None,
    };
    let payouts = [Payout { script_pubkey: vec![0x51; 22], share: 1 }];
    Arc::new(Job::new(Arc::new(template), &payouts, b"/ReserveGrid/", 24).expect("a job"))
}

/// The input, filled with zeros behind its end.
struct Plan<'a>(&'a [u8]);

impl<'a> Plan<'a> {
    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let start = self.slice(N);
        bytes[..start.len()].copy_from_slice(start);
        bytes
    }

    fn slice(&mut self, count: usize) -> &'a [u8] {
        let (start, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        start
    }

    /// A target: of the easiest, of none, or of these high bytes.
    fn target(&mut self) -> [u8; 32] {
        match self.byte() {
            0 => [0xff; 32],
            1 => [0; 32],
            high => {
                let mut target = [0; 32];
                target[31 - usize::from(high) % 32] = high;
                target
            }
        }
    }
}

struct World {
    shard: Shard,
    out: Output,
    now: Now,
    miner: Transport,
    /// Sealed or noise, not yet delivered.
    up: Vec<u8>,
    in_flight: Option<Vec<u8>>,
    credit: usize,
    is_paused: bool,
    is_over: bool,
    sequence: u64,
    durable: u64,
    acknowledged: u64,
    submitted: u32,
    /// Channels that were opened, and the newest job, as far as the miner has read.
    channels: Vec<u32>,
    newest_job: u32,
}

impl World {
    /// A connection behind its handshake.
    fn new() -> World {
        let mut entropy = random();
        let authority = AuthorityKey::from_secret_bytes(*AUTHORITY).expect("a key");
        let key = StaticKey::generate(&mut entropy);
        let identity = Identity::issue(&authority, key, START, CERTIFICATE_SECONDS);
        let (initiator, act1) = Initiator::new(None, Ephemeral::generate(&mut entropy));
        let now = Now { mono: Mono(1_000_000), unix: UnixTime(u64::from(START) * 1_000) };
        let identity = identity.expect("an identity");
        let admission = Arc::new(Admission::new(AuthInput::Open, 255, [1; 32]));
        let mut shard = Shard::new(settings(), admission, authority, identity, entropy);
        let mut out = Output::default();
        shard.on_turn();
        shard.on_accept(now, ID, IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("there is room");
        out.begin(SHARES_PER_TURN, Vec::new());
        assert_eq!(shard.on_bytes(ID, now, &mut act1.to_vec(), &mut out), Flow::Continue);
        let act2: [u8; ACT2_BYTES] = out.wire.as_slice().try_into().expect("act 2 and no more");
        let miner = initiator.finish(&act2, START).expect("our own handshake");
        let in_flight = Some(Vec::new());
        World {
            shard,
            out,
            now,
            miner,
            up: Vec::new(),
            in_flight,
            credit: SHARES_PER_TURN,
            is_paused: false,
            is_over: false,
            sequence: 0,
            durable: 0,
            acknowledged: 0,
            submitted: 0,
            channels: Vec::new(),
            newest_job: 0,
        }
    }

    fn seal<M: Message>(&mut self, message: &M) {
        self.miner.seal(message, &mut self.up).expect("nonces last");
    }

    fn step(&mut self, plan: &mut Plan<'_>) {
        match plan.byte() % 16 {
            0 => {
                let [e0, e1, msg_type, units] = plan.array();
                let extension_type = u16::from_le_bytes([e0, e1]);
                let payload = plan.slice(usize::from(units) * 8);
                let header =
                    FrameHeader { extension_type, channel_msg: false, msg_type, msg_length: 0 };
                self.miner.seal_frame(header, payload, &mut self.up).expect("nonces last");
            }
            1 => self.set_up(plan.array()),
            2 | 3 => self.open(plan),
            4 | 5 => self.submit(plan),
            6 => {
                let [channel, r0, r1, r2, r3] = plan.array();
                let update = UpdateChannel {
                    channel_id: self.channel_id(channel),
                    nominal_hash_rate: f32::from_le_bytes([r0, r1, r2, r3]),
                    maximum_target: plan.target(),
                };
                self.seal(&update);
            }
            7 => {
                let channel_id = self.channel_id(plan.byte());
                self.seal(&CloseChannel { channel_id, reason_code: b"" });
            }
            8 => {
                let list: Vec<u16> = plan.array::<4>().map(u16::from).to_vec();
                let requested_extensions = list.as_slice().into();
                self.seal(&RequestExtensions { request_id: 7, requested_extensions });
            }
            9 => self.deliver(plan.byte()),
            10 => {
                let count = plan.byte().into();
                self.up.extend_from_slice(plan.slice(count));
            }
            11 => self.complete_send(),
            12 => self.pass_time(plan.byte()),
            13 => self.publish(plan.byte()),
            14 => self.make_durable(),
            _ => self.credit = usize::from(plan.byte()) % (SHARES_PER_TURN + 1),
        }
        self.visit();
    }

    /// One of the channels that were opened, or the number itself.
    fn channel_id(&self, channel: u8) -> u32 {
        let at = usize::from(channel) % self.channels.len().max(1);
        let number = u32::from(channel % 128);
        if channel < 128 { self.channels.get(at).copied().unwrap_or(number) } else { number }
    }

    fn set_up(&mut self, [flags, protocol]: [u8; 2]) {
        self.seal(&SetupConnection {
            protocol: protocol / 128,
            min_version: 2,
            max_version: 2,
            flags: flags.into(),
            endpoint_host: b"h",
            endpoint_port: 1,
            vendor: b"v",
            hardware_version: b"",
            firmware: b"\xff",
            device_id: b"",
        });
    }

    fn open(&mut self, plan: &mut Plan<'_>) {
        let [kind, size, rate] = plan.array();
        let max_target = plan.target();
        // A name like any, or whatever the input says.
        let length = usize::from(size);
        let user_identity = if kind < 128 { &b"m.1"[..] } else { plan.slice(length) };
        let request_id = kind.into();
        // Rates of 0, of thousandths, and what is no rate.
        let nominal_hash_rate = if rate == 255 { f32::NAN } else { f32::from(rate) / 1_000.0 };
        if kind % 2 == 0 {
            self.seal(&OpenStandardMiningChannel {
                request_id,
                user_identity,
                nominal_hash_rate,
                max_target,
            });
        } else {
            self.seal(&OpenExtendedMiningChannel {
                request_id,
                user_identity,
                nominal_hash_rate,
                max_target,
                min_extranonce_size: size.into(),
            });
        }
    }

    fn submit(&mut self, plan: &mut Plan<'_>) {
        let [kind, channel, job, nonce, off, version, size, tlv] = plan.array();
        self.submitted += 1;
        let sequence_number = self.submitted;
        let (channel_id, nonce) = (self.channel_id(channel), nonce.into());
        // So many jobs back, or the number itself.
        let job_id =
            if job < 128 { self.newest_job.wrapping_sub(job.into()) } else { (job - 128).into() };
        let ntime = START.wrapping_add_signed(i32::from(off.cast_signed()) * 8);
        let version = 0x2000_0000 | (u32::from(version) << 5);
        if kind % 2 == 0 {
            self.seal(&SubmitSharesStandard {
                channel_id,
                sequence_number,
                job_id,
                nonce,
                ntime,
                version,
            });
        } else {
            let extranonce = [size; 32];
            let worker = [2, 0, 1, 2, 0, b'w', b'0' + tlv % 8];
            self.seal(&SubmitSharesExtended {
                channel_id,
                sequence_number,
                job_id,
                nonce,
                ntime,
                version,
                extranonce: &extranonce[..usize::from(size) % 33],
                tlv: &worker[..usize::from(tlv) % 8],
            });
        }
    }

    /// What was written arrives: so many bytes of it, or all of it (0).
    fn deliver(&mut self, count: u8) {
        let count = if count == 0 { usize::MAX } else { usize::from(count) };
        if self.is_paused || self.up.is_empty() {
            return;
        }
        let rest = self.up.split_off(count.min(self.up.len()));
        let mut bytes = std::mem::replace(&mut self.up, rest);
        self.turn(|shard, now, out| shard.on_bytes(ID, now, &mut bytes, out));
    }

    /// The send in flight is done, and the miner reads it.
    fn complete_send(&mut self) {
        let Some(wire) = self.in_flight.take() else { return };
        self.read(wire);
        self.turn(|shard, now, out| shard.on_sent(ID, now, out));
    }

    fn pass_time(&mut self, count: u8) {
        // A quarter of a second, or a good while.
        let millis = u64::from(count) * if count < 128 { 2 } else { 250 };
        self.now.mono.0 += millis * 1_000;
        self.now.unix.0 += millis;
        self.shard.on_turn();
        self.shard.on_tick(self.now);
        while let Some((id, _)) = self.shard.next_overdue(self.now) {
            assert_eq!(id, ID);
            self.end();
            if self.is_over {
                return;
            }
        }
    }

    fn publish(&mut self, kind: u8) {
        let update = match kind {
            0 => BoardUpdate::Hold,
            1 => BoardUpdate::Resume,
            2 => BoardUpdate::Expire,
            _ => {
                let job = Arc::clone(&JOBS[usize::from(kind) % JOBS.len()]);
                BoardUpdate::Publish { job, tip_seen: self.now.mono }
            }
        };
        self.shard.on_board(self.now, update);
    }

    fn make_durable(&mut self) {
        self.durable = self.sequence;
        self.shard.on_durable(self.now, self.durable);
    }

    /// Do what is due for the connection.
    fn visit(&mut self) {
        for _ in 0..VISITS_MAX {
            if self.is_over {
                return;
            }
            let Some(id) = self.shard.next_ready(self.now, self.credit) else { return };
            assert_eq!(id, ID);
            self.turn(|shard, now, out| shard.step(ID, now, out));
        }
    }

    fn turn(&mut self, step: impl FnOnce(&mut Shard, Now, &mut Output) -> Flow) {
        self.out.begin(self.credit, Vec::new());
        let flow = step(&mut self.shard, self.now, &mut self.out);
        self.take();
        let wire = std::mem::take(&mut self.out.wire);
        assert!(wire.len() <= WIRE_WAITING_MAX + WIRE_BYTES_PER_TURN, "{} bytes", wire.len());
        if !wire.is_empty() {
            assert!(self.in_flight.is_none(), "a send behind the one in flight");
            self.in_flight = Some(wire);
        }
        let held = self.shard.connection_bytes(ID);
        assert!(held <= STASH_BYTES_MAX + WIRE_WAITING_MAX + OTHER_BYTES, "it holds {held} bytes");
        match flow {
            Flow::Continue => self.is_paused = false,
            Flow::Wait => self.is_paused = true,
            Flow::Close(_) => self.end(),
        }
    }

    /// What a step says besides bytes.
    fn take(&mut self) {
        assert!(self.out.entries.len() <= self.credit);
        for entry in self.out.entries.drain(..) {
            let (Entry::Share(record) | Entry::ShareOfNewWorker { record, .. }) = entry else {
                continue;
            };
            self.sequence += 1;
            assert_eq!(record.sequence, self.sequence, "accepted shares count without gaps");
        }
        for solution in self.out.solutions.drain(..) {
            let target = Target::from_nbits(solution.job.template.tip.nbits).expect("bits");
            assert!(target.is_met_by(&solution.hash));
            assert_eq!(work::hash::sha256d(&solution.header), solution.hash.0);
            work::block::assemble(&solution.header, &solution.job, &solution.extranonce)
                .expect("a solution makes a block");
        }
    }

    /// What the gateway wrote opens and decodes, and acknowledges nothing that is not safe.
    fn read(&mut self, mut wire: Vec<u8>) {
        let mut rest = wire.as_mut_slice();
        while !rest.is_empty() {
            let consumed = match self.miner.open(rest) {
                Opened::Frame { frame, consumed } => {
                    match ToMiner::decode(&frame).expect("what we write decodes") {
                        ToMiner::Unknown { .. } => panic!("a message nobody knows"),
                        ToMiner::SubmitSharesSuccess(success) => {
                            self.acknowledged += u64::from(success.new_submits_accepted_count);
                        }
                        ToMiner::OpenStandardMiningChannelSuccess(opened) => {
                            self.channels.push(opened.channel_id);
                        }
                        ToMiner::OpenExtendedMiningChannelSuccess(opened) => {
                            self.channels.push(opened.channel_id);
                        }
                        ToMiner::NewMiningJob(job) => self.newest_job = job.job_id,
                        ToMiner::NewExtendedMiningJob(job) => self.newest_job = job.job_id,
                        _ => (),
                    }
                    consumed
                }
                other => panic!("a send ends with a whole frame: {other:?}"),
            };
            rest = &mut rest[consumed..];
        }
        assert!(self.acknowledged <= self.durable, "acknowledged before it was durable");
    }

    /// The connection ends: what is left in it is looked at for blocks and shares.
    fn end(&mut self) {
        self.is_over = true;
        for _ in 0..LAST_LOOKS_MAX {
            self.out.begin(self.credit, Vec::new());
            let has_more = self.shard.on_last_look(ID, self.now, &mut self.out);
            assert!(self.out.wire.is_empty());
            self.take();
            if !has_more {
                self.shard.on_gone(self.now, ID, CloseCause::PeerGone.into());
                assert_eq!(self.shard.live(), 0);
                return;
            }
        }
        panic!("a last look never ends");
    }
}

fuzz_target!(|input: &[u8]| {
    let mut world = World::new();
    let mut plan = Plan(input);
    for _ in 0..STEPS_MAX {
        if world.is_over || plan.0.is_empty() {
            break;
        }
        world.step(&mut plan);
    }
    if !world.is_over {
        world.deliver(0);
    }
    if let Some(wire) = world.in_flight.take() {
        world.read(wire);
    }
    if !world.is_over {
        world.end();
    }
});
