//! From the handshake to open channels: setup, extensions, requests for channels.

use sv2::ACT2_BYTES;
use sv2::codec::B0_32_MAX;
use sv2::message::EXTENSION_WORKER;
use sv2::message::common::{
    PROTOCOL_MINING, PROTOCOL_VERSION, REQUIRES_EXTENDED_CHANNELS, REQUIRES_FIXED_VERSION,
    REQUIRES_VERSION_ROLLING, SetupConnection, SetupConnectionSuccess,
};
use sv2::message::extension::{
    RequestExtensions, RequestExtensionsError, RequestExtensionsSuccess,
};
use sv2::message::mining::{
    OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, OpenStandardMiningChannel,
    OpenStandardMiningChannelSuccess,
};
use work::{Mono, Now, Target};

use super::channel::Channel;
use super::config::{CHANNELS_MAX, ChannelKind, OPENS_IN_FLIGHT_MAX};
use super::event::Prefix;
use super::jobs::Jobs;
use super::{Link, Miner, MinerError, MinerEvent, Step};

/// Number of the one request for extensions of a connection.
const EXTENSIONS_REQUEST_ID: u16 = 1;

/// Longest text of a message, in bytes (STR0_255).
const TEXT_BYTES_MAX: usize = 255;

/// A request for a channel that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingOpen {
    pub request_id: u32,
    pub kind: ChannelKind,
    pub since: Mono,
}

/// What an answer of either kind says.
struct Granted<'a> {
    msg_type: u8,
    request_id: u32,
    kind: ChannelKind,
    channel_id: u32,
    group_channel_id: u32,
    target: [u8; 32],
    prefix: &'a [u8],
    extranonce_size: u16,
}

fn text(text: &str) -> &[u8] {
    text.as_bytes().get(..TEXT_BYTES_MAX).unwrap_or(text.as_bytes())
}

impl Miner {
    pub(super) fn finish_handshake(
        &mut self,
        now: Now,
        act2: &[u8; ACT2_BYTES],
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let Link::Handshake(initiator) = std::mem::replace(&mut self.link, Link::None) else {
            return Err(MinerError::NotConnected);
        };
        let transport =
            initiator.finish(act2, now.unix.seconds()).map_err(MinerError::Handshake)?;
        self.link = Link::Sealed(Box::new(transport));
        self.event(MinerEvent::Secured);
        self.enter(Step::Setup, now);
        // The texts are borrowed from the configuration while the link seals them.
        let config = self.config.clone();
        let setup = SetupConnection {
            protocol: PROTOCOL_MINING,
            min_version: PROTOCOL_VERSION,
            max_version: PROTOCOL_VERSION,
            flags: config.flags,
            endpoint_host: text(&config.endpoint_host),
            endpoint_port: config.endpoint_port,
            vendor: text(&config.device.vendor),
            hardware_version: text(&config.device.hardware_version),
            firmware: text(&config.device.firmware),
            device_id: text(&config.device.device_id),
        };
        self.seal(&setup, wire)
    }

    pub(super) fn on_setup_success(
        &mut self,
        now: Now,
        success: &SetupConnectionSuccess,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let SetupConnectionSuccess { used_version, flags } = *success;
        if used_version != PROTOCOL_VERSION {
            return Err(MinerError::WrongVersion { used_version });
        }
        let miner = self.config.flags;
        let fixes_what_rolls =
            flags & REQUIRES_FIXED_VERSION != 0 && miner & REQUIRES_VERSION_ROLLING != 0;
        let opens_standard =
            (0..self.config.channels.min(2)).any(|n| self.kind_of(n) == ChannelKind::Standard);
        if fixes_what_rolls || (opens_standard && flags & REQUIRES_EXTENDED_CHANNELS != 0) {
            return Err(MinerError::FlagsContradict { server: flags, miner });
        }
        self.is_version_fixed = flags & REQUIRES_FIXED_VERSION != 0;
        self.event(MinerEvent::SetUp);
        if self.config.extensions.is_empty() {
            self.enter(Step::Opening, now);
            return self.ask_for_channels(now, wire);
        }
        self.enter(Step::Negotiating, now);
        let extensions = std::mem::take(&mut self.config.extensions);
        let request = RequestExtensions {
            request_id: EXTENSIONS_REQUEST_ID,
            requested_extensions: (&extensions[..]).into(),
        };
        let sealed = self.seal(&request, wire);
        self.config.extensions = extensions;
        sealed
    }

