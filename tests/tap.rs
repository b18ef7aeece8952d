//! No miner gets a job without an accepting verdict that came before it (I5).
//!
//! A tap between gateway and verifier records every proposal and every verdict with its time;
//! miners record every job they decrypt. The books are compared afterwards, by recomputing each
//! job's merkle root from what was proposed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use stack::client::{Client, Work};
use stack::{Chain, PATIENCE, Settings, Stack, wait_until};
use work::contract::verifier::{FromVerifier, TemplatePropose, TemplateVerdict, ToVerifier};
use work::job::{body_hash, tip_hash};
use work::{Coinbase, Decision, Tip, merkle};

/// Miners, with two channels each.
const MINERS: usize = 6;

const CHANNELS: usize = 2 * MINERS;

/// Time that a miner listens before it looks whether it is to end.
const LISTEN: Duration = Duration::from_millis(50);

/// One line of interest, and when it passed.
#[derive(Debug, Clone)]
struct Passed<T> {
    at: Instant,
    /// Number of the connection: proposals are numbered per connection.
    connection: u64,
    line: T,
}

/// What has passed.
#[derive(Debug, Clone, Default)]
struct Book {
    proposals: Vec<Passed<TemplatePropose>>,
    verdicts: Vec<Passed<TemplateVerdict>>,
}

