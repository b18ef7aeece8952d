//! The miners: loadgen's machine at an easy difficulty, as devices and proxies of every kind. What
//! they send wrongly is in `forgers.rs`.

use gateway::limits::CHANNELS_ENDED_KEPT;
use loadgen::miner::{
    ChannelKind, ChannelKinds, Miner, MinerConfig, MinerError, MinerEvent, MiningJob, NtimeRolling,
    Profile, Step, WorkerTlv,
};
use sv2::message::EXTENSION_WORKER;
use sv2::message::mining::{CloseChannel, SubmitSharesStandard};
use work::contract::verifier::TemplatePropose;
use work::{Now, Target};

use crate::chance::Chance;
use crate::checkers::Wire;
use crate::faults::{Auth, MILLI, Plant, SECOND};
use crate::forgers::{Forged, made, plain};
use crate::net::{State, Who};
use crate::process::{RIGHT_SECRET, SHORTER_SECRET};
use crate::reference::{share_target, target_of};
use crate::verdicts::Submitted;
use crate::world::{Event, World};

/// Bytes on their way up at which a miner stops to mine.
const BACKLOG_BYTES_MAX: usize = 2 * 1024;
/// Bytes in which no two frames can end: a frame's header alone has as many.
const FRAME_BYTES_MIN: usize = 22;
/// The one group of a connection.
pub const GROUP: u32 = 1;

/// One miner with its habits.
pub struct Peer {
    pub miner: Miner,
    pub wire: Option<Wire>,
    tick: u64,
    hashes: u32,
    /// The name that its shares are credited to, and whether its secret is right.
    pub name: String,
    pub may_mine: bool,
    /// Whether it closes channels and opens others, and whether it wants other targets.
    closes: bool,
    updates: bool,
    /// Kinds of the channels that it closed and wants again.
    pub missing: Vec<ChannelKind>,
    /// Forged shares that it sent once, on whatever connection.
    pub memories: Vec<SubmitSharesStandard>,
    /// The last share that it found on this connection.
    pub last_honest: Option<Submitted>,
    /// Its sum of acknowledged difficulties before this connection.
    sum_before: u64,
}

/// What a miner connects with.
fn draw_config(chance: &mut Chance, extranonce_bytes: usize) -> MinerConfig {
    let profile = chance.pick(&[
        Profile::Strict,
        Profile::Strict,
        Profile::Strict,
        Profile::Strict,
        Profile::Bitaxe,
        Profile::MiningDevice,
        Profile::Translator,
    ]);
    let mut config = profile.config();
    if profile == Profile::Strict {
        let ntime =
            [NtimeRolling::Fixed, NtimeRolling::Elapsed, NtimeRolling::Clock { ahead_seconds: 60 }];
        config.ntime = chance.pick(&ntime);
        config.rolls_version = chance.one_in(2);
        config.first_sequence_number = chance.pick(&[0, 1, u32::MAX - 3]);
        // Standard jobs only, or a group.
        config.flags = chance.pick(&[0b001, 0b101, 0b000, 0b100]);
        config.channels = chance.pick(&[1, 1, 2, 3, 5]);
        config.opens_in_flight = chance.pick(&[1, 2, 8]);
        if !config.requires_standard_jobs() {
            let kinds = [ChannelKinds::Standard, ChannelKinds::Extended, ChannelKinds::Mixed];
            config.kinds = chance.pick(&kinds);
            let most = (extranonce_bytes - 8).min(16) as u64;
            config.min_extranonce_size = chance.between(0, most) as u16;
        }
    }
    if profile != Profile::Bitaxe && chance.one_in(2) {
        config.workers = chance.pick(&[0, 1, 3, 5]);
        config.worker_tlv = chance.pick(&[
            WorkerTlv::LittleEndian,
            WorkerTlv::LittleEndian,
            WorkerTlv::BigEndian,
            WorkerTlv::Malformed,
        ]);
        match chance.below(4) {
            0 => config.names_workers_unasked = true,
            _ => config.extensions = vec![EXTENSION_WORKER],
        }
    }
    let hardest = target_of(0x1f7f_ffff + 0x0100_0000);
    let max_target = if chance.one_in(4) { hardest } else { [0xff; 32] };
    config.max_target = Target::from_le_bytes(max_target);
    config.nominal_hash_rate = chance.pick(&[0.0, 10.0, 10.0, 200.0]);
    config.update_every_ms = chance.pick(&[None, None, Some(7_000)]);
    config.step_timeout_ms = 15_000;
    config
}

