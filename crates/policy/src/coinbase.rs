//! The proposed coinbase put together again, with zeros where the extranonce goes.

use bitcoin::consensus::encode;
use work::contract::verifier::ProposedCoinbase;

/// Longest hole that is put together; a scriptSig holds at most 100 bytes.
pub const EXTRANONCE_BYTES_MAX: usize = 255;

/// Bytes of what the block's form of a coinbase has beyond the stripped one: marker and flag, and
/// one witness item of 32 bytes with its two lengths. Each weighs one unit.
pub const WITNESS_BYTES: u64 = 2 + 1 + 1 + 32;

/// First bytes of a witness commitment output (BIP141).
pub const COMMITMENT_HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// A coinbase that decodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoinbaseFacts {
    /// The stripped transaction with zeros for the extranonce.
    pub transaction: bitcoin::Transaction,
    /// Bytes of the scriptSig that stand before the extranonce and that no miner can change.
    pub script_bytes_before_hole: usize,
}

impl CoinbaseFacts {
    /// Put `coinbase` together and decode it.
    ///
    /// # Errors
    /// A sentence if the parts make no stripped transaction of one input with the extranonce
    /// inside its scriptSig.
    pub fn assemble(coinbase: &ProposedCoinbase) -> Result<CoinbaseFacts, String> {
        let hole = coinbase.extranonce_len;
        if hole > EXTRANONCE_BYTES_MAX {
            return Err(format!("extranonce of {hole} bytes"));
        }
        let bytes = [&coinbase.prefix.0[..], &vec![0; hole], &coinbase.suffix.0].concat();
        let transaction: bitcoin::Transaction =
            encode::deserialize(&bytes).map_err(|error| format!("does not decode: {error}"))?;
        let [input] = &transaction.input[..] else {
            return Err(format!("{} inputs", transaction.input.len()));
        };
        if !input.witness.is_empty() || encode::serialize(&transaction) != bytes {
            return Err("is not in the stripped form that miners hash".to_owned());
        }
        // version 4, input count 1, outpoint 36, then the length of the scriptSig.
        let script_at = 4 + 1 + 36 + bitcoin::VarInt::from(input.script_sig.len()).size();
        let before = coinbase.prefix.0.len().checked_sub(script_at);
        let Some(before) = before.filter(|before| before + hole <= input.script_sig.len()) else {
            return Err("the extranonce does not lie inside the scriptSig".to_owned());
        };
        Ok(CoinbaseFacts { script_bytes_before_hole: before, transaction })
    }

    /// The scriptSig with zeros for the extranonce.
    pub fn script_sig(&self) -> &[u8] {
        self.transaction.input.first().map_or(&[], |input| input.script_sig.as_bytes())
    }

    /// Position of the output that counts as the witness commitment: the last that looks like
    /// one (BIP141).
    pub fn commitment_at(&self) -> Option<usize> {
        self.transaction.output.iter().rposition(|output| {
            let script = output.script_pubkey.as_bytes();
            script.len() >= 38 && script.starts_with(&COMMITMENT_HEADER)
        })
    }
}

/// Bytes of a coinbase without its witness, from the lengths of its parts.
pub fn stripped_bytes(coinbase: &ProposedCoinbase) -> u64 {
    let fixed = coinbase.prefix.0.len().saturating_add(coinbase.suffix.0.len());
    fixed.saturating_add(coinbase.extranonce_len) as u64
}

/// Weight of a coinbase in its block, witness included, from the lengths of its parts.
pub fn weight(coinbase: &ProposedCoinbase) -> u64 {
    stripped_bytes(coinbase).saturating_mul(4).saturating_add(WITNESS_BYTES)
}
