//! The read side: from memory at the tail, from the disk below it, by offset or by time.

use super::{
    ReadError,
    epochs::Epochs,
    recovery,
    segment::{IndexEntry, LOG, Sealed, name, seek_offset, seek_time},
    state::{Shared, State},
    times,
    walk::{self, Place, Window},
};
use crate::{
    disk::dir::{Dir, File},
    position::Offset,
    wire::batch,
};
use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use std::{io, sync::Arc};
use tokio::sync::watch;

/// Bytes that one read from the disk gives at most, if its first batch is not larger.
const READ_BYTES_MAX: usize = 8 << 20;
/// Bytes read beside those asked for: the walk from the index entry to the batch.
const APPROACH_BYTES: usize = 8 << 10;

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
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The directory that holds the log.
    pub(super) fn dir(&self) -> &dyn Dir {
        &*self.shared.dir
    }

    /// Oldest offset that can be read.
    pub fn log_start(&self) -> Offset {
        offset(self.shared.lock().log_start)
    }

    /// The durable end: readers see records below it.
    pub fn high_watermark(&self) -> Offset {
        offset(self.shared.lock().high_watermark)
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> u64 {
        self.shared.lock().size_bytes()
    }

    /// Ranges of offsets at or above the log start that are known to be unreadable, and that no
    /// person has accepted, in the order in which they were found; at most 1,000.
    pub fn holes(&self) -> Vec<(Offset, Offset)> {
        let log_start = self.log_start();
        let damages = self.shared.damages();
        let holes = damages.holes.iter().map(|(from, to)| (offset(*from), offset(*to)));
        holes.filter(|(_, to)| log_start < *to).collect()
    }

    /// Where the disk refused the last read that it refused, and why; until that offset is read, or
    /// below the log start.
    pub fn refused(&self) -> Option<(Offset, String)> {
        let log_start = self.log_start().get();
        let damages = self.shared.damages();
        let refused = damages.refused.as_ref().filter(|(from, _)| log_start <= *from);
        refused.map(|(from, cause)| (offset(*from), cause.clone()))
    }

    /// Counts holes on `gauge`: those known, and each that a read finds.
    pub fn count_holes_on(&self, gauge: &Gauge) {
        let mut damages = self.shared.damages();
        gauge.inc_by(i64::try_from(damages.holes.len()).unwrap_or(i64::MAX));
        damages.gauge = Some(gauge.clone());
    }

    /// Tells of each rise of the high watermark.
    pub fn watch_high_watermark(&self) -> watch::Receiver<Offset> {
        self.shared.high_watermark.subscribe()
    }

    /// Reads from memory if `from` lies in the tail kept there; `None` if the disk is needed.
    pub fn read_tail(&self, from: Offset, bytes_max: usize) -> Option<Batches> {
        let state = self.shared.lock();
        if from.get() < state.log_start || from.get() > state.high_watermark {
            return None; // The read from the disk says what is wrong.
        }
        if from.get() == state.high_watermark {
            return Some(Batches::default());
        }
        let chunks = state.tail.read(from.get(), state.high_watermark, bytes_max)?;
        drop(state);
        let bytes = chunks.iter().map(Bytes::len).sum();
        Some(Batches { chunks, bytes })
    }

    /// Reads whole batches from the one that holds `from`, below the high watermark, up to
    /// `bytes_max` but at least one; a read ends where its segment ends. Empty at the high
    /// watermark. Blocks on the disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, from: Offset, bytes_max: usize) -> Result<Batches, ReadError> {
        let read = self.read_twice(from, bytes_max);
        let mut damages = self.shared.damages();
        match &read {
            Err(ReadError::Io(error)) => {
                damages.refused = Some((from.get(), error.to_string()));
            }
            Ok(_) if damages.refused.as_ref().is_some_and(|(at, _)| *at == from.get()) => {
                damages.refused = None;
            }
            _ => (),
        }
        drop(damages);
        read
    }

    fn read_twice(&self, from: Offset, bytes_max: usize) -> Result<Batches, ReadError> {
        match self.read_disk(from, bytes_max) {
            // Retention took the segment after it was found: look once more where it begins now.
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.read_disk(from, bytes_max)
            }
            read => read,
        }
    }

    /// The first record at or after `timestamp_ms`: its offset and timestamp; `None` past the last.
    /// Damaged batches are passed over. Blocks on the disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn offset_for_time(&self, timestamp_ms: i64) -> Result<Option<(Offset, i64)>, ReadError> {
        let candidates = {
            let state = self.shared.lock();
            let from_log_start = |segment: &Segment| segment.end > state.log_start;
            let mut segments: Vec<Segment> = (0..state.sealed.len())
                .filter(|at| state.sealed[*at].max_timestamp >= timestamp_ms)
                .map(|at| sealed_segment(&state, at))
                .filter(from_log_start)
                .collect();
            let active = active_segment(&state, |index, base| seek_time(index, base, timestamp_ms));
            segments.extend(Some(active).filter(from_log_start));
            segments
        };
        for mut segment in candidates {
            let found = self
                .open(&mut segment, |index, base| seek_time(index, base, timestamp_ms))
                .and_then(|file| time_in_segment(&*file, &segment, timestamp_ms));
            match found {
                Ok(None) => (),
                Ok(Some((raw, timestamp))) => return Ok(Some((offset(raw), timestamp))),
                // Retention took it: what is asked for is in a later one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
        Ok(None)
    }

    fn read_disk(&self, from: Offset, bytes_max: usize) -> Result<Batches, ReadError> {
        let from = from.get();
        let Some(mut segment) = self.locate(from)? else { return Ok(Batches::default()) };
        let file = self
            .open(&mut segment, |index, base| seek_offset(index, base, from))
            .map_err(ReadError::Io)?;
        let step = APPROACH_BYTES + bytes_max.min(READ_BYTES_MAX);
        let mut window = Window::with_step(&*file, segment.size, step);
        let place = approach(&mut window, &segment, from).map_err(|stopped| {
            if let Stopped::Damage { hole } = stopped {
                self.note(hole);
            }
            stopped.into_error(from, segment.high_watermark)
        })?;
        let chunk = gather(window, &segment, place, bytes_max.min(READ_BYTES_MAX));
        Ok(Batches { bytes: chunk.len(), chunks: vec![chunk] })
    }

    /// Tells of a hole, once.
    fn note(&self, (from, to): (i64, i64)) {
        if self.shared.damages().add(from, to) {
            let dir = self.shared.dir.path().display();
            tracing::error!(%dir, from, to, "records are damaged and cannot be read");
        }
    }

    /// The segment that holds `from`; `None` at the high watermark.
    fn locate(&self, from: i64) -> Result<Option<Segment>, ReadError> {
        let state = self.shared.lock();
        if from < state.log_start || from > state.high_watermark {
            let (start, end) = (offset(state.log_start), offset(state.high_watermark));
            return Err(ReadError::OutOfRange { start, end });
        }
        if from == state.high_watermark {
            return Ok(None);
        }
        if from >= state.active.base {
            return Ok(Some(active_segment(&state, |index, base| seek_offset(index, base, from))));
        }
        let after = state.sealed.partition_point(|segment| segment.base <= from);
        let Some(at) = after.checked_sub(1) else {
            let first = state.sealed.front().map_or(state.active.base, |first| first.base);
            return Err(corrupt(from, first.min(state.high_watermark)));
        };
        let sealed = &state.sealed[at];
        if from >= sealed.end {
            return Err(corrupt(from, state.next_base(at).min(state.high_watermark)));
        }
        if let Some(hole) = sealed.holes.iter().find(|hole| hole.from <= from && from < hole.to) {
            return Err(corrupt(from, hole.to.min(state.high_watermark)));
        }
        Ok(Some(sealed_segment(&state, at)))
    }

    /// Opens the file of `segment`, and completes where to begin in it.
    fn open(
        &self,
        segment: &mut Segment,
        seek: impl Fn(&[IndexEntry], i64) -> (u64, i64),
    ) -> io::Result<Arc<dyn File>> {
        match &segment.source {
            Source::Active(file) => Ok(Arc::clone(file)),
            Source::Sealed(sealed) => {
                let file = self.shared.dir.open(&name(sealed.base, LOG))?;
                let index = self.index(sealed, &*file, segment)?;
                segment.start = seek(&index, sealed.base);
                Ok(file)
            }
        }
    }

    fn index(
        &self,
        sealed: &Sealed,
        file: &dyn File,
        segment: &Segment,
    ) -> io::Result<Arc<[IndexEntry]>> {
        if let Some(index) = self.shared.cached_index(sealed.base) {
            return Ok(index);
        }
        let index = match sealed.load_index(&*self.shared.dir)? {
            Some(index) => index,
            // The seal went bad or away since the start.
            None => {
                let range = (sealed.base, segment.limit);
                recovery::rescan(file, sealed.size, range, &segment.epochs)?.index.into()
            }
        };
        self.shared.cache_index(sealed.base, Arc::clone(&index));
        Ok(index)
    }
}

