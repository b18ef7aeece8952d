//! Open shares back from the journal, when the window has room for them again.

use journal::segment::Position;
use journal::walk::{Located, Step, Walker};
use journal::writer::RETRY_MILLIS;
use work::Mono;

use crate::limits::READ_BACK_BYTES;

/// What came of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// Places that could not be read.
    pub damages: u64,
    /// Whether nothing was found where something is known to be.
    pub is_stuck: bool,
}

/// The segments that there are, as reading needs them.
#[derive(Debug, Clone, Copy)]
pub struct Extent<'a> {
    /// Complete ones with their bytes, oldest first.
    pub sealed: &'a [(u64, u64)],
    /// The one that is written to.
    pub open: Option<u64>,
    /// Every event below this one is on disk.
    pub durable: u64,
}

impl Extent<'_> {
    /// A walker at this place, which goes no further than its segment.
    fn walker(&self, from: Position) -> Walker {
        Walker::at(from, self.bytes_of(from.segment))
    }

    /// Where a complete segment ends.
    fn bytes_of(&self, segment: u64) -> Option<u64> {
        let sealed = self.sealed.iter().find(|(number, _)| *number == segment);
        sealed.map(|(_, bytes)| *bytes)
    }

    /// The segment behind this one.
    fn after(&self, segment: u64) -> Option<u64> {
        let sealed = self.sealed.iter().map(|(segment, _)| *segment);
        sealed.chain(self.open).find(|next| *next > segment)
    }
}

/// Where reading goes on.
#[derive(Debug, Default)]
pub struct Reading {
    /// The event of the next record, and the walker before it.
    at: Option<(u64, Walker)>,
    /// Bytes that it takes at least to read on.
    least: usize,
    /// No read before this.
    pause_until: Option<Mono>,
    /// Whether the last read found nothing.
    found_nothing: bool,
}

impl Reading {
    /// Whether it knows where `event` is.
    pub fn is_at(&self, event: u64) -> bool {
        self.at.as_ref().is_some_and(|(next, _)| *next == event)
    }

    /// Begin at `from`, which is at or before `event`.
    pub fn begin(&mut self, event: u64, from: Position, extent: Extent<'_>) {
        self.at = Some((event, extent.walker(from)));
    }

    /// What is to be read: from where, and how many bytes.
    pub fn wish(&self) -> Option<(Position, usize)> {
        let (_, walker) = self.at.as_ref()?;
        let (segment, offset) = (walker.segment(), walker.offset());
        Some((Position { segment, offset }, READ_BACK_BYTES.max(self.least)))
    }

    /// The disk did not give what was asked for.
    pub fn on_failed(&mut self, now: Mono) {
        (self.at, self.pause_until) = (None, Some(now.plus_millis(RETRY_MILLIS)));
    }

    /// Whether it is too early to read again.
    pub fn is_paused(&mut self, now: Mono) -> bool {
        self.pause_until = self.pause_until.filter(|until| now < *until);
        self.pause_until.is_some()
    }

    /// When it may be read again.
    pub fn deadline(&self) -> Option<Mono> {
        self.pause_until
    }

    /// Bytes came. `take` says whether there is room for a record; the first without is read again
    /// later.
    pub fn on_bytes(
        &mut self,
        bytes: &[u8],
        extent: Extent<'_>,
        mut take: impl FnMut(Located) -> bool,
    ) -> Walked {
        let mut walked = Walked::default();
        let Some((mut event, mut walker)) = self.at.take() else { return walked };
        // It may have been completed since: what a failed sync has left behind its end is not read.
        extent.bytes_of(walker.segment()).into_iter().for_each(|bytes| walker.set_limit(bytes));
        let asked = READ_BACK_BYTES.max(std::mem::take(&mut self.least));
        let (start, is_all) = (walker.offset(), bytes.len() < asked);
        let mut found_nothing = true;
        loop {
            // Behind the last record that is on disk there is room that is not written yet. It must
            // not be looked at: it may be written a moment later.
            if walker.next_event_id().is_some_and(|next| next >= extent.durable) {
                found_nothing = false;
                break;
            }
            let before = walker.clone();
            let passed = usize::try_from(walker.offset() - start).unwrap_or(usize::MAX);
            match walker.step(bytes.get(passed..).unwrap_or_default(), is_all) {
                Step::Record(located) => {
                    let next = located.event_id + located.record.events();
                    if !take(located) {
                        (walker, found_nothing) = (before, false);
                        break;
                    }
                    // One from before the event is a step towards it, too.
                    found_nothing = false;
                    event = event.max(next);
                }
                Step::Damage(_) => walked.damages += 1,
                Step::More(least) => {
                    self.least = least;
                    let is_seeking = walker.offset() != before.offset();
                    if is_seeking && extent.after(walker.segment()).is_none() {
                        walker = before;
                    } else {
                        found_nothing = false;
                    }
                    break;
                }
                Step::End(end) => {
                    let next = extent.after(walker.segment());
                    let begin = next.map(|segment| Position { segment, offset: 0 });
                    found_nothing &= next.is_none();
                    walker = extent.walker(begin.unwrap_or(end.position));
                    before.next_event_id().into_iter().for_each(|event| walker.expect(event));
                    break;
                }
            }
        }
        walked.is_stuck = found_nothing && self.found_nothing;
        self.found_nothing = found_nothing;
        self.at = Some((event, walker));
        walked
    }
}

