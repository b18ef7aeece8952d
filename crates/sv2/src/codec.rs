//! The data types of SV2 (specification section 3.1), read from a payload and appended to one.
//!
//! The [`Reader`] borrows: what it gives out points into the payload, and it never allocates. The
//! [`Writer`] appends to a buffer that its owner reuses, so that a connection in its steady state
//! does not allocate either. All integers are little-endian.
//!
//! Reading is strict about lengths and liberal about contents: text is bytes (a `user_identity`
//! need not be UTF-8), an F32 may be any bit pattern, a BOOL counts its lowest bit only. What the
//! contents may be is for the caller to judge, because the answer to a bad value is an SV2 error
//! message, while the answer to a bad length is the end of the connection.

use crate::error::CodecError;
use crate::sequence::{U16Sequence, U32Sequence};

/// Longest B0_32, in bytes.
pub const B0_32_MAX: usize = 32;
/// Longest STR0_255 and B0_255, in bytes.
pub const B0_255_MAX: usize = 255;
/// Longest B0_64K, in bytes.
pub const B0_64K_MAX: usize = 65_535;
/// Most values in a SEQ0_255.
pub const SEQ0_255_MAX: usize = 255;
/// Most values in a SEQ0_64K.
pub const SEQ0_64K_MAX: usize = 65_535;
/// Largest U24.
pub const U24_MAX: u32 = 0x00ff_ffff;

/// Takes fields off the front of a payload.
///
/// ```
/// let mut reader = sv2::Reader::new(&[7, 0, 0, 0, 2, b'o', b'k']);
/// assert_eq!(reader.u32(), Ok(7));
/// assert_eq!(reader.str0_255(), Ok(&b"ok"[..]));
/// assert!(reader.u8().is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
    length: usize,
}

