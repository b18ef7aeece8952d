//! What can go wrong here, as small values without strings.
//!
//! Each error says what was wrong, where, and what was expected; the caller adds which connection
//! it was. All are `Copy`, so that they cost nothing on the path of a hostile peer.

use std::error::Error;
use std::fmt;

/// A payload that does not follow the layout of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The payload ends inside a field: `needed` bytes were expected at offset `at`, `left` remain.
    Truncated {
        /// Offset in the payload, in bytes, where the field starts.
        at: u32,
        /// Bytes the field needs from there.
        needed: u32,
        /// Bytes that are there.
        left: u32,
    },
    /// A length prefix claims more than the type of its field allows (B0_32 above 32).
    TooLong {
        /// Offset in the payload, in bytes, of the length prefix.
        at: u32,
        /// Claimed length, in bytes.
        length: u32,
        /// Most bytes the type allows.
        max: u32,
    },
    /// An OPTION field counts something other than 0 or 1 values.
    OptionCount {
        /// Offset in the payload, in bytes, of the count.
        at: u32,
        /// The count that was sent.
        count: u8,
    },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { at, needed, left } => write!(
                f,
                "payload ends inside a field: {needed} bytes expected at offset {at}, {left} left"
            ),
            Self::TooLong { at, length, max } => {
                write!(f, "field at offset {at} claims {length} bytes, its type allows {max}")
            }
            Self::OptionCount { at, count } => {
                write!(f, "OPTION at offset {at} counts {count} values, expected 0 or 1")
            }
        }
    }
}

impl Error for CodecError {}

/// Why a sealed stream cannot go on, or a message could not be sealed.
///
/// Every error of [`crate::Transport::open`] is final for that connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// A header or a chunk failed authentication: corruption, tampering, or a lost byte.
    DecryptFailed,
    /// A header announces a payload above the ceiling of its type; nothing of it was buffered.
    FrameTooLarge {
        /// Extension the frame belongs to, without the channel bit.
        extension_type: u16,
        /// Message type in that extension.
        msg_type: u8,
        /// Announced payload length, in bytes.
        length: u32,
        /// Ceiling for this type, in bytes.
        max: u32,
    },
    /// This direction has used all the nonces it may use; the connection has to be made anew.
    NonceExhausted,
    /// An outgoing payload does not fit the U24 length of a frame.
    PayloadTooLong {
        /// Length of the payload, in bytes.
        length: usize,
    },
    /// A field of an outgoing message is longer than its wire type; nothing was sealed.
    FieldTooLong {
        /// Message type of the message.
        msg_type: u8,
        /// Bytes the message would need.
        length: usize,
        /// Bytes its wire types can hold of it.
        encoded: usize,
    },
    /// The transport has failed before; an opened stream does not resume.
    Closed,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DecryptFailed => f.write_str("a sealed header or chunk failed authentication"),
            Self::FrameTooLarge { extension_type, msg_type, length, max } => write!(
                f,
                "frame of type {msg_type:#04x} in extension {extension_type:#06x} announces \
                 {length} payload bytes, at most {max} are accepted"
            ),
            Self::NonceExhausted => f.write_str("no nonces left in this direction; reconnect"),
            Self::PayloadTooLong { length } => {
                write!(f, "payload of {length} bytes does not fit a frame (at most 16777215)")
            }
            Self::FieldTooLong { msg_type, length, encoded } => write!(
                f,
                "message of type {msg_type:#04x} has a field too long for its wire type: \
                 {length} bytes needed, {encoded} fit"
            ),
            Self::Closed => f.write_str("the transport failed before and stays closed"),
        }
    }
}

impl Error for TransportError {}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseError {
    /// A message of the peer failed authentication: wrong keys, corruption, or another protocol.
    DecryptFailed,
    /// The key exchange failed: a secret key was out of range.
    KeyExchange,
    /// The handshake could not be set up or driven. It names a defect here and not in the peer.
    Protocol,
    /// The certificate is not signed by the expected authority key.
    CertificateSignature,
    /// The certificate is not valid yet.
    CertificateNotYetValid {
        /// First second of validity, unix time.
        valid_from: u32,
        /// The time it was checked at, unix time.
        now: u32,
    },
    /// The certificate is no longer valid.
    CertificateExpired {
        /// Last second of validity, unix time.
        not_valid_after: u32,
        /// The time it was checked at, unix time.
        now: u32,
    },
}

impl fmt::Display for NoiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DecryptFailed => f.write_str("a handshake message failed authentication"),
            Self::KeyExchange => f.write_str("the key exchange failed: secret key out of range"),
            Self::Protocol => f.write_str("the handshake could not be driven to its end"),
            Self::CertificateSignature => f.write_str(
                "the server's certificate is not signed by the expected authority key; check the \
                 key in the connection address",
            ),
            Self::CertificateNotYetValid { valid_from, now } => write!(
                f,
                "the server's certificate is valid from {valid_from}, it is {now} (unix time); \
                 check both clocks"
            ),
            Self::CertificateExpired { not_valid_after, now } => write!(
                f,
                "the server's certificate was valid until {not_valid_after}, it is {now} (unix \
                 time); the server has to renew it"
            ),
        }
    }
}

impl Error for NoiseError {}

/// Why a key text or key bytes were refused. Never carries any part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The text holds a character outside the base58 alphabet.
    NotBase58 {
        /// Index of the character in the text, from 0.
        index: usize,
    },
    /// The base58check checksum does not match: a typing or copying error.
    Checksum,
    /// The text decodes to another number of bytes than this kind of key has.
    Length {
        /// Bytes found, the checksum excluded; 0 when the text is far too long or far too short.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// The version of a public key is not 1.
    Version {
        /// The version that was found (U16, little-endian in the text).
        found: u16,
    },
    /// The 32 bytes are not the x coordinate of a point on secp256k1.
    NotOnCurve,
    /// The 32 bytes are not a secret key of secp256k1 (0, or not below the group order).
    SecretOutOfRange,
    /// The ElligatorSwift encoding does not encode the public key of the secret key beside it.
    EncodingMismatch,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBase58 { index } => {
                write!(f, "key text: character {index} is not a base58 character")
            }
            Self::Checksum => f.write_str("key text: the checksum does not match, copy it again"),
            Self::Length { found: 0, expected } => {
                write!(f, "key text: not of the length of a key of {expected} bytes")
            }
            Self::Length { found, expected } => write!(
                f,
                "key text: decodes to {found} bytes, expected {expected} (a public key has 34, \
                 a secret key 32)"
            ),
            Self::Version { found } => {
                write!(f, "key text: version {found}, expected 1 (first bytes 01 00)")
            }
            Self::NotOnCurve => f.write_str("key: not the x coordinate of a secp256k1 point"),
            Self::SecretOutOfRange => f.write_str("key: not a secp256k1 secret key"),
            Self::EncodingMismatch => {
                f.write_str("key: the ElligatorSwift encoding is of another public key")
            }
        }
    }
}

impl Error for KeyError {}
