//! Faults: what may go wrong in one world, drawn from its seed, some of it switched off in each
//! run; and plants, the lies that prove that a checker can fail.

use std::fmt;

use crate::chance::Chance;

/// Microseconds of a second.
pub const SECOND: u64 = 1_000_000;
/// Microseconds of a millisecond.
pub const MILLI: u64 = 1_000;

/// A lie between a machine and the world. Each makes exactly one checker fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// No lie; the world is as calm as for a lie.
    None,
    /// A job without a verdict goes straight to a shard.
    UnverifiedJob,
    /// A restart keeps the epoch.
    EpochReused,
    /// Two updates of one shard's board change places.
    BoardReordered,
    /// The checker does not hear of a job that its miner was given.
    JobUnheard,
    /// A shard is told that shares are safe which the forwarder has not taken.
    AckEarly,
    /// A batch is delivered again with other share ids.
    DeliveredAgain,
    /// A batch is answered and never delivered.
    BatchLost,
    /// A shard is told of more ring slots than there are.
    CreditTooHigh,
    /// A block is lost between shard and control.
    SolutionDropped,
    /// A connection ends and its shard is not told.
    SilentEnd,
    /// A connection holds more bytes than it may.
    Hoard,
    /// The same sealed bytes go out twice.
    CiphertextAgain,
    /// Bytes behind a broken frame are taken for good ones.
    BrokenTaken,
    /// A second run of the seed throws one more die.
    ExtraDie,
    /// Boards ring no bell once the faults are over.
    DeafShard,
    /// No answer of the backend arrives once the faults are over.
    DeafForwarder,
    /// A record is changed on its way to the forwarder.
    RecordAltered,
    /// A core always says that it has done something.
    RestlessCore,
    /// The checker hears of a job twice.
    JobRepeated,
    /// The checker hears of a target that nobody sent.
    TargetAlone,
    /// A share is credited with less than its target says.
    ShareTooDear,
    /// Shards are told that shares are safe while their sync is still under way.
    DurableEarly,
    /// The disk says that it has synced, and has not.
    SyncSkipped,
    /// A start does not cut and sync the last segment.
    CutSkipped,
    /// A start believes what a failed sync left, and does not write it again.
    TailBelieved,
    /// A start does not look after the shares that the last one left.
    OpenForgotten,
    /// The checker does not read one result.
    ResultUnread,
    /// The forwarder hears another result than the backend gave.
    ResultAltered,
    /// A segment with an open share is to be removed.
    OpenRemoved,
    /// A report of a refused share is lost and not counted.
    ReportLost,
    /// The first share of a worker comes without the worker's name.
    WorkerLost,
    /// A miner without the right secret finds it.
    SecretFound,
}

/// Who may open channels in a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Open,
    Allowlist,
    PrefixMap,
}

