//! Who listens, and from which position. A session is a cursor over its user's changes: replay and
//! live are the same read, and there is no queue per session.
//!
//! A user with a session has an entry with its recent changes, encoded once; a session that is
//! further behind reads the store. A session that does not read costs its cursor.
//!
//! Invariant: each session gets exactly its user's changes after its start, in order, once, or one
//! resync message in the place of those that were trimmed. No change falls between replay and live:
//! [`Hub::publish`] announces how far it goes (`announced`) before it looks for entries, and a new
//! entry takes that as its floor, up to which its sessions read the store.
//!
//! Must not know: Kafka, HTTP, how the store keeps changes.

pub mod cursor;
pub mod message;
mod recent;
#[cfg(test)]
mod tests;

pub use self::cursor::{Next, Session, SessionView};

use self::recent::{Bounds, Listener};
use crate::{
    metrics::Metrics,
    position::Position,
    store::{Placement, Store},
    task::UserId,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Parts of the map of users, so that sessions that come and go do not wait for each other.
const SHARDS: usize = 64;

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
pub struct Hub(Arc<Shared>);

struct Shared {
    options: Options,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    shards: Vec<Mutex<HashMap<UserId, Arc<Listener>>>>,
    hasher: RandomState,
    sessions: AtomicUsize,
    users: AtomicUsize,
    /// The highest sequence that is published or being published.
    announced: AtomicU64,
    /// Up to here every entry has what is its user's.
    published: AtomicU64,
}

impl Hub {
    /// An empty hub over a store's changes.
    pub fn new(options: Options, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        // What is committed before the first publish is read from the store.
        let head = store.head().sequence;
        Self(Arc::new(Shared {
            options,
            store,
            metrics,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            sessions: AtomicUsize::new(0),
            users: AtomicUsize::new(0),
            announced: AtomicU64::new(head),
            published: AtomicU64::new(head),
        }))
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
        self.take_place()?;
        let (cursor, must_resync) = self.start_of(from);
        let mut shard = self.shard(user_id);
        let listener = match shard.get(user_id) {
            Some(listener) => Arc::clone(listener),
            None => {
                let announced = self.0.announced.load(Ordering::SeqCst);
                let listener = Arc::new(Listener::new(announced));
                shard.insert(user_id.clone(), Arc::clone(&listener));
                self.0.users.fetch_add(1, Ordering::Relaxed);
                self.0.metrics.hub_users.inc();
                listener
            }
        };
        let slot = {
            let mut recent = listener.lock();
            // A user without sessions has no entry, so a refused one leaves none behind.
            if recent.sessions() >= self.0.options.sessions_per_user_max.max(1) {
                self.give_place();
                return Err(SubscribeError::TooMany);
            }
            recent.add_session(cursor)
        };
        drop(shard);
        self.0.metrics.hub_sessions.inc();
        self.count_start(from, must_resync);
        let session = Session::new(self.clone(), user_id.clone(), listener, (slot, cursor));
        Ok((session, must_resync))
    }

    /// Hands over committed changes, in sequence order, after their commit. Never waits for a
    /// session.
    pub fn publish(&self, changes: Vec<PublishedChange>) {
        let Some(last) = changes.last().map(|change| change.sequence) else {
            return;
        };
        // Before looking for entries: see the module's invariant.
        self.0.announced.fetch_max(last, Ordering::SeqCst);
        let bounds = Bounds {
            changes: self.0.options.recent_changes_max,
            bytes: self.0.options.recent_bytes_max,
        };
        let mut touched = Vec::new();
        for change in changes {
            let listener = self.shard(&change.user_id).get(&change.user_id).map(Arc::clone);
            let Some(listener) = listener else {
                continue;
            };
            let encode = || {
                let position = self.0.store.position_of(change.sequence);
                message::with_position(&change.message, position)
            };
            let is_first = listener.lock().push(change.sequence, bounds, encode);
            if is_first {
                touched.push(listener);
            }
        }
        self.0.published.fetch_max(last, Ordering::SeqCst);
        // Once per user, after the whole batch: a session then takes all of it in one write.
        for listener in touched {
            listener.lock().settle();
            listener.changed.notify_waiters();
        }
    }

    /// Counts.
    pub fn stats(&self) -> HubStats {
        let count = |counter: &AtomicUsize| {
            u64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(u64::MAX)
        };
        HubStats { sessions: count(&self.0.sessions), users: count(&self.0.users) }
    }

    /// Where a session starts, and whether its position could not be placed.
    fn start_of(&self, from: From) -> (u64, bool) {
        match from {
            From::Now => (self.0.store.head().sequence, false),
            From::Earliest => (self.0.store.earliest().sequence, false),
            From::After(position) => match self.0.store.place(position) {
                Placement::After(sequence) => (sequence, false),
                Placement::Resync => (self.0.store.head().sequence, true),
            },
        }
    }

    fn count_start(&self, from: From, must_resync: bool) {
        if must_resync {
            self.count_resync();
        } else if matches!(from, From::After(_)) {
            self.0.metrics.hub_resumes.inc();
        }
    }

    /// Takes one of the places of `sessions_max`.
    fn take_place(&self) -> Result<(), SubscribeError> {
        let max = self.0.options.sessions_max;
        let more = |sessions: usize| (sessions < max).then_some(sessions + 1);
        let taken = self.0.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| SubscribeError::TooMany)
    }

    fn give_place(&self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// Ends a session; its user's entry goes with the last.
    fn end(&self, user_id: &UserId, listener: &Arc<Listener>, slot: usize) {
        let mut shard = self.shard(user_id);
        let left = listener.lock().remove_session(slot);
        if left == 0 {
            shard.remove(user_id);
            self.0.users.fetch_sub(1, Ordering::Relaxed);
            self.0.metrics.hub_users.dec();
        }
        drop(shard);
        self.give_place();
        self.0.metrics.hub_sessions.dec();
    }

    fn shard(&self, user_id: &UserId) -> MutexGuard<'_, HashMap<UserId, Arc<Listener>>> {
        let hash = self.0.hasher.hash_one(user_id) % (1 << 32);
        let index = usize::try_from(hash).unwrap_or(0) % SHARDS;
        self.0.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    fn published(&self) -> u64 {
        self.0.published.load(Ordering::SeqCst)
    }

    fn count_messages(&self, messages: usize) {
        self.0.metrics.hub_messages.inc_by(u64::try_from(messages).unwrap_or(u64::MAX));
    }

    fn count_delivery(&self, waited: Duration) {
        self.0.metrics.hub_delivery.observe(waited);
    }

    fn count_resync(&self) {
        self.0.metrics.hub_resyncs.inc();
    }
}
