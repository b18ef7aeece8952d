//! The books against honest journals, and against each kind of lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod log;

use journal::books::{Books, FaultKind, Verdict};
use journal::record::{Outcome, Record};
use journal::walk::Located;
use log::{Log, share_id};
use work::{UnixTime, Work};

fn books(records: &[Located]) -> Verdict {
    let mut books = Books::new();
    records.iter().for_each(|located| books.take(located));
    books.finish()
}

/// An honest journal of two starts with everything in it.
fn honest() -> Log {
    let mut log = Log::new();
    log.told("gateway_started", "{}");
    let alice: Vec<u64> = (0..5).map(|_| log.accept(0, 7, "alice")).collect();
    let bob: Vec<u64> = (0..3).map(|_| log.accept(1, 9, "bob")).collect();
    log.acknowledge(0, 7, 5, 5);
    log.refuse("stale_share", 1);
    log.attempt("bat_1", 503, &alice);
    log.attempt("bat_1", 200, &alice);
    log.settle("bat_1", Outcome::Delivered, &alice[..3]);
    log.settle("bat_1", Outcome::Duplicate, &alice[3..4]);
    log.settle("bat_1", Outcome::RejectedByUpstream, &alice[4..]);
    log.attempt("bat_2", 400, &bob);
    log.dead_letter("bat_2", &bob);
    log.replay(&bob[..1]);
    log.attempt("bat_3", 200, &bob[..1]);
    log.settle("bat_3", Outcome::Delivered, &bob[..1]);
    log.settle("", Outcome::DeadLettered, &bob[1..2]);
    log.checkpoint();
    log.accept(0, 7, "alice");
    log.restart();
    log.checkpoint();
    log.accept(0, 7, "alice");
    log.accept(0, 7, "alice");
    log.acknowledge(0, 7, 1, 1);
    log.unrecorded("duplicate_nonce", 40);
    log
}

#[test]
fn an_honest_journal_balances() {
    let log = honest();
    let verdict = books(&log.records);
    assert!(verdict.holds(), "{:?}", verdict.faults);
    assert_eq!((verdict.first_event, verdict.next_event), (1, log.next_event));
    assert_eq!(verdict.records, log.records.len() as u64);
    let counts: Vec<(&str, u64)> =
        verdict.total.sums().into_iter().map(|(name, sum)| (name, sum.count)).collect();
    let expected = [
        ("accepted", 11),
        ("acknowledged", 6),
        ("unacknowledged", 5),
        ("delivered", 4),
        ("duplicate", 1),
        ("rejected", 1),
        ("discarded", 1),
        ("dead", 1),
        ("open", 3),
    ];
    assert_eq!(counts, expected);
    let refused: Vec<(&str, u64)> =
        verdict.refused.iter().map(|(reason, count)| (&**reason, *count)).collect();
    assert_eq!(refused, [("duplicate_nonce", 40), ("stale_share", 1)]);
}

/// Each miner's hours are told apart, by the time of acceptance.
#[test]
fn a_line_is_a_miner_and_an_hour_of_acceptance() {
    let mut log = Log::new();
    let first = log.accept(0, 1, "alice");
    log.now = UnixTime(log.now.0 + 3_600_000);
    let second = log.accept(0, 1, "alice");
    log.accept(0, 2, "bob");
    log.acknowledge(0, 1, 2, 2);
    log.settle("bat_1", Outcome::Delivered, &[first, second]);
    let verdict = books(&log.records);
    assert!(verdict.holds(), "{:?}", verdict.faults);
    let lines: Vec<_> = verdict
        .lines
        .iter()
        .map(|line| (&*line.miner_id, line.hour.0 % 3_600_000, line.account.accepted.count))
        .collect();
    assert_eq!(lines, [("alice", 0, 1), ("alice", 0, 1), ("bob", 0, 1)]);
    assert_eq!(verdict.lines[1].hour.0 - verdict.lines[0].hour.0, 3_600_000);
    assert_eq!(verdict.lines[1].hour, verdict.lines[2].hour);
    assert_eq!(verdict.lines[0].account.delivered, verdict.lines[0].account.accepted);
}