/// What may go wrong, and how the world is laid out.
#[derive(Debug, Clone)]
pub struct Faults {
    pub shards: usize,
    pub miners: usize,
    /// Slots of the share ring, of the solution ring, of the forwarder's queue.
    pub share_ring: usize,
    pub solution_ring: usize,
    pub queue: usize,
    /// Slots for reports of one shard.
    pub report_ring: usize,
    /// Batches in flight, how long a share waits for company, attempts of a batch, and the longest
    /// wait between two.
    pub in_flight: usize,
    pub batch_millis: u64,
    pub attempts_max: u64,
    pub backoff_millis: u64,
    /// Bytes of a segment, of a group, and of what may wait for its sync.
    pub segment_bytes: u64,
    pub group_bytes: usize,
    pub unsynced_bytes: usize,
    /// Microseconds of a sync.
    pub sync_micros: (u64, u64),
    /// Most bytes that the net moves at once, up and down.
    pub chunk_up: u64,
    pub chunk_down: u64,
    /// Microseconds of one hop in the net.
    pub latency: (u64, u64),
    pub nbits: u32,
    /// Most miners' first difficulty is `2^-share_bits`, the easiest of all `2^-floor_bits`.
    pub share_bits: u32,
    pub floor_bits: u32,
    /// Shares a minute that a channel is to send.
    pub pace: u64,
    /// Bytes of the whole extranonce.
    pub extranonce_bytes: usize,
    /// Workers that one channel tells apart.
    pub workers_max: usize,
    pub auth: Auth,
    /// Microseconds between two tips, two templates.
    pub tip_every: u64,
    pub template_every: u64,
    /// Times the process ends, by a crash or in good order.
    pub ends: u64,
    /// Whether unjudged work may go out while the verifier is out of reach.
    pub permits: bool,
    pub resets: bool,
    pub corrupts: bool,
    pub silence: bool,
    pub stalls: bool,
    pub slow_cores: bool,
    pub slow_verdicts: bool,
    pub lost_verdicts: bool,
    pub rejects: bool,
    pub mismatched_verdicts: bool,
    pub repeated_verdicts: bool,
    pub needs_transactions: bool,
    pub link_losses: bool,
    pub policy_changes: bool,
    pub tip_flips: bool,
    pub disordered_templates: bool,
    pub source_losses: bool,
    pub backend_errors: bool,
    pub lost_answers: bool,
    pub slow_backend: bool,
    /// Of the backend: some shares it cannot read, some it refuses, a limit on batches, 409 for
    /// repeated ones, and answers of something else.
    pub poison: bool,
    pub refuses: bool,
    pub small_batches: bool,
    pub conflicts: bool,
    pub wrong_answers: bool,
    /// Somebody looks at dead letters before the end.
    pub operators: bool,
    /// Some ends are power cuts.
    pub power_cuts: bool,
    /// The process may be down for days, and keeps shares for one.
    pub days: bool,
    pub disk_errors: bool,
    pub failed_syncs: bool,
    pub disk_hangs: bool,
    pub scarce_space: bool,
    pub deaf_nodes: bool,
    pub orphaned_blocks: bool,
    pub garbage: bool,
    pub forgeries: bool,
    pub floods: bool,
    pub wild_miners: bool,
}

impl Faults {
    /// Drawn from `chance`.
    pub fn draw(chance: &mut Chance) -> Faults {
        let mut is_on = || chance.one_in(2);
        let mut faults = Faults {
            shards: 1,
            miners: 3,
            share_ring: 0,
            solution_ring: 0,
            queue: 0,
            report_ring: 0,
            in_flight: 0,
            batch_millis: 0,
            attempts_max: 0,
            backoff_millis: 0,
            segment_bytes: 0,
            group_bytes: 0,
            unsynced_bytes: 0,
            sync_micros: (0, 0),
            chunk_up: 0,
            chunk_down: 0,
            latency: (0, 0),
            nbits: 0,
            share_bits: 0,
            floor_bits: 0,
            pace: 0,
            extranonce_bytes: 0,
            workers_max: 0,
            auth: Auth::Open,
            tip_every: 0,
            template_every: 0,
            ends: 0,
            permits: false,
            resets: is_on(),
            corrupts: is_on(),
            silence: is_on(),
            stalls: is_on(),
            slow_cores: is_on(),
            slow_verdicts: is_on(),
            lost_verdicts: is_on(),
            rejects: is_on(),
            mismatched_verdicts: is_on(),
            repeated_verdicts: is_on(),
            needs_transactions: is_on(),
            link_losses: is_on(),
            policy_changes: is_on(),
            tip_flips: is_on(),
            disordered_templates: is_on(),
            source_losses: is_on(),
            backend_errors: is_on(),
            lost_answers: is_on(),
            slow_backend: is_on(),
            poison: is_on(),
            refuses: is_on(),
            small_batches: is_on(),
            conflicts: is_on(),
            wrong_answers: is_on(),
            operators: is_on(),
            power_cuts: is_on(),
            days: is_on(),
            disk_errors: is_on(),
            failed_syncs: is_on(),
            disk_hangs: is_on(),
            scarce_space: is_on(),
            deaf_nodes: is_on(),
            orphaned_blocks: is_on(),
            garbage: is_on(),
            forgeries: is_on(),
            floods: is_on(),
            wild_miners: is_on(),
        };
        faults.lay_out(chance);
        faults
    }

