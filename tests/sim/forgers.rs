//! Shares that no honest miner sends. On standard channels they are made here, header and all; on
//! extended ones loadgen's machine makes them, which alone knows the extranonce it has come to.

use loadgen::miner::Fake;
use sv2::message::mining::SubmitSharesStandard;

use crate::checkers::{Wire, WireView};
use crate::given::{ChannelSide, GivenJob};
use crate::reference::{Header, is_at_most, target_of};
use crate::verdicts::{Flaw, Submitted};
use crate::world::World;

/// Nonces that a forger tries.
const NONCES_MAX: u32 = 3_000;
/// Forged shares that a miner remembers, to send them again on later connections.
const MEMORIES_MAX: usize = 64;
/// Shares at once that are a flood.
const FLOOD: u64 = 20;
/// Numbers of jobs from which on there are none.
const UNKNOWN_JOB: u32 = 1 << 30;
/// The number of no channel.
const UNKNOWN_CHANNEL: u32 = 9_999;

/// How a share was forged.
pub enum Forged {
    /// Header and all, as a standard share.
    Header(Submitted),
    /// By the miner's own machine, of the channel that it would mine next.
    Made(Forgery),
}

/// A share that no honest miner sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgery {
    Good,
    AboveTarget,
    Stale,
    OldTime,
    FutureTime,
    EdgeOfTime,
    WrongVersion,
    UnknownJob,
    UnknownChannel,
    ClosedChannel,
    OtherKind,
    ExtranonceLength,
    Again,
    FromBefore,
}

const FORGERIES: [Forgery; 14] = [
    Forgery::Good,
    Forgery::AboveTarget,
    Forgery::Stale,
    Forgery::OldTime,
    Forgery::FutureTime,
    Forgery::EdgeOfTime,
    Forgery::WrongVersion,
    Forgery::UnknownJob,
    Forgery::UnknownChannel,
    Forgery::ClosedChannel,
    Forgery::OtherKind,
    Forgery::ExtranonceLength,
    Forgery::Again,
    Forgery::FromBefore,
];

impl World {
    /// Some miner sends some shares that it should not.
    pub fn forge(&mut self, count: u64) {
        let number = self.chance.below(self.peers.len() as u64) as usize;
        let Some(wire) = self.can_send(number) else { return };
        self.forge_as(number, wire, count, None);
    }

    /// A miner sends a good share behind a SetTarget, before the job behind it comes.
    pub fn forge_good(&mut self, number: usize) {
        if let Some(wire) = self.can_send(number) {
            self.forge_as(number, wire, 1, Some(Forgery::Good));
        }
    }

