//! Stopping in order: who gets which signal when. Time is passed in, nothing is sent here.
//!
//! Programs are asked (SIGTERM) in reverse order of their start, each when the one before it has
//! ended or has had [`STAGE_PATIENCE`], so that the gateway can still deliver what the miners sent
//! last. A program that has not ended [`TERMINATE_PATIENCE`] after it was asked is killed, and all
//! that are left are killed at [`STOP_PATIENCE`].

use std::time::Duration;

use super::program::{PROGRAMS, Program};

/// Time a program gets before the next one is asked too.
pub const STAGE_PATIENCE: Duration = Duration::from_millis(600);

/// Time from SIGTERM to SIGKILL.
pub const TERMINATE_PATIENCE: Duration = Duration::from_secs(3);

/// Time from the first SIGTERM to the last SIGKILL; the demo ends within 5 s.
pub const STOP_PATIENCE: Duration = Duration::from_millis(4_500);

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// A stop under way.
#[derive(Debug, Default)]
pub struct Stop {
    asked: [Option<Duration>; PROGRAMS],
    killed: [bool; PROGRAMS],
}

impl Stop {
    /// What to send now, `since` the stop began, given who is still `running`. Call it again and
    /// again until nobody is.
    pub fn on_tick(
        &mut self,
        since: Duration,
        running: &[bool; PROGRAMS],
    ) -> Vec<(Program, Demand)> {
        let mut demands = Vec::new();
        let mut may_ask = true;
        for program in Program::ALL.into_iter().rev() {
            let index = program.index();
            if !running[index] {
                continue;
            }
            let asked_for = match self.asked[index] {
                Some(asked) => since.saturating_sub(asked),
                None if may_ask => {
                    self.asked[index] = Some(since);
                    demands.push((program, Demand::Terminate));
                    Duration::ZERO
                }
                None => Duration::ZERO,
            };
            may_ask &= asked_for >= STAGE_PATIENCE;
            let overdue = asked_for >= TERMINATE_PATIENCE || since >= STOP_PATIENCE;
            if overdue && !self.killed[index] {
                self.killed[index] = true;
                demands.push((program, Demand::Kill));
            }
        }
        demands
    }

    /// Who had to be killed.
    pub fn killed(&self) -> Vec<Program> {
        Program::ALL.into_iter().filter(|program| self.killed[program.index()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(20);

    /// Runs a stop in which `ends` says when a program ends after its SIGTERM (`None`: never),
    /// and gives the order of SIGTERMs and the time it took.
    fn simulate(ends: [Option<u64>; PROGRAMS]) -> (Vec<Program>, Vec<Program>, Duration) {
        let (mut stop, mut order) = (Stop::default(), Vec::new());
        let mut running = [true; PROGRAMS];
        let mut deadline: [Option<Duration>; PROGRAMS] = [None; PROGRAMS];
        let mut now = Duration::ZERO;
        while running.contains(&true) {
            for (program, demand) in stop.on_tick(now, &running) {
                let index = program.index();
                match demand {
                    Demand::Terminate => {
                        order.push(program);
                        deadline[index] = ends[index].map(|end| now + Duration::from_millis(end));
                    }
                    Demand::Kill => running[index] = false,
                }
            }
            now += TICK;
            for index in 0..PROGRAMS {
                running[index] &= deadline[index].is_none_or(|deadline| now < deadline);
            }
            assert!(now < Duration::from_secs(5));
        }
        (order, stop.killed(), now)
    }

    fn reversed() -> Vec<Program> {
        Program::ALL.into_iter().rev().collect()
    }

    #[test]
    fn quick_programs_are_asked_one_after_another() {
        let (order, killed, took) = simulate([Some(50); PROGRAMS]);
        assert_eq!((order, killed), (reversed(), vec![]));
        assert!(took < Duration::from_millis(500));
    }

    #[test]
    fn deaf_programs_are_killed_in_time() {
        let (order, killed, took) = simulate([None; PROGRAMS]);
        assert_eq!((order, killed), (reversed(), Program::ALL.to_vec()));
        assert!(took <= STOP_PATIENCE + 2 * TICK, "{took:?}");
    }

    #[test]
    fn one_deaf_program_takes_three_seconds() {
        let mut ends = [Some(10); PROGRAMS];
        ends[Program::Loadgen.index()] = None;
        let (order, killed, took) = simulate(ends);
        assert_eq!((order, killed), (reversed(), vec![Program::Loadgen]));
        assert!(took <= TERMINATE_PATIENCE + 2 * TICK, "{took:?}");
    }

    #[test]
    fn who_has_ended_is_not_asked() {
        let mut running = [false; PROGRAMS];
        running[Program::Backend.index()] = true;
        let demands = Stop::default().on_tick(Duration::ZERO, &running);
        assert_eq!(demands, [(Program::Backend, Demand::Terminate)]);
    }
}
