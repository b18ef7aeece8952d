//! Double SHA-256 and the four kinds of 32-byte hash, which are not interchangeable.
//!
//! Inside, every hash is in internal byte order: the order in which SHA-256 gave the bytes, and
//! the order on the SV2 wire and in a block. As text (`Display`, `FromStr`, JSON) every hash is
//! in RPC order, the reverse, as `bitcoin-cli` prints it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// SHA-256 of SHA-256 of `bytes`.
pub fn sha256d(bytes: &[u8]) -> [u8; 32] {
    finish_double(Sha256::new_with_prefix(bytes))
}

/// The second of the two hashes, for a first one that was fed in parts.
pub fn finish_double(first: Sha256) -> [u8; 32] {
    Sha256::digest(first.finalize()).into()
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashTextError;

impl fmt::Display for HashTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hash is 64 hexadecimal digits, in the order bitcoin-cli prints them")
    }
}

impl std::error::Error for HashTextError {}

fn parse_reversed(text: &str) -> Result<[u8; 32], HashTextError> {
    let mut bytes = [0u8; 32];
    if text.len() != 64 || faster_hex::hex_decode(text.as_bytes(), &mut bytes).is_err() {
        return Err(HashTextError);
    }
    bytes.reverse();
    Ok(bytes)
}

macro_rules! hash_kind {
    ($(#[$page:meta])* $name:ident) => {
        $(#[$page])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(
            /// 32 bytes in internal order.
            pub [u8; 32],
        );

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0.iter().rev() {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = HashTextError;
            fn from_str(text: &str) -> Result<Self, HashTextError> {
                parse_reversed(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut reversed = self.0;
                reversed.reverse();
                let mut text = [0u8; 64];
                let text = faster_hex::hex_encode(&reversed, &mut text)
                    .map_err(serde::ser::Error::custom)?;
                serializer.serialize_str(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_kind!(
    /// Hash of an 80-byte block header.
    BlockHash
);
hash_kind!(
    /// Hash of a transaction without its witness (BIP141).
    Txid
);
hash_kind!(
    /// Hash of a transaction with its witness (BIP141).
    Wtxid
);
hash_kind!(
    /// A node of a merkle tree: the root, or one step of a path.
    MerkleNode
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genesis_header_hashes_to_the_known_block() {
        let text = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3\
                    edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d\
                    1dac2b7c";
        let mut header = [0u8; 80];
        faster_hex::hex_decode(text.as_bytes(), &mut header).unwrap();
        let hash = BlockHash(sha256d(&header));
        let known = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
        assert_eq!(hash.to_string(), known);
        assert_eq!(known.parse::<BlockHash>().unwrap(), hash);
        assert_eq!(serde_json::to_string(&hash).unwrap(), format!("\"{known}\""));
    }

    #[test]
    fn bad_text_is_refused() {
        for text in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert_eq!(text.parse::<Txid>(), Err(HashTextError));
        }
    }
}
