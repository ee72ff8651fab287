//! The append-only log of one partition on disk.
//!
//! [`Log`] is the writer, owned by one worker; [`LogReader`] is its cloneable read side. Record
//! batches are stored verbatim in `<base offset, 20 digits>.log`; docs/disk-format.md has every
//! byte of every file. All calls but those that say "from memory" block on the disk.
//!
//! Invariants: offsets are dense; nothing above the high watermark (the durable end) is read; an
//! acknowledged batch is never cut; a batch that is not as it was written is never served; no
//! offset is given twice; a failed sync is never retried.
//!
//! Producer state is the broker's, but must survive with the log: the broker calls
//! [`Log::store_snapshot`] whenever [`Log::snapshot_due`] says so (after an append that rolled) and
//! before [`Log::close`]. The next open gives back [`Recovery::snapshot`], and in
//! [`Recovery::active_batches`] the headers to apply on top of it.

mod accepted;
mod checked;
mod copy;
mod epochs;
mod reader;
mod recovery;
mod repair;
mod retention;
mod segment;
mod snapshot;
mod state;
mod times;
mod verify;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{Batches, LogReader};
pub use repair::{Decision, RepairError, repair};
pub use verify::{Damage, Finding, Report, verify};
pub use writer::Log;

use crate::{disk::dir::Dir, position::Offset, wire::batch::BatchHeader};
use bytes::Bytes;
use std::{io, path::PathBuf};

/// How one log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is rolled before it grows beyond this.
    pub segment_bytes: u64,
    /// A segment is rolled when its first batch is older than this.
    pub segment_ms: i64,
    /// Delete segments older than this; `None` keeps them.
    pub retention_ms: Option<i64>,
    /// Delete the oldest segments above this size; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// Bytes of the newest batches kept in memory for readers at the tail.
    pub tail_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_ms: 7 * 24 * 3600 * 1000,
            retention_ms: None,
            retention_bytes: None,
            tail_bytes: 16 << 20,
        }
    }
}

/// What recovery did when the log was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// A torn tail that was cut: file, byte, first offset lost, bytes cut (kept beside).
    pub torn_tail: Option<TornTail>,
    /// Damage that was found and not cut: ranges of offsets that cannot be read.
    pub holes: Vec<(Offset, Offset)>,
    /// Those that a person has accepted: see [`repair()`].
    pub accepted_holes: Vec<(Offset, Offset)>,
    /// The newest of what [`Log::store_snapshot`] was given that still holds.
    pub snapshot: Option<Snapshot>,
    /// Headers of the idempotent producers' batches that the snapshot does not cover: after a
    /// snapshot at each roll, those of the active segment; without one, those of the whole log.
    pub active_batches: Vec<BatchHeader>,
}

/// The broker's producer state as it was at one offset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Every batch below this is covered.
    pub offset: Offset,
    /// What the broker gave.
    pub bytes: Bytes,
}

/// A cut tail.
#[derive(Clone, Debug)]
pub struct TornTail {
    /// The segment's file.
    pub path: PathBuf,
    /// First byte cut.
    pub position: u64,
    /// First offset that is not there.
    pub offset: Offset,
    /// Bytes cut.
    pub bytes: u64,
    /// The file that keeps them; `None` where the disk had no space for it.
    pub kept: Option<PathBuf>,
}

/// How the log was left.
#[derive(Clone, Copy, Debug)]
pub struct LastStop {
    /// Whether a clean stop left its mark: no scan needed. The mark must be gone, durably, before
    /// the log is opened.
    pub was_clean: bool,
    /// A recorded durable end (or processed offset): a bad tail below it is damage, not torn.
    pub durable_floor: Offset,
    /// The epoch to stamp from now on; not below any in the log.
    pub leader_epoch: i32,
}

/// What ended, when a stop was not clean.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outage {
    /// Perhaps the machine: of what was not synced, anything may be missing.
    Machine,
    /// Only the process: every byte that it had written is there, so that a torn tail can only be
    /// the beginning of one write.
    Process,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk refused.
    #[error("cannot open the log in {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether there is any segment of a log in `dir`.
///
/// # Errors
/// As the disk says.
pub fn has_segments(dir: &dyn Dir) -> io::Result<bool> {
    Ok(dir.list()?.iter().any(|name| segment::parse_name(name, segment::LOG).is_some()))
}

/// The newest leader epoch that the log in `dir` knows of; `None` if there is none.
///
/// # Errors
/// As the disk says.
pub fn last_epoch(dir: &dyn Dir) -> io::Result<Option<i32>> {
    Ok(epochs::Epochs::load(dir)?.last())
}

/// Begins a log at `base` whose records below are given up: an accepted hole.
///
/// # Errors
/// `Io`; the same may be tried again.
pub fn start_at(dir: &dyn Dir, base: Offset) -> Result<(), OpenError> {
    let accepted = accepted::Accepted::load(dir)
        .and_then(|mut accepted| accepted.add(dir, 0, base.get()))
        .and_then(|()| recovery::create_segment(dir, base.get()));
    match accepted {
        Ok(_) => Ok(()),
        Err(source) => Err(OpenError::Io { path: dir.path().to_path_buf(), source }),
    }
}

/// Why an append or flush was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The disk is full; the log is unchanged, and appends go on when space is back.
    #[error("no space for the log in {}", path.display())]
    Full {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A failed write or sync: the log takes no writes until restart.
    #[error("the log in {} failed and takes no writes", path.display())]
    Failed {
        /// Where.
        path: PathBuf,
        /// Why; `None` when it failed before.
        source: Option<io::Error>,
    },
}

/// Why a read was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Below the log start or above the log end.
    #[error("offset out of range {start}..{end}")]
    OutOfRange {
        /// Log start.
        start: Offset,
        /// High watermark.
        end: Offset,
    },
    /// A batch on disk that is not as it was written.
    #[error("corrupt batch at offset {offset}")]
    Corrupt {
        /// The first offset that cannot be read.
        offset: Offset,
        /// The next offset that can, if known.
        resume_at: Option<Offset>,
    },
    /// The disk refused.
    #[error("cannot read the log")]
    Io(#[source] io::Error),
}

/// What an append gave a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset after its last record.
    pub end: Offset,
}
