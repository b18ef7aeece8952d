//! Asks the programs twice a second what they do, on a thread of its own, so that a program that
//! hangs cannot make the screen hang.

#![allow(clippy::disallowed_methods, reason = "driver: paces its questions by the clock")]

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use work::contract::chain::Chain;

use super::model::{BackendStatus, Health, Sample};
use super::program::{PROGRAMS, Program};
use super::reading::{Reading, SCRAPE_BYTES_MAX};

/// Time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// Time one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);

/// Samples that wait for the screen; a later one replaces nothing, it is left out.
const SAMPLES_WAITING_MAX: usize = 2;

/// Characters of a reason that are shown.
const WHY_CHARACTERS_MAX: usize = 120;

/// Asks HTTP questions with a short patience.
#[derive(Debug, Clone)]
pub struct Asker {
    agent: ureq::Agent,
}

impl Default for Asker {
    fn default() -> Asker {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_TIMEOUT))
            .max_redirects(0)
            .build();
        Asker { agent: config.into() }
    }
}

impl Asker {
    /// Status and body of a GET; `None` when there is no whole answer in time.
    fn get(&self, address: &str, path: &str) -> Option<(u16, String)> {
        let mut response = self.agent.get(format!("http://{address}{path}")).call().ok()?;
        let body = response.body_mut().with_config().limit(SCRAPE_BYTES_MAX).lossy_utf8(true);
        let text = body.read_to_string().ok()?;
        Some((response.status().as_u16(), text))
    }

    fn json<T: DeserializeOwned>(&self, address: &str, path: &str) -> Option<T> {
        let (status, text) = self.get(address, path)?;
        if status == 200 { serde_json::from_str(&text).ok() } else { None }
    }

    /// What `/readyz` says.
    pub fn health(&self, address: &str) -> Health {
        match self.get(address, "/readyz") {
            Some((200, _)) => Health::Ready,
            Some((_, why)) => {
                let printable = why.chars().filter(|character| !character.is_control());
                Health::NotReady(printable.take(WHY_CHARACTERS_MAX).collect())
            }
            None => Health::Silent,
        }
    }

    fn sample(&self, services: &[Option<String>; PROGRAMS], uptime: Duration) -> Sample {
        let address = |program: Program| services[program.index()].as_deref();
        let mut sample = Sample { uptime, ..Sample::default() };
        for program in Program::ALL {
            // Programs without an address are watched by whoever started them.
            sample.health[program.index()] =
                address(program).map_or(Health::Ready, |address| self.health(address));
        }
        sample.gateway = address(Program::Gateway)
            .and_then(|address| self.get(address, "/metrics"))
            .map(|(_, text)| Reading::parse(&text));
        sample.backend = address(Program::Backend)
            .and_then(|address| self.json::<BackendStatus>(address, "/status"));
        sample.chain = address(Program::TemplateManager)
            .and_then(|address| self.json::<Chain>(address, "/chain"));
        sample
    }
}

/// Starts asking. `services` are the HTTP addresses in the order of [`Program::ALL`]. The thread
/// ends at its next sample after the receiver is gone.
///
/// # Errors
/// A sentence when no thread can be started.
pub fn start(
    services: [Option<String>; PROGRAMS],
    began: Instant,
) -> Result<Receiver<Sample>, String> {
    let (samples, received) = sync_channel(SAMPLES_WAITING_MAX);
    std::thread::Builder::new()
        .name("collect".to_owned())
        .spawn(move || run(&services, began, &samples))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok(received)
}

fn run(services: &[Option<String>; PROGRAMS], began: Instant, samples: &SyncSender<Sample>) {
    let asker = Asker::default();
    loop {
        let asked = Instant::now();
        let sample = asker.sample(services, began.elapsed());
        if let Err(TrySendError::Disconnected(_)) = samples.try_send(sample) {
            return;
        }
        std::thread::sleep(SAMPLE_INTERVAL.saturating_sub(asked.elapsed()));
    }
}
