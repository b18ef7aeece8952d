//! The world: time that jumps from one agenda entry to the next, and everything that is in it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use gateway::machine::forwarder::{Batch, Posted};
use gateway::machine::solution::Block;
use gateway::metrics::forwarder::DAMAGES;
use gateway::metrics::shard as counter;
use gateway::reason::Reason;
use loadgen::miner::MinerEvent;
use sv2::AuthorityKey;
use work::contract::feed::NodeAccess;
use work::contract::verifier::{FromVerifier, ToVerifier};
use work::{BlockHash, Job, Mono, Now, Target, Template, Tip, UnixTime};

use crate::backend::Backend;
use crate::chance::Chance;
use crate::checkers::{Bounds, Checker, Rule, Wire};
use crate::disk::Disk;
use crate::faults::{Faults, MILLI, Plant, SECOND};
use crate::miners::Peer;
use crate::net::{Pipe, State, Who};
use crate::node::Node;
use crate::peers::Verifier;
use crate::process::{Fact, Process, SEEN_ROOM};
use crate::stats::Stats;
use crate::trace::Trace;
use crate::wild::Wild;

/// Milliseconds of a day.
pub const DAY_MILLIS: u64 = 86_400_000;
/// Milliseconds since 1970 at which every world begins.
const BEGIN_UNIX_MILLIS: u64 = 1_750_000_000_000;
/// From the end of the faults: mining goes on, then it stops, then all must be settled.
const CALM_MICROS: u64 = 15 * SECOND;
const SETTLE_MICROS: u64 = 100 * SECOND;
/// Longest time, without faults, between a SetTarget and the job behind it.
pub const FRESH_MICROS: u64 = 30 * SECOND;
/// When an operator looks at what is left, seconds after the faults are over.
const OPERATOR_LOOKS: [u64; 8] = [1, 4, 8, 20, 30, 40, 60, 70];
/// Events after which a world is said to run away.
const STEPS_MAX: u64 = 3_000_000;

/// A core of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Core {
    Shard(usize),
    Control,
    Forwarder,
}

/// Something that will happen. Those of the process carry the start that they belong to.
pub enum Event {
    Turn(u64, Core),
    Up(Wire),
    Down(Wire),
    Miner(usize),
    Connect(usize),
    Wild(usize),
    Unstall(Wire),
    Mischief,
    NewTip,
    NewTemplate,
    FullTemplate(Tip),
    SourceBack,
    Offer(u64, Arc<Template>),
    Fact(u64, Fact),
    LinkConnect(u64),
    LinkTick(u64),
    LinkServe(u64),
    ToVerifier(u64, u64, Box<ToVerifier>),
    FromVerifier(u64, u64, Box<FromVerifier>),
    Post(u64, Arc<Batch>),
    Posted(u64, u64, Posted),
    Submit(u64, NodeAccess, Block),
    DiskDone(u64),
    Operator,
    SpaceBack,
    Stopped(u64),
    End(End),
    Crash(End),
    Drain,
    Drained(u64, Mono),
    Start,
    Calm,
    Quiet,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGKILL: what was written stays.
    Kill,
    /// The machine goes with it: what was not synced may be lost.
    Power,
    /// In good order, as far as the disk lets it.
    Stop,
}

