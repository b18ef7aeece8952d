//! The board: the newest that the source has said. Readers take what is there now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use source::failover::NodeStanding;
use source::{SourceEvent, clock};
use tokio::sync::watch;
use work::contract::chain::Chain;
use work::template::Template;

/// A template older than this says that the source is gone, whatever else it says; sources
/// repeat an unchanged template every ten seconds.
pub const TEMPLATE_AGE_MAX: Duration = Duration::from_secs(90);

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The coinbase-only template of the tip, until another tip comes.
    pub coinbase_only: Option<Arc<Template>>,
    /// The newest full template of the tip, once there is one.
    pub full: Option<Arc<Template>>,
    /// When the newest template came.
    pub template_at: Option<Instant>,
    /// When a node last answered, and what is wrong, while there is none to use.
    pub lost: Option<(Instant, String)>,
    /// Why the node's templates must not be used.
    pub refused: Option<String>,
    /// Each node, in the order of the configuration; none for the simulated chain.
    pub nodes: Arc<[NodeStanding]>,
    /// The chain.
    pub chain: Option<Arc<Chain>>,
    /// When its tip was learned.
    pub tip_at: Option<Instant>,
}

impl Snapshot {
    /// The templates in force, in the order in which they were made.
    pub fn templates(&self) -> impl Iterator<Item = &Arc<Template>> {
        self.coinbase_only.iter().chain(self.full.iter())
    }

    /// The newest template.
    pub fn newest(&self) -> Option<&Arc<Template>> {
        self.full.as_ref().or(self.coinbase_only.as_ref())
    }

    /// Why gateways cannot get usable templates now, if they cannot.
    pub fn trouble(&self, now: Instant) -> Option<String> {
        if let Some(why) = &self.refused {
            return Some(why.clone());
        }
        if let Some((_, why)) = &self.lost {
            return Some(why.clone());
        }
        let Some(at) = self.template_at else {
            return Some("there is no template yet".to_owned());
        };
        let age = now.saturating_duration_since(at);
        (age > TEMPLATE_AGE_MAX).then(|| format!("the newest template is {} s old", age.as_secs()))
    }

    fn apply(&mut self, event: SourceEvent, now: Instant) {
        match event {
            SourceEvent::TipNotice { .. } => self.tip_at = Some(now),
            SourceEvent::Chain(chain) => self.chain = Some(chain),
            SourceEvent::Template(template) => self.apply_template(template, now),
            SourceEvent::NodeLost { since_millis, why } => {
                let since = now.checked_sub(Duration::from_millis(since_millis)).unwrap_or(now);
                self.lost = Some((since, why));
            }
            SourceEvent::NodeBack => {
                self.lost = None;
                self.refused = None;
            }
            SourceEvent::Refused { why } => {
                let since = self.lost.take().map_or(now, |(since, _)| since);
                self.lost = Some((since, why.clone()));
                self.refused = Some(why);
                // Nobody who connects now may get what was refused.
                (self.coinbase_only, self.full, self.chain) = (None, None, None);
            }
            SourceEvent::Standings(nodes) => self.nodes = nodes,
            SourceEvent::Fetched { .. } => {}
        }
    }

    fn apply_template(&mut self, template: Arc<Template>, now: Instant) {
        self.template_at = Some(now);
        self.lost = None;
        let is_new_tip =
            self.newest().is_none_or(|newest| newest.prev_hash() != template.prev_hash());
        if is_new_tip {
            (self.coinbase_only, self.full) = (None, None);
        }
        // On a quiet chain the full template is coinbase-only, too; then it replaces the first.
        if template.is_coinbase_only() && self.full.is_none() {
            self.coinbase_only = Some(template);
        } else {
            self.full = Some(template);
        }
    }
}

/// Holds the newest [`Snapshot`] and wakes those who wait for the next.
pub struct Board {
    sender: watch::Sender<Snapshot>,
}

