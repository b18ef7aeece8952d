//! What is known of a node, and the work of its chain.

use std::fmt;

/// Hexadecimal digits of a chain's work.
const WORK_DIGITS: usize = 64;

/// The work of a whole chain: expected hashes, a number of 256 bits, most significant byte first,
/// so that the order of the bytes is the order of the numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ChainWork(
    /// 32 bytes.
    pub [u8; 32],
);

impl ChainWork {
    /// `chainwork` as a node writes it: 64 hexadecimal digits.
    ///
    /// # Errors
    /// A sentence for any other text.
    pub fn parse(text: &str) -> Result<ChainWork, String> {
        let bytes = work::contract::bytes::decode(text).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(ChainWork).ok_or_else(|| {
            let start: String = text.chars().take(WORK_DIGITS + 1).collect();
            format!("chainwork is \"{start}\"; expected {WORK_DIGITS} hexadecimal digits")
        })
    }
}

impl fmt::Debug for ChainWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&work::contract::bytes::encode(&self.0))
    }
}

/// Whether a node can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// It has not been looked at yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not answer, or gives no templates.
    Lost {
        /// What went wrong, in words.
        why: String,
    },
    /// It answers, but is on another chain or wants more than is known here.
    Refused {
        /// Why, in words.
        why: String,
    },
}

impl NodeState {
    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            NodeState::Unknown => "unknown",
            NodeState::Up => "up",
            NodeState::Lost { .. } => "lost",
            NodeState::Refused { .. } => "refused",
        }
    }
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStanding {
    /// Whether it can be used.
    pub state: NodeState,
    /// Whether its templates are the ones that go out.
    pub is_in_use: bool,
    /// Height of its tip when it last told.
    pub height: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_a_number_of_256_bits() {
        let work = |text: &str| ChainWork::parse(&format!("{text:0>64}"));
        assert!(work("ff").unwrap() < work("100").unwrap());
        let most = "f".repeat(64);
        assert_eq!(ChainWork::parse(&most).unwrap(), ChainWork([0xff; 32]));
        for wrong in ["", "ff", &"g".repeat(64), &"f".repeat(65), &"f".repeat(66)] {
            assert!(ChainWork::parse(wrong).unwrap_err().contains("64 hexadecimal"), "{wrong}");
        }
    }
}
