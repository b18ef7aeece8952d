//! A scripted SV2 server for tests of the miner: the real handshake and sealing, and otherwise
//! exactly what a test tells it to say.
#![allow(dead_code)] // Each test file uses its own part.

use bitcoin::{ScriptBuf, Transaction, TxIn, TxOut};
use loadgen::miner::ChannelKind;
use loadgen::{Miner, MinerConfig, MinerError, MinerEvent};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sv2::message::common::SetupConnectionSuccess;
use sv2::message::mining::{
    NewExtendedMiningJob, NewMiningJob, OpenExtendedMiningChannelSuccess,
    OpenStandardMiningChannelSuccess, SetNewPrevHash, SetTarget, SubmitSharesStandard,
};
use sv2::{
    ACT2_BYTES, AuthorityKey, AuthorityPublicKey, Ephemeral, FromMiner, Identity, Message, Opened,
    StaticKey, Transport, respond,
};
use work::{Coinbase, Mono, Now, Target, UnixTime};

pub const UNIX: u32 = 1_750_000_000;
pub const CHANNEL: u32 = 2;
pub const GROUP: u32 = 1;
pub const PREFIX: [u8; 8] = [0, 1, 0, 1, 0, 0, 0, 7];
pub const NBITS: u32 = 0x207f_ffff;
/// Bytes of the whole extranonce of every channel of a group.
pub const EXTRANONCE_BYTES: usize = 16;
pub const ROLLED_BYTES: u16 = 8;
pub const PATH: [[u8; 32]; 2] = [[3; 32], [4; 32]];

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

/// The whole extranonce of standard channel `channel_id` of a group.
pub fn whole_extranonce(channel_id: u32) -> [u8; EXTRANONCE_BYTES] {
    let mut bytes = [0; EXTRANONCE_BYTES];
    bytes[..8].copy_from_slice(&prefix(channel_id));
    bytes
}

/// The server's part of the extranonce of extended channel `channel_id`.
pub fn prefix(channel_id: u32) -> [u8; 8] {
    let [.., high, low] = channel_id.to_be_bytes();
    [0, 1, 0, 1, 0, 0, high, low]
}

pub fn extended_success(request_id: u32, prefix: &[u8]) -> OpenExtendedMiningChannelSuccess<'_> {
    OpenExtendedMiningChannelSuccess {
        request_id,
        channel_id: CHANNEL + request_id - 1,
        target: easy_target().to_le_bytes(),
        extranonce_size: ROLLED_BYTES,
        extranonce_prefix: prefix,
        group_channel_id: GROUP,
    }
}

pub fn standard_success(request_id: u32, prefix: &[u8]) -> OpenStandardMiningChannelSuccess<'_> {
    OpenStandardMiningChannelSuccess {
        request_id,
        channel_id: CHANNEL + request_id - 1,
        extranonce_prefix: prefix,
        ..open_success()
    }
}

/// The scriptSig of [`coinbase`] up to the extranonce: height 840 000, the extranonce's push.
pub const SCRIPT_SIG_HEAD: [u8; 5] = [3, 0x40, 0xd1, 0x0c, EXTRANONCE_BYTES as u8];

/// A coinbase as the gateway's, with `head` before the extranonce in its scriptSig.
pub fn coinbase_with(head: &[u8]) -> Coinbase {
    let script_sig = [head, &[0; EXTRANONCE_BYTES]].concat();
    let transaction = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::from_consensus(839_999),
        input: vec![TxIn {
            previous_output: bitcoin::OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script_sig),
            sequence: bitcoin::Sequence(0xffff_fffe),
            witness: bitcoin::Witness::new(),
        }],
        output: vec![TxOut {
            value: bitcoin::Amount::from_sat(312_500_000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    };
    let bytes = bitcoin::consensus::serialize(&transaction);
    let cut = 4 + 1 + 36 + 1 + head.len();
    Coinbase {
        prefix: bytes[..cut].to_vec(),
        suffix: bytes[cut + EXTRANONCE_BYTES..].to_vec(),
        extranonce_bytes: EXTRANONCE_BYTES,
    }
}

pub fn coinbase() -> Coinbase {
    coinbase_with(&SCRIPT_SIG_HEAD)
}

pub fn extended_job(
    coinbase: &Coinbase,
    channel_id: u32,
    job_id: u32,
    min_ntime: Option<u32>,
) -> NewExtendedMiningJob<'_> {
    NewExtendedMiningJob {
        channel_id,
        job_id,
        min_ntime,
        version: 0x2000_0000,
        version_rolling_allowed: true,
        merkle_path: &PATH,
        coinbase_tx_prefix: &coinbase.prefix,
        coinbase_tx_suffix: &coinbase.suffix,
    }
}

