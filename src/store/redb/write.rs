//! The writer: opens the tables, commits write sets, marks start and stop.

use super::{
    CommitDurability, Options, Shared, due,
    file::FreeSpace,
    letters, read,
    row::{self, ChangeRow, Counters, EventRow, TaskPlace, TaskRow},
    runs::{Run, Runs},
    sum::{self, damaged},
    sweep::Sweeps,
    tables::{
        CHANGES, EVENTS, FORMAT, META, META_CLEAN, META_COUNTERS, META_EPOCH, META_FORMAT,
        OUTBOUND, PROCESSED, RUNS, TASK_IDS, TASKS, USER_CHANGES, USERS, WAITING, WAITING_SINCE,
    },
};
use crate::{
    position::{Partition, TopicName, TopicPartition},
    store::{NewChange, StoreError, StoreStart, WaitingEvent, WriteSet},
    task::{TaskId, UserId, transition::TaskState},
};
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    WriteTransaction,
};
use std::{
    cmp::Ordering,
    collections::HashMap,
    io,
    sync::{Arc, atomic::Ordering as Memory},
};
use tracing::error;

/// What an open store begins with.
pub(super) struct Opened {
    pub(super) counters: Counters,
    pub(super) runs: Runs,
    pub(super) earliest: u64,
    pub(super) partitions: u64,
}

/// Makes the tables of a new file, and reads what every open store has at hand.
pub(super) fn open_tables(database: &Database) -> Result<Opened, StoreError> {
    if database.begin_read()?.list_tables()?.next().is_none() {
        create(database)?;
    }
    let snapshot = database.begin_read()?;
    refuse_other_formats(&snapshot)?;
    let epoch = meta_row(&snapshot, META_EPOCH, row::decode_number)?;
    let mut counters = meta_row(&snapshot, META_COUNTERS, Counters::decode)?;
    letters::make_table(database, durable)?;
    if counters.letters_open.is_none() {
        counters.letters_open = Some(letters::count_open(database)?);
    }
    due::open(database, durable)?;
    counters.waiting_bytes = read::waiting_bytes(&snapshot.open_table(WAITING)?)?;
    let mut runs = Vec::new();
    for entry in snapshot.open_table(RUNS)?.iter()? {
        let (key, first) = entry?;
        let key = key.value();
        let first = sum::open("runs", key, first.value(), row::decode_number)?;
        let number = u32::try_from(key).map_err(|_| damaged("runs", key))?;
        runs.push(Run { number, first });
    }
    let runs = Runs::new(epoch, runs).ok_or_else(|| damaged("runs", 0_u64))?;
    let oldest = snapshot.open_table(CHANGES)?.first()?.map(|(sequence, _)| sequence.value());
    let earliest = oldest.unwrap_or(counters.next_sequence).saturating_sub(1);
    let partitions = snapshot.open_table(PROCESSED)?.len()?;
    Ok(Opened { counters, runs, earliest, partitions })
}

/// A row of `meta`.
pub(super) fn meta_row<T>(
    snapshot: &ReadTransaction,
    name: &'static str,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, StoreError> {
    let row = snapshot.open_table(META)?.get(name)?.ok_or_else(|| damaged("meta", name))?;
    sum::open("meta", name, row.value(), decode)
}

/// The format is the first thing that is read: of another one, nothing else can be told.
pub(super) fn refuse_other_formats(snapshot: &ReadTransaction) -> Result<(), StoreError> {
    let missing = || damaged("meta", META_FORMAT);
    let format = snapshot.open_table(META)?.get(META_FORMAT)?.ok_or_else(missing)?;
    let found = row::decode_format(format.value()).ok_or_else(missing)?;
    match found.cmp(&FORMAT) {
        Ordering::Greater => Err(StoreError::NewerFormat { found, known: FORMAT }),
        Ordering::Less => Err(StoreError::OlderFormat { found, known: FORMAT }),
        Ordering::Equal => Ok(()),
    }
}

