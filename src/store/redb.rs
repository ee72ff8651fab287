//! The store on redb (`tasks.redb`).
//!
//! One writer thread (`tasks-writer`) owns all commits, so that a checkpoint never holds up an
//! async worker; reads are snapshots, taken inline by whoever asks, and wait for no commit. A read
//! touches at most [`PAGE_ROWS_MAX`](super::PAGE_ROWS_MAX) rows, or looks at no more than
//! `list::SCAN_ROWS_MAX` of them; text search, sorting (at most `list::SORT_ROWS_MAX` rows) and big
//! loads run on a blocking thread.
//!
//! Invariant: commits are non-durable, or `Immediate` with quick repair; nothing else reaches the
//! file. A store that is dropped without [`Store::close`] leaves the file as a kill would.

pub mod copy;
mod damage;
#[cfg(test)]
mod damage_tests;
mod due;
#[cfg(test)]
pub(crate) mod dump;
mod file;
mod letters;
mod list;
mod migrate;
mod read;
mod row;
mod runs;
mod snapshot;
mod sum;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;
pub mod verify;
mod write;

pub use tables::FORMAT;

use self::{
    damage::{Damages, guarded},
    file::{CutOff, FreeSpace},
    row::Counters,
    runs::{Replay, Runs},
    write::Writer,
};
use super::{
    ChangePage, CommitDurability, DueTask, KnownEvent, LoadKeys, Loaded, Placement, SortBy, Store,
    StoreError, StoreStart, StoreStats, TaskFilter, TaskPage, TaskSnapshot, WaitingEvent, WriteSet,
    letter::{LetterFilter, LetterPage, StoredLetter},
};
use crate::{
    disk::{Disk, RealDisk, open_or_create},
    metrics::Metrics,
    position::{Position, RecordPosition, TopicName},
    redb_file,
    task::{TaskId, UserId, event::EventId},
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Jobs that wait for the writer thread. There is one writer, so more than one is already odd;
/// who finds it full waits.
const WRITER_INBOX_MAX: usize = 16;
/// Loads of at most so many keys are done inline (some 2 us a key), larger ones on the writer.
const LOAD_INLINE_KEYS_MAX: usize = 64;
/// Disk that must be left, beside half the cache (the most that redb holds unwritten), before a
/// commit begins. redb refuses everything after a failed write, so a full disk must be seen before.
const DISK_RESERVE_BYTES: u64 = 32 << 20;

/// How much a store keeps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Event ids are kept at least this long, and at least this many.
    pub dedup_window: (Duration, u64),
    /// Changes are kept at least this long, and at least this many.
    pub changes_keep: (Duration, u64),
    /// redb's page cache in bytes.
    pub cache_bytes: usize,
    /// The log shows records only once they are synced (`--durability commit`). Else a power cut
    /// may take records that were applied, so a replay need not repeat what was lost, and a lost
    /// position goes back to where its run was cut.
    pub is_log_synced: bool,
}

/// Brings a file that is not open up to the current format, as [`RedbStore::open`] does. Returns
/// the format that it had, if that was an older one.
///
/// # Errors
/// See [`RedbStore::open`].
pub fn migrate_file(path: &Path) -> Result<Option<u32>, StoreError> {
    match verify::check_format(path) {
        Err(StoreError::OlderFormat { found, .. }) => {
            migrate::to_current(path, found)?;
            Ok(Some(found))
        }
        checked => checked.map(|()| None),
    }
}

/// A store in one file.
pub struct RedbStore {
    shared: Arc<Shared>,
    cut_off: CutOff,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    metrics: Option<Arc<Metrics>>,
}

