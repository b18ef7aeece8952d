//! Control: which template may be mined, and the prevhash switch.
//!
//! ```text
//! Steady ──new tip──▶ Switching ──verdict: accept──▶ Steady
//!                        │ 50 ms without a verdict: late; miners keep their old job
//!                        └ 5 s more: Expired, every channel is ended; the next accept heals
//! ```
//!
//! In inline mode nothing is published without an accepting verdict that is bound to the very
//! bytes (I5, D37). A tip is whatever the newest template of the source builds on: the source
//! decides between rivals (D20).

use std::collections::VecDeque;
use std::sync::Arc;

use work::contract::verifier::ProposeReason;
use work::payout::{Network, Payout};
use work::{BlockHash, Decision, Job, Mono, Now, Target, Template, TemplateId, Verdict};

use super::board::BoardUpdate;
use crate::limits::{CANDIDATES_MAX, PROPOSE_AGAIN_MILLIS};
use crate::metrics::{Counters, control as counter};
use crate::mode::{FailurePolicy, Mode};

/// What control is told once.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    /// What to do with verdicts.
    pub mode: Mode,
    /// What to do without.
    pub failure_policy: FailurePolicy,
    /// The chain that templates must be of.
    pub network: Network,
    /// Whom the coinbase pays.
    pub payouts: Vec<Payout>,
    /// Tag in the coinbase.
    pub coinbase_tag: Vec<u8>,
    /// Bytes of the whole extranonce.
    pub extranonce_bytes: usize,
    /// Soft deadline of a verdict.
    pub verdict_timeout_ms: u64,
    /// How long miners are held on an old tip beyond it.
    pub stale_hold_ms: u64,
    /// Least time between two jobs on the same tip.
    pub job_broadcast_interval_ms: u64,
    /// How long the last work is served without a living source.
    pub template_max_age_ms: u64,
}

/// What control wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Have this judged.
    Propose {
        /// What.
        job: Arc<Job>,
        /// Why.
        reason: ProposeReason,
    },
    /// Tell every shard.
    Board(BoardUpdate),
    /// Say this in the log.
    Note(Note),
}

/// What happened, for the log and for events.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A new tip was heard of.
    TipSeen {
        /// The block.
        prev_hash: BlockHash,
        /// Height of the next one.
        height: u32,
    },
    /// Work went out on a new tip.
    Switched {
        /// The work.
        job: Arc<Job>,
        /// Since the tip was heard.
        micros: u64,
        /// From the tip to the ruling on that work; `None` if it went out without one.
        verdict_micros: Option<u64>,
        /// Whether the verdict came after its soft deadline.
        late: bool,
    },
    /// A ruling came.
    Judged {
        /// The ruling.
        verdict: Verdict,
        /// What was judged.
        job: Arc<Job>,
        /// Since the template came.
        micros: u64,
        /// What verdicts are for.
        mode: Mode,
        /// Whether it decides what goes out.
        enforced: bool,
    },
    /// A ruling came that is bound to other bytes than the candidate's: never to be obeyed.
    Mismatch {
        /// Which.
        template_id: TemplateId,
    },
    /// The hold ran out.
    SwitchTimeout {
        /// The tip without work.
        prev_hash: BlockHash,
        /// Since it was heard.
        micros: u64,
    },
    /// The source has been gone too long.
    SourceExpired,
    /// The source is on another chain: its templates are not used.
    WrongChain {
        /// Its chain.
        network: Network,
        /// Ours.
        expected: Network,
    },
    /// No coinbase can be built.
    Unbuildable {
        /// From which template.
        template_id: TemplateId,
        /// Why.
        why: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Waiting,
    Accepted,
    Rejected,
}

#[derive(Debug)]
struct Candidate {
    job: Arc<Job>,
    received_at: Mono,
    proposed_at: Mono,
    judged_at: Option<Mono>,
    judgement: Judgement,
}

