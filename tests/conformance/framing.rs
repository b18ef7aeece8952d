//! Frames: statements 2, 3 and 5 to 12.

use gateway::metrics::shard as counter;
use gateway::reason::{Close, Reason};
use sv2::message::common::SetupConnection;
use sv2::message::extension::RequestExtensions;
use sv2::message::mining::{
    CloseChannel, OpenExtendedMiningChannel, OpenStandardMiningChannel, SetCustomMiningJob,
    UpdateChannel,
};
use sv2::{
    CHUNK_PLAINTEXT_MAX, FrameHeader, FromMiner, Message, SEALED_HEADER_BYTES, ToMiner,
    U16Sequence, inbound_payload_max,
};

use crate::plain::{House, Peer, open_extended, open_standard, setup};

/// Messages that a miner sends, each with its type and its plain payload, for a peer whose only
/// channels are 2, a standard one, and 3, an extended one.
fn messages(house: &House) -> Vec<(u8, Vec<u8>)> {
    fn plain<M: Message>(message: &M) -> (u8, Vec<u8>) {
        let mut payload = Vec::new();
        message.encode_payload(&mut payload);
        (M::MSG_TYPE, payload)
    }
    let share = |channel_id, extranonce_size: usize| crate::plain::Share {
        channel_id,
        sequence_number: 1,
        job_id: 99,
        claim: work::share::Claim {
            version: 0x2000_0000,
            merkle_root: work::MerkleNode::default(),
            ntime: crate::plain::UNIX_SECONDS,
            nonce: 7,
        },
        rolled: vec![0x5a; extranonce_size],
        job: house.job.clone(),
    };
    vec![
        plain(&open_standard(7)),
        plain(&open_extended(8, 4)),
        plain(&UpdateChannel {
            channel_id: 2,
            nominal_hash_rate: 1.0e6,
            maximum_target: [0xff; 32],
        }),
        plain(&custom(3)),
        plain(&share(2, 0).standard()),
        plain(&share(3, 8).extended(&[])),
        plain(&CloseChannel { channel_id: 99, reason_code: b"none" }),
    ]
}

fn custom(channel_id: u32) -> SetCustomMiningJob<'static> {
    SetCustomMiningJob {
        channel_id,
        request_id: 5,
        mining_job_token: b"token",
        version: 0x2000_0000,
        prev_hash: [4; 32],
        min_ntime: 1,
        nbits: 0x1a00_ffff,
        coinbase_tx_version: 2,
        coinbase_prefix: b"\x03\x01\x02\x03",
        coinbase_tx_input_n_sequence: 0,
        coinbase_tx_outputs: b"\x00",
        coinbase_tx_locktime: 0,
        merkle_path: &[[9; 32]],
    }
}

/// The header of a core frame of this type.
fn header(msg_type: u8, channel_msg: bool) -> FrameHeader {
    FrameHeader { extension_type: 0, channel_msg, msg_type, msg_length: 0 }
}

/// A peer with a standard channel 2 and an extended channel 3, that has heard all so far.
fn with_both_channels(house: &mut House) -> Peer {
    let mut peer = house.set_up(0);
    house.open_standard(&mut peer);
    peer.types();
    house.open_extended(&mut peer, 4);
    peer.types();
    peer
}

/// Goal: what the gateway sends says in bit 15 exactly what the table of the specification says.
/// Method: every type that it sends is provoked, and compared with a table written by hand.
#[test]
fn s02_the_channel_bit_is_sent_as_the_table_says() {
    let mut house = House::new();
    let mut peer = house.greet();
    house.say(&mut peer, &setup(0));
    for (msg_type, payload) in messages(&house) {
        house.say_frame(&mut peer, header(msg_type, true), &payload);
    }
    let requested_extensions = U16Sequence::new(&[2]);
    house.say(&mut peer, &RequestExtensions { request_id: 1, requested_extensions });
    let harder =
        UpdateChannel { channel_id: 2, nominal_hash_rate: 1.0e12, maximum_target: [0xff; 32] };
    house.say(&mut peer, &harder);
    house.say(&mut peer, &UpdateChannel { channel_id: 99, ..harder });
    house.say(&mut peer, &OpenStandardMiningChannel { max_target: [0; 32], ..open_standard(9) });
    house.publish(crate::plain::job(2, 2));
    house.listen(&mut peer);
    let mut heard: Vec<(u16, u8, bool)> = peer
        .heard
        .iter()
        .map(|(header, _)| (header.extension_type, header.msg_type, header.channel_msg))
        .collect();
    let mut refused = house.greet();
    house.say(&mut refused, &SetupConnection { protocol: 1, ..setup(0) });
    heard.extend(refused.heard.iter().map(|(h, _)| (h.extension_type, h.msg_type, h.channel_msg)));
    heard.sort_unstable();
    heard.dedup();
    let expected = [
        (0, 0x01, false),
        (0, 0x02, false),
        (0, 0x11, false),
        (0, 0x12, false),
        (0, 0x14, false),
        (0, 0x15, true),
        (0, 0x17, true),
        (0, 0x1d, true),
        (0, 0x1f, true),
        (0, 0x20, true),
        (0, 0x21, true),
        (0, 0x24, true),
        (1, 0x01, false),
    ];
    assert_eq!(heard, expected);
}

