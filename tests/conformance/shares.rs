//! Shares: statements 69 to 76 and 78, on both kinds of channel.

use gateway::reason::Reason;
use sv2::message::common::REQUIRES_STANDARD_JOBS;
use sv2::message::mining::UpdateChannel;
use work::share::VERSION_ROLLING_MASK;

use crate::plain::{House, Peer, PeerChannel, UNIX_SECONDS, job, settings};

/// Hashes of an ordinary share: few enough to be quick, enough for a bad one to be found.
const HASHES: u32 = 16;

/// Runs a test on a standard channel, on one of a miner that takes only those, and on an extended
/// one; each in a house of its own.
fn on_each_kind(test: impl Fn(&mut House, &mut Peer, &PeerChannel)) {
    for (flags, is_extended) in [(0, false), (REQUIRES_STANDARD_JOBS, false), (0, true)] {
        let mut house = House::new();
        let mut peer = house.set_up(flags);
        let channel = house.open_for(&mut peer, is_extended, HASHES);
        peer.types();
        test(&mut house, &mut peer, &channel);
        assert_eq!(peer.closed, None);
    }
}

/// Goal: a good share counts once. The same header again is a duplicate, also under another
/// number, and also under the number of another job with the same work.
#[test]
fn s69_a_header_counts_once() {
    on_each_kind(|house, peer, channel| {
        let mut share = house.good(channel, 1);
        assert_eq!(house.submit(peer, &share), Ok(()));
        for sequence_number in [1, 2, 0, u32::MAX] {
            share.sequence_number = sequence_number;
            assert_eq!(house.submit(peer, &share), Err("duplicate-share".into()));
        }
        // The same work under a number of its own, behind a new target.
        let easier = UpdateChannel {
            channel_id: channel.channel_id,
            nominal_hash_rate: house.rate_for(HASHES / 2),
            maximum_target: [0xff; 32],
        };
        house.say(peer, &easier);
        assert_eq!(peer.types().len(), 2, "a target and a fresh job");
        share.job_id = 2;
        assert_eq!(house.submit(peer, &share), Err("invalid-share".into()), "before its time");
        share.job_id = 1;
        assert_eq!(house.submit(peer, &share), Err("duplicate-share".into()));
        assert_eq!(house.refused_shares(Reason::DuplicateNonce), 5);
        assert_eq!(house.shares.len(), 1);
    });
}

/// Goal: whatever differs in the header makes another share: nonce, time, version, extranonce,
/// job; whatever does not, makes none. What is remembered is bounded, and beyond it nothing is
/// accepted twice.
#[test]
fn s70_what_makes_a_share_another() {
    on_each_kind(|house, peer, channel| {
        let first = house.good(channel, 1);
        assert_eq!(house.submit(peer, &first), Ok(()));
        let mut other = first.clone();
        other.mine_next(channel);
        assert_eq!(house.submit(peer, &other), Ok(()), "nonce");
        let mut other = first.clone();
        other.claim.ntime += 1;
        other.mine_good(channel);
        assert_eq!(house.submit(peer, &other), Ok(()), "time");
        let mut other = first.clone();
        other.claim.version ^= 0x20;
        other.mine_good(channel);
        assert_eq!(house.submit(peer, &other), Ok(()), "version");
        if channel.extranonce_size > 0 {
            let mut other = first.clone();
            other.rolled[0] ^= 1;
            other.mine_good(channel);
            assert_eq!(house.submit(peer, &other), Ok(()), "extranonce");
        }
        house.publish(job(2, 2));
        house.listen(peer);
        let other = house.good(channel, 2);
        assert_eq!(house.submit(peer, &other), Ok(()), "job");
        // The key is the header alone: the miner's own numbers are no part of it.
        let mut renamed = other.clone();
        renamed.sequence_number = 99;
        assert_eq!(house.submit(peer, &renamed), Err("duplicate-share".into()));
    });
    let mut narrow = settings();
    narrow.seen_room = 100;
    let mut house = House::with(narrow);
    let mut peer = house.set_up(0);
    let channel = house.open_for(&mut peer, true, HASHES);
    peer.types();
    let mut share = house.good(&channel, 1);
    let mut accepted = Vec::new();
    let refused = loop {
        match house.submit(&mut peer, &share) {
            Ok(()) => accepted.push(share.clone()),
            Err(code) => break code,
        }
        assert!(accepted.len() < 1_000, "the memory has no bound");
        share.mine_next(&channel);
    };
    assert_eq!(refused, "invalid-share");
    assert_eq!(house.refused_shares(Reason::DedupCapacityExceeded), 1);
    assert!(accepted.len() >= 100);
    for share in accepted {
        assert_eq!(house.submit(&mut peer, &share), Err("duplicate-share".into()));
    }
}

