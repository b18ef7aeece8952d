//! What control tells the log: its notes, and blocks on their way, as events.
//!
//! The fields stand in the order of the stream's contract, which only grows at its end. One that
//! control cannot know is `null`: when each miner heard of a tip is counted by the shards and shown
//! as `reservegrid_prevhash_switch_duration_seconds`.

use serde::Serialize;
use work::contract::feed::NodeAccess;
use work::{BlockHash, Decision, Job, Now, TemplateId, Txid, UnixTime, Verdict};

use crate::limits::{TOLD_LIST_MAX, TOLD_TEXT_BYTES_MAX, TOLD_TXIDS_MAX};
use crate::machine::Solution;
use crate::machine::control::Note;
use crate::machine::solution::NodeAnswer;
use crate::machine::told::Told;

/// Where templates come from, as far as it has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A node.
    Node,
    /// The simulated chain.
    Demo,
}

#[derive(Serialize)]
struct TemplateVerdict<'a> {
    template_id: TemplateId,
    prev_hash: BlockHash,
    height: u32,
    verdict: Decision,
    reason_codes: Vec<&'a str>,
    offending_txids: &'a [Txid],
    policy_version: &'a str,
    policy_hash: &'a str,
    verifier_id: &'a str,
    latency_us: u64,
    mode: &'static str,
    enforced: bool,
    tx_count: usize,
    weight: u64,
    total_fees: u64,
    coinbase_value: u64,
    source: Option<Origin>,
    empty: bool,
}

#[derive(Serialize)]
struct PrevhashSwitch {
    tip_seen_at: String,
    verdict_at: Option<String>,
    first_sent_at: Option<String>,
    last_sent_at: Option<String>,
    miners: Option<u64>,
    outcome: &'static str,
    prev_hash: BlockHash,
    height: Option<u32>,
    template_id: Option<TemplateId>,
    latency_us: u64,
}

#[derive(Serialize)]
struct BlockFound {
    block_hash: BlockHash,
    height: u32,
    prev_hash: BlockHash,
    template_id: TemplateId,
    coinbase_txid: Txid,
    coinbase_value: u64,
    total_fees: u64,
    tx_count: usize,
}

#[derive(Serialize)]
struct BlockSubmitResult<'a> {
    block_hash: BlockHash,
    node_url: &'a str,
    result: &'static str,
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct VerdictMismatch {
    template_id: TemplateId,
}

#[derive(Serialize)]
struct UpstreamState<'a> {
    upstream: &'static str,
    state: &'static str,
    detail: &'a str,
}

/// A note of control's as an event; `None` for what only the process' own log says.
pub fn of_note(now: Now, source: Option<Origin>, note: &Note) -> Option<Told> {
    let at = now.unix;
    let told = match note {
        Note::Judged { verdict, job, micros, mode, enforced } => {
            let body = judged(verdict, job, *micros, mode.name(), *enforced, source);
            let verdict_on = Some(verdict.template_id);
            Told { verdict_on, ..told(at, "template_verdict", &body) }
        }
        Note::Switched { job, micros, verdict_micros, late } => {
            let seen = before(now, *micros);
            let outcome = match (late, job.template.is_coinbase_only()) {
                (true, _) => "late",
                (false, true) => "empty_first",
                (false, false) => "ok",
            };
            let body = PrevhashSwitch {
                verdict_at: verdict_micros.map(|after| moment(UnixTime(seen.0 + after / 1_000))),
                height: Some(job.template.height),
                template_id: Some(job.template.id),
                ..switch(seen, outcome, job.template.prev_hash(), *micros)
            };
            told(at, "prevhash_switch", &body)
        }
        Note::SwitchTimeout { prev_hash, micros } => {
            let body = switch(before(now, *micros), "timeout", *prev_hash, *micros);
            told(at, "prevhash_switch", &body)
        }
        Note::Mismatch { template_id } => {
            told(at, "verdict_mismatch", &VerdictMismatch { template_id: *template_id })
        }
        Note::SourceExpired => {
            let detail = "no template source for too long: all channels are ended";
            let body = UpstreamState { upstream: "templates", state: "expired", detail };
            told(at, "upstream_state", &body)
        }
        Note::WrongChain { network, expected } => {
            let detail = format!("the source is on {network}, expected {expected}");
            let state = "wrong_chain";
            let body = UpstreamState { upstream: "templates", state, detail: &detail };
            told(at, "upstream_state", &body)
        }
        Note::TipSeen { .. } | Note::Unbuildable { .. } => return None,
    };
    Some(told)
}

