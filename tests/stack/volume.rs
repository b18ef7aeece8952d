//! A small file system of a test's own: one that fills up, and one that hangs.
//!
//! Both take the rights of root, and a kernel that lets it mount; without them a test is skipped,
//! and says so. Where `CI` is set, anything else that keeps a file system away fails.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The mounted file system. It is taken away when dropped; what uses it has to be gone by then.
pub struct Volume {
    folder: tempfile::TempDir,
    is_frozen: bool,
}

/// Bytes of a mebibyte.
const MEBIBYTE: u64 = 1 << 20;

/// Bytes that are written at once to fill it.
const PIECE: usize = 1 << 20;

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{program}: {errors}"))
}

/// What `mount` and `mkfs` say where no rights can be had, as in most containers.
const WITHOUT_RIGHTS: [&str; 5] =
    ["permission denied", "not permitted", "superuser", "loop device", "unknown filesystem"];

fn ready(mounted: Result<Volume, String>) -> Option<Volume> {
    match mounted {
        Ok(volume) => Some(volume),
        Err(why) => {
            let is_forbidden = WITHOUT_RIGHTS.iter().any(|words| why.contains(words));
            let may_skip = is_forbidden || std::env::var_os("CI").is_none();
            assert!(may_skip, "no file system can be mounted: {why}");
            eprintln!("SKIPPED: no file system can be mounted here, which takes root: {why}");
            None
        }
    }
}

impl Volume {
    /// One in memory of that many mebibytes; `None`, said aloud, if nothing can be mounted.
    pub fn in_memory(mebibytes: u64) -> Option<Volume> {
        let volume = Volume { folder: tempfile::tempdir().unwrap(), is_frozen: false };
        std::fs::create_dir(volume.path()).unwrap();
        let size = format!("size={mebibytes}m");
        let path = volume.path().display().to_string();
        ready(run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &path]).map(|()| volume))
    }

    /// One in a file of that many mebibytes; `None`, said aloud, if nothing can be mounted.
    pub fn in_file(mebibytes: u64) -> Option<Volume> {
        let volume = Volume { folder: tempfile::tempdir().unwrap(), is_frozen: false };
        std::fs::create_dir(volume.path()).unwrap();
        let image = volume.folder.path().join("image");
        File::create(&image).unwrap().set_len(mebibytes * MEBIBYTE).unwrap();
        let (image, path) = (image.display().to_string(), volume.path().display().to_string());
        let made = run("mkfs.ext4", &["-q", "-F", &image]);
        ready(made.and_then(|()| run("mount", &["-o", "loop", &image, &path])).map(|()| volume))
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    /// Let `data_dir` be on it.
    pub fn hold(&self, data_dir: &Path) {
        let on_it = self.path().join("data");
        std::fs::create_dir(&on_it).unwrap();
        std::os::unix::fs::symlink(on_it, data_dir).unwrap();
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let space = rustix::fs::statvfs(self.path()).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// Write to it until no more than that many mebibytes are free.
    pub fn fill(&self, leave_mebibytes: u64) {
        let path = self.path().join("filling");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        let piece = vec![0; PIECE];
        while self.free() > leave_mebibytes * MEBIBYTE {
            if file.write_all(&piece).is_err() {
                return;
            }
        }
    }

    /// Take away what [`Volume::fill`] has written.
    pub fn empty(&self) {
        std::fs::remove_file(self.path().join("filling")).unwrap();
    }

    /// From now on nothing that is written comes back, and no sync: the disk hangs. Reads go on.
    pub fn freeze(&mut self) {
        run("fsfreeze", &["-f", &self.path().display().to_string()]).unwrap();
        self.is_frozen = true;
    }

    /// The disk goes on where it was.
    pub fn thaw(&mut self) {
        self.is_frozen = false;
        run("fsfreeze", &["-u", &self.path().display().to_string()]).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let path = self.path().display().to_string();
        if self.is_frozen {
            let _ = run("fsfreeze", &["-u", &path]);
        }
        // One that was never mounted cannot be taken away, which is as good.
        if run("umount", &[&path]).is_err() {
            let _ = run("umount", &["--lazy", &path]);
        }
    }
}
