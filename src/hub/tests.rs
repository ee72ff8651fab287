//! The hub over a real store: who gets what, in every interleaving we can think of.

use super::{From, Hub, Next, Options, PublishedChange, Session, SubscribeError};
use crate::{
    metrics::Metrics,
    position::Position,
    store::{
        CommitDurability, NewChange, Store, WriteSet,
        redb::{self, RedbStore},
    },
    task::UserId,
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};
use tempfile::TempDir;

const WIDE: Options = Options {
    recent_changes_max: 100,
    recent_bytes_max: 1 << 20,
    sessions_per_user_max: 100,
    sessions_max: 1_000,
};
const KEEP_ALL: (Duration, u64) = (Duration::from_secs(3_600), 1_000_000);

fn user(number: u8) -> UserId {
    UserId::new(&format!("u{number}")).unwrap()
}

struct Fixture {
    hub: Hub,
    store: Arc<dyn Store>,
    /// Committed, not yet published.
    pending: Vec<PublishedChange>,
    /// All committed changes, by user.
    committed: HashMap<u8, Vec<u64>>,
}

impl Fixture {
    async fn new(dir: &TempDir, options: Options, keep: (Duration, u64)) -> Self {
        let store_options = redb::Options {
            dedup_window: keep,
            changes_keep: keep,
            cache_bytes: 8 << 20,
            is_log_synced: true,
        };
        let path = dir.path().join("tasks.redb");
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&path, store_options).unwrap());
        store.start().await.unwrap();
        let hub = Hub::new(options, Arc::clone(&store), Arc::new(Metrics::new()));
        Self { hub, store, pending: Vec::new(), committed: HashMap::new() }
    }

    async fn commit(&mut self, users: &[u8]) {
        let message = |number: &u8| Bytes::from(format!(r#"{{"type":"x","user":{number}"#));
        let changes = users.iter().map(|number| NewChange {
            user_id: user(*number),
            message: message(number),
            timestamp_ms: 1,
        });
        let writes = WriteSet { changes: changes.collect(), ..WriteSet::default() };
        let first = self.store.commit(writes, CommitDurability::Deferred).await.unwrap();
        for (number, sequence) in users.iter().zip(first..) {
            self.committed.entry(*number).or_default().push(sequence);
            let (user_id, message) = (user(*number), message(number));
            self.pending.push(PublishedChange { user_id, sequence, message });
        }
    }

    fn publish(&mut self) {
        self.hub.publish(std::mem::take(&mut self.pending));
    }

    async fn deliver(&mut self, users: &[u8]) {
        self.commit(users).await;
        self.publish();
    }

    fn subscribe(&self, number: u8, from: From) -> Session {
        let (session, must_resync) = self.hub.subscribe(&user(number), from).unwrap();
        assert!(!must_resync);
        session
    }

    fn committed_after(&self, number: u8, sequence: u64) -> Vec<u64> {
        let of_user = self.committed.get(&number).into_iter().flatten().copied();
        of_user.filter(|committed| *committed > sequence).collect()
    }
}

/// The position that a message ends in, and whose it is.
fn parse(message: &Bytes) -> (Option<u8>, Position) {
    let json: serde_json::Value = serde_json::from_slice(message).unwrap();
    let owner = json["user"].as_u64().map(|number| u8::try_from(number).unwrap());
    (owner, json["pos"].as_str().unwrap().parse().unwrap())
}

fn messages(next: Next) -> Vec<Bytes> {
    match next {
        Next::Messages(messages) => messages,
        other => panic!("{other:?}"),
    }
}

/// What the session has right now.
fn ready(session: &mut Session) -> Vec<Position> {
    let mut positions = Vec::new();
    while let Some(next) = session.next().now_or_never() {
        let messages = messages(next.unwrap());
        assert!(!messages.is_empty(), "an answer holds at least one message");
        positions.extend(messages.iter().map(|message| parse(message).1));
    }
    positions
}

fn sequences(session: &mut Session) -> Vec<u64> {
    ready(session).into_iter().map(|position| position.sequence).collect()
}

#[tokio::test]
async fn each_user_gets_their_own_changes_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(&dir, WIDE, KEEP_ALL).await;
    fixture.deliver(&[1, 2]).await;
    let mut now = fixture.subscribe(1, From::Now);
    let mut all = fixture.subscribe(1, From::Earliest);
    let mut other = fixture.subscribe(2, From::Now);
    fixture.deliver(&[2, 1, 1, 3]).await;
    assert_eq!(sequences(&mut now), [4, 5]);
    assert_eq!(sequences(&mut all), [1, 4, 5]);
    let messages = messages(other.next().await.unwrap());
    assert_eq!(messages.len(), 1);
    assert_eq!(parse(&messages[0]), (Some(2), fixture.store.position_of(3)));
    assert!(sequences(&mut other).is_empty());
    assert_eq!(now.position().sequence, 6, "a session that has seen all is at the head");
}

