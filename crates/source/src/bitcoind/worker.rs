//! The worker: asks the node for its tip, and for templates while it is in use, and says what is
//! new.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use work::contract::chain::{CHAIN_TIPS_MAX, Chain};
use work::hash::BlockHash;
use work::template::Template;

use super::listen::{self, Listener, Notification};
use super::parent::{self, Header, MiningInfo, Parent};
use super::template::{self, Interner, Offer, OfferError};
use super::{BitcoindConfig, NodeDeliver, Wake, check_chain};
use crate::assemble;
use crate::clock::{self, TemplateIds};
use crate::event::TipChannel;
use crate::failover::{ChainWork, NodeFact, NodeTip};
use crate::rpc::{Answer, RpcClient, RpcError};

/// A template that does not change is told again after this long, so that its age shows that
/// the node lives, and its time follows the clock.
const REFRESH: Duration = Duration::from_secs(10);
/// After ZMQ has failed it is tried again this much later.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Attempts to find the tip at rest while blocks follow one another.
const TIP_ATTEMPTS: usize = 3;

pub(super) struct Worker {
    config: BitcoindConfig,
    client: RpcClient,
    deliver: NodeDeliver,
    wake: SyncSender<Wake>,
    listener: Option<Listener>,
    interner: Interner,
    ids: TemplateIds,
    parent: Option<Parent>,
    tip: Option<NodeTip>,
    earlier_tips: VecDeque<BlockHash>,
    last: Option<Arc<Template>>,
    /// Block version of the next coinbase-only template, once it is known.
    version: Option<u32>,
    /// Its templates are wanted.
    in_use: bool,
    /// It gave no template when it was asked, so it is asked until it does.
    is_barren: bool,
    told: Instant,
    fetched: Instant,
    standing: Standing,
    /// The next template is told even if it is unchanged.
    must_tell: bool,
    /// When ZMQ is tried again after it failed.
    listen_again: Option<Instant>,
}

/// What is thought of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has not been looked at, or could not be.
    Unknown,
    Usable,
    /// It is on another chain or wants more than is known here, until it comes back changed.
    Refused,
}

/// Why the node gave no template; the pulse tells of lost nodes, so some are only for the log.
enum Failure {
    Call(RpcError),
    Offer(OfferError),
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Failure::Call(error)
    }
}

impl From<OfferError> for Failure {
    fn from(error: OfferError) -> Self {
        Failure::Offer(error)
    }
}

