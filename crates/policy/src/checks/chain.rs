//! S01 to S05: does the template fit its place in the chain?

use bitcoin::script::Builder;
use work::BlockHash;
use work::payout::Network;

use crate::judge::{Case, Finding, Outcome};

/// Seconds a block's time may lie ahead of the clock (consensus).
const FUTURE_SECONDS_MAX: u64 = 7_200;

/// Bits of the version that BIP9 reserves, and what it wants there.
const VERSION_TOP_MASK: u32 = 0xe000_0000;
const VERSION_TOP_BITS: u32 = 0x2000_0000;

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
        findings.push(Finding {
            code: "height_mismatch",
            got: template.height.to_string(),
            want: want.to_string(),
        });
    }
    if let Ok(coinbase) = &case.coinbase {
        let push = Builder::new().push_int(i64::from(template.height)).into_script();
        // Only what no miner can change counts, hence not the bytes of the extranonce.
        let fixed = coinbase.script_sig().get(..coinbase.script_bytes_before_hole);
        let fixed = fixed.unwrap_or_default();
        if !fixed.starts_with(push.as_bytes()) {
            let shown = fixed.get(..push.len()).unwrap_or(fixed);
            findings.push(Finding {
                code: "bip34_height_mismatch",
                got: format!("scriptSig begins {}", work::contract::bytes::encode(shown)),
                want: work::contract::bytes::encode(push.as_bytes()),
            });
        }
    }
    if findings.is_empty() && (!case.is_on_tip() || case.coinbase.is_err()) {
        return Outcome::NotEvaluated;
    }
    Outcome::of(findings)
}

/// S03.
pub(crate) fn nbits(case: &Case<'_>) -> Outcome {
    if !case.is_on_tip() {
        return Outcome::NotEvaluated;
    }
    let (got, want) = (case.proposal.template.nbits, case.context.chain.next_nbits);
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
    let chain = &case.context.chain;
    let mut findings = Vec::new();
    let latest = case.context.now_seconds.saturating_add(FUTURE_SECONDS_MAX);
    let newest = template.curtime.max(template.min_time);
    if u64::from(newest) > latest {
        let (got, want) = (newest.to_string(), format!("at most {latest}"));
        findings.push(Finding { code: "ntime_too_new", got, want });
    }
    if template.min_time > template.curtime {
        findings.push(Finding {
            code: "ntime_too_old",
            got: format!("curtime {}", template.curtime),
            want: format!("at least min_time {}", template.min_time),
        });
    } else if case.is_on_tip() && template.min_time <= chain.median_time_past {
        findings.push(Finding {
            code: "ntime_too_old",
            got: format!("min_time {}", template.min_time),
            want: format!("above median time past {}", chain.median_time_past),
        });
    } else if case.is_on_tip()
        // BIP94 binds on testnet4; elsewhere nodes differ in whether their mintime obeys it.
        && case.context.network == Network::Testnet4
        && template.min_time < chain.next_min_time
    {
        findings.push(Finding {
            code: "timewarp",
            got: format!("min_time {}", template.min_time),
            want: format!("at least {} (BIP94)", chain.next_min_time),
        });
    }
    if findings.is_empty() && !case.is_on_tip() {
        return Outcome::NotEvaluated;
    }
    Outcome::of(findings)
}