/// What a miner says of itself: with the right secret, or with a wrong one.
fn identity(chance: &mut Chance, auth: Auth, name: &str, may_mine: bool) -> String {
    let right = format!("{name}:{RIGHT_SECRET}");
    match (auth, may_mine) {
        (Auth::Open, _) => chance.pick(&[name, &format!("{name}:anything")]).to_owned(),
        (_, true) => right,
        (_, false) => match chance.below(4) {
            0 => name.to_owned(),
            1 => format!("{name}:{SHORTER_SECRET}"),
            2 => format!("x{right}"),
            _ => format!("{name}:"),
        },
    }
}

impl World {
    /// A miner with habits drawn from chance.
    pub fn new_peer(&mut self, number: usize) -> Peer {
        let auth = self.faults.auth;
        let chance = &mut self.chance;
        let name = format!("miner.{number}");
        let has_secret = auth == Auth::Open || number == 0 || !chance.one_in(5);
        let is_told = has_secret || self.plant == Some(Plant::SecretFound);
        let config = MinerConfig {
            user_identity: identity(chance, auth, &name, is_told),
            authority: Some(self.authority.public()),
            ..draw_config(chance, self.faults.extranonce_bytes)
        };
        let seed = chance.number();
        Peer {
            miner: Miner::new(config, seed),
            wire: None,
            tick: chance.pick(&[300, 700, 1_000]) * MILLI,
            hashes: chance.between(40, 200) as u32,
            name,
            may_mine: has_secret,
            closes: chance.one_in(3),
            updates: chance.one_in(3),
            missing: Vec::new(),
            memories: Vec::new(),
            last_honest: None,
            sum_before: 0,
        }
    }

    /// A miner dials.
    pub fn on_connect(&mut self, number: usize) {
        let now = self.now();
        if self.peers[number].wire.is_some() {
            return;
        }
        let Some(wire) = self.dial(Who::Miner(number)) else {
            return self.after(SECOND, Event::Connect(number));
        };
        self.trace.note(now.mono, format_args!("miner {number} dials as wire {wire}"));
        let mut bytes = Vec::new();
        let peer = &mut self.peers[number];
        peer.wire = Some(wire);
        peer.begin();
        peer.miner.on_connected(now, &mut bytes);
        self.write_up(wire, &bytes);
    }

    /// A miner's turn: hash a little, watch its deadline.
    pub fn on_miner_tick(&mut self, number: usize) {
        let now = self.now();
        let tick = self.peers[number].tick;
        self.after(tick, Event::Miner(number));
        let Some(wire) = self.peers[number].wire else { return };
        if self.peers[number].miner.on_deadline(now).is_err() {
            return self.reset(wire);
        }
        if let Some(calm_at) = self.calm_at
            && !self.pipes[wire].is_silent
        {
            self.checker.check_fresh(wire, now.mono, calm_at);
        }
        let is_busy = self.pipes[wire].backlog() > BACKLOG_BYTES_MAX;
        if self.is_quiet || is_busy || self.pipes[wire].is_silent {
            return;
        }
        let mut bytes = self.change_channels(number, wire);
        // Hash by hash, so that whatever is written belongs to one share.
        for _ in 0..self.peers[number].hashes {
            let mined = self.peers[number].miner.mine(now, 1, &mut bytes).unwrap();
            if mined.hashes == 0 {
                break;
            }
            self.stats.hashes += 1;
            if mined.shares > 0 {
                let end = self.pipes[wire].written + bytes.len() as u64;
                self.hear_sent(number, wire, None, end);
            }
        }
        self.write_up(wire, &bytes);
    }