struct Due {
    at: Mono,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// When a core is to run next.
#[derive(Default)]
pub struct Wake {
    pub at: Option<Mono>,
    /// Turns in a row after which it wanted another at once.
    pub restless: u64,
    pub slow_until: Mono,
}

/// What a run of a world came to.
pub struct Outcome {
    pub violations: Vec<(Rule, String)>,
    pub trace_hash: [u8; 32],
    pub stats: Stats,
    pub faults: String,
}

/// A whole world.
pub struct World {
    now: Mono,
    agenda: BinaryHeap<Due>,
    order: u64,
    pub chance: Chance,
    pub faults: Faults,
    pub plant: Option<Plant>,
    pub has_planted: bool,
    /// The faults are over; and mining is.
    pub is_calm: bool,
    /// When the faults ended.
    pub calm_at: Option<Mono>,
    pub is_quiet: bool,
    pub is_draining: bool,
    pub trace: Trace,
    pub checker: Checker,
    pub stats: Stats,
    pub authority: AuthorityKey,
    /// Counts starts of the process; its epoch, unless that is planted.
    pub generation: u64,
    pub process: Option<Process>,
    pub wakes: BTreeMap<Core, Wake>,
    pub pipes: Vec<Pipe>,
    pub peers: Vec<Peer>,
    pub wild: Vec<Wild>,
    pub node: Node,
    pub verifier: Verifier,
    pub is_source_up: bool,
    /// Counts losses of the source, so that what was sent before one is known.
    pub source_losses: u64,
    pub disk: BTreeMap<BlockHash, Arc<[u8]>>,
    pub disk_nodes: Vec<NodeAccess>,
    /// The faults as they were drawn, in words.
    drawn: String,
    /// Where the journal is.
    pub segments: Disk,
    /// The process ends when the disk has something to do next.
    pub end_at_disk: Option<End>,
    pub backend: Backend,
    /// Milliseconds that the process was down for, beyond what the world's time says.
    pub unix_ahead: u64,
    pub last_proposed: Option<Arc<Job>>,
    /// Tip that control noted last.
    pub noted_tip: Option<BlockHash>,
    /// When control was told that its source is gone.
    pub source_lost_at: Option<Mono>,
}

impl World {
    /// A world as `seed` makes it; a planted one has no faults of its own.
    pub fn new(seed: u64, plant: Option<Plant>, is_printed: bool) -> World {
        let mut chance = Chance::new(seed);
        let faults = match plant {
            None => Faults::draw(&mut chance),
            Some(_) => Faults::calm(&mut chance),
        };
        if plant == Some(Plant::ExtraDie) {
            chance.number();
        }
        let faults_in_words = faults.to_string();
        let now = Now { mono: Mono(0), unix: UnixTime(BEGIN_UNIX_MILLIS) };
        let authority = AuthorityKey::from_secret_bytes([7; 32]).unwrap();
        let node = Node::new(faults.nbits, now, &mut chance);
        let bounds = Bounds {
            extranonce_bytes: faults.extranonce_bytes,
            floor_bits: faults.floor_bits,
            pace: faults.pace,
            workers_max: faults.workers_max,
            seen_room: SEEN_ROOM,
        };
        let mut world = World {
            now: Mono(0),
            agenda: BinaryHeap::new(),
            order: 0,
            chance,
            faults,
            plant,
            has_planted: false,
            is_calm: false,
            calm_at: None,
            is_quiet: false,
            is_draining: false,
            trace: Trace::new(is_printed),
            checker: Checker::new(bounds),
            stats: Stats::default(),
            authority,
            generation: 0,
            process: None,
            wakes: BTreeMap::new(),
            pipes: Vec::new(),
            peers: Vec::new(),
            wild: Vec::new(),
            node,
            verifier: Verifier::default(),
            is_source_up: true,
            source_losses: 0,
            disk: BTreeMap::new(),
            disk_nodes: Vec::new(),
            drawn: faults_in_words,
            segments: Disk::default(),
            end_at_disk: None,
            backend: Backend::default(),
            unix_ahead: 0,
            last_proposed: None,
            noted_tip: None,
            source_lost_at: None,
        };
        world.begin_life();
        world
    }

    fn begin_life(&mut self) {
        let now = self.now();
        self.trace.note(now.mono, format_args!("faults: {}", self.faults));
        self.start();
        self.on_full_template(None);
        for number in 0..self.faults.miners {
            let peer = self.new_peer(number);
            self.peers.push(peer);
            let after = self.chance.below(3 * SECOND);
            self.after(after, Event::Connect(number));
            self.after(after, Event::Miner(number));
        }
        if self.faults.wild_miners {
            for number in 0..2 {
                self.wild.push(Wild::new(self.chance.number()));
                self.after(SECOND, Event::Wild(number));
            }
        }
        let end = self.chance.between(40, 80) * SECOND;
        for _ in 0..self.faults.ends {
            let at = self.chance.below(end);
            let is_cut = self.faults.power_cuts && self.chance.one_in(2);
            let end = if is_cut { End::Power } else { End::Kill };
            let is_crash = self.chance.below(3) > 0;
            self.after(at, if is_crash { Event::End(end) } else { Event::Drain });
        }
        if matches!(self.plant, Some(Plant::EpochReused | Plant::OpenForgotten)) {
            self.after(20 * SECOND, Event::Crash(End::Kill));
        }
        self.after(self.faults.tip_every, Event::NewTip);
        self.after(self.faults.template_every, Event::NewTemplate);
        self.after(SECOND, Event::Mischief);
        self.after(end, Event::Calm);
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let millis = BEGIN_UNIX_MILLIS + self.unix_ahead + self.now.0 / MILLI;
        Now { mono: self.now, unix: UnixTime(millis) }
    }

    /// `event` happens in `micros`.
    pub fn after(&mut self, micros: u64, event: Event) {
        self.order += 1;
        self.agenda.push(Due { at: Mono(self.now.0 + micros), order: self.order, event });
    }

