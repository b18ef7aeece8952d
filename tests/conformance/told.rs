//! What a shard tells the log of what it told its miners: acknowledgements, refused shares,
//! channels and connections.

use std::sync::Arc;

use gateway::limits::{
    CONNECTION_REPORTS_PER_SECOND, DEVICE_TEXT_BYTES_MAX, REFUSALS_PER_SECOND, SHARES_PER_TURN,
};
use gateway::machine::Report;
use gateway::machine::admission::{Admission, AuthInput};
use gateway::machine::output::{CLOSED_BY_MINER, Refused};
use gateway::machine::shard::PendingAck;
use gateway::metrics::shard as counter;
use gateway::reason::Reason;
use sv2::ToMiner;
use sv2::message::mining::{CloseChannel, OpenStandardMiningChannel};
use work::{BlockHash, Difficulty, Work};

use crate::plain::{House, Peer, PeerChannel, open_standard, setup};

/// Hashes of an ordinary share.
const HASHES: u32 = 4;

/// The refused shares that were told, in order; they are forgotten.
fn refused(house: &mut House) -> Vec<Refused> {
    let told = house.reports.drain(..).filter_map(|report| match report {
        Report::Refused(refused) => Some(refused),
        _ => None,
    });
    told.collect()
}

/// Acknowledgements that a peer heard, by count; all it heard is forgotten.
fn counts(peer: &mut Peer) -> Vec<u32> {
    let mut counts = Vec::new();
    while !peer.heard.is_empty() {
        counts.extend(peer.next(|message| match message {
            ToMiner::SubmitSharesSuccess(success) => Some(success.new_submits_accepted_count),
            _ => None,
        }));
    }
    counts
}

/// An open channel whose job and tip have been heard.
fn open(house: &mut House, peer: &mut Peer, is_extended: bool) -> PeerChannel {
    let channel = house.open_for(peer, is_extended, HASHES);
    peer.types();
    channel
}

/// Goal: each acknowledgement that a miner hears has its entry: the last share by the shard's own
/// number, the count, and the work to the last unit, of which the message only carries the whole.
#[test]
fn an_acknowledgement_is_told_exactly() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = open(&mut house, &mut peer, true);
    let (id, connection) = (channel.channel_id, peer.id);
    let mut booked = Vec::new();
    for batch in 0..40u32 {
        let mut work = Work::ZERO;
        for number in 0..=batch % 5 {
            let difficulty = Difficulty::at_most(0.3 + f64::from(number));
            let state = &mut house.shard.state;
            let sequence = state.next_sequence();
            state.pend(PendingAck {
                sequence,
                connection,
                channel_id: id,
                sequence_number: 7,
                work: difficulty.work(),
                received_at: house.now.mono,
            });
            work += difficulty.work();
            booked.push(sequence);
        }
        house.shard.on_durable(house.now, u64::MAX);
        house.listen(&mut peer);
        let count = batch % 5 + 1;
        assert_eq!(house.acknowledged.pop(), Some((*booked.last().unwrap(), count, work)));
        assert_eq!(counts(&mut peer), [count]);
    }
    assert!(house.acknowledged.is_empty());
}

/// Goal: without credit an acknowledgement waits (I3), and work and refusals do not wait with it;
/// with credit it goes out, once.
#[test]
fn without_credit_an_acknowledgement_waits() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channels = [false, true].map(|kind| open(&mut house, &mut peer, kind));
    for channel in &channels {
        let share = house.good(channel, 1);
        assert_eq!(house.submit(&mut peer, &share), Ok(()));
    }
    peer.types();
    house.credit = 0;
    house.make_durable();
    house.listen(&mut peer);
    assert!(peer.heard.is_empty() && house.acknowledged.is_empty());
    assert_eq!(house.shard.next_ready(house.now, 0), None, "nobody is visited in vain");
    house.publish(crate::plain::job(2, 2));
    house.listen(&mut peer);
    assert!(!peer.types().is_empty(), "a new tip needs no credit");
    house.credit = 1;
    house.listen(&mut peer);
    assert_eq!(counts(&mut peer), [1, 1], "a step for each");
    assert_eq!(house.acknowledged.iter().map(|(through, ..)| *through).collect::<Vec<_>>(), [1, 2]);
    house.credit = SHARES_PER_TURN;
    house.listen(&mut peer);
    assert_eq!(house.acknowledged.len(), 2);
}

