//! Bytes that nobody meant well: they are refused or ignored, and never panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixtures;

use fixtures::{NOW, connect, identity, random};
use proptest::prelude::*;
use sv2::message::mining::{SubmitSharesExtended, SubmitSharesStandard};
use sv2::{
    Ephemeral, Frame, FrameHeader, FromMiner, Initiator, NoiseError, Opened, SEALED_HEADER_BYTES,
    ToMiner, Transport, TransportError, respond,
};

fn share(sequence_number: u32) -> SubmitSharesStandard {
    SubmitSharesStandard {
        channel_id: 1,
        sequence_number,
        job_id: 3,
        nonce: 4,
        ntime: 5,
        version: 6,
    }
}

const EXTENDED: SubmitSharesExtended<'static> = SubmitSharesExtended {
    channel_id: 1,
    sequence_number: 2,
    job_id: 3,
    nonce: 4,
    ntime: 5,
    version: 6,
    extranonce: &[7; 8],
    tlv: b"",
};

/// What a driver does: keep bytes until there are enough, then take frames off the front.
struct Inbox {
    transport: Transport,
    bytes: Vec<u8>,
    frames: Vec<(FrameHeader, Vec<u8>)>,
}

impl Inbox {
    fn new(transport: Transport) -> Self {
        Self { transport, bytes: Vec::new(), frames: Vec::new() }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        self.bytes.extend_from_slice(bytes);
        loop {
            let consumed = match self.transport.open(&mut self.bytes) {
                Opened::Need(need) => {
                    assert!(need > self.bytes.len(), "progress was possible");
                    return Ok(());
                }
                Opened::Error(error) => return Err(error),
                Opened::Frame { frame, consumed } => {
                    self.frames.push((frame.header, frame.payload.to_vec()));
                    consumed
                }
            };
            self.bytes.drain(..consumed);
        }
    }
}

/// A server, a stream of small and empty frames for it, and how many they are.
fn stream(seed: u64) -> (Transport, Vec<u8>, usize) {
    let (server, mut miner) = connect(seed);
    let mut wire = Vec::new();
    let header = FrameHeader::decode(&[0, 0x40, 0x42, 0, 0, 0]);
    miner.seal(&share(1), &mut wire).unwrap();
    miner.seal_frame(header, &[], &mut wire).unwrap();
    miner.seal(&EXTENDED, &mut wire).unwrap();
    miner.seal_frame(header, &[9; 700], &mut wire).unwrap();
    miner.seal(&share(2), &mut wire).unwrap();
    (server, wire, 5)
}

#[test]
fn a_stream_split_at_every_byte_opens_identically() {
    let (server, wire, count) = stream(1);
    let mut whole = Inbox::new(server);
    whole.receive(&wire).unwrap();
    assert_eq!(whole.frames.len(), count);
    for split in 0..=wire.len() {
        let (server, again, _) = stream(1);
        assert_eq!(again, wire, "the stream is the same in every run");
        let mut inbox = Inbox::new(server);
        inbox.receive(&wire[..split]).unwrap();
        inbox.receive(&wire[split..]).unwrap();
        assert!(inbox.frames == whole.frames, "split at {split}");
    }
    let (server, ..) = stream(1);
    let mut inbox = Inbox::new(server);
    wire.iter().for_each(|byte| inbox.receive(&[*byte]).unwrap());
    assert!(inbox.frames == whole.frames, "byte by byte");
    assert!(inbox.bytes.is_empty());
}

#[test]
fn a_frame_of_several_chunks_opens_in_pieces() {
    let (mut server, mut miner) = connect(2);
    server.set_ceiling(|_, _| 200_000);
    let payload: Vec<u8> = (0..150_000u32).map(|index| (index % 253) as u8).collect();
    let mut wire = Vec::new();
    miner.seal_frame(FrameHeader::decode(&[0; 6]), &payload, &mut wire).unwrap();
    miner.seal(&share(3), &mut wire).unwrap();
    let mut inbox = Inbox::new(server);
    wire.chunks(1_447).for_each(|piece| inbox.receive(piece).unwrap());
    assert_eq!(inbox.frames.len(), 2);
    assert!(inbox.frames[0].1 == payload);
}

#[test]
fn a_flipped_bit_anywhere_ends_the_stream() {
    let (_, wire, _) = stream(3);
    for index in 0..wire.len() {
        let (server, mut wire, _) = stream(3);
        wire[index] ^= 1 << (index % 8);
        let mut inbox = Inbox::new(server);
        assert_eq!(inbox.receive(&wire), Err(TransportError::DecryptFailed), "byte {index}");
        assert_eq!(inbox.receive(&[0]), Err(TransportError::Closed));
    }
}

#[test]
fn a_replayed_or_dropped_frame_ends_the_stream() {
    let (mut server, mut miner) = connect(4);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    miner.seal(&share(1), &mut first).unwrap();
    miner.seal(&share(2), &mut second).unwrap();
    assert!(matches!(server.open(&mut first.clone()), Opened::Frame { .. }));
    assert_eq!(server.open(&mut first), Opened::Error(TransportError::DecryptFailed));

    let (mut server, _) = connect(4);
    assert_eq!(server.open(&mut second), Opened::Error(TransportError::DecryptFailed));
}

