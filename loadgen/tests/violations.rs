//! Everything a server can do wrong, and that the miner says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use loadgen::miner::{FUTURE_JOBS_MAX, Miner, MinerConfig, MinerError, Step};
use server::*;
use sv2::FrameHeader;
use sv2::message::common::{Reconnect, SetupConnectionError, SetupConnectionSuccess};
use sv2::message::mining::{
    CloseChannel, NewExtendedMiningJob, NewMiningJob, OpenMiningChannelError,
    OpenStandardMiningChannelSuccess, SetExtranoncePrefix, SetGroupChannel, SetNewPrevHash,
    SetTarget, SubmitSharesError, SubmitSharesSuccess,
};
use work::Target;

fn check(expected: &str, result: Result<(), MinerError>, pair: &mut Pair) {
    let error = result.expect_err(expected);
    assert_eq!(error.code(), expected, "{error}");
    assert!(error.to_string().len() > expected.len(), "{error}");
    // The end is final.
    assert_eq!(pair.miner.step(), Step::Idle);
    let after = pair.say(&setup_success());
    assert_eq!(after, Err(MinerError::NotConnected));
}

fn secured(expected: &str, script: impl FnOnce(&mut Pair) -> Result<(), MinerError>) {
    let mut pair = Pair::secured(MinerConfig { flags: 5, ..config() });
    let result = script(&mut pair);
    check(expected, result, &mut pair);
}

fn opening(expected: &str, script: impl FnOnce(&mut Pair) -> Result<(), MinerError>) {
    let max_target = easy_target();
    let mut pair = Pair::secured(MinerConfig { max_target, ..config() });
    pair.say(&setup_success()).unwrap();
    let result = script(&mut pair);
    check(expected, result, &mut pair);
}

fn waiting(expected: &str, script: impl FnOnce(&mut Pair) -> Result<(), MinerError>) {
    let mut pair = Pair::open(MinerConfig { max_target: easy_target(), ..config() });
    let result = script(&mut pair);
    check(expected, result, &mut pair);
}

fn mining(expected: &str, script: impl FnOnce(&mut Pair) -> Result<(), MinerError>) {
    let mut pair = Pair::mining(MinerConfig { max_target: easy_target(), ..config() });
    let result = script(&mut pair);
    check(expected, result, &mut pair);
}

fn group_job(channel_id: u32, path: &[[u8; 32]]) -> NewExtendedMiningJob<'_> {
    NewExtendedMiningJob {
        channel_id,
        job_id: 9,
        min_ntime: None,
        version: 0x2000_0000,
        version_rolling_allowed: true,
        merkle_path: path,
        coinbase_tx_prefix: b"a",
        coinbase_tx_suffix: b"b",
    }
}

#[test]
fn at_setup() {
    let answer = |used_version, flags| SetupConnectionSuccess { used_version, flags };
    secured("wrong_version", |pair| pair.say(&answer(1, 0)));
    secured("flags_contradict", |pair| pair.say(&answer(2, 1)));
    secured("flags_contradict", |pair| pair.say(&answer(2, 2)));
    secured("unexpected_message", |pair| pair.say(&open_success()));
    secured("unexpected_message", |pair| pair.say(&job(1, None)));
    secured("unexpected_message", |pair| pair.say(&Reconnect { new_host: b"", new_port: 0 }));
    secured("setup_refused", |pair| {
        pair.say(&SetupConnectionError { flags: 4, error_code: b"unsupported-feature-flags" })
    });
}

#[test]
fn at_open() {
    let ok = open_success();
    let with_target =
        |target: Target| OpenStandardMiningChannelSuccess { target: target.to_le_bytes(), ..ok };
    opening("wrong_request", |pair| {
        pair.say(&OpenStandardMiningChannelSuccess { request_id: 2, ..ok })
    });
    opening("channel_is_group", |pair| {
        pair.say(&OpenStandardMiningChannelSuccess { group_channel_id: CHANNEL, ..ok })
    });
    opening("target_out_of_range", |pair| pair.say(&with_target(Target::ZERO)));
    opening("target_out_of_range", |pair| pair.say(&with_target(Target::MAX)));
    opening("open_refused", |pair| {
        pair.say(&OpenMiningChannelError { request_id: 1, error_code: b"unknown-user" })
    });
    opening("wrong_request", |pair| {
        pair.say(&OpenMiningChannelError { request_id: 3, error_code: b"unknown-user" })
    });
    opening("unexpected_message", |pair| pair.say(&job(1, None)));
    opening("unexpected_message", |pair| pair.say(&setup_success()));
    opening("reconnect_asked", |pair| pair.say(&Reconnect { new_host: b"", new_port: 0 }));
}

