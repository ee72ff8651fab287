//! Who listens, and from which position. A session is a cursor over its user's changes: replay and
//! live are the same read, and there is no queue per session.

pub mod cursor;
pub mod message;

use crate::{
    metrics::Metrics,
    position::Position,
    store::{Store, StoreError},
    task::UserId,
};
use bytes::Bytes;
use std::sync::Arc;

/// A committed change on its way to its user's sessions.
#[derive(Clone, Debug)]
pub struct PublishedChange {
    /// Who is told.
    pub user_id: UserId,
    /// Its number in the store's order.
    pub sequence: u64,
    /// As in [`crate::store::NewChange::message`].
    pub message: Bytes,
}

/// Bounds of the hub.
#[derive(Clone, Debug)]
pub struct Options {
    /// Recent changes kept in memory per user with a session.
    pub recent_changes_max: usize,
    /// And their bytes.
    pub recent_bytes_max: usize,
    /// Most sessions of one user.
    pub sessions_per_user_max: usize,
    /// Most sessions in all.
    pub sessions_max: usize,
}

/// Where a session starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum From {
    /// Only what comes.
    Now,
    /// All changes that are kept.
    Earliest,
    /// After this position.
    After(Position),
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The user, or the daemon, has as many as allowed.
    #[error("too many sessions")]
    TooMany,
}

/// Counts for `/ws/stats`.
#[derive(Clone, Copy, Debug, Default)]
pub struct HubStats {
    /// Open sessions.
    pub sessions: u64,
    /// Distinct users with one.
    pub users: u64,
}

/// Handle of the hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub {}

impl Hub {
    /// An empty hub over a store's changes.
    pub fn new(options: Options, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        let _ = (options, store, metrics);
        todo!()
    }

    /// Opens a session. The second part tells whether the client must resync (its position could
    /// not be placed; the session then starts at the head).
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(
        &self,
        user_id: &UserId,
        from: From,
    ) -> Result<(Session, bool), SubscribeError> {
        let _ = (user_id, from);
        todo!()
    }

    /// Hands over committed changes, in sequence order, after their commit. Never waits for a
    /// session.
    pub fn publish(&self, changes: Vec<PublishedChange>) {
        let _ = changes;
        todo!()
    }

    /// Counts.
    pub fn stats(&self) -> HubStats {
        todo!()
    }
}

/// One authenticated listener: a place in its user's changes. Dropping it ends it.
pub struct Session {}

impl Session {
    /// The next messages, whole JSON documents with their `pos`, in order; waits until there is one;
    /// at most about 64 KiB at a time. Cancel safe: what was not returned is returned next time.
    ///
    /// # Errors
    /// The store failed. A cursor that was trimmed meanwhile is `Ok` with a single resync message.
    pub async fn next(&mut self) -> Result<Vec<Bytes>, StoreError> {
        todo!()
    }

    /// Where it is.
    pub fn position(&self) -> Position {
        todo!()
    }
}
