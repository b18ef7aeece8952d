//! A verifier on loopback, a chain to tell it, and gateways to ask it.
#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../../crates/policy/tests/fixture/mod.rs"]
pub mod fixture;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use fixture::Fixture;
use pool_verifier::{Config, Running};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use work::Decision;
use work::contract::chain::Chain;
use work::contract::verifier::{FromVerifier, PROTO, TemplateVerdict, ToVerifier};
use work::payout::Network;

/// Longest wait for anything; a test that takes this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// `future`, or a failed test.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("not in time")
}

/// What `/chain` answers; nothing is 503.
pub type Shown = Arc<Mutex<Option<Chain>>>;

async fn show(State(shown): State<Shown>) -> Response {
    match &*shown.lock().unwrap() {
        Some(chain) => Json(chain).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Serve `router` on a free port and return its base URL.
pub async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A running verifier.
pub struct World {
    pub running: Running,
    pub shown: Shown,
    pub folder: tempfile::TempDir,
}

impl World {
    /// A verifier on the fixture's chain and policy.
    pub async fn new() -> World {
        World::with(Some(fixture::chain()), "").await
    }

    /// A verifier that is shown `chain`, with `lines` added to its configuration.
    pub async fn with(chain: Option<Chain>, lines: &str) -> World {
        let shown: Shown = Arc::new(Mutex::new(chain));
        let router = Router::new().route("/chain", get(show)).with_state(Arc::clone(&shown));
        let url = serve(router).await;
        World::on(shown, &format!("chain_url = \"{url}/chain\"\n{lines}")).await
    }

    /// A verifier with this chain source in its configuration.
    pub async fn on(shown: Shown, lines: &str) -> World {
        World::of(Network::Regtest, shown, lines).await
    }

    /// A verifier on `network`.
    pub async fn of(network: Network, shown: Shown, lines: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = write_config_of(network, folder.path().to_owned(), lines);
        let config = Config::load(&path).unwrap();
        let running = pool_verifier::start(config).await.unwrap();
        World { running, shown, folder }
    }

    pub fn show(&self, change: impl FnOnce(&mut Chain)) {
        change(self.shown.lock().unwrap().as_mut().unwrap());
    }

    /// A gateway that has said nothing yet.
    pub async fn connect(&self) -> Gateway {
        let stream = TcpStream::connect(self.running.listen_addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (read, write) = stream.into_split();
        Gateway { read: BufReader::new(read), write }
    }

    /// A gateway that was let in.
    pub async fn gateway(&self, instance_id: u16) -> Gateway {
        self.gateway_on(Network::Regtest, instance_id).await
    }

    /// A gateway on `network` that was let in.
    pub async fn gateway_on(&self, network: Network, instance_id: u16) -> Gateway {
        let mut gateway = self.connect().await;
        gateway.send(&hello_on(network, instance_id, 1)).await;
        let answer = gateway.receive().await;
        assert!(matches!(answer, FromVerifier::HelloAck { .. }), "{answer:?}");
        gateway
    }

    /// Status and JSON of one of the verifier's pages.
    pub async fn page(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.running.http_listen_addr);
        let asked = tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false).build();
            let mut answer = ureq::Agent::new_with_config(config).get(url).call().unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
        });
        soon(asked).await.unwrap()
    }

    /// A page once `wanted` holds for it.
    pub async fn page_when(&self, path: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        soon(async {
            loop {
                let (status, body) = self.page(path).await;
                if wanted(status, &body) {
                    return body;
                }
            }
        })
        .await
    }

    /// Write another policy where the verifier reads it.
    pub fn write_policy(&self, text: &str) {
        std::fs::write(self.folder.path().join("policy.toml"), text).unwrap();
    }
}

/// Configuration and policy in `folder`; the configuration's path.
pub fn write_config(folder: PathBuf, lines: &str) -> PathBuf {
    write_config_of(Network::Regtest, folder, lines)
}

/// The same for another network.
pub fn write_config_of(network: Network, folder: PathBuf, lines: &str) -> PathBuf {
    let data = folder.join("data");
    let text = format!(
        "listen_addr = \"127.0.0.1:0\"\nhttp_listen_addr = \"127.0.0.1:0\"\n\
         network = \"{network}\"\ndata_dir = {data:?}\n{lines}"
    );
    std::fs::write(folder.join("policy.toml"), fixture::POLICY).unwrap();
    let path = folder.join("pool-verifier.toml");
    std::fs::write(&path, text).unwrap();
    path
}

pub fn hello(instance_id: u16, epoch: u16) -> ToVerifier {
    hello_on(Network::Regtest, instance_id, epoch)
}

pub fn hello_on(network: Network, instance_id: u16, epoch: u16) -> ToVerifier {
    ToVerifier::Hello {
        proto: PROTO,
        gateway_id: format!("gateway-{instance_id}"),
        network,
        instance_id,
        epoch,
    }
}

/// A line with its newline.
pub fn line(message: &ToVerifier) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap();
    line.push(b'\n');
    line
}

/// The proposal of `fixture` under another id.
pub fn propose(fixture: &Fixture, propose_id: u64) -> ToVerifier {
    let mut template = fixture.template.clone();
    template.propose_id = propose_id;
    ToVerifier::TemplatePropose(Box::new(template))
}

pub fn put(fixture: &Fixture) -> ToVerifier {
    ToVerifier::TxPut { txs: fixture.transactions.clone() }
}

/// A gateway's side of a connection.
pub struct Gateway {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Gateway {
    pub async fn send(&mut self, message: &ToVerifier) {
        self.send_bytes(&line(message)).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        soon(self.write.write_all(bytes)).await.unwrap();
    }

    /// Send to a verifier that may close meanwhile.
    pub async fn try_send(&mut self, message: &ToVerifier) -> std::io::Result<()> {
        soon(self.write.write_all(&line(message))).await
    }

    /// The next line, or nothing if the verifier has closed.
    pub async fn next(&mut self) -> Option<FromVerifier> {
        let mut line = String::new();
        match soon(self.read.read_line(&mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect(&line)),
        }
    }

    pub async fn receive(&mut self) -> FromVerifier {
        self.next().await.expect("closed")
    }

    pub async fn verdict(&mut self) -> TemplateVerdict {
        match self.receive().await {
            FromVerifier::TemplateVerdict(verdict) => *verdict,
            other => panic!("{other:?}"),
        }
    }

    /// The code and proposal of the next line, which is an error.
    pub async fn error(&mut self) -> (String, Option<u64>) {
        match self.receive().await {
            FromVerifier::Error { code, propose_id, .. } => (code, propose_id),
            other => panic!("{other:?}"),
        }
    }

    /// `fixture` is judged and accepted, whatever else is going on.
    pub async fn accepted(&mut self, fixture: &Fixture, propose_id: u64) {
        self.send(&put(fixture)).await;
        self.send(&propose(fixture, propose_id)).await;
        let verdict = self.verdict().await;
        assert_eq!(verdict.propose_id, propose_id);
        assert_eq!(verdict.verdict, Decision::Accept, "{verdict:?}");
    }

    /// Everything sent so far was read, and nothing but the answer to this came back.
    pub async fn quiet(&mut self) {
        self.send(&ToVerifier::Ping { t: 77 }).await;
        assert_eq!(self.receive().await, FromVerifier::Pong { t: 77 });
    }
}
