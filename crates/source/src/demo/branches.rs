//! Blocks beside the simulated chain, and how the chain changes over to them: by more blocks, or
//! because a block was declared invalid, as `invalidateblock` of a node does.

use std::collections::{HashMap, VecDeque};

use work::hash::{BlockHash, Wtxid, sha256d};
use work::now::UnixTime;
use work::payout::Network;
use work::tip::Tip;

use super::mempool::Taken;
use super::{Block, DemoChain, HISTORY_MAX, MEDIAN_SPAN, VERSION, own_header};
use crate::assemble::{self, Frame};
use crate::event::SourceEvent;

/// Blocks that the chain can go back: so many keep what they took from the mempool.
pub const FORK_DEPTH_MAX: usize = 16;
/// Blocks that one branch can be given at once.
pub const FORK_LENGTH_MAX: u32 = 32;
/// Blocks that are known, of the chain and beside it.
const KNOWN_MAX: usize = 512;
/// Whole blocks beside the chain that are kept until the chain may change over to them.
const BODIES_MAX: usize = 16;
/// A valid block that is not the new tip.
const INCONCLUSIVE: &str = "inconclusive";

/// Where a branch leaves the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkBase {
    /// So many blocks before the tip.
    Depth(u32),
    /// At this block, of the chain or of another branch.
    Block(BlockHash),
}

/// A branch that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Its blocks, the oldest first.
    pub blocks: Vec<BlockHash>,
    /// Whether it is the chain now: it is if it has more work.
    pub is_active: bool,
}

/// A block of the chain or beside it.
pub(super) struct Known {
    pub(super) block: Block,
    pub(super) parent: BlockHash,
    pub(super) is_invalid: bool,
    /// What it confirms.
    pub(super) included: Vec<Wtxid>,
    /// What it took from the mempool, while it is in the chain and can leave it again.
    taken: Vec<Taken>,
    /// The whole block, if what it spends has not been judged yet.
    pub(super) body: Option<Box<bitcoin::Block>>,
}

impl Known {
    pub(super) fn new(block: Block, parent: BlockHash) -> Known {
        let (included, taken) = (Vec::new(), Vec::new());
        Known { block, parent, is_invalid: false, included, taken, body: None }
    }
}

/// All known blocks.
#[derive(Default)]
pub(super) struct Branches {
    known: HashMap<BlockHash, Known>,
    /// In the order in which they came; a parent comes before its children.
    order: VecDeque<BlockHash>,
}

impl Branches {
    pub(super) fn find(&self, hash: &BlockHash) -> Option<&Known> {
        self.known.get(hash)
    }

    /// Take note of a block. The oldest is forgotten for it, but none of the end of `chain`.
    pub(super) fn learn(&mut self, block: Known, chain: &VecDeque<Block>) {
        if self.order.len() == KNOWN_MAX {
            let end = chain.len().saturating_sub(FORK_DEPTH_MAX + MEDIAN_SPAN);
            let is_needed = |hash: &BlockHash| chain.range(end..).any(|block| block.hash == *hash);
            if let Some(oldest) = self.order.iter().position(|hash| !is_needed(hash))
                && let Some(hash) = self.order.remove(oldest)
            {
                self.known.remove(&hash);
            }
        }
        if block.body.is_some() {
            self.make_room_for_body();
        }
        self.order.push_back(block.block.hash);
        self.known.insert(block.block.hash, block);
    }

    /// A block whose body is dropped cannot be judged any more, so the chain never goes there.
    fn make_room_for_body(&mut self) {
        let has_body = |hash: &&BlockHash| self.known.get(hash).is_some_and(|k| k.body.is_some());
        let with_body: Vec<BlockHash> = self.order.iter().filter(has_body).copied().collect();
        if let Some(oldest) = with_body.first().filter(|_| with_body.len() >= BODIES_MAX) {
            self.declare_invalid(oldest);
        }
    }

    /// Median time of the eleven blocks that end with this one.
    pub(super) fn median_time(&self, hash: &BlockHash) -> u32 {
        let mut times = Vec::with_capacity(MEDIAN_SPAN);
        let mut next = self.known.get(hash);
        while let Some(known) = next.filter(|_| times.len() < MEDIAN_SPAN) {
            times.push(known.block.time);
            next = self.known.get(&known.parent);
        }
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    }