#[derive(Debug, Clone, Copy)]
struct Tip {
    key: TipKey,
    seen: Mono,
}

/// What makes a tip another one for miners: its hash, and the target above it (testnet4 changes
/// that under one hash).
type TipKey = (BlockHash, u32);

#[derive(Debug, Clone, Copy)]
struct Switching {
    late: bool,
    expired: bool,
}

/// The control machine.
#[derive(Debug)]
pub struct Control {
    settings: ControlSettings,
    /// Templates of the current tip, oldest first.
    candidates: VecDeque<Candidate>,
    newest: Option<TemplateId>,
    tip: Option<Tip>,
    switching: Option<Switching>,
    published: Option<(TemplateId, TipKey)>,
    /// Whether what was published last has transactions.
    published_full: bool,
    /// Body and tip of what was published last, as verdicts name them.
    published_work: Option<([u8; 32], [u8; 32])>,
    published_at: Mono,
    /// An accepted template waits for the broadcast interval.
    publish_due: bool,
    verifier_up: bool,
    source_up: bool,
    /// The source is on another chain.
    source_refused: bool,
    source_lost_at: Option<Mono>,
    source_expired: bool,
    actions: VecDeque<Action>,
    /// The counters.
    pub counters: Counters<{ counter::CELLS }>,
}

