//! An open connection's channels, and the answer to each message about them.

use std::collections::VecDeque;

use sv2::message::common::{REQUIRES_STANDARD_JOBS, REQUIRES_WORK_SELECTION};
use sv2::message::extension::{RequestExtensions, RequestExtensionsError};
use sv2::message::mining::{
    OpenMiningChannelError, OpenStandardMiningChannel, OpenStandardMiningChannelSuccess,
    SetCustomMiningJob, SetCustomMiningJobError, SubmitSharesError, SubmitSharesStandard,
    UpdateChannel, UpdateChannelError,
};
use sv2::{Transport, TransportError, U16Sequence};
use work::{Difficulty, Mono, Now};

use super::channel::Channel;
use super::identity;
use super::opening::{self, OpenRefusal};
use super::output::{ConnectionId, Entry, Output};
use super::shard::{PendingAck, ShardState};
use crate::limits::{
    CHANNELS_ENDED_KEPT, OPENS_PARKED_MAX, OPENS_PER_CHANNEL_MAX, WIRE_BYTES_PER_TURN,
};
use crate::metrics::shard as counter;
use crate::reason::Reason;

/// Channel id of the one group; channels count from the next number.
pub const GROUP_CHANNEL_ID: u32 = 1;

/// A request for a channel that waits for verified work (D38).
#[derive(Debug)]
struct Parked {
    request_id: u32,
    user_identity: Box<[u8]>,
    nominal_hash_rate: f32,
    max_target: [u8; 32],
}

/// What an open connection holds.
#[derive(Debug)]
pub struct Session {
    /// By rising channel id.
    pub channels: Vec<Channel>,
    /// At most [`OPENS_PARKED_MAX`], oldest first.
    parked: VecDeque<Parked>,
    next_channel_id: u32,
    flags: u32,
    /// Channels that ended lately: a late share of one may still be a block.
    ended: VecDeque<Channel>,
    /// Channels with shares to acknowledge.
    tallies: usize,
    /// Generation of the board that all channels have.
    caught_up: u32,
    /// Since when there is no channel.
    pub empty_since: Mono,
}

impl Session {
    /// No channels yet, for a miner with these setup flags.
    pub fn new(flags: u32) -> Session {
        Session {
            channels: Vec::new(),
            parked: VecDeque::new(),
            next_channel_id: GROUP_CHANNEL_ID + 1,
            flags,
            ended: VecDeque::new(),
            tallies: 0,
            caught_up: 0,
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
        (has_job && !self.parked.is_empty()) || self.has_news(state)
    }

    /// Whether a step would give or tell something even without credit.
    pub fn has_news(&self, state: &ShardState) -> bool {
        let newest = state.board.current().map(|posted| posted.job_id);
        let is_behind = newest.is_some_and(|job_id| job_id != self.caught_up);
        self.tallies > 0 || (is_behind && !self.channels.is_empty())
    }

    /// The open channel with this id.
    pub fn find(&mut self, channel_id: u32) -> Option<&mut Channel> {
        let at = self.channels.binary_search_by_key(&channel_id, |channel| channel.channel_id);
        at.ok().map(|at| &mut self.channels[at])
    }

    /// A channel that ended lately.
    fn ended(&self, channel_id: u32) -> Option<&Channel> {
        self.ended.iter().find(|channel| channel.channel_id == channel_id)
    }

    /// Whether a channel with this id was open once.
    fn was_given(&self, channel_id: u32) -> bool {
        (GROUP_CHANNEL_ID + 1..self.next_channel_id).contains(&channel_id)
    }
}

/// An open connection during one message, with everything its answer may need.
pub struct OpenConnection<'a> {
    /// Its name.
    pub id: ConnectionId,
    /// Its cipher.
    pub transport: &'a mut Transport,
    /// Its channels.
    pub session: &'a mut Session,
    /// Its shard.
    pub state: &'a mut ShardState,
    /// The time.
    pub now: Now,
}