/// What the writer thread does.
type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// What readers and the writer share.
struct Shared {
    database: Database,
    runs: ArcSwap<Runs>,
    /// Of the next change: one more than the head. Rises after the commit that used it.
    next_sequence: AtomicU64,
    /// The place before the oldest change that is kept. Rises before the trim that moves it is
    /// visible, so that a reader that missed rows finds it raised.
    earliest: AtomicU64,
    counters: ArcSwap<Counters>,
    /// Partitions that events came from. Apply makes a partition's first mark durable before it
    /// applies anything of it, so a crash never lowers this below what replay can mix.
    partitions: AtomicU64,
    /// See [`Options::is_log_synced`].
    is_log_synced: bool,
    damages: Damages,
}

impl RedbStore {
    /// Opens or creates the file. One of an older format is migrated first: a new file is written
    /// beside it and takes its name, and the old one is kept as `<name>.format-<format>`.
    ///
    /// # Errors
    /// The file cannot be opened, is in use, is damaged, or is of a newer format.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        match Self::open_on(&disk, path, options.clone()) {
            Err(StoreError::OlderFormat { found, .. }) => {
                migrate::to_current(path, found)?;
                Self::open_on(&disk, path, options)
            }
            opened => opened,
        }
    }

    /// Opens or creates the database on a disk. An older format is not migrated.
    ///
    /// # Errors
    /// See [`RedbStore::open`], and `OlderFormat`.
    pub fn open_on(
        disk: &Arc<dyn Disk>,
        path: &Path,
        options: Options,
    ) -> Result<Self, StoreError> {
        let space = FreeSpace::Disk(Arc::clone(disk), path.to_owned());
        Self::open_with(&**disk, path, options, space)
    }

    /// Counts commits and checkpoints from now on.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    fn open_with(
        disk: &dyn Disk,
        path: &Path,
        options: Options,
        space: FreeSpace,
    ) -> Result<Self, StoreError> {
        let cut_off = CutOff::default();
        let checks = redb_file::is_checked_at_start(path);
        let (database, opened) = open_or_create(disk, path, |file| {
            let file = file.watched_by(cut_off.clone());
            guarded(|| {
                let database = open_database(file, options.cache_bytes, checks)?;
                let opened = write::open_tables(&database)?;
                Ok((database, opened))
            })
        })?;
        let shared = Arc::new(Shared {
            database,
            next_sequence: AtomicU64::new(opened.counters.next_sequence),
            earliest: AtomicU64::new(opened.earliest),
            counters: ArcSwap::from_pointee(opened.counters),
            runs: ArcSwap::from_pointee(opened.runs),
            partitions: AtomicU64::new(opened.partitions),
            is_log_synced: options.is_log_synced,
            damages: Damages::default(),
        });
        let half_cache = u64::try_from(options.cache_bytes / 2).unwrap_or(u64::MAX);
        let reserve = half_cache.saturating_add(DISK_RESERVE_BYTES);
        let mut writer = Writer::new(Arc::clone(&shared), options, (space, reserve));
        let (jobs, mut inbox) = mpsc::channel::<Job>(WRITER_INBOX_MAX);
        let thread = thread::Builder::new().name("tasks-writer".to_owned()).spawn(move || {
            while let Some(job) = inbox.blocking_recv() {
                job(&mut writer);
            }
        });
        let thread = thread.map_err(|error| StoreError::Database(error.into()))?;
        Ok(Self { shared, cut_off, jobs: Some(jobs), writer: Some(thread), metrics: None })
    }

    /// Runs a job on the writer thread. The job runs to its end even if the caller goes away.
    async fn on_writer<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            // Nobody waits any more: the job is done all the same.
            drop(answer.send(guarded(|| job(writer))));
        });
        let jobs = self.jobs.as_ref().ok_or_else(writer_ended)?;
        jobs.send(job).await.map_err(|_| writer_ended())?;
        self.shared.damages.note(answered.await.map_err(|_| writer_ended())?)
    }

    fn count(&self, durability: CommitDurability) {
        if let Some(metrics) = &self.metrics {
            metrics.store_commits.inc();
            if durability == CommitDurability::Immediate {
                metrics.store_checkpoints.inc();
            }
        }
    }
}

