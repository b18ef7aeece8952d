//! Why something was refused or ended: the 34 stable reason codes, and the causes of ordinary
//! endings.
//!
//! Codes are contracts: `tests/golden/reasons.txt` may only grow. The texts that go on the wire
//! keep Stratum V2's kebab-case ([`Reason::error_code`]).

use std::fmt;

/// Which part of the protocol a reason belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// Channel setup, protocol violations.
    Transport,
    /// Message size, frame sequence, encoding.
    Framing,
    /// Credentials and worker names.
    Auth,
    /// Channels.
    Channel,
    /// Jobs.
    Job,
    /// Shares.
    Share,
}

macro_rules! reasons {
    ($($(#[$page:meta])* $variant:ident, $category:ident, $code:literal, $wire:literal;)*) => {
        /// A stable reason. See the page of each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $($(#[$page])* $variant,)* }

        impl Reason {
            /// All of them, in the order of the catalogue.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The code in metrics, events and records.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }

            /// What the miner is told, or nothing where the protocol has no place for it.
            pub fn error_code(self) -> &'static str {
                match self { $(Reason::$variant => $wire,)* }
            }

            /// The part of the protocol it belongs to.
            pub fn category(self) -> Category {
                match self { $(Reason::$variant => Category::$category,)* }
            }
        }
    };
}

reasons! {
    /// Bad act, failed key agreement, or not Noise at all (SV1 or HTTP on this port).
    HandshakeFailed, Transport, "handshake_failed", "";
    /// No complete handshake, or no SetupConnection, in time.
    HandshakeTimeout, Transport, "handshake_timeout", "";
    /// Wrong protocol, version or flags; the wire text is chosen by the cause.
    SetupRejected, Transport, "setup_rejected", "unsupported-protocol";
    /// A message that is not allowed now, or a peer that does not drain what it is sent.
    ProtocolViolation, Transport, "protocol_violation", "";
    /// The header claims more than the type may have; seen before anything is buffered.
    MessageTooLarge, Framing, "message_too_large", "";
    /// The payload is shorter than its fields.
    MessageTruncated, Framing, "message_truncated", "";
    /// Bytes after the last field; counted, not closed (D42).
    MessageLengthMismatch, Framing, "message_length_mismatch", "";
    /// An AEAD tag failed after the handshake: reordered, replayed or corrupted.
    FrameOutOfSequence, Framing, "frame_out_of_sequence", "";
    /// A message type the mining protocol does not know; counted, not closed (D42).
    UnknownMessageType, Framing, "unknown_message_type", "";
    /// An extension that was not negotiated.
    UnsupportedExtension, Framing, "unsupported_extension", "";
    /// A field with an impossible value: a length, a hash rate that is no number.
    InvalidEncoding, Framing, "invalid_encoding", "invalid-nominal-hashrate";
    /// Password or secret wrong.
    InvalidCredentials, Auth, "invalid_credentials", "unknown-user";
    /// Worker name empty, too long or of bad grammar.
    InvalidWorkerId, Auth, "invalid_worker_id", "invalid-user-identity";
    /// User or prefix not listed; the same wire text as a wrong password.
    AllowlistMismatch, Auth, "allowlist_mismatch", "unknown-user";
    /// A channel id that was never given out on this connection.
    UnknownChannelId, Channel, "unknown_channel_id", "invalid-channel-id";
    /// The channel is closed, or has no job.
    ChannelNotOpen, Channel, "channel_not_open", "invalid-channel-id";
    /// A message that this kind of channel may not send.
    SubscriberRoleViolation, Channel, "subscriber_role_violation", "invalid-channel-id";
    /// A channel that cannot be opened; the wire text is chosen by the cause.
    ChannelOpenRefused, Channel, "channel_open_refused", "channel-limit-reached";
    /// A job id that was never given to this channel.
    InvalidJobId, Job, "invalid_job_id", "invalid-job-id";
    /// The job was valid once; its state is gone.
    UnknownJob, Job, "unknown_job", "invalid-job-id";
    /// The job builds on a block that is no longer the tip.
    StalePrevhash, Job, "stale_prevhash", "stale-share";
    /// A template was withheld or a job taken back: rejected, or no verdict.
    JobNotVerified, Job, "job_not_verified", "";
    /// No verified work for the new tip within the hold.
    PrevhashSwitchTimeout, Job, "prevhash_switch_timeout", "prevhash_switch_timeout";
    /// The hash is above the target of that job.
    DifficultyBelowTarget, Share, "difficulty_below_target", "difficulty-too-low";
    /// `ntime` before the job's or too far ahead.
    NtimeOutOfRange, Share, "ntime_out_of_range", "invalid-share";
    /// The same header again.
    DuplicateNonce, Share, "duplicate_nonce", "duplicate-share";
    /// The version was rolled although the job says it is fixed.
    VersionRollingNotAllowed, Share, "version_rolling_not_allowed", "version-rolling-not-allowed";
    /// Version bits outside the mask differ.
    InvalidVersionBits, Share, "invalid_version_bits", "invalid-non-rollable-version-bit";
    /// The extranonce is not of the agreed size.
    InvalidExtranonceSize, Share, "invalid_extranonce_size", "bad-extranonce-size";
    /// Same tip, but the job was replaced too long ago.
    StaleShare, Share, "stale_share", "stale-share";
    /// The coinbase does not come together: a defect of ours.
    InvalidCoinbase, Share, "invalid_coinbase", "invalid-share";
    /// More shares than the agreed rate allows.
    ShareRateExceeded, Share, "share_rate_exceeded", "share-rate-exceeded";
    /// The table of seen hashes is full.
    DedupCapacityExceeded, Share, "dedup_capacity_exceeded", "invalid-share";
    /// There is no place to put the share, and waiting has not helped.
    UpstreamUnavailable, Share, "upstream_unavailable", "upstream-unavailable";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Why a connection ended, where none of the 34 reasons is at fault (D46).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseCause {
    /// The peer closed or reset.
    PeerGone,
    /// Nothing heard for `channel_idle_timeout_ms`.
    Idle,
    /// The table of connections, or the peer's share of it, is full.
    Limit,
    /// No channel opened in time.
    NoChannel,
    /// The gateway is stopping.
    Drain,
}

impl CloseCause {
    /// All of them.
    pub const ALL: &'static [CloseCause] = &[
        CloseCause::PeerGone,
        CloseCause::Idle,
        CloseCause::Limit,
        CloseCause::NoChannel,
        CloseCause::Drain,
    ];

    /// The code in metrics and logs.
    pub fn code(self) -> &'static str {
        match self {
            CloseCause::PeerGone => "peer_gone",
            CloseCause::Idle => "idle",
            CloseCause::Limit => "limit",
            CloseCause::NoChannel => "no_channel",
            CloseCause::Drain => "drain",
        }
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// Somebody broke a rule.
    Reason(Reason),
    /// Nobody did.
    Cause(CloseCause),
}

impl Close {
    /// Number of codes that [`Close::index`] can give.
    pub const COUNT: usize = Reason::ALL.len() + CloseCause::ALL.len();

    /// The code in metrics and logs.
    pub fn code(self) -> &'static str {
        match self {
            Close::Reason(reason) => reason.code(),
            Close::Cause(cause) => cause.code(),
        }
    }

    /// Position in tables of counters.
    pub fn index(self) -> usize {
        match self {
            Close::Reason(reason) => reason as usize,
            Close::Cause(cause) => Reason::ALL.len() + cause as usize,
        }
    }
}

impl From<Reason> for Close {
    fn from(reason: Reason) -> Close {
        Close::Reason(reason)
    }
}

impl From<CloseCause> for Close {
    fn from(cause: CloseCause) -> Close {
        Close::Cause(cause)
    }
}

impl From<work::share::Fault> for Reason {
    fn from(fault: work::share::Fault) -> Reason {
        use work::share::Fault;
        match fault {
            Fault::NtimeTooOld | Fault::NtimeTooNew => Reason::NtimeOutOfRange,
            Fault::InvalidVersionBits => Reason::InvalidVersionBits,
            Fault::VersionRollingNotAllowed => Reason::VersionRollingNotAllowed,
            Fault::DifficultyBelowTarget => Reason::DifficultyBelowTarget,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_the_golden_one() {
        let golden = include_str!("../tests/golden/reasons.txt");
        let ours: Vec<String> = Reason::ALL
            .iter()
            .map(|r| format!("{:?} {} {}", r.category(), r.code(), r.error_code()).trim().into())
            .collect();
        assert_eq!(golden.lines().collect::<Vec<_>>(), ours);
        assert_eq!(ours.len(), 34);
        for (position, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Close::from(*reason).index(), position);
        }
    }
}
