//! The worker with paused time and a store in memory.

use super::*;
use crate::{
    broker::group::{Joined, Protocol, State, Synced},
    position::Partition,
};
use bytes::Bytes;
use std::{future::poll_fn, pin::pin, task::Poll};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

const SESSION: Duration = Duration::from_secs(10);
const NOW_MS: i64 = 1_800_000_000_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What `broker.redb` would hold, writes one by one, each after a permit.
#[derive(Clone, Debug)]
struct MemoryStore {
    state: Arc<Mutex<MemoryState>>,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct MemoryState {
    offsets: BTreeMap<(String, TopicPartition), CommittedOffset>,
    writes: usize,
    is_broken: bool,
}

impl MemoryStore {
    fn new(permits: usize) -> Self {
        Self { state: Arc::default(), permits: Arc::new(Semaphore::new(permits)) }
    }

    async fn write(&self, change: impl FnOnce(&mut MemoryState)) -> Result<(), MetaError> {
        self.permits.acquire().await.expect("never closed").forget();
        let mut state = self.state.lock().expect("no panic while it is held");
        state.writes += 1;
        if state.is_broken {
            return Err(MetaError::Database("broken".to_owned()));
        }
        change(&mut state);
        Ok(())
    }

    fn break_down(&self) {
        self.state.lock().expect("no panic while it is held").is_broken = true;
    }

    fn writes(&self) -> usize {
        self.state.lock().expect("no panic while it is held").writes
    }

    fn len(&self) -> usize {
        self.state.lock().expect("no panic while it is held").offsets.len()
    }
}

impl OffsetStore for MemoryStore {
    async fn commit(
        &self,
        group: Arc<str>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), MetaError> {
        let keyed = offsets.into_iter().map(|(at, offset)| ((group.to_string(), at), offset));
        self.write(|state| state.offsets.extend(keyed)).await
    }

    async fn delete(
        &self,
        group: Arc<str>,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Result<(), MetaError> {
        let is_meant = |(of, at): &(String, TopicPartition)| {
            **of == *group && partitions.as_ref().is_none_or(|these| these.contains(at))
        };
        self.write(|state| state.offsets.retain(|key, _| !is_meant(key))).await
    }
}

/// A coordinator without a disk, for the tests of the handlers.
pub(in crate::broker) fn in_memory(progress: ReservedProgress) -> Coordinator {
    let store = MemoryStore::new(Semaphore::MAX_PERMITS);
    let facts = Facts { progress, ..facts() };
    start_with(Options::new("taskwire"), store, Clock::manual(NOW_MS), (facts, Vec::new()))
}

/// Every topic is there but "gone".
fn facts() -> Facts {
    Facts {
        progress: ReservedProgress::default(),
        has_partition: Arc::new(|at| at.topic.as_str() != "gone"),
    }
}

fn coordinator() -> Coordinator {
    in_memory(ReservedProgress::default())
}

fn with_store(store: &MemoryStore, clock: &Clock) -> Coordinator {
    with_options(store, clock, Options::new("taskwire"))
}

fn with_options(store: &MemoryStore, clock: &Clock, options: Options) -> Coordinator {
    start_with(options, store.clone(), clock.clone(), (facts(), Vec::new()))
}

/// A later start on what the store holds.
fn started_again(store: &MemoryStore, clock: &Clock) -> Coordinator {
    let state = store.state.lock().expect("no panic while it is held");
    let rows = state.offsets.iter();
    let loaded = rows.map(|((group, at), offset)| (group.clone(), at.clone(), offset.clone()));
    let loaded = (facts(), loaded.collect());
    drop(state);
    start_with(Options::new("taskwire"), store.clone(), clock.clone(), loaded)
}

fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicName::new(topic).expect("a legal name"),
        partition: Partition::new(partition).expect("not negative"),
    }
}

fn offset(offset: i64) -> NewOffset {
    let offset = Offset::new(offset).expect("not negative");
    NewOffset { offset, leader_epoch: 3, metadata: "mine".to_owned() }
}

