//! The driver on real sockets against a scripted server: everything it counts is what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use loadgen::drive::{DriveError, Pace, Plan, run};
use loadgen::miner::{ChannelKinds, MinerConfig};
use loadgen::report::Report;
use server::*;
use sv2::message::mining::{CloseChannel, SetNewPrevHash, SubmitSharesError, SubmitSharesSuccess};
use sv2::{ACT1_BYTES, FromMiner, Opened, Transport};

/// Shares that each miner of the script sends before its tip changes, and after.
const SHARES_PER_TIP: u32 = 3;

/// Long enough for any machine; a run that works is stopped by its script.
const RUN_MAX: Duration = Duration::from_secs(60);

fn plan(target: SocketAddr, connections: usize) -> Plan {
    Plan {
        target,
        target_text: target.to_string(),
        connections,
        threads: 2,
        miner: MinerConfig { authority: Some(authority().public()), ..MinerConfig::default() },
        user_prefix: "test".to_owned(),
        seed: 5,
        pace: Pace::Hashrate(2_000.0),
        source_addresses: 1,
        ramp_per_second: 0.0,
        reconnect_ms: None,
        duration: Some(RUN_MAX),
    }
}

/// Accepts for ever and gives each connection a thread with `script`.
fn serve(script: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let script = script.clone();
            thread::spawn(move || script(stream));
        }
    });
    address
}

fn secure(stream: &mut TcpStream) -> Option<Transport> {
    let mut act1 = [0; ACT1_BYTES];
    stream.read_exact(&mut act1).ok()?;
    let identity = current_identity();
    let (transport, act2) = answer_as(&identity, &act1);
    stream.write_all(&act2).ok()?;
    Some(transport)
}

