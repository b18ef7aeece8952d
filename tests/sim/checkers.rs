//! The checkers: they stand outside, see everything that passes between machines, peers and net,
//! and know none of the machines' insides. Each names the rule that was broken.
//!
//! Work and verdicts are here, shares in `ledger.rs`, the slow judgement of one share in
//! `verdicts.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use gateway::limits::{STASH_BYTES_MAX, WIRE_WAITING_MAX};
use gateway::machine::board::BoardUpdate;
use gateway::machine::output::ChannelKey;
use gateway::reason::{Close, CloseCause, Reason};
use loadgen::miner::{MinerError, MinerEvent};
use work::contract::bytes::HexBytes;
use work::contract::verifier::{ProposeReason, ProposedCoinbase, TemplatePropose, Totals};
use work::{BlockHash, Decision, Job, Now, TemplateId, Verdict};

use crate::ledger::Ledger;
use crate::reference;
use crate::verdicts::{GivenJob, Submitted};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Work is given only under an accepting verdict (I5).
    C1Verdict,
    /// Extranonce prefixes are disjoint, across restarts too (I4).
    C2Prefix,
    /// A tip names a held future job, and tips come in control's order (I6).
    C3Order,
    /// No acknowledgement without a taken record; sums are exact (I2).
    C4Ack,
    /// No share is credited twice.
    C5Credit,
    /// Every accepted share is delivered once; none is lost (I7).
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

/// An open channel.
pub struct ChannelView {
    is_closed: bool,
    pub extranonce: Vec<u8>,
}

/// One connection as seen from both its ends.
#[derive(Default)]
pub struct WireView {
    pub shard: usize,
    /// Whether a well-behaved miner is at the other end, whose shares are followed one by one.
    pub is_tracked: bool,
    /// Jobs that were sealed for it, in order: publication, tip number there, when.
    sealed: VecDeque<(usize, u64, Now)>,
    last_publication: Option<usize>,
    pub jobs: BTreeMap<u32, GivenJob>,
    futures: BTreeSet<u32>,
    pub newest_job: Option<u32>,
    pub channel_id: u32,
    pub extranonce: Vec<u8>,
    pub target: [u8; 32],
    /// Shares that it sent and the shard has not judged.
    pub submitted: VecDeque<Submitted>,
    /// Hashes that were accepted from it, and how many since the last job.
    pub credited: BTreeSet<[u8; 32]>,
    pub credited_since_job: usize,
    /// Bytes of its stream that the shard was given.
    pub delivered: u64,
    /// Offset in its stream from which bytes are not what the miner sealed.
    pub broken_at: Option<u64>,
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
    prefixes: BTreeMap<Vec<u8>, PrefixUse>,
    ciphertexts: BTreeSet<[u8; 16]>,
    /// Inserts that a channel surely has room for between two jobs.
    pub seen_room: usize,
    /// The easiest difficulty is `2^-this`.
    share_bits: u32,
}

