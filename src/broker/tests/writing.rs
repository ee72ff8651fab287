use super::{client::*, *};
use crate::{
    broker::{Acks, ProduceError},
    position::Partition,
    wire::{
        ApiKey, ErrorCode,
        batch::ProducedBatch,
        messages::*,
        record::{self, NewRecord},
    },
};

#[tokio::test]
async fn a_record_produced_over_the_socket_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    assert_eq!(client.produce("a", batch(&["one", "two"])).await, (0, 0));
    assert_eq!(client.produce("a", batch(&["three"])).await, (0, 2));
    assert_eq!(client.values("a", 0).await, ["one", "two", "three"]);
    assert_eq!(client.values("a", 3).await, [""; 0]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn every_version_of_produce_and_fetch_works() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let mut offset = 0;
    for version in versions(ApiKey::Produce) {
        let response = client.ask(version, produce("a", 0, -1, batch(&["x"]))).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset), "{version}");
        let response = client.ask(version, produce("none", 0, 1, batch(&["x"]))).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 3, "{version}");
        offset += 1;
    }
    for version in versions(ApiKey::Fetch) {
        let mut request = fetch("a", 1, 0);
        request.isolation_level = i8::from(version % 2 == 0);
        if version < 7 {
            request.session_epoch = -1;
        }
        let response = client.ask(version, request).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark), (0, offset), "{version}");
    }
    served.stop().await.unwrap();
}

#[tokio::test]
async fn pipelined_produces_are_answered_in_order_and_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let syncs_before = served.metrics.log_syncs.get();
    let mut sent = Vec::new();
    for n in 0..200 {
        sent.push(client.send(9, &produce("a", 0, -1, batch(&[&n.to_string()]))).await);
    }
    for (n, correlation_id) in sent.into_iter().enumerate() {
        let response = client.receive::<ProduceRequest>(9, correlation_id).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, i64::try_from(n).unwrap()));
    }
    let syncs = served.metrics.log_syncs.get() - syncs_before;
    assert!(syncs < 150, "{syncs} syncs for 200 batches");
    let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(client.values("a", 0).await, expected);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_bad_batch_is_refused_with_its_code_and_nothing_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.message_bytes_max = 200;
    let served = serve_with(options).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let good = batch(&["x"]);
    let patched = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        bytes.into()
    };
    let twice: bytes::Bytes = [&good[..], &good[..]].concat().into();
    for (bad, code) in [
        (patched(17, !good[17]), ErrorCode::CorruptMessage),
        (patched(good.len() - 1, !good[good.len() - 1]), ErrorCode::CorruptMessage),
        (patched(16, 1), ErrorCode::UnsupportedForMessageFormat),
        (good.slice(..good.len() - 1), ErrorCode::CorruptMessage),
        (twice, ErrorCode::InvalidRecord),
        (bytes::Bytes::new(), ErrorCode::InvalidRecord),
        (batch(&[&"x".repeat(300)]), ErrorCode::MessageTooLarge),
    ] {
        assert_eq!(client.produce("a", bad).await, (code.code(), -1), "{code:?}");
    }
    let response = client.ask(9, produce("a", 0, 2, good.clone())).await;
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::InvalidRequiredAcks.code());
    let response = client.ask(9, produce("a", 99, -1, good.clone())).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 3);
    assert_eq!(client.produce("a", good).await, (0, 0));
    served.stop().await.unwrap();
}