    pub(super) fn on_extensions(
        &mut self,
        now: Now,
        message: &RequestExtensionsSuccess<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        check_extensions_request(message.request_id)?;
        let listed = message.supported_extensions;
        let is_asked = |extension| self.config.extensions.contains(&extension);
        if listed.is_empty() || !listed.iter().all(is_asked) {
            return Err(MinerError::ExtensionNotAsked { listed: listed.len() });
        }
        self.names_workers = listed.contains(EXTENSION_WORKER);
        self.event(MinerEvent::ExtensionsAgreed { names_workers: self.names_workers });
        self.enter(Step::Opening, now);
        self.ask_for_channels(now, wire)
    }

    /// None is in use; the connection goes on unless the server insists on one.
    pub(super) fn on_no_extensions(
        &mut self,
        now: Now,
        message: &RequestExtensionsError<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        check_extensions_request(message.request_id)?;
        let is_asked = |extension| self.config.extensions.contains(&extension);
        let mut required = message.required_extensions.iter();
        if let Some(extension_type) = required.find(|extension| !is_asked(*extension)) {
            return Err(MinerError::ExtensionRequired { extension_type });
        }
        let unsupported = message.unsupported_extensions;
        if !unsupported.iter().all(is_asked) {
            return Err(MinerError::ExtensionNotAsked { listed: unsupported.len() });
        }
        self.event(MinerEvent::ExtensionsAgreed { names_workers: false });
        self.enter(Step::Opening, now);
        self.ask_for_channels(now, wire)
    }

    /// Sends requests for channels until all are asked for or enough are under way.
    pub(super) fn ask_for_channels(
        &mut self,
        now: Now,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let wanted = self.config.channels.clamp(1, CHANNELS_MAX);
        let in_flight = self.config.opens_in_flight.clamp(1, OPENS_IN_FLIGHT_MAX);
        while (self.opens_asked as usize) < wanted && self.opens.len() < in_flight {
            self.open_channel(now, self.kind_of(self.opens_asked as usize), wire)?;
        }
        Ok(())
    }

    /// Asks for one more channel. Does nothing while too many requests wait for their answers, or
    /// before setup is over.
    ///
    /// # Errors
    /// [`MinerError::Transport`] when it cannot be sealed.
    pub fn open_channel(
        &mut self,
        now: Now,
        kind: ChannelKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let is_ready = matches!(self.step, Step::Opening | Step::Waiting | Step::Mining);
        if self.opens.is_full() || !is_ready {
            return Ok(());
        }
        self.opens_asked = self.opens_asked.wrapping_add(1);
        let request_id = self.opens_asked;
        self.opens.push(PendingOpen { request_id, kind, since: now.mono });
        let user_identity = std::mem::take(&mut self.config.user_identity);
        let nominal_hash_rate = self.config.nominal_hash_rate;
        let max_target = self.config.max_target.to_le_bytes();
        let sealed = match kind {
            ChannelKind::Standard => {
                let user_identity = text(&user_identity);
                let open = OpenStandardMiningChannel {
                    request_id,
                    user_identity,
                    nominal_hash_rate,
                    max_target,
                };
                self.seal(&open, wire)
            }
            ChannelKind::Extended => {
                let open = OpenExtendedMiningChannel {
                    request_id,
                    user_identity: text(&user_identity),
                    nominal_hash_rate,
                    max_target,
                    min_extranonce_size: self.config.min_extranonce_size,
                };
                self.seal(&open, wire)
            }
        };
        self.config.user_identity = user_identity;
        sealed
    }

    pub(super) fn on_standard_open(
        &mut self,
        now: Now,
        success: &OpenStandardMiningChannelSuccess<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let granted = Granted {
            msg_type: OpenStandardMiningChannelSuccess::MSG_TYPE,
            request_id: success.request_id,
            kind: ChannelKind::Standard,
            channel_id: success.channel_id,
            group_channel_id: success.group_channel_id,
            target: success.target,
            prefix: success.extranonce_prefix,
            extranonce_size: 0,
        };
        self.on_open(now, &granted, wire)
    }

    pub(super) fn on_extended_open(
        &mut self,
        now: Now,
        success: &OpenExtendedMiningChannelSuccess<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let granted = Granted {
            msg_type: OpenExtendedMiningChannelSuccess::MSG_TYPE,
            request_id: success.request_id,
            kind: ChannelKind::Extended,
            channel_id: success.channel_id,
            group_channel_id: success.group_channel_id,
            target: success.target,
            prefix: success.extranonce_prefix,
            extranonce_size: success.extranonce_size,
        };
        let (min, max) = (self.config.min_extranonce_size, self.config.max_extranonce_size);
        let (size, prefix) = (granted.extranonce_size, granted.prefix.len());
        if size < min || size > max || prefix + usize::from(size) > B0_32_MAX {
            return Err(MinerError::ExtranonceSize { size, prefix, min, max });
        }
        self.on_open(now, &granted, wire)
    }

