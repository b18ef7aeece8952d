//! The reference implementation's own integration tests of a pool, asked of this gateway as a
//! black box: a socket in front, real services behind. Each test keeps the name it has there.
//!
//! Their tests of Template Distribution and Job Declaration have no counterpart here; where one of
//! them needs a template provider, template-manager stands in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod socket;
mod stack;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use socket::{Channel, Socket, open_extended, open_standard, setup};
use stack::client::unix_seconds;
use stack::{PATIENCE, Settings, Stack, wait_until};
use sv2::message::common::{
    REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, REQUIRES_WORK_SELECTION, SetupConnection,
};
use sv2::message::extension::RequestExtensions;
use sv2::message::mining::SetCustomMiningJob;
use sv2::{ToMiner, U16Sequence};

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares need this many hashes, 2^(32 - 22).
const EASY: u32 = 22;

/// The number of the one group of a connection.
const GROUP: u32 = 1;

/// Tips in which a share is tried: other tests let the chain grow meanwhile.
const TRIES: usize = 20;

/// The services, shared by all tests that run at the same time; they end with the last of them.
fn stack() -> Arc<Stack> {
    static SHARED: Mutex<Weak<Stack>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stack) = shared.upgrade() {
        return stack;
    }
    let mut settings = Settings::demo(NBITS);
    settings.gateway = json!({ "noise": { "handshake_timeout_ms": 3_000 } });
    let stack = Arc::new(Stack::start(&settings));
    *shared = Arc::downgrade(&stack);
    stack
}

/// A share that is accepted, on a channel of either kind; tried again when the tip has changed.
fn good_share(
    stack: &Stack,
    open: impl Fn(&Stack) -> (Socket, Channel),
    tlv: &[u8],
) -> (Socket, Channel) {
    for sequence_number in 1..=TRIES as u32 {
        let (mut socket, channel) = open(stack);
        let work = channel.good();
        socket.submit(&channel, sequence_number, &work, tlv);
        match socket.verdict(sequence_number) {
            Ok(()) => return (socket, channel),
            Err(code) => assert_eq!(code, "stale-share"),
        }
    }
    panic!("no share was accepted in {TRIES} tries");
}

/// The code that SetupConnection is refused with, before the connection is closed.
fn setup_refused(request: &SetupConnection) -> String {
    let stack = stack();
    let mut socket = Socket::greet(&stack);
    socket.say(request);
    let code = socket.expect("SetupConnection.Error", |message| match message {
        ToMiner::SetupConnectionError(error) => Some(error.error_code.to_vec()),
        _ => None,
    });
    socket.wait_closed();
    String::from_utf8(code).unwrap()
}

/// Goal: with a source of templates the gateway gets ready, and gives out work on its newest tip.
#[test]
fn success_pool_template_provider_connection() {
    let stack = stack();
    assert_eq!(stack.gateway.readiness().map(|(status, _)| status), Some(200));
    let before = stack.demo_height();
    let mut socket = Socket::set_up(&stack, 0);
    let channel = socket.open_standard(EASY);
    stack.demo_block();
    let next = socket.find("the next tip", |message| match message {
        ToMiner::SetNewPrevHash(tip) => Some(tip.prev_hash),
        _ => None,
    });
    assert_ne!(next, channel.work.tip.prev_hash.0);
    assert!(stack.demo_height() > before);
}

/// Goal: the first job of an extended channel has no time of its own, the tip that names it has
/// the template's, which is now; so it is with the next tip.
#[test]
fn header_timestamp_value_assertion_in_new_extended_mining_job() {
    let stack = stack();
    let before = unix_seconds();
    let mut socket = Socket::set_up(&stack, REQUIRES_VERSION_ROLLING);
    socket.say(&open_extended(EASY));
    socket.expect("a channel", |message| {
        matches!(message, ToMiner::OpenExtendedMiningChannelSuccess(_)).then_some(())
    });
    let job_id = socket.expect("a future job", |message| match message {
        ToMiner::NewExtendedMiningJob(job) => {
            assert_eq!(job.min_ntime, None);
            assert!(job.version_rolling_allowed);
            Some(job.job_id)
        }
        _ => None,
    });
    let ntime = socket.expect("its tip", |message| match message {
        ToMiner::SetNewPrevHash(tip) => {
            assert_eq!(tip.job_id, job_id);
            Some(tip.min_ntime)
        }
        _ => None,
    });
    let near = before - 120..=unix_seconds() + 120;
    assert!(near.contains(&ntime), "{ntime} is not around {near:?}");
    stack.demo_block();
    let next = socket.find("the next tip", |message| match message {
        ToMiner::SetNewPrevHash(tip) => Some(tip.min_ntime),
        _ => None,
    });
    let near = before - 120..=unix_seconds() + 120;
    assert!(near.contains(&next), "{next} is not around {near:?}");
}

