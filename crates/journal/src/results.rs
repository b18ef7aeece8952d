//! What became of each share, for a reader that goes through the shares in the order of their
//! acceptance: its result stands further on in the log, a moment or days later.
//!
//! A second cursor reads ahead until it meets the result that is asked for, and keeps the results
//! of later shares that it passed on the way. Results come nearly in the order of the shares, so
//! these are few: as many as are in flight, whether the backend answered at once or was away for a
//! million shares.
//!
//! A share without a result (open, or a dead letter), or with one that came days later (a dead
//! letter that was replayed), would have the cursor read on to the end of the log and keep all
//! results on the way. After [`FOUND_MAX`] of them it stops; from there one pass over the rest of
//! the log picks out the results that come late, the [`LATE_MAX`] of the earliest shares. So what
//! is kept never exceeds these two bounds, the log is read three times in all, and once more for
//! each [`LATE_MAX`] results that came late.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use work::UnixTime;

use crate::folder::{Cursor, Folder, FolderError};
use crate::record::{Outcome, Record};
use crate::segment::Position;
use crate::walk::Located;

/// Results that are kept of shares further on; about 75 bytes each.
pub(crate) const FOUND_MAX: usize = 1 << 17;

/// Late results that are kept; about 75 bytes each.
pub(crate) const LATE_MAX: usize = 1 << 17;

/// Different texts of backends that are kept; others are read again where they stand.
const DETAILS_MAX: usize = 1 << 10;

/// Bytes of such a text; longer ones are read again where they stand.
const DETAIL_BYTES_MAX: usize = 512;

/// What became of a share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fate {
    /// `None` for a dead letter that waits for an operator.
    pub outcome: Option<Outcome>,
    /// HTTP status; 0 without an answer.
    pub status: u16,
    /// Attempts that it took; 0 for a dead letter.
    pub attempts: u32,
    /// When this was recorded.
    pub at: UnixTime,
    /// The reason; empty if there is none.
    pub detail: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A dead letter that an operator had posted again.
    Replayed,
    DeadLetter,
    Settled(Outcome),
}

/// A fate as it is kept.
#[derive(Clone, Copy)]
struct Kept {
    at: UnixTime,
    attempts: u32,
    status: u16,
    state: State,
    detail: Detail,
}

/// Where a text is.
#[derive(Clone, Copy)]
enum Detail {
    /// In [`Details`], at this place.
    Kept(u16),
    /// In the record at this position, the result with this number.
    Written { segment: u64, offset: u32, result: u16 },
}

/// Texts of backends, each kept once.
struct Details {
    texts: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u16>,
}

impl Details {
    fn new() -> Details {
        let mut details = Details { texts: Vec::new(), places: HashMap::new() };
        details.add(&Arc::from(""));
        details
    }

    fn add(&mut self, text: &Arc<str>) -> Option<u16> {
        if let Some(place) = self.places.get(text) {
            return Some(*place);
        }
        if self.texts.len() >= DETAILS_MAX || text.len() > DETAIL_BYTES_MAX {
            return None;
        }
        let place = u16::try_from(self.texts.len()).ok()?;
        self.texts.push(Arc::clone(text));
        self.places.insert(Arc::clone(text), place);
        Some(place)
    }

    fn place(&mut self, text: &Arc<str>, position: Position, result: usize) -> Detail {
        match self.add(text) {
            Some(place) => Detail::Kept(place),
            None => Detail::Written {
                segment: position.segment,
                offset: u32::try_from(position.offset).unwrap_or(u32::MAX),
                result: u16::try_from(result).unwrap_or(u16::MAX),
            },
        }
    }
}

/// How much an export keeps, at about 75 bytes each; at least 2 and 1.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Results of shares further on.
    pub found: usize,
    /// Results that came late.
    pub late: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { found: FOUND_MAX, late: LATE_MAX }
    }
}

/// Results, asked for in the order of the shares.
pub(crate) struct Results {
    folder: Folder,
    ahead: Cursor,
    below: u64,
    bounds: Bounds,
    /// The cursor has met the end.
    is_at_end: bool,
    found: BTreeMap<u64, Kept>,
    /// The latest share that any result was about.
    highest: u64,
    late: Option<Late>,
    details: Details,
}

/// What one pass over the rest of the log found.
struct Late {
    fates: BTreeMap<u64, Kept>,
    /// Everything about shares before this one is here.
    complete_below: u64,
}

impl Results {
    /// `ahead` stands at the first share that will be asked for, or before it; records from event
    /// `below` on are not looked at.
    pub fn new(folder: Folder, ahead: Cursor, below: u64, bounds: Bounds) -> Results {
        Results {
            folder,
            ahead,
            below,
            bounds,
            is_at_end: false,
            found: BTreeMap::new(),
            highest: 0,
            late: None,
            details: Details::new(),
        }
    }