/// Saturates: offsets and lengths in errors are for people, and payloads are below 16 MiB.
fn clamp(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl<'a> Reader<'a> {
    /// A reader at the start of `payload`.
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { left: payload, length: payload.len() }
    }

    /// Bytes taken so far.
    pub const fn position(&self) -> usize {
        self.length - self.left.len()
    }

    fn truncated(&self, needed: usize) -> CodecError {
        CodecError::Truncated {
            at: clamp(self.position()),
            needed: clamp(needed),
            left: clamp(self.left.len()),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (taken, left) =
            self.left.split_at_checked(count).ok_or_else(|| self.truncated(count))?;
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], CodecError> {
        let (taken, left) = self.left.split_first_chunk().ok_or_else(|| self.truncated(N))?;
        self.left = left;
        Ok(taken)
    }

    /// `count` arrays of `N` bytes each.
    fn arrays<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]], CodecError> {
        // Count is at most 65 535 and N at most 32, so the product cannot overflow.
        Ok(self.take(count * N)?.as_chunks().0)
    }

    /// U8.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().copied().map(u8::from_le_bytes)
    }

    /// U16.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().copied().map(u16::from_le_bytes)
    }

    /// U24, three bytes.
    pub fn u24(&mut self) -> Result<u32, CodecError> {
        let [low, middle, high] = *self.array()?;
        Ok(u32::from_le_bytes([low, middle, high, 0]))
    }

    /// U32.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().copied().map(u32::from_le_bytes)
    }

    /// U64.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().copied().map(u64::from_le_bytes)
    }

    /// F32, any bit pattern: not-a-number, infinities and negatives included.
    pub fn f32(&mut self) -> Result<f32, CodecError> {
        self.array().copied().map(f32::from_le_bytes)
    }

    /// BOOL: one byte of which only bit 0 has a meaning.
    pub fn bool(&mut self) -> Result<bool, CodecError> {
        Ok(self.u8()? & 1 == 1)
    }

    /// U256, the 32 bytes in wire order (little-endian when read as a number).
    pub fn u256(&mut self) -> Result<&'a [u8; 32], CodecError> {
        self.array()
    }

    /// U256 by value; see [`Reader::u256`].
    pub fn u256_value(&mut self) -> Result<[u8; 32], CodecError> {
        self.array().copied()
    }

    fn short(&mut self, max: usize) -> Result<&'a [u8], CodecError> {
        let at = clamp(self.position());
        let length = usize::from(self.u8()?);
        if length > max {
            return Err(CodecError::TooLong { at, length: clamp(length), max: clamp(max) });
        }
        self.take(length)
    }

    /// B0_32: length byte, then at most 32 bytes.
    pub fn b0_32(&mut self) -> Result<&'a [u8], CodecError> {
        self.short(B0_32_MAX)
    }

    /// B0_255: length byte, then that many bytes.
    pub fn b0_255(&mut self) -> Result<&'a [u8], CodecError> {
        self.short(B0_255_MAX)
    }

    /// STR0_255: as [`Reader::b0_255`]. The bytes need not be UTF-8.
    pub fn str0_255(&mut self) -> Result<&'a [u8], CodecError> {
        self.short(B0_255_MAX)
    }

    /// B0_64K: U16 length, then that many bytes.
    pub fn b0_64k(&mut self) -> Result<&'a [u8], CodecError> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }

    /// SEQ0_255\[U256\]: U8 count, then 32 bytes each.
    pub fn seq0_255_u256(&mut self) -> Result<&'a [[u8; 32]], CodecError> {
        let count = usize::from(self.u8()?);
        self.arrays(count)
    }

    /// SEQ0_64K\[U16\]: U16 count, then 2 bytes each.
    pub fn seq0_64k_u16(&mut self) -> Result<U16Sequence<'a>, CodecError> {
        let count = usize::from(self.u16()?);
        self.arrays(count).map(U16Sequence::from_wire)
    }

    /// SEQ0_64K\[U32\]: U16 count, then 4 bytes each.
    pub fn seq0_64k_u32(&mut self) -> Result<U32Sequence<'a>, CodecError> {
        let count = usize::from(self.u16()?);
        self.arrays(count).map(U32Sequence::from_wire)
    }

    /// OPTION\[U32\]: U8 count 0 or 1, then the value.
    pub fn option_u32(&mut self) -> Result<Option<u32>, CodecError> {
        let at = clamp(self.position());
        match self.u8()? {
            0 => Ok(None),
            1 => self.u32().map(Some),
            count => Err(CodecError::OptionCount { at, count }),
        }
    }

    /// All that is left, such as the TLVs behind a message.
    pub fn rest(&mut self) -> Result<&'a [u8], CodecError> {
        self.take(self.left.len())
    }
}

