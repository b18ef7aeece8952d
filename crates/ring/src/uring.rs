//! A shard's sockets in one raw io_uring.
//!
//! One multishot accept a listener, one multishot receive a connection, one ring of buffers for
//! all of them, sends in batches, one timeout for the shard's next deadline. There is no task and
//! no future per connection: the owner takes [`Event`]s, feeds them to its machines and calls
//! back. The completions write the owner's [`Bell`], so one await covers everything.
//!
//! The owner's loop, on an executor:
//!
//! ```text
//! loop {
//!     bell.awake();
//!     look at rings and deadlines; take events until a limit or None; submit()
//!     if there was nothing to do {
//!         bell.prepare_sleep();
//!         look at rings once more; submit(); if next_event() is None { await the eventfd }
//!     }
//! }
//! ```
//!
//! `submit` switches the eventfd on when the bell says the owner is about to sleep and off when
//! it is awake, so a busy shard does not write it for every completion. A plain thread calls
//! [`Uring::wait`] instead of awaiting.
//!
//! Rules the owner keeps, all of them checked: one send in flight per connection; a
//! [`Received`] is dropped within the turn. Rules the ring keeps: no event for a token after
//! [`Uring::close`]; every byte a miner sent is delivered once, in order, through pauses and
//! through lack of buffers; memory lent to the kernel outlives the operation.

#![allow(unsafe_code)] // Operations name memory and descriptors by raw value.

mod accept;
mod buffers;
mod connection;
mod kernel;
mod pool;
mod table;
mod timer;

pub use buffers::Received;
pub use connection::{SendRefused, SendRefusedWhy};
pub use table::{CONNECTIONS_MAX, TableFull, Token};

pub(crate) use buffers::{BUFFER_GROUP, ReceiveBuffers};
pub(crate) use kernel::Kernel;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::{cqueue, opcode, types};

use crate::bell::Bell;
use crate::probe::explain_setup;
use accept::Listener;
use pool::SendPool;
use table::Table;
use timer::Timers;

/// Tries to reap what is in flight when a ring is dropped, and how long each waits at most.
const DROP_ROUNDS: usize = 100;
const DROP_WAIT: Duration = Duration::from_millis(10);

/// What a ring may hold.
#[derive(Clone, Copy, Debug)]
pub struct UringLimits {
    /// Live connections; the next one is refused. At most [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// Buffers all connections receive into; a power of two up to 32 768.
    pub receive_buffers: u16,
    /// Size in bytes of each. Larger costs memory, smaller splits long frames.
    pub receive_buffer_bytes: usize,
    /// Send buffers kept for reuse.
    pub send_buffers_kept: usize,
}

impl Default for UringLimits {
    fn default() -> UringLimits {
        UringLimits {
            connections_max: 16_384,
            receive_buffers: 4096,
            receive_buffer_bytes: 2048,
            send_buffers_kept: 4096,
        }
    }
}

/// A fact for the owner. Error numbers are the kernel's `errno` values, positive.
#[derive(Debug)]
pub enum Event {
    /// A miner has connected and is being received from.
    Accepted {
        /// Its name from now on.
        token: Token,
        /// Its address.
        peer: SocketAddr,
    },
    /// A listener could not accept. It goes on by itself, after `retry_after`.
    AcceptFailed {
        /// The error, such as EMFILE.
        error: i32,
        /// The pause before it accepts again; zero for errors of a single connection.
        retry_after: Duration,
    },
    /// Bytes from a miner, at least one, at most `receive_buffer_bytes`.
    Received {
        /// From whom.
        token: Token,
        /// The bytes; to be dropped within the turn.
        bytes: Received,
    },
    /// No more bytes will come: the peer closed its side (`None`) or receiving failed. The
    /// connection is still open for sending; close it when done.
    ReceiveClosed {
        /// Whose.
        token: Token,
        /// The error, such as ECONNRESET.
        error: Option<i32>,
    },
    /// The send in flight is over: all of it is with the kernel, or it failed and the
    /// connection is to be closed.
    Sent {
        /// Whose.
        token: Token,
        /// The error, such as EPIPE.
        result: Result<(), i32>,
    },
    /// The time given to [`Uring::set_deadline`] is over.
    Deadline,
}

