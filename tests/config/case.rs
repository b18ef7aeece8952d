//! A case: a configuration as what differs from `base.toml`, and what is said about it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gateway::config::problem::Refusal;
use gateway::config::surroundings::Surroundings;
use gateway::config::{Checked, read_text};

/// Parts the case from what is said.
const RULE: &str = "=====\n";

/// Descriptors that a case's process may have.
const DESCRIPTORS: u64 = 20_000;

pub struct Case {
    path: PathBuf,
    input: String,
    expected: String,
}

/// All cases of a folder, by name.
pub fn cases(folder: &str) -> Vec<Case> {
    let folder = golden().join(folder);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let case = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let (input, expected) = text.split_once(RULE).unwrap_or((&text, ""));
        Case { input: input.to_owned(), expected: expected.to_owned(), path }
    };
    paths.into_iter().map(case).collect()
}

/// Where the examples are.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

/// The configuration that cases start from.
pub fn base() -> String {
    fs::read_to_string(golden().join("base.toml")).unwrap()
}

/// An environment of these variables alone.
pub fn surroundings(variables: &[(OsString, OsString)]) -> Surroundings {
    Surroundings {
        environment: variables.to_vec(),
        descriptors_max: DESCRIPTORS,
        random: Some([7; 32]),
    }
}

impl Case {
    /// One that is not in a file.
    pub fn of(input: &str) -> Case {
        Case { path: PathBuf::new(), input: format!("{input}\n"), expected: String::new() }
    }

    /// A file that holds only what is said.
    pub fn whole(path: &Path) -> Case {
        let text = fs::read_to_string(path).unwrap_or_default();
        let expected = text.strip_prefix(RULE).unwrap_or_default().to_owned();
        Case { path: path.to_owned(), input: String::new(), expected }
    }

    /// Read it as the gateway does, in a folder of its own.
    pub fn read(&self) -> Result<Checked, Refusal> {
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().display().to_string();
        let (text, variables) = self.input(folder.path());
        read_text("gateway.toml", &text, folder.path(), &surroundings(&variables)).map_err(
            |mut refusal| {
                for error in &mut refusal.errors {
                    for part in [&mut error.got, &mut error.expected, &mut error.mend] {
                        *part = part.replace(&shown, "FOLDER");
                    }
                }
                refusal
            },
        )
    }

    /// The file and the environment that the case describes; its other files are written.
    pub fn input(&self, folder: &Path) -> (String, Vec<(OsString, OsString)>) {
        let (mut lines, mut end): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut variables = Vec::new();
        let mut base: Vec<String> = base().lines().map(str::to_owned).collect();
        let mut at = None;
        for line in self.input.lines().filter(|line| !line.is_empty()) {
            let line = line.replace("FOLDER", &folder.display().to_string());
            if let Some(old) = line.strip_prefix('-') {
                let found = base.iter().position(|line| line == old);
                let found = found.unwrap_or_else(|| panic!("{old:?} is not in base.toml"));
                base.remove(found);
                at = Some(found);
            } else if let Some(new) = line.strip_prefix('+') {
                match &mut at {
                    Some(at) => {
                        base.insert(*at, new.to_owned());
                        *at += 1;
                    }
                    None => end.push(new.to_owned()),
                }
            } else if let Some(whole) = line.strip_prefix('|') {
                lines.push(whole.to_owned());
            } else if let Some(variable) = line.strip_prefix("env ") {
                let (name, value) = variable.split_once('=').unwrap();
                variables.push((name.into(), value.into()));
            } else if let Some(file) = line.strip_prefix("file ") {
                let mut words = file.splitn(3, ' ');
                let path = folder.join(words.next().unwrap());
                let mode = u32::from_str_radix(words.next().unwrap(), 8).unwrap();
                fs::write(&path, format!("{}\n", words.next().unwrap())).unwrap();
                fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            } else {
                panic!("{line:?} is no line of a case");
            }
        }
        if lines.is_empty() {
            lines = base;
        }
        lines.append(&mut end);
        (lines.join("\n") + "\n", variables)
    }

    /// Its file.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// How `said` differs from what was expected, if it does; or write it down.
    pub fn compare(&self, said: &str) -> Option<String> {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&self.path, format!("{}{RULE}{said}", self.input)).unwrap();
            return None;
        }
        let name = self.path.display();
        (said != self.expected)
            .then(|| format!("{name}\n--- expected\n{}--- said\n{said}", self.expected))
    }
}