/// Goal: bit 15 of what a miner sends decides nothing.
/// Method: all messages with the bit set and with it clear are answered alike.
#[test]
fn s03_a_received_channel_bit_decides_nothing() {
    let answers = [false, true].map(|bit| {
        let mut house = House::new();
        let mut peer = house.greet();
        let mut payload = Vec::new();
        setup(0).encode_payload(&mut payload);
        house.say_frame(&mut peer, header(0x00, bit), &payload);
        for (msg_type, payload) in messages(&house) {
            house.say_frame(&mut peer, header(msg_type, bit), &payload);
        }
        assert_eq!(peer.closed, None);
        peer.heard
    });
    assert_eq!(answers[0].first().unwrap().0.msg_type, 0x01);
    assert!(answers[0].len() > 8);
    assert_eq!(answers[0], answers[1]);
}

/// How sealed frames are cut into reads.
type Cut<'a> = &'a dyn Fn(&[Vec<u8>]) -> Vec<Vec<u8>>;

/// Goal: how TCP cuts the stream changes nothing.
/// Method: one conversation as one read, in reads of every size from one byte up, cut in two at
/// every byte, and frame by frame.
#[test]
fn s05_a_stream_cut_anywhere_is_the_same() {
    let conversation = |house: &House, peer: &mut Peer| -> Vec<Vec<u8>> {
        let mut frames = vec![peer.seal(&setup(0))];
        for (msg_type, payload) in messages(house) {
            frames.push(peer.seal_frame(header(msg_type, true), &payload));
        }
        frames
    };
    let heard_after = |cut: Cut<'_>| {
        let mut house = House::new();
        let mut peer = house.greet();
        let frames = conversation(&house, &mut peer);
        for read in cut(&frames) {
            house.deliver(&mut peer, &read);
        }
        assert_eq!(peer.closed, None);
        assert_eq!(house.shard.connection_bytes(peer.id), 0, "nothing is left over");
        peer.heard
    };
    let by_frame = heard_after(&|frames| frames.to_vec());
    assert!(by_frame.len() > 8);
    assert_eq!(heard_after(&|frames| vec![frames.concat()]), by_frame, "all at once");
    for size in [1, 2, 3, 21, 22, 23, 64, 100] {
        let heard = heard_after(&|frames| frames.concat().chunks(size).map(Vec::from).collect());
        assert_eq!(heard, by_frame, "{size} bytes a read");
    }
    let mut house = House::new();
    let mut peer = house.greet();
    let length = conversation(&house, &mut peer).concat().len();
    for at in 1..length {
        let heard = heard_after(&|frames| {
            let all = frames.concat();
            vec![all[..at].to_vec(), all[at..].to_vec()]
        });
        assert_eq!(heard, by_frame, "cut at byte {at}");
    }
}

/// Goal: more frames in one read than one turn handles are all handled, in their order.
#[test]
fn s05_many_frames_in_one_read_are_all_answered() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let mut bytes = Vec::new();
    for request_id in 0..500 {
        let refused =
            OpenStandardMiningChannel { max_target: [0; 32], ..open_standard(request_id) };
        bytes.extend(peer.seal(&refused));
    }
    house.deliver(&mut peer, &bytes);
    for expected in 0..500 {
        peer.next(|message| {
            let ToMiner::OpenMiningChannelError(error) = message else { panic!("{message:?}") };
            assert_eq!(error.request_id, expected);
        });
    }
    assert_eq!((peer.heard.len(), peer.closed), (0, None));
}

