//! A data directory from a backup.

use super::{
    LogFormatError, Manifest, ManifestError, TASKS_FILE, check_log_format,
    making::{Making, expect_free},
    manifest::read_file,
};
use crate::store::{StoreError, redb};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The log's format.
    #[error(transparent)]
    LogFormat(#[from] LogFormatError),
    /// A file of the backup is not as it was written.
    #[error("{path} of the backup is damaged; nothing was restored")]
    DamagedFile {
        /// Below the backup.
        path: String,
    },
    /// A file of the backup cannot be read.
    #[error("cannot copy {path} of the backup")]
    File {
        /// Below the backup.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(
        "cannot restore into {} (it must be absent or empty, lost+found aside)",
        path.display()
    )]
    Target {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store.
    #[error("cannot open the restored tasks")]
    Store(#[from] StoreError),
}

/// Makes the data directory `data_dir`, which is absent, empty but for `lost+found`, or left so by
/// a restore that was cut short, from a backup. It begins a new epoch: clients are told to resync.
/// What exists under the name is whole, or marked as unfinished, or nothing.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(backup: &Path, data_dir: &Path) -> Result<Manifest, RestoreError> {
    let manifest = Manifest::read(backup)?;
    check_log_format(backup)?;
    let failed = |source| RestoreError::Target { path: data_dir.to_owned(), source };
    expect_free(data_dir).map_err(failed)?;
    // All of it before anything is written: a backup that is damaged is told of at once.
    check_files(backup, &manifest)?;
    let making = Making::begin(data_dir, ".restoring").map_err(failed)?;
    let made = making.path();
    for file in &manifest.files {
        let (from, to) = (backup.join(&file.path), made.join(&file.path));
        let copied = copy(&from, &to);
        let (bytes, crc32c) =
            copied.map_err(|source| RestoreError::File { path: file.path.clone(), source })?;
        if (bytes, crc32c) != (file.bytes, file.crc32c) {
            return Err(RestoreError::DamagedFile { path: file.path.clone() });
        }
    }
    redb::copy::begin_new_life(&made.join(TASKS_FILE))?;
    making.finish().map_err(failed)?;
    Ok(manifest)
}

/// Compares every file of a backup with its manifest.
///
/// # Errors
/// `DamagedFile` or `File` for the first that is not as it was written.
pub(super) fn check_files(backup: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
    for file in &manifest.files {
        let is_below = Path::new(&file.path)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        let damaged = || RestoreError::DamagedFile { path: file.path.clone() };
        if !is_below {
            return Err(damaged());
        }
        let read = read_file(&backup.join(&file.path), |_| Ok(()));
        let (bytes, crc32c) =
            read.map_err(|source| RestoreError::File { path: file.path.clone(), source })?;
        if (bytes, crc32c) != (file.bytes, file.crc32c) {
            return Err(damaged());
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<(u64, u32)> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut target = File::create_new(to)?;
    let read = read_file(from, |bytes| target.write_all(bytes))?;
    target.sync_all()?;
    Ok(read)
}
