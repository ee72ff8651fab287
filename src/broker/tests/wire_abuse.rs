use super::{client::*, *};
use crate::wire::{ApiKey, api::APIS, messages::*};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn http_on_the_kafka_port_gets_a_readable_answer() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    served.stop().await.unwrap();
}

#[tokio::test]
async fn garbage_closes_only_its_own_connection() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut good = served.client().await;
    good.create("a", 1).await;
    let length = |length: i32| length.to_be_bytes().to_vec();
    let mut unknown_key = length(8);
    unknown_key.extend([0x7f, 0xff, 0, 0, 0, 0, 0, 1]);
    let old_produce = frame(3, 1, &produce("a", 0, 1, batch(&["x"])));
    let mut old_produce = old_produce.to_vec();
    old_produce[7] = 0;
    for garbage in [
        length(-1),
        length(0),
        length(i32::MAX),
        vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196],
        unknown_key,
        old_produce,
        [length(20), vec![0xff; 20]].concat(),
    ] {
        let mut bad = served.client().await;
        bad.stream.write_all(&garbage).await.unwrap();
        assert_eq!(bad.receive_frame().await, None, "{garbage:?}");
        assert_eq!(good.produce("a", batch(&["x"])).await.0, 0);
    }
    assert_eq!(served.metrics.broker_bad_requests.get(), 7);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_goes_in_the_middle_of_a_request_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let whole = frame(9, 1, &produce("a", 0, -1, batch(&["x"])));
    for cut in 1..whole.len() {
        let mut gone = served.client().await;
        gone.stream.write_all(&whole[..cut]).await.unwrap();
    }
    let mut waiting = served.client().await;
    waiting.send(12, &fetch("a", 0, 60_000)).await;
    drop(waiting);
    while served.metrics.broker_connections.get() > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.values("a", 0).await, [""; 0]);
    served.stop().await.unwrap();
}

#[tokio::test]
async fn requests_that_arrive_byte_by_byte_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    for byte in frame(3, 9, &api_versions()).iter() {
        client.stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let response = client.receive::<ApiVersionsRequest>(3, 9).await;
    assert_eq!(response.api_keys.len(), APIS.len());
    served.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_sends_and_shuts_its_side_is_still_heard() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    client.create("a", 1).await;
    let mut sender = served.client().await;
    for _ in 0..10 {
        sender.send(9, &produce("a", 0, 0, batch(&["x"]))).await;
    }
    sender.stream.shutdown().await.unwrap();
    assert_eq!(sender.receive_frame().await, None);
    // The records are visible after their sync, for which acks 0 does not wait.
    while client.values("a", 0).await.len() < 10 {
        tokio::task::yield_now().await;
    }
    served.stop().await.unwrap();
}

#[tokio::test]
async fn above_the_limit_connections_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.connections_max = 1;
    let served = serve_with(options).await;
    let mut first = served.client().await;
    first.ask(3, api_versions()).await;
    let mut second = served.client().await;
    assert_eq!(second.receive_frame().await, None);
    first.ask(3, api_versions()).await;
    served.stop().await.unwrap();
}

#[tokio::test]
async fn api_versions_are_answered_in_every_version_and_above() {
    let dir = tempfile::tempdir().unwrap();
    let served = serve(dir.path()).await;
    let mut client = served.client().await;
    for version in versions(ApiKey::ApiVersions) {
        let response = client.ask(version, api_versions()).await;
        assert_eq!((response.error_code, response.api_keys.len()), (0, APIS.len()), "{version}");
    }
    // Version 5 in the layout of version 0: error 35 and the one line of ApiVersions.
    let mut newer = frame(4, 77, &api_versions()).to_vec();
    newer[7] = 5;
    client.stream.write_all(&newer).await.unwrap();
    let answer = client.receive_frame().await.unwrap();
    assert_eq!(answer[..], [0, 0, 0, 77, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    client.ask(4, api_versions()).await;
    let unnamed = client.ask(3, ApiVersionsRequest::default()).await;
    assert_eq!(unnamed.error_code, crate::wire::ErrorCode::InvalidRequest.code());
    served.stop().await.unwrap();
}

fn api_versions() -> ApiVersionsRequest {
    let name = crate::wire::StrBytes::from_static_str("tests-1.0");
    ApiVersionsRequest::default()
        .with_client_software_name(name.clone())
        .with_client_software_version(name)
}
