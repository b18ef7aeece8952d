//! Extended work: the coinbase in two parts, checked as a transaction, and the root it leads to.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;
use bitcoin::Transaction;
use bitcoin::consensus::encode::deserialize;
use bitcoin::script::{Instruction, read_scriptint};
use sha2::{Digest, Sha256};
use sv2::codec::B0_32_MAX;
use sv2::message::mining::NewExtendedMiningJob;
use work::coinbase::SCRIPT_SIG_BYTES_MAX;
use work::hash::finish_double;
use work::{MerkleNode, Txid};

use super::event::Prefix;

/// Fewest bytes of a coinbase's scriptSig (consensus).
const SCRIPT_SIG_BYTES_MIN: usize = 2;

/// Bytes before the scriptSig of a stripped coinbase: version 4, input count 1, outpoint 36, and
/// the length, which is one byte up to 100.
const BYTES_BEFORE_SCRIPT_SIG: usize = 4 + 1 + 36 + 1;

/// What a miner rolls of the extranonce: a counter, big-endian.
pub(crate) type Extranonce = ArrayVec<u8, B0_32_MAX>;

/// What is wrong with a job's coinbase under a channel's extranonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoinbaseFault {
    /// Prefix, extranonce and suffix make no transaction.
    Undecodable,
    /// It has the segwit marker or a witness: its hash would not be the txid (BIP141).
    NotStripped,
    /// Its input is not that of a coinbase.
    NotCoinbase,
    /// Its scriptSig has this many bytes, not 2 to 100.
    ScriptSigLength(usize),
    /// The extranonce is not inside the scriptSig.
    ExtranonceOutside,
    /// The scriptSig does not begin with a height (BIP34).
    NoHeight,
}

impl fmt::Display for CoinbaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoinbaseFault::Undecodable => f.write_str("it is no transaction"),
            CoinbaseFault::NotStripped => f.write_str("it has a segwit marker or a witness"),
            CoinbaseFault::NotCoinbase => f.write_str("its input is not a coinbase's"),
            CoinbaseFault::ScriptSigLength(bytes) => {
                write!(f, "its scriptSig has {bytes} bytes, expected 2 to 100")
            }
            CoinbaseFault::ExtranonceOutside => {
                f.write_str("the extranonce is not inside its scriptSig")
            }
            CoinbaseFault::NoHeight => f.write_str("its scriptSig does not begin with a height"),
        }
    }
}

/// A job's coinbase and path, shared by all channels that it was sent to.
#[derive(Debug)]
pub(crate) struct Parts {
    prefix: Box<[u8]>,
    suffix: Box<[u8]>,
    path: Box<[MerkleNode]>,
}

impl Parts {
    pub fn new(job: &NewExtendedMiningJob<'_>) -> Parts {
        Parts {
            prefix: job.coinbase_tx_prefix.into(),
            suffix: job.coinbase_tx_suffix.into(),
            path: job.merkle_path.iter().map(|node| MerkleNode(*node)).collect(),
        }
    }

    /// The root with `prefix` and `extranonce` in place.
    pub fn root(&self, prefix: &[u8], extranonce: &[u8]) -> MerkleNode {
        let coinbase = Sha256::new_with_prefix(&self.prefix)
            .chain_update(prefix)
            .chain_update(extranonce)
            .chain_update(&self.suffix);
        work::merkle::root(Txid(finish_double(coinbase)), &self.path)
    }

    /// Checks the coinbase with `prefix` and `extranonce` in place.
    pub fn check(&self, prefix: &[u8], extranonce: &[u8]) -> Result<(), CoinbaseFault> {
        let bytes = [&self.prefix, prefix, extranonce, &self.suffix].concat();
        let coinbase: Transaction = deserialize(&bytes).map_err(|_| CoinbaseFault::Undecodable)?;
        // A transaction with the marker can be read, too; it is longer than its stripped form.
        if coinbase.base_size() != bytes.len() {
            return Err(CoinbaseFault::NotStripped);
        }
        let input = coinbase.input.first().filter(|_| coinbase.is_coinbase());
        let script = &input.ok_or(CoinbaseFault::NotCoinbase)?.script_sig;
        let length = script.len();
        if !(SCRIPT_SIG_BYTES_MIN..=SCRIPT_SIG_BYTES_MAX).contains(&length) {
            return Err(CoinbaseFault::ScriptSigLength(length));
        }
        let begin = self.prefix.len();
        let end = begin + prefix.len() + extranonce.len();
        if begin < BYTES_BEFORE_SCRIPT_SIG || end > BYTES_BEFORE_SCRIPT_SIG + length {
            return Err(CoinbaseFault::ExtranonceOutside);
        }
        let has_height = match script.instructions_minimal().next() {
            Some(Ok(Instruction::PushBytes(bytes))) => {
                read_scriptint(bytes.as_bytes()).is_ok_and(|height| height >= 0)
            }
            Some(Ok(Instruction::Op(op))) => {
                let small = bitcoin::opcodes::all::OP_PUSHNUM_1.to_u8()
                    ..=bitcoin::opcodes::all::OP_PUSHNUM_16.to_u8();
                small.contains(&op.to_u8())
            }
            _ => false,
        };
        if has_height { Ok(()) } else { Err(CoinbaseFault::NoHeight) }
    }
}

/// A job whose extranonce the miner rolls.
#[derive(Debug, Clone)]
pub(crate) struct ExtendedWork {
    pub parts: Arc<Parts>,
    /// The channel's prefix when the job came: a later one does not change it (SV2 5.3.10).
    pub prefix: Prefix,
    /// Bytes that are rolled.
    pub extranonce_size: usize,
}

impl ExtendedWork {
    /// The root with `extranonce` in place.
    pub fn root(&self, extranonce: &[u8]) -> MerkleNode {
        self.parts.root(&self.prefix, extranonce)
    }

    /// The first value of the counter.
    pub fn first_extranonce(&self) -> Extranonce {
        std::iter::repeat_n(0, self.extranonce_size.min(B0_32_MAX)).collect()
    }
}

/// The next value of a big-endian counter of fixed length, which wraps.
pub(crate) fn advance(extranonce: &mut Extranonce) {
    for byte in extranonce.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}
