//! Who may open a channel (T2, D12): open, a list of names, or a map of prefixes.
//!
//! Names and secrets are kept as HMAC-SHA256 under a key of this run and never as text. An
//! attempt costs the same number of digests whether its name is known, its secret right, or
//! neither, and ends in one comparison in constant time; both refusals are the same text on the
//! wire. How long an attempt takes depends on the bytes of the attempt alone.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::identity::Identity;
use crate::limits::USER_IDENTITY_BYTES_MAX;
use crate::reason::Reason;

/// HMAC-SHA256 of a name or a secret.
type Digest = [u8; 32];

/// What a digest is of, so that no name is ever taken for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Name = 0,
    Secret = 1,
}

/// The rules as the operator wrote them; nothing of it is kept.
///
/// Names and prefixes are unique and not empty. Secrets hold no colon.
#[derive(Clone, Copy)]
pub enum AuthInput<'a> {
    /// Any name.
    Open,
    /// Usernames, each with its password.
    Allowlist(&'a [(&'a str, &'a str)]),
    /// Prefixes of names, each with its secret.
    PrefixMap(&'a [(&'a str, &'a str)]),
}

/// The rules as they are kept: digests of names to digests of secrets.
enum AuthRules {
    Open,
    Allowlist(HashMap<Digest, Digest>),
    PrefixMap {
        secrets: HashMap<Digest, Digest>,
        /// Distinct lengths of the prefixes, longest first; at most one for each byte that an
        /// identity can have.
        lengths: Vec<usize>,
    },
}

/// Who may open a channel on this gateway; read only.
pub struct Admission {
    rules: AuthRules,
    shown_bytes_max: usize,
    /// With its key; cloned for each digest.
    mac: Hmac<Sha256>,
    /// Compared with where there is no secret to compare with.
    dummy: Digest,
}

/// A miner that may open a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its name in records, logs and metrics: the identity without the secret.
    pub miner_id: Arc<str>,
}

impl Admission {
    /// From the operator's rules, `auth.max_worker_id_bytes` and 32 random bytes of this run.
    pub fn new(auth: AuthInput<'_>, max_worker_id_bytes: usize, key: [u8; 32]) -> Admission {
        // HMAC pads shorter keys with zeros to one block of its hash.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&key);
        let mac = Hmac::<Sha256>::new(&block.into());
        let digests = |pairs: &[(&str, &str)]| -> HashMap<Digest, Digest> {
            let pair = |(name, secret): &(&str, &str)| {
                let name = digest(&mac, What::Name, name.as_bytes());
                (name, digest(&mac, What::Secret, secret.as_bytes()))
            };
            pairs.iter().map(pair).collect()
        };
        let rules = match auth {
            AuthInput::Open => AuthRules::Open,
            AuthInput::Allowlist(pairs) => AuthRules::Allowlist(digests(pairs)),
            AuthInput::PrefixMap(pairs) => {
                let mut lengths: Vec<usize> = pairs.iter().map(|(name, _)| name.len()).collect();
                // No identity is longer, so no longer prefix can match.
                lengths.retain(|length| *length <= USER_IDENTITY_BYTES_MAX);
                lengths.sort_unstable_by(|a, b| b.cmp(a));
                lengths.dedup();
                AuthRules::PrefixMap { secrets: digests(pairs), lengths }
            }
        };
        let shown_bytes_max = max_worker_id_bytes.min(USER_IDENTITY_BYTES_MAX);
        let dummy = digest(&mac, What::Secret, &key);
        Admission { rules, shown_bytes_max, mac, dummy }
    }

    /// Whether the miner that sent `user_identity` may open a channel, and under which name.
    ///
    /// On an allowlist the whole name is looked up first, then the part before its first dot. In a
    /// map the longest prefix counts, and only its secret.
    ///
    /// # Errors
    /// [`Reason::InvalidWorkerId`] for what is no identity, [`Reason::AllowlistMismatch`] for a
    /// name that no rule has, [`Reason::InvalidCredentials`] for a wrong secret. The last two are
    /// failures in the sense of `throttle.rs`; see [`is_failure`].
    pub fn admit(&self, user_identity: &[u8]) -> Result<Admitted, Reason> {
        self.admit_by(user_identity, &mut |what, bytes| digest(&self.mac, what, bytes))
    }

