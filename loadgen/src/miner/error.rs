//! Why a miner gives a connection up: what the server did wrong, or how it sent the miner away.

use std::fmt;

use arrayvec::ArrayString;
use sv2::{CodecError, NoiseError, TransportError};

use super::coinbase::CoinbaseFault;

/// Bytes kept of an error code that the server sent.
pub const CODE_BYTES_MAX: usize = 63;

/// A code as the server sent it: printable ASCII, everything else shown as `?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Code(ArrayString<CODE_BYTES_MAX>);

impl Code {
    /// From bytes of the wire; cut at [`CODE_BYTES_MAX`].
    pub fn from_wire(bytes: &[u8]) -> Code {
        let mut text = ArrayString::new();
        for byte in bytes.iter().take(CODE_BYTES_MAX) {
            let shown = if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '?' };
            // Cannot fail: at most CODE_BYTES_MAX characters of one byte each.
            let _ = text.try_push(shown);
        }
        Code(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The step a connection is in, from the connect to the first work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Not connected, or ended by an error.
    Idle,
    /// Act 1 is sent, act 2 awaited.
    Handshake,
    /// `SetupConnection` is sent, its answer awaited.
    Setup,
    /// `RequestExtensions` is sent, its answer awaited.
    Negotiating,
    /// The first channel is asked for, the answer awaited.
    Opening,
    /// A channel is open, the first `SetNewPrevHash` awaited.
    Waiting,
    /// There is work.
    Mining,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Idle => "idle",
            Step::Handshake => "waiting for act 2",
            Step::Setup => "waiting for SetupConnection.Success",
            Step::Negotiating => "waiting for the answer to RequestExtensions",
            Step::Opening => "waiting for an open channel",
            Step::Waiting => "waiting for the first SetNewPrevHash",
            Step::Mining => "mining",
        })
    }
}

