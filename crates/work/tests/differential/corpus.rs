//! The corpus: what a channel is, what happens to it, and what its miner sends, drawn at random.

use proptest::prelude::*;
use work::share::{VERSION_MASK_BIP320, VERSION_ROLLING_MASK};

/// Unix time at which every world begins, seconds.
pub const START: u32 = 1_800_000_000;

/// Tips of one world at the most: as many as a seen hash is surely kept for.
pub const TIPS_MAX: usize = 8;

/// One channel, and the gateway's settings it is under.
#[derive(Debug, Clone)]
pub struct Setup {
    /// A standard channel, or an extended one.
    pub is_standard: bool,
    /// Rollable bytes that the gateway has: `mining.extranonce_size`.
    pub rollable: usize,
    /// What the miner asked for; not more than there is.
    pub min_extranonce_size: u16,
    /// Version bits that may roll.
    pub version_mask: u32,
    /// The first difficulty.
    pub difficulty: f64,
}

/// What is given out, apart from its tip. The space is small, so that a chain that flips back
/// finds the very same work.
#[derive(Debug, Clone)]
pub struct Body {
    /// Transactions beside the coinbase.
    pub transactions: u8,
    /// Bits above the top three of the version.
    pub version: u32,
    /// What the coinbase pays, satoshi.
    pub value: u64,
    /// The node's time beyond the tip's earliest, seconds.
    pub ahead: u32,
}

/// Which job a share names.
#[derive(Debug, Clone, Copy)]
pub enum Pick {
    /// So many jobs before the newest; the first, if there are not so many.
    Back(usize),
    /// A number beyond the newest.
    Unknown(u32),
}

/// Where `ntime` is taken from; a small offset is added.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The tip's earliest.
    TipFloor,
    /// What the miner was told with the job.
    JobFloor,
    /// The clock.
    Now,
    /// The job's, the time since it was given, and our slack.
    Rolled,
    /// The job's and two hours: the reference's ceiling.
    TwoHours,
    /// As far ahead of the clock as we take.
    Ahead,
}

/// What the nonce is searched for. If none of a few thousand is found, the last one is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The first nonce, whatever it gives.
    Any,
    /// Meets the job's own target and is no block.
    Good,
    /// Misses the job's own target and is no block.
    Low,
    /// A block that meets the job's own target.
    Block,
    /// A block that misses it.
    LowBlock,
}

/// One share.
#[derive(Debug, Clone)]
pub struct ShareSeed {
    /// The job it names.
    pub job: Pick,
    /// Where the search for a nonce begins.
    pub nonce: u32,
    /// What is searched for.
    pub want: Want,
    /// Where its time is from.
    pub clock: Clock,
    /// Seconds added to that.
    pub offset: i64,
    /// Version bits turned over.
    pub rolled: u32,
    /// Bytes of extranonce beyond or short of what was agreed.
    pub extranonce_off: i8,
    /// What fills the extranonce.
    pub extranonce: u8,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Step {
    /// Work on another block.
    Tip { prev: u8, nbits: u32, body: Body },
    /// Newer work on the same block.
    Job(Body),
    /// SetTarget.
    Difficulty(f64),
    /// Seconds pass.
    Wait(u32),
    /// A share.
    Share(ShareSeed),
    /// An earlier share once more: so many back, under the job it named or under the newest.
    Repeat { back: usize, on_newest: bool },
}

/// Bits under which every second hash, every 256th, or no hash is a block.
pub const NBITS: [u32; 3] = [0x207f_ffff, 0x2000_ffff, 0x1d00_ffff];

/// Difficulties that nearly every hash, every 2nd, 4th, 16th, or none meets.
pub const DIFFICULTIES: [f64; 5] =
    [1.0 / 4_294_967_296.0, 1.0 / 2_147_483_648.0, 1.0 / 1_073_741_824.0, 0.000_000_004, 5.0];

/// A channel of either kind.
pub fn setup() -> impl Strategy<Value = Setup> {
    let masks = prop_oneof![
        4 => Just(VERSION_ROLLING_MASK),
        1 => Just(VERSION_MASK_BIP320),
        1 => Just(0),
    ];
    let sizes = (4usize..=16)
        .prop_flat_map(|rollable| (Just(rollable), 0..=u16::try_from(rollable).unwrap()));
    (any::<bool>(), sizes, masks, prop::sample::select(&DIFFICULTIES[..])).prop_map(
        |(is_standard, (rollable, min_extranonce_size), version_mask, difficulty)| Setup {
            is_standard,
            rollable,
            min_extranonce_size,
            version_mask,
            difficulty,
        },
    )
}

/// What happens to it, beginning with a tip.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tip = || {
        (0u8..3, prop::sample::select(&NBITS[..]), body())
            .prop_map(|(prev, nbits, body)| Step::Tip { prev, nbits, body })
    };
    let waits = prop_oneof![6 => 0u32..90, 1 => 500u32..700, 1 => 6_000u32..8_000];
    let step = prop_oneof![
        1 => tip(),
        3 => body().prop_map(Step::Job),
        3 => prop::sample::select(&DIFFICULTIES[..]).prop_map(Step::Difficulty),
        3 => waits.prop_map(Step::Wait),
        24 => share().prop_map(Step::Share),
        6 => (0usize..12, any::<bool>())
            .prop_map(|(back, on_newest)| Step::Repeat { back, on_newest }),
    ];
    (tip(), prop::collection::vec(step, 10..90)).prop_map(|(first, mut steps)| {
        steps.insert(0, first);
        steps
    })
}

fn body() -> impl Strategy<Value = Body> {
    let ahead = prop_oneof![8 => Just(0), 6 => 1u32..600, 1 => 6_900u32..8_000];
    (0u8..4, 0u32..2, 1u64..3, ahead).prop_map(|(transactions, version, value, ahead)| Body {
        transactions,
        version,
        value: value * 1_250_000_001,
        ahead,
    })
}

fn share() -> impl Strategy<Value = ShareSeed> {
    let job = prop_oneof![
        12 => Just(Pick::Back(0)),
        6 => (1usize..12).prop_map(Pick::Back),
        1 => (1u32..1_000).prop_map(Pick::Unknown),
    ];
    let want = prop_oneof![
        2 => Just(Want::Any),
        8 => Just(Want::Good),
        1 => Just(Want::Low),
        1 => Just(Want::Block),
        1 => Just(Want::LowBlock),
    ];
    let clock = prop_oneof![
        10 => Just(Clock::JobFloor),
        6 => Just(Clock::Now),
        1 => Just(Clock::TipFloor),
        1 => Just(Clock::Rolled),
        1 => Just(Clock::TwoHours),
        1 => Just(Clock::Ahead),
    ];
    let offset = prop_oneof![6 => Just(0i64), 3 => 0i64..60, 2 => -1i64..=1, 1 => -700i64..700];
    let rolled = prop_oneof![
        6 => Just(0u32),
        3 => any::<u32>().prop_map(|bits| bits & VERSION_MASK_BIP320),
        2 => any::<u32>().prop_map(|bits| bits & VERSION_ROLLING_MASK),
        1 => (0u32..32).prop_map(|bit| 1 << bit),
    ];
    let off = prop_oneof![12 => Just(0i8), 1 => -3i8..=3];
    (job, any::<u32>(), want, clock, offset, rolled, off, 0u8..3).prop_map(
        |(job, nonce, want, clock, offset, rolled, extranonce_off, extranonce)| ShareSeed {
            job,
            nonce,
            want,
            clock,
            offset,
            rolled,
            extranonce_off,
            extranonce,
        },
    )
}
