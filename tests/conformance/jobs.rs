//! Jobs and tips: statements 46 to 61.

use std::sync::Arc;

use bitcoin::consensus::encode::deserialize;
use gateway::reason::Reason;
use sv2::ToMiner;
use sv2::message::common::{
    REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, REQUIRES_WORK_SELECTION,
};
use sv2::message::mining::SetCustomMiningJob;
use work::payout::Payout;
use work::{BlockHash, Job, MerkleNode, Template, TemplateId, Tip};

use crate::plain::{House, Peer, PeerChannel, UNIX_SECONDS, in_memory, job, setup};

/// A job whose whole extranonce has so many bytes.
pub fn job_with(extranonce_bytes: usize) -> Arc<Job> {
    big_job(1, extranonce_bytes, 840_000, &[34], 12)
}

fn big_job(id: u64, extranonce_bytes: usize, height: u32, outputs: &[usize], path: u8) -> Arc<Job> {
    let template = Template {
        id: TemplateId(id),
        tip: Tip {
            prev_hash: BlockHash([1; 32]),
            nbits: in_memory::NBITS,
            min_ntime: UNIX_SECONDS - 600,
        },
        height,
        version: 0x2000_0000,
        cur_time: UNIX_SECONDS,
        coinbase_value: 312_500_000,
        witness_commitment: [0x6a; 38],
        transactions: Vec::new().into(),
        merkle_path: (0..path).map(|node| MerkleNode([node; 32])).collect(),
        rules: None,
        max_ntime: None,
    };
    let payouts: Vec<Payout> = outputs
        .iter()
        .map(|bytes| Payout { script_pubkey: vec![0x51; *bytes], share: 1 })
        .collect();
    Arc::new(Job::new(Arc::new(template), &payouts, b"/ReserveGrid/", extranonce_bytes).unwrap())
}

/// A job or a tip that was heard, in short: type, channel, job, whether it may be mined at once.
fn heard(peer: &mut Peer) -> Vec<(u8, u32, u32, bool)> {
    let mut all = Vec::new();
    while !peer.heard.is_empty() {
        all.push(peer.next(|message| match message {
            ToMiner::NewMiningJob(job) => {
                (0x15, job.channel_id, job.job_id, job.min_ntime.is_some())
            }
            ToMiner::NewExtendedMiningJob(job) => {
                (0x1f, job.channel_id, job.job_id, job.min_ntime.is_some())
            }
            ToMiner::SetNewPrevHash(tip) => (0x20, tip.channel_id, tip.job_id, true),
            ToMiner::SetTarget(target) => (0x21, target.channel_id, 0, true),
            other => panic!("{other:?}"),
        }));
    }
    all
}

/// Goal: behind an open comes a future job and then the tip that names it; nothing comes before.
/// Method: a peer that opens before there is work hears nothing until there is (statement 46, 47
/// and 51), for both kinds.
#[test]
fn s46_s47_s51_a_future_job_then_its_tip() {
    for is_extended in [false, true] {
        let mut house = House::without_work(in_memory::settings());
        let mut peer = house.set_up(0);
        match is_extended {
            true => house.say(&mut peer, &crate::plain::open_extended(1, 4)),
            false => house.say(&mut peer, &crate::plain::open_standard(1)),
        }
        assert_eq!(peer.types(), Vec::<u8>::new(), "an open is parked until there is work");
        house.publish(job(1, 1));
        house.listen(&mut peer);
        peer.heard.remove(0);
        let kind = if is_extended { 0x1f } else { 0x15 };
        assert_eq!(heard(&mut peer), [(kind, 2, 1, false), (0x20, 2, 1, true)]);
        house.publish(job(2, 1));
        house.listen(&mut peer);
        assert_eq!(heard(&mut peer), [(kind, 2, 2, true)], "on the same tip: mined at once");
        house.publish(job(3, 2));
        house.listen(&mut peer);
        assert_eq!(heard(&mut peer), [(kind, 2, 3, false), (0x20, 2, 3, true)]);
    }
}