impl Control {
    /// Control without templates.
    pub fn new(settings: ControlSettings) -> Control {
        Control {
            settings,
            candidates: VecDeque::with_capacity(CANDIDATES_MAX),
            newest: None,
            tip: None,
            switching: None,
            published: None,
            published_full: false,
            published_work: None,
            published_at: Mono(0),
            publish_due: false,
            verifier_up: false,
            source_up: false,
            source_refused: false,
            source_lost_at: None,
            source_expired: false,
            actions: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The source has a new template.
    pub fn on_template(&mut self, now: Now, template: Arc<Template>) {
        if self.source_refused || self.newest.is_some_and(|newest| template.id <= newest) {
            return;
        }
        self.newest = Some(template.id);
        self.on_source(now, true);
        self.counters.add(counter::TEMPLATES, 1);
        let job = match self.build(&template) {
            Ok(job) => Arc::new(job),
            Err(why) => {
                self.counters.add(counter::UNBUILDABLE, 1);
                self.note(Note::Unbuildable { template_id: template.id, why });
                return;
            }
        };
        let reason = self.on_tip(now, &template);
        if self.candidates.len() == CANDIDATES_MAX {
            // Not the oldest: a slow verifier would never be allowed to finish one.
            self.candidates.remove(1);
        }
        let candidate = Candidate {
            job: Arc::clone(&job),
            received_at: now.mono,
            proposed_at: now.mono,
            judged_at: None,
            judgement: Judgement::Waiting,
        };
        self.candidates.push_back(candidate);
        self.actions.push_back(Action::Propose { job, reason });
        self.try_publish(now);
    }

    /// A ruling came.
    pub fn on_verdict(&mut self, now: Now, verdict: Verdict) {
        let enforced = self.settings.mode == Mode::Inline;
        let found = self.candidates.iter_mut().find(|c| c.job.template.id == verdict.template_id);
        let Some(candidate) = found else {
            self.counters.add(counter::LATE_VERDICTS, 1);
            return;
        };
        let job = &candidate.job;
        if verdict.body_hash != job.body_hash() || verdict.tip_hash != job.tip_hash() {
            self.counters.add(counter::MISMATCHES, 1);
            self.note(Note::Mismatch { template_id: verdict.template_id });
            return;
        }
        let judgement = match verdict.decision {
            Decision::Accept => Judgement::Accepted,
            Decision::Reject => Judgement::Rejected,
        };
        // The first ruling on given bytes under one policy stands (D39).
        if candidate.judgement != Judgement::Waiting {
            let contradicts = candidate.judgement != judgement;
            let cell = if contradicts { counter::MISMATCHES } else { counter::LATE_VERDICTS };
            self.counters.add(cell, 1);
            if contradicts {
                self.note(Note::Mismatch { template_id: verdict.template_id });
            }
            return;
        }
        let micros = now.mono.micros_since(candidate.received_at);
        candidate.judgement = judgement;
        candidate.judged_at = Some(now.mono);
        let job = Arc::clone(&candidate.job);
        self.counters.record(counter::VERDICT, micros);
        self.counters.add(
            match verdict.decision {
                Decision::Accept => counter::ACCEPTS,
                Decision::Reject => counter::REJECTS,
            },
            1,
        );
        let mode = self.settings.mode;
        self.note(Note::Judged { verdict, job, micros, mode, enforced });
        self.try_publish(now);
    }

    /// The verifier can be reached, or cannot. What it has not judged is proposed again.
    pub fn on_verifier(&mut self, now: Now, up: bool) {
        if up && !self.verifier_up {
            self.counters.add(counter::VERIFIER_CONNECTS, 1);
        }
        self.verifier_up = up;
        self.counters.set(counter::VERIFIER_UP, u64::from(up));
        if up {
            self.propose_again(now);
        } else {
            self.try_publish(now);
        }
    }

    /// Another policy is in force: the newest template is judged again.
    pub fn on_policy_changed(&mut self, now: Now) {
        if let Some(newest) = self.candidates.back_mut() {
            newest.judgement = Judgement::Waiting;
        }
        self.propose_again(now);
    }

    /// The source of templates is alive, or has lost its node, or is gone itself.
    pub fn on_source(&mut self, now: Now, up: bool) {
        self.source_up = up;
        self.counters.set(counter::SOURCE_UP, u64::from(up));
        match up {
            true => {
                self.source_lost_at = None;
                self.source_expired = false;
            }
            false => self.source_lost_at = Some(self.source_lost_at.unwrap_or(now.mono)),
        }
    }

    /// The source was connected anew: its numbers may begin anywhere, and it says again what is
    /// in force. What is out stays out, as older than anything that comes.
    pub fn on_source_connected(&mut self) {
        self.newest = None;
        self.candidates.clear();
        self.publish_due = false;
        if let Some((id, _)) = &mut self.published {
            *id = TemplateId(0);
        }
    }

    /// The source says what it is.
    pub fn on_source_network(&mut self, network: Network) {
        let expected = self.settings.network;
        self.source_refused = network != expected;
        if self.source_refused {
            self.note(Note::WrongChain { network, expected });
        }
    }

    /// Whether the source is on another chain: neither its templates nor its nodes are used.
    pub fn is_source_refused(&self) -> bool {
        self.source_refused
    }

    /// A shard found a block.
    pub fn on_block_found(&mut self) {
        self.counters.add(counter::BLOCKS, 1);
    }

    /// Time has passed.
    pub fn on_deadline(&mut self, now: Now) {
        if self.publish_due {
            self.try_publish(now);
        }
        if let (Some(tip), Some(switching)) = (self.tip, &mut self.switching) {
            let soft = tip.seen.plus_millis(self.settings.verdict_timeout_ms);
            let hard = soft.plus_millis(self.settings.stale_hold_ms);
            switching.late |= now.mono >= soft;
            if now.mono >= hard && !switching.expired {
                switching.expired = true;
                self.expire(Note::SwitchTimeout {
                    prev_hash: tip.key.0,
                    micros: now.mono.micros_since(tip.seen),
                });
            }
        }
        if self.unanswered_since().is_some_and(|at| now.mono >= at) {
            self.propose_again(now);
        }
        let lost = self.source_lost_at.map(|at| at.plus_millis(self.settings.template_max_age_ms));
        if lost.is_some_and(|at| now.mono >= at) && !self.source_expired {
            self.source_expired = true;
            self.expire(Note::SourceExpired);
        }
    }

    /// When [`Control::on_deadline`] is due.
    pub fn deadline(&self) -> Option<Mono> {
        let publish = self
            .publish_due
            .then(|| self.published_at.plus_millis(self.settings.job_broadcast_interval_ms));
        let switching = self.tip.zip(self.switching).and_then(|(tip, switching)| {
            let soft = tip.seen.plus_millis(self.settings.verdict_timeout_ms);
            let hard = soft.plus_millis(self.settings.stale_hold_ms);
            match (switching.expired, switching.late) {
                (true, _) => None,
                (false, true) => Some(hard),
                (false, false) => Some(soft),
            }
        });
        let source = (!self.source_expired)
            .then(|| {
                self.source_lost_at.map(|at| at.plus_millis(self.settings.template_max_age_ms))
            })
            .flatten();
        [publish, switching, source, self.unanswered_since()].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether miners can be served: work is out for the current tip.
    pub fn is_ready(&self) -> bool {
        let tip = self.tip.map(|tip| tip.key);
        tip.is_some() && self.published.map(|(_, key)| key) == tip && !self.source_expired
    }

    /// Whether the verifier can be reached.
    pub fn is_verifier_up(&self) -> bool {
        self.verifier_up
    }

    /// Whether the source lives.
    pub fn is_source_up(&self) -> bool {
        self.source_up
    }

    fn build(&self, template: &Arc<Template>) -> Result<Job, String> {
        Target::from_nbits(template.tip.nbits).map_err(|error| error.to_string())?;
        let settings = &self.settings;
        Job::new(
            Arc::clone(template),
            &settings.payouts,
            &settings.coinbase_tag,
            settings.extranonce_bytes,
        )
        .map_err(|error| error.to_string())
    }

    /// Note a new tip, if `template` brings one; why it is proposed.
    fn on_tip(&mut self, now: Now, template: &Template) -> ProposeReason {
        let prev_hash = template.tip.prev_hash;
        let key = (prev_hash, template.tip.nbits);
        let before = self.tip.map(|tip| tip.key);
        if before == Some(key) {
            return ProposeReason::Fees;
        }
        self.tip = Some(Tip { key, seen: now.mono });
        self.candidates.clear();
        self.publish_due = false;
        self.counters.add(counter::TIPS, 1);
        self.counters.set(counter::READY, 0);
        self.note(Note::TipSeen { prev_hash, height: template.height });
        if self.published.is_some_and(|(_, published)| published == key) {
            // The chain flipped back before there was work for the other side.
            self.switching = None;
            self.counters.set(counter::HOLD, 0);
            self.counters.set(counter::READY, 1);
            self.actions.push_back(Action::Board(BoardUpdate::Resume));
            return ProposeReason::NewTip;
        }
        self.switching = Some(Switching { late: false, expired: self.published.is_none() });
        if self.published.is_some() {
            self.counters.set(counter::HOLD, 1);
            self.actions.push_back(Action::Board(BoardUpdate::Hold));
        }
        if before.is_none() { ProposeReason::Start } else { ProposeReason::NewTip }
    }

    /// When the newest template without a verdict is proposed again: a refusal, a cancelled or a
    /// lost proposal must not leave a tip without work.
    fn unanswered_since(&self) -> Option<Mono> {
        let newest = self.candidates.back().filter(|_| self.verifier_up)?;
        (newest.judgement == Judgement::Waiting)
            .then(|| newest.proposed_at.plus_millis(PROPOSE_AGAIN_MILLIS))
    }

    fn propose_again(&mut self, now: Now) {
        for candidate in &mut self.candidates {
            if candidate.judgement == Judgement::Waiting {
                candidate.proposed_at = now.mono;
                let job = Arc::clone(&candidate.job);
                self.actions.push_back(Action::Propose { job, reason: ProposeReason::Start });
            }
        }
    }

    /// Whether a candidate may go out: the one place that decides it.
    fn may_go_out(&self, candidate: &Candidate) -> bool {
        match (self.settings.mode, candidate.judgement) {
            (Mode::Shadow, _) => false,
            (Mode::Observe, _) | (Mode::Inline, Judgement::Accepted) => true,
            (Mode::Inline, Judgement::Rejected) => false,
            (Mode::Inline, Judgement::Waiting) => {
                self.settings.failure_policy == FailurePolicy::PermitAll && !self.verifier_up
            }
        }
    }

    /// Publish the newest candidate that may go out, if it is newer than what is out.
    fn try_publish(&mut self, now: Now) {
        let Some(tip) = self.tip.filter(|_| !self.source_expired) else { return };
        self.publish_due = false;
        let is_same_tip = self.published.is_some_and(|(_, key)| key == tip.key);
        // A block without fees never replaces one with them on the same tip.
        let keeps_fees = is_same_tip && self.published_full && self.switching.is_none();
        let may_replace = |c: &&Candidate| !(keeps_fees && c.job.template.is_coinbase_only());
        let mut newest = self.candidates.iter().rev().filter(may_replace);
        let newest = newest.find(|candidate| self.may_go_out(candidate));
        let Some(candidate) = newest else { return };
        let (job, judged_at) = (Arc::clone(&candidate.job), candidate.judged_at);
        // The same bytes again would make miners begin anew and find the same shares twice: on a
        // quiet chain the full template is the coinbase-only one.
        let is_repetition = self.switching.is_none()
            && self.published_work == Some((job.body_hash(), job.tip_hash()));
        let is_out = is_repetition || self.published.is_some_and(|(id, _)| id >= job.template.id);
        let is_expired = self.switching.is_some_and(|switching| switching.expired);
        if is_same_tip && !is_expired {
            let next = self.published_at.plus_millis(self.settings.job_broadcast_interval_ms);
            self.publish_due = !is_out && now.mono < next;
            if is_out || self.publish_due {
                return;
            }
        }
        self.publish(now, tip, job, judged_at);
    }

    fn publish(&mut self, now: Now, tip: Tip, job: Arc<Job>, judged_at: Option<Mono>) {
        let template = &job.template;
        if let Some(switching) = self.switching.take() {
            let micros = now.mono.micros_since(tip.seen);
            let soft = self.settings.verdict_timeout_ms.saturating_mul(1_000);
            let late = switching.late || micros > soft;
            let cell = if late { counter::SWITCHES_LATE } else { counter::SWITCHES_OK };
            self.counters.add(cell, 1);
            let verdict_micros = judged_at.map(|at| at.micros_since(tip.seen));
            let job = Arc::clone(&job);
            self.note(Note::Switched { job, micros, verdict_micros, late });
        }
        self.published = Some((template.id, tip.key));
        self.published_full = !template.is_coinbase_only();
        self.published_work = Some((job.body_hash(), job.tip_hash()));
        self.published_at = now.mono;
        self.publish_due = false;
        self.counters.set(counter::HOLD, 0);
        self.counters.set(counter::READY, 1);
        self.counters.add(counter::PUBLISHED, 1);
        self.counters.set(counter::HEIGHT, u64::from(template.height));
        self.counters.set(counter::TRANSACTIONS, template.transactions.len() as u64);
        self.counters.set(counter::WEIGHT, template.total_weight());
        self.counters.set(counter::FEES, template.total_fees());
        let update = BoardUpdate::Publish { job, tip_seen: tip.seen };
        self.actions.push_back(Action::Board(update));
    }

    fn expire(&mut self, note: Note) {
        self.published = None;
        self.counters.add(counter::SWITCHES_TIMEOUT, 1);
        self.counters.set(counter::READY, 0);
        self.counters.set(counter::HOLD, 0);
        self.actions.push_back(Action::Board(BoardUpdate::Expire));
        self.note(note);
    }

    fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }
}