#[cfg(test)]
mod tests {
    use journal::Record;
    use journal::writer::{DiskAction, DiskDone, Start, Writer, WriterSettings};
    use work::UnixTime;

    use super::*;
    use crate::machine::forwarder::flights::tests::open;

    /// One segment with room ahead, as it is on a disk that never fails.
    struct Log {
        writer: Writer,
        file: Vec<u8>,
    }

    impl Log {
        fn new() -> Log {
            let start = Start {
                next_segment: 1,
                next_event_id: 1,
                epoch: 1,
                previous: Position::default(),
                settled_below: 1,
                oldest_dead: u64::MAX,
                sealed: Vec::new(),
            };
            Log { writer: Writer::new(WriterSettings::new("gw-1"), start), file: Vec::new() }
        }

        fn append(&mut self, events: u64) {
            for _ in 0..events {
                let event = self.writer.next_event_id();
                self.writer.append(UnixTime(0), &Record::Accepted(open(event, false).share));
            }
        }

        fn sync(&mut self) {
            while let Some(action) = self.writer.next_action(Mono(0)) {
                match action {
                    DiskAction::Create { header, bytes, .. } => {
                        self.file.resize(usize::try_from(bytes).unwrap(), 0);
                        self.file[..header.len()].copy_from_slice(&header);
                    }
                    DiskAction::Write { offset, bytes, .. } => {
                        let at = usize::try_from(offset).unwrap();
                        self.file[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                    DiskAction::Sync { .. } => (),
                    other => panic!("{other:?}"),
                }
                self.writer.on_done(Mono(0), DiskDone::Done);
            }
        }

        /// Read once; the events of the shares that came.
        fn read(&self, reading: &mut Reading) -> (Vec<u64>, Walked) {
            let (from, length) = reading.wish().unwrap();
            let at = usize::try_from(from.offset).unwrap();
            let bytes = &self.file[at..self.file.len().min(at + length)];
            let durable = self.writer.durable_event_id();
            let extent = Extent { sealed: &[], open: self.writer.open_segment(), durable };
            let mut events = Vec::new();
            let walked = reading.on_bytes(bytes, extent, |located| {
                if matches!(located.record, Record::Accepted(_)) {
                    events.push(located.event_id);
                }
                true
            });
            (events, walked)
        }
    }

    #[test]
    fn what_is_written_later_is_found_where_it_is_written() {
        let mut log = Log::new();
        log.append(5);
        log.sync();
        let mut reading = Reading::default();
        let extent = Extent { sealed: &[], open: Some(1), durable: 6 };
        reading.begin(1, Position { segment: 1, offset: 0 }, extent);
        assert_eq!(log.read(&mut reading), ((1..6).collect(), Walked::default()));
        // Room that is not written yet lies behind, and the reader has seen some of it.
        for round in 1..40u64 {
            let first = log.writer.next_event_id();
            log.append(round * 7);
            assert_eq!(log.read(&mut reading), (Vec::new(), Walked::default()), "not on disk");
            assert!(reading.is_at(first));
            log.sync();
            let mut found = Vec::new();
            while found.len() < usize::try_from(round * 7).unwrap() {
                let (events, walked) = log.read(&mut reading);
                assert_eq!(walked, Walked::default());
                assert!(!events.is_empty());
                found.extend(events);
            }
            assert_eq!(found, (first..log.writer.next_event_id()).collect::<Vec<_>>());
        }
    }
}
