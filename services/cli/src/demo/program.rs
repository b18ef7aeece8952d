//! The five programs of a demo.

/// Number of programs.
pub const PROGRAMS: usize = Program::ALL.len();

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Receives shares for the pool.
    Backend,
    /// Makes templates; here with the simulated chain.
    TemplateManager,
    /// Judges templates.
    Verifier,
    /// Serves the miners.
    Gateway,
    /// The miners.
    Loadgen,
}

impl Program {
    /// In the order of starting; each needs only those before it. They are stopped in reverse.
    pub const ALL: [Program; 5] = [
        Program::Backend,
        Program::TemplateManager,
        Program::Verifier,
        Program::Gateway,
        Program::Loadgen,
    ];

    /// File name of the program, and of its files in the folder.
    pub fn name(self) -> &'static str {
        match self {
            Program::Backend => "reference-backend",
            Program::TemplateManager => "template-manager",
            Program::Verifier => "pool-verifier",
            Program::Gateway => "sv2-gateway",
            Program::Loadgen => "loadgen",
        }
    }

    /// Place in [`Program::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether it serves HTTP and writes `addresses.json`.
    pub fn is_service(self) -> bool {
        self != Program::Loadgen
    }
}
