//! Damage of the file, and files of older formats.
#![allow(clippy::needless_pass_by_value, reason = "keys of redb are small")]

use super::{
    super::{
        CommitDurability, Store, StoreError, TaskFilter, WaitingEvent, WriteSet,
        contract::{self, CREATION, Windows, change, present, processed, task, task_id, user},
    },
    RedbStore, tables,
    tests::options,
    verify,
};
use crate::{
    metrics::Metrics,
    position::{Offset, RecordPosition},
    redb_file,
    store::{
        KnownEvent, LoadKeys, Outcome, Placement,
        letter::{LetterFilter, LetterState, StoredLetter},
    },
    task::{
        event::EventId,
        transition::{Reason, TaskState},
    },
};
use flate2::read::GzDecoder;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use std::{fs, io::Read, path::Path, sync::Arc};

fn event(id: &str, outcome: Outcome) -> (EventId, KnownEvent, i64) {
    (EventId::new(id).unwrap(), KnownEvent { digest: [9; 16], outcome }, 7)
}

/// Writes that leave a row in every table: what tests/data/store/format-1.redb.gz holds, too.
fn every_table() -> [WriteSet; 2] {
    let waiting = WaitingEvent {
        task_id: task_id("later"),
        source: (contract::partition(0), Offset::new(11).unwrap()),
        since_ms: 5,
        timestamp_ms: 4,
        record: b"record".to_vec(),
    };
    let user_of = |n: i64| format!("u{}", n % 2);
    let first = WriteSet {
        tasks: (0..5).map(|n| present(task(&format!("t{n}"), &user_of(n)))).collect(),
        changes: (0..5).map(|n| change(&user_of(n), &format!("{{\"n\":{n}"), n)).collect(),
        events: vec![
            event("applied", Outcome::Applied { sequence: 2 }),
            event("lost", Outcome::VersionMismatch),
            event("letter", Outcome::DeadLetter(Reason::WrongUser)),
            event("waits", Outcome::Waiting),
        ],
        waiting_added: vec![waiting],
        processed: vec![processed(12)],
        outbound: vec![(contract::partition(1), Offset::new(3).unwrap())],
        ..WriteSet::default()
    };
    let second = WriteSet {
        tasks: vec![(task_id("t4"), user("u0"), TaskState::Deleted { creation: CREATION })],
        changes: vec![change("u0", "{\"n\":5", 9)],
        processed: vec![processed(13)],
        ..WriteSet::default()
    };
    [first, second]
}

/// A cleanly closed store with those.
async fn made(path: &Path) {
    let store = RedbStore::open(path, options(Windows::WIDE)).unwrap();
    store.start().await.unwrap();
    for writes in every_table() {
        store.commit(writes, CommitDurability::Immediate).await.unwrap();
    }
    store.close().await.unwrap();
}

/// Everything that a store answers about what [`made`] wrote, in one text; the first error.
async fn answers(store: &dyn Store) -> Result<String, StoreError> {
    let mut text = String::new();
    let started = store.start().await?;
    text += &format!("{:?} {:?}\n", started.processed, started.outbound);
    for owner in ["u0", "u1", "u2"].map(user) {
        let page = store.tasks(&owner, &TaskFilter::default(), None, 100).await?;
        text += &format!("{:?} {:?}\n", page.tasks, page.next);
        let page = store.changes(&owner, 0, 100, usize::MAX).await?;
        text += &format!("{:?} {}\n", page.changes, page.seen_to);
        for id in ["t0", "t1", "t4", "later"].map(task_id) {
            text += &format!("{:?}\n", store.task(&owner, &id).await?);
        }
    }
    for id in ["applied", "lost", "letter", "waits", "none"] {
        text += &format!("{:?}\n", store.outcome(&EventId::new(id).unwrap()).await?);
    }
    text += &format!("{:?}\n", store.waiting_before(i64::MAX, 10).await?);
    text += &format!("{:?} {}\n", store.stats(), store.head().sequence);
    Ok(text)
}

