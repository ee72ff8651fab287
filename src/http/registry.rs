//! The open sessions, for administrators: who, over what, since when, how far. One entry per socket
//! or stream, gone when it ends; an entry reads its session's place and never holds the session.

use super::{Connection, follow::Transport};
use crate::{hub::SessionView, task::UserId};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Every open session that outlives a request.
#[derive(Clone, Default)]
pub(super) struct Registry(Arc<Mutex<HashMap<Uuid, Entry>>>);

/// One of them.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) user_id: UserId,
    pub(super) transport: Transport,
    pub(super) peer: SocketAddr,
    pub(super) since_ms: i64,
    pub(super) view: SessionView,
    cut: CancellationToken,
}

/// Takes its entry away at the end.
pub(super) struct Registered {
    registry: Registry,
    id: Uuid,
}

impl Registry {
    /// Lists a session for as long as the answer lives.
    pub(super) fn add(
        &self,
        id: Uuid,
        connection: &Connection,
        (user_id, transport): (UserId, Transport),
        view: SessionView,
    ) -> Registered {
        let entry = Entry {
            user_id,
            transport,
            peer: connection.peer,
            since_ms: connection.listener.state.parts.clock.now_ms(),
            view,
            cut: connection.cut.clone(),
        };
        self.entries().insert(id, entry);
        Registered { registry: self.clone(), id }
    }

    /// The oldest `max`, oldest first, and how many there are.
    pub(super) fn oldest(&self, max: usize) -> (Vec<(Uuid, Entry)>, usize) {
        let entries = self.entries();
        let mut keys: Vec<(i64, Uuid)> =
            entries.iter().map(|(id, entry)| (entry.since_ms, *id)).collect();
        keys.sort_unstable();
        keys.truncate(max);
        let oldest = keys.into_iter().map(|(_, id)| (id, entries[&id].clone()));
        (oldest.collect(), entries.len())
    }

    /// Ends a session's connection at once; `false` if there is none of that id.
    pub(super) fn cut(&self, id: Uuid) -> bool {
        let cut = self.entries().get(&id).map(|entry| entry.cut.clone());
        cut.map(|cut| cut.cancel()).is_some()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.entries().remove(&self.id);
    }
}
