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
    /// Of the journal and its disk.
    pub posts: u64,
    pub syncs: u64,
    pub segments: u64,
    pub removals: u64,
    pub disk_faults: u64,
    pub power_cuts: u64,
    pub unsynced_ends: u64,
    pub torn_bytes: u64,
    pub reopened: u64,
    pub commands: u64,
    pub letters: u64,
    pub lost_refusals: u64,
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
        self.posts += other.posts;
        self.syncs += other.syncs;
        self.segments += other.segments;
        self.removals += other.removals;
        self.disk_faults += other.disk_faults;
        self.power_cuts += other.power_cuts;
        self.unsynced_ends += other.unsynced_ends;
        self.torn_bytes += other.torn_bytes;
        self.reopened += other.reopened;
        self.commands += other.commands;
        self.letters += other.letters;
        self.lost_refusals += other.lost_refusals;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} hashes, {} shares accepted, {} refused, {} blocks, {} tips, {} jobs \
             published, {} connections, {} channels, {} targets set, {} starts, {} strokes of \
             mischief; {} batches posted, {} syncs, {} segments, {} removed, {} disk faults, {} \
             power cuts, {} ends with unsynced bytes, {} bytes torn, {} shares open at starts, \
             {} dead letters, {} commands, {} refusals counted as lost",
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
            self.posts,
            self.syncs,
            self.segments,
            self.removals,
            self.disk_faults,
            self.power_cuts,
            self.unsynced_ends,
            self.torn_bytes,
            self.reopened,
            self.letters,
            self.commands,
            self.lost_refusals,
        )
    }
}