/// All tables at once, so that readers find them. A new store counts as closed cleanly.
fn create(database: &Database) -> Result<(), StoreError> {
    let transaction = durable(database)?;
    {
        let mut meta = transaction.open_table(META)?;
        let (epoch, _) = uuid::Uuid::new_v4().as_u64_pair();
        meta.insert(META_FORMAT, &FORMAT.to_le_bytes()[..])?;
        for (name, row) in [
            (META_EPOCH, row::encode_number(epoch)),
            (META_CLEAN, row::encode_clean(true)),
            (META_COUNTERS, Counters::EMPTY.encode()),
        ] {
            meta.insert(name, &sum::seal("meta", name, row)[..])?;
        }
        let first = sum::seal("runs", 1_u64, row::encode_number(1));
        transaction.open_table(RUNS)?.insert(1, &first[..])?;
        transaction.open_table(USERS)?;
        transaction.open_table(TASK_IDS)?;
        transaction.open_table(TASKS)?;
        transaction.open_table(CHANGES)?;
        transaction.open_table(USER_CHANGES)?;
        transaction.open_table(EVENTS)?;
        transaction.open_table(WAITING)?;
        transaction.open_table(WAITING_SINCE)?;
        transaction.open_table(PROCESSED)?;
        transaction.open_table(OUTBOUND)?;
    }
    Ok(transaction.commit()?)
}

