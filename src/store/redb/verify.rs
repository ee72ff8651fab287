//! Looks at everything in a store's file and changes nothing: redb's own checksums, every row, and
//! that the tables agree with each other.

use super::{
    letters, read, row,
    row::{ChangeRow, Counters, EventRow, TaskPlace, TaskRow},
    sum::{self, damaged},
    tables::{
        CHANGES, EVENTS, META, META_COUNTERS, META_EPOCH, OUTBOUND, PROCESSED, RUNS, TASK_IDS,
        TASKS, USER_CHANGES, USERS, WAITING, WAITING_SINCE,
    },
    write::{self, topic_partition},
};
use crate::{
    position::{Offset, TopicPartition},
    redb_file,
    store::{Processed, StoreError},
    task::Task,
};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Damages that are listed one by one; of more, only the number is told.
const LISTED_MAX: usize = 200;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The store's life in positions.
    pub epoch: u64,
    /// The run, and the head's sequence.
    pub head: (u32, u64),
    /// Tasks present.
    pub tasks: u64,
    /// Changes kept.
    pub changes: u64,
    /// Where apply stands, per partition.
    pub processed: BTreeMap<TopicPartition, Processed>,
    /// Where outbound topics stood.
    pub outbound: BTreeMap<TopicPartition, Offset>,
    /// What is wrong, one clause each, at most `LISTED_MAX`.
    pub damages: Vec<String>,
    /// How much is wrong in all.
    pub damage_count: u64,
}

impl Report {
    fn add(&mut self, what: impl Into<String>) {
        self.damage_count += 1;
        if self.damages.len() < LISTED_MAX {
            self.damages.push(what.into());
        }
    }

    /// Notes a damaged row and passes everything else on.
    fn note<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Damaged { table, row }) => {
                self.add(format!("tasks.redb: row {row:08x} of table {table} is damaged"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.add(format!("tasks.redb: {}", what()));
        }
    }
}

/// Verifies a file that no daemon has open.
///
/// # Errors
/// The file cannot be read, or is of another format. Damage is no error: it is in the report.
pub fn verify(path: &Path) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let opened = redb_file::guarded(|| redb_file::open_view(path).map_err(StoreError::from));
    let verified = match opened {
        Ok(Ok(database)) => redb_file::guarded(|| tables(&database, &mut report)),
        Ok(Err(error)) => Ok(Err(error)),
        Err(panicked) => Err(panicked),
    };
    match verified {
        Ok(Ok(())) => (),
        Ok(Err(StoreError::DamagedFile(source))) => {
            report.add(format!("tasks.redb: the file is damaged: {source}"));
        }
        Ok(Err(error @ StoreError::Damaged { .. })) => {
            report.note::<()>(Err(error))?;
        }
        Ok(Err(error)) => return Err(error),
        Err(panicked) => report.add(format!("tasks.redb: the file is damaged: {panicked}")),
    }
    Ok(report)
}

/// Whether a file that is not open has the current format.
pub(super) fn check_format(path: &Path) -> Result<(), StoreError> {
    super::guarded(|| {
        let database = redb_file::open_view(path)?;
        write::refuse_other_formats(&database.begin_read()?)
    })
}

fn tables(database: &Database, report: &mut Report) -> Result<(), StoreError> {
    let snapshot = database.begin_read()?;
    write::refuse_other_formats(&snapshot)?;
    report.epoch = write::meta_row(&snapshot, META_EPOCH, row::decode_number)?;
    let counters = write::meta_row(&snapshot, META_COUNTERS, Counters::decode)?;
    report.note(write::meta_row(&snapshot, super::tables::META_CLEAN, row::decode_clean))?;
    let rows = snapshot.open_table(META)?.len()?;
    report.expect(rows == 4, || format!("table meta has {rows} rows and not 4"));
    runs(&snapshot, report, &counters)?;
    users(&snapshot, report, &counters)?;
    tasks(&snapshot, report, &counters)?;
    task_ids(&snapshot, report)?;
    changes(&snapshot, report, &counters)?;
    user_changes(&snapshot, report)?;
    events(&snapshot, report, &counters)?;
    waiting(&snapshot, report, &counters)?;
    let before = report.damage_count;
    let open = letters::verify(&snapshot, |error| report.note::<()>(Err(error)).map(drop))?;
    if let Some(counted) = counters.letters_open.filter(|_| report.damage_count == before) {
        report.expect(open == counted, || format!("{open} open letters, counted were {counted}"));
    }
    offsets(&snapshot, report)
}

