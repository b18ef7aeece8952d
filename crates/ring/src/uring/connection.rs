//! Receiving, sending and closing of one connection.
//!
//! One send is in flight per connection, always: with two, a first that is written in part lets
//! the second in between, and the Noise stream is broken for good. The kernel is asked to write
//! all of a buffer; if it still stops short, the rest is sent from here before the owner hears
//! of it.

#![allow(unsafe_code)] // Send and receive name sockets and memory by raw value.

use std::net::Shutdown;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use super::table::{Phase, Receiving};
use super::{BUFFER_GROUP, Event, Kind, Received, Token, Uring};

/// Bytes one send operation is given at most; its length field has 32 bits and its result 31.
pub const SEND_BYTES_MAX: usize = 1 << 30;

/// Why [`Uring::send`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendRefusedWhy {
    /// The connection was closed before.
    Closed,
    /// A send is in flight; wait for its [`Event::Sent`].
    InFlight,
}

/// A send that was not started, with the bytes back.
#[derive(Debug)]
pub struct SendRefused {
    /// What was to be sent.
    pub bytes: Vec<u8>,
    /// Why it was not.
    pub why: SendRefusedWhy,
}

impl std::fmt::Display for SendRefused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.why {
            SendRefusedWhy::Closed => "the connection is closed",
            SendRefusedWhy::InFlight => "a send is in flight: wait for its Sent event",
        })
    }
}

impl std::error::Error for SendRefused {}

impl Uring {
    /// Sends all of `bytes`; [`Event::Sent`] says when they are with the kernel, and the buffer
    /// then goes to the pool.
    ///
    /// # Errors
    ///
    /// The connection is closed, or a send is in flight; the bytes come back.
    pub fn send(&mut self, token: Token, bytes: Vec<u8>) -> Result<(), SendRefused> {
        let Some(connection) = self.table.open(token) else {
            return Err(SendRefused { bytes, why: SendRefusedWhy::Closed });
        };
        if connection.sending.is_some() {
            return Err(SendRefused { bytes, why: SendRefusedWhy::InFlight });
        }
        connection.sending = Some(bytes);
        connection.written = 0;
        self.push_send(token);
        Ok(())
    }

    /// Gives one send operation at most `bytes` (from 1 to 2^30, which is the default); longer
    /// sends go on piece by piece, and are still one send to the owner.
    pub fn set_send_piece(&mut self, bytes: usize) {
        self.send_piece_bytes = bytes.clamp(1, SEND_BYTES_MAX);
    }

    /// Whether a send is in flight; false for a closed connection.
    #[must_use]
    pub fn is_sending(&self, token: Token) -> bool {
        self.table.peek(token).is_some_and(|connection| connection.sending.is_some())
    }

    /// Whether the token names a connection that has not been closed.
    #[must_use]
    pub fn is_open(&self, token: Token) -> bool {
        self.table.peek(token).is_some_and(|connection| connection.phase == Phase::Open)
    }

    /// Stops reading the socket, so that TCP slows the miner. Bytes the kernel has received
    /// into our buffers already are still delivered.
    pub fn pause(&mut self, token: Token) {
        let Some(connection) = self.table.open(token) else { return };
        connection.is_reading = false;
        match connection.receiving {
            Receiving::Armed => {
                connection.receiving = Receiving::Cancelling;
                self.push_cancel(Kind::Receive, token);
            }
            Receiving::Starved => connection.receiving = Receiving::Off,
            Receiving::Off | Receiving::Cancelling => {}
        }
    }

    /// Reads the socket again after [`Uring::pause`].
    pub fn resume(&mut self, token: Token) {
        let Some(connection) = self.table.open(token) else { return };
        connection.is_reading = true;
        // While the cancellation is under way, its completion arms the receive.
        self.arm_receive(token);
    }

    /// Whether reading is paused.
    #[must_use]
    pub fn is_paused(&self, token: Token) -> bool {
        self.table.peek(token).is_some_and(|connection| !connection.is_reading)
    }