fn writer_ended() -> StoreError {
    StoreError::Database(io::Error::other("the store's writer has ended").into())
}

/// Opens redb. With `checks`, every page's checksum is verified, and a damaged file is refused;
/// without, only what a crash can leave is looked for.
fn open_database(
    file: impl StorageBackend,
    cache_bytes: usize,
    checks: bool,
) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(checks);
    builder.create_with_backend(file).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen | redb::DatabaseError::LockProtocolMismatch => {
            StoreError::InUse
        }
        error => error.into(),
    })
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // After a clean close all is durable, and redb only tidies up.
        if !write::is_closed(&self.shared) {
            self.cut_off.cut();
        }
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was reported when it happened.
            drop(writer.join());
        }
    }
}

impl Shared {
    /// Reads, whatever the pages hold.
    fn read<T>(&self, read: impl FnOnce(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.damages.note(guarded(|| read(self)))
    }

    fn snapshot(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.database.begin_read()?)
    }

    fn head(&self) -> u64 {
        self.next_sequence.load(Ordering::Acquire).saturating_sub(1)
    }

    fn earliest(&self) -> u64 {
        self.earliest.load(Ordering::Acquire)
    }

    fn replay(&self) -> Replay {
        let partitions = self.partitions.load(Ordering::Acquire);
        if self.is_log_synced && partitions <= 1 { Replay::SameOrder } else { Replay::Interleaved }
    }
}

