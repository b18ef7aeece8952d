//! Opening a channel: who may, of which kind, and with which first difficulty.

use std::sync::Arc;

use sv2::TransportError;
use sv2::message::common::{REQUIRES_STANDARD_JOBS, REQUIRES_WORK_SELECTION};
use sv2::message::mining::{
    OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, OpenMiningChannelError,
    OpenStandardMiningChannel, OpenStandardMiningChannelSuccess,
};
use work::extranonce::EXTRANONCE_PREFIX_BYTES;
use work::{Difficulty, Target};

use super::admission;
use super::channel::{Channel, Kind};
use super::identity;
use super::output::{Entry, Output, Report};
use super::session::{GROUP_CHANNEL_ID, OpenConnection};
use super::shard::{ShardSettings, ShardState};
use crate::limits::{OPENS_PARKED_MAX, OPENS_PER_CHANNEL_MAX};
use crate::metrics::shard as counter;
use crate::reason::Reason;

/// Why a channel is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRefusal {
    /// The reason in metrics.
    pub reason: Reason,
    /// The text that goes on the wire.
    pub error_code: &'static str,
}

impl OpenRefusal {
    const fn because(error_code: &'static str) -> OpenRefusal {
        OpenRefusal { reason: Reason::ChannelOpenRefused, error_code }
    }
}

impl From<Reason> for OpenRefusal {
    fn from(reason: Reason) -> OpenRefusal {
        OpenRefusal { reason, error_code: reason.error_code() }
    }
}

/// The easiest target asked for is zero, or harder than any difficulty.
pub const MAX_TARGET_OUT_OF_RANGE: OpenRefusal = OpenRefusal::because("max-target-out-of-range");
/// The miner wants to roll more bytes than this gateway grants.
pub const MIN_EXTRANONCE_SIZE_TOO_LARGE: OpenRefusal =
    OpenRefusal::because("min-extranonce-size-too-large");
/// The connection, or the space of extranonces, has no room for another channel.
pub const CHANNEL_LIMIT_REACHED: OpenRefusal = OpenRefusal::because("channel-limit-reached");
/// There is no place to record the channel now; it may be asked for again.
pub const NOT_READY_RETRY: OpenRefusal = OpenRefusal::because("not-ready-retry");
/// The connection said that it takes standard jobs only.
pub const EXTENDED_FOR_STANDARD_JOBS: OpenRefusal = OpenRefusal {
    reason: Reason::SubscriberRoleViolation,
    error_code: "extended-channels-not-supported-for-standard-jobs",
};
/// The connection said that it chooses its own work.
pub const STANDARD_FOR_CUSTOM_WORK: OpenRefusal = OpenRefusal {
    reason: Reason::SubscriberRoleViolation,
    error_code: "standard-channels-not-supported-for-custom-work",
};

/// A request for a channel of either kind.
#[derive(Debug, Clone, Copy)]
pub struct OpenRequest<'a> {
    /// Echoed in the answer.
    pub request_id: u32,
    /// Who asks, with a secret maybe.
    pub user_identity: &'a [u8],
    /// Hashes a second.
    pub nominal_hash_rate: f32,
    /// The easiest target the miner takes, little-endian.
    pub max_target: [u8; 32],
    /// Of an extended channel: least bytes that the miner wants to roll.
    pub min_extranonce_size: Option<u16>,
}