/// Goal: a share of a standard channel arrives: it is acknowledged, and booked by the backend.
#[test]
fn pool_standard_channel_receives_share() {
    let stack = stack();
    let before = stack.backend_shares();
    good_share(
        &stack,
        |stack| {
            let mut socket = Socket::set_up(stack, REQUIRES_STANDARD_JOBS);
            let channel = socket.open_standard(EASY);
            (socket, channel)
        },
        &[],
    );
    wait_until("the share at the backend", PATIENCE, || stack.backend_shares() > before);
}

/// Goal: who selects its own work gets a channel, and neither jobs nor tips, while others do.
#[test]
fn pool_does_not_send_jobs_to_jdc() {
    let stack = stack();
    let mut client = Socket::set_up(&stack, REQUIRES_WORK_SELECTION | REQUIRES_VERSION_ROLLING);
    client.say(&open_extended(EASY));
    client.expect("a channel", |message| {
        matches!(message, ToMiner::OpenExtendedMiningChannelSuccess(_)).then_some(())
    });
    let mut miner = Socket::set_up(&stack, 0);
    miner.open_standard(EASY);
    for _ in 0..2 {
        stack.demo_block();
        miner.find("a new tip", |message| {
            matches!(message, ToMiner::SetNewPrevHash(_)).then_some(())
        });
    }
    assert_eq!(client.settled(), [], "neither a job nor a tip");
}

#[test]
fn pool_reject_setup_connection_with_non_mining_protocol() {
    for protocol in [1, 2] {
        let code = setup_refused(&SetupConnection { protocol, ..setup(0) });
        assert_eq!(code, "unsupported-protocol");
    }
}

#[test]
fn pool_reject_setup_connection_with_unsupported_version() {
    for (min_version, max_version) in [(1, 1), (3, 3)] {
        let code = setup_refused(&SetupConnection { min_version, max_version, ..setup(0) });
        assert_eq!(code, "protocol-version-mismatch");
    }
}

/// Goal: a job of the miner's own is refused under its number, and the connection lives.
#[test]
fn pool_without_jds_rejects_set_custom_mining_job() {
    let stack = stack();
    let mut socket = Socket::set_up(&stack, REQUIRES_WORK_SELECTION);
    socket.say(&open_extended(EASY));
    let channel_id = socket.expect("a channel", |message| match message {
        ToMiner::OpenExtendedMiningChannelSuccess(opened) => Some(opened.channel_id),
        _ => None,
    });
    socket.say(&SetCustomMiningJob {
        channel_id,
        request_id: 41,
        mining_job_token: b"token",
        version: 0x2000_0000,
        prev_hash: [4; 32],
        min_ntime: unix_seconds(),
        nbits: 0x1d00_ffff,
        coinbase_tx_version: 2,
        coinbase_prefix: b"\x03\x01\x02\x03",
        coinbase_tx_input_n_sequence: 0,
        coinbase_tx_outputs: b"\x00",
        coinbase_tx_locktime: 0,
        merkle_path: &[],
    });
    socket.expect("SetCustomMiningJob.Error", |message| match message {
        ToMiner::SetCustomMiningJobError(error) => {
            assert_eq!((error.channel_id, error.request_id), (channel_id, 41));
            assert_eq!(error.error_code, b"jd-not-supported");
            Some(())
        }
        _ => None,
    });
    assert_eq!(socket.settled(), []);
}

/// What a tip brings to this connection: types with the channel or group that they are for. Jobs
/// that other templates on the same tip bring in between are left out.
fn told_at_a_tip(stack: &Stack, socket: &mut Socket) -> Vec<(u8, u32)> {
    socket.settled();
    let before = stack.gateway.metric("prevhash_sent_total");
    stack.demo_block();
    wait_until("the tip", PATIENCE, || stack.gateway.metric("prevhash_sent_total") > before);
    let mut told = Vec::new();
    wait_until("the tip on this connection", PATIENCE, || {
        told.extend(socket.settled());
        told.iter().any(|(msg_type, _)| *msg_type == 0x20)
    });
    told
}

