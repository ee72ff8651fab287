//! Data directories as files: backups of them, and everything that is done to one that no daemon
//! uses. What a backup is, is told by its manifest.
//!
//! Invariant: a directory with a manifest and without the marker of one in the making is a whole
//! backup. The same goes for what a restore makes.

pub mod backup;
mod making;
mod manifest;
pub mod restore;
pub mod verify;

pub use crate::broker::{BROKER_FILE, LOG_DIR};
pub use making::{UNFINISHED_FILE, Unfinished, check_finished};
pub use manifest::{CopiedPartition, Manifest, ManifestError, StorePosition};

use crate::disk::{if_there, sync_name};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The store's file in a data directory or a backup.
pub const TASKS_FILE: &str = "tasks.redb";
/// The file in [`LOG_DIR`] that tells the format of the log's files.
pub const LOG_FORMAT_FILE: &str = "format";
/// The format of the log's files that this code writes.
pub const LOG_FORMAT: u32 = 1;

/// Why the format of a log's files is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogFormatError {
    /// Written by a newer taskwire.
    #[error(
        "log/ has format {found}, this taskwire knows up to {LOG_FORMAT}: it takes the newer \
         taskwire that wrote it"
    )]
    Newer {
        /// Format on disk.
        found: u32,
    },
    /// The file holds no number.
    #[error("log/format holds no number; for logs of this version it is {LOG_FORMAT}")]
    Damaged,
    /// The disk refused.
    #[error("cannot read or write log/format")]
    Io(#[from] io::Error),
}

/// Checks the format of the logs in a data directory. One without the file has format 1.
///
/// # Errors
/// See [`LogFormatError`].
pub fn check_log_format(data_dir: &Path) -> Result<(), LogFormatError> {
    match fs::read_to_string(data_dir.join(LOG_DIR).join(LOG_FORMAT_FILE)) {
        Ok(text) => match text.trim().parse() {
            Ok(found) if found > LOG_FORMAT => Err(LogFormatError::Newer { found }),
            Ok(_) => Ok(()),
            Err(_) => Err(LogFormatError::Damaged),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(LogFormatError::Damaged),
        Err(error) => Err(error.into()),
    }
}

/// As [`check_log_format`]; then tells the format, unless the file is there.
///
/// # Errors
/// See [`LogFormatError`].
pub fn tell_log_format(data_dir: &Path) -> Result<(), LogFormatError> {
    check_log_format(data_dir)?;
    let dir = data_dir.join(LOG_DIR);
    let (path, beside) = (dir.join(LOG_FORMAT_FILE), dir.join("format.tmp"));
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(&dir)?;
    fs::write(&beside, format!("{LOG_FORMAT}\n"))?;
    File::open(&beside)?.sync_all()?;
    fs::rename(&beside, &path)?;
    Ok(sync_name(&path)?)
}

/// Why a directory is not free to be worked on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// A daemon or another command has it.
    #[error("{} is in use by process {pid}; stop it first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that said so last.
        pid: String,
    },
    /// It is no directory of ours, or the disk refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not whole.
    #[error(transparent)]
    Unfinished(#[from] Unfinished),
}

/// A data directory or backup that no daemon uses as long as this lives.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "the lock lives as long as the file")] Option<File>);

impl Held {
    /// Holds an existing directory. One that no daemon ever used is not marked by this.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: dir.to_owned(), source };
        if !fs::metadata(dir).map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        check_finished(dir)?;
        let path = dir.join("lock");
        let lock = match File::options().read(true).write(true).open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(None)),
            Err(error) => return Err(failed(error)),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(Some(lock))),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                Err(LockError::InUse { path: dir.to_owned(), pid: pid.trim().to_owned() })
            }
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// A new directory that only its owner reads, in place of what a crash left under the name.
fn new_dir(path: &Path) -> io::Result<()> {
    if_there(fs::remove_dir_all(path))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether it is in a directory that we fill, and no part of what we make there: the marker, or
/// what the file system keeps on its own.
fn is_beside_us(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    name == UNFINISHED_FILE
        || (name == "lost+found" && entry.file_type().is_ok_and(|kind| kind.is_dir()))
}