/// The end of a connection, as the miner sees it. Final until `on_connected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinerError {
    /// Bytes came although there is no connection, or it had ended.
    NotConnected,
    /// The handshake failed or the certificate is refused.
    Handshake(NoiseError),
    /// The sealed stream broke, or a message of ours could not be sealed.
    Transport(TransportError),
    /// A known message does not follow its layout.
    Malformed {
        /// Message type.
        msg_type: u8,
        /// What is wrong with it.
        error: CodecError,
    },
    /// A step took longer than `step_timeout_ms`.
    Timeout {
        /// The step.
        step: Step,
        /// Milliseconds it was given.
        after_ms: u64,
    },
    /// `SetupConnection.Error`.
    SetupRefused {
        /// Flags the server does not support.
        flags: u32,
        /// Its code.
        code: Code,
    },
    /// `OpenMiningChannel.Error`.
    OpenRefused {
        /// Its code.
        code: Code,
    },
    /// `UpdateChannel.Error`.
    UpdateRefused {
        /// Its code.
        code: Code,
    },
    /// The server insists on an extension that this miner was not told to ask for.
    ExtensionRequired {
        /// The extension.
        extension_type: u16,
    },
    /// The profile's device was left without any frame and leaves.
    Silence {
        /// Milliseconds of silence.
        after_ms: u64,
    },
    /// `CloseChannel` for our last channel or its group.
    ChannelClosed {
        /// Its reason.
        code: Code,
    },
    /// `Reconnect`: the server wants to be left.
    ReconnectAsked,
    /// A message that has no place in this step.
    Unexpected {
        /// Message type.
        msg_type: u8,
        /// The step.
        step: Step,
    },
    /// `SetupConnection.Success` names a version that was not offered.
    WrongVersion {
        /// The version.
        used_version: u16,
    },
    /// Server flags that contradict ours, or that leave no way to open a standard channel.
    FlagsContradict {
        /// Flags of the server.
        server: u32,
        /// Flags of the miner.
        miner: u32,
    },
    /// An answer echoes another request.
    WrongRequest {
        /// The request id found.
        request_id: u32,
        /// The request id sent.
        expected: u32,
    },
    /// `RequestExtensions.Success` lists one that was not asked for, or none.
    ExtensionNotAsked {
        /// Extensions listed.
        listed: usize,
    },
    /// An answer opens a channel of another kind than was asked for.
    WrongKind {
        /// The request.
        request_id: u32,
    },
    /// A channel is opened with the number of another channel or a group.
    ChannelIdReused {
        /// The number.
        channel_id: u32,
    },
    /// The part of the extranonce that is left to the miner is too small or too large, or the
    /// whole is longer than 32 bytes.
    ExtranonceSize {
        /// Bytes left to the miner.
        size: u16,
        /// Bytes of the prefix.
        prefix: usize,
        /// Fewest bytes the miner asked for.
        min: u16,
        /// Most bytes it can roll.
        max: u16,
    },
    /// Two channels of the connection can hash the same coinbase.
    ExtranonceOverlap {
        /// The channel.
        channel_id: u32,
        /// The other one.
        other: u32,
    },
    /// A standard job for an extended channel, or an extended one for a standard channel itself.
    WrongJobKind {
        /// The job.
        job_id: u32,
        /// The channel.
        channel_id: u32,
    },
    /// The coinbase of an extended job is not one under the channel's extranonce.
    InvalidCoinbase {
        /// The job.
        job_id: u32,
        /// What is wrong.
        fault: CoinbaseFault,
    },
    /// A job forbids version rolling although the miner requires it.
    VersionRollingDenied {
        /// The job.
        job_id: u32,
    },
    /// A new target was not followed by a job in time.
    TargetWithoutJob {
        /// The channel.
        channel_id: u32,
        /// Milliseconds that were given.
        after_ms: u64,
    },
    /// `UpdateChannel` lowered the ceiling below the target, and the target was not lowered.
    TargetNotLowered {
        /// The channel.
        channel_id: u32,
        /// Milliseconds that were given.
        after_ms: u64,
    },
    /// A frame is longer than the profile's device takes.
    FrameTooLong {
        /// Message type.
        msg_type: u8,
        /// Bytes of its payload.
        length: usize,
    },
    /// Two pending future jobs fall in one slot of the profile's device.
    FutureJobsCollide {
        /// The later one.
        job_id: u32,
        /// The one that is lost.
        lost: u32,
    },
    /// A second future job before the first tip: the profile's device starts them all.
    FutureJobBeforeTip {
        /// The second one.
        job_id: u32,
    },
    /// The channel and its group have one number.
    ChannelIsGroup {
        /// The number.
        channel_id: u32,
    },
    /// A message for a channel this connection does not have.
    UnknownChannel {
        /// Message type.
        msg_type: u8,
        /// The channel.
        channel_id: u32,
    },
    /// A target of zero, or easier than the miner's `max_target`.
    TargetOutOfRange {
        /// Message type that carried it.
        msg_type: u8,
        /// Whether it is zero; else it is too easy.
        is_zero: bool,
    },
    /// An extended or group job on a connection that requires standard jobs.
    ExtendedJob {
        /// The job.
        job_id: u32,
    },
    /// A merkle path longer than any block has.
    MerklePathTooLong {
        /// The job.
        job_id: u32,
        /// Steps of the path.
        steps: usize,
    },
    /// The extranonce prefix changed its length.
    ExtranonceLength {
        /// Bytes of the new prefix.
        found: usize,
        /// Bytes of the old one.
        expected: usize,
    },
    /// A job that is not a future one before there was any prev hash.
    JobBeforePrevHash {
        /// The job.
        job_id: u32,
    },
    /// `min_ntime` is present and zero, which clients take for a future job.
    ZeroMinNtime {
        /// The job.
        job_id: u32,
    },
    /// A job has the number of one that is still valid.
    JobIdReused {
        /// The job.
        job_id: u32,
    },
    /// More future jobs are pending than firmware keeps.
    TooManyFutureJobs {
        /// The job that was one too many.
        job_id: u32,
    },
    /// `SetNewPrevHash` names a job that was not sent as a future one.
    PrevHashWithoutJob {
        /// The job.
        job_id: u32,
    },
    /// `SetNewPrevHash` carries bits that stand for no target.
    InvalidNbits {
        /// The bits.
        nbits: u32,
    },
    /// An answer to a share that was not sent, or was answered before.
    UnknownSequenceNumber {
        /// Message type of the answer.
        msg_type: u8,
        /// The number.
        sequence_number: u32,
    },
    /// `SubmitShares.Success` counts other than what is undecided up to its number.
    WrongAcknowledgement {
        /// The last sequence number it names.
        last_sequence_number: u32,
        /// The count it gives.
        count: u32,
        /// Shares up to that number that are neither accepted nor refused yet.
        undecided: u32,
    },
}

