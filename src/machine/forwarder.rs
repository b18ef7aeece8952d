//! The forwarder: writes the journal, says what is safe, posts shares, settles each exactly once.
//!
//! ```text
//! ring ─▶ journal ─synced─▶ durable numbers ─▶ shards acknowledge
//!              └──synced─▶ window ─▶ batches ─▶ backend ─▶ results ─▶ journal
//! ```
//!
//! A share is acknowledged, and posted, only when its record is on disk (D3). Its result is a
//! record too; a start reads back which shares have none (`journal::recover`).
//!
//! ```text
//! answer.rs    what an answer of the backend means: the status table
//! flights.rs   batches on their way          gate.rs    whether they go out freely
//! window.rs    shares that wait, in memory and in the journal
//! dead.rs      shares that wait for an operator
//! marks.rs     from what is on disk to the durable numbers
//! keep.rs      checkpoints and retention     space.rs   what the free space allows
//! names.rs     whose shares a channel's are  told.rs    events of connections and channels
//! quota.rs     how much may tell of what was refused
//! reading.rs   open shares back from the journal
//! ```

mod answer;
mod dead;
mod flights;
mod gate;
mod keep;
mod marks;
mod names;
mod quota;
mod reading;
mod settling;
mod space;
mod told;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;

use journal::ranges::Ranges;
use journal::segment::Position;
use journal::writer::{DiskAction, DiskDone, DiskFault, Writer};
use journal::{Record, Refusal};
use work::contract::shares::BATCH_SHARES_MAX;
use work::{Mono, Now, TemplateId};

use super::output::{ClosedChannel, Entry, Refused, Report, ShareRecord, share_id};
use super::told::Told;
use crate::limits::{
    REFUSALS_BYTES_MAX, REFUSALS_BYTES_PER_SECOND, VERDICTS_REMEMBERED, VISIT_BYTES,
    VISITS_BYTES_MAX, VISITS_BYTES_PER_SECOND,
};
use crate::metrics::{Counters, forwarder as counter};
pub use answer::{Given, Posted};
use dead::DeadLetters;
use flights::Flights;
pub use flights::{Batch, OpenShare};
pub use gate::Cause;
use gate::Gate;
use keep::{Keep, Low};
use marks::Marks;
use names::{Name, Names, Origin};
use quota::Quota;
use reading::{Extent, Reading};
pub use space::Level;
use space::Space;
use told::{ChannelClosed, ChannelOpened, connection_id, of_report, record};
use window::{Backlog, Window};

/// What the forwarder is told once.
#[derive(Debug, Clone)]
pub struct ForwarderSettings {
    /// Number of shards.
    pub shards: usize,
    /// Number of this start.
    pub epoch: u16,
    /// Shares that wait for delivery in memory, in batches or not.
    pub queue_size: usize,
    /// Batches in flight at once.
    pub max_in_flight: usize,
    /// How long a share waits for company, milliseconds; 0: every share goes alone.
    pub batch_interval_ms: u64,
    /// Attempts after which a batch is given up as dead letters; 0: never.
    pub attempts_max: u64,
    /// Longest wait before a batch is posted again, milliseconds.
    pub backoff_max_ms: u64,
    /// How long settled shares are kept; 0: for ever.
    pub retention_days: u64,
    /// Start of every batch's name; unique to this start of this gateway.
    pub batch_prefix: String,
}

/// What an earlier start left.
#[derive(Debug, Default)]
pub struct Found {
    /// Event of the oldest share that is neither settled nor a dead letter.
    pub first_open: Option<u64>,
    /// Events that are no such share.
    pub closed: Ranges,
    /// Dead letters.
    pub dead: Vec<OpenShare>,
}

/// The forwarder machine.
#[derive(Debug)]
pub struct Forwarder {
    settings: ForwarderSettings,
    journal: Writer,
    names: Names,
    window: Window,
    flights: Flights,
    gate: Gate,
    dead: DeadLetters,
    marks: Marks,
    keep: Keep,
    /// For refused shares.
    quota: Quota,
    /// For connections that come and go.
    visits: Quota,
    space: Space,
    reading: Reading,
    /// Events with the newest verdicts, by template.
    verdicts: VecDeque<(TemplateId, u64)>,
    next_batch: u64,
    /// The counters.
    pub counters: Counters<{ counter::CELLS }>,
}

