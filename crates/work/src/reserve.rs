//! What a coinbase may take of a block: nodes keep room for it when they choose transactions.
//!
//! A coinbase beyond the reserve makes blocks that are too heavy, and is found out at the worst
//! moment, so it is looked at before the gateway listens (D33).

use bitcoin::consensus::encode::deserialize;
use bitcoin::{ScriptBuf, Transaction};

use crate::coinbase::{Coinbase, CoinbaseError};
use crate::hash::BlockHash;
use crate::payout::Payout;
use crate::template::{Template, TemplateId};
use crate::tip::Tip;

/// Weight units that Bitcoin Core keeps for header, transaction count and coinbase
/// (`-blockreservedweight`).
pub const RESERVED_WEIGHT: u64 = 8_000;

/// Weight of a block's header and of its longest transaction count: 80 and 3 bytes, unsigned.
const HEADER_WEIGHT: u64 = (80 + 3) * 4;

/// Sigop cost that Bitcoin Core keeps for the coinbase.
pub const RESERVED_SIGOPS: u64 = 400;

/// Weight of the coinbase that these settings make, with its witness, in weight units, and its
/// sigop cost.
///
/// # Errors
/// See [`CoinbaseError`].
pub fn cost(
    payouts: &[Payout],
    tag: &[u8],
    extranonce_bytes: usize,
) -> Result<(u64, u64), CoinbaseError> {
    let template = Template {
        id: TemplateId(0),
        tip: Tip { prev_hash: BlockHash::default(), nbits: 0x1d00_ffff, min_ntime: 0 },
        // Four bytes of height: every height to come for 300 years.
        height: 16_000_000,
        version: 0,
        cur_time: 0,
        coinbase_value: 0,
        witness_commitment: [0x6a; 38],
        transactions: Vec::new().into(),
        merkle_path: Vec::new(),
        rules: None,
        max_ntime: None,
    };
    let coinbase = Coinbase::build(&template, payouts, tag, extranonce_bytes)?;
    let bytes = coinbase.with_witness(&vec![0; extranonce_bytes])?;
    let transaction: Transaction = deserialize(&bytes).map_err(|_| CoinbaseError::Shape)?;
    let sigops: usize = payouts
        .iter()
        .map(|payout| ScriptBuf::from_bytes(payout.script_pubkey.clone()).count_sigops_legacy() * 4)
        .sum();
    Ok((transaction.weight().to_wu(), sigops as u64))
}

/// Whether the coinbase of these settings fits what nodes keep for it.
///
/// # Errors
/// By how much it does not, and what to do about it.
pub fn check(payouts: &[Payout], tag: &[u8], extranonce_bytes: usize) -> Result<(), String> {
    let (weight, sigops) =
        cost(payouts, tag, extranonce_bytes).map_err(|error| error.to_string())?;
    let weight = weight + HEADER_WEIGHT;
    if weight > RESERVED_WEIGHT {
        return Err(format!(
            "mining.coinbase_outputs: the coinbase and the header would weigh {weight}, nodes keep \
             {RESERVED_WEIGHT} for them: give fewer or shorter outputs"
        ));
    }
    if sigops > RESERVED_SIGOPS {
        return Err(format!(
            "mining.coinbase_outputs: the outputs cost {sigops} sigops, nodes keep \
             {RESERVED_SIGOPS} for them: give fewer outputs of the old kinds"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payouts(count: usize, script: &[u8]) -> Vec<Payout> {
        vec![Payout { script_pubkey: script.to_vec(), share: 1 }; count]
    }

    #[test]
    fn the_edge_of_the_reserve() {
        let fits = |count| check(&payouts(count, &[0x51; 34]), b"/ReserveGrid/", 16);
        let most = (1..64).take_while(|count| fits(*count).is_ok()).last().unwrap();
        let (weight, _) = cost(&payouts(most, &[0x51; 34]), b"/ReserveGrid/", 16).unwrap();
        assert!(weight + HEADER_WEIGHT <= RESERVED_WEIGHT);
        assert!(weight + HEADER_WEIGHT + 43 * 4 > RESERVED_WEIGHT);
        assert!(fits(most + 1).unwrap_err().contains("fewer or shorter"));
    }

    #[test]
    fn sigops_are_counted() {
        // OP_CHECKMULTISIG without keys counts as twenty, of four each.
        let error = check(&payouts(6, &[0xae]), b"", 16).unwrap_err();
        assert!(error.contains("480 sigops"), "{error}");
        assert_eq!(check(&payouts(5, &[0xae]), b"", 16), Ok(()));
    }
}
