//! What a client that follows its tasks is told, in order, whatever it comes over.
//!
//! Hello; a resync where its position cannot be placed; a snapshot where it wants one; the changes
//! after that; `live` once all that was published at the login has been sent. The tail joins the
//! snapshot without gap or overlap: the session goes on from the very place that the snapshot's
//! transaction shows.
//!
//! Bounds: of a snapshot one part is in memory at a time; [`SNAPSHOTS_MAX`] are open at once, each
//! for [`SNAPSHOT_TIMEOUT`] at most, for the store keeps what they show.

use super::{Connection, State, extract::query_pairs, problem::Problem, registry::Registered};
use crate::{
    auth::Principal,
    hub::{
        From as StartAt, Next, Session, SubscribeError,
        message::{self, Hello},
    },
    position::Position,
    store::{StoreError, TaskSnapshot},
    task::UserId,
};
use axum::http::Uri;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use uuid::Uuid;

/// Snapshots that are read at once; who comes later waits for one to end.
pub(super) const SNAPSHOTS_MAX: usize = 256;

/// Longest time that a snapshot may take; a client that reads it more slowly comes back for a
/// later one.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Most tasks of a part.
const PART_TASKS_MAX: usize = 500;

/// Most bytes of a part, with some room for what is around the tasks.
const PART_BYTES_MAX: usize = 255 * 1_024;

/// Most pongs that wait for their place; further pings share the last.
const PONGS_MAX: usize = 64;

/// What the query of a follower says.
#[derive(Default)]
pub(super) struct FollowQuery {
    pub(super) token: Option<String>,
    pub(super) ticket: Option<String>,
    pub(super) user: Option<String>,
    pub(super) from: Option<String>,
    pub(super) or: Option<String>,
}

impl FollowQuery {
    /// Unknown parameters are passed over: a page may add its own against caches.
    ///
    /// # Errors
    /// See [`query_pairs`].
    pub(super) fn parse(uri: &Uri) -> Result<Self, Problem> {
        let mut query = Self::default();
        for (name, value) in query_pairs(uri)? {
            let field = match name.as_str() {
                "token" => &mut query.token,
                "ticket" => &mut query.ticket,
                "user" => &mut query.user,
                "from" => &mut query.from,
                "or" => &mut query.or,
                _ => continue,
            };
            *field = Some(value);
        }
        Ok(query)
    }
}

/// Where a client starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Start {
    from: From,
    /// A resync is followed by a snapshot.
    or_snapshot: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum From {
    Changes(StartAt),
    Snapshot,
}

impl Start {
    /// Reads `from` (`earliest`, `snapshot`, a position; absent: what comes from now on) and `or`
    /// (absent or `snapshot`).
    pub(super) fn parse(from: Option<&str>, or: Option<&str>) -> Option<Self> {
        let from = match from {
            None => From::Changes(StartAt::Now),
            Some("earliest") => From::Changes(StartAt::Earliest),
            Some("snapshot") => From::Snapshot,
            Some(position) => From::Changes(StartAt::After(position.parse().ok()?)),
        };
        match or {
            None => Some(Self { from, or_snapshot: from == From::Snapshot }),
            Some("snapshot") => Some(Self { from, or_snapshot: true }),
            Some(_) => None,
        }
    }

    /// The same, for a client that has seen all up to a position.
    pub(super) const fn after(self, position: Position) -> Self {
        Self { from: From::Changes(StartAt::After(position)), ..self }
    }

    /// What this does not say, `other` does.
    pub(super) const fn or_else(self, other: Self, has_from: bool) -> Self {
        let from = if has_from { self.from } else { other.from };
        Self { from, or_snapshot: self.or_snapshot || other.or_snapshot }
    }

    /// Whether a snapshot may be sent.
    pub(super) const fn has_snapshot(self) -> bool {
        self.or_snapshot
    }
}