impl Forwarder {
    /// A forwarder that goes on where the last start ended.
    pub fn new(settings: ForwarderSettings, journal: Writer, found: Found, now: Now) -> Forwarder {
        let until = journal.next_event_id();
        let Found { first_open, closed, dead } = found;
        let backlog = first_open.map(|next| Backlog { next, until, closed });
        let mut forwarder = Forwarder {
            names: Names::default(),
            window: Window::new(settings.queue_size, backlog),
            flights: Flights::default(),
            gate: Gate::default(),
            dead: DeadLetters::new(dead),
            marks: Marks::new(settings.shards),
            keep: Keep::new(settings.retention_days),
            quota: Quota::new(now.mono, REFUSALS_BYTES_MAX, REFUSALS_BYTES_PER_SECOND),
            visits: Quota::new(now.mono, VISITS_BYTES_MAX, VISITS_BYTES_PER_SECOND),
            space: Space::default(),
            reading: Reading::default(),
            verdicts: VecDeque::new(),
            next_batch: 1,
            counters: Counters::default(),
            journal,
            settings,
        };
        forwarder.end_of_intake(now);
        forwarder
    }

    /// Whether another entry may be taken from a ring in this turn.
    pub fn has_room(&self) -> bool {
        self.journal.has_room()
    }

    /// Whether rings are looked at in this turn at all.
    pub fn lets_take(&mut self, now: Now) -> bool {
        self.space.lets_take(now.mono)
    }

    /// So many bytes are free where the journal is.
    pub fn on_free_space(&mut self, bytes: u64) {
        self.space.on_free(bytes);
    }

    /// An entry of a shard, in order. A share of a channel that was never named is a defect of
    /// ours: names go ahead on the same ring.
    pub fn on_entry(&mut self, now: Now, shard: usize, entry: Entry) {
        match entry {
            Entry::Opened { .. } => self.on_opened(entry),
            Entry::Closed(closed) => self.on_closed(&closed),
            Entry::Share(record) => self.on_share(now, shard, &record),
            Entry::ShareOfNewWorker { record, worker_id } => {
                self.names.add_worker(record.channel, worker_id);
                self.on_share(now, shard, &record);
            }
            Entry::Acknowledged { channel, through, count, work } => {
                let (epoch, shard) = (self.settings.epoch, shard_number(shard));
                let channel_key = channel.0;
                let record =
                    Record::Acknowledged { epoch, shard, channel_key, through, count, work };
                self.journal.append(now.unix, &record);
            }
        }
        self.counters.set(counter::NAMES, self.names.len() as u64);
    }

    fn on_opened(&mut self, entry: Entry) {
        let Entry::Opened {
            channel,
            connection,
            channel_id,
            miner_id,
            extranonce_prefix,
            peer,
            kind,
            nominal_hash_rate,
            difficulty,
            device,
            opened_at,
        } = entry
        else {
            return;
        };
        let body = ChannelOpened {
            connection_id: connection_id(connection),
            channel_id,
            miner_id: &miner_id,
            peer: peer.to_string(),
            nominal_hash_rate,
            difficulty: difficulty.as_f64(),
            ..ChannelOpened::on(&device, kind)
        };
        let opened_event = self.journal.append(opened_at, &record("channel_opened", &body));
        let workers = Vec::new();
        let name =
            Name { connection, channel_id, miner_id, extranonce_prefix, opened_event, workers };
        self.names.insert(channel, name);
    }

    fn on_closed(&mut self, closed: &ClosedChannel) {
        let Some(name) = self.names.remove(closed.channel) else { return };
        let body = ChannelClosed {
            connection_id: connection_id(name.connection),
            channel_id: name.channel_id,
            miner_id: &name.miner_id,
            reason_code: closed.reason_code,
            opened_event: name.opened_event,
        };
        self.journal.append(closed.at, &record("channel_closed", &body));
    }