/// Appends fields to a payload.
///
/// A value too long for its wire type is cut at the type's bound, so that what is written is always
/// well-formed; [`crate::Transport::seal`] notices and refuses the message instead of sending it.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// U8.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// U16.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    /// U24; bits above the lowest 24 are dropped.
    pub fn u24(&mut self, value: u32) {
        let [low, middle, high, _] = value.to_le_bytes();
        self.bytes(&[low, middle, high]);
    }

    /// U32.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// U64.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// F32.
    pub fn f32(&mut self, value: f32) {
        self.bytes(&value.to_le_bytes());
    }

    /// BOOL: one byte, 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// U256, the 32 bytes as they are.
    pub fn u256(&mut self, value: &[u8; 32]) {
        self.bytes(value);
    }

    /// U256 by value; see [`Writer::u256`].
    pub fn u256_value(&mut self, value: [u8; 32]) {
        self.bytes(&value);
    }

    fn short(&mut self, value: &[u8], max: usize) {
        let value = value.get(..max).unwrap_or(value);
        // `max` is at most 255, so the length fits its byte.
        self.u8(u8::try_from(value.len()).unwrap_or(u8::MAX));
        self.bytes(value);
    }

    /// B0_32: length byte, then the bytes.
    pub fn b0_32(&mut self, value: &[u8]) {
        self.short(value, B0_32_MAX);
    }

    /// B0_255: length byte, then the bytes.
    pub fn b0_255(&mut self, value: &[u8]) {
        self.short(value, B0_255_MAX);
    }

    /// STR0_255: length byte, then the bytes.
    pub fn str0_255(&mut self, value: &[u8]) {
        self.short(value, B0_255_MAX);
    }

    /// B0_64K: U16 length, then the bytes.
    pub fn b0_64k(&mut self, value: &[u8]) {
        let value = value.get(..B0_64K_MAX).unwrap_or(value);
        self.u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        self.bytes(value);
    }

    /// SEQ0_255\[U256\]: U8 count, then the values.
    pub fn seq0_255_u256(&mut self, values: &[[u8; 32]]) {
        let values = values.get(..SEQ0_255_MAX).unwrap_or(values);
        self.u8(u8::try_from(values.len()).unwrap_or(u8::MAX));
        self.bytes(values.as_flattened());
    }

    /// SEQ0_64K\[U16\]: U16 count, then the values.
    pub fn seq0_64k_u16(&mut self, values: U16Sequence<'_>) {
        self.u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
        values.iter().take(SEQ0_64K_MAX).for_each(|value| self.u16(value));
    }

    /// SEQ0_64K\[U32\]: U16 count, then the values.
    pub fn seq0_64k_u32(&mut self, values: U32Sequence<'_>) {
        self.u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
        values.iter().take(SEQ0_64K_MAX).for_each(|value| self.u32(value));
    }

    /// OPTION\[U32\]: count byte, then the value if there is one.
    pub fn option_u32(&mut self, value: Option<u32>) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            self.u32(value);
        }
    }

    /// Bytes without a length, behind the last field.
    pub fn rest(&mut self, value: &[u8]) {
        self.bytes(value);
    }
}

/// How many bytes a value takes when nothing of it is cut: one function per wire type, named as the
/// methods of [`Writer`]; and `MAX` of each, the most a field of that type can take.
pub(crate) mod size {
    use super::{B0_32_MAX, B0_64K_MAX, B0_255_MAX, SEQ0_64K_MAX, SEQ0_255_MAX};
    use crate::sequence::{U16Sequence, U32Sequence};
    use std::primitive;

    macro_rules! sizes {
        ($($kind:ident, $type:ty, $value:pat => $bytes:expr, $max:expr;)+) => {
            $(
                pub(crate) mod $kind {
                    #[allow(unused_imports)]
                    use super::*;
                    pub(crate) const MAX: usize = $max;
                    pub(crate) fn of($value: $type) -> usize {
                        $bytes
                    }
                }
            )+
        };
    }

