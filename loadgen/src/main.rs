//! `loadgen`: real SV2 miners in large numbers against one address, with a report at the end.
//!
//! Exit code 0 when nothing went wrong, 1 when there were errors, missed block switches, or shares
//! refused for another reason than being stale, 2 for wrong arguments.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use loadgen::drive::{Pace, Plan, run};
use loadgen::miner::{MinerConfig, NtimeRolling};
use loadgen::report::Report;
use signal_hook::consts::{SIGINT, SIGTERM};
use sv2::AuthorityPublicKey;

/// Thousands of real Stratum V2 miners: handshake, channel, jobs, hashing, shares.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Where to connect, HOST:PORT.
    #[arg(long)]
    target: String,
    /// Authority key of the server, as in its connection address; or else --insecure.
    #[arg(long, required_unless_present = "insecure")]
    authority: Option<AuthorityPublicKey>,
    /// Accept any server key.
    #[arg(long, conflicts_with = "authority")]
    insecure: bool,
    /// Miners.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Seconds to run; 0 until SIGINT or SIGTERM.
    #[arg(long, default_value_t = 0.0, value_parser = not_negative)]
    duration: f64,
    /// Headers each miner hashes a second, for real.
    #[arg(long, default_value_t = 1_000.0, value_parser = not_negative)]
    hashrate: f64,
    /// Instead of a hash rate: hash as much as gives this many shares a minute and miner.
    #[arg(long, conflicts_with = "hashrate", value_parser = not_negative)]
    shares_per_minute: Option<f64>,
    /// Hash rate told to the server; by default the one hashed with.
    #[arg(long, value_parser = not_negative)]
    nominal_hashrate: Option<f64>,
    /// Connects a second; 0 for as many as are answered.
    #[arg(long, default_value_t = 1_000.0, value_parser = not_negative)]
    ramp: f64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Milliseconds until a lost connection is made again; 0 for never.
    #[arg(long, default_value_t = 1_000)]
    reconnect: u64,
    /// Milliseconds for each of handshake, setup, open, and first job.
    #[arg(long, default_value_t = 30_000)]
    step_timeout: u64,
    /// Miner N is PREFIX.N.
    #[arg(long, default_value = "loadgen")]
    user_prefix: String,
    /// Flags of SetupConnection: 1 standard jobs, 4 version rolling.
    #[arg(long, default_value_t = 1)]
    flags: u32,
    /// Never roll version bits.
    #[arg(long)]
    fixed_version: bool,
    /// Instead of min_ntime and the seconds since: the clock and this many seconds.
    #[arg(long)]
    ntime_ahead: Option<u32>,
    /// Sequence number of the first share of a channel.
    #[arg(long, default_value_t = 0)]
    first_sequence_number: u32,
    /// Seed of the miners' keys; by default from the system.
    #[arg(long)]
    seed: Option<u64>,
    /// Write the report there as JSON, every second and at the end.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What is shown meanwhile.
    #[arg(long, value_enum, default_value_t = Screen::Line)]
    screen: Screen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Screen {
    /// Nothing but the report at the end.
    None,
    /// One line a second.
    Line,
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(format!("{text} is not a number of at least 0")),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match generate(&arguments) {
        Ok(report) => {
            say(&report.to_string());
            ExitCode::from(u8::from(report.failed))
        }
        Err(text) => {
            complain(&text);
            ExitCode::from(2)
        }
    }
}

fn generate(arguments: &Arguments) -> Result<Report, String> {
    let target = resolve(&arguments.target)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|error| format!("cannot listen for signal {signal}: {error}"))?;
    }
    let plan = plan(arguments, target)?;
    let mut accepted_before = 0;
    let report = run(plan, stop, |report| {
        if arguments.screen == Screen::Line {
            say(&line(report, accepted_before));
            accepted_before = report.shares_accepted;
        }
        write_json(arguments, report);
    });
    let report = report.map_err(|error| error.to_string())?;
    write_json(arguments, &report);
    Ok(report)
}

fn plan(arguments: &Arguments, target: SocketAddr) -> Result<Plan, String> {
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|error| format!("no randomness: {error}"))?,
    };
    let pace = match arguments.shares_per_minute {
        Some(shares) => Pace::SharesPerMinute(shares),
        None => Pace::Hashrate(arguments.hashrate),
    };
    let host = arguments.target.rsplit_once(':').map_or("", |(host, _)| host);
    let miner = MinerConfig {
        authority: arguments.authority,
        nominal_hash_rate: arguments.nominal_hashrate.unwrap_or(arguments.hashrate) as f32,
        flags: arguments.flags,
        endpoint_host: host.to_owned(),
        endpoint_port: target.port(),
        ntime: match arguments.ntime_ahead {
            Some(ahead_seconds) => NtimeRolling::Clock { ahead_seconds },
            None => NtimeRolling::Elapsed,
        },
        rolls_version: !arguments.fixed_version,
        first_sequence_number: arguments.first_sequence_number,
        step_timeout_ms: arguments.step_timeout,
        ..MinerConfig::default()
    };
    Ok(Plan {
        target,
        target_text: arguments.target.clone(),
        connections: arguments.connections,
        threads: arguments.threads,
        miner,
        user_prefix: arguments.user_prefix.clone(),
        seed,
        pace,
        ramp_per_second: arguments.ramp,
        reconnect_ms: (arguments.reconnect > 0).then_some(arguments.reconnect),
        duration: (arguments.duration > 0.0).then(|| Duration::from_secs_f64(arguments.duration)),
    })
}

fn resolve(target: &str) -> Result<SocketAddr, String> {
    let wrong = |why: String| format!("--target {target}: {why}; expected HOST:PORT");
    let mut addresses = target.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    addresses.next().ok_or_else(|| wrong("no address".to_owned()))
}

fn line(report: &Report, accepted_before: u64) -> String {
    format!(
        "{:6.1} s  open {}/{}  shares {} (+{})  rejected {}  errors {}  tips {}  \
         answer p99 {:.1} ms  switch p99 {:.1} ms\n",
        report.duration_seconds,
        report.open,
        report.connections,
        report.shares_accepted,
        report.shares_accepted - accepted_before,
        report.shares_rejected,
        report.errors.total(),
        report.tip_count,
        report.ack_micros.p99 as f64 / 1_000.0,
        report.switch_micros.p99 as f64 / 1_000.0,
    )
}

fn write_json(arguments: &Arguments, report: &Report) {
    if let Some(path) = &arguments.json
        && let Err(error) = report.write_json(path)
    {
        complain(&error.to_string());
    }
}

/// A reader that has gone is no reason to stop.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "loadgen: {text}");
}
