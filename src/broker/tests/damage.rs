//! What a start, a fetch and health say of damaged or lost pieces of the data directory.

use super::{client::*, *};
use crate::{
    broker::{Acks, Start, StartError, give_up, rebuild_meta},
    log::ReadError,
    position::{Offset, Partition, TopicPartition},
    wire::{ErrorCode, batch::ProducedBatch},
};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

fn place(topic: &str) -> TopicPartition {
    TopicPartition { topic: TopicName::new(topic).unwrap(), partition: Partition::ZERO }
}

async fn try_start(data_dir: &Path, floors: &[(&str, i64)]) -> Result<Broker, StartError> {
    let floors: HashMap<_, _> =
        floors.iter().map(|(topic, floor)| (place(topic), Offset::new(*floor).unwrap())).collect();
    let start = Start { floors, ..Start::default() };
    let metrics = Arc::new(Metrics::new());
    Broker::start_with(options(data_dir), start, Clock::system(), metrics).await
}

impl Client {
    /// Of a fetch from each offset.
    async fn fetch_codes(&mut self, topic: &str, from: &[i64]) -> Vec<i16> {
        let mut codes = Vec::new();
        for from in from {
            let response = self.ask(12, fetch(topic, *from, 0)).await;
            codes.push(response.responses[0].partitions[0].error_code);
        }
        codes
    }

    /// Values from an offset on; `None` where the message is corrupt.
    async fn values_from(&mut self, topic: &str, from: i64) -> Option<Vec<String>> {
        let response = self.ask(12, fetch(topic, from, 0)).await;
        let partition = &response.responses[0].partitions[0];
        if partition.error_code == ErrorCode::CorruptMessage.code() {
            return None;
        }
        assert_eq!(partition.error_code, 0);
        Some(values(partition.records.clone().unwrap_or_default()))
    }
}

/// What a kill leaves of a broker with records `a`, `b`, `c` in topic `t`.
async fn killed() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("t", 1).await;
    for value in ["a", "b", "c"] {
        client.produce("t", batch(&[value])).await;
    }
    let image = served.crash_image(dir.path());
    served.stop().await.unwrap();
    image
}

fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.join("log/t-0/00000000000000000000.log")
}

