//! The machine on its own: every fact in every state that matters.

use super::*;
use crate::assemble::{Frame, coinbase_only};

fn tip(name: u8, work: u8) -> NodeTip {
    let mut bytes = [0; 32];
    bytes[31] = work;
    NodeTip { hash: BlockHash([name; 32]), height: u32::from(work), work: ChainWork(bytes) }
}

fn at(millis: u64) -> Mono {
    Mono(1_000_000).plus_millis(millis)
}

/// A machine and what it has said, a word each; standings are left out.
struct Bench {
    machine: Failover,
}

impl Bench {
    fn new(nodes: usize) -> Bench {
        Bench { machine: Failover::new((0..nodes).map(|number| format!("http://node{number}"))) }
    }

    /// Two nodes on the same tip; the first is used.
    fn pair() -> Bench {
        let mut bench = Bench::new(2);
        assert_eq!(bench.tip(0, 0, tip(1, 10)), ["use 0", "back", "notice 1"]);
        assert_eq!(bench.tip(0, 1, tip(1, 10)), [""; 0]);
        assert_eq!(bench.template(0, 1, 7), ["template 1"]);
        bench
    }

    fn words(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(action) = self.machine.next_action() {
            words.push(match action {
                FailoverAction::Ask { node } => format!("ask {node}"),
                FailoverAction::Use { node, version: None } => format!("use {node}"),
                FailoverAction::Use { node, version } => {
                    format!("use {node} v{}", version.unwrap())
                }
                FailoverAction::Rest { node } => format!("rest {node}"),
                FailoverAction::Publish(event) => match event {
                    SourceEvent::TipNotice { prev_hash, .. } => {
                        format!("notice {}", prev_hash.0[0])
                    }
                    SourceEvent::Chain(chain) => format!("chain {}", chain.tip_hash.0[0]),
                    SourceEvent::Template(template) => {
                        format!("template {}", template.prev_hash().0[0])
                    }
                    SourceEvent::Fetched { micros } => format!("fetched {micros}"),
                    SourceEvent::NodeLost { since_millis, why } => {
                        format!("lost {since_millis}: {why}")
                    }
                    SourceEvent::NodeBack => "back".to_owned(),
                    SourceEvent::Refused { why } => format!("refused: {why}"),
                    SourceEvent::Standings(_) => continue,
                },
            });
        }
        words
    }

    fn fact(&mut self, millis: u64, node: usize, fact: NodeFact) -> Vec<String> {
        self.machine.on_fact(at(millis), node, fact);
        self.words()
    }

    fn tip(&mut self, millis: u64, node: usize, tip: NodeTip) -> Vec<String> {
        self.fact(millis, node, NodeFact::Tip { tip, channel: TipChannel::Zmq })
    }

    fn lost(&mut self, millis: u64, node: usize) -> Vec<String> {
        self.fact(millis, node, NodeFact::Lost { since_millis: 500, why: "gone".into() })
    }

    fn template(&mut self, node: usize, tip: u8, version: u32) -> Vec<String> {
        let mut frame = Frame { version, ..Frame::default() };
        frame.tip.prev_hash = BlockHash([tip; 32]);
        let template = Arc::new(coinbase_only(frame));
        self.fact(0, node, NodeFact::Template(template))
    }

    fn deadline(&mut self, millis: u64) -> Vec<String> {
        self.machine.on_deadline(at(millis));
        self.words()
    }
}

#[test]
fn one_node_is_passed_through() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.lost(0, 0), ["lost 0: gone"]);
    assert_eq!(bench.lost(1_000, 0), ["lost 1000: gone"]);
    assert_eq!(bench.tip(0, 0, tip(1, 10)), ["use 0", "back", "notice 1"]);
    assert_eq!(bench.template(0, 1, 7), ["template 1"]);
    assert_eq!(bench.fact(0, 0, NodeFact::Fetched { micros: 5 }), ["fetched 5"]);
    // Whatever it does to its own tip is the tip: more work, equal work, less.
    for next in [tip(2, 11), tip(3, 11), tip(1, 10)] {
        let notice = format!("notice {}", next.hash.0[0]);
        assert_eq!(bench.tip(0, 0, next), [notice]);
        assert_eq!(bench.tip(0, 0, next), [""; 0], "told once");
    }
    bench.template(0, 1, 7);
    assert_eq!(bench.machine.deadline(), None);

    assert_eq!(bench.lost(2_000, 0), ["rest 0", "lost 500: gone"]);
    assert_eq!(bench.template(0, 1, 7), [""; 0], "late words of a node at rest");
    // It forgot a block while it was away, and is used nonetheless.
    assert_eq!(bench.tip(3_000, 0, tip(4, 9)), ["use 0 v7", "back", "notice 4"]);
    let refused = NodeFact::Refused { why: "another chain".into() };
    assert_eq!(bench.fact(4_000, 0, refused), ["rest 0", "refused: another chain"]);
}

