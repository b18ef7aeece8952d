//! The authority key: who the operator is.
//!
//! Its secret half signs certificates, its public half is in the address that miners connect to,
//! `stratum2+tcp://host:port/PUBLIC_KEY`. Both are written in base58check:
//!
//! ```text
//! public   01 00 | x coordinate 32 | checksum 4     version U16 = 1 (SV2 specification 4.7)
//! secret           secret key 32   | checksum 4     as the reference implementation writes it
//! ```

use std::fmt;
use std::str::FromStr;

use rand_core::CryptoRng;
use secp256k1::{Keypair, XOnlyPublicKey};
use zeroize::{Zeroize, Zeroizing};

use crate::error::KeyError;

/// The public key of the reference implementation's example configurations. Its secret is known to
/// everybody.
pub const EXAMPLE_AUTHORITY_PUBLIC_KEY: &str =
    "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
/// The secret key of [`EXAMPLE_AUTHORITY_PUBLIC_KEY`], for tests and demonstrations only.
pub const EXAMPLE_AUTHORITY_SECRET_KEY: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";

/// Version of a public key text.
const PUBLIC_VERSION: u16 = 1;
const VERSION_BYTES: usize = 2;
const KEY_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
/// Room to decode any text that could be a key; a longer one is refused for its length.
const DECODE_BYTES: usize = 48;
const _: () = assert!(VERSION_BYTES + KEY_BYTES + CHECKSUM_BYTES <= DECODE_BYTES);

/// The public half of an authority key: an x coordinate on secp256k1, 32 bytes big-endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityPublicKey([u8; KEY_BYTES]);

impl AuthorityPublicKey {
    /// A key from its 32 bytes, big-endian.
    ///
    /// # Errors
    /// When no point on the curve has this x coordinate.
    pub fn from_bytes(x_only: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        XOnlyPublicKey::from_byte_array(x_only)
            .map(|_| Self(x_only))
            .map_err(|_| KeyError::NotOnCurve)
    }

    /// The 32 bytes, big-endian.
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The base58check text.
    pub fn to_text(&self) -> String {
        let mut bytes = [0; VERSION_BYTES + KEY_BYTES];
        let (version, key) = bytes.split_at_mut(VERSION_BYTES);
        version.copy_from_slice(&PUBLIC_VERSION.to_le_bytes());
        key.copy_from_slice(&self.0);
        bs58::encode(bytes).with_check().into_string()
    }

    /// Whether this is [`EXAMPLE_AUTHORITY_PUBLIC_KEY`], which proves nothing to anybody.
    pub fn is_example(&self) -> bool {
        EXAMPLE_AUTHORITY_PUBLIC_KEY.parse() == Ok(*self)
    }
}

impl FromStr for AuthorityPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut decoded = [0; DECODE_BYTES];
        let expected = VERSION_BYTES + KEY_BYTES;
        let bytes = decode(text, &mut decoded, expected)?;
        let Some((version, key)) = bytes.split_first_chunk::<VERSION_BYTES>() else {
            return Err(KeyError::Length { found: bytes.len(), expected });
        };
        let length = KeyError::Length { found: bytes.len(), expected };
        let key = key.try_into().map_err(|_| length)?;
        let found = u16::from_le_bytes(*version);
        if found != PUBLIC_VERSION {
            return Err(KeyError::Version { found });
        }
        Self::from_bytes(key)
    }
}

impl fmt::Display for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl fmt::Debug for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityPublicKey({self})")
    }
}

/// The secret half, which signs certificates. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct AuthorityKey {
    secret: [u8; KEY_BYTES],
    public: AuthorityPublicKey,
}

impl Drop for AuthorityKey {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl AuthorityKey {
    /// A key from its 32 secret bytes, big-endian.
    ///
    /// # Errors
    /// When they are 0 or not below the order of the group.
    pub fn from_secret_bytes(secret: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        let mut pair =
            Keypair::from_secret_bytes(secret).map_err(|_| KeyError::SecretOutOfRange)?;
        let public = AuthorityPublicKey(pair.x_only_public_key().0.to_byte_array());
        pair.non_secure_erase();
        Ok(Self { secret, public })
    }

    /// Makes a key from `random`.
    ///
    /// # Errors
    /// [`KeyError::SecretOutOfRange`] with probability 2^-128, or when `random` is broken.
    pub fn generate(random: &mut (impl CryptoRng + ?Sized)) -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        random.fill_bytes(&mut *secret);
        Self::from_secret_bytes(*secret)
    }

    /// The public half.
    pub const fn public(&self) -> AuthorityPublicKey {
        self.public
    }

    /// The base58check text of the secret, wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(bs58::encode(self.secret).with_check().into_string())
    }

    /// Whether this is [`EXAMPLE_AUTHORITY_SECRET_KEY`], which must not be in production.
    pub fn is_example(&self) -> bool {
        self.public.is_example()
    }

    /// BIP340 signature over a 32-byte message, without auxiliary randomness.
    pub(super) fn sign(&self, message: &[u8; 32]) -> Result<[u8; 64], KeyError> {
        let mut pair =
            Keypair::from_secret_bytes(self.secret).map_err(|_| KeyError::SecretOutOfRange)?;
        let signature = secp256k1::schnorr::sign_no_aux_rand(message, &pair).to_byte_array();
        pair.non_secure_erase();
        Ok(signature)
    }
}

