//! What the tests with blocks and nodes share: grinding, waiting, and a real node on loopback.
#![allow(dead_code, clippy::disallowed_methods, reason = "each test uses its part")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use source::rpc::RpcClient;
use work::contract::bytes;
use work::contract::feed::NodeAccess;
use work::hash::{BlockHash, sha256d};
use work::job::Job;
use work::payout::Payout;
use work::target::Target;
use work::template::Template;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Ask again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The 80 bytes of a header.
pub fn header(job: &Job, extranonce: &[u8], time: u32, nonce: u32) -> [u8; 80] {
    let template = &job.template;
    let mut header = [0u8; 80];
    header[..4].copy_from_slice(&template.version.to_le_bytes());
    header[4..36].copy_from_slice(&template.tip.prev_hash.0);
    header[36..68].copy_from_slice(&job.merkle_root(extranonce, &[]).0);
    header[68..72].copy_from_slice(&time.to_le_bytes());
    header[72..76].copy_from_slice(&template.tip.nbits.to_le_bytes());
    header[76..].copy_from_slice(&nonce.to_le_bytes());
    header
}

/// Change the nonce until the header's hash meets (or, if so wished, misses) its bits.
pub fn grind(header: &mut [u8; 80], meets: bool) {
    let nbits = u32::from_le_bytes(header[72..76].try_into().unwrap());
    let target = Target::from_nbits(nbits).unwrap();
    for nonce in 0..=u32::MAX {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        if target.is_met_by(&BlockHash(sha256d(header))) == meets {
            return;
        }
    }
    panic!("no nonce will do");
}

/// A job on `template` that pays a script anyone may spend.
pub fn job(template: &Arc<Template>) -> Job {
    let payouts = [Payout { script_pubkey: vec![0x51], share: 1 }];
    Job::new(Arc::clone(template), &payouts, b"/test/", 16).unwrap()
}

/// A whole valid block on `template`.
pub fn mine(template: &Arc<Template>) -> Vec<u8> {
    let job = job(template);
    let mut header = header(&job, &[7; 16], template.cur_time, 0);
    grind(&mut header, true);
    work::block::assemble(&header, &job, &[7; 16]).unwrap()
}

/// The hash of a block.
pub fn hash_of(block: &[u8]) -> BlockHash {
    BlockHash(sha256d(&block[..80]))
}

/// A real node of its own, killed when dropped.
pub struct Node {
    folder: tempfile::TempDir,
    child: Option<Child>,
    rpc_port: u16,
    zmq_port: Option<u16>,
    program: PathBuf,
    chain: &'static str,
    pub client: Option<RpcClient>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `BITCOIND_EXE`, `bitcoind` on PATH, or what scripts/get-node.sh left in the cache.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BITCOIND_EXE") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("bitcoind"));
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("RESERVEGRID_CACHE").map(PathBuf::from).or_else(|| {
        let base = set("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
        Some(base.or_else(home)?.join("reservegrid"))
    });
    let cached = cache.map(|cache| cache.join("node/bin/bitcoind"));
    on_path.chain(cached).find(|candidate| candidate.is_file())
}

impl Node {
    /// Start one on regtest; see [`Node::start_on`].
    pub fn start(with_zmq: bool) -> Option<Node> {
        Node::start_on("regtest", with_zmq)
    }