impl Store for RedbStore {
    fn start(&self) -> BoxFuture<'_, Result<StoreStart, StoreError>> {
        Box::pin(self.on_writer(Writer::start))
    }

    fn load<'a>(&'a self, keys: &'a LoadKeys) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        Box::pin(async move {
            if keys.tasks.len() + keys.events.len() <= LOAD_INLINE_KEYS_MAX {
                return self.shared.read(|shared| read::load(shared, keys));
            }
            let keys = keys.clone();
            self.on_writer(move |writer| read::load(writer.shared(), &keys)).await
        })
    }

    fn commit(
        &self,
        writes: WriteSet,
        durability: CommitDurability,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let first = self.on_writer(move |writer| writer.commit(&writes, durability)).await?;
            self.count(durability);
            Ok(first)
        })
    }

    fn waiting_before(
        &self,
        before_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<WaitingEvent>, StoreError>> {
        Box::pin(async move {
            let read = |shared: &Shared| read::waiting_before(shared, before_ms, limit);
            let (events, lost) = self.shared.read(read)?;
            if !lost.is_empty() {
                let dropped = self.on_writer(move |writer| writer.drop_waiting(&lost)).await?;
                if let Some(metrics) = &self.metrics {
                    metrics.apply_waiting_lost.inc_by(dropped);
                }
            }
            Ok(events)
        })
    }

    fn due_before(
        &self,
        before_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DueTask>, StoreError>> {
        Box::pin(async move { self.shared.read(|shared| due::before(shared, before_ms, limit)) })
    }

    fn letter<'a>(
        &'a self,
        place: &'a RecordPosition,
    ) -> BoxFuture<'a, Result<Option<StoredLetter>, StoreError>> {
        Box::pin(async move { self.shared.read(|shared| letters::letter(shared, place)) })
    }

    fn letters<'a>(
        &'a self,
        topic: &'a TopicName,
        filter: &'a LetterFilter,
        after: Option<&'a RecordPosition>,
        limit: usize,
    ) -> BoxFuture<'a, Result<LetterPage, StoreError>> {
        Box::pin(async move {
            self.shared.read(|shared| letters::letters(shared, topic, filter, after, limit))
        })
    }

    fn trim(&self, now_ms: i64) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let removed = self.on_writer(move |writer| writer.trim(now_ms)).await?;
            self.count(CommitDurability::Deferred);
            Ok(removed)
        })
    }

    fn task<'a>(
        &'a self,
        user_id: &'a UserId,
        task_id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        Box::pin(async move { self.shared.read(|shared| read::task(shared, user_id, task_id)) })
    }

    fn tasks<'a>(
        &'a self,
        user_id: &'a UserId,
        filter: &'a TaskFilter,
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<TaskPage, StoreError>> {
        Box::pin(async move {
            if !filter.reads_text() && filter.sort.by == SortBy::CreatedAt {
                let list = |shared: &Shared| list::tasks(shared, user_id, filter, after, limit);
                return self.shared.read(list);
            }
            // It decodes every row that it looks at, or looks at all.
            let shared = Arc::clone(&self.shared);
            let (user_id, filter) = (user_id.clone(), filter.clone());
            let after = after.map(<[u8]>::to_vec);
            let search = move || {
                shared
                    .read(|shared| list::tasks(shared, &user_id, &filter, after.as_deref(), limit))
            };
            tokio::task::spawn_blocking(search)
                .await
                .unwrap_or_else(|error| Err(StoreError::Database(error.into())))
        })
    }

    fn snapshot<'a>(
        &'a self,
        user_id: &'a UserId,
    ) -> BoxFuture<'a, Result<Box<dyn TaskSnapshot>, StoreError>> {
        Box::pin(async move {
            let opened = self.shared.read(|_| snapshot::open(&self.shared, user_id))?;
            let opened: Box<dyn TaskSnapshot> = Box::new(opened);
            Ok(opened)
        })
    }

    fn changes<'a>(
        &'a self,
        user_id: &'a UserId,
        sequence: u64,
        limit: usize,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<ChangePage, StoreError>> {
        Box::pin(async move {
            let bounds = (limit, bytes_max);
            self.shared.read(|shared| read::changes(shared, user_id, sequence, bounds))
        })
    }

    fn outcome<'a>(
        &'a self,
        event_id: &'a EventId,
    ) -> BoxFuture<'a, Result<Option<KnownEvent>, StoreError>> {
        Box::pin(async move { self.shared.read(|shared| read::outcome(shared, event_id)) })
    }

    fn head(&self) -> Position {
        self.shared.runs.load().position_of(self.shared.head())
    }

    fn earliest(&self) -> Position {
        self.shared.runs.load().position_of(self.shared.earliest())
    }

    fn position_of(&self, sequence: u64) -> Position {
        self.shared.runs.load().position_of(sequence)
    }

    fn place(&self, position: Position) -> Placement {
        let kept = self.shared.earliest()..=self.shared.head();
        self.shared.runs.load().place(position, kept, self.shared.replay())
    }

    fn stats(&self) -> StoreStats {
        let counters = self.shared.counters.load();
        StoreStats {
            tasks: counters.tasks,
            changes: counters.changes,
            waiting: counters.waiting,
            waiting_bytes: counters.waiting_bytes,
            letters_open: counters.letters_open.unwrap_or(0),
        }
    }

    fn snapshot_to<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let (shared, path) = (Arc::clone(&self.shared), path.to_owned());
            let copied = tokio::task::spawn_blocking(move || {
                shared.read(|shared| copy::copy(&shared.snapshot()?, &path))
            });
            copied.await.unwrap_or_else(|error| Err(StoreError::Database(error.into())))
        })
    }

    fn damaged_rows(&self) -> usize {
        self.shared.damages.count()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.on_writer(Writer::close).await?;
            self.count(CommitDurability::Immediate);
            Ok(())
        })
    }
}

/// redb's errors, one type an operation, as ours.
macro_rules! from_redb {
    ($($error:ty),+) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })+
    };
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        redb::Error::Io(error).into()
    }
}

from_redb!(
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError
);

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if is_full(&error) => Self::Full(error.into()),
            redb::Error::Io(error) if is_damage(&error) => Self::DamagedFile(error.into()),
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableDoesNotExist(_) => Self::DamagedFile(error.into()),
            error => Self::Database(error.into()),
        }
    }
}

/// redb read a length, or a place, that the file does not have.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