/// What has happened so far; only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UringCounters {
    /// Connections that became events.
    pub accepted: u64,
    /// Connections closed at once because the table was full.
    pub refused_table_full: u64,
    /// Connections that were gone again before they could be announced, or came too late.
    pub vanished: u64,
    /// Accepts that failed.
    pub accept_failures: u64,
    /// Receives that found no free buffer and were armed again.
    pub no_buffers: u64,
    /// Sends that the kernel took in more than one piece.
    pub sends_continued: u64,
    /// Graceful closes that took too long and were cut.
    pub lingers_cut: u64,
}

/// What an operation's number says it is; the top byte of its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept = 1,
    Receive = 2,
    Send = 3,
    Deadline = 4,
    AcceptRetry = 5,
    Linger = 6,
    Bell = 7,
    /// A cancellation of a connection's operation; carries the connection.
    Cancel = 8,
    /// A cancellation of anything else.
    CancelOther = 9,
}

impl Kind {
    /// The operation's number: kind (8 bits), slot (24), generation (32).
    fn key(self, slot: u32, generation: u32) -> u64 {
        u64::from(self as u8) << 56 | u64::from(slot & 0x00ff_ffff) << 32 | u64::from(generation)
    }

    fn of(key: u64) -> Option<Kind> {
        Some(match (key >> 56) as u8 {
            1 => Kind::Accept,
            2 => Kind::Receive,
            3 => Kind::Send,
            4 => Kind::Deadline,
            5 => Kind::AcceptRetry,
            6 => Kind::Linger,
            7 => Kind::Bell,
            8 => Kind::Cancel,
            9 => Kind::CancelOther,
            _ => return None,
        })
    }
}

fn token_of(key: u64) -> Token {
    Token { slot: (key >> 32) as u32 & 0x00ff_ffff, generation: key as u32 }
}

/// The ring, its connections and its listeners. It belongs to the thread that made it.
///
/// Dropping it closes every socket. It waits up to a second for the kernel to finish what is in
/// flight; what is then still in flight is left allocated, not freed under the kernel.
pub struct Uring {
    // First: dropped, and so closed, before the memory the kernel was lent.
    kernel: Kernel,
    buffers: Rc<ReceiveBuffers>,
    table: Table,
    listeners: Vec<Listener>,
    pool: SendPool,
    timers: Timers,
    /// Connections whose receive ended for want of buffers; each is armed again by `submit`.
    starved: VecDeque<Token>,
    counters: UringCounters,
    bell: Bell,
    is_bell_polled: bool,
    send_piece_bytes: usize,
}

impl Uring {
    /// Makes the ring and registers the bell's eventfd with it.
    ///
    /// # Errors
    ///
    /// A limit out of range, or a kernel that lacks or forbids what the ring needs; the text
    /// says which and how to mend it.
    pub fn new(limits: UringLimits, bell: &Bell) -> io::Result<Uring> {
        Uring::with_queues(limits, bell, kernel::SUBMISSIONS, kernel::COMPLETIONS)
    }

