//! The checkers: they stand outside, see everything that passes between machines, peers and net,
//! and know none of the machines' insides. Each names the rule that was broken.
//!
//! Work and verdicts are here, what miners were given in `given.rs`, shares in `ledger.rs`, the
//! slow judgement of one share in `verdicts.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use gateway::limits::{STASH_BYTES_MAX, WIRE_WAITING_MAX};
use gateway::machine::board::BoardUpdate;
use gateway::machine::output::ChannelKey;
use gateway::reason::{Close, CloseCause, Reason};
use loadgen::miner::MinerError;
use work::contract::bytes::HexBytes;
use work::contract::verifier::{ProposeReason, ProposedCoinbase, TemplatePropose, Totals};
use work::{BlockHash, Decision, Job, Now, TemplateId, Verdict};

use crate::books::JournalView;
use crate::given::{ChannelSide, Sealed};
use crate::ledger::Ledger;
use crate::reference::Bucket;
use crate::verdicts::Submitted;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Work is given only under an accepting verdict (I5).
    C1Verdict,
    /// Extranonce prefixes are disjoint, across restarts too (I4).
    C2Prefix,
    /// A tip names a held future job, and tips come in control's order (I6).
    C3Order,
    /// Nothing is acknowledged, posted or shown before it is on disk; sums are exact (I2).
    C4Ack,
    /// No share is credited twice.
    C5Credit,
    /// Every accepted share gets one result, the backend's or an operator's; none is lost (I7).
    C6Settle,
    /// Credit is respected; no ring overflows (I3).
    C7Ring,
    /// Every block goes to the node (D17).
    C8Block,
    /// Every end has a reason, and the right one (I10).
    C9Close,
    /// A connection's memory is bounded (I8).
    C10Memory,
    /// Nothing sealed goes out twice; a broken stream ends (I11).
    C11Cipher,
    /// In the end everybody is on the newest work and all shares are settled.
    C13Liveness,
    /// Every share gets the verdict of the reference.
    C14Reference,
    /// A core that has nothing to do rests (I15).
    C15Rest,
    /// Only who has the right secret mines, and whoever has it does.
    C16Admission,
    /// The journal on disk adds up, across kills and power cuts (D27).
    C17Journal,
    /// Retention removes nothing that is not settled.
    C18Retention,
    /// Every refused share is told, or counted (D31).
    C19Refused,
}

/// Names a connection of this world; never used again.
pub type Wire = usize;

/// Bytes on the heap that one connection may have: its stash and its waiting replies, each in a
/// buffer that may have grown by doubling.
const CONNECTION_BYTES_MAX: usize = 2 * (STASH_BYTES_MAX + WIRE_WAITING_MAX);

/// A proposal as the verifier saw it, and the ruling that last reached control.
pub struct Proposal {
    pub generation: u64,
    pub propose: Arc<TemplatePropose>,
    pub ruling: Option<Decision>,
}

/// Work that control gave out.
pub struct Publication {
    pub propose: Arc<TemplatePropose>,
}

/// One shard's board as the updates that it took make it.
#[derive(Default)]
pub struct BoardView {
    /// Publications it took, with the number of their tips there and when.
    pub taken: Vec<(usize, u64, Now)>,
    pub tip_number: u64,
    pub is_held: bool,
}

/// A prefix and who has it.
struct PrefixUse {
    generation: u64,
    shard: usize,
    freed_at_tip: Option<u64>,
    /// Whether a share was accepted under it; if not, it need not rest.
    is_spent: bool,
}

/// Tips for which a freed prefix rests.
const PREFIX_REST_TIPS: u64 = 8;

/// A channel as its shard opened it.
pub struct ChannelView {
    is_closed: bool,
    /// What of its extranonce its miner does not roll.
    pub extranonce: Vec<u8>,
    pub wire: Wire,
    /// Its number on the connection.
    pub channel_id: u32,
}

