//! Who may open channels.

use super::secret::Secret;

/// `auth.mode` with what belongs to it.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Every name is taken as it is.
    Open,
    /// The names of the list, each with its password.
    Allowlist(Vec<AllowlistEntry>),
    /// Names that begin with a prefix of the list, with the prefix's secret; the longest prefix
    /// counts.
    PrefixMap(Vec<PrefixEntry>),
}

impl Auth {
    /// As `auth.mode` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Auth::Open => "open",
            Auth::Allowlist(_) => "allowlist",
            Auth::PrefixMap(_) => "prefix_map",
        }
    }
}

/// One miner of the allowlist. Usernames are unique.
#[derive(Debug, Clone)]
pub struct AllowlistEntry {
    /// Before the worker and the password in `user_identity`.
    pub username: String,
    /// Behind the last colon of `user_identity`; holds no colon and is not empty.
    pub password: Secret,
}

/// One prefix of the map. Prefixes are unique and not empty.
#[derive(Debug, Clone)]
pub struct PrefixEntry {
    /// What names begin with.
    pub prefix: String,
    /// Behind the last colon of `user_identity`; holds no colon and is not empty.
    pub secret: Secret,
}
