//! Wild miners: they speak the protocol, and say whatever it has words for, in any order, with
//! several channels. Nobody follows their shares one by one; what is accepted from them must hold
//! before the reference like everything else.

use std::collections::BTreeMap;

use sv2::message::common::{PROTOCOL_MINING, PROTOCOL_VERSION, SetupConnection};
use sv2::message::mining::{
    CloseChannel, OpenExtendedMiningChannel, OpenStandardMiningChannel, SubmitSharesExtended,
    SubmitSharesStandard, UpdateChannel,
};
use sv2::{ACT2_BYTES, Ephemeral, FrameHeader, Initiator, Opened, ToMiner, Transport};

use crate::chance::Chance;
use crate::checkers::{Rule, Wire};
use crate::faults::MILLI;
use crate::net::Who;
use crate::world::{Event, World};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// Nonces tried for one share.
const NONCES: u32 = 400;

enum Link {
    None,
    Handshake(Initiator),
    Sealed(Box<Transport>),
}

/// Work as a wild miner knows it.
#[derive(Clone, Copy)]
struct WildJob {
    job_id: u32,
    root: [u8; 32],
    version: u32,
    ntime: u32,
    prev_hash: [u8; 32],
    nbits: u32,
}

/// A channel as a wild miner knows it.
#[derive(Default)]
struct WildChannel {
    target: [u8; 32],
    futures: BTreeMap<u32, ([u8; 32], u32)>,
    current: Option<WildJob>,
}

/// A wild miner.
pub struct Wild {
    random: ChaCha20Rng,
    dice: Chance,
    link: Link,
    wire: Option<Wire>,
    stash: Vec<u8>,
    channels: BTreeMap<u32, WildChannel>,
    number: u32,
    /// What the gateway did against the protocol.
    complaint: Option<String>,
}

impl Wild {
    pub fn new(seed: u64) -> Wild {
        Wild {
            random: ChaCha20Rng::seed_from_u64(seed),
            dice: Chance::new(seed),
            link: Link::None,
            wire: None,
            stash: Vec::new(),
            channels: BTreeMap::new(),
            number: 0,
            complaint: None,
        }
    }

    fn dial(&mut self, wire: Wire) -> Vec<u8> {
        let (initiator, act1) = Initiator::new(None, Ephemeral::generate(&mut self.random));
        self.link = Link::Handshake(initiator);
        self.wire = Some(wire);
        self.stash.clear();
        self.channels.clear();
        act1.to_vec()
    }

    fn read(&mut self, piece: &[u8], seconds: u32) -> Vec<u8> {
        let mut out = Vec::new();
        self.stash.extend_from_slice(piece);
        let mut bytes = std::mem::take(&mut self.stash);
        let mut used = 0;
        if let Link::Handshake(_) = &self.link
            && let Some(act2) = bytes.first_chunk::<ACT2_BYTES>()
        {
            let Link::Handshake(initiator) = std::mem::replace(&mut self.link, Link::None) else {
                return out;
            };
            used = ACT2_BYTES;
            match initiator.finish(act2, seconds) {
                Ok(transport) => self.link = Link::Sealed(Box::new(transport)),
                Err(error) => self.complaint = Some(format!("handshake: {error}")),
            }
            self.set_up(&mut out);
        }
        if !matches!(self.link, Link::Sealed(_)) {
            self.stash = bytes;
            return out;
        }
        let Link::Sealed(mut transport) = std::mem::replace(&mut self.link, Link::None) else {
            return out;
        };
        loop {
            match transport.open(&mut bytes[used..]) {
                Opened::Need(_) => break,
                Opened::Error(error) => {
                    self.complaint = Some(format!("transport: {error}"));
                    break;
                }
                Opened::Frame { frame, consumed } => {
                    used += consumed;
                    match ToMiner::decode(&frame) {
                        Ok(message) => self.hear(&message),
                        Err(error) => self.complaint = Some(format!("malformed: {error}")),
                    }
                }
            }
        }
        self.link = Link::Sealed(transport);
        self.stash = bytes.split_off(used);
        out
    }

    fn hear(&mut self, message: &ToMiner<'_>) {
        match message {
            ToMiner::OpenStandardMiningChannelSuccess(opened) => {
                let channel = WildChannel { target: opened.target, ..WildChannel::default() };
                if self.channels.insert(opened.channel_id, channel).is_some() {
                    self.complaint = Some(format!("channel {} twice", opened.channel_id));
                }
            }
            ToMiner::NewMiningJob(job) => {
                let Some(channel) = self.channels.get_mut(&job.channel_id) else { return };
                match (job.min_ntime, channel.current) {
                    (None, _) => {
                        channel.futures.insert(job.job_id, (job.merkle_root, job.version));
                    }
                    (Some(ntime), Some(before)) => {
                        let (root, version) = (job.merkle_root, job.version);
                        let job_id = job.job_id;
                        channel.current = Some(WildJob { job_id, root, version, ntime, ..before });
                    }
                    (Some(_), None) => self.complaint = Some("a job before any tip".into()),
                }
            }
            ToMiner::SetNewPrevHash(tip) => {
                let Some(channel) = self.channels.get_mut(&tip.channel_id) else { return };
                match channel.futures.remove(&tip.job_id) {
                    Some((root, version)) => {
                        channel.current = Some(WildJob {
                            job_id: tip.job_id,
                            root,
                            version,
                            ntime: tip.min_ntime,
                            prev_hash: tip.prev_hash,
                            nbits: tip.nbits,
                        });
                        channel.futures.clear();
                    }
                    None => self.complaint = Some(format!("a tip names job {}", tip.job_id)),
                }
            }
            ToMiner::SetTarget(target) => {
                if let Some(channel) = self.channels.get_mut(&target.channel_id) {
                    channel.target = target.maximum_target;
                }
            }
            _ => (),
        }
    }