/// What this world's gateway was told about channels.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of the whole extranonce.
    pub extranonce_bytes: usize,
    /// The easiest difficulty is `2^-this`.
    pub floor_bits: u32,
    /// Goal of a channel, shares a minute.
    pub pace: u64,
    /// Workers that one channel tells apart.
    pub workers_max: usize,
    /// Inserts that a channel surely has room for between two jobs.
    pub seen_room: usize,
}

/// One connection as seen from both its ends.
#[derive(Default)]
pub struct WireView {
    pub shard: usize,
    /// Whether a well-behaved miner is at the other end, whose shares are followed one by one.
    pub is_tracked: bool,
    /// The name that its channels are credited to.
    pub name: String,
    /// Whether its secret is the right one.
    pub may_mine: bool,
    /// Whether it sent shares that no good miner sends.
    pub is_rude: bool,
    /// Number of the first share of each of its channels.
    pub first_sequence: u32,
    /// Whether names of workers were agreed on.
    pub names_workers: bool,
    /// Jobs that were sealed for it, in order.
    pub sealed: VecDeque<Sealed>,
    /// The numbers of its jobs, with their publications.
    pub job_numbers: BTreeMap<u32, usize>,
    /// By number on the connection.
    pub channels: BTreeMap<u32, ChannelSide>,
    /// Channels that its miner closed, in order.
    pub closed: Vec<u32>,
    /// SetTargets that were sealed for it, and those that its miner heard.
    pub targets_sealed: u64,
    pub targets_heard: u64,
    /// Jobs that a new target may have been the reason for.
    pub fresh_jobs: usize,
    /// Shares for no channel that it may still send.
    pub bucket: Bucket,
    /// Shares that it sent and the shard has not judged.
    pub submitted: VecDeque<Submitted>,
    /// Bytes of its stream that the shard was given.
    pub delivered: u64,
    /// Offset in its stream from which bytes are not what the miner sealed.
    pub broken_at: Option<u64>,
}

impl WireView {
    /// SetTargets that are on their way, as far as is known.
    pub fn targets_unheard(&self) -> u64 {
        self.targets_sealed.saturating_sub(self.targets_heard)
    }
}

/// All checkers of one world.
pub struct Checker {
    pub violations: Vec<(Rule, String)>,
    pub generation: u64,
    pub proposals: Vec<Proposal>,
    pub publications: Vec<Publication>,
    pub boards: Vec<BoardView>,
    pub channels: BTreeMap<(u64, ChannelKey), ChannelView>,
    pub wires: BTreeMap<Wire, WireView>,
    pub ledger: Ledger,
    pub journal: JournalView,
    prefixes: BTreeMap<Vec<u8>, PrefixUse>,
    ciphertexts: BTreeSet<[u8; 16]>,
    pub bounds: Bounds,
}

impl Checker {
    pub fn new(bounds: Bounds) -> Checker {
        Checker {
            violations: Vec::new(),
            generation: 0,
            proposals: Vec::new(),
            publications: Vec::new(),
            boards: Vec::new(),
            channels: BTreeMap::new(),
            wires: BTreeMap::new(),
            ledger: Ledger::default(),
            journal: JournalView::new(),
            prefixes: BTreeMap::new(),
            ciphertexts: BTreeSet::new(),
            bounds,
        }
    }

    /// Note a violation.
    pub fn fail(&mut self, rule: Rule, what: String) {
        self.violations.push((rule, what));
    }

