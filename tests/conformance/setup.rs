//! Setup and extensions: statements 24 to 33.

use gateway::machine::ShareRecord;
use gateway::reason::Reason;
use sv2::message::common::{
    REQUIRES_EXTENDED_CHANNELS, REQUIRES_FIXED_VERSION, REQUIRES_STANDARD_JOBS,
    REQUIRES_VERSION_ROLLING, REQUIRES_WORK_SELECTION, SetupConnection,
};
use sv2::message::extension::RequestExtensions;
use sv2::message::mining::{CloseChannel, UpdateChannel};
use sv2::{FrameHeader, ToMiner, U16Sequence};

use crate::plain::{House, Peer, PeerChannel, open_extended, open_standard, settings, setup};

/// What SetupConnection is answered with: version and flags, or flags and code.
fn answer(house: &mut House, request: &SetupConnection<'_>) -> Result<(u16, u32), (u32, String)> {
    let mut peer = house.greet();
    house.say(&mut peer, request);
    assert_eq!(peer.heard.len(), 1, "one answer");
    let closed = peer.closed;
    peer.next(|message| match message {
        ToMiner::SetupConnectionSuccess(success) => {
            assert_eq!(closed, None);
            Ok((success.used_version, success.flags))
        }
        ToMiner::SetupConnectionError(error) => {
            assert_eq!(closed, Some(Reason::SetupRejected.into()), "closed behind its answer");
            Err((error.flags, String::from_utf8(error.error_code.to_vec()).unwrap()))
        }
        other => panic!("{other:?}"),
    })
}

/// Goal: whoever begins with anything but SetupConnection is ended, and hears nothing before.
#[test]
fn s24_setup_comes_first() {
    fn begin_with(say: impl FnOnce(&mut House, &mut Peer)) {
        let mut house = House::new();
        let mut peer = house.greet();
        house.publish(crate::plain::job(2, 2));
        house.listen(&mut peer);
        say(&mut house, &mut peer);
        assert_eq!(peer.types(), Vec::<u8>::new());
        assert_eq!(peer.closed, Some(Reason::ProtocolViolation.into()));
    }
    begin_with(|house, peer| house.say(peer, &open_standard(1)));
    begin_with(|house, peer| house.say(peer, &open_extended(1, 4)));
    begin_with(|house, peer| {
        let requested_extensions = U16Sequence::new(&[2]);
        house.say(peer, &RequestExtensions { request_id: 1, requested_extensions });
    });
    begin_with(|house, peer| {
        house.say(peer, &CloseChannel { channel_id: 1, reason_code: b"" });
    });
    begin_with(|house, peer| {
        let maximum_target = [0xff; 32];
        house.say(peer, &UpdateChannel { channel_id: 2, nominal_hash_rate: 1.0, maximum_target });
    });
    begin_with(|house, peer| {
        let header =
            FrameHeader { extension_type: 0, channel_msg: false, msg_type: 0x77, msg_length: 0 };
        house.say_frame(peer, header, b"unknown");
    });
}

/// Goal: other protocols, and versions without overlap, are refused by their code.
#[test]
fn s25_s26_other_protocols_and_versions() {
    let mut house = House::new();
    for protocol in [1, 2, 3, 255] {
        let refused = answer(&mut house, &SetupConnection { protocol, ..setup(0) });
        assert_eq!(refused, Err((0, "unsupported-protocol".into())), "protocol {protocol}");
    }
    for (min_version, max_version) in [(0, 1), (1, 1), (3, 3), (3, u16::MAX), (3, 2), (2, 1)] {
        let refused = answer(&mut house, &SetupConnection { min_version, max_version, ..setup(0) });
        let expected = Err((0, "protocol-version-mismatch".into()));
        assert_eq!(refused, expected, "{min_version} to {max_version}");
    }
}

