//! What a failed sync leaves, and how it is made whole again.
//!
//! After a failed sync the kernel may count pages as written that are not (Linux marks them clean).
//! Until the machine restarts they are read as if all were well, and a later sync succeeds without
//! them. So a failed sync leaves a marker beside the file, before anything else is done, and the
//! next open writes the file anew. In memory the marker is enough: a restart of the machine that
//! takes it takes those pages, too. See docs/adr/0012-after-a-failed-sync.md.

use super::{
    dir::{Dir, File},
    if_there,
};
use std::{io, path::Path, sync::Arc};

/// The marker of a directory; of one file, `<file>.sync-failed`.
pub const SYNC_FAILED: &str = "sync-failed";
/// End of the name of a file that is not finished.
const TEMPORARY: &str = ".tmp";
/// Bytes copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The marker of one file in a directory of several.
pub fn marker_of(file: &str) -> String {
    format!("{file}.{SYNC_FAILED}")
}

/// Creates the marker. Not durable: see the module. Where that fails, too, only the log can tell.
pub fn mark(dir: &dyn Dir, marker: &str) {
    match dir.create(marker) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => tracing::error!(
            %error, dir = %dir.path().display(), marker,
            "a sync failed and cannot be marked: restart the machine before the daemon"
        ),
        _ => (),
    }
}

/// Whether the marker is there.
///
/// # Errors
/// As the disk says.
pub fn is_marked(dir: &dyn Dir, marker: &str) -> io::Result<bool> {
    Ok(dir.list()?.iter().any(|name| name == marker))
}

/// Writes files anew, durably, and only then takes the marker away. Blocks on the disk.
///
/// # Errors
/// As the disk says. The marker stays, and each file is the old one or the new one.
pub fn rewrite(dir: &dyn Dir, names: &[String], marker: &str) -> io::Result<()> {
    let mut bytes = 0;
    for name in names {
        let temporary = format!("{name}{TEMPORARY}");
        bytes += copy(dir, name, &temporary)?;
        dir.rename(&temporary, name)?;
    }
    dir.sync()?;
    if_there(dir.remove(marker))?;
    tracing::warn!(
        dir = %dir.path().display(), files = ?names, bytes,
        "a sync had failed: what the disk may have lost was written anew from memory"
    );
    Ok(())
}

/// Copies a file, durably but for its name; returns its length. Zeroes are left out, as the files
/// of databases are sparse.
fn copy(dir: &dyn Dir, from: &str, to: &str) -> io::Result<u64> {
    if_there(dir.remove(to))?;
    let (source, target) = (dir.open(from)?, dir.create(to)?);
    let size = source.size()?;
    target.set_len(size)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut position = 0;
    while position < size {
        let read = source.read_at(&mut buffer, position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            target.write_all_at(&[&buffer[..read]], position)?;
        }
        position += u64::try_from(read).map_err(io::Error::other)?;
    }
    target.sync_data()?;
    Ok(size)
}

/// A directory that takes the marker [`SYNC_FAILED`] when a sync in it fails.
#[derive(Debug)]
pub struct MarkingDir(Arc<dyn Dir>);

impl MarkingDir {
    /// The same directory under watch.
    pub fn new(dir: Arc<dyn Dir>) -> Self {
        Self(dir)
    }

    fn watched(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(MarkingFile { file, dir: Arc::clone(&self.0) })
    }
}

impl Dir for MarkingDir {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.0.create(name).map(|file| self.watched(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.0.open(name).map(|file| self.watched(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync().inspect_err(|_| mark(&*self.0, SYNC_FAILED))
    }
}

/// A file that leaves a marker when its sync fails.
#[derive(Debug)]
struct MarkingFile {
    file: Arc<dyn File>,
    dir: Arc<dyn Dir>,
}

impl File for MarkingFile {
    fn write_all_at(&self, slices: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_all_at(slices, position)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| mark(&*self.dir, SYNC_FAILED))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.file.modified_ms()
    }
}
