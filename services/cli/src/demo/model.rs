//! What the demo shows: numbers and lines of events, made from samples. Pure: no terminal, no
//! clock, no network. `draw` puts it on a screen, [`Model::plain_line`] on one line.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Deserialize;
use work::Work;
use work::contract::chain::Chain;

use super::program::{PROGRAMS, Program};
use super::reading::Reading;

/// Events that are kept for the screen.
const EVENTS_KEPT: usize = 64;

/// Samples over which the hashrate is measured: 30 s at two a second.
const WORK_SAMPLES_KEPT: usize = 60;

/// Whether a program can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// Not asked yet.
    #[default]
    Unknown,
    /// Ready.
    Ready,
    /// Alive, and says why it is not ready.
    NotReady(String),
    /// Does not answer.
    Silent,
}

/// The backend's `/status`, as far as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct BackendStatus {
    /// Credited shares.
    pub shares: u64,
    /// Refused as duplicates.
    pub duplicates: u64,
    /// Batches booked.
    pub batches: u64,
    /// Blocks among the credited.
    pub blocks: u64,
    /// Credited work.
    pub work: Work,
}

/// What all programs said at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Time since the demo began.
    pub uptime: Duration,
    /// In the order of [`Program::ALL`].
    pub health: [Health; PROGRAMS],
    /// The gateway's metrics.
    pub gateway: Option<Reading>,
    /// The backend's totals.
    pub backend: Option<BackendStatus>,
    /// The simulated chain.
    pub chain: Option<Chain>,
}

/// Middle and tail of a latency, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Latency {
    /// Half of all are below.
    pub p50: f64,
    /// 95 % are below.
    pub p95: f64,
    /// 99 % are below.
    pub p99: f64,
}

/// The numbers of the newest sample. `None` is shown as a dash.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Height of the tip.
    pub height: Option<u32>,
    /// Hash of the tip, as text.
    pub tip: Option<String>,
    /// Blocks since the start.
    pub blocks: u64,
    /// Those that the miners found and the node took.
    pub blocks_by_miners: u64,
    /// Transactions of the template in force.
    pub template_transactions: Option<u64>,
    /// Its weight.
    pub template_weight: Option<u64>,
    /// Its fees, satoshi.
    pub template_fees: Option<u64>,
    /// Templates by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Open connections.
    pub connections: Option<u64>,
    /// Open channels.
    pub channels: Option<u64>,
    /// Hashes a second, measured by credited work.
    pub hashrate: Option<f64>,
    /// Shares by reason; `ok` is accepted.
    pub shares: BTreeMap<String, u64>,
    /// From learning of a tip to the last miner's message written.
    pub switch: Option<Latency>,
    /// Shares that wait for the backend.
    pub queue_depth: Option<u64>,
    /// The backend's totals.
    pub backend: BackendStatus,
}

/// All that is shown.
#[derive(Debug, Default)]
pub struct Model {
    /// Time since the demo began.
    pub uptime: Duration,
    /// In the order of [`Program::ALL`].
    pub health: [Health; PROGRAMS],
    /// Newest numbers.
    pub numbers: Numbers,
    events: VecDeque<String>,
    events_seen: u64,
    first_height: Option<u32>,
    work: VecDeque<(Duration, Work)>,
}

/// Name of the reason that means accepted.
pub const ACCEPTED: &str = "ok";

impl Model {
    /// Takes a sample in. What a service did not answer stays as it was.
    pub fn on_sample(&mut self, sample: &Sample) {
        self.uptime = sample.uptime;
        for program in Program::ALL {
            self.on_health(program, &sample.health[program.index()]);
        }
        if let Some(gateway) = &sample.gateway {
            self.on_gateway(gateway);
        }
        if let Some(backend) = &sample.backend {
            self.on_backend(backend);
        }
        if let Some(chain) = &sample.chain {
            self.on_chain(chain);
        }
    }

