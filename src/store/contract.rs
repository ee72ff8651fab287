//! The tests that every [`Store`] must pass. `contract_tests!` runs them on one implementation.

use super::{
    CommitDurability, KnownEvent, LoadKeys, NewChange, Outcome, PAGE_ROWS_MAX, Placement,
    Processed, SortBy, Store, TaskFilter, TaskSort, WaitingEvent, WriteSet,
};
use crate::{
    position::{Offset, Partition, Position, TopicName, TopicPartition},
    task::{
        Priority, Task, TaskId, UserId,
        event::{Digest, EventId},
        transition::{Reason, TaskState},
    },
};
use bytes::Bytes;
use futures_util::FutureExt;
use std::{ops::Range, time::Duration};

/// What a store under test keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) dedup: (Duration, u64),
    pub(super) changes: (Duration, u64),
}

impl Windows {
    pub(super) const WIDE: Self = Self {
        dedup: (Duration::from_secs(24 * 3_600), 1_000_000),
        changes: (Duration::from_secs(24 * 3_600), 1_000_000),
    };
}

/// A place where a store lives. Dropping a store without `close` must be as a kill.
pub(super) trait Subject {
    /// Opens or creates it; not started yet.
    fn open(&self, windows: Windows) -> Box<dyn Store>;
}

/// Runs every contract test on one subject, made anew for each.
macro_rules! contract_tests {
    ($subject:expr; $($test:ident)+) => {
        $(#[tokio::test]
        async fn $test() {
            $crate::store::contract::$test(&$subject).await;
        })+
    };
    ($subject:expr) => {
        contract_tests! { $subject;
            a_batch_becomes_visible_as_a_whole
            a_list_is_in_the_order_of_creation_page_by_page
            filters_take_what_they_name
            a_snapshot_shows_one_moment_in_parts
            every_order_gives_every_task_once_whatever_the_page
            a_task_that_goes_moves_no_other_from_the_next_page
            only_the_owner_sees_a_task
            a_deleted_task_leaves_a_tombstone
            due_dates_are_told_until_they_were_reminded_of
            every_outcome_survives
            changes_come_in_order_once_and_to_their_user
            waiting_events_are_kept_in_order_until_taken
            all_waiting_events_are_found_at_once
            a_clean_stop_keeps_everything_and_the_run
            a_kill_goes_back_to_the_last_checkpoint_and_raises_the_run
            trimmed_changes_are_never_a_silent_gap
            young_or_recent_changes_are_kept
            a_timestamp_far_in_the_future_does_not_end_trimming
            old_event_ids_are_forgotten
            an_empty_store_answers
        }
    };
}
pub(super) use contract_tests;

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(super) fn task_id(id: &str) -> TaskId {
    TaskId::new(id).unwrap()
}

pub(super) fn event_id(id: &str) -> EventId {
    EventId::new(id).unwrap()
}

pub(super) fn task(id: &str, owner: &str) -> Task {
    Task {
        id: task_id(id),
        title: format!("Title of {id}"),
        description: None,
        user_id: user(owner),
        priority: Priority::Medium,
        due_date: None,
        labels: Vec::new(),
        completed: false,
        completed_at: None,
        created_at: 1_000,
        updated_at: 1_000,
        version: 1,
    }
}

pub(super) const CREATION: Digest = [3; 16];

pub(super) fn present(task: Task) -> (TaskId, UserId, TaskState) {
    (task.id.clone(), task.user_id.clone(), TaskState::Present { task, creation: CREATION })
}

pub(super) fn change(owner: &str, text: &str, timestamp_ms: i64) -> NewChange {
    let message = Bytes::copy_from_slice(text.as_bytes());
    NewChange { user_id: user(owner), message, timestamp_ms }
}

pub(super) fn partition(number: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicName::new("task-events").unwrap(),
        partition: Partition::new(number).unwrap(),
    }
}

pub(super) fn processed(next: i64) -> (TopicPartition, Processed) {
    (partition(0), Processed { next: Offset::new(next).unwrap(), leader_epoch: 0 })
}

