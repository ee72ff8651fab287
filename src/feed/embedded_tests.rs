//! Tests of [`super`]; those of the door run on a real broker.

use super::*;
use crate::{
    broker::{self, Durability},
    metrics::Metrics,
    wire::record::encode_compressed,
};
use std::{sync::Arc, time::Duration};

fn record(bytes: usize) -> NewRecord {
    NewRecord { value: Some(vec![0; bytes].into()), ..NewRecord::default() }
}

#[test]
fn batches_are_bounded_and_hold_every_record() {
    let third = PUBLISH_BATCH_BYTES / 3;
    let records: Vec<_> =
        [third, third, third, third, PUBLISH_BATCH_BYTES * 2, 1].map(record).into();
    let counts: Vec<_> = batches_of(&records).map(<[_]>::len).collect();
    assert_eq!(counts, [3, 1, 1, 1]);
    assert_eq!(batches_of(&[]).count(), 0);
}

#[test]
fn a_damaged_range_is_passed_whole_or_where_its_end_is_unknown_one_by_one() {
    let offset = |raw| Offset::new(raw).unwrap();
    let corrupt = |resume_at| ReadError::Corrupt { offset: offset(3), resume_at };
    let batch = unreadable(offset(5), &corrupt(Some(offset(9)))).unwrap();
    assert_eq!(batch.next, offset(9));
    let FeedItem::Unreadable { from, to, bytes: None, .. } = &batch.items[0] else {
        panic!("unreadable: {batch:?}")
    };
    assert_eq!((*from, *to), (offset(5), offset(9)));
    for at in [3, 5] {
        let batch = unreadable(offset(at), &corrupt(None)).unwrap();
        assert_eq!((batch.items.len(), batch.next), (1, offset(at + 1)));
    }
}

fn topic() -> TopicName {
    TopicName::new("events").unwrap()
}

async fn feed(directory: &tempfile::TempDir, partitions: u32) -> Embedded {
    let options = broker::Options {
        data_dir: directory.path().to_owned(),
        durability: Durability::Commit,
        advertise: None,
        partitions_default: partitions,
        message_bytes_max: 1_048_588,
        connections_max: 1,
        port: broker::limits::PortOptions::default(),
        reserved_topics: vec![topic()],
        closed_topics: vec![topic()],
        reserved_group: "taskwire".to_owned(),
    };
    let clock = Clock::manual(7);
    let broker = Broker::start(options, clock.clone(), Arc::new(Metrics::new())).await.unwrap();
    let feed = Embedded::new(broker, clock, partitions);
    assert_eq!(feed.ensure_topic(&topic()).await.unwrap(), partitions);
    feed
}

fn outbound(key: &str, value: &str) -> OutboundRecord {
    OutboundRecord {
        topic: topic(),
        partition: None,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        timestamp_ms: None,
        headers: vec![("h".into(), Some(Bytes::from_static(b"v")))],
    }
}

fn values(batch: &FeedBatch) -> Vec<String> {
    let text = |item: &FeedItem| match item {
        FeedItem::Record(record) => {
            String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap()
        }
        FeedItem::Unreadable { .. } => panic!("readable: {item:?}"),
    };
    batch.items.iter().map(text).collect()
}

#[tokio::test]
async fn what_is_published_is_read_in_order_from_any_offset() {
    let directory = tempfile::tempdir().unwrap();
    let feed = feed(&directory, 1).await;
    let records = ["a", "b", "c"].map(|value| outbound("k", value)).to_vec();
    let places = feed.publish_all(records).await.unwrap();
    let offsets: Vec<_> = places.iter().map(|place| place.offset.get()).collect();
    assert_eq!(offsets, [0, 1, 2]);
    let from = Offset::ZERO.next();
    let batch = feed.read(&topic(), Partition::ZERO, from, 1).await.unwrap();
    assert_eq!((values(&batch), batch.next.get()), (vec!["b".to_owned(), "c".to_owned()], 3));
    let FeedItem::Record(record) = &batch.items[0] else { panic!("a record") };
    assert_eq!((record.timestamp_ms, record.key.as_deref()), (7, Some(b"k".as_slice())));
    assert_eq!(record.headers, [("h".into(), Some("v".into()))]);
    let (start, end) = feed.bounds(&topic(), Partition::ZERO).await.unwrap();
    assert_eq!((start.get(), end.get()), (0, 3));
    feed.sync(&topic(), Partition::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_read_at_the_end_waits_for_a_record_and_one_beyond_it_fails() {
    let directory = tempfile::tempdir().unwrap();
    let feed = Arc::new(feed(&directory, 1).await);
    let waiting = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { feed.read(&topic(), Partition::ZERO, Offset::ZERO, 1).await }
    });
    feed.publish(outbound("k", "a")).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(values(&read.unwrap()), ["a"]);
    let beyond = feed.read(&topic(), Partition::ZERO, Offset::new(2).unwrap(), 1).await;
    assert!(matches!(beyond, Err(FeedError::OutOfRange { .. })), "{beyond:?}");
}

#[tokio::test]
async fn keys_choose_the_partition_as_kafka_does() {
    let directory = tempfile::tempdir().unwrap();
    let feed = feed(&directory, 7).await;
    let keys = ["21", "foobar", "abc"];
    let records = keys.map(|key| outbound(key, key)).to_vec();
    let places = feed.publish_all(records).await.unwrap();
    for (key, place) in keys.iter().zip(places) {
        assert_eq!(place.partition, partitioner::partition_of_key(key.as_bytes(), 7), "{key}");
        let read = feed.read(&topic(), place.partition, place.offset, 1).await.unwrap();
        assert_eq!(values(&read).first().map(String::as_str), Some(*key));
    }
}