/// What a session goes over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Transport {
    /// A WebSocket, in the form of bare messages.
    PlainSocket,
    /// A WebSocket in `taskwire.v1`.
    Socket,
    /// Server-sent events.
    Events,
    /// A long poll.
    Changes,
}

impl Transport {
    /// As it is shown.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PlainSocket => "websocket (plain)",
            Self::Socket => "websocket",
            Self::Events => "events",
            Self::Changes => "long poll",
        }
    }

    const fn label(self) -> [(&'static str, &'static str); 1] {
        let transport = match self {
            Self::PlainSocket | Self::Socket => "socket",
            Self::Events => "events",
            Self::Changes => "changes",
        };
        [("transport", transport)]
    }

    /// Open sessions that go over it; both kinds of WebSockets are one.
    pub(super) fn sessions(self, state: &State) -> i64 {
        state.parts.metrics.http_sessions.get_or_create(&self.label()).get()
    }
}

/// A session that is counted for as long as this lives.
pub(super) struct Counted {
    state: Arc<State>,
    transport: Transport,
}

impl Counted {
    pub(super) fn new(state: &Arc<State>, transport: Transport) -> Self {
        state.parts.metrics.http_sessions.get_or_create(&transport.label()).inc();
        Self { state: Arc::clone(state), transport }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.state.parts.metrics.http_sessions.get_or_create(&self.transport.label()).dec();
    }
}

/// Documents to send together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Each a whole JSON document.
    pub(super) documents: Vec<Bytes>,
    /// A client that has them may go on after their positions; else what they belong to has not
    /// come whole.
    pub(super) is_resumable: bool,
}

/// Why a client is told nothing more.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client is slower than it may be.
    #[error("the client reads too slowly")]
    Slow,
}

/// One client's place. Dropping it ends its session.
pub(super) struct Follower {
    /// In its hello, and in the list of sessions.
    id: Uuid,
    registered: Option<Registered>,
    counted: Counted,
    session: Session,
    user_id: UserId,
    or_snapshot: bool,
    /// What goes before all else.
    first: Option<Batch>,
    snapshot: Snapshot,
    /// `live` was not told.
    awaits_live: bool,
    pongs: usize,
}

/// A snapshot on its way.
enum Snapshot {
    None,
    Due,
    Open(OpenSnapshot),
}

struct OpenSnapshot {
    tasks: Box<dyn TaskSnapshot>,
    until: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// A follower. Over a plain socket only changes, resyncs and pongs are told.
    ///
    /// # Errors
    /// There are as many sessions as are allowed.
    pub(super) fn new(
        state: &Arc<State>,
        principal: &Principal,
        start: Start,
        transport: Transport,
    ) -> Result<Self, SubscribeError> {
        let (from, is_snapshot) = match start.from {
            From::Changes(from) => (from, false),
            From::Snapshot => (StartAt::Now, true),
        };
        let (mut session, must_resync) = state.parts.hub.subscribe(&principal.user_id, from)?;
        session.mark();
        let position = session.position();
        let has_snapshot = is_snapshot || (must_resync && start.or_snapshot);
        let (id, mut documents) = (Uuid::new_v4(), Vec::new());
        if transport != Transport::PlainSocket {
            documents.push(hello(id, principal, position));
        }
        if must_resync {
            documents.push(message::resync(position));
        }
        Ok(Self {
            id,
            registered: None,
            counted: Counted::new(state, transport),
            session,
            user_id: principal.user_id.clone(),
            or_snapshot: start.or_snapshot,
            first: (!documents.is_empty())
                .then_some(Batch { documents, is_resumable: !has_snapshot }),
            snapshot: if has_snapshot { Snapshot::Due } else { Snapshot::None },
            awaits_live: true,
            pongs: 0,
        })
    }

    /// Lists it among the open sessions, of which an administrator may cut the connection.
    pub(super) fn register(&mut self, connection: &Connection) {
        let who = (self.user_id.clone(), self.counted.transport);
        let registry = &self.counted.state.registry;
        self.registered = Some(registry.add(self.id, connection, who, self.session.view()));
    }