    fn lay_out(&mut self, chance: &mut Chance) {
        self.shards = chance.between(1, 3) as usize;
        self.miners = chance.between(3, 7) as usize;
        self.share_ring = chance.pick(&[1, 2, 3, 8, 64, 1_024]);
        self.solution_ring = chance.pick(&[2, 8, 256]);
        self.queue = chance.pick(&[4, 9, 32, 512, 4_096]);
        self.lay_out_journal(chance);
        self.chunk_up = chance.pick(&[9, 70, 300, 2_048, 2_048]);
        self.chunk_down = chance.pick(&[9, 70, 300, 4_096, 65_536]);
        let least = chance.between(50, 2_000);
        self.latency = (least, least + chance.pick(&[0, 500, 20_000]));
        let bits = [0x1f7f_ffff, 0x1f1f_ffff, 0x1f07_ffff, 0x2000_ffff, 0x200f_ffff];
        self.nbits = chance.pick(&bits);
        self.share_bits = chance.pick(&[25, 26, 26, 27]);
        // What a short queue cannot take in a world's time is not asked of it.
        let easier = chance.pick(&[0, 0, 2, 3]);
        self.floor_bits = self.share_bits + if self.queue < 32 { 0 } else { easier };
        self.pace = chance.pick(&[600, 600, 60, 6]);
        self.extranonce_bytes = chance.pick(&[16, 16, 20, 32]);
        self.workers_max = chance.pick(&[1, 2, 1_000]);
        self.auth = chance.pick(&[Auth::Open, Auth::Open, Auth::Allowlist, Auth::PrefixMap]);
        self.tip_every = chance.pick(&[3, 8, 20, 40]) * SECOND;
        self.template_every = chance.pick(&[700, 2_000, 5_000]) * MILLI;
        self.ends = chance.pick(&[0, 1, 2, 3, 5]);
        self.permits = chance.one_in(8);
    }

    fn lay_out_journal(&mut self, chance: &mut Chance) {
        self.report_ring = chance.pick(&[2, 64, 4_096]);
        self.in_flight = chance.pick(&[1, 4, 4]);
        self.batch_millis = chance.pick(&[0, 100, 200, 200]);
        self.attempts_max = chance.pick(&[0, 0, 2, 6]);
        self.backoff_millis = chance.pick(&[1_000, 30_000]);
        self.segment_bytes = chance.pick(&[4, 16, 64, 256, 1_024]) << 10;
        self.group_bytes = chance.pick(&[1_000, 8_000, 256 << 10]);
        self.unsynced_bytes = chance.pick(&[2_000, 64 << 10, 8 << 20]);
        self.sync_micros = chance.pick(&[(60, 300), (800, 4_000), (5_000, 40_000)]);
    }

    /// A world in which nothing goes wrong by itself, for plants.
    pub fn calm(chance: &mut Chance) -> Faults {
        let mut faults = Faults::draw(chance);
        faults.switch_off();
        faults.shards = 2;
        faults.miners = 4;
        faults.permits = false;
        faults.share_ring = 8;
        faults.solution_ring = 8;
        faults.queue = 512;
        faults.report_ring = 4_096;
        faults.in_flight = 4;
        faults.batch_millis = 200;
        faults.attempts_max = 0;
        faults.backoff_millis = 1_000;
        faults.segment_bytes = 16 << 10;
        faults.group_bytes = 256 << 10;
        faults.unsynced_bytes = 8 << 20;
        faults.sync_micros = (800, 4_000);
        faults.chunk_up = 300;
        faults.chunk_down = 4_096;
        faults.latency = (200, 700);
        faults.nbits = 0x1f1f_ffff;
        faults.share_bits = 26;
        faults.floor_bits = 26;
        faults.pace = 600;
        faults.workers_max = 2;
        faults.auth = Auth::Allowlist;
        faults.tip_every = 8 * SECOND;
        faults.template_every = 2 * SECOND;
        faults
    }