/// Goal: a tag that does not fit ends the connection without a word, and no other.
/// Method: each byte of a sealed message flipped in turn, in the header and in the payload, and
/// in the second chunk of one that has two.
#[test]
fn s06_a_false_tag_ends_one_connection_without_an_answer() {
    let mut house = House::new();
    let mut neighbour = house.set_up(0);
    let channel = house.open_standard(&mut neighbour);
    neighbour.types();
    let length = house.set_up(0).seal(&open_standard(1)).len();
    for at in 0..length {
        let mut peer = house.set_up(0);
        let mut bytes = peer.seal(&open_standard(1));
        bytes[at] ^= 0x10;
        house.deliver(&mut peer, &bytes);
        assert_eq!(peer.closed, Some(Reason::FrameOutOfSequence.into()), "byte {at}");
        assert_eq!(peer.types(), Vec::<u8>::new());
    }
    let mut peer = house.set_up(0);
    let outputs = vec![7; 65_535];
    let mut bytes = peer.seal(&SetCustomMiningJob { coinbase_tx_outputs: &outputs, ..custom(3) });
    let second_chunk = SEALED_HEADER_BYTES + CHUNK_PLAINTEXT_MAX + 16;
    bytes[second_chunk] ^= 1;
    house.deliver(&mut peer, &bytes);
    assert_eq!(peer.closed, Some(Reason::FrameOutOfSequence.into()));
    assert_eq!(peer.types(), Vec::<u8>::new());
    let share = house.good(&channel, 1);
    assert_eq!(house.submit(&mut neighbour, &share), Ok(()), "the neighbour noticed nothing");
}

/// Goal: frames of extensions nobody knows, and of types nobody knows, are read over and counted;
/// what comes behind them is understood (statements 7 and 8).
/// Method: payloads of every size class, types of other sub-protocols, reserved ones, and those
/// that only a server sends.
#[test]
fn s07_s08_what_is_unknown_is_skipped() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_standard(&mut peer);
    peer.types();
    let mut share = house.good(&channel, 1);
    let mut skipped = [0, 0];
    for extension_type in [2, 3, 0x4000, 0x7fff] {
        for length in [0, 1, 4_096] {
            let header = FrameHeader { extension_type, ..header(0x1a, length > 0) };
            house.say_frame(&mut peer, header, &vec![0xa5; length]);
            skipped[0] += 1;
            assert_eq!(house.submit(&mut peer, &share), Ok(()));
            share.mine_next(&channel);
        }
    }
    for msg_type in [0x01, 0x11, 0x15, 0x1e, 0x20, 0x50, 0x57, 0x71, 0x76, 0xff] {
        house.say_frame(&mut peer, header(msg_type, false), &[0xa5; 40]);
        skipped[1] += 1;
        assert_eq!(house.submit(&mut peer, &share), Ok(()));
        share.mine_next(&channel);
    }
    assert_eq!(house.refusals(Reason::UnsupportedExtension), skipped[0]);
    assert_eq!(house.refusals(Reason::UnknownMessageType), skipped[1]);
    let unknown = house.shard.state.counters.read(counter::UNKNOWN_FRAMES);
    assert_eq!(unknown, skipped[0] + skipped[1]);
    assert_eq!(peer.closed, None);
}

/// Goal: a known message that is too short ends the connection, whichever byte it lacks.
/// Method: every message cut at every byte; the whole one does no harm.
#[test]
fn s09_a_message_that_is_cut_ends_the_connection() {
    let mut house = House::new();
    for (msg_type, payload) in messages(&house) {
        for length in 0..payload.len() {
            let mut peer = house.set_up(0);
            house.say_frame(&mut peer, header(msg_type, true), &payload[..length]);
            let expected = Some(Close::Reason(Reason::MessageTruncated));
            assert_eq!(peer.closed, expected, "{msg_type:#x} cut at {length}");
        }
        let mut peer = house.set_up(0);
        house.say_frame(&mut peer, header(msg_type, true), &payload);
        assert_eq!(peer.closed, None, "{msg_type:#x}");
    }
}