fn applied(id: &str, sequence: u64, timestamp_ms: i64) -> (EventId, KnownEvent, i64) {
    let outcome = Outcome::Applied { sequence };
    (event_id(id), KnownEvent { digest: [1; 16], outcome }, timestamp_ms)
}

async fn started(subject: &dyn Subject) -> Box<dyn Store> {
    let store = subject.open(Windows::WIDE);
    store.start().await.unwrap();
    store
}

async fn commit(store: &dyn Store, writes: WriteSet) -> u64 {
    store.commit(writes, CommitDurability::Deferred).await.unwrap()
}

async fn commit_changes(store: &dyn Store, changes: Vec<NewChange>) -> u64 {
    commit(store, WriteSet { changes, ..WriteSet::default() }).await
}

async fn messages(store: &dyn Store, owner: &str, after: u64) -> Vec<(u64, String)> {
    let page = store.changes(&user(owner), after, PAGE_ROWS_MAX, usize::MAX).await.unwrap();
    let text = |message: &Bytes| String::from_utf8(message.to_vec()).unwrap();
    page.changes.iter().map(|change| (change.sequence, text(&change.message))).collect()
}

async fn ids(store: &dyn Store, owner: &str, filter: &TaskFilter) -> Vec<String> {
    let page = store.tasks(&user(owner), filter, None, PAGE_ROWS_MAX).await.unwrap();
    assert_eq!(page.next, None);
    page.tasks.iter().map(|json| Task::from_json(json).unwrap().id.to_string()).collect()
}

async fn state(store: &dyn Store, id: &str) -> Option<TaskState> {
    let keys = LoadKeys { tasks: vec![task_id(id)], events: Vec::new() };
    store.load(&keys).await.unwrap().tasks.remove(&task_id(id))
}

pub(super) async fn an_empty_store_answers(subject: &dyn Subject) {
    let store = subject.open(Windows::WIDE);
    let start = store.start().await.unwrap();
    assert!(start.was_clean && start.processed.is_empty() && start.outbound.is_empty());
    assert_eq!(store.head(), store.earliest());
    assert_eq!(store.head().sequence, 0);
    assert_eq!(store.place(store.head()), Placement::After(0));
    assert_eq!(store.task(&user("u"), &task_id("t")).await.unwrap(), None);
    assert!(ids(&*store, "u", &TaskFilter::default()).await.is_empty());
    let page = store.changes(&user("u"), 0, 10, 10).await.unwrap();
    assert!(page.changes.is_empty());
    assert_eq!(page.seen_to, 0);
    assert_eq!(store.outcome(&event_id("e")).await.unwrap(), None);
    assert_eq!(store.trim(i64::MAX).await.unwrap(), 0);
    assert_eq!(commit(&*store, WriteSet::default()).await, 1);
}

pub(super) async fn a_batch_becomes_visible_as_a_whole(subject: &dyn Subject) {
    let store = started(subject).await;
    let first = commit(
        &*store,
        WriteSet {
            tasks: vec![present(task("t", "u"))],
            changes: vec![change("u", "{1", 5), change("v", "{2", 5)],
            events: vec![applied("e", 1, 5)],
            processed: vec![processed(7)],
            outbound: vec![(partition(1), Offset::new(3).unwrap())],
            ..WriteSet::default()
        },
    )
    .await;
    assert_eq!(first, 1);
    assert_eq!(store.head().sequence, 2);
    let expected = task("t", "u");
    let json = store.task(&user("u"), &task_id("t")).await.unwrap().unwrap();
    assert_eq!(json, expected.to_json());
    let expected = TaskState::Present { task: expected, creation: CREATION };
    assert_eq!(state(&*store, "t").await, Some(expected));
    assert_eq!(messages(&*store, "u", 0).await, [(1, "{1".to_owned())]);
    let known = store.outcome(&event_id("e")).await.unwrap().unwrap();
    assert_eq!(known.outcome, Outcome::Applied { sequence: 1 });
    let start = store.start().await.unwrap();
    assert_eq!(start.processed, [processed(7)].into());
    assert_eq!(start.outbound, [(partition(1), Offset::new(3).unwrap())].into());
    let stats = store.stats();
    assert_eq!((stats.tasks, stats.changes, stats.waiting), (1, 2, 0));
}

