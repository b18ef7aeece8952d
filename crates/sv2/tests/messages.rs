//! Every message against the encoder of the reference implementation: byte-identical, decoded back
//! in full, refused when cut short, and safe when corrupted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use binary_sv2::{B032, B064K, B0255, Seq064K, Seq0255, Str0255, Sv2Option, U256, to_bytes};
use common_messages_sv2::Protocol;
use proptest::collection::vec;
use proptest::prelude::*;
use sv2::message::{Message, common, extension, mining};
use sv2::{CodecError, Frame, FrameHeader, FromMiner, ToMiner, U16Sequence, U32Sequence};

/// The type of made-up values of each wire type.
macro_rules! value {
    (protocol) => { u8 };
    (text) => { Vec<u8> };
    (bytes) => { Vec<u8> };
    (short) => { Vec<u8> };
    (long) => { Vec<u8> };
    (hash) => { [u8; 32] };
    (path) => { Vec<[u8; 32]> };
    (option) => { Option<u32> };
    (sequence16) => { Vec<u16> };
    (sequence32) => { Vec<u32> };
    ($number:ident) => { $number };
}

/// How values are made up: all lengths a wire type allows, all bit patterns of a number.
macro_rules! strategy {
    (protocol) => { 0u8..=2 };
    (text) => { vec(any::<u8>(), 0..=255) };
    (bytes) => { vec(any::<u8>(), 0..=255) };
    (short) => { vec(any::<u8>(), 0..=32) };
    (long) => { prop_oneof![15 => vec(any::<u8>(), 0..400), 1 => vec(any::<u8>(), 65_535)] };
    (hash) => { any::<[u8; 32]>() };
    (path) => { prop_oneof![9 => vec(any::<[u8; 32]>(), 0..20), 1 => vec(Just([7; 32]), 255)] };
    (option) => { any::<Option<u32>>() };
    (sequence16) => { prop_oneof![9 => vec(any::<u16>(), 0..20), 1 => vec(Just(7), 65_535)] };
    (sequence32) => { prop_oneof![9 => vec(any::<u32>(), 0..20), 1 => vec(Just(7), 65_535)] };
    (f32) => { any::<u32>().prop_map(f32::from_bits) };
    ($number:ident) => { any::<$number>() };
}

/// A value as our struct holds it.
macro_rules! ours {
    (text, $value:expr) => {
        &$value[..]
    };
    (bytes, $value:expr) => {
        &$value[..]
    };
    (short, $value:expr) => {
        &$value[..]
    };
    (long, $value:expr) => {
        &$value[..]
    };
    (path, $value:expr) => {
        &$value[..]
    };
    (sequence16, $value:expr) => {
        U16Sequence::new(&$value)
    };
    (sequence32, $value:expr) => {
        U32Sequence::new(&$value)
    };
    ($plain:ident, $value:expr) => {
        $value
    };
}

/// A value as the reference's struct holds it.
macro_rules! theirs {
    (protocol, $value:expr) => {
        Protocol::try_from($value).unwrap()
    };
    (text, $value:expr) => {
        Str0255::new(&$value).unwrap()
    };
    (bytes, $value:expr) => {
        B0255::new(&$value).unwrap()
    };
    (short, $value:expr) => {
        B032::new(&$value).unwrap()
    };
    (long, $value:expr) => {
        B064K::new(&$value).unwrap()
    };
    (hash, $value:expr) => {
        U256::from(&$value)
    };
    (path, $value:expr) => {
        Seq0255::new($value.iter().map(U256::from).collect()).unwrap()
    };
    (option, $value:expr) => {
        Sv2Option::new($value)
    };
    (sequence16, $value:expr) => {
        Seq064K::new($value.clone()).unwrap()
    };
    (sequence32, $value:expr) => {
        Seq064K::new($value.clone()).unwrap()
    };
    ($plain:ident, $value:expr) => {
        $value
    };
}

/// The message shown, and encoded again.
type Decoded = (String, Vec<u8>);

/// What the checks need of a message type, its lifetime removed.
struct Codec<'a> {
    decode: &'a dyn Fn(&[u8]) -> Result<Decoded, CodecError>,
    payload_max: usize,
}

/// Reads by any of the two enums; only panics matter.
fn decode_anyhow(msg_type: u8, extension_type: u16, payload: &[u8]) {
    let header = FrameHeader { extension_type, channel_msg: false, msg_type, msg_length: 0 };
    let frame = Frame { header, payload };
    let _ = (FromMiner::decode(&frame), ToMiner::decode(&frame));
}

