//! Node, verifier and template-manager end and come back, killed and in order, under fifty miners
//! who stay connected all the time and are on the next block soon after.
//!
//! The node is a real one on a signet whose blocks anyone may sign; a second node, which nobody
//! knows, mines its blocks ahead, so that a block is there the moment it is wanted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

#[path = "abuse/crowd.rs"]
mod crowd;
#[path = "abuse/footprint.rs"]
mod footprint;
mod stack;

use std::net::TcpStream;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crowd::{Crowd, MINERS};
use serde_json::json;
use stack::node::Node;
use stack::{PATIENCE, Service, Settings, Stack, wait_for, wait_until};
use work::BlockHash;

/// Hashes a second of each miner: shares are frequent, blocks of theirs nearly impossible.
const HASH_RATE: u32 = 10;

/// Blocks that are mined in all: those before the services start, two for each restart, and some
/// for the case that a miner finds one, too.
const BLOCKS: usize = FIRST_BLOCKS + 2 * RESTARTS + 3;

/// Blocks that wait until they are wanted.
const BLOCKS_AHEAD: usize = 2;

/// Three services, each killed and stopped.
const RESTARTS: usize = 6;

/// Blocks that the chain has before the services start.
const FIRST_BLOCKS: usize = 2;

/// The goal, from the moment that the process listens to the moment that all miners work on the
/// newest tip. Printed; what is asserted is [`PATIENCE`].
const GOAL: Duration = Duration::from_secs(5);

/// Time for one block of the second node.
const MINING_PATIENCE: Duration = Duration::from_secs(120);

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Killed,
    Stopped,
}

/// A block as the second node made it.
struct Block {
    hash: BlockHash,
    hex: String,
}

/// The chain: the node that the services know, and where its blocks come from.
struct Chain {
    node: Node,
    /// `None` at the end.
    coming: Option<Receiver<Block>>,
    mining: Option<JoinHandle<()>>,
    /// Blocks that the node was given.
    given: Vec<Block>,
}