#[tokio::test]
async fn a_change_committed_and_not_yet_published_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(&dir, WIDE, KEEP_ALL).await;
    let mut early = fixture.subscribe(1, From::Now);
    fixture.commit(&[1, 1]).await;
    let mut between = fixture.subscribe(1, From::Earliest);
    fixture.publish();
    assert_eq!(sequences(&mut early), [1, 2]);
    assert_eq!(sequences(&mut between), [1, 2]);
    let after = fixture.store.position_of(1);
    assert_eq!(sequences(&mut fixture.subscribe(1, From::After(after))), [2]);
}

#[tokio::test]
async fn a_session_that_does_not_read_costs_bounded_memory_and_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { recent_changes_max: 10, recent_bytes_max: 300, ..WIDE };
    let mut fixture = Fixture::new(&dir, options, KEEP_ALL).await;
    let mut slow = fixture.subscribe(1, From::Now);
    let mut quick = fixture.subscribe(1, From::Now);
    for _ in 0..200 {
        fixture.deliver(&[1, 2]).await;
        assert_eq!(sequences(&mut quick).len(), 1);
        let shard = fixture.hub.shard(&user(1));
        assert!(shard[&user(1)].lock().held_bytes() <= 300);
    }
    assert_eq!(sequences(&mut slow), fixture.committed_after(1, 0));
    let shard = fixture.hub.shard(&user(1));
    assert_eq!(shard[&user(1)].lock().held_bytes(), 0, "what all have seen is dropped");
}

#[tokio::test]
async fn messages_come_in_portions_of_bounded_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture =
        Fixture::new(&dir, Options { recent_changes_max: 5_000, ..WIDE }, KEEP_ALL).await;
    let mut live = fixture.subscribe(1, From::Now);
    for _ in 0..30 {
        fixture.deliver(&[1; 100]).await;
    }
    for session in [&mut live, &mut fixture.subscribe(1, From::Earliest)] {
        let mut found = 0;
        while found < 3_000 {
            let messages = messages(session.next().await.unwrap());
            found += messages.len();
            // Replay bounds the stored bytes; positions come on top.
            assert!(messages.iter().map(Bytes::len).sum::<usize>() < 128 * 1024);
        }
        assert_eq!(found, 3_000);
    }
}

#[tokio::test]
async fn a_mark_is_told_once_after_all_that_was_published_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { recent_changes_max: 3, ..WIDE };
    let mut fixture = Fixture::new(&dir, options, KEEP_ALL).await;
    let mut behind = fixture.subscribe(1, From::Now);
    for _ in 0..30 {
        fixture.deliver(&[1, 2]).await;
    }
    behind.mark();
    fixture.deliver(&[1]).await;
    let mut found = 0;
    while let Next::Messages(messages) = behind.next().await.unwrap() {
        found += messages.len();
    }
    assert!((30..=31).contains(&found), "the mark came after {found}");
    assert_eq!(found + sequences(&mut behind).len(), 31);

    // Also where all that is left is others'.
    fixture.deliver(&[2]).await;
    behind.mark();
    assert!(matches!(behind.next().await.unwrap(), Next::Mark));
    assert!(behind.next().now_or_never().is_none(), "told once");
}

