//! Clients that should not exist: as much of the protocol as their mischief takes, and no more.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use socket2::{Domain, SockRef, Socket, Type};
use sv2::message::common::{
    PROTOCOL_MINING, PROTOCOL_VERSION, REQUIRES_STANDARD_JOBS, SetupConnection,
};
use sv2::message::mining::{OpenStandardMiningChannel, SubmitSharesStandard};
use sv2::{ACT2_BYTES, Ephemeral, FrameHeader, Initiator, Message, ToMiner, Transport};

use super::stack::PATIENCE;
use super::stack::client::unix_seconds;

/// Frames that are sealed before they are written at one go.
const FRAMES_PER_WRITE: u32 = 256;

/// How long one write may wait for the gateway to read.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);

/// A setup that is as it should be.
pub const SETUP: SetupConnection<'static> = SetupConnection {
    protocol: PROTOCOL_MINING,
    min_version: PROTOCOL_VERSION,
    max_version: PROTOCOL_VERSION,
    flags: REQUIRES_STANDARD_JOBS,
    endpoint_host: b"127.0.0.1",
    endpoint_port: 0,
    vendor: b"rude",
    hardware_version: b"",
    firmware: b"",
    device_id: b"",
};

/// A request for a channel that is as it should be.
pub const OPEN: OpenStandardMiningChannel<'static> = OpenStandardMiningChannel {
    request_id: 1,
    user_identity: b"rude",
    nominal_hash_rate: 1_000.0,
    max_target: [0xff; 32],
};

/// A share of no channel and no job.
pub const SHARE: SubmitSharesStandard = SubmitSharesStandard {
    channel_id: 0xdead_beef,
    sequence_number: 1,
    job_id: 0xdead_beef,
    nonce: 1,
    ntime: 1,
    version: 0x2000_0000,
};

/// Connect from the loopback address 127.0.0.`from`, with a small buffer for what is received, so
/// that not reading is noticed soon.
pub fn dial_from(from: u8, address: &str) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(8 * 1_024)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, from], 0)).into())?;
    socket.connect(&address.parse::<SocketAddr>().unwrap().into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(stream)
}

/// [`dial_from`] the address that honest miners have, too.
pub fn dial(address: &str) -> TcpStream {
    dial_from(1, address).unwrap()
}

/// `count` connections that say nothing.
pub fn dial_many(from: u8, address: &str, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| dial_from(from, address).unwrap()).collect()
}

/// Read until the gateway has closed the connection; the bytes. Panics if it stays open.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("the gateway leaves a connection open: {error}"),
    }
}

/// Whether the gateway has closed the connection; nothing is waited for.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut chunk = [0; 4_096];
    let closed = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
            Err(_) => break true,
        }
    };
    stream.set_nonblocking(false).unwrap();
    closed
}

/// End a connection with a reset instead of a farewell.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A channel of a rude client.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Its number.
    pub channel_id: u32,
    /// Its first job.
    pub job_id: u32,
}

/// A connection behind its handshake.
pub struct Rude {
    /// The socket.
    pub stream: TcpStream,
    transport: Transport,
    bytes: Vec<u8>,
}

impl Rude {
    /// Shake hands and say nothing.
    pub fn shake_hands(mut stream: TcpStream) -> Rude {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let ephemeral = Ephemeral::generate(&mut ChaCha20Rng::from_seed(seed));
        let (initiator, act1) = Initiator::new(None, ephemeral);
        stream.write_all(&act1).unwrap();
        let mut act2 = [0; ACT2_BYTES];
        stream.read_exact(&mut act2).unwrap();
        let transport = initiator.finish(&act2, unix_seconds()).unwrap();
        Rude { stream, transport, bytes: Vec::new() }
    }

    /// Shake hands and set up as one should.
    pub fn set_up(address: &str) -> Rude {
        Rude::set_up_on(dial(address))
    }