    fn on_open(
        &mut self,
        now: Now,
        granted: &Granted<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let pending = self.take_request(granted.msg_type, granted.request_id)?;
        if pending.kind != granted.kind {
            return Err(MinerError::WrongKind { request_id: granted.request_id });
        }
        self.check_numbers(granted)?;
        let target = Target::from_le_bytes(granted.target);
        // The codec allows no more than the prefix holds.
        let prefix = Prefix::try_from(granted.prefix).unwrap_or_default();
        let channel = Channel {
            id: granted.channel_id,
            group_id: granted.group_channel_id,
            kind: granted.kind,
            prefix: prefix.clone(),
            extranonce_size: usize::from(granted.extranonce_size),
            target,
            max_target: self.config.max_target,
            jobs: Jobs::default(),
            search: None,
            next_sequence_number: self.config.first_sequence_number,
            next_worker: 0,
            opened_at: now.mono,
            retargeted_at: None,
            lowering: None,
        };
        if !channel.allows(target) {
            let (msg_type, is_zero) = (granted.msg_type, target == Target::ZERO);
            return Err(MinerError::TargetOutOfRange { msg_type, is_zero });
        }
        self.check_extranonce(&channel)?;
        let channel_id = channel.id;
        // Numbers of closed ones may be given again.
        self.closed.retain(|id| *id != channel_id && *id != channel.group_id);
        self.channels.push(channel);
        self.report.channels_opened += 1;
        self.refresh_report();
        self.event(MinerEvent::Opened { channel_id, extranonce_prefix: prefix, target });
        if self.step == Step::Opening {
            self.enter(Step::Waiting, now);
        }
        self.ask_for_channels(now, wire)
    }

    /// The request that is answered; it waits no longer.
    pub(super) fn take_request(
        &mut self,
        msg_type: u8,
        request_id: u32,
    ) -> Result<PendingOpen, MinerError> {
        let Some(first) = self.opens.first() else {
            return Err(MinerError::Unexpected { msg_type, step: self.step });
        };
        let expected = first.request_id;
        let at = self.opens.iter().position(|open| open.request_id == request_id);
        at.map(|at| self.opens.remove(at)).ok_or(MinerError::WrongRequest { request_id, expected })
    }

    /// Channels and groups share one space of numbers.
    fn check_numbers(&self, granted: &Granted<'_>) -> Result<(), MinerError> {
        let (channel_id, group_id) = (granted.channel_id, granted.group_channel_id);
        let is_group = self.channels.iter().any(|channel| channel.group_id == channel_id);
        if channel_id == group_id || (is_group && !self.config.requires_standard_jobs()) {
            return Err(MinerError::ChannelIsGroup { channel_id });
        }
        let mut ids = self.channels.iter().map(|channel| channel.id);
        if ids.any(|id| id == channel_id || id == group_id) {
            return Err(MinerError::ChannelIdReused { channel_id });
        }
        Ok(())
    }

    /// The extranonce is nobody else's, and as long as that of the channel's group.
    pub(super) fn check_extranonce(&self, channel: &Channel) -> Result<(), MinerError> {
        let expected = channel.extranonce_bytes();
        for other in self.channels.iter().filter(|other| other.id != channel.id) {
            if other.overlaps(&channel.prefix, channel.extranonce_size) {
                let (channel_id, other) = (channel.id, other.id);
                return Err(MinerError::ExtranonceOverlap { channel_id, other });
            }
            let found = other.extranonce_bytes();
            let is_grouped =
                other.group_id == channel.group_id && !self.config.requires_standard_jobs();
            if is_grouped && found != expected {
                return Err(MinerError::ExtranonceLength { found: expected, expected: found });
            }
        }
        Ok(())
    }

    fn kind_of(&self, number: usize) -> ChannelKind {
        self.config.kinds.of(number)
    }
}

fn check_extensions_request(request_id: u16) -> Result<(), MinerError> {
    if request_id == EXTENSIONS_REQUEST_ID {
        return Ok(());
    }
    let expected = u32::from(EXTENSIONS_REQUEST_ID);
    Err(MinerError::WrongRequest { request_id: u32::from(request_id), expected })
}
