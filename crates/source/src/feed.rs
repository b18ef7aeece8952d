//! The gateway's end of template-manager's stream (`GET /template/stream`).
//!
//! One ordinary thread reads lines and calls back. Silence for three heartbeats, a line that
//! makes no sense and a closed connection are all the same: the link is down, and is made again
//! after a pause of 0.1 s that doubles up to 1 s.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use work::contract::feed::{FeedLine, FeedReader, HEARTBEAT_MILLIS, LINE_BYTES_MAX, NodeAccess};
use work::payout::Network;
use work::template::Template;

/// Path of the stream below template-manager's address.
pub const STREAM_PATH: &str = "/template/stream";
/// The version of the stream that is read here.
const PROTO: u32 = 1;
/// A living stream is never silent for this long.
const SILENCE_MAX: Duration = Duration::from_millis(3 * HEARTBEAT_MILLIS);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(750);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Bytes read from the connection at a time.
const BUFFER_BYTES: usize = 256 * 1024;
/// A line buffer larger than this is given back after the line.
const LINE_BYTES_KEPT: usize = 1024 * 1024;

/// What the stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEvent {
    /// The stream answers; `Source`, `Nodes` and the templates in force follow.
    Connected,
    /// What the source is.
    Source {
        /// Chain of its node.
        network: Network,
        /// Whether it is the simulated chain.
        demo: bool,
    },
    /// The nodes that take blocks; replaces the list before.
    Nodes(Vec<NodeAccess>),
    /// A template, newer than those before it on this connection.
    Template(Arc<Template>),
    /// The source lives but has lost its node; the next template ends that.
    NodeLost {
        /// Milliseconds since the node last answered.
        since_millis: u64,
    },
    /// The link is down; it is being made again.
    Disconnected {
        /// Why, in words.
        reason: String,
    },
}

/// The running thread. Dropping this stops it.
pub struct FeedClient {
    stop: Option<Sender<()>>,
    agent: ureq::Agent,
    thread: Option<JoinHandle<()>>,
}

impl FeedClient {
    /// Start reading the stream of the template-manager at `url` (`http://host:8082`).
    /// `callback` runs on the thread of the client; templates wait while it does.
    ///
    /// # Errors
    /// A sentence if `url` is not http or https, or no thread can be started.
    pub fn spawn(
        url: &str,
        callback: impl FnMut(FeedEvent) + Send + 'static,
    ) -> Result<FeedClient, String> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("\"{url}\" is not the address of a template-manager: http://…"));
        }
        let base = url.trim_end_matches('/');
        let url = match base.strip_suffix(STREAM_PATH) {
            Some(_) => base.to_owned(),
            None => format!("{base}{STREAM_PATH}"),
        };
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_MAX))
            .timeout_per_write(Some(CONNECT_TIMEOUT))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .proxy(None)
            .build();
        let agent: ureq::Agent = config.into();
        let (stop, stopped) = channel();
        let run = Run { agent: agent.clone(), url, stopped, callback };
        let thread = std::thread::Builder::new()
            .name("template-feed".to_owned())
            .spawn(move || run.run())
            .map_err(|error| format!("cannot start the thread of the template feed: {error}"))?;
        Ok(FeedClient { stop: Some(stop), agent, thread: Some(thread) })
    }

    /// Stop reading and wait until the thread has ended, which it does at once unless the
    /// callback is at work.
    pub fn stop(mut self) {
        self.signal();
        if let Some(thread) = self.thread.take() {
            // A callback that panicked ended the thread, too.
            let _ = thread.join();
        }
    }

    fn signal(&mut self) {
        if self.stop.take().is_some() {
            self.agent.clone().shutdown();
        }
    }
}

impl Drop for FeedClient {
    fn drop(&mut self) {
        self.signal();
    }
}

struct Run<F> {
    agent: ureq::Agent,
    url: String,
    stopped: Receiver<()>,
    callback: F,
}

