//! Which difficulty a share of a channel is judged by.
//!
//! Every header has one reading. A fresh job behind a SetTarget is the same work as the job before
//! it, so a header could be claimed under either number; whoever could choose would claim the old
//! target for poor hashes and the new one for good hashes. Therefore the header's own time
//! decides: a new difficulty begins at a time, that of the first job given under it, and counts
//! from there on whatever number is claimed, while jobs given under it take no earlier time.
//!
//! While a SetTarget is in flight the easier difficulty counts (D26): some miners work by a new
//! target at once, others from the next job on.

use arrayvec::ArrayVec;
use work::{Difficulty, Target};

use crate::limits::TARGETS_PER_CHANNEL;

/// A difficulty from where on it counts.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The first job number that may be given under it.
    from_job: u32,
    difficulty: Difficulty,
    target: Target,
    /// The work (see [`super::board::Posted::work`]) and the time at which it began; nothing
    /// before a job was given under it.
    began: Option<(u32, u32)>,
    /// The work that was out when it was announced.
    announced_on: u32,
}

/// The difficulties of one channel.
#[derive(Debug)]
pub struct Targets {
    /// By rising `from_job`; the last is the newest. Never empty.
    steps: ArrayVec<Step, TARGETS_PER_CHANNEL>,
    /// The work of the newest job.
    newest_work: u32,
}

impl Targets {
    /// The first difficulty, for all jobs.
    pub fn new(difficulty: Difficulty) -> Targets {
        let mut steps = ArrayVec::new();
        let target = difficulty.target();
        steps.push(Step { from_job: 0, difficulty, target, began: None, announced_on: 0 });
        Targets { steps, newest_work: 0 }
    }

    /// The difficulty that was announced last, with its target.
    pub fn newest(&self) -> (Difficulty, Target) {
        let newest = self.steps.last();
        newest.map_or((Difficulty::EASIEST, Target::MAX), |step| (step.difficulty, step.target))
    }

    /// A SetTarget goes out behind the job `given_job`.
    pub fn announce(&mut self, given_job: u32, difficulty: Difficulty) {
        if self.steps.is_full() {
            self.merge_oldest();
        }
        let target = difficulty.target();
        let (from_job, announced_on) = (given_job + 1, self.newest_work);
        self.steps.push(Step { from_job, difficulty, target, began: None, announced_on });
    }

    /// A job is given whose miner begins at `ntime`.
    pub fn on_given(&mut self, job_id: u32, work: u32, ntime: u32) {
        self.newest_work = work;
        for step in self.steps.iter_mut().filter(|step| step.from_job <= job_id) {
            step.began.get_or_insert((work, ntime));
        }
    }

    /// Earliest time of headers on `work` under the number `job_id`; 0 if there is no bound.
    pub fn earliest(&self, job_id: u32, work: u32) -> u32 {
        let reached = self.steps.iter().filter(|step| step.from_job <= job_id);
        let times = reached.filter_map(|step| step.began.filter(|(of, _)| *of == work));
        times.map(|(_, ntime)| ntime).max().unwrap_or(0)
    }

    /// What a share with this job number, work and header time is judged by.
    pub fn of_share(&self, job_id: u32, work: u32, ntime: u32) -> (Difficulty, Target) {
        let mut own = self.steps.iter().rposition(|step| step.from_job <= job_id).unwrap_or(0);
        while let Some(next) = self.steps.get(own + 1)
            && next.began.is_some_and(|(of, from)| of == work && ntime >= from)
        {
            own += 1;
        }
        let Step { mut difficulty, mut target, .. } = self.steps[own];
        // For all jobs of the work alike, or the number would be a choice again.
        let in_flight = self.steps.iter().skip(own + 1);
        for step in in_flight.filter(|step| step.announced_on == work) {
            if step.difficulty.work() < difficulty.work() {
                (difficulty, target) = (step.difficulty, step.target);
            }
        }
        (difficulty, target)
    }

    /// Make room for another difficulty: of the two oldest the easier one counts for the jobs of
    /// both, so that no share is refused that was good for its own job.
    fn merge_oldest(&mut self) {
        let oldest = self.steps.remove(0);
        let Some(next) = self.steps.first_mut() else { return };
        next.from_job = oldest.from_job;
        (next.began, next.announced_on) = (oldest.began, oldest.announced_on);
        if oldest.difficulty.work() < next.difficulty.work() {
            (next.difficulty, next.target) = (oldest.difficulty, oldest.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn difficulty(value: u64) -> Difficulty {
        Difficulty::at_most(value as f64)
    }

    fn judged(targets: &Targets, job_id: u32, work: u32, ntime: u32) -> u64 {
        targets.of_share(job_id, work, ntime).0.as_f64() as u64
    }

    #[test]
    fn a_harder_one_counts_from_its_time_on_under_either_number() {
        let mut targets = Targets::new(difficulty(1));
        targets.on_given(1, 1, 100);
        targets.announce(1, difficulty(4));
        assert_eq!(judged(&targets, 1, 1, 500), 1, "in flight: the easier one");
        targets.on_given(2, 1, 130);
        assert_eq!(judged(&targets, 1, 1, 129), 1, "an old header on the old job");
        assert_eq!((judged(&targets, 1, 1, 130), judged(&targets, 2, 1, 130)), (4, 4));
        assert_eq!(targets.earliest(2, 1), 130, "no old header on the new job");
        assert_eq!(targets.earliest(1, 1), 100);
        // Other work has other headers.
        targets.on_given(3, 2, 90);
        assert_eq!((judged(&targets, 3, 2, 90), targets.earliest(3, 2)), (4, 0));
    }

    #[test]
    fn an_easier_one_counts_at_once() {
        let mut targets = Targets::new(difficulty(8));
        targets.on_given(1, 1, 100);
        targets.announce(1, difficulty(2));
        targets.announce(1, difficulty(4));
        assert_eq!(judged(&targets, 1, 1, 100), 2, "the easiest of those in flight");
        targets.on_given(2, 1, 110);
        assert_eq!(judged(&targets, 1, 1, 100), 2, "still under way when the job came");
        assert_eq!(judged(&targets, 2, 1, 110), 4);
    }

    proptest! {
        /// No header has two readings: under all numbers of its work that take its time, one and
        /// the same difficulty counts, whatever was announced and given before.
        #[test]
        fn a_header_has_one_reading(
            steps in prop::collection::vec((0u8..4, 1u64..1_000, 0u32..40), 1..40),
            ntime in 0u32..900,
        ) {
            let mut targets = Targets::new(difficulty(7));
            let mut jobs = vec![(1, 1)];
            let (mut work, mut now) = (1, 0);
            targets.on_given(1, work, now);
            for (kind, value, passed) in steps {
                let job_id = jobs.len() as u32;
                now += passed + 1;
                match kind {
                    0 | 1 => targets.announce(job_id, difficulty(value)),
                    _ => {
                        work += u32::from(kind == 3);
                        jobs.push((job_id + 1, work));
                        targets.on_given(job_id + 1, work, now);
                    }
                }
                for of in 1..=work {
                    let takes = jobs.iter().filter(|(job, w)| {
                        *w == of && ntime >= targets.earliest(*job, of)
                    });
                    let mut readings: Vec<Difficulty> =
                        takes.map(|(job, _)| targets.of_share(*job, of, ntime).0).collect();
                    readings.dedup();
                    prop_assert!(readings.len() <= 1, "{readings:?} for work {of}");
                }
            }
        }
    }
}
