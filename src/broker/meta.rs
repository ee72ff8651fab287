//! `broker.redb`: topics and their configs, group offsets, producer ids, and how the last run
//! ended.
//!
//! Owner: one thread, which commits what is waiting in one durable transaction. Reads are snapshots
//! and do not pass through it.
//!
//! Invariant: a write is answered after its commit, so what was answered survives a power cut. A
//! producer id is never given twice: ids are reserved in blocks, and what a crash leaves of a block
//! is lost. A write that finds no space is refused, and the next is tried as usual; after any other
//! failure nothing is written until restart.

pub mod file;
mod noted;

use crate::{
    disk::Disk,
    log::Outage,
    position::{Offset, Partition, TopicName, TopicPartition},
};
use noted::Noted;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
    thread::JoinHandle,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// A group's committed offset in one partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommittedOffset {
    /// Next offset to read.
    pub offset: Offset,
    /// Leader epoch the client knew; -1 if none.
    pub leader_epoch: i32,
    /// The client's own words, bounded by `offset.metadata.max.bytes` (4096).
    pub metadata: String,
    /// Wall time of the commit.
    pub committed_at_ms: i64,
}

/// A committed offset with its group and its place.
pub type StoredOffset = (String, TopicName, Partition, CommittedOffset);

/// Why `broker.redb` did not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// The database failed; nothing was changed.
    #[error("broker.redb failed: {0}")]
    Database(String),
    /// The disk is full; nothing was changed, and writes go on when space is back.
    #[error("no space for broker.redb")]
    Full,
    /// The file is damaged: nothing of it can be trusted.
    #[error(
        "broker.redb is damaged ({0}); `taskwire rebuild --broker` makes it anew from the log's \
         directories, without committed offsets; `taskwire restore` takes a backup"
    )]
    Damaged(String),
    /// Written by a newer taskwire.
    #[error(
        "broker.redb has format {found}, this taskwire knows up to {known}: it takes the newer \
         taskwire that wrote it"
    )]
    NewerFormat {
        /// Format on disk.
        found: i64,
        /// Newest known.
        known: i64,
    },
    /// Another process has it open.
    #[error("broker.redb is in use by another process")]
    InUse,
    /// The owner has ended.
    #[error("the broker stops")]
    Closed,
}

impl From<std::io::Error> for MetaError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Database(error.to_string()),
        }
    }
}

/// One topic as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopicRecord {
    /// Never used again, not even for a topic of the same name.
    pub id: Uuid,
    /// Partitions, from 0.
    pub partitions: u32,
    /// Only what was set; the rest has its default.
    pub configs: BTreeMap<String, String>,
}

/// What the start needs to know of the last run.
#[derive(Clone, Debug)]
pub struct LastRun {
    /// Names the cluster; made at the first start.
    pub cluster_id: String,
    /// The epoch of this run: one more after an unclean stop.
    pub leader_epoch: i32,
    /// Whether the last run closed every log.
    pub was_clean: bool,
    /// What ended, if it did not.
    pub outage: Outage,
    /// Every topic.
    pub topics: BTreeMap<TopicName, TopicRecord>,
    /// Recorded durable ends: a bad tail below one is damage.
    pub durable_ends: BTreeMap<TopicPartition, Offset>,
}

/// Handle of the owner thread. Cheap to clone. Each write is durable when its future is ready.
#[derive(Clone, Debug)]
pub struct Meta {
    /// The owner's, so that the file is closed when it ends, whoever holds a handle.
    reads: Reads,
    noted: Noted,
    inbox: mpsc::Sender<Job>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Meta {
    /// Opens or creates the file, begins a run in it (no clean mark until [`Meta::mark_clean`]) and
    /// starts the owner. Blocks on the disk.
    ///
    /// # Errors
    /// `Database`.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<(Self, LastRun), MetaError> {
        let (noted, boot_id) = (Noted::default(), disk.boot_id());
        let (database, last_run) =
            file::open(&**disk, path, &noted, |database| begin_run(database, boot_id))?;
        let database = Arc::new(database);
        let (inbox, jobs) = mpsc::channel(INBOX_JOBS_MAX);
        let reads = Reads::default();
        reads.set(&database);
        let mut owner = Owner {
            disk: Arc::clone(disk),
            path: path.to_owned(),
            noted: noted.clone(),
            database: Some(database),
            reads: reads.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("broker-meta".to_owned())
            // The database ends here and not with the last reader, of which there is none after
            // the start.
            .spawn(move || owner.run(jobs))
            .map_err(|error| MetaError::Database(error.to_string()))?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok((Self { reads, noted, inbox, thread }, last_run))
    }

    /// Why nothing is written until restart, if so.
    pub fn failure(&self) -> Option<String> {
        self.noted.failure()
    }

    /// Commits offsets of one group, all or none.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn commit_offsets(
        &self,
        group: &str,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), MetaError> {
        self.write(Write::CommitOffsets { group: group.to_owned(), offsets }).await
    }

