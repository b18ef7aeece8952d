//! One message for everything that only the operator can say.
//!
//! Keys that decide about money or safety have no default. All that are lacking are told at once,
//! each as a line to paste, in the order of the sample.

use std::fmt::Write as _;

use super::document::Document;
use super::problem::{Place, Problem};
use super::schema::{KEYS, Key, SECTIONS};

/// A key without a value of its operator's.
#[derive(Debug, Clone)]
pub(super) struct Lack {
    pub key: Key,
    /// Where a value stands that has to be replaced.
    pub place: Option<Place>,
    /// What is wrong with that value.
    pub why: String,
}

/// The message; `None` if nothing is lacking but what was only misspelt.
pub(super) fn problem(lacking: &[Lack], document: &Document) -> Option<Problem> {
    let mut lacking: Vec<&Lack> =
        lacking.iter().filter(|lack| !document.meant.contains(lack.key.path)).collect();
    if lacking.is_empty() {
        return None;
    }
    lacking.sort_by_key(|lack| KEYS.iter().position(|key| *key == lack.key));
    let end = document.lines.end();
    let place_of = |lack: &Lack| match &lack.place {
        Some(place) => place.clone(),
        None => document.sections.get(lack.key.section()).cloned().unwrap_or_else(|| end.clone()),
    };
    let mut lines = String::from("write these lines, each with your own value:");
    for section in SECTIONS {
        let mut here = lacking.iter().filter(|lack| lack.key.section() == section).peekable();
        if here.peek().is_some() {
            let _ = match document.sections.get(section) {
                Some(Place::Line { line, .. }) => {
                    write!(lines, "\n# below [{section}] of line {line}")
                }
                _ => write!(lines, "\n[{section}]"),
            };
        }
        for lack in here {
            let _ = write!(lines, "\n{}", line(lack));
        }
    }
    let (plural, verb) = if lacking.len() == 1 { ("", "lacks") } else { ("s", "lack") };
    Some(Problem {
        place: lacking.iter().map(|lack| place_of(lack)).min().unwrap_or(end.clone()),
        key: format!("{} key{plural} {verb} a value of yours", lacking.len()),
        got: "nothing, or a value that is only a sample".into(),
        expected: "a value for each: they decide about money or safety and have no default".into(),
        mend: lines,
    })
}

fn line(lack: &Lack) -> String {
    let Lack { key, place, why } = lack;
    let mut line = format!("{} = {}", key.name(), key.sample);
    let there = match place {
        Some(Place::Line { line, .. }) => format!("instead of line {line}, {why}"),
        Some(Place::Environment(name)) => format!("instead of {name}, {why}"),
        Some(Place::File) | None => why.clone(),
    };
    if !there.is_empty() {
        let mark = if line.contains("  # ") { "; " } else { "  # " };
        line.push_str(mark);
        line.push_str(&there);
    }
    line
}