impl Default for Board {
    fn default() -> Self {
        Board { sender: watch::Sender::new(Snapshot::default()) }
    }
}

impl Board {
    /// Take note of an event, on the source's thread.
    pub fn on_event(&self, event: SourceEvent) {
        match &event {
            SourceEvent::NodeLost { since_millis, why } => {
                tracing::warn!(since_millis, why, "no node gives templates");
            }
            SourceEvent::NodeBack => tracing::info!("a node gives templates"),
            SourceEvent::Refused { why } => tracing::error!(why, "no node may be used"),
            SourceEvent::Standings(nodes) => log_standings(nodes),
            SourceEvent::TipNotice { prev_hash, channel } => {
                tracing::info!(%prev_hash, channel = channel.name(), "new tip");
            }
            _ => {}
        }
        if let SourceEvent::Fetched { .. } = event {
            // Of interest to the metrics alone.
            return;
        }
        self.sender.send_modify(|snapshot| snapshot.apply(event, clock::mono()));
    }

    /// What is known now.
    pub fn now(&self) -> Snapshot {
        self.sender.borrow().clone()
    }

    /// To wait for what comes.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.sender.subscribe()
    }
}

fn log_standings(nodes: &[NodeStanding]) {
    for (node, NodeStanding { state, is_in_use, height }) in nodes.iter().enumerate() {
        tracing::debug!(node, state = state.name(), is_in_use, height, "node");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use source::assemble::{Frame, coinbase_only, template};
    use work::hash::BlockHash;
    use work::template::{TemplateId, Transaction};
    use work::tip::Tip;

    fn frame(id: u64, tip: u8) -> Frame {
        let tip = Tip { prev_hash: BlockHash([tip; 32]), nbits: 0x207f_ffff, min_ntime: 1 };
        Frame { id: TemplateId(id), tip, ..Frame::default() }
    }

    fn ids(board: &Board) -> Vec<u64> {
        board.now().templates().map(|template| template.id.0).collect()
    }

    #[test]
    fn the_templates_in_force_are_those_of_the_newest_tip() {
        let board = Board::default();
        let tell = |template| board.on_event(SourceEvent::Template(Arc::new(template)));
        let transaction = Transaction {
            txid: Default::default(),
            wtxid: Default::default(),
            data: Box::default(),
            fee: 1,
            weight: 400,
            sigops: 0,
        };
        let transactions: Arc<[_]> = vec![Arc::new(transaction)].into();
        tell(coinbase_only(frame(1, 1)));
        assert_eq!(ids(&board), [1]);
        tell(template(frame(2, 1), Arc::clone(&transactions)));
        assert_eq!(ids(&board), [1, 2]);
        tell(template(frame(3, 1), transactions));
        assert_eq!(ids(&board), [1, 3]);
        tell(coinbase_only(frame(4, 2)));
        assert_eq!(ids(&board), [4]);
        tell(coinbase_only(frame(5, 2)));
        assert_eq!(ids(&board), [5]);
    }

    #[test]
    fn trouble_has_a_reason() {
        let board = Board::default();
        let trouble = || board.now().trouble(clock::mono());
        assert!(trouble().is_some());
        board.on_event(SourceEvent::Template(Arc::new(coinbase_only(frame(1, 1)))));
        assert_eq!(trouble(), None);
        let later = clock::mono() + TEMPLATE_AGE_MAX + Duration::from_secs(1);
        assert!(board.now().trouble(later).unwrap().contains("s old"));
        board.on_event(SourceEvent::NodeLost { since_millis: 600, why: "gone".into() });
        assert_eq!(trouble().as_deref(), Some("gone"));
        board.on_event(SourceEvent::NodeBack);
        assert_eq!(trouble(), None);
        board.on_event(SourceEvent::Refused { why: "another chain".into() });
        assert_eq!(trouble().as_deref(), Some("another chain"));
        assert_eq!(ids(&board), [0u64; 0]);
    }
}