/// Goal: a share that waited for credit says for how long, one that did not says nothing.
#[test]
fn a_share_says_how_long_it_waited() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = open(&mut house, &mut peer, false);
    let mut share = house.good(&channel, 1);
    assert_eq!(house.submit(&mut peer, &share), Ok(()));
    house.credit = 0;
    share.mine_next(&channel);
    house.say(&mut peer, &share.standard());
    house.pass(300);
    house.credit = SHARES_PER_TURN;
    house.listen(&mut peer);
    share.mine_next(&channel);
    assert_eq!(house.submit(&mut peer, &share), Ok(()));
    let waited: Vec<u32> = house.shares.iter().map(|(record, _)| record.latency_micros).collect();
    assert_eq!(waited, [0, 300_000, 0]);
}

/// Goal: every refused share is told, with all that is known of it.
#[test]
fn each_refused_share_is_told() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = open(&mut house, &mut peer, true);
    let mut share = house.good(&channel, 1);
    assert_eq!(house.submit(&mut peer, &share), Ok(()));
    house.submit(&mut peer, &share).unwrap_err();
    let hash: BlockHash = share.claim.hash(&share.job.template.tip);
    share.job_id = 99;
    share.sequence_number = 5;
    house.submit(&mut peer, &share).unwrap_err();
    share.channel_id = 77;
    house.submit(&mut peer, &share).unwrap_err();
    let told = refused(&mut house);
    let reasons: Vec<Reason> = told.iter().map(|one| one.reason).collect();
    use Reason::{DuplicateNonce, InvalidJobId, UnknownChannelId};
    assert_eq!(reasons, [DuplicateNonce, InvalidJobId, UnknownChannelId]);
    assert!(told.iter().all(|one| one.count == 1 && one.connection == peer.id));
    assert!(told.iter().all(|one| one.at == house.now.unix));
    let hashes: Vec<Option<BlockHash>> = told.iter().map(|one| one.share_hash).collect();
    assert_eq!(hashes, [Some(hash), None, None], "without a job there is no header");
    let names: Vec<Option<&str>> = told.iter().map(|one| one.miner_id.as_deref()).collect();
    assert_eq!(names, [Some("alice.rig1"), Some("alice.rig1"), None]);
    assert_eq!(told[0].channel, told[1].channel);
    assert!(told[0].channel.is_some() && told[2].channel.is_none());
    let places: Vec<(u32, u32, u32)> =
        told.iter().map(|one| (one.channel_id, one.sequence_number, one.job_id)).collect();
    let id = channel.channel_id;
    assert_eq!(places, [(id, 1, 1), (id, 5, 99), (77, 5, 99)]);
}

