//! One miner as a machine: sealed bytes and the time go in, sealed bytes and events come out.
//!
//! The life of a connection: [`Miner::on_connected`] writes act 1; [`Miner::on_bytes`] finishes
//! the handshake, sends `SetupConnection`, asks for extensions, opens channels and takes in jobs,
//! tips and targets; [`Miner::mine`] hashes real headers and submits what it finds. After any
//! error the connection is over: close it and, if wanted, call `on_connected` again.
//!
//! The miner is strict on purpose. It is the other end of every test of the gateway, so whatever
//! the specification or working firmware does not allow is a [`MinerError`], not something to be
//! put up with. It is deterministic: everything random comes from its seed, time is an argument.
//! Once a channel is open no share allocates, as long as events are drained and the caller keeps
//! its `wire` buffer; tips and extended jobs do.
//!
//! A connection has one channel or many, of either kind. Without `REQUIRES_STANDARD_JOBS` they are
//! in groups: one extended job is then for all members, a standard channel computes its own root
//! from it, and an extended one rolls its part of the extranonce. [`Profile`] binds the machine to
//! the limits of devices in the field.
//!
//! Not covered: custom jobs.

mod channel;
mod coinbase;
mod config;
mod error;
mod event;
mod facts;
mod fake;
mod jobs;
mod opening;
mod profile;
mod receive;
mod search;
mod shares;
mod submit;

pub use channel::ChannelView;
pub use coinbase::CoinbaseFault;
pub use config::{
    CHANNELS_MAX, ChannelKind, ChannelKinds, Device, MinerConfig, NtimeRolling,
    OPENS_IN_FLIGHT_MAX, WorkerTlv,
};
pub use error::{CODE_BYTES_MAX, Code, MinerError, Step};
pub use event::{EVENTS_MAX, MinerEvent, Prefix};
pub use facts::{CODES_MAX, MinerReport, Rejects, SeenTip, TIPS_KEPT};
pub use fake::Fake;
pub use jobs::{ACTIVE_JOBS_MAX, FUTURE_JOBS_MAX, MiningJob};
pub use profile::{
    BITAXE_FUTURE_SLOTS, BITAXE_PAYLOAD_MAX, BITAXE_SILENCE_MS, BITAXE_VERSION_MASK, Profile,
};
pub use shares::OUTSTANDING_MAX;

use std::vec::Drain;

use arrayvec::ArrayVec;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sv2::message::mining::CloseChannel;
use sv2::{ACT2_BYTES, Ephemeral, Initiator, Message, Opened, Transport};
use work::{Mono, Now, Tip};

use channel::Channel;
use opening::PendingOpen;
use shares::Outstanding;
use submit::Share;

/// Stash capacity in bytes that an idle connection keeps; what a long frame needed beyond it is
/// freed when that frame has been taken in.
const STASH_KEPT_BYTES: usize = 1_024;

/// Numbers of closed channels and groups that are remembered, because messages for them may still
/// be on their way.
const CLOSED_REMEMBERED: usize = 2 * CHANNELS_MAX;

/// What [`Miner::mine`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mined {
    /// Headers hashed.
    pub hashes: u32,
    /// Shares written to the wire.
    pub shares: u32,
    /// How many of them meet the bits of their tip.
    pub blocks: u32,
}

/// How far the connection's cipher is.
enum Link {
    None,
    Handshake(Initiator),
    Sealed(Box<Transport>),
}

/// A miner; see the page of this module.
pub struct Miner {
    config: MinerConfig,
    random: ChaCha20Rng,
    link: Link,
    step: Step,
    step_since: Mono,
    /// The unfinished frame, or part of act 2, at the end of the bytes received so far. Its length
    /// is bounded by the longest frame that the transport accepts.
    stash: Vec<u8>,
    /// In the order in which they were opened; at most what was asked for.
    channels: Vec<Channel>,
    opens: ArrayVec<PendingOpen, OPENS_IN_FLIGHT_MAX>,
    /// Requests made on this connection; the number of the latest.
    opens_asked: u32,
    /// At most [`CLOSED_REMEMBERED`].
    closed: Vec<u32>,
    /// Whether the server of this connection fixes the version.
    is_version_fixed: bool,
    /// Whether extension 0x0002 is in use.
    names_workers: bool,
    outstanding: Outstanding,
    /// Which channel is mined next: this number modulo how many there are.
    cursor: usize,
    last_submit: Option<Mono>,
    next_update: Option<Mono>,
    last_share: Option<Share>,
    /// When the connection was made or the latest frame came.
    heard_at: Mono,
    events: Vec<MinerEvent>,
    report: MinerReport,
}

