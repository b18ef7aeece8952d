//! Bad input: what becomes of every message that is cut, bent, too long, out of place, or never
//! finished. The expected codes are tables, and a neighbour on the same shard notices nothing.
//!
//! The production shard in memory; what takes sockets is in `tests/abuse.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod plain;

use gateway::limits::{STASH_BYTES_MAX, WIRE_WAITING_MAX};
use gateway::reason::{Close, Reason};
use plain::{House, Peer, PeerChannel, Share, UNIX_SECONDS, in_memory, job, setup};
use sv2::message::extension::RequestExtensions;
use sv2::message::mining::{
    CloseChannel, SetCustomMiningJob, SubmitSharesExtended, SubmitSharesStandard, UpdateChannel,
};
use sv2::{FrameHeader, Message, U16Sequence, inbound_payload_max};

/// Types of what the gateway may answer.
const SETUP_SUCCESS: u8 = 0x01;
const SETUP_ERROR: u8 = 0x02;
const STANDARD_OPENED: u8 = 0x11;
const OPEN_REFUSED: u8 = 0x12;
const EXTENDED_OPENED: u8 = 0x14;
const UPDATE_REFUSED: u8 = 0x17;
const SHARE_REFUSED: u8 = 0x1d;
const NEW_TARGET: u8 = 0x21;
const CUSTOM_REFUSED: u8 = 0x24;
const EXTENSIONS_SUCCESS: u8 = 0x01;
const EXTENSIONS_ERROR: u8 = 0x02;

/// What a miner says, and what may follow when it is bent somewhere.
struct Sample {
    name: &'static str,
    header: FrameHeader,
    payload: Vec<u8>,
    /// Bytes without which it cannot be read; what lies behind may be missing.
    needed: usize,
    /// Whether it is the first message of a connection.
    is_first: bool,
    /// Types of the answers that a bent one may have; nothing at all is always among them.
    answers: &'static [u8],
    /// Reasons for which a bent one may end the connection.
    ends: &'static [Reason],
}

fn sample<M: Message>(
    name: &'static str,
    message: &M,
    answers: &'static [u8],
    ends: &'static [Reason],
) -> Sample {
    let mut payload = Vec::new();
    message.encode_payload(&mut payload);
    Sample {
        name,
        header: FrameHeader {
            extension_type: M::EXTENSION_TYPE,
            channel_msg: M::CHANNEL_MSG,
            msg_type: M::MSG_TYPE,
            msg_length: 0,
        },
        needed: payload.len(),
        payload,
        is_first: false,
        answers,
        ends,
    }
}

/// A byte that says how long something is may say too much: then the payload is too short, or
/// the field too long.
const BY_LENGTH: &[Reason] = &[Reason::MessageTruncated, Reason::InvalidEncoding];

/// Shares of both kinds.
fn shares() -> [Sample; 2] {
    let share = SubmitSharesStandard {
        channel_id: 2,
        sequence_number: 5,
        job_id: 1,
        nonce: 7,
        ntime: UNIX_SECONDS,
        version: 0x2000_0000,
    };
    let extended = SubmitSharesExtended {
        channel_id: 3,
        sequence_number: 6,
        job_id: 1,
        nonce: 7,
        ntime: UNIX_SECONDS,
        version: 0x2000_0000,
        extranonce: &[1; 8],
        tlv: &[],
    };
    [
        sample("SubmitSharesStandard", &share, &[SHARE_REFUSED], &[]),
        sample("SubmitSharesExtended", &extended, &[SHARE_REFUSED], BY_LENGTH),
    ]
}

