//! The nodes of one source: their threads' facts go to the [`failover`](crate::failover) machine,
//! on a thread of its own, which does what the machine says.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{BitcoindConfig, BitcoindHandle, Wake};
use crate::clock::{self, MonoClock, TemplateIds};
use crate::event::{Deliver, SourceEvent};
use crate::failover::{Failover, FailoverAction, NodeFact};

/// Facts that may wait for the machine.
const FACTS_MAX: usize = 1_024;
/// The longest sleep of the machine's thread.
const SLEEP_MAX: Duration = Duration::from_secs(60);

enum Message {
    Fact { node: usize, fact: NodeFact },
    Stop,
}

/// The running threads of all nodes.
pub(crate) struct GroupHandle {
    nodes: Vec<BitcoindHandle>,
    messages: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl GroupHandle {
    /// Start the threads of each node, in the order of preference, and the machine. Nodes that are
    /// down are waited for; one on another chain is refused.
    ///
    /// # Errors
    /// A sentence: credentials of no known form, a node on another chain, or no threads.
    pub(crate) fn start(
        configs: Vec<BitcoindConfig>,
        deliver: &Deliver,
    ) -> Result<GroupHandle, String> {
        let (messages, inbox) = sync_channel(FACTS_MAX);
        let machine = Failover::new(configs.iter().map(|config| config.node.url.clone()));
        let urls = configs.iter().map(|config| config.node.url.clone()).collect();
        let mut handle = GroupHandle { nodes: Vec::new(), messages, thread: None };
        for (node, config) in configs.into_iter().enumerate() {
            let messages = handle.messages.clone();
            // After the end nobody listens, and nobody needs to.
            let tell = move |fact| drop(messages.send(Message::Fact { node, fact }));
            handle.nodes.push(BitcoindHandle::start(config, Arc::new(tell))?);
        }
        let group = Group {
            machine,
            urls,
            wakes: handle.nodes.iter().map(BitcoindHandle::waker).collect(),
            deliver: Arc::clone(deliver),
            clock: MonoClock::start(),
            ids: TemplateIds::default(),
        };
        let thread = std::thread::Builder::new()
            .name("node-failover".to_owned())
            .spawn(move || group.run(&inbox))
            .map_err(|error| format!("cannot start the thread of the nodes: {error}"))?;
        handle.thread = Some(thread);
        Ok(handle)
    }

    /// End all threads, calls to nodes included, and wait for them.
    pub(crate) fn stop(&mut self) {
        // While nodes end they may still tell something, so the machine goes last.
        self.nodes.iter_mut().for_each(BitcoindHandle::stop);
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for GroupHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

struct Group {
    machine: Failover,
    urls: Vec<String>,
    wakes: Vec<SyncSender<Wake>>,
    deliver: Deliver,
    clock: MonoClock,
    /// Each node names its templates by its own count: those that go out need one.
    ids: TemplateIds,
}

impl Group {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let deadline = self.machine.deadline();
            let sleep = deadline.map_or(SLEEP_MAX, |at| self.clock.until(at).min(SLEEP_MAX));
            match inbox.recv_timeout(sleep) {
                Ok(Message::Fact { node, fact }) => {
                    self.machine.on_fact(self.clock.now(), node, fact);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            self.machine.on_deadline(self.clock.now());
            while let Some(action) = self.machine.next_action() {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: FailoverAction) {
        match action {
            FailoverAction::Ask { node } => self.wake(node, Wake::Look),
            FailoverAction::Rest { node } => {
                tracing::warn!(node, url = self.urls.get(node), "its templates are not used now");
                self.wake(node, Wake::Rest);
            }
            FailoverAction::Use { node, version } => {
                tracing::info!(node, url = self.urls.get(node), "its templates are used now");
                self.wake(node, Wake::Use { version });
            }
            FailoverAction::Publish(SourceEvent::Template(template)) => {
                let mut renamed = (*template).clone();
                renamed.id = self.ids.next(clock::unix());
                (self.deliver)(SourceEvent::Template(Arc::new(renamed)));
            }
            FailoverAction::Publish(event) => (self.deliver)(event),
        }
    }

    fn wake(&mut self, node: usize, wake: Wake) {
        let sent = self.wakes.get(node).is_some_and(|worker| worker.try_send(wake).is_ok());
        if !sent {
            // Its worker has taken nothing for a long time: the node hangs.
            let why = "it has answered nothing for a long time".to_owned();
            let fact = NodeFact::Lost { since_millis: 0, why };
            self.machine.on_fact(self.clock.now(), node, fact);
        }
    }
}
