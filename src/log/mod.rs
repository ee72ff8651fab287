//! The append-only log of one partition on disk.
//!
//! [`Log`] is the writer, owned by one worker; [`LogReader`] is its cloneable read side. Record
//! batches are stored verbatim in `<base offset, 20 digits>.log`.
//!
//! Invariants: offsets are dense; nothing above the high watermark (the durable end) is read; an
//! acknowledged batch is never cut; a failed sync is never retried.

pub mod dir;

use crate::{
    position::Offset,
    wire::batch::{BatchHeader, ProducedBatch},
};
use bytes::Bytes;
use std::{io, path::PathBuf, sync::Arc};
use tokio::sync::watch;

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

/// What recovery did when the log was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// A torn tail that was cut: file, byte, first offset lost, bytes cut (kept beside).
    pub torn_tail: Option<TornTail>,
    /// Damage that was found and not cut: ranges of offsets that cannot be read.
    pub holes: Vec<(Offset, Offset)>,
    /// Headers of the batches of the active segment, for producer state.
    pub active_batches: Vec<BatchHeader>,
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
}

/// How the log was left.
#[derive(Clone, Copy, Debug)]
pub struct LastStop {
    /// Whether a clean stop left its mark: no scan needed.
    pub was_clean: bool,
    /// A recorded durable end (or processed offset): a bad tail below it is damage, not torn.
    pub durable_floor: Offset,
    /// The epoch to stamp from now on; not below any in the log.
    pub leader_epoch: i32,
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

/// The writer of one partition's log.
#[derive(Debug)]
pub struct Log {}

impl Log {
    /// Opens or creates the log in `dir`, recovering what a crash left.
    ///
    /// # Errors
    /// `Io`: nothing was changed beyond what recovery had cut already.
    pub fn open(
        dir: Arc<dyn dir::Dir>,
        options: Options,
        last_stop: LastStop,
    ) -> Result<(Self, Recovery), OpenError> {
        let _ = (dir, options, last_stop);
        todo!()
    }

    /// Writes batches in one vectored write, each stamped with its offset; not yet visible, durable
    /// only after [`Log::flush`]. All or nothing. `now_ms` is the append time (for rolling and
    /// retention).
    ///
    /// # Errors
    /// `Full`: the file was cut back, the log is unchanged. `Failed`: no writes until restart.
    pub fn append(
        &mut self,
        batches: Vec<ProducedBatch>,
        now_ms: i64,
    ) -> Result<Vec<Appended>, AppendError> {
        let _ = (batches, now_ms);
        todo!()
    }

    /// Syncs what was appended and raises the high watermark to the log end.
    ///
    /// # Errors
    /// `Failed`: never retried; the high watermark stays.
    pub fn flush(&mut self) -> Result<(), AppendError> {
        todo!()
    }

    /// Raises the high watermark to the log end without a sync (`--durability os` or `interval`).
    pub fn publish_unsynced(&mut self) {
        todo!()
    }

    /// Deletes sealed segments that retention lets go, never any with records at or above `keep_from`.
    /// Returns segments deleted.
    ///
    /// # Errors
    /// `Io` as a read error; what was deleted stays deleted.
    pub fn apply_retention(&mut self, now_ms: i64, keep_from: Offset) -> Result<usize, ReadError> {
        let _ = (now_ms, keep_from);
        todo!()
    }

    /// Takes new options (retention, segment size) for what comes.
    pub fn set_options(&mut self, options: Options) {
        let _ = options;
        todo!()
    }

    /// The read side.
    pub fn reader(&self) -> LogReader {
        todo!()
    }

    /// The next offset to be given (durable or not).
    pub fn log_end(&self) -> Offset {
        todo!()
    }

    /// Flushes, and leaves the log so that the next start needs no scan.
    ///
    /// # Errors
    /// As [`Log::flush`].
    pub fn close(self) -> Result<(), AppendError> {
        todo!()
    }
}

/// Whole batches from one read.
#[derive(Clone, Debug, Default)]
pub struct Batches {
    /// Chunks of whole batches in order; the first may begin below the offset asked for.
    pub chunks: Vec<Bytes>,
    /// Bytes in all.
    pub bytes: usize,
}

/// The read side of a log. Cheap to clone; reads never wait for the writer's disk.
#[derive(Clone, Debug)]
pub struct LogReader {}

impl LogReader {
    /// Oldest offset that can be read.
    pub fn log_start(&self) -> Offset {
        todo!()
    }

    /// The durable end: readers see records below it.
    pub fn high_watermark(&self) -> Offset {
        todo!()
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// Tells of each rise of the high watermark.
    pub fn watch_high_watermark(&self) -> watch::Receiver<Offset> {
        todo!()
    }

    /// Reads from memory if `from` lies in the tail kept there; `None` if the disk is needed.
    pub fn read_tail(&self, from: Offset, bytes_max: usize) -> Option<Batches> {
        let _ = (from, bytes_max);
        todo!()
    }

    /// Reads whole batches from the one that holds `from`, below the high watermark, up to
    /// `bytes_max` but at least one. Empty at the high watermark. Blocks on the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, from: Offset, bytes_max: usize) -> Result<Batches, ReadError> {
        let _ = (from, bytes_max);
        todo!()
    }

    /// The first record at or after `timestamp_ms`: its offset and timestamp; `None` past the last.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_for_time(&self, timestamp_ms: i64) -> Result<Option<(Offset, i64)>, ReadError> {
        let _ = timestamp_ms;
        todo!()
    }
}
