//! Clients that send without end: never reading, reading, or asking for channels.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use gateway::limits::{
    OPENS_PER_CHANNEL_MAX, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, WRITE_STALL_MILLIS,
};
use sv2::ToMiner;
use sv2::message::mining::{
    CloseChannel, OpenStandardMiningChannel, SubmitSharesStandard, UpdateChannel,
};

use super::rude::{OPEN, Opened, Rude, SHARE, read_to_end};
use super::stack::{PATIENCE, Stack, wait_until};
use super::{closes, random, wait_for_the_honest_alone};

/// Channels that one connection may have, as the gateway is told.
pub const CHANNELS: usize = 1_024;

/// Channels that one connection asks for.
pub const ASKED: usize = 20_000;

/// How long a client floods that nothing ends.
const FLOOD_SPAN: Duration = Duration::from_secs(3);

/// How long a client floods that is to be ended for never reading.
const UNREAD_SPAN: Duration = Duration::from_secs(30);

/// Frames at one go of a client that sends no more before they are dealt with.
const PATIENT_FRAMES: u32 = 128;

/// Time after which nothing more is dealt with.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// More frames than have answers that fit between the gateway and a client that never reads.
const PATIENT_FRAMES_MAX: u32 = 1_000_000;

/// Flood without ever reading, until the gateway ends it.
fn flood_unread(
    address: &str,
    name: &str,
    mut fill: impl FnMut(&mut Rude, &Opened, u32, &mut Vec<u8>),
) {
    let (mut rude, opened) = Rude::open(address);
    let mut number = 0;
    let is_ended = rude.flood(UNREAD_SPAN, |rude, wire| {
        number += 1;
        fill(rude, &opened, number, wire);
    });
    assert!(is_ended, "{name}: {number} frames and still open");
}

/// Send no more than is dealt with, and never read an answer, until nothing is dealt with any
/// more; then the time that a peer may take nothing has to end it.
fn stall(stack: &Stack, address: &str) {
    let answered = || stack.gateway.metric("refusals_total{reason_code=\"invalid_encoding\"}");
    let (before, began) = (answered(), Instant::now());
    // Its shares would be too many long before their answers are.
    let (mut rude, opened) = Rude::open(address);
    let request = UpdateChannel {
        channel_id: opened.channel_id,
        nominal_hash_rate: f32::NAN,
        maximum_target: [0xff; 32],
    };
    let mut sent = 0;
    loop {
        let mut wire = Vec::new();
        (0..PATIENT_FRAMES).for_each(|_| rude.seal(&request, &mut wire));
        rude.stream.write_all(&wire).unwrap();
        sent += PATIENT_FRAMES;
        let deadline = Instant::now() + STALLED_AFTER;
        let is_answered = || answered() >= before + f64::from(sent);
        let mut is_done = is_answered();
        while !is_done && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(1));
            is_done = is_answered();
        }
        if !is_done {
            break;
        }
        assert!(sent < PATIENT_FRAMES_MAX, "answers without end for a client that never reads");
    }
    println!("answers to {sent} frames fit before a client that never reads");
    wait_until("the end of a client that takes nothing", PATIENCE, || {
        std::thread::park_timeout(STALLED_AFTER / 10);
        let mut wire = Vec::new();
        rude.seal(&request, &mut wire);
        rude.stream.write_all(&wire).is_err()
    });
    assert!(
        began.elapsed() >= Duration::from_millis(WRITE_STALL_MILLIS),
        "ended by something else"
    );
}

/// Four clients that send what is answered, and never read an answer: three at full speed, and
/// one that leaves the gateway time to push back.
pub fn unread(stack: &Stack, address: &str) {
    // Two of them send more shares than they may; the limit of those may come first.
    let ended = || closes(stack, "protocol_violation") + closes(stack, "share_rate_exceeded");
    let before = ended();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            flood_unread(address, "shares above their target", |rude, opened, number, wire| {
                let Opened { channel_id, job_id } = *opened;
                let share =
                    SubmitSharesStandard { channel_id, job_id, sequence_number: number, ..SHARE };
                rude.seal(&share, wire);
            });
        });
        scope.spawn(|| {
            flood_unread(address, "shares of no channel", |rude, _, number, wire| {
                rude.seal(&SubmitSharesStandard { sequence_number: number, ..SHARE }, wire);
            });
        });
        scope.spawn(|| {
            flood_unread(address, "opens", |rude, _, number, wire| {
                rude.seal(&OpenStandardMiningChannel { request_id: number, ..OPEN }, wire);
            });
        });
        scope.spawn(|| stall(stack, address));
    });
    wait_until("the count of the ended", PATIENCE, || ended() == before + 4.0);
    wait_for_the_honest_alone(stack);
}

