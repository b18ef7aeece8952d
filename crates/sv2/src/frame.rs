//! The frame: a 6-byte header and its payload (SV2 specification section 3.2), and how long each
//! may be.
//!
//! ```text
//! plain    extension_type U16 | msg_type U8 | msg_length U24 | payload
//! sealed   AEAD(header) 22    | AEAD(at most 65 519 payload bytes) | AEAD(…) | …
//! ```
//!
//! Bit 15 of `extension_type` says that the payload starts with a channel id. It changed for some
//! messages over the years, so it is kept apart on receipt and decides nothing.

use crate::codec::U24_MAX;
use crate::message::common::{
    ChannelEndpointChanged, Reconnect, SetupConnection, SetupConnectionError,
    SetupConnectionSuccess,
};
use crate::message::extension::{
    RequestExtensions, RequestExtensionsError, RequestExtensionsSuccess,
};
use crate::message::mining::{
    CloseChannel, NewExtendedMiningJob, NewMiningJob, OpenExtendedMiningChannel,
    OpenExtendedMiningChannelSuccess, OpenMiningChannelError, OpenStandardMiningChannel,
    OpenStandardMiningChannelSuccess, SetCustomMiningJob, SetCustomMiningJobError,
    SetCustomMiningJobSuccess, SetExtranoncePrefix, SetGroupChannel, SetNewPrevHash, SetTarget,
    SubmitSharesError, SubmitSharesExtended, SubmitSharesStandard, SubmitSharesSuccess,
    UpdateChannel, UpdateChannelError,
};
use crate::message::{EXTENSION_CORE, EXTENSION_NEGOTIATION};

/// Length of a plain header, in bytes.
pub const HEADER_BYTES: usize = 6;
/// Length of the authentication code behind each sealed piece, in bytes (ChaCha20-Poly1305).
pub const MAC_BYTES: usize = 16;
/// Length of a sealed header, in bytes.
pub const SEALED_HEADER_BYTES: usize = HEADER_BYTES + MAC_BYTES;
/// Most payload bytes in one sealed chunk: a chunk with its code is at most 65 535 bytes.
pub const CHUNK_PLAINTEXT_MAX: usize = 65_535 - MAC_BYTES;
/// Longest payload a header can announce, in bytes.
pub const PAYLOAD_MAX: usize = U24_MAX as usize;
/// Set in the extension type of a frame whose payload starts with a channel id.
pub const CHANNEL_BIT: u16 = 0x8000;

/// Bytes tolerated behind the last field of a known message: room for TLVs and later fields.
pub const TRAILING_BYTES_MAX: usize = 256;
/// Longest inbound payload of an unknown type or extension, in bytes. It is received to be ignored.
pub const UNKNOWN_PAYLOAD_MAX: usize = 4096;
/// Most extensions a miner may ask for in one request. Three are defined.
pub const REQUESTED_EXTENSIONS_MAX: usize = 1024;

const REQUEST_EXTENSIONS_MAX: usize = 2 + 2 + 2 * REQUESTED_EXTENSIONS_MAX;
const _: () = assert!(REQUEST_EXTENSIONS_MAX < RequestExtensions::PAYLOAD_MAX);

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Extension the message belongs to, bit 15 removed. 0 is the core protocol.
    pub extension_type: u16,
    /// Bit 15 of the extension type: the payload starts with a channel id.
    pub channel_msg: bool,
    /// Message type within its extension.
    pub msg_type: u8,
    /// Payload bytes that follow, header and authentication codes excluded. 0 to 2^24 − 1.
    pub msg_length: u32,
}