impl<'a> OpenRequest<'a> {
    /// For a standard channel.
    pub fn standard(request: &OpenStandardMiningChannel<'a>) -> OpenRequest<'a> {
        OpenRequest {
            request_id: request.request_id,
            user_identity: request.user_identity,
            nominal_hash_rate: request.nominal_hash_rate,
            max_target: request.max_target,
            min_extranonce_size: None,
        }
    }

    /// For an extended channel.
    pub fn extended(request: &OpenExtendedMiningChannel<'a>) -> OpenRequest<'a> {
        OpenRequest {
            request_id: request.request_id,
            user_identity: request.user_identity,
            nominal_hash_rate: request.nominal_hash_rate,
            max_target: request.max_target,
            min_extranonce_size: Some(request.min_extranonce_size),
        }
    }
}

/// A request that waits for verified work (D38).
#[derive(Debug)]
pub struct Parked {
    request_id: u32,
    user_identity: Box<[u8]>,
    nominal_hash_rate: f32,
    max_target: [u8; 32],
    min_extranonce_size: Option<u16>,
}

/// The difficulties that a miner's own words give: the first, and the easiest it takes.
///
/// # Errors
/// The refusal for a hash rate that is none, or a `max_target` that nothing meets.
pub fn difficulties(
    nominal_hash_rate: f32,
    max_target: [u8; 32],
    settings: &ShardSettings,
) -> Result<(Difficulty, Difficulty), OpenRefusal> {
    if !nominal_hash_rate.is_finite() || nominal_hash_rate.is_sign_negative() {
        return Err(Reason::InvalidEncoding.into());
    }
    let easiest = Difficulty::at_least_for(Target::from_le_bytes(max_target))
        .ok_or(MAX_TARGET_OUT_OF_RANGE)?;
    let by_rate =
        Difficulty::for_hashrate(f64::from(nominal_hash_rate), settings.target_shares_per_minute);
    let floor = Difficulty::at_most(settings.min_difficulty);
    Ok((by_rate.harder(floor).harder(easiest), easiest))
}

impl OpenConnection<'_> {
    /// Open a channel now, or park the request until there is verified work (D38).
    ///
    /// # Errors
    /// The transport's, which end the connection.
    pub fn on_open(
        &mut self,
        request: &OpenRequest<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let is_free = self.session.parked.is_empty() && out.has_credit();
        if is_free && self.state.board.current().is_some() {
            return self.open_or_refuse(request, out);
        }
        let of_connection = self.state.settings.max_channels_per_connection;
        if self.session.parked.len() >= of_connection || self.state.parked >= OPENS_PARKED_MAX {
            return self.refuse_open(request.request_id, NOT_READY_RETRY, out);
        }
        self.state.parked += 1;
        self.session.parked.push_back(Parked {
            request_id: request.request_id,
            user_identity: request.user_identity.into(),
            nominal_hash_rate: request.nominal_hash_rate,
            max_target: request.max_target,
            min_extranonce_size: request.min_extranonce_size,
        });
        Ok(())
    }

    /// Open the channel of a request that was parked.
    ///
    /// # Errors
    /// The transport's, which end the connection.
    pub fn on_unparked(&mut self, parked: &Parked, out: &mut Output) -> Result<(), TransportError> {
        let request = OpenRequest {
            request_id: parked.request_id,
            user_identity: &parked.user_identity,
            nominal_hash_rate: parked.nominal_hash_rate,
            max_target: parked.max_target,
            min_extranonce_size: parked.min_extranonce_size,
        };
        self.open_or_refuse(&request, out)
    }

    fn open_or_refuse(
        &mut self,
        request: &OpenRequest<'_>,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let mut channel = match self.open_channel(request, out) {
            Ok(channel) => channel,
            Err(refusal) => return self.refuse_open(request.request_id, refusal, out),
        };
        self.tell_opened(request.request_id, &channel, out)?;
        if self.session.takes_jobs()
            && let Some(posted) = self.state.board.current()
        {
            let job_id = self.session.numbers.job_id(posted.generation);
            channel.give_job(self.state, self.now, job_id, self.transport, &mut out.wire)?;
        }
        if self.session.channels.is_empty() {
            self.state.counters.take(counter::IN_SETUP);
            self.state.counters.add(counter::OPEN, 1);
        }
        self.session.channels.push(channel);
        Ok(())
    }

    fn tell_opened(
        &mut self,
        request_id: u32,
        channel: &Channel,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        let target = channel.difficulty().target().to_le_bytes();
        match channel.kind {
            Kind::Standard { .. } => self.transport.seal(
                &OpenStandardMiningChannelSuccess {
                    request_id,
                    channel_id: channel.channel_id,
                    target,
                    extranonce_prefix: &channel.extranonce_prefix,
                    group_channel_id: GROUP_CHANNEL_ID,
                },
                &mut out.wire,
            ),
            Kind::Extended { extranonce_size, .. } => self.transport.seal(
                &OpenExtendedMiningChannelSuccess {
                    request_id,
                    channel_id: channel.channel_id,
                    target,
                    extranonce_size: u16::try_from(extranonce_size).unwrap_or(u16::MAX),
                    extranonce_prefix: &channel.extranonce_prefix,
                    group_channel_id: GROUP_CHANNEL_ID,
                },
                &mut out.wire,
            ),
        }
    }