#[tokio::test]
async fn a_trimmed_session_gets_one_resync_and_goes_on_from_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { recent_changes_max: 3, ..WIDE };
    let mut fixture = Fixture::new(&dir, options, (Duration::ZERO, 5)).await;
    let mut slow = fixture.subscribe(1, From::Now);
    let start = slow.position();
    for _ in 0..30 {
        fixture.deliver(&[1]).await;
    }
    fixture.store.trim(1_000).await.unwrap();
    let head = fixture.store.head();
    assert!(matches!(slow.next().await.unwrap(), Next::Resync(at) if at == head));
    assert!(sequences(&mut slow).is_empty());
    fixture.deliver(&[1]).await;
    assert_eq!(sequences(&mut slow), [31]);
    let (mut late, must_resync) = fixture.hub.subscribe(&user(1), From::After(start)).unwrap();
    assert!(must_resync);
    assert_eq!(late.position(), fixture.store.head());
    assert!(sequences(&mut late).is_empty());
    assert_eq!(sequences(&mut fixture.subscribe(1, From::Earliest)), [26, 27, 28, 29, 30, 31]);
}

#[tokio::test]
async fn a_position_of_a_killed_run_resumes_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(&dir, WIDE, KEEP_ALL).await;
    fixture.deliver(&[1, 1]).await;
    let durable = CommitDurability::Immediate;
    fixture.store.commit(WriteSet::default(), durable).await.unwrap();
    let mut session = fixture.subscribe(1, From::Now);
    fixture.deliver(&[1, 2]).await;
    assert_eq!(sequences(&mut session), [3]);
    let (seen, kept) = (session.position(), fixture.store.position_of(1));
    drop((session, fixture));

    let mut fixture = Fixture::new(&dir, WIDE, KEEP_ALL).await;
    let mut lost = fixture.subscribe(1, From::After(seen));
    let mut old = fixture.subscribe(1, From::After(kept));
    // The log is read again: the same changes are made.
    fixture.deliver(&[1, 2, 1]).await;
    let positions = ready(&mut lost);
    assert_eq!(positions.iter().map(|at| at.sequence).collect::<Vec<_>>(), [3, 5]);
    assert!(positions.iter().all(|at| at.run == seen.run + 1));
    assert_eq!(sequences(&mut old), [2, 3, 5]);
}

#[tokio::test]
async fn sessions_are_bounded_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { sessions_per_user_max: 2, sessions_max: 3, ..WIDE };
    let fixture = Fixture::new(&dir, options, KEEP_ALL).await;
    let hub = &fixture.hub;
    let first = fixture.subscribe(1, From::Now);
    let second = fixture.subscribe(1, From::Now);
    let refused = |number| hub.subscribe(&user(number), From::Now).err();
    assert!(matches!(refused(1), Some(SubscribeError::TooMany)));
    let third = fixture.subscribe(2, From::Now);
    assert!(matches!(refused(3), Some(SubscribeError::TooMany)));
    assert_eq!((hub.stats().sessions, hub.stats().users), (3, 2));
    drop(first);
    drop(fixture.subscribe(3, From::Now));
    assert_eq!((hub.stats().sessions, hub.stats().users), (2, 2));
    drop((second, third));
    assert_eq!((hub.stats().sessions, hub.stats().users), (0, 0));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_batch_wakes_the_sessions_of_its_users_once_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(&dir, WIDE, KEEP_ALL).await;
    let (mut mine, mut other) = (fixture.subscribe(1, From::Now), fixture.subscribe(2, From::Now));
    let (mine_woken, other_woken) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let mut mine_next = Box::pin(mine.next());
    let mut other_next = Box::pin(other.next());
    let waker = Waker::from(Arc::clone(&mine_woken));
    assert!(mine_next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let waker = Waker::from(Arc::clone(&other_woken));
    assert!(other_next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    fixture.deliver(&[1, 1, 3, 1]).await;
    assert_eq!(mine_woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(other_woken.0.load(Ordering::Relaxed), 0);
    assert_eq!(messages(mine_next.await.unwrap()).len(), 3);
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<u8>),
    Publish,
    Subscribe(u8, u8),
    Read(usize),
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(0..3_u8, 1..6).prop_map(Step::Commit),
        3 => Just(Step::Publish),
        2 => (0..3_u8, 0..4_u8).prop_map(|(user, from)| Step::Subscribe(user, from)),
        4 => any::<usize>().prop_map(Step::Read),
        1 => any::<usize>().prop_map(Step::End),
    ]
}

