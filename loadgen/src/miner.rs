//! One miner as a machine: sealed bytes and the time go in, sealed bytes and events come out.
//!
//! The life of a connection: [`Miner::on_connected`] writes act 1; [`Miner::on_bytes`] finishes
//! the handshake, sends `SetupConnection`, opens one standard channel and takes in jobs, tips and
//! targets; [`Miner::mine`] hashes real headers and submits what it finds. After any error the
//! connection is over: close it and, if wanted, call `on_connected` again.
//!
//! The miner is strict on purpose. It is the other end of every test of the gateway, so whatever
//! the specification or working firmware does not allow is a [`MinerError`], not something to be
//! put up with. It is deterministic: everything random comes from its seed, time is an argument.
//! Once a channel is open nothing allocates, as long as events are drained and the caller keeps
//! its `wire` buffer.
//!
//! Not covered: extended channels, custom jobs, extension negotiation. A miner without
//! `REQUIRES_STANDARD_JOBS` takes the extended jobs of its group and computes its own roots.

mod config;
mod error;
mod event;
mod facts;
mod fake;
mod jobs;
mod receive;
mod search;
mod shares;

pub use config::{Device, MinerConfig, NtimeRolling};
pub use error::{CODE_BYTES_MAX, Code, MinerError, Step};
pub use event::{EVENTS_MAX, MinerEvent, Prefix};
pub use facts::{CODES_MAX, MinerReport, Rejects, SeenTip, TIPS_KEPT};
pub use fake::Fake;
pub use jobs::{ACTIVE_JOBS_MAX, FUTURE_JOBS_MAX, MiningJob};
pub use shares::OUTSTANDING_MAX;

use std::vec::Drain;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use sv2::message::mining::{CloseChannel, SubmitSharesStandard};
use sv2::{ACT2_BYTES, Ephemeral, Initiator, Message, Opened, Transport};
use work::share::Claim;
use work::{BlockHash, Mono, Now, Target, Tip};

use jobs::Jobs;
use search::{Found, Search};
use shares::{Outstanding, Sent};

