//! The chain's facts from a node of our own, by JSON-RPC.
//!
//! One batch asks for `getblockchaininfo` and `getmininginfo`, whose `next` has the bits of the
//! next block, right at retargets (Core 29 and later). On testnet4 those are bits for the moment
//! of asking: twenty minutes after the tip they are the least there are. What holds for blocks
//! before that is then read from the first block of the period, whose bits never follow that rule.
#![allow(clippy::disallowed_methods, reason = "driver: reads the cookie file and talks HTTP")]

use base64::Engine as _;
use serde::Deserialize;
use work::BlockHash;
use work::contract::chain::{CHAIN_TIPS_MAX, Chain};
use work::payout::Network;

use crate::config::RpcAuth;
use crate::limits::CHAIN_ANSWER_BYTES_MAX;

/// Blocks between two retargets.
const RETARGET_BLOCKS: u32 = 2_016;

/// The same on regtest: a day of blocks (nodes of some years ago counted a multiple of it).
const RETARGET_BLOCKS_REGTEST: u32 = 144;

/// Bits of the least difficulty on testnet4.
const LEAST_DIFFICULTY_NBITS: u32 = 0x1d00_ffff;

/// Seconds by which the first block after a retarget may lie before its parent (BIP94).
const TIMEWARP_SECONDS: u32 = 600;

/// A connection to one node.
#[derive(Debug)]
pub struct Node {
    agent: ureq::Agent,
    url: String,
    auth: RpcAuth,
    authorization: Option<String>,
    recent_tips: Vec<BlockHash>,
    /// On testnet4 the bits of the period that the block after this tip belongs to.
    period: Option<(BlockHash, u32)>,
}

#[derive(Deserialize)]
struct Answer {
    id: u32,
    result: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct BlockchainInfo {
    chain: String,
    blocks: u32,
    bestblockhash: BlockHash,
    time: u32,
    mediantime: u32,
}

#[derive(Deserialize)]
struct MiningInfo {
    /// Nodes before version 29 do not say.
    next: Option<Next>,
}

#[derive(Deserialize)]
struct Next {
    height: u32,
    bits: String,
}

#[derive(Deserialize)]
struct Header {
    bits: String,
}

const BATCH: &str = r#"[{"jsonrpc":"2.0","id":0,"method":"getblockchaininfo","params":[]},
{"jsonrpc":"2.0","id":1,"method":"getmininginfo","params":[]}]"#;

/// A batch of one question.
fn question(method: &str, parameter: impl serde::Serialize) -> String {
    let question = serde_json::json!({
        "jsonrpc": "2.0", "id": 0, "method": method, "params": [parameter],
    });
    format!("[{question}]")
}

enum Refusal {
    Unauthorized,
    Other(String),
}

impl Node {
    /// The node at `url`.
    pub fn new(agent: ureq::Agent, url: String, auth: RpcAuth) -> Node {
        Node { agent, url, auth, authorization: None, recent_tips: Vec::new(), period: None }
    }

    /// The chain as the node sees it now.
    ///
    /// # Errors
    /// One sentence.
    pub fn chain(&mut self) -> Result<Chain, String> {
        let mut answers = self.answers(BATCH)?;
        let info: BlockchainInfo = result(&mut answers, 0, "getblockchaininfo")?;
        let mining: MiningInfo = result(&mut answers, 1, "getmininginfo")?;
        let Some(next) = &mining.next else {
            return Err("getmininginfo: no next: the bits of the next block are needed, which \
                        nodes tell from version 29 on"
                .to_owned());
        };
        if next.height != info.blocks.saturating_add(1) {
            return Err("the tip changed between two answers of the node".to_owned());
        }
        let network = network_of(&info.chain)?;
        let bits = nbits(&next.bits, "getmininginfo: next.bits")?;
        let is_eased = network == Network::Testnet4
            && bits == LEAST_DIFFICULTY_NBITS
            && !is_retarget(network, next.height);
        let bits = if is_eased { self.period_nbits(&info, next.height)? } else { bits };
        Ok(self.assemble(network, &info, bits))
    }

    /// The bits that hold for the block at `height` if it comes within twenty minutes: those of
    /// the first block of its period. Asked for once for each tip.
    fn period_nbits(&mut self, info: &BlockchainInfo, height: u32) -> Result<u32, String> {
        if let Some((tip, bits)) = self.period
            && tip == info.bestblockhash
        {
            return Ok(bits);
        }
        let first = height - height % RETARGET_BLOCKS;
        let mut answers = self.answers(&question("getblockhash", first))?;
        let hash: BlockHash = result(&mut answers, 0, "getblockhash")?;
        let mut answers = self.answers(&question("getblockheader", hash))?;
        let header: Header = result(&mut answers, 0, "getblockheader")?;
        let bits = nbits(&header.bits, "getblockheader: bits")?;
        self.period = Some((info.bestblockhash, bits));
        Ok(bits)
    }