impl OpenConnection<'_> {
    /// A share.
    ///
    /// # Errors
    /// The transport's, here and below: they end the connection.
    pub fn on_submit(
        &mut self,
        submit: &SubmitSharesStandard,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let known = self.session.was_given(submit.channel_id);
        let reason = match self.session.find(submit.channel_id) {
            Some(channel) => match channel.on_submit(self.state, self.id, self.now, submit, out) {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            },
            None if known => {
                if let Some(ended) = self.session.ended(submit.channel_id) {
                    ended.look_for_block(self.state, submit, out);
                }
                Reason::ChannelNotOpen
            }
            None => Reason::UnknownChannelId,
        };
        self.reject(submit.channel_id, submit.sequence_number, reason, out)
    }

    /// A share of another kind than its channel.
    pub fn refuse_share(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        self.reject(channel_id, sequence_number, Reason::SubscriberRoleViolation, out)
    }

    fn reject(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        reason: Reason,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        self.state.counters.add(counter::SHARES + 1 + reason as usize, 1);
        let error_code = reason.error_code().as_bytes();
        let error = SubmitSharesError { channel_id, sequence_number, error_code };
        self.transport.seal(&error, &mut out.wire)
    }

    /// Open a channel now, or park the request until there is verified work (D38).
    pub fn on_open(
        &mut self,
        request: &OpenStandardMiningChannel<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        if self.state.board.current().is_some() {
            return self.open_or_refuse(request, out);
        }
        let parked = Parked {
            request_id: request.request_id,
            user_identity: request.user_identity.into(),
            nominal_hash_rate: request.nominal_hash_rate,
            max_target: request.max_target,
        };
        if self.session.parked.len() >= OPENS_PARKED_MAX {
            return self.refuse_open(request.request_id, opening::NOT_READY_RETRY, out);
        }
        self.session.parked.push_back(parked);
        Ok(())
    }

    fn open_or_refuse(
        &mut self,
        request: &OpenStandardMiningChannel<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        match self.open_channel(request, out) {
            Ok(mut channel) => {
                let target = channel.1.target().to_le_bytes();
                let opened = OpenStandardMiningChannelSuccess {
                    request_id: request.request_id,
                    channel_id: channel.0.channel_id,
                    target,
                    extranonce_prefix: &channel.0.extranonce,
                    group_channel_id: GROUP_CHANNEL_ID,
                };
                self.transport.seal(&opened, &mut out.wire)?;
                channel.0.give_job(self.state, self.now, self.transport, &mut out.wire)?;
                if self.session.channels.is_empty() {
                    self.state.counters.take(counter::IN_SETUP);
                    self.state.counters.add(counter::OPEN, 1);
                }
                self.session.channels.push(channel.0);
                Ok(())
            }
            Err(refusal) => self.refuse_open(request.request_id, refusal, out),
        }
    }

    /// The channel, if it may be opened; its name goes to the forwarder first.
    fn open_channel(
        &mut self,
        request: &OpenStandardMiningChannel<'_>,
        out: &mut Output,
    ) -> Result<(Channel, Difficulty), OpenRefusal> {
        if self.session.flags & REQUIRES_WORK_SELECTION != 0 {
            return Err(opening::STANDARD_FOR_CUSTOM_WORK);
        }
        let difficulty = opening::first_difficulty(request, &self.state.settings)?;
        let miner_id =
            identity::miner_id(request.user_identity).map_err(|reason| reason.error_code())?;
        let max = self.state.settings.max_channels_per_connection;
        // Prefixes rest for some tips: a miner that opens and closes must not use them all up.
        let opened = (self.session.next_channel_id - GROUP_CHANNEL_ID - 1) as usize;
        if self.session.channels.len() >= max || opened >= max * OPENS_PER_CHANNEL_MAX {
            return Err(opening::CHANNEL_LIMIT_REACHED);
        }
        if !out.has_credit() {
            return Err(opening::NOT_READY_RETRY);
        }
        let channel_id = self.session.next_channel_id;
        let channel =
            self.state.allocate(channel_id, difficulty).ok_or(opening::CHANNEL_LIMIT_REACHED)?;
        self.session.next_channel_id += 1;
        out.push(Entry::Opened {
            channel: channel.key,
            connection: self.id,
            channel_id,
            miner_id,
            extranonce: channel.extranonce.clone(),
        });
        Ok((channel, difficulty))
    }

    fn refuse_open(
        &mut self,
        request_id: u32,
        refusal: OpenRefusal,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        self.state.counters.add(counter::CHANNEL_REFUSALS, 1);
        let error = OpenMiningChannelError { request_id, error_code: refusal.as_bytes() };
        self.transport.seal(&error, &mut out.wire)
    }

    /// Extended channels are not served.
    pub fn refuse_extended(
        &mut self,
        request_id: u32,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let refusal = if self.session.flags & REQUIRES_STANDARD_JOBS != 0 {
            opening::EXTENDED_FOR_STANDARD_JOBS
        } else {
            opening::EXTENDED_NOT_SUPPORTED
        };
        self.refuse_open(request_id, refusal, out)
    }

    /// Work that a miner chose itself is not served.
    pub fn refuse_custom(
        &mut self,
        custom: &SetCustomMiningJob<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let error = SetCustomMiningJobError {
            channel_id: custom.channel_id,
            request_id: custom.request_id,
            error_code: b"jd-not-supported",
        };
        self.transport.seal(&error, &mut out.wire)
    }

    /// None is supported, and none is required: the answer names what was asked for.
    pub fn refuse_extensions(
        &mut self,
        request: &RequestExtensions<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let error = RequestExtensionsError {
            request_id: request.request_id,
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
        let refusal = match self.session.find(channel_id) {
            None => Reason::UnknownChannelId.error_code(),
            Some(channel) => match opening::updated_difficulty(update, &self.state.settings) {
                Ok(difficulty) => {
                    return channel.set_difficulty(difficulty, self.transport, &mut out.wire);
                }
                Err(refusal) => refusal,
            },
        };
        let error_code = refusal.as_bytes();
        let error = UpdateChannelError { channel_id, error_code };
        self.transport.seal(&error, &mut out.wire)
    }

    /// The miner ends a channel, or with the group's number all of them. No answer is due.
    pub fn on_close(&mut self, channel_id: u32) -> Result<(), TransportError> {
        let closes =
            |channel: &Channel| channel_id == GROUP_CHANNEL_ID || channel.channel_id == channel_id;
        let had_channels = !self.session.channels.is_empty();
        let channels = std::mem::take(&mut self.session.channels);
        let (ending, staying): (Vec<_>, Vec<_>) = channels.into_iter().partition(closes);
        self.session.channels = staying;
        for channel in ending {
            let key = self.state.release(&channel);
            self.state.closed.push_back(key);
            if self.session.ended.len() == CHANNELS_ENDED_KEPT {
                self.session.ended.pop_front();
            }
            self.session.ended.push_back(channel);
        }
        self.session.tallies = self.session.channels.iter().filter(|c| c.has_tally()).count();
        if had_channels && self.session.channels.is_empty() {
            self.session.empty_since = self.now.mono;
            self.state.counters.take(counter::OPEN);
            self.state.counters.add(counter::IN_SETUP, 1);
        }
        Ok(())
    }

    /// Give every channel the newest work and tell what is safe, within one turn's bytes. Returns
    /// whether a new tip was given.
    pub fn catch_up(&mut self, out: &mut Output) -> Result<bool, TransportError> {
        while self.state.board.current().is_some()
            && out.wire.len() < WIRE_BYTES_PER_TURN
            && out.has_credit()
        {
            let Some(parked) = self.session.parked.pop_front() else { break };
            let request = OpenStandardMiningChannel {
                request_id: parked.request_id,
                user_identity: &parked.user_identity,
                nominal_hash_rate: parked.nominal_hash_rate,
                max_target: parked.max_target,
            };
            self.open_or_refuse(&request, out)?;
        }
        let mut switched = false;
        if !self.session.has_news(self.state) {
            return Ok(switched);
        }
        for channel in &mut self.session.channels {
            if out.wire.len() >= WIRE_BYTES_PER_TURN {
                return Ok(switched);
            }
            if channel.is_behind(self.state) {
                switched |=
                    channel.give_job(self.state, self.now, self.transport, &mut out.wire)?;
            }
            if channel.has_tally() {
                channel.flush(self.transport, &mut out.wire)?;
                self.session.tallies -= 1;
            }
        }
        if let Some(posted) = self.state.board.current() {
            self.session.caught_up = posted.job_id;
        }
        Ok(switched)
    }

    /// Tell what is safe, within one turn's bytes.
    pub fn flush(&mut self, out: &mut Output) -> Result<(), TransportError> {
        for channel in self.session.channels.iter_mut().filter(|channel| channel.has_tally()) {
            if out.wire.len() >= WIRE_BYTES_PER_TURN {
                break;
            }
            channel.flush(self.transport, &mut out.wire)?;
            self.session.tallies -= 1;
        }
        Ok(())
    }
}
