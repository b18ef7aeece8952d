//! A miner that a test steers by hand: it opens channels, keeps all that it was given, hashes real
//! headers, and submits whatever it is told to, right or wrong.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use sha2::{Digest as _, Sha256};
use sv2::message::common::{
    PROTOCOL_MINING, PROTOCOL_VERSION, REQUIRES_STANDARD_JOBS, SetupConnection,
};
use sv2::message::mining::{OpenStandardMiningChannel, SubmitSharesStandard};
use sv2::{ACT2_BYTES, Ephemeral, Initiator, Message, Opened, ToMiner, Transport};
use work::hash::finish_double;
use work::share::Claim;
use work::{BlockHash, MerkleNode, Target, Tip};

use super::{PATIENCE, SHARES_PER_MINUTE};

/// Time that one read may take; waits are made of these.
const READ_TIMEOUT: Duration = Duration::from_millis(20);

/// A job as it was given to one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// When its frame was read.
    pub heard_at: Instant,
    /// The channel.
    pub channel_id: u32,
    /// The channel's whole extranonce.
    pub extranonce: Vec<u8>,
    /// Its number.
    pub job_id: u32,
    /// Header field.
    pub version: u32,
    /// Header field.
    pub merkle_root: MerkleNode,
    /// What it builds on; unknown for a future job that no tip has named.
    pub tip: Option<Tip>,
    /// Smallest time of its headers, seconds.
    pub min_ntime: u32,
}

/// A header that was ground for a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The channel.
    pub channel_id: u32,
    /// The job.
    pub job_id: u32,
    /// The header's fields that the miner chose.
    pub claim: Claim,
    /// The header's hash.
    pub hash: BlockHash,
}

/// An open channel.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its number.
    pub channel_id: u32,
    /// Its whole extranonce.
    pub extranonce: Vec<u8>,
    /// Its target.
    pub target: Target,
    /// What it mines on.
    pub tip: Option<Tip>,
    /// The job that is active.
    pub active: Option<u32>,
    /// All jobs that it was given.
    pub jobs: BTreeMap<u32, Work>,
}

/// What the server said.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A channel is open.
    Opened(u32),
    /// A channel was refused, with this code.
    OpenRefused(String),
    /// A job came.
    Job(u32),
    /// A tip came to this channel.
    Tip(u32),
    /// Shares were accepted.
    Accepted {
        /// The last of them.
        last_sequence_number: u32,
        /// How many.
        count: u32,
    },
    /// A share was refused.
    Rejected {
        /// Which.
        sequence_number: u32,
        /// Why.
        code: String,
    },
    /// The server ended a channel, with this code.
    ChannelClosed(String),
    /// Another message of this type.
    Other(u8),
}

/// The connection.
pub struct Client {
    stream: TcpStream,
    transport: Transport,
    /// Received and not opened yet.
    bytes: Vec<u8>,
    /// Open channels.
    pub channels: BTreeMap<u32, Channel>,
    next_request_id: u32,
    next_sequence_number: u32,
    /// Shares that were accepted.
    pub accepted: u64,
    /// Codes of the shares that were refused.
    pub rejected: Vec<String>,
    closed: bool,
}

/// Now, seconds of unix time.
pub fn unix_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u32::try_from(since.as_secs()).unwrap()
}

/// The hash rate that gives a channel of the test stacks the difficulty 2^-`exponent`: a share
/// every 2^(32 - `exponent`) hashes.
pub fn hash_rate_for(exponent: u32) -> f32 {
    // A little above, because difficulties are rounded down.
    (2f64.powi(32 - i32::try_from(exponent).unwrap()) * SHARES_PER_MINUTE / 60.0 * 1.01) as f32
}

impl Client {
    /// Connect, prove the server's key, set up.
    pub fn connect(address: &str, authority: &str) -> Client {
        Client::try_connect(address, authority).unwrap_or_else(|why| panic!("{address}: {why}"))
    }

