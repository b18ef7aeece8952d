//! `getblocktemplate` read: strings borrowed from the answer, transactions shared between
//! templates by wtxid (D44).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use work::contract::bytes;
use work::hash::Wtxid;
use work::payout::Network;
use work::target::Target;
use work::template::{
    TEMPLATE_RULE_BYTES_MAX, TEMPLATE_RULES_MAX, TEMPLATE_TRANSACTIONS_MAX, Template, TemplateId,
    Transaction, merkle_path,
};
use work::tip::Tip;

use crate::assemble;

/// The only signet challenge whose blocks need no signature: OP_TRUE.
const TRIVIAL_CHALLENGE: &str = "51";
/// Rules that a template may demand the knowledge of, behind a `!` (BIP9).
const RULES_KNOWN: [&str; 2] = ["segwit", "signet"];

/// `getblocktemplate`'s parameters for `network`, to be held by the node until there is
/// something newer than `longpoll` if that is given.
pub fn parameters(network: Network, longpoll: Option<&str>) -> serde_json::Value {
    let rules: &[&str] = match network {
        Network::Signet => &["segwit", "signet"],
        _ => &["segwit"],
    };
    match longpoll {
        Some(id) => serde_json::json!([{ "rules": rules, "longpollid": id }]),
        None => serde_json::json!([{ "rules": rules }]),
    }
}

/// The answer, as far as it is used.
#[derive(Debug, Deserialize)]
pub struct Offer<'a> {
    version: i32,
    #[serde(borrow, default)]
    rules: Vec<Cow<'a, str>>,
    previousblockhash: &'a str,
    #[serde(borrow)]
    transactions: Vec<OfferedTransaction<'a>>,
    coinbasevalue: u64,
    #[serde(default)]
    longpollid: Cow<'a, str>,
    mintime: u32,
    curtime: u32,
    #[serde(default = "default_weight_limit")]
    weightlimit: u64,
    bits: &'a str,
    height: u32,
    default_witness_commitment: Option<&'a str>,
    signet_challenge: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct OfferedTransaction<'a> {
    data: &'a str,
    txid: &'a str,
    hash: &'a str,
    fee: u64,
    sigops: u32,
    weight: u32,
}