    /// A core is to run in `micros` at the latest.
    pub fn wake(&mut self, core: Core, micros: u64) {
        let at = Mono(self.now.0.saturating_add(micros));
        let wake = self.wakes.entry(core).or_default();
        let at = at.max(wake.slow_until);
        if at.0 < u64::MAX / 2 && wake.at.is_none_or(|before| at < before) {
            wake.at = Some(at);
            let generation = self.generation;
            self.after(at.micros_since(self.now), Event::Turn(generation, core));
        }
    }

    pub fn wake_of(&mut self, core: Core) -> &mut Wake {
        self.wakes.entry(core).or_default()
    }

    /// Whether this lie is to be told now.
    pub fn may_plant(&self, plant: Plant) -> bool {
        self.plant == Some(plant) && !self.has_planted
    }

    /// Run to the end, or to the first violation.
    pub fn run(mut self) -> Outcome {
        let mut end = None;
        while let Some(due) = self.agenda.pop() {
            if end.is_some_and(|end| due.at >= end) {
                break;
            }
            self.now = due.at;
            self.stats.steps += 1;
            if matches!(due.event, Event::Quiet) {
                end = Some(Mono(self.now.0 + SETTLE_MICROS));
            }
            self.happen(due.event);
            let is_runaway = self.stats.steps > STEPS_MAX;
            self.checker.hold(!is_runaway, Rule::C15Rest, || "the world runs away".into());
            if !self.checker.violations.is_empty() {
                break;
            }
        }
        if self.checker.violations.is_empty() {
            self.check_end();
        }
        let at = self.now;
        for (rule, what) in &self.checker.violations {
            self.trace.note(at, format_args!("VIOLATION {rule:?}: {what}"));
        }
        self.stats.connections = self.pipes.len() as u64;
        Outcome {
            violations: self.checker.violations,
            trace_hash: self.trace.hash(),
            stats: self.stats,
            faults: self.drawn,
        }
    }

    fn happen(&mut self, event: Event) {
        let of_process = match &event {
            Event::Turn(generation, _)
            | Event::Fact(generation, _)
            | Event::LinkConnect(generation)
            | Event::LinkTick(generation)
            | Event::LinkServe(generation)
            | Event::ToVerifier(generation, ..)
            | Event::FromVerifier(generation, ..)
            | Event::Posted(generation, ..)
            | Event::DiskDone(generation)
            | Event::Stopped(generation)
            | Event::Drained(generation, _) => Some(*generation),
            _ => None,
        };
        if of_process.is_some_and(|generation| generation != self.generation) {
            return;
        }
        match event {
            Event::Turn(_, core) => {
                let now = self.now;
                if self.wake_of(core).at == Some(now) {
                    self.wake_of(core).at = None;
                    self.turn(core);
                }
            }
            Event::Up(wire) => self.on_up(wire),
            Event::Down(wire) => self.on_down(wire),
            Event::Miner(number) => self.on_miner_tick(number),
            Event::Connect(number) => self.on_connect(number),
            Event::Wild(number) => self.on_wild(number),
            Event::Unstall(wire) => {
                self.pipes[wire].is_stalled = false;
                self.move_down(wire);
            }
            Event::Mischief => self.mischief(),
            Event::NewTip => self.on_new_tip(),
            Event::NewTemplate => self.on_new_template(),
            Event::FullTemplate(tip) => self.on_full_template(Some(tip)),
            Event::SourceBack => self.on_source_back(),
            Event::Offer(losses, template) => self.on_offer(losses, template),
            Event::Fact(_, fact) => self.on_fact_due(fact),
            Event::LinkConnect(_) => self.on_link_connect(),
            Event::LinkTick(_) => self.on_link_tick(),
            Event::LinkServe(_) => self.on_link_serve(),
            Event::ToVerifier(_, connection, line) => self.on_to_verifier(connection, *line),
            Event::FromVerifier(_, connection, line) => self.on_from_verifier(connection, *line),
            Event::Post(generation, batch) => self.on_post(generation, &batch),
            Event::Posted(_, number, posted) => {
                if let Some(process) = &mut self.process {
                    process.forwarder.answers.push_back((number, posted));
                    self.wake(Core::Forwarder, 5);
                }
            }
            Event::Submit(generation, node, block) => {
                if generation == self.generation {
                    self.on_submit(node, &block);
                }
            }
            Event::DiskDone(_) => self.on_disk_done(),
            Event::Operator => self.on_operator(),
            Event::SpaceBack => self.segments.free_space(),
            Event::Stopped(_) => self.crash(End::Stop),
            Event::End(end) => self.end_soon(end),
            Event::Crash(end) => self.crash(end),
            Event::Drain => self.drain(),
            Event::Drained(_, since) => self.on_drained(since),
            Event::Start => self.start(),
            Event::Calm => self.on_calm(),
            Event::Quiet => self.on_quiet(),
        }
    }

