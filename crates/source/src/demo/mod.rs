//! The simulated chain `demo://`: mempool, templates and blocks without a node.
//!
//! [`DemoChain`] is a machine: a seed and the times it is told decide everything it does. It
//! follows regtest's addresses and subsidies and starts at height 101. Transactions arrive over
//! time, blocks come on a timer and by [`DemoChain::submit_block`], which judges as a node does.
//!
//! What it leaves out: a block of the timer carries a real header over real transactions, but
//! nobody ground its nonce, so its hash does not meet nbits (a submitted block's must). nbits
//! never change, so the longest branch is the one with the most work. There are no scripts,
//! signatures or coins behind the transactions, and no network.

mod branches;
mod check;
mod drive;
mod mempool;
mod synthetic;

use std::collections::VecDeque;
use std::sync::Arc;

use work::contract::chain::{CHAIN_TIPS_MAX, Chain};
use work::hash::{BlockHash, MerkleNode, sha256d};
use work::job::Job;
use work::now::UnixTime;
use work::payout::{Network, Payout};
use work::target::Target;
use work::template::Template;
use work::tip::Tip;

use crate::assemble::{self, Frame};
use crate::clock::TemplateIds;
use crate::event::{SourceEvent, TipChannel};

pub use branches::{FORK_DEPTH_MAX, FORK_LENGTH_MAX, Fork, ForkBase};
pub use check::{DECODE_ERROR_CODE, SubmitError};
pub use drive::{DemoHandle, DemoStopped};
pub use mempool::{BLOCK_SIGOPS_MAX, BLOCK_WEIGHT_MAX, RESERVED_SIGOPS, RESERVED_WEIGHT};

use branches::{Branches, Known};
use mempool::Mempool;
use synthetic::Synthetic;

/// Height of the block that the chain starts with; above 16, where BIP34 heights have one form.
pub const START_HEIGHT: u32 = 101;
/// Bits of the demo chain: about five million hashes a block, as on a fresh signet (D52).
pub const DEFAULT_NBITS: u32 = 0x1e03_77ae;
/// Most transactions that `mempool_transactions` may ask for.
pub const MEMPOOL_TRANSACTIONS_MAX: usize = 20_000;
/// Milliseconds between two full templates of one tip, as a node rebuilds its own.
pub const TEMPLATE_INTERVAL_MILLIS: u64 = 5_000;
/// Blocks remembered; what builds on an older one is `prev-blk-not-found`.
const HISTORY_MAX: usize = 288;
/// Transactions that may arrive in one step.
const ARRIVALS_PER_STEP_MAX: u64 = 512;
/// The mempool refills within half of this at most, however far apart blocks are.
const REFILL_MILLIS_MAX: u64 = 30_000;
/// Block version: no deployment is signalled.
const VERSION: u32 = 0x2000_0000;
/// Blocks whose median is the chain's time.
const MEDIAN_SPAN: usize = 11;

/// What the chain is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoConfig {
    /// Milliseconds until the chain makes a block of its own; 0 = never.
    pub block_interval_ms: u64,
    /// Transactions the mempool holds when it is full.
    pub mempool_transactions: usize,
    /// What chance starts from.
    pub seed: u64,
    /// Compact target of every block.
    pub nbits: u32,
}

impl Default for DemoConfig {
    fn default() -> Self {
        DemoConfig {
            block_interval_ms: 30_000,
            mempool_transactions: 3_000,
            seed: 1,
            nbits: DEFAULT_NBITS,
        }
    }
}

/// One block of the chain.
#[derive(Debug, Clone, Copy)]
struct Block {
    hash: BlockHash,
    height: u32,
    time: u32,
}

/// The chain. Events come in the order in which they must be told.
pub struct DemoChain {
    config: DemoConfig,
    synthetic: Synthetic,
    mempool: Mempool,
    /// Never empty; the tip is last.
    blocks: VecDeque<Block>,
    /// The chain's blocks and those beside it.
    branches: Branches,
    /// Blocks that were the tip a short while ago, newest first.
    recent_tips: VecDeque<BlockHash>,
    ids: TemplateIds,
    template: Arc<Template>,
    stepped: UnixTime,
    tip_since: UnixTime,
    template_since: UnixTime,
    /// Thousandths of a transaction that are due.
    arrivals_due: u64,
}

