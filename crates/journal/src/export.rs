//! Shares as rows of CSV (RFC 4180) or as lines of JSON, each with what became of it.
//!
//! Rows stand in the order of acceptance, which is the order of `event_id`. So an export that was
//! cut off goes on behind its last row ([`Filter::after`]) without a gap and without a row twice.
//! Every judged share is a row: accepted ones with their result as of the head at which the export
//! began, refused ones with their reason. [`crate::results`] says how results are found and what
//! that keeps in memory: some 20 MiB at most, however long the log is.
//!
//! Spreadsheets take a field for a formula if it begins with `=`, `+`, `-`, `@`, a tab or a
//! carriage return; such a field of CSV gets an apostrophe before it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use csv::{Terminator, WriterBuilder};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use work::{UnixTime, Work};

use crate::event::{DifficultyNumber, Moment, ShareId, achieved, is_forwarded};
use crate::folder::{Cursor, Folder, FolderError};
use crate::record::{Outcome, Record};
pub use crate::results::Bounds;
use crate::results::{Fate, Results};
use crate::share::{Refusal, Share};
pub use crate::unknown::UnknownName;

/// Bytes that one [`Exporter::fill`] is content with.
pub const FILL_BYTES: usize = 64 * 1024;

/// How much later than its acceptance a share may have been written, milliseconds: an export up to
/// some time reads on this long behind it.
const WRITTEN_LATE_MILLIS: u64 = 3_600_000;

/// Form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180: a header row, lines that end in CR LF.
    Csv,
    /// One JSON object a line, its fields in the order of the columns.
    Ndjson,
}

/// Where a share stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Accepted, without a result yet.
    Open,
    /// Accepted, not taken by the backend, waiting for an operator; without a result yet.
    DeadLetter,
    /// Credited.
    Delivered,
    /// The backend had it.
    Duplicate,
    /// Not credited.
    RejectedByUpstream,
    /// Given up by an operator.
    DeadLettered,
    /// Never accepted.
    Refused,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 7] = [
        Status::Open,
        Status::DeadLetter,
        Status::Delivered,
        Status::Duplicate,
        Status::RejectedByUpstream,
        Status::DeadLettered,
        Status::Refused,
    ];

    /// Its name in filters.
    pub fn name(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::DeadLetter => "dead_letter",
            Status::Delivered => Outcome::Delivered.name(),
            Status::Duplicate => Outcome::Duplicate.name(),
            Status::RejectedByUpstream => Outcome::RejectedByUpstream.name(),
            Status::DeadLettered => Outcome::DeadLettered.name(),
            Status::Refused => "refused",
        }
    }

    fn of(fate: Option<&Fate>) -> Status {
        match fate.map(|fate| fate.outcome) {
            None => Status::Open,
            Some(None) => Status::DeadLetter,
            Some(Some(Outcome::Delivered)) => Status::Delivered,
            Some(Some(Outcome::Duplicate)) => Status::Duplicate,
            Some(Some(Outcome::RejectedByUpstream)) => Status::RejectedByUpstream,
            Some(Some(Outcome::DeadLettered)) => Status::DeadLettered,
        }
    }
}

impl FromStr for Status {
    type Err = UnknownName;
    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Status::ALL.into_iter().find(|status| status.name() == text).ok_or_else(|| UnknownName {
            what: "status",
            name: text.to_owned(),
            expected: Status::ALL.iter().map(|status| status.name()).collect(),
        })
    }
}

