//! Files that hold a secret: small, and readable by their owner alone.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::hatch::Hatch;

/// Bytes that are read of a file with a secret; the longest is an allowlist.
const SECRET_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bits by which others than the owner could do something.
const OTHERS: u32 = 0o077;

/// The same for files that systemd hands over: there the bits of the group are an access list that
/// names the service's own user.
const OTHERS_OF_CREDENTIAL: u32 = 0o037;

/// Who may read files with secrets.
#[derive(Debug, Clone, Default)]
pub(super) struct SecretFiles {
    /// `CREDENTIALS_DIRECTORY`, as systemd sets it.
    pub credentials: Option<PathBuf>,
    /// Whether [`Hatch::InsecureHttp`] is open.
    pub may_be_open: bool,
}

/// What is wrong with such a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What was found.
    pub got: String,
    /// What was expected.
    pub expected: &'static str,
    /// The way out.
    pub mend: String,
}

impl SecretFiles {
    /// What is in the file, without the end of its last line; and what to warn of.
    ///
    /// # Errors
    /// It cannot be read, is too long, is not text, or others can read it.
    pub fn read(&self, path: &Path) -> Result<(Zeroizing<String>, Option<Trouble>), Trouble> {
        let shown = path.display();
        let trouble = |error: std::io::Error| Trouble {
            got: format!("{shown}: {error}"),
            expected: "a file with the secret that the gateway may read",
            mend: format!("create {shown} with mode 0600, or correct the path"),
        };
        let file = File::open(path).map_err(trouble)?;
        let mode = file.metadata().map_err(trouble)?.permissions().mode() & 0o777;
        let others = match &self.credentials {
            Some(folder) if path.starts_with(folder) => OTHERS_OF_CREDENTIAL,
            _ => OTHERS,
        };
        let exposed = (mode & others != 0).then(|| Trouble {
            got: format!("{shown} with mode {mode:04o}, so that others can read it"),
            expected: "a file that only its owner can read, mode 0600",
            mend: format!("chmod 600 {shown}"),
        });
        if let Some(mut trouble) = exposed.clone().filter(|_| !self.may_be_open) {
            let hatch = Hatch::InsecureHttp.name();
            trouble.mend = format!("{}, or set {hatch}=1 for a trial", trouble.mend);
            return Err(trouble);
        }
        let mut text = Zeroizing::new(String::new());
        file.take(SECRET_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(trouble)?;
        if text.len() as u64 > SECRET_FILE_BYTES_MAX {
            return Err(Trouble {
                got: format!("{shown} of more than {SECRET_FILE_BYTES_MAX} bytes"),
                expected: "a file with one secret",
                mend: "correct the path".into(),
            });
        }
        let length = text.trim_end_matches(['\n', '\r']).len();
        text.truncate(length);
        Ok((text, exposed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_not_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        let check = |mode: u32, files: &SecretFiles| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            files.read(&path).map(|(text, exposed)| {
                assert_eq!(*text, "hunter2");
                exposed.is_some()
            })
        };
        let strict = SecretFiles::default();
        assert_eq!(check(0o600, &strict), Ok(false));
        assert_eq!(check(0o400, &strict), Ok(false));
        for mode in [0o604, 0o640, 0o620] {
            let trouble = check(mode, &strict).unwrap_err();
            assert!(trouble.got.contains(&format!("{mode:04o}")), "{trouble:?}");
            assert!(trouble.mend.contains("chmod 600"), "{trouble:?}");
        }
        let hatch = SecretFiles { may_be_open: true, ..SecretFiles::default() };
        assert_eq!(check(0o644, &hatch), Ok(true));
        let systemd = SecretFiles { credentials: Some(folder.path().into()), may_be_open: false };
        assert_eq!(check(0o440, &systemd), Ok(false));
        assert!(check(0o444, &systemd).is_err());
        let missing = strict.read(&folder.path().join("none")).unwrap_err();
        assert!(missing.got.contains("none"), "{missing:?}");
    }
}