impl DemoChain {
    /// A chain at height 101 with a full mempool, and its first events.
    ///
    /// # Errors
    /// A sentence if `config` asks for impossible bits or too many transactions.
    pub fn new(config: DemoConfig, now: UnixTime) -> Result<(DemoChain, Vec<SourceEvent>), String> {
        Target::from_nbits(config.nbits).map_err(|error| format!("demo.nbits: {error}"))?;
        if config.mempool_transactions > MEMPOOL_TRANSACTIONS_MAX {
            return Err(format!(
                "demo.mempool_transactions is {}; expected at most {MEMPOOL_TRANSACTIONS_MAX}",
                config.mempool_transactions
            ));
        }
        let mut synthetic = Synthetic::new(config.seed);
        let mut mempool = Mempool::default();
        for _ in 0..config.mempool_transactions {
            mempool.insert(synthetic.make());
        }
        let blocks = first_blocks(&mut synthetic, now, config.nbits);
        let mut branches = Branches::default();
        let mut parent = BlockHash::default();
        for block in &blocks {
            branches.learn(Known::new(*block, parent), &blocks);
            parent = block.hash;
        }
        let before = blocks.iter().rev().skip(1).take(CHAIN_TIPS_MAX - 1);
        let recent_tips = before.map(|block| block.hash).collect();
        let mut chain = DemoChain {
            config,
            synthetic,
            mempool,
            blocks,
            branches,
            recent_tips,
            ids: TemplateIds::default(),
            template: Arc::new(assemble::coinbase_only(Frame::default())),
            stepped: now,
            tip_since: now,
            template_since: now,
            arrivals_due: 0,
        };
        let mut events = Vec::new();
        chain.announce(now, &mut events);
        Ok((chain, events))
    }

    /// Time has passed: transactions arrive, a block or a better template may be due.
    pub fn advance(&mut self, now: UnixTime) -> Vec<SourceEvent> {
        let mut events = Vec::new();
        self.arrive(now.0.saturating_sub(self.stepped.0));
        self.stepped = now;
        let interval = self.config.block_interval_ms;
        if interval > 0 && now.0.saturating_sub(self.tip_since.0) >= interval {
            events.extend(self.make_block(now));
        } else if now.0.saturating_sub(self.template_since.0) >= TEMPLATE_INTERVAL_MILLIS {
            self.offer_full(now, &mut events);
        }
        events
    }

    /// The chain makes a block of its current template at once.
    pub fn make_block(&mut self, now: UnixTime) -> Vec<SourceEvent> {
        let template = Arc::clone(&self.template);
        let time = template.tip.min_ntime.max(now.seconds());
        let nonce = self.synthetic.number();
        let header = own_header(&template, time, nonce);
        let hash = BlockHash(sha256d(&header));
        let mut made = Known::new(Block { hash, height: template.height, time }, self.tip().hash);
        made.included = template.transactions.iter().map(|t| t.wtxid).collect();
        self.connect(made, now)
    }

    /// A block from outside, as bytes of the network's format. `Ok` is the answer of
    /// `submitblock`: `None` for accepted, else why not, in the node's words.
    ///
    /// # Errors
    /// [`SubmitError`] if the bytes are not a block at all.
    pub fn submit_block(
        &mut self,
        bytes: &[u8],
        now: UnixTime,
    ) -> Result<(Option<String>, Vec<SourceEvent>), SubmitError> {
        let block = check::decode(bytes)?;
        Ok(match self.take_in(block, now) {
            Ok(events) => (None, events),
            Err(word) => (Some(word), Vec::new()),
        })
    }

    fn take_in(
        &mut self,
        block: bitcoin::Block,
        now: UnixTime,
    ) -> Result<Vec<SourceEvent>, String> {
        let mut known = self.check(&block, now)?;
        if known.parent == self.tip().hash {
            known.included = self.check_transactions(&block)?;
            return Ok(self.connect(known, now));
        }
        // What it spends can be judged only when the chain changes over to it.
        known.body = Some(Box::new(block));
        self.take_in_beside(known, now)
    }

    /// The chain as a verifier needs it.
    pub fn chain(&self) -> Chain {
        let tip = self.tip();
        let median_time_past = self.branches.median_time(&tip.hash);
        Chain {
            network: Network::Regtest,
            demo: true,
            tip_hash: tip.hash,
            height: tip.height,
            tip_time: tip.time,
            median_time_past,
            next_nbits: self.config.nbits,
            next_min_time: median_time_past + 1,
            recent_tips: self.recent_tips.iter().copied().collect(),
        }
    }

    /// The newest full template.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }

    fn tip(&self) -> Block {
        // `blocks` starts with eleven and never shrinks below that.
        self.blocks.back().copied().unwrap_or(Block {
            hash: BlockHash::default(),
            height: START_HEIGHT,
            time: 0,
        })
    }