/// Every message of a miner, good as it stands for a connection with channels 2 and 3.
fn samples() -> Vec<Sample> {
    let update =
        UpdateChannel { channel_id: 2, nominal_hash_rate: 1.0e6, maximum_target: [0xff; 32] };
    let custom = SetCustomMiningJob {
        channel_id: 3,
        request_id: 9,
        mining_job_token: b"token",
        version: 0x2000_0000,
        prev_hash: [1; 32],
        min_ntime: UNIX_SECONDS,
        nbits: in_memory::NBITS,
        coinbase_tx_version: 2,
        coinbase_prefix: b"\x03abc",
        coinbase_tx_input_n_sequence: 0,
        coinbase_tx_outputs: b"\x01outputs",
        coinbase_tx_locktime: 0,
        merkle_path: &[[2; 32], [3; 32]],
    };
    let asks = RequestExtensions {
        request_id: 4,
        requested_extensions: U16Sequence::new(&[0x0002, 0x0003]),
    };
    let first = Sample {
        is_first: true,
        ..sample(
            "SetupConnection",
            &setup(0),
            &[SETUP_SUCCESS, SETUP_ERROR],
            &[Reason::MessageTruncated, Reason::SetupRejected],
        )
    };
    let mut all = vec![
        first,
        sample("RequestExtensions", &asks, &[EXTENSIONS_SUCCESS, EXTENSIONS_ERROR], BY_LENGTH),
        sample(
            "OpenStandardMiningChannel",
            &plain::open_standard(1),
            &[STANDARD_OPENED, OPEN_REFUSED],
            BY_LENGTH,
        ),
        sample(
            "OpenExtendedMiningChannel",
            &plain::open_extended(1, 4),
            &[EXTENDED_OPENED, OPEN_REFUSED],
            BY_LENGTH,
        ),
        sample("UpdateChannel", &update, &[UPDATE_REFUSED, NEW_TARGET], &[]),
        sample(
            "CloseChannel",
            &CloseChannel { channel_id: 3, reason_code: b"bye" },
            &[],
            BY_LENGTH,
        ),
        sample("SetCustomMiningJob", &custom, &[CUSTOM_REFUSED], BY_LENGTH),
    ];
    all.extend(shares());
    all
}

/// A shard with an honest neighbour, which is asked after every bad input whether it is well.
struct Street {
    house: House,
    neighbour: Peer,
    channel: PeerChannel,
    share: Share,
    job_id: u32,
}

impl Street {
    fn new() -> Street {
        let mut house = House::new();
        let mut neighbour = house.set_up(0);
        let channel = house.open_extended(&mut neighbour, 4);
        neighbour.types();
        let share = house.good(&channel, 1);
        Street { house, neighbour, channel, share, job_id: 1 }
    }

    /// A peer to be bad: before its setup, or with a standard and an extended channel.
    fn peer(&mut self, is_first: bool) -> Peer {
        if is_first {
            return self.house.greet();
        }
        let mut peer = self.house.set_up(0);
        self.house.open_standard(&mut peer);
        peer.types();
        self.house.open_extended(&mut peer, 4);
        peer.types();
        peer
    }

    /// The neighbour's next share is accepted, and acknowledged.
    fn ask_the_neighbour(&mut self) {
        self.share.claim.nonce += 1;
        let tip = self.house.job.template.tip;
        while !self.channel.target.is_met_by(&self.share.claim.hash(&tip)) {
            self.share.claim.nonce += 1;
        }
        let before = self.house.shares.len();
        assert_eq!(self.house.submit(&mut self.neighbour, &self.share), Ok(()));
        assert_eq!(self.house.shares.len(), before + 1);
        self.house.make_durable();
        self.house.listen(&mut self.neighbour);
        assert_eq!(self.neighbour.types(), [0x1c], "acknowledged, and told nothing else");
        assert_eq!(self.neighbour.closed, None);
    }

    /// The neighbour is given new work, too.
    fn new_work(&mut self) {
        self.job_id += 1;
        self.house.publish(job(u64::from(self.job_id), self.job_id as u8));
        self.house.listen(&mut self.neighbour);
        assert_eq!(self.neighbour.types(), [0x1f, 0x20]);
        self.share = self.house.good(&self.channel, self.job_id);
    }
}

/// Goal: a message that is cut anywhere ends the connection for `message_truncated`, and nothing
/// of it is done.
/// Method: each message, cut at each byte and sealed; the whole message is the counter-check.
#[test]
fn every_message_cut_at_every_byte() {
    let mut street = Street::new();
    for sample in samples() {
        for length in 0..=sample.needed {
            let mut peer = street.peer(sample.is_first);
            street.house.say_frame(&mut peer, sample.header, &sample.payload[..length]);
            let expected = (length < sample.needed).then_some(Reason::MessageTruncated.into());
            assert_eq!(peer.closed, expected, "{} cut at {length}", sample.name);
            if expected.is_some() {
                assert_eq!(peer.types(), Vec::<u8>::new(), "{} cut at {length}", sample.name);
            } else {
                street.house.leave(peer);
            }
        }
        street.ask_the_neighbour();
    }
    street.new_work();
    street.ask_the_neighbour();
}

