//! From older formats to the current one: a new file is written beside the old one, synced, and
//! takes its name; the old one is kept. A crash on the way leaves the old file in place.

use super::{
    row,
    sum::{Key, damaged, seal},
    tables::{
        CHANGES, EVENTS, FORMAT, META, META_CLEAN, META_COUNTERS, META_EPOCH, META_FORMAT,
        OUTBOUND, PROCESSED, RUNS, TASK_IDS, TASKS, USER_CHANGES, USERS, WAITING, WAITING_SINCE,
    },
};
use crate::{
    disk::{beside, if_there, sync_name},
    redb_file,
    store::StoreError,
};
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, Value, WriteTransaction,
};
use std::{fs, io, path::Path};
use tracing::info;

/// From each older format to the current one.
pub(super) const MIGRATIONS: [(u32, Migration); 1] = [(1, from_1)];

type Migration = fn(&ReadTransaction, &Database) -> Result<(), StoreError>;

/// Brings a file of an older format up.
///
/// # Errors
/// The file is damaged or in use, or the disk refuses; it is then as it was.
pub(super) fn to_current(path: &Path, format: u32) -> Result<(), StoreError> {
    let unknown = StoreError::OlderFormat { found: format, known: FORMAT };
    let (_, migration) = MIGRATIONS.iter().find(|(from, _)| *from == format).ok_or(unknown)?;
    let made = beside(path, ".migrating");
    if_there(fs::remove_file(&made)).map_err(disk)?;
    super::guarded(|| {
        let old = redb_file::open_view(path)?;
        let new = redb_file::create(&made)?;
        migration(&old.begin_read()?, &new)?;
        make_durable(&new)
    })?;
    let kept = beside(path, &format!(".format-{format}"));
    // A link, so that there is a file of this name at every moment: a start would take a directory
    // without one for a new one.
    let replaced = if_there(fs::remove_file(&kept))
        .and_then(|()| fs::hard_link(path, &kept))
        .and_then(|()| fs::rename(&made, path))
        .and_then(|()| sync_name(path));
    replaced.map_err(disk)?;
    info!(path = %path.display(), kept = %kept.display(), from = format, to = FORMAT, "migrated");
    Ok(())
}

/// Format 1: rows without checksums, changes without their user, numbers as redb's own.
fn from_1(old: &ReadTransaction, new: &Database) -> Result<(), StoreError> {
    const USERS_1: TableDefinition<'static, &str, u64> = TableDefinition::new("users");
    const RUNS_1: TableDefinition<'static, u64, u64> = TableDefinition::new("runs");
    let transaction = begin(new)?;
    meta_from_1(old, &transaction)?;
    for entry in old.open_table(RUNS_1)?.iter()? {
        let (key, first) = entry?;
        let row = seal("runs", key.value(), row::encode_number(first.value()));
        transaction.open_table(RUNS)?.insert(key.value(), &row[..])?;
    }
    {
        let mut users = transaction.open_table(USERS)?;
        for entry in old.open_table(USERS_1)?.iter()? {
            let (key, number) = entry?;
            let row = seal("users", key.value(), row::encode_number(number.value()));
            users.insert(key.value(), &row[..])?;
        }
    }
    transaction.commit()?;
    rows_from_1(old, new, TASK_IDS, "task_ids")?;
    rows_from_1(old, new, TASKS, "tasks")?;
    rows_from_1(old, new, EVENTS, "events")?;
    rows_from_1(old, new, WAITING, "waiting")?;
    rows_from_1(old, new, PROCESSED, "processed")?;
    rows_from_1(old, new, OUTBOUND, "outbound")?;
    redb_file::copy_table(old, new, WAITING_SINCE)?;
    changes_from_1(old, new)
}