    /// Note a violation unless `holds`.
    pub fn hold(&mut self, holds: bool, rule: Rule, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(rule, what());
        }
    }

    /// The view of a connection that is in a shard's table.
    pub fn on_admitted(&mut self, wire: Wire, view: WireView) {
        self.wires.insert(wire, view);
    }

    /// A process starts with this many shards.
    pub fn on_start(&mut self, generation: u64, shards: usize) {
        self.generation = generation;
        self.journal.on_start();
        self.boards = (0..shards).map(|_| BoardView::default()).collect();
    }

    /// The process is gone, and all its channels with it.
    pub fn on_crash(&mut self) {
        for used in self.prefixes.values_mut() {
            used.freed_at_tip.get_or_insert(0);
        }
        self.wires.clear();
        self.ledger.on_crash(self.generation);
    }

    /// The verifier was shown a template.
    pub fn on_proposal(&mut self, propose: &TemplatePropose) {
        let is_known = |known: &&mut Proposal| same_work(&known.propose, propose);
        let generation = self.generation;
        if self.proposals.iter_mut().rev().take(64).find(is_known).is_none() {
            let propose = Arc::new(propose.clone());
            self.proposals.push(Proposal { generation, propose, ruling: None });
        }
    }

    /// A ruling is handed to control. One that binds other bytes counts for nothing.
    pub fn on_verdict(&mut self, verdict: &Verdict) {
        let generation = self.generation;
        for known in self.proposals.iter_mut().rev().take(64) {
            let propose = &known.propose;
            let body_hash = work::job::body_hash(
                &propose.coinbase.prefix.0,
                &propose.coinbase.suffix.0,
                &propose.merkle_path,
                propose.version,
                propose.height,
                propose.coinbase.extranonce_len,
            );
            if propose.template_id == verdict.template_id && body_hash == verdict.body_hash {
                known.ruling = Some(verdict.decision);
                known.generation = generation;
                return;
            }
        }
    }

    /// Control hears of another policy, or of a source whose numbers may begin anywhere: what was
    /// refused is without a ruling.
    pub fn forget_refusals(&mut self) {
        for known in &mut self.proposals {
            known.ruling = known.ruling.filter(|ruling| *ruling == Decision::Accept);
        }
    }

    /// Control gives work out. Returns the number of the publication. `is_permitted`: the verifier
    /// is out of reach, and the policy lets unjudged work out then.
    pub fn on_publish(&mut self, job: &Job, is_permitted: bool) -> usize {
        let found = self.proposals.iter().rev().find(|known| {
            known.propose.template_id == job.template.id
                && known.propose.prev_hash == job.template.tip.prev_hash
                && known.propose.coinbase.prefix.0 == job.coinbase.prefix
                && known.propose.coinbase.suffix.0 == job.coinbase.suffix
        });
        let is_ruled = found.is_some_and(|known| {
            known.ruling == Some(Decision::Accept) && known.generation == self.generation
        });
        // A process knows nothing of what was ruled before its start.
        let is_refused = found.is_some_and(|known| {
            known.ruling == Some(Decision::Reject) && known.generation == self.generation
        });
        let propose = match found {
            Some(known) => Arc::clone(&known.propose),
            None => Arc::new(shown(job)),
        };
        self.hold(is_ruled || (is_permitted && !is_refused), Rule::C1Verdict, || {
            format!("template {} is published without an accepting verdict", job.template.id.0)
        });
        self.publications.push(Publication { propose });
        self.publications.len() - 1
    }

    /// Control goes on with what is out, because the chain is back on its tip.
    pub fn on_resume(&mut self, tip: Option<BlockHash>) {
        let out = self.publications.last().map(|publication| publication.propose.prev_hash);
        self.hold(out.is_some() && out == tip, Rule::C3Order, || {
            format!("the hold ends on tip {tip:?} while work on {out:?} is out")
        });
    }

    /// A shard takes an update of its board.
    pub fn on_board(
        &mut self,
        now: Now,
        shard: usize,
        update: &BoardUpdate,
        publication: Option<usize>,
    ) {
        match (update, publication) {
            (BoardUpdate::Publish { job, .. }, Some(publication)) => {
                let board = &mut self.boards[shard];
                let before = board.taken.last().map(|(before, ..)| *before);
                let prev_hash = job.template.tip.prev_hash;
                let is_new_tip =
                    before.is_none_or(|b| self.publications[b].propose.prev_hash != prev_hash);
                board.tip_number += u64::from(is_new_tip);
                board.is_held = false;
                board.taken.push((publication, board.tip_number, now));
                self.hold(before.is_none_or(|before| before < publication), Rule::C3Order, || {
                    format!("shard {shard} takes publication {publication} after {before:?}")
                });
            }
            // Work that control never gave out is found out at the miner.
            (BoardUpdate::Publish { .. }, None) => self.boards[shard].is_held = false,
            (BoardUpdate::Hold, _) => self.boards[shard].is_held = true,
            (BoardUpdate::Resume, _) => self.boards[shard].is_held = false,
            (BoardUpdate::Expire, _) => (),
        }
    }

    /// A shard sealed frames for a connection: jobs, the newest of its board, and targets.
    pub fn on_sealed(&mut self, now: Now, wire: Wire, jobs: u64, targets: u64) {
        if let Some(view) = self.wires.get_mut(&wire) {
            view.targets_sealed += targets;
        }
        let Some(view) = self.wires.get_mut(&wire).filter(|_| jobs > 0) else { return };
        let newest = self.boards[view.shard].taken.last().copied();
        let Some((publication, tip_number, _)) = newest else {
            return self.fail(Rule::C1Verdict, format!("wire {wire} has a job before any work"));
        };
        let sealed = Sealed { publication, tip_number, at: now };
        view.sealed.extend((0..jobs).map(|_| sealed));
        let is_held = self.boards[view.shard].is_held;
        self.hold(!is_held, Rule::C3Order, || {
            format!("wire {wire} is given work of an old tip while a newer one is known")
        });
    }

    /// A channel was opened. Its part of the extranonce is nobody else's: no prefix begins with
    /// another.
    pub fn on_opened(&mut self, wire: Wire, key: ChannelKey, channel_id: u32, extranonce: &[u8]) {
        let (generation, shard) = (self.generation, self.wires[&wire].shard);
        let tip_number = self.boards[shard].tip_number;
        for other in self.overlapping(extranonce) {
            let used = &self.prefixes[&other];
            let rests = used.freed_at_tip.map(|freed| match used.is_spent {
                true => tip_number.saturating_sub(freed),
                false => PREFIX_REST_TIPS,
            });
            let is_free = used.generation == generation
                && used.shard == shard
                && rests.is_some_and(|tips| tips >= PREFIX_REST_TIPS);
            self.hold(is_free, Rule::C2Prefix, || {
                format!("wire {wire} has the prefix {extranonce:02x?} of another channel")
            });
            self.prefixes.remove(&other);
        }
        let used = PrefixUse { generation, shard, freed_at_tip: None, is_spent: false };
        self.prefixes.insert(extranonce.to_vec(), used);
        let extranonce = extranonce.to_vec();
        let channel = ChannelView { extranonce, is_closed: false, wire, channel_id };
        self.channels.insert((generation, key), channel);
    }

    /// Prefixes in use, or at rest, that begin with this one, or that it begins with.
    fn overlapping(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let shorter = (1..prefix.len()).map(|length| &prefix[..length]);
        let shorter = shorter.filter(|part| self.prefixes.contains_key(*part)).map(<[u8]>::to_vec);
        let longer = self.prefixes.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let longer = longer.map(|(other, _)| other.clone());
        shorter.chain(longer.take_while(|other| other.starts_with(prefix))).collect()
    }

    /// A share was accepted on a channel.
    pub fn on_spent(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get(&(self.generation, key)) else { return };
        if let Some(used) = self.prefixes.get_mut(&channel.extranonce) {
            used.is_spent = true;
        }
    }

    /// A channel has ended.
    pub fn on_closed(&mut self, key: ChannelKey) {
        let channel = self.channels.get_mut(&(self.generation, key));
        let Some(channel) = channel.filter(|channel| !channel.is_closed) else { return };
        channel.is_closed = true;
        if let Some(used) = self.prefixes.get_mut(&channel.extranonce) {
            used.freed_at_tip = Some(self.boards[used.shard].tip_number);
        }
    }

    /// A connection ended; its shard says why. `was_faulty`: net or miner gave cause.
    pub fn on_end(&mut self, wire: Wire, close: Close, was_faulty: bool) {
        self.check_unread(wire);
        let view = self.wires.remove(&wire);
        let is_tracked = view.as_ref().is_some_and(|view| view.is_tracked);
        let is_flood = close == Close::Reason(Reason::ShareRateExceeded)
            && view.is_some_and(|view| view.is_rude);
        let is_fine = matches!(
            close,
            Close::Cause(CloseCause::PeerGone | CloseCause::Idle | CloseCause::NoChannel)
                | Close::Cause(CloseCause::Drain)
                | Close::Reason(Reason::HandshakeTimeout | Reason::PrevhashSwitchTimeout)
        );
        self.hold(!is_tracked || was_faulty || is_fine || is_flood, Rule::C9Close, || {
            format!("wire {wire} of an honest miner is closed: {}", close.code())
        });
    }

    /// What a connection holds on the heap.
    pub fn on_memory(&mut self, wire: Wire, bytes: usize) {
        self.hold(bytes <= CONNECTION_BYTES_MAX, Rule::C10Memory, || {
            format!("wire {wire} holds {bytes} bytes, at most {CONNECTION_BYTES_MAX} are allowed")
        });
    }

    /// Sealed bytes go out.
    pub fn on_ciphertext(&mut self, wire: Wire, bytes: &[u8]) {
        for piece in bytes.chunks_exact(16).take(64) {
            let piece: [u8; 16] = piece.try_into().unwrap();
            if !self.ciphertexts.insert(piece) {
                return self.fail(Rule::C11Cipher, format!("wire {wire} sends old ciphertext"));
            }
        }
    }

    /// A miner gave up. What breaks the protocol is our fault, unless its stream was broken.
    pub fn on_miner_error(&mut self, wire: Wire, error: &MinerError) {
        if let MinerError::OpenRefused { code } = error {
            let may_mine = self.wires.get(&wire).is_some_and(|view| view.may_mine);
            let is_unknown = code.as_str() == Reason::InvalidCredentials.error_code();
            self.hold(!(may_mine && is_unknown), Rule::C16Admission, || {
                format!("wire {wire}: a miner with the right secret is told {code}")
            });
        }
        let is_violation = error.is_violation() || matches!(error, MinerError::Handshake(_));
        let rule = match error {
            MinerError::Transport(_) | MinerError::Handshake(_) => Rule::C11Cipher,
            MinerError::UnknownSequenceNumber { .. } | MinerError::WrongAcknowledgement { .. } => {
                Rule::C4Ack
            }
            _ => Rule::C3Order,
        };
        self.hold(!is_violation, rule, || format!("wire {wire}: the miner says: {error}"));
    }

    /// The publication behind a template's name on a shard's board, the newest first.
    pub fn publication(&self, shard: usize, id: TemplateId) -> Option<(usize, u64)> {
        let mut taken = self.boards[shard].taken.iter().rev();
        let named = |p: usize| self.publications[p].propose.template_id == id;
        taken.find(|(p, ..)| named(*p)).map(|(publication, tip, _)| (*publication, *tip))
    }
}

/// A job as the verifier would be shown it.
fn shown(job: &Job) -> TemplatePropose {
    let (template, coinbase) = (&job.template, &job.coinbase);
    TemplatePropose {
        propose_id: 0,
        deadline_ms: 0,
        reason: ProposeReason::Start,
        template_id: template.id,
        prev_hash: template.tip.prev_hash,
        height: template.height,
        version: template.version,
        nbits: template.tip.nbits,
        curtime: template.cur_time,
        min_time: template.tip.min_ntime,
        coinbase: ProposedCoinbase {
            prefix: HexBytes(coinbase.prefix.clone()),
            suffix: HexBytes(coinbase.suffix.clone()),
            extranonce_len: coinbase.extranonce_bytes,
            value: template.coinbase_value,
        },
        merkle_path: template.merkle_path.clone(),
        rules: None,
        wtxids: Vec::new(),
        totals: Totals { fees: 0, weight: 0, sigops: 0, tx_count: 0 },
    }
}

fn same_work(one: &TemplatePropose, other: &TemplatePropose) -> bool {
    one.template_id == other.template_id
        && one.prev_hash == other.prev_hash
        && one.coinbase == other.coinbase
        && one.merkle_path == other.merkle_path
}
