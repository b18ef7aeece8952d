//! An open connection's channels: what they are given, and the answer to each message about them.
//!
//! Channels of a miner that takes extended jobs are members of one group. Work that all of them
//! lack goes out once, to the group; what only some lack goes to those.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use sv2::message::common::{REQUIRES_STANDARD_JOBS, REQUIRES_WORK_SELECTION, SetupConnection};
use sv2::message::extension::{
    RequestExtensions, RequestExtensionsError, RequestExtensionsSuccess,
};
use sv2::message::mining::{
    SetCustomMiningJob, SetCustomMiningJobError, UpdateChannel, UpdateChannelError,
};
use sv2::message::{EXTENSION_CORE, EXTENSION_WORKER};
use sv2::{Transport, TransportError, U16Sequence};
use work::{Difficulty, Mono, Now};

use super::channel::{Channel, extended_job, new_tip};
use super::flood::{Excess, Flood};
use super::numbers::JobNumbers;
use super::opening::{self, OpenRefusal, Parked};
use super::output::{CLOSED_BY_MINER, ConnectionId, Device, Output, Report};
use super::refusals::{RefusalMeter, Sent};
use super::shard::{PendingAck, ShardState};
use crate::limits::{ACKS_PER_STEP, CHANNELS_ENDED_KEPT, OPENS_SPAN_MILLIS, WIRE_BYTES_PER_TURN};
use crate::metrics::shard as counter;
use crate::reason::Reason;

/// Channel id of the one group; channels count from the next number.
pub const GROUP_CHANNEL_ID: u32 = 1;

/// What an open connection holds.
#[derive(Debug)]
pub struct Session {
    /// By rising channel id.
    pub channels: Vec<Channel>,
    /// The numbers of its jobs.
    pub numbers: JobNumbers,
    /// Oldest first; counted in the shard's state.
    pub(super) parked: VecDeque<Parked>,
    pub(super) next_channel_id: u32,
    /// Since when how many channels were opened.
    pub(super) opened: (Mono, usize),
    /// Setup flags of the miner.
    pub(super) flags: u32,
    /// Whether extension 0x0002 was negotiated.
    pub(super) has_workers: bool,
    /// Channels that ended lately: a late share of one may still be a block.
    ended: VecDeque<Channel>,
    /// Channels with shares to acknowledge.
    tallies: usize,
    /// Channels whose new target no job has followed.
    fresh_wanted: usize,
    /// Generation of the board that all channels have.
    caught_up: u32,
    /// Whether the difficulties of its channels are to be looked at.
    is_look_due: bool,
    /// How many shares for no channel it may still send.
    pub(super) flood: Flood,
    /// What is told of them.
    pub(super) refusals: RefusalMeter,
    /// What the miner runs on.
    pub(super) device: Arc<Device>,
    /// Whether the connection was told as opened; then its end is told, too.
    is_told: bool,
    /// Why the connection ends behind the message that is being answered.
    pub(super) ending: Option<Reason>,
    /// Since when there is no channel.
    pub empty_since: Mono,
}

impl Session {
    /// No channels yet, for a miner that sets up a connection like this. Tells that it is here.
    pub fn new(
        (connection, peer): (ConnectionId, IpAddr),
        state: &mut ShardState,
        now: Now,
        setup: &SetupConnection<'_>,
    ) -> Session {
        let (flags, at, device) = (setup.flags, now.unix, Arc::new(Device::new(setup)));
        let device_told = Arc::clone(&device);
        let report = Report::ConnectionOpened { connection, peer, device: device_told, flags, at };
        let is_told = state.reports.push_connection(now, report, &mut state.counters);
        Session {
            channels: Vec::new(),
            numbers: JobNumbers::default(),
            parked: VecDeque::new(),
            next_channel_id: GROUP_CHANNEL_ID + 1,
            opened: (now.mono, 0),
            flags,
            has_workers: false,
            ended: VecDeque::new(),
            tallies: 0,
            fresh_wanted: 0,
            caught_up: 0,
            is_look_due: false,
            flood: Flood::new(now.mono),
            refusals: RefusalMeter::default(),
            device,
            is_told,
            ending: None,
            empty_since: Mono(0),
        }
    }

