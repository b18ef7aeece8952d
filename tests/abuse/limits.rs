//! The limits that are constants, on the machine itself: each is met exactly, and what goes on
//! beyond it when there is none is shown where the machine can be told so.
//!
//! A limit that is taken out of the gateway, or is moved, fails the test that names it.

use std::net::{IpAddr, Ipv4Addr};

use gateway::limits::{
    FRAMES_PER_TURN, HANDSHAKES_PER_TURN, OPENS_PARKED_MAX, OPENS_PER_CHANNEL_MAX,
    RECEIVE_BUFFER_BYTES, SHARES_PER_TURN, STASH_BYTES_MAX, WRITE_STALL_MILLIS,
};
use gateway::machine::Flow;
use gateway::machine::board::BoardUpdate;
use gateway::machine::output::ConnectionId;
use gateway::reason::{Close, CloseCause, Reason};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use sv2::message::mining::CloseChannel;
use sv2::{ACT1_BYTES, ACT2_BYTES, Ephemeral, Initiator, Message, Opened, ToMiner, Transport};
use work::Mono;

use super::in_memory::{Desk, UNIX_SECONDS};
use super::rude::{OPEN, SETUP, SHARE};

/// What a message of the gateway's comes to here.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Opened(u32),
    OpenRefused(String),
    ShareRefused,
    Other,
}

/// The far end of one connection of a desk's shard.
struct Peer {
    id: ConnectionId,
    transport: Transport,
}

