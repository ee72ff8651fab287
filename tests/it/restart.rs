//! SIGTERM and SIGKILL in mid-stream: then exactly once in the API, on the topic and on a resumed
//! WebSocket.

use crate::support::{TestDaemon, created, http, kafka};
use serde_json::json;
use std::collections::BTreeSet;
use tokio::sync::watch;

const EVENTS: usize = 3_000;
const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_mid_stream_nothing_is_lost_or_doubled() {
    survives(async |daemon| daemon.kill_and_restart().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_in_mid_stream_nothing_is_lost_or_doubled() {
    survives(async |daemon| {
        let status = daemon.terminate();
        assert!(status.success(), "{status}\n{}", daemon.log());
        daemon.restart().await;
    })
    .await;
}

/// An idempotent producer that sends again what was not acknowledged, and a socket that resumes.
async fn survives(restart: impl AsyncFn(&mut TestDaemon)) {
    let mut daemon = TestDaemon::start().await;
    let (_all, allowed) = watch::channel(EVENTS);
    let producer = tokio::spawn(kafka::produce_numbered(daemon.kafka, EVENTS, allowed));
    let mut seen = Vec::new();
    let mut position = "earliest".to_owned();
    for round in 1..=KILLS {
        let mut socket = daemon.socket_from("ada", &position).await;
        while seen.len() < EVENTS * round / (KILLS + 1) {
            let message = socket.next().await;
            position = message["pos"].as_str().expect("a position").to_owned();
            seen.push(message["data"]["id"].as_str().expect("an id").to_owned());
        }
        restart(&mut daemon).await;
    }
    producer.await.expect("the producer ends");
    let mut socket = daemon.socket_from("ada", &position).await;
    while seen.len() < EVENTS {
        seen.push(socket.next().await["data"]["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(socket.drain().await.len(), 0, "nothing comes twice");
    let expected: Vec<String> = (0..EVENTS).map(|number| format!("t{number}")).collect();
    assert_eq!(seen, expected, "each once and in order on the resumed socket");
    let tasks = daemon.user("ada").tasks_when(EVENTS).await;
    assert!(tasks.iter().all(|task| task["version"] == 1));
    let records = daemon.kafka_client().await.fetch_all("task-events").await;
    assert_eq!(records.len(), EVENTS, "each once on the topic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_answered_survives_a_kill() {
    let mut daemon = TestDaemon::start().await;
    let mut answered = BTreeSet::new();
    for _ in 0..3 {
        let ada = daemon.user("ada");
        for number in 0..20 {
            let made = ada.post("/api/tasks", &json!({"title": format!("{number}")})).await;
            assert_eq!(made.status, 201);
            answered.insert(made.json()["id"].as_str().expect("an id").to_owned());
        }
        daemon.kill_and_restart().await;
        let tasks = daemon.user("ada").tasks_when(answered.len()).await;
        let kept: BTreeSet<String> =
            tasks.iter().map(|task| task["id"].as_str().expect("an id").to_owned()).collect();
        assert_eq!(kept, answered);
    }
}

#[tokio::test]
async fn dead_letters_are_written_once_across_kills() {
    let mut daemon = TestDaemon::start().await;
    let mut client = daemon.kafka_client().await;
    for round in 0..3 {
        client.try_produce("task-events", &kafka::plain_batch(&["bad", "worse"])).await;
        daemon.produce(&[created(&format!("t{round}"), "ada", "x")]).await;
        daemon.user("ada").task(&format!("t{round}")).await;
        daemon.kill_and_restart().await;
        client = daemon.kafka_client().await;
    }
    daemon.user("ada").tasks_when(3).await;
    assert_eq!(client.fetch_all("task-events.dlq").await.len(), 6);
}

#[tokio::test]
async fn sockets_are_told_of_the_stop() {
    let mut daemon = TestDaemon::start().await;
    let mut socket = daemon.socket("ada").await;
    socket.drain().await;
    daemon.signal("-TERM");
    assert_eq!(socket.close_code().await, Some(1001));
    assert!(daemon.ended().success());
    assert_eq!(http::try_get(daemon.http, "/healthz").await, None);
}
