//! The journal as its disk has it: read by the checkers whenever something was synced, and as a
//! whole at the end. What the gateway believes of it is not asked.

use std::collections::{BTreeMap, BTreeSet};

use journal::books::Books;
use journal::recover::{Recovered, recover};
use journal::segment::{Header, Position};
use journal::source::{Found, SegmentReader, Segments, header};
use journal::walk::{Located, Step, Walker};
use journal::{Outcome, Record, Settlement};

use crate::checkers::{Checker, Rule};
use crate::disk::Disk;

/// An accepted share on disk.
#[derive(Debug)]
struct Kept {
    share_id: u128,
    segment: u64,
    result: Option<Outcome>,
}

/// What is on disk.
#[derive(Default)]
pub struct JournalView {
    /// Offset behind what was read, by segment.
    walked: BTreeMap<u64, u64>,
    /// By the event of its acceptance.
    shares: BTreeMap<u64, Kept>,
    dead: BTreeSet<u64>,
    /// Shares that an operator gave up.
    discards: BTreeSet<u64>,
    /// The number behind the last event.
    pub next_event: u64,
    /// Refused shares that are told since the last start.
    refused: u64,
    /// Records that were left out by a plant.
    pub skips_result: bool,
    pub results: u64,
    pub letters: u64,
}

impl JournalView {
    pub fn new() -> JournalView {
        JournalView { next_event: 1, ..JournalView::default() }
    }

    /// Dead letters, oldest first.
    pub fn dead(&self) -> Vec<u64> {
        self.dead.iter().copied().collect()
    }

    /// An operator gives up a share.
    pub fn on_discard(&mut self, event: u64) {
        self.discards.insert(event);
    }

    /// The segment of the oldest share without a result.
    pub fn oldest_open(&self) -> Option<u64> {
        self.shares.values().find(|kept| kept.result.is_none()).map(|kept| kept.segment)
    }

    /// A process starts.
    pub fn on_start(&mut self) {
        self.refused = 0;
    }
}

impl Checker {
    /// A segment is made, or made anew.
    pub fn on_created(&mut self, disk: &Disk, segment: u64) {
        self.journal.walked.insert(segment, Header::BYTES as u64);
        self.on_synced(disk, segment);
    }

    /// Everything that was written to a segment is on disk.
    pub fn on_synced(&mut self, disk: &Disk, segment: u64) {
        let bytes = disk.written(segment);
        let from = self.journal.walked.entry(segment).or_insert(Header::BYTES as u64);
        let mut walker = Walker::at(Position { segment, offset: *from }, None);
        loop {
            let rest = bytes.get(walker.offset() as usize..).unwrap_or_default();
            match walker.step(rest, true) {
                Step::Record(located) => self.on_located(&located),
                Step::Damage(damage) => {
                    return self.fail(Rule::C17Journal, format!("on disk: {damage}"));
                }
                Step::End(end) => {
                    self.journal.walked.insert(segment, end.position.offset);
                    return;
                }
                Step::More(_) => return self.fail(Rule::C17Journal, "a record is cut".into()),
            }
        }
    }

    fn on_located(&mut self, located: &Located) {
        let (event, expected) = (located.event_id, self.journal.next_event);
        self.hold(event == expected, Rule::C17Journal, || {
            format!("{} has event {event}, expected {expected}", located.position)
        });
        self.journal.next_event = event + located.record.events();
        match &located.record {
            Record::Accepted(share) => {
                let (share_id, segment) = (share.share_id, located.position.segment);
                self.journal.shares.insert(event, Kept { share_id, segment, result: None });
                self.on_safe(share);
            }
            Record::Refused(refusal) => self.journal.refused += u64::from(refusal.count),
            Record::Unrecorded { counts } => {
                self.journal.refused += counts.iter().map(|(_, count)| count).sum::<u64>();
            }
            Record::Settled(settled) => {
                for result in &settled.results {
                    self.on_result(result);
                }
            }
            Record::DeadLettered { shares, .. } => {
                self.journal.letters += shares.len() as u64;
                self.journal.dead.extend(shares);
            }
            Record::Replayed { shares } => {
                self.journal.dead.retain(|event| !shares.contains(event));
            }
            _ => (),
        }
    }

    /// A result is on disk: the share's first, and what the backend, or an operator, said.
    fn on_result(&mut self, result: &Settlement) {
        if std::mem::take(&mut self.journal.skips_result) {
            return;
        }
        let event = result.share_event;
        self.journal.results += 1;
        self.journal.dead.remove(&event);
        let is_discarded = self.journal.discards.contains(&event);
        let kept = self.journal.shares.get_mut(&event);
        let before = kept.map(|kept| (kept.share_id, kept.result.replace(result.outcome)));
        self.hold(before == Some((result.share_id, None)), Rule::C6Settle, || {
            format!("event {event} has result {:?}, and before {before:?}", result.outcome)
        });
        let answer = self.answer_of(result.share_id);
        let is_true = match result.outcome {
            Outcome::Delivered => answer == Some(true),
            Outcome::RejectedByUpstream => answer == Some(false),
            Outcome::Duplicate => answer.is_some(),
            Outcome::DeadLettered => is_discarded,
        };
        self.hold(is_true, Rule::C6Settle, || {
            format!("event {event} has result {:?}, the backend says {answer:?}", result.outcome)
        });
    }

