//! Tasks, changes, outcomes and processed offsets, committed together.
//!
//! `apply` plans a batch in memory by pure code and hands over one [`WriteSet`]; a store makes it
//! visible in one transaction. Reads are snapshots.
//!
//! Invariant: the store is never durable beyond the log (`apply` syncs the log before it asks for
//! [`CommitDurability::Immediate`]). Every `Immediate` commit of redb uses quick repair.

#[cfg(test)]
mod contract;
pub mod letter;
pub mod redb;

use self::letter::{LetterFilter, LetterPage, LetterState, LetterTrim, StoredLetter};
use crate::{
    position::{Offset, Position, RecordPosition, TopicName, TopicPartition},
    task::{
        Priority, Task, TaskId, UserId,
        event::{Digest, EventId},
        transition::{Reason, TaskState},
    },
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::{collections::HashMap, io, path::Path};

/// Most tasks or changes of one page.
pub const PAGE_ROWS_MAX: usize = 1_000;

/// Bytes of tasks after which a page ends, however few they are.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where apply stands in one partition: the next offset to process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Processed {
    /// Next offset to process.
    pub next: Offset,
    /// Leader epoch of the last processed batch; -1 if none.
    pub leader_epoch: i32,
}

/// What an event with an id came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It changed its task (or found it changed already).
    Applied {
        /// The change; the store's head where a duplicate changed nothing.
        sequence: u64,
    },
    /// `If-Match` lost against the version that the task had.
    VersionMismatch,
    /// It became a dead letter.
    DeadLetter(Reason),
    /// It waits for its task.
    Waiting,
}

/// A known event id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownEvent {
    /// Digest of the event.
    pub digest: Digest,
    /// What it came to.
    pub outcome: Outcome,
}

/// An event that waits for its task. Stored as it came, so that it is decoded and applied again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WaitingEvent {
    /// The task it waits for.
    pub task_id: TaskId,
    /// Where it came from.
    pub source: (TopicPartition, Offset),
    /// Wall time at which it began to wait.
    pub since_ms: i64,
    /// The record's timestamp.
    pub timestamp_ms: i64,
    /// The record: key, value, headers, in apply's own encoding.
    pub record: Vec<u8>,
}

/// A task of whose due date its owner was not told yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DueTask {
    /// When it is due.
    pub due_date: i64,
    /// Its id.
    pub task_id: TaskId,
    /// The task; `None` if it is gone.
    pub task: Option<Task>,
}

/// What apply asks for before it plans a batch.
#[derive(Clone, Debug, Default)]
pub struct LoadKeys {
    /// Task ids of the batch's events, each once.
    pub tasks: Vec<TaskId>,
    /// Event ids of the batch's events, each once.
    pub events: Vec<EventId>,
}

/// What the store knows of [`LoadKeys`].
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// State per task id; absent ids may be left out.
    pub tasks: HashMap<TaskId, TaskState>,
    /// Known event ids.
    pub events: HashMap<EventId, KnownEvent>,
    /// Waiting events per task id, in order.
    pub waiting: HashMap<TaskId, Vec<WaitingEvent>>,
    /// Waiting events in all.
    pub waiting_total: u64,
    /// Bytes of their records.
    pub waiting_bytes: u64,
}

/// One message to one user: what a socket sends, but for its position.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewChange {
    /// Who is told.
    pub user_id: UserId,
    /// A JSON object without its last brace; the reader appends `,"pos":"..."}`.
    pub message: Bytes,
    /// The record's timestamp, for trimming by age.
    pub timestamp_ms: i64,
}

/// A change with its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredChange {
    /// Its number in the store's order.
    pub sequence: u64,
    /// As in [`NewChange::message`].
    pub message: Bytes,
}

