//! Facts of a transaction, computed once from its bytes and kept by the caller.
//!
//! Decoding and hashing a full block's transactions takes about 10 ms, everything else about 2.
//! A verifier that keeps the facts by wtxid pays the first part once per transaction.

use bitcoin::consensus::encode;
use bitcoin::hashes::Hash as _;
use work::{Txid, Wtxid};

/// All satoshi there can be; no output and no sum of outputs may exceed it.
pub const MONEY_MAX: u64 = 2_100_000_000_000_000;

/// Weight of the heaviest transaction a block could hold.
const WEIGHT_MAX: u64 = 4_000_000;

/// What the bytes of one transaction say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionFacts {
    /// Length of the bytes.
    pub data_bytes: usize,
    /// The transaction, or in one sentence why the bytes are none that a block could hold.
    pub decoded: Result<Decoded, String>,
}

/// A transaction that decodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Hash without the witness.
    pub txid: Txid,
    /// Hash with the witness.
    pub wtxid: Wtxid,
    /// Weight units (BIP141).
    pub weight: u64,
    /// Cost of the signature operations in scriptSigs and outputs alone: four a piece. Those in
    /// redeem scripts and witnesses need the spent outputs and come on top.
    pub sigops_legacy_cost: u64,
    /// What it spends, in order.
    pub spends: Box<[Spend]>,
    /// What it creates, in order.
    pub outputs: Box<[Output]>,
    /// nLockTime.
    pub lock_time: u32,
    /// nVersion, of which consensus reads all bits.
    pub version: u32,
}

/// One input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spend {
    /// Transaction whose output it spends.
    pub txid: Txid,
    /// Which output.
    pub vout: u32,
    /// nSequence.
    pub sequence: u32,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Satoshi.
    pub value: u64,
    /// scriptPubKey.
    pub script: Box<[u8]>,
}

impl TransactionFacts {
    /// The facts of `data`, a transaction as a block carries it. Any bytes are taken.
    pub fn from_bytes(data: &[u8]) -> TransactionFacts {
        TransactionFacts { data_bytes: data.len(), decoded: decode(data) }
    }

    /// Weight units; for bytes that are no transaction, the most they could weigh.
    pub fn weight(&self) -> u64 {
        match &self.decoded {
            Ok(decoded) => decoded.weight,
            Err(_) => (self.data_bytes as u64).saturating_mul(4),
        }
    }

    /// Bytes without witnesses; for bytes that are no transaction, all of them.
    pub fn stripped_bytes(&self) -> u64 {
        let bytes = self.data_bytes as u64;
        match &self.decoded {
            // A byte of a witness weighs one unit, any other four.
            Ok(decoded) => decoded.weight.saturating_sub(bytes) / 3,
            Err(_) => bytes,
        }
    }

    /// Bytes of memory these facts take, about; for the bounds of a cache.
    pub fn memory_bytes(&self) -> usize {
        let parts = self.decoded.as_ref().map_or(0, |decoded| {
            let scripts: usize = decoded.outputs.iter().map(|output| output.script.len()).sum();
            size_of_val(&*decoded.spends) + size_of_val(&*decoded.outputs) + scripts
        });
        size_of::<TransactionFacts>() + parts
    }
}

fn decode(data: &[u8]) -> Result<Decoded, String> {
    let transaction: bitcoin::Transaction =
        encode::deserialize(data).map_err(|error| format!("does not decode: {error}"))?;
    if encode::serialize(&transaction) != data {
        return Err("is not in its canonical form".to_owned());
    }
    check_shape(&transaction)?;
    let spends = transaction.input.iter().map(|input| Spend {
        txid: Txid(input.previous_output.txid.to_byte_array()),
        vout: input.previous_output.vout,
        sequence: input.sequence.to_consensus_u32(),
    });
    let outputs = transaction.output.iter().map(|output| Output {
        value: output.value.to_sat(),
        script: output.script_pubkey.as_bytes().into(),
    });
    Ok(Decoded {
        txid: Txid(transaction.compute_txid().to_byte_array()),
        wtxid: Wtxid(transaction.compute_wtxid().to_byte_array()),
        weight: transaction.weight().to_wu(),
        sigops_legacy_cost: transaction.total_sigop_cost(|_| None) as u64,
        spends: spends.collect(),
        outputs: outputs.collect(),
        lock_time: transaction.lock_time.to_consensus_u32(),
        version: transaction.version.0.cast_unsigned(),
    })
}

