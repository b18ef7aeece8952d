//! The whole product as real processes on loopback: what the end-to-end tests share.
//!
//! [`Stack`] starts template-manager, pool-verifier, reference-backend and the gateway in a folder
//! of its own, each on free ports, and ends them by their process numbers. Beside it: a real
//! Bitcoin node ([`node`]), the reference implementation's miner ([`device`]) and a miner that is
//! steered by hand ([`client`]).
#![allow(dead_code, reason = "each test file uses its part")]

pub mod client;
pub mod device;
pub mod events;
pub mod faulty_backend;
pub mod load;
pub mod node;
pub mod process;
pub mod proof;
pub mod surgery;
pub mod sv1_miner;
pub mod translator;
pub mod truth;
pub mod untrusted;
pub mod volume;
pub mod witness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sv2::AuthorityKey;

use client::Client;
use node::Node;
use process::Process;

/// Longest wait for anything that is not said to take long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// P2WSH of OP_TRUE: pays a script that anyone may spend, and is good on every chain.
pub const PAYOUT: &str = "raw:00204ae81572f06e1b88fd5ced7a1a000945432e83e1551e6f721ee9c00b8cc33260";

/// Shares a minute that channels aim at unless a test says otherwise.
pub const SHARES_PER_MINUTE: f64 = 60.0;

/// Ask again and again until there is an answer.
pub fn wait_for<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        std::thread::park_timeout(LOOK_INTERVAL);
    }
}

/// [`wait_for`] a condition.
pub fn wait_until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, patience, || holds().then_some(()));
}

