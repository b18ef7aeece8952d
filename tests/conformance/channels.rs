//! Channels: statements 34 to 45, 84 and 85.

use std::collections::HashSet;

use gateway::reason::{Close, CloseCause, Reason};
use sv2::ToMiner;
use sv2::message::common::{REQUIRES_STANDARD_JOBS, REQUIRES_WORK_SELECTION};
use sv2::message::mining::{
    CloseChannel, OpenExtendedMiningChannel, OpenStandardMiningChannel, UpdateChannel,
};
use work::Target;

use crate::plain::{EXTRANONCE_BYTES, House, Peer, job, open_extended, open_standard, settings};

/// The code of the refusal that was heard last, with its request.
fn refusal(peer: &mut Peer) -> (u32, String) {
    peer.next(|message| {
        let ToMiner::OpenMiningChannelError(error) = message else {
            panic!("not refused: {message:?}")
        };
        (error.request_id, String::from_utf8(error.error_code.to_vec()).unwrap())
    })
}

/// Goal: channels of both kinds on one connection are numbered apart from each other and from
/// their group, and the request's number comes back.
/// Method: 20 channels of alternating kinds; statement 34 in both opens of the harness.
#[test]
fn s34_channel_ids_are_unique_and_no_group_id() {
    let mut house = House::with(gateway_settings(64));
    let mut peer = house.set_up(0);
    let mut seen = HashSet::new();
    for number in 0..20 {
        let channel = match number % 2 {
            0 => house.open_standard(&mut peer),
            _ => house.open_extended(&mut peer, 4),
        };
        peer.types();
        assert_eq!(channel.group_channel_id, 1);
        assert!(seen.insert(channel.channel_id), "channel id twice");
    }
    assert!(!seen.contains(&1));
}

/// Goal: the first target is never easier than the miner's `max_target`, by all 256 bits.
/// Method: ceilings around powers of two, with bits in the lowest and in the highest bytes.
#[test]
fn s35_the_first_target_is_within_max_target() {
    let mut house = House::with(gateway_settings(1_024));
    let mut peer = house.set_up(0);
    for shift in [0u32, 1, 7, 8, 100, 201, 223, 224, 239, 255] {
        for low in [0u8, 1] {
            let mut max_target = [0u8; 32];
            max_target[(shift / 8) as usize] = 1 << (shift % 8);
            max_target[0] |= low;
            let request = OpenStandardMiningChannel { max_target, ..open_standard(5) };
            house.say(&mut peer, &request);
            let max = Target::from_le_bytes(max_target);
            peer.next(|message| match message {
                ToMiner::OpenStandardMiningChannelSuccess(opened) => {
                    assert!(Target::from_le_bytes(opened.target) <= max);
                    assert_ne!(opened.target, [0; 32]);
                }
                ToMiner::OpenMiningChannelError(error) => {
                    assert_eq!(error.error_code, b"max-target-out-of-range");
                    assert!(shift < 200, "only a ceiling beyond all difficulties is refused");
                }
                other => panic!("{other:?}"),
            });
            peer.types();
        }
    }
}

/// Goal: impossible requests are refused by name and the connection lives; a rate of zero is none
/// of them.
#[test]
fn s36_impossible_requests_are_refused_and_the_connection_stays() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let rates = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, -0.0];
    for (number, nominal_hash_rate) in rates.into_iter().enumerate() {
        let request_id = number as u32;
        house.say(
            &mut peer,
            &OpenStandardMiningChannel { nominal_hash_rate, ..open_standard(request_id) },
        );
        assert_eq!(refusal(&mut peer), (request_id, "invalid-nominal-hashrate".into()));
        house.say(
            &mut peer,
            &OpenExtendedMiningChannel { nominal_hash_rate, ..open_extended(request_id, 4) },
        );
        assert_eq!(refusal(&mut peer), (request_id, "invalid-nominal-hashrate".into()));
    }
    assert_eq!(house.refusals(Reason::InvalidEncoding), 10);
    house.say(&mut peer, &OpenStandardMiningChannel { max_target: [0; 32], ..open_standard(9) });
    assert_eq!(refusal(&mut peer), (9, "max-target-out-of-range".into()));
    assert_eq!(house.refusals(Reason::ChannelOpenRefused), 1);
    house
        .say(&mut peer, &OpenStandardMiningChannel { nominal_hash_rate: 0.0, ..open_standard(10) });
    assert_eq!(peer.types(), [0x11, 0x15, 0x20]);
    assert_eq!(peer.closed, None);
}

