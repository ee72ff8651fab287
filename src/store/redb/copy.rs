//! Copies of a store: a snapshot while it is open, a file while it is not; and a new life for one.

use super::{
    due::DUE,
    letters::LETTERS,
    migrate::make_durable,
    row,
    sum::seal,
    tables::{
        CHANGES, EVENTS, META, META_CLEAN, META_EPOCH, OUTBOUND, PROCESSED, RUNS, TASK_IDS, TASKS,
        USER_CHANGES, USERS, WAITING, WAITING_SINCE,
    },
    write,
};
use crate::{redb_file, store::StoreError};
use redb::{Database, ReadTransaction, ReadableDatabase};
use std::path::Path;

/// Copies what a snapshot shows into a new file, not marked as closed. Its memory is redb's cache
/// for tools, whatever the size; its time some 100,000 tasks a second.
pub(super) fn copy(snapshot: &ReadTransaction, path: &Path) -> Result<(), StoreError> {
    let target = redb_file::create(path)?;
    redb_file::copy_table(snapshot, &target, META)?;
    redb_file::copy_table(snapshot, &target, RUNS)?;
    redb_file::copy_table(snapshot, &target, USERS)?;
    redb_file::copy_table(snapshot, &target, TASK_IDS)?;
    redb_file::copy_table(snapshot, &target, TASKS)?;
    redb_file::copy_table(snapshot, &target, CHANGES)?;
    redb_file::copy_table(snapshot, &target, USER_CHANGES)?;
    redb_file::copy_table(snapshot, &target, EVENTS)?;
    redb_file::copy_table(snapshot, &target, WAITING)?;
    redb_file::copy_table(snapshot, &target, WAITING_SINCE)?;
    redb_file::copy_table(snapshot, &target, PROCESSED)?;
    redb_file::copy_table(snapshot, &target, OUTBOUND)?;
    // Older files may lack these.
    if redb_file::has_table(snapshot, LETTERS)? {
        redb_file::copy_table(snapshot, &target, LETTERS)?;
    }
    if redb_file::has_table(snapshot, DUE)? {
        redb_file::copy_table(snapshot, &target, DUE)?;
    }
    change_meta(&target, &[(META_CLEAN, row::encode_clean(false))])?;
    make_durable(&target)
}

/// Copies the file of a store that is not open into a new one.
///
/// # Errors
/// `DamagedFile`, another format, or as the disk says.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    super::guarded(|| {
        let source = redb_file::open_view(from)?;
        let snapshot = source.begin_read()?;
        write::refuse_other_formats(&snapshot)?;
        copy(&snapshot, to)
    })
}

/// Gives a store that is not open another epoch: no position of the old one is placed in it, since
/// what is applied from here on need not be what was applied before.
///
/// # Errors
/// As [`copy_file`].
pub fn begin_new_life(path: &Path) -> Result<(), StoreError> {
    super::guarded(|| {
        let database = super::open_database(redb_file::open(path)?, CACHE_BYTES, true)?;
        write::refuse_other_formats(&database.begin_read()?)?;
        let (epoch, _) = uuid::Uuid::new_v4().as_u64_pair();
        let transaction = database.begin_write()?;
        {
            let mut runs = transaction.open_table(RUNS)?;
            runs.retain(|_, _| false)?;
            runs.insert(1, &seal("runs", 1_u64, row::encode_number(1))[..])?;
        }
        transaction.commit()?;
        change_meta(&database, &[(META_EPOCH, row::encode_number(epoch))])?;
        make_durable(&database)
    })
}

const CACHE_BYTES: usize = 64 << 20;

fn change_meta(database: &Database, rows: &[(&'static str, Vec<u8>)]) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    for (name, row) in rows {
        let row = seal("meta", *name, row.clone());
        transaction.open_table(META)?.insert(*name, &row[..])?;
    }
    Ok(transaction.commit()?)
}
