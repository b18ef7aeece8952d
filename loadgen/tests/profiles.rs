//! The miner bound to the limits and habits of devices in the field.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use loadgen::miner::{
    BITAXE_SILENCE_MS, BITAXE_VERSION_MASK, MinerConfig, MinerError, MinerEvent, Profile, Step,
};
use server::*;
use sv2::FrameHeader;
use sv2::message::common::{ChannelEndpointChanged, Reconnect, SetupConnectionSuccess};
use sv2::message::mining::{
    CloseChannel, NewExtendedMiningJob, OpenExtendedMiningChannelSuccess, SetExtranoncePrefix,
    SetGroupChannel,
};
use work::Target;
use work::share::VERSION_ROLLING_MASK;

fn of(profile: Profile) -> MinerConfig {
    MinerConfig { authority: config().authority, ..profile.config() }
}

/// A Bitaxe with its channel open and no job yet.
fn bitaxe_open() -> Pair {
    let mut pair = Pair::secured(of(Profile::Bitaxe));
    pair.say(&setup_success()).unwrap();
    let open = Heard::OpenExtended { request_id: 1, min_extranonce_size: 2 };
    assert_eq!(pair.hear(), [Heard::Setup, open]);
    pair.say(&extended_success(1, &prefix(CHANNEL))).unwrap();
    pair
}

fn bitaxe() -> Pair {
    let mut pair = bitaxe_open();
    pair.say(&extended_job(&coinbase(), CHANNEL, 1, None)).unwrap();
    pair.say(&prev_hash(1, 1)).unwrap();
    pair.events();
    pair
}

fn violations(pair: &mut Pair) -> Vec<&'static str> {
    let code = |event: MinerEvent| match event {
        MinerEvent::Violation(error) => Some(error.code()),
        _ => None,
    };
    pair.events().into_iter().filter_map(code).collect()
}

#[test]
fn a_bitaxe_is_set_up_as_its_firmware_is() {
    let config = Profile::Bitaxe.config();
    assert_eq!((config.nominal_hash_rate, config.max_target), (1e12, Target::MAX));
    assert_eq!((config.first_sequence_number, config.min_extranonce_size), (0, 2));
    let mut pair = bitaxe();
    for (number, heard) in pair.mine_all(3).iter().enumerate() {
        let Heard::Extended(share, ..) = heard else { panic!("{heard:?}") };
        assert_eq!(share.sequence_number as usize, number);
    }
}

/// Goal: it rolls the bits of BIP320, whatever the server's flags and the jobs say.
#[test]
fn a_bitaxe_rolls_what_it_always_rolls() {
    let mut pair = Pair::secured(of(Profile::Bitaxe));
    pair.say(&SetupConnectionSuccess { used_version: 2, flags: 1 }).unwrap();
    pair.say(&extended_success(1, &prefix(CHANNEL))).unwrap();
    let coinbase = coinbase();
    let fixed = NewExtendedMiningJob {
        version_rolling_allowed: false,
        ..extended_job(&coinbase, CHANNEL, 1, None)
    };
    pair.say(&fixed).unwrap();
    pair.say(&prev_hash(1, 1)).unwrap();
    pair.hear();
    let mut rolled = 0;
    for heard in pair.mine_all(40) {
        let Heard::Extended(share, ..) = heard else { panic!("{heard:?}") };
        assert_eq!((share.version ^ 0x2000_0000) & !BITAXE_VERSION_MASK, 0);
        rolled |= share.version ^ 0x2000_0000;
    }
    assert_ne!(rolled & BITAXE_VERSION_MASK, 0);
}

#[test]
fn a_bitaxe_does_not_know_some_messages() {
    let mut pair = bitaxe();
    pair.say(&Reconnect { new_host: b"", new_port: 0 }).unwrap();
    pair.say(&CloseChannel { channel_id: CHANNEL, reason_code: b"drain" }).unwrap();
    pair.say(&SetExtranoncePrefix { channel_id: CHANNEL, extranonce_prefix: &[9; 3] }).unwrap();
    let members = [CHANNEL];
    let channel_ids = (&members[..]).into();
    pair.say(&SetGroupChannel { group_channel_id: 99, channel_ids }).unwrap();
    assert_eq!((pair.miner.step(), pair.miner.report().ignored_frames), (Step::Mining, 4));
    assert_eq!(pair.miner.report().extranonce_prefix[..], prefix(CHANNEL));
    assert_eq!(pair.mine_all(2).len(), 2);
}

