//! gateway.toml with an environment: any text is a configuration or a list of mistakes, each with
//! its place, what was found, what is expected and how to mend it; no secret is shown.
//!
//! Input: the text; behind a NUL byte, lines `NAME=value` of the environment.

#![no_main]

use std::ffi::OsString;
use std::path::Path;

use gateway::config::{read_text, surroundings::Surroundings};
use libfuzzer_sys::fuzz_target;

/// Variables that are looked at.
const VARIABLES_MAX: usize = 32;

fuzz_target!(|input: &str| {
    let (text, variables) = input.split_once('\0').unwrap_or((input, ""));
    let environment = variables
        .lines()
        .take(VARIABLES_MAX)
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect();
    // Key files are looked for where there are none.
    let folder = Path::new("/nonexistent");
    let surroundings = Surroundings { environment, ..Surroundings::none() };
    match read_text("gateway.toml", text, folder, &surroundings) {
        Ok(checked) => {
            assert!(checked.config.extranonce_bytes() <= 32);
            assert_eq!(checked.settings.len(), 51, "every key has a value, given or not");
        }
        Err(refusal) => {
            assert!(!refusal.errors.is_empty(), "a refusal says why");
            assert!(!refusal.to_string().is_empty());
        }
    }
});
