//! The contract on redb, what only a file can show, and random histories against a model.

use super::{
    super::{
        CommitDurability, LoadKeys, Placement, SortBy, Store, StoreError, TaskFilter, TaskSort,
        WriteSet,
        contract::{
            self, CREATION, Subject, Windows, change, contract_tests, present, processed, task,
            task_id, user,
        },
    },
    FreeSpace, Options, RedbStore,
    list::SORT_ROWS_MAX,
    tables,
};
use crate::task::{Task, transition::TaskState};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

struct RedbSubject(TempDir);

impl RedbSubject {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tasks.redb")
    }
}

impl Subject for RedbSubject {
    fn open(&self, windows: Windows) -> Box<dyn Store> {
        Box::new(RedbStore::open(&self.path(), options(windows)).unwrap())
    }
}

pub(super) fn options(windows: Windows) -> Options {
    Options {
        dedup_window: windows.dedup,
        changes_keep: windows.changes,
        cache_bytes: 8 << 20,
        is_log_synced: true,
    }
}

contract_tests!(RedbSubject::new());

#[tokio::test]
async fn a_second_store_on_the_file_is_refused() {
    let subject = RedbSubject::new();
    let first = subject.open(Windows::WIDE);
    let second = RedbStore::open(&subject.path(), options(Windows::WIDE));
    assert!(matches!(second.err(), Some(StoreError::InUse)));
    drop(first);
    subject.open(Windows::WIDE);
}

#[tokio::test]
async fn over_an_unsynced_log_a_lost_position_goes_back_to_the_cut() {
    let subject = RedbSubject::new();
    let change_at = |next| WriteSet {
        changes: vec![change("u", "{", 5)],
        processed: vec![processed(next)],
        ..WriteSet::default()
    };
    let store = subject.open(Windows::WIDE);
    store.start().await.unwrap();
    store.commit(change_at(1), CommitDurability::Immediate).await.unwrap();
    store.commit(change_at(2), CommitDurability::Deferred).await.unwrap();
    let lost = store.head();
    drop(store);
    for (is_log_synced, expected) in [(true, 2), (false, 1)] {
        let options = Options { is_log_synced, ..options(Windows::WIDE) };
        let store = RedbStore::open(&subject.path(), options).unwrap();
        store.start().await.unwrap();
        store.commit(change_at(2), CommitDurability::Deferred).await.unwrap();
        assert_eq!(store.place(lost), Placement::After(expected), "synced: {is_log_synced}");
    }
}

#[test]
fn a_newer_format_and_other_files_are_refused() {
    let subject = RedbSubject::new();
    drop(subject.open(Windows::WIDE));
    let database = redb::Database::open(subject.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    let newer = (tables::FORMAT + 1).to_le_bytes();
    let mut meta = transaction.open_table(tables::META).unwrap();
    meta.insert(tables::META_FORMAT, &newer[..]).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);
    let error = RedbStore::open(&subject.path(), options(Windows::WIDE)).err().unwrap();
    assert!(matches!(error, StoreError::NewerFormat { found: 3, known: 2 }), "{error}");

    let path = subject.0.path().join("other");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let error = RedbStore::open(&path, options(Windows::WIDE)).err().unwrap();
    assert!(matches!(error, StoreError::DamagedFile(_)), "{error}");
}

#[tokio::test]
async fn commits_go_on_when_a_full_disk_has_space_again() {
    let subject = RedbSubject::new();
    let left = Arc::new(AtomicU64::new(u64::MAX));
    let space = FreeSpace::Set(Arc::clone(&left));
    let store = RedbStore::open_with(
        &crate::disk::RealDisk,
        &subject.path(),
        options(Windows::WIDE),
        space,
    )
    .unwrap();
    store.start().await.unwrap();
    left.store(super::DISK_RESERVE_BYTES, Ordering::Relaxed);
    let writes = WriteSet { changes: vec![change("u", "{", 1)], ..WriteSet::default() };
    let refused = store.commit(writes.clone(), CommitDurability::Deferred).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(store.head().sequence, 0);
    left.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(store.commit(writes, CommitDurability::Immediate).await.unwrap(), 1);
    left.store(0, Ordering::Relaxed);
    store.close().await.unwrap();
}

