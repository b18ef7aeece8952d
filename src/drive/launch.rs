//! Threads, rings, wiring, and the end.
//!
//! Order at the start: lock, journal and epoch, sockets, cores, links. At the end: shards stop
//! reading and close; then the forwarder delivers what is left; then control and the ops thread.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rg_ring::{Bell, Receiver, Sender, Sequence};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use source::upstream::{Upstream, UpstreamConfig};
use sv2::{AuthorityKey, Identity, StaticKey};
use tracing::{error, info};

use super::clock::Clock;
use super::control::{ControlPorts, Fact, Facts, Stored};
use super::data_dir::DataDir;
use super::forwarder::ShardEnd;
use super::nodes::Nodes;
use super::ops::{Blocks, JournalView, OpsSettings};
use super::outbox::Links;
use super::shard::ShardPorts;
use super::{control, ops, outbox, shard, verifier};
use crate::config::Config;
use crate::config::auth::Auth;
use crate::limits::{
    BOARD_RING, CERTIFICATE_SECONDS, DESCRIPTORS_RESERVED, REPORT_RING, SOLUTION_RING, TOLD_RING,
};
use crate::machine::admission::{Admission, AuthInput};
use crate::machine::board::BoardUpdate;
use crate::machine::control::{Control, ControlSettings};
use crate::machine::shard::{Shard, ShardSettings};
use crate::machine::solution::Block as FoundBlock;
use crate::machine::verifier_link::Caller;
use crate::machine::{Entry, Report, Solution};
use crate::mode::Mode;

/// How long an executor lets its one task run before it looks for others: there are none.
///
/// glommio 0.9 goes to sleep for good, with its task ready to run, if this timer fires between
/// being set and the next look at the task queues (`run_task_queues` then says that nothing ran).
/// With a millisecond that happens whenever the thread is kept off its processor at that moment.
const PREEMPT: Duration = Duration::from_secs(24 * 3_600);

/// Further attempts to bind a port that is taken.
const BIND_RETRIES_MAX: u32 = 40;

/// How long the forwarder may take beyond `shutdown_drain_ms` before the process ends by force.
const FORCE_MILLIS: u64 = 10_000;

/// Pause before each.
const BIND_RETRY: Duration = Duration::from_millis(50);

/// Everything about one shard before its thread runs.
struct ShardWiring {
    ports: ShardPorts,
    listener: Option<TcpListener>,
    settings: ShardSettings,
}

/// The rings of all shards, sorted by who holds which end.
#[derive(Default)]
struct Wiring {
    shards: Vec<ShardWiring>,
    boards: Vec<Sender<BoardUpdate>>,
    solutions: Vec<Receiver<Solution>>,
    ends: Vec<ShardEnd>,
}

impl Wiring {
    /// What the cores will show.
    fn blocks(&self) -> Arc<Blocks> {
        Arc::new(Blocks {
            shards: self.shards.iter().map(|shard| Arc::clone(&shard.ports.block)).collect(),
            control: Arc::default(),
            forwarder: Arc::default(),
        })
    }
}

type Core = ExecutorJoinHandle<std::io::Result<()>>;

