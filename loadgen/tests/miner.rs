//! The miner machine against a scripted server: what a correct server sees of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use loadgen::miner::{Fake, Miner, MinerConfig, MinerEvent, NtimeRolling};
use server::*;
use sv2::message::common::SetupConnectionSuccess;
use sv2::message::mining::{SetTarget, SubmitSharesError, SubmitSharesSuccess};
use sv2::{FromMiner, Opened};
use work::share::{Claim, Terms, VERSION_ROLLING_MASK, judge};
use work::{BlockHash, MerkleNode, Mono, Target, Tip};

fn success(last_sequence_number: u32, count: u32) -> SubmitSharesSuccess {
    SubmitSharesSuccess {
        channel_id: CHANNEL,
        last_sequence_number,
        new_submits_accepted_count: count,
        new_shares_sum: 5,
    }
}

#[test]
fn setup_and_open_carry_the_configuration() {
    let config = MinerConfig { user_identity: "farm.7".to_owned(), flags: 5, ..config() };
    let mut pair = Pair::secured(config);
    let Opened::Frame { frame, consumed } = pair.server.open(&mut pair.wire) else {
        panic!("no SetupConnection")
    };
    let Ok(FromMiner::SetupConnection(setup)) = FromMiner::decode(&frame) else {
        panic!("not SetupConnection")
    };
    assert_eq!((setup.protocol, setup.flags), (0, 5));
    assert_eq!((setup.min_version, setup.max_version), (2, 2));
    pair.wire.drain(..consumed);
    assert!(pair.wire.is_empty(), "nothing goes out before the answer");

    pair.say(&setup_success()).unwrap();
    let Opened::Frame { frame, .. } = pair.server.open(&mut pair.wire) else {
        panic!("no OpenStandardMiningChannel")
    };
    let Ok(FromMiner::OpenStandardMiningChannel(open)) = FromMiner::decode(&frame) else {
        panic!("not OpenStandardMiningChannel")
    };
    assert_eq!(open.user_identity, b"farm.7");
    assert_eq!(open.max_target, [0xff; 32]);
}

/// Goal: what is submitted is a share by the gateway's own rules.
/// Method: every share is rebuilt and judged with `work::share`, over version and time rolling.
#[test]
fn shares_hold_before_the_judge() {
    let mut pair = Pair::mining(config());
    pair.micros = 3_000_000;
    let shares = pair.mine(20);
    let tip = Tip { prev_hash: BlockHash([1; 32]), nbits: NBITS, min_ntime: UNIX };
    for (number, share) in shares.iter().enumerate() {
        let claim = Claim {
            version: share.version,
            merkle_root: MerkleNode([1; 32]),
            ntime: share.ntime,
            nonce: share.nonce,
        };
        let terms = Terms {
            version: 0x2000_0000,
            version_mask: work::share::VERSION_ROLLING_MASK,
            ntime_min: UNIX,
            ntime_max: UNIX + 3,
            target: easy_target(),
        };
        assert_eq!(judge(&claim, &claim.hash(&tip), &terms), Ok(()));
        assert_eq!((share.channel_id, share.job_id), (CHANNEL, 1));
        assert_eq!(share.sequence_number, number as u32);
        assert_eq!(share.ntime, UNIX + 3);
    }
    assert!(shares.iter().any(|share| share.version & VERSION_ROLLING_MASK != 0));
    let report = pair.miner.report();
    assert_eq!((report.submitted, report.outstanding), (20, 20));
    // At these bits half of all hashes are blocks, and every share's hash is below 2^250.
    assert_eq!(report.blocks_found, 20);
    assert!(report.hashes >= 20);
}

#[test]
fn acknowledgements_are_counted() {
    let mut pair = Pair::mining(MinerConfig { first_sequence_number: 1, ..config() });
    pair.mine(4);
    pair.events();
    let error =
        SubmitSharesError { channel_id: CHANNEL, sequence_number: 2, error_code: b"stale-share" };
    pair.say(&error).unwrap();
    pair.say(&success(3, 2)).unwrap();
    let report = pair.miner.report();
    assert_eq!((report.accepted, report.accepted_sum, report.outstanding), (2, 5, 1));
    assert_eq!(report.rejects.of("stale-share"), 1);
    let events = pair.events();
    assert!(matches!(events[0], MinerEvent::ShareRejected { sequence_number: 2, .. }));
    assert!(matches!(events[1], MinerEvent::ShareAccepted { sequence_number: 1, .. }));
    assert!(matches!(events[2], MinerEvent::ShareAccepted { sequence_number: 3, .. }));
    assert_eq!(events.len(), 3);
}

