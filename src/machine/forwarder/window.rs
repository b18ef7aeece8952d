//! Open shares in memory, and the rest of them in the journal.
//!
//! At most `share_forward_queue_size` shares are held here. When the backend is slower than the
//! miners, later ones are left in the journal only, and read back in order when there is room.
//! Blocks are an exception: they have a place of their own and go ahead of all.

use std::collections::VecDeque;

use journal::ranges::Ranges;
use work::Mono;

use super::flights::OpenShare;
use crate::limits::BLOCKS_AHEAD_MAX;

/// Where shares that are in the journal only begin and end.
#[derive(Debug)]
pub struct Backlog {
    /// No open share below this event is missing here.
    pub next: u64,
    /// No open share from this event on is missing here.
    pub until: u64,
    /// Events that are no open shares: results from before this start, and dead letters.
    pub closed: Ranges,
}

#[derive(Debug)]
struct Queued {
    at: Mono,
    open: OpenShare,
}

/// Shares that are in no batch, in the order they came.
#[derive(Debug)]
pub struct Window {
    queue: VecDeque<Queued>,
    size: usize,
    /// Blocks, which wait for nobody; at most [`BLOCKS_AHEAD_MAX`].
    blocks: VecDeque<OpenShare>,
    backlog: Option<Backlog>,
}

impl Window {
    /// Room for `size` shares, and what an earlier start left open.
    pub fn new(size: usize, backlog: Option<Backlog>) -> Window {
        Window { queue: VecDeque::new(), size, blocks: VecDeque::new(), backlog }
    }

    /// Shares that are here.
    pub fn len(&self) -> usize {
        self.queue.len() + self.blocks.len()
    }

    /// Events that may hold open shares which are not here.
    pub fn backlog_events(&self) -> u64 {
        self.backlog.as_ref().map_or(0, |backlog| backlog.until - backlog.next)
    }

    /// A share was appended to the journal; `others` open shares are in batches.
    pub fn push(&mut self, now: Mono, open: OpenShare, others: usize) {
        if open.share.block_found && self.blocks.len() < BLOCKS_AHEAD_MAX {
            if let Some(backlog) = &mut self.backlog {
                // It is here already when the journal is read back.
                backlog.until = open.event + 1;
                backlog.closed.insert(open.event);
            }
            self.blocks.push_back(open);
        } else if let Some(backlog) = &mut self.backlog {
            backlog.until = open.event + 1;
        } else if self.queue.len() + others < self.size {
            self.queue.push_back(Queued { at: now, open });
        } else {
            let (next, until) = (open.event, open.event + 1);
            self.backlog = Some(Backlog { next, until, closed: Ranges::default() });
        }
    }

    /// The event from which on shares are to be read back now, if there is room for many of them.
    pub fn wants(&self, durable: u64, others: usize) -> Option<u64> {
        let backlog = self.backlog.as_ref()?;
        let has_room = self.queue.len() + others <= self.size / 2;
        (has_room && backlog.next < durable).then_some(backlog.next)
    }

    /// A record that was read back: its event, how many events it has, and its share if it is one.
    /// `false` if there is no room for it: it has to be read again.
    pub fn on_read(
        &mut self,
        now: Mono,
        event: u64,
        events: u64,
        share: Option<OpenShare>,
        others: usize,
    ) -> bool {
        let Some(backlog) = &mut self.backlog else { return false };
        if event < backlog.next {
            return true;
        }
        if self.queue.len() + others >= self.size {
            return false;
        }
        backlog.next = event + events;
        let is_open = share.filter(|_| event < backlog.until && !backlog.closed.contains(event));
        let is_over = backlog.next >= backlog.until;
        if let Some(open) = is_open {
            self.queue.push_back(Queued { at: now, open });
        }
        if is_over {
            self.backlog = None;
        }
        true
    }

    /// Nothing can be read below this event.
    pub fn skip_to(&mut self, event: u64) {
        if let Some(backlog) = &mut self.backlog {
            backlog.next = backlog.next.max(event);
            if backlog.next >= backlog.until {
                self.backlog = None;
            }
        }
    }

    /// A block that is on disk, to go alone and at once.
    pub fn take_block(&mut self, durable: u64) -> Option<OpenShare> {
        self.blocks.pop_front_if(|open| open.event < durable)
    }

    /// Shares on disk that have waited long enough for company, or have it: at most `most`.
    pub fn take(
        &mut self,
        now: Mono,
        durable: u64,
        interval_ms: u64,
        most: usize,
    ) -> Option<Vec<OpenShare>> {
        let first = self.queue.front()?;
        let is_old = now >= first.at.plus_millis(interval_ms);
        let count = self.queue.partition_point(|queued| queued.open.event < durable);
        let count = count.min(if interval_ms == 0 { 1 } else { most });
        if count == 0 || (!is_old && count < most) {
            return None;
        }
        Some(self.queue.drain(..count).map(|queued| queued.open).collect())
    }

