//! The log alone: what appends, reads and starts cost, in memory and on the disk under the
//! temporary directory. Batches are made and checked before the clock runs.

use divan::{Bencher, counter::BytesCount};
use std::{path::Path, sync::Arc};
use taskwire::{
    disk::dir::{Dir, RealDir},
    disk::testing::MemoryDir,
    log::{LastStop, Log, Options},
    position::Offset,
    wire::batch::{ProducedBatch, crc32c},
};

/// One small event, a usual producer batch, a large one.
const BATCH_BYTES: [usize; 3] = [300, 16 << 10, 256 << 10];
/// Batches that one group commit finds waiting.
const GROUP_BATCHES: usize = 64;
/// Bytes of log that reads and starts have before them.
const LOG_BYTES: usize = 256 << 20;
const HEADER_BYTES: usize = 61;

fn main() {
    divan::main();
}

/// A sound batch of `size_bytes`, of one record that the log never looks into.
fn batch(size_bytes: usize) -> ProducedBatch {
    let mut bytes = vec![0x61; size_bytes];
    bytes[..HEADER_BYTES].fill(0);
    let length = i32::try_from(size_bytes - 12).expect("a small batch");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    bytes[43..53].fill(0xff);
    bytes[60] = 1;
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    ProducedBatch::check(&bytes).expect("a sound batch")
}

fn open(dir: Arc<dyn Dir>, was_clean: bool) -> Log {
    let last_stop = LastStop { was_clean, durable_floor: Offset::ZERO, leader_epoch: 0 };
    Log::open(dir, Options::default(), last_stop).expect("the log opens").0
}

fn real(path: &Path) -> Arc<dyn Dir> {
    Arc::new(RealDir::open(path).expect("a directory"))
}

fn append(bencher: Bencher<'_, '_>, dir: Arc<dyn Dir>, size_bytes: usize, group: usize) {
    let mut log = open(dir, false);
    let mut now_ms = 0;
    bencher
        .counter(BytesCount::new(size_bytes * group))
        .with_inputs(|| (0..group).map(|_| batch(size_bytes)).collect::<Vec<_>>())
        .bench_local_values(|batches| {
            now_ms += 1;
            log.append(batches, now_ms).expect("appended");
            log.flush().expect("flushed");
            // Memory is not what is measured; a log that grows for ever would be.
            if now_ms % 1024 == 0 {
                let end = log.log_end();
                log.apply_retention(i64::MAX, end).expect("nothing is old");
            }
        });
}

#[divan::bench(args = BATCH_BYTES, sample_count = 50, sample_size = 20)]
fn append_and_flush_in_memory(bencher: Bencher<'_, '_>, size_bytes: usize) {
    append(bencher, Arc::new(MemoryDir::new()), size_bytes, 1);
}

#[divan::bench(args = BATCH_BYTES, sample_count = 50, sample_size = 1)]
fn append_and_flush_on_disk(bencher: Bencher<'_, '_>, size_bytes: usize) {
    let temporary = tempfile::tempdir().expect("a directory");
    append(bencher, real(temporary.path()), size_bytes, 1);
}

#[divan::bench(args = BATCH_BYTES, sample_count = 20, sample_size = 1)]
fn group_commit_on_disk(bencher: Bencher<'_, '_>, size_bytes: usize) {
    let temporary = tempfile::tempdir().expect("a directory");
    append(bencher, real(temporary.path()), size_bytes, GROUP_BATCHES);
}

/// A log of [`LOG_BYTES`] on disk in batches of 16 KiB.
fn filled(path: &Path) -> Log {
    let mut log = open(real(path), false);
    for _ in 0..LOG_BYTES / (1 << 20) {
        log.append((0..64).map(|_| batch(16 << 10)).collect(), 0).expect("appended");
    }
    log.flush().expect("flushed");
    log
}

#[divan::bench(args = [1, 64 << 10, 1 << 20])]
fn read_disk(bencher: Bencher<'_, '_>, bytes_max: usize) {
    let temporary = tempfile::tempdir().expect("a directory");
    let log = filled(temporary.path());
    let reader = log.reader();
    let end = log.log_end().get();
    let read =
        |at: i64| reader.read(Offset::new(at).expect("not negative"), bytes_max).expect("sound");
    let mut at = 0;
    bencher.counter(BytesCount::new(read(0).bytes)).bench_local(|| {
        at = (at + 7919) % (end - 1024);
        read(at)
    });
}

#[divan::bench(args = [1, 64 << 10, 1 << 20])]
fn read_tail(bencher: Bencher<'_, '_>, bytes_max: usize) {
    let temporary = tempfile::tempdir().expect("a directory");
    let log = filled(temporary.path());
    let reader = log.reader();
    let from = Offset::new(log.log_end().get() - 100).expect("not negative");
    bencher.bench_local(|| reader.read_tail(from, bytes_max).expect("in memory"));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn start_after_clean_stop(bencher: Bencher<'_, '_>) {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut log = filled(temporary.path());
    log.store_snapshot(b"").expect("stored");
    log.close().expect("closed");
    bencher.bench_local(|| open(real(temporary.path()), true));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn start_after_kill(bencher: Bencher<'_, '_>) {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut log = filled(temporary.path());
    log.store_snapshot(b"").expect("stored");
    drop(log);
    bencher.bench_local(|| open(real(temporary.path()), false));
}
