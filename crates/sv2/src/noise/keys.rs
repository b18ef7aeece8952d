//! Key pairs of the handshake: the server's lasting [`StaticKey`], and the [`Ephemeral`] that
//! either side uses for one handshake and throws away.
//!
//! A public key travels as its ElligatorSwift encoding. There are many encodings of a key and they
//! are chosen at random, so that a stream of them looks like noise; the encoding is therefore made
//! once and kept beside the secret. Making one takes tens of microseconds, which is why a server
//! makes ephemerals ahead of time.

use std::fmt;

use rand_core::CryptoRng;
use secp256k1::ellswift::ElligatorSwift;
use secp256k1::{PublicKey, SecretKey};
use zeroize::{Zeroize, Zeroizing};

use super::ELLSWIFT_BYTES;
use crate::error::KeyError;

pub(super) const SECRET_BYTES: usize = 32;
/// Secret key, then the encoding of its public key.
pub(super) const KEY_PAIR_BYTES: usize = SECRET_BYTES + ELLSWIFT_BYTES;

/// Draws after which making a secret key gives up: each fails with probability 2^-128.
const DRAWS_MAX: usize = 8;

/// A secret key, wiped when dropped, and the encoding of its public key.
#[derive(Clone)]
pub(super) struct KeyPair {
    secret: [u8; SECRET_BYTES],
    encoding: [u8; ELLSWIFT_BYTES],
}

impl Drop for KeyPair {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl KeyPair {
    /// No key: no exchange accepts it.
    pub(super) const fn zero() -> Self {
        Self { secret: [0; SECRET_BYTES], encoding: [0; ELLSWIFT_BYTES] }
    }

    /// A fresh pair. The random bytes of the encoding are drawn after those of the secret.
    fn generate(random: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut pair = Self::zero();
        let mut aux = [0; 32];
        for _ in 0..DRAWS_MAX {
            random.fill_bytes(&mut pair.secret);
            random.fill_bytes(&mut aux);
            if let Ok(mut key) = SecretKey::from_secret_bytes(pair.secret) {
                pair.encoding = ElligatorSwift::from_seckey(key, Some(aux)).to_array();
                key.non_secure_erase();
                return pair;
            }
        }
        // Only a broken source of randomness gets here; every handshake with this pair fails.
        Self::zero()
    }

    /// A pair from parts that have to belong together.
    fn from_parts(
        secret: [u8; SECRET_BYTES],
        encoding: [u8; ELLSWIFT_BYTES],
    ) -> Result<Self, KeyError> {
        let pair = Self { secret, encoding };
        let mut key =
            SecretKey::from_secret_bytes(secret).map_err(|_| KeyError::SecretOutOfRange)?;
        let expected = PublicKey::from_secret_key(&key).x_only_public_key().0.to_byte_array();
        key.non_secure_erase();
        if x_only(&encoding) == expected { Ok(pair) } else { Err(KeyError::EncodingMismatch) }
    }

    /// The form in which snow carries a pair: the secret, then the encoding.
    pub(super) fn join(&self) -> Zeroizing<[u8; KEY_PAIR_BYTES]> {
        let mut both = Zeroizing::new([0; KEY_PAIR_BYTES]);
        let (secret, encoding) = both.split_at_mut(SECRET_BYTES);
        secret.copy_from_slice(&self.secret);
        encoding.copy_from_slice(&self.encoding);
        both
    }

    /// The inverse of [`KeyPair::join`]; `None` for any other length.
    pub(super) fn split(both: &[u8]) -> Option<Self> {
        let (secret, encoding) = both.split_first_chunk()?;
        Some(Self { secret: *secret, encoding: encoding.try_into().ok()? })
    }

