//! The Stratum V2 wire protocol: bytes in, messages out. No Bitcoin, no IO, no clock, no entropy.
//!
//! Read in this order: [`codec`] turns payload bytes into field values and back; [`frame`] is the
//! 6-byte header and the limits on what follows it; [`message`] holds one struct per message and
//! one enum per direction; [`noise`] is the handshake that proves who the server is; [`transport`]
//! seals and opens frames after it.
//!
//! ```text
//!  socket bytes ─► Transport::open ─► Frame ─► FromMiner::decode ─► struct
//!  socket bytes ◄─ Transport::seal ◄──────────────────────────────── struct
//! ```
//!
//! Covered: SV2 specification sections 3 (framing and types), 4 (Noise NX handshake and
//! transport), 5 (mining protocol), the common messages, and extension 0x0001 (negotiation) with
//! the TLV of 0x0002 (worker identity). Not covered: the Job Declaration and Template
//! Distribution sub-protocols.
//!
//! Nothing that a peer sends can panic here, and nothing allocates by a length that a peer claims:
//! decoding borrows from the input, opening decrypts in place, and a frame is refused at its header
//! when it is longer than its type allows.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod codec;
pub mod error;
pub mod frame;
pub mod message;
pub mod noise;
pub mod sequence;
pub mod transport;

pub use codec::{Reader, Writer};
pub use error::{CodecError, KeyError, NoiseError, TransportError};
pub use frame::{
    CHUNK_PLAINTEXT_MAX, Frame, FrameHeader, HEADER_BYTES, MAC_BYTES, SEALED_HEADER_BYTES,
    inbound_payload_max, outbound_payload_max, sealed_length,
};
pub use message::{FromMiner, Message, ToMiner};
pub use noise::{
    ACT1_BYTES, ACT2_BYTES, AuthorityKey, AuthorityPublicKey, Certificate, Ephemeral, Identity,
    Initiator, StaticKey, respond,
};
pub use sequence::{U16Sequence, U32Sequence};
pub use transport::{Opened, Transport};
