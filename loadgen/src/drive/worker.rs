//! One load thread: its ring, its miners, and the turn that serves them.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rg_ring::{Bell, Event, Token, Uring, UringLimits};
use work::{Mono, Now};

use super::dial::{Dialled, Dialler};
use super::pace::{Budget, HASHES_PER_VISIT};
use super::seat::{Seat, UNSENT_BYTES_MAX};
use super::switches::Switches;
use super::{Shared, lock};
use crate::miner::{Miner, MinerError, MinerEvent, Step};
use crate::report::Tally;

/// Events taken before connects and housekeeping get their turn.
const EVENTS_PER_TURN: usize = 1_024;

/// Microseconds of hashing between two looks at the network.
const HASH_SLICE_MICROS: u64 = 200;

/// Microseconds from one round over all miners' budgets to the next.
const HASH_ROUND_MICROS: u64 = 10_000;

/// Microseconds between two checks of deadlines and windows.
const HOUSEKEEPING_MICROS: u64 = 100_000;

/// Microseconds between two copies of the tally for the report.
const PUBLISH_MICROS: u64 = 1_000_000;

/// Longest sleep: a stop is noticed by then.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Sleep while a connect is under way, which the ring does not wake for.
const SLEEP_DIALLING: Duration = Duration::from_millis(1);

/// Milliseconds that shares may still be answered in after the run.
const DRAIN_MS: u64 = 2_000;

/// Memory of the ring: 4 096 buffers of 2 kB receive a job for every miner at once.
const RECEIVE_BUFFERS: u16 = 4_096;
const RECEIVE_BUFFER_BYTES: usize = 2_048;

/// What a thread owns.
pub struct Worker<'a> {
    shared: &'a Shared,
    slot: &'a Mutex<Tally>,
    uring: Uring,
    seats: Vec<Seat>,
    /// Beside the seats, because every round looks at all of them.
    budgets: Vec<Budget>,
    /// The seat of each slot of the ring.
    seat_of_slot: Vec<usize>,
    dialler: Dialler,
    dialled: Vec<Dialled>,
    switches: Switches,
    tally: Tally,
    hash_cursor: usize,
    /// Somebody had more due in this round than one visit hashes.
    is_behind: bool,
    hash_round_began: Mono,
    housekeeping_at: Mono,
    publish_at: Mono,
}