    /// [`Client::connect`], or why not.
    pub fn try_connect(address: &str, authority: &str) -> Result<Client, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(address).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        let ephemeral = Ephemeral::generate(&mut ChaCha20Rng::from_seed(seed));
        let authority = authority.parse().map_err(|error| format!("{error}"))?;
        let (initiator, act1) = Initiator::new(Some(authority), ephemeral);
        stream.write_all(&act1).map_err(text)?;
        let mut act2 = [0; ACT2_BYTES];
        stream.read_exact(&mut act2).map_err(text)?;
        let transport = initiator.finish(&act2, unix_seconds()).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(READ_TIMEOUT)).map_err(text)?;
        let mut client = Client {
            stream,
            transport,
            bytes: Vec::new(),
            channels: BTreeMap::new(),
            next_request_id: 1,
            next_sequence_number: 1,
            accepted: 0,
            rejected: Vec::new(),
            closed: false,
        };
        client.send(&SetupConnection {
            protocol: PROTOCOL_MINING,
            min_version: PROTOCOL_VERSION,
            max_version: PROTOCOL_VERSION,
            flags: REQUIRES_STANDARD_JOBS,
            endpoint_host: b"127.0.0.1",
            endpoint_port: 0,
            vendor: b"test",
            hardware_version: b"",
            firmware: b"",
            device_id: b"",
        });
        let answer = client.next(PATIENCE);
        // SetupConnection.Success.
        if answer == Some(Heard::Other(0x01)) { Ok(client) } else { Err(format!("{answer:?}")) }
    }

    /// Send a message; a server that has gone is noticed when it is read from.
    pub fn send<M: Message>(&mut self, message: &M) {
        let mut wire = Vec::new();
        self.transport.seal(message, &mut wire).unwrap();
        let _ = self.stream.write_all(&wire);
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Open a channel that finds a share every 2^(32 - `exponent`) hashes, and wait for its
    /// first work.
    pub fn open(&mut self, user: &str, exponent: u32) -> u32 {
        self.ask_to_open(user, exponent);
        let channel_id = self.wait_for("an open channel", |_, heard| match heard {
            Heard::Opened(channel_id) => Some(*channel_id),
            Heard::OpenRefused(code) => panic!("the channel was refused: {code}"),
            _ => None,
        });
        assert_eq!(
            self.channels[&channel_id].target,
            Target(Target::DIFFICULTY_1.0 << exponent),
            "the difficulty that was asked for"
        );
        self.wait_until("work", |client| client.channels[&channel_id].active.is_some());
        channel_id
    }

    /// Ask for a channel without waiting for the answer.
    pub fn ask_to_open(&mut self, user: &str, exponent: u32) {
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        self.send(&OpenStandardMiningChannel {
            request_id,
            user_identity: user.as_bytes(),
            nominal_hash_rate: hash_rate_for(exponent),
            max_target: [0xff; 32],
        });
    }

    /// The work that a channel is to do now.
    pub fn work(&self, channel_id: u32) -> Work {
        let channel = &self.channels[&channel_id];
        channel.jobs[&channel.active.unwrap()].clone()
    }

    /// Submit a share; its sequence number.
    pub fn submit(&mut self, share: &Share) -> u32 {
        let sequence_number = self.next_sequence_number;
        self.next_sequence_number += 1;
        self.send(&SubmitSharesStandard {
            channel_id: share.channel_id,
            sequence_number,
            job_id: share.job_id,
            nonce: share.claim.nonce,
            ntime: share.claim.ntime,
            version: share.claim.version,
        });
        sequence_number
    }

    /// Submit a share and wait for what is said to it: nothing, or an error code.
    pub fn answer(&mut self, share: &Share) -> Result<(), String> {
        let mine = self.submit(share);
        self.wait_for("the answer to a share", |_, heard| match heard {
            Heard::Accepted { last_sequence_number, .. } if *last_sequence_number == mine => {
                Some(Ok(()))
            }
            Heard::Rejected { sequence_number, code } if *sequence_number == mine => {
                Some(Err(code.clone()))
            }
            _ => None,
        })
    }

    /// Listen until `pick` finds something in what is heard.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&Client, &Heard) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(heard) = self.next(READ_TIMEOUT)
                && let Some(picked) = pick(self, &heard)
            {
                return picked;
            }
            assert!(!self.closed, "the server closed the connection instead of {what}");
            assert!(Instant::now() < deadline, "waited in vain for {what}");
        }
    }

    /// Listen until `holds`.
    pub fn wait_until(&mut self, what: &str, holds: impl Fn(&Client) -> bool) {
        if !holds(self) {
            self.wait_for(what, |client, _| holds(client).then_some(()));
        }
    }

    /// Listen until the server has closed the connection.
    pub fn wait_closed(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.closed {
            self.next(READ_TIMEOUT);
            assert!(Instant::now() < deadline, "the connection is still open");
        }
    }

    /// Take in what has come so far.
    pub fn catch_up(&mut self) {
        while self.next(READ_TIMEOUT).is_some() {}
    }

    /// The next message; `None` if none comes within `patience` or the connection is closed.
    pub fn next(&mut self, patience: Duration) -> Option<Heard> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(heard) = self.open_frame() {
                return Some(heard);
            }
            if self.closed {
                return None;
            }
            let mut chunk = [0; 4_096];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.closed = true,
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.closed = true,
            }
            if self.bytes.is_empty() && Instant::now() >= deadline {
                return None;
            }
        }
    }

    fn open_frame(&mut self) -> Option<Heard> {
        let mut bytes = std::mem::take(&mut self.bytes);
        let (heard, consumed) = match self.transport.open(&mut bytes) {
            Opened::Need(_) => (None, 0),
            Opened::Error(error) => panic!("the server's bytes make no sense: {error:?}"),
            Opened::Frame { frame, consumed } => {
                let message = ToMiner::decode(&frame).unwrap();
                let msg_type = frame.header.msg_type;
                (Some(note(&mut self.channels, &message, msg_type)), consumed)
            }
        };
        bytes.drain(..consumed);
        self.bytes = bytes;
        match &heard {
            Some(Heard::Accepted { count, .. }) => self.accepted += u64::from(*count),
            Some(Heard::Rejected { code, .. }) => self.rejected.push(code.clone()),
            _ => {}
        }
        heard
    }
}