impl Miner {
    /// A miner that is not connected. Equal seeds and inputs give equal outputs; two miners of one
    /// test have different seeds.
    pub fn new(config: MinerConfig, seed: u64) -> Miner {
        Miner {
            random: ChaCha20Rng::seed_from_u64(seed),
            link: Link::None,
            step: Step::Idle,
            step_since: Mono(0),
            stash: Vec::new(),
            channels: Vec::new(),
            opens: ArrayVec::new(),
            opens_asked: 0,
            closed: Vec::new(),
            is_version_fixed: false,
            names_workers: false,
            outstanding: Outstanding::default(),
            cursor: 0,
            last_submit: None,
            next_update: None,
            last_share: None,
            heard_at: Mono(0),
            events: Vec::new(),
            report: MinerReport::default(),
            config,
        }
    }

    /// A connection is there: forgets the one before and writes the 64 bytes of act 1.
    pub fn on_connected(&mut self, now: Now, wire: &mut Vec<u8>) {
        self.on_disconnected(now);
        self.report.connections += 1;
        self.heard_at = now.mono;
        let ephemeral = Ephemeral::generate(&mut self.random);
        let (initiator, act1) = Initiator::new(self.config.authority, ephemeral);
        self.link = Link::Handshake(initiator);
        self.enter(Step::Handshake, now);
        wire.extend_from_slice(&act1);
    }

    /// The connection is gone. Shares without an answer count as unanswered.
    pub fn on_disconnected(&mut self, now: Now) {
        self.report.unanswered += self.outstanding.len() as u64;
        self.outstanding.clear();
        self.report.outstanding = 0;
        self.link = Link::None;
        self.stash.clear();
        self.channels.clear();
        self.opens.clear();
        self.opens_asked = 0;
        self.closed.clear();
        self.is_version_fixed = false;
        self.names_workers = false;
        self.last_share = None;
        self.last_submit = None;
        self.next_update = None;
        self.refresh_report();
        self.enter(Step::Idle, now);
    }

    /// Bytes came; they are decrypted in place. Answers are appended to `wire`. Any splitting of
    /// the stream gives the same result.
    ///
    /// # Errors
    /// The connection is over, see [`MinerError`]; `wire` may still hold what was to be sent.
    pub fn on_bytes(
        &mut self,
        now: Now,
        input: &mut [u8],
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let taken = if self.stash.is_empty() {
            let taken = self.take_in(now, input, wire);
            let rest = taken.as_ref().ok().and_then(|used| input.get(*used..));
            self.stash.extend_from_slice(rest.unwrap_or_default());
            taken
        } else {
            let mut stash = std::mem::take(&mut self.stash);
            stash.extend_from_slice(input);
            let taken = self.take_in(now, &mut stash, wire);
            stash.drain(..*taken.as_ref().unwrap_or(&0));
            if stash.is_empty() {
                stash.shrink_to(STASH_KEPT_BYTES);
            }
            self.stash = stash;
            taken
        };
        match taken {
            Ok(_) => Ok(()),
            Err(error) => {
                self.link = Link::None;
                self.enter(Step::Idle, now);
                Err(error)
            }
        }
    }