/// Goal: the version is 2 from any range that holds it; the flags are the gateway's own.
#[test]
fn s27_version_two_and_own_flags() {
    let mut house = House::new();
    for (min_version, max_version) in [(2, 2), (0, 2), (2, 9), (0, u16::MAX)] {
        let answer = answer(&mut house, &SetupConnection { min_version, max_version, ..setup(0) });
        assert_eq!(answer, Ok((2, 0)), "{min_version} to {max_version}");
    }
    for flags in [REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING] {
        assert_eq!(answer(&mut house, &setup(flags)), Ok((2, 0)), "no echo of {flags:#b}");
    }
    let selects = REQUIRES_WORK_SELECTION | REQUIRES_VERSION_ROLLING;
    let answer = answer(&mut house, &setup(selects));
    assert_eq!(answer, Ok((2, REQUIRES_EXTENDED_CHANNELS)), "its work has no standard jobs");
}

/// Goal: flags that are not supported come back all of them, and only they.
#[test]
fn s28_the_unsupported_flags_are_all_told() {
    let mut house = House::new();
    for flags in [u32::MAX, 0b1000, 1 << 31, 0b1011, 0b1111_0000] {
        let expected = (flags & !0b111, "unsupported-feature-flags".to_owned());
        assert_eq!(answer(&mut house, &setup(flags)), Err(expected), "{flags:#x}");
    }
}

/// Goal: where versions are fixed, that is said to those who can live with it; those who cannot
/// are refused and never told so.
#[test]
fn s29_a_fixed_version_and_a_rolling_miner() {
    let mut fixed = settings();
    fixed.version_mask = 0;
    let mut house = House::with(fixed);
    for flags in 0..8 {
        let expected = if flags & REQUIRES_VERSION_ROLLING != 0 {
            Err((REQUIRES_VERSION_ROLLING, "unsupported-feature-flags".to_owned()))
        } else if flags & REQUIRES_WORK_SELECTION != 0 {
            Ok((2, REQUIRES_FIXED_VERSION | REQUIRES_EXTENDED_CHANNELS))
        } else {
            Ok((2, REQUIRES_FIXED_VERSION))
        };
        assert_eq!(answer(&mut house, &setup(flags)), expected, "{flags:#b}");
    }
}

/// Goal: a second setup changes nothing: it ends the connection without an answer.
#[test]
fn s30_a_second_setup_ends_the_connection() {
    let mut house = House::new();
    let mut peer = house.set_up(REQUIRES_STANDARD_JOBS);
    house.open_standard(&mut peer);
    peer.types();
    house.say(&mut peer, &setup(0));
    assert_eq!(peer.closed, Some(Reason::SetupRejected.into()));
    assert_eq!(peer.types(), Vec::<u8>::new());
}

/// What a request for extensions is answered with: those supported, or those unsupported and
/// those required.
fn request(
    house: &mut House,
    peer: &mut Peer,
    extensions: &[u16],
) -> Result<Vec<u16>, (Vec<u16>, Vec<u16>)> {
    let requested_extensions = U16Sequence::new(extensions);
    house.say(peer, &RequestExtensions { request_id: 513, requested_extensions });
    peer.next(|message| match message {
        ToMiner::RequestExtensionsSuccess(success) => {
            assert_eq!(success.request_id, 513);
            Ok(success.supported_extensions.iter().collect())
        }
        ToMiner::RequestExtensionsError(error) => {
            assert_eq!(error.request_id, 513);
            let unsupported = error.unsupported_extensions.iter().collect();
            Err((unsupported, error.required_extensions.iter().collect()))
        }
        other => panic!("{other:?}"),
    })
}

/// Goal: of the extensions asked for, those that are there are granted; if none is, all come back
/// as unsupported, nothing is required, and the miner may ask again.
#[test]
fn s31_extensions_are_negotiated() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    assert_eq!(request(&mut house, &mut peer, &[3]), Err((vec![3], vec![])));
    assert_eq!(request(&mut house, &mut peer, &[9, 0x4000]), Err((vec![9, 0x4000], vec![])));
    assert_eq!(request(&mut house, &mut peer, &[]), Err((vec![], vec![])));
    assert_eq!(house.refusals(Reason::UnsupportedExtension), 3);
    assert_eq!(request(&mut house, &mut peer, &[2]), Ok(vec![2]));
    assert_eq!(request(&mut house, &mut peer, &[9, 2, 3]), Ok(vec![2]), "what both have");
    assert_eq!(peer.closed, None);
}