/// Goal: a bent message does what the table says, whatever bit it is.
/// Method: each byte of each message with each of four changes.
#[test]
fn every_message_bent_at_every_byte() {
    let mut street = Street::new();
    let mut ends = 0;
    for sample in samples() {
        for at in 0..sample.payload.len() {
            for change in [0x01, 0x80, 0x55, 0xff] {
                let mut payload = sample.payload.clone();
                payload[at] ^= change;
                let what = format!("{} byte {at} ^ {change:#x}", sample.name);
                let mut peer = street.peer(sample.is_first);
                street.house.say_frame(&mut peer, sample.header, &payload);
                match peer.closed {
                    None => (),
                    Some(Close::Reason(reason)) => {
                        assert!(sample.ends.contains(&reason), "{what}: {reason}");
                        ends += 1;
                    }
                    Some(cause) => panic!("{what}: {}", cause.code()),
                }
                for answer in peer.types() {
                    // A channel that opens is given its work.
                    let is_work = matches!(answer, 0x15 | 0x1f | 0x20);
                    let may = is_work || sample.answers.contains(&answer);
                    assert!(may, "{what}: answered by {answer:#x}");
                }
                if peer.closed.is_none() {
                    street.house.leave(peer);
                }
            }
        }
        street.ask_the_neighbour();
    }
    assert!(ends > 50, "some of these end the connection, {ends} did");
}

/// Goal: what is bent behind the seal is noticed by the seal, and only by that connection.
/// Method: each byte of each sealed message, header and payload, in one bit.
#[test]
fn every_sealed_byte_bent() {
    let mut street = Street::new();
    for sample in samples() {
        let mut probe = street.peer(sample.is_first);
        let length = probe.seal_frame(sample.header, &sample.payload).len();
        street.house.leave(probe);
        for at in 0..length {
            let mut peer = street.peer(sample.is_first);
            let mut bytes = peer.seal_frame(sample.header, &sample.payload);
            bytes[at] ^= 1 << (at % 8);
            street.house.deliver(&mut peer, &bytes);
            let expected = Some(Reason::FrameOutOfSequence.into());
            assert_eq!(peer.closed, expected, "{} sealed byte {at}", sample.name);
            assert_eq!(peer.types(), Vec::<u8>::new());
        }
        street.ask_the_neighbour();
    }
}

/// Goal: frames in another order, twice, or left out end the connection.
#[test]
fn frames_out_of_order() {
    let mut street = Street::new();
    let [share, _] = &shares();
    let orders: [&[usize]; 3] = [&[1, 0], &[0, 0], &[1]];
    for order in orders {
        let mut peer = street.peer(false);
        let sealed: Vec<Vec<u8>> =
            (0..2).map(|_| peer.seal_frame(share.header, &share.payload)).collect();
        for at in order {
            street.house.deliver(&mut peer, &sealed[*at]);
        }
        assert_eq!(peer.closed, Some(Reason::FrameOutOfSequence.into()), "{order:?}");
    }
    street.ask_the_neighbour();
}

/// Goal: what may not be said before the setup, or twice, ends the connection; what only a server
/// says, or nobody, is skipped.
#[test]
fn messages_out_of_place() {
    let mut street = Street::new();
    for sample in samples() {
        let mut early = street.house.greet();
        street.house.say_frame(&mut early, sample.header, &sample.payload);
        let expected = (!sample.is_first).then_some(Reason::ProtocolViolation.into());
        assert_eq!(early.closed, expected, "{} before the setup", sample.name);
    }
    let mut twice = street.house.set_up(0);
    street.house.say(&mut twice, &setup(0));
    assert_eq!(twice.closed, Some(Reason::SetupRejected.into()));
    let known = [0x00, 0x10, 0x13, 0x16, 0x18, 0x1a, 0x1b, 0x22];
    let mut peer = street.house.set_up(0);
    let before = street.house.refusals(Reason::UnknownMessageType);
    let mut skipped = 0;
    for msg_type in (0..=255u8).filter(|msg_type| !known.contains(msg_type)) {
        let header = FrameHeader { extension_type: 0, channel_msg: false, msg_type, msg_length: 0 };
        street.house.say_frame(&mut peer, header, &[0xab; 40]);
        skipped += 1;
    }
    assert_eq!(street.house.refusals(Reason::UnknownMessageType), before + skipped);
    let header =
        FrameHeader { extension_type: 0x4242, channel_msg: true, msg_type: 0, msg_length: 0 };
    street.house.say_frame(&mut peer, header, &[0xab; 40]);
    assert_eq!(street.house.refusals(Reason::UnsupportedExtension), 1);
    assert_eq!((peer.closed, peer.types()), (None, Vec::new()));
    street.ask_the_neighbour();
}