/// Goal: what is granted suffices, both parts make one length, and more than there is is refused.
/// Method: every wish from 0 to beyond what the gateway has; statements 37, 39 and 40.
#[test]
fn s37_s39_s40_what_is_granted_of_the_extranonce() {
    for rollable in [4u16, 8, 16] {
        let mut settings = gateway_settings(64);
        settings.extranonce_bytes = 8 + usize::from(rollable);
        let mut house = House::without_work(settings);
        house.publish(crate::jobs::job_with(8 + usize::from(rollable)));
        let mut peer = house.set_up(0);
        let full = 8 + usize::from(rollable);
        for wish in 0..=rollable {
            let channel = house.open_extended(&mut peer, wish);
            peer.types();
            assert!(channel.extranonce_size >= usize::from(wish), "{wish} of {rollable}");
            assert_eq!(channel.extranonce_prefix.len() + channel.extranonce_size, full);
            assert!(full <= 32);
            assert!(wish > 8 || channel.extranonce_size <= 8, "SV1 firmware takes no more");
        }
        house.say(&mut peer, &open_extended(7, rollable + 1));
        assert_eq!(refusal(&mut peer), (7, "min-extranonce-size-too-large".into()));
        let standard = house.open_standard(&mut peer);
        assert_eq!(standard.extranonce_prefix.len(), full, "its prefix is the whole extranonce");
    }
}

/// Goal: no two live channels can hash the same coinbase: of two shards, over connections, kinds
/// and a restart.
/// Method: the fixed bytes of all channels are compared; a rolled part cannot make up for them,
/// because the first eight bytes are fixed everywhere.
#[test]
fn s38_no_two_channels_share_a_coinbase() {
    let mut seen = HashSet::new();
    for (shard, epoch, instance_id) in [(0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2)] {
        let mut settings = gateway_settings(64);
        (settings.shard, settings.epoch, settings.instance_id) = (shard, epoch, instance_id);
        let mut house = House::with(settings);
        for _ in 0..3 {
            let mut peer = house.set_up(0);
            for _ in 0..4 {
                for channel in [house.open_standard(&mut peer), {
                    peer.types();
                    house.open_extended(&mut peer, 2)
                }] {
                    peer.types();
                    assert!(seen.insert(channel.extranonce_prefix[..8].to_vec()));
                }
            }
        }
    }
    assert_eq!(seen.len(), 96);
}

/// Goal: a miner that takes standard jobs only gets no extended channel and no group message.
/// Method: several channels and two new jobs; every message is for one of its channels.
#[test]
fn s41_standard_jobs_only() {
    let mut house = House::new();
    let mut peer = house.set_up(REQUIRES_STANDARD_JOBS);
    house.say(&mut peer, &open_extended(3, 4));
    let code = "extended-channels-not-supported-for-standard-jobs";
    assert_eq!(refusal(&mut peer), (3, code.into()));
    assert_eq!(house.refusals(Reason::SubscriberRoleViolation), 1);
    let ids: Vec<u32> = (0..3)
        .map(|_| {
            let channel = house.open_standard(&mut peer);
            peer.types();
            channel.channel_id
        })
        .collect();
    for id in 2..4 {
        house.publish(job(id, id as u8));
        house.listen(&mut peer);
        let mut told = Vec::new();
        while !peer.heard.is_empty() {
            told.push(peer.next(|message| match message {
                ToMiner::NewMiningJob(job) => job.channel_id,
                ToMiner::SetNewPrevHash(tip) => tip.channel_id,
                other => panic!("{other:?}"),
            }));
        }
        let expected: Vec<u32> = ids.iter().flat_map(|id| [*id, *id]).collect();
        assert_eq!(told, expected);
    }
}

/// Goal: a bad name and a full connection are refused by a printable code; the connection lives.
#[test]
fn s42_refusals_have_a_code_and_disconnect_nobody() {
    let mut house = House::with(gateway_settings(2));
    let mut peer = house.set_up(0);
    let names: [&[u8]; 4] = [b"", b":secret", b"\xff\xfe", b"two\nlines"];
    for user_identity in names {
        house.say(&mut peer, &OpenStandardMiningChannel { user_identity, ..open_standard(1) });
        assert_eq!(refusal(&mut peer), (1, "invalid-user-identity".into()));
    }
    assert_eq!(house.refusals(Reason::InvalidWorkerId), 4);
    for _ in 0..2 {
        house.open_standard(&mut peer);
        peer.types();
    }
    house.say(&mut peer, &open_standard(4));
    assert_eq!(refusal(&mut peer), (4, "channel-limit-reached".into()));
    assert_eq!(peer.closed, None);
}

/// Goal: a connection without a channel is closed in time; one with a channel is not.
#[test]
fn s43_a_connection_without_a_channel_is_closed() {
    let mut house = House::new();
    let (mut idle, mut busy) = (house.set_up(0), house.set_up(0));
    house.open_standard(&mut busy);
    house.pass(9_900);
    house.expire(&mut idle);
    assert_eq!(idle.closed, None);
    house.pass(1_000);
    house.expire(&mut idle);
    house.expire(&mut busy);
    assert_eq!(idle.closed, Some(Close::Cause(CloseCause::NoChannel)));
    assert_eq!(busy.closed, None);
}

