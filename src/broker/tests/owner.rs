//! The owner of a partition on disks that wait, fail and fill up.

use super::client::{batch, batch_of, topic};
use crate::{
    broker::{
        Acks, Durability, ProduceError,
        partition::{self, Common, PartitionHandle, Setup},
        space::Space,
    },
    clock::Clock,
    disk::RealDisk,
    disk::dir::{Dir, File},
    disk::testing::{Fault, FaultyDir, MemoryDir, Unsynced},
    log::{LastStop, Options, Outage},
    metrics::Metrics,
    position::{Offset, Partition, TopicPartition},
    wire::batch::ProducedBatch,
};
use bytes::Bytes;
use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

fn open(dir: Arc<dyn Dir>) -> (PartitionHandle, Arc<Metrics>) {
    open_among(dir, Common::default())
}

fn open_among(dir: Arc<dyn Dir>, common: Common) -> (PartitionHandle, Arc<Metrics>) {
    let setup = setup(dir, common);
    let metrics = Arc::clone(&setup.metrics);
    (start(setup), metrics)
}

fn setup(dir: Arc<dyn Dir>, common: Common) -> Setup {
    Setup {
        place: TopicPartition { topic: topic("a"), partition: Partition::ZERO },
        dir,
        options: Options::default(),
        last_stop: LastStop { was_clean: false, durable_floor: Offset::ZERO, leader_epoch: 0 },
        outage: Outage::Machine,
        durability: Durability::Commit,
        space: Space::new(Arc::new(RealDisk), Path::new("."), 0),
        may_use_reserve: false,
        clock: Clock::manual(1),
        metrics: Arc::new(Metrics::new()),
        common,
    }
}

fn start(setup: Setup) -> PartitionHandle {
    let opened = partition::open(setup);
    let (handle, worker) = opened.unwrap_or_else(|error| panic!("{error}")).split();
    tokio::spawn(worker);
    handle
}

async fn append(handle: &PartitionHandle, batch: Bytes) -> Result<i64, ProduceError> {
    let batch = ProducedBatch::check(&batch).unwrap();
    let enqueued = handle.enqueue(batch, Acks::All).await.unwrap();
    Ok(enqueued.answer().await?.base_offset.get())
}

#[tokio::test]
async fn acks_all_waits_for_the_sync_and_acks_one_does_not() {
    let gate = Gate::default();
    let dir = GatedDir { inner: Arc::new(MemoryDir::new()), gate: gate.clone() };
    let (handle, _) = open(Arc::new(dir));
    // The first append also writes the small file of epochs, which is synced first.
    append(&handle, batch(&["w"])).await.unwrap();
    gate.set_open(false);
    let one = ProducedBatch::check(&batch(&["x"])).unwrap();
    let all = ProducedBatch::check(&batch(&["y"])).unwrap();
    let one = handle.enqueue(one, Acks::Leader).await.unwrap();
    let all = handle.enqueue(all, Acks::All).await.unwrap();
    assert_eq!(one.answer().await.unwrap().base_offset.get(), 1);
    let mut all = Box::pin(all.answer());
    assert!(futures_util::poll!(&mut all).is_pending());
    assert_eq!(handle.reader().high_watermark().get(), 1, "nothing unsynced is read");
    gate.set_open(true);
    assert_eq!(all.await.unwrap().base_offset.get(), 2);
    assert_eq!(handle.reader().high_watermark().get(), 3);
}

#[tokio::test]
async fn an_owner_that_panics_refuses_writes_and_is_noticed() {
    let gate = Gate::default();
    let dir = GatedDir { inner: Arc::new(MemoryDir::new()), gate: gate.clone() };
    let common = Common::default();
    let (handle, metrics) = open_among(Arc::new(dir), common.clone());
    append(&handle, batch(&["x"])).await.unwrap();
    gate.break_down();
    let refused = append(&handle, batch(&["y"])).await;
    assert!(matches!(refused, Err(ProduceError::Storage)), "{refused:?}");
    common.owner_died.cancelled().await;
    assert_eq!(metrics.log_failed_partitions.get(), 1);
    assert_eq!(handle.reader().high_watermark().get(), 1);
}

