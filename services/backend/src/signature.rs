//! Signatures of the Standard Webhooks form: who may speak, and that the body is what they said.
//!
//! Signed is `id "." timestamp "." body`, byte for byte as received, by HMAC-SHA256. The header
//! `webhook-signature` holds one or more entries `v1,<base64>` with spaces between them, so that a
//! sender can sign with an old and a new secret while they are exchanged.
//!
//! **Secret text.** `whsec_` followed by base64 stands for the bytes it encodes, the form of the
//! Standard Webhooks specification. Any other text stands for its own UTF-8 bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use work::contract::shares::TIMESTAMP_TOLERANCE_SECONDS;

use crate::limits::{SECRET_BYTES_MIN, SECRETS_MAX, SIGNATURES_MAX};

/// Prefix of a secret that is given in base64.
const BASE64_PREFIX: &str = "whsec_";

/// The secrets a sender may sign with. Their text is not kept, and never shown.
#[derive(Clone)]
pub struct Secrets(Vec<Hmac<Sha256>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// A secret that cannot be used, with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretError {
    /// No line holds a secret.
    Empty,
    /// More than [`SECRETS_MAX`] lines hold one.
    TooMany,
    /// What follows `whsec_` on this line is not base64.
    NotBase64 {
        /// Counted from 1.
        line: usize,
    },
    /// Fewer than [`SECRET_BYTES_MIN`] bytes.
    TooShort {
        /// Counted from 1.
        line: usize,
    },
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretError::Empty => f.write_str(
                "holds no secret; expected one a line, for example `whsec_` and base64 of 32 \
                 random bytes",
            ),
            SecretError::TooMany => {
                write!(f, "holds more than {SECRETS_MAX} secrets; remove those no longer in use")
            }
            SecretError::NotBase64 { line } => {
                write!(f, "line {line}: what follows `{BASE64_PREFIX}` is not base64")
            }
            SecretError::TooShort { line } => {
                write!(f, "line {line}: a secret has at least {SECRET_BYTES_MIN} bytes")
            }
        }
    }
}

impl std::error::Error for SecretError {}

impl Secrets {
    /// From a text with one secret a line; empty lines are skipped.
    ///
    /// # Errors
    /// No usable secret, too many, or one that is too short or not base64.
    pub fn parse(text: &str) -> Result<Secrets, SecretError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (line, secret) = (index + 1, line.trim());
            if secret.is_empty() {
                continue;
            }
            if keys.len() == SECRETS_MAX {
                return Err(SecretError::TooMany);
            }
            let bytes = match secret.strip_prefix(BASE64_PREFIX) {
                Some(encoded) => {
                    STANDARD.decode(encoded).map_err(|_| SecretError::NotBase64 { line })?
                }
                None => secret.as_bytes().to_vec(),
            };
            if bytes.len() < SECRET_BYTES_MIN {
                return Err(SecretError::TooShort { line });
            }
            // HMAC takes keys of any length, so this cannot fail; were it to, the line is at fault.
            let key = Hmac::new_from_slice(&bytes).map_err(|_| SecretError::TooShort { line })?;
            keys.push(key);
        }
        if keys.is_empty() { Err(SecretError::Empty) } else { Ok(Secrets(keys)) }
    }
}

/// Why a request is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// One of the three headers is absent or not text.
    HeaderMissing,
    /// `webhook-timestamp` is not a number of seconds.
    TimestampMalformed,
    /// The timestamp is older than the tolerance.
    TimestampTooOld,
    /// The timestamp is further ahead than the tolerance.
    TimestampTooNew,
    /// No entry matches any secret.
    SignatureWrong,
}

impl Refusal {
    /// All of them, for the metrics.
    pub const ALL: [Refusal; 5] = [
        Refusal::HeaderMissing,
        Refusal::TimestampMalformed,
        Refusal::TimestampTooOld,
        Refusal::TimestampTooNew,
        Refusal::SignatureWrong,
    ];