/// Goal: earlier jobs of a tip stay good, those of the tip before are stale.
#[test]
fn s48_a_new_tip_makes_earlier_jobs_stale() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_extended(&mut peer, 4);
    let first = house.good(&channel, 1);
    house.publish(job(2, 1));
    house.listen(&mut peer);
    peer.types();
    assert_eq!(house.submit(&mut peer, &first), Ok(()), "same tip: the older job still counts");
    let second = house.good(&channel, 2);
    house.publish(job(3, 2));
    house.listen(&mut peer);
    peer.types();
    assert_eq!(house.submit(&mut peer, &second), Err("stale-share".into()));
    assert_eq!(house.refused_shares(Reason::StalePrevhash), 1);
}

/// Goal: numbers rise by one, are never used twice on a connection, and no two jobs wait for a
/// tip at once (statements 49 and 50, and a Bitaxe's eight places).
/// Method: tips, fees, new channels and new targets on one connection; every number heard.
#[test]
fn s49_s50_job_numbers_rise() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_standard(&mut peer);
    let mut newest = 1;
    let mut pending = 0;
    let mut jobs = heard(&mut peer);
    for round in 2..40u64 {
        let ceiling = if round % 5 == 0 { 0x0f } else { 0xff };
        house.publish(job(round, (round / 3) as u8));
        house.listen(&mut peer);
        if round % 4 == 0 {
            update(&mut house, &mut peer, &channel, ceiling, 1.0e6 * round as f32);
        }
        jobs.extend(heard(&mut peer));
    }
    for (kind, _, job_id, is_active) in jobs.into_iter().skip(2) {
        match (kind, is_active) {
            (0x15, _) => {
                assert_eq!(job_id, newest + 1, "numbers rise by one");
                newest = job_id;
                pending += u32::from(!is_active);
                assert!(pending <= 1);
            }
            (0x20, _) => {
                assert_eq!(job_id, newest);
                pending = 0;
            }
            _ => (),
        }
    }
    assert!(newest > 39, "there were fresh jobs behind targets");
}

fn update(
    house: &mut House,
    peer: &mut Peer,
    channel: &PeerChannel,
    ceiling: u8,
    nominal_hash_rate: f32,
) {
    let mut maximum_target = [0xff; 32];
    maximum_target[31] = ceiling;
    let channel_id = channel.channel_id;
    house.say(
        peer,
        &sv2::message::mining::UpdateChannel { channel_id, nominal_hash_rate, maximum_target },
    );
}

/// Goal: the root of a standard job is that of its coinbase with the channel's prefix.
/// Method: rebuilt from the coinbase's bytes; two channels have different roots.
#[test]
fn s52_the_root_is_that_of_the_channels_coinbase() {
    let mut house = House::new();
    let mut peer = house.set_up(REQUIRES_STANDARD_JOBS);
    let mut roots = Vec::new();
    for _ in 0..2 {
        let channel = house.open_standard(&mut peer);
        let root = peer.next(|message| {
            let ToMiner::NewMiningJob(job) = message else { panic!("{message:?}") };
            job.merkle_root
        });
        let coinbase = house.job.coinbase.stripped(&channel.extranonce_prefix);
        let mut node = work::hash::sha256d(&coinbase);
        for sibling in &house.job.template.merkle_path {
            node = work::hash::sha256d(&[node, sibling.0].concat());
        }
        assert_eq!(root, node);
        roots.push(root);
        peer.types();
    }
    assert_ne!(roots[0], roots[1]);
}