pub(super) async fn a_list_is_in_the_order_of_creation_page_by_page(subject: &dyn Subject) {
    let store = started(subject).await;
    // Ids fall while they are created; another user's lie between.
    let tasks = (0..7_u8).map(|n| present(task(&format!("t{}", 9 - n), "u")));
    commit(&*store, WriteSet { tasks: tasks.collect(), ..WriteSet::default() }).await;
    let tasks = vec![present(task("x", "v")), present(task("t0", "u"))];
    commit(&*store, WriteSet { tasks, ..WriteSet::default() }).await;
    // A change does not move a task.
    let changed = Task { version: 2, ..task("t9", "u") };
    commit(&*store, WriteSet { tasks: vec![present(changed)], ..WriteSet::default() }).await;
    let expected = ["t9", "t8", "t7", "t6", "t5", "t4", "t3", "t0"];
    assert_eq!(ids(&*store, "u", &TaskFilter::default()).await, expected);
    let found = page_by_page(&*store, &TaskFilter::default(), 3).await;
    assert_eq!(found, expected);
    let page = store.tasks(&user("u"), &TaskFilter::default(), Some(b"?"), 3).await.unwrap();
    assert!(page.tasks.is_empty(), "a cursor of nothing is the end");
}

pub(super) async fn filters_take_what_they_name(subject: &dyn Subject) {
    let store = started(subject).await;
    let tasks = [
        Task {
            completed: true,
            priority: Priority::Low,
            labels: vec!["home".into()],
            ..task("done", "u")
        },
        Task { due_date: Some(100), priority: Priority::Urgent, ..task("soon", "u") },
        Task { due_date: Some(200), description: Some("MILK \u{c4}".into()), ..task("later", "u") },
    ];
    let tasks = tasks.into_iter().map(present).collect();
    commit(&*store, WriteSet { tasks, ..WriteSet::default() }).await;
    let all = TaskFilter::default;
    let check = async |filter: TaskFilter, expected: &[&str]| {
        assert_eq!(ids(&*store, "u", &filter).await, expected, "{filter:?}");
    };
    check(TaskFilter { completed: Some(true), ..all() }, &["done"]).await;
    check(TaskFilter { completed: Some(false), ..all() }, &["soon", "later"]).await;
    check(TaskFilter { priority: Some(Priority::Urgent), ..all() }, &["soon"]).await;
    check(TaskFilter { due_before: Some(200), ..all() }, &["soon"]).await;
    check(TaskFilter { due_after: Some(200), ..all() }, &["later"]).await;
    check(TaskFilter { q: Some("milk \u{e4}".into()), ..all() }, &["later"]).await;
    check(TaskFilter { q: Some("TITLE OF".into()), ..all() }, &["done", "soon", "later"]).await;
    check(TaskFilter { q: Some("urgent".into()), ..all() }, &[]).await;
    check(TaskFilter { label: Some("home".into()), ..all() }, &["done"]).await;
    check(TaskFilter { label: Some("Home".into()), ..all() }, &[]).await;
}

