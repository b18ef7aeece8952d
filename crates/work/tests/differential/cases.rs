//! One short story for each listed deviation, and two things the corpus is too short for.

use work::share::{VERSION_MASK_BIP320, VERSION_ROLLING_MASK};

use crate::corpus::{Body, Clock, DIFFICULTIES, NBITS, Pick, Setup, ShareSeed, Step, Want};
use crate::deviations::DEVIATIONS;
use crate::ours::Ours;
use crate::world::World;

/// Every second hash is a block.
const EASY: u32 = NBITS[0];
/// No hash is a block.
const HARD: u32 = NBITS[2];

/// One story: its last share shows the deviation of this name.
struct Case {
    name: &'static str,
    is_standard: bool,
    version_mask: u32,
    steps: Vec<Step>,
}

fn body(ahead: u32) -> Body {
    Body { transactions: 2, version: 0, value: 5_000_000_000, ahead }
}

fn tip(prev: u8, nbits: u32) -> Step {
    Step::Tip { prev, nbits, body: body(0) }
}

fn seed(want: Want) -> ShareSeed {
    ShareSeed {
        job: Pick::Back(0),
        nonce: 0,
        want,
        clock: Clock::JobFloor,
        offset: 0,
        rolled: 0,
        extranonce_off: 0,
        extranonce: 1,
    }
}

fn share(want: Want) -> Step {
    Step::Share(seed(want))
}

fn share_with(want: Want, change: impl FnOnce(&mut ShareSeed)) -> Step {
    let mut seed = seed(want);
    change(&mut seed);
    Step::Share(seed)
}

fn repeat() -> Step {
    Step::Repeat { back: 0, on_newest: true }
}

fn case(name: &'static str, steps: Vec<Step>) -> Case {
    Case { name, is_standard: false, version_mask: VERSION_ROLLING_MASK, steps }
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let back = |jobs: usize| move |seed: &mut ShareSeed| seed.job = Pick::Back(jobs);
    let at = |clock: Clock, offset: i64| move |seed: &mut ShareSeed| {
        (seed.clock, seed.offset) = (clock, offset);
    };
    let rolled = |bits: u32| move |seed: &mut ShareSeed| seed.rolled = bits;
    vec![
        case("a job of two tips ago is stale, not unknown", vec![
            tip(0, HARD), tip(1, HARD), tip(2, HARD), share_with(Want::Good, back(2)),
        ]),
        case("a length that was not agreed is told first", vec![
            tip(0, HARD), tip(1, HARD), share_with(Want::Any, |seed| {
                (seed.job, seed.extranonce_off) = (Pick::Back(1), 1);
            }),
        ]),
        case("the ceiling of ntime moves with the clock", vec![
            tip(0, HARD), Step::Wait(7_200), share_with(Want::Good, at(Clock::Now, 0)),
        ]),
        case("only what was credited is a duplicate", vec![
            // Too early for our clock, then no more; the reference has credited the first.
            tip(0, HARD), share_with(Want::Good, at(Clock::Rolled, 1)), Step::Wait(1), repeat(),
        ]),
        case("an easier target counts from SetTarget on", vec![
            tip(0, HARD), Step::Difficulty(DIFFICULTIES[0]), share(Want::Low),
        ]),
        case("a block above its job's target earns nothing", vec![
            tip(0, EASY), share(Want::LowBlock),
        ]),
        Case {
            is_standard: true,
            version_mask: 0,
            ..case("the version mask is the operator's, on standard channels too", vec![
                tip(0, HARD), share_with(Want::Good, rolled(1 << 13)),
            ])
        },
        Case {
            version_mask: VERSION_MASK_BIP320,
            ..case("the version mask is the operator's, on standard channels too", vec![
                tip(0, HARD), share_with(Want::Good, rolled(1 << 12)),
            ])
        },
        case("the floor of ntime is the job's own", vec![
            tip(0, HARD), Step::Job(body(60)), share_with(Want::Good, at(Clock::JobFloor, -1)),
        ]),
        case("ntime runs ahead by what has passed and ten minutes", vec![
            tip(0, HARD), share_with(Want::Good, at(Clock::Rolled, 1)),
        ]),
        case("what was credited stays seen when the chain flips back", vec![
            tip(0, HARD), share(Want::Good), tip(1, HARD), tip(0, HARD), repeat(),
        ]),
        case("a block in a refused share is submitted", vec![
            tip(0, EASY), tip(1, EASY), share_with(Want::Block, back(1)),
        ]),
    ]
}