    fn on_new_tip(&mut self) {
        if self.is_quiet {
            return;
        }
        let now = self.now();
        if self.faults.tip_flips && self.chance.one_in(2) {
            self.node.flip();
        } else {
            let prev_hash = BlockHash(self.chance.bytes32());
            self.node.extend(now, prev_hash);
        }
        self.announce_tip();
        let quick = self.faults.tip_flips && self.chance.one_in(3);
        let after = if quick { self.chance.below(200 * MILLI) } else { self.faults.tip_every };
        self.after(after, Event::NewTip);
    }

    fn on_new_template(&mut self) {
        if self.is_quiet {
            return;
        }
        self.on_full_template(None);
        self.after(self.faults.template_every, Event::NewTemplate);
    }

    fn on_calm(&mut self) {
        let now = self.now();
        self.trace.note(now.mono, format_args!("the faults are over"));
        self.is_calm = true;
        self.calm_at = Some(now.mono);
        self.faults.switch_off();
        self.verifier.mute_until = 0;
        self.segments.free_space();
        self.end_at_disk = None;
        for after in OPERATOR_LOOKS {
            self.after(after * SECOND, Event::Operator);
        }
        for wake in self.wakes.values_mut() {
            wake.slow_until = Mono(0);
        }
        self.end_of_silence();
        for wire in 0..self.pipes.len() {
            if matches!(self.pipes[wire].who, Who::Wild(_)) && self.pipes[wire].state != State::Gone
            {
                self.reset(wire);
            }
        }
        self.start();
        self.on_source_back();
        self.after(CALM_MICROS, Event::Quiet);
    }

    /// Nobody mines any more.
    fn on_quiet(&mut self) {
        self.is_quiet = true;
        if !self.may_plant(Plant::TargetAlone) {
            return;
        }
        let now = self.now();
        for wire in self.peers.iter().filter_map(|peer| peer.wire) {
            let view = self.checker.wires.get(&wire);
            let side = view.and_then(|view| view.channels.first_key_value());
            let Some((channel_id, side)) = side else { continue };
            let (channel_id, target) = (*channel_id, Target::from_le_bytes(side.target()));
            let lie = MinerEvent::TargetSet { channel_id, target };
            self.checker.on_frame(wire, now, &[lie]);
        }
    }

    /// C13: everybody is on the newest work, and everything is settled.
    fn check_end(&mut self) {
        let mut faults: Vec<String> = Vec::new();
        for number in 0..self.peers.len() {
            faults.extend(self.faults_of(number));
        }
        match &self.process {
            None => faults.push("the process is down".into()),
            Some(process) => {
                let (shares, blocks) =
                    (process.forwarder.forwarder.unsettled(), process.control.submissions.open());
                if shares + blocks > 0 {
                    faults.push(format!("{shares} shares and {blocks} blocks are not settled"));
                }
            }
        }
        self.checker.hold(faults.is_empty(), Rule::C13Liveness, || faults.join("; "));
        self.checker.check_settled();
        let core = self.process.as_ref().map(|process| &process.forwarder);
        let damages = core.map_or(0, |core| core.forwarder.counters.read(DAMAGES));
        let is_idle = core.is_some_and(|core| core.forwarder.is_synced());
        self.checker.hold(damages == 0, Rule::C17Journal, || {
            format!("{damages} places of the journal could not be read back")
        });
        let refused = self.refusals();
        self.checker.check_journal(&self.segments, is_idle, refused);
        self.stats.letters = self.checker.journal.letters;
    }

    /// Shares that this process refused, without those that it counts as untold.
    fn refusals(&mut self) -> u64 {
        let Some(process) = &self.process else { return 0 };
        let (mut refused, mut lost) = (0, 0);
        for shard in &process.shards {
            let counters = &shard.shard.state.counters;
            refused += (0..Reason::ALL.len())
                .map(|reason| counters.read(counter::SHARES + 1 + reason))
                .sum::<u64>();
            lost += counters.read(counter::REFUSALS_UNRECORDED);
        }
        self.stats.lost_refusals = lost;
        refused - lost
    }

    /// Connections there ever were.
    pub fn pipe_count(&self) -> usize {
        self.pipes.len()
    }
}
