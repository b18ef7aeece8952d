//! A backend that fails in every way there is, behind the real gateway with miners that go on:
//! each fault ends as the table of docs/backend.md says, and when it is over, every share that a
//! miner was told is accepted is in the backend's book once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use gateway::limits::RETRY_FIRST_MILLIS;
use serde_json::{Value, json};
use stack::client::{Client, Share};
use stack::faulty_backend::{Fault, FaultyBackend};
use stack::truth::{Post, Truth};
use stack::untrusted::Untrusted;
use stack::{PATIENCE, Settings, Stack, wait_until};
use work::BlockHash;

/// Four thousand million hashes a block: no share of these tests is one.
const NBITS: &str = "1d00ffff";

/// Shares need this many hashes, 2^(32 - 20).
const EASY: u32 = 20;

/// Miners of a world.
const MINERS: usize = 3;

/// Time for one attempt, milliseconds: what a fault that gives no answer costs.
const TIMEOUT_MS: u64 = 300;

/// Failures in a row after which the gateway only probes.
const FAILURES_BEFORE_PROBING: usize = 20;

/// Shortest pause between two probes.
const PAUSE_LEAST: Duration = Duration::from_millis(RETRY_FIRST_MILLIS / 2);

/// Batches that are in flight at once.
const IN_FLIGHT: usize = 4;

/// The gateway between miners and a faulty backend.
struct World {
    stack: Stack,
    backend: FaultyBackend,
    miners: Vec<Miner>,
    /// Hashes of all shares that a miner was told are accepted.
    told: BTreeSet<BlockHash>,
}

/// Why the gateway posts nothing but probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// It posts everything.
    Not,
    /// Many failures in a row.
    Failures,
    /// An answer that looks like a wrong configuration.
    WrongAnswer,
}

/// A miner's connection. It opens a channel for every few shares: a channel that goes on so fast
/// would be given a higher difficulty.
struct Miner {
    client: Client,
    name: String,
    submitted: u64,
}

impl Miner {
    fn join(stack: &Stack, name: &str) -> Miner {
        Miner { client: stack.client(), name: name.to_owned(), submitted: 0 }
    }

    /// Find that many shares.
    fn grind(&mut self, count: usize) -> Vec<Share> {
        let channel_id = self.client.open(&self.name, EASY);
        let work = self.client.work(channel_id);
        let target = self.client.channels[&channel_id].target;
        let mut next_nonce = 0;
        let next = |_| {
            let share = work.grind(next_nonce, |hash| target.is_met_by(hash));
            next_nonce = share.claim.nonce + 1;
            share
        };
        (0..count).map(next).collect()
    }

    /// Submit them at once.
    fn submit(&mut self, shares: &[Share]) {
        for share in shares {
            self.client.submit(share);
        }
        self.submitted += shares.len() as u64;
    }

    /// Wait until it was told that all of them are accepted.
    fn hear_all_accepted(&mut self) {
        let submitted = self.submitted;
        self.client.wait_until("all acknowledgements", |client| {
            assert_eq!(client.rejected, Vec::<String>::new());
            client.accepted == submitted
        });
    }
}

/// How the gateway of these tests forwards.
fn forwarding(url: &str, batch_interval_ms: u64) -> Value {
    json!({ "share": {
        "share_upstream_url": url,
        "share_batch_interval_ms": batch_interval_ms,
        "share_forward_timeout_ms": TIMEOUT_MS,
        "share_forward_backoff_max_ms": 100,
        "share_forward_max_in_flight": IN_FLIGHT,
    } })
}

impl World {
    fn start(batch_interval_ms: u64) -> World {
        let backend = FaultyBackend::start();
        let gateway = forwarding(&backend.url(), batch_interval_ms);
        let stack = Stack::start(&Settings { gateway, ..Settings::demo(NBITS) });
        let miners = (0..MINERS).map(|n| Miner::join(&stack, &format!("miner-{n}"))).collect();
        let mut world = World { stack, backend, miners, told: BTreeSet::new() };
        world.mine(2);
        world.assert_settled();
        world
    }

