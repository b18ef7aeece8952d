//! The miners: loadgen's machine at an easy difficulty, some of which also send shares that they
//! should not.

use loadgen::miner::{Fake, Miner, MinerConfig, MinerEvent, NtimeRolling, Step};
use sv2::message::mining::SubmitSharesStandard;
use work::Target;
use work::contract::verifier::TemplatePropose;

use crate::checkers::Wire;
use crate::faults::{MILLI, Plant, SECOND};
use crate::net::{State, Who};
use crate::reference::{Header, is_at_most, target_of};
use crate::verdicts::{GivenJob, Submitted};
use crate::world::{Event, World};

/// Bytes on their way up at which a miner stops to mine.
const BACKLOG_BYTES_MAX: usize = 2 * 1024;
/// Nonces that a forger tries.
const NONCES_MAX: u32 = 3_000;
/// Forged shares that a miner remembers, to send them again on later connections.
const MEMORIES_MAX: usize = 64;

/// One miner with its habits.
pub struct Peer {
    pub miner: Miner,
    pub wire: Option<Wire>,
    tick: u64,
    hashes: u32,
    /// Shares that it sent once, on whatever connection.
    memories: Vec<SubmitSharesStandard>,
    /// Its sum of acknowledged difficulties before this connection.
    sum_before: u64,
}

/// A share that no honest miner sends.
#[derive(Debug, Clone, Copy)]
enum Forgery {
    Good,
    AboveTarget,
    Stale,
    OldTime,
    FutureTime,
    EdgeOfTime,
    WrongVersion,
    UnknownJob,
    UnknownChannel,
    Again,
    FromBefore,
}

const FORGERIES: [Forgery; 11] = [
    Forgery::Good,
    Forgery::AboveTarget,
    Forgery::Stale,
    Forgery::OldTime,
    Forgery::FutureTime,
    Forgery::EdgeOfTime,
    Forgery::WrongVersion,
    Forgery::UnknownJob,
    Forgery::UnknownChannel,
    Forgery::Again,
    Forgery::FromBefore,
];

