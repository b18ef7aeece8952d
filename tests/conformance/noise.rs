//! The handshake as a connection does it: statements 14, 18, 20 and 21.
//!
//! The bytes of the handshake itself are held against a vector and against the reference
//! implementation in the tests of the wire crate.

use gateway::limits::{CERTIFICATE_SECONDS, HANDSHAKES_PER_TURN};
use gateway::reason::Reason;
use sv2::{ACT1_BYTES, ACT2_BYTES};

use crate::plain::{House, setup};

/// Goal: 64 bytes in, 234 bytes out, and nothing else, however the 64 are cut; nothing is
/// answered to fewer, and more than 64 before act 2 are no handshake.
#[test]
fn s14_the_acts_have_their_sizes() {
    let mut house = House::new();
    let mut peer = house.connect();
    let (_, act1) = house.act1();
    for byte in &act1[..ACT1_BYTES - 1] {
        house.deliver(&mut peer, &[*byte]);
        assert_eq!(peer.take_received(), Vec::<u8>::new());
    }
    house.deliver(&mut peer, &act1[ACT1_BYTES - 1..]);
    assert_eq!(peer.take_received().len(), ACT2_BYTES);
    assert_eq!(peer.closed, None);

    let mut hasty = house.connect();
    house.deliver(&mut hasty, &[&act1[..], &[0]].concat());
    assert_eq!(hasty.closed, Some(Reason::HandshakeFailed.into()));
    assert_eq!(hasty.take_received(), Vec::<u8>::new());
}

/// Goal: whenever a miner comes, the certificate it is shown holds, also for a miner whose clock
/// is behind, and also if the gateway has run for long.
/// Method: three days in steps of an hour; a miner with the right clock and one 50 minutes behind
/// at each. Without a tick, the certificate of the start ends in time, so the method can fail.
#[test]
fn s18_the_certificate_is_renewed_before_it_ends() {
    let mut house = House::new();
    for hour in 0..72 {
        let now = house.now.unix.seconds();
        for seconds in [now, now - 50 * 60] {
            assert!(house.greet_at(seconds).is_ok(), "{hour} hours after the start, at {seconds}");
        }
        house.pass(3_600_000);
        house.shard.on_tick(house.now);
    }
    let mut forgotten = House::new();
    forgotten.pass(u64::from(CERTIFICATE_SECONDS) * 1_000 + 60_000);
    let now = forgotten.now.unix.seconds();
    assert!(forgotten.greet_at(now).is_err());
}

/// Goal: a handshake that does not come to its end is ended in time, and holds next to nothing
/// until then.
/// Method: nothing, one byte and 63 bytes of act 1; the deadline of the handshake before and
/// after. A complete handshake has longer, until its setup is due.
#[test]
fn s20_an_unfinished_handshake_is_small_and_ends() {
    let mut house = House::new();
    let settings = house.shard.state.settings.clone();
    for sent in [0, 1, ACT1_BYTES - 1] {
        let mut peer = house.connect();
        let mut complete = house.greet();
        let (_, act1) = house.act1();
        house.deliver(&mut peer, &act1[..sent]);
        assert!(house.shard.connection_bytes(peer.id) <= ACT1_BYTES);
        house.pass(settings.handshake_timeout_ms - 600);
        house.expire(&mut peer);
        assert_eq!(peer.closed, None);
        house.pass(1_200);
        house.expire(&mut peer);
        assert_eq!(peer.closed, Some(Reason::HandshakeTimeout.into()), "{sent} bytes");
        house.expire(&mut complete);
        assert_eq!(complete.closed, None);
        house.pass(settings.setup_timeout_ms);
        house.expire(&mut complete);
        assert_eq!(complete.closed, Some(Reason::HandshakeTimeout.into()), "no setup came");
    }
}

/// Goal: a flood of handshakes does not keep a miner's share waiting.
/// Method: more connections than a turn answers say act 1; the share is judged before they are all
/// answered.
#[test]
fn s21_shares_come_between_handshakes() {
    let mut house = House::new();
    let mut miner = house.set_up(0);
    let channel = house.open_standard(&mut miner);
    miner.types();
    let share = house.good(&channel, 1);
    let strangers: Vec<_> = (0..3 * HANDSHAKES_PER_TURN).map(|_| house.connect()).collect();
    let acts: Vec<_> = strangers.iter().map(|_| house.act1().1).collect();
    house.shard.on_turn();
    let mut answered = 0;
    let mut out = gateway::machine::Output::default();
    for (stranger, mut act1) in strangers.iter().zip(acts) {
        out.begin(house.credit, Vec::new());
        house.shard.on_bytes(stranger.id, house.now, &mut act1, &mut out);
        answered += usize::from(out.wire.len() == ACT2_BYTES);
    }
    assert_eq!(answered, HANDSHAKES_PER_TURN, "a turn's handshakes");
    let mut bytes = miner.seal(&share.standard());
    out.begin(house.credit, Vec::new());
    house.shard.on_bytes(miner.id, house.now, &mut bytes, &mut out);
    assert_eq!(out.entries.len(), 1, "the share of the same turn is accepted");
    let mut late = house.greet();
    house.say(&mut late, &setup(0));
    assert_eq!(late.types(), [0x01], "whoever comes behind the flood is served, too");
}