/// Goal: the parts of an extended job make a stripped coinbase whose txid leads to the root that
/// shares are judged by; its scriptSig is 2 to 100 bytes, its length byte right, and it begins
/// with the height (statements 53 and 54).
/// Method: parsed by the bitcoin crate, at heights of every push form and every grant.
#[test]
fn s53_s54_the_parts_of_an_extended_job_make_a_coinbase() {
    for height in [1, 16, 17, 128, 32_768, 840_000, 8_388_608] {
        for rollable in [4usize, 8, 16] {
            let mut settings = in_memory::settings();
            settings.extranonce_bytes = 8 + rollable;
            let mut house = House::without_work(settings);
            house.publish(big_job(1, 8 + rollable, height, &[22, 34], 12));
            let mut peer = house.set_up(0);
            let channel = house.open_extended(&mut peer, 2);
            let (coinbase, path) = peer.next(|message| {
                let ToMiner::NewExtendedMiningJob(job) = message else { panic!("{message:?}") };
                let rolled = vec![0x5a; channel.extranonce_size];
                let parts = [
                    job.coinbase_tx_prefix,
                    &channel.extranonce_prefix,
                    &rolled,
                    job.coinbase_tx_suffix,
                ];
                (parts.concat(), job.merkle_path.to_vec())
            });
            let transaction: bitcoin::Transaction = deserialize(&coinbase).unwrap();
            assert!(transaction.is_coinbase());
            let script = transaction.input[0].script_sig.as_bytes();
            assert!((2..=100).contains(&script.len()));
            let pushed = bitcoin::script::Builder::new().push_int(height.into()).into_script();
            assert!(script.starts_with(pushed.as_bytes()), "BIP34 height {height}");
            let mut node = work::hash::sha256d(&coinbase);
            for sibling in path {
                node = work::hash::sha256d(&[node, sibling].concat());
            }
            let share = house.good(&channel, 1);
            assert_eq!(share.claim.merkle_root.0, node);
            peer.types();
            assert_eq!(house.submit(&mut peer, &share), Ok(()));
        }
    }
}

/// Goal: a job fits the 8 192 bytes that the smallest clients take.
/// Method: the most outputs that nodes keep room for, and the longest path there can be.
#[test]
fn s55_a_job_fits_the_smallest_clients() {
    let most = (1..64)
        .take_while(|count| {
            let payouts = vec![Payout { script_pubkey: vec![0x51; 34], share: 1 }; *count];
            work::reserve::check(&payouts, &[b'x'; 40], 24).is_ok()
        })
        .last()
        .unwrap();
    let mut settings = in_memory::settings();
    settings.extranonce_bytes = 24;
    let mut house = House::without_work(settings);
    let path = work::merkle::MERKLE_PATH_MAX as u8;
    house.publish(big_job(1, 24, 840_000, &vec![34; most], path));
    let mut peer = house.set_up(0);
    house.open_extended(&mut peer, 16);
    let (header, payload) = peer.heard.remove(0);
    assert_eq!(header.msg_type, 0x1f);
    assert!(payload.len() <= 8_192, "{} bytes", payload.len());
    assert!(path <= 20);
}

/// Goal: members of a group get one extended job together; a miner without groups gets one per
/// channel (statement 56).
#[test]
fn s56_one_job_for_a_group() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channels = [house.open_extended(&mut peer, 4), {
        heard(&mut peer);
        house.open_standard(&mut peer)
    }];
    heard(&mut peer);
    house.publish(job(2, 1));
    house.listen(&mut peer);
    assert_eq!(heard(&mut peer), [(0x1f, 1, 2, true)]);
    house.publish(job(3, 2));
    house.listen(&mut peer);
    assert_eq!(heard(&mut peer), [(0x1f, 1, 3, false), (0x20, 1, 3, true)]);
    for channel in &channels {
        let share = house.good(channel, 3);
        assert_eq!(house.submit(&mut peer, &share), Ok(()), "{channel:?}");
    }
}

/// Goal: no SetExtranoncePrefix is ever sent, so no job can have another prefix than its channel
/// (statement 57): shares on every job of a long run are judged with the one prefix.
#[test]
fn s57_a_prefix_never_changes() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_extended(&mut peer, 4);
    for id in 2..30 {
        house.publish(job(id, id as u8));
        house.listen(&mut peer);
        let share = house.good(&channel, id as u32);
        assert_eq!(house.submit(&mut peer, &share), Ok(()));
        assert!(peer.types().iter().all(|kind| *kind != 0x19));
    }
}

