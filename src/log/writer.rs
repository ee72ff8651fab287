//! The write side: append, flush, roll, retention.

use super::{
    AppendError, Appended, LastStop, LogReader, OpenError, Options, Outage, ReadError, Recovery,
    recovery::{self, is_full},
    retention::{self, Bounds, SegmentFacts},
    segment::{Growth, LOG, RELATIVE_OFFSET_MAX, SEAL, name},
    snapshot,
    state::{Damages, Shared, State, Tail},
};
use crate::{
    disk::{
        dir::{Dir, File},
        unsynced::MarkingDir,
    },
    position::Offset,
    wire::batch::{BatchHeader, ProducedBatch},
};
use bytes::Bytes;
use std::{io, sync::Arc};

/// The writer of one partition's log.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    options: Options,
    leader_epoch: i32,
    /// Whether the file `epochs` tells of `leader_epoch`.
    is_epoch_stored: bool,
    /// Whether bytes were written since the last sync.
    is_dirty: bool,
    has_failed: bool,
    is_snapshot_due: bool,
    /// What the file `log-start` says.
    log_start_stored: i64,
}

impl Log {
    /// Opens or creates the log in `dir`, recovering what a crash left. Blocks on the disk.
    ///
    /// # Errors
    /// `Io`: nothing was changed beyond what recovery had cut already.
    pub fn open(
        dir: Arc<dyn Dir>,
        options: Options,
        last_stop: LastStop,
    ) -> Result<(Self, Recovery), OpenError> {
        Self::open_after(dir, options, last_stop, Outage::Machine)
    }

