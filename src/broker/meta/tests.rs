//! `broker.redb` through its door.

use super::*;
use crate::{
    clock::Clock,
    disk::RealDisk,
    disk::testing::{Fault, Image, SimDisk, Unsynced},
};
use std::io;

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicName::new(topic).unwrap(),
        partition: Partition::new(partition).unwrap(),
    }
}

fn committed(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset::new(offset).unwrap(),
        leader_epoch: -1,
        metadata: "mine".to_owned(),
        committed_at_ms: 7,
    }
}

async fn close(meta: Meta) {
    tokio::task::spawn_blocking(move || meta.close()).await.unwrap();
}

#[tokio::test]
async fn offsets_survive_and_are_deleted_by_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.redb");
    let (meta, _) = Meta::open(&disk(), &path).unwrap();
    let two = vec![(place("a", 0), committed(1)), (place("b", 1), committed(2))];
    meta.commit_offsets("g", two.clone()).await.unwrap();
    meta.commit_offsets("g2", two).await.unwrap();
    meta.delete_offsets("g", Some(vec![place("a", 0)])).await.unwrap();
    meta.delete_offsets("g2", None).await.unwrap();
    close(meta).await;
    let (meta, _) = Meta::open(&disk(), &path).unwrap();
    let left = meta.load_offsets().unwrap();
    let place = place("b", 1);
    assert_eq!(left, [("g".to_owned(), place.topic, place.partition, committed(2))]);
}

#[tokio::test]
async fn epoch_rises_only_after_an_unclean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.redb");
    let mut epochs = Vec::new();
    let mut clusters = Vec::new();
    for is_clean in [true, false, true] {
        let (meta, run) = Meta::open(&disk(), &path).unwrap();
        epochs.push((run.leader_epoch, run.was_clean));
        clusters.push(run.cluster_id);
        if is_clean {
            meta.mark_clean().await.unwrap();
        }
        close(meta).await;
    }
    let (_, run) = Meta::open(&disk(), &path).unwrap();
    epochs.push((run.leader_epoch, run.was_clean));
    assert_eq!(epochs, [(0, false), (0, true), (1, false), (1, true)]);
    assert!(clusters.iter().all(|id| *id == clusters[0] && id.len() == 22));
}

#[tokio::test]
async fn producer_ids_are_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.redb");
    let mut given = std::collections::HashSet::new();
    for _ in 0..3 {
        let (meta, _) = Meta::open(&disk(), &path).unwrap();
        for _ in 0..1500 {
            assert!(given.insert(meta.allocate_producer_id().await.unwrap()));
        }
        close(meta).await;
    }
    assert!(given.iter().all(|id| *id >= 0));
}

#[tokio::test]
async fn topics_and_ends_survive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.redb");
    let (meta, _) = Meta::open(&disk(), &path).unwrap();
    let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
    let topic = TopicRecord { id: Uuid::new_v4(), partitions: 3, configs };
    for name in ["a", "b"] {
        meta.put_topic(&TopicName::new(name).unwrap(), topic.clone()).await.unwrap();
    }
    let end = |name, partition| (topic.id, place(name, partition), Offset::new(9).unwrap());
    meta.record_ends(vec![end("a", 0), end("b", 2)]).await.unwrap();
    meta.delete_topic(&TopicName::new("b").unwrap()).await.unwrap();
    // Seen before the deletion, recorded after it.
    meta.record_ends(vec![end("b", 2)]).await.unwrap();
    // The same, with another topic of the name by then.
    let again = TopicRecord { id: Uuid::new_v4(), ..topic.clone() };
    meta.put_topic(&TopicName::new("b").unwrap(), again.clone()).await.unwrap();
    meta.record_ends(vec![end("b", 2)]).await.unwrap();
    close(meta).await;
    let (_, run) = Meta::open(&disk(), &path).unwrap();
    let topics = [("a", topic), ("b", again)];
    let topics = topics.map(|(name, topic)| (TopicName::new(name).unwrap(), topic));
    assert_eq!(run.topics, BTreeMap::from(topics));
    assert_eq!(run.durable_ends.len(), 1);
}