    fn on_share(&mut self, now: Now, shard: usize, record: &ShareRecord) {
        let verdict = self.verdicts.iter().rev().find(|(id, _)| *id == record.template_id);
        let verdict_event = verdict.map_or(0, |(_, event)| *event);
        let origin =
            Origin { epoch: self.settings.epoch, shard: shard_number(shard), verdict_event };
        let Some(share) = self.names.share(record, origin) else { panic_unnamed(record) };
        let record_of_it = Record::Accepted(share);
        let event = self.journal.append(record.accepted_at, &record_of_it);
        self.marks.on_appended(shard, record.sequence);
        self.counters.add(counter::SHARES, 1);
        let Record::Accepted(share) = record_of_it else { return };
        self.window.push(now.mono, OpenShare { event, share }, self.flights.shares());
    }

    /// A report of a shard. It may find no room, and is counted then.
    pub fn on_report(&mut self, now: Now, report: Report) {
        match (report, self.journal.has_room()) {
            (Report::Refused(refused), true) => self.on_refused(now, refused),
            (Report::Refused(refused), false) => {
                self.quota.leave_out(now.mono, refused.reason.code(), u64::from(refused.count));
            }
            (report, true) if self.visits.take(now.mono, VISIT_BYTES) => {
                if let Some((at, record)) = of_report(&report) {
                    self.journal.append(at, &record);
                }
            }
            _ => self.counters.add(counter::EVENTS_LOST, 1),
        }
    }

    fn on_refused(&mut self, now: Now, refused: Refused) {
        let miner_id = refused.miner_id.unwrap_or_default();
        let hash = refused.share_hash.unwrap_or_default();
        let refusal = Refusal {
            share_id: share_id(refused.at, &hash),
            share_hash: refused.share_hash,
            count: refused.count,
            at: refused.at,
            connection_id: refused.connection.0,
            channel_id: refused.channel_id,
            sequence_number: refused.sequence_number,
            job_id: refused.job_id,
            reason_code: refused.reason.code().into(),
            miner_id,
        };
        let bytes = quota::bytes_of(&refusal);
        if self.quota.take(now.mono, bytes) {
            self.journal.append(refused.at, &Record::Refused(refusal));
        } else {
            self.quota.leave_out(now.mono, refused.reason.code(), u64::from(refused.count));
        }
    }

    /// An event of control.
    pub fn on_told(&mut self, told: Told) {
        if !self.journal.has_room() {
            self.counters.add(counter::EVENTS_LOST, 1);
            return;
        }
        let record = Record::Told { kind: told.kind.into(), body: told.body.into() };
        let event = self.journal.append(told.at, &record);
        if let Some(template_id) = told.verdict_on {
            if self.verdicts.len() == VERDICTS_REMEMBERED {
                self.verdicts.pop_front();
            }
            self.verdicts.push_back((template_id, event));
        }
    }

    /// Everything of this turn has been taken from the rings.
    pub fn end_of_intake(&mut self, now: Now) {
        if let Some(counts) = self.quota.take_unrecorded(now.mono) {
            self.journal.append(now.unix, &Record::Unrecorded { counts });
        }
        if self.keep.is_time(now.mono) {
            self.look_after_segments(now);
        }
        self.read_back(now.mono);
        self.marks.on_turn(self.journal.next_event_id());
    }

    fn look_after_segments(&mut self, now: Now) {
        let low = self.low();
        if self.keep.is_due(now.mono, self.journal.next_event_id(), low) {
            let (Low { settled_below, oldest_dead }, epoch) = (low, self.settings.epoch);
            let checkpoint = Record::Checkpoint { settled_below, oldest_dead, epoch };
            self.journal.append(now.unix, &checkpoint);
        }
        let oldest = self.journal.sealed().next().copied();
        if let Some(oldest) = oldest.filter(|segment| self.keep.may_go(now.unix, segment)) {
            self.journal.remove(oldest.segment);
        }
    }