#[test]
fn a_bitaxe_takes_frames_up_to_8192_bytes() {
    let frame = |pair: &mut Pair, length| {
        let header =
            FrameHeader { extension_type: 0, channel_msg: true, msg_type: 0x1f, msg_length: 0 };
        let mut bytes = Vec::new();
        let coinbase = coinbase();
        let job = extended_job(&coinbase, CHANNEL, 2, Some(UNIX));
        let mut payload = Vec::new();
        job.encode(&mut payload);
        let outputs = length - payload.len();
        // A larger output keeps the coinbase well formed: its script grows by what is missing.
        let mut suffix = coinbase.suffix.clone();
        let script = suffix.len() - 4 - 2;
        assert_eq!(suffix[script..script + 2], [1, 0x51]);
        let script_bytes = outputs as u16 + 1 - 2;
        let mut grown = vec![0xfd];
        grown.extend(script_bytes.to_le_bytes());
        grown.extend(vec![0x51; usize::from(script_bytes)]);
        suffix.splice(script..script + 2, grown);
        let job = NewExtendedMiningJob { coinbase_tx_suffix: &suffix, ..job };
        payload.clear();
        job.encode(&mut payload);
        assert_eq!(payload.len(), length);
        pair.server.seal_frame(header, &payload, &mut bytes).unwrap();
        pair.miner.on_bytes(now(0), &mut bytes, &mut pair.wire)
    };
    let mut pair = bitaxe();
    assert_eq!(frame(&mut pair, 8_192), Ok(()));
    assert_eq!(pair.miner.current_job().unwrap().job_id, 2);
    let error = frame(&mut bitaxe(), 8_193).unwrap_err();
    assert_eq!(error.code(), "frame_too_long");
    let mut strict =
        Pair::grouped(MinerConfig { flags: 0, profile: Profile::Strict, ..of(Profile::Bitaxe) });
    assert_eq!(frame(&mut strict, 8_193), Ok(()));
}

/// Goal: jobs that its ring of eight cannot hold are violations, and it then lacks the job.
#[test]
fn a_bitaxe_keeps_future_jobs_by_their_number_modulo_eight() {
    let mut pair = bitaxe();
    let coinbase = coinbase();
    for job_id in 2..10 {
        pair.say(&extended_job(&coinbase, CHANNEL, job_id, None)).unwrap();
    }
    assert_eq!(violations(&mut pair), [""; 0]);
    pair.say(&extended_job(&coinbase, CHANNEL, 10, None)).unwrap();
    assert_eq!(violations(&mut pair), ["future_jobs_collide"]);
    assert_eq!(pair.say(&prev_hash(2, 2)).unwrap_err().code(), "prev_hash_without_job");
}

#[test]
fn a_bitaxe_starts_all_future_jobs_of_its_first_tip() {
    let mut pair = bitaxe_open();
    let coinbase = coinbase();
    pair.say(&extended_job(&coinbase, CHANNEL, 1, None)).unwrap();
    pair.say(&extended_job(&coinbase, CHANNEL, 2, None)).unwrap();
    assert_eq!(violations(&mut pair), ["future_job_before_tip"]);
}

#[test]
fn a_bitaxe_ignores_a_repeated_job_and_takes_a_zero_time_for_a_future_job() {
    let mut pair = bitaxe();
    let coinbase = coinbase();
    pair.say(&extended_job(&coinbase, CHANNEL, 1, Some(UNIX + 50))).unwrap();
    assert_eq!(violations(&mut pair), ["job_id_reused"]);
    assert_eq!(pair.miner.current_job().unwrap().min_ntime, Some(UNIX));
    pair.say(&extended_job(&coinbase, CHANNEL, 2, Some(0))).unwrap();
    assert_eq!(violations(&mut pair), ["zero_min_ntime"]);
    assert_eq!(pair.miner.current_job().unwrap().job_id, 1);
    pair.say(&prev_hash(2, 2)).unwrap();
    assert_eq!(pair.miner.current_job().unwrap().job_id, 2);
    assert_eq!(pair.miner.report().violations, 2);
}

#[test]
fn a_bitaxe_takes_a_new_target_with_the_next_job() {
    let mut pair = bitaxe();
    let hard = Target(Target::MAX.0 >> 9);
    pair.say(&set_target(CHANNEL, hard)).unwrap();
    assert_eq!(pair.miner.current_job().unwrap().target, easy_target());
    pair.say(&extended_job(&coinbase(), CHANNEL, 2, Some(UNIX))).unwrap();
    assert_eq!(pair.miner.current_job().unwrap().target, hard);
}

