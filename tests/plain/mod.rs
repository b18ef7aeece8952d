//! A shard and peers that may say anything to it, in memory.
//!
//! Unlike the miners of the load generator, a [`Peer`] has no opinion: it seals whatever a test
//! tells it to, and keeps every message that it hears.

#![allow(dead_code)] // Each test file uses a part.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gateway::limits::{CERTIFICATE_SECONDS, SHARES_PER_TURN};
use gateway::machine::board::BoardUpdate;
use gateway::machine::output::ConnectionId;
use gateway::machine::shard::{Shard, ShardSettings};
use gateway::machine::{Entry, Flow, Output, Report, ShareRecord, Solution};
use gateway::metrics::shard as counter;
use gateway::reason::{Close, CloseCause, Reason};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sv2::message::common::{PROTOCOL_MINING, PROTOCOL_VERSION, SetupConnection};
use sv2::message::mining::{
    OpenExtendedMiningChannel, OpenStandardMiningChannel, SubmitSharesExtended,
    SubmitSharesStandard,
};
use sv2::{
    ACT1_BYTES, AuthorityKey, AuthorityPublicKey, Ephemeral, Frame, FrameHeader, Identity,
    Initiator, Message, NoiseError, Opened, StaticKey, ToMiner, Transport,
};
use work::share::Claim;
use work::{BlockHash, Job, MerkleNode, Mono, Now, Target, UnixTime, Work};

#[path = "../in_memory/mod.rs"]
pub mod in_memory;

#[allow(unused_imports)] // Each test file uses a part.
pub use in_memory::{EXTRANONCE_BYTES, UNIX_SECONDS, job, settings};

/// Most steps that one delivery may take.
const STEPS_MAX: usize = 10_000;

/// A shard, its peers' bytes, and all that it wrote for others.
pub struct House {
    /// The machine.
    pub shard: Shard,
    /// The time, moved by tests.
    pub now: Now,
    /// Accepted shares, with the names of new workers.
    pub shares: Vec<(ShareRecord, Option<Arc<str>>)>,
    /// Channels opened: miner and extranonce prefix.
    pub opened: Vec<(Arc<str>, Vec<u8>)>,
    /// Blocks.
    pub solutions: Vec<Solution>,
    /// Acknowledgements: sequence of the last share, how many, their work.
    pub acknowledged: Vec<(u64, u32, Work)>,
    /// Why channels ended, by their miners.
    pub ended: Vec<&'static str>,
    /// What is told beside the entries.
    pub reports: Vec<Report>,
    /// Slots of the share ring that a step has.
    pub credit: usize,
    /// The work on the board.
    pub job: Arc<Job>,
    mail: BTreeMap<ConnectionId, Mail>,
    /// Peers that take nothing: a send to them is in flight until they do.
    slow: BTreeSet<ConnectionId>,
    next_peer: u64,
    authority: AuthorityPublicKey,
    entropy: ChaCha20Rng,
}

/// What was sent to one peer.
#[derive(Default)]
struct Mail {
    bytes: Vec<u8>,
    closed: Option<Close>,
}

/// One peer.
pub struct Peer {
    /// Its connection.
    pub id: ConnectionId,
    /// Its cipher, after the handshake.
    pub transport: Option<Transport>,
    /// Plain frames it has heard and no test has looked at, oldest first.
    pub heard: Vec<(FrameHeader, Vec<u8>)>,
    /// Why it was closed.
    pub closed: Option<Close>,
    /// Sealed bytes that it received and not opened.
    received: Vec<u8>,
}

impl House {
    /// A shard with work on its board.
    pub fn new() -> House {
        House::with(settings())
    }

    /// A shard with these settings and work on its board.
    pub fn with(settings: ShardSettings) -> House {
        let mut house = House::without_work(settings);
        house.publish(job(1, 1));
        house
    }