impl<'a> Worker<'a> {
    /// Everything ready, nothing connected. Called on the thread that runs it.
    pub fn new(
        shared: &'a Shared,
        miners: Vec<Miner>,
        threads: usize,
        slot: &'a Mutex<Tally>,
    ) -> io::Result<Worker<'a>> {
        let plan = &shared.plan;
        let limits = UringLimits {
            connections_max: miners.len(),
            receive_buffers: RECEIVE_BUFFERS,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
            send_buffers_kept: miners.len(),
        };
        let uring = Uring::new(limits, &Bell::new()?)?;
        let ramp = plan.ramp_per_second / threads as f64;
        let mut dialler = Dialler::new(plan.target, ramp, plan.source_addresses);
        (0..miners.len()).for_each(|seat| dialler.ask(seat, Mono(0)));
        Ok(Worker {
            shared,
            slot,
            uring,
            budgets: vec![Budget::default(); miners.len()],
            seats: miners.into_iter().map(Seat::new).collect(),
            seat_of_slot: Vec::new(),
            dialler,
            dialled: Vec::new(),
            switches: Switches::new().map_err(io::Error::other)?,
            tally: lock(slot).clone(),
            hash_cursor: 0,
            is_behind: false,
            hash_round_began: Mono(0),
            housekeeping_at: Mono(0),
            publish_at: Mono(0),
        })
    }

    /// Works until the plan's duration is over or it is told to stop, then waits a little for
    /// answers that are under way.
    ///
    /// # Errors
    /// The ring cannot go on.
    pub fn run(&mut self) -> io::Result<()> {
        let duration = self.shared.plan.duration;
        let end = duration.map(|duration| Mono(0) + duration);
        while !self.is_over(end) {
            let handled = self.serve();
            let now = self.shared.clock.now();
            self.connect(now);
            self.keep_house(now);
            self.uring.submit()?;
            if handled < EVENTS_PER_TURN {
                let sleep = self.hash();
                self.uring.wait(Some(sleep))?;
            }
        }
        self.drain()?;
        let now = self.shared.clock.mono();
        let board = &self.shared.board;
        self.switches.close(&self.seats, now, board, &mut self.tally, true);
        for seat in &self.seats {
            self.tally.accepted_sum =
                self.tally.accepted_sum.saturating_add(seat.miner.report().accepted_sum);
            self.tally.count_unanswered(&seat.miner);
        }
        lock(self.slot).clone_from(&self.tally);
        Ok(())
    }

    fn is_over(&self, end: Option<Mono>) -> bool {
        let has_ended = end.is_some_and(|end| end <= self.shared.clock.mono());
        has_ended || self.shared.stop.load(Ordering::Relaxed)
    }

    /// Serves the network without hashing or connecting until no share waits for its answer.
    fn drain(&mut self) -> io::Result<()> {
        let end = self.shared.clock.mono().plus_millis(DRAIN_MS);
        while self.tally.pending() > 0 && self.shared.clock.mono() < end {
            self.serve();
            self.uring.submit()?;
            self.uring.wait(Some(SLEEP_MAX))?;
        }
        Ok(())
    }

    /// Takes what the ring has, up to a limit; returns how much it was.
    fn serve(&mut self) -> usize {
        for handled in 0..EVENTS_PER_TURN {
            let Some(event) = self.uring.next_event() else { return handled };
            let now = self.shared.clock.now();
            match event {
                Event::Received { token, mut bytes } => self.on_bytes(now, token, &mut bytes),
                Event::Sent { token, result: Ok(()) } => {
                    if let Some(index) = self.index_of(token) {
                        self.flush(index);
                    }
                }
                Event::Sent { token, result: Err(error) } => {
                    self.lose(now, token, "send_failed", &io_text(error));
                }
                Event::ReceiveClosed { token, error: Some(error) } => {
                    self.lose(now, token, "receive_failed", &io_text(error));
                }
                Event::ReceiveClosed { token, error: None } => {
                    self.lose(now, token, "closed_by_server", "the server closed the connection");
                }
                Event::Accepted { .. } | Event::AcceptFailed { .. } | Event::Deadline => {}
            }
        }
        EVENTS_PER_TURN
    }

    fn index_of(&self, token: Token) -> Option<usize> {
        let index = *self.seat_of_slot.get(token.slot())?;
        (self.seats.get(index)?.token == Some(token)).then_some(index)
    }

    fn on_bytes(&mut self, now: Now, token: Token, bytes: &mut [u8]) {
        let Some(index) = self.index_of(token) else { return };
        let Some(seat) = self.seats.get_mut(index) else { return };
        let result = seat.miner.on_bytes(now, bytes, &mut seat.unsent);
        self.take_events(index, now.mono);
        match result {
            Ok(()) => self.flush(index),
            Err(error) => self.give_up(now, index, &error),
        }
    }

    fn take_events(&mut self, index: usize, at: Mono) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        // Taken out so that the seat is free; the events' memory goes back below.
        let mut events: Vec<MinerEvent> = seat.miner.take_events();
        let mut has_new_work = false;
        for event in events.drain(..) {
            self.tally.count_event(&event, at);
            match event {
                MinerEvent::Secured => self.tally.legs.act2.record(seat.next_leg(at)),
                MinerEvent::SetUp => self.tally.legs.setup.record(seat.next_leg(at)),
                MinerEvent::Opened { .. } => {
                    self.tally.channels_open += 1;
                    seat.channels_open += 1;
                    if !seat.is_open {
                        self.tally.legs.open.record(seat.next_leg(at));
                        self.tally.open += 1;
                        seat.is_open = true;
                    }
                }
                MinerEvent::ChannelClosed { .. } => {
                    self.tally.channels_open -= 1;
                    seat.channels_open -= 1;
                }
                MinerEvent::TipSwitched { prev_hash, .. } if seat.working_since.is_none() => {
                    self.tally.legs.first_job.record(seat.next_leg(at));
                    self.tally.legs.total.record(at.micros_since(seat.dial_began));
                    seat.working_since = Some(at);
                    seat.prev_hash = prev_hash;
                    has_new_work = true;
                }
                // A connection has switched when the last of its channels has.
                MinerEvent::TipSwitched { prev_hash, is_complete: true, .. } => {
                    let board = &self.shared.board;
                    self.switches.on_switch(seat, prev_hash, at, board, &mut self.tally);
                    has_new_work = true;
                }
                MinerEvent::TipSwitched { .. }
                | MinerEvent::JobReceived { min_ntime: Some(_), .. } => has_new_work = true,
                MinerEvent::Violation(error) => {
                    self.tally.error(error.code(), || format!("miner {index}: {error}"));
                }
                _ => {}
            }
        }
        seat.miner.give_back_events(events);
        if has_new_work && let Some(budget) = self.budgets.get_mut(index) {
            budget.set_rate(self.shared.plan.pace.hashrate_of(&seat.miner), at);
        }
    }

    /// Sends what waits, unless a send is in flight, whose end comes back here.
    fn flush(&mut self, index: usize) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        let Some(token) = seat.token else { return };
        if seat.unsent.is_empty() || self.uring.is_sending(token) {
            return;
        }
        let bytes = std::mem::replace(&mut seat.unsent, self.uring.take_buffer());
        // Refused only while a send is in flight or after a close, which were both excluded.
        if let Err(refused) = self.uring.send(token, bytes) {
            self.uring.give_back_buffer(refused.bytes);
        }
    }

    fn connect(&mut self, now: Now) {
        self.dialler.begin(now.mono, &mut self.dialled);
        self.dialler.finish(now.mono, &mut self.dialled);
        let mut dialled = std::mem::take(&mut self.dialled);
        for dialled in dialled.drain(..) {
            self.on_dialled(dialled);
        }
        self.dialled = dialled;
    }

    fn on_dialled(&mut self, dialled: Dialled) {
        let now = self.shared.clock.now();
        let index = dialled.seat;
        let added =
            dialled.stream.and_then(|stream| self.uring.add(stream).map_err(io::Error::other));
        let token = match added {
            Ok(token) => token,
            Err(error) => {
                let target = &self.shared.plan.target_text;
                self.tally.error("connect_failed", || format!("connect to {target}: {error}"));
                self.ask_again(index, now.mono);
                return;
            }
        };
        let Some(seat) = self.seats.get_mut(index) else { return };
        if self.seat_of_slot.len() <= token.slot() {
            self.seat_of_slot.resize(token.slot() + 1, usize::MAX);
        }
        if let Some(place) = self.seat_of_slot.get_mut(token.slot()) {
            *place = index;
        }
        seat.token = Some(token);
        seat.dial_began = dialled.began;
        seat.leg_began = dialled.began;
        self.tally.connects += 1;
        self.tally.legs.tcp.record(seat.next_leg(now.mono));
        seat.miner.on_connected(now, &mut seat.unsent);
        self.flush(index);
    }

    fn ask_again(&mut self, index: usize, now: Mono) {
        if let Some(delay) = self.shared.plan.reconnect_ms {
            self.dialler.ask(index, now.plus_millis(delay));
        }
    }

    /// The miner ended the connection.
    fn give_up(&mut self, now: Now, index: usize, error: &MinerError) {
        // Being asked to leave is no error; everything else is.
        if *error != MinerError::ReconnectAsked {
            self.tally.error(error.code(), || format!("miner {index}: {error}"));
        }
        self.vacate(now, index);
    }

    /// The connection ended by itself.
    fn lose(&mut self, now: Now, token: Token, code: &str, text: &str) {
        let Some(index) = self.index_of(token) else { return };
        let step = self.seats.get(index).map_or(Step::Idle, |seat| seat.miner.step());
        self.tally.error(code, || format!("miner {index}, {step}: {text}"));
        self.vacate(now, index);
    }

    fn vacate(&mut self, now: Now, index: usize) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        if let Some(token) = seat.token {
            self.uring.close(token);
        }
        self.tally.disconnects += 1;
        self.tally.open -= u64::from(seat.is_open);
        self.tally.channels_open -= seat.channels_open;
        self.tally.count_unanswered(&seat.miner);
        seat.miner.on_disconnected(now);
        seat.vacate();
        if let Some(budget) = self.budgets.get_mut(index) {
            budget.stop();
        }
        self.ask_again(index, now.mono);
    }

    fn keep_house(&mut self, now: Now) {
        if self.housekeeping_at > now.mono {
            return;
        }
        self.housekeeping_at = Mono(now.mono.0 + HOUSEKEEPING_MICROS);
        for index in 0..self.seats.len() {
            self.check_deadline(now, index);
        }
        let board = &self.shared.board;
        self.switches.close(&self.seats, now.mono, board, &mut self.tally, false);
        if self.publish_at <= now.mono {
            self.publish_at = Mono(now.mono.0 + PUBLISH_MICROS);
            lock(self.slot).clone_from(&self.tally);
        }
    }

    fn check_deadline(&mut self, now: Now, index: usize) {
        let Some(seat) = self.seats.get_mut(index).filter(|seat| seat.token.is_some()) else {
            return;
        };
        if let Err(error) = seat.miner.on_deadline(now) {
            self.give_up(now, index, &error);
        }
    }

    /// Hashes for a slice of time what is due. Returns how long may be slept after it.
    fn hash(&mut self) -> Duration {
        let idle = if self.dialler.is_dialling() { SLEEP_DIALLING } else { SLEEP_MAX };
        let mut now = self.shared.clock.now();
        if self.hash_cursor >= self.budgets.len() {
            let next = Mono(self.hash_round_began.0 + HASH_ROUND_MICROS);
            if next > now.mono && !self.is_behind {
                return Duration::from_micros(next.micros_since(now.mono)).min(idle);
            }
            self.hash_cursor = 0;
            self.is_behind = false;
            self.hash_round_began = now.mono;
        }
        let end = Mono(now.mono.0 + HASH_SLICE_MICROS);
        while self.hash_cursor < self.budgets.len() {
            if self.hash_one(now, self.hash_cursor) {
                now = self.shared.clock.now();
                if now.mono >= end {
                    return Duration::ZERO;
                }
            } else {
                self.hash_cursor += 1;
            }
        }
        // A next round follows; the time to it is slept in the next turn.
        Duration::ZERO
    }

    /// Hashes for one miner. Returns whether it was anything.
    fn hash_one(&mut self, now: Now, index: usize) -> bool {
        let Some(budget) = self.budgets.get_mut(index) else { return false };
        let (due, given_up) = budget.due(now.mono);
        self.tally.hashes_behind += given_up;
        let Some(seat) = self.seats.get_mut(index).filter(|_| due > 0) else { return false };
        if seat.unsent.len() > UNSENT_BYTES_MAX {
            budget.forgive(now.mono);
            return false;
        }
        let hashes = due.min(HASHES_PER_VISIT);
        self.is_behind |= hashes < due;
        match seat.miner.mine(now, hashes, &mut seat.unsent) {
            Ok(mined) => {
                self.tally.hashes += u64::from(mined.hashes);
                if mined.hashes == 0 {
                    budget.forgive(now.mono);
                    return false;
                }
                budget.pay(mined.hashes, now.mono);
                if mined.shares > 0 {
                    self.take_events(index, now.mono);
                    self.flush(index);
                }
                // A miner that is far behind has to let the others hash.
                self.hash_cursor += 1;
                true
            }
            Err(error) => {
                self.give_up(now, index, &error);
                false
            }
        }
    }
}

fn io_text(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}