fn default_weight_limit() -> u64 {
    4_000_000
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferError {
    /// A field does not hold what it should: another answer may be better.
    Field(String),
    /// No template of this node can be used as it is configured.
    Refused(String),
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(why) => write!(f, "a template of the node makes no sense: {why}"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for OfferError {}

impl Offer<'_> {
    /// What the node wants to hear in a longpoll: opaque.
    pub fn longpoll_id(&self) -> &str {
        &self.longpollid
    }
}

/// The transactions of the last template, so that the next one decodes only what is new.
#[derive(Debug, Default)]
pub struct Interner {
    known: HashMap<Wtxid, Arc<Transaction>>,
}

impl Interner {
    /// The template that the node offers, with path and commitment checked here.
    ///
    /// # Errors
    /// See [`OfferError`].
    pub fn template(
        &mut self,
        offer: &Offer<'_>,
        id: TemplateId,
        network: Network,
    ) -> Result<Template, OfferError> {
        check_rules(offer, network)?;
        if offer.transactions.len() > TEMPLATE_TRANSACTIONS_MAX {
            return Err(field("transactions", "more than fit into a block"));
        }
        let transactions = offer
            .transactions
            .iter()
            .map(|offered| self.transaction(offered))
            .collect::<Result<Arc<[_]>, _>>()?;
        let commitment = assemble::witness_commitment(transactions.iter().map(|t| t.wtxid));
        let theirs = offer.default_witness_commitment.unwrap_or_default();
        if bytes::encode(&commitment) != theirs {
            return Err(field("default_witness_commitment", "not that of the transactions"));
        }
        let template = Template {
            id,
            tip: Tip {
                prev_hash: parse(offer.previousblockhash, "previousblockhash")?,
                nbits: nbits(offer.bits)?,
                min_ntime: offer.mintime,
            },
            height: offer.height,
            version: offer.version.cast_unsigned(),
            cur_time: offer.curtime,
            coinbase_value: offer.coinbasevalue,
            witness_commitment: commitment,
            merkle_path: merkle_path(&transactions),
            transactions,
            rules: rules(offer)?,
            max_ntime: None,
        };
        if template.total_weight() > offer.weightlimit {
            return Err(field("transactions", "heavier than weightlimit"));
        }
        if template.total_fees() > template.coinbase_value {
            return Err(field("coinbasevalue", "less than the fees"));
        }
        let known: HashMap<_, _> =
            template.transactions.iter().map(|t| (t.wtxid, Arc::clone(t))).collect();
        if known.len() != template.transactions.len() {
            return Err(field("transactions", "one of them twice: no block may hold that"));
        }
        self.known = known;
        Ok(template)
    }

    fn transaction(
        &self,
        offered: &OfferedTransaction<'_>,
    ) -> Result<Arc<Transaction>, OfferError> {
        let wtxid: Wtxid = parse(offered.hash, "hash")?;
        if let Some(known) = self.known.get(&wtxid) {
            return Ok(Arc::clone(known));
        }
        let data = bytes::decode(offered.data).map_err(|why| field("data", &why))?;
        Ok(Arc::new(Transaction {
            txid: parse(offered.txid, "txid")?,
            wtxid,
            data: data.into_boxed_slice(),
            fee: offered.fee,
            weight: offered.weight,
            sigops: offered.sigops,
        }))
    }
}

/// The names of the block's rules, as the node gives them; nothing if it gives none.
fn rules(offer: &Offer<'_>) -> Result<Option<Arc<[String]>>, OfferError> {
    if offer.rules.len() > TEMPLATE_RULES_MAX
        || offer.rules.iter().any(|rule| rule.len() > TEMPLATE_RULE_BYTES_MAX)
    {
        return Err(field("rules", "more or longer names than any node has"));
    }
    let rules: Arc<[String]> = offer.rules.iter().map(|rule| rule.to_string()).collect();
    Ok((!rules.is_empty()).then_some(rules))
}

/// Compact bits out of the node's eight hexadecimal digits.
///
/// # Errors
/// [`OfferError::Field`] for other text, and for bits that stand for no target.
pub fn nbits(text: &str) -> Result<u32, OfferError> {
    let nbits = u32::from_str_radix(text, 16).map_err(|_| field("bits", text))?;
    Target::from_nbits(nbits).map_err(|error| field("bits", &error.to_string()))?;
    Ok(nbits)
}

fn check_rules(offer: &Offer<'_>, network: Network) -> Result<(), OfferError> {
    for demanded in offer.rules.iter().filter_map(|rule| rule.strip_prefix('!')) {
        if !RULES_KNOWN.contains(&demanded) {
            return Err(OfferError::Refused(format!(
                "the node's templates demand the rule \"{demanded}\", which this version does not \
                 know: its blocks would be invalid; update ReserveGrid"
            )));
        }
    }
    match offer.signet_challenge {
        Some(TRIVIAL_CHALLENGE) => Ok(()),
        None if network != Network::Signet => Ok(()),
        challenge => Err(OfferError::Refused(format!(
            "the node's signet has the challenge {}: its blocks need a signature that ReserveGrid \
             cannot make; run a signet of your own with -signetchallenge={TRIVIAL_CHALLENGE}",
            challenge.unwrap_or("(none)")
        ))),
    }
}

fn parse<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, OfferError> {
    text.parse().map_err(|_| field(name, text))
}

fn field(name: &str, what: &str) -> OfferError {
    OfferError::Field(format!("{name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{DemoChain, DemoConfig};
    use crate::rpc::Answer;
    use serde_json::{Value, json};
    use work::now::UnixTime;

    /// A node's answer that offers the demo chain's template.
    fn recorded(count: usize) -> (Arc<Template>, Value) {
        let config = DemoConfig { mempool_transactions: count, ..DemoConfig::default() };
        let (chain, _) = DemoChain::new(config, UnixTime(1_790_000_000_000)).unwrap();
        let template = Arc::clone(chain.template());
        let transactions: Vec<Value> = template
            .transactions
            .iter()
            .map(|t| {
                json!({"data": bytes::encode(&t.data), "txid": t.txid, "hash": t.wtxid,
                    "depends": [], "fee": t.fee, "sigops": t.sigops, "weight": t.weight})
            })
            .collect();
        let value = json!({
            "capabilities": ["proposal"], "version": template.version,
            "rules": ["csv", "!segwit", "taproot"], "vbavailable": {}, "vbrequired": 0,
            "previousblockhash": template.tip.prev_hash, "transactions": transactions,
            "coinbaseaux": {}, "coinbasevalue": template.coinbase_value,
            "longpollid": format!("{}17", template.tip.prev_hash), "target": "00",
            "mintime": template.tip.min_ntime, "mutable": ["time", "transactions", "prevblock"],
            "noncerange": "00000000ffffffff", "sigoplimit": 80000, "sizelimit": 4000000,
            "weightlimit": 4000000, "curtime": template.cur_time,
            "bits": format!("{:08x}", template.tip.nbits), "height": template.height,
            "default_witness_commitment": bytes::encode(&template.witness_commitment),
        });
        (template, value)
    }

    fn read(
        interner: &mut Interner,
        value: &Value,
        network: Network,
    ) -> Result<Template, OfferError> {
        let answer = Answer::of(&json!({"result": value, "error": null, "id": 1}).to_string());
        let offer: Offer<'_> = answer.read().unwrap();
        interner.template(&offer, TemplateId(5), network)
    }

    #[test]
    fn the_nodes_answer_is_the_template() {
        for count in [0, 1, 2, 3, 100] {
            let (expected, value) = recorded(count);
            let made = read(&mut Interner::default(), &value, Network::Regtest).unwrap();
            assert_eq!(made.transactions.len(), count);
            let rules = ["csv", "!segwit", "taproot"].map(str::to_owned);
            let rules = Some(Arc::from(rules));
            assert_eq!(made, Template { id: TemplateId(5), rules, ..(*expected).clone() });
        }
    }

    #[test]
    fn transactions_are_shared_with_the_template_before() {
        let (_, value) = recorded(10);
        let mut interner = Interner::default();
        let first = read(&mut interner, &value, Network::Regtest).unwrap();
        let second = read(&mut interner, &value, Network::Regtest).unwrap();
        for (a, b) in first.transactions.iter().zip(second.transactions.iter()) {
            assert!(Arc::ptr_eq(a, b));
        }
    }

    #[test]
    fn what_cannot_be_mined_is_refused() {
        let check = |network, field: &str, value: Value, part: &str| {
            let (_, mut offer) = recorded(3);
            offer[field] = value;
            let error = read(&mut Interner::default(), &offer, network).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        let regtest = Network::Regtest;
        check(regtest, "bits", json!("00000000"), "bits");
        check(regtest, "bits", json!("1d80ffff"), "bits");
        check(regtest, "previousblockhash", json!("ab"), "previousblockhash");
        check(regtest, "default_witness_commitment", json!("6a24"), "default_witness_commitment");
        check(regtest, "transactions", json!([]), "default_witness_commitment");
        check(regtest, "coinbasevalue", json!(1), "coinbasevalue");
        check(regtest, "weightlimit", json!(10), "weightlimit");
        check(regtest, "rules", json!(["csv", "!quantum"]), "\"quantum\"");
        check(regtest, "rules", json!(vec!["csv"; 65]), "rules");
        check(regtest, "rules", json!(["x".repeat(65)]), "rules");
        check(Network::Signet, "signet_challenge", json!("5121ab"), "-signetchallenge=51");
        check(Network::Signet, "height", json!(7), "(none)");
    }

    /// Two entries of one wtxid may differ in what the node says of them, and the next template
    /// would be read with either.
    #[test]
    fn a_transaction_offered_twice_is_refused() {
        let (template, mut offer) = recorded(3);
        let twice = template.transactions.iter().chain([&template.transactions[2]]);
        let commitment = assemble::witness_commitment(twice.map(|t| t.wtxid));
        offer["default_witness_commitment"] = json!(bytes::encode(&commitment));
        let mut last = offer["transactions"][2].clone();
        last["weight"] = json!(last["weight"].as_u64().unwrap() + 4);
        offer["transactions"].as_array_mut().unwrap().push(last);
        let mut interner = Interner::default();
        let error = read(&mut interner, &offer, Network::Regtest).unwrap_err().to_string();
        assert!(error.contains("transactions: one of them twice"), "{error}");
        assert!(interner.known.is_empty());
    }

    #[test]
    fn a_signet_without_signatures_is_mined() {
        let (_, mut offer) = recorded(1);
        offer["signet_challenge"] = json!("51");
        offer["rules"] = json!(["csv", "!segwit", "!signet", "taproot"]);
        assert!(read(&mut Interner::default(), &offer, Network::Signet).is_ok());
        let asked = parameters(Network::Signet, Some("abc"));
        assert_eq!(asked, json!([{"rules": ["segwit", "signet"], "longpollid": "abc"}]));
        assert_eq!(parameters(Network::Main, None), json!([{"rules": ["segwit"]}]));
    }
}
