//! `[auth]`: who may open channels, and under which names.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::auth::{AllowlistEntry, Auth, PrefixEntry};
use super::hatch::Hatch;
use super::problem::{Place, Problem};
use super::reader::{Found, Reader, shown};
use super::schema::{
    ALLOWLIST, AUTH_MODE, Key, MAX_WORKER_ID_BYTES, MAX_WORKERS_PER_CHANNEL, PREFIX_MAP, nearest,
};
use super::secret::Secret;
use crate::limits::USER_IDENTITY_BYTES_MAX;
use crate::mode::Mode;

/// Entries of a list at most: beyond it names belong into a prefix map.
const ENTRIES_MAX: usize = 65_536;

/// Bytes of a worker's name in the TLV of extension 0x0002.
const WORKER_TLV_BYTES_MAX: usize = 32;

/// The values; `None` where one is wrong or lacking.
pub(super) struct Credentials {
    pub auth: Option<Auth>,
    pub max_worker_id_bytes: Option<usize>,
    pub max_workers_per_channel: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthMode {
    Allowlist,
    PrefixMap,
    Open,
}

/// What the two lists have in common: a name, a secret, and what they are called.
struct List {
    key: Key,
    name: &'static str,
    secret: &'static str,
}

const ALLOWLIST_LIST: List = List { key: ALLOWLIST, name: "username", secret: "password" };
const PREFIX_LIST: List = List { key: PREFIX_MAP, name: "prefix", secret: "secret" };

/// An entry of either list, with its place.
struct Entry {
    name: String,
    secret: Secret,
    place: Place,
}

/// Read the section. `listens_anywhere`: whether strangers can reach the port of the miners.
pub(super) fn read(reader: &mut Reader, mode: Option<Mode>, listens_anywhere: bool) -> Credentials {
    let modes = [
        ("allowlist", AuthMode::Allowlist),
        ("prefix_map", AuthMode::PrefixMap),
        ("open", AuthMode::Open),
    ];
    let chosen = reader.choice(AUTH_MODE, &modes);
    if let Some((AuthMode::Open, found)) = &chosen {
        open(reader, found, mode, listens_anywhere);
    }
    let auth_mode = chosen.map(|(mode, _)| mode);
    let allowlist = entries(reader, &ALLOWLIST_LIST, auth_mode == Some(AuthMode::Allowlist));
    let prefixes = entries(reader, &PREFIX_LIST, auth_mode == Some(AuthMode::PrefixMap));
    warn_of_overlaps(reader, prefixes.as_deref().unwrap_or_default());
    let auth = match auth_mode {
        Some(AuthMode::Open) => Some(Auth::Open),
        Some(AuthMode::Allowlist) => allowlist.map(|entries| {
            let entry =
                |Entry { name, secret, .. }| AllowlistEntry { username: name, password: secret };
            Auth::Allowlist(entries.into_iter().map(entry).collect())
        }),
        Some(AuthMode::PrefixMap) => prefixes.map(|entries| {
            let entry = |Entry { name, secret, .. }| PrefixEntry { prefix: name, secret };
            Auth::PrefixMap(entries.into_iter().map(entry).collect())
        }),
        None => None,
    };
    Credentials {
        auth,
        max_worker_id_bytes: max_worker_id_bytes(reader),
        max_workers_per_channel: reader.size(MAX_WORKERS_PER_CHANNEL, 1..=1_000_000),
    }
}

fn open(reader: &mut Reader, found: &Found, mode: Option<Mode>, listens_anywhere: bool) {
    if mode == Some(Mode::Inline) && !reader.hatches.is_open(Hatch::OpenAuthInline) {
        let hatch = Hatch::OpenAuthInline.name();
        let mend = format!("{}, or set {hatch}=1 for a trial", found.assignment("\"allowlist\""));
        reader.refuse(found, "allowlist or prefix_map with mode inline", &mend);
    } else if mode != Some(Mode::Shadow) && listens_anywhere {
        reader.warn(
            found,
            "\"open\" on an address that others can reach",
            "names with passwords: anybody can mine under any name",
            &found.assignment("\"allowlist\""),
        );
    }
}

/// The entries of a list. It may be empty if another one counts.
fn entries(reader: &mut Reader, list: &List, counts: bool) -> Option<Vec<Entry>> {
    let found = match counts {
        true => reader.take(list.key)?,
        false => reader.take_or(list.key, "[]")?,
    };
    let sample = format!("[{{ {} = \"…\", {} = \"…\" }}]", list.name, list.secret);
    let tables = match found.value.get_ref() {
        DeValue::Array(tables) if tables.len() <= ENTRIES_MAX => tables,
        _ => {
            let expected = format!("a list of at most {ENTRIES_MAX} tables, {sample}");
            reader.refuse(&found, &expected, &found.assignment(&sample));
            return None;
        }
    };
    if counts && tables.is_empty() {
        let expected = format!("at least one entry, because auth.mode is {}", list.key.name());
        reader.refuse(&found, &expected, &found.assignment(&sample));
        return None;
    }
    if !counts && !tables.is_empty() {
        reader.notes.push(format!("{}: not used, because auth.mode is another", list.key.path));
    }
    let mut seen: BTreeMap<String, Place> = BTreeMap::new();
    let mut entries = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        let place = reader.part(&found, &table.span());
        let Some(entry) = entry(reader, list, &found, number, table.get_ref(), place) else {
            continue;
        };
        if let Some(first) = seen.insert(entry.name.clone(), entry.place.clone()) {
            let Entry { name, place, .. } = entry;
            let first = match first {
                Place::Line { line, .. } => format!("line {line}"),
                _ => "another entry".into(),
            };
            let got = format!("{name:?}, which {first} has, too");
            let expected = format!("each {} once", list.name);
            let problem = problem(list, number, list.name, place, got, &expected);
            reader.errors.push(Problem { mend: "remove one of them".into(), ..problem });
            continue;
        }
        entries.push(entry);
    }
    (entries.len() == tables.len()).then_some(entries)
}

