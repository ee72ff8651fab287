//! The broker by raw requests: what cannot be seen through a client library.

use crate::support::{TestDaemon, kafka};
use bytes::Bytes;
use kafka_protocol::{
    messages::{ApiVersionsRequest, MetadataRequest, metadata_request::MetadataRequestTopic},
    protocol::StrBytes,
};
use std::time::{Duration, Instant};

#[tokio::test]
async fn api_versions_are_the_table() {
    let daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("it"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    let answer = client.call(3, &request).await;
    let range = |key: i16| {
        let found = answer.api_keys.iter().find(|api| api.api_key == key).expect("served");
        (found.min_version, found.max_version)
    };
    assert_eq!(range(0), (0, 11), "librdkafka compresses only if Produce starts at 0");
    assert_eq!(range(1), (4, 12));
    assert_eq!(range(11), (0, 9));
    assert_eq!(range(18), (0, 4));
}

#[tokio::test]
async fn metadata_creates_topics_and_answers_the_address_that_was_reached() {
    let daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    let topic = MetadataRequestTopic::default().with_name(Some(kafka::topic_name("made")));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(true);
    let mut answer = client.call(12, &request).await;
    if answer.topics[0].error_code != 0 {
        answer = client.call(12, &request).await;
    }
    assert_eq!((answer.topics[0].error_code, answer.topics[0].partitions.len()), (0, 1));
    let broker = &answer.brokers[0];
    assert_eq!((broker.host.as_str(), broker.port), ("127.0.0.1", i32::from(daemon.kafka.port())));
}

#[tokio::test]
async fn a_fetch_wakes_on_append() {
    let daemon = TestDaemon::start().await;
    let mut producer = daemon.kafka_client().await;
    producer.make_topic("poll").await;
    producer.produce("poll", &[Bytes::from("first")]).await;
    let mut consumer = daemon.kafka_client().await;
    let waiting = tokio::spawn(async move {
        let (error, _, records) = consumer.fetch("poll", 1, 20_000).await;
        (error, records.len(), Instant::now())
    });
    tokio::time::sleep(Duration::from_millis(200)).await; // the fetch is on its way
    assert!(!waiting.is_finished(), "it waits");
    let sent = Instant::now();
    producer.produce("poll", &[Bytes::from("second")]).await;
    let (error, count, woken) = waiting.await.expect("no panic");
    assert_eq!((error, count), (0, 1));
    assert!(woken - sent < Duration::from_secs(2), "{:?}", woken - sent);
}

#[tokio::test]
async fn a_batch_sent_again_gets_its_old_offset_also_after_a_kill() {
    let mut daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    client.make_topic("once").await;
    let mut producer = client.init_producer().await;
    let mut batches = Vec::new();
    for round in 0..5 {
        let batch = kafka::batch(&[Bytes::from(format!("{round}"))], producer);
        let answer = client.try_produce("once", &batch).await.expect("an answer");
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(round)));
        producer.sequence += 1;
        batches.push(batch);
    }
    for kill in [false, true] {
        if kill {
            daemon.kill_and_restart().await;
            client = daemon.kafka_client().await;
        }
        for (batch, offset) in batches.iter().zip(0..) {
            let answer = client.try_produce("once", batch).await.expect("an answer");
            assert_eq!((answer.error_code, answer.base_offset), (0, offset), "kill: {kill}");
        }
        assert_eq!(client.fetch_all("once").await.len(), 5);
    }
    producer.sequence += 7;
    let gap = kafka::batch(&[Bytes::from("gap")], producer);
    let answer = client.try_produce("once", &gap).await.expect("an answer");
    assert_eq!(answer.error_code, 45, "out of order sequence number");
}

#[tokio::test]
async fn offsets_out_of_range_are_told() {
    let daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    client.make_topic("range").await;
    client.produce("range", &[Bytes::from("x")]).await;
    assert_eq!(client.fetch("range", 2, 0).await.0, 1);
    assert_eq!(client.fetch("unknown-topic", 0, 0).await.0, 3);
    let (error, high_watermark, records) = client.fetch("range", 1, 0).await;
    assert_eq!((error, high_watermark, records.len()), (0, 1, 0));
}
