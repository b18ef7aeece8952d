//! The file as a tree with places, sorted into the 51 keys; whatever is none of them is a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::broken::{self, Broken};
use super::problem::{Lines, Place, Problem};
use super::schema::{KEYS, Key, SECTIONS, nearest};

/// What a message is about that the TOML parser gave.
pub(super) const NOT_TOML: &str = "TOML";

/// Mistakes of one file that are kept: a file that is something else entirely has many.
const MISTAKES_KEPT_MAX: usize = 1_000;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// The file.
    File,
    /// This variable.
    Environment(String),
}

impl Origin {
    /// `default`, `file` or `env`.
    pub fn name(&self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment(_) => "env",
        }
    }
}

/// The value of a key as it was given.
#[derive(Debug, Clone)]
pub(super) struct Given<'t> {
    pub value: Spanned<DeValue<'t>>,
    pub origin: Origin,
}

/// What stands in a file.
#[derive(Debug)]
pub(super) struct Document<'t> {
    /// Where its lines are.
    pub lines: Lines<'t>,
    /// Values by the path of their key.
    pub given: BTreeMap<&'static str, Given<'t>>,
    /// Where each section begins that is there.
    pub sections: BTreeMap<&'static str, Place>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
    /// How many mistakes more there were than were kept.
    pub untold: usize,
    /// Lines on which the text is not TOML. What was read of them may be anything.
    pub broken_lines: BTreeSet<usize>,
    /// Paths of keys that a misspelt name was probably meant to be.
    pub meant: BTreeSet<&'static str>,
}