    /// Closes the connection, with whatever is in flight. The token is dead when this returns:
    /// no event names it any more. The socket is closed when the kernel has let go of it.
    pub fn close(&mut self, token: Token) {
        if self.table.peek(token).is_none() {
            return;
        }
        self.table.mark_dying(token);
        if self.table.release(token) {
            return; // Nothing was in flight: closing the descriptor does it all.
        }
        let Some(connection) = self.table.get(token) else { return };
        let (is_sending, receiving) = (connection.sending.is_some(), connection.receiving);
        if let Some(socket) = &connection.socket {
            // Wakes both operations; they hold the socket open until they finish.
            let _ = socket.shutdown(Shutdown::Both);
        }
        if is_sending {
            self.push_cancel(Kind::Send, token);
        }
        if matches!(receiving, Receiving::Armed | Receiving::Cancelling) {
            self.push_cancel(Kind::Receive, token);
        }
    }

    /// Closes the connection after the send in flight, if there is one, is written, and so that
    /// the peer can read it: bytes that still arrive are discarded until it closes its side, for
    /// closing with unread bytes resets the connection and takes the last message with it.
    ///
    /// No event names the token any more, and nothing but [`Uring::close`] works on it, which
    /// cuts it short. Without that it is cut after 3 to 4 seconds.
    pub fn close_gracefully(&mut self, token: Token) {
        let Some(connection) = self.table.open(token) else { return };
        connection.phase = Phase::Lingering;
        connection.is_reading = true;
        let (is_sending, is_ended) = (connection.sending.is_some(), connection.is_ended);
        if is_ended && !is_sending {
            self.close(token);
            return;
        }
        if !is_sending && let Some(socket) = &connection.socket {
            let _ = socket.shutdown(Shutdown::Write);
        }
        self.arm_receive(token);
        self.linger(token);
    }

    /// Starts a receive if the owner reads, the peer has not ended, and none is with the kernel.
    pub(super) fn arm_receive(&mut self, token: Token) {
        let Some(connection) = self.table.get(token) else { return };
        let is_wanted = connection.is_live() && connection.is_reading && !connection.is_ended;
        if !is_wanted || connection.receiving != Receiving::Off {
            return;
        }
        let Some(socket) = &connection.socket else { return };
        let entry = opcode::RecvMulti::new(types::Fd(socket.as_raw_fd()), BUFFER_GROUP)
            .build()
            .user_data(Kind::Receive.key(token.slot, token.generation));
        connection.receiving = Receiving::Armed;
        // SAFETY: the socket stays open until the final completion (`Table::release` asks for
        // `Receiving::Off`), and so do the registered buffers (`Uring`'s drop).
        unsafe { self.kernel.push(&entry) };
    }

    /// Arms receives that ended for want of buffers, no more of them than buffers are free, so
    /// that a shortage does not become a loop of failing receives.
    pub(super) fn feed_starved(&mut self) {
        if self.starved.is_empty() {
            return;
        }
        for _ in 0..self.starved.len().min(self.free_buffers()) {
            let Some(token) = self.starved.pop_front() else { return };
            if let Some(connection) = self.table.get(token)
                && connection.receiving == Receiving::Starved
            {
                connection.receiving = Receiving::Off;
                self.arm_receive(token);
            }
        }
    }

    pub(super) fn on_receive(
        &mut self,
        token: Token,
        result: i32,
        bytes: Option<Received>,
        has_more: bool,
    ) -> Option<Event> {
        let connection = self.table.get(token)?;
        if !has_more {
            connection.receiving = Receiving::Off;
        }
        if connection.phase == Phase::Dying {
            self.table.release(token);
            return None;
        }
        let is_open = connection.phase == Phase::Open;
        if result > 0 {
            if !has_more {
                self.arm_receive(token);
            }
            return bytes.filter(|_| is_open).map(|bytes| Event::Received { token, bytes });
        }
        match -result {
            libc::ENOBUFS | libc::EINTR | libc::EAGAIN => {
                self.counters.no_buffers += 1;
                if !has_more && connection.is_reading {
                    connection.receiving = Receiving::Starved;
                    self.starved.push_back(token);
                }
                None
            }
            libc::ECANCELED => {
                self.arm_receive(token);
                None
            }
            error => self.on_receive_end(token, error),
        }
    }