fn flip(path: &Path, from_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// Pretends that the machine was started again since.
fn forget_boot(data_dir: &Path) {
    let names: redb::TableDefinition<'_, &str, &str> = redb::TableDefinition::new("names");
    let database = redb::Database::open(data_dir.join("broker.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(names).unwrap().insert("boot_id", "another").unwrap();
    write.commit().unwrap();
}

#[tokio::test]
async fn after_a_kill_a_flipped_byte_in_the_last_batch_is_damage_and_all_else_goes_on() {
    for from_end in 1..70 {
        let dir = killed().await;
        flip(&log_file(dir.path()), from_end);
        let served = serve(dir.path()).await;
        let mut client = served.client().await;
        let damages = served.broker.damages();
        assert_eq!(damages.len(), 1, "{from_end}: {damages:?}");
        assert!(damages[0].starts_with("t-0: offsets 2 to "), "{damages:?}");
        assert_eq!(served.metrics.log_holes.get(), 1);
        assert!(served.broker.failures().is_empty());
        let end = served.broker.reader(&place("t").topic, Partition::ZERO).unwrap();
        let end = end.high_watermark().get();
        assert_eq!(client.produce("t", batch(&["d"])).await, (0, end));
        assert_eq!(
            client.fetch_codes("t", &[0, 2, end]).await,
            [0, ErrorCode::CorruptMessage.code(), 0]
        );
        // As clients do on a corrupt message: on to what comes after it.
        let (mut values, mut next) = (Vec::new(), 0);
        while next <= end {
            match client.values_from("t", next).await {
                Some(found) => {
                    next += i64::try_from(found.len()).unwrap();
                    values.extend(found);
                }
                None => next += 1,
            }
        }
        assert_eq!(values, ["a", "b", "d"]);
        served.stop().await.unwrap();
        if from_end > 3 && from_end % 16 != 0 {
            continue; // The rest is the same for all.
        }
        let served = serve(dir.path()).await;
        assert_eq!(served.broker.damages(), damages, "told at each start");
        served.stop().await.unwrap();
    }
}

#[tokio::test]
async fn after_a_power_cut_what_lies_above_every_floor_is_a_torn_tail() {
    for (floors, expected) in [(&[][..], 2), (&[("t", 2)][..], 2), (&[("t", 3)][..], 3)] {
        let dir = killed().await;
        flip(&log_file(dir.path()), 1);
        forget_boot(dir.path());
        let broker = try_start(dir.path(), floors).await.unwrap();
        let end = broker.reader(&place("t").topic, Partition::ZERO).unwrap().high_watermark();
        assert_eq!((end.get(), broker.damages().len()), (expected, usize::from(expected == 3)));
        broker.close().await.unwrap();
    }
}

#[tokio::test]
async fn damage_that_a_read_finds_is_told_by_health() {
    let dir = killed().await;
    let size = || fs::metadata(log_file(dir.path())).unwrap().len();
    let middle = size() / 2;
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    for _ in 0..20 {
        client.produce("t", batch(&[&"x".repeat(1_000)])).await;
    }
    served.stop().await.unwrap();
    // Before the last index entry, from where a start looks after a clean stop.
    flip(&log_file(dir.path()), usize::try_from(size() - middle).unwrap());
    let served = serve(dir.path()).await;
    assert!(served.broker.damages().is_empty());
    let mut client = served.client().await;
    let codes = client.fetch_codes("t", &[0, 1, 2]).await;
    assert_eq!(codes, [0, ErrorCode::CorruptMessage.code(), 0]);
    assert_eq!(served.broker.damages(), ["t-0: offsets 1 to 2 are damaged and cannot be read"]);
    assert_eq!(served.metrics.log_holes.get(), 1);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_gone_is_refused_until_it_is_given_up_and_gives_no_offset_again() {
    let dir = killed().await;
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    let refused = try_start(dir.path(), &[]).await.err().unwrap().to_string();
    assert!(refused.contains("t-0") && refused.contains("taskwire repair t-0"), "{refused}");
    let unknown = give_up(dir.path(), &place("typo"));
    assert!(matches!(unknown, Err(StartError::UnknownPartition(_))), "{unknown:?}");
    assert!(!dir.path().join("log/typo-0").exists(), "nothing is made for it");
    let base = give_up(dir.path(), &place("t")).unwrap();
    assert!(base.get() > 3);
    let again = give_up(dir.path(), &place("t"));
    assert!(matches!(again, Err(StartError::NotMissing(_))), "{again:?}");
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    assert!(served.broker.damages().is_empty(), "a person has accepted it");
    assert_eq!(client.produce("t", batch(&["d"])).await, (0, base.get()));
    assert_eq!(client.fetch_codes("t", &[0]).await, [ErrorCode::CorruptMessage.code()]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn without_broker_redb_the_topics_are_made_again_only_when_asked_for() {
    let dir = killed().await;
    let file = dir.path().join("broker.redb");
    assert!(rebuild_meta(dir.path(), &file, &Clock::system()).is_err(), "it is there");
    fs::remove_file(&file).unwrap();
    fs::create_dir(dir.path().join("log/t-0.0000-stray")).unwrap();
    for _ in 0..2 {
        let refused = try_start(dir.path(), &[]).await.err().unwrap().to_string();
        assert!(refused.contains("rebuild --broker") && refused.contains("t-0"), "{refused}");
        assert!(!file.exists(), "nothing is made by a refusal");
    }
    let topics = rebuild_meta(dir.path(), &file, &Clock::system()).unwrap();
    assert_eq!(topics, [(place("t").topic, 1)].into());
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    assert_eq!(client.values("t", 0).await, ["a", "b", "c"]);
    assert_eq!(client.produce("t", batch(&["d"])).await, (0, 3));
    let topic = served.broker.topics().find("t").unwrap();
    assert_eq!(topic.settings.log.retention_ms, None, "nothing is deleted unasked");
    assert!(topic.partitions[0].leader_epoch() > 0, "above the old one");
    let id = served.broker.meta().allocate_producer_id().await.unwrap();
    assert!(id > 1_000_000_000, "no id that was given before");
    served.stop().await.unwrap();
}

#[tokio::test]
async fn broker_redb_without_its_bytes_is_as_good_as_missing() {
    let dir = killed().await;
    fs::write(dir.path().join("broker.redb"), []).unwrap();
    let refused = try_start(dir.path(), &[]).await.err().unwrap();
    assert!(matches!(refused, StartError::MetaMissing { logs: 1, .. }), "{refused}");
}

/// Flips each byte of each file of the log in turn, starts, and reads and writes.
async fn flip_every_byte(dir: &Path) {
    let log = dir.join("log/t-0");
    let mut flips = 0;
    for entry in fs::read_dir(&log).unwrap() {
        let name = entry.unwrap().file_name();
        for at in 0..fs::read(log.join(&name)).unwrap().len() {
            let image = tempfile::tempdir().unwrap();
            copy(dir, image.path());
            let path = image.path().join("log/t-0").join(&name);
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 0x41;
            fs::write(&path, bytes).unwrap();
            let context = format!("{} byte {at}", name.display());
            check_after_a_flip(
                image.path(),
                path.extension().is_some_and(|end| end == "log"),
                &context,
            )
            .await;
            flips += 1;
        }
    }
    assert!(flips > 200, "{flips} bytes");
}

async fn check_after_a_flip(data_dir: &Path, is_segment: bool, context: &str) {
    let broker = try_start(data_dir, &[]).await.unwrap_or_else(|e| panic!("{context}: {e}"));
    let batch = ProducedBatch::check(&batch(&["d"])).unwrap();
    let topic = place("t").topic;
    let produced = broker.produce(&topic, Partition::ZERO, batch, Acks::All).await;
    let next = produced.unwrap_or_else(|e| panic!("{context}: {e}")).base_offset.get();
    assert!((3..40).contains(&next), "{context}: {next} was given before");
    let reader = broker.reader(&topic, Partition::ZERO).unwrap();
    let mut lost = 0;
    for (offset, value) in [(0, "a"), (1, "b"), (2, "c"), (next, "d")] {
        match reader.read(Offset::new(offset).unwrap(), 1) {
            Ok(found) => assert_eq!(values(found.chunks.concat().into()), [value], "{context}"),
            Err(ReadError::Corrupt { resume_at: Some(to), .. }) => {
                assert!(to.get() > offset, "{context}");
                lost += 1;
            }
            Err(error) => panic!("{context}: {error}"),
        }
    }
    assert_eq!(lost, i32::from(is_segment), "{context}");
    assert_eq!(broker.damages().is_empty(), lost == 0, "{context}: {:?}", broker.damages());
    broker.close().await.unwrap();
}

#[tokio::test]
async fn every_flipped_byte_after_a_kill_costs_its_batch_and_nothing_else() {
    flip_every_byte(killed().await.path()).await;
}

#[tokio::test]
async fn every_flipped_byte_after_a_clean_stop_costs_its_batch_and_nothing_else() {
    let dir = killed().await;
    try_start(dir.path(), &[]).await.unwrap().close().await.unwrap();
    flip_every_byte(dir.path()).await;
}
