//! Exactly once, from a record to a task to a socket, whatever comes twice, late or broken.

use crate::support::{TestDaemon, created, eventually, kafka, with_event_id};
use serde_json::{Value, json};

#[tokio::test]
async fn a_duplicate_event_is_pushed_once() {
    let daemon = TestDaemon::start().await;
    let mut socket = daemon.socket("ada").await;
    let event = with_event_id(created("t1", "ada", "once"), "e1");
    for _ in 0..3 {
        daemon.produce(&[event.clone(), event.clone()]).await;
    }
    daemon.produce(&[created("t2", "ada", "last")]).await;
    assert_eq!(socket.next().await["data"]["id"], "t1");
    assert_eq!(socket.next().await["data"]["id"], "t2");
    assert_eq!(socket.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_replay_after_a_delete_does_not_bring_the_task_back() {
    let daemon = TestDaemon::start().await;
    let creation = created("t1", "ada", "gone");
    daemon.produce(std::slice::from_ref(&creation)).await;
    let ada = daemon.user("ada");
    ada.task("t1").await;
    assert_eq!(ada.delete("/api/tasks/t1").await.status, 204);
    daemon.produce(&[creation, created("t2", "ada", "stays")]).await;
    let tasks = ada.tasks_when(1).await;
    assert_eq!(tasks[0]["id"], "t2");
}

#[tokio::test]
async fn a_completion_that_comes_first_waits_for_its_task() {
    let daemon = TestDaemon::start().await;
    let mut socket = daemon.socket("ada").await;
    daemon
        .produce(&[
            json!({"type": "task_completed", "data": {"id": 7, "completed": true}}),
            json!({"type": "task_created", "data": {"id": 7, "title": "late", "user_id": "ada"}}),
        ])
        .await;
    assert_eq!(socket.next().await["type"], "task_created");
    let completed = socket.next().await;
    assert_eq!(completed["type"], "task_completed");
    assert_eq!(completed["data"]["version"], 2);
    assert_eq!(daemon.user("ada").task("7").await["completed"], true);
}

#[tokio::test]
async fn bad_records_become_dead_letters_and_stop_nobody() {
    let daemon = TestDaemon::start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let good = created("good", "ada", "after them").to_string();
    let bad = [
        ("not json", "invalid_json"),
        ("", "invalid_json"),
        (deep.as_str(), "invalid_json"),
        ("[]", "invalid_json"),
        (r#"{"type":"task_created","data":{"id":"a","title":"no user"}}"#, "missing_user"),
        (
            r#"{"type":"task_created","data":{"id":"a","title":"","user_id":"ada"}}"#,
            "invalid_event",
        ),
        (r#"{"type":"task_created","data":{"title":"no id","user_id":"ada"}}"#, "invalid_event"),
    ];
    let mut values: Vec<&str> = bad.iter().map(|(value, _)| *value).collect();
    values.push(&good);
    let mut client = daemon.kafka_client().await;
    let answer = client.try_produce("task-events", &kafka::plain_batch(&values)).await;
    let base = answer.expect("an answer").base_offset;
    daemon.user("ada").task("good").await;
    let letters = eventually("the dead letters", async || {
        let letters = client.fetch_all("task-events.dlq").await;
        (letters.len() >= bad.len()).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), bad.len());
    for ((letter, (value, reason)), offset) in letters.iter().zip(bad).zip(base..) {
        assert_eq!(kafka::header(letter, "taskwire-reason"), reason, "{value:.40}");
        assert_eq!(kafka::header(letter, "taskwire-source-topic"), "task-events");
        assert_eq!(kafka::header(letter, "taskwire-source-partition"), "0");
        assert_eq!(kafka::header(letter, "taskwire-source-offset"), offset.to_string());
        assert_eq!(letter.value.as_deref().unwrap_or_default(), value.as_bytes());
    }
}

#[tokio::test]
async fn conflicts_are_dead_letters_and_the_task_stays() {
    let daemon = TestDaemon::start().await;
    daemon
        .produce(&[
            with_event_id(created("t1", "ada", "first"), "e1"),
            created("t1", "bob", "stolen"),
            json!({"type": "task_deleted", "data": {"id": "t1", "user_id": "bob"}}),
            with_event_id(created("t2", "ada", "reused id"), "e1"),
            created("t3", "ada", "last"),
        ])
        .await;
    let tasks = daemon.user("ada").tasks_when(2).await;
    assert_eq!((&tasks[0]["title"], &tasks[1]["id"]), (&json!("first"), &json!("t3")));
    assert!(daemon.user("bob").tasks().await.is_empty());
    let mut client = daemon.kafka_client().await;
    let letters = client.fetch_all("task-events.dlq").await;
    let reasons: Vec<String> =
        letters.iter().map(|letter| kafka::header(letter, "taskwire-reason")).collect();
    assert_eq!(reasons, ["task_conflict", "wrong_user", "event_id_reused"]);
}

#[tokio::test]
async fn ids_may_be_numbers_or_text_of_any_size() {
    let daemon = TestDaemon::start().await;
    let huge = format!("1{}", "0".repeat(30));
    let value =
        format!(r#"{{"type":"task_created","data":{{"id":{huge},"title":"huge","user_id":42}}}}"#);
    let mut client = daemon.kafka_client().await;
    client.try_produce("task-events", &kafka::plain_batch(&[&value])).await;
    assert_eq!(daemon.user("42").task(&huge).await["title"], "huge");
    assert_eq!(daemon.user("42").get(&format!("/api/tasks/{}", "9".repeat(200))).await.status, 404);
}

#[tokio::test]
async fn cloudevents_are_understood() {
    let daemon = TestDaemon::start().await;
    let event = json!({
        "specversion": "1.0", "type": "task_created", "source": "/crm", "id": "77",
        "data": {"id": "ce", "title": "structured", "user_id": "ada"},
    });
    daemon.produce(&[event.clone(), event]).await;
    let mut socket = daemon.socket_from("ada", "earliest").await;
    assert_eq!(socket.next().await["data"]["title"], "structured");
    assert_eq!(socket.drain().await, Vec::<Value>::new());
}