/// A server that takes every share, changes the tip after a few, refuses one share of each miner
/// with `refusal`, and counts the miners that got through.
fn mine_two_tips(mut stream: TcpStream, refusal: &[u8], through: &AtomicUsize) -> Option<()> {
    let mut transport = secure(&mut stream)?;
    let (mut bytes, mut wire) = (Vec::new(), Vec::new());
    let mut shares = 0;
    loop {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        let mut used = 0;
        while let Opened::Frame { frame, consumed } = transport.open(&mut bytes[used..]) {
            used += consumed;
            let message = FromMiner::decode(&frame).unwrap();
            match message {
                FromMiner::SetupConnection(_) => {
                    transport.seal(&setup_success(), &mut wire).unwrap();
                }
                FromMiner::OpenStandardMiningChannel(_) => {
                    transport.seal(&open_success(), &mut wire).unwrap();
                    transport.seal(&job(1, None), &mut wire).unwrap();
                    transport.seal(&prev_hash(1, 1), &mut wire).unwrap();
                }
                FromMiner::SubmitSharesStandard(share) => {
                    shares += 1;
                    answer_share(&mut transport, &mut wire, share.sequence_number, refusal);
                    if shares == SHARES_PER_TIP {
                        transport.seal(&job(2, None), &mut wire).unwrap();
                        transport.seal(&prev_hash(2, 2), &mut wire).unwrap();
                    }
                    if shares == 2 * SHARES_PER_TIP {
                        through.fetch_add(1, Ordering::Relaxed);
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        bytes.drain(..used);
        stream.write_all(&wire).ok()?;
        wire.clear();
    }
}

fn answer_share(transport: &mut Transport, wire: &mut Vec<u8>, number: u32, refusal: &[u8]) {
    if number == 1 && !refusal.is_empty() {
        let error =
            SubmitSharesError { channel_id: CHANNEL, sequence_number: 1, error_code: refusal };
        transport.seal(&error, wire).unwrap();
        return;
    }
    let success = SubmitSharesSuccess {
        channel_id: CHANNEL,
        last_sequence_number: number,
        new_submits_accepted_count: 1,
        new_shares_sum: 2,
    };
    transport.seal(&success, wire).unwrap();
}

fn run_two_tips(connections: usize, refusal: &'static [u8]) -> Report {
    let through = Arc::new(AtomicUsize::new(0));
    let counter = through.clone();
    let target = serve(move |stream| {
        mine_two_tips(stream, refusal, &counter);
    });
    let stop = Arc::new(AtomicBool::new(false));
    let is_through = stop.clone();
    run(plan(target, connections), stop, move |_| {
        if through.load(Ordering::Relaxed) == connections {
            is_through.store(true, Ordering::Relaxed);
        }
    })
    .unwrap()
}

#[test]
fn a_whole_run() {
    let report = run_two_tips(40, b"");
    assert!(!report.failed, "{report}");
    assert!(report.is_final && report.duration_seconds < RUN_MAX.as_secs_f64());
    assert_eq!((report.connects, report.open, report.disconnects), (40, 40, 0));
    assert_eq!(report.threads, 2);
    assert_eq!((report.jobs, report.prev_hashes), (80, 80));
    assert!(report.shares_accepted >= 40 * 6);
    assert_eq!(report.shares_submitted, report.shares_accepted + report.shares_unanswered);
    assert_eq!(report.shares_accepted_sum, 2 * report.shares_accepted);
    assert_eq!(report.ack_micros.count, report.shares_accepted);
    let legs = &report.connect_micros;
    for leg in [legs.tcp, legs.act2, legs.setup, legs.open, legs.first_job, legs.total] {
        assert_eq!(leg.count, 40);
        assert!(leg.p50 <= leg.p99 && leg.p99 <= leg.max && leg.max < 30_000_000);
    }
    assert_eq!(report.tip_count, 1);
    assert_eq!((report.tips[0].miners, report.tips[0].missed), (40, 0));
    assert_eq!(report.tips[0].prev_hash.0, [2; 32]);
    assert_eq!(report.switch_micros.count, 40);
}

#[test]
fn refusals_fail_a_run_unless_stale() {
    let stale = run_two_tips(3, b"stale-share");
    assert_eq!((stale.failed, stale.shares_rejected), (false, 3));
    let duplicate = run_two_tips(3, b"duplicate-share");
    assert_eq!((duplicate.failed, duplicate.rejects.of("duplicate-share")), (true, 3));
}

/// A server of grouped extended channels: job and tip for each, a tip for all of them once all
/// are open, then it closes one and counts the miners whose shares go on.
fn serve_a_group(mut stream: TcpStream, channels: u32, through: &AtomicUsize) -> Option<()> {
    let mut transport = secure(&mut stream)?;
    let (mut bytes, mut wire) = (Vec::new(), Vec::new());
    let (coinbase, mut shares) = (coinbase(), 0);
    loop {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        let mut used = 0;
        while let Opened::Frame { frame, consumed } = transport.open(&mut bytes[used..]) {
            used += consumed;
            match FromMiner::decode(&frame).unwrap() {
                FromMiner::SetupConnection(_) => {
                    transport.seal(&setup_success(), &mut wire).unwrap();
                }
                FromMiner::OpenExtendedMiningChannel(open) => {
                    let channel_id = CHANNEL + open.request_id - 1;
                    let prefix = prefix(channel_id);
                    let success = extended_success(open.request_id, &prefix);
                    transport.seal(&success, &mut wire).unwrap();
                    let first = extended_job(&coinbase, channel_id, 1, None);
                    transport.seal(&first, &mut wire).unwrap();
                    let tip = SetNewPrevHash { channel_id, ..prev_hash(1, 1) };
                    transport.seal(&tip, &mut wire).unwrap();
                    if open.request_id == channels {
                        let second = extended_job(&coinbase, GROUP, 2, None);
                        transport.seal(&second, &mut wire).unwrap();
                        let tip = SetNewPrevHash { channel_id: GROUP, ..prev_hash(2, 2) };
                        transport.seal(&tip, &mut wire).unwrap();
                        let close = CloseChannel { channel_id, reason_code: b"enough" };
                        transport.seal(&close, &mut wire).unwrap();
                    }
                }
                FromMiner::SubmitSharesExtended(share) => {
                    let success = SubmitSharesSuccess {
                        channel_id: share.channel_id,
                        last_sequence_number: share.sequence_number,
                        new_submits_accepted_count: 1,
                        new_shares_sum: 2,
                    };
                    transport.seal(&success, &mut wire).unwrap();
                    shares += 1;
                    if shares == SHARES_PER_TIP {
                        through.fetch_add(1, Ordering::Relaxed);
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        bytes.drain(..used);
        stream.write_all(&wire).ok()?;
        wire.clear();
    }
}

/// Goal: a connection with several channels counts as one miner, which has switched when its last
/// channel has.
#[test]
fn several_channels_are_one_miner() {
    const CONNECTIONS: usize = 8;
    const CHANNELS: u32 = 4;
    let through = Arc::new(AtomicUsize::new(0));
    let counter = through.clone();
    let target = serve(move |stream| {
        serve_a_group(stream, CHANNELS, &counter);
    });
    let stop = Arc::new(AtomicBool::new(false));
    let is_through = stop.clone();
    let mut plan = plan(target, CONNECTIONS);
    plan.pace = Pace::SharesPerMinute(600.0);
    plan.miner.kinds = ChannelKinds::Extended;
    plan.miner.flags = 0;
    plan.miner.channels = CHANNELS as usize;
    let report = run(plan, stop, move |_| {
        if through.load(Ordering::Relaxed) == CONNECTIONS {
            is_through.store(true, Ordering::Relaxed);
        }
    })
    .unwrap();
    assert!(!report.failed, "{report}");
    let (connections, channels) = (CONNECTIONS as u64, u64::from(CHANNELS));
    assert_eq!((report.open, report.channels_open), (connections, connections * (channels - 1)));
    assert_eq!(report.prev_hashes, connections * channels * 2);
    assert_eq!((report.tip_count, report.switch_micros.count), (1, connections));
    assert_eq!((report.tips[0].miners, report.tips[0].missed), (connections, 0));
    let legs = &report.connect_micros;
    assert_eq!((legs.open.count, legs.first_job.count), (connections, connections));
}

/// Goal: a server that breaks the protocol is an error of the report, and the miner comes back.
#[test]
fn violations_are_counted_and_reconnected() {
    let target = serve(|mut stream| {
        let Some(mut transport) = secure(&mut stream) else { return };
        let mut wire = Vec::new();
        transport.seal(&job(1, None), &mut wire).unwrap();
        let _ = stream.write_all(&wire);
        // Until the miner has left.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let stop = Arc::new(AtomicBool::new(false));
    let has_enough = stop.clone();
    let plan = Plan { reconnect_ms: Some(1), ..plan(target, 2) };
    let report = run(plan, stop, move |report| {
        if report.disconnects > 10 {
            has_enough.store(true, Ordering::Relaxed);
        }
    })
    .unwrap();
    assert!(report.failed && report.errors.of("unexpected_message") > 10);
    assert!(report.error_samples[0].contains("0x15"), "{:?}", report.error_samples);
}

#[test]
fn a_silent_server_runs_into_the_deadline() {
    let target = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let stop = Arc::new(AtomicBool::new(false));
    let has_ended = stop.clone();
    let mut plan = plan(target, 2);
    plan.miner.step_timeout_ms = 50;
    let report = run(plan, stop, move |report| {
        has_ended.store(report.disconnects == 2, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(report.errors.of("step_timeout"), 2);
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    drop(listener);
    let plan = Plan { duration: Some(Duration::from_millis(300)), ..plan(target, 3) };
    let report = run(plan, Arc::default(), |_| ()).unwrap();
    assert_eq!((report.errors.of("connect_failed"), report.connects), (3, 0));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    report.write_json(&path).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["errors"]["connect_failed"], 3);
    assert_eq!(json["connect_micros"]["tcp"]["count"], 0);
}

#[test]
fn impossible_plans_are_refused() {
    let target = SocketAddr::from(([127, 0, 0, 1], 1));
    for (connections, threads) in [(0, 1), (60_001, 1), (1, 0), (1, 65)] {
        let plan = Plan { threads, ..plan(target, connections) };
        let refused = run(plan, Arc::default(), |_| ());
        assert!(matches!(refused, Err(DriveError::OutOfRange { .. })));
    }
}