    /// Deletes some of a group's offsets, or all with `None`.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Result<(), MetaError> {
        self.write(Write::DeleteOffsets { group: group.to_owned(), partitions }).await
    }

    /// Every committed offset, for the start.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub fn load_offsets(&self) -> Result<Vec<StoredOffset>, MetaError> {
        let database = self.reads.get()?;
        load_offsets(&database.begin_read().map_err(database_error)?)
    }

    /// Creates a topic, or changes its partitions or configs.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn put_topic(&self, name: &TopicName, topic: TopicRecord) -> Result<(), MetaError> {
        self.write(Write::PutTopic { name: name.clone(), topic }).await
    }

    /// Deletes a topic and its recorded ends. Committed offsets of groups are the coordinator's.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), MetaError> {
        self.write(Write::DeleteTopic { name: name.clone() }).await
    }

    /// Records how far logs are durable, each with the id of its topic; those of topics that are
    /// gone are passed over, also where there is a new one of the name.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn record_ends(
        &self,
        ends: Vec<(Uuid, TopicPartition, Offset)>,
    ) -> Result<(), MetaError> {
        self.write(Write::RecordEnds { ends }).await
    }

    /// Leaves the mark of a clean stop. Call when every log is closed.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn mark_clean(&self) -> Result<(), MetaError> {
        self.write(Write::MarkClean).await
    }

    /// A producer id that was never given before.
    ///
    /// # Errors
    /// See [`MetaError`].
    pub async fn allocate_producer_id(&self) -> Result<i64, MetaError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Job::ProducerId(reply)).await.map_err(|_| MetaError::Closed)?;
        answer.await.map_err(|_| MetaError::Closed)?
    }

    /// Ends the owner after what is waiting. Blocks until it ended; later writes get `Closed`.
    pub fn close(&self) {
        // A send that fails means that the owner has ended already, which is what is asked for.
        drop(self.inbox.blocking_send(Job::End));
        let thread = self.thread.lock().expect("no holder panics").take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the owner of broker.redb panicked");
        }
    }

    /// Waits until the owner has ended. Cancel safe.
    pub async fn ended(&self) {
        self.inbox.closed().await;
    }

    async fn write(&self, write: Write) -> Result<(), MetaError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Job::Write(write, reply)).await.map_err(|_| MetaError::Closed)?;
        answer.await.map_err(|_| MetaError::Closed)?
    }
}

/// The database that is open now, for those who read it past the owner.
#[derive(Clone, Debug, Default)]
struct Reads(Arc<Mutex<Weak<Database>>>);

impl Reads {
    fn set(&self, database: &Arc<Database>) {
        *self.0.lock().expect("no holder panics") = Arc::downgrade(database);
    }

    /// `Closed` when the owner has ended, or has no file open for lack of space.
    fn get(&self) -> Result<Arc<Database>, MetaError> {
        self.0.lock().expect("no holder panics").upgrade().ok_or(MetaError::Closed)
    }

    /// Whether somebody still reads what the owner has given up.
    fn is_read(&self) -> bool {
        self.0.lock().expect("no holder panics").strong_count() > 0
    }
}

#[derive(Debug)]
enum Job {
    Write(Write, oneshot::Sender<Result<(), MetaError>>),
    ProducerId(oneshot::Sender<Result<i64, MetaError>>),
    End,
}

