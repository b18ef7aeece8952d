//! What the machine's answers mean.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gateway::limits::DESCRIPTORS_RESERVED;
use rg_ring::{Features, ProbeError};

use super::probe::Disk;

/// The oldest kernel with everything that the data path needs.
const KERNEL_NEEDED: (u32, u32) = (6, 0);

/// From here on the ring interrupts less.
const KERNEL_GOOD: (u32, u32) = (6, 1);

/// Bytes that one executor locks for its own rings.
const LOCKED_PER_EXECUTOR: u64 = 512 * 1024;

/// Years in which this program may run: certificates and templates carry the time.
const YEARS: std::ops::RangeInclusive<u64> = 2025..=2105;

/// Free bytes below which the gateway should not be started, and below which is warned.
const FREE_NEEDED: u64 = 64 * 1024 * 1024;
const FREE_GOOD: u64 = 1024 * 1024 * 1024;

/// An fdatasync that takes longer makes found blocks and epochs wait.
const SYNC_GOOD: Duration = Duration::from_millis(25);

const MEBIBYTE: u64 = 1024 * 1024;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// The gateway runs, but not as well as it could.
    Warn,
    /// The gateway does not start, or not safely.
    Fail,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What is needed.
    pub needed: String,
    /// How to mend it; only shown if there is something to mend.
    pub mend: String,
}

impl Finding {
    fn new(level: Level, what: &str, found: String, needed: String, mend: &str) -> Finding {
        Finding { level, what: what.to_owned(), found, needed, mend: mend.to_owned() }
    }

    /// One line, and a second one with the remedy if one is needed.
    pub fn text(&self) -> String {
        let Finding { level, what, found, needed, mend } = self;
        let line = format!("{:4}  {what}: {found}; needed: {needed}", level.name());
        match level {
            Level::Ok => line,
            Level::Warn | Level::Fail => format!("{line}\n      mend: {mend}"),
        }
    }
}

/// A configuration without mistakes.
pub fn configuration(warnings: usize) -> Finding {
    let level = if warnings == 0 { Level::Ok } else { Level::Warn };
    let found = format!("accepted, {warnings} warnings");
    let mend = "`reservegrid config check` tells them";
    Finding::new(level, "configuration", found, "a file without mistakes".into(), mend)
}

/// A configuration with mistakes.
pub fn refused(file: &str, mistakes: usize) -> Finding {
    let mend = format!("`reservegrid config check --file {file}` tells them");
    let found = format!("{mistakes} mistakes");
    Finding::new(Level::Fail, "configuration", found, "a file without mistakes".into(), &mend)
}

/// The kernel's version.
pub fn kernel(release: &str) -> Finding {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    let level = match version {
        Some(version) if version >= KERNEL_GOOD => Level::Ok,
        Some(version) if version >= KERNEL_NEEDED => Level::Warn,
        Some(_) | None => Level::Fail,
    };
    let found =
        format!("Linux {}", if release.is_empty() { "of no known version" } else { release });
    Finding::new(
        level,
        "kernel",
        found,
        "6.0, better 6.1 or newer".into(),
        "install a newer kernel",
    )
}

/// Whether io_uring does what a shard asks of it.
pub fn rings(probed: &Result<Features, ProbeError>) -> Finding {
    let needed = "multishot receive, provided buffers, an eventfd".to_owned();
    let (level, found, mend) = match probed {
        Ok(features) if features.deferred_taskrun => (Level::Ok, "works".to_owned(), ""),
        Ok(_) => {
            let found = "works, without deferred task work".to_owned();
            (Level::Warn, found, "a kernel from 6.1 on; until then load interrupts more")
        }
        // The text of the probe names the remedy.
        Err(error) => (Level::Fail, error.text.clone(), "as said; nothing runs without it"),
    };
    Finding::new(level, "io_uring", found, needed, mend)
}

