//! `sv2-gateway --config FILE`: arguments, logging, signals, and then [`gateway::drive::launch`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use gateway::config::surroundings::Surroundings;
use gateway::{config, drive::launch};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A policy-driven Stratum V2 gateway.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration, in TOML.
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            error!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let checked = config::read(&arguments.config, &Surroundings::of_this_process());
    let checked = checked.map_err(|refusal| refusal.to_string())?;
    for warning in &checked.warnings {
        warn!("{}", warning.line(&checked.file));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let told = Arc::clone(&stop);
    launch::run(checked.config, &stop, move |bells| {
        std::thread::spawn(move || {
            for signal in signals.forever() {
                info!(signal, "stopping");
                told.store(true, Ordering::Relaxed);
                for bell in &bells {
                    bell.ring();
                }
            }
        });
    })
}
