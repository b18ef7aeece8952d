//! A set of event numbers, kept as ranges: small as long as what it holds is mostly contiguous.

use std::collections::BTreeMap;
use std::ops::Range;

/// Sorted, disjoint, not adjacent ranges of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First number of a range → the number behind its last.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    /// The empty set.
    pub fn new() -> Ranges {
        Ranges::default()
    }

    /// Adds one number (not `u64::MAX`, which no event has); false if it was there.
    pub fn insert(&mut self, number: u64) -> bool {
        let is_new = !self.contains(number);
        if is_new {
            self.insert_range(number..number.saturating_add(1));
        }
        is_new
    }

    /// Adds all numbers of `range`.
    pub fn insert_range(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        // Whatever it touches, from behind, becomes part of it.
        while let Some((&first, &behind)) = self.ends.range(..=end).next_back() {
            if behind < start {
                break;
            }
            start = start.min(first);
            end = end.max(behind);
            self.ends.remove(&first);
        }
        self.ends.insert(start, end);
    }

    /// Takes one number out; false if it was not there.
    pub fn remove(&mut self, number: u64) -> bool {
        let Some((first, end)) = self.range_of(number) else { return false };
        self.ends.remove(&first);
        if first < number {
            self.ends.insert(first, number);
        }
        if number + 1 < end {
            self.ends.insert(number + 1, end);
        }
        true
    }

    /// Whether the number is in it.
    pub fn contains(&self, number: u64) -> bool {
        self.range_of(number).is_some()
    }

    /// The first number from `from` on that is not in it.
    pub fn first_gap(&self, from: u64) -> u64 {
        self.range_of(from).map_or(from, |(_, end)| end)
    }

    /// How many numbers it holds.
    pub fn count(&self) -> u64 {
        self.ends.iter().map(|(first, end)| end - first).sum()
    }

    /// How many ranges it is kept as.
    pub fn ranges(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets every number below `bound`.
    pub fn forget_below(&mut self, bound: u64) {
        let cut = self.range_of(bound);
        self.ends = self.ends.split_off(&bound);
        if let Some((_, end)) = cut {
            self.ends.insert(bound, end);
        }
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(&first, &end)| first..end)
    }

    fn range_of(&self, number: u64) -> Option<(u64, u64)> {
        let (&first, &end) = self.ends.range(..=number).next_back()?;
        (number < end).then_some((first, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64),
        InsertRange(u64, u64),
        Remove(u64),
        ForgetBelow(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..60).prop_map(Step::Insert),
            2 => (0u64..60, 0u64..12).prop_map(|(start, length)| Step::InsertRange(start, length)),
            3 => (0u64..60).prop_map(Step::Remove),
            1 => (0u64..20).prop_map(Step::ForgetBelow),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec(step(), 0..80)) {
            let (mut ranges, mut set) = (Ranges::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(number) => {
                        prop_assert_eq!(ranges.insert(number), set.insert(number));
                    }
                    Step::InsertRange(start, length) => {
                        ranges.insert_range(start..start + length);
                        set.extend(start..start + length);
                    }
                    Step::Remove(number) => {
                        prop_assert_eq!(ranges.remove(number), set.remove(&number));
                    }
                    Step::ForgetBelow(bound) => {
                        ranges.forget_below(bound);
                        set = set.split_off(&bound);
                    }
                }
                let numbers: Vec<u64> = ranges.iter().flatten().collect();
                prop_assert_eq!(&numbers, &set.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(ranges.count(), set.len() as u64);
                prop_assert_eq!(ranges.is_empty(), set.is_empty());
                let kept: Vec<Range<u64>> = ranges.iter().collect();
                prop_assert!(kept.windows(2).all(|pair| pair[0].end < pair[1].start));
                for from in [0, 7, 31] {
                    let gap = (from..).find(|number| !set.contains(number)).unwrap();
                    prop_assert_eq!(ranges.first_gap(from), gap);
                }
            }
        }
    }
}
