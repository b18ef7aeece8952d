//! Acknowledgements: statements 79 to 83.

use std::collections::BTreeMap;

use gateway::machine::shard::PendingAck;
use gateway::reason::{Close, CloseCause, Reason};
use sv2::ToMiner;
use work::{Difficulty, Work};

use crate::plain::{House, Peer, PeerChannel};

/// Hashes of an ordinary share.
const HASHES: u32 = 4;

/// An acknowledgement: channel, last sequence number, count, sum.
type Success = (u32, u32, u32, u64);

/// All that was heard, which is acknowledgements and refusals.
fn heard(peer: &mut Peer) -> Vec<Result<Success, (u32, u32)>> {
    let mut all = Vec::new();
    while !peer.heard.is_empty() {
        all.push(peer.next(|message| match message {
            ToMiner::SubmitSharesSuccess(success) => Ok((
                success.channel_id,
                success.last_sequence_number,
                success.new_submits_accepted_count,
                success.new_shares_sum,
            )),
            ToMiner::SubmitSharesError(error) => Err((error.channel_id, error.sequence_number)),
            other => panic!("{other:?}"),
        }));
    }
    all
}

/// An accepted share of this difficulty, as a shard books it, without the hashing: nobody can
/// find shares of real difficulties in a test.
fn book(
    house: &mut House,
    peer: &Peer,
    channel_id: u32,
    sequence_number: u32,
    difficulty: Difficulty,
) {
    let state = &mut house.shard.state;
    let ack = PendingAck {
        sequence: state.next_sequence(),
        connection: peer.id,
        channel_id,
        sequence_number,
        work: difficulty.work(),
        received_at: house.now.mono,
    };
    state.pend(ack);
}

fn settle(house: &mut House, peer: &mut Peer) {
    house.shard.on_durable(house.now, u64::MAX);
    house.listen(peer);
}

/// A connection with a channel of each kind.
fn both(house: &mut House) -> (Peer, [PeerChannel; 2]) {
    let mut peer = house.set_up(0);
    let channels = [false, true].map(|is_extended| {
        let channel = house.open_for(&mut peer, is_extended, HASHES);
        peer.types();
        channel
    });
    (peer, channels)
}

/// Goal: a bad share is refused at once and under its own number; good ones around it are
/// acknowledged when they are safe, without it. Ten shares with one bad one: the specification's
/// own example, on each kind of channel.
#[test]
fn s79_s80_one_bad_share_of_ten() {
    let mut house = House::new();
    let (mut peer, channels) = both(&mut house);
    for channel in &channels {
        let mut share = house.good(channel, 1);
        for sequence_number in 100..110 {
            share.mine_next(channel);
            share.sequence_number = sequence_number;
            let mut sent = share.clone();
            if sequence_number == 104 {
                sent.job_id = 77;
            }
            let expected =
                if sequence_number == 104 { Err("invalid-job-id".to_owned()) } else { Ok(()) };
            assert_eq!(house.submit(&mut peer, &sent), expected);
            assert!(peer.heard.is_empty(), "nothing is acknowledged before it is safe");
        }
        house.make_durable();
        house.listen(&mut peer);
        assert_eq!(heard(&mut peer), [Ok((channel.channel_id, 109, 9, 0))]);
    }
}

