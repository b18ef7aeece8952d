//! What one miner's shares of one UTC hour came to, exactly.

use std::ops::AddAssign;

use crate::record::Outcome;

/// Shares and their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Their work, in units of 2^-32 difficulty.
    pub work: u128,
}

impl Sum {
    /// One share.
    pub fn one(work: u128) -> Sum {
        Sum { count: 1, work }
    }
}

impl AddAssign for Sum {
    /// Saturates: 2^32 shares of the hardest difficulty there is do not reach the end.
    fn add_assign(&mut self, other: Sum) {
        self.count = self.count.saturating_add(other.count);
        self.work = self.work.saturating_add(other.work);
    }
}

/// Both sides of the balance (D27).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Accepted.
    pub accepted: Sum,
    /// Of them, those that their miner was told of.
    pub acknowledged: Sum,
    /// Of them, those that it never was, or not yet.
    pub unacknowledged: Sum,
    /// Credited by the backend.
    pub delivered: Sum,
    /// Known to the backend before.
    pub duplicate: Sum,
    /// Refused by the backend.
    pub rejected: Sum,
    /// Given up by an operator.
    pub discarded: Sum,
    /// Waiting for an operator.
    pub dead: Sum,
    /// On their way.
    pub open: Sum,
}

impl Account {
    /// The sum that an outcome belongs to.
    pub fn of(&mut self, outcome: Outcome) -> &mut Sum {
        match outcome {
            Outcome::Delivered => &mut self.delivered,
            Outcome::Duplicate => &mut self.duplicate,
            Outcome::RejectedByUpstream => &mut self.rejected,
            Outcome::DeadLettered => &mut self.discarded,
        }
    }

    /// What miners were told, or were not.
    pub fn told(&self) -> Sum {
        sum([self.acknowledged, self.unacknowledged])
    }

    /// What became of the shares, or has not yet.
    pub fn became(&self) -> Sum {
        let Account { delivered, duplicate, rejected, discarded, dead, open, .. } = *self;
        sum([delivered, duplicate, rejected, discarded, dead, open])
    }

    /// Whether both sides are what was accepted.
    pub fn is_balanced(&self) -> bool {
        self.told() == self.accepted && self.became() == self.accepted
    }

    /// Every sum with its name, in the order of reports.
    pub fn sums(&self) -> [(&'static str, Sum); 9] {
        [
            ("accepted", self.accepted),
            ("acknowledged", self.acknowledged),
            ("unacknowledged", self.unacknowledged),
            ("delivered", self.delivered),
            ("duplicate", self.duplicate),
            ("rejected", self.rejected),
            ("discarded", self.discarded),
            ("dead", self.dead),
            ("open", self.open),
        ]
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Account) {
        self.accepted += other.accepted;
        self.acknowledged += other.acknowledged;
        self.unacknowledged += other.unacknowledged;
        self.delivered += other.delivered;
        self.duplicate += other.duplicate;
        self.rejected += other.rejected;
        self.discarded += other.discarded;
        self.dead += other.dead;
        self.open += other.open;
    }
}

fn sum<const N: usize>(sums: [Sum; N]) -> Sum {
    let mut total = Sum::default();
    sums.into_iter().for_each(|sum| total += sum);
    total
}
