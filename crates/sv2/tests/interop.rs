//! Our handshake and transport against those of the reference implementation, in both roles.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixtures;

use codec_sv2::{
    Decrypted, EncodableFrame, Handshake, NoiseDecoder, NoiseEncoder, TransportDecryptState,
    TransportEncryptState,
};
use fixtures::{NOW, authority, identity, random};
use framing_sv2::framing::SerializedFrame;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sv2::{
    AuthorityKey, Ephemeral, FrameHeader, Initiator, NoiseError, Opened, StaticKey, Transport,
    respond, sealed_length,
};

/// Payload lengths around the ends of chunks, and the length of their sealed frames.
const LENGTHS: [(usize, usize); 5] =
    [(0, 22), (6, 44), (65_519, 65_557), (65_520, 65_574), (150_000, 150_070)];

/// Our initiator with the reference responder.
fn to_their_server(
    seed: u64,
    authority: Option<sv2::AuthorityPublicKey>,
) -> Result<(Transport, codec_sv2::Transport), NoiseError> {
    let (ours, act1) = Initiator::new(authority, Ephemeral::generate(&mut random(seed)));
    let mut theirs = StdRng::seed_from_u64(seed);
    let signer = fixtures::authority();
    let text = signer.to_text();
    let secret: [u8; 32] = secret_of(&text);
    let responder = noise_sv2::Responder::from_authority_kp_with_rng(
        signer.public().as_bytes(),
        &secret,
        std::time::Duration::from_secs(3_600),
        &mut theirs,
    )
    .unwrap();
    let (act2, theirs) =
        Handshake::responder(responder).step_1_with_now_rng(act1, NOW, &mut theirs).unwrap();
    let act2 = act2.payload().try_into().unwrap();
    ours.finish(&act2, NOW).map(|ours| (ours, theirs))
}

/// The 32 bytes behind a base58check text, by a tool that is not ours.
fn secret_of(text: &str) -> [u8; 32] {
    bs58::decode(text).with_check(None).into_vec().unwrap().try_into().unwrap()
}

/// The reference initiator with our responder.
fn to_our_server(
    seed: u64,
    authority: Option<sv2::AuthorityPublicKey>,
    now: u32,
) -> Option<(Transport, codec_sv2::Transport)> {
    let mut theirs = StdRng::seed_from_u64(seed);
    let initiator = match authority {
        Some(key) => noise_sv2::Initiator::from_raw_k_with_rng(*key.as_bytes(), &mut theirs),
        None => noise_sv2::Initiator::without_pk_with_rng(&mut theirs),
    };
    let (act1, theirs) = Handshake::initiator(initiator.unwrap()).step_0().unwrap();
    let act1 = act1.payload().try_into().unwrap();
    let mut act2 = [0; 234];
    let ephemeral = Ephemeral::generate(&mut random(seed));
    let ours = respond(&identity(seed), ephemeral, &act1, &mut act2).unwrap();
    let theirs = theirs.step_2_with_now(act2, now).ok()?;
    Some((ours, theirs))
}

#[test]
fn our_initiator_with_the_reference_responder() {
    for seed in 0..8 {
        let (mut ours, theirs) = to_their_server(seed, Some(authority().public())).unwrap();
        // The lengths of the test exceed what a real type may have.
        ours.set_ceiling(|_, _| 1 << 20);
        exchange(ours, theirs);
    }
}

#[test]
fn the_reference_initiator_with_our_responder() {
    for seed in 0..8 {
        let (mut ours, theirs) = to_our_server(seed, Some(authority().public()), NOW).unwrap();
        ours.set_ceiling(|_, _| 1 << 20);
        exchange(ours, theirs);
    }
    assert!(to_our_server(9, None, 0).is_some());
}

#[test]
fn another_authority_is_refused_both_ways() {
    let stranger = AuthorityKey::generate(&mut random(99)).unwrap().public();
    let refused = to_their_server(1, Some(stranger)).err();
    assert_eq!(refused, Some(NoiseError::CertificateSignature));
    assert!(to_our_server(1, Some(stranger), NOW).is_none());
}

/// Goal: the times in our certificates are read as we mean them.
/// Method: an identity made at NOW for an hour is valid from an hour before.
#[test]
fn the_reference_initiator_reads_our_validity() {
    let ours = Some(authority().public());
    for now in [NOW - 3_610, NOW, NOW + 3_610] {
        assert!(to_our_server(2, ours, now).is_some(), "{now} is inside");
    }
    for now in [NOW - 3_611, NOW + 3_611] {
        assert!(to_our_server(2, ours, now).is_none(), "{now} is outside");
    }
    assert!(StaticKey::generate(&mut random(2)).x_only() == identity(2).static_key().x_only());
}

/// Frames of all lengths in both directions, twice, so that nonces go on.
fn exchange(mut ours: Transport, theirs: codec_sv2::Transport) {
    let (mut sealing, mut opening) = theirs.split();
    for (length, sealed) in LENGTHS.into_iter().chain(LENGTHS) {
        let header = FrameHeader {
            extension_type: 0,
            channel_msg: length % 2 == 0,
            msg_type: 0x42,
            msg_length: u32::try_from(length).unwrap(),
        };
        let payload: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
        assert_eq!(sealed_length(length), sealed);

        let mut wire = Vec::new();
        ours.seal_frame(header, &payload, &mut wire).unwrap();
        assert_eq!(wire.len(), sealed);
        let (bytes, next) = open_there(opening, &wire);
        opening = next;
        assert_eq!(bytes, [&header.encode()[..], &payload].concat());

        let mut wire = seal_there(&mut sealing, bytes);
        assert_eq!(wire.len(), sealed);
        match ours.open(&mut wire) {
            Opened::Frame { frame, consumed } => {
                assert_eq!((frame.header, consumed), (header, sealed));
                assert!(frame.payload == payload);
            }
            other => panic!("expected a frame, got {other:?}"),
        }
    }
}

/// A frame as it is, for the reference encoder.
struct Raw(Vec<u8>);

impl EncodableFrame for Raw {
    fn encoded_length(&self) -> usize {
        self.0.len()
    }

    fn encode_into(self, dst: &mut [u8]) -> Result<(), framing_sv2::Error> {
        dst.copy_from_slice(&self.0);
        Ok(())
    }
}

fn seal_there(state: &mut TransportEncryptState, frame: Vec<u8>) -> Vec<u8> {
    SerializedFrame::<Vec<u8>>::from_bytes(frame.clone()).unwrap();
    NoiseEncoder::new().encode_transport(Raw(frame), state).unwrap().to_vec()
}

fn open_there(
    mut state: TransportDecryptState,
    mut wire: &[u8],
) -> (Vec<u8>, TransportDecryptState) {
    let mut decoder = NoiseDecoder::new();
    loop {
        let writable = decoder.writable();
        let (now, later) = wire.split_at(writable.len());
        writable.copy_from_slice(now);
        wire = later;
        match decoder.next_transport_frame(state).unwrap() {
            Decrypted::Frame(frame, state) => return (frame.as_bytes().to_vec(), state),
            Decrypted::Incomplete(_, next) => state = next,
        }
    }
}