/// A transaction that is a checkpoint.
fn durable(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn put_meta(
    transaction: &WriteTransaction,
    name: &'static str,
    row: Vec<u8>,
) -> Result<(), StoreError> {
    transaction.open_table(META)?.insert(name, &sum::seal("meta", name, row)[..])?;
    Ok(())
}

/// Whether the last commit was that of [`Writer::close`]. Before a start nothing is at stake.
pub(super) fn is_closed(shared: &Shared) -> bool {
    let read = || meta_row(&shared.snapshot()?, META_CLEAN, row::decode_clean);
    read().unwrap_or(false)
}

/// Owns all commits; lives on the writer thread.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) options: Options,
    pub(super) counters: Counters,
    pub(super) sweeps: Sweeps,
    /// How much disk is left, and how much must be.
    space: (FreeSpace, u64),
    /// What the first start found; `None` before it.
    was_clean: Option<bool>,
    is_closed: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, options: Options, space: (FreeSpace, u64)) -> Self {
        let counters = **shared.counters.load();
        let sweeps = Sweeps::default();
        Self { shared, options, counters, sweeps, space, was_clean: None, is_closed: false }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The first start marks the store as unclean and raises the run if it was so already; later
    /// ones only read.
    pub(super) fn start(&mut self) -> Result<StoreStart, StoreError> {
        if self.was_clean.is_none() {
            self.was_clean = Some(self.mark_start()?);
        }
        let snapshot = self.shared.snapshot()?;
        let (mut processed, mut outbound) = (HashMap::new(), HashMap::new());
        for entry in snapshot.open_table(PROCESSED)?.iter()? {
            let (key, row) = entry?;
            let key = key.value();
            let place = topic_partition(key).ok_or_else(|| damaged("processed", key))?;
            let row = sum::open("processed", key, row.value(), row::decode_processed)?;
            processed.insert(place, row);
        }
        for entry in snapshot.open_table(OUTBOUND)?.iter()? {
            let (key, row) = entry?;
            let key = key.value();
            let place = topic_partition(key).ok_or_else(|| damaged("outbound", key))?;
            let offset = sum::open("outbound", key, row.value(), row::decode_offset)?;
            outbound.insert(place, offset);
        }
        Ok(StoreStart { processed, outbound, was_clean: self.was_clean.unwrap_or(false) })
    }

    /// Whether the last stop was clean.
    fn mark_start(&self) -> Result<bool, StoreError> {
        self.check_space()?;
        let transaction = durable(&self.shared.database)?;
        let was_clean = meta_row(&self.shared.snapshot()?, META_CLEAN, row::decode_clean)?;
        let mut runs = self.shared.runs.load_full();
        if !was_clean {
            runs = Arc::new(runs.raised(self.counters.next_sequence, self.shared.earliest()));
            let mut table = transaction.open_table(RUNS)?;
            table.retain(|_, _| false)?;
            for run in runs.iter() {
                let number = u64::from(run.number);
                let first = sum::seal("runs", number, row::encode_number(run.first));
                table.insert(number, &first[..])?;
            }
        }
        put_meta(&transaction, META_CLEAN, row::encode_clean(false))?;
        transaction.commit()?;
        self.shared.runs.store(runs);
        Ok(was_clean)
    }

    /// Commits a batch; returns the sequence of its first change.
    pub(super) fn commit(
        &mut self,
        writes: &WriteSet,
        durability: CommitDurability,
    ) -> Result<u64, StoreError> {
        self.check_space()?;
        let first = self.counters.next_sequence;
        let partitions = self.shared.partitions.load(Memory::Acquire);
        let mut batch = Batch { counters: self.counters, users: HashMap::new(), partitions };
        let transaction = self.begin(durability)?;
        batch.write(&transaction, writes)?;
        if let Some(trim) = &writes.letter_trim {
            let (after, open) = (&mut self.sweeps.letters, &mut batch.counters.letters_open);
            *open = letters::trim(&transaction, trim, after, *open)?;
        }
        self.finish(transaction, batch.counters)?;
        self.shared.partitions.store(batch.partitions, Memory::Release);
        Ok(first)
    }

    /// Drops waiting events that cannot be read, by their keys in `waiting_since`: nobody can apply
    /// them, and they would stay due for ever. Returns how many. Not durable by itself; those that
    /// come back after a crash are dropped again.
    pub(super) fn drop_waiting(&mut self, lost: &[(i64, u64)]) -> Result<u64, StoreError> {
        let mut counters = self.counters;
        let transaction = self.begin(CommitDurability::Deferred)?;
        let mut dropped = 0;
        {
            let mut waiting = transaction.open_table(WAITING)?;
            let mut order = transaction.open_table(WAITING_SINCE)?;
            for place in lost {
                let Some(id) = order.get(*place)?.map(|id| id.value().to_owned()) else { continue };
                let key = (id.as_str(), place.1);
                let event = waiting.get(key)?.map(|row| read::waiting_event(key, row.value()));
                if matches!(event, Some(Ok(_))) {
                    continue;
                }
                order.remove(*place)?;
                waiting.remove(key)?;
                dropped += 1;
                let failure = damaged("waiting", key);
                error!(%failure, "dropped a waiting event; its record is still in the log");
            }
            counters.waiting = waiting.len()?;
            counters.waiting_bytes = read::waiting_bytes(&waiting)?;
        }
        self.finish(transaction, counters)?;
        Ok(dropped)
    }

    /// A transaction, if commits are still allowed.
    pub(super) fn begin(
        &self,
        durability: CommitDurability,
    ) -> Result<WriteTransaction, StoreError> {
        if self.is_closed {
            return Err(StoreError::Database(io::Error::other("the store is closed").into()));
        }
        match durability {
            CommitDurability::Immediate => durable(&self.shared.database),
            CommitDurability::Deferred => {
                let mut transaction = self.shared.database.begin_write()?;
                transaction.set_durability(Durability::None)?;
                Ok(transaction)
            }
        }
    }

    /// Commits with the counters as they are after it, and shows them once it is visible.
    pub(super) fn finish(
        &mut self,
        transaction: WriteTransaction,
        counters: Counters,
    ) -> Result<(), StoreError> {
        put_meta(&transaction, META_COUNTERS, counters.encode())?;
        transaction.commit()?;
        self.counters = counters;
        self.shared.counters.store(Arc::new(counters));
        self.shared.next_sequence.store(counters.next_sequence, Memory::Release);
        Ok(())
    }

    /// Makes all durable and marks the stop as clean; nothing is committed after it.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        if self.is_closed {
            return Ok(());
        }
        let transaction = self.begin(CommitDurability::Immediate)?;
        put_meta(&transaction, META_CLEAN, row::encode_clean(true))?;
        self.finish(transaction, self.counters)?;
        self.is_closed = true;
        Ok(())
    }

    fn check_space(&self) -> Result<(), StoreError> {
        let (space, reserve) = &self.space;
        if space.bytes() < *reserve {
            return Err(StoreError::Full(io::Error::from(io::ErrorKind::StorageFull).into()));
        }
        Ok(())
    }
}

pub(super) fn topic_partition((topic, partition): (&str, i32)) -> Option<TopicPartition> {
    Some(TopicPartition { topic: TopicName::new(topic)?, partition: Partition::new(partition)? })
}

/// One write set on its way into a transaction.
struct Batch {
    counters: Counters,
    /// Numbers of the users met so far.
    users: HashMap<UserId, u64>,
    /// Partitions with a processed offset.
    partitions: u64,
}

