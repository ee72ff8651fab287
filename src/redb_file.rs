//! What `tasks.redb` and `broker.redb` have in common as files of redb: how large one may be to be
//! checked whole at each start, a view that leaves the file as it is, copies of tables, and what
//! becomes of a panic.
//!
//! redb keeps a checksum of every page, and looks at them only when a file is opened with
//! `set_check_integrity_on_open`. Otherwise it trusts its pages, and may panic on a damaged one.

use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableTable, StorageBackend, TableDefinition,
    TableHandle, backends::FileBackend,
};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Files that use more of the disk than this are not checked whole at every start, which reads
/// them whole. `taskwire verify` checks every file.
pub const CHECK_BYTES_MAX: u64 = 1 << 30;
/// redb's cache while a file is checked or written by a tool.
const TOOL_CACHE_BYTES: usize = 64 << 20;
/// Rows of one commit of a copy.
const ROWS_PER_COMMIT: usize = 10_000;
/// What `st_blocks` counts.
const DISK_BLOCK_BYTES: u64 = 512;
/// Pieces of a file that a [`View`] keeps once they were written.
const BLOCK_BYTES: usize = 4096;

/// redb panicked, which it does only on pages that are not as it wrote them.
#[derive(Debug, thiserror::Error)]
#[error("redb met a page that it cannot read")]
pub struct Panicked;

/// Does some work on redb's pages and catches its panics. What the work leaves half done is redb's
/// own: it gives up a transaction that a panic ends, and its locks stay poisoned, so that later
/// work ends here, too.
///
/// # Errors
/// `Panicked`.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}

/// Whether a file is small enough to be checked whole at a start. One that is not there is.
pub fn is_checked_at_start(path: &Path) -> bool {
    // Files grow by doubling and are sparse: their length says little.
    let used = std::fs::metadata(path).map_or(0, |file| file.blocks());
    used.saturating_mul(DISK_BLOCK_BYTES) <= CHECK_BYTES_MAX
}

/// Opens a file for reading, checks all of it, and leaves it as it is: what redb repairs or writes
/// stays in memory.
///
/// # Errors
/// As redb says; `Storage(Corrupted)` for damage.
pub fn open_view(path: &Path) -> Result<Database, redb::DatabaseError> {
    let view = View::open(path).map_err(redb::StorageError::from)?;
    let mut builder = Builder::new();
    builder.set_cache_size(TOOL_CACHE_BYTES).set_check_integrity_on_open(true);
    builder.create_with_backend(view)
}

/// Opens an existing file for a tool that changes it.
///
/// # Errors
/// As the disk says.
pub fn open(path: &Path) -> Result<FileBackend, redb::DatabaseError> {
    let file = File::options().read(true).write(true).open(path);
    FileBackend::new(file.map_err(redb::StorageError::from)?)
}

/// Creates a file that a tool writes.
///
/// # Errors
/// As redb says.
pub fn create(path: &Path) -> Result<Database, redb::Error> {
    if path.exists() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    Ok(Builder::new().set_cache_size(TOOL_CACHE_BYTES).create(path)?)
}

/// Whether a file has a table, which older ones may lack.
///
/// # Errors
/// As redb says.
pub fn has_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    snapshot: &ReadTransaction,
    table: TableDefinition<'static, K, V>,
) -> Result<bool, redb::Error> {
    Ok(snapshot.list_tables()?.any(|other| other.name() == table.name()))
}

/// Copies a table, a bounded number of rows at a time; durable only with a later durable commit.
///
/// # Errors
/// As redb says.
pub fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    from: &ReadTransaction,
    to: &Database,
    table: TableDefinition<'static, K, V>,
) -> Result<u64, redb::Error> {
    let rows = from.open_table(table)?;
    let mut rows = rows.iter()?;
    let mut copied = 0;
    loop {
        let mut transaction = to.begin_write()?;
        transaction.set_durability(Durability::None)?;
        let mut count = 0;
        {
            let mut target = transaction.open_table(table)?;
            for row in rows.by_ref().take(ROWS_PER_COMMIT) {
                let (key, value) = row?;
                target.insert(key.value(), value.value())?;
                count += 1;
            }
        }
        transaction.commit()?;
        copied += u64::try_from(count).expect("a bounded count");
        if count < ROWS_PER_COMMIT {
            return Ok(copied);
        }
    }
}

