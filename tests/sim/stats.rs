//! What worlds saw, in numbers, so that a run in which nothing happened is noticed.

use std::fmt;

/// What a world saw, for the summary.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub steps: u64,
    pub hashes: u64,
    pub shares: u64,
    pub refused: u64,
    pub blocks: u64,
    pub tips: u64,
    pub publications: u64,
    pub connections: u64,
    pub starts: u64,
    pub channels: u64,
    pub targets: u64,
    pub mischief: u64,
}

impl Stats {
    /// Add another world's.
    pub fn add(&mut self, other: &Stats) {
        self.steps += other.steps;
        self.hashes += other.hashes;
        self.shares += other.shares;
        self.refused += other.refused;
        self.blocks += other.blocks;
        self.tips += other.tips;
        self.publications += other.publications;
        self.connections += other.connections;
        self.starts += other.starts;
        self.channels += other.channels;
        self.targets += other.targets;
        self.mischief += other.mischief;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} hashes, {} shares accepted, {} refused, {} blocks, {} tips, {} jobs \
             published, {} connections, {} channels, {} targets set, {} starts, {} strokes of \
             mischief",
            self.steps,
            self.hashes,
            self.shares,
            self.refused,
            self.blocks,
            self.tips,
            self.publications,
            self.connections,
            self.channels,
            self.targets,
            self.starts,
            self.mischief,
        )
    }
}
