//! Requests that ask for more than anybody needs: the answer stays small, and comes soon.

use super::{client::*, *};
use crate::wire::{ErrorCode, StrBytes, messages::*};
use std::time::Instant;

const TIMES: usize = 10_000;
const TOPIC: i8 = 2;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[tokio::test]
async fn what_is_named_many_times_is_answered_once() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 3).await;

    let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(name("a")));
    let request = MetadataRequest::default().with_topics(Some(vec![asked; TIMES]));
    assert_eq!(client.ask(12, request).await.topics.len(), 1);

    let asked = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("a"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![asked; 200]);
    assert_eq!(client.ask(4, request).await.results.len(), 1);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn offsets_with_many_words_are_not_multiplied() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let partition = offset_commit_request::OffsetCommitRequestPartition::default()
        .with_committed_offset(7)
        .with_committed_metadata(Some(text(&"x".repeat(4096))));
    let topic = offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(name("a"))
        .with_partitions(vec![partition]);
    let request =
        OffsetCommitRequest::default().with_group_id(GroupId(text("g"))).with_topics(vec![topic]);
    let committed = client.ask(8, request).await;
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);

    let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
        .with_name(name("a"))
        .with_partition_indexes(vec![0; TIMES]);
    let group = offset_fetch_request::OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![topic; 3]));
    let response = client.ask(8, OffsetFetchRequest::default().with_groups(vec![group])).await;
    let partitions = response.groups[0].topics.iter().flat_map(|topic| &topic.partitions);
    let found: Vec<i64> = partitions.map(|partition| partition.committed_offset).collect();
    assert_eq!(found, [7]);

    let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
        .with_name(name("a"))
        .with_partition_indexes(vec![0; TIMES]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![topic]));
    assert_eq!(client.ask(7, request).await.topics[0].partitions.len(), 1);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_config_is_altered_once_in_a_request_and_has_a_bounded_value() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let mut alter = async |operation: i8, value: &str, times: usize| {
        let config = incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text("leader.replication.throttled.replicas"))
            .with_config_operation(operation)
            .with_value(Some(text(value)));
        let resource = incremental_alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text("a"))
            .with_configs(vec![config]);
        let request =
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource; times]);
        let response = client.ask(1, request).await;
        response.responses.iter().map(|response| response.error_code).collect::<Vec<_>>()
    };
    let (twice, invalid) = (ErrorCode::InvalidRequest.code(), ErrorCode::InvalidConfig.code());
    assert_eq!(alter(0, "0:1", 2).await, [0, twice]);
    let started = Instant::now();
    // Millions of items, each of which would be looked for among the others.
    let large = "1:1,".repeat(2_000_000);
    assert_eq!(alter(2, &large, 1).await, [invalid]);
    assert_eq!(alter(0, &large, 1).await, [invalid]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // Not even little by little.
    let mut refused = 0;
    for n in 0..6 {
        let items: Vec<String> = (n * 200..n * 200 + 200).map(|item| format!("{item}:1")).collect();
        refused += usize::from(alter(2, &items.join(","), 1).await == [invalid]);
    }
    assert!(refused > 0);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_partition_is_looked_up_once_in_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let partition = list_offsets_request::ListOffsetsPartition::default()
        .with_timestamp(1)
        .with_current_leader_epoch(-1);
    let topic = list_offsets_request::ListOffsetsTopic::default()
        .with_name(name("a"))
        .with_partitions(vec![partition; 3]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let response = client.ask(7, request).await;
    let codes: Vec<i16> = response.topics[0].partitions.iter().map(|p| p.error_code).collect();
    let twice = ErrorCode::InvalidRequest.code();
    assert_eq!(codes, [0, twice, twice]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_fetch_of_more_partitions_than_there_can_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let mut request = fetch("a", 0, 60_000);
    request.topics[0].partitions = vec![fetch_partition(0, 0); TIMES];
    let response = client.ask(12, request).await;
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_fetch_does_not_wait_for_more_than_it_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    client.produce("a", batch(&[&"x".repeat(2000)])).await;
    let started = Instant::now();
    let request = fetch("a", 0, 60_000).with_min_bytes(i32::MAX).with_max_bytes(1000);
    let response = client.ask(12, request).await;
    assert!(!response.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
    assert!(started.elapsed() < Duration::from_secs(30));
    served.stop().await.unwrap();
}
