//! Events as readers see them: one golden line of every type, and what strangers' text cannot do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod made;

use std::sync::Arc;

use journal::event::{EventLine, events};
use journal::record::{Attempt, Settled};
use journal::segment::Position;
use journal::walk::Located;
use journal::{Outcome, Record, Settlement};
use serde_json::Value;
use work::{UnixTime, Work};

/// 2026-01-02 03:04:05.678 UTC.
const AT: UnixTime = UnixTime(1_767_323_045_678);

fn located(event_id: u64, record: Record) -> Located {
    Located {
        position: Position { segment: 1, offset: 512 },
        next: 1_024,
        event_id,
        at: AT,
        record,
    }
}

fn lines(event_id: u64, record: Record) -> Vec<EventLine> {
    let mut out = Vec::new();
    events(&located(event_id, record), "gw-1", &mut out);
    out
}

fn result(share_event: u64, outcome: Outcome, error_detail: &str) -> Settlement {
    Settlement {
        share_event,
        share_id: made::share_id(share_event),
        accepted_at: UnixTime(AT.0 - 250),
        outcome,
        error_detail: Arc::from(error_detail),
    }
}

/// One record of every kind that makes events, and of every outcome.
fn records() -> Vec<Record> {
    let block = journal::Share {
        block_found: true,
        hold: true,
        worker_id: None,
        verdict_event: 0,
        ..made::share(2, "acme")
    };
    let results = vec![
        result(1, Outcome::Delivered, ""),
        result(2, Outcome::Duplicate, "duplicate"),
        result(3, Outcome::RejectedByUpstream, "unknown_worker"),
    ];
    let settled =
        Settled { batch_id: "bat_1".into(), status: 200, attempts: 2, rtt_micros: 1_250, results };
    let discarded = Settled {
        batch_id: "".into(),
        status: 0,
        attempts: 0,
        rtt_micros: 0,
        results: vec![result(4, Outcome::DeadLettered, "given up by ops")],
    };
    vec![
        Record::Accepted(made::share(1, "acme")),
        Record::Accepted(block),
        Record::Refused(made::refusal(3, "acme")),
        Record::Settled(settled),
        Record::Settled(discarded),
        Record::DeadLettered {
            batch_id: "bat_2".into(),
            status: 422,
            error_detail: "no such pool".into(),
            shares: vec![4, 9],
        },
        Record::Replayed { shares: vec![9] },
        Record::Unrecorded {
            counts: vec![("stale_share".into(), 7), ("invalid_job_id".into(), 1)],
        },
        Record::Told {
            kind: "channel_opened".into(),
            body: r#"{"connection_id":4294967297,"channel_id":1,"miner_id":"acme"}"#.into(),
        },
        Record::Told { kind: "upstream_state".into(), body: r#"{"state":"paused"}"#.into() },
    ]
}

fn all_lines() -> Vec<EventLine> {
    let mut next = 1;
    let mut out = Vec::new();
    for record in records() {
        let count = record.events();
        let made = lines(next, record);
        assert_eq!(made.len() as u64, count);
        next += count;
        out.extend(made);
    }
    out
}

#[test]
fn every_type_has_its_golden_line() {
    let golden = include_str!("golden/events.ndjson");
    let lines = all_lines();
    let text: String = lines.iter().map(|line| format!("{}\n", line.json)).collect();
    assert_eq!(text.lines().count(), golden.lines().count());
    for (line, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(line, golden);
    }
}

#[test]
fn lines_have_what_readers_filter_by() {
    let lines = all_lines();
    let ids: Vec<u64> = lines.iter().map(|line| line.event_id).collect();
    assert_eq!(ids, (1..=12).collect::<Vec<u64>>());
    for line in &lines {
        let value: Value = serde_json::from_str(&line.json).unwrap();
        assert_eq!(value["event_id"], line.event_id);
        assert_eq!(value["type"], line.kind.as_ref());
        assert_eq!(value["gateway_id"], "gw-1");
        assert_eq!(value["schema"], 1);
        assert!(value["timestamp"].as_str().unwrap().starts_with("2026-01-02T03:04:05.6"));
        assert_eq!(value.get("miner_id").and_then(Value::as_str), line.miner_id.as_deref());
        assert_eq!(value.get("share_event_id").and_then(Value::as_u64), line.share_event);
    }
}

#[test]
fn records_without_a_number_make_no_line() {
    let attempt = Attempt {
        batch_id: "b".into(),
        attempt: 1,
        status: 500,
        rtt_micros: 1,
        error_detail: "".into(),
        shares: vec![1],
    };
    let work = Work::ZERO;
    let acknowledged =
        Record::Acknowledged { epoch: 1, shard: 0, channel_key: 1, through: 1, count: 1, work };
    let checkpoint = Record::Checkpoint { settled_below: 1, oldest_dead: u64::MAX, epoch: 1 };
    for record in [Record::Attempted(attempt), acknowledged, checkpoint] {
        assert!(lines(5, record).is_empty());
    }
}

#[test]
fn text_of_strangers_stays_text() {
    for name in ["a\nb", "\"},{\"type\":\"x\"", "\u{2028}\u{0}", "\\", "</script>", "é\r\n"] {
        let line = lines(1, Record::Accepted(made::share(1, name))).remove(0);
        assert!(!line.json.contains(['\n', '\r']), "{}", line.json);
        let value: Value = serde_json::from_str(&line.json).unwrap();
        assert_eq!(value["miner_id"], name);
        assert_eq!(value["type"], "share_accepted");
    }
}

#[test]
fn a_told_body_cannot_change_the_envelope() {
    let told = |body: &str| {
        let line = lines(9, Record::Told { kind: "mode_changed".into(), body: body.into() });
        assert_eq!(line.len(), 1);
        assert!(!line[0].json.contains(['\n', '\r']));
        line[0].json.clone()
    };
    let envelope = concat!(
        r#"{"event_id":9,"timestamp":"2026-01-02T03:04:05.678Z","type":"mode_changed","#,
        r#""gateway_id":"gw-1","schema":1"#
    );
    let body = "{\"type\":\"x\",\"event_id\":3,\"z\":1,\"a\":[1,\r\n 2]}";
    assert_eq!(told(body), format!("{envelope},\"z\":1,\"a\":[1,   2]}}"));
    assert_eq!(told("{}"), format!("{envelope}}}"));
    for broken in ["", "{", "[]", "3", "\"a\nb\""] {
        let value: Value = serde_json::from_str(&told(broken)).unwrap();
        assert_eq!(value["body"], broken);
        assert_eq!(value["event_id"], 9);
    }
}

#[test]
fn times_that_no_clock_gives_are_still_times() {
    for at in [0, u64::MAX, i64::MAX as u64] {
        let mut share = made::share(1, "a");
        share.accepted_at = UnixTime(at);
        let value: Value =
            serde_json::from_str(&lines(1, Record::Accepted(share)).remove(0).json).unwrap();
        let text = value["timestamp"].as_str().unwrap();
        assert!(text.parse::<jiff::Timestamp>().is_ok(), "{text}");
    }
}
