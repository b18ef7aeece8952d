//! The way of a share, and the list of dead letters, from journals in a folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod log;

use journal::dead::DeadLetters;
use journal::explain::{ATTEMPTS_TOLD, Story, explain};
use journal::folder::Folder;
use journal::record::{Outcome, Record};
use log::Log;
use ulid::Ulid;

const SEGMENT_BYTES: u64 = 8 * 1024;

struct Written {
    log: Log,
    folder: tempfile::TempDir,
}

impl Written {
    fn new(log: Log) -> Written {
        let folder = tempfile::tempdir().unwrap();
        log.write(folder.path(), SEGMENT_BYTES);
        Written { log, folder }
    }

    fn folder(&self) -> Folder {
        Folder::open(self.folder.path()).unwrap()
    }

    fn explain(&self, event: u64) -> Story {
        explain(&self.folder(), self.log.name(event), u64::MAX).unwrap().unwrap()
    }
}

#[test]
fn the_whole_way_of_a_share_is_told() {
    let mut log = Log::new();
    let opened = log.told("channel_opened", "{\"channel_id\":2,\"address\":\"10.0.0.1\"}");
    let verdict = log.told("template_verdict", "{\"template_id\":3,\"verdict\":\"accept\"}");
    let others: Vec<u64> = (0..50).map(|_| log.accept(0, 7, "bob")).collect();
    let share = log.accept_with("alice", |share| {
        (share.opened_event, share.verdict_event) = (opened, verdict);
        share.channel_key = 8;
    });
    log.acknowledge(0, 7, 50, 50);
    let told = log.records.len();
    log.acknowledge(0, 8, 51, 1);
    log.attempt("bat_0", 200, &others);
    log.attempt("bat_1", 0, &[share]);
    log.attempt("bat_1", 400, &[share]);
    log.dead_letter("bat_1", &[share]);
    log.replay(&[share]);
    log.attempt("bat_2", 200, &[share]);
    log.settle("bat_0", Outcome::Delivered, &others);
    log.settle("bat_2", Outcome::Duplicate, &[share]);
    log.accept(0, 7, "bob");
    let written = Written::new(log);
    let story = written.explain(share);
    assert_eq!(story.status, "duplicate");
    assert_eq!(story.share["event_id"], share);
    assert_eq!(story.share["miner_id"], "alice");
    assert_eq!(story.opened["address"], "10.0.0.1");
    assert_eq!(story.verdict["verdict"], "accept");
    assert_eq!(story.place.event_id, share);
    let batches: Vec<(&str, Option<u16>)> =
        story.posts.iter().map(|post| (&*post.batch_id, post.upstream_http_status)).collect();
    assert_eq!(batches, [("bat_1", None), ("bat_1", Some(400)), ("bat_2", Some(200))]);
    assert_eq!(story.posts_total, 3);
    let decisions: Vec<&str> = story.decisions.iter().map(|decision| decision.what).collect();
    assert_eq!(decisions, ["dead_lettered", "replayed"]);
    assert_eq!(story.result["outcome"], "duplicate");
    let Record::Acknowledged { work, .. } = written.log.records[told].record else { panic!() };
    let acknowledged = story.acknowledged.as_ref().unwrap();
    assert_eq!((acknowledged.count, acknowledged.work), (1, work));
    let facts = story.validation.as_ref().unwrap();
    assert_eq!(facts.work, work);
    let text = story.to_string();
    for part in ["10.0.0.1", "accept", "bat_2", "HTTP 400", "no answer", "dead_lettered", "alice"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = serde_json::to_value(&story).unwrap();
    assert_eq!(json["share_id"], Ulid(written.log.name(share)).to_string());
}

#[test]
fn an_open_share_has_no_result_and_may_not_be_told_after_a_restart() {
    let mut log = Log::new();
    let share = log.accept(0, 7, "alice");
    log.restart();
    log.checkpoint();
    // The same name of a channel in the next start is another channel.
    log.accept(0, 7, "alice");
    log.acknowledge(0, 7, 1, 1);
    for _ in 0..ATTEMPTS_TOLD + 50 {
        log.attempt("bat_1", 503, &[share]);
    }
    let story = Written::new(log).explain(share);
    assert_eq!((story.status, story.acknowledged), ("open", None));
    assert!(story.result.is_null() && story.opened.is_null());
    assert_eq!(story.posts_total, ATTEMPTS_TOLD as u64 + 50);
    assert_eq!(story.posts.len(), ATTEMPTS_TOLD + 1);
    assert_eq!(story.posts.last().unwrap().place.offset % 4, 0);
    assert!(story.posts[ATTEMPTS_TOLD].place != story.posts[ATTEMPTS_TOLD - 1].place);
}

#[test]
fn a_refused_share_is_told_and_an_unknown_one_is_not() {
    let mut log = Log::new();
    log.accept(0, 7, "alice");
    let refused = log.refuse("stale_share", 1);
    let Record::Refused(refusal) = &log.records[1].record else { panic!() };
    let name = refusal.share_id;
    let written = Written::new(log);
    let story = explain(&written.folder(), name, u64::MAX).unwrap().unwrap();
    assert_eq!((story.status, story.place.event_id), ("refused", refused));
    assert_eq!(story.share["reason_code"], "stale_share");
    assert!(story.validation.is_none());
    assert!(story.to_string().contains("refused: stale_share"));
    assert_eq!(explain(&written.folder(), name ^ 1, u64::MAX).unwrap(), None);
    // What is not yet on disk is not told.
    assert_eq!(explain(&written.folder(), name, refused).unwrap(), None);
}

#[test]
fn dead_letters_are_those_without_a_result() {
    let mut log = Log::new();
    let shares: Vec<u64> = (0..40).map(|_| log.accept(0, 7, "alice")).collect();
    log.dead_letter("bat_1", &shares[..6]);
    log.checkpoint();
    // Several segments go by; the checkpoint is repeated in each.
    for _ in 0..200 {
        let share = log.accept(0, 7, "bob");
        log.attempt("bat_5", 200, &[share]);
        log.settle("bat_5", Outcome::Delivered, &[share]);
    }
    log.dead_letter("bat_2", &shares[10..12]);
    log.replay(&shares[..1]);
    log.settle("", Outcome::DeadLettered, &shares[1..2]);
    log.settle("bat_6", Outcome::Delivered, &shares[..1]);
    let written = Written::new(log);
    let folder = written.folder();
    assert!(folder.segments().unwrap().len() > 3);
    let letters = DeadLetters::read(&folder, u64::MAX).unwrap();
    let expected = [&shares[2..6], &shares[10..12]].concat();
    assert_eq!(letters.events().collect::<Vec<_>>(), expected);
    assert_eq!((letters.len(), letters.is_empty(), letters.unlisted()), (6, false, 0));
    assert_eq!(letters.find(&folder, "bat_1").unwrap(), &shares[2..6]);
    let name = |event| Ulid(written.log.name(event)).to_string();
    assert_eq!(letters.find(&folder, &name(shares[11])).unwrap(), &shares[11..12]);
    for no in ["bat_5", "bat_", "", &name(shares[0]), &name(shares[20])] {
        assert_eq!(letters.find(&folder, no).unwrap(), [0; 0], "{no}");
    }
    let told = letters.tell(&folder, &expected).unwrap();
    assert_eq!(told.len(), 6);
    assert_eq!((told[0].share_event_id, &*told[0].batch_id), (shares[2], "bat_1"));
    assert_eq!((told[5].upstream_http_status, &*told[5].error_detail), (400, "unknown field"));
    assert_eq!(told[0].share["event_id"], shares[2]);
    assert_eq!(told[0].share_id, name(shares[2]));
    // As of an earlier moment.
    let before = DeadLetters::read(&folder, shares[39] + 2).unwrap();
    assert_eq!(before.events().collect::<Vec<_>>(), &shares[..6]);
}