#[test]
fn a_tip_switch_takes_the_pending_job_and_drops_all_others() {
    let mut pair = Pair::mining(config());
    pair.say(&job(2, Some(UNIX + 1))).unwrap();
    assert_eq!(pair.mine(1)[0].job_id, 2);
    pair.say(&job(3, None)).unwrap();
    assert_eq!(pair.mine(1)[0].job_id, 2, "a future job is not mined");
    pair.micros = 42;
    pair.events();
    pair.say(&prev_hash(3, 2)).unwrap();
    let tip = BlockHash([2; 32]);
    let switched = MinerEvent::TipSwitched {
        channel_id: CHANNEL,
        prev_hash: tip,
        job_id: 3,
        nbits: NBITS,
        min_ntime: UNIX,
        is_first: false,
        is_complete: true,
    };
    assert_eq!(pair.events(), [switched]);
    assert_eq!(pair.mine(1)[0].job_id, 3);
    // Numbers of void jobs are free again.
    pair.say(&job(2, None)).unwrap();
    let tips = &pair.miner.report().tips;
    assert_eq!(tips.len(), 2);
    assert_eq!((tips[1].prev_hash, tips[1].at), (tip, Mono(42)));
}

/// Goal: a target governs the jobs after it, and the active job keeps its own.
#[test]
fn a_new_target_waits_for_the_next_job() {
    let mut pair = Pair::mining(config());
    let hard = Target(Target::MAX.0 >> 12);
    pair.say(&job(2, None)).unwrap();
    pair.say(&SetTarget { channel_id: CHANNEL, maximum_target: hard.to_le_bytes() }).unwrap();
    assert_eq!(pair.miner.current_job().unwrap().target, easy_target());
    pair.say(&prev_hash(2, 2)).unwrap();
    assert_eq!(pair.miner.current_job().unwrap().target, hard);
    assert_eq!(pair.miner.report().target, Some(hard));
}

#[test]
fn a_fixed_version_is_not_rolled() {
    let mut pair = Pair::secured(config());
    pair.say(&SetupConnectionSuccess { used_version: 2, flags: 1 }).unwrap();
    pair.say(&open_success()).unwrap();
    pair.say(&job(1, None)).unwrap();
    pair.say(&prev_hash(1, 1)).unwrap();
    pair.heard();
    assert!(pair.mine(5).iter().all(|share| share.version == 0x2000_0000));
}

#[test]
fn ntime_follows_its_configuration() {
    for (ntime, expected) in [
        (NtimeRolling::Fixed, UNIX),
        (NtimeRolling::Elapsed, UNIX + 9),
        (NtimeRolling::Clock { ahead_seconds: 60 }, UNIX + 69),
    ] {
        let mut pair = Pair::mining(MinerConfig { ntime, ..config() });
        pair.micros = 9_500_000;
        assert_eq!(pair.mine(1)[0].ntime, expected);
    }
}

#[test]
fn the_least_interval_is_kept() {
    let mut pair = Pair::mining(MinerConfig { submit_interval_min_ms: 100, ..config() });
    pair.mine(1);
    let mined =
        |pair: &mut Pair, micros| pair.miner.mine(now(micros), 100_000, &mut pair.wire).unwrap();
    assert_eq!(mined(&mut pair, 99_999).hashes, 0);
    assert_eq!(mined(&mut pair, 100_000).shares, 1);
}

/// Goal: any splitting of the stream gives the same miner.
/// Method: one stream from act 2 to a second tip, cut in two at every byte, and in equal pieces.
#[test]
fn split_anywhere() {
    let mut stream = Vec::new();
    let mut act1 = Vec::new();
    Miner::new(config(), 1).on_connected(now(0), &mut act1);
    let (mut server, act2) = answer(&act1, 3_600);
    stream.extend_from_slice(&act2);
    server.seal(&setup_success(), &mut stream).unwrap();
    server.seal(&open_success(), &mut stream).unwrap();
    server.seal(&job(1, None), &mut stream).unwrap();
    server.seal(&prev_hash(1, 1), &mut stream).unwrap();
    server.seal(&job(2, Some(UNIX)), &mut stream).unwrap();
    server.seal(&job(3, None), &mut stream).unwrap();
    server.seal(&prev_hash(3, 2), &mut stream).unwrap();

    let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut miner = Miner::new(config(), 1);
        let mut wire = Vec::new();
        miner.on_connected(now(0), &mut wire);
        for piece in pieces {
            miner.on_bytes(now(0), &mut piece.to_vec(), &mut wire).unwrap();
        }
        let events: Vec<MinerEvent> = miner.drain_events().collect();
        (events, miner.report().clone(), wire)
    };
    let whole = run(&mut std::iter::once(&stream[..]));
    assert_eq!(whole.0.len(), 8);
    assert_eq!(whole.1.prev_hashes_received, 2);
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(run(&mut [head, tail].into_iter()), whole, "cut at {at}");
    }
    for size in [1, 2, 3, 7, 21, 22, 23, 64] {
        assert_eq!(run(&mut stream.chunks(size)), whole, "pieces of {size}");
    }
}