    /// A shard whose board is empty.
    pub fn without_work(settings: ShardSettings) -> House {
        let mut entropy = ChaCha20Rng::seed_from_u64(settings.epoch.into());
        let authority = AuthorityKey::generate(&mut entropy).unwrap();
        let public = authority.public();
        let static_key = StaticKey::generate(&mut entropy);
        let identity =
            Identity::issue(&authority, static_key, UNIX_SECONDS, CERTIFICATE_SECONDS).unwrap();
        let now = Now { mono: Mono(1_000_000), unix: UnixTime(u64::from(UNIX_SECONDS) * 1_000) };
        House {
            shard: Shard::new(
                settings,
                Arc::new(in_memory::admission()),
                authority,
                identity,
                entropy.clone(),
            ),
            now,
            shares: Vec::new(),
            opened: Vec::new(),
            solutions: Vec::new(),
            acknowledged: Vec::new(),
            ended: Vec::new(),
            reports: Vec::new(),
            credit: SHARES_PER_TURN,
            job: job(1, 1),
            mail: BTreeMap::new(),
            slow: BTreeSet::new(),
            next_peer: 0,
            authority: public,
            entropy,
        }
    }

    /// Put work on the board; peers hear of it when they next [`House::listen`].
    pub fn publish(&mut self, job: Arc<Job>) {
        self.job = Arc::clone(&job);
        let update = BoardUpdate::Publish { job, tip_seen: self.now.mono };
        self.shard.on_board(self.now, update);
    }

    /// Let time pass.
    pub fn pass(&mut self, millis: u64) {
        self.now.mono = self.now.mono.plus_millis(millis);
        self.now.unix = UnixTime(self.now.unix.0 + millis);
    }

