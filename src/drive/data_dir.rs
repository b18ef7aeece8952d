//! The one folder the gateway writes to: a lock, the epoch, its addresses, blocks on their way, the
//! journal.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use work::BlockHash;
use work::contract::feed::NodeAccess;

/// Blocks read back at a start; more than this would mean that nodes were unreachable for weeks.
const STORED_BLOCKS_MAX: usize = 256;

/// Where the list of nodes is kept.
const NODES_FILE: &str = "nodes.json";

/// The folder, held by this process alone.
pub struct DataDir {
    path: PathBuf,
    /// Keeps the lock.
    _lock: File,
}

fn explain(what: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", what.display())
}

impl DataDir {
    /// Take the folder; it is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made, or another process holds it (D47).
    pub fn take(path: &Path) -> Result<DataDir, String> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| explain(path, &error))?;
        let file = path.join("lock");
        let lock = open(&file, false).map_err(|error| explain(&file, &error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            format!("{}: another gateway works in this folder; stop it first", path.display())
        })?;
        let blocks = path.join("blocks");
        fs::create_dir_all(&blocks).map_err(|error| explain(&blocks, &error))?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// The number of this start: one more than the last one's, on disk before this returns (D23).
    /// `journaled` is the last one that the journal knows of, which is later than the file's only
    /// if the file was lost or an old one was put back.
    ///
    /// # Errors
    /// It cannot be read or written, or all 65 535 numbers are used.
    pub fn next_epoch(&self, journaled: u16) -> Result<u16, String> {
        let path = self.path.join("epoch");
        let last = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse::<u16>().map_err(|_| {
                format!("{}: expected a number from 0 to 65535, got {text:?}", path.display())
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(explain(&path, &error)),
        };
        let epoch = last.max(journaled).checked_add(1).ok_or_else(|| {
            format!(
                "{}: all epochs of this instance are used; give the gateway a new \
                 mining.instance_id and remove this file",
                path.display()
            )
        })?;
        self.replace("epoch", epoch.to_string().as_bytes())?;
        Ok(epoch)
    }

    /// Replace the file `name` by `content`, durably and at once.
    ///
    /// # Errors
    /// The disk's.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), String> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = open(&temporary, true)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(path.parent().unwrap_or(&self.path))?.sync_all()
        };
        write().map_err(|error| explain(&path, &error))
    }

    /// Keep a block until a node has it.
    ///
    /// # Errors
    /// The disk's.
    pub fn store_block(&self, hash: &BlockHash, bytes: &[u8]) -> Result<(), String> {
        self.replace(&format!("blocks/{hash}.block"), bytes)
    }

    /// A block needs no further attempt. One that no node took is kept under another name.
    ///
    /// # Errors
    /// The disk's.
    pub fn settle_block(&self, hash: &BlockHash, accepted: bool) -> Result<(), String> {
        let path = self.path.join(format!("blocks/{hash}.block"));
        let done = if accepted {
            fs::remove_file(&path)
        } else {
            fs::rename(&path, path.with_extension("refused"))
        };
        done.map_err(|error| explain(&path, &error))
    }

    /// The folder of the journal; it is made if it is not there.
    ///
    /// # Errors
    /// The disk's.
    pub fn journal(&self) -> Result<PathBuf, String> {
        let path = self.path.join("journal");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| explain(&path, &error))?;
        Ok(path)
    }

    /// Keep the list of nodes; it may hold credentials, and so the file is ours alone.
    ///
    /// # Errors
    /// The disk's.
    pub fn store_nodes(&self, nodes: &[NodeAccess]) -> Result<(), String> {
        let text = serde_json::to_vec(nodes).map_err(|error| error.to_string())?;
        self.replace(NODES_FILE, &text)
    }

    /// The list of nodes of the last start; none if there was none or it cannot be read.
    pub fn stored_nodes(&self) -> Vec<NodeAccess> {
        let text = fs::read(self.path.join(NODES_FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Blocks that were not settled when the last process ended.
    ///
    /// # Errors
    /// The disk's.
    pub fn stored_blocks(&self) -> Result<Vec<(BlockHash, Vec<u8>)>, String> {
        let folder = self.path.join("blocks");
        let entries = fs::read_dir(&folder).map_err(|error| explain(&folder, &error))?;
        let mut blocks = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| explain(&folder, &error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(hash) = name.strip_suffix(".block").and_then(|hash| hash.parse().ok()) else {
                continue;
            };
            if blocks.len() == STORED_BLOCKS_MAX {
                break;
            }
            blocks.push((hash, fs::read(&path).map_err(|error| explain(&path, &error))?));
        }
        Ok(blocks)
    }
}

fn open(path: &Path, truncate: bool) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(truncate).write(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_and_epochs_rise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let first = DataDir::take(&path).unwrap();
        assert!(DataDir::take(&path).is_err());
        assert_eq!((first.next_epoch(0), first.next_epoch(1)), (Ok(1), Ok(2)));
        drop(first);
        let second = DataDir::take(&path).unwrap();
        assert_eq!(second.next_epoch(2), Ok(3));
        fs::remove_file(path.join("epoch")).unwrap();
        assert_eq!(second.next_epoch(3), Ok(4), "the journal remembers it, too");
        fs::write(path.join("epoch"), "many").unwrap();
        assert!(second.next_epoch(4).unwrap_err().contains("expected a number"));
        fs::write(path.join("epoch"), "65535").unwrap();
        assert!(second.next_epoch(4).unwrap_err().contains("instance_id"));
    }

    #[test]
    fn blocks_come_back_until_settled() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::take(folder.path()).unwrap();
        let (kept, refused) = (BlockHash([1; 32]), BlockHash([2; 32]));
        data.store_block(&kept, b"block").unwrap();
        data.store_block(&refused, b"other").unwrap();
        data.settle_block(&refused, false).unwrap();
        assert_eq!(data.stored_blocks().unwrap(), [(kept, b"block".to_vec())]);
        data.settle_block(&kept, true).unwrap();
        assert!(data.stored_blocks().unwrap().is_empty());
    }
}
