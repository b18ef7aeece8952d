//! One connection to a verifier: what it has been told, and what it answered.
//!
//! A template's transactions go ahead in chunks, and only those that this verifier does not have
//! yet, so that a proposal of a template with better fees is small.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use work::contract::bytes::HexBytes;
use work::contract::verifier::{
    FromVerifier, PING_MILLIS, PROPOSALS_OPEN_MAX, PROTO, ProposeReason, ProposedCoinbase,
    ProposedTransaction, TX_PUT_MAX, TemplatePropose, TemplateVerdict, ToVerifier, Totals,
};
use work::payout::Network;
use work::{Job, Mono, Now, Verdict, Wtxid};

/// Unanswered pings after which the verifier counts as gone.
pub const PINGS_UNANSWERED_MAX: u64 = 3;

/// Who is calling.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name of the gateway.
    pub gateway_id: String,
    /// Its chain.
    pub network: Network,
    /// Its number.
    pub instance_id: u16,
    /// Its start.
    pub epoch: u16,
    /// Soft deadline of a verdict, for information.
    pub deadline_ms: u64,
}

/// What an answer means to control.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkFact {
    /// It is ready for proposals, under this policy.
    Up {
        /// Version and hash of the policy.
        policy: String,
    },
    /// A ruling.
    Verdict(Verdict),
    /// Another policy is in force.
    PolicyChanged {
        /// Version and hash of the policy.
        policy: String,
    },
    /// It refused something; a sentence.
    Refused(String),
    /// Nothing that control needs to know.
    Nothing,
    /// It broke the protocol; the connection is to be made again. A sentence.
    Broken(String),
}

#[derive(Debug)]
struct Open {
    propose_id: u64,
    job: Arc<Job>,
    reason: ProposeReason,
    /// Whether its transactions were put a second time on request.
    put_again: bool,
}

/// The machine of one verifier connection.
#[derive(Debug)]
pub struct VerifierLink {
    caller: Caller,
    /// Who answers, once it has said so.
    verifier_id: String,
    lines: VecDeque<ToVerifier>,
    next_propose_id: u64,
    open: VecDeque<Open>,
    /// Transactions that were put on this connection and named by one of the last two proposals.
    put: HashSet<Wtxid>,
    put_before: HashSet<Wtxid>,
    pinged_at: Mono,
    unanswered: u64,
}

impl VerifierLink {
    /// A link that is not connected.
    pub fn new(caller: Caller) -> VerifierLink {
        VerifierLink {
            caller,
            verifier_id: String::new(),
            lines: VecDeque::new(),
            next_propose_id: 1,
            open: VecDeque::new(),
            put: HashSet::new(),
            put_before: HashSet::new(),
            pinged_at: Mono(0),
            unanswered: 0,
        }
    }

    /// A connection was made: everything begins anew.
    pub fn on_connected(&mut self, now: Now) {
        self.lines.clear();
        self.open.clear();
        self.put.clear();
        self.put_before.clear();
        self.pinged_at = now.mono;
        self.unanswered = 0;
        self.lines.push_back(ToVerifier::Hello {
            proto: PROTO,
            gateway_id: self.caller.gateway_id.clone(),
            network: self.caller.network,
            instance_id: self.caller.instance_id,
            epoch: self.caller.epoch,
        });
    }

    /// Have `job` judged. An older unanswered proposal gives way if there are too many.
    pub fn propose(&mut self, job: Arc<Job>, reason: ProposeReason) {
        // The oldest is the one that is answered next; the one behind it gives way.
        if self.open.len() == PROPOSALS_OPEN_MAX
            && let Some(given_up) = self.open.remove(1)
        {
            self.lines.push_back(ToVerifier::Cancel { propose_id: given_up.propose_id });
        }
        self.put_missing(&job);
        self.say(job, reason, false);
    }

    /// A line came.
    pub fn on_line(&mut self, line: FromVerifier) -> LinkFact {
        match line {
            FromVerifier::HelloAck { proto, verifier_id, policy_version, policy_hash } => {
                self.verifier_id = verifier_id;
                if proto != PROTO {
                    return LinkFact::Broken(format!(
                        "the verifier speaks protocol {proto}, expected {PROTO}"
                    ));
                }
                LinkFact::Up { policy: format!("{policy_version} {policy_hash}") }
            }
            FromVerifier::NeedTx { propose_id, wtxids } => self.on_need(propose_id, &wtxids),
            FromVerifier::TemplateVerdict(verdict) => self.on_verdict(&verdict),
            FromVerifier::PolicyChanged { policy_version, policy_hash } => {
                // What is still answered was judged under the old one.
                self.open.clear();
                LinkFact::PolicyChanged { policy: format!("{policy_version} {policy_hash}") }
            }
            FromVerifier::Pong { .. } => {
                self.unanswered = 0;
                LinkFact::Nothing
            }
            FromVerifier::Error { code, propose_id, detail } => {
                self.open.retain(|open| Some(open.propose_id) != propose_id);
                LinkFact::Refused(format!("{code}: {detail}"))
            }
        }
    }