/// Goal: the tip goes out before anything else of the new work: in one write with the job it
/// names, ahead of acknowledgements and of further jobs (statement 58).
#[test]
fn s58_the_tip_comes_first() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_extended(&mut peer, 4);
    peer.types();
    let share = house.good(&channel, 1);
    assert_eq!(house.submit(&mut peer, &share), Ok(()));
    house.make_durable();
    house.publish(job(2, 2));
    house.listen(&mut peer);
    assert_eq!(peer.types(), [0x1f, 0x20, 0x1c]);
}

/// Goal: a silent gateway says something every minute, newer than before (statement 59).
/// Method: ten minutes without news; each job is new, later in time, and its shares count.
#[test]
fn s59_a_job_at_least_every_minute() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_extended(&mut peer, 4);
    peer.types();
    let mut jobs = 1;
    for minute in 1..=10 {
        house.pass(60_000);
        house.shard.on_tick(house.now);
        house.listen(&mut peer);
        let times = peer.next(|message| {
            let ToMiner::NewExtendedMiningJob(job) = message else { panic!("{message:?}") };
            assert!(job.job_id > jobs);
            jobs = job.job_id;
            job.min_ntime.unwrap()
        });
        assert_eq!(times, UNIX_SECONDS + 60 * minute);
        let mut share = house.good(&channel, jobs);
        assert_eq!(house.submit(&mut peer, &share), Err("invalid-share".into()), "older time");
        share.claim.ntime = times;
        while !channel.target.is_met_by(&share.claim.hash(&house.job.template.tip)) {
            share.claim.nonce += 1;
        }
        assert_eq!(house.submit(&mut peer, &share), Ok(()));
    }
}

/// Goal: who requires version rolling is given jobs that allow it (statement 60); where it is off
/// such a miner is refused at setup and jobs say so.
#[test]
fn s60_version_rolling_as_the_job_says() {
    for (mask, is_allowed) in [(work::share::VERSION_ROLLING_MASK, true), (0, false)] {
        let mut settings = in_memory::settings();
        settings.version_mask = mask;
        let mut house = House::with(settings);
        let mut strict = house.greet();
        house.say(&mut strict, &setup(REQUIRES_VERSION_ROLLING));
        assert_eq!(strict.types(), [if is_allowed { 0x01 } else { 0x02 }]);
        let mut peer = house.set_up(0);
        house.open_extended(&mut peer, 4);
        peer.next(|message| {
            let ToMiner::NewExtendedMiningJob(job) = message else { panic!("{message:?}") };
            assert_eq!(job.version_rolling_allowed, is_allowed);
        });
    }
}

/// Goal: who selects its own work gets neither jobs nor tips, and its custom job is answered with
/// the request's number (statements 61 and 87).
#[test]
fn s61_s87_no_jobs_for_custom_work() {
    let mut house = House::new();
    let mut peer = house.set_up(REQUIRES_WORK_SELECTION);
    let channel = house.open_extended(&mut peer, 8);
    for id in 2..5 {
        house.publish(job(id, id as u8));
        house.listen(&mut peer);
    }
    assert_eq!(peer.types(), Vec::<u8>::new());
    let custom = SetCustomMiningJob {
        channel_id: channel.channel_id,
        request_id: 41,
        mining_job_token: b"token",
        version: 0x2000_0000,
        prev_hash: [4; 32],
        min_ntime: UNIX_SECONDS,
        nbits: in_memory::NBITS,
        coinbase_tx_version: 2,
        coinbase_prefix: b"\x03\x01\x02\x03",
        coinbase_tx_input_n_sequence: 0,
        coinbase_tx_outputs: b"\x00",
        coinbase_tx_locktime: 0,
        merkle_path: &[],
    };
    house.say(&mut peer, &custom);
    peer.next(|message| {
        let ToMiner::SetCustomMiningJobError(error) = message else { panic!("{message:?}") };
        assert_eq!((error.request_id, error.error_code), (41, &b"jd-not-supported"[..]));
    });
    assert_eq!(peer.closed, None);
}

