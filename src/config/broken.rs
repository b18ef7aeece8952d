//! Lines that are not TOML: told, and taken out, so that the rest of the file can be read.
//!
//! The parser loses what stands behind some mistakes. A line that is taken out is replaced by as
//! many blanks, so that all places stay where they are.

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::problem::{Lines, Place};

/// Lines that are taken out of one file; each costs another reading of it.
const LINES_MAX: usize = 32;

/// Messages that are looked at when lines are no longer taken out.
const ERRORS_MAX: usize = 256;

/// A line that is not TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// Where the parser saw it.
    pub place: Place,
    /// What it said.
    pub message: String,
}

/// The text without its broken lines, and what was said about them.
pub(super) fn take_out(text: &str) -> (Zeroizing<String>, Vec<Broken>) {
    let mut rest = Zeroizing::new(text.to_owned());
    let mut all: Vec<Broken> = Vec::new();
    let lines = Lines::of(text);
    for _ in 0..LINES_MAX {
        let Err(error) = DeTable::parse(&rest) else { return (rest, all) };
        let at = error.span().map_or(text.len(), |span| span.start);
        let Some(line) =
            line_of(&rest, at).filter(|line| may_go(&rest[line.clone()], error.message()))
        else {
            break;
        };
        let blanks = " ".repeat(line.len());
        rest.replace_range(line, &blanks);
        all.push(Broken { place: lines.place(at), message: error.message().to_owned() });
    }
    let (_, errors) = DeTable::parse_recoverable(&rest);
    for error in errors.into_iter().take(ERRORS_MAX) {
        let place = lines.place(error.span().map_or(text.len(), |span| span.start));
        if !all.iter().any(|other| line(&other.place) == line(&place)) {
            all.push(Broken { place, message: error.message().to_owned() });
        }
        // A list that nobody closed makes everything behind it wrong.
        if is_of_list(error.message()) {
            break;
        }
    }
    (rest, all)
}

/// Whether a message is about a list that goes over several lines.
pub(super) fn is_of_list(message: &str) -> bool {
    message.contains("array")
}

fn line(place: &Place) -> Option<usize> {
    match place {
        Place::Line { line, .. } => Some(*line),
        Place::Environment(_) | Place::File => None,
    }
}

/// Bytes of the line around `at`, without its end; `None` if it is blank already.
fn line_of(text: &str, at: usize) -> Option<std::ops::Range<usize>> {
    let at = text.len().min(at);
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let end = text.get(at..)?.find('\n').map_or(text.len(), |length| at + length);
    text.get(start..end).filter(|line| !line.trim().is_empty()).map(|_| start..end)
}

/// Whether the rest means the same without this line. Without the head of a section it would not;
/// of two values for one key the parser keeps the first by itself.
fn may_go(line: &str, message: &str) -> bool {
    !line.trim_start().starts_with('[') && !is_of_list(message) && !message.contains("duplicate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let (rest, broken) = take_out(text);
        assert_eq!(rest.len(), text.len());
        assert_eq!(rest.matches('\n').count(), text.matches('\n').count());
        broken.iter().filter_map(|broken| line(&broken.place)).collect()
    }

    #[test]
    fn each_broken_line_is_told_once_and_the_rest_stays() {
        assert!(lines("[a]\nb = 1\n").is_empty());
        assert_eq!(lines("[a]\nb = 1\nc d = 2\n[e]\nf = \n\ng = ü\nh = 3"), [3, 5, 7]);
        let (rest, _) = take_out("[a]\nb = x\nc = 3");
        assert_eq!(rest.as_str(), "[a]\n     \nc = 3");
        assert_eq!(lines("[a\nb = 1\n"), [1]);
        assert_eq!(lines("[a]\nb = [1,\nc = 2\nd = 3\ne = 4\n").len(), 1);
        assert_eq!(lines("[a]\nb = 1\nb = 2\n[a]\n"), [3, 4]);
        assert_eq!(lines("").len(), 0);
    }

    #[test]
    fn a_file_that_is_something_else_is_given_up() {
        let text = "this is no TOML\n".repeat(2_000);
        assert!((1..=LINES_MAX + ERRORS_MAX).contains(&lines(&text).len()));
        assert!(!lines("\u{0}\u{1}ü\n= = =\n\"\"\"").is_empty());
    }
}
