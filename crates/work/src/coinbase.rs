//! The coinbase transaction in three parts: prefix, extranonce, suffix.
//!
//! What miners hash is the stripped form, without marker, flag and witness (BIP141), or every
//! share's root would be wrong:
//! `version 4 | 01 | 32*00 | ffffffff | length | scriptSig | sequence | outputs | locktime`.
//! The prefix ends where the extranonce begins, inside the scriptSig.

use std::fmt;

use bitcoin::consensus::encode::serialize;
use bitcoin::script::PushBytesBuf;
use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxOut, absolute, transaction};
use sha2::{Digest, Sha256};

use crate::hash::{Txid, finish_double};
use crate::payout::Payout;
use crate::template::Template;

/// Bytes a coinbase's scriptSig may have (consensus).
pub const SCRIPT_SIG_BYTES_MAX: usize = 100;

/// Bytes of `coinbase_tag`.
pub const COINBASE_TAG_BYTES_MAX: usize = 40;

/// nSequence of the coinbase: not final, so that the locktime counts (BIP54).
const SEQUENCE: u32 = 0xffff_fffe;

/// The one item of the coinbase's witness: the reserved value of BIP141.
const WITNESS_RESERVED: [u8; 32] = [0; 32];

/// Why no coinbase can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoinbaseError {
    /// The scriptSig would have this many bytes; 100 is the most that consensus allows.
    ScriptSigTooLong(usize),
    /// The height has no BIP34 push below 2^31.
    Height(u32),
    /// There is nobody to pay.
    NoPayouts,
    /// The transaction came out in a shape that cannot be cut: a defect of ours.
    Shape,
}

impl fmt::Display for CoinbaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ScriptSigTooLong(bytes) => write!(
                f,
                "the coinbase scriptSig would be {bytes} bytes, at most {SCRIPT_SIG_BYTES_MAX} \
                 are allowed: shorten mining.coinbase_tag or the extranonce"
            ),
            Self::Height(height) => write!(f, "height {height} has no BIP34 push"),
            Self::NoPayouts => f.write_str("mining.coinbase_outputs is empty"),
            Self::Shape => f.write_str("the coinbase cannot be cut at the extranonce"),
        }
    }
}

impl std::error::Error for CoinbaseError {}

/// A coinbase with a hole for the extranonce, in the stripped form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coinbase {
    /// From the version up to the extranonce.
    pub prefix: Vec<u8>,
    /// From behind the extranonce to the locktime.
    pub suffix: Vec<u8>,
    /// Bytes of the hole: the channel's prefix and what the miner rolls.
    pub extranonce_bytes: usize,
}

impl Coinbase {
    /// The coinbase that pays `template.coinbase_value` to `payouts`, with the witness
    /// commitment last.
    ///
    /// The scriptSig is the BIP34 height, a push of `tag` (if any) and a push of
    /// `extranonce_bytes`. Sequence and locktime follow BIP54.
    ///
    /// # Errors
    /// See [`CoinbaseError`].
    pub fn build(
        template: &Template,
        payouts: &[Payout],
        tag: &[u8],
        extranonce_bytes: usize,
    ) -> Result<Coinbase, CoinbaseError> {
        if payouts.is_empty() {
            return Err(CoinbaseError::NoPayouts);
        }
        let (script_sig, extranonce_at) = script_sig(template.height, tag, extranonce_bytes)?;
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::from_consensus(template.height.saturating_sub(1)),
            input: vec![TxIn {
                previous_output: bitcoin::OutPoint::null(),
                script_sig,
                sequence: bitcoin::Sequence(SEQUENCE),
                witness: bitcoin::Witness::new(),
            }],
            output: outputs(template, payouts),
        };
        let bytes = serialize(&transaction);
        // version 4, input count 1, outpoint 36, scriptSig length 1 (it is below 0xfd).
        let cut = 4 + 1 + 36 + 1 + extranonce_at;
        let suffix = bytes.get(cut + extranonce_bytes..).ok_or(CoinbaseError::Shape)?.to_vec();
        let prefix = bytes.get(..cut).ok_or(CoinbaseError::Shape)?.to_vec();
        Ok(Coinbase { prefix, suffix, extranonce_bytes })
    }

    /// The txid with the extranonce in place, given in two parts: what the channel holds and
    /// what the miner rolled. Allocates nothing.
    pub fn txid(&self, extranonce_prefix: &[u8], extranonce: &[u8]) -> Txid {
        let first = Sha256::new_with_prefix(&self.prefix)
            .chain_update(extranonce_prefix)
            .chain_update(extranonce)
            .chain_update(&self.suffix);
        Txid(finish_double(first))
    }

    /// The stripped transaction with `extranonce` (the whole of it) in place.
    pub fn stripped(&self, extranonce: &[u8]) -> Vec<u8> {
        [&self.prefix, extranonce, &self.suffix].concat()
    }

    /// The transaction as the block carries it: with marker, flag and the reserved witness
    /// value. IPC and old nodes do not fill that in, so it is always there.
    ///
    /// # Errors
    /// [`CoinbaseError::Shape`] if the parts do not make a transaction.
    pub fn with_witness(&self, extranonce: &[u8]) -> Result<Vec<u8>, CoinbaseError> {
        let stripped = self.stripped(extranonce);
        let mut transaction: Transaction =
            bitcoin::consensus::encode::deserialize(&stripped).map_err(|_| CoinbaseError::Shape)?;
        let input = transaction.input.first_mut().ok_or(CoinbaseError::Shape)?;
        input.witness = bitcoin::Witness::from_slice(&[WITNESS_RESERVED]);
        Ok(serialize(&transaction))
    }
}