impl MinerError {
    /// A short name that never changes, for counting.
    pub fn code(&self) -> &'static str {
        match self {
            MinerError::NotConnected => "not_connected",
            MinerError::Handshake(_) => "handshake_failed",
            MinerError::Transport(_) => "transport_failed",
            MinerError::Malformed { .. } => "malformed_message",
            MinerError::Timeout { .. } => "step_timeout",
            MinerError::SetupRefused { .. } => "setup_refused",
            MinerError::OpenRefused { .. } => "open_refused",
            MinerError::UpdateRefused { .. } => "update_refused",
            MinerError::ExtensionRequired { .. } => "extension_required",
            MinerError::Silence { .. } => "silence",
            MinerError::ChannelClosed { .. } => "channel_closed",
            MinerError::ReconnectAsked => "reconnect_asked",
            MinerError::Unexpected { .. } => "unexpected_message",
            MinerError::WrongVersion { .. } => "wrong_version",
            MinerError::FlagsContradict { .. } => "flags_contradict",
            MinerError::WrongRequest { .. } => "wrong_request",
            MinerError::ExtensionNotAsked { .. } => "extension_not_asked",
            MinerError::WrongKind { .. } => "wrong_kind",
            MinerError::ChannelIdReused { .. } => "channel_id_reused",
            MinerError::ExtranonceSize { .. } => "extranonce_size",
            MinerError::ExtranonceOverlap { .. } => "extranonce_overlap",
            MinerError::WrongJobKind { .. } => "wrong_job_kind",
            MinerError::InvalidCoinbase { .. } => "invalid_coinbase",
            MinerError::VersionRollingDenied { .. } => "version_rolling_denied",
            MinerError::TargetWithoutJob { .. } => "target_without_job",
            MinerError::TargetNotLowered { .. } => "target_not_lowered",
            MinerError::FrameTooLong { .. } => "frame_too_long",
            MinerError::FutureJobsCollide { .. } => "future_jobs_collide",
            MinerError::FutureJobBeforeTip { .. } => "future_job_before_tip",
            MinerError::ChannelIsGroup { .. } => "channel_is_group",
            MinerError::UnknownChannel { .. } => "unknown_channel",
            MinerError::TargetOutOfRange { .. } => "target_out_of_range",
            MinerError::ExtendedJob { .. } => "extended_job",
            MinerError::MerklePathTooLong { .. } => "merkle_path_too_long",
            MinerError::ExtranonceLength { .. } => "extranonce_length",
            MinerError::JobBeforePrevHash { .. } => "job_before_prev_hash",
            MinerError::ZeroMinNtime { .. } => "zero_min_ntime",
            MinerError::JobIdReused { .. } => "job_id_reused",
            MinerError::TooManyFutureJobs { .. } => "too_many_future_jobs",
            MinerError::PrevHashWithoutJob { .. } => "prev_hash_without_job",
            MinerError::InvalidNbits { .. } => "invalid_nbits",
            MinerError::UnknownSequenceNumber { .. } => "unknown_sequence_number",
            MinerError::WrongAcknowledgement { .. } => "wrong_acknowledgement",
        }
    }

    /// Whether the server broke the protocol. The others are refusals, timeouts, and the end of a
    /// connection that the specification allows.
    pub fn is_violation(&self) -> bool {
        !matches!(
            self,
            MinerError::NotConnected
                | MinerError::Handshake(_)
                | MinerError::Timeout { .. }
                | MinerError::SetupRefused { .. }
                | MinerError::OpenRefused { .. }
                | MinerError::UpdateRefused { .. }
                | MinerError::ExtensionRequired { .. }
                | MinerError::Silence { .. }
                | MinerError::ChannelClosed { .. }
                | MinerError::ReconnectAsked
        )
    }
}

impl fmt::Display for MinerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MinerError::NotConnected => f.write_str("bytes for a miner that is not connected"),
            MinerError::Handshake(error) => write!(f, "handshake: {error}"),
            MinerError::Transport(error) => write!(f, "sealed stream: {error}"),
            MinerError::Malformed { msg_type, error } => {
                write!(f, "message {msg_type:#04x} is malformed: {error}")
            }
            MinerError::Timeout { step, after_ms } => {
                write!(f, "{step}: nothing came within {after_ms} ms")
            }
            MinerError::SetupRefused { flags, code } => {
                write!(f, "SetupConnection refused: {code} (unsupported flags {flags:#x})")
            }
            MinerError::OpenRefused { code } => write!(f, "no channel was opened: {code}"),
            MinerError::UpdateRefused { code } => write!(f, "UpdateChannel refused: {code}"),
            MinerError::ExtensionRequired { extension_type } => {
                write!(f, "the server requires extension {extension_type:#06x}")
            }
            MinerError::Silence { after_ms } => write!(f, "no frame came for {after_ms} ms"),
            MinerError::ChannelClosed { code } => {
                write!(f, "the server closed the channel: {code}")
            }
            MinerError::ReconnectAsked => f.write_str("the server asked to reconnect"),
            _ => self.fmt_violation(f),
        }
    }
}

