//! What the machine answers.
#![allow(clippy::disallowed_methods, reason = "driver: measures the disk, asks for the date")]

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::thread::sched_getaffinity;

/// CPUs that are asked for.
const CPUS_MAX: usize = 1_024;

/// Syncs whose median is taken.
const SYNCS: usize = 9;

/// Bytes written before each: about a batch of shares.
const SYNC_BYTES: usize = 4_096;

/// Seconds of a year of the Gregorian calendar, on average.
const YEAR_SECONDS: u64 = 31_556_952;

/// Files that show that somebody keeps the clock right, and who.
const TIME_SERVICES: [(&str, &str); 5] = [
    ("/run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("/run/chrony/chronyd.pid", "chrony"),
    ("/run/chronyd.pid", "chrony"),
    ("/run/ntpd.pid", "ntpd"),
    ("/var/run/ntpd.pid", "ntpd"),
];

/// Like `6.1.0-18-amd64`.
pub fn kernel_release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// Descriptors that a process may have here; `None`: any number.
pub fn descriptors_max() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Bytes that a process may lock in memory; `None`: any number.
pub fn locked_bytes_max() -> Option<u64> {
    getrlimit(Resource::Memlock).maximum
}

/// CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CPUS_MAX).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => Vec::new(),
    }
}

/// The year by the clock.
pub fn year() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    1970 + since.as_secs() / YEAR_SECONDS
}

/// Who keeps the clock right, if that can be seen.
pub fn time_service() -> Option<String> {
    let found = TIME_SERVICES.iter().find(|(path, _)| Path::new(path).exists());
    found.map(|(_, name)| (*name).to_owned())
}

/// Whether a listener could be bound; it is closed again.
///
/// # Errors
/// The kernel's, with the address.
pub fn bind(address: SocketAddr) -> io::Result<()> {
    rg_ring::bind_exclusive(address).map(|_| ())
}

/// What a folder's disk can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The folder itself, or the nearest above it that exists.
    pub folder: PathBuf,
    /// Bytes that are free for this user.
    pub free_bytes: u64,
    /// Median of some calls of fdatasync.
    pub sync: Duration,
}

/// Write and sync a file in `folder`, or above it if it does not exist yet, and remove it.
///
/// # Errors
/// What did not work, with the folder.
pub fn disk(folder: &Path) -> Result<Disk, String> {
    let nearest = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let error = |error: io::Error| format!("{}: {error}", nearest.display());
    let space = rustix::fs::statvfs(nearest).map_err(|errno| error(errno.into()))?;
    let mut file = tempfile::NamedTempFile::new_in(nearest).map_err(error)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0; SYNC_BYTES]).map_err(error)?;
        let start = Instant::now();
        file.as_file().sync_data().map_err(error)?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(Disk {
        folder: nearest.to_owned(),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        sync: times[SYNCS / 2],
    })
}