    /// A miner may close a channel, open one again, or want another target.
    fn change_channels(&mut self, number: usize, wire: Wire) -> Vec<u8> {
        let now = self.now();
        let mut bytes = Vec::new();
        let peer = &mut self.peers[number];
        if peer.miner.step() != Step::Mining {
            return bytes;
        }
        if !peer.missing.is_empty() && self.chance.one_in(4) {
            let kind = peer.missing.remove(0);
            peer.miner.open_channel(now, kind, &mut bytes).unwrap();
        }
        let open: Vec<(u32, ChannelKind)> =
            peer.miner.channels().map(|channel| (channel.channel_id, channel.kind)).collect();
        if self.is_calm || open.is_empty() {
            return bytes;
        }
        let (channel_id, kind) = self.chance.pick(&open);
        if peer.closes && self.chance.one_in(30) {
            // The group may have members that their miner has not heard of while it asks for some.
            let config = peer.miner.config();
            let is_complete = open.len() + peer.missing.len() == config.channels;
            let is_all = !config.requires_standard_jobs() && is_complete && self.chance.one_in(6);
            let closed = if is_all { open } else { vec![(channel_id, kind)] };
            peer.miner.close(if is_all { GROUP } else { channel_id }, &mut bytes).unwrap();
            peer.missing.extend(closed.iter().map(|(_, kind)| *kind));
            let ids: Vec<u32> = closed.iter().map(|(channel_id, _)| *channel_id).collect();
            self.trace.note(now.mono, format_args!("miner {number} closes {ids:?}"));
            self.checker.on_miner_closes(wire, &ids);
        } else if peer.updates && self.chance.one_in(20) {
            let rate = self.chance.pick(&[0.0, 5.0, 50.0, 500.0]);
            let harder = Target::from_le_bytes(share_target(self.faults.share_bits - 2));
            let channel = peer.miner.channels().find(|channel| channel.channel_id == channel_id);
            // A ceiling at the present target says nothing of easier ones that are on their way.
            let can_fall = channel.is_some_and(|channel| harder < channel.target);
            let falls = can_fall && self.chance.one_in(3);
            let target = if falls { harder } else { Target::MAX };
            self.trace.note(now.mono, format_args!("miner {number} says {rate} H/s, {target}"));
            peer.miner.update_channel(now, channel_id, rate, target, &mut bytes).unwrap();
        }
        bytes
    }