/// Goal: each acknowledgement counts its own batch, names the last share of it, and channels do
/// not mix; nothing is acknowledged beyond what is safe, and the order stays.
/// Method: shares of two channels by turns, made safe in portions that cut between them.
#[test]
fn s80_each_batch_for_itself() {
    let mut house = House::new();
    let (mut peer, channels) = both(&mut house);
    let mut shares = channels.each_ref().map(|channel| house.good(channel, 1));
    let mut submitted = Vec::new();
    let mut told: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
    for number in 0..40u32 {
        let at = (number % 3 == 0) as usize;
        shares[at].mine_next(&channels[at]);
        shares[at].sequence_number = number;
        assert_eq!(house.submit(&mut peer, &shares[at]), Ok(()));
        submitted.push((channels[at].channel_id, number));
    }
    let mut safe = 0;
    for portion in [1, 1, 2, 3, 5, 8, 13, 7] {
        safe += portion;
        house.shard.on_durable(house.now, safe);
        house.listen(&mut peer);
        let batch = &submitted[(safe - portion) as usize..safe as usize];
        for (channel_id, last, count, _) in heard(&mut peer).into_iter().map(Result::unwrap) {
            let mine: Vec<u32> =
                batch.iter().filter(|(id, _)| *id == channel_id).map(|(_, n)| *n).collect();
            assert_eq!((Some(&last), count as usize), (mine.last(), mine.len()));
            told.entry(channel_id).or_default().push((last, count));
        }
    }
    assert_eq!(safe, 40);
    let counted: u32 = told.values().flatten().map(|(_, count)| count).sum();
    assert_eq!(counted, 40, "every share once");
    for batches in told.values() {
        assert!(batches.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order: {batches:?}");
    }
}

/// Goal: sums are exact: each share by the difficulty that it was accepted under, and what is
/// less than one waits for the next.
/// Method: the specification's example, three shares of one difficulty and seven of another; then
/// 300 batches of difficulties from 2^-32 to 2^40, held against a sum of 128 bits.
#[test]
fn s81_sums_are_exact_and_rests_carry_over() {
    let mut house = House::new();
    let (mut peer, channels) = both(&mut house);
    let id = channels[0].channel_id;
    for number in 0..10 {
        let difficulty = Difficulty::at_most(if number < 3 { 1_000.0 } else { 2_048.0 });
        book(&mut house, &peer, id, number, difficulty);
    }
    settle(&mut house, &mut peer);
    assert_eq!(heard(&mut peer), [Ok((id, 9, 10, 3 * 1_000 + 7 * 2_048))]);
    // Sixteen of a sixteenth each, in batches of five.
    let mut sums = Vec::new();
    for batch in 0..4 {
        for number in 0..5 {
            book(&mut house, &peer, id, 100 + 5 * batch + number, Difficulty::at_most(1.0 / 16.0));
        }
        settle(&mut house, &mut peer);
        sums.extend(heard(&mut peer).into_iter().map(|success| success.unwrap().3));
    }
    assert_eq!(sums, [0, 0, 0, 1], "the sixteenth makes it whole; four wait");
    let mut expected = channels.each_ref().map(|_| Work::ZERO);
    expected[0] = Difficulty::at_most(0.25).work();
    let mut told = [0u128; 2];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for batch in 0..300u32 {
        for number in 0..=(batch % 7) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let exponent = (state >> 33) % 73;
            let difficulty = Difficulty::at_most(2f64.powi(exponent as i32 - 32) * 1.3);
            let at = (state >> 60) as usize % 2;
            expected[at] += difficulty.work();
            book(&mut house, &peer, channels[at].channel_id, number, difficulty);
        }
        settle(&mut house, &mut peer);
        for (channel_id, _, _, sum) in heard(&mut peer).into_iter().map(Result::unwrap) {
            let at = usize::from(channel_id == channels[1].channel_id);
            told[at] += u128::from(sum);
        }
        for at in 0..2 {
            assert_eq!(told[at], u128::from(expected[at].split_whole().0), "batch {batch}");
        }
    }
}

/// Goal: what is safe is told without waiting for more of it: one share alone, a block, and the
/// last ones before the gateway closes.
#[test]
fn s82_what_is_safe_is_told_at_once() {
    let mut house = House::new();
    let (mut peer, channels) = both(&mut house);
    let mut share = house.good(&channels[1], 1);
    assert_eq!(house.submit(&mut peer, &share), Ok(()));
    house.make_durable();
    house.listen(&mut peer);
    assert_eq!(heard(&mut peer), [Ok((channels[1].channel_id, 1, 1, 0))]);
    share.mine_next(&channels[1]);
    assert_eq!(house.submit(&mut peer, &share), Ok(()));
    house.make_durable();
    house.shard.on_drain();
    house.listen(&mut peer);
    assert_eq!(heard(&mut peer), [Ok((channels[1].channel_id, 2, 1, 0))], "before the end");
    assert_eq!(peer.closed, Some(Close::Cause(CloseCause::Drain)));
}

/// Goal: a miner may count its shares as it likes: from 0 or 1, with gaps, backwards, over the
/// edge, or not at all.
#[test]
fn s83_sequence_numbers_are_the_miners_own() {
    let numbers = [0, 1, 2, 1_000, 7, 7, u32::MAX - 1, u32::MAX, 0, 1];
    let mut house = House::new();
    let (mut peer, channels) = both(&mut house);
    for channel in &channels {
        let mut share = house.good(channel, 1);
        for sequence_number in numbers {
            share.mine_next(channel);
            share.sequence_number = sequence_number;
            assert_eq!(house.submit(&mut peer, &share), Ok(()));
            house.make_durable();
            house.listen(&mut peer);
            assert_eq!(heard(&mut peer), [Ok((channel.channel_id, sequence_number, 1, 0))]);
        }
        share.mine_next(channel);
        share.sequence_number = u32::MAX;
        share.job_id = 99;
        house.submit(&mut peer, &share).unwrap_err();
    }
    assert_eq!(house.refused_shares(Reason::InvalidJobId), 2);
}