#[test]
fn before_the_first_tip() {
    waiting("job_before_prev_hash", |pair| pair.say(&job(1, Some(UNIX))));
    waiting("zero_min_ntime", |pair| pair.say(&job(1, Some(0))));
    waiting("prev_hash_without_job", |pair| pair.say(&prev_hash(1, 1)));
    waiting("unknown_channel", |pair| pair.say(&NewMiningJob { channel_id: 3, ..job(1, None) }));
    waiting("unexpected_message", |pair| pair.say(&setup_success()));
    waiting("unexpected_message", |pair| pair.say(&open_success()));
    waiting("too_many_future_jobs", |pair| {
        let last = FUTURE_JOBS_MAX as u32;
        (0..=last).try_for_each(|job_id| pair.say(&job(job_id, None)))
    });
    waiting("extended_job", |pair| pair.say(&group_job(CHANNEL, &[])));
    waiting("extended_job", |pair| pair.say(&group_job(GROUP, &[])));
}

#[test]
fn with_jobs_and_tips() {
    mining("job_id_reused", |pair| pair.say(&job(1, None)));
    mining("job_id_reused", |pair| pair.say(&job(1, Some(UNIX))));
    mining("job_id_reused", |pair| {
        pair.say(&job(2, None)).unwrap();
        pair.say(&job(2, Some(UNIX)))
    });
    // The job in force is no future job, and one that was void at the last tip stays void.
    mining("prev_hash_without_job", |pair| pair.say(&prev_hash(1, 2)));
    mining("prev_hash_without_job", |pair| {
        (2..4).for_each(|job_id| pair.say(&job(job_id, None)).unwrap());
        pair.say(&prev_hash(2, 2)).unwrap();
        pair.say(&prev_hash(3, 3))
    });
    mining("unknown_channel", |pair| {
        pair.say(&job(2, None)).unwrap();
        pair.say(&SetNewPrevHash { channel_id: GROUP, ..prev_hash(2, 2) })
    });
    mining("invalid_nbits", |pair| {
        pair.say(&job(2, None)).unwrap();
        pair.say(&SetNewPrevHash { nbits: 0, ..prev_hash(2, 2) })
    });
    let target =
        |channel_id, target: Target| SetTarget { channel_id, maximum_target: target.to_le_bytes() };
    mining("target_out_of_range", |pair| pair.say(&target(CHANNEL, Target::MAX)));
    mining("target_out_of_range", |pair| pair.say(&target(CHANNEL, Target::ZERO)));
    mining("unknown_channel", |pair| pair.say(&target(GROUP, easy_target())));
    mining("extranonce_length", |pair| {
        pair.say(&SetExtranoncePrefix { channel_id: CHANNEL, extranonce_prefix: &[1; 7] })
    });
    mining("unexpected_message", |pair| {
        let members = [CHANNEL];
        let channel_ids = (&members[..]).into();
        pair.say(&SetGroupChannel { group_channel_id: GROUP, channel_ids })
    });
    mining("channel_closed", |pair| {
        pair.say(&CloseChannel { channel_id: CHANNEL, reason_code: b"drain" })
    });
    let path = [[1; 32]; 18];
    let mut pair = Pair::open(MinerConfig { flags: 0, ..config() });
    let result = pair.say(&group_job(GROUP, &path));
    check("merkle_path_too_long", result, &mut pair);
}

