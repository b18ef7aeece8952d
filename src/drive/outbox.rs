//! The forwarder with all that it needs: the journal as the last start left it, its disk, and the
//! threads that post.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use glommio::ExecutorJoinHandle;
use journal::Record;
use journal::folder::Folder;
use journal::recover::{Recovered, recover};
use journal::writer::{Writer, WriterSettings};
use rg_ring::{Bell, Receiver, Sequence};
use tracing::{error, info, warn};
use work::Now;

use super::clock::Clock;
use super::data_dir::DataDir;
use super::disk::Disk;
use super::forwarder::{self, ForwarderPorts, ShardEnd};
use super::launch::{executor, gateway_id, started};
use super::ops::{Blocks, JournalView};
use super::sender::{self, Answers, SenderSettings};
use crate::config::Config;
use crate::limits::{BATCHES_WAITING_MAX, COMMANDS_MAX, DEAD_LETTERS_MAX, SENDER_THREADS_MAX};
use crate::machine::forwarder::{Forwarder, ForwarderSettings, Found, OpenShare};
use crate::machine::told::Told;

/// What connects it to the other cores.
pub struct Links<'a> {
    /// The shards.
    pub ends: Vec<ShardEnd>,
    /// Control.
    pub told: Receiver<Told>,
    /// What others see.
    pub blocks: &'a Blocks,
    /// All shards have ended.
    pub stop: &'a Arc<AtomicBool>,
}

/// The journal's folder, and the machine that goes on where the last start ended.
pub struct Opened {
    /// Number of this start.
    pub epoch: u16,
    folder: PathBuf,
    machine: Forwarder,
}

/// Read what the last start left, and take the number of this one.
///
/// # Errors
/// The journal or the epoch cannot be read or made.
pub fn open(
    config: &Config,
    data_dir: &DataDir,
    shards: usize,
    now: Now,
) -> Result<Opened, String> {
    let folder = data_dir.journal()?;
    let files = Folder::open(&folder).map_err(|error| error.to_string())?;
    let found = recover(&files).map_err(|error| error.to_string())?;
    report(&found);
    let is_ours = found.gateway_id.as_ref().is_some_and(|id| *id == gateway_id(config));
    let journaled = found.last_epoch.filter(|_| is_ours).unwrap_or(0);
    let epoch = data_dir.next_epoch(journaled)?;
    if let Some(end) = found.end {
        files.cut(end).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let dead = dead_letters(&files, &found)?;
    let settings = ForwarderSettings {
        shards,
        epoch,
        queue_size: config.share_forward_queue_size,
        max_in_flight: config.share_forward_max_in_flight.min(SENDER_THREADS_MAX),
        batch_interval_ms: config.share_batch_interval_ms,
        attempts_max: config.share_forward_max_attempts,
        backoff_max_ms: config.share_forward_backoff_max_ms,
        retention_days: config.share_retention_days,
        // With the time, so that it is new even if the epoch's file was lost.
        batch_prefix: format!(
            "bat_{:04x}{epoch:04x}{:08x}",
            config.instance_id,
            now.unix.seconds()
        ),
    };
    let writer = Writer::new(WriterSettings::new(&gateway_id(config)), found.start(epoch));
    // Even if the oldest of them cannot be read any more, the others are to be found.
    let first_open = (found.open > 0).then_some(found.settled_below);
    let found = Found { first_open, closed: found.closed, dead };
    Ok(Opened { epoch, folder, machine: Forwarder::new(settings, writer, found, now) })
}

/// Say what was found, and loudly what was lost.
fn report(found: &Recovered) {
    let dead = found.dead_total;
    info!(next_event = found.next_event_id, open = found.open, dead, "the journal goes on");
    if found.torn_bytes > 0 {
        let bytes = found.torn_bytes;
        warn!(bytes, "the end of a write that never was on disk is cut off; nothing was promised");
    }
    for damage in &found.damages {
        error!("the journal is damaged: {damage}; run `reservegrid shares verify`");
    }
}

/// The shares of dead letters, which are kept in memory.
fn dead_letters(files: &Folder, found: &Recovered) -> Result<Vec<OpenShare>, String> {
    if found.dead_total > DEAD_LETTERS_MAX as u64 {
        return Err(format!(
            "{} dead letters in the journal, at most {DEAD_LETTERS_MAX} are kept in memory",
            found.dead_total
        ));
    }
    let mut shares = Vec::new();
    for dead in &found.dead {
        let located = files.find_event(dead.share_event, found.next_event_id);
        match located.map_err(|error| error.to_string())?.map(|located| located.record) {
            Some(Record::Accepted(share)) => {
                shares.push(OpenShare { event: dead.share_event, share });
            }
            _ => error!(event = dead.share_event, "a dead letter cannot be read back"),
        }
    }
    Ok(shares)
}

/// Start it on its core.
///
/// # Errors
/// A thread cannot be started, or the secret is none.
pub fn start(
    config: &Config,
    opened: Opened,
    links: Links<'_>,
    bell: &Bell,
    clock: Clock,
) -> Result<(JournalView, ExecutorJoinHandle<std::io::Result<()>>), String> {
    let threads = config.share_forward_max_in_flight.min(SENDER_THREADS_MAX);
    let (batches, waiting) = crossbeam::channel::bounded(BATCHES_WAITING_MAX);
    let answers =
        Answers { queue: Arc::new(ArrayQueue::new(BATCHES_WAITING_MAX)), bell: bell.clone() };
    let secrets = config.share_upstream_secrets.iter().map(|one| one.reveal().to_owned());
    let settings = SenderSettings {
        url: config.share_upstream_url.clone(),
        secrets: secrets.collect(),
        gateway_id: gateway_id(config),
        timeout: Duration::from_millis(config.share_forward_timeout_ms),
    };
    sender::spawn(threads, &settings, &waiting, &answers, clock)?;
    let Opened { folder, machine, .. } = opened;
    let view = JournalView {
        folder: folder.clone(),
        head: Sequence::new(machine.head()),
        gateway_id: gateway_id(config),
        commands: Arc::new(ArrayQueue::new(COMMANDS_MAX)),
        bell: bell.clone(),
    };
    let ports = ForwarderPorts {
        shards: links.ends,
        told: links.told,
        commands: Arc::clone(&view.commands),
        batches,
        answers: answers.queue,
        bell: bell.clone(),
        head: view.head.clone(),
        block: Arc::clone(&links.blocks.forwarder),
        stop: Arc::clone(links.stop),
        drain_millis: config.shutdown_drain_ms,
    };
    let core = executor(config, "forwarder", config.forwarder).spawn(move || async move {
        forwarder::run(machine, ports, Disk::new(folder, clock), clock).await;
        Ok(())
    });
    Ok((view, started("the forwarder", core)?))
}
