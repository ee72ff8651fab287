//! `broker.redb` as a file: opened with all of it checked, verified, copied, made anew.
//!
//! Everything in it is read right after it was checked, so its rows need no checksums of their own.

use super::{
    CLEAN_STOP, DURABLE_ENDS, FORMAT, FORMAT_STATE, LEADER_EPOCH, Meta, MetaError, NAMES,
    NEXT_PRODUCER_ID, OFFSETS, STATE, TOPICS, TopicRecord, begin_write, cluster_id, database_error,
    load_ends, load_offsets, load_topics, noted::Noted, put_state, put_topic,
};
use crate::{
    broker::places_of,
    disk::{Disk, open_or_create},
    position::{Offset, TopicName, TopicPartition},
    redb_file,
};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
};
use std::{collections::BTreeMap, io, path::Path};
use uuid::Uuid;

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Names the cluster; empty if the file has none yet.
    pub cluster_id: String,
    /// Every topic.
    pub topics: BTreeMap<TopicName, TopicRecord>,
    /// Recorded durable ends.
    pub durable_ends: BTreeMap<TopicPartition, Offset>,
    /// Committed offsets: group, place, offset.
    pub offsets: Vec<(String, TopicPartition, Offset)>,
}

impl Contents {
    /// Every partition of every topic.
    pub fn places(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        places_of(self.topics.iter().map(|(topic, record)| (topic, record.partitions)))
    }
}

/// Reads a file that no daemon has open, checks all of it, and leaves it as it is.
///
/// # Errors
/// `Damaged`, `NewerFormat`, or `Database` where it cannot be read.
pub fn read(path: &Path) -> Result<Contents, MetaError> {
    guarded(|| {
        let database = redb_file::open_view(path).map_err(open_error)?;
        let read = database.begin_read().map_err(damaged)?;
        refuse_newer(&read.open_table(STATE).map_err(damaged)?)?;
        let topics = load_topics(&read.open_table(TOPICS).map_err(damaged)?);
        let ends = load_ends(&read.open_table(DURABLE_ENDS).map_err(damaged)?);
        let offsets = load_offsets(&read).map_err(damaged)?;
        let of_place = |(group, topic, partition, committed): (_, _, _, super::CommittedOffset)| {
            (group, TopicPartition { topic, partition }, committed.offset)
        };
        let names = read.open_table(NAMES).map_err(damaged)?;
        let cluster_id = names.get(super::CLUSTER_ID).map_err(damaged)?;
        Ok(Contents {
            cluster_id: cluster_id.map(|name| name.value().to_owned()).unwrap_or_default(),
            topics: topics.map_err(damaged)?,
            durable_ends: ends.map_err(damaged)?,
            offsets: offsets.into_iter().map(of_place).collect(),
        })
    })
}

/// Makes a file from what the log's directories tell: topics with their partitions, which keep
/// everything until retention is set again. Committed offsets, configs and topic ids are lost.
/// `now_ms` becomes the next producer id and, in minutes, the leader epoch: above any that counting
/// from 0 has come to.
///
/// # Errors
/// The file is there, or the disk refuses.
pub fn make(path: &Path, topics: &BTreeMap<TopicName, u32>, now_ms: i64) -> Result<(), MetaError> {
    let database = redb_file::create(path).map_err(database_error)?;
    let transaction = begin_write(&database)?;
    transaction.open_table(OFFSETS).map_err(database_error)?;
    transaction.open_table(DURABLE_ENDS).map_err(database_error)?;
    transaction.open_table(TOPICS).map_err(database_error)?;
    for (name, partitions) in topics {
        let (id, partitions) = (Uuid::new_v4(), *partitions);
        // Nobody has asked for their records to be deleted by the default.
        let configs = ["retention.ms", "retention.bytes"].map(|key| (key.into(), "-1".into()));
        let configs = BTreeMap::from(configs);
        put_topic(&transaction, name, &TopicRecord { id, partitions, configs })?;
    }
    cluster_id(&transaction)?;
    let minutes = (now_ms / 60_000).clamp(0, i64::from(i32::MAX) / 2);
    for (key, value) in [
        (FORMAT_STATE, FORMAT),
        (CLEAN_STOP, 0),
        (LEADER_EPOCH, minutes),
        (NEXT_PRODUCER_ID, now_ms.max(0)),
    ] {
        put_state(&transaction, key, value)?;
    }
    transaction.commit().map_err(database_error)
}

