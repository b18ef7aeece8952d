//! A handshake with every secret given, byte for byte. The reference implementation accepts it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixtures;

use fixtures::{hex, hex_array};
use sv2::{
    AuthorityKey, AuthorityPublicKey, Certificate, Ephemeral, Frame, FrameHeader, Identity,
    Initiator, NoiseError, Opened, StaticKey, Transport, respond,
};

const E_I: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeda99dcbd59e378f2aaec14d7bbf253030";
const E_R: [u8; 32] = [0x22; 32];
const S: [u8; 32] = [0x33; 32];
const AUTHORITY: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbba766a98a26b045bf77b8e1a488bf1fcfd";
const AUTHORITY_X: &str = "2c0b7cf95324a07d05398b240174dc0c2be444d96b159aa6c7f7b1e668680991";
const S_X: &str = "3c72addb4fdf09af94f0c94d7fe92a386a7e70cf8a1d85916386bb2535c7b1b1";
const CERTIFICATE: &str = "
    000000f1536500d2496bf4234af53e9e1d79e5ce3d95fcc8ff1ffedfb53439458de2d1863623c60c74f06fe695df04
    78a91fc8b018d97d5ed08c6cb6f53034851b258616cb61782029ae";
const ACT1: &str = "
    259eff9ee4af6dcde63f55bf0736c4ff3f065665cddd37839b0fd2a43a771bee6b53aa7cf6526cd15ff551a67cd05c
    3ea2f4cc81bca42af158fd3daea1f528a8";
const ENCODING_S: &str = "
    ed412fd076b3d84901884715e81590ed5a18d7ff4d3544768b44ed41012e06a74c323da5fab6d0181c12cc9b7b4148
    e2b0b87ca8f6e11a477dce0a75e7f5a6a2";
const ACT2: &str = "
    a35af1ea1dd30c1defe8e6349ee7d5b8bcaf292f9e834e077d043d5f781d1a1d90486b1ff7845917843489a5a19444
    865db2b5f3cfdfc2e561cef4f52c59c5fe0a2ad8f77bdc9e2df7c08e6250eeae1e150ad939a00443d7400dbf242afe
    5c8177a9aabed798785b76ce81ad3d460c7dee2ebdb2a9ad608b9b605fb84cba6a74795f43aeecc997e6647f61549b
    b8dee9674a53d1399452966117999d6cd2388a529fa90cbc6cb8ff8fc1d3dcd0d16b3df3025ce82cbf1863bbc911d5
    2d0ddc3df7449ad419945c66b3b1a98ba98add084a1e95a80207fd9dc4fb100ed9a00ed97785a3fee4c1f2c3d607";
/// The frame `00 00 01 00 00 00` as the miner's first.
const SEALED_HEADER: &str = "22633f459f978a5a041e8db5d01f1ed86f8168aedf9c";
const NOW: u32 = 1_750_000_000;
/// Times in the certificate, little-endian: `00f15365` and `00d2496b`.
const VALID_FROM: u32 = 0x6553_f100;
const NOT_VALID_AFTER: u32 = 0x6b49_d200;

fn authority() -> AuthorityKey {
    AuthorityKey::from_secret_bytes(hex_array(AUTHORITY)).unwrap()
}

fn identity() -> Identity {
    let key = StaticKey::from_parts(S, hex_array(ENCODING_S)).unwrap();
    assert_eq!(key.x_only(), &hex_array(S_X));
    let certificate = Certificate::sign(&authority(), &key, VALID_FROM, NOT_VALID_AFTER).unwrap();
    assert_eq!(certificate.to_bytes().to_vec(), hex(CERTIFICATE));
    Identity::new(key, certificate)
}

fn initiator(authority: Option<AuthorityPublicKey>) -> Initiator {
    let ephemeral = Ephemeral::from_parts(hex_array(E_I), hex_array(ACT1)).unwrap();
    let (initiator, act1) = Initiator::new(authority, ephemeral);
    assert_eq!(act1.to_vec(), hex(ACT1));
    initiator
}

fn server() -> (Transport, [u8; 234]) {
    let act2: [u8; 234] = hex_array(ACT2);
    let ephemeral = Ephemeral::from_parts(E_R, *act2.first_chunk().unwrap()).unwrap();
    let mut out = [0; 234];
    let server = respond(&identity(), ephemeral, &hex_array(ACT1), &mut out).unwrap();
    (server, out)
}

#[test]
fn the_vector_reproduces_bit_for_bit() {
    assert_eq!(authority().public().as_bytes(), &hex_array(AUTHORITY_X));
    let (mut server, act2) = server();
    assert_eq!(act2.to_vec(), hex(ACT2));
    let mut miner = initiator(Some(authority().public())).finish(&act2, NOW).unwrap();

    let header = FrameHeader::decode(&[0, 0, 1, 0, 0, 0]);
    let mut wire = Vec::new();
    miner.seal_frame(header, &[], &mut wire).unwrap();
    assert_eq!(wire, hex(SEALED_HEADER));
    let frame = Frame { header, payload: &[] };
    assert_eq!(server.open(&mut wire), Opened::Frame { frame, consumed: 22 });

    // And the other direction, with its own key and nonces.
    wire.clear();
    server.seal_frame(header, &[], &mut wire).unwrap();
    assert_ne!(wire, hex(SEALED_HEADER));
    assert_eq!(miner.open(&mut wire), Opened::Frame { frame, consumed: 22 });
}

#[test]
fn the_miner_checks_who_signed_and_when() {
    let act2 = hex_array(ACT2);
    let finish = |authority, now| initiator(authority).finish(&act2, now).map(|_| ());
    let ours = Some(authority().public());
    let other = AuthorityKey::from_secret_bytes([7; 32]).unwrap().public();
    assert_eq!(finish(ours, NOW), Ok(()));
    assert_eq!(finish(None, 0), Ok(()));
    assert_eq!(finish(Some(other), NOW), Err(NoiseError::CertificateSignature));
    let now = VALID_FROM - 11;
    let early = NoiseError::CertificateNotYetValid { valid_from: VALID_FROM, now };
    assert_eq!(finish(ours, now), Err(early));
    let now = NOT_VALID_AFTER + 11;
    let late = NoiseError::CertificateExpired { not_valid_after: NOT_VALID_AFTER, now };
    assert_eq!(finish(ours, now), Err(late));
}

#[test]
fn a_flipped_bit_anywhere_in_act_2_is_refused() {
    for bit in 0..234 * 8 {
        let mut act2: [u8; 234] = hex_array(ACT2);
        act2[bit / 8] ^= 1 << (bit % 8);
        let refused = initiator(Some(authority().public())).finish(&act2, NOW).err();
        assert_eq!(refused, Some(NoiseError::DecryptFailed), "bit {bit}");
    }
}
