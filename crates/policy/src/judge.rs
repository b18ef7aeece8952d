//! Judging: every check runs, so that an operator sees all reasons at once.

use serde::Serialize;
use work::contract::bytes::HexBytes;
use work::contract::verifier::{TemplatePropose, TemplateVerdict, VerdictDetail};
use work::job;
use work::{Decision, Tip, Txid};

use crate::catalogue::{CHECKS, IfMissing, NOT_EVALUATED, Severity};
use crate::coinbase::CoinbaseFacts;
use crate::context::Context;
use crate::links::Links;
use crate::outcome::Outcome;
use crate::policy::{OnMissingContext, Policy};
use crate::proposal::Proposal;

/// What the checks look at: the three inputs, and what several of them need, made once.
pub(crate) struct Case<'a> {
    pub(crate) proposal: &'a Proposal<'a>,
    pub(crate) context: &'a Context,
    pub(crate) policy: &'a Policy,
    pub(crate) coinbase: Result<CoinbaseFacts, String>,
    /// Nothing if a transaction does not decode: then S18 speaks.
    pub(crate) links: Option<Links<'a>>,
}

impl Case<'_> {
    /// Whether the proposal builds on the tip of a usable context. If not, S01 speaks and what
    /// rests on the tip is not evaluated: compared with another block's child it says nothing.
    pub(crate) fn is_on_tip(&self) -> bool {
        self.context.is_usable() && self.proposal.template.prev_hash == self.context.chain.tip_hash
    }

    /// Fees of all transactions, satoshi, as declared.
    pub(crate) fn fees(&self) -> u128 {
        self.proposal.transactions.iter().map(|transaction| u128::from(transaction.fee)).sum()
    }
}

/// One check that spoke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// Check, as in the catalogue.
    pub check: &'static str,
    /// Reason code.
    pub code: &'static str,
    /// What it did to the verdict.
    pub severity: Severity,
    /// What was found.
    pub got: String,
    /// What was expected.
    pub want: String,
    /// The transactions it objects to, in block order, at most [`DETAIL_TXIDS_MAX`].
    ///
    /// [`DETAIL_TXIDS_MAX`]: work::contract::verifier::DETAIL_TXIDS_MAX
    pub txids: Vec<Txid>,
}

/// The outcome of all checks, in the catalogue's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ruling {
    /// Reject if any check of severity deny spoke, or lacked an input while the policy says that
    /// this denies.
    pub decision: Decision,
    /// Codes of the checks that spoke, each once. Never empty for a reject.
    pub reason_codes: Vec<&'static str>,
    /// The checks that spoke.
    pub details: Vec<Detail>,
    /// Ids of checks that lacked an input, or a part of it.
    pub not_evaluated: Vec<&'static str>,
}

impl Ruling {
    /// The ruling as it goes to the gateway, bound to the bytes of `template` (D37).
    pub fn verdict(
        &self,
        template: &TemplatePropose,
        policy: &Policy,
        elapsed_us: u64,
    ) -> TemplateVerdict {
        TemplateVerdict {
            propose_id: template.propose_id,
            template_id: template.template_id,
            verdict: self.decision,
            reason_codes: self.reason_codes.iter().map(|code| (*code).to_owned()).collect(),
            details: self.details.iter().map(Detail::to_wire).collect(),
            not_evaluated: self.not_evaluated.iter().map(|id| (*id).to_owned()).collect(),
            policy_version: policy.version.clone(),
            policy_hash: policy.hash().to_owned(),
            body_hash: HexBytes(body_hash(template).to_vec()),
            tip_hash: HexBytes(tip_hash(template).to_vec()),
            elapsed_us,
        }
    }
}

impl Detail {
    fn to_wire(&self) -> VerdictDetail {
        VerdictDetail {
            check: self.check.to_owned(),
            code: self.code.to_owned(),
            severity: self.severity.name().to_owned(),
            got: self.got.clone(),
            want: self.want.clone(),
            txids: self.txids.clone(),
        }
    }
}

/// [`job::body_hash`] of a proposal.
pub fn body_hash(template: &TemplatePropose) -> [u8; 32] {
    job::body_hash(
        &template.coinbase.prefix.0,
        &template.coinbase.suffix.0,
        &template.merkle_path,
        template.version,
        template.height,
        template.coinbase.extranonce_len,
    )
}

/// [`job::tip_hash`] of a proposal.
pub fn tip_hash(template: &TemplatePropose) -> [u8; 32] {
    job::tip_hash(&Tip {
        prev_hash: template.prev_hash,
        nbits: template.nbits,
        min_ntime: template.min_time,
    })
}

/// Run every check that is not off.
pub fn judge(proposal: &Proposal<'_>, context: &Context, policy: &Policy) -> Ruling {
    let coinbase = CoinbaseFacts::assemble(&proposal.template.coinbase);
    let links = Links::of(proposal.transactions);
    let case = Case { proposal, context, policy, coinbase, links };
    let mut details = Vec::new();
    let mut not_evaluated = Vec::new();
    let mut denied_unseen = false;
    for (position, check) in CHECKS.iter().enumerate() {
        let severity = policy.severity(position);
        if severity == Severity::Off {
            continue;
        }
        match (check.run)(&case) {
            Outcome::Pass => {}
            Outcome::Fail(findings) => details.extend(findings.into_iter().map(|finding| Detail {
                check: check.id,
                code: finding.code,
                severity,
                got: finding.got,
                want: finding.want,
                txids: finding.txids,
            })),
            Outcome::NotEvaluated => {
                not_evaluated.push(check.id);
                denied_unseen |=
                    severity == Severity::Deny && check.if_missing == IfMissing::AsPolicySays;
            }
        }
    }
    denied_unseen &= policy.on_missing_context == OnMissingContext::Deny;
    let denied = details.iter().any(|detail| detail.severity == Severity::Deny);
    let mut reason_codes: Vec<&'static str> = details.iter().map(|detail| detail.code).collect();
    if denied_unseen && !denied {
        reason_codes.push(NOT_EVALUATED);
    }
    let decision = if denied || denied_unseen { Decision::Reject } else { Decision::Accept };
    Ruling { decision, reason_codes, details, not_evaluated }
}
