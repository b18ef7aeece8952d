//! What happened to a miner, in order, for whoever drives it.

use arrayvec::ArrayVec;
use sv2::codec::B0_32_MAX;
use work::{BlockHash, MerkleNode, Mono, Target};

use super::error::{Code, MinerError};

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
    /// The server answered which extensions are in use.
    ExtensionsAgreed {
        /// Whether workers' names go out (extension 0x0002).
        names_workers: bool,
    },
    /// A channel is open; `Miner::channels` tells its kind and group.
    Opened {
        /// Number of the channel.
        channel_id: u32,
        /// The extranonce of the channel: all of it on a standard one, else what the miner's own
        /// part follows.
        extranonce_prefix: Prefix,
        /// The first target.
        target: Target,
    },
    /// The server closed a channel, and others are open still.
    ChannelClosed {
        /// Number of the channel.
        channel_id: u32,
        /// Its reason.
        code: Code,
    },
    /// The server broke the protocol in a way that the profile's device survives.
    Violation(MinerError),
    /// A job came; one of a group comes once for each of its channels.
    JobReceived {
        /// The channel.
        channel_id: u32,
        /// Number of the job.
        job_id: u32,
        /// Numbers left out between the job before and this one.
        left_out: u32,
        /// Version of the header.
        version: u32,
        /// Root under this channel's extranonce, with zeros where the miner rolls it.
        merkle_root: MerkleNode,
        /// Earliest time, seconds; `None` for a future job.
        min_ntime: Option<u32>,
        /// The parent it is mined on; `None` for a future job.
        prev_hash: Option<BlockHash>,
    },
    /// A new prev hash came and `job_id` is mined on it.
    TipSwitched {
        /// The channel.
        channel_id: u32,
        /// The parent.
        prev_hash: BlockHash,
        /// The job that became active.
        job_id: u32,
        /// Compact target of a block.
        nbits: u32,
        /// Earliest time, seconds.
        min_ntime: u32,
        /// Whether it is the first one of this channel: work begins, nothing was switched.
        is_first: bool,
        /// Whether all channels of the connection that have work are on this parent now.
        is_complete: bool,
    },
    /// The target for later jobs changed.
    TargetSet {
        /// The channel.
        channel_id: u32,
        /// The new target.
        target: Target,
    },
    /// A share was sent.
    ShareSubmitted {
        /// Its number on its channel.
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
        /// Its channel.
        channel_id: u32,
        /// Its number.
        sequence_number: u32,
        /// When it was sent.
        submitted_at: Mono,
        /// Whether it was sent by `submit_fake`.
        is_fake: bool,
    },
    /// A share is refused.
    ShareRejected {
        /// Its channel.
        channel_id: u32,
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