/// Run the gateway until `stop` is set; `wake` rings every core's bell then.
///
/// # Errors
/// What keeps it from starting, in words.
pub fn run(
    config: Config,
    stop: &Arc<AtomicBool>,
    wake: impl FnOnce(Vec<Bell>),
) -> Result<(), String> {
    rg_ring::probe().map_err(|error| error.to_string())?;
    reserve_descriptors(&config)?;
    check_coinbase(&config)?;
    let clock = Clock::start();
    let data_dir = Arc::new(DataDir::take(&config.data_dir)?);
    let opened = outbox::open(&config, &data_dir, config.shards.len(), clock.now())?;
    let epoch = opened.epoch;
    let listeners = bind(&config)?;
    let listen_addr = listeners.first().and_then(|listener| listener.local_addr().ok());
    let http = TcpListener::bind(config.http_listen_addr).map_err(|error| {
        format!("gateway.http_listen_addr {}: {error}", config.http_listen_addr)
    })?;
    let http_addr = http.local_addr().map_err(|error| error.to_string())?;
    let (control_bell, forwarder_bell) = (bell()?, bell()?);
    let wiring = wire(&config, epoch, listeners, stop, &control_bell, &forwarder_bell)?;
    let (notes, told) = rg_ring::ring(TOLD_RING, forwarder_bell.clone());
    let blocks = wiring.blocks();
    let shard_bells: Vec<Bell> = wiring.shards.iter().map(|s| s.ports.bell.clone()).collect();
    let late_stop = Arc::new(AtomicBool::new(false));

    let facts = Facts::new(control_bell.clone());
    let links = Links { ends: wiring.ends, told, blocks: &blocks, stop: &late_stop };
    let (journal, forwarder) = outbox::start(&config, opened, links, &forwarder_bell, clock)?;
    let ops_settings = ops_settings(&config, listen_addr, journal);
    let ops = ops::spawn(http, Arc::clone(&blocks), ops_settings, Arc::clone(&late_stop))?;
    let link = verifier::spawn(
        config.verifier_addr.clone(),
        caller(&config, epoch),
        facts.clone(),
        clock,
        Arc::clone(&late_stop),
    )?;
    let ports = ControlPorts {
        facts: facts.clone(),
        boards: wiring.boards,
        solutions: wiring.solutions,
        proposals: link.proposals.clone(),
        nodes: Nodes::start(Arc::clone(&data_dir), facts.clone())?,
        notes: Some(notes),
        bell: control_bell.clone(),
        block: Arc::clone(&blocks.control),
        stop: Arc::clone(&late_stop),
    };
    let control = start_control(&config, stored(&data_dir)?, ports, clock)?;
    let shards = start_shards(&config, wiring.shards, clock)?;
    let feed = Upstream::start(upstream(&config), move |event| facts.put(Fact::Feed(event)))?;
    write_addresses(&data_dir, &config, listen_addr, http_addr)?;
    let mode = config.mode.name();
    info!(epoch, mode, auth = config.auth_mode, ?listen_addr, %http_addr, "gateway started");

    wake(shard_bells);
    let mut ended = Ok(());
    for shard in shards {
        ended = ended.and(join("a shard", shard));
    }
    late_stop.store(true, Ordering::Relaxed);
    forwarder_bell.ring();
    let _patience = end_in(config.shutdown_drain_ms + FORCE_MILLIS)?;
    ended = ended.and(join("the forwarder", forwarder));
    control_bell.ring();
    ended = ended.and(join("control", control));
    feed.stop();
    for thread in [link.thread, ops] {
        if thread.join().is_err() {
            error!("a thread ended by a panic");
        }
    }
    info!("gateway stopped");
    ended
}

/// End the process by force after this time, unless what is returned is dropped before: a disk that
/// hangs keeps the forwarder for ever. Whatever is not on disk then was never acknowledged.
fn end_in(millis: u64) -> Result<crossbeam::channel::Sender<()>, String> {
    let (patience, ended) = crossbeam::channel::bounded::<()>(1);
    let wait = move || {
        if ended.recv_timeout(Duration::from_millis(millis)) == Err(RecvTimeoutError::Timeout) {
            error!("the forwarder does not end: its disk hangs; what is not on disk is given up");
            std::process::exit(1);
        }
    };
    let thread = std::thread::Builder::new().name("patience".into()).spawn(wait);
    thread.map_err(|error| format!("a thread cannot be started: {error}"))?;
    Ok(patience)
}

/// Whether the coinbase fits what nodes keep for it (D33).
fn check_coinbase(config: &Config) -> Result<(), String> {
    if config.payouts.is_empty() {
        return Ok(());
    }
    let tag = config.coinbase_tag.as_bytes();
    work::reserve::check(&config.payouts, tag, config.extranonce_bytes())
}

fn bell() -> Result<Bell, String> {
    Bell::new().map_err(|error| format!("an eventfd cannot be made: {error}"))
}

/// In shadow mode miners cannot connect at all.
///
/// A gateway that was killed still holds its port for some milliseconds after its end, until the
/// kernel has taken its rings down; a restart waits for that.
fn bind(config: &Config) -> Result<Vec<TcpListener>, String> {
    if config.mode == Mode::Shadow {
        return Ok(Vec::new());
    }
    let mut attempts = 0;
    loop {
        match rg_ring::bind_shards(config.listen_addr, config.shards.len()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && attempts < BIND_RETRIES_MAX => {
                attempts += 1;
                std::thread::park_timeout(BIND_RETRY);
            }
            bound => return bound.map_err(|error| format!("gateway.listen_addr: {error}")),
        }
    }
}

