//! `shares verify`: whether the books of a journal balance, and if not, where.

use std::fmt::Write as _;
use std::process::ExitCode;

use journal::audit::{Audit, audit};
use journal::books::{Account, Fault, Verdict};
use serde_json::{Map, Value, json};
use ulid::Ulid;

use super::UNBALANCED;
use super::options::VerifyOptions;
use crate::say;

/// Reads the whole journal and prints what the books say; 1 if they do not balance.
///
/// # Errors
/// The journal cannot be read.
pub fn run(options: &VerifyOptions) -> Result<ExitCode, String> {
    let folder = super::open(&options.place.data_dir)?;
    let audit = audit(&folder).map_err(|error| error.to_string())?;
    match options.json {
        true => say(&json_of(&audit, options.hours).to_string()),
        false => say(text_of(&audit, options.hours).trim_end()),
    }
    Ok(match audit.verdict.holds() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(UNBALANCED),
    })
}

fn text_of(audit: &Audit, with_hours: bool) -> String {
    let verdict = &audit.verdict;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_journal(&mut text, audit);
    let _ = write_account(&mut text, &verdict.total);
    for (reason, count) in &verdict.refused {
        let _ = writeln!(text, "refused        {count:>12}  {reason}");
    }
    if with_hours {
        for line in &verdict.lines {
            let hour = hour(line.hour.0);
            let _ = writeln!(text, "\n{} in the hour from {hour}", line.miner_id);
            let _ = write_account(&mut text, &line.account);
        }
    }
    let _ = write_conclusion(&mut text, verdict);
    text
}

fn write_journal(text: &mut String, audit: &Audit) -> std::fmt::Result {
    let verdict = &audit.verdict;
    let (first, last) = audit.segments.unwrap_or_default();
    writeln!(text, "journal of {}, segments {first} to {last}", audit.gateway_id)?;
    writeln!(
        text,
        "{} records, events {} to {}; it ends at {}",
        verdict.records,
        verdict.first_event,
        verdict.next_event.saturating_sub(1),
        audit.end
    )?;
    if audit.torn_bytes > 0 {
        let torn = audit.torn_bytes;
        writeln!(text, "{torn} bytes of a write that never was on disk follow: no fault")?;
    }
    if verdict.is_pruned {
        let settled = verdict.settled_of_pruned;
        writeln!(text, "older segments are gone; {settled} results are of shares in them")?;
    }
    writeln!(text)
}

fn write_account(text: &mut String, account: &Account) -> std::fmt::Result {
    for (name, sum) in account.sums() {
        writeln!(text, "{name:<14} {:>12}  work {}", sum.count, sum.work)?;
    }
    Ok(())
}

fn write_conclusion(text: &mut String, verdict: &Verdict) -> std::fmt::Result {
    writeln!(text)?;
    if verdict.holds() {
        return writeln!(
            text,
            "the books balance: {} lines of miner and hour; every share has at most one result, \
             after it was accepted; every acknowledgement is for what was accepted",
            verdict.lines.len()
        );
    }
    for fault in &verdict.faults {
        writeln!(text, "{fault}")?;
    }
    let (total, shown) = (verdict.faults_total, verdict.faults.len());
    writeln!(text, "the journal does not add up: {total} faults, the first {shown} above")
}

fn json_of(audit: &Audit, with_hours: bool) -> Value {
    let verdict = &audit.verdict;
    let line = |line: &journal::books::Line| {
        json!({
            "miner_id": line.miner_id,
            "hour": hour(line.hour.0),
            "sums": sums(&line.account),
        })
    };
    let lines = with_hours.then(|| verdict.lines.iter().map(line).collect::<Vec<Value>>());
    json!({
        "holds": verdict.holds(),
        "gateway_id": audit.gateway_id,
        "segments": audit.segments,
        "records": verdict.records,
        "first_event": verdict.first_event,
        "next_event": verdict.next_event,
        "torn_bytes": audit.torn_bytes,
        "is_pruned": verdict.is_pruned,
        "settled_of_pruned": verdict.settled_of_pruned,
        "sums": sums(&verdict.total),
        "refused": verdict.refused,
        "lines": lines,
        "faults_total": verdict.faults_total,
        "faults": verdict.faults.iter().map(fault).collect::<Vec<Value>>(),
    })
}

fn sums(account: &Account) -> Value {
    let sum = |(name, sum): (&str, journal::books::Sum)| {
        (name.to_owned(), json!({ "count": sum.count, "work": sum.work.to_string() }))
    };
    Value::Object(account.sums().into_iter().map(sum).collect::<Map<String, Value>>())
}

fn fault(fault: &Fault) -> Value {
    json!({
        "kind": fault.kind.name(),
        "event_id": fault.event_id,
        "segment": fault.position.segment,
        "offset": fault.position.offset,
        "share_id": fault.share_id.map(|id| Ulid(id).to_string()),
        "found": fault.found,
        "expected": fault.expected,
    })
}

fn hour(unix_millis: u64) -> String {
    let at = i64::try_from(unix_millis).ok();
    let at = at.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    at.map_or_else(|| format!("{unix_millis} ms"), |at| at.to_string())
}
