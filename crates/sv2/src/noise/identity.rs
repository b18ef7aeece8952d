//! What a server presents in act 2: its static key and the certificate for it.
//!
//! A certificate has to be valid before the first connection and renewed before it ends, without a
//! restart: the owner asks [`Identity::needs_renewal`] now and then, and replaces the identity by
//! [`Identity::renew`]. Handshakes under way keep the one they began with.

use super::certificate::CERTIFICATE_BYTES;
use super::{AuthorityKey, Certificate, StaticKey};
use crate::error::KeyError;

/// How long before "now" a certificate starts, in seconds: an hour, for miners whose clock is slow.
pub const CERTIFICATE_BACKDATE_SECS: u32 = 3_600;

/// A static key and a certificate for it, ready to be sent.
#[derive(Clone, Debug)]
pub struct Identity {
    pub(super) static_key: StaticKey,
    pub(super) certificate_bytes: [u8; CERTIFICATE_BYTES],
    certificate: Certificate,
    renew_at: u32,
}

impl Identity {
    /// An identity from a certificate that was signed elsewhere or with times of its own; it asks
    /// for renewal in the middle of its validity.
    pub fn new(static_key: StaticKey, certificate: Certificate) -> Self {
        let Certificate { valid_from, not_valid_after, .. } = certificate;
        let renew_at = valid_from.saturating_add(not_valid_after.saturating_sub(valid_from) / 2);
        Self { static_key, certificate_bytes: certificate.to_bytes(), certificate, renew_at }
    }

    /// Signs a certificate from [`CERTIFICATE_BACKDATE_SECS`] before `now_unix` to `validity_secs`
    /// after it. The identity asks for renewal when half of `validity_secs` has passed.
    ///
    /// # Errors
    /// As [`Certificate::sign`].
    pub fn issue(
        authority: &AuthorityKey,
        static_key: StaticKey,
        now_unix: u32,
        validity_secs: u32,
    ) -> Result<Self, KeyError> {
        let valid_from = now_unix.saturating_sub(CERTIFICATE_BACKDATE_SECS);
        let not_valid_after = now_unix.saturating_add(validity_secs);
        let certificate = Certificate::sign(authority, &static_key, valid_from, not_valid_after)?;
        let renew_at = now_unix.saturating_add(validity_secs / 2);
        Ok(Self { renew_at, ..Self::new(static_key, certificate) })
    }

    /// The same static key under a new certificate; see [`Identity::issue`].
    ///
    /// # Errors
    /// As [`Certificate::sign`].
    pub fn renew(
        &self,
        authority: &AuthorityKey,
        now_unix: u32,
        validity_secs: u32,
    ) -> Result<Self, KeyError> {
        Self::issue(authority, self.static_key.clone(), now_unix, validity_secs)
    }

    /// Whether it is time to replace this identity, at `now_unix` seconds.
    pub const fn needs_renewal(&self, now_unix: u32) -> bool {
        now_unix >= self.renew_at
    }

    /// The certificate that is presented.
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The static key that is presented.
    pub const fn static_key(&self) -> &StaticKey {
        &self.static_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn renewed_at_half_time_under_the_same_key() {
        let mut random = ChaCha20Rng::seed_from_u64(5);
        let authority = AuthorityKey::generate(&mut random).unwrap();
        let key = StaticKey::generate(&mut random);
        let identity = Identity::issue(&authority, key, 10_000, 1_000).unwrap();
        assert_eq!(identity.certificate().valid_from, 6_400);
        assert_eq!(identity.certificate().not_valid_after, 11_000);
        assert!(!identity.needs_renewal(10_499) && identity.needs_renewal(10_500));

        let renewed = identity.renew(&authority, 10_500, 1_000).unwrap();
        assert_eq!(renewed.static_key().x_only(), identity.static_key().x_only());
        assert_eq!(renewed.certificate().not_valid_after, 11_500);
        assert!(!renewed.needs_renewal(10_500));
    }
}
