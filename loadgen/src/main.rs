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
use loadgen::miner::{CHANNELS_MAX, ChannelKinds, MinerConfig, NtimeRolling, Profile};
use loadgen::report::Report;
use signal_hook::consts::{SIGINT, SIGTERM};
use sv2::AuthorityPublicKey;
use sv2::message::EXTENSION_WORKER;
use sv2::message::common::REQUIRES_STANDARD_JOBS;

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
    /// Hash rate told to the server; by default the one hashed with, or the device's.
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
    /// Device whose limits and habits every miner has.
    #[arg(long, value_enum, default_value_t = Client::Strict)]
    profile: Client,
    /// Kind of the channels; by default standard, or the device's.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Channels of each connection.
    #[arg(long, default_value_t = 1, value_parser = channels)]
    channels: usize,
    /// Worker names of each extended channel, told by extension 0x0002; 0 for none.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Flags of SetupConnection: 1 standard jobs, 4 version rolling; by default the device's, and
    /// none for several channels or extended ones.
    #[arg(long)]
    flags: Option<u32>,
    /// Fewest extranonce bytes that an extended channel asks for; by default the device's, or 4.
    #[arg(long)]
    min_extranonce_size: Option<u16>,
    /// Seconds between two UpdateChannel of a connection; 0 for none.
    #[arg(long, default_value_t = 0.0, value_parser = not_negative)]
    update_every: f64,
    /// Milliseconds within which a job has to follow a new target; 0 to not check.
    #[arg(long, default_value_t = 10_000)]
    fresh_job: u64,
    /// Never roll version bits.
    #[arg(long)]
    fixed_version: bool,
    /// The clock and this many seconds for the time of headers, instead of the earliest time and
    /// the seconds since; by default the device's way.
    #[arg(long)]
    ntime_ahead: Option<u32>,
    /// Sequence number of the first share of a channel; by default the device's, or 0.
    #[arg(long)]
    first_sequence_number: Option<u32>,
    /// Addresses to dial from, 127.0.0.1 and on, if the target is on loopback.
    #[arg(long, default_value_t = 1)]
    source_addresses: u8,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// No device in particular: the specification, strictly.
    Strict,
    /// Bitaxe or NerdQAxe.
    Bitaxe,
    /// SRI's mining_device.
    MiningDevice,
    /// SRI's translator.
    Translator,
}

impl Client {
    fn profile(self) -> Profile {
        match self {
            Client::Strict => Profile::Strict,
            Client::Bitaxe => Profile::Bitaxe,
            Client::MiningDevice => Profile::MiningDevice,
            Client::Translator => Profile::Translator,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Headers only.
    Standard,
    /// The miner rolls a part of the extranonce.
    Extended,
    /// Both in turn.
    Mixed,
}

impl Kind {
    fn kinds(self) -> ChannelKinds {
        match self {
            Kind::Standard => ChannelKinds::Standard,
            Kind::Extended => ChannelKinds::Extended,
            Kind::Mixed => ChannelKinds::Mixed,
        }
    }
}

fn channels(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if (1..=CHANNELS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("{text} is not a number from 1 to {CHANNELS_MAX}")),
    }
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
    let miner = miner(arguments, target);
    Ok(Plan {
        target,
        target_text: arguments.target.clone(),
        connections: arguments.connections,
        threads: arguments.threads,
        miner,
        user_prefix: arguments.user_prefix.clone(),
        seed,
        pace,
        source_addresses: arguments.source_addresses,
        ramp_per_second: arguments.ramp,
        reconnect_ms: (arguments.reconnect > 0).then_some(arguments.reconnect),
        duration: (arguments.duration > 0.0).then(|| Duration::from_secs_f64(arguments.duration)),
    })
}

/// The profile's configuration, with what was asked for over it.
fn miner(arguments: &Arguments, target: SocketAddr) -> MinerConfig {
    let mut miner = arguments.profile.profile().config();
    let host = arguments.target.rsplit_once(':').map_or("", |(host, _)| host);
    miner.endpoint_host = host.to_owned();
    miner.endpoint_port = target.port();
    miner.authority = arguments.authority;
    miner.step_timeout_ms = arguments.step_timeout;
    miner.channels = arguments.channels;
    miner.workers = arguments.workers;
    if arguments.workers > 0 {
        miner.extensions = vec![EXTENSION_WORKER];
    }
    let is_strict = arguments.profile == Client::Strict;
    if is_strict {
        miner.nominal_hash_rate = arguments.hashrate as f32;
    }
    if let Some(rate) = arguments.nominal_hashrate {
        miner.nominal_hash_rate = rate as f32;
    }
    if let Some(kind) = arguments.kind {
        miner.kinds = kind.kinds();
    }
    if miner.kinds != ChannelKinds::Standard || (is_strict && arguments.channels > 1) {
        miner.flags &= !REQUIRES_STANDARD_JOBS;
    }
    miner.flags = arguments.flags.unwrap_or(miner.flags);
    if let Some(size) = arguments.min_extranonce_size {
        miner.min_extranonce_size = size;
    }
    if let Some(number) = arguments.first_sequence_number {
        miner.first_sequence_number = number;
    }
    if let Some(ahead_seconds) = arguments.ntime_ahead {
        miner.ntime = NtimeRolling::Clock { ahead_seconds };
    }
    miner.rolls_version &= !arguments.fixed_version;
    let update_every_ms = (arguments.update_every * 1_000.0) as u64;
    miner.update_every_ms = (update_every_ms > 0).then_some(update_every_ms);
    miner.fresh_job_ms = (arguments.fresh_job > 0).then_some(arguments.fresh_job);
    miner
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