#[derive(Debug)]
enum Write {
    CommitOffsets { group: String, offsets: Vec<(TopicPartition, CommittedOffset)> },
    DeleteOffsets { group: String, partitions: Option<Vec<TopicPartition>> },
    PutTopic { name: TopicName, topic: TopicRecord },
    DeleteTopic { name: TopicName },
    RecordEnds { ends: Vec<(Uuid, TopicPartition, Offset)> },
    MarkClean,
    ReserveProducerIds { next: i64 },
}

/// The JSON of one topic.
#[derive(Deserialize, Serialize)]
struct StoredTopic {
    id: String,
    partitions: u32,
    configs: BTreeMap<String, String>,
}

/// The owner.
struct Owner {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    noted: Noted,
    /// `None` after a write that found no space, until the file is opened again.
    database: Option<Arc<Database>>,
    reads: Reads,
}

impl Owner {
    /// Takes what is waiting, commits it at once, answers everyone.
    fn run(&mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut producer_ids = ProducerIds::default();
        while let Some(first) = jobs.blocking_recv() {
            let mut batch = Batch::default();
            let mut is_last = batch.take(first);
            while !is_last && batch.len() < BATCH_JOBS_MAX {
                let Ok(next) = jobs.try_recv() else { break };
                is_last = batch.take(next);
            }
            batch.run(self, &mut producer_ids);
            if is_last {
                break;
            }
        }
    }

    /// Opens the file again. As long as somebody reads what was open before, such as a backup, that
    /// one holds its lock: then the work is refused like the one that found no space.
    fn open(&self) -> Result<Arc<Database>, MetaError> {
        if self.reads.is_read() {
            return Err(MetaError::Full);
        }
        let opened = file::open(&*self.disk, &self.path, &self.noted, |_| Ok(()));
        let (database, ()) = opened.map_err(|error| match error {
            // Of the reader that has just ended; other processes are kept out by the directory's.
            MetaError::InUse => MetaError::Full,
            error => error,
        })?;
        let database = Arc::new(database);
        self.reads.set(&database);
        Ok(database)
    }

    /// Works on the database. redb refuses everything after an error: where that was only a lack
    /// of space, the file is as at the last commit, and is opened again with the next work.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, MetaError>,
    ) -> Result<T, MetaError> {
        if let Some(cause) = self.noted.failure() {
            return Err(MetaError::Database(cause));
        }
        let database = match self.database.take() {
            Some(database) => Ok(database),
            None => self.open(),
        };
        let result = database.and_then(|database| {
            let done = work(&database);
            if done.is_ok() {
                self.database = Some(database);
            }
            done
        });
        let Err(error) = result else { return result };
        if self.noted.take_full() || matches!(error, MetaError::Full) {
            tracing::warn!("no space for broker.redb, a write was refused");
            return Err(MetaError::Full);
        }
        self.noted.fail(&error.to_string());
        Err(error)
    }
}

/// What one transaction does.
#[derive(Default)]
struct Batch {
    writes: Vec<(Write, oneshot::Sender<Result<(), MetaError>>)>,
    producers: Vec<oneshot::Sender<Result<i64, MetaError>>>,
}

impl Batch {
    /// Returns whether this was the mark to end.
    fn take(&mut self, job: Job) -> bool {
        match job {
            Job::Write(write, reply) => self.writes.push((write, reply)),
            Job::ProducerId(reply) => self.producers.push(reply),
            Job::End => return true,
        }
        false
    }

    fn len(&self) -> usize {
        self.writes.len() + self.producers.len()
    }

    fn run(self, owner: &mut Owner, ids: &mut ProducerIds) {
        let reserve = owner.with(|database| ids.reserve_for(database, self.producers.len()));
        let writes = self.writes.iter().map(|(write, _)| write);
        let result = match &reserve {
            Ok(reserve) => owner.with(|database| commit(database, writes.chain(reserve))),
            Err(error) => Err(error.clone()),
        };
        // A caller that has gone does not need its answer: every send may fail.
        for (_, reply) in self.writes {
            drop(reply.send(result.clone()));
        }
        if let (Ok(()), Ok(Some(Write::ReserveProducerIds { next }))) = (&result, &reserve) {
            ids.end = *next;
        }
        for reply in self.producers {
            drop(reply.send(result.clone().map(|()| ids.take())));
        }
    }
}

