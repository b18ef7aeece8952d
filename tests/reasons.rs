//! The reasons as miners meet them: each that a miner can give cause for is provoked over a real
//! socket, seen in the gateway's own metrics, and on the wire where it has a text.
//!
//! [`provocation`] is the table: every reason, and how it is provoked or why no miner can.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod socket;
mod stack;

use gateway::reason::Reason;
use serde_json::json;
use socket::{Channel, Socket, open_extended, open_standard, setup};
use stack::{PATIENCE, SHARES_PER_MINUTE, Settings, Stack, wait_until};
use sv2::message::common::SetupConnection;
use sv2::message::mining::{CloseChannel, OpenStandardMiningChannel};
use sv2::{Message as _, SEALED_HEADER_BYTES, ToMiner, inbound_payload_max};

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares need this many hashes, 2^(32 - 22).
const EASY: u32 = 22;

/// What a miner is told, if anything.
type Told = Option<String>;

/// How a reason comes about.
enum Provocation {
    /// The connection ends.
    Ends(fn(&Stacks) -> Told),
    /// A share is refused.
    Share(fn(&Stacks) -> Told),
    /// Something else is refused, and the connection lives.
    Refused(fn(&Stacks) -> Told),
    /// No miner can do that, for this reason.
    NoMiner(&'static str),
}

use Provocation::{Ends, NoMiner, Refused, Share};

/// The table. It is complete because the compiler asks for every reason.
fn provocation(reason: Reason) -> Provocation {
    match reason {
        Reason::HandshakeFailed => Ends(http),
        Reason::HandshakeTimeout => Ends(silence),
        Reason::SetupRejected => Ends(another_protocol),
        Reason::ProtocolViolation => Ends(open_before_setup),
        Reason::MessageTooLarge => Ends(a_header_of_megabytes),
        Reason::MessageTruncated => Ends(half_a_message),
        Reason::MessageLengthMismatch => Refused(one_byte_more),
        Reason::FrameOutOfSequence => Ends(a_frame_twice),
        Reason::UnknownMessageType => Refused(an_unknown_type),
        Reason::UnsupportedExtension => Refused(an_unknown_extension),
        Reason::InvalidEncoding => Refused(a_rate_that_is_no_number),
        Reason::InvalidCredentials => Refused(a_wrong_password),
        Reason::InvalidWorkerId => Refused(a_name_without_letters),
        Reason::AllowlistMismatch => Refused(a_name_not_listed),
        Reason::UnknownChannelId => Share(no_such_channel),
        Reason::ChannelNotOpen => Share(a_closed_channel),
        Reason::SubscriberRoleViolation => Share(a_share_of_the_other_kind),
        Reason::ChannelOpenRefused => Refused(a_target_of_zero),
        Reason::InvalidJobId => Share(no_such_job),
        Reason::UnknownJob => Share(a_job_of_long_ago),
        Reason::StalePrevhash => Share(a_job_of_the_tip_before),
        Reason::JobNotVerified => NoMiner("jobs are withheld or taken back by verdicts alone"),
        Reason::PrevhashSwitchTimeout => NoMiner("it takes a verifier that gives no verdict"),
        Reason::DifficultyBelowTarget => Share(a_weak_hash),
        Reason::NtimeOutOfRange => Share(a_time_too_late),
        Reason::DuplicateNonce => Share(the_same_twice),
        Reason::VersionRollingNotAllowed => Share(a_rolled_version_where_it_is_off),
        Reason::InvalidVersionBits => Share(a_bit_outside_the_mask),
        Reason::InvalidExtranonceSize => Share(a_short_extranonce),
        Reason::StaleShare => NoMiner("all jobs of the tip in force count; none is too old"),
        Reason::InvalidCoinbase => NoMiner("every coinbase was put together before it was given"),
        Reason::ShareRateExceeded => Share(more_than_the_rate),
        Reason::DedupCapacityExceeded => NoMiner("the rate ends a miner before the table is full"),
        Reason::UpstreamUnavailable => NoMiner("it takes a forwarder that takes no shares"),
    }
}

/// The gateways that are provoked.
struct Stacks {
    /// As most are configured.
    open: Stack,
    /// With an allowlist, and without version rolling.
    strict: Stack,
}

impl Stacks {
    fn start() -> Stacks {
        let mut open = Settings::demo(NBITS);
        open.gateway = json!({
            "noise": { "handshake_timeout_ms": 3_000 },
            "timing": { "setup_timeout_ms": 20_000 },
        });
        let mut strict = Settings::demo(NBITS);
        strict.gateway = json!({
            "auth": {
                "mode": "allowlist",
                "allowlist": [{ "username": "alice", "password": "hunter2" }],
            },
            "mining": { "version_rolling": "off" },
        });
        Stacks { open: Stack::start(&open), strict: Stack::start(&strict) }
    }