#[tokio::test]
async fn a_store_of_format_1_is_migrated_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.redb"), dir.path().join("new.redb"));
    let packed = include_bytes!("../../../tests/data/store/format-1.redb.gz");
    let mut bytes = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    fs::write(&old, &bytes).unwrap();
    let refused = verify::verify(&old);
    assert!(matches!(refused, Err(StoreError::OlderFormat { found: 1, known: 2 })), "{refused:?}");

    made(&new).await;
    let expected = RedbStore::open(&new, options(Windows::WIDE)).unwrap();
    let migrated = RedbStore::open(&old, options(Windows::WIDE)).unwrap();
    let found = answers(&migrated).await.unwrap();
    assert_eq!(found, answers(&expected).await.unwrap());
    // Its epoch and its runs are as they were: positions go on.
    let position = "6182074b79724a22.1.6".parse().unwrap();
    assert_eq!(migrated.place(position), Placement::After(6));
    assert_eq!(migrated.head(), position);
    migrated.close().await.unwrap();
    drop(migrated);
    let kept = verify::verify(&dir.path().join("old.redb.format-1"));
    assert!(matches!(kept, Err(StoreError::OlderFormat { .. })), "it is kept: {kept:?}");
    assert_eq!(verify::verify(&old).unwrap().damages, Vec::<String>::new());
}

#[tokio::test]
async fn a_migration_that_a_crash_cut_short_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.redb");
    let packed = include_bytes!("../../../tests/data/store/format-1.redb.gz");
    let mut bytes = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    fs::write(&path, &bytes).unwrap();
    fs::write(dir.path().join("old.redb.migrating"), b"half of it").unwrap();
    RedbStore::open(&path, options(Windows::WIDE)).unwrap();
}

#[tokio::test]
async fn any_flipped_byte_is_refused_at_the_start_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.redb");
    made(&path).await;
    let whole = fs::read(&path).unwrap();
    let store = RedbStore::open(&path, options(Windows::WIDE)).unwrap();
    let right = answers(&store).await.unwrap();
    drop(store);
    let (mut refused, mut harmless) = (0, 0);
    // Bytes of zero are mostly unused pages: one in so many of them is enough.
    let flips = (0..whole.len()).filter(|at| whole[*at] != 0 || at % 997 == 0);
    for at in flips.step_by(97) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x21;
        fs::write(&path, &flipped).unwrap();
        match RedbStore::open(&path, options(Windows::WIDE)) {
            Ok(store) => {
                assert_eq!(answers(&store).await.unwrap(), right, "byte {at}");
                harmless += 1;
            }
            Err(error) => {
                let text = error.to_string();
                let says = text.contains("taskwire rebuild") || text.contains("newer");
                assert!(says, "byte {at}: {text}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20 && harmless > 0, "{refused} refused, {harmless} harmless");
}

/// Changes a row behind redb's back, as if a page had changed on disk while it was open.
fn flip<K: redb::Key + 'static>(
    path: &Path,
    table: TableDefinition<'static, K, &'static [u8]>,
    key: K::SelfType<'_>,
) {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut rows = transaction.open_table(table).unwrap();
    let mut row = rows.get(&key).unwrap().unwrap().value().to_vec();
    let middle = row.len() / 2;
    row[middle] ^= 4;
    rows.insert(&key, &row[..]).unwrap();
    drop(rows);
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_damaged_task_is_told_once_and_everything_else_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.redb");
    made(&path).await;
    flip(&path, tables::TASKS, (1, 1));
    let store = RedbStore::open(&path, options(Windows::WIDE)).unwrap();
    store.start().await.unwrap();
    assert_eq!(store.damaged_rows(), 0);
    for _ in 0..2 {
        let error = store.task(&user("u0"), &task_id("t0")).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { table: "tasks", .. }), "{error}");
    }
    store.tasks(&user("u0"), &TaskFilter::default(), None, 100).await.unwrap_err();
    assert_eq!(store.damaged_rows(), 1);
    assert!(store.task(&user("u0"), &task_id("t2")).await.unwrap().is_some());
    let page = store.tasks(&user("u1"), &TaskFilter::default(), None, 100).await.unwrap();
    assert_eq!(page.tasks.len(), 2);
    assert_eq!(store.changes(&user("u0"), 0, 9, 9_999).await.unwrap().changes.len(), 4);
    let more = WriteSet { changes: vec![change("u0", "{", 1)], ..WriteSet::default() };
    store.commit(more, CommitDurability::Immediate).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let report = verify::verify(&path).unwrap();
    assert_eq!(report.damages.len(), 1, "{:?}", report.damages);
}