impl Batch {
    fn write(
        &mut self,
        transaction: &WriteTransaction,
        writes: &WriteSet,
    ) -> Result<(), StoreError> {
        self.number_users(transaction, writes)?;
        if !writes.tasks.is_empty() || !writes.reminded.is_empty() {
            self.write_tasks(transaction, writes)?;
        }
        if !writes.changes.is_empty() {
            self.write_changes(transaction, &writes.changes)?;
        }
        if !writes.events.is_empty() {
            self.write_events(transaction, writes)?;
        }
        if !writes.waiting_taken.is_empty() {
            self.take_waiting(transaction, &writes.waiting_taken)?;
        }
        if !writes.waiting_added.is_empty() {
            self.add_waiting(transaction, &writes.waiting_added)?;
        }
        let change = letters::write(transaction, writes)?;
        let open = self.counters.letters_open;
        self.counters.letters_open = open.map(|open| open.saturating_add_signed(change));
        self.write_offsets(transaction, writes)
    }

    /// Gives every user of the batch its number; new ones are added.
    fn number_users(
        &mut self,
        transaction: &WriteTransaction,
        writes: &WriteSet,
    ) -> Result<(), StoreError> {
        let of_tasks = writes.tasks.iter().map(|(_, user_id, _)| user_id);
        let of_changes = writes.changes.iter().map(|change| &change.user_id);
        let mut table = None;
        for user_id in of_tasks.chain(of_changes) {
            if self.users.contains_key(user_id) {
                continue;
            }
            let table = match &mut table {
                Some(table) => table,
                none => none.insert(transaction.open_table(USERS)?),
            };
            let key = user_id.as_str();
            let known = match table.get(key)? {
                Some(row) => Some(sum::open("users", key, row.value(), row::decode_number)?),
                None => None,
            };
            let number = match known {
                Some(number) => number,
                None => {
                    let number = take(&mut self.counters.next_user);
                    let row = sum::seal("users", key, row::encode_number(number));
                    table.insert(key, &row[..])?;
                    number
                }
            };
            self.users.insert(user_id.clone(), number);
        }
        Ok(())
    }

    fn user(&self, user_id: &UserId) -> u64 {
        *self.users.get(user_id).expect("every user of the batch was numbered")
    }

    fn write_tasks(
        &mut self,
        transaction: &WriteTransaction,
        writes: &WriteSet,
    ) -> Result<(), StoreError> {
        let mut due = due::Changes::default();
        let mut ids = transaction.open_table(TASK_IDS)?;
        let mut tasks = transaction.open_table(TASKS)?;
        let place_row =
            |id: &TaskId, place: TaskPlace| sum::seal("task_ids", id.as_str(), place.encode());
        for (id, user_id, state) in &writes.tasks {
            let user = self.user(user_id);
            let known = match ids.get(id.as_str())? {
                Some(row) => {
                    Some(sum::open("task_ids", id.as_str(), row.value(), TaskPlace::decode)?)
                }
                None => None,
            };
            match state {
                // Not allowed by the contract, and nothing to write.
                TaskState::Absent => debug_assert!(false, "an absent task is no new state"),
                TaskState::Present { task, creation } => {
                    let key = if let Some(TaskPlace::At(user, number)) = known {
                        (user, number)
                    } else {
                        let key = (user, take(&mut self.counters.next_task));
                        ids.insert(id.as_str(), &place_row(id, TaskPlace::At(key.0, key.1))[..])?;
                        self.counters.tasks += 1;
                        key
                    };
                    let row = sum::seal("tasks", key, TaskRow::encode(task, creation));
                    let before = tasks.insert(key, &row[..])?;
                    due.note(id, before.as_ref().map(|row| row.value()), Some(task));
                }
                TaskState::Deleted { creation } => {
                    if let Some(TaskPlace::At(user, number)) = known {
                        let before = tasks.remove((user, number))?;
                        due.note(id, before.as_ref().map(|row| row.value()), None);
                        self.counters.tasks = self.counters.tasks.saturating_sub(1);
                    }
                    ids.insert(id.as_str(), &place_row(id, TaskPlace::Tombstone(*creation))[..])?;
                }
            }
        }
        due.write(transaction, &writes.reminded)
    }