    /// A cancellation found nothing. Either the operation has finished by itself, and its last
    /// completion came before this one; or the receive was between two attempts, where it cannot
    /// be found, and has to be asked again.
    pub(super) fn on_cancel_failed(&mut self, token: Token) {
        let Some(connection) = self.table.get(token) else { return };
        if connection.receiving != Receiving::Cancelling || !connection.is_live() {
            return;
        }
        if connection.is_reading {
            connection.receiving = Receiving::Armed;
        } else {
            self.push_cancel(Kind::Receive, token);
        }
    }

    fn on_receive_end(&mut self, token: Token, error: i32) -> Option<Event> {
        let connection = self.table.get(token)?;
        connection.is_ended = true;
        if connection.phase == Phase::Open {
            let error = (error != 0).then_some(error);
            return Some(Event::ReceiveClosed { token, error });
        }
        if connection.sending.is_none() {
            self.close(token);
        }
        None
    }

    pub(super) fn on_send(&mut self, token: Token, result: i32) -> Option<Event> {
        let connection = self.table.get(token)?;
        let total = connection.sending.as_ref().map_or(0, Vec::len);
        connection.written += usize::try_from(result).unwrap_or(0);
        let is_short = connection.written < total;
        let is_dying = connection.phase == Phase::Dying;
        // A send of nothing that succeeds with zero bytes is whole; zero bytes of something
        // would go round for ever.
        if is_short && !is_dying && (result > 0 || result == -libc::EINTR) {
            self.counters.sends_continued += 1;
            self.push_send(token);
            return None;
        }
        let bytes = connection.sending.take();
        let (phase, is_ended) = (connection.phase, connection.is_ended);
        if let Some(bytes) = bytes {
            self.pool.put(bytes);
        }
        let outcome = match result {
            0.. if is_short => Err(libc::EPIPE),
            0.. => Ok(()),
            error => Err(-error),
        };
        match phase {
            Phase::Open => return Some(Event::Sent { token, result: outcome }),
            Phase::Lingering if outcome.is_err() || is_ended => self.close(token),
            Phase::Lingering => self.end_writing(token),
            Phase::Dying | Phase::Free => {
                self.table.release(token);
            }
        }
        None
    }

    fn end_writing(&mut self, token: Token) {
        if let Some(socket) = self.table.get(token).and_then(|found| found.socket.as_ref()) {
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// Sends what is not written yet of the buffer in flight.
    fn push_send(&mut self, token: Token) {
        let Some(connection) = self.table.get(token) else { return };
        let (Some(bytes), Some(socket)) = (&connection.sending, &connection.socket) else { return };
        let rest = bytes.get(connection.written..).unwrap_or_default();
        let length = rest.len().min(self.send_piece_bytes) as u32;
        let entry = opcode::Send::new(types::Fd(socket.as_raw_fd()), rest.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(Kind::Send.key(token.slot, token.generation));
        // SAFETY: the bytes are on the heap, owned by the connection, and neither touched nor
        // freed before the final completion takes them out (`on_send`); the slot and the socket
        // stay until then (`Table::release` asks for no send in flight). If the ring is dropped
        // before, its drop waits or leaks.
        unsafe { self.kernel.push(&entry) };
    }

    fn push_cancel(&mut self, kind: Kind, token: Token) {
        let key = kind.key(token.slot, token.generation);
        self.kernel.push_cancel(key, Kind::Cancel.key(token.slot, token.generation));
    }
}
