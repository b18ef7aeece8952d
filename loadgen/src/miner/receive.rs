//! What the miner makes of each message of the server.

use sha2::{Digest, Sha256};
use sv2::message::common::{
    PROTOCOL_MINING, PROTOCOL_VERSION, REQUIRES_EXTENDED_CHANNELS, REQUIRES_FIXED_VERSION,
    REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, SetupConnection, SetupConnectionSuccess,
};
use sv2::message::mining::{
    NewExtendedMiningJob, NewMiningJob, OpenStandardMiningChannel,
    OpenStandardMiningChannelSuccess, SetExtranoncePrefix, SetGroupChannel, SetNewPrevHash,
    SetTarget, SubmitSharesError, SubmitSharesSuccess,
};
use sv2::{ACT2_BYTES, Frame, ToMiner};
use work::hash::finish_double;
use work::merkle::MERKLE_PATH_MAX;
use work::{BlockHash, MerkleNode, Now, Target, Tip, Txid};

use super::error::Code;
use super::event::Prefix;
use super::jobs::MiningJob;
use super::search::Search;
use super::{Link, Miner, MinerError, MinerEvent, Step};

/// The one request that this miner makes on a connection.
const REQUEST_ID: u32 = 1;

/// Longest text of a message, in bytes (STR0_255).
const TEXT_BYTES_MAX: usize = 255;

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

    pub(super) fn on_frame(
        &mut self,
        now: Now,
        frame: &Frame<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        self.report.frames_received += 1;
        self.report.last_frame_at = now.mono;
        let msg_type = frame.header.msg_type;
        let message =
            ToMiner::decode(frame).map_err(|error| MinerError::Malformed { msg_type, error })?;
        let unexpected = Err(MinerError::Unexpected { msg_type, step: self.step });
        match (self.step, message) {
            (_, ToMiner::Unknown { .. }) => {
                self.report.unknown_frames += 1;
                Ok(())
            }
            (Step::Setup, ToMiner::SetupConnectionSuccess(success)) => {
                self.on_setup_success(now, &success, wire)
            }
            (Step::Setup, ToMiner::SetupConnectionError(error)) => Err(MinerError::SetupRefused {
                flags: error.flags,
                code: Code::from_wire(error.error_code),
            }),
            (Step::Opening, ToMiner::OpenStandardMiningChannelSuccess(success)) => {
                self.on_open_success(now, &success)
            }
            (Step::Opening, ToMiner::OpenMiningChannelError(error)) => {
                self.check_request(error.request_id)?;
                Err(MinerError::OpenRefused { code: Code::from_wire(error.error_code) })
            }
            // Before the answer to SetupConnection nothing else may come (SV2 5.2.1).
            (Step::Opening | Step::Waiting | Step::Mining, ToMiner::Reconnect(_)) => {
                Err(MinerError::ReconnectAsked)
            }
            (Step::Waiting | Step::Mining, message) => {
                self.on_channel_message(now, msg_type, &message)
            }
            _ => unexpected,
        }
    }

    fn on_channel_message(
        &mut self,
        now: Now,
        msg_type: u8,
        message: &ToMiner<'_>,
    ) -> Result<(), MinerError> {
        match message {
            ToMiner::SubmitSharesSuccess(success) => self.on_share_success(success),
            ToMiner::SubmitSharesError(error) => self.on_share_error(error),
            ToMiner::NewMiningJob(job) => self.on_job(now, job),
            ToMiner::NewExtendedMiningJob(job) => self.on_extended_job(now, job),
            ToMiner::SetNewPrevHash(tip) => self.on_prev_hash(now, tip),
            ToMiner::SetTarget(target) => self.on_target(target),
            ToMiner::SetExtranoncePrefix(prefix) => self.on_prefix(prefix),
            ToMiner::SetGroupChannel(group) => self.on_group(msg_type, group),
            ToMiner::CloseChannel(close) => {
                self.check_member(msg_type, close.channel_id)?;
                Err(MinerError::ChannelClosed { code: Code::from_wire(close.reason_code) })
            }
            ToMiner::ChannelEndpointChanged(changed) => {
                self.check_channel(msg_type, changed.channel_id)
            }
            _ => Err(MinerError::Unexpected { msg_type, step: self.step }),
        }
    }

    fn on_setup_success(
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
        if fixes_what_rolls || flags & REQUIRES_EXTENDED_CHANNELS != 0 {
            return Err(MinerError::FlagsContradict { server: flags, miner });
        }
        self.rolls_version &= flags & REQUIRES_FIXED_VERSION == 0;
        self.event(MinerEvent::SetUp);
        self.enter(Step::Opening, now);
        let identity = self.config.user_identity.clone();
        let open = OpenStandardMiningChannel {
            request_id: REQUEST_ID,
            user_identity: text(&identity),
            nominal_hash_rate: self.config.nominal_hash_rate,
            max_target: self.config.max_target.to_le_bytes(),
        };
        self.seal(&open, wire)
    }

    fn on_open_success(
        &mut self,
        now: Now,
        success: &OpenStandardMiningChannelSuccess<'_>,
    ) -> Result<(), MinerError> {
        self.check_request(success.request_id)?;
        let channel_id = success.channel_id;
        if channel_id == success.group_channel_id {
            return Err(MinerError::ChannelIsGroup { channel_id });
        }
        let msg_type = OpenStandardMiningChannelSuccess::MSG_TYPE;
        let target = self.check_target(msg_type, success.target)?;
        self.channel_id = channel_id;
        self.group_channel_id = success.group_channel_id;
        self.target = target;
        // The codec allows no more than the prefix holds.
        let prefix = Prefix::try_from(success.extranonce_prefix).unwrap_or_default();
        self.report.channels_opened += 1;
        self.report.channel_id = Some(channel_id);
        self.report.extranonce_prefix = prefix.clone();
        self.report.target = Some(target);
        self.event(MinerEvent::Opened { channel_id, extranonce_prefix: prefix, target });
        self.enter(Step::Waiting, now);
        Ok(())
    }

    fn on_job(&mut self, now: Now, job: &NewMiningJob) -> Result<(), MinerError> {
        self.check_channel(NewMiningJob::MSG_TYPE, job.channel_id)?;
        self.receive_job(MiningJob {
            job_id: job.job_id,
            version: job.version,
            merkle_root: MerkleNode(job.merkle_root),
            min_ntime: job.min_ntime,
            target: self.target,
            since: now.mono,
        })
    }

    /// A job of the group: the root follows from the channel's own extranonce.
    fn on_extended_job(
        &mut self,
        now: Now,
        job: &NewExtendedMiningJob<'_>,
    ) -> Result<(), MinerError> {
        let job_id = job.job_id;
        if self.requires_standard_jobs() {
            return Err(MinerError::ExtendedJob { job_id });
        }
        self.check_member(NewExtendedMiningJob::MSG_TYPE, job.channel_id)?;
        let steps = job.merkle_path.len();
        if steps > MERKLE_PATH_MAX {
            return Err(MinerError::MerklePathTooLong { job_id, steps });
        }
        let coinbase = Sha256::new_with_prefix(job.coinbase_tx_prefix)
            .chain_update(&self.report.extranonce_prefix)
            .chain_update(job.coinbase_tx_suffix);
        let mut path = [MerkleNode::default(); MERKLE_PATH_MAX];
        for (node, bytes) in path.iter_mut().zip(job.merkle_path) {
            node.0 = *bytes;
        }
        let path = path.get(..steps).unwrap_or_default();
        self.receive_job(MiningJob {
            job_id,
            version: job.version,
            merkle_root: work::merkle::root(Txid(finish_double(coinbase)), path),
            min_ntime: job.min_ntime,
            target: self.target,
            since: now.mono,
        })
    }

    fn receive_job(&mut self, job: MiningJob) -> Result<(), MinerError> {
        self.report.jobs_received += 1;
        self.jobs.receive(job)?;
        let is_future = job.min_ntime.is_none();
        let tip = self.jobs.tip().filter(|_| !is_future);
        self.event(MinerEvent::JobReceived {
            job_id: job.job_id,
            version: job.version,
            merkle_root: job.merkle_root,
            min_ntime: job.min_ntime,
            prev_hash: tip.map(|tip| tip.prev_hash),
        });
        if let Some(tip) = tip {
            self.search = Some(Search::new(job, tip, self.rolls_version));
        }
        Ok(())
    }

    fn on_prev_hash(&mut self, now: Now, message: &SetNewPrevHash) -> Result<(), MinerError> {
        self.check_member(SetNewPrevHash::MSG_TYPE, message.channel_id)?;
        let SetNewPrevHash { job_id, prev_hash, min_ntime, nbits, .. } = *message;
        let prev_hash = BlockHash(prev_hash);
        let tip = Tip { prev_hash, nbits, min_ntime };
        self.jobs.switch(job_id, tip, self.target, now.mono)?;
        self.search = self.jobs.current().map(|job| Search::new(*job, tip, self.rolls_version));
        let is_first = self.step != Step::Mining;
        if is_first {
            self.enter(Step::Mining, now);
        }
        self.report.tip(prev_hash, now.mono);
        let switched = MinerEvent::TipSwitched { prev_hash, job_id, nbits, min_ntime, is_first };
        self.event(switched);
        Ok(())
    }

    /// The target of jobs that are not active yet; the current job keeps its own (SV2 5.3.18).
    fn on_target(&mut self, message: &SetTarget) -> Result<(), MinerError> {
        self.check_member(SetTarget::MSG_TYPE, message.channel_id)?;
        self.target = self.check_target(SetTarget::MSG_TYPE, message.maximum_target)?;
        self.report.target = Some(self.target);
        self.event(MinerEvent::TargetSet { target: self.target });
        Ok(())
    }

    /// The extranonce of later jobs. Jobs that are there keep the root they have.
    fn on_prefix(&mut self, message: &SetExtranoncePrefix<'_>) -> Result<(), MinerError> {
        self.check_channel(SetExtranoncePrefix::MSG_TYPE, message.channel_id)?;
        let (found, expected) =
            (message.extranonce_prefix.len(), self.report.extranonce_prefix.len());
        if found != expected {
            return Err(MinerError::ExtranonceLength { found, expected });
        }
        self.report.extranonce_prefix =
            Prefix::try_from(message.extranonce_prefix).unwrap_or_default();
        Ok(())
    }

    fn on_group(&mut self, msg_type: u8, message: &SetGroupChannel<'_>) -> Result<(), MinerError> {
        if self.requires_standard_jobs() {
            return Err(MinerError::Unexpected { msg_type, step: self.step });
        }
        if message.channel_ids.iter().any(|channel_id| channel_id == self.channel_id) {
            self.group_channel_id = message.group_channel_id;
        }
        Ok(())
    }

    fn on_share_success(&mut self, message: &SubmitSharesSuccess) -> Result<(), MinerError> {
        self.check_channel(SubmitSharesSuccess::MSG_TYPE, message.channel_id)?;
        let (outstanding, events, report) =
            (&mut self.outstanding, &mut self.events, &mut self.report);
        outstanding.accept(message, |sent| {
            if events.len() < super::EVENTS_MAX {
                events.push(MinerEvent::ShareAccepted {
                    sequence_number: sent.sequence_number,
                    submitted_at: sent.at,
                    is_fake: sent.is_fake,
                });
            } else {
                report.events_lost += 1;
            }
        })?;
        report.accepted += u64::from(message.new_submits_accepted_count);
        report.accepted_sum = report.accepted_sum.saturating_add(message.new_shares_sum);
        report.outstanding = outstanding.len();
        Ok(())
    }

    fn on_share_error(&mut self, message: &SubmitSharesError<'_>) -> Result<(), MinerError> {
        if !self.outstanding.has_channel(message.channel_id) {
            self.check_channel(SubmitSharesError::MSG_TYPE, message.channel_id)?;
        }
        let sent = self.outstanding.refuse(message)?;
        let code = Code::from_wire(message.error_code);
        self.report.rejects.count(code);
        self.report.outstanding = self.outstanding.len();
        self.event(MinerEvent::ShareRejected {
            sequence_number: sent.sequence_number,
            code,
            submitted_at: sent.at,
            is_fake: sent.is_fake,
        });
        Ok(())
    }

    fn requires_standard_jobs(&self) -> bool {
        self.config.flags & REQUIRES_STANDARD_JOBS != 0
    }

    fn check_request(&self, request_id: u32) -> Result<(), MinerError> {
        if request_id == REQUEST_ID {
            return Ok(());
        }
        Err(MinerError::WrongRequest { request_id, expected: REQUEST_ID })
    }

    fn check_channel(&self, msg_type: u8, channel_id: u32) -> Result<(), MinerError> {
        if channel_id == self.channel_id {
            return Ok(());
        }
        Err(MinerError::UnknownChannel { msg_type, channel_id })
    }

    /// Our channel or our group; a miner that requires standard jobs is in no group.
    fn check_member(&self, msg_type: u8, channel_id: u32) -> Result<(), MinerError> {
        if channel_id == self.group_channel_id && !self.requires_standard_jobs() {
            return Ok(());
        }
        self.check_channel(msg_type, channel_id)
    }

    fn check_target(&self, msg_type: u8, target: [u8; 32]) -> Result<Target, MinerError> {
        let target = Target::from_le_bytes(target);
        let is_zero = target == Target::ZERO;
        if is_zero || target > self.config.max_target {
            return Err(MinerError::TargetOutOfRange { msg_type, is_zero });
        }
        Ok(target)
    }
}
