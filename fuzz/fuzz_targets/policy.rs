//! policy.toml: any text is a policy or an error that says where; the canonical form of a policy
//! is the same however often it is asked for, and so is its hash.
//!
//! Input: the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::Policy;
use work::payout::Network;

fuzz_target!(|text: &str| {
    match Policy::parse(text, Network::Regtest) {
        Ok(policy) => {
            let again = Policy::parse(text, Network::Regtest).expect("it was one before");
            assert_eq!(policy.canonical(), again.canonical());
            assert_eq!(policy.hash(), again.hash());
            assert!(policy.hash().starts_with("sha256:"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