/// The scriptSig with zeros for the extranonce, and where in it the extranonce begins.
fn script_sig(
    height: u32,
    tag: &[u8],
    extranonce_bytes: usize,
) -> Result<(ScriptBuf, usize), CoinbaseError> {
    if height > i32::MAX as u32 {
        return Err(CoinbaseError::Height(height));
    }
    let push = |bytes: &[u8]| {
        PushBytesBuf::try_from(bytes.to_vec())
            .map_err(|_| CoinbaseError::ScriptSigTooLong(bytes.len()))
    };
    let mut builder = bitcoin::script::Builder::new().push_int(i64::from(height));
    if !tag.is_empty() {
        builder = builder.push_slice(push(tag)?);
    }
    let script = builder.push_slice(push(&vec![0; extranonce_bytes])?).into_script();
    if script.len() > SCRIPT_SIG_BYTES_MAX {
        return Err(CoinbaseError::ScriptSigTooLong(script.len()));
    }
    let extranonce_at = script.len() - extranonce_bytes;
    Ok((script, extranonce_at))
}

fn outputs(template: &Template, payouts: &[Payout]) -> Vec<TxOut> {
    let mut outputs: Vec<TxOut> = payouts
        .iter()
        .zip(Payout::split(payouts, template.coinbase_value))
        .map(|(payout, value)| TxOut {
            value: Amount::from_sat(value),
            script_pubkey: ScriptBuf::from_bytes(payout.script_pubkey.clone()),
        })
        .collect();
    outputs.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(template.witness_commitment.to_vec()),
    });
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::TemplateId;
    use crate::tip::Tip;
    use bitcoin::hashes::Hash as _;

    pub(crate) fn template(height: u32) -> Template {
        Template {
            id: TemplateId(1),
            tip: Tip { prev_hash: Default::default(), nbits: 0x1e03_77ae, min_ntime: 1 },
            height,
            version: 0x2000_0000,
            cur_time: 2,
            coinbase_value: 5_000_000_001,
            witness_commitment: [0x6a; 38],
            transactions: Vec::new().into(),
            merkle_path: Vec::new(),
            rules: None,
            max_ntime: None,
        }
    }

    fn check(height: u32, tag: &[u8], extranonce_bytes: usize) {
        let payouts = [
            Payout { script_pubkey: vec![0x51], share: 1 },
            Payout { script_pubkey: vec![0x52], share: 2 },
        ];
        let coinbase = Coinbase::build(&template(height), &payouts, tag, extranonce_bytes).unwrap();
        let extranonce: Vec<u8> = (0..extranonce_bytes as u8).collect();
        let full: Transaction =
            bitcoin::consensus::deserialize(&coinbase.with_witness(&extranonce).unwrap()).unwrap();
        assert!(full.is_coinbase());
        assert_eq!(full.compute_txid().to_byte_array(), coinbase.txid(&[], &extranonce).0);
        let (head, tail) = extranonce.split_at(extranonce_bytes / 2);
        assert_eq!(coinbase.txid(head, tail), coinbase.txid(&[], &extranonce));
        assert_eq!(full.output.iter().map(|o| o.value.to_sat()).sum::<u64>(), 5_000_000_001);
        assert_eq!(full.input[0].witness.len(), 1);
        // Conformance 95: BIP54 wants the height less one, and a sequence that lets it count.
        assert_eq!(full.lock_time.to_consensus_u32(), height.saturating_sub(1));
        assert_ne!(full.input[0].sequence, bitcoin::Sequence::MAX);
        assert!(full.is_lock_time_enabled());
        let script = full.input[0].script_sig.as_bytes();
        assert!((2..=100).contains(&script.len()));
        assert!(script.ends_with(&extranonce));
    }

    #[test]
    fn every_height_form_and_size() {
        for height in [0, 1, 16, 17, 127, 128, 255, 256, 32_767, 32_768, 840_000, 8_388_608] {
            for size in [4, 16, 20, 32] {
                check(height, b"", size);
                check(height, b"/ReserveGrid/", size);
            }
        }
    }

    #[test]
    fn too_long_is_refused() {
        let payouts = [Payout { script_pubkey: vec![0x51], share: 1 }];
        let error = Coinbase::build(&template(840_000), &payouts, &[b'x'; 75], 32).unwrap_err();
        assert!(matches!(error, CoinbaseError::ScriptSigTooLong(_)));
        assert_eq!(
            Coinbase::build(&template(1), &[], b"", 8).unwrap_err(),
            CoinbaseError::NoPayouts
        );
    }
}
