//! The record of verdicts: an append-only file of bounded size, and the last ones in memory.
//!
//! Judging never waits for the disk: a thread of its own writes, and when it cannot keep up the
//! records that do not fit are counted as dropped.
#![allow(clippy::disallowed_methods, reason = "driver: writes files")]

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use policy::Context;
use serde::Serialize;
use serde_json::value::RawValue;
use work::BlockHash;
use work::contract::verifier::{ProposeReason, TemplateVerdict, Totals};

use crate::limits::{LOG_QUEUE_MAX, VERDICTS_RECENT_MAX};

/// One line of `verdicts.ndjson`.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// When the verdict was given, milliseconds since 1970.
    pub unix_ms: u64,
    /// Who gave it.
    pub verifier_id: &'a str,
    /// Who asked.
    pub gateway_id: &'a str,
    /// What was asked, without the transactions.
    pub propose: Proposed,
    /// The verdict as it was sent.
    pub verdict: &'a TemplateVerdict,
    /// What it rested on.
    pub context: &'a Context,
}

/// The parts of a proposal that a reader of the log asks for.
#[derive(Debug, Serialize)]
pub struct Proposed {
    /// Why it was made.
    pub reason: ProposeReason,
    /// Parent block.
    pub prev_hash: BlockHash,
    /// Height of the block.
    pub height: u32,
    /// Subsidy and fees, satoshi.
    pub coinbase_value: u64,
    /// Transactions that were judged.
    pub tx_count: usize,
    /// What the proposer adds up.
    pub totals: Totals,
}

/// The record of all verdicts.
#[derive(Debug)]
pub struct Records {
    recent: Mutex<VecDeque<Arc<RawValue>>>,
    log: Mutex<Option<SyncSender<Arc<RawValue>>>>,
}

impl Records {
    /// Records that go on with the log in `data_dir`, and the thread that writes it.
    ///
    /// # Errors
    /// If the log cannot be opened.
    pub fn open(
        data_dir: &Path,
        bytes_max: u64,
        files_max: usize,
    ) -> io::Result<(Records, std::thread::JoinHandle<()>)> {
        let mut log = Log::open(data_dir, bytes_max, files_max)?;
        let (sender, receiver): (_, Receiver<Arc<RawValue>>) = sync_channel(LOG_QUEUE_MAX);
        let thread =
            std::thread::Builder::new().name("verdict-log".to_owned()).spawn(move || {
                let mut is_failing = false;
                for record in receiver {
                    let written = log.append(record.get());
                    if let Err(error) = &written
                        && !is_failing
                    {
                        tracing::error!(%error, "verdict log: records are being lost");
                    }
                    is_failing = written.is_err();
                }
            })?;
        let records =
            Records { recent: Mutex::new(VecDeque::new()), log: Mutex::new(Some(sender)) };
        Ok((records, thread))
    }

    /// Keep `record`. False if the log's queue is full and only memory has it.
    pub fn add(&self, record: &Record<'_>) -> bool {
        let Ok(line) = serde_json::value::to_raw_value(record) else { return false };
        let line: Arc<RawValue> = line.into();
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if recent.len() >= VERDICTS_RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back(Arc::clone(&line));
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.as_ref().is_some_and(|log| log.try_send(line).is_ok())
    }

    /// The last `limit` records, newest first.
    pub fn recent(&self, limit: usize) -> Vec<Arc<RawValue>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().rev().take(limit).cloned().collect()
    }

    /// Take no more records; the thread ends when it has written those it has.
    pub fn close(&self) {
        drop(self.log.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// `verdicts.ndjson`, and before it `verdicts.1.ndjson`, `verdicts.2.ndjson` and so on.
struct Log {
    data_dir: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    files_max: usize,
}

impl Log {
    fn open(data_dir: &Path, bytes_max: u64, files_max: usize) -> io::Result<Log> {
        let mut file =
            OpenOptions::new().create(true).read(true).append(true).open(log_path(data_dir, 0))?;
        let mut bytes = file.seek(SeekFrom::End(0))?;
        if bytes > 0 {
            // A process that was killed may have left half a line.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != [b'\n'] {
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        Ok(Log { data_dir: data_dir.to_owned(), file, bytes, bytes_max, files_max })
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (0..self.files_max.saturating_sub(1)).rev() {
            let from = log_path(&self.data_dir, number);
            if from.exists() {
                std::fs::rename(from, log_path(&self.data_dir, number + 1))?;
            }
        }
        let path = log_path(&self.data_dir, 0);
        self.file = OpenOptions::new().create(true).append(true).open(&path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }
}

fn log_path(data_dir: &Path, number: usize) -> PathBuf {
    match number {
        0 => data_dir.join("verdicts.ndjson"),
        number => data_dir.join(format!("verdicts.{number}.ndjson")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(data_dir: &Path, number: usize) -> Vec<String> {
        let text = std::fs::read_to_string(log_path(data_dir, number)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 20, 3).unwrap();
        for number in 0..10 {
            log.append(&format!("line {number:04}")).unwrap();
        }
        assert_eq!(lines(folder.path(), 0), ["line 0008", "line 0009"]);
        assert_eq!(lines(folder.path(), 1), ["line 0006", "line 0007"]);
        assert_eq!(lines(folder.path(), 2), ["line 0004", "line 0005"]);
        assert!(!log_path(folder.path(), 3).exists());
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(log_path(folder.path(), 0), "whole\nhal").unwrap();
        Log::open(folder.path(), 1_000, 2).unwrap().append("next").unwrap();
        assert_eq!(lines(folder.path(), 0), ["whole", "hal", "next"]);
    }
}