impl Meta {
    /// Copies everything as it is now into a new file, without the mark of a clean stop. Writers go
    /// on meanwhile. Blocks on the disk.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn snapshot_to(&self, path: &Path) -> Result<(), MetaError> {
        let database = self.reads.get()?;
        copy(&database, path)
    }
}

/// Copies a file that no daemon has open, as [`Meta::snapshot_to`] does.
///
/// # Errors
/// As [`read`].
pub fn copy_file(from: &Path, to: &Path) -> Result<(), MetaError> {
    guarded(|| copy(&redb_file::open_view(from).map_err(open_error)?, to))
}

fn copy(from: &Database, to: &Path) -> Result<(), MetaError> {
    let read = from.begin_read().map_err(database_error)?;
    let target = redb_file::create(to).map_err(database_error)?;
    redb_file::copy_table(&read, &target, OFFSETS).map_err(database_error)?;
    redb_file::copy_table(&read, &target, TOPICS).map_err(database_error)?;
    redb_file::copy_table(&read, &target, DURABLE_ENDS).map_err(database_error)?;
    redb_file::copy_table(&read, &target, STATE).map_err(database_error)?;
    redb_file::copy_table(&read, &target, NAMES).map_err(database_error)?;
    let mut transaction = begin_write(&target)?;
    transaction.set_durability(Durability::Immediate).map_err(database_error)?;
    put_state(&transaction, CLEAN_STOP, 0)?;
    transaction.commit().map_err(database_error)
}

/// Opens or creates the file, checks all of it, and does the first work on it.
pub(super) fn open<T>(
    disk: &dyn Disk,
    path: &Path,
    noted: &Noted,
    first: impl FnOnce(&Database) -> Result<T, MetaError>,
) -> Result<(Database, T), MetaError> {
    guarded(|| {
        let checks = redb_file::is_checked_at_start(path);
        let mut builder = Builder::new();
        builder.set_check_integrity_on_open(checks);
        let opened = open_or_create(disk, path, |file| {
            let file = file.watched_by(noted.clone());
            let database = builder.create_with_backend(file).map_err(open_error)?;
            let done = first(&database)?;
            Ok((database, done))
        });
        opened.map_err(|error| if noted.take_full() { MetaError::Full } else { error })
    })
}