fn wire(
    config: &Config,
    epoch: u16,
    listeners: Vec<TcpListener>,
    stop: &Arc<AtomicBool>,
    control_bell: &Bell,
    forwarder_bell: &Bell,
) -> Result<Wiring, String> {
    let mut listeners = listeners.into_iter();
    let mut wiring = Wiring::default();
    for number in 0..config.shards.len() {
        let bell = bell()?;
        let (board_in, board_out) = rg_ring::ring(BOARD_RING, bell.clone());
        let (solution_in, solution_out) = rg_ring::ring(SOLUTION_RING, control_bell.clone());
        let (entry_in, entry_out) =
            rg_ring::ring::<Entry>(config.share_forward_queue_size, forwarder_bell.clone());
        let (report_in, report_out) = rg_ring::ring::<Report>(REPORT_RING, forwarder_bell.clone());
        let durable = Sequence::new(0);
        wiring.boards.push(board_in);
        wiring.solutions.push(solution_out);
        wiring.ends.push(ShardEnd {
            entries: entry_out,
            reports: report_out,
            durable: durable.clone(),
            bell: bell.clone(),
        });
        wiring.shards.push(ShardWiring {
            ports: ShardPorts {
                board: board_out,
                solutions: solution_in,
                entries: entry_in,
                reports: Some(report_in),
                durable,
                bell,
                block: Arc::default(),
                stop: Arc::clone(stop),
            },
            listener: listeners.next(),
            settings: shard_settings(config, epoch, number),
        });
    }
    Ok(wiring)
}

fn shard_settings(config: &Config, epoch: u16, number: usize) -> ShardSettings {
    let shards = config.shards.len();
    ShardSettings {
        shard: u8::try_from(number).unwrap_or(u8::MAX),
        instance_id: config.instance_id,
        epoch,
        extranonce_bytes: config.extranonce_bytes(),
        target_shares_per_minute: config.target_shares_per_minute,
        min_difficulty: config.min_difficulty,
        version_mask: config.version_rolling_mask,
        handshake_timeout_ms: config.handshake_timeout_ms,
        setup_timeout_ms: config.setup_timeout_ms,
        channel_idle_timeout_ms: config.channel_idle_timeout_ms,
        nonce_expire_secs: config.nonce_expire_secs,
        seen_room: config.seen_room(),
        max_connections: config.max_connections.div_ceil(shards),
        max_connections_per_ip: config.max_connections_per_ip,
        max_workers_per_channel: config.max_workers_per_channel,
        max_channels_per_connection: config.max_channels_per_connection,
    }
}

/// An executor with a name, on its core if cores are pinned.
pub(super) fn executor(config: &Config, name: &str, cpu: usize) -> LocalExecutorBuilder {
    let placement = if config.pin { Placement::Fixed(cpu) } else { Placement::Unbound };
    LocalExecutorBuilder::new(placement).name(name).preempt_timer(PREEMPT)
}

/// Its handle, or why there is none.
pub(super) fn started(
    name: &str,
    core: Result<Core, glommio::GlommioError<()>>,
) -> Result<Core, String> {
    core.map_err(|error| format!("{name} cannot be started: {error}"))
}

fn start_shards(
    config: &Config,
    wirings: Vec<ShardWiring>,
    clock: Clock,
) -> Result<Vec<Core>, String> {
    let bells: Vec<Bell> = wirings.iter().map(|wiring| wiring.ports.bell.clone()).collect();
    let mut cores = Vec::new();
    let admission = Arc::new(admission(config)?);
    for (number, wiring) in wirings.into_iter().enumerate() {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(|error| format!("no entropy: {error}"))?;
        let mut entropy = ChaCha20Rng::from_seed(seed);
        let static_key = StaticKey::generate(&mut entropy);
        let authority = copy_of(&config.authority)?;
        let now = clock.now().unix.seconds();
        let identity = Identity::issue(&authority, static_key, now, CERTIFICATE_SECONDS)
            .map_err(|error| format!("noise.privkey: {error}"))?;
        let connections_max = wiring.settings.max_connections;
        let admission = Arc::clone(&admission);
        let machine = Shard::new(wiring.settings, admission, authority, identity, entropy);
        let cpu = config.shards.get(number).copied().unwrap_or(0);
        let bells = bells.clone();
        let core = executor(config, &format!("shard-{number}"), cpu).spawn(move || async move {
            let stop = Arc::clone(&wiring.ports.stop);
            let ended =
                shard::run(machine, wiring.listener, wiring.ports, clock, connections_max).await;
            // A shard that cannot go on takes the others with it: half a gateway is none.
            if !stop.swap(true, Ordering::Relaxed) {
                error!(?ended, "a shard has ended; the gateway stops");
                bells.iter().for_each(Bell::ring);
            }
            ended
        });
        cores.push(started("a shard", core)?);
    }
    Ok(cores)
}