#[test]
fn a_bitaxe_leaves_after_three_minutes_of_silence() {
    let silence = BITAXE_SILENCE_MS * 1_000;
    let mut pair = bitaxe();
    pair.micros = 5_000_000;
    pair.say(&extended_job(&coinbase(), CHANNEL, 2, Some(UNIX))).unwrap();
    assert_eq!(pair.miner.deadline(), Some(work::Mono(5_000_000 + silence)));
    assert_eq!(pair.miner.on_deadline(now(5_000_000 + silence - 1)), Ok(()));
    let error = pair.miner.on_deadline(now(5_000_000 + silence)).unwrap_err();
    assert_eq!(error, MinerError::Silence { after_ms: BITAXE_SILENCE_MS });
    assert_eq!(pair.miner.step(), Step::Idle);
    let patient = Pair::mining(config());
    assert_eq!(patient.miner.deadline(), None);
}

#[test]
fn mining_device_has_its_habits() {
    let mining = || {
        let mut pair = Pair::secured(of(Profile::MiningDevice));
        pair.say(&setup_success()).unwrap();
        assert_eq!(pair.hear(), [Heard::Setup, Heard::OpenStandard { request_id: 1 }]);
        pair.say(&open_success()).unwrap();
        pair.say(&job(1, None)).unwrap();
        pair.say(&prev_hash(1, 1)).unwrap();
        pair
    };
    let mut pair = mining();
    let shares = pair.mine(3);
    let numbers: Vec<u32> = shares.iter().map(|share| share.sequence_number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(shares.iter().all(|share| share.ntime == UNIX + 60 && share.version == 0x2000_0000));
    // It takes a new target on the job that is mined.
    let hard = Target(Target::MAX.0 >> 9);
    pair.say(&set_target(CHANNEL, hard)).unwrap();
    let share = pair.mine(1)[0];
    let root = work::MerkleNode([1; 32]);
    let (version, ntime, nonce) = (share.version, share.ntime, share.nonce);
    let claim = work::share::Claim { version, merkle_root: root, ntime, nonce };
    let tip = work::Tip { prev_hash: work::BlockHash([1; 32]), nbits: NBITS, min_ntime: UNIX };
    assert!(hard.is_met_by(&claim.hash(&tip)));
    // What it panics on ends it.
    let dies = |error: MinerError| assert_eq!(error.code(), "unexpected_message");
    dies(mining().say(&Reconnect { new_host: b"", new_port: 0 }).unwrap_err());
    dies(mining().say(&CloseChannel { channel_id: CHANNEL, reason_code: b"" }).unwrap_err());
    let same = SetExtranoncePrefix { channel_id: CHANNEL, extranonce_prefix: &PREFIX };
    dies(mining().say(&same).unwrap_err());
}

#[test]
fn the_translator_has_its_habits() {
    let opened = || {
        let mut pair = Pair::secured(of(Profile::Translator));
        pair.say(&setup_success()).unwrap();
        let open = Heard::OpenExtended { request_id: 1, min_extranonce_size: 4 };
        assert_eq!(pair.hear(), [Heard::Setup, open]);
        pair
    };
    let ok = extended_success(1, &[1; 8]);
    let mut pair = opened();
    pair.say(&ok).unwrap();
    let coinbase = coinbase();
    pair.say(&extended_job(&coinbase, GROUP, 1, None)).unwrap();
    pair.say(&prev_hash(1, 1)).unwrap();
    let Heard::Extended(share, ..) = &pair.mine_all(5)[4] else { panic!("no extended share") };
    assert_eq!((share.version ^ 0x2000_0000) & !VERSION_ROLLING_MASK, 0);
    // SV1 firmware behind it cannot roll more than eight bytes.
    let too_much = OpenExtendedMiningChannelSuccess { extranonce_size: 9, ..ok };
    assert_eq!(opened().say(&too_much).unwrap_err().code(), "extranonce_size");
    let mut pair = opened();
    pair.say(&ok).unwrap();
    let error = pair.say(&ChannelEndpointChanged { channel_id: CHANNEL }).unwrap_err();
    assert_eq!(error.code(), "unexpected_message");
    let mut pair = opened();
    pair.say(&ok).unwrap();
    let job = extended_job(&coinbase, CHANNEL, 1, None);
    let error = pair.say(&NewExtendedMiningJob { version_rolling_allowed: false, ..job });
    assert_eq!(error.unwrap_err().code(), "version_rolling_denied");
}