macro_rules! columns {
    ($($(#[$page:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// One column of an export.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Column {
            $($(#[$page])* $name),*
        }

        impl Column {
            /// All of them, in their order; it only grows at its end.
            pub const ALL: &'static [Column] = &[$(Column::$name),*];

            /// Its name in the header.
            pub fn name(self) -> &'static str {
                match self {
                    $(Column::$name => $text),*
                }
            }
        }
    };
}

columns! {
    /// ULID.
    ShareId = "share_id",
    /// When it was judged.
    Timestamp = "timestamp",
    /// Who is credited.
    MinerId = "miner_id",
    /// The worker behind the miner.
    WorkerId = "worker_id",
    /// Channel.
    ChannelId = "channel_id",
    /// Job as the miner named it.
    JobId = "job_id",
    /// Template behind the job.
    TemplateId = "template_id",
    /// Parent block.
    PrevHash = "prev_hash",
    /// Difficulty it was accepted under.
    Difficulty = "difficulty",
    /// Difficulty it meets.
    ShareDifficulty = "share_difficulty",
    /// Credit, in units of 2^-32 difficulty.
    Work = "work",
    /// `ok`, or why it was refused.
    ReasonCode = "reason_code",
    /// `success` or `error`.
    Sv2Response = "sv2_response",
    /// Whether it is a block.
    BlockFound = "block_found",
    /// Whether the backend has it.
    Forwarded = "forwarded",
    /// Whether the backend credits it; empty if unknown.
    UpstreamAccepted = "upstream_accepted",
    /// The answer.
    UpstreamHttpStatus = "upstream_http_status",
    /// POSTs that it took.
    Attempts = "attempts",
    /// When the result was recorded.
    ForwardedAt = "forwarded_at",
    /// What the backend or an operator said.
    ErrorDetail = "error_detail",
    /// Number of its event: where to go on.
    EventId = "event_id",
    /// [`Status`].
    Status = "status",
    /// Shares that the row stands for: refused ones are recorded one by one only up to a rate.
    Count = "count",
    /// Hash of its header.
    ShareHash = "share_hash",
}

/// Which columns, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// All of them.
    pub fn all() -> Columns {
        Columns(Column::ALL.to_vec())
    }

    /// Those that `names` names, separated by commas; all of them if it is empty.
    ///
    /// # Errors
    /// The first name that is no column.
    pub fn parse(names: &str) -> Result<Columns, UnknownName> {
        if names.trim().is_empty() {
            return Ok(Columns::all());
        }
        let column = |name: &str| {
            let all = Column::ALL.iter().copied();
            all.clone().find(|column| column.name() == name).ok_or_else(|| UnknownName {
                what: "column",
                name: name.to_owned(),
                expected: all.map(Column::name).collect(),
            })
        };
        let columns: Result<Vec<Column>, _> = names.split(',').map(str::trim).map(column).collect();
        let mut chosen: Vec<Column> = Vec::new();
        for column in columns? {
            // A column twice would be a name twice in a JSON object.
            if !chosen.contains(&column) {
                chosen.push(column);
            }
        }
        Ok(Columns(chosen))
    }
}

/// Which shares.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Judged at this time or later.
    pub from: Option<UnixTime>,
    /// Judged before this time.
    pub to: Option<UnixTime>,
    /// Of this miner.
    pub miner: Option<String>,
    /// Of one of these; empty for all.
    pub statuses: Vec<Status>,
    /// Behind the row with this event: [`Exporter::last_event`] of the export that is continued;
    /// 0 from the oldest.
    pub after: u64,
    /// Rows at most.
    pub limit: Option<u64>,
}

impl Filter {
    /// Statuses from names separated by commas.
    ///
    /// # Errors
    /// The first name that is no status.
    pub fn parse_statuses(names: &str) -> Result<Vec<Status>, UnknownName> {
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect()
    }

    fn wants(&self, at: UnixTime, miner_id: &str) -> bool {
        self.from.is_none_or(|from| at >= from)
            && self.to.is_none_or(|to| at < to)
            && self.miner.as_deref().is_none_or(|miner| miner == miner_id)
    }

    fn wants_status(&self, status: Status) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status)
    }

    /// Whether nothing that is written at `at` or later can be wanted.
    fn is_past(&self, at: UnixTime) -> bool {
        self.to.is_some_and(|to| at.0 > to.0.saturating_add(WRITTEN_LATE_MILLIS))
    }
}

/// One share.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Judged {
    Accepted(Share, Option<Fate>),
    Refused(Refusal),
}

/// One row.
struct Row {
    event_id: u64,
    judged: Judged,
}

/// A field, before it is text.
#[derive(Serialize)]
#[serde(untagged)]
enum Field {
    Nothing,
    Flag(bool),
    Number(u64),
    Difficulty(DifficultyNumber),
    Name(&'static str),
    Text(Arc<str>),
    Made(String),
}

impl Field {
    fn number(number: impl Into<u64>) -> Field {
        Field::Number(number.into())
    }

    fn time(at: UnixTime) -> Field {
        Field::Made(Moment(at).to_string())
    }

    fn made(value: impl fmt::Display) -> Field {
        Field::Made(value.to_string())
    }

    /// As CSV has it, without quotes.
    fn write(&self, out: &mut String) {
        use fmt::Write as _;
        // Writing to a string cannot fail.
        let _ = match self {
            Field::Nothing => Ok(()),
            Field::Flag(flag) => write!(out, "{flag}"),
            Field::Number(number) => write!(out, "{number}"),
            Field::Difficulty(DifficultyNumber::Whole(whole)) => write!(out, "{whole}"),
            Field::Difficulty(DifficultyNumber::Fraction(fraction)) => write!(out, "{fraction}"),
            Field::Name(text) => guarded(out, text),
            Field::Text(text) => guarded(out, text),
            Field::Made(text) => guarded(out, text),
        };
    }
}

fn guarded(out: &mut String, text: &str) -> fmt::Result {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        out.push('\'');
    }
    out.push_str(text);
    Ok(())
}