fn runs(
    snapshot: &ReadTransaction,
    report: &mut Report,
    counters: &Counters,
) -> Result<(), StoreError> {
    let (mut last, mut count) = ((0, 0), 0);
    for entry in snapshot.open_table(RUNS)?.iter()? {
        let (key, row) = entry?;
        let number = key.value();
        let first = report.note(sum::open("runs", number, row.value(), row::decode_number))?;
        let Some(first) = first else { continue };
        report.expect(last.1 <= first && first <= counters.next_sequence, || {
            format!("run {number} begins at {first}, after {last:?}")
        });
        (last, count) = ((number, first), count + 1);
    }
    report.expect(count > 0, || "there is no run".to_owned());
    report.head = (u32::try_from(last.0).unwrap_or(0), counters.next_sequence.saturating_sub(1));
    Ok(())
}

fn users(
    snapshot: &ReadTransaction,
    report: &mut Report,
    counters: &Counters,
) -> Result<(), StoreError> {
    for entry in snapshot.open_table(USERS)?.iter()? {
        let (id, row) = entry?;
        let number = sum::open("users", id.value(), row.value(), row::decode_number);
        if let Some(number) = report.note(number)? {
            let given = counters.next_user;
            report.expect(number < given, || format!("user number {number} was not given"));
        }
    }
    Ok(())
}

fn tasks(
    snapshot: &ReadTransaction,
    report: &mut Report,
    counters: &Counters,
) -> Result<(), StoreError> {
    let (ids, users) = (snapshot.open_table(TASK_IDS)?, snapshot.open_table(USERS)?);
    for entry in snapshot.open_table(TASKS)?.iter()? {
        let (key, row) = entry?;
        let key = key.value();
        report.tasks += 1;
        let decode = |row| {
            let row = TaskRow::decode(row)?;
            let task = Task::from_json(row.json)?;
            row.agrees_with(&task).then_some(task)
        };
        let Some(task) = report.note(sum::open("tasks", key, row.value(), decode))? else {
            continue;
        };
        let place = ids.get(task.id.as_str())?.is_some_and(|row| {
            let place = sum::open("task_ids", task.id.as_str(), row.value(), TaskPlace::decode);
            matches!(place, Ok(TaskPlace::At(user, number)) if (user, number) == key)
        });
        let owner = users.get(task.user_id.as_str())?.is_some_and(|row| {
            let id = task.user_id.as_str();
            sum::open("users", id, row.value(), row::decode_number).is_ok_and(|user| user == key.0)
        });
        report.expect(place, || format!("task {key:?} is not where task_ids has it"));
        report.expect(owner, || format!("task {key:?} lies under another user"));
    }
    let counted = counters.tasks;
    let found = report.tasks;
    report.expect(found == counted, || format!("{found} tasks, counted were {counted}"));
    Ok(())
}

fn task_ids(snapshot: &ReadTransaction, report: &mut Report) -> Result<(), StoreError> {
    let tasks = snapshot.open_table(TASKS)?;
    let mut present = 0;
    for entry in snapshot.open_table(TASK_IDS)?.iter()? {
        let (id, row) = entry?;
        let place = sum::open("task_ids", id.value(), row.value(), TaskPlace::decode);
        if let Some(TaskPlace::At(user, number)) = report.note(place)? {
            present += 1;
            if tasks.get((user, number))?.is_none() {
                report.note::<()>(Err(damaged("tasks", (user, number))))?;
            }
        }
    }
    let found = report.tasks;
    report.expect(present == found, || format!("{found} tasks, and {present} ids of tasks"));
    Ok(())
}

