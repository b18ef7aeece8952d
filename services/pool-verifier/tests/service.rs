//! The service around the protocol: chain sources, pages, log, configuration, the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use pool_verifier::Config;
use pool_verifier::config::{ChainAccess, RpcAuth};
use serde_json::{Value, json};
use work::Decision;
use work::contract::verifier::FromVerifier;
use work::payout::Network;
use world::fixture::{self, Fixture};
use world::*;

#[tokio::test(flavor = "multi_thread")]
async fn ready_only_with_a_chain_of_the_right_network() {
    let world = World::with(None, "").await;
    let body = world.page_when("/readyz", |status, body| status == 503 && body.contains("/chain"));
    assert!(body.await.contains("\"ready\":false"));
    assert_eq!(world.page("/healthz").await.0, 200);
    let mut wrong = fixture::chain();
    wrong.network = Network::Main;
    *world.shown.lock().unwrap() = Some(wrong);
    world.page_when("/readyz", |status, body| status == 503 && body.contains("on main")).await;
    *world.shown.lock().unwrap() = Some(fixture::chain());
    let body = world.page_when("/readyz", |status, _| status == 200).await;
    assert!(body.contains("\"chain_height\":1000"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_counted_shown_and_logged() {
    let world = World::new().await;
    let (good, mut bad) = (Fixture::new(), Fixture::new());
    bad.template.version = 0;
    let mut gateway = world.gateway(1).await;
    gateway.send(&put(&good)).await;
    gateway.send(&propose(&good, 1)).await;
    let first = gateway.verdict().await;
    gateway.send(&propose(&bad, 2)).await;
    let second = gateway.verdict().await;
    let metrics = world.page("/metrics").await.1;
    for line in [
        "reservegrid_verdicts_total{verdict=\"accept\"} 1",
        "reservegrid_verdicts_total{verdict=\"reject\"} 1",
        "reservegrid_verdict_reasons_total{reason_code=\"version_invalid\"} 1",
        "reservegrid_verdict_reasons_total{reason_code=\"tx_malformed\"} 0",
        "reservegrid_verdict_duration_seconds_count{path=\"full\"} 2",
        "reservegrid_verdict_duration_seconds_bucket{path=\"full\",le=\"0.05\"}",
        "reservegrid_verifier_gateways 1",
        "reservegrid_ready{component=\"node\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let shown: Value = serde_json::from_str(&world.page("/verdicts?limit=1").await.1).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 1);
    assert_eq!(shown[0]["verdict"], serde_json::to_value(&second).unwrap());
    world.running.stop().await;
    let text = std::fs::read_to_string(world.folder.path().join("data/verdicts.ndjson")).unwrap();
    let log: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(log.len(), 2);
    assert_eq!(log[0]["verdict"], serde_json::to_value(&first).unwrap());
    assert_eq!(log[1], shown[0]);
    assert_eq!(log[0]["gateway_id"], "gateway-1");
    assert_eq!(log[0]["propose"]["tx_count"], 5);
    // What the log holds is enough to judge again and come to the same.
    let context: policy::Context = serde_json::from_value(log[1]["context"].clone()).unwrap();
    bad.context = context;
    bad.template.propose_id = 2;
    let again = bad.judge().verdict(&bad.template, &bad.policy, second.elapsed_us);
    assert_eq!(again, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_in_force_is_shown() {
    let world = World::new().await;
    let page: Value = serde_json::from_str(&world.page("/policy").await.1).unwrap();
    let policy = Fixture::new().policy;
    assert_eq!(page["policy_hash"], policy.hash());
    assert_eq!(page["canonical"], policy.canonical());
    assert_eq!(page["settings"]["structure.weight_max"], "4000000");
    assert_eq!(page["payouts"][1], json!({ "script": "52", "share": 3 }));
    assert_eq!(page["checks"].as_array().unwrap().len(), policy::CHECKS.len());
}

/// Goal: rules can be exchanged while gateways are connected; a text that cannot be used changes
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_read_again_is_told_to_every_gateway() {
    let world = World::new().await;
    let fixture = Fixture::new();
    let mut gateways = [world.gateway(1).await, world.gateway(2).await];
    gateways[0].accepted(&fixture, 1).await;
    // The same rules, written otherwise, are no other rules.
    world.write_policy(&format!("# a comment\n{}", fixture::POLICY));
    world.running.reload_policy().unwrap();
    gateways[0].quiet().await;
    let strict = fixture.clone().with_policy("[structure]\nweight_max = 1000\n");
    world.write_policy(&strict.policy_text);
    world.running.reload_policy().unwrap();
    for gateway in &mut gateways {
        let FromVerifier::PolicyChanged { policy_version, policy_hash } = gateway.receive().await
        else {
            panic!("no PolicyChanged");
        };
        assert_eq!((&*policy_version, &*policy_hash), ("fixture", strict.policy.hash()));
    }
    gateways[0].send(&propose(&fixture, 2)).await;
    let verdict = gateways[0].verdict().await;
    assert_eq!(verdict.reason_codes, ["weight_exceeded"]);
    assert_eq!(verdict.policy_hash, strict.policy.hash());
    world.write_policy("version = \"broken\"\n[structure]\nweight_max = -1\n");
    let fault = world.running.reload_policy().unwrap_err();
    assert!(fault.contains("policy.toml: line 3") && fault.contains("weight_max"), "{fault}");
    gateways[0].quiet().await;
    assert!(world.page("/policy").await.1.contains(strict.policy.hash()));
    let metrics = world.page("/metrics").await.1;
    for line in ["{result=\"ok\"} 2\n", "{result=\"error\"} 1\n"] {
        let line = format!("reservegrid_verifier_policy_loads_total{line}");
        assert!(metrics.contains(&line), "{metrics}");
    }
    // Who comes now is greeted with the rules in force, and told nothing twice.
    let mut late = world.connect().await;
    late.send(&hello(3, 1)).await;
    let FromVerifier::HelloAck { policy_hash, .. } = late.receive().await else { panic!() };
    assert_eq!(policy_hash, strict.policy.hash());
    late.quiet().await;
}

/// A node of the fixture's chain that lets in one password at a time.
#[derive(Clone)]
struct Node {
    password: Arc<Mutex<String>>,
    height: Arc<Mutex<u32>>,
}

async fn node(State(node): State<Node>, headers: HeaderMap, body: String) -> Response {
    let password = node.password.lock().unwrap().clone();
    let want = base64::engine::general_purpose::STANDARD.encode(format!("__cookie__:{password}"));
    if headers["authorization"] != format!("Basic {want}") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let asked: Vec<Value> = serde_json::from_str(&body).unwrap();
    let height = *node.height.lock().unwrap();
    let chain = fixture::chain();
    let answers: Vec<Value> = asked
        .iter()
        .map(|question| {
            let result = match question["method"].as_str().unwrap() {
                "getblockchaininfo" => json!({
                    "chain": "regtest", "blocks": height, "bestblockhash": chain.tip_hash,
                    "time": chain.tip_time, "mediantime": chain.median_time_past,
                }),
                "getmininginfo" => json!({
                    "blocks": height, "next": { "height": height + 1, "bits": "1e0377ae" },
                }),
                other => panic!("{other}"),
            };
            json!({ "jsonrpc": "2.0", "id": question["id"], "result": result })
        })
        .collect();
    axum::Json(answers).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_comes_from_a_node_whose_cookie_changes() {
    let folder = tempfile::tempdir().unwrap();
    let cookie = folder.path().join(".cookie");
    let fake = Node {
        password: Arc::new(Mutex::new("one".to_owned())),
        height: Arc::new(Mutex::new(fixture::HEIGHT)),
    };
    let url = serve(Router::new().route("/", post(node)).with_state(fake.clone())).await;
    let auth = format!("cookie:{}", cookie.display());
    let lines = format!("chain_rpc_url = \"{url}\"\nchain_rpc_auth = {auth:?}\n");
    let world = World::on(Arc::default(), &lines).await;
    world.page_when("/readyz", |status, body| status == 503 && body.contains(".cookie")).await;
    std::fs::write(&cookie, "__cookie__:other").unwrap();
    world.page_when("/readyz", |status, body| status == 503 && body.contains("401")).await;
    std::fs::write(&cookie, "__cookie__:one").unwrap();
    world.page_when("/readyz", |status, _| status == 200).await;
    let fixture = Fixture::new();
    let mut gateway = world.gateway(1).await;
    gateway.send(&put(&fixture)).await;
    gateway.send(&propose(&fixture, 1)).await;
    assert_eq!(gateway.verdict().await.verdict, Decision::Accept);
    // The node restarts with another cookie, and goes on.
    *fake.password.lock().unwrap() = "two".to_owned();
    std::fs::write(&cookie, "__cookie__:two").unwrap();
    *fake.height.lock().unwrap() += 1;
    let next = format!("\"chain_height\":{}", fixture::HEIGHT + 1);
    world.page_when("/readyz", |status, body| status == 200 && body.contains(&next)).await;
}

#[test]
fn the_shipped_configuration_is_the_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/pool-verifier.toml");
    let shipped = Config::load(&file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let policy = file.with_file_name("policy.toml").canonicalize().unwrap();
    std::fs::copy(policy, folder.path().join("policy.toml")).unwrap();
    let text = "network = \"regtest\"\ndata_dir = \"data/pool-verifier\"\n\
                chain_url = \"http://127.0.0.1:8082/chain\"\n";
    let path = folder.path().join("pool-verifier.toml");
    std::fs::write(&path, text).unwrap();
    let mut minimal = Config::load(&path).unwrap();
    assert_eq!(minimal.policy_path, folder.path().join("policy.toml"));
    minimal.policy_path.clone_from(&shipped.policy_path);
    assert_eq!(minimal, shipped);
}

#[test]
fn configuration_errors_name_file_place_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let check = |lines: &str, words: &[&str]| {
        let path = write_config(folder.path().to_owned(), lines);
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains("pool-verifier.toml"), "{error}");
        for word in words {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
    };
    let url = "chain_url = \"http://127.0.0.1:1/chain\"\n";
    check("", &["chain_url", "exactly one of"]);
    check(&format!("{url}{url}"), &["line 6", "chain_url"]);
    check(&format!("{url}colour = 1\n"), &["line 6, column 1", "colour", "listen_addr"]);
    check(&format!("{url}prevhash_hold_ms = 60001\n"), &["line 6", "60001", "0 to 60000"]);
    check(&format!("{url}chain_rpc_auth = \"a:b\"\n"), &["line 6", "chain_rpc_auth"]);
    check("chain_url = \"127.0.0.1:1\"\n", &["line 5", "http://"]);
    check("chain_rpc_url = \"http://127.0.0.1:1\"\n", &["chain_rpc_auth", "cookie:"]);
    let rpc = "chain_rpc_url = \"http://127.0.0.1:1\"\nchain_rpc_auth = \"secret\"\n";
    check(rpc, &["line 6", "user:password"]);
    let path = write_config(folder.path().to_owned(), rpc);
    assert!(!Config::load(&path).unwrap_err().to_string().contains("secret"));
    let path = write_config(folder.path().to_owned(), &rpc.replace("secret", "me:secret"));
    let config = Config::load(&path).unwrap();
    let auth = RpcAuth::UserPassword("me:secret".to_owned());
    assert_eq!(config.chain, ChainAccess::Rpc { url: "http://127.0.0.1:1".to_owned(), auth });
    assert!(!format!("{config:?}").contains("secret"));
    std::fs::write(folder.path().join("policy.toml"), "version = 1\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("policy.toml: line 1, column 11: version"), "{error}");
}

/// Goal: the program writes its addresses once it listens, and a SIGTERM ends it in order.
#[test]
fn the_program_starts_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let url = "chain_url = \"http://127.0.0.1:1/chain\"\n";
    let path = write_config(folder.path().to_owned(), url);
    let program = env!("CARGO_BIN_EXE_pool-verifier");
    let mut child = Command::new(program)
        .arg("--config")
        .arg(&path)
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("listening")));
    let text = std::fs::read_to_string(folder.path().join("data/addresses.json")).unwrap();
    let addresses: Value = serde_json::from_str(&text).unwrap();
    for key in ["listen_addr", "http_listen_addr"] {
        let address: std::net::SocketAddr = addresses[key].as_str().unwrap().parse().unwrap();
        std::net::TcpStream::connect(address).unwrap();
    }
    let signal = |name: &str| {
        let sent = Command::new("kill").arg(name).arg(child.id().to_string()).status();
        assert!(sent.unwrap().success());
    };
    // It reads its rules again, keeps those it has if it cannot, and goes on.
    let policy = folder.path().join("policy.toml");
    for (text, words) in [
        (fixture::POLICY.replace("fixture", "other"), "policy read"),
        ("version = 1\n".to_owned(), "the rules stay as they were"),
    ] {
        std::fs::write(&policy, text).unwrap();
        signal("-HUP");
        assert!(lines.any(|line| line.unwrap().contains(words)));
    }
    signal("-TERM");
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let missing = folder.path().join("none.toml");
    let failed = Command::new(program).arg("--config").arg(missing).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("none.toml"));
}
