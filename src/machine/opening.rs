//! Who may open a channel, and with which first difficulty: a pure table.

use sv2::message::mining::{OpenStandardMiningChannel, UpdateChannel};
use work::{Difficulty, Target};

use super::shard::ShardSettings;

/// Why a channel is not opened, as the text that goes on the wire.
pub type OpenRefusal = &'static str;

/// The easiest target asked for is zero, or harder than any difficulty.
pub const MAX_TARGET_OUT_OF_RANGE: OpenRefusal = "max-target-out-of-range";
/// The hash rate is negative, infinite or no number.
pub const INVALID_NOMINAL_HASHRATE: OpenRefusal = "invalid-nominal-hashrate";
/// The connection, or the space of extranonces, has no room for another channel.
pub const CHANNEL_LIMIT_REACHED: OpenRefusal = "channel-limit-reached";
/// There is no place to record the channel now; it may be asked for again.
pub const NOT_READY_RETRY: OpenRefusal = "not-ready-retry";
/// The connection said that it takes standard jobs only.
pub const EXTENDED_FOR_STANDARD_JOBS: OpenRefusal =
    "extended-channels-not-supported-for-standard-jobs";
/// This gateway opens standard channels.
pub const EXTENDED_NOT_SUPPORTED: OpenRefusal = "extended-channels-not-supported";
/// The connection said that it chooses its own work.
pub const STANDARD_FOR_CUSTOM_WORK: OpenRefusal = "standard-channels-not-supported-for-custom-work";

/// A channel's difficulty from what the miner says of itself.
///
/// # Errors
/// The refusal for a hash rate that is none, or a `max_target` that nothing meets.
pub fn difficulty(
    nominal_hash_rate: f32,
    max_target: [u8; 32],
    settings: &ShardSettings,
) -> Result<Difficulty, OpenRefusal> {
    if !nominal_hash_rate.is_finite() || nominal_hash_rate < 0.0 {
        return Err(INVALID_NOMINAL_HASHRATE);
    }
    let hardest_needed = Difficulty::at_least_for(Target::from_le_bytes(max_target))
        .ok_or(MAX_TARGET_OUT_OF_RANGE)?;
    let by_rate =
        Difficulty::for_hashrate(f64::from(nominal_hash_rate), settings.target_shares_per_minute);
    let floor = Difficulty::at_most(settings.min_difficulty);
    Ok(by_rate.harder(floor).harder(hardest_needed))
}

/// [`difficulty`] for a request to open.
///
/// # Errors
/// As there.
pub fn first_difficulty(
    request: &OpenStandardMiningChannel<'_>,
    settings: &ShardSettings,
) -> Result<Difficulty, OpenRefusal> {
    difficulty(request.nominal_hash_rate, request.max_target, settings)
}

/// [`difficulty`] for an update.
///
/// # Errors
/// As there.
pub fn updated_difficulty(
    update: &UpdateChannel,
    settings: &ShardSettings,
) -> Result<Difficulty, OpenRefusal> {
    difficulty(update.nominal_hash_rate, update.maximum_target, settings)
}
