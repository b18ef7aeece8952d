//! A miner's end of a real connection that may say anything, over TCP to a real gateway.
//!
//! It has no opinion: it seals what a test tells it to, keeps what it hears in order, and hashes
//! real headers for channels of either kind.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use sv2::message::common::{PROTOCOL_MINING, PROTOCOL_VERSION, SetupConnection};
use sv2::message::mining::{
    OpenExtendedMiningChannel, OpenStandardMiningChannel, SubmitSharesExtended,
    SubmitSharesStandard,
};
use sv2::{
    ACT2_BYTES, Ephemeral, Frame, FrameHeader, Initiator, Message, Opened, ToMiner, Transport,
};
use work::hash::sha256d;
use work::share::Claim;
use work::{BlockHash, MerkleNode, Target, Tip};

use crate::stack::client::{hash_rate_for, unix_seconds};
use crate::stack::{PATIENCE, Stack};

/// Time that one read may take; waits are made of these.
const READ_TIMEOUT: Duration = Duration::from_millis(20);

/// The connection.
pub struct Socket {
    stream: TcpStream,
    transport: Option<Transport>,
    /// Received and not opened.
    bytes: Vec<u8>,
    /// Plain frames that no test has looked at, oldest first.
    pub heard: VecDeque<(FrameHeader, Vec<u8>)>,
    closed: bool,
}

/// What a miner was given to hash.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// Its number.
    pub job_id: u32,
    /// The header's fields; the root is that of the rolled bytes in the share.
    pub claim: Claim,
    /// What it builds on.
    pub tip: Tip,
}

/// An open channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    /// Its number.
    pub channel_id: u32,
    /// The group that it is a member of.
    pub group_channel_id: u32,
    /// Its first target.
    pub target: Target,
    /// What is not rolled of its extranonce.
    pub extranonce_prefix: Vec<u8>,
    /// What it rolls, always the same; empty for a standard channel.
    pub rolled: Vec<u8>,
    /// What it hashes now.
    pub work: Work,
}

/// SetupConnection of a miner with these flags.
pub fn setup(flags: u32) -> SetupConnection<'static> {
    SetupConnection {
        protocol: PROTOCOL_MINING,
        min_version: PROTOCOL_VERSION,
        max_version: PROTOCOL_VERSION,
        flags,
        endpoint_host: b"127.0.0.1",
        endpoint_port: 0,
        vendor: b"test",
        hardware_version: b"",
        firmware: b"",
        device_id: b"",
    }
}

/// A request for a standard channel with a share in 2^(32 - `exponent`) hashes.
pub fn open_standard(exponent: u32) -> OpenStandardMiningChannel<'static> {
    OpenStandardMiningChannel {
        request_id: 7,
        user_identity: b"alice.rig1",
        nominal_hash_rate: hash_rate_for(exponent),
        max_target: [0xff; 32],
    }
}

/// The same for an extended channel.
pub fn open_extended(exponent: u32) -> OpenExtendedMiningChannel<'static> {
    OpenExtendedMiningChannel {
        request_id: 7,
        user_identity: b"alice.rig1",
        nominal_hash_rate: hash_rate_for(exponent),
        max_target: [0xff; 32],
        min_extranonce_size: 4,
    }
}

impl Socket {
    /// A connection that has said nothing.
    pub fn connect(stack: &Stack) -> Socket {
        let stream = TcpStream::connect(stack.gateway.address("listen_addr")).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        Socket { stream, transport: None, bytes: Vec::new(), heard: VecDeque::new(), closed: false }
    }

    /// A connection behind its handshake.
    pub fn greet(stack: &Stack) -> Socket {
        let mut socket = Socket::connect(stack);
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let authority = stack.gateway.address("authority_pubkey").parse().unwrap();
        let ephemeral = Ephemeral::generate(&mut ChaCha20Rng::from_seed(seed));
        let (initiator, act1) = Initiator::new(Some(authority), ephemeral);
        socket.write(&act1);
        socket.wait("act 2", |socket| (socket.bytes.len() >= ACT2_BYTES).then_some(()));
        let act2: [u8; ACT2_BYTES] =
            socket.bytes.drain(..ACT2_BYTES).as_slice().try_into().unwrap();
        socket.transport = Some(initiator.finish(&act2, unix_seconds()).unwrap());
        socket
    }

    /// A connection behind its setup.
    pub fn set_up(stack: &Stack, flags: u32) -> Socket {
        let mut socket = Socket::greet(stack);
        socket.say(&setup(flags));
        socket.expect("SetupConnection.Success", |message| {
            matches!(message, ToMiner::SetupConnectionSuccess(_)).then_some(())
        });
        socket
    }