/// What consensus asks of any transaction without looking at others (Core's `CheckTransaction`);
/// outputs spent twice are left to S20.
fn check_shape(transaction: &bitcoin::Transaction) -> Result<(), String> {
    if transaction.input.is_empty() || transaction.output.is_empty() {
        return Err("has no input or no output".to_owned());
    }
    if transaction.weight().to_wu() > WEIGHT_MAX {
        return Err(format!("weighs more than {WEIGHT_MAX}"));
    }
    if transaction.input.iter().any(|input| input.previous_output.is_null()) {
        return Err("spends the null outpoint, as only a coinbase may".to_owned());
    }
    if money(transaction).is_none() {
        return Err(format!("creates more than {MONEY_MAX} satoshi"));
    }
    Ok(())
}

/// Sum of the outputs in satoshi, if each and all are within [`MONEY_MAX`].
pub(crate) fn money(transaction: &bitcoin::Transaction) -> Option<u64> {
    transaction.output.iter().try_fold(0u64, |sum, output| {
        sum.checked_add(output.value.to_sat()).filter(|sum| *sum <= MONEY_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};

    fn spend(value: u64) -> bitcoin::Transaction {
        bitcoin::Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::from_consensus(7),
            input: vec![TxIn {
                previous_output: OutPoint::new(bitcoin::Txid::from_byte_array([3; 32]), 5),
                script_sig: ScriptBuf::new(),
                sequence: Sequence(9),
                witness: Witness::from_slice(&[[1, 2, 3]]),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(value),
                // OP_CHECKSIG, OP_CHECKMULTISIG: 1 + 20 legacy operations.
                script_pubkey: ScriptBuf::from_bytes(vec![0xac, 0xae]),
            }],
        }
    }

    #[test]
    fn facts_are_what_the_bytes_say() {
        let data = encode::serialize(&spend(1_000));
        let facts = TransactionFacts::from_bytes(&data).decoded.unwrap();
        assert_eq!(facts.sigops_legacy_cost, 84);
        assert_eq!((facts.lock_time, facts.version), (7, 2));
        let stripped = spend(1_000).base_size() as u64;
        assert_eq!(TransactionFacts::from_bytes(&data).stripped_bytes(), stripped);
        assert_eq!(facts.spends[..], [Spend { txid: Txid([3; 32]), vout: 5, sequence: 9 }]);
        assert_eq!(facts.outputs[0].value, 1_000);
        assert_eq!(facts.wtxid.0, work::hash::sha256d(&data));
        assert_ne!(facts.wtxid.0, facts.txid.0);
    }

    #[test]
    fn what_no_block_could_hold_is_named() {
        let check = |data: &[u8], words: &str| {
            let error = TransactionFacts::from_bytes(data).decoded.unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        let good = encode::serialize(&spend(1));
        for end in 0..good.len() {
            check(&good[..end], "does not decode");
        }
        check(&[&good[..], &[0]].concat(), "does not decode");
        check(&encode::serialize(&spend(MONEY_MAX + 1)), "more than");
        let mut nothing = spend(1);
        nothing.output.clear();
        check(&encode::serialize(&nothing), "no input or no output");
        let mut coinbase = spend(1);
        coinbase.input[0].previous_output = OutPoint::null();
        check(&encode::serialize(&coinbase), "null outpoint");
    }
}
