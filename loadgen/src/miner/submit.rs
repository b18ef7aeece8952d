//! What the miner sends about its channels: shares, with their workers' names, and updates.

use std::fmt::Write;

use arrayvec::{ArrayString, ArrayVec};
use sv2::message::EXTENSION_WORKER;
use sv2::message::extension::USER_IDENTITY_MAX;
use sv2::message::mining::{SubmitSharesExtended, SubmitSharesStandard, UpdateChannel};
use work::{BlockHash, Now, Target};

use super::coinbase::Extranonce;
use super::config::{MinerConfig, WorkerTlv};
use super::search::{Found, Search};
use super::shares::Sent;
use super::{Miner, MinerError, MinerEvent};

/// Field of extension 0x0002 that holds the worker's name.
const USER_IDENTITY_FIELD: u8 = 0x01;

/// Bytes of a TLV with the longest name: type U16, field U8, length U16, name.
const TLV_BYTES_MAX: usize = 5 + USER_IDENTITY_MAX;

/// A share of either kind.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    /// All fields that both kinds have.
    pub fields: SubmitSharesStandard,
    /// The rolled part, on an extended channel.
    pub extranonce: Option<Extranonce>,
}

impl Share {
    /// The present header of `search`, or one found by it.
    pub fn of(search: &Search, found: Option<&Found>, channel_id: u32) -> Share {
        let claim = found.map_or(search.claim(), |found| found.claim);
        Share {
            fields: SubmitSharesStandard {
                channel_id,
                sequence_number: 0,
                job_id: search.job.facts.job_id,
                nonce: claim.nonce,
                ntime: claim.ntime,
                version: claim.version,
            },
            extranonce: search.extranonce(),
        }
    }
}

/// Name of a worker.
fn worker_name(number: usize) -> ArrayString<USER_IDENTITY_MAX> {
    let mut name = ArrayString::new();
    // "worker-" and the digits of a usize fit.
    let _ = write!(name, "worker-{number}");
    name
}

fn worker_tlv(number: usize, form: WorkerTlv) -> ArrayVec<u8, TLV_BYTES_MAX> {
    let name = worker_name(number);
    // At most USER_IDENTITY_MAX.
    let length = name.len() as u16;
    let (extension, length) = match form {
        WorkerTlv::LittleEndian => (EXTENSION_WORKER.to_le_bytes(), length.to_le_bytes()),
        WorkerTlv::BigEndian => (EXTENSION_WORKER.to_be_bytes(), length.to_be_bytes()),
        WorkerTlv::Malformed => (EXTENSION_WORKER.to_le_bytes(), u16::MAX.to_le_bytes()),
    };
    let [e0, e1] = extension;
    let [l0, l1] = length;
    let header = [e0, e1, USER_IDENTITY_FIELD, l0, l1];
    header.into_iter().chain(name.bytes()).collect()
}

impl Miner {
    pub(super) fn submit_found(
        &mut self,
        now: Now,
        index: usize,
        found: &Found,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let Some(channel) = self.channels.get_mut(index) else { return Ok(()) };
        let Some(search) = &mut channel.search else { return Ok(()) };
        let share = Share::of(search, Some(found), channel.id);
        search.after_found();
        let job_id = share.fields.job_id;
        self.submit(now, index, share, found.hash, false, wire)?;
        if found.is_block {
            self.report.blocks_found += 1;
            self.event(MinerEvent::BlockFound { block_hash: found.hash, job_id });
        }
        Ok(())
    }