fn meta_from_1(old: &ReadTransaction, new: &WriteTransaction) -> Result<(), StoreError> {
    let old = old.open_table(META)?;
    let row_of = |name: &'static str| -> Result<Vec<u8>, StoreError> {
        Ok(old.get(name)?.ok_or_else(|| damaged("meta", name))?.value().to_vec())
    };
    let epoch = <[u8; 8]>::try_from(row_of(META_EPOCH)?);
    let epoch = epoch.map(u64::from_le_bytes).map_err(|_| damaged("meta", META_EPOCH))?;
    let counters = row_from_1(&row_of(META_COUNTERS)?);
    let counters = counters.ok_or_else(|| damaged("meta", META_COUNTERS))?;
    let is_clean = row_of(META_CLEAN)? == [1];
    let mut new = new.open_table(META)?;
    new.insert(META_FORMAT, &FORMAT.to_le_bytes()[..])?;
    for (name, row) in [
        (META_EPOCH, row::encode_number(epoch)),
        (META_CLEAN, row::encode_clean(is_clean)),
        (META_COUNTERS, counters),
    ] {
        new.insert(name, &seal("meta", name, row)[..])?;
    }
    Ok(())
}

/// Rows whose form is as it was, but for their version and the checksum.
fn rows_from_1<K: redb::Key + 'static>(
    old: &ReadTransaction,
    new: &Database,
    table: TableDefinition<'static, K, &'static [u8]>,
    name: &'static str,
) -> Result<(), StoreError>
where
    for<'a> <K as Value>::SelfType<'a>: Key,
{
    let rows = old.open_table(table)?;
    let mut rows = rows.iter()?;
    loop {
        let transaction = begin(new)?;
        let mut count = 0;
        {
            let mut target = transaction.open_table(table)?;
            for entry in rows.by_ref().take(ROWS_PER_COMMIT) {
                let (key, row) = entry?;
                let row = row_from_1(row.value()).ok_or_else(|| damaged(name, key.value()))?;
                target.insert(key.value(), &seal(name, key.value(), row)[..])?;
                count += 1;
            }
        }
        transaction.commit()?;
        if count < ROWS_PER_COMMIT {
            return Ok(());
        }
    }
}

/// By the index of each user: it tells whose a change is.
fn changes_from_1(old: &ReadTransaction, new: &Database) -> Result<(), StoreError> {
    let (index, changes) = (old.open_table(USER_CHANGES)?, old.open_table(CHANGES)?);
    let mut entries = index.iter()?;
    let mut moved = 0;
    loop {
        let transaction = begin(new)?;
        let mut count = 0;
        {
            let mut target = transaction.open_table(CHANGES)?;
            let mut target_index = transaction.open_table(USER_CHANGES)?;
            for entry in entries.by_ref().take(ROWS_PER_COMMIT) {
                let (user, sequence) = entry?.0.value();
                count += 1;
                // A change that was trimmed; its index row would be swept later.
                let Some(row) = changes.get(sequence)? else { continue };
                let row = row_from_1(row.value()).ok_or_else(|| damaged("changes", sequence))?;
                let (version, rest) = row.split_at(1);
                let row = [version, &user.to_le_bytes(), rest].concat();
                target.insert(sequence, &seal("changes", sequence, row)[..])?;
                target_index.insert((user, sequence), ())?;
                moved += 1;
            }
        }
        transaction.commit()?;
        if count < ROWS_PER_COMMIT {
            break;
        }
    }
    // Each change has one index row: with fewer, one would be lost in silence.
    if moved == changes.len()? { Ok(()) } else { Err(damaged("user_changes", 0_u64)) }
}

/// A row of format 1 with the version of now; `None` for one that is none.
fn row_from_1(row: &[u8]) -> Option<Vec<u8>> {
    let (version, rest) = row.split_first()?;
    (*version == 1).then(|| [&[row::VERSION], rest].concat())
}

/// Rows of one commit.
const ROWS_PER_COMMIT: usize = 10_000;

fn begin(new: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = new.begin_write()?;
    transaction.set_durability(Durability::None)?;
    Ok(transaction)
}

/// The last commit of a file that a tool wrote: all of it is on disk.
pub(super) fn make_durable(new: &Database) -> Result<(), StoreError> {
    let mut transaction = new.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(transaction.commit()?)
}

fn disk(error: io::Error) -> StoreError {
    redb::Error::from(error).into()
}
