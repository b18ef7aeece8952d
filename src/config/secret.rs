//! A text that is wiped when it is dropped and never shown.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use zeroize::Zeroizing;

/// A password or key as it was configured.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    /// The text itself. Whoever copies it answers for the copy.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the same bytes. Both are compared by their MACs, so that neither their
    /// length nor the first difference shows in the time it takes.
    pub fn matches(&self, given: &[u8]) -> bool {
        let mac = |bytes: &[u8]| {
            Hmac::<sha2::Sha256>::new_from_slice(b"a secret of the configuration")
                .map(|mac| mac.chain_update(bytes))
        };
        match (mac(given), mac(self.0.as_bytes())) {
            (Ok(given), Ok(own)) => given.verify(&own.finalize().into_bytes()).is_ok(),
            _ => false,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_compared_and_not_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:?}", vec![secret.clone()]), "*** [***]");
        assert!(secret.matches(b"hunter2"));
        for other in [&b""[..], b"hunter", b"hunter22", b"Hunter2"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert_eq!(secret.reveal(), "hunter2");
    }
}
