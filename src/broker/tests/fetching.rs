use super::{client::*, *};
use crate::wire::{
    ApiKey, ErrorCode,
    messages::*,
    record::{NewRecord, encode},
};
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_fetch_is_woken_by_an_append() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let (mut producer, mut consumer) = (served.client().await, served.client().await);
    for topic in ["a", "b"] {
        producer.create(topic, 1).await;
    }
    let mut waits = Vec::new();
    for n in 0..10 {
        // On two topics, of which the second gets the record.
        let mut request = fetch("a", 0, 60_000);
        request.topics.push(fetch("b", n, 0).topics[0].clone());
        let asked = consumer.send(12, &request).await;
        assert_eq!(producer.produce("b", batch(&["x"])).await, (0, n));
        let acknowledged = Instant::now();
        let response = consumer.receive::<FetchRequest>(12, asked).await;
        waits.push(acknowledged.elapsed());
        let found = &response.responses[1].partitions[0];
        assert_eq!(values(found.records.clone().unwrap()), ["x"]);
    }
    waits.sort();
    // The median: the machine may be busy, a poll never is.
    assert!(waits[5] < Duration::from_millis(20), "{waits:?}");
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_fetch_waits_for_min_bytes_and_no_longer_than_max_wait() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    client.produce("a", batch(&["x"])).await;
    let started = Instant::now();
    let request = fetch("a", 0, 100).with_min_bytes(10_000);
    let response = client.ask(12, request).await;
    assert!(started.elapsed() >= Duration::from_millis(100));
    let partition = &response.responses[0].partitions[0];
    assert_eq!(values(partition.records.clone().unwrap()), ["x"]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_fetch_that_waits_ends_at_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let asked = client.send(12, &fetch("a", 0, 60_000)).await;
    // Until the request is taken nothing has to be drained, so let it be.
    while served.metrics.broker_requests.get() < 1 {
        tokio::task::yield_now().await;
    }
    served.trigger.fire();
    served.serving.await.unwrap();
    drop(client.receive_frame().await);
    let _ = asked;
    served.broker.close().await.unwrap();
}

#[tokio::test]
async fn errors_of_one_partition_are_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 2).await;
    client.produce("a", batch(&["x"])).await;
    let mut request = fetch("a", 0, 60_000);
    let epoch = |index, epoch| fetch_partition(index, 0).with_current_leader_epoch(epoch);
    request.topics[0].partitions =
        vec![fetch_partition(0, 7), fetch_partition(1, 0), fetch_partition(2, 0), epoch(0, 5)];
    request.topics[0].partitions.push(fetch_partition(0, -7));
    request.topics.push(fetch("none", 0, 0).topics[0].clone());
    let response = client.ask(12, request).await;
    let codes: Vec<i16> = response.responses[0].partitions.iter().map(|p| p.error_code).collect();
    let out_of_range = ErrorCode::OffsetOutOfRange.code();
    let unknown_epoch = ErrorCode::UnknownLeaderEpoch.code();
    assert_eq!(codes, [out_of_range, 0, 3, unknown_epoch, out_of_range]);
    assert_eq!(response.responses[1].partitions[0].error_code, 3);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn limits_hold_but_for_the_first_batch() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 2).await;
    for partition in 0..2 {
        for _ in 0..4 {
            let request = produce("a", partition, -1, batch(&[&"x".repeat(1000)]));
            client.ask(9, request).await;
        }
    }
    let fetched = async |client: &mut Client, max_bytes: i32, partition_bytes: i32| {
        let mut request = fetch("a", 0, 0).with_max_bytes(max_bytes);
        request.topics[0].partitions = vec![fetch_partition(0, 0), fetch_partition(1, 0)];
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_bytes;
        }
        let response = client.ask(12, request).await;
        let count = |at: usize| {
            values(response.responses[0].partitions[at].records.clone().unwrap_or_default()).len()
        };
        (count(0), count(1))
    };
    assert_eq!(fetched(&mut client, 1, 1).await, (1, 0));
    assert_eq!(fetched(&mut client, 1 << 20, 1).await, (1, 0));
    assert_eq!(fetched(&mut client, 1 << 20, 2500).await, (2, 2));
    assert_eq!(fetched(&mut client, 5000, 1 << 20).await, (4, 0));
    assert_eq!(fetched(&mut client, 1 << 20, 1 << 20).await, (4, 4));
    served.stop().await.unwrap();
}

