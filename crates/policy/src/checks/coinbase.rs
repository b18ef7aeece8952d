//! S12 to S15: is the coinbase a valid one, and does it pay whom the operator pinned?

use bitcoin::{TxOut, absolute};
use sha2::{Digest, Sha256};
use work::Txid;
use work::contract::bytes::encode;
use work::merkle;
use work::payout::Payout;

use crate::coinbase::{COMMITMENT_HEADER, CoinbaseFacts};
use crate::facts::money;
use crate::judge::Case;
use crate::outcome::{Finding, Outcome};

/// Bytes of the commitment output's script; more would commit to something unknown.
const COMMITMENT_BYTES: usize = 38;

/// The reserved value that the block's coinbase carries as its witness (BIP141).
const WITNESS_RESERVED: [u8; 32] = [0; 32];

/// S12: the pinned scripts with exactly their shares of the value, the commitment, nothing else.
pub(crate) fn outputs(case: &Case<'_>) -> Outcome {
    let Ok(coinbase) = &case.coinbase else { return Outcome::NotEvaluated };
    let payouts = &case.policy.payouts;
    let values = Payout::split(payouts, case.proposal.template.coinbase.value);
    let mut open: Vec<(&Payout, u64)> = payouts.iter().zip(values).collect();
    let commitment_at = coinbase.commitment_at();
    let mut unexpected = None;
    for (position, output) in coinbase.transaction.output.iter().enumerate() {
        if commitment_at == Some(position) && is_plain_commitment(output) {
            continue;
        }
        let (script, value) = (output.script_pubkey.as_bytes(), output.value.to_sat());
        let exact =
            open.iter().position(|(payout, due)| payout.script_pubkey == script && *due == value);
        if let Some(at) = exact {
            open.remove(at);
        } else {
            unexpected = unexpected.or(Some((position, output)));
        }
    }
    let mut findings = Vec::new();
    if let Some((position, output)) = unexpected {
        let output = shown(output.script_pubkey.as_bytes(), output.value.to_sat());
        findings.push(Finding::new(
            "coinbase_output_unexpected",
            format!("output {position} of {output}"),
            "the pinned payouts and the witness commitment only".to_owned(),
        ));
    }
    if let Some((payout, due)) = open.first() {
        findings.push(Finding::new(
            "coinbase_output_missing",
            format!("{} outputs", coinbase.transaction.output.len()),
            shown(&payout.script_pubkey, *due),
        ));
    }
    Outcome::of(findings)
}

fn is_plain_commitment(output: &TxOut) -> bool {
    output.script_pubkey.len() == COMMITMENT_BYTES && output.value.to_sat() == 0
}

/// An output for a report; scripts of a peer are cut to what a reader needs.
fn shown(script: &[u8], value: u64) -> String {
    const SCRIPT_BYTES_SHOWN: usize = 64;
    let cut = script.get(..SCRIPT_BYTES_SHOWN).unwrap_or(script);
    let more = if cut.len() < script.len() { "…" } else { "" };
    format!("{value} satoshi to script {}{more}", encode(cut))
}

/// S13.
pub(crate) fn script_length(case: &Case<'_>) -> Outcome {
    let Ok(coinbase) = &case.coinbase else { return Outcome::NotEvaluated };
    let bytes = coinbase.script_sig().len();
    if (2..=work::coinbase::SCRIPT_SIG_BYTES_MAX).contains(&bytes) {
        return Outcome::Pass;
    }
    Outcome::fail("coinbase_script_length", format!("{bytes} bytes"), "2 to 100".to_owned())
}

/// S14.
pub(crate) fn structure(case: &Case<'_>) -> Outcome {
    let fault = match &case.coinbase {
        Err(fault) => Some(fault.clone()),
        Ok(coinbase) => structure_fault(coinbase, case),
    };
    let Some(got) = fault else { return Outcome::Pass };
    let want = "a stripped transaction of one null input, outputs, and a lock time that is over";
    Outcome::fail("coinbase_malformed", got, want.to_owned())
}

fn structure_fault(coinbase: &CoinbaseFacts, case: &Case<'_>) -> Option<String> {
    let transaction = &coinbase.transaction;
    let input = transaction.input.first()?;
    if !input.previous_output.is_null() {
        return Some(format!("spends {}", input.previous_output));
    }
    if transaction.output.is_empty() {
        return Some("has no output".to_owned());
    }
    if money(transaction).is_none() {
        return Some("pays more than there is".to_owned());
    }
    // A block holds final transactions only (BIP113 for times).
    let over = match transaction.lock_time {
        absolute::LockTime::Blocks(height) => {
            height.to_consensus_u32() == 0
                || height.to_consensus_u32() < case.proposal.template.height
        }
        absolute::LockTime::Seconds(time) => {
            time.to_consensus_u32() < case.context.chain.median_time_past
        }
    };
    let lock = transaction.lock_time.to_consensus_u32();
    (!over && !input.sequence.is_final()).then(|| format!("lock time {lock} is not over"))
}

/// S15: over the names as declared, which S17 holds against the bytes.
pub(crate) fn witness_commitment(case: &Case<'_>) -> Outcome {
    let Ok(coinbase) = &case.coinbase else { return Outcome::NotEvaluated };
    let names: Vec<[u8; 32]> =
        case.proposal.transactions.iter().map(|transaction| transaction.wtxid.0).collect();
    // The coinbase counts as 32 zero bytes in the tree of wtxids (BIP141).
    let root = merkle::root(Txid([0; 32]), &merkle::path_of_first(&names));
    let first = Sha256::new_with_prefix(root.0).chain_update(WITNESS_RESERVED);
    let commitment = work::hash::finish_double(first);
    let want = [&COMMITMENT_HEADER[..], &commitment].concat();
    let script = coinbase
        .commitment_at()
        .and_then(|position| coinbase.transaction.output.get(position))
        .map(|output| output.script_pubkey.as_bytes());
    match script {
        Some(script) if script.starts_with(&want) => Outcome::Pass,
        Some(script) => {
            let got = encode(script.get(..COMMITMENT_BYTES).unwrap_or(script));
            Outcome::fail("witness_commitment_mismatch", got, encode(&want))
        }
        None => Outcome::fail(
            "witness_commitment_mismatch",
            "no commitment output".to_owned(),
            encode(&want),
        ),
    }
}