fn port_of(url: &str) -> String {
    url.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// The second node, mining [`BLOCKS`] blocks one after another on a thread of its own.
fn mine_ahead(miner: Node) -> (Receiver<Block>, JoinHandle<()>) {
    let (sender, coming) = sync_channel(BLOCKS_AHEAD);
    let mining = std::thread::spawn(move || {
        for _ in 0..BLOCKS {
            miner.generate(1);
            let hash = miner.tip();
            let hex = miner.call("getblock", json!([hash, 0])).as_str().unwrap().to_owned();
            if sender.send(Block { hash, hex }).is_err() {
                return;
            }
        }
    });
    (coming, mining)
}

impl Drop for Chain {
    /// Wait for the second node's end: nobody else would end its process.
    fn drop(&mut self) {
        self.coming = None;
        if let Some(mining) = self.mining.take() {
            let _ = mining.join();
        }
    }
}

impl Chain {
    fn start() -> Option<Chain> {
        let node = Node::start("signet")?;
        let (coming, mining) = mine_ahead(Node::start("signet")?);
        let (coming, mining) = (Some(coming), Some(mining));
        let mut chain = Chain { node, coming, mining, given: Vec::new() };
        (0..FIRST_BLOCKS).for_each(|_| chain.grow());
        Some(chain)
    }

    /// The node's next tip. Should a miner have found a block of its own, it takes two.
    fn grow(&mut self) {
        loop {
            let coming = self.coming.as_ref().unwrap();
            let block = coming.recv_timeout(MINING_PATIENCE).unwrap();
            self.node.submit(&block.hex);
            let hash = block.hash;
            self.given.push(block);
            if self.node.tip() == hash {
                return;
            }
        }
    }

    /// Give it all again that it may have lost, as its peers would.
    fn catch_up(&self) {
        for block in &self.given {
            self.node.submit(&block.hex);
        }
    }
}

/// When somebody listens at `address` for the first time from now on.
fn watch(address: String) -> JoinHandle<Instant> {
    std::thread::spawn(move || {
        wait_for(&format!("a listener at {address}"), PATIENCE, || {
            TcpStream::connect(&address).ok().map(|_| Instant::now())
        })
    })
}

fn switches(stack: &Stack) -> f64 {
    stack.gateway.metric("prevhash_sent_total")
}

/// Wait until all miners were given the node's tip, which they had not at `before`; when that was.
fn all_switched(stack: &Stack, chain: &Chain, before: f64) -> Instant {
    let next = (chain.node.height() + 1) as f64;
    wait_for("all miners on the node's tip", PATIENCE, || {
        let metrics = stack.gateway.metrics();
        let is_out = metrics["reservegrid_prevhash_sent_total"] >= before + MINERS as f64
            && metrics["reservegrid_template_height"] == next
            && metrics["reservegrid_prevhash_hold_active"] == 0.0;
        is_out.then(Instant::now)
    })
}

fn end(service: &mut Service, how: End) {
    match how {
        End::Killed => service.kill(),
        End::Stopped => assert!(service.stop(PATIENCE).success()),
    }
}

/// Say how long it took, and have the miners confirm that they have all of it; then a later block.
fn confirm(name: &str, stack: &Stack, chain: &mut Chain, crowd: &Crowd, took: Duration) {
    let verdict = if took < GOAL { "within" } else { "beyond" };
    println!("{name}: work on the newest tip {took:?} after it listened, {verdict} {GOAL:?}");
    let before = switches(stack);
    let shares = crowd.assert_received_all(stack, name);
    let began = Instant::now();
    chain.grow();
    let switched = all_switched(stack, chain, before).duration_since(began);
    println!("{name}: a later block reached all {switched:?} after it was submitted");
    wait_until(&format!("shares after {name}"), PATIENCE, || {
        crowd.assert_received_all(stack, name) >= shares + MINERS / 2
    });
    stack.gateway.wait_for_metric("connections{state=\"open\"}", MINERS as f64);
}

fn restart_node(stack: &Stack, chain: &mut Chain, crowd: &Crowd, how: End) {
    match how {
        End::Killed => chain.node.kill(),
        End::Stopped => chain.node.stop(),
    }
    wait_until("the loss of the node", PATIENCE, || {
        stack.gateway.metric("ready{component=\"templates\"}") == 0.0
    });
    let shares = crowd.assert_received_all(stack, "without a node");
    wait_until("shares without a node", PATIENCE, || {
        crowd.assert_received_all(stack, "without a node") > shares
    });
    let before = switches(stack);
    let listens = watch(port_of(&chain.node.url()));
    chain.node.restart();
    chain.catch_up();
    chain.grow();
    let listening = listens.join().unwrap();
    let took = all_switched(stack, chain, before).duration_since(listening);
    confirm(&format!("bitcoind {how:?}"), stack, chain, crowd, took);
}

fn restart_verifier(stack: &mut Stack, chain: &mut Chain, crowd: &Crowd, how: End) {
    let listens = stack.verifier.address("listen_addr");
    end(&mut stack.verifier, how);
    wait_until("the loss of the verifier", PATIENCE, || {
        stack.gateway.metric("verifier_connected") == 0.0
    });
    let before = switches(stack);
    chain.grow();
    wait_until("the hold", PATIENCE, || stack.gateway.metric("prevhash_hold_active") == 1.0);
    crowd.assert_received_all(stack, "without a verifier");
    assert_eq!(switches(stack), before, "nothing unverified is given out");
    let listens = watch(listens);
    stack.verifier.spawn();
    let listening = listens.join().unwrap();
    let took = all_switched(stack, chain, before).duration_since(listening);
    stack.verifier.wait_listening();
    confirm(&format!("verifier {how:?}"), stack, chain, crowd, took);
}

fn restart_template_manager(stack: &mut Stack, chain: &mut Chain, crowd: &Crowd, how: End) {
    let listens = stack.template_manager.http_addr();
    end(&mut stack.template_manager, how);
    wait_until("the loss of template-manager", PATIENCE, || {
        stack.gateway.metric("ready{component=\"templates\"}") == 0.0
    });
    let before = switches(stack);
    chain.grow();
    crowd.assert_received_all(stack, "without template-manager");
    let listens = watch(listens);
    stack.template_manager.spawn();
    let listening = listens.join().unwrap();
    let took = all_switched(stack, chain, before).duration_since(listening);
    stack.template_manager.wait_listening();
    confirm(&format!("template-manager {how:?}"), stack, chain, crowd, took);
}

/// Goal: each of the three ends and comes back, in both ways, and the same connections work on
/// the newest tip soon after it listens, and on a later block.
#[test]
fn each_service_in_turn() {
    let Some(mut chain) = Chain::start() else { return };
    let timing = json!({ "prevhash_stale_hold_ms": 60_000 });
    let settings = Settings { gateway: json!({ "timing": timing }), ..Settings::node(&chain.node) };
    let mut stack = Stack::start(&settings);
    drop(settings);
    let crowd = Crowd::start(&mut stack, HASH_RATE);
    for how in [End::Killed, End::Stopped] {
        restart_node(&stack, &mut chain, &crowd, how);
        restart_verifier(&mut stack, &mut chain, &crowd, how);
        restart_template_manager(&mut stack, &mut chain, &crowd, how);
    }
    let report = crowd.leave();
    println!("shares {}, rejects {}", report["shares_accepted"], report["rejects"]);
}
