//! The transport: sealed bytes in, frames out, and back, in place.
//!
//! A connection has one [`Transport`], made by the handshake. It holds two cipher states, one for
//! each direction, and nothing of the stream itself: the bytes stay in the caller's buffers.
//!
//! **Opening.** The caller keeps received bytes in one buffer that starts at a frame, and calls
//! [`Transport::open`] whenever there are more. The answer is a frame and how many bytes it took,
//! or how many bytes there must be for progress, or an error, which is final. A header is opened
//! once, as soon as its 22 bytes are there, and remembered; they stay at the front of the buffer
//! and mean nothing any more. So a frame that is longer than its type allows is refused before
//! anything of its payload is waited for.
//!
//! **Sealing.** [`Transport::seal`] encodes a message behind what is in the caller's buffer and
//! encrypts it where it lies. With room in the buffer neither way allocates.
//!
//! Each call of the cipher takes the next nonce of its direction (I11: a nonce is used once, a
//! failed opening ends the connection).

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Tag, UnboundKey};

use crate::error::TransportError;
use crate::frame::{
    CHUNK_PLAINTEXT_MAX, Frame, FrameHeader, HEADER_BYTES, MAC_BYTES, PAYLOAD_MAX,
    SEALED_HEADER_BYTES, inbound_payload_max, outbound_payload_max, sealed_length,
};
use crate::message::Message;
use crate::noise::nonce;

/// Length of a full sealed chunk, in bytes.
const SEALED_CHUNK_MAX: usize = CHUNK_PLAINTEXT_MAX + MAC_BYTES;

/// Cipher calls in one direction after which the connection is closed: far below the 2^64 − 1 where
/// nonces would end, and out of reach in practice (a million frames a second for nine years).
pub const NONCES_MAX: u64 = 1 << 48;

/// Longest payload, in bytes, that is accepted for an extension type and a message type.
pub type Ceiling = fn(u16, u8) -> usize;

/// What [`Transport::open`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Nothing yet: come back when the buffer holds this many bytes, counted from its start.
    Need(usize),
    /// A frame, and how many bytes of the buffer to drop when done with it.
    Frame {
        /// Header and payload; the payload lies in the buffer.
        frame: Frame<'a>,
        /// Length of the sealed frame in the buffer.
        consumed: usize,
    },
    /// The stream is broken; close the connection without an answer.
    Error(TransportError),
}

/// One direction: a key and the number of the next call. 552 bytes, nearly all of it the cipher's
/// prepared key; preparing it anew for each call would cost a fifth of a small frame.
struct CipherState {
    key: LessSafeKey,
    n: u64,
}

impl CipherState {
    fn new(key: &[u8; 32]) -> Option<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
        Some(Self { key: LessSafeKey::new(key), n: 0 })
    }

    /// Whether `calls` more are allowed.
    fn can(&self, calls: usize) -> bool {
        // A usize always fits u64 on the platforms the project supports.
        self.n.saturating_add(calls as u64) <= NONCES_MAX
    }

    fn next(&mut self) -> Result<ring::aead::Nonce, TransportError> {
        if !self.can(1) {
            return Err(TransportError::NonceExhausted);
        }
        let nonce = nonce(self.n);
        self.n += 1;
        Ok(nonce)
    }

    fn seal(&mut self, text: &mut [u8]) -> Result<Tag, TransportError> {
        let nonce = self.next()?;
        self.key
            .seal_in_place_separate_tag(nonce, Aad::empty(), text)
            .map_err(|_| TransportError::PayloadTooLong { length: text.len() })
    }

    /// Opens the text and code at `sealed` and after in `bytes`, moving the text to the front.
    fn open(&mut self, bytes: &mut [u8], sealed: usize) -> Result<(), TransportError> {
        let nonce = self.next()?;
        self.key
            .open_within(nonce, Aad::empty(), bytes, sealed..)
            .map(|_| ())
            .map_err(|_| TransportError::DecryptFailed)
    }
}

/// Both directions of one connection after its handshake.
pub struct Transport {
    sealing: CipherState,
    opening: CipherState,
    /// The header of the frame at the front of the caller's buffer, if it has been opened.
    pending: Option<FrameHeader>,
    ceiling: Ceiling,
    closed: bool,
}

