//! Where a gateway takes its templates from: template-manager's stream, or a node straight (D7).
//!
//! Both tell the same [`FeedEvent`]s, so whoever listens need not know which it is. A node is told
//! apart by its credentials: template-manager wants none.

use std::sync::Arc;

use work::contract::feed::NodeAccess;
use work::payout::Network;

use crate::demo::DemoConfig;
use crate::event::SourceEvent;
use crate::feed::{FeedClient, FeedEvent};
use crate::{Source, SourceConfig};

/// Which upstream.
#[derive(Clone)]
pub struct UpstreamConfig {
    /// Address of template-manager, or of a node's JSON-RPC.
    pub url: String,
    /// The node's credentials, `cookie:/path` or `user:password`; nothing for template-manager.
    pub auth: Option<String>,
    /// The chain that a node must be on.
    pub network: Network,
    /// Milliseconds between two templates on one tip of a node; template-manager tells by itself.
    pub poll_interval_ms: u64,
}

/// A running upstream. Dropping it stops its threads.
pub struct Upstream(Running);

enum Running {
    Stream(FeedClient),
    Node(Source),
}

impl Upstream {
    /// Start its threads, on which `callback` runs: templates wait while it does.
    ///
    /// # Errors
    /// A sentence: an address or credentials of no known form, a node on another chain, or no
    /// threads. A template-manager or a node that is down is waited for.
    pub fn start(
        config: UpstreamConfig,
        callback: impl Fn(FeedEvent) + Send + Sync + 'static,
    ) -> Result<Upstream, String> {
        let UpstreamConfig { url, auth, network, poll_interval_ms } = config;
        if auth.is_none() {
            return FeedClient::spawn(&url, callback)
                .map(|client| Upstream(Running::Stream(client)));
        }
        let nodes = vec![NodeAccess { url, auth }];
        let config = SourceConfig {
            nodes: nodes.clone(),
            network,
            poll_interval_ms,
            demo: DemoConfig::default(),
        };
        config.check().map_err(|error| error.0)?;
        for event in [
            FeedEvent::Connected,
            FeedEvent::Source { network, demo: false },
            FeedEvent::Nodes(nodes),
        ] {
            callback(event);
        }
        let deliver = move |event| {
            if let Some(event) = feed_event(event) {
                callback(event);
            }
        };
        let source = Source::start(config, Arc::new(deliver)).map_err(|error| error.0)?;
        Ok(Upstream(Running::Node(source)))
    }

    /// Stop the threads and wait for them.
    pub fn stop(self) {
        match self.0 {
            Running::Stream(client) => client.stop(),
            Running::Node(source) => source.stop(),
        }
    }
}

/// What the stream of a template-manager would tell of it.
fn feed_event(event: SourceEvent) -> Option<FeedEvent> {
    match event {
        SourceEvent::Template(template) => Some(FeedEvent::Template(template)),
        SourceEvent::NodeLost { since_millis, why } => {
            tracing::warn!(since_millis, why, "the node is lost");
            Some(FeedEvent::NodeLost { since_millis })
        }
        SourceEvent::Refused { why } => {
            tracing::error!(why, "the node is refused");
            Some(FeedEvent::NodeLost { since_millis: 0 })
        }
        // The template that follows tells it.
        SourceEvent::NodeBack
        | SourceEvent::TipNotice { .. }
        | SourceEvent::Chain(_)
        | SourceEvent::Standings(_)
        | SourceEvent::Fetched { .. } => None,
    }
}