    /// Tell the checkers of the share that a miner has just sent; it ends at `end` of its stream.
    pub fn hear_sent(&mut self, number: usize, wire: Wire, forged: Option<Forged>, end: u64) {
        let now = self.now();
        let events: Vec<MinerEvent> = self.peers[number].miner.drain_events().collect();
        let sent = events.iter().find_map(|event| match event {
            MinerEvent::ShareSubmitted { sequence_number, job_id, share_hash } => {
                Some((*sequence_number, *job_id, share_hash.0))
            }
            _ => None,
        });
        let Some((sequence_number, job_id, hash)) = sent else { return };
        let Some(view) = self.checker.wires.get_mut(&wire) else { return };
        let peer = &mut self.peers[number];
        // The channel whose number has moved.
        let mut channels = peer.miner.channels();
        let sender = channels.find(|channel| {
            let side = view.channels.get(&channel.channel_id);
            side.is_some_and(|side| side.next_sequence != channel.next_sequence_number)
        });
        let sender = sender.unwrap();
        let (channel_id, next_sequence) = (sender.channel_id, sender.next_sequence_number);
        let side = view.channels.get_mut(&channel_id).unwrap();
        side.next_sequence = next_sequence;
        let config = peer.miner.config();
        let last = peer.last_honest.as_ref();
        let last = last.map(|share| (share, view.channels[&share.channel_id].is_extended));
        let side = &view.channels[&channel_id];
        let is_honest = forged.is_none();
        let (share, is_extended) = match forged {
            None => {
                let ntime = sender.job.map(|job| ntime(config.ntime, now, job));
                let share = Submitted { hash: Some(hash), ntime, ..plain(channel_id, job_id) };
                (share, side.is_extended)
            }
            Some(Forged::Header(share)) => (share, false),
            Some(Forged::Made(kind)) => made(kind, (channel_id, side), job_id, last),
        };
        let side = view.channels.get_mut(&channel_id).unwrap();
        let names_workers = view.names_workers || config.names_workers_unasked;
        let mut worker = None;
        if is_extended && names_workers && config.workers > 0 {
            let name = format!("worker-{}", side.next_worker % config.workers);
            side.next_worker += 1;
            let is_heard = view.names_workers && config.worker_tlv != WorkerTlv::Malformed;
            worker = Some(name).filter(|_| is_heard);
        }
        let side = view.channels.get_mut(&share.channel_id);
        let is_open = side.is_some_and(|side| {
            side.unanswered += 1;
            !side.is_closed
        });
        let mut lately = view.closed.iter().rev().take(CHANNELS_ENDED_KEPT);
        let share = Submitted {
            sequence_number,
            is_open,
            is_remembered: lately.any(|closed| *closed == share.channel_id),
            worker,
            stream_end: end,
            ..share
        };
        if is_honest {
            peer.last_honest = Some(share.clone());
        }
        view.submitted.push_back(share);
    }

    /// Tell the checkers what a piece of a frame, or its end, was for a miner. Whether it set a
    /// target.
    fn hear_frame(&mut self, number: usize, wire: Wire) -> bool {
        let now = self.now();
        let mut events: Vec<MinerEvent> = self.peers[number].miner.drain_events().collect();
        if events.is_empty() {
            return false;
        }
        let is_job = |event: &MinerEvent| matches!(event, MinerEvent::JobReceived { .. });
        if events.iter().any(is_job) {
            if self.may_plant(Plant::JobUnheard) {
                self.has_planted = true;
                events.retain(|event| !is_job(event));
            }
            if self.may_plant(Plant::JobRepeated) {
                self.checker.on_frame(wire, now, &events);
            }
        }
        for event in &events {
            self.trace.note(now.mono, format_args!("miner {number}: {event:?}"));
        }
        self.checker.on_frame(wire, now, &events);
        let report = self.peers[number].miner.report();
        let sum = report.accepted_sum - self.peers[number].sum_before;
        self.checker.on_sum(wire, sum);
        events.iter().any(|event| matches!(event, MinerEvent::TargetSet { .. }))
    }

    /// Bytes arrive at the far end of a connection.
    pub fn far_end_reads(&mut self, wire: Wire, mut piece: Vec<u8>) {
        let now = self.now();
        match self.pipes[wire].who {
            Who::Miner(number) if self.peers[number].wire == Some(wire) => {
                let mut bytes = Vec::new();
                let mut read = Ok(());
                for part in piece.chunks_mut(FRAME_BYTES_MIN) {
                    read = self.peers[number].miner.on_bytes(now, part, &mut bytes);
                    let is_retargeted = self.hear_frame(number, wire);
                    if is_retargeted && bytes.is_empty() && self.faults.forgeries {
                        self.forge_good(number);
                    }
                    if read.is_err() {
                        break;
                    }
                }
                self.write_up(wire, &bytes);
                if let Err(error) = read {
                    self.trace.note(now.mono, format_args!("miner {number}: {error}"));
                    if !self.dies_of(number, &error) {
                        self.checker.on_miner_error(wire, &error);
                    }
                    self.reset(wire);
                }
            }
            Who::Wild(number) => self.wild_reads(number, wire, piece),
            Who::Miner(_) | Who::Garbage => (),
        }
    }