    /// Stable name.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::HeaderMissing => "header_missing",
            Refusal::TimestampMalformed => "timestamp_malformed",
            Refusal::TimestampTooOld => "timestamp_too_old",
            Refusal::TimestampTooNew => "timestamp_too_new",
            Refusal::SignatureWrong => "signature_wrong",
        }
    }

    /// What to do about it, for the sender's log.
    pub fn advice(self) -> &'static str {
        match self {
            Refusal::HeaderMissing => {
                "send the headers webhook-id, webhook-timestamp and webhook-signature"
            }
            Refusal::TimestampMalformed => "webhook-timestamp is Unix seconds in decimal",
            Refusal::TimestampTooOld | Refusal::TimestampTooNew => {
                "the clocks differ by more than 300 s; synchronise both machines"
            }
            Refusal::SignatureWrong => {
                "sign `id.timestamp.body` with a secret from this receiver's secret file"
            }
        }
    }
}

/// The three headers of a request, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedHeaders<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
}

impl SignedHeaders<'_> {
    /// Whether the timestamp is within the tolerance of `unix_seconds`. Needs no body, so a stale
    /// request is refused before its body is read.
    ///
    /// # Errors
    /// Not a number, too old, too new.
    pub fn check_time(&self, unix_seconds: u64) -> Result<(), Refusal> {
        let sent: u64 = self.timestamp.parse().map_err(|_| Refusal::TimestampMalformed)?;
        if unix_seconds.saturating_sub(sent) > TIMESTAMP_TOLERANCE_SECONDS {
            return Err(Refusal::TimestampTooOld);
        }
        if sent.saturating_sub(unix_seconds) > TIMESTAMP_TOLERANCE_SECONDS {
            return Err(Refusal::TimestampTooNew);
        }
        Ok(())
    }

    /// Whether some entry is the signature of `body` by some secret. Compared in constant time.
    ///
    /// # Errors
    /// [`Refusal::SignatureWrong`].
    pub fn check_body(&self, body: &[u8], secrets: &Secrets) -> Result<(), Refusal> {
        let entries = self.signature.split(' ').filter_map(|entry| entry.strip_prefix("v1,"));
        for encoded in entries.take(SIGNATURES_MAX) {
            let Ok(signature) = STANDARD.decode(encoded) else { continue };
            for key in &secrets.0 {
                let mut mac = key.clone();
                for part in [self.id.as_bytes(), b".", self.timestamp.as_bytes(), b".", body] {
                    mac.update(part);
                }
                if mac.verify_slice(&signature).is_ok() {
                    return Ok(());
                }
            }
        }
        Err(Refusal::SignatureWrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What the tests of the Standard Webhooks libraries sign: secret, id, timestamp, body,
    // signature (github.com/standard-webhooks/standard-webhooks: the JavaScript, Python and Go
    // libraries have the first, the Rust library the second).
    const PUBLISHED: [[&str; 5]; 2] = [
        [
            SECRET,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
            SIGNATURE,
        ],
        [
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            "1649367553",
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ],
    ];

    // Entries that the same tests put beside the right one, or in its place.
    const PUBLISHED_WRONG: [&str; 6] = [
        "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=",
        "v2,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=",
        "v1,dawfeoifkpqwoekfpqoekf",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=",
        "v1,tFtCZ5RDCPxzWQRWXWPgrCgE2frDBe9gjpbWQxnVfsQ=",
        "v1,R3PTzyfHASBKHH98a7yexTwaJ4yNIcGhFQc1yuN+BPU=",
    ];

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const SENT: u64 = 1_614_265_330;

    fn published(signature: &str) -> SignedHeaders<'_> {
        SignedHeaders { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: "1614265330", signature }
    }

    #[test]
    fn published_vectors() {
        for [secret, id, timestamp, body, signature] in PUBLISHED {
            let secrets = Secrets::parse(secret).unwrap();
            let check = |signature: &str| {
                let headers = SignedHeaders { id, timestamp, signature };
                headers.check_body(body.as_bytes(), &secrets)
            };
            assert_eq!(check(signature), Ok(()));
            for wrong in PUBLISHED_WRONG {
                assert_eq!(check(wrong), Err(Refusal::SignatureWrong), "{wrong}");
                assert_eq!(check(&format!("{wrong} v1a,AAAA v1,!! {signature} {wrong}")), Ok(()));
            }
            assert_eq!(check(&PUBLISHED_WRONG.join(" ")), Err(Refusal::SignatureWrong));
            assert_eq!(check(&signature[..8]), Err(Refusal::SignatureWrong));
        }
    }

    #[test]
    fn anything_else_is_wrong() {
        let wrong = Err(Refusal::SignatureWrong);
        let secrets = Secrets::parse(SECRET).unwrap();
        for signature in ["", "v1,", "v1", "v2,g0hM", &SIGNATURE[..20], &SIGNATURE[3..]] {
            assert_eq!(published(signature).check_body(BODY, &secrets), wrong, "{signature}");
        }
        let altered = SIGNATURE.replace("g0", "g1");
        assert_eq!(published(&altered).check_body(BODY, &secrets), wrong);
        assert_eq!(published(SIGNATURE).check_body(b"{}", &secrets), wrong);
        let mut other = published(SIGNATURE);
        other.timestamp = "1614265331";
        assert_eq!(other.check_body(BODY, &secrets), wrong);
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx").unwrap();
        assert_eq!(published(SIGNATURE).check_body(BODY, &secrets), wrong);
    }

    #[test]
    fn only_the_first_entries_are_looked_at() {
        let secrets = Secrets::parse(SECRET).unwrap();
        let many = format!("{}{SIGNATURE}", "v1,AAAA ".repeat(SIGNATURES_MAX));
        assert_eq!(published(&many).check_body(BODY, &secrets), Err(Refusal::SignatureWrong));
    }

    #[test]
    fn either_secret_serves_during_a_change() {
        let secrets = Secrets::parse(&format!("the-new-secret-of-the-pool\n{SECRET}\n")).unwrap();
        assert_eq!(published(SIGNATURE).check_body(BODY, &secrets), Ok(()));
    }

    #[test]
    fn time_has_a_tolerance_to_both_sides() {
        let headers = published(SIGNATURE);
        let cases = [
            (SENT, Ok(())),
            (SENT + 300, Ok(())),
            (SENT - 300, Ok(())),
            (SENT + 301, Err(Refusal::TimestampTooOld)),
            (SENT - 301, Err(Refusal::TimestampTooNew)),
            (0, Err(Refusal::TimestampTooNew)),
            (u64::MAX, Err(Refusal::TimestampTooOld)),
        ];
        for (now, expected) in cases {
            assert_eq!(headers.check_time(now), expected, "{now}");
        }
        for text in ["", "-1", "1e9", "99999999999999999999", "1614265330 "] {
            let headers = SignedHeaders { timestamp: text, ..headers };
            assert_eq!(headers.check_time(SENT), Err(Refusal::TimestampMalformed), "{text}");
        }
    }

    #[test]
    fn secret_files() {
        assert_eq!(Secrets::parse(" \n\n").unwrap_err(), SecretError::Empty);
        let line = 2;
        assert_eq!(Secrets::parse("\nwhsec_!").unwrap_err(), SecretError::NotBase64 { line });
        assert_eq!(Secrets::parse("\nshort").unwrap_err(), SecretError::TooShort { line });
        let five = "0123456789abcdef\n".repeat(5);
        assert_eq!(Secrets::parse(&five).unwrap_err(), SecretError::TooMany);
        assert_eq!(format!("{:?}", Secrets::parse(SECRET).unwrap()), "Secrets(1)");
    }
}
