//! Timeouts of the ring: the shard's next deadline, the accept retry, the linger tick.
//!
//! The shard has many deadlines and a wheel of its own for them; the kernel needs to know only
//! the next. Setting it replaces the one before: the old timeout is removed and a new one is
//! armed under another number, so one that fires in between is known to be old.

#![allow(unsafe_code)] // The timeout operation names its duration by pointer.

use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Timespec;

use super::{Event, Kind, Token, Uring};

/// How often graceful closes are looked at while there are any.
pub const LINGER_TICK: Duration = Duration::from_secs(1);
/// Ticks a graceful close is given at least; it is cut at the next.
pub const LINGER_TICKS: u64 = 3;

/// State of the three timeouts. The durations are boxed: the kernel reads them when the entry is
/// submitted, at an address that must not move until then.
#[derive(Default)]
pub struct Timers {
    /// Asked for since the last submit.
    wanted: Option<Duration>,
    /// Number of the deadline armed last; older ones are ignored.
    generation: u32,
    is_deadline_armed: bool,
    deadline: Box<Timespec>,
    pub is_accept_retry_armed: bool,
    accept_retry: Box<Timespec>,
    is_linger_armed: bool,
    linger: Box<Timespec>,
    linger_ticks: u64,
    /// Graceful closes, oldest first, with the tick at which each began. An entry leaves with
    /// its last tick, so there are at most as many as connections closed in four seconds.
    lingering: std::collections::VecDeque<(Token, u64)>,
}

impl Uring {
    /// Sets the one deadline: [`Event::Deadline`] comes once, `after` the next submit. It
    /// replaces a deadline set before.
    pub fn set_deadline(&mut self, after: Duration) {
        self.timers.wanted = Some(after);
    }

    /// Takes the deadline back.
    pub fn clear_deadline(&mut self) {
        self.timers.wanted = None;
        self.remove_deadline();
    }

    /// Whether a deadline is set and has not fired.
    #[must_use]
    pub fn has_deadline(&self) -> bool {
        self.timers.wanted.is_some() || self.timers.is_deadline_armed
    }

    pub(super) fn apply_deadline(&mut self) {
        let Some(after) = self.timers.wanted.take() else { return };
        self.remove_deadline();
        self.timers.generation = self.timers.generation.wrapping_add(1);
        self.timers.is_deadline_armed = true;
        *self.timers.deadline = Timespec::from(after);
        let key = Kind::Deadline.key(0, self.timers.generation);
        let entry = opcode::Timeout::new(&raw const *self.timers.deadline).build().user_data(key);
        // SAFETY: the duration is in a box of this ring and stays there; only its value changes.
        unsafe { self.kernel.push(&entry) };
    }

    fn remove_deadline(&mut self) {
        if self.timers.is_deadline_armed {
            self.timers.is_deadline_armed = false;
            let key = Kind::Deadline.key(0, self.timers.generation);
            self.kernel.push_timeout_remove(key, Kind::CancelOther.key(0, 0));
        }
    }

    pub(super) fn on_deadline(&mut self, generation: u32, result: i32) -> Option<Event> {
        let is_current = self.timers.is_deadline_armed && generation == self.timers.generation;
        if !is_current || result == -libc::ECANCELED {
            return None;
        }
        self.timers.is_deadline_armed = false;
        Some(Event::Deadline)
    }

    pub(super) fn arm_accept_retry(&mut self, after: Duration) {
        if self.timers.is_accept_retry_armed {
            return;
        }
        self.timers.is_accept_retry_armed = true;
        *self.timers.accept_retry = Timespec::from(after);
        let entry = opcode::Timeout::new(&raw const *self.timers.accept_retry)
            .build()
            .user_data(Kind::AcceptRetry.key(0, 0));
        // SAFETY: as for the deadline; the flag above keeps it to one at a time.
        unsafe { self.kernel.push(&entry) };
    }

    /// Cuts the graceful close of `token` if it is not done after some ticks.
    pub(super) fn linger(&mut self, token: Token) {
        self.timers.lingering.push_back((token, self.timers.linger_ticks));
        self.arm_linger();
    }

    fn arm_linger(&mut self) {
        if self.timers.is_linger_armed {
            return;
        }
        self.timers.is_linger_armed = true;
        *self.timers.linger = Timespec::from(LINGER_TICK);
        let entry = opcode::Timeout::new(&raw const *self.timers.linger)
            .build()
            .user_data(Kind::Linger.key(0, 0));
        // SAFETY: as for the deadline; the flag above keeps it to one at a time.
        unsafe { self.kernel.push(&entry) };
    }

    pub(super) fn on_linger_tick(&mut self) {
        self.timers.is_linger_armed = false;
        self.timers.linger_ticks += 1;
        let now = self.timers.linger_ticks;
        while let Some((token, since)) = self.timers.lingering.front().copied() {
            if now.saturating_sub(since) <= LINGER_TICKS {
                break;
            }
            self.timers.lingering.pop_front();
            if self.table.peek(token).is_some() {
                self.counters.lingers_cut += 1;
                self.close(token);
            }
        }
        if !self.timers.lingering.is_empty() {
            self.arm_linger();
        }
    }

    pub(super) fn cancel_timers(&mut self) {
        self.timers.wanted = None;
        self.timers.lingering.clear();
        self.remove_deadline();
        let armed = [
            (Kind::AcceptRetry, self.timers.is_accept_retry_armed),
            (Kind::Linger, self.timers.is_linger_armed),
        ];
        for (kind, is_armed) in armed {
            if is_armed {
                self.kernel.push_timeout_remove(kind.key(0, 0), Kind::CancelOther.key(0, 0));
            }
        }
    }
}
