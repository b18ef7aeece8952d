//! The layout of a file of the journal: header, groups, frames, and positions in them.
//!
//! ```text
//! 0     segment header, zeros to 512
//! 512   group header 40 bytes, records, zeros to the next multiple of 512
//!       group header …
//! ```
//!
//! All numbers are little endian. A group is what one write and one sync carry; a group is
//! written only after the one before it is on disk, so a valid header of a group proves that
//! everything before it was. A record begins at a multiple of 4, thus at any place where one may
//! begin four bytes can be read: zero (nothing more before the next multiple of 512), the mark of a
//! group, or the length of a record.
//!
//! A segment says where the one before it ends ([`Header::previous`]): behind that position there
//! can be a group whose sync failed, which was put again into the new segment. Readers stop there.

use work::UnixTime;

/// Bytes of a segment at most, unless one record alone needs more.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// Headers of segments and groups begin at multiples of this many bytes: what a disk writes whole.
pub const SECTOR_BYTES: u64 = 512;

/// Records begin at multiples of this many bytes.
pub const RECORD_ALIGNMENT: u64 = 4;

/// Bytes of a group's header.
pub const GROUP_HEADER_BYTES: usize = 40;

/// First four bytes of a group, as a number: more than any record's length, and no UTF-8, so that
/// no text that somebody sent can pass for it.
pub const GROUP_MAGIC: u32 = u32::from_le_bytes([0xff, b'R', b'G', 0xfe]);

/// Longest name of a gateway, bytes.
pub const GATEWAY_ID_BYTES_MAX: usize = 64;

/// First bytes of a segment.
const MAGIC: [u8; 8] = *b"RGJOURN1";

/// Of the layout.
const VERSION: u32 = 1;

/// Where the checksum of a header stands, in a segment's and in a group's.
const SEGMENT_CHECKSUM_AT: usize = 12;
const GROUP_CHECKSUM_AT: usize = 4;

/// Where the header of a segment holds the length of the gateway's name.
const NAME_AT: usize = 56;

/// A place in the journal: the header of a group or the frame of a record, or the end of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Number of the segment, from 1.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} offset {}", file_name(self.segment), self.offset)
    }
}

/// Name of the file of segment `number`.
pub fn file_name(number: u64) -> String {
    format!("{number:010}.journal")
}

/// Name of the file with the index of segment `number`.
pub fn index_name(number: u64) -> String {
    format!("{number:010}.index")
}

/// The number in a segment's file name; `None` for any other name.
pub fn file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".journal")?;
    let number = digits.parse().ok()?;
    (number > 0 && file_name(number) == name).then_some(number)
}

/// `offset`, or the next multiple of `step` behind it; the largest if there is none.
pub fn round_up(offset: u64, step: u64) -> u64 {
    offset.checked_next_multiple_of(step).unwrap_or(u64::MAX - u64::MAX % step)
}

/// Why a header is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFault {
    /// Fewer bytes than it has.
    Short,
    /// It begins with other bytes.
    Magic,
    /// Of a layout that this program does not know.
    Version(u32),
    /// Its checksum does not fit.
    Checksum,
    /// A length in it is impossible, or a name in it is no UTF-8.
    Value,
}

impl std::fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeaderFault::Short => f.write_str("the file ends within a header"),
            HeaderFault::Magic => f.write_str("a header was expected, other bytes stand there"),
            HeaderFault::Version(found) => write!(
                f,
                "layout version {found}, this program knows {VERSION}: read the journal with the \
                 program that wrote it, or a newer one"
            ),
            HeaderFault::Checksum => f.write_str("the checksum of a header does not fit"),
            HeaderFault::Value => f.write_str("a header holds an impossible value"),
        }
    }
}

impl std::error::Error for HeaderFault {}

/// Header of a segment: `magic 8 | version u32 | crc32c u32 | number u64 | first_event_id u64 |
/// created_at u64 | previous segment u64 | previous offset u64 | length u8 | gateway_id`, zeros to
/// 512. The checksum covers all 512 bytes but itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Number of the segment, from 1.
    pub segment: u64,
    /// First event number that can stand in it.
    pub first_event_id: u64,
    /// When it was begun.
    pub created_at: UnixTime,
    /// Where the log ends that this segment goes on with; both 0 in the first of a journal.
    pub previous: Position,
    /// Whose journal it is; at most 64 bytes.
    pub gateway_id: String,
}

impl Header {
    /// Bytes of a segment's header.
    pub const BYTES: usize = SECTOR_BYTES as usize;

    /// The header as bytes. A longer name of the gateway is cut.
    pub fn encode(&self) -> [u8; Header::BYTES] {
        let mut bytes = [0; Header::BYTES];
        let numbers = [
            self.segment,
            self.first_event_id,
            self.created_at.0,
            self.previous.segment,
            self.previous.offset,
        ];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (place, number) in bytes[16..NAME_AT].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let name = self.gateway_id.as_bytes();
        let name = &name[..self.gateway_id.floor_char_boundary(GATEWAY_ID_BYTES_MAX)];
        bytes[NAME_AT] = name.len() as u8;
        bytes[NAME_AT + 1..][..name.len()].copy_from_slice(name);
        seal(&mut bytes, SEGMENT_CHECKSUM_AT);
        bytes
    }