impl Transport {
    /// The server's end: opens with the first key of the split, accepts what miners send.
    pub(crate) fn server(from_miner: &[u8; 32], to_miner: &[u8; 32]) -> Option<Self> {
        Self::new(to_miner, from_miner, inbound_payload_max)
    }

    /// The miner's end: seals with the first key of the split, accepts what servers send.
    pub(crate) fn miner(from_miner: &[u8; 32], to_miner: &[u8; 32]) -> Option<Self> {
        Self::new(from_miner, to_miner, outbound_payload_max)
    }

    fn new(sealing: &[u8; 32], opening: &[u8; 32], ceiling: Ceiling) -> Option<Self> {
        Some(Self {
            sealing: CipherState::new(sealing)?,
            opening: CipherState::new(opening)?,
            pending: None,
            ceiling,
            closed: false,
        })
    }

    /// Replaces the limit on inbound payloads. A server's end starts with
    /// [`inbound_payload_max`], a miner's with [`outbound_payload_max`].
    pub const fn set_ceiling(&mut self, ceiling: Ceiling) {
        self.ceiling = ceiling;
    }

    /// Opens the frame at the front of `input`, if it is all there.
    ///
    /// `input` starts where the last frame ended and holds everything received since, of which one
    /// call opens at most one frame. When the answer is [`Opened::Need`], the next call gets the
    /// same bytes, moved if need be, with more behind them.
    pub fn open<'a>(&mut self, input: &'a mut [u8]) -> Opened<'a> {
        if self.closed {
            return Opened::Error(TransportError::Closed);
        }
        match self.advance(input) {
            Ok(Ok((header, consumed))) => {
                let end = SEALED_HEADER_BYTES + header.msg_length as usize;
                let payload = input.get(SEALED_HEADER_BYTES..end).unwrap_or_default();
                Opened::Frame { frame: Frame { header, payload }, consumed }
            }
            Ok(Err(need)) => Opened::Need(need),
            Err(error) => {
                self.closed = true;
                Opened::Error(error)
            }
        }
    }

    /// The header and sealed length of the frame at the front, its payload opened; or how many
    /// bytes there have to be.
    fn advance(
        &mut self,
        input: &mut [u8],
    ) -> Result<Result<(FrameHeader, usize), usize>, TransportError> {
        let header = match self.pending {
            Some(header) => header,
            None => {
                let Some(sealed) = input.first_chunk_mut::<SEALED_HEADER_BYTES>() else {
                    return Ok(Err(SEALED_HEADER_BYTES));
                };
                let header = self.open_header(sealed)?;
                self.pending = Some(header);
                header
            }
        };
        let length = header.msg_length as usize;
        let sealed = sealed_length(length);
        let Some(chunks) = input.get_mut(SEALED_HEADER_BYTES..sealed) else {
            return Ok(Err(sealed));
        };
        self.open_chunks(chunks, length)?;
        self.pending = None;
        Ok(Ok((header, sealed)))
    }

    fn open_header(
        &mut self,
        sealed: &mut [u8; SEALED_HEADER_BYTES],
    ) -> Result<FrameHeader, TransportError> {
        self.opening.open(sealed, 0)?;
        let [e0, e1, msg_type, l0, l1, l2, ..] = *sealed;
        let header = FrameHeader::decode(&[e0, e1, msg_type, l0, l1, l2]);
        let FrameHeader { extension_type, msg_type, msg_length: length, .. } = header;
        let max = (self.ceiling)(extension_type, msg_type);
        if length as usize > max {
            let max = u32::try_from(max).unwrap_or(u32::MAX);
            return Err(TransportError::FrameTooLarge { extension_type, msg_type, length, max });
        }
        Ok(header)
    }

    /// Opens the chunks of a payload of `length` bytes so that the text lies together at the front.
    ///
    /// Chunk `i` starts `i` codes behind the place its text goes to, so each is opened and moved up
    /// over the codes before it in one pass.
    fn open_chunks(&mut self, chunks: &mut [u8], length: usize) -> Result<(), TransportError> {
        let mut text = 0;
        let mut codes = 0;
        while text < length {
            let chunk = (length - text).min(CHUNK_PLAINTEXT_MAX);
            let end = text + codes + chunk + MAC_BYTES;
            let bytes = chunks.get_mut(text..end).ok_or(TransportError::DecryptFailed)?;
            self.opening.open(bytes, codes)?;
            text += chunk;
            codes += MAC_BYTES;
        }
        Ok(())
    }

    /// Appends `message` to `wire` as one sealed frame.
    ///
    /// # Errors
    /// When a field is too long for its wire type, the payload for a frame, or the nonces are used
    /// up; `wire` is then as it was, and no nonce is spent.
    pub fn seal<M: Message>(
        &mut self,
        message: &M,
        wire: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let start = wire.len();
        wire.extend_from_slice(&[0; SEALED_HEADER_BYTES]);
        message.encode_payload(wire);
        let encoded = wire.len() - start - SEALED_HEADER_BYTES;
        let sealed = match message.payload_length() {
            Some(length) if length != encoded => {
                Err(TransportError::FieldTooLong { msg_type: M::MSG_TYPE, length, encoded })
            }
            _ => self.seal_in_place(M::EXTENSION_TYPE, M::MSG_TYPE, M::CHANNEL_MSG, start, wire),
        };
        if sealed.is_err() {
            wire.truncate(start);
        }
        sealed
    }

    /// Appends a sealed frame with this payload to `wire`. The length in `header` is not looked at.
    ///
    /// # Errors
    /// As [`Transport::seal`].
    pub fn seal_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        wire: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let start = wire.len();
        wire.extend_from_slice(&[0; SEALED_HEADER_BYTES]);
        wire.extend_from_slice(payload);
        let FrameHeader { extension_type, msg_type, channel_msg, .. } = header;
        let sealed = self.seal_in_place(extension_type, msg_type, channel_msg, start, wire);
        if sealed.is_err() {
            wire.truncate(start);
        }
        sealed
    }

    /// Seals what lies in `wire` from `start`: room for a sealed header, then the plain payload.
    fn seal_in_place(
        &mut self,
        extension_type: u16,
        msg_type: u8,
        channel_msg: bool,
        start: usize,
        wire: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let body = start + SEALED_HEADER_BYTES;
        let length = wire.len() - body;
        let too_long = TransportError::PayloadTooLong { length };
        if length > PAYLOAD_MAX {
            return Err(too_long);
        }
        let chunks = length.div_ceil(CHUNK_PLAINTEXT_MAX);
        if !self.sealing.can(1 + chunks) {
            return Err(TransportError::NonceExhausted);
        }
        let msg_length = u32::try_from(length).map_err(|_| too_long)?;
        let header = FrameHeader { extension_type, channel_msg, msg_type, msg_length };
        wire.resize(start + sealed_length(length), 0);
        let frame = wire.get_mut(start..).ok_or(too_long)?;
        let (sealed_header, body) = frame.split_at_mut(SEALED_HEADER_BYTES);
        spread(body, length);

        let (plain_header, code) = sealed_header.split_at_mut(HEADER_BYTES);
        plain_header.copy_from_slice(&header.encode());
        code.copy_from_slice(self.sealing.seal(plain_header)?.as_ref());
        for chunk in body.chunks_mut(SEALED_CHUNK_MAX) {
            let (text, code) = chunk.split_at_mut(chunk.len().saturating_sub(MAC_BYTES));
            code.copy_from_slice(self.sealing.seal(text)?.as_ref());
        }
        Ok(())
    }
}