/// The block of producer ids that is reserved and not given.
#[derive(Default)]
struct ProducerIds {
    next: i64,
    end: i64,
}

impl ProducerIds {
    /// What has to be written before `count` ids can be given.
    fn reserve_for(
        &mut self,
        database: &Database,
        count: usize,
    ) -> Result<Option<Write>, MetaError> {
        let count = i64::try_from(count).expect("a batch is small");
        if self.end - self.next >= count {
            return Ok(None);
        }
        if self.end == 0 {
            self.next = read_state(database, NEXT_PRODUCER_ID)?.unwrap_or(0);
            self.end = self.next;
        }
        let next = self.end.saturating_add(count.max(PRODUCER_ID_BLOCK));
        Ok(Some(Write::ReserveProducerIds { next }))
    }

    fn take(&mut self) -> i64 {
        let id = self.next;
        self.next += 1;
        id
    }
}

/// Commits writes in one durable transaction.
fn commit<'a>(
    database: &Database,
    writes: impl Iterator<Item = &'a Write>,
) -> Result<(), MetaError> {
    let mut writes = writes.peekable();
    if writes.peek().is_none() {
        return Ok(());
    }
    let transaction = begin_write(database)?;
    for write in writes {
        apply(&transaction, write)?;
    }
    transaction.commit().map_err(database_error)
}