impl Worker {
    pub(super) fn new(
        config: BitcoindConfig,
        client: RpcClient,
        deliver: NodeDeliver,
        wake: SyncSender<Wake>,
    ) -> Worker {
        Worker {
            config,
            client,
            deliver,
            wake,
            listener: None,
            interner: Interner::default(),
            ids: TemplateIds::default(),
            parent: None,
            tip: None,
            earlier_tips: VecDeque::new(),
            last: None,
            version: None,
            in_use: false,
            is_barren: false,
            told: clock::mono(),
            fetched: clock::mono(),
            standing: Standing::Unknown,
            must_tell: false,
            listen_again: None,
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Wake>) {
        let interval = Duration::from_millis(self.config.poll_interval_ms);
        let mut next_poll = clock::mono() + interval;
        loop {
            let wait = next_poll.saturating_duration_since(clock::mono());
            let outcome = match inbox.recv_timeout(wait) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Back) => self.begin(),
                Err(RecvTimeoutError::Timeout) => self.on_poll(),
                Ok(Wake::Use { version }) => self.on_use(version),
                Ok(Wake::Rest) => {
                    self.rest();
                    Ok(())
                }
                _ if self.standing != Standing::Usable => Ok(()),
                Ok(Wake::ZmqFailed(why)) => {
                    self.listen_again = Some(clock::mono() + LISTEN_AGAIN);
                    self.fall_back_to_longpoll(&why);
                    Ok(())
                }
                Ok(Wake::Tip { hash, channel }) => self.on_tip(hash, channel),
                Ok(Wake::Longpolled(answer)) => self.on_offer(&answer, TipChannel::Longpoll),
                Ok(Wake::Look) => self.look(),
            };
            if let Err(failure) = outcome {
                self.on_failure(failure);
            }
            if next_poll <= clock::mono() {
                next_poll = clock::mono() + interval;
            }
        }
    }

    fn on_poll(&mut self) -> Result<(), Failure> {
        match self.standing {
            Standing::Unknown => self.begin(),
            Standing::Refused => Ok(()),
            Standing::Usable => {
                if self.listen_again.is_some_and(|at| at <= clock::mono()) {
                    self.listen();
                }
                // Tips of a node at rest are heard by ZMQ and the pulse.
                if self.in_use || self.is_barren { self.fetch() } else { Ok(()) }
            }
        }
    }

    /// The templates of this node are wanted from now on.
    fn on_use(&mut self, version: Option<u32>) -> Result<(), Failure> {
        (self.in_use, self.must_tell) = (true, true);
        if self.standing != Standing::Usable {
            // The look at it that comes will end with a template.
            return Ok(());
        }
        if self.listener.is_none() {
            self.listen();
        }
        self.version = version;
        self.learn_again()?;
        self.fetch()
    }

    /// The templates of this node are not wanted any more, perhaps because it gave none: when it
    /// has shown once that it can, its tip is told again, and it may be put to use again.
    fn rest(&mut self) {
        (self.in_use, self.is_barren) = (false, true);
        if matches!(self.listener, Some(Listener::Longpoll { .. })) {
            self.listener = None;
        }
    }

    /// What is the tip now?
    fn look(&mut self) -> Result<(), Failure> {
        let best = self.client.call("getbestblockhash", serde_json::json!([]))?;
        self.on_tip(best, TipChannel::Poll)
    }

    /// Say again which tip it is, and what follows from it.
    fn learn_again(&mut self) -> Result<(), Failure> {
        let best = self.client.call("getbestblockhash", serde_json::json!([]))?;
        let before = self.parent.take();
        self.learn_parent(best, TipChannel::Poll)?;
        if let (Some(before), Some(now)) = (before, self.parent)
            && before.hash != now.hash
        {
            self.remember(before.hash);
        }
        Ok(())
    }

    fn remember(&mut self, earlier_tip: BlockHash) {
        self.earlier_tips.push_front(earlier_tip);
        self.earlier_tips.truncate(CHAIN_TIPS_MAX - 1);
    }

    /// The node is there, perhaps another one than before: look at it afresh.
    fn begin(&mut self) -> Result<(), Failure> {
        self.standing = Standing::Unknown;
        if let Err(why) = check_chain(&mut self.client, self.config.network)? {
            return Err(OfferError::Refused(why).into());
        }
        (self.standing, self.must_tell, self.is_barren) = (Standing::Usable, true, false);
        self.listen();
        self.learn_again()?;
        if self.in_use { self.fetch() } else { Ok(()) }
    }

    fn listen(&mut self) {
        (self.listener, self.listen_again) = (None, None);
        // A node built without ZMQ does not know the call.
        let notifications: Vec<Notification> =
            self.client.call("getzmqnotifications", serde_json::json!([])).unwrap_or_default();
        let Some(endpoint) = listen::endpoint(&notifications, &self.config.node.url) else {
            self.fall_back_to_longpoll("the node publishes no hashblock (-zmqpubhashblock)");
            return;
        };
        tracing::info!(endpoint, "new tips are heard by ZMQ");
        match listen::zmq(endpoint, self.wake.clone()) {
            Ok(listener) => self.listener = Some(listener),
            Err(why) => self.fall_back_to_longpoll(&why),
        }
    }

    fn fall_back_to_longpoll(&mut self, why: &str) {
        self.listener = None;
        if !self.in_use {
            // A longpoll costs the node a template, and here nobody needs one.
            tracing::info!(why, "no ZMQ: tips of this node at rest are heard by the pulse");
            return;
        }
        tracing::warn!(why, "no ZMQ: new tips are heard by longpoll, about 40 ms later");
        match listen::longpoll(&self.config.node, self.config.network, self.wake.clone()) {
            Ok(listener) => self.listener = Some(listener),
            Err(why) => {
                tracing::error!(why, "no longpoll either: new tips are heard by the pulse alone");
                self.listener = None;
            }
        }
    }

    /// The tip is said to be `hash`: if it is, say so, and fetch what follows from it.
    fn on_tip(&mut self, hash: BlockHash, channel: TipChannel) -> Result<(), Failure> {
        if self.parent.is_some_and(|parent| parent.hash == hash) {
            return Ok(());
        }
        if self.learn_parent(hash, channel)? && self.in_use { self.fetch() } else { Ok(()) }
    }

    /// Ask about the tip, which is said to be `best`, and what it demands of the next block;
    /// whether there is a new one.
    fn learn_parent(&mut self, mut best: BlockHash, channel: TipChannel) -> Result<bool, Failure> {
        let none = serde_json::json!([]);
        for _ in 0..TIP_ATTEMPTS {
            if self.parent.is_some_and(|parent| parent.hash == best) {
                return Ok(false);
            }
            let answers = self.client.ask_all(&[
                ("getblockheader", serde_json::json!([best])),
                ("getmininginfo", none.clone()),
                ("getbestblockhash", none.clone()),
            ])?;
            let [header, mining, after] = answers.as_slice() else {
                return Err(RpcError::Malformed("a batch lost answers".to_owned()).into());
            };
            // The tip is another by now: ask again about that one.
            let after: BlockHash = after.read()?;
            if after != best {
                best = after;
                continue;
            }
            self.on_parent(&header.read()?, &mining.read()?, channel)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn on_parent(
        &mut self,
        header: &Header,
        mining: &MiningInfo,
        channel: TipChannel,
    ) -> Result<(), Failure> {
        let work = ChainWork::parse(&header.chainwork).map_err(RpcError::Malformed)?;
        let tip = NodeTip { hash: header.hash, height: header.height, work };
        let parent = Parent {
            hash: header.hash,
            height: header.height,
            time: header.time,
            median_time: header.mediantime,
        };
        if let Some(before) = self.parent.replace(parent) {
            self.remember(before.hash);
        }
        self.tip = Some(tip);
        (self.deliver)(NodeFact::Tip { tip, channel });
        if self.in_use {
            self.announce(&parent, header, mining);
        }
        Ok(())
    }

    /// What follows from a new tip at once.
    fn announce(&mut self, parent: &Parent, header: &Header, mining: &MiningInfo) {
        let next = mining.next.as_ref().filter(|next| next.height == parent.height + 1);
        let nbits = next.and_then(|next| template::nbits(&next.bits).ok());
        if let (Some(nbits), Some(version)) = (nbits, self.version) {
            let now = clock::unix();
            let id = self.ids.next(now);
            let network = self.config.network;
            let frame = parent::frame(network, parent, nbits, version, now.seconds(), id);
            let template = Arc::new(assemble::coinbase_only(frame));
            (self.deliver)(NodeFact::Template(template));
        }
        // A node that does not say has the same bits next, except at a retarget.
        if let Some(nbits) = nbits.or_else(|| template::nbits(&header.bits).ok()) {
            (self.deliver)(NodeFact::Chain(Arc::new(self.chain(parent, nbits))));
        }
    }

    fn chain(&self, parent: &Parent, next_nbits: u32) -> Chain {
        Chain {
            network: self.config.network,
            demo: false,
            tip_hash: parent.hash,
            height: parent.height,
            tip_time: parent.time,
            median_time_past: parent.median_time,
            next_nbits,
            next_min_time: parent::min_time(self.config.network, parent),
            recent_tips: self.earlier_tips.iter().copied().collect(),
        }
    }

    /// Ask for a full template.
    fn fetch(&mut self) -> Result<(), Failure> {
        let asked = clock::mono();
        let parameters = template::parameters(self.config.network, None);
        let answer = self.client.ask("getblocktemplate", parameters)?;
        self.on_offer(&answer, TipChannel::Poll)?;
        let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        (self.deliver)(NodeFact::Fetched { micros });
        Ok(())
    }

    fn on_offer(&mut self, answer: &Answer, channel: TipChannel) -> Result<(), Failure> {
        let offer: Offer<'_> = answer.read()?;
        let id = self.ids.next(clock::unix());
        let mut template = self.interner.template(&offer, id, self.config.network)?;
        self.fetched = clock::mono();
        if let Some(tip) = self.tip.filter(|_| std::mem::take(&mut self.is_barren)) {
            (self.deliver)(NodeFact::Tip { tip, channel });
        }
        let prev_hash = template.tip.prev_hash;
        if self.parent.is_none_or(|parent| parent.hash != prev_hash) {
            self.learn_parent(prev_hash, channel)?;
        }
        // Templates of a tip that has been passed since are of no use to anyone.
        let Some(parent) = self.parent.filter(|parent| parent.hash == prev_hash) else {
            return Ok(());
        };
        // The coinbase-only template may have been named just now: this one is newer.
        template.id = self.ids.next(clock::unix());
        let network = self.config.network;
        template.max_ntime = parent::max_time(network, &parent, template.cur_time);
        let tip = &mut template.tip;
        tip.min_ntime = parent::bound_to_bits(network, &parent, tip.min_ntime, template.cur_time);
        self.tell(template);
        Ok(())
    }

    fn tell(&mut self, template: Template) {
        if !self.in_use {
            return;
        }
        self.version = Some(template.version);
        let unchanged = self.last.as_ref().is_some_and(|last| is_same_work(last, &template));
        if unchanged && !self.must_tell && self.told.elapsed() < REFRESH {
            return;
        }
        self.must_tell = false;
        self.told = clock::mono();
        let template = Arc::new(template);
        self.last = Some(Arc::clone(&template));
        (self.deliver)(NodeFact::Template(template));
    }

    fn on_failure(&mut self, failure: Failure) {
        match failure {
            Failure::Offer(OfferError::Refused(why)) => {
                self.standing = Standing::Refused;
                self.listener = None;
                (self.deliver)(NodeFact::Refused { why });
            }
            // A node in its first synchronisation or without peers answers like this.
            Failure::Call(error @ RpcError::Node { .. }) => self.lose(&error.to_string()),
            Failure::Offer(error) => self.lose(&error.to_string()),
            Failure::Call(error) => tracing::debug!(%error, "no template this time"),
        }
    }

    /// The node answers, but gives no templates: to others that is a lost node.
    fn lose(&mut self, why: &str) {
        (self.must_tell, self.is_barren) = (true, true);
        let since_millis = u64::try_from(self.fetched.elapsed().as_millis()).unwrap_or(u64::MAX);
        (self.deliver)(NodeFact::Lost { since_millis, why: why.to_owned() });
    }
}

/// Whether miners would find the same in both; times apart.
fn is_same_work(a: &Template, b: &Template) -> bool {
    a.tip == b.tip
        && a.version == b.version
        && a.coinbase_value == b.coinbase_value
        && a.merkle_path == b.merkle_path
        && a.witness_commitment == b.witness_commitment
}