/// Goal: a number that was never given, one that is given later, and jobs of older tips are told
/// apart.
#[test]
fn s71_jobs_that_are_not_in_force() {
    on_each_kind(|house, peer, channel| {
        let mut share = house.good(channel, 1);
        for job_id in [0, 2, 99, u32::MAX] {
            share.job_id = job_id;
            assert_eq!(house.submit(peer, &share), Err("invalid-job-id".into()), "job {job_id}");
        }
        assert_eq!(house.refused_shares(Reason::InvalidJobId), 4);
        share.job_id = 1;
        for tip in 2..=3 {
            house.publish(job(tip, tip as u8));
            house.listen(peer);
            peer.types();
            assert_eq!(house.submit(peer, &share), Err("stale-share".into()), "on tip {tip}");
        }
        assert_eq!(house.refused_shares(Reason::StalePrevhash), 2);
        house.publish(job(4, 4));
        house.listen(peer);
        peer.types();
        assert_eq!(house.submit(peer, &share), Err("invalid-job-id".into()), "forgotten");
        assert_eq!(house.refused_shares(Reason::UnknownJob), 1);
        let newest = house.good(channel, 4);
        assert_eq!(house.submit(peer, &newest), Ok(()));
        // A job that was out before the channel was is not the channel's.
        let late = house.open_for(peer, channel.extranonce_size > 0, HASHES);
        peer.types();
        let mut early = house.good(&late, 3);
        assert_eq!(house.submit(peer, &early), Err("invalid-job-id".into()));
        early.job_id = 4;
        assert_eq!(house.submit(peer, &early), Ok(()));
    });
}

/// Goal: an extranonce of another length is refused, as is a share of the other kind.
#[test]
fn s72_the_extranonce_and_the_kind() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_for(&mut peer, true, HASHES);
    peer.types();
    let good = house.good(&channel, 1);
    for length in (0..=32).filter(|length| *length != channel.extranonce_size) {
        let mut share = good.clone();
        share.rolled = vec![0x5a; length];
        house.say(&mut peer, &share.extended(&[]));
        assert_eq!(house.answer(&mut peer), Err("bad-extranonce-size".into()), "{length} bytes");
    }
    assert_eq!(house.refused_shares(Reason::InvalidExtranonceSize), 32);
    house.say(&mut peer, &good.standard());
    assert_eq!(house.answer(&mut peer), Err("invalid-channel-id".into()), "a standard share");
    assert_eq!(house.submit(&mut peer, &good), Ok(()));

    let standard = house.open_for(&mut peer, false, HASHES);
    peer.types();
    let good = house.good(&standard, 1);
    for rolled in [vec![], vec![0; 8]] {
        let mut share = good.clone();
        share.rolled = rolled;
        house.say(&mut peer, &share.extended(&[]));
        assert_eq!(house.answer(&mut peer), Err("invalid-channel-id".into()), "an extended share");
    }
    assert_eq!(house.refused_shares(Reason::SubscriberRoleViolation), 3);
    assert_eq!(house.submit(&mut peer, &good), Ok(()));
}

/// Goal: the time may roll with the clock and ten minutes beyond, from the job's on; the
/// reference miner, a minute ahead, is within.
/// Method: the edges, right after the job and 100 seconds later, and the edge of the clock.
#[test]
fn s73_the_time_of_a_share() {
    on_each_kind(|house, peer, channel| {
        for elapsed in [0, 40] {
            house.pass(u64::from(elapsed) * 1_000);
            let edge = elapsed + 600;
            for (ahead, expected) in [
                (0i64, Ok(())),
                (1, Ok(())),
                (60, Ok(())),
                (i64::from(elapsed) + 2, Ok(())),
                (i64::from(edge), Ok(())),
                (i64::from(edge) + 1, Err("invalid-share".to_owned())),
                (-1, Err("invalid-share".to_owned())),
                (-600, Err("invalid-share".to_owned())),
                (7_201, Err("invalid-share".to_owned())),
            ] {
                let mut share = house.good(channel, 1);
                share.claim.ntime = u32::try_from(i64::from(UNIX_SECONDS) + ahead).unwrap();
                // Another header each time.
                share.claim.version ^= (elapsed + 1) << 16;
                share.mine_good(channel);
                assert_eq!(house.submit(peer, &share), expected, "{ahead} s after {elapsed} s");
            }
        }
        assert_eq!(house.refused_shares(Reason::NtimeOutOfRange), 8);
    });
}