/// Channels of a group: one message each for all of them.
fn is_told_once(is_extended: bool) {
    let stack = stack();
    let mut socket = Socket::set_up(&stack, 0);
    let channels: Vec<Channel> = (0..6)
        .map(|_| if is_extended { socket.open_extended(EASY) } else { socket.open_standard(EASY) })
        .collect();
    assert!(channels.iter().all(|channel| channel.group_channel_id == GROUP));
    let told = told_at_a_tip(&stack, &mut socket);
    assert!(told.contains(&(0x1f, GROUP)) && told.contains(&(0x20, GROUP)), "{told:?}");
    assert!(told.iter().all(|(_, id)| *id == GROUP), "nothing to single channels: {told:?}");
    assert!(told.iter().all(|(msg_type, _)| [0x1f, 0x20].contains(msg_type)), "{told:?}");
}

#[test]
fn pool_group_extended_channels() {
    is_told_once(true);
}

#[test]
fn pool_group_standard_channels() {
    is_told_once(false);
}

/// Goal: who takes standard jobs only gets one job and one tip for each channel, none for a group.
#[test]
fn pool_require_standard_jobs_set_does_not_group_standard_channels() {
    let stack = stack();
    let mut socket = Socket::set_up(&stack, REQUIRES_STANDARD_JOBS);
    let channels: Vec<u32> = (0..6).map(|_| socket.open_standard(EASY).channel_id).collect();
    let told = told_at_a_tip(&stack, &mut socket);
    for channel_id in &channels {
        assert!(told.contains(&(0x15, *channel_id)), "{told:?}");
        assert!(told.contains(&(0x20, *channel_id)), "{told:?}");
    }
    assert!(told.iter().all(|(kind, id)| *kind != 0x1f && *id != GROUP), "{told:?}");
}

#[test]
fn pool_require_standard_jobs_set_rejects_open_extended_mining_channel() {
    let stack = stack();
    let mut socket = Socket::set_up(&stack, REQUIRES_STANDARD_JOBS);
    socket.say(&open_extended(EASY));
    let (request_id, code) = socket.expect("OpenMiningChannel.Error", |message| match message {
        ToMiner::OpenMiningChannelError(error) => {
            Some((error.request_id, error.error_code.to_vec()))
        }
        _ => None,
    });
    assert_eq!(request_id, 7);
    assert_eq!(code, b"extended-channels-not-supported-for-standard-jobs");
    socket.open_standard(EASY);
}

/// Goal: connections that never begin a handshake hold nobody up, and are closed.
#[test]
fn pool_does_not_hang_on_no_handshake() {
    let stack = stack();
    let mut silent: Vec<Socket> = (0..50).map(|_| Socket::connect(&stack)).collect();
    let mut socket = Socket::set_up(&stack, 0);
    socket.say(&open_standard(EASY));
    socket.expect("a channel beside them", |message| {
        matches!(message, ToMiner::OpenStandardMiningChannelSuccess(_)).then_some(())
    });
    for socket in &mut silent {
        socket.wait_closed();
    }
}

/// Shares that the backend has booked for a worker.
fn booked(stack: &Stack, worker: &str) -> i64 {
    let path = stack.folder().join("reference-backend/ledger.sqlite");
    let ledger = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = "SELECT COUNT(*) FROM shares WHERE worker_id = ?1";
    ledger.query_row(count, [worker], |row| row.get(0)).unwrap()
}

/// Goal: the extension for workers is granted when it is asked for, and a share with a worker
/// behind it is booked under that worker.
#[test]
fn test_extension_negotiation_with_tlv_in_submit_shares() {
    let stack = stack();
    let tlv = [&[0x02, 0x00, 0x01, 0x0a, 0x00][..], b"Worker_001"].concat();
    let open = |stack: &Stack| {
        let mut socket = Socket::set_up(stack, REQUIRES_VERSION_ROLLING);
        let requested_extensions = U16Sequence::new(&[2, 0x4000]);
        socket.say(&RequestExtensions { request_id: 3, requested_extensions });
        socket.expect("RequestExtensions.Success", |message| match message {
            ToMiner::RequestExtensionsSuccess(success) => {
                assert_eq!(success.request_id, 3);
                assert_eq!(success.supported_extensions.iter().collect::<Vec<_>>(), [2]);
                Some(())
            }
            _ => None,
        });
        let channel = socket.open_extended(EASY);
        (socket, channel)
    };
    let before = booked(&stack, "Worker_001");
    good_share(&stack, open, &tlv);
    wait_until("the share of the worker", PATIENCE, || booked(&stack, "Worker_001") > before);
}