#[tokio::test]
async fn batches_that_wait_are_bounded_in_all_partitions_together() {
    let common = Common::default();
    let gate = Gate::default();
    let slow = |_| {
        let dir = GatedDir { inner: Arc::new(MemoryDir::new()), gate: gate.clone() };
        open_among(Arc::new(dir), common.clone()).0
    };
    let partitions: Vec<PartitionHandle> = (0..3).map(slow).collect();
    for partition in &partitions {
        append(partition, batch(&["x"])).await.unwrap();
    }
    gate.set_open(false);
    let large = batch(&[&"x".repeat(1 << 20)]);
    let mut waiting = Vec::new();
    'all: for partition in partitions.iter().cycle() {
        let batch = ProducedBatch::check(&large).unwrap();
        let enqueued = partition.enqueue(batch, Acks::All);
        match tokio::time::timeout(Duration::from_millis(200), enqueued).await {
            Ok(enqueued) => waiting.push(enqueued.unwrap()),
            Err(_) => break 'all,
        }
    }
    assert!((50..=64).contains(&waiting.len()), "{} MiB wait", waiting.len());
    gate.set_open(true);
    for enqueued in waiting {
        enqueued.answer().await.unwrap();
    }
}

#[tokio::test]
async fn what_gathers_during_a_sync_shares_the_next_one() {
    let gate = Gate::default();
    let dir = GatedDir { inner: Arc::new(MemoryDir::new()), gate: gate.clone() };
    let (handle, metrics) = open(Arc::new(dir));
    gate.set_open(false);
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let batch = ProducedBatch::check(&batch(&["x"])).unwrap();
        waiting.push(handle.enqueue(batch, Acks::All).await.unwrap());
    }
    gate.set_open(true);
    for (expected, waiting) in (0..).zip(waiting) {
        assert_eq!(waiting.answer().await.unwrap().base_offset.get(), expected);
    }
    assert!(metrics.log_syncs.get() <= 3, "{} syncs", metrics.log_syncs.get());
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() {
    let disk = MemoryDir::new();
    let (handle, _) = open(Arc::new(disk.clone()));
    for n in 0..10 {
        assert_eq!(append(&handle, batch_of((1, 0), n, &["x"])).await.unwrap(), i64::from(n));
        let after = disk.power_cut(Unsynced::Dropped);
        let (again, _) = open(Arc::new(after));
        assert_eq!(again.reader().high_watermark().get(), i64::from(n) + 1);
        // Sent again, for the answer may have been lost: it is the same record.
        assert_eq!(append(&again, batch_of((1, 0), n, &["x"])).await.unwrap(), i64::from(n));
        assert_eq!(
            append(&again, batch_of((1, 0), n + 1, &["y"])).await.unwrap(),
            i64::from(n) + 1
        );
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_reads_go_on() {
    let disk = FaultyDir::new(Arc::new(MemoryDir::new()));
    let (handle, metrics) = open(Arc::new(disk.clone()));
    append(&handle, batch_of((1, 0), 0, &["x"])).await.unwrap();
    // The write passes, the sync after it fails.
    disk.fail_at(disk.calls() + 1, Fault::Error(io::ErrorKind::Other));
    for _ in 0..2 {
        let refused = append(&handle, batch_of((1, 0), 1, &["y"])).await;
        assert!(matches!(refused, Err(ProduceError::Storage)), "{refused:?}");
    }
    assert!(handle.failure().is_some());
    assert_eq!(metrics.log_failed_partitions.get(), 1);
    assert!(matches!(handle.sync().await, Err(ProduceError::Storage)));
    // The durable original is still known, and read.
    assert_eq!(append(&handle, batch_of((1, 0), 0, &["x"])).await.unwrap(), 0);
    assert_eq!(handle.reader().high_watermark().get(), 1);
    assert_eq!(handle.reader().read(Offset::ZERO, 1000).unwrap().chunks.len(), 1);
    assert!(handle.close().await.is_err());
}

#[tokio::test]
async fn only_the_daemons_own_dead_letters_are_written_to_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let full = Space::new(Arc::new(RealDisk), dir.path(), u64::MAX / 4);
    full.look(&Metrics::new());
    assert!(full.is_full());
    for may_use_reserve in [false, true] {
        let setup = setup(Arc::new(MemoryDir::new()), Common::default());
        let place = TopicPartition { topic: topic("a.dlq"), partition: Partition::ZERO };
        let handle = start(Setup { place, space: full.clone(), may_use_reserve, ..setup });
        let appended = append(&handle, batch(&["x"])).await;
        match may_use_reserve {
            true => assert_eq!(appended.unwrap(), 0),
            false => assert!(matches!(appended, Err(ProduceError::Full)), "{appended:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_space_is_back() {
    let disk = FaultyDir::new(Arc::new(MemoryDir::new()));
    let (handle, _) = open(Arc::new(disk.clone()));
    append(&handle, batch_of((1, 0), 0, &["x"])).await.unwrap();
    disk.set_full(true);
    for _ in 0..3 {
        let refused = append(&handle, batch_of((1, 0), 1, &["y"])).await;
        assert!(matches!(refused, Err(ProduceError::Full)), "{refused:?}");
    }
    disk.set_full(false);
    // The refused sequence was not noted: it is appended now, not taken for a duplicate.
    assert_eq!(append(&handle, batch_of((1, 0), 1, &["y"])).await.unwrap(), 1);
    assert_eq!(handle.reader().high_watermark().get(), 2);
    assert_eq!(handle.failure(), None);
    assert_eq!(handle.close().await.unwrap().get(), 2);
}

#[tokio::test]
async fn a_duplicate_in_the_same_round_waits_for_its_original() {
    let gate = Gate::default();
    let dir = GatedDir { inner: Arc::new(MemoryDir::new()), gate: gate.clone() };
    let (handle, _) = open(Arc::new(dir));
    gate.set_open(false);
    let mut waiting = Vec::new();
    for sequence in [0, 0, 1, 0, 1, 2] {
        let batch = ProducedBatch::check(&batch_of((1, 0), sequence, &["x"])).unwrap();
        let enqueued = handle.enqueue(batch, Acks::All).await.unwrap();
        waiting.push((i64::from(sequence), Box::pin(enqueued.answer())));
    }
    for (_, waiting) in &mut waiting {
        assert!(futures_util::poll!(waiting).is_pending());
    }
    gate.set_open(true);
    for (expected, waiting) in waiting {
        assert_eq!(waiting.await.unwrap().base_offset.get(), expected);
    }
    assert_eq!(handle.reader().high_watermark().get(), 3);
}

#[tokio::test]
async fn the_snapshot_of_a_clean_close_knows_the_producers() {
    let disk = MemoryDir::new();
    let (handle, _) = open(Arc::new(disk.clone()));
    append(&handle, batch_of((7, 3), 0, &["x", "y"])).await.unwrap();
    handle.close().await.unwrap();
    let (handle, _) = open(Arc::new(disk));
    assert_eq!(append(&handle, batch_of((7, 3), 0, &["x", "y"])).await.unwrap(), 0);
    let gap = append(&handle, batch_of((7, 3), 3, &["z"])).await;
    assert!(matches!(gap, Err(ProduceError::OutOfOrderSequence)));
}

/// Holds syncs while it is shut.
#[derive(Clone, Debug)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new((Mutex::new(true), Condvar::new())))
    }
}

impl Gate {
    fn set_open(&self, is_open: bool) {
        *self.0.0.lock().unwrap() = is_open;
        self.0.1.notify_all();
    }

    /// Whoever passes panics from now on.
    fn break_down(&self) {
        let gate = self.clone();
        let broken = std::thread::spawn(move || {
            let _held = gate.0.0.lock().unwrap();
            panic!("poisons the lock");
        });
        assert!(broken.join().is_err());
    }

    fn pass(&self) {
        let is_open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(is_open, |is_open| !*is_open).unwrap());
    }
}

#[derive(Debug)]
struct GatedDir {
    inner: Arc<dyn Dir>,
    gate: Gate,
}

#[derive(Debug)]
struct GatedFile {
    inner: Arc<dyn File>,
    gate: Gate,
}

impl GatedDir {
    fn wrap(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GatedFile { inner, gate: self.gate.clone() })
    }
}

impl Dir for GatedDir {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(self.inner.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(self.inner.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}

impl File for GatedFile {
    fn write_all_at(&self, slices: &[&[u8]], position: u64) -> io::Result<()> {
        self.inner.write_all_at(slices, position)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.inner.modified_ms()
    }
}