    fn write_changes(
        &mut self,
        transaction: &WriteTransaction,
        changes: &[NewChange],
    ) -> Result<(), StoreError> {
        let mut table = transaction.open_table(CHANGES)?;
        let mut index = transaction.open_table(USER_CHANGES)?;
        for change in changes {
            let sequence = take(&mut self.counters.next_sequence);
            let user = self.user(&change.user_id);
            let NewChange { timestamp_ms, message, .. } = change;
            let row = ChangeRow { user, timestamp_ms: *timestamp_ms, message };
            table.insert(sequence, &sum::seal("changes", sequence, row.encode())[..])?;
            index.insert((user, sequence), ())?;
            self.counters.changes += 1;
        }
        Ok(())
    }

    fn write_events(
        &mut self,
        transaction: &WriteTransaction,
        writes: &WriteSet,
    ) -> Result<(), StoreError> {
        let mut table = transaction.open_table(EVENTS)?;
        for (id, known, timestamp_ms) in &writes.events {
            let number = take(&mut self.counters.next_event);
            let row =
                EventRow { number, timestamp_ms: *timestamp_ms, known: known.clone() }.encode();
            let key = row::event_key(id);
            let row = sum::seal("events", &key[..], row);
            // A waiting event that is applied later replaces its row.
            if table.insert(&key[..], &row[..])?.is_none() {
                self.counters.events += 1;
            }
        }
        Ok(())
    }

    fn take_waiting(
        &mut self,
        transaction: &WriteTransaction,
        taken: &[TaskId],
    ) -> Result<(), StoreError> {
        let mut waiting = transaction.open_table(WAITING)?;
        let mut order = transaction.open_table(WAITING_SINCE)?;
        for id in taken {
            let mut keys = Vec::new();
            for entry in waiting.range((id.as_str(), 0)..=(id.as_str(), u64::MAX))? {
                let (key, row) = entry?;
                // One that cannot be read was not loaded, and is dropped when it is due.
                let event = read::waiting_event(key.value(), row.value());
                let Ok(event) = event else { continue };
                keys.push(((event.since_ms, key.value().1), count(event.record.len())));
            }
            for (key, bytes) in keys {
                waiting.remove((id.as_str(), key.1))?;
                order.remove(key)?;
                let Counters { waiting, waiting_bytes, .. } = &mut self.counters;
                *waiting = waiting.saturating_sub(1);
                *waiting_bytes = waiting_bytes.saturating_sub(bytes);
            }
        }
        Ok(())
    }

    fn add_waiting(
        &mut self,
        transaction: &WriteTransaction,
        added: &[WaitingEvent],
    ) -> Result<(), StoreError> {
        let mut waiting = transaction.open_table(WAITING)?;
        let mut order = transaction.open_table(WAITING_SINCE)?;
        for event in added {
            let number = take(&mut self.counters.next_waiting);
            let id = event.task_id.as_str();
            let row = sum::seal("waiting", (id, number), row::encode_waiting(event));
            waiting.insert((id, number), &row[..])?;
            order.insert((event.since_ms, number), id)?;
            self.counters.waiting += 1;
            self.counters.waiting_bytes += count(event.record.len());
        }
        Ok(())
    }

    fn write_offsets(
        &mut self,
        transaction: &WriteTransaction,
        writes: &WriteSet,
    ) -> Result<(), StoreError> {
        if !writes.processed.is_empty() {
            let mut table = transaction.open_table(PROCESSED)?;
            for (place, processed) in &writes.processed {
                let key = (place.topic.as_str(), place.partition.get());
                let row = sum::seal("processed", key, row::encode_processed(*processed));
                table.insert(key, &row[..])?;
            }
            self.partitions = table.len()?;
        }
        if !writes.outbound.is_empty() {
            let mut table = transaction.open_table(OUTBOUND)?;
            for (place, offset) in &writes.outbound {
                let key = (place.topic.as_str(), place.partition.get());
                let row = sum::seal("outbound", key, row::encode_offset(*offset));
                table.insert(key, &row[..])?;
            }
        }
        Ok(())
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).expect("a length in memory fits 64 bits")
}

/// The number, which is used up.
const fn take(next: &mut u64) -> u64 {
    let number = *next;
    *next += 1;
    number
}
