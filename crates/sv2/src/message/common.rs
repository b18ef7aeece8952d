//! The messages every sub-protocol shares: setting a connection up and moving it (SV2
//! specification section 3.6).

use crate::message::EXTENSION_CORE;

/// `SetupConnection.protocol` of the mining protocol.
pub const PROTOCOL_MINING: u8 = 0;
/// `SetupConnection.protocol` of Job Declaration.
pub const PROTOCOL_JOB_DECLARATION: u8 = 1;
/// `SetupConnection.protocol` of Template Distribution.
pub const PROTOCOL_TEMPLATE_DISTRIBUTION: u8 = 2;
/// The one version of the protocol there is.
pub const PROTOCOL_VERSION: u16 = 2;

/// Flag of a miner: it takes standard jobs only, no extended jobs and no groups.
pub const REQUIRES_STANDARD_JOBS: u32 = 1 << 0;
/// Flag of a miner: it will choose its own work by `SetCustomMiningJob`.
pub const REQUIRES_WORK_SELECTION: u32 = 1 << 1;
/// Flag of a miner: it rolls version bits.
pub const REQUIRES_VERSION_ROLLING: u32 = 1 << 2;

/// Flag of a server: version bits are not to be rolled.
pub const REQUIRES_FIXED_VERSION: u32 = 1 << 0;
/// Flag of a server: it opens extended channels only.
pub const REQUIRES_EXTENDED_CHANNELS: u32 = 1 << 1;

message! {
    /// The miner's first message: what it speaks and what it is.
    ///
    /// All text is untrusted and need not be UTF-8.
    SetupConnection<'a> = (EXTENSION_CORE, 0x00, false) {
        /// Sub-protocol: see [`PROTOCOL_MINING`].
        protocol: u8 = u8,
        /// Lowest version the miner speaks.
        min_version: u16 = u16,
        /// Highest version the miner speaks.
        max_version: u16 = u16,
        /// What the miner requires: see [`REQUIRES_STANDARD_JOBS`] and its neighbours.
        flags: u32 = u32,
        /// Host name the miner dialled.
        endpoint_host: &'a [u8] = str0_255,
        /// Port the miner dialled.
        endpoint_port: u16 = u16,
        /// Maker of the device.
        vendor: &'a [u8] = str0_255,
        /// Model and revision of the device.
        hardware_version: &'a [u8] = str0_255,
        /// Name and version of the firmware.
        firmware: &'a [u8] = str0_255,
        /// Identifier of the device, unique at its maker.
        device_id: &'a [u8] = str0_255,
    }
}

message! {
    /// The server takes the connection.
    SetupConnectionSuccess = (EXTENSION_CORE, 0x01, false) {
        /// The version both will speak.
        used_version: u16 = u16,
        /// What the server requires: see [`REQUIRES_FIXED_VERSION`]. Never an echo.
        flags: u32 = u32,
    }
}

message! {
    /// The server refuses the connection and closes it.
    SetupConnectionError<'a> = (EXTENSION_CORE, 0x02, false) {
        /// All flags of the miner that the server does not support; 0 if that was not the cause.
        flags: u32 = u32,
        /// Printable ASCII, for logs.
        error_code: &'a [u8] = str0_255,
    }
}

message! {
    /// The endpoint behind a channel was replaced and its state is lost.
    ChannelEndpointChanged = (EXTENSION_CORE, 0x03, true) {
        /// The channel concerned.
        channel_id: u32 = u32,
    }
}

message! {
    /// The server asks the miner to connect elsewhere, under the same authority key.
    Reconnect<'a> = (EXTENSION_CORE, 0x04, false) {
        /// Host to connect to; empty for the present one.
        new_host: &'a [u8] = str0_255,
        /// Port to connect to; 0 for the present one.
        new_port: u16 = u16,
    }
}