/// Our message encodes to `expected`, which decodes to it, with more behind it or not; every
/// beginning of it is refused, and flipped bits never panic.
fn check<M: Message + std::fmt::Debug>(ours: &M, expected: &[u8], codec: &Codec<'_>, seed: usize) {
    let mut encoded = vec![0xaa];
    ours.encode_payload(&mut encoded);
    assert!(encoded[1..] == *expected, "{ours:?}");
    assert_eq!(ours.payload_length(), Some(expected.len()));
    assert!(expected.len() <= codec.payload_max);

    let (shown, again) = (codec.decode)(expected).unwrap();
    assert_eq!(shown, format!("{ours:?}"));
    assert!(again == expected);
    (codec.decode)(&[expected, &[1, 2, 3]].concat()).unwrap();

    // Every end of a short message, some ends of a long one.
    let step = expected.len() / 600 + 1;
    for end in (seed % step..expected.len()).step_by(step) {
        let refused = (codec.decode)(&expected[..end]);
        assert!(matches!(refused, Err(CodecError::Truncated { .. })), "cut at {end}: {refused:?}");
    }
    for turn in 0..64usize {
        let mut corrupted = expected.to_vec();
        let bit = seed.wrapping_mul(turn * 2 + 1) % (corrupted.len() * 8);
        corrupted[bit / 8] ^= 1 << (bit % 8);
        decode_anyhow(M::MSG_TYPE, M::EXTENSION_TYPE, &corrupted);
    }
}

macro_rules! codec {
    ($module:ident::$name:ident) => {
        Codec {
            decode: &|payload: &[u8]| {
                $module::$name::decode(payload).map(|message| {
                    let mut out = Vec::new();
                    message.encode(&mut out);
                    (format!("{message:?}"), out)
                })
            },
            payload_max: $module::$name::PAYLOAD_MAX,
        }
    };
}

/// One property per message: from made-up values, our bytes are the reference's bytes.
macro_rules! same {
    (
        $test:ident, $module:ident::$name:ident, $reference:ident {
            $($field:ident : $kind:ident),+ $(,)?
        } $(rest { $rest:ident })?
    ) => {
        mod $test {
            use super::*;

            #[derive(Debug)]
            struct Values {
                $($field: value!($kind)),+
            }

            prop_compose! {
                fn values()($($field in strategy!($kind)),+) -> Values {
                    Values { $($field),+ }
                }
            }

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(64))]

                #[test]
                fn is_the_same(values in values(), seed in any::<usize>()) {
                    let theirs = $reference::$name {
                        $($field: theirs!($kind, values.$field)),+
                    };
                    let ours = $module::$name {
                        $($field: ours!($kind, values.$field),)+
                        $($rest: b"",)?
                    };
                    let codec = codec!($module::$name);
                    check(&ours, &to_bytes(theirs).unwrap(), &codec, seed);
                }
            }
        }
    };
}

same! {
    setup_connection, common::SetupConnection, common_messages_sv2 {
        protocol: protocol, min_version: u16, max_version: u16, flags: u32, endpoint_host: text,
        endpoint_port: u16, vendor: text, hardware_version: text, firmware: text, device_id: text
    }
}

same! {
    setup_connection_success, common::SetupConnectionSuccess, common_messages_sv2 {
        used_version: u16, flags: u32
    }
}

same! {
    setup_connection_error, common::SetupConnectionError, common_messages_sv2 {
        flags: u32, error_code: text
    }
}

same! {
    channel_endpoint_changed, common::ChannelEndpointChanged, common_messages_sv2 {
        channel_id: u32
    }
}

same! {
    reconnect, common::Reconnect, common_messages_sv2 {
        new_host: text, new_port: u16
    }
}

same! {
    open_standard_mining_channel, mining::OpenStandardMiningChannel, mining_sv2 {
        request_id: u32, user_identity: text, nominal_hash_rate: f32, max_target: hash
    }
}

same! {
    open_standard_mining_channel_success, mining::OpenStandardMiningChannelSuccess, mining_sv2 {
        request_id: u32, channel_id: u32, target: hash, extranonce_prefix: short,
        group_channel_id: u32
    }
}

same! {
    open_mining_channel_error, mining::OpenMiningChannelError, mining_sv2 {
        request_id: u32, error_code: text
    }
}

same! {
    open_extended_mining_channel, mining::OpenExtendedMiningChannel, mining_sv2 {
        request_id: u32, user_identity: text, nominal_hash_rate: f32, max_target: hash,
        min_extranonce_size: u16
    }
}

same! {
    open_extended_mining_channel_success, mining::OpenExtendedMiningChannelSuccess, mining_sv2 {
        request_id: u32, channel_id: u32, target: hash, extranonce_size: u16,
        extranonce_prefix: short, group_channel_id: u32
    }
}

same! {
    new_mining_job, mining::NewMiningJob, mining_sv2 {
        channel_id: u32, job_id: u32, min_ntime: option, version: u32, merkle_root: hash
    }
}

same! {
    update_channel, mining::UpdateChannel, mining_sv2 {
        channel_id: u32, nominal_hash_rate: f32, maximum_target: hash
    }
}

same! {
    update_channel_error, mining::UpdateChannelError, mining_sv2 {
        channel_id: u32, error_code: text
    }
}

same! {
    close_channel, mining::CloseChannel, mining_sv2 {
        channel_id: u32, reason_code: text
    }
}

