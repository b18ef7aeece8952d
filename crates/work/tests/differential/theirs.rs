//! The reference: one channel of `channels_sv2`, given the same templates, targets and shares.

use binary_sv2::B0255Owned;
use channels_sv2::extranonce_manager::ExtranonceAllocator;
use channels_sv2::server::extended::ExtendedChannel;
use channels_sv2::server::share_accounting::{ShareValidationError, ShareValidationResult};
use channels_sv2::server::standard::StandardChannel;
use mining_sv2::{SubmitSharesExtendedOwned, SubmitSharesStandardOwned};
use template_distribution_sv2::{NewTemplateOwned, SetNewPrevHashOwned};
use work::payout::Payout;
use work::{Target, Template};

use crate::corpus::Setup;
use crate::{Block, Outcome, Share};

/// The tag in the coinbase that the reference makes of its own; ours is set to the same bytes.
pub const TAG: &[u8] = b"Sv2/rg//";

/// Past jobs the reference keeps: as many as our board, so that its number is no deviation.
const PAST_JOBS: usize = 256;

/// Shares a minute; its seen set then holds 4 096 hashes, more than one world has.
const SHARES_PER_MINUTE: f32 = 1.0;

enum Channel {
    Standard(StandardChannel),
    Extended(ExtendedChannel),
}

/// A channel of the reference, and the allocator that its prefix belongs to.
pub struct Theirs {
    channel: Channel,
    _prefixes: ExtranonceAllocator,
}

/// What the reference made of a template: from these the root of any share follows.
pub struct TheirWork {
    /// The job's number.
    pub job_id: u32,
    /// Earliest time of a share on it.
    pub min_ntime: u32,
    /// Coinbase before and after the extranonce (extended), without witness.
    pub parts: Option<(Vec<u8>, Vec<u8>)>,
    /// The root (standard).
    pub root: Option<[u8; 32]>,
}

impl Theirs {
    /// A channel with the extranonce prefix that our side cut.
    pub fn new(setup: &Setup, prefix: &[u8], extranonce_size: u16) -> Theirs {
        // Its allocator appends an index of one byte, which begins at 0: as our counter does.
        let full = u8::try_from(prefix.len() + usize::from(extranonce_size)).unwrap();
        // A standard prefix is padded by the reference itself, from the 8 bytes of ours.
        let own = if setup.is_standard { 8 } else { prefix.len() };
        let mut prefixes = ExtranonceAllocator::new(prefix[..own - 1].to_vec(), full, 2).unwrap();
        let max = bitcoin::Target::from_le_bytes([0xff; 32]);
        let tag = String::from("rg");
        let user = String::from("m.1");
        let channel = if setup.is_standard {
            let prefix = prefixes.allocate_standard().unwrap();
            Channel::Standard(
                StandardChannel::new_for_pool(
                    1,
                    user,
                    prefix,
                    max,
                    1.0,
                    10,
                    SHARES_PER_MINUTE,
                    tag,
                    Some(PAST_JOBS),
                )
                .unwrap(),
            )
        } else {
            let prefix = prefixes.allocate_extended(extranonce_size.into()).unwrap();
            Channel::Extended(
                ExtendedChannel::new_for_pool(
                    1,
                    user,
                    prefix,
                    max,
                    1.0,
                    setup.version_mask != 0,
                    extranonce_size,
                    10,
                    SHARES_PER_MINUTE,
                    tag,
                    Some(PAST_JOBS),
                )
                .unwrap(),
            )
        };
        Theirs { channel, _prefixes: prefixes }
    }

    /// Its extranonce prefix.
    pub fn extranonce_prefix(&self) -> &[u8] {
        match &self.channel {
            Channel::Standard(channel) => channel.get_extranonce_prefix(),
            Channel::Extended(channel) => channel.get_extranonce_prefix(),
        }
    }

    /// SetTarget.
    pub fn set_target(&mut self, target: Target) {
        let target = bitcoin::Target::from_le_bytes(target.to_le_bytes());
        match &mut self.channel {
            Channel::Standard(channel) => channel.set_target(target).unwrap(),
            Channel::Extended(channel) => channel.set_target(target).unwrap(),
        }
    }

