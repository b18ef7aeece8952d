//! Reading values: each key is taken once, checked by type and range, and remembered for
//! `config show`. Nothing stops at a mistake; a value that is none is `None`, and the mistake is
//! kept.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::document::{Document, Given, Origin};
use super::hatch::Hatches;
use super::lacking::Lack;
use super::problem::{Place, Problem};
use super::schema::{Key, nearest};
use super::secret_file::SecretFiles;
use super::setting::Setting;

/// What marks a value that an operator has to replace.
const MARKER: &str = "REQUIRED";

/// Characters of a value that a message repeats.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// A value that was given, with what is needed to complain about it.
pub(super) struct Found<'t> {
    pub key: Key,
    pub value: Spanned<DeValue<'t>>,
    pub origin: Origin,
    pub place: Place,
}

impl Found<'_> {
    /// The value as a message may show it.
    pub fn shown(&self) -> String {
        shown(self.value.get_ref(), self.key.is_secret)
    }

    /// A line, or a variable, that gives the key the value `text`.
    pub fn assignment(&self, text: &str) -> String {
        assignment(self.key, &self.origin, text)
    }
}

/// `name = text`, or the variable with it.
fn assignment(key: Key, origin: &Origin, text: &str) -> String {
    match origin {
        Origin::Environment(name) => format!("{name}={}", text.trim_matches('"')),
        _ => format!("{} = {text}", key.name()),
    }
}