/// Two clients that send at full speed what nobody answers, and what is refused, for a while.
pub fn tireless(stack: &Stack, address: &str) {
    let refused = || stack.gateway.metrics()["reservegrid_unknown_frames_total"];
    let before = refused();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut rude, _) = Rude::open(address);
            let payload: [u8; 1_024] = random();
            let ended = rude.flood(FLOOD_SPAN, |rude, wire| rude.seal_unknown(&payload, wire));
            println!("unknown frames: ended by the gateway: {ended}");
        });
        scope.spawn(|| {
            let (mut rude, Opened { channel_id, job_id }) = Rude::open(address);
            let mut reader = rude.stream.try_clone().unwrap();
            // Answers are read and thrown away, so that nothing stalls.
            scope.spawn(move || drop(read_to_end(&mut reader)));
            let ended = rude.flood(FLOOD_SPAN, |rude, wire| {
                rude.seal(&SubmitSharesStandard { channel_id, job_id, ..SHARE }, wire);
                rude.seal(&SubmitSharesStandard { channel_id, ..SHARE }, wire);
                rude.seal(&SHARE, wire);
            });
            println!("bad shares with their answers read: ended by the gateway: {ended}");
            let _ = rude.stream.shutdown(Shutdown::Both);
        });
    });
    assert!(refused() > before);
    wait_for_the_honest_alone(stack);
}

/// Use every receive buffer of the gateway once, as some minutes of work do: their memory is part
/// of the program, and counts from its first use.
pub fn use_all_buffers(stack: &Stack, address: &str) {
    let bytes = || stack.gateway.metric("bytes_received_total");
    let all = usize::from(RECEIVE_BUFFERS) * RECEIVE_BUFFER_BYTES;
    let before = bytes();
    let (mut rude, _) = Rude::open(address);
    let payload: [u8; 1_024] = random();
    let mut wire = Vec::new();
    while wire.len() < 2 * all {
        rude.seal_unknown(&payload, &mut wire);
    }
    rude.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    rude.stream.write_all(&wire).unwrap();
    wait_until("every buffer's use", PATIENCE, || bytes() >= before + wire.len() as f64);
}

/// What came of many requests for channels on one connection.
#[derive(Debug, Default, PartialEq)]
pub struct Opens {
    /// Channels that were opened.
    pub opened: usize,
    /// Requests that were refused for the limit.
    pub refused: usize,
}

/// Ask for `count` channels on one connection; each is closed at once if `churns`.
pub fn open_many(stack: &Stack, count: usize, churns: bool) -> (Opens, Rude) {
    let mut rude = Rude::set_up_to_read(&stack.gateway.address("listen_addr"));
    rude.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut opens = Opens::default();
    let mut wire = Vec::new();
    let mut asked = 0;
    while opens.opened + opens.refused < count {
        // As many at once as a client may have unanswered without being in its own way.
        while asked < count && asked - opens.opened - opens.refused < 64 {
            asked += 1;
            let request_id = u32::try_from(asked).unwrap();
            rude.seal(&OpenStandardMiningChannel { request_id, ..OPEN }, &mut wire);
        }
        rude.stream.write_all(&wire).unwrap();
        wire.clear();
        let answer = rude.hear(|message| match message {
            ToMiner::OpenStandardMiningChannelSuccess(opened) => Some(Ok(opened.channel_id)),
            ToMiner::OpenMiningChannelError(error) => Some(Err(error.error_code.to_vec())),
            _ => None,
        });
        let answer = answer.unwrap_or_else(|| {
            let mut metrics = stack.gateway.metrics();
            metrics.retain(|name, count| name.contains("closed_total") && *count > 0.0);
            panic!("the connection ended after {opens:?}, {asked} asked: {metrics:?}")
        });
        match answer {
            Some(Ok(channel_id)) => {
                opens.opened += 1;
                if churns {
                    rude.seal(&CloseChannel { channel_id, reason_code: b"" }, &mut wire);
                }
            }
            // While a new tip has no work yet, only some requests may wait for it.
            Some(Err(code)) if code == b"not-ready-retry" => asked -= 1,
            Some(Err(code)) => {
                assert_eq!(code, b"channel-limit-reached");
                opens.refused += 1;
            }
            None => {}
        }
    }
    (opens, rude)
}

/// One connection that asks for twenty thousand channels, and one that opens and closes as many.
pub fn channels(stack: &Stack) {
    let before = stack.gateway.metric("channels{kind=\"standard\"}");
    let (opens, rude) = open_many(stack, ASKED, false);
    let most = CHANNELS;
    assert_eq!(opens, Opens { opened: most, refused: ASKED - most });
    stack.gateway.wait_for_metric("channels{kind=\"standard\"}", before + most as f64);
    drop(rude);
    let (opens, rude) = open_many(stack, ASKED, true);
    let most = CHANNELS * OPENS_PER_CHANNEL_MAX;
    assert_eq!(opens, Opens { opened: most, refused: ASKED - most });
    drop(rude);
    wait_until("the end of its channels", PATIENCE, || {
        stack.gateway.metric("channels{kind=\"standard\"}") == before
    });
}
