//! A found block as the node takes it.

use crate::coinbase::CoinbaseError;
use crate::job::Job;

/// The block: `header 80 | CompactSize count | coinbase with witness | transactions`.
///
/// # Errors
/// [`CoinbaseError::Shape`] if the coinbase's parts do not make a transaction.
pub fn assemble(header: &[u8; 80], job: &Job, extranonce: &[u8]) -> Result<Vec<u8>, CoinbaseError> {
    let coinbase = job.coinbase.with_witness(extranonce)?;
    let transactions = &job.template.transactions;
    let size: usize = transactions.iter().map(|transaction| transaction.data.len()).sum();
    let count = bitcoin::VarInt::from(transactions.len() + 1);
    let mut block = Vec::with_capacity(header.len() + count.size() + coinbase.len() + size);
    block.extend_from_slice(header);
    block.extend_from_slice(&bitcoin::consensus::encode::serialize(&count));
    block.extend_from_slice(&coinbase);
    for transaction in transactions.iter() {
        block.extend_from_slice(&transaction.data);
    }
    Ok(block)
}