    fn arrive(&mut self, millis: u64) {
        let wanted = u64::try_from(self.config.mempool_transactions).unwrap_or(0);
        let held = u64::try_from(self.mempool.len()).unwrap_or(u64::MAX);
        let span = match self.config.block_interval_ms {
            0 => REFILL_MILLIS_MAX,
            interval => interval.min(REFILL_MILLIS_MAX),
        };
        // Refilled after half a block's time; then a trickle, so that fees keep changing.
        let per_span = if held < wanted { wanted * 2_000 } else { wanted * 100 };
        self.arrivals_due = self.arrivals_due.saturating_add(millis.min(span) * per_span / span);
        let room = (wanted + wanted / 4).saturating_sub(held);
        let count = (self.arrivals_due / 1_000).min(ARRIVALS_PER_STEP_MAX);
        self.arrivals_due -= count * 1_000;
        for _ in 0..count.min(room) {
            self.mempool.insert(self.synthetic.make());
        }
    }

    /// The block, whose parent is the tip, becomes the tip; templates on it follow at once.
    fn connect(&mut self, block: Known, now: UnixTime) -> Vec<SourceEvent> {
        let before = self.tip().hash;
        let hash = block.block.hash;
        self.branches.learn(block, &self.blocks);
        self.attach(&hash);
        self.on_new_tip(before, now)
    }

    /// The tip is no longer `before`.
    fn on_new_tip(&mut self, before: BlockHash, now: UnixTime) -> Vec<SourceEvent> {
        let tip = self.tip().hash;
        self.recent_tips.push_front(before);
        self.recent_tips.retain(|recent| *recent != tip);
        self.recent_tips.truncate(CHAIN_TIPS_MAX - 1);
        self.tip_since = now;
        let mut events = Vec::new();
        self.announce(now, &mut events);
        events
    }

    /// What a new tip makes known: the notice, the chain, a coinbase-only template, a full one.
    fn announce(&mut self, now: UnixTime, events: &mut Vec<SourceEvent>) {
        let prev_hash = self.tip().hash;
        events.push(SourceEvent::TipNotice { prev_hash, channel: TipChannel::Demo });
        events.push(SourceEvent::Chain(Arc::new(self.chain())));
        let frame = self.frame(now);
        events.push(SourceEvent::Template(Arc::new(assemble::coinbase_only(frame))));
        self.offer_full(now, events);
    }

    fn offer_full(&mut self, now: UnixTime, events: &mut Vec<SourceEvent>) {
        let frame = self.frame(now);
        self.template = Arc::new(assemble::template(frame, self.mempool.select()));
        self.template_since = now;
        events.push(SourceEvent::Template(Arc::clone(&self.template)));
    }

    fn frame(&mut self, now: UnixTime) -> Frame {
        let tip = self.tip();
        let min_ntime = self.branches.median_time(&tip.hash) + 1;
        Frame {
            id: self.ids.next(now),
            tip: Tip { prev_hash: tip.hash, nbits: self.config.nbits, min_ntime },
            height: tip.height + 1,
            version: VERSION,
            cur_time: min_ntime.max(now.seconds()),
            subsidy: Network::Regtest.subsidy(tip.height + 1),
            max_ntime: None,
        }
    }
}

/// The blocks before the first template: one each half minute, ending a moment ago.
fn first_blocks(synthetic: &mut Synthetic, now: UnixTime, nbits: u32) -> VecDeque<Block> {
    let mut blocks = VecDeque::new();
    let mut prev_hash = BlockHash::default();
    let count = MEDIAN_SPAN as u32;
    for back in (0..count).rev() {
        let time = now.seconds().saturating_sub(30 * (back + 1));
        let height = START_HEIGHT - back;
        let tip = Tip { prev_hash, nbits, min_ntime: time };
        let subsidy = Network::Regtest.subsidy(height);
        let frame =
            Frame { tip, height, version: VERSION, cur_time: time, subsidy, ..Frame::default() };
        let header = own_header(&assemble::coinbase_only(frame), time, synthetic.number());
        prev_hash = BlockHash(sha256d(&header));
        blocks.push_back(Block { hash: prev_hash, height, time });
    }
    blocks
}

/// Header of a block of the chain's own, whose coinbase pays a script that anyone may spend.
fn own_header(template: &Template, time: u32, nonce: u64) -> [u8; 80] {
    let payouts = [Payout { script_pubkey: vec![0x51], share: 1 }];
    let template = Arc::new(template.clone());
    let root = Job::new(Arc::clone(&template), &payouts, b"/demo/", 8)
        .map_or(MerkleNode::default(), |job| job.merkle_root(&nonce.to_le_bytes(), &[]));
    let mut header = [0u8; 80];
    header[..4].copy_from_slice(&template.version.to_le_bytes());
    header[4..36].copy_from_slice(&template.tip.prev_hash.0);
    header[36..68].copy_from_slice(&root.0);
    header[68..72].copy_from_slice(&time.to_le_bytes());
    header[72..76].copy_from_slice(&template.tip.nbits.to_le_bytes());
    header[76..].copy_from_slice(&nonce.to_le_bytes()[..4]);
    header
}
