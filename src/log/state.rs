//! What the writer and its readers share. The mutex guards memory only, never the disk.

use super::{
    accepted::Accepted,
    epochs::Epochs,
    segment::{Growth, IndexEntry, Sealed},
};
use crate::{
    disk::dir::{Dir, File},
    position::Offset,
};
use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Indexes of sealed segments kept in memory; the least recently used goes first.
const INDEXES_MAX: usize = 8;
/// What a batch costs in memory beside its bytes: allocation, handle, place in the queue.
const TAIL_BATCH_OVERHEAD_BYTES: usize = 128;

/// One log, as both sides see it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: Arc<dyn Dir>,
    pub(super) high_watermark: watch::Sender<Offset>,
    state: Mutex<State>,
    damages: Mutex<Damages>,
    indexes: Mutex<VecDeque<(i64, Arc<[IndexEntry]>)>>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) log_start: i64,
    pub(super) high_watermark: i64,
    /// In order of offsets.
    pub(super) sealed: VecDeque<Arc<Sealed>>,
    pub(super) active: Growth,
    pub(super) file: Arc<dyn File>,
    pub(super) epochs: Arc<Epochs>,
    pub(super) tail: Tail,
}

impl Shared {
    pub(super) fn new(dir: Arc<dyn Dir>, state: State, damages: Damages) -> Self {
        let high = Offset::new(state.high_watermark).unwrap_or_default();
        Self {
            dir,
            high_watermark: watch::Sender::new(high),
            state: Mutex::new(state),
            damages: Mutex::new(damages),
            indexes: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics between two writes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn damages(&self) -> MutexGuard<'_, Damages> {
        self.damages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of the sealed segment at `base`, if it is in memory.
    pub(super) fn cached_index(&self, base: i64) -> Option<Arc<[IndexEntry]>> {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let at = indexes.iter().position(|(other, _)| *other == base)?;
        let entry = indexes.remove(at)?;
        let index = Arc::clone(&entry.1);
        indexes.push_back(entry);
        Some(index)
    }

    pub(super) fn cache_index(&self, base: i64, index: Arc<[IndexEntry]>) {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        indexes.retain(|(other, _)| *other != base);
        if indexes.len() >= INDEXES_MAX {
            indexes.pop_front();
        }
        indexes.push_back((base, index));
    }

    pub(super) fn forget_index(&self, base: i64) {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        indexes.retain(|(other, _)| *other != base);
    }
}

/// What is known to be unreadable.
#[derive(Debug, Default)]
pub(super) struct Damages {
    pub(super) holes: Vec<(i64, i64)>,
    pub(super) accepted: Accepted,
    /// Of the last read that the disk refused: its offset, and why.
    pub(super) refused: Option<(i64, String)>,
    /// Counts holes as they are found.
    pub(super) gauge: Option<Gauge>,
}

/// Holes that are remembered; a log with more is not told of better by a longer list.
const HOLES_MAX: usize = 1_000;

impl Damages {
    /// Takes note of a hole; whether it is news.
    pub(super) fn add(&mut self, from: i64, to: i64) -> bool {
        let is_known = self.holes.iter().any(|(known, end)| *known <= from && to <= *end);
        if is_known || self.accepted.covers(from, to) || self.holes.len() >= HOLES_MAX {
            return false;
        }
        self.holes.push((from, to));
        if let Some(gauge) = &self.gauge {
            gauge.inc();
        }
        true
    }
}

impl State {
    /// Bytes of all segments.
    pub(super) fn size_bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.size).sum::<u64>() + self.active.size
    }

    /// Where the segment after the sealed one at `index` begins.
    pub(super) fn next_base(&self, index: usize) -> i64 {
        self.sealed.get(index + 1).map_or(self.active.base, |next| next.base)
    }
}

/// The newest batches, as they were written.
#[derive(Debug)]
pub(super) struct Tail {
    batches: VecDeque<TailBatch>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct TailBatch {
    base: i64,
    end: i64,
    bytes: Bytes,
}

impl TailBatch {
    fn cost(&self) -> usize {
        self.bytes.len() + TAIL_BATCH_OVERHEAD_BYTES
    }
}

impl Tail {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.shrink();
    }

    pub(super) fn push(&mut self, base: i64, end: i64, bytes: Bytes) {
        let batch = TailBatch { base, end, bytes };
        self.bytes += batch.cost();
        self.batches.push_back(batch);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max
            && let Some(batch) = self.batches.pop_front()
        {
            self.bytes -= batch.cost();
        }
    }

    /// Batches from the one that holds `from` up to `end`; `None` if that one is not here.
    pub(super) fn read(&self, from: i64, end: i64, bytes_max: usize) -> Option<Vec<Bytes>> {
        let at = self.batches.partition_point(|batch| batch.end <= from);
        let first = self.batches.get(at).filter(|batch| batch.base <= from && batch.end <= end)?;
        let mut chunks = vec![first.bytes.clone()];
        let mut bytes = first.bytes.len();
        for batch in self.batches.iter().skip(at + 1).take_while(|batch| batch.end <= end) {
            bytes = bytes.saturating_add(batch.bytes.len());
            if bytes > bytes_max {
                break;
            }
            chunks.push(batch.bytes.clone());
        }
        Some(chunks)
    }
}
