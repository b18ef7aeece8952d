//! Who a miner says it is: `username[.worker][:password]` (T2, D12).
//!
//! The secret part is cut off before anything is stored, logged or shown.

use std::sync::Arc;

use crate::limits::USER_IDENTITY_BYTES_MAX;
use crate::reason::Reason;

/// The part of `user_identity` that may be shown: everything before the last `:`.
///
/// # Errors
/// [`Reason::InvalidWorkerId`] if nothing is left, it is too long, or it holds anything but
/// printable characters.
pub fn miner_id(user_identity: &[u8]) -> Result<Arc<str>, Reason> {
    if user_identity.len() > USER_IDENTITY_BYTES_MAX {
        return Err(Reason::InvalidWorkerId);
    }
    let shown = match user_identity.iter().rposition(|byte| *byte == b':') {
        Some(colon) => &user_identity[..colon],
        None => user_identity,
    };
    let text = std::str::from_utf8(shown).map_err(|_| Reason::InvalidWorkerId)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Reason::InvalidWorkerId);
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_cut_off() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            assert_eq!(miner_id(bytes).ok().as_deref(), expected, "{bytes:?}");
        };
        check(b"alice", Some("alice"));
        check(b"alice.rig1", Some("alice.rig1"));
        check(b"alice.rig1:hunter2", Some("alice.rig1"));
        check(b"a:b:c", Some("a:b"));
        check(b"alice:", Some("alice"));
        check(":secret".as_bytes(), None);
        check(b"", None);
        check(b"\xff\xfe", None);
        check(b"line\nbreak", None);
        check(&[b'x'; 256], None);
    }
}