    /// The channel, if it may be opened; its name goes to the forwarder first.
    fn open_channel(
        &mut self,
        request: &OpenRequest<'_>,
        out: &mut Output,
    ) -> Result<Channel, OpenRefusal> {
        let rollable = self.state.settings.extranonce_bytes - EXTRANONCE_PREFIX_BYTES;
        match request.min_extranonce_size {
            None if self.session.flags & REQUIRES_WORK_SELECTION != 0 => {
                return Err(STANDARD_FOR_CUSTOM_WORK);
            }
            Some(_) if self.session.flags & REQUIRES_STANDARD_JOBS != 0 => {
                return Err(EXTENDED_FOR_STANDARD_JOBS);
            }
            Some(size) if usize::from(size) > rollable => {
                return Err(MIN_EXTRANONCE_SIZE_TOO_LARGE);
            }
            _ => (),
        }
        let difficulties =
            difficulties(request.nominal_hash_rate, request.max_target, &self.state.settings)?;
        let max = self.state.settings.max_channels_per_connection;
        let opened = self.session.opened_lately(self.now);
        if self.session.channels.len() >= max || opened >= max * OPENS_PER_CHANNEL_MAX {
            return Err(CHANNEL_LIMIT_REACHED);
        }
        if !out.has_credit() {
            return Err(NOT_READY_RETRY);
        }
        let miner_id = self.admit(request.user_identity)?;
        let channel_id = self.session.next_channel_id;
        let channel = self
            .state
            .allocate(self.now, channel_id, request, Arc::clone(&miner_id), difficulties)
            .ok_or(CHANNEL_LIMIT_REACHED)?;
        self.session.next_channel_id += 1;
        self.session.opened.1 += 1;
        out.push(Entry::Opened {
            channel: channel.key,
            connection: self.id,
            channel_id,
            miner_id,
            extranonce_prefix: channel.extranonce_prefix.clone(),
            peer: self.peer,
            kind: channel.kind_name(),
            nominal_hash_rate: request.nominal_hash_rate,
            difficulty: channel.difficulty(),
            device: Arc::clone(&self.session.device),
            opened_at: self.now.unix,
        });
        Ok(channel)
    }

    /// Who it is, if it may open channels. Who was wrong too often is not listened to for a while.
    fn admit(&mut self, user_identity: &[u8]) -> Result<Arc<str>, Reason> {
        if !self.state.throttle.may_try(self.now.mono, self.peer) {
            return Err(Reason::InvalidCredentials);
        }
        match self.state.admission.admit(user_identity) {
            Ok(admitted) => Ok(admitted.miner_id),
            Err(reason) => {
                if admission::is_failure(reason) {
                    self.state.throttle.on_failed(self.now.mono, self.peer);
                    self.tell_failed(user_identity, reason);
                }
                Err(reason)
            }
        }
    }

    fn tell_failed(&mut self, user_identity: &[u8], reason: Reason) {
        let report = Report::AuthFailed {
            connection: self.id,
            peer: self.peer,
            reason,
            miner_id: identity::miner_id(user_identity).ok(),
            at: self.now.unix,
        };
        let ShardState { reports, counters, .. } = &mut *self.state;
        reports.push_connection(self.now, report, counters);
    }

    fn refuse_open(
        &mut self,
        request_id: u32,
        refusal: OpenRefusal,
        out: &mut Output,
    ) -> Result<(), TransportError> {
        self.state.counters.add(counter::CHANNEL_REFUSALS, 1);
        self.state.counters.add(counter::REFUSALS + refusal.reason as usize, 1);
        let error_code = refusal.error_code.as_bytes();
        self.transport.seal(&OpenMiningChannelError { request_id, error_code }, &mut out.wire)
    }
}
