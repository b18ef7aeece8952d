//! What is judged: a proposal from the wire with its transactions resolved to facts.

use std::sync::Arc;

use work::Wtxid;
use work::contract::verifier::TemplatePropose;

use crate::facts::TransactionFacts;

/// One transaction of a proposal.
#[derive(Debug, Clone)]
pub struct JudgedTransaction {
    /// Its name as the proposer says; S17 compares it with the bytes.
    pub wtxid: Wtxid,
    /// Fee in satoshi as the proposer's node says.
    pub fee: u64,
    /// Signature operation cost as the proposer's node says.
    pub sigops: u32,
    /// What its bytes say.
    pub facts: Arc<TransactionFacts>,
}

/// A proposal with everything it names.
///
/// `template.wtxids` and `template.totals` are not read: the list below is what would be mined,
/// and sums are taken over it.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    /// The proposal.
    pub template: &'a TemplatePropose,
    /// Its transactions in block order, without the coinbase.
    pub transactions: &'a [JudgedTransaction],
}
