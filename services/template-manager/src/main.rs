//! The program `template-manager`: reads its configuration and runs the service.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use template_manager::config::Config;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for requests; templates for slow readers are encoded on others.
const WORKERS: usize = 2;
/// Time that threads get to end once all is done.
const THREADS_END: Duration = Duration::from_millis(300);

/// Publishes block templates of a Bitcoin node, or of the simulated chain, to gateways.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), String> {
    let config = Config::read(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let outcome = runtime.block_on(template_manager::run(config));
    runtime.shutdown_timeout(THREADS_END);
    outcome.map_err(|failure| failure.0)
}