    /// A peer that has connected and said nothing.
    pub fn connect(&mut self) -> Peer {
        self.connect_from(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap()
    }

    /// A peer that connects from an address, if it is admitted.
    pub fn connect_from(&mut self, address: IpAddr) -> Result<Peer, Close> {
        let id = ConnectionId((self.next_peer + 1) << 32 | self.next_peer);
        self.next_peer += 1;
        self.shard.on_turn();
        self.shard.on_accept(self.now, id, address)?;
        Ok(Peer { id, transport: None, heard: Vec::new(), closed: None, received: Vec::new() })
    }

    /// A peer behind its handshake, whose clock is right.
    pub fn greet(&mut self) -> Peer {
        let seconds = self.now.unix.seconds();
        self.greet_at(seconds).unwrap()
    }

    /// A peer behind its handshake, whose clock says this; or why it does not trust the shard.
    pub fn greet_at(&mut self, seconds: u32) -> Result<Peer, NoiseError> {
        let mut peer = self.connect();
        let (initiator, act1) = self.act1();
        self.deliver(&mut peer, &act1);
        let act2 = peer.take_received().try_into().unwrap();
        peer.transport = Some(initiator.finish(&act2, seconds)?);
        Ok(peer)
    }

    /// The first act of a handshake, and who finishes it.
    pub fn act1(&mut self) -> (Initiator, [u8; ACT1_BYTES]) {
        Initiator::new(Some(self.authority), Ephemeral::generate(&mut self.entropy))
    }

    /// A peer behind its setup, with these flags.
    pub fn set_up(&mut self, flags: u32) -> Peer {
        let mut peer = self.greet();
        self.say(&mut peer, &setup(flags));
        let (header, _) = peer.heard.remove(0);
        assert_eq!(header.msg_type, 0x01, "SetupConnection.Success");
        peer
    }

    /// The peer seals a message and the shard reads it.
    pub fn say<M: Message>(&mut self, peer: &mut Peer, message: &M) {
        let bytes = peer.seal(message);
        self.deliver(peer, &bytes);
    }

    /// The peer seals a frame of any type and the shard reads it.
    pub fn say_frame(&mut self, peer: &mut Peer, header: FrameHeader, payload: &[u8]) {
        let bytes = peer.seal_frame(header, payload);
        self.deliver(peer, &bytes);
    }

    /// The shard reads these bytes, and does what follows from them.
    pub fn deliver(&mut self, peer: &mut Peer, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let (id, now) = (peer.id, self.now);
        self.shard.on_turn();
        if peer.closed.is_none() {
            self.step(id, |shard, out| shard.on_bytes(id, now, &mut bytes, out));
        }
        self.listen(peer);
    }

    /// Everybody is given what is due; the peer hears its part.
    pub fn listen(&mut self, peer: &mut Peer) {
        for _ in 0..STEPS_MAX {
            let Some(id) = self.shard.next_ready(self.now, self.credit) else { break };
            let now = self.now;
            self.step(id, |shard, out| shard.step(id, now, out));
        }
        let Some(mail) = self.mail.get_mut(&peer.id) else { return };
        peer.received.append(&mut mail.bytes);
        peer.closed = peer.closed.or(mail.closed);
        peer.open_received();
    }

    /// From now on the peer takes nothing: the next send to it stays in flight.
    pub fn stall(&mut self, peer: &Peer) {
        self.slow.insert(peer.id);
    }

    /// The peer takes what is in flight, and what comes behind it.
    pub fn unstall(&mut self, peer: &mut Peer) {
        self.slow.remove(&peer.id);
        let (id, now) = (peer.id, self.now);
        self.step(id, |shard, out| shard.on_sent(id, now, out));
        self.listen(peer);
    }

    /// All shares so far are safe.
    pub fn make_durable(&mut self) {
        let newest = self.shares.last().map_or(0, |(record, _)| record.sequence);
        self.shard.on_durable(self.now, newest);
    }

    /// Look at the deadlines of all connections; closes a peer whose is over.
    pub fn expire(&mut self, peer: &mut Peer) {
        for _ in 0..STEPS_MAX {
            self.shard.on_turn();
            let Some((id, close)) = self.shard.next_overdue(self.now) else { return };
            if id == peer.id {
                peer.closed = Some(close);
            }
            self.shard.on_gone(self.now, id, close);
        }
    }

    /// The peer goes away.
    pub fn leave(&mut self, peer: Peer) {
        self.shard.on_gone(self.now, peer.id, CloseCause::PeerGone.into());
    }

    /// Shares that were answered with this reason, all peers together.
    pub fn refused_shares(&self, reason: Reason) -> u64 {
        self.shard.state.counters.read(counter::SHARES + 1 + reason as usize)
    }

    /// What was refused for this reason beside shares.
    pub fn refusals(&self, reason: Reason) -> u64 {
        self.shard.state.counters.read(counter::REFUSALS + reason as usize)
    }

    /// One step as a driver does it: credit, step, entries, bytes, and the completed send.
    fn step(&mut self, id: ConnectionId, step: impl FnOnce(&mut Shard, &mut Output) -> Flow) {
        let mut out = Output::default();
        out.begin(self.credit, Vec::new());
        let mut flow = step(&mut self.shard, &mut out);
        loop {
            self.take(&mut out);
            let wire = std::mem::take(&mut out.wire);
            let mail = self.mail.entry(id).or_default();
            mail.bytes.extend_from_slice(&wire);
            if let Flow::Close(close) = flow {
                mail.closed = Some(close);
                self.shard.on_gone(self.now, id, close);
                return;
            }
            if wire.is_empty() || self.slow.contains(&id) {
                return;
            }
            out.begin(self.credit, Vec::new());
            flow = self.shard.on_sent(id, self.now, &mut out);
        }
    }

    fn take(&mut self, out: &mut Output) {
        for entry in out.entries.drain(..) {
            match entry {
                Entry::Share(record) => self.shares.push((record, None)),
                Entry::ShareOfNewWorker { record, worker_id } => {
                    self.shares.push((record, Some(worker_id)));
                }
                Entry::Opened { miner_id, extranonce_prefix, .. } => {
                    self.opened.push((miner_id, extranonce_prefix.to_vec()));
                }
                Entry::Acknowledged { through, count, work, .. } => {
                    self.acknowledged.push((through, count, work));
                }
                Entry::Closed(closed) => self.ended.push(closed.reason_code),
            }
        }
        self.solutions.extend(out.solutions.drain(..));
        self.reports.extend(std::iter::from_fn(|| self.shard.state.reports.pop()));
    }
}

impl Peer {
    /// Sealed bytes of a message.
    pub fn seal<M: Message>(&mut self, message: &M) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.transport.as_mut().unwrap().seal(message, &mut bytes).unwrap();
        bytes
    }

    /// What came and was not opened.
    pub fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    /// Sealed bytes of a frame of any type.
    pub fn seal_frame(&mut self, header: FrameHeader, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.transport.as_mut().unwrap().seal_frame(header, payload, &mut bytes).unwrap();
        bytes
    }

    /// Message types heard since the last look, in order; all of them are forgotten.
    pub fn types(&mut self) -> Vec<u8> {
        self.heard.drain(..).map(|(header, _)| header.msg_type).collect()
    }