/// Everything that one batch writes, in one transaction.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// New states of tasks, each id once. `Absent` is not allowed.
    pub tasks: Vec<(TaskId, UserId, TaskState)>,
    /// Changes in order; they get consecutive sequences.
    pub changes: Vec<NewChange>,
    /// Event ids to remember, with the record's timestamp for the dedup window.
    pub events: Vec<(EventId, KnownEvent, i64)>,
    /// Tasks whose waiting events are all taken. Done before `waiting_added`, so that an event of
    /// such a task that is also added goes on waiting.
    pub waiting_taken: Vec<TaskId>,
    /// Events that begin to wait, in order; after `waiting_taken`.
    pub waiting_added: Vec<WaitingEvent>,
    /// Letters of this batch by their places on the dead-letter topic; one that is there already
    /// stays as it is.
    pub letters: Vec<(RecordPosition, StoredLetter)>,
    /// What was done about letters; places without a letter are passed over.
    pub letter_states: Vec<(RecordPosition, LetterState)>,
    /// Which letters are kept no longer. Bounded work a commit: some stay for a while.
    pub letter_trim: Option<LetterTrim>,
    /// Reminders of the batch: due dates of which the tasks' owners need not be told again.
    pub reminded: Vec<(i64, TaskId)>,
    /// Processed offsets after this batch.
    pub processed: Vec<(TopicPartition, Processed)>,
    /// Next offsets of outbound topics (dead letters) that this batch's effects reach up to.
    pub outbound: Vec<(TopicPartition, Offset)>,
}

/// How durable a commit must be when it returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CommitDurability {
    /// Visible, and durable with the next checkpoint.
    Deferred,
    /// On disk (a checkpoint): this commit and all before it.
    Immediate,
}

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only done, or only open, tasks.
    pub completed: Option<bool>,
    /// Only this priority.
    pub priority: Option<Priority>,
    /// Due strictly before.
    pub due_before: Option<i64>,
    /// Due at or after.
    pub due_after: Option<i64>,
    /// Case-insensitive substring of title or description.
    pub q: Option<String>,
    /// Only tasks with this label.
    pub label: Option<String>,
    /// In which order.
    pub sort: TaskSort,
}

impl TaskFilter {
    /// Whether every task that is looked at has to be decoded.
    pub const fn reads_text(&self) -> bool {
        self.q.is_some() || self.label.is_some()
    }
}

/// The order of a list. Tasks that are equal in it are in the order of creation, which turns with
/// it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TaskSort {
    /// By what.
    pub by: SortBy,
    /// From the greatest to the least.
    pub is_descending: bool,
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SortBy {
    /// The order of creation.
    #[default]
    CreatedAt,
    /// When it was changed last.
    UpdatedAt,
    /// When it is due; tasks without a date come last, also when descending.
    DueDate,
    /// From low to urgent.
    Priority,
    /// The beginning of the title in lower case, by code points.
    Title,
}

/// A page of a user's tasks in the order that was asked for.
#[derive(Clone, Debug, Default)]
pub struct TaskPage {
    /// Each task as [`Task::to_json`](crate::task::Task::to_json) wrote it.
    pub tasks: Vec<Bytes>,
    /// Where the next page starts, opaque; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// Changes of one user after a sequence.
#[derive(Clone, Debug, Default)]
pub struct ChangePage {
    /// In order.
    pub changes: Vec<StoredChange>,
    /// The caller has now seen all of its changes up to here (at least the last change's sequence;
    /// the store's head when none are left).
    pub seen_to: u64,
}

/// Where a client's position lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Placement {
    /// Continue after this sequence.
    After(u64),
    /// Trimmed, of another epoch, or from the future: the client must resync.
    Resync,
}

/// What a store has to say at start.
#[derive(Clone, Debug)]
pub struct StoreStart {
    /// Where apply goes on, per partition.
    pub processed: HashMap<TopicPartition, Processed>,
    /// Where outbound topics stood at the last checkpoint.
    pub outbound: HashMap<TopicPartition, Offset>,
    /// Whether the store was closed cleanly.
    pub was_clean: bool,
}

