//! Whether a timed demo was healthy. Pure.

use std::time::Duration;

use serde::Deserialize;

use super::model::{Model, clock, millis};

/// Reasons that honest miners meet at every new block.
const STALE: [&str; 3] = ["stale_share", "stale_prevhash", "stale-share"];

/// One line that sums a run up.
pub fn summary(model: &Model) -> String {
    let numbers = &model.numbers;
    let rejected: Vec<String> =
        model.rejected().map(|(reason, count)| format!("{reason} {count}")).collect();
    let rejected = if rejected.is_empty() { "none".to_owned() } else { rejected.join(", ") };
    format!(
        "summary: {} · {} blocks ({} by miners, {} by the chain) · {} shares accepted, rejected: \
         {rejected} · {} at the backend · switch p99 {}",
        clock(model.uptime),
        numbers.blocks,
        numbers.blocks_by_miners,
        model.blocks_by_chain(),
        model.accepted(),
        numbers.backend.shares,
        numbers.switch.map_or_else(|| "-".to_owned(), |latency| millis(latency.p99)),
    )
}

/// What was not as it should be after `ran`, with a chain that finds a block each `interval`.
/// Empty for a healthy run.
pub fn faults(model: &Model, ran: Duration, interval: Duration) -> Vec<String> {
    let mut faults = Vec::new();
    if model.accepted() == 0 {
        faults.push("no share was accepted".to_owned());
    }
    for (reason, count) in model.rejected().filter(|(reason, _)| !STALE.contains(reason)) {
        faults.push(format!("{count} shares were rejected as {reason}"));
    }
    // Half an interval is left for the start and for the last sample.
    let counted = ran.saturating_sub(interval / 2);
    let expected = counted.as_millis() / interval.as_millis().max(1);
    if u128::from(model.numbers.blocks) < expected {
        faults.push(format!(
            "{} blocks in {} s, at least {expected} were expected",
            model.numbers.blocks,
            ran.as_secs()
        ));
    }
    faults
}

/// Says so when the backend has not credited exactly what the gateway accepted.
pub fn unbalanced(model: &Model) -> Option<String> {
    let (accepted, backend) = (model.accepted(), &model.numbers.backend);
    (accepted != backend.shares || backend.duplicates > 0).then(|| {
        format!(
            "{accepted} shares were accepted, the backend credited {} and refused {} as duplicates",
            backend.shares, backend.duplicates
        )
    })
}

/// What the miners' own report, the JSON that loadgen writes, complains of.
pub fn miners_fault(report: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Report {
        is_final: bool,
        failed: bool,
    }
    match serde_json::from_slice(report) {
        Ok(Report { is_final: true, failed: false }) => None,
        Ok(Report { is_final: true, failed: true }) => {
            Some("the miners report errors; see loadgen.json and loadgen.log".to_owned())
        }
        Ok(Report { is_final: false, .. }) => {
            Some("the miners did not finish their report, loadgen.json".to_owned())
        }
        Err(error) => Some(format!("loadgen.json is not the miners' report: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(shares: &[(&str, u64)], blocks: u64) -> Model {
        let mut model = Model::default();
        model.numbers.shares = shares.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        model.numbers.blocks = blocks;
        model
    }

    #[test]
    fn each_fault_is_named() {
        let (ran, interval) = (Duration::from_secs(60), Duration::from_secs(25));
        let judge = |shares: &[(&str, u64)], blocks| faults(&model(shares, blocks), ran, interval);
        let healthy = [("ok", 9), ("stale_share", 3), ("stale_prevhash", 1), ("unknown_job", 0)];
        assert_eq!(judge(&healthy, 2), Vec::<String>::new());
        assert_eq!(judge(&[], 2), ["no share was accepted"]);
        let bad = [("ok", 1), ("duplicate_nonce", 2)];
        assert_eq!(judge(&bad, 2), ["2 shares were rejected as duplicate_nonce"]);
        assert_eq!(judge(&healthy, 1), Vec::<String>::new());
        assert_eq!(judge(&healthy, 0), ["0 blocks in 60 s, at least 1 were expected"]);
    }

    #[test]
    fn the_books_must_balance() {
        let mut model = model(&[("ok", 9), ("stale_share", 3)], 0);
        assert!(unbalanced(&model).unwrap().contains("the backend credited 0"));
        model.numbers.backend.shares = 9;
        assert_eq!(unbalanced(&model), None);
        model.numbers.backend.duplicates = 1;
        assert!(unbalanced(&model).is_some());
    }

    #[test]
    fn the_miners_have_a_say() {
        let report = |text: &str| miners_fault(text.as_bytes());
        assert_eq!(report(r#"{"is_final": true, "failed": false, "open": 24}"#), None);
        for bad in
            ["", "{}", r#"{"is_final":true,"failed":true}"#, r#"{"is_final":false,"failed":false}"#]
        {
            assert!(report(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn the_summary_is_one_line() {
        let line = summary(&model(&[("ok", 9), ("stale_share", 3)], 2));
        assert!(line.contains("9 shares accepted, rejected: stale_share 3"), "{line}");
        assert!(summary(&Model::default()).contains("rejected: none"));
    }
}
