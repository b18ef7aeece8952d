//! What is wrong with a configuration: where, what, what was expected, and how to mend it.

use std::fmt;

/// Where a value stands. Places in the file come first, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file; both count from 1, columns in characters.
    Line {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In the environment: the name of the variable.
    Environment(String),
    /// The file as a whole, or nowhere: a default.
    File,
}

impl Place {
    /// With the name of the file, as editors and terminals understand it.
    pub fn text(&self, file: &str) -> String {
        match self {
            Place::Line { line, column } => format!("{file}:{line}:{column}"),
            Place::Environment(name) => format!("environment {name}"),
            Place::File => file.to_owned(),
        }
    }
}

/// Finds the places of bytes: a long list asks for thousands.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    /// Of a file.
    pub fn of(text: &'t str) -> Lines<'t> {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(newlines).collect() }
    }

    /// The place of a byte; of the end, if there are not so many.
    pub fn place(&self, at: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..at).or(self.text.get(start..)).unwrap_or_default();
        Place::Line { line, column: 1 + before.chars().count() }
    }

    /// The place behind the last byte.
    pub fn end(&self) -> Place {
        self.place(self.text.len())
    }
}

/// One thing that is wrong, or that a warning is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// Path of the key, `section.key`, or what else it is about.
    pub key: String,
    /// What stands there. Secrets are not repeated.
    pub got: String,
    /// What was expected.
    pub expected: String,
    /// How to mend it.
    pub mend: String,
}

impl Problem {
    /// As it is shown: four lines, or more if a part has several.
    pub fn text(&self, file: &str) -> String {
        let indented = |text: &str| text.replace('\n', "\n              ");
        format!(
            "{}: {}\n    got       {}\n    expected  {}\n    mend      {}\n",
            self.place.text(file),
            self.key,
            indented(&self.got),
            indented(&self.expected),
            indented(&self.mend)
        )
    }

    /// As one line, for a log.
    pub fn line(&self, file: &str) -> String {
        let Problem { place, key, got, expected, mend } = self;
        let text =
            format!("{}: {key}: got {got}; expected {expected}; mend: {mend}", place.text(file));
        text.replace('\n', " ")
    }
}

/// Mistakes that are told at once; nobody reads more.
pub const ERRORS_TOLD_MAX: usize = 100;

/// Why a configuration is refused: every error that was found, sorted by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the file.
    pub file: String,
    /// At least one, and at most [`ERRORS_TOLD_MAX`].
    pub errors: Vec<Problem>,
    /// How many more there are.
    pub untold: usize,
    /// What is no error, but should be known.
    pub warnings: Vec<Problem>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.errors.len() + self.untold;
        let plural = if all == 1 { "" } else { "s" };
        writeln!(f, "{}: {all} mistake{plural}", self.file)?;
        for error in &self.errors {
            write!(f, "\n{}", error.text(&self.file))?;
        }
        if self.untold > 0 {
            writeln!(f, "\nand {} more", self.untold)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_one_in_characters() {
        let check = |at: usize, line: usize, column: usize| {
            let lines = Lines::of("aé\nb = 1\n");
            assert_eq!(lines.place(at), Place::Line { line, column }, "{at}");
        };
        check(0, 1, 1);
        check(3, 1, 3);
        check(4, 2, 1);
        check(8, 2, 5);
        check(10, 3, 1);
        check(99, 3, 1);
        assert_eq!(Lines::of("").end(), Place::Line { line: 1, column: 1 });
    }

    #[test]
    fn the_file_comes_before_the_environment() {
        let line = |line| Place::Line { line, column: 9 };
        let environment = Place::Environment("A".into());
        assert!(line(2) < line(10) && line(10) < environment && environment < Place::File);
    }
}