/// Moves the chunks of a contiguous payload of `length` bytes apart, so that each has room for its
/// code behind it; the last one first, because each moves over the place of the next.
fn spread(body: &mut [u8], length: usize) {
    for chunk in (1..length.div_ceil(CHUNK_PLAINTEXT_MAX)).rev() {
        let start = chunk * CHUNK_PLAINTEXT_MAX;
        let end = length.min(start + CHUNK_PLAINTEXT_MAX);
        body.copy_within(start..end, chunk * SEALED_CHUNK_MAX);
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("sealed", &self.sealing.n)
            .field("opened", &self.opening.n)
            .field("pending", &self.pending)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::mining::{NewExtendedMiningJob, SubmitSharesError, SubmitSharesStandard};

    fn pair() -> (Transport, Transport) {
        let keys = ([1; 32], [2; 32]);
        let server = Transport::server(&keys.0, &keys.1).unwrap();
        (server, Transport::miner(&keys.0, &keys.1).unwrap())
    }

    const SHARE: SubmitSharesStandard = SubmitSharesStandard {
        channel_id: 1,
        sequence_number: 2,
        job_id: 3,
        nonce: 4,
        ntime: 5,
        version: 6,
    };

    /// Goal: nonces end the connection long before they repeat, and cost nothing when refused.
    #[test]
    fn the_last_nonces_are_refused_whole() {
        let (mut server, mut miner) = pair();
        let mut wire = Vec::new();
        miner.sealing.n = NONCES_MAX - 1;
        assert_eq!(miner.seal(&SHARE, &mut wire), Err(TransportError::NonceExhausted));
        assert_eq!((wire.len(), miner.sealing.n), (0, NONCES_MAX - 1));

        miner.sealing.n = NONCES_MAX - 2;
        server.opening.n = NONCES_MAX - 2;
        assert_eq!(miner.seal(&SHARE, &mut wire), Ok(()));
        assert!(matches!(server.open(&mut wire), Opened::Frame { consumed: 62, .. }));
        let mut next = [0; SEALED_HEADER_BYTES];
        let next = server.open(&mut next);
        assert_eq!(next, Opened::Error(TransportError::NonceExhausted));
    }

    #[test]
    fn a_message_that_would_be_cut_is_refused() {
        let (_, mut miner) = pair();
        let mut wire = vec![9];
        let message =
            SubmitSharesError { channel_id: 1, sequence_number: 2, error_code: &[b'x'; 256] };
        let refused = TransportError::FieldTooLong { msg_type: 0x1d, length: 265, encoded: 264 };
        assert_eq!(miner.seal(&message, &mut wire), Err(refused));
        let job = NewExtendedMiningJob {
            channel_id: 1,
            job_id: 2,
            min_ntime: None,
            version: 3,
            version_rolling_allowed: true,
            merkle_path: &[],
            coinbase_tx_prefix: &[],
            coinbase_tx_suffix: &[0; 65_536],
        };
        assert!(miner.seal(&job, &mut wire).is_err());
        assert_eq!((wire, miner.sealing.n), (vec![9], 0));
    }

    #[test]
    fn a_payload_beyond_a_frame_is_refused() {
        let (_, mut miner) = pair();
        let header = FrameHeader::decode(&[0; 6]);
        let mut wire = Vec::new();
        let result = miner.seal_frame(header, &vec![0; PAYLOAD_MAX + 1], &mut wire);
        assert_eq!(result, Err(TransportError::PayloadTooLong { length: PAYLOAD_MAX + 1 }));
        assert!(wire.is_empty());
    }

    /// Goal: a claimed length is refused from the 22 bytes that claim it, and for good.
    #[test]
    fn too_large_a_frame_is_refused_at_its_header() {
        let (mut server, mut miner) = pair();
        let mut wire = Vec::new();
        let header = FrameHeader::decode(&[0, 0x80, 0x1a, 0, 0, 0]);
        miner.seal_frame(header, &[0; 281], &mut wire).unwrap();
        let refused = TransportError::FrameTooLarge {
            extension_type: 0,
            msg_type: 0x1a,
            length: 281,
            max: 280,
        };
        let answer = server.open(&mut wire[..SEALED_HEADER_BYTES]);
        assert_eq!(answer, Opened::Error(refused));
        assert_eq!(server.open(&mut wire), Opened::Error(TransportError::Closed));

        let (mut server, mut miner) = pair();
        server.set_ceiling(|_, _| 281);
        wire.clear();
        miner.seal_frame(header, &[0; 281], &mut wire).unwrap();
        assert!(matches!(server.open(&mut wire), Opened::Frame { .. }));
    }

    #[test]
    fn a_warm_buffer_is_not_reallocated() {
        let (_, mut miner) = pair();
        let mut wire = Vec::with_capacity(62);
        miner.seal(&SHARE, &mut wire).unwrap();
        assert_eq!((wire.len(), wire.capacity()), (62, 62));
    }
}
