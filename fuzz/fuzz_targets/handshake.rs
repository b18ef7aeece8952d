//! Any act 1 is answered and leads nowhere; any act 2 but the right one is refused; nothing panics.
//!
//! Input: act 1 (64 bytes), then bytes that follow it, of which the first 234 are also tried as an
//! act 2. Short input is filled with zeros.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sv2::{
    ACT1_BYTES, ACT2_BYTES, AuthorityKey, Ephemeral, Identity, Initiator, Opened,
    SEALED_HEADER_BYTES, StaticKey, TransportError, respond,
};

const NOW: u32 = 1_750_000_000;

fn random() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

static AUTHORITY: LazyLock<AuthorityKey> =
    LazyLock::new(|| AuthorityKey::generate(&mut random()).expect("a key"));
static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let key = StaticKey::generate(&mut random());
    Identity::issue(&AUTHORITY, key, NOW, 3_600).expect("an identity")
});

fuzz_target!(|input: &[u8]| {
    let mut act1 = [0; ACT1_BYTES];
    let (start, rest) = input.split_at(input.len().min(ACT1_BYTES));
    act1[..start.len()].copy_from_slice(start);
    let mut act2 = [0; ACT2_BYTES];
    let ephemeral = Ephemeral::generate(&mut random());
    let mut server = respond(&IDENTITY, ephemeral, &act1, &mut act2).expect("any act 1 will do");

    let mut after = rest.to_vec();
    let opened = server.open(&mut after);
    if rest.len() < SEALED_HEADER_BYTES {
        assert_eq!(opened, Opened::Need(SEALED_HEADER_BYTES));
    } else {
        assert_eq!(opened, Opened::Error(TransportError::DecryptFailed));
    }

    let mut act2 = [0; ACT2_BYTES];
    let start = &rest[..rest.len().min(ACT2_BYTES)];
    act2[..start.len()].copy_from_slice(start);
    let ephemeral = Ephemeral::generate(&mut random());
    let (initiator, _) = Initiator::new(Some(AUTHORITY.public()), ephemeral);
    assert!(initiator.finish(&act2, NOW).is_err());
});
