//! The rings between cores: bounded, one writer, one reader, with credit.
//!
//! Credit is what makes a full ring a decision instead of an accident: before a step a writer
//! asks [`Sender::credit`] how many items the ring will surely take, does at most that much work,
//! and then every [`Sender::try_send`] succeeds. Credit is capacity minus sent plus drained. The
//! reader publishes `drained` with release ordering after the pop, so credit seen by the writer
//! is a slot that is free already. Nobody else can spend it: there is one writer.
//!
//! A batch rings once: `try_send` does not ring, the writer calls [`Sender::ring_bell`] after
//! the last one. The reader empties the ring, with a limit of its own, each time it wakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use crate::bell::Bell;

/// Makes a ring of `capacity` items (at least one) whose reader sleeps on `bell`.
#[must_use]
pub fn ring<T: Send>(capacity: usize, bell: Bell) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        drained: CachePadded::new(AtomicU64::new(0)),
        high_water: CachePadded::new(AtomicU64::new(0)),
    });
    let sender = Sender { shared: Arc::clone(&shared), sent: 0, high_water: 0, bell };
    (sender, Receiver { shared, drained: 0 })
}

#[derive(Debug)]
struct Shared<T> {
    queue: ArrayQueue<T>,
    /// Items popped so far, written by the reader alone.
    drained: CachePadded<AtomicU64>,
    /// Most items that were ever in the ring at once, written by the writer alone.
    high_water: CachePadded<AtomicU64>,
}

/// The writing end. Not `Clone`: a ring has one writer, so its credit is its own.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    sent: u64,
    high_water: u64,
    bell: Bell,
}

impl<T: Send> Sender<T> {
    /// Items the ring will take for sure. Grows while the reader drains, never shrinks but by
    /// `try_send`.
    #[must_use]
    pub fn credit(&self) -> usize {
        self.capacity() - self.in_flight()
    }

    /// Puts one item into the ring and does not ring the bell.
    ///
    /// # Errors
    ///
    /// Gives the item back if there is no credit; with credit it cannot fail.
    pub fn try_send(&mut self, item: T) -> Result<(), T> {
        if self.credit() == 0 {
            return Err(item);
        }
        self.shared.queue.push(item)?;
        self.sent = self.sent.wrapping_add(1);
        let in_flight = self.in_flight() as u64;
        if in_flight > self.high_water {
            self.high_water = in_flight;
            self.shared.high_water.store(in_flight, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Wakes the reader, once for everything sent so far.
    pub fn ring_bell(&self) {
        self.bell.ring();
    }

    /// Items the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.queue.capacity()
    }

    /// Most items that were in the ring at once since it was made.
    #[must_use]
    pub fn high_water(&self) -> u64 {
        self.high_water
    }

    /// Whether the reading end is gone, so nothing sent will ever be read.
    #[must_use]
    pub fn is_reader_gone(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Sent and not yet published as drained. Never above the capacity: `try_send` checks, and
    /// the reader cannot drain what was not sent.
    fn in_flight(&self) -> usize {
        let drained = self.shared.drained.load(Ordering::Acquire);
        let in_flight = usize::try_from(self.sent.wrapping_sub(drained)).unwrap_or(usize::MAX);
        in_flight.min(self.capacity())
    }
}

/// The reading end. Not `Clone`: a ring has one reader.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    drained: u64,
}

impl<T: Send> Receiver<T> {
    /// Takes the oldest item, if there is one.
    pub fn pop(&mut self) -> Option<T> {
        let item = self.shared.queue.pop()?;
        self.drained = self.drained.wrapping_add(1);
        // After the pop: the writer that reads this number finds the slot free.
        self.shared.drained.store(self.drained, Ordering::Release);
        Some(item)
    }

    /// Items in the ring now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether there is nothing to pop now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }

    /// Items the ring holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.queue.capacity()
    }

    /// Most items that were in the ring at once since it was made, as the writer saw it.
    #[must_use]
    pub fn high_water(&self) -> u64 {
        self.shared.high_water.load(Ordering::Relaxed)
    }

    /// Whether the writing end is gone. What is in the ring can still be popped.
    #[must_use]
    pub fn is_writer_gone(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }
}

/// A number that only grows, written by one core and read by others: the highest share sequence
/// that is on disk. Clones share the number; it has a cache line of its own.
#[derive(Clone, Debug)]
pub struct Sequence {
    number: Arc<CachePadded<AtomicU64>>,
}

impl Sequence {
    /// Starts at `number`.
    #[must_use]
    pub fn new(number: u64) -> Sequence {
        Sequence { number: Arc::new(CachePadded::new(AtomicU64::new(number))) }
    }

    /// Publishes `number`; whatever the writer did before is visible to who reads it.
    pub fn publish(&self, number: u64) {
        self.number.store(number, Ordering::Release);
    }

    /// The number published last.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }
}

impl Default for Sequence {
    fn default() -> Sequence {
        Sequence::new(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_gives_the_item_back_and_takes_it_after_a_pop() {
        let (mut sender, mut receiver) = ring(2, Bell::new().unwrap());
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!((sender.credit(), sender.try_send(3)), (0, Err(3)));
        assert_eq!((receiver.len(), receiver.pop()), (2, Some(1)));
        assert_eq!((sender.credit(), sender.try_send(3)), (1, Ok(())));
        assert_eq!((receiver.pop(), receiver.pop(), receiver.pop()), (Some(2), Some(3), None));
        assert_eq!((receiver.high_water(), sender.high_water()), (2, 2));
    }

    #[test]
    fn ends_know_when_the_other_is_gone_and_what_was_sent_stays() {
        let (mut sender, mut receiver) = ring(2, Bell::new().unwrap());
        assert!(!sender.is_reader_gone() && !receiver.is_writer_gone());
        sender.try_send(7).unwrap();
        drop(sender);
        assert!(receiver.is_writer_gone());
        assert_eq!((receiver.pop(), receiver.pop()), (Some(7), None));
        let (sender, receiver) = ring::<u8>(2, Bell::new().unwrap());
        drop(receiver);
        assert!(sender.is_reader_gone());
    }

    #[test]
    fn a_batch_rings_only_when_told() {
        let bell = Bell::new().unwrap();
        let (mut sender, _receiver) = ring(8, bell.clone());
        bell.prepare_sleep();
        sender.try_send(1).unwrap();
        assert!(bell.is_asleep());
        sender.ring_bell();
        assert!(bell.wait_blocking(None));
    }

    #[test]
    fn a_sequence_is_shared_by_its_clones() {
        let sequence = Sequence::new(3);
        let reader = sequence.clone();
        assert_eq!(reader.read(), 3);
        sequence.publish(9);
        assert_eq!(reader.read(), 9);
    }
}
