//! Which shares of each shard are safe: the durable numbers (D3).

use std::collections::VecDeque;

/// After a turn: events below `event` are about all shares up to `sequences`.
#[derive(Debug)]
struct Mark {
    event: u64,
    sequences: Vec<u64>,
}

/// From what is on disk to what each shard may acknowledge.
#[derive(Debug)]
pub struct Marks {
    /// The last sequence that was appended, per shard.
    appended: Vec<u64>,
    /// The last sequence that is on disk, per shard.
    durable: Vec<u64>,
    marks: VecDeque<Mark>,
    is_changed: bool,
}

impl Marks {
    /// Nothing so far.
    pub fn new(shards: usize) -> Marks {
        Marks {
            appended: vec![0; shards],
            durable: vec![0; shards],
            marks: VecDeque::new(),
            is_changed: false,
        }
    }

    /// A share of `shard` was appended.
    pub fn on_appended(&mut self, shard: usize, sequence: u64) {
        self.appended[shard] = sequence;
        self.is_changed = true;
    }

    /// A turn is over; `next_event` is the number that the next event will get.
    pub fn on_turn(&mut self, next_event: u64) {
        if std::mem::take(&mut self.is_changed) {
            self.marks.push_back(Mark { event: next_event, sequences: self.appended.clone() });
        }
    }

    /// Everything below this event is on disk.
    pub fn on_durable(&mut self, event: u64) {
        while self.marks.front().is_some_and(|mark| mark.event <= event) {
            if let Some(mark) = self.marks.pop_front() {
                self.durable = mark.sequences;
            }
        }
    }

    /// The last share of `shard` that is safe; 0 before the first.
    pub fn durable(&self, shard: usize) -> u64 {
        self.durable.get(shard).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_disk_is_safe() {
        let mut marks = Marks::new(2);
        marks.on_appended(0, 1);
        marks.on_turn(10);
        marks.on_appended(1, 1);
        marks.on_appended(0, 2);
        marks.on_turn(12);
        marks.on_turn(12);
        assert_eq!((marks.durable(0), marks.durable(1)), (0, 0));
        marks.on_durable(11);
        assert_eq!((marks.durable(0), marks.durable(1)), (1, 0));
        marks.on_durable(12);
        assert_eq!((marks.durable(0), marks.durable(1)), (2, 1));
    }
}
