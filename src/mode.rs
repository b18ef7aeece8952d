//! What the operator chose: how far verdicts bind, and what happens without them.

/// What the gateway does with verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No miners; verdicts are logged.
    Shadow,
    /// Miners get every template; verdicts are logged.
    Observe,
    /// Miners get accepted templates only.
    Inline,
}

impl Mode {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Shadow => "shadow",
            Mode::Observe => "observe",
            Mode::Inline => "inline",
        }
    }
}

/// What happens to templates while the verifier cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// They wait.
    FailClosed,
    /// They go out without a verdict.
    PermitAll,
}