#[tokio::test]
async fn there_are_no_fetch_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let response = client.ask(12, fetch("a", 0, 0).with_session_epoch(0)).await;
    assert_eq!((response.error_code, response.session_id), (0, 0));
    let response = client.ask(12, fetch("a", 0, 0).with_session_id(9).with_session_epoch(1)).await;
    assert_eq!(response.error_code, ErrorCode::FetchSessionIdNotFound.code());
    served.stop().await.unwrap();
}

#[tokio::test]
async fn list_offsets_finds_ends_and_times() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    client.produce("a", batch(&["x", "y"])).await;
    client.produce("a", batch(&["z"])).await;
    let time = 1_700_000_000_000;
    for version in versions(ApiKey::ListOffsets) {
        for (asked, found) in [(-1, 3), (-2, 0), (time, 0), (time + 1, -1), (0, 0)] {
            let partition = list_offsets_request::ListOffsetsPartition::default()
                .with_timestamp(asked)
                .with_current_leader_epoch(-1);
            let topic = list_offsets_request::ListOffsetsTopic::default()
                .with_name(name("a"))
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![topic]);
            let response = client.ask(version, request).await;
            let partition = &response.topics[0].partitions[0];
            assert_eq!((partition.error_code, partition.offset), (0, found), "{version} {asked}");
        }
    }
    served.stop().await.unwrap();
}

#[tokio::test]
async fn list_offsets_finds_the_largest_timestamp_from_the_version_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let at = |timestamp_ms: i64| NewRecord {
        timestamp_ms,
        value: Some("x".into()),
        ..NewRecord::default()
    };
    let ask = async |client: &mut Client, version: i16| {
        let partition = list_offsets_request::ListOffsetsPartition::default()
            .with_timestamp(-3)
            .with_current_leader_epoch(-1);
        let topic = list_offsets_request::ListOffsetsTopic::default()
            .with_name(name("a"))
            .with_partitions(vec![partition]);
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let response = client.ask(version, request).await;
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.offset, found.timestamp)
    };
    assert_eq!(ask(&mut client, 7).await, (0, -1, -1));
    for times in [&[5, 900, 7][..], &[900, 901, 3], &[901, 1]] {
        let records: Vec<NewRecord> = times.iter().map(|time| at(*time)).collect();
        client.produce("a", encode(&records).stamp(0, -1).1).await;
    }
    assert_eq!(ask(&mut client, 7).await, (0, 4, 901));
    client.produce("a", encode(&[at(i64::MAX)]).stamp(0, -1).1).await;
    assert_eq!(ask(&mut client, 7).await, (0, 8, i64::MAX));
    let unsupported = ErrorCode::UnsupportedVersion.code();
    assert_eq!(ask(&mut client, 6).await, (unsupported, -1, -1));
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_fetch_that_waits_for_very_much_is_answered_when_there_is_a_lot() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let (mut producer, mut client) = (served.client().await, served.client().await);
    producer.create("a", 1).await;
    let mut request = fetch("a", 0, 60_000).with_min_bytes(i32::MAX).with_max_bytes(i32::MAX);
    request.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    let asked = client.send(12, &request).await;
    let large = "x".repeat(700_000);
    producer.produce("a", batch(&[&large])).await;
    producer.produce("a", batch(&[&large])).await;
    let response = client.receive::<FetchRequest>(12, asked).await;
    let found = response.responses[0].partitions[0].records.clone().unwrap();
    assert!(!found.is_empty());
    served.stop().await.unwrap();
}