/// Goal: where the bits bind the time (testnet4), no share and no job lies behind that bound (D32).
#[test]
fn s73_the_time_that_the_bits_are_right_for() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_for(&mut peer, true, HASHES);
    let bound = UNIX_SECONDS + 50;
    let mut bound_job = (*job(2, 2)).clone();
    let mut template = (*bound_job.template).clone();
    template.max_ntime = Some(bound);
    bound_job.template = template.into();
    house.publish(bound_job.into());
    house.listen(&mut peer);
    for (ntime, expected) in [(bound, Ok(())), (bound + 1, Err("invalid-share".to_owned()))] {
        let mut share = house.good(&channel, 2);
        share.claim.ntime = ntime;
        share.mine_good(&channel);
        assert_eq!(house.submit(&mut peer, &share), expected);
    }
    house.pass(120_000);
    house.shard.on_tick(house.now);
    house.listen(&mut peer);
    let refreshed = house.shard.state.board.current().unwrap();
    assert_eq!((refreshed.generation, refreshed.ntime), (3, bound));
}

/// Goal: the rollable bits may be anything, one of the others spoils the share.
#[test]
fn s74_version_bits() {
    on_each_kind(|house, peer, channel| {
        for bit in 0..32 {
            let mut share = house.good(channel, 1);
            share.claim.version ^= 1 << bit;
            share.mine_good(channel);
            let is_rollable = VERSION_ROLLING_MASK >> bit & 1 == 1;
            assert_eq!(is_rollable, (5..=28).contains(&bit));
            let expected = match is_rollable {
                true => Ok(()),
                false => Err("invalid-non-rollable-version-bit".to_owned()),
            };
            assert_eq!(house.submit(peer, &share), expected, "bit {bit}");
        }
        assert_eq!(house.refused_shares(Reason::InvalidVersionBits), 8);
        let mut share = house.good(channel, 1);
        share.claim.version ^= VERSION_ROLLING_MASK;
        share.mine_good(channel);
        assert_eq!(house.submit(peer, &share), Ok(()), "all of them at once");
    });
}

/// Goal: where rolling is off, any other version is refused.
#[test]
fn s75_a_fixed_version() {
    for is_extended in [false, true] {
        let mut fixed = settings();
        fixed.version_mask = 0;
        let mut house = House::with(fixed);
        let mut peer = house.set_up(0);
        let channel = house.open_for(&mut peer, is_extended, HASHES);
        peer.types();
        for bit in [0, 5, 13, 28, 29, 31] {
            let mut share = house.good(&channel, 1);
            share.claim.version ^= 1 << bit;
            share.mine_good(&channel);
            let expected = Err("version-rolling-not-allowed".to_owned());
            assert_eq!(house.submit(&mut peer, &share), expected, "bit {bit}");
        }
        assert_eq!(house.refused_shares(Reason::VersionRollingNotAllowed), 6);
        let good = house.good(&channel, 1);
        assert_eq!(house.submit(&mut peer, &good), Ok(()));
    }
}

/// Goal: a hash above the target is refused, one below it accepted. That equality is enough is
/// shown where targets are compared.
#[test]
fn s76_the_hash_and_the_target() {
    on_each_kind(|house, peer, channel| {
        let mut share = house.grind(channel, 1, |hash, target| !target.is_met_by(hash));
        for _ in 0..20 {
            assert_eq!(house.submit(peer, &share), Err("difficulty-too-low".into()));
            share.claim.nonce += 1;
            share.mine(channel, |hash, target| !target.is_met_by(hash));
        }
        for _ in 0..20 {
            share.mine_next(channel);
            assert_eq!(house.submit(peer, &share), Ok(()));
        }
        assert_eq!(house.refused_shares(Reason::DifficultyBelowTarget), 20);
    });
}

/// Goal: what leaves for the backend says all about the share: who, where, on which job and tip,
/// and what it is worth.
#[test]
fn s78_an_accepted_share_says_all_about_itself() {
    on_each_kind(|house, peer, channel| {
        let mut share = house.good(channel, 1);
        share.sequence_number = 4_711;
        share.claim.version ^= 0x40;
        share.claim.ntime += 5;
        share.mine_good(channel);
        assert_eq!(house.submit(peer, &share), Ok(()));
        let (record, _) = house.shares.last().unwrap();
        let template = &house.job.template;
        assert_eq!(record.share_hash, share.claim.hash(&template.tip));
        assert_eq!(record.sequence_number, 4_711);
        assert_eq!((record.job_id, record.template_id), (1, template.id));
        assert_eq!((record.height, record.prev_hash), (template.height, template.tip.prev_hash));
        assert_eq!((record.nbits, record.version), (template.tip.nbits, share.claim.version));
        assert_eq!((record.ntime, record.nonce), (share.claim.ntime, share.claim.nonce));
        assert_eq!(record.rolled.as_slice(), share.rolled);
        assert_eq!(record.difficulty.target(), channel.target);
        assert_eq!(record.accepted_at, house.now.unix);
        let (miner, prefix) = house.opened.last().unwrap();
        assert_eq!((&**miner, prefix), ("alice.rig1", &channel.extranonce_prefix));
    });
}
