//! A node's answer to `getblocktemplate`: read or refused; what is read is a template whose path
//! and sums follow from its transactions, and is read the same by whoever has read others before.
//!
//! Input: network U8 (modulo 4), then the `result` of the answer as JSON; more than one, with a
//! newline between them, share their transactions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use source::bitcoind::template::{Interner, Offer};
use work::TemplateId;
use work::payout::Network;
use work::template::merkle_path;

const NETWORKS: [Network; 4] =
    [Network::Main, Network::Testnet4, Network::Signet, Network::Regtest];

/// Answers that are read.
const ANSWERS_MAX: usize = 16;

fuzz_target!(|input: &[u8]| {
    let Some((selector, answers)) = input.split_first() else { return };
    let network = NETWORKS[usize::from(*selector) % NETWORKS.len()];
    let mut interner = Interner::default();
    for answer in answers.split(|byte| *byte == b'\n').take(ANSWERS_MAX) {
        let Ok(offer) = serde_json::from_slice::<Offer<'_>>(answer) else { continue };
        let _ = offer.longpoll_id();
        let Ok(template) = interner.template(&offer, TemplateId(1), network) else { continue };
        assert_eq!(template.merkle_path, merkle_path(&template.transactions));
        assert!(template.total_fees() <= template.coinbase_value);
        let again = interner.template(&offer, TemplateId(1), network);
        assert_eq!(again.as_ref(), Ok(&template));
    }
});
