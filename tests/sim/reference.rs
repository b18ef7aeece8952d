//! The reference: what a share, a root and a target are, derived slowly and obviously, without
//! the code that is under test.

use sha2::{Digest, Sha256};
use work::contract::verifier::TemplatePropose;

/// SHA-256 of SHA-256.
pub fn sha256d(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

/// The merkle root of a proposal's coinbase with `extranonce` in the hole.
pub fn root(proposal: &TemplatePropose, extranonce: &[u8]) -> [u8; 32] {
    let coinbase = [&proposal.coinbase.prefix.0, extranonce, &proposal.coinbase.suffix.0].concat();
    let mut node = sha256d(&coinbase);
    for sibling in &proposal.merkle_path {
        node = sha256d(&[node, sibling.0].concat());
    }
    node
}

/// The merkle root over whole lists of hashes, the coinbase's first.
pub fn whole_root(mut level: Vec<[u8; 32]>) -> [u8; 32] {
    while level.len() > 1 {
        if level.len() % 2 == 1 {
            level.push(level[level.len() - 1]);
        }
        level = level.chunks(2).map(|pair| sha256d(&pair.concat())).collect();
    }
    level[0]
}

/// A header's 80 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    pub prev_hash: [u8; 32],
    pub root: [u8; 32],
    pub ntime: u32,
    pub nbits: u32,
    pub nonce: u32,
}

impl Header {
    pub fn bytes(&self) -> [u8; 80] {
        let bytes = [
            &self.version.to_le_bytes()[..],
            &self.prev_hash,
            &self.root,
            &self.ntime.to_le_bytes(),
            &self.nbits.to_le_bytes(),
            &self.nonce.to_le_bytes(),
        ]
        .concat();
        bytes.try_into().unwrap()
    }

    pub fn hash(&self) -> [u8; 32] {
        sha256d(&self.bytes())
    }

    /// Whether it is a block under its own bits.
    pub fn is_block(&self) -> bool {
        is_at_most(&self.hash(), &target_of(self.nbits))
    }
}

/// The 256-bit target that compact bits stand for, least significant byte first.
pub fn target_of(nbits: u32) -> [u8; 32] {
    let mut target = [0; 32];
    let exponent = (nbits >> 24) as usize;
    for (place, byte) in (nbits & 0x007f_ffff).to_le_bytes()[..3].iter().enumerate() {
        target[exponent - 3 + place] = *byte;
    }
    target
}

/// The target of difficulty `2^-bits`: `0xffff << (208 + bits)`, least significant byte first.
pub fn share_target(bits: u32) -> [u8; 32] {
    let mut target = [0; 32];
    for bit in 0..16 {
        let at = (208 + bits + bit) as usize;
        target[at / 8] |= 1 << (at % 8);
    }
    target
}

/// How many shares may still be sent: a bucket that holds ten minutes of the goal, at least 64
/// shares, and refills at ten times the goal.
#[derive(Debug, Default)]
pub struct Bucket {
    /// Nanoseconds of refill that are owed, and since when.
    owed: u64,
    at: u64,
}

impl Bucket {
    /// Whether a share at `micros` is within the rate of `pace` shares a minute.
    pub fn take(&mut self, micros: u64, pace: u64) -> bool {
        let share = 60_000_000_000 / (10 * pace);
        let nanos = micros * 1_000;
        self.owed = self.owed.saturating_sub(nanos - self.at);
        self.at = nanos;
        let is_within = self.owed + share <= (10 * pace).max(64) * share;
        self.owed += if is_within { share } else { 0 };
        is_within
    }
}

/// Whether `hash` is at most `target`, both least significant byte first.
pub fn is_at_most(hash: &[u8; 32], target: &[u8; 32]) -> bool {
    for place in (0..32).rev() {
        if hash[place] != target[place] {
            return hash[place] < target[place];
        }
    }
    true
}
