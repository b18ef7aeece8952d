//! The transactions of a proposal among each other: where each stands, and who spends whom.
//!
//! Made once for each ruling, because several checks ask.

use std::collections::HashMap;

use work::Txid;

use crate::facts::{Decoded, Output, Spend};
use crate::proposal::JudgedTransaction;

/// An input that spends an output of a transaction of the same proposal. Positions are those in
/// the block, without the coinbase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inside {
    /// Position of the spending transaction.
    pub(crate) child: usize,
    /// Which of its inputs.
    pub(crate) input: usize,
    /// Position of the transaction that is spent.
    pub(crate) parent: usize,
}

/// Transactions that all decode, and who spends whom among them.
#[derive(Debug)]
pub(crate) struct Links<'a> {
    /// The facts, in block order.
    pub(crate) decoded: Vec<&'a Decoded>,
    /// Inputs that spend inside the proposal, by child and then by input.
    pub(crate) inside: Vec<Inside>,
    first: HashMap<Txid, usize>,
}

impl<'a> Links<'a> {
    /// The links among `transactions`; nothing if one does not decode.
    pub(crate) fn of(transactions: &'a [JudgedTransaction]) -> Option<Links<'a>> {
        let decoded: Vec<&Decoded> = transactions
            .iter()
            .map(|transaction| transaction.facts.decoded.as_ref().ok())
            .collect::<Option<_>>()?;
        let mut first = HashMap::with_capacity(decoded.len());
        for (position, transaction) in decoded.iter().enumerate() {
            first.entry(transaction.txid).or_insert(position);
        }
        let mut inside = Vec::new();
        for (child, transaction) in decoded.iter().enumerate() {
            for (input, spend) in transaction.spends.iter().enumerate() {
                if let Some(parent) = first.get(&spend.txid).copied() {
                    inside.push(Inside { child, input, parent });
                }
            }
        }
        Some(Links { decoded, inside, first })
    }

    /// Whether the transaction at `position` has the txid of an earlier one.
    pub(crate) fn is_repeated(&self, position: usize) -> bool {
        let transaction = self.decoded.get(position);
        transaction.is_some_and(|transaction| self.first.get(&transaction.txid) != Some(&position))
    }

    /// The transaction at `position`.
    pub(crate) fn at(&self, position: usize) -> Option<&'a Decoded> {
        self.decoded.get(position).copied()
    }

    /// The input that `link` is about, in the transaction that spends.
    pub(crate) fn spend(&self, link: &Inside) -> Option<(&'a Decoded, &'a Spend)> {
        let child = self.at(link.child)?;
        Some((child, child.spends.get(link.input)?))
    }

    /// The output that `link` spends; nothing if the parent has no such output.
    pub(crate) fn spent(&self, link: &Inside) -> Option<&'a Output> {
        let (_, spend) = self.spend(link)?;
        self.at(link.parent)?.outputs.get(usize::try_from(spend.vout).ok()?)
    }
}