    /// Give it `template`; on a new tip as a future one that the tip then names.
    pub fn give(&mut self, template: &Template, payouts: &[Payout], is_new_tip: bool) -> TheirWork {
        let message = new_template(template, is_new_tip);
        let outputs: Vec<bitcoin::TxOut> = payouts
            .iter()
            .zip(Payout::split(payouts, template.coinbase_value))
            .map(|(payout, value)| output(value, &payout.script_pubkey))
            .collect();
        let tip = is_new_tip.then(|| SetNewPrevHashOwned {
            template_id: template.id.0,
            prev_hash: template.tip.prev_hash.0.into(),
            header_timestamp: template.tip.min_ntime,
            n_bits: template.tip.nbits,
            target: [0xff; 32].into(),
        });
        match &mut self.channel {
            Channel::Standard(channel) => {
                channel.on_new_template(message, outputs).unwrap();
                if let Some(tip) = tip {
                    channel.on_set_new_prev_hash(tip).unwrap();
                }
                let job = channel.get_active_job().unwrap();
                TheirWork {
                    job_id: job.get_job_id(),
                    min_ntime: job.get_min_ntime().unwrap(),
                    parts: None,
                    root: Some(job.get_merkle_root().to_array()),
                }
            }
            Channel::Extended(channel) => {
                channel.on_new_template(message, outputs).unwrap();
                if let Some(tip) = tip {
                    channel.on_set_new_prev_hash(tip).unwrap();
                }
                let job = channel.get_active_job().unwrap();
                let parts = (
                    job.get_coinbase_tx_prefix_without_bip141(),
                    job.get_coinbase_tx_suffix_without_bip141(),
                );
                TheirWork {
                    job_id: job.get_job_id(),
                    min_ntime: job.get_min_ntime().unwrap(),
                    parts: Some(parts),
                    root: None,
                }
            }
        }
    }

    /// Its decision on a share.
    pub fn on_share(&mut self, share: &Share) -> Outcome {
        let before = self.work_sum();
        let result = match &mut self.channel {
            Channel::Standard(channel) => channel.validate_share(SubmitSharesStandardOwned {
                channel_id: 1,
                sequence_number: 1,
                job_id: share.job_id,
                nonce: share.nonce,
                ntime: share.ntime,
                version: share.version,
            }),
            Channel::Extended(channel) => channel.validate_share(SubmitSharesExtendedOwned {
                channel_id: 1,
                sequence_number: 1,
                job_id: share.job_id,
                nonce: share.nonce,
                ntime: share.ntime,
                version: share.version,
                extranonce: share.extranonce.clone().try_into().unwrap(),
            }),
        };
        let (code, block) = match result {
            Ok(ShareValidationResult::Valid(_)) => (None, None),
            Ok(ShareValidationResult::BlockFound(_, _, coinbase)) => (None, Some(Block(coinbase))),
            Err(error) => (Some(wire_text(&error)), None),
        };
        Outcome { code, block, credit: self.work_sum() - before }
    }

    fn work_sum(&self) -> f64 {
        match &self.channel {
            Channel::Standard(channel) => channel.get_share_accounting().get_share_work_sum(),
            Channel::Extended(channel) => channel.get_share_accounting().get_share_work_sum(),
        }
    }
}

fn wire_text(error: &ShareValidationError) -> &'static str {
    match error {
        ShareValidationError::Invalid(code)
        | ShareValidationError::Stale(code)
        | ShareValidationError::InvalidJobId(code)
        | ShareValidationError::DoesNotMeetTarget(code)
        | ShareValidationError::VersionRollingNotAllowed(code)
        | ShareValidationError::DuplicateShare(code)
        | ShareValidationError::BadExtranonceSize(code) => code,
        ShareValidationError::InvalidCoinbase => "invalid coinbase",
        ShareValidationError::NoChainTip => "no tip",
        ShareValidationError::SeenSharesBudgetExhausted => "seen set full: the channel is closed",
    }
}

/// The template in the words of SV2's template distribution. Version, sequence and locktime of
/// the coinbase are written out here and not taken from our side: BIP54 wants a sequence that is
/// not final and a locktime of the height less one.
fn new_template(template: &Template, future_template: bool) -> NewTemplateOwned {
    let height = bitcoin::script::Builder::new().push_int(template.height.into()).into_bytes();
    let commitment = output(0, &template.witness_commitment);
    let path: Vec<_> = template.merkle_path.iter().map(|node| node.0.into()).collect();
    NewTemplateOwned {
        template_id: template.id.0,
        future_template,
        version: template.version,
        coinbase_tx_version: 2,
        coinbase_prefix: B0255Owned::try_from(height).unwrap(),
        coinbase_tx_input_sequence: 0xffff_fffe,
        coinbase_tx_value_remaining: template.coinbase_value,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: bitcoin::consensus::serialize(&commitment).try_into().unwrap(),
        coinbase_tx_locktime: template.height - 1,
        merkle_path: path.try_into().unwrap(),
    }
}

fn output(value: u64, script_pubkey: &[u8]) -> bitcoin::TxOut {
    bitcoin::TxOut {
        value: bitcoin::Amount::from_sat(value),
        script_pubkey: bitcoin::ScriptBuf::from_bytes(script_pubkey.to_vec()),
    }
}
