//! Exports of whole journals: every share is there once, with what became of it, in little memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod made;

use std::collections::BTreeMap;
use std::process::Command;

use journal::Outcome;
use journal::export::{Bounds, Columns, Exporter, Filter, Format, Status};
use journal::folder::Folder;
use made::Course;
use made::disk::Disk;
use serde_json::Value;
use work::UnixTime;

/// A row by column.
type Row = BTreeMap<String, String>;

/// Everything that is left of an export.
fn rest(mut exporter: Exporter) -> Vec<u8> {
    let mut out = Vec::new();
    while exporter.fill(&mut out).unwrap() {}
    out
}

fn rows(csv: &[u8]) -> Vec<Row> {
    let mut reader = csv::Reader::from_reader(csv);
    reader.deserialize().map(|row| row.unwrap()).collect()
}

fn export(folder: &Folder, filter: Filter) -> Vec<Row> {
    let exporter = Exporter::open(folder, filter, Columns::all(), Format::Csv, u64::MAX).unwrap();
    rows(&rest(exporter))
}

/// A journal of `shares`, with segments so small that there are many.
fn journal(shares: u64, batch: u64, lag: usize) -> (tempfile::TempDir, Folder) {
    let temporary = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(temporary.path(), 64 << 10);
    made::journal(&mut disk, shares, batch, lag);
    let folder = Folder::open(temporary.path()).unwrap();
    (temporary, folder)
}

fn status(course: Course) -> Status {
    match course {
        Course::AtOnce(outcome) | Course::Late(outcome) => match outcome {
            Outcome::Delivered => Status::Delivered,
            Outcome::Duplicate => Status::Duplicate,
            Outcome::RejectedByUpstream => Status::RejectedByUpstream,
            Outcome::DeadLettered => Status::DeadLettered,
        },
        Course::Dead => Status::DeadLetter,
        Course::Replayed | Course::Open => Status::Open,
    }
}

/// Number of a share.
fn number(share_id: &str) -> u64 {
    share_id.parse::<ulid::Ulid>().unwrap().0 as u64
}

/// A text as a spreadsheet is given it.
fn guarded(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("{}{text}", if is_formula { "'" } else { "" })
}

/// Whether a row says what the generator did with its share.
fn check(row: &Row, shares: u64) -> u64 {
    let number = number(&row["share_id"]);
    if number > shares {
        assert_eq!((&*row["status"], &*row["sv2_response"]), ("refused", "error"));
        assert_eq!(row["reason_code"], "stale_prevhash");
        return number;
    }
    let course = made::course(number, shares);
    assert_eq!(row["status"], status(course).name(), "share {number}");
    assert_eq!(row["miner_id"], guarded(made::miner(number)));
    assert_eq!((&*row["reason_code"], &*row["sv2_response"]), ("ok", "success"));
    let (forwarded, accepted, http_status, attempts) = match course {
        Course::AtOnce(outcome) | Course::Late(outcome) => {
            let accepted = outcome.upstream_accepted().map(|flag| flag.to_string());
            (outcome != Outcome::DeadLettered, accepted.unwrap_or_default(), "200", "2")
        }
        Course::Dead => (false, String::new(), "422", ""),
        Course::Replayed | Course::Open => (false, String::new(), "", ""),
    };
    assert_eq!(row["forwarded"], forwarded.to_string());
    assert_eq!(row["upstream_accepted"], accepted);
    assert_eq!(row["upstream_http_status"], http_status);
    assert_eq!(row["attempts"], attempts);
    let detail = match course {
        Course::AtOnce(outcome) | Course::Late(outcome) => {
            guarded(&made::result(number, 0, outcome).error_detail)
        }
        Course::Dead => "'=no such pool".to_owned(),
        Course::Replayed | Course::Open => String::new(),
    };
    assert_eq!(row["error_detail"], detail);
    assert_eq!(row["forwarded_at"].is_empty(), attempts.is_empty());
    number
}

/// All numbers of a journal of `shares`, in the order in which they were judged.
fn numbers(shares: u64) -> Vec<u64> {
    let refused = |number: u64| (number.is_multiple_of(50)).then_some(shares + number);
    (1..=shares).flat_map(|number| [Some(number), refused(number)]).flatten().collect()
}