    fn admit_by(
        &self,
        user_identity: &[u8],
        digest: &mut dyn FnMut(What, &[u8]) -> Digest,
    ) -> Result<Admitted, Reason> {
        let identity = Identity::parse(user_identity, self.shown_bytes_max)?;
        let shown = identity.shown.as_bytes();
        let expected = match &self.rules {
            AuthRules::Open => return Ok(Admitted { miner_id: identity.shown.into() }),
            AuthRules::Allowlist(secrets) => {
                let whole = secrets.get(&digest(What::Name, shown));
                let user = secrets.get(&digest(What::Name, identity.username().as_bytes()));
                whole.or(user)
            }
            AuthRules::PrefixMap { secrets, lengths } => {
                let mut longest = None;
                for length in lengths {
                    // Lengths that do not fit cost the same and find nothing.
                    let name = digest(What::Name, &shown[..shown.len().min(*length)]);
                    let found = secrets.get(&name).filter(|_| *length <= shown.len());
                    longest = longest.or(found);
                }
                longest
            }
        };
        let given = digest(What::Secret, identity.secret);
        let is_right = given.ct_eq(expected.unwrap_or(&self.dummy));
        match (expected, bool::from(is_right)) {
            (Some(_), true) => Ok(Admitted { miner_id: identity.shown.into() }),
            (Some(_), false) => Err(Reason::InvalidCredentials),
            (None, _) => Err(Reason::AllowlistMismatch),
        }
    }
}

/// Names nothing that was digested.
impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rules {
            AuthRules::Open => f.write_str("Open"),
            AuthRules::Allowlist(secrets) => write!(f, "Allowlist({} names)", secrets.len()),
            AuthRules::PrefixMap { secrets, .. } => {
                write!(f, "PrefixMap({} prefixes)", secrets.len())
            }
        }
    }
}

/// Whether a refusal may have been a guess, and counts against its address.
pub fn is_failure(reason: Reason) -> bool {
    matches!(reason, Reason::InvalidCredentials | Reason::AllowlistMismatch)
}