#[tokio::test]
async fn big_loads_equal_small_ones() {
    let subject = RedbSubject::new();
    let store = subject.open(Windows::WIDE);
    store.start().await.unwrap();
    let ids: Vec<String> = (0..500).map(|n| format!("t{n}")).collect();
    let tasks = ids.iter().map(|id| present(task(id, "u"))).collect();
    let writes = WriteSet { tasks, ..WriteSet::default() };
    store.commit(writes, CommitDurability::Deferred).await.unwrap();
    let keys = LoadKeys { tasks: ids.iter().map(|id| task_id(id)).collect(), events: Vec::new() };
    assert_eq!(store.load(&keys).await.unwrap().tasks.len(), 500);
}

#[tokio::test]
async fn a_long_scan_ends_its_page_early() {
    let subject = RedbSubject::new();
    let store = subject.open(Windows::WIDE);
    store.start().await.unwrap();
    let tasks = (0..10_500)
        .map(|n| present(Task { completed: n == 10_499, ..task(&format!("t{n}"), "u") }));
    let writes = WriteSet { tasks: tasks.collect(), ..WriteSet::default() };
    store.commit(writes, CommitDurability::Deferred).await.unwrap();
    let filter = TaskFilter { completed: Some(true), ..TaskFilter::default() };
    let page = store.tasks(&user("u"), &filter, None, 10).await.unwrap();
    assert!(page.tasks.is_empty());
    let page = store.tasks(&user("u"), &filter, page.next.as_deref(), 10).await.unwrap();
    assert_eq!((page.tasks.len(), page.next), (1, None));
}

/// With `--nocapture` it prints what a sorted page costs.
#[tokio::test]
async fn a_sorted_list_looks_at_a_bounded_number_of_tasks() {
    let subject = RedbSubject::new();
    let store = subject.open(Windows::WIDE);
    store.start().await.unwrap();
    let sort = TaskSort { by: SortBy::Title, is_descending: true };
    let filter = TaskFilter { sort, ..TaskFilter::default() };
    for first in (0..SORT_ROWS_MAX).step_by(10_000) {
        let tasks = (first..first + 10_000).map(|n| present(task(&format!("t{n:06}"), "u")));
        let writes = WriteSet { tasks: tasks.collect(), ..WriteSet::default() };
        store.commit(writes, CommitDurability::Deferred).await.unwrap();
    }
    for by in [SortBy::Title, SortBy::DueDate, SortBy::Priority, SortBy::UpdatedAt] {
        let filter = TaskFilter { sort: TaskSort { by, ..sort }, ..TaskFilter::default() };
        let began = std::time::Instant::now();
        let page = store.tasks(&user("u"), &filter, None, 200).await.unwrap();
        println!("{by:?}: {:?} for {SORT_ROWS_MAX} tasks", began.elapsed());
        assert_eq!(page.tasks.len(), 200);
        let first = Task::from_json(&page.tasks[0]).unwrap();
        assert_eq!(first.id, task_id(&format!("t{:06}", SORT_ROWS_MAX - 1)), "{by:?}");
    }
    let tasks = vec![present(task("one more", "u"))];
    let writes = WriteSet { tasks, ..WriteSet::default() };
    store.commit(writes, CommitDurability::Deferred).await.unwrap();
    let refused = store.tasks(&user("u"), &filter, None, 200).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooManyToSort { tasks_max: SORT_ROWS_MAX }));
    assert!(store.tasks(&user("u"), &TaskFilter::default(), None, 200).await.is_ok());
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Commit { tasks: Vec<(u8, bool)>, changes: Vec<u8>, durable: bool },
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let commit = (
        proptest::collection::vec((0..12_u8, any::<bool>()), 0..5),
        proptest::collection::vec(0..4_u8, 0..5),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(tasks, changes, durable)| Step::Commit { tasks, changes, durable });
    prop_oneof![8 => commit, 1 => Just(Step::Kill), 1 => Just(Step::Stop)]
}

/// What a store must hold.
#[derive(Clone, Default)]
struct Model {
    /// Version of each task, `None` once deleted, and its place in the order of creation.
    tasks: BTreeMap<u8, (Option<u64>, u64)>,
    created: u64,
    changes: Vec<(u8, u64)>,
    next: i64,
}