impl<'t> Document<'t> {
    /// Read `text`, of which the `broken` lines were taken out, as far as it is TOML.
    pub fn read(text: &'t str, broken: Vec<Broken>) -> Document<'t> {
        let mut document = Document {
            lines: Lines::of(text),
            given: BTreeMap::new(),
            sections: BTreeMap::new(),
            problems: Vec::new(),
            untold: 0,
            broken_lines: BTreeSet::new(),
            meant: BTreeSet::new(),
        };
        for Broken { place, message } in broken {
            document.broken(place, &message);
        }
        let (table, _) = DeTable::parse_recoverable(text);
        for (name, value) in table.into_inner() {
            document.section(&name, value);
        }
        document
    }

    /// Where a part of the value of a key stands.
    pub fn place(&self, origin: &Origin, span: &Range<usize>) -> Place {
        match origin {
            Origin::File => self.lines.place(span.start),
            Origin::Environment(name) => Place::Environment(name.clone()),
            Origin::Default => Place::File,
        }
    }

    /// Keep a mistake, as long as there are not too many to read.
    fn complain(&mut self, problem: Problem) {
        match self.problems.len() < MISTAKES_KEPT_MAX {
            true => self.problems.push(problem),
            false => self.untold += 1,
        }
    }

    fn broken(&mut self, place: Place, message: &str) {
        if let Place::Line { line, .. } = &place {
            self.broken_lines.insert(*line);
        }
        let is_bare = ["quoted", "invalid float", "invalid boolean"];
        let mend = match message {
            _ if broken::is_of_list(message) => {
                "close the list that begins above, or put a comma between its entries"
            }
            _ if message.contains("duplicate") => "keep one of the two",
            _ if is_bare.iter().any(|words| message.contains(words)) => {
                "put a text in quotes; numbers, true and false go without"
            }
            _ => "correct this line",
        };
        self.complain(Problem {
            place,
            key: NOT_TOML.into(),
            got: message.to_owned(),
            expected: "a line like name = \"text\", name = 5 or [section]".into(),
            mend: mend.into(),
        });
    }

    fn section(&mut self, name: &Spanned<std::borrow::Cow<'t, str>>, value: Spanned<DeValue<'t>>) {
        let place = self.lines.place(name.span().start);
        let Some(section) = SECTIONS.iter().copied().find(|section| *section == name.get_ref())
        else {
            self.unknown_section(name.get_ref(), place, value.get_ref().is_table());
            return;
        };
        let DeValue::Table(table) = value.into_inner() else {
            self.complain(Problem {
                place,
                key: section.into(),
                got: "something else than a section".into(),
                expected: format!("[{section}] on a line of its own, and its keys below"),
                mend: format!("write [{section}]"),
            });
            return;
        };
        self.sections.insert(section, place);
        for (name, value) in table {
            let is_it = |key: &&Key| key.section() == section && key.name() == name.get_ref();
            match KEYS.iter().find(is_it) {
                Some(key) => {
                    self.given.insert(key.path, Given { value, origin: Origin::File });
                }
                None => {
                    let place = self.lines.place(name.span().start);
                    self.unknown_key(section, name.get_ref(), place);
                }
            }
        }
    }

    fn unknown_section(&mut self, name: &str, place: Place, is_table: bool) {
        let all = || SECTIONS.map(|section| format!("[{section}]")).join(", ");
        let home = KEYS.iter().filter(|key| key.name() == name).map(Key::section);
        let homes: Vec<String> = home.map(|section| format!("[{section}]")).collect();
        let (got, mend) = match (nearest(name, SECTIONS), homes.is_empty()) {
            (Some(section), _) if is_table => (
                format!("the section [{name}], which does not exist"),
                format!("write [{section}]"),
            ),
            (_, true) => (
                format!("{name}, which is neither a section nor a key"),
                "remove it; config/gateway.toml has every key".to_owned(),
            ),
            (_, false) => (
                format!("the key {name} outside its section"),
                format!("move it below {}", homes.join(" or ")),
            ),
        };
        let expected = format!("one of the sections {}", all());
        self.complain(Problem { place, key: name.into(), got, expected, mend });
    }

    fn unknown_key(&mut self, section: &'static str, name: &str, place: Place) {
        let names = || KEYS.iter().filter(|key| key.section() == section).map(Key::name);
        let elsewhere = KEYS.iter().find(|key| key.name() == name).map(Key::section);
        let anywhere = KEYS.iter().map(|key| key.path);
        let mend = match (nearest(name, names()), elsewhere) {
            (Some(meant), _) => {
                let is_meant = |key: &&Key| key.section() == section && key.name() == meant;
                self.meant.extend(KEYS.iter().find(is_meant).map(|key| key.path));
                format!("write {meant}")
            }
            (None, Some(home)) => format!("move it below [{home}], where it belongs"),
            (None, None) => {
                let same_name = |path: &&str| nearest(name, [path.split('.').nth(1)?]).map(|_| ());
                match anywhere.into_iter().find(|path| same_name(path).is_some()) {
                    Some(path) => format!("write {path}"),
                    None => "remove it; config/gateway.toml has every key".to_owned(),
                }
            }
        };
        self.complain(Problem {
            place,
            key: format!("{section}.{name}"),
            got: "a key that does not exist".into(),
            expected: format!("a key of [{section}]: {}", names().collect::<Vec<_>>().join(", ")),
            mend,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mends(text: &str) -> Vec<String> {
        let document = Document::read(text, Vec::new());
        let line = |problem: &Problem| format!("{}: {}", problem.place.text("f"), problem.mend);
        document.problems.iter().map(line).collect()
    }

    #[test]
    fn what_is_no_key_is_a_mistake() {
        let check = |text: &str, expected: &str| {
            let mends = mends(text);
            assert_eq!(mends.len(), 1, "{mends:?}");
            assert_eq!(mends[0], expected, "{text}");
        };
        check("[gateway]\nlisen_addr = 1", "f:2:1: write listen_addr");
        check("[gateway]\npin = 1", "f:2:1: move it below [cores], where it belongs");
        check("[gatway]\nmode = 1", "f:1:2: write [gateway]");
        check("shards = [1]", "f:1:1: move it below [cores]");
        check("mode = 1", "f:1:1: move it below [gateway] or [auth]");
        check("share = 1", "f:1:1: write [share]");
        check("[[auth]]\nmode = 1", "f:1:3: write [auth]");
        let rest = "remove it; config/gateway.toml has every key";
        check("[colours]\nred = 1", &format!("f:1:2: {rest}"));
        check("[cores]\nred = 1", &format!("f:2:1: {rest}"));
    }
}