    /// The header at the start of `bytes`.
    ///
    /// # Errors
    /// See [`HeaderFault`].
    pub fn decode(bytes: &[u8]) -> Result<Header, HeaderFault> {
        let bytes = bytes.first_chunk::<{ Header::BYTES }>().ok_or(HeaderFault::Short)?;
        if bytes[..8] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        check(bytes, SEGMENT_CHECKSUM_AT)?;
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        let length = usize::from(bytes[NAME_AT]);
        if length > GATEWAY_ID_BYTES_MAX {
            return Err(HeaderFault::Value);
        }
        let name = std::str::from_utf8(&bytes[NAME_AT + 1..][..length]);
        Ok(Header {
            segment: u64_at(bytes, 16),
            first_event_id: u64_at(bytes, 24),
            created_at: UnixTime(u64_at(bytes, 32)),
            previous: Position { segment: u64_at(bytes, 40), offset: u64_at(bytes, 48) },
            gateway_id: name.map_err(|_| HeaderFault::Value)?.to_owned(),
        })
    }
}

/// Header of a group: `magic u32 | crc32c u32 | payload length u32 | 0 u32 | number u64 |
/// first_event_id u64 | at u64`. The checksum covers the header but itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupHeader {
    /// Bytes of its records, without this header and the zeros behind them.
    pub length: u32,
    /// Counts the groups of a segment from 1.
    pub number: u64,
    /// `event_id` of its first record.
    pub first_event_id: u64,
    /// When its first record was appended.
    pub at: UnixTime,
}

impl GroupHeader {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        bytes[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_event_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.at.0.to_le_bytes());
        seal(&mut bytes, GROUP_CHECKSUM_AT);
        bytes
    }

    /// The header at the start of `bytes`.
    ///
    /// # Errors
    /// See [`HeaderFault`].
    pub fn decode(bytes: &[u8]) -> Result<GroupHeader, HeaderFault> {
        let bytes = bytes.first_chunk::<GROUP_HEADER_BYTES>().ok_or(HeaderFault::Short)?;
        if u32_at(bytes, 0) != GROUP_MAGIC {
            return Err(HeaderFault::Magic);
        }
        check(bytes, GROUP_CHECKSUM_AT)?;
        if u32_at(bytes, 12) != 0 {
            return Err(HeaderFault::Value);
        }
        Ok(GroupHeader {
            length: u32_at(bytes, 8),
            number: u64_at(bytes, 16),
            first_event_id: u64_at(bytes, 24),
            at: UnixTime(u64_at(bytes, 32)),
        })
    }

    /// Bytes from this header to the next group.
    pub fn whole_bytes(&self) -> u64 {
        round_up(GROUP_HEADER_BYTES as u64 + u64::from(self.length), SECTOR_BYTES)
    }
}

/// CRC32C of `bytes` without the four at `hole`.
fn checksum(bytes: &[u8], hole: usize) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..hole]), &bytes[hole + 4..])
}

fn seal(bytes: &mut [u8], hole: usize) {
    let checksum = checksum(bytes, hole);
    bytes[hole..hole + 4].copy_from_slice(&checksum.to_le_bytes());
}

fn check(bytes: &[u8], hole: usize) -> Result<(), HeaderFault> {
    let fits = u32_at(bytes, hole) == checksum(bytes, hole);
    fits.then_some(()).ok_or(HeaderFault::Checksum)
}

/// The number at `at`; 0 if `bytes` end before it does.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(number.copied().unwrap_or_default())
}

/// The number at `at`; 0 if `bytes` end before it does.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(number.copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            segment: 7,
            first_event_id: 1_000,
            created_at: UnixTime(1_700_000_000_000),
            previous: Position { segment: 6, offset: 4_096 },
            gateway_id: "rack-é".to_owned(),
        }
    }

    #[test]
    fn names_are_numbers() {
        assert_eq!(file_name(12), "0000000012.journal");
        assert_eq!(index_name(12), "0000000012.index");
        assert_eq!(file_number(&file_name(u64::MAX)), Some(u64::MAX));
        for name in ["0000000000.journal", "12.journal", "0000000012.index", "+000000012.journal"] {
            assert_eq!(file_number(name), None, "{name}");
        }
    }

    #[test]
    fn headers_come_back_and_no_flipped_byte_passes() {
        let group = GroupHeader { length: 77, number: 3, first_event_id: 9, at: UnixTime(1 << 41) };
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
        assert_eq!(GroupHeader::decode(&group.encode()), Ok(group));
        for at in 0..Header::BYTES {
            let mut bytes = header().encode();
            bytes[at] ^= 0x40;
            assert!(Header::decode(&bytes).is_err(), "byte {at}");
            assert_eq!(Header::decode(&bytes[..at]), Err(HeaderFault::Short));
        }
        for at in 0..GROUP_HEADER_BYTES {
            let mut bytes = group.encode();
            bytes[at] ^= 1;
            assert!(GroupHeader::decode(&bytes).is_err(), "byte {at}");
            assert_eq!(GroupHeader::decode(&bytes[..at]), Err(HeaderFault::Short));
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = Header { gateway_id: "é".repeat(40) + "x", ..header() };
        let cut = Header::decode(&long.encode()).unwrap().gateway_id;
        assert_eq!(cut, "é".repeat(32));
    }

    #[test]
    fn rounding_saturates() {
        assert_eq!([0, 1, 512, 513].map(|offset| round_up(offset, 512)), [0, 512, 512, 1_024]);
        assert_eq!(round_up(u64::MAX, 512), u64::MAX - 511);
    }
}