/// One segment as a read sees it.
struct Segment {
    source: Source,
    /// Position and offset to begin to walk at.
    start: (u64, i64),
    size: u64,
    /// End of what may be read of it.
    end: i64,
    /// Where the next segment begins; the log end for the active one.
    limit: i64,
    log_start: i64,
    high_watermark: i64,
    epochs: Arc<Epochs>,
}

enum Source {
    Active(Arc<dyn File>),
    Sealed(Arc<Sealed>),
}

impl Segment {
    fn start(&self) -> Place<'_> {
        let (position, offset) = self.start;
        let Self { size, limit, epochs, .. } = self;
        Place { position, offset, size: *size, limit: *limit, epochs }
    }
}

fn active_segment(state: &State, seek: impl Fn(&[IndexEntry], i64) -> (u64, i64)) -> Segment {
    Segment {
        source: Source::Active(Arc::clone(&state.file)),
        start: seek(&state.active.index, state.active.base),
        size: state.active.size,
        end: state.active.end.min(state.high_watermark),
        limit: state.active.end,
        log_start: state.log_start,
        high_watermark: state.high_watermark,
        epochs: Arc::clone(&state.epochs),
    }
}

fn sealed_segment(state: &State, at: usize) -> Segment {
    let sealed = &state.sealed[at];
    Segment {
        source: Source::Sealed(Arc::clone(sealed)),
        start: (0, sealed.base),
        size: sealed.size,
        end: sealed.end.min(state.high_watermark),
        limit: state.next_base(at),
        log_start: state.log_start,
        high_watermark: state.high_watermark,
        epochs: Arc::clone(&state.epochs),
    }
}

