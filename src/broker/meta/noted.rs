//! redb's file, which notes why it failed.
//!
//! redb refuses everything after the first error of its file. Whether the file may be opened again
//! depends on the error: what found no space may be tried again, what could not be synced may not.

use crate::disk::DatabaseFile;
use redb::{BackendError, StorageBackend};
use std::{
    io,
    ops::Bound,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// What went wrong, shared between the file and its owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_full: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Noted {
    /// Whether a write found no space since the last call.
    pub(super) fn take_full(&self) -> bool {
        self.0.is_full.swap(false, Ordering::AcqRel)
    }

    /// The first failure that is for good.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.failure.lock().expect("no holder panics").clone()
    }

    /// Takes note of a failure that is for good, and logs it if it is the first.
    pub(super) fn fail(&self, cause: &str) {
        let mut failure = self.0.failure.lock().expect("no holder panics");
        if failure.is_none() {
            tracing::error!(cause, "broker.redb takes no writes until restart");
            *failure = Some(cause.to_owned());
        }
    }

    /// Of a write: it changes nothing that was durable, so one without space may be tried again.
    fn written<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    self.0.is_full.store(true, Ordering::Release);
                }
                _ => self.fail(&error.to_string()),
            }
        }
        result
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct NotedFile {
    file: DatabaseFile,
    noted: Noted,
}

impl NotedFile {
    /// What goes wrong with `file` is noted on `noted`.
    pub(super) const fn new(file: DatabaseFile, noted: Noted) -> Self {
        Self { file, noted }
    }
}

impl StorageBackend for NotedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out).inspect_err(|error| self.noted.fail(&error.to_string()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noted.written(self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        // Never tried again, not even without space: the kernel may have dropped the pages.
        self.file.sync_data().inspect_err(|error| self.noted.fail(&error.to_string()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted.written(self.file.write(offset, data))
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