/// Goal: the smallest time of jobs on one tip never goes back, whatever the clocks of their sources
/// say: clients of the reference library leave over it.
/// Method: a template whose time is a minute earlier, and one on a new tip.
#[test]
fn times_on_one_tip_never_go_back() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    house.open_extended(&mut peer, 4);
    peer.types();
    let at = |id: u64, tip: u8, cur_time: u32| {
        let mut job = (*job(id, tip)).clone();
        let mut template = (*job.template).clone();
        (template.cur_time, template.coinbase_value) = (cur_time, 1_000 + id);
        job.template = Arc::new(template);
        Arc::new(job)
    };
    house.publish(at(2, 1, UNIX_SECONDS - 60));
    house.listen(&mut peer);
    let time = |message: &ToMiner<'_>| match message {
        ToMiner::NewExtendedMiningJob(job) => job.min_ntime,
        ToMiner::SetNewPrevHash(tip) => Some(tip.min_ntime),
        other => panic!("{other:?}"),
    };
    assert_eq!(peer.next(time), Some(UNIX_SECONDS));
    house.publish(at(3, 2, UNIX_SECONDS - 60));
    house.listen(&mut peer);
    assert_eq!(peer.next(time), None);
    assert_eq!(peer.next(time), Some(UNIX_SECONDS - 60));
}

/// Goal: a member of a group that already has the newest job does not make the others wait: they
/// get it together, under a number that nobody was given.
#[test]
fn a_channel_that_is_ahead_costs_its_group_nothing() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    for _ in 0..3 {
        house.open_extended(&mut peer, 4);
        peer.types();
    }
    house.stall(&peer);
    house.publish(job(2, 2));
    // The next open is answered with the newest job before the others have heard of it.
    let open = peer.seal(&crate::plain::open_extended(9, 4));
    house.deliver(&mut peer, &open);
    house.unstall(&mut peer);
    let jobs: Vec<(u8, u32)> = heard_of_jobs(&mut peer);
    let to_group = jobs.iter().filter(|(_, channel_id)| *channel_id == 1).count();
    assert!(to_group >= 1 && jobs.len() <= 5, "{jobs:?}");
}

/// Type and channel of each job and tip among what was heard.
fn heard_of_jobs(peer: &mut Peer) -> Vec<(u8, u32)> {
    let mut all = Vec::new();
    while !peer.heard.is_empty() {
        all.extend(peer.next(|message| match message {
            ToMiner::NewExtendedMiningJob(job) => Some((0x1f, job.channel_id)),
            ToMiner::SetNewPrevHash(tip) => Some((0x20, tip.channel_id)),
            _ => None,
        }));
    }
    all
}

/// Goal: where a member of a group is ahead, the others begin at the time that they are told.
/// Method: one of them has a new target on its way; a share at the time of the tip counts.
#[test]
fn a_group_begins_when_its_tip_says() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channels: Vec<PeerChannel> = (0..2)
        .map(|_| {
            let channel = house.open_for(&mut peer, true, 4);
            peer.types();
            channel
        })
        .collect();
    house.stall(&peer);
    house.publish(job(2, 1));
    house.listen(&mut peer);
    house.publish(job(3, 3));
    let target = peer.seal(&sv2::message::mining::UpdateChannel {
        channel_id: channels[0].channel_id,
        nominal_hash_rate: house.rate_for(2),
        maximum_target: [0xff; 32],
    });
    house.deliver(&mut peer, &target);
    let open = peer.seal(&crate::plain::open_extended(9, 4));
    house.deliver(&mut peer, &open);
    house.unstall(&mut peer);
    let mut named = (0, 0);
    while !peer.heard.is_empty() {
        peer.next(|message| {
            if let ToMiner::SetNewPrevHash(tip) = message
                && tip.channel_id == 1
            {
                named = (tip.job_id, tip.min_ntime);
            }
        });
    }
    assert_ne!(named, (0, 0), "a tip for the group");
    let mut share = house.grind(&channels[0], named.0, |_, _| true);
    share.claim.ntime = named.1;
    share.mine_good(&channels[0]);
    assert_eq!(house.submit(&mut peer, &share), Ok(()));
}
