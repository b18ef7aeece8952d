//! Everything a server can do wrong with extended channels, groups and extensions, and that the
//! miner says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use loadgen::miner::{ChannelKinds, CoinbaseFault, MinerConfig, MinerError, Step};
use server::*;
use sv2::message::EXTENSION_WORKER;
use sv2::message::extension::{RequestExtensionsError, RequestExtensionsSuccess};
use sv2::message::mining::{
    NewExtendedMiningJob, NewMiningJob, OpenExtendedMiningChannelSuccess,
    OpenStandardMiningChannelSuccess, SetExtranoncePrefix, SetGroupChannel, SetNewPrevHash,
    SubmitSharesSuccess, UpdateChannelError,
};
use work::{Coinbase, Target};

fn extended() -> MinerConfig {
    MinerConfig { kinds: ChannelKinds::Extended, flags: 0, ..config() }
}

/// Standard channels 2 and 4, extended channels 3 and 5.
fn mixed() -> MinerConfig {
    MinerConfig { kinds: ChannelKinds::Mixed, channels: 4, flags: 0, ..config() }
}

fn check(expected: &str, mut pair: Pair, script: impl FnOnce(&mut Pair) -> Result<(), MinerError>) {
    let error = script(&mut pair).expect_err(expected);
    assert_eq!(error.code(), expected, "{error}");
    assert!(error.to_string().len() > expected.len(), "{error}");
    assert_eq!(pair.miner.step(), Step::Idle);
    assert_eq!(pair.say(&setup_success()), Err(MinerError::NotConnected));
}

/// After setup, with one extended channel asked for.
fn opening(config: MinerConfig) -> Pair {
    let mut pair = Pair::secured(config);
    pair.say(&setup_success()).unwrap();
    pair
}

#[test]
fn at_open() {
    let ok = extended_success(1, &[1; 8]);
    let says = |expected, config, message: OpenExtendedMiningChannelSuccess<'_>| {
        check(expected, opening(config), |pair| pair.say(&message));
    };
    let narrow = MinerConfig { min_extranonce_size: 9, ..extended() };
    says("extranonce_size", narrow, ok);
    let limited = MinerConfig { max_extranonce_size: 7, ..extended() };
    says("extranonce_size", limited, ok);
    let long = [1; 25];
    says("extranonce_size", extended(), extended_success(1, &long));
    says("wrong_request", extended(), OpenExtendedMiningChannelSuccess { request_id: 2, ..ok });
    says("channel_is_group", extended(), OpenExtendedMiningChannelSuccess { channel_id: 1, ..ok });
    says("wrong_kind", MinerConfig { flags: 0, ..config() }, ok);
    let zero = OpenExtendedMiningChannelSuccess { target: [0; 32], ..ok };
    says("target_out_of_range", extended(), zero);
    check("wrong_kind", opening(extended()), |pair| pair.say(&standard_success(1, &[1; 16])));
}

#[test]
fn at_the_second_open() {
    let first = |config: MinerConfig| {
        let mut pair = opening(MinerConfig { channels: 2, ..config });
        pair.say(&extended_success(1, &prefix(2))).unwrap();
        pair
    };
    let own = prefix(3);
    let ok = extended_success(2, &own);
    let says = |expected, message: OpenExtendedMiningChannelSuccess<'_>| {
        check(expected, first(extended()), |pair| pair.say(&message));
    };
    says("channel_id_reused", OpenExtendedMiningChannelSuccess { channel_id: 2, ..ok });
    says(
        "channel_is_group",
        OpenExtendedMiningChannelSuccess { channel_id: GROUP, group_channel_id: 7, ..ok },
    );
    says("channel_id_reused", OpenExtendedMiningChannelSuccess { group_channel_id: 2, ..ok });
    says("extranonce_overlap", extended_success(2, &prefix(2)));
    // A longer prefix within the first channel's space, of the same length in all.
    let within = [&prefix(2)[..], &[0; 2]].concat();
    let within =
        OpenExtendedMiningChannelSuccess { extranonce_size: 6, ..extended_success(2, &within) };
    says("extranonce_overlap", within);
    // All members of a group have one length (SV2 5.2.3).
    says("extranonce_length", OpenExtendedMiningChannelSuccess { extranonce_size: 7, ..ok });
    let mut pair = first(extended());
    let elsewhere =
        OpenExtendedMiningChannelSuccess { extranonce_size: 7, group_channel_id: 50, ..ok };
    assert_eq!(pair.say(&elsewhere), Ok(()));
    // Standard channels without groups may have one number for all of them.
    let mut pair = opening(MinerConfig { channels: 2, ..config() });
    pair.say(&standard_success(1, &whole_extranonce(2))).unwrap();
    let extranonce = whole_extranonce(2);
    let twice = standard_success(2, &extranonce);
    let third = OpenStandardMiningChannelSuccess { channel_id: 9, ..twice };
    check("extranonce_overlap", pair, |pair| pair.say(&third));
}