impl<F: FnMut(FeedEvent)> Run<F> {
    fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let mut useful = false;
            let reason = match self.connection(&mut useful) {
                Ok(()) => return,
                Err(reason) => reason,
            };
            if self.is_stopped() {
                return;
            }
            (self.callback)(FeedEvent::Disconnected { reason });
            backoff = if useful { BACKOFF_MIN } else { backoff };
            if self.stopped.recv_timeout(backoff) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() != Err(TryRecvError::Empty)
    }

    /// One connection from beginning to end; `Ok` when told to stop, else why it ended.
    fn connection(&mut self, useful: &mut bool) -> Result<(), String> {
        let failed = |error: ureq::Error| format!("{}: {error}", self.url);
        let answer = self.agent.get(&self.url).call().map_err(failed)?;
        if answer.status() != 200 {
            return Err(format!("{} answers HTTP {}", self.url, answer.status()));
        }
        (self.callback)(FeedEvent::Connected);
        let mut lines = BufReader::with_capacity(BUFFER_BYTES, answer.into_body().into_reader());
        let mut reader = FeedReader::default();
        let mut line = Vec::new();
        let mut introduced = false;
        while !self.is_stopped() {
            read_line(&mut lines, &mut line)?;
            let line: FeedLine = serde_json::from_slice(&line)
                .map_err(|error| format!("a line of the stream makes no sense: {error}"))?;
            if let FeedLine::Source { proto, .. } = &line {
                if *proto != PROTO {
                    return Err(format!(
                        "the stream has version {proto}; this program reads {PROTO}: update the \
                         older of the two"
                    ));
                }
                introduced = true;
            } else if !introduced {
                return Err("the stream does not begin with a Source line".to_owned());
            }
            self.on_line(line, &mut reader, useful)?;
        }
        Ok(())
    }

    fn on_line(
        &mut self,
        line: FeedLine,
        reader: &mut FeedReader,
        useful: &mut bool,
    ) -> Result<(), String> {
        let event = match line {
            FeedLine::Source { network, demo, .. } => FeedEvent::Source { network, demo },
            FeedLine::Nodes { nodes } => FeedEvent::Nodes(nodes),
            FeedLine::Template(template) => {
                *useful = true;
                FeedEvent::Template(Arc::new(reader.template(*template)?))
            }
            FeedLine::NodeLost { since_millis } => FeedEvent::NodeLost { since_millis },
            FeedLine::Heartbeat => return Ok(()),
        };
        (self.callback)(event);
        Ok(())
    }
}

fn read_line(lines: &mut BufReader<impl Read>, line: &mut Vec<u8>) -> Result<(), String> {
    line.clear();
    line.shrink_to(LINE_BYTES_KEPT);
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    lines.by_ref().take(limit + 1).read_until(b'\n', line).map_err(|error| {
        format!("nothing was read for {} ms or the link broke: {error}", SILENCE_MAX.as_millis())
    })?;
    if line.last() == Some(&b'\n') {
        return Ok(());
    }
    Err(match line.len() {
        0 => "the stream was closed".to_owned(),
        length if length > LINE_BYTES_MAX => {
            format!("a line of the stream is longer than {LINE_BYTES_MAX} bytes")
        }
        length => format!("the stream was closed {length} bytes into a line"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded() {
        let check = |bytes: &[u8], expected: Result<usize, &str>| {
            let mut line = Vec::new();
            let read = read_line(&mut BufReader::new(bytes), &mut line);
            match expected {
                Ok(length) => assert_eq!((read, line.len()), (Ok(()), length)),
                Err(part) => assert!(read.unwrap_err().contains(part)),
            }
        };
        check(b"{}\nrest", Ok(3));
        check(b"", Err("was closed"));
        check(b"{}", Err("2 bytes into a line"));
        check(&vec![b'x'; LINE_BYTES_MAX + 10], Err("longer than"));
    }
}
