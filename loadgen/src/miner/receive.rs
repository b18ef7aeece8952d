//! What the miner makes of each message of the server once setup is over.

use std::sync::Arc;

use sv2::message::EXTENSION_CORE;
use sv2::message::common::REQUIRES_VERSION_ROLLING;
use sv2::message::mining::{
    CloseChannel, NewExtendedMiningJob, NewMiningJob, SetExtranoncePrefix, SetGroupChannel,
    SetNewPrevHash, SetTarget, SubmitSharesError, SubmitSharesSuccess,
};
use sv2::{Frame, ToMiner};
use work::merkle::MERKLE_PATH_MAX;
use work::{BlockHash, MerkleNode, Now, Target, Tip};

use super::coinbase::{ExtendedWork, Parts};
use super::config::ChannelKind;
use super::error::Code;
use super::event::Prefix;
use super::jobs::{Job, MiningJob};
use super::profile::Profile;
use super::{Miner, MinerError, MinerEvent, Step};

/// Which of our channels a message is for.
#[derive(Debug, Clone, Copy)]
enum Addressee {
    /// The one at this index.
    Channel(usize),
    /// All of this group.
    Group(u32),
    /// One that is closed by now; the message crossed that on its way.
    Nobody,
}

impl Miner {
    pub(super) fn on_frame(
        &mut self,
        now: Now,
        frame: &Frame<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        self.report.frames_received += 1;
        self.report.last_frame_at = now.mono;
        self.heard_at = now.mono;
        let (profile, msg_type) = (self.config.profile, frame.header.msg_type);
        let length = frame.payload.len();
        if profile.payload_max().is_some_and(|max| length > max) {
            return Err(MinerError::FrameTooLong { msg_type, length });
        }
        if frame.header.extension_type == EXTENSION_CORE {
            if profile.ignores(msg_type) {
                self.report.ignored_frames += 1;
                return Ok(());
            }
            if profile.dies_of(msg_type) {
                return Err(MinerError::Unexpected { msg_type, step: self.step });
            }
        }
        let message =
            ToMiner::decode(frame).map_err(|error| MinerError::Malformed { msg_type, error })?;
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
            (Step::Negotiating, ToMiner::RequestExtensionsSuccess(success)) => {
                self.on_extensions(now, &success, wire)
            }
            (Step::Negotiating, ToMiner::RequestExtensionsError(error)) => {
                self.on_no_extensions(now, &error, wire)
            }
            // Before the answer to SetupConnection nothing else may come (SV2 5.2.1).
            (
                Step::Negotiating | Step::Opening | Step::Waiting | Step::Mining,
                ToMiner::Reconnect(_),
            ) => Err(MinerError::ReconnectAsked),
            (Step::Opening | Step::Waiting | Step::Mining, message) => {
                self.on_open_message(now, msg_type, &message, wire)
            }
            _ => Err(MinerError::Unexpected { msg_type, step: self.step }),
        }
    }

    fn on_open_message(
        &mut self,
        now: Now,
        msg_type: u8,
        message: &ToMiner<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        match message {
            ToMiner::OpenStandardMiningChannelSuccess(success) => {
                self.on_standard_open(now, success, wire)
            }
            ToMiner::OpenExtendedMiningChannelSuccess(success) => {
                self.on_extended_open(now, success, wire)
            }
            ToMiner::OpenMiningChannelError(error) => {
                self.take_request(msg_type, error.request_id)?;
                Err(MinerError::OpenRefused { code: Code::from_wire(error.error_code) })
            }
            _ if self.step == Step::Opening => {
                Err(MinerError::Unexpected { msg_type, step: self.step })
            }
            ToMiner::SubmitSharesSuccess(success) => self.on_share_success(success),
            ToMiner::SubmitSharesError(error) => self.on_share_error(error),
            ToMiner::NewMiningJob(job) => self.on_job(now, job),
            ToMiner::NewExtendedMiningJob(job) => self.on_extended_job(now, job),
            ToMiner::SetNewPrevHash(tip) => self.on_prev_hash(now, tip),
            ToMiner::SetTarget(target) => self.on_target(now, target),
            ToMiner::SetExtranoncePrefix(prefix) => self.on_prefix(prefix),
            ToMiner::SetGroupChannel(group) => self.on_group(msg_type, group),
            ToMiner::CloseChannel(close) => self.on_close(close),
            ToMiner::UpdateChannelError(error) => {
                self.index_of(msg_type, error.channel_id)?;
                Err(MinerError::UpdateRefused { code: Code::from_wire(error.error_code) })
            }
            ToMiner::ChannelEndpointChanged(changed) => {
                self.index_of(msg_type, changed.channel_id).map(|_| ())
            }
            _ => Err(MinerError::Unexpected { msg_type, step: self.step }),
        }
    }

    fn on_job(&mut self, now: Now, message: &NewMiningJob) -> Result<(), MinerError> {
        let NewMiningJob { channel_id, job_id, min_ntime, version, merkle_root } = *message;
        if self.is_closed(channel_id) {
            return Ok(());
        }
        let index = self.index_of(NewMiningJob::MSG_TYPE, channel_id)?;
        let Some(channel) = self.channels.get(index) else { return Ok(()) };
        if channel.kind == ChannelKind::Extended {
            return Err(MinerError::WrongJobKind { job_id, channel_id });
        }
        let facts = MiningJob {
            job_id,
            version,
            merkle_root: MerkleNode(merkle_root),
            min_ntime,
            target: channel.target,
            since: now.mono,
        };
        let version_mask = self.version_mask(true);
        self.receive_job(index, Job { facts, version_mask, extended: None })
    }

    /// A job for an extended channel or a group. On a standard channel of the group the root
    /// follows from the channel's own extranonce.
    fn on_extended_job(
        &mut self,
        now: Now,
        message: &NewExtendedMiningJob<'_>,
    ) -> Result<(), MinerError> {
        let (channel_id, job_id) = (message.channel_id, message.job_id);
        if self.config.requires_standard_jobs() {
            return Err(MinerError::ExtendedJob { job_id });
        }
        let to = self.addressee(NewExtendedMiningJob::MSG_TYPE, channel_id)?;
        let steps = message.merkle_path.len();
        if steps > MERKLE_PATH_MAX {
            return Err(MinerError::MerklePathTooLong { job_id, steps });
        }
        let must_roll = self.config.flags & REQUIRES_VERSION_ROLLING != 0;
        if must_roll && !message.version_rolling_allowed {
            return Err(MinerError::VersionRollingDenied { job_id });
        }
        let version_mask = self.version_mask(message.version_rolling_allowed);
        let parts = Arc::new(Parts::new(message));
        for index in 0..self.channels.len() {
            let Some(channel) = self.channels.get(index) else { break };
            if !is_for(to, index, channel.group_id) {
                continue;
            }
            if matches!(to, Addressee::Channel(_)) && channel.kind == ChannelKind::Standard {
                return Err(MinerError::WrongJobKind { job_id, channel_id });
            }
            let (prefix, extranonce_size) = (channel.prefix.clone(), channel.extranonce_size);
            let work = ExtendedWork { parts: parts.clone(), prefix, extranonce_size };
            let extranonce = work.first_extranonce();
            let checked = parts.check(&work.prefix, &extranonce);
            checked.map_err(|fault| MinerError::InvalidCoinbase { job_id, fault })?;
            let facts = MiningJob {
                job_id,
                version: message.version,
                merkle_root: work.root(&extranonce),
                min_ntime: message.min_ntime,
                target: channel.target,
                since: now.mono,
            };
            let extended = (channel.kind == ChannelKind::Extended).then_some(work);
            self.receive_job(index, Job { facts, version_mask, extended })?;
        }
        Ok(())
    }

    fn receive_job(&mut self, index: usize, mut job: Job) -> Result<(), MinerError> {
        self.report.jobs_received += 1;
        if self.config.profile == Profile::Bitaxe && !self.fits_bitaxe(index, &mut job) {
            return Ok(());
        }
        let facts = job.facts;
        let Some(channel) = self.channels.get_mut(index) else { return Ok(()) };
        let left_out = channel.jobs.left_out_before(facts.job_id);
        channel.receive(job)?;
        let tip = channel.jobs.tip().filter(|_| facts.min_ntime.is_some());
        let channel_id = channel.id;
        self.event(MinerEvent::JobReceived {
            channel_id,
            job_id: facts.job_id,
            left_out,
            version: facts.version,
            merkle_root: facts.merkle_root,
            min_ntime: facts.min_ntime,
            prev_hash: tip.map(|tip| tip.prev_hash),
        });
        Ok(())
    }

    /// What a Bitaxe does with a job that breaks the protocol, or its ring of future jobs. Returns
    /// whether it takes the job.
    fn fits_bitaxe(&mut self, index: usize, job: &mut Job) -> bool {
        let Some(channel) = self.channels.get_mut(index) else { return false };
        let job_id = job.facts.job_id;
        if channel.jobs.knows(job_id) {
            self.violation(MinerError::JobIdReused { job_id });
            return false;
        }
        let mut violations = [None; 3];
        if job.facts.min_ntime == Some(0) {
            job.facts.min_ntime = None;
            violations[0] = Some(MinerError::ZeroMinNtime { job_id });
        }
        if job.facts.min_ntime.is_none() {
            if channel.jobs.tip().is_none() && channel.jobs.has_future() {
                violations[1] = Some(MinerError::FutureJobBeforeTip { job_id });
            }
            let lost = channel.jobs.evict_slot(job_id);
            violations[2] = lost.map(|lost| MinerError::FutureJobsCollide { job_id, lost });
        }
        violations.into_iter().flatten().for_each(|violation| self.violation(violation));
        true
    }

    fn violation(&mut self, error: MinerError) {
        self.report.violations += 1;
        self.event(MinerEvent::Violation(error));
    }

    fn on_prev_hash(&mut self, now: Now, message: &SetNewPrevHash) -> Result<(), MinerError> {
        let SetNewPrevHash { channel_id, job_id, prev_hash, min_ntime, nbits } = *message;
        let to = self.addressee(SetNewPrevHash::MSG_TYPE, channel_id)?;
        let prev_hash = BlockHash(prev_hash);
        let tip = Tip { prev_hash, nbits, min_ntime };
        for index in 0..self.channels.len() {
            let Some(channel) = self.channels.get_mut(index) else { break };
            if !is_for(to, index, channel.group_id) {
                continue;
            }
            let (channel_id, is_first) = (channel.id, channel.jobs.tip().is_none());
            channel.switch(job_id, tip, now.mono)?;
            if self.step != Step::Mining {
                self.enter(Step::Mining, now);
            }
            // Groups are switched from the first channel to the last, so the last tells soonest.
            let mut tips = self.channels.iter().rev().filter_map(|channel| channel.jobs.tip());
            let is_complete = tips.all(|tip| tip.prev_hash == prev_hash);
            self.report.tip(prev_hash, now.mono, is_complete);
            self.event(MinerEvent::TipSwitched {
                channel_id,
                prev_hash,
                job_id,
                nbits,
                min_ntime,
                is_first,
                is_complete,
            });
        }
        Ok(())
    }

    fn on_target(&mut self, now: Now, message: &SetTarget) -> Result<(), MinerError> {
        let msg_type = SetTarget::MSG_TYPE;
        let to = self.addressee(msg_type, message.channel_id)?;
        let target = Target::from_le_bytes(message.maximum_target);
        let at_once = self.config.profile.applies_target_at_once();
        for index in 0..self.channels.len() {
            let Some(channel) = self.channels.get_mut(index) else { break };
            if !is_for(to, index, channel.group_id) {
                continue;
            }
            if !channel.allows(target) {
                let is_zero = target == Target::ZERO;
                return Err(MinerError::TargetOutOfRange { msg_type, is_zero });
            }
            channel.set_target(target, at_once, now);
            let channel_id = channel.id;
            self.event(MinerEvent::TargetSet { channel_id, target });
        }
        self.refresh_report();
        Ok(())
    }

    /// The extranonce of later jobs. Jobs that are there keep the root they have.
    fn on_prefix(&mut self, message: &SetExtranoncePrefix<'_>) -> Result<(), MinerError> {
        let channel_id = message.channel_id;
        if self.is_closed(channel_id) {
            return Ok(());
        }
        let index = self.index_of(SetExtranoncePrefix::MSG_TYPE, channel_id)?;
        let Some(channel) = self.channels.get_mut(index) else { return Ok(()) };
        let (found, expected) = (message.extranonce_prefix.len(), channel.prefix.len());
        if found != expected {
            return Err(MinerError::ExtranonceLength { found, expected });
        }
        channel.prefix = Prefix::try_from(message.extranonce_prefix).unwrap_or_default();
        let Some(channel) = self.channels.get(index) else { return Ok(()) };
        self.check_extranonce(channel)?;
        self.refresh_report();
        Ok(())
    }

    fn on_group(&mut self, msg_type: u8, message: &SetGroupChannel<'_>) -> Result<(), MinerError> {
        if self.config.requires_standard_jobs() {
            return Err(MinerError::Unexpected { msg_type, step: self.step });
        }
        let group_id = message.group_channel_id;
        if self.channels.iter().any(|channel| channel.id == group_id) {
            return Err(MinerError::ChannelIsGroup { channel_id: group_id });
        }
        for channel_id in message.channel_ids.iter() {
            if self.is_closed(channel_id) {
                continue;
            }
            let index = self.index_of(msg_type, channel_id)?;
            if let Some(channel) = self.channels.get_mut(index) {
                channel.group_id = group_id;
            }
            let Some(channel) = self.channels.get(index) else { continue };
            self.check_extranonce(channel)?;
        }
        Ok(())
    }

    /// The last channel's end is that of the connection.
    fn on_close(&mut self, message: &CloseChannel<'_>) -> Result<(), MinerError> {
        let to = self.addressee(CloseChannel::MSG_TYPE, message.channel_id)?;
        let code = Code::from_wire(message.reason_code);
        for index in (0..self.channels.len()).rev() {
            let Some(channel) = self.channels.get(index) else { break };
            if is_for(to, index, channel.group_id) {
                let channel_id = channel.id;
                if self.channels.len() == 1 && self.opens.is_empty() {
                    return Err(MinerError::ChannelClosed { code });
                }
                self.drop_channel(index);
                self.report.channels_closed += 1;
                self.event(MinerEvent::ChannelClosed { channel_id, code });
            }
        }
        Ok(())
    }

    fn on_share_success(&mut self, message: &SubmitSharesSuccess) -> Result<(), MinerError> {
        let channel_id = message.channel_id;
        if self.is_closed(channel_id) {
            return Ok(());
        }
        self.index_of(SubmitSharesSuccess::MSG_TYPE, channel_id)?;
        let (outstanding, events, report) =
            (&mut self.outstanding, &mut self.events, &mut self.report);
        outstanding.accept(message, |sent| {
            if events.len() < super::EVENTS_MAX {
                events.push(MinerEvent::ShareAccepted {
                    channel_id,
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
        let channel_id = message.channel_id;
        if !self.outstanding.has_channel(channel_id) {
            if self.is_closed(channel_id) {
                return Ok(());
            }
            self.index_of(SubmitSharesError::MSG_TYPE, channel_id)?;
        }
        let sent = self.outstanding.refuse(message)?;
        let code = Code::from_wire(message.error_code);
        self.report.rejects.count(code);
        self.report.outstanding = self.outstanding.len();
        self.event(MinerEvent::ShareRejected {
            channel_id,
            sequence_number: sent.sequence_number,
            code,
            submitted_at: sent.at,
            is_fake: sent.is_fake,
        });
        Ok(())
    }

    /// Version bits that may be rolled on a job that allows it or not.
    fn version_mask(&self, is_allowed: bool) -> u32 {
        let rolls = self.config.rolls_version;
        let ignores_orders = self.config.profile == Profile::Bitaxe;
        if rolls && (ignores_orders || (is_allowed && !self.is_version_fixed)) {
            self.config.version_mask
        } else {
            0
        }
    }

    /// Our channel of this number.
    pub(super) fn index_of(&self, msg_type: u8, channel_id: u32) -> Result<usize, MinerError> {
        let index = self.channels.iter().position(|channel| channel.id == channel_id);
        index.ok_or(MinerError::UnknownChannel { msg_type, channel_id })
    }

    /// Our channel or group of this number; a miner that requires standard jobs is in no group.
    fn addressee(&self, msg_type: u8, channel_id: u32) -> Result<Addressee, MinerError> {
        let group = self.channels.iter().any(|channel| channel.group_id == channel_id);
        match self.index_of(msg_type, channel_id) {
            Ok(index) => Ok(Addressee::Channel(index)),
            Err(_) if group && !self.config.requires_standard_jobs() => {
                Ok(Addressee::Group(channel_id))
            }
            Err(_) if self.is_closed(channel_id) => Ok(Addressee::Nobody),
            Err(error) => Err(error),
        }
    }

    fn is_closed(&self, channel_id: u32) -> bool {
        self.closed.contains(&channel_id)
    }
}

fn is_for(to: Addressee, index: usize, group_id: u32) -> bool {
    match to {
        Addressee::Channel(of) => of == index,
        Addressee::Group(of) => of == group_id,
        Addressee::Nobody => false,
    }
}