    /// Let each miner submit that many shares and hear that they are accepted.
    fn mine(&mut self, each: usize) {
        // Found first, so that they come together.
        let found: Vec<Vec<Share>> =
            self.miners.iter_mut().map(|miner| miner.grind(each)).collect();
        for (miner, shares) in self.miners.iter_mut().zip(&found) {
            miner.submit(shares);
        }
        for miner in &mut self.miners {
            miner.hear_all_accepted();
        }
        self.told.extend(found.iter().flatten().map(|share| share.hash));
    }

    fn metric(&self, name: &str) -> f64 {
        self.stack.gateway.metric(name)
    }

    fn requests(&self, code: &str) -> f64 {
        self.metric(&format!("share_forward_requests_total{{code=\"{code}\"}}"))
    }

    fn settled(&self, outcome: &str) -> f64 {
        self.metric(&format!("share_forward_results_total{{outcome=\"{outcome}\"}}"))
    }

    /// Why nothing but probes goes out.
    fn held(&self) -> Held {
        match self.metric("share_forward_held") {
            0.0 => Held::Not,
            1.0 => Held::Failures,
            2.0 => Held::WrongAnswer,
            other => panic!("share_forward_held is {other}"),
        }
    }

    /// POSTs that the backend has had.
    fn posts(&self) -> usize {
        self.backend.truth().posts.len()
    }

    /// Wait until something holds in the backend's book.
    fn wait_for_book(&self, what: &str, holds: impl Fn(&Truth) -> bool) {
        wait_until(what, PATIENCE, || holds(&self.backend.truth()));
    }

    /// Wait until the backend has credited all shares that miners were told of but these ids.
    fn wait_for_credit_but(&self, poisoned: &BTreeSet<String>) {
        let expected = self.told.len() - poisoned.len();
        self.wait_for_book("the book", |truth| truth.hashes.len() >= expected);
    }

    /// Wait until everything is settled. Each share that a miner was told of is in the book once,
    /// nothing else is, and the gateway counts the same.
    fn assert_settled(&self) {
        self.wait_for_credit_but(&BTreeSet::new());
        wait_until("the gateway's own books", PATIENCE, || {
            let outcomes = ["delivered", "duplicate", "rejected_by_upstream"];
            let settled: f64 = outcomes.iter().map(|outcome| self.settled(outcome)).sum();
            let open = ["share_forward_queue_depth", "share_forward_in_flight"];
            let open: f64 = open.iter().map(|name| self.metric(name)).sum();
            settled == self.told.len() as f64 && open == 0.0 && self.held() == Held::Not
        });
        assert_eq!(self.settled("rejected_by_upstream"), 0.0);
        self.assert_book_is_right();
        assert_eq!(self.backend.truth().credited(), self.told);
        self.assert_one_result_each();
    }