    /// Whether this is how a device takes the end of its channel: mining_device knows no better.
    fn dies_of(&self, number: usize, error: &MinerError) -> bool {
        let profile = self.peers[number].miner.config().profile;
        let is_close =
            matches!(error, MinerError::Unexpected { msg_type: CloseChannel::MSG_TYPE, .. });
        is_close && profile == Profile::MiningDevice
    }

    /// The far end finds its connection closed.
    pub fn far_end_loses(&mut self, wire: Wire) {
        let now = self.now();
        match self.pipes[wire].who {
            Who::Miner(number) if self.peers[number].wire == Some(wire) => {
                self.peers[number].wire = None;
                self.peers[number].miner.on_disconnected(now);
                let after = self.chance.between(200, 4_000) * MILLI;
                self.after(after, Event::Connect(number));
            }
            Who::Wild(number) => self.wild_loses(number, wire),
            Who::Miner(_) | Who::Garbage => (),
        }
    }

    /// Whether a miner can send something now beyond its turn.
    pub fn can_send(&self, number: usize) -> Option<Wire> {
        let wire = self.peers[number].wire?;
        let is_open = self.pipes[wire].state == State::Open && !self.pipes[wire].is_silent;
        let is_mining = self.peers[number].miner.step() == Step::Mining;
        let has_room = self.pipes[wire].backlog() <= 4 * BACKLOG_BYTES_MAX;
        (is_open && is_mining && has_room).then_some(wire)
    }

    /// Whether `work` is what the newest template offers, under whatever name.
    pub fn is_newest(&self, work: &TemplatePropose) -> bool {
        self.node.newest().is_some_and(|template| {
            let commitment = &template.witness_commitment;
            work.prev_hash == template.tip.prev_hash
                && work.merkle_path == template.merkle_path
                && work.coinbase.suffix.0.windows(commitment.len()).any(|w| w == commitment)
        })
    }

    /// C13 of one miner: all its channels are on the newest work, and all its shares answered.
    pub fn faults_of(&self, number: usize) -> Vec<String> {
        let peer = &self.peers[number];
        let mut faults = Vec::new();
        if !peer.may_mine {
            return faults;
        }
        let (step, open) = (peer.miner.step(), peer.miner.channels().count());
        let wanted = if peer.closes { 1 } else { peer.miner.config().channels };
        if step != Step::Mining || open < wanted {
            faults.push(format!("miner {number} is {step} with {open} of {wanted} channels"));
        }
        let view = peer.wire.and_then(|wire| self.checker.wires.get(&wire));
        for channel in peer.miner.channels() {
            let side = view.and_then(|view| view.channels.get(&channel.channel_id));
            let job = side.and_then(|side| side.jobs.get(&side.newest_job?));
            let work = job.map(|job| &self.checker.publications[job.publication].propose);
            if !work.is_some_and(|work| self.is_newest(work)) {
                let has = work.map(|work| work.template_id.0);
                let newest = self.node.newest().map(|template| template.id.0);
                faults.push(format!("miner {number} is on {has:?}, not on {newest:?}"));
            }
        }
        if peer.miner.report().outstanding > 0 {
            let left = peer.miner.report().outstanding;
            faults.push(format!("miner {number} has {left} shares without an answer"));
        }
        faults
    }
}

/// The time of a header that is found now on `job`.
fn ntime(rolling: NtimeRolling, now: Now, job: &MiningJob) -> u32 {
    let earliest = job.min_ntime.unwrap();
    match rolling {
        NtimeRolling::Fixed => earliest,
        NtimeRolling::Elapsed => earliest + (now.mono.micros_since(job.since) / 1_000_000) as u32,
        NtimeRolling::Clock { ahead_seconds } => earliest.max(now.unix.seconds() + ahead_seconds),
    }
}

impl Peer {
    /// A connection begins.
    fn begin(&mut self) {
        self.sum_before = self.miner.report().accepted_sum;
        self.missing.clear();
        self.last_honest = None;
    }
}
