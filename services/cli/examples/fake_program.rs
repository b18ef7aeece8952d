//! A stand-in for any of the demo's five programs, for the tests of the demo's own behaviour. It
//! takes the name it was started by, and does what the file `NAME.behaviour` beside it says:
//! `fail` ends at once, `deaf` ignores SIGTERM, `unready` never becomes ready, `die` ends when a
//! file `NAME.die` appears.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let program = PathBuf::from(&arguments[0]);
    let name = program.file_name().unwrap().to_str().unwrap().to_owned();
    let beside = program.parent().unwrap().to_owned();
    let behaviour =
        std::fs::read_to_string(beside.join(format!("{name}.behaviour"))).unwrap_or_default();
    eprintln!("{name} {}", std::process::id());
    if behaviour == "fail" {
        eprintln!("the reason why {name} failed");
        std::process::exit(3);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(&name, &beside, &arguments, behaviour));
}

async fn serve(name: &str, beside: &Path, arguments: &[String], behaviour: String) {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    if name != "loadgen" {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ready = if behaviour == "unready" { 503 } else { 200 };
        let ready = StatusCode::from_u16(ready).unwrap();
        let router = Router::new()
            .route("/readyz", get(move || async move { (ready, "no node answers") }))
            .route("/metrics", get(metrics))
            .route("/chain", get(chain))
            .route("/status", get(status));
        tokio::spawn(axum::serve(listener, router).into_future());
        let folder = data_dir(arguments);
        std::fs::create_dir_all(&folder).unwrap();
        let text = json!({ "listen_addr": address, "http_listen_addr": address,
            "authority_pubkey": "9key" });
        std::fs::write(folder.join("addresses.json.new"), text.to_string()).unwrap();
        std::fs::rename(folder.join("addresses.json.new"), folder.join("addresses.json")).unwrap();
    }
    if name == "loadgen" {
        let flag = arguments.iter().position(|argument| argument == "--json").unwrap();
        std::fs::write(&arguments[flag + 1], r#"{"is_final": true, "failed": false}"#).unwrap();
    }
    let die = beside.join(format!("{name}.die"));
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                eprintln!("{name} was asked to stop");
                if behaviour != "deaf" {
                    return;
                }
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                if behaviour == "die" && die.exists() {
                    eprintln!("the reason why {name} died");
                    std::process::exit(7);
                }
            }
        }
    }
}

async fn metrics() -> &'static str {
    "reservegrid_shares_total{reason_code=\"ok\"} 42\n\
     reservegrid_shares_total{reason_code=\"stale_share\"} 1\n\
     reservegrid_connections{state=\"open\"} 24\n"
}

/// A chain that grows by a block at every look.
async fn chain() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static HEIGHT: AtomicU32 = AtomicU32::new(100);
    let height = HEIGHT.fetch_add(1, Ordering::Relaxed);
    json!({ "network": "regtest", "demo": true, "tip_hash": format!("{height:064x}"),
        "height": height, "tip_time": 0, "median_time_past": 0, "next_nbits": 0,
        "next_min_time": 0, "recent_tips": [] })
    .to_string()
}

async fn status() -> String {
    json!({ "shares": 42, "duplicates": 0, "batches": 3, "blocks": 1, "work": "1000" }).to_string()
}

/// `--data-dir` of the command line, or `data_dir` of the file after `--config`.
fn data_dir(arguments: &[String]) -> PathBuf {
    let after = |flag: &str| {
        let place = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(place + 1)
    };
    if let Some(folder) = after("--data-dir") {
        return folder.into();
    }
    let text = std::fs::read_to_string(after("--config").unwrap()).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let section = table.get("gateway").and_then(|section| section.get("data_dir"));
    section.or_else(|| table.get("data_dir")).unwrap().as_str().unwrap().into()
}
