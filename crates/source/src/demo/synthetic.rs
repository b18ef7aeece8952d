//! Transactions for the simulated chain: well-formed segwit, of the sizes one sees.
//!
//! Signatures are random bytes in the right shape and most inputs spend outputs that no block
//! holds, so no real node would take them; everything a template checker computes from the
//! bytes (txid, wtxid, weight, signature operations, outpoints) is genuine. Some transactions
//! spend the change of an earlier one, so templates have chains in them.

use std::collections::VecDeque;
use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use bitcoin::opcodes::all::OP_CHECKMULTISIG;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, WitnessProgram, WitnessVersion, absolute,
    transaction,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use work::hash::{Txid, Wtxid};
use work::template::Transaction;

/// Change outputs kept to be spent by later transactions.
const CHANGE_MAX: usize = 256;
/// Coins below this are not chained, so that fees and outputs can always be paid.
const CHAINED_VALUE_MIN: u64 = 400_000;
/// Of a hundred transactions, how many spend another's change.
const CHAINED_PERCENT: u64 = 12;
/// Least value of an output, above every dust limit.
const OUTPUT_VALUE_MIN: u64 = 1_000;
/// Highest fee rate, satoshi per virtual byte.
const FEE_RATE_MAX: u64 = 60;

/// A transaction and the unconfirmed ones it may depend on.
pub(super) struct Made {
    pub(super) transaction: Arc<Transaction>,
    pub(super) parents: Vec<Txid>,
}

/// What unlocks a coin.
#[derive(Clone)]
enum Lock {
    KeyHash { public_key: [u8; 33] },
    Multisig { script: ScriptBuf },
    Taproot { output_key: [u8; 32] },
}

#[derive(Clone)]
struct Coin {
    outpoint: OutPoint,
    value: u64,
    lock: Lock,
    parent: Option<Txid>,
}

/// Makes transactions; the same seed makes the same ones.
pub(super) struct Synthetic {
    random: ChaCha8Rng,
    change: VecDeque<Coin>,
}

impl Synthetic {
    pub(super) fn new(seed: u64) -> Synthetic {
        Synthetic { random: ChaCha8Rng::seed_from_u64(seed), change: VecDeque::new() }
    }

    /// A number for whoever needs chance beside the transactions.
    pub(super) fn number(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// The next transaction.
    pub(super) fn make(&mut self) -> Made {
        let coins = self.coins();
        let spent: Vec<TxOut> = coins.iter().map(spent_output).collect();
        let inputs = coins.iter().map(|coin| self.input(coin)).collect();
        let change_key = self.public_key();
        let mut output = self.outputs(coins[0].parent.is_some());
        output.push(TxOut { value: Amount::ZERO, script_pubkey: key_hash_script(&change_key) });
        let mut made = bitcoin::Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: inputs,
            output,
        };
        let value = coins.iter().map(|coin| coin.value).sum();
        let fee = self.pay(&mut made, value);
        self.keep_change(&made, change_key);
        let sigops = made.total_sigop_cost(|outpoint| {
            let at = coins.iter().position(|coin| coin.outpoint == *outpoint)?;
            spent.get(at).cloned()
        });
        Made {
            parents: coins.iter().filter_map(|coin| coin.parent).collect(),
            transaction: Arc::new(described(&made, fee, sigops)),
        }
    }

    /// Set the values of all outputs; the last takes what is left. The fee is returned.
    fn pay(&mut self, made: &mut bitcoin::Transaction, value: u64) -> u64 {
        // Most pay little, some pay much, as in a quiet mempool.
        let rate = 1 + self.below(FEE_RATE_MAX) * self.below(FEE_RATE_MAX) / FEE_RATE_MAX;
        let fee = rate * made.weight().to_vbytes_ceil();
        let mut left = value.saturating_sub(fee);
        let payable = made.output.iter().filter(|output| !output.script_pubkey.is_op_return());
        let mut open = u64::try_from(payable.count()).unwrap_or(u64::MAX);
        for output in &mut made.output {
            if output.script_pubkey.is_op_return() {
                continue;
            }
            open = open.saturating_sub(1);
            let spare = left.saturating_sub((open + 1) * OUTPUT_VALUE_MIN);
            let part = if open == 0 { left } else { OUTPUT_VALUE_MIN + self.below(spare / 2 + 1) };
            output.value = Amount::from_sat(part);
            left = left.saturating_sub(part);
        }
        fee
    }

