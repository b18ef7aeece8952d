//! `doctor`: whether this machine can run the gateway, and what to change if not.
//!
//! [`probe`] asks the machine; [`judge`] says what the answers mean, and asks nothing. Nothing is
//! changed: sockets are closed again, and the one file that is written is removed.

pub mod judge;
pub mod probe;

use std::path::Path;
use std::process::ExitCode;

use gateway::config::surroundings::Surroundings;
use gateway::config::{Config, read};

use crate::say;
use judge::{Finding, Level};

/// Print a line for each thing that was looked at; 1 if the gateway could not run.
pub fn run(config: Option<&Path>) -> ExitCode {
    let surroundings = Surroundings::of_this_process();
    let mut findings = Vec::new();
    let config = config.and_then(|path| match read(path, &surroundings) {
        Ok(checked) => {
            findings.push(judge::configuration(checked.warnings.len()));
            Some(checked.config)
        }
        Err(refusal) => {
            findings.push(judge::refused(&refusal.file, refusal.errors.len()));
            None
        }
    });
    findings.extend(machine(config.as_ref()));
    match &config {
        Some(config) => findings.extend(places(config)),
        None => say("ports and disk are looked at with --config and a file without mistakes"),
    }
    for finding in &findings {
        say(&finding.text());
    }
    match findings.iter().any(|finding| finding.level == Level::Fail) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// What does not depend on folders and ports.
fn machine(config: Option<&Config>) -> Vec<Finding> {
    let connections = config.map(|config| config.max_connections as u64);
    let shards = config.map_or(1, |config| config.shards.len());
    let mut findings = vec![
        judge::kernel(&probe::kernel_release()),
        judge::rings(&rg_ring::probe()),
        judge::descriptors(probe::descriptors_max(), connections),
        judge::locked_memory(probe::locked_bytes_max(), shards),
        judge::clock(probe::year(), probe::time_service().as_deref()),
    ];
    let cpus = probe::cpus();
    match config {
        Some(config) => {
            let mut wanted = config.shards.clone();
            wanted.extend([config.control, config.forwarder]);
            findings.push(judge::cores(&cpus, &config.shards, &wanted, config.pin));
        }
        None => findings.push(judge::cores(&cpus, &[], &[], false)),
    }
    findings
}

/// Ports and disk.
fn places(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.mode != gateway::mode::Mode::Shadow {
        let bound = probe::bind(config.listen_addr);
        findings.push(judge::port("gateway.listen_addr", config.listen_addr, &bound));
    }
    let bound = probe::bind(config.http_listen_addr);
    findings.push(judge::port("gateway.http_listen_addr", config.http_listen_addr, &bound));
    findings.push(judge::disk(&config.data_dir, &probe::disk(&config.data_dir)));
    findings
}
