//! What a process was given beside its file: variables, a limit on descriptors, chance.

use std::ffi::OsString;

use rustix::process::{Resource, getrlimit};

/// Descriptors a process may have when nobody says so: what keeps the default of
/// `max_connections` at a size that every machine has memory for.
const DESCRIPTORS_ASSUMED: u64 = 18_460;

/// Given to [`super::read`], so that tests give their own.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Names and values of the environment. Only those that begin with `VELDRA_` are looked at,
    /// and `CREDENTIALS_DIRECTORY`.
    pub environment: Vec<(OsString, OsString)>,
    /// Files and sockets that the process may have open.
    pub descriptors_max: u64,
    /// Random bytes for an ephemeral authority key; without them none can be made.
    pub random: Option<[u8; 32]>,
}

impl Surroundings {
    /// None: an empty environment, an ordinary limit, no chance.
    pub fn none() -> Surroundings {
        Surroundings { environment: Vec::new(), descriptors_max: DESCRIPTORS_ASSUMED, random: None }
    }

    /// Of this process.
    pub fn of_this_process() -> Surroundings {
        let mut random = [0; 32];
        let is_random = getrandom::fill(&mut random).is_ok();
        Surroundings {
            environment: std::env::vars_os().collect(),
            // The soft limit is raised to the hard one at the start.
            descriptors_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            random: is_random.then_some(random),
        }
    }
}