/// Goal: 22 bytes do not make anybody wait for megabytes.
#[test]
fn a_claimed_length_above_the_ceiling_is_refused_at_once() {
    for (header, max) in [([0, 0, 0x1a, 0, 0, 0], 280), ([0, 0x40, 0, 0, 0, 0], 4_096)] {
        let (mut server, mut miner) = connect(5);
        let mut wire = Vec::new();
        miner.seal_frame(FrameHeader::decode(&header), &[0; 70_000], &mut wire).unwrap();
        match server.open(&mut wire[..SEALED_HEADER_BYTES]) {
            Opened::Error(TransportError::FrameTooLarge { length: 70_000, max: limit, .. }) => {
                assert_eq!(limit, max);
            }
            other => panic!("expected FrameTooLarge, got {other:?}"),
        }
    }
}

#[test]
fn both_ends_accept_their_largest_messages() {
    let (mut server, mut miner) = connect(6);
    let job = sv2::message::mining::NewExtendedMiningJob {
        channel_id: 1,
        job_id: 2,
        min_ntime: Some(3),
        version: 4,
        version_rolling_allowed: true,
        merkle_path: &[[5; 32]; 255],
        coinbase_tx_prefix: &[6; 65_535],
        coinbase_tx_suffix: &[7; 65_535],
    };
    let mut wire = Vec::new();
    server.seal(&job, &mut wire).unwrap();
    match miner.open(&mut wire) {
        Opened::Frame { frame, .. } => {
            assert!(ToMiner::decode(&frame) == Ok(ToMiner::NewExtendedMiningJob(job)));
        }
        other => panic!("expected a frame, got {other:?}"),
    }

    let custom = sv2::message::mining::SetCustomMiningJob {
        channel_id: 1,
        request_id: 2,
        mining_job_token: &[3; 255],
        version: 4,
        prev_hash: [5; 32],
        min_ntime: 6,
        nbits: 7,
        coinbase_tx_version: 8,
        coinbase_prefix: &[9; 255],
        coinbase_tx_input_n_sequence: 10,
        coinbase_tx_outputs: &[11; 65_535],
        coinbase_tx_locktime: 12,
        merkle_path: &[[13; 32]; 255],
    };
    wire.clear();
    miner.seal(&custom, &mut wire).unwrap();
    match server.open(&mut wire) {
        Opened::Frame { frame, .. } => {
            assert!(FromMiner::decode(&frame) == Ok(FromMiner::SetCustomMiningJob(custom)));
        }
        other => panic!("expected a frame, got {other:?}"),
    }
}

#[test]
fn the_channel_bit_and_unknown_types_do_not_matter() {
    let mut payload = Vec::new();
    EXTENDED.encode(&mut payload);
    for extension in [0x0000u16, 0x8000] {
        let [e0, e1] = extension.to_le_bytes();
        let header = FrameHeader::decode(&[e0, e1, 0x1b, 0, 0, 0]);
        let decoded = FromMiner::decode(&Frame { header, payload: &payload });
        assert_eq!(decoded, Ok(FromMiner::SubmitSharesExtended(EXTENDED)));
    }
    for (extension_type, msg_type) in [(0, 0xff), (0, 0x1c), (0x4000, 0x1b), (2, 0x1b), (1, 0x07)] {
        let header = FrameHeader { extension_type, channel_msg: true, msg_type, msg_length: 0 };
        let decoded = FromMiner::decode(&Frame { header, payload: &payload });
        assert_eq!(decoded, Ok(FromMiner::Unknown { extension_type, msg_type }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Every 64 bytes are an act 1; the stranger who sent them just cannot use what follows.
    #[test]
    fn any_act_1_is_answered(act1 in any::<[[u8; 32]; 2]>(), seed in any::<u64>()) {
        let act1: [u8; 64] = act1.as_flattened().try_into().unwrap();
        let mut act2 = [0; 234];
        let ephemeral = Ephemeral::generate(&mut random(seed));
        let mut server = respond(&identity(1), ephemeral, &act1, &mut act2).unwrap();
        let mut garbage = act2;
        let refused = Opened::Error(TransportError::DecryptFailed);
        prop_assert_eq!(server.open(&mut garbage), refused);
    }

    #[test]
    fn any_act_2_but_the_right_one_is_refused(bytes in prop::collection::vec(any::<u8>(), 234)) {
        let (initiator, _) = Initiator::new(None, Ephemeral::generate(&mut random(7)));
        let act2 = bytes.try_into().unwrap();
        prop_assert_eq!(initiator.finish(&act2, NOW).err(), Some(NoiseError::DecryptFailed));
    }

    #[test]
    fn any_payload_of_any_type_is_refused_or_decoded(
        extension_type in prop_oneof![Just(0u16), Just(1), any::<u16>()],
        msg_type in prop_oneof![0u8..=0x30, any::<u8>()],
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let header = FrameHeader { extension_type, channel_msg: true, msg_type, msg_length: 0 };
        let frame = Frame { header, payload: &payload };
        let _ = (FromMiner::decode(&frame), ToMiner::decode(&frame));
        let _ = sv2::message::extension::user_identity(&payload);
    }

    #[test]
    fn any_sealed_stream_is_refused(bytes in prop::collection::vec(any::<u8>(), 22..400)) {
        let (server, _) = connect(8);
        prop_assert_eq!(Inbox::new(server).receive(&bytes), Err(TransportError::DecryptFailed));
    }
}
