//! The file under redb: what an unclean end leaves, and how much disk is left.
//!
//! Invariant: a store that is dropped without a clean close leaves its file as a kill would. redb
//! makes everything durable when it is dropped, but then the store could be ahead of a log whose
//! tail was never synced.

use crate::disk::{Disk, Watch};
use std::{
    io,
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
}

impl Watch for CutOff {
    fn may_change(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) {
            return Err(io::Error::other("the store ended without a clean close"));
        }
        Ok(())
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