    /// What became of the share that event `share_event` accepted; `None` if it is open.
    ///
    /// Shares are asked for in rising order; those between are passed over.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn of(&mut self, share_event: u64) -> Result<Option<Fate>, FolderError> {
        forget_before(&mut self.found, share_event);
        while !self.is_settled(share_event)
            && !self.is_at_end
            && self.found.len() < self.bounds.found
        {
            self.read_ahead(share_event)?;
        }
        let mut kept = self.found.remove(&share_event);
        let is_settled = matches!(kept, Some(Kept { state: State::Settled(_), .. }));
        if !is_settled && !self.is_at_end {
            kept = self.late(share_event)?.or(kept);
        }
        match kept {
            Some(kept) if kept.state != State::Replayed => self.fate(kept).map(Some),
            _ => Ok(None),
        }
    }

    fn is_settled(&self, share_event: u64) -> bool {
        self.found.get(&share_event).is_some_and(|kept| matches!(kept.state, State::Settled(_)))
    }

    fn read_ahead(&mut self, from: u64) -> Result<(), FolderError> {
        let Some(located) = self.ahead.next(self.below)? else {
            self.is_at_end = true;
            return Ok(());
        };
        let (found, highest) = (&mut self.found, &mut self.highest);
        each(&located, &mut self.details, |share_event, kept| {
            *highest = share_event.max(*highest);
            if share_event >= from {
                found.insert(share_event, kept);
            }
        });
        Ok(())
    }

    /// The late fate of a share.
    fn late(&mut self, share_event: u64) -> Result<Option<Kept>, FolderError> {
        let is_complete = |late: &Late| share_event < late.complete_below;
        if !self.late.as_ref().is_some_and(is_complete) {
            self.late = Some(self.pick_late(share_event)?);
        }
        Ok(self.late.as_mut().and_then(|late| {
            forget_before(&mut late.fates, share_event);
            late.fates.remove(&share_event)
        }))
    }

    /// Reads on to the end of the log and keeps what is said about shares from `from` on that the
    /// cursor ahead would be too full to reach.
    ///
    /// It gives up on a share only when it keeps `found` fates of later shares (and perhaps one of
    /// this share itself). Event numbers of shares differ, so where these stand some share is
    /// later than the one in question by more than that: what is said nearer need not be kept.
    fn pick_late(&mut self, from: u64) -> Result<Late, FolderError> {
        let mut rest = self.ahead.fork()?;
        let distance = (self.bounds.found as u64).saturating_sub(1);
        let mut highest = self.highest;
        let mut late = Late { fates: BTreeMap::new(), complete_below: u64::MAX };
        while let Some(located) = rest.next(self.below)? {
            each(&located, &mut self.details, |share_event, kept| {
                let is_late = highest.saturating_sub(share_event) >= distance;
                if is_late && share_event >= from && share_event < late.complete_below {
                    late.fates.insert(share_event, kept);
                }
                highest = share_event.max(highest);
            });
            while late.fates.len() > self.bounds.late
                && let Some((dropped, _)) = late.fates.pop_last()
            {
                late.complete_below = dropped;
            }
        }
        Ok(late)
    }

    fn fate(&self, kept: Kept) -> Result<Fate, FolderError> {
        let outcome = match kept.state {
            State::Settled(outcome) => Some(outcome),
            State::DeadLetter | State::Replayed => None,
        };
        let detail = match kept.detail {
            Detail::Kept(place) => self.details.texts.get(usize::from(place)).cloned(),
            Detail::Written { segment, offset, result } => {
                let position = Position { segment, offset: u64::from(offset) };
                let located = Cursor::at_position(&self.folder, position)?.next(self.below)?;
                located.and_then(|located| detail(&located.record, usize::from(result)))
            }
        };
        Ok(Fate {
            outcome,
            status: kept.status,
            attempts: kept.attempts,
            at: kept.at,
            detail: detail.unwrap_or_else(|| Arc::from("")),
        })
    }
}

fn forget_before(fates: &mut BTreeMap<u64, Kept>, share_event: u64) {
    while let Some(first) = fates.first_entry()
        && *first.key() < share_event
    {
        first.remove();
    }
}

/// The text of result `result` of a record.
fn detail(record: &Record, result: usize) -> Option<Arc<str>> {
    match record {
        Record::Settled(settled) => {
            settled.results.get(result).map(|result| Arc::clone(&result.error_detail))
        }
        Record::DeadLettered { error_detail, .. } => Some(Arc::clone(error_detail)),
        _ => None,
    }
}

/// Everything that a record says about shares, each with the event of its acceptance.
fn each(located: &Located, details: &mut Details, mut take: impl FnMut(u64, Kept)) {
    let at = located.at;
    match &located.record {
        Record::Settled(settled) => {
            let (attempts, status) = (settled.attempts, settled.status);
            for (number, result) in settled.results.iter().enumerate() {
                let detail = details.place(&result.error_detail, located.position, number);
                let state = State::Settled(result.outcome);
                take(result.share_event, Kept { at, attempts, status, state, detail });
            }
        }
        Record::DeadLettered { status, error_detail, shares, .. } => {
            let detail = details.place(error_detail, located.position, 0);
            let kept = Kept { at, attempts: 0, status: *status, state: State::DeadLetter, detail };
            shares.iter().for_each(|share| take(*share, kept));
        }
        Record::Replayed { shares } => {
            let detail = Detail::Kept(0);
            let kept = Kept { at, attempts: 0, status: 0, state: State::Replayed, detail };
            shares.iter().for_each(|share| take(*share, kept));
        }
        _ => {}
    }
}