    fn set_up(&mut self, out: &mut Vec<u8>) {
        let Link::Sealed(transport) = &mut self.link else { return };
        let setup = SetupConnection {
            protocol: PROTOCOL_MINING,
            min_version: PROTOCOL_VERSION,
            max_version: PROTOCOL_VERSION,
            flags: 1,
            endpoint_host: b"sim",
            endpoint_port: 1,
            vendor: b"wild",
            hardware_version: b"",
            firmware: b"",
            device_id: b"",
        };
        // One in twenty says it twice.
        for _ in 0..if self.dice.one_in(20) { 2 } else { 1 } {
            transport.seal(&setup, out).unwrap();
        }
    }

    /// Something to say.
    fn say(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = self.dice.below(10);
        let channel_id = self.some_channel();
        let share = self.share(channel_id);
        let dice = &mut self.dice;
        let Link::Sealed(transport) = &mut self.link else { return out };
        let mut max_target = [0xff; 32];
        max_target[31] = dice.pick(&[0xff, 0, 3]);
        let rate = dice.pick(&[10.0, 50.0, -1.0, f32::NAN]);
        let sealed = match kind {
            0 | 1 => transport.seal(
                &OpenStandardMiningChannel {
                    request_id: dice.below(4) as u32,
                    user_identity: dice.pick(&[&b"wild.1"[..], b"wild:secret", b"", b"\xff"]),
                    nominal_hash_rate: rate,
                    max_target,
                },
                &mut out,
            ),
            2 => transport.seal(
                &UpdateChannel { channel_id, nominal_hash_rate: rate, maximum_target: max_target },
                &mut out,
            ),
            3 if dice.one_in(3) => {
                self.channels.remove(&channel_id);
                transport.seal(&CloseChannel { channel_id, reason_code: b"bored" }, &mut out)
            }
            4 => transport.seal(
                &OpenExtendedMiningChannel {
                    request_id: 1,
                    user_identity: b"wild",
                    nominal_hash_rate: rate,
                    max_target,
                    min_extranonce_size: 4,
                },
                &mut out,
            ),
            5 => {
                let extended = SubmitSharesExtended {
                    channel_id,
                    sequence_number: 1,
                    job_id: 1,
                    nonce: 1,
                    ntime: 1,
                    version: 1,
                    extranonce: &[1, 2, 3],
                    tlv: &[],
                };
                transport.seal(&extended, &mut out)
            }
            6 => {
                let header = FrameHeader::decode(&[9, 0, dice.below(256) as u8, 0, 0, 0]);
                let payload = vec![7; dice.below(200) as usize];
                transport.seal_frame(header, &payload, &mut out)
            }
            _ => match share {
                Some(share) => transport.seal(&share, &mut out),
                None => Ok(()),
            },
        };
        sealed.unwrap();
        out
    }

    fn some_channel(&mut self) -> u32 {
        let open: Vec<u32> = self.channels.keys().copied().collect();
        if open.is_empty() || self.dice.one_in(10) { 77 } else { self.dice.pick(&open) }
    }

    /// A share on the channel's job, usually a good one.
    fn share(&mut self, channel_id: u32) -> Option<SubmitSharesStandard> {
        let channel = self.channels.get(&channel_id)?;
        let WildJob { job_id, root, version, ntime, prev_hash, nbits } = channel.current?;
        let first = self.dice.number() as u32;
        let mut header =
            crate::reference::Header { version, prev_hash, root, ntime, nbits, nonce: first };
        for _ in 0..NONCES {
            if crate::reference::is_at_most(&header.hash(), &channel.target) {
                break;
            }
            header.nonce = header.nonce.wrapping_add(1);
        }
        self.number += 1;
        let (sequence_number, nonce) = (self.number, header.nonce);
        Some(SubmitSharesStandard { channel_id, sequence_number, job_id, nonce, ntime, version })
    }
}

impl World {
    /// A wild miner's turn.
    pub fn on_wild(&mut self, number: usize) {
        if self.is_calm {
            return;
        }
        let after = self.chance.between(100, 900) * MILLI;
        self.after(after, Event::Wild(number));
        match self.wild[number].wire {
            None => {
                let Some(wire) = self.dial(Who::Wild(number)) else { return };
                let bytes = self.wild[number].dial(wire);
                self.write_up(wire, &bytes);
            }
            Some(wire) if self.pipes[wire].backlog() < 16 * 1024 => {
                for _ in 0..self.chance.between(1, 8) {
                    let bytes = self.wild[number].say();
                    self.write_up(wire, &bytes);
                }
            }
            Some(_) => (),
        }
    }

    /// Bytes arrive at a wild miner.
    pub fn wild_reads(&mut self, number: usize, wire: Wire, piece: Vec<u8>) {
        if self.wild[number].wire != Some(wire) {
            return;
        }
        let seconds = self.now().unix.seconds();
        let bytes = self.wild[number].read(&piece, seconds);
        self.write_up(wire, &bytes);
        if let Some(complaint) = self.wild[number].complaint.take() {
            self.checker.fail(Rule::C3Order, format!("wire {wire}, wild: {complaint}"));
        }
    }

    /// A wild miner has lost its connection.
    pub fn wild_loses(&mut self, number: usize, wire: Wire) {
        if self.wild[number].wire == Some(wire) {
            self.wild[number].wire = None;
            self.wild[number].link = Link::None;
        }
    }
}