pub(super) async fn every_order_gives_every_task_once_whatever_the_page(subject: &dyn Subject) {
    let store = started(subject).await;
    let tasks = [
        Task { updated_at: 5, priority: Priority::Urgent, ..task("a", "u") },
        Task { updated_at: -4, due_date: Some(-1), title: "\u{c4}rger".into(), ..task("b", "u") },
        Task { updated_at: 5, due_date: Some(9), title: "milk".into(), ..task("c", "u") },
        Task { updated_at: 7, due_date: Some(0), title: "Milk 2".into(), ..task("d", "u") },
        Task { priority: Priority::Low, title: "MILK".into(), ..task("e", "u") },
    ];
    let tasks = tasks.into_iter().map(present).chain([present(task("x", "v"))]).collect();
    commit(&*store, WriteSet { tasks, ..WriteSet::default() }).await;
    for (by, up, down) in [
        (SortBy::CreatedAt, "abcde", "edcba"),
        (SortBy::UpdatedAt, "bacde", "edcab"),
        (SortBy::DueDate, "bdcae", "cdbea"),
        (SortBy::Priority, "ebcda", "adcbe"),
        (SortBy::Title, "cedab", "badec"),
    ] {
        for (is_descending, expected) in [(false, up), (true, down)] {
            let filter =
                TaskFilter { sort: TaskSort { by, is_descending }, ..TaskFilter::default() };
            for limit in 1..7 {
                let found = page_by_page(&*store, &filter, limit).await.concat();
                assert_eq!(found, expected, "{filter:?}, {limit} a page");
            }
        }
    }
}

pub(super) async fn a_task_that_goes_moves_no_other_from_the_next_page(subject: &dyn Subject) {
    let store = started(subject).await;
    let tasks = ["a", "b", "c", "d"].map(|id| present(task(id, "u"))).into();
    commit(&*store, WriteSet { tasks, ..WriteSet::default() }).await;
    let sort = TaskSort { by: SortBy::Title, is_descending: false };
    let filter = TaskFilter { sort, ..TaskFilter::default() };
    let page = store.tasks(&user("u"), &filter, None, 2).await.unwrap();
    let deleted = (task_id("b"), user("u"), TaskState::Deleted { creation: CREATION });
    let before = present(Task { title: "A".into(), ..task("e", "u") });
    let tasks = vec![deleted, before];
    commit(&*store, WriteSet { tasks, ..WriteSet::default() }).await;
    let page = store.tasks(&user("u"), &filter, page.next.as_deref(), 2).await.unwrap();
    assert_eq!(page.tasks.len(), 2, "c and d");
    assert_eq!(page.next, None);
}

pub(super) async fn due_dates_are_told_until_they_were_reminded_of(subject: &dyn Subject) {
    let store = started(subject).await;
    let dated = |id: &str, due_date| Task { due_date: Some(due_date), ..task(id, "u") };
    let put = async |tasks: Vec<Task>, reminded: Vec<(i64, TaskId)>| {
        let tasks = tasks.into_iter().map(present).collect();
        commit(&*store, WriteSet { tasks, reminded, ..WriteSet::default() }).await;
    };
    let due = async |before_ms: i64| -> Vec<(i64, String)> {
        let due = store.due_before(before_ms, 10).await.unwrap();
        due.iter().map(|due| (due.due_date, due.task_id.to_string())).collect()
    };
    let row = |due_date: i64, id: &str| (due_date, id.to_owned());
    // Changed at 1,000, so what is due by then was over when it was set.
    put(vec![dated("b", 3_000), dated("a", 2_000), dated("past", 1_000)], vec![]).await;
    assert_eq!(due(3_000).await, [row(2_000, "a")]);
    assert_eq!(due(3_001).await, [row(2_000, "a"), row(3_000, "b")]);
    assert_eq!(store.due_before(9_000, 1).await.unwrap().len(), 1);
    put(vec![Task { completed: true, ..dated("b", 3_000) }], vec![]).await;
    assert_eq!(due(9_000).await, [row(2_000, "a")], "done");
    put(vec![dated("b", 4_000)], vec![(2_000, task_id("a"))]).await;
    assert_eq!(due(9_000).await, [row(4_000, "b")], "reminded of, and open again");
    put(vec![Task { title: "other".into(), ..dated("a", 2_000) }], vec![]).await;
    assert_eq!(due(9_000).await, [row(4_000, "b")], "another change is no reason to remind");
    put(vec![dated("a", 5_000)], vec![(5, task_id("unknown"))]).await;
    assert_eq!(due(9_000).await, [row(4_000, "b"), row(5_000, "a")]);
    put(vec![task("a", "u")], vec![]).await;
    let deleted = (task_id("b"), user("u"), TaskState::Deleted { creation: CREATION });
    commit(&*store, WriteSet { tasks: vec![deleted], ..WriteSet::default() }).await;
    assert_eq!(due(9_000).await, []);
}