/// A value as a message may show it: a text in quotes, cut if it is long; a secret by its length.
pub(super) fn shown(value: &DeValue, is_secret: bool) -> String {
    match value {
        DeValue::String(text) if is_secret => format!("a text of {} bytes", text.len()),
        DeValue::String(text) if text.chars().count() > SHOWN_CHARACTERS_MAX => {
            let start: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
            format!("{start:?} and so on, {} bytes", text.len())
        }
        DeValue::String(text) => format!("{:?}", text.as_ref()),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(list) if list.is_empty() => "an empty list".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// The number, if it is whole and not negative.
pub(super) fn whole(number: &DeInteger) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Reads one configuration.
pub(super) struct Reader<'t> {
    pub document: Document<'t>,
    pub hatches: Hatches,
    pub files: SecretFiles,
    pub errors: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// Where what is in force differs from what stands in the file.
    pub notes: Vec<String>,
    pub lacking: Vec<Lack>,
    pub settings: Vec<Setting>,
}

impl<'t> Reader<'t> {
    /// Of a document to which the environment's values have been added.
    pub fn new(mut document: Document<'t>, hatches: Hatches, files: SecretFiles) -> Reader<'t> {
        Reader {
            errors: std::mem::take(&mut document.problems),
            document,
            hatches,
            files,
            warnings: Vec::new(),
            notes: Vec::new(),
            lacking: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Whether somebody gave the key a value.
    pub fn is_given(&self, key: Key) -> bool {
        self.document.given.contains_key(key.path)
    }

    /// Take the value of a key: what was given, or the default; else the key is lacking.
    pub fn take(&mut self, key: Key) -> Option<Found<'t>> {
        match key.default {
            Some(default) => self.take_or(key, default),
            None => match self.document.given.remove(key.path) {
                Some(given) => self.found(key, given),
                None => {
                    self.lacking.push(Lack { key, place: None, why: String::new() });
                    None
                }
            },
        }
    }

    /// Take the value of a key, or `default`, which is TOML.
    pub fn take_or(&mut self, key: Key, default: &'t str) -> Option<Found<'t>> {
        let given = match self.document.given.remove(key.path) {
            Some(given) => given,
            None => {
                let value = DeValue::parse(default).ok()?;
                Given { value, origin: Origin::Default }
            }
        };
        self.found(key, given)
    }

    /// Note for `config show` that an optional key has no value.
    pub fn left_out(&mut self, key: Key) {
        self.settings.push(Setting { key, value: None, origin: Origin::Default });
    }

    fn found(&mut self, key: Key, given: Given<'t>) -> Option<Found<'t>> {
        let Given { value, origin } = given;
        let place = self.document.place(&origin, &value.span());
        self.settings.push(Setting::new(key, value.get_ref(), origin.clone()));
        if has_marker(value.get_ref()) {
            let why = format!("which is still {MARKER}");
            self.lacking.push(Lack { key, place: Some(place), why });
            return None;
        }
        Some(Found { key, value, origin, place })
    }

    /// Where a part of a value stands.
    pub fn part(&self, found: &Found, span: &Range<usize>) -> Place {
        self.document.place(&found.origin, span)
    }

    /// The value of `found` is wrong.
    pub fn refuse(&mut self, found: &Found, expected: &str, mend: &str) {
        let got = found.shown();
        self.refuse_as(found, &got, expected, mend);
    }

    /// The value of `found` is wrong, told in these words.
    pub fn refuse_as(&mut self, found: &Found, got: &str, expected: &str, mend: &str) {
        self.errors.push(Problem {
            place: found.place.clone(),
            key: found.key.path.into(),
            got: got.into(),
            expected: expected.into(),
            mend: mend.into(),
        });
    }

    /// A warning about `found`.
    pub fn warn(&mut self, found: &Found, got: &str, expected: &str, mend: &str) {
        self.warnings.push(Problem {
            place: found.place.clone(),
            key: found.key.path.into(),
            got: got.into(),
            expected: expected.into(),
            mend: mend.into(),
        });
    }

    /// A text.
    pub fn text(&mut self, key: Key) -> Option<(String, Found<'t>)> {
        let found = self.take(key)?;
        self.text_of(found)
    }

    /// `found` as a text.
    pub fn text_of(&mut self, found: Found<'t>) -> Option<(String, Found<'t>)> {
        match found.value.get_ref() {
            DeValue::String(text) => Some((text.clone().into_owned(), found)),
            _ => {
                let sample = sample(found.key);
                self.refuse(&found, "a text in quotes", &found.assignment(sample));
                None
            }
        }
    }

    /// One of several words.
    pub fn choice<T: Copy>(&mut self, key: Key, choices: &[(&str, T)]) -> Option<(T, Found<'t>)> {
        let (text, found) = self.text(key)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some((*choice, found));
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let meant = nearest(&text, names.iter().copied()).or(names.first().copied());
        let mend = found.assignment(&format!("\"{}\"", meant.unwrap_or_default()));
        let (last, first) = names.split_last()?;
        self.refuse(&found, &format!("{} or {last}", first.join(", ")), &mend);
        None
    }

    /// A whole number.
    pub fn number(&mut self, key: Key, range: RangeInclusive<u64>) -> Option<u64> {
        let found = self.take(key);
        Some(self.number_of(found, range)?.0)
    }

    /// `found` as a whole number.
    pub fn number_of(
        &mut self,
        found: Option<Found<'t>>,
        range: RangeInclusive<u64>,
    ) -> Option<(u64, Found<'t>)> {
        let found = found?;
        let number = match found.value.get_ref() {
            DeValue::Integer(number) => whole(number),
            _ => None,
        };
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return Some((number, found));
        }
        let (start, end) = (*range.start(), *range.end());
        let least = start.to_string();
        let sample = match number {
            Some(number) if number > end => end.to_string(),
            Some(_) => least,
            None => found.key.default.unwrap_or(sample(found.key)).to_owned(),
        };
        let expected = format!("a whole number from {start} to {end}");
        self.refuse(&found, &expected, &found.assignment(&sample));
        None
    }

    /// A whole number that counts things in memory.
    pub fn size(&mut self, key: Key, range: RangeInclusive<u64>) -> Option<usize> {
        usize::try_from(self.number(key, range)?).ok()
    }

    /// A number of at least 0, or above 0.
    pub fn decimal(&mut self, found: Option<Found>, above_zero: bool) -> Option<f64> {
        let found = found?;
        let number = match found.value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        let fits =
            |number: &f64| number.is_finite() && (*number > 0.0 || !above_zero && *number == 0.0);
        let number = number.filter(fits);
        if number.is_none() {
            let expected = if above_zero { "a number above 0" } else { "a number of at least 0" };
            let default = found.key.default.unwrap_or_default();
            self.refuse(&found, expected, &found.assignment(default));
        }
        number
    }

    /// `true` or `false`.
    pub fn truth(&mut self, key: Key) -> Option<bool> {
        let found = self.take(key)?;
        match found.value.get_ref() {
            DeValue::Boolean(truth) => Some(*truth),
            _ => {
                let mend = found.assignment(key.default.unwrap_or("false"));
                self.refuse(&found, "true or false, without quotes", &mend);
                None
            }
        }
    }

    /// An address to listen on.
    pub fn socket(&mut self, found: Option<Found<'t>>) -> Option<(SocketAddr, Found<'t>)> {
        let (text, found) = self.text_of(found?)?;
        match text.parse() {
            Ok(address) => Some((address, found)),
            Err(_) => {
                let mend = found.assignment(sample(found.key));
                let expected = "an IP address and a port; port 0 takes a free one";
                self.refuse(&found, expected, &mend);
                None
            }
        }
    }

    /// A list of texts, or one text. Each with its place.
    pub fn texts(&mut self, found: &Found, most: usize) -> Option<Vec<(String, Place)>> {
        let one;
        let list = match found.value.get_ref() {
            DeValue::Array(list) => list.iter(),
            _ => {
                one = [found.value.clone()];
                one.iter()
            }
        };
        let texts: Option<Vec<_>> = list
            .map(|entry| {
                let text = entry.get_ref().as_str()?.to_owned();
                Some((text, self.part(found, &entry.span())))
            })
            .collect();
        let texts = texts.filter(|texts| texts.len() <= most);
        if texts.is_none() {
            let expected = format!("a text, or a list of at most {most} texts");
            self.refuse(found, &expected, &found.assignment(sample(found.key)));
        }
        texts
    }
}

/// The sample of a key without its comment.
pub(super) fn sample(key: Key) -> &'static str {
    key.sample.split("  #").next().unwrap_or_default()
}

/// Whether an operator has left a marker in place.
fn has_marker(value: &DeValue) -> bool {
    match value {
        DeValue::String(text) => text == MARKER,
        DeValue::Array(list) => list.iter().any(|entry| has_marker(entry.get_ref())),
        DeValue::Table(table) => table.iter().any(|(_, entry)| has_marker(entry.get_ref())),
        _ => false,
    }
}