/// A block that a miner found.
pub fn of_block(at: UnixTime, solution: &Solution) -> Told {
    let Job { template, coinbase, .. } = &*solution.job;
    let body = BlockFound {
        block_hash: solution.hash,
        height: template.height,
        prev_hash: template.prev_hash(),
        template_id: template.id,
        coinbase_txid: coinbase.txid(&solution.extranonce, &[]),
        coinbase_value: template.coinbase_value,
        total_fees: template.total_fees(),
        tx_count: template.transactions.len(),
    };
    told(at, "block_found", &body)
}

/// What a node said to a block.
pub fn of_answer(at: UnixTime, node: &NodeAccess, hash: BlockHash, answer: &NodeAnswer) -> Told {
    let (result, detail) = match answer {
        NodeAnswer::Accepted => ("accepted", None),
        NodeAnswer::Duplicate => ("duplicate", None),
        NodeAnswer::Inconclusive => ("inconclusive", None),
        NodeAnswer::Rejected(why) => ("rejected", Some(cut(why))),
        NodeAnswer::Unreachable(why) => ("unreachable", Some(cut(why))),
    };
    let body = BlockSubmitResult { block_hash: hash, node_url: cut(&node.url), result, detail };
    told(at, "block_submit_result", &body)
}

fn judged<'a>(
    verdict: &'a Verdict,
    job: &Job,
    micros: u64,
    mode: &'static str,
    enforced: bool,
    source: Option<Origin>,
) -> TemplateVerdict<'a> {
    let template = &job.template;
    let txids = verdict.offending_txids.len().min(TOLD_TXIDS_MAX);
    TemplateVerdict {
        template_id: template.id,
        prev_hash: template.prev_hash(),
        height: template.height,
        verdict: verdict.decision,
        reason_codes: verdict.reason_codes.iter().take(TOLD_LIST_MAX).map(|c| cut(c)).collect(),
        offending_txids: &verdict.offending_txids[..txids],
        policy_version: cut(&verdict.policy_version),
        policy_hash: cut(&verdict.policy_hash),
        verifier_id: cut(&verdict.verifier_id),
        latency_us: micros,
        mode,
        enforced,
        tx_count: template.transactions.len(),
        weight: template.total_weight(),
        total_fees: template.total_fees(),
        coinbase_value: template.coinbase_value,
        source,
        empty: template.is_coinbase_only(),
    }
}

fn switch(
    seen: UnixTime,
    outcome: &'static str,
    prev_hash: BlockHash,
    latency_us: u64,
) -> PrevhashSwitch {
    PrevhashSwitch {
        tip_seen_at: moment(seen),
        verdict_at: None,
        first_sent_at: None,
        last_sent_at: None,
        miners: None,
        outcome,
        prev_hash,
        height: None,
        template_id: None,
        latency_us,
    }
}

/// The bodies are plain texts and numbers, which always have a JSON form.
fn told(at: UnixTime, kind: &'static str, body: &impl Serialize) -> Told {
    let body = serde_json::to_string(body).unwrap_or_else(|_| "{}".to_owned());
    Told { at, kind, body, verdict_on: None }
}

fn before(now: Now, micros: u64) -> UnixTime {
    UnixTime(now.unix.0.saturating_sub(micros / 1_000))
}

/// RFC 3339 in UTC, to the millisecond.
fn moment(at: UnixTime) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    let moment = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
    format!("{moment:.3}")
}

