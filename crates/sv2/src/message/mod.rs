//! The messages: one struct each, and one enum for each direction.
//!
//! Structs carry the names and fields of the specification. Text and byte fields are borrowed from
//! the payload, U256 fields are `[u8; 32]` in wire order. Decoding takes a payload without its
//! header and tolerates bytes behind the last field; encoding appends to a buffer.
//!
//! [`FromMiner`] is what a mining server receives, [`ToMiner`] what it sends (and what a miner, a
//! load generator or a test receives). Both know every message of the mining protocol, the common
//! messages and extension 0x0001, and answer `Unknown` for all else, which is not an error: such
//! frames are skipped.

#[macro_use]
mod define;

pub mod common;
pub mod extension;
pub mod mining;

use crate::error::CodecError;
use crate::frame::Frame;
use common::{
    ChannelEndpointChanged, Reconnect, SetupConnection, SetupConnectionError,
    SetupConnectionSuccess,
};
use extension::{RequestExtensions, RequestExtensionsError, RequestExtensionsSuccess};
use mining::{
    CloseChannel, NewExtendedMiningJob, NewMiningJob, OpenExtendedMiningChannel,
    OpenExtendedMiningChannelSuccess, OpenMiningChannelError, OpenStandardMiningChannel,
    OpenStandardMiningChannelSuccess, SetCustomMiningJob, SetCustomMiningJobError,
    SetCustomMiningJobSuccess, SetExtranoncePrefix, SetGroupChannel, SetNewPrevHash, SetTarget,
    SubmitSharesError, SubmitSharesExtended, SubmitSharesStandard, SubmitSharesSuccess,
    UpdateChannel, UpdateChannelError,
};

/// The core protocol: common and mining messages.
pub const EXTENSION_CORE: u16 = 0x0000;
/// Extension 0x0001: negotiation of extensions.
pub const EXTENSION_NEGOTIATION: u16 = 0x0001;
/// Extension 0x0002: worker identity behind each extended share, as a TLV.
pub const EXTENSION_WORKER: u16 = 0x0002;

/// A message that can be sealed into a frame.
pub trait Message {
    /// Extension the message belongs to, without the channel bit.
    const EXTENSION_TYPE: u16;
    /// Message type within the extension.
    const MSG_TYPE: u8;
    /// Whether the channel bit is sent, and so whether the payload starts with a channel id.
    const CHANNEL_MSG: bool;

    /// Appends the payload, without the frame header.
    fn encode_payload(&self, out: &mut Vec<u8>);

    /// How many bytes the payload has when no field is cut at the bound of its wire type, if known.
    ///
    /// Sealing compares it with what was encoded, and refuses a message that does not fit.
    fn payload_length(&self) -> Option<usize> {
        None
    }
}

macro_rules! direction {
    (
        $(#[$meta:meta])*
        $name:ident { $($message:ident $(<$life:lifetime>)?),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum $name<'a> {
            $(
                #[doc = concat!("See [`", stringify!($message), "`].")]
                $message($message $(<$life>)?),
            )+
            /// A type or extension not known here; to be skipped.
            Unknown {
                /// Extension of the frame, without the channel bit.
                extension_type: u16,
                /// Message type of the frame.
                msg_type: u8,
            },
        }

        impl<'a> $name<'a> {
            /// Decodes the payload of `frame` by extension and message type; the channel bit is not
            /// looked at, because it differs between generations of peers.
            ///
            /// # Errors
            /// A known message whose payload is too short or has a field that is too long.
            pub fn decode(frame: &Frame<'a>) -> Result<Self, CodecError> {
                let (extension_type, msg_type) =
                    (frame.header.extension_type, frame.header.msg_type);
                $(
                    if extension_type == $message::EXTENSION_TYPE
                        && msg_type == $message::MSG_TYPE
                    {
                        return $message::decode(frame.payload).map(Self::$message);
                    }
                )+
                Ok(Self::Unknown { extension_type, msg_type })
            }

            /// Bytes of the payload up to its last field; nothing for `Unknown`. A frame may have
            /// carried more.
            pub fn payload_length(&self) -> Option<usize> {
                match self {
                    $( Self::$message(message) => Message::payload_length(message), )+
                    Self::Unknown { .. } => None,
                }
            }

            /// Appends the payload of the message, without the frame header; nothing for `Unknown`.
            pub fn encode_payload(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$message(message) => message.encode(out), )+
                    Self::Unknown { .. } => {}
                }
            }
        }
    };
}

direction! {
    /// What a mining server receives.
    ///
    /// The shares come first because they are nearly all of the traffic.
    FromMiner {
        SubmitSharesExtended<'a>,
        SubmitSharesStandard,
        SetupConnection<'a>,
        RequestExtensions<'a>,
        OpenStandardMiningChannel<'a>,
        OpenExtendedMiningChannel<'a>,
        UpdateChannel,
        CloseChannel<'a>,
        SetCustomMiningJob<'a>,
    }
}

direction! {
    /// What a mining server sends.
    ToMiner {
        SubmitSharesSuccess,
        SubmitSharesError<'a>,
        NewMiningJob,
        NewExtendedMiningJob<'a>,
        SetNewPrevHash,
        SetTarget,
        SetupConnectionSuccess,
        SetupConnectionError<'a>,
        ChannelEndpointChanged,
        Reconnect<'a>,
        OpenStandardMiningChannelSuccess<'a>,
        OpenExtendedMiningChannelSuccess<'a>,
        OpenMiningChannelError<'a>,
        UpdateChannelError<'a>,
        CloseChannel<'a>,
        SetExtranoncePrefix<'a>,
        SetCustomMiningJobSuccess,
        SetCustomMiningJobError<'a>,
        SetGroupChannel<'a>,
        RequestExtensionsSuccess<'a>,
        RequestExtensionsError<'a>,
    }
}