#[test]
fn seeds_decide_the_ephemeral_key() {
    let act1 = |seed| {
        let mut wire = Vec::new();
        Miner::new(config(), seed).on_connected(now(0), &mut wire);
        wire
    };
    assert_eq!(act1(1), act1(1));
    assert_ne!(act1(1), act1(2));
    assert_eq!(act1(1).len(), 64);
}

#[test]
fn a_new_connection_starts_afresh() {
    let mut pair = Pair::mining(config());
    pair.mine(3);
    let mut act1 = Vec::new();
    pair.miner.on_connected(now(5), &mut act1);
    let report = pair.miner.report();
    assert_eq!((report.connections, report.unanswered, report.outstanding), (2, 3, 0));
    assert_eq!(report.channel_id, None);
    assert_eq!(pair.miner.mine(now(6), 1_000, &mut Vec::new()).unwrap().hashes, 0);
    let (server, mut act2) = answer(&act1, 3_600);
    pair.server = server;
    pair.miner.on_bytes(now(7), &mut act2, &mut pair.wire).unwrap();
    pair.say(&setup_success()).unwrap();
    pair.say(&open_success()).unwrap();
    pair.say(&job(1, None)).unwrap();
    pair.say(&prev_hash(1, 1)).unwrap();
    assert_eq!(pair.heard().1, 2);
    assert_eq!(pair.mine(1)[0].sequence_number, 0);
}

#[test]
fn fakes_are_what_they_say() {
    let mut pair = Pair::mining(config());
    let send = |pair: &mut Pair, fake| {
        let sent = pair.miner.submit_fake(now(0), fake, &mut pair.wire).unwrap();
        let shares = pair.heard().0;
        assert_eq!(sent.is_some(), shares.len() == 1);
        shares.first().copied()
    };
    assert_eq!(send(&mut pair, Fake::Replay), None);
    assert_eq!(send(&mut pair, Fake::Stale), None);
    let honest = pair.mine(1)[0];
    let replay = send(&mut pair, Fake::Replay).unwrap();
    assert_eq!(replay.sequence_number, honest.sequence_number + 1);
    assert_eq!((replay.nonce, replay.version), (honest.nonce, honest.version));
    assert_eq!(send(&mut pair, Fake::UnknownJob { job_id: 77 }).unwrap().job_id, 77);
    assert!(send(&mut pair, Fake::NtimeTooOld).unwrap().ntime < UNIX);
    assert!(send(&mut pair, Fake::NtimeTooNew).unwrap().ntime > UNIX + 7_200);
    let version = send(&mut pair, Fake::FixedVersionBit).unwrap().version;
    assert_ne!((version ^ 0x2000_0000) & !VERSION_ROLLING_MASK, 0);
    let above = send(&mut pair, Fake::AboveTarget).unwrap();
    let claim = Claim {
        version: above.version,
        merkle_root: MerkleNode([1; 32]),
        ntime: above.ntime,
        nonce: above.nonce,
    };
    let tip = Tip { prev_hash: BlockHash([1; 32]), nbits: NBITS, min_ntime: UNIX };
    assert!(!easy_target().is_met_by(&claim.hash(&tip)));

    pair.say(&job(2, None)).unwrap();
    pair.say(&prev_hash(2, 2)).unwrap();
    assert_eq!(send(&mut pair, Fake::Stale).unwrap().job_id, 1);
    let elsewhere = send(&mut pair, Fake::UnknownChannel { channel_id: 50 }).unwrap();
    let error = SubmitSharesError {
        channel_id: 50,
        sequence_number: elsewhere.sequence_number,
        error_code: b"invalid-channel-id",
    };
    pair.events();
    pair.say(&error).unwrap();
    assert!(matches!(pair.events()[0], MinerEvent::ShareRejected { is_fake: true, .. }));
    let report = pair.miner.report();
    assert_eq!((report.submitted, report.fakes_submitted), (9, 8));
}

#[test]
fn events_that_nobody_drains_are_bounded() {
    let mut pair = Pair::mining(config());
    for tip in 0..5_000u32 {
        pair.say(&job(tip + 2, None)).unwrap();
        pair.say(&prev_hash(tip + 2, tip as u8)).unwrap();
    }
    assert_eq!(pair.events().len(), loadgen::miner::EVENTS_MAX);
    assert!(pair.miner.report().events_lost > 1_000);
}
