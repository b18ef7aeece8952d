//! What is credited: a SQLite file in which every share hash counts once, for ever.
//!
//! `share_id` makes delivery idempotent: the same id always gets the result it got first.
//! `share_hash` decides credit: a hash that has been credited under another id is refused as
//! `duplicate` (D25). Both rules are unique indexes, so they hold across restarts and bugs.
//!
//! One batch is one transaction, synced before it is answered (WAL, `synchronous = FULL`). The
//! table of shares is the pool's book and the only thing that grows without a bound, one row a
//! share; answers by batch id are pruned to [`BATCHES_KEPT`].

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use work::Work;
use work::contract::shares::{
    BATCH_SHARES_MAX, ShareAnswer, ShareBatch, SharePayload, ShareResult,
};

use crate::limits::{BATCHES_KEPT, STATUS_MINERS_MAX, STORAGE_LOCK_TIMEOUT, TEXT_BYTES_MAX};

/// Reason of a share whose hash has been credited already.
pub const DUPLICATE: &str = "duplicate";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS shares (
    share_id    TEXT PRIMARY KEY,
    share_hash  BLOB NOT NULL,
    credited    INTEGER NOT NULL,
    gateway_id  TEXT NOT NULL,
    miner_id    TEXT NOT NULL,
    worker_id   TEXT,
    height      INTEGER NOT NULL,
    work        BLOB NOT NULL,
    block_found INTEGER NOT NULL,
    accepted_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS credited_hash ON shares (share_hash) WHERE credited = 1;
CREATE TABLE IF NOT EXISTS batches (
    number      INTEGER PRIMARY KEY,
    batch_id    TEXT NOT NULL UNIQUE,
    share_ids   BLOB NOT NULL,
    answer      TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS miners (
    miner_id    TEXT PRIMARY KEY,
    shares      INTEGER NOT NULL,
    duplicates  INTEGER NOT NULL,
    blocks      INTEGER NOT NULL,
    work        BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS miners_by_work ON miners (work DESC);
CREATE TABLE IF NOT EXISTS totals (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    shares      INTEGER NOT NULL,
    duplicates  INTEGER NOT NULL,
    conflicts   INTEGER NOT NULL,
    batches     INTEGER NOT NULL,
    repeated    INTEGER NOT NULL,
    blocks      INTEGER NOT NULL,
    work        BLOB NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0, 0, 0, 0, zeroblob(16));
";

/// Why a batch is not booked.
#[derive(Debug)]
pub enum LedgerError {
    /// The batch contradicts itself or a bound; sending it again changes nothing.
    Unusable(String),
    /// More shares than a batch may have.
    TooManyShares(usize),
    /// The file could not be read or written; the same batch may succeed later.
    Storage(rusqlite::Error),
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LedgerError::Unusable(why) => f.write_str(why),
            LedgerError::TooManyShares(count) => write!(
                f,
                "{count} shares in one batch, at most {BATCH_SHARES_MAX} are taken; split it"
            ),
            LedgerError::Storage(error) => write!(f, "ledger file: {error}"),
        }
    }
}

impl std::error::Error for LedgerError {}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> LedgerError {
        LedgerError::Storage(error)
    }
}

/// Sums over everything ever booked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Credited shares.
    pub shares: u64,
    /// Shares refused because their hash had been credited already.
    pub duplicates: u64,
    /// Those of them whose hash had come from another gateway: an alarm (D25).
    pub conflicts: u64,
    /// Batches booked.
    pub batches: u64,
    /// Batches that came again and got their first answer.
    pub repeated: u64,
    /// Credited shares that are blocks.
    pub blocks: u64,
    /// Credited work, in units of 2^-32 difficulty.
    pub work: Work,
}

/// Sums of one miner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerTotals {
    /// Its name, without its secret.
    pub miner_id: String,
    /// Credited shares.
    pub shares: u64,
    /// Refused as duplicates.
    pub duplicates: u64,
    /// Blocks among the credited.
    pub blocks: u64,
    /// Credited work, in units of 2^-32 difficulty.
    pub work: Work,
}

/// What `/status` shows of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Sums over everything.
    #[serde(flatten)]
    pub totals: Totals,
    /// The [`STATUS_MINERS_MAX`] miners with the most work, the most first.
    pub miners: Vec<MinerTotals>,
}

/// The open ledger. One thread owns it.
#[derive(Debug)]
pub struct Ledger {
    connection: Connection,
}