/// Goal: a header that claims more than its type can have is refused from its 22 bytes, before
/// anything is kept for it; one at the edge is waited for.
/// Method: every type, and some extensions; sealed headers whose payload never comes.
#[test]
fn oversize_claims() {
    let mut street = Street::new();
    let extensions = (0..=255u8).map(|msg_type| (0, msg_type));
    for (extension_type, msg_type) in extensions.chain([(1, 0), (1, 7), (2, 1), (0x4000, 9)]) {
        let most = inbound_payload_max(extension_type, msg_type);
        for (length, expected) in [(most, None), (most + 1, Some(Reason::MessageTooLarge.into()))] {
            let mut peer = street.house.set_up(0);
            let header =
                FrameHeader { extension_type, channel_msg: false, msg_type, msg_length: 0 };
            let sealed = peer.seal_frame(header, &vec![0; length]);
            street.house.deliver(&mut peer, &sealed[..22]);
            let what = format!("type {extension_type:#x}/{msg_type:#x} of {length} bytes");
            assert_eq!(peer.closed, expected, "{what}");
            assert!(street.house.shard.connection_bytes(peer.id) <= 64, "{what} is kept room for");
            if peer.closed.is_none() {
                street.house.leave(peer);
            }
        }
    }
    street.ask_the_neighbour();
}

/// Goal: a writer that never finishes holds little and is ended by its deadline; whole frames that
/// come byte by byte do what they should.
#[test]
fn slow_writers() {
    let mut street = Street::new();
    for sample in samples() {
        let mut peer = street.peer(sample.is_first);
        let sealed = peer.seal_frame(sample.header, &sample.payload);
        for byte in &sealed {
            assert_eq!(peer.closed, None);
            street.house.deliver(&mut peer, &[*byte]);
            let held = street.house.shard.connection_bytes(peer.id);
            assert!(held <= 2 * sealed.len() + 64, "{held} bytes for {}", sealed.len());
        }
        assert_eq!(peer.closed, None, "{}", sample.name);
        street.house.leave(peer);
    }
    let mut early = street.house.connect();
    street.house.deliver(&mut early, &[7; 63]);
    let mut unfinished = street.house.greet();
    street.house.deliver(&mut unfinished, &[7; 21]);
    street.house.pass(5_600);
    street.house.expire(&mut early);
    assert_eq!(early.closed, Some(Reason::HandshakeTimeout.into()));
    street.house.pass(5_000);
    street.house.expire(&mut unfinished);
    assert_eq!(unfinished.closed, Some(Reason::HandshakeTimeout.into()));
    street.ask_the_neighbour();
}

/// Goal: a peer that reads nothing is not read for ever: what waits for it is bounded, and it is
/// ended.
/// Method: shares for a channel that is not there, each of which has an answer, while a send to
/// the peer never completes.
#[test]
fn slow_readers() {
    let mut street = Street::new();
    let mut peer = street.peer(false);
    street.house.stall(&peer);
    let [share, _] = &shares();
    let mut most = 0;
    for _ in 0..20_000 {
        let sealed = peer.seal_frame(share.header, &share.payload);
        street.house.deliver(&mut peer, &sealed);
        most = most.max(street.house.shard.connection_bytes(peer.id));
        if peer.closed.is_some() {
            break;
        }
    }
    let bound = 2 * (STASH_BYTES_MAX + WIRE_WAITING_MAX);
    assert!(most <= bound, "{most} bytes, at most {bound} are allowed");
    if peer.closed.is_none() {
        street.house.pass(10_600);
        street.house.expire(&mut peer);
    }
    assert_eq!(peer.closed, Some(Reason::ProtocolViolation.into()));
    street.ask_the_neighbour();
}
