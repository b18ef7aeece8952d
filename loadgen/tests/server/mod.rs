//! A scripted SV2 server for tests of the miner: the real handshake and sealing, and otherwise
//! exactly what a test tells it to say.
#![allow(dead_code)] // Each test file uses its own part.

use loadgen::{Miner, MinerConfig, MinerError, MinerEvent};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sv2::message::common::SetupConnectionSuccess;
use sv2::message::mining::{
    NewMiningJob, OpenStandardMiningChannelSuccess, SetNewPrevHash, SubmitSharesStandard,
};
use sv2::{
    ACT2_BYTES, AuthorityKey, AuthorityPublicKey, Ephemeral, FromMiner, Identity, Message, Opened,
    StaticKey, Transport, respond,
};
use work::{Mono, Now, Target, UnixTime};

pub const UNIX: u32 = 1_750_000_000;
pub const CHANNEL: u32 = 2;
pub const GROUP: u32 = 1;
pub const PREFIX: [u8; 8] = [0, 1, 0, 1, 0, 0, 0, 7];
pub const NBITS: u32 = 0x207f_ffff;

pub fn now(micros: u64) -> Now {
    let unix = UnixTime(u64::from(UNIX) * 1_000 + micros / 1_000);
    Now { mono: Mono(micros), unix }
}

/// About one header in 64 meets it.
pub fn easy_target() -> Target {
    Target(Target::MAX.0 >> 6)
}

pub fn authority() -> AuthorityKey {
    AuthorityKey::from_secret_bytes([7; 32]).unwrap()
}

pub fn config() -> MinerConfig {
    MinerConfig { authority: Some(authority().public()), ..MinerConfig::default() }
}

pub fn other_authority() -> AuthorityPublicKey {
    AuthorityKey::from_secret_bytes([8; 32]).unwrap().public()
}

pub fn setup_success() -> SetupConnectionSuccess {
    SetupConnectionSuccess { used_version: 2, flags: 0 }
}

pub fn open_success() -> OpenStandardMiningChannelSuccess<'static> {
    OpenStandardMiningChannelSuccess {
        request_id: 1,
        channel_id: CHANNEL,
        target: easy_target().to_le_bytes(),
        extranonce_prefix: &PREFIX,
        group_channel_id: GROUP,
    }
}

pub fn job(job_id: u32, min_ntime: Option<u32>) -> NewMiningJob {
    NewMiningJob {
        channel_id: CHANNEL,
        job_id,
        min_ntime,
        version: 0x2000_0000,
        merkle_root: [job_id as u8; 32],
    }
}

pub fn prev_hash(job_id: u32, byte: u8) -> SetNewPrevHash {
    SetNewPrevHash {
        channel_id: CHANNEL,
        job_id,
        prev_hash: [byte; 32],
        min_ntime: UNIX,
        nbits: NBITS,
    }
}

/// The server's end of the handshake for `act1`, the same for the same act 1.
pub fn answer(act1: &[u8], validity_secs: u32) -> (Transport, [u8; ACT2_BYTES]) {
    answer_as(&identity(UNIX, validity_secs), act1)
}

pub fn answer_as(identity: &Identity, act1: &[u8]) -> (Transport, [u8; ACT2_BYTES]) {
    let mut random = ChaCha20Rng::seed_from_u64(98);
    let mut act2 = [0; ACT2_BYTES];
    let ephemeral = Ephemeral::generate(&mut random);
    let transport = respond(identity, ephemeral, act1.try_into().unwrap(), &mut act2).unwrap();
    (transport, act2)
}

fn identity(now_unix: u32, validity_secs: u32) -> Identity {
    let key = StaticKey::generate(&mut ChaCha20Rng::seed_from_u64(99));
    Identity::issue(&authority(), key, now_unix, validity_secs).unwrap()
}

/// An identity whose certificate is valid by the clock of this machine.
pub fn current_identity() -> Identity {
    identity(loadgen::clock::Clock::start().now().unix.seconds(), 3_600)
}

/// A miner and its server, joined by a perfect wire.
pub struct Pair {
    pub miner: Miner,
    pub server: Transport,
    /// Bytes of the miner that the server has not opened yet.
    pub wire: Vec<u8>,
    pub micros: u64,
}

impl Pair {
    /// Both after the handshake; `SetupConnection` is on the wire.
    pub fn secured(config: MinerConfig) -> Pair {
        let mut miner = Miner::new(config, 1);
        let mut wire = Vec::new();
        miner.on_connected(now(0), &mut wire);
        let (server, mut act2) = answer(&wire, 3_600);
        wire.clear();
        miner.on_bytes(now(0), &mut act2, &mut wire).unwrap();
        Pair { miner, server, wire, micros: 0 }
    }

    /// Both after the open channel.
    pub fn open(config: MinerConfig) -> Pair {
        let mut pair = Pair::secured(config);
        pair.say(&setup_success()).unwrap();
        pair.say(&open_success()).unwrap();
        pair
    }

    /// Both with job 1 on the tip 1.
    pub fn mining(config: MinerConfig) -> Pair {
        let mut pair = Pair::open(config);
        pair.say(&job(1, None)).unwrap();
        pair.say(&prev_hash(1, 1)).unwrap();
        pair.heard();
        pair
    }

    pub fn say<M: Message>(&mut self, message: &M) -> Result<(), MinerError> {
        let mut bytes = Vec::new();
        self.server.seal(message, &mut bytes).unwrap();
        self.miner.on_bytes(now(self.micros), &mut bytes, &mut self.wire)
    }

    /// All shares and the number of other messages that the miner has sent since the last call.
    pub fn heard(&mut self) -> (Vec<SubmitSharesStandard>, usize) {
        let (mut shares, mut others, mut used) = (Vec::new(), 0, 0);
        while let Opened::Frame { frame, consumed } = self.server.open(&mut self.wire[used..]) {
            match FromMiner::decode(&frame).unwrap() {
                FromMiner::SubmitSharesStandard(share) => shares.push(share),
                _ => others += 1,
            }
            used += consumed;
        }
        self.wire.drain(..used);
        assert!(self.wire.is_empty(), "the miner sent part of a frame");
        (shares, others)
    }

    /// Mines until `count` shares are sent and returns them.
    pub fn mine(&mut self, count: usize) -> Vec<SubmitSharesStandard> {
        let mut shares = Vec::new();
        for _ in 0..1_000_000 {
            if shares.len() >= count {
                return shares;
            }
            self.miner.mine(now(self.micros), 1, &mut self.wire).unwrap();
            shares.extend(self.heard().0);
        }
        panic!("no share found at an easy target");
    }

    pub fn events(&mut self) -> Vec<MinerEvent> {
        self.miner.drain_events().collect()
    }
}
