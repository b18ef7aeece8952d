//! The node: a small chain with its templates, and what it says to blocks.

use std::sync::Arc;

use gateway::machine::solution::NodeAnswer;
use work::template::merkle_path;
use work::{BlockHash, Now, Template, TemplateId, Tip, Transaction, Txid, Wtxid};

use crate::chance::Chance;
use crate::reference::sha256d;

/// Blocks whose hashes the node remembers; more are found in no run.
const BLOCKS_MAX: usize = 100_000;
/// Tips to which the chain may flip back.
const TIPS_MAX: usize = 4;
/// Transactions of one template.
const TRANSACTIONS_MAX: u64 = 12;

/// The chain, and the template source in front of it.
pub struct Node {
    nbits: u32,
    /// The newest last; the last is in force.
    tips: Vec<(Tip, u32)>,
    next_template: u64,
    newest: Option<Arc<Template>>,
    /// The last full template of each tip, to be offered again when the chain flips back.
    before: Vec<Arc<Template>>,
    /// Blocks that were given to it, in order.
    pub blocks: Vec<BlockHash>,
}

impl Node {
    pub fn new(nbits: u32, now: Now, chance: &mut Chance) -> Node {
        let mut node = Node {
            nbits,
            tips: Vec::new(),
            next_template: 1_000,
            newest: None,
            before: Vec::new(),
            blocks: Vec::new(),
        };
        let prev_hash = BlockHash(chance.bytes32());
        node.extend(now, prev_hash);
        node
    }

    /// What is built on.
    pub fn tip(&self) -> Tip {
        self.tips[self.tips.len() - 1].0
    }

    /// The newest template.
    pub fn newest(&self) -> Option<Arc<Template>> {
        self.newest.clone()
    }

    /// A new block, found here or elsewhere.
    pub fn extend(&mut self, now: Now, prev_hash: BlockHash) {
        let height = self.tips.last().map_or(100, |(_, height)| height + 1);
        let min_ntime = now.unix.seconds() - 1_800;
        self.tips.push((Tip { prev_hash, nbits: self.nbits, min_ntime }, height));
        if self.tips.len() > TIPS_MAX {
            self.tips.remove(0);
        }
    }

    /// The chain goes back to the tip before, if it remembers one.
    pub fn flip(&mut self) {
        let last = self.tips.len() - 1;
        if last > 0 {
            self.tips.swap(last - 1, last);
        }
    }

    /// A template on the tip, with a name of its own. What was offered on this tip before the
    /// chain flipped away may be offered again with the very same transactions.
    pub fn template(&mut self, now: Now, is_full: bool, chance: &mut Chance) -> Arc<Template> {
        let (tip, height) = self.tips[self.tips.len() - 1];
        let id = TemplateId(self.next_template);
        self.next_template += 1;
        let old = self.before.iter().rfind(|template| template.tip == tip).cloned();
        let template = match old {
            Some(old) if chance.one_in(4) => Arc::new(Template { id, ..(*old).clone() }),
            _ => Arc::new(new_template(id, tip, height, now, is_full, chance)),
        };
        self.newest = Some(Arc::clone(&template));
        self.before.push(Arc::clone(&template));
        if self.before.len() > TIPS_MAX {
            self.before.remove(0);
        }
        template
    }

    /// The source begins anew; its numbers begin lower than they were, and what it offered before
    /// gets a new one.
    pub fn restart_numbers(&mut self) {
        self.newest = None;
        self.next_template = 1 + self.next_template / 2;
    }

    /// A block is given to it. Whether it is the new tip, and the answer.
    pub fn submit(&mut self, now: Now, header: &[u8], is_orphaned: bool) -> (bool, NodeAnswer) {
        let hash = BlockHash(sha256d(&header[..80]));
        if self.blocks.contains(&hash) {
            return (false, NodeAnswer::Duplicate);
        }
        if is_orphaned {
            return (false, NodeAnswer::Rejected("prev-blk-not-found".into()));
        }
        assert!(self.blocks.len() < BLOCKS_MAX, "more blocks than any run finds");
        self.blocks.push(hash);
        if header[4..36] != self.tip().prev_hash.0 {
            return (false, NodeAnswer::Inconclusive);
        }
        self.extend(now, hash);
        (true, NodeAnswer::Accepted)
    }
}

fn new_template(
    id: TemplateId,
    tip: Tip,
    height: u32,
    now: Now,
    is_full: bool,
    chance: &mut Chance,
) -> Template {
    let count = if is_full { chance.between(1, TRANSACTIONS_MAX) } else { 0 };
    let transactions: Vec<Arc<Transaction>> =
        (0..count).map(|_| Arc::new(transaction(chance))).collect();
    let mut witness_commitment = [0; 38];
    witness_commitment[..6].copy_from_slice(&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]);
    witness_commitment[6..].copy_from_slice(&chance.bytes32());
    let fees: u64 = transactions.iter().map(|transaction| transaction.fee).sum();
    Template {
        id,
        tip,
        height,
        version: 0x2000_0000,
        cur_time: now.unix.seconds(),
        coinbase_value: 5_000_000_000 + fees,
        witness_commitment,
        merkle_path: merkle_path(&transactions),
        transactions: transactions.into(),
        rules: None,
        max_ntime: None,
    }
}

/// Random bytes with the hashes that a merkle tree needs; nobody here reads transactions.
fn transaction(chance: &mut Chance) -> Transaction {
    let mut data = vec![0; chance.between(60, 90) as usize];
    chance.fill(&mut data);
    let txid = Txid(sha256d(&data));
    data.push(0);
    Transaction {
        txid,
        wtxid: Wtxid(sha256d(&data)),
        data: data.into(),
        fee: chance.between(100, 5_000),
        weight: 400,
        sigops: 4,
    }
}
