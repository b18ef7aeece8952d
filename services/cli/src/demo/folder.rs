//! The one folder of a demo and the files in it.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::program::Program;

/// Bytes of a log that are looked at for its last lines.
const TAIL_BYTES_MAX: u64 = 16 * 1024;

/// Lines of a log that are shown when its program fails.
const TAIL_LINES_MAX: usize = 20;

/// The folder. A temporary one is removed by [`Folder::finish`] after a run that went well.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    temporary: bool,
}

/// What a service writes to `addresses.json` once it listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Addresses {
    /// Its own protocol, if it has one beside HTTP.
    pub listen_addr: Option<String>,
    /// HTTP.
    pub http_listen_addr: String,
    /// The gateway's authority key.
    pub authority_pubkey: Option<String>,
}

impl Folder {
    /// The named folder, which has to be new or empty, or a fresh temporary one.
    ///
    /// # Errors
    /// A sentence that names the folder.
    pub fn open(named: Option<&Path>) -> Result<Folder, String> {
        let Some(named) = named else {
            let made = tempfile::Builder::new().prefix("reservegrid-demo-").tempdir();
            let made = made.map_err(|error| {
                format!("cannot make a folder under {}: {error}", std::env::temp_dir().display())
            })?;
            // Kept on a crash, so that the logs survive; `finish` removes it.
            return Ok(Folder { path: made.keep(), temporary: true });
        };
        let about = |error: io::Error| format!("--folder {}: {error}", named.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(named).map_err(about)?;
        if fs::read_dir(named).map_err(about)?.next().is_some() {
            return Err(format!(
                "--folder {} is not empty; name a new folder, so that no run mixes with another",
                named.display()
            ));
        }
        let path = fs::canonicalize(named).map_err(about)?;
        Ok(Folder { path, temporary: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Data folder of `program`.
    pub fn data_dir(&self, program: Program) -> PathBuf {
        self.path.join(program.name())
    }

    /// Log of `program`.
    pub fn log(&self, program: Program) -> PathBuf {
        self.path.join(format!("{}.log", program.name()))
    }

    /// Writes a file that only the owner may read (some hold secrets) and gives its path.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.path.join(name);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// The addresses of `program`; `None` while it has not written them.
    pub fn addresses(&self, program: Program) -> Option<Addresses> {
        let text = fs::read(self.data_dir(program).join("addresses.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The last lines of the log of `program`.
    pub fn tail(&self, program: Program) -> String {
        let path = self.log(program);
        match read_tail(&path) {
            Ok(text) => {
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(TAIL_LINES_MAX)..].join("\n")
            }
            Err(error) => format!("{}: {error}", path.display()),
        }
    }

    /// Ends the use of the folder: a temporary one is removed if the run `went_well`. Gives its
    /// path if it is still there.
    pub fn finish(self, went_well: bool) -> Option<PathBuf> {
        if self.temporary && went_well && fs::remove_dir_all(&self.path).is_ok() {
            return None;
        }
        Some(self.path)
    }
}

fn read_tail(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_must_be_empty_and_is_kept() {
        let outer = tempfile::tempdir().unwrap();
        let named = outer.path().join("a/b");
        let folder = Folder::open(Some(&named)).unwrap();
        let file = folder.write("secret", "x").unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.finish(true).unwrap(), fs::canonicalize(&named).unwrap());
        assert!(file.exists());
        assert!(Folder::open(Some(&named)).unwrap_err().contains("is not empty"));
    }

    #[test]
    fn a_temporary_folder_goes_only_after_a_good_run() {
        let kept = Folder::open(None).unwrap().finish(false).unwrap();
        assert!(kept.exists());
        fs::remove_dir(&kept).unwrap();
        let folder = Folder::open(None).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(folder.finish(true), None);
        assert!(!path.exists());
    }

    #[test]
    fn the_tail_is_short_whatever_the_log_holds() {
        let folder = Folder::open(None).unwrap();
        assert!(folder.tail(Program::Gateway).contains("sv2-gateway.log"));
        let mut log = vec![0xff; 100_000];
        log.extend((0..100).flat_map(|n| format!("line {n}\n").into_bytes()));
        fs::write(folder.log(Program::Gateway), &log).unwrap();
        let tail = folder.tail(Program::Gateway);
        assert_eq!(tail.lines().next(), Some("line 80"));
        assert_eq!(tail.lines().count(), TAIL_LINES_MAX);
        folder.finish(true);
    }
}