    /// The newest events, the newest last.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.events.iter().map(String::as_str)
    }

    /// Events that were added since `seen` of them had been, and how many there are now.
    pub fn events_after(&self, seen: u64) -> (Vec<String>, u64) {
        let new = usize::try_from(self.events_seen - seen).unwrap_or(usize::MAX);
        let skip = self.events.len().saturating_sub(new);
        (self.events.iter().skip(skip).cloned().collect(), self.events_seen)
    }

    fn event(&mut self, text: String) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(format!("{} {text}", clock(self.uptime)));
        self.events_seen += 1;
    }

    fn on_health(&mut self, program: Program, health: &Health) {
        let before = &mut self.health[program.index()];
        if before == health {
            return;
        }
        *before = health.clone();
        match health {
            Health::Unknown => {}
            Health::Ready => self.event(format!("{} is ready", program.name())),
            Health::NotReady(why) => self.event(format!("{} is not ready: {why}", program.name())),
            Health::Silent => self.event(format!("{} does not answer", program.name())),
        }
    }

    fn on_gateway(&mut self, gateway: &Reading) {
        let numbers = &mut self.numbers;
        let template = |name| {
            let current = gateway.count(name, &[("slot", "current")]);
            current.or_else(|| gateway.count(name, &[]))
        };
        numbers.template_transactions = template("reservegrid_template_transactions");
        numbers.template_weight = template("reservegrid_template_weight_units");
        numbers.template_fees = template("reservegrid_template_fees_sats");
        let open = gateway.count("reservegrid_connections", &[("state", "open")]);
        numbers.connections = open.or_else(|| gateway.count("reservegrid_connections", &[]));
        numbers.channels = gateway.count("reservegrid_channels", &[]);
        numbers.shares = gateway.by_label("reservegrid_shares_total", "reason_code");
        numbers.queue_depth = gateway.count("reservegrid_share_forward_queue_depth", &[]);
        let quantile =
            |part| gateway.quantile("reservegrid_prevhash_switch_duration_seconds", part);
        numbers.switch = match (quantile(0.5), quantile(0.95), quantile(0.99)) {
            (Some(p50), Some(p95), Some(p99)) => Some(Latency { p50, p95, p99 }),
            _ => None,
        };
        let verdicts = gateway.by_label("reservegrid_verdicts_total", "verdict");
        let before = std::mem::replace(&mut numbers.verdicts, verdicts.clone());
        for (verdict, count) in verdicts.into_iter().filter(|(verdict, _)| verdict != "accept") {
            let new = count.saturating_sub(before.get(&verdict).copied().unwrap_or(0));
            if new > 0 {
                self.event(format!("verdict: {verdict} for {new} template(s)"));
            }
        }
        let found = gateway.count("reservegrid_blocks_found_total", &[]).unwrap_or(0);
        let before = std::mem::replace(&mut self.numbers.blocks_by_miners, found);
        if found > before {
            self.event(format!("block found by a miner, {found} in all"));
        }
    }

    fn on_backend(&mut self, backend: &BackendStatus) {
        self.numbers.backend = backend.clone();
        if self.work.len() == WORK_SAMPLES_KEPT {
            self.work.pop_front();
        }
        self.work.push_back((self.uptime, backend.work));
        if let (Some(first), Some(last)) = (self.work.front(), self.work.back()) {
            let seconds = last.0.saturating_sub(first.0).as_secs_f64();
            let work = last.1.0.saturating_sub(first.1.0);
            self.numbers.hashrate = (seconds > 0.0).then(|| work as f64 / seconds);
        }
    }

    fn on_chain(&mut self, chain: &Chain) {
        let first = *self.first_height.get_or_insert(chain.height);
        self.numbers.blocks = u64::from(chain.height.saturating_sub(first));
        self.numbers.height = Some(chain.height);
        let tip = chain.tip_hash.to_string();
        if self.numbers.tip.as_ref() != Some(&tip) {
            self.event(format!("tip {} {tip}", chain.height));
            self.numbers.tip = Some(tip);
        }
    }

    /// Shares that were accepted.
    pub fn accepted(&self) -> u64 {
        self.numbers.shares.get(ACCEPTED).copied().unwrap_or(0)
    }

    /// Shares that were rejected, by reason; reasons that never occurred are left out.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, u64)> {
        let rejected = |(reason, count): &(&String, &u64)| *reason != ACCEPTED && **count > 0;
        self.numbers.shares.iter().filter(rejected).map(|(reason, count)| (reason.as_str(), *count))
    }

    /// Blocks that the chain found by itself.
    pub fn blocks_by_chain(&self) -> u64 {
        self.numbers.blocks.saturating_sub(self.numbers.blocks_by_miners)
    }

    /// The state on one line.
    pub fn plain_line(&self) -> String {
        let numbers = &self.numbers;
        let rejected: u64 = self.rejected().map(|(_, count)| count).sum();
        format!(
            "{} height {} blocks {} (miners {}) connections {} hashrate {} shares {} rejected {} \
             switch-p99 {} queue {} backend {}",
            clock(self.uptime),
            or_dash(numbers.height),
            numbers.blocks,
            numbers.blocks_by_miners,
            or_dash(numbers.connections),
            numbers.hashrate.map_or_else(dash, hashes),
            self.accepted(),
            rejected,
            numbers.switch.map_or_else(dash, |latency| millis(latency.p99)),
            or_dash(numbers.queue_depth),
            numbers.backend.shares,
        )
    }
}