    /// Write raw bytes; a server that has gone is noticed when it is read from.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sealed bytes of a message.
    pub fn seal<M: Message>(&mut self, message: &M) -> Vec<u8> {
        let mut wire = Vec::new();
        self.transport.as_mut().unwrap().seal(message, &mut wire).unwrap();
        wire
    }

    /// Sealed bytes of a frame of any type.
    pub fn seal_frame(&mut self, extension_type: u16, msg_type: u8, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader { extension_type, channel_msg: false, msg_type, msg_length: 0 };
        let mut wire = Vec::new();
        self.transport.as_mut().unwrap().seal_frame(header, payload, &mut wire).unwrap();
        wire
    }

    /// Send a message.
    pub fn say<M: Message>(&mut self, message: &M) {
        let wire = self.seal(message);
        self.write(&wire);
    }

    /// Send a frame of any type.
    pub fn say_frame(&mut self, extension_type: u16, msg_type: u8, payload: &[u8]) {
        let wire = self.seal_frame(extension_type, msg_type, payload);
        self.write(&wire);
    }

    /// The oldest message, which must be what `pick` looks for.
    pub fn expect<T>(&mut self, what: &str, pick: impl FnOnce(&ToMiner<'_>) -> Option<T>) -> T {
        self.wait(what, |socket| (!socket.heard.is_empty()).then_some(()));
        let (header, payload) = self.heard.pop_front().unwrap();
        let message = ToMiner::decode(&Frame { header, payload: &payload }).unwrap();
        pick(&message).unwrap_or_else(|| panic!("instead of {what}: {message:?}"))
    }

    /// The first message that `pick` finds something in; those before it are forgotten.
    pub fn find<T>(&mut self, what: &str, mut pick: impl FnMut(&ToMiner<'_>) -> Option<T>) -> T {
        self.wait(what, |socket| {
            while let Some((header, payload)) = socket.heard.pop_front() {
                let message = ToMiner::decode(&Frame { header, payload: &payload }).unwrap();
                if let Some(found) = pick(&message) {
                    return Some(found);
                }
            }
            None
        })
    }

    /// Read until there is an answer.
    fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&mut Socket) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(!self.closed, "the connection was closed instead of {what}");
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.read();
        }
    }

    /// Read until the server closes.
    pub fn wait_closed(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.closed {
            assert!(Instant::now() < deadline, "the connection is still open");
            self.read();
        }
    }

    /// Everything that is answered up to now: whatever the server wrote before it answers a last
    /// question. Message types, oldest first, with the channel or group they are for.
    pub fn settled(&mut self) -> Vec<(u8, u32)> {
        const NOBODY: u32 = 0x00ff_ffff;
        self.say(&sv2::message::mining::UpdateChannel {
            channel_id: NOBODY,
            nominal_hash_rate: 1.0,
            maximum_target: [0xff; 32],
        });
        self.wait("the last answer", |socket| {
            socket.heard.iter().any(|(header, _)| header.msg_type == 0x17).then_some(())
        });
        let all = self.heard.drain(..);
        let for_whom = |payload: &[u8]| u32::from_le_bytes(payload[..4].try_into().unwrap());
        all.filter(|(header, _)| header.msg_type != 0x17)
            .map(|(header, payload)| (header.msg_type, for_whom(&payload)))
            .collect()
    }

    fn read(&mut self) {
        let mut chunk = [0; 4_096];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.closed = true,
        }
        let Some(transport) = &mut self.transport else { return };
        loop {
            match transport.open(&mut self.bytes) {
                Opened::Need(_) => return,
                Opened::Error(error) => panic!("the server's bytes make no sense: {error:?}"),
                Opened::Frame { frame, consumed } => {
                    self.heard.push_back((frame.header, frame.payload.to_vec()));
                    self.bytes.drain(..consumed);
                }
            }
        }
    }

    /// Open a standard channel with a share in 2^(32 - `exponent`) hashes, and take its work.
    pub fn open_standard(&mut self, exponent: u32) -> Channel {
        self.say(&open_standard(exponent));
        self.opened()
    }

    /// Open an extended channel, and take its work.
    pub fn open_extended(&mut self, exponent: u32) -> Channel {
        self.say(&open_extended(exponent));
        self.opened()
    }

    /// The channel that was asked for, with the job and the tip behind it.
    pub fn opened(&mut self) -> Channel {
        let (channel_id, group_channel_id, target, prefix, size) =
            self.find("an open channel", |message| match message {
                ToMiner::OpenStandardMiningChannelSuccess(o) => {
                    let prefix = o.extranonce_prefix.to_vec();
                    Some((o.channel_id, o.group_channel_id, o.target, prefix, 0))
                }
                ToMiner::OpenExtendedMiningChannelSuccess(o) => {
                    let prefix = o.extranonce_prefix.to_vec();
                    Some((o.channel_id, o.group_channel_id, o.target, prefix, o.extranonce_size))
                }
                ToMiner::OpenMiningChannelError(error) => {
                    panic!("refused: {}", String::from_utf8_lossy(error.error_code))
                }
                _ => None,
            });
        let rolled = vec![0x5a; usize::from(size)];
        let work = self.next_work(channel_id, &prefix, &rolled);
        Channel {
            channel_id,
            group_channel_id,
            target: Target::from_le_bytes(target),
            extranonce_prefix: prefix,
            rolled,
            work,
        }
    }

    /// The next future job that comes to a channel by itself, and the tip that names it.
    fn next_work(&mut self, channel_id: u32, prefix: &[u8], rolled: &[u8]) -> Work {
        let (job_id, version, root) = self.find("a job", |message| match message {
            ToMiner::NewMiningJob(job) if job.channel_id == channel_id => {
                assert_eq!(job.min_ntime, None, "the first job is a future one");
                Some((job.job_id, job.version, job.merkle_root))
            }
            ToMiner::NewExtendedMiningJob(job) if job.channel_id == channel_id => {
                assert_eq!(job.min_ntime, None, "the first job is a future one");
                let parts = [job.coinbase_tx_prefix, prefix, rolled, job.coinbase_tx_suffix];
                let mut node = sha256d(&parts.concat());
                for sibling in job.merkle_path {
                    node = sha256d(&[node, *sibling].concat());
                }
                Some((job.job_id, job.version, node))
            }
            _ => None,
        });
        let tip = self.expect("its tip", |message| {
            let ToMiner::SetNewPrevHash(tip) = message else { return None };
            assert_eq!((tip.channel_id, tip.job_id), (channel_id, job_id));
            let prev_hash = BlockHash(tip.prev_hash);
            Some(Tip { prev_hash, nbits: tip.nbits, min_ntime: tip.min_ntime })
        });
        let merkle_root = MerkleNode(root);
        let claim = Claim { version, merkle_root, ntime: tip.min_ntime, nonce: 0 };
        Work { job_id, claim, tip }
    }

    /// Submit a share as its channel's kind does, with bytes behind an extended one.
    pub fn submit(&mut self, channel: &Channel, sequence_number: u32, work: &Work, tlv: &[u8]) {
        let (channel_id, job_id) = (channel.channel_id, work.job_id);
        let Claim { version, ntime, nonce, .. } = work.claim;
        if channel.rolled.is_empty() {
            self.say(&SubmitSharesStandard {
                channel_id,
                sequence_number,
                job_id,
                nonce,
                ntime,
                version,
            });
        } else {
            self.say(&SubmitSharesExtended {
                channel_id,
                sequence_number,
                job_id,
                nonce,
                ntime,
                version,
                extranonce: &channel.rolled,
                tlv,
            });
        }
    }

    /// Submit a share and wait for the answer to it.
    pub fn answer(&mut self, channel: &Channel, work: &Work) -> Result<(), String> {
        // Nonces tell shares apart well enough to find the answer.
        let mine = work.claim.nonce ^ work.claim.ntime;
        self.submit(channel, mine, work, &[]);
        self.verdict(mine)
    }

    /// The answer to the share with this number.
    pub fn verdict(&mut self, mine: u32) -> Result<(), String> {
        self.find("the answer to a share", |message| match message {
            ToMiner::SubmitSharesSuccess(success) => {
                (success.last_sequence_number == mine).then_some(Ok(()))
            }
            ToMiner::SubmitSharesError(error) if error.sequence_number == mine => {
                Some(Err(String::from_utf8(error.error_code.to_vec()).unwrap()))
            }
            _ => None,
        })
    }
}

impl Channel {
    /// A share for its work, from the work's nonce on, that meets its target.
    pub fn good(&self) -> Work {
        let mut work = self.work.clone();
        work.grind(&self.target, true);
        work
    }
}

impl Work {
    /// Hash on from the nonce until `target` is met, or is not.
    pub fn grind(&mut self, target: &Target, is_met: bool) {
        while target.is_met_by(&self.claim.hash(&self.tip)) != is_met {
            self.claim.nonce += 1;
        }
    }
}