/// Stash capacity in bytes that an idle connection keeps; what a long frame needed beyond it is
/// freed when that frame has been taken in.
const STASH_KEPT_BYTES: usize = 1_024;

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
    channel_id: u32,
    group_channel_id: u32,
    target: Target,
    jobs: Jobs,
    search: Option<Search>,
    /// As configured, unless the server of this connection fixes the version.
    rolls_version: bool,
    outstanding: Outstanding,
    next_sequence_number: u32,
    last_submit: Option<Mono>,
    last_share: Option<SubmitSharesStandard>,
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
            channel_id: 0,
            group_channel_id: 0,
            target: Target::ZERO,
            jobs: Jobs::default(),
            search: None,
            rolls_version: config.rolls_version,
            outstanding: Outstanding::default(),
            next_sequence_number: config.first_sequence_number,
            last_submit: None,
            last_share: None,
            events: Vec::new(),
            report: MinerReport::default(),
            config,
        }
    }

    /// A connection is there: forgets the one before and writes the 64 bytes of act 1.
    pub fn on_connected(&mut self, now: Now, wire: &mut Vec<u8>) {
        self.on_disconnected(now);
        self.report.connections += 1;
        self.rolls_version = self.config.rolls_version;
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
        self.report.channel_id = None;
        self.report.target = None;
        self.report.extranonce_prefix.clear();
        self.link = Link::None;
        self.stash.clear();
        self.jobs.clear();
        self.search = None;
        self.last_share = None;
        self.last_submit = None;
        self.next_sequence_number = self.config.first_sequence_number;
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

    /// Time has passed: ends a step that took too long.
    ///
    /// # Errors
    /// [`MinerError::Timeout`], after which the connection is to be closed.
    pub fn on_deadline(&mut self, now: Now) -> Result<(), MinerError> {
        match self.deadline() {
            Some(deadline) if deadline <= now.mono => {
                let error =
                    MinerError::Timeout { step: self.step, after_ms: self.config.step_timeout_ms };
                self.link = Link::None;
                self.enter(Step::Idle, now);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Tries up to `hashes` headers of the current job and submits each share found. Without a
    /// job, or while [`OUTSTANDING_MAX`] shares are unanswered, it does nothing.
    ///
    /// # Errors
    /// [`MinerError::Transport`] when a share cannot be sealed.
    pub fn mine(&mut self, now: Now, hashes: u32, wire: &mut Vec<u8>) -> Result<Mined, MinerError> {
        let mut mined = Mined::default();
        self.refresh_ntime(now);
        while mined.hashes < hashes && !self.outstanding.is_full() && self.may_submit(now) {
            let Some(search) = &mut self.search else { break };
            let (tried, found) = search.run(hashes - mined.hashes);
            mined.hashes += tried;
            self.report.hashes += u64::from(tried);
            let Some(found) = found else { break };
            let job_id = search.job.job_id;
            search.roll_if_allowed();
            self.submit_found(now, job_id, &found, wire)?;
            mined.shares += 1;
            mined.blocks += u32::from(found.is_block);
        }
        Ok(mined)
    }

    /// Closes the channel from this side; the server sends nothing for it any more.
    ///
    /// # Errors
    /// [`MinerError::Transport`] when it cannot be sealed.
    pub fn close_channel(&mut self, now: Now, wire: &mut Vec<u8>) -> Result<(), MinerError> {
        if !self.is_open() {
            return Ok(());
        }
        let message = CloseChannel { channel_id: self.channel_id, reason_code: b"miner-stops" };
        self.seal(&message, wire)?;
        self.on_disconnected(now);
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

    /// When [`Miner::on_deadline`] has something to do; `None` while mining or not connected.
    pub fn deadline(&self) -> Option<Mono> {
        let is_waiting = !matches!(self.step, Step::Idle | Step::Mining);
        is_waiting.then(|| self.step_since.plus_millis(self.config.step_timeout_ms))
    }

    /// Whether there is a channel.
    pub fn is_open(&self) -> bool {
        matches!(self.step, Step::Waiting | Step::Mining)
    }

    /// The job that is mined.
    pub fn current_job(&self) -> Option<&MiningJob> {
        self.jobs.current()
    }

    /// The tip that is mined on.
    pub fn tip(&self) -> Option<Tip> {
        self.jobs.tip()
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

    fn refresh_ntime(&mut self, now: Now) {
        let Some(search) = &mut self.search else { return };
        // `Jobs` keeps a time on every active job.
        let earliest = search.job.min_ntime.unwrap_or(search.tip.min_ntime);
        let ntime = match self.config.ntime {
            NtimeRolling::Fixed => earliest,
            NtimeRolling::Elapsed => {
                let seconds = now.mono.micros_since(search.job.since) / 1_000_000;
                earliest.saturating_add(u32::try_from(seconds).unwrap_or(u32::MAX))
            }
            NtimeRolling::Clock { ahead_seconds } => {
                earliest.max(now.unix.seconds().saturating_add(ahead_seconds))
            }
        };
        search.set_ntime(ntime);
    }

    fn submit_found(
        &mut self,
        now: Now,
        job_id: u32,
        found: &Found,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let message = self.share_message(job_id, &found.claim);
        self.submit(now, message, found.hash, false, wire)?;
        if found.is_block {
            self.report.blocks_found += 1;
            self.event(MinerEvent::BlockFound { block_hash: found.hash, job_id });
        }
        Ok(())
    }

    fn share_message(&self, job_id: u32, claim: &Claim) -> SubmitSharesStandard {
        SubmitSharesStandard {
            channel_id: self.channel_id,
            sequence_number: self.next_sequence_number,
            job_id,
            nonce: claim.nonce,
            ntime: claim.ntime,
            version: claim.version,
        }
    }

    fn submit(
        &mut self,
        now: Now,
        message: SubmitSharesStandard,
        share_hash: BlockHash,
        is_fake: bool,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        self.seal(&message, wire)?;
        let SubmitSharesStandard { channel_id, sequence_number, job_id, .. } = message;
        self.next_sequence_number = self.next_sequence_number.wrapping_add(1);
        self.outstanding.push(Sent { channel_id, sequence_number, at: now.mono, is_fake });
        self.last_submit = Some(now.mono);
        if !is_fake {
            self.last_share = Some(message);
        }
        self.report.submitted += 1;
        self.report.fakes_submitted += u64::from(is_fake);
        self.report.outstanding = self.outstanding.len();
        self.event(MinerEvent::ShareSubmitted { sequence_number, job_id, share_hash });
        Ok(())
    }
}