    /// The oldest message, taken off; `look` gets it decoded.
    pub fn next<T>(&mut self, look: impl FnOnce(&ToMiner<'_>) -> T) -> T {
        assert!(!self.heard.is_empty(), "nothing was heard");
        let (header, payload) = self.heard.remove(0);
        let frame = Frame { header, payload: &payload };
        look(&ToMiner::decode(&frame).unwrap())
    }

    fn open_received(&mut self) {
        let Some(transport) = &mut self.transport else { return };
        while let Opened::Frame { frame, consumed } = transport.open(&mut self.received) {
            let plain = (frame.header, frame.payload.to_vec());
            self.heard.push(plain);
            self.received.drain(..consumed);
        }
    }
}

/// SetupConnection of a miner with these flags.
pub fn setup(flags: u32) -> SetupConnection<'static> {
    SetupConnection {
        protocol: PROTOCOL_MINING,
        min_version: PROTOCOL_VERSION,
        max_version: PROTOCOL_VERSION,
        flags,
        endpoint_host: b"pool.example",
        endpoint_port: 3333,
        vendor: b"vendor",
        hardware_version: b"hardware",
        firmware: b"firmware",
        device_id: b"device",
    }
}

/// A request for a standard channel without a wish.
pub fn open_standard(request_id: u32) -> OpenStandardMiningChannel<'static> {
    OpenStandardMiningChannel {
        request_id,
        user_identity: b"alice.rig1",
        nominal_hash_rate: 1.0e6,
        max_target: [0xff; 32],
    }
}

/// A request for an extended channel that rolls at least so many bytes.
pub fn open_extended(
    request_id: u32,
    min_extranonce_size: u16,
) -> OpenExtendedMiningChannel<'static> {
    OpenExtendedMiningChannel {
        request_id,
        user_identity: b"alice.rig1",
        nominal_hash_rate: 1.0e6,
        max_target: [0xff; 32],
        min_extranonce_size,
    }
}

/// A channel as a peer knows it, and what it needs to mine on it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerChannel {
    /// Its number.
    pub channel_id: u32,
    /// Its target.
    pub target: Target,
    /// What is not rolled of its extranonce.
    pub extranonce_prefix: Vec<u8>,
    /// Bytes that are rolled; 0 for a standard channel.
    pub extranonce_size: usize,
    /// Its group.
    pub group_channel_id: u32,
}

impl House {
    /// Open a standard channel; the job and the tip behind it are still to be heard.
    pub fn open_standard(&mut self, peer: &mut Peer) -> PeerChannel {
        self.say(peer, &open_standard(77));
        opened(peer)
    }

    /// Open an extended channel; the job and the tip behind it are still to be heard.
    pub fn open_extended(&mut self, peer: &mut Peer, min_extranonce_size: u16) -> PeerChannel {
        self.say(peer, &open_extended(78, min_extranonce_size));
        opened(peer)
    }

    /// Open a channel of either kind for this many hashes a share, a power of two.
    pub fn open_for(&mut self, peer: &mut Peer, is_extended: bool, hashes: u32) -> PeerChannel {
        let nominal_hash_rate = self.rate_for(hashes);
        if is_extended {
            let request = OpenExtendedMiningChannel { nominal_hash_rate, ..open_extended(78, 4) };
            self.say(peer, &request);
        } else {
            let request = OpenStandardMiningChannel { nominal_hash_rate, ..open_standard(77) };
            self.say(peer, &request);
        }
        let channel = opened(peer);
        assert_eq!(channel.target, Target(Target::DIFFICULTY_1.0 << (32 - hashes.ilog2())));
        channel
    }

    /// The hash rate that asks for this many hashes a share.
    pub fn rate_for(&self, hashes: u32) -> f32 {
        let per_minute = self.shard.state.settings.target_shares_per_minute;
        // A little above, because difficulties are rounded down.
        (f64::from(hashes) * per_minute / 60.0 * 1.01) as f32
    }

    /// A share on the work that is on the board now, under the number `job_id`, whose hash `fits`.
    pub fn grind(
        &self,
        channel: &PeerChannel,
        job_id: u32,
        fits: impl Fn(&BlockHash, &Target) -> bool,
    ) -> Share {
        let job = Arc::clone(&self.job);
        let claim = Claim {
            version: job.template.version,
            merkle_root: MerkleNode::default(),
            ntime: UNIX_SECONDS,
            nonce: 0,
        };
        let rolled = vec![0x5a; channel.extranonce_size];
        let channel_id = channel.channel_id;
        let mut share = Share { channel_id, sequence_number: 1, job_id, claim, rolled, job };
        share.mine(channel, fits);
        share
    }

