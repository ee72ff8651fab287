use super::{client::*, *};
use crate::wire::{StrBytes, messages::*};

#[tokio::test]
async fn acknowledged_records_are_there_after_a_stop_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    client.produce("a", batch(&["one"])).await;
    served.stop().await.unwrap();

    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    assert_eq!(client.produce("a", batch(&["two"])).await, (0, 1));
    let image = served.crash_image(dir.path());
    served.stop().await.unwrap();

    let served = serve(image.path()).await;
    let mut client = served.client().await;
    assert_eq!(client.values("a", 0).await, ["one", "two"]);
    assert_eq!(client.produce("a", batch(&["three"])).await, (0, 2));
    served.stop().await.unwrap();
}

#[tokio::test]
async fn the_leader_epoch_rises_after_a_crash_and_fences_those_who_know_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let image = served.crash_image(dir.path());
    served.stop().await.unwrap();
    let served = serve(image.path()).await;
    let mut client = served.client().await;
    let epoch = client.ask(12, MetadataRequest::default().with_topics(None)).await;
    assert_eq!(epoch.topics[0].partitions[0].leader_epoch, 1);
    let mut request = fetch("a", 0, 0);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    let response = client.ask(12, request).await;
    let fenced = crate::wire::ErrorCode::FencedLeaderEpoch.code();
    assert_eq!(response.responses[0].partitions[0].error_code, fenced);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn many_topics_start_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    for n in 0..10 {
        client.create(&format!("t{n}"), 2).await;
    }
    served.stop().await.unwrap();
    let started = std::time::Instant::now();
    let served = serve(dir.path()).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    println!("20 partitions opened in {took:?}");
    served.stop().await.unwrap();
}

#[tokio::test]
async fn every_durability_keeps_what_a_kill_leaves() {
    let interval = Durability::Interval(Duration::from_millis(20));
    for durability in [Durability::Commit, interval, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        options.durability = durability;
        let served = serve_with(options).await;
        let mut client = served.client().await;
        client.create("a", 1).await;
        assert_eq!(client.produce("a", batch(&["x"])).await, (0, 0), "{durability:?}");
        assert_eq!(client.values("a", 0).await, ["x"]);
        if durability == interval {
            while served.metrics.log_syncs.get() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let image = served.crash_image(dir.path());
        served.stop().await.unwrap();
        let served = serve(image.path()).await;
        let mut client = served.client().await;
        assert_eq!(client.values("a", 0).await, ["x"]);
        served.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_window_that_spans_segments_is_known_after_every_crash() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    let segment_bytes = create_topics_request::CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("segment.bytes"))
        .with_value(Some(StrBytes::from_static_str("4096")));
    let topic = create_topics_request::CreatableTopic::default()
        .with_name(name("a"))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![segment_bytes]);
    client.ask(7, CreateTopicsRequest::default().with_topics(vec![topic])).await;
    let value = "x".repeat(1500);
    let sent = |sequence: i32| batch_of((7, 0), sequence, &[&value]);
    for sequence in 0..9 {
        let answer = client.produce("a", sent(sequence)).await;
        assert_eq!(answer, (0, i64::from(sequence)));
        let image = served.crash_image(dir.path());
        let again = serve(image.path()).await;
        let mut client = again.client().await;
        for sequence in (0..=sequence).rev().take(5) {
            let resent = client.produce("a", sent(sequence)).await;
            assert_eq!(resent, (0, i64::from(sequence)));
        }
        let next = sequence + 1;
        assert_eq!(client.produce("a", sent(next)).await, (0, i64::from(next)));
        again.stop().await.unwrap();
    }
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_commit_that_was_answered_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let group = || GroupId(StrBytes::from_static_str("g"));
    let partition = |offset| {
        offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(offset)
    };
    for offset in [3, 9, 4] {
        let topic = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(name("a"))
            .with_partitions(vec![partition(offset)]);
        let request =
            OffsetCommitRequest::default().with_group_id(group()).with_topics(vec![topic]);
        let answer = client.ask(8, request).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        let image = served.crash_image(dir.path());
        let again = serve(image.path()).await;
        let mut client = again.client().await;
        let request = OffsetFetchRequest::default().with_group_id(group()).with_topics(None);
        let found = client.ask(7, request).await;
        assert_eq!(found.topics[0].partitions[0].committed_offset, offset);
        again.stop().await.unwrap();
    }
    served.stop().await.unwrap();
}
