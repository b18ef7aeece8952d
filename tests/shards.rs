//! Several shards: each with its listener on one port, its own prefixes, and its part of the
//! limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

mod stack;

use std::collections::BTreeMap;

use serde_json::json;
use stack::client::Client;
use stack::{PATIENCE, Settings, Stack, wait_until};

/// Easy enough that a share is found at once.
const EXPONENT: u32 = 24;

/// Goal: the kernel spreads miners over the shards (D47), each shard gives prefixes of its own
/// (D23), and a new tip reaches all of them.
/// Method: 48 miners on three shards; the fifth byte of a prefix is the shard's number.
#[test]
fn three_shards_share_one_port() {
    let mut settings = Settings::demo("1d00ffff");
    settings.gateway = json!({ "cores": { "shards": [0, 1, 0] } });
    let stack = Stack::start(&settings);
    let address = stack.gateway.address("listen_addr");
    let authority = stack.gateway.address("authority_pubkey");
    let mut by_shard: BTreeMap<u8, Vec<Client>> = BTreeMap::new();
    let mut prefixes = BTreeMap::new();
    for number in 0..48 {
        let mut client = Client::connect(&address, &authority);
        let channel_id = client.open(&format!("miner{number}"), EXPONENT);
        let prefix = client.channels[&channel_id].extranonce[..8].to_vec();
        let shard = prefix[4];
        assert!(prefixes.insert(prefix, number).is_none(), "a prefix twice");
        by_shard.entry(shard).or_default().push(client);
    }
    let spread: Vec<(u8, usize)> =
        by_shard.iter().map(|(shard, clients)| (*shard, clients.len())).collect();
    println!("miners by shard: {spread:?}");
    assert_eq!(by_shard.len(), 3, "every shard has miners: {spread:?}");
    let tips: BTreeMap<_, _> = by_shard
        .values()
        .flatten()
        .flat_map(|client| client.channels.values())
        .map(|channel| (channel.extranonce.clone(), channel.tip))
        .collect();
    stack.demo_block();
    for client in by_shard.values_mut().flatten() {
        let channel_id = *client.channels.keys().next().unwrap();
        let before = tips[&client.channels[&channel_id].extranonce];
        client.wait_until("the new tip", |client| client.channels[&channel_id].tip != before);
        let share = client
            .work(channel_id)
            .grind(0, |hash| client.channels[&channel_id].target.is_met_by(hash));
        assert_eq!(client.answer(&share), Ok(()));
    }
    wait_until("all shares at the backend", PATIENCE, || stack.backend_shares() == 48);
}

/// Goal: the limit on all connections holds over the shards together.
/// Method: more miners than the limit; those beyond it are closed without an answer, the others
/// stay, and a place that falls free is taken.
#[test]
fn the_limit_is_one_for_all_shards() {
    let mut settings = Settings::demo("1d00ffff");
    settings.gateway = json!({
        "gateway": { "max_connections": 20 },
        "cores": { "shards": [0, 1] },
    });
    let stack = Stack::start(&settings);
    let address = stack.gateway.address("listen_addr");
    let authority = stack.gateway.address("authority_pubkey");
    let mut clients = Vec::new();
    let mut refused = 0;
    for _ in 0..60 {
        match Client::try_connect(&address, &authority) {
            Ok(client) => clients.push(client),
            Err(_) => refused += 1,
        }
    }
    // The kernel picks the shard, so one may be full before the other.
    assert!(clients.len() <= 20, "{} connections", clients.len());
    assert!(clients.len() >= 10, "{} connections", clients.len());
    assert_eq!(clients.len() + refused, 60);
    wait_until("the refused ones are counted", PATIENCE, || {
        stack.gateway.metric("connections_refused_total{cause=\"limit\"}") == refused as f64
    });
    for client in &mut clients {
        client.open("miner", EXPONENT);
    }
}
