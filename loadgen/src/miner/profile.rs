//! Devices in the field: their limits and habits (what is known of their firmware).
//!
//! A profile is two things. [`Profile::config`] is how such a device sets itself up; every field
//! may be changed afterwards. And the profile itself, in `MinerConfig::profile`, binds the machine
//! to what the device can take: what it would choke on is an error, what it does not know is
//! ignored as the device ignores it.

use sv2::message::common::{
    ChannelEndpointChanged, REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, Reconnect,
};
use sv2::message::mining::{CloseChannel, SetExtranoncePrefix, SetGroupChannel};

use super::config::{ChannelKinds, Device, MinerConfig, NtimeRolling};

/// Longest payload a Bitaxe takes, in bytes.
pub const BITAXE_PAYLOAD_MAX: usize = 8_192;

/// Slots of a Bitaxe's ring of future jobs; a job is in the slot of its number modulo this.
pub const BITAXE_FUTURE_SLOTS: u32 = 8;

/// Milliseconds without any frame after which a Bitaxe leaves.
pub const BITAXE_SILENCE_MS: u64 = 180_000;

/// Version bits a Bitaxe rolls (BIP320), whatever it is told.
pub const BITAXE_VERSION_MASK: u32 = 0x1fff_e000;

/// Seconds by which SRI's mining_device is ahead of the clock.
const MINING_DEVICE_AHEAD_SECONDS: u32 = 60;

/// Most extranonce bytes of SV1 firmware behind a proxy (WhatsMiner, cgminer).
const SV1_EXTRANONCE_BYTES_MAX: u16 = 8;

/// Whose limits and habits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Nobody's: the specification, strictly.
    #[default]
    Strict,
    /// A Bitaxe or NerdQAxe (ESP-Miner).
    Bitaxe,
    /// SRI's mining_device.
    MiningDevice,
    /// SRI's translator.
    Translator,
}

impl Profile {
    /// The configuration that such a device connects with: one channel, of the kind it opens by
    /// default.
    pub fn config(self) -> MinerConfig {
        let base = MinerConfig { profile: self, ..MinerConfig::default() };
        match self {
            Profile::Strict => base,
            Profile::Bitaxe => MinerConfig {
                device: device("Bitaxe", "ESP-Miner"),
                flags: 0,
                kinds: ChannelKinds::Extended,
                min_extranonce_size: 2,
                nominal_hash_rate: 1e12,
                version_mask: BITAXE_VERSION_MASK,
                ..base
            },
            Profile::MiningDevice => MinerConfig {
                device: device("SRI", "mining_device"),
                flags: REQUIRES_STANDARD_JOBS,
                first_sequence_number: 1,
                ntime: NtimeRolling::Clock { ahead_seconds: MINING_DEVICE_AHEAD_SECONDS },
                rolls_version: false,
                ..base
            },
            Profile::Translator => MinerConfig {
                device: device("SRI", "translator"),
                flags: REQUIRES_VERSION_ROLLING,
                kinds: ChannelKinds::Extended,
                min_extranonce_size: 4,
                max_extranonce_size: SV1_EXTRANONCE_BYTES_MAX,
                ..base
            },
        }
    }

    /// Whether the device drops messages of this type of the core protocol unread.
    pub(super) fn ignores(self, msg_type: u8) -> bool {
        let unknown = [
            Reconnect::MSG_TYPE,
            SetExtranoncePrefix::MSG_TYPE,
            CloseChannel::MSG_TYPE,
            SetGroupChannel::MSG_TYPE,
            ChannelEndpointChanged::MSG_TYPE,
        ];
        self == Profile::Bitaxe && unknown.contains(&msg_type)
    }

    /// Whether the device ends itself at messages of this type of the core protocol.
    pub(super) fn dies_of(self, msg_type: u8) -> bool {
        let deadly: &[u8] = match self {
            Profile::Strict | Profile::Bitaxe => &[],
            Profile::MiningDevice => {
                &[Reconnect::MSG_TYPE, SetExtranoncePrefix::MSG_TYPE, CloseChannel::MSG_TYPE]
            }
            Profile::Translator => &[Reconnect::MSG_TYPE, ChannelEndpointChanged::MSG_TYPE],
        };
        deadly.contains(&msg_type)
    }

    /// Whether a new target counts for the job that is mined already.
    pub(super) fn applies_target_at_once(self) -> bool {
        self == Profile::MiningDevice
    }

    /// Longest payload the device takes, in bytes; `None` for what the protocol allows.
    pub(super) fn payload_max(self) -> Option<usize> {
        (self == Profile::Bitaxe).then_some(BITAXE_PAYLOAD_MAX)
    }

    /// Milliseconds without any frame after which the device leaves.
    pub(super) fn silence_ms(self) -> Option<u64> {
        (self == Profile::Bitaxe).then_some(BITAXE_SILENCE_MS)
    }
}

fn device(vendor: &str, firmware: &str) -> Device {
    Device {
        vendor: vendor.to_owned(),
        hardware_version: "loadgen".to_owned(),
        firmware: firmware.to_owned(),
        device_id: String::new(),
    }
}
