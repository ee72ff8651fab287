//! Making a backup: of a running daemon, and of a data directory at rest.
//!
//! The store comes first and the log after it, so that the log has all that the store has applied.

use super::{
    BROKER_FILE, CopiedPartition, Held, LockError, LogFormatError, Manifest, ManifestError,
    StorePosition, TASKS_FILE, check_log_format, making::Making, manifest::BACKUP_FORMAT,
    tell_log_format, verify,
};
use crate::{
    broker::{
        Broker,
        backup::{BackupError as BrokerError, CopiedLog},
        meta::{MetaError, file},
        partition_dir,
    },
    disk::dir::RealDir,
    log,
    position::{Offset, Position},
    store::{Store, StoreError, redb},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The directory cannot be used.
    #[error("cannot write a backup to {}", path.display())]
    Target {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A relative path, which the daemon would take from its own directory.
    #[error("the directory of a backup must be an absolute path")]
    Relative,
    /// The data directory is in use, or none.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store.
    #[error("cannot copy the tasks")]
    Store(#[from] StoreError),
    /// The store has damaged rows, which a backup would only hide.
    #[error("the store is damaged, so no backup was made; first: {first}")]
    DamagedStore {
        /// The first damage.
        first: String,
    },
    /// The broker, while it runs.
    #[error("cannot copy the broker")]
    Broker(#[from] BrokerError),
    /// `broker.redb` of a data directory at rest.
    #[error("cannot copy broker.redb")]
    Meta(#[from] MetaError),
    /// The log's format.
    #[error(transparent)]
    LogFormat(#[from] LogFormatError),
    /// The manifest.
    #[error("cannot finish the backup")]
    Manifest(#[from] ManifestError),
    /// The log ends below what the store has applied.
    #[error("the log of {topic}-{partition} ends below what the store has applied")]
    StoreAhead {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
    },
    /// A worker of ours panicked.
    #[error("the copy ended unexpectedly")]
    Ended,
}

/// Backs a running daemon up into `dir`, which is absent, empty but for `lost+found`, or left so by
/// a backup that was cut short. What exists under the name is whole, or marked as unfinished, or
/// nothing.
///
/// # Errors
/// See [`BackupError`].
pub async fn of_running(
    broker: Broker,
    store: &dyn Store,
    dir: PathBuf,
    now_ms: i64,
) -> Result<Manifest, BackupError> {
    if !dir.is_absolute() {
        return Err(BackupError::Relative);
    }
    let part = begin(&dir)?;
    store.snapshot_to(&part.path().join(TASKS_FILE)).await?;
    let copied = tokio::task::spawn_blocking(move || {
        let logs = broker.copy_to(part.path())?;
        complete(part, &dir, &logs, now_ms)
    });
    copied.await.unwrap_or(Err(BackupError::Ended))
}

/// Backs a data directory up that no daemon uses.
///
/// # Errors
/// See [`BackupError`].
pub fn of_stopped(data_dir: &Path, dir: &Path, now_ms: i64) -> Result<Manifest, BackupError> {
    let _held = Held::take(data_dir)?;
    check_log_format(data_dir)?;
    let part = begin(dir)?;
    redb::copy::copy_file(&data_dir.join(TASKS_FILE), &part.path().join(TASKS_FILE))?;
    file::copy_file(&data_dir.join(BROKER_FILE), &part.path().join(BROKER_FILE))?;
    let mut logs = Vec::new();
    for place in file::read(&part.path().join(BROKER_FILE))?.places() {
        let (from, to) = (partition_dir(data_dir, &place), partition_dir(part.path(), &place));
        let copy = || -> io::Result<CopiedLog> {
            fs::create_dir_all(&to)?;
            for entry in fs::read_dir(&from)? {
                let entry = entry?;
                fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
            let report = log::verify(&RealDir::open(&to)?)?;
            let (log_start, log_end) = (report.log_start, report.log_end);
            Ok(CopiedLog { place: place.clone(), log_start, log_end })
        };
        let log = copy().map_err(|source| BrokerError::Log { place: place.clone(), source })?;
        logs.push(log);
    }
    complete(part, dir, &logs, now_ms)
}

fn begin(dir: &Path) -> Result<Making, BackupError> {
    let failed = |source| BackupError::Target { path: dir.to_owned(), source };
    Making::begin(dir, ".partial").map_err(failed)
}

/// Checks what was copied, writes the manifest, syncs all, and gives the backup its name.
fn complete(
    part: Making,
    dir: &Path,
    logs: &[CopiedLog],
    now_ms: i64,
) -> Result<Manifest, BackupError> {
    tell_log_format(part.path())?;
    let report = redb::verify::verify(&part.path().join(TASKS_FILE))?;
    if let Some(first) = report.damages.first() {
        return Err(BackupError::DamagedStore { first: first.clone() });
    }
    for (place, processed) in &report.processed {
        let end = logs.iter().find(|log| log.place == *place).map_or(Offset::ZERO, |l| l.log_end);
        if end < processed.next {
            let (topic, partition) = (place.topic.to_string(), place.partition.get());
            return Err(BackupError::StoreAhead { topic, partition });
        }
    }
    let (run, sequence) = report.head;
    let manifest = Manifest {
        format: BACKUP_FORMAT,
        taskwire: env!("CARGO_PKG_VERSION").to_owned(),
        made_at_ms: now_ms,
        cluster_id: file::read(&part.path().join(BROKER_FILE))?.cluster_id,
        store: StorePosition {
            position: Position { epoch: report.epoch, run, sequence }.to_string(),
            tasks: report.tasks,
            changes: report.changes,
            processed: verify::processed_of(&report),
        },
        partitions: logs.iter().map(copied_partition).collect(),
        files: Vec::new(),
    };
    let manifest = manifest.seal(part.path())?;
    let failed = |source| BackupError::Target { path: dir.to_owned(), source };
    part.finish().map_err(failed)?;
    Ok(manifest)
}

fn copied_partition(log: &CopiedLog) -> CopiedPartition {
    CopiedPartition {
        topic: log.place.topic.to_string(),
        partition: log.place.partition.get(),
        log_start: log.log_start.get(),
        log_end: log.log_end.get(),
    }
}
