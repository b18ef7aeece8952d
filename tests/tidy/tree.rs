//! The files of the project: everything that is kept, without what is built.

use std::fs;
use std::path::Path;

/// Folders that hold what programs made, or nothing of ours.
const NOT_OURS: [&str; 5] = ["target", ".git", "corpus", "artifacts", "node_modules"];

/// Ends of the names of text files.
const TEXT: [&str; 12] = [
    ".rs", ".md", ".toml", ".txt", ".sh", ".yml", ".yaml", ".json", ".lock", ".service",
    "Makefile", "run",
];

/// A file of the project.
pub struct File {
    /// Its path from the root, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl File {
    /// A file that exists only in a test.
    pub fn planted(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    /// Whether it lies in this folder, given with a `/` at its end.
    pub fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// Whether all of it is only there to test or to measure.
    pub fn is_test(&self) -> bool {
        let folders = ["tests/", "benches/", "fuzz/", "examples/"];
        folders.iter().any(|f| self.is_in(f) || self.path.contains(&format!("/{f}")))
    }
}

/// Every text file.
pub fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(root, root, &mut files);
    assert!(files.len() > 100, "the project was not found: {} files", files.len());
    files
}

/// Every file with Rust in it.
pub fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// What this file holds.
pub fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(full).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a rule over files and fails with all its complaints.
pub fn check(files: &[File], rule: impl Fn(&File) -> Vec<String>) {
    let complaints: Vec<String> = files.iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !NOT_OURS.contains(&name.as_str()) {
                collect(root, &path, files);
            }
        } else if TEXT.iter().any(|end| name.ends_with(end)) {
            let short = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            files.push(File { path: short, text: fs::read_to_string(&path).unwrap() });
        }
    }
}