    /// As [`Uring::new`], with queues of another size: entries of the submission queue and of
    /// the completion queue, powers of two, the second at least the first. Small queues cost
    /// system calls and nothing else: what does not fit waits.
    ///
    /// # Errors
    ///
    /// As for [`Uring::new`].
    pub fn with_queues(
        limits: UringLimits,
        bell: &Bell,
        submissions: u32,
        completions: u32,
    ) -> io::Result<Uring> {
        if limits.connections_max == 0 || limits.connections_max > CONNECTIONS_MAX {
            let text = format!(
                "connections_max is {}, not from 1 to {CONNECTIONS_MAX}",
                limits.connections_max
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let kernel = Kernel::new(submissions, completions)
            .map_err(|error| explain_setup("io_uring_setup", &error))?;
        Uring::over(kernel, limits, bell)
    }

    fn over(kernel: Kernel, limits: UringLimits, bell: &Bell) -> io::Result<Uring> {
        let buffers = ReceiveBuffers::new(limits.receive_buffers, limits.receive_buffer_bytes)?;
        buffers
            .register(&kernel.submitter())
            .map_err(|error| explain_setup("provided buffer rings", &error))?;
        kernel
            .register_eventfd(bell.as_fd())
            .map_err(|error| explain_setup("an eventfd on the ring", &error))?;
        Ok(Uring {
            kernel,
            buffers,
            table: Table::new(limits.connections_max),
            listeners: Vec::new(),
            pool: SendPool::new(limits.send_buffers_kept),
            timers: Timers::default(),
            starved: VecDeque::new(),
            counters: UringCounters::default(),
            bell: bell.clone(),
            is_bell_polled: false,
            send_piece_bytes: connection::SEND_BYTES_MAX,
        })
    }

    /// Takes the next event, if a completion is there; makes no system call while there is one.
    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(event) = self.drain_to_event() {
            return Some(event);
        }
        // Nothing is left. Two things may only look like it: work that a sleeping owner must not
        // leave behind, and receives that can be armed again now that buffers are back.
        let must_switch_on = self.bell.is_asleep() && !self.kernel.is_eventfd_on();
        let can_feed = !self.starved.is_empty() && self.free_buffers() > 0;
        if !must_switch_on && !can_feed {
            return None;
        }
        // An error here comes again from the owner's own `submit`.
        let _ = self.submit();
        self.drain_to_event()
    }

    /// Hands the batch to the kernel and runs its deferred work, so that completions appear.
    /// Without anything to do it makes no system call, unless the owner is about to sleep.
    ///
    /// # Errors
    ///
    /// The kernel is out of memory, or the ring is used from another thread than its own.
    /// Nothing queued is lost; the next call tries again.
    pub fn submit(&mut self) -> io::Result<()> {
        let is_asleep = self.bell.is_asleep();
        self.kernel.set_eventfd(is_asleep);
        self.prepare();
        self.kernel.submit(is_asleep)
    }

    /// Submits and sleeps until a completion, a bell, or the timeout; for a plain thread.
    ///
    /// To miss no bell: `bell.prepare_sleep()`, look at the rings, then `wait`. It marks the
    /// owner awake when it returns.
    ///
    /// # Errors
    ///
    /// As for [`Uring::submit`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // The sleep below ends with any completion, so completions need not write the eventfd;
        // a poll of the eventfd makes a bell a completion too.
        self.kernel.set_eventfd(false);
        self.prepare();
        self.poll_bell();
        let waited = if self.kernel.has_completions() {
            self.kernel.submit(false)
        } else {
            self.kernel.wait(timeout)
        };
        self.bell.awake();
        waited
    }