#[test]
fn every_share_is_a_row_whatever_the_lag_and_however_little_is_kept() {
    const SHARES: u64 = 3_000;
    for (batch, lag) in [(1, 0), (16, 4), (64, 9), (512, usize::MAX)] {
        let (_temporary, folder) = journal(SHARES, batch, lag);
        for (found, late) in [(1 << 17, 1 << 17), (600, 40), (32, 4), (2, 1)] {
            let bounds = Bounds { found, late };
            let filter = Filter::default();
            let columns = Columns::all();
            let exporter =
                Exporter::bounded(&folder, filter, columns, Format::Csv, u64::MAX, bounds).unwrap();
            let rows = rows(&rest(exporter));
            let seen: Vec<u64> = rows.iter().map(|row| check(row, SHARES)).collect();
            assert_eq!(seen, numbers(SHARES), "batch {batch}, lag {lag}, {bounds:?}");
        }
    }
}

#[test]
fn filters_choose_the_rows_that_the_whole_export_has() {
    const SHARES: u64 = 2_000;
    let (_temporary, folder) = journal(SHARES, 64, 3);
    let all = export(&folder, Filter::default());
    let where_ = |wanted: &dyn Fn(&Row) -> bool| -> Vec<Row> {
        all.iter().filter(|row| wanted(row)).cloned().collect()
    };
    let miner = Filter { miner: Some("=SUM(A1:A9)".to_owned()), ..Filter::default() };
    assert_eq!(export(&folder, miner), where_(&|row| row["miner_id"] == "'=SUM(A1:A9)"));
    for wanted in Status::ALL {
        let statuses = Filter::parse_statuses(wanted.name()).unwrap();
        let found = export(&folder, Filter { statuses, ..Filter::default() });
        assert!(!found.is_empty(), "{wanted:?}");
        assert_eq!(found, where_(&|row| row["status"] == wanted.name()));
    }
    let (from, to) = (UnixTime(made::BEGIN + 700), UnixTime(made::BEGIN + 900));
    let time = Filter { from: Some(from), to: Some(to), ..Filter::default() };
    let between = |row: &Row| (700..900).contains(&number(&row["share_id"]));
    let found = export(&folder, time);
    let accepted: Vec<Row> = found.into_iter().filter(|row| row["status"] != "refused").collect();
    assert_eq!(accepted, where_(&between));
}

#[test]
fn an_export_that_was_cut_off_goes_on_behind_any_row() {
    const SHARES: u64 = 400;
    let (_temporary, folder) = journal(SHARES, 16, 2);
    let all = export(&folder, Filter::default());
    for cut in 1..all.len() {
        let limit = Some(cut as u64);
        let filter = Filter { limit, ..Filter::default() };
        let mut first =
            Exporter::open(&folder, filter, Columns::all(), Format::Csv, u64::MAX).unwrap();
        let mut out = Vec::new();
        while first.fill(&mut out).unwrap() {}
        assert_eq!(first.rows(), cut as u64);
        let after = first.last_event();
        assert_eq!(after.to_string(), all[cut - 1]["event_id"]);
        let mut joined = rows(&out);
        joined.extend(export(&folder, Filter { after, ..Filter::default() }));
        assert_eq!(joined, all, "cut behind row {cut}");
    }
}

#[test]
fn csv_is_rfc_4180_and_json_says_the_same() {
    let (_temporary, folder) = journal(300, 16, 2);
    let columns = || Columns::parse("miner_id, share_id,error_detail,upstream_accepted").unwrap();
    let open =
        |format| Exporter::open(&folder, Filter::default(), columns(), format, u64::MAX).unwrap();
    let csv = rest(open(Format::Csv));
    let text = String::from_utf8(csv.clone()).unwrap();
    assert!(text.starts_with("miner_id,share_id,error_detail,upstream_accepted\r\n"));
    assert!(text.contains("\"a \"\"quoted\"\", name\r\n=2\","));
    assert!(text.contains("\r\n'=SUM(A1:A9),") && text.contains("\r\n'\tx,"));
    let rows = rows(&csv);
    for row in &rows {
        assert_eq!(row.len(), 4);
        let is_formula = |text: &String| text.starts_with(['=', '+', '-', '@', '\t', '\r']);
        assert!(!row.values().any(is_formula), "{row:?}");
    }
    let json = String::from_utf8(rest(open(Format::Ndjson))).unwrap();
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), rows.len());
    assert!(json.starts_with("{\"miner_id\":\"=SUM(A1:A9)\",\"share_id\":"));
    for (line, row) in lines.iter().zip(&rows) {
        let text = |column: &str| match &line[column] {
            Value::Null => String::new(),
            Value::String(text) => guarded(text),
            other => other.to_string(),
        };
        assert!(row.iter().all(|(column, value)| text(column) == *value), "{line} {row:?}");
    }
}