    fn keep_change(&mut self, made: &bitcoin::Transaction, public_key: [u8; 33]) {
        let Some(last) = made.output.last() else { return };
        let value = last.value.to_sat();
        if value < CHAINED_VALUE_MIN {
            return;
        }
        if self.change.len() == CHANGE_MAX {
            self.change.pop_front();
        }
        let txid = made.compute_txid();
        let vout = u32::try_from(made.output.len() - 1).unwrap_or(u32::MAX);
        self.change.push_back(Coin {
            outpoint: OutPoint { txid, vout },
            value,
            lock: Lock::KeyHash { public_key },
            parent: Some(Txid(txid.to_byte_array())),
        });
    }

    /// The coins of one transaction, at least one; a chained one comes first.
    fn coins(&mut self) -> Vec<Coin> {
        if self.below(100) < CHAINED_PERCENT && !self.change.is_empty() {
            let count = u64::try_from(self.change.len()).unwrap_or(1);
            let at = usize::try_from(self.below(count)).unwrap_or(0);
            if let Some(coin) = self.change.remove(at) {
                return vec![coin];
            }
        }
        let count = match self.below(100) {
            0..60 => 1,
            60..80 => 2,
            80..95 => 3 + self.below(3),
            _ => 6 + self.below(15),
        };
        (0..count).map(|_| self.coin()).collect()
    }

    fn coin(&mut self) -> Coin {
        let lock = match self.below(10) {
            0..6 => Lock::KeyHash { public_key: self.public_key() },
            6..8 => Lock::Taproot { output_key: self.bytes() },
            _ => Lock::Multisig { script: self.multisig() },
        };
        let txid = bitcoin::Txid::from_byte_array(self.bytes());
        let vout = u32::try_from(self.below(4)).unwrap_or(0);
        let value = CHAINED_VALUE_MIN + self.below(500_000_000);
        Coin { outpoint: OutPoint { txid, vout }, value, lock, parent: None }
    }

    /// Two of three public keys.
    fn multisig(&mut self) -> ScriptBuf {
        let mut builder = Builder::new().push_int(2);
        for _ in 0..3 {
            builder = builder.push_slice(self.public_key());
        }
        builder.push_int(3).push_opcode(OP_CHECKMULTISIG).into_script()
    }

    fn input(&mut self, coin: &Coin) -> TxIn {
        let mut witness = bitcoin::Witness::new();
        match &coin.lock {
            Lock::KeyHash { public_key } => {
                witness.push(self.signature());
                witness.push(public_key);
            }
            Lock::Multisig { script } => {
                witness.push([]);
                witness.push(self.signature());
                witness.push(self.signature());
                witness.push(script.as_bytes());
            }
            Lock::Taproot { .. } => {
                let (first, second): ([u8; 32], [u8; 32]) = (self.bytes(), self.bytes());
                witness.push([first, second].concat());
            }
        }
        TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness,
        }
    }

    /// The outputs before the change. Chained transactions stay small: their coin is given.
    fn outputs(&mut self, chained: bool) -> Vec<TxOut> {
        let count = match self.below(100) {
            _ if chained => 1,
            0..80 => 1,
            80..95 => 2 + self.below(3),
            _ => 5 + self.below(36),
        };
        (0..count)
            .map(|_| TxOut { value: Amount::ZERO, script_pubkey: self.output_script() })
            .collect()
    }

    fn output_script(&mut self) -> ScriptBuf {
        match self.below(20) {
            0..9 => key_hash_script(&self.public_key()),
            9..14 => witness_script(WitnessVersion::V1, &self.bytes::<32>()),
            14..16 => witness_script(WitnessVersion::V0, &self.bytes::<32>()),
            16..18 => ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_byte_array(self.bytes())),
            18 => ScriptBuf::new_p2sh(&bitcoin::ScriptHash::from_byte_array(self.bytes())),
            _ => {
                let mut data = vec![0u8; 8 + usize::try_from(self.below(60)).unwrap_or(0)];
                self.random.fill_bytes(&mut data);
                let data = PushBytesBuf::try_from(data).unwrap_or_default();
                ScriptBuf::new_op_return(&data)
            }
        }
    }

    /// A DER signature's shape with the hash type behind it, 71 or 72 bytes.
    fn signature(&mut self) -> Vec<u8> {
        let (mut r, mut s): ([u8; 32], [u8; 32]) = (self.bytes(), self.bytes());
        r[0] |= 1;
        s[0] = s[0] & 0x7f | 1;
        let integer = |value: &[u8; 32]| {
            let padded = value[0] & 0x80 != 0;
            let length = if padded { 33 } else { 32 };
            let mut der = vec![0x02, length];
            der.extend(padded.then_some(0));
            der.extend(value);
            der
        };
        let body = [integer(&r), integer(&s)].concat();
        let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
        [vec![0x30, length], body, vec![0x01]].concat()
    }

    fn public_key(&mut self) -> [u8; 33] {
        let mut key = [0u8; 33];
        self.random.fill_bytes(&mut key);
        key[0] = 2 | (key[0] & 1);
        key
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0u8; N];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound.max(1)
    }
}

