//! `manifest.json`: what a backup holds, to the byte.

use super::{Unfinished, check_finished, is_beside_us};
use crate::position::{Offset, Partition, TopicName, TopicPartition};
use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The format of backups that this code writes.
pub(super) const BACKUP_FORMAT: u32 = 1;
/// Its name in a backup.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// What a backup holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Manifest {
    /// Of the backup as a whole: `BACKUP_FORMAT`.
    pub format: u32,
    /// The version of taskwire that made it.
    pub taskwire: String,
    /// When it was begun, ms since 1970.
    pub made_at_ms: i64,
    /// The cluster's id.
    pub cluster_id: String,
    /// Where the store stands.
    pub store: StorePosition,
    /// Every partition.
    pub partitions: Vec<CopiedPartition>,
    /// Every file but the manifest, by path.
    pub files: Vec<CopiedFile>,
}

/// Where the store stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StorePosition {
    /// The head, as clients see positions.
    pub position: String,
    /// Tasks present.
    pub tasks: u64,
    /// Changes kept.
    pub changes: u64,
    /// The next offset to apply, by partition.
    pub processed: Vec<(String, i32, i64)>,
}

/// One partition's log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CopiedPartition {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Oldest offset.
    pub log_start: i64,
    /// Next offset.
    pub log_end: i64,
}

/// One file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CopiedFile {
    /// Below the backup, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

/// Why a manifest is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// There is none.
    #[error("{} is no backup: it has no manifest.json", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The backup is not whole.
    #[error(transparent)]
    Unfinished(#[from] Unfinished),
    /// It is not as it was written.
    #[error("the manifest of {} is damaged", path.display())]
    Damaged {
        /// The backup.
        path: PathBuf,
    },
    /// Written by a newer taskwire.
    #[error(
        "the backup has format {found}, this taskwire knows up to {BACKUP_FORMAT}: it takes the \
         newer taskwire that made it"
    )]
    Newer {
        /// The backup's format.
        found: u32,
    },
    /// The disk refused.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The manifest as it stands in the file: with a checksum of its own.
#[derive(Deserialize, Serialize)]
struct Sealed<M> {
    manifest: M,
    crc32c: u32,
}

/// What every format's manifest says.
#[derive(Deserialize)]
struct AnyManifest {
    format: u32,
}

impl Manifest {
    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn read(dir: &Path) -> Result<Self, ManifestError> {
        check_finished(dir)?;
        let path = dir.join(MANIFEST_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ManifestError::Missing { path: dir.to_owned() });
            }
            Err(source) => return Err(ManifestError::Io { path, source }),
        };
        let damaged = || ManifestError::Damaged { path: dir.to_owned() };
        // The format first: of another one, nothing else can be told.
        let any: Sealed<AnyManifest> = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        if any.manifest.format > BACKUP_FORMAT {
            return Err(ManifestError::Newer { found: any.manifest.format });
        }
        let sealed: Sealed<Self> = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let right = crc(&sealed.manifest.bytes());
        if right == sealed.crc32c { Ok(sealed.manifest) } else { Err(damaged()) }
    }

    /// Lists and syncs every file below `dir`, and writes the manifest.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn seal(mut self, dir: &Path) -> Result<Self, ManifestError> {
        let mut files = Vec::new();
        let listed = list(dir, dir, &mut files);
        listed.map_err(|source| ManifestError::Io { path: dir.to_owned(), source })?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        self.files = files;
        let sealed = Sealed { crc32c: crc(&self.bytes()), manifest: &self };
        let path = dir.join(MANIFEST_FILE);
        let write = || -> io::Result<()> {
            let mut text = serde_json::to_vec_pretty(&sealed)?;
            text.push(b'\n');
            fs::write(&path, text)?;
            File::open(&path)?.sync_all()?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|source| ManifestError::Io { path: path.clone(), source })?;
        Ok(self)
    }

    /// Bytes of all files.
    pub fn bytes_in_all(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The next offsets to apply.
    pub fn processed(&self) -> impl Iterator<Item = (TopicPartition, Offset)> + '_ {
        self.store.processed.iter().filter_map(|(topic, partition, offset)| {
            let (topic, partition) = (TopicName::new(topic)?, Partition::new(*partition)?);
            Some((TopicPartition { topic, partition }, Offset::new(*offset)?))
        })
    }

    /// The form that its checksum is of.
    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has only texts and numbers")
    }
}

/// Length and checksum of a file, given to `sink` piece by piece.
pub(super) fn read_file(
    path: &Path,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, u32)> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    let (mut digest, mut bytes) = (Digest::new(CrcAlgorithm::Crc32Iscsi), 0);
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        digest.update(&buffer[..read]);
        sink(&buffer[..read])?;
        bytes += u64::try_from(read).map_err(io::Error::other)?;
    }
    Ok((bytes, u32::try_from(digest.finalize()).map_err(io::Error::other)?))
}

/// Every file below `dir`, synced, and every directory synced.
fn list(root: &Path, dir: &Path, files: &mut Vec<CopiedFile>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if is_beside_us(&entry) {
            continue;
        }
        if path.is_dir() {
            list(root, &path, files)?;
            continue;
        }
        File::open(&path)?.sync_all()?;
        let (bytes, crc32c) = read_file(&path, |_| Ok(()))?;
        let below = path.strip_prefix(root).map_err(io::Error::other)?;
        let path = below.to_str().ok_or_else(|| io::Error::other("a name is not UTF-8"))?;
        files.push(CopiedFile { path: path.to_owned(), bytes, crc32c });
    }
    File::open(dir)?.sync_all()
}

fn crc(bytes: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(bytes);
    u32::try_from(digest.finalize()).expect("a 32-bit checksum")
}
