//! The store on redb (`tasks.redb`).

use super::{
    ChangePage, CommitDurability, KnownEvent, LoadKeys, Loaded, Placement, Store, StoreError,
    StoreStart, StoreStats, TaskFilter, TaskPage, WaitingEvent, WriteSet,
};
use crate::{
    position::Position,
    task::{TaskId, UserId, event::EventId},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::{path::Path, time::Duration};

/// How much a store keeps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Event ids are kept this long, or this many, whichever is more.
    pub dedup_window: (Duration, u64),
    /// Changes are kept this long, or this many, whichever is more.
    pub changes_keep: (Duration, u64),
    /// redb's page cache in bytes.
    pub cache_bytes: usize,
}

/// A store in one file.
pub struct RedbStore {}

impl RedbStore {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// The file cannot be opened, is in use, is damaged, or is of a newer format.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let _ = (path, options);
        todo!()
    }
}

impl Store for RedbStore {
    fn start(&self) -> BoxFuture<'_, Result<StoreStart, StoreError>> {
        todo!()
    }
    fn load<'a>(&'a self, _keys: &'a LoadKeys) -> BoxFuture<'a, Result<Loaded, StoreError>> {
        todo!()
    }
    fn commit(
        &self,
        _writes: WriteSet,
        _durability: CommitDurability,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        todo!()
    }
    fn waiting_before(
        &self,
        _before_ms: i64,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<WaitingEvent>, StoreError>> {
        todo!()
    }
    fn trim(&self, _now_ms: i64) -> BoxFuture<'_, Result<u64, StoreError>> {
        todo!()
    }
    fn task<'a>(
        &'a self,
        _user_id: &'a UserId,
        _task_id: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        todo!()
    }
    fn tasks<'a>(
        &'a self,
        _user_id: &'a UserId,
        _filter: &'a TaskFilter,
        _after: Option<&'a [u8]>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<TaskPage, StoreError>> {
        todo!()
    }
    fn changes<'a>(
        &'a self,
        _user_id: &'a UserId,
        _sequence: u64,
        _limit: usize,
        _bytes_max: usize,
    ) -> BoxFuture<'a, Result<ChangePage, StoreError>> {
        todo!()
    }
    fn outcome<'a>(
        &'a self,
        _event_id: &'a EventId,
    ) -> BoxFuture<'a, Result<Option<KnownEvent>, StoreError>> {
        todo!()
    }
    fn head(&self) -> Position {
        todo!()
    }
    fn earliest(&self) -> Position {
        todo!()
    }
    fn position_of(&self, _sequence: u64) -> Position {
        todo!()
    }
    fn place(&self, _position: Position) -> Placement {
        todo!()
    }
    fn stats(&self) -> StoreStats {
        todo!()
    }
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        todo!()
    }
}