/// Keep what a message says of channels.
fn note(channels: &mut BTreeMap<u32, Channel>, message: &ToMiner, msg_type: u8) -> Heard {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match message {
        ToMiner::OpenStandardMiningChannelSuccess(opened) => {
            let channel = Channel {
                channel_id: opened.channel_id,
                extranonce: opened.extranonce_prefix.to_vec(),
                target: Target::from_le_bytes(opened.target),
                tip: None,
                active: None,
                jobs: BTreeMap::new(),
            };
            assert!(channels.insert(opened.channel_id, channel).is_none(), "a number twice");
            Heard::Opened(opened.channel_id)
        }
        ToMiner::OpenMiningChannelError(error) => Heard::OpenRefused(text(error.error_code)),
        ToMiner::NewMiningJob(job) => {
            let channel = channels.get_mut(&job.channel_id).expect("a job of no channel");
            let work = Work {
                heard_at: Instant::now(),
                channel_id: job.channel_id,
                extranonce: channel.extranonce.clone(),
                job_id: job.job_id,
                version: job.version,
                merkle_root: MerkleNode(job.merkle_root),
                tip: job.min_ntime.and(channel.tip),
                min_ntime: job.min_ntime.unwrap_or(0),
            };
            if job.min_ntime.is_some() {
                channel.active = Some(job.job_id);
            }
            assert!(channel.jobs.insert(job.job_id, work).is_none(), "a job number twice");
            Heard::Job(job.job_id)
        }
        ToMiner::SetNewPrevHash(set) => {
            let channel = channels.get_mut(&set.channel_id).expect("a tip of no channel");
            let tip = Tip {
                prev_hash: BlockHash(set.prev_hash),
                nbits: set.nbits,
                min_ntime: set.min_ntime,
            };
            let work = channel.jobs.get_mut(&set.job_id).expect("a tip that names no job");
            assert_eq!(work.tip, None, "the named job was not a future one");
            (work.tip, work.min_ntime) = (Some(tip), set.min_ntime);
            (channel.tip, channel.active) = (Some(tip), Some(set.job_id));
            Heard::Tip(set.channel_id)
        }
        ToMiner::SubmitSharesSuccess(success) => Heard::Accepted {
            last_sequence_number: success.last_sequence_number,
            count: success.new_submits_accepted_count,
        },
        ToMiner::SubmitSharesError(error) => {
            Heard::Rejected { sequence_number: error.sequence_number, code: text(error.error_code) }
        }
        ToMiner::CloseChannel(close) => {
            channels.remove(&close.channel_id);
            Heard::ChannelClosed(text(close.reason_code))
        }
        _ => Heard::Other(msg_type),
    }
}

impl Work {
    /// Target of a block on it.
    pub fn network_target(&self) -> Target {
        Target::from_nbits(self.tip.unwrap().nbits).unwrap()
    }

    /// The first header from `nonce` on, at the job's smallest time, whose hash `fits`.
    pub fn grind(&self, nonce: u32, fits: impl Fn(&BlockHash) -> bool) -> Share {
        let tip = self.tip.expect("a future job cannot be mined on");
        let mut claim = Claim {
            version: self.version,
            merkle_root: self.merkle_root,
            ntime: self.min_ntime,
            nonce,
        };
        let header = claim.header(&tip);
        // The first 64 bytes stay the same over all nonces.
        let midstate = Sha256::new_with_prefix(&header[..64]);
        let mut tail: [u8; 16] = header[64..].try_into().unwrap();
        for nonce in nonce..=u32::MAX {
            tail[12..].copy_from_slice(&nonce.to_le_bytes());
            let hash = BlockHash(finish_double(midstate.clone().chain_update(tail)));
            if fits(&hash) {
                claim.nonce = nonce;
                assert_eq!(claim.hash(&tip), hash);
                return Share { channel_id: self.channel_id, job_id: self.job_id, claim, hash };
            }
        }
        panic!("no nonce fits");
    }

    /// A header that meets the network's target.
    pub fn grind_block(&self, nonce: u32) -> Share {
        let target = self.network_target();
        self.grind(nonce, |hash| target.is_met_by(hash))
    }
}