impl MinerError {
    fn fmt_violation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MinerError::Unexpected { msg_type, step } => {
                write!(f, "message {msg_type:#04x} has no place while {step}")
            }
            MinerError::WrongVersion { used_version } => {
                write!(f, "SetupConnection.Success uses version {used_version}, expected 2")
            }
            MinerError::FlagsContradict { server, miner } => {
                write!(f, "server flags {server:#x} contradict the miner's {miner:#x}")
            }
            MinerError::WrongRequest { request_id, expected } => {
                write!(f, "answer to request {request_id}, expected {expected}")
            }
            MinerError::ChannelIsGroup { channel_id } => {
                write!(f, "channel {channel_id} has the number of its own group")
            }
            MinerError::UnknownChannel { msg_type, channel_id } => {
                write!(f, "message {msg_type:#04x} for channel {channel_id}, which is not ours")
            }
            MinerError::TargetOutOfRange { msg_type, is_zero: true } => {
                write!(f, "message {msg_type:#04x} sets the target to zero")
            }
            MinerError::TargetOutOfRange { msg_type, .. } => {
                write!(f, "message {msg_type:#04x} sets a target easier than our max_target")
            }
            MinerError::ExtendedJob { job_id } => {
                write!(f, "extended job {job_id} although the miner requires standard jobs")
            }
            MinerError::ExtranonceLength { found, expected } => {
                write!(f, "the extranonce prefix changes from {expected} to {found} bytes")
            }
            _ => self.fmt_work_violation(f),
        }
    }

    fn fmt_work_violation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MinerError::MerklePathTooLong { job_id, steps } => {
                write!(f, "job {job_id} has a merkle path of {steps} steps")
            }
            MinerError::JobBeforePrevHash { job_id } => {
                write!(f, "job {job_id} is not a future job, before any SetNewPrevHash")
            }
            MinerError::ZeroMinNtime { job_id } => {
                write!(f, "job {job_id} has min_ntime present and zero")
            }
            MinerError::JobIdReused { job_id } => {
                write!(f, "job {job_id} has the number of a job that is still valid")
            }
            MinerError::TooManyFutureJobs { job_id } => {
                write!(f, "future job {job_id} is one more than firmware keeps")
            }
            MinerError::PrevHashWithoutJob { job_id } => {
                write!(f, "SetNewPrevHash names job {job_id}, which is no pending future job")
            }
            MinerError::InvalidNbits { nbits } => {
                write!(f, "SetNewPrevHash has nbits {nbits:08x}, which stand for no target")
            }
            MinerError::UnknownSequenceNumber { msg_type, sequence_number } => write!(
                f,
                "message {msg_type:#04x} answers share {sequence_number}, which was not sent or \
                 has its answer"
            ),
            MinerError::WrongAcknowledgement { last_sequence_number, count, undecided } => write!(
                f,
                "SubmitShares.Success up to {last_sequence_number} counts {count} shares, \
                 {undecided} are undecided"
            ),
            _ => self.fmt_channel_violation(f),
        }
    }

    fn fmt_channel_violation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MinerError::ExtensionNotAsked { listed } => {
                write!(f, "the server lists {listed} extensions, expected some of those asked for")
            }
            MinerError::WrongKind { request_id } => {
                write!(f, "request {request_id} is answered by a channel of the other kind")
            }
            MinerError::ChannelIdReused { channel_id } => {
                write!(f, "channel {channel_id} has the number of another channel or group")
            }
            MinerError::ExtranonceSize { size, prefix, min, max } => write!(
                f,
                "{size} bytes of extranonce behind a prefix of {prefix}, expected {min} to {max} \
                 and at most 32 together"
            ),
            MinerError::ExtranonceOverlap { channel_id, other } => {
                write!(f, "channels {channel_id} and {other} can hash the same coinbase")
            }
            MinerError::WrongJobKind { job_id, channel_id } => {
                write!(f, "job {job_id} is not of the kind of channel {channel_id}")
            }
            MinerError::InvalidCoinbase { job_id, fault } => {
                write!(f, "the coinbase of job {job_id}: {fault}")
            }
            MinerError::VersionRollingDenied { job_id } => {
                write!(f, "job {job_id} forbids version rolling, which the miner requires")
            }
            MinerError::TargetWithoutJob { channel_id, after_ms } => {
                write!(f, "channel {channel_id}: no job within {after_ms} ms of SetTarget")
            }
            MinerError::TargetNotLowered { channel_id, after_ms } => write!(
                f,
                "channel {channel_id}: no SetTarget within {after_ms} ms of an UpdateChannel that \
                 lowers it"
            ),
            MinerError::FrameTooLong { msg_type, length } => {
                write!(f, "message {msg_type:#04x} has {length} bytes, more than the device takes")
            }
            MinerError::FutureJobsCollide { job_id, lost } => {
                write!(f, "future job {job_id} falls in the slot of future job {lost}")
            }
            MinerError::FutureJobBeforeTip { job_id } => {
                write!(f, "future job {job_id} is the second one before the first tip")
            }
            other => write!(f, "{}", other.code()),
        }
    }
}

impl std::error::Error for MinerError {}
