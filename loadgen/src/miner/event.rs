//! What happened to a miner, in order, for whoever drives it.

use arrayvec::ArrayVec;
use sv2::codec::B0_32_MAX;
use work::{BlockHash, MerkleNode, Mono, Target};

use super::error::Code;

/// Events kept until they are drained; later ones are counted in `MinerReport::events_lost`. One
/// acknowledgement of all outstanding shares fits twice.
pub const EVENTS_MAX: usize = 2 * super::OUTSTANDING_MAX;

/// Bytes of an extranonce prefix.
pub type Prefix = ArrayVec<u8, B0_32_MAX>;

/// One thing that happened. Times are those that the driver passed in with the bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum MinerEvent {
    /// Act 2 came and the certificate holds.
    Secured,
    /// `SetupConnection.Success`.
    SetUp,
    /// The channel is open.
    Opened {
        /// Number of the channel.
        channel_id: u32,
        /// The whole extranonce of the channel.
        extranonce_prefix: Prefix,
        /// The first target.
        target: Target,
    },
    /// A job came.
    JobReceived {
        /// Number of the job.
        job_id: u32,
        /// Version of the header.
        version: u32,
        /// Root under this channel's extranonce.
        merkle_root: MerkleNode,
        /// Earliest time, seconds; `None` for a future job.
        min_ntime: Option<u32>,
        /// The parent it is mined on; `None` for a future job.
        prev_hash: Option<BlockHash>,
    },
    /// A new prev hash came and `job_id` is mined on it.
    TipSwitched {
        /// The parent.
        prev_hash: BlockHash,
        /// The job that became active.
        job_id: u32,
        /// Compact target of a block.
        nbits: u32,
        /// Earliest time, seconds.
        min_ntime: u32,
        /// Whether it is the first one of this connection: work begins, nothing was switched.
        is_first: bool,
    },
    /// The target for later jobs changed.
    TargetSet {
        /// The new target.
        target: Target,
    },
    /// A share was sent.
    ShareSubmitted {
        /// Its number.
        sequence_number: u32,
        /// Its job.
        job_id: u32,
        /// Hash of its header; zero where a fake share has no header.
        share_hash: BlockHash,
    },
    /// A share that was sent meets the bits of its tip.
    BlockFound {
        /// The block.
        block_hash: BlockHash,
        /// Its job.
        job_id: u32,
    },
    /// A share is accepted.
    ShareAccepted {
        /// Its number.
        sequence_number: u32,
        /// When it was sent.
        submitted_at: Mono,
        /// Whether it was sent by `submit_fake`.
        is_fake: bool,
    },
    /// A share is refused.
    ShareRejected {
        /// Its number.
        sequence_number: u32,
        /// The server's code.
        code: Code,
        /// When it was sent.
        submitted_at: Mono,
        /// Whether it was sent by `submit_fake`.
        is_fake: bool,
    },
}
