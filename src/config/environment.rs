//! The environment: overrides of keys, files with secrets, and the escape hatches.
//!
//! ```text
//! VELDRA_<SECTION>__<KEY>        a value as in the file; a text may do without quotes
//! VELDRA_<SECTION>__<KEY>_FILE   the path of a file that holds it; for secrets
//! VELDRA_ALLOW_…                 a hatch; 1 and nothing else
//! ```

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::document::{Given, Origin};
use super::hatch::{Hatch, Hatches};
use super::problem::{Place, Problem};
use super::schema::{FILE_SUFFIX, KEYS, Key, PREFIX, nearest};
use super::secret_file::{SecretFiles, Trouble};

/// What systemd calls the folder of the secrets that it hands over.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A value that the environment gives.
#[derive(Debug)]
pub(super) struct Override {
    pub key: Key,
    pub variable: String,
    pub text: Zeroizing<String>,
}

impl Override {
    /// As a value: what is not TOML is a text, and so is whatever is given for a key that takes
    /// texts.
    pub fn given(&self) -> Given<'_> {
        let text = self.text.as_str();
        let is_text_key = self.key.sample.starts_with('"');
        let fits = |value: &DeValue| !is_text_key || value.is_str() || value.is_array();
        let bare = || Spanned::new(0..text.len(), DeValue::String(text.into()));
        let value = DeValue::parse(text.trim()).ok().filter(|value| fits(value.get_ref()));
        Given {
            value: value.unwrap_or_else(bare),
            origin: Origin::Environment(self.variable.clone()),
        }
    }
}