    /// Like [`Log::open`], knowing what ended when the stop was not clean.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_after(
        dir: Arc<dyn Dir>,
        options: Options,
        last_stop: LastStop,
        outage: Outage,
    ) -> Result<(Self, Recovery), OpenError> {
        let dir: Arc<dyn Dir> = Arc::new(MarkingDir::new(dir));
        let opened = recovery::open(&*dir, &last_stop, outage)
            .map_err(|source| OpenError::Io { path: dir.path().to_path_buf(), source })?;
        let snapshot_offset = opened.recovery.snapshot.as_ref().map_or(0, |s| s.offset.get());
        let last_epoch = opened.epochs.last();
        let raised =
            last_epoch.map_or(i32::MIN, |last| last.saturating_add(i32::from(opened.is_damaged)));
        let leader_epoch = last_stop.leader_epoch.max(raised);
        let holes = opened.recovery.holes.iter().map(|(from, to)| (from.get(), to.get()));
        let damages =
            Damages { holes: holes.collect(), accepted: opened.accepted, ..Damages::default() };
        let is_snapshot_due = snapshot_offset < opened.active.base;
        let state = State {
            log_start: opened.log_start,
            high_watermark: opened.active.end,
            sealed: opened.sealed,
            active: opened.active,
            file: opened.file,
            epochs: Arc::new(opened.epochs),
            tail: Tail::new(options.tail_bytes),
        };
        let log = Self {
            options,
            leader_epoch,
            is_epoch_stored: last_epoch == Some(leader_epoch),
            is_dirty: false,
            has_failed: false,
            is_snapshot_due,
            log_start_stored: opened.log_start,
            shared: Arc::new(Shared::new(dir, state, damages)),
        };
        Ok((log, opened.recovery))
    }

    /// Writes batches in one vectored write, each stamped with its offset; not yet visible, durable
    /// only after [`Log::flush`]. All or nothing. `now_ms` is the append time (for rolling and
    /// retention). Batches of one call lie in one segment, which may then exceed its size.
    ///
    /// # Errors
    /// `Full`: the file was cut back, the log is unchanged. `Failed`: no writes until restart.
    pub fn append(
        &mut self,
        batches: Vec<ProducedBatch>,
        now_ms: i64,
    ) -> Result<Vec<Appended>, AppendError> {
        self.check_alive()?;
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let stamped = self.stamp(batches)?;
        self.store_epoch(&stamped)?;
        if self.must_roll(&stamped, now_ms) {
            self.roll()?;
        }
        self.write(&stamped)?;
        Ok(self.publish_appended(stamped, now_ms))
    }

    /// Syncs what was appended and raises the high watermark to the log end.
    ///
    /// # Errors
    /// `Failed`: never retried; the high watermark stays.
    pub fn flush(&mut self) -> Result<(), AppendError> {
        self.check_alive()?;
        if self.is_dirty {
            let file = self.file();
            file.sync_data().map_err(|error| self.fail(error))?;
            self.is_dirty = false;
        }
        self.publish_unsynced();
        Ok(())
    }

    /// Raises the high watermark to the log end without a sync (`--durability os` or `interval`).
    /// After a failure it stays: what the kernel holds of the file is unknown then.
    pub fn publish_unsynced(&mut self) {
        if self.has_failed {
            return;
        }
        let mut state = self.shared.lock();
        let end = state.active.end;
        state.high_watermark = end;
        drop(state);
        self.shared.high_watermark.send_if_modified(|high| {
            let end = Offset::new(end).unwrap_or_default();
            std::mem::replace(high, end) != end
        });
    }

    /// Deletes segments that retention lets go, never any with records at or above `keep_from`.
    /// Returns segments deleted. As in Kafka, the active segment is rolled, and goes too, when its
    /// last append is older than retention keeps.
    ///
    /// # Errors
    /// `Io`; what was deleted stays deleted.
    pub fn apply_retention(&mut self, now_ms: i64, keep_from: Offset) -> Result<usize, ReadError> {
        if self.may_roll_old(now_ms, keep_from) {
            match self.roll() {
                // Without space there is no new segment; it goes when others have made room.
                Ok(()) | Err(AppendError::Full { .. }) => (),
                Err(AppendError::Failed { source, .. }) => {
                    let unknown = || io::Error::from(io::ErrorKind::Other);
                    return Err(ReadError::Io(source.unwrap_or_else(unknown)));
                }
            }
        }
        let count = {
            let state = self.shared.lock();
            let bounds = Bounds {
                now_ms,
                keep_from: keep_from.get().min(state.high_watermark),
                log_start: state.log_start,
                active_bytes: state.active.size,
            };
            let facts: Vec<SegmentFacts> = state.sealed.iter().map(|s| facts(s)).collect();
            retention::deletable(&facts, &self.options, &bounds)
        };
        self.remove_oldest(count).map_err(ReadError::Io)?;
        Ok(count)
    }

    /// Raises the log start to `offset`, at most the high watermark, durably; records below it can
    /// no longer be read. Segments wholly below go with the next [`Log::apply_retention`]. Returns
    /// the log start, which never falls.
    ///
    /// # Errors
    /// `Full`, `Failed` (the log still takes writes): the log start is unchanged.
    pub fn delete_before(&mut self, offset: Offset) -> Result<Offset, AppendError> {
        let (old, high) = {
            let state = self.shared.lock();
            (state.log_start, state.high_watermark)
        };
        let log_start = offset.get().min(high).max(old);
        if log_start > old {
            recovery::store_log_start(&*self.shared.dir, log_start)
                .map_err(|error| self.refuse(error))?;
            self.shared.lock().log_start = log_start;
            self.log_start_stored = log_start;
        }
        Ok(Offset::new(log_start).unwrap_or_default())
    }

    /// Whether a segment was rolled since the last snapshot, so that the next start would have to
    /// read the headers of a whole segment more.
    pub fn snapshot_due(&self) -> bool {
        self.is_snapshot_due
    }

    /// Keeps `bytes` (at most 64 MiB) as the state that every batch below the log end leads to;
    /// [`Recovery::snapshot`] gives them back. The two newest are kept.
    ///
    /// # Errors
    /// As the disk says; the older snapshot stays, and the log is not harmed.
    pub fn store_snapshot(&mut self, bytes: &[u8]) -> io::Result<()> {
        snapshot::store(&*self.shared.dir, self.log_end().get(), bytes)?;
        self.is_snapshot_due = false;
        Ok(())
    }

    /// Takes new options (retention, segment size) for what comes.
    pub fn set_options(&mut self, options: Options) {
        self.shared.lock().tail.set_bytes_max(options.tail_bytes);
        self.options = options;
    }

    /// The read side.
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// The next offset to be given (durable or not).
    pub fn log_end(&self) -> Offset {
        Offset::new(self.shared.lock().active.end).unwrap_or_default()
    }

    /// The epoch that is stamped on batches: that of [`LastStop`], or a higher one where the log
    /// had one already, or was damaged at its end.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Whether a write or sync failed, so that the log takes no more writes until restart.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Flushes, and leaves the log so that the next start needs no scan. Call
    /// [`Log::store_snapshot`] before, so that it need not read headers either.
    ///
    /// # Errors
    /// As [`Log::flush`].
    pub fn close(mut self) -> Result<(), AppendError> {
        self.flush()?;
        let active = self.shared.lock().active.clone();
        recovery::seal(&*self.shared.dir, &active);
        self.shared.dir.sync().map_err(|error| self.fail(error))
    }

    fn file(&self) -> Arc<dyn File> {
        Arc::clone(&self.shared.lock().file)
    }

    fn check_alive(&self) -> Result<(), AppendError> {
        if self.has_failed {
            return Err(AppendError::Failed { path: self.path(), source: None });
        }
        Ok(())
    }

    fn path(&self) -> std::path::PathBuf {
        self.shared.dir.path().to_path_buf()
    }

    /// The error of something that may be tried again.
    fn refuse(&self, source: io::Error) -> AppendError {
        let path = self.path();
        if is_full(&source) {
            AppendError::Full { path, source }
        } else {
            AppendError::Failed { path, source: Some(source) }
        }
    }

    /// Ends all writing.
    fn fail(&mut self, source: io::Error) -> AppendError {
        self.has_failed = true;
        AppendError::Failed { path: self.path(), source: Some(source) }
    }

    /// A full disk passes, anything else is the end.
    fn fail_unless_full(&mut self, source: io::Error) -> AppendError {
        if is_full(&source) { self.refuse(source) } else { self.fail(source) }
    }

    fn stamp(
        &mut self,
        batches: Vec<ProducedBatch>,
    ) -> Result<Vec<(BatchHeader, Bytes)>, AppendError> {
        let mut offset = self.log_end().get();
        let mut stamped = Vec::with_capacity(batches.len());
        for batch in batches {
            let delta = i64::from(batch.header().last_offset_delta);
            assert!(delta >= 0, "a produced batch holds at least one record");
            let end = offset.checked_add(delta).and_then(|last| last.checked_add(1));
            let end = end.ok_or_else(|| self.fail(io::Error::other("no offsets are left")))?;
            stamped.push(batch.stamp(offset, self.leader_epoch));
            offset = end;
        }
        Ok(stamped)
    }

    /// Makes the leader epoch's first offset durable before any batch carries it.
    fn store_epoch(&mut self, stamped: &[(BatchHeader, Bytes)]) -> Result<(), AppendError> {
        let Some((first, _)) = stamped.first().filter(|_| !self.is_epoch_stored) else {
            return Ok(());
        };
        let old = Arc::clone(&self.shared.lock().epochs);
        let new = old.with(self.leader_epoch, first.base_offset);
        new.store(&*self.shared.dir).map_err(|error| self.fail_unless_full(error))?;
        self.shared.lock().epochs = Arc::new(new);
        self.is_epoch_stored = true;
        Ok(())
    }

    fn must_roll(&self, stamped: &[(BatchHeader, Bytes)], now_ms: i64) -> bool {
        let state = self.shared.lock();
        let active = &state.active;
        let Some(first_append_ms) = active.first_append_ms.filter(|_| active.size > 0) else {
            return false;
        };
        let size = stamped.iter().fold(active.size, |sum, (header, _)| {
            sum.saturating_add(u64::try_from(header.size_bytes).unwrap_or(u64::MAX))
        });
        let last = stamped.last().map_or(active.base, |(header, _)| header.last_offset());
        size > self.options.segment_bytes
            || now_ms.saturating_sub(first_append_ms) >= self.options.segment_ms
            || last.saturating_sub(active.base) > RELATIVE_OFFSET_MAX
    }

    /// Seals the active segment, durably, and goes on in a new one.
    fn roll(&mut self) -> Result<(), AppendError> {
        let (file, end) = {
            let state = self.shared.lock();
            (Arc::clone(&state.file), state.active.end)
        };
        if self.is_dirty {
            file.sync_data().map_err(|error| self.fail(error))?;
            self.is_dirty = false;
        }
        let dir = Arc::clone(&self.shared.dir);
        let file = match recovery::create_segment(&*dir, end) {
            Ok(file) => file,
            Err(error) => return Err(self.undo_create(end, error)),
        };
        let old = {
            let mut state = self.shared.lock();
            state.file = file;
            let old = std::mem::replace(&mut state.active, Growth::new(end));
            state.sealed.push_back(Arc::new(old.facts()));
            old
        };
        self.is_snapshot_due = true;
        recovery::seal(&*dir, &old);
        self.shared.cache_index(old.base, old.index.into());
        Ok(())
    }

    /// Takes back a segment that could not be made whole. The log goes on without it, in the
    /// segment before, only if it is surely gone: its base would cut off what is appended there
    /// from now on.
    fn undo_create(&mut self, base: i64, error: io::Error) -> AppendError {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return self.fail(error); // And holds bytes, which are not ours to remove.
        }
        let undone = match self.shared.dir.remove(&name(base, LOG)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.shared.dir.sync(),
        };
        match undone {
            Ok(()) => self.fail_unless_full(error),
            Err(error) => self.fail(error),
        }
    }

    fn write(&mut self, stamped: &[(BatchHeader, Bytes)]) -> Result<(), AppendError> {
        let (file, position) = {
            let state = self.shared.lock();
            (Arc::clone(&state.file), state.active.size)
        };
        let slices: Vec<&[u8]> = stamped.iter().map(|(_, bytes)| &bytes[..]).collect();
        let Err(error) = file.write_all_at(&slices, position) else {
            self.is_dirty = true;
            return Ok(());
        };
        if !is_full(&error) {
            return Err(self.fail(error));
        }
        file.set_len(position).map_err(|error| self.fail(error))?;
        Err(self.refuse(error))
    }

    fn publish_appended(
        &mut self,
        stamped: Vec<(BatchHeader, Bytes)>,
        now_ms: i64,
    ) -> Vec<Appended> {
        let mut crc = self.shared.lock().active.crc;
        for (_, bytes) in &stamped {
            crc.update(bytes);
        }
        let mut appended = Vec::with_capacity(stamped.len());
        let mut state = self.shared.lock();
        state.active.crc = crc;
        state.active.first_append_ms.get_or_insert(now_ms);
        state.active.last_append_ms = now_ms;
        for (header, bytes) in stamped {
            assert_eq!(header.base_offset, state.active.end, "offsets are dense");
            state.active.push(&header);
            let end = state.active.end;
            state.tail.push(header.base_offset, end, bytes);
            appended.push(Appended {
                base_offset: Offset::new(header.base_offset).unwrap_or_default(),
                end: Offset::new(end).unwrap_or_default(),
            });
        }
        appended
    }

    fn may_roll_old(&self, now_ms: i64, keep_from: Offset) -> bool {
        let state = self.shared.lock();
        let active = &state.active;
        let facts = SegmentFacts {
            end: active.end,
            bytes: active.size,
            last_append_ms: active.last_append_ms,
        };
        !self.has_failed
            && active.size > 0
            && active.end <= keep_from.get().min(state.high_watermark)
            && retention::is_old(&facts, &self.options, now_ms)
    }

    /// The log start is durably raised before the files go, so that a segment which is missing at a
    /// later start is known to be lost. Without space for that the files go first.
    fn remove_oldest(&mut self, count: usize) -> io::Result<()> {
        let start = {
            let state = self.shared.lock();
            let left = state.sealed.get(count).map_or(state.active.base, |first| first.base);
            state.log_start.max(left)
        };
        let is_stored = start == self.log_start_stored;
        if count == 0 && is_stored {
            return Ok(());
        }
        let dir = Arc::clone(&self.shared.dir);
        // A crash may have come between the two: then only the files are left to go.
        let stored = if is_stored { Ok(()) } else { recovery::store_log_start(&*dir, start) };
        if let Err(error) = &stored
            && !is_full(error)
        {
            return stored;
        }
        for _ in 0..count {
            self.remove_one()?;
        }
        if stored.is_err() {
            recovery::store_log_start(&*dir, start)?;
        }
        self.log_start_stored = start;
        dir.sync()
    }

    /// Readers stop finding it first; then its files go, the log before the seal.
    fn remove_one(&mut self) -> io::Result<()> {
        let (oldest, old_start) = {
            let mut state = self.shared.lock();
            let Some(oldest) = state.sealed.pop_front() else { return Ok(()) };
            let start = state.sealed.front().map_or(state.active.base, |next| next.base);
            let old_start = state.log_start;
            state.log_start = old_start.max(start);
            (oldest, old_start)
        };
        if let Err(error) = self.shared.dir.remove(&name(oldest.base, LOG)) {
            let mut state = self.shared.lock();
            state.sealed.push_front(oldest);
            state.log_start = old_start;
            return Err(error);
        }
        self.shared.forget_index(oldest.base);
        // Without its segment a seal is a leftover, which the next start removes.
        drop(self.shared.dir.remove(&name(oldest.base, SEAL)));
        Ok(())
    }
}

fn facts(sealed: &super::segment::Sealed) -> SegmentFacts {
    SegmentFacts { end: sealed.end, bytes: sealed.size, last_append_ms: sealed.last_append_ms }
}
