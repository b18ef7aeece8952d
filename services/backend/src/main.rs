//! `reference-backend`: a receiver of share batches for evaluation and as a model for a pool's own.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use reference_backend::service::{self, Options};
use tracing_subscriber::EnvFilter;

/// Receives signed batches of shares, credits each share hash once, and keeps the book in SQLite.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to serve HTTP on; port 0 picks a free one, see DATA_DIR/addresses.json.
    #[arg(long, default_value = "127.0.0.1:9090")]
    listen: SocketAddr,
    /// Folder of the ledger.
    #[arg(long)]
    data_dir: PathBuf,
    /// File with the secrets, one a line: `whsec_` and base64, or plain text.
    #[arg(long)]
    secret_file: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let Arguments { listen, data_dir, secret_file } = arguments;
    match service::run(&Options { listen, data_dir, secret_file }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
