//! Targets: statements 62 to 67. Statement 35 is with the channels; how well difficulties are
//! chosen (66) is in tests/vardiff.rs.

use gateway::reason::Reason;
use sv2::ToMiner;
use sv2::message::mining::{OpenExtendedMiningChannel, OpenStandardMiningChannel, UpdateChannel};
use work::{Difficulty, Target};

use crate::plain::{House, Peer, PeerChannel, job, open_extended, open_standard};

/// Hashes of an ordinary share in these tests.
const HASHES: u32 = 16;

fn update(channel: &PeerChannel, nominal_hash_rate: f32, maximum_target: Target) -> UpdateChannel {
    UpdateChannel {
        channel_id: channel.channel_id,
        nominal_hash_rate,
        maximum_target: maximum_target.to_le_bytes(),
    }
}

/// The target that is announced by the oldest message.
fn new_target(peer: &mut Peer, channel: &PeerChannel) -> Target {
    peer.next(|message| {
        let ToMiner::SetTarget(set) = message else { panic!("no target: {message:?}") };
        assert_eq!(set.channel_id, channel.channel_id);
        Target::from_le_bytes(set.maximum_target)
    })
}

/// The number of the job that the oldest message brings, which may be mined at once.
fn fresh_job(peer: &mut Peer, channel: &PeerChannel) -> u32 {
    peer.next(|message| match message {
        ToMiner::NewMiningJob(job) => {
            assert_eq!(job.channel_id, channel.channel_id);
            assert!(job.min_ntime.is_some());
            job.job_id
        }
        ToMiner::NewExtendedMiningJob(job) => {
            assert_eq!(job.channel_id, channel.channel_id);
            assert!(job.min_ntime.is_some());
            job.job_id
        }
        other => panic!("no job: {other:?}"),
    })
}

/// Credit of the newest accepted share.
fn credit(house: &House) -> Difficulty {
    house.shares.last().unwrap().0.difficulty
}

/// Goal: a share is judged by the target that its job was given with; on the job that was out
/// when a target was announced, the easier of both counts; credit follows the target that it was
/// accepted under.
/// Method: a harder and an easier target, on both kinds of channel; shares between the two
/// targets on the job before, on the fresh one and on the one behind it.
#[test]
fn s62_a_share_is_judged_by_its_jobs_target() {
    for is_extended in [false, true] {
        for (first, second) in [(HASHES, 16 * HASHES), (16 * HASHES, HASHES)] {
            let mut house = House::new();
            let mut peer = house.set_up(0);
            let channel = house.open_for(&mut peer, is_extended, first);
            peer.types();
            house.say(&mut peer, &update(&channel, house.rate_for(second), Target::MAX));
            let announced = new_target(&mut peer, &channel);
            assert_eq!(fresh_job(&mut peer, &channel), 2);
            let (easy, hard) = match first < second {
                true => (channel.target, announced),
                false => (announced, channel.target),
            };
            assert!(hard < easy);
            let between = |house: &House, job_id| {
                house.grind(&channel, job_id, |hash, _| {
                    easy.is_met_by(hash) && !hard.is_met_by(hash)
                })
            };
            let in_flight = between(&house, 1);
            assert_eq!(house.submit(&mut peer, &in_flight), Ok(()), "the easier of both");
            assert_eq!(credit(&house).target(), easy);
            let mut behind = between(&house, 2);
            behind.claim.ntime += 1;
            behind.mine(&channel, |hash, _| easy.is_met_by(hash) && !hard.is_met_by(hash));
            let expected =
                if announced == easy { Ok(()) } else { Err("difficulty-too-low".to_owned()) };
            assert_eq!(house.submit(&mut peer, &behind), expected, "the new target alone");
            let mut claimed = behind.clone();
            claimed.job_id = 1;
            let repeated = expected.and(Err("duplicate-share".to_owned()));
            assert_eq!(house.submit(&mut peer, &claimed), repeated, "the number is no choice");
            house.publish(job(2, 1));
            house.listen(&mut peer);
            let mut good = house.grind(&channel, 3, |hash, _| hard.is_met_by(hash));
            // The same work once more, whose headers began a second later.
            good.claim.ntime += 1;
            good.claim.version ^= 1 << 20;
            good.mine(&channel, |hash, _| hard.is_met_by(hash));
            assert_eq!(house.submit(&mut peer, &good), Ok(()));
            assert_eq!(credit(&house).target(), announced);
        }
    }
}

