//! Threads that give blocks to nodes, one per node, and one that keeps copies on disk.
//!
//! Each node has a thread and a connection of its own (D18): a node that hangs delays no other,
//! and the copy on disk delays none.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};
use source::submit::{SubmitAnswer, submit_block};
use tracing::{info, warn};
use work::BlockHash;
use work::contract::bytes;
use work::contract::feed::NodeAccess;

use super::control::{Fact, Facts};
use super::data_dir::DataDir;
use crate::machine::solution::{Block, NodeAnswer};

/// What the disk thread is asked to do.
enum DiskTask {
    Store(Block),
    Settle { hash: BlockHash, accepted: bool },
    Nodes(Vec<NodeAccess>),
}

/// All threads for blocks.
pub struct Nodes {
    // Bounded by the submissions machine: one per block and node in flight.
    threads: Vec<(NodeAccess, Sender<Block>)>,
    disk: Sender<DiskTask>,
    keeper: JoinHandle<()>,
    facts: Facts,
}

impl Nodes {
    /// Start the disk thread.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(data_dir: Arc<DataDir>, facts: Facts) -> Result<Nodes, String> {
        let (disk, tasks) = unbounded();
        let keeper = std::thread::Builder::new()
            .name("block-store".into())
            .spawn(move || keep(&data_dir, &tasks))
            .map_err(|error| format!("the block store cannot be started: {error}"))?;
        Ok(Nodes { threads: Vec::new(), disk, keeper, facts })
    }

    /// Wait until everything is on disk. Threads that wait for a node end with the process.
    pub fn finish(&mut self) {
        let (closed, _) = unbounded();
        drop(std::mem::replace(&mut self.disk, closed));
        while !self.keeper.is_finished() {
            std::thread::yield_now();
        }
    }

    /// Keep the list of nodes for a start without template-manager.
    pub fn remember(&self, nodes: Vec<NodeAccess>) {
        let _ = self.disk.send(DiskTask::Nodes(nodes));
    }

    /// Give `block` to `node`.
    pub fn submit(&mut self, node: NodeAccess, block: Block) {
        let known = self.threads.iter().find(|(access, _)| *access == node);
        let queue = match known {
            Some((_, queue)) => queue.clone(),
            None => match self.start_node(node.clone()) {
                Ok(queue) => queue,
                Err(why) => {
                    let hash = block.hash();
                    let answer = NodeAnswer::Unreachable(why);
                    self.facts.put(Fact::NodeAnswer { node, hash, answer });
                    return;
                }
            },
        };
        // The thread lives as long as this queue.
        let _ = queue.send(block);
    }

    /// Keep `block` on disk.
    pub fn store(&self, block: Block) {
        let _ = self.disk.send(DiskTask::Store(block));
    }

    /// A block needs no further attempt.
    pub fn settle(&self, hash: BlockHash, accepted: bool) {
        let _ = self.disk.send(DiskTask::Settle { hash, accepted });
    }

    fn start_node(&mut self, node: NodeAccess) -> Result<Sender<Block>, String> {
        let (queue, blocks) = unbounded();
        let facts = self.facts.clone();
        let access = node.clone();
        std::thread::Builder::new()
            .name("submit".into())
            .spawn(move || submit_all(&access, &blocks, &facts))
            .map_err(|error| format!("a thread for {} cannot be started: {error}", node.url))?;
        self.threads.push((node, queue.clone()));
        Ok(queue)
    }
}

fn submit_all(node: &NodeAccess, blocks: &Receiver<Block>, facts: &Facts) {
    while let Ok(block) = blocks.recv() {
        let hash = block.hash();
        let answer = match block_bytes(&block) {
            Ok(bytes) => said(submit_block(node, &bytes::encode(&bytes))),
            Err(why) => NodeAnswer::Rejected(why),
        };
        info!(node = node.url, %hash, ?answer, "block submitted");
        facts.put(Fact::NodeAnswer { node: node.clone(), hash, answer });
    }
}

/// The same word for word: what it means is the machine's to say.
fn said(answer: SubmitAnswer) -> NodeAnswer {
    match answer {
        SubmitAnswer::Accepted => NodeAnswer::Accepted,
        SubmitAnswer::Duplicate => NodeAnswer::Duplicate,
        SubmitAnswer::Inconclusive => NodeAnswer::Inconclusive,
        SubmitAnswer::Rejected(why) => NodeAnswer::Rejected(why),
        SubmitAnswer::Unreachable(why) => NodeAnswer::Unreachable(why),
    }
}

fn block_bytes(block: &Block) -> Result<Arc<[u8]>, String> {
    match block {
        Block::Stored { bytes, .. } => Ok(Arc::clone(bytes)),
        Block::Found(found) => work::block::assemble(&found.header, &found.job, &found.extranonce)
            .map(Arc::from)
            .map_err(|error| error.to_string()),
    }
}

fn keep(data_dir: &DataDir, tasks: &Receiver<DiskTask>) {
    while let Ok(task) = tasks.recv() {
        let done = match task {
            DiskTask::Store(block) => {
                block_bytes(&block).and_then(|bytes| data_dir.store_block(&block.hash(), &bytes))
            }
            DiskTask::Settle { hash, accepted } => data_dir.settle_block(&hash, accepted),
            DiskTask::Nodes(nodes) => data_dir.store_nodes(&nodes),
        };
        if let Err(why) = done {
            warn!(why, "the copy of a block on disk");
        }
    }
}