    /// From now on nothing goes wrong.
    pub fn switch_off(&mut self) {
        self.ends = 0;
        let days = self.days;
        for fault in self.all_mut() {
            *fault.1 = false;
        }
        // Settings of a start stay as they are.
        self.days = days;
    }

    fn all_mut(&mut self) -> [(&'static str, &mut bool); 37] {
        [
            ("resets", &mut self.resets),
            ("corrupts", &mut self.corrupts),
            ("silence", &mut self.silence),
            ("stalls", &mut self.stalls),
            ("slow-cores", &mut self.slow_cores),
            ("slow-verdicts", &mut self.slow_verdicts),
            ("lost-verdicts", &mut self.lost_verdicts),
            ("rejects", &mut self.rejects),
            ("mismatched-verdicts", &mut self.mismatched_verdicts),
            ("repeated-verdicts", &mut self.repeated_verdicts),
            ("needs-transactions", &mut self.needs_transactions),
            ("link-losses", &mut self.link_losses),
            ("policy-changes", &mut self.policy_changes),
            ("tip-flips", &mut self.tip_flips),
            ("disordered-templates", &mut self.disordered_templates),
            ("source-losses", &mut self.source_losses),
            ("backend-errors", &mut self.backend_errors),
            ("lost-answers", &mut self.lost_answers),
            ("slow-backend", &mut self.slow_backend),
            ("poison", &mut self.poison),
            ("refuses", &mut self.refuses),
            ("small-batches", &mut self.small_batches),
            ("conflicts", &mut self.conflicts),
            ("wrong-answers", &mut self.wrong_answers),
            ("operators", &mut self.operators),
            ("power-cuts", &mut self.power_cuts),
            ("days", &mut self.days),
            ("disk-errors", &mut self.disk_errors),
            ("failed-syncs", &mut self.failed_syncs),
            ("disk-hangs", &mut self.disk_hangs),
            ("scarce-space", &mut self.scarce_space),
            ("deaf-nodes", &mut self.deaf_nodes),
            ("orphaned-blocks", &mut self.orphaned_blocks),
            ("garbage", &mut self.garbage),
            ("forgeries", &mut self.forgeries),
            ("floods", &mut self.floods),
            ("wild-miners", &mut self.wild_miners),
        ]
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shards={} miners={} rings={}/{}/{} chunks={}/{} latency={:?} nbits={:08x} \
             share-bits={}/{} pace={} extranonce={} workers={} auth={:?} ends={} permits={}",
            self.shards,
            self.miners,
            self.share_ring,
            self.solution_ring,
            self.queue,
            self.chunk_up,
            self.chunk_down,
            self.latency,
            self.nbits,
            self.share_bits,
            self.floor_bits,
            self.pace,
            self.extranonce_bytes,
            self.workers_max,
            self.auth,
            self.ends,
            self.permits,
        )?;
        write!(
            f,
            " reports={} in-flight={} batch-ms={} attempts={} backoff-ms={} segment={} group={} \
             unsynced={} sync={:?}",
            self.report_ring,
            self.in_flight,
            self.batch_millis,
            self.attempts_max,
            self.backoff_millis,
            self.segment_bytes,
            self.group_bytes,
            self.unsynced_bytes,
            self.sync_micros,
        )?;
        for (name, is_on) in self.clone().all_mut() {
            if *is_on {
                write!(f, " {name}")?;
            }
        }
        Ok(())
    }
}
