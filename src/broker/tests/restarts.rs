use super::{client::*, *};
use crate::wire::messages::*;

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
