//! One demo from start to end.

#![allow(clippy::disallowed_methods, reason = "driver: measures the demo's time")]

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::collect::{self, Asker};
use super::draw::draw;
use super::folder::{Addresses, Folder};
use super::model::{Model, Sample};
use super::outcome;
use super::plan::{self, Keys};
use super::program::{PROGRAMS, Program};
use super::services::{Failure, Services};
use crate::arguments::{DemoOptions, Screen};
use crate::{keys, say};

/// Time between two looks at keys, signals, processes and samples.
const TICK: Duration = Duration::from_millis(100);

/// Time between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

/// Time that a timed demo waits for the books to balance after its miners have left.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// Samples after the miners have left that are sure to have been taken after it.
const SETTLE_SAMPLES: u32 = 2;

/// Runs a demo until it is stopped, fails, or its time is over.
///
/// # Errors
/// A sentence, with the end of a log where one helps.
pub fn run(options: &DemoOptions) -> Result<(), String> {
    let stopped = stop_flag()?;
    let folder = Folder::open(options.folder.as_deref())?;
    let result = run_in(&folder, options, &stopped);
    if let Some(path) = folder.finish(result.is_ok()) {
        say(&format!("files are in {}", path.display()));
    }
    result
}

/// Becomes true at SIGINT, SIGTERM and SIGHUP.
fn stop_flag() -> Result<Arc<AtomicBool>, String> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stopped))
            .map_err(|error| format!("cannot listen for signal {signal}: {error}"))?;
    }
    Ok(stopped)
}

fn run_in(folder: &Folder, options: &DemoOptions, stopped: &AtomicBool) -> Result<(), String> {
    let began = Instant::now();
    let mut services = Services::new(folder, options.programs.as_deref())?;
    let addresses = match start_all(&mut services, folder, options, stopped) {
        Ok(addresses) => addresses,
        Err(Failure::Interrupted) => {
            services.stop();
            return Ok(());
        }
        Err(Failure::Failed(why)) => {
            services.stop();
            return Err(why);
        }
    };
    announce(&addresses, folder.path());
    let http = addresses.map(|addresses| addresses.map(|addresses| addresses.http_listen_addr));
    let samples = collect::start(http, began)?;
    let mut show = Show::new(options.screen, folder.path());
    let mut model = Model::default();
    let watched = watch(&mut services, &samples, &mut model, &mut show, options, stopped);
    show.close();
    if options.duration.is_some() && watched.is_ok() && !stopped.load(Ordering::Relaxed) {
        settle(&mut services, &samples, &mut model);
    }
    drop(samples);
    let killed = services.stop();
    let ran = watched?;
    for line in outcome_lines(&model, folder, options, ran, &killed)? {
        say(&line);
    }
    Ok(())
}

/// Lets the miners leave and waits until the backend has credited all that was accepted from them.
/// Whether it has is judged later; a book that never balances only costs the patience.
fn settle(services: &mut Services<'_>, samples: &Receiver<Sample>, model: &mut Model) {
    let (began, mut seen) = (Instant::now(), 0);
    services.ask_to_end(Program::Loadgen);
    while began.elapsed() < SETTLE_PATIENCE {
        let miners_left = !services.runs(Program::Loadgen);
        if let Ok(sample) = samples.recv_timeout(TICK) {
            model.on_sample(&sample);
            seen += u32::from(miners_left);
        }
        if seen >= SETTLE_SAMPLES && outcome::unbalanced(model).is_none() {
            return;
        }
    }
}

/// The lines after a run that no program cut short.
fn outcome_lines(
    model: &Model,
    folder: &Folder,
    options: &DemoOptions,
    ran: Duration,
    killed: &[Program],
) -> Result<Vec<String>, String> {
    let mut faults: Vec<String> =
        killed.iter().map(|program| format!("{} had to be killed", program.name())).collect();
    let mut lines = vec![outcome::summary(model)];
    if options.duration.is_some() {
        let interval = Duration::from_millis(options.block_interval_ms);
        faults.extend(outcome::faults(model, ran, interval));
        faults.extend(outcome::unbalanced(model));
        let report = std::fs::read(report_path(folder)).unwrap_or_default();
        faults.extend(outcome::miners_fault(&report));
        if !faults.is_empty() {
            return Err(format!("not healthy: {}\n{}", faults.join("; "), lines.join("\n")));
        }
    }
    lines.extend(faults);
    Ok(lines)
}

type AllAddresses = [Option<Addresses>; PROGRAMS];

fn start_all(
    services: &mut Services<'_>,
    folder: &Folder,
    options: &DemoOptions,
    stopped: &AtomicBool,
) -> Result<AllAddresses, Failure> {
    let keys = Keys {
        authority: keys::authority().map_err(Failure::Failed)?,
        share_secret: keys::random().map_err(Failure::Failed)?,
        api_key: keys::random().map_err(Failure::Failed)?,
    };
    let (asker, mut addresses) = (Asker::default(), AllAddresses::default());
    for program in Program::ALL {
        let asked = Instant::now();
        start_one(program, services, folder, options, &keys, &addresses)
            .map_err(Failure::Failed)?;
        if program.is_service() {
            let interrupted = || stopped.load(Ordering::Relaxed);
            addresses[program.index()] = Some(services.wait_ready(program, &asker, interrupted)?);
            say(&format!("{:<18} ready in {:.1} s", program.name(), asked.elapsed().as_secs_f64()));
        } else {
            say(&format!("{:<18} started", program.name()));
        }
    }
    Ok(addresses)
}

