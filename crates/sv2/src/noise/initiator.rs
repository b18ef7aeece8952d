//! The miner's side of the handshake: act 1 out, act 2 in, then the certificate is checked.

use super::certificate::CERTIFICATE_BYTES;
use super::keys::x_only;
use super::resolver::Resolver;
use super::{
    ACT1_BYTES, ACT2_BYTES, AuthorityPublicKey, Certificate, ELLSWIFT_BYTES, Ephemeral, from_snow,
    params,
};
use crate::error::NoiseError;
use crate::transport::Transport;

/// snow asks for room for an authentication code behind act 1 and does not use it.
const ACT1_BUFFER_BYTES: usize = ACT1_BYTES + crate::frame::MAC_BYTES;

/// A handshake waiting for act 2.
pub struct Initiator {
    /// `Err` when act 1 could not be made; told by [`Initiator::finish`].
    handshake: Result<Box<snow::HandshakeState>, NoiseError>,
    authority: Option<AuthorityPublicKey>,
}

impl Initiator {
    /// Begins a handshake and returns the 64 bytes of act 1 to send.
    ///
    /// With an `authority` the server has to present a certificate of that key; without one any
    /// server is accepted and the connection is private but proves nothing. `ephemeral` must be
    /// fresh.
    pub fn new(
        authority: Option<AuthorityPublicKey>,
        ephemeral: Ephemeral,
    ) -> (Self, [u8; ACT1_BYTES]) {
        let mut act1 = [0; ACT1_BYTES];
        let handshake = begin(ephemeral, &mut act1);
        (Self { handshake, authority }, act1)
    }

    /// Reads act 2, checks the certificate at `now_unix` (seconds), and opens the transport.
    ///
    /// # Errors
    /// When act 2 fails authentication or the certificate does not hold.
    pub fn finish(self, act2: &[u8; ACT2_BYTES], now_unix: u32) -> Result<Transport, NoiseError> {
        let mut handshake = self.handshake?;
        let mut certificate = [0; CERTIFICATE_BYTES];
        let read = handshake.read_message(act2, &mut certificate).map_err(from_snow)?;
        if read != CERTIFICATE_BYTES {
            return Err(NoiseError::Protocol);
        }
        if let Some(authority) = self.authority {
            let encoding = handshake
                .get_remote_static()
                .and_then(|key| key.first_chunk::<ELLSWIFT_BYTES>())
                .ok_or(NoiseError::Protocol)?;
            Certificate::from_bytes(&certificate).verify(
                &authority,
                &x_only(encoding),
                now_unix,
            )?;
        }
        let (initiator_to_responder, responder_to_initiator) =
            handshake.dangerously_get_raw_split();
        Transport::miner(&initiator_to_responder, &responder_to_initiator)
            .ok_or(NoiseError::Protocol)
    }
}

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Initiator").field("authority", &self.authority).finish_non_exhaustive()
    }
}

fn begin(
    ephemeral: Ephemeral,
    act1: &mut [u8; ACT1_BYTES],
) -> Result<Box<snow::HandshakeState>, NoiseError> {
    let resolver = Box::new(Resolver::initiator(ephemeral));
    let mut handshake =
        snow::Builder::with_resolver(params()?, resolver).build_initiator().map_err(from_snow)?;
    let mut buffer = [0; ACT1_BUFFER_BYTES];
    let written = handshake.write_message(&[], &mut buffer).map_err(from_snow)?;
    match buffer.first_chunk() {
        Some(message) if written == ACT1_BYTES => *act1 = *message,
        _ => return Err(NoiseError::Protocol),
    }
    Ok(Box::new(handshake))
}
