//! A store that tells when apply has ended a tick, so that a run can wait for just that.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use taskwire::{
    position::{Position, RecordPosition, TopicName},
    store::{
        ChangePage, CommitDurability, KnownEvent, LoadKeys, Loaded, Placement, Store, StoreError,
        StoreStart, StoreStats, TaskFilter, TaskPage, WaitingEvent, WriteSet,
        letter::{LetterFilter, LetterPage, StoredLetter},
    },
    task::{TaskId, UserId, event::EventId},
};

/// Any store, and how often apply has looked for events whose wait is over and then told where it
/// stands, which is what it does last in a tick.
pub(crate) struct Watched {
    inner: Arc<dyn Store>,
    has_looked: AtomicBool,
    ticks: Arc<AtomicU64>,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn Store>, ticks: Arc<AtomicU64>) -> Self {
        Self { inner, has_looked: AtomicBool::new(false), ticks }
    }
}

impl Store for Watched {
    fn start(&self) -> BoxFuture<'_, Result<StoreStart, StoreError>> {
        self.inner.start()
    }

    fn load<'a>(&'a self, keys: &'a LoadKeys) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        self.inner.load(keys)
    }

    fn commit(
        &self,
        writes: WriteSet,
        durability: CommitDurability,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.commit(writes, durability)
    }

    fn waiting_before(
        &self,
        before_ms: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<WaitingEvent>, StoreError>> {
        self.has_looked.store(true, Ordering::Relaxed);
        self.inner.waiting_before(before_ms, limit)
    }

    fn letter<'a>(
        &'a self,
        place: &'a RecordPosition,
    ) -> BoxFuture<'a, Result<Option<StoredLetter>, StoreError>> {
        self.inner.letter(place)
    }

    fn letters<'a>(
        &'a self,
        topic: &'a TopicName,
        filter: &'a LetterFilter,
        after: Option<&'a RecordPosition>,
        limit: usize,
    ) -> BoxFuture<'a, Result<LetterPage, StoreError>> {
        self.inner.letters(topic, filter, after, limit)
    }

    fn trim(&self, now_ms: i64) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.trim(now_ms)
    }

    fn task<'a>(
        &'a self,
        user_id: &'a UserId,
        task_id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        self.inner.task(user_id, task_id)
    }

    fn tasks<'a>(
        &'a self,
        user_id: &'a UserId,
        filter: &'a TaskFilter,
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<TaskPage, StoreError>> {
        self.inner.tasks(user_id, filter, after, limit)
    }

    fn changes<'a>(
        &'a self,
        user_id: &'a UserId,
        sequence: u64,
        limit: usize,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<ChangePage, StoreError>> {
        self.inner.changes(user_id, sequence, limit, bytes_max)
    }

    fn outcome<'a>(
        &'a self,
        event_id: &'a EventId,
    ) -> BoxFuture<'a, Result<Option<KnownEvent>, StoreError>> {
        self.inner.outcome(event_id)
    }

    fn head(&self) -> Position {
        self.inner.head()
    }

    fn earliest(&self) -> Position {
        self.inner.earliest()
    }

    fn position_of(&self, sequence: u64) -> Position {
        self.inner.position_of(sequence)
    }

    fn place(&self, position: Position) -> Placement {
        self.inner.place(position)
    }

    fn stats(&self) -> StoreStats {
        if self.has_looked.swap(false, Ordering::Relaxed) {
            self.ticks.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.stats()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.close()
    }
}
