//! The provided-buffer ring: memory the kernel receives into, lent out and taken back.
//!
//! All connections of a shard share one ring of equal buffers. The kernel takes the next free
//! one when bytes have arrived, so a thousand idle miners hold no receive memory. Each buffer is
//! in exactly one of two places: in the kernel's ring, or in one [`Received`], which gives it
//! back when it is dropped. Who holds one longer than a turn starves the others.

#![allow(unsafe_code)] // The kernel writes into this memory; the ring is shared with it.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The only buffer group of a ring.
pub const BUFFER_GROUP: u16 = 0;
/// The kernel's own bound on entries of a buffer ring.
pub const BUFFERS_MAX: u16 = 1 << 15;

/// Zeroed pages of our own, unmapped when dropped.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Mapping> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private anonymous mapping overlaps nothing that exists.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and nobody refers to it any more: the only
        // holders are `ReceiveBuffers` and, through it, `Received`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// The buffers and the ring through which the kernel gets them.
pub struct ReceiveBuffers {
    /// Ring entries; first, so page-aligned as the kernel asks.
    entries: Mapping,
    memory: Mapping,
    count: u16,
    bytes: usize,
    /// Free-running count of buffers given to the kernel; the low bits are the slot.
    tail: Cell<u16>,
    /// Buffers that are in a `Received` now.
    lent: Cell<u16>,
}

impl ReceiveBuffers {
    /// Makes `count` (a power of two up to [`BUFFERS_MAX`]) buffers of `bytes` bytes, all of
    /// them free. They are given to a ring by `register`.
    pub fn new(count: u16, bytes: usize) -> io::Result<Rc<ReceiveBuffers>> {
        if !count.is_power_of_two() || count > BUFFERS_MAX {
            let text = format!("receive_buffers is {count}, not a power of two up to 32768");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if bytes == 0 || u32::try_from(bytes).is_err() {
            let text = format!("receive_buffer_bytes is {bytes}, not from 1 to 2^32 - 1");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * bytes)?;
        let (tail, lent) = (Cell::new(0), Cell::new(0));
        Ok(Rc::new(ReceiveBuffers { entries, memory, count, bytes, tail, lent }))
    }

    /// Registers the buffers with a ring and fills it. To be called once, and the ring must be
    /// closed or the group unregistered before the last `Rc` goes.
    pub fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let start = self.entries.start.as_ptr() as u64;
        // SAFETY: the entries are mapped, page-aligned and as many as said; the owner keeps them
        // mapped until the group is unregistered (see `Uring`'s drop).
        unsafe { submitter.register_buf_ring_with_flags(start, self.count, BUFFER_GROUP, 0)? };
        for id in 0..self.count {
            self.put(id);
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    pub fn lent(&self) -> usize {
        usize::from(self.lent.get())
    }

    /// Lends the buffer a completion names. To be called once per completion that carries a
    /// buffer: the kernel will not touch it until it is given back.
    pub fn lend(self: &Rc<Self>, id: u16, length: usize) -> Option<Received> {
        if id >= self.count {
            return None; // The kernel never says so; an index out of range must not be followed.
        }
        self.lent.set(self.lent.get().saturating_add(1));
        Some(Received { buffers: Rc::clone(self), id, length: length.min(self.bytes) })
    }

    fn give_back(&self, id: u16) {
        self.lent.set(self.lent.get().saturating_sub(1));
        self.put(id);
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        // SAFETY: `id < count` was checked where it came in, so the offset is inside `memory`.
        unsafe { self.memory.start.add(usize::from(id) * self.bytes) }
    }

    fn put(&self, id: u16) {
        let base = self.entries.start.cast::<BufRingEntry>();
        let slot = usize::from(self.tail.get() & (self.count - 1));
        // SAFETY: `slot < count`, so the entry is inside the mapping. The kernel reads entries
        // only below the tail it has seen, and this one is at the tail: it is ours until the
        // store below publishes it. There are as many slots as buffers, so it is not in use.
        let entry = unsafe { base.add(slot).as_mut() };
        entry.set_addr(self.buffer(id).as_ptr() as u64);
        entry.set_len(self.bytes as u32);
        entry.set_bid(id);
        self.tail.set(self.tail.get().wrapping_add(1));
        // SAFETY: `base` is the first entry of a live, page-aligned ring. The tail lives in its
        // reserved field, which is aligned for u16; both sides access it atomically.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base.as_ptr()).cast_mut()) };
        tail.store(self.tail.get(), Ordering::Release);
    }
}

/// Bytes a miner sent, in the buffer the kernel received them into; mutable, so that frames can
/// be opened in place. Dropping it gives the buffer back to the kernel.
///
/// It is not tied to a borrow of the [`Uring`](crate::Uring), so sending, pausing and closing
/// are possible while it is held; but hold none past the turn.
pub struct Received {
    buffers: Rc<ReceiveBuffers>,
    id: u16,
    length: usize,
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.buffers.buffer(self.id).as_ptr();
        // SAFETY: `length` is at most the buffer's size; the memory is mapped and initialised
        // (zeroed pages). The kernel gave the buffer up and only this value has its id.
        unsafe { std::slice::from_raw_parts(start, self.length) }
    }
}

impl DerefMut for Received {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.buffers.buffer(self.id).as_ptr();
        // SAFETY: as in `deref`, and `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(start, self.length) }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.buffers.give_back(self.id);
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: they may be a miner's credentials.
        write!(formatter, "Received({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_the_kernel_would_refuse_are_refused_by_name() {
        for count in [0, 3, 4095] {
            let error = ReceiveBuffers::new(count, 64).err().unwrap();
            assert!(error.to_string().contains("receive_buffers"), "{count}");
        }
        let error = ReceiveBuffers::new(8, 0).err().unwrap();
        assert!(error.to_string().contains("receive_buffer_bytes"));
    }

    #[test]
    fn a_lent_buffer_is_counted_clamped_and_given_back() {
        let buffers = ReceiveBuffers::new(4, 16).unwrap();
        let mut first = buffers.lend(2, 99).unwrap();
        assert_eq!((first.len(), buffers.lent()), (16, 1));
        first.fill(7);
        let other = buffers.lend(1, 16).unwrap();
        assert!(other.iter().all(|byte| *byte == 0), "buffers do not overlap");
        assert!(buffers.lend(4, 1).is_none());
        drop((first, other));
        assert_eq!(buffers.lent(), 0);
    }
}
