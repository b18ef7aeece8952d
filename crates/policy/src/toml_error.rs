//! Where a TOML text is wrong, in the four parts an operator needs: place, key, got, expected.

use std::fmt;
use std::ops::Range;

/// One mistake in a TOML text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TomlError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Dotted path of the key, as far as it is known.
    pub key: String,
    /// What stands there.
    pub got: String,
    /// What should.
    pub expected: String,
}

impl TomlError {
    /// A mistake at `span` (byte offsets into `text`).
    pub fn at(text: &str, span: Range<usize>, key: &str, got: &str, expected: &str) -> TomlError {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count());
        TomlError {
            line: before.matches('\n').count() + 1,
            column: column + 1,
            key: key.to_owned(),
            got: got.to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// The mistake that the TOML reader found.
    pub fn from_reader(text: &str, error: &toml::de::Error) -> TomlError {
        let (got, expected) = match error.message().split_once(", expected ") {
            Some((got, expected)) => (got, expected),
            None => (error.message(), "a key and value of this file's format"),
        };
        let span = error.span().unwrap_or(0..0);
        TomlError::at(text, span.clone(), &key_at(text, error, &span), got, expected)
    }
}

/// The key an error is about: the reader's own path, which it prints only without the text, and
/// else the name in the message or on the line.
fn key_at(text: &str, error: &toml::de::Error, span: &Range<usize>) -> String {
    let mut bare = error.clone();
    bare.set_input(None);
    let shown = bare.to_string();
    let path = shown.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    let path = path.unwrap_or_default();
    let named = ["unknown field `", "missing field `"].iter().find_map(|start| {
        let (name, _) = error.message().strip_prefix(start)?.split_once('`')?;
        Some(name)
    });
    match named {
        Some(name) if path.is_empty() || path == name => name.to_owned(),
        Some(name) if path.ends_with(&format!(".{name}")) => path.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None if !path.is_empty() => path.to_owned(),
        None => {
            let start = text.get(..span.start).and_then(|t| t.rfind('\n')).map_or(0, |at| at + 1);
            let line = text.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
            line.split('=').next().unwrap_or_default().trim().to_owned()
        }
    }
}

impl fmt::Display for TomlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}: got {}; expected {}",
            self.line, self.column, self.key, self.got, self.expected
        )
    }
}

impl std::error::Error for TomlError {}
