//! The Noise NX handshake of SV2 (specification section 4), both sides.
//!
//! ```text
//! act 1   miner → server    64 bytes   e                          (ElligatorSwift)
//! act 2   server → miner   234 bytes   e, ee, s, es, certificate  64 + (64+16) + (74+16)
//! ```
//!
//! The server proves that its static key is the operator's: a [`Certificate`], signed by the
//! [`AuthorityKey`] whose public half the miner holds in its connection address. `snow` drives the
//! pattern; `resolver` gives it secp256k1, SHA-256 and ChaCha20-Poly1305. Randomness comes in as
//! an argument, as an [`Ephemeral`] that can be made ahead of time, off the path of a connection.

mod authority;
mod certificate;
mod identity;
mod initiator;
mod keys;
mod resolver;
mod responder;

pub use authority::{
    AuthorityKey, AuthorityPublicKey, EXAMPLE_AUTHORITY_PUBLIC_KEY, EXAMPLE_AUTHORITY_SECRET_KEY,
};
pub use certificate::{CERTIFICATE_BYTES, CLOCK_LEEWAY_SECS, Certificate};
pub use identity::{CERTIFICATE_BACKDATE_SECS, Identity};
pub use initiator::Initiator;
pub use keys::{Ephemeral, StaticKey};
pub use responder::respond;

pub(crate) use resolver::nonce;

use crate::error::NoiseError;
use snow::params::NoiseParams;

/// Length of an ElligatorSwift encoding of a public key, in bytes (BIP324).
pub const ELLSWIFT_BYTES: usize = 64;
/// Length of act 1, in bytes: the miner's ephemeral key.
pub const ACT1_BYTES: usize = ELLSWIFT_BYTES;
/// Length of act 2, in bytes: ephemeral key, sealed static key, sealed certificate.
pub const ACT2_BYTES: usize =
    ELLSWIFT_BYTES + (ELLSWIFT_BYTES + crate::frame::MAC_BYTES) + SEALED_CERTIFICATE_BYTES;
/// The name that both sides hash first; another name is another protocol.
pub const PROTOCOL_NAME: &str = "Noise_NX_Secp256k1+EllSwift_ChaChaPoly_SHA256";

const SEALED_CERTIFICATE_BYTES: usize = CERTIFICATE_BYTES + crate::frame::MAC_BYTES;
const _: () = assert!(ACT2_BYTES == 234);

/// A name of the same pattern, cipher and hash that snow can parse.
const PARSABLE_NAME: &str = "Noise_NX_25519_ChaChaPoly_SHA256";

/// snow's parameters of this protocol.
///
/// snow knows no name for the curve, so a parsable name is parsed and then replaced by ours: the
/// `name` field is what is hashed, and the resolver ignores which curve it is asked for.
fn params() -> Result<NoiseParams, NoiseError> {
    let mut params: NoiseParams = PARSABLE_NAME.parse().map_err(from_snow)?;
    params.name = PROTOCOL_NAME.to_owned();
    Ok(params)
}

/// snow's errors, by whose fault they are.
fn from_snow(error: snow::Error) -> NoiseError {
    match error {
        snow::Error::Decrypt => NoiseError::DecryptFailed,
        snow::Error::Dh | snow::Error::Rng => NoiseError::KeyExchange,
        _ => NoiseError::Protocol,
    }
}
