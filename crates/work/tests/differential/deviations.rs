//! Where the gateway decides otherwise than `channels_sv2`, and why: the whole list.
//!
//! Each entry says what becomes of the reference's outcome, given what is true of the share. The
//! entries apply in this order, and the result must be our outcome to the byte: so nothing else
//! differs. `main.rs` has a case for each.

use crate::{Block, Outcome};

/// What is true of a share, however anyone decides about it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Its job was given to the channel.
    pub is_known: bool,
    /// Tips between its job's and the current one.
    pub tips_back: usize,
    /// Tips back at which the reference still calls a share stale.
    pub tips_back_stale_there: usize,
    /// Its extranonce has the agreed length.
    pub has_length: bool,
    /// Version bits that differ from the job's.
    pub rolled: u32,
    /// Version bits that may differ here.
    pub version_mask: u32,
    /// Its time.
    pub ntime: u32,
    /// Earliest time here: what the miner was told with the job.
    pub floor_here: u32,
    /// Latest time here.
    pub ceiling_here: u32,
    /// Latest time there.
    pub ceiling_there: u32,
    /// Its hash, if it has a header.
    pub hash: Option<[u8; 32]>,
    /// It meets the target of its job.
    pub meets_own: bool,
    /// It meets the easiest target that holds for it.
    pub meets_easiest: bool,
    /// Difficulty of its job's target.
    pub credit_own: f64,
    /// Difficulty of the easiest target that holds for it.
    pub credit_easiest: f64,
    /// Its hash was credited here before.
    pub was_credited: bool,
    /// The coinbase of the block that it is.
    pub block: Option<Block>,
}

impl Facts {
    /// Both sides look at its header: its job is current, and it has one.
    fn is_judged(&self) -> bool {
        self.is_known && self.tips_back == 0 && self.has_length
    }
}

/// One deviation.
pub struct Deviation {
    /// Its name.
    pub name: &'static str,
    /// Why the gateway does so.
    pub why: &'static str,
    /// What becomes of the reference's outcome.
    pub apply: fn(&Facts, &mut Outcome),
}

/// All of them.
pub const DEVIATIONS: &[Deviation] = &[
    Deviation {
        name: "a job of two tips ago is stale, not unknown",
        why: "Jobs of three tips are kept for the blocks on them (D17); the reference forgets \
              those of the tip before the last.",
        apply: |facts, outcome| {
            if facts.is_known && (facts.tips_back_stale_there + 1..3).contains(&facts.tips_back) {
                outcome.refuse("stale-share");
            }
        },
    },
    Deviation {
        name: "a length that was not agreed is told first",
        why: "Without the agreed length there is no header to look at for a block, so that is \
              what is said, on a stale job too; the reference says that the job is stale.",
        apply: |facts, outcome| {
            if facts.is_known && facts.tips_back < 3 && !facts.has_length {
                outcome.refuse("bad-extranonce-size");
            }
        },
    },
    Deviation {
        name: "the ceiling of ntime moves with the clock",
        why: "The reference has no clock and allows two hours from the job's first second, so it \
              refuses honest miners on a job that is older; we allow what has passed (D32).",
        apply: |facts, outcome| {
            let allowed = facts.ceiling_there < facts.ntime && facts.ntime <= facts.ceiling_here;
            if !facts.is_judged() || !allowed {
                return;
            }
            // It has said nothing about the rest, where there is no difference of opinion.
            if facts.rolled & !work::share::VERSION_ROLLING_MASK != 0 {
                outcome.refuse("invalid-non-rollable-version-bit");
            } else if facts.meets_own {
                outcome.accept(facts.credit_own);
            } else {
                outcome.refuse("difficulty-too-low");
            }
        },
    },
    Deviation {
        name: "only what was credited is a duplicate",
        why: "A block above its job's target earns nothing (D26), nor does a share that was too \
              early for our clock: sent again, neither is a repetition of an accepted share.",
        apply: |facts, outcome| {
            if outcome.code == Some("duplicate-share") && !facts.was_credited {
                if facts.meets_own {
                    outcome.accept(facts.credit_own);
                } else {
                    outcome.refuse("difficulty-too-low");
                }
            }
        },
    },
    Deviation {
        name: "an easier target counts from SetTarget on",
        why: "Clients differ in when they apply SetTarget; on the job before it the easier of the \
              two targets holds, and the credit is the easier one's (D26).",
        apply: |facts, outcome| {
            let is_easier = facts.credit_easiest < facts.credit_own && facts.meets_easiest;
            let is_final = matches!(outcome.code, None | Some("difficulty-too-low"));
            if facts.is_judged() && is_easier && is_final {
                outcome.accept(facts.credit_easiest);
            }
        },
    },
    Deviation {
        name: "a block above its job's target earns nothing",
        why: "The block is submitted, but the miner was to send it only by the network's target: \
              the reference credits the job's difficulty that the hash does not show (D26).",
        apply: |facts, outcome| {
            let is_about_it = matches!(outcome.code, None | Some("duplicate-share"));
            if is_about_it && !facts.meets_easiest {
                outcome.refuse("difficulty-too-low");
            }
        },
    },
    Deviation {
        name: "the version mask is the operator's, on standard channels too",
        why: "`mining.version_rolling` may forbid rolling or narrow it to BIP320; the reference \
              knows no narrower mask, and lets every standard channel roll.",
        apply: |facts, outcome| {
            let is_past_time = facts.is_judged()
                && !matches!(outcome.code, Some("invalid-share" | "version-rolling-not-allowed"));
            if is_past_time && facts.rolled & !facts.version_mask != 0 {
                outcome.refuse(if facts.version_mask == 0 {
                    "version-rolling-not-allowed"
                } else {
                    "invalid-non-rollable-version-bit"
                });
            }
        },
    },
    Deviation {
        name: "the floor of ntime is the job's own",
        why: "Miners are told a job's earliest time, which follows the node's clock (T14); the \
              reference takes the tip's for every later job.",
        apply: |facts, outcome| {
            if facts.is_judged() && facts.ntime < facts.floor_here {
                outcome.refuse("invalid-share");
            }
        },
    },
    Deviation {
        name: "ntime runs ahead by what has passed and ten minutes",
        why: "Two hours ahead is near the limit of consensus, where a block may be refused by \
              nodes whose clocks are behind (D32).",
        apply: |facts, outcome| {
            if facts.is_judged() && facts.ntime > facts.ceiling_here {
                outcome.refuse("invalid-share");
            }
        },
    },
    Deviation {
        name: "what was credited stays seen when the chain flips back",
        why: "A chain that goes from A to B and back to A may give out the very same work; the \
              reference forgets its hashes with every new block (D24).",
        apply: |facts, outcome| {
            if outcome.code.is_none() && facts.was_credited {
                outcome.refuse("duplicate-share");
            }
        },
    },
    Deviation {
        name: "a block in a refused share is submitted",
        why: "The hash is computed before any verdict: whatever is wrong with a share, a block is \
              worth more than the verdict (D17).",
        apply: |facts, outcome| {
            if facts.is_known && facts.tips_back < 3 && outcome.block.is_none() {
                outcome.block.clone_from(&facts.block);
            }
        },
    },
];