#[tokio::test]
async fn verify_finds_a_damaged_row_of_every_table_and_rows_that_do_not_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.redb");
    made(&path).await;
    let report = verify::verify(&path).unwrap();
    assert_eq!(report.damages, Vec::<String>::new());
    assert_eq!((report.tasks, report.changes, report.head), (4, 6, (1, 6)));
    let whole = fs::read(&path).unwrap();
    let damaged = |what: &str, damage: &dyn Fn()| {
        fs::write(&path, &whole).unwrap();
        damage();
        let report = verify::verify(&path).unwrap();
        let found = report.damages.iter().any(|text| text.contains(what));
        assert!(found && report.damage_count > 0, "{what}: {:?}", report.damages);
    };
    damaged("table users", &|| flip(&path, tables::USERS, "u0"));
    damaged("table runs", &|| flip(&path, tables::RUNS, 1));
    damaged("table task_ids", &|| flip(&path, tables::TASK_IDS, "t4"));
    damaged("table tasks", &|| flip(&path, tables::TASKS, (1, 1)));
    damaged("table changes", &|| flip(&path, tables::CHANGES, 3));
    damaged("table events", &|| flip(&path, tables::EVENTS, &b"lost"[..]));
    damaged("table waiting", &|| flip(&path, tables::WAITING, ("later", 1)));
    damaged("table meta", &|| flip(&path, tables::META, "counters"));
    damaged("table processed", &|| remove(&path, tables::PROCESSED, "processed"));
    damaged("changes 3..4 are missing", &|| take(&path, tables::CHANGES, 3));
    damaged("table user_changes", &|| take(&path, tables::USER_CHANGES, (1, 3)));
    damaged("3 ids of tasks", &|| take(&path, tables::TASK_IDS, "t1"));
    damaged("has no waiting event", &|| take(&path, tables::WAITING, ("later", 1)));
    damaged("has no expiry", &|| take(&path, tables::WAITING_SINCE, (5, 1)));
    damaged("3 event ids", &|| take(&path, tables::EVENTS, &b"lost"[..]));
}

fn take<K: redb::Key + 'static, V: redb::Value + 'static>(
    path: &Path,
    table: TableDefinition<'static, K, V>,
    key: K::SelfType<'_>,
) {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.open_table(table).unwrap().remove(&key).unwrap().is_some());
    transaction.commit().unwrap();
}

/// Makes every row of `processed` one that is none of ours.
fn remove(
    path: &Path,
    table: TableDefinition<'static, (&'static str, i32), &'static [u8]>,
    _name: &str,
) {
    let database = redb::Database::open(path).unwrap();
    let read = database.begin_read().unwrap();
    let keys: Vec<(String, i32)> = read
        .open_table(table)
        .unwrap()
        .iter()
        .unwrap()
        .map(|row| {
            let key = row.unwrap().0;
            (key.value().0.to_owned(), key.value().1)
        })
        .collect();
    let transaction = database.begin_write().unwrap();
    for (topic, partition) in keys {
        let mut rows = transaction.open_table(table).unwrap();
        rows.insert((topic.as_str(), partition), &b"none"[..]).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_file_that_is_no_store_is_damage_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.redb");
    for bytes in [&b""[..], b"x", &[b'x'; 10_000]] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(verify::verify(&path).unwrap().damage_count, 1, "{} bytes", bytes.len());
    }
    drop(fs::remove_file(&path));
    drop(redb_file::create(&path).unwrap());
    assert!(verify::verify(&path).unwrap().damage_count > 0, "there are no tables");
}

