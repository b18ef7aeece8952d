//! Ends, slow peers and strange names: statements 86, 97 and 98.

use gateway::machine::ShareRecord;
use gateway::reason::{Close, CloseCause, Reason};
use sv2::ToMiner;
use sv2::U16Sequence;
use sv2::message::common::SetupConnection;
use sv2::message::extension::RequestExtensions;
use sv2::message::mining::OpenStandardMiningChannel;

use crate::plain::{House, Peer, job, open_standard, settings, setup};

/// Goal: a gateway that stops says what is safe and closes the connection; it sends nobody
/// elsewhere, because miners of the reference implementation fall over a Reconnect.
/// Method: peers in every state; new ones are turned away.
#[test]
fn s86_an_orderly_end_sends_nobody_elsewhere() {
    let mut house = House::new();
    let mut shy = house.connect();
    let mut greeted = house.greet();
    let mut idle = house.set_up(0);
    let mut miner = house.set_up(0);
    let channel = house.open_extended(&mut miner, 4);
    miner.types();
    let share = house.good(&channel, 1);
    assert_eq!(house.submit(&mut miner, &share), Ok(()));
    house.make_durable();
    house.shard.on_drain();
    for peer in [&mut shy, &mut greeted, &mut idle, &mut miner] {
        house.listen(peer);
        assert_eq!(peer.closed, Some(Close::Cause(CloseCause::Drain)));
    }
    assert_eq!(miner.types(), [0x1c], "what is safe, and no Reconnect");
    for peer in [&mut greeted, &mut idle] {
        assert_eq!(peer.types(), Vec::<u8>::new());
    }
    let late = house.connect_from([127, 0, 0, 1].into());
    assert_eq!(late.err(), Some(Close::Cause(CloseCause::Drain)));
}

/// Jobs that were heard, by number; tips by the job that they name.
fn jobs(peer: &mut Peer) -> Vec<(u8, u32)> {
    let mut all = Vec::new();
    while !peer.heard.is_empty() {
        all.push(peer.next(|message| match message {
            ToMiner::NewMiningJob(job) => (0x15, job.job_id),
            ToMiner::NewExtendedMiningJob(job) => (0x1f, job.job_id),
            ToMiner::SetNewPrevHash(tip) => (0x20, tip.job_id),
            other => panic!("{other:?}"),
        }));
    }
    all
}

/// Goal: who reads slowly gets the newest work when it reads again, and none of what has become
/// stale in between; meanwhile nothing is kept for it.
/// Method: 50 jobs on 10 tips go by while a send is in flight.
#[test]
fn s97_stale_jobs_are_left_out_for_slow_readers() {
    for is_extended in [false, true] {
        let mut house = House::new();
        let mut peer = house.set_up(0);
        let channel = match is_extended {
            true => house.open_extended(&mut peer, 4),
            false => house.open_standard(&mut peer),
        };
        peer.types();
        house.stall(&peer);
        for id in 2..=51 {
            house.publish(job(id, (id / 5 + 2) as u8));
            house.listen(&mut peer);
            assert_eq!(house.shard.connection_bytes(peer.id), 0, "nothing is kept");
        }
        let kind = if is_extended { 0x1f } else { 0x15 };
        assert_eq!(jobs(&mut peer), [(kind, 2), (0x20, 2)], "in flight before it stalled");
        house.unstall(&mut peer);
        assert_eq!(jobs(&mut peer), [(kind, 51), (0x20, 51)], "the newest, and nothing between");
        let share = house.good(&channel, 51);
        assert_eq!(house.submit(&mut peer, &share), Ok(()));
    }
}

/// Goal: no name can write into a log or a metric what it wants, and no miner can have more names
/// than it may.
/// Method: every control character in every place of a name; every such name is refused, and what
/// is kept of the others is printable and without its secret. Strings of setup are not kept at
/// all. Workers beyond the bound are nobody in particular.
#[test]
fn s98_names_are_harmless_and_bounded() {
    let mut bounded = settings();
    bounded.max_workers_per_channel = 2;
    bounded.max_channels_per_connection = 1_024;
    let mut house = House::with(bounded);
    let mut peer = house.greet();
    let nasty = b"\x1b[2J\"}\nreservegrid_up 0\n";
    house.say(&mut peer, &SetupConnection { vendor: nasty, firmware: nasty, ..setup(0) });
    assert_eq!(peer.types(), [0x01]);
    let controls = (0u32..0x20).chain(0x7f..0xa0).chain([0x2028, 0x202e, 0x2066]);
    for control in controls.map(|code| char::from_u32(code).unwrap()) {
        for name in [format!("{control}bob"), format!("bo{control}b.rig"), format!("b{control}")] {
            let user_identity = name.as_bytes();
            house.say(&mut peer, &OpenStandardMiningChannel { user_identity, ..open_standard(1) });
            assert_eq!(peer.types(), [0x12], "{name:?}");
        }
    }
    assert!(house.opened.is_empty());
    assert_eq!(house.refusals(Reason::InvalidWorkerId), 3 * (32 + 33 + 3));
    for (name, kept) in [
        ("bob.rig1:p\u{1b}ss", "bob.rig1"),
        ("b\"ob\\{}", "b\"ob\\{}"),
        ("rig \u{1f5ff}", "rig \u{1f5ff}"),
    ] {
        let user_identity = name.as_bytes();
        house.say(&mut peer, &OpenStandardMiningChannel { user_identity, ..open_standard(1) });
        assert_eq!(peer.types()[0], 0x11, "{name:?}");
        assert_eq!(&*house.opened.last().unwrap().0, kept);
    }

    let requested_extensions = U16Sequence::new(&[2]);
    house.say(&mut peer, &RequestExtensions { request_id: 1, requested_extensions });
    peer.types();
    let channel = house.open_extended(&mut peer, 4);
    peer.types();
    for (number, expected) in [(1u8, 1), (2, 2), (3, 0), (1, 1), (4, 0)] {
        let tlv = [2, 0, 1, 1, 0, b'0' + number];
        let mut share = house.good(&channel, 1);
        share.rolled[0] = house.shares.len() as u8;
        share.mine_good(&channel);
        house.say(&mut peer, &share.extended(&tlv));
        assert_eq!(house.answer(&mut peer), Ok(()));
        let (ShareRecord { worker, .. }, _) = house.shares.last().unwrap();
        assert_eq!(*worker, expected, "worker {number}");
    }
}
