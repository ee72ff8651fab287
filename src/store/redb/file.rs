//! The file under redb: what an unclean end leaves, and how much disk is left.
//!
//! Invariant: a store that is dropped without a clean close leaves its file as a kill would. redb
//! makes everything durable when it is dropped, but then the store could be ahead of a log whose
//! tail was never synced.

use crate::disk::{DatabaseFile, Disk};
use redb::{BackendError, StorageBackend};
use std::{
    io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Cuts a file off: reads go on, writes fail.
#[derive(Clone, Debug, Default)]
pub(super) struct CutOff(Arc<AtomicBool>);

impl CutOff {
    /// From now on nothing reaches the file.
    pub(super) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) {
            return Err(io::Error::other("the store ended without a clean close"));
        }
        Ok(())
    }
}

/// redb's file, with a switch.
#[derive(Debug)]
pub(super) struct SwitchedFile {
    file: DatabaseFile,
    cut_off: CutOff,
}

impl SwitchedFile {
    pub(super) fn new(file: DatabaseFile, cut_off: CutOff) -> Self {
        Self { file, cut_off }
    }
}

impl StorageBackend for SwitchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.cut_off.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.cut_off.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.cut_off.check()?;
        self.file.write(offset, data)
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

/// Tells how much disk is left.
#[derive(Clone, Debug)]
pub(super) enum FreeSpace {
    /// Of the file system that holds this file.
    Disk(Arc<dyn Disk>, PathBuf),
    /// As a test sets it.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests set it"))]
    Set(Arc<AtomicU64>),
}

impl FreeSpace {
    /// Bytes; what cannot be told counts as enough, and a write then says what is wrong.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Disk(disk, path) => disk.free_bytes(path),
            Self::Set(bytes) => bytes.load(Ordering::Relaxed),
        }
    }
}