impl Checker {
    pub fn new(seen_room: usize, share_bits: u32) -> Checker {
        Checker {
            violations: Vec::new(),
            generation: 0,
            proposals: Vec::new(),
            publications: Vec::new(),
            boards: Vec::new(),
            channels: BTreeMap::new(),
            wires: BTreeMap::new(),
            ledger: Ledger::default(),
            prefixes: BTreeMap::new(),
            ciphertexts: BTreeSet::new(),
            seen_room,
            share_bits,
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
    pub fn on_admitted(&mut self, wire: Wire, shard: usize, is_tracked: bool) {
        let view = WireView { shard, is_tracked, ..WireView::default() };
        self.wires.insert(wire, view);
    }

    /// A process starts with this many shards.
    pub fn on_start(&mut self, generation: u64, shards: usize) {
        self.generation = generation;
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

    /// Control hears of another policy: what the old one refused is without a ruling.
    pub fn on_policy_changed(&mut self) {
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

    /// A shard sealed `jobs` jobs for a connection: the newest of its board.
    pub fn on_sealed_jobs(&mut self, now: Now, wire: Wire, jobs: u64) {
        let Some(view) = self.wires.get_mut(&wire).filter(|_| jobs > 0) else { return };
        let newest = self.boards[view.shard].taken.last().copied();
        let Some((publication, tip_number, _)) = newest else {
            return self.fail(Rule::C1Verdict, format!("wire {wire} has a job before any work"));
        };
        for _ in 0..jobs {
            view.credited_since_job = 0;
            view.sealed.push_back((publication, tip_number, now));
        }
        let is_held = self.boards[view.shard].is_held;
        self.hold(!is_held, Rule::C3Order, || {
            format!("wire {wire} is given work of an old tip while a newer one is known")
        });
    }

    /// A channel was opened.
    pub fn on_opened(&mut self, wire: Wire, key: ChannelKey, extranonce: &[u8]) {
        let (generation, shard) = (self.generation, self.wires[&wire].shard);
        let tip_number = self.boards[shard].tip_number;
        if let Some(used) = self.prefixes.get(extranonce) {
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
        }
        let used = PrefixUse { generation, shard, freed_at_tip: None, is_spent: false };
        self.prefixes.insert(extranonce.to_vec(), used);
        let channel = ChannelView { extranonce: extranonce.to_vec(), is_closed: false };
        self.channels.insert((generation, key), channel);
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
        let is_tracked = self.wires.remove(&wire).is_some_and(|view| view.is_tracked);
        let is_fine = matches!(
            close,
            Close::Cause(CloseCause::PeerGone | CloseCause::Idle | CloseCause::NoChannel)
                | Close::Cause(CloseCause::Drain)
                | Close::Reason(Reason::HandshakeTimeout | Reason::PrevhashSwitchTimeout)
        );
        self.hold(!is_tracked || was_faulty || is_fine, Rule::C9Close, || {
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

    /// Something happened to a miner.
    pub fn on_event(&mut self, wire: Wire, event: &MinerEvent) {
        match event {
            MinerEvent::Opened { channel_id, extranonce_prefix, target } => {
                let Some(view) = self.wires.get_mut(&wire) else { return };
                view.channel_id = *channel_id;
                view.extranonce = extranonce_prefix.to_vec();
                view.target = target.to_le_bytes();
                let easiest = reference::share_target(self.share_bits);
                let is_hard_enough = reference::is_at_most(&view.target, &easiest);
                self.hold(is_hard_enough, Rule::C14Reference, || {
                    format!("wire {wire} is given the target {target}, too easy")
                });
            }
            MinerEvent::JobReceived { job_id, version, merkle_root, min_ntime, .. } => {
                self.on_job(wire, *job_id, *version, merkle_root.0, *min_ntime);
            }
            MinerEvent::TipSwitched { prev_hash, job_id, nbits, min_ntime, .. } => {
                self.on_tip(wire, prev_hash.0, *job_id, *nbits, *min_ntime);
            }
            MinerEvent::ShareAccepted { sequence_number, .. } => {
                self.on_acknowledged(wire, *sequence_number);
            }
            _ => (),
        }
    }

    /// C1 and the order of jobs, seen at the miner.
    fn on_job(
        &mut self,
        wire: Wire,
        job_id: u32,
        version: u32,
        root: [u8; 32],
        min_ntime: Option<u32>,
    ) {
        let Some(view) = self.wires.get_mut(&wire) else { return };
        let Some((publication, tip_number, at)) = view.sealed.pop_front() else {
            return self.fail(Rule::C1Verdict, format!("wire {wire} got job {job_id} of nobody"));
        };
        let work = &self.publications[publication].propose;
        let expected = reference::root(work, &view.extranonce);
        let is_same = expected == root && version == work.version;
        let is_ordered = view.last_publication.is_none_or(|last| last <= publication);
        view.last_publication = Some(publication);
        match min_ntime {
            None => drop(view.futures.insert(job_id)),
            Some(_) => view.newest_job = Some(job_id),
        }
        let ntime_min = min_ntime.unwrap_or(0);
        let given = GivenJob {
            publication,
            tip_number,
            sealed_at: at,
            ntime_min,
            root,
            version,
            nbits: work.nbits,
            prev_hash: work.prev_hash.0,
        };
        view.jobs.insert(job_id, given);
        self.hold(is_same, Rule::C1Verdict, || {
            format!("wire {wire} got job {job_id} with another root than the verified one")
        });
        self.hold(is_ordered, Rule::C3Order, || {
            format!("wire {wire} got job {job_id} of publication {publication} after a newer one")
        });
    }

    fn on_tip(&mut self, wire: Wire, prev_hash: [u8; 32], job_id: u32, nbits: u32, ntime: u32) {
        let Some(view) = self.wires.get_mut(&wire) else { return };
        let is_held = view.futures.remove(&job_id);
        view.futures.clear();
        view.newest_job = Some(job_id);
        let job = view.jobs.get_mut(&job_id);
        let is_its_tip = job.is_some_and(|job| {
            job.ntime_min = ntime;
            job.prev_hash == prev_hash && job.nbits == nbits
        });
        self.hold(is_held && is_its_tip, Rule::C3Order, || {
            format!("wire {wire}: SetNewPrevHash names job {job_id}, no held future job of it")
        });
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
