//! The export of a large journal by the program and over HTTP: every share, in order, with little
//! memory.
//!
//! `EXPORT_SHARES` says how many; `make export-million` takes a million.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test waits by the clock")]

#[path = "abuse/footprint.rs"]
mod footprint;
#[path = "../crates/journal/tests/made/mod.rs"]
mod made;
mod stack;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use footprint::Footprint;
use journal::{Outcome, Record, Settlement};
use made::disk::Disk;
use stack::events::API_KEY;
use stack::{Settings, Stack, program, proof};
use work::UnixTime;

/// Shares of the journal unless `EXPORT_SHARES` says otherwise.
const SHARES: u64 = 50_000;

/// Shares that have their results together.
const BATCH: u64 = 500;

/// Batches that are accepted before the first has its results: a backend that was away.
const LAG: u64 = 20;

/// What an export may cost in memory.
const GROWTH_MAX: u64 = 64 << 20;

/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

fn shares() -> u64 {
    let set = std::env::var("EXPORT_SHARES");
    set.map_or(SHARES, |text| text.parse().expect("EXPORT_SHARES is a number"))
}

/// Write a journal of that many shares, numbered from 1; all of them are delivered.
fn write_journal(data_dir: &Path, shares: u64) {
    let folder = proof::folder_of(data_dir);
    std::fs::create_dir_all(&folder).unwrap();
    let mut disk = Disk::new(&folder, gateway::limits::SEGMENT_BYTES);
    let mut waiting: Vec<Settlement> = Vec::new();
    for number in 1..=shares {
        let at = UnixTime(made::BEGIN + number);
        let record = Record::Accepted(made::share(number, "a miner, \"quoted\""));
        let event = disk.append(at, &record);
        waiting.push(made::result(number, event, Outcome::Delivered));
        let is_due = waiting.len() as u64 == BATCH * LAG || number == shares;
        for batch in waiting.chunks(BATCH as usize).filter(|_| is_due) {
            disk.append(at, &made::settled(batch.to_vec()));
        }
        if is_due {
            waiting.clear();
        }
    }
    disk.sync();
}

/// Every share of the journal is in these rows, in order, with its result.
fn assert_rows(rows: impl Read, shares: u64) {
    let mut reader = csv::Reader::from_reader(rows);
    let headers = reader.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let (share_id, status) = (column("share_id"), column("status"));
    let mut number = 0;
    for row in reader.records() {
        let row = row.unwrap();
        number += 1;
        assert_eq!(row[share_id], ulid::Ulid(made::share_id(number)).to_string(), "row {number}");
        assert_eq!(&row[status], "delivered", "row {number}");
    }
    assert_eq!(number, shares, "rows");
}

/// The most memory that the program has held, bytes; `None` while it is not yet the program, or has
/// ended.
fn peak(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = |name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim());
    let kibibytes = line("VmHWM:").filter(|_| line("Name:") == Some("reservegrid"))?;
    kibibytes.trim_end_matches(" kB").parse::<u64>().ok().map(|kibibytes| kibibytes * 1_024)
}

/// Export by the program to `path`; the most memory that it held.
fn export_by_program(data_dir: &Path, path: &Path, options: &[&str]) -> u64 {
    let mut command = Command::new(program("reservegrid"));
    command.args(["shares", "export", "--data-dir"]).arg(data_dir);
    command.arg("--output").arg(path).args(options).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut most = 0;
    loop {
        most = most.max(peak(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return most;
        }
        std::thread::park_timeout(LOOK_INTERVAL);
    }
}

/// Export over HTTP to `path`.
fn export_over_http(stack: &Stack, path: &Path) {
    let url = format!("http://{}/api/v1/shares/export.csv", stack.gateway.http_addr());
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let answer = agent.get(&url).header("x-api-key", API_KEY).call().unwrap();
    let mut body = answer.into_body().into_reader();
    std::io::copy(&mut body, &mut File::create(path).unwrap()).unwrap();
}

/// Goal: an export has every share of the journal once and in order, by the program and by a
/// running gateway, and neither needs more memory for many shares than for few.
#[test]
fn a_large_journal() {
    let shares = shares();
    let mut stack = Stack::without_gateway(&Settings::demo("1d00ffff"));
    let data_dir = stack.folder().join("sv2-gateway");
    let began = Instant::now();
    write_journal(&data_dir, shares);
    println!("{shares} shares written in {:?}", began.elapsed());

    let csv = stack.folder().join("shares.csv");
    let few = export_by_program(&data_dir, &csv, &["--limit", "1000"]);
    let began = Instant::now();
    let many = export_by_program(&data_dir, &csv, &[]);
    let growth = many.saturating_sub(few);
    println!("program: {:?}, {many} bytes of memory, {growth} more than for 1000", began.elapsed());
    assert!(few > 0 && growth < GROWTH_MAX, "{few} and {many} bytes");
    assert_rows(File::open(&csv).unwrap(), shares);

    let verifier = stack.verifier.address("listen_addr");
    stack.start_gateway(&verifier);
    let footprint = Footprint::of(stack.gateway.process().id());
    let before = footprint.memory();
    footprint.forget_peak();
    let began = Instant::now();
    export_over_http(&stack, &csv);
    let growth = footprint.memory_peak().saturating_sub(before);
    println!("HTTP: {:?}, memory grew from {before} by {growth} bytes", began.elapsed());
    assert!(growth < GROWTH_MAX, "{growth} bytes");
    assert_rows(File::open(&csv).unwrap(), shares);
}