    sizes! {
        u8, primitive::u8, _ => 1, 1;
        u16, primitive::u16, _ => 2, 2;
        u32, primitive::u32, _ => 4, 4;
        u64, primitive::u64, _ => 8, 8;
        f32, primitive::f32, _ => 4, 4;
        bool, primitive::bool, _ => 1, 1;
        u256_value, [primitive::u8; 32], _ => 32, 32;
        b0_32, &[primitive::u8], value => 1 + value.len(), 1 + B0_32_MAX;
        b0_255, &[primitive::u8], value => 1 + value.len(), 1 + B0_255_MAX;
        str0_255, &[primitive::u8], value => 1 + value.len(), 1 + B0_255_MAX;
        b0_64k, &[primitive::u8], value => 2 + value.len(), 2 + B0_64K_MAX;
        seq0_255_u256, &[[primitive::u8; 32]], value => 1 + 32 * value.len(), 1 + 32 * SEQ0_255_MAX;
        seq0_64k_u16, U16Sequence<'_>, value => 2 + 2 * value.len(), 2 + 2 * SEQ0_64K_MAX;
        seq0_64k_u32, U32Sequence<'_>, value => 2 + 4 * value.len(), 2 + 4 * SEQ0_64K_MAX;
        option_u32, Option<primitive::u32>, value => 1 + 4 * usize::from(value.is_some()), 5;
        rest, &[primitive::u8], value => value.len(), 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_round_trips() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.u8(0xfe);
        writer.u16(0x0102);
        writer.u24(0x0a0b_0c0d);
        writer.u32(0xdead_beef);
        writer.u64(1 << 63);
        writer.f32(1.5);
        writer.bool(true);
        writer.u256(&[7; 32]);
        writer.b0_32(&[1; 32]);
        writer.b0_255(&[2; 255]);
        writer.str0_255(b"");
        writer.b0_64k(&[3; 65_535]);
        writer.seq0_255_u256(&[[4; 32]; 255]);
        writer.seq0_64k_u16((&[1u16, 2][..]).into());
        writer.seq0_64k_u32((&[3u32][..]).into());
        writer.option_u32(None);
        writer.option_u32(Some(9));
        writer.rest(b"tail");

        let mut reader = Reader::new(&out);
        assert_eq!(reader.u8(), Ok(0xfe));
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u24(), Ok(0x000b_0c0d));
        assert_eq!(reader.u32(), Ok(0xdead_beef));
        assert_eq!(reader.u64(), Ok(1 << 63));
        assert_eq!(reader.f32(), Ok(1.5));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.u256(), Ok(&[7; 32]));
        assert_eq!(reader.b0_32(), Ok(&[1; 32][..]));
        assert_eq!(reader.b0_255(), Ok(&[2; 255][..]));
        assert_eq!(reader.str0_255(), Ok(&[][..]));
        assert_eq!(reader.b0_64k(), Ok(&[3; 65_535][..]));
        assert_eq!(reader.seq0_255_u256(), Ok(&[[4; 32]; 255][..]));
        assert_eq!(reader.seq0_64k_u16(), Ok(U16Sequence::new(&[1, 2])));
        assert_eq!(reader.seq0_64k_u32(), Ok(U32Sequence::new(&[3])));
        assert_eq!(reader.option_u32(), Ok(None));
        assert_eq!(reader.option_u32(), Ok(Some(9)));
        assert_eq!(reader.rest(), Ok(&b"tail"[..]));
        assert_eq!(reader.position(), out.len());
    }

    #[test]
    fn bad_lengths_say_where_and_how_much() {
        let long = [0, 33];
        let mut reader = Reader::new(&long);
        assert_eq!(reader.u8(), Ok(0));
        assert_eq!(reader.b0_32(), Err(CodecError::TooLong { at: 1, length: 33, max: 32 }));

        let mut reader = Reader::new(&[2, 0, 0]);
        assert_eq!(reader.option_u32(), Err(CodecError::OptionCount { at: 0, count: 2 }));

        let mut reader = Reader::new(&[255, 255, 1]);
        let truncated = CodecError::Truncated { at: 2, needed: 65_535, left: 1 };
        assert_eq!(reader.b0_64k(), Err(truncated));

        // 65 535 values are claimed and none sent: refused without reserving anything.
        let mut reader = Reader::new(&[255, 255]);
        assert!(reader.seq0_64k_u32().is_err());
    }

    #[test]
    fn only_bit_zero_of_a_bool_counts() {
        assert_eq!(Reader::new(&[0xfe]).bool(), Ok(false));
        assert_eq!(Reader::new(&[0xff]).bool(), Ok(true));
    }

    #[test]
    fn too_long_values_are_cut_to_stay_well_formed() {
        let mut out = Vec::new();
        Writer::new(&mut out).b0_32(&[1; 40]);
        Writer::new(&mut out).b0_64k(&vec![2; 70_000]);
        Writer::new(&mut out).seq0_64k_u16((&vec![3u16; 70_000][..]).into());
        let mut reader = Reader::new(&out);
        assert_eq!(reader.b0_32(), Ok(&[1; 32][..]));
        assert_eq!(reader.b0_64k().unwrap().len(), 65_535);
        assert_eq!(reader.seq0_64k_u16().unwrap().len(), 65_535);
        assert_eq!(reader.rest(), Ok(&[][..]));
    }
}
