//! Who the coinbase pays: addresses or scripts with their shares (D33).

use std::fmt;
use std::str::FromStr;

use bitcoin::address::{Address, NetworkUnchecked};
use serde::{Deserialize, Serialize};

/// Outputs that `coinbase_outputs` may list; each costs weight in every block.
pub const PAYOUTS_MAX: usize = 64;

/// The chain the gateway works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The one with money on it.
    Main,
    /// Public test chain, BIP94 rules.
    Testnet4,
    /// Test chain whose blocks are signed; here only with the trivial challenge.
    Signet,
    /// Private test chain; the demo chain takes its addresses too.
    Regtest,
}

impl Network {
    /// The name the node reports as `chain` in `getblockchaininfo`.
    pub fn node_name(self) -> &'static str {
        match self {
            Network::Main => "main",
            Network::Testnet4 => "testnet4",
            Network::Signet => "signet",
            Network::Regtest => "regtest",
        }
    }

    /// Blocks between two halvings of the subsidy.
    pub fn halving_interval(self) -> u32 {
        match self {
            Network::Regtest => 150,
            _ => 210_000,
        }
    }

    /// Newly made coins of a block at `height`, satoshi.
    pub fn subsidy(self, height: u32) -> u64 {
        let halvings = height / self.halving_interval();
        if halvings >= 64 { 0 } else { 5_000_000_000 >> halvings }
    }

    fn address_network(self) -> bitcoin::Network {
        match self {
            Network::Main => bitcoin::Network::Bitcoin,
            Network::Testnet4 => bitcoin::Network::Testnet4,
            Network::Signet => bitcoin::Network::Signet,
            Network::Regtest => bitcoin::Network::Regtest,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.node_name())
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Network::Main, Network::Testnet4, Network::Signet, Network::Regtest]
            .into_iter()
            .find(|network| network.node_name() == text)
            .ok_or_else(|| {
                format!("unknown network \"{text}\"; expected main, testnet4, signet or regtest")
            })
    }
}

/// One output that the coinbase pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payout {
    /// The output's script.
    pub script_pubkey: Vec<u8>,
    /// Its part of the whole, relative to the sum of all parts.
    pub share: u32,
}

impl Payout {
    /// From an address of `network`, or from a raw script as `raw:<hex>`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str, share: u32, network: Network) -> Result<Payout, String> {
        if share == 0 {
            return Err(format!("share of \"{text}\" is 0; expected a whole number from 1"));
        }
        if let Some(hex) = text.strip_prefix("raw:") {
            let mut script_pubkey = vec![0; hex.len() / 2];
            faster_hex::hex_decode(hex.as_bytes(), &mut script_pubkey)
                .map_err(|_| format!("\"{text}\" is not raw: and hexadecimal digits"))?;
            return Ok(Payout { script_pubkey, share });
        }
        let address: Address<NetworkUnchecked> =
            text.parse().map_err(|error| format!("\"{text}\" is not an address: {error}"))?;
        let address = address
            .require_network(network.address_network())
            .map_err(|_| format!("\"{text}\" is not an address of {network}"))?;
        Ok(Payout { script_pubkey: address.script_pubkey().into_bytes(), share })
    }

    /// Split `value` satoshi over `payouts` by their shares; the last takes the remainder, so
    /// the parts always add up to `value`.
    pub fn split(payouts: &[Payout], value: u64) -> Vec<u64> {
        let whole: u128 = payouts.iter().map(|payout| u128::from(payout.share)).sum();
        let mut left = value;
        let mut parts: Vec<u64> = payouts
            .iter()
            .map(|payout| {
                let part = u128::from(value) * u128::from(payout.share) / whole.max(1);
                // `part` is at most `value`, which is 64 bits wide.
                let part = u64::try_from(part).unwrap_or(value).min(left);
                left -= part;
                part
            })
            .collect();
        if let Some(last) = parts.last_mut() {
            *last += left;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_takes_the_remainder() {
        let payout = |share| Payout { script_pubkey: vec![0x51], share };
        let payouts = [payout(1), payout(1), payout(1)];
        assert_eq!(Payout::split(&payouts, 100), [33, 33, 34]);
        assert_eq!(Payout::split(&payouts, 0), [0, 0, 0]);
        let uneven = [payout(u32::MAX), payout(1)];
        assert_eq!(
            Payout::split(&uneven, u64::MAX).iter().map(|v| u128::from(*v)).sum::<u128>(),
            u128::from(u64::MAX)
        );
    }

    #[test]
    fn addresses_of_another_chain_are_refused() {
        let bech32 = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
        assert!(Payout::parse(bech32, 1, Network::Regtest).is_ok());
        let error = Payout::parse(bech32, 1, Network::Main).unwrap_err();
        assert!(error.contains("not an address of main"), "{error}");
        assert_eq!(Payout::parse("raw:51", 1, Network::Main).unwrap().script_pubkey, [0x51]);
        assert!(Payout::parse("raw:5", 1, Network::Main).is_err());
        assert!(Payout::parse(bech32, 0, Network::Regtest).is_err());
    }

    #[test]
    fn subsidies_halve() {
        assert_eq!(Network::Main.subsidy(0), 5_000_000_000);
        assert_eq!(Network::Main.subsidy(840_000), 312_500_000);
        assert_eq!(Network::Regtest.subsidy(150), 2_500_000_000);
        assert_eq!(Network::Regtest.subsidy(u32::MAX), 0);
    }
}
