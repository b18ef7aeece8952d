//! The chain's facts from a node of our own, by JSON-RPC.
//!
//! One batch asks for `getblockchaininfo` and `getmininginfo`, whose `next` has the bits of the
//! next block, right at retargets and on testnet4 (Core 29 and later).
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
    next: Next,
}

#[derive(Deserialize)]
struct Next {
    height: u32,
    bits: String,
}

const BATCH: &str = r#"[{"jsonrpc":"2.0","id":0,"method":"getblockchaininfo","params":[]},
{"jsonrpc":"2.0","id":1,"method":"getmininginfo","params":[]}]"#;

enum Refusal {
    Unauthorized,
    Other(String),
}

impl Node {
    /// The node at `url`.
    pub fn new(agent: ureq::Agent, url: String, auth: RpcAuth) -> Node {
        Node { agent, url, auth, authorization: None, recent_tips: Vec::new() }
    }

    /// The chain as the node sees it now.
    ///
    /// # Errors
    /// One sentence.
    pub fn chain(&mut self) -> Result<Chain, String> {
        let answers = match self.ask() {
            // The node writes a new cookie at every start.
            Err(Refusal::Unauthorized) => {
                self.authorization = None;
                self.ask()
            }
            answers => answers,
        };
        let mut answers = answers.map_err(|refusal| match refusal {
            Refusal::Unauthorized => {
                "the node refuses our credentials (401): check chain_rpc_auth".to_owned()
            }
            Refusal::Other(fault) => fault,
        })?;
        let info: BlockchainInfo = result(&mut answers, 0, "getblockchaininfo")?;
        let mining: MiningInfo = result(&mut answers, 1, "getmininginfo")?;
        self.assemble(&info, &mining.next)
    }

    fn assemble(&mut self, info: &BlockchainInfo, next: &Next) -> Result<Chain, String> {
        let network = network_of(&info.chain)?;
        if next.height != info.blocks.saturating_add(1) {
            return Err("the tip changed between two answers of the node".to_owned());
        }
        let next_nbits = u32::from_str_radix(&next.bits, 16)
            .map_err(|_| format!("getmininginfo: next.bits is {:?}", next.bits))?;
        let after_median = info.mediantime.saturating_add(1);
        let next_min_time = if next.height.is_multiple_of(RETARGET_BLOCKS) {
            after_median.max(info.time.saturating_sub(TIMEWARP_SECONDS))
        } else {
            after_median
        };
        self.recent_tips.retain(|tip| *tip != info.bestblockhash);
        self.recent_tips.insert(0, info.bestblockhash);
        self.recent_tips.truncate(CHAIN_TIPS_MAX);
        Ok(Chain {
            network,
            demo: false,
            tip_hash: info.bestblockhash,
            height: info.blocks,
            tip_time: info.time,
            median_time_past: info.mediantime,
            next_nbits,
            next_min_time,
            recent_tips: self.recent_tips.clone(),
        })
    }

    fn ask(&mut self) -> Result<Vec<Answer>, Refusal> {
        if self.authorization.is_none() {
            self.authorization = Some(self.authorization().map_err(Refusal::Other)?);
        }
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let answer = self
            .agent
            .post(&self.url)
            .header("Authorization", authorization)
            .header("Content-Type", "application/json")
            .send(BATCH);
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

    fn chain(blocks: u32, next: u32) -> Result<Chain, String> {
        let auth = RpcAuth::UserPassword(String::new());
        let mut node = Node::new(ureq::Agent::new_with_defaults(), String::new(), auth);
        let info = BlockchainInfo {
            chain: "testnet4".to_owned(),
            blocks,
            bestblockhash: BlockHash([1; 32]),
            time: 10_000,
            mediantime: 5_000,
        };
        node.assemble(&info, &Next { height: next, bits: "1d00ffff".to_owned() })
    }

    #[test]
    fn the_first_block_of_a_period_is_bound_to_its_parent() {
        let ordinary = chain(2_014, 2_015).unwrap();
        assert_eq!((ordinary.next_min_time, ordinary.next_nbits), (5_001, 0x1d00_ffff));
        assert_eq!(chain(2_015, 2_016).unwrap().next_min_time, 9_400);
        assert_eq!(ordinary.network, Network::Testnet4);
        assert_eq!(ordinary.recent_tips, [ordinary.tip_hash]);
    }

    #[test]
    fn answers_of_two_moments_are_not_mixed() {
        assert!(chain(2_014, 2_016).unwrap_err().contains("between two answers"));
    }
}