    /// Start one on this chain; signet is one whose blocks need no signature. `None` (said aloud)
    /// if there is no node on this machine, which under CI is a failure.
    pub fn start_on(chain: &'static str, with_zmq: bool) -> Option<Node> {
        let Some(program) = program() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "no Bitcoin node is installed: run scripts/get-node.sh or set BITCOIND_EXE"
            );
            eprintln!("SKIPPED: no Bitcoin node; scripts/get-node.sh fetches one");
            return None;
        };
        let mut node = Node {
            folder: tempfile::tempdir().unwrap(),
            child: None,
            rpc_port: free_port(),
            zmq_port: with_zmq.then(free_port),
            program,
            chain,
            client: None,
        };
        node.launch();
        Some(node)
    }

    /// Start the process (again) and wait until it answers.
    pub fn launch(&mut self) {
        std::fs::write(self.folder.path().join("bitcoin.conf"), "").unwrap();
        let mut command = Command::new(&self.program);
        command
            .arg(format!("-{}", self.chain))
            .args((self.chain == "signet").then_some("-signetchallenge=51"))
            .args(["-server", "-listen=0", "-connect=0", "-dnsseed=0", "-natpmp=0"])
            .args(["-discover=0", "-printtoconsole=0", "-rpcbind=127.0.0.1"])
            .args(["-rpcallowip=127.0.0.1", "-checkmempool=0", "-checkblockindex=0"])
            .args(["-acceptnonstdtxn=1", "-blockmaxweight=4000000"])
            .arg(format!("-rpccookiefile={}", self.cookie().display()))
            .arg(format!("-datadir={}", self.folder.path().display()))
            .arg(format!("-rpcport={}", self.rpc_port))
            .args(self.zmq_port.map(|port| format!("-zmqpubhashblock=tcp://127.0.0.1:{port}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let help = Command::new(&self.program).arg("-help").output().unwrap();
        if String::from_utf8_lossy(&help.stdout).contains("-blockmaxsize") {
            command.arg("-blockmaxsize=4000000");
        }
        self.child = Some(command.spawn().unwrap());
        let mut client = RpcClient::new(&self.access(), PATIENCE).unwrap();
        wait_for("the node's first answer", || client.call::<u32>("getblockcount", json!([])).ok());
        self.client = Some(client);
    }

    /// Kill the process and wait until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Send the process a signal: `STOP` lets it hang, `CONT` lets it go on.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// How to reach it.
    pub fn access(&self) -> NodeAccess {
        NodeAccess {
            url: format!("http://127.0.0.1:{}/", self.rpc_port),
            auth: Some(format!("cookie:{}", self.cookie().display())),
        }
    }

    fn cookie(&self) -> PathBuf {
        self.folder.path().join(".cookie")
    }

    /// Call it.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let client = self.client.as_mut().unwrap();
        client.call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Mine `count` blocks to a script that anyone may spend, from the mempool.
    pub fn generate(&mut self, count: u32) {
        self.call("generatetoaddress", json!([count, anyone_address()]));
    }

    /// Mine one block that leaves the mempool as it is; its hash is returned.
    pub fn generate_empty(&mut self) -> BlockHash {
        let made = self.call("generateblock", json!([anyone_address(), []]));
        made["hash"].as_str().unwrap().parse().unwrap()
    }

    /// The height of the tip.
    pub fn height(&mut self) -> u32 {
        u32::try_from(self.call("getblockcount", json!([])).as_u64().unwrap()).unwrap()
    }

    /// Send a transaction that spends the coinbase of the block at `height`, split over
    /// `outputs` outputs.
    pub fn spend(&mut self, height: u32, outputs: usize, fee: u64) {
        let hash = self.call("getblockhash", json!([height]));
        let block = self.call("getblock", json!([hash, 2]));
        let coinbase = &block["tx"][0];
        let txid: bitcoin::Txid = coinbase["txid"].as_str().unwrap().parse().unwrap();
        let value = (coinbase["vout"][0]["value"].as_f64().unwrap() * 1e8).round() as u64;
        let count = outputs as u64;
        let part = (value - fee) / count;
        let made = bitcoin::Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![bitcoin::TxIn {
                previous_output: bitcoin::OutPoint { txid, vout: 0 },
                script_sig: bitcoin::ScriptBuf::new(),
                sequence: bitcoin::Sequence::MAX,
                witness: bitcoin::Witness::from_slice(&[anyone_script().as_bytes()]),
            }],
            output: (0..outputs)
                .map(|_| bitcoin::TxOut {
                    value: bitcoin::Amount::from_sat(part),
                    script_pubkey: bitcoin::ScriptBuf::new_p2wsh(&anyone_script().wscript_hash()),
                })
                .collect(),
        };
        // No limit on the fee rate: subsidies are large and the amounts round.
        let hex = bytes::encode(&bitcoin::consensus::serialize(&made));
        self.call("sendrawtransaction", json!([hex, 0]));
    }
}

/// OP_TRUE, to be wrapped into P2WSH.
fn anyone_script() -> bitcoin::ScriptBuf {
    bitcoin::script::Builder::new().push_opcode(bitcoin::opcodes::OP_TRUE).into_script()
}

fn anyone_address() -> String {
    bitcoin::Address::p2wsh(&anyone_script(), bitcoin::Network::Regtest).to_string()
}
