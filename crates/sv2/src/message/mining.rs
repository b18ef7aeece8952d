//! The messages of the mining protocol (SV2 specification section 5.3), in the order of their
//! message types.
//!
//! Targets are U256 in wire order: the last byte is the most significant one. Hashes and merkle
//! nodes are in the byte order that Bitcoin hashes them in, not the reversed one of its displays.

use crate::message::EXTENSION_CORE;
use crate::sequence::U32Sequence;

message! {
    /// A miner asks for a channel whose work is headers only.
    OpenStandardMiningChannel<'a> = (EXTENSION_CORE, 0x10, false) {
        /// Echoed in the answer.
        request_id: u32 = u32,
        /// Who is to be credited; any bytes.
        user_identity: &'a [u8] = str0_255,
        /// Expected hashes per second; any bit pattern.
        nominal_hash_rate: f32 = f32,
        /// The easiest target the miner accepts.
        max_target: [u8; 32] = u256_value,
    }
}

message! {
    /// A standard channel is open.
    OpenStandardMiningChannelSuccess<'a> = (EXTENSION_CORE, 0x11, false) {
        /// Echo of the request.
        request_id: u32 = u32,
        /// The channel's number on this connection.
        channel_id: u32 = u32,
        /// The first target of the channel.
        target: [u8; 32] = u256_value,
        /// The whole extranonce of the channel.
        extranonce_prefix: &'a [u8] = b0_32,
        /// The group whose extended jobs and tips the channel follows.
        group_channel_id: u32 = u32,
    }
}

message! {
    /// No channel of either kind could be opened.
    OpenMiningChannelError<'a> = (EXTENSION_CORE, 0x12, false) {
        /// Echo of the request.
        request_id: u32 = u32,
        /// Printable ASCII, for logs.
        error_code: &'a [u8] = str0_255,
    }
}

message! {
    /// A miner asks for a channel in which it rolls a part of the extranonce itself.
    OpenExtendedMiningChannel<'a> = (EXTENSION_CORE, 0x13, false) {
        /// Echoed in the answer.
        request_id: u32 = u32,
        /// Who is to be credited; any bytes.
        user_identity: &'a [u8] = str0_255,
        /// Expected hashes per second; any bit pattern.
        nominal_hash_rate: f32 = f32,
        /// The easiest target the miner accepts.
        max_target: [u8; 32] = u256_value,
        /// Fewest extranonce bytes the miner needs to roll.
        min_extranonce_size: u16 = u16,
    }
}

message! {
    /// An extended channel is open.
    OpenExtendedMiningChannelSuccess<'a> = (EXTENSION_CORE, 0x14, false) {
        /// Echo of the request.
        request_id: u32 = u32,
        /// The channel's number on this connection.
        channel_id: u32 = u32,
        /// The first target of the channel.
        target: [u8; 32] = u256_value,
        /// Extranonce bytes that the miner rolls, behind the prefix.
        extranonce_size: u16 = u16,
        /// Extranonce bytes that are the channel's own.
        extranonce_prefix: &'a [u8] = b0_32,
        /// The group whose jobs and tips the channel follows.
        group_channel_id: u32 = u32,
    }
}

message! {
    /// Work for a standard channel.
    NewMiningJob = (EXTENSION_CORE, 0x15, true) {
        /// The standard channel.
        channel_id: u32 = u32,
        /// Number of the job, to be given back with shares.
        job_id: u32 = u32,
        /// Smallest time in the header, unix seconds; `None` marks a future job.
        min_ntime: Option<u32> = option_u32,
        /// Version field of the header.
        version: u32 = u32,
        /// Merkle root field of the header.
        merkle_root: [u8; 32] = u256_value,
    }
}

message! {
    /// A miner reports a new hash rate or a new limit on its target.
    UpdateChannel = (EXTENSION_CORE, 0x16, true) {
        /// The channel concerned.
        channel_id: u32 = u32,
        /// Expected hashes per second; any bit pattern.
        nominal_hash_rate: f32 = f32,
        /// The easiest target the miner accepts from now on.
        maximum_target: [u8; 32] = u256_value,
    }
}

message! {
    /// An `UpdateChannel` is refused.
    UpdateChannelError<'a> = (EXTENSION_CORE, 0x17, true) {
        /// The channel concerned.
        channel_id: u32 = u32,
        /// Printable ASCII, for logs.
        error_code: &'a [u8] = str0_255,
    }
}

message! {
    /// Either side closes a channel, or with a group's number all channels of the group.
    CloseChannel<'a> = (EXTENSION_CORE, 0x18, true) {
        /// The channel or group.
        channel_id: u32 = u32,
        /// Printable ASCII, for logs.
        reason_code: &'a [u8] = str0_255,
    }
}

message! {
    /// The channel gets another extranonce prefix for jobs sent after this.
    SetExtranoncePrefix<'a> = (EXTENSION_CORE, 0x19, true) {
        /// The channel concerned.
        channel_id: u32 = u32,
        /// The new prefix.
        extranonce_prefix: &'a [u8] = b0_32,
    }
}

message! {
    /// A share on a standard channel.
    SubmitSharesStandard = (EXTENSION_CORE, 0x1a, true) {
        /// The channel it was mined for.
        channel_id: u32 = u32,
        /// The miner's count of submissions.
        sequence_number: u32 = u32,
        /// The job it was mined on.
        job_id: u32 = u32,
        /// Nonce field of the header.
        nonce: u32 = u32,
        /// Time field of the header, unix seconds.
        ntime: u32 = u32,
        /// The complete version field of the header.
        version: u32 = u32,
    }
}