    /// Sends a share under the next number of the channel at `index`, and returns that number.
    pub(super) fn submit(
        &mut self,
        now: Now,
        index: usize,
        mut share: Share,
        share_hash: BlockHash,
        is_fake: bool,
        wire: &mut Vec<u8>,
    ) -> Result<Option<u32>, MinerError> {
        let names_workers = self.names_workers || self.config.names_workers_unasked;
        let MinerConfig { workers, worker_tlv: form, .. } = self.config;
        let Some(channel) = self.channels.get_mut(index) else { return Ok(None) };
        let sequence_number = channel.next_sequence_number;
        channel.next_sequence_number = sequence_number.wrapping_add(1);
        share.fields.sequence_number = sequence_number;
        let SubmitSharesStandard { channel_id, job_id, nonce, ntime, version, .. } = share.fields;
        match &share.extranonce {
            None => self.seal(&share.fields, wire)?,
            Some(extranonce) => {
                let mut tlv = ArrayVec::new();
                if names_workers && workers > 0 {
                    tlv = worker_tlv(channel.next_worker % workers, form);
                    channel.next_worker = channel.next_worker.wrapping_add(1);
                }
                let message = SubmitSharesExtended {
                    channel_id,
                    sequence_number,
                    job_id,
                    nonce,
                    ntime,
                    version,
                    extranonce,
                    tlv: &tlv,
                };
                self.seal(&message, wire)?;
            }
        }
        self.outstanding.push(Sent { channel_id, sequence_number, at: now.mono, is_fake });
        self.last_submit = Some(now.mono);
        if !is_fake {
            self.last_share = Some(share);
        }
        self.report.submitted += 1;
        self.report.fakes_submitted += u64::from(is_fake);
        self.report.outstanding = self.outstanding.len();
        self.event(MinerEvent::ShareSubmitted { sequence_number, job_id, share_hash });
        Ok(Some(sequence_number))
    }

    /// Sends `UpdateChannel`. From its arrival on the server sets no target above `max_target`.
    ///
    /// # Errors
    /// [`MinerError::UnknownChannel`] if the channel is not open, [`MinerError::Transport`] when it
    /// cannot be sealed.
    pub fn update_channel(
        &mut self,
        now: Now,
        channel_id: u32,
        nominal_hash_rate: f32,
        max_target: Target,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let index = self.index_of(UpdateChannel::MSG_TYPE, channel_id)?;
        let maximum_target = max_target.to_le_bytes();
        self.seal(&UpdateChannel { channel_id, nominal_hash_rate, maximum_target }, wire)?;
        self.report.updates_sent += 1;
        if let Some(channel) = self.channels.get_mut(index) {
            if max_target < channel.target {
                channel.lowering.get_or_insert((now.mono, channel.max_target));
            }
            channel.max_target = max_target;
        }
        Ok(())
    }

    /// Tells one channel's hash rate again when its time has come.
    pub(super) fn update_when_due(
        &mut self,
        now: Now,
        wire: &mut Vec<u8>,
    ) -> Result<(), MinerError> {
        let Some(every) = self.config.update_every_ms else { return Ok(()) };
        let is_due = *self.next_update.get_or_insert(now.mono.plus_millis(every)) <= now.mono;
        if !is_due || self.channels.is_empty() {
            return Ok(());
        }
        self.next_update = Some(now.mono.plus_millis(every));
        let index = usize::try_from(self.report.updates_sent).unwrap_or(0) % self.channels.len();
        let Some(channel) = self.channels.get(index) else { return Ok(()) };
        let (channel_id, max_target) = (channel.id, channel.max_target);
        let nominal_hash_rate = self.config.nominal_hash_rate;
        self.update_channel(now, channel_id, nominal_hash_rate, max_target, wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sv2::message::extension::user_identity;

    #[test]
    fn workers_are_named_in_either_byte_order() {
        for form in [WorkerTlv::LittleEndian, WorkerTlv::BigEndian] {
            assert_eq!(user_identity(&worker_tlv(7, form)), Some(&b"worker-7"[..]));
        }
        assert_eq!(user_identity(&worker_tlv(7, WorkerTlv::Malformed)), None);
        let little = worker_tlv(1, WorkerTlv::LittleEndian);
        assert_eq!(little[..5], [0x02, 0x00, 0x01, 0x08, 0x00]);
    }
}