/// Writes what `program` is told and starts it.
fn start_one(
    program: Program,
    services: &mut Services<'_>,
    folder: &Folder,
    options: &DemoOptions,
    keys: &Keys,
    started: &AllAddresses,
) -> Result<(), String> {
    let of = |other: Program| {
        let addresses = started[other.index()].as_ref();
        addresses.ok_or_else(|| format!("{} has no address yet", other.name()))
    };
    let data_dir = folder.data_dir(program);
    let config = match program {
        Program::Backend => {
            let secret_file = folder.write("share-secret", &keys.share_secret_text())?;
            return services.start(program, &plan::backend(&data_dir, &secret_file), &[]);
        }
        Program::Loadgen => {
            let report = report_path(folder);
            let flags = plan::loadgen(of(Program::Gateway)?, keys, options.miners, &report)?;
            return services.start(program, &flags, &[]);
        }
        Program::TemplateManager => plan::template_manager(&data_dir, options.block_interval_ms)?,
        Program::Verifier => {
            folder.write("policy.toml", &plan::policy()?)?;
            plan::verifier(&data_dir, of(Program::TemplateManager)?)?
        }
        Program::Gateway => plan::gateway(
            &data_dir,
            keys,
            options.miners,
            of(Program::Backend)?,
            of(Program::TemplateManager)?,
            of(Program::Verifier)?,
        )?,
    };
    let environment: &[(&str, &str)] =
        if program == Program::Gateway { &plan::GATEWAY_ENVIRONMENT } else { &[] };
    let config = folder.write(&format!("{}.toml", program.name()), &config)?;
    services.start(program, &["--config".into(), config.into()], environment)
}

/// Where loadgen writes what its miners saw.
fn report_path(folder: &Folder) -> PathBuf {
    folder.path().join("loadgen.json")
}

/// Says how to reach what runs.
fn announce(addresses: &AllAddresses, folder: &Path) {
    if let Some(gateway) = &addresses[Program::Gateway.index()]
        && let (Some(listen), Some(key)) = (&gateway.listen_addr, &gateway.authority_pubkey)
    {
        say(&format!("miners connect to stratum2+tcp://{listen}/{key}"));
    }
    say(&format!("files are in {}", folder.display()));
}

/// Watches until the time is over or someone stops the demo; gives how long that was.
///
/// # Errors
/// A program ended by itself.
fn watch(
    services: &mut Services<'_>,
    samples: &Receiver<Sample>,
    model: &mut Model,
    show: &mut Show,
    options: &DemoOptions,
    stopped: &AtomicBool,
) -> Result<Duration, String> {
    let began = Instant::now();
    loop {
        if let Some(ended) = services.ended() {
            return Err(ended);
        }
        while let Ok(sample) = samples.try_recv() {
            model.on_sample(&sample);
        }
        let ran = began.elapsed();
        let over = options.duration.is_some_and(|seconds| ran >= Duration::from_secs(seconds));
        if over || stopped.load(Ordering::Relaxed) {
            return Ok(ran);
        }
        if show.show(model, ran) {
            return Ok(ran);
        }
        if let Show::Lines { .. } | Show::Nothing = show {
            match samples.recv_timeout(TICK) {
                Ok(sample) => model.on_sample(&sample),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the thread that asks the programs has ended".to_owned());
                }
            }
        }
    }
}

/// How the demo shows itself.
enum Show {
    Terminal { terminal: Box<DefaultTerminal>, folder: String },
    Lines { next: Duration, events_seen: u64 },
    Nothing,
}

impl Show {
    fn new(screen: Screen, folder: &Path) -> Show {
        let lines = Show::Lines { next: Duration::ZERO, events_seen: 0 };
        match screen {
            Screen::None => Show::Nothing,
            Screen::Plain => lines,
            Screen::Auto if !std::io::stdout().is_terminal() => lines,
            Screen::Auto => match ratatui::try_init() {
                Ok(terminal) => Show::Terminal {
                    terminal: Box::new(terminal),
                    folder: folder.display().to_string(),
                },
                // A terminal without the needed abilities still takes lines.
                Err(_) => lines,
            },
        }
    }

    /// Shows `model`; true when the user asks to stop. On a terminal this waits up to [`TICK`]
    /// for a key.
    fn show(&mut self, model: &Model, ran: Duration) -> bool {
        match self {
            Show::Nothing => false,
            Show::Lines { next, events_seen } => {
                let (events, seen) = model.events_after(*events_seen);
                *events_seen = seen;
                for event in events {
                    say(&event);
                }
                if ran >= *next {
                    *next = ran + PLAIN_INTERVAL;
                    say(&model.plain_line());
                }
                false
            }
            Show::Terminal { terminal, folder } => {
                // A terminal that has gone away ends the demo as its user's hang-up does.
                terminal.draw(|frame| draw(frame, model, folder)).is_err() || stop_key()
            }
        }
    }

    fn close(self) {
        if let Show::Terminal { .. } = self {
            ratatui::restore();
        }
    }
}

/// Waits up to [`TICK`] for a key; true for `q`, Escape and Ctrl-C.
fn stop_key() -> bool {
    match event::poll(TICK) {
        Ok(false) => false,
        Ok(true) => match event::read() {
            Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
                    || control && key.code == KeyCode::Char('c')
            }
            Ok(_) => false,
            Err(_) => true,
        },
        Err(_) => true,
    }
}