/// Goal: each listed deviation is what its page says, and none is listed without a case.
/// Method: a story whose last share shows that deviation and no other.
#[test]
fn each_deviation_has_its_case() {
    let cases = cases();
    for case in &cases {
        let setup = Setup {
            is_standard: case.is_standard,
            rollable: 8,
            min_extranonce_size: 4,
            version_mask: case.version_mask,
            difficulty: DIFFICULTIES[2],
        };
        let mut world = World::new(&setup);
        let mut shown = Vec::new();
        for step in &case.steps {
            shown = world.step(step).unwrap();
        }
        assert_eq!(shown, [case.name]);
    }
    for deviation in DEVIATIONS {
        assert!(!deviation.why.is_empty());
        assert!(cases.iter().any(|case| case.name == deviation.name), "{}", deviation.name);
    }
}

/// Goal: the listed deviations are needed: a plain world shows none of them.
#[test]
fn an_ordinary_day_shows_no_deviation() {
    let setup = Setup {
        is_standard: false,
        rollable: 16,
        min_extranonce_size: 8,
        version_mask: VERSION_ROLLING_MASK,
        difficulty: DIFFICULTIES[2],
    };
    let mut world = World::new(&setup);
    let mut steps = vec![tip(0, NBITS[1])];
    for round in 0..20u32 {
        let each = |seed: &mut ShareSeed| {
            (seed.nonce, seed.rolled) = (round << 16, round << 13);
        };
        steps.extend([Step::Job(body(0)), Step::Wait(30), share_with(Want::Good, each)]);
        steps.extend([share(Want::Low), Step::Repeat { back: 1, on_newest: false }]);
    }
    steps.extend([tip(1, NBITS[1]), share_with(Want::Good, |seed| seed.job = Pick::Back(1))]);
    steps.extend([share(Want::Block), share(Want::Good)]);
    for step in &steps {
        assert_eq!(world.step(step), Ok(Vec::new()));
    }
    for verdict in ["accepted", "difficulty-too-low", "duplicate-share", "stale-share"] {
        assert!(world.met.contains_key(verdict), "{verdict}");
    }
}

/// Goal: the last deviation, which takes thousands of shares to see: where the table of seen
/// hashes is full, the reference has its channel closed; we refuse shares until the next job
/// makes room, and blocks go out all the same.
#[test]
fn a_full_table_refuses_and_does_not_close() {
    let setup = Setup {
        is_standard: false,
        rollable: 8,
        min_extranonce_size: 8,
        version_mask: VERSION_ROLLING_MASK,
        difficulty: DIFFICULTIES[0],
    };
    let mut world = World::new(&setup);
    world.ours = Ours::new(&setup).with_room(4_096);
    world.step(&tip(0, NBITS[1])).unwrap();
    let mut refused = None;
    for count in 0..8_192u32 {
        let number = |seed: &mut ShareSeed| seed.nonce = count << 16;
        let Err(difference) = world.step(&share_with(Want::Good, number)) else { continue };
        assert!(difference.contains("seen set full: the channel is closed"), "{difference}");
        refused = Some(count);
        break;
    }
    assert_eq!(refused, Some(4_096), "the reference is full first");
    let mut last = None;
    for count in 0..8_192u32 {
        let number = |seed: &mut ShareSeed| seed.nonce = count << 16 | 0x8000;
        let outcome = world.ours_alone(&share_with(Want::Good, number));
        if outcome.code == Some("invalid-share") {
            last = Some(count);
            break;
        }
        assert_eq!(outcome.code, None);
    }
    assert!(last.is_some(), "our table is full at last");
    let block = world.ours_alone(&share(Want::Block));
    assert!(block.block.is_some(), "a block is submitted from a full table");
    world.step(&Step::Job(body(0))).unwrap();
    let number = |seed: &mut ShareSeed| seed.nonce = 0x7fff_0000;
    let outcome = world.ours_alone(&share_with(Want::Good, number));
    assert_eq!(outcome.code, None, "a new job makes room");
}