    /// The events of this type.
    fn events(&self, kind: &str) -> Vec<Value> {
        let text = self.ask("GET", &format!("/gateway/events?types={kind}"));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What the gateway's HTTP side answers to its operator.
    fn ask(&self, method: &str, path: &str) -> String {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.stack.gateway.http_addr()))
            .header("authorization", "Bearer an-api-key-for-tests")
            .body(())
            .unwrap();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .max_idle_connections(0)
            .proxy(None)
            .build()
            .into();
        let mut answer = agent.run(request).unwrap_or_else(|error| panic!("{path}: {error}"));
        answer.body_mut().read_to_string().unwrap()
    }

    /// Each share that came to the backend has one result, and no other share has one.
    fn assert_one_result_each(&self) {
        let expected: Vec<String> = self.backend.truth().shares.keys().cloned().collect();
        wait_until("the results' events", PATIENCE, || {
            self.events("share_forward_result").len() >= expected.len()
        });
        let results = self.events("share_forward_result");
        let id = |event: &Value| event["share_id"].as_str().unwrap().to_owned();
        let mut found: Vec<String> = results.iter().map(id).collect();
        found.sort();
        assert_eq!(found, expected);
    }

    /// What holds at any time.
    fn assert_book_is_right(&self) {
        let truth = self.backend.truth();
        assert_eq!(truth.wrongs, Vec::<String>::new());
        assert_eq!(truth.strays, Vec::<String>::new());
        assert_eq!(truth.duplicates(), Vec::<&String>::new(), "a share under two ids");
        let is_told = |hash: &BlockHash| self.told.contains(hash);
        assert!(truth.hashes.keys().all(is_told), "a share that no miner knows");
    }

    /// Whether nothing is on its way to the backend.
    fn is_silent(&self) -> bool {
        self.backend.truth().posts.iter().all(|post| post.over.is_some())
    }

    /// From now on, one batch is tried at a time. The number of the first.
    fn assert_only_probes(&self) -> usize {
        let from = self.posts();
        self.wait_for_book("probes", |truth| truth.posts.len() >= from + 4);
        assert_eq!(self.backend.truth().most_at_once(from), 1);
        from
    }

    /// The same, of batches that are answered: there are pauses between.
    fn assert_only_slow_probes(&self) {
        let from = self.assert_only_probes();
        let truth = self.backend.truth();
        for pair in truth.posts[from..].windows(2) {
            let pause = pair[1].at.duration_since(pair[0].over.unwrap());
            assert!(pause >= PAUSE_LEAST, "{pause:?} between {pair:?}");
        }
    }

    /// Switch a fault on, mine, wait until the backend's book `shows` it from the first POST of
    /// the fault on, mine more, switch it off, and wait until all is settled.
    fn endure(&mut self, fault: Fault, shows: impl Fn(&World, usize)) {
        println!("{fault:?}");
        let from = self.posts();
        self.backend.set(fault);
        self.mine(3);
        shows(self, from);
        self.mine(2);
        self.backend.set(Fault::Nothing);
        self.assert_settled();
    }
}

/// Whether a batch was posted that many times from number `from` on, and not answered usefully.
fn has_attempts(truth: &Truth, from: usize, count: usize) -> bool {
    truth.attempts(from).values().any(|posts| posts.len() >= count)
}

/// Goal: what time heals is posted again, under the same batch id and with the same shares, until
/// it is answered; a batch that was booked without an answer is booked once.
#[test]
fn what_time_heals_is_posted_again() {
    let mut world = World::start(50);
    let io_before = world.requests("io");
    world.endure(Fault::Refused, |world, _| {
        wait_until("refused connections", PATIENCE, || world.requests("io") >= io_before + 3.0);
    });
    for fault in [Fault::Hang, Fault::Drip, Fault::TornAnswer, Fault::LostAnswer] {
        let before = world.requests("io");
        world.endure(fault, |world, from| {
            world.wait_for_book("another attempt", |truth| has_attempts(truth, from, 2));
            wait_until("counted losses", PATIENCE, || world.requests("io") >= before + 2.0);
        });
    }
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let code = if status < 500 { "4xx" } else { "5xx" };
        let before = world.requests(code);
        world.endure(Fault::Status(status), |world, from| {
            world.wait_for_book("another attempt", |truth| has_attempts(truth, from, 2));
            wait_until("counted answers", PATIENCE, || world.requests(code) >= before + 2.0);
        });
    }
    assert!(world.metric("share_forward_retries_total") >= 20.0);
}

/// Whether each attempt of a batch came only when `is_allowed` after the answer to the one before.
fn assert_waited(truth: &Truth, from: usize, is_allowed: impl Fn(&Post, &Post) -> bool) {
    for posts in truth.attempts(from).values() {
        for pair in posts.windows(2).filter(|pair| pair[0].status >= 400) {
            assert!(is_allowed(pair[0], pair[1]), "{pair:?}");
        }
    }
}