#[test]
fn at_the_start_the_first_in_the_list_is_waited_for() {
    let mut bench = Bench::new(3);
    assert_eq!(bench.tip(0, 2, tip(1, 10)), [""; 0]);
    assert_eq!(bench.tip(1, 1, tip(1, 10)), [""; 0]);
    assert_eq!(bench.machine.in_use(), None);
    // It is not there; the second takes its place, and nothing is told as lost.
    assert_eq!(bench.lost(600, 0), ["use 1", "back", "notice 1"]);
    // It comes later, with the same tip: the one in use stays.
    assert_eq!(bench.tip(700, 0, tip(1, 10)), [""; 0]);
    assert_eq!(bench.machine.in_use(), Some(1));

    let mut bench = Bench::new(2);
    let refused = NodeFact::Refused { why: "x".into() };
    assert_eq!(bench.fact(0, 0, refused), [""; 0]);
    assert_eq!(bench.tip(0, 1, tip(1, 10)), ["use 1", "back", "notice 1"]);
}

/// D20: a same-height rival of another node never displaces the first seen.
#[test]
fn a_rival_of_equal_work_is_ignored() {
    let mut bench = Bench::pair();
    assert_eq!(bench.tip(0, 1, tip(2, 10)), [""; 0]);
    assert_eq!(bench.template(1, 2, 0), [""; 0]);
    assert_eq!(bench.machine.deadline(), None);
    // Less work is no hint either.
    assert_eq!(bench.tip(0, 1, tip(3, 9)), [""; 0]);
    assert_eq!(bench.machine.deadline(), None);
}

/// D20: other nodes' tips are hints to ask.
#[test]
fn more_work_elsewhere_is_a_hint_to_ask() {
    let mut bench = Bench::pair();
    assert_eq!(bench.tip(0, 1, tip(2, 11)), ["ask 0"]);
    assert_eq!(bench.tip(1, 1, tip(3, 12)), [""; 0], "asked once");
    assert_eq!(bench.machine.deadline(), Some(at(FOLLOW_MILLIS)));
    assert_eq!(bench.deadline(FOLLOW_MILLIS - 1), [""; 0]);
    // It follows, and stays in use.
    assert_eq!(bench.tip(50, 0, tip(3, 12)), ["notice 3"]);
    bench.template(0, 3, 7);
    assert_eq!(bench.machine.deadline(), None);
    assert_eq!(bench.deadline(FOLLOW_MILLIS), [""; 0]);

    // It follows a part of the way: that is not enough.
    assert_eq!(bench.tip(200, 1, tip(5, 14)), ["ask 0"]);
    assert_eq!(bench.tip(250, 0, tip(4, 13)), ["notice 4"]);
    assert_eq!(bench.deadline(300), ["rest 0", "use 1 v7", "notice 5"]);
    assert_eq!(bench.template(0, 4, 7), [""; 0], "the late template of the old one");
    assert_eq!(bench.template(1, 5, 7), ["template 5"]);
    // The old one catches up: no way back without a need.
    assert_eq!(bench.tip(400, 0, tip(5, 14)), [""; 0]);
    assert_eq!(bench.machine.in_use(), Some(1));
}

#[test]
fn a_hint_that_is_taken_back_is_forgotten() {
    let mut bench = Bench::pair();
    assert_eq!(bench.tip(0, 1, tip(2, 11)), ["ask 0"]);
    assert_eq!(bench.lost(10, 1), [""; 0]);
    assert_eq!(bench.machine.deadline(), None);
    assert_eq!(bench.tip(20, 1, tip(1, 10)), [""; 0]);
    assert_eq!(bench.deadline(FOLLOW_MILLIS), [""; 0]);
    assert_eq!(bench.machine.in_use(), Some(0));
}

#[test]
fn the_next_node_takes_over_at_once_and_keeps_it() {
    let mut bench = Bench::pair();
    // On the same tip: nobody is told of a loss, and there is no new tip.
    assert_eq!(bench.lost(0, 0), ["rest 0", "use 1"]);
    assert_eq!(bench.lost(1_000, 0), [""; 0]);
    assert_eq!(bench.tip(2_000, 0, tip(1, 10)), [""; 0]);
    assert_eq!(bench.tip(2_000, 0, tip(9, 10)), [""; 0]);
    assert_eq!(bench.machine.in_use(), Some(1));
    // Back to the first when it is needed.
    bench.tip(2_500, 0, tip(1, 10));
    assert_eq!(bench.lost(3_000, 1), ["rest 1", "use 0"]);

    // A node with more work is preferred to one on the same tip.
    let mut bench = Bench::new(3);
    bench.tip(0, 0, tip(1, 10));
    bench.tip(0, 1, tip(1, 10));
    assert_eq!(bench.tip(0, 2, tip(2, 11)), ["ask 0"]);
    assert_eq!(bench.lost(1, 0), ["rest 0", "use 2", "notice 2"]);
}

