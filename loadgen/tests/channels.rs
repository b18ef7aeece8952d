//! Connections with extended channels and groups: what a correct server sees of the miner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use loadgen::miner::{
    ChannelKind, ChannelKinds, Fake, MinerConfig, MinerError, MinerEvent, Step, WorkerTlv,
};
use server::*;
use sv2::message::EXTENSION_WORKER;
use sv2::message::common::SetupConnectionSuccess;
use sv2::message::extension::{RequestExtensionsError, RequestExtensionsSuccess, user_identity};
use sv2::message::mining::{
    CloseChannel, NewExtendedMiningJob, NewMiningJob, OpenStandardMiningChannelSuccess,
    SetExtranoncePrefix, SetGroupChannel, SetNewPrevHash, SubmitSharesError, SubmitSharesStandard,
    SubmitSharesSuccess,
};
use work::share::{Claim, Terms, VERSION_ROLLING_MASK, judge};
use work::{BlockHash, MerkleNode, Target, Tip};

const TIP: Tip = Tip { prev_hash: BlockHash([1; 32]), nbits: NBITS, min_ntime: UNIX };

fn extended() -> MinerConfig {
    MinerConfig { kinds: ChannelKinds::Extended, flags: 0, ..config() }
}

/// Two standard and two extended channels in one group: 2 and 4, 3 and 5.
fn mixed() -> MinerConfig {
    MinerConfig { kinds: ChannelKinds::Mixed, channels: 4, ..config() }
}

/// The gateway's own judgement of a share, with the root rebuilt from the coinbase.
fn check_share(heard: &Heard, target: Target) -> SubmitSharesStandard {
    let (share, root) = match heard {
        Heard::Standard(share) if share.job_id == 1 => (share, MerkleNode([1; 32])),
        Heard::Standard(share) => {
            let txid = coinbase().txid(&whole_extranonce(share.channel_id), &[]);
            (share, work::merkle::root(txid, &PATH.map(MerkleNode)))
        }
        Heard::Extended(share, extranonce, _) => {
            assert_eq!(extranonce.len(), usize::from(ROLLED_BYTES));
            let txid = coinbase().txid(&prefix(share.channel_id), extranonce);
            (share, work::merkle::root(txid, &PATH.map(MerkleNode)))
        }
        other => panic!("{other:?} is no share"),
    };
    let SubmitSharesStandard { version, ntime, nonce, .. } = *share;
    let claim = Claim { version, merkle_root: root, ntime, nonce };
    let terms = Terms {
        version: 0x2000_0000,
        version_mask: VERSION_ROLLING_MASK,
        ntime_min: UNIX,
        ntime_max: UNIX + 600,
        target,
    };
    assert_eq!(judge(&claim, &claim.hash(&TIP), &terms), Ok(()), "{heard:?}");
    *share
}

#[test]
fn an_extended_channel_rolls_its_extranonce() {
    let mut pair = Pair::grouped(extended());
    let shares = pair.mine_all(20);
    let mut extranonces = Vec::new();
    for (number, heard) in shares.iter().enumerate() {
        let share = check_share(heard, easy_target());
        assert_eq!((share.channel_id, share.job_id), (CHANNEL, 1));
        assert_eq!(share.sequence_number, number as u32);
        let Heard::Extended(_, extranonce, tlv) = heard else { panic!("{heard:?}") };
        assert!(tlv.is_empty());
        extranonces.push(extranonce.clone());
    }
    extranonces.dedup();
    assert_eq!(extranonces.len(), 20);
    assert_eq!(pair.miner.report().extranonce_prefix[..], prefix(CHANNEL));
    let view = pair.miner.channels().next().unwrap();
    assert_eq!((view.kind, view.extranonce_size), (ChannelKind::Extended, 8));
}

#[test]
fn the_least_extranonce_is_asked_for() {
    let mut pair = Pair::secured(MinerConfig { min_extranonce_size: 7, ..extended() });
    pair.say(&setup_success()).unwrap();
    let open = Heard::OpenExtended { request_id: 1, min_extranonce_size: 7 };
    assert_eq!(pair.hear(), [Heard::Setup, open]);
    assert_eq!(pair.say(&extended_success(1, &prefix(CHANNEL))), Ok(()));
}