    fn forge_as(&mut self, number: usize, wire: Wire, count: u64, kind: Option<Forgery>) {
        for _ in 0..count {
            let kind = match count > FLOOD {
                _ if kind.is_some() => kind.unwrap(),
                true => self.chance.pick(&[
                    Forgery::Again,
                    Forgery::UnknownChannel,
                    Forgery::UnknownJob,
                ]),
                false => self.chance.pick(&FORGERIES),
            };
            let Some((fake, forged)) = self.forged(number, wire, kind) else { continue };
            if let Fake::Raw(message) = fake {
                self.remember(number, message);
            }
            let now = self.now();
            let mut bytes = Vec::new();
            let miner = &mut self.peers[number].miner;
            let Ok(Some(_)) = miner.submit_fake(now, fake, &mut bytes) else { continue };
            if count <= FLOOD {
                self.trace.note(now.mono, format_args!("miner {number} forges {kind:?}"));
            }
            if let Some(view) = self.checker.wires.get_mut(&wire) {
                view.is_rude = true;
            }
            let end = self.pipes[wire].written + bytes.len() as u64;
            self.hear_sent(number, wire, Some(forged), end);
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

    /// A forged share, and what the checkers need to know of it.
    fn forged(&mut self, number: usize, wire: Wire, kind: Forgery) -> Option<(Fake, Forged)> {
        let view = self.checker.wires.get(&wire)?;
        let is_closed = matches!(kind, Forgery::ClosedChannel);
        let may_be = |side: &ChannelSide| {
            side.is_closed == is_closed && side.newest_job.is_some() && can_answer(side)
        };
        let sides = view.channels.iter().filter(|(_, side)| may_be(side));
        let channel_ids: Vec<u32> = sides.map(|(channel_id, _)| *channel_id).collect();
        if channel_ids.is_empty() {
            return None;
        }
        let channel_id = self.chance.pick(&channel_ids);
        let side = view.channels.get(&channel_id)?;
        match (side.is_extended, kind) {
            (true, Forgery::Again | Forgery::FromBefore) => {
                let last = self.peers[number].last_honest.as_ref()?;
                let is_answered = view.channels.get(&last.channel_id).is_some_and(can_answer);
                is_answered.then_some((Fake::Replay, Forged::Made(kind)))
            }
            (true, _) | (_, Forgery::OtherKind | Forgery::ExtranonceLength) => {
                Some((fake(kind)?, Forged::Made(kind)))
            }
            _ => self.forged_header(number, wire, channel_id, kind),
        }
    }

    /// A share whose whole header is made here.
    fn forged_header(
        &mut self,
        number: usize,
        wire: Wire,
        channel_id: u32,
        kind: Forgery,
    ) -> Option<(Fake, Forged)> {
        let side = self.checker.wires.get(&wire)?.channels.get(&channel_id)?;
        let target = side.target();
        let job_id = match kind {
            Forgery::Stale => {
                let old: Vec<u32> = side.jobs.keys().rev().take(12).copied().collect();
                self.chance.pick(&old)
            }
            _ => side.newest_job?,
        };
        let job = side.jobs.get(&job_id)?.clone();
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
            Forgery::UnknownJob => message.job_id = UNKNOWN_JOB + self.chance.below(9) as u32,
            Forgery::UnknownChannel => message.channel_id = UNKNOWN_CHANNEL,
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
        let share = known(self.checker.wires.get(&wire)?, channel_id, &message)?;
        Some((Fake::Raw(message), Forged::Header(share)))
    }
}

/// Whether a miner can take an answer to a share on this channel: answers to those that it sent
/// before it closed the channel may still come, and are for nobody.
fn can_answer(side: &ChannelSide) -> bool {
    !side.is_closed || side.unanswered == 0
}

/// What to ask the miner's own machine for.
fn fake(kind: Forgery) -> Option<Fake> {
    match kind {
        Forgery::OldTime => Some(Fake::NtimeTooOld),
        Forgery::FutureTime => Some(Fake::NtimeTooNew),
        Forgery::WrongVersion => Some(Fake::FixedVersionBit),
        Forgery::UnknownJob => Some(Fake::UnknownJob { job_id: UNKNOWN_JOB }),
        Forgery::UnknownChannel => Some(Fake::UnknownChannel { channel_id: UNKNOWN_CHANNEL }),
        Forgery::OtherKind => Some(Fake::OtherKind),
        Forgery::ExtranonceLength => Some(Fake::ExtranonceLength),
        Forgery::Stale => Some(Fake::Stale),
        _ => None,
    }
}

/// What is known of a share that the miner's machine made, of its channel's job; and whether it
/// went out as an extended one.
pub fn made(
    kind: Forgery,
    (channel_id, side): (u32, &ChannelSide),
    job_id: u32,
    last: Option<(&Submitted, bool)>,
) -> (Submitted, bool) {
    let share = plain(channel_id, job_id);
    let version = side.jobs.get(&job_id).map(|job| job.version ^ 1);
    let share = match (kind, last) {
        (Forgery::OldTime, _) => Submitted { ntime: Some(0), ..share },
        (Forgery::FutureTime, _) => Submitted { ntime: Some(u32::MAX), ..share },
        (Forgery::WrongVersion, _) => Submitted { version, ..share },
        (Forgery::UnknownChannel, _) => Submitted { channel_id: UNKNOWN_CHANNEL, ..share },
        (Forgery::OtherKind, _) => Submitted { flaw: Flaw::OtherKind, ..share },
        (Forgery::ExtranonceLength, _) => Submitted { flaw: Flaw::ExtranonceLength, ..share },
        (Forgery::Again | Forgery::FromBefore, Some((last, is_extended))) => {
            return (last.clone(), is_extended);
        }
        _ => share,
    };
    (share, side.is_extended != (kind == Forgery::OtherKind))
}

/// What is known of a share with this header, made for one of the channels.
fn known(view: &WireView, channel_id: u32, message: &SubmitSharesStandard) -> Option<Submitted> {
    let job = view.channels.get(&channel_id)?.jobs.get(&message.job_id);
    // A job that the miner has not seen may be known to the shard by now.
    if job.is_none() && message.job_id < UNKNOWN_JOB {
        return None;
    }
    // So may the tip that brings a job into force.
    if job.is_some_and(|job| job.ntime_min == 0) {
        return None;
    }
    let of_job = |job: &GivenJob| header(job, message.version, message.ntime, message.nonce);
    Some(Submitted {
        hash: job.map(|job| of_job(job).hash()),
        ntime: Some(message.ntime),
        version: Some(message.version),
        ..plain(message.channel_id, message.job_id)
    })
}

/// A share of which nothing but its numbers is known.
pub fn plain(channel_id: u32, job_id: u32) -> Submitted {
    Submitted {
        sequence_number: 0,
        channel_id,
        job_id,
        hash: None,
        ntime: None,
        version: None,
        flaw: Flaw::None,
        is_open: true,
        is_remembered: false,
        worker: None,
        stream_end: 0,
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