    fn count(&self, family: &str, reason: Reason) -> f64 {
        let name = format!("{family}{{reason_code=\"{}\"}}", reason.code());
        self.open.gateway.metric(&name) + self.strict.gateway.metric(&name)
    }
}

fn http(stacks: &Stacks) -> Told {
    let mut socket = Socket::connect(&stacks.open);
    let request = "GET / HTTP/1.1\r\nHost: pool.example\r\nUser-Agent: a-browser-of-some-kind\r\n";
    assert!(request.len() > sv2::ACT1_BYTES);
    socket.write(request.as_bytes());
    socket.wait_closed();
    None
}

fn silence(stacks: &Stacks) -> Told {
    Socket::connect(&stacks.open).wait_closed();
    None
}

fn another_protocol(stacks: &Stacks) -> Told {
    let mut socket = Socket::greet(&stacks.open);
    socket.say(&SetupConnection { protocol: 1, ..setup(0) });
    let told = socket.expect("SetupConnection.Error", |message| match message {
        ToMiner::SetupConnectionError(error) => Some(text(error.error_code)),
        _ => None,
    });
    socket.wait_closed();
    Some(told)
}

fn open_before_setup(stacks: &Stacks) -> Told {
    let mut socket = Socket::greet(&stacks.open);
    socket.say(&open_standard(EASY));
    socket.wait_closed();
    None
}

fn a_header_of_megabytes(stacks: &Stacks) -> Told {
    let mut socket = Socket::set_up(&stacks.open, 0);
    let sealed = socket.seal_frame(0, 0x1a, &vec![0; 1 << 20]);
    socket.write(&sealed[..SEALED_HEADER_BYTES]);
    socket.wait_closed();
    None
}

fn half_a_message(stacks: &Stacks) -> Told {
    let mut socket = Socket::set_up(&stacks.open, 0);
    let mut payload = Vec::new();
    open_standard(EASY).encode_payload(&mut payload);
    socket.say_frame(0, 0x10, &payload[..payload.len() / 2]);
    socket.wait_closed();
    None
}

fn one_byte_more(stacks: &Stacks) -> Told {
    let mut socket = Socket::set_up(&stacks.open, 0);
    let mut payload = Vec::new();
    open_standard(EASY).encode_payload(&mut payload);
    payload.push(0);
    assert!(payload.len() <= inbound_payload_max(0, 0x10));
    socket.say_frame(0, 0x10, &payload);
    socket.find("an open channel all the same", |message| {
        matches!(message, ToMiner::OpenStandardMiningChannelSuccess(_)).then_some(())
    });
    None
}

fn a_frame_twice(stacks: &Stacks) -> Told {
    let mut socket = Socket::set_up(&stacks.open, 0);
    let sealed = socket.seal(&open_standard(EASY));
    socket.write(&sealed);
    socket.write(&sealed);
    socket.wait_closed();
    None
}

fn an_unknown_type(stacks: &Stacks) -> Told {
    let mut socket = Socket::set_up(&stacks.open, 0);
    socket.say_frame(0, 0x7e, b"?");
    socket.open_standard(EASY);
    None
}

fn an_unknown_extension(stacks: &Stacks) -> Told {
    let mut socket = Socket::set_up(&stacks.open, 0);
    socket.say_frame(0x4001, 0x00, b"?");
    socket.open_standard(EASY);
    None
}

/// The code that a request for a standard channel is refused with.
fn refused(stack: &Stack, request: &OpenStandardMiningChannel) -> Told {
    let mut socket = Socket::set_up(stack, 0);
    socket.say(request);
    let told = socket.expect("OpenMiningChannel.Error", |message| match message {
        ToMiner::OpenMiningChannelError(error) => Some(text(error.error_code)),
        _ => None,
    });
    assert_eq!(socket.settled(), [], "the connection lives");
    Some(told)
}

fn a_rate_that_is_no_number(stacks: &Stacks) -> Told {
    let nominal_hash_rate = f32::NAN;
    refused(&stacks.open, &OpenStandardMiningChannel { nominal_hash_rate, ..open_standard(EASY) })
}

fn a_wrong_password(stacks: &Stacks) -> Told {
    let user_identity = b"alice.rig1:hunter3";
    refused(&stacks.strict, &OpenStandardMiningChannel { user_identity, ..open_standard(EASY) })
}

fn a_name_not_listed(stacks: &Stacks) -> Told {
    let user_identity = b"mallory:hunter2";
    refused(&stacks.strict, &OpenStandardMiningChannel { user_identity, ..open_standard(EASY) })
}

fn a_name_without_letters(stacks: &Stacks) -> Told {
    let user_identity = b"\x1b[2J";
    refused(&stacks.open, &OpenStandardMiningChannel { user_identity, ..open_standard(EASY) })
}

fn a_target_of_zero(stacks: &Stacks) -> Told {
    let max_target = [0; 32];
    // The text of this reason is chosen by the cause; that of the most common one is the full
    // connection, which takes a thousand channels.
    let told =
        refused(&stacks.open, &OpenStandardMiningChannel { max_target, ..open_standard(EASY) });
    assert_eq!(told.as_deref(), Some("max-target-out-of-range"));
    Some(Reason::ChannelOpenRefused.error_code().to_owned())
}

/// A connection with a channel, and its share bent; the code that it is refused with.
fn bent(stack: &Stack, is_extended: bool, bend: impl FnOnce(&mut Socket, &mut Channel)) -> Told {
    let (mut socket, mut channel) = channel(stack, is_extended);
    channel.work = channel.good();
    bend(&mut socket, &mut channel);
    let work = channel.work.clone();
    Some(socket.answer(&channel, &work).unwrap_err())
}

fn channel(stack: &Stack, is_extended: bool) -> (Socket, Channel) {
    let mut socket = Socket::set_up(stack, 0);
    let channel = if is_extended { socket.open_extended(EASY) } else { socket.open_standard(EASY) };
    (socket, channel)
}

fn no_such_channel(stacks: &Stacks) -> Told {
    bent(&stacks.open, false, |_, channel| channel.channel_id = 77)
}

fn a_closed_channel(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |socket, channel| {
        socket.say(&CloseChannel { channel_id: channel.channel_id, reason_code: b"done" });
    })
}