/// Refuses a file of a newer format; the first format has no row for it.
pub(super) fn refuse_newer(state: &impl ReadableTable<&'static str, i64>) -> Result<(), MetaError> {
    let found = state.get(FORMAT_STATE).map_err(database_error)?.map(|row| row.value());
    match found {
        Some(found) if found > FORMAT => Err(MetaError::NewerFormat { found, known: FORMAT }),
        _ => Ok(()),
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, MetaError>) -> Result<T, MetaError> {
    redb_file::guarded(work)
        .unwrap_or_else(|panicked| Err(MetaError::Damaged(panicked.to_string())))
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn damaged(error: impl std::fmt::Display) -> MetaError {
    MetaError::Damaged(error.to_string())
}

fn open_error(error: DatabaseError) -> MetaError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            MetaError::InUse
        }
        DatabaseError::UpgradeRequired(_) | DatabaseError::Storage(StorageError::Corrupted(_)) => {
            damaged(error)
        }
        DatabaseError::Storage(StorageError::Io(ref io))
            if matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            damaged(error)
        }
        error => database_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::{parse_place, topics_of},
        disk::RealDisk,
        position::Partition,
    };
    use std::fs;

    fn real() -> std::sync::Arc<dyn Disk> {
        std::sync::Arc::new(RealDisk)
    }

    fn name(topic: &str) -> TopicName {
        TopicName::new(topic).unwrap()
    }

    /// A stopped broker's file with a topic and a committed offset.
    async fn made(path: &Path) -> Meta {
        let (meta, _) = Meta::open(&real(), path).unwrap();
        let id = Uuid::new_v4();
        let record = TopicRecord { id, partitions: 2, configs: BTreeMap::new() };
        meta.put_topic(&name("a"), record).await.unwrap();
        let place = TopicPartition { topic: name("a"), partition: Partition::new(1).unwrap() };
        let committed = super::super::CommittedOffset {
            offset: Offset::new(7).unwrap(),
            leader_epoch: 0,
            metadata: String::new(),
            committed_at_ms: 1,
        };
        meta.commit_offsets("g", vec![(place.clone(), committed)]).await.unwrap();
        meta.record_ends(vec![(id, place, Offset::new(9).unwrap())]).await.unwrap();
        meta.mark_clean().await.unwrap();
        meta
    }

    async fn close(meta: Meta) {
        tokio::task::spawn_blocking(move || meta.close()).await.unwrap();
    }

    #[tokio::test]
    async fn a_snapshot_of_an_open_broker_has_everything_and_counts_as_unclean() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copied) = (dir.path().join("broker.redb"), dir.path().join("copy.redb"));
        let meta = made(&path).await;
        let (source, target) = (meta.clone(), copied.clone());
        tokio::task::spawn_blocking(move || source.snapshot_to(&target)).await.unwrap().unwrap();
        close(meta).await;
        let (from, to) = (read(&path).unwrap(), read(&copied).unwrap());
        assert_eq!((from.topics, from.durable_ends), (to.topics, to.durable_ends));
        assert_eq!((to.offsets.len(), from.offsets), (1, to.offsets));
        let (_, run) = Meta::open(&real(), &copied).unwrap();
        assert_eq!((run.was_clean, run.leader_epoch), (false, 1));
    }

    #[tokio::test]
    async fn any_flipped_byte_is_refused_or_loses_nothing_that_was_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.redb");
        close(made(&path).await).await;
        let whole = fs::read(&path).unwrap();
        let (mut refused, mut harmless) = (0, 0);
        let flips = (0..whole.len()).filter(|at| whole[*at] != 0 || at % 997 == 0);
        for at in flips.step_by(307) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x21;
            fs::write(&path, &flipped).unwrap();
            match Meta::open(&real(), &path) {
                Ok((meta, run)) => {
                    assert_eq!(run.topics.len(), 1, "byte {at}");
                    assert_eq!(run.durable_ends.len(), 1, "byte {at}");
                    assert_eq!(meta.load_offsets().unwrap().len(), 1, "byte {at}");
                    close(meta).await;
                    harmless += 1;
                }
                Err(error) => {
                    let text = error.to_string();
                    let says = text.contains("taskwire restore") || text.contains("newer");
                    assert!(says, "byte {at}: {text}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0 && harmless > 0, "{refused} refused, {harmless} harmless");
    }

    #[tokio::test]
    async fn a_newer_format_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.redb");
        close(made(&path).await).await;
        let database = Database::open(&path).unwrap();
        let transaction = begin_write(&database).unwrap();
        put_state(&transaction, FORMAT_STATE, FORMAT + 1).unwrap();
        transaction.commit().unwrap();
        drop(database);
        for error in [Meta::open(&real(), &path).err().unwrap(), read(&path).unwrap_err()] {
            assert!(matches!(error, MetaError::NewerFormat { found: 2, known: 1 }), "{error}");
        }
    }

    #[test]
    fn a_file_made_from_directories_has_their_topics_and_goes_on_above_all_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.redb");
        let directories = ["a-b-0", "a-b-2", "x-0", "no", "x-+1", "x-01", "x-0.deleted"];
        let topics = topics_of(directories.into_iter().filter_map(parse_place));
        assert_eq!(topics, BTreeMap::from([(name("a-b"), 3), (name("x"), 1)]));
        make(&path, &topics, 1_790_000_000_000).unwrap();
        let (_, run) = Meta::open(&real(), &path).unwrap();
        assert_eq!(run.topics.len(), 2);
        assert!(!run.was_clean && run.leader_epoch > 29_000_000, "{}", run.leader_epoch);
    }
}
