//! The numbers that jobs have on one connection.
//!
//! A job's number is the board's generation (D44), plus one for every fresh job that this
//! connection was given in between: behind a SetTarget a miner gets the same work again under a
//! number of its own, because half of them take a new target at once and half with the next job.
//! So numbers rise by one, are never used twice, and need no table of jobs.

use arrayvec::ArrayVec;

use crate::limits::FRESH_JOBS_REMEMBERED;

/// From which number on how many fresh jobs have come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shift {
    from_job: u32,
    fresh_jobs: u32,
}

/// How generations and numbers belong together on one connection.
#[derive(Debug, Default)]
pub struct JobNumbers {
    /// By rising `from_job`. Before the first no fresh job had come.
    shifts: ArrayVec<Shift, FRESH_JOBS_REMEMBERED>,
    /// Numbers below this one name nothing that is remembered.
    first_job: u32,
}

impl JobNumbers {
    /// The number under which the newest `generation` is given now.
    pub fn job_id(&self, generation: u32) -> u32 {
        generation + self.shifts.last().map_or(0, |shift| shift.fresh_jobs)
    }

    /// The generation behind a number, whether or not it was ever given.
    pub fn generation(&self, job_id: u32) -> Option<u32> {
        if job_id < self.first_job {
            return None;
        }
        let shift = self.shifts.iter().rev().find(|shift| shift.from_job <= job_id);
        job_id.checked_sub(shift.map_or(0, |shift| shift.fresh_jobs))
    }

    /// Whether another fresh job may be given. `oldest` is the oldest generation that is
    /// remembered: what lies before it needs no number any more.
    pub fn has_room(&self, oldest: u32) -> bool {
        !self.shifts.is_full() || self.first_is_forgotten(oldest)
    }

    /// Give the newest `generation` a further number, or `None` without room: the oldest number
    /// is not dropped for it, because a block may be found under it (D17).
    pub fn renumber(&mut self, generation: u32, oldest: u32) -> Option<u32> {
        while self.first_is_forgotten(oldest) {
            self.shifts.remove(0);
            self.first_job = self.shifts.first().map_or(0, |shift| shift.from_job);
        }
        let job_id = self.job_id(generation) + 1;
        let shift = Shift { from_job: job_id, fresh_jobs: job_id - generation };
        self.shifts.try_push(shift).ok().map(|()| job_id)
    }

    /// Whether no number before the second shift names a generation that is remembered. The first
    /// shift then serves those behind it only, and there are none.
    fn first_is_forgotten(&self, oldest: u32) -> bool {
        let [first, second, ..] = self.shifts.as_slice() else { return false };
        second.from_job - first.fresh_jobs <= oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_fresh_jobs_it_is_the_generation() {
        let numbers = JobNumbers::default();
        assert_eq!((numbers.job_id(7), numbers.generation(7)), (7, Some(7)));
    }

    #[test]
    fn a_fresh_job_moves_what_comes_behind() {
        let mut numbers = JobNumbers::default();
        assert_eq!(numbers.renumber(7, 1), Some(8));
        assert_eq!((numbers.generation(7), numbers.generation(8)), (Some(7), Some(7)));
        assert_eq!((numbers.job_id(8), numbers.generation(9)), (9, Some(8)));
    }

    proptest! {
        /// Numbers rise by one, and every number of a remembered generation finds it.
        #[test]
        fn same_as_a_table(steps in prop::collection::vec((any::<bool>(), 0u32..6), 1..300)) {
            let mut numbers = JobNumbers::default();
            let mut table = vec![0u32, 1];
            let (mut generation, mut oldest) = (1u32, 1u32);
            for (is_fresh, forget) in steps {
                if !is_fresh {
                    generation += 1;
                } else if !numbers.has_room(oldest) {
                    continue;
                } else {
                    prop_assert!(numbers.renumber(generation, oldest).is_some());
                }
                prop_assert_eq!(numbers.job_id(generation) as usize, table.len());
                table.push(generation);
                oldest = (oldest + forget).min(generation);
                for (job_id, expected) in table.iter().enumerate().skip(1) {
                    if *expected >= oldest {
                        prop_assert_eq!(numbers.generation(job_id as u32), Some(*expected));
                    }
                }
            }
        }
    }
}