/// Goal: a message about a channel that is not there touches no other.
#[test]
fn s44_unknown_channels_are_answered_alone() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_standard(&mut peer);
    peer.types();
    let mut share = house.good(&channel, 1);
    share.channel_id = 99;
    assert_eq!(house.submit(&mut peer, &share), Err("invalid-channel-id".into()));
    assert_eq!(house.refused_shares(Reason::UnknownChannelId), 1);
    share.channel_id = 1;
    assert_eq!(house.submit(&mut peer, &share), Err("invalid-channel-id".into()));
    assert_eq!(house.refused_shares(Reason::SubscriberRoleViolation), 1, "a share to the group");
    let update =
        UpdateChannel { channel_id: 99, nominal_hash_rate: 1.0, maximum_target: [0xff; 32] };
    house.say(&mut peer, &update);
    peer.next(|message| {
        let ToMiner::UpdateChannelError(error) = message else { panic!("{message:?}") };
        assert_eq!((error.channel_id, error.error_code), (99, &b"invalid-channel-id"[..]));
    });
    assert_eq!(house.refusals(Reason::UnknownChannelId), 1);
    house.say(&mut peer, &CloseChannel { channel_id: 99, reason_code: b"" });
    assert_eq!(peer.types(), Vec::<u8>::new());
    share.channel_id = channel.channel_id;
    assert_eq!(house.submit(&mut peer, &share), Ok(()), "the other channel is as it was");
}

/// Goal: the prefix of a closed channel rests while a job under it could still count.
/// Method: open and close over eight tips; the first prefix comes back on the ninth at the
/// earliest.
#[test]
fn s45_a_prefix_rests_after_its_channel() {
    let mut house = House::with(gateway_settings(64));
    let mut peer = house.set_up(0);
    let first = house.open_standard(&mut peer);
    peer.types();
    let share = house.good(&first, 1);
    assert_eq!(house.submit(&mut peer, &share), Ok(()), "something is credited under it");
    house.say(&mut peer, &CloseChannel { channel_id: first.channel_id, reason_code: b"" });
    for tip in 2..=8 {
        house.publish(job(tip, tip as u8));
        house.listen(&mut peer);
        let mut other_peer = house.set_up(0);
        let other = house.open_standard(&mut other_peer);
        assert_ne!(other.extranonce_prefix, first.extranonce_prefix, "on tip {tip}");
    }
    house.publish(job(9, 9));
    let mut later = house.set_up(0);
    let again = house.open_standard(&mut later);
    assert_eq!(again.extranonce_prefix, first.extranonce_prefix);
}

/// Goal: closing the group closes its members and nothing else, without an answer; a late share
/// does no harm.
/// Method: two connections; a closed channel, then the rest by the group's number.
#[test]
fn s84_s85_closing_a_channel_and_a_group() {
    let mut house = House::new();
    let (mut peer, mut other) = (house.set_up(0), house.set_up(0));
    let channels = [house.open_standard(&mut peer), {
        peer.types();
        house.open_extended(&mut peer, 4)
    }];
    peer.types();
    let theirs = house.open_extended(&mut other, 4);
    other.types();
    house.say(&mut peer, &CloseChannel { channel_id: channels[0].channel_id, reason_code: b"x" });
    assert_eq!(peer.types(), Vec::<u8>::new());
    let late = house.good(&channels[0], 1);
    assert_eq!(house.submit(&mut peer, &late), Err("invalid-channel-id".into()));
    assert_eq!(house.refused_shares(Reason::ChannelNotOpen), 1);
    let good = house.good(&channels[1], 1);
    assert_eq!(house.submit(&mut peer, &good), Ok(()), "the other channel lives on");
    house.say(&mut peer, &CloseChannel { channel_id: 1, reason_code: b"" });
    assert_eq!(house.submit(&mut peer, &good), Err("invalid-channel-id".into()));
    house.publish(job(2, 2));
    house.listen(&mut peer);
    assert_eq!(peer.types(), Vec::<u8>::new(), "no work for ended channels");
    let theirs = house.good(&theirs, 2);
    house.listen(&mut other);
    assert_eq!(house.submit(&mut other, &theirs), Ok(()), "another connection's group lives on");
}

/// Goal: who selects its own work opens extended channels, no standard ones.
#[test]
fn who_selects_its_work_gets_extended_channels_only() {
    let mut house = House::new();
    let mut peer = house.set_up(REQUIRES_WORK_SELECTION);
    house.say(&mut peer, &open_standard(3));
    let code = "standard-channels-not-supported-for-custom-work";
    assert_eq!(refusal(&mut peer), (3, code.into()));
    let channel = house.open_extended(&mut peer, 8);
    assert_eq!(channel.extranonce_prefix.len(), EXTRANONCE_BYTES - 8);
}

/// Settings with room for so many channels on a connection.
fn gateway_settings(channels: usize) -> gateway::machine::shard::ShardSettings {
    let mut settings = settings();
    settings.max_channels_per_connection = channels;
    settings
}