/// A proxy that hands lines on, unchanged and after it has noted them.
struct Tap {
    address: String,
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    fn start(verifier: String) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (book, stop) = (Arc::new(Mutex::new(Book::default())), Arc::default());
        let (writing, stopping) = (Arc::clone(&book), Arc::<AtomicBool>::clone(&stop));
        let thread = std::thread::spawn(move || {
            let connections = AtomicU64::new(0);
            for gateway in listener.incoming() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let connection = connections.fetch_add(1, Ordering::Relaxed);
                // A verifier that is down is a connection that closes.
                let (Ok(gateway), Ok(verifier)) = (gateway, TcpStream::connect(&verifier)) else {
                    continue;
                };
                serve(connection, &gateway, &verifier, &writing);
            }
        });
        Tap { address, book, stop, thread: Some(thread) }
    }

    fn book(&self) -> Book {
        self.book.lock().unwrap().clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Ends the wait for a connection.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One thread each way; both end when either side closes.
fn serve(connection: u64, gateway: &TcpStream, verifier: &TcpStream, book: &Arc<Mutex<Book>>) {
    gateway.set_nodelay(true).unwrap();
    verifier.set_nodelay(true).unwrap();
    let pass = |from: &TcpStream, to: &TcpStream, note: fn(&mut Book, u64, &[u8])| {
        let (from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let book = Arc::clone(book);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(from.try_clone().unwrap());
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                note(&mut book.lock().unwrap(), connection, &line);
                if to.write_all(&line).is_err() {
                    break;
                }
                line.clear();
            }
            for stream in [&from, &to] {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    };
    pass(gateway, verifier, |book, connection, line| {
        if let Ok(ToVerifier::TemplatePropose(line)) = serde_json::from_slice(line) {
            book.proposals.push(Passed { at: Instant::now(), connection, line: *line });
        }
    });
    pass(verifier, gateway, |book, connection, line| {
        if let Ok(FromVerifier::TemplateVerdict(line)) = serde_json::from_slice(line) {
            book.verdicts.push(Passed { at: Instant::now(), connection, line: *line });
        }
    });
}

/// What the comparison found.
#[derive(Debug, Default, PartialEq)]
struct Findings {
    /// Jobs with exactly one accepted body before them.
    verified: usize,
    /// One sentence for each job that must not have gone out.
    faults: Vec<String>,
}

/// Whether `work` is what `proposal` proposes, for the extranonce of its channel.
fn is_work_of(work: &Work, proposal: &TemplatePropose) -> bool {
    let coinbase = Coinbase {
        prefix: proposal.coinbase.prefix.0.clone(),
        suffix: proposal.coinbase.suffix.0.clone(),
        extranonce_bytes: proposal.coinbase.extranonce_len,
    };
    work.extranonce.len() == proposal.coinbase.extranonce_len
        && work.version == proposal.version
        && work.tip.is_some_and(|tip| {
            tip.prev_hash == proposal.prev_hash
                && tip.nbits == proposal.nbits
                && tip.min_ntime >= proposal.min_time
        })
        && merkle::root(coinbase.txid(&work.extranonce, &[]), &proposal.merkle_path)
            == work.merkle_root
}

/// Whether a verdict names the very bytes of a proposal (D37).
fn is_bound_to(verdict: &TemplateVerdict, proposal: &TemplatePropose) -> bool {
    let coinbase = &proposal.coinbase;
    let body = body_hash(
        &coinbase.prefix.0,
        &coinbase.suffix.0,
        &proposal.merkle_path,
        proposal.version,
        proposal.height,
        coinbase.extranonce_len,
    );
    let tip = tip_hash(&Tip {
        prev_hash: proposal.prev_hash,
        nbits: proposal.nbits,
        min_ntime: proposal.min_time,
    });
    verdict.body_hash.0 == body && verdict.tip_hash.0 == tip
}

/// Find for each job the accepting verdicts that passed before it was heard.
fn compare(jobs: &[Work], book: &Book) -> Findings {
    let proposals: BTreeMap<(u64, u64), &Passed<TemplatePropose>> = book
        .proposals
        .iter()
        .map(|proposal| ((proposal.connection, proposal.line.propose_id), proposal))
        .collect();
    let mut findings = Findings::default();
    for job in jobs {
        let mut accepted = BTreeSet::new();
        let mut others = Vec::new();
        for verdict in &book.verdicts {
            let key = (verdict.connection, verdict.line.propose_id);
            let Some(proposal) = proposals.get(&key) else { continue };
            if !is_work_of(job, &proposal.line) {
                continue;
            }
            let is_earlier = proposal.at < verdict.at && verdict.at < job.heard_at;
            match verdict.line.verdict {
                Decision::Accept if !is_bound_to(&verdict.line, &proposal.line) => {
                    others.push("accepted, but other bytes");
                }
                // Two templates may be the same bytes: a coinbase-only one, and a full one on
                // an empty mempool. They count as one.
                Decision::Accept if is_earlier => {
                    accepted.insert(verdict.line.body_hash.0.clone());
                }
                Decision::Accept => others.push("accepted too late"),
                Decision::Reject => others.push("rejected"),
            }
        }
        match accepted.len() {
            1 => findings.verified += 1,
            count => findings.faults.push(format!(
                "job {} of channel {}: {count} bodies were accepted before it ({others:?})",
                job.job_id, job.channel_id
            )),
        }
    }
    findings
}

/// Listen to a connection with two channels until told to stop; all jobs that it was given.
fn listen(mut client: Client, stop: &AtomicBool) -> Vec<Work> {
    while !stop.load(Ordering::Relaxed) {
        client.next(LISTEN);
        assert!(!client.is_closed(), "the gateway closed a connection");
    }
    client.catch_up();
    client.channels.values().flat_map(|channel| channel.jobs.values().cloned()).collect()
}

/// Miners that listen, two channels each, until they are stopped.
struct Miners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Work>>>,
}

impl Miners {
    fn start(stack: &Stack) -> Miners {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |number: usize| {
            let mut client = stack.client();
            client.open(&format!("miner{number}.a"), 20);
            client.open(&format!("miner{number}.b"), 10);
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || listen(client, &stop))
        };
        let threads = (0..MINERS).map(start).collect();
        Miners { stop, threads }
    }

    /// All jobs that they were given.
    fn stop(self) -> Vec<Work> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// New tips, one after the other, each given to every channel.
fn blocks(stack: &Stack, count: usize) {
    let given = || stack.gateway.metric("prevhash_sent_total");
    for _ in 0..count {
        let before = given();
        stack.demo_block();
        wait_until("the switch", PATIENCE, || given() >= before + CHANNELS as f64);
    }
}

fn transactions(stack: &Stack) -> f64 {
    stack.gateway.metric("template_transactions{slot=\"current\"}")
}

/// Blocks and better templates; a policy that rejects all transactions; a tip while the verifier
/// is gone; and the first policy again.
fn live_through(stack: &mut Stack) {
    blocks(stack, 10);
    wait_until("full templates", PATIENCE, || transactions(stack) > 0.0);

    // From now on a block may hold its header and coinbase and no transaction beside them.
    stack.verifier.kill();
    stack.set_policy(&json!({ "version": "tiny", "structure": { "weight_max": 1_300 } }));
    stack.verifier.start();
    stack.gateway.wait_ready();
    blocks(stack, 10);
    wait_until("rejections", PATIENCE, || {
        stack.gateway.metric("verdicts_total{verdict=\"reject\"}") >= 3.0
    });
    assert_eq!(transactions(stack), 0.0);

    stack.verifier.kill();
    let published = stack.gateway.metric("jobs_published_total");
    stack.demo_block();
    wait_until("the hold", PATIENCE, || stack.gateway.metric("prevhash_hold_active") == 1.0);
    assert_eq!(stack.gateway.metric("jobs_published_total"), published);
    stack.set_policy(&json!({}));
    stack.verifier.start();
    stack.gateway.wait_ready();
    blocks(stack, 10);
    wait_until("full templates again", PATIENCE, || transactions(stack) > 0.0);
}

/// Goal: whatever happens to the verifier and its policy, every job has its one accepting
/// verdict, and rejected templates reach nobody.
#[test]
fn every_job_has_an_earlier_accepting_verdict() {
    // The interval of the chain's own blocks is short, so that its mempool fills quickly.
    let demo = json!({
        "block_interval_ms": 3_000, "mempool_transactions": 300, "nbits": "1d00ffff",
    });
    let settings = Settings { chain: Chain::Demo(demo), ..Settings::demo("1d00ffff") };
    let mut stack = Stack::without_gateway(&settings);
    let tap = Tap::start(stack.verifier.address("listen_addr"));
    stack.start_gateway(&tap.address);
    let miners = Miners::start(&stack);
    live_through(&mut stack);
    let sent = stack.gateway.metric("jobs_sent_total");
    let (jobs, book) = (miners.stop(), tap.book());

    let findings = compare(&jobs, &book);
    assert_eq!(findings.faults, Vec::<String>::new());
    let rejected: Vec<_> =
        book.verdicts.iter().filter(|verdict| verdict.line.verdict == Decision::Reject).collect();
    assert!(rejected.len() >= 3, "{} rejections", rejected.len());
    for verdict in &rejected {
        assert!(!verdict.line.reason_codes.is_empty(), "{verdict:?}");
        let proposal = book.proposals.iter().find(|proposal| {
            proposal.connection == verdict.connection
                && proposal.line.propose_id == verdict.line.propose_id
        });
        let proposal = &proposal.unwrap().line;
        assert!(!jobs.iter().any(|job| is_work_of(job, proposal)), "a rejected template went out");
    }
    assert!(findings.verified >= CHANNELS * 31, "{} jobs", findings.verified);
    // The last may be on their way when the miners stop.
    assert!(
        findings.verified as f64 >= sent - (2 * CHANNELS) as f64,
        "{} of {sent}",
        findings.verified
    );
    println!(
        "{} jobs, each with its verdict; {} verdicts, {} of them rejections",
        findings.verified,
        book.verdicts.len(),
        rejected.len()
    );
}

/// Goal: the comparison finds what it is for. A real job passes, and does not when its verdict is
/// missing, rejecting, late, for another channel, or for other bytes.
#[test]
fn the_comparison_can_fail() {
    let mut stack = Stack::without_gateway(&Settings::demo("1d00ffff"));
    let tap = Tap::start(stack.verifier.address("listen_addr"));
    stack.start_gateway(&tap.address);
    let mut client = stack.client();
    let channel_id = client.open("miner", 20);
    let job = client.work(channel_id);
    let book = tap.book();
    let check = |job: &Work, book: &Book, faults: usize| {
        let findings = compare(std::slice::from_ref(job), book);
        assert_eq!(
            (findings.verified, findings.faults.len()),
            (1 - faults, faults),
            "{findings:?}"
        );
    };
    check(&job, &book, 0);
    check(&job, &Book { verdicts: Vec::new(), ..book.clone() }, 1);
    check(&job, &Book { proposals: Vec::new(), ..book.clone() }, 1);
    let mut rejecting = book.clone();
    for verdict in &mut rejecting.verdicts {
        verdict.line.verdict = Decision::Reject;
    }
    check(&job, &rejecting, 1);
    let mut late = book.clone();
    for verdict in &mut late.verdicts {
        verdict.at = job.heard_at + Duration::from_nanos(1);
    }
    check(&job, &late, 1);
    let mut foreign = book.clone();
    for verdict in &mut foreign.verdicts {
        verdict.connection += 1;
    }
    check(&job, &foreign, 1);
    let mut unbound = book.clone();
    for verdict in &mut unbound.verdicts {
        verdict.line.tip_hash.0[0] ^= 1;
    }
    check(&job, &unbound, 1);

    let mut other = job.clone();
    other.extranonce[7] ^= 1;
    check(&other, &book, 1);
    let mut other = job.clone();
    other.merkle_root.0[0] ^= 1;
    check(&other, &book, 1);
    let other = Work { version: job.version ^ 0x2000, ..job.clone() };
    check(&other, &book, 1);
    let mut tip = job.tip.unwrap();
    tip.prev_hash.0[0] ^= 1;
    check(&Work { tip: Some(tip), ..job.clone() }, &book, 1);
    check(&Work { tip: None, ..job }, &book, 1);
}
