//! The certificate: the authority's word that a static key is the operator's, for a while.
//!
//! ```text
//! version U16 | valid_from U32 | not_valid_after U32 | signature 64        74 bytes
//! signature = BIP340( SHA256( the first 10 bytes | x coordinate of the static key 32 ) )
//! ```
//!
//! SV2 specification section 4.5.3 (SIGNATURE_NOISE_MESSAGE). Times are unix seconds.

use secp256k1::XOnlyPublicKey;
use secp256k1::schnorr::Signature;
use sha2::{Digest, Sha256};

use super::{AuthorityKey, AuthorityPublicKey, StaticKey};
use crate::codec::{Reader, Writer};
use crate::error::{KeyError, NoiseError};

/// Length of a certificate, in bytes.
pub const CERTIFICATE_BYTES: usize = SIGNED_BYTES + SIGNATURE_BYTES;
/// How far the clocks of two sides may differ at either end of the validity, in seconds; as in the
/// reference implementation.
pub const CLOCK_LEEWAY_SECS: u32 = 10;

const SIGNED_BYTES: usize = 2 + 4 + 4;
const SIGNATURE_BYTES: usize = 64;
/// The version that the reference implementation writes. No reader looks at it.
const VERSION: u16 = 0;

/// A signed statement about a static key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Version of the format, 0.
    pub version: u16,
    /// First second of validity, unix time.
    pub valid_from: u32,
    /// Last second of validity, unix time.
    pub not_valid_after: u32,
    /// BIP340 signature of the authority.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Certificate {
    /// Signs for `static_key`, valid from and to these unix times, both included.
    ///
    /// # Errors
    /// When the authority's secret is out of range, which its constructors rule out.
    pub fn sign(
        authority: &AuthorityKey,
        static_key: &StaticKey,
        valid_from: u32,
        not_valid_after: u32,
    ) -> Result<Self, KeyError> {
        let mut certificate =
            Self { version: VERSION, valid_from, not_valid_after, signature: [0; SIGNATURE_BYTES] };
        certificate.signature = authority.sign(&certificate.digest(static_key.x_only()))?;
        Ok(certificate)
    }

    /// What is signed: the hash of the first 10 bytes and the static key.
    fn digest(&self, static_x_only: &[u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.version.to_le_bytes());
        hash.update(self.valid_from.to_le_bytes());
        hash.update(self.not_valid_after.to_le_bytes());
        hash.update(static_x_only);
        hash.finalize().into()
    }

    /// The 74 bytes of the wire.
    pub fn to_bytes(&self) -> [u8; CERTIFICATE_BYTES] {
        let mut bytes = Vec::with_capacity(CERTIFICATE_BYTES);
        let mut writer = Writer::new(&mut bytes);
        writer.u16(self.version);
        writer.u32(self.valid_from);
        writer.u32(self.not_valid_after);
        writer.rest(&self.signature);
        let mut out = [0; CERTIFICATE_BYTES];
        out.copy_from_slice(&bytes);
        out
    }

    /// Reads the 74 bytes of the wire; any are a certificate, though hardly a valid one.
    pub fn from_bytes(bytes: &[u8; CERTIFICATE_BYTES]) -> Self {
        Self::read(bytes).unwrap_or(Self {
            version: VERSION,
            valid_from: 0,
            not_valid_after: 0,
            signature: [0; SIGNATURE_BYTES],
        })
    }

    fn read(bytes: &[u8; CERTIFICATE_BYTES]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            version: reader.u16().ok()?,
            valid_from: reader.u32().ok()?,
            not_valid_after: reader.u32().ok()?,
            signature: reader.rest().ok()?.try_into().ok()?,
        })
    }

    /// Checks that `authority` signed this for the static key with that x coordinate, and that
    /// `now_unix` (seconds) lies in its validity, give or take [`CLOCK_LEEWAY_SECS`].
    ///
    /// # Errors
    /// Says which of the three does not hold; the signature is looked at first.
    pub fn verify(
        &self,
        authority: &AuthorityPublicKey,
        static_x_only: &[u8; 32],
        now_unix: u32,
    ) -> Result<(), NoiseError> {
        let key = XOnlyPublicKey::from_byte_array(*authority.as_bytes())
            .map_err(|_| NoiseError::CertificateSignature)?;
        Signature::from_byte_array(self.signature)
            .verify(&self.digest(static_x_only), &key)
            .map_err(|_| NoiseError::CertificateSignature)?;
        let Self { valid_from, not_valid_after, .. } = *self;
        if now_unix < valid_from.saturating_sub(CLOCK_LEEWAY_SECS) {
            return Err(NoiseError::CertificateNotYetValid { valid_from, now: now_unix });
        }
        if now_unix > not_valid_after.saturating_add(CLOCK_LEEWAY_SECS) {
            return Err(NoiseError::CertificateExpired { not_valid_after, now: now_unix });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn validity_ends_where_it_says() {
        let mut random = ChaCha20Rng::seed_from_u64(4);
        let authority = AuthorityKey::generate(&mut random).unwrap();
        let (ours, other) = (StaticKey::generate(&mut random), StaticKey::generate(&mut random));
        let certificate = Certificate::sign(&authority, &ours, 1_000, 2_000).unwrap();
        assert_eq!(Certificate::from_bytes(&certificate.to_bytes()), certificate);

        let verify = |now| certificate.verify(&authority.public(), ours.x_only(), now);
        assert_eq!(verify(990), Ok(()));
        assert_eq!(verify(2_010), Ok(()));
        let early = NoiseError::CertificateNotYetValid { valid_from: 1_000, now: 989 };
        assert_eq!(verify(989), Err(early));
        let late = NoiseError::CertificateExpired { not_valid_after: 2_000, now: 2_011 };
        assert_eq!(verify(2_011), Err(late));

        let forged = Err(NoiseError::CertificateSignature);
        let stranger = AuthorityKey::generate(&mut random).unwrap().public();
        assert_eq!(certificate.verify(&stranger, ours.x_only(), 1_500), forged);
        assert_eq!(certificate.verify(&authority.public(), other.x_only(), 1_500), forged);
        let longer = Certificate { not_valid_after: 3_000, ..certificate };
        assert_eq!(longer.verify(&authority.public(), ours.x_only(), 1_500), forged);
    }
}
