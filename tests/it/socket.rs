//! `/ws/tasks` and `/ws/stats`: each change reaches its owner, in order, once.

use crate::support::{TestDaemon, created, eventually, with_event_id};
use serde_json::{Value, json};

#[tokio::test]
async fn a_change_reaches_its_owner_and_nobody_else() {
    let daemon = TestDaemon::start().await;
    let mut ada = daemon.socket("ada").await;
    let mut bob = daemon.socket("bob").await;
    daemon.produce(&[with_event_id(created("t1", "ada", "hello"), "e1")]).await;
    let message = ada.next().await;
    assert_eq!(message["type"], "task_created");
    assert_eq!(message["event_id"], "e1");
    assert_eq!(message["data"], daemon.user("ada").task("t1").await);
    assert!(message["pos"].is_string() && message["time"].is_string());
    daemon.user("ada").delete("/api/tasks/t1").await;
    let deleted = ada.next().await;
    assert_eq!(deleted["type"], "task_deleted");
    assert_eq!(deleted["data"], json!({"id": "t1", "user_id": "ada", "version": 2}));
    assert_eq!(bob.drain().await, Vec::<Value>::new());
    assert_eq!(ada.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn every_socket_of_a_user_gets_every_change() {
    let daemon = TestDaemon::start().await;
    let mut sockets = [daemon.socket("ada").await, daemon.socket("ada").await];
    let other = daemon.socket("bob").await;
    let stats = daemon.with_token(None).get("/ws/stats").await.json();
    assert_eq!((&stats["total_connections"], &stats["user_connections"]), (&json!(3), &json!(2)));
    daemon.user("ada").post("/api/tasks", &json!({"title": "both"})).await;
    let [first, second] = &mut sockets;
    assert_eq!(first.next().await, second.next().await);
    drop(other);
    eventually("the socket is gone", async || {
        let stats = daemon.with_token(None).get("/ws/stats").await.json();
        (stats["total_connections"] == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_socket_that_comes_back_gets_what_it_missed_once() {
    let daemon = TestDaemon::start().await;
    let mut socket = daemon.socket("ada").await;
    let events = |range: std::ops::Range<u32>| -> Vec<Value> {
        range.map(|number| created(&format!("t{number}"), "ada", "x")).collect()
    };
    daemon.produce(&events(0..10)).await;
    let mut position = String::new();
    for number in 0..10 {
        let message = socket.next().await;
        assert_eq!(message["data"]["id"], format!("t{number}"));
        position = message["pos"].as_str().expect("a position").to_owned();
    }
    drop(socket);
    daemon.produce(&events(10..900)).await;
    daemon.produce(&[created("other", "bob", "x")]).await;
    let mut socket = daemon.socket_from("ada", &position).await;
    for number in 10..900 {
        assert_eq!(socket.next().await["data"]["id"], format!("t{number}"));
    }
    assert_eq!(socket.drain().await, Vec::<Value>::new());
    // A pong comes after what was there before its ping: the whole replay.
    let all = daemon.socket_from("ada", "earliest").await.drain().await;
    let ids: Vec<&str> = all.iter().filter_map(|message| message["data"]["id"].as_str()).collect();
    assert_eq!(ids, (0..900).map(|number| format!("t{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_position_that_cannot_be_placed_is_told() {
    let daemon = TestDaemon::start().await;
    let mut socket = daemon.socket_from("ada", "abc.1.7").await;
    let message = socket.next().await;
    assert_eq!(message["type"], "resync");
    daemon.produce(&[created("t1", "ada", "x")]).await;
    assert_eq!(socket.next().await["data"]["id"], "t1");
    let query = format!("token={}&from=garbage", daemon.token("ada"));
    assert_eq!(daemon.try_socket(&query).await.map(|_| ()), Err(400));
}

#[tokio::test]
async fn other_live_data_needs_no_code() {
    let daemon = TestDaemon::start().await;
    let mut socket = daemon.socket("ada").await;
    let data = json!({"user_id": "ada", "celsius": 21.5, "nested": {"a": [1, 2]}});
    daemon.produce(&[json!({"type": "temperature", "data": data})]).await;
    let message = socket.next().await;
    assert_eq!((&message["type"], &message["data"]), (&json!("temperature"), &data));
}

#[tokio::test]
async fn a_reader_that_stops_reading_harms_nobody() {
    let daemon = TestDaemon::start().await;
    let stalled = daemon.socket("ada").await;
    let mut reader = daemon.socket("ada").await;
    let big = "x".repeat(9_000);
    for round in 0..20 {
        let events: Vec<Value> = (0..50)
            .map(|number| {
                let mut event = created(&format!("t{round}-{number}"), "ada", "big");
                event["data"]["description"] = json!(big);
                event
            })
            .collect();
        daemon.produce(&events).await;
        for number in 0..50 {
            assert_eq!(reader.next().await["data"]["id"], format!("t{round}-{number}"));
        }
    }
    drop(stalled);
}