    /// The block and all that build on it.
    fn declare_invalid(&mut self, hash: &BlockHash) {
        for at in &self.order {
            let parent_is_invalid = |known: &Known| {
                self.known.get(&known.parent).is_some_and(|parent| parent.is_invalid)
            };
            let is_meant = at == hash || self.known.get(at).is_some_and(parent_is_invalid);
            if let Some(known) = self.known.get_mut(at).filter(|_| is_meant) {
                (known.is_invalid, known.body) = (true, None);
            }
        }
    }

    /// The valid block with the most work, of those `can` allows; the first seen among equals.
    fn best(&self, can: impl Fn(&BlockHash) -> bool) -> Option<BlockHash> {
        let known = self.order.iter().filter_map(|hash| self.known.get(hash));
        let valid = known.filter(|known| !known.is_invalid && can(&known.block.hash));
        valid.rev().max_by_key(|known| known.block.height).map(|known| known.block.hash)
    }
}

impl DemoChain {
    /// Make a branch of `length` blocks with nothing but their coinbases. It becomes the chain if
    /// it has more work; a rival of equal height displaces nothing.
    ///
    /// # Errors
    /// A sentence: the base is too deep, not known or invalid, or the length out of bounds.
    pub fn fork(
        &mut self,
        base: ForkBase,
        length: u32,
        now: UnixTime,
    ) -> Result<(Fork, Vec<SourceEvent>), String> {
        if !(1..=FORK_LENGTH_MAX).contains(&length) {
            return Err(format!("length is {length}; expected 1 to {FORK_LENGTH_MAX}"));
        }
        let mut parent = self.base(base)?;
        let mut blocks = Vec::new();
        for _ in 0..length {
            let made = self.empty_block(&parent, now);
            parent = made.block;
            blocks.push(parent.hash);
            self.branches.learn(made, &self.blocks);
        }
        let mut events = Vec::new();
        if parent.height > self.tip().height {
            // Its blocks have nothing in them that could be wrong.
            events = self.change_over(&parent.hash, now)?;
        }
        Ok((Fork { blocks, is_active: self.tip().hash == parent.hash }, events))
    }

    fn base(&self, base: ForkBase) -> Result<Block, String> {
        let hash = match base {
            ForkBase::Depth(depth) => {
                let depth = usize::try_from(depth).unwrap_or(usize::MAX);
                if depth > FORK_DEPTH_MAX {
                    return Err(format!("depth is {depth}; expected at most {FORK_DEPTH_MAX}"));
                }
                let at = self.blocks.len().checked_sub(depth + 1);
                let block = at.and_then(|at| self.blocks.get(at));
                block.ok_or("the chain has no block so deep")?.hash
            }
            ForkBase::Block(hash) => hash,
        };
        let known = self.branches.find(&hash).ok_or_else(|| format!("block {hash} not found"))?;
        match known.is_invalid {
            true => Err(format!("block {hash} was declared invalid")),
            false if !self.can_reach(&hash) => Err(format!(
                "block {hash} leaves the chain more than {FORK_DEPTH_MAX} blocks before its tip"
            )),
            false => Ok(known.block),
        }
    }

    /// A block of the chain's own on `parent`.
    fn empty_block(&mut self, parent: &Block, now: UnixTime) -> Known {
        let min_ntime = self.branches.median_time(&parent.hash) + 1;
        let time = min_ntime.max(now.seconds());
        let height = parent.height + 1;
        let frame = Frame {
            tip: Tip { prev_hash: parent.hash, nbits: self.config.nbits, min_ntime },
            height,
            version: VERSION,
            cur_time: time,
            subsidy: Network::Regtest.subsidy(height),
            ..Frame::default()
        };
        let header = own_header(&assemble::coinbase_only(frame), time, self.synthetic.number());
        Known::new(Block { hash: BlockHash(sha256d(&header)), height, time }, parent.hash)
    }

    /// A checked block whose parent is not the tip.
    pub(super) fn take_in_beside(
        &mut self,
        block: Known,
        now: UnixTime,
    ) -> Result<Vec<SourceEvent>, String> {
        let Block { hash, height, .. } = block.block;
        self.branches.learn(block, &self.blocks);
        if height <= self.tip().height || !self.can_reach(&hash) {
            return Err(INCONCLUSIVE.to_owned());
        }
        self.change_over(&hash, now)
    }

