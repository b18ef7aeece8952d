//! The six escape hatches: rules that an operator may suspend, one by one and knowingly.
//!
//! Each is a variable of the environment and never a key of the file, so that it does not travel
//! with a copied file. Its value is exactly `1`.

use std::collections::BTreeSet;

/// A rule that may be suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hatch {
    /// Channels may be opened in inline mode before the share upstream is ready.
    NoShareUpstreamReadyInline,
    /// Anybody may mine in inline mode.
    OpenAuthInline,
    /// Templates may go out without a verdict in inline mode.
    PermitAllInline,
    /// The gateway may make its authority key itself, for one run.
    EphemeralNoiseKey,
    /// Plain http may leave the private network; secret files may be readable by others.
    InsecureHttp,
    /// Templates may come from a node that is not in step with its network.
    UnsyncedNode,
}

impl Hatch {
    /// All six, in the order of the contract.
    pub const ALL: [Hatch; 6] = [
        Hatch::NoShareUpstreamReadyInline,
        Hatch::OpenAuthInline,
        Hatch::PermitAllInline,
        Hatch::EphemeralNoiseKey,
        Hatch::InsecureHttp,
        Hatch::UnsyncedNode,
    ];

    /// The variable; also the label `name` of `reservegrid_escape_hatch_active`.
    pub fn name(self) -> &'static str {
        match self {
            Hatch::NoShareUpstreamReadyInline => "VELDRA_ALLOW_NO_SHARE_UPSTREAM_READY_INLINE",
            Hatch::OpenAuthInline => "VELDRA_ALLOW_OPEN_AUTH_INLINE",
            Hatch::PermitAllInline => "VELDRA_ALLOW_PERMIT_ALL_INLINE",
            Hatch::EphemeralNoiseKey => "VELDRA_ALLOW_EPHEMERAL_NOISE_KEY",
            Hatch::InsecureHttp => "VELDRA_ALLOW_INSECURE_HTTP",
            Hatch::UnsyncedNode => "VELDRA_ALLOW_UNSYNCED_NODE",
        }
    }

    /// What no longer holds while it is open: a sentence for the log.
    pub fn meaning(self) -> &'static str {
        match self {
            Hatch::NoShareUpstreamReadyInline => {
                "inline mode opens channels before the share upstream is ready"
            }
            Hatch::OpenAuthInline => "anybody may mine in inline mode",
            Hatch::PermitAllInline => {
                "inline mode sends templates without a verdict while the verifier is away"
            }
            Hatch::EphemeralNoiseKey => {
                "without [noise] keys the gateway makes one that is lost at its end"
            }
            Hatch::InsecureHttp => {
                "plain http may go to public hosts, and others may read files with secrets"
            }
            Hatch::UnsyncedNode => "templates may come from a node that is not synchronised",
        }
    }
}

/// The hatches that are open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hatches(BTreeSet<Hatch>);

impl Hatches {
    /// Whether `hatch` is open.
    pub fn is_open(&self, hatch: Hatch) -> bool {
        self.0.contains(&hatch)
    }

    /// The open ones, in the order of the contract.
    pub fn iter(&self) -> impl Iterator<Item = Hatch> + '_ {
        self.0.iter().copied()
    }

    /// One more is open.
    pub(super) fn open(&mut self, hatch: Hatch) {
        self.0.insert(hatch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_with_names_of_their_own() {
        let names: BTreeSet<&str> = Hatch::ALL.iter().map(|hatch| hatch.name()).collect();
        assert_eq!(names.len(), 6);
        assert!(names.iter().all(|name| name.starts_with("VELDRA_ALLOW_")));
        let mut hatches = Hatches::default();
        for hatch in Hatch::ALL.into_iter().rev() {
            assert!(!hatches.is_open(hatch) && !hatch.meaning().is_empty());
            hatches.open(hatch);
        }
        assert!(hatches.iter().eq(Hatch::ALL));
    }
}