#[tokio::test]
async fn a_damaged_waiting_event_is_dropped_when_it_is_due_and_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.redb");
    made(&path).await;
    let store = RedbStore::open(&path, options(Windows::WIDE)).unwrap();
    store.start().await.unwrap();
    let waiting = |id: &str, since_ms, offset| WaitingEvent {
        task_id: task_id(id),
        source: (contract::partition(0), Offset::new(offset).unwrap()),
        since_ms,
        timestamp_ms: 4,
        record: b"another".to_vec(),
    };
    let added = vec![waiting("later", 6, 12), waiting("other", 7, 13)];
    let writes = WriteSet { waiting_added: added, ..WriteSet::default() };
    store.commit(writes, CommitDurability::Immediate).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    flip(&path, tables::WAITING, ("later", 1));
    let report = verify::verify(&path).unwrap();
    assert!(report.damages.iter().any(|what| what.contains("waiting")), "{:?}", report.damages);

    let metrics = Arc::new(Metrics::new());
    let store = RedbStore::open(&path, options(Windows::WIDE)).unwrap();
    let store = store.with_metrics(Arc::clone(&metrics));
    store.start().await.unwrap();
    // A task that comes finds the others that wait for it.
    let keys = LoadKeys { tasks: vec![task_id("later")], events: Vec::new() };
    let loaded = store.load(&keys).await.unwrap();
    assert_eq!(loaded.waiting[&task_id("later")], [waiting("later", 6, 12)]);
    let writes = WriteSet { waiting_taken: vec![task_id("later")], ..WriteSet::default() };
    store.commit(writes, CommitDurability::Deferred).await.unwrap();

    assert_eq!(store.stats().waiting, 2);
    assert_eq!(store.waiting_before(5, 10).await.unwrap(), [], "it is not due yet");
    assert_eq!(store.waiting_before(100, 1).await.unwrap(), [waiting("other", 7, 13)]);
    assert_eq!((store.stats().waiting, store.stats().waiting_bytes), (1, 7));
    assert_eq!((metrics.apply_waiting_lost.get(), store.damaged_rows()), (1, 1));
    store.close().await.unwrap();
    drop(store);
    assert_eq!(verify::verify(&path).unwrap().damages, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_letter_is_listed_as_such_among_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tasks.redb");
    let place = |offset| {
        let (at, offset) = (contract::partition(0), Offset::new(offset).unwrap());
        RecordPosition { topic: at.topic, partition: at.partition, offset }
    };
    let letter = |offset| StoredLetter {
        state: LetterState::Open,
        reason: Reason::InvalidJson,
        detail: "detail".to_owned(),
        event_id: None,
        source: place(offset),
        end: None,
        at_ms: 1,
        value_bytes: 2,
    };
    let store = RedbStore::open(&path, options(Windows::WIDE)).unwrap();
    store.start().await.unwrap();
    let letters = (0..3).map(|offset| (place(offset), letter(offset))).collect();
    let writes = WriteSet { letters, ..WriteSet::default() };
    store.commit(writes, CommitDurability::Immediate).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let topic = place(0).topic;
    let table: TableDefinition<'static, (&str, i32, i64), &[u8]> = TableDefinition::new("letters");
    flip(&path, table, (topic.as_str(), place(0).partition.get(), 1));
    let report = verify::verify(&path).unwrap();
    let tells = report.damages.iter().any(|what| what.contains("table letters is damaged"));
    assert!(tells && report.damages.len() == 1, "{:?}", report.damages);

    let store = RedbStore::open(&path, options(Windows::WIDE)).unwrap();
    store.start().await.unwrap();
    let page = store.letters(&topic, &LetterFilter::default(), None, 10).await.unwrap();
    assert_eq!(page.letters, [(place(0), letter(0)), (place(2), letter(2))]);
    let [(at, why)] = &page.damaged[..] else { panic!("{:?}", page.damaged) };
    assert!(*at == place(1) && why.contains("is damaged"), "{at:?} {why}");
    let page = store.letters(&topic, &LetterFilter::default(), None, 2).await.unwrap();
    assert_eq!((page.letters.len(), page.next), (1, Some(place(1))), "it has its place in a page");
}