impl FrameHeader {
    /// Reads a header; every 6 bytes are one.
    pub const fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [e0, e1, msg_type, l0, l1, l2] = *bytes;
        let extension = u16::from_le_bytes([e0, e1]);
        Self {
            extension_type: extension & !CHANNEL_BIT,
            channel_msg: extension & CHANNEL_BIT != 0,
            msg_type,
            msg_length: u32::from_le_bytes([l0, l1, l2, 0]),
        }
    }

    /// The 6 bytes of this header. Bits of `msg_length` above the lowest 24 are dropped.
    pub const fn encode(&self) -> [u8; HEADER_BYTES] {
        let channel = if self.channel_msg { CHANNEL_BIT } else { 0 };
        let [e0, e1] = (self.extension_type & !CHANNEL_BIT | channel).to_le_bytes();
        let [l0, l1, l2, _] = self.msg_length.to_le_bytes();
        [e0, e1, self.msg_type, l0, l1, l2]
    }
}

/// One opened frame; the payload lies in the buffer it was opened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the peer said about the payload.
    pub header: FrameHeader,
    /// The plain payload, `header.msg_length` bytes.
    pub payload: &'a [u8],
}

/// Bytes on the wire of a frame with `payload` plain bytes: the sealed header and every chunk with
/// its code. An empty payload has no chunk at all.
///
/// ```
/// assert_eq!([0, 6, 65_519, 65_520].map(sv2::sealed_length), [22, 44, 65_557, 65_574]);
/// ```
pub const fn sealed_length(payload: usize) -> usize {
    SEALED_HEADER_BYTES + payload + MAC_BYTES * payload.div_ceil(CHUNK_PLAINTEXT_MAX)
}

/// Longest payload, in bytes, that a mining server accepts in a frame of this type.
///
/// The bound is what the fields of the message can hold, with [`TRAILING_BYTES_MAX`] for what may
/// follow them; for everything else it is [`UNKNOWN_PAYLOAD_MAX`]. A frame above it is refused at
/// its header, so that 22 bytes of a stranger never reserve megabytes.
pub fn inbound_payload_max(extension_type: u16, msg_type: u8) -> usize {
    let fields = match (extension_type, msg_type) {
        (EXTENSION_CORE, SetupConnection::MSG_TYPE) => SetupConnection::PAYLOAD_MAX,
        (EXTENSION_CORE, OpenStandardMiningChannel::MSG_TYPE) => {
            OpenStandardMiningChannel::PAYLOAD_MAX
        }
        (EXTENSION_CORE, OpenExtendedMiningChannel::MSG_TYPE) => {
            OpenExtendedMiningChannel::PAYLOAD_MAX
        }
        (EXTENSION_CORE, UpdateChannel::MSG_TYPE) => UpdateChannel::PAYLOAD_MAX,
        (EXTENSION_CORE, CloseChannel::MSG_TYPE) => CloseChannel::PAYLOAD_MAX,
        (EXTENSION_CORE, SubmitSharesStandard::MSG_TYPE) => SubmitSharesStandard::PAYLOAD_MAX,
        (EXTENSION_CORE, SubmitSharesExtended::MSG_TYPE) => SubmitSharesExtended::PAYLOAD_MAX,
        (EXTENSION_CORE, SetCustomMiningJob::MSG_TYPE) => SetCustomMiningJob::PAYLOAD_MAX,
        (EXTENSION_NEGOTIATION, RequestExtensions::MSG_TYPE) => REQUEST_EXTENSIONS_MAX,
        _ => return UNKNOWN_PAYLOAD_MAX,
    };
    fields + TRAILING_BYTES_MAX
}

/// Longest payload, in bytes, that a miner accepts from its server in a frame of this type; the
/// other side of [`inbound_payload_max`].
pub fn outbound_payload_max(extension_type: u16, msg_type: u8) -> usize {
    let fields = match extension_type {
        EXTENSION_CORE => outbound_core_max(msg_type),
        EXTENSION_NEGOTIATION => match msg_type {
            RequestExtensionsSuccess::MSG_TYPE => Some(RequestExtensionsSuccess::PAYLOAD_MAX),
            RequestExtensionsError::MSG_TYPE => Some(RequestExtensionsError::PAYLOAD_MAX),
            _ => None,
        },
        _ => None,
    };
    fields.map_or(UNKNOWN_PAYLOAD_MAX, |fields| fields + TRAILING_BYTES_MAX)
}