    /// Declare a block and all on it invalid; the chain goes on with the best of the others, as
    /// after a node's `invalidateblock`.
    ///
    /// # Errors
    /// A sentence: the block is not known, or too deep.
    pub fn invalidate(
        &mut self,
        hash: &BlockHash,
        now: UnixTime,
    ) -> Result<Vec<SourceEvent>, String> {
        if self.branches.find(hash).is_none() {
            return Err("Block not found".to_owned());
        }
        let depth = self.blocks.iter().rev().position(|block| block.hash == *hash);
        if depth.is_some_and(|depth| depth >= FORK_DEPTH_MAX) {
            return Err(format!("the block is more than {FORK_DEPTH_MAX} blocks deep"));
        }
        self.branches.declare_invalid(hash);
        // A branch that turns out to be wrong is declared invalid, too, so this ends.
        while depth.is_some() {
            let best = self.branches.best(|best| self.can_reach(best));
            let Some(best) = best else { break };
            if let Ok(events) = self.change_over(&best, now) {
                return Ok(events);
            }
        }
        Ok(Vec::new())
    }

    /// The blocks from the chain to `target`, oldest first, and how many the chain goes back.
    fn road(&self, target: &BlockHash) -> Option<(Vec<BlockHash>, usize)> {
        let mut road = Vec::new();
        let mut next = *target;
        loop {
            if let Some(back) = self.blocks.iter().rev().position(|block| block.hash == next) {
                road.reverse();
                return Some((road, back));
            }
            road.push(next);
            next = self.branches.find(&next)?.parent;
        }
    }

    fn can_reach(&self, target: &BlockHash) -> bool {
        self.road(target).is_some_and(|(_, back)| back <= FORK_DEPTH_MAX)
    }

    /// Make `target` the tip; what follows from it is returned. A block that turns out to be wrong
    /// is declared invalid, and the chain stays as it was.
    fn change_over(
        &mut self,
        target: &BlockHash,
        now: UnixTime,
    ) -> Result<Vec<SourceEvent>, String> {
        let before = self.tip().hash;
        let Some((road, back)) = self.road(target) else { return Err(INCONCLUSIVE.to_owned()) };
        let mut left: Vec<BlockHash> = (0..back).filter_map(|_| self.detach()).collect();
        left.reverse();
        for (at, hash) in road.iter().enumerate() {
            if let Err(word) = self.judge(hash) {
                self.branches.declare_invalid(hash);
                for _ in 0..at {
                    self.detach();
                }
                left.iter().for_each(|hash| self.attach(hash));
                return Err(word);
            }
            self.attach(hash);
        }
        Ok(self.on_new_tip(before, now))
    }

    /// Judge what the block `hash`, on the tip, spends, if that has not been done.
    fn judge(&mut self, hash: &BlockHash) -> Result<(), String> {
        let body = self.branches.known.get_mut(hash).and_then(|known| known.body.take());
        let Some(body) = body else { return Ok(()) };
        let included = self.check_transactions(&body)?;
        if let Some(known) = self.branches.known.get_mut(hash) {
            known.included = included;
        }
        Ok(())
    }

    /// The known block, whose parent is the tip, becomes the tip.
    pub(super) fn attach(&mut self, hash: &BlockHash) {
        let Some(known) = self.branches.known.get_mut(hash) else { return };
        known.taken = known.included.iter().filter_map(|wtxid| self.mempool.take(wtxid)).collect();
        if self.blocks.len() == HISTORY_MAX {
            self.blocks.pop_front();
        }
        self.blocks.push_back(known.block);
        // What is too deep to leave the chain needs nothing of what it took.
        let deep = self.blocks.len().checked_sub(FORK_DEPTH_MAX + 1);
        let deep = deep.and_then(|deep| self.blocks.get(deep)).map(|block| block.hash);
        if let Some(known) = deep.and_then(|deep| self.branches.known.get_mut(&deep)) {
            known.taken = Vec::new();
        }
    }

    /// The tip leaves the chain; what it took goes back to the mempool.
    fn detach(&mut self) -> Option<BlockHash> {
        let block = self.blocks.pop_back()?;
        if let Some(known) = self.branches.known.get_mut(&block.hash) {
            known.taken.drain(..).for_each(|taken| self.mempool.put_back(taken));
        }
        Some(block.hash)
    }
}
