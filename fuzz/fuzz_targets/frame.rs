//! Sealed streams, cut and corrupted anywhere: what was sealed opens, what was touched ends the
//! stream, and what is too long is refused at its header.
//!
//! Input: frames, each as header (6 bytes, its length not looked at), payload length in units of 16
//! (U8), place of a cut (U16), place of a flipped bit (U16, 0xffff for none); then the payload, or
//! as much of it as there is.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sv2::{
    ACT2_BYTES, AuthorityKey, Ephemeral, FrameHeader, HEADER_BYTES, Identity, Initiator, Opened,
    SEALED_HEADER_BYTES, StaticKey, Transport, TransportError, inbound_payload_max, respond,
    sealed_length,
};

/// Header, payload length, cut, flip.
const PLAN_BYTES: usize = HEADER_BYTES + 1 + 2 + 2;
const UNTOUCHED: u16 = 0xffff;
const NOW: u32 = 1_750_000_000;

fn connect() -> (Transport, Transport) {
    let mut random = ChaCha20Rng::seed_from_u64(1);
    let authority = AuthorityKey::generate(&mut random).expect("a key");
    let key = StaticKey::generate(&mut random);
    let identity = Identity::issue(&authority, key, NOW, 3_600).expect("an identity");
    let (initiator, act1) = Initiator::new(None, Ephemeral::generate(&mut random));
    let mut act2 = [0; ACT2_BYTES];
    let server = respond(&identity, Ephemeral::generate(&mut random), &act1, &mut act2);
    (server.expect("a server"), initiator.finish(&act2, NOW).expect("a miner"))
}

thread_local! {
    /// One connection for many inputs; a broken one is replaced.
    static CONNECTION: RefCell<(Transport, Transport)> = RefCell::new(connect());
}

/// Opens `wire` in two pieces, of which the second is not empty; the payload if it is a frame.
fn open(server: &mut Transport, wire: &mut [u8], cut: usize) -> Result<Vec<u8>, TransportError> {
    match server.open(&mut wire[..cut]) {
        Opened::Need(need) => assert!(need > cut && need <= wire.len()),
        Opened::Error(error) => return Err(error),
        Opened::Frame { .. } => panic!("a frame before its last byte"),
    }
    let length = wire.len();
    match server.open(wire) {
        Opened::Need(need) => panic!("all is there, yet {need} bytes are needed"),
        Opened::Error(error) => Err(error),
        Opened::Frame { frame, consumed } => {
            assert_eq!(consumed, length);
            Ok(frame.payload.to_vec())
        }
    }
}

fuzz_target!(|input: &[u8]| {
    CONNECTION.with_borrow_mut(|connection| {
        let (server, miner) = connection;
        let mut input = input;
        while let Some((plan, rest)) = input.split_first_chunk::<PLAN_BYTES>() {
            let [header @ .., units, c0, c1, f0, f1] = plan;
            let header: &[u8; HEADER_BYTES] = header.try_into().expect("six bytes");
            let header = FrameHeader::decode(header);
            let length = rest.len().min(usize::from(*units) * 16);
            let (payload, rest) = rest.split_at(length);
            input = rest;

            let mut wire = Vec::new();
            miner.seal_frame(header, payload, &mut wire).expect("nonces last");
            assert_eq!(wire.len(), sealed_length(length));
            let flip = u16::from_le_bytes([*f0, *f1]);
            let touched = usize::from(flip) % wire.len();
            if flip != UNTOUCHED {
                wire[touched] ^= 1 << (flip % 8);
            }
            // Strictly before the end, so that the second piece is never empty.
            let cut = usize::from(u16::from_le_bytes([*c0, *c1])) % wire.len();
            let opened = open(server, &mut wire, cut);

            let too_long = length > inbound_payload_max(header.extension_type, header.msg_type);
            match opened {
                Ok(opened) => {
                    assert!(flip == UNTOUCHED && !too_long);
                    assert_eq!(opened, payload);
                }
                Err(error) => {
                    if flip != UNTOUCHED && touched < SEALED_HEADER_BYTES {
                        assert_eq!(error, TransportError::DecryptFailed);
                    } else if too_long {
                        assert!(matches!(error, TransportError::FrameTooLarge { .. }));
                    } else {
                        assert!(flip != UNTOUCHED && error == TransportError::DecryptFailed);
                    }
                    *connection = connect();
                    return;
                }
            }
        }
    });
});