#[test]
fn the_header_is_the_contract() {
    let (_temporary, folder) = journal(1, 1, 0);
    let exporter =
        Exporter::open(&folder, Filter::default(), Columns::all(), Format::Csv, 1).unwrap();
    let golden = include_str!("golden/export.csv").trim_end();
    assert_eq!(String::from_utf8(rest(exporter)).unwrap(), format!("{golden}\r\n"));
    let unknown = Columns::parse("share_id,shareid").unwrap_err().to_string();
    assert!(unknown.starts_with("\"shareid\" is no column; expected some of share_id, timestamp,"));
    assert!(Filter::parse_statuses("open,lost").unwrap_err().to_string().contains("dead_letter"));
    assert_eq!(Columns::parse(" ").unwrap(), Columns::all());
}

#[test]
fn an_export_ends_at_its_head() {
    let (_temporary, folder) = journal(200, 16, 2);
    let open = |below| {
        Exporter::open(&folder, Filter::default(), Columns::all(), Format::Csv, below).unwrap()
    };
    let whole = rows(&rest(open(u64::MAX)));
    for below in [1, 2, 20, 150] {
        let part = rows(&rest(open(below)));
        let expected = whole.iter().filter(|row| row["event_id"].parse::<u64>().unwrap() < below);
        assert_eq!(part.len(), expected.count());
        for row in part.iter().filter(|row| row["status"] != "refused") {
            // The results of the first batch come behind its second.
            assert!(below > 33 || row["status"] == "open", "{below}: {row:?}");
        }
    }
}

/// Bytes of this process by a line of its status.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse::<u64>().unwrap() * 1_024
}

/// In a process of its own, so that memory of the generator is not taken for room.
fn exporting_process(folder: &str, shares: u64) {
    let folder = Folder::open(folder).unwrap();
    let before = memory("VmRSS");
    let mut exporter =
        Exporter::open(&folder, Filter::default(), Columns::all(), Format::Csv, u64::MAX).unwrap();
    let mut seen = vec![false; 2 * shares as usize + 1];
    let (mut out, mut headers, mut last) = (Vec::new(), None, 0);
    loop {
        let more = exporter.fill(&mut out).unwrap();
        let mut reader =
            csv::ReaderBuilder::new().has_headers(headers.is_none()).from_reader(&out[..]);
        let headers = headers.get_or_insert_with(|| reader.headers().unwrap().clone());
        for record in reader.records() {
            let row: Row = record.unwrap().deserialize(Some(headers)).unwrap();
            let number = check(&row, shares);
            assert!(!std::mem::replace(&mut seen[number as usize], true), "{number} twice");
            let event: u64 = row["event_id"].parse().unwrap();
            assert!(event > last);
            last = event;
        }
        out.clear();
        if !more {
            break;
        }
    }
    assert_eq!(seen.iter().filter(|seen| **seen).count() as u64, shares + shares / 50);
    assert_eq!(exporter.rows(), shares + shares / 50);
    let growth = memory("VmHWM").saturating_sub(before);
    println!("exported {shares} shares, resident memory grew by {} KiB", growth >> 10);
    assert!(growth < 64 << 20, "resident memory grew by {} KiB", growth >> 10);
}

/// `SHARES=1000000` for the full length. The lag is that of a backend that was away: all shares
/// are accepted before the first result, and some thousand never have one or have it at the end.
#[test]
fn a_large_export_takes_little_memory() {
    let shares: u64 = std::env::var("SHARES").map_or(200_000, |text| text.parse().unwrap());
    if let Ok(folder) = std::env::var("EXPORT_FOLDER") {
        return exporting_process(&folder, shares);
    }
    for lag in [100, usize::MAX] {
        let temporary = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(temporary.path(), 16 << 20);
        made::journal(&mut disk, shares, 512, lag);
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_large_export_takes_little_memory", "--nocapture"])
            .env("EXPORT_FOLDER", temporary.path())
            .env("SHARES", shares.to_string())
            .status();
        assert!(status.unwrap().success());
    }
}
