//! The bell of a core: how any thread wakes it.
//!
//! A core sleeps in a read (or a poll) of one eventfd. Other threads put something where the
//! core will look, a ring or a number, and then ring. Ringing a core that is awake costs one
//! fence and one load; only a core that has said it is about to sleep is woken by a system call.
//!
//! No wake-up is lost, for this reason. The owner stores `asleep = true`, fences, and looks at
//! all its sources once more before it waits. The ringer publishes its data, fences, and loads
//! `asleep`. Both fences are sequentially consistent, so one comes first: if the owner's, the
//! ringer sees `asleep` and writes the eventfd; if the ringer's, the owner's last look sees the
//! data. The eventfd is a counter, so a write that comes before the wait ends the wait at once.

#![allow(unsafe_code)] // `adopt` wraps `FromRawFd`, which has no safe form.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use crossbeam::utils::CachePadded;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::ReadWriteFlags;

/// An eventfd and the owner's word on whether it needs it. Clones ring the same core.
#[derive(Clone, Debug)]
pub struct Bell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// True from `prepare_sleep` until the owner or the first ringer takes it back. On a cache
    /// line of its own: every ringer reads it, and only going to sleep and waking write it.
    asleep: CachePadded<AtomicBool>,
    descriptor: OwnedFd,
}

impl Bell {
    /// Makes a bell nobody has rung, with its owner awake.
    ///
    /// The eventfd is a blocking one on purpose: an io_uring read of a non-blocking descriptor
    /// fails at once instead of waiting.
    ///
    /// # Errors
    ///
    /// The process or the system is out of descriptors.
    pub fn new() -> io::Result<Bell> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC)?;
        let asleep = CachePadded::new(AtomicBool::new(false));
        Ok(Bell { shared: Arc::new(Shared { asleep, descriptor }) })
    }

    /// Wakes the owner if it sleeps or is about to; from any thread, after publishing the data.
    pub fn ring(&self) {
        // Orders the caller's publication before the load below; pairs with `prepare_sleep`.
        fence(Ordering::SeqCst);
        if !self.shared.asleep.load(Ordering::Relaxed) {
            return;
        }
        // Of several ringers one writes; the others find the flag taken back.
        if self.shared.asleep.swap(false, Ordering::SeqCst) {
            self.write();
        }
    }

    /// The owner says that it is about to sleep. It must then look at all its sources once more,
    /// and only if all are empty wait on the eventfd.
    pub fn prepare_sleep(&self) {
        self.shared.asleep.store(true, Ordering::SeqCst);
        // Orders the store before the owner's last look; pairs with `ring`.
        fence(Ordering::SeqCst);
    }

    /// The owner says that it is awake: bells cost no system call until `prepare_sleep`.
    pub fn awake(&self) {
        // Relaxed: a ringer that still sees `true` writes once too often, which costs the owner
        // one empty turn and no data.
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether the owner has announced sleep and neither it nor a ringer has taken that back.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.shared.asleep.load(Ordering::Relaxed)
    }

    /// Another descriptor of the same eventfd, for a type that wants to own one.
    ///
    /// # Errors
    ///
    /// The process is out of descriptors.
    pub fn duplicate_fd(&self) -> io::Result<OwnedFd> {
        self.shared.descriptor.try_clone()
    }

    /// Waits on the eventfd with poll(2), empties it and marks the owner awake. For the owner
    /// of a plain thread, between `prepare_sleep` and the next turn; `None` waits for ever.
    ///
    /// Returns true if the eventfd was written (by a bell or by an io_uring registered with it),
    /// false after the timeout or a signal.
    pub fn wait_blocking(&self, timeout: Option<Duration>) -> bool {
        let readable = self.is_readable(timeout);
        if readable {
            self.drain();
        }
        self.awake();
        readable
    }

    /// Empties the eventfd without blocking. For the owner only: two threads that drain at the
    /// same time could take each other's wake-up.
    pub fn drain(&self) {
        let mut count = [0u8; 8];
        let mut buffers = [io::IoSliceMut::new(&mut count)];
        // Offset -1 means "no position", as a stream needs it.
        let read = rustix::io::preadv2(
            &self.shared.descriptor,
            &mut buffers,
            u64::MAX,
            ReadWriteFlags::NOWAIT,
        );
        if matches!(read, Err(error) if error != rustix::io::Errno::AGAIN)
            && self.is_readable(Some(Duration::ZERO))
        {
            // A kernel without RWF_NOWAIT for eventfds. It is readable and the owner is the only
            // reader, so this does not block; a failure leaves it readable, which is harmless.
            let _ = rustix::io::read(&self.shared.descriptor, &mut count);
        }
    }

    fn is_readable(&self, timeout: Option<Duration>) -> bool {
        let mut descriptors = [PollFd::new(&self.shared.descriptor, PollFlags::IN)];
        let timeout = timeout.map(|duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        });
        matches!(poll(&mut descriptors, timeout.as_ref()), Ok(ready) if ready > 0)
    }

    fn write(&self) {
        // Eight bytes to an open eventfd fail only if the counter would overflow, after 2^64
        // writes that nobody read; then it is readable and the owner wakes anyway.
        let _ = rustix::io::write(&self.shared.descriptor, &1u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.descriptor.as_fd()
    }
}

/// Gives an owned descriptor to a type that only offers `FromRawFd`, such as an executor's file
/// over [`Bell::duplicate_fd`].
#[must_use]
pub fn adopt<T: FromRawFd>(descriptor: OwnedFd) -> T {
    // SAFETY: the descriptor is open and owned by the argument, and `into_raw_fd` gives that
    // ownership up to `T`, which is what `from_raw_fd` asks for.
    unsafe { T::from_raw_fd(descriptor.into_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_for_an_awake_owner_writes_nothing() {
        let bell = Bell::new().unwrap();
        bell.ring();
        assert!(!bell.wait_blocking(Some(Duration::ZERO)));
    }

    #[test]
    fn many_rings_of_a_sleeper_are_one_wake_up() {
        let bell = Bell::new().unwrap();
        bell.prepare_sleep();
        assert!(bell.is_asleep());
        for _ in 0..5 {
            bell.clone().ring();
        }
        assert!(!bell.is_asleep());
        assert!(bell.wait_blocking(None));
        assert!(!bell.wait_blocking(Some(Duration::ZERO)), "one wait empties the eventfd");
    }

    #[test]
    fn draining_an_empty_bell_does_not_block() {
        let bell = Bell::new().unwrap();
        bell.drain();
        bell.prepare_sleep();
        bell.ring();
        bell.drain();
        assert!(!bell.wait_blocking(Some(Duration::from_millis(1))));
    }

    #[test]
    fn an_adopted_duplicate_is_the_same_eventfd() {
        use std::io::Read;
        let bell = Bell::new().unwrap();
        bell.prepare_sleep();
        bell.ring();
        let mut file: std::fs::File = adopt(bell.duplicate_fd().unwrap());
        let mut count = [0u8; 8];
        file.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        assert!(!bell.wait_blocking(Some(Duration::ZERO)));
    }
}