    /// The same with an ordinary buffer, for a client that is sent megabytes and reads them:
    /// through a window of some kilobytes they crawl when the machine is busy.
    pub fn set_up_to_read(address: &str) -> Rude {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Rude::set_up_on(stream)
    }

    fn set_up_on(stream: TcpStream) -> Rude {
        let mut rude = Rude::shake_hands(stream);
        rude.send(&SETUP);
        let answer = rude.hear(|message| matches!(message, ToMiner::SetupConnectionSuccess(_)));
        assert_eq!(answer, Some(true));
        rude
    }

    /// [`Rude::set_up`], and one channel with its first job.
    pub fn open(address: &str) -> (Rude, Opened) {
        let mut rude = Rude::set_up(address);
        rude.send(&OPEN);
        let mut opened = Opened { channel_id: 0, job_id: 0 };
        while opened.job_id == 0 {
            let heard = rude.hear(|message| match message {
                ToMiner::OpenStandardMiningChannelSuccess(success) => {
                    opened.channel_id = success.channel_id;
                }
                ToMiner::NewMiningJob(job) => opened.job_id = job.job_id,
                ToMiner::OpenMiningChannelError(error) => panic!("{error:?}"),
                _ => {}
            });
            heard.expect("the connection stays open");
        }
        (rude, opened)
    }

    /// Seal a message.
    pub fn seal<M: Message>(&mut self, message: &M, wire: &mut Vec<u8>) {
        self.transport.seal(message, wire).unwrap();
    }

    /// Seal a frame of a type that nobody knows.
    pub fn seal_unknown(&mut self, payload: &[u8], wire: &mut Vec<u8>) {
        let header = FrameHeader::decode(&[0, 0, 0xf0, 0, 0, 0]);
        self.transport.seal_frame(header, payload, wire).unwrap();
    }

    /// Send a message; a gateway that has gone is noticed when it is read from.
    pub fn send<M: Message>(&mut self, message: &M) {
        let mut wire = Vec::new();
        self.seal(message, &mut wire);
        let _ = self.stream.write_all(&wire);
    }

    /// The next message, as `pick` takes it; `None` when the gateway has closed the connection.
    pub fn hear<T>(&mut self, pick: impl FnOnce(ToMiner) -> T) -> Option<T> {
        loop {
            let mut bytes = std::mem::take(&mut self.bytes);
            match self.transport.open(&mut bytes) {
                sv2::Opened::Need(_) => {}
                sv2::Opened::Error(error) => panic!("the gateway's bytes make no sense: {error:?}"),
                sv2::Opened::Frame { frame, consumed } => {
                    let picked = pick(ToMiner::decode(&frame).unwrap());
                    bytes.drain(..consumed);
                    self.bytes = bytes;
                    return Some(picked);
                }
            }
            if !self.read_more(bytes) {
                return None;
            }
        }
    }

    /// Read once behind `bytes`; `false` when nothing will come any more.
    fn read_more(&mut self, bytes: Vec<u8>) -> bool {
        self.bytes = bytes;
        let mut chunk = [0; 16 * 1_024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                self.bytes.extend_from_slice(&chunk[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the gateway neither answers nor closes: {error}"),
        }
    }

    /// Write what `fill` seals, as fast as the gateway takes it and without ever reading, until it
    /// closes the connection (`true`) or `span` is over.
    pub fn flood(&mut self, span: Duration, mut fill: impl FnMut(&mut Rude, &mut Vec<u8>)) -> bool {
        let deadline = Instant::now() + span;
        let mut wire = Vec::new();
        let mut sent = 0;
        while Instant::now() < deadline {
            if sent == wire.len() {
                wire.clear();
                sent = 0;
                for _ in 0..FRAMES_PER_WRITE {
                    fill(self, &mut wire);
                }
            }
            match self.stream.write(&wire[sent..]) {
                Ok(count) => sent += count,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return true,
            }
        }
        false
    }
}
