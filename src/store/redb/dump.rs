//! All that a store says of tasks, for tests that compare two of them. What differs between two
//! lives of a store is left out: epoch, runs, marks, wall times, and its own numbers, which depend
//! on how events fell into batches.

use super::{
    due, letters, read,
    row::{self, ChangeRow, Counters, EventRow, TaskPlace, TaskRow},
    sum,
    tables::{CHANGES, EVENTS, META_COUNTERS, PROCESSED, TASK_IDS, TASKS, USERS, WAITING},
    write,
};
use crate::redb_file;
use redb::{ReadableDatabase, ReadableTable};
use std::{collections::HashMap, path::Path};

/// Every row in one line each.
pub(crate) fn dump(path: &Path) -> Vec<String> {
    let database = redb_file::open_view(path).unwrap();
    let read = database.begin_read().unwrap();
    let (mut lines, mut users) = (Vec::new(), HashMap::new());
    for entry in read.open_table(USERS).unwrap().iter().unwrap() {
        let (id, row) = entry.unwrap();
        let number = sum::open("users", id.value(), row.value(), row::decode_number).unwrap();
        users.insert(number, id.value().to_owned());
    }
    for entry in read.open_table(TASK_IDS).unwrap().iter().unwrap() {
        let (id, row) = entry.unwrap();
        let place = sum::open("task_ids", id.value(), row.value(), TaskPlace::decode).unwrap();
        let place = if let TaskPlace::At(user, _) = place {
            users[&user].clone()
        } else {
            format!("{place:?}")
        };
        lines.push(format!("id {} {place}", id.value()));
    }
    let mut of_users = Vec::new();
    for entry in read.open_table(TASKS).unwrap().iter().unwrap() {
        let (key, row) = entry.unwrap();
        let row = sum::open("tasks", key.value(), row.value(), TaskRow::decode).unwrap();
        let json = String::from_utf8_lossy(row.json);
        of_users.push((users[&key.value().0].clone(), format!("{json} {:?}", row.creation)));
    }
    // By user, and within a user as a list has them.
    of_users.sort_by(|a, b| a.0.cmp(&b.0));
    lines.extend(of_users.into_iter().map(|(user, task)| format!("task {user} {task}")));
    for entry in read.open_table(CHANGES).unwrap().iter().unwrap() {
        let (key, row) = entry.unwrap();
        let row = sum::open("changes", key.value(), row.value(), ChangeRow::decode).unwrap();
        let (user, message) = (&users[&row.user], String::from_utf8_lossy(row.message));
        lines.push(format!("change {} {user} {} {message}", key.value(), row.timestamp_ms));
    }
    for entry in read.open_table(EVENTS).unwrap().iter().unwrap() {
        let (key, row) = entry.unwrap();
        let row = sum::open("events", key.value(), row.value(), EventRow::decode).unwrap();
        // Of an event that waited, the time depends on batches, too: its own, or its task's.
        lines.push(format!("event {:?} {:?}", key.value(), row.known));
    }
    for entry in read.open_table(PROCESSED).unwrap().iter().unwrap() {
        let (key, row) = entry.unwrap();
        let row = sum::open("processed", key.value(), row.value(), row::decode_processed).unwrap();
        lines.push(format!("processed {:?} {}", key.value(), row.next));
    }
    for entry in read.open_table(WAITING).unwrap().iter().unwrap() {
        let (key, row) = entry.unwrap();
        let event = read::waiting_event(key.value(), row.value()).unwrap();
        lines.push(format!("waiting {} {:?} {:?}", key.value().0, event.source, event.record));
    }
    lines.extend(letters::dump(&read));
    lines.extend(due::dump(&read));
    let counters = write::meta_row(&read, META_COUNTERS, Counters::decode).unwrap();
    let Counters { next_sequence, tasks, changes, events, waiting, .. } = counters;
    lines.push(format!("counters {:?}", (next_sequence, tasks, changes, events, waiting)));
    lines
}