impl FromStr for AuthorityKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut decoded = Zeroizing::new([0; DECODE_BYTES]);
        let bytes = decode(text, &mut decoded, KEY_BYTES)?;
        let length = KeyError::Length { found: bytes.len(), expected: KEY_BYTES };
        let mut secret: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| length)?;
        let key = Self::from_secret_bytes(secret);
        secret.zeroize();
        key
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey(redacted, public {})", self.public)
    }
}

/// Decodes base58check into `buffer`; the checksum is verified and left out of the result.
fn decode<'a>(
    text: &str,
    buffer: &'a mut [u8; DECODE_BYTES],
    expected: usize,
) -> Result<&'a [u8], KeyError> {
    use bs58::decode::Error;
    let unlike = KeyError::Length { found: 0, expected };
    let decoded = bs58::decode(text.trim()).with_check(None).onto(&mut buffer[..]);
    let length = decoded.map_err(|error| match error {
        Error::InvalidCharacter { index, .. } | Error::NonAsciiCharacter { index } => {
            KeyError::NotBase58 { index }
        }
        Error::InvalidChecksum { .. } => KeyError::Checksum,
        _ => unlike,
    })?;
    buffer.get(..length).ok_or(unlike)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: &str = "9bXiEd8boQVhq7WddEcERUL5tyyJVFYdU8th3HfbNXK3Yw6GRXh";
    const VECTOR_BYTES: [u8; 32] = [
        0x76, 0x63, 0x70, 0x00, 0x97, 0x9c, 0x1c, 0x11, 0xaf, 0x0c, 0x30, 0x0b, 0xcd, 0x8c, 0x7f,
        0xe4, 0x86, 0x10, 0xfc, 0xe9, 0xb9, 0xc1, 0x1e, 0x3d, 0xae, 0xe3, 0x5a, 0xe0, 0xb0, 0x8a,
        0x74, 0x55,
    ];

    fn text_of(bytes: &[u8]) -> String {
        bs58::encode(bytes).with_check().into_string()
    }

    #[test]
    fn vector_of_the_specification() {
        let key: AuthorityPublicKey = VECTOR.parse().unwrap();
        assert_eq!(key.as_bytes(), &VECTOR_BYTES);
        assert_eq!(key.to_string(), VECTOR);
        assert_eq!(format!(" {VECTOR}\n").parse(), Ok(key));
    }

    #[test]
    fn the_example_pair_is_a_pair_and_is_recognised() {
        let secret: AuthorityKey = EXAMPLE_AUTHORITY_SECRET_KEY.parse().unwrap();
        assert_eq!(secret.public().to_string(), EXAMPLE_AUTHORITY_PUBLIC_KEY);
        assert_eq!(secret.to_text().as_str(), EXAMPLE_AUTHORITY_SECRET_KEY);
        assert!(secret.is_example() && secret.public().is_example());
        assert!(!AuthorityPublicKey::from_str(VECTOR).unwrap().is_example());
    }

    #[test]
    fn every_mistake_in_a_text_has_its_own_error() {
        let public = |text: &str| AuthorityPublicKey::from_str(text).unwrap_err();
        assert_eq!(public(&VECTOR.replace('X', "0")), KeyError::NotBase58 { index: 2 });
        assert_eq!(public(&VECTOR.replace("9b", "9c")), KeyError::Checksum);
        assert_eq!(
            public(EXAMPLE_AUTHORITY_SECRET_KEY),
            KeyError::Length { found: 32, expected: 34 }
        );
        let wrong_version = text_of(&[&[2, 0][..], &VECTOR_BYTES].concat());
        assert_eq!(public(&wrong_version), KeyError::Version { found: 2 });
        let off_curve = text_of(&[&[1, 0][..], &[0xff; 32]].concat());
        assert_eq!(public(&off_curve), KeyError::NotOnCurve);
        for text in ["", "1", &"z".repeat(500)] {
            assert!(matches!(public(text), KeyError::Length { .. } | KeyError::Checksum));
        }

        let secret = |text: &str| AuthorityKey::from_str(text).unwrap_err();
        assert_eq!(secret(VECTOR), KeyError::Length { found: 34, expected: 32 });
        assert_eq!(secret(&text_of(&[0; 32])), KeyError::SecretOutOfRange);
        assert_eq!(secret(&text_of(&[0xff; 32])), KeyError::SecretOutOfRange);
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let key: AuthorityKey = EXAMPLE_AUTHORITY_SECRET_KEY.parse().unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(EXAMPLE_AUTHORITY_PUBLIC_KEY) && shown.contains("redacted"));
        assert!(!shown.contains(EXAMPLE_AUTHORITY_SECRET_KEY));
    }
}
