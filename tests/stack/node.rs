//! A real Bitcoin node of a test's own, on regtest or on a signet whose blocks anyone may sign.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bitcoin::hashes::Hash as _;
use serde_json::{Value, json};
use source::rpc::RpcClient;
use work::BlockHash;
use work::contract::bytes;
use work::contract::feed::NodeAccess;

use super::process::Process;
use super::{PATIENCE, wait_for};

/// Time for blocks that the node mines itself: on signet each takes it seconds.
const GENERATE_PATIENCE: Duration = Duration::from_secs(120);

/// Starts until one finds its ports free.
const STARTS_MAX: usize = 3;

/// The node; killed when dropped.
pub struct Node {
    process: Option<Process>,
    program: PathBuf,
    chain: &'static str,
    rpc_port: u16,
    zmq_port: u16,
    folder: tempfile::TempDir,
}

/// The folder that scripts keep fetched and built programs in.
pub fn cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("RESERVEGRID_CACHE").map(PathBuf::from).or_else(|| {
        let base = set("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
        Some(base.or_else(home)?.join("reservegrid"))
    })
}

/// Say that something is not installed, or fail where everything has to be.
pub fn missing(what: &str, script: &str) {
    let text = format!("{what} is not installed; {script} brings it");
    assert!(std::env::var_os("CI").is_none(), "{text}");
    eprintln!("SKIPPED: {text}");
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("BITCOIND_EXE") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("bitcoind"));
    let cached = cache().map(|cache| cache.join("node/bin/bitcoind"));
    on_path.chain(cached).find(|candidate| candidate.is_file())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Node {
    /// A node on `chain` (`regtest` or `signet`); `None`, said aloud, if none is installed.
    pub fn start(chain: &'static str) -> Option<Node> {
        let Some(program) = program() else {
            missing("a Bitcoin node", "scripts/get-node.sh");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let mut node = Node { process: None, program, chain, rpc_port: 0, zmq_port: 0, folder };
        for _ in 0..STARTS_MAX {
            (node.rpc_port, node.zmq_port) = (free_port(), free_port());
            if node.try_launch() {
                return Some(node);
            }
        }
        panic!(
            "the node does not start: {}",
            node.process.as_ref().map_or(String::new(), |process| process.tail())
        );
    }

    /// Start the process again, with the same data and on the same ports.
    pub fn restart(&mut self) {
        assert!(self.try_launch(), "the node does not start again");
    }

    /// An orderly end: everything that it has said is on its disk.
    pub fn stop(&mut self) {
        self.process.take().unwrap().terminate(PATIENCE);
    }

    /// SIGKILL: what it had not yet written is lost, blocks that it has taken among it.
    pub fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Let it take the block with these bytes in hexadecimal digits; its word for it.
    pub fn submit(&self, block: &str) -> Value {
        self.call("submitblock", json!([block]))
    }

    fn try_launch(&mut self) -> bool {
        std::fs::write(self.folder.path().join("bitcoin.conf"), "").unwrap();
        let log = self.folder.path().join("output.log");
        let process = Process::start("bitcoind", &mut self.command(), &log);
        let process = self.process.insert(process);
        let access = NodeAccess {
            url: format!("http://127.0.0.1:{}/", self.rpc_port),
            auth: Some(format!(
                "cookie:{}",
                self.folder.path().join(self.chain).join(".cookie").display()
            )),
        };
        wait_for("the node's first answer", PATIENCE, || {
            if process.ended().is_some() {
                return Some(false);
            }
            let mut client = RpcClient::new(&access, Duration::from_secs(2)).ok()?;
            client.call::<u32>("getblockcount", json!([])).is_ok().then_some(true)
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("-{}", self.chain))
            .arg(format!("-datadir={}", self.folder.path().display()))
            .arg(format!("-rpcport={}", self.rpc_port))
            .arg(format!("-zmqpubhashblock=tcp://127.0.0.1:{}", self.zmq_port))
            .args(["-server", "-listen=0", "-connect=0", "-dnsseed=0", "-natpmp=0"])
            .args(["-discover=0", "-printtoconsole=0", "-rpcbind=127.0.0.1"])
            .args(["-rpcallowip=127.0.0.1", "-checkmempool=0", "-checkblockindex=0"])
            .args(["-blockmaxweight=4000000"]);
        if self.chain == "signet" {
            command.arg("-signetchallenge=51");
        } else {
            command.arg("-acceptnonstdtxn=1");
        }
        let help = Command::new(&self.program).arg("-help").output().unwrap();
        if String::from_utf8_lossy(&help.stdout).contains("-blockmaxsize") {
            command.arg("-blockmaxsize=4000000");
        }
        command
    }

    /// `regtest` or `signet`.
    pub fn chain(&self) -> &'static str {
        self.chain
    }

    /// Address of its RPC.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rpc_port)
    }

    /// How it lets clients in.
    pub fn auth(&self) -> String {
        let cookie = self.folder.path().join(self.chain).join(".cookie");
        format!("cookie:{}", cookie.display())
    }

    /// Call it; the error is its own text.
    pub fn try_call(&self, method: &str, params: Value) -> Result<Value, String> {
        self.call_within(PATIENCE, method, params)
    }

    fn call_within(
        &self,
        patience: Duration,
        method: &str,
        params: Value,
    ) -> Result<Value, String> {
        let access = NodeAccess { url: format!("{}/", self.url()), auth: Some(self.auth()) };
        let mut client = RpcClient::new(&access, patience)?;
        client.call(method, params).map_err(|error| error.to_string())
    }

    /// Call it.
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Mine `count` blocks to a script that anyone may spend, from the mempool.
    pub fn generate(&self, count: u32) {
        let params = json!([count, self.anyone_address(), 1_000_000_000]);
        self.call_within(GENERATE_PATIENCE, "generatetoaddress", params).unwrap();
    }

    /// Mine one block on regtest that leaves the mempool as it is; its hash is returned.
    pub fn generate_empty(&self) -> BlockHash {
        let made = self.call("generateblock", json!([self.anyone_address(), []]));
        made["hash"].as_str().unwrap().parse().unwrap()
    }

    /// Height of its tip.
    pub fn height(&self) -> u64 {
        self.call("getblockcount", json!([])).as_u64().unwrap()
    }

    /// Its tip.
    pub fn tip(&self) -> BlockHash {
        self.call("getbestblockhash", json!([])).as_str().unwrap().parse().unwrap()
    }

    /// The block at `height` with its transactions' ids.
    pub fn block_at(&self, height: u64) -> Value {
        let hash = self.call("getblockhash", json!([height]));
        self.call("getblock", json!([hash, 1]))
    }

    /// Its status of a block: `active` or a name of `getchaintips`; `None` if it was never seen.
    pub fn status_of(&self, hash: &BlockHash) -> Option<String> {
        let header = self.try_call("getblockheader", json!([hash])).ok()?;
        if header["confirmations"].as_i64().unwrap() > 0 {
            return Some("active".to_owned());
        }
        let tips = self.call("getchaintips", json!([]));
        let tip = tips.as_array().unwrap().iter().find(|tip| tip["hash"] == json!(hash));
        Some(tip.map_or("side", |tip| tip["status"].as_str().unwrap()).to_owned())
    }

    /// Send a segwit transaction that spends the coinbase of the block at `height`; its id.
    pub fn spend(&self, height: u64, fee: u64) -> String {
        let hash = self.call("getblockhash", json!([height]));
        let block = self.call("getblock", json!([hash, 2]));
        let coinbase = &block["tx"][0];
        let txid: bitcoin::Txid = coinbase["txid"].as_str().unwrap().parse().unwrap();
        let value = (coinbase["vout"][0]["value"].as_f64().unwrap() * 1e8).round() as u64;
        let script = anyone_script();
        let made = bitcoin::Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![bitcoin::TxIn {
                previous_output: bitcoin::OutPoint { txid, vout: 0 },
                script_sig: bitcoin::ScriptBuf::new(),
                sequence: bitcoin::Sequence::MAX,
                witness: bitcoin::Witness::from_slice(&[script.as_bytes()]),
            }],
            output: vec![bitcoin::TxOut {
                value: bitcoin::Amount::from_sat(value - fee),
                script_pubkey: bitcoin::ScriptBuf::new_p2wsh(&script.wscript_hash()),
            }],
        };
        let hex = bytes::encode(&bitcoin::consensus::serialize(&made));
        self.call("sendrawtransaction", json!([hex, 0])).as_str().unwrap().to_owned()
    }

    fn anyone_address(&self) -> String {
        let network = match self.chain {
            "regtest" => bitcoin::Network::Regtest,
            _ => bitcoin::Network::Signet,
        };
        bitcoin::Address::p2wsh(&anyone_script(), network).to_string()
    }
}

/// OP_TRUE, to be wrapped into P2WSH.
fn anyone_script() -> bitcoin::ScriptBuf {
    bitcoin::script::Builder::new().push_opcode(bitcoin::opcodes::OP_TRUE).into_script()
}

/// The payout of all stacks is that script, so that the miner's own blocks can be spent, too.
pub fn payout_is_anyones() -> bool {
    let hash = anyone_script().wscript_hash();
    super::PAYOUT == format!("raw:0020{}", bytes::encode(hash.as_byte_array()))
}