/// Counts for stats and metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreStats {
    /// Tasks present.
    pub tasks: u64,
    /// Changes kept.
    pub changes: u64,
    /// Events that wait.
    pub waiting: u64,
    /// Bytes of their records.
    pub waiting_bytes: u64,
    /// Dead letters about which nothing was done.
    pub letters_open: u64,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full; commits go on when space is back.
    #[error("the store's disk is full")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database failed; nothing of the batch is visible.
    #[error("the store failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row that is not as it was written. Everything else goes on.
    #[error("row {row:08x} of table {table} is damaged; `taskwire rebuild` makes the tasks anew")]
    Damaged {
        /// The table.
        table: &'static str,
        /// Checksum of the row's key: names it, and shows no id.
        row: u32,
    },
    /// The file under the tables is damaged: nothing of it can be trusted.
    #[error(
        "tasks.redb is damaged; with the daemon stopped, `taskwire verify` tells what is, and \
         `taskwire rebuild` makes it anew from the log (or `taskwire restore` from a backup)"
    )]
    DamagedFile(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The user has more tasks than a list sorts; in the order of creation they can be read.
    #[error("more than {tasks_max} tasks are not sorted")]
    TooManyToSort {
        /// The most that are.
        tasks_max: usize,
    },
    /// Another process has the store open.
    #[error("the store is in use by another process")]
    InUse,
    /// Written by an older taskwire; `taskwire migrate`, or a start, brings it up.
    #[error("tasks.redb has format {found}, this taskwire writes {known}: run `taskwire migrate`")]
    OlderFormat {
        /// Format on disk.
        found: u32,
        /// The one that is written.
        known: u32,
    },
    /// Written by a newer taskwire.
    #[error(
        "tasks.redb has format {found}, this taskwire knows up to {known}: it takes the newer \
         taskwire that wrote it"
    )]
    NewerFormat {
        /// Format on disk.
        found: u32,
        /// Newest known.
        known: u32,
    },
}

/// All tasks of a user at one moment, whatever is committed meanwhile.
///
/// The store keeps what it shows for as long as it lives: whoever opens one bounds that time, and
/// how many there are.
pub trait TaskSnapshot: Send {
    /// The moment: all changes up to here are in, and none after it.
    fn position(&self) -> Position;

    /// The next tasks in the order of creation, each as
    /// [`Task::to_json`](crate::task::Task::to_json) wrote it; none when none are left. At most
    /// `rows_max` and `bytes_max`, unless a single task is longer. Reads on a blocking thread.
    /// Cancel safe: what was read is returned next time, under the bounds of the first call.
    fn next(
        &mut self,
        rows_max: usize,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>>;
}

/// The door to a task store. Every implementation passes the tests of `store/contract.rs`.
///
/// One writer: only `apply` calls [`Store::load`] and [`Store::commit`].
pub trait Store: Send + Sync + 'static {
    /// What is known at start. The run is raised (durably) before this returns if the last stop
    /// was unclean; calling it again only reads.
    fn start(&self) -> BoxFuture<'_, Result<StoreStart, StoreError>>;

    /// Rows that a batch needs.
    fn load<'a>(&'a self, keys: &'a LoadKeys) -> BoxFuture<'a, Result<Loaded, StoreError>>;