fn id(number: u32) -> ConnectionId {
    ConnectionId((1 << 32) | u64::from(number))
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

fn desk() -> Desk {
    Desk::new(|_| ())
}

/// One step for received bytes; what it says, and the bytes that go out with it.
fn feed(desk: &mut Desk, id: ConnectionId, bytes: &mut [u8]) -> (Flow, Vec<u8>) {
    desk.out.begin(SHARES_PER_TURN, Vec::new());
    let flow = desk.shard.on_bytes(id, desk.now, bytes, &mut desk.out);
    desk.out.entries.clear();
    (flow, std::mem::take(&mut desk.out.wire))
}

/// All that a connection has to say when its sends are done at once.
fn drain(desk: &mut Desk, id: ConnectionId, wire: &mut Vec<u8>) {
    loop {
        desk.out.begin(SHARES_PER_TURN, Vec::new());
        desk.shard.on_sent(id, desk.now, &mut desk.out);
        desk.out.entries.clear();
        if desk.out.wire.is_empty() {
            return;
        }
        wire.append(&mut desk.out.wire);
    }
}

fn act1(seed: u64) -> (Initiator, [u8; ACT1_BYTES]) {
    Initiator::new(None, Ephemeral::generate(&mut ChaCha20Rng::seed_from_u64(seed)))
}

impl Peer {
    /// Connect and set up.
    fn new(desk: &mut Desk, number: u32) -> Peer {
        let id = id(number);
        desk.shard.on_turn();
        desk.shard.on_accept(desk.now, id, address(1)).unwrap();
        let (initiator, mut act1) = act1(u64::from(number));
        let (_, act2) = feed(desk, id, &mut act1);
        let act2: [u8; ACT2_BYTES] = act2.try_into().unwrap();
        let transport = initiator.finish(&act2, UNIX_SECONDS).unwrap();
        drain(desk, id, &mut Vec::new());
        let mut peer = Peer { id, transport };
        let mut setup = peer.seal(&SETUP, 1);
        let (flow, mut wire) = feed(desk, id, &mut setup);
        drain(desk, id, &mut wire);
        assert_eq!((flow, peer.hear(&mut wire)), (Flow::Continue, vec![Said::Other]));
        peer
    }

    fn seal<M: Message>(&mut self, message: &M, count: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        (0..count).for_each(|_| self.transport.seal(message, &mut wire).unwrap());
        wire
    }

    fn hear(&mut self, wire: &mut [u8]) -> Vec<Said> {
        let (mut said, mut at) = (Vec::new(), 0);
        while at < wire.len() {
            let Opened::Frame { frame, consumed } = self.transport.open(&mut wire[at..]) else {
                panic!("a whole number of frames is sent");
            };
            said.push(match ToMiner::decode(&frame).unwrap() {
                ToMiner::OpenStandardMiningChannelSuccess(opened) => {
                    Said::Opened(opened.channel_id)
                }
                ToMiner::OpenMiningChannelError(error) => {
                    Said::OpenRefused(String::from_utf8_lossy(error.error_code).into_owned())
                }
                ToMiner::SubmitSharesError(_) => Said::ShareRefused,
                _ => Said::Other,
            });
            at += consumed;
        }
        said
    }

    /// Send a message and hear all that comes of it.
    fn ask<M: Message>(&mut self, desk: &mut Desk, message: &M) -> Vec<Said> {
        let mut bytes = self.seal(message, 1);
        desk.shard.on_turn();
        let (flow, mut wire) = feed(desk, self.id, &mut bytes);
        assert_eq!(flow, Flow::Continue);
        drain(desk, self.id, &mut wire);
        self.hear(&mut wire)
    }

    /// Ask for one channel: its number, or the code of the refusal.
    fn open(&mut self, desk: &mut Desk) -> Result<u32, String> {
        match self.ask(desk, &OPEN).first().unwrap() {
            Said::Opened(channel_id) => Ok(*channel_id),
            Said::OpenRefused(code) => Err(code.clone()),
            other => panic!("{other:?}"),
        }
    }
}

/// Goal: of many handshakes in one turn some are answered, and each turn after it as many more:
/// shares of others come in between.
#[test]
fn handshakes_a_turn() {
    let mut desk = desk();
    let count = 3 * HANDSHAKES_PER_TURN;
    desk.shard.on_turn();
    let mut answered = 0;
    for number in 0..count {
        let id = id(u32::try_from(number).unwrap());
        desk.shard.on_accept(desk.now, id, address(1)).unwrap();
        let (flow, wire) = feed(&mut desk, id, &mut act1(1).1);
        assert_eq!(flow, Flow::Continue);
        answered += usize::from(wire.len() == ACT2_BYTES);
    }
    for turn in 1..=3 {
        assert_eq!(answered, turn * HANDSHAKES_PER_TURN);
        desk.shard.on_turn();
        while let Some(id) = desk.shard.next_ready(desk.now, SHARES_PER_TURN) {
            desk.out.begin(SHARES_PER_TURN, Vec::new());
            desk.shard.step(id, desk.now, &mut desk.out);
            answered += usize::from(desk.out.wire.len() == ACT2_BYTES);
        }
    }
}

/// Goal: however much one connection sends at once, the others' turn comes after so many frames.
#[test]
fn frames_a_turn() {
    let mut desk = desk();
    let mut peer = Peer::new(&mut desk, 0);
    let mut flood = peer.seal(&SHARE, 3 * FRAMES_PER_TURN);
    let (flow, mut wire) = feed(&mut desk, peer.id, &mut flood);
    assert_eq!(flow, Flow::Continue);
    assert_eq!(peer.hear(&mut wire), vec![Said::ShareRefused; FRAMES_PER_TURN]);
}

/// Goal: whoever takes nothing of what it is sent is paused soon, is ended in time, and holds no
/// more until then than it may, even if what is in the kernel's buffers still comes.
#[test]
fn a_peer_that_never_reads() {
    let mut desk = desk();
    // A connection without channels must not be ended for that first.
    desk.shard.state.settings.setup_timeout_ms = 10 * WRITE_STALL_MILLIS;
    let mut peer = Peer::new(&mut desk, 0);
    let mut closed = None;
    let mut paused_at = None;
    let mut fed = 0;
    // The first answer is in flight for good.
    while closed.is_none() {
        let mut bytes = peer.seal(&SHARE, RECEIVE_BUFFER_BYTES / 64);
        fed += bytes.len();
        match feed(&mut desk, peer.id, &mut bytes).0 {
            Flow::Wait => paused_at = paused_at.or(Some(fed)),
            Flow::Close(close) => closed = Some(close),
            Flow::Continue => assert_eq!(paused_at, None, "read again though nothing was taken"),
        }
        assert!(desk.shard.connection_bytes(peer.id) <= 2 * STASH_BYTES_MAX);
        assert!(fed < 2 * STASH_BYTES_MAX, "nothing ends it");
    }
    assert_eq!(closed, Some(Close::Reason(Reason::ProtocolViolation)));
    assert!(paused_at.unwrap() < STASH_BYTES_MAX / 4, "paused long before it is ended");
    assert!(fed > STASH_BYTES_MAX, "ended by what it has waiting, and by nothing else");

    // A second one stops when it is paused; then the clock ends it.
    let mut peer = Peer::new(&mut desk, 1);
    let mut bytes = peer.seal(&SHARE, FRAMES_PER_TURN);
    assert!(!feed(&mut desk, peer.id, &mut bytes).1.is_empty());
    let stalled = desk.now.mono.plus_millis(WRITE_STALL_MILLIS);
    let overdue = |desk: &mut Desk, mono: Mono| {
        desk.now.mono = mono;
        desk.shard.on_turn();
        std::iter::from_fn(|| desk.shard.next_overdue(desk.now)).find(|(id, _)| *id == peer.id)
    };
    assert_eq!(overdue(&mut desk, Mono(stalled.0 - 1)), None);
    let ended = overdue(&mut desk, stalled.plus_millis(1_000));
    assert_eq!(ended, Some((peer.id, Close::Reason(Reason::ProtocolViolation))));
}

/// Goal: channels at once and in a connection's life end at their numbers; without the limit, one
/// connection gets twenty thousand.
#[test]
fn channels_of_a_connection() {
    const WITHOUT_LIMIT: usize = 20_000;
    let refused = Err("channel-limit-reached".to_owned());
    let mut desk = desk();
    let most = desk.shard.state.settings.max_channels_per_connection;
    let mut peer = Peer::new(&mut desk, 0);
    let given: Vec<u32> = (0..most).map(|_| peer.open(&mut desk).unwrap()).collect();
    assert_eq!(peer.open(&mut desk), refused);
    for channel_id in given {
        peer.ask(&mut desk, &CloseChannel { channel_id, reason_code: b"" });
    }
    for _ in 0..most * (OPENS_PER_CHANNEL_MAX - 1) {
        let channel_id = peer.open(&mut desk).unwrap();
        peer.ask(&mut desk, &CloseChannel { channel_id, reason_code: b"" });
    }
    assert_eq!(peer.open(&mut desk), refused);

    desk.shard.state.settings.max_channels_per_connection = WITHOUT_LIMIT;
    let mut peer = Peer::new(&mut desk, 1);
    assert!((0..WITHOUT_LIMIT).all(|_| peer.open(&mut desk).is_ok()));
}

/// Goal: while there is no work, so many requests wait, and the next is refused at once.
#[test]
fn requests_that_wait() {
    let mut desk = desk();
    let of_connection = desk.shard.state.settings.max_channels_per_connection;
    let mut peer = Peer::new(&mut desk, 1);
    desk.shard.on_board(desk.now, BoardUpdate::Hold);
    for _ in 0..of_connection {
        assert_eq!(peer.ask(&mut desk, &OPEN), []);
    }
    assert_eq!(peer.open(&mut desk), Err("not-ready-retry".to_owned()));
    desk.shard.on_gone(desk.now, peer.id, CloseCause::PeerGone.into());
    assert_eq!(desk.shard.state.parked, 0, "those that waited are gone with their connection");

    desk.shard.state.settings.max_channels_per_connection = OPENS_PARKED_MAX + 1;
    let mut peer = Peer::new(&mut desk, 0);
    for _ in 0..OPENS_PARKED_MAX {
        assert_eq!(peer.ask(&mut desk, &OPEN), []);
    }
    assert_eq!(peer.open(&mut desk), Err("not-ready-retry".to_owned()));
    desk.shard.on_board(desk.now, BoardUpdate::Resume);
    let mut opened = 0;
    while let Some(id) = desk.shard.next_ready(desk.now, SHARES_PER_TURN) {
        desk.out.begin(SHARES_PER_TURN, Vec::new());
        desk.shard.step(id, desk.now, &mut desk.out);
        let mut wire = std::mem::take(&mut desk.out.wire);
        drain(&mut desk, id, &mut wire);
        let said = peer.hear(&mut wire);
        opened += said.iter().filter(|said| matches!(said, Said::Opened(_))).count();
    }
    assert_eq!(opened, OPENS_PARKED_MAX);
}

/// Goal: the table and one address's part of it end at their numbers; 0 is no limit of addresses.
#[test]
fn connections_of_a_shard() {
    let limit = Err(Close::Cause(CloseCause::Limit));
    let mut desk = desk();
    (desk.shard.state.settings.max_connections, desk.shard.state.settings.max_connections_per_ip) =
        (5, 3);
    let accept =
        |desk: &mut Desk, number, last| desk.shard.on_accept(desk.now, id(number), address(last));
    assert!((0..3).all(|number| accept(&mut desk, number, 1).is_ok()));
    assert_eq!(accept(&mut desk, 3, 1), limit);
    assert!((3..5).all(|number| accept(&mut desk, number, 2).is_ok()));
    assert_eq!(accept(&mut desk, 5, 2), limit);
    desk.shard.state.settings.max_connections = 100;
    desk.shard.state.settings.max_connections_per_ip = 0;
    assert!((5..100).all(|number| accept(&mut desk, number, 1).is_ok()));
    assert_eq!(accept(&mut desk, 100, 1), limit);
}