fn outbound_core_max(msg_type: u8) -> Option<usize> {
    Some(match msg_type {
        SetupConnectionSuccess::MSG_TYPE => SetupConnectionSuccess::PAYLOAD_MAX,
        SetupConnectionError::MSG_TYPE => SetupConnectionError::PAYLOAD_MAX,
        ChannelEndpointChanged::MSG_TYPE => ChannelEndpointChanged::PAYLOAD_MAX,
        Reconnect::MSG_TYPE => Reconnect::PAYLOAD_MAX,
        OpenStandardMiningChannelSuccess::MSG_TYPE => OpenStandardMiningChannelSuccess::PAYLOAD_MAX,
        OpenMiningChannelError::MSG_TYPE => OpenMiningChannelError::PAYLOAD_MAX,
        OpenExtendedMiningChannelSuccess::MSG_TYPE => OpenExtendedMiningChannelSuccess::PAYLOAD_MAX,
        NewMiningJob::MSG_TYPE => NewMiningJob::PAYLOAD_MAX,
        UpdateChannelError::MSG_TYPE => UpdateChannelError::PAYLOAD_MAX,
        CloseChannel::MSG_TYPE => CloseChannel::PAYLOAD_MAX,
        SetExtranoncePrefix::MSG_TYPE => SetExtranoncePrefix::PAYLOAD_MAX,
        SubmitSharesSuccess::MSG_TYPE => SubmitSharesSuccess::PAYLOAD_MAX,
        SubmitSharesError::MSG_TYPE => SubmitSharesError::PAYLOAD_MAX,
        NewExtendedMiningJob::MSG_TYPE => NewExtendedMiningJob::PAYLOAD_MAX,
        SetNewPrevHash::MSG_TYPE => SetNewPrevHash::PAYLOAD_MAX,
        SetTarget::MSG_TYPE => SetTarget::PAYLOAD_MAX,
        SetCustomMiningJobSuccess::MSG_TYPE => SetCustomMiningJobSuccess::PAYLOAD_MAX,
        SetCustomMiningJobError::MSG_TYPE => SetCustomMiningJobError::PAYLOAD_MAX,
        SetGroupChannel::MSG_TYPE => SetGroupChannel::PAYLOAD_MAX,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_a_core_channel_message() {
        let bytes = [0x00, 0x80, 0x1b, 0x03, 0x02, 0x01];
        let header = FrameHeader::decode(&bytes);
        assert_eq!(
            header,
            FrameHeader {
                extension_type: 0,
                channel_msg: true,
                msg_type: 0x1b,
                msg_length: 0x0001_0203
            }
        );
        assert_eq!(header.encode(), bytes);
    }

    #[test]
    fn sealed_lengths_are_those_of_the_reference_implementation() {
        let lengths = [(0, 22), (6, 44), (65_519, 65_557), (65_520, 65_574), (150_000, 150_070)];
        for (payload, sealed) in lengths {
            assert_eq!(sealed_length(payload), sealed, "payload of {payload}");
        }
    }

    #[test]
    fn ceilings_follow_the_fields() {
        let max = |msg_type| inbound_payload_max(0, msg_type) - TRAILING_BYTES_MAX;
        assert_eq!(max(0x00), 1291);
        assert_eq!(max(0x1a), 24);
        assert_eq!(max(0x1b), 24 + 33);
        assert_eq!(max(0x16), 40);
        assert_eq!(max(0x18), 260);
        assert_eq!(inbound_payload_max(0, 0x1f), UNKNOWN_PAYLOAD_MAX);
        assert_eq!(inbound_payload_max(0x4000, 0x1b), UNKNOWN_PAYLOAD_MAX);
        assert!((0..=255).all(|msg_type| inbound_payload_max(0, msg_type) < 80 * 1024));
        assert!(outbound_payload_max(0, 0x1f) > 80 * 1024);
    }
}