impl Ledger {
    /// Opens the file, making it if it does not exist.
    ///
    /// # Errors
    /// The file cannot be opened or is not a ledger.
    pub fn open(path: &Path) -> Result<Ledger, LedgerError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(STORAGE_LOCK_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Ledger { connection })
    }

    /// Books a batch in one transaction and gives its answer. The answer is durable on return.
    ///
    /// # Errors
    /// The batch contradicts itself, is too large, or the file fails. Nothing is booked then.
    pub fn credit(&mut self, batch: &ShareBatch) -> Result<ShareAnswer, LedgerError> {
        let work = check(batch)?;
        let share_ids = share_ids_digest(batch);
        let transaction = self.connection.transaction()?;
        let mut totals = read_totals(&transaction)?;
        let known: Option<(Vec<u8>, String)> = transaction
            .prepare_cached("SELECT share_ids, answer FROM batches WHERE batch_id = ?1")?
            .query_row([&batch.batch_id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((known_ids, answer)) = known {
            if known_ids != share_ids {
                return Err(LedgerError::Unusable(format!(
                    "batch_id {} has been used for other shares; give every batch an id of its own",
                    batch.batch_id
                )));
            }
            totals.repeated += 1;
            write_totals(&transaction, &totals)?;
            transaction.commit()?;
            return serde_json::from_str(&answer).map_err(|error| {
                LedgerError::Unusable(format!("stored answer of {}: {error}", batch.batch_id))
            });
        }
        if totals.work.0.checked_add(work.0).is_none() {
            return Err(LedgerError::Unusable("the sum of all work exceeds 128 bits".to_owned()));
        }
        let mut results = Vec::with_capacity(batch.shares.len());
        for share in &batch.shares {
            results.push(book(&transaction, &batch.gateway_id, share, &mut totals)?);
        }
        totals.batches += 1;
        write_totals(&transaction, &totals)?;
        let answer = ShareAnswer { batch_id: batch.batch_id.clone(), results };
        remember_batch(&transaction, &answer, &share_ids)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Writes something that changes nothing, as durably as a batch.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn try_write(&mut self) -> Result<(), LedgerError> {
        let transaction = self.connection.transaction()?;
        write_totals(&transaction, &read_totals(&transaction)?)?;
        Ok(transaction.commit()?)
    }

    /// The sums and the first miners.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, LedgerError> {
        let totals = read_totals(&self.connection)?;
        let mut statement = self.connection.prepare_cached(
            "SELECT miner_id, shares, duplicates, blocks, work FROM miners
             ORDER BY work DESC, miner_id LIMIT ?1",
        )?;
        let miners = statement
            .query_map([STATUS_MINERS_MAX as u64], |row| {
                Ok(MinerTotals {
                    miner_id: row.get(0)?,
                    shares: row.get(1)?,
                    duplicates: row.get(2)?,
                    blocks: row.get(3)?,
                    work: Work(u128::from_be_bytes(row.get(4)?)),
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(Snapshot { totals, miners })
    }
}

/// Everything about a batch that needs no ledger; gives the sum of its work.
fn check(batch: &ShareBatch) -> Result<Work, LedgerError> {
    let unusable = |why: String| Err(LedgerError::Unusable(why));
    if batch.shares.len() > BATCH_SHARES_MAX {
        return Err(LedgerError::TooManyShares(batch.shares.len()));
    }
    if batch.count != batch.shares.len() {
        let (said, found) = (batch.count, batch.shares.len());
        return unusable(format!("count says {said} shares, the list has {found}"));
    }
    let mut sum = Work::ZERO;
    for share in &batch.shares {
        match sum.0.checked_add(share.work.0) {
            Some(units) => sum = Work(units),
            None => return unusable("the work of the shares exceeds 128 bits".to_owned()),
        }
        let worker = share.worker_id.as_deref().unwrap_or("-");
        let texts = [&share.share_id, &share.miner_id, worker, &share.accepted_at];
        if texts.iter().any(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX) {
            let id = share.share_id.escape_debug().take(TEXT_BYTES_MAX).collect::<String>();
            return unusable(format!(
                "share {id}: share_id, miner_id, worker_id and accepted_at have 1 to \
                 {TEXT_BYTES_MAX} bytes"
            ));
        }
    }
    if sum != batch.work {
        return unusable(format!("work says {}, the shares add up to {sum}", batch.work));
    }
    for text in [&batch.batch_id, &batch.gateway_id] {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return unusable(format!("batch_id and gateway_id have 1 to {TEXT_BYTES_MAX} bytes"));
        }
    }
    Ok(sum)
}

/// Names the set of shares of a batch: SHA-256 over its ids, each with its length before it.
fn share_ids_digest(batch: &ShareBatch) -> Vec<u8> {
    let mut digest = Sha256::new();
    for share in &batch.shares {
        digest.update((share.share_id.len() as u64).to_be_bytes());
        digest.update(&share.share_id);
    }
    digest.finalize().to_vec()
}

/// Books one share, or finds what became of it earlier.
fn book(
    transaction: &Transaction<'_>,
    gateway_id: &str,
    share: &SharePayload,
    totals: &mut Totals,
) -> Result<ShareResult, LedgerError> {
    let known: Option<(bool, [u8; 32])> = transaction
        .prepare_cached("SELECT credited, share_hash FROM shares WHERE share_id = ?1")?
        .query_row([&share.share_id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((credited, hash)) = known {
        if hash != share.share_hash.0 {
            return Err(LedgerError::Unusable(format!(
                "share_id {} has been used for another share_hash",
                share.share_id
            )));
        }
        return Ok(result(share, credited));
    }
    let earlier: Option<String> = transaction
        .prepare_cached("SELECT gateway_id FROM shares WHERE share_hash = ?1 AND credited = 1")?
        .query_row([share.share_hash.0.as_slice()], |row| row.get(0))
        .optional()?;
    let credited = earlier.is_none();
    if credited {
        totals.shares += 1;
        totals.blocks += u64::from(share.block_found);
        totals.work += share.work;
    } else {
        totals.duplicates += 1;
        totals.conflicts += u64::from(earlier.as_deref() != Some(gateway_id));
    }
    transaction
        .prepare_cached("INSERT INTO shares VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute(params![
            share.share_id,
            share.share_hash.0.as_slice(),
            credited,
            gateway_id,
            share.miner_id,
            share.worker_id,
            share.height,
            share.work.0.to_be_bytes().as_slice(),
            share.block_found,
            share.accepted_at,
        ])?;
    add_to_miner(transaction, share, credited)?;
    Ok(result(share, credited))
}

fn result(share: &SharePayload, credited: bool) -> ShareResult {
    ShareResult {
        share_id: share.share_id.clone(),
        accepted: credited,
        reason: (!credited).then(|| DUPLICATE.to_owned()),
    }
}

fn add_to_miner(
    transaction: &Transaction<'_>,
    share: &SharePayload,
    credited: bool,
) -> Result<(), LedgerError> {
    let before: Option<[u8; 16]> = transaction
        .prepare_cached("SELECT work FROM miners WHERE miner_id = ?1")?
        .query_row([&share.miner_id], |row| row.get(0))
        .optional()?;
    // A miner's sum is part of the total, which the caller has checked to fit.
    let mut work = Work(u128::from_be_bytes(before.unwrap_or_default()));
    if credited {
        work += share.work;
    }
    transaction
        .prepare_cached(
            "INSERT INTO miners VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (miner_id) DO UPDATE SET
             shares = shares + ?2, duplicates = duplicates + ?3, blocks = blocks + ?4, work = ?5",
        )?
        .execute(params![
            share.miner_id,
            u64::from(credited),
            u64::from(!credited),
            u64::from(credited && share.block_found),
            work.0.to_be_bytes().as_slice(),
        ])?;
    Ok(())
}

fn remember_batch(
    transaction: &Transaction<'_>,
    answer: &ShareAnswer,
    share_ids: &[u8],
) -> Result<(), LedgerError> {
    let text = serde_json::to_string(answer)
        .map_err(|error| LedgerError::Unusable(format!("answer: {error}")))?;
    transaction
        .prepare_cached("INSERT INTO batches (batch_id, share_ids, answer) VALUES (?1, ?2, ?3)")?
        .execute(params![answer.batch_id, share_ids, text])?;
    let number = u64::try_from(transaction.last_insert_rowid()).unwrap_or(0);
    transaction
        .prepare_cached("DELETE FROM batches WHERE number <= ?1")?
        .execute([number.saturating_sub(BATCHES_KEPT)])?;
    Ok(())
}

fn read_totals(connection: &Connection) -> Result<Totals, LedgerError> {
    let mut statement = connection.prepare_cached(
        "SELECT shares, duplicates, conflicts, batches, repeated, blocks, work FROM totals",
    )?;
    Ok(statement.query_row([], |row| {
        Ok(Totals {
            shares: row.get(0)?,
            duplicates: row.get(1)?,
            conflicts: row.get(2)?,
            batches: row.get(3)?,
            repeated: row.get(4)?,
            blocks: row.get(5)?,
            work: Work(u128::from_be_bytes(row.get(6)?)),
        })
    })?)
}

fn write_totals(transaction: &Transaction<'_>, totals: &Totals) -> Result<(), LedgerError> {
    transaction
        .prepare_cached(
            "UPDATE totals SET shares = ?1, duplicates = ?2, conflicts = ?3, batches = ?4,
             repeated = ?5, blocks = ?6, work = ?7",
        )?
        .execute(params![
            totals.shares,
            totals.duplicates,
            totals.conflicts,
            totals.batches,
            totals.repeated,
            totals.blocks,
            totals.work.0.to_be_bytes().as_slice(),
        ])?;
    Ok(())
}