/// Descriptors against connections.
pub fn descriptors(maximum: Option<u64>, connections: Option<u64>) -> Finding {
    let needed = connections.unwrap_or(1).saturating_add(DESCRIPTORS_RESERVED);
    let found = match maximum {
        Some(maximum) => format!("{maximum}"),
        None => "any number".to_owned(),
    };
    let level = match maximum {
        Some(maximum) if maximum < needed => Level::Fail,
        _ => Level::Ok,
    };
    let for_whom = match connections {
        Some(connections) => format!(
            "{needed}, {connections} for gateway.max_connections and {DESCRIPTORS_RESERVED} beside"
        ),
        None => format!("{DESCRIPTORS_RESERVED} and one a miner"),
    };
    let mend = "raise the limit (ulimit -n, LimitNOFILE of the service), or lower max_connections";
    Finding::new(level, "descriptors", found, for_whom, mend)
}

/// Memory that may be locked, against the executors' rings.
pub fn locked_memory(maximum: Option<u64>, shards: usize) -> Finding {
    // Control and the forwarder have one executor each.
    let needed = LOCKED_PER_EXECUTOR * (shards as u64 + 2);
    let is_enough = maximum.is_none_or(|maximum| maximum >= needed);
    let level = if is_enough { Level::Ok } else { Level::Warn };
    let found = match maximum {
        Some(maximum) => format!("{} kB", maximum / 1024),
        None => "any amount".to_owned(),
    };
    let needed = format!("{} kB for {} executors", needed / 1024, shards + 2);
    let mend = "raise the limit (ulimit -l, LimitMEMLOCK of the service)";
    Finding::new(level, "locked memory", found, needed, mend)
}

/// The clock, which certificates, templates and signatures depend on.
pub fn clock(year: u64, service: Option<&str>) -> Finding {
    let level = match (YEARS.contains(&year), service) {
        (false, _) => Level::Fail,
        (true, Some(_)) => Level::Ok,
        (true, None) => Level::Warn,
    };
    let keeper = match service {
        Some(service) => format!("kept by {service}"),
        None => "nobody is seen to keep it".to_owned(),
    };
    let mend = "run chrony or systemd-timesyncd; in a container the host does it, and this is to \
                be looked at there";
    let needed = "the right time within seconds".to_owned();
    Finding::new(level, "clock", format!("the year {year}, {keeper}"), needed, mend)
}

/// CPUs of this machine against those of `[cores]`.
pub fn cores(cpus: &[usize], shards: &[usize], wanted: &[usize], pin: bool) -> Finding {
    let mut missing: Vec<usize> =
        wanted.iter().copied().filter(|cpu| !cpus.contains(cpu)).collect();
    missing.sort_unstable();
    missing.dedup();
    let mut distinct = shards.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let found = format!("{} CPUs", cpus.len());
    let (level, needed, mend) = if !missing.is_empty() {
        let level = if pin { Level::Fail } else { Level::Warn };
        (level, format!("CPUs {missing:?} of [cores], too"), "name CPUs that this process may use")
    } else if distinct.len() < shards.len() {
        let mend = "give each shard a CPU of its own";
        (Level::Warn, format!("{} CPUs for as many shards", shards.len()), mend)
    } else {
        (Level::Ok, "one for each shard".to_owned(), "")
    };
    Finding::new(level, "cores", found, needed, mend)
}

/// Whether an address can be listened on.
pub fn port(key: &str, address: SocketAddr, bound: &io::Result<()>) -> Finding {
    let (level, found) = match bound {
        Ok(()) => (Level::Ok, format!("{address} is free")),
        Err(error) => (Level::Fail, error.to_string()),
    };
    let mend = "stop who listens there (`ss -ltnp`; a running gateway does), or change the key";
    Finding::new(level, key, found, "an address of this machine that is free".into(), mend)
}