/// Why a walk did not reach its batch.
enum Stopped {
    /// The offset lies in this hole.
    Damage {
        hole: (i64, i64),
    },
    Disk(io::Error),
}

impl Stopped {
    fn into_error(self, from: i64, high_watermark: i64) -> ReadError {
        match self {
            Self::Damage { hole: (_, to) } => corrupt(from, to.min(high_watermark)),
            Self::Disk(error) => ReadError::Io(error),
        }
    }
}

/// Walks to the batch that holds `from`, which lies whole in the window then.
fn approach<'a>(
    window: &mut Window<'_>,
    segment: &'a Segment,
    from: i64,
) -> Result<Place<'a>, Stopped> {
    let mut place = segment.start();
    loop {
        if let Some(header) = walk::batch_at(window, &place).map_err(Stopped::Disk)? {
            if from <= header.last_offset() {
                return Ok(place);
            }
            place = place.after(&header);
            continue;
        }
        let hole = walk::search(window, &place).map_err(Stopped::Disk)?;
        let to = hole.map_or(segment.limit, |hole| hole.to);
        if from < to {
            return Err(Stopped::Damage { hole: (place.offset, to) });
        }
        // Without a hole there is nothing after it, so that `from` lies below its end.
        let Some(hole) = hole else { return Err(Stopped::Damage { hole: (from, to) }) };
        place = place.past(&hole);
    }
}

/// The batches from `place` on that lie in the window, as one chunk: at least the first.
fn gather(window: Window<'_>, segment: &Segment, place: Place<'_>, bytes_max: usize) -> Bytes {
    let bytes = window.into_bytes(place.position);
    let mut place = place;
    let mut taken = 0;
    while place.offset < segment.end {
        let rest = &bytes[taken..];
        let Some(header) = place.header(rest) else { break };
        let is_first = taken == 0;
        let is_wanted = header.size_bytes <= bytes_max.saturating_sub(taken);
        if !(is_first || is_wanted && batch::check_crc(rest, &header)) {
            break;
        }
        taken += header.size_bytes;
        place = place.after(&header);
    }
    bytes.slice(..taken)
}

fn time_in_segment(
    file: &dyn File,
    segment: &Segment,
    timestamp_ms: i64,
) -> io::Result<Option<(i64, i64)>> {
    let mut window = Window::with_step(file, segment.size, APPROACH_BYTES);
    let mut place = segment.start();
    while place.offset < segment.end {
        let Some(header) = walk::batch_at(&mut window, &place)? else {
            let Some(hole) = walk::search(&mut window, &place)? else { break };
            place = place.past(&hole);
            continue;
        };
        if header.max_timestamp >= timestamp_ms {
            let bytes = window.bytes(place.position, header.size_bytes)?.unwrap_or_default();
            let found = times::first_at(bytes, &header, timestamp_ms, segment.log_start);
            if found.is_some() {
                return Ok(found);
            }
        }
        place = place.after(&header);
    }
    Ok(None)
}

fn corrupt(from: i64, resume_at: i64) -> ReadError {
    ReadError::Corrupt { offset: offset(from), resume_at: Offset::new(resume_at) }
}

fn offset(raw: i64) -> Offset {
    Offset::new(raw).unwrap_or_default()
}