fn a_share_of_the_other_kind(stacks: &Stacks) -> Told {
    bent(&stacks.open, false, |_, channel| channel.rolled = vec![1; 8])
}

fn no_such_job(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |_, channel| channel.work.job_id += 1_000)
}

/// Let the chain grow, each time until the miner has heard of it.
fn tips(stack: &Stack, socket: &mut Socket, count: usize) {
    for _ in 0..count {
        stack.demo_block();
        socket.find("a new tip", |message| {
            matches!(message, ToMiner::SetNewPrevHash(_)).then_some(())
        });
    }
}

fn a_job_of_long_ago(stacks: &Stacks) -> Told {
    bent(&stacks.open, false, |socket, _| tips(&stacks.open, socket, 4))
}

fn a_job_of_the_tip_before(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |socket, _| tips(&stacks.open, socket, 1))
}

fn a_weak_hash(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |_, channel| {
        let target = channel.target;
        channel.work.grind(&target, false);
    })
}

fn a_time_too_late(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |_, channel| channel.work.claim.ntime += 7_201)
}

fn the_same_twice(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |socket, channel| {
        let work = channel.work.clone();
        assert_eq!(socket.answer(channel, &work), Ok(()));
    })
}

fn a_bit_outside_the_mask(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |_, channel| channel.work.claim.version ^= 1)
}