    /// Time has passed: ends a step that took too long, or a connection that the server let down.
    ///
    /// # Errors
    /// [`MinerError::Timeout`], [`MinerError::Silence`], [`MinerError::TargetWithoutJob`] or
    /// [`MinerError::TargetNotLowered`], after which the connection is to be closed.
    pub fn on_deadline(&mut self, now: Now) -> Result<(), MinerError> {
        match self.next_deadline() {
            Some((deadline, error)) if deadline <= now.mono => {
                self.link = Link::None;
                self.enter(Step::Idle, now);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Tries up to `hashes` headers of the current jobs, channel after channel, and submits each
    /// share found. Without a job, or while [`OUTSTANDING_MAX`] shares are unanswered, it does
    /// nothing but the `UpdateChannel` that may be due.
    ///
    /// # Errors
    /// [`MinerError::Transport`] when a share cannot be sealed.
    pub fn mine(&mut self, now: Now, hashes: u32, wire: &mut Vec<u8>) -> Result<Mined, MinerError> {
        self.update_when_due(now, wire)?;
        let mut mined = Mined::default();
        let mut tried_in_vain = 0;
        while mined.hashes < hashes
            && tried_in_vain < self.channels.len()
            && !self.outstanding.is_full()
            && self.may_submit(now)
        {
            let index = self.cursor % self.channels.len();
            self.cursor = index + 1;
            let Some(channel) = self.channels.get_mut(index) else { break };
            channel.refresh_ntime(now, self.config.ntime);
            let (tried, found) = match &mut channel.search {
                Some(search) => search.run(hashes - mined.hashes),
                None => (0, None),
            };
            tried_in_vain = if tried == 0 { tried_in_vain + 1 } else { 0 };
            mined.hashes += tried;
            self.report.hashes += u64::from(tried);
            if let Some(found) = found {
                self.submit_found(now, index, &found, wire)?;
                mined.shares += 1;
                mined.blocks += u32::from(found.is_block);
            }
        }
        Ok(mined)
    }

    /// Closes all channels from this side; the server sends nothing for them any more.
    ///
    /// # Errors
    /// [`MinerError::Transport`] when it cannot be sealed.
    pub fn close_channel(&mut self, now: Now, wire: &mut Vec<u8>) -> Result<(), MinerError> {
        while let Some(channel) = self.channels.first() {
            self.close(channel.id, wire)?;
        }
        self.on_disconnected(now);
        Ok(())
    }

    /// Closes one channel, or with a group's number all of the group, and goes on with the others.
    ///
    /// # Errors
    /// [`MinerError::Transport`] when it cannot be sealed.
    pub fn close(&mut self, channel_id: u32, wire: &mut Vec<u8>) -> Result<(), MinerError> {
        self.seal(&CloseChannel { channel_id, reason_code: b"miner-stops" }, wire)?;
        let is_ours =
            |channel: &Channel| channel.id == channel_id || channel.group_id == channel_id;
        for index in (0..self.channels.len()).rev() {
            if self.channels.get(index).is_some_and(is_ours) {
                self.drop_channel(index);
            }
        }
        Ok(())
    }

    /// Everything that happened since the last call, in order.
    pub fn drain_events(&mut self) -> Drain<'_, MinerEvent> {
        self.events.drain(..)
    }

    /// As [`Miner::drain_events`], with the memory they are in; to be brought back by
    /// [`Miner::give_back_events`] so that later events need none.
    pub fn take_events(&mut self) -> Vec<MinerEvent> {
        std::mem::take(&mut self.events)
    }

    /// Brings back what [`Miner::take_events`] took; what is left in it is dropped.
    pub fn give_back_events(&mut self, mut events: Vec<MinerEvent>) {
        if self.events.is_empty() && events.capacity() <= EVENTS_MAX {
            events.clear();
            self.events = events;
        }
    }

    /// Counters over all connections, and the state of the open channel.
    pub fn report(&self) -> &MinerReport {
        &self.report
    }

    /// How it was told to behave.
    pub fn config(&self) -> &MinerConfig {
        &self.config
    }

    /// The step the connection is in.
    pub fn step(&self) -> Step {
        self.step
    }

    /// When [`Miner::on_deadline`] has something to do; `None` if nothing is waited for.
    pub fn deadline(&self) -> Option<Mono> {
        self.next_deadline().map(|(deadline, _)| deadline)
    }

    /// Whether there is a channel.
    pub fn is_open(&self) -> bool {
        !self.channels.is_empty() && self.step != Step::Idle
    }

    /// The open channels, in the order in which they were opened.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = ChannelView<'_>> {
        self.channels.iter().map(Channel::view)
    }

    /// The job that is mined on the first channel.
    pub fn current_job(&self) -> Option<&MiningJob> {
        self.channels.first().and_then(Channel::job)
    }

    /// The tip that is mined on by the first channel.
    pub fn tip(&self) -> Option<Tip> {
        self.channels.first().and_then(|channel| channel.jobs.tip())
    }

    /// The earliest deadline, and the error that it is.
    fn next_deadline(&self) -> Option<(Mono, MinerError)> {
        let after_ms = self.config.step_timeout_ms;
        let step = match self.step {
            Step::Idle => return None,
            // Channels and requests have their own times.
            Step::Opening | Step::Waiting | Step::Mining => None,
            step => Some((self.step_since, step)),
        };
        let opens = self.opens.iter().map(|open| (open.since, Step::Opening));
        let idle = self.channels.iter().filter(|channel| channel.jobs.tip().is_none());
        let idle = idle.map(|channel| (channel.opened_at, Step::Waiting));
        let steps = step.into_iter().chain(opens).chain(idle).map(|(since, step)| {
            (since.plus_millis(after_ms), MinerError::Timeout { step, after_ms })
        });
        let silence = self.config.profile.silence_ms().into_iter().map(|after_ms| {
            (self.heard_at.plus_millis(after_ms), MinerError::Silence { after_ms })
        });
        let fresh = self.config.fresh_job_ms.into_iter().flat_map(|after_ms| {
            let late = move |since: Mono, error| (since.plus_millis(after_ms), error);
            self.channels.iter().flat_map(move |channel| {
                let channel_id = channel.id;
                let retargeted = channel.retargeted_at.map(|since| {
                    late(since, MinerError::TargetWithoutJob { channel_id, after_ms })
                });
                let lowering = channel.lowering.map(|(since, _)| {
                    late(since, MinerError::TargetNotLowered { channel_id, after_ms })
                });
                retargeted.into_iter().chain(lowering)
            })
        });
        steps.chain(silence).chain(fresh).min_by_key(|(deadline, _)| *deadline)
    }

    /// Forgets a channel that is closed. Its shares without an answer count as unanswered.
    fn drop_channel(&mut self, index: usize) {
        if index >= self.channels.len() {
            return;
        }
        let channel = self.channels.remove(index);
        self.report.unanswered += self.outstanding.forget(channel.id);
        self.report.outstanding = self.outstanding.len();
        let is_group_left = self.channels.iter().any(|other| other.group_id == channel.group_id);
        let group_id = (!is_group_left).then_some(channel.group_id);
        for id in [Some(channel.id), group_id].into_iter().flatten() {
            if self.closed.len() >= CLOSED_REMEMBERED {
                self.closed.remove(0);
            }
            self.closed.push(id);
        }
        self.refresh_report();
    }

    /// What the report says of the first channel.
    fn refresh_report(&mut self) {
        let first = self.channels.first();
        self.report.channel_id = first.map(|channel| channel.id);
        self.report.target = first.map(|channel| channel.target);
        self.report.extranonce_prefix =
            first.map(|channel| channel.prefix.clone()).unwrap_or_default();
    }

    fn enter(&mut self, step: Step, now: Now) {
        self.step = step;
        self.step_since = now.mono;
    }

    fn event(&mut self, event: MinerEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else {
            self.report.events_lost += 1;
        }
    }

    fn seal<M: Message>(&mut self, message: &M, wire: &mut Vec<u8>) -> Result<(), MinerError> {
        match &mut self.link {
            Link::Sealed(transport) => transport.seal(message, wire).map_err(MinerError::Transport),
            _ => Err(MinerError::NotConnected),
        }
    }

    /// Takes in all that is complete in `bytes` and returns how much that is.
    fn take_in(
        &mut self,
        now: Now,
        bytes: &mut [u8],
        wire: &mut Vec<u8>,
    ) -> Result<usize, MinerError> {
        let mut used = 0;
        if matches!(self.link, Link::Handshake(_)) {
            let Some(act2) = bytes.first_chunk::<ACT2_BYTES>() else { return Ok(0) };
            self.finish_handshake(now, act2, wire)?;
            used = ACT2_BYTES;
        }
        // Bounded by the input: every frame has at least the bytes of its sealed header.
        while let Some(rest) = bytes.get_mut(used..) {
            let Link::Sealed(transport) = &mut self.link else {
                return Err(MinerError::NotConnected);
            };
            match transport.open(rest) {
                Opened::Need(_) => break,
                Opened::Error(error) => return Err(MinerError::Transport(error)),
                Opened::Frame { frame, consumed } => {
                    used += consumed;
                    self.on_frame(now, &frame, wire)?;
                }
            }
        }
        Ok(used)
    }

    fn may_submit(&self, now: Now) -> bool {
        let interval = self.config.submit_interval_min_ms;
        self.last_submit.is_none_or(|last| interval == 0 || last.plus_millis(interval) <= now.mono)
    }
}