#[tokio::test]
async fn compressed_batches_are_read_and_one_that_lies_is_passed() {
    let directory = tempfile::tempdir().unwrap();
    let feed = feed(&directory, 1).await;
    let value = |text: &'static str| NewRecord {
        value: Some(Bytes::from_static(text.as_bytes())),
        ..NewRecord::default()
    };
    let produce = |batch| feed.broker.produce(topic_ref(), Partition::ZERO, batch, Acks::All);
    let good = encode_compressed(&[value("a"), value("b")], Codec::Zstd);
    produce(good).await.unwrap();
    produce(lying()).await.unwrap();
    produce(record::encode(&[value("c")])).await.unwrap();
    let mut items = Vec::new();
    let mut next = Offset::ZERO;
    while next.get() < 4 {
        let batch = feed.read(&topic(), Partition::ZERO, next, 1).await.unwrap();
        next = batch.next;
        items.extend(batch.items);
    }
    assert_eq!(items.len(), 4, "{items:?}");
    let FeedItem::Unreadable { from, to, bytes: Some(_), .. } = &items[2] else {
        panic!("unreadable: {:?}", items[2])
    };
    assert_eq!((from.get(), to.get()), (2, 3));
}

/// Values that are null, as many as one batch of a megabyte can hold.
fn crowd(count: usize) -> Vec<NewRecord> {
    vec![NewRecord::default(); count]
}

#[tokio::test]
async fn a_batch_of_very_many_records_is_read_in_parts_and_each_record_once() {
    let directory = tempfile::tempdir().unwrap();
    let feed = feed(&directory, 1).await;
    let count = 3 * READ_ITEMS_MAX + 5;
    let produce = |batch| feed.broker.produce(topic_ref(), Partition::ZERO, batch, Acks::All);
    produce(record::encode(&[record(1)])).await.unwrap();
    produce(encode_compressed(&crowd(count), Codec::Zstd)).await.unwrap();
    produce(record::encode(&[record(1)])).await.unwrap();
    let (mut next, mut reads, mut offsets) = (Offset::ZERO, 0, Vec::new());
    let end = i64::try_from(count).unwrap() + 2;
    while next.get() < end {
        let batch = feed.read(&topic(), Partition::ZERO, next, 1 << 20).await.unwrap();
        assert!(batch.items.len() <= READ_ITEMS_MAX, "{}", batch.items.len());
        assert!(next < batch.next);
        next = batch.next;
        reads += 1;
        offsets.extend(batch.items.iter().map(|item| match item {
            FeedItem::Record(record) => record.offset.get(),
            FeedItem::Unreadable { .. } => panic!("readable: {item:?}"),
        }));
        assert!(feed.partly_read.lock().unwrap().len() <= 1);
    }
    assert!(offsets.iter().copied().eq(0..end));
    assert!(reads <= 6, "{reads}");
    assert!(feed.partly_read.lock().unwrap().is_empty());
    // From the middle, and back to where the last part began.
    for from in [7, 25_000, 25_000, 3] {
        let from = Offset::new(from).unwrap();
        let batch = feed.read(&topic(), Partition::ZERO, from, 1 << 20).await.unwrap();
        let FeedItem::Record(first) = &batch.items[0] else { panic!("a record") };
        assert_eq!(first.offset, from);
    }
}

#[test]
fn a_read_of_very_many_records_takes_bounded_memory() {
    let (header, bytes) = encode_compressed(&crowd(1_000_000), Codec::Zstd).stamp(0, 0);
    assert!(header.size_bytes < 1 << 20);
    let batches = Batches { bytes: bytes.len(), chunks: vec![bytes] };
    let taken = allocation_counter::measure(|| {
        let (batch, mut rest) = decode(&batches, Offset::ZERO).unwrap();
        let mut items = batch.items.len();
        while let Some(partly_read) = rest {
            let (batch, more) = partly_read.give();
            items += batch.items.len();
            rest = more;
        }
        assert_eq!(items, 1_000_000);
    });
    // 9 MB of records in a list that doubles, the window, and 10,000 items.
    assert!(taken.bytes_max < 40 << 20, "{taken:?}");
}

#[test]
fn many_batches_that_unfold_are_not_unfolded_together() {
    let zeros = NewRecord { value: Some(vec![0; 4 << 20].into()), ..NewRecord::default() };
    let batch =
        |offset| encode_compressed(std::slice::from_ref(&zeros), Codec::Zstd).stamp(offset, 0).1;
    let chunks: Vec<Bytes> = (0..40).map(batch).collect();
    let batches = Batches { bytes: chunks.iter().map(Bytes::len).sum(), chunks };
    let (found, rest) = decode(&batches, Offset::ZERO).unwrap();
    assert_eq!((found.items.len(), found.next.get(), rest.is_none()), (2, 2, true));
}

fn topic_ref() -> &'static TopicName {
    static TOPIC: std::sync::OnceLock<TopicName> = std::sync::OnceLock::new();
    TOPIC.get_or_init(topic)
}

/// A batch whose CRC is right and whose records are no zstd.
fn lying() -> crate::wire::batch::ProducedBatch {
    let record = NewRecord { value: Some(Bytes::from_static(b"x")), ..NewRecord::default() };
    let (header, bytes) = record::encode(&[record]).stamp(0, 0);
    let mut bytes = bytes.to_vec();
    bytes[22] |= 4;
    let crc = crate::wire::batch::crc32c(&bytes[21..header.size_bytes]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    crate::wire::batch::ProducedBatch::check(&bytes).unwrap()
}