/// Ids in the order of the pages.
async fn page_by_page(store: &dyn Store, filter: &TaskFilter, limit: usize) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.tasks(&user("u"), filter, after.as_deref(), limit).await.unwrap();
        assert!(page.tasks.len() <= limit);
        found.extend(page.tasks.iter().map(|json| Task::from_json(json).unwrap().id.to_string()));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

pub(super) async fn only_the_owner_sees_a_task(subject: &dyn Subject) {
    let store = started(subject).await;
    let tasks = vec![present(task("t", "u")), present(task("s", "v"))];
    commit(&*store, WriteSet { tasks, ..WriteSet::default() }).await;
    for stranger in ["v", "w"] {
        assert_eq!(store.task(&user(stranger), &task_id("t")).await.unwrap(), None);
        assert!(!ids(&*store, stranger, &TaskFilter::default()).await.contains(&"t".to_owned()));
    }
}

pub(super) async fn a_snapshot_shows_one_moment_in_parts(subject: &dyn Subject) {
    let store = started(subject).await;
    let of_u =
        |numbers: Range<u32>| numbers.map(|number| present(task(&format!("t{number}"), "u")));
    let mut tasks: Vec<_> = of_u(0..25).collect();
    tasks.push(present(task("s", "v")));
    let changes = vec![change("u", "{", 0), change("v", "{", 0)];
    commit(&*store, WriteSet { tasks, changes, ..WriteSet::default() }).await;
    let mut snapshot = store.snapshot(&user("u")).await.unwrap();
    assert_eq!(snapshot.position(), store.head());
    let mut found = snapshot.next(10, usize::MAX).await.unwrap();
    assert_eq!(found.len(), 10);
    // What is committed meanwhile does not show.
    let gone = TaskState::Deleted { creation: CREATION };
    let mut tasks: Vec<_> = of_u(25..30).collect();
    tasks.push((task_id("t20"), user("u"), gone));
    let changes = vec![change("u", "{", 0)];
    commit(&*store, WriteSet { tasks, changes, ..WriteSet::default() }).await;
    assert_eq!(snapshot.position().sequence + 1, store.head().sequence);
    let length = found[0].len();
    let part = snapshot.next(10, 3 * length + 1).await.unwrap();
    assert!((1..=3).contains(&part.len()), "about three of them in so many bytes");
    found.extend(part);
    let one = snapshot.next(10, 1).await.unwrap();
    assert_eq!(one.len(), 1, "one always fits");
    found.extend(one);
    // A wait that was given up loses nothing.
    drop(snapshot.next(10, usize::MAX).now_or_never());
    let mut parts = 0;
    loop {
        let part = snapshot.next(10, usize::MAX).await.unwrap();
        parts += 1;
        match part.is_empty() {
            true => break,
            false => found.extend(part),
        }
    }
    assert!(parts <= 3, "{parts}");
    let ids: Vec<_> = found.iter().map(|json| Task::from_json(json).unwrap().id).collect();
    assert_eq!(ids, (0..25).map(|number| task_id(&format!("t{number}"))).collect::<Vec<_>>());
    let empty = store.snapshot(&user("nobody")).await.unwrap().next(10, 10).await.unwrap();
    assert!(empty.is_empty());
}

pub(super) async fn a_deleted_task_leaves_a_tombstone(subject: &dyn Subject) {
    let store = started(subject).await;
    let tasks = vec![present(task("t", "u")), present(task("s", "u"))];
    commit(&*store, WriteSet { tasks, ..WriteSet::default() }).await;
    let gone = TaskState::Deleted { creation: CREATION };
    // A task may come and go within one batch: then only its tombstone is written.
    let tasks =
        vec![(task_id("t"), user("u"), gone.clone()), (task_id("r"), user("u"), gone.clone())];
    commit(&*store, WriteSet { tasks, ..WriteSet::default() }).await;
    assert_eq!(state(&*store, "t").await, Some(gone.clone()));
    assert_eq!(state(&*store, "r").await, Some(gone));
    assert_eq!(store.task(&user("u"), &task_id("t")).await.unwrap(), None);
    assert_eq!(ids(&*store, "u", &TaskFilter::default()).await, ["s"]);
    assert_eq!(store.stats().tasks, 1);
}