/// Goal: `Retry-After` is honoured, in seconds and as a date, also where the gateway's own waits
/// are shorter.
#[test]
fn retry_after_is_honoured() {
    let mut world = World::start(50);
    let from = world.posts();
    world.endure(Fault::RetryAfter(429, "1".to_owned()), |world, from| {
        world.wait_for_book("another attempt", |truth| has_attempts(truth, from, 2));
    });
    assert_waited(&world.backend.truth(), from, |refused, next| {
        next.at.duration_since(refused.at) >= Duration::from_secs(1)
    });

    let from = world.posts();
    let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
    let date = jiff::Timestamp::from_second(date.as_second()).unwrap();
    let text = jiff::fmt::rfc2822::DateTimePrinter::new();
    let text = text.timestamp_to_rfc9110_string(&date).unwrap();
    world.endure(Fault::RetryAfter(503, text), |world, from| {
        world.wait_for_book("another attempt", |truth| has_attempts(truth, from, 2));
    });
    let date = SystemTime::from(date);
    assert_waited(&world.backend.truth(), from, |_, next| next.at_time >= date);
}

/// Goal: what looks like a wrong configuration settles nothing: everything but one probe at a
/// time is held back, an alarm is up, no redirect is followed, and it heals by itself.
#[test]
fn a_wrong_configuration_pauses_everything() {
    let mut world = World::start(50);
    let redirects = [301, 302, 307, 308].map(Fault::Redirect);
    let refusals = [401, 403, 404, 405, 410, 421].map(Fault::Status);
    let unusable = [Fault::Empty, Fault::NoJson, Fault::AnotherBatch, Fault::OneMissing];
    for fault in redirects.into_iter().chain(refusals).chain(unusable) {
        println!("{fault:?}");
        world.backend.set(fault);
        world.mine(3);
        wait_until("the alarm", PATIENCE, || world.held() == Held::WrongAnswer);
        wait_until("silence", PATIENCE, || world.is_silent());
        // These would go out at once if anything did.
        world.mine(2);
        world.assert_only_slow_probes();
        assert_eq!(world.held(), Held::WrongAnswer);
        world.backend.set(Fault::Nothing);
        world.assert_settled();
    }
    assert_eq!(world.settled("duplicate"), 0.0);
}

/// Goal: a batch that is too large is cut in two, as often as needed, without any other help.
#[test]
fn too_large_a_batch_is_split() {
    const MOST: usize = 4;
    let mut world = World::start(250);
    let from = world.posts();
    world.backend.set(Fault::AtMost(MOST));
    world.mine(12);
    world.assert_settled();
    let truth = world.backend.truth();
    let refused = truth.posts[from..].iter().filter(|post| post.status == 413);
    assert!(refused.count() >= 2, "a half was too large, too");
    for post in &truth.posts[from..] {
        let is_large = post.share_ids.len() > MOST;
        assert_eq!(post.status, if is_large { 413 } else { 200 }, "{post:?}");
    }
    assert!(truth.attempts(from).values().all(|posts| posts.len() == 1), "no half has an old id");
}

/// Goal: one share that the backend refuses costs that share alone: the batch is cut in two until
/// it is found, it becomes a dead letter, and the others are delivered.
#[test]
fn a_poisoned_share_is_found() {
    for status in [400, 422] {
        let mut world = World::start(250);
        world.backend.set(Fault::Poisoned(status));
        world.mine(12);
        let dead = || world.metric("dead_letters");
        wait_until("the dead letters", PATIENCE, || dead() == 2.0);
        let poisoned = world.backend.poisoned();
        assert_eq!(poisoned.len(), 2);
        world.wait_for_credit_but(&poisoned);
        world.assert_book_is_right();
        let truth = world.backend.truth();
        assert!(poisoned.iter().all(|id| !truth.shares.contains_key(id)));
        assert_eq!(truth.credited().len(), world.told.len() - 2);
        drop(truth);
        let others = (world.told.len() - 2) as f64;
        wait_until("the others", PATIENCE, || world.settled("delivered") == others);
        assert_eq!(world.held(), Held::Not);
        world.assert_one_result_each();
        // The backend is mended, and the operator has the dead letters posted again.
        world.backend.set(Fault::Nothing);
        world.ask("POST", "/api/v1/dead-letters/replay-all");
        world.assert_settled();
        assert_eq!(world.metric("dead_letters"), 0.0);
    }
}

