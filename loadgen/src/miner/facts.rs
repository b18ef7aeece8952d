//! Counters of one miner over all its connections.

use std::collections::VecDeque;

use work::{BlockHash, Mono, Target};

use super::error::Code;
use super::event::Prefix;

/// Different error codes counted by name; shares refused with further ones count as `other`.
pub const CODES_MAX: usize = 16;

/// Tips remembered, newest last.
pub const TIPS_KEPT: usize = 8;

/// A tip this miner was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenTip {
    /// The parent.
    pub prev_hash: BlockHash,
    /// When the `SetNewPrevHash` of the last of its channels came.
    pub at: Mono,
}

/// Refused shares by the server's code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejects {
    codes: Vec<(Code, u64)>,
    /// Refused with codes beyond the first [`CODES_MAX`] different ones.
    pub other: u64,
}

impl Rejects {
    pub(crate) fn count(&mut self, code: Code) {
        if let Some((_, count)) = self.codes.iter_mut().find(|(known, _)| *known == code) {
            *count += 1;
        } else if self.codes.len() < CODES_MAX {
            self.codes.push((code, 1));
        } else {
            self.other += 1;
        }
    }

    /// Each code with its count, in the order of first appearance.
    pub fn codes(&self) -> &[(Code, u64)] {
        &self.codes
    }

    /// All refused shares.
    pub fn total(&self) -> u64 {
        self.other + self.codes.iter().map(|(_, count)| count).sum::<u64>()
    }

    /// Shares refused with `code`.
    pub fn of(&self, code: &str) -> u64 {
        self.codes.iter().find(|(known, _)| known.as_str() == code).map_or(0, |(_, count)| *count)
    }
}

/// What a miner has seen and done since it was made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MinerReport {
    /// Times it was connected.
    pub connections: u64,
    /// Times a channel was opened.
    pub channels_opened: u64,
    /// Channels that the server closed while others were open.
    pub channels_closed: u64,
    /// Shares sent, fake ones included.
    pub submitted: u64,
    /// Shares sent by `submit_fake`.
    pub fakes_submitted: u64,
    /// Shares accepted: the counts of all `SubmitShares.Success`.
    pub accepted: u64,
    /// The sums of all `SubmitShares.Success`, in whole difficulties.
    pub accepted_sum: u64,
    /// Shares refused.
    pub rejects: Rejects,
    /// Shares sent and not answered yet.
    pub outstanding: usize,
    /// Shares whose connection ended before they were answered.
    pub unanswered: u64,
    /// Shares that meet the bits of their tip.
    pub blocks_found: u64,
    /// Headers hashed.
    pub hashes: u64,
    /// Jobs received, one of a group once for each of its channels.
    pub jobs_received: u64,
    /// `SetNewPrevHash` received, one of a group once for each of its channels.
    pub prev_hashes_received: u64,
    /// The latest tips, newest last.
    pub tips: VecDeque<SeenTip>,
    /// Frames of types not known, which are skipped.
    pub unknown_frames: u64,
    /// Frames that the profile's device does not know.
    pub ignored_frames: u64,
    /// What the profile's device survives although it breaks the protocol.
    pub violations: u64,
    /// `UpdateChannel` sent.
    pub updates_sent: u64,
    /// Frames opened.
    pub frames_received: u64,
    /// When the latest frame came.
    pub last_frame_at: Mono,
    /// Events not kept because nobody drained them.
    pub events_lost: u64,
    /// Number of the first open channel.
    pub channel_id: Option<u32>,
    /// Extranonce of the first open channel, as far as it is the server's.
    pub extranonce_prefix: Prefix,
    /// Target of the first open channel for its next job.
    pub target: Option<Target>,
}

impl MinerReport {
    /// A channel was given a tip; `is_complete` says that all of them are on it now.
    pub(crate) fn tip(&mut self, prev_hash: BlockHash, at: Mono, is_complete: bool) {
        self.prev_hashes_received += 1;
        if !is_complete {
            return;
        }
        if self.tips.len() == TIPS_KEPT {
            self.tips.pop_front();
        }
        self.tips.push_back(SeenTip { prev_hash, at });
    }
}