fn problem(
    list: &List,
    number: usize,
    field: &str,
    place: Place,
    got: String,
    expected: &str,
) -> Problem {
    let key = format!("{}[{number}].{field}", list.key.path);
    let mend = format!("{{ {} = \"…\", {} = \"…\" }}", list.name, list.secret);
    Problem { place, key, got, expected: expected.into(), mend }
}

fn entry(
    reader: &mut Reader,
    list: &List,
    found: &Found,
    number: usize,
    value: &DeValue,
    place: Place,
) -> Option<Entry> {
    let form = format!("a table with {} and {}", list.name, list.secret);
    let DeValue::Table(table) = value else {
        let got = shown(value, true);
        let mut problem = problem(list, number, "", place, got, &form);
        problem.key.truncate(problem.key.len() - 1);
        reader.errors.push(problem);
        return None;
    };
    for (name, _) in table {
        let text = name.get_ref().as_ref();
        if text != list.name && text != list.secret {
            let place = reader.part(found, &name.span());
            let got = "a field that does not exist".into();
            let mut problem = problem(list, number, text, place, got, &form);
            if let Some(meant) = nearest(text, [list.name, list.secret]) {
                problem.mend = format!("write {meant}");
            }
            reader.errors.push(problem);
            return None;
        }
    }
    let name = field(reader, list, found, number, table, list.name, &place)?;
    let secret = field(reader, list, found, number, table, list.secret, &place)?;
    let trouble = trouble(list, &name, &secret);
    if let Some((field, got, expected)) = trouble {
        reader.errors.push(problem(list, number, field, place, got, expected));
        return None;
    }
    Some(Entry { name, secret: Secret::new(secret), place })
}

/// What keeps a miner from ever sending `name:secret`, or us from checking it.
fn trouble(list: &List, name: &str, secret: &str) -> Option<(&'static str, String, &'static str)> {
    let bytes = name.len() + 1 + secret.len();
    if name.is_empty() || name.chars().any(char::is_control) {
        let expected = "one printable character or more";
        return Some((list.name, format!("{name:?}"), expected));
    }
    if secret.starts_with("$argon2") {
        let expected = "the secret in clear: hashed ones are not in this version yet";
        return Some((list.secret, "an argon2 hash".into(), expected));
    }
    if secret.is_empty() || secret.contains(':') {
        let got = if secret.is_empty() { "an empty text" } else { "a text with a colon" };
        let expected = "one character or more, none of them a colon: it is what stands behind the \
                        last colon of a miner's name";
        return Some((list.secret, got.into(), expected));
    }
    if bytes > USER_IDENTITY_BYTES_MAX {
        let expected = "at most 255 bytes with the colon between: Stratum V2 carries no more";
        return Some((list.secret, format!("{bytes} bytes of name and secret"), expected));
    }
    None
}

fn field(
    reader: &mut Reader,
    list: &List,
    found: &Found,
    number: usize,
    table: &DeTable,
    field: &str,
    place: &Place,
) -> Option<String> {
    let (place, got) = match table.get(field) {
        Some(value) => match value.get_ref() {
            DeValue::String(text) => return Some(text.clone().into_owned()),
            other => (reader.part(found, &value.span()), shown(other, true)),
        },
        None => (place.clone(), "nothing".to_owned()),
    };
    reader.errors.push(problem(list, number, field, place, got, "a text in quotes"));
    None
}

/// The longest prefix counts, which may surprise whoever wrote the shorter one.
fn warn_of_overlaps(reader: &mut Reader, entries: &[Entry]) {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    for (shorter, longer) in sorted.iter().zip(sorted.iter().skip(1)) {
        if longer.name.starts_with(&shorter.name) {
            reader.warnings.push(Problem {
                place: longer.place.clone(),
                key: PREFIX_MAP.path.into(),
                got: format!("{:?}, which begins with {:?}", longer.name, shorter.name),
                expected: "prefixes of which none begins with another".into(),
                mend: "nothing, if names with both shall have the longer one's secret".into(),
            });
        }
    }
}

/// What Stratum V2 can carry bounds what is configured (T3).
fn max_worker_id_bytes(reader: &mut Reader) -> Option<usize> {
    let configured = reader.size(MAX_WORKER_ID_BYTES, 1..=65_535)?;
    let effective = configured.min(USER_IDENTITY_BYTES_MAX);
    if configured > WORKER_TLV_BYTES_MAX {
        reader.notes.push(format!(
            "auth.max_worker_id_bytes = {configured}: {effective} bytes of a user_identity and \
             {WORKER_TLV_BYTES_MAX} of a worker's name in extension 0x0002 are what counts; \
             Stratum V2 carries no more"
        ));
    }
    Some(effective)
}
