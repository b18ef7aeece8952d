//! template-manager to gateway: `GET /template/stream`, one JSON object a line, pushed.
//!
//! The first lines after connecting are `Source`, `Nodes`, and then the templates in force. A line
//! comes at least every [`HEARTBEAT_MILLIS`], so a reader knows in under a second that the source
//! is gone.
//! A template's transactions carry their data only if they were not in the last template with
//! transactions that this connection sent; the reader keeps exactly that one template's set.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bytes::HexBytes;
use crate::hash::{BlockHash, MerkleNode, Txid, Wtxid};
use crate::payout::Network;
use crate::template::{
    TEMPLATE_RULE_BYTES_MAX, TEMPLATE_RULES_MAX, TEMPLATE_TRANSACTIONS_MAX, Template, TemplateId,
    Transaction,
};
use crate::tip::Tip;

/// Longest line: a full template in hexadecimal with its numbers.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest silence of a living source.
pub const HEARTBEAT_MILLIS: u64 = 250;

/// One line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum FeedLine {
    /// What this source is.
    Source {
        /// Version of this format: 1.
        proto: u32,
        /// Chain of its node.
        network: Network,
        /// Whether it is the simulated chain.
        demo: bool,
    },
    /// Nodes that take blocks (D18); replaces the list before.
    Nodes {
        /// In the order of preference.
        nodes: Vec<NodeAccess>,
    },
    /// A new template. It announces its tip, too.
    Template(Box<FeedTemplate>),
    /// The source is alive but has lost its node since this many milliseconds.
    NodeLost {
        /// Milliseconds since the node last answered.
        since_millis: u64,
    },
    /// Nothing new.
    Heartbeat,
}

/// How to reach a node's JSON-RPC for `submitblock` (D18, D45).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeAccess {
    /// `http://host:port/`, without user information.
    pub url: String,
    /// `cookie:/path`, `user:password`, or nothing.
    pub auth: Option<String>,
}

/// A template on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedTemplate {
    /// Its name.
    pub template_id: TemplateId,
    /// Parent block.
    pub prev_hash: BlockHash,
    /// Compact target.
    pub nbits: u32,
    /// Earliest time.
    pub min_time: u32,
    /// Time of making.
    pub cur_time: u32,
    /// Height of this block.
    pub height: u32,
    /// Block version.
    pub version: u32,
    /// Subsidy and fees, satoshi.
    pub coinbase_value: u64,
    /// Script of the commitment output.
    pub witness_commitment: HexBytes,
    /// Path of the coinbase.
    pub merkle_path: Vec<MerkleNode>,
    /// [`Template::rules`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<String>>,
    /// [`Template::max_ntime`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ntime: Option<u32>,
    /// Transactions in block order.
    pub transactions: Vec<FeedTransaction>,
}

/// A transaction on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedTransaction {
    /// Names it.
    pub wtxid: Wtxid,
    /// All the rest, if the reader does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<FeedTransactionWhole>,
}

/// What a reader must be told once about a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedTransactionWhole {
    /// Hash without witness.
    pub txid: Txid,
    /// As in a block.
    pub data: HexBytes,
    /// Satoshi.
    pub fee: u64,
    /// Weight units.
    pub weight: u32,
    /// Signature operation cost.
    pub sigops: u32,
}

/// Writer's side of one connection: knows what the reader has.
#[derive(Debug, Default)]
pub struct FeedWriter {
    sent: HashMap<Wtxid, ()>,
}

impl FeedWriter {
    /// The line for `template`.
    pub fn line(&mut self, template: &Template) -> FeedLine {
        let transactions = template
            .transactions
            .iter()
            .map(|transaction| FeedTransaction {
                wtxid: transaction.wtxid,
                whole: (!self.sent.contains_key(&transaction.wtxid)).then(|| whole(transaction)),
            })
            .collect();
        if !template.is_coinbase_only() {
            self.sent = template.transactions.iter().map(|t| (t.wtxid, ())).collect();
        }
        FeedLine::Template(Box::new(FeedTemplate {
            template_id: template.id,
            prev_hash: template.tip.prev_hash,
            nbits: template.tip.nbits,
            min_time: template.tip.min_ntime,
            cur_time: template.cur_time,
            height: template.height,
            version: template.version,
            coinbase_value: template.coinbase_value,
            witness_commitment: HexBytes(template.witness_commitment.to_vec()),
            merkle_path: template.merkle_path.clone(),
            rules: template.rules.as_deref().map(<[String]>::to_vec),
            max_ntime: template.max_ntime,
            transactions,
        }))
    }
}