/// In two phases: after a single one, redb takes a damaged last commit for one that a crash cut
/// short, and goes back to the one before it in silence, which was acknowledged.
fn begin_write(database: &Database) -> Result<WriteTransaction, MetaError> {
    let mut transaction = database.begin_write().map_err(database_error)?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

fn apply(transaction: &WriteTransaction, write: &Write) -> Result<(), MetaError> {
    match write {
        Write::CommitOffsets { group, offsets } => put_offsets(transaction, group, offsets),
        Write::DeleteOffsets { group, partitions: Some(partitions) } => {
            let mut table = transaction.open_table(OFFSETS).map_err(database_error)?;
            for place in partitions {
                let key = (group.as_str(), place.topic.as_str(), place.partition.get());
                table.remove(key).map_err(database_error)?;
            }
            Ok(())
        }
        Write::DeleteOffsets { group, partitions: None } => {
            let mut table = transaction.open_table(OFFSETS).map_err(database_error)?;
            let group = group.as_str();
            // Names of topics are ASCII, so that no name reaches the upper bound.
            let of_group = (group, "", i32::MIN)..(group, "\u{7f}", i32::MAX);
            table.retain_in(of_group, |_, _| false).map_err(database_error)
        }
        Write::PutTopic { name, topic } => put_topic(transaction, name, topic),
        Write::DeleteTopic { name } => {
            let mut table = transaction.open_table(TOPICS).map_err(database_error)?;
            table.remove(name.as_str()).map_err(database_error)?;
            let mut table = transaction.open_table(DURABLE_ENDS).map_err(database_error)?;
            let of_topic = (name.as_str(), 0)..=(name.as_str(), i32::MAX);
            table.retain_in(of_topic, |_, _| false).map_err(database_error)
        }
        Write::RecordEnds { ends } => {
            let topics = load_topics(&transaction.open_table(TOPICS).map_err(database_error)?);
            let topics = topics.map_err(database_error)?;
            let mut table = transaction.open_table(DURABLE_ENDS).map_err(database_error)?;
            for (id, place, end) in ends {
                // Deleted meanwhile: its end would be a floor for the next topic of that name.
                if topics.get(&place.topic).is_none_or(|topic| topic.id != *id) {
                    continue;
                }
                let key = (place.topic.as_str(), place.partition.get());
                table.insert(key, end.get()).map_err(database_error)?;
            }
            Ok(())
        }
        Write::MarkClean => put_state(transaction, CLEAN_STOP, 1),
        Write::ReserveProducerIds { next } => put_state(transaction, NEXT_PRODUCER_ID, *next),
    }
}

fn put_offsets(
    transaction: &WriteTransaction,
    group: &str,
    offsets: &[(TopicPartition, CommittedOffset)],
) -> Result<(), MetaError> {
    let mut table = transaction.open_table(OFFSETS).map_err(database_error)?;
    for (place, committed) in offsets {
        let key = (group, place.topic.as_str(), place.partition.get());
        let value = (
            committed.offset.get(),
            committed.leader_epoch,
            committed.committed_at_ms,
            committed.metadata.as_str(),
        );
        table.insert(key, value).map_err(database_error)?;
    }
    Ok(())
}

fn put_topic(
    transaction: &WriteTransaction,
    name: &TopicName,
    topic: &TopicRecord,
) -> Result<(), MetaError> {
    let stored = StoredTopic {
        id: topic.id.to_string(),
        partitions: topic.partitions,
        configs: topic.configs.clone(),
    };
    let json = serde_json::to_string(&stored).map_err(database_error)?;
    let mut table = transaction.open_table(TOPICS).map_err(database_error)?;
    table.insert(name.as_str(), json.as_str()).map_err(database_error)?;
    Ok(())
}

fn put_state(transaction: &WriteTransaction, key: &str, value: i64) -> Result<(), MetaError> {
    let mut table = transaction.open_table(STATE).map_err(database_error)?;
    table.insert(key, value).map_err(database_error)?;
    Ok(())
}

fn read_state(database: &Database, key: &str) -> Result<Option<i64>, MetaError> {
    let read = database.begin_read().map_err(database_error)?;
    let table = read.open_table(STATE).map_err(database_error)?;
    Ok(table.get(key).map_err(database_error)?.map(|value| value.value()))
}

/// Creates the tables, raises the epoch after an unclean stop, takes the clean mark away, and reads
/// what the start needs: one transaction.
fn begin_run(database: &Database, boot_id: Option<String>) -> Result<LastRun, MetaError> {
    let transaction = begin_write(database)?;
    let last_run = begin_run_in(&transaction, boot_id)?;
    transaction.commit().map_err(database_error)?;
    Ok(last_run)
}

fn begin_run_in(
    transaction: &WriteTransaction,
    boot_id: Option<String>,
) -> Result<LastRun, MetaError> {
    transaction.open_table(OFFSETS).map_err(database_error)?;
    let mut state = transaction.open_table(STATE).map_err(database_error)?;
    file::refuse_newer(&state)?;
    state.insert(FORMAT_STATE, FORMAT).map_err(database_error)?;
    let mut state_of = |key: &str, value: i64| -> Result<Option<i64>, MetaError> {
        Ok(state.insert(key, value).map_err(database_error)?.map(|old| old.value()))
    };
    let clean_stop = state_of(CLEAN_STOP, 0)?;
    let was_clean = clean_stop == Some(1);
    let last_epoch = state_of(LEADER_EPOCH, 0)?;
    let leader_epoch = match last_epoch {
        None => 0,
        Some(epoch) => epoch + i64::from(!was_clean),
    };
    state_of(LEADER_EPOCH, leader_epoch)?;
    Ok(LastRun {
        cluster_id: cluster_id(transaction)?,
        leader_epoch: i32::try_from(leader_epoch).unwrap_or(i32::MAX),
        was_clean,
        outage: note_boot(transaction, boot_id)?,
        topics: load_topics(&transaction.open_table(TOPICS).map_err(database_error)?)?,
        durable_ends: load_ends(&transaction.open_table(DURABLE_ENDS).map_err(database_error)?)?,
    })
}

/// Notes in which life of the machine this run is, and tells whether the last one was in the same.
fn note_boot(transaction: &WriteTransaction, boot_id: Option<String>) -> Result<Outage, MetaError> {
    let mut names = transaction.open_table(NAMES).map_err(database_error)?;
    let now = boot_id.unwrap_or_default();
    let last = names.insert(BOOT_ID, now.as_str()).map_err(database_error)?;
    let is_same = !now.is_empty() && last.is_some_and(|last| last.value() == now);
    Ok(if is_same { Outage::Process } else { Outage::Machine })
}

/// Kafka's form: a random UUID as 22 characters of URL-safe base64.
fn cluster_id(transaction: &WriteTransaction) -> Result<String, MetaError> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut names = transaction.open_table(NAMES).map_err(database_error)?;
    if let Some(known) = names.get(CLUSTER_ID).map_err(database_error)? {
        return Ok(known.value().to_owned());
    }
    let random = Uuid::new_v4().as_u128();
    let text: String = (0..22)
        .map(|digit| {
            let six_bits = (random >> (6 * digit)) & 63;
            char::from(ALPHABET[usize::try_from(six_bits).expect("below 64")])
        })
        .collect();
    names.insert(CLUSTER_ID, text.as_str()).map_err(database_error)?;
    Ok(text)
}

