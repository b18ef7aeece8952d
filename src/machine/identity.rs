//! Who a miner says it is: `username[.worker][:password]` (T2, D12).
//!
//! The secret part is cut off before anything is stored, logged or shown. Whether the name may
//! mine and the secret fits is for `admission.rs` to say.

use std::sync::Arc;

use sv2::message::common::SetupConnection;

use super::output::Device;
use crate::limits::{DEVICE_TEXT_BYTES_MAX, USER_IDENTITY_BYTES_MAX};
use crate::reason::Reason;

/// A `user_identity` in its parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// What may be shown: everything before the last `:`. Printable, neither empty nor without a
    /// username.
    pub shown: &'a str,
    /// Everything behind the last `:`; empty if there is none. Any bytes.
    pub secret: &'a [u8],
}

impl<'a> Identity<'a> {
    /// The parts of `user_identity`, which may be any bytes.
    ///
    /// # Errors
    /// [`Reason::InvalidWorkerId`] if the whole is longer than SV2 carries, or what is to be shown
    /// is empty, longer than `shown_bytes_max`, begins with the worker's dot, is not UTF-8, or
    /// holds characters that a terminal or a page would obey instead of show.
    pub fn parse(user_identity: &'a [u8], shown_bytes_max: usize) -> Result<Self, Reason> {
        let (shown, secret) = match user_identity.iter().rposition(|byte| *byte == b':') {
            Some(colon) => (&user_identity[..colon], &user_identity[colon + 1..]),
            None => (user_identity, &[][..]),
        };
        if user_identity.len() > USER_IDENTITY_BYTES_MAX || shown.len() > shown_bytes_max {
            return Err(Reason::InvalidWorkerId);
        }
        let shown = std::str::from_utf8(shown).map_err(|_| Reason::InvalidWorkerId)?;
        if shown.is_empty() || shown.starts_with('.') || shown.chars().any(is_obeyed) {
            return Err(Reason::InvalidWorkerId);
        }
        Ok(Identity { shown, secret })
    }

    /// The name without the worker: everything before the first `.`. Not empty.
    pub fn username(&self) -> &'a str {
        self.shown.split('.').next().unwrap_or(self.shown)
    }
}

/// Without the secret.
impl std::fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

/// Whether a character moves what is around it: controls, line separators, changes of direction.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The part of `user_identity` that may be shown: everything before the last `:`.
///
/// # Errors
/// As [`Identity::parse`].
pub fn miner_id(user_identity: &[u8]) -> Result<Arc<str>, Reason> {
    Identity::parse(user_identity, USER_IDENTITY_BYTES_MAX).map(|identity| identity.shown.into())
}

impl Device {
    /// What a miner says that it runs on.
    pub fn new(setup: &SetupConnection<'_>) -> Device {
        Device {
            vendor: printable(setup.vendor, DEVICE_TEXT_BYTES_MAX),
            hardware_version: printable(setup.hardware_version, DEVICE_TEXT_BYTES_MAX),
            firmware: printable(setup.firmware, DEVICE_TEXT_BYTES_MAX),
            device_id: printable(setup.device_id, DEVICE_TEXT_BYTES_MAX),
        }
    }
}

/// The start of a text of any bytes, so that it may be shown: what is no UTF-8, or would be obeyed
/// instead of shown, is escaped as in Rust. At most `bytes_max` bytes.
fn printable(bytes: &[u8], bytes_max: usize) -> Box<str> {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let before = shown.len();
            if is_obeyed(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
            if shown.len() > bytes_max {
                shown.truncate(before);
                return shown.into();
            }
        }
        for byte in chunk.invalid() {
            if shown.len() + r"\x00".len() > bytes_max {
                return shown.into();
            }
            shown.extend(byte.escape_ascii().map(char::from));
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_cut_off() {
        let check = |bytes: &[u8], expected: Option<(&str, &str, &[u8])>| {
            let identity = Identity::parse(bytes, 255).ok();
            let parts = identity.map(|found| (found.shown, found.username(), found.secret));
            assert_eq!(parts, expected, "{bytes:?}");
            assert_eq!(miner_id(bytes).ok().as_deref(), expected.map(|parts| parts.0));
        };
        check(b"alice", Some(("alice", "alice", b"")));
        check(b"alice.rig1", Some(("alice.rig1", "alice", b"")));
        check(b"alice.rig1.2:hunter2", Some(("alice.rig1.2", "alice", b"hunter2")));
        check(b"a:b:c", Some(("a:b", "a:b", b"c")));
        check(b"alice:", Some(("alice", "alice", b"")));
        check(b"alice:\xff.\0", Some(("alice", "alice", b"\xff.\0")));
        check("grün.α".as_bytes(), Some(("grün.α", "grün", b"")));
        check(":secret".as_bytes(), None);
        check(b".rig1:secret", None);
        check(b"", None);
        check(b":", None);
        check(b"\xff\xfe", None);
        check(b"line\nbreak", None);
        check("turned\u{202e}round".as_bytes(), None);
        check("line\u{2028}separator".as_bytes(), None);
        check(&[b'x'; 256], None);
    }

    #[test]
    fn the_bound_is_on_what_is_shown() {
        assert!(Identity::parse(b"alice:a long password", 5).is_ok());
        assert_eq!(Identity::parse(b"alice1", 5), Err(Reason::InvalidWorkerId));
        assert!(!format!("{:?}", Identity::parse(b"alice:hunter2", 5)).contains("hunter2"));
    }

    #[test]
    fn texts_of_a_device_are_printable_and_short() {
        let check = |bytes: &[u8], shown: &str| assert_eq!(&*printable(bytes, 8), shown);
        check(b"", "");
        check(b"Bitaxe", "Bitaxe");
        check(b"Bitaxe 601", "Bitaxe 6");
        check("grün".as_bytes(), "grün");
        check("1234567ü".as_bytes(), "1234567");
        check(b"a\nb", "a\\nb");
        check(b"\x1b[31m", "\\u{1b}[3");
        check(b"1234\x1b", "1234");
        check(b"\xff\xfe", "\\xff\\xfe");
        check(b"12345\xff", "12345");
        assert_eq!(printable(&[b'x'; 255], DEVICE_TEXT_BYTES_MAX).len(), DEVICE_TEXT_BYTES_MAX);
    }
}