impl World {
    /// A miner with habits drawn from chance.
    pub fn new_peer(&mut self, number: usize) -> Peer {
        let chance = &mut self.chance;
        let ntime = chance.pick(&[
            NtimeRolling::Fixed,
            NtimeRolling::Elapsed,
            NtimeRolling::Clock { ahead_seconds: 60 },
        ]);
        let hardest = target_of(0x1f7f_ffff + 0x0100_0000);
        let max_target = if chance.one_in(4) { hardest } else { [0xff; 32] };
        let config = MinerConfig {
            user_identity: format!("miner.{number}"),
            authority: Some(self.authority.public()),
            nominal_hash_rate: 10.0,
            max_target: Target::from_le_bytes(max_target),
            flags: chance.pick(&[0b001, 0b101]),
            ntime,
            rolls_version: chance.one_in(2),
            first_sequence_number: chance.pick(&[0, 1, u32::MAX - 3]),
            step_timeout_ms: 15_000,
            ..MinerConfig::default()
        };
        let seed = chance.number();
        Peer {
            miner: Miner::new(config, seed),
            wire: None,
            tick: chance.pick(&[300, 700, 1_000]) * MILLI,
            hashes: chance.between(40, 200) as u32,
            memories: Vec::new(),
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
        peer.sum_at_connect();
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
        let is_busy = self.pipes[wire].backlog() > BACKLOG_BYTES_MAX;
        if self.is_quiet || is_busy || self.pipes[wire].is_silent {
            return;
        }
        let mut bytes = Vec::new();
        let peer = &mut self.peers[number];
        let mined = peer.miner.mine(now, peer.hashes, &mut bytes).unwrap();
        self.stats.hashes += u64::from(mined.hashes);
        self.hear(number, wire, &[], &bytes);
        self.write_up(wire, &bytes);
    }

    /// Tell the checkers what happened to a miner. `forged` are the shares it just sent on
    /// purpose, `bytes` what it is about to write.
    fn hear(&mut self, number: usize, wire: Wire, forged: &[Submitted], bytes: &[u8]) {
        let now = self.now();
        let events: Vec<MinerEvent> = self.peers[number].miner.drain_events().collect();
        let is_sent = |event: &&MinerEvent| matches!(event, MinerEvent::ShareSubmitted { .. });
        let sent = events.iter().filter(is_sent).count().max(1) as u64;
        let (mut place, mut forged) = (0, forged.iter());
        for event in &events {
            if let MinerEvent::ShareSubmitted { sequence_number, job_id, share_hash } = event {
                place += 1;
                let end = self.pipes[wire].written + place * bytes.len() as u64 / sent;
                let share = match forged.next() {
                    Some(share) => Submitted { stream_end: end, ..share.clone() },
                    None => Submitted {
                        sequence_number: *sequence_number,
                        channel_id: self.peers[number].miner.report().channel_id.unwrap(),
                        job_id: *job_id,
                        hash: Some(share_hash.0),
                        ntime: None,
                        version: None,
                        stream_end: end,
                    },
                };
                if let Some(view) = self.checker.wires.get_mut(&wire) {
                    view.submitted.push_back(share);
                }
                continue;
            }
            if matches!(event, MinerEvent::JobReceived { .. }) && self.may_plant(Plant::JobUnheard)
            {
                self.has_planted = true;
                continue;
            }
            self.trace.note(now.mono, format_args!("miner {number}: {event:?}"));
            self.checker.on_event(wire, event);
        }
        let report = self.peers[number].miner.report();
        let sum = report.accepted_sum - self.peers[number].sum_before;
        self.checker.on_sum(wire, sum);
    }

    /// Bytes arrive at the far end of a connection.
    pub fn far_end_reads(&mut self, wire: Wire, mut piece: Vec<u8>) {
        let now = self.now();
        match self.pipes[wire].who {
            Who::Miner(number) if self.peers[number].wire == Some(wire) => {
                let mut bytes = Vec::new();
                let read = self.peers[number].miner.on_bytes(now, &mut piece, &mut bytes);
                self.hear(number, wire, &[], &[]);
                self.write_up(wire, &bytes);
                if let Err(error) = read {
                    self.trace.note(now.mono, format_args!("miner {number}: {error}"));
                    self.checker.on_miner_error(wire, &error);
                    self.reset(wire);
                }
            }
            Who::Wild(number) => self.wild_reads(number, wire, piece),
            Who::Miner(_) | Who::Garbage => (),
        }
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

    /// Some miner sends some shares that it should not.
    pub fn forge(&mut self, count: u64) {
        let number = self.chance.below(self.peers.len() as u64) as usize;
        let Some(wire) = self.peers[number].wire else { return };
        let is_open = self.pipes[wire].state == State::Open && !self.pipes[wire].is_silent;
        let is_mining = self.peers[number].miner.step() == Step::Mining;
        if !is_open || !is_mining || self.pipes[wire].backlog() > 4 * BACKLOG_BYTES_MAX {
            return;
        }
        for _ in 0..count {
            let kind = if count > 20 {
                self.chance.pick(&[Forgery::Again, Forgery::UnknownChannel, Forgery::UnknownJob])
            } else {
                self.chance.pick(&FORGERIES)
            };
            let Some((message, share)) = self.forged(number, wire, kind) else { continue };
            self.remember(number, message);
            let now = self.now();
            let mut bytes = Vec::new();
            let miner = &mut self.peers[number].miner;
            let Ok(Some(sequence_number)) = miner.submit_fake(now, Fake::Raw(message), &mut bytes)
            else {
                return;
            };
            if count <= 20 {
                self.trace.note(now.mono, format_args!("miner {number} forges {kind:?}"));
            }
            self.hear(number, wire, &[Submitted { sequence_number, ..share }], &bytes);
            self.write_up(wire, &bytes);
        }
    }

    fn remember(&mut self, number: usize, message: SubmitSharesStandard) {
        let peer = &mut self.peers[number];
        if peer.memories.len() == MEMORIES_MAX {
            peer.memories.remove(0);
        }
        peer.memories.push(message);
    }

    /// The message of a forged share, and what the checkers need to know of it.
    fn forged(
        &mut self,
        number: usize,
        wire: Wire,
        kind: Forgery,
    ) -> Option<(SubmitSharesStandard, Submitted)> {
        let view = self.checker.wires.get(&wire)?;
        let (channel_id, target) = (view.channel_id, view.target);
        let newest = view.newest_job?;
        let job_id = match kind {
            Forgery::Stale => {
                let old: Vec<u32> = view.jobs.keys().rev().take(12).copied().collect();
                old[self.chance.below(old.len() as u64) as usize]
            }
            _ => newest,
        };
        let job = view.jobs.get(&job_id)?.clone();
        if job.ntime_min == 0 {
            return None;
        }
        let mut ntime = job.ntime_min;
        let mut version = job.version;
        match kind {
            Forgery::OldTime => ntime -= 1,
            Forgery::FutureTime => ntime += 100_000,
            Forgery::EdgeOfTime => ntime += 590 + self.chance.below(30) as u32,
            Forgery::WrongVersion => version ^= 1,
            _ => (),
        }
        let wants_block = self.chance.one_in(2);
        let first = self.chance.number() as u32;
        let nonce = match kind {
            Forgery::AboveTarget => search(&job, version, ntime, first, |hash| {
                !is_at_most(hash, &target)
                    && (!wants_block || is_at_most(hash, &target_of(job.nbits)))
            }),
            _ => {
                let wanted = if wants_block { target_of(job.nbits) } else { target };
                search(&job, version, ntime, first, |hash| is_at_most(hash, &wanted))
            }
        };
        let mut message =
            SubmitSharesStandard { channel_id, sequence_number: 0, job_id, nonce, ntime, version };
        match kind {
            Forgery::UnknownJob => message.job_id = (1 << 30) + self.chance.below(9) as u32,
            Forgery::UnknownChannel => message.channel_id = 9_999,
            Forgery::Again | Forgery::FromBefore => {
                let memories = &self.peers[number].memories;
                let at = match kind {
                    Forgery::Again => memories.len().saturating_sub(1),
                    _ => self.chance.below(memories.len() as u64) as usize,
                };
                message = SubmitSharesStandard { channel_id, ..*memories.get(at)? };
            }
            _ => (),
        }
        let jobs = &self.checker.wires.get(&wire)?.jobs;
        let job = jobs.get(&message.job_id);
        // A job that the miner has not seen may be known to the shard by now.
        if job.is_none() && message.job_id < 1 << 30 {
            return None;
        }
        let of_job = |job: &GivenJob| header(job, message.version, message.ntime, message.nonce);
        let share = Submitted {
            sequence_number: 0,
            channel_id: message.channel_id,
            job_id: message.job_id,
            hash: job.map(|job| of_job(job).hash()),
            ntime: Some(message.ntime),
            version: Some(message.version),
            stream_end: 0,
        };
        Some((message, share))
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
}

impl Peer {
    fn sum_at_connect(&mut self) {
        self.sum_before = self.miner.report().accepted_sum;
    }
}

fn header(job: &GivenJob, version: u32, ntime: u32, nonce: u32) -> Header {
    Header { version, prev_hash: job.prev_hash, root: job.root, ntime, nbits: job.nbits, nonce }
}

/// A nonce whose hash is `wanted`, or the last one tried.
fn search(
    job: &GivenJob,
    version: u32,
    ntime: u32,
    first: u32,
    wanted: impl Fn(&[u8; 32]) -> bool,
) -> u32 {
    let mut header = header(job, version, ntime, first);
    for _ in 0..NONCES_MAX {
        if wanted(&header.hash()) {
            break;
        }
        header.nonce = header.nonce.wrapping_add(1);
    }
    header.nonce
}