/// Goal: a flood is told as ten shares and one number a second and channel, whatever the reasons;
/// not one share is missing in the sum (D31).
/// Method: sixty bad shares on each of two channels and on none within a second; then the
/// periodic look, a share in a later second, and the end of the connection.
#[test]
fn a_flood_is_told_as_a_number() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channels = [false, true].map(|kind| open(&mut house, &mut peer, kind));
    let mut bad: Vec<_> = channels.iter().map(|channel| house.good(channel, 1)).collect();
    let mut stray = bad[0].clone();
    stray.channel_id = 77;
    bad.push(stray);
    bad.iter_mut().for_each(|share| share.job_id = 99);
    let count_all = |house: &House| -> u64 {
        Reason::ALL.iter().map(|reason| house.refused_shares(*reason)).sum()
    };
    for _ in 0..60 {
        for share in &bad {
            house.submit(&mut peer, share).unwrap_err();
        }
    }
    let mut told = refused(&mut house);
    assert_eq!(told.len(), 3 * REFUSALS_PER_SECOND as usize);
    assert!(told.iter().all(|one| one.count == 1));
    house.pass(1_000);
    house.expire(&mut peer);
    house.deliver(&mut peer, &[]);
    let summed = refused(&mut house);
    assert_eq!(summed.iter().map(|one| one.count).collect::<Vec<_>>(), [50; 3]);
    assert!(summed.iter().all(|one| one.share_hash.is_none() && one.sequence_number == 1));
    told.extend(summed);
    for _ in 0..15 {
        house.submit(&mut peer, &bad[0]).unwrap_err();
    }
    house.leave(peer);
    house.shard.on_turn();
    let mut other = house.set_up(0);
    house.listen(&mut other);
    told.extend(refused(&mut house));
    let sum: u64 = told.iter().map(|one| u64::from(one.count)).sum();
    assert_eq!(sum, count_all(&house));
    assert_eq!(house.shard.state.counters.read(counter::REFUSALS_UNRECORDED), 0);
}

/// Goal: who comes and goes is told, with why; a channel's end says whether its miner closed it.
#[test]
fn comings_and_goings_are_told() {
    let mut house = House::new();
    let mut stranger = house.greet();
    house.expire(&mut stranger);
    house.leave(stranger);
    assert!(house.reports.is_empty(), "nobody is told of who has not set up a connection");
    let mut peer = house.greet();
    let odd = sv2::message::common::SetupConnection {
        vendor: b"\x1b[31mred",
        device_id: &[b'x'; 255],
        ..setup(0)
    };
    house.say(&mut peer, &odd);
    let Some(Report::ConnectionOpened { connection, device, .. }) = house.reports.pop() else {
        panic!("not told")
    };
    assert_eq!(connection, peer.id);
    assert_eq!(&*device.vendor, r"\u{1b}[31mred");
    assert_eq!(device.device_id.len(), DEVICE_TEXT_BYTES_MAX);
    peer.types();
    let channel = open(&mut house, &mut peer, false);
    open(&mut house, &mut peer, true);
    let reason_code = b"";
    house.say(&mut peer, &CloseChannel { channel_id: channel.channel_id, reason_code });
    house.leave(peer);
    let mut other = house.set_up(0);
    house.listen(&mut other);
    assert_eq!(house.reports.len(), 2);
    let Report::ConnectionClosed { connection: ended, reason_code, .. } = house.reports[0] else {
        panic!("not told")
    };
    assert_eq!((ended, reason_code), (connection, "peer_gone"));
    let reasons = house.shard.state.closed.iter().map(|closed| closed.reason_code);
    assert_eq!(reasons.collect::<Vec<_>>(), [CLOSED_BY_MINER, "peer_gone"]);
}

/// Goal: a wrong name or secret is told without the secret, and no crowd of them makes more than
/// a bound of reports.
#[test]
fn failures_to_authenticate_are_told() {
    let mut house = House::new();
    let known = [("alice", "right")];
    let admission = Admission::new(AuthInput::Allowlist(&known), 255, [7; 32]);
    house.shard.state.admission = Arc::new(admission);
    let mut peer = house.set_up(0);
    house.reports.clear();
    for (name, shown) in [
        (b"alice:wrong".as_slice(), Some("alice")),
        (b"mallory.rig:right", Some("mallory.rig")),
        (b"\xff:right", None),
    ] {
        let request = OpenStandardMiningChannel { user_identity: name, ..open_standard(1) };
        house.say(&mut peer, &request);
        match house.reports.pop() {
            Some(Report::AuthFailed { miner_id, connection, .. }) => {
                assert_eq!((miner_id.as_deref(), connection), (shown, peer.id));
            }
            None => assert_eq!(shown, None, "a name that is none is no failure"),
            other => panic!("{other:?}"),
        }
    }
    const { assert!(CONNECTION_REPORTS_PER_SECOND > gateway::limits::FAILURES_PER_ADDRESS) };
}