/// Goal: whatever a miner says of its rate, no target is easier than its ceiling, and none zero.
/// Method: ceilings of every size with rates from nothing to absurd, as a walk on one channel.
#[test]
fn s63_no_target_is_easier_than_the_ceiling() {
    for is_extended in [false, true] {
        let mut house = House::new();
        let mut peer = house.set_up(0);
        let channel = house.open_for(&mut peer, is_extended, HASHES);
        peer.types();
        let mut announced = 0;
        for shift in [1u32, 0, 3, 9, 20, 31, 40, 5, 60, 2] {
            for rate in [0.0, 1.0, house.rate_for(HASHES), 1.0e12, 1.0e20, f32::MAX] {
                let ceiling = Target(Target::MAX.0 >> shift);
                house.say(&mut peer, &update(&channel, rate, ceiling));
                if peer.heard.is_empty() {
                    continue;
                }
                let target = new_target(&mut peer, &channel);
                assert!(target <= ceiling && target != Target::ZERO, "{rate} below 2^-{shift}");
                announced += 1;
                peer.types();
                // A miner's jobs come and go between its updates.
                house.publish(job(announced + 1, announced as u8));
                house.listen(&mut peer);
                peer.types();
            }
        }
        assert!(announced > 20);
    }
}

/// Goal: a ceiling below the target in force brings a new target at once; what makes no sense is
/// refused by name and changes nothing.
#[test]
fn s64_updates() {
    for is_extended in [false, true] {
        let mut house = House::new();
        let mut peer = house.set_up(0);
        let channel = house.open_for(&mut peer, is_extended, HASHES);
        peer.types();
        let rate = house.rate_for(HASHES);
        house.say(&mut peer, &update(&channel, rate, channel.target));
        assert_eq!(peer.types(), Vec::<u8>::new(), "at the ceiling nothing changes");
        let ceiling = Target(channel.target.0 - 1);
        house.say(&mut peer, &update(&channel, rate, ceiling));
        assert!(new_target(&mut peer, &channel) <= ceiling);
        let newest = fresh_job(&mut peer, &channel);
        let wrong = [
            (f32::NAN, Target::MAX, "invalid-nominal-hashrate"),
            (f32::INFINITY, Target::MAX, "invalid-nominal-hashrate"),
            (-1.0, Target::MAX, "invalid-nominal-hashrate"),
            (rate, Target::ZERO, "max-target-out-of-range"),
        ];
        for (rate, ceiling, code) in wrong {
            house.say(&mut peer, &update(&channel, rate, ceiling));
            peer.next(|message| {
                let ToMiner::UpdateChannelError(error) = message else { panic!("{message:?}") };
                assert_eq!(error.channel_id, channel.channel_id);
                assert_eq!(error.error_code, code.as_bytes());
            });
            assert!(peer.heard.is_empty());
        }
        assert_eq!(house.refusals(Reason::InvalidEncoding), 3);
        house.publish(job(2, 2));
        house.listen(&mut peer);
        peer.types();
        let good = house
            .grind(&channel, newest + 1, |hash, _| Target(channel.target.0 >> 1).is_met_by(hash));
        assert_eq!(house.submit(&mut peer, &good), Ok(()), "the channel works on");
    }
}

/// Goal: right behind a target comes a job that may be mined at once, so that no reading of the
/// target costs a share; shares of both readings are accepted (statement 65).
/// Method: on both kinds, several times in a row, each job number new.
#[test]
fn s65_a_job_follows_each_target() {
    for is_extended in [false, true] {
        let mut house = House::new();
        let mut peer = house.set_up(0);
        let channel = house.open_for(&mut peer, is_extended, HASHES);
        peer.types();
        let mut newest = 1;
        let mut target = channel.target;
        for round in 0..6u32 {
            house.publish(job(u64::from(round) + 2, round as u8 + 2));
            house.listen(&mut peer);
            newest += 1;
            peer.types();
            let hashes = if round % 2 == 0 { 4 * HASHES } else { HASHES };
            house.say(&mut peer, &update(&channel, house.rate_for(hashes), Target::MAX));
            let kind = if is_extended { 0x1f } else { 0x15 };
            let types: Vec<u8> = peer.heard.iter().map(|(header, _)| header.msg_type).collect();
            assert_eq!(types, [0x21, kind]);
            let announced = new_target(&mut peer, &channel);
            let fresh = fresh_job(&mut peer, &channel);
            assert_eq!(fresh, newest + 1);
            // One miner takes the target at once on the job before, one with the next job.
            let readings =
                [(newest, target, 0, 0), (newest, announced, 0, 1), (fresh, announced, 1, 0)];
            for (job_id, reading, second, bit) in readings {
                let mut share = house.grind(&channel, job_id, |hash, _| reading.is_met_by(hash));
                share.claim.ntime += second;
                share.claim.version ^= bit << 20;
                share.mine(&channel, |hash, _| reading.is_met_by(hash));
                assert_eq!(house.submit(&mut peer, &share), Ok(()), "round {round}");
            }
            (newest, target) = (fresh, announced);
        }
    }
}