    /// A good share on the work that is on the board now.
    pub fn good(&self, channel: &PeerChannel, job_id: u32) -> Share {
        self.grind(channel, job_id, |hash, target| target.is_met_by(hash))
    }

    /// Submit a share as its channel's kind does; what is answered at once, if anything.
    pub fn submit(&mut self, peer: &mut Peer, share: &Share) -> Result<(), String> {
        if share.rolled.is_empty() {
            self.say(peer, &share.standard());
        } else {
            self.say(peer, &share.extended(&[]));
        }
        self.answer(peer)
    }

    /// The refusal of a share that is the last thing heard, if there is one.
    pub fn answer(&mut self, peer: &mut Peer) -> Result<(), String> {
        let is_refusal = peer.heard.last().is_some_and(|(header, _)| header.msg_type == 0x1d);
        if !is_refusal {
            return Ok(());
        }
        let (header, payload) = peer.heard.pop().unwrap();
        let frame = Frame { header, payload: &payload };
        let Ok(ToMiner::SubmitSharesError(error)) = ToMiner::decode(&frame) else { panic!() };
        Err(String::from_utf8(error.error_code.to_vec()).unwrap())
    }
}

/// A share in its parts, to be bent by a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The channel.
    pub channel_id: u32,
    /// The miner's number.
    pub sequence_number: u32,
    /// The job.
    pub job_id: u32,
    /// The header's fields.
    pub claim: Claim,
    /// What was rolled of the extranonce.
    pub rolled: Vec<u8>,
    /// The work.
    pub job: Arc<Job>,
}

/// The channel that the oldest message heard tells of.
fn opened(peer: &mut Peer) -> PeerChannel {
    peer.next(|message| match message {
        ToMiner::OpenStandardMiningChannelSuccess(opened) => {
            assert_eq!(opened.request_id, 77, "the request's number is echoed");
            PeerChannel {
                channel_id: opened.channel_id,
                target: Target::from_le_bytes(opened.target),
                extranonce_prefix: opened.extranonce_prefix.to_vec(),
                extranonce_size: 0,
                group_channel_id: opened.group_channel_id,
            }
        }
        ToMiner::OpenExtendedMiningChannelSuccess(opened) => {
            assert_eq!(opened.request_id, 78, "the request's number is echoed");
            PeerChannel {
                channel_id: opened.channel_id,
                target: Target::from_le_bytes(opened.target),
                extranonce_prefix: opened.extranonce_prefix.to_vec(),
                extranonce_size: opened.extranonce_size.into(),
                group_channel_id: opened.group_channel_id,
            }
        }
        other => panic!("not opened: {other:?}"),
    })
}

impl Share {
    /// Hash on from its nonce until the hash `fits` the channel's target, with all else as it is.
    pub fn mine(&mut self, channel: &PeerChannel, fits: impl Fn(&BlockHash, &Target) -> bool) {
        self.claim.merkle_root = self.job.merkle_root(&channel.extranonce_prefix, &self.rolled);
        let tip = self.job.template.tip;
        while !fits(&self.claim.hash(&tip), &channel.target) {
            self.claim.nonce += 1;
        }
    }

    /// Hash on until the channel's target is met.
    pub fn mine_good(&mut self, channel: &PeerChannel) {
        self.mine(channel, |hash, target| target.is_met_by(hash));
    }

    /// Hash on until the next that meets the channel's target.
    pub fn mine_next(&mut self, channel: &PeerChannel) {
        self.claim.nonce += 1;
        self.sequence_number = self.sequence_number.wrapping_add(1);
        self.mine_good(channel);
    }

    /// As a standard share.
    pub fn standard(&self) -> SubmitSharesStandard {
        SubmitSharesStandard {
            channel_id: self.channel_id,
            sequence_number: self.sequence_number,
            job_id: self.job_id,
            nonce: self.claim.nonce,
            ntime: self.claim.ntime,
            version: self.claim.version,
        }
    }

    /// As an extended share with bytes behind it.
    pub fn extended<'a>(&'a self, tlv: &'a [u8]) -> SubmitSharesExtended<'a> {
        SubmitSharesExtended {
            channel_id: self.channel_id,
            sequence_number: self.sequence_number,
            job_id: self.job_id,
            nonce: self.claim.nonce,
            ntime: self.claim.ntime,
            version: self.claim.version,
            extranonce: &self.rolled,
            tlv,
        }
    }
}
