//! What a block takes from its parent: times, height, bits (D21).

use serde::Deserialize;
use work::hash::BlockHash;
use work::payout::Network;
use work::template::TemplateId;
use work::tip::Tip;

use crate::assemble::Frame;

/// Seconds that a block at a retarget may lie before its parent (BIP94, applied on every chain
/// by the node's templates).
const TIMEWARP_MAX: u32 = 600;
/// Seconds after which a block of testnet4 may have the least difficulty.
const MIN_DIFFICULTY_AFTER: u32 = 1_200;

/// The block that is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its hash.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// Its time, seconds.
    pub time: u32,
    /// Median time of the eleven blocks that end with it, seconds.
    pub median_time: u32,
}

/// `getblockheader`, as far as it is used.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) hash: BlockHash,
    pub(super) height: u32,
    pub(super) time: u32,
    pub(super) mediantime: u32,
    pub(super) bits: String,
    /// Work of the chain up to it, 64 hexadecimal digits.
    pub(super) chainwork: String,
}

/// `getmininginfo`, as far as it is used.
#[derive(Debug, Deserialize)]
pub(super) struct MiningInfo {
    /// Nodes before version 29 do not say.
    pub(super) next: Option<Next>,
}

/// What `getmininginfo` says of the next block.
#[derive(Debug, Deserialize)]
pub(super) struct Next {
    pub(super) height: u32,
    pub(super) bits: String,
}

fn is_retarget(network: Network, height: u32) -> bool {
    // Regtest counts a day of blocks where others count two weeks; nodes of some years ago
    // counted 2016 there, too, which is a multiple of it.
    let interval = if network == Network::Regtest { 144 } else { 2_016 };
    height.is_multiple_of(interval)
}

/// The earliest time of the next block: after the median, at a retarget not far before the
/// parent.
pub fn min_time(network: Network, parent: &Parent) -> u32 {
    let after_median = parent.median_time.saturating_add(1);
    if is_retarget(network, parent.height + 1) {
        return after_median.max(parent.time.saturating_sub(TIMEWARP_MAX));
    }
    after_median
}

/// The earliest time that keeps the bits right.
///
/// On testnet4 a block more than twenty minutes after its parent has the least difficulty, so
/// bits given for such a time are wrong for an earlier one.
pub fn bound_to_bits(network: Network, parent: &Parent, min_time: u32, cur_time: u32) -> u32 {
    let boundary = parent.time.saturating_add(MIN_DIFFICULTY_AFTER);
    let eased = network == Network::Testnet4
        && !is_retarget(network, parent.height + 1)
        && cur_time > boundary;
    if eased { min_time.max(boundary + 1) } else { min_time }
}

/// The latest time that keeps the bits right: on testnet4, those of an ordinary block are wrong
/// twenty minutes after its parent (D32). Nothing where time changes nothing.
pub fn max_time(network: Network, parent: &Parent, cur_time: u32) -> Option<u32> {
    let boundary = parent.time.saturating_add(MIN_DIFFICULTY_AFTER);
    let is_ordinary = network == Network::Testnet4
        && !is_retarget(network, parent.height + 1)
        && cur_time <= boundary;
    is_ordinary.then_some(boundary)
}

/// The frame of the coinbase-only template on `parent`, before the node has made a full one.
pub fn frame(
    network: Network,
    parent: &Parent,
    nbits: u32,
    version: u32,
    now_seconds: u32,
    id: TemplateId,
) -> Frame {
    let earliest = min_time(network, parent);
    let cur_time = earliest.max(now_seconds);
    let min_ntime = bound_to_bits(network, parent, earliest, cur_time);
    let height = parent.height + 1;
    Frame {
        id,
        tip: Tip { prev_hash: parent.hash, nbits, min_ntime },
        height,
        version,
        cur_time,
        subsidy: network.subsidy(height),
        max_ntime: max_time(network, parent, cur_time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(height: u32, time: u32, median_time: u32) -> Parent {
        Parent { hash: BlockHash([7; 32]), height, time, median_time }
    }

    fn made(network: Network, parent: &Parent, now: u32) -> Frame {
        frame(network, parent, 0x1d00_ffff, 0x2000_0000, now, TemplateId(9))
    }

    #[test]
    fn subsidy_at_a_halving() {
        let before = made(Network::Main, &parent(839_998, 5_000, 4_000), 6_000);
        assert_eq!((before.height, before.subsidy), (839_999, 625_000_000));
        let at = made(Network::Main, &parent(839_999, 5_000, 4_000), 6_000);
        assert_eq!((at.height, at.subsidy), (840_000, 312_500_000));
        assert_eq!(made(Network::Regtest, &parent(149, 5_000, 4_000), 0).subsidy, 2_500_000_000);
    }

    #[test]
    fn bits_bind_the_time_on_testnet4() {
        let at = |network, height, now| made(network, &parent(height, 5_000, 4_000), now);
        let ordinary = at(Network::Testnet4, 100, 6_200);
        assert_eq!((ordinary.tip.min_ntime, ordinary.max_ntime), (4_001, Some(6_200)));
        let eased = at(Network::Testnet4, 100, 6_201);
        assert_eq!((eased.tip.min_ntime, eased.max_ntime), (6_201, None));
        assert_eq!(at(Network::Testnet4, 2_015, 6_000).max_ntime, None, "a retarget counts all");
        assert_eq!(at(Network::Main, 100, 6_000).max_ntime, None);
    }

    #[test]
    fn times_at_a_retarget() {
        // The parent lies far ahead of the median: only a retarget minds.
        let ordinary = made(Network::Main, &parent(2_013, 9_000, 4_000), 5_000);
        assert_eq!((ordinary.tip.min_ntime, ordinary.cur_time), (4_001, 5_000));
        let retarget = made(Network::Main, &parent(2_015, 9_000, 4_000), 5_000);
        assert_eq!((retarget.tip.min_ntime, retarget.cur_time), (8_400, 8_400));
        let regtest = made(Network::Regtest, &parent(143, 9_000, 4_000), 5_000);
        assert_eq!(regtest.tip.min_ntime, 8_400);
        let behind = made(Network::Main, &parent(2_015, 4_100, 4_000), 5_000);
        assert_eq!(behind.tip.min_ntime, 4_001);
    }

    #[test]
    fn times_and_bits_of_testnet4_stay_together() {
        let check = |height, now, expected| {
            let frame = made(Network::Testnet4, &parent(height, 9_000, 8_000), now);
            assert_eq!(frame.tip.min_ntime, expected, "height {height}, now {now}");
        };
        check(100, 10_200, 8_001);
        check(100, 10_201, 10_201);
        check(100, 20_000, 10_201);
        check(2_015, 20_000, 8_400);
        let elsewhere = made(Network::Main, &parent(100, 9_000, 8_000), 20_000);
        assert_eq!(elsewhere.tip.min_ntime, 8_001);
    }
}
