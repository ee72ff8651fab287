//! Reads, each on one snapshot.

use super::{
    Shared,
    row::{self, ChangeRow, EventRow, TaskPlace, TaskRow},
    sum::{self, damaged},
    tables::{CHANGES, EVENTS, TASK_IDS, TASKS, USER_CHANGES, USERS, WAITING, WAITING_SINCE},
};
use crate::{
    store::{
        ChangePage, KnownEvent, LoadKeys, Loaded, PAGE_ROWS_MAX, StoreError, StoredChange,
        WaitingEvent,
    },
    task::{Task, TaskId, UserId, event::EventId, transition::TaskState},
};
use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};
use std::{ops::Range, sync::atomic::Ordering};

pub(super) fn user_number(
    snapshot: &ReadTransaction,
    user_id: &UserId,
) -> Result<Option<u64>, StoreError> {
    let table = snapshot.open_table(USERS)?;
    let Some(row) = table.get(user_id.as_str())? else { return Ok(None) };
    sum::open("users", user_id.as_str(), row.value(), row::decode_number).map(Some)
}

pub(super) fn load(shared: &Shared, keys: &LoadKeys) -> Result<Loaded, StoreError> {
    let snapshot = shared.snapshot()?;
    let counters = shared.counters.load();
    let (waiting_total, waiting_bytes) = (counters.waiting, counters.waiting_bytes);
    let mut loaded = Loaded { waiting_total, waiting_bytes, ..Loaded::default() };
    let (ids, tasks) = (snapshot.open_table(TASK_IDS)?, snapshot.open_table(TASKS)?);
    for id in &keys.tasks {
        let Some(place) = ids.get(id.as_str())? else {
            continue;
        };
        let place = sum::open("task_ids", id.as_str(), place.value(), TaskPlace::decode)?;
        let state = match place {
            TaskPlace::Tombstone(creation) => TaskState::Deleted { creation },
            TaskPlace::At(user, number) => {
                let key = (user, number);
                let row = tasks.get(key)?.ok_or_else(|| damaged("tasks", key))?;
                sum::open("tasks", key, row.value(), |row| task_state(id, row))?
            }
        };
        loaded.tasks.insert(id.clone(), state);
    }
    if loaded.waiting_total > 0 {
        load_waiting(shared, &snapshot, keys, &mut loaded)?;
    }
    let events = snapshot.open_table(EVENTS)?;
    for id in &keys.events {
        let key = row::event_key(id);
        if let Some(row) = events.get(&key[..])? {
            let row = sum::open("events", &key[..], row.value(), EventRow::decode)?;
            loaded.events.insert(id.clone(), row.known);
        }
    }
    Ok(loaded)
}

fn task_state(id: &TaskId, row: &[u8]) -> Option<TaskState> {
    let row = TaskRow::decode(row)?;
    let task = Task::from_json(row.json).filter(|task| task.id == *id)?;
    Some(TaskState::Present { task, creation: row.creation })
}

fn load_waiting(
    shared: &Shared,
    snapshot: &ReadTransaction,
    keys: &LoadKeys,
    loaded: &mut Loaded,
) -> Result<(), StoreError> {
    let waiting = snapshot.open_table(WAITING)?;
    for id in &keys.tasks {
        let mut events = Vec::new();
        for entry in waiting.range((id.as_str(), 0)..=(id.as_str(), u64::MAX))? {
            let (key, row) = entry?;
            // A damaged row is dropped when it is due, and applied by nobody.
            if let Some(event) = sound(shared, waiting_event(key.value(), row.value()))? {
                events.push(event);
            }
        }
        if !events.is_empty() {
            loaded.waiting.insert(id.clone(), events);
        }
    }
    Ok(())
}

/// A value of `waiting`.
pub(super) fn waiting_event(key: (&str, u64), row: &[u8]) -> Result<WaitingEvent, StoreError> {
    sum::open("waiting", key, row, |row| row::decode_waiting(key.0, row))
}