fn whole(transaction: &Transaction) -> FeedTransactionWhole {
    FeedTransactionWhole {
        txid: transaction.txid,
        data: HexBytes(transaction.data.to_vec()),
        fee: transaction.fee,
        weight: transaction.weight,
        sigops: transaction.sigops,
    }
}

/// Reader's side of one connection.
#[derive(Debug, Default)]
pub struct FeedReader {
    known: HashMap<Wtxid, Arc<Transaction>>,
}

impl FeedReader {
    /// The template that a line carries, its transactions shared with the one before.
    ///
    /// # Errors
    /// A sentence if a transaction without data is unknown, the commitment is not 38 bytes, or a
    /// list is too long: the connection is out of step and has to be made again.
    pub fn template(&mut self, line: FeedTemplate) -> Result<Template, String> {
        let rules = line.rules.as_deref().unwrap_or_default();
        if rules.len() > TEMPLATE_RULES_MAX
            || rules.iter().any(|rule| rule.len() > TEMPLATE_RULE_BYTES_MAX)
        {
            return Err(format!("template {} names too many rules", line.template_id.0));
        }
        if line.transactions.len() > TEMPLATE_TRANSACTIONS_MAX {
            return Err(format!("template {} has too many transactions", line.template_id.0));
        }
        let witness_commitment = line.witness_commitment.0.try_into().map_err(|_| {
            format!("witness commitment of template {} is not 38 bytes", line.template_id.0)
        })?;
        let mut transactions = Vec::with_capacity(line.transactions.len());
        for transaction in line.transactions {
            transactions.push(self.transaction(transaction)?);
        }
        let fees: u128 = transactions.iter().map(|t| u128::from(t.fee)).sum();
        if fees > u128::from(line.coinbase_value) {
            return Err(format!(
                "template {} lists more fees than its coinbase may pay",
                line.template_id.0
            ));
        }
        if !transactions.is_empty() {
            self.known = transactions.iter().map(|t| (t.wtxid, Arc::clone(t))).collect();
        }
        Ok(Template {
            id: line.template_id,
            tip: Tip { prev_hash: line.prev_hash, nbits: line.nbits, min_ntime: line.min_time },
            height: line.height,
            version: line.version,
            cur_time: line.cur_time,
            coinbase_value: line.coinbase_value,
            witness_commitment,
            transactions: transactions.into(),
            merkle_path: line.merkle_path,
            rules: line.rules.map(Into::into),
            max_ntime: line.max_ntime,
        })
    }

    fn transaction(&self, line: FeedTransaction) -> Result<Arc<Transaction>, String> {
        match line.whole {
            Some(whole) => Ok(Arc::new(Transaction {
                txid: whole.txid,
                wtxid: line.wtxid,
                data: whole.data.0.into_boxed_slice(),
                fee: whole.fee,
                weight: whole.weight,
                sigops: whole.sigops,
            })),
            None => self.known.get(&line.wtxid).cloned().ok_or_else(|| {
                format!("transaction {} came without its data and is not known", line.wtxid)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(rules: Option<&[&str]>) -> Result<Template, String> {
        let names = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        let template = Template {
            id: TemplateId(1),
            tip: Tip { prev_hash: BlockHash([1; 32]), nbits: 0x1e03_77ae, min_ntime: 1 },
            height: 1,
            version: 0x2000_0000,
            cur_time: 2,
            coinbase_value: 5_000_000_000,
            witness_commitment: [0x6a; 38],
            transactions: Vec::new().into(),
            merkle_path: Vec::new(),
            rules: rules.map(names),
            max_ntime: rules.map(|rules| rules.len() as u32),
        };
        let line = serde_json::to_string(&FeedWriter::default().line(&template)).unwrap();
        assert_eq!(line.contains("rules"), rules.is_some());
        let FeedLine::Template(line) = serde_json::from_str(&line).unwrap() else { panic!() };
        let read = FeedReader::default().template(*line)?;
        assert_eq!(read, template);
        Ok(read)
    }

    #[test]
    fn rules_are_carried_and_bounded() {
        carried(None).unwrap();
        carried(Some(&[])).unwrap();
        carried(Some(&["csv", "!segwit"])).unwrap();
        let longest = "r".repeat(TEMPLATE_RULE_BYTES_MAX);
        carried(Some(&vec![&*longest; TEMPLATE_RULES_MAX])).unwrap();
        carried(Some(&vec!["csv"; TEMPLATE_RULES_MAX + 1])).unwrap_err();
        carried(Some(&[&format!("{longest}r")])).unwrap_err();
    }
}