    /// Time has passed: ping, or give up.
    ///
    /// # Errors
    /// A sentence if the verifier does not answer any more.
    pub fn on_tick(&mut self, now: Now) -> Result<(), String> {
        if now.mono < self.pinged_at.plus_millis(PING_MILLIS) {
            return Ok(());
        }
        if self.unanswered >= PINGS_UNANSWERED_MAX {
            return Err(format!("{PINGS_UNANSWERED_MAX} pings were not answered"));
        }
        self.pinged_at = now.mono;
        self.unanswered += 1;
        self.lines.push_back(ToVerifier::Ping { t: now.unix.0 });
        Ok(())
    }

    /// The next line to write.
    pub fn next_line(&mut self) -> Option<ToVerifier> {
        self.lines.pop_front()
    }

    fn on_verdict(&mut self, verdict: &TemplateVerdict) -> LinkFact {
        let at = self.open.iter().position(|open| open.propose_id == verdict.propose_id);
        // Cancelled, or answered before: one verdict per proposal is all that counts.
        let Some(open) = at.and_then(|at| self.open.remove(at)) else { return LinkFact::Nothing };
        let hash = |bytes: &HexBytes| <[u8; 32]>::try_from(bytes.0.as_slice()).ok();
        let (Some(body_hash), Some(tip_hash)) = (hash(&verdict.body_hash), hash(&verdict.tip_hash))
        else {
            return LinkFact::Broken("a verdict's hashes are not 32 bytes".into());
        };
        if verdict.template_id != open.job.template.id {
            return LinkFact::Broken("a verdict names another template than its proposal".into());
        }
        LinkFact::Verdict(Verdict {
            template_id: verdict.template_id,
            decision: verdict.verdict,
            body_hash,
            tip_hash,
            reason_codes: verdict.reason_codes.clone(),
            offending_txids: verdict.details.iter().flat_map(|d| &d.txids).copied().collect(),
            verifier_id: self.verifier_id.clone(),
            policy_version: verdict.policy_version.clone(),
            policy_hash: verdict.policy_hash.clone(),
        })
    }

    /// The verifier lacks transactions of a proposal: put them all and propose once more.
    fn on_need(&mut self, propose_id: u64, wtxids: &[Wtxid]) -> LinkFact {
        let at = self.open.iter().position(|open| open.propose_id == propose_id);
        let Some(open) = at.and_then(|at| self.open.remove(at)) else { return LinkFact::Nothing };
        if open.put_again {
            return LinkFact::Broken(format!(
                "the verifier lacks {} transactions that were put twice",
                wtxids.len()
            ));
        }
        for wtxid in wtxids {
            self.put.remove(wtxid);
            self.put_before.remove(wtxid);
        }
        self.put_missing(&open.job);
        self.say(open.job, open.reason, true);
        LinkFact::Nothing
    }

    fn put_missing(&mut self, job: &Job) {
        let transactions = &job.template.transactions;
        if transactions.is_empty() {
            return;
        }
        let missing: Vec<_> = transactions
            .iter()
            .filter(|t| !self.put.contains(&t.wtxid) && !self.put_before.contains(&t.wtxid))
            .collect();
        for chunk in missing.chunks(TX_PUT_MAX) {
            let txs = chunk.iter().map(|t| ProposedTransaction {
                wtxid: t.wtxid,
                data: HexBytes(t.data.to_vec()),
                fee: t.fee,
                sigops: t.sigops,
            });
            self.lines.push_back(ToVerifier::TxPut { txs: txs.collect() });
        }
        self.put_before = std::mem::take(&mut self.put);
        self.put = transactions.iter().map(|t| t.wtxid).collect();
    }

    fn say(&mut self, job: Arc<Job>, reason: ProposeReason, put_again: bool) {
        let propose_id = self.next_propose_id;
        self.next_propose_id += 1;
        let template = &job.template;
        let coinbase = &job.coinbase;
        let line = ToVerifier::TemplatePropose(Box::new(TemplatePropose {
            propose_id,
            deadline_ms: self.caller.deadline_ms,
            reason,
            template_id: template.id,
            prev_hash: template.tip.prev_hash,
            height: template.height,
            version: template.version,
            nbits: template.tip.nbits,
            curtime: template.cur_time,
            min_time: template.tip.min_ntime,
            coinbase: ProposedCoinbase {
                prefix: HexBytes(coinbase.prefix.clone()),
                suffix: HexBytes(coinbase.suffix.clone()),
                extranonce_len: coinbase.extranonce_bytes,
                value: template.coinbase_value,
            },
            merkle_path: template.merkle_path.clone(),
            rules: template.rules.as_deref().map(<[String]>::to_vec),
            wtxids: template.transactions.iter().map(|t| t.wtxid).collect(),
            totals: Totals {
                fees: template.total_fees(),
                weight: template.total_weight(),
                sigops: template.total_sigops(),
                tx_count: template.transactions.len(),
            },
        }));
        // A coinbase-only proposal needs no transactions: it overtakes the megabytes of others.
        if template.is_coinbase_only() {
            self.lines.push_front(line);
        } else {
            self.lines.push_back(line);
        }
        self.open.push_back(Open { propose_id, job, reason, put_again });
    }
}