/// The row, unless it is damaged, which is told.
fn sound<T>(shared: &Shared, row: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match shared.damages.note(row) {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What [`waiting_before`] returns.
type Due = (Vec<WaitingEvent>, Vec<(i64, u64)>);

/// Events that wait since before `before_ms`, at most `limit`; and the keys of `waiting_since` on
/// the way whose events cannot be read.
pub(super) fn waiting_before(
    shared: &Shared,
    before_ms: i64,
    limit: usize,
) -> Result<Due, StoreError> {
    let snapshot = shared.snapshot()?;
    let (order, waiting) = (snapshot.open_table(WAITING_SINCE)?, snapshot.open_table(WAITING)?);
    let (mut events, mut lost) = (Vec::new(), Vec::new());
    for entry in order.range(..(before_ms, 0))? {
        if events.len() == limit {
            break;
        }
        let (place, id) = entry?;
        let key = (id.value(), place.value().1);
        let row = waiting.get(key)?.ok_or_else(|| damaged("waiting", key));
        let event = row.and_then(|row| waiting_event(key, row.value()));
        match sound(shared, event)? {
            Some(event) => events.push(event),
            None => lost.push(place.value()),
        }
    }
    Ok((events, lost))
}

/// Bytes of all records that wait.
pub(super) fn waiting_bytes(
    table: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
) -> Result<u64, StoreError> {
    let mut bytes = 0_u64;
    for entry in table.iter()? {
        let (key, row) = entry?;
        // A damaged row is told of by whoever needs it.
        let length = waiting_event(key.value(), row.value()).map_or(0, |event| event.record.len());
        bytes += u64::try_from(length).expect("a length in memory fits 64 bits");
    }
    Ok(bytes)
}

pub(super) fn task(
    shared: &Shared,
    user_id: &UserId,
    task_id: &TaskId,
) -> Result<Option<Bytes>, StoreError> {
    let snapshot = shared.snapshot()?;
    let Some(key) = task_key(&snapshot, task_id.as_str())? else { return Ok(None) };
    if user_number(&snapshot, user_id)? != Some(key.0) {
        return Ok(None);
    }
    let json = |row: &[u8]| Some(Bytes::copy_from_slice(TaskRow::decode(row)?.json));
    task_row(&snapshot, key, json).map(Some)
}

/// Where a task's row is; `None` if there is no such task.
pub(super) fn task_key(
    snapshot: &ReadTransaction,
    id: &str,
) -> Result<Option<(u64, u64)>, StoreError> {
    let Some(place) = snapshot.open_table(TASK_IDS)?.get(id)? else { return Ok(None) };
    match sum::open("task_ids", id, place.value(), TaskPlace::decode)? {
        TaskPlace::At(user, number) => Ok(Some((user, number))),
        TaskPlace::Tombstone(_) => Ok(None),
    }
}

/// What `decode` makes of the row of a task that is there.
pub(super) fn task_row<T>(
    snapshot: &ReadTransaction,
    key: (u64, u64),
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, StoreError> {
    let row = snapshot.open_table(TASKS)?.get(key)?.ok_or_else(|| damaged("tasks", key))?;
    sum::open("tasks", key, row.value(), decode)
}

/// The rows of a page in one allocation.
#[derive(Default)]
pub(super) struct PackedPage {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: Vec<Range<usize>>,
}

impl PackedPage {
    /// Whether a row of so many bytes is one too many. A single row always fits.
    pub(super) fn is_full(&self, more: usize, rows_max: usize, bytes_max: usize) -> bool {
        let is_long = self.bytes.len() + more > bytes_max;
        !self.rows.is_empty() && (self.rows.len() >= rows_max || is_long)
    }

    pub(super) fn push(&mut self, row: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(row);
        self.rows.push(start..self.bytes.len());
    }

    pub(super) fn into_rows(self) -> Vec<Bytes> {
        let bytes = Bytes::from(self.bytes);
        self.rows.into_iter().map(|row| bytes.slice(row)).collect()
    }
}

pub(super) fn changes(
    shared: &Shared,
    user_id: &UserId,
    sequence: u64,
    (limit, bytes_max): (usize, usize),
) -> Result<ChangePage, StoreError> {
    // Read before the snapshot, which then holds at least the changes up to here.
    let head = shared.head();
    let snapshot = shared.snapshot()?;
    let seen_to = head.max(sequence);
    let Some(user) = user_number(&snapshot, user_id)? else {
        return Ok(ChangePage { changes: Vec::new(), seen_to });
    };
    let first = sequence.max(shared.earliest.load(Ordering::Acquire)).saturating_add(1);
    let (index, table) = (snapshot.open_table(USER_CHANGES)?, snapshot.open_table(CHANGES)?);
    let (mut packed, mut sequences) = (PackedPage::default(), Vec::new());
    let mut is_cut = false;
    for entry in index.range((user, first)..=(user, u64::MAX))? {
        let (_, sequence) = entry?.0.value();
        if sequences.len() == limit.min(PAGE_ROWS_MAX) || packed.bytes.len() >= bytes_max {
            is_cut = true;
            break;
        }
        let Some(row) = table.get(sequence)? else {
            // Trimmed; its index row is swept later.
            if sequence <= shared.earliest() {
                continue;
            }
            return Err(damaged("changes", sequence));
        };
        let is_theirs = |row: &ChangeRow<'_>| row.user == user;
        let decode = |row| ChangeRow::decode(row).filter(is_theirs);
        let row = sum::open("changes", sequence, row.value(), decode)?;
        packed.push(row.message);
        sequences.push(sequence);
    }
    let last = sequences.last().copied().unwrap_or(sequence);
    let changes = sequences
        .into_iter()
        .zip(packed.into_rows())
        .map(|(sequence, message)| StoredChange { sequence, message })
        .collect();
    Ok(ChangePage { changes, seen_to: if is_cut { last } else { seen_to.max(last) } })
}

pub(super) fn outcome(
    shared: &Shared,
    event_id: &EventId,
) -> Result<Option<KnownEvent>, StoreError> {
    let table = shared.snapshot()?.open_table(EVENTS)?;
    let key = row::event_key(event_id);
    let Some(row) = table.get(&key[..])? else {
        return Ok(None);
    };
    Ok(Some(sum::open("events", &key[..], row.value(), EventRow::decode)?.known))
}