    /// A cleared buffer to seal frames into, from the pool of those sent before.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.pool.take()
    }

    /// Gives a buffer that was not sent back to the pool.
    pub fn give_back_buffer(&mut self, bytes: Vec<u8>) {
        self.pool.put(bytes);
    }

    /// Send buffers in the pool now.
    #[must_use]
    pub fn buffers_kept(&self) -> usize {
        self.pool.len()
    }

    /// Live connections, those that close gracefully included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.table.live()
    }

    /// Completions that wait to be taken; for a gauge.
    pub fn completions(&mut self) -> usize {
        self.kernel.completions()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> UringCounters {
        self.counters
    }

    /// Whether the kernel defers its work to our calls (Linux 6.1 and later).
    #[must_use]
    pub fn is_deferred(&self) -> bool {
        self.kernel.is_deferred()
    }

    /// Everything that is queued at the last moment before the kernel is called.
    fn prepare(&mut self) {
        self.apply_deadline();
        self.feed_starved();
    }

    fn drain_to_event(&mut self) -> Option<Event> {
        // Bounded: each round takes one completion, and new ones appear only by submitting.
        while let Some(completion) = self.kernel.next_completion() {
            if let Some(event) = self.on_completion(&completion) {
                return Some(event);
            }
        }
        None
    }

    fn on_completion(&mut self, completion: &cqueue::Entry) -> Option<Event> {
        let (key, result) = (completion.user_data(), completion.result());
        let kind = Kind::of(key)?;
        let has_more = cqueue::more(completion.flags());
        if !has_more && !matches!(kind, Kind::Cancel | Kind::CancelOther) {
            self.kernel.finished();
        }
        match kind {
            Kind::Accept => self.on_accept(token_of(key), result, has_more),
            Kind::Receive => {
                let buffer = cqueue::buffer_select(completion.flags());
                let length = usize::try_from(result).unwrap_or(0);
                // Whatever becomes of the bytes, the buffer is in a `Received` from here on.
                let bytes = buffer.and_then(|id| self.buffers.lend(id, length));
                self.on_receive(token_of(key), result, bytes, has_more)
            }
            Kind::Send => self.on_send(token_of(key), result),
            Kind::Deadline => self.on_deadline(token_of(key).generation, result),
            Kind::AcceptRetry => {
                self.on_accept_retry();
                None
            }
            Kind::Linger => {
                self.on_linger_tick();
                None
            }
            Kind::Bell => {
                self.is_bell_polled = has_more;
                None
            }
            Kind::Cancel => {
                self.on_cancel_failed(token_of(key));
                None
            }
            Kind::CancelOther => None, // What it was to cancel has finished by itself.
        }
    }

    fn poll_bell(&mut self) {
        if self.is_bell_polled {
            return;
        }
        // A wake-up that was not read would end the first wait at once.
        self.bell.drain();
        let descriptor = types::Fd(self.bell.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(descriptor, libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(Kind::Bell.key(0, 0));
        // SAFETY: the entry names no memory, and the ring's own clone of the bell keeps the
        // descriptor open.
        unsafe { self.kernel.push(&entry) };
        self.is_bell_polled = true;
    }

    /// Buffers that are surely in the kernel's ring: not lent and not named by a completion
    /// that nobody has taken yet.
    fn free_buffers(&mut self) -> usize {
        let taken = self.buffers.lent() + self.kernel.completions();
        self.buffers.count().saturating_sub(taken)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.stop_listening();
        for token in self.table.tokens() {
            self.close(token);
        }
        self.cancel_timers();
        if self.is_bell_polled {
            self.kernel.push_cancel(Kind::Bell.key(0, 0), Kind::CancelOther.key(0, 0));
        }
        self.starved.clear();
        for _ in 0..DROP_ROUNDS {
            while let Some(completion) = self.kernel.next_completion() {
                drop(self.on_completion(&completion));
            }
            if self.kernel.in_flight() == 0 || self.kernel.wait(Some(DROP_WAIT)).is_err() {
                break;
            }
        }
        let is_unregistered = self.kernel.submitter().unregister_buf_ring(BUFFER_GROUP).is_ok();
        if self.kernel.in_flight() > 0 {
            // The kernel may still read these. A leak is bounded by what was in flight; a free
            // would let the kernel send another owner's memory.
            self.table.leak_sends();
        }
        if self.kernel.in_flight() > 0 || !is_unregistered {
            std::mem::forget(Rc::clone(&self.buffers));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// Goal: without deferred task work, as on older kernels, the same loop works, asleep on the
    /// eventfd between messages.
    #[test]
    fn a_plain_ring_echoes_too() {
        let bell = Bell::new().unwrap();
        let limits = UringLimits { receive_buffers: 4, ..UringLimits::default() };
        let kernel = Kernel::plain(8, 16).unwrap();
        let mut ring = Uring::over(kernel, limits, &bell).unwrap();
        assert!(!ring.is_deferred());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        ring.listen(listener).unwrap();
        let client = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(addr).unwrap();
            for round in 0..1_000u32 {
                stream.write_all(&round.to_be_bytes()).unwrap();
                let mut back = [0; 4];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, round.to_be_bytes());
            }
        });
        let mut held: Vec<u8> = Vec::new();
        loop {
            match ring.next_event() {
                Some(Event::Received { token, bytes }) => {
                    held.extend_from_slice(&bytes);
                    if !ring.is_sending(token) {
                        ring.send(token, std::mem::take(&mut held)).unwrap();
                    }
                }
                Some(Event::Sent { token, .. }) if !held.is_empty() => {
                    ring.send(token, std::mem::take(&mut held)).unwrap();
                }
                Some(Event::ReceiveClosed { .. }) => break,
                Some(_) => {}
                None => {
                    bell.prepare_sleep();
                    ring.submit().unwrap();
                    if ring.completions() == 0 {
                        assert!(bell.wait_blocking(Some(Duration::from_secs(30))));
                    }
                    bell.awake();
                }
            }
        }
        client.join().unwrap();
    }
}
