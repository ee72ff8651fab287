//! The disk under the whole daemon: logs, `broker.redb` and `tasks.redb` are reached through it, so
//! that a test can put a simulated one in its place.

pub mod dir;
pub mod testing;
pub mod unsynced;

use dir::{Dir, File, RealDir};
use redb::{BackendError, StorageBackend, backends::FileBackend};
use std::{
    ffi::OsString,
    fmt, fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file system, as far as the daemon needs one.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// The directory at `path`. It and its parents are created, durably, if they are not there.
    ///
    /// # Errors
    /// As the disk says.
    fn dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>>;

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// As the disk says; part of it may be gone.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens the file of a database, or creates it, empty and in place of one that is there.
    ///
    /// # Errors
    /// `NotFound` where none is to be created, or as the disk says.
    fn database(&self, path: &Path, is_new: bool) -> io::Result<DatabaseFile>;

    /// Bytes left where `path` is; what cannot be told counts as enough, and a write then says what
    /// is wrong.
    fn free_bytes(&self, path: &Path) -> u64;

    /// Names the time from the machine's start to its end; `None` where that is not known. What was
    /// written in that time is there, whatever became of the process.
    fn boot_id(&self) -> Option<String> {
        None
    }
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(RealDir::open(path)?))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn database(&self, path: &Path, is_new: bool) -> io::Result<DatabaseFile> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(is_new).truncate(is_new).open(path)?;
        Ok(DatabaseFile::of(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn free_bytes(&self, path: &Path) -> u64 {
        rustix::fs::statvfs(path)
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn boot_id(&self) -> Option<String> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }
}

/// `<path><suffix>`, beside `path`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Makes durable what the directory of `path` says of it.
///
/// # Errors
/// As the file system says.
pub fn sync_name(path: &Path) -> io::Result<()> {
    fs::File::open(parent(path))?.sync_all()
}

/// What came of a removal, where what is gone already is no error.
///
/// # Errors
/// Any other error.
pub fn if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The directory that holds `path`.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Opens a database by `open`, which makes it whole if its file is empty. A new one gets its name
/// when it is whole: redb does not open a file whose creation was cut short.
///
/// # Errors
/// As the disk or `open` says.
pub fn open_or_create<T, E: From<io::Error>>(
    disk: &dyn Disk,
    path: &Path,
    open: impl FnOnce(DatabaseFile) -> Result<T, E>,
) -> Result<T, E> {
    let dir = disk.dir(&parent(path))?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or(io::Error::from(io::ErrorKind::InvalidFilename))?;
    let marker = unsynced::marker_of(name);
    let marked = |file: DatabaseFile| DatabaseFile {
        on_failed_sync: Some((Arc::clone(&dir), marker.clone())),
        ..file
    };
    let opened = if dir.list()?.iter().any(|there| there == name) {
        if unsynced::is_marked(&*dir, &marker)? {
            unsynced::rewrite(&*dir, &[name.to_owned()], &marker)?;
        }
        open(marked(disk.database(path, false)?))?
    } else {
        let beside = format!("{name}.new");
        let opened = open(marked(disk.database(&path.with_file_name(&beside), true)?))?;
        dir.rename(&beside, name)?;
        opened
    };
    // Always: a run that was killed may have got no further than the name.
    dir.sync().inspect_err(|_| unsynced::mark(&*dir, &marker))?;
    Ok(opened)
}

/// Who is asked before the file of a database is changed, and told of what failed.
pub trait Watch: fmt::Debug + Send + Sync + 'static {
    /// Asked before a write, a change of the length, and a sync.
    ///
    /// # Errors
    /// The file is left alone, and redb is given the error.
    fn may_change(&self) -> io::Result<()> {
        Ok(())
    }

    /// Told that a call of the file has failed.
    fn failed(&self, _call: FileCall, _error: &io::Error) {}
}

/// A call of the file of a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileCall {
    /// Reads bytes.
    Read,
    /// Writes bytes, or sets the length.
    Write,
    /// Makes durable what was written.
    Sync,
}

/// Nobody.
#[derive(Debug)]
struct Unwatched;

impl Watch for Unwatched {}

/// What redb reads and writes. The lock of a real file is taken by redb.
#[derive(Debug)]
pub struct DatabaseFile {
    file: Box<dyn StorageBackend>,
    watch: Box<dyn Watch>,
    /// Where a failed sync is marked, and by which name.
    on_failed_sync: Option<(Arc<dyn Dir>, String)>,
}

impl DatabaseFile {
    /// A database in a file of another disk, without locks.
    pub fn on(file: Arc<dyn File>) -> Self {
        Self::of(Unlocked(file))
    }

    fn of(file: impl StorageBackend) -> Self {
        Self { file: Box::new(file), watch: Box::new(Unwatched), on_failed_sync: None }
    }

    /// The same file under a watch.
    #[must_use]
    pub fn watched_by(self, watch: impl Watch) -> Self {
        Self { watch: Box::new(watch), ..self }
    }

    fn told<T>(&self, call: FileCall, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.watch.failed(call, error))
    }
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.told(FileCall::Read, self.file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch.may_change()?;
        self.told(FileCall::Write, self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watch.may_change()?;
        let synced = self.file.sync_data();
        if let (Err(_), Some((dir, marker))) = (&synced, &self.on_failed_sync) {
            unsynced::mark(&**dir, marker);
        }
        self.told(FileCall::Sync, synced)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.watch.may_change()?;
        self.told(FileCall::Write, self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// The log's kind of file as redb's.
#[derive(Debug)]
struct Unlocked(Arc<dyn File>);

impl StorageBackend for Unlocked {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.read_at(out, offset)? < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(&[data], offset)
    }
}
