//! The door to the disk: real here, in memory and faulty in [`super::testing`].
//!
//! Everything the log does to a disk goes through these two traits, so that a test can fail, tear
//! or cut off each single call.

use super::{parent, sync_name};
use std::{
    fmt, fs,
    io::{self, IoSlice},
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

/// One directory that holds one log.
pub trait Dir: fmt::Debug + Send + Sync + 'static {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// Names of the files in it, in no order.
    ///
    /// # Errors
    /// As the disk says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file that must not be there yet. The name is durable after [`Dir::sync`].
    ///
    /// # Errors
    /// `AlreadyExists`, or as the disk says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file that must be there.
    ///
    /// # Errors
    /// `NotFound`, or as the disk says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file or directory another name, in place of the file that had it.
    ///
    /// # Errors
    /// As the disk says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the disk says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names created, renamed and removed durable.
    ///
    /// # Errors
    /// As the disk says.
    fn sync(&self) -> io::Result<()>;
}

/// One open file. All access is by position, so one handle serves a writer and many readers.
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Writes all slices one after the other from `position` on.
    ///
    /// # Errors
    /// As the disk says; how much was written is then unknown.
    fn write_all_at(&self, slices: &[&[u8]], position: u64) -> io::Result<()>;

    /// Reads from `position` on until `buffer` is full or the file ends; returns bytes read.
    ///
    /// # Errors
    /// As the disk says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Makes the contents and the length durable.
    ///
    /// # Errors
    /// As the disk says. After an error the state of unsynced bytes is unknown: never try again.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As the disk says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Bytes in the file.
    ///
    /// # Errors
    /// As the disk says.
    fn size(&self) -> io::Result<u64>;

    /// When it was last written, in milliseconds since 1970; 0 if the disk does not know.
    ///
    /// # Errors
    /// As the disk says.
    fn modified_ms(&self) -> io::Result<i64>;
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct RealDir {
    path: PathBuf,
    access: Access,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    ReadWrite,
    ReadOnly,
}

impl RealDir {
    /// The directory at `path`; it and its parents are created if they are not there.
    ///
    /// # Errors
    /// As the file system says.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        create_dir(&path, DIR_MODE)?;
        Ok(Self { path, access: Access::ReadWrite })
    }

    /// The directory at `path`, which must be there; every call that would change it fails with
    /// `PermissionDenied`.
    ///
    /// # Errors
    /// `NotFound`, or as the file system says.
    pub fn read_only(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::read_dir(&path)?;
        Ok(Self { path, access: Access::ReadOnly })
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// Creates a directory and its parents, each durably and with these permissions.
///
/// # Errors
/// As the file system says.
pub fn create_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    create_dir(&parent(path), mode)?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => (),
        created => created?,
    }
    // A name that may not be durable must not be found by the next start, which would trust it.
    sync_name(path).inspect_err(|_| drop(fs::remove_dir(path)))
}

/// Less what the process's umask takes away.
const DIR_MODE: u32 = 0o777;

impl Dir for RealDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.check_writable()?;
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let is_writable = self.access == Access::ReadWrite;
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(is_writable).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_writable()?;
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check_writable()?;
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

/// Slices that one system call takes (Linux: `IOV_MAX`).
const SLICES_MAX: usize = 1024;

impl File for RealFile {
    fn write_all_at(&self, slices: &[&[u8]], position: u64) -> io::Result<()> {
        let mut position = position;
        let mut all: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = all.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0); // Passes over empty slices at the front.
        while !rest.is_empty() {
            let count = rest.len().min(SLICES_MAX);
            let written = match rustix::io::pwritev(&self.0, &rest[..count], position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            IoSlice::advance_slices(&mut rest, written);
            position += u64::try_from(written).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = position.saturating_add(u64::try_from(filled).map_err(io::Error::other)?);
            match self.0.read_at(&mut buffer[filled..], at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn modified_ms(&self) -> io::Result<i64> {
        let modified = self.0.metadata()?.modified()?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