impl Model {
    /// Takes a step's tasks in, and gives what they write.
    fn write(&mut self, tasks: &[(u8, bool)], changes: &[u8]) -> WriteSet {
        let mut states = BTreeMap::new();
        for (number, delete) in tasks {
            let created = self.created;
            let entry = self.tasks.entry(*number).or_insert((Some(0), created));
            self.created += 1;
            let Some(version) = &mut entry.0 else {
                continue;
            };
            *version += 1;
            let made = Task { version: *version, ..task(&name(*number), &owner(*number)) };
            if *delete {
                entry.0 = None;
                states.insert(*number, TaskState::Deleted { creation: CREATION });
            } else {
                states.insert(*number, TaskState::Present { task: made, creation: CREATION });
            }
        }
        self.next += 1;
        let mut writes = WriteSet { processed: vec![processed(self.next)], ..WriteSet::default() };
        // In the order of creation, as apply writes them.
        let mut states: Vec<_> = states.into_iter().collect();
        states.sort_by_key(|(number, _)| self.tasks[number].1);
        for (number, state) in states {
            writes.tasks.push((task_id(&name(number)), user(&owner(number)), state));
        }
        for number in changes {
            let sequence = u64::try_from(self.changes.len()).unwrap() + 1;
            self.changes.push((*number, sequence));
            writes.changes.push(change(&format!("u{number}"), &format!("{{{sequence}"), 1));
        }
        writes
    }
}

fn name(number: u8) -> String {
    format!("t{number}")
}

fn owner(number: u8) -> String {
    format!("u{}", number % 4)
}

async fn check(store: &dyn Store, model: &Model) {
    let start = store.start().await.unwrap();
    let next = start.processed.values().next().map_or(0, |processed| processed.next.get());
    assert_eq!(next, model.next);
    assert_eq!(store.head().sequence, u64::try_from(model.changes.len()).unwrap());
    let alive = model.tasks.values().filter(|(version, _)| version.is_some()).count();
    assert_eq!(store.stats().tasks, u64::try_from(alive).unwrap());
    for number in 0..4 {
        let id = user(&format!("u{number}"));
        let page = store.changes(&id, 0, 1_000, usize::MAX).await.unwrap();
        let found: Vec<_> = page.changes.iter().map(|change| change.sequence).collect();
        let of_user = model.changes.iter().filter(|(user, _)| *user == number);
        assert_eq!(found, of_user.map(|(_, sequence)| *sequence).collect::<Vec<_>>());
        let page = store.tasks(&id, &TaskFilter::default(), None, 1_000).await.unwrap();
        let decode = |json: &bytes::Bytes| Task::from_json(json).unwrap();
        let found: Vec<_> =
            page.tasks.iter().map(decode).map(|task| (task.id.to_string(), task.version)).collect();
        let mut expected: Vec<_> = model
            .tasks
            .iter()
            .filter(|(task, _)| *task % 4 == number)
            .filter_map(|(task, (version, created))| Some((created, name(*task), (*version)?)))
            .collect();
        expected.sort();
        assert_eq!(found, expected.into_iter().map(|(_, id, v)| (id, v)).collect::<Vec<_>>());
    }
}

async fn run(steps: Vec<Step>) {
    let subject = RedbSubject::new();
    let mut store = subject.open(Windows::WIDE);
    store.start().await.unwrap();
    let (mut model, mut durable_model) = (Model::default(), Model::default());
    for step in steps {
        match step {
            Step::Commit { tasks, changes, durable } => {
                let writes = model.write(&tasks, &changes);
                let durability =
                    if durable { CommitDurability::Immediate } else { CommitDurability::Deferred };
                store.commit(writes, durability).await.unwrap();
                if durable {
                    durable_model = model.clone();
                }
            }
            Step::Kill => {
                drop(store);
                store = subject.open(Windows::WIDE);
                model = durable_model.clone();
            }
            Step::Stop => {
                store.close().await.unwrap();
                drop(store);
                store = subject.open(Windows::WIDE);
                durable_model = model.clone();
            }
        }
        check(&*store, &model).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_history_of_commits_kills_and_stops_equals_the_model(
        steps in proptest::collection::vec(step(), 1..20)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}

#[tokio::test]
async fn a_read_of_trimmed_changes_raises_earliest_first() {
    let subject = RedbSubject::new();
    let changes = (Duration::ZERO, 1);
    let store = subject.open(Windows { changes, ..Windows::WIDE });
    store.start().await.unwrap();
    let changes = (0..30).map(|_| change("u", "{", 1)).collect();
    let writes = WriteSet { changes, ..WriteSet::default() };
    store.commit(writes, CommitDurability::Deferred).await.unwrap();
    store.trim(100).await.unwrap();
    let page = store.changes(&user("u"), 3, 10, usize::MAX).await.unwrap();
    assert_eq!(page.changes.len(), 1);
    assert_eq!(store.earliest().sequence, 29);
    drop(contract::partition(0));
}