message! {
    /// A share on an extended channel.
    SubmitSharesExtended<'a> = (EXTENSION_CORE, 0x1b, true) {
        /// The channel it was mined for.
        channel_id: u32 = u32,
        /// The miner's count of submissions.
        sequence_number: u32 = u32,
        /// The job it was mined on.
        job_id: u32 = u32,
        /// Nonce field of the header.
        nonce: u32 = u32,
        /// Time field of the header, unix seconds.
        ntime: u32 = u32,
        /// The complete version field of the header.
        version: u32 = u32,
        /// The rolled part of the extranonce, without the prefix.
        extranonce: &'a [u8] = b0_32,
        /// What follows the last field: TLVs of negotiated extensions, or bytes to skip.
        tlv: &'a [u8] = rest,
    }
}

message! {
    /// Shares up to a sequence number are accepted, except those named in an error.
    SubmitSharesSuccess = (EXTENSION_CORE, 0x1c, true) {
        /// The channel concerned.
        channel_id: u32 = u32,
        /// The latest accepted submission.
        last_sequence_number: u32 = u32,
        /// Submissions accepted since the message before.
        new_submits_accepted_count: u32 = u32,
        /// Sum of their difficulties.
        new_shares_sum: u64 = u64,
    }
}

message! {
    /// A share is refused.
    SubmitSharesError<'a> = (EXTENSION_CORE, 0x1d, true) {
        /// The channel concerned.
        channel_id: u32 = u32,
        /// The submission that is refused.
        sequence_number: u32 = u32,
        /// Printable ASCII, for logs.
        error_code: &'a [u8] = str0_255,
    }
}

message! {
    /// Work for an extended channel or a group.
    NewExtendedMiningJob<'a> = (EXTENSION_CORE, 0x1f, true) {
        /// The channel or group.
        channel_id: u32 = u32,
        /// Number of the job, to be given back with shares.
        job_id: u32 = u32,
        /// Smallest time in the header, unix seconds; `None` marks a future job.
        min_ntime: Option<u32> = option_u32,
        /// Version field of the header.
        version: u32 = u32,
        /// Whether the general-purpose bits of the version may be rolled.
        version_rolling_allowed: bool = bool,
        /// Siblings of the coinbase on its way up to the merkle root.
        merkle_path: &'a [[u8; 32]] = seq0_255_u256,
        /// The coinbase up to the extranonce, without the segwit marker and flag.
        coinbase_tx_prefix: &'a [u8] = b0_64k,
        /// The coinbase behind the extranonce, without the witness.
        coinbase_tx_suffix: &'a [u8] = b0_64k,
    }
}

message! {
    /// The chain has a new tip: one job sent before becomes active, all others are stale.
    SetNewPrevHash = (EXTENSION_CORE, 0x20, true) {
        /// The channel or group.
        channel_id: u32 = u32,
        /// The future job that becomes active.
        job_id: u32 = u32,
        /// Previous-block field of the header.
        prev_hash: [u8; 32] = u256_value,
        /// Smallest time in the header, unix seconds.
        min_ntime: u32 = u32,
        /// Compact target field of the header.
        nbits: u32 = u32,
    }
}

message! {
    /// The target of shares for jobs that are not active yet.
    SetTarget = (EXTENSION_CORE, 0x21, true) {
        /// The channel or group.
        channel_id: u32 = u32,
        /// A share's hash has to be at most this.
        maximum_target: [u8; 32] = u256_value,
    }
}

message! {
    /// A miner names the work it chose itself.
    SetCustomMiningJob<'a> = (EXTENSION_CORE, 0x22, true) {
        /// The extended channel or group.
        channel_id: u32 = u32,
        /// Echoed in the answer.
        request_id: u32 = u32,
        /// Token from the job declaration server.
        mining_job_token: &'a [u8] = b0_255,
        /// Version field of the header.
        version: u32 = u32,
        /// Previous-block field of the header.
        prev_hash: [u8; 32] = u256_value,
        /// Smallest time in the header, unix seconds.
        min_ntime: u32 = u32,
        /// Compact target field of the header.
        nbits: u32 = u32,
        /// Version of the coinbase.
        coinbase_tx_version: u32 = u32,
        /// First bytes of the coinbase's scriptSig.
        coinbase_prefix: &'a [u8] = b0_255,
        /// Sequence of the coinbase's input (`coinbase_tx_input_nSequence`).
        coinbase_tx_input_n_sequence: u32 = u32,
        /// Outputs of the coinbase, with their CompactSize count.
        coinbase_tx_outputs: &'a [u8] = b0_64k,
        /// Lock time of the coinbase.
        coinbase_tx_locktime: u32 = u32,
        /// Siblings of the coinbase on its way up to the merkle root.
        merkle_path: &'a [[u8; 32]] = seq0_255_u256,
    }
}

message! {
    /// The chosen work may be mined.
    SetCustomMiningJobSuccess = (EXTENSION_CORE, 0x23, true) {
        /// The channel or group.
        channel_id: u32 = u32,
        /// Echo of the request.
        request_id: u32 = u32,
        /// Number of the job, to be given back with shares.
        job_id: u32 = u32,
    }
}

message! {
    /// The chosen work is refused.
    SetCustomMiningJobError<'a> = (EXTENSION_CORE, 0x24, true) {
        /// The channel or group.
        channel_id: u32 = u32,
        /// Echo of the request.
        request_id: u32 = u32,
        /// Printable ASCII, for logs.
        error_code: &'a [u8] = str0_255,
    }
}

message! {
    /// These channels belong to this group from now on.
    SetGroupChannel<'a> = (EXTENSION_CORE, 0x25, false) {
        /// The group.
        group_channel_id: u32 = u32,
        /// Its new members.
        channel_ids: U32Sequence<'a> = seq0_64k_u32,
    }
}