/// Goal: bytes behind the last field are tolerated and counted.
/// Method: every message with 1 to 256 bytes behind it is answered as without them.
#[test]
fn s10_bytes_behind_the_last_field_are_tolerated() {
    let answers = |behind: usize| {
        let mut house = House::new();
        let mut peer = with_both_channels(&mut house);
        for (msg_type, mut payload) in messages(&house) {
            payload.resize(payload.len() + behind, 0xa5);
            house.say_frame(&mut peer, header(msg_type, true), &payload);
        }
        assert_eq!(peer.closed, None, "{behind} bytes");
        let counted = house.refusals(Reason::MessageLengthMismatch);
        assert_eq!(counted, if behind == 0 { 0 } else { 7 }, "{behind} bytes");
        peer.heard
    };
    let plain = answers(0);
    for behind in [1, 2, 37, 255, 256] {
        assert_eq!(answers(behind), plain, "{behind} bytes");
    }
}

/// Goal: a claim of more than a type can hold ends the connection at its header; nothing is kept
/// for it before. An idle connection holds nothing (statement 11).
/// Method: the 22 sealed bytes of a header alone, a byte above each ceiling and at it.
#[test]
fn s11_a_claim_above_the_ceiling_ends_at_the_header() {
    let mut house = House::new();
    let kinds = [(0, 0x00), (0, 0x10), (0, 0x13), (0, 0x16), (0, 0x18), (0, 0x1a), (0, 0x1b)];
    for (extension_type, msg_type) in [&kinds[..], &[(0, 0x22), (0, 0xff), (1, 0), (9, 9)]].concat()
    {
        let ceiling = inbound_payload_max(extension_type, msg_type);
        assert!(ceiling <= 80 * 1_024, "{msg_type:#x}");
        for (length, expected) in
            [(ceiling, None), (ceiling + 1, Some(Reason::MessageTooLarge.into()))]
        {
            let mut peer = house.set_up(0);
            assert_eq!(house.shard.connection_bytes(peer.id), 0, "idle, it holds nothing");
            let header = FrameHeader { extension_type, ..header(msg_type, false) };
            let sealed = peer.seal_frame(header, &vec![0; length]);
            house.deliver(&mut peer, &sealed[..SEALED_HEADER_BYTES]);
            assert_eq!(peer.closed, expected, "{extension_type}:{msg_type:#x} claims {length}");
            assert!(house.shard.connection_bytes(peer.id) <= 256, "no room for a claim");
        }
    }
}

/// Goal: fields that break their own bounds end the connection by a code, strings that are no
/// UTF-8 end nothing (statement 12; counts of OPTION are the codec's own test).
/// Method: an extranonce of 33 and of 255 bytes; every string of setup and of an open as raw
/// bytes.
#[test]
fn s12_impossible_fields_and_raw_strings() {
    let mut house = House::new();
    for length in [33u8, 255] {
        let mut peer = with_both_channels(&mut house);
        let mut payload = vec![0; 24];
        payload[0] = 3;
        payload.push(length);
        payload.resize(25 + usize::from(length), 0x5a);
        house.say_frame(&mut peer, header(0x1b, true), &payload);
        assert_eq!(peer.closed, Some(Reason::InvalidEncoding.into()), "{length} bytes");
    }
    let raw: &[u8] = &[0xff, 0x00, 0x1b, 0xc3];
    let mut peer = house.greet();
    let strange = SetupConnection {
        endpoint_host: raw,
        vendor: raw,
        hardware_version: raw,
        firmware: raw,
        device_id: raw,
        ..setup(0)
    };
    house.say(&mut peer, &strange);
    assert_eq!(peer.types(), [0x01]);
    house.say(&mut peer, &OpenStandardMiningChannel { user_identity: raw, ..open_standard(1) });
    house.say(&mut peer, &OpenExtendedMiningChannel { user_identity: raw, ..open_extended(1, 4) });
    assert_eq!(peer.types(), [0x12, 0x12]);
    house.say(&mut peer, &CloseChannel { channel_id: 9, reason_code: raw });
    assert_eq!(peer.closed, None);
    assert!(matches!(
        FromMiner::decode(&sv2::Frame { header: header(0x1e, false), payload: raw }),
        Ok(FromMiner::Unknown { .. })
    ));
}