    /// A share of one of its channels is safe.
    pub fn acknowledge(&mut self, ack: &PendingAck) {
        let Some(channel) = self.find(ack.channel_id) else { return };
        let is_first = !channel.has_tally();
        channel.acknowledge(ack);
        self.tallies += usize::from(is_first);
    }

    /// Whether a step would give or tell something.
    pub fn has_work(&self, state: &ShardState) -> bool {
        let has_job = state.board.current().is_some();
        (has_job && !self.parked.is_empty()) || self.tallies > 0 || self.has_news(state)
    }

    /// Whether a step would give or tell something even without credit.
    pub fn has_news(&self, state: &ShardState) -> bool {
        self.is_look_due || self.is_behind(state) || self.may_have_fresh_jobs(state)
    }

    /// Whether jobs of ours are for this miner: one that selects its own work gets none (D49).
    pub fn takes_jobs(&self) -> bool {
        self.flags & REQUIRES_WORK_SELECTION == 0
    }

    /// Time has passed: what was held back of refused shares is told. Whether a channel's
    /// difficulty is to be looked at because of it.
    pub fn on_sweep(&mut self, id: ConnectionId, state: &mut ShardState, now: Now) -> bool {
        let ShardState { reports, counters, .. } = state;
        for channel in self.channels.iter_mut().filter(|channel| channel.refusals.is_holding()) {
            let due = channel.refusals.on_sweep(now.mono);
            reports.push_refusals(due, || channel.sent(id), counters);
        }
        let due = self.refusals.on_sweep(now.mono);
        reports.push_refusals(due, || Sent { connection: id, channel: None }, counters);
        let is_due = |channel: &Channel| now.mono >= channel.vardiff.next_look();
        self.is_look_due |= self.takes_jobs() && self.channels.iter().any(is_due);
        self.is_look_due
    }

    /// Its connection ends: give back what its channels held, and tell what is still to be told.
    pub fn end(
        &mut self,
        connection: ConnectionId,
        peer: IpAddr,
        state: &mut ShardState,
        now: Now,
        reason_code: &'static str,
    ) {
        state.parked -= self.parked.len();
        self.parked.clear();
        for mut channel in std::mem::take(&mut self.channels) {
            state.release(now, connection, &mut channel, reason_code);
        }
        let ShardState { reports, counters, .. } = state;
        let due = self.refusals.finish();
        reports.push_refusals(due, || Sent { connection, channel: None }, counters);
        if std::mem::take(&mut self.is_told) {
            let at = now.unix;
            let report = Report::ConnectionClosed { connection, peer, reason_code, at };
            reports.push_connection(now, report, counters);
        }
    }

    /// The open channel with this id.
    pub fn find(&mut self, channel_id: u32) -> Option<&mut Channel> {
        self.position(channel_id).map(|at| &mut self.channels[at])
    }

    pub(super) fn position(&self, channel_id: u32) -> Option<usize> {
        self.channels.binary_search_by_key(&channel_id, |channel| channel.channel_id).ok()
    }

    /// Channels that were opened in the current span of [`OPENS_SPAN_MILLIS`].
    pub(super) fn opened_lately(&mut self, now: Now) -> usize {
        if now.mono >= self.opened.0.plus_millis(OPENS_SPAN_MILLIS) {
            self.opened = (now.mono, 0);
        }
        self.opened.1
    }

    fn is_behind(&self, state: &ShardState) -> bool {
        let newest = state.board.current().map(|posted| posted.generation);
        let lacks = newest.is_some_and(|generation| generation != self.caught_up);
        lacks && !self.channels.is_empty() && self.takes_jobs()
    }

    fn may_have_fresh_jobs(&self, state: &ShardState) -> bool {
        self.fresh_wanted > 0
            && state.board.current().is_some()
            && self.numbers.has_room(state.board.oldest().unwrap_or(0))
    }

    /// A channel that ended lately.
    pub(super) fn ended(&self, channel_id: u32) -> Option<&Channel> {
        self.ended.iter().find(|channel| channel.channel_id == channel_id)
    }

    /// Whether a channel with this id was open once.
    pub(super) fn was_given(&self, channel_id: u32) -> bool {
        (GROUP_CHANNEL_ID + 1..self.next_channel_id).contains(&channel_id)
    }

