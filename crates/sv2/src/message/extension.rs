//! Extensions: their negotiation (extension 0x0001) and the worker identity that extension 0x0002
//! puts behind `SubmitSharesExtended`.

use crate::message::{EXTENSION_NEGOTIATION, EXTENSION_WORKER};
use crate::sequence::U16Sequence;

/// Longest worker identity of extension 0x0002, in bytes.
pub const USER_IDENTITY_MAX: usize = 32;

/// Field of extension 0x0002 that holds the worker identity.
const USER_IDENTITY_FIELD: u8 = 0x01;

/// Bytes before the value of a TLV: extension U16, field U8, length U16.
const TLV_HEADER_BYTES: usize = 5;

message! {
    /// The miner asks which of these extensions the server supports.
    RequestExtensions<'a> = (EXTENSION_NEGOTIATION, 0x00, false) {
        /// Echoed in the answer.
        request_id: u16 = u16,
        /// Extension types asked for.
        requested_extensions: U16Sequence<'a> = seq0_64k_u16,
    }
}

message! {
    /// These of the requested extensions are in use from now on.
    RequestExtensionsSuccess<'a> = (EXTENSION_NEGOTIATION, 0x01, false) {
        /// Echo of the request.
        request_id: u16 = u16,
        /// Requested and supported extension types.
        supported_extensions: U16Sequence<'a> = seq0_64k_u16,
    }
}

message! {
    /// None of the requested extensions is supported, or a required one was not requested.
    RequestExtensionsError<'a> = (EXTENSION_NEGOTIATION, 0x02, false) {
        /// Echo of the request.
        request_id: u16 = u16,
        /// Requested extension types that are not supported.
        unsupported_extensions: U16Sequence<'a> = seq0_64k_u16,
        /// Extension types the server insists on.
        required_extensions: U16Sequence<'a> = seq0_64k_u16,
    }
}

/// Finds the worker identity of extension 0x0002 among the TLVs behind a `SubmitSharesExtended`.
///
/// The specification prints type and length big-endian, the reference implementation writes them
/// little-endian like all of SV2. Both are read; the type's bytes tell them apart. TLVs of other
/// kinds are skipped. `None` when there is none or it is malformed: a share never fails by it.
pub fn user_identity(mut tlv: &[u8]) -> Option<&[u8]> {
    // Every turn takes at least 5 bytes, and a payload has a ceiling, so this ends soon.
    while let Some((&[e0, e1, field, l0, l1], rest)) = tlv.split_first_chunk::<TLV_HEADER_BYTES>() {
        let big_endian = [e0, e1] == EXTENSION_WORKER.to_be_bytes();
        let little_endian = [e0, e1] == EXTENSION_WORKER.to_le_bytes();
        let length =
            if big_endian { u16::from_be_bytes([l0, l1]) } else { u16::from_le_bytes([l0, l1]) };
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        if (big_endian || little_endian) && field == USER_IDENTITY_FIELD {
            return (value.len() <= USER_IDENTITY_MAX).then_some(value);
        }
        tlv = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_identity_in_either_byte_order() {
        let big = [&[0x00, 0x02, 0x01, 0x00, 0x0a][..], b"Worker_001"].concat();
        let little = [&[0x02, 0x00, 0x01, 0x0a, 0x00][..], b"Worker_001"].concat();
        assert_eq!(user_identity(&big), Some(&b"Worker_001"[..]));
        assert_eq!(user_identity(&little), Some(&b"Worker_001"[..]));

        let behind_another = [&[0x03, 0x40, 0x07, 0x02, 0x00, 9, 9][..], &little].concat();
        assert_eq!(user_identity(&behind_another), Some(&b"Worker_001"[..]));
    }

    #[test]
    fn malformed_or_absent_identity_is_none() {
        let good = [0x02, 0x00, 0x01, 0x02, 0x00, b'a', b'b'];
        for end in 0..good.len() {
            assert_eq!(user_identity(&good[..end]), None, "cut at {end}");
        }
        let mut long = vec![0x02, 0x00, 0x01, 33, 0x00];
        long.extend([b'x'; 33]);
        assert_eq!(user_identity(&long), None);
        assert_eq!(user_identity(&[0x02, 0x00, 0x07, 0x00, 0x00]), None);
    }
}
