//! SRI's `mining_device`: a miner that is not ours and follows the specification by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::node::{cache, missing};
use super::process::Process;
use super::{LOOK_INTERVAL, Stack};

/// The device measures its own speed for five seconds first, and a block takes some millions of
/// hashes, on a machine that may be busy.
const MINING_PATIENCE: Duration = Duration::from_secs(120);

/// How long the device stands still after a block.
///
/// It sets every header's time to its clock and a minute, whatever `min_ntime` it was told. Three
/// blocks of one second, on a chain with few others, lift the median of times to that.
const PAUSE_AFTER_BLOCK: Duration = Duration::from_millis(600);

/// The running miner; killed when dropped.
pub struct Device {
    process: Process,
    is_paused: bool,
}

/// Where it is installed; `None`, said aloud, if it is not.
pub fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("MINING_DEVICE_EXE").map(PathBuf::from);
    let cached = || Some(cache()?.join("mining_device/bin/mining_device"));
    let found = named.or_else(cached).filter(|path| path.is_file());
    if found.is_none() {
        missing("SRI's mining_device", "scripts/mining-device.sh");
    }
    found
}

impl Device {
    /// Connect it to the gateway of `stack`, whose authority key it insists on.
    pub fn start(program: &Path, stack: &Stack, user: &str) -> Device {
        let mut command = Command::new(program);
        command
            .args(["--address-pool", &stack.gateway.address("listen_addr")])
            .args(["--pubkey-pool", &stack.gateway.address("authority_pubkey")])
            .args(["--id-user", user, "--cores", "1"]);
        let log = stack.folder().join(format!("mining_device-{user}.log"));
        let process = Process::start("mining_device", &mut command, &log);
        Device { process, is_paused: false }
    }

    /// Let it stand still: it sends nothing and reads nothing.
    pub fn pause(&mut self) {
        if !self.is_paused {
            self.process.signal(Signal::STOP);
            self.is_paused = true;
        }
    }

    /// Let it go on.
    pub fn resume(&mut self) {
        if self.is_paused {
            self.process.signal(Signal::CONT);
            self.is_paused = false;
        }
    }

    /// Let it mine until there is an answer, at a bounded rate of blocks; then it stands still.
    pub fn mine<T>(
        &mut self,
        what: &str,
        height: impl Fn() -> u64,
        mut ask: impl FnMut() -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + MINING_PATIENCE;
        let (mut last, mut block_at) = (height(), None::<Instant>);
        loop {
            assert!(self.process.ended().is_none(), "mining_device has ended by itself");
            if let Some(answer) = ask() {
                self.pause();
                return answer;
            }
            let now = height();
            if now != last {
                (last, block_at) = (now, Some(Instant::now()));
            }
            match block_at {
                Some(at) if at.elapsed() < PAUSE_AFTER_BLOCK => self.pause(),
                _ => self.resume(),
            }
            assert!(Instant::now() < deadline, "mined {MINING_PATIENCE:?} in vain for {what}");
            std::thread::park_timeout(LOOK_INTERVAL);
        }
    }

    /// Error codes of the answers to its shares, in their order.
    pub fn errors(&self) -> Vec<String> {
        let text = self.process.text();
        let codes = text.lines().filter_map(|line| line.split("with error code ").nth(1));
        codes.map(|code| code.trim().to_owned()).collect()
    }

    /// Whether its log has this.
    pub fn said(&self, text: &str) -> bool {
        self.process.text().contains(text)
    }
}
