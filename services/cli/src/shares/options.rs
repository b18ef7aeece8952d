//! What can be asked of `shares` and `dead-letters`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where the journal is.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The gateway's data_dir, or a folder with a journal's files.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// Share commands.
#[derive(Debug, Subcommand)]
pub enum SharesCommand {
    /// Write every judged share and what became of it, as CSV or NDJSON.
    Export(ExportOptions),
    /// Prove that every accepted share has one result, and that the books balance per miner and
    /// hour; exit with 1 and the counterexamples if not.
    Verify(VerifyOptions),
    /// Tell the whole way of one share.
    Explain(ExplainOptions),
}

/// Options of `shares export`.
#[derive(Debug, Clone, Args)]
pub struct ExportOptions {
    /// Where from.
    #[command(flatten)]
    pub place: Place,
    /// `csv` or `ndjson`.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Compress.
    #[arg(long)]
    pub gzip: bool,
    /// Shares judged from this time on: RFC 3339, or a date.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Shares judged before this time.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Shares of this miner.
    #[arg(long, value_name = "NAME")]
    pub miner: Option<String>,
    /// Shares of these statuses: open, dead_letter, delivered, duplicate, rejected_by_upstream,
    /// dead_lettered, refused; separated by commas.
    #[arg(long, value_name = "NAMES")]
    pub status: Option<String>,
    /// These columns, separated by commas.
    #[arg(long, value_name = "NAMES")]
    pub columns: Option<String>,
    /// Go on behind the row with this event_id.
    #[arg(long, value_name = "EVENT")]
    pub after: Option<String>,
    /// Rows at most.
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<String>,
    /// Write to this file; without it, to standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Options of `shares verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyOptions {
    /// Which journal.
    #[command(flatten)]
    pub place: Place,
    /// Print the sums of every miner and hour, too.
    #[arg(long)]
    pub hours: bool,
    /// As JSON: one object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `shares explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainOptions {
    /// Where from.
    #[command(flatten)]
    pub place: Place,
    /// ULID of the share.
    #[arg(value_name = "SHARE_ID")]
    pub share_id: String,
    /// As JSON: one object.
    #[arg(long)]
    pub json: bool,
}

/// Dead letter commands.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List shares that the backend would not take.
    List(ListOptions),
    /// Show those of a batch, or one.
    Show(ShowLetterOptions),
    /// Have the gateway post some of them again, or all.
    Replay(ReplayOptions),
    /// Have the gateway give some of them up. That is their result and cannot be undone.
    Discard(DiscardOptions),
}

/// Options of `dead-letters list`.
#[derive(Debug, Clone, Args)]
pub struct ListOptions {
    /// Where from.
    #[command(flatten)]
    pub place: Place,
    /// As JSON: one object a line.
    #[arg(long)]
    pub json: bool,
}

/// Options of `dead-letters show`.
#[derive(Debug, Clone, Args)]
pub struct ShowLetterOptions {
    /// Where from.
    #[command(flatten)]
    pub place: Place,
    /// A batch_id or a share_id.
    #[arg(value_name = "ID")]
    pub id: String,
}

/// The gateway that is told.
#[derive(Debug, Clone, Args)]
pub struct Gateway {
    /// Its HTTP address: gateway.http_listen_addr.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// File with gateway.http_api_key; without it the variable RESERVEGRID_API_KEY is read.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
}

/// Options of `dead-letters replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayOptions {
    /// Which gateway.
    #[command(flatten)]
    pub gateway: Gateway,
    /// A batch_id or a share_id.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub id: Option<String>,
    /// All dead letters.
    #[arg(long)]
    pub all: bool,
}

/// Options of `dead-letters discard`.
#[derive(Debug, Clone, Args)]
pub struct DiscardOptions {
    /// Which gateway.
    #[command(flatten)]
    pub gateway: Gateway,
    /// A batch_id or a share_id.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why, for the event log.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}
