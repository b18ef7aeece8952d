//! What a ruling rests on besides the proposal and the policy. It is stored with each verdict,
//! so that a replay sees what the verifier saw.

use serde::{Deserialize, Serialize};
use work::contract::chain::Chain;
use work::payout::Network;

/// The world at the moment of judging.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The chain as the verifier's own source tells it (D36), never as the proposer does.
    pub chain: Chain,
    /// Unix time in seconds.
    pub now_seconds: u64,
    /// The chain this verifier is configured for.
    pub network: Network,
    /// Milliseconds since this verifier first saw the tip.
    pub tip_age_ms: u64,
}

impl Context {
    /// Whether `chain` is of the configured network; if not, no check rests on it.
    pub fn is_usable(&self) -> bool {
        self.chain.network == self.network
    }
}
