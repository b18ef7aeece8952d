//! The load generator beside a test.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::process::Process;
use super::{PATIENCE, Stack, program, wait_for};

/// Its process; killed when dropped.
pub struct Load {
    process: Process,
    report: PathBuf,
}

impl Load {
    /// Start it at the gateway of `stack` with these options beside those for the connection.
    pub fn start(stack: &Stack, options: &[&str]) -> Load {
        let report = stack.folder().join("load.json");
        let _ = std::fs::remove_file(&report);
        let mut command = Command::new(program("loadgen"));
        command
            .args(["--target", &stack.gateway.address("listen_addr")])
            .args(["--authority", &stack.gateway.address("authority_pubkey")])
            .args(["--screen", "none", "--json"])
            .arg(&report)
            .args(options);
        let log = stack.folder().join("load.log");
        let process = Process::start("loadgen", &mut command, &log);
        Load { process, report }
    }

    /// Its newest report, if there is one.
    pub fn latest(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(&self.report).ok()?).ok()
    }

    /// A number of its newest report; 0 as long as there is none.
    pub fn number(&self, key: &str) -> u64 {
        self.latest().map_or(0, |report| report[key].as_u64().unwrap_or(0))
    }

    /// The first report from now on.
    pub fn next_report(&self) -> Value {
        let seconds = |report: &Value| report["duration_seconds"].as_f64();
        let before = self.latest().and_then(|report| seconds(&report));
        wait_for("the next report of the load", PATIENCE, || {
            self.latest().filter(|report| seconds(report) > before)
        })
    }

    /// End it; its last report.
    pub fn leave(mut self) -> Value {
        self.process.terminate(PATIENCE);
        self.latest().unwrap()
    }
}