    /// A segment is about to be removed: everything in it has its result on disk.
    pub fn on_remove(&mut self, disk: &Disk, segment: u64) {
        // An attempt that failed may have removed it.
        let is_oldest = disk.numbers().unwrap().first().is_none_or(|first| *first >= segment);
        let open = self
            .journal
            .shares
            .iter()
            .find(|(_, kept)| kept.segment == segment && kept.result.is_none());
        let open = open.map(|(event, _)| *event);
        self.hold(is_oldest && open.is_none(), Rule::C18Retention, || {
            format!("segment {segment} goes, and event {open:?} in it has no result")
        });
    }

    /// What a start found: nothing that was on disk is missing, and nothing is damaged.
    pub fn on_recovered(&mut self, found: &Recovered) {
        let (next, expected) = (found.next_event_id, self.journal.next_event);
        self.hold(next >= expected, Rule::C17Journal, || {
            format!("a start goes on at event {next}, though {expected} ones were on disk")
        });
        let damage = found.damages.first();
        self.hold(damage.is_none(), Rule::C17Journal, || format!("a start found {damage:?}"));
    }

    /// A start has cut the last segment, and has it on disk.
    pub fn on_cut(&mut self, disk: &Disk, found: &Recovered) {
        if let Some(end) = found.end {
            self.on_synced(disk, end.segment);
        }
        let (next, found) = (self.journal.next_event, found.next_event_id);
        self.hold(next == found, Rule::C17Journal, || {
            format!("a start goes on at event {found}, the journal ends at {next}")
        });
    }

    /// What is shown to others is on disk.
    pub fn on_head(&mut self, head: u64) {
        let next = self.journal.next_event;
        self.hold(head <= next, Rule::C4Ack, || {
            format!("events below {head} are shown, on disk are those below {next}")
        });
    }

    /// At the end: what `shares verify` says, what a start would find, and that all is settled.
    pub fn check_journal(&mut self, disk: &Disk, is_idle: bool, refused: u64) {
        let shares = &self.journal.shares;
        let open = shares.iter().find(|(_, kept)| kept.result.is_none());
        let open = open.map(|(event, kept)| (*event, kept.segment));
        self.hold(open.is_none(), Rule::C6Settle, || format!("{open:?} has no result"));
        let verdict = read_all(disk);
        let fault = verdict.faults.first();
        self.hold(fault.is_none(), Rule::C17Journal, || format!("the books: {}", fault.unwrap()));
        let (next, known) = (verdict.next_event, self.journal.next_event);
        // What is being written can be read already.
        let is_same = next == known || (next > known && !is_idle);
        self.hold(is_same, Rule::C17Journal, || {
            format!("the journal ends at event {next}, on disk are those below {known}")
        });
        match recover(disk) {
            Err(error) => self.fail(Rule::C17Journal, error.to_string()),
            Ok(found) => {
                let left = (found.open, found.dead_total, found.damages_total);
                self.hold(left == (0, 0, 0), Rule::C6Settle, || {
                    format!("a start would find open, dead and damaged {left:?}")
                });
            }
        }
        let told = self.journal.refused;
        self.hold(told == refused, Rule::C19Refused, || {
            format!("{refused} shares were refused and not counted as lost, the journal has {told}")
        });
    }
}

/// The books over all segments, in order.
fn read_all(disk: &Disk) -> journal::books::Verdict {
    let mut books = Books::new();
    let numbers = disk.numbers().unwrap();
    let headers: Vec<Option<Header>> =
        numbers.iter().map(|number| header(disk, *number).unwrap()).collect();
    for (at, number) in numbers.iter().enumerate() {
        // Where the log goes on says where it ended here; it may have gone on elsewhere.
        let next = headers[at + 1..].iter().flatten().next().map(|header| header.previous);
        let limit = match next {
            None => None,
            Some(previous) if previous.segment == *number => Some(previous.offset),
            Some(previous) if previous.segment < *number => continue,
            Some(previous) => {
                books.take_damage(previous, "a segment is missing");
                None
            }
        };
        let mut reader = SegmentReader::new(disk, Walker::new(*number, limit));
        loop {
            match reader.advance().unwrap() {
                Found::Record(located) => books.take(&located),
                Found::Damage(damage) => books.take_damage(damage.position, &damage.to_string()),
                Found::End(_) => break,
            }
        }
    }
    books.finish()
}
