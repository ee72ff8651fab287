//! The reminders that are still to be made: one row for each open task with a due date of which its
//! owner was not told yet.
//!
//! Invariant: what is written follows from the tasks before and after a batch, so reading the log
//! again gives the same rows. A row that should not be there is harmless: apply finds that its
//! reminder comes too late.

use super::{
    Shared, read,
    row::TaskRow,
    sum::{self, damaged},
    tables::TASKS,
};
use crate::{
    redb_file,
    store::{DueTask, StoreError},
    task::{Task, TaskId},
};
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

/// (Due date, task id).
pub(super) const DUE: TableDefinition<'static, (i64, &str), ()> = TableDefinition::new("due");

/// Makes the table where it is missing, with the tasks that are there.
pub(super) fn open(
    database: &Database,
    begin: impl FnOnce(&Database) -> Result<WriteTransaction, StoreError>,
) -> Result<(), StoreError> {
    let snapshot = database.begin_read()?;
    if redb_file::has_table(&snapshot, DUE)? {
        return Ok(());
    }
    let transaction = begin(database)?;
    {
        let mut table = transaction.open_table(DUE)?;
        for entry in snapshot.open_table(TASKS)?.range::<(u64, u64)>(..)? {
            let (key, row) = entry?;
            // A damaged row is told of by whoever needs it.
            let task = sum::open("tasks", key.value(), row.value(), task_of);
            let Ok(task) = task else { continue };
            if let Some(due_date) = due_date(&task) {
                table.insert((due_date, task.id.as_str()), ())?;
            }
        }
    }
    Ok(transaction.commit()?)
}

fn task_of(row: &[u8]) -> Option<Task> {
    Task::from_json(TaskRow::decode(row)?.json)
}

/// All rows, in one line each.
#[cfg(test)]
pub(super) fn dump(snapshot: &redb::ReadTransaction) -> Vec<String> {
    let table = snapshot.open_table(DUE).expect("there");
    let rows = table.range::<(i64, &str)>(..).expect("readable");
    rows.map(|row| format!("due {:?}", row.expect("readable").0.value())).collect()
}

/// Of what a task's owner is to be told. A date that was over when it was set reminds of nothing.
fn due_date(task: &Task) -> Option<i64> {
    task.due_date.filter(|due_date| !task.completed && *due_date > task.updated_at)
}

/// The rows that a batch changes.
#[derive(Default)]
pub(super) struct Changes<'a> {
    removed: Vec<(i64, &'a str)>,
    added: Vec<(i64, &'a str)>,
}

impl<'a> Changes<'a> {
    /// A task's row before the batch, and the task after it.
    pub(super) fn note(&mut self, id: &'a TaskId, before: Option<&[u8]>, after: Option<&Task>) {
        let before = before.and_then(TaskRow::decode);
        let before = before.and_then(|row| row.due_date.filter(|_| !row.completed));
        let after_date = after.and_then(|task| task.due_date.filter(|_| !task.completed));
        if before == after_date {
            return;
        }
        self.removed.extend(before.map(|due_date| (due_date, id.as_str())));
        self.added.extend(after.and_then(due_date).map(|due_date| (due_date, id.as_str())));
    }

    /// Writes them; `made` are reminders that the batch applied, whatever they came to.
    pub(super) fn write(
        mut self,
        transaction: &WriteTransaction,
        made: &'a [(i64, TaskId)],
    ) -> Result<(), StoreError> {
        if self.removed.is_empty() && self.added.is_empty() && made.is_empty() {
            return Ok(());
        }
        let mut table = transaction.open_table(DUE)?;
        for row in self.removed.drain(..) {
            table.remove(row)?;
        }
        for row in self.added {
            table.insert(row, ())?;
        }
        for (due_date, id) in made {
            table.remove((*due_date, id.as_str()))?;
        }
        Ok(())
    }
}

/// The tasks that are due before a time, the earliest first.
pub(super) fn before(
    shared: &Shared,
    before_ms: i64,
    limit: usize,
) -> Result<Vec<DueTask>, StoreError> {
    let snapshot = shared.snapshot()?;
    let mut due = Vec::new();
    for entry in snapshot.open_table(DUE)?.range(..(before_ms, ""))?.take(limit) {
        let (key, ()) = entry.map(|(key, value)| (key, value.value()))?;
        let (due_date, id) = key.value();
        let task_id = TaskId::new(id).ok_or_else(|| damaged("due", key.value()))?;
        let task = match read::task_key(&snapshot, id)? {
            Some(key) => Some(read::task_row(&snapshot, key, task_of)?),
            None => None,
        };
        due.push(DueTask { due_date, task_id, task });
    }
    Ok(due)
}