/// Goal: one job of the group is work for every member, each under its own extranonce.
#[test]
fn a_group_job_is_for_all_members() {
    let mut pair = Pair::grouped(mixed());
    assert_eq!(pair.miner.report().channels_opened, 4);
    let coinbase = coinbase();
    pair.say(&extended_job(&coinbase, GROUP, 7, Some(UNIX + 1))).unwrap();
    let mut of_channel = [0; 4];
    for heard in pair.mine_all(40) {
        let share = check_share(&heard, easy_target());
        assert_eq!(share.job_id, 7);
        assert!(share.ntime > UNIX);
        let place = &mut of_channel[(share.channel_id - CHANNEL) as usize];
        // Every channel counts its own shares.
        assert_eq!(share.sequence_number, *place);
        *place += 1;
        assert_eq!(matches!(heard, Heard::Extended(..)), share.channel_id % 2 == 1);
    }
    assert!(of_channel.iter().all(|count| *count > 0), "{of_channel:?}");
    let roots: Vec<MerkleNode> =
        pair.miner.channels().map(|channel| channel.job.unwrap().merkle_root).collect();
    let of_first = coinbase.txid(&whole_extranonce(CHANNEL), &[]);
    assert_eq!(roots[0], work::merkle::root(of_first, &PATH.map(MerkleNode)));
}