/// Goal: a backend that remembers batches and not their answers says 409 to the attempt after a
/// lost answer: the shares count as duplicates, none is lost.
#[test]
fn a_known_batch_is_settled() {
    let mut world = World::start(50);
    let before = world.told.len();
    world.backend.set(Fault::KnownBatch);
    world.mine(5);
    world.assert_settled();
    assert_eq!(world.settled("duplicate"), (world.told.len() - before) as f64);
    let truth = world.backend.truth();
    let known: BTreeSet<&String> = truth
        .posts
        .iter()
        .filter(|post| post.status == 409)
        .flat_map(|post| &post.share_ids)
        .collect();
    assert_eq!(known.len(), world.told.len() - before);
    for result in world.events("share_forward_result") {
        let is_known = known.iter().any(|id| result["share_id"] == json!(id));
        let expected = if is_known { (json!(null), json!(409)) } else { (json!(true), json!(200)) };
        let found = (&result["upstream_accepted"], &result["upstream_http_status"]);
        assert_eq!(found, (&expected.0, &expected.1), "{result}");
    }
}

/// Goal: after twenty failures in a row the gateway tries with one batch at a time.
#[test]
fn many_failures_leave_only_probes() {
    let mut world = World::start(0);
    let from = world.posts();
    world.backend.set(Fault::Hang);
    world.mine(4);
    wait_until("the open breaker", PATIENCE, || world.held() == Held::Failures);
    {
        let truth = world.backend.truth();
        let failures = &truth.posts[from..];
        assert!(failures.len() >= FAILURES_BEFORE_PROBING, "{}", failures.len());
        assert_eq!(truth.most_at_once(from), IN_FLIGHT);
    }
    wait_until("silence", PATIENCE, || world.is_silent());
    world.assert_only_probes();
    world.backend.set(Fault::Nothing);
    world.assert_settled();
}

/// Goal: a backend whose certificate nobody vouches for gets nothing; what miners were told is
/// kept, and goes to the right one once the operator has named it.
#[test]
fn a_certificate_of_nobody_is_not_trusted() {
    let impostor = Untrusted::start();
    let gateway = forwarding(&impostor.url(), 50);
    let mut stack = Stack::start(&Settings { gateway, ..Settings::demo(NBITS) });
    let mut miner = Miner::join(&stack, "miner");
    let shares = miner.grind(10);
    let told: BTreeSet<BlockHash> = shares.iter().map(|share| share.hash).collect();
    miner.submit(&shares);
    miner.hear_all_accepted();
    wait_until("refused handshakes", PATIENCE, || impostor.handshakes().refused >= 3);
    let handshakes = impostor.handshakes();
    assert_eq!(handshakes.completed, 0, "{handshakes:?}");
    wait_until("counted losses", PATIENCE, || {
        stack.gateway.metric("share_forward_requests_total{code=\"io\"}") >= 3.0
    });
    assert_eq!(stack.gateway.metric("share_forward_queue_depth"), 10.0);

    let backend = FaultyBackend::start();
    let mut config = stack.gateway_config().clone();
    stack::merge(&mut config, &forwarding(&backend.url(), 50));
    stack.gateway.kill();
    stack.gateway.configure(&config);
    stack.gateway.start();
    wait_until("the book", PATIENCE, || backend.truth().credited() == told);
    wait_until("an empty queue", PATIENCE, || {
        stack.gateway.metric("share_forward_queue_depth") == 0.0
    });
    let truth = backend.truth();
    assert_eq!((truth.wrongs.clone(), truth.duplicates()), (Vec::new(), Vec::new()));
}