fn changes(
    snapshot: &ReadTransaction,
    report: &mut Report,
    counters: &Counters,
) -> Result<(), StoreError> {
    let index = snapshot.open_table(USER_CHANGES)?;
    let mut next = None;
    for entry in snapshot.open_table(CHANGES)?.iter()? {
        let (key, row) = entry?;
        let sequence = key.value();
        report.changes += 1;
        let expected = next.unwrap_or(sequence);
        report
            .expect(sequence == expected, || format!("changes {expected}..{sequence} are missing"));
        next = Some(sequence.saturating_add(1));
        let row = sum::open("changes", sequence, row.value(), ChangeRow::decode);
        if let Some(row) = report.note(row)?
            && index.get((row.user, sequence))?.is_none()
        {
            report.note::<()>(Err(damaged("user_changes", (row.user, sequence))))?;
        }
    }
    let (end, counted) = (counters.next_sequence, counters.changes);
    let last = next.unwrap_or(end);
    report.expect(last == end, || format!("changes {last}..{end} are missing"));
    let found = report.changes;
    report.expect(found == counted, || format!("{found} changes, counted were {counted}"));
    Ok(())
}

fn user_changes(snapshot: &ReadTransaction, report: &mut Report) -> Result<(), StoreError> {
    let changes = snapshot.open_table(CHANGES)?;
    let first = changes.first()?.map(|(sequence, _)| sequence.value());
    for entry in snapshot.open_table(USER_CHANGES)?.iter()? {
        let (user, sequence) = entry?.0.value();
        // Below the first change they are leftovers of trimming.
        if first.is_none_or(|first| sequence < first) {
            continue;
        }
        let is_theirs = changes.get(sequence)?.is_some_and(|row| {
            let row = sum::open("changes", sequence, row.value(), ChangeRow::decode);
            // A damaged change is told of by itself.
            row.map_or(true, |row| row.user == user)
        });
        report.expect(is_theirs, || format!("change {sequence} is not user {user}'s"));
    }
    Ok(())
}

fn events(
    snapshot: &ReadTransaction,
    report: &mut Report,
    counters: &Counters,
) -> Result<(), StoreError> {
    let mut found = 0;
    for entry in snapshot.open_table(EVENTS)?.iter()? {
        let (key, row) = entry?;
        found += 1;
        let event = report.note(sum::open("events", key.value(), row.value(), EventRow::decode))?;
        if let Some(event) = event {
            let (number, given) = (event.number, counters.next_event);
            report.expect(number < given, || format!("event number {number} was not given"));
        }
    }
    let counted = counters.events;
    report.expect(found == counted, || format!("{found} event ids, counted were {counted}"));
    Ok(())
}

fn waiting(
    snapshot: &ReadTransaction,
    report: &mut Report,
    counters: &Counters,
) -> Result<(), StoreError> {
    let order = snapshot.open_table(WAITING_SINCE)?;
    let (mut found, mut keys) = (0, BTreeSet::new());
    for entry in snapshot.open_table(WAITING)?.iter()? {
        let (key, row) = entry?;
        let key = key.value();
        found += 1;
        let Some(event) = report.note(read::waiting_event(key, row.value()))? else { continue };
        keys.insert((event.since_ms, key.1));
        let in_order = order.get((event.since_ms, key.1))?.is_some_and(|id| id.value() == key.0);
        report.expect(in_order, || format!("waiting event {} has no expiry", key.1));
    }
    for entry in order.iter()? {
        let key = entry?.0.value();
        report.expect(keys.contains(&key), || format!("expiry {key:?} has no waiting event"));
    }
    let counted = counters.waiting;
    report.expect(found == counted, || format!("{found} wait, counted were {counted}"));
    Ok(())
}

fn offsets(snapshot: &ReadTransaction, report: &mut Report) -> Result<(), StoreError> {
    for entry in snapshot.open_table(PROCESSED)?.iter()? {
        let (key, row) = entry?;
        let key = key.value();
        let processed = sum::open("processed", key, row.value(), row::decode_processed);
        let place = topic_partition(key).ok_or_else(|| damaged("processed", key));
        if let (Some(place), Some(row)) = (report.note(place)?, report.note(processed)?) {
            report.processed.insert(place, row);
        }
    }
    for entry in snapshot.open_table(OUTBOUND)?.iter()? {
        let (key, row) = entry?;
        let key = key.value();
        let offset = sum::open("outbound", key, row.value(), row::decode_offset);
        let place = topic_partition(key).ok_or_else(|| damaged("outbound", key));
        if let (Some(place), Some(row)) = (report.note(place)?, report.note(offset)?) {
            report.outbound.insert(place, row);
        }
    }
    Ok(())
}