#[test]
fn in_negotiation() {
    let asked = || opening(MinerConfig { extensions: vec![EXTENSION_WORKER], ..extended() });
    let success = |request_id, listed: &'static [u16]| RequestExtensionsSuccess {
        request_id,
        supported_extensions: listed.into(),
    };
    check("wrong_request", asked(), |pair| pair.say(&success(2, &[2])));
    check("extension_not_asked", asked(), |pair| pair.say(&success(1, &[2, 3])));
    check("extension_not_asked", asked(), |pair| pair.say(&success(1, &[])));
    check("unexpected_message", asked(), |pair| pair.say(&extended_success(1, &[1; 8])));
    let error = |unsupported: &'static [u16], required: &'static [u16]| RequestExtensionsError {
        request_id: 1,
        unsupported_extensions: unsupported.into(),
        required_extensions: required.into(),
    };
    check("extension_required", asked(), |pair| pair.say(&error(&[], &[2, 9])));
    check("extension_not_asked", asked(), |pair| pair.say(&error(&[3], &[])));
    check("unexpected_message", opening(extended()), |pair| pair.say(&success(1, &[2])));
    check("step_timeout", asked(), |pair| pair.miner.on_deadline(now(30_000_000)));
}

#[test]
fn in_jobs() {
    let grouped = || Pair::grouped(mixed());
    check("wrong_job_kind", grouped(), |pair| {
        pair.say(&NewMiningJob { channel_id: 3, ..job(2, Some(UNIX)) })
    });
    check("wrong_job_kind", grouped(), |pair| {
        pair.say(&extended_job(&coinbase(), 2, 2, Some(UNIX)))
    });
    check("unknown_channel", grouped(), |pair| {
        pair.say(&NewMiningJob { channel_id: GROUP, ..job(2, Some(UNIX)) })
    });
    check("job_id_reused", grouped(), |pair| {
        pair.say(&extended_job(&coinbase(), GROUP, 1, Some(UNIX)))
    });
    // A job of the group takes its number from the members' own jobs, too.
    check("job_id_reused", grouped(), |pair| {
        pair.say(&extended_job(&coinbase(), 5, 2, Some(UNIX))).unwrap();
        pair.say(&extended_job(&coinbase(), GROUP, 2, None))
    });
    // The tip of a group names a job that every member was sent.
    check("prev_hash_without_job", grouped(), |pair| {
        pair.say(&extended_job(&coinbase(), 5, 2, None)).unwrap();
        pair.say(&SetNewPrevHash { channel_id: GROUP, ..prev_hash(2, 2) })
    });
    let rolling = MinerConfig { flags: 4, ..extended() };
    let mut pair = opening(rolling);
    pair.say(&extended_success(1, &prefix(2))).unwrap();
    check("version_rolling_denied", pair, |pair| {
        let coinbase = coinbase();
        let job = extended_job(&coinbase, CHANNEL, 1, None);
        pair.say(&NewExtendedMiningJob { version_rolling_allowed: false, ..job })
    });
}