fn load_offsets(read: &ReadTransaction) -> Result<Vec<StoredOffset>, MetaError> {
    let table = read.open_table(OFFSETS).map_err(database_error)?;
    let mut found = Vec::new();
    for row in table.iter().map_err(database_error)? {
        let (key, value) = row.map_err(database_error)?;
        let (group, topic, partition) = key.value();
        let (offset, leader_epoch, committed_at_ms, metadata) = value.value();
        let place = (TopicName::new(topic), Partition::new(partition), Offset::new(offset));
        let (Some(topic), Some(partition), Some(offset)) = place else {
            return Err(MetaError::Database(format!("bad row in offsets of {group}")));
        };
        let metadata = metadata.to_owned();
        let committed = CommittedOffset { offset, leader_epoch, metadata, committed_at_ms };
        found.push((group.to_owned(), topic, partition, committed));
    }
    Ok(found)
}

fn load_topics(
    table: &impl ReadableTable<&'static str, &'static str>,
) -> Result<BTreeMap<TopicName, TopicRecord>, MetaError> {
    let mut topics = BTreeMap::new();
    for row in table.iter().map_err(database_error)? {
        let (name, json) = row.map_err(database_error)?;
        let stored: StoredTopic = serde_json::from_str(json.value()).map_err(database_error)?;
        let name = TopicName::new(name.value())
            .ok_or_else(|| MetaError::Database("bad name in topics".to_owned()))?;
        let id = Uuid::parse_str(&stored.id).map_err(database_error)?;
        let StoredTopic { partitions, configs, .. } = stored;
        topics.insert(name, TopicRecord { id, partitions, configs });
    }
    Ok(topics)
}

fn load_ends(
    table: &impl ReadableTable<(&'static str, i32), i64>,
) -> Result<BTreeMap<TopicPartition, Offset>, MetaError> {
    let mut ends = BTreeMap::new();
    for row in table.iter().map_err(database_error)? {
        let (key, end) = row.map_err(database_error)?;
        let (topic, partition) = key.value();
        let place = (TopicName::new(topic), Partition::new(partition), Offset::new(end.value()));
        let (Some(topic), Some(partition), Some(end)) = place else {
            return Err(MetaError::Database("bad row in durable ends".to_owned()));
        };
        ends.insert(TopicPartition { topic, partition }, end);
    }
    Ok(ends)
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn database_error(error: impl std::fmt::Display) -> MetaError {
    MetaError::Database(error.to_string())
}

type OffsetKey<'a> = (&'a str, &'a str, i32);
type OffsetValue<'a> = (i64, i32, i64, &'a str);

/// (group, topic, partition) -> (offset, leader epoch, committed at, metadata)
const OFFSETS: TableDefinition<'_, OffsetKey<'_>, OffsetValue<'_>> =
    TableDefinition::new("offsets");
/// name -> JSON of [`StoredTopic`]
const TOPICS: TableDefinition<'_, &str, &str> = TableDefinition::new("topics");
/// (topic, partition) -> offset
const DURABLE_ENDS: TableDefinition<'_, (&str, i32), i64> = TableDefinition::new("durable_ends");
const STATE: TableDefinition<'_, &str, i64> = TableDefinition::new("state");
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");

/// The format that this code writes; the first one had no row for it.
const FORMAT: i64 = 1;
const FORMAT_STATE: &str = "format";
const CLEAN_STOP: &str = "clean_stop";
const LEADER_EPOCH: &str = "leader_epoch";
const NEXT_PRODUCER_ID: &str = "next_producer_id";
const CLUSTER_ID: &str = "cluster_id";
const BOOT_ID: &str = "boot_id";

/// Writers beyond it wait.
const INBOX_JOBS_MAX: usize = 1024;
/// Jobs of one transaction.
const BATCH_JOBS_MAX: usize = 256;
/// Producer ids per durable reservation, as Kafka.
const PRODUCER_ID_BLOCK: i64 = 1000;

#[cfg(test)]
mod tests;