fn key_hash_script(public_key: &[u8; 33]) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::hash(public_key))
}

fn witness_script(version: WitnessVersion, program: &[u8; 32]) -> ScriptBuf {
    // 32 bytes are a valid program of every version.
    WitnessProgram::new(version, program)
        .map(|program| ScriptBuf::new_witness_program(&program))
        .unwrap_or_default()
}

fn spent_output(coin: &Coin) -> TxOut {
    let script_pubkey = match &coin.lock {
        Lock::KeyHash { public_key } => key_hash_script(public_key),
        Lock::Multisig { script } => ScriptBuf::new_p2wsh(&script.wscript_hash()),
        Lock::Taproot { output_key } => witness_script(WitnessVersion::V1, output_key),
    };
    TxOut { value: Amount::from_sat(coin.value), script_pubkey }
}

fn described(made: &bitcoin::Transaction, fee: u64, sigops: usize) -> Transaction {
    Transaction {
        txid: Txid(made.compute_txid().to_byte_array()),
        wtxid: Wtxid(made.compute_wtxid().to_byte_array()),
        data: bitcoin::consensus::serialize(made).into_boxed_slice(),
        fee,
        weight: u32::try_from(made.weight().to_wu()).unwrap_or(u32::MAX),
        sigops: u32::try_from(sigops).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_is_said_of_a_transaction_is_true_of_its_bytes() {
        let mut synthetic = Synthetic::new(7);
        let (mut outpoints, mut known, mut chained) = (HashSet::new(), HashSet::new(), 0);
        let mut weights = Vec::new();
        for _ in 0..2_000 {
            let made = synthetic.make();
            let ours = &made.transaction;
            let read: bitcoin::Transaction = bitcoin::consensus::deserialize(&ours.data).unwrap();
            assert_eq!(read.compute_txid().to_byte_array(), ours.txid.0);
            assert_eq!(read.compute_wtxid().to_byte_array(), ours.wtxid.0);
            assert_ne!(ours.txid.0, ours.wtxid.0, "every transaction carries a witness");
            assert_eq!(read.weight().to_wu(), u64::from(ours.weight));
            assert!(ours.fee >= read.vsize() as u64);
            for input in &read.input {
                assert!(outpoints.insert(input.previous_output), "spent twice");
            }
            for output in read.output.iter().filter(|output| !output.script_pubkey.is_op_return()) {
                assert!(output.value.to_sat() >= OUTPUT_VALUE_MIN);
            }
            for parent in &made.parents {
                chained += 1;
                assert!(known.contains(parent), "a parent comes before its child");
            }
            known.insert(ours.txid);
            weights.push(ours.weight);
        }
        assert!(chained > 100, "{chained}");
        let average = weights.iter().sum::<u32>() / 2_000;
        assert!((600..1_400).contains(&average), "{average} weight units on average");
    }

    #[test]
    fn a_seed_repeats() {
        let ids = |seed| {
            let mut synthetic = Synthetic::new(seed);
            (0..50).map(|_| synthetic.make().transaction.wtxid).collect::<Vec<_>>()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }
}
