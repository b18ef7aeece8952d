//! Coinbases and blocks: statements 92, 94 and 95. That nodes take such blocks is shown against
//! real ones.

use std::sync::Arc;

use ::bitcoin::consensus::encode::{deserialize, serialize};
use ::bitcoin::hashes::Hash as _;
use ::bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Txid as NodeTxid, Witness, absolute,
    transaction,
};
use source::assemble::{Frame, template};
use work::payout::Payout;
use work::{BlockHash, Job, TemplateId, Tip, Transaction, Txid, Wtxid};

use crate::plain::{EXTRANONCE_BYTES, House, UNIX_SECONDS};

/// Every second hash is a block.
const NBITS: u32 = 0x207f_ffff;

/// A transaction with a witness that no other has.
fn segwit_transaction(number: u8) -> Arc<Transaction> {
    let transaction = ::bitcoin::Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(NodeTxid::from_byte_array([number; 32]), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[number; 64]]),
        }],
        output: vec![TxOut { value: Amount::from_sat(1_000), script_pubkey: ScriptBuf::new() }],
    };
    Arc::new(Transaction {
        txid: Txid(transaction.compute_txid().to_byte_array()),
        wtxid: Wtxid(transaction.compute_wtxid().to_byte_array()),
        data: serialize(&transaction).into(),
        fee: 100 + u64::from(number),
        weight: u32::try_from(transaction.weight().to_wu()).unwrap(),
        sigops: 0,
    })
}

/// Work with so many transactions beside the coinbase.
fn job(id: u64, height: u32, transactions: u8) -> Arc<Job> {
    let transactions: Vec<_> = (1..=transactions).map(segwit_transaction).collect();
    let frame = Frame {
        id: TemplateId(id),
        tip: Tip { prev_hash: BlockHash([id as u8; 32]), nbits: NBITS, min_ntime: UNIX_SECONDS },
        height,
        version: 0x2000_0000,
        cur_time: UNIX_SECONDS,
        subsidy: 5_000_000_000,
        max_ntime: None,
    };
    let payouts = [Payout { script_pubkey: vec![0x51; 22], share: 1 }];
    let template = Arc::new(template(frame, transactions.into()));
    Arc::new(Job::new(template, &payouts, b"/ReserveGrid/", EXTRANONCE_BYTES).unwrap())
}

/// Goal: the block behind a share is whole: header, coinbase with its witness, transactions in
/// their order, and both of its merkle trees fit, for one transaction, two, and odd and even
/// numbers of them, from either kind of channel.
/// Method: every block is read and checked by the bitcoin crate, which knows nothing of ours.
#[test]
fn s92_s94_the_block_behind_a_share_is_whole() {
    let mut house = House::without_work(crate::plain::settings());
    let mut peer = house.set_up(0);
    for (id, transactions) in (1..).zip([0u8, 1, 2, 3, 4, 7, 8, 31]) {
        let height = 839_999 + u32::from(transactions);
        house.publish(job(id, height, transactions));
        house.listen(&mut peer);
        peer.types();
        for is_extended in [false, true] {
            let channel = match is_extended {
                true => house.open_extended(&mut peer, 4),
                false => house.open_standard(&mut peer),
            };
            peer.types();
            let network = work::Target::from_nbits(NBITS).unwrap();
            let mut share = house.grind(&channel, id as u32, |hash, _| network.is_met_by(hash));
            share.claim.version ^= 0x20;
            share.mine(&channel, |hash, _| network.is_met_by(hash));
            house.submit(&mut peer, &share).unwrap();
            let found = house.solutions.pop().expect("a block");
            let bytes = work::block::assemble(&found.header, &found.job, &found.extranonce);
            let block: Block = deserialize(&bytes.unwrap()).unwrap();
            assert_eq!(block.block_hash().to_byte_array(), found.hash.0);
            assert_eq!(block.txdata.len(), usize::from(transactions) + 1);
            assert!(block.check_merkle_root(), "{transactions} transactions");
            assert!(block.check_witness_commitment(), "{transactions} transactions");
            assert_eq!(block.bip34_block_height(), Ok(u64::from(height)));
            assert_eq!(block.header.version.to_consensus(), 0x2000_0020);
            assert!(block.header.validate_pow(block.header.target()).is_ok());
            let fees: u64 = house.job.template.total_fees();
            let coinbase = &block.txdata[0];
            let paid: u64 = coinbase.output.iter().map(|output| output.value.to_sat()).sum();
            assert_eq!(paid, 5_000_000_000 + fees, "all that may be paid is paid");
            assert_eq!(coinbase.input[0].witness.to_vec(), [[0u8; 32]]);
        }
    }
}

/// Goal: the coinbase that miners are given is timed as BIP54 asks: not final by its sequence, and
/// locked to the height before its own.
#[test]
fn s95_the_coinbase_is_timed_as_bip54_asks() {
    for height in [1, 2, 17, 840_000] {
        let mut house = House::without_work(crate::plain::settings());
        house.publish(job(1, height, 0));
        let mut peer = house.set_up(0);
        let channel = house.open_extended(&mut peer, 4);
        let coinbase = peer.next(|message| {
            let sv2::ToMiner::NewExtendedMiningJob(job) = message else { panic!("{message:?}") };
            let rolled = vec![0; channel.extranonce_size];
            let prefix = job.coinbase_tx_prefix;
            [prefix, &channel.extranonce_prefix, &rolled, job.coinbase_tx_suffix].concat()
        });
        let coinbase: ::bitcoin::Transaction = deserialize(&coinbase).unwrap();
        assert_eq!(coinbase.lock_time.to_consensus_u32(), height - 1);
        assert_ne!(coinbase.input[0].sequence, Sequence::MAX);
    }
}
