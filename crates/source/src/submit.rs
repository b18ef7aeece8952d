//! Taking a found block to a node, on a connection of its own (D14, D18).
//!
//! Nothing here is shared with whoever fetches templates: a node that is busy with a template
//! or a broken connection there does not delay a block.

use std::fmt;
use std::time::Duration;

use work::contract::feed::NodeAccess;

use crate::rpc::{RpcClient, RpcError};

/// Time for one attempt: a full block takes a node 0.1 s, a busy one much longer.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node said to a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmitAnswer {
    /// It is the new tip.
    Accepted,
    /// The node had it already.
    Duplicate,
    /// Valid as far as checked, but not the best block (a sibling of the tip). No rejection.
    Inconclusive,
    /// Refused, in the node's words; `prev-blk-not-found` is worth another attempt (D18).
    Rejected(String),
    /// No answer: worth another attempt. The block may have arrived nonetheless.
    Unreachable(String),
}

impl SubmitAnswer {
    /// Its name in metrics and events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Inconclusive => "inconclusive",
            Self::Rejected(_) => "rejected",
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// Whether another attempt at the same node may go better (D18).
    pub fn is_worth_repeating(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Rejected(word) => word == "prev-blk-not-found",
            _ => false,
        }
    }

    /// From `submitblock`'s result: null or a word.
    pub fn from_word(word: Option<&str>) -> SubmitAnswer {
        match word {
            None => Self::Accepted,
            Some("duplicate") => Self::Duplicate,
            Some("inconclusive" | "duplicate-inconclusive") => Self::Inconclusive,
            Some(word) => Self::Rejected(word.to_owned()),
        }
    }
}

impl fmt::Display for SubmitAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(why) | Self::Unreachable(why) => write!(f, "{}: {why}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}

/// Give the block with these hexadecimal digits to `node`, on a new connection.
///
/// Blocks the calling thread for at most half a minute (a minute if the connection breaks and
/// the request is sent again); use a thread for each node.
pub fn submit_block(node: &NodeAccess, hex: &str) -> SubmitAnswer {
    let mut client = match RpcClient::new(node, SUBMIT_TIMEOUT) {
        Ok(client) => client,
        Err(why) => return SubmitAnswer::Unreachable(why),
    };
    match client.call::<Option<String>>("submitblock", serde_json::json!([hex])) {
        Ok(word) => SubmitAnswer::from_word(word.as_deref()),
        // A node that loads its chain will take the block later.
        Err(error) if error.is_warming_up() => SubmitAnswer::Unreachable(error.to_string()),
        Err(RpcError::Node { code, message }) => {
            SubmitAnswer::Rejected(format!("{message} (error {code})"))
        }
        Err(error) => SubmitAnswer::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_node() {
        assert_eq!(SubmitAnswer::from_word(None), SubmitAnswer::Accepted);
        assert_eq!(SubmitAnswer::from_word(Some("duplicate")), SubmitAnswer::Duplicate);
        for word in ["inconclusive", "duplicate-inconclusive"] {
            assert_eq!(SubmitAnswer::from_word(Some(word)), SubmitAnswer::Inconclusive);
        }
        let rejected = SubmitAnswer::from_word(Some("high-hash"));
        assert_eq!(rejected, SubmitAnswer::Rejected("high-hash".into()));
        assert!(!rejected.is_worth_repeating());
        assert!(SubmitAnswer::from_word(Some("prev-blk-not-found")).is_worth_repeating());
    }

    #[test]
    fn a_node_that_is_not_there_is_unreachable() {
        // Nothing listens on a port that was just given back.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let answer = submit_block(&NodeAccess { url, auth: None }, "00");
        assert!(matches!(answer, SubmitAnswer::Unreachable(_)), "{answer}");
    }
}
