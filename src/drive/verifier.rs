//! The link to the verifier: two ordinary threads, one that reads and one that writes.
//!
//! Writing a full proposal as JSON takes milliseconds; on the control core it would delay the next
//! tip. Between two lines the writer looks for newer proposals, and small ones go first.
#![allow(clippy::disallowed_methods)] // The pause between two attempts to connect.

use std::io::{BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use tracing::{info, warn};
use work::Job;
use work::contract::verifier::{FromVerifier, LINE_BYTES_MAX, ProposeReason};

use super::clock::Clock;
use super::control::{Fact, Facts};
use crate::limits::CANDIDATES_MAX;
use crate::machine::verifier_link::{Caller, LinkFact, VerifierLink};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(200);
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);

/// What goes to the link.
pub struct Proposal {
    /// To be judged.
    pub job: Arc<Job>,
    /// Why.
    pub reason: ProposeReason,
}

/// The running link.
pub struct VerifierThread {
    /// Proposals; as many as control considers at once.
    pub proposals: Sender<Proposal>,
    /// Ends it.
    pub thread: JoinHandle<()>,
}

/// Start the link to `address` (`host:port`).
///
/// # Errors
/// A thread cannot be started.
pub fn spawn(
    address: String,
    caller: Caller,
    facts: Facts,
    clock: Clock,
    stop: Arc<AtomicBool>,
) -> Result<VerifierThread, String> {
    let (proposals, incoming) = bounded(4 * CANDIDATES_MAX);
    let thread = std::thread::Builder::new()
        .name("verifier-link".into())
        .spawn(move || {
            let mut link = VerifierLink::new(caller);
            // One line per outage and cause, not one per attempt.
            let mut said = String::new();
            while !stop.load(Ordering::Relaxed) {
                let why = match connect(&address) {
                    Ok(stream) => {
                        said.clear();
                        serve(&mut link, stream, &incoming, &facts, clock, &stop)
                    }
                    Err(why) => why,
                };
                facts.put(Fact::Verifier { up: false });
                // Proposals of this outage are made again when the link is up.
                while incoming.try_recv().is_ok() {}
                if !stop.load(Ordering::Relaxed) {
                    if why != said {
                        warn!(%address, why, "no link to the verifier; trying again");
                        said = why;
                    }
                    std::thread::sleep(RECONNECT_PAUSE);
                }
            }
        })
        .map_err(|error| format!("the verifier's thread cannot be started: {error}"))?;
    Ok(VerifierThread { proposals, thread })
}

fn connect(address: &str) -> Result<TcpStream, String> {
    let addresses = address.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut why = "the name has no address".to_owned();
    let stream = addresses.into_iter().find_map(|address| {
        TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
            .map_err(|error| why = format!("{address}: {error}"))
            .ok()
    });
    let stream = stream.ok_or(why)?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Work on one connection until it breaks; why it did.
fn serve(
    link: &mut VerifierLink,
    stream: TcpStream,
    incoming: &Receiver<Proposal>,
    facts: &Facts,
    clock: Clock,
    stop: &AtomicBool,
) -> String {
    let (lines, heard) = bounded(CANDIDATES_MAX);
    let reading = match stream.try_clone() {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    let reader = std::thread::Builder::new()
        .name("verifier-reader".into())
        .spawn(move || read_lines(reading, &lines));
    let Ok(reader) = reader else { return "no thread for reading".into() };
    let mut writer = BufWriter::new(&stream);
    link.on_connected(clock.now());
    // Control proposes everything anew when the link is up: what waits here is older.
    while incoming.try_recv().is_ok() {}
    let why = loop {
        if stop.load(Ordering::Relaxed) {
            break "stopping".to_owned();
        }
        if let Err(why) = write_lines(link, &mut writer, incoming) {
            break why;
        }
        if let Err(why) = wait(link, incoming, &heard, facts) {
            break why;
        }
        if let Err(why) = link.on_tick(clock.now()) {
            break why;
        }
    };
    // Both directions, so that the reader's read ends.
    let _ = stream.shutdown(std::net::Shutdown::Both);
    drop(heard);
    let _ = reader.join();
    why
}

/// Wait for a proposal, a line, or a tick.
fn wait(
    link: &mut VerifierLink,
    incoming: &Receiver<Proposal>,
    heard: &Receiver<FromVerifier>,
    facts: &Facts,
) -> Result<(), String> {
    crossbeam::channel::select! {
        recv(incoming) -> proposal => {
            if let Ok(proposal) = proposal {
                link.propose(proposal.job, proposal.reason);
            }
            Ok(())
        }
        recv(heard) -> line => match line {
            Ok(line) => on_line(link, line, facts),
            Err(_) => Err("the verifier closed the connection".to_owned()),
        },
        default(TICK) => Ok(()),
    }
}

fn on_line(link: &mut VerifierLink, line: FromVerifier, facts: &Facts) -> Result<(), String> {
    match link.on_line(line) {
        LinkFact::Up { policy } => {
            info!(policy, "the verifier is ready");
            facts.put(Fact::Verifier { up: true });
        }
        LinkFact::Verdict(verdict) => facts.put(Fact::Verdict(verdict)),
        LinkFact::PolicyChanged { policy } => {
            info!(policy, "the verifier has another policy");
            facts.put(Fact::PolicyChanged);
        }
        LinkFact::Refused(why) => warn!(why, "the verifier refused something"),
        LinkFact::Nothing => (),
        LinkFact::Broken(why) => return Err(why),
    }
    Ok(())
}

/// Write all lines; between two of them take in newer proposals.
fn write_lines(
    link: &mut VerifierLink,
    writer: &mut BufWriter<&TcpStream>,
    incoming: &Receiver<Proposal>,
) -> Result<(), String> {
    while let Some(line) = link.next_line() {
        serde_json::to_writer(&mut *writer, &line).map_err(|error| error.to_string())?;
        writer.write_all(b"\n").map_err(|error| error.to_string())?;
        if let Ok(proposal) = incoming.try_recv() {
            link.propose(proposal.job, proposal.reason);
        }
    }
    writer.flush().map_err(|error| error.to_string())
}

/// Read lines until the connection ends or one makes no sense.
fn read_lines(stream: TcpStream, lines: &Sender<FromVerifier>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_BYTES_MAX as u64;
        match reader.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.last() != Some(&b'\n') => return,
            Ok(_) => (),
        }
        match serde_json::from_slice(&line) {
            Ok(line) => {
                if lines.send(line).is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "a line of the verifier makes no sense");
                return;
            }
        }
    }
}
