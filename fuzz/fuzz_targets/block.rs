//! Coinbases and blocks: of any template a coinbase is built or refused; what is built is a
//! coinbase transaction of the right value with the extranonce where it belongs, and the block
//! assembled from it is read by Bitcoin's own library as the one that was meant.
//!
//! Input: height U32, value U64, tag length U8, extranonce length U8, granted size U8, payouts U8,
//! transactions U8, then bytes that fill tag, extranonce and scripts, again and again.

#![no_main]

use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use libfuzzer_sys::fuzz_target;
use work::extranonce::Grant;
use work::payout::Payout;
use work::{BlockHash, Job, Template, TemplateId, Tip, Transaction, Txid, Wtxid, block};

/// Bytes before the filling.
const PLAN_BYTES: usize = 4 + 8 + 5;
/// Transactions in one block, payouts in one coinbase.
const PARTS_MAX: u8 = 9;

/// The filling, as often as it is needed.
struct Filling<'a>(std::iter::Cycle<std::slice::Iter<'a, u8>>);

impl Filling<'_> {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.0.by_ref().take(count).copied().collect()
    }
}

/// A transaction that spends and pays as the filling says.
fn transaction(filling: &mut Filling<'_>) -> Arc<Transaction> {
    let transaction = bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn {
            previous_output: bitcoin::OutPoint {
                txid: bitcoin::Txid::from_slice(&filling.bytes(32)).expect("32 bytes"),
                vout: 0,
            },
            witness: bitcoin::Witness::from_slice(&[filling.bytes(8)]),
            ..Default::default()
        }],
        output: vec![bitcoin::TxOut {
            value: bitcoin::Amount::from_sat(1),
            script_pubkey: filling.bytes(22).into(),
        }],
    };
    Arc::new(Transaction {
        txid: Txid(transaction.compute_txid().to_byte_array()),
        wtxid: Wtxid(transaction.compute_wtxid().to_byte_array()),
        data: bitcoin::consensus::serialize(&transaction).into(),
        fee: 1,
        weight: u32::try_from(transaction.weight().to_wu()).expect("a small one"),
        sigops: 0,
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((plan, filling)) = input.split_first_chunk::<PLAN_BYTES>() else { return };
    if filling.is_empty() {
        return;
    }
    let mut filling = Filling(filling.iter().cycle());
    let height = u32::from_le_bytes([plan[0], plan[1], plan[2], plan[3]]);
    let value = u64::from_le_bytes(plan[4..12].try_into().expect("eight bytes"));
    let [tag, full, size, payouts, transactions] =
        [plan[12], plan[13], plan[14], plan[15], plan[16]];
    let transactions: Arc<[_]> =
        (0..transactions % PARTS_MAX).map(|_| transaction(&mut filling)).collect();
    let template = Template {
        id: TemplateId(1),
        tip: Tip { prev_hash: BlockHash([7; 32]), nbits: 0x207f_ffff, min_ntime: 1 },
        height,
        version: 0x2000_0000,
        cur_time: 2,
        // Bitcoin's library reads no amount above all the coins there can be.
        coinbase_value: value % 2_100_000_000_000_000,
        witness_commitment: source::assemble::witness_commitment(
            transactions.iter().map(|transaction| transaction.wtxid),
        ),
        merkle_path: work::template::merkle_path(&transactions),
        transactions,
        rules: None,
        max_ntime: None,
    };
    let payouts: Vec<Payout> = (0..payouts % PARTS_MAX)
        .map(|number| Payout { script_pubkey: filling.bytes(22), share: u32::from(number) + 1 })
        .collect();
    let tag = filling.bytes(usize::from(tag % 128));
    let full = usize::from(full % 40);
    let built = Job::new(Arc::new(template), &payouts, &tag, full);
    let Some(grant) = Grant::for_extended([9; 8], full, size.into()) else { return };
    let rolled = filling.bytes(grant.extranonce_size.into());
    let extranonce = [&grant.extranonce_prefix[..], &rolled].concat();
    assert_eq!(extranonce.len(), full, "every grant makes the whole length");
    let Ok(job) = built else { return };

    let root = job.merkle_root(&grant.extranonce_prefix, &rolled);
    let mut header = [0; 80];
    header[..4].copy_from_slice(&job.template.version.to_le_bytes());
    header[36..68].copy_from_slice(&root.0);
    let bytes = block::assemble(&header, &job, &extranonce).expect("a block of our own job");
    let block: bitcoin::Block = bitcoin::consensus::deserialize(&bytes).expect("it is a block");
    assert!(block.check_merkle_root() && block.check_witness_commitment());
    let coinbase = block.coinbase().expect("its first transaction is a coinbase");
    let paid: u64 = coinbase.output.iter().map(|output| output.value.to_sat()).sum();
    assert_eq!(paid, job.template.coinbase_value);
    let script = coinbase.input[0].script_sig.as_bytes();
    assert!((2..=100).contains(&script.len()) && script.ends_with(&extranonce));
    assert_eq!(coinbase.lock_time.to_consensus_u32(), height.saturating_sub(1));
    // Below, the height is an opcode and no push of bytes, which the library does not read.
    if height > 16 {
        assert_eq!(block.bip34_block_height().ok(), Some(u64::from(height)));
    }
});
