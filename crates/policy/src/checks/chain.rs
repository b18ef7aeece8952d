//! S01 to S05 and S24: does the template fit its place in the chain?

use bitcoin::script::Builder;
use work::BlockHash;
use work::payout::Network;

use crate::judge::Case;
use crate::outcome::{Finding, Outcome};

/// Seconds a block's time may lie ahead of the clock (consensus).
const FUTURE_SECONDS_MAX: u64 = 7_200;

/// Bits of the version that BIP9 reserves, and what it wants there.
const VERSION_TOP_MASK: u32 = 0xe000_0000;
const VERSION_TOP_BITS: u32 = 0x2000_0000;

/// Blocks between two retargets.
const RETARGET_BLOCKS: u64 = 2_016;

/// Seconds after which a block of testnet4 has the least difficulty.
const LEAST_DIFFICULTY_AFTER: u32 = 1_200;

/// Compact target of the least difficulty on testnet4.
const LEAST_DIFFICULTY_NBITS: u32 = 0x1d00_ffff;

/// Rules that this version knows how to follow, by the node's names.
const RULES_KNOWN: [&str; 4] = ["csv", "segwit", "signet", "taproot"];

/// The rule without which no block here is built.
const RULE_NEEDED: &str = "segwit";

/// S01.
pub(crate) fn prev_hash(case: &Case<'_>) -> Outcome {
    let chain = &case.context.chain;
    let got = case.proposal.template.prev_hash;
    if got == BlockHash::default() {
        let want = "the hash of a block".to_owned();
        return Outcome::fail("prevhash_malformed", "32 zero bytes".to_owned(), want);
    }
    if !case.context.is_usable() {
        return Outcome::NotEvaluated;
    }
    if got == chain.tip_hash {
        return Outcome::Pass;
    }
    let known = chain.recent_tips.contains(&got);
    let code = if known { "prevhash_not_tip" } else { "prevhash_unknown" };
    Outcome::fail(code, got.to_string(), chain.tip_hash.to_string())
}

/// S02.
pub(crate) fn height(case: &Case<'_>) -> Outcome {
    let template = case.proposal.template;
    let mut findings = Vec::new();
    let want = u64::from(case.context.chain.height) + 1;
    if case.is_on_tip() && u64::from(template.height) != want {
        let got = template.height.to_string();
        findings.push(Finding::new("height_mismatch", got, want.to_string()));
    }
    if let Ok(coinbase) = &case.coinbase {
        let push = Builder::new().push_int(i64::from(template.height)).into_script();
        // Only what no miner can change counts, hence not the bytes of the extranonce.
        let fixed = coinbase.script_sig().get(..coinbase.script_bytes_before_hole);
        let fixed = fixed.unwrap_or_default();
        if !fixed.starts_with(push.as_bytes()) {
            let shown = fixed.get(..push.len()).unwrap_or(fixed);
            let got = format!("scriptSig begins {}", work::contract::bytes::encode(shown));
            let want = work::contract::bytes::encode(push.as_bytes());
            findings.push(Finding::new("bip34_height_mismatch", got, want));
        }
    }
    if findings.is_empty() && (!case.is_on_tip() || case.coinbase.is_err()) {
        return Outcome::NotEvaluated;
    }
    Outcome::of(findings)
}

/// The last second at which a block on the tip needs the ordinary target, where later ones have
/// the least difficulty.
fn ordinary_until(case: &Case<'_>) -> Option<u32> {
    let chain = &case.context.chain;
    let is_retarget = (u64::from(chain.height) + 1).is_multiple_of(RETARGET_BLOCKS);
    (case.context.network == Network::Testnet4 && !is_retarget)
        .then(|| chain.tip_time.saturating_add(LEAST_DIFFICULTY_AFTER))
}

/// S03.
pub(crate) fn nbits(case: &Case<'_>) -> Outcome {
    if !case.is_on_tip() {
        return Outcome::NotEvaluated;
    }
    let template = case.proposal.template;
    let is_eased = ordinary_until(case).is_some_and(|last| template.curtime > last);
    let want = if is_eased { LEAST_DIFFICULTY_NBITS } else { case.context.chain.next_nbits };
    let got = template.nbits;
    if got == want {
        return Outcome::Pass;
    }
    Outcome::fail("nbits_mismatch", format!("{got:08x}"), format!("{want:08x}"))
}

/// S04.
pub(crate) fn version(case: &Case<'_>) -> Outcome {
    let version = case.proposal.template.version;
    if version & VERSION_TOP_MASK == VERSION_TOP_BITS {
        return Outcome::Pass;
    }
    Outcome::fail("version_invalid", format!("{version:08x}"), "20000000 to 3fffffff".to_owned())
}

/// S05.
pub(crate) fn times(case: &Case<'_>) -> Outcome {
    let template = case.proposal.template;
    let mut findings = Vec::new();
    let latest = case.context.now_seconds.saturating_add(FUTURE_SECONDS_MAX);
    let newest = template.curtime.max(template.min_time);
    if u64::from(newest) > latest {
        let want = format!("at most {latest}");
        findings.push(Finding::new("ntime_too_new", newest.to_string(), want));
    }
    if template.min_time > template.curtime {
        findings.push(Finding::new(
            "ntime_too_old",
            format!("curtime {}", template.curtime),
            format!("at least min_time {}", template.min_time),
        ));
    } else if case.is_on_tip() {
        findings.extend(too_early(case));
    }
    Outcome::of(findings).or_not_evaluated(case.is_on_tip())
}

/// What is wrong with the earliest time a miner may choose on this tip.
fn too_early(case: &Case<'_>) -> Option<Finding> {
    let template = case.proposal.template;
    let chain = &case.context.chain;
    let got = format!("min_time {}", template.min_time);
    if template.min_time <= chain.median_time_past {
        let want = format!("above median time past {}", chain.median_time_past);
        return Some(Finding::new("ntime_too_old", got, want));
    }
    // BIP94 binds on testnet4; elsewhere nodes differ in whether their mintime obeys it.
    if case.context.network == Network::Testnet4 && template.min_time < chain.next_min_time {
        let want = format!("at least {} (BIP94)", chain.next_min_time);
        return Some(Finding::new("timewarp", got, want));
    }
    // One target serves all times that the template allows, so they lie on one side.
    let last = ordinary_until(case)?;
    if template.curtime > last && template.min_time <= last {
        let want = format!("above {last}, from where on the least difficulty holds");
        return Some(Finding::new("ntime_too_old", got, want));
    }
    None
}

/// S24: rules of a `!` must be known to whoever builds the block (BIP9); the others only say what
/// is in force. A node may leave those out that have always been in force for it, except segwit,
/// which it names to everybody.
pub(crate) fn rules(case: &Case<'_>) -> Outcome {
    let Some(rules) = &case.proposal.template.rules else { return Outcome::NotEvaluated };
    let unknown = rules.iter().find(|rule| {
        rule.strip_prefix('!').is_some_and(|mandatory| !RULES_KNOWN.contains(&mandatory))
    });
    if let Some(unknown) = unknown {
        let want = format!("mandatory rules out of {}", RULES_KNOWN.join(", "));
        return Outcome::fail("rules_unsupported", format!("{unknown:?}"), want);
    }
    let is_needed = |rule: &String| rule.strip_prefix('!').unwrap_or(rule) == RULE_NEEDED;
    if !rules.iter().any(is_needed) {
        let got = format!("{} rules without {RULE_NEEDED}", rules.len());
        return Outcome::fail("rules_unsupported", got, RULE_NEEDED.to_owned());
    }
    Outcome::Pass
}