/// A session, whose it is, where it started, and what it got.
struct Follower {
    session: Session,
    owner: u8,
    start: u64,
    got: Vec<u64>,
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { recent_changes_max: 4, ..WIDE };
    let mut fixture = Fixture::new(&dir, options, KEEP_ALL).await;
    let mut followers: Vec<Follower> = Vec::new();
    for step in steps {
        match step {
            Step::Commit(users) => fixture.commit(&users).await,
            Step::Publish => fixture.publish(),
            Step::Subscribe(owner, from) => {
                let head = fixture.store.head().sequence;
                let (from, start) = match from {
                    0 => (From::Now, head),
                    1 => (From::Earliest, 0),
                    _ => (From::After(fixture.store.position_of(head / 2)), head / 2),
                };
                let session = fixture.subscribe(owner, from);
                followers.push(Follower { session, owner, start, got: Vec::new() });
            }
            Step::Read(_) if followers.is_empty() => (),
            Step::Read(at) => {
                let count = followers.len();
                let follower = &mut followers[at % count];
                if let Some(next) = follower.session.next().now_or_never() {
                    let positions =
                        messages(next.unwrap()).iter().map(|m| parse(m).1.sequence).collect();
                    follower.got.extend::<Vec<u64>>(positions);
                }
            }
            Step::End(at) => {
                let count = followers.len().max(1);
                if at % count < followers.len() {
                    followers.swap_remove(at % count);
                }
            }
        }
    }
    fixture.publish();
    for mut follower in followers {
        follower.got.extend(sequences(&mut follower.session));
        let expected = fixture.committed_after(follower.owner, follower.start);
        assert_eq!(follower.got, expected, "user {} from {}", follower.owner, follower.start);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn any_interleaving_gives_each_session_its_changes_in_order_once(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}

/// Subscribes again and again while changes are published, and checks what came.
async fn follow(hub: Hub, owner: u8, last: u64) -> Vec<(u64, Vec<u64>)> {
    let mut sessions = Vec::new();
    loop {
        let (mut session, _) = hub.subscribe(&user(owner), From::Now).unwrap();
        let (start, mut got) = (session.position().sequence, Vec::new());
        while got.len() < 20 && got.last() != Some(&last) {
            if start >= last {
                break;
            }
            let messages = messages(session.next().await.unwrap());
            got.extend(messages.iter().map(|message| parse(message).1.sequence));
        }
        let is_end = start >= last || got.last() == Some(&last);
        sessions.push((start, got));
        if is_end {
            return sessions;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_that_join_while_changes_are_published_miss_and_repeat_nothing() {
    const BATCHES: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let options = Options { recent_changes_max: 8, ..WIDE };
    let mut fixture = Fixture::new(&dir, options, KEEP_ALL).await;
    // The last change of every user, so that each follower knows its end.
    let last_of = |owner: u8| u64::try_from(BATCHES).unwrap() * 4 + u64::from(owner) + 1;
    let mut followers = tokio::task::JoinSet::new();
    for owner in [0, 0, 1, 1] {
        let hub = fixture.hub.clone();
        followers.spawn(async move { (owner, follow(hub, owner, last_of(owner)).await) });
    }
    for _ in 0..BATCHES {
        fixture.deliver(&[0, 1, 0, 1]).await;
    }
    fixture.deliver(&[0, 1]).await;
    while let Some(follower) = followers.join_next().await {
        let (owner, sessions) = follower.unwrap();
        for (start, got) in sessions {
            let expected = fixture.committed_after(owner, start);
            assert_eq!(got, expected[..got.len()], "user {owner} from {start}");
        }
    }
}

#[test]
fn an_idle_session_is_small() {
    // Beside the future of `next`, which the socket's worker holds anyway.
    let session = size_of::<Session>();
    let entry = size_of::<super::Listener>() + size_of::<UserId>() + 4 * size_of::<Option<u64>>();
    assert!(session + entry < 512, "{session} + {entry} bytes");
}
