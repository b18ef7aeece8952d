//! Blocks of standard and of extended channels at a real node: statement 92 of docs/protocol.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod socket;
mod stack;

use socket::Socket;
use stack::node::Node;
use stack::{PATIENCE, Settings, Stack, wait_for, wait_until};
use work::Target;

/// Shares need this many hashes, 2^(32 - 24); on regtest every second header is a block.
const EXPONENT: u32 = 24;

/// Transactions in the mempool before each block.
const ROUNDS: [usize; 4] = [0, 1, 2, 3];

/// Goal: a node takes the blocks of both kinds of channel, with the transactions of their
/// template.
#[test]
fn s92_a_node_takes_blocks_of_both_kinds() {
    let Some(node) = Node::start("regtest") else { return };
    node.generate(115);
    let stack = Stack::start(&Settings::node(&node));
    let mut spent = 0;
    for is_extended in [false, true] {
        for count in ROUNDS {
            for _ in 0..count {
                spent += 1;
                node.spend(spent, 10_000);
            }
            // A new tip makes the node look at its mempool again.
            node.generate_empty();
            let height = node.height();
            wait_until("the template", PATIENCE, || {
                let metrics = stack.gateway.metrics();
                metrics["reservegrid_template_height"] == (height + 1) as f64
                    && metrics["reservegrid_template_transactions{slot=\"current\"}"]
                        == count as f64
            });
            let mut socket = Socket::set_up(&stack, 0);
            let channel = match is_extended {
                true => socket.open_extended(EXPONENT),
                false => socket.open_standard(EXPONENT),
            };
            let mut share = channel.work.clone();
            let network = Target::from_nbits(share.tip.nbits).unwrap();
            share.grind(&network.min(channel.target), true);
            let hash = share.claim.hash(&share.tip);
            assert_eq!(socket.answer(&channel, &share), Ok(()));
            wait_for("the block at the node", PATIENCE, || {
                node.status_of(&hash).filter(|status| status == "active")
            });
            assert_eq!(node.tip(), hash);
            let block = node.block_at(height + 1);
            assert_eq!(block["tx"].as_array().unwrap().len(), count + 1, "{block}");
        }
    }
    let taken = stack.gateway.metric("block_submits_total{result=\"accepted\"}");
    assert_eq!(taken, 2.0 * ROUNDS.len() as f64);
    assert_eq!(stack.gateway.metric("block_submits_total{result=\"rejected\"}"), 0.0);
}