/// Plants a lie, and expects it as the first fault found.
fn expect(kind: FaultKind, lie: impl FnOnce(&mut Log)) -> Verdict {
    let mut log = honest();
    lie(&mut log);
    let verdict = books(&log.records);
    assert!(!verdict.holds());
    assert_eq!(verdict.faults[0].kind, kind, "{:#?}", verdict.faults);
    verdict
}

fn find(log: &Log, is_it: impl Fn(&Record) -> bool) -> usize {
    log.records.iter().position(|located| is_it(&located.record)).unwrap()
}

#[test]
fn every_record_that_is_taken_out_is_missed() {
    let whole = honest();
    for gone in 0..whole.records.len() - 1 {
        let mut records = whole.records.clone();
        let record = records.remove(gone).record;
        // Nothing of the books depends on these: an attempt is a story, a checkpoint an aid.
        let is_story = matches!(record, Record::Attempted(_) | Record::Checkpoint { .. });
        // Acknowledgements have no number; the last one of a channel leaves no trace.
        let is_last = gone > find(&whole, |record| matches!(record, Record::Replayed { .. }));
        let is_quiet = matches!(record, Record::Acknowledged { .. }) && is_last;
        if !is_story && !is_quiet && !matches!(record, Record::Acknowledged { .. }) {
            assert!(!books(&records).holds(), "without {record:?}");
        }
    }
}

#[test]
fn a_missing_record_is_shown_with_its_place() {
    let verdict = expect(FaultKind::EventGap, |log| drop(log.records.remove(2)));
    let fault = &verdict.faults[0];
    assert_eq!((fault.event_id, fault.position.segment), (4, 1));
    let said = fault.to_string();
    assert!(said.starts_with("event_gap: event 4 at 0000000001.journal:"), "{said}");
    assert!(said.ends_with("event 4, 1 events are missing before it; expected 3"), "{said}");
    // The sums find it as well.
    let kinds: Vec<FaultKind> = verdict.faults.iter().map(|fault| fault.kind).collect();
    for kind in [FaultKind::SequenceGap, FaultKind::AcknowledgedWrong, FaultKind::SettledUnknown] {
        assert!(kinds.contains(&kind), "{kind:?} in {kinds:?}");
    }
}

#[test]
fn an_acknowledgement_that_is_gone_is_found_by_the_next() {
    let verdict = expect(FaultKind::AcknowledgedWrong, |log| {
        let mut more = Log::new();
        (0..4).for_each(|_| _ = more.accept(0, 7, "alice"));
        more.acknowledge(0, 7, 2, 2);
        more.acknowledge(0, 7, 4, 2);
        more.records.remove(4);
        *log = more;
    });
    let said = verdict.faults[0].to_string();
    assert!(said.contains("2 shares with work"), "{said}");
    assert!(said.contains("expected 4 shares with work"), "{said}");
}

#[test]
fn an_acknowledgement_says_exactly_what_was_accepted() {
    type Bend = fn(&mut u64, &mut u32, &mut Work);
    let bends: [Bend; 4] = [
        |_, count, _| *count += 1,
        |_, _, work| work.0 -= 1,
        |through, _, _| *through += 1,
        |through, _, _| *through -= 1,
    ];
    for bend in bends {
        expect(FaultKind::AcknowledgedWrong, |log| {
            let at = find(log, |record| matches!(record, Record::Acknowledged { .. }));
            let Record::Acknowledged { through, count, work, .. } = &mut log.records[at].record
            else {
                panic!()
            };
            bend(through, count, work);
        });
    }
    // To another channel.
    expect(FaultKind::AcknowledgedWrong, |log| {
        let at = find(log, |record| matches!(record, Record::Acknowledged { .. }));
        if let Record::Acknowledged { channel_key, .. } = &mut log.records[at].record {
            *channel_key = 9;
        }
    });
}

