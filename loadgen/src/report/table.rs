//! The report as a short table for people.

use std::fmt;

use super::{Percentiles, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} of {} miners open with {} channels after {:.1} s, {} connects, {} disconnects",
            self.target,
            self.open,
            self.connections,
            self.channels_open,
            self.duration_seconds,
            self.connects,
            self.disconnects
        )?;
        writeln!(
            f,
            "shares: {} sent, {} accepted (difficulty {}), {} rejected, {} unanswered, {} blocks",
            self.shares_submitted,
            self.shares_accepted,
            self.shares_accepted_sum,
            self.shares_rejected,
            self.shares_unanswered,
            self.blocks_found
        )?;
        writeln!(
            f,
            "work: {} jobs ({} left out), {} prev hashes, {} targets, {} tips, {:.0} hashes/s \
             ({} behind)",
            self.jobs,
            self.jobs_left_out,
            self.prev_hashes,
            self.targets,
            self.tip_count,
            self.hashes_per_second,
            self.hashes_behind
        )?;
        writeln!(
            f,
            "\n{:<24}{:>10}{:>11}{:>11}{:>11}{:>11}",
            "milliseconds", "count", "p50", "p95", "p99", "max"
        )?;
        let legs = &self.connect_micros;
        row(f, "connect: tcp", &legs.tcp)?;
        row(f, "connect: act 2", &legs.act2)?;
        row(f, "connect: setup", &legs.setup)?;
        row(f, "connect: open", &legs.open)?;
        row(f, "connect: first job", &legs.first_job)?;
        row(f, "connect: total", &legs.total)?;
        row(f, "share answer", &self.ack_micros)?;
        row(f, "block switch spread", &self.switch_micros)?;
        if self.switches_missed > 0 {
            writeln!(f, "missed switches: {}", self.switches_missed)?;
        }
        for (code, count) in self.rejects.iter() {
            writeln!(f, "rejected {code}: {count}")?;
        }
        for (code, count) in self.errors.iter() {
            writeln!(f, "error {code}: {count}")?;
        }
        for sample in &self.error_samples {
            writeln!(f, "  {sample}")?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, values: &Percentiles) -> fmt::Result {
    let millis = |micros: u64| micros as f64 / 1_000.0;
    writeln!(
        f,
        "{name:<24}{:>10}{:>11.3}{:>11.3}{:>11.3}{:>11.3}",
        values.count,
        millis(values.p50),
        millis(values.p95),
        millis(values.p99),
        millis(values.max)
    )
}