same! {
    set_extranonce_prefix, mining::SetExtranoncePrefix, mining_sv2 {
        channel_id: u32, extranonce_prefix: short
    }
}

same! {
    submit_shares_standard, mining::SubmitSharesStandard, mining_sv2 {
        channel_id: u32, sequence_number: u32, job_id: u32, nonce: u32, ntime: u32, version: u32
    }
}

same! {
    submit_shares_extended, mining::SubmitSharesExtended, mining_sv2 {
        channel_id: u32, sequence_number: u32, job_id: u32, nonce: u32, ntime: u32, version: u32,
        extranonce: short
    } rest { tlv }
}

same! {
    submit_shares_success, mining::SubmitSharesSuccess, mining_sv2 {
        channel_id: u32, last_sequence_number: u32, new_submits_accepted_count: u32,
        new_shares_sum: u64
    }
}

same! {
    submit_shares_error, mining::SubmitSharesError, mining_sv2 {
        channel_id: u32, sequence_number: u32, error_code: text
    }
}

same! {
    new_extended_mining_job, mining::NewExtendedMiningJob, mining_sv2 {
        channel_id: u32, job_id: u32, min_ntime: option, version: u32,
        version_rolling_allowed: bool, merkle_path: path, coinbase_tx_prefix: long,
        coinbase_tx_suffix: long
    }
}

same! {
    set_new_prev_hash, mining::SetNewPrevHash, mining_sv2 {
        channel_id: u32, job_id: u32, prev_hash: hash, min_ntime: u32, nbits: u32
    }
}

same! {
    set_target, mining::SetTarget, mining_sv2 {
        channel_id: u32, maximum_target: hash
    }
}

same! {
    set_custom_mining_job_success, mining::SetCustomMiningJobSuccess, mining_sv2 {
        channel_id: u32, request_id: u32, job_id: u32
    }
}

same! {
    set_custom_mining_job_error, mining::SetCustomMiningJobError, mining_sv2 {
        channel_id: u32, request_id: u32, error_code: text
    }
}

same! {
    set_group_channel, mining::SetGroupChannel, mining_sv2 {
        group_channel_id: u32, channel_ids: sequence32
    }
}

same! {
    request_extensions, extension::RequestExtensions, extensions_sv2 {
        request_id: u16, requested_extensions: sequence16
    }
}

same! {
    request_extensions_success, extension::RequestExtensionsSuccess, extensions_sv2 {
        request_id: u16, supported_extensions: sequence16
    }
}

same! {
    request_extensions_error, extension::RequestExtensionsError, extensions_sv2 {
        request_id: u16, unsupported_extensions: sequence16, required_extensions: sequence16
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Apart from the others because the reference calls the token by another name.
    #[test]
    fn set_custom_mining_job_is_the_same(
        numbers in any::<[u32; 7]>(),
        token in strategy!(bytes),
        prev_hash in strategy!(hash),
        coinbase_prefix in strategy!(bytes),
        outputs in strategy!(long),
        merkle_path in strategy!(path),
        seed in any::<usize>(),
    ) {
        let [channel_id, request_id, version, min_ntime, nbits, sequence, locktime] = numbers;
        let theirs = mining_sv2::SetCustomMiningJob {
            channel_id,
            request_id,
            token: theirs!(bytes, token),
            version,
            prev_hash: theirs!(hash, prev_hash),
            min_ntime,
            nbits,
            coinbase_tx_version: !version,
            coinbase_prefix: theirs!(bytes, coinbase_prefix),
            coinbase_tx_input_n_sequence: sequence,
            coinbase_tx_outputs: theirs!(long, outputs),
            coinbase_tx_locktime: locktime,
            merkle_path: theirs!(path, merkle_path),
        };
        let ours = mining::SetCustomMiningJob {
            channel_id,
            request_id,
            mining_job_token: &token,
            version,
            prev_hash,
            min_ntime,
            nbits,
            coinbase_tx_version: !version,
            coinbase_prefix: &coinbase_prefix,
            coinbase_tx_input_n_sequence: sequence,
            coinbase_tx_outputs: &outputs,
            coinbase_tx_locktime: locktime,
            merkle_path: &merkle_path,
        };
        let codec = codec!(mining::SetCustomMiningJob);
        check(&ours, &to_bytes(theirs).unwrap(), &codec, seed);
    }

    /// What follows an extended share is kept, and is written back.
    #[test]
    fn bytes_behind_an_extended_share_are_its_tlv(
        extranonce in strategy!(short),
        tlv in vec(any::<u8>(), 0..100),
    ) {
        let share = mining::SubmitSharesExtended {
            channel_id: 1,
            sequence_number: 2,
            job_id: 3,
            nonce: 4,
            ntime: 5,
            version: 6,
            extranonce: &extranonce,
            tlv: &tlv,
        };
        let mut payload = Vec::new();
        share.encode(&mut payload);
        prop_assert_eq!(mining::SubmitSharesExtended::decode(&payload), Ok(share));
        prop_assert_eq!(share.payload_length(), Some(payload.len()));
    }
}