/// Hours, minutes and seconds.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A rate of hashes with its unit.
pub fn hashes(rate: f64) -> String {
    let units = ["H/s", "kH/s", "MH/s", "GH/s", "TH/s"];
    let (mut rate, mut unit) = (rate, 0);
    while rate >= 1000.0 && unit + 1 < units.len() {
        (rate, unit) = (rate / 1000.0, unit + 1);
    }
    format!("{rate:.1} {}", units[unit])
}

/// Seconds as milliseconds.
pub fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1000.0)
}

/// A number, or a dash when it is not known.
pub fn or_dash(number: Option<impl ToString>) -> String {
    number.map_or_else(dash, |number| number.to_string())
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use work::BlockHash;
    use work::payout::Network;

    fn chain(height: u32) -> Chain {
        Chain {
            network: Network::Regtest,
            demo: true,
            tip_hash: BlockHash([height as u8; 32]),
            height,
            tip_time: 0,
            median_time_past: 0,
            next_nbits: 0,
            next_min_time: 0,
            recent_tips: vec![],
        }
    }

    fn at(seconds: u64) -> Sample {
        Sample { uptime: Duration::from_secs(seconds), ..Sample::default() }
    }

    #[test]
    fn nothing_known_is_a_line_of_dashes() {
        let line = Model::default().plain_line();
        assert!(line.starts_with("00:00:00 height - blocks 0 (miners 0) connections -"), "{line}");
    }

    #[test]
    fn blocks_are_told_apart_and_told_once() {
        let mut model = Model::default();
        let found = Reading::parse("reservegrid_blocks_found_total 1");
        model.on_sample(&Sample { chain: Some(chain(100)), ..at(1) });
        model.on_sample(&Sample { chain: Some(chain(100)), ..at(2) });
        model.on_sample(&Sample { chain: Some(chain(103)), gateway: Some(found), ..at(3) });
        model.on_sample(&at(4));
        assert_eq!((model.numbers.blocks, model.blocks_by_chain()), (3, 2));
        let events: Vec<&str> = model.events().collect();
        assert_eq!(events.len(), 3);
        assert!(events[0].starts_with("00:00:01 tip 100 6464"));
        assert_eq!(events[1], "00:00:03 block found by a miner, 1 in all");
        assert!(events[2].starts_with("00:00:03 tip 103"));
    }

    #[test]
    fn hashrate_is_work_over_time() {
        let mut model = Model::default();
        for second in 0..100u64 {
            let work = Work(u128::from(second) * 250_000);
            let backend = Some(BackendStatus { work, ..BackendStatus::default() });
            model.on_sample(&Sample { backend, ..at(second) });
            assert!(model.work.len() <= WORK_SAMPLES_KEPT);
        }
        assert_eq!(model.numbers.hashrate.map(hashes).as_deref(), Some("250.0 kH/s"));
    }

    #[test]
    fn shares_and_verdicts() {
        let mut model = Model::default();
        let text = "reservegrid_shares_total{reason_code=\"ok\"} 9\n\
                    reservegrid_shares_total{reason_code=\"stale_share\"} 2\n\
                    reservegrid_shares_total{reason_code=\"duplicate_nonce\"} 0\n\
                    reservegrid_verdicts_total{verdict=\"accept\",enforced=\"true\"} 5\n\
                    reservegrid_verdicts_total{verdict=\"reject\",enforced=\"true\"} 1\n";
        for second in 1..3 {
            model.on_sample(&Sample { gateway: Some(Reading::parse(text)), ..at(second) });
        }
        assert_eq!(model.accepted(), 9);
        assert_eq!(model.rejected().collect::<Vec<_>>(), [("stale_share", 2)]);
        assert_eq!(
            model.events().collect::<Vec<_>>(),
            ["00:00:01 verdict: reject for 1 template(s)"]
        );
    }

    #[test]
    fn health_changes_are_events_and_events_are_bounded() {
        let mut model = Model::default();
        for second in 0..1000 {
            let mut sample = at(second);
            let why = Health::NotReady("no node".to_owned());
            sample.health[Program::Gateway.index()] =
                if second % 2 == 0 { Health::Ready } else { why };
            model.on_sample(&sample);
        }
        assert_eq!(model.events().len(), EVENTS_KEPT);
        assert_eq!(model.events().last(), Some("00:16:39 sv2-gateway is not ready: no node"));
        let (new, seen) = model.events_after(998);
        assert_eq!((new.len(), seen), (2, 1000));
        assert_eq!(model.events_after(0).0.len(), EVENTS_KEPT);
        assert_eq!(model.events_after(seen).0.len(), 0);
    }

    #[test]
    fn units() {
        assert_eq!(hashes(999.0), "999.0 H/s");
        assert_eq!(hashes(1e30), "1000000000000000000.0 TH/s");
        assert_eq!(clock(Duration::from_secs(3_725)), "01:02:05");
        assert_eq!(millis(0.0123), "12.3 ms");
    }
}