/// Whether the gateway can write, how much, and how fast that is safe.
pub fn disk(data_dir: &Path, disk: &Result<Disk, String>) -> Finding {
    let needed = format!(
        "a folder to write to, {} MB free, an fdatasync within {} ms",
        FREE_GOOD / MEBIBYTE,
        SYNC_GOOD.as_millis()
    );
    let disk = match disk {
        Ok(disk) => disk,
        Err(error) => {
            let mend = format!("mkdir -p {} and give it to the gateway's user", data_dir.display());
            return Finding::new(Level::Fail, "gateway.data_dir", error.clone(), needed, &mend);
        }
    };
    let level = match disk {
        Disk { free_bytes, .. } if *free_bytes < FREE_NEEDED => Level::Fail,
        Disk { free_bytes, sync, .. } if *free_bytes < FREE_GOOD || *sync > SYNC_GOOD => {
            Level::Warn
        }
        _ => Level::Ok,
    };
    let place = match disk.folder == data_dir {
        true => format!("{}", data_dir.display()),
        false => format!("{}, to be made in {}", data_dir.display(), disk.folder.display()),
    };
    let found = format!(
        "{place}: {} MB free, an fdatasync takes {:.1} ms",
        disk.free_bytes / MEBIBYTE,
        disk.sync.as_secs_f64() * 1_000.0
    );
    let mend = "free space, or put gateway.data_dir on a faster disk";
    Finding::new(level, "gateway.data_dir", found, needed, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        let check =
            |release: &str, level: Level| assert_eq!(kernel(release).level, level, "{release}");
        check("6.18.5", Level::Ok);
        check("6.1.0-18-amd64", Level::Ok);
        check("6.0.12", Level::Warn);
        check("5.15.0-91-generic", Level::Fail);
        check("", Level::Fail);
        check("linux", Level::Fail);
    }

    #[test]
    fn rings_work_or_are_explained() {
        let works = |deferred_taskrun| rings(&Ok(Features { deferred_taskrun })).level;
        assert_eq!((works(true), works(false)), (Level::Ok, Level::Warn));
        let finding = rings(&Err(ProbeError { text: "forbidden by seccomp: allow it".into() }));
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.text().contains("seccomp"), "{}", finding.text());
    }

    #[test]
    fn limits_are_held_against_what_is_configured() {
        let level = |maximum, connections| descriptors(maximum, connections).level;
        assert_eq!(level(Some(20_000), Some(18_000)), Level::Ok);
        assert_eq!(level(Some(18_255), Some(18_000)), Level::Fail);
        assert_eq!(level(Some(18_256), Some(18_000)), Level::Ok);
        assert_eq!(level(None, Some(1_000_000)), Level::Ok);
        assert_eq!(level(Some(100), None), Level::Fail);
        assert_eq!(locked_memory(Some(8 * MEBIBYTE), 1).level, Level::Ok);
        assert_eq!(locked_memory(Some(64 * 1024), 1).level, Level::Warn);
        assert_eq!(locked_memory(None, 255).level, Level::Ok);
    }

    #[test]
    fn clocks_and_cores() {
        assert_eq!(clock(2026, Some("chrony")).level, Level::Ok);
        assert_eq!(clock(2026, None).level, Level::Warn);
        assert_eq!(clock(1970, Some("chrony")).level, Level::Fail);
        let level = |shards: &[usize], pin| cores(&[0, 1], shards, shards, pin).level;
        assert_eq!(level(&[0, 1], true), Level::Ok);
        assert_eq!(level(&[0, 2], true), Level::Fail);
        assert_eq!(level(&[0, 2], false), Level::Warn);
        assert_eq!(level(&[0, 0], false), Level::Warn);
    }

    #[test]
    fn ports_and_disks() {
        let address = "127.0.0.1:3333".parse().unwrap();
        assert_eq!(port("a", address, &Ok(())).level, Level::Ok);
        let taken = Err(io::Error::other("127.0.0.1:3333 is taken"));
        assert!(port("a", address, &taken).text().contains("is taken"));
        let of = |free_bytes, millis| {
            let sync = Duration::from_millis(millis);
            disk(Path::new("/a/b"), &Ok(Disk { folder: "/a".into(), free_bytes, sync })).level
        };
        assert_eq!(of(FREE_GOOD, 1), Level::Ok);
        assert_eq!(of(FREE_GOOD - 1, 1), Level::Warn);
        assert_eq!(of(FREE_GOOD, 26), Level::Warn);
        assert_eq!(of(FREE_NEEDED - 1, 1), Level::Fail);
        assert_eq!(disk(Path::new("/a"), &Err("/a: denied".into())).level, Level::Fail);
    }

    /// Goal: whoever reads a line that is not ok knows what to do.
    #[test]
    fn what_is_not_ok_has_a_remedy() {
        let finding = kernel("5.4.0");
        let text = finding.text();
        assert!(text.starts_with("fail  kernel: Linux 5.4.0; needed: 6.0"), "{text}");
        assert!(text.contains("\n      mend: install a newer kernel"), "{text}");
        assert!(!kernel("6.18.5").text().contains("mend"));
    }
}