    /// What is to be sent next; waits until there is something. Cancel safe.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub(super) async fn next(&mut self) -> Result<Batch, FollowError> {
        loop {
            if let Some(first) = self.first.take() {
                return Ok(first);
            }
            match &mut self.snapshot {
                Snapshot::None => (),
                Snapshot::Due => {
                    self.snapshot = Snapshot::Open(self.open_snapshot().await?);
                    continue;
                }
                Snapshot::Open(open) => {
                    let (part, has_more) = open.part().await?;
                    if !has_more {
                        self.snapshot = Snapshot::None;
                        self.awaits_live = true;
                        self.session.mark();
                    }
                    return Ok(Batch { documents: vec![part], is_resumable: !has_more });
                }
            }
            match self.session.next().await? {
                Next::Messages(documents) => return Ok(Batch { documents, is_resumable: true }),
                Next::Resync(position) => return Ok(self.resync(position)),
                Next::Mark => {
                    if let Some(batch) = self.marked() {
                        return Ok(batch);
                    }
                }
            }
        }
    }

    /// A pong is due, after all that is published by now.
    pub(super) fn ping(&mut self) {
        self.pongs = (self.pongs + 1).min(PONGS_MAX);
        self.session.mark();
    }

    /// Whether a pong is due.
    pub(super) const fn owes_pong(&self) -> bool {
        self.pongs > 0
    }

    /// Changes that it is behind, once it had come up to the present.
    pub(super) fn lag(&self) -> u64 {
        if self.awaits_live { 0 } else { self.session.lag() }
    }

    fn marked(&mut self) -> Option<Batch> {
        let mut documents = Vec::new();
        let speaks_v1 = self.counted.transport != Transport::PlainSocket;
        if std::mem::take(&mut self.awaits_live) && speaks_v1 {
            documents.push(message::live(self.session.position()));
        }
        let pongs = std::mem::take(&mut self.pongs);
        documents.resize(documents.len() + pongs, Bytes::from_static(message::PONG.as_bytes()));
        (!documents.is_empty()).then_some(Batch { documents, is_resumable: true })
    }

    /// The session lost its place, and goes on from `position`.
    fn resync(&mut self, position: Position) -> Batch {
        if self.or_snapshot {
            self.snapshot = Snapshot::Due;
        }
        let documents = vec![message::resync(position)];
        Batch { documents, is_resumable: !self.or_snapshot }
    }

    /// Opens the snapshot, and moves the session to its place: what came before is in it.
    async fn open_snapshot(&mut self) -> Result<OpenSnapshot, FollowError> {
        let permit = Arc::clone(&self.counted.state.snapshots).acquire_owned().await;
        let _permit = permit.expect("the semaphore is never closed");
        let tasks = self.counted.state.parts.store.snapshot(&self.user_id).await?;
        self.session.skip_to(tasks.position());
        Ok(OpenSnapshot { tasks, until: Instant::now() + SNAPSHOT_TIMEOUT, _permit })
    }
}

impl OpenSnapshot {
    /// The next part, and whether it is not the last, which is empty. Cancel safe.
    async fn part(&mut self) -> Result<(Bytes, bool), FollowError> {
        if Instant::now() > self.until {
            return Err(FollowError::Slow);
        }
        let tasks = self.tasks.next(PART_TASKS_MAX, PART_BYTES_MAX).await?;
        let has_more = !tasks.is_empty();
        Ok((message::snapshot(&tasks, has_more, self.tasks.position()), has_more))
    }
}