/// Goal: the tip does not go back, or to a rival, only because a node died.
#[test]
fn others_that_are_behind_have_to_settle_first() {
    for other in [tip(8, 9), tip(9, 10)] {
        let mut bench = Bench::new(2);
        bench.tip(0, 0, tip(1, 10));
        bench.tip(0, 1, other);
        let lost = bench.lost(0, 0);
        assert_eq!(lost[0], "rest 0");
        assert!(lost[1].starts_with("lost 500: http://node0: gone; http://node1: "), "{lost:?}");
        assert_eq!(bench.machine.deadline(), Some(at(SETTLE_MILLIS)));
        let notice = format!("notice {}", other.hash.0[0]);
        let mut caught_up = Bench { machine: bench.machine.clone() };
        assert_eq!(bench.deadline(SETTLE_MILLIS), ["use 1", "back", &notice]);
        bench.template(1, other.hash.0[0], 0);
        assert_eq!(bench.machine.deadline(), None);
        // Or it gets the block after all.
        assert_eq!(caught_up.tip(5, 1, tip(1, 10)), ["use 1", "back"]);
        caught_up.template(1, 1, 0);
        assert_eq!(caught_up.machine.deadline(), None);
    }
}

/// Goal: a node that answers the pulse, but never again with a template, is lost.
#[test]
fn a_node_without_templates_is_lost() {
    let mut bench = Bench::pair();
    assert_eq!(bench.tip(0, 0, tip(2, 11)), ["notice 2"]);
    assert_eq!(bench.tip(1, 1, tip(2, 11)), [""; 0]);
    // A late template on the tip before is none.
    bench.template(0, 1, 7);
    assert_eq!(bench.machine.deadline(), Some(at(TEMPLATE_MILLIS)));
    assert_eq!(bench.deadline(TEMPLATE_MILLIS - 1), [""; 0]);
    assert_eq!(bench.deadline(TEMPLATE_MILLIS), ["rest 0", "use 1"]);
    // The next one has as much time; when it gives none either, that is told.
    let lost = bench.deadline(2 * TEMPLATE_MILLIS);
    assert!(lost[0] == "rest 1" && lost[1].starts_with("lost 5000: http://node0: "), "{lost:?}");
    assert_eq!(bench.machine.deadline(), None);
    assert_eq!(bench.tip(60_000, 1, tip(2, 11)), ["use 1", "back"]);
    assert_eq!(bench.template(1, 2, 7), ["template 2"]);
    assert_eq!(bench.machine.deadline(), None);
}

#[test]
fn the_lost_node_may_come_back_first() {
    let mut bench = Bench::new(2);
    bench.tip(0, 0, tip(1, 10));
    bench.tip(0, 1, tip(9, 10));
    bench.lost(0, 0);
    assert_eq!(bench.tip(1_000, 0, tip(1, 10)), ["use 0", "back"]);
    bench.template(0, 1, 0);
    assert_eq!(bench.machine.deadline(), None);
    assert_eq!(bench.deadline(SETTLE_MILLIS), [""; 0]);
}

#[test]
fn all_lost_is_told_again_and_again() {
    let mut bench = Bench::pair();
    bench.lost(0, 0);
    let both = "http://node0: gone; http://node1: gone";
    assert_eq!(bench.lost(100, 1), ["rest 1".to_owned(), format!("lost 500: {both}")]);
    assert_eq!(bench.lost(1_100, 0), [format!("lost 1500: {both}")]);
    assert_eq!(bench.tip(2_000, 0, tip(1, 10)), ["use 0", "back"]);
    // Refused and lost together are lost; all refused are refused.
    let refused = |why: &str| NodeFact::Refused { why: why.to_owned() };
    assert!(bench.fact(3_000, 0, refused("a"))[1].starts_with("lost "));
    assert_eq!(bench.fact(3_000, 1, refused("b")), ["refused: http://node0: a; http://node1: b"]);
}

#[test]
fn standings_are_told_when_they_change() {
    let mut machine = Failover::new(["a".to_owned(), "b".to_owned()]);
    let mut standings = |node, fact| {
        machine.on_fact(at(0), node, fact);
        let mut last = None;
        while let Some(action) = machine.next_action() {
            if let FailoverAction::Publish(SourceEvent::Standings(all)) = action {
                last = Some(all);
            }
        }
        last
    };
    let known = |tip| NodeFact::Tip { tip, channel: TipChannel::Zmq };
    let all = standings(0, known(tip(1, 10))).unwrap();
    assert_eq!(all[0], NodeStanding { state: NodeState::Up, is_in_use: true, height: Some(10) });
    assert_eq!((all[1].state.name(), all[1].is_in_use, all[1].height), ("unknown", false, None));
    assert_eq!(standings(0, known(tip(1, 10))), None);
    let lost = || NodeFact::Lost { since_millis: 1, why: "x".into() };
    assert_eq!(standings(1, lost()).unwrap()[1].state.name(), "lost");
    assert_eq!(standings(1, lost()), None);
    // A node that is not in the list changes nothing.
    assert_eq!(standings(2, lost()), None);
}
