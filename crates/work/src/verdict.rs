//! The verifier's ruling on one template, bound to the bytes that were judged (D37).

use serde::{Deserialize, Serialize};

use crate::hash::Txid;
use crate::template::TemplateId;

/// Reason codes of one verdict that are kept.
pub const VERDICT_REASONS_MAX: usize = 64;

/// May the work go out?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It meets the policy.
    Accept,
    /// It does not.
    Reject,
}

/// A ruling, with what it was a ruling on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The template.
    pub template_id: TemplateId,
    /// The ruling.
    pub decision: Decision,
    /// SHA-256 over the body that was judged: [`crate::job::Job::body_hash`].
    pub body_hash: [u8; 32],
    /// SHA-256 over the tip that was judged: [`crate::job::Job::tip_hash`].
    pub tip_hash: [u8; 32],
    /// Why, in the verifier's codes; empty for a clean accept.
    pub reason_codes: Vec<String>,
    /// Transactions it objects to.
    pub offending_txids: Vec<Txid>,
    /// Who ruled.
    pub verifier_id: String,
    /// By which policy.
    pub policy_version: String,
    /// Its hash.
    pub policy_hash: String,
}