/// The start of a text from outside.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TOLD_TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrayvec::ArrayVec;
    use work::payout::{Network, Payout};
    use work::{Mono, Template, Tip};

    use super::*;
    use crate::mode::Mode;

    const NOW: Now = Now { mono: Mono(9_000_000), unix: UnixTime(1_790_000_000_250) };

    fn job() -> Arc<Job> {
        let template = Template {
            id: TemplateId(11),
            tip: Tip { prev_hash: BlockHash([1; 32]), nbits: 0x207f_ffff, min_ntime: 1 },
            height: 840_000,
            version: 0x2000_0000,
            cur_time: 1,
            coinbase_value: 312_500_000,
            witness_commitment: [0x6a; 38],
            transactions: Vec::new().into(),
            merkle_path: Vec::new(),
            rules: None,
            max_ntime: None,
        };
        let payouts = [Payout { script_pubkey: vec![0x51; 22], share: 1 }];
        Arc::new(Job::new(Arc::new(template), &payouts, b"/tag/", 20).unwrap())
    }

    fn body(note: &Note) -> String {
        let told = of_note(NOW, Some(Origin::Demo), note).unwrap();
        assert_eq!(told.at, NOW.unix);
        format!("{} {}", told.kind, told.body)
    }

    #[test]
    fn a_verdict_is_told_in_the_order_of_the_contract() {
        let verdict = Verdict {
            template_id: TemplateId(11),
            decision: Decision::Reject,
            body_hash: [0; 32],
            tip_hash: [0; 32],
            reason_codes: vec!["weight_max".into(), "x".repeat(1_000)],
            offending_txids: vec![Txid([2; 32]); 40],
            verifier_id: "v\n1".into(),
            policy_version: "7".into(),
            policy_hash: "sha256:aa".into(),
        };
        let mode = Mode::Inline;
        let judged = Note::Judged { verdict, job: job(), micros: 1_234, mode, enforced: true };
        let told = of_note(NOW, Some(Origin::Node), &judged).unwrap();
        assert_eq!((told.kind, told.verdict_on), ("template_verdict", Some(TemplateId(11))));
        let parent = "01".repeat(32);
        let txids = vec![format!("\"{}\"", "02".repeat(32)); TOLD_TXIDS_MAX].join(",");
        let long = "x".repeat(TOLD_TEXT_BYTES_MAX);
        let expected = format!(
            "{{\"template_id\":11,\"prev_hash\":\"{parent}\",\"height\":840000,\
             \"verdict\":\"reject\",\"reason_codes\":[\"weight_max\",\"{long}\"],\
             \"offending_txids\":[{txids}],\"policy_version\":\"7\",\
             \"policy_hash\":\"sha256:aa\",\"verifier_id\":\"v\\n1\",\"latency_us\":1234,\
             \"mode\":\"inline\",\"enforced\":true,\"tx_count\":0,\"weight\":0,\
             \"total_fees\":0,\"coinbase_value\":312500000,\"source\":\"node\",\"empty\":true}}"
        );
        assert_eq!(told.body, expected);
    }

    #[test]
    fn a_switch_is_told_with_its_times() {
        let (micros, verdict_micros) = (60_000, Some(40_000));
        let late = Note::Switched { job: job(), micros, verdict_micros, late: true };
        let parent = "01".repeat(32);
        assert_eq!(
            body(&late),
            format!(
                "prevhash_switch {{\"tip_seen_at\":\"2026-09-21T14:13:20.190Z\",\
                 \"verdict_at\":\"2026-09-21T14:13:20.230Z\",\"first_sent_at\":null,\
                 \"last_sent_at\":null,\"miners\":null,\"outcome\":\"late\",\
                 \"prev_hash\":\"{parent}\",\"height\":840000,\"template_id\":11,\
                 \"latency_us\":60000}}"
            )
        );
        let early = Note::Switched { job: job(), micros, verdict_micros: None, late: false };
        let early = body(&early);
        assert!(early.contains("\"outcome\":\"empty_first\"") && early.contains("_at\":null"));
        let micros = 5_050_000;
        let timeout = body(&Note::SwitchTimeout { prev_hash: BlockHash([1; 32]), micros });
        assert!(timeout.contains("\"outcome\":\"timeout\"") && timeout.contains(&parent));
    }

    #[test]
    fn what_only_the_log_of_the_process_says_is_no_event() {
        let seen = Note::TipSeen { prev_hash: BlockHash([1; 32]), height: 1 };
        assert_eq!(of_note(NOW, None, &seen), None);
        let wrong = Note::WrongChain { network: Network::Main, expected: Network::Testnet4 };
        assert!(body(&wrong).starts_with("upstream_state {\"upstream\":\"templates\""));
    }

    #[test]
    fn a_block_and_its_answers_are_told_without_secrets() {
        let job = job();
        let mut extranonce = ArrayVec::new();
        extranonce.try_extend_from_slice(&[7; 20]).unwrap();
        let hash = BlockHash([3; 32]);
        let txid = job.coinbase.txid(&extranonce, &[]);
        let solution = Solution { hash, header: [0; 80], job, extranonce };
        let found = of_block(NOW.unix, &solution);
        assert_eq!(found.kind, "block_found");
        assert!(found.body.contains(&format!("\"coinbase_txid\":\"{txid}\"")));
        assert!(found.body.starts_with(&format!("{{\"block_hash\":\"{hash}\"")));
        let node =
            NodeAccess { url: "http://node:8332/".into(), auth: Some("user:hunter2".into()) };
        let answer = NodeAnswer::Rejected("bad-txns".into());
        let told = of_answer(NOW.unix, &node, hash, &answer);
        assert_eq!(told.kind, "block_submit_result");
        let expected = format!(
            "{{\"block_hash\":\"{hash}\",\"node_url\":\"http://node:8332/\",\
             \"result\":\"rejected\",\"detail\":\"bad-txns\"}}"
        );
        assert_eq!(told.body, expected);
    }
}