fn a_rolled_version_where_it_is_off(stacks: &Stacks) -> Told {
    let mut socket = Socket::set_up(&stacks.strict, 0);
    socket.say(&sv2::message::mining::OpenExtendedMiningChannel {
        user_identity: b"alice.rig1:hunter2",
        ..open_extended(EASY)
    });
    let mut channel = socket.opened();
    channel.work = channel.good();
    let good = channel.work.clone();
    assert_eq!(socket.answer(&channel, &good), Ok(()), "who is listed may mine");
    channel.work.claim.version ^= 0x2000;
    let rolled = channel.work.clone();
    Some(socket.answer(&channel, &rolled).unwrap_err())
}

fn a_short_extranonce(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |_, channel| channel.rolled.truncate(1))
}

fn more_than_the_rate(stacks: &Stacks) -> Told {
    bent(&stacks.open, true, |socket, channel| {
        // Ten minutes' worth at once is what a channel may send.
        channel.work.job_id += 1_000;
        let work = channel.work.clone();
        for number in 0..(11.0 * SHARES_PER_MINUTE) as u32 {
            socket.submit(channel, 1 << 31 | number, &work, &[]);
        }
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Goal: each reason that a miner can give cause for is counted under its code, and told in its
/// words; miners beside it mine on.
#[test]
fn every_reason_that_a_miner_can_provoke() {
    let stacks = Stacks::start();
    let (mut neighbour, steady) = channel(&stacks.open, false);
    let mut provoked = 0;
    for reason in Reason::ALL.iter().copied() {
        let (family, provoke) = match provocation(reason) {
            Ends(provoke) => ("connections_closed_total", provoke),
            Share(provoke) => ("shares_total", provoke),
            Refused(provoke) => ("refusals_total", provoke),
            NoMiner(why) => {
                assert!(why.len() > 20, "{reason}: say why");
                continue;
            }
        };
        let before = stacks.count(family, reason);
        let told = provoke(&stacks);
        wait_until(reason.code(), PATIENCE, || stacks.count(family, reason) > before);
        let expected = Some(reason.error_code()).filter(|code| !code.is_empty());
        assert_eq!(told.as_deref(), expected, "{reason}");
        provoked += 1;
    }
    assert_eq!(provoked, 28);
    let work = steady.good();
    let answer = neighbour.answer(&steady, &work);
    assert!(
        answer == Ok(()) || answer == Err("invalid-job-id".into()),
        "its job is old, and all else as it was: {answer:?}"
    );
}

/// Goal: the table and the catalogue of codes, which may only grow, are of one length, so that a
/// new code asks for its provocation.
#[test]
fn the_table_has_every_code_of_the_catalogue() {
    let golden = include_str!("golden/reasons.txt");
    let mut without_a_miner = Vec::new();
    for line in golden.lines() {
        let code = line.split(' ').nth(1).unwrap();
        let reason = Reason::ALL.iter().find(|reason| reason.code() == code);
        let reason = *reason.unwrap_or_else(|| panic!("{code} has gone"));
        if matches!(provocation(reason), NoMiner(_)) {
            without_a_miner.push(code);
        }
    }
    let expected = [
        "job_not_verified",
        "prevhash_switch_timeout",
        "stale_share",
        "invalid_coinbase",
        "dedup_capacity_exceeded",
        "upstream_unavailable",
    ];
    assert_eq!(without_a_miner, expected);
}
