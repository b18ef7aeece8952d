//! The server's side of the handshake: one call, act 1 in, act 2 and the transport out.

use super::resolver::Resolver;
use super::{ACT1_BYTES, ACT2_BYTES, Ephemeral, Identity, from_snow, params};
use crate::error::NoiseError;
use crate::transport::Transport;

/// Answers `act1` with `act2` and opens the transport.
///
/// `ephemeral` must be fresh. Costs two key exchanges, about 0.1 ms; the caller limits how often
/// strangers may have it done. Any 64 bytes are a valid act 1 (every string encodes a key), so a
/// wrong protocol shows only when the first frame fails to open.
///
/// # Errors
/// Only for a defect here or an [`Ephemeral`] from a broken source of randomness; `act2` is then
/// not to be sent.
pub fn respond(
    identity: &Identity,
    ephemeral: Ephemeral,
    act1: &[u8; ACT1_BYTES],
    act2: &mut [u8; ACT2_BYTES],
) -> Result<Transport, NoiseError> {
    let static_pair = identity.static_key.pair.join();
    let resolver = Box::new(Resolver::responder(ephemeral));
    let mut handshake = snow::Builder::with_resolver(params()?, resolver)
        .local_private_key(&*static_pair)
        .map_err(from_snow)?
        .build_responder()
        .map_err(from_snow)?;
    // Exactly 64 bytes: snow would take more as an unencrypted payload.
    handshake.read_message(act1, &mut []).map_err(from_snow)?;
    let written = handshake.write_message(&identity.certificate_bytes, act2).map_err(from_snow)?;
    if written != ACT2_BYTES {
        return Err(NoiseError::Protocol);
    }
    let (initiator_to_responder, responder_to_initiator) = handshake.dangerously_get_raw_split();
    Transport::server(&initiator_to_responder, &responder_to_initiator).ok_or(NoiseError::Protocol)
}