    /// Have shares read back from the journal, if there is room for them.
    fn read_back(&mut self, now: Mono) {
        if self.reading.is_paused(now) {
            return;
        }
        let durable = self.journal.durable_event_id();
        let Some(event) = self.window.wants(durable, self.flights.shares()) else { return };
        if !self.reading.is_at(event) {
            let Some(from) = self.locate(event) else { return };
            let sealed = self.sealed_bytes();
            let extent = Extent { sealed: &sealed, open: self.journal.open_segment(), durable };
            self.reading.begin(event, from, extent);
        }
        if let Some((from, length)) = self.reading.wish() {
            self.journal.read(from, length);
        }
    }

    /// Complete segments and their bytes.
    fn sealed_bytes(&self) -> Vec<(u64, u64)> {
        self.journal.sealed().map(|sealed| (sealed.segment, sealed.bytes)).collect()
    }

    /// The start of the segment that holds this event.
    fn locate(&self, event: u64) -> Option<Position> {
        let mut sealed = self.journal.sealed();
        let holding = sealed.find(|segment| event < segment.next_event_id);
        let segment = holding.map(|segment| segment.segment).or(self.journal.open_segment())?;
        Some(Position { segment, offset: 0 })
    }

    /// Where a start would have to begin.
    fn low(&self) -> Low {
        let open = [self.window.oldest(), self.flights.oldest()].into_iter().flatten().min();
        Low {
            settled_below: open.unwrap_or(self.journal.next_event_id()),
            oldest_dead: self.dead.oldest(),
        }
    }

    /// What the disk is to do next. One thing at a time: [`Forwarder::on_disk`] comes in between.
    pub fn next_disk(&mut self, now: Now) -> Option<DiskAction> {
        self.journal.next_action(now.mono)
    }

    /// The disk has done what it was told, or not.
    pub fn on_disk(&mut self, now: Now, done: DiskDone) {
        self.journal.on_done(now.mono, done);
        match self.journal.take_read() {
            None => (),
            Some((_, Ok(bytes))) => self.on_read_back(now, &bytes),
            Some((_, Err(_))) => self.reading.on_failed(now.mono),
        }
        let durable = self.journal.durable_event_id();
        self.marks.on_durable(durable);
        self.keep.on_durable(durable);
    }

    fn on_read_back(&mut self, now: Now, bytes: &[u8]) {
        let durable = self.journal.durable_event_id();
        let others = self.flights.shares();
        let sealed = self.sealed_bytes();
        let open = Some(self.journal.newest_segment());
        let extent = Extent { sealed: &sealed, open, durable };
        let window = &mut self.window;
        let walked = self.reading.on_bytes(bytes, extent, |located| {
            if located.event_id >= durable {
                return false;
            }
            let (event, events) = (located.event_id, located.record.events());
            let share = match located.record {
                Record::Accepted(share) => Some(OpenShare { event, share }),
                _ => None,
            };
            window.on_read(now.mono, event, events, share, others)
        });
        self.counters.add(counter::DAMAGES, walked.damages);
        if walked.is_stuck {
            // What is known to be written is not there: say so, and go on behind it.
            self.counters.add(counter::DAMAGES, 1);
            self.window.skip_to(durable);
        }
    }

    /// The last share of `shard` that is safe; 0 before the first.
    pub fn durable(&self, shard: usize) -> u64 {
        self.marks.durable(shard)
    }

    /// Every event below this one is on disk, and may be shown.
    pub fn head(&self) -> u64 {
        self.journal.durable_event_id()
    }

    /// The next batch to post now, if one is due and may go.
    pub fn next_post(&mut self, now: Now) -> Option<Arc<Batch>> {
        let sending = self.flights.sending();
        let is_held = !self.gate.lets_out(now.mono, sending) || !self.journal.has_room();
        if is_held || sending >= self.settings.max_in_flight {
            return None;
        }
        let durable = self.journal.durable_event_id();
        let has_room = self.flights.has_room(self.settings.max_in_flight);
        let block = if has_room { self.window.take_block(durable) } else { None };
        if let Some(block) = block {
            return Some(self.start(vec![block]));
        }
        if let Some(batch) = self.flights.take_due(now.mono) {
            return Some(batch);
        }
        if !has_room {
            return None;
        }
        if let Some(half) = self.flights.take_half() {
            return Some(self.start(half));
        }
        let interval = self.settings.batch_interval_ms;
        let shares = self.window.take(now.mono, durable, interval, BATCH_SHARES_MAX)?;
        Some(self.start(shares))
    }