#[test]
fn in_acknowledgements() {
    let success = |last_sequence_number, count| SubmitSharesSuccess {
        channel_id: CHANNEL,
        last_sequence_number,
        new_submits_accepted_count: count,
        new_shares_sum: 1,
    };
    let error = |sequence_number| SubmitSharesError {
        channel_id: CHANNEL,
        sequence_number,
        error_code: b"stale-share",
    };
    mining("unknown_sequence_number", |pair| pair.say(&success(0, 1)));
    mining("unknown_sequence_number", |pair| pair.say(&error(0)));
    let with_shares = |expected: &str, script: &dyn Fn(&mut Pair) -> Result<(), MinerError>| {
        mining(expected, |pair| {
            pair.mine(3);
            script(pair)
        });
    };
    with_shares("wrong_acknowledgement", &|pair| pair.say(&success(1, 3)));
    with_shares("wrong_acknowledgement", &|pair| pair.say(&success(2, 2)));
    with_shares("unknown_sequence_number", &|pair| pair.say(&success(3, 3)));
    with_shares("unknown_sequence_number", &|pair| {
        pair.say(&success(1, 2)).unwrap();
        pair.say(&success(1, 2))
    });
    with_shares("unknown_sequence_number", &|pair| {
        pair.say(&success(1, 2)).unwrap();
        pair.say(&error(0))
    });
    with_shares("wrong_acknowledgement", &|pair| {
        pair.say(&error(0)).unwrap();
        pair.say(&success(1, 2))
    });
    with_shares("unknown_channel", &|pair| {
        pair.say(&SubmitSharesSuccess { channel_id: 50, ..success(1, 2) })
    });
}

#[test]
fn on_the_wire() {
    let header =
        |msg_type| FrameHeader { extension_type: 0, channel_msg: true, msg_type, msg_length: 0 };
    let raw = |pair: &mut Pair, msg_type, payload: &[u8]| {
        let mut bytes = Vec::new();
        pair.server.seal_frame(header(msg_type), payload, &mut bytes).unwrap();
        pair.miner.on_bytes(now(0), &mut bytes, &mut pair.wire)
    };
    mining("malformed_message", |pair| raw(pair, 0x15, &[0; 8]));
    mining("transport_failed", |pair| {
        let mut junk = [0x5a; 22];
        pair.miner.on_bytes(now(0), &mut junk, &mut pair.wire)
    });
    // Types that are not known are skipped and counted.
    let mut pair = Pair::mining(config());
    raw(&mut pair, 0x7e, &[1; 100]).unwrap();
    assert_eq!(pair.miner.report().unknown_frames, 1);
    assert_eq!(pair.miner.step(), Step::Mining);
}

#[test]
fn in_the_handshake() {
    let finish = |config: MinerConfig, at: u64, flip: bool| {
        let mut miner = Miner::new(config, 1);
        let mut wire = Vec::new();
        miner.on_connected(now(0), &mut wire);
        let (_, mut act2) = answer(&wire, 100);
        act2[200] ^= u8::from(flip);
        miner.on_bytes(now(at), &mut act2, &mut Vec::new())
    };
    assert_eq!(finish(config(), 0, false), Ok(()));
    let code = |result: Result<(), MinerError>| result.unwrap_err().code();
    let other = MinerConfig { authority: Some(other_authority()), ..config() };
    assert_eq!(code(finish(other, 0, false)), "handshake_failed");
    assert_eq!(code(finish(config(), 200_000_000, false)), "handshake_failed");
    assert_eq!(code(finish(config(), 0, true)), "handshake_failed");
    let trusting = MinerConfig { authority: None, ..config() };
    assert_eq!(finish(trusting, 200_000_000, false), Ok(()));
}

#[test]
fn in_time() {
    let mut pair = Pair::secured(MinerConfig { step_timeout_ms: 10, ..config() });
    assert_eq!(pair.miner.on_deadline(now(9_999)), Ok(()));
    let result = pair.miner.on_deadline(now(10_000));
    check("step_timeout", result, &mut pair);
    // Each step has its own time; there is none while mining.
    let mut pair = Pair::open(MinerConfig { step_timeout_ms: 10, ..config() });
    assert_eq!(pair.miner.deadline(), Some(work::Mono(10_000)));
    pair.say(&job(1, None)).unwrap();
    pair.say(&prev_hash(1, 1)).unwrap();
    assert_eq!(pair.miner.deadline(), None);
}