/// A good share with these bytes behind it; the worker that it is booked on.
fn worker_of(
    house: &mut House,
    peer: &mut Peer,
    channel: &PeerChannel,
    nonce: u32,
    tlv: &[u8],
) -> (ShareRecord, Option<String>) {
    let mut share = house.good(channel, 1);
    share.rolled = vec![nonce as u8; channel.extranonce_size];
    share.mine_good(channel);
    let before = house.shares.len();
    house.say(peer, &share.extended(tlv));
    assert_eq!(house.answer(peer), Ok(()), "{tlv:?}");
    assert_eq!(house.shares.len(), before + 1, "{tlv:?}");
    let (record, name) = house.shares.last().unwrap();
    (*record, name.as_deref().map(str::to_owned))
}

/// Goal: with extension 0x0002 a share belongs to its worker, in either byte order; what is
/// malformed or missing costs nobody the share.
/// Method: the specification's own example and its mirror image; cut, too long, unprintable, no
/// UTF-8, of another type, behind another.
#[test]
fn s32_the_worker_behind_a_share() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    assert_eq!(request(&mut house, &mut peer, &[2]), Ok(vec![2]));
    let channel = house.open_extended(&mut peer, 4);
    peer.types();
    let big = [&[0x00, 0x02, 0x01, 0x00, 0x0a][..], b"Worker_001"].concat();
    let little = [&[0x02, 0x00, 0x01, 0x0a, 0x00][..], b"Worker_001"].concat();
    let other = [&[0x02, 0x00, 0x01, 0x02, 0x00][..], b"w2"].concat();
    let behind = [&[0x03, 0x40, 0x07, 0x02, 0x00, 9, 9][..], &other].concat();
    let (record, name) = worker_of(&mut house, &mut peer, &channel, 1, &big);
    assert_eq!((record.worker, name.as_deref()), (1, Some("Worker_001")));
    let (record, name) = worker_of(&mut house, &mut peer, &channel, 2, &little);
    assert_eq!((record.worker, name), (1, None), "known by now");
    let (record, name) = worker_of(&mut house, &mut peer, &channel, 3, &behind);
    assert_eq!((record.worker, name.as_deref()), (2, Some("w2")));
    let mut malformed: Vec<Vec<u8>> = (0..little.len()).map(|end| little[..end].to_vec()).collect();
    malformed.push([&[0x02, 0x00, 0x01, 33, 0x00][..], &[b'x'; 33]].concat());
    malformed.push(vec![0x02, 0x00, 0x01, 0x02, 0x00, 0xff, 0xfe]);
    malformed.push(vec![0x02, 0x00, 0x01, 0x02, 0x00, b'a', b'\n']);
    malformed.push(vec![0x02, 0x00, 0x01, 0x00, 0x00]);
    malformed.push(vec![0x02, 0x00, 0x07, 0x01, 0x00, b'a']);
    malformed.push(vec![0xff; 200]);
    for (at, tlv) in malformed.iter().enumerate() {
        let nonce = 10 + at as u32;
        let (record, name) = worker_of(&mut house, &mut peer, &channel, nonce, tlv);
        assert_eq!((record.worker, name), (0, None), "{tlv:?}");
    }
    assert_eq!(peer.closed, None);
}

/// Goal: without the extension, what stands behind a share is passed over, and counted.
#[test]
fn s33_without_the_extension_a_worker_is_passed_over() {
    let mut house = House::new();
    let mut peer = house.set_up(0);
    let channel = house.open_extended(&mut peer, 4);
    peer.types();
    let tlv = [&[0x02, 0x00, 0x01, 0x0a, 0x00][..], b"Worker_001"].concat();
    let (record, name) = worker_of(&mut house, &mut peer, &channel, 1, &tlv);
    assert_eq!((record.worker, name), (0, None));
    assert_eq!(house.refusals(Reason::MessageLengthMismatch), 1);
}