    fn start(&mut self, shares: Vec<OpenShare>) -> Arc<Batch> {
        let number = self.next_batch;
        self.next_batch += 1;
        let id = Arc::from(format!("{}{number:012x}", self.settings.batch_prefix));
        let batch = Arc::new(Batch { number, id, shares });
        self.flights.start(Arc::clone(&batch));
        batch
    }

    /// When there may be something to do without a bell.
    pub fn deadline(&self) -> Option<Mono> {
        let durable = self.journal.durable_event_id();
        let is_full = !self.flights.has_room(self.settings.max_in_flight);
        let queued = self.window.deadline(durable, self.settings.batch_interval_ms);
        let posts = [self.flights.deadline(), queued.filter(|_| !is_full)];
        let post = posts.into_iter().flatten().min();
        // Behind a closed gate nothing goes out before the gate's own time.
        let post = match self.gate.deadline() {
            Some(_) if self.flights.sending() > 0 => None,
            Some(opens) => post.map(|post| post.max(opens)),
            None => post.filter(|_| self.flights.sending() < self.settings.max_in_flight),
        };
        // Nor without room for its result, which the disk has to make first.
        let post = post.filter(|_| self.journal.has_room());
        let others = [self.journal.deadline(), self.space.deadline(), self.quota.deadline()];
        [post, Some(self.keep.deadline()), self.reading.deadline()]
            .into_iter()
            .chain(others)
            .flatten()
            .min()
    }

    /// Shares that are not settled and are no dead letters, as far as they are in memory, and
    /// events behind which there may be more.
    pub fn unsettled(&self) -> usize {
        let backlog = usize::try_from(self.window.backlog_events()).unwrap_or(usize::MAX);
        (self.window.len() + self.flights.shares()).saturating_add(backlog)
    }

    /// Whether everything that was appended is on disk.
    pub fn is_synced(&self) -> bool {
        self.journal.is_idle()
    }

    /// Nothing more will come from the rings: tell the sums that wait for their time.
    pub fn end_of_all_intake(&mut self, now: Now) {
        if let Some(counts) = self.quota.take_all() {
            self.journal.append(now.unix, &Record::Unrecorded { counts });
        }
    }

    /// Nothing more will be appended: the last segment is completed.
    pub fn close(&mut self) {
        self.journal.close();
    }

    /// What keeps the journal from being written, if anything does.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        self.journal.fault()
    }

    /// Bring the gauges up to date.
    pub fn observe(&mut self, now: Now) {
        let oldest = self.window.oldest_at().map_or(0, |at| now.mono.micros_since(at) / 1_000);
        let cause = match self.gate.cause() {
            None => 0,
            Some(Cause::Failures) => 1,
            Some(Cause::Answer(_)) => 2,
        };
        let level = match self.space.level() {
            Level::Free => 0,
            Level::Slow => 1,
            Level::Full => 2,
        };
        for (cell, number) in [
            (counter::QUEUE, self.unsettled() as u64),
            (counter::IN_FLIGHT, self.flights.len() as u64),
            (counter::OLDEST_MILLIS, oldest),
            (counter::DEAD_LETTERS, self.dead.len() as u64),
            (counter::HELD, cause),
            (counter::SPACE_LEVEL, level),
            (counter::FREE_BYTES, self.space.free()),
            (counter::HEAD, self.head()),
            (counter::UNSYNCED_BYTES, self.journal.unsynced_bytes() as u64),
            (counter::DISK_FAULT, u64::from(self.journal.fault().is_some())),
            (counter::DISK_FAULTS, self.journal.counts().faults),
        ] {
            self.counters.set(cell, number);
        }
    }
}

fn shard_number(shard: usize) -> u8 {
    u8::try_from(shard).unwrap_or(u8::MAX)
}

/// Names travel ahead of shares on the same ring, so this cannot happen; if it does, going on
/// would credit somebody else.
#[allow(clippy::panic)]
fn panic_unnamed(record: &ShareRecord) -> ! {
    panic!("share {} of channel {:?} came before its name", record.sequence, record.channel)
}
