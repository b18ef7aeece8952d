//! What a miner is told before it connects.

use sv2::AuthorityPublicKey;
use sv2::message::common::REQUIRES_STANDARD_JOBS;
use work::Target;
use work::share::VERSION_ROLLING_MASK;

use super::profile::Profile;

/// Most channels of one connection.
pub const CHANNELS_MAX: usize = 1_024;

/// Most requests for a channel that wait for their answer.
pub const OPENS_IN_FLIGHT_MAX: usize = 16;

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

/// Who rolls the extranonce of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Nobody: the server gives every channel a whole extranonce, the work is headers only.
    Standard,
    /// The miner, behind a prefix that the server gives.
    Extended,
}

/// The kinds of a connection's channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKinds {
    /// Standard ones only.
    Standard,
    /// Extended ones only.
    Extended,
    /// Standard and extended in turn, as behind a proxy of both kinds of devices.
    Mixed,
}

impl ChannelKinds {
    /// Kind of the channel that is opened as number `number`, from 0.
    pub fn of(self, number: usize) -> ChannelKind {
        match self {
            ChannelKinds::Standard => ChannelKind::Standard,
            ChannelKinds::Extended => ChannelKind::Extended,
            ChannelKinds::Mixed if number.is_multiple_of(2) => ChannelKind::Standard,
            ChannelKinds::Mixed => ChannelKind::Extended,
        }
    }
}

/// How worker names go out behind extended shares (extension 0x0002).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerTlv {
    /// Type and length little-endian, as the reference implementation writes them.
    LittleEndian,
    /// Type and length big-endian, as the specification prints them.
    BigEndian,
    /// With a length beyond the end of the message: a server must not refuse the share for it.
    Malformed,
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
    /// Who is credited: what the request for a channel carries; at most 255 bytes.
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
    /// Whether the bits of `version_mask` are rolled.
    pub rolls_version: bool,
    /// Least milliseconds between two submissions; 0 submits whatever is found.
    pub submit_interval_min_ms: u64,
    /// Sequence number of a channel's first share: devices start with 0 or with 1.
    pub first_sequence_number: u32,
    /// Milliseconds for each of: act 2, `SetupConnectionSuccess`, extensions, an open channel, the
    /// first tip of a channel.
    pub step_timeout_ms: u64,
    /// The device whose limits and habits hold beside all of the above.
    pub profile: Profile,
    /// Channels that are opened, 1 to [`CHANNELS_MAX`].
    pub channels: usize,
    /// Their kinds.
    pub kinds: ChannelKinds,
    /// Requests for a channel that are under way at once, 1 to [`OPENS_IN_FLIGHT_MAX`].
    pub opens_in_flight: usize,
    /// Fewest extranonce bytes that an extended channel has to leave to the miner.
    pub min_extranonce_size: u16,
    /// Most extranonce bytes that what is behind the miner can roll.
    pub max_extranonce_size: u16,
    /// Version bits that are rolled, a run of bits without a gap.
    pub version_mask: u32,
    /// Extensions that are asked for after setup; none is asked for if it is empty.
    pub extensions: Vec<u16>,
    /// Workers of each extended channel, named `worker-0` and on; 0 names none. Their names go out
    /// once extension 0x0002 is agreed on.
    pub workers: usize,
    /// How they go out.
    pub worker_tlv: WorkerTlv,
    /// Sends workers' names although the extension is not agreed on, which a server has to skip.
    pub names_workers_unasked: bool,
    /// Milliseconds between two `UpdateChannel`, to one channel after the other.
    pub update_every_ms: Option<u64>,
    /// Milliseconds within which a new job has to follow each `SetTarget`, and a lower target an
    /// `UpdateChannel` that lowers it; `None` does not check.
    pub fresh_job_ms: Option<u64>,
}

impl MinerConfig {
    /// Whether this miner takes standard jobs only and is in no group.
    pub fn requires_standard_jobs(&self) -> bool {
        self.flags & REQUIRES_STANDARD_JOBS != 0
    }
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
            profile: Profile::Strict,
            channels: 1,
            kinds: ChannelKinds::Standard,
            opens_in_flight: 1,
            min_extranonce_size: 4,
            max_extranonce_size: 32,
            version_mask: VERSION_ROLLING_MASK,
            extensions: Vec::new(),
            workers: 0,
            worker_tlv: WorkerTlv::LittleEndian,
            names_workers_unasked: false,
            update_every_ms: None,
            fresh_job_ms: None,
        }
    }
}