    /// When the oldest share on disk has waited long enough.
    pub fn deadline(&self, durable: u64, interval_ms: u64) -> Option<Mono> {
        let first = self.queue.front().filter(|queued| queued.open.event < durable)?;
        Some(first.at.plus_millis(interval_ms))
    }

    /// Event of the oldest share that is not in a batch.
    pub fn oldest(&self) -> Option<u64> {
        let queued = self.queue.front().map(|queued| queued.open.event);
        let block = self.blocks.front().map(|open| open.event);
        let backlog = self.backlog.as_ref().map(|backlog| backlog.next);
        [queued, block, backlog].into_iter().flatten().min()
    }

    /// When the oldest of the queue came.
    pub fn oldest_at(&self) -> Option<Mono> {
        self.queue.front().map(|queued| queued.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::forwarder::flights::tests::open;

    const NOW: Mono = Mono(1_000_000);

    fn events(shares: Option<Vec<OpenShare>>) -> Vec<u64> {
        shares.unwrap_or_default().iter().map(|open| open.event).collect()
    }

    #[test]
    fn shares_wait_for_the_disk_and_for_company() {
        let mut window = Window::new(10, None);
        (1..=3).for_each(|event| window.push(NOW, open(event, false), 0));
        assert_eq!(window.take(NOW, 10, 100, 512), None, "they wait for company");
        let later = window.deadline(2, 100).unwrap();
        assert_eq!(later, NOW.plus_millis(100));
        assert_eq!(window.deadline(1, 100), None, "none is on disk");
        assert_eq!(events(window.take(later, 3, 100, 512)), [1, 2], "the third is not on disk");
        assert_eq!(events(window.take(NOW, 10, 100, 1)), [3], "there is company enough");
    }

    #[test]
    fn what_does_not_fit_is_read_back_once_and_in_order() {
        let mut window = Window::new(4, None);
        (1..=9).for_each(|event| window.push(NOW, open(event, false), 0));
        assert_eq!((window.len(), window.backlog_events(), window.oldest()), (4, 5, Some(1)));
        assert_eq!(window.wants(10, 0), None, "no room");
        assert_eq!(events(window.take(NOW.plus_millis(9), 10, 5, 4)), [1, 2, 3, 4]);
        assert_eq!(window.oldest(), Some(5));
        assert_eq!(window.wants(5, 0), None, "not on disk");
        assert_eq!(window.wants(6, 0), Some(5));
        // The reader begins before, and meets records that are no shares.
        assert!(window.on_read(NOW, 4, 1, Some(open(4, false)), 0));
        assert!(window.on_read(NOW, 5, 1, Some(open(5, false)), 0));
        assert!(window.on_read(NOW, 6, 0, None, 0));
        window.push(NOW, open(10, true), 0);
        assert_eq!(window.take_block(10), None, "not on disk");
        assert_eq!(window.take_block(11).map(|open| open.event), Some(10), "ahead of all");
        for event in 6..=8 {
            assert!(window.on_read(NOW, event, 1, Some(open(event, false)), 0));
        }
        assert!(!window.on_read(NOW, 9, 1, Some(open(9, false)), 0), "no room");
        assert_eq!(events(window.take(NOW.plus_millis(9), 11, 5, 9)), [5, 6, 7, 8]);
        assert!(window.on_read(NOW, 9, 1, Some(open(9, false)), 0));
        assert!(window.on_read(NOW, 10, 1, Some(open(10, true)), 0));
        assert_eq!((window.backlog_events(), window.wants(99, 0)), (0, None));
        assert_eq!(events(window.take(NOW.plus_millis(9), 11, 5, 9)), [9], "the block went before");
    }

    #[test]
    fn what_an_earlier_start_settled_is_passed_over() {
        let mut closed = Ranges::new();
        closed.insert_range(3..5);
        let mut window = Window::new(4, Some(Backlog { next: 2, until: 7, closed }));
        assert_eq!(window.wants(7, 0), Some(2));
        for event in 2..=6 {
            assert!(window.on_read(NOW, event, 1, Some(open(event, false)), 0));
        }
        assert_eq!(events(window.take(NOW.plus_millis(9), 7, 5, 9)), [2, 5, 6]);
        assert_eq!(window.oldest(), None);
        let mut window = Window::new(4, Some(Backlog { next: 2, until: 7, closed: Ranges::new() }));
        window.skip_to(7);
        assert_eq!((window.oldest(), window.wants(9, 0)), (None, None));
    }
}