    pub(super) const fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    pub(super) const fn encoding(&self) -> &[u8; ELLSWIFT_BYTES] {
        &self.encoding
    }
}

/// The x coordinate, 32 bytes big-endian, of the public key that an encoding encodes. Every 64
/// bytes encode one.
pub(super) fn x_only(encoding: &[u8; ELLSWIFT_BYTES]) -> [u8; 32] {
    let encoding = ElligatorSwift::from_array(*encoding);
    PublicKey::from_ellswift(encoding).x_only_public_key().0.to_byte_array()
}

/// The key of one side for one handshake. It is used up by it.
pub struct Ephemeral {
    pub(super) pair: KeyPair,
}

impl Ephemeral {
    /// Makes a key from `random`. Takes about as long as a third of a handshake, so a server does
    /// it ahead of time.
    pub fn generate(random: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self { pair: KeyPair::generate(random) }
    }

    /// A key from known bytes: 32 of the secret, 64 of an encoding of its public key. For test
    /// vectors; a key that is used twice is no ephemeral.
    ///
    /// # Errors
    /// When the secret is out of range or the encoding is of another key.
    pub fn from_parts(secret: [u8; 32], encoding: [u8; ELLSWIFT_BYTES]) -> Result<Self, KeyError> {
        KeyPair::from_parts(secret, encoding).map(|pair| Self { pair })
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral(redacted)")
    }
}

/// The server's key that its certificate vouches for. It may change at any time; the authority key
/// may not.
#[derive(Clone)]
pub struct StaticKey {
    pub(super) pair: KeyPair,
    x_only: [u8; 32],
}

impl StaticKey {
    /// Makes a key from `random`.
    pub fn generate(random: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::new(KeyPair::generate(random))
    }

    /// A key from known bytes: 32 of the secret, 64 of an encoding of its public key.
    ///
    /// # Errors
    /// When the secret is out of range or the encoding is of another key.
    pub fn from_parts(secret: [u8; 32], encoding: [u8; ELLSWIFT_BYTES]) -> Result<Self, KeyError> {
        KeyPair::from_parts(secret, encoding).map(Self::new)
    }

    fn new(pair: KeyPair) -> Self {
        let x_only = x_only(pair.encoding());
        Self { pair, x_only }
    }

    /// The x coordinate of the public key, 32 bytes big-endian: what the certificate signs.
    pub const fn x_only(&self) -> &[u8; 32] {
        &self.x_only
    }

    /// The encoding of the public key that is sent in act 2.
    pub const fn encoding(&self) -> &[u8; ELLSWIFT_BYTES] {
        self.pair.encoding()
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn generated_keys_are_consistent_and_differ() {
        let mut random = ChaCha20Rng::seed_from_u64(1);
        let (one, two) = (StaticKey::generate(&mut random), StaticKey::generate(&mut random));
        assert_ne!(one.x_only(), two.x_only());
        let again = StaticKey::from_parts(*one.pair.secret(), *one.encoding()).unwrap();
        assert_eq!(again.x_only(), one.x_only());
        let mixed = StaticKey::from_parts(*one.pair.secret(), *two.encoding());
        assert_eq!(mixed.err(), Some(KeyError::EncodingMismatch));
        let zero = StaticKey::from_parts([0; 32], *two.encoding());
        assert_eq!(zero.err(), Some(KeyError::SecretOutOfRange));
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut random = ChaCha20Rng::seed_from_u64(2);
        let ephemeral = Ephemeral::generate(&mut random);
        assert_eq!(format!("{ephemeral:?}"), "Ephemeral(redacted)");
        assert_eq!(format!("{:?}", StaticKey::generate(&mut random)), "StaticKey(redacted)");
    }

    #[test]
    fn a_pair_survives_the_form_snow_carries_it_in() {
        let pair = KeyPair::generate(&mut ChaCha20Rng::seed_from_u64(3));
        let again = KeyPair::split(&*pair.join()).unwrap();
        assert_eq!((again.secret(), again.encoding()), (pair.secret(), pair.encoding()));
        assert!(KeyPair::split(&pair.join()[1..]).is_none());
    }
}
