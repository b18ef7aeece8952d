//! What snow needs to run this pattern over secp256k1: key exchange, hash, cipher, randomness.
//!
//! Four things about snow shape this file. Public keys here are 64 bytes, which fits its buffers
//! only with its feature `p256`; without it the first message of any peer would panic (a test pins
//! the feature). Its `dh_len` defaults to the length of a public key and is 32 here. It does not
//! tell a key exchange which side it is on, while BIP324 hashes the initiator's encoding first, so
//! the resolver carries the side. And it knows private keys as bytes: ours are the secret and its
//! 64-byte encoding together, because encodings are random and the very one that was sent counts.

use std::cell::Cell;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use secp256k1::SecretKey;
use secp256k1::ellswift::{ElligatorSwift, Party};
use sha2::{Digest, Sha256};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use super::ELLSWIFT_BYTES;
use super::keys::{Ephemeral, KEY_PAIR_BYTES, KeyPair, SECRET_BYTES};
use crate::frame::MAC_BYTES;

/// Gives one handshake its primitives, and its ephemeral key once.
pub(super) struct Resolver {
    party: Party,
    ephemeral: Cell<Option<Ephemeral>>,
}

impl Resolver {
    pub(super) fn initiator(ephemeral: Ephemeral) -> Self {
        Self { party: Party::Initiator, ephemeral: Cell::new(Some(ephemeral)) }
    }

    pub(super) fn responder(ephemeral: Ephemeral) -> Self {
        Self { party: Party::Responder, ephemeral: Cell::new(Some(ephemeral)) }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneKey(self.ephemeral.take().map(|ephemeral| ephemeral.pair))))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(EllSwiftDh { party: self.party, pair: KeyPair::zero() }))
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        Some(Box::new(Sha256Hash(Sha256::new())))
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        Some(Box::new(ChaChaPoly(None)))
    }
}

/// "Randomness" that is exactly one key pair made beforehand, and then none.
struct OneKey(Option<KeyPair>);

impl Random for OneKey {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let pair = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != KEY_PAIR_BYTES {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&*pair.join());
        Ok(())
    }
}

/// x-only key exchange over ElligatorSwift encodings, hashed as in BIP324.
struct EllSwiftDh {
    party: Party,
    pair: KeyPair,
}

impl Dh for EllSwiftDh {
    fn name(&self) -> &'static str {
        "Secp256k1+EllSwift"
    }

    fn pub_len(&self) -> usize {
        ELLSWIFT_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_PAIR_BYTES
    }

    fn dh_len(&self) -> usize {
        32
    }

    fn set(&mut self, pair: &[u8]) {
        // Of another length it stays zero, which no key exchange accepts.
        if let Some(pair) = KeyPair::split(pair) {
            self.pair = pair;
        }
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut pair = Zeroizing::new([0; KEY_PAIR_BYTES]);
        random.try_fill_bytes(&mut *pair)?;
        self.set(&*pair);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.pair.encoding()
    }

    fn privkey(&self) -> &[u8] {
        self.pair.secret()
    }

    /// `theirs` is snow's whole key buffer, of which the first 64 bytes are the key.
    fn dh(&self, theirs: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let theirs = theirs.first_chunk::<ELLSWIFT_BYTES>().ok_or(snow::Error::Dh)?;
        let theirs = ElligatorSwift::from_array(*theirs);
        let ours = ElligatorSwift::from_array(*self.pair.encoding());
        let mut secret =
            SecretKey::from_secret_bytes(*self.pair.secret()).map_err(|_| snow::Error::Dh)?;
        let (initiator, responder) = match self.party {
            Party::Initiator => (ours, theirs),
            Party::Responder => (theirs, ours),
        };
        let mut shared = ElligatorSwift::shared_secret(initiator, responder, secret, self.party);
        secret.non_secure_erase();
        let result = out
            .first_chunk_mut::<SECRET_BYTES>()
            .map(|out| *out = shared.to_secret_bytes())
            .ok_or(snow::Error::Dh);
        shared.non_secure_erase();
        result
    }
}

struct Sha256Hash(Sha256);

impl Hash for Sha256Hash {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Sha256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        if let Some(out) = out.first_chunk_mut::<32>() {
            *out = self.0.finalize_reset().into();
        }
    }
}

/// ChaCha20-Poly1305 with the nonce of Noise. It runs for two messages a handshake only; the
/// transport has its own, in place.
struct ChaChaPoly(Option<LessSafeKey>);

/// The nonce of call `n` under one key: four zero bytes, then `n` as U64, little-endian.
pub(crate) fn nonce(n: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some(counter) = nonce.last_chunk_mut() {
        *counter = n.to_le_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new);
    }

    /// Writes nothing and returns 0 when the output is too short or there is no key, which makes
    /// the whole message too short; the caller checks its length.
    fn encrypt(&self, n: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let sealed_length = plaintext.len() + MAC_BYTES;
        let (Some(key), Some(out)) = (&self.0, out.get_mut(..sealed_length)) else {
            return 0;
        };
        let (text, code) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        match key.seal_in_place_separate_tag(nonce(n), Aad::from(authtext), text) {
            Ok(tag) => {
                code.copy_from_slice(tag.as_ref());
                sealed_length
            }
            Err(_) => 0,
        }
    }

    fn decrypt(
        &self,
        n: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let (text, code) =
            ciphertext.split_last_chunk::<MAC_BYTES>().ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(snow::Error::Decrypt)?;
        let key = self.0.as_ref().ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(text);
        let tag = (*code).into();
        key.open_in_place_separate_tag(nonce(n), Aad::from(authtext), tag, out, 0..)
            .map(|text| text.len())
            .map_err(|_| snow::Error::Decrypt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: snow's key buffers hold 64-byte keys.
    /// Method: a responder reads a 64-byte act 1; without snow's feature `p256` its buffers are 56
    /// bytes and this panics.
    #[test]
    fn snow_has_room_for_our_keys() {
        let ephemeral = Ephemeral::from_parts([1; 32], encoding(1)).unwrap();
        let pair = Ephemeral::from_parts([2; 32], encoding(2)).unwrap();
        let joined = pair.pair.join();
        let resolver = Box::new(Resolver::responder(ephemeral));
        let mut responder = snow::Builder::with_resolver(super::super::params().unwrap(), resolver)
            .local_private_key(&*joined)
            .unwrap()
            .build_responder()
            .unwrap();
        assert_eq!(responder.read_message(&[0x5a; 64], &mut []), Ok(0));
    }

    fn encoding(secret: u8) -> [u8; 64] {
        let secret = SecretKey::from_secret_bytes([secret; 32]).unwrap();
        ElligatorSwift::from_seckey(secret, None).to_array()
    }

    #[test]
    fn the_one_key_is_given_once() {
        let mut random = OneKey(KeyPair::split(&[7; KEY_PAIR_BYTES]));
        let mut dest = [0; KEY_PAIR_BYTES];
        assert_eq!(random.try_fill_bytes(&mut dest), Ok(()));
        assert_eq!(dest, [7; KEY_PAIR_BYTES]);
        assert_eq!(random.try_fill_bytes(&mut dest), Err(snow::Error::Rng));
    }

    #[test]
    fn a_zero_secret_key_is_refused() {
        let dh = EllSwiftDh { party: Party::Responder, pair: KeyPair::zero() };
        assert_eq!(dh.dh(&[1; 65], &mut [0; 65]), Err(snow::Error::Dh));
        assert_eq!(dh.dh(&[1; 63], &mut [0; 65]), Err(snow::Error::Dh));
    }
}