/// A program of this workspace. Cargo builds the gateway for these tests by itself, and the other
/// programs only when the whole workspace is tested.
pub fn program(name: &str) -> PathBuf {
    let gateway = Path::new(env!("CARGO_BIN_EXE_sv2-gateway"));
    let path = gateway.with_file_name(name);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace` first (`cargo test --workspace` does), \
         with the same profile as these tests",
        path.display()
    );
    path
}

/// `GET url`: status and body; `None` if nobody answers.
pub fn get(url: &str) -> Option<(u16, String)> {
    let mut response = agent().get(url).call().ok()?;
    let text = response.body_mut().read_to_string().ok()?;
    Some((response.status().as_u16(), text))
}

/// `POST url` with a JSON body: status and body; `None` if nobody answers.
pub fn post(url: &str, body: &Value) -> Option<(u16, String)> {
    let mut response = agent().post(url).send_json(body).ok()?;
    let text = response.body_mut().read_to_string().ok()?;
    Some((response.status().as_u16(), text))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        .http_status_as_error(false)
        .max_idle_connections(0)
        .proxy(None)
        .build()
        .into()
}

/// Put the keys of `over` into `base`, tables within tables.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Samples of an exposition by their name and labels as they are written.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line:?}")))
        })
        .collect()
}

/// One of our services: its configuration, its process while it runs, its addresses.
pub struct Service {
    name: &'static str,
    data_dir: PathBuf,
    config: PathBuf,
    log: PathBuf,
    flags: Vec<String>,
    process: Option<Process>,
    addresses: Value,
    descriptors_max: Option<u64>,
}

impl Service {
    fn new(folder: &Path, name: &'static str) -> Service {
        Service {
            name,
            data_dir: folder.join(name),
            config: folder.join(format!("{name}.toml")),
            log: folder.join(format!("{name}.log")),
            flags: Vec::new(),
            process: None,
            addresses: Value::Null,
            descriptors_max: None,
        }
    }

    /// A service that is told everything by a TOML file.
    pub fn with_config(folder: &Path, name: &'static str, config: &Value) -> Service {
        let mut service = Service::new(folder, name);
        service.configure(config);
        service.flags = vec!["--config".into(), service.config.display().to_string()];
        service
    }

    /// Write its configuration; it holds from the next start on.
    pub fn configure(&mut self, config: &Value) {
        std::fs::write(&self.config, toml::to_string(config).unwrap()).unwrap();
    }

    /// Let its next processes have no more than this many descriptors.
    pub fn limit_descriptors(&mut self, most: u64) {
        self.descriptors_max = Some(most);
    }

    /// Start the process, without waiting for anything.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        // A file of the process before would be taken for this one's.
        let _ = std::fs::remove_file(self.data_dir.join("addresses.json"));
        let program = program(self.name);
        let mut command = match self.descriptors_max {
            None => Command::new(program),
            Some(most) => limited(&program, most),
        };
        command.args(&self.flags);
        self.process = Some(Process::start(self.name, &mut command, &self.log));
    }

    /// Start the process and wait until it says that it is ready.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_listening();
        self.wait_ready();
    }

    /// Wait until it has written its addresses.
    pub fn wait_listening(&mut self) {
        let path = self.data_dir.join("addresses.json");
        let name = self.name;
        let process = self.process.as_mut().unwrap();
        self.addresses = wait_for(&format!("the addresses of {name}"), PATIENCE, || {
            if let Some(status) = process.ended() {
                panic!("{name} ended at once: {status}");
            }
            serde_json::from_slice(&std::fs::read(&path).ok()?).ok()
        });
    }

    /// Wait until `/readyz` says so.
    pub fn wait_ready(&mut self) {
        let url = format!("http://{}/readyz", self.http_addr());
        let mut said = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            said = get(&url);
            if said.as_ref().is_some_and(|(status, _)| *status == 200) {
                return;
            }
            std::thread::park_timeout(LOOK_INTERVAL);
        }
        panic!("{} is not ready: {said:?}", self.name);
    }

    /// What `/readyz` says now: status and body.
    pub fn readiness(&self) -> Option<(u16, String)> {
        get(&format!("http://{}/readyz", self.http_addr()))
    }

    /// An address that it wrote.
    pub fn address(&self, key: &str) -> String {
        let address = self.addresses[key].as_str();
        address.unwrap_or_else(|| panic!("{} wrote no {key}", self.name)).to_owned()
    }

    /// Where it serves HTTP.
    pub fn http_addr(&self) -> String {
        self.address("http_listen_addr")
    }

    /// Its running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and the status that it ends with.
    pub fn stop(&mut self, patience: Duration) -> ExitStatus {
        let status = self.process().terminate(patience);
        self.process = None;
        status
    }

    /// All that it and its predecessors have said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// All samples that it exposes.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let url = format!("http://{}/metrics", self.http_addr());
        let (status, text) = get(&url).unwrap_or_else(|| panic!("{url} does not answer"));
        assert_eq!(status, 200, "{url}: {text}");
        samples(&text)
    }

    /// Wait until a sample has this value: what a miner has seen may be a turn ahead of it.
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        wait_until(&format!("{name} = {value}"), PATIENCE, || self.metric(name) == value);
    }

    /// One sample, named without the prefix that all have.
    pub fn metric(&self, name: &str) -> f64 {
        let full = format!("reservegrid_{name}");
        let metrics = self.metrics();
        *metrics.get(&full).unwrap_or_else(|| panic!("{} exposes no {full}", self.name))
    }
}

/// `program` under a limit on descriptors that it cannot raise; the shell becomes the program, so
/// the number of the process is the program's.
fn limited(program: &Path, descriptors_max: u64) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &descriptors_max.to_string()]);
    command.arg(program);
    command
}

/// Where templates come from.
pub enum Chain<'a> {
    /// The simulated chain, with the keys of `[demo]`.
    Demo(Value),
    /// A real node.
    Node(&'a Node),
}

/// What differs from an ordinary stack.
pub struct Settings<'a> {
    /// Where templates come from.
    pub chain: Chain<'a>,
    /// Keys of policy.toml over the usual ones.
    pub policy: Value,
    /// Keys of the gateway's configuration over the usual ones.
    pub gateway: Value,
}

impl Settings<'_> {
    /// A stack on a simulated chain without blocks of its own.
    pub fn demo(nbits: &str) -> Settings<'static> {
        let demo = json!({ "block_interval_ms": 0, "mempool_transactions": 300, "nbits": nbits });
        Settings { chain: Chain::Demo(demo), policy: json!({}), gateway: json!({}) }
    }

    /// A stack on a real node.
    pub fn node(node: &Node) -> Settings<'_> {
        Settings { chain: Chain::Node(node), policy: json!({}), gateway: json!({}) }
    }
}

/// All services. Fields are dropped in this order: the gateway first.
pub struct Stack {
    /// sv2-gateway.
    pub gateway: Service,
    /// pool-verifier.
    pub verifier: Service,
    /// template-manager.
    pub template_manager: Service,
    /// reference-backend.
    pub backend: Service,
    network: &'static str,
    gateway_config: Value,
    folder: tempfile::TempDir,
}

impl Stack {
    /// Start everything and wait until all of it is ready.
    pub fn start(settings: &Settings) -> Stack {
        let mut stack = Stack::without_gateway(settings);
        let verifier = stack.verifier.address("listen_addr");
        stack.start_gateway(&verifier);
        stack
    }

    /// Start everything but the gateway.
    pub fn without_gateway(settings: &Settings) -> Stack {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let network = match &settings.chain {
            Chain::Demo(_) => "regtest",
            Chain::Node(node) => node.chain(),
        };
        let mut backend = backend(path);
        backend.start();
        backend.flags[1] = backend.http_addr();
        let mut config = template_manager(path, network, &settings.chain);
        let mut template_manager = Service::with_config(path, "template-manager", &config);
        template_manager.start();
        pin(&mut template_manager, &mut config);
        let http_addr = template_manager.http_addr();
        let mut config = verifier(path, network, &settings.chain, &http_addr);
        let mut verifier = Service::with_config(path, "pool-verifier", &config);
        write_policy(path, &settings.policy);
        verifier.start();
        pin(&mut verifier, &mut config);
        let mut gateway_config = gateway(path, network, &http_addr, &backend.http_addr());
        merge(&mut gateway_config, &settings.gateway);
        let gateway = Service::with_config(path, "sv2-gateway", &gateway_config);
        Stack { gateway, verifier, template_manager, backend, network, gateway_config, folder }
    }

    /// Start the gateway against the verifier at `verifier_addr`; later starts use its addresses
    /// of now again.
    pub fn start_gateway(&mut self, verifier_addr: &str) {
        self.gateway_config["gateway"]["verifier_addr"] = json!(verifier_addr);
        self.gateway.configure(&self.gateway_config);
        self.gateway.start();
        for key in ["listen_addr", "http_listen_addr"] {
            self.gateway_config["gateway"][key] = json!(self.gateway.address(key));
        }
        self.gateway.configure(&self.gateway_config);
    }

    /// The folder that everything is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration that the gateway was started with.
    pub fn gateway_config(&self) -> &Value {
        &self.gateway_config
    }

    /// Write policy.toml anew; it holds from the verifier's next start on.
    pub fn set_policy(&self, policy: &Value) {
        write_policy(self.folder(), policy);
    }

    /// A miner's connection, set up and without a channel.
    pub fn client(&self) -> Client {
        Client::connect(
            &self.gateway.address("listen_addr"),
            &self.gateway.address("authority_pubkey"),
        )
    }

    /// Blocks that the simulated chain makes at once.
    pub fn demo_block(&self) {
        let url = format!("http://{}/demo/block", self.template_manager.http_addr());
        let answer = post(&url, &json!({ "count": 1 }));
        assert!(answer.as_ref().is_some_and(|(status, _)| *status == 200), "{url}: {answer:?}");
    }

    /// Height of the simulated chain.
    pub fn demo_height(&self) -> u64 {
        let url = format!("http://{}/chain", self.template_manager.http_addr());
        let (_, text) = get(&url).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["height"].as_u64().unwrap()
    }

    /// What the backend has booked.
    pub fn backend_status(&self) -> Value {
        let url = format!("http://{}/status", self.backend.http_addr());
        serde_json::from_str(&get(&url).unwrap().1).unwrap()
    }

    /// Shares that the backend has credited.
    pub fn backend_shares(&self) -> u64 {
        self.backend_status()["shares"].as_u64().unwrap()
    }

    /// Judged shares by reason code, without those that did not occur.
    pub fn share_reasons(&self) -> BTreeMap<String, u64> {
        let start = "reservegrid_shares_total{reason_code=\"";
        self.gateway
            .metrics()
            .into_iter()
            .filter(|(_, count)| *count > 0.0)
            .filter_map(|(name, count)| {
                let code = name.strip_prefix(start)?.strip_suffix("\"}")?;
                Some((code.to_owned(), count as u64))
            })
            .collect()
    }

    /// Accepted shares since the gateway's start.
    pub fn accepted(&self) -> u64 {
        self.share_reasons().get("ok").copied().unwrap_or(0)
    }
}

/// Let a service listen where it listens now at its next start, too.
fn pin(service: &mut Service, config: &mut Value) {
    for key in ["listen_addr", "http_listen_addr"] {
        if let Some(address) = service.addresses[key].as_str()
            && config[key].is_string()
        {
            config[key] = json!(address);
        }
    }
    // template-manager has HTTP only, and calls that address listen_addr.
    if config.get("http_listen_addr").is_none() {
        config["listen_addr"] = json!(service.http_addr());
    }
    service.configure(config);
}

fn backend(folder: &Path) -> Service {
    let mut service = Service::new(folder, "reference-backend");
    let secret = folder.join("secret");
    std::fs::write(&secret, SHARE_SECRET).unwrap();
    let flags = [
        "--listen".to_owned(),
        "127.0.0.1:0".to_owned(),
        "--data-dir".to_owned(),
        service.data_dir.display().to_string(),
        "--secret-file".to_owned(),
        secret.display().to_string(),
    ];
    service.flags = flags.to_vec();
    service
}

/// What gateway and backends sign with.
pub const SHARE_SECRET: &str = "whsec_dGhlIHNlY3JldCBvZiB0aGUgZW5kLXRvLWVuZCB0ZXN0cw==";

fn template_manager(folder: &Path, network: &str, chain: &Chain) -> Value {
    let mut config = json!({
        "listen_addr": "127.0.0.1:0",
        "network": network,
        "data_dir": folder.join("template-manager"),
        "source": "demo://",
        "poll_interval_ms": 500,
    });
    match chain {
        Chain::Demo(demo) => config["demo"] = demo.clone(),
        Chain::Node(node) => {
            config["source"] = json!(node.url());
            config["source_auth"] = json!(node.auth());
        }
    }
    config
}

fn verifier(folder: &Path, network: &str, chain: &Chain, template_manager: &str) -> Value {
    let mut config = json!({
        "listen_addr": "127.0.0.1:0",
        "http_listen_addr": "127.0.0.1:0",
        "network": network,
        "data_dir": folder.join("pool-verifier"),
        "policy": "policy.toml",
    });
    match chain {
        Chain::Demo(_) => config["chain_url"] = json!(format!("http://{template_manager}/chain")),
        Chain::Node(node) => {
            config["chain_rpc_url"] = json!(node.url());
            config["chain_rpc_auth"] = json!(node.auth());
        }
    }
    config
}

fn write_policy(folder: &Path, over: &Value) {
    let outputs = json!([{ "address": PAYOUT, "share": 1 }]);
    let mut policy = json!({ "version": "test", "payout": { "outputs": outputs } });
    merge(&mut policy, over);
    std::fs::write(folder.join("policy.toml"), toml::to_string(&policy).unwrap()).unwrap();
}

fn gateway(folder: &Path, network: &str, template_manager: &str, backend: &str) -> Value {
    let authority = AuthorityKey::from_secret_bytes([7; 32]).unwrap();
    json!({
        "gateway": {
            "mode": "inline",
            "listen_addr": "127.0.0.1:0",
            "http_listen_addr": "127.0.0.1:0",
            "verifier_addr": "",
            "upstream_url": format!("http://{template_manager}"),
            "upstream_failure_policy": "fail_closed",
            "http_api_key": "an-api-key-for-tests",
            "network": network,
            "data_dir": folder.join("sv2-gateway"),
            "max_connections": 4_096,
            "max_connections_per_ip": 4_096,
        },
        "noise": {
            "privkey": authority.to_text().as_str(),
            "pubkey": authority.public().to_text(),
        },
        "timing": {
            "prevhash_verdict_timeout_ms": 50,
            "prevhash_stale_hold_ms": 20_000,
            "shutdown_drain_ms": 1_000,
        },
        "share": {
            "share_upstream_url": format!("http://{backend}/shares"),
            "share_upstream_secret": SHARE_SECRET,
            "share_forward_queue_size": 10_000,
            "share_forward_max_in_flight": 4,
            "share_batch_interval_ms": 50,
        },
        "auth": { "mode": "open" },
        "mining": {
            "coinbase_outputs": [{ "address": PAYOUT, "share": 1 }],
            "coinbase_tag": "/e2e/",
            "instance_id": 1,
            "target_shares_per_minute": SHARES_PER_MINUTE,
            "min_difficulty": 0.0,
        },
        "cores": { "pin": false },
    })
}