pub(super) async fn every_outcome_survives(subject: &dyn Subject) {
    let store = started(subject).await;
    let outcomes = [
        Outcome::Applied { sequence: 9 },
        Outcome::VersionMismatch,
        Outcome::Waiting,
        Outcome::DeadLetter(Reason::TaskConflict),
    ];
    let long = "e".repeat(500);
    let known = |n: usize| KnownEvent { digest: [7; 16], outcome: outcomes[n].clone() };
    let id = |n: usize| event_id(&format!("{long}{n}"));
    let events = (0..outcomes.len()).map(|n| (id(n), known(n), 5)).collect();
    commit(&*store, WriteSet { events, ..WriteSet::default() }).await;
    let keys = LoadKeys { tasks: Vec::new(), events: (0..9).map(id).collect() };
    let loaded = store.load(&keys).await.unwrap();
    assert_eq!(loaded.events.len(), outcomes.len());
    for n in 0..outcomes.len() {
        assert_eq!(loaded.events.get(&id(n)), Some(&known(n)));
    }
    // What waited is applied later: the newer outcome holds.
    let events = vec![(id(2), known(0), 6)];
    commit(&*store, WriteSet { events, ..WriteSet::default() }).await;
    assert_eq!(store.outcome(&id(2)).await.unwrap(), Some(known(0)));
}

pub(super) async fn changes_come_in_order_once_and_to_their_user(subject: &dyn Subject) {
    let store = started(subject).await;
    for batch in 0..10_u8 {
        let changes = vec![change("u", &format!("{{u{batch}"), 5), change("v", "{v", 5)];
        assert_eq!(commit_changes(&*store, changes).await, u64::from(batch) * 2 + 1);
    }
    let expected: Vec<_> = (0..10).map(|n| (n * 2 + 1, format!("{{u{n}"))).collect();
    assert_eq!(messages(&*store, "u", 0).await, expected);
    assert_eq!(messages(&*store, "u", 7).await, expected[4..]);
    assert_eq!(messages(&*store, "nobody", 0).await, []);
    let page = store.changes(&user("u"), 2, 3, usize::MAX).await.unwrap();
    assert_eq!(page.changes.len(), 3);
    assert_eq!(page.seen_to, 7, "a full page has seen its last change");
    let page = store.changes(&user("u"), 2, 100, 4).await.unwrap();
    assert_eq!(page.changes.len(), 2, "bytes are a bound too, and a page holds at least one");
    let page = store.changes(&user("u"), 7, 100, usize::MAX).await.unwrap();
    assert_eq!(page.seen_to, 20, "the last page has seen all");
}

pub(super) async fn waiting_events_are_kept_in_order_until_taken(subject: &dyn Subject) {
    let store = started(subject).await;
    let waiting = |id: &str, since_ms: i64, record: &[u8]| WaitingEvent {
        task_id: task_id(id),
        source: (partition(0), Offset::new(since_ms).unwrap()),
        since_ms,
        timestamp_ms: 1,
        record: record.to_vec(),
    };
    let added = [waiting("a", 10, b"1"), waiting("b", 20, b"2"), waiting("a", 20, b"3")];
    let writes = WriteSet { waiting_added: added.to_vec(), ..WriteSet::default() };
    commit(&*store, writes).await;
    let keys = LoadKeys { tasks: vec![task_id("a"), task_id("c")], events: Vec::new() };
    let loaded = store.load(&keys).await.unwrap();
    assert_eq!(loaded.waiting_total, 3);
    assert_eq!(loaded.waiting, [(task_id("a"), vec![added[0].clone(), added[2].clone()])].into());
    assert_eq!(store.waiting_before(10, 9).await.unwrap(), []);
    assert_eq!(store.waiting_before(20, 9).await.unwrap(), added[..1]);
    assert_eq!(store.waiting_before(21, 2).await.unwrap(), added[..2]);
    // Taken first: an event may begin to wait again in the same batch.
    let writes = WriteSet {
        waiting_taken: vec![task_id("a")],
        waiting_added: vec![waiting("a", 30, b"4")],
        ..WriteSet::default()
    };
    commit(&*store, writes).await;
    let left = store.waiting_before(i64::MAX, 9).await.unwrap();
    assert_eq!(left, [added[1].clone(), waiting("a", 30, b"4")]);
    assert_eq!(store.stats().waiting, 2);
}

