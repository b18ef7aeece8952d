//! The pool's backend: credits by hash, answers by share, and does all that the status table is
//! for. An operator looks after what it would not take.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway::limits::COMMANDS_MAX;
use gateway::machine::command::Command;
use gateway::machine::forwarder::{Batch, Given, OpenShare, Posted};
use journal::Outcome;

use crate::faults::{Plant, SECOND};
use crate::world::{Core, Event, World};

/// Largest batch that a backend with a limit takes.
const BATCH_MAX: usize = 3;

/// The backend.
#[derive(Default)]
pub struct Backend {
    /// Batches that it has worked through.
    processed: BTreeSet<Arc<str>>,
}

/// What it does with a batch.
enum Way {
    Answer,
    /// It works, and nobody hears of it.
    Lost(u16),
    /// It does nothing, and says this.
    Say(u16),
    /// It works, and answers something that is no answer.
    Garbled,
}

fn said(status: u16, results: Option<Vec<Given>>) -> Posted {
    let detail = Arc::from(if results.is_some() { "" } else { "as ordered" });
    Posted { status, results, retry_after_ms: None, detail, rtt_micros: 700 }
}

impl World {
    /// A batch arrives at the backend.
    pub fn on_post(&mut self, generation: u64, batch: &Arc<Batch>) {
        let now = self.now();
        self.stats.posts += 1;
        let mut after = self.chance.between(500, 5_000);
        if self.faults.slow_backend && self.chance.one_in(4) {
            after = self.chance.between(1, 5) * SECOND;
        }
        let mut posted = match self.way(batch) {
            Way::Say(status) => said(status, None),
            Way::Answer => self.work_through(batch),
            Way::Lost(status) => {
                self.work_through(batch);
                said(status, None)
            }
            Way::Garbled => {
                self.work_through(batch);
                said(200, None)
            }
        };
        if posted.status == 429 || posted.status == 503 {
            posted.retry_after_ms = self.chance.pick(&[None, Some(0), Some(1_500), Some(9_000)]);
        }
        let (id, count) = (&batch.id, batch.shares.len());
        let status = posted.status;
        self.trace.note(now.mono, format_args!("batch {id} of {count}: {status}"));
        if self.may_plant(Plant::DeafForwarder) && self.is_calm {
            return;
        }
        if self.may_plant(Plant::ResultAltered)
            && let Some(results) = &mut posted.results
        {
            self.has_planted = true;
            results[0].outcome = Outcome::RejectedByUpstream;
        }
        self.after(after, Event::Posted(generation, batch.number, posted));
    }

    fn way(&mut self, batch: &Batch) -> Way {
        let is_poison = |open: &OpenShare| open.share.share_hash.0[3].is_multiple_of(16);
        if self.faults.poison && batch.shares.iter().any(is_poison) {
            return Way::Say(self.chance.pick(&[400, 422]));
        }
        if self.faults.small_batches && batch.shares.len() > BATCH_MAX {
            return Way::Say(413);
        }
        if self.faults.conflicts && self.backend.processed.contains(&batch.id) {
            return Way::Say(409);
        }
        if self.faults.wrong_answers && self.chance.one_in(10) {
            return match self.chance.below(3) {
                0 => Way::Garbled,
                _ => Way::Say(self.chance.pick(&[200, 204, 302, 401, 403, 404, 405, 410, 421])),
            };
        }
        if self.faults.backend_errors && self.chance.one_in(3) {
            return Way::Say(self.chance.pick(&[0, 408, 425, 429, 429, 500, 502, 503]));
        }
        if self.faults.lost_answers && self.chance.one_in(3) {
            return Way::Lost(self.chance.pick(&[0, 0, 500, 504]));
        }
        Way::Answer
    }

    /// It looks at each share: credited once, by hash; whatever it said once it says again.
    fn work_through(&mut self, batch: &Batch) -> Posted {
        let is_lost = self.may_plant(Plant::BatchLost);
        let copies = if self.may_plant(Plant::DeliveredAgain) { 2 } else { 1 };
        let mut results = Vec::new();
        for open in &batch.shares {
            let is_refused = self.faults.refuses && open.share.share_hash.0[4].is_multiple_of(16);
            let mut is_credited = true;
            for copy in (0..copies).filter(|_| !is_lost) {
                let share_id = open.share.share_id ^ copy;
                is_credited = self.checker.on_delivered(share_id, &open.share, !is_refused);
            }
            results.push(match is_credited {
                true => Given { outcome: Outcome::Delivered, detail: Arc::from("") },
                false => Given {
                    outcome: Outcome::RejectedByUpstream,
                    detail: Arc::from("unknown_worker"),
                },
            });
        }
        self.backend.processed.insert(Arc::clone(&batch.id));
        said(200, Some(results))
    }

    /// An operator looks at the dead letters and decides about some of them.
    pub fn on_operator(&mut self) {
        let dead = self.checker.journal.dead();
        let Some(oldest) = dead.first().copied() else { return };
        let command = match self.chance.below(4) {
            0 => Command::Discard(vec![oldest], "given up".to_owned()),
            1 => Command::Replay(dead),
            _ => Command::ReplayAll,
        };
        let Some(process) = &mut self.process else { return };
        if process.forwarder.commands.len() == COMMANDS_MAX {
            return;
        }
        if let Command::Discard(..) = command {
            self.checker.journal.on_discard(oldest);
        }
        self.stats.commands += 1;
        self.trace.note(self.now().mono, format_args!("operator: {command:?}"));
        if let Some(process) = &mut self.process {
            process.forwarder.commands.push_back(command);
        }
        self.wake(Core::Forwarder, 5);
    }
}