#[test]
fn a_tip_of_the_group_switches_all_members() {
    let mut pair = Pair::grouped(mixed());
    pair.say(&extended_job(&coinbase(), GROUP, 8, None)).unwrap();
    pair.events();
    pair.say(&SetNewPrevHash { channel_id: GROUP, ..prev_hash(8, 2) }).unwrap();
    let switches: Vec<(u32, bool, bool)> = pair
        .events()
        .iter()
        .map(|event| match event {
            MinerEvent::TipSwitched { channel_id, is_first, is_complete, .. } => {
                (*channel_id, *is_first, *is_complete)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        switches,
        [(2, false, false), (3, false, false), (4, false, false), (5, false, true)]
    );
    let report = pair.miner.report();
    assert_eq!(report.tips.back().unwrap().prev_hash, BlockHash([2; 32]));
    // Each channel may be switched by itself, too, to a job of the group.
    pair.say(&extended_job(&coinbase(), GROUP, 9, None)).unwrap();
    pair.say(&SetNewPrevHash { channel_id: 4, ..prev_hash(9, 3) }).unwrap();
    let tips: Vec<u8> = pair.miner.channels().map(|c| c.tip.unwrap().prev_hash.0[0]).collect();
    assert_eq!(tips, [2, 2, 3, 2]);
}

#[test]
fn a_target_of_the_group_is_for_all_members_next_jobs() {
    let mut pair = Pair::grouped(MinerConfig { fresh_job_ms: Some(500), ..mixed() });
    let hard = Target(Target::MAX.0 >> 8);
    pair.say(&set_target(GROUP, hard)).unwrap();
    assert!(pair.miner.channels().all(|channel| channel.target == hard));
    assert!(pair.miner.channels().all(|channel| channel.job.unwrap().target == easy_target()));
    pair.say(&extended_job(&coinbase(), GROUP, 7, Some(UNIX))).unwrap();
    assert!(pair.miner.channels().all(|channel| channel.job.unwrap().target == hard));
    for heard in pair.mine_all(8) {
        check_share(&heard, hard);
    }
    assert_eq!(pair.miner.deadline(), None);
}

/// Goal: without a job after the new target the connection ends in time, and with it it goes on.
#[test]
fn a_new_target_wants_a_new_job() {
    let mut pair = Pair::grouped(MinerConfig { fresh_job_ms: Some(500), ..mixed() });
    pair.micros = 1_000;
    pair.say(&set_target(3, Target(Target::MAX.0 >> 8))).unwrap();
    // Another one meanwhile does not give more time, and a job of another channel does not count.
    pair.micros = 300_000;
    pair.say(&set_target(3, Target(Target::MAX.0 >> 9))).unwrap();
    pair.say(&extended_job(&coinbase(), 5, 7, Some(UNIX))).unwrap();
    assert_eq!(pair.miner.on_deadline(now(500_999)), Ok(()));
    let expected = MinerError::TargetWithoutJob { channel_id: 3, after_ms: 500 };
    assert_eq!(pair.miner.on_deadline(now(501_000)), Err(expected));
    assert_eq!(pair.miner.step(), Step::Idle);

    let mut pair = Pair::grouped(MinerConfig { fresh_job_ms: Some(500), ..mixed() });
    pair.say(&set_target(3, Target(Target::MAX.0 >> 8))).unwrap();
    pair.say(&extended_job(&coinbase(), 3, 7, Some(UNIX))).unwrap();
    assert_eq!(pair.miner.on_deadline(now(60_000_000)), Ok(()));
}

#[test]
fn updates_go_out_and_lower_the_ceiling() {
    let mut pair = Pair::grouped(MinerConfig {
        update_every_ms: Some(100),
        fresh_job_ms: Some(500),
        ..mixed()
    });
    let updates = |pair: &mut Pair, micros| -> Vec<u32> {
        pair.miner.mine(now(micros), 0, &mut pair.wire).unwrap();
        let of = |heard: Heard| match heard {
            Heard::Update { channel_id, max_target } => {
                assert_eq!(max_target, Target::MAX);
                channel_id
            }
            other => panic!("{other:?}"),
        };
        pair.hear().into_iter().map(of).collect()
    };
    assert_eq!(updates(&mut pair, 0), [0; 0]);
    assert_eq!(updates(&mut pair, 99_999), [0; 0]);
    assert_eq!(updates(&mut pair, 100_000), [2]);
    assert_eq!(updates(&mut pair, 199_999), [0; 0]);
    assert_eq!(updates(&mut pair, 250_000), [3]);

    let lower = Target(Target::MAX.0 >> 10);
    pair.miner.update_channel(now(0), 4, 1.0, lower, &mut pair.wire).unwrap();
    // What was on its way does not break the new ceiling.
    pair.say(&set_target(4, easy_target())).unwrap();
    pair.say(&NewMiningJob { channel_id: 4, ..job(7, Some(UNIX)) }).unwrap();
    let late = MinerError::TargetNotLowered { channel_id: 4, after_ms: 500 };
    assert_eq!(pair.miner.deadline(), Some(work::Mono(500_000)));
    pair.say(&set_target(4, lower)).unwrap();
    pair.say(&NewMiningJob { channel_id: 4, ..job(8, Some(UNIX)) }).unwrap();
    assert_eq!(pair.miner.deadline(), None);
    assert_eq!(pair.say(&set_target(4, easy_target())).unwrap_err().code(), "target_out_of_range");

    let mut pair = Pair::grouped(MinerConfig { fresh_job_ms: Some(500), ..mixed() });
    pair.miner.update_channel(now(0), 4, 1.0, lower, &mut pair.wire).unwrap();
    assert_eq!(pair.miner.on_deadline(now(500_000)), Err(late));
}

/// Goal: a new prefix is for later jobs; a future job that is there keeps the old one.
#[test]
fn a_new_prefix_waits_for_the_next_job() {
    let mut pair = Pair::grouped(extended());
    let coinbase = coinbase();
    let root = |pair: &Pair| pair.miner.current_job().unwrap().merkle_root;
    let expected =
        |prefix: &[u8]| work::merkle::root(coinbase.txid(prefix, &[0; 8]), &PATH.map(MerkleNode));
    pair.say(&extended_job(&coinbase, CHANNEL, 2, None)).unwrap();
    let extranonce_prefix = &[9; 8];
    pair.say(&SetExtranoncePrefix { channel_id: CHANNEL, extranonce_prefix }).unwrap();
    pair.say(&prev_hash(2, 1)).unwrap();
    assert_eq!(root(&pair), expected(&prefix(CHANNEL)));
    for heard in pair.mine_all(3) {
        check_share(&heard, easy_target());
    }
    pair.say(&extended_job(&coinbase, CHANNEL, 3, Some(UNIX))).unwrap();
    assert_eq!(root(&pair), expected(&[9; 8]));
    let Heard::Extended(_, extranonce, _) = &pair.mine_all(1)[0] else { panic!("no share") };
    assert_eq!(extranonce.len(), 8);
}

#[test]
fn channels_move_between_groups() {
    let mut pair = Pair::grouped(mixed());
    let members = [2, 5];
    let channel_ids = (&members[..]).into();
    pair.say(&SetGroupChannel { group_channel_id: 99, channel_ids }).unwrap();
    pair.say(&extended_job(&coinbase(), GROUP, 7, Some(UNIX))).unwrap();
    pair.say(&extended_job(&coinbase(), 99, 8, Some(UNIX))).unwrap();
    let jobs: Vec<u32> = pair.miner.channels().map(|c| c.job.unwrap().job_id).collect();
    assert_eq!(jobs, [8, 7, 7, 8]);
}

/// Goal: the server closes channels one by one and by their group; the last one is the end.
#[test]
fn the_server_closes_channels() {
    let mut pair = Pair::grouped(mixed());
    pair.mine_all(40);
    pair.events();
    pair.say(&CloseChannel { channel_id: 3, reason_code: b"enough" }).unwrap();
    let closed = pair.events();
    assert!(matches!(closed[..], [MinerEvent::ChannelClosed { channel_id: 3, .. }]));
    let report = pair.miner.report();
    assert!(report.unanswered > 0 && report.unanswered + report.outstanding as u64 == 40);
    // Shares that were on their way may still be answered.
    let error = SubmitSharesError { channel_id: 3, sequence_number: 0, error_code: b"unknown" };
    pair.say(&error).unwrap();
    pair.say(&extended_job(&coinbase(), GROUP, 7, Some(UNIX))).unwrap();
    assert!(
        pair.mine_all(20).iter().all(|heard| check_share(heard, easy_target()).channel_id != 3)
    );
    let members = [4];
    let channel_ids = (&members[..]).into();
    pair.say(&SetGroupChannel { group_channel_id: 99, channel_ids }).unwrap();
    pair.say(&CloseChannel { channel_id: GROUP, reason_code: b"" }).unwrap();
    let left: Vec<u32> = pair.miner.channels().map(|channel| channel.channel_id).collect();
    assert_eq!((left, pair.miner.report().channels_closed), (vec![4], 3));
    let end = pair.say(&CloseChannel { channel_id: 99, reason_code: b"" });
    assert_eq!(end.unwrap_err().code(), "channel_closed");
}

/// Goal: shares on their way to many channels that are closed at once may all be answered.
#[test]
fn a_large_group_is_closed_at_once() {
    let channels = 300;
    let mut pair = Pair::grouped(MinerConfig { channels, ..mixed() });
    let members = [CHANNEL];
    let channel_ids = (&members[..]).into();
    pair.say(&SetGroupChannel { group_channel_id: 9_999, channel_ids }).unwrap();
    pair.mine_all(2 * channels);
    pair.say(&CloseChannel { channel_id: GROUP, reason_code: b"drain" }).unwrap();
    assert_eq!(pair.miner.channels().len(), 1);
    for channel_id in CHANNEL + 1..CHANNEL + channels as u32 {
        let error = SubmitSharesError { channel_id, sequence_number: 0, error_code: b"closed" };
        pair.say(&error).unwrap();
    }
    assert_eq!(pair.mine_all(3).len(), 3);
}

#[test]
fn the_miner_closes_channels() {
    let mut pair = Pair::grouped(mixed());
    pair.miner.close(4, &mut pair.wire).unwrap();
    assert_eq!(pair.hear(), [Heard::Close { channel_id: 4 }]);
    // Messages that crossed the close, even a job and an answer, do not matter.
    pair.say(&NewMiningJob { channel_id: 4, ..job(7, Some(UNIX)) }).unwrap();
    pair.say(&set_target(4, Target::ZERO)).unwrap();
    let success = SubmitSharesSuccess {
        channel_id: 4,
        last_sequence_number: 0,
        new_submits_accepted_count: 1,
        new_shares_sum: 1,
    };
    pair.say(&success).unwrap();
    pair.miner.close(GROUP, &mut pair.wire).unwrap();
    assert_eq!(pair.hear(), [Heard::Close { channel_id: GROUP }]);
    assert!(!pair.miner.is_open());
    pair.say(&extended_job(&coinbase(), GROUP, 8, Some(UNIX))).unwrap();
    assert_eq!(pair.miner.mine(now(1), 100, &mut pair.wire).unwrap().hashes, 0);
    // Further channels may be opened, under numbers that are free again.
    pair.miner.open_channel(now(0), ChannelKind::Standard, &mut pair.wire).unwrap();
    assert_eq!(pair.hear(), [Heard::OpenStandard { request_id: 5 }]);
    let again = standard_success(5, &[7; EXTRANONCE_BYTES]);
    pair.say(&OpenStandardMiningChannelSuccess { channel_id: 4, ..again }).unwrap();
    pair.say(&NewMiningJob { channel_id: 4, ..job(1, None) }).unwrap();
    pair.say(&SetNewPrevHash { channel_id: 4, ..prev_hash(1, 1) }).unwrap();
    assert_eq!(pair.mine(1)[0].channel_id, 4);
}

#[test]
fn requests_are_sent_as_far_as_allowed() {
    let mut pair = Pair::secured(MinerConfig { flags: 0, opens_in_flight: 3, ..mixed() });
    pair.say(&setup_success()).unwrap();
    let (standard, extended) = (
        |request_id| Heard::OpenStandard { request_id },
        |request_id| Heard::OpenExtended { request_id, min_extranonce_size: 4 },
    );
    assert_eq!(pair.hear(), [Heard::Setup, standard(1), extended(2), standard(3)]);
    // Answers may come in any order.
    pair.say(&extended_success(2, &prefix(3))).unwrap();
    assert_eq!(pair.hear(), [extended(4)]);
    pair.say(&standard_success(1, &whole_extranonce(2))).unwrap();
    assert_eq!(pair.hear(), []);
    let ids: Vec<u32> = pair.miner.channels().map(|channel| channel.channel_id).collect();
    assert_eq!(ids, [3, 2]);
    // Every request and every channel without work has its time.
    pair.micros = 7;
    pair.say(&extended_job(&coinbase(), 3, 1, None)).unwrap();
    pair.say(&SetNewPrevHash { channel_id: 3, ..prev_hash(1, 1) }).unwrap();
    assert_eq!(pair.miner.step(), Step::Mining);
    assert_eq!(pair.miner.deadline(), Some(work::Mono(30_000_000)));
    let error = pair.miner.on_deadline(now(30_000_000)).unwrap_err();
    assert_eq!(error.code(), "step_timeout");
}

#[test]
fn version_rolling_follows_the_job() {
    let mut pair = Pair::grouped(extended());
    let coinbase = coinbase();
    let fixed = NewExtendedMiningJob {
        version_rolling_allowed: false,
        ..extended_job(&coinbase, CHANNEL, 2, Some(UNIX))
    };
    pair.say(&fixed).unwrap();
    for heard in pair.mine_all(5) {
        assert_eq!(check_share(&heard, easy_target()).version, 0x2000_0000);
    }
    pair.say(&extended_job(&coinbase, CHANNEL, 3, Some(UNIX))).unwrap();
    let rolled =
        |heard: &Heard| check_share(heard, easy_target()).version & VERSION_ROLLING_MASK != 0;
    assert!(pair.mine_all(5).iter().any(rolled));
}

#[test]
fn workers_are_named_once_the_extension_is_agreed_on() {
    let asks = MinerConfig { extensions: vec![0x4001, EXTENSION_WORKER], workers: 3, ..extended() };
    let open = |config: MinerConfig, supported: Option<&[u16]>| {
        let mut pair = Pair::secured(config);
        pair.say(&setup_success()).unwrap();
        if let Some(supported) = supported {
            assert_eq!(pair.hear(), [Heard::Setup, Heard::Extensions(vec![0x4001, 2])]);
            let supported_extensions = supported.into();
            if supported.is_empty() {
                let error = RequestExtensionsError {
                    request_id: 1,
                    unsupported_extensions: (&[0x4001, 2][..]).into(),
                    required_extensions: supported_extensions,
                };
                pair.say(&error).unwrap();
            } else {
                pair.say(&RequestExtensionsSuccess { request_id: 1, supported_extensions })
                    .unwrap();
            }
        }
        pair.say(&extended_success(1, &prefix(CHANNEL))).unwrap();
        pair.say(&extended_job(&coinbase(), CHANNEL, 1, None)).unwrap();
        pair.say(&prev_hash(1, 1)).unwrap();
        pair.hear();
        let shares = pair.mine_all(4);
        let tlv = |heard: &Heard| match heard {
            Heard::Extended(_, _, tlv) => user_identity(tlv).map(<[u8]>::to_vec),
            other => panic!("{other:?}"),
        };
        shares.iter().map(tlv).collect::<Vec<_>>()
    };
    let name = |number: u8| Some([b"worker-", &[b'0' + number][..]].concat());
    let named = [name(0), name(1), name(2), name(0)];
    let unnamed = vec![None; 4];
    assert_eq!(open(asks.clone(), Some(&[EXTENSION_WORKER])), named);
    assert_eq!(open(asks.clone(), Some(&[0x4001])), unnamed);
    assert_eq!(open(asks.clone(), Some(&[])), unnamed);
    let big = MinerConfig { worker_tlv: WorkerTlv::BigEndian, ..asks.clone() };
    assert_eq!(open(big, Some(&[EXTENSION_WORKER])), named);
    let silent = MinerConfig { extensions: Vec::new(), ..asks };
    assert_eq!(open(silent.clone(), None), unnamed);
    assert_eq!(open(MinerConfig { names_workers_unasked: true, ..silent }, None), named);
}

#[test]
fn a_server_of_extended_channels_only_is_no_contradiction() {
    let mut pair = Pair::secured(extended());
    pair.say(&SetupConnectionSuccess { used_version: 2, flags: 2 }).unwrap();
    assert_eq!(pair.miner.step(), Step::Opening);
    let mut pair = Pair::secured(MinerConfig { flags: 0, ..mixed() });
    let error = pair.say(&SetupConnectionSuccess { used_version: 2, flags: 2 }).unwrap_err();
    assert_eq!(error.code(), "flags_contradict");
}

#[test]
fn fakes_of_extended_channels() {
    let mut pair = Pair::grouped(extended());
    let honest = pair.mine_all(1).remove(0);
    let mut send = |fake| {
        let sent = pair.miner.submit_fake(now(0), fake, &mut pair.wire).unwrap();
        assert!(sent.is_some());
        pair.hear().remove(0)
    };
    let Heard::Extended(fields, extranonce, _) = honest else { panic!("{honest:?}") };
    let Heard::Extended(again, same, _) = send(Fake::Replay) else { panic!("no replay") };
    assert_eq!((again.nonce, again.version, same), (fields.nonce, fields.version, extranonce));
    let Heard::Extended(_, short, _) = send(Fake::ExtranonceLength) else { panic!("other kind") };
    assert_eq!(short.len(), 7);
    assert!(matches!(send(Fake::OtherKind), Heard::Standard(_)));
    let Heard::Extended(unknown, ..) = send(Fake::UnknownJob { job_id: 9 }) else { panic!() };
    assert_eq!(unknown.job_id, 9);

    let mut pair = Pair::mining(config());
    pair.miner.submit_fake(now(0), Fake::OtherKind, &mut pair.wire).unwrap();
    assert!(matches!(pair.hear()[0], Heard::Extended(..)));
    let length = pair.miner.submit_fake(now(0), Fake::ExtranonceLength, &mut pair.wire).unwrap();
    assert_eq!(length, None);
}
