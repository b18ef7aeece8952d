//! Listening: multishot accept, and what to do when it cannot.
//!
//! Out of descriptors, an accept fails the moment it is armed, whether or not a miner waits. To
//! arm it again at once is a loop that burns the core and fills the log; so it is armed again by
//! a timeout of the ring. Miners wait in the backlog meanwhile.

#![allow(unsafe_code)] // The accept operation names the listener by raw descriptor.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{opcode, types};

use super::kernel::accepted_descriptor;
use super::{Event, Kind, TableFull, Token, Uring};

/// The pause of a listener that cannot accept for want of descriptors or memory.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Listeners one ring can have in its life.
pub const LISTENERS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// An accept is with the kernel.
    Armed,
    /// It failed and waits for the retry timeout.
    Waiting,
    /// It is being cancelled, or has been.
    Stopped,
}

#[derive(Debug)]
pub struct Listener {
    /// Held open until its accept has finished.
    socket: Option<TcpListener>,
    accepting: Accepting,
}

impl Uring {
    /// Accepts from `listener` until [`Uring::stop_listening`]. Accepted sockets get
    /// TCP_NODELAY and are received from at once.
    ///
    /// # Errors
    ///
    /// Too many listeners, or the socket cannot be made blocking (which io_uring needs in order
    /// to wait on it).
    pub fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        if self.listeners.len() >= LISTENERS_MAX {
            let text = format!("a ring takes {LISTENERS_MAX} listeners at most");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        listener.set_nonblocking(false)?;
        let listener = Listener { socket: Some(listener), accepting: Accepting::Waiting };
        self.listeners.push(listener);
        self.arm_accept(self.listeners.len() - 1);
        Ok(())
    }

    /// Stops accepting and closes the listeners; connections live on. Connections that the
    /// kernel has accepted but this ring has not yet announced are closed.
    pub fn stop_listening(&mut self) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            match listener.accepting {
                Accepting::Armed => {
                    let key = Kind::Accept.key(index as u32, 0);
                    self.kernel.push_cancel(key, Kind::CancelOther.key(0, 0));
                }
                Accepting::Waiting => listener.socket = None,
                Accepting::Stopped => {}
            }
            listener.accepting = Accepting::Stopped;
        }
    }

    /// Whether any listener is left.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listeners.iter().any(|listener| listener.accepting != Accepting::Stopped)
    }

    /// Takes over a connected socket, sets TCP_NODELAY and starts receiving.
    ///
    /// # Errors
    ///
    /// The table is full; the socket is closed then.
    pub fn add(&mut self, stream: TcpStream) -> Result<Token, TableFull> {
        // Neither fails on a live socket, and a dead one reports itself through its receive.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_nonblocking(false);
        let token = self.table.insert(stream)?;
        self.arm_receive(token);
        Ok(token)
    }

    fn arm_accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        let Some(socket) = &listener.socket else { return };
        if listener.accepting != Accepting::Waiting {
            return;
        }
        let entry = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(Kind::Accept.key(index as u32, 0));
        listener.accepting = Accepting::Armed;
        // SAFETY: the entry names no memory; the listener's socket is kept open until its final
        // completion (`on_accept`).
        unsafe { self.kernel.push(&entry) };
    }

    pub(super) fn on_accept(&mut self, token: Token, result: i32, has_more: bool) -> Option<Event> {
        let index = token.slot as usize;
        let listener = self.listeners.get_mut(index)?;
        let is_stopped = listener.accepting == Accepting::Stopped;
        if !has_more {
            if is_stopped {
                listener.socket = None;
            } else {
                listener.accepting = Accepting::Waiting;
            }
        }
        if let Some(descriptor) = accepted_descriptor(result) {
            if !has_more {
                self.arm_accept(index);
            }
            return self.announce(TcpStream::from(descriptor), is_stopped);
        }
        let error = -result;
        if is_stopped {
            return None;
        }
        self.counters.accept_failures += 1;
        // These are about one connection that is gone again; the listener itself is well.
        let is_passing = matches!(error, libc::ECONNABORTED | libc::EPROTO | libc::EINTR);
        if is_passing {
            self.arm_accept(index);
            return Some(Event::AcceptFailed { error, retry_after: Duration::ZERO });
        }
        self.arm_accept_retry(ACCEPT_RETRY);
        Some(Event::AcceptFailed { error, retry_after: ACCEPT_RETRY })
    }

    fn announce(&mut self, stream: TcpStream, is_stopped: bool) -> Option<Event> {
        if is_stopped {
            self.counters.vanished += 1;
            return None;
        }
        if !self.table.has_room() {
            self.counters.refused_table_full += 1;
            return None;
        }
        let Ok(peer) = stream.peer_addr() else {
            self.counters.vanished += 1; // Reset between the kernel's accept and here.
            return None;
        };
        let token = self.add(stream).ok()?;
        self.counters.accepted += 1;
        Some(Event::Accepted { token, peer })
    }

    pub(super) fn on_accept_retry(&mut self) {
        self.timers.is_accept_retry_armed = false;
        for index in 0..self.listeners.len() {
            self.arm_accept(index);
        }
    }
}