#[test]
fn a_changed_share_is_found() {
    type Bend = fn(&mut journal::Share);
    let bends: [(FaultKind, Bend); 5] = [
        (FaultKind::AcknowledgedWrong, |share| share.difficulty = work::Difficulty::at_most(99.0)),
        (FaultKind::ShareIdWrong, |share| share.share_hash.0[3] ^= 1),
        (FaultKind::ShareIdWrong, |share| share.accepted_at.0 -= 3_600_000),
        (FaultKind::ShareIdWrong, |share| share.share_id ^= 1),
        (FaultKind::SequenceGap, |share| share.sequence += 1),
    ];
    for (kind, bend) in bends {
        expect(kind, |log| {
            let at = find(log, |record| matches!(record, Record::Accepted(_)));
            if let Record::Accepted(share) = &mut log.records[at].record {
                bend(share);
            }
        });
    }
}

#[test]
fn a_hash_counts_once() {
    let verdict = expect(FaultKind::HashTwice, |log| {
        let at = find(log, |record| matches!(record, Record::Accepted(_)));
        let Record::Accepted(first) = log.records[at].record.clone() else { panic!() };
        log.accept(0, 8, "alice");
        if let Some(Record::Accepted(again)) = log.records.last_mut().map(|last| &mut last.record) {
            again.share_hash = first.share_hash;
            again.share_id = share_id(again.accepted_at, &first.share_hash);
        }
    });
    assert_eq!(verdict.faults_total, 1);
    assert!(verdict.faults[0].share_id.is_some());
}

#[test]
fn a_share_has_one_result_and_after_it_was_accepted() {
    let delivered = Outcome::Delivered;
    expect(FaultKind::SettledTwice, |log| log.settle("bat_9", delivered, &[2]));
    expect(FaultKind::SettledUnknown, |log| log.settle("bat_9", delivered, &[1]));
    expect(FaultKind::SettledUnknown, |log| {
        let next = log.next_event;
        log.settle("bat_9", delivered, &[next + 1]);
        log.accept(0, 7, "alice");
    });
    expect(FaultKind::SettlementWrong, |log| {
        let share = log.accept(0, 7, "alice");
        log.settle("bat_9", delivered, &[share]);
        if let Some(Record::Settled(settled)) = log.records.last_mut().map(|last| &mut last.record)
        {
            settled.results[0].share_id ^= 1;
        }
    });
    expect(FaultKind::AttemptUnknown, |log| log.attempt("bat_9", 200, &[1]));
}

#[test]
fn dead_letters_go_their_way() {
    let open = |log: &mut Log| log.accept(0, 7, "alice");
    expect(FaultKind::DeadLetterWrong, |log| _ = log.dead_letter("bat_9", &[2]));
    expect(FaultKind::DeadLetterWrong, |log| {
        let share = open(log);
        log.replay(&[share]);
    });
    expect(FaultKind::DeadLetterWrong, |log| {
        let share = open(log);
        log.settle("", Outcome::DeadLettered, &[share]);
    });
    expect(FaultKind::SettledTwice, |log| {
        let share = open(log);
        log.dead_letter("bat_9", &[share]);
        log.settle("", Outcome::DeadLettered, &[share]);
        log.settle("bat_9", Outcome::Delivered, &[share]);
    });
}

#[test]
fn a_checkpoint_hides_no_share() {
    expect(FaultKind::CheckpointWrong, |log| {
        let (settled_below, oldest_dead) = (log.next_event, u64::MAX);
        log.push(Record::Checkpoint { settled_below, oldest_dead, epoch: log.epoch });
    });
    expect(FaultKind::EpochBack, |log| {
        log.push(Record::Checkpoint { settled_below: 0, oldest_dead: 0, epoch: log.epoch - 1 });
    });
}

#[test]
fn damage_is_told() {
    let mut books = Books::new();
    let log = honest();
    books.take(&log.records[0]);
    books.take_damage(log.records[1].position, "its checksum does not match");
    log.records[1..].iter().for_each(|located| books.take(located));
    let verdict = books.finish();
    assert_eq!((verdict.faults_total, verdict.faults[0].kind), (1, FaultKind::Damaged));
}