    /// Commits a batch; returns the sequence of its first change (the next free one if none).
    /// Waiting events are taken before they are added. It runs to its end even if the caller stops
    /// waiting for it.
    ///
    /// # Errors
    /// Nothing of the batch is visible. After `Full` the same batch may be tried again; after
    /// `Database` the store takes no more commits until it is opened anew.
    fn commit(
        &self,
        writes: WriteSet,
        durability: CommitDurability,
    ) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Waiting events that began to wait before `before_ms`, oldest first, at most `limit`.
    fn waiting_before(
        &self,
        before_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<WaitingEvent>, StoreError>>;

    /// Open tasks that are due before a time and of which [`WriteSet::reminded`] did not tell since
    /// the date was set; earliest first, at most `limit`. A date that was over when it was set is
    /// left out.
    fn due_before(
        &self,
        before_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DueTask>, StoreError>>;

    /// The letter at a place of the dead-letter topic.
    fn letter<'a>(
        &'a self,
        place: &'a RecordPosition,
    ) -> BoxFuture<'a, Result<Option<StoredLetter>, StoreError>>;

    /// Letters on a topic in the order of their places, after `after`, at most `limit`.
    fn letters<'a>(
        &'a self,
        topic: &'a TopicName,
        filter: &'a LetterFilter,
        after: Option<&'a RecordPosition>,
        limit: usize,
    ) -> BoxFuture<'a, Result<LetterPage, StoreError>>;

    /// Trims changes and event ids to their windows; returns rows removed. Bounded work a call: a
    /// window is kept in whole, and more than it for a while.
    ///
    /// Not durable by itself: apply calls it right before an [`CommitDurability::Immediate`] commit
    /// and loads nothing in between, so that what is forgotten is forgotten durably before it
    /// counts.
    fn trim(&self, now_ms: i64) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// The user's task as JSON ([`Task::to_json`](crate::task::Task::to_json)); `None` for another
    /// user's.
    fn task<'a>(
        &'a self,
        user_id: &'a UserId,
        task_id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>>;

    /// A page of the user's tasks; `after` is a [`TaskPage::next`] of the same filter. A page may
    /// be short, even empty, and still have a next one: work per page is bounded.
    ///
    /// # Errors
    /// Also `TooManyToSort`, for every order but that of creation.
    fn tasks<'a>(
        &'a self,
        user_id: &'a UserId,
        filter: &'a TaskFilter,
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<TaskPage, StoreError>>;

    /// All of the user's tasks as they are now, in parts: see [`TaskSnapshot`].
    ///
    /// # Errors
    /// The store failed, or gives no snapshots.
    fn snapshot<'a>(
        &'a self,
        user_id: &'a UserId,
    ) -> BoxFuture<'a, Result<Box<dyn TaskSnapshot>, StoreError>> {
        Box::pin(async move {
            let _ = user_id;
            Err(StoreError::Database(io::Error::other("no snapshots are given here").into()))
        })
    }

    /// The user's changes after `sequence`, at most `limit` and about `bytes_max`.
    fn changes<'a>(
        &'a self,
        user_id: &'a UserId,
        sequence: u64,
        limit: usize,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<ChangePage, StoreError>>;

    /// What became of an event.
    fn outcome<'a>(
        &'a self,
        event_id: &'a EventId,
    ) -> BoxFuture<'a, Result<Option<KnownEvent>, StoreError>>;

    /// The place after the last committed change.
    fn head(&self) -> Position;

    /// The place before the oldest change that is kept (what `?from=earliest` means).
    fn earliest(&self) -> Position;

    /// The position of a sequence, with the run that assigned it.
    fn position_of(&self, sequence: u64) -> Position;

    /// Where a client's position lies.
    fn place(&self, position: Position) -> Placement;

    /// Counts.
    fn stats(&self) -> StoreStats;

    /// Copies everything as it is now into a new file, for a backup; commits go on meanwhile.
    ///
    /// # Errors
    /// The file is there, or the disk refuses; or this store is kept elsewhere and backed up there.
    fn snapshot_to<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StoreError>> {
        let elsewhere = io::Error::other(format!("no copy to {} is made here", path.display()));
        Box::pin(async move { Err(StoreError::Database(elsewhere.into())) })
    }

    /// Damaged rows found so far by reads, each counted once; health tells of them.
    fn damaged_rows(&self) -> usize {
        0
    }

    /// Makes all durable and marks the stop as clean; commits are refused afterwards.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