/// What the environment says about us.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub overrides: Vec<Override>,
    pub hatches: Hatches,
    pub files: SecretFiles,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Environment {
    /// Read what begins with our prefix.
    pub fn read(variables: &[(OsString, OsString)]) -> Environment {
        let mut ours: Vec<(&str, &OsStr)> = variables
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        ours.sort_unstable();
        let mut environment = Environment::default();
        let credentials = variables.iter().find(|(name, _)| name == CREDENTIALS_DIRECTORY);
        environment.files.credentials = credentials.map(|(_, path)| path.into());
        let is_hatch = |name: &str| Hatch::ALL.into_iter().find(|hatch| hatch.name() == name);
        for (name, value) in &ours {
            if let Some(hatch) = is_hatch(name) {
                environment.hatch(hatch, value);
            }
        }
        environment.files.may_be_open = environment.hatches.is_open(Hatch::InsecureHttp);
        let names: BTreeSet<&str> = ours.iter().map(|(name, _)| *name).collect();
        for (name, value) in ours.into_iter().filter(|(name, _)| is_hatch(name).is_none()) {
            environment.variable(name, value, &names);
        }
        environment
    }

    fn hatch(&mut self, hatch: Hatch, value: &OsStr) {
        if value == "1" {
            self.hatches.open(hatch);
            return;
        }
        self.problems.push(Problem {
            place: Place::Environment(hatch.name().into()),
            key: "escape hatch".into(),
            got: format!("{value:?}"),
            expected: "exactly 1, so that it is not opened by accident".into(),
            mend: format!("{}=1, or unset it", hatch.name()),
        });
    }

    fn variable(&mut self, name: &str, value: &OsStr, names: &BTreeSet<&str>) {
        if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
            match value.to_str() {
                Some(text) => self.overrides.push(Override {
                    key: *key,
                    variable: name.into(),
                    text: Zeroizing::new(text.to_owned()),
                }),
                None => self.wrong(
                    name,
                    key.path,
                    "bytes that are not UTF-8",
                    "a text",
                    "write it anew",
                ),
            }
            return;
        }
        let stem = name.strip_suffix(FILE_SUFFIX).unwrap_or_default();
        match KEYS.iter().find(|key| key.variable() == stem) {
            Some(key) if !key.is_secret => {
                let mend = format!("{stem}=VALUE");
                self.wrong(
                    name,
                    key.path,
                    "a file for a value that is no secret",
                    "the value",
                    &mend,
                );
            }
            Some(key) if names.contains(stem) => {
                let got = format!("both {stem} and {name}");
                self.wrong(name, key.path, &got, "one of them", "unset one");
            }
            Some(key) => self.file(*key, name, Path::new(value)),
            None => self.unknown(name),
        }
    }

    fn file(&mut self, key: Key, name: &str, path: &Path) {
        let problem = |trouble: Trouble| Problem {
            place: Place::Environment(name.into()),
            key: key.path.into(),
            got: trouble.got,
            expected: trouble.expected.into(),
            mend: trouble.mend,
        };
        match self.files.read(path) {
            Ok((text, warning)) => {
                self.warnings.extend(warning.map(problem));
                self.overrides.push(Override { key, variable: name.into(), text });
            }
            Err(trouble) => self.problems.push(problem(trouble)),
        }
    }

    fn unknown(&mut self, name: &str) {
        let files = KEYS.iter().filter(|key| key.is_secret);
        let files = files.map(|key| format!("{}{FILE_SUFFIX}", key.variable()));
        let hatches = Hatch::ALL.into_iter().map(|hatch| hatch.name().to_owned());
        let all = KEYS.iter().map(Key::variable).chain(files).chain(hatches);
        let mend = match nearest(name, all) {
            Some(meant) => format!("write {meant}"),
            None => "unset it".to_owned(),
        };
        let expected =
            "VELDRA_<SECTION>__<KEY>, with _FILE behind it for secrets, or a VELDRA_ALLOW_…";
        self.wrong(name, "environment", "a name that nobody reads", expected, &mend);
    }

    fn wrong(&mut self, name: &str, key: &str, got: &str, expected: &str, mend: &str) {
        self.problems.push(Problem {
            place: Place::Environment(name.into()),
            key: key.into(),
            got: got.into(),
            expected: expected.into(),
            mend: mend.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        let pairs = variables.iter().map(|(name, value)| (name.into(), value.into()));
        Environment::read(&pairs.collect::<Vec<_>>())
    }

    #[test]
    fn values_are_toml_or_bare_texts() {
        let check = |name: &str, text: &str, expected: &str| {
            let environment = read(&[(name, text)]);
            assert!(environment.problems.is_empty(), "{:?}", environment.problems);
            let value = format!("{:?}", environment.overrides[0].given().value.get_ref());
            assert!(value.contains(expected), "{text}: {value}");
        };
        check("VELDRA_GATEWAY__MODE", "inline", "String(\"inline\")");
        check("VELDRA_GATEWAY__MODE", "\"inline\"", "String(\"inline\")");
        check("VELDRA_GATEWAY__HTTP_API_KEY", "1234567890123456", "String(\"1234567890123456\")");
        check("VELDRA_GATEWAY__HTTP_API_KEY", "['a', 'b']", "Array(");
        check("VELDRA_TIMING__NONCE_EXPIRE_SECS", "90", "Integer(");
        check("VELDRA_CORES__SHARDS", "[0, 1]", "Array(");
        check("VELDRA_CORES__PIN", "true", "Boolean(true)");
        check("VELDRA_CORES__PIN", "yes", "String(\"yes\")");
        check("VELDRA_NOISE__PRIVKEY", "a = b", "String(\"a = b\")");
    }

    #[test]
    fn names_of_others_are_nobodys_business() {
        let environment = read(&[("PATH", "x"), ("VELDRA", "x"), ("MY_VELDRA_A", "x")]);
        assert!(environment.overrides.is_empty() && environment.problems.is_empty());
    }

    #[test]
    fn a_hatch_opens_at_one_only() {
        for hatch in Hatch::ALL {
            assert!(read(&[(hatch.name(), "1")]).hatches.iter().eq([hatch]));
            for value in ["", "0", "true", "yes", " 1", "11"] {
                let environment = read(&[(hatch.name(), value)]);
                assert_eq!(environment.problems.len(), 1, "{value:?}");
                assert!(!environment.hatches.is_open(hatch));
            }
        }
    }

    #[test]
    fn unknown_names_are_mistakes() {
        let check = |name: &str, expected: &str| {
            let environment = read(&[(name, "1")]);
            assert_eq!(environment.problems.len(), 1, "{name}");
            assert!(environment.problems[0].mend.contains(expected), "{environment:?}");
        };
        check("VELDRA_GATEWAY__MOED", "VELDRA_GATEWAY__MODE");
        check("VELDRA_GATEWAY_MODE", "VELDRA_GATEWAY__MODE");
        check("VELDRA_ALLOW_OPEN_AUTH", "VELDRA_ALLOW_OPEN_AUTH_INLINE");
        check("VELDRA_NOISE__PRIVKEY_FIEL", "VELDRA_NOISE__PRIVKEY_FILE");
        check("VELDRA_GATEWAY__MODE_FILE", "VELDRA_GATEWAY__MODE=VALUE");
        check("VELDRA_SOMETHING_ELSE_ALTOGETHER", "unset it");
    }
}