    fn assemble(&mut self, network: Network, info: &BlockchainInfo, next_nbits: u32) -> Chain {
        let after_median = info.mediantime.saturating_add(1);
        let next_min_time = if is_retarget(network, info.blocks.saturating_add(1)) {
            after_median.max(info.time.saturating_sub(TIMEWARP_SECONDS))
        } else {
            after_median
        };
        self.recent_tips.retain(|tip| *tip != info.bestblockhash);
        self.recent_tips.insert(0, info.bestblockhash);
        self.recent_tips.truncate(CHAIN_TIPS_MAX);
        Chain {
            network,
            demo: false,
            tip_hash: info.bestblockhash,
            height: info.blocks,
            tip_time: info.time,
            median_time_past: info.mediantime,
            next_nbits,
            next_min_time,
            recent_tips: self.recent_tips.clone(),
        }
    }

    /// Answers to `batch`, with credentials read again if they are refused.
    fn answers(&mut self, batch: &str) -> Result<Vec<Answer>, String> {
        let answers = match self.ask(batch) {
            // The node writes a new cookie at every start.
            Err(Refusal::Unauthorized) => {
                self.authorization = None;
                self.ask(batch)
            }
            answers => answers,
        };
        answers.map_err(|refusal| match refusal {
            Refusal::Unauthorized => {
                "the node refuses our credentials (401): check chain_rpc_auth".to_owned()
            }
            Refusal::Other(fault) => fault,
        })
    }

    fn ask(&mut self, batch: &str) -> Result<Vec<Answer>, Refusal> {
        if self.authorization.is_none() {
            self.authorization = Some(self.authorization().map_err(Refusal::Other)?);
        }
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let answer = self
            .agent
            .post(&self.url)
            .header("Authorization", authorization)
            .header("Content-Type", "application/json")
            .send(batch);
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(ureq::Error::StatusCode(401)) => return Err(Refusal::Unauthorized),
            Err(error) => return Err(Refusal::Other(format!("node at {}: {error}", self.url))),
        };
        let body = answer.body_mut().with_config().limit(CHAIN_ANSWER_BYTES_MAX);
        body.read_json().map_err(|error| Refusal::Other(format!("node at {}: {error}", self.url)))
    }

    fn authorization(&self) -> Result<String, String> {
        let credentials = match &self.auth {
            RpcAuth::UserPassword(credentials) => credentials.clone(),
            RpcAuth::Cookie(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cookie {}: {error}", path.display()))?,
        };
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials.trim());
        Ok(format!("Basic {encoded}"))
    }
}

fn is_retarget(network: Network, height: u32) -> bool {
    let regtest = network == Network::Regtest;
    height.is_multiple_of(if regtest { RETARGET_BLOCKS_REGTEST } else { RETARGET_BLOCKS })
}

fn nbits(digits: &str, name: &str) -> Result<u32, String> {
    u32::from_str_radix(digits, 16).map_err(|_| format!("{name} is {digits:?}"))
}

fn network_of(name: &str) -> Result<Network, String> {
    name.parse().map_err(|fault| format!("getblockchaininfo: {fault}"))
}

fn result<T: serde::de::DeserializeOwned>(
    answers: &mut [Answer],
    id: u32,
    method: &str,
) -> Result<T, String> {
    let answer = answers
        .iter_mut()
        .find(|answer| answer.id == id)
        .ok_or_else(|| format!("{method}: the node did not answer it"))?;
    if let Some(error) = &answer.error {
        return Err(format!("{method}: {error}"));
    }
    let value = answer.result.take().unwrap_or_default();
    serde_json::from_value(value).map_err(|error| format!("{method}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(network: Network, blocks: u32) -> Chain {
        let auth = RpcAuth::UserPassword(String::new());
        let mut node = Node::new(ureq::Agent::new_with_defaults(), String::new(), auth);
        let info = BlockchainInfo {
            chain: network.to_string(),
            blocks,
            bestblockhash: BlockHash([1; 32]),
            time: 10_000,
            mediantime: 5_000,
        };
        node.assemble(network, &info, 0x1d00_ffff)
    }

    #[test]
    fn the_first_block_of_a_period_is_bound_to_its_parent() {
        let ordinary = chain(Network::Testnet4, 2_014);
        assert_eq!((ordinary.next_min_time, ordinary.next_nbits), (5_001, 0x1d00_ffff));
        assert_eq!(chain(Network::Testnet4, 2_015).next_min_time, 9_400);
        assert_eq!(chain(Network::Regtest, 143).next_min_time, 9_400);
        assert_eq!(chain(Network::Main, 143).next_min_time, 5_001);
        assert_eq!(ordinary.network, Network::Testnet4);
        assert_eq!(ordinary.recent_tips, [ordinary.tip_hash]);
    }
}
