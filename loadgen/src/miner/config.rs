//! What a miner is told before it connects.

use sv2::AuthorityPublicKey;
use sv2::message::common::REQUIRES_STANDARD_JOBS;
use work::Target;

/// How a miner chooses the `ntime` of its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NtimeRolling {
    /// Always the earliest time allowed.
    Fixed,
    /// The earliest time plus the seconds since the job became active (SV2 5.3.8: must be taken).
    Elapsed,
    /// The clock plus some seconds, as SRI's mining_device does with 60; never below the earliest.
    Clock {
        /// Seconds ahead of the clock.
        ahead_seconds: u32,
    },
}

/// What the miner says about itself at setup. Each text is cut at 255 bytes on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Maker of the device.
    pub vendor: String,
    /// Model and revision.
    pub hardware_version: String,
    /// Name and version of the firmware.
    pub firmware: String,
    /// Identifier, unique at its maker.
    pub device_id: String,
}

/// How one miner behaves.
#[derive(Debug, Clone)]
pub struct MinerConfig {
    /// Who is credited: what `OpenStandardMiningChannel` carries; at most 255 bytes.
    pub user_identity: String,
    /// The key that must have signed the server's certificate; `None` checks nothing.
    pub authority: Option<AuthorityPublicKey>,
    /// Hashes a second, as told to the server.
    pub nominal_hash_rate: f32,
    /// The easiest target this miner takes; a server that goes beyond it is in the wrong.
    pub max_target: Target,
    /// Flags of `SetupConnection`: bit 0 standard jobs, bit 1 work selection, bit 2 version
    /// rolling.
    pub flags: u32,
    /// The device.
    pub device: Device,
    /// Host as dialled, for `SetupConnection`.
    pub endpoint_host: String,
    /// Port as dialled, for `SetupConnection`.
    pub endpoint_port: u16,
    /// How `ntime` moves.
    pub ntime: NtimeRolling,
    /// Whether bits 5 to 28 of the version are rolled (BIP323).
    pub rolls_version: bool,
    /// Least milliseconds between two submissions; 0 submits whatever is found.
    pub submit_interval_min_ms: u64,
    /// Sequence number of a channel's first share: devices start with 0 or with 1.
    pub first_sequence_number: u32,
    /// Milliseconds for each of: act 2, `SetupConnectionSuccess`, the open channel, the first tip.
    pub step_timeout_ms: u64,
}

impl Default for MinerConfig {
    fn default() -> MinerConfig {
        MinerConfig {
            user_identity: "loadgen.0".to_owned(),
            authority: None,
            nominal_hash_rate: 1_000.0,
            max_target: Target::MAX,
            flags: REQUIRES_STANDARD_JOBS,
            device: Device {
                vendor: "ReserveGrid".to_owned(),
                hardware_version: "loadgen".to_owned(),
                firmware: env!("CARGO_PKG_VERSION").to_owned(),
                device_id: String::new(),
            },
            endpoint_host: "127.0.0.1".to_owned(),
            endpoint_port: 0,
            ntime: NtimeRolling::Elapsed,
            rolls_version: true,
            submit_interval_min_ms: 0,
            first_sequence_number: 0,
            step_timeout_ms: 30_000,
        }
    }
}