fn digest(mac: &Hmac<Sha256>, what: What, bytes: &[u8]) -> Digest {
    mac.clone().chain_update([what as u8]).chain_update(bytes).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: AuthInput<'_> = AuthInput::Allowlist(&[
        ("alice", "hunter2"),
        ("bob", "swordfish"),
        ("bob.vip", "other"),
        ("colon:name", "s"),
    ]);
    const MAP: AuthInput<'_> =
        AuthInput::PrefixMap(&[("farm", "one"), ("farm-a", "two"), ("farm-a.9", "three")]);

    fn admission(auth: AuthInput<'_>) -> Admission {
        Admission::new(auth, 512, [7; 32])
    }

    fn check(auth: AuthInput<'_>, user_identity: &[u8], expected: Result<&str, Reason>) {
        let found = admission(auth).admit(user_identity).map(|admitted| admitted.miner_id);
        assert_eq!(found.as_deref(), expected.as_deref(), "{}", user_identity.escape_ascii());
    }

    #[test]
    fn open_takes_any_name() {
        check(AuthInput::Open, b"alice.rig1:whatever", Ok("alice.rig1"));
        check(AuthInput::Open, b"bc1qxyz", Ok("bc1qxyz"));
        check(AuthInput::Open, b"", Err(Reason::InvalidWorkerId));
        check(AuthInput::Open, b"\xff", Err(Reason::InvalidWorkerId));
    }

    #[test]
    fn an_allowlist_takes_its_names_with_their_passwords() {
        check(LIST, b"alice:hunter2", Ok("alice"));
        check(LIST, b"alice.rig1:hunter2", Ok("alice.rig1"));
        check(LIST, b"alice.rig1.2:hunter2", Ok("alice.rig1.2"));
        check(LIST, b"colon:name.w:s", Ok("colon:name.w"));
        check(LIST, b"alice", Err(Reason::InvalidCredentials));
        check(LIST, b"alice:", Err(Reason::InvalidCredentials));
        check(LIST, b"alice:hunter", Err(Reason::InvalidCredentials));
        check(LIST, b"alice:hunter22", Err(Reason::InvalidCredentials));
        check(LIST, b"alice:swordfish", Err(Reason::InvalidCredentials));
        check(LIST, b"Alice:hunter2", Err(Reason::AllowlistMismatch));
        check(LIST, b"alice2:hunter2", Err(Reason::AllowlistMismatch));
        check(LIST, b"carol", Err(Reason::AllowlistMismatch));
        check(LIST, b":hunter2", Err(Reason::InvalidWorkerId));
        // A name with a dot in the list goes before the user it begins with.
        check(LIST, b"bob.vip:other", Ok("bob.vip"));
        check(LIST, b"bob.vip:swordfish", Err(Reason::InvalidCredentials));
        check(LIST, b"bob.rig:swordfish", Ok("bob.rig"));
    }

    #[test]
    fn the_longest_prefix_counts() {
        check(MAP, b"farm-1:one", Ok("farm-1"));
        check(MAP, b"farm:one", Ok("farm"));
        check(MAP, b"farm-a1:two", Ok("farm-a1"));
        check(MAP, b"farm-a1:one", Err(Reason::InvalidCredentials));
        check(MAP, b"farm-a.9x:three", Ok("farm-a.9x"));
        check(MAP, b"farm-a.9x:two", Err(Reason::InvalidCredentials));
        check(MAP, b"far:one", Err(Reason::AllowlistMismatch));
        check(MAP, b"xfarm:one", Err(Reason::AllowlistMismatch));
        check(MAP, b"farm", Err(Reason::InvalidCredentials));
    }

    #[test]
    fn both_refusals_are_one_text_on_the_wire() {
        let (wrong, unknown) = (Reason::InvalidCredentials, Reason::AllowlistMismatch);
        assert_eq!(wrong.error_code(), unknown.error_code());
        assert!(is_failure(wrong) && is_failure(unknown) && !is_failure(Reason::InvalidWorkerId));
    }

    #[test]
    fn names_are_bounded_without_their_secret() {
        let admission = Admission::new(LIST, 8, [7; 32]);
        assert!(admission.admit(b"alice.r1:hunter2").is_ok());
        assert_eq!(admission.admit(b"alice.r12:hunter2"), Err(Reason::InvalidWorkerId));
    }

    /// Digests that an attempt costs.
    fn cost(admission: &Admission, user_identity: &[u8]) -> (Vec<What>, bool) {
        let mut digests = Vec::new();
        let admitted = admission.admit_by(user_identity, &mut |what, bytes| {
            digests.push(what);
            digest(&admission.mac, what, bytes)
        });
        (digests, admitted.is_ok())
    }

    #[test]
    fn every_attempt_costs_the_same_digests() {
        let cases: [(AuthInput<'_>, usize, &[&[u8]]); 2] = [
            (LIST, 3, &[b"alice:hunter2", b"alice:x", b"alice", b"nobody:hunter2", b"b.c.d:e"]),
            (MAP, 4, &[b"farm:one", b"farm:x", b"farm-a.9:three", b"nobody:one", b"f"]),
        ];
        for (auth, count, attempts) in cases {
            let admission = admission(auth);
            let (first, is_admitted) = cost(&admission, attempts[0]);
            assert!(is_admitted);
            assert_eq!(first.len(), count);
            for attempt in attempts {
                assert_eq!(cost(&admission, attempt).0, first, "{}", attempt.escape_ascii());
            }
        }
    }

    #[test]
    fn no_digest_outlives_its_run_and_no_name_is_a_secret() {
        let [one, two] = [1, 2].map(|key| Admission::new(LIST, 512, [key; 32]));
        let of = |admission: &Admission, what| digest(&admission.mac, what, b"alice");
        assert_ne!(of(&one, What::Name), of(&two, What::Name));
        assert_ne!(of(&one, What::Name), of(&one, What::Secret));
        assert_eq!(format!("{one:?}"), "Allowlist(4 names)");
    }
}