impl Row {
    fn status(&self) -> Status {
        match &self.judged {
            Judged::Accepted(_, fate) => Status::of(fate.as_ref()),
            Judged::Refused(_) => Status::Refused,
        }
    }

    fn field(&self, column: Column) -> Field {
        match (column, &self.judged) {
            (Column::EventId, _) => Field::Number(self.event_id),
            (Column::Status, _) => Field::Name(self.status().name()),
            (_, Judged::Refused(refusal)) => refused(refusal, column),
            (_, Judged::Accepted(share, fate)) => match result(fate.as_ref(), column) {
                Some(field) => field,
                None => accepted(share, column),
            },
        }
    }
}

fn accepted(share: &Share, column: Column) -> Field {
    match column {
        Column::ShareId => Field::made(ShareId(share.share_id)),
        Column::Timestamp => Field::time(share.accepted_at),
        Column::MinerId => Field::Text(Arc::clone(&share.miner_id)),
        Column::WorkerId => share.worker_id.clone().map_or(Field::Nothing, Field::Text),
        Column::ChannelId => Field::number(share.channel_id),
        Column::JobId => Field::number(share.job_id),
        Column::TemplateId => Field::Number(share.template_id.0),
        Column::PrevHash => Field::made(share.prev_hash),
        Column::Difficulty => Field::Difficulty(share.difficulty.into()),
        Column::ShareDifficulty => {
            Field::Difficulty(DifficultyNumber::Fraction(achieved(&share.share_hash)))
        }
        Column::Work => Field::made(share.work()),
        Column::ReasonCode => Field::Name("ok"),
        Column::Sv2Response => Field::Name("success"),
        Column::BlockFound => Field::Flag(share.block_found),
        Column::Count => Field::Number(1),
        Column::ShareHash => Field::made(share.share_hash),
        _ => Field::Nothing,
    }
}

/// A column that speaks of the result; `None` for the others.
fn result(fate: Option<&Fate>, column: Column) -> Option<Field> {
    let settled = fate.and_then(|fate| fate.outcome);
    let field = match column {
        Column::Forwarded => Field::Flag(settled.is_some_and(is_forwarded)),
        Column::UpstreamAccepted => {
            settled.and_then(Outcome::upstream_accepted).map_or(Field::Nothing, Field::Flag)
        }
        Column::UpstreamHttpStatus => match fate {
            Some(fate) if fate.status != 0 => Field::number(fate.status),
            _ => Field::Nothing,
        },
        Column::Attempts => match fate {
            Some(fate) if fate.outcome.is_some() => Field::number(fate.attempts),
            _ => Field::Nothing,
        },
        Column::ForwardedAt => match fate {
            Some(fate) if fate.outcome.is_some() => Field::time(fate.at),
            _ => Field::Nothing,
        },
        Column::ErrorDetail => match fate {
            Some(fate) if !fate.detail.is_empty() => Field::Text(Arc::clone(&fate.detail)),
            _ => Field::Nothing,
        },
        _ => return None,
    };
    Some(field)
}

fn refused(refusal: &Refusal, column: Column) -> Field {
    match column {
        Column::ShareId => Field::made(ShareId(refusal.share_id)),
        Column::Timestamp => Field::time(refusal.at),
        Column::MinerId => Field::Text(Arc::clone(&refusal.miner_id)),
        Column::ChannelId => Field::number(refusal.channel_id),
        Column::JobId => Field::number(refusal.job_id),
        Column::ShareDifficulty => match &refusal.share_hash {
            Some(hash) => Field::Difficulty(DifficultyNumber::Fraction(achieved(hash))),
            None => Field::Nothing,
        },
        Column::Work => Field::made(Work::ZERO),
        Column::ReasonCode => Field::Text(Arc::clone(&refusal.reason_code)),
        Column::Sv2Response => Field::Name("error"),
        Column::BlockFound | Column::Forwarded => Field::Flag(false),
        Column::Count => Field::number(refusal.count),
        Column::ShareHash => refusal.share_hash.map_or(Field::Nothing, Field::made),
        _ => Field::Nothing,
    }
}

/// A row as a JSON object.
struct Object<'a>(&'a [Column], &'a Row);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for column in self.0 {
            map.serialize_entry(column.name(), &self.1.field(*column))?;
        }
        map.end()
    }
}

/// Writing rows into memory has no way to fail; if it did, the export must not seem whole.
fn unwritten(error: impl fmt::Display) -> FolderError {
    FolderError::Unwritten { why: error.to_string() }
}