fn simple() -> Committer {
    Committer { generation: -1, ..Committer::default() }
}

fn member(id: &str, generation: i32) -> Committer {
    Committer { identity: identity(id), generation }
}

fn identity(id: &str) -> Identity {
    Identity { member_id: id.to_owned(), instance_id: None }
}

fn join_request(id: &str, fresh: &str) -> JoinRequest {
    JoinRequest {
        identity: identity(id),
        fresh_member_id: Arc::from(fresh),
        client_id: Arc::from("client"),
        client_host: Arc::from("/127.0.0.1"),
        session_timeout: SESSION,
        rebalance_timeout: Duration::from_secs(60),
        protocol_type: Arc::from("consumer"),
        protocols: vec![Protocol { name: Arc::from("range"), metadata: Bytes::from_static(b"t") }],
        requires_known_id: false,
        can_skip_assignment: false,
    }
}

fn sync_request(id: &str, generation: i32, assignments: &[(&str, &'static str)]) -> SyncRequest {
    let assignments = assignments.iter();
    SyncRequest {
        identity: identity(id),
        generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments.map(|(id, b)| ((*id).to_owned(), Bytes::from(*b))).collect(),
    }
}

async fn join(coordinator: &Coordinator, id: &str, fresh: &str) -> Joined {
    coordinator.join("g", join_request(id, fresh)).await.expect("joins")
}

async fn committed(coordinator: &Coordinator, group: &str, at: &TopicPartition) -> Option<i64> {
    let fetched = coordinator.fetch(group, Some(vec![at.clone()])).await.expect("runs");
    assert_eq!(fetched.len(), 1);
    fetched[0].1.as_ref().map(|committed| committed.offset.get())
}

/// Polls once, so that the request is with the worker, and lets the worker take it.
async fn begin<F: Future>(mut future: std::pin::Pin<&mut F>) {
    let is_open = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending()));
    assert!(is_open.await, "answered too early");
    // Time is paused: this returns when nobody else has anything to do.
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn new_group_has_its_assignment_without_any_wait() {
    let coordinator = coordinator();
    let started = Instant::now();
    let joined = join(&coordinator, "", "a").await;
    assert_eq!((joined.generation, &*joined.leader), (1, "a"));
    let synced = coordinator.sync("g", sync_request("a", 1, &[("a", "p0")])).await;
    assert_eq!(synced.expect("assigned").assignment, "p0");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn three_members_share_the_work_and_take_over_from_one_that_dies() {
    let coordinator = coordinator();
    join(&coordinator, "", "a").await;
    let (b, c) = (coordinator.clone(), coordinator.clone());
    let mut b = pin!(b.join("g", join_request("", "b")));
    let mut c = pin!(c.join("g", join_request("", "c")));
    begin(b.as_mut()).await;
    begin(c.as_mut()).await;
    let a = join(&coordinator, "a", "x").await;
    assert_eq!((a.generation, a.members.len()), (2, 3));
    assert_eq!((b.await.expect("joins").generation, c.await.expect("joins").generation), (2, 2));
    let (all, follower) = (coordinator.clone(), coordinator.clone());
    let mut b = pin!(follower.sync("g", sync_request("b", 2, &[])));
    begin(b.as_mut()).await;
    let assignments = [("a", "0"), ("b", "1"), ("c", "2")];
    let leader = all.sync("g", sync_request("a", 2, &assignments)).await;
    let assignment = |synced: SyncReply| synced.map(|Synced { assignment, .. }| assignment);
    assert_eq!(assignment(leader), Ok(Bytes::from("0")));
    assert_eq!(assignment(b.await), Ok(Bytes::from("1")));
    // c never asks for its assignment nor sends a heartbeat; the others go on.
    for _ in 0..4 {
        sleep(Duration::from_secs(3)).await;
        for id in ["a", "b"] {
            let _ = coordinator.heartbeat("g", member(id, 2)).await;
        }
    }
    let rebalancing = Err(ErrorCode::RebalanceInProgress);
    assert_eq!(coordinator.heartbeat("g", member("a", 2)).await, rebalancing);
    let mut b = pin!(coordinator.join("g", join_request("b", "x")));
    begin(b.as_mut()).await;
    let a = join(&coordinator, "a", "x").await;
    assert_eq!((a.generation, a.members.len()), (3, 2));
    assert_eq!(b.await.expect("joins").generation, 3);
}

#[tokio::test(start_paused = true)]
async fn silent_member_is_gone_when_its_session_ends() {
    let coordinator = coordinator();
    join(&coordinator, "", "a").await;
    sleep(SESSION - Duration::from_millis(1)).await;
    assert_eq!(coordinator.describe("g").await.expect("runs").state, State::CompletingRebalance);
    sleep(Duration::from_millis(2)).await;
    assert_eq!(coordinator.describe("g").await.expect("runs").state, State::Empty);
}

#[tokio::test(start_paused = true)]
async fn client_that_goes_away_while_it_waits_does_not_hold_up_the_group() {
    let coordinator = coordinator();
    join(&coordinator, "", "a").await;
    let gone = timeout(Duration::from_secs(1), coordinator.join("g", join_request("", "b")));
    assert!(gone.await.is_err());
    assert_eq!(join(&coordinator, "a", "x").await.members.len(), 2);
    sleep(SESSION / 2).await;
    assert_eq!(coordinator.heartbeat("g", member("a", 2)).await, Ok(()));
    sleep(SESSION / 2 + Duration::from_millis(1)).await;
    assert_eq!(join(&coordinator, "a", "x").await.members.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn commit_is_answered_and_seen_when_it_is_durable() {
    let store = MemoryStore::new(0);
    let coordinator = with_store(&store, &Clock::manual(NOW_MS));
    let at = place("t", 0);
    let mut first = pin!(coordinator.commit("g", simple(), vec![(at.clone(), offset(5))]));
    begin(first.as_mut()).await;
    assert_eq!(committed(&coordinator, "g", &at).await, None);
    // Other groups, and this one's heartbeats, do not wait for the disk.
    assert_eq!(coordinator.describe("g").await.expect("runs").state, State::Empty);
    // What comes meanwhile goes to the disk together, in order.
    let mut second = pin!(coordinator.commit("g", simple(), vec![(at.clone(), offset(6))]));
    let mut third = pin!(coordinator.commit("g", simple(), vec![(at.clone(), offset(4))]));
    begin(second.as_mut()).await;
    begin(third.as_mut()).await;
    store.permits.add_permits(1);
    assert_eq!(first.await, Ok(()));
    assert_eq!(committed(&coordinator, "g", &at).await, Some(5));
    store.permits.add_permits(1);
    assert_eq!((second.await, third.await), (Ok(()), Ok(())));
    assert_eq!(committed(&coordinator, "g", &at).await, Some(4));
    assert_eq!(store.writes(), 2);
}

#[tokio::test(start_paused = true)]
async fn commit_that_the_disk_refuses_changes_nothing() {
    let store = MemoryStore::new(10);
    let coordinator = with_store(&store, &Clock::manual(NOW_MS));
    let at = place("t", 0);
    let commit = |number| coordinator.commit("g", simple(), vec![(at.clone(), offset(number))]);
    assert_eq!(commit(5).await, Ok(()));
    store.break_down();
    assert_eq!(commit(6).await, Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(committed(&coordinator, "g", &at).await, Some(5));
}

#[tokio::test(start_paused = true)]
async fn commits_that_wait_are_bounded() {
    let store = MemoryStore::new(0);
    let options = Options { commits_pending_max: 1, ..Options::new("taskwire") };
    let coordinator = with_options(&store, &Clock::manual(NOW_MS), options);
    let commit = || coordinator.commit("g", simple(), vec![(place("t", 0), offset(1))]);
    let mut first = pin!(commit());
    begin(first.as_mut()).await;
    assert_eq!(commit().await, Err(ErrorCode::CoordinatorNotAvailable));
    store.permits.add_permits(2);
    assert_eq!(first.await, Ok(()));
    assert_eq!(commit().await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn commit_of_a_stranger_is_refused() {
    let coordinator = coordinator();
    let offsets = || vec![(place("t", 0), offset(1))];
    let refused = coordinator.commit("g", member("a", 1), offsets()).await;
    assert_eq!(refused, Err(ErrorCode::IllegalGeneration));
    join(&coordinator, "", "a").await;
    coordinator.sync("g", sync_request("a", 1, &[])).await.expect("assigned");
    assert_eq!(coordinator.commit("g", member("a", 1), offsets()).await, Ok(()));
    let unknown = Err(ErrorCode::UnknownMemberId);
    assert_eq!(coordinator.commit("g", simple(), offsets()).await, unknown);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_an_earlier_run_are_there_at_start() {
    let store = MemoryStore::new(10);
    let NewOffset { offset, leader_epoch, metadata } = offset(7);
    let loaded = CommittedOffset { offset, leader_epoch, metadata, committed_at_ms: NOW_MS };
    let loaded = vec![("old".to_owned(), place("t", 1), loaded)];
    let options = Options::new("taskwire");
    let coordinator = start_with(options, store, Clock::manual(NOW_MS), (facts(), loaded));
    assert_eq!(committed(&coordinator, "old", &place("t", 1)).await, Some(7));
    assert_eq!(coordinator.fetch("old", None).await.expect("runs").len(), 1);
    assert_eq!(coordinator.fetch("other", None).await, Ok(Vec::new()));
    assert_eq!(coordinator.describe("old").await.expect("runs").state, State::Empty);
    let listed = coordinator.list().await.expect("runs");
    let listed: Vec<_> = listed.iter().map(|group| (group.group.as_str(), group.state)).collect();
    assert_eq!(listed, [("old", "Empty"), ("taskwire", "Stable")]);
}

#[tokio::test(start_paused = true)]
async fn empty_group_is_deleted_with_its_offsets() {
    let store = MemoryStore::new(10);
    let coordinator = with_store(&store, &Clock::manual(NOW_MS));
    assert_eq!(coordinator.delete("g").await, Err(ErrorCode::GroupIdNotFound));
    join(&coordinator, "", "a").await;
    coordinator.sync("g", sync_request("a", 1, &[])).await.expect("assigned");
    let offsets = vec![(place("t", 0), offset(1))];
    assert_eq!(coordinator.commit("g", member("a", 1), offsets).await, Ok(()));
    assert_eq!(coordinator.delete("g").await, Err(ErrorCode::NonEmptyGroup));
    assert_eq!(coordinator.leave("g", vec![identity("a")]).await, Ok(vec![Ok(())]));
    assert_eq!(coordinator.delete("g").await, Ok(()));
    assert_eq!(store.len(), 0);
    assert_eq!(coordinator.describe("g").await.expect("runs").state, State::Dead);
    assert_eq!(coordinator.delete("g").await, Err(ErrorCode::GroupIdNotFound));
}

#[tokio::test(start_paused = true)]
async fn offsets_of_an_empty_group_expire_after_the_retention_time() {
    let store = MemoryStore::new(10);
    let clock = Clock::manual(NOW_MS);
    let coordinator = with_store(&store, &clock);
    let offsets = || vec![(place("t", 0), offset(1))];
    assert_eq!(coordinator.commit("left", simple(), offsets()).await, Ok(()));
    let later = |days: u32| {
        let passed = i64::try_from((DAY * days).as_millis()).expect("a few days");
        clock.set(NOW_MS + passed);
        sleep(DAY * days)
    };
    later(6).await;
    assert_eq!(store.len(), 1);
    assert_eq!(coordinator.commit("new", simple(), offsets()).await, Ok(()));
    later(8).await;
    assert_eq!(committed(&coordinator, "left", &place("t", 0)).await, None);
    assert_eq!(committed(&coordinator, "new", &place("t", 0)).await, Some(1));
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn deleted_topic_takes_its_offsets_along() {
    let store = MemoryStore::new(10);
    let coordinator = with_store(&store, &Clock::manual(NOW_MS));
    let offsets = vec![(place("t", 0), offset(1)), (place("kept", 0), offset(2))];
    assert_eq!(coordinator.commit("g", simple(), offsets).await, Ok(()));
    coordinator.forget_topic(&place("t", 0).topic).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(committed(&coordinator, "g", &place("t", 0)).await, None);
    assert_eq!(committed(&coordinator, "g", &place("kept", 0)).await, Some(2));
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn commit_on_its_way_does_not_outlive_its_topic() {
    let store = MemoryStore::new(0);
    let coordinator = with_store(&store, &Clock::manual(NOW_MS));
    let offsets = || vec![(place("t", 0), offset(1)), (place("kept", 0), offset(2))];
    let mut at_disk = pin!(coordinator.commit("g", simple(), offsets()));
    let mut waiting = pin!(coordinator.commit("g", simple(), offsets()));
    begin(at_disk.as_mut()).await;
    begin(waiting.as_mut()).await;
    coordinator.forget_topic(&place("t", 0).topic).await;
    store.permits.add_permits(10);
    assert_eq!((at_disk.await, waiting.await), (Ok(()), Ok(())));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(committed(&coordinator, "g", &place("t", 0)).await, None);
    assert_eq!(committed(&coordinator, "g", &place("kept", 0)).await, Some(2));
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn commit_for_a_topic_that_just_went_leaves_nothing() {
    let store = MemoryStore::new(10);
    let coordinator = with_store(&store, &Clock::manual(NOW_MS));
    let offsets = vec![(place("gone", 0), offset(1)), (place("kept", 0), offset(2))];
    assert_eq!(coordinator.commit("g", simple(), offsets).await, Ok(()));
    assert_eq!(committed(&coordinator, "g", &place("gone", 0)).await, None);
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn offsets_that_a_crash_left_of_a_deleted_topic_are_dropped_at_start() {
    let store = MemoryStore::new(10);
    let NewOffset { offset, leader_epoch, metadata } = offset(7);
    let row = CommittedOffset { offset, leader_epoch, metadata, committed_at_ms: NOW_MS };
    for topic in ["gone", "kept"] {
        let key = ("g".to_owned(), place(topic, 0));
        store.state.lock().expect("no panic").offsets.insert(key, row.clone());
    }
    let coordinator = started_again(&store, &Clock::manual(NOW_MS));
    assert_eq!(committed(&coordinator, "g", &place("gone", 0)).await, None);
    assert_eq!(committed(&coordinator, "g", &place("kept", 0)).await, Some(7));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(store.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn offsets_expire_however_often_the_daemon_starts() {
    let store = MemoryStore::new(10);
    let clock = Clock::manual(NOW_MS);
    let coordinator = with_store(&store, &clock);
    let offsets = vec![(place("t", 0), offset(1))];
    assert_eq!(coordinator.commit("left", simple(), offsets).await, Ok(()));
    let mut coordinator = coordinator;
    for day in 1..=8_i64 {
        clock.set(NOW_MS + day * 24 * 60 * 60 * 1000);
        coordinator = started_again(&store, &clock);
        sleep(Duration::from_secs(60 * 60)).await;
        assert_eq!(store.len(), usize::from(day < 8), "day {day}");
    }
    drop(coordinator);
}

#[tokio::test(start_paused = true)]
async fn group_that_lived_without_commits_keeps_its_offsets_over_a_start() {
    let store = MemoryStore::new(100);
    let clock = Clock::manual(NOW_MS);
    let coordinator = with_store(&store, &clock);
    join(&coordinator, "", "a").await;
    coordinator.sync("g", sync_request("a", 1, &[])).await.expect("assigned");
    let offsets = vec![(place("t", 0), offset(1)), (place("u", 0), offset(2))];
    assert_eq!(coordinator.commit("g", member("a", 1), offsets).await, Ok(()));
    for day in 1..=8_i64 {
        clock.set(NOW_MS + day * 24 * 60 * 60 * 1000);
        for _ in 0..200 {
            sleep(Duration::from_secs(5)).await;
            assert_eq!(coordinator.heartbeat("g", member("a", 1)).await, Ok(()));
        }
    }
    // A sign of life a day, each of one offset.
    assert_eq!(store.writes(), 9);
    drop(coordinator);
    let coordinator = started_again(&store, &clock);
    sleep(Duration::from_secs(60 * 60)).await;
    assert_eq!(committed(&coordinator, "g", &place("t", 0)).await, Some(1));
    assert_eq!(committed(&coordinator, "g", &place("u", 0)).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn bytes_of_commits_are_bounded_on_their_way_and_kept() {
    let wordy = |topic: &str| {
        let metadata = "x".repeat(1000);
        vec![(place(topic, 0), NewOffset { metadata, ..offset(1) })]
    };
    let store = MemoryStore::new(0);
    let options = Options {
        commit_bytes_pending_max: 2000,
        offset_bytes_max: 3500,
        ..Options::new("taskwire")
    };
    let coordinator = with_options(&store, &Clock::manual(NOW_MS), options);
    let mut first = pin!(coordinator.commit("g", simple(), wordy("a")));
    begin(first.as_mut()).await;
    let refused = coordinator.commit("h", simple(), wordy("a")).await;
    assert_eq!(refused, Err(ErrorCode::CoordinatorNotAvailable));
    store.permits.add_permits(100);
    assert_eq!(first.await, Ok(()));
    for _ in 0..5 {
        assert_eq!(coordinator.commit("g", simple(), wordy("a")).await, Ok(()));
    }
    assert_eq!(coordinator.commit("h", simple(), wordy("a")).await, Ok(()));
    assert_eq!(coordinator.commit("i", simple(), wordy("a")).await, Ok(()));
    let refused = coordinator.commit("j", simple(), wordy("a")).await;
    assert_eq!(refused, Err(ErrorCode::PolicyViolation));
    assert_eq!(coordinator.delete("h").await, Ok(()));
    assert_eq!(coordinator.commit("j", simple(), wordy("a")).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn assignments_of_all_groups_together_are_bounded() {
    let options = Options { bytes_max: 5000, ..Options::new("taskwire") };
    let coordinator = with_options(&MemoryStore::new(10), &Clock::manual(NOW_MS), options);
    for (group, is_taken) in [("g", true), ("h", true), ("i", false)] {
        let joined = coordinator.join(group, join_request("", "a")).await.expect("joins");
        let large = vec![("a".to_owned(), Bytes::from(vec![0; 1500]))];
        let assignment = SyncRequest { assignments: large, ..sync_request("a", 1, &[]) };
        let synced = coordinator.sync(group, assignment).await;
        assert_eq!((joined.generation, synced.is_ok()), (1, is_taken), "{group}");
    }
}

#[tokio::test(start_paused = true)]
async fn ids_that_were_given_out_keep_no_group_from_being_founded() {
    let options = Options { groups_max: 3, ..Options::new("taskwire") };
    let coordinator = with_options(&MemoryStore::new(10), &Clock::manual(NOW_MS), options);
    let asks = |id: &str| JoinRequest { requires_known_id: true, ..join_request(id, "a") };
    for group in ["x", "y", "z"] {
        let refused = coordinator.join(group, asks("")).await.expect_err("an id first");
        assert_eq!(refused.error, ErrorCode::MemberIdRequired);
    }
    assert!(coordinator.join("g", join_request("", "b")).await.is_ok());
    let refused = coordinator.join("x", asks("a")).await.expect_err("forgotten");
    assert_eq!(refused.error, ErrorCode::UnknownMemberId);
    let listed = coordinator.list().await.expect("runs");
    let listed: Vec<_> = listed.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(listed, ["g", "taskwire"]);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_group_that_is_not_there_is_told_one_by_one() {
    let unknown = Err(ErrorCode::UnknownMemberId);
    let left = coordinator().leave("g", vec![identity("a"), identity("b")]).await;
    assert_eq!(left, Ok(vec![unknown, unknown]));
}

#[tokio::test(start_paused = true)]
async fn number_of_groups_is_bounded() {
    let options = Options { groups_max: 1, ..Options::new("taskwire") };
    let coordinator = with_options(&MemoryStore::new(10), &Clock::manual(NOW_MS), options);
    join(&coordinator, "", "a").await;
    let refused = coordinator.join("other", join_request("", "b")).await.expect_err("full");
    assert_eq!(refused.error, ErrorCode::GroupMaxSizeReached);
    let offsets = vec![(place("t", 0), offset(1))];
    let refused = coordinator.commit("other", simple(), offsets).await;
    assert_eq!(refused, Err(ErrorCode::PolicyViolation));
    // A group that nobody is in and that keeps nothing makes room.
    assert_eq!(coordinator.leave("g", vec![identity("a")]).await, Ok(vec![Ok(())]));
    assert!(coordinator.join("other", join_request("", "b")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn reserved_group_is_shown_and_never_touched() {
    let progress = ReservedProgress::default();
    progress.report(place("task-events", 0), Offset::new(42).expect("not negative"));
    let coordinator = in_memory(progress);
    let refused = Err(ErrorCode::GroupAuthorizationFailed);
    let joined = coordinator.join("taskwire", join_request("", "a")).await;
    assert_eq!(joined.map_err(|refused| refused.error).map(drop), refused);
    let offsets = vec![(place("task-events", 0), offset(0))];
    assert_eq!(coordinator.commit("taskwire", simple(), offsets).await, refused);
    assert_eq!(coordinator.delete("taskwire").await, refused);
    assert_eq!(coordinator.leave("taskwire", Vec::new()).await.map(drop), refused);
    assert_eq!(committed(&coordinator, "taskwire", &place("task-events", 0)).await, Some(42));
    assert_eq!(committed(&coordinator, "taskwire", &place("task-events", 1)).await, None);
    assert_eq!(coordinator.fetch("taskwire", None).await.expect("runs").len(), 1);
    let described = coordinator.describe("taskwire").await.expect("runs");
    assert_eq!((described.state, described.members.len()), (State::Stable, 1));
    // Version 0, one topic of 11 letters, one partition: 0, and no user data (Kafka's layout).
    let expected = b"\0\0\0\0\0\x01\0\x0btask-events\0\0\0\x01\0\0\0\0\xff\xff\xff\xff";
    assert_eq!(described.members[0].assignment, &expected[..]);
}

#[tokio::test(start_paused = true)]
async fn group_ids_have_bounds() {
    let coordinator = coordinator();
    for id in [String::new(), "x".repeat(GROUP_ID_BYTES_MAX + 1)] {
        let refused = coordinator.join(&id, join_request("", "a")).await.expect_err("refused");
        assert_eq!(refused.error, ErrorCode::InvalidGroupId);
        assert_eq!(
            coordinator.heartbeat(&id, member("a", 1)).await,
            Err(ErrorCode::InvalidGroupId)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn worker_ends_after_its_writes_when_the_last_handle_goes() {
    let store = MemoryStore::new(0);
    let coordinator = with_store(&store, &Clock::manual(NOW_MS));
    let inbox = coordinator.inbox.downgrade();
    let mut commit = Box::pin(async move {
        coordinator.commit("g", simple(), vec![(place("t", 0), offset(1))]).await
    });
    begin(commit.as_mut()).await;
    drop(commit);
    assert!(inbox.upgrade().is_none());
    store.permits.add_permits(1);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(store.len(), 1);
}