    fn count_fresh_wanted(&mut self) {
        self.fresh_wanted = self.channels.iter().filter(|c| c.wants_fresh_job()).count();
    }
}

/// An open connection during one message, with everything its answer may need.
pub struct OpenConnection<'a> {
    /// Its name.
    pub id: ConnectionId,
    /// Where it comes from.
    pub peer: IpAddr,
    /// Its cipher.
    pub transport: &'a mut Transport,
    /// Its channels.
    pub session: &'a mut Session,
    /// Its shard.
    pub state: &'a mut ShardState,
    /// The time.
    pub now: Now,
    /// When the message came.
    pub received_at: Mono,
}

impl OpenConnection<'_> {
    /// Look whether a channel's shares come as often as they should.
    pub(super) fn look(&mut self, at: usize, out: &mut Output) -> Result<(), TransportError> {
        let channel = &mut self.session.channels[at];
        let (current, easiest) = (channel.difficulty(), channel.easiest);
        let goal = &self.state.goal;
        let Some(next) = channel.vardiff.look(self.now.mono, current, easiest, goal) else {
            return Ok(());
        };
        channel.flood.on_set_target(self.now.mono);
        self.set_difficulty(at, next, out)
    }

    /// A channel sends more shares than it may.
    pub(super) fn on_excess(
        &mut self,
        at: usize,
        excess: Excess,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let channel = &mut self.session.channels[at];
        match excess {
            Excess::Refuse => Ok(()),
            Excess::Retarget { times } => {
                let current = channel.difficulty();
                let next = channel.vardiff.on_flood(self.now.mono, current, times);
                let next = next.harder(self.state.goal.floor()).harder(channel.easiest);
                self.set_difficulty(at, next, out)
            }
            Excess::Close => {
                self.session.ending = Some(Reason::ShareRateExceeded);
                Ok(())
            }
        }
    }

    fn set_difficulty(
        &mut self,
        at: usize,
        difficulty: Difficulty,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let channel = &mut self.session.channels[at];
        let was_wanted = channel.wants_fresh_job();
        channel.set_difficulty(difficulty, self.transport, &mut out.wire)?;
        let is_wanted = channel.wants_fresh_job();
        self.session.fresh_wanted += usize::from(is_wanted && !was_wanted);
        self.state.counters.add(counter::SET_TARGETS, 1);
        Ok(())
    }

    /// Work that a miner chose itself is not served (D49).
    pub fn refuse_custom(
        &mut self,
        custom: &SetCustomMiningJob<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        self.count_refusal(Reason::SubscriberRoleViolation);
        let error = SetCustomMiningJobError {
            channel_id: custom.channel_id,
            request_id: custom.request_id,
            error_code: b"jd-not-supported",
        };
        self.transport.seal(&error, &mut out.wire)
    }

    /// Extension 0x0002 is supported, and none is required.
    pub fn on_request_extensions(
        &mut self,
        request: &RequestExtensions<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let request_id = request.request_id;
        if request.requested_extensions.contains(EXTENSION_WORKER) {
            self.session.has_workers = true;
            let supported_extensions = U16Sequence::new(&[EXTENSION_WORKER]);
            let success = RequestExtensionsSuccess { request_id, supported_extensions };
            return self.transport.seal(&success, &mut out.wire);
        }
        self.count_refusal(Reason::UnsupportedExtension);
        let error = RequestExtensionsError {
            request_id,
            unsupported_extensions: request.requested_extensions,
            required_extensions: U16Sequence::new(&[]),
        };
        self.transport.seal(&error, &mut out.wire)
    }

    /// A new hash rate or ceiling gives a new target, which holds from the next job on.
    pub fn on_update(
        &mut self,
        update: &UpdateChannel,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let channel_id = update.channel_id;
        let rate = update.nominal_hash_rate;
        let wanted = opening::difficulties(rate, update.maximum_target, &self.state.settings);
        let refusal: OpenRefusal = match (self.session.position(channel_id), wanted) {
            (None, _) if self.session.was_given(channel_id) => Reason::ChannelNotOpen.into(),
            (None, _) => Reason::UnknownChannelId.into(),
            (Some(_), Err(refusal)) => refusal,
            (Some(at), Ok((_, easiest))) => {
                let channel = &mut self.session.channels[at];
                channel.easiest = easiest;
                let current = channel.difficulty();
                let (now, goal) = (self.now.mono, &self.state.goal);
                let next = channel.vardiff.on_update(now, rate, current, easiest, goal);
                if next == current {
                    return Ok(());
                }
                channel.flood.on_update(now);
                return self.set_difficulty(at, next, out);
            }
        };
        self.count_refusal(refusal.reason);
        let error_code = refusal.error_code.as_bytes();
        self.transport.seal(&UpdateChannelError { channel_id, error_code }, &mut out.wire)
    }

    /// The miner ends a channel, or with the group's number all of them. No answer is due.
    pub fn on_close(&mut self, channel_id: u32) -> Result<(), TransportError> {
        if channel_id == GROUP_CHANNEL_ID && !self.session.channels.is_empty() {
            for channel in std::mem::take(&mut self.session.channels) {
                self.end_channel(channel);
            }
            (self.session.tallies, self.session.fresh_wanted) = (0, 0);
        } else if let Some(at) = self.session.position(channel_id) {
            // One close costs the same however many channels there are.
            let channel = self.session.channels.remove(at);
            self.session.tallies -= usize::from(channel.has_tally());
            self.session.fresh_wanted -= usize::from(channel.wants_fresh_job());
            self.end_channel(channel);
        } else {
            return Ok(());
        }
        if self.session.channels.is_empty() {
            self.session.empty_since = self.now.mono;
            self.state.counters.take(counter::OPEN);
            self.state.counters.add(counter::IN_SETUP, 1);
        }
        Ok(())
    }

    /// A frame of a type or an extension that is not known here is skipped.
    pub fn on_unknown(&mut self, extension_type: u16) {
        self.state.counters.add(counter::UNKNOWN_FRAMES, 1);
        let is_core = extension_type == EXTENSION_CORE;
        self.count_refusal(if is_core {
            Reason::UnknownMessageType
        } else {
            Reason::UnsupportedExtension
        });
    }

    fn end_channel(&mut self, mut channel: Channel) {
        self.state.release(self.now, self.id, &mut channel, CLOSED_BY_MINER);
        if self.session.ended.len() == CHANNELS_ENDED_KEPT {
            self.session.ended.pop_front();
        }
        channel.forget_shares();
        self.session.ended.push_back(channel);
    }

    /// Count something that was refused and ends nothing.
    pub fn count_refusal(&mut self, reason: Reason) {
        self.state.counters.add(counter::REFUSALS + reason as usize, 1);
    }

    /// Give every channel the newest work and tell what is safe, within one turn's bytes. Returns
    /// whether a new tip was given.
    pub fn catch_up(&mut self, out: &mut Output) -> Result<bool, TransportError> {
        let switched = self.session.is_behind(self.state) && self.give_work(out)?;
        if self.session.may_have_fresh_jobs(self.state) {
            self.give_fresh_jobs(out)?;
        }
        self.flush(out)?;
        while self.state.board.current().is_some()
            && out.wire.len() < WIRE_BYTES_PER_TURN
            && out.has_credit()
        {
            let Some(parked) = self.session.parked.pop_front() else { break };
            self.state.parked -= 1;
            self.on_unparked(&parked, out)?;
        }
        if self.session.is_look_due {
            self.look_at_all(out)?;
        }
        Ok(switched)
    }

    /// Look at the difficulties of all channels, within one turn's bytes.
    fn look_at_all(&mut self, out: &mut Output) -> Result<(), TransportError> {
        for at in 0..self.session.channels.len() {
            if out.wire.len() >= WIRE_BYTES_PER_TURN {
                return Ok(());
            }
            if self.now.mono >= self.session.channels[at].vardiff.next_look() {
                self.look(at, out)?;
            }
        }
        self.session.is_look_due = false;
        Ok(())
    }

    /// The newest job for all who lack it. Returns whether a new tip was given.
    fn give_work(&mut self, out: &mut Output) -> Result<bool, TransportError> {
        let Some(posted) = self.state.board.current() else { return Ok(false) };
        let generation = posted.generation;
        let oldest = self.state.board.oldest().unwrap_or(0);
        let Session { channels, numbers, flags, .. } = &mut *self.session;
        let job_id = numbers.job_id(generation);
        let behind = channels.iter().filter(|channel| channel.is_behind(posted)).count();
        let group_job_id = if *flags & REQUIRES_STANDARD_JOBS != 0 || behind < 2 {
            None
        } else if behind == channels.len() {
            Some(job_id)
        } else {
            // Some have it, under a number that the group cannot be given again.
            numbers.renumber(generation, oldest)
        };
        let mut switched = false;
        if let Some(job_id) = group_job_id {
            switched = self.give_group_job(job_id, out)?;
        } else {
            for channel in &mut self.session.channels {
                if out.wire.len() >= WIRE_BYTES_PER_TURN {
                    return Ok(switched);
                }
                let newest = self.state.board.current();
                if newest.is_some_and(|posted| channel.is_behind(posted)) {
                    let wire = &mut out.wire;
                    switched |=
                        channel.give_job(self.state, self.now, job_id, self.transport, wire)?;
                }
            }
        }
        self.session.caught_up = generation;
        self.session.count_fresh_wanted();
        Ok(switched)
    }

    /// The newest job, once for all members of the group.
    fn give_group_job(&mut self, job_id: u32, out: &mut Output) -> Result<bool, TransportError> {
        let Some(posted) = self.state.board.current() else { return Ok(false) };
        let is_new_tip = !self.session.channels.iter().all(|channel| channel.is_on_tip(posted));
        let is_rolled = self.state.settings.version_mask != 0;
        let begins =
            self.session.channels.iter().map(|channel| channel.begins_at(posted, self.now));
        let ntime = begins.max().unwrap_or(posted.ntime);
        let min_ntime = (!is_new_tip).then_some(ntime);
        let job = extended_job(posted, GROUP_CHANNEL_ID, job_id, min_ntime, is_rolled);
        self.transport.seal(&job, &mut out.wire)?;
        if is_new_tip {
            let tip = new_tip(posted, GROUP_CHANNEL_ID, job_id, ntime);
            self.transport.seal(&tip, &mut out.wire)?;
        }
        self.state.counters.add(counter::JOBS_SENT, 1);
        self.state.counters.add(counter::TIPS_SENT, u64::from(is_new_tip));
        for channel in &mut self.session.channels {
            channel.on_given(self.state, self.now, job_id, ntime);
        }
        Ok(is_new_tip)
    }

    /// The newest job again, under a new number, for those whose target has changed: from it on
    /// there is no doubt which target counts.
    fn give_fresh_jobs(&mut self, out: &mut Output) -> Result<(), TransportError> {
        let Some(posted) = self.state.board.current() else { return Ok(()) };
        let oldest = self.state.board.oldest().unwrap_or(0);
        let Session { channels, numbers, .. } = &mut *self.session;
        let is_all = channels.iter().all(|channel| !channel.is_behind(posted));
        // Who still lacks the newest job gets it with the next bytes, and needs no other.
        if !is_all || out.wire.len() >= WIRE_BYTES_PER_TURN {
            return Ok(());
        }
        // A number that none of them was given will do; numbers are few.
        let newest = numbers.job_id(posted.generation);
        let mut wanting = channels.iter().filter(|channel| channel.wants_fresh_job());
        let job_id = if wanting.all(|channel| channel.given_job < newest) {
            newest
        } else {
            let Some(job_id) = numbers.renumber(posted.generation, oldest) else { return Ok(()) };
            job_id
        };
        for channel in &mut self.session.channels {
            if out.wire.len() >= WIRE_BYTES_PER_TURN {
                break;
            }
            if channel.wants_fresh_job() {
                channel.give_job(self.state, self.now, job_id, self.transport, &mut out.wire)?;
            }
        }
        self.session.count_fresh_wanted();
        Ok(())
    }

    /// Tell what is safe, within one turn's bytes and as far as there is credit.
    pub fn flush(&mut self, out: &mut Output) -> Result<(), TransportError> {
        if self.session.tallies == 0 {
            return Ok(());
        }
        for channel in self.session.channels.iter_mut().filter(|channel| channel.has_tally()) {
            let is_enough = out.entries.len() >= ACKS_PER_STEP;
            if out.wire.len() >= WIRE_BYTES_PER_TURN || is_enough || !out.has_credit() {
                break;
            }
            channel.flush(self.transport, out)?;
            self.session.tallies -= 1;
        }
        Ok(())
    }
}