fn hello(id: Uuid, principal: &Principal, position: Position) -> Bytes {
    let session = id.simple().to_string();
    let Principal { user_id, expires_at_ms, .. } = principal;
    message::hello(Hello { user_id, session: &session, expires_at_ms: *expires_at_ms }, position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::support::{SOON, start};
    use tokio::{sync::Semaphore, time::timeout};

    fn alice() -> Principal {
        let user_id = UserId::new("alice").unwrap();
        Principal { user_id, is_admin: false, expires_at_ms: None }
    }

    #[tokio::test]
    async fn a_snapshot_waits_for_its_turn() {
        let daemon = start().await;
        let state = &daemon.http.state;
        let all = u32::try_from(SNAPSHOTS_MAX).unwrap();
        let others = Arc::clone(&state.snapshots).acquire_many_owned(all).await.unwrap();
        let from = Start::parse(Some("snapshot"), None).unwrap();
        let mut follower = Follower::new(state, &alice(), from, Transport::Socket).unwrap();
        let hello = follower.next().await.unwrap();
        assert_eq!(message::type_of(&hello.documents[0]).as_deref(), Some("hello"));
        let soon = Duration::from_millis(50);
        assert!(timeout(soon, follower.next()).await.is_err(), "as many as may are read");
        drop(others);
        let part = timeout(SOON, follower.next()).await.unwrap().unwrap();
        assert_eq!(message::type_of(&part.documents[0]).as_deref(), Some("snapshot"));
        assert_eq!(state.snapshots.available_permits(), SNAPSHOTS_MAX, "it has ended");
    }

    #[tokio::test]
    async fn a_session_that_is_trimmed_gets_a_snapshot_if_it_wants_one() {
        let daemon = start().await;
        let state = &daemon.http.state;
        for (or, expected) in [(None, "resync"), (Some("snapshot"), "resync snapshot live")] {
            let from = Start::parse(None, or).unwrap();
            let mut follower = Follower::new(state, &alice(), from, Transport::Socket).unwrap();
            while follower.awaits_live {
                follower.next().await.unwrap();
            }
            let resync = follower.resync(daemon.store.head());
            assert_eq!(resync.is_resumable, or.is_none());
            let mut documents = resync.documents;
            let last = expected.split(' ').next_back().unwrap();
            while message::type_of(documents.last().unwrap()).as_deref() != Some(last) {
                documents.extend(follower.next().await.unwrap().documents);
            }
            let types: Vec<_> =
                documents.iter().filter_map(|text| message::type_of(text)).collect();
            assert_eq!(types.join(" "), expected);
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_takes_too_long_is_given_up() {
        let daemon = start().await;
        let one = Arc::new(Semaphore::new(1));
        let _permit = one.acquire_owned().await.unwrap();
        let tasks = daemon.store.snapshot(&alice().user_id).await.unwrap();
        let mut snapshot = OpenSnapshot { tasks, until: Instant::now() + SOON, _permit };
        snapshot.part().await.unwrap();
        snapshot.until = Instant::now() - Duration::from_millis(1);
        assert!(matches!(snapshot.part().await, Err(FollowError::Slow)));
    }

    #[test]
    fn where_a_client_starts_is_read() {
        let parse = |from, or| Start::parse(from, or);
        let start = |from, or_snapshot| Some(Start { from, or_snapshot });
        let position = Position { epoch: 0xa, run: 1, sequence: 2 };
        let after = From::Changes(StartAt::After(position));
        assert_eq!(parse(None, None), start(From::Changes(StartAt::Now), false));
        assert_eq!(parse(Some("earliest"), None), start(From::Changes(StartAt::Earliest), false));
        assert_eq!(parse(Some("snapshot"), None), start(From::Snapshot, true));
        assert_eq!(parse(Some("a.1.2"), None), start(after, false));
        assert_eq!(parse(Some("a.1.2"), Some("snapshot")), start(after, true));
        for (from, or) in
            [(Some(""), None), (Some("Snapshot"), None), (Some("now"), None), (None, Some(""))]
        {
            assert_eq!(parse(from, or), None, "{from:?} {or:?}");
        }
    }
}
