//! A copy of the broker's part of the data directory while it runs.

use super::{
    Broker,
    lost::{meta_path, partition_dir},
    meta::{MetaError, file},
};
use crate::{
    disk::dir::RealDir,
    log::LogReader,
    position::{Offset, TopicPartition},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A partition's copy is begun so often, where retention takes segments meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// Why the broker was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// `broker.redb`
    #[error("cannot copy broker.redb")]
    Meta(#[from] MetaError),
    /// A topic went away between the copies of `broker.redb` and of its log.
    #[error("topic partition {0} was deleted during the backup; begin it anew")]
    Deleted(TopicPartition),
    /// A log.
    #[error("cannot copy the log of {place}")]
    Log {
        /// The partition.
        place: TopicPartition,
        /// Why.
        source: io::Error,
    },
}

/// What a copied log holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CopiedLog {
    /// The partition.
    pub place: TopicPartition,
    /// Oldest offset.
    pub log_start: Offset,
    /// Next offset.
    pub log_end: Offset,
}

impl Broker {
    /// Copies `broker.redb`, and then every log up to its high watermark, into `dir`: so no
    /// committed offset and no recorded end lies beyond its log. Nothing is synced. Appends, reads
    /// and commits go on. Blocks on the disk.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn copy_to(&self, dir: &Path) -> Result<Vec<CopiedLog>, BackupError> {
        let meta = meta_path(dir);
        self.meta().snapshot_to(&meta)?;
        self.copy_logs(&file::read(&meta)?, dir)
    }

    /// Copies the logs of the topics that `broker.redb` had when it was copied.
    pub(super) fn copy_logs(
        &self,
        contents: &file::Contents,
        dir: &Path,
    ) -> Result<Vec<CopiedLog>, BackupError> {
        let mut copied = Vec::new();
        for place in contents.places() {
            // By its id: one that was created anew since has other records, and its ends, which
            // were just copied, are not those of the log that is there now.
            let topic = contents.topics.get(&place.topic);
            let topic = topic.and_then(|record| self.topics().find_id(record.id));
            let handle = topic.as_ref().and_then(|topic| topic.partition(place.partition));
            let handle = handle.ok_or_else(|| BackupError::Deleted(place.clone()))?;
            let reader = handle.reader().clone();
            let target = partition_dir(dir, &place);
            let (log_start, log_end) = copy_log(&reader, &target)
                .map_err(|source| BackupError::Log { place: place.clone(), source })?;
            copied.push(CopiedLog { place, log_start, log_end });
        }
        Ok(copied)
    }
}

fn copy_log(reader: &LogReader, target: &PathBuf) -> io::Result<(Offset, Offset)> {
    let mut attempt = 1;
    loop {
        let end = reader.high_watermark();
        let dir = RealDir::open(target)?;
        match reader.copy_below(end, &dir) {
            Ok(()) => return Ok((reader.log_start().min(end), end)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS_MAX => {
                fs::remove_dir_all(target)?;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