/// A file on a disk in memory with one committed offset, and that disk.
async fn on_disk() -> (SimDisk, Meta) {
    let disk = SimDisk::new(Image::default(), Clock::manual(1));
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    shared.dir(Path::new("/data")).unwrap();
    let (meta, _) = Meta::open(&shared, Path::new("/data/broker.redb")).unwrap();
    meta.commit_offsets("g", vec![(place("a", 0), committed(1))]).await.unwrap();
    (disk, meta)
}

/// What a start finds of group g after a power cut.
fn offsets_after(disk: &SimDisk) -> Vec<i64> {
    let image = disk.image().crash(Unsynced::Dropped);
    let after: Arc<dyn Disk> = Arc::new(SimDisk::new(image, Clock::manual(1)));
    let (meta, _) = Meta::open(&after, Path::new("/data/broker.redb")).unwrap();
    let offsets = meta.load_offsets().unwrap();
    meta.close();
    offsets.into_iter().map(|(_, _, _, committed)| committed.offset.get()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_space_is_refused_and_the_next_one_is_made() {
    let (disk, meta) = on_disk().await;
    for round in 2..5 {
        disk.set_full(true);
        for _ in 0..2 {
            let refused = meta.commit_offsets("g", vec![(place("a", 0), committed(9))]).await;
            assert!(matches!(refused, Err(MetaError::Full)), "{refused:?}");
            assert!(matches!(meta.allocate_producer_id().await, Err(MetaError::Full)));
        }
        assert_eq!(meta.failure(), None);
        disk.set_full(false);
        meta.commit_offsets("g", vec![(place("a", 0), committed(round))]).await.unwrap();
        assert!(meta.allocate_producer_id().await.is_ok());
        let after = disk.clone();
        let offsets = tokio::task::spawn_blocking(move || offsets_after(&after)).await;
        assert_eq!(offsets.unwrap(), [round]);
    }
    close(meta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_other_failure_nothing_is_written_until_restart() {
    for call in 0.. {
        let (disk, meta) = on_disk().await;
        disk.fail_at(disk.calls() + call, Fault::Error(io::ErrorKind::Other));
        let first = meta.commit_offsets("g", vec![(place("a", 0), committed(2))]).await;
        if first.is_ok() {
            assert!(call > 2, "it writes, and syncs");
            close(meta).await;
            break;
        }
        let calls = disk.calls();
        for _ in 0..2 {
            let refused = meta.commit_offsets("g", vec![(place("a", 0), committed(3))]).await;
            assert!(matches!(refused, Err(MetaError::Database(_))), "{call}: {refused:?}");
        }
        assert!(meta.failure().is_some(), "{call}: health can tell");
        assert_eq!(disk.calls(), calls, "{call}: nothing is tried again");
        let after = disk.clone();
        let offsets = tokio::task::spawn_blocking(move || offsets_after(&after)).await;
        let offsets = offsets.unwrap();
        assert!(offsets == [1] || offsets == [2], "{call}: {offsets:?}");
        close(meta).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_opened_again_after_a_full_disk_can_be_read_and_copied() {
    let (disk, meta) = on_disk().await;
    disk.set_full(true);
    let refused = meta.commit_offsets("g", vec![(place("a", 0), committed(9))]).await;
    assert!(matches!(refused, Err(MetaError::Full)), "{refused:?}");
    disk.set_full(false);
    meta.commit_offsets("g", vec![(place("a", 0), committed(2))]).await.unwrap();
    assert_eq!(meta.load_offsets().unwrap().len(), 1);
    let dir = tempfile::tempdir().unwrap();
    let (source, copied) = (meta.clone(), dir.path().join("copy.redb"));
    tokio::task::spawn_blocking(move || source.snapshot_to(&copied)).await.unwrap().unwrap();
    close(meta).await;
}

#[test]
fn a_reader_of_a_file_that_was_given_up_for_lack_of_space_delays_writes_and_does_not_end_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.redb");
    let noted = Noted::default();
    let (database, _) =
        file::open(&RealDisk, &path, &noted, |database| begin_run(database, None)).unwrap();
    let read = Arc::new(database);
    let reads = Reads::default();
    reads.set(&read);
    let mut owner = Owner { disk: disk(), path, noted, database: None, reads };
    let mut write = || owner.with(|database| commit(database, [Write::MarkClean].iter()));
    assert!(matches!(write(), Err(MetaError::Full)));
    drop(read);
    write().unwrap();
}