/// A file under redb that is only read.
#[derive(Debug)]
struct View {
    file: File,
    file_bytes: u64,
    written: Mutex<Written>,
}

/// What redb wrote, by block; and the length that it set.
#[derive(Debug)]
struct Written {
    len: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl View {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        if len == 0 {
            // redb would begin a new database in it.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        Ok(Self {
            file,
            file_bytes: len,
            written: Mutex::new(Written { len, blocks: BTreeMap::new() }),
        })
    }

    /// What the file has there; zeroes beyond its end.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (inside, beyond) = out.split_at_mut(there.min(out.len()));
        beyond.fill(0);
        self.file.read_exact_at(inside, offset)
    }
}

impl StorageBackend for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().unwrap_or_else(PoisonError::into_inner).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_file(offset, out)?;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for (block, from, to, at) in pieces(offset, out.len()) {
            if let Some(bytes) = written.blocks.get(&block) {
                out[at..at + (to - from)].copy_from_slice(&bytes[from..to]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for (block, from, to, at) in pieces(offset, data.len()) {
            let bytes = match written.blocks.entry(block) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let mut bytes = vec![0; BLOCK_BYTES];
                    self.read_file(block.saturating_mul(block_bytes()), &mut bytes)?;
                    entry.insert(bytes)
                }
            };
            bytes[from..to].copy_from_slice(&data[at..at + (to - from)]);
        }
        Ok(())
    }
}

fn block_bytes() -> u64 {
    u64::try_from(BLOCK_BYTES).expect("a small number")
}

/// A range as pieces of blocks: block, bytes `from..to` in it, and where they are in the range.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let position = offset + u64::try_from(at).expect("an offset in memory");
        let from = usize::try_from(position % block_bytes()).expect("within a block");
        let to = BLOCK_BYTES.min(from + (len - at));
        let piece = (position / block_bytes(), from, to, at);
        at += to - from;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::ReadableDatabase;

    const TABLE: TableDefinition<'static, u64, u64> = TableDefinition::new("t");

    fn made(path: &Path, rows: u64) {
        let database = create(path).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(TABLE).unwrap();
        for row in 0..rows {
            table.insert(row, row).unwrap();
        }
        drop(table);
        transaction.commit().unwrap();
    }

    #[test]
    fn a_view_leaves_the_file_as_it_is_whatever_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        made(&path, 20_000);
        let before = std::fs::read(&path).unwrap();
        let view = open_view(&path).unwrap();
        let transaction = view.begin_write().unwrap();
        transaction.open_table(TABLE).unwrap().insert(20_000, 1).unwrap();
        transaction.commit().unwrap();
        let read = view.begin_read().unwrap();
        assert_eq!(read.open_table(TABLE).unwrap().get(20_000).unwrap().unwrap().value(), 1);
        drop((read, view));
        assert!(before == std::fs::read(&path).unwrap(), "the file changed");
    }

    #[test]
    fn a_copy_has_every_row() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a.redb"), dir.path().join("b.redb"));
        for rows in [0, 1, 10_000, 10_001] {
            made(&from, rows);
            let (source, target) = (open_view(&from).unwrap(), create(&to).unwrap());
            let copied = copy_table(&source.begin_read().unwrap(), &target, TABLE).unwrap();
            assert_eq!(copied, rows);
            let read = target.begin_read().unwrap();
            let table = read.open_table(TABLE).unwrap();
            assert!(table.iter().unwrap().map(|row| row.unwrap().0.value()).eq(0..rows));
            drop((read, table, source, target));
            std::fs::remove_file(&from).unwrap();
            std::fs::remove_file(&to).unwrap();
        }
    }

    #[test]
    fn every_flipped_byte_is_refused_or_harmless_in_a_view() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        made(&path, 300);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(499) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            let opened = guarded(|| open_view(&path).map(|view| rows_of(&view)));
            if let Ok(Ok(rows)) = opened {
                assert!(rows.into_iter().eq(0..300), "byte {at} is served wrong");
            }
        }
    }

    fn rows_of(view: &Database) -> Vec<u64> {
        let read = view.begin_read().unwrap();
        let table = read.open_table(TABLE).unwrap();
        table.iter().unwrap().map(|row| row.unwrap().1.value()).collect()
    }
}