/// Acknowledgements come after their shares: several of a channel can be left of shares that are
/// gone.
#[test]
fn acknowledgements_of_shares_that_are_gone_are_believed() {
    let mut log = Log::new();
    log.told("gateway_started", "{}");
    let shares: Vec<u64> = (0..5).map(|_| log.accept(0, 7, "alice")).collect();
    for (through, count) in [(2, 2), (4, 2), (5, 1)] {
        log.acknowledge(0, 7, through, count);
    }
    log.settle("bat_1", Outcome::Delivered, &shares);
    log.accept(0, 7, "alice");
    log.acknowledge(0, 7, 6, 1);
    for begin in 1..log.records.len() {
        let mut rest = log.records[begin..].to_vec();
        rest.iter_mut().for_each(|located| located.position.segment = 2);
        let verdict = books(&rest);
        let begins_new = rest[0].event_id == 1;
        let wrong = verdict.faults.iter().find(|fault| fault.kind == FaultKind::AcknowledgedWrong);
        assert!(wrong.is_none() || begins_new, "from record {begin}: {wrong:?}");
    }
}

/// A journal whose first segments are gone balances from where it begins, at every record.
#[test]
fn a_pruned_journal_balances() {
    let mut log = honest();
    log.settle_all_open();
    log.checkpoint();
    for begin in 1..log.records.len() {
        let mut rest = log.records[begin..].to_vec();
        rest.iter_mut().for_each(|located| located.position.segment = 2);
        // Segments begin with a checkpoint in the state of then; the cuts here need none.
        let verdict = books(&rest);
        let begins_new = rest[0].event_id == 1;
        assert!(verdict.holds() || begins_new, "from record {begin}: {:?}", verdict.faults);
        assert!(verdict.is_pruned || begins_new);
    }
    // A result of what is gone is believed once.
    let mut rest = log.records[3..].to_vec();
    rest.iter_mut().for_each(|located| located.position.segment = 2);
    assert!(books(&rest).settled_of_pruned > 0);
    let at = rest.iter().position(|located| matches!(located.record, Record::Settled(_))).unwrap();
    let mut again = rest[at].clone();
    again.event_id = log.next_event;
    rest.push(again);
    assert_eq!(books(&rest).faults[0].kind, FaultKind::SettledTwice);
}

#[test]
fn only_segments_without_open_shares_may_go() {
    let mut log = Log::new();
    (0..3).for_each(|_| _ = log.accept(0, 7, "alice"));
    log.checkpoint();
    let mut rest = log.records[2..].to_vec();
    rest.iter_mut().for_each(|located| located.position.segment = 2);
    let verdict = books(&rest);
    assert_eq!(verdict.faults[0].kind, FaultKind::PrunedUnsettled, "{:?}", verdict.faults);
}

/// The faults are bounded, their count is not.
#[test]
fn many_faults_are_counted() {
    let mut log = Log::new();
    (0..500).for_each(|_| log.attempt("bat_9", 200, &[0]));
    let verdict = books(&log.records);
    assert_eq!((verdict.faults.len(), verdict.faults_total), (100, 500));
}

/// Numbers at the edge of their types end in faults, not in panics.
#[test]
fn wild_numbers_are_survived() {
    let mut log = honest();
    log.accept(0, 7, "alice");
    let located = log.records.last_mut().unwrap();
    located.event_id = u64::MAX;
    if let Record::Accepted(share) = &mut located.record {
        (share.sequence, share.accepted_at, share.epoch) = (u64::MAX, UnixTime(u64::MAX), u16::MAX);
    }
    log.push(Record::Acknowledged {
        epoch: u16::MAX,
        shard: u8::MAX,
        channel_key: u64::MAX,
        through: u64::MAX,
        count: u32::MAX,
        work: Work(u128::MAX),
    });
    log.settle("bat_9", Outcome::Delivered, &[u64::MAX]);
    assert!(!books(&log.records).holds());
}