/// An export under way. It owns its files and its place in them; nobody waits for it.
pub struct Exporter {
    rows: Cursor,
    results: Results,
    filter: Filter,
    columns: Columns,
    format: Format,
    below: u64,
    last_event: u64,
    count: u64,
    is_begun: bool,
}

impl Exporter {
    /// An export of what `filter` wants, as of event `below`: shares and results from there on are
    /// not in it. Offline, `below` is `u64::MAX`.
    ///
    /// # Errors
    /// [`FolderError::Pruned`] if the row behind which to go on is no longer kept; otherwise if the
    /// log cannot be read.
    pub fn open(
        folder: &Folder,
        filter: Filter,
        columns: Columns,
        format: Format,
        below: u64,
    ) -> Result<Exporter, FolderError> {
        Exporter::bounded(folder, filter, columns, format, below, Bounds::default())
    }

    /// [`Exporter::open`] with other bounds on what is kept.
    ///
    /// # Errors
    /// As [`Exporter::open`].
    pub fn bounded(
        folder: &Folder,
        filter: Filter,
        columns: Columns,
        format: Format,
        below: u64,
        bounds: Bounds,
    ) -> Result<Exporter, FolderError> {
        let rows = match (filter.after, filter.from) {
            (0, None) => Cursor::at_start(folder)?,
            // A share is written after it was judged, so none from then on is before this place.
            (0, Some(from)) => Cursor::at_time(folder, from)?,
            (after, _) => Cursor::at_event(folder, after.saturating_add(1))?,
        };
        let ahead = rows.fork()?;
        let results = Results::new(folder.clone(), ahead, below, bounds);
        let last_event = filter.after;
        let (count, is_begun) = (0, false);
        Ok(Exporter { rows, results, filter, columns, format, below, last_event, count, is_begun })
    }

    /// Appends about [`FILL_BYTES`] of whole rows to `out`, the first time with the header of CSV
    /// before them. `false` if that was the end.
    ///
    /// # Errors
    /// If the log cannot be read; `out` has whole rows even then.
    pub fn fill(&mut self, out: &mut Vec<u8>) -> Result<bool, FolderError> {
        match self.format {
            Format::Csv => self.fill_csv(out),
            Format::Ndjson => self.fill_json(out),
        }
    }

    fn fill_csv(&mut self, out: &mut Vec<u8>) -> Result<bool, FolderError> {
        let enough = out.len().saturating_add(FILL_BYTES);
        // What it holds back it writes when it is dropped.
        let mut sheet = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
        if !self.is_begun {
            self.is_begun = true;
            let names = self.columns.0.iter().map(|column| column.name());
            sheet.write_record(names).map_err(unwritten)?;
        }
        let mut text = String::new();
        while sheet.get_ref().len() < enough {
            let Some(row) = self.next_row()? else { return Ok(false) };
            for column in &self.columns.0 {
                text.clear();
                row.field(*column).write(&mut text);
                sheet.write_field(&text).map_err(unwritten)?;
            }
            sheet.write_record(None::<&[u8]>).map_err(unwritten)?;
            self.wrote(&row);
        }
        Ok(true)
    }

    fn fill_json(&mut self, out: &mut Vec<u8>) -> Result<bool, FolderError> {
        let enough = out.len().saturating_add(FILL_BYTES);
        while out.len() < enough {
            let Some(row) = self.next_row()? else { return Ok(false) };
            serde_json::to_writer(&mut *out, &Object(&self.columns.0, &row)).map_err(unwritten)?;
            out.push(b'\n');
            self.wrote(&row);
        }
        Ok(true)
    }

    fn wrote(&mut self, row: &Row) {
        self.last_event = row.event_id;
        self.count += 1;
    }

    /// Event of the last row: [`Filter::after`] of an export that goes on behind it.
    pub fn last_event(&self) -> u64 {
        self.last_event
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.count
    }

    fn next_row(&mut self) -> Result<Option<Row>, FolderError> {
        if self.filter.limit.is_some_and(|limit| self.count >= limit) {
            return Ok(None);
        }
        while let Some(located) = self.rows.next(self.below)? {
            if self.filter.is_past(located.at) {
                return Ok(None);
            }
            let event_id = located.event_id;
            let judged = match located.record {
                Record::Accepted(share)
                    if self.filter.wants(share.accepted_at, &share.miner_id) =>
                {
                    let fate = self.results.of(event_id)?;
                    Judged::Accepted(share, fate)
                }
                Record::Refused(refusal) if self.filter.wants(refusal.at, &refusal.miner_id) => {
                    Judged::Refused(refusal)
                }
                _ => continue,
            };
            let row = Row { event_id, judged };
            // The cursor may stand before the row to go on behind, never behind it.
            if event_id > self.filter.after && self.filter.wants_status(row.status()) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}