/// Who may open channels; secrets are kept as digests under a key of this run.
fn admission(config: &Config) -> Result<Admission, String> {
    let mut key = [0u8; 32];
    getrandom::fill(&mut key).map_err(|error| format!("no entropy: {error}"))?;
    let admission = |auth| Admission::new(auth, config.max_worker_id_bytes, key);
    Ok(match &config.auth {
        Auth::Open => admission(AuthInput::Open),
        Auth::Allowlist(entries) => {
            let pairs = entries.iter().map(|e| (e.username.as_str(), e.password.reveal()));
            admission(AuthInput::Allowlist(&pairs.collect::<Vec<_>>()))
        }
        Auth::PrefixMap(entries) => {
            let pairs = entries.iter().map(|e| (e.prefix.as_str(), e.secret.reveal()));
            admission(AuthInput::PrefixMap(&pairs.collect::<Vec<_>>()))
        }
    })
}

/// Each shard signs with its own copy; the text form is the only way out of a key, and is wiped.
fn copy_of(key: &AuthorityKey) -> Result<AuthorityKey, String> {
    key.to_text().parse().map_err(|error| format!("noise.privkey: {error}"))
}

fn start_control(
    config: &Config,
    stored: Stored,
    ports: ControlPorts,
    clock: Clock,
) -> Result<Core, String> {
    let machine = Control::new(ControlSettings {
        mode: config.mode,
        failure_policy: config.failure_policy,
        network: config.network,
        payouts: config.payouts.clone(),
        coinbase_tag: config.coinbase_tag.clone().into_bytes(),
        extranonce_bytes: config.extranonce_bytes(),
        verdict_timeout_ms: config.prevhash_verdict_timeout_ms,
        stale_hold_ms: config.prevhash_stale_hold_ms,
        job_broadcast_interval_ms: config.job_broadcast_interval_ms,
        template_max_age_ms: config.template_max_age_ms,
    });
    let core = executor(config, "control", config.control).spawn(move || async move {
        control::run(machine, stored, ports, clock).await;
        Ok(())
    });
    started("control", core)
}

/// Where templates come from: with credentials, a node straight.
fn upstream(config: &Config) -> UpstreamConfig {
    UpstreamConfig {
        url: config.upstream_url.clone(),
        auth: config.upstream_auth.as_ref().map(|auth| auth.reveal().to_owned()),
        poll_interval_ms: config.upstream_poll_interval_ms,
        network: config.network,
    }
}

fn stored(data_dir: &DataDir) -> Result<Stored, String> {
    let blocks = data_dir.stored_blocks()?.into_iter();
    let blocks = blocks.map(|(hash, bytes)| FoundBlock::Stored { hash, bytes: bytes.into() });
    Ok(Stored { nodes: data_dir.stored_nodes(), blocks: blocks.collect() })
}

/// Raise the limit on descriptors as far as it goes, and refuse to start if miners could use them
/// all: a node could then not be reached with a block.
fn reserve_descriptors(config: &Config) -> Result<(), String> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
        .map_err(|error| format!("the limit on descriptors cannot be raised: {error}"))?;
    let needed = config.max_connections as u64 + DESCRIPTORS_RESERVED;
    match limit.maximum {
        Some(maximum) if maximum < needed => Err(format!(
            "gateway.max_connections: {} connections need {needed} descriptors, this process may \
             have {maximum}; raise the limit (LimitNOFILE) or lower the key",
            config.max_connections
        )),
        _ => Ok(()),
    }
}

/// The gateway in records and towards others.
pub(super) fn gateway_id(config: &Config) -> String {
    format!("gw-{}", config.instance_id)
}

fn caller(config: &Config, epoch: u16) -> Caller {
    Caller {
        gateway_id: gateway_id(config),
        network: config.network,
        instance_id: config.instance_id,
        epoch,
        deadline_ms: config.prevhash_verdict_timeout_ms,
    }
}

fn ops_settings(
    config: &Config,
    listen_addr: Option<SocketAddr>,
    journal: JournalView,
) -> OpsSettings {
    OpsSettings {
        mode: config.mode,
        api_keys: config.http_api_keys.clone(),
        hatches: config.hatches.clone(),
        authority_pubkey: config.authority.public().to_text(),
        listen_addr,
        journal: Some(journal),
    }
}

/// Where the gateway really listens, for whoever started it with port 0 (D48).
fn write_addresses(
    data_dir: &DataDir,
    config: &Config,
    listen_addr: Option<SocketAddr>,
    http_addr: SocketAddr,
) -> Result<(), String> {
    let addresses = json!({
        "listen_addr": listen_addr,
        "http_listen_addr": http_addr,
        "authority_pubkey": config.authority.public().to_text(),
    });
    data_dir.replace("addresses.json", addresses.to_string().as_bytes())
}

fn join(what: &str, core: Core) -> Result<(), String> {
    match core.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(error) => Err(format!("{what} ended by a panic: {error}")),
    }
}