pub(super) async fn all_waiting_events_are_found_at_once(subject: &dyn Subject) {
    let store = started(subject).await;
    let count = PAGE_ROWS_MAX + 1;
    let waiting = |since_ms: usize| WaitingEvent {
        task_id: task_id("a"),
        source: (partition(0), Offset::ZERO),
        since_ms: i64::try_from(since_ms).unwrap(),
        timestamp_ms: 1,
        record: Vec::new(),
    };
    let waiting_added = (0..count).map(waiting).collect();
    commit(&*store, WriteSet { waiting_added, ..WriteSet::default() }).await;
    assert_eq!(store.waiting_before(i64::MAX, count).await.unwrap().len(), count);
}

pub(super) async fn a_clean_stop_keeps_everything_and_the_run(subject: &dyn Subject) {
    let store = started(subject).await;
    let writes = WriteSet {
        tasks: vec![present(task("t", "u"))],
        changes: vec![change("u", "{1", 5)],
        processed: vec![processed(4)],
        ..WriteSet::default()
    };
    commit(&*store, writes).await;
    let head = store.head();
    store.close().await.unwrap();
    assert!(store.commit(WriteSet::default(), CommitDurability::Deferred).await.is_err());
    drop(store);
    let store = subject.open(Windows::WIDE);
    let start = store.start().await.unwrap();
    assert!(start.was_clean);
    assert_eq!(start.processed, [processed(4)].into());
    assert_eq!(store.head(), head);
    assert_eq!(store.stats().tasks, 1);
    assert_eq!(messages(&*store, "u", 0).await.len(), 1);
}

pub(super) async fn a_kill_goes_back_to_the_last_checkpoint_and_raises_the_run(
    subject: &dyn Subject,
) {
    let store = started(subject).await;
    let change_at = |next: i64| WriteSet {
        changes: vec![change("u", "{", 5)],
        processed: vec![processed(next)],
        ..WriteSet::default()
    };
    store.commit(change_at(1), CommitDurability::Deferred).await.unwrap();
    store.commit(change_at(2), CommitDurability::Immediate).await.unwrap();
    let kept = store.head();
    store.commit(change_at(3), CommitDurability::Deferred).await.unwrap();
    let lost = store.head();
    drop(store);

    let store = subject.open(Windows::WIDE);
    let start = store.start().await.unwrap();
    assert!(!start.was_clean);
    assert_eq!(start.processed, [processed(2)].into());
    assert_eq!(store.head().sequence, 2);
    assert_eq!(store.place(kept), Placement::After(2));
    assert_eq!(store.place(lost), Placement::After(2), "goes on where its run was cut");
    store.commit(change_at(3), CommitDurability::Deferred).await.unwrap();
    assert_eq!(store.head(), Position { run: lost.run + 1, ..lost });
    assert_eq!(store.place(lost), Placement::After(3), "one partition: the same change again");
    assert_eq!(store.position_of(2), kept, "an old sequence keeps its run");
    drop(store);

    // The run rises durably, even if nothing else became durable.
    let store = started(subject).await;
    store.commit(change_at(3), CommitDurability::Deferred).await.unwrap();
    assert_eq!(store.head().run, lost.run + 2);
    let future = Position { sequence: 99, ..store.head() };
    assert_eq!(store.place(future), Placement::Resync);
    let foreign = Position { epoch: lost.epoch ^ 1, ..kept };
    assert_eq!(store.place(foreign), Placement::Resync);
}