pub fn set_target(channel_id: u32, target: Target) -> SetTarget {
    SetTarget { channel_id, maximum_target: target.to_le_bytes() }
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

/// What a miner said.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Setup,
    Extensions(Vec<u16>),
    OpenStandard {
        request_id: u32,
    },
    OpenExtended {
        request_id: u32,
        min_extranonce_size: u16,
    },
    Update {
        channel_id: u32,
        max_target: Target,
    },
    Close {
        channel_id: u32,
    },
    Standard(SubmitSharesStandard),
    /// The fields that both kinds of shares have, the rolled extranonce, and what is behind it.
    Extended(SubmitSharesStandard, Vec<u8>, Vec<u8>),
}

impl Heard {
    fn of(message: FromMiner<'_>) -> Heard {
        match message {
            FromMiner::SetupConnection(_) => Heard::Setup,
            FromMiner::RequestExtensions(request) => {
                Heard::Extensions(request.requested_extensions.iter().collect())
            }
            FromMiner::OpenStandardMiningChannel(open) => {
                Heard::OpenStandard { request_id: open.request_id }
            }
            FromMiner::OpenExtendedMiningChannel(open) => Heard::OpenExtended {
                request_id: open.request_id,
                min_extranonce_size: open.min_extranonce_size,
            },
            FromMiner::UpdateChannel(update) => Heard::Update {
                channel_id: update.channel_id,
                max_target: Target::from_le_bytes(update.maximum_target),
            },
            FromMiner::CloseChannel(close) => Heard::Close { channel_id: close.channel_id },
            FromMiner::SubmitSharesStandard(share) => Heard::Standard(share),
            FromMiner::SubmitSharesExtended(share) => {
                let fields = SubmitSharesStandard {
                    channel_id: share.channel_id,
                    sequence_number: share.sequence_number,
                    job_id: share.job_id,
                    nonce: share.nonce,
                    ntime: share.ntime,
                    version: share.version,
                };
                Heard::Extended(fields, share.extranonce.to_vec(), share.tlv.to_vec())
            }
            other => panic!("a miner says {other:?}"),
        }
    }
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

    /// Everything that the miner has sent since the last call.
    pub fn hear(&mut self) -> Vec<Heard> {
        let (mut heard, mut used) = (Vec::new(), 0);
        while let Opened::Frame { frame, consumed } = self.server.open(&mut self.wire[used..]) {
            heard.push(Heard::of(FromMiner::decode(&frame).unwrap()));
            used += consumed;
        }
        self.wire.drain(..used);
        assert!(self.wire.is_empty(), "the miner sent part of a frame");
        heard
    }

    /// All standard shares and the number of other messages that the miner has sent since the
    /// last call.
    pub fn heard(&mut self) -> (Vec<SubmitSharesStandard>, usize) {
        let (mut shares, mut others) = (Vec::new(), 0);
        for heard in self.hear() {
            match heard {
                Heard::Standard(share) => shares.push(share),
                _ => others += 1,
            }
        }
        (shares, others)
    }

    /// Mines until `count` shares of either kind are sent and returns them.
    pub fn mine_all(&mut self, count: usize) -> Vec<Heard> {
        let mut shares = Vec::new();
        for _ in 0..1_000_000 {
            if shares.len() >= count {
                return shares;
            }
            self.miner.mine(now(self.micros), 1, &mut self.wire).unwrap();
            shares.extend(self.hear());
        }
        panic!("no share found at an easy target");
    }

    /// A proxy's connection on the tip 1 with job 1: standard channel 2 and extended channel 3 in
    /// group 1, as many of them in turn as `config` says.
    pub fn grouped(config: MinerConfig) -> Pair {
        let channels = config.channels as u32;
        let kinds = config.kinds;
        let mut pair = Pair::secured(MinerConfig { flags: 0, ..config });
        pair.say(&setup_success()).unwrap();
        for request_id in 1..=channels {
            let channel_id = CHANNEL + request_id - 1;
            match kinds.of(request_id as usize - 1) {
                ChannelKind::Standard => {
                    let extranonce = whole_extranonce(channel_id);
                    pair.say(&standard_success(request_id, &extranonce)).unwrap();
                    pair.say(&NewMiningJob { channel_id, ..job(1, None) }).unwrap();
                }
                ChannelKind::Extended => {
                    let prefix = prefix(channel_id);
                    pair.say(&extended_success(request_id, &prefix)).unwrap();
                    pair.say(&extended_job(&coinbase(), channel_id, 1, None)).unwrap();
                }
            }
            pair.say(&SetNewPrevHash { channel_id, ..prev_hash(1, 1) }).unwrap();
        }
        pair.hear();
        pair.events();
        pair
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