/// Goal: a miner that sends ten times what it should gets a harder target within a second or two,
/// and one that falls silent an easier one within minutes; what is refused counts for nothing.
/// Method: a second of accepted shares on both kinds of channel, a second of refused ones beside.
#[test]
fn s66_targets_follow_accepted_shares() {
    for is_extended in [false, true] {
        let mut goal = crate::plain::settings();
        goal.target_shares_per_minute = 60.0;
        let mut house = House::with(goal);
        let mut peer = house.set_up(0);
        let channel = house.open_for(&mut peer, is_extended, HASHES);
        peer.types();
        let mut share = house.good(&channel, 1);
        for _ in 0..60 {
            house.pass(50);
            share.mine_next(&channel);
            let mut refused = share.clone();
            refused.job_id = 99;
            house.submit(&mut peer, &refused).unwrap_err();
            assert_eq!(peer.types(), Vec::<u8>::new(), "refused shares say nothing");
        }
        let mut shares = 0;
        while peer.heard.is_empty() {
            house.pass(50);
            share.mine_next(&channel);
            assert_eq!(house.submit(&mut peer, &share), Ok(()));
            shares += 1;
            assert!(shares <= 40, "two seconds at twenty times the rate");
        }
        let harder = new_target(&mut peer, &channel);
        assert!(harder < Target(channel.target.0 >> 1), "by more than a factor of two");
        fresh_job(&mut peer, &channel);
        let mut easiest = harder;
        for _ in 0..600 {
            house.pass(1_000);
            house.expire(&mut peer);
            house.listen(&mut peer);
            if !peer.heard.is_empty() {
                easiest = easiest.max(new_target(&mut peer, &channel));
                fresh_job(&mut peer, &channel);
            }
        }
        assert!(easiest > harder, "ten minutes of silence");
    }
}

/// Goal: no rate overflows: nothing, the tiniest, the largest and every power of ten between give
/// a channel with a target that is not zero.
#[test]
fn s67_every_hash_rate_gives_a_target() {
    let mut settings = crate::plain::settings();
    settings.max_channels_per_connection = 1_024;
    settings.target_shares_per_minute = 6.0;
    let mut house = House::with(settings);
    let mut peer = house.set_up(0);
    let powers = (-45..=38).map(|power| 10f32.powi(power));
    let rates: Vec<f32> =
        [0.0, f32::MIN_POSITIVE, 1.0e20, f32::MAX].into_iter().chain(powers).collect();
    let mut last = None;
    for nominal_hash_rate in rates {
        let request = OpenStandardMiningChannel { nominal_hash_rate, ..open_standard(1) };
        house.say(&mut peer, &request);
        let standard = opened_target(&mut peer);
        let request = OpenExtendedMiningChannel { nominal_hash_rate, ..open_extended(1, 4) };
        house.say(&mut peer, &request);
        assert_eq!(opened_target(&mut peer), standard, "{nominal_hash_rate} hashes a second");
        assert_ne!(standard, Target::ZERO);
        last = Some(standard);
    }
    assert!(last.unwrap() < Target::DIFFICULTY_1, "the largest rate is not an easy one");
}

fn opened_target(peer: &mut Peer) -> Target {
    let target = peer.next(|message| match message {
        ToMiner::OpenStandardMiningChannelSuccess(opened) => Target::from_le_bytes(opened.target),
        ToMiner::OpenExtendedMiningChannelSuccess(opened) => Target::from_le_bytes(opened.target),
        other => panic!("not opened: {other:?}"),
    });
    peer.types();
    target
}

/// Goal: when targets change several times on one tip, every job keeps the target that it was
/// given with, and a job follows each target (statements 62 and 65).
/// Method: three targets, each twice as hard as the one before, on each kind of channel of one
/// connection; at the end a share on every job by its own target.
#[test]
fn s62_s65_several_targets_on_one_tip() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channels = [false, true].map(|is_extended| {
        let channel = house.open_for(&mut peer, is_extended, 2);
        peer.types();
        channel
    });
    for channel in &channels {
        let mut given = vec![(1, channel.target)];
        for exponent in 2..5 {
            house.say(&mut peer, &update(channel, house.rate_for(1 << exponent), Target::MAX));
            let target = new_target(&mut peer, channel);
            given.push((fresh_job(&mut peer, channel), target));
        }
        for ((job_id, target), second) in given.into_iter().zip(0..) {
            let mut share = house.grind(channel, job_id, |hash, _| target.is_met_by(hash));
            // The same work, and each job begins a second later.
            share.claim.ntime += second;
            share.mine(channel, |hash, _| target.is_met_by(hash));
            assert_eq!(house.submit(&mut peer, &share), Ok(()), "job {job_id}");
            assert_eq!(credit(&house).target(), target);
        }
    }
}