#[test]
fn in_coinbases() {
    let says = |expected: Option<CoinbaseFault>, coinbase: &Coinbase| {
        let mut pair = Pair::grouped(mixed());
        let said = pair.say(&extended_job(coinbase, GROUP, 2, Some(UNIX)));
        let expected = expected.map(|fault| MinerError::InvalidCoinbase { job_id: 2, fault });
        assert_eq!(said.err(), expected);
        if let Some(error) = expected {
            assert_eq!(error.code(), "invalid_coinbase");
            assert!(error.to_string().starts_with("the coinbase of job 2: "));
        }
    };
    let good = coinbase();
    says(None, &good);
    says(
        Some(CoinbaseFault::Undecodable),
        &Coinbase { suffix: [&good.suffix[..], &[0]].concat(), ..good.clone() },
    );
    says(
        Some(CoinbaseFault::Undecodable),
        &Coinbase { prefix: good.prefix[..good.prefix.len() - 1].to_vec(), ..good.clone() },
    );
    // With marker, flag and witness: what a block carries, and no miner hashes.
    let marked = [&good.prefix[..4], &[0, 1], &good.prefix[4..]].concat();
    let (outputs, locktime) = good.suffix.split_at(good.suffix.len() - 4);
    let witness = [outputs, &[1, 32], &[0; 32], locktime].concat();
    says(
        Some(CoinbaseFault::NotStripped),
        &Coinbase { prefix: marked, suffix: witness, ..good.clone() },
    );
    let mut spends = good.clone();
    spends.prefix[5] = 1;
    says(Some(CoinbaseFault::NotCoinbase), &spends);
    let with_length = |bytes: usize| {
        let head = [&SCRIPT_SIG_HEAD[..], &vec![0; bytes - 5 - EXTRANONCE_BYTES]].concat();
        coinbase_with(&head)
    };
    says(None, &with_length(100));
    says(Some(CoinbaseFault::ScriptSigLength(101)), &with_length(101));
    says(Some(CoinbaseFault::NoHeight), &coinbase_with(&[0x6a, 3, 1, 2, 3]));
    let number_of_nine_bytes = [9, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    says(Some(CoinbaseFault::NoHeight), &coinbase_with(&number_of_nine_bytes));
    // Height 1 to 16 is an opcode, 0 an empty push.
    for head in [&[0x51, 16][..], &[0x60, 16], &[0, 16]] {
        says(None, &coinbase_with(head));
    }
    // The extranonce in the outputs: a miner would roll the payout.
    let bytes = [&good.prefix[..], &[0; EXTRANONCE_BYTES], &good.suffix].concat();
    let cut = bytes.len() - EXTRANONCE_BYTES - 1;
    let outside = Coinbase {
        prefix: bytes[..cut].to_vec(),
        suffix: bytes[cut + EXTRANONCE_BYTES..].to_vec(),
        ..good
    };
    let mut pair = Pair::grouped(mixed());
    let said = pair.say(&extended_job(&outside, GROUP, 2, Some(UNIX)));
    assert_eq!(said.unwrap_err().code(), "invalid_coinbase");
}

#[test]
fn in_groups() {
    let group = |pair: &mut Pair, group_channel_id, members: &[u32]| {
        let channel_ids = members.into();
        pair.say(&SetGroupChannel { group_channel_id, channel_ids })
    };
    check("unknown_channel", Pair::grouped(mixed()), |pair| group(pair, 9, &[2, 77]));
    check("channel_is_group", Pair::grouped(mixed()), |pair| group(pair, 4, &[2]));
    check("unknown_channel", Pair::grouped(mixed()), |pair| {
        pair.say(&set_target(9, easy_target()))
    });
    check("target_out_of_range", Pair::grouped(mixed()), |pair| {
        pair.miner.update_channel(now(0), 5, 1.0, easy_target(), &mut pair.wire).unwrap();
        pair.say(&set_target(GROUP, Target(Target::MAX.0 >> 5)))
    });
    check("extranonce_overlap", Pair::grouped(mixed()), |pair| {
        let extranonce_prefix = &prefix(3);
        pair.say(&SetExtranoncePrefix { channel_id: 5, extranonce_prefix })
    });
    check("extranonce_length", Pair::grouped(mixed()), |pair| {
        pair.say(&SetExtranoncePrefix { channel_id: 5, extranonce_prefix: &[9; 9] })
    });
    check("unknown_channel", Pair::grouped(mixed()), |pair| {
        pair.say(&SetExtranoncePrefix { channel_id: GROUP, extranonce_prefix: &[9; 8] })
    });
    check("update_refused", Pair::grouped(mixed()), |pair| {
        pair.say(&UpdateChannelError { channel_id: 3, error_code: b"invalid-hashrate" })
    });
    check("unknown_channel", Pair::grouped(mixed()), |pair| {
        pair.say(&UpdateChannelError { channel_id: 30, error_code: b"invalid-channel-id" })
    });
    // Channels acknowledge for themselves, never for their group.
    check("unknown_channel", Pair::grouped(mixed()), |pair| {
        pair.mine_all(8);
        pair.say(&SubmitSharesSuccess {
            channel_id: GROUP,
            last_sequence_number: 0,
            new_submits_accepted_count: 1,
            new_shares_sum: 1,
        })
    });
}