pub(super) async fn trimmed_changes_are_never_a_silent_gap(subject: &dyn Subject) {
    let changes = (Duration::from_millis(100), 5);
    let store = subject.open(Windows { changes, ..Windows::WIDE });
    store.start().await.unwrap();
    for at in 0..20 {
        commit_changes(&*store, vec![change("u", "{", at), change("v", "{", at)]).await;
    }
    let positions: Vec<_> = (0..=40).map(|sequence| store.position_of(sequence)).collect();
    while store.trim(10_000).await.unwrap() > 0 {}
    assert_eq!(store.earliest().sequence, 35);
    for (position, sequence) in positions.into_iter().zip(0..) {
        let expected = if sequence < 35 { Placement::Resync } else { Placement::After(sequence) };
        assert_eq!(store.place(position), expected, "{position}");
    }
    assert_eq!(messages(&*store, "u", 0).await.len(), 2);
    assert_eq!(messages(&*store, "v", 35).await.len(), 3);
    assert_eq!(store.stats().changes, 5);
    store.close().await.unwrap();
    drop(store);
    let store = started(subject).await;
    assert_eq!(store.earliest().sequence, 35);
}

pub(super) async fn young_or_recent_changes_are_kept(subject: &dyn Subject) {
    let changes = (Duration::from_millis(100), 5);
    let store = subject.open(Windows { changes, ..Windows::WIDE });
    store.start().await.unwrap();
    for at in 0..20 {
        commit_changes(&*store, vec![change("u", "{", at)]).await;
    }
    while store.trim(110).await.unwrap() > 0 {}
    assert_eq!(store.earliest().sequence, 10, "10 and later are younger than 100 ms");
    while store.trim(115).await.unwrap() > 0 {}
    assert_eq!(store.earliest().sequence, 15);
    while store.trim(1_000).await.unwrap() > 0 {}
    assert_eq!(store.earliest().sequence, 15, "the last five stay at any age");
}

pub(super) async fn a_timestamp_far_in_the_future_does_not_end_trimming(subject: &dyn Subject) {
    let changes = (Duration::from_millis(100), 5);
    let store = subject.open(Windows { changes, ..Windows::WIDE });
    store.start().await.unwrap();
    // Microseconds where milliseconds belong, and a clock that is a little fast.
    for at in [1, 1_000_000, i64::MAX, 1_050] {
        commit_changes(&*store, vec![change("u", "{", at)]).await;
    }
    for at in 0..20 {
        commit_changes(&*store, vec![change("u", "{", at)]).await;
    }
    while store.trim(1_000).await.unwrap() > 0 {}
    assert_eq!(store.earliest().sequence, 3, "a clock that is a little fast is believed");
    while store.trim(2_000).await.unwrap() > 0 {}
    assert_eq!(store.earliest().sequence, 19);
}

pub(super) async fn old_event_ids_are_forgotten(subject: &dyn Subject) {
    let dedup = (Duration::from_millis(1_000), 40);
    let store = subject.open(Windows { dedup, ..Windows::WIDE });
    store.start().await.unwrap();
    let id = |n: i64| format!("e-{}", n * 7_919 % 1_000);
    for n in 0..400 {
        let events = vec![applied(&id(n), 1, n)];
        commit(&*store, WriteSet { events, ..WriteSet::default() }).await;
        // In time, but not every call need remove: a share may gather first.
        store.trim(n + 900).await.unwrap();
    }
    for n in 300..400 {
        let known = store.outcome(&event_id(&id(n))).await.unwrap();
        assert!(known.is_some(), "{n} is younger than the window");
    }
    for n in 0..200 {
        assert_eq!(store.outcome(&event_id(&id(n))).await.unwrap(), None, "{n} is old");
    }
}