#[tokio::test]
async fn acks_none_is_not_answered_and_closes_when_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    client.send(9, &produce("a", 0, 0, batch(&["x"]))).await;
    // The next answer is that of the next request.
    assert_eq!(client.produce("a", batch(&["y"])).await, (0, 1));
    client.send(9, &produce("none", 0, 0, batch(&["x"]))).await;
    assert_eq!(client.receive_frame().await, None);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_resent_batch_is_stored_once_even_across_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let first = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id(ProducerId(0))
        .with_producer_epoch(0);
    let id = client.ask(4, first);
    let id = id.await.producer_id.0;
    assert!(id >= 0);
    let producer = (id, 0);
    for _ in 0..2 {
        assert_eq!(client.produce("a", batch_of(producer, 0, &["a", "b"])).await, (0, 0));
    }
    let gap = ErrorCode::OutOfOrderSequenceNumber.code();
    assert_eq!(client.produce("a", batch_of(producer, 3, &["d"])).await, (gap, -1));
    assert_eq!(client.produce("a", batch_of(producer, 2, &["c"])).await, (0, 2));
    let image = served.crash_image(dir.path());
    served.stop().await.unwrap();

    let served = serve(image.path()).await;
    let mut client = served.client().await;
    assert_eq!(client.produce("a", batch_of(producer, 2, &["c"])).await, (0, 2));
    assert_eq!(client.produce("a", batch_of(producer, 0, &["a", "b"])).await, (0, 0));
    assert_eq!(client.produce("a", batch_of(producer, 3, &["d"])).await, (0, 3));
    let other = InitProducerIdRequest::default().with_transactional_id(None);
    let other = client.ask(4, other).await.producer_id.0;
    assert_ne!(other, id);
    served.stop().await.unwrap();

    let served = serve(image.path()).await;
    let mut client = served.client().await;
    assert_eq!(client.produce("a", batch_of(producer, 3, &["d"])).await, (0, 3));
    let fenced = client.produce("a", batch_of((id, 1), 0, &["e"])).await;
    assert_eq!(fenced, (0, 4));
    let old = ErrorCode::InvalidProducerEpoch.code();
    assert_eq!(client.produce("a", batch_of(producer, 4, &["f"])).await, (old, -1));
    assert_eq!(client.values("a", 0).await, ["a", "b", "c", "d", "e"]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn transactions_are_refused_and_not_half_served() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let id = TransactionalId(crate::wire::StrBytes::from_static_str("t"));
    let request = InitProducerIdRequest::default().with_transactional_id(Some(id));
    let response = client.ask(3, request).await;
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
    let mut transactional = batch_of((1, 0), 0, &["x"]).to_vec();
    transactional[22] |= 0x10;
    let crc = crate::wire::batch::crc32c(&transactional[21..]);
    transactional[17..21].copy_from_slice(&crc.to_be_bytes());
    let refused = client.produce("a", transactional.into()).await;
    assert_eq!(refused, (ErrorCode::InvalidTxnState.code(), -1));
    served.stop().await.unwrap();
}

#[tokio::test]
async fn the_in_process_door_appends_to_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let topic = topic("task-events");
    assert_eq!(served.broker.ensure_topic(&topic, 2).await.unwrap(), 2);
    assert_eq!(served.broker.ensure_topic(&topic, 5).await.unwrap(), 2);
    assert_eq!(served.broker.partition_count(&topic), 2);
    let first = Partition::ZERO;
    for acks in [Acks::All, Acks::Leader, Acks::None] {
        let batch = ProducedBatch::check(&batch(&["x"])).unwrap();
        served.broker.produce(&topic, first, batch, acks).await.unwrap();
    }
    served.broker.sync(&topic, first).await.unwrap();
    assert_eq!(served.broker.reader(&topic, first).unwrap().high_watermark().get(), 3);
    let large = batch(&[&"x".repeat(2 << 20)]);
    let large = ProducedBatch::check(&large).unwrap();
    served.broker.produce(&topic, first, large, Acks::All).await.unwrap();
    let batch = ProducedBatch::check(&batch(&["x"])).unwrap();
    let nowhere = Partition::new(2).unwrap();
    let refused = served.broker.produce(&topic, nowhere, batch, Acks::All).await;
    assert!(matches!(refused, Err(ProduceError::UnknownTopicOrPartition)));
    assert!(served.broker.failures().is_empty());
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_topic_of_the_daemons_own_is_for_others_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("closed", 1).await;
    let (code, offset) = client.produce("closed", batch(&["forged"])).await;
    assert_eq!((code, offset), (ErrorCode::TopicAuthorizationFailed.code(), -1));
    let topic = crate::position::TopicName::new("closed").unwrap();
    let record = NewRecord { value: Some("ours".into()), ..NewRecord::default() };
    let batch = record::encode(&[record]);
    served.broker.produce(&topic, Partition::ZERO, batch, Acks::All).await.unwrap();
    assert_eq!(client.values("closed", 0).await, ["ours"]);
    served.stop().await.unwrap();
}
